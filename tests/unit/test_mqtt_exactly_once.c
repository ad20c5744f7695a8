/* QoS 2 in the session: every row of its tables, in both directions and both versions. */
#include <string.h>

#include "base/error.h"
#include "mqtt/session.h"
#include "mqtt_bytes.h"
#include "unit.h"

#define EACH_VERSION(version) for (uint8_t version = MQTT_VERSION_3_1_1; version <= MQTT_VERSION_5_0; version++)

enum { RECEIVE_MAXIMUM = 3 };

#define IGNORED MQTT_EVENT_NEED_MORE

struct fixture {
    struct mqtt_session session;
    struct mqtt_event event;
    size_t consumed;
};

static void feed(struct fixture *f, const uint8_t *bytes, size_t length)
{
    mqtt_session_next(&f->session, bytes, length, 5, &f->consumed, &f->event);
}

#define FEED(f, text) feed(f, BYTES(text))

static void begin(struct fixture *f, uint8_t version, uint16_t peers_receive_maximum)
{
    static const struct mqtt_session_limits limits = {.packet_size_max = 1000, .receive_maximum = RECEIVE_MAXIMUM, .qos_max = 2};
    memset(f, 0, sizeof *f);
    mqtt_session_init(&f->session, &limits, 0);
    uint8_t connect5[] = "\x10\x10\x00\x04MQTT\x05\x02\x00\x0a\x03\x21\x00\x00\x00\x00";
    connect5[14] = (uint8_t)(peers_receive_maximum >> 8);
    connect5[15] = (uint8_t)peers_receive_maximum;
    if (version == MQTT_VERSION_5_0)
        feed(f, connect5, sizeof connect5 - 1);
    else
        FEED(f, "\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00");
    assert_int_equal(f->event.type, MQTT_EVENT_CONNECT);
    mqtt_session_accept(&f->session, 10);
}

static void end(struct fixture *f)
{
    mqtt_session_fini(&f->session);
}

static enum mqtt_event_type publish(struct fixture *f, unsigned qos, uint16_t id, bool dup)
{
    uint8_t size = f->session.version == MQTT_VERSION_5_0 ? 6 : 5; /* with an empty set of properties */
    uint8_t bytes[] = {(uint8_t)(0x30 | qos << 1 | (dup ? 8 : 0)), size, 0, 1, 't', (uint8_t)(id >> 8), (uint8_t)id, 0};
    feed(f, bytes, size + 2u);
    if (f->event.type == MQTT_EVENT_PUBLISH || f->event.type == MQTT_EVENT_REPEAT)
        assert_int_equal(f->event.publish.packet_id, id);
    return f->event.type;
}

/* A PUBACK, PUBREC, PUBREL or PUBCOMP; a reason in MQTT 5 only. */
static enum mqtt_event_type answer(struct fixture *f, enum mqtt_packet_type type, uint16_t id, uint8_t reason)
{
    uint8_t bytes[] = {(uint8_t)(type << 4 | (type == MQTT_PUBREL ? 2 : 0)), reason ? 3 : 2, (uint8_t)(id >> 8), (uint8_t)id, reason};
    feed(f, bytes, bytes[1] + 2u);
    if (f->event.type != MQTT_EVENT_ERROR && f->event.type != MQTT_EVENT_NEED_MORE)
        assert_int_equal(f->event.ack.packet_id, id);
    return f->event.type;
}

static void expect_error(struct fixture *f, int error)
{
    assert_int_equal(f->event.type, MQTT_EVENT_ERROR);
    assert_int_equal(f->event.error, error);
    assert_int_equal(f->session.state, MQTT_SESSION_CLOSED);
}

/* ---- what we receive ---- */

