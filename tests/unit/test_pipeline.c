/* The pipeline with its threads, over a queue in memory and a toy stage. */
#include "unit.h"

#include "base/metrics.h"
#include "fake_queue.h"
#include "pipeline/internal.h"
#include "toy_stage.h"

enum { MS = 1000000 };

struct fixture {
    struct fake_queue queue;
    struct toy toy;
    struct pipeline_options options;
    struct pipeline *pipeline;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    fake_open(&f->queue);
    toy_init(&f->toy, false);
    f->options = (struct pipeline_options){.worker_count = 3,
                                           .time_window_ns = 60000ull * MS,
                                           .grace_ns = 5 * MS,
                                           .finished_sets_max = 100000,
                                           .waiting_messages_max = 100000,
                                           .held_bytes_max = 100 << 20};
    *state = f;
    return 0;
}

static void start(struct fixture *f)
{
    assert_int_equal(pipeline_start(&f->pipeline, &f->queue.queue, &f->toy.stage, &f->options), 0);
}

static void stop(struct fixture *f)
{
    assert_int_equal(pipeline_stop(f->pipeline, 30000), 0);
    pipeline_destroy(f->pipeline);
    f->pipeline = NULL;
}

/* Whatever a test did: nothing is settled twice, no equation failed, nothing is left behind. */
static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->pipeline)
        stop(f);
    assert_int_equal(f->queue.double_settlements, 0);
    assert_int_equal(f->queue.broken_equations, 0);
    assert_int_equal(f->queue.batches, 0);
    assert_int_equal(f->queue.writers, 0);
    assert_int_equal(atomic_load(&f->toy.items), 0);
    toy_fini(&f->toy);
    fake_close(&f->queue);
    free(f);
    return 0;
}

static uint64_t accept(struct fixture *f, const char *key, char side, const char *payload)
{
    char topic[64];
    snprintf(topic, sizeof topic, "toy/%s/%c", key, side);
    return fake_accept(&f->queue, topic, payload);
}

static void assert_outcome(struct fixture *f, uint64_t offset, enum queue_outcome outcome, const char *reason, const char *stage)
{
    struct fake_message message = fake_look(&f->queue, offset);
    assert_int_equal(message.outcome, outcome);
    assert_string_equal(message.reason, reason);
    assert_string_equal(message.stage, stage);
}

static const char *answer_to(struct fixture *f, uint64_t offset)
{
    struct fake_message message = fake_look(&f->queue, offset);
    return message.result == UINT64_MAX ? "" : f->queue.results[message.result].payload;
}

/* Polls, because what is waited for is inside the pipeline and tells nobody. */
#define WAIT_FOR(condition)                                                                                                                \
    do {                                                                                                                                   \
        uint64_t until_ns_ = clock_monotonic_ns() + FAKE_DEADLINE_S * 1000000000ull;                                                       \
        while (!(condition)) {                                                                                                             \
            assert_true(clock_monotonic_ns() < until_ns_);                                                                                 \
            nanosleep(&(struct timespec){.tv_nsec = MS / 2}, NULL);                                                                        \
        }                                                                                                                                  \
    } while (0)

static uint64_t waiting_messages(struct fixture *f)
{
    return atomic_load(&f->pipeline->waiting_messages);
}

static uint64_t look(struct fixture *f, const unsigned *value)
{
    pthread_mutex_lock(&f->queue.lock);
    uint64_t now = *value;
    pthread_mutex_unlock(&f->queue.lock);
    return now;
}

static uint64_t turns_waiting(struct fixture *f)
{
    pthread_mutex_lock(&f->queue.lock);
    uint64_t now = f->queue.turns_waiting;
    pthread_mutex_unlock(&f->queue.lock);
    return now;
}

static uint64_t messages_read(struct fixture *f)
{
    pthread_mutex_lock(&f->queue.lock);
    uint64_t now = f->queue.read;
    pthread_mutex_unlock(&f->queue.lock);
    return now;
}

/* ---- outcomes ---- */

static void every_kind_of_message_gets_its_outcome(void **state)
{
    struct fixture *f = *state;
    start(f);
    uint64_t a = accept(f, "k", 'a', "1 7 good x");
    uint64_t b = accept(f, "k", 'b', "1 7 good y");
    uint64_t c = accept(f, "k", 'c', "1 - good z");
    uint64_t ignored = fake_accept(&f->queue, "toy/k/answer", "whatever");
    uint64_t rejected = fake_accept(&f->queue, "toy/k/d", "whatever");
    uint64_t bad = accept(f, "k", 'a', "1 7 bad x");
    uint64_t broken = accept(f, "k", 'a', "2 8 broken x");
    uint64_t b2 = accept(f, "k", 'b', "2 8 good y");
    uint64_t repeat = accept(f, "k", 'b', "1 7 good y");
    uint64_t silent = accept(f, "k", 'a', "3 - good silent");
    uint64_t b3 = accept(f, "k", 'b', "3 - good y");
    uint64_t lost = accept(f, "k", 'a', "5 - good lost");
    uint64_t b5 = accept(f, "k", 'b', "5 - good y");
    uint64_t two = accept(f, "k", 'a', "4 - good double");
    uint64_t b4 = accept(f, "k", 'b', "4 - good y");
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_outcome(f, a, QUEUE_COMPLETED, "", "");
    assert_outcome(f, b, QUEUE_COMPLETED, "", "");
    assert_outcome(f, c, QUEUE_COMPLETED, "", "");
    assert_string_equal(answer_to(f, a), "1 7 a=x b=y c=z");
    assert_string_equal(answer_to(f, c), "1 7 a=x b=y c=z");
    assert_outcome(f, ignored, QUEUE_COMPLETED, "", "");
    assert_outcome(f, rejected, QUEUE_DEAD_LETTERED, "unknown_topic", "route");
    assert_outcome(f, bad, QUEUE_DEAD_LETTERED, "not_json", "parse");
    assert_outcome(f, broken, QUEUE_DEAD_LETTERED, "bad_value", "parse");
    assert_string_equal(answer_to(f, b2), "2 8 a=broken b=y c=-");
    assert_outcome(f, repeat, QUEUE_DUPLICATE, "", "");
    assert_outcome(f, silent, QUEUE_COMPLETED, "", "");
    assert_string_equal(answer_to(f, silent), "");
    assert_outcome(f, b3, QUEUE_COMPLETED, "", "");
    assert_outcome(f, lost, QUEUE_DEAD_LETTERED, "internal", "publish");
    assert_outcome(f, b5, QUEUE_DEAD_LETTERED, "internal", "publish");
    assert_string_equal(answer_to(f, two), "4"); /* the last result names the sources */
    assert_string_equal(answer_to(f, b4), "4");
    assert_int_equal(f->queue.result_count, 4);
}

