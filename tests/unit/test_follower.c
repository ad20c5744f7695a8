/* The follower on a real journal: order, places, room, what is wanted again, subscriptions, a receiver that refuses. */
#include <sched.h>
#include <stdio.h>

#include "follower_scene.h"

/* ---- order, places, room ---- */

static void what_matches_is_handed_from_every_stream(void **state)
{
    (void)state;
    append(KEPT, "a/before", 1, 0);
    settle();
    join(0, ends(), "a/#");
    grant(0, PLENTY);
    append(CONSUMED, "a/x", 1, 0);
    append(KEPT, "a/y", 2, 4);
    append(KEPT, "b/y", 1, 0);
    append(KEPT, "a/0", 0, 0);
    append(KEPT, "a/retained", 1 | MESSAGE_RETAIN, 5);
    append(RESULTS, "answer", 1, 0);
    append(RESULTS, "answer", 1 | MESSAGE_WITHHELD, 0);
    settle();
    await(0, 3);
    await_end(0);
    subscribe(0, "answer", ends());
    append(RESULTS, "answer", 2, 0);
    append(RESULTS, "answer", 2 | MESSAGE_WITHHELD, 0);
    append(RESULTS, "answer", 0, 0);
    settle();
    await(0, 4);
    await_end(0);
    const struct client *client = &scene.clients[0];
    unsigned per_content[FOLLOWER_CONTENTS] = {0};
    for (size_t i = 0; i < client->count; i++) {
        per_content[client->handed[i].content]++;
        assert_int_equal(client->handed[i].qos, 1); /* the subscription's */
        assert_false(client->handed[i].again);
        if (client->handed[i].content == KEPT)
            assert_int_equal(client->handed[i].origin, client->handed[i].offset == 1 ? 4 : 5);
    }
    assert_int_equal(per_content[CONSUMED], 1);
    assert_int_equal(per_content[KEPT], 2);
    assert_true(per_content[RESULTS] == 1);
    uint64_t handed;
    passed(0, &handed);
    assert_int_equal(handed, 4);
    assert_int_equal(status().handed, 4);
    assert_int_equal(status().members, 1);
}

static void a_member_without_room_waits_at_its_place(void **state)
{
    (void)state;
    append_many(KEPT, "t", 100);
    join(0, nowhere, "t");
    join(1, nowhere, "t");
    grant(1, PLENTY);
    await(1, 100);
    assert_int_equal(count_of(0), 0);
    assert_int_equal(passed(0, NULL).at[KEPT], 0);
    for (uint64_t room = 1; room <= 100; room += 9) {
        grant(0, room);
        await(0, room);
        await_passed(0, KEPT, room);
    }
    append_many(KEPT, "t", 10);
    await(1, 110);
    await_passed(0, KEPT, 100);
    assert_int_equal(passed(0, NULL).at[KEPT], 100);
    assert_int_equal(count_of(0), 100);
    grant(0, PLENTY);
    await(0, 110);
    assert_handed(0, KEPT, 0, 110);
    assert_handed(1, KEPT, 0, 110);
}

static void bytes_are_room_too(void **state)
{
    (void)state;
    append_many(KEPT, "t", 20); /* of 9 bytes */
    join(0, nowhere, "t");
    follower_grant(scene.clients[0].member, PLENTY, 9 * 5);
    await(0, 5);
    follower_grant(scene.clients[0].member, PLENTY, 9 * 7 + 1);
    await(0, 8);
    append_many(KEPT, "t", 1);
    assert_int_equal(count_of(0), 8);
    follower_grant(scene.clients[0].member, 12, UINT64_MAX);
    await(0, 12);
    follower_grant(scene.clients[0].member, PLENTY, UINT64_MAX);
    await(0, 21);
    assert_handed(0, KEPT, 0, 21);
}

static void *produce(void *context)
{
    unsigned count = *(unsigned *)context;
    for (unsigned i = 0; i < count; i++) {
        append(KEPT, i % 2 ? "t/odd" : "t/even", 1, 0);
        if (i % 40 == 39)
            submit();
    }
    submit();
    return NULL;
}

