/* The persistent sessions: copies of what is in no stream of messages, wills, and identifiers that are reserved. */
#include "sessions_fixture.h"

static uint64_t send_copy(struct fixture *f, struct session *session, uint16_t packet_id, uint8_t qos, const char *text)
{
    struct session_sent one = {.packet_id = packet_id, .content = SESSIONS_COPIED, .qos = qos};
    uint64_t place = 0;
    assert_int_equal(sessions_sent_copy(f->sessions, session, &one, text, strlen(text), &place), 0);
    assert_true(place > 0);
    return place;
}

static void expect_copy(struct fixture *f, const struct session *session, uint16_t packet_id, const char *text)
{
    const struct session_copy *copy = sessions_copy(f->sessions, session, packet_id);
    if (!text) {
        assert_null(copy);
        return;
    }
    assert_non_null(copy);
    assert_int_equal(copy->length, strlen(text));
    assert_memory_equal(copy->bytes, text, copy->length);
}

static void a_copy_is_there_until_its_message_is_received(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    struct session *session = create(&f, "a");
    size_t bytes = status_of(&f).bytes;
    send_copy(&f, session, 1, 1, "one");
    send_copy(&f, session, 2, 2, "two");
    sent(&f, session, 5, 3, 0);
    send_copy(&f, session, 4, 2, "four");
    send_copy(&f, session, 5, 1, "");
    assert_int_equal(sessions_received(f.sessions, session, 2, NULL), 0);
    assert_int_equal(sessions_completed(f.sessions, session, 1, NULL), 0);
    for (unsigned start_again = 0; start_again < 2; start_again++) {
        struct seen seen = look(&f, session);
        assert_int_equal(seen.sent_count, 4);
        assert_true(seen.sent[0].packet_id == 2 && seen.sent[0].state == SESSION_RECEIVED && seen.sent[0].content == SESSIONS_COPIED);
        assert_true(seen.sent[1].packet_id == 3 && seen.sent[2].packet_id == 4 && seen.sent[3].packet_id == 5);
        expect_copy(&f, session, 1, NULL);
        expect_copy(&f, session, 2, NULL);
        expect_copy(&f, session, 4, "four");
        expect_copy(&f, session, 5, "");
        if (!start_again) {
            again(&f);
            session = attach(&f, "a");
        }
    }
    struct follower_places cursor = {{100, 100, 100}}; /* they have no place */
    assert_int_equal(sessions_advance(f.sessions, session, &cursor), 0);
    assert_int_equal(look(&f, session).sent_count, 3);
    assert_int_equal(sessions_completed(f.sessions, session, 2, NULL), 0);
    assert_int_equal(sessions_completed(f.sessions, session, 5, NULL), 0);
    struct session_sent left = {.packet_id = 4, .content = SESSIONS_COPIED, .qos = 2};
    struct sessions_leave stand = {.cursor = cursor, .position = cursor, .next_id = 6, .sent = &left, .sent_count = 1};
    assert_int_equal(sessions_stand(f.sessions, session, &stand, NULL), 0);
    expect_copy(&f, session, 4, "four");
    left.packet_id = 9;
    assert_int_equal(sessions_stand(f.sessions, session, &stand, NULL), 0);
    expect_copy(&f, session, 4, NULL); /* where it stands nothing is known of it */
    stand.sent_count = 0;
    assert_int_equal(sessions_stand(f.sessions, session, &stand, NULL), 0);
    assert_int_equal(status_of(&f).bytes, bytes);
    finish(&f);
}

static void copies_outlast_the_writing_again(void **state)
{
    (void)state;
    struct fixture f = {.options.slack = 20000};
    start(&f);
    struct session *still = create(&f, "still"), *session = create(&f, "a");
    uint64_t serial = 0, place = 0;
    send_copy(&f, still, 7, 2, "kept");
    assert_int_equal(sessions_keep_will(f.sessions, still, "will", 4, &serial, &place), 0);
    for (unsigned i = 0; i < 3000; i++) {
        uint16_t id = (uint16_t)(1 + i);
        send_copy(&f, session, id, 1, "some bytes that are not kept for long, as their message is answered soon");
        assert_int_equal(sessions_completed(f.sessions, session, id, NULL), 0);
        if (i % 50 == 0)
            settle(&f);
    }
    struct journal_stream_stats stats;
    journal_stream_stats(f.streams[STREAM_SESSIONS], &stats);
    assert_true(stats.first_offset > 0);
    again(&f);
    still = attach(&f, "still");
    expect_copy(&f, still, 7, "kept");
    expect_copy(&f, still, SESSIONS_WILL, "will");
    assert_int_equal(look(&f, attach(&f, "a")).sent_count, 0);
    finish(&f);
}

