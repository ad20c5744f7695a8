/* The subscription tree: matching against a list as witness, merging, limits, caches, and threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/error.h"
#include "mqtt/topic.h"
#include "router/router.h"

struct fixture {
    struct router *router;
    struct router_cache *cache;
};

static void open_fixture(struct fixture *f, const struct router_options *options, const struct router_cache_options *cache_options)
{
    assert_int_equal(router_create(options, &f->router), 0);
    assert_int_equal(router_cache_create(cache_options, &f->cache), 0);
}

static void close_fixture(struct fixture *f)
{
    router_cache_destroy(f->cache);
    router_destroy(f->router);
}

static struct router_subscription subscriber(uint32_t connection, uint8_t qos, uint8_t options)
{
    return (struct router_subscription){
        .loop = (uint16_t)(connection % 2), .connection = connection, .generation = 1, .qos = qos, .options = options};
}

static int subscribe(struct fixture *f, const char *filter, uint32_t connection)
{
    struct router_subscription s = subscriber(connection, 1, 0);
    return router_subscribe(f->router, filter, strlen(filter), &s);
}

static bool unsubscribe(struct fixture *f, const char *filter, uint32_t connection)
{
    struct router_subscription s = subscriber(connection, 0, 0);
    return router_unsubscribe(f->router, filter, strlen(filter), &s);
}

static struct router_match *match(struct fixture *f, const char *topic)
{
    struct router_match *found = router_match(f->router, f->cache, topic, strlen(topic));
    assert_non_null(found);
    return found;
}

/* Expects exactly these connections, given in ascending order of (connection % 2, connection) and ended by 0. */
static void expect(struct fixture *f, const char *topic, ...)
{
    const struct router_match *found = match(f, topic);
    va_list expected;
    va_start(expected, topic);
    uint32_t count = 0;
    for (uint32_t connection; (connection = va_arg(expected, uint32_t)) != 0; count++) {
        if (count >= found->count || found->subscribers[count].connection != connection)
            fail_msg("'%s': subscriber %u is not %u", topic, count, connection);
    }
    va_end(expected);
    assert_int_equal(found->count, count);
}

static void filters_of_every_kind_match(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL, NULL);
    static const char *const filters[] = {"#", "+", "a/b", "a/+", "a/#", "+/b", "+/+/#", "/", "$SYS/#", "a//b", "+/#"};
    for (uint32_t i = 0; i < sizeof filters / sizeof *filters; i++)
        assert_int_equal(subscribe(&f, filters[i], 2 * (i + 1)), 0); /* all in loop 0: the order is that of the connections */
    expect(&f, "a/b", 2, 6, 8, 10, 12, 14, 22, 0);
    expect(&f, "a", 2, 4, 10, 22, 0);
    expect(&f, "a/", 2, 8, 10, 14, 22, 0);
    expect(&f, "/", 2, 14, 16, 22, 0);
    expect(&f, "a//b", 2, 10, 14, 20, 22, 0);
    expect(&f, "$SYS/x/y", 18, 0);
    expect(&f, "$SYS", 18, 0);
    expect(&f, "$x", 0);
    expect(&f, "b/b/b", 2, 14, 22, 0);
    expect(&f, "A/B", 2, 14, 22, 0);
    close_fixture(&f);
}

static void a_repeated_subscription_replaces_the_first(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL, NULL);
    struct router_subscription s = subscriber(4, 0, ROUTER_NO_LOCAL);
    assert_int_equal(router_subscribe(f.router, "a/+", 3, &s), 0);
    s = subscriber(4, 2, 0);
    assert_int_equal(router_subscribe(f.router, "a/+", 3, &s), 1);
    assert_int_equal(router_subscribe(f.router, "a/+", 3, &s), 1);
    assert_int_equal(router_subscription_count(f.router), 1);
    const struct router_match *found = match(&f, "a/b");
    assert_int_equal(found->count, 1);
    assert_int_equal(found->subscribers[0].qos, 2);
    assert_int_equal(found->subscribers[0].options, 0);
    close_fixture(&f);
}

