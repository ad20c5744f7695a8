/* Properties of MQTT 5: where each may stand, how often, with which values, and that what is written is read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "mqtt_bytes.h"

/* One value for each property identifier, as bytes. */
static const struct property_sample {
    uint8_t identifier;
    const char *bytes;
    size_t size;
    const char *places; /* packet types by letter, see `places` */
} samples[] = {
#define SAMPLE(identifier, bytes, places)                                                                                                  \
    {                                                                                                                                      \
        identifier, bytes, sizeof(bytes) - 1, places                                                                                       \
    }
    SAMPLE(0x01, "\x01\x01", "Pw"),
    SAMPLE(0x02, "\x02\x00\x00\x00\x01", "Pw"),
    SAMPLE(0x03, "\x03\x00\x01t", "Pw"),
    SAMPLE(0x08, "\x08\x00\x01r", "Pw"),
    SAMPLE(0x09, "\x09\x00\x01\x00", "Pw"),
    SAMPLE(0x0b, "\x0b\xff\x7f", "PS"),
    SAMPLE(0x11, "\x11\x00\x00\x00\x00", "CcD"),
    SAMPLE(0x12, "\x12\x00\x01i", "c"),
    SAMPLE(0x13, "\x13\x00\x3c", "c"),
    SAMPLE(0x15, "\x15\x00\x01m", "CcA"),
    SAMPLE(0x16, "\x16\x00\x01\xff", "CcA"),
    SAMPLE(0x17, "\x17\x00", "C"),
    SAMPLE(0x18, "\x18\x00\x00\x00\x00", "w"),
    SAMPLE(0x19, "\x19\x01", "C"),
    SAMPLE(0x1a, "\x1a\x00\x01i", "c"),
    SAMPLE(0x1c, "\x1c\x00\x01s", "cD"),
    SAMPLE(0x1f, "\x1f\x00\x01s", "c1234suDA"),
    SAMPLE(0x21, "\x21\x00\x01", "Cc"),
    SAMPLE(0x22, "\x22\x00\x00", "Cc"),
    SAMPLE(0x23, "\x23\x00\x01", "P"),
    SAMPLE(0x24, "\x24\x01", "c"),
    SAMPLE(0x25, "\x25\x01", "c"),
    SAMPLE(0x26, "\x26\x00\x01k\x00\x01v", "CwcP1234SsUuDA"),
    SAMPLE(0x27, "\x27\x00\x00\x00\x01", "Cc"),
    SAMPLE(0x28, "\x28\x01", "c"),
    SAMPLE(0x29, "\x29\x01", "c"),
    SAMPLE(0x2a, "\x2a\x01", "c"),
#undef SAMPLE
};

enum { SAMPLE_COUNT = sizeof samples / sizeof *samples };

/* How a packet of each kind is built around its properties. */
static const struct place {
    char letter;
    enum mqtt_packet_type type;
    const char *before;
    size_t before_size;
    const char *behind;
    size_t behind_size;
} places[] = {
#define PLACE(letter, type, before, behind)                                                                                                \
    {                                                                                                                                      \
        letter, type, before, sizeof(before) - 1, behind, sizeof(behind) - 1                                                               \
    }
    PLACE('C', MQTT_CONNECT, NAME "\x05\x02\x00\x00", "\x00\x00"),
    PLACE('w', MQTT_CONNECT, NAME "\x05\x06\x00\x00\x00\x00\x00", "\x00\x01t\x00\x00"),
    PLACE('c', MQTT_CONNACK, "\x00\x00", ""),
    PLACE('P', MQTT_PUBLISH, "\x00\x01t", ""),
    PLACE('1', MQTT_PUBACK, "\x00\x01\x00", ""),
    PLACE('2', MQTT_PUBREC, "\x00\x01\x00", ""),
    PLACE('3', MQTT_PUBREL, "\x00\x01\x00", ""),
    PLACE('4', MQTT_PUBCOMP, "\x00\x01\x00", ""),
    PLACE('S', MQTT_SUBSCRIBE, "\x00\x01", "\x00\x01t\x00"),
    PLACE('s', MQTT_SUBACK, "\x00\x01", "\x00"),
    PLACE('U', MQTT_UNSUBSCRIBE, "\x00\x01", "\x00\x01t"),
    PLACE('u', MQTT_UNSUBACK, "\x00\x01", "\x00"),
    PLACE('D', MQTT_DISCONNECT, "\x00", ""),
    PLACE('A', MQTT_AUTH, "\x18", ""),
#undef PLACE
};

