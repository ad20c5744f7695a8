/* PUBACK and PUBREC: they leave in the order in which their publishes arrived (MQTT-4.6.0-2), the good ones when the journal has the
 * message, the refusals behind those.
 *
 * The journal gives the good ones back in order. A refusal has nothing to wait for but the acknowledgements of what arrived before it: it
 * is queued with how many there are between it and the refusal in front of it. A client without refusals does not notice. */
#include "bus/persistent.h"

enum { ACKNOWLEDGEMENT_SIZE = CONNECTION_ACKNOWLEDGEMENT };

struct refusal {
    uint32_t ahead; /* acknowledgements that leave first, behind those of the refusal in front */
    uint16_t packet_id;
    uint8_t reason;
    uint8_t qos;
    const char *why; /* static; NULL: what the reason says */
};

bool acknowledge_put(struct connection *connection, enum mqtt_packet_type type, uint16_t packet_id)
{
    struct buffer *out = &connection->out;
    if (connection->closing || buffer_reserve(out, ACKNOWLEDGEMENT_SIZE))
        return false; /* a connection that cannot take four bytes is closed by its limits */
    uint8_t *at = out->data + out->length;
    at[0] = (uint8_t)(type << 4);
    at[1] = 2;
    at[2] = (uint8_t)(packet_id >> 8);
    at[3] = (uint8_t)packet_id;
    out->length += ACKNOWLEDGEMENT_SIZE;
    loop_mark_dirty(connection);
    return true;
}

static void note_sent(struct connection *connection, uint16_t packet_id, bool exactly_once)
{
    if (exactly_once)
        mqtt_session_recorded(&connection->session, packet_id);
    else
        mqtt_session_acknowledged(&connection->session);
}

static void put_refusal(struct connection *connection, const struct refusal *refusal)
{
    struct mqtt_session *session = &connection->session;
    struct mqtt_publish publish = {.qos = refusal->qos, .packet_id = refusal->packet_id};
    const char *text = mqtt_session_reason(session, refusal->reason, refusal->why);
    if (connection->closing)
        return;
    if (session->version != MQTT_VERSION_5_0) { /* it has no way to be told */
        if (acknowledge_put(connection, refusal->qos == 2 ? MQTT_PUBREC : MQTT_PUBACK, refusal->packet_id))
            note_sent(connection, refusal->packet_id, refusal->qos == 2);
        return;
    }
    if (mqtt_refusal_encode(&connection->out, refusal->qos == 2 ? MQTT_PUBREC : MQTT_PUBACK, refusal->packet_id, &refusal->reason, 1, text,
                            session->peer_packet_size_max))
        connection_close(connection, CLOSE_LIMIT, 0x97);
    mqtt_session_forget(session, &publish);
    loop_mark_dirty(connection);
}

/* An acknowledgement has left: refusals that waited for it alone leave too. */
static void release_refusals(struct connection *connection)
{
    struct buffer *refusals = &connection->refusals;
    struct refusal refusal;
    size_t done = 0;
    memcpy(&refusal, refusals->data, sizeof refusal);
    connection->refusals_ahead--;
    refusal.ahead--;
    memcpy(refusals->data, &refusal, sizeof refusal);
    while (done < refusals->length) {
        memcpy(&refusal, refusals->data + done, sizeof refusal);
        if (refusal.ahead)
            break;
        put_refusal(connection, &refusal);
        done += sizeof refusal;
    }
    if (done)
        buffer_consume(refusals, done);
    buffer_shrink(refusals, 0);
}

void connection_acknowledge(struct connection *connection, uint16_t packet_id, bool exactly_once)
{
    if (!acknowledge_put(connection, exactly_once ? MQTT_PUBREC : MQTT_PUBACK, packet_id))
        return;
    note_sent(connection, packet_id, exactly_once);
    if (exactly_once && connection->persistent)
        persistent_taken(connection, packet_id);
    if (connection->refusals.length)
        release_refusals(connection);
    if (connection->paused && connection->pause == PAUSE_QUOTA)
        connection->retry = true; /* there is room for one more on its way */
}

void connection_refuse(struct connection *connection, const struct mqtt_publish *publish, uint8_t reason, const char *why)
{
    size_t refusals = connection->refusals.length / sizeof(struct refusal);
    uint32_t ahead = connection->session.inbound_unacknowledged - 1 - (uint32_t)refusals;
    struct refusal refusal = {
        .ahead = ahead - connection->refusals_ahead, .packet_id = publish->packet_id, .reason = reason, .qos = publish->qos, .why = why};
    if (ahead == 0 && refusals == 0) {
        put_refusal(connection, &refusal);
        return;
    }
    if (buffer_append(&connection->refusals, &refusal, sizeof refusal))
        connection_close(connection, CLOSE_LIMIT, 0x97);
    else
        connection->refusals_ahead = ahead;
}
