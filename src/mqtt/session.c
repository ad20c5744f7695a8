/* One table-free state machine: NEW takes a CONNECT and nothing else, ACTIVE takes everything else, CLOSED takes nothing.
 *
 * Outgoing identifiers are handed out in turn, so those that wait for an answer lie in a window behind the next one. One bit for
 * each place in that window is all there is to remember; a straggler holds the window's start until it is answered. */
#include "mqtt/session.h"

#include "mqtt/wire.h"

enum { CONNECT_TIMEOUT_S = 10, PACKET_ID_COUNT = 65535 };

#define NS_PER_S UINT64_C(1000000000)

void mqtt_session_init(struct mqtt_session *session, const struct mqtt_session_limits *limits, uint64_t now_ns)
{
    *session = (struct mqtt_session){.state = MQTT_SESSION_NEW,
                                     .limits = *limits,
                                     .last_packet_ns = now_ns,
                                     .send_maximum = MQTT_SEND_WINDOW,
                                     .oldest_packet_id = 1,
                                     .next_packet_id = 1,
                                     .peer_packet_size_max = UINT32_MAX};
}

static void fail(struct mqtt_session *session, int error, struct mqtt_event *event)
{
    session->state = MQTT_SESSION_CLOSED;
    session->error = error;
    event->type = MQTT_EVENT_ERROR;
    event->error = error;
}

static void need(struct mqtt_event *event, size_t total_size)
{
    event->type = MQTT_EVENT_NEED_MORE;
    event->needed = total_size;
}

/* ---- outgoing identifiers ---- */

/* Identifiers from `from` on to `to`, in the order in which they are handed out. */
static uint32_t id_distance(uint16_t from, uint16_t to)
{
    return to >= from ? (uint32_t)to - from : (uint32_t)to + PACKET_ID_COUNT - from;
}

static uint16_t id_after(uint16_t id, uint32_t steps)
{
    return (uint16_t)((id - 1u + steps) % PACKET_ID_COUNT + 1);
}

static uint32_t window_bit(const struct mqtt_session *session, uint32_t distance)
{
    return (session->oldest_bit + distance) % MQTT_SEND_WINDOW;
}

uint16_t mqtt_session_take_id(struct mqtt_session *session)
{
    uint32_t span = id_distance(session->oldest_packet_id, session->next_packet_id);
    if (session->outbound_unacknowledged >= session->send_maximum || span == MQTT_SEND_WINDOW)
        return 0;
    uint32_t bit = window_bit(session, span);
    session->outstanding[bit / 64] |= UINT64_C(1) << bit % 64;
    session->outbound_unacknowledged++;
    uint16_t id = session->next_packet_id;
    session->next_packet_id = id_after(id, 1);
    return id;
}

/* Moves the window's start to the oldest identifier that still waits. */
static void advance_window(struct mqtt_session *session, uint32_t span)
{
    uint32_t steps = 0;
    while (steps < span) {
        uint32_t bit = window_bit(session, steps);
        uint64_t word = session->outstanding[bit / 64] >> bit % 64;
        if (word) {
            steps += (uint32_t)__builtin_ctzll(word);
            break;
        }
        steps += 64 - bit % 64;
    }
    if (steps > span)
        steps = span;
    session->oldest_bit = (uint16_t)window_bit(session, steps);
    session->oldest_packet_id = id_after(session->oldest_packet_id, steps);
}

/* False when nothing waits under this identifier. */
static bool release_id(struct mqtt_session *session, uint16_t id)
{
    uint32_t span = id_distance(session->oldest_packet_id, session->next_packet_id);
    uint32_t distance = id_distance(session->oldest_packet_id, id);
    if (distance >= span)
        return false;
    uint32_t bit = window_bit(session, distance);
    uint64_t mask = UINT64_C(1) << bit % 64;
    if (!(session->outstanding[bit / 64] & mask))
        return false;
    session->outstanding[bit / 64] &= ~mask;
    session->outbound_unacknowledged--;
    if (distance == 0)
        advance_window(session, span);
    return true;
}

/* ---- packets ---- */

static int take_connect(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event)
{
    session->version = wire_connect_version(frame);
    struct mqtt_connect *connect = &event->connect;
    int error = mqtt_connect_decode(frame, connect);
    if (error)
        return error;
    if (connect->properties.present & (UINT64_C(1) << MQTT_PROPERTY_AUTHENTICATION_METHOD))
        return ERR_AUTHENTICATION_METHOD;
    session->keep_alive_s = connect->keep_alive_s;
    session->session_expiry_interval_s = connect->properties.session_expiry_interval;
    session->peer_packet_size_max = connect->properties.maximum_packet_size;
    if (connect->version == MQTT_VERSION_5_0 && connect->properties.receive_maximum < MQTT_SEND_WINDOW)
        session->send_maximum = connect->properties.receive_maximum;
    event->type = MQTT_EVENT_CONNECT;
    return 0;
}

