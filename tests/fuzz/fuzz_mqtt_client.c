/* The client's session: the first byte sets version and habits of the owner, the rest is what a server sends; a byte 0xff between two
 * packets ends the connection, and the next begins. Fed at once and in small pieces, the same events come out; a QoS 2 message comes out
 * once for each of its exchanges, over any number of connections that keep the session; nothing is remembered when the server has kept
 * nothing. */
#include <stdbool.h>
#include <string.h>

#include "base/error.h"
#include "fuzz.h"
#include "mqtt/session_client.h"

enum { EVENTS_MAX = 512, RECEIVE_MAXIMUM = 5 };

struct habits {
    bool acknowledges, sends;
    uint8_t version;
    size_t piece;
};

struct trace {
    uint32_t events[EVENTS_MAX];
    size_t count;
};

static uint8_t inbound[65536]; /* what the session should know of each identifier: enum mqtt_inbound */

static void connect_again(struct mqtt_session *session, uint8_t version)
{
    struct mqtt_connect connect = {.version = version, .keep_alive_s = 10, .client_id = {(const uint8_t *)"c", 1}};
    struct buffer out;
    buffer_init(&out, 1000);
    PROMISE(mqtt_session_connect(session, &connect, 1, &out) == 0 && out.length > 0);
    buffer_fini(&out);
}

static void record_all(struct mqtt_session *session)
{
    for (uint16_t id = 0; (id = mqtt_id_map_next(&session->inbound, id));) {
        PROMISE(inbound[id] != MQTT_INBOUND_NONE);
        if (inbound[id] == MQTT_INBOUND_RECEIVED)
            mqtt_session_recorded(session, id);
        inbound[id] = MQTT_INBOUND_RECORDED;
    }
}

static void on_connack(struct mqtt_session *session, const struct mqtt_connack *connack)
{
    PROMISE(session->state == (connack->reason ? MQTT_SESSION_CLOSED : MQTT_SESSION_ACTIVE));
    if (connack->reason || connack->session_present)
        return;
    PROMISE(session->inbound.count == 0 && session->outbound.count == 0 && session->outbound_unacknowledged == 0);
    memset(inbound, 0, sizeof inbound);
}

static void on_publish(struct mqtt_session *session, const struct habits *habits, const struct mqtt_publish *publish)
{
    PROMISE(session->state == MQTT_SESSION_ACTIVE && !publish->topic_alias);
    if (publish->qos == 2) {
        PROMISE(inbound[publish->packet_id] == MQTT_INBOUND_NONE);
        inbound[publish->packet_id] = MQTT_INBOUND_RECEIVED;
    }
    if (publish->qos == 1 && habits->acknowledges)
        mqtt_session_acknowledged(session);
}

static void act(struct mqtt_session *session, const struct habits *habits, const struct mqtt_event *event)
{
    PROMISE(event->type != MQTT_EVENT_CONNECT && event->type != MQTT_EVENT_SUBSCRIBE && event->type != MQTT_EVENT_UNSUBSCRIBE &&
            event->type != MQTT_EVENT_PING);
    if (event->type == MQTT_EVENT_CONNACK)
        on_connack(session, &event->connack);
    else if (event->type == MQTT_EVENT_PUBLISH)
        on_publish(session, habits, &event->publish);
    else if (event->type == MQTT_EVENT_REPEAT)
        PROMISE(event->recorded == (inbound[event->publish.packet_id] == MQTT_INBOUND_RECORDED) && inbound[event->publish.packet_id]);
    if (event->type == MQTT_EVENT_PUBREL) {
        PROMISE(inbound[event->ack.packet_id] == (event->reason ? MQTT_INBOUND_NONE : MQTT_INBOUND_RECORDED));
        inbound[event->ack.packet_id] = MQTT_INBOUND_NONE;
    }
    if (habits->acknowledges)
        record_all(session);
    if (habits->sends && session->state == MQTT_SESSION_ACTIVE)
        for (int i = 0; i < 3; i++)
            mqtt_session_take_id(session, session->next_packet_id % 4 ? 1 : 2);
}

static void feed(struct mqtt_session *session, const uint8_t *data, size_t size, size_t piece, const struct habits *habits,
                 struct trace *trace)
{
    size_t at = 0, arrived = 0;
    for (;;) {
        struct mqtt_event event;
        size_t consumed;
        if (at < arrived && data[at] == 0xff) { /* no packet begins so: type 15, flags 15 */
            at++;
            mqtt_session_disconnected(session);
            if (!habits->acknowledges)
                record_all(session); /* what was on its way to the disk arrives there while nobody is connected */
            PROMISE(session->inbound_unacknowledged + session->inbound_recorded == session->inbound.count);
            connect_again(session, habits->version);
        }
        mqtt_session_next(session, data + at, arrived - at, 2, &consumed, &event);
        PROMISE(consumed <= arrived - at);
        at += consumed;
        if (event.type == MQTT_EVENT_NEED_MORE) {
            if (at < arrived && data[at] == 0xff)
                continue;
            if (arrived == size)
                return;
            arrived = size - arrived < piece ? size : arrived + piece;
            continue;
        }
        if (event.type != MQTT_EVENT_ERROR || event.error != ERR_MALFORMED_PACKET || at >= size || data[at] != 0xff)
            act(session, habits, &event);
        if (trace->count < EVENTS_MAX)
            trace->events[trace->count++] = (uint32_t)event.type << 16 | (event.type == MQTT_EVENT_ERROR ? (uint16_t)-event.error : 0);
        PROMISE(session->outbound.count <= session->outbound_unacknowledged);
        if (event.type == MQTT_EVENT_ERROR) {
            PROMISE(session->state == MQTT_SESSION_CLOSED);
            return;
        }
        if (session->state == MQTT_SESSION_CLOSED)
            return;
    }
}

static void run(const uint8_t *data, size_t size, size_t piece, const struct habits *habits, struct trace *trace)
{
    struct mqtt_session_limits limits = {
        .packet_size_max = 4096, .receive_maximum = RECEIVE_MAXIMUM, .qos_max = 2, .retain_available = true};
    struct mqtt_session session;
    mqtt_session_init_client(&session, &limits);
    memset(inbound, 0, sizeof inbound);
    connect_again(&session, habits->version);
    feed(&session, data, size, piece, habits, trace);
    mqtt_session_fini(&session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct habits habits = {.acknowledges = data[0] & 1,
                            .sends = data[0] & 2,
                            .version = data[0] & 4 ? MQTT_VERSION_5_0 : MQTT_VERSION_3_1_1,
                            .piece = (data[0] >> 3) + 1};
    static struct trace whole, pieces;
    whole.count = pieces.count = 0;
    run(data + 1, size - 1, size, &habits, &whole);
    run(data + 1, size - 1, habits.piece, &habits, &pieces);
    PROMISE(whole.count == pieces.count && memcmp(whole.events, pieces.events, whole.count * sizeof whole.events[0]) == 0);
    return 0;
}
