/* The session: order of packets, versions, flow control in both directions, keep alive, and that an error is final. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "mqtt/session.h"
#include "mqtt_bytes.h"

#define SECOND UINT64_C(1000000000)

static const struct mqtt_session_limits limits = {.packet_size_max = 1000, .receive_maximum = 3, .qos_max = 1, .retain_available = false};

struct fixture {
    struct mqtt_session session;
    struct mqtt_event event;
    size_t consumed;
};

static void feed(struct fixture *f, const uint8_t *bytes, size_t length)
{
    mqtt_session_next(&f->session, bytes, length, 5 * SECOND, &f->consumed, &f->event);
}

#define FEED(f, text) feed(f, BYTES(text))

static void expect_error(struct fixture *f, int error)
{
    assert_int_equal(f->event.type, MQTT_EVENT_ERROR);
    assert_int_equal(f->event.error, error);
    assert_int_equal(error_class(error), ERROR_CLASS_PEER);
    assert_int_equal(f->session.state, MQTT_SESSION_CLOSED);
    FEED(f, "\xc0\x00");
    assert_int_equal(f->event.type, MQTT_EVENT_ERROR);
    assert_int_equal(f->event.error, error);
    assert_int_equal(f->consumed, 0);
    assert_true(mqtt_session_deadline_ns(&f->session) == UINT64_MAX);
}

/* A session that waits for its first packet. */
static struct fixture fresh(void)
{
    struct fixture f;
    memset(&f, 0, sizeof f);
    mqtt_session_init(&f.session, &limits, 0);
    return f;
}

static struct fixture opened(uint8_t version)
{
    struct fixture f = fresh();
    if (version == 5)
        FEED(&f, "\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00");
    else
        FEED(&f, "\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00");
    assert_int_equal(f.event.type, MQTT_EVENT_CONNECT);
    mqtt_session_accept(&f.session, f.session.keep_alive_s);
    return f;
}

/* ---- before CONNECT ---- */

static void the_first_packet_opens_the_session(void **state)
{
    (void)state;
    struct fixture f = fresh();
    assert_int_equal(f.session.state, MQTT_SESSION_NEW);
    FEED(&f, "");
    assert_int_equal(f.event.type, MQTT_EVENT_NEED_MORE);
    FEED(&f, "\x10\x0d\x00\x04MQ");
    assert_int_equal(f.event.type, MQTT_EVENT_NEED_MORE);
    assert_int_equal(f.event.needed, 15);
    assert_int_equal(f.consumed, 0);
    /* An impatient client sends more at once; that waits until the CONNECT is answered. */
    FEED(&f, "\x10\x10\x00\x04MQTT\x05\x02\x00\x0a\x03\x21\x00\x02\x00\x00\xc0\x00");
    assert_int_equal(f.event.type, MQTT_EVENT_CONNECT);
    assert_int_equal(f.consumed, 18);
    assert_int_equal(f.session.version, 5);
    assert_int_equal(f.session.send_maximum, 2);
    FEED(&f, "\xc0\x00");
    assert_int_equal(f.event.type, MQTT_EVENT_NEED_MORE);
    assert_int_equal(f.consumed, 0);
    mqtt_session_accept(&f.session, 10);
    assert_int_equal(f.session.state, MQTT_SESSION_ACTIVE);
    FEED(&f, "\xc0\x00");
    assert_int_equal(f.event.type, MQTT_EVENT_PING);
    assert_int_equal(f.consumed, 2);
}

static void anything_else_first_is_refused_from_its_first_byte(void **state)
{
    (void)state;
    for (unsigned type = 0; type < 16; type++) {
        if (type == MQTT_CONNECT)
            continue;
        struct fixture f = fresh();
        uint8_t byte = (uint8_t)(type << 4);
        feed(&f, &byte, 1);
        expect_error(&f, ERR_PROTOCOL);
    }
}