static void a_message_is_received_once(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        begin(&f, version, 10);
        for (int round = 0; round < 3; round++) { /* behind PUBCOMP the identifier is as good as any other */
            assert_int_equal(mqtt_session_inbound(&f.session, 65535), MQTT_INBOUND_NONE);
            assert_int_equal(publish(&f, 2, 65535, round == 2), MQTT_EVENT_PUBLISH);
            assert_int_equal(mqtt_session_inbound(&f.session, 65535), MQTT_INBOUND_RECEIVED);
            assert_int_equal(f.session.inbound_unacknowledged, 1);
            mqtt_session_recorded(&f.session, 65535);
            assert_int_equal(mqtt_session_inbound(&f.session, 65535), MQTT_INBOUND_RECORDED);
            assert_int_equal(f.session.inbound_unacknowledged, 0);
            assert_int_equal(f.session.inbound_recorded, 1);
            assert_int_equal(answer(&f, MQTT_PUBREL, 65535, 0), MQTT_EVENT_PUBREL);
            assert_int_equal(f.event.reason, 0);
            assert_int_equal(f.session.inbound_recorded, 0);
        }
        end(&f);
    }
}

static void a_repeat_is_told_from_a_new_message(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        begin(&f, version, 10);
        assert_int_equal(publish(&f, 2, 7, true), MQTT_EVENT_PUBLISH); /* DUP alone makes no repeat */
        for (int dup = 0; dup < 2; dup++) {
            assert_int_equal(publish(&f, 2, 7, dup), MQTT_EVENT_REPEAT);
            assert_false(f.event.recorded);
        }
        mqtt_session_recorded(&f.session, 7);
        for (int dup = 0; dup < 2; dup++) {
            assert_int_equal(publish(&f, 2, 7, dup), MQTT_EVENT_REPEAT);
            assert_true(f.event.recorded);
        }
        assert_int_equal(f.session.inbound_unacknowledged + f.session.inbound_recorded, 1); /* repeats count for nothing */
        assert_int_equal(publish(&f, 2, 8, false), MQTT_EVENT_PUBLISH);
        assert_int_equal(publish(&f, 1, 7, false), MQTT_EVENT_PUBLISH); /* QoS 1 has no memory */
        mqtt_session_acknowledged(&f.session);
        assert_int_equal(mqtt_session_inbound(&f.session, 7), MQTT_INBOUND_RECORDED);
        assert_int_equal(mqtt_session_inbound(&f.session, 8), MQTT_INBOUND_RECEIVED);
        end(&f);
    }
}

static void a_pubrel_before_its_pubrec_is_an_error(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        begin(&f, version, 10);
        publish(&f, 2, 7, false);
        answer(&f, MQTT_PUBREL, 7, 0);
        expect_error(&f, ERR_PROTOCOL);
        end(&f);
    }
}

static void a_pubrel_for_nothing_is_answered(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        begin(&f, version, 10);
        assert_int_equal(answer(&f, MQTT_PUBREL, 9, 0), MQTT_EVENT_PUBREL);
        assert_int_equal(f.event.reason, 0x92);
        publish(&f, 1, 9, false); /* nothing of QoS 2 either */
        assert_int_equal(answer(&f, MQTT_PUBREL, 9, version == MQTT_VERSION_5_0 ? 0x92 : 0), MQTT_EVENT_PUBREL);
        assert_int_equal(f.event.reason, 0x92);
        assert_int_equal(f.session.inbound_unacknowledged, 1);
        end(&f);
    }
}

/* One that has to wait is offered again; one that is refused ends its exchange. */
static void what_is_forgotten_is_no_repeat_afterwards(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        begin(&f, version, 10);
        for (unsigned qos = 1; qos <= 2; qos++) {
            for (int i = 0; i < 2 * RECEIVE_MAXIMUM; i++) {
                assert_int_equal(publish(&f, qos, 5, false), MQTT_EVENT_PUBLISH);
                mqtt_session_forget(&f.session, &f.event.publish);
                assert_int_equal(f.session.inbound_unacknowledged, 0);
                assert_int_equal(mqtt_session_inbound(&f.session, 5), MQTT_INBOUND_NONE);
            }
        }
        end(&f);
    }
}

