/* The sessions of shared subscriptions: when there is one, what it gives and holds, and that both sides of that are noted together. */
#include "sessions_fixture.h"

#include "sessions/sessions_parts.h"

#define GROUP "$share/g/t/#"

static char told[256]; /* "+" or "-" and the filter, of each change */

static int refusal; /* of a group that begins */

static int note_group(void *context, const char *filter, size_t length, bool there)
{
    (void)context;
    size_t at = strlen(told);
    snprintf(told + at, sizeof told - at, "%c%.*s ", there ? '+' : '-', (int)length, filter);
    return there ? refusal : 0;
}

static void expect_told(const char *expected)
{
    assert_string_equal(told, expected);
    told[0] = 0;
}

static void begin(struct fixture *f)
{
    *f = (struct fixture){.options.group = note_group};
    told[0] = 0;
    start(f);
}

static struct session *group_of(struct fixture *f)
{
    return session_find_group(&f->sessions->store, GROUP, strlen(GROUP));
}

static struct session *attach_group(struct fixture *f)
{
    return sessions_group_attach(f->sessions, GROUP, strlen(GROUP));
}

static void let_go(struct fixture *f, struct session *group, struct follower_places position, const struct session_sent *sent, size_t count)
{
    struct sessions_leave leave = {.expiry_s = SESSIONS_NEVER,
                                   .wall_ns = clock_wall_ns(),
                                   .cursor = count ? (struct follower_places){{sent->offset}} : position,
                                   .position = position,
                                   .sent = sent,
                                   .sent_count = count,
                                   .next_id = 1};
    sessions_detach(f->sessions, group, &leave);
}

static void unsubscribe(struct fixture *f, struct session *session, const char *filter)
{
    assert_int_equal(sessions_unsubscribe(f->sessions, session, filter, strlen(filter), NULL), 0);
}

static bool prune(struct fixture *f)
{
    struct buffer filter;
    buffer_init(&filter, 100);
    bool attached = sessions_group_unused(f->sessions, &filter);
    assert_true(!attached || (filter.length == strlen(GROUP) && memcmp(filter.data, GROUP, filter.length) == 0));
    buffer_fini(&filter);
    return attached;
}

static void a_group_lasts_as_long_as_a_session_wants_it(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    struct session *a = create(&f, "a"), *b = create(&f, "b");
    subscribe(&f, a, GROUP, 0);
    assert_null(group_of(&f));
    subscribe(&f, a, GROUP, 1);
    subscribe(&f, a, GROUP, 2);
    subscribe(&f, b, GROUP, 1);
    subscribe(&f, b, "t/#", 1);
    expect_told("+" GROUP " ");
    assert_int_equal(status_of(&f).sessions, 2);
    assert_int_equal(status_of(&f).groups, 1);
    assert_int_equal(status_of(&f).subscriptions, 3);
    for (unsigned i = 0; i < 2; i++) {
        again(&f);
        expect_told("+" GROUP " ");
        assert_false(prune(&f));
        assert_int_equal(group_of(&f)->members, 2);
    }
    a = attach(&f, "a");
    unsubscribe(&f, a, GROUP);
    assert_false(prune(&f));
    assert_non_null(group_of(&f));
    struct session *group = attach_group(&f);
    assert_ptr_equal(group, group_of(&f));
    assert_null(attach_group(&f)); /* somebody has it */
    assert_int_equal(status_of(&f).attached, 1);
    assert_false(sessions_group_end(f.sessions, group));
    b = attach(&f, "b");
    detach(&f, b, 0, clock_wall_ns()); /* its session ends */
    assert_true(prune(&f));            /* whoever has attached the group is to end it */
    assert_true(sessions_group_end(f.sessions, group));
    assert_false(prune(&f));
    expect_told("-" GROUP " ");
    assert_null(attach_group(&f));
    again(&f);
    expect_told("");
    assert_int_equal(status_of(&f).groups, 0);
    finish(&f);
}