/* The bytes that a peer is told for an error. */
static void expect_told(const struct fixture *f, int error, const uint8_t *bytes, size_t length)
{
    struct buffer told;
    buffer_init(&told, 64);
    assert_int_equal(mqtt_session_refuse(&f->session, error, &told), 0);
    if (f->session.version == MQTT_VERSION_5_0) { /* with the reason in words behind */
        const uint8_t *properties = told.data + length - (bytes[0] == 0x20);
        size_t text_length = strlen(error_text(error));
        assert_int_equal(told.length, length + (bytes[0] == 0xe0) + 3 + text_length);
        assert_int_equal(told.data[1], told.length - 2);
        assert_int_equal(properties[0], 3 + text_length);
        assert_int_equal(properties[1], MQTT_PROPERTY_REASON_STRING);
        assert_memory_equal(properties + 4, error_text(error), text_length);
        assert_memory_equal(told.data + 2, bytes + 2, length - 2 - (bytes[0] == 0x20));
        buffer_fini(&told);
        return;
    }
    assert_int_equal(told.length, length);
    if (length)
        assert_memory_equal(told.data, bytes, length);
    buffer_fini(&told);
}

static void a_refused_connect_is_answered_as_its_version_wants(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        uint8_t version;
        int error;
        const char *told;
        size_t told_length;
    } rows[] = {
#define ROW(text, version, error, told) {text, sizeof(text) - 1, version, error, told, sizeof(told) - 1}
        ROW("\x10\x0c\x00\x04MQTT\x04\x00\x00\x0a\x00\x00", 4, ERR_CLIENT_ID, "\x20\x02\x00\x02"),
        ROW("\x10\x0c\x00\x04MQTT\x04\x03\x00\x0a\x00\x00", 4, ERR_MALFORMED_PACKET, ""),            /* reserved flag */
        ROW("\x10\x10\x00\x04MQTT\x04\x42\x00\x0a\x00\x00\x00\x02pw", 4, ERR_PROTOCOL, ""),          /* password without user name */
        ROW("\x10\x11\x00\x04MQTT\x04\x06\x00\x0a\x00\x00\x00\x01#\x00\x00", 4, ERR_TOPIC_NAME, ""), /* will topic */
        ROW("\x10\x0c\x00\x04MQTT\x06\x00\x00\x0a\x00\x00", 0, ERR_PROTOCOL_VERSION, "\x20\x02\x00\x01"),
        ROW("\x10\x0c\x00\x06MQIsdp\x03\x02\x00\x0a", 0, ERR_PROTOCOL_VERSION, "\x20\x02\x00\x01"),
        ROW("\x10\x04\x00\x04MQ", 0, ERR_MALFORMED_PACKET, ""),
        ROW("\x10\xff\x7f", 0, ERR_PACKET_TOO_LARGE, ""),
        ROW("\xc0\x00", 0, ERR_PROTOCOL, ""),
        ROW("\x10\x10\x00\x04MQTT\x05\x02\x00\x0a\x03\x21\x00\x00\x00\x00", 5, ERR_PROTOCOL, "\x20\x03\x00\x82\x00"), /* maximum 0 */
        ROW("\x10\x0d\x00\x04MQTT\x05\x03\x00\x0a\x00\x00\x00", 5, ERR_MALFORMED_PACKET, "\x20\x03\x00\x81\x00"),
        ROW("\x10\x11\x00\x04MQTT\x05\x02\x00\x0a\x04\x15\x00\x01m\x00\x00", 5, ERR_AUTHENTICATION_METHOD, "\x20\x03\x00\x8c\x00"),
        ROW("\x10\x13\x00\x04MQTT\x05\x06\x00\x0a\x00\x00\x00\x00\x00\x01#\x00\x00", 5, ERR_TOPIC_NAME, "\x20\x03\x00\x90\x00"),
#undef ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fixture f = fresh();
        feed(&f, (const uint8_t *)rows[i].bytes, rows[i].length);
        assert_int_equal(f.session.version, rows[i].version);
        expect_error(&f, rows[i].error);
        expect_told(&f, rows[i].error, (const uint8_t *)rows[i].told, rows[i].told_length);
    }
}

