/* Groups on a real journal and its follower: to whom each message goes, what comes back and to whom it goes then, what is given, limits. */
#include "follower_scene.h"

#include "sessions/groups.h"

enum { MINE_MAX = 40000, PEOPLE = 8 };

#define GROUP "$share/g/t"

struct held {
    uint64_t offset;
    struct group_owed *owed;
    bool over; /* settled, given or back */
};

/* A connection that is a member. */
static struct person {
    struct group_member *member;
    struct held *held; /* [MINE_MAX] */
    size_t count;
    bool refuses;
} people[PEOPLE];

static struct sessions *sessions;
static struct groups *groups;
static struct session *durable; /* the session that keeps the group */

/* ---- the scene ---- */

static bool hand(void *context, const struct follower_delivery *delivery, const struct router_subscription *how, uint64_t number,
                 struct group_owed *owed)
{
    (void)context;
    (void)number;
    struct person *person = &people[how->connection];
    pthread_mutex_lock(&scene.lock);
    bool takes = !person->refuses;
    if (takes) {
        assert_true(person->count < MINE_MAX);
        person->held[person->count++] = (struct held){.offset = delivery->message->offset, .owed = owed};
    }
    scene.refused += !takes;
    pthread_cond_broadcast(&scene.told);
    pthread_mutex_unlock(&scene.lock);
    return takes;
}

static bool deliver(void *context, const struct follower_delivery *delivery)
{
    (void)context;
    assert_int_equal(delivery->targets[0].loop, GROUPS_LOOP);
    groups_deliver(groups, delivery);
    return true;
}

static void subscribe_session(const char *id, uint8_t qos)
{
    struct session_owner owner = {0};
    struct router_subscription how = {.qos = qos};
    uint64_t place;
    if (!durable)
        assert_int_equal(sessions_create(sessions, id, strlen(id), "", &owner, &durable), 0);
    assert_int_equal(sessions_subscribe(sessions, durable, GROUP, strlen(GROUP), &how, NULL, &place), 0);
}

static int open_all(void **state)
{
    holders = 1u << QUEUE_HOLDER_SESSIONS;
    if (begin(state))
        return -1;
    follower_stop(scene.follower);
    memset(people, 0, sizeof people);
    durable = NULL;
    assert_int_equal(sessions_open(&(struct sessions_options){.queue = scene.queue.queue}, &sessions), 0);
    assert_int_equal(groups_create(&(struct groups_options){.sessions = sessions, .hand = hand}, &groups), 0);
    assert_int_equal(follower_start(&scene.follower, &(struct follower_options){.queue = scene.queue.queue, .deliver = deliver}), 0);
    groups_follow(groups, scene.follower);
    return 0;
}

static void leave(unsigned who)
{
    group_leave(people[who].member);
    people[who].member = NULL;
    for (size_t i = 0; i < people[who].count; i++)
        people[who].held[i].over = true;
}

static int close_all(void **state)
{
    for (unsigned i = 0; i < PEOPLE; i++) {
        if (people[i].member)
            leave(i);
    }
    groups_follow(groups, NULL);
    int error = end(state);
    for (unsigned i = 0; i < PEOPLE; i++)
        free(people[i].held);
    groups_destroy(groups);
    sessions_close(sessions);
    return error;
}

static void enter(unsigned who)
{
    struct router_subscription how = {.connection = who, .qos = 2};
    if (!people[who].held)
        people[who].held = calloc(MINE_MAX, sizeof *people[who].held);
    people[who].count = 0;
    assert_int_equal(group_join(groups, GROUP, strlen(GROUP), &how, &people[who].member), 0);
}

static void let(unsigned who, uint64_t messages)
{
    group_grant(people[who].member, messages, UINT64_MAX / 16);
}

static size_t held(unsigned who)
{
    pthread_mutex_lock(&scene.lock);
    size_t count = people[who].count;
    pthread_mutex_unlock(&scene.lock);
    return count;
}