static void identifiers_of_all_matching_subscriptions_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *filter;
        uint32_t connection, identifier;
    } rows[] = {{"a/b", 2, 7},  {"a/+", 2, 9}, {"#", 2, 0},    {"+/b", 2, 7}, /* one that is used twice is told twice */
                {"a/b", 4, 11}, {"a/#", 4, 0}, {"a/#", 6, 12}, {"c", 8, 1}};
    struct fixture f;
    open_fixture(&f, NULL, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct router_subscription s = subscriber(rows[i].connection, 1, 0);
        s.identifier = rows[i].identifier;
        assert_int_equal(router_subscribe(f.router, rows[i].filter, strlen(rows[i].filter), &s), 0);
    }
    for (int round = 0; round < 2; round++) { /* resolved, and from the cache */
        const struct router_match *found = match(&f, "a/b");
        assert_int_equal(found->count, 3);
        assert_int_equal(found->subscribers[0].options, ROUTER_IDENTIFIERS);
        const uint32_t *several = found->identifiers + found->subscribers[0].identifier;
        assert_int_equal(several[0], 3);
        assert_int_equal(several[1] + several[2] + several[3], 7 + 9 + 7);
        assert_int_equal(found->subscribers[1].options, 0);
        assert_int_equal(found->subscribers[1].identifier, 11);
        assert_int_equal(found->subscribers[2].identifier, 12);
    }
    struct router_subscription s = subscriber(6, 1, 0);
    s.identifier = 13;
    assert_int_equal(router_subscribe(f.router, "a/#", 3, &s), 1);
    assert_int_equal(match(&f, "a/b")->subscribers[2].identifier, 13);
    close_fixture(&f);
}

static void a_connection_gets_a_topic_once_with_the_best_of_its_subscriptions(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL, NULL);
    static const struct {
        const char *filter;
        uint8_t qos, options;
    } rows[] = {
        {"a/b", 0, ROUTER_NO_LOCAL}, {"a/+", 2, ROUTER_NO_LOCAL | ROUTER_RETAIN_AS_PUBLISHED}, {"a/#", 1, ROUTER_NO_LOCAL}, {"#", 0, 0}};
    for (size_t i = 0; i < 3; i++) {
        struct router_subscription s = subscriber(4, rows[i].qos, rows[i].options);
        assert_int_equal(router_subscribe(f.router, rows[i].filter, strlen(rows[i].filter), &s), 0);
    }
    const struct router_match *found = match(&f, "a/b");
    assert_int_equal(found->count, 1);
    assert_int_equal(found->subscribers[0].qos, 2);
    assert_int_equal(found->subscribers[0].options, ROUTER_NO_LOCAL | ROUTER_RETAIN_AS_PUBLISHED);
    struct router_subscription s = subscriber(4, rows[3].qos, rows[3].options);
    assert_int_equal(router_subscribe(f.router, rows[3].filter, 1, &s), 0);
    found = match(&f, "a/b");
    assert_int_equal(found->count, 2); /* one of them wants its own messages: it alone counts for those */
    assert_int_equal(found->subscribers[0].qos, 2);
    assert_int_equal(found->subscribers[0].options, ROUTER_NO_LOCAL | ROUTER_RETAIN_AS_PUBLISHED);
    assert_int_equal(found->subscribers[1].qos, 0);
    assert_int_equal(found->subscribers[1].options, ROUTER_OWN_ONLY);
    close_fixture(&f);
}

static void identity_is_loop_connection_and_generation(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL, NULL);
    static const struct router_subscription four[] = {{.loop = 0, .connection = 1, .generation = 1},
                                                      {.loop = 0, .connection = 1, .generation = 2},
                                                      {.loop = 0, .connection = 2},
                                                      {.loop = 1}};
    for (size_t i = 4; i-- > 0;)
        assert_int_equal(router_subscribe(f.router, "t", 1, &four[i]), 0);
    const struct router_match *found = match(&f, "t");
    assert_int_equal(found->count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_memory_equal(&found->subscribers[i], &four[i], 12);
    assert_int_equal(router_remove_connection(f.router, 0, 1, 2), 1);
    assert_int_equal(router_remove_connection(f.router, 0, 1, 2), 0);
    assert_int_equal(router_remove_connection(f.router, 7, 7, 7), 0);
    assert_int_equal(match(&f, "t")->count, 3);
    close_fixture(&f);
}

static void what_cannot_be_subscribed_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL, NULL);
    assert_int_equal(subscribe(&f, "a#", 2), ERR_TOPIC_FILTER);
    assert_int_equal(subscribe(&f, "", 2), ERR_TOPIC_FILTER);
    assert_int_equal(subscribe(&f, "$share/g", 2), ERR_TOPIC_FILTER);
    assert_int_equal(subscribe(&f, "$share/g/", 2), ERR_TOPIC_FILTER);
    assert_int_equal(subscribe(&f, "$share/+/t", 2), ERR_TOPIC_FILTER);
    struct router_subscription s = subscriber(2, 3, 0);
    assert_int_equal(router_subscribe(f.router, "t", 1, &s), ERR_INVALID);
    assert_false(unsubscribe(&f, "a#", 2));
    assert_false(unsubscribe(&f, "a", 2));
    assert_int_equal(router_subscription_count(f.router), 0);
    assert_int_equal(router_bytes(f.router), 0);
    expect(&f, "a", 0);
    close_fixture(&f);
}

