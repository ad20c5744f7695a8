/* What a connection is in shared subscriptions, and what it has not answered of them. */
#include "bus/shared.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "bus/persistent.h"
#include "bus/persistent_parts.h"

enum {
    QUEUE_MAX = 1 << 20, /* bytes that may wait for a client before it is handed more */
    GRANT_PART = 8,      /* more is granted when it is this part of the window or of the queue */
    RING_FIRST = 16,
    PACKET_IDS = 65535
};

struct membership {
    struct membership *prev, *next;
    struct group_member *member;
    uint64_t number;
    uint64_t received, received_bytes;
    uint64_t granted, granted_bytes;
    bool retired;
    uint32_t length;
    char filter[];
};

struct unanswered {
    struct shared_ticket ticket; /* `member` NULL: it is answered */
    uint16_t packet_id;
};

struct shared {
    struct membership *memberships;
    struct unanswered *ring; /* [capacity], a power of two: QoS 1, in order of sending */
    uint32_t first, count, capacity;
};

/* ---- memberships ---- */

static struct membership *find_filter(const struct shared *shared, struct mqtt_slice filter)
{
    struct membership *each;
    DL_FOREACH(shared->memberships, each)
    {
        if (!each->retired && each->length == filter.length && memcmp(each->filter, filter.data, filter.length) == 0)
            return each;
    }
    return NULL;
}

static struct membership *find_number(const struct shared *shared, uint64_t number)
{
    struct membership *each;
    DL_FOREACH(shared->memberships, each)
    {
        if (each->number == number)
            return each;
    }
    return NULL;
}

static void leave(struct shared *shared, struct membership *membership)
{
    DL_DELETE(shared->memberships, membership);
    group_leave(membership->member);
    free(membership);
}

/* The group it had unsubscribed from, and owed something, may have nothing of it any more. */
static void leave_finished(struct shared *shared)
{
    struct membership *each, *next;
    DL_FOREACH_SAFE(shared->memberships, each, next)
    {
        if (each->retired && group_is_finished(each->member))
            leave(shared, each);
    }
}

static int join(struct connection *connection, struct mqtt_slice filter, const struct router_subscription *how)
{
    struct membership *made = calloc(1, sizeof *made + filter.length + 1);
    if (!made)
        return ERR_NO_MEMORY;
    made->length = filter.length;
    memcpy(made->filter, filter.data, filter.length);
    int error = group_join(connection->loop->bus->groups, made->filter, made->length, how, &made->member);
    if (error) {
        free(made);
        return error;
    }
    made->number = group_member_number(made->member);
    DL_APPEND(connection->shared->memberships, made);
    /* A group may become durable without a word to this connection: it has room for one message from the first. */
    made->granted = made->granted_bytes = 1;
    group_grant(made->member, made->granted, made->granted_bytes);
    loop_mark_dirty(connection);
    return 0;
}

int shared_subscribe(struct connection *connection, struct mqtt_slice filter, const struct router_subscription *how)
{
    if (!connection->loop->bus->groups)
        return 0;
    if (!how->qos) {
        shared_unsubscribe(connection, filter);
        return 0;
    }
    if (!connection->shared)
        connection->shared = calloc(1, sizeof *connection->shared);
    if (!connection->shared)
        return ERR_NO_MEMORY;
    struct membership *membership = find_filter(connection->shared, filter);
    if (!membership)
        return join(connection, filter, how);
    group_change(membership->member, how);
    return 0;
}

void shared_unsubscribe(struct connection *connection, struct mqtt_slice filter)
{
    struct membership *membership = connection->shared ? find_filter(connection->shared, filter) : NULL;
    if (!membership)
        return;
    membership->retired = true;
    group_retire(membership->member);
    leave_finished(connection->shared);
}

void shared_leave(struct connection *connection)
{
    struct shared *shared = connection->shared;
    if (!shared)
        return;
    while (shared->memberships)
        leave(shared, shared->memberships);
    connection->shared = NULL;
    free(shared->ring);
    free(shared);
}

/* ---- what it has not answered ---- */

static struct unanswered *ring_at(const struct shared *shared, uint32_t index)
{
    return &shared->ring[(shared->first + index) & (shared->capacity - 1)];
}

static int grow(struct shared *shared)
{
    uint32_t capacity = shared->capacity ? 2 * shared->capacity : RING_FIRST;
    struct unanswered *ring = malloc(capacity * sizeof *ring);
    if (!ring)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < shared->count; i++)
        ring[i] = *ring_at(shared, i);
    free(shared->ring);
    shared->ring = ring;
    shared->first = 0;
    shared->capacity = capacity;
    return 0;
}

static uint32_t id_distance(uint16_t from, uint16_t to)
{
    return to >= from ? (uint32_t)to - from : (uint32_t)to + PACKET_IDS - from;
}

/* As persistent_flow.c finds its own: they lie in order of their distance from the oldest. */
static struct unanswered *find_unanswered(const struct shared *shared, uint16_t packet_id)
{
    uint32_t low = 0, high = shared->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        uint16_t oldest = ring_at(shared, 0)->packet_id;
        if (id_distance(oldest, ring_at(shared, middle)->packet_id) < id_distance(oldest, packet_id))
            low = middle + 1;
        else
            high = middle;
    }
    struct unanswered *found = low < shared->count ? ring_at(shared, low) : NULL;
    return found && found->packet_id == packet_id && found->ticket.member ? found : NULL;
}