static void a_length_with_spare_bytes_is_taken_in_3_1_1_alone(void **state)
{
    (void)state;
    struct fixture f = fresh();
    FEED(&f, "\x10\x8c\x80\x00\x00\x04MQTT\x04\x02\x00\x0a\x00\x00");
    assert_int_equal(f.event.type, MQTT_EVENT_CONNECT);
    assert_int_equal(f.consumed, 16);
    mqtt_session_accept(&f.session, 10);
    FEED(&f, "\xc0\x80\x80\x80\x00");
    assert_int_equal(f.event.type, MQTT_EVENT_PING);
    assert_int_equal(f.consumed, 5);
    FEED(&f, "\x30\x84\x00\x00\x01tA");
    assert_int_equal(f.event.type, MQTT_EVENT_PUBLISH);
    assert_int_equal(f.event.publish.payload.length, 1);
    f = fresh();
    FEED(&f, "\x10\x8d\x00\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00");
    expect_error(&f, ERR_MALFORMED_PACKET);
    expect_told(&f, ERR_MALFORMED_PACKET, BYTES("\x20\x03\x00\x81\x00"));
    f = opened(5);
    FEED(&f, "\xc0\x80\x00");
    expect_error(&f, ERR_MALFORMED_PACKET);
}

static void a_connect_that_cannot_be_served_is_answered_in_both_versions(void **state)
{
    (void)state;
    struct fixture f = fresh();
    FEED(&f, "\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00");
    expect_told(&f, ERR_NO_MEMORY, BYTES("\x20\x02\x00\x03"));
    f = fresh();
    FEED(&f, "\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00");
    expect_told(&f, ERR_RETAIN_NOT_SUPPORTED, BYTES("\x20\x03\x00\x9a\x00"));
}

static void an_accepted_client_is_told_in_5_alone(void **state)
{
    (void)state;
    for (uint8_t version = 4; version <= 5; version++) {
        struct fixture f = opened(version);
        FEED(&f, "\xc1");
        expect_error(&f, ERR_MALFORMED_PACKET);
        expect_told(&f, ERR_MALFORMED_PACKET, (const uint8_t *)"\xe0\x01\x81", version == 5 ? 3 : 0);
    }
}

static void the_peers_limits_are_noted(void **state)
{
    (void)state;
    struct fixture f = fresh();
    FEED(&f, "\x10\x17\x00\x04MQTT\x05\x02\x00\x0a\x0a\x27\x00\x00\x10\x00\x11\x00\x00\x00\x07\x00\x00");
    assert_int_equal(f.event.type, MQTT_EVENT_CONNECT);
    assert_int_equal(f.session.peer_packet_size_max, 4096);
    assert_int_equal(f.session.send_maximum, MQTT_SEND_WINDOW);
    assert_int_equal(f.session.session_expiry_interval_s, 7);
    assert_int_equal(f.session.keep_alive_s, 10);
    f = opened(4);
    assert_true(f.session.peer_packet_size_max == UINT32_MAX);
    assert_int_equal(f.session.send_maximum, MQTT_SEND_WINDOW);
}

/* ---- what a client sends ---- */

static void packets_come_out_one_by_one(void **state)
{
    (void)state;
    struct fixture f = opened(4);
    static const uint8_t bytes[] = "\x30\x04\x00\x01tA"
                                   "\x32\x06\x00\x01t\x00\x07"
                                   "B"
                                   "\x82\x06\x00\x02\x00\x01#\x01"
                                   "\xa2\x05\x00\x03\x00\x01#"
                                   "\xc0\x00"
                                   "\xe0\x00";
    static const enum mqtt_event_type expected[] = {MQTT_EVENT_PUBLISH,     MQTT_EVENT_PUBLISH, MQTT_EVENT_SUBSCRIBE,
                                                    MQTT_EVENT_UNSUBSCRIBE, MQTT_EVENT_PING,    MQTT_EVENT_DISCONNECT};
    size_t at = 0;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        feed(&f, bytes + at, sizeof bytes - 1 - at);
        assert_int_equal(f.event.type, expected[i]);
        at += f.consumed;
        if (i == 1) {
            assert_int_equal(f.event.publish.packet_id, 7);
            assert_memory_equal(f.event.publish.payload.data, "B", 1);
        }
        if (i == 2)
            assert_int_equal(f.event.subscribe.entry_count, 1);
    }
    assert_int_equal(at, sizeof bytes - 1);
    assert_int_equal(f.session.state, MQTT_SESSION_CLOSED);
    FEED(&f, "\xc0\x00");
    expect_error(&f, ERR_PROTOCOL);
}

