/* The persistent sessions: coming and going, what is noted and found again, limits, expiry, holds, and records that are damaged. */
#include "sessions_fixture.h"

#include "base/clock.h"
#include "base/random.h"
#include "bus/session.h"

enum { SECOND = 1000000000 };

static const struct session_owner somebody = {1, 2, 3};

static struct session *create(struct fixture *f, const char *id)
{
    struct session *session = NULL;
    assert_int_equal(sessions_create(f->sessions, id, strlen(id), "", &somebody, &session), 0);
    assert_non_null(session);
    assert_true(session_number(session) != 0 && session_number(session) % 2 == 0);
    return session;
}

static enum sessions_found attach_as(struct fixture *f, const char *id, const char *user, bool fresh, struct session **session)
{
    struct session_owner owner = {4, 5, 6};
    return sessions_attach(f->sessions, id, strlen(id), user, fresh, 0, &owner, session);
}

static struct session *attach(struct fixture *f, const char *id)
{
    struct session *session = NULL;
    assert_int_equal(attach_as(f, id, "", false, &session), SESSIONS_ATTACHED);
    return session;
}

static uint64_t subscribe(struct fixture *f, struct session *session, const char *filter, uint8_t qos)
{
    struct router_subscription how = {.qos = qos, .options = ROUTER_NO_LOCAL, .identifier = 7, .loop = 9, .connection = 9};
    uint64_t place = 0;
    const struct session_subscription *made;
    assert_int_equal(sessions_subscribe(f->sessions, session, filter, strlen(filter), &how, &made, &place), 0);
    assert_string_equal(made->filter, filter);
    assert_int_equal(made->how.qos, qos);
    assert_int_equal(made->how.loop, 0);
    return place;
}

static void detach(struct fixture *f, struct session *session, uint32_t expiry_s, uint64_t wall_ns)
{
    struct sessions_leave leave = {.expiry_s = expiry_s, .wall_ns = wall_ns, .next_id = 1};
    sessions_detach(f->sessions, session, &leave);
}

static struct sessions_status status_of(struct fixture *f)
{
    struct sessions_status status;
    sessions_status(f->sessions, &status);
    return status;
}

/* ---- what a session holds ---- */

struct seen {
    char filters[1024]; /* each with its QoS and a space behind it */
    struct session_sent sent[64];
    uint16_t taken[64];
    unsigned filter_count, sent_count, taken_count;
    struct follower_places cursor, position;
    uint16_t next_id;
};

static int see_filter(void *context, const struct session_subscription *subscription)
{
    struct seen *seen = context;
    size_t length = strlen(seen->filters);
    snprintf(seen->filters + length, sizeof seen->filters - length, "%s:%u ", subscription->filter, subscription->how.qos);
    seen->filter_count++;
    return 0;
}

static int see_sent(void *context, const struct session_sent *sent)
{
    struct seen *seen = context;
    assert_true(seen->sent_count < 64);
    seen->sent[seen->sent_count++] = *sent;
    return 0;
}

static int see_taken(void *context, uint16_t packet_id)
{
    struct seen *seen = context;
    assert_true(seen->taken_count < 64);
    seen->taken[seen->taken_count++] = packet_id;
    return 0;
}

static struct seen look(struct fixture *f, struct session *session)
{
    struct seen seen = {0};
    struct session_visitor visitor = {&seen, see_filter, see_sent, see_taken};
    assert_int_equal(sessions_visit(f->sessions, session, &visitor, &seen.cursor, &seen.position, &seen.next_id), 0);
    return seen;
}

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
        assert_int_equal(sessions_attach(f.sessions, "a", 1, "", false, 0, &owner, &session), SESSIONS_IN_USE);
        assert_memory_equal(&owner, &somebody, sizeof owner);
        assert_int_equal(attach_as(&f, "a", "", true, &session), SESSIONS_IN_USE);
        assert_int_equal(attach_as(&f, "a", "eve", true, &session), SESSIONS_FOREIGN);
        assert_int_equal(attach_as(&f, "ab", "", false, &session), SESSIONS_NONE);
        subscribe(&f, made, "t/#", 1);
        uint64_t number = session_number(made);
        assert_int_equal(status_of(&f).attached, 1);
        assert_int_equal(status_of(&f).subscriptions, 1);
        detach(&f, made, 60, 0);
        assert_int_equal(status_of(&f).attached, 0);
        if (!in_memory) {
            assert_int_equal(attach_as(&f, "a", "", false, &session), SESSIONS_LEAVING);
            assert_int_equal(attach_as(&f, "a", "", true, &session), SESSIONS_LEAVING);
            unsigned notices = f.notices;
            settle(&f);
            assert_true(f.notices > notices);
        }
        assert_int_equal(attach_as(&f, "a", "eve", false, &session), SESSIONS_FOREIGN);
        assert_null(session);
        session = attach(&f, "a");
        assert_true(session_number(session) == number);
        assert_string_equal(look(&f, session).filters, "t/#:1 ");
        detach(&f, session, 60, 0);
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