static void one_that_is_refused_leaves_nothing(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    struct session *a = create(&f, "a");
    struct router_subscription how = {.qos = 1};
    size_t bytes = status_of(&f).bytes;
    refusal = ERR_LIMIT;
    assert_int_equal(sessions_subscribe(f.sessions, a, GROUP, strlen(GROUP), &how, NULL, NULL), ERR_LIMIT);
    refusal = 0;
    assert_int_equal(status_of(&f).bytes, bytes);
    assert_int_equal(look(&f, a).filter_count, 0);
    assert_int_equal(status_of(&f).groups, 0);
    finish(&f);
}

static void one_without_an_owner_ends_by_itself(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    subscribe(&f, create(&f, "a"), GROUP, 2);
    struct session *a = session_find(&f.sessions->store, "a", 1);
    subscribe(&f, a, GROUP, 0);
    expect_told("+" GROUP " ");
    assert_null(attach_group(&f));
    assert_false(prune(&f));
    expect_told("-" GROUP " ");
    subscribe(&f, a, GROUP, 1);
    detach(&f, a, 10, 0);
    assert_int_equal(sessions_sweep(f.sessions, UINT64_C(20000000000)), 0);
    settle(&f);
    assert_int_equal(sessions_sweep(f.sessions, UINT64_C(20000000000)), 1); /* the group itself never expires */
    assert_non_null(group_of(&f));
    assert_false(prune(&f));
    expect_told("+" GROUP " -" GROUP " ");
    finish(&f);
}

static void no_client_has_its_name(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    struct session *a = create(&f, GROUP), *none;
    assert_null(group_of(&f));
    subscribe(&f, a, GROUP, 1);
    assert_ptr_not_equal(group_of(&f), a);
    assert_ptr_equal(session_find(&f.sessions->store, GROUP, strlen(GROUP)), a);
    assert_int_equal(attach_as(&f, "$share/g/t/", "", false, &none), SESSIONS_NONE);
    finish(&f);
}

/* A start finds the subscription and no group, as after a version that knew of none. */
static void a_group_that_is_missing_begins_with_the_start(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    subscribe(&f, create(&f, "a"), GROUP, 2);
    publish(&f, QUEUE_KEPT, &(struct queue_origin){0}, 10);
    settle(&f);
    assert_int_equal(sessions_end(f.sessions, group_of(&f)), 0);
    again(&f);
    assert_int_equal(group_of(&f)->members, 1);
    assert_int_equal(group_of(&f)->cursor.at[1], 1);
    again(&f);
    assert_int_equal(group_of(&f)->members, 1);
    finish(&f);
}

static void expect_one_sent(struct fixture *f, struct session *session, unsigned count, uint64_t offset, enum session_sent_state state)
{
    struct seen seen = look(f, session);
    assert_int_equal(seen.sent_count, count);
    if (count) {
        assert_int_equal(seen.sent[count - 1].offset, offset);
        assert_int_equal(seen.sent[count - 1].state, state);
        assert_int_equal(seen.sent[count - 1].shared, !session->group);
    }
}

static void what_is_given_is_the_members(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    struct session *a = create(&f, "a"), *group;
    subscribe(&f, a, GROUP, 2);
    group = attach_group(&f);
    struct session_sent sent = {.offset = 5, .packet_id = 7, .content = 1, .qos = 2, .shared = true};
    uint64_t place = 0;
    assert_int_equal(sessions_give(f.sessions, group, a, &sent, &place), 0);
    assert_int_equal(place, f.sessions->next_offset);
    for (unsigned i = 0; i < 3; i++) {
        expect_one_sent(&f, a, 1, 5, i < 2 ? SESSION_SENT : SESSION_RECEIVED);
        expect_one_sent(&f, group, 1, 5, SESSION_DONE);
        assert_int_equal(sessions_given(f.sessions, group), 1);
        if (i == 1)
            assert_int_equal(sessions_received(f.sessions, a, 7, NULL), 0);
        again(&f);
        a = attach(&f, "a");
        group = attach_group(&f);
    }
    /* The member's cursor is no matter of it, nor is the group's; answered, it is gone. */
    assert_int_equal(sessions_advance(f.sessions, a, &(struct follower_places){{0, 9, 0}}), 0);
    expect_one_sent(&f, a, 1, 5, SESSION_RECEIVED);
    assert_int_equal(sessions_advance(f.sessions, group, &(struct follower_places){{0, 6, 0}}), 0);
    expect_one_sent(&f, group, 0, 0, SESSION_SENT);
    size_t bytes = status_of(&f).bytes;
    assert_int_equal(sessions_completed(f.sessions, a, 7, NULL), 0);
    expect_one_sent(&f, a, 0, 0, SESSION_SENT);
    assert_int_equal(status_of(&f).bytes, bytes - sizeof(struct session_sent));
    again(&f);
    expect_one_sent(&f, attach(&f, "a"), 0, 0, SESSION_SENT);
    expect_one_sent(&f, attach_group(&f), 0, 0, SESSION_SENT);
    finish(&f);
}

