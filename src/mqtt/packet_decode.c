/* Bytes to structs: the fixed header and the packets of a running session. CONNECT and CONNACK are in connect_decode.c,
 * SUBSCRIBE and its kin in subscribe_decode.c.
 *
 * mqtt_frame_decode and mqtt_publish_decode run once a message, hence no big struct is set up on their way. */
#include "mqtt/packet.h"

#include "mqtt/topic.h"
#include "mqtt/wire.h"

/* ---- framing ---- */

static bool flags_valid(unsigned type, unsigned flags)
{
    switch (type) {
    case 0:
        return false;
    case MQTT_PUBLISH:
        return true;
    case MQTT_PUBREL:
    case MQTT_SUBSCRIBE:
    case MQTT_UNSUBSCRIBE:
        return flags == 2;
    default:
        return flags == 0;
    }
}

int mqtt_frame_decode(const uint8_t *bytes, size_t length, uint32_t packet_size_max, struct mqtt_frame *frame)
{
    frame->total_size = 0;
    if (length == 0)
        return ERR_TRUNCATED;
    unsigned type = bytes[0] >> 4, flags = bytes[0] & 15;
    if (!flags_valid(type, flags))
        return ERR_MALFORMED_PACKET;
    uint32_t body_size = 0, header_size = 1;
    for (unsigned shift = 0;; shift += 7) {
        if (shift == 28)
            return ERR_MALFORMED_PACKET;
        if (header_size == length)
            return ERR_TRUNCATED;
        uint8_t byte = bytes[header_size++];
        body_size |= (uint32_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            break;
    }
    uint32_t total_size = header_size + body_size;
    if (total_size > packet_size_max)
        return ERR_PACKET_TOO_LARGE;
    frame->total_size = total_size;
    if (total_size > length)
        return ERR_TRUNCATED;
    frame->type = (uint8_t)type;
    frame->flags = (uint8_t)flags;
    frame->header_size = header_size;
    frame->body = bytes + header_size;
    frame->body_size = body_size;
    return 0;
}

/* ---- reason codes ---- */

bool wire_reason_valid(unsigned type, uint8_t reason)
{
    static const uint8_t connack[] = {0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a,
                                      0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f};
    static const uint8_t puback[] = {0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99};
    static const uint8_t pubrel[] = {0x92};
    static const uint8_t suback[] = {0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2};
    static const uint8_t unsuback[] = {0x11, 0x80, 0x83, 0x87, 0x8f, 0x91};
    static const uint8_t disconnect[] = {0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94,
                                         0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2};
    static const uint8_t auth[] = {0x18, 0x19};
    static const struct {
        const uint8_t *codes;
        size_t count;
    } valid[] = {
        [MQTT_CONNACK] = {connack, sizeof connack},
        [MQTT_PUBACK] = {puback, sizeof puback},
        [MQTT_PUBREC] = {puback, sizeof puback},
        [MQTT_PUBREL] = {pubrel, sizeof pubrel},
        [MQTT_PUBCOMP] = {pubrel, sizeof pubrel},
        [MQTT_SUBACK] = {suback, sizeof suback},
        [MQTT_UNSUBACK] = {unsuback, sizeof unsuback},
        [MQTT_DISCONNECT] = {disconnect, sizeof disconnect},
        [MQTT_AUTH] = {auth, sizeof auth},
    };
    if (reason == 0)
        return true;
    return valid[type].codes && memchr(valid[type].codes, reason, valid[type].count);
}

/* ---- PUBLISH ---- */

/* Checks every property and takes what a session acts on. */
static int read_publish_properties(struct wire_reader *reader, struct mqtt_publish *publish)
{
    uint32_t length;
    if (!wire_read_varint(reader, &length) || !wire_read_bytes(reader, length, &publish->properties_raw))
        return ERR_MALFORMED_PACKET;
    struct wire_reader set = wire_reader_of(publish->properties_raw.data, length);
    uint64_t present = 0;
    while (wire_left(&set)) {
        struct wire_property property;
        int error = wire_property_next(&set, MQTT_PUBLISH, &present, &property);
        if (error)
            return error;
        if (property.identifier == MQTT_PROPERTY_TOPIC_ALIAS)
            publish->topic_alias = (uint16_t)property.number;
        else if (property.identifier == MQTT_PROPERTY_MESSAGE_EXPIRY) {
            publish->message_expiry_interval = property.number;
            publish->message_expiry_at = (uint32_t)(set.at - publish->properties_raw.data) - 4;
        }
    }
    publish->has_message_expiry = present & (UINT64_C(1) << MQTT_PROPERTY_MESSAGE_EXPIRY);
    publish->has_subscription_identifier = present & (UINT64_C(1) << MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER);
    return 0;
}

static int check_topic(const struct mqtt_publish *publish, uint8_t version)
{
    if (publish->topic.length == 0 && version == MQTT_VERSION_5_0)
        return publish->topic_alias ? 0 : ERR_PROTOCOL;
    if (mqtt_topic_name_valid((const char *)publish->topic.data, publish->topic.length))
        return 0;
    return wire_text_valid(publish->topic) ? ERR_TOPIC_NAME : ERR_MALFORMED_PACKET;
}

int mqtt_publish_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_publish *out)
{
    struct mqtt_publish publish = {0};
    publish.qos = frame->flags >> 1 & 3;
    publish.dup = frame->flags & 8;
    publish.retain = frame->flags & 1;
    if (publish.qos == 3 || (publish.dup && publish.qos == 0))
        return ERR_MALFORMED_PACKET;
    struct wire_reader reader = wire_reader_of(frame->body, frame->body_size);
    if (!wire_read_binary(&reader, &publish.topic))
        return ERR_MALFORMED_PACKET;
    if (publish.qos > 0) {
        if (!wire_read_u16(&reader, &publish.packet_id))
            return ERR_MALFORMED_PACKET;
        if (publish.packet_id == 0)
            return ERR_PROTOCOL;
    }
    if (version == MQTT_VERSION_5_0) {
        if (wire_left(&reader) && *reader.at == 0) {
            reader.at++;
        } else {
            int error = read_publish_properties(&reader, &publish);
            if (error)
                return error;
        }
    }
    int error = check_topic(&publish, version);
    if (error)
        return error;
    publish.payload = (struct mqtt_slice){reader.at, (uint32_t)wire_left(&reader)};
    *out = publish;
    return 0;
}