static void the_deepest_filter_matches_the_deepest_topic(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL, NULL);
    char filter[2 * MQTT_TOPIC_LEVELS_MAX], topic[2 * MQTT_TOPIC_LEVELS_MAX];
    for (size_t i = 0; i < sizeof filter; i++) {
        filter[i] = i % 2 ? '/' : '+';
        topic[i] = i % 2 ? '/' : 'x';
    }
    filter[sizeof filter - 1] = topic[sizeof topic - 1] = 0;
    assert_int_equal(subscribe(&f, filter, 2), 0);
    expect(&f, topic, 2, 0);
    topic[sizeof topic - 2] = '/'; /* one level too many is no topic; nobody gets it */
    expect(&f, topic, 0);
    assert_true(unsubscribe(&f, filter, 2));
    expect(&f, topic, 0);
    close_fixture(&f);
}

static void the_number_of_subscriptions_is_limited(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, &(struct router_options){.subscriptions_max = 3}, NULL);
    assert_int_equal(subscribe(&f, "a/b", 2), 0);
    assert_int_equal(subscribe(&f, "a/c", 2), 0);
    assert_int_equal(subscribe(&f, "a/c", 4), 0);
    assert_int_equal(subscribe(&f, "a/d", 4), ERR_LIMIT);
    assert_int_equal(subscribe(&f, "a/c", 4), 1); /* replacing adds none */
    expect(&f, "a/d", 0);
    assert_true(unsubscribe(&f, "a/b", 2));
    assert_int_equal(subscribe(&f, "a/d", 4), 0);
    expect(&f, "a/d", 4, 0);
    close_fixture(&f);
}

/* At whatever point memory ends, what was there before is intact and can be removed. */
static void the_memory_of_the_tree_is_limited(void **state)
{
    (void)state;
    for (size_t bytes_max = 1; bytes_max < 20000; bytes_max += 97) {
        struct fixture f;
        open_fixture(&f, &(struct router_options){.bytes_max = bytes_max}, NULL);
        uint32_t subscribed = 0;
        int error = 0;
        char filter[32];
        for (; !error && subscribed < 1000; subscribed += !error) {
            snprintf(filter, sizeof filter, "%u/+/%u/#", subscribed % 7, subscribed);
            error = subscribe(&f, filter, 2 * (subscribed % 5 + 1));
        }
        assert_int_equal(error, ERR_LIMIT);
        assert_true(router_bytes(f.router) <= bytes_max);
        assert_int_equal(router_subscription_count(f.router), subscribed);
        for (uint32_t i = 0; i < subscribed; i++) {
            snprintf(filter, sizeof filter, "%u/x/%u", i % 7, i);
            expect(&f, filter, 2 * (i % 5 + 1), 0);
        }
        snprintf(filter, sizeof filter, "%u/x/%u", subscribed % 7, subscribed);
        expect(&f, filter, 0);
        for (uint32_t i = 0; i < 5; i++)
            router_remove_connection(f.router, 0, 2 * (i + 1), 1);
        assert_int_equal(router_subscription_count(f.router), 0);
        close_fixture(&f);
    }
}

static void an_empty_tree_holds_no_memory_but_its_tables(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL, NULL);
    char filter[64];
    size_t bytes[2];
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < 5000; i++) { /* more than are removed under one lock */
            snprintf(filter, sizeof filter, "deep/%u/+/level/%u/#", i % 10, i);
            assert_int_equal(subscribe(&f, filter, 2), 0);
        }
        assert_int_equal(router_remove_connection(f.router, 0, 2, 1), 5000);
        bytes[round] = router_bytes(f.router);
    }
    assert_int_equal(bytes[0], bytes[1]);
    expect(&f, "deep/1/x/level/1", 0);
    close_fixture(&f);
}

/* ---- random changes, with a plain list as witness ---- */

enum { WITNESS_MAX = 400 };

struct witness {
    char filter[16];
    struct router_subscription subscription;
};

static uint32_t random_state;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 12) % limit;
}