static void every_cut_of_the_bytes_waits_for_more(void **state)
{
    (void)state;
    static const uint8_t bytes[] = "\x32\x06\x00\x01t\x00\x07x";
    for (size_t length = 0; length < sizeof bytes - 1; length++) {
        struct fixture f = opened(4);
        feed(&f, bytes, length);
        assert_int_equal(f.event.type, MQTT_EVENT_NEED_MORE);
        assert_int_equal(f.event.needed, length < 2 ? 0 : 8);
        assert_int_equal(f.consumed, 0);
        feed(&f, bytes, sizeof bytes - 1);
        assert_int_equal(f.event.type, MQTT_EVENT_PUBLISH);
    }
}

static void what_a_client_must_not_send_closes_the_session(void **state)
{
    (void)state;
    static const struct {
        uint8_t version;
        const char *bytes;
        size_t length;
        int error;
    } rows[] = {
#define ROW(version, text, error) {version, text, sizeof(text) - 1, error}
        ROW(4, "\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00", ERR_PROTOCOL), /* a second CONNECT */
        ROW(4, "\x20\x02\x00\x00", ERR_PROTOCOL),                             /* CONNACK */
        ROW(4, "\x90\x03\x00\x01\x00", ERR_PROTOCOL),                         /* SUBACK */
        ROW(4, "\xb0\x02\x00\x01", ERR_PROTOCOL),                             /* UNSUBACK */
        ROW(4, "\xd0\x00", ERR_PROTOCOL),                                     /* PINGRESP */
        ROW(5, "\x62\x01\x00", ERR_MALFORMED_PACKET),                         /* half a PUBREL */
        ROW(4, "\x60\x02\x00\x01", ERR_MALFORMED_PACKET),                     /* PUBREL without its flags */
        ROW(4, "\x50\x02\x00\x00", ERR_PROTOCOL),                             /* PUBREC of identifier 0 */
        ROW(4, "\x70\x03\x00\x01\x00", ERR_MALFORMED_PACKET),                 /* PUBCOMP with a reason, in 3.1.1 */
        ROW(4, "\xf0\x00", ERR_MALFORMED_PACKET),                             /* AUTH exists in 5.0 only */
        ROW(5, "\xf0\x00", ERR_PROTOCOL),
        ROW(5, "\xf0\x01\x18", ERR_PROTOCOL),
        ROW(4, "\x34\x05\x00\x01t\x00\x01", ERR_QOS_NOT_SUPPORTED),
        ROW(5, "\x34\x06\x00\x01t\x00\x01\x00", ERR_QOS_NOT_SUPPORTED),
        ROW(5, "\x31\x04\x00\x01t\x00", ERR_RETAIN_NOT_SUPPORTED),
        ROW(5, "\x30\x07\x00\x01t\x03\x23\x00\x01", ERR_TOPIC_ALIAS),
        ROW(5, "\x30\x06\x00\x00\x03\x23\x00\x01", ERR_TOPIC_ALIAS),
        ROW(5, "\x30\x07\x00\x01t\x03\x23\x00\x00", ERR_TOPIC_ALIAS),
        ROW(5, "\x30\x06\x00\x01t\x02\x0b\x01", ERR_PROTOCOL), /* subscription identifier */
        ROW(4, "\xc0\x01\x00", ERR_MALFORMED_PACKET),
        ROW(4, "\xc1", ERR_MALFORMED_PACKET),
        ROW(4, "\x82\x02\x00\x01", ERR_PROTOCOL),
        ROW(4, "\xa2\x02\x00\x01", ERR_PROTOCOL),
        ROW(5, "\x40\x03\x00\x01\x01", ERR_PROTOCOL),
        ROW(5, "\xe0\x07\x00\x05\x11\x00\x00\x00\x01", ERR_PROTOCOL), /* expiry after none was asked for */
        ROW(5, "\xe0\x01\x01", ERR_PROTOCOL),
        ROW(4, "\x30\xe6\x07", ERR_PACKET_TOO_LARGE), /* 1001 bytes in all */
#undef ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fixture f = opened(rows[i].version);
        feed(&f, (const uint8_t *)rows[i].bytes, rows[i].length);
        if (f.event.type != MQTT_EVENT_ERROR || f.event.error != rows[i].error)
            print_message("row %zu\n", i);
        assert_int_equal(f.consumed, 0);
        expect_error(&f, rows[i].error);
    }
}

static void retained_publishes_of_3_1_1_pass(void **state)
{
    (void)state;
    struct fixture f = opened(4);
    FEED(&f, "\x31\x03\x00\x01t");
    assert_int_equal(f.event.type, MQTT_EVENT_PUBLISH);
    assert_true(f.event.publish.retain);
}

