/* The persistent sessions: coming and going, what is noted and found again, expiry, and what of the journal is held for them. */
#include "sessions_fixture.h"

#include "base/clock.h"

enum { SECOND = 1000000000 };

/* ---- coming and going ---- */

static void sessions_come_and_go(void **state)
{
    (void)state;
    for (unsigned in_memory = 0; in_memory < 2; in_memory++) {
        struct fixture f = {0};
        start(&f);
        struct sessions *durable = f.sessions;
        if (in_memory) {
            struct sessions_options options = {.queue = &f.queue};
            assert_int_equal(sessions_open(&options, &f.sessions), 0);
            assert_true(sessions_durable(f.sessions) == UINT64_MAX);
        }
        struct session *session = NULL;
        assert_int_equal(attach_as(&f, "a", "", false, &session), SESSIONS_NONE);
        struct session *made = create(&f, "a");
        struct session_owner owner = {0};
        assert_int_equal(sessions_attach(f.sessions, "a", 1, "", false, clock_wall_ns(), &owner, &session), SESSIONS_IN_USE);
        assert_memory_equal(&owner, &somebody, sizeof owner);
        assert_int_equal(attach_as(&f, "a", "", true, &session), SESSIONS_IN_USE);
        assert_int_equal(attach_as(&f, "a", "eve", true, &session), SESSIONS_FOREIGN);
        assert_int_equal(attach_as(&f, "ab", "", false, &session), SESSIONS_NONE);
        subscribe(&f, made, "t/#", 1);
        uint64_t number = session_number(made);
        assert_int_equal(status_of(&f).attached, 1);
        assert_int_equal(status_of(&f).subscriptions, 1);
        detach(&f, made, 60, clock_wall_ns());
        assert_int_equal(status_of(&f).attached, 0);
        if (!in_memory) {
            assert_int_equal(attach_as(&f, "a", "", false, &session), SESSIONS_LEAVING);
            unsigned notices = f.notices;
            settle(&f);
            assert_true(f.notices > notices);
        }
        assert_int_equal(attach_as(&f, "a", "eve", false, &session), SESSIONS_FOREIGN);
        assert_null(session);
        session = attach(&f, "a");
        assert_true(session_number(session) == number);
        assert_string_equal(look(&f, session).filters, "t/#:1 ");
        detach(&f, session, 60, clock_wall_ns());
        if (!in_memory)
            settle(&f);
        session = attach(&f, "a");
        sessions_detach(f.sessions, session, NULL);
        if (!in_memory)
            settle(&f);
        session = attach(&f, "a");
        assert_string_equal(look(&f, session).filters, "t/#:1 ");
        assert_int_equal(sessions_create(f.sessions, "a", 1, "", &somebody, &made), ERR_BUSY);
        detach(&f, session, 60, clock_wall_ns());
        if (!in_memory)
            settle(&f);
        session = NULL;
        assert_int_equal(attach_as(&f, "a", "", true, &session), SESSIONS_NONE); /* it has ended */
        assert_int_equal(attach_as(&f, "a", "", false, &session), SESSIONS_NONE);
        assert_null(session);
        assert_int_equal(status_of(&f).sessions, 0);
        assert_int_equal(status_of(&f).subscriptions, 0);
        assert_int_equal(status_of(&f).bytes, 0);
        made = create(&f, "a");
        assert_true(session_number(made) != number);
        detach(&f, made, 0, 0);
        assert_int_equal(attach_as(&f, "a", "", false, &session), SESSIONS_NONE);
        if (in_memory) {
            sessions_close(f.sessions);
            f.sessions = durable;
        } else {
            again(&f);
            assert_int_equal(status_of(&f).sessions, 0);
        }
        finish(&f);
    }
}