static void lonely_messages_are_given_up_after_the_window(void **state)
{
    struct fixture *f = *state;
    f->options.time_window_ns = 20 * MS;
    start(f);
    uint64_t a = accept(f, "k", 'a', "1 7 good x");
    uint64_t c = accept(f, "l", 'c', "1 - good x");
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_outcome(f, a, QUEUE_DEAD_LETTERED, "unmatched", "join");
    assert_outcome(f, c, QUEUE_DEAD_LETTERED, "unmatched", "join");
    assert_non_null(strstr(fake_look(&f->queue, c).error, "no a, b for l at 1; waited 0.0"));
    WAIT_FOR(waiting_messages(f) == 0);
}

static void ids_that_disagree_are_answered_after_the_window(void **state)
{
    struct fixture *f = *state;
    f->options.time_window_ns = 20 * MS;
    start(f);
    uint64_t a = accept(f, "k", 'a', "1 7 good x");
    uint64_t b = accept(f, "k", 'b', "1 8 good y");
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_outcome(f, a, QUEUE_COMPLETED, "", "");
    assert_outcome(f, b, QUEUE_COMPLETED, "", "");
    assert_int_equal(f->queue.result_count, 1);
    assert_string_equal(answer_to(f, b), answer_to(f, a));
    uint64_t repeat = accept(f, "k", 'b', "1 8 good y");
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_outcome(f, repeat, QUEUE_DUPLICATE, "", "");
}

/* Whether they were together before the stop or not: one answer, and the repeats are known for what they are. */
static void ids_that_disagree_are_answered_once_across_restarts(void **state)
{
    struct fixture *f = *state;
    start(f);
    uint64_t a = accept(f, "k", 'a', "1 7 good x");
    WAIT_FOR(waiting_messages(f) == 1);
    stop(f);
    fake_reopen(&f->queue);
    start(f);
    uint64_t b = accept(f, "k", 'b', "1 8 good y");
    WAIT_FOR(waiting_messages(f) == 2);
    stop(f);
    fake_reopen(&f->queue);
    f->options.time_window_ns = 20 * MS;
    start(f);
    assert_true(fake_wait_pending(&f->queue, 0));
    stop(f);
    fake_reopen(&f->queue);
    f->queue.read = 0;
    start(f);
    uint64_t repeats[] = {accept(f, "k", 'a', "1 7 good x"), accept(f, "k", 'b', "1 8 good y")};
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_string_equal(answer_to(f, b), answer_to(f, a));
    assert_int_equal(f->queue.result_count, 1);
    assert_outcome(f, repeats[0], QUEUE_DUPLICATE, "", "");
    assert_outcome(f, repeats[1], QUEUE_DUPLICATE, "", "");
}

static void missing_optional_side_is_answered_after_the_grace(void **state)
{
    struct fixture *f = *state;
    start(f);
    uint64_t a = accept(f, "k", 'a', "1 7 good x");
    accept(f, "k", 'b', "1 7 good y");
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_string_equal(answer_to(f, a), "1 7 a=x b=y c=-");
    uint64_t late = accept(f, "k", 'c', "1 - good z");
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_outcome(f, late, QUEUE_DEAD_LETTERED, "late", "join");
}

static void window_can_be_changed_while_running(void **state)
{
    struct fixture *f = *state;
    start(f);
    uint64_t a = accept(f, "k", 'a', "1 7 good x");
    WAIT_FOR(waiting_messages(f) == 1);
    f->options.time_window_ns = 1 * MS;
    pipeline_reconfigure(f->pipeline, &f->options);
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_outcome(f, a, QUEUE_DEAD_LETTERED, "unmatched", "join");
    f->options.time_window_ns = 60000ull * MS;
    f->options.duplicates = PIPELINE_DUPLICATES_ERROR;
    pipeline_reconfigure(f->pipeline, &f->options);
    accept(f, "k", 'a', "2 7 good x");
    uint64_t other = accept(f, "k", 'a', "2 7 good y");
    assert_true(fake_wait_pending(&f->queue, 1));
    assert_outcome(f, other, QUEUE_DEAD_LETTERED, "duplicate", "join");
}