/* QoS 1 and 2 together; QoS 2 until its PUBREL. */
static void the_receive_maximum_counts_until_the_exchange_ends(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, MQTT_VERSION_5_0, 10);
    publish(&f, 2, 1, false);
    publish(&f, 2, 2, false);
    publish(&f, 1, 3, false);
    assert_int_equal(publish(&f, 2, 1, true), MQTT_EVENT_REPEAT);
    mqtt_session_acknowledged(&f.session);
    assert_int_equal(publish(&f, 1, 4, false), MQTT_EVENT_PUBLISH);
    mqtt_session_recorded(&f.session, 1); /* PUBREC frees nothing */
    answer(&f, MQTT_PUBREL, 1, 0);
    assert_int_equal(publish(&f, 2, 5, false), MQTT_EVENT_PUBLISH);
    mqtt_session_recorded(&f.session, 5);
    mqtt_session_recorded(&f.session, 2);
    publish(&f, 2, 6, false);
    expect_error(&f, ERR_RECEIVE_MAXIMUM);
    assert_int_equal(error_mqtt_reason(ERR_RECEIVE_MAXIMUM), 0x93);
    end(&f);
}

/* 3.1.1 has no receive maximum: all identifiers may be in use, and then each PUBLISH is a repeat. */
static void version_3_1_1_may_use_all_identifiers(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, MQTT_VERSION_3_1_1, 0);
    for (uint32_t id = 1; id <= 65535; id++)
        assert_int_equal(publish(&f, 2, (uint16_t)id, false), MQTT_EVENT_PUBLISH);
    assert_int_equal(publish(&f, 2, 1, false), MQTT_EVENT_REPEAT);
    assert_int_equal(f.session.inbound_unacknowledged, 65535);
    uint32_t walked = 0;
    for (uint16_t id = 0; (id = mqtt_id_map_next(&f.session.inbound, id)); walked++)
        mqtt_session_recorded(&f.session, id);
    assert_int_equal(walked, 65535);
    assert_int_equal(f.session.inbound_recorded, 65535);
    end(&f);
}

/* ---- what we send ---- */

/* The state in which a row of the table finds identifier 1. */
static void bring_to(struct fixture *f, enum mqtt_outbound state)
{
    if (state == MQTT_OUTBOUND_NONE)
        return;
    assert_int_equal(mqtt_session_take_id(&f->session, state == MQTT_OUTBOUND_WAITS_PUBACK ? 1 : 2), 1);
    if (state == MQTT_OUTBOUND_WAITS_PUBCOMP)
        assert_int_equal(answer(f, MQTT_PUBREC, 1, 0), MQTT_EVENT_PUBREC);
    assert_int_equal(mqtt_session_outbound(&f->session, 1), state);
}