static void what_was_subscribed_is_found_again(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    struct session *session = create(&f, "a");
    assert_int_equal(subscribe(&f, session, "x", 0), 2);
    assert_int_equal(subscribe(&f, session, "y/+", 1), 3);
    assert_int_equal(sessions_durable(f.sessions), 0);
    settle(&f);
    assert_int_equal(sessions_durable(f.sessions), 3);
    assert_int_equal(subscribe(&f, session, "y/+", 1), 3); /* as it was */
    assert_int_equal(subscribe(&f, session, "y/+", 2), 4);
    uint64_t place = 0;
    assert_int_equal(sessions_unsubscribe(f.sessions, session, "x", 1, &place), 0);
    assert_int_equal(place, 5);
    assert_int_equal(sessions_unsubscribe(f.sessions, session, "x", 1, &place), 0);
    assert_int_equal(place, 5);
    subscribe(&f, session, "#", 0);
    again(&f);
    session = attach(&f, "a");
    struct seen seen = look(&f, session);
    assert_int_equal(seen.filter_count, 2);
    assert_non_null(strstr(seen.filters, "y/+:2 "));
    assert_non_null(strstr(seen.filters, "#:0 "));
    subscribe(&f, session, "z", 0);
    kill_process(&f); /* that one was not sent off */
    start(&f);
    assert_int_equal(status_of(&f).subscriptions, 2);
    finish(&f);
}

static void a_subscription_keeps_the_place_from_which_it_is(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    struct session *session = create(&f, "a");
    const struct queue_origin nobody = {0};
    publish(&f, QUEUE_KEPT, &nobody, 10);
    publish(&f, QUEUE_CONSUMED, &nobody, 10);
    publish(&f, QUEUE_KEPT, &nobody, 10);
    settle(&f);
    const struct session_subscription *made, *replaced;
    struct router_subscription how = {.qos = 1};
    assert_int_equal(sessions_subscribe(f.sessions, session, "f", 1, &how, &made, NULL), 0);
    assert_int_equal(made->from.at[0], 1);
    assert_int_equal(made->from.at[1], 2);
    assert_int_equal(made->from.at[2], 0);
    publish(&f, QUEUE_KEPT, &nobody, 10);
    settle(&f);
    how.qos = 2;
    assert_int_equal(sessions_subscribe(f.sessions, session, "f", 1, &how, &replaced, NULL), 0);
    assert_ptr_equal(made, replaced);
    assert_int_equal(made->from.at[1], 2);
    struct seen seen = look(&f, session);
    assert_int_equal(seen.cursor.at[1], 0);
    detach(&f, session, SESSIONS_NEVER, 0);
    again(&f);
    session = create(&f, "b");
    seen = look(&f, session);
    assert_int_equal(seen.cursor.at[0], 1);
    assert_int_equal(seen.cursor.at[1], 3);
    assert_memory_equal(&seen.cursor, &seen.position, sizeof seen.cursor);
    finish(&f);
}

static void expect_sent(struct fixture *f, struct session *session, const struct session_sent *expected, unsigned count)
{
    struct seen seen = look(f, session);
    assert_int_equal(seen.sent_count, count);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(seen.sent[i].offset, expected[i].offset);
        assert_int_equal(seen.sent[i].packet_id, expected[i].packet_id);
        assert_int_equal(seen.sent[i].content, expected[i].content);
        assert_int_equal(seen.sent[i].qos, expected[i].qos);
        assert_int_equal(seen.sent[i].state, expected[i].state);
    }
}

