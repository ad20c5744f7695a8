/* Structs to bytes. Every encoder knows its size first, reserves once and writes straight into the buffer, so a failure leaves
 * nothing half written. */
#include "mqtt/packet.h"

#include <assert.h>

#include "mqtt/wire.h"

/* Reserves a packet of `remaining` bytes behind its fixed header, writes the header, and gives the place of the body.
 * The caller fills exactly `remaining` bytes: the buffer's length already counts them. */
static int begin_packet(struct buffer *out, unsigned type, unsigned flags, size_t remaining, uint8_t **body)
{
    if (remaining > MQTT_REMAINING_LENGTH_MAX)
        return ERR_LIMIT;
    size_t total = 1 + wire_varint_size(remaining) + remaining;
    int error = wire_reserve(out, total);
    if (error)
        return error;
    uint8_t *at = out->data + out->length;
    *at++ = (uint8_t)(type << 4 | flags);
    *body = wire_put_varint(at, remaining);
    out->length += total;
    return 0;
}

/* ---- PUBLISH ---- */

static size_t publish_remaining(uint8_t version, const struct mqtt_publish *publish)
{
    size_t size = 2 + (size_t)publish->topic.length + publish->payload.length;
    if (publish->qos)
        size += 2;
    if (version == MQTT_VERSION_5_0)
        size += wire_varint_size(publish->properties_raw.length) + publish->properties_raw.length;
    return size;
}

size_t mqtt_publish_size(uint8_t version, const struct mqtt_publish *publish)
{
    size_t remaining = publish_remaining(version, publish);
    return 1 + wire_varint_size(remaining) + remaining;
}

int mqtt_publish_encode(struct buffer *out, uint8_t version, const struct mqtt_publish *publish, size_t *packet_id_position)
{
    assert(publish->qos <= 2);
    if (publish->topic.length > WIRE_STRING_LENGTH_MAX)
        return ERR_LIMIT;
    unsigned flags = (publish->dup ? 8u : 0u) | (unsigned)publish->qos << 1 | (publish->retain ? 1u : 0u);
    uint8_t *at;
    int error = begin_packet(out, MQTT_PUBLISH, flags, publish_remaining(version, publish), &at);
    if (error)
        return error;
    at = wire_put_binary(at, publish->topic);
    if (publish->qos) {
        if (packet_id_position)
            *packet_id_position = (size_t)(at - out->data);
        at = wire_put_u16(at, publish->packet_id);
    }
    if (version == MQTT_VERSION_5_0)
        at = wire_put_bytes(wire_put_varint(at, publish->properties_raw.length), publish->properties_raw);
    wire_put_bytes(at, publish->payload);
    return 0;
}

/* ---- CONNECT, CONNACK ---- */

static bool connect_strings_fit(const struct mqtt_connect *connect)
{
    return connect->client_id.length <= WIRE_STRING_LENGTH_MAX && connect->username.length <= WIRE_STRING_LENGTH_MAX &&
           connect->password.length <= WIRE_STRING_LENGTH_MAX && connect->will_topic.length <= WIRE_STRING_LENGTH_MAX &&
           connect->will_payload.length <= WIRE_STRING_LENGTH_MAX;
}

static size_t properties_size(struct mqtt_slice raw)
{
    return wire_varint_size(raw.length) + raw.length;
}

static uint8_t *put_properties(uint8_t *at, struct mqtt_slice raw)
{
    return wire_put_bytes(wire_put_varint(at, raw.length), raw);
}

int mqtt_connect_encode(struct buffer *out, const struct mqtt_connect *connect)
{
    bool five = connect->version == MQTT_VERSION_5_0;
    if (!connect_strings_fit(connect))
        return ERR_LIMIT;
    size_t remaining = 10 + 2 + (size_t)connect->client_id.length;
    if (five)
        remaining += properties_size(connect->properties.raw);
    if (connect->will) {
        remaining += 4 + (size_t)connect->will_topic.length + connect->will_payload.length;
        if (five)
            remaining += properties_size(connect->will_properties.raw);
    }
    if (connect->has_username)
        remaining += 2 + (size_t)connect->username.length;
    if (connect->has_password)
        remaining += 2 + (size_t)connect->password.length;
    uint8_t *at;
    int error = begin_packet(out, MQTT_CONNECT, 0, remaining, &at);
    if (error)
        return error;
    at = wire_put_binary(at, (struct mqtt_slice){(const uint8_t *)"MQTT", 4});
    *at++ = connect->version;
    unsigned will = connect->will ? 4u | (unsigned)connect->will_qos << 3 | (connect->will_retain ? 0x20u : 0u) : 0u;
    *at++ =
        (uint8_t)((connect->has_username ? 0x80u : 0u) | (connect->has_password ? 0x40u : 0u) | will | (connect->clean_start ? 2u : 0u));
    at = wire_put_u16(at, connect->keep_alive_s);
    if (five)
        at = put_properties(at, connect->properties.raw);
    at = wire_put_binary(at, connect->client_id);
    if (connect->will) {
        if (five)
            at = put_properties(at, connect->will_properties.raw);
        at = wire_put_binary(wire_put_binary(at, connect->will_topic), connect->will_payload);
    }
    if (connect->has_username)
        at = wire_put_binary(at, connect->username);
    if (connect->has_password)
        wire_put_binary(at, connect->password);
    return 0;
}

/* 3.1.1 knows five refusals (its table 3.1); the nearest to each reason code. */
static uint8_t connack_return_code(uint8_t reason)
{
    if (reason < 0x80)
        return reason;
    switch (reason) {
    case 0x84: /* unsupported protocol version */
        return 1;
    case 0x85: /* client identifier not valid */
        return 2;
    case 0x86: /* bad user name or password */
        return 4;
    case 0x87: /* not authorized */
    case 0x8a: /* banned */
    case 0x8c: /* bad authentication method */
        return 5;
    default: /* server unavailable */
        return 3;
    }
}

