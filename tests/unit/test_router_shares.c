/* Shared subscriptions in the tree: who their members are, beside and apart from other subscriptions. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "router/router.h"

struct fixture {
    struct router *router;
    struct router_cache *cache;
};

static void open_fixture(struct fixture *f, const struct router_options *options)
{
    assert_int_equal(router_create(options, &f->router), 0);
    assert_int_equal(router_cache_create(NULL, &f->cache), 0);
}

static void close_fixture(struct fixture *f)
{
    router_cache_destroy(f->cache);
    router_destroy(f->router);
}

static struct router_subscription subscriber(uint32_t connection, uint8_t qos)
{
    return (struct router_subscription){.connection = connection, .generation = 1, .qos = qos};
}

static int subscribe(struct fixture *f, const char *filter, uint32_t connection)
{
    struct router_subscription s = subscriber(connection, 1);
    return router_subscribe(f->router, filter, strlen(filter), &s);
}

static bool unsubscribe(struct fixture *f, const char *filter, uint32_t connection)
{
    struct router_subscription s = subscriber(connection, 0);
    return router_unsubscribe(f->router, filter, strlen(filter), &s);
}

static struct router_match *match(struct fixture *f, const char *topic)
{
    struct router_match *found = router_match(f->router, f->cache, topic, strlen(topic));
    assert_non_null(found);
    return found;
}

/* Connections below 64 as bits. */
static uint64_t members_of(const struct router_match *found, uint32_t share)
{
    uint64_t members = 0;
    assert_true(share < found->share_count);
    for (uint32_t i = 0; i < found->shares[share].count; i++) {
        uint64_t bit = UINT64_C(1) << found->members[found->shares[share].first + i].connection;
        assert_false(members & bit);
        members |= bit;
    }
    return members;
}

static void a_topic_goes_to_each_share_and_to_whoever_subscribed_alone(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL);
    assert_int_equal(subscribe(&f, "$share/g/a/+", 1), 0);
    assert_int_equal(subscribe(&f, "$share/g/a/+", 2), 0);
    assert_int_equal(subscribe(&f, "$share/g/a/+", 2), 1);
    assert_int_equal(subscribe(&f, "$share/other/a/+", 2), 0);
    assert_int_equal(subscribe(&f, "$share/g/a/#", 3), 0); /* another filter is another shared subscription */
    assert_int_equal(subscribe(&f, "a/b", 2), 0);
    for (int round = 0; round < 2; round++) { /* resolved, and kept */
        const struct router_match *found = match(&f, "a/b");
        assert_int_equal(found->count, 1);
        assert_int_equal(found->subscribers[0].connection, 2);
        assert_int_equal(found->share_count, 3);
        uint64_t all[3] = {members_of(found, 0), members_of(found, 1), members_of(found, 2)};
        uint64_t one = UINT64_C(1) << 1 | UINT64_C(1) << 2, two = UINT64_C(1) << 2, three = UINT64_C(1) << 3;
        assert_int_equal(all[0] + all[1] + all[2], one + two + three);
        assert_int_equal((all[0] == one) + (all[1] == one) + (all[2] == one), 1);
        assert_int_equal((all[0] == three) + (all[1] == three) + (all[2] == three), 1);
    }
    assert_int_equal(match(&f, "a")->share_count, 1); /* "a/#" */
    assert_int_equal(match(&f, "b")->share_count, 0);
    assert_int_equal(router_subscription_count(f.router), 5);
    close_fixture(&f);
}