static void what_is_under_way_is_found_again(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    struct session *session = create(&f, "a");
    sent(&f, session, 10, 1, 0);
    sent(&f, session, 11, 2, 0);
    sent(&f, session, 5, 3, 1);
    sent(&f, session, 12, 4, 0);
    uint64_t place = 0, next = 0;
    assert_int_equal(sessions_received(f.sessions, session, 2, &place), 0);
    assert_int_equal(sessions_received(f.sessions, session, 2, &next), 0);
    assert_int_equal(next, place);
    assert_int_equal(sessions_received(f.sessions, session, 3, &place), 0);
    assert_int_equal(sessions_completed(f.sessions, session, 3, &place), 0);
    assert_int_equal(sessions_completed(f.sessions, session, 99, &next), 0);
    assert_int_equal(next, place);
    sent(&f, session, 13, 4, 0); /* so the older one is over */
    static const struct session_sent expected[] = {{10, 1, 0, 2, SESSION_SENT, false},
                                                   {11, 2, 0, 2, SESSION_RECEIVED, false},
                                                   {5, 3, 1, 2, SESSION_DONE, false},
                                                   {12, 4, 0, 2, SESSION_DONE, false},
                                                   {13, 4, 0, 2, SESSION_SENT, false}};
    expect_sent(&f, session, expected, 5);
    again(&f);
    session = attach(&f, "a");
    expect_sent(&f, session, expected, 5);
    assert_int_equal(look(&f, session).next_id, 5);
    struct follower_places cursor = {{11, 6, 0}};
    assert_int_equal(sessions_advance(f.sessions, session, &cursor), 0);
    static const struct session_sent advanced[] = {
        {11, 2, 0, 2, SESSION_RECEIVED, false}, {12, 4, 0, 2, SESSION_DONE, false}, {13, 4, 0, 2, SESSION_SENT, false}};
    expect_sent(&f, session, advanced, 3);
    struct seen seen = look(&f, session);
    assert_memory_equal(&seen.position, &cursor, sizeof cursor);
    assert_int_equal(sessions_advance(f.sessions, session, &(struct follower_places){{1, 1, 1}}), 0);
    assert_int_equal(look(&f, session).cursor.at[0], 11); /* it never goes back */
    again(&f);
    session = attach(&f, "a");
    expect_sent(&f, session, advanced, 3);
    static const struct session_sent left[] = {{10, 9, 0, 1, SESSION_SENT, false},
                                               {11, 2, 0, 2, SESSION_RECEIVED, false},
                                               {13, 4, 0, 2, SESSION_SENT, false},
                                               {20, 65535, 0, 1, SESSION_SENT, false}};
    struct sessions_leave leave = {
        .expiry_s = SESSIONS_NEVER, .cursor = {{11, 7, 3}}, .position = {{21, 9, 3}}, .sent = left, .sent_count = 4, .next_id = 17};
    sessions_detach(f.sessions, session, &leave);
    again(&f);
    session = attach(&f, "a");
    expect_sent(&f, session, left + 1, 3);
    seen = look(&f, session);
    assert_memory_equal(&seen.cursor, &leave.cursor, sizeof seen.cursor);
    assert_memory_equal(&seen.position, &leave.position, sizeof seen.position);
    assert_int_equal(seen.next_id, 17);
    sent(&f, session, 30, 65535, 0); /* an identifier that was given to a message of QoS 1 */
    seen = look(&f, session);
    assert_int_equal(seen.sent[2].state, SESSION_DONE);
    assert_int_equal(seen.next_id, 1);
    finish(&f);
}

static int refuse_filter(void *context, const struct session_subscription *subscription)
{
    (void)context;
    (void)subscription;
    return ERR_BUSY;
}

static void a_visitor_may_end_the_visit(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    struct session *session = create(&f, "a");
    subscribe(&f, session, "x", 0);
    struct follower_places places;
    uint16_t next_id;
    struct session_visitor visitor = {.subscription = refuse_filter};
    assert_int_equal(sessions_visit(f.sessions, session, &visitor, &places, &places, &next_id), ERR_BUSY);
    finish(&f);
}

/* ---- identifiers of the client's own ---- */

static void identifiers_are_taken_until_they_are_released(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    struct session *a = create(&f, "a"), *b = create(&f, "b");
    take(&f, a, 9, QUEUE_KEPT);
    take(&f, b, 9, QUEUE_CONSUMED);
    take(&f, a, 1, QUEUE_CONSUMED);
    take(&f, a, 65535, QUEUE_KEPT);
    release(&f, a, 1);
    release(&f, a, 2); /* nobody has taken it */
    expect_taken(&f, a, (uint16_t[]){9, 65535, 0});
    again(&f);
    a = attach(&f, "a");
    b = attach(&f, "b");
    expect_taken(&f, a, (uint16_t[]){9, 65535, 0});
    expect_taken(&f, b, (uint16_t[]){9, 0});
    for (unsigned round = 0; round < 3; round++) {
        release(&f, a, 9);
        expect_taken(&f, a, (uint16_t[]){65535, 0});
        take(&f, a, 9, round % 2 ? QUEUE_KEPT : QUEUE_CONSUMED);
        again(&f);
        a = attach(&f, "a");
        expect_taken(&f, a, (uint16_t[]){9, 65535, 0});
    }
    take(&f, a, 3, QUEUE_KEPT);
    sessions_flush(f.sessions); /* the message is not sent off */
    step(&f);
    kill_process(&f);
    start(&f);
    expect_taken(&f, attach(&f, "a"), (uint16_t[]){9, 65535, 0});
    expect_taken(&f, attach(&f, "b"), (uint16_t[]){9, 0});
    finish(&f);
}

