/* The persistent sessions: how large they and their stream become, names as long as they can be, threads, and records that are damaged. */
#include "sessions_fixture.h"

#include <pthread.h>

#include "base/clock.h"
#include "base/random.h"
#include "folder.h"
#include "sessions/session.h"

/* ---- the stream ---- */

static void the_stream_stays_within_bounds(void **state)
{
    (void)state;
    struct fixture f = {.options.slack = 50000};
    start(&f);
    for (unsigned i = 0; i < 50; i++) { /* that nobody changes */
        char id[16];
        snprintf(id, sizeof id, "still-%u", i);
        subscribe(&f, create(&f, id), "still/#", 1);
    }
    struct session *session = create(&f, "a");
    struct journal_stream_stats stats;
    for (unsigned i = 0; i < 20000; i++) {
        char filter[32];
        snprintf(filter, sizeof filter, "filter/%u", i % 100);
        subscribe(&f, session, filter, (uint8_t)(i / 100 % 3));
        if (i % 3 == 0)
            assert_int_equal(sessions_unsubscribe(f.sessions, session, filter, strlen(filter), NULL), 0);
        if (i % 50 == 0)
            settle(&f);
        journal_stream_stats(f.streams[STREAM_SESSIONS], &stats);
        assert_true(stats.bytes < 600000); /* without writing again it would be three million */
    }
    assert_true(stats.first_offset > 0);
    unsigned count = look(&f, session).filter_count;
    again(&f);
    assert_int_equal(status_of(&f).sessions, 51);
    assert_int_equal(look(&f, attach(&f, "a")).filter_count, count);
    assert_string_equal(look(&f, attach(&f, "still-49")).filters, "still/#:1 ");
    finish(&f);
}

/* ---- limits ---- */

static void there_are_limits(void **state)
{
    (void)state;
    struct fixture f = {.options = {.sessions_max = 3, .bytes_max = 8000}};
    start(&f);
    struct session *session = create(&f, "a"), *refused = NULL;
    create(&f, "b");
    create(&f, "c");
    assert_int_equal(sessions_create(f.sessions, "d", 1, "", &somebody, &refused), ERR_LIMIT);
    assert_null(refused);
    struct router_subscription how = {.qos = 1};
    const struct session_subscription *made = NULL;
    uint64_t place = 99;
    int error = 0;
    unsigned count = 0, sent_count = 0, taken_count = 0;
    char filter[200] = "";
    while (!error) {
        snprintf(filter, sizeof filter, "%0150u", count);
        error = sessions_subscribe(f.sessions, session, filter, 150, &how, NULL, NULL);
        count += !error;
    }
    assert_int_equal(error, ERR_LIMIT);
    assert_in_range(count, 10, 40);
    assert_int_equal(sessions_subscribe(f.sessions, session, filter, 150, &how, &made, &place), ERR_LIMIT);
    assert_null(made);
    assert_int_equal(place, 99);
    for (struct session_sent one = {.packet_id = 1, .qos = 2}; !(error = sessions_sent(f.sessions, session, &one, &place)); sent_count++)
        one.packet_id++;
    assert_int_equal(error, ERR_LIMIT);
    struct queue_origin origin = {0};
    for (uint16_t id = 1; !(error = sessions_take(f.sessions, session, id, &origin)); id++)
        taken_count++;
    assert_int_equal(error, ERR_LIMIT);
    size_t bytes = status_of(&f).bytes;
    assert_in_range(bytes, 7900, 8000);
    again(&f);                                                                                 /* what was there fits */
    assert_int_equal(status_of(&f).bytes, bytes - taken_count * sizeof(struct session_taken)); /* there are no messages */
    session = attach(&f, "a");
    assert_int_equal(look(&f, session).filter_count, count);
    settle(&f);
    kill_process(&f);
    f.options.sessions_max = 2;
    assert_int_equal(try_start(&f), ERR_LIMIT);
    kill_process(&f);
    f.options.sessions_max = 3;
    f.options.bytes_max = 4000;
    assert_int_equal(try_start(&f), ERR_LIMIT);
    finish(&f);
}

