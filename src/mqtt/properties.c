/* Properties of MQTT 5 (section 2.2.2): one table says of each identifier its type, where it may stand and what is forbidden;
 * reading, storing and walking all follow that table. */
#include <assert.h>
#include <stddef.h>

#include "mqtt/topic.h"
#include "mqtt/wire.h"

enum property_kind { KIND_UNKNOWN, KIND_FLAG, KIND_U16, KIND_U32, KIND_VARINT, KIND_TEXT, KIND_TOPIC, KIND_BINARY, KIND_PAIR };

enum { PROPERTY_IDENTIFIER_MAX = MQTT_PROPERTY_SHARED_AVAILABLE, PROPERTY_OFFSET_NONE = 0xffff };

struct property_rule {
    uint8_t kind;    /* enum property_kind */
    uint8_t least;   /* smallest value of a number */
    uint16_t places; /* bit per packet type; bit WIRE_WILL_PROPERTIES */
    uint16_t offset; /* of its field in struct mqtt_properties */
    uint8_t may_repeat;
};

#define IN(type)         (1u << (type))
#define WILL             IN(WIRE_WILL_PROPERTIES)
#define FIELD(name)      offsetof(struct mqtt_properties, name)
#define ACKNOWLEDGEMENTS (IN(MQTT_PUBACK) | IN(MQTT_PUBREC) | IN(MQTT_PUBREL) | IN(MQTT_PUBCOMP) | IN(MQTT_SUBACK) | IN(MQTT_UNSUBACK))
#define EVERYWHERE                                                                                                                         \
    (WILL | ACKNOWLEDGEMENTS | IN(MQTT_CONNECT) | IN(MQTT_CONNACK) | IN(MQTT_PUBLISH) | IN(MQTT_SUBSCRIBE) | IN(MQTT_UNSUBSCRIBE) |        \
     IN(MQTT_DISCONNECT) | IN(MQTT_AUTH))