/* While the disk is short notes are written before the publishes that were sent off earlier: who comes next waits until these are durable,
 * and a start in between finds nothing of them. */
static void whoever_comes_next_finds_what_was_published(void **state)
{
    (void)state;
    for (unsigned killed = 0; killed < 2; killed++) {
        struct fixture f = {.disk_free_min = FIXTURE_FREE_MIN};
        start(&f);
        struct session *a = create(&f, "a"), *session;
        settle(&f);
        simulated_disk_set_hooks(f.disk, &(struct simulated_hooks){.before = look_before_call, .context = &f});
        take(&f, a, 5, QUEUE_KEPT);
        sessions_flush(f.sessions);
        f.producer->ops->submit(f.producer);
        make_short(&f, 5);
        uint64_t place = subscribe(&f, a, "t/#", 2);
        detach(&f, a, 60, clock_wall_ns());
        sessions_flush(f.sessions);
        assert_int_equal(attach_as(&f, "a", "", false, &session), SESSIONS_LEAVING);
        assert_true(journal_step_group(f.journal));
        assert_true(sessions_durable(f.sessions) > place);
        assert_int_equal(journal_stream_durable(f.streams[STREAM_BUS]), 0);
        assert_int_equal(attach_as(&f, "a", "", false, &session), SESSIONS_LEAVING);
        unsigned notices = f.notices;
        if (killed) {
            kill_process(&f);
            start(&f);
        } else {
            step(&f);
            assert_true(f.notices > notices);
        }
        session = attach(&f, "a");
        expect_taken(&f, session, killed ? (uint16_t[]){0} : (uint16_t[]){5, 0});
        assert_string_equal(look(&f, session).filters, "t/#:2 ");
        finish(&f);
    }
}

/* A backlog of QoS 2 is drained while the disk is short, so that what it holds can go. */
static void notes_get_through_while_the_disk_is_short(void **state)
{
    (void)state;
    struct fixture f = {.disk_free_min = FIXTURE_FREE_MIN};
    start(&f);
    struct session *a = create(&f, "a");
    for (unsigned i = 0; i < 100; i++) {
        publish(&f, QUEUE_KEPT, &(struct queue_origin){0}, 10 << 10);
        settle(&f);
    }
    struct journal_stream_stats before, after;
    sessions_sweep(f.sessions, 1);
    step(&f);
    journal_stream_stats(f.streams[STREAM_BUS], &before);
    simulated_disk_set_hooks(f.disk, &(struct simulated_hooks){.before = look_before_call, .context = &f});
    make_short(&f, 0);
    for (uint16_t i = 0; i < 100; i++) {
        uint64_t place;
        sent(&f, a, i, (uint16_t)(i + 1), 1);
        publish(&f, QUEUE_KEPT, &(struct queue_origin){0}, 10);
        f.producer->ops->submit(f.producer);
        assert_int_equal(sessions_received(f.sessions, a, (uint16_t)(i + 1), &place), 0);
        assert_int_equal(sessions_completed(f.sessions, a, (uint16_t)(i + 1), &place), 0);
        assert_int_equal(sessions_advance(f.sessions, a, &(struct follower_places){{0, i + 1u, 0}}), 0);
        sessions_flush(f.sessions);
        assert_true(journal_step_group(f.journal));
        assert_true(sessions_durable(f.sessions) >= place);
    }
    assert_int_equal(journal_stream_durable(f.streams[STREAM_BUS]), 100);
    assert_true(journal_stream_stalls(f.streams[STREAM_BUS]) % 2);
    for (unsigned i = 0; i < 2; i++) {
        sessions_sweep(f.sessions, 1);
        while (journal_step_keeper(f.journal))
            continue;
    }
    journal_stream_stats(f.streams[STREAM_BUS], &after);
    assert_true(after.first_offset > before.first_offset + 80);
    make_short(&f, 1);
    settle(&f);
    assert_int_equal(journal_stream_durable(f.streams[STREAM_BUS]), 200);
    assert_true(journal_stream_stalls(f.streams[STREAM_BUS]) % 2 == 0);
    finish(&f);
}