/* While a producer appends. */
static void members_at_many_places_all_get_all(void **state)
{
    (void)state;
    enum { COUNT = 20000, CLIENTS = 24 };
    unsigned count = COUNT / 2;
    produce(&count);
    settle();
    pthread_t producer;
    assert_int_equal(pthread_create(&producer, NULL, produce, &count), 0);
    uint64_t from[CLIENTS];
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct follower_places places = ends();
        if (i % 3)
            places.at[KEPT] = (uint64_t)i * 400;
        from[i] = places.at[KEPT];
        join(i, places, "t/+");
        grant(i, i % 2 ? PLENTY : 700);
    }
    for (unsigned i = 0; i < CLIENTS; i += 2)
        for (uint64_t room = 700; room < COUNT; room += 2300) {
            grant(i, room);
            await(i, room < COUNT - from[i] ? room : COUNT - from[i]);
        }
    pthread_join(producer, NULL);
    settle();
    for (unsigned i = 0; i < CLIENTS; i++) {
        grant(i, PLENTY);
        await(i, COUNT - from[i]);
        await_end(i);
        assert_handed(i, KEPT, from[i], COUNT);
    }
    assert_int_equal(status().sweeps, 0); /* all have met */
}

/* Each has a place of its own, too far from the others' to share a sweep. Half of them stand still at once. */
static void more_members_behind_than_sweeps_all_get_their_turn(void **state)
{
    (void)state;
    enum { REGIONS = FOLLOWER_SWEEPS_MAX + 4, APART = 4200, COUNT = REGIONS * APART, EVERY = 50, CLIENTS = 2 * REGIONS };
    static uint8_t payload[100];
    for (unsigned i = 0; i < COUNT; i++) {
        struct message message = {
            .topic = i % EVERY ? "o" : "t", .topic_length = 1, .payload = payload, .payload_length = sizeof payload, .flags = 1};
        assert_int_equal(scene.producer->ops->append(scene.producer, QUEUE_KEPT, &message, 0), 0);
        if (i % 2000 == 1999)
            settle();
    }
    settle();
    uint64_t sweeps = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        join(i, (struct follower_places){{0, i / 2 * APART, 0}}, "t");
        grant(i, i % 2 ? PLENTY : 1);
    }
    join(CLIENTS, ends(), "t"); /* that does not wait */
    grant(CLIENTS, PLENTY);
    append_many(KEPT, "t", 1);
    await(CLIENTS, 1);
    for (unsigned i = 0; i < CLIENTS; i++) {
        uint64_t behind = status().sweeps;
        sweeps = behind > sweeps ? behind : sweeps;
        await(i, i % 2 ? (COUNT - i / 2 * APART) / EVERY + 1 : 1);
    }
    assert_in_range(sweeps, 1, FOLLOWER_SWEEPS_MAX);
    for (uint64_t room = 10; room <= 70; room += 30)
        for (unsigned i = 0; i < CLIENTS; i += 2)
            grant(i, room);
    for (unsigned i = 0; i < CLIENTS; i += 2) {
        await(i, 70);
        grant(i, PLENTY);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        uint64_t first = i / 2 * APART, expected = (COUNT - first) / EVERY;
        await(i, expected + 1);
        for (unsigned k = 0; k <= expected; k++)
            assert_int_equal(scene.clients[i].handed[k].offset, first + (uint64_t)k * EVERY);
    }
}

/* ---- what is wanted again ---- */

static void what_is_wanted_again_comes_first_and_in_order(void **state)
{
    (void)state;
    append_many(CONSUMED, "c", 50);
    append_many(KEPT, "k", 20000);
    const struct follower_again again[] = {{3, CONSUMED, 2}, {7, CONSUMED, 1}, {0, KEPT, 1},
                                           {5, KEPT, 2},     {17000, KEPT, 2}, {17001, KEPT, 1}};
    struct follower_places places = {{40, 19990, 0}};
    join_again(0, places, again, 6);
    subscribe(0, "k", nowhere); /* not to "c" */
    assert_int_equal(passed(0, NULL).at[CONSUMED], 3);
    assert_int_equal(passed(0, NULL).at[KEPT], 0);
    grant(0, 2);
    await(0, 2);
    await_passed(0, CONSUMED, 40);
    assert_int_equal(passed(0, NULL).at[CONSUMED], 40);
    assert_int_equal(passed(0, NULL).at[KEPT], 0);
    grant(0, 5);
    await(0, 5);
    await_passed(0, KEPT, 17001);
    grant(0, PLENTY);
    await(0, 16);
    await_end(0);
    const struct client *client = &scene.clients[0];
    for (unsigned i = 0; i < 6; i++) {
        assert_true(client->handed[i].again);
        assert_int_equal(client->handed[i].offset, again[i].offset);
        assert_int_equal(client->handed[i].content, again[i].content);
        assert_int_equal(client->handed[i].qos, again[i].qos);
    }
    for (unsigned i = 6; i < 16; i++) {
        assert_false(client->handed[i].again);
        assert_int_equal(client->handed[i].offset, 19990 + i - 6);
    }
    assert_int_equal(status().gone, 0);
    assert_true(status().read < 19000); /* it did not read all between */
}