static void await_held(unsigned who, size_t count)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DEADLINE_S * UINT64_C(1000000000);
    while (held(who) < count && clock_monotonic_ns() < deadline_ns)
        usleep(200);
    assert_int_equal(held(who), count);
}

static void answer_one(unsigned who, size_t index)
{
    struct held *one = &people[who].held[index];
    assert_false(one->over);
    one->over = true;
    group_settle(people[who].member, one->owed);
}

static void give_one(unsigned who, size_t index)
{
    struct held *one = &people[who].held[index];
    struct session_sent sent = {.offset = one->offset, .packet_id = (uint16_t)(index + 1), .content = KEPT, .qos = 2};
    uint64_t place;
    assert_false(one->over);
    one->over = true;
    assert_int_equal(group_give(people[who].member, one->owed, NULL, &sent, &place), 0);
}

/* Where the group's session stands, when nobody has it. */
struct stand {
    struct session_sent sent[64];
    unsigned count;
    struct follower_places cursor, position;
};

static int see_sent(void *context, const struct session_sent *sent)
{
    struct stand *stand = context;
    stand->sent[stand->count++] = *sent;
    return 0;
}

static struct stand look(void)
{
    struct stand stand = {.count = 0};
    uint16_t next_id;
    struct session_visitor visitor = {.context = &stand, .sent = see_sent};
    struct session *group = sessions_group_attach(sessions, GROUP, strlen(GROUP));
    assert_non_null(group);
    assert_int_equal(sessions_visit(sessions, group, &visitor, &stand.cursor, &stand.position, &next_id), 0);
    sessions_detach(sessions, group, NULL);
    return stand;
}

/* ---- to whom ---- */

static void each_message_goes_to_the_next_in_turn(void **state)
{
    (void)state;
    subscribe_session("s", 1);
    for (unsigned who = 0; who < 3; who++) {
        enter(who);
        assert_true(group_is_durable(people[who].member));
        let(who, PLENTY);
    }
    append_many(KEPT, "t", 30);
    bool seen[30] = {false};
    for (unsigned who = 0; who < 3; who++) {
        await_held(who, 10);
        for (size_t i = 0; i < 10; i++) {
            assert_false(seen[people[who].held[i].offset]);
            assert_true(i == 0 || people[who].held[i].offset == people[who].held[i - 1].offset + 3);
            seen[people[who].held[i].offset] = true;
        }
    }
}

static void a_group_that_no_session_keeps_is_live(void **state)
{
    (void)state;
    enter(0);
    let(0, PLENTY);
    assert_false(group_is_durable(people[0].member));
    append_many(KEPT, "t", 5);
    subscribe_session("s", 0); /* nothing that could be kept */
    groups_check(groups);
    assert_false(group_is_durable(people[0].member));
    subscribe_session("s", 1);
    enter(1); /* which it is told by its member */
    assert_true(group_is_durable(people[0].member));
    append_many(KEPT, "t", 5);
    await_held(0, 5);
    assert_int_equal(people[0].held[0].offset, 5);
    uint64_t place;
    assert_int_equal(sessions_unsubscribe(sessions, durable, GROUP, strlen(GROUP), &place), 0);
    groups_prune(groups);
    assert_false(group_is_durable(people[0].member));
    append_many(KEPT, "t", 5);
    answer_one(0, 0); /* what is under way may be finished */
    assert_int_equal(held(0), 5);
    assert_null(sessions_group_attach(sessions, GROUP, strlen(GROUP)));
}