/* ---- time ---- */

static uint64_t place_of_messages(struct fixture *f, unsigned content)
{
    uint64_t first, next;
    f->queue.ops->extent(&f->queue, follower_contents[content], &first, &next);
    return next;
}

static void sessions_end_when_their_time_is_over(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    const uint64_t now = clock_wall_ns();
    create(&f, "attached");
    detach(&f, create(&f, "short"), 10, now);
    detach(&f, create(&f, "long"), 1000, now);
    detach(&f, create(&f, "ever"), SESSIONS_NEVER, now);
    assert_int_equal(sessions_sweep(f.sessions, now + 100ull * SECOND), 0); /* they are leaving */
    settle(&f);
    assert_int_equal(sessions_sweep(f.sessions, now + 10ull * SECOND - 1), 0);
    assert_int_equal(sessions_sweep(f.sessions, 0), 0);
    assert_int_equal(sessions_sweep(f.sessions, now + 10ull * SECOND), 1);
    assert_int_equal(status_of(&f).expired, 1);
    assert_int_equal(status_of(&f).sessions, 3);
    detach(&f, create(&f, "over"), 10, now - 11ull * SECOND);
    again(&f);
    assert_int_equal(status_of(&f).sessions, 4);
    assert_int_equal(status_of(&f).attached, 0);
    struct session *session;
    assert_int_equal(attach_as(&f, "short", "", false, &session), SESSIONS_NONE);
    assert_int_equal(attach_as(&f, "over", "", false, &session), SESSIONS_NONE); /* without a sweep */
    assert_int_equal(status_of(&f).sessions, 3);
    assert_int_equal(status_of(&f).expired, 1);
    assert_int_equal(sessions_sweep(f.sessions, UINT64_MAX), 1);
    assert_int_equal(attach_as(&f, "long", "", false, &session), SESSIONS_NONE);
    attach(&f, "ever");
    attach(&f, "attached");
    finish(&f);
}

/* Whoever was attached when the server ended has left when it started, and not later. */
static void a_client_that_was_there_left_at_the_start(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    const uint64_t before = clock_wall_ns();
    detach(&f, create(&f, "away"), 500, before - 400ull * SECOND);
    settle(&f);
    attach(&f, "away");
    struct session *session = create(&f, "there");
    assert_int_equal(sessions_set_expiry(f.sessions, session, 1000), 0);
    again(&f);
    const uint64_t after = clock_wall_ns();
    settle(&f);
    for (unsigned starts = 0; starts < 2; starts++) { /* the second changes nothing */
        assert_int_equal(sessions_sweep(f.sessions, before + 499ull * SECOND), 0);
        kill_process(&f);
        start(&f);
    }
    assert_int_equal(sessions_sweep(f.sessions, after + 500ull * SECOND), 1);
    assert_int_equal(sessions_sweep(f.sessions, before + 999ull * SECOND), 0);
    assert_int_equal(sessions_sweep(f.sessions, after + 1000ull * SECOND), 1);
    finish(&f);
}

/* ---- what is held ---- */