static void every_answer_in_every_state(void **state)
{
    (void)state;
    enum { REFUSAL = 0x97, UNKNOWN = 0x92 };
    static const struct {
        enum mqtt_outbound before;
        enum mqtt_packet_type type;
        uint8_t reason; /* of the answer; above 0 in MQTT 5 only */
        enum mqtt_event_type event;
        uint8_t reply;
        enum mqtt_outbound after;
    } rows[] = {
        {MQTT_OUTBOUND_NONE, MQTT_PUBACK, 0, IGNORED, 0, MQTT_OUTBOUND_NONE},
        {MQTT_OUTBOUND_NONE, MQTT_PUBREC, 0, MQTT_EVENT_PUBREC, UNKNOWN, MQTT_OUTBOUND_NONE},
        {MQTT_OUTBOUND_NONE, MQTT_PUBREC, 0x10, MQTT_EVENT_PUBREC, UNKNOWN, MQTT_OUTBOUND_NONE},
        {MQTT_OUTBOUND_NONE, MQTT_PUBREC, REFUSAL, IGNORED, 0, MQTT_OUTBOUND_NONE},
        {MQTT_OUTBOUND_NONE, MQTT_PUBCOMP, 0, IGNORED, 0, MQTT_OUTBOUND_NONE},
        {MQTT_OUTBOUND_NONE, MQTT_PUBCOMP, UNKNOWN, IGNORED, 0, MQTT_OUTBOUND_NONE},
        {MQTT_OUTBOUND_WAITS_PUBACK, MQTT_PUBACK, 0, MQTT_EVENT_SETTLED, 0, MQTT_OUTBOUND_NONE},
        {MQTT_OUTBOUND_WAITS_PUBACK, MQTT_PUBACK, REFUSAL, MQTT_EVENT_SETTLED, 0, MQTT_OUTBOUND_NONE},
        {MQTT_OUTBOUND_WAITS_PUBACK, MQTT_PUBREC, 0, MQTT_EVENT_ERROR, 0, MQTT_OUTBOUND_WAITS_PUBACK},
        {MQTT_OUTBOUND_WAITS_PUBACK, MQTT_PUBREC, REFUSAL, MQTT_EVENT_ERROR, 0, MQTT_OUTBOUND_WAITS_PUBACK},
        {MQTT_OUTBOUND_WAITS_PUBACK, MQTT_PUBCOMP, 0, MQTT_EVENT_ERROR, 0, MQTT_OUTBOUND_WAITS_PUBACK},
        {MQTT_OUTBOUND_WAITS_PUBREC, MQTT_PUBACK, 0, MQTT_EVENT_ERROR, 0, MQTT_OUTBOUND_WAITS_PUBREC},
        {MQTT_OUTBOUND_WAITS_PUBREC, MQTT_PUBREC, 0, MQTT_EVENT_PUBREC, 0, MQTT_OUTBOUND_WAITS_PUBCOMP},
        {MQTT_OUTBOUND_WAITS_PUBREC, MQTT_PUBREC, 0x10, MQTT_EVENT_PUBREC, 0, MQTT_OUTBOUND_WAITS_PUBCOMP},
        {MQTT_OUTBOUND_WAITS_PUBREC, MQTT_PUBREC, REFUSAL, MQTT_EVENT_SETTLED, 0, MQTT_OUTBOUND_NONE},
        {MQTT_OUTBOUND_WAITS_PUBREC, MQTT_PUBCOMP, 0, MQTT_EVENT_ERROR, 0, MQTT_OUTBOUND_WAITS_PUBREC},
        {MQTT_OUTBOUND_WAITS_PUBCOMP, MQTT_PUBACK, 0, MQTT_EVENT_ERROR, 0, MQTT_OUTBOUND_WAITS_PUBCOMP},
        {MQTT_OUTBOUND_WAITS_PUBCOMP, MQTT_PUBREC, 0, MQTT_EVENT_PUBREC, 0, MQTT_OUTBOUND_WAITS_PUBCOMP},
        {MQTT_OUTBOUND_WAITS_PUBCOMP, MQTT_PUBREC, REFUSAL, MQTT_EVENT_ERROR, 0, MQTT_OUTBOUND_WAITS_PUBCOMP},
        {MQTT_OUTBOUND_WAITS_PUBCOMP, MQTT_PUBCOMP, 0, MQTT_EVENT_SETTLED, 0, MQTT_OUTBOUND_NONE},
        {MQTT_OUTBOUND_WAITS_PUBCOMP, MQTT_PUBCOMP, UNKNOWN, MQTT_EVENT_SETTLED, 0, MQTT_OUTBOUND_NONE},
    };
    EACH_VERSION(version)
    {
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            if (rows[i].reason && version != MQTT_VERSION_5_0)
                continue;
            struct fixture f;
            begin(&f, version, 10);
            bring_to(&f, rows[i].before);
            if (answer(&f, rows[i].type, 1, rows[i].reason) != rows[i].event)
                print_message("row %zu of version %u\n", i, version);
            assert_int_equal(f.event.type, rows[i].event);
            assert_int_equal(mqtt_session_outbound(&f.session, 1), rows[i].after);
            assert_int_equal(f.session.outbound_unacknowledged, rows[i].after != MQTT_OUTBOUND_NONE);
            assert_int_equal(f.session.unexpected_answers, rows[i].event == IGNORED);
            assert_int_equal(f.consumed > 0, rows[i].event != MQTT_EVENT_ERROR);
            if (rows[i].event == MQTT_EVENT_PUBREC)
                assert_int_equal(f.event.reason, rows[i].reply);
            if (rows[i].event == MQTT_EVENT_ERROR)
                expect_error(&f, ERR_PROTOCOL);
            end(&f);
        }
    }
}