static void options_are_checked(void **state)
{
    struct fixture *f = *state;
    struct pipeline_options good = f->options;
    struct pipeline *pipeline = NULL;
    struct pipeline_options bad[7] = {good, good, good, good, good, good, good};
    bad[0].worker_count = 0;
    bad[1].worker_count = PIPELINE_WORKERS_MAX + 1;
    bad[2].time_window_ns = 0;
    bad[3].waiting_messages_max = TOY_SIDES - 1;
    bad[4].duplicates = (enum pipeline_duplicates)3;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(pipeline_start(&pipeline, &f->queue.queue, &f->toy.stage, &bad[i]), ERR_INVALID);
    assert_null(pipeline);
    pipeline_destroy(NULL);
}

/* ---- restarts ---- */

static void open_sets_survive_a_restart(void **state)
{
    struct fixture *f = *state;
    f->options.time_window_ns = 60000ull * MS;
    start(f);
    uint64_t broken = accept(f, "k", 'a', "1 7 broken x");
    uint64_t a2 = accept(f, "k", 'a', "2 8 good x");
    uint64_t done_a = accept(f, "l", 'a', "3 9 good x");
    accept(f, "l", 'b', "3 9 good y");
    accept(f, "l", 'c', "3 9 good z");
    assert_true(fake_wait_pending(&f->queue, 1));
    stop(f);
    assert_outcome(f, a2, (enum queue_outcome)0, "", "");
    fake_reopen(&f->queue);
    f->queue.read = 0; /* the settled ones are delivered too, so that the broken side is known again */
    start(f);
    uint64_t b1 = accept(f, "k", 'b', "1 7 good y");
    uint64_t b2 = accept(f, "k", 'b', "2 8 good y");
    uint64_t repeat = accept(f, "l", 'a', "3 9 good x"); /* answered in the life before */
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_outcome(f, broken, QUEUE_DEAD_LETTERED, "bad_value", "parse");
    assert_string_equal(answer_to(f, b1), "1 7 a=broken b=y c=-");
    assert_string_equal(answer_to(f, a2), "2 8 a=x b=y c=-");
    assert_string_equal(answer_to(f, b2), "2 8 a=x b=y c=-");
    assert_outcome(f, repeat, QUEUE_DUPLICATE, "", "");
    assert_string_equal(answer_to(f, done_a), "3 9 a=x b=y c=z");
    assert_int_equal(f->queue.result_count, 3);
}

static void downtime_does_not_count_as_waiting(void **state)
{
    struct fixture *f = *state;
    start(f);
    uint64_t a = accept(f, "k", 'a', "1 7 good x");
    WAIT_FOR(waiting_messages(f) == 1);
    stop(f);
    f->queue.messages[a].time_ns -= 3600ull * 1000 * MS; /* an hour ago, while nobody ran */
    fake_reopen(&f->queue);
    start(f);
    WAIT_FOR(waiting_messages(f) == 1);
    uint64_t b = accept(f, "k", 'b', "1 7 good y");
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_string_equal(answer_to(f, b), "1 7 a=x b=y c=-");
}

static void what_was_not_durable_is_done_again(void **state)
{
    struct fixture *f = *state;
    start(f);
    fake_hold(&f->queue, true);
    uint64_t a = accept(f, "k", 'a', "1 7 good x");
    accept(f, "k", 'b', "1 7 good y");
    accept(f, "k", 'c', "1 7 good z");
    uint64_t bad = accept(f, "l", 'a', "1 7 bad x");
    WAIT_FOR(turns_waiting(f) == 2);
    fake_crash(&f->queue);
    WAIT_FOR(turns_waiting(f) == 0);
    stop(f);
    assert_int_equal(f->queue.result_count, 0);
    fake_hold(&f->queue, false);
    fake_reopen(&f->queue);
    start(f);
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_string_equal(answer_to(f, a), "1 7 a=x b=y c=z");
    assert_outcome(f, bad, QUEUE_DEAD_LETTERED, "not_json", "parse");
    assert_int_equal(f->queue.result_count, 1);
}

/* ---- limits ---- */

static unsigned depth(struct fixture *f)
{
    return scheduler_depth(&f->pipeline->scheduler);
}

static void accept_many(struct fixture *f, unsigned keys, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char key[16], payload[64];
        snprintf(key, sizeof key, "k%u", i % keys);
        snprintf(payload, sizeof payload, "%u - bad x", i);
        accept(f, key, 'a', payload);
    }
}

static void full_mailbox_holds_the_consumer_back_where_nothing_can_be_put_aside(void **state)
{
    struct fixture *f = *state;
    f->queue.ops.read_again = NULL;
    toy_gate(&f->toy, true);
    accept_many(f, 1, LANE_ENTRIES_MAX + 3 * FAKE_BATCH_MAX);
    start(f);
    WAIT_FOR(depth(f) == LANE_ENTRIES_MAX);
    assert_true(messages_read(f) <= LANE_ENTRIES_MAX + FAKE_BATCH_MAX);
    assert_int_equal(depth(f), LANE_ENTRIES_MAX);
    toy_gate(&f->toy, false);
    assert_true(fake_wait_pending(&f->queue, 0));
}

/* Ends without working off what waits behind the gate. */
static void stop_while_gated(struct fixture *f)
{
    assert_int_equal(pipeline_stop(f->pipeline, 1), ERR_BUSY);
    toy_gate(&f->toy, false);
    stop(f);
}