static void the_journal_is_held_at_the_least_cursor(void **state)
{
    (void)state;
    struct fixture f = {0};
    const struct queue_origin nobody = {0};
    start(&f);
    for (unsigned i = 0; i < 10; i++) {
        publish(&f, QUEUE_KEPT, &nobody, 100);
        publish(&f, QUEUE_CONSUMED, &nobody, 100);
    }
    settle(&f);
    sessions_sweep(f.sessions, 0);
    assert_true(f.held[0] == UINT64_MAX && f.held[1] == UINT64_MAX); /* without sessions nothing is held */
    struct session *a = create(&f, "a"), *b = create(&f, "b");
    struct queue_origin origin;
    assert_int_equal(sessions_take(f.sessions, a, 7, &origin), 0);
    for (unsigned i = 0; i < 10; i++)
        publish(&f, QUEUE_KEPT, i == 0 ? &origin : &nobody, 100);
    settle(&f);
    assert_int_equal(place_of_messages(&f, 1), 20);
    assert_int_equal(sessions_advance(f.sessions, a, &(struct follower_places){{10, 18, 0}}), 0);
    assert_int_equal(sessions_advance(f.sessions, b, &(struct follower_places){{10, 15, 0}}), 0);
    settle(&f);
    sessions_sweep(f.sessions, 0);
    sessions_sweep(f.sessions, 0);
    assert_int_equal(f.held[1], 10); /* a start would look there for what has taken identifiers */
    sessions_taken(f.sessions, a, 7);
    assert_int_equal(sessions_release(f.sessions, a, 7, NULL), 0);
    assert_int_equal(sessions_advance(f.sessions, a, &(struct follower_places){{10, 19, 0}}), 0);
    sessions_sweep(f.sessions, 0);
    assert_int_equal(f.held[1], 10); /* that is not durable */
    settle(&f);
    sessions_sweep(f.sessions, 0);
    assert_int_equal(f.held[1], 15);
    detach(&f, b, 0, 0);
    settle(&f);
    sessions_sweep(f.sessions, 0);
    assert_int_equal(f.held[1], 19);
    assert_int_equal(f.held[0], 10);
    finish(&f);
}

static unsigned views; /* that were opened since the last start */
static uint64_t viewed_from[QUEUE_CONTENT_COUNT];

static int note_view(struct queue *queue, enum queue_content content, uint64_t from, struct queue_view **view)
{
    views++;
    viewed_from[content] = from;
    return pass_view(queue, content, from, view);
}

/* A start does not read what was published long ago, though an identifier was never released. */
static void marks_keep_a_start_short(void **state)
{
    (void)state;
    struct fixture f = {.options.mark_bytes = 100000};
    const struct queue_origin nobody = {0};
    start(&f);
    struct session *a = create(&f, "a"), *gone = create(&f, "gone");
    take(&f, a, 7, QUEUE_KEPT);
    take(&f, a, 8, QUEUE_KEPT);
    take(&f, gone, 3, QUEUE_KEPT);
    settle(&f);
    sessions_taken(f.sessions, a, 7);
    sessions_taken(f.sessions, a, 8);
    sessions_taken(f.sessions, a, 9); /* is not taken */
    release(&f, a, 8);
    detach(&f, gone, 100, clock_wall_ns());
    settle(&f);
    for (unsigned i = 0; i < 200; i++) {
        publish(&f, QUEUE_KEPT, &nobody, 10000);
        settle(&f);
        sessions_sweep(f.sessions, clock_wall_ns());
        assert_int_equal(sessions_advance(f.sessions, a, &(struct follower_places){{0, i, 0}}), 0);
    }
    settle(&f);
    sessions_sweep(f.sessions, clock_wall_ns());
    struct sessions *old = f.sessions;
    f.ops.view_open = note_view; /* another reader of the same stream */
    struct sessions_options options = f.options;
    assert_int_equal(sessions_open(&options, &f.sessions), 0);
    assert_int_equal(views, 2);
    assert_true(viewed_from[QUEUE_CONTENT_KEPT] > 170);
    expect_taken(&f, attach(&f, "a"), (uint16_t[]){7, 0});
    struct session *session = attach(&f, "gone");
    expect_taken(&f, session, (uint16_t[]){3, 0});
    sessions_close(f.sessions);
    f.sessions = old;
    finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_come_and_go),
        cmocka_unit_test(what_was_subscribed_is_found_again),
        cmocka_unit_test(a_subscription_keeps_the_place_from_which_it_is),
        cmocka_unit_test(what_is_under_way_is_found_again),
        cmocka_unit_test(a_visitor_may_end_the_visit),
        cmocka_unit_test(identifiers_are_taken_until_they_are_released),
        cmocka_unit_test(whoever_comes_next_finds_what_was_published),
        cmocka_unit_test(notes_get_through_while_the_disk_is_short),
        cmocka_unit_test(sessions_end_when_their_time_is_over),
        cmocka_unit_test(a_client_that_was_there_left_at_the_start),
        cmocka_unit_test(the_journal_is_held_at_the_least_cursor),
        cmocka_unit_test(marks_keep_a_start_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
