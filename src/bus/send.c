/* A message to one subscriber: what it gets, whether there is room for it, and what waits behind the send window.
 *
 * Most messages go out as they came in. What a subscriber gets besides its properties (subscription identifiers, a topic alias) is appended
 * behind them in a buffer of the loop, so that nothing else moves. */
#include "bus/persistent.h"
#include "bus/shared.h"

#include <string.h>

#include "base/diagnostics.h"
#include "base/error.h"

#define NS_PER_S UINT64_C(1000000000)

void deliver_note_drop(struct loop *loop, enum drop_reason reason)
{
    atomic_fetch_add_explicit(&loop->counters.dropped[reason], 1, memory_order_relaxed); /* publishers on other threads count here too */
}

static uint64_t now_of(const struct loop *loop)
{
    return uv_now(&loop->uv) * 1000000u;
}

/* ---- properties of one subscriber ---- */

/* Makes the message's properties the loop's, so that more can be appended. */
static int own_properties(struct loop *loop, struct mqtt_publish *outgoing)
{
    struct buffer *own = &loop->properties_out;
    if (own->length && outgoing->properties_raw.data == own->data)
        return 0;
    buffer_clear(own);
    return buffer_append(own, outgoing->properties_raw.data, outgoing->properties_raw.length);
}

static void use_properties(const struct loop *loop, struct mqtt_publish *outgoing)
{
    outgoing->properties_raw = (struct mqtt_slice){loop->properties_out.data, (uint32_t)loop->properties_out.length};
}

static int add_identifiers(struct loop *loop, struct mqtt_publish *outgoing, const struct router_subscription *how,
                           const uint32_t *identifiers)
{
    const uint32_t *first = &how->identifier;
    uint32_t count = 1;
    if (how->options & ROUTER_IDENTIFIERS) {
        first = identifiers + how->identifier + 1;
        count = first[-1];
    }
    int error = own_properties(loop, outgoing);
    for (uint32_t i = 0; i < count && !error; i++)
        error = mqtt_property_u32(&loop->properties_out, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, first[i]);
    use_properties(loop, outgoing);
    return error;
}

int deliver_set_expiry(struct loop *loop, struct mqtt_publish *outgoing, uint32_t interval_s)
{
    int error = own_properties(loop, outgoing);
    if (error)
        return error;
    use_properties(loop, outgoing);
    deliver_put_expiry(loop->properties_out.data + outgoing->message_expiry_at, interval_s);
    outgoing->message_expiry_interval = interval_s;
    return 0;
}

/* ---- into the buffers ---- */

/* `from`: its place in the journal, where it comes from there; with a ticket by a shared subscription. */
static int encode_waiting(struct connection *to, const struct mqtt_publish *outgoing, size_t size, const struct session_sent *from,
                          const struct shared_ticket *ticket)
{
    int error = buffer_reserve(&to->waiting, sizeof(struct waiting_head) + size);
    if (error)
        return error;
    size_t head_at = to->waiting.length, id_position;
    to->waiting.length += sizeof(struct waiting_head);
    error = mqtt_publish_encode(&to->waiting, to->session.version, outgoing, &id_position);
    if (error) {
        to->waiting.length = head_at;
        return error;
    }
    size_t packet_at = head_at + sizeof(struct waiting_head);
    struct waiting_head head = {.size = (uint32_t)(to->waiting.length - packet_at), .id_position = (uint32_t)(id_position - packet_at)};
    if (outgoing->has_message_expiry) {
        head.expires_ns = now_of(to->loop) + outgoing->message_expiry_interval * NS_PER_S;
        if (to->session.version == MQTT_VERSION_5_0)
            head.expiry_position = head.size - outgoing->payload.length - outgoing->properties_raw.length + outgoing->message_expiry_at;
    }
    if (from) {
        head.offset = from->offset;
        head.content = from->content;
        head.from_journal = !ticket;
        to->persistent_waiting += !ticket;
    }
    if (ticket) {
        head.ticket = *ticket;
        to->shared_waiting++;
    }
    memcpy(to->waiting.data + head_at, &head, sizeof head);
    if (head_at == 0 && to->paused && to->pause != PAUSE_JOURNAL)
        to->retry = true; /* from now on it owes acknowledgements */
    return 0;
}

