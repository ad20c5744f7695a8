/* The client's side of a session: connecting in both versions, what a server may send, sessions that the server has kept or not, keep
 * alive, and what an owner brings back after a restart. */
#include <string.h>

#include "base/error.h"
#include "mqtt/session_client.h"
#include "mqtt_bytes.h"
#include "unit.h"

#define EACH_VERSION(version) for (uint8_t version = MQTT_VERSION_3_1_1; version <= MQTT_VERSION_5_0; version++)
#define S                     UINT64_C(1000000000)

enum { RECEIVE_MAXIMUM = 3 };

struct fixture {
    struct mqtt_session session;
    struct mqtt_event event;
    struct buffer out;
    size_t consumed;
};

static void feed_at(struct fixture *f, uint64_t now_ns, const uint8_t *bytes, size_t length)
{
    mqtt_session_next(&f->session, bytes, length, now_ns, &f->consumed, &f->event);
}

#define FEED(f, text) feed_at(f, 5 * S, BYTES(text))

static void init(struct fixture *f)
{
    static const struct mqtt_session_limits limits = {
        .packet_size_max = 1000, .receive_maximum = RECEIVE_MAXIMUM, .qos_max = 2, .retain_available = true};
    memset(f, 0, sizeof *f);
    buffer_init(&f->out, 1000);
    mqtt_session_init_client(&f->session, &limits);
}

static void fini(struct fixture *f)
{
    mqtt_session_fini(&f->session);
    buffer_fini(&f->out);
}

static void connect_as(struct fixture *f, uint8_t version, bool present)
{
    struct mqtt_connect connect = {.version = version, .keep_alive_s = 40, .client_id = slice_of("c")};
    buffer_clear(&f->out);
    assert_int_equal(mqtt_session_connect(&f->session, &connect, 5 * S, &f->out), 0);
    const uint8_t connack[] = {0x20, version == MQTT_VERSION_5_0 ? 3 : 2, present, 0, 0};
    feed_at(f, 5 * S, connack, connack[1] + 2u);
    assert_int_equal(f->event.type, MQTT_EVENT_CONNACK);
    assert_int_equal(f->event.connack.reason, 0);
    assert_int_equal(f->session.state, MQTT_SESSION_ACTIVE);
}

static enum mqtt_event_type publish(struct fixture *f, unsigned qos, uint16_t id)
{
    uint8_t size = f->session.version == MQTT_VERSION_5_0 ? 6 : 5;
    uint8_t bytes[] = {(uint8_t)(0x30 | qos << 1), size, 0, 1, 't', (uint8_t)(id >> 8), (uint8_t)id, 0};
    feed_at(f, 5 * S, bytes, size + 2u);
    return f->event.type;
}

static enum mqtt_event_type answer(struct fixture *f, enum mqtt_packet_type type, uint16_t id)
{
    uint8_t bytes[] = {(uint8_t)(type << 4 | (type == MQTT_PUBREL ? 2 : 0)), 2, (uint8_t)(id >> 8), (uint8_t)id};
    feed_at(f, 5 * S, bytes, sizeof bytes);
    return f->event.type;
}

static void expect_error(struct fixture *f, int error)
{
    assert_int_equal(f->event.type, MQTT_EVENT_ERROR);
    assert_int_equal(f->event.error, error);
    assert_int_equal(f->session.state, MQTT_SESSION_CLOSED);
}

static void the_connect_says_what_the_client_can_take(void **state)
{
    (void)state;
    struct fixture f;
    init(&f);
    struct mqtt_connect connect = {.version = MQTT_VERSION_5_0, .keep_alive_s = 40, .client_id = slice_of("c")};
    connect.properties.raw = (struct mqtt_slice){(const uint8_t *)"\x11\x00\x00\x00\x09", 5};
    assert_int_equal(mqtt_session_connect(&f.session, &connect, 1, &f.out), 0);
    struct mqtt_frame frame;
    struct mqtt_connect sent;
    assert_int_equal(mqtt_frame_decode(f.out.data, f.out.length, 1000, &frame), 0);
    assert_int_equal(mqtt_connect_decode(&frame, &sent), 0);
    assert_false(sent.clean_start);
    assert_int_equal(sent.properties.session_expiry_interval, 9);
    assert_int_equal(sent.properties.receive_maximum, RECEIVE_MAXIMUM);
    assert_int_equal(sent.properties.maximum_packet_size, 1000);
    assert_int_equal(sent.properties.topic_alias_maximum, 0);
    fini(&f);
}

