/* Retained messages to those who have just subscribed, little by little.
 *
 * A subscription asks once which messages its filter matches and keeps their handles, eight bytes each. They are handed out as the client's
 * queue has room: while less than HANDOUT_QUEUE_MAX waits for it, and QoS 1 and 2 while its send window is open. So a subscriber of "#"
 * among a million of them holds up nobody, and is not slow for what it did not ask to have at once. A handle whose message was replaced or
 * removed meanwhile is passed over: the live one has been sent. So is a message that was put between the subscription and its question.
 *
 * A connection that can go on stands in the loop's list, and has one turn in each of the loop's; one that cannot comes back when its client
 * has taken or acknowledged something. */
#include "bus/loop.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/hash.h"

enum { HANDOUT_BATCH = 64, HANDOUT_TURN = 64 /* batches of one turn */, HANDOUT_QUEUE_MAX = 256 << 10 };

#define NS_PER_S UINT64_C(1000000000)

struct handout {
    struct handout *next;
    uint64_t filter;     /* hash */
    uint32_t identifier; /* of the subscription; 0: none */
    uint8_t qos;
    uint64_t since;
    struct retained_list list;
    size_t at; /* of the list's */
};

static uint64_t filter_hash(const struct connection *connection, struct mqtt_slice filter)
{
    return hash_bytes((const char *)filter.data, filter.length, connection->loop->bus->instance);
}

static void discard(struct connection *connection, struct handout **at)
{
    struct handout *handout = *at;
    *at = handout->next;
    connection->handout_bytes -= handout->list.count * sizeof *handout->list.handles;
    retained_list_fini(&handout->list);
    free(handout);
}

static void unlist(struct connection *connection)
{
    if (connection->handing)
        DL_DELETE2(connection->loop->handing, connection, handing_before, handing_next);
    connection->handing = false;
}

int handout_begin(struct connection *connection, const struct mqtt_subscription *wanted, uint32_t identifier, uint64_t since)
{
    struct bus *bus = connection->loop->bus;
    struct retained_list list;
    int error = retained_find(bus->retained, (const char *)wanted->filter.data, wanted->filter.length, &list);
    if (error || list.count == 0)
        return error;
    size_t bytes = list.count * sizeof *list.handles, most = bus->options.retained_max;
    if (wanted->filter.data[0] == '$') /* the server's own values are beside that number */
        most += RETAINED_PASSING_MAX;
    /* Nobody is to wait, or lose QoS 0, for these. */
    bool fits = atomic_load(&bus->memory_out) + bytes <= bus->options.memory_max / 2 &&
                connection->handout_bytes + bytes <= 2 * sizeof *list.handles * most;
    struct handout *handout = fits ? malloc(sizeof *handout) : NULL;
    if (!handout) {
        retained_list_fini(&list);
        return fits ? ERR_NO_MEMORY : ERR_LIMIT;
    }
    *handout = (struct handout){
        .filter = filter_hash(connection, wanted->filter), .identifier = identifier, .qos = wanted->qos, .since = since, .list = list};
    struct handout **last = &connection->handouts;
    while (*last)
        last = &(*last)->next;
    *last = handout;
    connection->handout_bytes += bytes;
    memory_note_out(connection);
    return 0;
}

void handout_forget(struct connection *connection, struct mqtt_slice filter)
{
    uint64_t hash = filter_hash(connection, filter);
    for (struct handout **at = &connection->handouts; *at;) {
        if ((*at)->filter == hash)
            discard(connection, at);
        else
            at = &(*at)->next;
    }
}

void handout_end(struct connection *connection)
{
    while (connection->handouts)
        discard(connection, &connection->handouts);
    unlist(connection);
}

void handout_resume(struct connection *connection)
{
    struct loop *loop = connection->loop;
    if (!connection->handouts || connection->handing || connection->closing)
        return;
    connection->handing = true;
    DL_APPEND2(loop->handing, connection, handing_before, handing_next);
    if (!loop->stopping)
        uv_async_send(&loop->wake);
}

/* ---- one turn ---- */

static bool has_room(const struct connection *connection)
{
    size_t most = memory_queue_max(connection->loop->bus) / 2, queued = connection_queued(connection);
    return queued == 0 || queued <= (most < HANDOUT_QUEUE_MAX ? most : HANDOUT_QUEUE_MAX);
}

/* Whether it comes live too. What comes from the journal does so from a place there, which says nothing of numbers. */
static bool comes_live(const struct connection *to, const struct handout *handout, const struct retained_message *message)
{
    bool from_journal = to->persistent && handout->qos && message->qos;
    return message->number > handout->since && !from_journal;
}

/* False: the send window is closed. */
static bool send_one(struct connection *to, const struct handout *handout, const struct retained_message *message)
{
    struct loop *loop = to->loop;
    if (comes_live(to, handout, message))
        return true;
    struct message view = retained_message_view(message);
    struct mqtt_publish outgoing = {
        .retain = true,
        .qos = handout->qos < message->qos ? handout->qos : message->qos,
        .topic = {(const uint8_t *)view.topic, view.topic_length},
        .payload = {view.payload, view.payload_length},
        .properties_raw = {view.properties, view.properties_length},
    };
    bool modern = to->session.version == MQTT_VERSION_5_0;
    if (modern && message->expires_ns != UINT64_MAX) {
        outgoing.has_message_expiry =
            mqtt_properties_expiry(outgoing.properties_raw, &outgoing.message_expiry_interval, &outgoing.message_expiry_at);
        uint64_t left_ns = message->expires_ns - loop_wall_ns(loop);
        if (deliver_set_expiry(loop, &outgoing, (uint32_t)((left_ns + NS_PER_S - 1) / NS_PER_S))) {
            connection_close(to, CLOSE_SLOW, 0x97);
            return true;
        }
    }
    return deliver_retained(loop, to, &outgoing, modern ? handout->identifier : 0);
}

/* Whether the connection could go on with the next batch. */
static bool send_batch(struct connection *connection)
{
    struct loop *loop = connection->loop;
    struct handout *handout = connection->handouts;
    struct retained_message *messages[HANDOUT_BATCH];
    size_t left = handout->list.count - handout->at, count = left < HANDOUT_BATCH ? left : HANDOUT_BATCH, sent = 0;
    retained_take(loop->bus->retained, handout->list.handles + handout->at, count, loop_wall_ns(loop), messages);
    while (sent < count && !connection->closing && has_room(connection) &&
           (!messages[sent] || send_one(connection, handout, messages[sent])))
        sent++;
    for (size_t i = 0; i < count; i++)
        retained_release(messages[i]);
    handout->at += sent;
    if (handout->at == handout->list.count)
        discard(connection, &connection->handouts);
    return sent == count && connection->handouts && !connection->closing;
}

void handout_continue(struct connection *connection)
{
    bool more = connection->handouts && !connection->closing;
    for (unsigned i = 0; more && i < HANDOUT_TURN; i++)
        more = send_batch(connection);
    if (connection->closing)
        return;
    connection_note_queue(connection);
    loop_mark_dirty(connection);
    if (more)
        handout_resume(connection);
}

void handout_turn(struct loop *loop)
{
    struct connection *list = loop->handing, *connection, *next;
    loop->handing = NULL;
    DL_FOREACH_SAFE2(list, connection, next, handing_next)
    {
        connection->handing = false;
        handout_continue(connection);
    }
}
