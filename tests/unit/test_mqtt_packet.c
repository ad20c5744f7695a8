/* The packet codec: what is accepted, what is refused and with which error, and that encoders and decoders agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "mqtt_bytes.h"

/* ---- framing ---- */

static int frame_error(const uint8_t *bytes, size_t length)
{
    struct mqtt_frame frame;
    return mqtt_frame_decode(bytes, length, UINT32_MAX, &frame);
}

static void a_frame_is_found(void **state)
{
    (void)state;
    struct mqtt_frame frame;
    assert_int_equal(mqtt_frame_decode(BYTES("\x3b\x03xyz trailing"), 5, &frame), 0);
    assert_int_equal(frame.type, MQTT_PUBLISH);
    assert_int_equal(frame.flags, 0xb);
    assert_int_equal(frame.header_size, 2);
    assert_int_equal(frame.total_size, 5);
    assert_int_equal(frame.body_size, 3);
    assert_memory_equal(frame.body, "xyz", 3);
}

static void a_frame_grows_byte_by_byte(void **state)
{
    (void)state;
    static uint8_t bytes[3 + 128] = {0x30, 0x80, 0x01};
    struct mqtt_frame frame;
    for (size_t length = 0; length < sizeof bytes; length++) {
        assert_int_equal(mqtt_frame_decode(bytes, length, 1000, &frame), ERR_TRUNCATED);
        assert_int_equal(frame.total_size, length < 3 ? 0 : sizeof bytes);
    }
    assert_int_equal(mqtt_frame_decode(bytes, sizeof bytes, 1000, &frame), 0);
}

static void frame_lengths_have_four_bytes_at_most(void **state)
{
    (void)state;
    struct mqtt_frame frame;
    assert_int_equal(mqtt_frame_decode(BYTES("\x30\xff\xff\xff\x7f"), UINT32_MAX, &frame), ERR_TRUNCATED);
    assert_int_equal(frame.total_size, MQTT_REMAINING_LENGTH_MAX + 5);
    assert_int_equal(frame_error(BYTES("\x30\xff\xff\xff\xff")), ERR_MALFORMED_PACKET);
    assert_int_equal(frame_error(BYTES("\x30\x80\x80\x80\x80\x01")), ERR_MALFORMED_PACKET);
    assert_int_equal(frame_error(BYTES("\xc0\x00")), 0);
}

/* Version 3.1.1 does not demand the shortest form, 5.0 does: the frame tells. */
static void frame_lengths_with_spare_bytes_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        uint32_t header_size, body_size;
        bool shortest;
    } rows[] = {
#define ROW(text, header_size, body_size, shortest) {text, sizeof(text) - 1, header_size, body_size, shortest}
        ROW("\xc0\x00", 2, 0, true),
        ROW("\xc0\x80\x00", 3, 0, false),
        ROW("\xc0\x80\x80\x80\x00", 5, 0, false),
        ROW("\x30\x81\x00z", 3, 1, false),
        ROW("\x30\x81\x80\x00z", 4, 1, false),
        ROW("\x30\x7f", 2, 127, true),
        ROW("\x30\xff\x00", 3, 127, false),
        ROW("\x30\x80\x01", 3, 128, true),
        ROW("\x30\xff\xff\x00", 4, 16383, false),
        ROW("\x30\x80\x80\x01", 4, 16384, true),
        ROW("\x30\xff\xff\xff\x00", 5, 2097151, false),
        ROW("\x30\x80\x80\x80\x01", 5, 2097152, true),
#undef ROW
    };
    static uint8_t bytes[2097152 + 5];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct mqtt_frame frame;
        memcpy(bytes, rows[i].bytes, rows[i].length);
        assert_int_equal(mqtt_frame_decode(bytes, sizeof bytes, UINT32_MAX, &frame), 0);
        assert_int_equal(frame.header_size, rows[i].header_size);
        assert_int_equal(frame.body_size, rows[i].body_size);
        assert_int_equal(frame.total_size, rows[i].header_size + rows[i].body_size);
        assert_int_equal(mqtt_frame_is_shortest(&frame), rows[i].shortest);
    }
}

static void reserved_types_and_flags_are_refused(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        uint8_t bytes[2] = {(uint8_t)first, 0};
        unsigned type = first >> 4, flags = first & 15;
        bool two = type == MQTT_PUBREL || type == MQTT_SUBSCRIBE || type == MQTT_UNSUBSCRIBE;
        bool good = type != 0 && (type == MQTT_PUBLISH || flags == (two ? 2 : 0));
        assert_int_equal(frame_error(bytes, 2), good ? 0 : ERR_MALFORMED_PACKET);
        assert_int_equal(frame_error(bytes, 1), good ? ERR_TRUNCATED : ERR_MALFORMED_PACKET);
    }
}

static void a_large_packet_is_refused_before_it_arrives(void **state)
{
    (void)state;
    struct mqtt_frame frame;
    assert_int_equal(mqtt_frame_decode(BYTES("\x30\x62"), 100, &frame), ERR_TRUNCATED);
    assert_int_equal(mqtt_frame_decode(BYTES("\x30\x63"), 100, &frame), ERR_PACKET_TOO_LARGE);
}

/* ---- CONNECT ---- */

static int connect_decode(const uint8_t *body, size_t size, struct mqtt_connect *out)
{
    struct mqtt_frame frame = frame_of(MQTT_CONNECT, body, size);
    return mqtt_connect_decode(&frame, out);
}

static int connect_error(const uint8_t *body, size_t size)
{
    struct mqtt_connect connect, untouched;
    memset(&connect, 0x5a, sizeof connect);
    memset(&untouched, 0x5a, sizeof untouched);
    int error = connect_decode(body, size, &connect);
    if (error)
        assert_memory_equal(&connect, &untouched, sizeof connect);
    return error;
}

