/* What routing costs: a topic from the cache, a topic resolved anew among 100,000 wildcard subscriptions, and memory. */
#include <assert.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "router/router.h"

/* Resolving is measured over more topics than fit the processor's caches. */
enum { SUBSCRIPTIONS = 100000, TOPICS_CACHED = 1000, TOPICS_RESOLVED = 20000, MATCHES = 200000 };

typedef size_t (*writer)(char *text, size_t size, uint32_t i);

static size_t written(int length)
{
    return (size_t)length;
}

static size_t filter_tool(char *text, size_t size, uint32_t i)
{
    return written(snprintf(text, size, "plant/+/cell%u/tool%06u/#", i % 100, i));
}

static size_t filter_mixed(char *text, size_t size, uint32_t i)
{
    switch (i % 4) {
    case 0:
        return written(snprintf(text, size, "+/site%u/+/tool%06u/#", i % 10, i));
    case 1:
        return written(snprintf(text, size, "plant/site%u/cell%u/+/result%u", i % 10, i % 100, i));
    case 2:
        return written(snprintf(text, size, "plant/+/+/tool%06u/+", i));
    default:
        return written(snprintf(text, size, "+/+/cell%u/tool%06u/result", i % 100, i));
    }
}

static size_t filter_shared(char *text, size_t size, uint32_t i)
{
    return written(snprintf(text, size, "plant/+/cell%u/+/#", i % 1000));
}

static size_t topic_of(char *text, size_t size, uint32_t i)
{
    uint32_t tool = i * 97 % SUBSCRIPTIONS;
    return written(snprintf(text, size, "plant/site%u/cell%u/tool%06u/result", tool % 10, tool % 100, tool));
}

static void fill(struct router *router, writer filter, uint32_t connections)
{
    char text[128];
    for (uint32_t i = 0; i < SUBSCRIPTIONS; i++) {
        struct router_subscription subscription = {.loop = i % 2, .connection = i % connections, .qos = 1};
        int error = router_subscribe(router, text, filter(text, sizeof text, i), &subscription);
        assert(error == 0);
    }
}

/* With a cache for one topic every one of them is resolved; with the default none but the first round. */
static double match_ns(struct router *router, uint32_t topics_max, uint32_t topic_count, double *found)
{
    static char texts[TOPICS_RESOLVED][64];
    static size_t lengths[TOPICS_RESOLVED];
    for (uint32_t i = 0; i < topic_count; i++)
        lengths[i] = topic_of(texts[i], sizeof texts[i], i);
    struct router_cache_options options = {.topics_max = topics_max};
    struct router_cache *cache;
    if (router_cache_create(&options, &cache))
        abort();
    double best_ns = 1e9;
    uint64_t sum = 0;
    for (int repeat = 0; repeat < 3; repeat++) {
        uint64_t start_ns = clock_monotonic_ns();
        for (uint32_t round = 0; round < MATCHES / topic_count; round++)
            for (uint32_t i = 0; i < topic_count; i++)
                sum += router_match(router, cache, texts[i], lengths[i])->count;
        double ns = (double)(clock_monotonic_ns() - start_ns) / MATCHES;
        if (ns < best_ns)
            best_ns = ns;
    }
    *found = (double)sum / (3.0 * MATCHES);
    router_cache_destroy(cache);
    return best_ns;
}

static size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void measure(const char *name, writer filter, uint32_t connections)
{
    struct router *router;
    if (router_create(NULL, &router))
        abort();
    size_t heap_before = heap_bytes();
    uint64_t start_ns = clock_monotonic_ns();
    fill(router, filter, connections);
    double subscribe_ns = (double)(clock_monotonic_ns() - start_ns) / SUBSCRIPTIONS;
    size_t heap = heap_bytes() - heap_before;
    double found;
    double hit_ns = match_ns(router, 0, TOPICS_CACHED, &found);
    double resolve_ns = match_ns(router, 1, TOPICS_RESOLVED, &found);
    printf("%-34s subscribe %6.0f ns  cached %5.1f ns  resolved %6.0f ns (%.1f subscribers)  %zu bytes each, %zu of the heap\n", name,
           subscribe_ns, hit_ns, resolve_ns, found, router_bytes(router) / SUBSCRIPTIONS, heap / SUBSCRIPTIONS);
    start_ns = clock_monotonic_ns();
    for (uint32_t connection = 0; connection < connections; connection++)
        for (uint32_t loop = 0; loop < 2; loop++)
            router_remove_connection(router, loop, connection, 0);
    printf("%-34s remove    %6.0f ns\n", "", (double)(clock_monotonic_ns() - start_ns) / SUBSCRIPTIONS);
    assert(router_subscription_count(router) == 0);
    router_destroy(router);
}

int main(void)
{
    printf("%d subscriptions\n", SUBSCRIPTIONS);
    measure("one filter a tool and connection", filter_tool, SUBSCRIPTIONS);
    measure("four kinds of wildcard filters", filter_mixed, SUBSCRIPTIONS);
    measure("100 connections on each filter", filter_shared, SUBSCRIPTIONS);
    return 0;
}