static void random_text(char *text, const char *const *levels, uint32_t level_count, bool filter)
{
    uint32_t count = 1 + random_below(4);
    *text = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (i)
            strcat(text, "/");
        strcat(text, levels[random_below(level_count)]);
    }
    if (filter && random_below(3) == 0)
        strcat(text, "/#");
    if (!*text)
        strcpy(text, "/"); /* one empty level alone is no topic */
}

/* What the subscriptions of a connection to a topic come to: all of them, or those alone that want its own messages. QoS -1: there is none.
 */
struct sum {
    int qos;
    unsigned all, any; /* options */
};

static struct sum sum_of(const struct witness *list, size_t count, const char *topic, uint32_t connection, bool own)
{
    struct sum sum = {-1, 0xff, 0};
    for (size_t i = 0; i < count; i++) {
        const struct router_subscription *s = &list[i].subscription;
        if (s->connection != connection || (own && (s->options & ROUTER_NO_LOCAL)) ||
            !mqtt_topic_matches(list[i].filter, strlen(list[i].filter), topic, strlen(topic)))
            continue;
        sum.qos = s->qos > sum.qos ? s->qos : sum.qos;
        sum.all &= s->options;
        sum.any |= s->options;
    }
    return sum;
}

static const struct router_subscription *entry_of(const struct router_match *found, uint32_t connection, unsigned own_only)
{
    for (uint32_t i = 0; i < found->count; i++)
        if (found->subscribers[i].connection == connection && (found->subscribers[i].options & ROUTER_OWN_ONLY) == own_only)
            return &found->subscribers[i];
    return NULL;
}

static void check_against_witness(struct fixture *f, const struct witness *list, size_t count, const char *topic)
{
    const struct router_match *found = match(f, topic);
    uint32_t expected = 0;
    for (uint32_t connection = 0; connection < 10; connection++) {
        struct sum sum = sum_of(list, count, topic, connection, false), own = sum_of(list, count, topic, connection, true);
        if (sum.qos < 0)
            continue;
        bool mixed = own.qos >= 0 && (sum.any & ROUTER_NO_LOCAL);
        expected += mixed ? 2 : 1;
        const struct router_subscription *entry = entry_of(found, connection, 0);
        assert_non_null(entry);
        assert_int_equal(entry->qos, sum.qos);
        assert_int_equal(entry->options, ((mixed ? sum.any : sum.all) & ROUTER_NO_LOCAL) | (sum.any & ROUTER_RETAIN_AS_PUBLISHED));
        if (!mixed)
            continue;
        entry = entry_of(found, connection, ROUTER_OWN_ONLY);
        assert_non_null(entry);
        assert_int_equal(entry->qos, own.qos);
        assert_int_equal(entry->options, ROUTER_OWN_ONLY | (own.any & ROUTER_RETAIN_AS_PUBLISHED));
    }
    assert_int_equal(found->count, expected);
}

static size_t find_witness(const struct witness *list, size_t count, const char *filter, uint32_t connection)
{
    size_t i = 0;
    while (i < count && (list[i].subscription.connection != connection || strcmp(list[i].filter, filter) != 0))
        i++;
    return i;
}

static void the_tree_agrees_with_a_list_through_all_changes(void **state)
{
    (void)state;
    static const char *const filter_levels[] = {"a", "b", "", "+", "+", "$x"};
    static const char *const topic_levels[] = {"a", "b", "", "c", "$x"};
    struct fixture f;
    open_fixture(&f, NULL, NULL);
    static struct witness list[WITNESS_MAX];
    size_t count = 0;
    random_state = 3;
    for (int step = 0; step < 20000; step++) {
        char text[32];
        random_text(text, filter_levels, 6, true);
        uint32_t connection = random_below(10), action = random_below(100);
        size_t at = find_witness(list, count, text, connection);
        if (action < 55 && count < WITNESS_MAX) {
            struct router_subscription s = subscriber(connection, (uint8_t)random_below(3), (uint8_t)random_below(4));
            assert_int_equal(router_subscribe(f.router, text, strlen(text), &s), at < count);
            strcpy(list[at].filter, text);
            list[at].subscription = s;
            count += at == count;
        } else if (action < 98) {
            assert_int_equal(unsubscribe(&f, text, connection), at < count);
            if (at < count)
                list[at] = list[--count];
        } else {
            uint32_t removed = router_remove_connection(f.router, connection % 2, connection, 1), expected = 0;
            for (size_t i = 0; i < count;) {
                if (list[i].subscription.connection == connection) {
                    list[i] = list[--count];
                    expected++;
                } else {
                    i++;
                }
            }
            assert_int_equal(removed, expected);
        }
        assert_int_equal(router_subscription_count(f.router), count);
        random_text(text, topic_levels, 5, false);
        check_against_witness(&f, list, count, text);
    }
    close_fixture(&f);
}