/* Those of messages against a part of it: who answers none of them leaves others room. */
static void copies_count_against_the_limit(void **state)
{
    (void)state;
    struct fixture f = {.options.bytes_max = 16000};
    start(&f);
    struct session *session = create(&f, "a");
    static const char text[500], more[16000];
    struct session_sent one = {.packet_id = 1, .content = SESSIONS_COPIED, .qos = 1};
    uint64_t place = 99, serial = 99;
    int error;
    while (!(error = sessions_sent_copy(f.sessions, session, &one, text, sizeof text, &place)))
        one.packet_id++;
    assert_int_equal(error, ERR_LIMIT);
    assert_in_range(one.packet_id, 10, 16);
    assert_int_equal(look(&f, session).sent_count, one.packet_id - 1);
    uint64_t before = place;
    assert_int_equal(sessions_sent_copy(f.sessions, session, &one, text, sizeof text, &place), ERR_LIMIT);
    assert_true(place == before && status_of(&f).bytes <= 16000 / SESSIONS_COPIED_PART + 1000);
    assert_int_equal(sessions_keep_will(f.sessions, session, more, sizeof more, &serial, &place), ERR_LIMIT);
    assert_true(place == before && serial == 99);
    struct session *other = create(&f, "b");
    sent(&f, other, 1, 1, 0);
    assert_int_equal(sessions_keep_will(f.sessions, other, text, sizeof text, &serial, &place), 0);
    assert_int_equal(sessions_completed(f.sessions, session, 1, NULL), 0);
    assert_int_equal(sessions_sent_copy(f.sessions, session, &one, text, sizeof text, &place), 0);
    finish(&f);
}

/* ---- wills ---- */

struct wills {
    unsigned count;
    struct session_will last;
    char id[16], text[16];
};

static int see_will(void *context, const struct session_will *will)
{
    struct wills *wills = context;
    wills->count++;
    wills->last = *will;
    snprintf(wills->id, sizeof wills->id, "%s", will->id);
    snprintf(wills->text, sizeof wills->text, "%.*s", (int)will->copy->length, (const char *)will->copy->bytes);
    wills->last.copy = NULL;
    return 0;
}

static struct wills wills_of(struct fixture *f)
{
    struct wills wills = {0};
    assert_int_equal(sessions_visit_wills(f->sessions, see_will, &wills), 0);
    return wills;
}

static void a_will_is_there_until_it_is_dropped(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    struct session *session = create(&f, "a");
    uint64_t first = 0, second = 0, place = 0;
    assert_int_equal(sessions_keep_will(f.sessions, session, "first", 5, &first, &place), 0);
    assert_int_equal(sessions_keep_will(f.sessions, session, "second", 6, &second, &place), 0);
    assert_true(first != second && place > 0);
    assert_int_equal(wills_of(&f).count, 0); /* its client is there */
    sessions_drop_will(f.sessions, session_number(session), first, NULL);
    expect_copy(&f, session, SESSIONS_WILL, "second");
    uint64_t number = session_number(session);
    again(&f);
    struct wills wills = wills_of(&f);
    assert_int_equal(wills.count, 1);
    assert_true(wills.last.number == number && wills.last.left_ns > 0);
    assert_string_equal(wills.id, "a");
    assert_string_equal(wills.text, "second");
    session = attach(&f, "a");
    second = sessions_copy(f.sessions, session, SESSIONS_WILL)->serial;
    sessions_drop_will(f.sessions, number, second, &place);
    expect_copy(&f, session, SESSIONS_WILL, NULL);
    sessions_drop_will(f.sessions, number, second, NULL);
    sessions_drop_will(f.sessions, number + 2, second, NULL); /* no such session */
    again(&f);
    assert_int_equal(wills_of(&f).count, 0);
    finish(&f);
}

static void a_session_does_not_expire_before_its_will_was_published(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    struct session *session = create(&f, "a");
    uint64_t number = session_number(session), serial = 0;
    assert_int_equal(sessions_keep_will(f.sessions, session, "will", 4, &serial, NULL), 0);
    detach(&f, session, 1, 5000000000u);
    settle(&f);
    assert_int_equal(sessions_sweep(f.sessions, 9000000000u), 0);
    assert_int_equal(wills_of(&f).count, 1);
    sessions_drop_will(f.sessions, number, serial, NULL);
    assert_int_equal(sessions_sweep(f.sessions, 9000000000u), 1);
    finish(&f);
}

/* ---- identifiers ---- */

static void reserved_identifiers_are_not_given_again(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    struct session *session = create(&f, "a");
    uint64_t place = 0;
    assert_int_equal(sessions_reserve_ids(f.sessions, session, 300, &place), 0);
    sent(&f, session, 1, 60, 0); /* one of them */
    again(&f);
    session = attach(&f, "a");
    assert_int_equal(look(&f, session).next_id, 300);
    sent(&f, session, 2, 300, 0);
    assert_int_equal(look(&f, session).next_id, 301);
    sent(&f, session, 3, 65535, 0);
    assert_int_equal(look(&f, session).next_id, 1);
    assert_int_equal(sessions_reserve_ids(f.sessions, session, 200, &place), 0);
    sent(&f, session, 4, 65534, 0);
    again(&f);
    assert_int_equal(look(&f, attach(&f, "a")).next_id, 200);
    finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_is_there_until_its_message_is_received),
        cmocka_unit_test(copies_outlast_the_writing_again),
        cmocka_unit_test(copies_count_against_the_limit),
        cmocka_unit_test(a_will_is_there_until_it_is_dropped),
        cmocka_unit_test(a_session_does_not_expire_before_its_will_was_published),
        cmocka_unit_test(reserved_identifiers_are_not_given_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
