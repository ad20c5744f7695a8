/* Members of the follower: how much they may be handed, what they have subscribed to, and how that takes part in the sweeps in which they
 * sit. */
#include <stdlib.h>
#include <string.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "base/hash.h"
#include "sessions/follower_parts.h"

void follower_seat_set(struct follower_seat *seat, const struct follower_sweep *passes, uint64_t place)
{
    atomic_fetch_add(&seat->version, 1);
    atomic_store(&seat->place, place);
    atomic_store(&seat->passes, passes);
    atomic_fetch_add(&seat->version, 1);
}

/* ---- room ---- */

static bool is_within_grant(const struct follower_member *member)
{
    return atomic_load(&member->granted_messages) > atomic_load(&member->handed) &&
           atomic_load(&member->granted_bytes) > member->handed_bytes;
}

/* A grant stores how much, then looks whether it is waited for; here it is the other way round, so that one of the two sees the other. */
bool follower_has_room(struct follower_member *member)
{
    if (is_within_grant(member))
        return true;
    atomic_store(&member->starved, true);
    return is_within_grant(member);
}

void follower_count_handed(struct follower_member *member, const struct message *message)
{
    member->handed_bytes += (uint64_t)message->topic_length + message->properties_length + message->payload_length;
    atomic_fetch_add(&member->handed, 1);
    atomic_fetch_add_explicit(&member->follower->handed_count, 1, memory_order_relaxed);
}

/* ---- subscriptions, by member and filter ---- */

static uint64_t hash_of(const struct follower_member *member, const char *filter, size_t length)
{
    return hash_bytes(filter, length, (uint64_t)(uintptr_t)member);
}

/* What points at the subscription, or at the NULL at whose place it would come. */
static struct follower_subscription **find(struct follower_member *member, uint64_t hash, const char *filter, size_t length)
{
    struct follower *follower = member->follower;
    struct follower_subscription **at = &follower->index[hash & follower->index_mask];
    for (; *at; at = &(*at)->chain)
        if ((*at)->hash == hash && (*at)->command.member == member && (*at)->length == length && memcmp((*at)->filter, filter, length) == 0)
            return at;
    return at;
}

/* Where there is no memory for a larger index, chains grow longer. */
static void grow_index(struct follower *follower)
{
    size_t count = 2 * (follower->index_mask + 1);
    struct follower_subscription **index = calloc(count, sizeof(struct follower_subscription *));
    if (!index)
        return;
    for (size_t i = 0; i <= follower->index_mask; i++) {
        for (struct follower_subscription *moved = follower->index[i], *next; moved; moved = next) {
            next = moved->chain;
            moved->chain = index[moved->hash & (count - 1)];
            index[moved->hash & (count - 1)] = moved;
        }
    }
    free(follower->index);
    follower->index = index;
    follower->index_mask = count - 1;
}

/* ---- subscriptions take part in sweeps ---- */

/* In a router a member is its address. */
static struct router_subscription as_routed(const struct follower_member *member, const struct follower_subscription *subscription)
{
    uint64_t address = (uint64_t)(uintptr_t)member;
    return (struct router_subscription){.loop = member->loop,
                                        .qos = subscription->how.qos,
                                        .options = subscription->how.options,
                                        .identifier = subscription->how.identifier,
                                        .connection = (uint32_t)(address >> 32),
                                        .generation = (uint32_t)address};
}

struct follower_member *follower_routed_member(const struct router_subscription *routed)
{
    return (struct follower_member *)(uintptr_t)((uint64_t)routed->connection << 32 | routed->generation);
}

static uint64_t begin_of(const struct follower_seat *seat, const struct follower_subscription *subscription, unsigned content)
{
    uint64_t place = atomic_load(&seat->place), from = subscription->from.at[content];
    return from > place ? from : place;
}

bool follower_seat_takes_part(const struct follower_seat *seat, const struct follower_sweep *sweep)
{
    return seat->sweep == sweep && atomic_load(&seat->place) <= atomic_load(&sweep->position);
}

/* Where the next of its subscriptions begins. */
static uint64_t next_begin(const struct follower_seat *seat, unsigned content)
{
    uint64_t next = UINT64_MAX;
    const struct follower_subscription *subscription;
    if (seat->active == seat->member->subscription_count)
        return next;
    DL_FOREACH(seat->member->subscriptions, subscription)
    {
        uint64_t begin = begin_of(seat, subscription, content);
        if (!subscription->active[content] && begin < next)
            next = begin;
    }
    return next;
}

static void list_seat(struct follower_sweep *sweep, struct follower_seat *seat)
{
    seat->active_from = next_begin(seat, sweep->stream->index);
    if (seat->active_from == UINT64_MAX)
        DL_APPEND(sweep->seats, seat);
    else
        DL_APPEND(sweep->beginning, seat);
    if (seat->active_from < sweep->active_from)
        sweep->active_from = seat->active_from;
}

static void unlist_seat(struct follower_sweep *sweep, struct follower_seat *seat)
{
    if (seat->active_from == UINT64_MAX)
        DL_DELETE(sweep->seats, seat);
    else
        DL_DELETE(sweep->beginning, seat);
}

/* The subscription does not take part yet. */
static void begin_later(struct follower_sweep *sweep, struct follower_seat *seat, const struct follower_subscription *subscription)
{
    uint64_t begin = begin_of(seat, subscription, sweep->stream->index);
    if (begin >= seat->active_from)
        return;
    unlist_seat(sweep, seat);
    seat->active_from = begin;
    DL_APPEND(sweep->beginning, seat);
    if (begin < sweep->active_from)
        sweep->active_from = begin;
}