/* One worker is stuck in a message of one key, and many more of its messages come. */
static void hot_key_does_not_hold_up_the_others(void **state)
{
    struct fixture *f = *state;
    enum { HOT = LANE_ENTRIES_MAX + 4 * FAKE_BATCH_MAX };
    f->options.grace_ns = 0;
    f->toy.gate_topic = "toy/k0/";
    toy_gate(&f->toy, true);
    for (unsigned i = 0; i < HOT; i++) {
        char payload[64];
        snprintf(payload, sizeof payload, "%u - good v%u", i / 2, i);
        accept(f, "k0", i % 2 ? 'b' : 'a', payload);
    }
    start(f);
    uint64_t a = accept(f, "cold", 'a', "1 7 good x");
    accept(f, "cold", 'c', "1 7 good z");
    accept(f, "cold", 'b', "1 7 good y"); /* the last one that the answer waits for */
    assert_true(fake_wait_pending(&f->queue, HOT));
    assert_string_equal(answer_to(f, a), "1 7 a=x b=y c=z");
    assert_int_equal(depth(f), HOT);
    assert_int_equal(f->pipeline->scheduler.aside_count, HOT - LANE_ENTRIES_MAX);
    toy_gate(&f->toy, false);
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_int_equal(f->queue.reads_again, HOT - LANE_ENTRIES_MAX);
    for (unsigned i = 0; i < HOT; i += 2) { /* in order, and with their content */
        char expected[64];
        snprintf(expected, sizeof expected, "%u - a=v%u b=v%u c=-", i / 2, i, i + 1);
        assert_string_equal(answer_to(f, i), expected);
        assert_true(i == 0 || fake_look(&f->queue, i).result > fake_look(&f->queue, i - 2).result);
    }
}

static void large_messages_of_a_hot_key_do_not_hold_up_the_others(void **state)
{
    struct fixture *f = *state;
    enum { LARGE = 1 << 20, COUNT = 100 };
    char *payload = malloc(LARGE);
    memset(payload, 'x', LARGE);
    memcpy(payload, "1 - bad x ", 10);
    f->toy.gate_topic = "toy/k/";
    toy_gate(&f->toy, true);
    start(f);
    for (unsigned i = 0; i < COUNT; i++)
        fake_accept_bytes(&f->queue, "toy/k/a", payload, LARGE);
    free(payload);
    uint64_t cold = accept(f, "cold", 'a', "1 - bad x");
    assert_true(fake_wait_pending(&f->queue, COUNT));
    assert_outcome(f, cold, QUEUE_DEAD_LETTERED, "not_json", "parse");
    pthread_mutex_lock(&f->pipeline->scheduler.lock);
    size_t held = f->pipeline->scheduler.batch_bytes;
    pthread_mutex_unlock(&f->pipeline->scheduler.lock);
    assert_true(held <= SCHEDULER_BYTES_MAX / 2 + 4 * LARGE);
    toy_gate(&f->toy, false);
    assert_true(fake_wait_pending(&f->queue, 0));
}

static void messages_put_aside_are_bounded(void **state)
{
    struct fixture *f = *state;
    enum { BOUND = LANE_ENTRIES_MAX + SCHEDULER_ASIDE_MAX };
    toy_gate(&f->toy, true);
    accept_many(f, 1, BOUND + 3 * FAKE_BATCH_MAX);
    start(f);
    WAIT_FOR(depth(f) == BOUND);
    assert_true(messages_read(f) <= BOUND + FAKE_BATCH_MAX);
    assert_int_equal(depth(f), BOUND);
    stop_while_gated(f);
}

static void message_put_aside_that_is_lost_stays_pending(void **state)
{
    struct fixture *f = *state;
    toy_gate(&f->toy, true);
    accept_many(f, 1, LANE_ENTRIES_MAX + 2);
    f->queue.lost_again = LANE_ENTRIES_MAX;
    start(f);
    WAIT_FOR(depth(f) == LANE_ENTRIES_MAX + 2);
    toy_gate(&f->toy, false);
    assert_true(fake_wait_pending(&f->queue, 1));
    WAIT_FOR(depth(f) == 0);
    assert_int_equal(atomic_load(&f->pipeline->failures[OPERATION_READ_AGAIN]), 1);
    assert_outcome(f, LANE_ENTRIES_MAX, (enum queue_outcome)0, "", "");
    assert_outcome(f, LANE_ENTRIES_MAX + 1, QUEUE_DEAD_LETTERED, "not_json", "parse");
}

static void all_mailboxes_together_are_bounded(void **state)
{
    struct fixture *f = *state;
    toy_gate(&f->toy, true);
    accept_many(f, 997, SCHEDULER_ENTRIES_MAX + 3 * FAKE_BATCH_MAX);
    start(f);
    WAIT_FOR(depth(f) == SCHEDULER_ENTRIES_MAX);
    assert_true(messages_read(f) <= SCHEDULER_ENTRIES_MAX + FAKE_BATCH_MAX);
    toy_gate(&f->toy, false);
    assert_true(fake_wait_pending(&f->queue, 0));
}