static void so_many_messages_are_under_way_at_most(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    struct session *session = create(&f, "a");
    struct session_sent *list = calloc(SESSIONS_SENT_MAX, sizeof *list);
    for (unsigned i = 0; i < SESSIONS_SENT_MAX; i++)
        list[i] = (struct session_sent){.offset = i, .packet_id = (uint16_t)(i + 1), .content = 1, .qos = 1};
    struct sessions_leave leave = {.expiry_s = 60, .wall_ns = clock_wall_ns(), .sent = list, .sent_count = SESSIONS_SENT_MAX, .next_id = 1};
    sessions_detach(f.sessions, session, &leave);
    settle(&f);
    session = attach(&f, "a");
    struct session_sent one = {.offset = 70000, .packet_id = 1, .content = 1, .qos = 2};
    assert_int_equal(sessions_sent(f.sessions, session, &one, NULL), ERR_LIMIT);
    assert_int_equal(sessions_advance(f.sessions, session, &(struct follower_places){{0, 60000, 0}}), 0);
    assert_int_equal(sessions_sent(f.sessions, session, &one, NULL), 0);
    again(&f);
    session = attach(&f, "a");
    struct sessions_status status = status_of(&f);
    assert_in_range(status.bytes, 5536 * sizeof *list, 5536 * sizeof *list + 1000);
    free(list);
    finish(&f);
}

/* Who leaves with more than there is room for stands where he stood, as after a crash. */
static void who_leaves_with_too_much_stands_where_he_stood(void **state)
{
    (void)state;
    struct fixture f = {.options.bytes_max = 2000};
    start(&f);
    struct session *session = create(&f, "a");
    subscribe(&f, session, "t", 1);
    sent(&f, session, 5, 1, 0);
    assert_int_equal(sessions_advance(f.sessions, session, &(struct follower_places){{4, 0, 0}}), 0);
    struct session_sent list[200];
    for (unsigned i = 0; i < 200; i++)
        list[i] = (struct session_sent){.offset = 6 + i, .packet_id = (uint16_t)(i + 1), .qos = 1};
    struct sessions_leave leave = {.expiry_s = 60,
                                   .wall_ns = clock_wall_ns(),
                                   .cursor = {{6, 0, 0}},
                                   .position = {{300, 0, 0}},
                                   .sent = list,
                                   .sent_count = 200,
                                   .next_id = 201};
    sessions_detach(f.sessions, session, &leave);
    for (unsigned restarted = 0; restarted < 2; restarted++) {
        settle(&f);
        session = attach(&f, "a");
        struct seen seen = look(&f, session);
        assert_int_equal(seen.sent_count, 1);
        assert_int_equal(seen.cursor.at[0], 4);
        assert_int_equal(seen.position.at[0], 4);
        assert_int_equal(seen.next_id, 2);
        again(&f);
    }
    finish(&f);
}

/* What is on its way to the disk is bounded: who subscribes without an end is refused until the disk has taken it. */
static void the_way_to_the_disk_is_bounded(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    struct session *session = create(&f, "a");
    static char filter[60001];
    memset(filter, 'f', 60000);
    struct router_subscription how = {.qos = 0};
    int error = 0;
    unsigned count = 0;
    for (; !error && count < 3000; count++) {
        how.identifier = count;
        error = sessions_subscribe(f.sessions, session, filter, 60000, &how, NULL, NULL);
    }
    assert_int_equal(error, ERR_LIMIT);
    assert_in_range(count, 1000, 1200);
    assert_int_equal(sessions_unsubscribe(f.sessions, session, filter, 60000, NULL), ERR_LIMIT);
    struct session *refused;
    assert_int_equal(sessions_create(f.sessions, "b", 1, "", &somebody, &refused), ERR_LIMIT);
    detach(&f, session, 100, clock_wall_ns()); /* that does */
    settle(&f);
    session = attach(&f, "a");
    assert_int_equal(sessions_unsubscribe(f.sessions, session, filter, 60000, NULL), 0);
    finish(&f);
}