static void without_room_the_group_falls_behind(void **state)
{
    (void)state;
    subscribe_session("s", 1);
    enter(0);
    enter(1);
    append_many(KEPT, "t", 100);
    let(0, 3);
    let(1, 2);
    await_held(0, 3);
    await_held(1, 2);
    let(1, 50);
    await_held(1, 50);
    let(0, 100);
    await_held(0, 50);
    assert_int_equal(held(1), 50);
    group_retire(people[1].member);
    append_many(KEPT, "t", 10);
    await_held(0, 60);
    assert_int_equal(held(1), 50);
    for (size_t i = 0; i < 50; i++) {
        assert_false(group_is_finished(people[1].member));
        answer_one(1, i);
    }
    assert_true(group_is_finished(people[1].member));
}

/* ---- what comes back ---- */

static void what_a_member_owes_goes_to_another_and_first(void **state)
{
    (void)state;
    subscribe_session("s", 1);
    enter(0);
    let(0, 10);
    append_many(KEPT, "t", 20);
    await_held(0, 10);
    answer_one(0, 0);
    answer_one(0, 7);
    enter(1);
    leave(0);
    let(1, PLENTY);
    await_held(1, 18);
    static const uint64_t expected[] = {1, 2, 3, 4, 5, 6, 8, 9, 10, 11};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_int_equal(people[1].held[i].offset, expected[i]);
    struct held *back = &people[1].held[4]; /* one alone */
    back->over = true;
    enter(2);
    let(2, 1);
    group_return(people[1].member, back->owed);
    append_many(KEPT, "t", 1);
    uint64_t deadline_ns = clock_monotonic_ns() + DEADLINE_S * UINT64_C(1000000000);
    while (held(1) + held(2) < 20 && clock_monotonic_ns() < deadline_ns)
        usleep(200);
    assert_int_equal(held(1) + held(2), 20);
    bool found = false;
    for (size_t i = 18; i < held(1); i++)
        found = found || people[1].held[i].offset == 5;
    for (size_t i = 0; i < held(2); i++)
        found = found || people[2].held[i].offset == 5;
    assert_true(found);
}

static void it_waits_when_all_have_left(void **state)
{
    (void)state;
    subscribe_session("s", 1);
    enter(0);
    let(0, 10);
    append_many(KEPT, "t", 20);
    await_held(0, 10);
    for (size_t i = 0; i < 10; i++)
        if (i != 2 && i != 6)
            answer_one(0, i);
    leave(0);
    struct stand stand = look();
    assert_int_equal(stand.cursor.at[KEPT], 2);
    assert_int_equal(stand.position.at[KEPT], 10);
    assert_int_equal(stand.count, 2);
    assert_true(stand.sent[0].offset == 2 && stand.sent[1].offset == 6 && stand.sent[0].state == SESSION_SENT);
    enter(1);
    let(1, PLENTY);
    await_held(1, 12);
    assert_true(people[1].held[0].offset == 2 && people[1].held[1].offset == 6 && people[1].held[2].offset == 10);
    for (size_t i = 0; i < 12; i++)
        answer_one(1, i);
    leave(1);
    stand = look();
    assert_true(stand.cursor.at[KEPT] == 20 && stand.position.at[KEPT] == 20 && stand.count == 0);
}

static void what_cannot_be_handed_goes_later(void **state)
{
    (void)state;
    subscribe_session("s", 1);
    enter(0);
    people[0].refuses = true;
    let(0, PLENTY);
    append_many(KEPT, "t", 10);
    uint64_t deadline_ns = clock_monotonic_ns() + DEADLINE_S * UINT64_C(1000000000);
    bool refused = false;
    while (!refused && clock_monotonic_ns() < deadline_ns) {
        pthread_mutex_lock(&scene.lock);
        refused = scene.refused >= 10;
        people[0].refuses = !refused;
        pthread_mutex_unlock(&scene.lock);
    }
    groups_check(groups);
    await_held(0, 10);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(people[0].held[i].offset, i);
}