static void a_full_connect_of_3_1_1_is_read(void **state)
{
    (void)state;
    struct mqtt_connect connect;
    assert_int_equal(connect_decode(BYTES(NAME "\x04\xee\x00\x3c\x00\x02id\x00\x03w/t\x00\x02wp\x00\x01u\x00\x02pw"), &connect), 0);
    assert_int_equal(connect.version, 4);
    assert_true(connect.clean_start && connect.will && connect.will_retain && connect.has_username && connect.has_password);
    assert_int_equal(connect.will_qos, 1);
    assert_int_equal(connect.keep_alive_s, 60);
    assert_memory_equal(connect.client_id.data, "id", 2);
    assert_memory_equal(connect.will_topic.data, "w/t", 3);
    assert_memory_equal(connect.will_payload.data, "wp", 2);
    assert_memory_equal(connect.username.data, "u", 1);
    assert_memory_equal(connect.password.data, "pw", 2);
    assert_int_equal(connect.properties.receive_maximum, 65535);
}

static void a_full_connect_of_5_is_read(void **state)
{
    (void)state;
    struct mqtt_connect connect;
    assert_int_equal(connect_decode(BYTES(NAME "\x05\x06\x00\x00"
                                               "\x23"
                                               "\x11\x00\x00\x00\x0a"
                                               "\x21\x00\x14"
                                               "\x27\x00\x00\x10\x00"
                                               "\x22\x00\x05"
                                               "\x19\x01"
                                               "\x17\x00"
                                               "\x26\x00\x01k\x00\x01v"
                                               "\x26\x00\x01k\x00\x02vw"
                                               "\x00\x00"
                                               "\x05\x18\x00\x00\x00\x07"
                                               "\x00\x01t\x00\x00"),
                                    &connect),
                     0);
    assert_int_equal(connect.properties.session_expiry_interval, 10);
    assert_int_equal(connect.properties.receive_maximum, 20);
    assert_int_equal(connect.properties.maximum_packet_size, 4096);
    assert_int_equal(connect.properties.topic_alias_maximum, 5);
    assert_int_equal(connect.properties.request_response_information, 1);
    assert_int_equal(connect.properties.request_problem_information, 0);
    assert_int_equal(connect.will_properties.will_delay_interval, 7);
    assert_int_equal(connect.client_id.length, 0);
    uint32_t position = 0;
    struct mqtt_slice key, value;
    assert_true(mqtt_properties_next_user(connect.properties.raw, &position, &key, &value));
    assert_int_equal(value.length, 1);
    assert_true(mqtt_properties_next_user(connect.properties.raw, &position, &key, &value));
    assert_int_equal(value.length, 2);
    assert_memory_equal(key.data, "k", 1);
    assert_false(mqtt_properties_next_user(connect.properties.raw, &position, &key, &value));
    assert_false(mqtt_properties_next_user(connect.properties.raw, &position, &key, &value));
}

static void unknown_protocols_are_told_so(void **state)
{
    (void)state;
    assert_int_equal(connect_error(BYTES("\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01x")), ERR_PROTOCOL_VERSION);
    assert_int_equal(connect_error(BYTES("\x00\x04mqtt\x04\x02\x00\x00\x00\x01x")), ERR_PROTOCOL_VERSION);
    assert_int_equal(connect_error(BYTES(NAME "\x03\x02\x00\x00\x00\x01x")), ERR_PROTOCOL_VERSION);
    assert_int_equal(connect_error(BYTES(NAME "\x06\x02\x00\x00\x00\x01x")), ERR_PROTOCOL_VERSION);
    assert_int_equal(connect_error(BYTES(NAME "\x84\x02\x00\x00\x00\x01x")), ERR_PROTOCOL_VERSION);
    assert_int_equal(connect_error(BYTES("\x00\x05MQTT")), ERR_MALFORMED_PACKET);
}

static void connect_flags_must_agree(void **state)
{
    (void)state;
    assert_int_equal(connect_error(BYTES(NAME "\x04\x02\x00\x00\x00\x01x")), 0);
    assert_int_equal(connect_error(BYTES(NAME "\x04\x03\x00\x00\x00\x01x")), ERR_MALFORMED_PACKET); /* reserved bit */
    assert_int_equal(connect_error(BYTES(NAME "\x04\x0a\x00\x00\x00\x01x")), ERR_MALFORMED_PACKET); /* will QoS without will */
    assert_int_equal(connect_error(BYTES(NAME "\x04\x22\x00\x00\x00\x01x")), ERR_MALFORMED_PACKET); /* will retain without will */
    assert_int_equal(connect_error(BYTES(NAME "\x04\x1e\x00\x00\x00\x01x\x00\x01t\x00\x00")), ERR_MALFORMED_PACKET); /* will QoS 3 */
    assert_int_equal(connect_error(BYTES(NAME "\x04\x42\x00\x00\x00\x01x\x00\x01p")), ERR_PROTOCOL);                 /* password alone */
    assert_int_equal(connect_error(BYTES(NAME "\x05\x42\x00\x00\x00\x00\x01x\x00\x01p")), 0);                        /* which 5.0 allows */
}

static void client_identifiers_follow_their_version(void **state)
{
    (void)state;
    assert_int_equal(connect_error(BYTES(NAME "\x04\x02\x00\x00\x00\x00")), 0);
    assert_int_equal(connect_error(BYTES(NAME "\x04\x00\x00\x00\x00\x00")), ERR_CLIENT_ID);
    assert_int_equal(connect_error(BYTES(NAME "\x05\x00\x00\x00\x00\x00\x00")), 0);
    assert_int_equal(connect_error(BYTES(NAME "\x04\x02\x00\x00\x00\x02\xc0\x80")), ERR_MALFORMED_PACKET);
    assert_int_equal(connect_error(BYTES(NAME "\x04\x02\x00\x00\x00\x02x\x00")), ERR_MALFORMED_PACKET);
}