/* One window for both; a QoS 2 message leaves it with PUBCOMP. */
static void the_window_is_shared(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, MQTT_VERSION_5_0, 3);
    assert_int_equal(mqtt_session_take_id(&f.session, 2), 1);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 2);
    assert_int_equal(mqtt_session_take_id(&f.session, 2), 3);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 0);
    assert_int_equal(mqtt_session_take_id(&f.session, 2), 0);
    answer(&f, MQTT_PUBREC, 1, 0);
    answer(&f, MQTT_PUBREC, 3, 0);
    assert_int_equal(mqtt_session_take_id(&f.session, 2), 0);
    assert_int_equal(answer(&f, MQTT_PUBCOMP, 3, 0), MQTT_EVENT_SETTLED);
    assert_int_equal(mqtt_session_take_id(&f.session, 2), 4);
    assert_int_equal(mqtt_session_take_id(&f.session, 2), 0);
    assert_int_equal(answer(&f, MQTT_PUBACK, 2, 0), MQTT_EVENT_SETTLED);
    assert_int_equal(answer(&f, MQTT_PUBREC, 4, 0x97), MQTT_EVENT_SETTLED);
    assert_int_equal(f.session.oldest_packet_id, 1);
    assert_int_equal(answer(&f, MQTT_PUBCOMP, 1, 0), MQTT_EVENT_SETTLED);
    assert_int_equal(f.session.oldest_packet_id, f.session.next_packet_id);
    assert_int_equal(f.session.outbound.count, 0);
    end(&f);
}

static void the_window_of_qos_2_is_full_at_its_limit(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, MQTT_VERSION_3_1_1, 0);
    for (int i = 1; i <= MQTT_SEND_WINDOW; i++)
        assert_int_equal(mqtt_session_take_id(&f.session, 2), i);
    assert_int_equal(mqtt_session_take_id(&f.session, 2), 0);
    assert_int_equal(f.session.outbound.count, MQTT_SEND_WINDOW); /* nothing is remembered of what was not sent */
    for (int i = 1; i <= MQTT_SEND_WINDOW; i++)
        assert_int_equal(answer(&f, MQTT_PUBREC, (uint16_t)i, 0), MQTT_EVENT_PUBREC);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 0);
    assert_int_equal(answer(&f, MQTT_PUBCOMP, 1, 0), MQTT_EVENT_SETTLED);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), MQTT_SEND_WINDOW + 1);
    end(&f);
}

