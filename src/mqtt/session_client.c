/* What a client does that a server does not. NEW takes a CONNACK and nothing else. */
#include "mqtt/session_client.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "mqtt/session_parts.h"

enum { CONNECT_PROPERTIES_SIZE = 8 }; /* receive maximum and maximum packet size */

void mqtt_session_init_client(struct mqtt_session *session, const struct mqtt_session_limits *limits)
{
    mqtt_session_init(session, limits, 0);
    session->role = MQTT_ROLE_CLIENT;
    session->state = MQTT_SESSION_CLOSED;
    session->error = ERR_DISCONNECTED;
}

static int write_properties(const struct mqtt_session *session, const struct mqtt_connect *connect, struct buffer *properties)
{
    int error = buffer_append(properties, connect->properties.raw.data, connect->properties.raw.length);
    if (!error && session->limits.receive_maximum < UINT16_MAX)
        error = mqtt_property_u16(properties, MQTT_PROPERTY_RECEIVE_MAXIMUM, session->limits.receive_maximum);
    return error ? error : mqtt_property_u32(properties, MQTT_PROPERTY_MAXIMUM_PACKET_SIZE, session->limits.packet_size_max);
}

int mqtt_session_connect(struct mqtt_session *session, const struct mqtt_connect *connect, uint64_t now_ns, struct buffer *out)
{
    struct mqtt_connect packet = *connect;
    struct buffer properties;
    buffer_init(&properties, connect->properties.raw.length + CONNECT_PROPERTIES_SIZE);
    int error = connect->version == MQTT_VERSION_5_0 ? write_properties(session, connect, &properties) : 0;
    packet.properties.raw = (struct mqtt_slice){properties.data, (uint32_t)properties.length};
    if (!error)
        error = mqtt_connect_encode(out, &packet);
    buffer_fini(&properties);
    if (error)
        return error;
    session->state = MQTT_SESSION_NEW;
    session->accepted = false;
    session->version = connect->version;
    session->keep_alive_s = connect->keep_alive_s;
    session->last_packet_ns = session->last_sent_ns = now_ns;
    session->ping_sent_ns = 0;
    return 0;
}

void mqtt_session_disconnected(struct mqtt_session *session)
{
    session->state = MQTT_SESSION_CLOSED;
    session->error = ERR_DISCONNECTED;
    session->inbound_unacknowledged = session->inbound.count - session->inbound_recorded;
}

void mqtt_session_forget_sent(struct mqtt_session *session, uint16_t id)
{
    mqtt_id_map_fini(&session->outbound);
    memset(session->outstanding, 0, sizeof session->outstanding);
    session->outbound_unacknowledged = 0;
    mqtt_session_start_ids(session, id);
}

static void forget_all(struct mqtt_session *session)
{
    mqtt_id_map_fini(&session->inbound);
    session->inbound_unacknowledged = session->inbound_recorded = 0;
    mqtt_session_forget_sent(session, session->next_packet_id);
}

static int take_connack(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event)
{
    int error = mqtt_connack_decode(frame, session->version, &event->connack);
    if (error)
        return error;
    event->type = MQTT_EVENT_CONNACK;
    const struct mqtt_connack *connack = &event->connack;
    if (connack->reason) {
        session->state = MQTT_SESSION_CLOSED;
        session->error = ERR_DISCONNECTED;
        return 0;
    }
    session->state = MQTT_SESSION_ACTIVE;
    session->accepted = true;
    session->send_maximum = MQTT_SEND_WINDOW;
    session->peer_packet_size_max = UINT32_MAX;
    if (session->version == MQTT_VERSION_5_0) {
        if (connack->properties.present & UINT64_C(1) << MQTT_PROPERTY_SERVER_KEEP_ALIVE)
            session->keep_alive_s = connack->properties.server_keep_alive;
        if (connack->properties.receive_maximum < MQTT_SEND_WINDOW)
            session->send_maximum = connack->properties.receive_maximum;
        session->peer_packet_size_max = connack->properties.maximum_packet_size;
    }
    if (!connack->session_present)
        forget_all(session);
    return 0;
}