static int decode_error(const struct mqtt_frame *frame)
{
    struct mqtt_connect connect;
    struct mqtt_connack connack;
    struct mqtt_publish publish;
    struct mqtt_subscribe subscribe;
    struct mqtt_disconnect disconnect;
    struct mqtt_auth auth;
    struct mqtt_ack ack;
    struct mqtt_slice codes;
    uint16_t id;
    switch (frame->type) {
    case MQTT_CONNECT:
        return mqtt_connect_decode(frame, &connect);
    case MQTT_CONNACK:
        return mqtt_connack_decode(frame, 5, &connack);
    case MQTT_PUBLISH:
        return mqtt_publish_decode(frame, 5, &publish);
    case MQTT_SUBSCRIBE:
        return mqtt_subscribe_decode(frame, 5, &subscribe);
    case MQTT_UNSUBSCRIBE:
        return mqtt_unsubscribe_decode(frame, 5, &subscribe);
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
        return mqtt_suback_decode(frame, 5, &id, &codes);
    case MQTT_DISCONNECT:
        return mqtt_disconnect_decode(frame, 5, &disconnect);
    case MQTT_AUTH:
        return mqtt_auth_decode(frame, 5, &auth);
    default:
        return mqtt_ack_decode(frame, 5, &ack);
    }
}

/* Decodes a whole packet of the kind named by `letter` that carries `properties`. */
static int error_with_properties(char letter, const char *properties, size_t size)
{
    const struct place *place = places;
    while (place->letter != letter)
        place++;
    uint8_t body[256];
    size_t at = place->before_size;
    memcpy(body, place->before, at);
    body[at++] = (uint8_t)size;
    memcpy(body + at, properties, size);
    at += size;
    memcpy(body + at, place->behind, place->behind_size);
    struct mqtt_frame frame = frame_of(place->type, body, at + place->behind_size);
    return decode_error(&frame);
}

static const char places_text[] = "CwcP1234SsUuDA";

static void each_property_is_allowed_where_the_standard_says(void **state)
{
    (void)state;
    for (const char *place = places_text; *place; place++)
        for (size_t i = 0; i < SAMPLE_COUNT; i++) {
            const struct property_sample *sample = &samples[i];
            char text[64];
            size_t size = 0;
            /* Authentication data need a method; AUTH needs one anyway. */
            bool add_method = *place == 'A' ? sample->identifier != 0x15 : sample->identifier == 0x16 && strchr(sample->places, *place);
            if (add_method) {
                memcpy(text, "\x15\x00\x01m", 4);
                size = 4;
            }
            memcpy(text + size, sample->bytes, sample->size);
            size += sample->size;
            int expected = strchr(sample->places, *place) ? 0 : ERR_MALFORMED_PACKET;
            int error = error_with_properties(*place, text, size);
            if (error != expected)
                fail_msg("property 0x%02x in '%c': %s", sample->identifier, *place, error_text(error));
        }
}

static void a_property_may_stand_only_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        const struct property_sample *sample = &samples[i];
        char text[64];
        size_t size = 0;
        char place = sample->places[0];
        if (sample->identifier == 0x16) {
            memcpy(text, "\x15\x00\x01m", 4);
            size = 4;
        }
        for (int twice = 0; twice < 2; twice++) {
            memcpy(text + size, sample->bytes, sample->size);
            size += sample->size;
        }
        bool repeats = sample->identifier == 0x26 || (sample->identifier == 0x0b && place == 'P');
        int error = error_with_properties(place, text, size);
        if (error != (repeats ? 0 : ERR_PROTOCOL))
            fail_msg("property 0x%02x twice: %s", sample->identifier, error_text(error));
    }
    assert_int_equal(error_with_properties('S', "\x0b\x01\x0b\x02", 4), ERR_PROTOCOL);
}

