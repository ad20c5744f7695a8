/* Resolving topics, and each thread's memory of the answers.
 *
 * A cache is two blocks taken at its creation: slots, and an arena in which the answers are laid one behind the other. To empty it
 * is to begin the arena again and to count the epoch up, which makes every slot look free. */
#include "router/router.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/hash.h"
#include "router/router_tree.h"

/* Behind it in the arena: the subscribers, the members, the shares, the identifiers, then the topic. */
struct cached {
    struct router_match match;
    uint32_t topic_length;
};

struct cache_slot {
    uint32_t epoch; /* free unless it is the cache's */
    uint32_t tag;   /* high half of the hash */
    struct cached *cached;
};

struct router_cache {
    uint64_t generation; /* of the router, when the cache was empty */
    uint64_t seed;
    struct cache_slot *slots; /* [slot_mask + 1], owned */
    size_t slot_mask;
    uint32_t epoch;
    uint32_t topics, topics_max;
    char *arena; /* owned */
    size_t arena_used, arena_size;
    uint64_t hits, misses, clears_full;
    struct router_subscription *found; /* [found_capacity], owned: what the last resolution met, and as much again to sort it */
    size_t found_count, found_capacity;
    const struct router_subscription *settled; /* [settled_count], within found: sorted, one entry a connection */
    size_t settled_count;
    struct router_subscription *members; /* [member_capacity], owned */
    struct router_share *shares;         /* [share_capacity], owned */
    uint32_t member_count, member_capacity, share_count, share_capacity;
    uint32_t *identifiers; /* [identifier_capacity], owned; those of connections that have several */
    uint32_t identifier_count, identifier_capacity;
    bool found_overflow;          /* memory for it was refused */
    struct router_match uncached; /* the last answer when it was too large to keep */
};

enum { FOUND_FIRST_CAPACITY = 64, SORT_RUN = 8 };

static void clear(struct router_cache *cache)
{
    cache->topics = 0;
    cache->arena_used = 0;
    if (++cache->epoch == 0) {
        memset(cache->slots, 0, (cache->slot_mask + 1) * sizeof *cache->slots);
        cache->epoch = 1;
    }
}

int router_cache_create(const struct router_cache_options *options, struct router_cache **out)
{
    struct router_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return ERR_NO_MEMORY;
    cache->generation = UINT64_MAX;
    cache->epoch = 1;
    cache->topics_max = options && options->topics_max ? options->topics_max : ROUTER_CACHE_TOPICS_MAX_DEFAULT;
    cache->arena_size = options && options->bytes_max ? options->bytes_max : ROUTER_CACHE_BYTES_MAX_DEFAULT;
    size_t slot_count = 2;
    while (slot_count / 2 < cache->topics_max)
        slot_count *= 2;
    cache->slot_mask = slot_count - 1;
    cache->found_capacity = FOUND_FIRST_CAPACITY;
    /* Large blocks of the C library become real, page by page, when they are first written. */
    cache->slots = calloc(slot_count, sizeof *cache->slots);
    cache->arena = malloc(cache->arena_size);
    cache->found = malloc(cache->found_capacity * sizeof *cache->found);
    int error = cache->slots && cache->arena && cache->found ? 0 : ERR_NO_MEMORY;
    if (!error && getentropy(&cache->seed, sizeof cache->seed))
        error = ERR_IO;
    if (error)
        router_cache_destroy(cache);
    else
        *out = cache;
    return error;
}

void router_cache_destroy(struct router_cache *cache)
{
    if (!cache)
        return;
    free(cache->slots);
    free(cache->arena);
    free(cache->found);
    free(cache->members);
    free(cache->shares);
    free(cache->identifiers);
    free(cache);
}

struct router_cache_stats router_cache_stats(const struct router_cache *cache)
{
    return (struct router_cache_stats){cache->hits, cache->misses, cache->clears_full, cache->topics, cache->arena_used};
}

/* ---- walking the tree ---- */

static void collect(struct router_cache *cache, const struct router_list *list)
{
    size_t needed = (cache->found_count + list->count) * 2;
    if (needed > cache->found_capacity) {
        size_t capacity = cache->found_capacity;
        while (capacity < needed)
            capacity *= 2;
        struct router_subscription *found = realloc(cache->found, capacity * sizeof *found);
        if (!found) {
            cache->found_overflow = true;
            return;
        }
        cache->found = found;
        cache->found_capacity = capacity;
    }
    for (uint32_t i = 0; i < list->count; i++)
        cache->found[cache->found_count++] = list->entries[i].subscription;
}