static void session_expiry_may_change_when_one_was_asked_for(void **state)
{
    (void)state;
    struct fixture f = fresh();
    FEED(&f, "\x10\x12\x00\x04MQTT\x05\x02\x00\x0a\x05\x11\x00\x00\x00\x07\x00\x00");
    mqtt_session_accept(&f.session, 10);
    FEED(&f, "\xe0\x07\x00\x05\x11\x00\x00\x00\x01");
    assert_int_equal(f.event.type, MQTT_EVENT_DISCONNECT);
    assert_int_equal(f.event.disconnect.properties.session_expiry_interval, 1);
}

static void version_5_keeps_to_the_receive_maximum(void **state)
{
    (void)state;
    struct fixture f = opened(5);
    for (int i = 0; i < 3; i++) {
        FEED(&f, "\x32\x06\x00\x01t\x00\x01\x00");
        assert_int_equal(f.event.type, MQTT_EVENT_PUBLISH);
    }
    FEED(&f, "\x30\x04\x00\x01t\x00"); /* QoS 0 does not count */
    assert_int_equal(f.event.type, MQTT_EVENT_PUBLISH);
    mqtt_session_acknowledged(&f.session);
    FEED(&f, "\x32\x06\x00\x01t\x00\x01\x00");
    assert_int_equal(f.event.type, MQTT_EVENT_PUBLISH);
    FEED(&f, "\x32\x06\x00\x01t\x00\x01\x00");
    expect_error(&f, ERR_RECEIVE_MAXIMUM);
}

static void version_3_1_1_knows_no_receive_maximum(void **state)
{
    (void)state;
    struct fixture f = opened(4);
    for (int i = 0; i < 70000; i++) {
        FEED(&f, "\x32\x05\x00\x01t\x00\x01");
        assert_int_equal(f.event.type, MQTT_EVENT_PUBLISH);
    }
    assert_int_equal(f.session.inbound_unacknowledged, 70000);
}

/* ---- what we send ---- */

static bool acknowledge(struct fixture *f, uint16_t id)
{
    uint8_t bytes[] = {0x40, 2, (uint8_t)(id >> 8), (uint8_t)id};
    feed(f, bytes, sizeof bytes);
    assert_int_equal(f->consumed, 4);
    if (f->event.type == MQTT_EVENT_SETTLED) {
        assert_int_equal(f->event.ack.packet_id, id);
        return true;
    }
    assert_int_equal(f->event.type, MQTT_EVENT_NEED_MORE);
    return false;
}

static void identifiers_go_round_in_turn(void **state)
{
    (void)state;
    struct fixture f = opened(4);
    for (uint32_t i = 0; i < 3 * 65535; i++) {
        uint16_t expected = (uint16_t)(i % 65535 + 1);
        assert_int_equal(mqtt_session_take_id(&f.session, 1), expected);
        assert_true(acknowledge(&f, expected));
        assert_false(acknowledge(&f, expected));
    }
    assert_int_equal(f.session.unexpected_answers, 3 * 65535);
    assert_int_equal(f.session.outbound_unacknowledged, 0);
}

static void the_window_is_full_at_its_limit(void **state)
{
    (void)state;
    struct fixture f = opened(4);
    for (int i = 1; i <= MQTT_SEND_WINDOW; i++)
        assert_int_equal(mqtt_session_take_id(&f.session, 1), i);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 0);
    /* Answers behind the oldest free no room: the window hangs on its start. */
    for (int i = 2; i <= MQTT_SEND_WINDOW; i++)
        assert_true(acknowledge(&f, (uint16_t)i));
    assert_int_equal(f.session.outbound_unacknowledged, 1);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 0);
    assert_true(acknowledge(&f, 1));
    assert_int_equal(f.session.outbound_unacknowledged, 0);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), MQTT_SEND_WINDOW + 1);
}

static void the_peers_receive_maximum_is_kept(void **state)
{
    (void)state;
    struct fixture f = fresh();
    FEED(&f, "\x10\x10\x00\x04MQTT\x05\x02\x00\x0a\x03\x21\x00\x02\x00\x00");
    mqtt_session_accept(&f.session, 10);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 1);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 2);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 0);
    assert_true(acknowledge(&f, 2));
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 3);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 0);
}

