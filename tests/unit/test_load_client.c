/* load/load_client against a server that the test plays by hand: what leaves the client, and what it makes of each answer. */
#include "load/load_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "unit.h"

#define DEADLINE_NS UINT64_C(10000000000)

enum { INPUT_SIZE = 4 << 20, TAGS_MAX = 64 };

struct stage {
    struct load_client *client;
    struct load_connection *connection;
    int listener, fd; /* fd: the server's end; -1 */
    uint8_t version;
    uint8_t *input;
    size_t length;
    struct buffer answer;
    /* What the handlers were told. */
    unsigned connected, granted, denied, disconnected, received;
    int last_error;
    char last_reason[LOAD_REASON_TEXT_MAX];
    uint32_t acknowledged[TAGS_MAX], unacknowledged[TAGS_MAX];
    unsigned acknowledged_count, unacknowledged_count;
    uint8_t last_ack_reason;
    uint64_t last_due_ns;
    char last_topic[64];
    size_t last_payload_length, payload_bytes;
};

/* ---- handlers ---- */

static void on_connected(void *context, struct load_connection *connection)
{
    struct stage *stage = context;
    assert_true(load_connection_ready(connection, 0));
    stage->connected++;
}

static void on_subscribed(void *context, struct load_connection *connection, bool granted)
{
    (void)connection;
    struct stage *stage = context;
    stage->granted += granted;
    stage->denied += !granted;
}

static void on_acknowledged(void *context, struct load_connection *connection, uint32_t tag, uint64_t due_ns, uint8_t reason)
{
    (void)connection;
    struct stage *stage = context;
    assert_true(stage->acknowledged_count < TAGS_MAX);
    stage->acknowledged[stage->acknowledged_count++] = tag;
    stage->last_ack_reason = reason;
    stage->last_due_ns = due_ns;
}

static void on_unacknowledged(void *context, struct load_connection *connection, uint32_t tag)
{
    struct stage *stage = context;
    assert_false(load_connection_ready(connection, 0));
    assert_true(stage->unacknowledged_count < TAGS_MAX);
    stage->unacknowledged[stage->unacknowledged_count++] = tag;
}

static void on_disconnected(void *context, struct load_connection *connection, int error, const char *reason)
{
    (void)connection;
    struct stage *stage = context;
    stage->disconnected++;
    stage->last_error = error;
    snprintf(stage->last_reason, sizeof stage->last_reason, "%s", reason);
}

static void on_received(void *context, struct load_connection *connection, const struct mqtt_publish *publish)
{
    (void)connection;
    struct stage *stage = context;
    stage->received++;
    stage->payload_bytes += publish->payload.length;
    stage->last_payload_length = publish->payload.length;
    snprintf(stage->last_topic, sizeof stage->last_topic, "%.*s", (int)publish->topic.length, (const char *)publish->topic.data);
}

static const struct load_handlers handlers = {.connected = on_connected,
                                              .subscribed = on_subscribed,
                                              .acknowledged = on_acknowledged,
                                              .unacknowledged = on_unacknowledged,
                                              .disconnected = on_disconnected,
                                              .received = on_received};

/* ---- the server's side ---- */

static void turn(struct stage *stage)
{
    assert_int_equal(load_client_turn(stage->client, clock_monotonic_ns() + 1000000), 0);
}

static void accept_peer(struct stage *stage)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DEADLINE_NS;
    while ((stage->fd = accept4(stage->listener, NULL, NULL, SOCK_NONBLOCK)) < 0) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        turn(stage);
    }
    stage->length = 0;
}

/* The next packet from the client. It lies in stage->input until the next call. */
static struct mqtt_frame next_packet(struct stage *stage, size_t *used)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DEADLINE_NS;
    struct mqtt_frame frame;
    memmove(stage->input, stage->input + *used, stage->length - *used);
    stage->length -= *used;
    int error;
    while ((error = mqtt_frame_decode(stage->input, stage->length, INPUT_SIZE, &frame)) == ERR_TRUNCATED) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        turn(stage);
        ssize_t count = recv(stage->fd, stage->input + stage->length, INPUT_SIZE - stage->length, 0);
        assert_true(count > 0 || (count < 0 && errno == EAGAIN));
        stage->length += count > 0 ? (size_t)count : 0;
    }
    assert_int_equal(error, 0);
    *used = frame.total_size;
    return frame;
}