void follower_seat_sit(struct follower_sweep *sweep, struct follower_seat *seat)
{
    seat->sweep = sweep;
    list_seat(sweep, seat);
    sweep->seat_count++;
    sweep->active += seat->active;
    sweep->stands = false;
    follower_seat_set(seat, sweep, atomic_load(&seat->place));
}

void follower_seat_rise(struct follower_seat *seat)
{
    struct follower_sweep *sweep = seat->sweep;
    uint64_t place = atomic_load(&seat->place), position = atomic_load(&sweep->position);
    unlist_seat(sweep, seat);
    seat->sweep = NULL;
    sweep->seat_count--;
    sweep->active -= seat->active;
    follower_seat_set(seat, NULL, position > place ? position : place);
}

static void set_active(struct follower_seat *seat, struct follower_subscription *subscription, unsigned content, bool active)
{
    if (subscription->active[content] == active)
        return;
    subscription->active[content] = active;
    seat->active += active ? 1 : SIZE_MAX;
    if (seat->sweep)
        seat->sweep->active += active ? 1 : SIZE_MAX;
}

static int make_router(struct follower_stream *stream)
{
    struct router_cache_options cache = {.topics_max = FOLLOWER_TOPICS_MAX, .bytes_max = FOLLOWER_CACHE_BYTES};
    if (!stream->router && router_create(NULL, &stream->router))
        return ERR_NO_MEMORY;
    return stream->cache || !router_cache_create(&cache, &stream->cache) ? 0 : ERR_NO_MEMORY;
}

/* Returns 0 or ERR_NO_MEMORY. What the router cannot take otherwise is told, and takes no part. */
static int activate(struct follower_member *member, struct follower_subscription *subscription, unsigned content)
{
    struct follower_stream *stream = &member->follower->streams[content];
    struct router_subscription routed = as_routed(member, subscription);
    int error = make_router(stream);
    if (!error)
        error = router_subscribe(stream->router, subscription->filter, subscription->length, &routed);
    if (error == ERR_NO_MEMORY)
        return error;
    if (error < 0)
        DIAG_LIMITED(DIAGNOSTICS_ERROR, "bus", "a persistent session gets nothing by its subscription to %.*s: %s",
                     (int)subscription->length, subscription->filter, error_text(error));
    set_active(&member->seats[content], subscription, content, true);
    return 0;
}

static void deactivate(struct follower_member *member, struct follower_subscription *subscription, unsigned content)
{
    struct router_subscription routed = as_routed(member, subscription);
    if (!subscription->active[content])
        return;
    router_unsubscribe(member->follower->streams[content].router, subscription->filter, subscription->length, &routed);
    set_active(&member->seats[content], subscription, content, false);
}

static int activate_seat(struct follower_seat *seat, unsigned content, uint64_t position)
{
    struct follower_subscription *subscription;
    int error = 0;
    DL_FOREACH(seat->member->subscriptions, subscription)
    {
        if (!error && !subscription->active[content] && begin_of(seat, subscription, content) <= position)
            error = activate(seat->member, subscription, content);
    }
    return error;
}

int follower_sweep_activate(struct follower_sweep *sweep)
{
    uint64_t position = atomic_load(&sweep->position);
    if (sweep->active_from > position)
        return 0;
    int error = 0;
    struct follower_seat *seats = sweep->beginning, *seat, *next;
    sweep->beginning = NULL;
    sweep->active_from = UINT64_MAX;
    DL_FOREACH_SAFE(seats, seat, next)
    {
        DL_DELETE(seats, seat);
        if (!error && seat->active_from <= position)
            error = activate_seat(seat, sweep->stream->index, position);
        list_seat(sweep, seat);
    }
    return error;
}

/* ---- changes ---- */

void follower_subscription_add(struct follower_member *member, struct follower_subscription *added)
{
    struct follower *follower = member->follower;
    added->hash = hash_of(member, added->filter, added->length);
    struct follower_subscription **at = find(member, added->hash, added->filter, added->length), *old = *at;
    added->chain = old ? old->chain : NULL;
    *at = added;
    DL_APPEND(member->subscriptions, added);
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++) {
        struct follower_sweep *sweep = member->seats[i].sweep;
        if (old && old->from.at[i] < added->from.at[i])
            added->from.at[i] = old->from.at[i];
        added->active[i] = old && old->active[i];
        if (added->active[i] && activate(member, added, i)) /* it has to be tried again, and meanwhile there is none */
            deactivate(member, added, i);
        if (sweep && !added->active[i])
            begin_later(sweep, &member->seats[i], added);
    }
    if (old) {
        DL_DELETE(member->subscriptions, old);
        free(old);
        return;
    }
    member->subscription_count++;
    if (++follower->subscription_count > follower->index_mask)
        grow_index(follower);
}

static void drop_subscription(struct follower_member *member, struct follower_subscription **at)
{
    struct follower_subscription *dropped = *at;
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        deactivate(member, dropped, i);
    member->subscription_count--;
    *at = dropped->chain;
    DL_DELETE(member->subscriptions, dropped);
    free(dropped);
    member->follower->subscription_count--;
}

void follower_subscription_remove(struct follower_member *member, const char *filter, size_t length)
{
    struct follower_subscription **at = find(member, hash_of(member, filter, length), filter, length);
    if (*at)
        drop_subscription(member, at);
}

void follower_member_free(struct follower_member *member)
{
    while (member->subscriptions) {
        struct follower_subscription *last = member->subscriptions;
        drop_subscription(member, find(member, last->hash, last->filter, last->length));
    }
    free(member);
}
