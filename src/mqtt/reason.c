/* What refuses in MQTT 5: the codes in words, and the packets that carry them with a reason string. */
#include "mqtt/packet.h"

#include "mqtt/wire.h"

const char *mqtt_reason_text(uint8_t reason)
{
    switch (reason) {
    case 0x04:
        return "disconnect with will message";
    case 0x10:
        return "no matching subscribers";
    case 0x11:
        return "no subscription existed";
    case 0x81:
        return "malformed packet";
    case 0x82:
        return "protocol error";
    case 0x83:
        return "the server does not accept it";
    case 0x84:
        return "unsupported protocol version";
    case 0x85:
        return "client identifier not valid";
    case 0x86:
        return "bad user name or password";
    case 0x87:
        return "not authorized";
    case 0x88:
        return "server unavailable";
    case 0x89:
        return "server busy";
    case 0x8a:
        return "banned";
    case 0x8b:
        return "the server is shutting down";
    case 0x8c:
        return "authentication method not supported";
    case 0x8d:
        return "nothing was heard for one and a half times the keep alive";
    case 0x8e:
        return "another connection has taken the client identifier";
    case 0x8f:
        return "topic filter invalid";
    case 0x90:
        return "topic name invalid";
    case 0x91:
        return "packet identifier in use";
    case 0x92:
        return "packet identifier not found";
    case 0x93:
        return "receive maximum exceeded";
    case 0x94:
        return "topic alias invalid";
    case 0x95:
        return "packet too large";
    case 0x96:
        return "message rate too high";
    case 0x97:
        return "quota exceeded";
    case 0x98:
        return "administrative action";
    case 0x99:
        return "payload format invalid";
    case 0x9a:
        return "retain not supported";
    case 0x9b:
        return "QoS not supported";
    case 0x9c:
        return "use another server";
    case 0x9d:
        return "server moved";
    case 0x9e:
        return "shared subscriptions not supported";
    case 0x9f:
        return "connection rate exceeded";
    case 0xa0:
        return "maximum connect time";
    case 0xa1:
        return "subscription identifiers not supported";
    case 0xa2:
        return "wildcard subscriptions not supported";
    default:
        return reason < 0x80 ? "success" : "unspecified error";
    }
}

static bool has_packet_id(enum mqtt_packet_type type)
{
    return type != MQTT_CONNACK && type != MQTT_DISCONNECT;
}

/* SUBACK and UNSUBACK have their codes last. */
static bool codes_last(enum mqtt_packet_type type)
{
    return type == MQTT_SUBACK || type == MQTT_UNSUBACK;
}

/* Those that need no properties, not even their length. */
static bool may_end_with_code(enum mqtt_packet_type type)
{
    return type == MQTT_PUBACK || type == MQTT_PUBREC || type == MQTT_DISCONNECT;
}

static uint8_t *put_text(uint8_t *at, struct mqtt_slice why)
{
    if (why.length == 0) {
        *at++ = 0;
        return at;
    }
    at = wire_put_varint(at, 3 + (size_t)why.length);
    *at++ = MQTT_PROPERTY_REASON_STRING;
    return wire_put_binary(at, why);
}

int mqtt_refusal_encode(struct buffer *out, enum mqtt_packet_type type, uint16_t packet_id, const uint8_t *codes, size_t count,
                        const char *text, uint32_t packet_size_max)
{
    struct mqtt_slice why = {(const uint8_t *)text, text ? (uint32_t)strlen(text) : 0};
    size_t fixed = (has_packet_id(type) ? 2u : 0u) + (type == MQTT_CONNACK ? 1u : 0u) + count;
    size_t without = fixed + (may_end_with_code(type) ? 0 : 1), remaining = without;
    if (why.length)
        remaining = fixed + wire_varint_size(3 + (size_t)why.length) + 3 + why.length;
    if (1 + wire_varint_size(remaining) + remaining > packet_size_max) {
        why.length = 0;
        remaining = without;
    }
    size_t total = 1 + wire_varint_size(remaining) + remaining;
    if (total > packet_size_max || remaining > MQTT_REMAINING_LENGTH_MAX)
        return ERR_LIMIT;
    int error = wire_reserve(out, total);
    if (error)
        return error;
    uint8_t *at = out->data + out->length;
    *at++ = (uint8_t)(type << 4);
    at = wire_put_varint(at, remaining);
    if (type == MQTT_CONNACK)
        *at++ = 0; /* no session is present where a connection is refused */
    if (has_packet_id(type))
        at = wire_put_u16(at, packet_id);
    if (codes_last(type))
        at = put_text(at, why);
    memcpy(at, codes, count);
    at += count;
    if (!codes_last(type) && remaining != fixed)
        put_text(at, why);
    out->length += total;
    return 0;
}