/* Encodes with a topic alias, where the client has room for another or knows the topic's already. */
static int encode_aliased(struct connection *to, const struct mqtt_publish *outgoing)
{
    struct loop *loop = to->loop;
    struct mqtt_publish aliased = *outgoing;
    bool known;
    uint16_t alias = aliases_choose(to->aliases, outgoing->topic, &known);
    if (!alias)
        return mqtt_publish_encode(&to->out, to->session.version, outgoing, NULL);
    int error = own_properties(loop, &aliased);
    error = error ? error : mqtt_property_u16(&loop->properties_out, MQTT_PROPERTY_TOPIC_ALIAS, alias);
    if (error)
        return error;
    use_properties(loop, &aliased);
    if (known)
        aliased.topic.length = 0;
    else if (mqtt_publish_size(to->session.version, &aliased) > to->session.peer_packet_size_max ||
             aliases_add(to->aliases, outgoing->topic))
        return mqtt_publish_encode(&to->out, to->session.version, outgoing, NULL);
    error = mqtt_publish_encode(&to->out, to->session.version, &aliased, NULL);
    if (error && !known)
        connection_close(to, CLOSE_SLOW, 0x97); /* it was not told what the alias means */
    return error;
}

static int encode(struct connection *to, const struct mqtt_publish *outgoing)
{
    return to->aliases ? encode_aliased(to, outgoing) : mqtt_publish_encode(&to->out, to->session.version, outgoing, NULL);
}

/* Bytes by which the memory of `to` grows when `size` more are queued: buffers double. */
static size_t growth(const struct connection *to, size_t size)
{
    const struct buffer *buffer = to->waiting.length ? &to->waiting : &to->out;
    size_t more = buffer->capacity - buffer->length >= size ? 0 : buffer->capacity > size ? buffer->capacity : size;
    return buffer->capacity + more - buffer_memory(buffer);
}

/* Whether a message of `size` bytes may be queued for `to`. If not it was dropped, or its subscriber was. */
static bool has_room(struct loop *loop, struct connection *to, unsigned qos, size_t size)
{
    const struct bus *bus = loop->bus;
    size_t queued = connection_queued(to), most = bus->options.outgoing_soft_max;
    enum memory_level level = memory_level(bus);
    if (level == MEMORY_AMPLE && queued <= most)
        return true;
    if (qos == 0 && (level >= MEMORY_FULL || queued > memory_queue_max(bus))) {
        deliver_note_drop(loop, queued > most ? DROP_QUEUE_FULL : DROP_MEMORY);
        return false;
    }
    if (queued > most * LOOP_HARD_FACTOR) {
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus",
                     CONNECTION_NAME " is disconnected: %zu bytes wait for it, %d times what bus.outgoing_size_max allows",
                     CONNECTION_NAMED(to), queued, LOOP_HARD_FACTOR);
        connection_close(to, CLOSE_SLOW, 0x97);
        return false;
    }
    if (level != MEMORY_AMPLE && !memory_has_room(bus, growth(to, size))) {
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus",
                     CONNECTION_NAME " is disconnected: %zu bytes wait for it, and those of all clients have used up bus.memory_max",
                     CONNECTION_NAMED(to), queued);
        connection_close(to, CLOSE_LIMIT, 0x97);
        return false;
    }
    return true;
}

/* Behind what is held back, and when the place is durable; see send_from_journal. */
static int put_in_turn(struct connection *to, const struct mqtt_publish *outgoing, uint64_t place)
{
    size_t mark = to->out.length;
    bool waits = place || to->held_back;
    int error = waits ? mqtt_publish_encode(&to->out, to->session.version, outgoing, NULL) : encode(to, outgoing);
    if (!error && waits)
        persistent_hold_back(to, mark, place);
    return error;
}

/* What the session does not remember. */
static int send_noted(struct connection *to, const struct mqtt_publish *outgoing)
{
    uint64_t place;
    int error = persistent_note_id(to, &place);
    return error ? error : put_in_turn(to, outgoing, place);
}