static void a_refusal_is_told(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        init(&f);
        struct mqtt_connect connect = {.version = version, .client_id = slice_of("c")};
        assert_int_equal(mqtt_session_connect(&f.session, &connect, 5 * S, &f.out), 0);
        assert_int_equal(mqtt_session_deadline_ns(&f.session), 15 * S);
        if (version == MQTT_VERSION_5_0)
            FEED(&f, "\x20\x03\x00\x87\x00");
        else
            FEED(&f, "\x20\x02\x00\x05");
        assert_int_equal(f.event.type, MQTT_EVENT_CONNACK);
        assert_int_equal(f.event.connack.reason, version == MQTT_VERSION_5_0 ? 0x87 : 5);
        assert_int_equal(f.session.state, MQTT_SESSION_CLOSED);
        fini(&f);
    }
}

static void what_the_server_demands_holds(void **state)
{
    (void)state;
    struct fixture f;
    init(&f);
    struct mqtt_connect connect = {.version = MQTT_VERSION_5_0, .keep_alive_s = 40, .client_id = slice_of("c")};
    assert_int_equal(mqtt_session_connect(&f.session, &connect, 0, &f.out), 0);
    FEED(&f, "\x20\x10\x00\x00\x0d\x13\x00\x08\x21\x00\x02\x27\x00\x00\x01\x00\x2a\x00");
    assert_int_equal(f.event.type, MQTT_EVENT_CONNACK);
    assert_int_equal(f.event.connack.properties.shared_subscription_available, 0);
    assert_int_equal(f.session.keep_alive_s, 8);
    assert_int_equal(f.session.peer_packet_size_max, 256);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 1);
    assert_int_equal(mqtt_session_take_id(&f.session, 2), 2);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 0);
    fini(&f);
}

static void packets_of_the_wrong_side_are_errors(void **state)
{
    (void)state;
    static const uint8_t packets[][6] = {
        {0x10, 0}, {0x20, 2, 0, 0}, {0x82, 2, 0, 1}, {0xa2, 2, 0, 1}, {0xc0, 0}, {0xe0, 0}, {0xf0, 0},
    };
    for (size_t i = 0; i < sizeof packets / sizeof packets[0]; i++) {
        struct fixture f;
        init(&f);
        connect_as(&f, MQTT_VERSION_3_1_1, false);
        feed_at(&f, 5 * S, packets[i], packets[i][1] + 2u);
        assert_int_equal(f.event.type, MQTT_EVENT_ERROR);
        buffer_clear(&f.out);
        assert_int_equal(mqtt_session_refuse(&f.session, f.event.error, &f.out), 0);
        assert_int_equal(f.out.length, 2); /* DISCONNECT */
        fini(&f);
    }
}

static void nothing_comes_before_the_connack(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        init(&f);
        FEED(&f, "\xd0\x00"); /* not connected at all */
        expect_error(&f, ERR_DISCONNECTED);
        struct mqtt_connect connect = {.version = version, .client_id = slice_of("c")};
        assert_int_equal(mqtt_session_connect(&f.session, &connect, 0, &f.out), 0);
        FEED(&f, "\xd0\x00");
        expect_error(&f, ERR_PROTOCOL);
        fini(&f);
    }
}

static void answers_to_requests_come_out(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        init(&f);
        connect_as(&f, version, false);
        if (version == MQTT_VERSION_5_0)
            FEED(&f, "\x90\x05\x00\x07\x00\x01\x9e");
        else
            FEED(&f, "\x90\x04\x00\x07\x01\x80");
        assert_int_equal(f.event.type, MQTT_EVENT_SUBACK);
        assert_int_equal(f.event.suback.packet_id, 7);
        assert_int_equal(f.event.suback.codes.length, 2);
        if (version == MQTT_VERSION_5_0)
            FEED(&f, "\xb0\x04\x00\x08\x00\x11");
        else
            FEED(&f, "\xb0\x02\x00\x08");
        assert_int_equal(f.event.type, MQTT_EVENT_UNSUBACK);
        assert_int_equal(f.event.suback.packet_id, 8);
        fini(&f);
    }
}

static void a_server_may_leave_in_5_0_only(void **state)
{
    (void)state;
    struct fixture f;
    init(&f);
    connect_as(&f, MQTT_VERSION_5_0, false);
    FEED(&f, "\xe0\x01\x8e");
    assert_int_equal(f.event.type, MQTT_EVENT_DISCONNECT);
    assert_int_equal(f.event.disconnect.reason, 0x8e);
    fini(&f);
    init(&f);
    connect_as(&f, MQTT_VERSION_5_0, false);
    FEED(&f, "\xe0\x07\x8e\x05\x11\x00\x00\x00\x01"); /* with a session expiry */
    expect_error(&f, ERR_PROTOCOL);
    fini(&f);
}

