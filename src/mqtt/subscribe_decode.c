/* SUBSCRIBE, UNSUBSCRIBE and their answers (sections 3.8 to 3.11). A SUBSCRIBE may hold thousands of filters, so the entries are
 * checked here once and walked again by whoever acts on them. */
#include "mqtt/packet.h"

#include "mqtt/topic.h"
#include "mqtt/wire.h"

enum {
    OPTION_QOS = 0x03,
    OPTION_NO_LOCAL = 0x04,
    OPTION_RETAIN_AS_PUBLISHED = 0x08,
    OPTION_RETAIN_HANDLING_SHIFT = 4,
    OPTION_RESERVED = 0xc0,
    OPTION_RESERVED_3_1_1 = 0xfc
};

static int check_filter(struct mqtt_slice filter)
{
    if (mqtt_topic_filter_valid((const char *)filter.data, filter.length))
        return 0;
    return wire_text_valid(filter) ? ERR_TOPIC_FILTER : ERR_MALFORMED_PACKET;
}

static int check_options(uint8_t options, uint8_t version, struct mqtt_slice filter)
{
    bool five = version == MQTT_VERSION_5_0;
    if (options & (five ? OPTION_RESERVED : OPTION_RESERVED_3_1_1))
        return ERR_MALFORMED_PACKET;
    if ((options & OPTION_QOS) == 3)
        return five ? ERR_PROTOCOL : ERR_MALFORMED_PACKET;
    if ((options >> OPTION_RETAIN_HANDLING_SHIFT & 3) == 3)
        return ERR_PROTOCOL;
    if ((options & OPTION_NO_LOCAL) && mqtt_topic_share_length((const char *)filter.data, filter.length))
        return ERR_PROTOCOL;
    return 0;
}

static int check_entries(struct mqtt_slice entries, uint8_t version, bool unsubscribe, uint32_t *count)
{
    struct wire_reader reader = wire_reader_of(entries.data, entries.length);
    uint32_t found = 0;
    while (wire_left(&reader)) {
        struct mqtt_slice filter;
        uint8_t options = 0;
        if (!wire_read_binary(&reader, &filter) || (!unsubscribe && !wire_read_u8(&reader, &options)))
            return ERR_MALFORMED_PACKET;
        int error = check_filter(filter);
        if (!error)
            error = check_options(options, version, filter);
        if (error)
            return error;
        found++;
    }
    *count = found;
    return found ? 0 : ERR_PROTOCOL;
}

static int decode(const struct mqtt_frame *frame, uint8_t version, bool unsubscribe, struct mqtt_subscribe *out)
{
    struct wire_reader reader = wire_reader_of(frame->body, frame->body_size);
    struct mqtt_subscribe subscribe;
    wire_properties_default(&subscribe.properties);
    if (!wire_read_u16(&reader, &subscribe.packet_id))
        return ERR_MALFORMED_PACKET;
    if (subscribe.packet_id == 0)
        return ERR_PROTOCOL;
    if (version == MQTT_VERSION_5_0) {
        int error = wire_read_properties(&reader, unsubscribe ? MQTT_UNSUBSCRIBE : MQTT_SUBSCRIBE, &subscribe.properties);
        if (error)
            return error;
    }
    subscribe.entries = (struct mqtt_slice){reader.at, (uint32_t)wire_left(&reader)};
    int error = check_entries(subscribe.entries, version, unsubscribe, &subscribe.entry_count);
    if (error)
        return error;
    *out = subscribe;
    return 0;
}

int mqtt_subscribe_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_subscribe *out)
{
    return decode(frame, version, false, out);
}

int mqtt_unsubscribe_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_subscribe *out)
{
    return decode(frame, version, true, out);
}

bool mqtt_subscribe_next(const struct mqtt_subscribe *subscribe, bool unsubscribe, uint32_t *position, struct mqtt_subscription *out)
{
    if (*position >= subscribe->entries.length)
        return false;
    struct wire_reader reader = wire_reader_of(subscribe->entries.data + *position, subscribe->entries.length - *position);
    struct mqtt_subscription entry = {0};
    uint8_t options = 0;
    if (!wire_read_binary(&reader, &entry.filter) || (!unsubscribe && !wire_read_u8(&reader, &options)))
        return false;
    entry.qos = options & OPTION_QOS;
    entry.no_local = options & OPTION_NO_LOCAL;
    entry.retain_as_published = options & OPTION_RETAIN_AS_PUBLISHED;
    entry.retain_handling = options >> OPTION_RETAIN_HANDLING_SHIFT & 3;
    *position = (uint32_t)(reader.at - subscribe->entries.data);
    *out = entry;
    return true;
}

static int check_codes(struct mqtt_slice codes, unsigned type, uint8_t version)
{
    bool five = version == MQTT_VERSION_5_0;
    if (type == MQTT_UNSUBACK && !five)
        return codes.length ? ERR_MALFORMED_PACKET : 0;
    if (codes.length == 0)
        return ERR_PROTOCOL;
    for (uint32_t i = 0; i < codes.length; i++) {
        uint8_t code = codes.data[i];
        if (five ? !wire_reason_valid(type, code) : code > 2 && code != 0x80)
            return ERR_PROTOCOL;
    }
    return 0;
}

int mqtt_suback_decode(const struct mqtt_frame *frame, uint8_t version, uint16_t *packet_id, struct mqtt_slice *codes)
{
    struct wire_reader reader = wire_reader_of(frame->body, frame->body_size);
    uint16_t id;
    if (!wire_read_u16(&reader, &id))
        return ERR_MALFORMED_PACKET;
    if (id == 0)
        return ERR_PROTOCOL;
    if (version == MQTT_VERSION_5_0) {
        struct mqtt_properties properties;
        int error = wire_read_properties(&reader, frame->type, &properties);
        if (error)
            return error;
    }
    struct mqtt_slice rest = {reader.at, (uint32_t)wire_left(&reader)};
    int error = check_codes(rest, frame->type, version);
    if (error)
        return error;
    *packet_id = id;
    *codes = rest;
    return 0;
}