static void referenced_batches_are_bounded_in_bytes(void **state)
{
    struct fixture *f = *state;
    enum { LARGE = 1 << 20, COUNT = 100 };
    char *payload = malloc(LARGE);
    memset(payload, 'x', LARGE);
    memcpy(payload, "1 - bad x ", 10);
    toy_gate(&f->toy, true);
    start(f);
    for (unsigned i = 0; i < COUNT; i++) {
        char topic[32];
        snprintf(topic, sizeof topic, "toy/k%u/a", i);
        fake_accept_bytes(&f->queue, topic, payload, LARGE);
    }
    free(payload);
    uint64_t expected = SCHEDULER_BYTES_MAX / LARGE;
    WAIT_FOR(messages_read(f) >= expected);
    unsigned fetches = (unsigned)look(f, &f->queue.fetches);
    assert_true(messages_read(f) <= expected + 1);
    assert_int_equal(look(f, &f->queue.fetches), fetches); /* it does not even ask */
    toy_gate(&f->toy, false);
    assert_true(fake_wait_pending(&f->queue, 0));
}

static void undurable_commits_are_bounded(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 400 };
    fake_hold(&f->queue, true);
    start(f);
    for (unsigned i = 0; i < COUNT; i++) {
        accept_many(f, 1, 1); /* one at a time, so that each is a slice of its own */
        if (i < COMMITS_SPARE)
            WAIT_FOR(turns_waiting(f) > i);
    }
    WAIT_FOR(turns_waiting(f) >= COMMITS_SPARE + 1);
    assert_true(turns_waiting(f) <= COMMITS_SPARE + f->options.worker_count + 1);
    fake_hold(&f->queue, false);
    assert_true(fake_wait_pending(&f->queue, 0));
}

static void too_many_waiting_messages_give_up_the_oldest(void **state)
{
    struct fixture *f = *state;
    enum { MAX = 500, COUNT = 2000 };
    f->options.waiting_messages_max = MAX;
    start(f);
    uint64_t seen_max = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i % 61);
        char payload[32];
        snprintf(payload, sizeof payload, "%u - good x", i);
        accept(f, key, 'a', payload);
        uint64_t waiting = waiting_messages(f);
        seen_max = waiting > seen_max ? waiting : seen_max;
    }
    assert_true(fake_wait_pending(&f->queue, MAX));
    WAIT_FOR(depth(f) == 0 && waiting_messages(f) <= MAX);
    assert_true(waiting_messages(f) >= MAX - f->options.worker_count); /* two may make room at once */
    assert_true(seen_max <= MAX + f->options.worker_count);
    unsigned given_up_of_newest = 0;
    for (uint64_t i = 0; i < COUNT; i++) {
        struct fake_message message = fake_look(&f->queue, i);
        if (message.outcome) {
            assert_string_equal(message.reason, "overflow");
            given_up_of_newest += i >= COUNT - MAX / 2;
        }
    }
    assert_int_equal(given_up_of_newest, 0); /* exact but for lanes that run at the moment */
}

static void held_content_is_bounded_and_read_again(void **state)
{
    struct fixture *f = *state;
    enum { MAX = 50 * 1000, COUNT = 1000 };
    f->options.held_bytes_max = MAX;
    start(f);
    char key[16], payload[64], expected[64];
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(key, sizeof key, "k%u", i % 61);
        snprintf(payload, sizeof payload, "%u - good x%u", i, i);
        accept(f, key, 'a', payload);
        assert_true(atomic_load(&f->pipeline->held_bytes) <= MAX + 1000 * f->options.worker_count);
    }
    WAIT_FOR(waiting_messages(f) == COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(key, sizeof key, "k%u", i % 61);
        snprintf(payload, sizeof payload, "%u - good y%u", i, i);
        accept(f, key, 'b', payload);
    }
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_true(f->queue.reads_again >= COUNT - MAX / 1000);
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(expected, sizeof expected, "%u - a=x%u b=y%u c=-", i, i, i);
        assert_string_equal(answer_to(f, i), expected);
    }
}

static void without_replay_the_oldest_sets_make_room_instead(void **state)
{
    struct fixture *f = *state;
    f->queue.ops.read_again = NULL;
    f->options.held_bytes_max = 10 * 1000;
    start(f);
    for (unsigned i = 0; i < 100; i++) {
        char payload[32];
        snprintf(payload, sizeof payload, "%u - good x", i);
        accept(f, "k", 'a', payload);
    }
    assert_true(fake_wait_pending(&f->queue, 10));
    for (unsigned i = 0; i < 90; i++)
        assert_outcome(f, i, QUEUE_DEAD_LETTERED, "overflow", "join");
}

static void finished_sets_are_bounded(void **state)
{
    struct fixture *f = *state;
    enum { MAX = 100, COUNT = 2000 };
    f->options.finished_sets_max = MAX;
    f->options.grace_ns = 0;
    start(f);
    for (unsigned i = 0; i < COUNT; i++) {
        char key[16], payload[64];
        snprintf(key, sizeof key, "k%u", i % 61);
        snprintf(payload, sizeof payload, "%u - good x", i);
        accept(f, key, 'a', payload);
        accept(f, key, 'b', payload);
    }
    assert_true(fake_wait_pending(&f->queue, 0));
    WAIT_FOR(atomic_load(&f->pipeline->finished_sets) <= MAX);
    assert_int_equal(f->queue.result_count, COUNT);
    /* The last answer is known, the first is not. */
    accept(f, "k", 'a', "last - good x");
    accept(f, "k", 'b', "last - good x");
    assert_true(fake_wait_pending(&f->queue, 0));
    uint64_t repeat = accept(f, "k", 'a', "last - good x");
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_outcome(f, repeat, QUEUE_DUPLICATE, "", "");
    char key[16], payload[64];
    unsigned set;
    assert_int_equal(sscanf(f->queue.results[0].topic, "toy/%15[^/]/answer", key), 1);
    assert_int_equal(sscanf(f->queue.results[0].payload, "%u", &set), 1);
    snprintf(payload, sizeof payload, "%u - good x", set);
    accept(f, key, 'a', payload);
    WAIT_FOR(waiting_messages(f) == 1);
}