static void a_kept_session_knows_its_repeats(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        init(&f);
        connect_as(&f, version, false);
        assert_int_equal(publish(&f, 2, 7), MQTT_EVENT_PUBLISH);
        assert_int_equal(publish(&f, 2, 8), MQTT_EVENT_PUBLISH);
        assert_int_equal(publish(&f, 1, 9), MQTT_EVENT_PUBLISH);
        mqtt_session_recorded(&f.session, 7);
        mqtt_session_disconnected(&f.session);
        assert_int_equal(f.session.inbound_unacknowledged, 1); /* 8; QoS 1 comes again as if it were new */
        mqtt_session_recorded(&f.session, 8);                  /* became durable while nobody was connected */
        connect_as(&f, version, true);
        assert_int_equal(publish(&f, 2, 7), MQTT_EVENT_REPEAT);
        assert_true(f.event.recorded);
        assert_int_equal(publish(&f, 2, 8), MQTT_EVENT_REPEAT);
        assert_true(f.event.recorded);
        assert_int_equal(answer(&f, MQTT_PUBREL, 7), MQTT_EVENT_PUBREL);
        assert_int_equal(publish(&f, 2, 7), MQTT_EVENT_PUBLISH);
        fini(&f);
    }
}

static void a_lost_session_is_forgotten(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        init(&f);
        connect_as(&f, version, false);
        publish(&f, 2, 7);
        mqtt_session_recorded(&f.session, 7);
        publish(&f, 2, 8);
        mqtt_session_take_id(&f.session, 2);
        mqtt_session_take_id(&f.session, 1);
        mqtt_session_disconnected(&f.session);
        connect_as(&f, version, false);
        assert_int_equal(f.session.inbound_unacknowledged + f.session.inbound_recorded, 0);
        assert_int_equal(f.session.outbound_unacknowledged, 0);
        assert_int_equal(publish(&f, 2, 7), MQTT_EVENT_PUBLISH);
        assert_int_equal(mqtt_session_outbound(&f.session, 1), MQTT_OUTBOUND_NONE);
        assert_int_equal(mqtt_session_take_id(&f.session, 1), 3);
        fini(&f);
    }
}

static void what_was_sent_keeps_its_state(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        init(&f);
        connect_as(&f, version, false);
        for (unsigned qos = 1; qos <= 2; qos++)
            mqtt_session_take_id(&f.session, qos);
        mqtt_session_take_id(&f.session, 2);
        assert_int_equal(answer(&f, MQTT_PUBREC, 2), MQTT_EVENT_PUBREC);
        mqtt_session_disconnected(&f.session);
        connect_as(&f, version, true);
        assert_int_equal(mqtt_session_outbound(&f.session, 1), MQTT_OUTBOUND_WAITS_PUBACK);
        assert_int_equal(mqtt_session_outbound(&f.session, 2), MQTT_OUTBOUND_WAITS_PUBCOMP);
        assert_int_equal(mqtt_session_outbound(&f.session, 3), MQTT_OUTBOUND_WAITS_PUBREC);
        assert_int_equal(answer(&f, MQTT_PUBCOMP, 2), MQTT_EVENT_SETTLED);
        assert_int_equal(answer(&f, MQTT_PUBACK, 1), MQTT_EVENT_SETTLED);
        assert_int_equal(f.session.oldest_packet_id, 3);
        fini(&f);
    }
}

static void a_restart_brings_back_what_was_known(void **state)
{
    (void)state;
    struct fixture f;
    init(&f);
    assert_int_equal(mqtt_session_restore_recorded(&f.session, 500), 0);
    mqtt_session_start_ids(&f.session, 65534);
    assert_int_equal(mqtt_session_take_id(&f.session, 2), 65534);
    mqtt_session_restore_received(&f.session, 65534);
    assert_int_equal(mqtt_session_take_id(&f.session, 2), 65535);
    assert_int_equal(mqtt_session_take_id(&f.session, 2), 1);
    connect_as(&f, MQTT_VERSION_5_0, true);
    assert_int_equal(publish(&f, 2, 500), MQTT_EVENT_REPEAT);
    assert_int_equal(answer(&f, MQTT_PUBCOMP, 65534), MQTT_EVENT_SETTLED);
    assert_int_equal(mqtt_session_outbound(&f.session, 65535), MQTT_OUTBOUND_WAITS_PUBREC);
    fini(&f);
}

static void identifiers_can_be_left_out(void **state)
{
    (void)state;
    struct fixture f;
    init(&f);
    connect_as(&f, MQTT_VERSION_3_1_1, false);
    assert_true(mqtt_session_skip_ids(&f.session, 1000000)); /* none is in use */
    uint16_t first = mqtt_session_take_id(&f.session, 1);
    assert_int_equal(first, 1000000 % 65535 + 1);
    assert_false(mqtt_session_skip_ids(&f.session, MQTT_SEND_WINDOW));
    assert_true(mqtt_session_skip_ids(&f.session, MQTT_SEND_WINDOW - 2));
    assert_int_equal(mqtt_session_outbound(&f.session, (uint16_t)(first + 1)), MQTT_OUTBOUND_NONE);
    uint16_t last = mqtt_session_take_id(&f.session, 1);
    assert_int_equal(last, first + MQTT_SEND_WINDOW - 1);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 0);
    assert_int_equal(answer(&f, MQTT_PUBACK, first), MQTT_EVENT_SETTLED);
    assert_int_equal(f.session.oldest_packet_id, last);
    assert_int_equal(answer(&f, MQTT_PUBACK, last), MQTT_EVENT_SETTLED);
    assert_int_equal(f.session.oldest_packet_id, f.session.next_packet_id);
    fini(&f);
}