/* Against a plain array of what waits, over several turns of the identifiers. */
static void answers_in_any_order_free_their_identifiers(void **state)
{
    (void)state;
    static bool waits[65536];
    struct fixture f = opened(4);
    uint32_t random = 7, waiting = 0, oldest = 1, next = 1;
    memset(waits, 0, sizeof waits);
    for (int step = 0; step < 400000; step++) {
        random = random * 1664525 + 1013904223;
        uint32_t pick = random >> 8;
        uint32_t span = (next + 65535 - oldest) % 65535;
        if (pick % 16 < 9) {
            uint16_t id = mqtt_session_take_id(&f.session, 1);
            assert_int_equal(id, span < MQTT_SEND_WINDOW ? next : 0);
            if (id) {
                waits[id] = true;
                waiting++;
                next = next % 65535 + 1;
            }
        } else {
            /* Mostly the oldest, now and then one anywhere around the window. */
            uint32_t id = pick % 5 ? oldest : (oldest + 65535 - 20 + pick / 16 % 5000 - 1) % 65535 + 1;
            assert_int_equal(acknowledge(&f, (uint16_t)id), waits[id]);
            waiting -= waits[id];
            waits[id] = false;
        }
        while (oldest != next && !waits[oldest])
            oldest = oldest % 65535 + 1;
        assert_int_equal(f.session.oldest_packet_id, oldest);
        assert_int_equal(f.session.outbound_unacknowledged, waiting);
    }
    assert_in_range(f.session.unexpected_answers, 1, 400000);
}

static void an_unexpected_puback_hides_nothing_behind_it(void **state)
{
    (void)state;
    struct fixture f = opened(4);
    FEED(&f, "\x40\x02\x00\x05\x40\x02\xff\xff\xc0\x00");
    assert_int_equal(f.event.type, MQTT_EVENT_PING);
    assert_int_equal(f.consumed, 10);
    FEED(&f, "\x40\x02\x00\x05\x40\x02\xff");
    assert_int_equal(f.event.type, MQTT_EVENT_NEED_MORE);
    assert_int_equal(f.consumed, 4);
    assert_int_equal(f.event.needed, 4);
    assert_int_equal(f.session.unexpected_answers, 3);
    FEED(&f, "\x40\x02\x00\x05\xd0\x00");
    assert_int_equal(f.event.type, MQTT_EVENT_ERROR);
}

/* ---- time ---- */

static void deadlines_follow_the_clock_they_are_given(void **state)
{
    (void)state;
    struct mqtt_session session;
    mqtt_session_init(&session, &limits, 100 * SECOND);
    assert_true(mqtt_session_deadline_ns(&session) == 110 * SECOND);
    struct fixture f = opened(4); /* at second 5, keep alive 10 s */
    assert_true(mqtt_session_deadline_ns(&f.session) == 20 * SECOND);
    size_t consumed;
    mqtt_session_next(&f.session, BYTES("\xc0\x00"), 7 * SECOND, &consumed, &f.event);
    assert_true(mqtt_session_deadline_ns(&f.session) == 22 * SECOND);
    mqtt_session_next(&f.session, BYTES("\xc0"), 9 * SECOND, &consumed, &f.event); /* half a packet proves nothing */
    assert_true(mqtt_session_deadline_ns(&f.session) == 22 * SECOND);
    f.session.keep_alive_s = 65535;
    assert_true(mqtt_session_deadline_ns(&f.session) == 7 * SECOND + 65535 * SECOND * 3 / 2);
    mqtt_session_accept(&f.session, 0);
    assert_true(mqtt_session_deadline_ns(&f.session) == UINT64_MAX);
}

