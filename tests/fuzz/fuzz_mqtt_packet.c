/* The packet codec: the first byte picks the version, the rest is one packet. What is decoded, encodes and decodes to the same;
 * where the encoders write all that the decoder read, to the same bytes. */
#include <stdbool.h>
#include <string.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/text.h"
#include "fuzz.h"
#include "mqtt/packet.h"
#include "mqtt/topic.h"

enum { ENTRIES_MAX = 256 };

static bool equal(struct mqtt_slice a, struct mqtt_slice b)
{
    return a.length == b.length && (!a.length || !memcmp(a.data, b.data, a.length));
}

static bool plain_text(struct mqtt_slice text)
{
    return !text.length || (text_is_utf8((const char *)text.data, text.length) && !memchr(text.data, 0, text.length));
}

static struct mqtt_frame frame_in(const struct buffer *bytes)
{
    struct mqtt_frame frame;
    PROMISE(mqtt_frame_decode(bytes->data, bytes->length, UINT32_MAX, &frame) == 0);
    PROMISE(frame.total_size == bytes->length);
    return frame;
}

static void same_bytes(const struct mqtt_frame *frame, const struct buffer *bytes)
{
    if (!mqtt_frame_is_shortest(frame))
        return;
    PROMISE(bytes->length == frame->total_size);
    PROMISE(memcmp(bytes->data, frame->body - frame->header_size, bytes->length) == 0);
}

/* Copies the user properties of a set with the writer and reads them again. */
static void check_user_properties(struct mqtt_slice raw)
{
    struct buffer copy;
    buffer_init(&copy, SIZE_MAX);
    struct mqtt_slice name, value, again_name, again_value;
    uint32_t position = 0, again = 0, count = 0;
    for (; mqtt_properties_next_user(raw, &position, &name, &value); count++) {
        PROMISE(plain_text(name) && plain_text(value));
        PROMISE(mqtt_property_user(&copy, name, value) == 0);
    }
    struct mqtt_slice written = {copy.data, (uint32_t)copy.length};
    struct mqtt_properties properties;
    PROMISE(mqtt_properties_decode(written, MQTT_PUBLISH, &properties) == 0);
    for (position = 0; mqtt_properties_next_user(written, &again, &again_name, &again_value); count--) {
        PROMISE(mqtt_properties_next_user(raw, &position, &name, &value));
        PROMISE(equal(name, again_name) && equal(value, again_value));
    }
    PROMISE(count == 0);
    buffer_fini(&copy);
}

static void check_connect(const struct mqtt_frame *frame, struct buffer *bytes)
{
    struct mqtt_connect connect;
    if (mqtt_connect_decode(frame, &connect))
        return;
    PROMISE(plain_text(connect.client_id) && plain_text(connect.username));
    PROMISE(!connect.will || mqtt_topic_name_valid((const char *)connect.will_topic.data, connect.will_topic.length));
    PROMISE(connect.properties.receive_maximum > 0 && connect.properties.maximum_packet_size > 0);
    check_user_properties(connect.properties.raw);
    check_user_properties(connect.will_properties.raw);
    PROMISE(mqtt_connect_encode(bytes, &connect) == 0);
    same_bytes(frame, bytes);
}

static void check_connack(const struct mqtt_frame *frame, uint8_t version, struct buffer *bytes)
{
    struct mqtt_connack connack;
    if (mqtt_connack_decode(frame, version, &connack))
        return;
    PROMISE(mqtt_connack_encode(bytes, version, connack.session_present, connack.reason, connack.properties.raw) == 0);
    same_bytes(frame, bytes);
}

static void check_expiry(const struct mqtt_publish *publish)
{
    uint32_t interval_s = 0, at = 0;
    PROMISE(mqtt_properties_expiry(publish->properties_raw, &interval_s, &at) == publish->has_message_expiry);
    PROMISE(interval_s == publish->message_expiry_interval && at == publish->message_expiry_at);
    const uint8_t *place = publish->properties_raw.data + at;
    if (publish->has_message_expiry)
        PROMISE(place[-1] == MQTT_PROPERTY_MESSAGE_EXPIRY &&
                ((uint32_t)place[0] << 24 | (uint32_t)place[1] << 16 | (uint32_t)place[2] << 8 | place[3]) == interval_s);
}

static void check_without(const struct mqtt_publish *publish)
{
    struct buffer rest;
    buffer_init(&rest, publish->properties_raw.length);
    PROMISE(mqtt_properties_without(publish->properties_raw, MQTT_PROPERTY_TOPIC_ALIAS, &rest) == 0);
    PROMISE(rest.length + (publish->topic_alias ? 3 : 0) == publish->properties_raw.length);
    struct mqtt_properties properties;
    PROMISE(mqtt_properties_decode((struct mqtt_slice){rest.data, (uint32_t)rest.length}, MQTT_PUBLISH, &properties) == 0);
    PROMISE(properties.topic_alias == 0 && properties.message_expiry_interval == publish->message_expiry_interval);
    buffer_fini(&rest);
}