int session_client_take(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event)
{
    if (session->state == MQTT_SESSION_NEW)
        return take_connack(session, frame, event);
    int error;
    switch (frame->type) {
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
        event->type = frame->type == MQTT_SUBACK ? MQTT_EVENT_SUBACK : MQTT_EVENT_UNSUBACK;
        return mqtt_suback_decode(frame, session->version, &event->suback.packet_id, &event->suback.codes);
    case MQTT_PINGRESP:
        error = mqtt_empty_decode(frame);
        event->type = MQTT_EVENT_PONG;
        session->ping_sent_ns = 0;
        return error;
    default:
        return ERR_PROTOCOL; /* a second CONNACK, what only a client sends, or AUTH, for which no method was agreed */
    }
}

int session_client_disconnect(struct mqtt_session *session, struct mqtt_event *event)
{
    if (session->version != MQTT_VERSION_5_0)
        return ERR_PROTOCOL; /* in 3.1.1 only a client sends it */
    if (event->disconnect.properties.present & UINT64_C(1) << MQTT_PROPERTY_SESSION_EXPIRY)
        return ERR_PROTOCOL; /* [MQTT-3.14.2-2] */
    session->state = MQTT_SESSION_CLOSED;
    session->error = ERR_PROTOCOL; /* of whatever might still follow */
    event->type = MQTT_EVENT_DISCONNECT;
    return 0;
}

/* ---- keep alive ---- */

uint64_t mqtt_session_ping_due_ns(const struct mqtt_session *session)
{
    if (session->state != MQTT_SESSION_ACTIVE || session->keep_alive_s == 0 || session->ping_sent_ns)
        return UINT64_MAX;
    /* A fourth of it is left for the way. A server that says nothing is asked too: a dead connection is found while only it would send. */
    uint64_t quiet_ns = session->last_sent_ns < session->last_packet_ns ? session->last_sent_ns : session->last_packet_ns;
    return quiet_ns + session->keep_alive_s * NS_PER_S * 3 / 4;
}

int mqtt_session_ping(struct mqtt_session *session, uint64_t now_ns, struct buffer *out)
{
    int error = mqtt_empty_encode(out, MQTT_PINGREQ);
    if (!error)
        session->ping_sent_ns = session->last_sent_ns = now_ns;
    return error;
}

/* ---- what an owner has kept ---- */

int mqtt_session_restore_recorded(struct mqtt_session *session, uint16_t id)
{
    assert(mqtt_session_inbound(session, id) == MQTT_INBOUND_NONE);
    int error = mqtt_id_map_put(&session->inbound, id, MQTT_INBOUND_RECORDED);
    if (!error)
        session->inbound_recorded++;
    return error;
}

void mqtt_session_start_ids(struct mqtt_session *session, uint16_t id)
{
    assert(session->outbound_unacknowledged == 0 && id > 0);
    session->oldest_packet_id = session->next_packet_id = id;
}

bool mqtt_session_skip_ids(struct mqtt_session *session, uint64_t count)
{
    uint16_t next = id_after(session->next_packet_id, (uint32_t)(count % PACKET_ID_COUNT));
    if (session->outbound_unacknowledged == 0) {
        mqtt_session_start_ids(session, next);
        return true;
    }
    if (id_distance(session->oldest_packet_id, session->next_packet_id) + count > MQTT_SEND_WINDOW)
        return false;
    session->next_packet_id = next;
    return true;
}

void mqtt_session_restore_received(struct mqtt_session *session, uint16_t id)
{
    assert(mqtt_session_outbound(session, id) == MQTT_OUTBOUND_WAITS_PUBREC);
    mqtt_id_map_put(&session->outbound, id, MQTT_OUTBOUND_WAITS_PUBCOMP);
}
