/* Where a publish goes: into the queue, and to the subscribers that live on this loop and on others. */
#include "bus/loop.h"

#include <string.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "mqtt/topic.h"

/* The cached match of a topic remembers it. */
static enum queue_destination choose_destination(const struct bus *bus, struct mqtt_slice topic)
{
    for (unsigned i = 0; i < BUS_INGEST_FILTERS_MAX; i++) {
        const char *filter = bus->ingest_filters[i];
        if (filter && mqtt_topic_matches(filter, strlen(filter), (const char *)topic.data, topic.length))
            return QUEUE_CONSUMED;
    }
    return QUEUE_KEPT;
}

/* Whether so much is on its way to the disk that nothing may be added. */
static bool journal_is_full(const struct loop *loop)
{
    return loop->producer->ops->backlog(loop->producer) > loop->bus->options.journal_backlog_max;
}

static void append(struct connection *from, const struct mqtt_publish *publish, enum queue_destination to)
{
    struct loop *loop = from->loop;
    const struct bus_options *options = &loop->bus->options;
    if (publish->qos == 0 && journal_is_full(loop)) {
        counter_add(&loop->counters.ingest_dropped[INGEST_JOURNAL], 1);
        return;
    }
    struct message message = {
        .time_ns = loop_wall_ns(loop),
        .topic = (const char *)publish->topic.data,
        .payload = publish->payload.data,
        .properties = publish->properties_raw.data,
        .topic_length = publish->topic.length,
        .payload_length = publish->payload.length,
        .properties_length = publish->properties_raw.length,
        .flags = publish->qos,
    };
    uint64_t token = 0;
    if (publish->qos > 0 && !options->acknowledge_at_once)
        token = connection_token(from, publish->packet_id, publish->qos == 2);
    int error = loop->producer->ops->append(loop->producer, to, &message, token);
    loop->needs_submit = true;
    if (error && publish->qos > 0) {
        DIAG_LIMITED(DIAGNOSTICS_ERROR, "bus",
                     CONNECTION_NAME " is disconnected and may send again: its message of %u bytes on %.*s could not be taken: %s",
                     CONNECTION_NAMED(from), publish->payload.length, (int)publish->topic.length, (const char *)publish->topic.data,
                     error_text(error));
        connection_close(from, CLOSE_LIMIT, error_mqtt_reason(error));
    } else if (error) {
        counter_add(&loop->counters.ingest_dropped[INGEST_NO_MEMORY], 1);
    } else if (publish->qos > 0 && options->acknowledge_at_once) {
        connection_acknowledge(from, publish->packet_id, publish->qos == 2);
    }
}

static void note_drop(struct loop *loop, enum drop_reason reason)
{
    atomic_fetch_add_explicit(&loop->counters.dropped[reason], 1, memory_order_relaxed); /* publishers on other threads count here too */
}

static int encode_waiting(struct connection *to, const struct mqtt_publish *outgoing, size_t size)
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
    memcpy(to->waiting.data + head_at, &head, sizeof head);
    if (head_at == 0 && to->paused && to->pause != PAUSE_JOURNAL)
        to->retry = true; /* from now on it owes acknowledgements */
    return 0;
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
        note_drop(loop, queued > most ? DROP_QUEUE_FULL : DROP_MEMORY);
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

void deliver_local(struct loop *loop, struct connection *to, const struct mqtt_publish *publish, unsigned qos)
{
    if (to->closing || to->session.state != MQTT_SESSION_ACTIVE)
        return;
    struct mqtt_publish outgoing = *publish;
    outgoing.dup = outgoing.retain = false;
    outgoing.qos = (uint8_t)(qos < publish->qos ? qos : publish->qos);
    outgoing.packet_id = 0;
    size_t size = mqtt_publish_size(to->session.version, &outgoing);
    if (size > to->session.peer_packet_size_max) {
        note_drop(loop, DROP_PACKET_TOO_LARGE);
        return;
    }
    if (!has_room(loop, to, outgoing.qos, size))
        return;
    int error;
    if (outgoing.qos == 0) {
        error = mqtt_publish_encode(&to->out, to->session.version, &outgoing, NULL);
    } else {
        bool in_turn = to->waiting.length == to->waiting_at;
        outgoing.packet_id = in_turn ? mqtt_session_take_id(&to->session, outgoing.qos) : 0;
        error =
            outgoing.packet_id ? mqtt_publish_encode(&to->out, to->session.version, &outgoing, NULL) : encode_waiting(to, &outgoing, size);
    }
    if (error) {
        connection_close(to, CLOSE_SLOW, 0x97);
        return;
    }
    counter_add(&loop->counters.delivered[outgoing.qos], 1);
    const struct bus *bus = loop->bus;
    if (connection_memory(to) != to->counted_out || connection_queued(to) > bus->options.outgoing_soft_max || memory_level(bus))
        connection_note_queue(to); /* as seldom as may be: this is for every message */
    loop_mark_dirty(to);
}