/* Of the kept stream the first segments are removed. */
static void what_is_gone_is_passed_over(void **state)
{
    (void)state;
    append_segments(scene.queue.kept);
    struct retention_trim half = {.before = 5, .until_ns = UINT64_MAX};
    struct journal_trimmed trimmed;
    assert_int_equal(journal_stream_trim(scene.queue.kept, &half, false, &trimmed), 0);
    free(trimmed.bases);
    uint64_t left = trimmed.first_offset;
    assert_in_range(left, 1, 5);
    const struct follower_again again[] = {{0, KEPT, 1}, {left - 1, KEPT, 1}, {left, KEPT, 2}, {7, KEPT, 1}, {100, KEPT, 1}};
    join_again(0, (struct follower_places){{0, 8, 0}}, again, 5);
    grant(0, PLENTY);
    await(0, 2);
    await_end(0);
    assert_int_equal(scene.clients[0].handed[0].offset, left);
    assert_int_equal(scene.clients[0].handed[1].offset, 7);
    assert_int_equal(status().gone, left == 1 ? 3 : 3);
    join(1, nowhere, "#"); /* a place that is gone is no error */
    grant(1, PLENTY);
    await(1, 8 - left);
    assert_handed(1, KEPT, left, 8);
}

static void many_want_something_again_at_once(void **state)
{
    (void)state;
    enum { CLIENTS = 2 * FOLLOWER_SWEEPS_MAX };
    append_many(KEPT, "t", 1000);
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct follower_again again[] = {{i, KEPT, 1}, {i + 1, KEPT, 1}, {i + 500, KEPT, 2}};
        join_again(i, (struct follower_places){{0, 900, 0}}, again, 3);
        subscribe(i, "t", nowhere);
        grant(i, 1); /* each stands still behind its first */
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        await(i, 1);
    for (unsigned i = 0; i < CLIENTS; i += 2)
        follower_leave(scene.clients[i].member);
    for (unsigned i = 1; i < CLIENTS; i += 2)
        grant(i, PLENTY);
    for (unsigned i = 1; i < CLIENTS; i += 2) {
        await(i, 103);
        await_end(i);
        const uint64_t first[] = {i, i + 1, i + 500};
        for (unsigned k = 0; k < 103; k++)
            assert_int_equal(scene.clients[i].handed[k].offset, k < 3 ? first[k] : 900 + k - 3);
    }
    assert_int_equal(status().members, CLIENTS / 2);
}

/* ---- subscriptions ---- */

static void a_subscription_begins_at_its_place(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 100; i++)
        append(KEPT, i % 2 ? "odd" : "even", 1, 0);
    settle();
    join(0, nowhere, "odd");
    subscribe(0, "even", (struct follower_places){{0, 50, 0}});
    subscribe(0, "later", (struct follower_places){{0, 1000, 0}});
    subscribe(0, "even", (struct follower_places){{0, 60, 0}}); /* keeps the lesser */
    join(1, nowhere, "odd");
    subscribe(1, "even", (struct follower_places){{0, 60, 0}});
    subscribe(1, "even", (struct follower_places){{0, 50, 0}});
    grant(0, PLENTY);
    grant(1, PLENTY);
    for (unsigned c = 0; c < 2; c++) {
        await(c, 75);
        await_end(c);
        for (unsigned i = 0; i < 75; i++)
            assert_int_equal(scene.clients[c].handed[i].offset, i < 25 ? 2 * i + 1 : 25 + i);
    }
    append_many(KEPT, "later", 905);
    await(0, 80);
    assert_int_equal(scene.clients[0].handed[75].offset, 1000);
}

static void what_becomes_durable_after_a_subscription_is_not_missed(void **state)
{
    (void)state;
    join(0, ends(), "other");
    grant(0, PLENTY);
    for (unsigned i = 0; i < 200; i++) {
        char topic[32];
        snprintf(topic, sizeof topic, "t/%u", i);
        append_many(KEPT, "noise", 50);
        subscribe(0, topic, ends());
        append_many(KEPT, topic, 1);
        await(0, i + 1);
    }
}