static void a_property_cut_short_is_malformed(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLE_COUNT; i++)
        for (size_t size = 1; size < samples[i].size; size++)
            assert_int_equal(error_with_properties(samples[i].places[0], samples[i].bytes, size), ERR_MALFORMED_PACKET);
}

static void forbidden_property_values_are_refused(void **state)
{
    (void)state;
    assert_int_equal(error_with_properties('C', "\x21\x00\x00", 3), ERR_PROTOCOL);         /* receive maximum 0 */
    assert_int_equal(error_with_properties('C', "\x27\x00\x00\x00\x00", 5), ERR_PROTOCOL); /* maximum packet size 0 */
    assert_int_equal(error_with_properties('S', "\x0b\x00", 2), ERR_PROTOCOL);             /* subscription identifier 0 */
    assert_int_equal(error_with_properties('P', "\x23\x00\x00", 3), ERR_TOPIC_ALIAS);      /* topic alias 0 */
    assert_int_equal(error_with_properties('P', "\x01\x02", 2), ERR_PROTOCOL);             /* neither 0 nor 1 */
    assert_int_equal(error_with_properties('C', "\x17\x02", 2), ERR_PROTOCOL);
    assert_int_equal(error_with_properties('C', "\x19\xff", 2), ERR_PROTOCOL);
    assert_int_equal(error_with_properties('c', "\x24\x02", 2), ERR_PROTOCOL);
    assert_int_equal(error_with_properties('P', "\x08\x00\x03r/#", 6), ERR_TOPIC_NAME); /* response topic */
    assert_int_equal(error_with_properties('w', "\x08\x00\x01+", 4), ERR_TOPIC_NAME);
    assert_int_equal(error_with_properties('P', "\x08\x00\x00", 3), ERR_TOPIC_NAME);
    assert_int_equal(error_with_properties('P', "\x03\x00\x01\xff", 4), ERR_MALFORMED_PACKET); /* UTF-8 */
    assert_int_equal(error_with_properties('P', "\x26\x00\x01\x00\x00\x00", 6), ERR_MALFORMED_PACKET);
    assert_int_equal(error_with_properties('P', "\x26\x00\x00\x00\x01\x80", 6), ERR_MALFORMED_PACKET);
    assert_int_equal(error_with_properties('S', "\x0b\x80\x80\x80\x80\x01", 6), ERR_MALFORMED_PACKET);
    assert_int_equal(error_with_properties('S', "\x0b\x81\x00", 3), ERR_MALFORMED_PACKET);
    assert_int_equal(error_with_properties('C', "\x16\x00\x00", 3), ERR_PROTOCOL); /* data without method */
    assert_int_equal(error_with_properties('A', "\x26\x00\x00\x00\x00", 5), ERR_PROTOCOL);
}

static void unknown_property_identifiers_are_malformed(void **state)
{
    (void)state;
    for (int identifier = 0; identifier < 256; identifier++) {
        bool known = false;
        for (size_t i = 0; i < SAMPLE_COUNT; i++)
            known |= samples[i].identifier == identifier;
        if (known)
            continue;
        char bytes[8] = {(char)identifier, 0, 0, 0, 0, 0, 0, 0};
        for (const char *place = places_text; *place; place++)
            assert_int_equal(error_with_properties(*place, bytes, sizeof bytes), ERR_MALFORMED_PACKET);
    }
    assert_int_equal(error_with_properties('P', "\x81\x00\x01", 3), ERR_MALFORMED_PACKET); /* 1, in too many bytes */
}