static void to_one_without_a_session_the_group_notes_it(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    struct session *a = create(&f, "a"), *group;
    subscribe(&f, a, GROUP, 2);
    group = attach_group(&f);
    struct session_sent sent = {.offset = 5, .packet_id = 7, .content = 1, .qos = 2};
    uint64_t place;
    assert_int_equal(sessions_give(f.sessions, group, NULL, &sent, &place), 0);
    sent.offset = 6;
    assert_int_equal(sessions_give(f.sessions, NULL, a, &sent, &place), 0); /* the group has ended meanwhile */
    again(&f);
    expect_one_sent(&f, attach(&f, "a"), 1, 6, SESSION_SENT);
    expect_one_sent(&f, attach_group(&f), 1, 5, SESSION_DONE);
    finish(&f);
}

/* Wherever the stream ends, both know of a message or neither does. */
static void a_crash_leaves_both_sides_or_none(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed < 30; seed++) {
        struct fixture f;
        begin(&f);
        f.options.slack = 1000; /* it is written again all the time */
        again(&f);
        struct session *a = create(&f, "a");
        subscribe(&f, a, GROUP, 2);
        struct session *group = attach_group(&f);
        settle(&f);
        for (unsigned i = 0; i < 40; i++) {
            struct session_sent sent = {.offset = i, .packet_id = (uint16_t)(i + 1), .content = 1, .qos = 2, .shared = true};
            uint64_t place;
            assert_int_equal(sessions_give(f.sessions, group, a, &sent, &place), 0);
            sessions_flush(f.sessions);
            if (i % 3 == 0 && i < 30)
                step(&f);
        }
        struct simulated_disk *crashed = simulated_disk_crash(f.disk, seed);
        kill_process(&f);
        simulated_disk_destroy(f.disk);
        f.disk = crashed;
        start(&f);
        struct seen mine = look(&f, attach(&f, "a")), theirs = look(&f, attach_group(&f));
        assert_int_equal(mine.sent_count, theirs.sent_count);
        assert_in_range(mine.sent_count, 28, 40);
        for (unsigned i = 0; i < mine.sent_count; i++)
            assert_true(mine.sent[i].offset == i && theirs.sent[i].offset == i && theirs.sent[i].state == SESSION_DONE);
        finish(&f);
    }
}

static void the_journal_is_held_for_both(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    struct session *a = create(&f, "a"), *group;
    subscribe(&f, a, GROUP, 2);
    group = attach_group(&f);
    for (unsigned i = 0; i < 20; i++)
        publish(&f, QUEUE_KEPT, &(struct queue_origin){0}, 10);
    settle(&f);
    const struct follower_places end = {{0, 20, 0}};
    assert_int_equal(sessions_advance(f.sessions, a, &end), 0);
    sessions_sweep(f.sessions, 0);
    assert_int_equal(f.held[1], 0); /* the group's */
    struct session_sent sent = {.offset = 7, .packet_id = 7, .content = 1, .qos = 2, .shared = true};
    uint64_t place;
    assert_int_equal(sessions_give(f.sessions, group, a, &sent, &place), 0);
    assert_int_equal(sessions_advance(f.sessions, group, &end), 0);
    settle(&f);
    sessions_sweep(f.sessions, 0);
    assert_int_equal(f.held[1], 7);
    assert_int_equal(sessions_completed(f.sessions, a, 7, NULL), 0);
    settle(&f);
    sessions_sweep(f.sessions, 0);
    assert_int_equal(f.held[1], 20);
    finish(&f);
}

