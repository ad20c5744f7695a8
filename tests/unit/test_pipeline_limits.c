/* The pipeline at its limits: how much it holds, and who waits for whom. */
#include "pipeline_fixture.h"

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
    accept(f, "cold", 'b', "1 7 good y");
    assert_true(fake_wait_pending(&f->queue, HOT));
    assert_string_equal(answer_to(f, a), "1 7 a=x b=y c=-");
    WAIT_FOR(depth(f) == HOT);
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

static void lose_one_put_aside(struct fixture *f, int error, unsigned pending)
{
    toy_gate(&f->toy, true);
    accept_many(f, 1, LANE_ENTRIES_MAX + 2);
    f->queue.lost_again = LANE_ENTRIES_MAX;
    f->queue.lost_error = error;
    start(f);
    WAIT_FOR(depth(f) == LANE_ENTRIES_MAX + 2);
    toy_gate(&f->toy, false);
    assert_true(fake_wait_pending(&f->queue, pending));
    WAIT_FOR(depth(f) == 0);
    assert_int_equal(atomic_load(&f->pipeline->failures[OPERATION_READ_AGAIN]), 1);
}

static void message_put_aside_that_is_gone_is_given_up(void **state)
{
    struct fixture *f = *state;
    lose_one_put_aside(f, ERR_NOT_FOUND, 0);
    assert_outcome(f, LANE_ENTRIES_MAX, QUEUE_DEAD_LETTERED, "internal", "join");
    assert_outcome(f, LANE_ENTRIES_MAX + 1, QUEUE_DEAD_LETTERED, "not_json", "parse");
}

static void message_put_aside_that_cannot_be_read_now_stays_pending(void **state)
{
    struct fixture *f = *state;
    lose_one_put_aside(f, ERR_NO_MEMORY, 1);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(full_mailbox_holds_the_consumer_back_where_nothing_can_be_put_aside),
        TEST(hot_key_does_not_hold_up_the_others),
        TEST(large_messages_of_a_hot_key_do_not_hold_up_the_others),
        TEST(messages_put_aside_are_bounded),
        TEST(message_put_aside_that_is_gone_is_given_up),
        TEST(message_put_aside_that_cannot_be_read_now_stays_pending),
        TEST(all_mailboxes_together_are_bounded),
        TEST(referenced_batches_are_bounded_in_bytes),
        TEST(undurable_commits_are_bounded),
        TEST(too_many_waiting_messages_give_up_the_oldest),
        TEST(held_content_is_bounded_and_read_again),
        TEST(without_replay_the_oldest_sets_make_room_instead),
        TEST(finished_sets_are_bounded),
    };
    return cmocka_run_group_tests_name("pipeline_limits", tests, NULL, NULL);
}