static void property_writers_are_read_back(void **state)
{
    (void)state;
    struct buffer raw;
    buffer_init(&raw, 1000);
    assert_int_equal(mqtt_property_byte(&raw, MQTT_PROPERTY_PAYLOAD_FORMAT, 1), 0);
    assert_int_equal(mqtt_property_u16(&raw, MQTT_PROPERTY_TOPIC_ALIAS, 0x1234), 0);
    assert_int_equal(mqtt_property_u32(&raw, MQTT_PROPERTY_MESSAGE_EXPIRY, 0x12345678), 0);
    assert_int_equal(mqtt_property_u32(&raw, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, 321), 0);
    assert_int_equal(mqtt_property_u32(&raw, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, 5), 0);
    assert_int_equal(mqtt_property_text(&raw, MQTT_PROPERTY_RESPONSE_TOPIC, slice_of("a/b")), 0);
    assert_int_equal(mqtt_property_text(&raw, MQTT_PROPERTY_CORRELATION_DATA, (struct mqtt_slice){NULL, 0}), 0);
    assert_int_equal(mqtt_property_user(&raw, slice_of("key"), slice_of("")), 0);
    struct mqtt_properties properties;
    assert_int_equal(mqtt_properties_decode((struct mqtt_slice){raw.data, (uint32_t)raw.length}, MQTT_PUBLISH, &properties), 0);
    assert_int_equal(properties.payload_format, 1);
    assert_int_equal(properties.topic_alias, 0x1234);
    assert_int_equal(properties.message_expiry_interval, 0x12345678);
    assert_int_equal(properties.subscription_identifier, 321);
    assert_int_equal(properties.response_topic.length, 3);
    assert_true(properties.present & UINT64_C(1) << MQTT_PROPERTY_CORRELATION_DATA);
    buffer_fini(&raw);
}

static void property_writers_keep_to_their_limits(void **state)
{
    (void)state;
    struct buffer raw;
    buffer_init(&raw, 4);
    assert_int_equal(mqtt_property_u32(&raw, MQTT_PROPERTY_MESSAGE_EXPIRY, 1), ERR_LIMIT);
    assert_int_equal(mqtt_property_u32(&raw, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, MQTT_REMAINING_LENGTH_MAX + 1), ERR_LIMIT);
    assert_int_equal(mqtt_property_text(&raw, MQTT_PROPERTY_REASON_STRING, slice_of("xy")), ERR_LIMIT);
    assert_int_equal(mqtt_property_user(&raw, slice_of(""), slice_of("")), ERR_LIMIT);
    assert_int_equal(raw.length, 0);
    assert_int_equal(mqtt_property_text(&raw, MQTT_PROPERTY_REASON_STRING, slice_of("x")), 0);
    assert_int_equal(mqtt_property_byte(&raw, MQTT_PROPERTY_PAYLOAD_FORMAT, 1), ERR_LIMIT);
    assert_int_equal(raw.length, 4);
    buffer_fini(&raw);
    static const uint8_t big[65536];
    buffer_init(&raw, 1 << 20);
    assert_int_equal(mqtt_property_text(&raw, MQTT_PROPERTY_CORRELATION_DATA, (struct mqtt_slice){big, 65536}), ERR_LIMIT);
    assert_int_equal(mqtt_property_user(&raw, (struct mqtt_slice){big, 65536}, slice_of("")), ERR_LIMIT);
    assert_int_equal(mqtt_property_text(&raw, MQTT_PROPERTY_CORRELATION_DATA, (struct mqtt_slice){big, 65535}), 0);
    buffer_fini(&raw);
}

static void walking_bytes_that_are_no_properties_ends(void **state)
{
    (void)state;
    struct mqtt_slice name, value;
    for (unsigned first = 0; first < 256; first++) {
        uint8_t bytes[3] = {(uint8_t)first, 0xff, 0x26};
        uint32_t position = 0;
        while (mqtt_properties_next_user((struct mqtt_slice){bytes, 3}, &position, &name, &value))
            ;
        assert_int_equal(position, 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_property_is_allowed_where_the_standard_says),
        cmocka_unit_test(a_property_may_stand_only_once),
        cmocka_unit_test(a_property_cut_short_is_malformed),
        cmocka_unit_test(forbidden_property_values_are_refused),
        cmocka_unit_test(unknown_property_identifiers_are_malformed),
        cmocka_unit_test(property_writers_are_read_back),
        cmocka_unit_test(property_writers_keep_to_their_limits),
        cmocka_unit_test(walking_bytes_that_are_no_properties_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