/* ---- trouble below ---- */

static void failed_fetch_is_tried_again(void **state)
{
    struct fixture *f = *state;
    f->queue.fetch_failures = 2;
    start(f);
    accept(f, "k", 'a', "1 - bad x");
    assert_true(fake_wait_pending(&f->queue, 0));
    assert_int_equal(atomic_load(&f->pipeline->failures[OPERATION_FETCH]), 2);
}

static void failed_commits_are_counted_and_stay_pending(void **state)
{
    struct fixture *f = *state;
    f->queue.commit_failures = 1;
    start(f);
    uint64_t lost = accept(f, "k", 'a', "1 - bad x");
    WAIT_FOR(atomic_load(&f->pipeline->failures[OPERATION_COMMIT]) == 1);
    assert_outcome(f, lost, (enum queue_outcome)0, "", "");
    fake_crash(&f->queue);
    accept(f, "k", 'a', "2 - bad x");
    pthread_mutex_lock(&f->pipeline->commits.lock);
    while (f->pipeline->commits.failures == 0)
        pthread_cond_wait(&f->pipeline->commits.returned, &f->pipeline->commits.lock);
    pthread_mutex_unlock(&f->pipeline->commits.lock);
    stop(f);
    fake_reopen(&f->queue);
    start(f);
    assert_true(fake_wait_pending(&f->queue, 0));
}

static void stop_gives_up_on_a_queue_that_hangs(void **state)
{
    struct fixture *f = *state;
    start(f);
    fake_hold(&f->queue, true);
    accept(f, "k", 'a', "1 - bad x");
    WAIT_FOR(turns_waiting(f) == 1);
    assert_int_equal(pipeline_stop(f->pipeline, 1), ERR_BUSY);
    fake_hold(&f->queue, false);
    stop(f);
    assert_true(fake_wait_pending(&f->queue, 0));
}

static void stop_finishes_what_was_taken_in(void **state)
{
    struct fixture *f = *state;
    toy_gate(&f->toy, true);
    start(f);
    accept_many(f, 10, 1000);
    WAIT_FOR(depth(f) == 1000);
    toy_gate(&f->toy, false);
    stop(f);
    assert_true(fake_wait_pending(&f->queue, 0));
}

static void stop_in_a_hurry_leaves_the_rest_pending(void **state)
{
    struct fixture *f = *state;
    f->options.worker_count = 1;
    toy_gate(&f->toy, true);
    start(f);
    accept_many(f, 10, 1000);
    WAIT_FOR(depth(f) == 1000);
    assert_int_equal(pipeline_stop(f->pipeline, 1), ERR_BUSY); /* the worker is inside parse() */
    toy_gate(&f->toy, false);
    stop(f);
    struct queue_counts counts;
    fake_counts(&f->queue.queue, &counts);
    assert_true(counts.pending >= 1000 - SLICE_ENTRIES_MAX);
    fake_reopen(&f->queue);
    start(f);
    assert_true(fake_wait_pending(&f->queue, 0));
}

/* ---- metrics ---- */

static void assert_page_has(const char *page, const char *line)
{
    if (!strstr(page, line))
        fail_msg("no line \"%s\" in\n%s", line, page);
}

static void metrics_tell_what_happened(void **state)
{
    struct fixture *f = *state;
    start(f);
    accept(f, "k", 'a', "1 7 good x");
    accept(f, "k", 'b', "1 7 good x");
    accept(f, "k", 'c', "1 7 good x");
    accept(f, "k", 'c', "1 7 good x");
    accept(f, "k", 'a', "2 7 broken x");
    accept(f, "k", 'b', "2 7 good x");
    fake_accept(&f->queue, "other", "");
    fake_accept(&f->queue, "toy/k/nonsense", "");
    accept(f, "k", 'a', "3 7 good x");
    assert_true(fake_wait_pending(&f->queue, 1));
    WAIT_FOR(turns_waiting(f) == 0);
    struct buffer page;
    buffer_init(&page, 1 << 20);
    assert_int_equal(metrics_write(&page), 0);
    const char *text = buffer_text(&page);
    assert_page_has(text, "drilling_messages_received_total{message_type=\"a\"} 3\n");
    assert_page_has(text, "drilling_messages_received_total{message_type=\"b\"} 2\n");
    assert_page_has(text, "drilling_messages_received_total{message_type=\"c\"} 2\n");
    assert_page_has(text, "drilling_messages_received_total{message_type=\"other\"} 1\n");
    assert_page_has(text, "drilling_messages_received_total{message_type=\"unknown\"} 1\n");
    assert_page_has(text, "drilling_messages_processed_total{status=\"completed\"} 5\n");
    assert_page_has(text, "drilling_messages_processed_total{status=\"duplicate\"} 1\n");
    assert_page_has(text, "drilling_messages_processed_total{status=\"dead_lettered\"} 2\n");
    assert_page_has(text, "drilling_holes_total{outcome=\"answered\"} 1\n");
    assert_page_has(text, "drilling_holes_total{outcome=\"error\"} 1\n");
    assert_page_has(text, "drilling_holes_total{outcome=\"never\"} 0\n");
    assert_page_has(text, "drilling_processing_duration_seconds_bucket{le=\"0.001\"}");
    assert_page_has(text, "drilling_processing_duration_seconds_bucket{le=\"5\"} 2\n");
    assert_page_has(text, "drilling_processing_duration_seconds_count 2\n");
    assert_page_has(text, "drilling_queue_depth{queue_name=\"waiting\"} 1\n");
    assert_page_has(text, "drilling_queue_capacity{queue_name=\"lanes\"} 163840\n");
    assert_page_has(text, "spindle_pipeline_open_sets 1\n");
    assert_page_has(text, "spindle_pipeline_held_bytes 1000\n");
    assert_page_has(text, "spindle_pipeline_workers 3\n");
    assert_page_has(text, "spindle_pipeline_lag_messages 0\n");
    assert_page_has(text, "spindle_pipeline_queue_failures_total{operation=\"commit\"} 0\n");
    assert_int_equal(atomic_load(&f->toy.collected), 1);
    buffer_fini(&page);
}