static void check_publish(const struct mqtt_frame *frame, uint8_t version, struct buffer *bytes)
{
    struct mqtt_publish publish;
    if (mqtt_publish_decode(frame, version, &publish))
        return;
    PROMISE(publish.qos <= 2 && !publish.packet_id == !publish.qos);
    PROMISE(plain_text(publish.topic));
    PROMISE(publish.topic.length || publish.topic_alias);
    if (version == MQTT_VERSION_5_0) {
        struct mqtt_properties properties;
        PROMISE(mqtt_properties_decode(publish.properties_raw, MQTT_PUBLISH, &properties) == 0);
        PROMISE(properties.topic_alias == publish.topic_alias);
        PROMISE(properties.message_expiry_interval == publish.message_expiry_interval);
        PROMISE(!publish.has_subscription_identifier == !properties.subscription_identifier);
        PROMISE(!properties.response_topic.length ||
                mqtt_topic_name_valid((const char *)properties.response_topic.data, properties.response_topic.length));
        check_user_properties(publish.properties_raw);
        check_expiry(&publish);
        check_without(&publish);
    }
    PROMISE(mqtt_publish_encode(bytes, version, &publish, NULL) == 0);
    PROMISE(mqtt_publish_size(version, &publish) == bytes->length);
    same_bytes(frame, bytes);
}

static void check_ack(const struct mqtt_frame *frame, uint8_t version, struct buffer *bytes)
{
    struct mqtt_ack ack, again;
    if (mqtt_ack_decode(frame, version, &ack))
        return;
    PROMISE(ack.packet_id > 0);
    PROMISE(mqtt_ack_encode(bytes, version, (enum mqtt_packet_type)frame->type, ack.packet_id, ack.reason) == 0);
    struct mqtt_frame copy = frame_in(bytes);
    PROMISE(mqtt_ack_decode(&copy, version, &again) == 0);
    PROMISE(again.packet_id == ack.packet_id && again.reason == ack.reason);
}

static uint32_t walk_entries(const struct mqtt_subscribe *subscribe, bool unsubscribe, struct mqtt_subscription entries[ENTRIES_MAX])
{
    uint32_t position = 0, count = 0;
    struct mqtt_subscription entry;
    while (mqtt_subscribe_next(subscribe, unsubscribe, &position, &entry)) {
        PROMISE(mqtt_topic_filter_valid((const char *)entry.filter.data, entry.filter.length));
        PROMISE(entry.qos <= 2 && entry.retain_handling <= 2);
        if (count < ENTRIES_MAX)
            entries[count] = entry;
        count++;
    }
    PROMISE(count == subscribe->entry_count && count > 0);
    return count < ENTRIES_MAX ? count : ENTRIES_MAX;
}

static void check_subscribe(const struct mqtt_frame *frame, uint8_t version, struct buffer *bytes)
{
    struct mqtt_subscription entries[ENTRIES_MAX], copies[ENTRIES_MAX];
    struct mqtt_subscribe subscribe, again;
    if (mqtt_subscribe_decode(frame, version, &subscribe))
        return;
    uint32_t count = walk_entries(&subscribe, false, entries);
    PROMISE(mqtt_subscribe_encode(bytes, version, subscribe.packet_id, entries, count) == 0);
    struct mqtt_frame copy = frame_in(bytes);
    PROMISE(mqtt_subscribe_decode(&copy, version, &again) == 0);
    PROMISE(walk_entries(&again, false, copies) == count && again.packet_id == subscribe.packet_id);
    for (uint32_t i = 0; i < count; i++)
        PROMISE(equal(entries[i].filter, copies[i].filter) && entries[i].qos == copies[i].qos &&
                entries[i].no_local == copies[i].no_local && entries[i].retain_as_published == copies[i].retain_as_published &&
                entries[i].retain_handling == copies[i].retain_handling);
}