static void sessions_of_a_user_are_counted(void **state)
{
    (void)state;
    struct fixture f = {0};
    char id[8];
    start(&f);
    for (unsigned turn = 0; turn < 3; turn++) {
        for (unsigned i = 0; i < 200 && turn == 0; i++) {
            struct session *session;
            snprintf(id, sizeof id, "c%u", i);
            assert_int_equal(sessions_create(f.sessions, id, strlen(id), i % 2 ? "odd" : "even", &somebody, &session), 0);
        }
        assert_int_equal(sessions_of(f.sessions, "odd"), 100);
        assert_int_equal(sessions_of(f.sessions, "even"), 100);
        assert_int_equal(sessions_of(f.sessions, ""), 0);
        again(&f);
    }
    struct session *session;
    for (unsigned i = 1; i < 200; i += 2) {
        assert_int_equal(sessions_of(f.sessions, "odd"), 100 - i / 2);
        snprintf(id, sizeof id, "c%u", i);
        assert_int_equal(attach_as(&f, id, "odd", true, &session), SESSIONS_NONE);
    }
    assert_int_equal(sessions_of(f.sessions, "odd"), 0);
    assert_int_equal(sessions_of(f.sessions, "even"), 100);
    finish(&f);
}

/* What sessions.h says of it. */
static void memory_is_what_is_said(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    create(&f, "first of its user");
    size_t before = status_of(&f).bytes;
    struct session *session = create(&f, "ten--bytes");
    assert_in_range(status_of(&f).bytes - before, 345, 380);
    before = status_of(&f).bytes;
    subscribe(&f, session, "twenty bytes of text", 1);
    assert_in_range(status_of(&f).bytes - before, 130, 150);
    before = status_of(&f).bytes;
    sent(&f, session, 1, 1, 0);
    assert_int_equal(status_of(&f).bytes - before, 16);
    take(&f, session, 1, QUEUE_KEPT);
    assert_int_equal(status_of(&f).bytes - before, 32);
    finish(&f);
}

/* ---- threads ---- */

enum { THREADS = 4, ROUNDS = 300 };

struct worker {
    struct sessions *sessions;
    pthread_t thread;
    unsigned number;
};

static void *work(void *context)
{
    struct worker *worker = context;
    struct random_source random = {worker->number};
    struct session *session = NULL;
    struct session_owner owner = {worker->number, 0, 0}, other;
    char id[16];
    snprintf(id, sizeof id, "worker-%u", worker->number);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct router_subscription how = {.qos = (uint8_t)(i % 3)};
        struct session_sent one = {.offset = i, .packet_id = (uint16_t)(i + 1), .qos = 2};
        struct sessions_status status;
        other = owner;
        if (!session && sessions_attach(worker->sessions, id, strlen(id), "", false, clock_wall_ns(), &other, &session) == SESSIONS_NONE)
            assert_int_equal(sessions_create(worker->sessions, id, strlen(id), "", &owner, &session), 0);
        if (session) {
            assert_int_equal(sessions_subscribe(worker->sessions, session, "filter", 6, &how, NULL, NULL), 0);
            assert_int_equal(sessions_sent(worker->sessions, session, &one, NULL), 0);
            assert_int_equal(sessions_completed(worker->sessions, session, one.packet_id, NULL), 0);
            assert_int_equal(sessions_advance(worker->sessions, session, &(struct follower_places){{i, 0, 0}}), 0);
        }
        if (session && random_below(&random, 4) == 0) {
            struct sessions_leave leave = {.expiry_s = random_below(&random, 2), .wall_ns = clock_wall_ns(), .next_id = 1};
            sessions_detach(worker->sessions, session, &leave);
            session = NULL;
        }
        sessions_flush(worker->sessions);
        sessions_sweep(worker->sessions, clock_wall_ns());
        sessions_status(worker->sessions, &status);
        assert_true(sessions_durable(worker->sessions) < UINT64_MAX);
    }
    return NULL;
}