static int take_publish(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event)
{
    struct mqtt_publish *publish = &event->publish;
    int error = mqtt_publish_decode(frame, session->version, publish);
    if (error)
        return error;
    if (publish->qos > session->limits.qos_max)
        return ERR_QOS_NOT_SUPPORTED;
    bool five = session->version == MQTT_VERSION_5_0;
    if (five) {
        if (publish->topic_alias)
            return ERR_TOPIC_ALIAS; /* CONNACK announces none */
        if (publish->has_subscription_identifier)
            return ERR_PROTOCOL; /* only a server sends these */
        if (publish->retain && !session->limits.retain_available)
            return ERR_RETAIN_NOT_SUPPORTED;
    }
    if (publish->qos) {
        if (five && session->inbound_unacknowledged >= session->limits.receive_maximum)
            return ERR_RECEIVE_MAXIMUM;
        session->inbound_unacknowledged++;
    }
    event->type = MQTT_EVENT_PUBLISH;
    return 0;
}

/* *ignored: nothing waited under the identifier. No standard asks to close then, and a resent PUBLISH may well be answered twice. */
static int take_puback(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event, bool *ignored)
{
    int error = mqtt_ack_decode(frame, session->version, &event->ack);
    if (error)
        return error;
    *ignored = !release_id(session, event->ack.packet_id);
    session->unexpected_pubacks += *ignored;
    event->type = MQTT_EVENT_PUBACK;
    return 0;
}

static int take_disconnect(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event)
{
    int error = mqtt_disconnect_decode(frame, session->version, &event->disconnect);
    if (error)
        return error;
    /* A session that was to end with its connection cannot be kept after all (MQTT 5 section 3.14.2.2.2). */
    if (event->disconnect.properties.session_expiry_interval && !session->session_expiry_interval_s)
        return ERR_PROTOCOL;
    session->state = MQTT_SESSION_CLOSED;
    session->error = ERR_PROTOCOL; /* of whatever might still follow */
    event->type = MQTT_EVENT_DISCONNECT;
    return 0;
}

/* What a client may send and no event of this version is made of. */
static int refuse(const struct mqtt_session *session, const struct mqtt_frame *frame)
{
    struct mqtt_ack ack;
    struct mqtt_auth auth;
    int error;
    switch (frame->type) {
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        error = mqtt_ack_decode(frame, session->version, &ack);
        return error ? error : ERR_PROTOCOL; /* nothing of QoS 2 was ever begun */
    case MQTT_AUTH:
        error = mqtt_auth_decode(frame, session->version, &auth);
        return error ? error : ERR_AUTHENTICATION_METHOD;
    default:
        return ERR_PROTOCOL; /* a second CONNECT, or what only a server sends */
    }
}

static int take_active(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event, bool *ignored)
{
    int error;
    switch (frame->type) {
    case MQTT_PUBLISH:
        return take_publish(session, frame, event);
    case MQTT_PUBACK:
        return take_puback(session, frame, event, ignored);
    case MQTT_SUBSCRIBE:
        event->type = MQTT_EVENT_SUBSCRIBE;
        return mqtt_subscribe_decode(frame, session->version, &event->subscribe);
    case MQTT_UNSUBSCRIBE:
        event->type = MQTT_EVENT_UNSUBSCRIBE;
        return mqtt_unsubscribe_decode(frame, session->version, &event->subscribe);
    case MQTT_PINGREQ:
        error = mqtt_empty_decode(frame);
        event->type = MQTT_EVENT_PING;
        return error;
    case MQTT_DISCONNECT:
        return take_disconnect(session, frame, event);
    default:
        return refuse(session, frame);
    }
}

void mqtt_session_next(struct mqtt_session *session, const uint8_t *bytes, size_t length, uint64_t now_ns, size_t *consumed,
                       struct mqtt_event *event)
{
    *consumed = 0;
    if (session->state == MQTT_SESSION_CLOSED) {
        fail(session, session->error, event);
        return;
    }
    bool expects_connect = session->state == MQTT_SESSION_NEW;
    if (expects_connect && session->version) { /* what follows a CONNECT waits for its answer */
        need(event, 0);
        return;
    }
    if (expects_connect && length && bytes[0] >> 4 != MQTT_CONNECT) {
        fail(session, ERR_PROTOCOL, event);
        return;
    }
    bool ignored;
    do {
        struct mqtt_frame frame;
        int error = mqtt_frame_decode(bytes + *consumed, length - *consumed, session->limits.packet_size_max, &frame);
        if (error == ERR_TRUNCATED) {
            need(event, frame.total_size);
            return;
        }
        ignored = false;
        if (!error)
            error = expects_connect ? take_connect(session, &frame, event) : take_active(session, &frame, event, &ignored);
        if (error) {
            fail(session, error, event);
            return;
        }
        *consumed += frame.total_size;
        session->last_packet_ns = now_ns;
    } while (ignored);
}

void mqtt_session_accept(struct mqtt_session *session, uint16_t keep_alive_s)
{
    session->state = MQTT_SESSION_ACTIVE;
    session->keep_alive_s = keep_alive_s;
}

uint64_t mqtt_session_deadline_ns(const struct mqtt_session *session)
{
    if (session->state == MQTT_SESSION_NEW)
        return session->last_packet_ns + CONNECT_TIMEOUT_S * NS_PER_S;
    if (session->state == MQTT_SESSION_CLOSED || session->keep_alive_s == 0)
        return UINT64_MAX;
    return session->last_packet_ns + session->keep_alive_s * NS_PER_S * 3 / 2;
}