static const struct property_rule rules[PROPERTY_IDENTIFIER_MAX + 1] = {
    [MQTT_PROPERTY_PAYLOAD_FORMAT] = {KIND_FLAG, 0, IN(MQTT_PUBLISH) | WILL, FIELD(payload_format), 0},
    [MQTT_PROPERTY_MESSAGE_EXPIRY] = {KIND_U32, 0, IN(MQTT_PUBLISH) | WILL, FIELD(message_expiry_interval), 0},
    [MQTT_PROPERTY_CONTENT_TYPE] = {KIND_TEXT, 0, IN(MQTT_PUBLISH) | WILL, FIELD(content_type), 0},
    [MQTT_PROPERTY_RESPONSE_TOPIC] = {KIND_TOPIC, 0, IN(MQTT_PUBLISH) | WILL, FIELD(response_topic), 0},
    [MQTT_PROPERTY_CORRELATION_DATA] = {KIND_BINARY, 0, IN(MQTT_PUBLISH) | WILL, FIELD(correlation_data), 0},
    [MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER] = {KIND_VARINT, 1, IN(MQTT_PUBLISH) | IN(MQTT_SUBSCRIBE), FIELD(subscription_identifier), 0},
    [MQTT_PROPERTY_SESSION_EXPIRY] = {KIND_U32, 0, IN(MQTT_CONNECT) | IN(MQTT_CONNACK) | IN(MQTT_DISCONNECT),
                                      FIELD(session_expiry_interval), 0},
    [MQTT_PROPERTY_ASSIGNED_CLIENT_IDENTIFIER] = {KIND_TEXT, 0, IN(MQTT_CONNACK), FIELD(assigned_client_identifier), 0},
    [MQTT_PROPERTY_SERVER_KEEP_ALIVE] = {KIND_U16, 0, IN(MQTT_CONNACK), FIELD(server_keep_alive), 0},
    [MQTT_PROPERTY_AUTHENTICATION_METHOD] = {KIND_TEXT, 0, IN(MQTT_CONNECT) | IN(MQTT_CONNACK) | IN(MQTT_AUTH),
                                             FIELD(authentication_method), 0},
    [MQTT_PROPERTY_AUTHENTICATION_DATA] = {KIND_BINARY, 0, IN(MQTT_CONNECT) | IN(MQTT_CONNACK) | IN(MQTT_AUTH), FIELD(authentication_data),
                                           0},
    [MQTT_PROPERTY_REQUEST_PROBLEM_INFORMATION] = {KIND_FLAG, 0, IN(MQTT_CONNECT), FIELD(request_problem_information), 0},
    [MQTT_PROPERTY_WILL_DELAY] = {KIND_U32, 0, WILL, FIELD(will_delay_interval), 0},
    [MQTT_PROPERTY_REQUEST_RESPONSE_INFORMATION] = {KIND_FLAG, 0, IN(MQTT_CONNECT), FIELD(request_response_information), 0},
    [MQTT_PROPERTY_RESPONSE_INFORMATION] = {KIND_TEXT, 0, IN(MQTT_CONNACK), FIELD(response_information), 0},
    [MQTT_PROPERTY_SERVER_REFERENCE] = {KIND_TEXT, 0, IN(MQTT_CONNACK) | IN(MQTT_DISCONNECT), FIELD(server_reference), 0},
    [MQTT_PROPERTY_REASON_STRING] = {KIND_TEXT, 0, IN(MQTT_CONNACK) | ACKNOWLEDGEMENTS | IN(MQTT_DISCONNECT) | IN(MQTT_AUTH),
                                     FIELD(reason_string), 0},
    [MQTT_PROPERTY_RECEIVE_MAXIMUM] = {KIND_U16, 1, IN(MQTT_CONNECT) | IN(MQTT_CONNACK), FIELD(receive_maximum), 0},
    [MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM] = {KIND_U16, 0, IN(MQTT_CONNECT) | IN(MQTT_CONNACK), FIELD(topic_alias_maximum), 0},
    [MQTT_PROPERTY_TOPIC_ALIAS] = {KIND_U16, 1, IN(MQTT_PUBLISH), FIELD(topic_alias), 0},
    [MQTT_PROPERTY_MAXIMUM_QOS] = {KIND_FLAG, 0, IN(MQTT_CONNACK), FIELD(maximum_qos), 0},
    [MQTT_PROPERTY_RETAIN_AVAILABLE] = {KIND_FLAG, 0, IN(MQTT_CONNACK), FIELD(retain_available), 0},
    [MQTT_PROPERTY_USER] = {KIND_PAIR, 0, EVERYWHERE, PROPERTY_OFFSET_NONE, 1},
    [MQTT_PROPERTY_MAXIMUM_PACKET_SIZE] = {KIND_U32, 1, IN(MQTT_CONNECT) | IN(MQTT_CONNACK), FIELD(maximum_packet_size), 0},
    [MQTT_PROPERTY_WILDCARD_AVAILABLE] = {KIND_FLAG, 0, IN(MQTT_CONNACK), FIELD(wildcard_subscription_available), 0},
    [MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER_AVAILABLE] = {KIND_FLAG, 0, IN(MQTT_CONNACK), FIELD(subscription_identifier_available), 0},
    [MQTT_PROPERTY_SHARED_AVAILABLE] = {KIND_FLAG, 0, IN(MQTT_CONNACK), FIELD(shared_subscription_available), 0},
};

/* ---- reading ---- */

static int read_number(struct wire_reader *reader, const struct property_rule *rule, uint32_t *number)
{
    uint8_t byte;
    uint16_t half;
    switch (rule->kind) {
    case KIND_FLAG:
        if (!wire_read_u8(reader, &byte))
            return ERR_MALFORMED_PACKET;
        *number = byte;
        return byte > 1 ? ERR_PROTOCOL : 0;
    case KIND_U16:
        if (!wire_read_u16(reader, &half))
            return ERR_MALFORMED_PACKET;
        *number = half;
        break;
    case KIND_U32:
        if (!wire_read_u32(reader, number))
            return ERR_MALFORMED_PACKET;
        break;
    default:
        if (!wire_read_varint(reader, number))
            return ERR_MALFORMED_PACKET;
        break;
    }
    return *number < rule->least ? ERR_PROTOCOL : 0;
}

static int read_value(struct wire_reader *reader, const struct property_rule *rule, struct wire_property *out)
{
    bool complete;
    switch (rule->kind) {
    case KIND_TEXT:
    case KIND_TOPIC:
        complete = wire_read_text(reader, &out->value);
        break;
    case KIND_BINARY:
        complete = wire_read_binary(reader, &out->value);
        break;
    case KIND_PAIR:
        complete = wire_read_text(reader, &out->value) && wire_read_text(reader, &out->pair_value);
        break;
    default:
        return read_number(reader, rule, &out->number);
    }
    if (!complete)
        return ERR_MALFORMED_PACKET;
    if (rule->kind == KIND_TOPIC && !mqtt_topic_name_valid((const char *)out->value.data, out->value.length))
        return ERR_TOPIC_NAME;
    return 0;
}

