/* The subscription tree: which connections want a topic. One router serves every event loop.
 *
 * A tree of topic levels holds the subscriptions, with a '+' beside the named children of each level and the '#' subscriptions kept
 * at the level above. All edges lie in one hash table, so that a level with a hundred thousand children costs what one with two
 * costs. Changes take a write lock. A topic is resolved under a read lock, once: each thread keeps the answers in a cache of
 * its own, which stays valid while the router's generation number stands still and is asked without any lock.
 *
 * Costs (tests/bench/bench_router.c, 100,000 wildcard subscriptions): a cached topic 15 to 30 ns; a resolved one 0.3 to 0.5 us, 1 us
 * with 100 subscribers; 320 bytes a subscription (385 of the heap) when each has a filter and a connection of its own, 200 (225) when
 * 100 connections share each filter. A cached topic takes 40 bytes, 24 for each subscriber and its own length. Resolving
 * visits every node that the topic reaches, which a subscriber can drive up by subscribing to many combinations of '+': limit the
 * subscriptions of a connection where strangers connect. */
#ifndef ROUTER_H
#define ROUTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ROUTER_NO_LOCAL = 1,
    ROUTER_RETAIN_AS_PUBLISHED = 2,
    ROUTER_FROM_JOURNAL = 16, /* what has QoS 1 or 2 for it comes from the journal (persistent.h), and is not delivered live. To a shared
                               * subscription: no member, but a word that this is so for all of them */
    ROUTER_LOWERED = 32,      /* with the former: what it gets of these as QoS 0 comes from there, too */
    ROUTER_IDENTIFIERS = 4,   /* of a match only: it has several identifiers, see router_match */
    ROUTER_OWN_ONLY = 8       /* of a match only: for what the connection itself publishes */
};

/* A subscriber and how it subscribes. Loop, connection and generation say who it is: number of the event loop, slot of the connection in
 * that loop, generation of the slot. */
struct router_subscription {
    uint16_t loop;
    uint8_t qos;     /* 0..2 */
    uint8_t options; /* ROUTER_* */
    uint32_t connection;
    uint32_t generation;
    uint32_t identifier; /* MQTT 5 subscription identifier; 0: none */
    uint64_t since;      /* the caller's; a subscription that is replaced keeps its own */
};

struct router_options {
    uint32_t subscriptions_max; /* 0: ROUTER_SUBSCRIPTIONS_MAX_DEFAULT */
    size_t bytes_max;           /* memory of tree and tables; 0: ROUTER_BYTES_MAX_DEFAULT */
};

enum { ROUTER_SUBSCRIPTIONS_MAX_DEFAULT = 1000000, ROUTER_BYTES_MAX_DEFAULT = 1 << 30 };

struct router_cache_options {
    uint32_t topics_max; /* 0: ROUTER_CACHE_TOPICS_MAX_DEFAULT */
    size_t bytes_max;    /* memory of topics and their matches; 0: ROUTER_CACHE_BYTES_MAX_DEFAULT; address space is taken at once */
};

enum { ROUTER_CACHE_TOPICS_MAX_DEFAULT = 65536, ROUTER_CACHE_BYTES_MAX_DEFAULT = 16 << 20 };

/* The members of a shared subscription ("$share/NAME/FILTER"), of whom each message goes to one; with `from_journal` one of QoS 0. */
struct router_share {
    uint32_t first, count; /* in router_match.members; count is at least 1 */
    uint32_t turn;         /* the caller's; another one after each resolution, so that topics that come once are dealt out too */
    bool from_journal;
};

/* Who gets a topic: every connection once, in order of loop, connection and generation, with the highest QoS of its matching
 * subscriptions, ROUTER_NO_LOCAL if all of them have it, ROUTER_RETAIN_AS_PUBLISHED, ROUTER_FROM_JOURNAL or ROUTER_LOWERED if any has, and
 * the least `since`. The identifier is that of the only one of them that has one; with ROUTER_IDENTIFIERS it is a place in `identifiers`,
 * where their number stands, and behind it each of them. Where some of them have ROUTER_NO_LOCAL and others have not, there are two
 * entries: of all with ROUTER_NO_LOCAL, and behind it of the others alone with ROUTER_OWN_ONLY. Besides, one member of each shared
 * subscription, whatever else it has subscribed to; `members` are as they have subscribed. */
struct router_match {
    const struct router_subscription *subscribers; /* [count] */
    const struct router_subscription *members;     /* [member_count] */
    struct router_share *shares;                   /* [share_count] */
    const uint32_t *identifiers;                   /* [identifier_count] */
    uint32_t count, member_count, share_count, identifier_count;
    bool user_set; /* false after each resolution */
    uint64_t user; /* the caller's, kept as long as the match is cached */
};

struct router_cache_stats {
    uint64_t hits, misses;
    uint64_t clears_full; /* emptied because a limit was reached; changes of subscriptions empty it as well and do not count here */
    uint32_t topics;
    size_t bytes;
};

struct router;
struct router_cache;

/* Returns 0, ERR_NO_MEMORY or ERR_IO (no randomness for the hash seed). `options` may be NULL. */
int router_create(const struct router_options *options, struct router **out);
void router_destroy(struct router *router); /* accepts NULL; no other thread may be using it */

/* These change the tree and may be called from any thread.
 *
 * router_subscribe returns 0 for a new subscription, 1 when it replaced that of the same subscriber to the same filter, or
 * ERR_TOPIC_FILTER, ERR_INVALID (QoS above 2), ERR_LIMIT (either limit), ERR_NO_MEMORY; nothing has changed then. */
int router_subscribe(struct router *router, const char *filter, size_t length, const struct router_subscription *subscription);

/* Whether the subscriber had that subscription. Its QoS and options do not matter. */
bool router_unsubscribe(struct router *router, const char *filter, size_t length, const struct router_subscription *subscriber);

/* Removes all subscriptions of a connection, at a cost of these alone; returns how many they were. Not to be called while
 * another thread subscribes for the same connection. */
uint32_t router_remove_connection(struct router *router, uint32_t loop, uint32_t connection, uint32_t generation);

/* Calls `visit` for each filter to which a connection is subscribed, under a lock: it must not change the router. */
typedef void (*router_visit)(void *context, const char *filter, size_t length);
void router_visit_filters(struct router *router, const struct router_subscription *subscriber, router_visit visit, void *context);

/* Whether what was published with QoS 1 or 2 comes to it from the journal. */
static inline bool router_is_from_journal(const struct router_subscription *subscription)
{
    return subscription->options & ROUTER_FROM_JOURNAL && (subscription->qos || subscription->options & ROUTER_LOWERED);
}

/* A cache for one thread and one router. Returns 0, ERR_NO_MEMORY or ERR_IO. `options` may be NULL. */
int router_cache_create(const struct router_cache_options *options, struct router_cache **out);
void router_cache_destroy(struct router_cache *cache); /* accepts NULL */

/* The subscribers of a valid topic name; borrowed until the next call with the same cache. NULL when memory is short. A change
 * that was finished before the call is seen. */
struct router_match *router_match(struct router *router, struct router_cache *cache, const char *topic, size_t length);

static inline void router_match_set_user(struct router_match *match, uint64_t user)
{
    match->user = user;
    match->user_set = true;
}

/* For tests and measurements. The first two may be called from any thread, the third from the owner of the cache. */
uint32_t router_subscription_count(struct router *router);
size_t router_bytes(struct router *router);
struct router_cache_stats router_cache_stats(const struct router_cache *cache);

#endif