/* Its place moves past what is not for it while nobody is there, up to the first message that is. */
static void while_all_are_away_it_moves_past_what_is_for_others(void **state)
{
    (void)state;
    uint64_t now_ns = clock_wall_ns(), deadline_ns = clock_monotonic_ns() + DEADLINE_S * UINT64_C(1000000000);
    subscribe_session("s", 1);
    sessions_follow(sessions, scene.follower);
    append_many(KEPT, "other", 50);
    append_many(KEPT, "t", 1);
    append_many(KEPT, "other", 5);
    while (look().cursor.at[KEPT] < 50 && clock_monotonic_ns() < deadline_ns) {
        sessions_sweep(sessions, now_ns += UINT64_C(31000000000));
        usleep(1000);
    }
    assert_int_equal(look().cursor.at[KEPT], 50);
    enter(0);
    let(0, PLENTY);
    await_held(0, 1);
    assert_int_equal(people[0].held[0].offset, 50);
    sessions_follow(sessions, NULL);
}

/* ---- what is given ---- */

static void what_was_given_goes_to_nobody_else(void **state)
{
    (void)state;
    subscribe_session("s", 2);
    enter(0);
    let(0, 6);
    append_many(KEPT, "t", 6);
    await_held(0, 6);
    give_one(0, 1);
    give_one(0, 4);
    leave(0);
    struct stand stand = look();
    assert_int_equal(stand.count, 4); /* the two lie before its position, and need not be known any more */
    enter(1);
    let(1, PLENTY);
    await_held(1, 4);
    static const uint64_t expected[] = {0, 2, 3, 5};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(people[1].held[i].offset, expected[i]);
    append_many(KEPT, "t", 1);
    await_held(1, 5);
}

/* A crash leaves the group where it was noted last, with what it has given since. */
static void what_was_given_is_passed_over_after_a_crash(void **state)
{
    (void)state;
    subscribe_session("s", 2);
    append_many(KEPT, "t", 6);
    struct session *group = sessions_group_attach(sessions, GROUP, strlen(GROUP));
    static const uint64_t given[] = {4, 1};
    uint64_t place;
    for (unsigned i = 0; i < 2; i++) {
        struct session_sent sent = {.offset = given[i], .packet_id = 1, .content = KEPT, .qos = 2};
        assert_int_equal(sessions_give(sessions, group, NULL, &sent, &place), 0);
    }
    sessions_detach(sessions, group, NULL);
    enter(0);
    let(0, PLENTY);
    await_held(0, 4);
    static const uint64_t expected[] = {0, 2, 3, 5};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(people[0].held[i].offset, expected[i]);
        answer_one(0, i);
    }
    groups_check(groups);
    leave(0);
    struct stand stand = look();
    assert_true(stand.cursor.at[KEPT] == 6 && stand.count == 0);
}

/* ---- limits ---- */

static void what_is_owed_is_bounded(void **state)
{
    (void)state;
    subscribe_session("s", 1);
    enter(0);
    let(0, PLENTY);
    append_many(KEPT, "t", GROUP_OWED_MAX + 100);
    await_held(0, GROUP_OWED_MAX);
    for (size_t i = 0; i < 100; i++)
        answer_one(0, i);
    await_held(0, GROUP_OWED_MAX + 100);
    leave(0);
    enter(1);
    let(1, PLENTY);
    await_held(1, GROUP_OWED_MAX);
}

static void what_is_given_behind_what_is_owed_is_bounded(void **state)
{
    (void)state;
    subscribe_session("s", 2);
    enter(0);
    enter(1);
    let(0, 1);
    append_many(KEPT, "t", 1);
    await_held(0, 1); /* and is not answered: the cursor stays */
    let(1, PLENTY);
    append_many(KEPT, "t", GROUP_GIVEN_MAX + 100);
    size_t done = 0;
    uint64_t deadline_ns = clock_monotonic_ns() + DEADLINE_S * UINT64_C(1000000000);
    while (done < GROUP_GIVEN_MAX - 1 && clock_monotonic_ns() < deadline_ns)
        for (size_t have = held(1); done < have; done++)
            give_one(1, done);
    assert_int_equal(held(1), GROUP_GIVEN_MAX - 1); /* and one is owed */
    leave(0);                                       /* what the cursor waits for goes to the other all the same */
    uint64_t back = 0;
    while (back == 0 && clock_monotonic_ns() < deadline_ns)
        for (size_t i = GROUP_GIVEN_MAX - 1; i < held(1); i++)
            back = people[1].held[i].offset == 0 ? i : back;
    answer_one(1, back);
    groups_check(groups);
    await_held(1, GROUP_GIVEN_MAX + 101);
}

