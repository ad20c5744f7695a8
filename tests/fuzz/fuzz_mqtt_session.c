/* The session: the first byte sets limits and habits of the owner, the rest is what a client sends. Fed at once and fed in small
 * pieces, the same events come out; after an error nothing is accepted; the counts of what is unacknowledged are right; a QoS 2 message
 * comes out once for each of its exchanges, whatever is repeated. */
#include <stdbool.h>
#include <string.h>

#include "base/error.h"
#include "fuzz.h"
#include "mqtt/session.h"
#include "mqtt/topic.h"

enum { EVENTS_MAX = 512 };

struct habits {
    bool acknowledges; /* at once; otherwise QoS 2 with the next PINGREQ, QoS 1 never */
    bool sends, retain_available;
    size_t piece; /* bytes that arrive at once when fed in pieces */
};

/* What of an event must not depend on how the bytes arrive. */
struct trace {
    struct {
        enum mqtt_event_type type;
        int error;
        uint32_t number; /* packet identifier, or length of the client identifier */
        size_t end;      /* bytes taken so far */
    } events[EVENTS_MAX];
    size_t count;
};

static uint8_t inbound[65536]; /* what a session should know of each identifier: enum mqtt_inbound */

static void check_window(const struct mqtt_session *session)
{
    uint32_t waiting = 0;
    for (size_t i = 0; i < MQTT_SEND_WINDOW / 64; i++)
        waiting += (uint32_t)__builtin_popcountll(session->outstanding[i]);
    PROMISE(waiting == session->outbound_unacknowledged);
    PROMISE(waiting <= session->send_maximum && session->send_maximum <= MQTT_SEND_WINDOW);
    bool first = session->outstanding[session->oldest_bit / 64] >> session->oldest_bit % 64 & 1;
    PROMISE(first == (waiting > 0));
    PROMISE((session->oldest_packet_id == session->next_packet_id) == (waiting == 0));
    PROMISE(session->outbound.count <= waiting);
}

static uint32_t number_of(const struct mqtt_event *event)
{
    switch (event->type) {
    case MQTT_EVENT_CONNECT:
        return event->connect.client_id.length;
    case MQTT_EVENT_PUBLISH:
    case MQTT_EVENT_REPEAT:
        return event->publish.packet_id;
    case MQTT_EVENT_PUBREL:
    case MQTT_EVENT_PUBREC:
        return (uint32_t)event->reason << 16 | event->ack.packet_id;
    case MQTT_EVENT_SETTLED:
        return event->ack.packet_id;
    case MQTT_EVENT_SUBSCRIBE:
    case MQTT_EVENT_UNSUBSCRIBE:
        return event->subscribe.packet_id;
    default:
        return 0;
    }
}

enum { ALIASES = 3 };

static void record(struct mqtt_session *session, uint16_t id)
{
    mqtt_session_recorded(session, id);
    inbound[id] = MQTT_INBOUND_RECORDED;
}

static void on_publish(struct mqtt_session *session, const struct habits *habits, const struct mqtt_publish *publish)
{
    PROMISE(session->state == MQTT_SESSION_ACTIVE && publish->qos <= 2 && publish->topic_alias <= ALIASES);
    PROMISE(mqtt_topic_name_valid((const char *)publish->topic.data, publish->topic.length)); /* whether it came as it is or by an alias */
    PROMISE(session->version != MQTT_VERSION_5_0 || !publish->retain || habits->retain_available);
    PROMISE(session->version != MQTT_VERSION_5_0 ||
            session->inbound_unacknowledged + session->inbound_recorded <= session->limits.receive_maximum);
    if (publish->qos == 2) {
        PROMISE(inbound[publish->packet_id] == MQTT_INBOUND_NONE);
        inbound[publish->packet_id] = MQTT_INBOUND_RECEIVED;
        if (habits->acknowledges)
            record(session, publish->packet_id);
    } else if (publish->qos && habits->acknowledges) {
        mqtt_session_acknowledged(session);
    }
}