/* Makes room for `needed` items in all. */
static bool reserve(void **items, uint32_t *capacity, size_t needed, size_t item_size)
{
    if (needed <= *capacity)
        return true;
    void *larger = realloc(*items, 2 * needed * item_size);
    if (!larger)
        return false;
    *items = larger;
    *capacity = (uint32_t)(2 * needed);
    return true;
}

static void collect_group(struct router_cache *cache, const struct router_group *group)
{
    void *members = cache->members, *shares = cache->shares;
    bool room = reserve(&members, &cache->member_capacity, (size_t)cache->member_count + group->members.count, sizeof *cache->members);
    cache->members = members;
    room = room && reserve(&shares, &cache->share_capacity, (size_t)cache->share_count + 1, sizeof *cache->shares);
    cache->shares = shares;
    if (!room) {
        cache->found_overflow = true;
        return;
    }
    struct router_share share = {.first = cache->member_count, .turn = (uint32_t)cache->misses};
    for (uint32_t i = 0; i < group->members.count; i++) {
        const struct router_subscription *subscription = &group->members.entries[i].subscription;
        if (subscription->options & ROUTER_FROM_JOURNAL)
            share.from_journal = true;
        else
            cache->members[cache->member_count++] = *subscription;
    }
    share.count = cache->member_count - share.first;
    if (share.count)
        cache->shares[cache->share_count++] = share;
}

/* Those of the node that end there, or with '#' below it. */
static void collect_groups(struct router_cache *cache, const struct router_node *node, bool below)
{
    for (const struct router_group *group = node->groups; group; group = group->next)
        if (group->below == below)
            collect_group(cache, group);
}

struct walk {
    const struct router *router;
    struct router_cache *cache;
    const struct router_level *levels;
    unsigned level_count;
    bool hidden; /* the topic begins with '$': no wildcard may match its first level */
};

/* Recursion is as deep as there are '+' on the way, at most MQTT_TOPIC_LEVELS_MAX. */
static void walk_from(const struct walk *walk, const struct router_node *node, unsigned level)
{
    for (;;) {
        bool wildcards = level > 0 || !walk->hidden;
        if (node->below.count && wildcards)
            collect(walk->cache, &node->below);
        if (node->groups && wildcards)
            collect_groups(walk->cache, node, true);
        if (level == walk->level_count) {
            collect(walk->cache, &node->here);
            collect_groups(walk->cache, node, false);
            return;
        }
        if (node->plus && wildcards)
            walk_from(walk, node->plus, level + 1);
        if (!node->child_count)
            return;
        node = router_child(walk->router, node, &walk->levels[level]);
        if (!node)
            return;
        level++;
    }
}

/* ---- one entry a connection ---- */

static bool same(const struct router_subscription *a, const struct router_subscription *b)
{
    return a->connection == b->connection && a->loop == b->loop && a->generation == b->generation;
}

static bool before(const struct router_subscription *a, const struct router_subscription *b)
{
    uint64_t left = (uint64_t)a->loop << 32 | a->connection, right = (uint64_t)b->loop << 32 | b->connection;
    return left != right ? left < right : a->generation < b->generation;
}

static void sort_run(struct router_subscription *run, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        struct router_subscription moved = run[i];
        size_t at = i;
        for (; at > 0 && before(&moved, &run[at - 1]); at--)
            run[at] = run[at - 1];
        run[at] = moved;
    }
}

/* Merges [0, middle) and [middle, count). */
static void merge_runs(const struct router_subscription *from, size_t middle, size_t count, struct router_subscription *to)
{
    size_t left = 0, right = middle;
    while (left < middle && right < count)
        *to++ = before(&from[right], &from[left]) ? from[right++] : from[left++];
    memcpy(to, from + left, (middle - left) * sizeof *to);
    memcpy(to + (middle - left), from + right, (count - right) * sizeof *to);
}

/* Merge sort with the comparison in line: this is most of the cost of a topic with many subscribers. `spare` holds as many as
 * `found`. Returns whichever of the two the result is in. */