int wire_property_next(struct wire_reader *reader, unsigned place, uint64_t *present, struct wire_property *out)
{
    uint32_t identifier;
    if (!wire_read_varint(reader, &identifier) || identifier > PROPERTY_IDENTIFIER_MAX)
        return ERR_MALFORMED_PACKET;
    const struct property_rule *rule = &rules[identifier];
    if (!(rule->places & IN(place)))
        return ERR_MALFORMED_PACKET;
    uint64_t bit = UINT64_C(1) << identifier;
    /* A server sends one subscription identifier for each of the client's subscriptions that a message matches. */
    bool may_repeat = rule->may_repeat || (identifier == MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER && place == MQTT_PUBLISH);
    if ((*present & bit) && !may_repeat)
        return ERR_PROTOCOL;
    int error = read_value(reader, rule, out);
    if (error)
        return identifier == MQTT_PROPERTY_TOPIC_ALIAS && error == ERR_PROTOCOL ? ERR_TOPIC_ALIAS : error;
    *present |= bit;
    out->identifier = (uint8_t)identifier;
    return 0;
}

static void store(struct mqtt_properties *properties, const struct wire_property *property)
{
    const struct property_rule *rule = &rules[property->identifier];
    if (rule->offset == PROPERTY_OFFSET_NONE)
        return;
    void *field = (char *)properties + rule->offset;
    uint8_t byte = (uint8_t)property->number;
    uint16_t half = (uint16_t)property->number;
    switch (rule->kind) {
    case KIND_FLAG:
        memcpy(field, &byte, sizeof byte);
        break;
    case KIND_U16:
        memcpy(field, &half, sizeof half);
        break;
    case KIND_U32:
    case KIND_VARINT:
        memcpy(field, &property->number, sizeof property->number);
        break;
    default:
        memcpy(field, &property->value, sizeof property->value);
        break;
    }
}

void wire_properties_default(struct mqtt_properties *out)
{
    *out = (struct mqtt_properties){.request_problem_information = 1,
                                    .maximum_qos = 2,
                                    .retain_available = 1,
                                    .wildcard_subscription_available = 1,
                                    .subscription_identifier_available = 1,
                                    .shared_subscription_available = 1,
                                    .receive_maximum = UINT16_MAX,
                                    .maximum_packet_size = UINT32_MAX};
}

int wire_properties_decode(struct mqtt_slice raw, unsigned place, struct mqtt_properties *out)
{
    struct mqtt_properties properties;
    wire_properties_default(&properties);
    properties.raw = raw;
    struct wire_reader reader = wire_reader_of(raw.data, raw.length);
    while (wire_left(&reader)) {
        struct wire_property property;
        uint64_t before = properties.present;
        int error = wire_property_next(&reader, place, &properties.present, &property);
        if (error)
            return error;
        if (before != properties.present)
            store(&properties, &property);
    }
    bool method = properties.present & (UINT64_C(1) << MQTT_PROPERTY_AUTHENTICATION_METHOD);
    bool data = properties.present & (UINT64_C(1) << MQTT_PROPERTY_AUTHENTICATION_DATA);
    if (data && !method)
        return ERR_PROTOCOL;
    *out = properties;
    return 0;
}

int wire_read_properties(struct wire_reader *reader, unsigned place, struct mqtt_properties *out)
{
    struct wire_reader ahead = *reader;
    uint32_t length;
    struct mqtt_slice raw;
    if (!wire_read_varint(&ahead, &length) || !wire_read_bytes(&ahead, length, &raw))
        return ERR_MALFORMED_PACKET;
    int error = wire_properties_decode(raw, place, out);
    if (error)
        return error;
    *reader = ahead;
    return 0;
}

int mqtt_properties_decode(struct mqtt_slice raw, enum mqtt_packet_type type, struct mqtt_properties *out)
{
    return wire_properties_decode(raw, type, out);
}

/* The next property, whatever it may stand in; false at the end, and where bytes stop making sense. */
static bool walk(struct wire_reader *reader, struct wire_property *property)
{
    if (!wire_left(reader))
        return false;
    uint8_t identifier = *reader->at++;
    if (identifier > PROPERTY_IDENTIFIER_MAX || rules[identifier].kind == KIND_UNKNOWN)
        return false;
    property->identifier = identifier;
    return read_value(reader, &rules[identifier], property) == 0;
}

