/* The pipeline with its threads, over a queue in memory and a toy stage. */
#include "pipeline_fixture.h"

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
    assert_string_equal(answer_to(f, silent), "3 - a=silent b=y c=-");
    assert_outcome(f, b3, QUEUE_COMPLETED, "", "");
    assert_outcome(f, lost, QUEUE_DEAD_LETTERED, "internal", "publish");
    assert_outcome(f, b5, QUEUE_DEAD_LETTERED, "internal", "publish");
    assert_string_equal(answer_to(f, two), "4"); /* the last result names the sources */
    assert_string_equal(answer_to(f, b4), "4");
    assert_int_equal(f->queue.result_count, 5);
    for (uint64_t i = 0; i < f->queue.result_count; i++)
        assert_int_equal(f->queue.results[i].withheld, strstr(f->queue.results[i].payload, "a=silent") != NULL);
}

static void withheld_answers_are_remembered_across_restarts(void **state)
{
    struct fixture *f = *state;
    start(f);
    accept(f, "k", 'a', "1 7 good silent");
    accept(f, "k", 'b', "1 7 good y");
    accept(f, "l", 'a', "1 - good silent");
    accept(f, "l", 'b', "1 - good y");
    accept(f, "l", 'c', "1 - good z");
    assert_true(fake_wait_pending(&f->queue, 0));
    stop(f);
    fake_reopen(&f->queue);
    start(f);
    uint64_t repeats[] = {accept(f, "k", 'a', "1 7 good silent"), accept(f, "k", 'b', "1 7 good y"), accept(f, "l", 'b', "1 - good y"),
                          accept(f, "l", 'c', "1 - good z")};
    uint64_t late = accept(f, "k", 'c', "1 - good z");
    assert_true(fake_wait_pending(&f->queue, 0));
    for (size_t i = 0; i < sizeof repeats / sizeof *repeats; i++)
        assert_outcome(f, repeats[i], QUEUE_DUPLICATE, "", "");
    assert_outcome(f, late, QUEUE_DEAD_LETTERED, "late", "join");
    assert_int_equal(f->queue.result_count, 2);
    assert_true(f->queue.results[0].withheld && f->queue.results[1].withheld);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_kind_of_message_gets_its_outcome),
        TEST(withheld_answers_are_remembered_across_restarts),
        TEST(lonely_messages_are_given_up_after_the_window),
        TEST(ids_that_disagree_are_answered_after_the_window),
        TEST(ids_that_disagree_are_answered_once_across_restarts),
        TEST(missing_optional_side_is_answered_after_the_grace),
        TEST(window_can_be_changed_while_running),
        TEST(options_are_checked),
        TEST(open_sets_survive_a_restart),
        TEST(downtime_does_not_count_as_waiting),
        TEST(what_was_not_durable_is_done_again),
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