static void publish(struct fixture *f, enum queue_destination to, const struct queue_origin *origin, size_t size)
{
    static const uint8_t payload[65536];
    struct message message = {.topic = "t", .topic_length = 1, .payload = payload, .payload_length = (uint32_t)size, .flags = 2};
    assert_int_equal(f->producer->ops->append_from(f->producer, to, &message, origin, 0), 0);
}

static void take(struct fixture *f, struct session *session, uint16_t packet_id, enum queue_destination to)
{
    struct queue_origin origin;
    assert_int_equal(sessions_take(f->sessions, session, packet_id, &origin), 0);
    assert_true(origin.session == session_number(session) && origin.packet_id == packet_id);
    publish(f, to, &origin, 1000);
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

static void sent(struct fixture *f, struct session *session, uint64_t offset, uint16_t packet_id, uint8_t content)
{
    struct session_sent one = {.offset = offset, .packet_id = packet_id, .content = content, .qos = 2};
    uint64_t place = 0;
    assert_int_equal(sessions_sent(f->sessions, session, &one, &place), 0);
    assert_true(place > 0);
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
    static const struct session_sent expected[] = {{10, 1, 0, 2, SESSION_SENT},
                                                   {11, 2, 0, 2, SESSION_RECEIVED},
                                                   {5, 3, 1, 2, SESSION_DONE},
                                                   {12, 4, 0, 2, SESSION_DONE},
                                                   {13, 4, 0, 2, SESSION_SENT}};
    expect_sent(&f, session, expected, 5);
    again(&f);
    session = attach(&f, "a");
    expect_sent(&f, session, expected, 5);
    assert_int_equal(look(&f, session).next_id, 5);
    struct follower_places cursor = {{11, 6, 0}};
    assert_int_equal(sessions_advance(f.sessions, session, &cursor), 0);
    static const struct session_sent advanced[] = {
        {11, 2, 0, 2, SESSION_RECEIVED}, {12, 4, 0, 2, SESSION_DONE}, {13, 4, 0, 2, SESSION_SENT}};
    expect_sent(&f, session, advanced, 3);
    struct seen seen = look(&f, session);
    assert_memory_equal(&seen.position, &cursor, sizeof cursor);
    assert_int_equal(sessions_advance(f.sessions, session, &(struct follower_places){{1, 1, 1}}), 0);
    assert_int_equal(look(&f, session).cursor.at[0], 11); /* it never goes back */
    again(&f);
    session = attach(&f, "a");
    expect_sent(&f, session, advanced, 3);
    static const struct session_sent left[] = {
        {10, 9, 0, 1, SESSION_SENT}, {11, 2, 0, 2, SESSION_RECEIVED}, {13, 4, 0, 2, SESSION_SENT}, {20, 65535, 0, 1, SESSION_SENT}};
    struct sessions_leave leave = {
        .expiry_s = 100, .cursor = {{11, 7, 3}}, .position = {{21, 9, 3}}, .sent = left, .sent_count = 4, .next_id = 17};
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

static void expect_taken(struct fixture *f, struct session *session, const uint16_t *ids)
{
    struct seen seen = look(f, session);
    unsigned count = 0;
    for (; ids[count]; count++)
        assert_true(count < seen.taken_count && seen.taken[count] == ids[count]);
    assert_int_equal(seen.taken_count, count);
}

static void release(struct fixture *f, struct session *session, uint16_t packet_id)
{
    uint64_t place = 0;
    assert_int_equal(sessions_release(f->sessions, session, packet_id, &place), 0);
    assert_true(place > 0);
}

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

/* The stream of sessions is durable before the messages of the same group are: who comes next waits until these are, too. */
static void whoever_comes_next_finds_what_was_published(void **state)
{
    (void)state;
    struct fixture f = {0};
    start(&f);
    struct session *a = create(&f, "a");
    settle(&f);
    take(&f, a, 5, QUEUE_KEPT);
    sessions_flush(f.sessions);
    f.producer->ops->submit(f.producer);
    detach(&f, a, 60, 0);
    sessions_flush(f.sessions);
    struct session *session;
    assert_int_equal(attach_as(&f, "a", "", false, &session), SESSIONS_LEAVING);
    step(&f);
    assert_int_equal(attach_as(&f, "a", "", false, &session), SESSIONS_LEAVING); /* it sends off the fence */
    assert_int_equal(attach_as(&f, "a", "", false, &session), SESSIONS_LEAVING);
    unsigned notices = f.notices;
    step(&f);
    assert_true(f.notices > notices);
    session = attach(&f, "a");
    expect_taken(&f, session, (uint16_t[]){5, 0});
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