/* Hands the finished message to the buffers of `to`. */
static void queue(struct loop *loop, struct connection *to, struct mqtt_publish *outgoing, size_t size)
{
    int error;
    if (outgoing->qos == 0) {
        error = encode(to, outgoing);
    } else {
        bool in_turn = to->waiting.length == to->waiting_at;
        outgoing->packet_id = in_turn ? mqtt_session_take_id(&to->session, outgoing->qos) : 0;
        if (outgoing->packet_id && outgoing->qos == 2 && to->persistent)
            error = send_noted(to, outgoing);
        else
            error = outgoing->packet_id ? encode(to, outgoing) : encode_waiting(to, outgoing, size, NULL, NULL);
    }
    if (error) {
        connection_close(to, CLOSE_SLOW, 0x97);
        return;
    }
    counter_add(&loop->counters.delivered[outgoing->qos], 1);
    const struct bus *bus = loop->bus;
    if (connection_memory(to) != to->counted_out || connection_queued(to) > bus->options.outgoing_soft_max || memory_level(bus))
        connection_note_queue(to); /* as seldom as may be: this is for every message */
    loop_mark_dirty(to);
}

void deliver_local(struct loop *loop, struct connection *to, const struct mqtt_publish *publish, uint64_t retained,
                   const struct router_subscription *how, const uint32_t *identifiers)
{
    if (to->closing || to->session.state != MQTT_SESSION_ACTIVE)
        return;
    if (retained && retained <= how->since)
        return; /* it was retained when the subscription was made, and comes as such */
    struct mqtt_publish outgoing = *publish;
    outgoing.dup = false;
    outgoing.retain = publish->retain && (how->options & ROUTER_RETAIN_AS_PUBLISHED);
    outgoing.qos = how->qos < publish->qos ? how->qos : publish->qos;
    outgoing.packet_id = 0;
    if (publish->qos && router_is_from_journal(how))
        return; /* it comes from there */
    bool identified = how->identifier || (how->options & ROUTER_IDENTIFIERS);
    if (identified && to->session.version == MQTT_VERSION_5_0 && add_identifiers(loop, &outgoing, how, identifiers)) {
        connection_close(to, CLOSE_SLOW, 0x97);
        return;
    }
    size_t size = mqtt_publish_size(to->session.version, &outgoing);
    if (size > to->session.peer_packet_size_max)
        deliver_note_drop(loop, DROP_PACKET_TOO_LARGE);
    else if (has_room(loop, to, outgoing.qos, size))
        queue(loop, to, &outgoing, size);
}

bool deliver_retained(struct loop *loop, struct connection *to, struct mqtt_publish *outgoing, uint32_t identifier)
{
    struct router_subscription how = {.identifier = identifier};
    if (identifier && add_identifiers(loop, outgoing, &how, NULL)) {
        connection_close(to, CLOSE_SLOW, 0x97);
        return true;
    }
    size_t size = mqtt_publish_size(to->session.version, outgoing);
    if (size > to->session.peer_packet_size_max) {
        deliver_note_drop(loop, DROP_PACKET_TOO_LARGE);
        return true;
    }
    outgoing->packet_id = outgoing->qos ? mqtt_session_take_id(&to->session, outgoing->qos) : 0;
    if (outgoing->qos && !outgoing->packet_id)
        return false;
    uint64_t place = 0;
    int error = outgoing->qos && to->persistent ? persistent_note_copy(to, outgoing, &place) : 0;
    if (!error && to->persistent)
        error = put_in_turn(to, outgoing, place);
    else if (!error)
        error = encode(to, outgoing);
    if (error)
        connection_close(to, CLOSE_SLOW, 0x97);
    else
        counter_add(&loop->counters.delivered[outgoing->qos], 1);
    return true;
}

/* ---- from the journal ---- */