static void a_silent_connection_is_pinged_and_given_up(void **state)
{
    (void)state;
    struct fixture f;
    init(&f);
    connect_as(&f, MQTT_VERSION_5_0, false); /* at 5 s, keep alive 40 s */
    assert_int_equal(mqtt_session_ping_due_ns(&f.session), 35 * S);
    assert_int_equal(mqtt_session_deadline_ns(&f.session), UINT64_MAX);
    mqtt_session_sent(&f.session, 20 * S); /* the server has still said nothing */
    assert_int_equal(mqtt_session_ping_due_ns(&f.session), 35 * S);
    buffer_clear(&f.out);
    assert_int_equal(mqtt_session_ping(&f.session, 35 * S, &f.out), 0);
    assert_memory_equal(f.out.data, "\xc0\x00", 2);
    assert_int_equal(mqtt_session_ping_due_ns(&f.session), UINT64_MAX);
    assert_int_equal(mqtt_session_deadline_ns(&f.session), 75 * S);
    mqtt_session_heard(&f.session, 70 * S); /* its owner has not read for a while */
    assert_int_equal(mqtt_session_deadline_ns(&f.session), 110 * S);
    feed_at(&f, 71 * S, BYTES("\xd0\x00"));
    assert_int_equal(f.event.type, MQTT_EVENT_PONG);
    assert_int_equal(mqtt_session_ping_due_ns(&f.session), 65 * S); /* by what was sent last */
    mqtt_session_sent(&f.session, 80 * S);
    assert_int_equal(mqtt_session_ping_due_ns(&f.session), 101 * S); /* by what was heard last */
    mqtt_session_disconnected(&f.session);
    assert_int_equal(mqtt_session_ping_due_ns(&f.session), UINT64_MAX);
    fini(&f);
}

/* A server that counts wrong since its crash would be refused for ever. */
static void more_than_was_announced_is_taken(void **state)
{
    (void)state;
    struct fixture f;
    init(&f);
    connect_as(&f, MQTT_VERSION_5_0, false);
    for (uint16_t id = 1; id <= RECEIVE_MAXIMUM; id++)
        assert_int_equal(publish(&f, 1 + id % 2, id), MQTT_EVENT_PUBLISH);
    assert_int_equal(publish(&f, 1, 9), MQTT_EVENT_PUBLISH);
    fini(&f);
}

static void an_identifier_may_be_known_to_be_another_message(void **state)
{
    (void)state;
    struct fixture f;
    init(&f);
    connect_as(&f, MQTT_VERSION_5_0, false);
    publish(&f, 2, 7);
    mqtt_session_recorded(&f.session, 7);
    assert_int_equal(publish(&f, 2, 7), MQTT_EVENT_REPEAT);
    mqtt_session_reused(&f.session, 7);
    assert_int_equal(f.session.inbound_unacknowledged, 1);
    assert_int_equal(f.session.inbound_recorded, 0);
    assert_int_equal(publish(&f, 2, 7), MQTT_EVENT_REPEAT);
    assert_false(f.event.recorded);
    mqtt_session_recorded(&f.session, 7);
    assert_int_equal(answer(&f, MQTT_PUBREL, 7), MQTT_EVENT_PUBREL);
    assert_int_equal(f.event.reason, 0);
    fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_connect_says_what_the_client_can_take),
        cmocka_unit_test(a_refusal_is_told),
        cmocka_unit_test(what_the_server_demands_holds),
        cmocka_unit_test(packets_of_the_wrong_side_are_errors),
        cmocka_unit_test(nothing_comes_before_the_connack),
        cmocka_unit_test(answers_to_requests_come_out),
        cmocka_unit_test(a_server_may_leave_in_5_0_only),
        cmocka_unit_test(a_kept_session_knows_its_repeats),
        cmocka_unit_test(a_lost_session_is_forgotten),
        cmocka_unit_test(what_was_sent_keeps_its_state),
        cmocka_unit_test(a_restart_brings_back_what_was_known),
        cmocka_unit_test(identifiers_can_be_left_out),
        cmocka_unit_test(a_silent_connection_is_pinged_and_given_up),
        cmocka_unit_test(more_than_was_announced_is_taken),
        cmocka_unit_test(an_identifier_may_be_known_to_be_another_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