static struct router_subscription *sort(struct router_subscription *found, size_t count, struct router_subscription *spare)
{
    for (size_t start = 0; start < count; start += SORT_RUN)
        sort_run(found + start, count - start < SORT_RUN ? count - start : SORT_RUN);
    for (size_t width = SORT_RUN; width < count; width *= 2) {
        for (size_t start = 0; start < count; start += 2 * width) {
            size_t both = count - start < 2 * width ? count - start : 2 * width;
            merge_runs(found + start, both < width ? both : width, both, spare + start);
        }
        struct router_subscription *sorted = spare;
        spare = found;
        found = sorted;
    }
    return found;
}

static void merge_into(struct router_subscription *kept, const struct router_subscription *other)
{
    unsigned all = kept->options & other->options, any = kept->options | other->options;
    kept->options = (uint8_t)((all & ROUTER_NO_LOCAL) | (any & (ROUTER_RETAIN_AS_PUBLISHED | ROUTER_FROM_JOURNAL | ROUTER_LOWERED)));
    if (other->qos > kept->qos)
        kept->qos = other->qos;
    if (other->since < kept->since)
        kept->since = other->since;
}

static bool reserve_identifiers(struct router_cache *cache, size_t more)
{
    void *identifiers = cache->identifiers;
    bool room = reserve(&identifiers, &cache->identifier_capacity, cache->identifier_count + more, sizeof *cache->identifiers);
    cache->identifiers = identifiers;
    return room;
}

/* Makes one of the `count` subscriptions of a connection. */
static void merge(struct router_cache *cache, struct router_subscription *kept, const struct router_subscription *others, size_t count)
{
    size_t identifiers = 0;
    uint32_t identifier = 0;
    for (size_t i = 0; i < count; i++) {
        if (!others[i].identifier)
            continue;
        identifiers++;
        identifier = others[i].identifier;
    }
    if (identifiers > 1 && !reserve_identifiers(cache, identifiers + 1)) {
        cache->found_overflow = true;
        return;
    }
    if (identifiers > 1) {
        identifier = cache->identifier_count;
        cache->identifiers[cache->identifier_count++] = (uint32_t)identifiers;
        for (size_t i = 0; i < count; i++)
            if (others[i].identifier)
                cache->identifiers[cache->identifier_count++] = others[i].identifier;
    }
    struct router_subscription merged = others[0];
    for (size_t i = 1; i < count; i++)
        merge_into(&merged, &others[i]);
    merged.identifier = identifier;
    merged.options |= identifiers > 1 ? ROUTER_IDENTIFIERS : 0;
    *kept = merged;
}

/* Those that want what their own connection publishes come first; returns how many they are. */
static size_t own_first(struct router_subscription *run, size_t count)
{
    size_t own = 0;
    for (size_t i = 0; i < count; i++) {
        if (run[i].options & ROUTER_NO_LOCAL)
            continue;
        struct router_subscription moved = run[own];
        run[own++] = run[i];
        run[i] = moved;
    }
    return own;
}

/* Makes one entry of the `count` subscriptions of a connection, at least two, or two where its own messages are not for all of them.
 * Returns how many; they may be put over the first of `run`. */
static size_t merge_run(struct router_cache *cache, struct router_subscription *run, size_t count, struct router_subscription *kept)
{
    size_t own_count = own_first(run, count);
    struct router_subscription all = run[0], own = run[0];
    merge(cache, &all, run, count);
    bool both = own_count > 0 && own_count < count;
    if (both) {
        merge(cache, &own, run, own_count);
        all.options |= ROUTER_NO_LOCAL;
        own.options |= ROUTER_OWN_ONLY;
        kept[1] = own;
    }
    kept[0] = all;
    return both ? 2 : 1;
}

static void settle(struct router_cache *cache)
{
    struct router_subscription *found = sort(cache->found, cache->found_count, cache->found + cache->found_count);
    size_t kept = 0, next;
    cache->identifier_count = 0;
    for (size_t i = 0; i < cache->found_count; i = next) {
        for (next = i + 1; next < cache->found_count && same(&found[i], &found[next]);)
            next++;
        if (next == i + 1)
            found[kept++] = found[i];
        else
            kept += merge_run(cache, &found[i], next - i, &found[kept]);
    }
    cache->settled = found;
    cache->settled_count = kept;
}

/* ---- the cache ---- */

static const char *topic_of(const struct cached *cached)
{
    return (const char *)(cached->match.identifiers + cached->match.identifier_count);
}

