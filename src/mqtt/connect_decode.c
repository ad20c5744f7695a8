/* CONNECT (section 3.1) and CONNACK (section 3.2) of both versions. */
#include "mqtt/packet.h"

#include "mqtt/topic.h"
#include "mqtt/wire.h"

enum {
    CONNECT_RESERVED = 0x01,
    CONNECT_CLEAN_START = 0x02,
    CONNECT_WILL = 0x04,
    CONNECT_WILL_QOS_SHIFT = 3,
    CONNECT_WILL_RETAIN = 0x20,
    CONNECT_PASSWORD = 0x40,
    CONNECT_USERNAME = 0x80
};

enum { CONNACK_3_1_1_REASON_MAX = 5, CONNACK_3_1_1_REFUSED_VERSION = 1 };

static int read_version(struct wire_reader *reader, uint8_t *version)
{
    struct mqtt_slice name;
    uint8_t level;
    if (!wire_read_binary(reader, &name))
        return ERR_MALFORMED_PACKET;
    if (name.length != 4 || memcmp(name.data, "MQTT", 4) != 0)
        return ERR_PROTOCOL_VERSION;
    if (!wire_read_u8(reader, &level))
        return ERR_MALFORMED_PACKET;
    if (level != MQTT_VERSION_3_1_1 && level != MQTT_VERSION_5_0)
        return ERR_PROTOCOL_VERSION;
    *version = level;
    return 0;
}

uint8_t wire_connect_version(const struct mqtt_frame *frame)
{
    struct wire_reader reader = wire_reader_of(frame->body, frame->body_size);
    uint8_t version = 0;
    return read_version(&reader, &version) ? 0 : version;
}

static int read_flags(struct wire_reader *reader, struct mqtt_connect *connect)
{
    uint8_t flags;
    if (!wire_read_u8(reader, &flags) || (flags & CONNECT_RESERVED))
        return ERR_MALFORMED_PACKET;
    connect->clean_start = flags & CONNECT_CLEAN_START;
    connect->will = flags & CONNECT_WILL;
    connect->will_retain = flags & CONNECT_WILL_RETAIN;
    connect->will_qos = flags >> CONNECT_WILL_QOS_SHIFT & 3;
    connect->has_username = flags & CONNECT_USERNAME;
    connect->has_password = flags & CONNECT_PASSWORD;
    if (connect->will_qos == 3 || (!connect->will && (connect->will_retain || connect->will_qos)))
        return ERR_MALFORMED_PACKET;
    if (connect->version == MQTT_VERSION_3_1_1 && connect->has_password && !connect->has_username)
        return ERR_PROTOCOL;
    return 0;
}

static int read_will(struct wire_reader *reader, struct mqtt_connect *connect)
{
    if (connect->version == MQTT_VERSION_5_0) {
        int error = wire_read_properties(reader, WIRE_WILL_PROPERTIES, &connect->will_properties);
        if (error)
            return error;
    }
    if (!wire_read_text(reader, &connect->will_topic) || !wire_read_binary(reader, &connect->will_payload))
        return ERR_MALFORMED_PACKET;
    return mqtt_topic_name_valid((const char *)connect->will_topic.data, connect->will_topic.length) ? 0 : ERR_TOPIC_NAME;
}

static int read_payload(struct wire_reader *reader, struct mqtt_connect *connect)
{
    if (!wire_read_text(reader, &connect->client_id))
        return ERR_MALFORMED_PACKET;
    if (connect->will) {
        int error = read_will(reader, connect);
        if (error)
            return error;
    }
    if (connect->has_username && !wire_read_text(reader, &connect->username))
        return ERR_MALFORMED_PACKET;
    if (connect->has_password && !wire_read_binary(reader, &connect->password))
        return ERR_MALFORMED_PACKET;
    if (wire_left(reader))
        return ERR_MALFORMED_PACKET;
    if (connect->version == MQTT_VERSION_3_1_1 && connect->client_id.length == 0 && !connect->clean_start)
        return ERR_CLIENT_ID;
    return 0;
}

int mqtt_connect_decode(const struct mqtt_frame *frame, struct mqtt_connect *out)
{
    struct wire_reader reader = wire_reader_of(frame->body, frame->body_size);
    struct mqtt_connect connect = {0};
    wire_properties_default(&connect.properties);
    wire_properties_default(&connect.will_properties);
    int error = read_version(&reader, &connect.version);
    if (!error)
        error = read_flags(&reader, &connect);
    if (!error && !wire_read_u16(&reader, &connect.keep_alive_s))
        error = ERR_MALFORMED_PACKET;
    if (!error && connect.version == MQTT_VERSION_5_0)
        error = wire_read_properties(&reader, MQTT_CONNECT, &connect.properties);
    if (!error)
        error = read_payload(&reader, &connect);
    if (error)
        return error;
    *out = connect;
    return 0;
}

int mqtt_connack_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_connack *out)
{
    struct wire_reader reader = wire_reader_of(frame->body, frame->body_size);
    struct mqtt_connack connack;
    wire_properties_default(&connack.properties);
    uint8_t flags;
    if (!wire_read_u8(&reader, &flags) || !wire_read_u8(&reader, &connack.reason) || flags > 1)
        return ERR_MALFORMED_PACKET;
    connack.session_present = flags;
    if (version == MQTT_VERSION_5_0) {
        /* A server that knows only 3.1.1 answers in the only form it has. */
        if (wire_left(&reader) == 0 && connack.reason == CONNACK_3_1_1_REFUSED_VERSION)
            return ERR_PROTOCOL_VERSION;
        int error = wire_read_properties(&reader, MQTT_CONNACK, &connack.properties);
        if (error)
            return error;
    }
    if (wire_left(&reader))
        return ERR_MALFORMED_PACKET;
    bool known = version == MQTT_VERSION_5_0 ? wire_reason_valid(MQTT_CONNACK, connack.reason) : connack.reason <= CONNACK_3_1_1_REASON_MAX;
    if (!known || (connack.session_present && connack.reason))
        return ERR_PROTOCOL;
    *out = connack;
    return 0;
}