static void members_come_and_go(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL);
    for (uint32_t connection = 1; connection <= 40; connection++)
        assert_int_equal(subscribe(&f, "$share/g/t", connection), 0);
    assert_int_equal(match(&f, "t")->shares[0].count, 40);
    assert_false(unsubscribe(&f, "t", 7));
    assert_false(unsubscribe(&f, "$share/h/t", 7));
    assert_false(unsubscribe(&f, "$share/g/#", 7));
    assert_true(unsubscribe(&f, "$share/g/t", 7));
    assert_false(unsubscribe(&f, "$share/g/t", 7));
    assert_int_equal(router_remove_connection(f.router, 0, 8, 1), 1);
    assert_false(members_of(match(&f, "t"), 0) & (UINT64_C(1) << 7 | UINT64_C(1) << 8));
    assert_int_equal(match(&f, "t")->shares[0].count, 38);
    for (uint32_t connection = 1; connection <= 40; connection++)
        router_remove_connection(f.router, 0, connection, 1);
    assert_int_equal(match(&f, "t")->share_count, 0);
    assert_int_equal(router_subscription_count(f.router), 0);
    close_fixture(&f);
}

static void no_wildcard_of_a_share_matches_a_topic_of_the_server(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL);
    assert_int_equal(subscribe(&f, "$share/g/#", 1), 0);
    assert_int_equal(subscribe(&f, "$share/g/+/x", 1), 0);
    assert_int_equal(subscribe(&f, "$share/g/$SYS/x", 1), 0);
    assert_int_equal(match(&f, "$SYS/x")->share_count, 1);
    assert_int_equal(match(&f, "other/x")->share_count, 2);
    close_fixture(&f);
}

static void the_callers_turn_is_kept_with_the_match(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL);
    assert_int_equal(subscribe(&f, "$share/g/t", 1), 0);
    match(&f, "t")->shares[0].turn = 77;
    match(&f, "another");
    assert_int_equal(match(&f, "t")->shares[0].turn, 77);
    assert_int_equal(subscribe(&f, "$share/g/t", 2), 0);
    assert_int_not_equal(match(&f, "t")->shares[0].turn, 77);
    close_fixture(&f);
}

static void topics_that_come_once_begin_with_one_member_after_the_other(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL);
    for (uint32_t connection = 1; connection <= 4; connection++)
        assert_int_equal(subscribe(&f, "$share/g/jobs/+", connection), 0);
    unsigned begun[4] = {0};
    char topic[32];
    for (unsigned i = 0; i < 400; i++) {
        snprintf(topic, sizeof topic, "jobs/%u", i);
        begun[match(&f, topic)->shares[0].turn % 4]++;
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(begun[i], 100);
    close_fixture(&f);
}

static void limits_hold_for_shares_and_leave_nothing_behind(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, &(struct router_options){.subscriptions_max = 2});
    assert_int_equal(subscribe(&f, "$share/g/t", 1), 0);
    assert_int_equal(subscribe(&f, "$share/g/t", 2), 0);
    assert_int_equal(subscribe(&f, "$share/g/t", 3), ERR_LIMIT);
    assert_int_equal(subscribe(&f, "$share/h/t", 3), ERR_LIMIT);
    close_fixture(&f);
    /* Memory ends at each of the places where some is taken. */
    open_fixture(&f, NULL);
    assert_int_equal(subscribe(&f, "$share/group/some/topic", 1), 0);
    size_t enough = router_bytes(f.router);
    close_fixture(&f);
    for (size_t bytes = 1; bytes < enough; bytes += 8) {
        open_fixture(&f, &(struct router_options){.bytes_max = bytes});
        assert_int_equal(subscribe(&f, "$share/group/some/topic", 1), ERR_LIMIT);
        assert_int_equal(match(&f, "some/topic")->share_count, 0);
        assert_int_equal(router_subscription_count(f.router), 0);
        close_fixture(&f); /* asserts that nothing is left */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_topic_goes_to_each_share_and_to_whoever_subscribed_alone),
        cmocka_unit_test(members_come_and_go),
        cmocka_unit_test(no_wildcard_of_a_share_matches_a_topic_of_the_server),
        cmocka_unit_test(the_callers_turn_is_kept_with_the_match),
        cmocka_unit_test(topics_that_come_once_begin_with_one_member_after_the_other),
        cmocka_unit_test(limits_hold_for_shares_and_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