/* False: it has expired. What was sent before is sent to the end. */
static bool count_down(struct loop *loop, struct connection *to, struct mqtt_publish *outgoing, uint64_t time_ns)
{
    uint64_t now_ns = loop_wall_ns(loop), passed_ns = now_ns > time_ns ? now_ns - time_ns : 0;
    uint64_t lasts_ns = outgoing->message_expiry_interval * NS_PER_S;
    if (passed_ns >= lasts_ns && outgoing->dup)
        lasts_ns = passed_ns + NS_PER_S;
    if (passed_ns >= lasts_ns) {
        deliver_note_drop(loop, DROP_EXPIRED);
        return false;
    }
    if (deliver_set_expiry(loop, outgoing, (uint32_t)((lasts_ns - passed_ns + NS_PER_S - 1) / NS_PER_S)))
        connection_close(to, CLOSE_SLOW, 0x97);
    return !to->closing;
}

/* With its packet identifier, if it has one. QoS 2 waits until it is noted that it was sent, and what comes behind it waits too. A message
 * that waits may give no topic an alias: live ones, which use it, would overtake it. */
static void send_from_journal(struct connection *to, const struct mqtt_publish *outgoing, uint64_t place)
{
    size_t mark = to->out.length;
    bool waits = to->persistent && (outgoing->qos == 2 || to->held_back);
    int error = waits ? mqtt_publish_encode(&to->out, to->session.version, outgoing, NULL) : encode(to, outgoing);
    if (error) {
        connection_close(to, CLOSE_SLOW, 0x97);
        return;
    }
    if (waits)
        persistent_hold_back(to, mark, place);
    counter_add(&to->loop->counters.delivered[outgoing->qos], 1);
    if (connection_memory(to) != to->counted_out || memory_level(to->loop->bus))
        connection_note_queue(to);
    loop_mark_dirty(to);
}

/* What is not sent, but was dropped for good, nobody owes any more. */
static bool drop(struct connection *to, const struct shared_ticket *ticket)
{
    if (ticket && !to->closing)
        shared_drop(to, ticket);
    return !to->closing;
}

static bool send_journaled(struct connection *to, const struct mqtt_publish *publish, const struct router_subscription *how,
                           const uint32_t *identifiers, const struct session_sent *sent, const struct shared_ticket *ticket,
                           uint64_t time_ns)
{
    struct loop *loop = to->loop;
    struct mqtt_publish outgoing = *publish;
    bool modern = to->session.version == MQTT_VERSION_5_0;
    outgoing.dup = sent->packet_id;
    outgoing.retain = publish->retain && (how->options & ROUTER_RETAIN_AS_PUBLISHED);
    outgoing.qos = sent->qos;
    outgoing.packet_id = sent->packet_id;
    if (outgoing.has_message_expiry && !count_down(loop, to, &outgoing, time_ns))
        return drop(to, ticket);
    if (modern && (how->identifier || how->options & ROUTER_IDENTIFIERS) && add_identifiers(loop, &outgoing, how, identifiers)) {
        connection_close(to, CLOSE_SLOW, 0x97);
        return false;
    }
    size_t size = mqtt_publish_size(to->session.version, &outgoing);
    if (size > to->session.peer_packet_size_max) {
        deliver_note_drop(loop, DROP_PACKET_TOO_LARGE);
        if (outgoing.dup)
            persistent_give_up(to, sent->packet_id);
        return drop(to, ticket);
    }
    struct session_sent now = *sent;
    uint64_t place = 0;
    int error = 0;
    if (outgoing.qos && !outgoing.dup) {
        bool in_turn = to->waiting.length == to->waiting_at;
        outgoing.packet_id = now.packet_id = in_turn ? mqtt_session_take_id(&to->session, outgoing.qos) : 0;
        if (!now.packet_id)
            error = encode_waiting(to, &outgoing, size, sent, ticket);
        else
            error = ticket ? shared_note_sent(to, &now, ticket, &place) : persistent_note_sent(to, &now, &place);
    }
    if (error)
        connection_close(to, CLOSE_LIMIT, error_mqtt_reason(error));
    else if (outgoing.packet_id || !outgoing.qos)
        send_from_journal(to, &outgoing, place);
    return !error;
}