/* ---- the cache ---- */

static void a_cached_match_keeps_the_callers_value(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL, NULL);
    assert_int_equal(subscribe(&f, "a", 2), 0);
    struct router_match *found = match(&f, "a");
    assert_false(found->user_set);
    router_match_set_user(found, 0);
    match(&f, "b");
    found = match(&f, "a");
    assert_true(found->user_set);
    assert_int_equal(found->user, 0);
    struct router_cache_stats stats = router_cache_stats(f.cache);
    assert_true(stats.hits == 1 && stats.misses == 2 && stats.clears_full == 0 && stats.topics == 2);
    /* Repeating a subscription as it is changes nothing; any real change asks for the value again. */
    assert_int_equal(subscribe(&f, "a", 2), 1);
    assert_true(match(&f, "a")->user_set);
    assert_int_equal(subscribe(&f, "z", 2), 0);
    assert_false(match(&f, "a")->user_set);
    close_fixture(&f);
}

static void a_cache_is_bounded_in_topics(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL, &(struct router_cache_options){.topics_max = 100});
    assert_int_equal(subscribe(&f, "t/+", 2), 0);
    char topic[32];
    for (uint32_t i = 0; i < 1000; i++) {
        snprintf(topic, sizeof topic, "t/%u", i);
        expect(&f, topic, 2, 0);
        assert_in_range(router_cache_stats(f.cache).topics, 1, 100);
    }
    assert_int_equal(router_cache_stats(f.cache).clears_full, 9);
    assert_int_equal(router_cache_stats(f.cache).misses, 1000);
    close_fixture(&f);
}

static void a_cache_is_bounded_in_bytes(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL, &(struct router_cache_options){.bytes_max = 1000});
    for (uint32_t i = 1; i <= 100; i++) {
        assert_int_equal(subscribe(&f, "many", 2 * i), 0);
        if (i <= 5)
            assert_int_equal(subscribe(&f, "few/+", 2 * i), 0);
    }
    char topic[32];
    for (uint32_t i = 0; i < 100; i++) {
        snprintf(topic, sizeof topic, "few/%u", i);
        expect(&f, topic, 2, 4, 6, 8, 10, 0);
        assert_in_range(router_cache_stats(f.cache).bytes, 1, 1000);
    }
    assert_in_range(router_cache_stats(f.cache).clears_full, 5, 99);
    /* What is larger than the whole cache is answered all the same, and resolved each time. */
    uint32_t topics = router_cache_stats(f.cache).topics;
    for (int round = 0; round < 2; round++) {
        struct router_match *found = match(&f, "many");
        assert_int_equal(found->count, 100);
        for (uint32_t i = 0; i < 100; i++)
            assert_int_equal(found->subscribers[i].connection, 2 * (i + 1));
        assert_false(found->user_set);
        router_match_set_user(found, 1);
    }
    assert_int_equal(router_cache_stats(f.cache).topics, topics);
    close_fixture(&f);
}

static void many_subscribers_come_sorted_and_once(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL, NULL);
    for (uint32_t count = 1; count <= 300; count++) {
        uint32_t connection = count * 7919 % 1000 + 1;
        assert_int_equal(subscribe(&f, "t", connection), 0);
        assert_int_equal(subscribe(&f, "+", connection), 0);
        const struct router_match *found = match(&f, "t");
        assert_int_equal(found->count, count);
        for (uint32_t i = 1; i < count; i++) {
            const struct router_subscription *a = &found->subscribers[i - 1], *b = &found->subscribers[i];
            assert_true(a->loop < b->loop || (a->loop == b->loop && a->connection < b->connection));
        }
    }
    close_fixture(&f);
}

/* ---- threads ---- */

enum { READERS = 3, CHANGES = 3000 };

struct shared {
    struct router *router;
    atomic_bool done;
    atomic_uint failures;
};