static void threads_have_sessions_side_by_side(void **state)
{
    (void)state;
    struct fixture f = {0};
    f.folder = test_folder;
    start(&f);
    struct worker workers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.sessions = f.sessions, .number = i + 1};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    assert_true(status_of(&f).sessions <= THREADS);
    kill_process(&f);
}

/* ---- names ---- */

static void names_may_be_as_long_as_they_can(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    static char id[65535], filter[65536], user[65536];
    memset(id, 'i', sizeof id);
    memset(filter, 'f', sizeof filter - 1);
    memset(user, 'u', sizeof user - 1);
    struct session *session, *shorter;
    struct session_owner owner = {0};
    assert_int_equal(sessions_create(f.sessions, id, sizeof id, user, &somebody, &session), 0);
    assert_int_equal(sessions_create(f.sessions, id, sizeof id - 1, "", &somebody, &shorter), 0);
    struct router_subscription how = {.qos = 2};
    assert_int_equal(sessions_subscribe(f.sessions, session, filter, sizeof filter - 1, &how, NULL, NULL), 0);
    again(&f);
    assert_int_equal(sessions_attach(f.sessions, id, sizeof id, "", false, clock_wall_ns(), &owner, &session), SESSIONS_FOREIGN);
    assert_int_equal(sessions_attach(f.sessions, id, sizeof id, user, false, clock_wall_ns(), &owner, &session), SESSIONS_ATTACHED);
    assert_int_equal(status_of(&f).subscriptions, 1);
    assert_int_equal(sessions_unsubscribe(f.sessions, session, filter, sizeof filter - 1, NULL), 0);
    assert_int_equal(status_of(&f).subscriptions, 0);
    finish(&f);
}

/* ---- damage ---- */

static void append_record(struct fixture *f, const char *topic, const void *payload, size_t length)
{
    struct journal_producer *producer;
    struct message message = {
        .topic = topic, .topic_length = (uint32_t)strlen(topic), .payload = payload, .payload_length = (uint32_t)length};
    assert_int_equal(journal_producer_open(f->journal, no_notice, NULL, &producer), 0);
    assert_int_equal(journal_append(producer, f->streams[STREAM_SESSIONS], &message, NULL, 0, 0), 0);
    journal_submit(producer);
    step(f);
    journal_producer_close(producer);
}