static void check_unsubscribe(const struct mqtt_frame *frame, uint8_t version, struct buffer *bytes)
{
    struct mqtt_subscription entries[ENTRIES_MAX], copies[ENTRIES_MAX];
    struct mqtt_slice filters[ENTRIES_MAX];
    struct mqtt_subscribe unsubscribe, again;
    if (mqtt_unsubscribe_decode(frame, version, &unsubscribe))
        return;
    uint32_t count = walk_entries(&unsubscribe, true, entries);
    for (uint32_t i = 0; i < count; i++)
        filters[i] = entries[i].filter;
    PROMISE(mqtt_unsubscribe_encode(bytes, version, unsubscribe.packet_id, filters, count) == 0);
    struct mqtt_frame copy = frame_in(bytes);
    PROMISE(mqtt_unsubscribe_decode(&copy, version, &again) == 0);
    PROMISE(walk_entries(&again, true, copies) == count && again.packet_id == unsubscribe.packet_id);
    for (uint32_t i = 0; i < count; i++)
        PROMISE(equal(entries[i].filter, copies[i].filter));
}

static void check_suback(const struct mqtt_frame *frame, uint8_t version, struct buffer *bytes)
{
    uint16_t id, again_id;
    struct mqtt_slice codes, again;
    if (mqtt_suback_decode(frame, version, &id, &codes))
        return;
    int error = frame->type == MQTT_SUBACK ? mqtt_suback_encode(bytes, version, id, codes.data, codes.length)
                                           : mqtt_unsuback_encode(bytes, version, id, codes.data, codes.length);
    PROMISE(error == 0);
    struct mqtt_frame copy = frame_in(bytes);
    PROMISE(mqtt_suback_decode(&copy, version, &again_id, &again) == 0);
    PROMISE(id == again_id && equal(codes, again));
    if (version != MQTT_VERSION_5_0)
        return;
    buffer_clear(bytes);
    PROMISE(mqtt_refusal_encode(bytes, (enum mqtt_packet_type)frame->type, id, codes.data, codes.length, "why", UINT32_MAX) == 0);
    copy = frame_in(bytes);
    PROMISE(mqtt_suback_decode(&copy, version, &again_id, &again) == 0);
    PROMISE(id == again_id && equal(codes, again));
}

static void check_disconnect(const struct mqtt_frame *frame, uint8_t version, struct buffer *bytes)
{
    struct mqtt_disconnect disconnect, again;
    if (mqtt_disconnect_decode(frame, version, &disconnect))
        return;
    check_user_properties(disconnect.properties.raw);
    PROMISE(mqtt_disconnect_encode(bytes, version, disconnect.reason) == 0);
    struct mqtt_frame copy = frame_in(bytes);
    PROMISE(mqtt_disconnect_decode(&copy, version, &again) == 0);
    PROMISE(again.reason == disconnect.reason);
    buffer_clear(bytes);
    PROMISE(mqtt_refusal_encode(bytes, MQTT_DISCONNECT, 0, &disconnect.reason, 1, "why", UINT32_MAX) == 0);
    copy = frame_in(bytes);
    PROMISE(mqtt_disconnect_decode(&copy, MQTT_VERSION_5_0, &again) == 0);
    PROMISE(again.reason == disconnect.reason && again.properties.reason_string.length == 3);
}

static void check_packet(const struct mqtt_frame *frame, uint8_t version, struct buffer *bytes)
{
    struct mqtt_auth auth;
    switch (frame->type) {
    case MQTT_CONNECT:
        check_connect(frame, bytes);
        break;
    case MQTT_CONNACK:
        check_connack(frame, version, bytes);
        break;
    case MQTT_PUBLISH:
        check_publish(frame, version, bytes);
        break;
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        check_ack(frame, version, bytes);
        break;
    case MQTT_SUBSCRIBE:
        check_subscribe(frame, version, bytes);
        break;
    case MQTT_UNSUBSCRIBE:
        check_unsubscribe(frame, version, bytes);
        break;
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
        check_suback(frame, version, bytes);
        break;
    case MQTT_DISCONNECT:
        check_disconnect(frame, version, bytes);
        break;
    case MQTT_AUTH:
        PROMISE(mqtt_auth_decode(frame, MQTT_VERSION_3_1_1, &auth) == ERR_MALFORMED_PACKET);
        if (!mqtt_auth_decode(frame, version, &auth))
            check_user_properties(auth.properties.raw);
        break;
    default:
        PROMISE(mqtt_empty_decode(frame) == (frame->body_size ? ERR_MALFORMED_PACKET : 0));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t version = data[0] & 1 ? MQTT_VERSION_5_0 : MQTT_VERSION_3_1_1;
    struct mqtt_frame frame;
    if (mqtt_frame_decode(data + 1, size - 1, UINT32_MAX, &frame)) {
        check_user_properties((struct mqtt_slice){data + 1, (uint32_t)(size - 1)}); /* bytes that were never validated */
        return 0;
    }
    struct buffer bytes;
    buffer_init(&bytes, SIZE_MAX);
    check_packet(&frame, version, &bytes);
    buffer_fini(&bytes);
    return 0;
}