/* Both kinds mixed, over several turns of the identifiers, against a plain array. */
static void mixed_exchanges_end_in_any_order(void **state)
{
    (void)state;
    static uint8_t expected[65536];
    memset(expected, 0, sizeof expected);
    struct fixture f;
    begin(&f, MQTT_VERSION_3_1_1, 0);
    uint32_t random = 11, in_use = 0, oldest = 1, next = 1, taken = 0;
    for (int step = 0; step < 600000; step++) {
        random = random * 1664525 + 1013904223;
        uint32_t pick = random >> 8, span = (next + 65535 - oldest) % 65535;
        if (pick % 16 < 6) {
            unsigned qos = 1 + (pick >> 6 & 1);
            uint16_t id = mqtt_session_take_id(&f.session, qos);
            assert_int_equal(id, span < MQTT_SEND_WINDOW ? next : 0);
            if (id) {
                expected[id] = qos == 1 ? MQTT_OUTBOUND_WAITS_PUBACK : MQTT_OUTBOUND_WAITS_PUBREC;
                in_use++;
                taken++;
                next = next % 65535 + 1;
            }
        } else if (span) {
            uint16_t id = (uint16_t)((oldest - 1 + (pick % 3 ? 0 : (pick >> 6) % span)) % 65535 + 1);
            if (expected[id] == MQTT_OUTBOUND_WAITS_PUBREC) {
                assert_int_equal(answer(&f, MQTT_PUBREC, id, 0), MQTT_EVENT_PUBREC);
                expected[id] = MQTT_OUTBOUND_WAITS_PUBCOMP;
            } else if (expected[id]) {
                enum mqtt_packet_type type = expected[id] == MQTT_OUTBOUND_WAITS_PUBACK ? MQTT_PUBACK : MQTT_PUBCOMP;
                assert_int_equal(answer(&f, type, id, 0), MQTT_EVENT_SETTLED);
                expected[id] = MQTT_OUTBOUND_NONE;
                in_use--;
            }
            assert_int_equal(mqtt_session_outbound(&f.session, id), expected[id]);
        }
        while (oldest != next && !expected[oldest])
            oldest = oldest % 65535 + 1;
        assert_int_equal(f.session.oldest_packet_id, oldest);
        assert_int_equal(f.session.outbound_unacknowledged, in_use);
    }
    assert_true(taken > 2 * 65535);
    end(&f);
}

/* ---- a session that is carried over to another connection ---- */

static void what_was_sent_keeps_its_identifier(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        begin(&f, version, 10);
        assert_int_equal(mqtt_session_carry_sent(&f.session, 65534, 1, false), 0);
        assert_int_equal(mqtt_session_carry_sent(&f.session, 65535, 2, true), 0);
        assert_int_equal(mqtt_session_carry_sent(&f.session, 3, 2, false), 0); /* 1 and 2 were answered */
        mqtt_session_skip_to(&f.session, 7);
        assert_int_equal(f.session.outbound_unacknowledged, 3);
        assert_int_equal(mqtt_session_outbound(&f.session, 65534), MQTT_OUTBOUND_WAITS_PUBACK);
        assert_int_equal(mqtt_session_outbound(&f.session, 65535), MQTT_OUTBOUND_WAITS_PUBCOMP);
        assert_int_equal(mqtt_session_outbound(&f.session, 1), MQTT_OUTBOUND_NONE);
        assert_int_equal(mqtt_session_outbound(&f.session, 3), MQTT_OUTBOUND_WAITS_PUBREC);
        assert_int_equal(mqtt_session_take_id(&f.session, 1), 7);
        assert_int_equal(answer(&f, MQTT_PUBCOMP, 65535, 0), MQTT_EVENT_SETTLED);
        assert_int_equal(answer(&f, MQTT_PUBACK, 65534, 0), MQTT_EVENT_SETTLED);
        assert_int_equal(answer(&f, MQTT_PUBREC, 3, 0), MQTT_EVENT_PUBREC);
        assert_int_equal(answer(&f, MQTT_PUBCOMP, 3, 0), MQTT_EVENT_SETTLED);
        assert_int_equal(answer(&f, MQTT_PUBACK, 7, 0), MQTT_EVENT_SETTLED);
        assert_int_equal(f.session.outbound_unacknowledged, 0);
        end(&f);
    }
}

static void a_carried_window_may_be_larger_than_the_receive_maximum(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, MQTT_VERSION_5_0, 2);
    for (uint16_t id = 1; id <= 5; id++)
        assert_int_equal(mqtt_session_carry_sent(&f.session, id, 1, false), 0);
    for (uint16_t id = 1; id <= 3; id++) {
        assert_int_equal(mqtt_session_take_id(&f.session, 1), 0);
        answer(&f, MQTT_PUBACK, id, 0);
    }
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 0);
    mqtt_session_give_up(&f.session, 5);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 6);
    assert_int_equal(answer(&f, MQTT_PUBACK, 5, 0), IGNORED);
    end(&f);
}