/* The slot that holds the topic or else the free one where it belongs. */
static struct cache_slot *find_slot(const struct router_cache *cache, uint64_t hash, const char *topic, size_t length)
{
    uint32_t tag = (uint32_t)(hash >> 32);
    for (size_t i = hash & cache->slot_mask;; i = (i + 1) & cache->slot_mask) {
        struct cache_slot *slot = &cache->slots[i];
        if (slot->epoch != cache->epoch)
            return slot;
        if (slot->tag == tag && slot->cached->topic_length == length && memcmp(topic_of(slot->cached), topic, length) == 0)
            return slot;
    }
}

static char *put(char *at, const void *bytes, size_t size)
{
    if (size)
        memcpy(at, bytes, size);
    return at + size;
}

/* Puts the answer into the arena; where it cannot be kept, it is lent from where it was made. */
static struct router_match *keep(struct router_cache *cache, uint64_t hash, const char *topic, size_t length)
{
    struct router_match match = {.subscribers = cache->settled,
                                 .members = cache->members,
                                 .shares = cache->shares,
                                 .identifiers = cache->identifiers,
                                 .count = (uint32_t)cache->settled_count,
                                 .member_count = cache->member_count,
                                 .share_count = cache->share_count,
                                 .identifier_count = cache->identifier_count};
    size_t list_size = match.count * sizeof *match.subscribers, members_size = match.member_count * sizeof *match.members;
    size_t shares_size = match.share_count * sizeof *match.shares, identifiers_size = match.identifier_count * sizeof *match.identifiers;
    size_t size = sizeof(struct cached) + list_size + members_size + shares_size + identifiers_size + length;
    size = (size + alignof(struct cached) - 1) / alignof(struct cached) * alignof(struct cached);
    if (size > cache->arena_size) {
        cache->uncached = match;
        return &cache->uncached;
    }
    if (cache->topics == cache->topics_max || size > cache->arena_size - cache->arena_used) {
        clear(cache);
        cache->clears_full++;
    }
    struct cached *cached = (struct cached *)(void *)(cache->arena + cache->arena_used);
    char *at = (char *)(cached + 1);
    match.subscribers = (const struct router_subscription *)(void *)at;
    at = put(at, cache->settled, list_size);
    match.members = (const struct router_subscription *)(void *)at;
    at = put(at, cache->members, members_size);
    match.shares = (struct router_share *)(void *)at;
    at = put(at, cache->shares, shares_size);
    match.identifiers = (const uint32_t *)(void *)at;
    at = put(at, cache->identifiers, identifiers_size);
    put(at, topic, length);
    cached->match = match;
    cached->topic_length = (uint32_t)length;
    cache->arena_used += size;
    cache->topics++;
    *find_slot(cache, hash, topic, length) = (struct cache_slot){cache->epoch, (uint32_t)(hash >> 32), cached};
    return &cached->match;
}

static struct router_match *resolve(struct router *router, struct router_cache *cache, uint64_t hash, const char *topic, size_t length)
{
    struct router_level levels[MQTT_TOPIC_LEVELS_MAX];
    struct walk walk = {.router = router, .cache = cache, .levels = levels, .hidden = length && topic[0] == '$'};
    walk.level_count = router_split(topic, length, levels);
    cache->misses++;
    cache->found_count = cache->member_count = cache->share_count = 0;
    cache->found_overflow = false;
    pthread_rwlock_rdlock(&router->lock);
    uint64_t generation = atomic_load_explicit(&router->generation, memory_order_relaxed);
    if (walk.level_count)
        walk_from(&walk, router->root, 0);
    pthread_rwlock_unlock(&router->lock);
    if (cache->found_overflow)
        return NULL;
    if (generation != cache->generation) {
        clear(cache);
        cache->generation = generation;
    }
    settle(cache);
    if (cache->found_overflow)
        return NULL;
    return keep(cache, hash, topic, length);
}

struct router_match *router_match(struct router *router, struct router_cache *cache, const char *topic, size_t length)
{
    uint64_t generation = atomic_load_explicit(&router->generation, memory_order_acquire);
    if (generation != cache->generation) {
        clear(cache);
        cache->generation = generation;
    }
    uint64_t hash = hash_bytes(topic, length, cache->seed);
    const struct cache_slot *slot = find_slot(cache, hash, topic, length);
    if (slot->epoch != cache->epoch)
        return resolve(router, cache, hash, topic, length);
    cache->hits++;
    return &slot->cached->match;
}