/* Sends stage->answer in pieces of at most `piece` bytes, with a turn of the client between them. */
static void send_answer(struct stage *stage, size_t piece)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DEADLINE_NS;
    for (size_t sent = 0; sent < stage->answer.length;) {
        size_t left = stage->answer.length - sent;
        ssize_t count = send(stage->fd, stage->answer.data + sent, left < piece ? left : piece, MSG_NOSIGNAL);
        sent += count > 0 ? (size_t)count : 0;
        turn(stage);
        assert_true(clock_monotonic_ns() < deadline_ns);
    }
    buffer_clear(&stage->answer);
}

static void turn_until(struct stage *stage, const unsigned *count, unsigned wanted)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DEADLINE_NS;
    while (*count < wanted) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        turn(stage);
    }
    assert_int_equal(*count, wanted);
}

static void welcome(struct stage *stage, uint16_t receive_maximum)
{
    struct buffer properties;
    buffer_init(&properties, 64);
    if (receive_maximum && stage->version == MQTT_VERSION_5_0)
        mqtt_property_u16(&properties, MQTT_PROPERTY_RECEIVE_MAXIMUM, receive_maximum);
    struct mqtt_slice raw = {properties.data, (uint32_t)properties.length};
    assert_int_equal(mqtt_connack_encode(&stage->answer, stage->version, false, 0, raw), 0);
    buffer_fini(&properties);
    unsigned before = stage->connected;
    send_answer(stage, 64);
    turn_until(stage, &stage->connected, before + 1);
}

/* ---- set-up ---- */