/* ---- acknowledgements, DISCONNECT, AUTH and packets without a body ---- */

/* Reads and drops a property set; packets with a short form may leave it out. */
static int check_properties(struct wire_reader *reader, unsigned type)
{
    if (wire_left(reader) == 0)
        return 0;
    struct mqtt_properties properties;
    int error = wire_read_properties(reader, type, &properties);
    if (error)
        return error;
    return wire_left(reader) ? ERR_MALFORMED_PACKET : 0;
}

int mqtt_ack_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_ack *out)
{
    struct wire_reader reader = wire_reader_of(frame->body, frame->body_size);
    struct mqtt_ack ack = {0};
    if (!wire_read_u16(&reader, &ack.packet_id))
        return ERR_MALFORMED_PACKET;
    if (ack.packet_id == 0)
        return ERR_PROTOCOL;
    if (wire_read_u8(&reader, &ack.reason)) {
        if (version != MQTT_VERSION_5_0)
            return ERR_MALFORMED_PACKET;
        if (!wire_reason_valid(frame->type, ack.reason))
            return ERR_PROTOCOL;
        int error = check_properties(&reader, frame->type);
        if (error)
            return error;
    }
    *out = ack;
    return 0;
}

/* DISCONNECT and AUTH have one shape: a reason and properties, either left out at the end. */
static int read_reason_and_properties(const struct mqtt_frame *frame, uint8_t *reason, struct mqtt_properties *properties)
{
    struct wire_reader reader = wire_reader_of(frame->body, frame->body_size);
    *reason = 0;
    wire_properties_default(properties);
    if (!wire_read_u8(&reader, reason))
        return 0;
    if (!wire_reason_valid(frame->type, *reason))
        return ERR_PROTOCOL;
    if (wire_left(&reader) == 0)
        return 0;
    int error = wire_read_properties(&reader, frame->type, properties);
    if (error)
        return error;
    return wire_left(&reader) ? ERR_MALFORMED_PACKET : 0;
}

int mqtt_disconnect_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_disconnect *out)
{
    if (version != MQTT_VERSION_5_0 && frame->body_size)
        return ERR_MALFORMED_PACKET;
    struct mqtt_disconnect disconnect;
    int error = read_reason_and_properties(frame, &disconnect.reason, &disconnect.properties);
    if (error)
        return error;
    *out = disconnect;
    return 0;
}

int mqtt_auth_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_auth *out)
{
    if (version != MQTT_VERSION_5_0)
        return ERR_MALFORMED_PACKET; /* packet type 15 is reserved in 3.1.1 */
    struct mqtt_auth auth;
    int error = read_reason_and_properties(frame, &auth.reason, &auth.properties);
    if (error)
        return error;
    bool method = auth.properties.present & (UINT64_C(1) << MQTT_PROPERTY_AUTHENTICATION_METHOD);
    if (!method && frame->body_size)
        return ERR_PROTOCOL;
    *out = auth;
    return 0;
}

int mqtt_empty_decode(const struct mqtt_frame *frame)
{
    return frame->body_size ? ERR_MALFORMED_PACKET : 0;
}