static void will_topics_are_topic_names(void **state)
{
    (void)state;
    assert_int_equal(connect_error(BYTES(NAME "\x04\x06\x00\x00\x00\x01x\x00\x01t\x00\x00")), 0);
    assert_int_equal(connect_error(BYTES(NAME "\x04\x06\x00\x00\x00\x01x\x00\x01+\x00\x00")), ERR_TOPIC_NAME);
    assert_int_equal(connect_error(BYTES(NAME "\x04\x06\x00\x00\x00\x01x\x00\x00\x00\x00")), ERR_TOPIC_NAME);
    assert_int_equal(connect_error(BYTES(NAME "\x04\x06\x00\x00\x00\x01x\x00\x01\xff\x00\x00")), ERR_MALFORMED_PACKET);
}

static void a_connect_cut_anywhere_or_too_long_is_malformed(void **state)
{
    (void)state;
    static const uint8_t body[] = NAME "\x05\xee\x00\x3c\x08\x21\x00\x14\x11\x00\x00\x00\x0a\x00\x02id\x05\x18\x00\x00\x00\x01"
                                       "\x00\x03w/t\x00\x02wp\x00\x01u\x00\x02pw";
    size_t size = sizeof body - 1;
    assert_int_equal(connect_error(body, size), 0);
    assert_int_equal(connect_error(body, size + 1), ERR_MALFORMED_PACKET);
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *copy = malloc(cut ? cut : 1);
        memcpy(copy, body, cut);
        assert_int_equal(connect_error(copy, cut), ERR_MALFORMED_PACKET);
        free(copy);
    }
}

/* ---- PUBLISH ---- */

static int publish_decode(uint8_t flags, uint8_t version, const uint8_t *body, size_t size, struct mqtt_publish *out)
{
    struct mqtt_frame frame = frame_of(MQTT_PUBLISH, body, size);
    frame.flags = flags;
    return mqtt_publish_decode(&frame, version, out);
}

static int publish_error(uint8_t flags, uint8_t version, const uint8_t *body, size_t size)
{
    struct mqtt_publish publish, untouched;
    memset(&publish, 0x5a, sizeof publish);
    memset(&untouched, 0x5a, sizeof untouched);
    int error = publish_decode(flags, version, body, size, &publish);
    if (error)
        assert_memory_equal(&publish, &untouched, sizeof publish);
    return error;
}

static void publishes_are_read(void **state)
{
    (void)state;
    struct mqtt_publish publish;
    assert_int_equal(publish_decode(0x0b, 4,
                                    BYTES("\x00\x03"
                                          "a/b\x12\x34payload"),
                                    &publish),
                     0);
    assert_true(publish.dup && publish.retain);
    assert_int_equal(publish.qos, 1);
    assert_int_equal(publish.packet_id, 0x1234);
    assert_int_equal(publish.topic.length, 3);
    assert_int_equal(publish.payload.length, 7);
    assert_memory_equal(publish.payload.data, "payload", 7);
    assert_int_equal(publish_decode(0x00, 4, BYTES("\x00\x01t"), &publish), 0);
    assert_int_equal(publish.packet_id, 0);
    assert_int_equal(publish.payload.length, 0);
    assert_int_equal(publish_decode(0x04, 5, BYTES("\x00\x01t\x00\x01\x08\x02\x00\x00\x00\x3c\x23\x00\x02x"), &publish), 0);
    assert_int_equal(publish.qos, 2);
    assert_true(publish.has_message_expiry);
    assert_int_equal(publish.message_expiry_interval, 60);
    assert_int_equal(publish.topic_alias, 2);
    assert_int_equal(publish.properties_raw.length, 8);
    assert_int_equal(publish.payload.length, 1);
    assert_false(publish.has_subscription_identifier);
    assert_int_equal(publish_decode(0x00, 5, BYTES("\x00\x01t\x05\x0b\x01\x0b\xff\x01"), &publish), 0);
    assert_true(publish.has_subscription_identifier);
    assert_false(publish.has_message_expiry);
    assert_int_equal(publish_decode(0x00, 5, BYTES("\x00\x00\x03\x23\x00\x02x"), &publish), 0); /* the alias alone */
    assert_int_equal(publish.topic.length, 0);
}

static void wrong_publishes_are_refused(void **state)
{
    (void)state;
    assert_int_equal(publish_error(0x06, 5, BYTES("\x00\x01t\x00\x01\x00")), ERR_MALFORMED_PACKET); /* QoS 3 */
    assert_int_equal(publish_error(0x08, 5, BYTES("\x00\x01t\x00")), ERR_MALFORMED_PACKET);         /* duplicate of QoS 0 */
    assert_int_equal(publish_error(0x02, 5, BYTES("\x00\x01t\x00\x00\x00")), ERR_PROTOCOL);         /* identifier 0 */
    assert_int_equal(publish_error(0x02, 4, BYTES("\x00\x01t\x00")), ERR_MALFORMED_PACKET);
    assert_int_equal(publish_error(0x02, 4, BYTES("\x00\x01t")), ERR_MALFORMED_PACKET);
    assert_int_equal(publish_error(0x00, 4, BYTES("\x00\x02t")), ERR_MALFORMED_PACKET);
    assert_int_equal(publish_error(0x00, 4, BYTES("\x00")), ERR_MALFORMED_PACKET);
    assert_int_equal(publish_error(0x00, 4, BYTES("")), ERR_MALFORMED_PACKET);
    assert_int_equal(publish_error(0x00, 5, BYTES("\x00\x01t")), ERR_MALFORMED_PACKET);         /* no property length */
    assert_int_equal(publish_error(0x00, 5, BYTES("\x00\x01t\x02\x01")), ERR_MALFORMED_PACKET); /* properties cut */
    assert_int_equal(publish_error(0x00, 5, BYTES("\x00\x01t\x80\x00")), ERR_MALFORMED_PACKET);
    assert_int_equal(publish_error(0x00, 5, BYTES("\x00\x00\x00x")), ERR_PROTOCOL); /* neither topic nor alias */
    assert_int_equal(publish_error(0x00, 4, BYTES("\x00\x00x")), ERR_TOPIC_NAME);
    assert_int_equal(publish_error(0x00, 4,
                                   BYTES("\x00\x03"
                                         "a/#")),
                     ERR_TOPIC_NAME);
    assert_int_equal(publish_error(0x00, 4,
                                   BYTES("\x00\x03"
                                         "a/+")),
                     ERR_TOPIC_NAME);
    assert_int_equal(publish_error(0x00, 4,
                                   BYTES("\x00\x03"
                                         "a\x00z")),
                     ERR_MALFORMED_PACKET);
    assert_int_equal(publish_error(0x00, 4, BYTES("\x00\x03\xed\xa0\x80")), ERR_MALFORMED_PACKET);
}