/* Connection 1 subscribes throughout; odd rounds of the writer add connection 3 to all topics and then take it away. */
static void *read_topics(void *argument)
{
    struct shared *shared = argument;
    struct router_cache *cache;
    if (router_cache_create(&(struct router_cache_options){.topics_max = 64}, &cache))
        return NULL;
    unsigned rounds = 0;
    while (!atomic_load(&shared->done) || rounds < 1000) {
        char topic[32];
        size_t length = (size_t)snprintf(topic, sizeof topic, "plant/%u/x", rounds++ % 100);
        struct router_match *found = router_match(shared->router, cache, topic, length);
        bool right = found && found->count >= 1 && found->count <= 2 && found->subscribers[0].connection == 1;
        if (right && found->count == 2)
            right = found->subscribers[1].connection == 3 && found->subscribers[1].qos == 1;
        if (!right)
            atomic_fetch_add(&shared->failures, 1);
    }
    /* All changes happened before `done` was seen, so all of them must be visible. */
    struct router_match *found = router_match(shared->router, cache, "plant/1/x", 9);
    if (!found || found->count != 1)
        atomic_fetch_add(&shared->failures, 1);
    router_cache_destroy(cache);
    return NULL;
}

static void threads_match_while_others_subscribe(void **state)
{
    (void)state;
    struct shared shared = {0};
    assert_int_equal(router_create(NULL, &shared.router), 0);
    struct fixture f = {shared.router, NULL};
    assert_int_equal(subscribe(&f, "plant/+/x", 1), 0);
    pthread_t readers[READERS];
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_topics, &shared), 0);
    char filter[32];
    for (uint32_t i = 0; i < CHANGES; i++) {
        assert_int_equal(subscribe(&f, "+/+/#", 3), 0);
        snprintf(filter, sizeof filter, "plant/%u/x", i % 100);
        assert_int_equal(subscribe(&f, filter, 3), 0);
        if (i % 3)
            assert_true(unsubscribe(&f, filter, 3));
        assert_int_equal(router_remove_connection(shared.router, 1, 3, 1), i % 3 ? 1 : 2);
    }
    atomic_store(&shared.done, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    assert_int_equal(shared.failures, 0);
    router_destroy(shared.router);
}

static void note_filter(void *context, const char *filter, size_t length)
{
    char *seen = context;
    strcat(strncat(strcat(seen, "["), filter, length), "]");
}

static void the_filters_of_a_connection_are_told_as_they_came(void **state)
{
    (void)state;
    static const char *const filters[] = {"#",   "/",     "//", "a",      "a/",           "/a",         "a//b",           "+", "+/+", "/#",
                                          "a/#", "a/+/#", "+/", "$SYS/#", "long level/x", "$share/g/#", "$share/other/a/"};
    struct fixture f;
    char seen[512] = "";
    open_fixture(&f, NULL, NULL);
    assert_int_equal(subscribe(&f, "other", 2), 0);
    struct router_subscription s = subscriber(1, 0, 0);
    router_visit_filters(f.router, &s, note_filter, seen);
    assert_string_equal(seen, "");
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        assert_int_equal(subscribe(&f, filters[i], 1), 0);
    router_visit_filters(f.router, &s, note_filter, seen);
    size_t length = 0;
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        char wanted[64];
        length += (size_t)snprintf(wanted, sizeof wanted, "[%s]", filters[i]);
        assert_non_null(strstr(seen, wanted));
    }
    assert_int_equal(strlen(seen), length);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_of_every_kind_match),
        cmocka_unit_test(a_repeated_subscription_replaces_the_first),
        cmocka_unit_test(identifiers_of_all_matching_subscriptions_are_told),
        cmocka_unit_test(a_connection_gets_a_topic_once_with_the_best_of_its_subscriptions),
        cmocka_unit_test(identity_is_loop_connection_and_generation),
        cmocka_unit_test(what_cannot_be_subscribed_is_refused),
        cmocka_unit_test(the_deepest_filter_matches_the_deepest_topic),
        cmocka_unit_test(the_number_of_subscriptions_is_limited),
        cmocka_unit_test(the_memory_of_the_tree_is_limited),
        cmocka_unit_test(an_empty_tree_holds_no_memory_but_its_tables),
        cmocka_unit_test(the_tree_agrees_with_a_list_through_all_changes),
        cmocka_unit_test(a_cached_match_keeps_the_callers_value),
        cmocka_unit_test(a_cache_is_bounded_in_topics),
        cmocka_unit_test(a_cache_is_bounded_in_bytes),
        cmocka_unit_test(many_subscribers_come_sorted_and_once),
        cmocka_unit_test(the_filters_of_a_connection_are_told_as_they_came),
        cmocka_unit_test(threads_match_while_others_subscribe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