/* ---- everything at once ---- */

enum { KEYS = 40, SETS = 60 };

static unsigned next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*seed >> 33);
}

struct planned {
    uint16_t key, set;
    char side;
    bool repeat;
};

/* The messages of all sets, shuffled within a span so that many sets are open at once, with repeats and messages that are refused. */
static size_t plan(struct planned *planned, uint64_t *seed)
{
    size_t count = 0;
    for (unsigned set = 0; set < SETS; set++)
        for (unsigned key = 0; key < KEYS; key++)
            for (char side = 'a'; side <= 'c'; side++) {
                planned[count++] = (struct planned){(uint16_t)key, (uint16_t)set, side, false};
                if (next_random(seed) % 10 == 0)
                    planned[count++] = (struct planned){(uint16_t)key, (uint16_t)set, side, true};
            }
    for (size_t i = 0; i < count; i++) {
        size_t span = count - i < 500 ? count - i : 500, j = i + next_random(seed) % span;
        struct planned other = planned[i];
        planned[i] = planned[j];
        planned[j] = other;
    }
    return count;
}

/* Which sets have a broken message is a matter of their numbers; side c is never the broken one. */
static const char *kind_of(unsigned key, unsigned set, char side)
{
    unsigned mix = key * 31 + set * 17;
    return mix % 23 == 0 && side == "ab"[mix % 2] ? "broken" : "good";
}

static void send_planned(struct fixture *f, const struct planned *message, uint64_t *seed)
{
    char key[16], payload[64];
    snprintf(key, sizeof key, "k%u", message->key);
    snprintf(payload, sizeof payload, "%u %u %s v%u", message->set, message->set + 1000, kind_of(message->key, message->set, message->side),
             message->set);
    accept(f, key, message->side, payload);
    if (next_random(seed) % 20 == 0)
        accept(f, key, 'a', "9999 - bad x");
    if (next_random(seed) % 20 == 0)
        fake_accept(&f->queue, "toy/k/answer", "not ours");
}

static void check_answers(struct fixture *f)
{
    static uint8_t answered[KEYS][SETS];
    memset(answered, 0, sizeof answered);
    for (uint64_t i = 0; i < f->queue.result_count; i++) {
        unsigned key, set;
        char a[16], b[16], c[16];
        assert_int_equal(sscanf(f->queue.results[i].topic, "toy/k%u/answer", &key), 1);
        assert_int_equal(sscanf(f->queue.results[i].payload, "%u %*u a=%15s b=%15s c=%15s", &set, a, b, c), 4);
        char value[16];
        snprintf(value, sizeof value, "v%u", set);
        assert_string_equal(a, strcmp(kind_of(key, set, 'a'), "good") ? "broken" : value);
        assert_string_equal(b, strcmp(kind_of(key, set, 'b'), "good") ? "broken" : value);
        assert_string_equal(c, value);
        answered[key][set]++;
    }
    for (unsigned key = 0; key < KEYS; key++)
        for (unsigned set = 0; set < SETS; set++)
            assert_int_equal(answered[key][set], 1);
}

/* Plays everything with a restart after each part: a stop, or a crash that loses what was not durable. */
static void play(struct fixture *f, uint64_t seed, unsigned parts)
{
    struct planned *planned = calloc((size_t)KEYS * SETS * 6, sizeof *planned);
    size_t count = plan(planned, &seed), sent = 0;
    for (unsigned part = 1; part <= parts; part++) {
        start(f);
        for (; sent < count * part / parts; sent++)
            send_planned(f, &planned[sent], &seed);
        if (part == parts)
            break;
        if (next_random(&seed) % 2)
            fake_crash(&f->queue);
        stop(f);
        fake_reopen(&f->queue);
    }
    assert_true(fake_wait_pending(&f->queue, 0));
    stop(f);
    free(planned);
    check_answers(f);
    assert_int_equal(f->queue.outcomes[QUEUE_COMPLETED] + f->queue.outcomes[QUEUE_DUPLICATE] + f->queue.outcomes[QUEUE_DEAD_LETTERED],
                     f->queue.count);
}

static void random_traffic_is_answered_once(void **state)
{
    struct fixture *f = *state;
    f->options.grace_ns = 60000ull * MS; /* side c always comes */
    play(f, 1, 1);
}

static void random_traffic_with_restarts_is_answered_once(void **state)
{
    struct fixture *f = *state;
    f->options.grace_ns = 60000ull * MS;
    play(f, 2, 8);
}