static struct mqtt_frame frame_in(const struct buffer *bytes)
{
    struct mqtt_frame frame;
    assert_int_equal(mqtt_frame_decode(bytes->data, bytes->length, UINT32_MAX, &frame), 0);
    assert_int_equal(frame.total_size, bytes->length);
    return frame;
}

static void publishes_of_every_header_size_survive_a_round_trip(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {0, 1, 110, 127, 128, 16370, 16384, 2097140, 2097152};
    static uint8_t payload[2097152];
    struct buffer bytes;
    buffer_init(&bytes, 4 << 20);
    for (uint8_t version = 4; version <= 5; version++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (uint8_t qos = 0; qos <= 2; qos++) {
                struct mqtt_publish in = {.qos = qos,
                                          .dup = qos > 0,
                                          .retain = true,
                                          .packet_id = qos ? 0xabcd : 0,
                                          .topic = slice_of("some/topic"),
                                          .payload = {payload, sizes[i]}};
                if (version == 5)
                    in.properties_raw = slice_of("\x01\x01\x03");
                in.properties_raw.length = version == 5 ? 2 : 0;
                buffer_clear(&bytes);
                size_t position = 0;
                assert_int_equal(mqtt_publish_encode(&bytes, version, &in, &position), 0);
                assert_int_equal(bytes.length, mqtt_publish_size(version, &in));
                if (qos)
                    assert_memory_equal(bytes.data + position, "\xab\xcd", 2);
                else
                    assert_int_equal(position, 0);
                struct mqtt_frame frame = frame_in(&bytes);
                struct mqtt_publish out;
                assert_int_equal(mqtt_publish_decode(&frame, version, &out), 0);
                assert_true(out.qos == qos && out.dup == in.dup && out.retain && out.packet_id == in.packet_id);
                assert_int_equal(out.payload.length, sizes[i]);
                assert_memory_equal(out.topic.data, "some/topic", 10);
                assert_int_equal(out.properties_raw.length, in.properties_raw.length);
            }
    buffer_fini(&bytes);
}

static void encoders_keep_to_the_buffers_limit(void **state)
{
    (void)state;
    struct mqtt_publish publish = {.topic = slice_of("t"), .payload = slice_of("12345")};
    struct buffer bytes;
    buffer_init(&bytes, 10 + 4);
    assert_int_equal(mqtt_publish_encode(&bytes, 4, &publish, NULL), 0);
    assert_int_equal(bytes.length, 10);
    assert_int_equal(mqtt_publish_encode(&bytes, 4, &publish, NULL), ERR_LIMIT);
    assert_int_equal(bytes.length, 10);
    assert_int_equal(mqtt_ack_encode(&bytes, 4, MQTT_PUBACK, 1, 0), 0);
    assert_int_equal(mqtt_ack_encode(&bytes, 4, MQTT_PUBACK, 1, 0), ERR_LIMIT);
    assert_int_equal(mqtt_empty_encode(&bytes, MQTT_PINGRESP), ERR_LIMIT);
    assert_int_equal(bytes.length, 14);
    buffer_fini(&bytes);
}

static void encoders_refuse_what_no_packet_can_hold(void **state)
{
    (void)state;
    static const uint8_t big[65536];
    struct mqtt_slice too_long = {big, 65536};
    struct buffer bytes;
    buffer_init(&bytes, SIZE_MAX);
    struct mqtt_publish publish = {.topic = too_long};
    assert_int_equal(mqtt_publish_encode(&bytes, 4, &publish, NULL), ERR_LIMIT);
    publish = (struct mqtt_publish){.topic = slice_of("t"), .payload = {big, MQTT_REMAINING_LENGTH_MAX}};
    assert_int_equal(mqtt_publish_encode(&bytes, 4, &publish, NULL), ERR_LIMIT);
    struct mqtt_connect connect = {.version = 4, .client_id = too_long};
    assert_int_equal(mqtt_connect_encode(&bytes, &connect), ERR_LIMIT);
    struct mqtt_subscription entry = {.filter = too_long};
    assert_int_equal(mqtt_subscribe_encode(&bytes, 4, 1, &entry, 1), ERR_LIMIT);
    assert_int_equal(mqtt_unsubscribe_encode(&bytes, 4, 1, &too_long, 1), ERR_LIMIT);
    assert_int_equal(bytes.length, 0);
    buffer_fini(&bytes);
}

/* ---- acknowledgements, DISCONNECT, AUTH ---- */

static int ack_error(enum mqtt_packet_type type, uint8_t version, const uint8_t *body, size_t size, struct mqtt_ack *out)
{
    struct mqtt_frame frame = frame_of(type, body, size);
    return mqtt_ack_decode(&frame, version, out);
}

static void acknowledgements_have_three_forms(void **state)
{
    (void)state;
    struct mqtt_ack ack = {.packet_id = 77};
    assert_int_equal(ack_error(MQTT_PUBACK, 4, BYTES("\x01\x02"), &ack), 0);
    assert_int_equal(ack.packet_id, 0x102);
    assert_int_equal(ack_error(MQTT_PUBACK, 5, BYTES("\x01\x02\x10"), &ack), 0);
    assert_int_equal(ack.reason, 0x10);
    assert_int_equal(ack_error(MQTT_PUBACK, 5, BYTES("\x01\x02\x00\x00"), &ack), 0);
    assert_int_equal(ack_error(MQTT_PUBREL, 5, BYTES("\x01\x02\x92\x05\x26\x00\x00\x00\x00"), &ack), 0);
    assert_int_equal(ack.reason, 0x92);
    struct mqtt_ack untouched = ack;
    assert_int_equal(ack_error(MQTT_PUBACK, 4, BYTES("\x01\x02\x00"), &ack), ERR_MALFORMED_PACKET);
    assert_int_equal(ack_error(MQTT_PUBACK, 5, BYTES("\x01\x02\x00\x00z"), &ack), ERR_MALFORMED_PACKET);
    assert_int_equal(ack_error(MQTT_PUBACK, 5, BYTES("\x01"), &ack), ERR_MALFORMED_PACKET);
    assert_int_equal(ack_error(MQTT_PUBACK, 5, BYTES(""), &ack), ERR_MALFORMED_PACKET);
    assert_int_equal(ack_error(MQTT_PUBACK, 5, BYTES("\x00\x00"), &ack), ERR_PROTOCOL);
    assert_int_equal(ack_error(MQTT_PUBACK, 5, BYTES("\x00\x01\x92"), &ack), ERR_PROTOCOL);
    assert_int_equal(ack_error(MQTT_PUBCOMP, 5, BYTES("\x00\x01\x10"), &ack), ERR_PROTOCOL);
    assert_memory_equal(&ack, &untouched, sizeof ack);
}

static void acknowledgements_survive_a_round_trip(void **state)
{
    (void)state;
    for (uint8_t version = 4; version <= 5; version++)
        for (int type = MQTT_PUBACK; type <= MQTT_PUBCOMP; type++) {
            uint8_t reason = version == 4 ? 0 : type <= MQTT_PUBREC ? 0x97 : 0x92;
            for (int with = 0; with < 2; with++) {
                struct buffer bytes;
                buffer_init(&bytes, 16);
                assert_int_equal(mqtt_ack_encode(&bytes, version, (enum mqtt_packet_type)type, 0xfffe, with ? reason : 0), 0);
                struct mqtt_frame frame = frame_in(&bytes);
                struct mqtt_ack ack;
                assert_int_equal(mqtt_ack_decode(&frame, version, &ack), 0);
                assert_int_equal(frame.type, type);
                assert_int_equal(ack.packet_id, 0xfffe);
                assert_int_equal(ack.reason, with ? reason : 0);
                buffer_fini(&bytes);
            }
        }
}

static void disconnects_have_three_forms(void **state)
{
    (void)state;
    struct mqtt_disconnect out;
    struct mqtt_frame frame = frame_of(MQTT_DISCONNECT, BYTES(""));
    assert_int_equal(mqtt_disconnect_decode(&frame, 4, &out), 0);
    assert_int_equal(mqtt_disconnect_decode(&frame, 5, &out), 0);
    assert_int_equal(out.reason, 0);
    frame = frame_of(MQTT_DISCONNECT, BYTES("\x04"));
    assert_int_equal(mqtt_disconnect_decode(&frame, 5, &out), 0);
    assert_int_equal(out.reason, 4);
    assert_int_equal(mqtt_disconnect_decode(&frame, 4, &out), ERR_MALFORMED_PACKET);
    frame = frame_of(MQTT_DISCONNECT, BYTES("\x00\x05\x11\x00\x00\x00\x09"));
    assert_int_equal(mqtt_disconnect_decode(&frame, 5, &out), 0);
    assert_int_equal(out.properties.session_expiry_interval, 9);
    frame = frame_of(MQTT_DISCONNECT, BYTES("\x00\x00z"));
    assert_int_equal(mqtt_disconnect_decode(&frame, 5, &out), ERR_MALFORMED_PACKET);
    frame = frame_of(MQTT_DISCONNECT, BYTES("\x01"));
    assert_int_equal(mqtt_disconnect_decode(&frame, 5, &out), ERR_PROTOCOL);
    struct buffer bytes;
    buffer_init(&bytes, 16);
    assert_int_equal(mqtt_disconnect_encode(&bytes, 5, 0x8e), 0);
    assert_memory_equal(bytes.data, "\xe0\x01\x8e", 3);
    buffer_clear(&bytes);
    assert_int_equal(mqtt_disconnect_encode(&bytes, 4, 0x8e), 0);
    assert_int_equal(bytes.length, 2);
    buffer_fini(&bytes);
}

static void auth_needs_version_5_and_a_method(void **state)
{
    (void)state;
    struct mqtt_auth out;
    struct mqtt_frame frame = frame_of(MQTT_AUTH, BYTES("\x18\x08\x15\x00\x01m\x16\x00\x01!"));
    assert_int_equal(mqtt_auth_decode(&frame, 5, &out), 0);
    assert_int_equal(out.reason, 0x18);
    assert_int_equal(mqtt_auth_decode(&frame, 4, &out), ERR_MALFORMED_PACKET);
    frame = frame_of(MQTT_AUTH, BYTES(""));
    assert_int_equal(mqtt_auth_decode(&frame, 5, &out), 0);
    frame = frame_of(MQTT_AUTH, BYTES("\x18"));
    assert_int_equal(mqtt_auth_decode(&frame, 5, &out), ERR_PROTOCOL);
    frame = frame_of(MQTT_AUTH, BYTES("\x17\x04\x15\x00\x01m"));
    assert_int_equal(mqtt_auth_decode(&frame, 5, &out), ERR_PROTOCOL);
}

static void pings_have_no_body(void **state)
{
    (void)state;
    struct buffer bytes;
    buffer_init(&bytes, 16);
    assert_int_equal(mqtt_empty_encode(&bytes, MQTT_PINGREQ), 0);
    struct mqtt_frame frame = frame_in(&bytes);
    assert_int_equal(frame.type, MQTT_PINGREQ);
    assert_int_equal(mqtt_empty_decode(&frame), 0);
    frame = frame_of(MQTT_PINGREQ, BYTES("x"));
    assert_int_equal(mqtt_empty_decode(&frame), ERR_MALFORMED_PACKET);
    buffer_fini(&bytes);
}

/* ---- CONNACK ---- */

static void connacks_are_read(void **state)
{
    (void)state;
    struct mqtt_connack out;
    struct mqtt_frame frame = frame_of(MQTT_CONNACK, BYTES("\x01\x00"));
    assert_int_equal(mqtt_connack_decode(&frame, 4, &out), 0);
    assert_true(out.session_present);
    frame = frame_of(MQTT_CONNACK, BYTES("\x00\x00\x06\x12\x00\x03"
                                         "abc"));
    assert_int_equal(mqtt_connack_decode(&frame, 5, &out), 0);
    assert_int_equal(out.properties.assigned_client_identifier.length, 3);
    assert_int_equal(out.properties.maximum_qos, 2);
    static const struct {
        uint8_t version;
        const char *body;
        size_t size;
        int error;
    } wrong[] = {
        {4, "\x02\x00", 2, ERR_MALFORMED_PACKET},
        {4, "\x00", 1, ERR_MALFORMED_PACKET},
        {4, "\x00\x00\x00", 3, ERR_MALFORMED_PACKET},
        {4, "\x00\x06", 2, ERR_PROTOCOL},
        {4, "\x01\x05", 2, ERR_PROTOCOL},
        {5, "\x00\x00", 2, ERR_MALFORMED_PACKET},
        {5, "\x00\x01", 2, ERR_PROTOCOL_VERSION},
        {5, "\x01\x87\x00", 3, ERR_PROTOCOL},
        {5, "\x00\x8b\x00", 3, ERR_PROTOCOL},
        {5, "\x00\x00\x00x", 4, ERR_MALFORMED_PACKET},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        frame = frame_of(MQTT_CONNACK, (const uint8_t *)wrong[i].body, wrong[i].size);
        assert_int_equal(mqtt_connack_decode(&frame, wrong[i].version, &out), wrong[i].error);
    }
}

static void connack_reasons_have_a_form_in_3_1_1(void **state)
{
    (void)state;
    static const uint8_t rows[][2] = {{0, 0}, {5, 5}, {0x84, 1}, {0x85, 2}, {0x97, 3}, {0x86, 4}, {0x87, 5}, {0x8c, 5}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buffer bytes;
        buffer_init(&bytes, 16);
        assert_int_equal(mqtt_connack_encode(&bytes, 4, false, rows[i][0], slice_of("")), 0);
        assert_int_equal(bytes.length, 4);
        assert_int_equal(bytes.data[3], rows[i][1]);
        buffer_fini(&bytes);
    }
    struct buffer bytes;
    buffer_init(&bytes, 64);
    assert_int_equal(mqtt_connack_encode(&bytes, 5, true, 0, slice_of("\x24\x01")), 0);
    assert_memory_equal(bytes.data, "\x20\x05\x01\x00\x02\x24\x01", 7);
    buffer_fini(&bytes);
}

static void connects_survive_a_round_trip(void **state)
{
    (void)state;
    for (uint8_t version = 4; version <= 5; version++) {
        struct mqtt_connect in = {.version = version,
                                  .will = true,
                                  .will_retain = true,
                                  .will_qos = 2,
                                  .has_username = true,
                                  .has_password = true,
                                  .keep_alive_s = 600,
                                  .client_id = slice_of("client"),
                                  .will_topic = slice_of("gone"),
                                  .will_payload = slice_of("bye"),
                                  .username = slice_of("user"),
                                  .password = slice_of("secret")};
        in.properties.raw = (struct mqtt_slice){(const uint8_t *)"\x21\x00\x07", 3};
        in.will_properties.raw = (struct mqtt_slice){(const uint8_t *)"\x01\x01", 2};
        struct buffer bytes;
        buffer_init(&bytes, 256);
        assert_int_equal(mqtt_connect_encode(&bytes, &in), 0);
        struct mqtt_frame frame = frame_in(&bytes);
        struct mqtt_connect out;
        assert_int_equal(mqtt_connect_decode(&frame, &out), 0);
        assert_true(out.will && out.will_retain && !out.clean_start && out.has_username && out.has_password);
        assert_int_equal(out.will_qos, 2);
        assert_int_equal(out.keep_alive_s, 600);
        assert_memory_equal(out.client_id.data, "client", 6);
        assert_memory_equal(out.will_payload.data, "bye", 3);
        assert_memory_equal(out.password.data, "secret", 6);
        assert_int_equal(out.properties.receive_maximum, version == 5 ? 7 : 65535);
        assert_int_equal(out.will_properties.payload_format, version == 5);
        buffer_fini(&bytes);
    }
}

/* ---- SUBSCRIBE and its kin ---- */

static int subscribe_error(uint8_t version, const uint8_t *body, size_t size)
{
    struct mqtt_subscribe out;
    struct mqtt_frame frame = frame_of(MQTT_SUBSCRIBE, body, size);
    return mqtt_subscribe_decode(&frame, version, &out);
}

static void subscribes_are_walked(void **state)
{
    (void)state;
    struct mqtt_subscribe out;
    struct mqtt_frame frame = frame_of(MQTT_SUBSCRIBE, BYTES("\x00\x09\x02\x0b\x05\x00\x01#\x2d\x00\x03"
                                                             "a/+\x12"));
    assert_int_equal(mqtt_subscribe_decode(&frame, 5, &out), 0);
    assert_int_equal(out.packet_id, 9);
    assert_int_equal(out.entry_count, 2);
    assert_int_equal(out.properties.subscription_identifier, 5);
    uint32_t position = 0;
    struct mqtt_subscription entry;
    assert_true(mqtt_subscribe_next(&out, false, &position, &entry));
    assert_int_equal(entry.filter.length, 1);
    assert_true(entry.qos == 1 && entry.no_local && entry.retain_as_published && entry.retain_handling == 2);
    assert_true(mqtt_subscribe_next(&out, false, &position, &entry));
    assert_memory_equal(entry.filter.data, "a/+", 3);
    assert_true(entry.qos == 2 && !entry.no_local && !entry.retain_as_published && entry.retain_handling == 1);
    assert_false(mqtt_subscribe_next(&out, false, &position, &entry));
}

static void wrong_subscribes_are_refused(void **state)
{
    (void)state;
    assert_int_equal(subscribe_error(4, BYTES("\x00\x01\x00\x01t\x02")), 0);
    assert_int_equal(subscribe_error(4, BYTES("\x00\x00\x00\x01t\x02")), ERR_PROTOCOL);
    assert_int_equal(subscribe_error(4, BYTES("\x00\x01")), ERR_PROTOCOL);
    assert_int_equal(subscribe_error(5, BYTES("\x00\x01\x00")), ERR_PROTOCOL);
    assert_int_equal(subscribe_error(5, BYTES("\x00\x01")), ERR_MALFORMED_PACKET);
    assert_int_equal(subscribe_error(4, BYTES("\x00")), ERR_MALFORMED_PACKET);
    assert_int_equal(subscribe_error(4, BYTES("\x00\x01\x00\x01t")), ERR_MALFORMED_PACKET);
    assert_int_equal(subscribe_error(4, BYTES("\x00\x01\x00\x02t")), ERR_MALFORMED_PACKET);
    assert_int_equal(subscribe_error(4, BYTES("\x00\x01\x00\x01t\x03")), ERR_MALFORMED_PACKET);
    for (unsigned bit = 2; bit < 8; bit++) {
        uint8_t four[] = "\x00\x01\x00\x01t\x00", five[] = "\x00\x01\x00\x00\x01t\x00";
        four[5] = five[6] = (uint8_t)(1u << bit);
        assert_int_equal(subscribe_error(4, four, 6), ERR_MALFORMED_PACKET);
        assert_int_equal(subscribe_error(5, five, 7), bit >= 6 ? ERR_MALFORMED_PACKET : 0);
    }
    assert_int_equal(subscribe_error(5, BYTES("\x00\x01\x00\x00\x01t\x03")), ERR_PROTOCOL);
    assert_int_equal(subscribe_error(5, BYTES("\x00\x01\x00\x00\x01t\x30")), ERR_PROTOCOL);
    assert_int_equal(subscribe_error(5, BYTES("\x00\x01\x00\x00\x0a$share/g/t\x04")), ERR_PROTOCOL);
    assert_int_equal(subscribe_error(5, BYTES("\x00\x01\x00\x00\x0a$share/g/t\x01")), 0);
    assert_int_equal(subscribe_error(4, BYTES("\x00\x01\x00\x02t#\x00")), ERR_TOPIC_FILTER);
    assert_int_equal(subscribe_error(4, BYTES("\x00\x01\x00\x00\x00")), ERR_TOPIC_FILTER);
    assert_int_equal(subscribe_error(4, BYTES("\x00\x01\x00\x01\xff\x00")), ERR_MALFORMED_PACKET);
    assert_int_equal(subscribe_error(4, BYTES("\x00\x01\x00\x01t\x00\x00\x01+\x00\x00\x02++\x00")), ERR_TOPIC_FILTER);
}

static void unsubscribes_are_read(void **state)
{
    (void)state;
    struct mqtt_subscribe out;
    struct mqtt_frame frame = frame_of(MQTT_UNSUBSCRIBE, BYTES("\x00\x09\x00\x01#\x00\x01t"));
    assert_int_equal(mqtt_unsubscribe_decode(&frame, 4, &out), 0);
    assert_int_equal(out.entry_count, 2);
    uint32_t position = 0;
    struct mqtt_subscription entry;
    assert_true(mqtt_subscribe_next(&out, true, &position, &entry));
    assert_true(mqtt_subscribe_next(&out, true, &position, &entry));
    assert_memory_equal(entry.filter.data, "t", 1);
    assert_false(mqtt_subscribe_next(&out, true, &position, &entry));
    frame = frame_of(MQTT_UNSUBSCRIBE, BYTES("\x00\x09"));
    assert_int_equal(mqtt_unsubscribe_decode(&frame, 4, &out), ERR_PROTOCOL);
    frame = frame_of(MQTT_UNSUBSCRIBE, BYTES("\x00\x00\x00\x01t"));
    assert_int_equal(mqtt_unsubscribe_decode(&frame, 4, &out), ERR_PROTOCOL);
}

static void subscriptions_survive_a_round_trip(void **state)
{
    (void)state;
    for (uint8_t version = 4; version <= 5; version++) {
        struct mqtt_subscription in[2] = {
            {.filter = slice_of("a/#"), .qos = 1},
            {.filter = slice_of("+"), .qos = 2, .no_local = true, .retain_as_published = true, .retain_handling = 1}};
        struct buffer bytes;
        buffer_init(&bytes, 256);
        assert_int_equal(mqtt_subscribe_encode(&bytes, version, 3, in, 2), 0);
        struct mqtt_frame frame = frame_in(&bytes);
        struct mqtt_subscribe out;
        assert_int_equal(mqtt_subscribe_decode(&frame, version, &out), 0);
        uint32_t position = 0;
        struct mqtt_subscription entry;
        assert_true(mqtt_subscribe_next(&out, false, &position, &entry) && mqtt_subscribe_next(&out, false, &position, &entry));
        assert_int_equal(entry.qos, 2);
        assert_int_equal(entry.no_local, version == 5);
        assert_int_equal(entry.retain_handling, version == 5);
        struct mqtt_slice filters[2] = {in[0].filter, in[1].filter};
        buffer_clear(&bytes);
        assert_int_equal(mqtt_unsubscribe_encode(&bytes, version, 3, filters, 2), 0);
        frame = frame_in(&bytes);
        assert_int_equal(mqtt_unsubscribe_decode(&frame, version, &out), 0);
        assert_int_equal(out.entry_count, 2);
        buffer_fini(&bytes);
    }
}

static void subacks_survive_a_round_trip(void **state)
{
    (void)state;
    static const uint8_t codes[] = {0, 1, 2, 0x87};
    for (uint8_t version = 4; version <= 5; version++) {
        struct buffer bytes;
        buffer_init(&bytes, 256);
        uint16_t id;
        struct mqtt_slice out;
        assert_int_equal(mqtt_suback_encode(&bytes, version, 3, codes, 4), 0);
        assert_int_equal(bytes.length, mqtt_suback_size(version, 4));
        struct mqtt_frame frame = frame_in(&bytes);
        assert_int_equal(mqtt_suback_decode(&frame, version, &id, &out), 0);
        assert_int_equal(id, 3);
        assert_int_equal(out.length, 4);
        assert_int_equal(out.data[3], version == 5 ? 0x87 : 0x80);
        buffer_clear(&bytes);
        assert_int_equal(mqtt_unsuback_encode(&bytes, version, 4, (const uint8_t *)"\x00\x11", 2), 0);
        frame = frame_in(&bytes);
        assert_int_equal(mqtt_suback_decode(&frame, version, &id, &out), 0);
        assert_int_equal(id, 4);
        assert_int_equal(out.length, version == 5 ? 2 : 0);
        buffer_fini(&bytes);
    }
}

static void wrong_subacks_are_refused(void **state)
{
    (void)state;
    static const struct {
        enum mqtt_packet_type type;
        uint8_t version;
        const char *body;
        size_t size;
        int error;
    } rows[] = {
        {MQTT_SUBACK, 4, "\x00\x01", 2, ERR_PROTOCOL},         {MQTT_SUBACK, 4, "\x00\x01\x03", 3, ERR_PROTOCOL},
        {MQTT_SUBACK, 4, "\x00\x00\x01", 3, ERR_PROTOCOL},     {MQTT_SUBACK, 4, "\x00", 1, ERR_MALFORMED_PACKET},
        {MQTT_SUBACK, 5, "\x00\x01\x00\x11", 4, ERR_PROTOCOL}, {MQTT_UNSUBACK, 5, "\x00\x01\x00\x01", 4, ERR_PROTOCOL},
        {MQTT_UNSUBACK, 5, "\x00\x01\x00", 3, ERR_PROTOCOL},   {MQTT_UNSUBACK, 4, "\x00\x01\x00", 3, ERR_MALFORMED_PACKET},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct mqtt_frame frame = frame_of(rows[i].type, (const uint8_t *)rows[i].body, rows[i].size);
        uint16_t id;
        struct mqtt_slice codes;
        assert_int_equal(mqtt_suback_decode(&frame, rows[i].version, &id, &codes), rows[i].error);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_is_found),
        cmocka_unit_test(a_frame_grows_byte_by_byte),
        cmocka_unit_test(frame_lengths_have_four_bytes_at_most),
        cmocka_unit_test(frame_lengths_with_spare_bytes_are_told),
        cmocka_unit_test(reserved_types_and_flags_are_refused),
        cmocka_unit_test(a_large_packet_is_refused_before_it_arrives),
        cmocka_unit_test(a_full_connect_of_3_1_1_is_read),
        cmocka_unit_test(a_full_connect_of_5_is_read),
        cmocka_unit_test(unknown_protocols_are_told_so),
        cmocka_unit_test(connect_flags_must_agree),
        cmocka_unit_test(client_identifiers_follow_their_version),
        cmocka_unit_test(will_topics_are_topic_names),
        cmocka_unit_test(a_connect_cut_anywhere_or_too_long_is_malformed),
        cmocka_unit_test(publishes_are_read),
        cmocka_unit_test(wrong_publishes_are_refused),
        cmocka_unit_test(publishes_of_every_header_size_survive_a_round_trip),
        cmocka_unit_test(encoders_keep_to_the_buffers_limit),
        cmocka_unit_test(encoders_refuse_what_no_packet_can_hold),
        cmocka_unit_test(acknowledgements_have_three_forms),
        cmocka_unit_test(acknowledgements_survive_a_round_trip),
        cmocka_unit_test(disconnects_have_three_forms),
        cmocka_unit_test(auth_needs_version_5_and_a_method),
        cmocka_unit_test(pings_have_no_body),
        cmocka_unit_test(connacks_are_read),
        cmocka_unit_test(connack_reasons_have_a_form_in_3_1_1),
        cmocka_unit_test(connects_survive_a_round_trip),
        cmocka_unit_test(subscribes_are_walked),
        cmocka_unit_test(wrong_subscribes_are_refused),
        cmocka_unit_test(unsubscribes_are_read),
        cmocka_unit_test(subscriptions_survive_a_round_trip),
        cmocka_unit_test(subacks_survive_a_round_trip),
        cmocka_unit_test(wrong_subacks_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