static void a_record_that_is_none_of_ours_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *topic, *payload;
        size_t length;
        int error;
    } rows[] = {{"a", "", 0, ERR_CORRUPT},
                {"a", "\1", 1, ERR_CORRUPT},
                {"a", "\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 17, ERR_FORMAT_VERSION},
                {"a", "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x63", 18, ERR_CORRUPT},
                {"a", "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\3", 19, ERR_CORRUPT},
                {"", "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0d", 18, ERR_CORRUPT},
                {"a", "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0d", 18, 0}, /* the end of a session that is not known */
                {"", "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 17, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fixture f = {0};
        start(&f);
        append_record(&f, rows[i].topic, rows[i].payload, rows[i].length);
        kill_process(&f);
        assert_int_equal(try_start(&f), rows[i].error);
        finish(&f);
    }
}

enum { GATHERED_MAX = 64 };
static struct gathered {
    uint8_t payload[4096];
    uint32_t length;
} gathered[GATHERED_MAX];

/* Every kind of item, as it comes. */
static unsigned gather_records(void)
{
    struct fixture f = {0};
    start(&f);
    struct session *session = create(&f, "a");
    subscribe(&f, session, "x/y", 1);
    subscribe(&f, session, "z/#", 2);
    assert_int_equal(sessions_unsubscribe(f.sessions, session, "x/y", 3, NULL), 0);
    sent(&f, session, 10, 1, 0);
    sent(&f, session, 11, 2, 1);
    assert_int_equal(sessions_received(f.sessions, session, 1, NULL), 0);
    assert_int_equal(sessions_completed(f.sessions, session, 1, NULL), 0);
    assert_int_equal(sessions_advance(f.sessions, session, &(struct follower_places){{3, 3, 3}}), 0);
    take(&f, session, 5, QUEUE_KEPT);
    take(&f, session, 6, QUEUE_KEPT);
    sessions_taken(f.sessions, session, 5);
    release(&f, session, 6);
    f.options.mark_bytes = 1;
    settle(&f);
    sessions_sweep(f.sessions, 0);
    again(&f);
    struct session_sent list[] = {{20, 9, 0, 1, 0, false}, {21, 10, 2, 2, 1, false}};
    struct sessions_leave leave = {.expiry_s = 60, .wall_ns = clock_wall_ns(), .sent = list, .sent_count = 2, .next_id = 3};
    session = attach(&f, "a");
    settle(&f);
    sessions_sweep(f.sessions, 0);
    sessions_detach(f.sessions, session, &leave);
    again(&f);
    sessions_sweep(f.sessions, UINT64_MAX);
    settle(&f);
    struct reader *reader;
    struct message message;
    unsigned count = 0;
    assert_int_equal(journal_stream_reader(f.streams[STREAM_SESSIONS], 0, &reader), 0);
    while (count < GATHERED_MAX && !reader_next(reader, UINT64_MAX, &message, NULL)) {
        assert_true(message.payload_length <= sizeof gathered[0].payload);
        memcpy(gathered[count].payload, message.payload, message.payload_length);
        gathered[count++].length = message.payload_length;
    }
    reader_close(reader);
    struct session_store store = {.loading = true, .bytes_max = SIZE_MAX, .sessions_max = 10}; /* a whole one with all that it can have */
    uint64_t ends[SESSION_ORIGINS] = {0};
    for (unsigned i = 0; i + 1 < count; i++) {
        message = (struct message){.topic = "a", .topic_length = 1, .payload = gathered[i].payload, .payload_length = gathered[i].length};
        assert_int_equal(session_record_apply(&store, &message, ends), 0);
    }
    struct buffer whole;
    buffer_init(&whole, 4096);
    assert_int_equal(session_record_begin(&whole, ends), 0);
    assert_int_equal(session_item_whole(&whole, session_find(&store, "a", 1)), 0);
    assert_true(count < GATHERED_MAX);
    memcpy(gathered[count].payload, whole.data, whole.length);
    gathered[count++].length = (uint32_t)whole.length;
    buffer_fini(&whole);
    session_store_fini(&store);
    finish(&f);
    return count;
}

static void damaged_records_do_no_harm(void **state)
{
    (void)state;
    unsigned count = gather_records();
    assert_in_range(count, 15, GATHERED_MAX);
    struct random_source random = {1};
    unsigned refused = 0;
    for (unsigned round = 0; round < 3000; round++) {
        struct session_store store = {.loading = true, .bytes_max = SIZE_MAX, .sessions_max = 10};
        for (unsigned i = 0; i < count; i++) {
            uint8_t *payload = malloc(4096); /* so that reading behind its end is found */
            uint32_t length = gathered[i].length;
            memcpy(payload, gathered[i].payload, length);
            if (random_below(&random, 4) == 0) {
                for (unsigned flips = random_below(&random, 4); flips > 0; flips--)
                    payload[random_below(&random, length)] = (uint8_t)random_u64(&random);
                length = random_below(&random, 2) ? length : random_below(&random, length + 1);
            }
            uint8_t *exact = malloc(length + 1);
            memcpy(exact, payload, length);
            exact = realloc(exact, length ? length : 1);
            struct message message = {.topic = "a", .topic_length = 1, .payload = exact, .payload_length = length};
            uint64_t ends[SESSION_ORIGINS];
            int error = session_record_apply(&store, &message, ends);
            assert_true(error == 0 || error == ERR_CORRUPT || error == ERR_FORMAT_VERSION || error == ERR_LIMIT);
            refused += error != 0;
            struct queue_origin origin = {random_u64(&random), 5, 6};
            assert_int_equal(session_message_apply(&store, &origin), 0);
            free(exact);
            free(payload);
        }
        session_store_fini(&store);
        assert_int_equal(store.bytes, 0);
        assert_int_equal(store.generations[0].open + store.generations[1].open, 0);
    }
    assert_true(refused > 1000);
}

static uint64_t cpu_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

/* `count` messages under way in each direction, which end in an order that is neither that of sending nor of their identifiers. In memory
 * only. Returns ns of CPU for each. */
static uint64_t exchange_many(unsigned count)
{
    struct fixture f = {0};
    start(&f);
    struct sessions *durable = f.sessions;
    struct sessions_options options = {.queue = &f.queue};
    assert_int_equal(sessions_open(&options, &f.sessions), 0);
    struct session *a = create(&f, "a");
    const size_t before = status_of(&f).bytes;
    const unsigned step = 7919; /* a prime, so all come in turn */
    uint64_t place, since_ns = cpu_ns();
    struct queue_origin origin;
    for (unsigned i = 0; i < count; i++) {
        struct session_sent one = {.offset = i, .packet_id = (uint16_t)(i + 1), .qos = 2};
        assert_int_equal(sessions_sent(f.sessions, a, &one, &place), 0);
        assert_int_equal(sessions_take(f.sessions, a, (uint16_t)(count - i), &origin), 0);
    }
    assert_int_equal(status_of(&f).bytes, before + count * (sizeof(struct session_sent) + sizeof(struct session_taken)));
    for (unsigned i = 0; i < count; i++) {
        uint16_t packet_id = (uint16_t)((uint64_t)i * step % count + 1);
        assert_int_equal(sessions_received(f.sessions, a, packet_id, &place), 0);
        assert_int_equal(sessions_completed(f.sessions, a, packet_id, &place), 0);
        sessions_taken(f.sessions, a, packet_id);
        assert_int_equal(sessions_release(f.sessions, a, packet_id, &place), 0);
        assert_null(session_sent_find(a, packet_id));
        assert_null(session_taken_find(a, packet_id));
        unsigned other = (unsigned)((uint64_t)(i + 1) * step % count + 1);
        if (i + 1 < count)
            assert_true(session_sent_find(a, (uint16_t)other)->offset == other - 1 && session_taken_find(a, (uint16_t)other));
    }
    uint64_t used_ns = cpu_ns() - since_ns;
    assert_int_equal(sessions_advance(f.sessions, a, &(struct follower_places){{count, 0, 0}}), 0);
    assert_int_equal(status_of(&f).bytes, before);
    sessions_close(f.sessions);
    f.sessions = durable;
    finish(&f);
    return used_ns / count;
}

static void what_is_under_way_is_found_at_once_however_much_it_is(void **state)
{
    (void)state;
    uint64_t few_ns = exchange_many(64), some_ns = exchange_many(1000), many_ns = exchange_many(65535);
    print_message("an exchange in each direction takes %u ns beside 64, %u ns beside 1000, %u ns beside 65535\n", (unsigned)few_ns,
                  (unsigned)some_ns, (unsigned)many_ns);
    assert_true(many_ns < 10 * (few_ns + some_ns));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_stream_stays_within_bounds),
        cmocka_unit_test(there_are_limits),
        cmocka_unit_test(so_many_messages_are_under_way_at_most),
        cmocka_unit_test(who_leaves_with_too_much_stands_where_he_stood),
        cmocka_unit_test(the_way_to_the_disk_is_bounded),
        cmocka_unit_test(sessions_of_a_user_are_counted),
        cmocka_unit_test(memory_is_what_is_said),
        cmocka_unit_test_setup_teardown(threads_have_sessions_side_by_side, test_folder_make, test_folder_remove),
        cmocka_unit_test(names_may_be_as_long_as_they_can),
        cmocka_unit_test(a_record_that_is_none_of_ours_is_refused),
        cmocka_unit_test(damaged_records_do_no_harm),
        cmocka_unit_test(what_is_under_way_is_found_at_once_however_much_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