int mqtt_connack_encode(struct buffer *out, uint8_t version, bool session_present, uint8_t reason, struct mqtt_slice properties)
{
    bool five = version == MQTT_VERSION_5_0;
    uint8_t *at;
    int error = begin_packet(out, MQTT_CONNACK, 0, 2 + (five ? properties_size(properties) : 0), &at);
    if (error)
        return error;
    *at++ = session_present;
    *at++ = five ? reason : connack_return_code(reason);
    if (five)
        put_properties(at, properties);
    return 0;
}

/* ---- acknowledgements ---- */

int mqtt_ack_encode(struct buffer *out, uint8_t version, enum mqtt_packet_type type, uint16_t packet_id, uint8_t reason)
{
    assert(type >= MQTT_PUBACK && type <= MQTT_PUBCOMP);
    bool with_reason = version == MQTT_VERSION_5_0 && reason;
    uint8_t *at;
    int error = begin_packet(out, type, type == MQTT_PUBREL ? 2 : 0, with_reason ? 3 : 2, &at);
    if (error)
        return error;
    at = wire_put_u16(at, packet_id);
    if (with_reason)
        *at = reason;
    return 0;
}

/* ---- SUBSCRIBE, UNSUBSCRIBE and their answers ---- */

int mqtt_subscribe_encode(struct buffer *out, uint8_t version, uint16_t packet_id, const struct mqtt_subscription *entries, size_t count)
{
    assert(count > 0);
    bool five = version == MQTT_VERSION_5_0;
    size_t remaining = 2 + (five ? 1u : 0u);
    for (size_t i = 0; i < count; i++) {
        if (entries[i].filter.length > WIRE_STRING_LENGTH_MAX)
            return ERR_LIMIT;
        remaining += 3 + (size_t)entries[i].filter.length;
    }
    uint8_t *at;
    int error = begin_packet(out, MQTT_SUBSCRIBE, 2, remaining, &at);
    if (error)
        return error;
    at = wire_put_u16(at, packet_id);
    if (five)
        *at++ = 0;
    for (size_t i = 0; i < count; i++) {
        const struct mqtt_subscription *entry = &entries[i];
        unsigned options = (entry->no_local ? 4u : 0u) | (entry->retain_as_published ? 8u : 0u) | (unsigned)entry->retain_handling << 4;
        at = wire_put_binary(at, entry->filter);
        *at++ = (uint8_t)(entry->qos | (five ? options : 0u));
    }
    return 0;
}

int mqtt_unsubscribe_encode(struct buffer *out, uint8_t version, uint16_t packet_id, const struct mqtt_slice *filters, size_t count)
{
    assert(count > 0);
    bool five = version == MQTT_VERSION_5_0;
    size_t remaining = 2 + (five ? 1u : 0u);
    for (size_t i = 0; i < count; i++) {
        if (filters[i].length > WIRE_STRING_LENGTH_MAX)
            return ERR_LIMIT;
        remaining += 2 + (size_t)filters[i].length;
    }
    uint8_t *at;
    int error = begin_packet(out, MQTT_UNSUBSCRIBE, 2, remaining, &at);
    if (error)
        return error;
    at = wire_put_u16(at, packet_id);
    if (five)
        *at++ = 0;
    for (size_t i = 0; i < count; i++)
        at = wire_put_binary(at, filters[i]);
    return 0;
}

size_t mqtt_suback_size(uint8_t version, size_t count)
{
    size_t remaining = 2 + (version == MQTT_VERSION_5_0 ? 1u : 0u) + count;
    return 1 + wire_varint_size(remaining) + remaining;
}

int mqtt_suback_encode(struct buffer *out, uint8_t version, uint16_t packet_id, const uint8_t *codes, size_t count)
{
    bool five = version == MQTT_VERSION_5_0;
    uint8_t *at;
    int error = begin_packet(out, MQTT_SUBACK, 0, 2 + (five ? 1u : 0u) + count, &at);
    if (error)
        return error;
    at = wire_put_u16(at, packet_id);
    if (five)
        *at++ = 0;
    for (size_t i = 0; i < count; i++)
        *at++ = !five && codes[i] > 2 ? 0x80 : codes[i];
    return 0;
}

int mqtt_unsuback_encode(struct buffer *out, uint8_t version, uint16_t packet_id, const uint8_t *codes, size_t count)
{
    bool five = version == MQTT_VERSION_5_0;
    uint8_t *at;
    int error = begin_packet(out, MQTT_UNSUBACK, 0, 2 + (five ? 1 + count : 0), &at);
    if (error)
        return error;
    at = wire_put_u16(at, packet_id);
    if (five) {
        *at++ = 0;
        memcpy(at, codes, count);
    }
    return 0;
}

/* ---- the rest ---- */

int mqtt_empty_encode(struct buffer *out, enum mqtt_packet_type type)
{
    assert(type == MQTT_PINGREQ || type == MQTT_PINGRESP);
    uint8_t *at;
    return begin_packet(out, type, 0, 0, &at);
}

int mqtt_disconnect_encode(struct buffer *out, uint8_t version, uint8_t reason)
{
    bool with_reason = version == MQTT_VERSION_5_0 && reason;
    uint8_t *at;
    int error = begin_packet(out, MQTT_DISCONNECT, 0, with_reason ? 1 : 0, &at);
    if (!error && with_reason)
        *at = reason;
    return error;
}
