/* What one message costs in the codec and the session: a 256 byte QoS 1 publish to a topic of 20 bytes. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "mqtt/session.h"

enum { PACKETS = 512, ROUNDS = 4000, REPEATS = 5 };

static const char topic[] = "plant/cell7/tool0042";

static struct mqtt_publish sample(const uint8_t payload[256])
{
    return (struct mqtt_publish){.qos = 1, .packet_id = 7, .topic = {(const uint8_t *)topic, sizeof topic - 1}, .payload = {payload, 256}};
}

static void open_session(struct mqtt_session *session, uint8_t version)
{
    struct mqtt_session_limits limits = {.packet_size_max = 1 << 20, .receive_maximum = 65535, .qos_max = 1, .retain_available = true};
    mqtt_session_init(session, &limits, 0);
    struct buffer bytes;
    buffer_init(&bytes, 1024);
    struct mqtt_connect connect = {.version = version, .clean_start = true, .client_id = {(const uint8_t *)"bench", 5}};
    int error = mqtt_connect_encode(&bytes, &connect);
    size_t consumed;
    struct mqtt_event event;
    mqtt_session_next(session, bytes.data, bytes.length, 0, &consumed, &event);
    assert(!error && event.type == MQTT_EVENT_CONNECT);
    mqtt_session_accept(session, 0);
    buffer_fini(&bytes);
}

static uint64_t receive_round(struct mqtt_session *session, const struct buffer *bytes)
{
    uint64_t sum = 0;
    for (size_t at = 0; at < bytes->length;) {
        size_t consumed;
        struct mqtt_event event;
        mqtt_session_next(session, bytes->data + at, bytes->length - at, 0, &consumed, &event);
        assert(event.type == MQTT_EVENT_PUBLISH);
        sum += event.publish.payload.length + event.publish.packet_id;
        mqtt_session_acknowledged(session);
        at += consumed;
    }
    return sum;
}

static uint64_t encode_round(struct buffer *out, uint8_t version, const struct mqtt_publish *publish)
{
    buffer_clear(out);
    size_t position = 0;
    for (int i = 0; i < PACKETS; i++) {
        int error = mqtt_publish_encode(out, version, publish, &position);
        assert(!error);
    }
    return position;
}

static uint64_t acknowledge_round(struct mqtt_session *session, struct buffer *bytes)
{
    buffer_clear(bytes);
    for (int i = 0; i < PACKETS; i++)
        mqtt_ack_encode(bytes, session->version, MQTT_PUBACK, mqtt_session_take_id(session, 1), 0);
    uint64_t sum = 0;
    for (size_t at = 0; at < bytes->length;) {
        size_t consumed;
        struct mqtt_event event;
        mqtt_session_next(session, bytes->data + at, bytes->length - at, 0, &consumed, &event);
        assert(event.type == MQTT_EVENT_SETTLED);
        sum += event.ack.packet_id;
        at += consumed;
    }
    return sum;
}

enum task { RECEIVE, ENCODE, ACKNOWLEDGE };

static void measure(const char *name, enum task task, uint8_t version)
{
    static const uint8_t payload[256] = {1};
    struct mqtt_publish publish = sample(payload);
    struct mqtt_session session;
    open_session(&session, version);
    struct buffer bytes;
    buffer_init(&bytes, 1 << 20);
    encode_round(&bytes, version, &publish);
    double best_ns = 1e9;
    uint64_t sum = 0;
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        uint64_t start_ns = clock_monotonic_ns();
        for (int round = 0; round < ROUNDS; round++)
            sum += task == RECEIVE  ? receive_round(&session, &bytes)
                   : task == ENCODE ? encode_round(&bytes, version, &publish)
                                    : acknowledge_round(&session, &bytes);
        double ns = (double)(clock_monotonic_ns() - start_ns) / ((double)ROUNDS * PACKETS);
        if (ns < best_ns)
            best_ns = ns;
    }
    buffer_fini(&bytes);
    printf("%-44s %8.1f ns\n", name, best_ns);
    if (sum == 0)
        abort();
}

int main(void)
{
    measure("receive a publish, MQTT 5", RECEIVE, MQTT_VERSION_5_0);
    measure("receive a publish, MQTT 3.1.1", RECEIVE, MQTT_VERSION_3_1_1);
    measure("encode a publish, MQTT 5", ENCODE, MQTT_VERSION_5_0);
    measure("encode a publish, MQTT 3.1.1", ENCODE, MQTT_VERSION_3_1_1);
    measure("take an identifier, encode and take a PUBACK", ACKNOWLEDGE, MQTT_VERSION_5_0);
    return 0;
}
