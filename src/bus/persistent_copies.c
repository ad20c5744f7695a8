/* Retained messages on their way to a persistent session. They are in no stream that the follower reads: so the session keeps a copy of
 * each until it is received, and when the client comes back those that are not come first, as they were sent. What finds no room in
 * the half of bus.sessions_size_max that is theirs is sent all the same, and does not come again. */
#include "bus/persistent_parts.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* As it is in a record, integers little-endian; topic, properties and payload follow. */
struct __attribute__((packed)) recorded_message {
    uint64_t time_ns; /* wall clock when it was sent, from which its expiry counts */
    uint32_t topic_length, properties_length, payload_length;
};

static int encode(struct buffer *out, const struct mqtt_publish *outgoing, uint64_t time_ns)
{
    const struct recorded_message head = {.time_ns = htole64(time_ns),
                                          .topic_length = htole32(outgoing->topic.length),
                                          .properties_length = htole32(outgoing->properties_raw.length),
                                          .payload_length = htole32(outgoing->payload.length)};
    int error = buffer_append(out, &head, sizeof head);
    if (!error)
        error = buffer_append(out, outgoing->topic.data, outgoing->topic.length);
    if (!error && outgoing->properties_raw.length)
        error = buffer_append(out, outgoing->properties_raw.data, outgoing->properties_raw.length);
    if (!error && outgoing->payload.length)
        error = buffer_append(out, outgoing->payload.data, outgoing->payload.length);
    return error;
}

int persistent_note_copy(struct connection *connection, const struct mqtt_publish *outgoing, uint64_t *place)
{
    struct persistent *persistent = connection->persistent;
    const struct session_sent sent = {.packet_id = outgoing->packet_id, .content = SESSIONS_COPIED, .qos = outgoing->qos};
    struct buffer record;
    buffer_init(&record, SIZE_MAX);
    *place = 0;
    int error = encode(&record, outgoing, loop_wall_ns(connection->loop));
    if (!error)
        error = sessions_sent_copy(connection->loop->bus->sessions, persistent->session, &sent, record.data, record.length, place);
    buffer_fini(&record);
    if (error)
        return error == ERR_LIMIT ? persistent_note_id(connection, place) : error;
    persistent_noted(connection->loop);
    return persistent_put_sent(persistent, &sent, false, true);
}

/* Borrows from the copy. */
static int decode(const struct session_copy *copy, struct mqtt_publish *publish, uint64_t *time_ns)
{
    struct recorded_message head;
    if (!copy || copy->length < sizeof head)
        return ERR_CORRUPT;
    memcpy(&head, copy->bytes, sizeof head);
    const uint8_t *at = copy->bytes + sizeof head;
    uint32_t topic = le32toh(head.topic_length), properties = le32toh(head.properties_length), payload = le32toh(head.payload_length);
    if ((uint64_t)topic + properties + payload != copy->length - sizeof head)
        return ERR_CORRUPT;
    *publish = (struct mqtt_publish){
        .retain = true, .topic = {at, topic}, .properties_raw = {at + topic, properties}, .payload = {at + topic + properties, payload}};
    publish->has_message_expiry =
        mqtt_properties_expiry(publish->properties_raw, &publish->message_expiry_interval, &publish->message_expiry_at);
    *time_ns = le64toh(head.time_ns);
    return 0;
}

bool persistent_send_copies(struct connection *connection)
{
    static const struct router_subscription how = {.options = ROUTER_RETAIN_AS_PUBLISHED};
    struct persistent *persistent = connection->persistent;
    const struct mqtt_session *session = &connection->session;
    struct session_sent sent;
    while (persistent->unsent_copies && !connection->closing) {
        struct mqtt_publish publish;
        uint64_t time_ns;
        if (session->outbound_unacknowledged - persistent->unsent >= session->send_maximum)
            return false;
        persistent_take_copy(persistent, &sent);
        if (decode(sessions_copy(connection->loop->bus->sessions, persistent->session, sent.packet_id), &publish, &time_ns))
            persistent_give_up(connection, sent.packet_id);
        else
            (void)deliver_from_journal(connection, &publish, &how, NULL, &sent, time_ns);
    }
    return true;
}