bool deliver_from_journal(struct connection *to, const struct mqtt_publish *publish, const struct router_subscription *how,
                          const uint32_t *identifiers, const struct session_sent *sent, uint64_t time_ns)
{
    return send_journaled(to, publish, how, identifiers, sent, NULL, time_ns);
}

void deliver_from_group(struct connection *to, const struct mqtt_publish *publish, const struct router_subscription *how,
                        const struct session_sent *sent, const struct shared_ticket *ticket, uint64_t time_ns)
{
    (void)send_journaled(to, publish, how, NULL, sent, ticket, time_ns); /* what fails ends the connection */
}

void deliver_lower_to_waiting(const struct connection *connection, struct follower_places *places)
{
    for (size_t at = connection->waiting_at; at < connection->waiting.length && connection->persistent_waiting;) {
        struct waiting_head head;
        memcpy(&head, connection->waiting.data + at, sizeof head);
        if (head.from_journal && head.offset < places->at[head.content])
            places->at[head.content] = head.offset;
        at += sizeof head + head.size;
    }
}

/* ---- what waits behind the send window ---- */

/* Whether a waiting message has expired; if not, it says how long it lasts from now on. */
static bool has_expired(struct connection *connection, const struct waiting_head *head, uint8_t *packet)
{
    uint64_t now_ns = now_of(connection->loop);
    if (head->expires_ns <= now_ns)
        return true;
    if (head->expiry_position)
        deliver_put_expiry(packet + head->expiry_position, (uint32_t)((head->expires_ns - now_ns + NS_PER_S - 1) / NS_PER_S));
    return false;
}

void deliver_waiting(struct connection *connection)
{
    struct buffer *waiting = &connection->waiting;
    while (connection->waiting_at < waiting->length) {
        struct waiting_head head;
        memcpy(&head, waiting->data + connection->waiting_at, sizeof head);
        uint8_t *packet = waiting->data + connection->waiting_at + sizeof head;
        if (head.expires_ns && has_expired(connection, &head, packet)) {
            deliver_note_drop(connection->loop, DROP_EXPIRED);
            connection->waiting_at += sizeof head + head.size;
            connection->persistent_waiting -= head.from_journal;
            if (head.ticket.member) {
                connection->shared_waiting--;
                shared_drop(connection, &head.ticket);
            }
            continue;
        }
        uint8_t qos = packet[0] >> 1 & 3; /* the flags of a PUBLISH */
        uint16_t id = mqtt_session_take_id(&connection->session, qos);
        if (id == 0)
            break;
        bool shared = head.ticket.member;
        struct session_sent sent = {.offset = head.offset, .packet_id = id, .content = head.content, .qos = qos, .shared = shared};
        uint64_t place = 0;
        size_t mark = connection->out.length;
        bool unknown = !head.from_journal && !shared && qos == 2 && connection->persistent;
        if ((head.from_journal && persistent_note_sent(connection, &sent, &place)) || (unknown && persistent_note_id(connection, &place)) ||
            (shared && shared_note_sent(connection, &sent, &head.ticket, &place))) {
            connection_close(connection, CLOSE_LIMIT, 0x97);
            return;
        }
        connection->persistent_waiting -= head.from_journal;
        connection->shared_waiting -= shared;
        packet[head.id_position] = (uint8_t)(id >> 8);
        packet[head.id_position + 1] = (uint8_t)id;
        if (buffer_append(&connection->out, packet, head.size)) {
            connection_close(connection, CLOSE_SLOW, 0x97);
            return;
        }
        if (unknown || (connection->persistent && (head.from_journal || shared) && (qos == 2 || connection->held_back)))
            persistent_hold_back(connection, mark, place);
        connection->waiting_at += sizeof head + head.size;
        loop_mark_dirty(connection);
    }
    if (connection->waiting_at == waiting->length) {
        buffer_clear(waiting);
        connection->waiting_at = 0;
        buffer_shrink(waiting, CONNECTION_KEEP_BUFFER);
    } else if (connection->waiting_at > waiting->length / 2) {
        buffer_consume(waiting, connection->waiting_at);
        connection->waiting_at = 0;
    }
}