static void random_traffic_with_little_memory_is_answered_once(void **state)
{
    struct fixture *f = *state;
    f->options.grace_ns = 60000ull * MS;
    f->options.held_bytes_max = 20 * 1000;
    f->options.worker_count = 4;
    play(f, 3, 4);
    assert_true(f->queue.reads_again > 100);
}

/* The set that is ready first is answered first: by the offset of its last required message. */
static void answers_of_a_key_leave_in_order(void **state)
{
    struct fixture *f = *state;
    static uint64_t ready[KEYS][SETS];
    uint64_t seed = 4, newest[KEYS] = {0};
    struct planned *planned = calloc((size_t)KEYS * SETS * 6, sizeof *planned);
    size_t count = plan(planned, &seed);
    f->options.grace_ns = 60000ull * MS;
    memset(ready, 0, sizeof ready);
    start(f);
    for (size_t i = 0; i < count; i++) {
        char key[16], payload[64];
        if (planned[i].repeat)
            continue;
        snprintf(key, sizeof key, "k%u", planned[i].key);
        snprintf(payload, sizeof payload, "%u - good x", planned[i].set);
        uint64_t offset = accept(f, key, planned[i].side, payload);
        if (planned[i].side != 'c')
            ready[planned[i].key][planned[i].set] = offset;
    }
    free(planned);
    assert_true(fake_wait_pending(&f->queue, 0));
    for (uint64_t i = 0; i < f->queue.result_count; i++) {
        unsigned key, set;
        assert_int_equal(sscanf(f->queue.results[i].topic, "toy/k%u/answer", &key), 1);
        assert_int_equal(sscanf(f->queue.results[i].payload, "%u", &set), 1);
        assert_true(ready[key][set] > newest[key] || newest[key] == 0);
        newest[key] = ready[key][set];
    }
    assert_int_equal(f->queue.result_count, KEYS * SETS);
}

/* Nothing to do, nothing done: the consumer waits inside one fetch. */
static void idle_pipeline_does_not_poll(void **state)
{
    struct fixture *f = *state;
    start(f);
    accept(f, "k", 'a', "1 - good x"); /* an open set with a deadline far away */
    WAIT_FOR(waiting_messages(f) == 1);
    WAIT_FOR(look(f, &f->queue.fetches) >= 3);
    struct timespec cpu_before, cpu_after;
    clockid_t clocks[4];
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_getcpuclockid(f->pipeline->workers[i].thread, &clocks[i]), 0);
    assert_int_equal(pthread_getcpuclockid(f->pipeline->consumer.thread, &clocks[3]), 0);
    uint64_t used_ns = 0, fetches = look(f, &f->queue.fetches), until_ns = clock_monotonic_ns() + 100 * MS;
    uint64_t before[4];
    for (unsigned i = 0; i < 4; i++) {
        clock_gettime(clocks[i], &cpu_before);
        before[i] = (uint64_t)cpu_before.tv_sec * 1000000000u + (uint64_t)cpu_before.tv_nsec;
    }
    WAIT_FOR(clock_monotonic_ns() > until_ns);
    for (unsigned i = 0; i < 4; i++) {
        clock_gettime(clocks[i], &cpu_after);
        used_ns += (uint64_t)cpu_after.tv_sec * 1000000000u + (uint64_t)cpu_after.tv_nsec - before[i];
    }
    assert_int_equal(look(f, &f->queue.fetches), fetches);
    assert_true(used_ns < MS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_kind_of_message_gets_its_outcome),
        TEST(lonely_messages_are_given_up_after_the_window),
        TEST(ids_that_disagree_are_answered_after_the_window),
        TEST(ids_that_disagree_are_answered_once_across_restarts),
        TEST(missing_optional_side_is_answered_after_the_grace),
        TEST(window_can_be_changed_while_running),
        TEST(options_are_checked),
        TEST(open_sets_survive_a_restart),
        TEST(downtime_does_not_count_as_waiting),
        TEST(what_was_not_durable_is_done_again),
        TEST(full_mailbox_holds_the_consumer_back_where_nothing_can_be_put_aside),
        TEST(hot_key_does_not_hold_up_the_others),
        TEST(large_messages_of_a_hot_key_do_not_hold_up_the_others),
        TEST(messages_put_aside_are_bounded),
        TEST(message_put_aside_that_is_lost_stays_pending),
        TEST(all_mailboxes_together_are_bounded),
        TEST(referenced_batches_are_bounded_in_bytes),
        TEST(undurable_commits_are_bounded),
        TEST(too_many_waiting_messages_give_up_the_oldest),
        TEST(held_content_is_bounded_and_read_again),
        TEST(without_replay_the_oldest_sets_make_room_instead),
        TEST(finished_sets_are_bounded),
        TEST(failed_fetch_is_tried_again),
        TEST(failed_commits_are_counted_and_stay_pending),
        TEST(stop_gives_up_on_a_queue_that_hangs),
        TEST(stop_finishes_what_was_taken_in),
        TEST(stop_in_a_hurry_leaves_the_rest_pending),
        TEST(metrics_tell_what_happened),
        TEST(random_traffic_is_answered_once),
        TEST(random_traffic_with_restarts_is_answered_once),
        TEST(random_traffic_with_little_memory_is_answered_once),
        TEST(answers_of_a_key_leave_in_order),
        TEST(idle_pipeline_does_not_poll),
    };
    return cmocka_run_group_tests_name("pipeline", tests, NULL, NULL);
}