static void act(struct mqtt_session *session, const struct habits *habits, const struct mqtt_event *event)
{
    switch (event->type) {
    case MQTT_EVENT_CONNECT:
        PROMISE(session->state == MQTT_SESSION_NEW && session->version == event->connect.version);
        mqtt_session_accept(session, event->connect.keep_alive_s);
        break;
    case MQTT_EVENT_PUBLISH:
        on_publish(session, habits, &event->publish);
        break;
    case MQTT_EVENT_REPEAT:
        PROMISE(event->publish.qos == 2 && inbound[event->publish.packet_id] != MQTT_INBOUND_NONE);
        PROMISE(event->recorded == (inbound[event->publish.packet_id] == MQTT_INBOUND_RECORDED));
        break;
    case MQTT_EVENT_PUBREL:
        PROMISE(inbound[event->ack.packet_id] == (event->reason ? MQTT_INBOUND_NONE : MQTT_INBOUND_RECORDED));
        inbound[event->ack.packet_id] = MQTT_INBOUND_NONE;
        break;
    case MQTT_EVENT_PUBREC:
        PROMISE(mqtt_session_outbound(session, event->ack.packet_id) == (event->reason ? MQTT_OUTBOUND_NONE : MQTT_OUTBOUND_WAITS_PUBCOMP));
        break;
    case MQTT_EVENT_SETTLED:
        PROMISE(mqtt_session_outbound(session, event->ack.packet_id) == MQTT_OUTBOUND_NONE);
        break;
    case MQTT_EVENT_PING:
        for (uint16_t id = 0; (id = mqtt_id_map_next(&session->inbound, id));)
            if (inbound[id] == MQTT_INBOUND_RECEIVED)
                record(session, id);
        break;
    default:
        break;
    }
    if (habits->sends && session->state == MQTT_SESSION_ACTIVE)
        for (int i = 0; i < 3; i++)
            mqtt_session_take_id(session, session->next_packet_id % 4 ? 1 : 2);
}

static void note(struct trace *trace, const struct mqtt_event *event, size_t end)
{
    if (trace->count < EVENTS_MAX) {
        trace->events[trace->count].type = event->type;
        trace->events[trace->count].error = event->type == MQTT_EVENT_ERROR ? event->error : 0;
        trace->events[trace->count].number = number_of(event);
        trace->events[trace->count].end = end;
        trace->count++;
    }
}

static void check_closed(struct mqtt_session *session, int error)
{
    static const uint8_t ping[] = {0xc0, 0};
    struct mqtt_event event;
    size_t consumed = 1;
    mqtt_session_next(session, ping, sizeof ping, 3, &consumed, &event);
    PROMISE(event.type == MQTT_EVENT_ERROR && event.error == error && consumed == 0);
    PROMISE(session->state == MQTT_SESSION_CLOSED && mqtt_session_deadline_ns(session) == UINT64_MAX);
}

static void feed(struct mqtt_session *session, const uint8_t *data, size_t size, size_t piece, const struct habits *habits,
                 struct trace *trace)
{
    size_t at = 0, arrived = 0;
    for (;;) {
        struct mqtt_event event;
        size_t consumed;
        mqtt_session_next(session, data + at, arrived - at, 2, &consumed, &event);
        PROMISE(consumed <= arrived - at);
        at += consumed;
        if (event.type == MQTT_EVENT_NEED_MORE) {
            PROMISE(event.needed == 0 || (event.needed > arrived - at && event.needed <= session->limits.packet_size_max));
            if (arrived == size)
                return;
            arrived = size - arrived < piece ? size : arrived + piece;
            continue;
        }
        note(trace, &event, at);
        act(session, habits, &event);
        check_window(session);
        if (event.type == MQTT_EVENT_ERROR) {
            PROMISE(error_class(event.error) == ERROR_CLASS_PEER);
            check_closed(session, event.error);
            return;
        }
        if (event.type == MQTT_EVENT_DISCONNECT) {
            check_closed(session, ERR_PROTOCOL);
            return;
        }
    }
}

static void run(const uint8_t *data, size_t size, size_t piece, const struct habits *habits, struct trace *trace)
{
    struct mqtt_session_limits limits = {.packet_size_max = 4096,
                                         .receive_maximum = 5,
                                         .qos_max = 2,
                                         .retain_available = habits->retain_available,
                                         .topic_alias_max = ALIASES};
    struct mqtt_session session;
    mqtt_session_init(&session, &limits, 1);
    memset(inbound, 0, sizeof inbound);
    feed(&session, data, size, piece, habits, trace);
    mqtt_session_fini(&session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct habits habits = {
        .acknowledges = data[0] & 1, .sends = data[0] & 2, .retain_available = data[0] & 4, .piece = (data[0] >> 3) + 1};
    static struct trace whole, pieces;
    whole.count = pieces.count = 0;
    run(data + 1, size - 1, size, &habits, &whole);
    run(data + 1, size - 1, habits.piece, &habits, &pieces);
    PROMISE(whole.count == pieces.count);
    for (size_t i = 0; i < whole.count; i++) {
        PROMISE(whole.events[i].type == pieces.events[i].type && whole.events[i].error == pieces.events[i].error);
        PROMISE(whole.events[i].number == pieces.events[i].number);
        /* An ignored answer is dropped with the packet behind it or, when that has not arrived, on its own. */
        PROMISE(whole.events[i].type == MQTT_EVENT_ERROR || whole.events[i].end == pieces.events[i].end);
    }
    return 0;
}