bool mqtt_properties_next_user(struct mqtt_slice raw, uint32_t *position, struct mqtt_slice *name, struct mqtt_slice *value)
{
    if (*position >= raw.length)
        return false;
    struct wire_reader reader = wire_reader_of(raw.data + *position, raw.length - *position);
    struct wire_property property;
    while (walk(&reader, &property)) {
        if (property.identifier != MQTT_PROPERTY_USER)
            continue;
        *position = (uint32_t)(reader.at - raw.data);
        *name = property.value;
        *value = property.pair_value;
        return true;
    }
    *position = raw.length;
    return false;
}

bool mqtt_properties_expiry(struct mqtt_slice raw, uint32_t *interval_s, uint32_t *at)
{
    struct wire_reader reader = wire_reader_of(raw.data, raw.length);
    struct wire_property property;
    while (walk(&reader, &property)) {
        if (property.identifier != MQTT_PROPERTY_MESSAGE_EXPIRY)
            continue;
        *interval_s = property.number;
        *at = (uint32_t)(reader.at - raw.data) - 4;
        return true;
    }
    return false;
}

int mqtt_properties_without(struct mqtt_slice raw, enum mqtt_property unwanted, struct buffer *out)
{
    struct wire_reader reader = wire_reader_of(raw.data, raw.length);
    struct wire_property property;
    size_t before = out->length;
    int error = 0;
    for (const uint8_t *start = reader.at; !error && walk(&reader, &property); start = reader.at)
        if (property.identifier != unwanted)
            error = buffer_append(out, start, (size_t)(reader.at - start));
    if (error)
        out->length = before;
    return error;
}

/* ---- writing ---- */

static int put_number(struct buffer *out, enum mqtt_property property, uint32_t value, size_t size)
{
    int error = wire_reserve(out, 1 + size);
    if (error)
        return error;
    uint8_t *at = out->data + out->length;
    *at++ = (uint8_t)property;
    if (rules[property].kind == KIND_VARINT)
        wire_put_varint(at, value);
    else if (size == 4)
        wire_put_u32(at, value);
    else if (size == 2)
        wire_put_u16(at, value);
    else
        *at = (uint8_t)value;
    out->length += 1 + size;
    return 0;
}

int mqtt_property_byte(struct buffer *out, enum mqtt_property property, uint8_t value)
{
    assert(rules[property].kind == KIND_FLAG);
    return put_number(out, property, value, 1);
}

int mqtt_property_u16(struct buffer *out, enum mqtt_property property, uint16_t value)
{
    assert(rules[property].kind == KIND_U16);
    return put_number(out, property, value, 2);
}

int mqtt_property_u32(struct buffer *out, enum mqtt_property property, uint32_t value)
{
    bool variable = rules[property].kind == KIND_VARINT;
    assert(variable || rules[property].kind == KIND_U32);
    if (variable && value > MQTT_REMAINING_LENGTH_MAX)
        return ERR_LIMIT;
    return put_number(out, property, value, variable ? wire_varint_size(value) : 4);
}

int mqtt_property_text(struct buffer *out, enum mqtt_property property, struct mqtt_slice value)
{
    assert(rules[property].kind == KIND_TEXT || rules[property].kind == KIND_TOPIC || rules[property].kind == KIND_BINARY);
    if (value.length > WIRE_STRING_LENGTH_MAX)
        return ERR_LIMIT;
    size_t size = 3 + (size_t)value.length;
    int error = wire_reserve(out, size);
    if (error)
        return error;
    uint8_t *at = out->data + out->length;
    *at++ = (uint8_t)property;
    wire_put_binary(at, value);
    out->length += size;
    return 0;
}

int mqtt_property_user(struct buffer *out, struct mqtt_slice name, struct mqtt_slice value)
{
    if (name.length > WIRE_STRING_LENGTH_MAX || value.length > WIRE_STRING_LENGTH_MAX)
        return ERR_LIMIT;
    size_t size = 5 + (size_t)name.length + value.length;
    int error = wire_reserve(out, size);
    if (error)
        return error;
    uint8_t *at = out->data + out->length;
    *at++ = MQTT_PROPERTY_USER;
    wire_put_binary(wire_put_binary(at, name), value);
    out->length += size;
    return 0;
}