static void it_stands_where_it_was_left(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    subscribe(&f, create(&f, "a"), GROUP, 2);
    struct session *group = attach_group(&f);
    const struct session_sent back[] = {{.offset = 3, .packet_id = 1, .content = 0, .qos = 1},
                                        {.offset = 9, .packet_id = 1, .content = 0, .qos = 1}};
    let_go(&f, group, (struct follower_places){{12, 4, 5}}, back, 2);
    for (unsigned i = 0; i < 2; i++) {
        again(&f);
        group = attach_group(&f);
        struct seen seen = look(&f, group);
        assert_int_equal(seen.sent_count, 2);
        assert_true(seen.sent[1].offset == 9 && seen.sent[1].state == SESSION_SENT && !seen.sent[1].shared);
        assert_true(seen.cursor.at[0] == 3 && seen.position.at[0] == 12 && seen.position.at[2] == 5);
        assert_string_equal(seen.filters, "t/#:2 ");
        sessions_detach(f.sessions, group, NULL);
    }
    finish(&f);
}

static void groups_count_against_the_limits(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    kill_process(&f);
    f.options.sessions_max = 2;
    f.options.bytes_max = 4000;
    start(&f);
    struct session *a = create(&f, "a");
    subscribe(&f, a, GROUP, 2);
    struct router_subscription how = {.qos = 1};
    assert_int_equal(sessions_subscribe(f.sessions, a, "$share/h/t", 10, &how, NULL, NULL), ERR_LIMIT);
    assert_int_equal(look(&f, a).filter_count, 1);
    struct session *group = attach_group(&f);
    int error = 0;
    unsigned count = 0;
    for (; !error; count += !error) {
        struct session_sent sent = {.offset = count, .packet_id = (uint16_t)(count + 1), .content = 1, .qos = 2, .shared = true};
        uint64_t place;
        error = sessions_give(f.sessions, group, a, &sent, &place);
    }
    assert_int_equal(error, ERR_LIMIT);
    assert_in_range(count, 20, 120);
    assert_int_equal(a->sent_count, count);
    assert_int_equal(group->sent_count, count);
    assert_in_range(status_of(&f).bytes, 3900, 4000);
    again(&f);
    assert_int_equal(group_of(&f)->sent_count, count);
    finish(&f);
}

static void it_is_told_of_like_a_session(void **state)
{
    (void)state;
    struct fixture f;
    struct buffer json;
    begin(&f);
    subscribe(&f, create(&f, "a"), GROUP, 2);
    buffer_init(&json, 10000);
    assert_int_equal(sessions_write(f.sessions, &json), 0);
    assert_int_equal(buffer_append(&json, "", 1), 0);
    assert_non_null(strstr((const char *)json.data, "{\"group\":\"" GROUP "\",\"user\":\"\",\"connected\":false,\"subscriptions\":1,"));
    buffer_fini(&json);
    finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_lasts_as_long_as_a_session_wants_it),
        cmocka_unit_test(one_that_is_refused_leaves_nothing),
        cmocka_unit_test(one_without_an_owner_ends_by_itself),
        cmocka_unit_test(no_client_has_its_name),
        cmocka_unit_test(a_group_that_is_missing_begins_with_the_start),
        cmocka_unit_test(what_is_given_is_the_members),
        cmocka_unit_test(to_one_without_a_session_the_group_notes_it),
        cmocka_unit_test(a_crash_leaves_both_sides_or_none),
        cmocka_unit_test(the_journal_is_held_for_both),
        cmocka_unit_test(it_stands_where_it_was_left),
        cmocka_unit_test(groups_count_against_the_limits),
        cmocka_unit_test(it_is_told_of_like_a_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