static void what_does_not_fit_into_the_window_is_not_carried(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, MQTT_VERSION_5_0, 10);
    assert_int_equal(mqtt_session_carry_sent(&f.session, 100, 2, false), 0);
    assert_int_equal(mqtt_session_carry_sent(&f.session, 100, 1, false), ERR_INVALID); /* twice the same */
    assert_int_equal(mqtt_session_carry_sent(&f.session, 99, 1, false), ERR_INVALID);  /* it was sent before */
    assert_int_equal(mqtt_session_carry_sent(&f.session, 100 + MQTT_SEND_WINDOW - 1, 1, false), 0);
    assert_int_equal(mqtt_session_carry_sent(&f.session, 100 + MQTT_SEND_WINDOW, 1, false), ERR_INVALID);
    mqtt_session_skip_to(&f.session, 50); /* behind what is in use: nothing happens */
    assert_int_equal(f.session.next_packet_id, 100 + MQTT_SEND_WINDOW);
    assert_int_equal(f.session.outbound_unacknowledged, 2);
    end(&f);
    begin(&f, MQTT_VERSION_5_0, 10);
    assert_int_equal(mqtt_session_carry_sent(&f.session, 100, 2, false), 0);
    mqtt_session_skip_to(&f.session, 100 + MQTT_SEND_WINDOW + 7); /* none is given before the oldest is answered */
    assert_int_equal(f.session.next_packet_id, 100 + MQTT_SEND_WINDOW);
    assert_int_equal(mqtt_session_take_id(&f.session, 1), 0);
    end(&f);
}

static void what_was_recorded_is_a_repeat_and_takes_no_room(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct fixture f;
        begin(&f, version, 10);
        for (uint16_t id = 1; id <= RECEIVE_MAXIMUM; id++)
            assert_int_equal(mqtt_session_carry_recorded(&f.session, id), 0);
        assert_int_equal(publish(&f, 2, 1, true), MQTT_EVENT_REPEAT);
        assert_true(f.event.recorded);
        for (uint16_t id = 11; id < 11 + RECEIVE_MAXIMUM; id++) /* the receive maximum is that of this connection */
            assert_int_equal(publish(&f, 2, id, false), MQTT_EVENT_PUBLISH);
        for (uint16_t id = 1; id <= RECEIVE_MAXIMUM; id++) {
            assert_int_equal(answer(&f, MQTT_PUBREL, id, 0), MQTT_EVENT_PUBREL);
            assert_int_equal(f.event.reason, 0);
        }
        assert_int_equal(f.session.inbound_recorded, 0);
        if (version == MQTT_VERSION_5_0) {
            publish(&f, 2, 20, false);
            expect_error(&f, ERR_RECEIVE_MAXIMUM);
        }
        end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_received_once),
        cmocka_unit_test(a_repeat_is_told_from_a_new_message),
        cmocka_unit_test(a_pubrel_before_its_pubrec_is_an_error),
        cmocka_unit_test(a_pubrel_for_nothing_is_answered),
        cmocka_unit_test(what_is_forgotten_is_no_repeat_afterwards),
        cmocka_unit_test(the_receive_maximum_counts_until_the_exchange_ends),
        cmocka_unit_test(version_3_1_1_may_use_all_identifiers),
        cmocka_unit_test(every_answer_in_every_state),
        cmocka_unit_test(the_window_is_shared),
        cmocka_unit_test(the_window_of_qos_2_is_full_at_its_limit),
        cmocka_unit_test(mixed_exchanges_end_in_any_order),
        cmocka_unit_test(what_was_sent_keeps_its_identifier),
        cmocka_unit_test(a_carried_window_may_be_larger_than_the_receive_maximum),
        cmocka_unit_test(what_does_not_fit_into_the_window_is_not_carried),
        cmocka_unit_test(what_was_recorded_is_a_repeat_and_takes_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