static void the_last_subscription_to_a_filter_counts(void **state)
{
    (void)state;
    join_again(0, nowhere, NULL, 0);
    subscribe_how(0, "a/+", nowhere, (struct router_subscription){.qos = 1, .identifier = 10});
    subscribe_how(0, "a/#", nowhere, (struct router_subscription){.qos = 1, .identifier = 100, .options = ROUTER_RETAIN_AS_PUBLISHED});
    grant(0, PLENTY);
    append_many(KEPT, "a/b", 1);
    await(0, 1);
    subscribe_how(0, "a/+", nowhere, (struct router_subscription){.qos = 2, .identifier = 20});
    append_many(KEPT, "a/b", 1);
    await(0, 2);
    assert_int_equal(follower_unsubscribe(scene.clients[0].member, "a/#", 3), 0);
    assert_int_equal(follower_unsubscribe(scene.clients[0].member, "a/none", 6), 0);
    append_many(KEPT, "a/b", 1);
    await(0, 3);
    assert_int_equal(follower_unsubscribe(scene.clients[0].member, "a/+", 3), 0);
    append_many(KEPT, "a/b", 1);
    subscribe_how(0, "a/+", ends(), (struct router_subscription){.qos = 1, .identifier = 30});
    append_many(KEPT, "a/b", 1);
    await(0, 4);
    const struct handed *handed = scene.clients[0].handed;
    assert_int_equal(handed[0].identifier, 110);
    assert_int_equal(handed[0].qos, 1);
    assert_true(handed[0].options & ROUTER_RETAIN_AS_PUBLISHED);
    assert_int_equal(handed[1].identifier, 120);
    assert_int_equal(handed[1].qos, 2);
    assert_int_equal(handed[2].identifier, 20);
    assert_int_equal(handed[2].offset, 2);
    assert_int_equal(handed[3].identifier, 30);
    assert_int_equal(handed[3].offset, 4);
}

static void a_filter_that_is_none_hurts_nobody(void **state)
{
    (void)state;
    join(0, nowhere, "t/#/none");
    subscribe(0, "t", nowhere);
    grant(0, PLENTY);
    append_many(KEPT, "t", 3);
    await(0, 3);
}

static void who_has_left_is_handed_nothing(void **state)
{
    (void)state;
    enum { CLIENTS = 40 };
    append_many(KEPT, "t", 2000);
    for (unsigned i = 0; i < CLIENTS; i++) {
        join(i, (struct follower_places){{0, i, 0}}, "t");
        grant(i, i % 4 == 1 ? 5 : PLENTY);
    }
    for (unsigned i = 1; i < CLIENTS; i += 2)
        follower_leave(scene.clients[i].member);
    for (unsigned i = 0; i < CLIENTS; i += 2)
        await(i, 2000 - i);
    while (status().members != CLIENTS / 2)
        sched_yield();
    uint64_t handed[CLIENTS];
    for (unsigned i = 1; i < CLIENTS; i += 2)
        handed[i] = count_of(i);
    append_many(KEPT, "t", 100);
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (i % 2)
            assert_int_equal(count_of(i), handed[i]);
        else
            await(i, 2100 - i);
    }
}

/* ---- the receiver ---- */

static void what_was_refused_is_offered_again_to_that_loop_alone(void **state)
{
    (void)state;
    scene.refused_loop = 1;
    scene.refuse = UINT32_MAX;
    for (unsigned i = 0; i < 3; i++) { /* of three loops */
        join(i, nowhere, "t");
        grant(i, PLENTY);
    }
    append_many(KEPT, "t", 10);
    await(0, 1);
    join(3, nowhere, "t"); /* of the first loop, and at a place of its own */
    grant(3, PLENTY);
    pthread_mutex_lock(&scene.lock);
    uint64_t refused = scene.refused;
    while (scene.refused < refused + 3)
        pthread_cond_wait(&scene.told, &scene.lock);
    assert_int_equal(scene.clients[1].count, 0);
    assert_true(scene.clients[0].count <= 1);
    scene.refuse = 0;
    pthread_mutex_unlock(&scene.lock);
    for (unsigned i = 0; i < 4; i++) {
        await(i, 10);
        await_end(i);
        assert_handed(i, KEPT, 0, 10);
    }
    scene.refused_loop = UINT32_MAX;
    pthread_mutex_lock(&scene.lock);
    scene.refuse = 7;
    pthread_mutex_unlock(&scene.lock);
    const struct follower_again again[] = {{4, KEPT, 1}};
    join_again(5, (struct follower_places){{0, 9, 0}}, again, 1);
    subscribe(5, "t", nowhere);
    grant(5, PLENTY);
    await(5, 2);
    assert_int_equal(scene.clients[5].handed[0].offset, 4);
    assert_int_equal(scene.clients[5].handed[1].offset, 9);
}