static void open_stage(struct stage *stage, uint8_t version, uint16_t inflight_max, bool retry)
{
    *stage = (struct stage){.fd = -1, .version = version, .input = malloc(INPUT_SIZE)};
    buffer_init(&stage->answer, INPUT_SIZE);
    stage->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert_int_equal(bind(stage->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(stage->listener, 8), 0);
    assert_int_equal(getsockname(stage->listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(load_client_create(&stage->client, "127.0.0.1", ntohs(address.sin_port), &handlers), 0);
    struct load_connection_options options = {.client_id = "tester", .version = version, .inflight_max = inflight_max, .retry = retry};
    assert_int_equal(load_connection_open(stage->client, &options, stage, &stage->connection), 0);
}

static void close_stage(struct stage *stage)
{
    load_client_destroy(stage->client);
    if (stage->fd >= 0)
        close(stage->fd);
    close(stage->listener);
    buffer_fini(&stage->answer);
    free(stage->input);
}

/* A stage whose connection is open. */
static void open_connected(struct stage *stage, uint8_t version, uint16_t inflight_max, bool retry)
{
    open_stage(stage, version, inflight_max, retry);
    accept_peer(stage);
    size_t used = 0;
    next_packet(stage, &used);
    stage->length = 0;
    welcome(stage, 0);
}

static int publish(struct stage *stage, uint8_t qos, uint32_t tag, const char *text)
{
    struct mqtt_publish message = {
        .qos = qos, .topic = {(const uint8_t *)"a/b", 3}, .payload = {(const uint8_t *)text, (uint32_t)strlen(text)}};
    return load_connection_publish(stage->connection, &message, tag, 1000 + tag);
}

/* ---- tests ---- */

static void it_says_connect_and_waits_for_the_answer(void **state)
{
    (void)state;
    for (uint8_t version = MQTT_VERSION_3_1_1; version <= MQTT_VERSION_5_0; version++) {
        struct stage stage;
        open_stage(&stage, version, 10, false);
        assert_int_equal(publish(&stage, 1, 1, "early"), ERR_DISCONNECTED);
        accept_peer(&stage);
        size_t used = 0;
        struct mqtt_frame frame = next_packet(&stage, &used);
        struct mqtt_connect connect;
        assert_int_equal(mqtt_connect_decode(&frame, &connect), 0);
        assert_int_equal(connect.version, version);
        assert_true(connect.clean_start);
        assert_memory_equal(connect.client_id.data, "tester", 6);
        assert_false(load_connection_ready(stage.connection, 0));
        welcome(&stage, 0);
        assert_true(load_connection_ready(stage.connection, 0));
        close_stage(&stage);
    }
}

static void a_refusal_is_told_in_words(void **state)
{
    (void)state;
    struct stage stage;
    open_stage(&stage, MQTT_VERSION_3_1_1, 10, false);
    accept_peer(&stage);
    size_t used = 0;
    next_packet(&stage, &used);
    assert_int_equal(mqtt_connack_encode(&stage.answer, MQTT_VERSION_3_1_1, false, 5, (struct mqtt_slice){0}), 0);
    send_answer(&stage, 64);
    turn_until(&stage, &stage.disconnected, 1);
    assert_non_null(strstr(stage.last_reason, "0x05"));
    assert_int_equal(stage.connected, 0);
    close_stage(&stage);
}

static void a_server_that_is_not_there_is_reported(void **state)
{
    (void)state;
    struct stage stage;
    open_stage(&stage, MQTT_VERSION_3_1_1, 10, false);
    close(stage.listener);
    stage.listener = -1;
    turn_until(&stage, &stage.disconnected, 1);
    assert_non_null(strstr(stage.last_reason, "refused"));
    load_client_destroy(stage.client);
    struct load_client *client = NULL;
    assert_int_equal(load_client_create(&client, "no such host", 1, &handlers), ERR_NOT_FOUND);
    assert_null(client);
    stage.client = NULL;
    close_stage(&stage);
}

static void publishes_arrive_as_they_were_given(void **state)
{
    (void)state;
    for (uint8_t version = MQTT_VERSION_3_1_1; version <= MQTT_VERSION_5_0; version++) {
        struct stage stage;
        open_connected(&stage, version, 10, false);
        assert_int_equal(publish(&stage, 0, 0, "zero"), 0);
        assert_int_equal(publish(&stage, 1, 7, "one"), 0);
        size_t used = 0;
        struct mqtt_publish message;
        struct mqtt_frame frame = next_packet(&stage, &used);
        assert_int_equal(mqtt_publish_decode(&frame, version, &message), 0);
        assert_int_equal(message.qos, 0);
        assert_memory_equal(message.payload.data, "zero", 4);
        frame = next_packet(&stage, &used);
        assert_int_equal(mqtt_publish_decode(&frame, version, &message), 0);
        assert_int_equal(message.qos, 1);
        assert_memory_equal(message.topic.data, "a/b", 3);
        assert_int_equal(mqtt_ack_encode(&stage.answer, version, MQTT_PUBACK, message.packet_id, 0), 0);
        send_answer(&stage, 64);
        turn_until(&stage, &stage.acknowledged_count, 1);
        assert_int_equal(stage.acknowledged[0], 7);
        assert_int_equal(stage.last_due_ns, 1007);
        assert_int_equal(load_client_counters(stage.client)->published, 2);
        close_stage(&stage);
    }
}

static void the_window_is_the_smaller_one(void **state)
{
    (void)state;
    struct stage stage;
    open_stage(&stage, MQTT_VERSION_5_0, 10, false);
    accept_peer(&stage);
    size_t used = 0;
    next_packet(&stage, &used);
    stage.length = 0;
    welcome(&stage, 2);
    assert_int_equal(publish(&stage, 1, 1, "x"), 0);
    assert_int_equal(publish(&stage, 1, 2, "x"), 0);
    assert_false(load_connection_ready(stage.connection, 1));
    assert_int_equal(publish(&stage, 1, 3, "x"), ERR_LIMIT);
    assert_int_equal(publish(&stage, 0, 0, "x"), 0);
    close_stage(&stage);

    open_connected(&stage, MQTT_VERSION_3_1_1, 0, false);
    assert_int_equal(publish(&stage, 1, 1, "x"), ERR_LIMIT);
    close_stage(&stage);
}

static void output_has_a_limit(void **state)
{
    (void)state;
    struct stage stage;
    open_connected(&stage, MQTT_VERSION_3_1_1, 10, false);
    char *text = malloc(LOAD_OUTPUT_FULL / 4 + 1);
    memset(text, 'x', LOAD_OUTPUT_FULL / 4);
    text[LOAD_OUTPUT_FULL / 4] = '\0';
    unsigned taken = 0;
    while (publish(&stage, 0, 0, text) == 0)
        assert_true(++taken < 10);
    assert_int_equal(taken, 4);
    free(text);
    close_stage(&stage);
}

static void deliveries_are_acknowledged_whatever_their_pieces(void **state)
{
    (void)state;
    static const size_t pieces[] = {1, 7, 5000, INPUT_SIZE};
    static char large[300000];
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        struct stage stage;
        open_connected(&stage, MQTT_VERSION_3_1_1, 0, false);
        struct mqtt_publish message = {.qos = 1, .packet_id = 11, .topic = {(const uint8_t *)"t/1", 3}};
        uint32_t sizes[] = {0, 100, pieces[i] < 5000 ? 3000u : (uint32_t)sizeof large, 20};
        for (size_t j = 0; j < 4; j++) {
            message.payload = (struct mqtt_slice){(const uint8_t *)large, sizes[j]};
            message.packet_id = (uint16_t)(11 + j);
            assert_int_equal(mqtt_publish_encode(&stage.answer, MQTT_VERSION_3_1_1, &message, NULL), 0);
        }
        send_answer(&stage, pieces[i]);
        turn_until(&stage, &stage.received, 4);
        assert_int_equal(stage.last_payload_length, 20);
        assert_int_equal(stage.payload_bytes, 120 + sizes[2]);
        assert_string_equal(stage.last_topic, "t/1");
        size_t used = 0;
        for (uint16_t id = 11; id < 15; id++) {
            struct mqtt_frame frame = next_packet(&stage, &used);
            struct mqtt_ack ack;
            assert_int_equal(frame.type, MQTT_PUBACK);
            assert_int_equal(mqtt_ack_decode(&frame, MQTT_VERSION_3_1_1, &ack), 0);
            assert_int_equal(ack.packet_id, id);
        }
        close_stage(&stage);
    }
}

static void subscriptions_are_granted_or_denied(void **state)
{
    (void)state;
    struct stage stage;
    open_connected(&stage, MQTT_VERSION_5_0, 0, false);
    for (unsigned denied = 0; denied < 2; denied++) {
        assert_int_equal(load_connection_subscribe(stage.connection, "a/+", 1), 0);
        size_t used = 0;
        struct mqtt_frame frame = next_packet(&stage, &used);
        stage.length = 0;
        struct mqtt_subscribe packet;
        struct mqtt_subscription entry;
        uint32_t position = 0;
        assert_int_equal(mqtt_subscribe_decode(&frame, MQTT_VERSION_5_0, &packet), 0);
        assert_true(mqtt_subscribe_next(&packet, false, &position, &entry));
        assert_memory_equal(entry.filter.data, "a/+", 3);
        assert_int_equal(entry.qos, 1);
        uint8_t code = denied ? 0x87 : 1;
        assert_int_equal(mqtt_suback_encode(&stage.answer, MQTT_VERSION_5_0, packet.packet_id, &code, 1), 0);
        send_answer(&stage, 64);
        turn_until(&stage, denied ? &stage.denied : &stage.granted, 1);
    }
    close_stage(&stage);
}

static void a_lost_connection_hands_back_and_comes_again(void **state)
{
    (void)state;
    struct stage stage;
    open_connected(&stage, MQTT_VERSION_3_1_1, 10, true);
    for (uint32_t tag = 1; tag <= 3; tag++)
        assert_int_equal(publish(&stage, 1, tag, "x"), 0);
    size_t used = 0;
    struct mqtt_publish message;
    next_packet(&stage, &used);
    struct mqtt_frame frame = next_packet(&stage, &used);
    assert_int_equal(mqtt_publish_decode(&frame, MQTT_VERSION_3_1_1, &message), 0);
    assert_int_equal(mqtt_ack_encode(&stage.answer, MQTT_VERSION_3_1_1, MQTT_PUBACK, message.packet_id, 0), 0);
    send_answer(&stage, 64);
    turn_until(&stage, &stage.acknowledged_count, 1);
    close(stage.fd);
    turn_until(&stage, &stage.disconnected, 1);
    assert_int_equal(stage.unacknowledged_count, 2);
    assert_int_equal(stage.unacknowledged[0], 1);
    assert_int_equal(stage.unacknowledged[1], 3);
    assert_int_equal(stage.last_error, ERR_DISCONNECTED);
    assert_int_equal(publish(&stage, 1, 9, "x"), ERR_DISCONNECTED);

    accept_peer(&stage);
    used = 0;
    next_packet(&stage, &used);
    stage.length = 0;
    welcome(&stage, 0);
    assert_int_equal(stage.connected, 2);
    assert_int_equal(publish(&stage, 1, 9, "x"), 0);
    used = 0;
    frame = next_packet(&stage, &used);
    assert_int_equal(frame.type, MQTT_PUBLISH);
    close_stage(&stage);
}

static void nonsense_ends_the_connection(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[4];
        size_t length;
    } cases[] = {{{0x40, 2, 0, 5}, 4},          /* PUBACK of what was never sent */
                 {{0xf3, 0}, 2},                /* AUTH with reserved flags */
                 {{0x20, 2, 0, 0}, 4},          /* a second CONNACK */
                 {{0x36, 2, 0, 0}, 4},          /* PUBLISH with QoS 3 */
                 {{0x82, 2, 0, 1}, 4},          /* SUBSCRIBE from a server */
                 {{0x30, 0xff, 0xff, 0xff}, 4}, /* header cut here; the next byte makes it too large */
                 {{0x00, 0}, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stage stage;
        open_connected(&stage, MQTT_VERSION_3_1_1, 10, false);
        assert_int_equal(buffer_append(&stage.answer, cases[i].bytes, cases[i].length), 0);
        if (cases[i].bytes[1] == 0xff)
            assert_int_equal(buffer_append(&stage.answer, "\x7f", 1), 0);
        send_answer(&stage, 64);
        turn_until(&stage, &stage.disconnected, 1);
        assert_true(error_class(stage.last_error) == ERROR_CLASS_PEER);
        assert_false(load_connection_ready(stage.connection, 0));
        close_stage(&stage);
    }
}

static void a_refusing_puback_says_so(void **state)
{
    (void)state;
    struct stage stage;
    open_connected(&stage, MQTT_VERSION_5_0, 10, false);
    assert_int_equal(publish(&stage, 1, 4, "x"), 0);
    size_t used = 0;
    struct mqtt_publish message;
    struct mqtt_frame frame = next_packet(&stage, &used);
    assert_int_equal(mqtt_publish_decode(&frame, MQTT_VERSION_5_0, &message), 0);
    assert_int_equal(mqtt_ack_encode(&stage.answer, MQTT_VERSION_5_0, MQTT_PUBACK, message.packet_id, 0x97), 0);
    send_answer(&stage, 64);
    turn_until(&stage, &stage.acknowledged_count, 1);
    assert_int_equal(stage.last_ack_reason, 0x97);
    close_stage(&stage);
}

static void closing_says_goodbye_and_nothing_more(void **state)
{
    (void)state;
    struct stage stage;
    open_connected(&stage, MQTT_VERSION_3_1_1, 10, true);
    load_client_destroy(stage.client);
    stage.client = NULL;
    uint8_t bytes[8];
    assert_int_equal(recv(stage.fd, bytes, sizeof bytes, MSG_WAITALL), 2);
    assert_memory_equal(bytes, "\xe0\0", 2); /* DISCONNECT, and the end */
    assert_int_equal(stage.disconnected, 0);
    close_stage(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_says_connect_and_waits_for_the_answer),
        cmocka_unit_test(a_refusal_is_told_in_words),
        cmocka_unit_test(a_server_that_is_not_there_is_reported),
        cmocka_unit_test(publishes_arrive_as_they_were_given),
        cmocka_unit_test(the_window_is_the_smaller_one),
        cmocka_unit_test(output_has_a_limit),
        cmocka_unit_test(deliveries_are_acknowledged_whatever_their_pieces),
        cmocka_unit_test(subscriptions_are_granted_or_denied),
        cmocka_unit_test(a_lost_connection_hands_back_and_comes_again),
        cmocka_unit_test(nonsense_ends_the_connection),
        cmocka_unit_test(a_refusing_puback_says_so),
        cmocka_unit_test(closing_says_goodbye_and_nothing_more),
    };
    return cmocka_run_group_tests_name("load_client", tests, NULL, NULL);
}