static void reasons_are_told_to_who_wants_them_and_fit(void **state)
{
    (void)state;
    struct fixture f = fresh();
    FEED(&f, "\x10\x0f\x00\x04MQTT\x05\x02\x00\x0a\x02\x17\x00\x00\x00");
    mqtt_session_accept(&f.session, 10);
    struct buffer told;
    buffer_init(&told, 64);
    assert_int_equal(mqtt_session_refuse(&f.session, ERR_PROTOCOL, &told), 0);
    assert_int_equal(told.length, 3);
    assert_memory_equal(told.data, "\xe0\x01\x82", 3);
    f.session.no_reasons = false;
    size_t whole = 2 + 1 + 1 + 3 + strlen(error_text(ERR_PROTOCOL));
    for (uint32_t most = 2; most <= whole + 1; most++) {
        buffer_clear(&told);
        f.session.peer_packet_size_max = most;
        assert_int_equal(mqtt_session_refuse(&f.session, ERR_PROTOCOL, &told), 0);
        assert_int_equal(told.length, most < 3 ? 0 : most < whole ? 3 : whole);
    }
    buffer_fini(&told);
    mqtt_session_fini(&f.session);
}

static void an_alias_stands_for_its_topic(void **state)
{
    (void)state;
    struct fixture f = fresh();
    f.session.limits.topic_alias_max = 2;
    FEED(&f, "\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00");
    mqtt_session_accept(&f.session, 10);
    FEED(&f, "\x30\x09\x00\x03one\x03\x23\x00\x01");
    assert_int_equal(f.event.type, MQTT_EVENT_PUBLISH);
    FEED(&f, "\x30\x09\x00\x03two\x03\x23\x00\x02");
    FEED(&f, "\x30\x07\x00\x00\x03\x23\x00\x01x");
    assert_int_equal(f.event.type, MQTT_EVENT_PUBLISH);
    assert_int_equal(f.event.publish.topic.length, 3);
    assert_memory_equal(f.event.publish.topic.data, "one", 3);
    FEED(&f, "\x30\x08\x00\x02uno\x23\x00\x01"); /* malformed: nothing is learned of it */
    assert_int_equal(f.event.type, MQTT_EVENT_ERROR);
    mqtt_session_fini(&f.session);
    static const struct {
        const char *first, *then;
        int error;
    } rows[] = {
        {"\x30\x09\x00\x03one\x03\x23\x00\x01", "\x30\x07\x00\x00\x03\x23\x00\x02x", ERR_PROTOCOL}, /* never said what 2 is */
        {"\x30\x09\x00\x03one\x03\x23\x00\x01", "\x30\x09\x00\x03two\x03\x23\x00\x03", ERR_TOPIC_ALIAS},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        f = fresh();
        f.session.limits.topic_alias_max = 2;
        FEED(&f, "\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00");
        mqtt_session_accept(&f.session, 10);
        feed(&f, (const uint8_t *)rows[i].first, 11);
        assert_int_equal(f.event.type, MQTT_EVENT_PUBLISH);
        feed(&f, (const uint8_t *)rows[i].then, (size_t)rows[i].then[1] + 2);
        expect_error(&f, rows[i].error);
        mqtt_session_fini(&f.session);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_packet_opens_the_session),
        cmocka_unit_test(anything_else_first_is_refused_from_its_first_byte),
        cmocka_unit_test(a_refused_connect_is_answered_as_its_version_wants),
        cmocka_unit_test(a_length_with_spare_bytes_is_taken_in_3_1_1_alone),
        cmocka_unit_test(a_connect_that_cannot_be_served_is_answered_in_both_versions),
        cmocka_unit_test(an_accepted_client_is_told_in_5_alone),
        cmocka_unit_test(the_peers_limits_are_noted),
        cmocka_unit_test(packets_come_out_one_by_one),
        cmocka_unit_test(every_cut_of_the_bytes_waits_for_more),
        cmocka_unit_test(what_a_client_must_not_send_closes_the_session),
        cmocka_unit_test(retained_publishes_of_3_1_1_pass),
        cmocka_unit_test(session_expiry_may_change_when_one_was_asked_for),
        cmocka_unit_test(version_5_keeps_to_the_receive_maximum),
        cmocka_unit_test(version_3_1_1_knows_no_receive_maximum),
        cmocka_unit_test(identifiers_go_round_in_turn),
        cmocka_unit_test(the_window_is_full_at_its_limit),
        cmocka_unit_test(the_peers_receive_maximum_is_kept),
        cmocka_unit_test(answers_in_any_order_free_their_identifiers),
        cmocka_unit_test(an_unexpected_puback_hides_nothing_behind_it),
        cmocka_unit_test(deadlines_follow_the_clock_they_are_given),
        cmocka_unit_test(reasons_are_told_to_who_wants_them_and_fit),
        cmocka_unit_test(an_alias_stands_for_its_topic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