static void at_idle_the_thread_sleeps(void **state)
{
    (void)state;
    join(0, nowhere, "t");
    join(1, nowhere, "t");
    grant(0, PLENTY);
    grant(1, 3); /* stands still */
    append_many(KEPT, "t", 100);
    await(0, 100);
    await_end(0);
    clockid_t clock;
    struct timespec before, after;
    assert_int_equal(pthread_getcpuclockid(scene.follower_thread, &clock), 0);
    usleep(20000);
    clock_gettime(clock, &before);
    usleep(300000);
    clock_gettime(clock, &after);
    int64_t used_ns = (after.tv_sec - before.tv_sec) * INT64_C(1000000000) + after.tv_nsec - before.tv_nsec;
    assert_in_range(used_ns, 0, 15000000);
}

static uint64_t follower_cpu_ns(void)
{
    clockid_t clock;
    struct timespec used;
    assert_int_equal(pthread_getcpuclockid(scene.follower_thread, &clock), 0);
    assert_int_equal(clock_gettime(clock, &used), 0);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

/* Member 1 takes one message at a time and falls behind member 0 with each. How many subscriptions it has makes no difference: 100 messages
 * cost far less than 100 times what it costs that they begin. */
static void a_slow_member_with_many_subscriptions_slows_nobody_down(void **state)
{
    (void)state;
    enum { MANY = 20000, ROUNDS = 100 };
    struct follower_places from = ends();
    char filter[32];
    join(0, from, "t");
    grant(0, PLENTY);
    append(KEPT, "t", 1, 0);
    settle();
    await(0, 1);
    const uint64_t before_ns = follower_cpu_ns();
    join(1, from, "t");
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(filter, sizeof filter, "many/%u", i);
        subscribe(1, filter, from);
    }
    grant(1, 1);
    await(1, 1);
    const uint64_t begun_ns = follower_cpu_ns();
    for (unsigned i = 2; i <= ROUNDS; i++) {
        append(KEPT, "t", 1, 0);
        append(KEPT, "t", 1, 0); /* there is no room for this one */
        settle();
        await(0, 2 * i - 1);
        grant(1, 2 * i - 2);
        await(1, 2 * i - 2);
        grant(1, 2 * i - 1);
        await(1, 2 * i - 1);
        await_end(1);
    }
    const uint64_t after_ns = follower_cpu_ns();
    print_message("%u subscriptions begin in %.1f ms; then a message costs %.3f ms\n", MANY, (double)(begun_ns - before_ns) / 1e6,
                  (double)(after_ns - begun_ns) / 1e6 / (2 * ROUNDS));
    assert_true(after_ns - begun_ns < ROUNDS / 4 * (begun_ns - before_ns));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_matches_is_handed_from_every_stream, begin, end),
        cmocka_unit_test_setup_teardown(a_member_without_room_waits_at_its_place, begin, end),
        cmocka_unit_test_setup_teardown(bytes_are_room_too, begin, end),
        cmocka_unit_test_setup_teardown(members_at_many_places_all_get_all, begin, end),
        cmocka_unit_test_setup_teardown(a_slow_member_with_many_subscriptions_slows_nobody_down, begin, end),
        cmocka_unit_test_setup_teardown(more_members_behind_than_sweeps_all_get_their_turn, begin, end),
        cmocka_unit_test_setup_teardown(what_is_wanted_again_comes_first_and_in_order, begin, end),
        cmocka_unit_test_setup_teardown(what_is_gone_is_passed_over, begin, end),
        cmocka_unit_test_setup_teardown(many_want_something_again_at_once, begin, end),
        cmocka_unit_test_setup_teardown(a_subscription_begins_at_its_place, begin, end),
        cmocka_unit_test_setup_teardown(what_becomes_durable_after_a_subscription_is_not_missed, begin, end),
        cmocka_unit_test_setup_teardown(the_last_subscription_to_a_filter_counts, begin, end),
        cmocka_unit_test_setup_teardown(a_filter_that_is_none_hurts_nobody, begin, end),
        cmocka_unit_test_setup_teardown(who_has_left_is_handed_nothing, begin, end),
        cmocka_unit_test_setup_teardown(what_was_refused_is_offered_again_to_that_loop_alone, begin, end),
        cmocka_unit_test_setup_teardown(at_idle_the_thread_sleeps, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