void deliver_waiting(struct connection *connection)
{
    struct buffer *waiting = &connection->waiting;
    while (connection->waiting_at < waiting->length) {
        struct waiting_head head;
        memcpy(&head, waiting->data + connection->waiting_at, sizeof head);
        uint8_t *packet = waiting->data + connection->waiting_at + sizeof head;
        uint16_t id = mqtt_session_take_id(&connection->session, packet[0] >> 1 & 3); /* the flags of a PUBLISH */
        if (id == 0)
            break;
        packet[head.id_position] = (uint8_t)(id >> 8);
        packet[head.id_position + 1] = (uint8_t)id;
        if (buffer_append(&connection->out, packet, head.size)) {
            connection_close(connection, CLOSE_SLOW, 0x97);
            return;
        }
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

#define NO_LOOP UINT32_MAX

/* Sends the message to the subscribers of `match` that live on other loops, one piece of mail a loop. Returns a loop whose mail is full, or
 * NO_LOOP. */
static unsigned deliver_remote(struct bus *bus, const struct router_match *match, const struct mqtt_publish *publish, unsigned except)
{
    enum { TARGETS_A_MAIL = 512 };
    unsigned full = NO_LOOP;
    for (unsigned i = 0; i < bus->options.loop_count; i++) {
        if (i == except)
            continue;
        struct mail_target targets[TARGETS_A_MAIL];
        uint32_t count = 0;
        struct loop *to = &bus->loops[i];
        for (uint32_t s = 0; s <= match->count; s++) {
            if (count == TARGETS_A_MAIL || (s == match->count && count)) {
                int error = mail_deliver(to, publish, targets, count);
                if (atomic_load_explicit(&to->mail_bytes, memory_order_relaxed) > bus->options.mail_soft_max)
                    full = i;
                if (error)
                    atomic_fetch_add_explicit(&to->counters.dropped[error == ERR_LIMIT ? DROP_MAIL_FULL : DROP_NO_MEMORY], count,
                                              memory_order_relaxed);
                if (error)
                    DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus", "%u deliveries on %.*s were dropped: the receiving event loop is overloaded",
                                 count, (int)publish->topic.length, (const char *)publish->topic.data);
                count = 0;
            }
            if (s == match->count)
                break;
            const struct router_subscription *subscriber = &match->subscribers[s];
            if (subscriber->loop == i)
                targets[count++] = (struct mail_target){subscriber->connection, subscriber->generation, subscriber->qos};
        }
    }
    return full;
}

/* Whether a publish of QoS 1 or 2 has to wait; pauses its sender then. */
static bool must_wait(struct connection *from, const struct router_match *match)
{
    const struct loop *loop = from->loop;
    const struct bus *bus = loop->bus;
    if (journal_is_full(loop)) {
        loop_pause(from, PAUSE_JOURNAL, 0);
        return true;
    }
    bool owes = from->waiting.length > 0;
    bool full = memory_level(bus) > (owes ? MEMORY_FULL : MEMORY_PRESSED);
    for (uint32_t i = 0; match && i < match->count; i++) {
        const struct router_subscription *subscriber = &match->subscribers[i];
        if (!subscriber->qos)
            continue;
        if (subscriber->loop != loop->index &&
            atomic_load_explicit(&bus->loops[subscriber->loop].mail_bytes, memory_order_relaxed) > bus->options.mail_soft_max) {
            loop_pause(from, PAUSE_MAIL, subscriber->loop);
            return true;
        }
        if (full || atomic_load_explicit(&bus->loops[subscriber->loop].congested[subscriber->connection], memory_order_relaxed) > owes) {
            loop_pause(from, full ? PAUSE_MEMORY : PAUSE_SUBSCRIBER, full ? 0 : connection_key(subscriber->loop, subscriber->connection));
            return true;
        }
    }
    return false;
}

bool deliver_publish(struct connection *from, const struct mqtt_publish *publish, bool force)
{
    struct loop *loop = from->loop;
    struct bus *bus = loop->bus;
    struct router_match *match = router_match(bus->router, loop->cache, (const char *)publish->topic.data, publish->topic.length);
    if (publish->qos > 0 && !force && must_wait(from, match))
        return false;
    counter_add(&loop->counters.received[publish->qos], 1);
    enum queue_destination destination =
        match && match->user_set ? (enum queue_destination)match->user : choose_destination(bus, publish->topic);
    if (match && !match->user_set)
        router_match_set_user(match, destination);
    if (publish->qos > 0 || destination == QUEUE_CONSUMED)
        append(from, publish, destination);
    if (!match) {
        note_drop(loop, DROP_NO_MEMORY); /* who wanted it cannot be known */
        return true;
    }
    uint32_t local = 0;
    for (uint32_t i = 0; i < match->count; i++) {
        const struct router_subscription *subscriber = &match->subscribers[i];
        if (subscriber->loop != loop->index)
            continue;
        local++;
        struct connection *to = connection_find(loop, subscriber->connection, subscriber->generation);
        if (to && !(to == from && (subscriber->options & ROUTER_NO_LOCAL)))
            deliver_local(loop, to, publish, subscriber->qos);
    }
    unsigned full = local < match->count ? deliver_remote(bus, match, publish, loop->index) : NO_LOOP;
    if (full != NO_LOOP)
        loop_pause(from, PAUSE_MAIL, full);
    return true;
}

void bus_publish(struct bus *bus, const struct message *message)
{
    struct mqtt_publish publish = {
        .qos = message->flags & MESSAGE_QOS_MASK,
        .topic = {(const uint8_t *)message->topic, message->topic_length},
        .payload = {message->payload, message->payload_length},
        .properties_raw = {message->properties, message->properties_length},
    };
    pthread_mutex_lock(&bus->publish_lock);
    const struct router_match *match = router_match(bus->router, bus->publish_cache, message->topic, message->topic_length);
    if (match && match->count)
        deliver_remote(bus, match, &publish, NO_LOOP);
    pthread_mutex_unlock(&bus->publish_lock);
}