/* ---- all of it ---- */

/* Members come and go, have room, answer, and are given what they are sent, while messages arrive: each message is settled or given once.
 */
static void nothing_is_lost_and_nothing_is_settled_twice(void **state)
{
    (void)state;
    enum { MESSAGES = 6000 };
    static uint8_t done[MESSAGES];
    static size_t looked[PEOPLE];
    uint64_t granted[PEOPLE] = {0};
    uint32_t random = 12345;
    size_t finished = 0, appended = 0;
    bool all_left = false;
    memset(done, 0, sizeof done);
    subscribe_session("s", 2);
    uint64_t deadline_ns = clock_monotonic_ns() + DEADLINE_S * UINT64_C(1000000000);
    while (finished < MESSAGES && clock_monotonic_ns() < deadline_ns) {
        random = random * 1664525 + 1013904223;
        unsigned who = random >> 28 & (PEOPLE - 1), what = random >> 20 & 63;
        if (appended < MESSAGES && what < 8) {
            append(KEPT, "t", 1, 0);
            submit();
            appended++;
        }
        if (!people[who].member && what < 32) {
            enter(who);
            looked[who] = granted[who] = 0;
        } else if (people[who].member && what == 63 && appended < MESSAGES) {
            leave(who);
        } else if (people[who].member && what == 62) {
            groups_check(groups);
        } else if (people[who].member) {
            let(who, granted[who] = looked[who] + what % 8);
            for (size_t have = held(who); looked[who] < have; looked[who]++) {
                struct held *one = &people[who].held[looked[who]];
                if (what % 5 == 0 && appended < MESSAGES)
                    continue; /* it never answers this one */
                assert_int_equal(done[one->offset]++, 0);
                finished++;
                (what & 1 ? give_one : answer_one)(who, looked[who]);
            }
        }
        bool last = appended == MESSAGES && !all_left; /* what was not answered comes back */
        all_left = all_left || last;
        if (last)
            for (unsigned i = 0; i < PEOPLE; i++)
                if (people[i].member)
                    leave(i);
    }
    assert_int_equal(finished, MESSAGES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_message_goes_to_the_next_in_turn, open_all, close_all),
        cmocka_unit_test_setup_teardown(a_group_that_no_session_keeps_is_live, open_all, close_all),
        cmocka_unit_test_setup_teardown(without_room_the_group_falls_behind, open_all, close_all),
        cmocka_unit_test_setup_teardown(what_a_member_owes_goes_to_another_and_first, open_all, close_all),
        cmocka_unit_test_setup_teardown(it_waits_when_all_have_left, open_all, close_all),
        cmocka_unit_test_setup_teardown(what_cannot_be_handed_goes_later, open_all, close_all),
        cmocka_unit_test_setup_teardown(while_all_are_away_it_moves_past_what_is_for_others, open_all, close_all),
        cmocka_unit_test_setup_teardown(what_was_given_goes_to_nobody_else, open_all, close_all),
        cmocka_unit_test_setup_teardown(what_was_given_is_passed_over_after_a_crash, open_all, close_all),
        cmocka_unit_test_setup_teardown(what_is_owed_is_bounded, open_all, close_all),
        cmocka_unit_test_setup_teardown(what_is_given_behind_what_is_owed_is_bounded, open_all, close_all),
        cmocka_unit_test_setup_teardown(nothing_is_lost_and_nothing_is_settled_twice, open_all, close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