int shared_note_sent(struct connection *connection, const struct session_sent *sent, const struct shared_ticket *ticket, uint64_t *place)
{
    struct shared *shared = connection->shared;
    struct persistent *persistent = connection->persistent;
    *place = 0;
    if (sent->qos == 1) {
        if (shared->count == shared->capacity && grow(shared))
            return ERR_NO_MEMORY;
        *ring_at(shared, shared->count++) = (struct unanswered){*ticket, sent->packet_id};
        return 0;
    }
    uint64_t noted;
    int error = persistent ? persistent_reserve_sent(persistent) : 0;
    if (!error)
        error = group_give(ticket->member, ticket->owed, persistent ? persistent->session : NULL, sent, &noted);
    if (error)
        return error;
    persistent_noted(connection->loop);
    leave_finished(shared);
    if (persistent) {
        *place = noted;
        error = persistent_put_sent(persistent, sent, false, true);
    }
    return error;
}

void shared_drop(struct connection *connection, const struct shared_ticket *ticket)
{
    group_settle(ticket->member, ticket->owed);
    leave_finished(connection->shared);
}

void shared_settled(struct connection *connection, uint16_t packet_id)
{
    struct shared *shared = connection->shared;
    struct unanswered *found = find_unanswered(shared, packet_id);
    loop_mark_dirty(connection); /* there is room for another */
    if (!found)
        return;
    const struct shared_ticket ticket = found->ticket;
    found->ticket.member = NULL;
    while (shared->count && !ring_at(shared, 0)->ticket.member) {
        shared->first = (shared->first + 1) & (shared->capacity - 1);
        shared->count--;
    }
    shared_drop(connection, &ticket);
}

/* ---- what it is handed ---- */

/* Bytes that may wait for the client before it is handed more. */
static size_t queue_limit(const struct connection *connection)
{
    size_t most = memory_queue_max(connection->loop->bus) / 2;
    return most < QUEUE_MAX ? most : QUEUE_MAX;
}

/* What it is granted in all its groups may be more than it has room for: a message each. */
static bool is_overrun(const struct connection *connection)
{
    return connection_queued(connection) > 2 * queue_limit(connection);
}

void shared_receive(struct connection *to, uint64_t member, const struct mqtt_publish *publish, const struct router_subscription *how,
                    struct group_owed *owed, const struct persistent_handed *handed)
{
    struct membership *membership = to->shared ? find_number(to->shared, member) : NULL;
    if (!membership || to->closing || connection_parts(to))
        return; /* the group has it back, or will have with the end of the connection */
    struct shared_ticket ticket = {membership->member, owed};
    if (membership->retired) {
        group_return(ticket.member, ticket.owed);
        leave_finished(to->shared);
        return;
    }
    membership->received++;
    membership->received_bytes += handed->bytes;
    loop_mark_dirty(to);
    if (is_overrun(to)) {
        group_return(ticket.member, ticket.owed);
        return;
    }
    struct session_sent sent = {
        .offset = handed->offset, .content = handed->content, .qos = how->qos < publish->qos ? how->qos : publish->qos, .shared = true};
    deliver_from_group(to, publish, how, &sent, &ticket, handed->time_ns);
}

/* ---- what it is granted ---- */

static void grant(struct membership *membership, uint32_t room, uint32_t most, size_t room_bytes, size_t most_bytes)
{
    uint64_t granted = membership->received + room, bytes = membership->received_bytes + room_bytes;
    bool more = granted > membership->granted &&
                (membership->granted == membership->received || granted - membership->granted >= (most + GRANT_PART - 1) / GRANT_PART);
    bool more_bytes = bytes > membership->granted_bytes && (membership->granted_bytes <= membership->received_bytes ||
                                                            bytes - membership->granted_bytes >= most_bytes / GRANT_PART);
    if (!more && !more_bytes)
        return;
    if (granted > membership->granted)
        membership->granted = granted;
    if (bytes > membership->granted_bytes)
        membership->granted_bytes = bytes;
    group_grant(membership->member, membership->granted, membership->granted_bytes);
}

static bool is_served(const struct membership *membership)
{
    return !membership->retired && group_is_durable(membership->member);
}

/* Its groups share the room; as long as there is any, each may send one message. */
void shared_turn(struct connection *connection)
{
    const struct mqtt_session *session = &connection->session;
    if (connection->closing)
        return;
    uint32_t used = session->outbound_unacknowledged + connection->persistent_waiting + connection->shared_waiting;
    size_t queued = connection_queued(connection), most_bytes = queue_limit(connection);
    uint32_t room = used < session->send_maximum ? session->send_maximum - used : 0, served = 0;
    size_t room_bytes = queued < most_bytes ? most_bytes - queued : 0;
    struct membership *each;
    if (!room || !room_bytes)
        return;
    DL_FOREACH(connection->shared->memberships, each)
    served += is_served(each);
    DL_FOREACH(connection->shared->memberships, each)
    {
        if (is_served(each))
            grant(each, room > served ? room / served : 1, session->send_maximum / served, room_bytes > served ? room_bytes / served : 1,
                  most_bytes / served);
    }
}
