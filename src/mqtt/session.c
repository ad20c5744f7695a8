/* One table-free state machine: NEW takes a CONNECT and nothing else, ACTIVE takes everything else, CLOSED takes nothing.
 *
 * Outgoing identifiers are handed out in turn, so those that wait for an answer lie in a window behind the next one. One bit for
 * each place in that window is all that QoS 1 has to remember; a straggler holds the window's start until it is answered. What QoS 2 has
 * to know besides is in a map, which QoS 1 only asks whether it is empty. */
#include "mqtt/session.h"

#include <assert.h>
#include <stdlib.h>

#include "mqtt/session_client.h"
#include "mqtt/session_parts.h"
#include "mqtt/wire.h"

enum { CONNECT_TIMEOUT_S = 10, ID_NOT_FOUND = 0x92 };

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

void mqtt_session_fini(struct mqtt_session *session)
{
    mqtt_id_map_fini(&session->inbound);
    mqtt_id_map_fini(&session->outbound);
    for (unsigned i = 0; session->aliases && i < session->limits.topic_alias_max; i++)
        free((void *)(uintptr_t)session->aliases[i].data);
    free(session->aliases);
    session->aliases = NULL;
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

static uint32_t window_bit(const struct mqtt_session *session, uint32_t distance)
{
    return (session->oldest_bit + distance) % MQTT_SEND_WINDOW;
}

uint16_t mqtt_session_take_id(struct mqtt_session *session, unsigned qos)
{
    uint32_t span = id_distance(session->oldest_packet_id, session->next_packet_id);
    if (session->outbound_unacknowledged - session->outbound_unsent >= session->send_maximum || span == MQTT_SEND_WINDOW)
        return 0;
    uint16_t id = session->next_packet_id;
    if (qos == 2 && mqtt_id_map_put(&session->outbound, id, MQTT_OUTBOUND_WAITS_PUBREC))
        return 0;
    uint32_t bit = window_bit(session, span);
    session->outstanding[bit / 64] |= UINT64_C(1) << bit % 64;
    session->outbound_unacknowledged++;
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

/* Whether the identifier is in use; *distance gets its place in the window then. */
static bool in_use(const struct mqtt_session *session, uint16_t id, uint32_t *distance)
{
    uint32_t span = id_distance(session->oldest_packet_id, session->next_packet_id);
    *distance = id_distance(session->oldest_packet_id, id);
    if (*distance >= span)
        return false;
    uint32_t bit = window_bit(session, *distance);
    return session->outstanding[bit / 64] >> bit % 64 & 1;
}

/* False when it is not in use. */
static bool release_id(struct mqtt_session *session, uint16_t id)
{
    uint32_t distance;
    if (!in_use(session, id, &distance))
        return false;
    uint32_t bit = window_bit(session, distance);
    session->outstanding[bit / 64] &= ~(UINT64_C(1) << bit % 64);
    session->outbound_unacknowledged--;
    if (distance == 0)
        advance_window(session, id_distance(session->oldest_packet_id, session->next_packet_id));
    return true;
}

enum mqtt_outbound mqtt_session_outbound(const struct mqtt_session *session, uint16_t id)
{
    uint32_t distance;
    unsigned state = mqtt_id_map_get(&session->outbound, id);
    if (state == MQTT_OUTBOUND_NONE && in_use(session, id, &distance))
        return MQTT_OUTBOUND_WAITS_PUBACK;
    return (enum mqtt_outbound)state;
}

int mqtt_session_carry_sent(struct mqtt_session *session, uint16_t id, unsigned qos, bool received)
{
    if (session->outbound_unacknowledged == 0)
        session->oldest_packet_id = session->next_packet_id = id;
    uint32_t span = id_distance(session->oldest_packet_id, id);
    if (span >= MQTT_SEND_WINDOW || span < id_distance(session->oldest_packet_id, session->next_packet_id))
        return ERR_INVALID;
    if (qos == 2 && mqtt_id_map_put(&session->outbound, id, received ? MQTT_OUTBOUND_WAITS_PUBCOMP : MQTT_OUTBOUND_WAITS_PUBREC))
        return ERR_NO_MEMORY;
    uint32_t bit = window_bit(session, span);
    session->outstanding[bit / 64] |= UINT64_C(1) << bit % 64;
    session->outbound_unacknowledged++;
    session->next_packet_id = id_after(id, 1);
    return 0;
}

void mqtt_session_skip_to(struct mqtt_session *session, uint16_t id)
{
    if (session->outbound_unacknowledged == 0)
        session->oldest_packet_id = session->next_packet_id = id;
    uint32_t span = id_distance(session->oldest_packet_id, session->next_packet_id), to = id_distance(session->oldest_packet_id, id);
    if (to >= span && to < PACKET_ID_COUNT / 2)
        session->next_packet_id = to <= MQTT_SEND_WINDOW ? id : id_after(session->oldest_packet_id, MQTT_SEND_WINDOW);
}

void mqtt_session_give_up(struct mqtt_session *session, uint16_t id)
{
    mqtt_id_map_put(&session->outbound, id, MQTT_OUTBOUND_NONE);
    release_id(session, id);
}

/* ---- QoS 2 publishes received ---- */

enum mqtt_inbound mqtt_session_inbound(const struct mqtt_session *session, uint16_t id)
{
    return (enum mqtt_inbound)mqtt_id_map_get(&session->inbound, id);
}

int mqtt_session_carry_recorded(struct mqtt_session *session, uint16_t id)
{
    int error = mqtt_id_map_put(&session->inbound, id, MQTT_INBOUND_RECORDED);
    if (!error) {
        session->inbound_recorded++;
        session->inbound_carried++;
    }
    return error;
}

void mqtt_session_recorded(struct mqtt_session *session, uint16_t id)
{
    assert(mqtt_session_inbound(session, id) == MQTT_INBOUND_RECEIVED);
    mqtt_id_map_put(&session->inbound, id, MQTT_INBOUND_RECORDED);
    session->inbound_unacknowledged--;
    session->inbound_recorded++;
}

void mqtt_session_reused(struct mqtt_session *session, uint16_t id)
{
    assert(mqtt_session_inbound(session, id) == MQTT_INBOUND_RECORDED);
    mqtt_id_map_put(&session->inbound, id, MQTT_INBOUND_RECEIVED);
    session->inbound_recorded--;
    session->inbound_unacknowledged++;
}

void mqtt_session_forget(struct mqtt_session *session, const struct mqtt_publish *publish)
{
    if (publish->qos == 2)
        mqtt_id_map_put(&session->inbound, publish->packet_id, MQTT_INBOUND_NONE);
    if (publish->qos)
        session->inbound_unacknowledged--;
}

/* ---- packets ---- */

static int take_connect(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event)
{
    session->version = wire_connect_version(frame);
    struct mqtt_connect *connect = &event->connect;
    int error = mqtt_connect_decode(frame, connect);
    if (error)
        return error;
    if (session->version == MQTT_VERSION_5_0 && !mqtt_frame_is_shortest(frame))
        return ERR_MALFORMED_PACKET;
    if (connect->properties.present & (UINT64_C(1) << MQTT_PROPERTY_AUTHENTICATION_METHOD))
        return ERR_AUTHENTICATION_METHOD;
    session->keep_alive_s = connect->keep_alive_s;
    session->session_expiry_interval_s = connect->properties.session_expiry_interval;
    session->peer_packet_size_max = connect->properties.maximum_packet_size;
    session->no_reasons = !connect->properties.request_problem_information;
    if (connect->version == MQTT_VERSION_5_0 && connect->properties.receive_maximum < MQTT_SEND_WINDOW)
        session->send_maximum = connect->properties.receive_maximum;
    event->type = MQTT_EVENT_CONNECT;
    return 0;
}

/* Learns what an alias stands for, or puts the topic in its place (MQTT 5 section 3.3.2.3.4). */
static int use_alias(struct mqtt_session *session, struct mqtt_publish *publish)
{
    unsigned max = session->limits.topic_alias_max;
    if (publish->topic_alias > max)
        return ERR_TOPIC_ALIAS;
    if (!session->aliases)
        session->aliases = calloc(max, sizeof *session->aliases);
    if (!session->aliases)
        return ERR_NO_MEMORY;
    struct mqtt_slice *known = &session->aliases[publish->topic_alias - 1], *topic = &publish->topic;
    if (topic->length == 0) {
        if (known->length == 0)
            return ERR_PROTOCOL;
        *topic = *known;
        return 0;
    }
    if (known->length == topic->length && memcmp(known->data, topic->data, topic->length) == 0)
        return 0;
    uint8_t *copy = malloc(topic->length);
    if (!copy)
        return ERR_NO_MEMORY;
    memcpy(copy, topic->data, topic->length);
    free((void *)(uintptr_t)known->data);
    *known = (struct mqtt_slice){copy, topic->length};
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
        if (publish->topic_alias && (error = use_alias(session, publish)))
            return error;
        if (publish->has_subscription_identifier && session->role == MQTT_ROLE_SERVER)
            return ERR_PROTOCOL; /* only a server sends these */
        if (publish->retain && !session->limits.retain_available)
            return ERR_RETAIN_NOT_SUPPORTED;
    }
    event->type = MQTT_EVENT_PUBLISH;
    if (publish->qos == 0)
        return 0;
    if (publish->qos == 2) {
        enum mqtt_inbound state = mqtt_session_inbound(session, publish->packet_id);
        if (state != MQTT_INBOUND_NONE) {
            event->type = MQTT_EVENT_REPEAT;
            event->recorded = state == MQTT_INBOUND_RECORDED;
            return 0;
        }
    }
    if (five && session->role == MQTT_ROLE_SERVER &&
        session->inbound_unacknowledged + session->inbound_recorded >= session->limits.receive_maximum + session->inbound_carried)
        return ERR_RECEIVE_MAXIMUM;
    if (publish->qos == 2 && mqtt_id_map_put(&session->inbound, publish->packet_id, MQTT_INBOUND_RECEIVED))
        return ERR_NO_MEMORY;
    session->inbound_unacknowledged++;
    return 0;
}

static int take_pubrel(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event)
{
    int error = mqtt_ack_decode(frame, session->version, &event->ack);
    if (error)
        return error;
    enum mqtt_inbound state = mqtt_session_inbound(session, event->ack.packet_id);
    if (state == MQTT_INBOUND_RECEIVED)
        return ERR_PROTOCOL; /* it answers a PUBREC that was not sent */
    if (state == MQTT_INBOUND_RECORDED) {
        mqtt_id_map_put(&session->inbound, event->ack.packet_id, MQTT_INBOUND_NONE);
        session->inbound_recorded--;
        session->inbound_carried -= session->inbound_carried > 0; /* whichever it was: both bounds hold */
    }
    event->type = MQTT_EVENT_PUBREL;
    event->reason = state == MQTT_INBOUND_NONE ? ID_NOT_FOUND : 0;
    return 0;
}

/* *ignored: nothing waits under the identifier. */
static void settle(struct mqtt_session *session, struct mqtt_event *event, bool *ignored)
{
    *ignored = !release_id(session, event->ack.packet_id);
    session->unexpected_answers += *ignored;
    event->type = MQTT_EVENT_SETTLED;
}

/* The fast path: a session without QoS 2 looks for its identifier in the window alone. */
static int take_puback(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event, bool *ignored)
{
    int error = mqtt_ack_decode(frame, session->version, &event->ack);
    if (error)
        return error;
    if (session->outbound.count && mqtt_id_map_get(&session->outbound, event->ack.packet_id))
        return ERR_PROTOCOL;
    settle(session, event, ignored);
    return 0;
}

static int take_pubrec(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event, bool *ignored)
{
    int error = mqtt_ack_decode(frame, session->version, &event->ack);
    if (error)
        return error;
    uint16_t id = event->ack.packet_id;
    enum mqtt_outbound state = mqtt_session_outbound(session, id);
    bool refused = event->ack.reason >= 0x80;
    if (state == MQTT_OUTBOUND_WAITS_PUBACK || (state == MQTT_OUTBOUND_WAITS_PUBCOMP && refused))
        return ERR_PROTOCOL;
    if (refused) {
        mqtt_id_map_put(&session->outbound, id, MQTT_OUTBOUND_NONE);
        settle(session, event, ignored);
        return 0;
    }
    if (state != MQTT_OUTBOUND_NONE)
        mqtt_id_map_put(&session->outbound, id, MQTT_OUTBOUND_WAITS_PUBCOMP);
    event->type = MQTT_EVENT_PUBREC;
    event->reason = state == MQTT_OUTBOUND_NONE ? ID_NOT_FOUND : 0;
    return 0;
}

static int take_pubcomp(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event, bool *ignored)
{
    int error = mqtt_ack_decode(frame, session->version, &event->ack);
    if (error)
        return error;
    enum mqtt_outbound state = mqtt_session_outbound(session, event->ack.packet_id);
    if (state != MQTT_OUTBOUND_WAITS_PUBCOMP && state != MQTT_OUTBOUND_NONE)
        return ERR_PROTOCOL;
    mqtt_id_map_put(&session->outbound, event->ack.packet_id, MQTT_OUTBOUND_NONE);
    settle(session, event, ignored);
    return 0;
}

static int take_disconnect(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event)
{
    int error = mqtt_disconnect_decode(frame, session->version, &event->disconnect);
    if (error)
        return error;
    if (session->role == MQTT_ROLE_CLIENT)
        return session_client_disconnect(session, event);
    /* A session that was to end with its connection cannot be kept after all (MQTT 5 section 3.14.2.2.2). */
    if (event->disconnect.properties.session_expiry_interval && !session->session_expiry_interval_s)
        return ERR_PROTOCOL;
    if (event->disconnect.properties.present & UINT64_C(1) << MQTT_PROPERTY_SESSION_EXPIRY)
        session->session_expiry_interval_s = event->disconnect.properties.session_expiry_interval;
    session->state = MQTT_SESSION_CLOSED;
    session->error = ERR_PROTOCOL; /* of whatever might still follow */
    event->type = MQTT_EVENT_DISCONNECT;
    return 0;
}

/* What a client may send and no event of this version is made of. */
static int refuse(const struct mqtt_session *session, const struct mqtt_frame *frame)
{
    if (frame->type != MQTT_AUTH)
        return ERR_PROTOCOL; /* a second CONNECT, or what only a server sends */
    struct mqtt_auth auth;
    int error = mqtt_auth_decode(frame, session->version, &auth);
    return error ? error : ERR_PROTOCOL; /* no CONNECT with an authentication method was accepted ([MQTT-4.12.0-7]) */
}

static int take_active(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event, bool *ignored)
{
    int error;
    if (session->role == MQTT_ROLE_CLIENT && session_is_of_one_side(frame->type))
        return session_client_take(session, frame, event);
    switch (frame->type) {
    case MQTT_PUBLISH:
        return take_publish(session, frame, event);
    case MQTT_PUBACK:
        return take_puback(session, frame, event, ignored);
    case MQTT_PUBREC:
        return take_pubrec(session, frame, event, ignored);
    case MQTT_PUBREL:
        return take_pubrel(session, frame, event);
    case MQTT_PUBCOMP:
        return take_pubcomp(session, frame, event, ignored);
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
    bool is_client = session->role == MQTT_ROLE_CLIENT, is_new = session->state == MQTT_SESSION_NEW, expects_connect = is_new && !is_client;
    if (expects_connect && session->version) { /* what follows a CONNECT waits for its answer */
        need(event, 0);
        return;
    }
    if (is_new && length && bytes[0] >> 4 != (is_client ? MQTT_CONNACK : MQTT_CONNECT)) {
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
        if (!error && session->version == MQTT_VERSION_5_0 && !mqtt_frame_is_shortest(&frame))
            error = ERR_MALFORMED_PACKET;
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

void mqtt_session_postpone(struct mqtt_session *session)
{
    assert(session->state == MQTT_SESSION_NEW);
    session->version = 0;
}

void mqtt_session_accept(struct mqtt_session *session, uint16_t keep_alive_s)
{
    session->state = MQTT_SESSION_ACTIVE;
    session->accepted = true;
    session->keep_alive_s = keep_alive_s;
}

int mqtt_session_refuse(const struct mqtt_session *session, int error, struct buffer *out)
{
    uint8_t reason = (uint8_t)error_mqtt_reason(error), version = session->version ? session->version : MQTT_VERSION_3_1_1;
    if (session->role == MQTT_ROLE_CLIENT)
        return session->accepted ? mqtt_disconnect_encode(out, version, reason) : 0;
    if (version == MQTT_VERSION_5_0) {
        int failed = mqtt_refusal_encode(out, session->accepted ? MQTT_DISCONNECT : MQTT_CONNACK, 0, &reason, 1,
                                         mqtt_session_reason(session, reason, error_text(error)), session->peer_packet_size_max);
        return failed == ERR_LIMIT ? 0 : failed; /* a peer that takes no packet of this size is told nothing */
    }
    if (session->accepted)
        return 0;
    bool told = error == ERR_CLIENT_ID || error == ERR_PROTOCOL_VERSION || (session->version && error_class(error) != ERROR_CLASS_PEER);
    return told ? mqtt_connack_encode(out, version, false, reason, (struct mqtt_slice){0}) : 0;
}

uint64_t mqtt_session_deadline_ns(const struct mqtt_session *session)
{
    if (session->state == MQTT_SESSION_NEW)
        return session->last_packet_ns + CONNECT_TIMEOUT_S * NS_PER_S;
    if (session->state == MQTT_SESSION_CLOSED || session->keep_alive_s == 0)
        return UINT64_MAX;
    if (session->role == MQTT_ROLE_CLIENT)
        return session->ping_sent_ns ? session->ping_sent_ns + session->keep_alive_s * NS_PER_S : UINT64_MAX;
    return session->last_packet_ns + session->keep_alive_s * NS_PER_S * 3 / 2;
}
