/* The bus in this process, with a journal in a folder of its own: the limits that a server under test cannot be brought to from outside. */
#include "bus/bus.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "folder.h"
#include "journal/disk.h"
#include "mqtt/packet.h"
#include "queue/embedded_producer.h"
#include "unit.h"

enum { DEADLINE_S = 30, CLIENTS_MAX = 24 };

/* The operating system's disk, whose syncs can be made to wait. */
static struct {
    struct disk disk;
    struct disk_ops ops;
    atomic_bool held;
} slow_disk;

static int slow_sync(struct disk *disk, int file)
{
    while (atomic_load(&slow_disk.held))
        usleep(1000);
    return disk_posix()->ops->sync(disk, file);
}

struct fixture {
    struct queue queue; /* of which the bus knows the way in */
    struct journal *journal;
    struct journal_stream *stream;
    struct bus *bus;
    struct bus_options options;
    int clients[CLIENTS_MAX];
    unsigned client_count;
};

static int open_producer(struct queue *queue, void (*notify)(void *context), void *context, struct queue_producer **producer)
{
    const struct fixture *fixture = (const struct fixture *)(void *)queue;
    struct queue_embedded_options options = {.journal = fixture->journal, .kept = fixture->stream};
    return embedded_producer_open(&options, notify, context, producer);
}

static int setup(void **state)
{
    static const struct queue_ops queue_ops = {.producer_open = open_producer};
    static const char *const hosts[] = {"127.0.0.1"};
    struct fixture *fixture = calloc(1, sizeof *fixture);
    *state = fixture;
    if (!fixture || test_folder_make(NULL))
        return -1;
    slow_disk.ops = *disk_posix()->ops;
    slow_disk.ops.sync = slow_sync;
    slow_disk.disk.ops = &slow_disk.ops;
    struct journal_options journal = {.disk = &slow_disk.disk, .folder = test_folder, .segment_size = 1 << 20};
    struct journal_stream_options stream = {.name = "bus", .retention_size = 1 << 20};
    if (journal_open(&fixture->journal, &journal) || journal_stream_add(fixture->journal, &stream, &fixture->stream) ||
        journal_start(fixture->journal))
        return -1;
    fixture->queue.ops = &queue_ops;
    fixture->options.queue = &fixture->queue;
    fixture->options.listeners[BUS_TCP] = (struct bus_listener){.hosts = hosts, .host_count = 1};
    fixture->options.loop_count = 2;
    fixture->options.connections_max = 100;
    fixture->options.packet_size_max = 1 << 20;
    fixture->options.receive_maximum = 65535;
    fixture->options.outgoing_soft_max = 64 << 20;
    fixture->options.stall_timeout_ns = 3600000000000u;
    fixture->options.memory_max = 1 << 30;
    fixture->options.journal_backlog_max = 64 << 20;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    atomic_store(&slow_disk.held, false);
    for (unsigned i = 0; i < fixture->client_count; i++)
        close(fixture->clients[i]);
    bus_stop(fixture->bus);
    journal_stop(fixture->journal);
    journal_close(fixture->journal);
    free(fixture);
    return test_folder_remove(NULL);
}

static void begin(struct fixture *fixture)
{
    assert_int_equal(bus_start(&fixture->bus, &fixture->options), 0);
}

/* ---- clients ---- */

static void send_all(int client, const void *bytes, size_t length)
{
    assert_int_equal(send(client, bytes, length, MSG_NOSIGNAL), length);
}

static void receive(int client, void *bytes, size_t length)
{
    assert_int_equal(recv(client, bytes, length, MSG_WAITALL), length);
}

/* Connections are dealt to the loops in turn. */
static int connect_client(struct fixture *fixture, char name)
{
    uint8_t hello[] = {0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, 1, 0}, answer[4];
    hello[14] = (uint8_t)name;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(bus_port(fixture->bus, BUS_TCP))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval patience = {.tv_sec = DEADLINE_S};
    int client = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(client >= 0 && fixture->client_count < CLIENTS_MAX);
    fixture->clients[fixture->client_count++] = client;
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(client, (const struct sockaddr *)&address, sizeof address), 0);
    send_all(client, hello, sizeof hello);
    receive(client, answer, sizeof answer);
    assert_memory_equal(answer, "\x20\x02\x00\x00", 4);
    return client;
}

static void subscribe(int client, uint8_t qos)
{
    uint8_t packet[] = {0x82, 6, 0, 1, 0, 1, 't', qos}, answer[5];
    send_all(client, packet, sizeof packet);
    receive(client, answer, sizeof answer);
    assert_int_equal(answer[0], 0x90);
    assert_int_equal(answer[4], qos);
}

/* ---- what the bus counts ---- */

static uint64_t counted(const char *sample)
{
    struct buffer text;
    buffer_init(&text, 1 << 20);
    assert_int_equal(metrics_write(&text), 0);
    const char *line = strstr(buffer_text(&text), sample);
    assert_non_null(line);
    uint64_t value = strtoull(line + strlen(sample), NULL, 10);
    buffer_fini(&text);
    return value;
}

static void wait_for(const char *sample, uint64_t value)
{
    uint64_t end_ns = clock_monotonic_ns() + DEADLINE_S * 1000000000ull;
    while (counted(sample) < value && clock_monotonic_ns() < end_ns)
        usleep(1000);
    assert_true(counted(sample) >= value);
}

#define DROPPED_OVERLOADED "spindle_bus_messages_dropped_total{reason=\"overloaded\"} "
#define DELIVERED_0        "spindle_bus_messages_delivered_total{qos=\"0\"} "
#define DELIVERED_1        "spindle_bus_messages_delivered_total{qos=\"1\"} "
#define DELIVERED_2        "spindle_bus_messages_delivered_total{qos=\"2\"} "
#define CLOSED_SLOW        "spindle_bus_disconnects_total{reason=\"slow\"} "
#define CLOSED_LIMIT       "spindle_bus_disconnects_total{reason=\"limit\"} "
#define RECEIVED_1         "spindle_bus_messages_received_total{qos=\"1\"} "
#define RECEIVED_2         "spindle_bus_messages_received_total{qos=\"2\"} "
#define PAUSED_UNREAD      "spindle_bus_pauses_total{reason=\"unread\"} "
#define PAUSED_MAIL        "spindle_bus_pauses_total{reason=\"overloaded\"} "

static struct message make_message(const uint8_t *payload, uint32_t length, uint8_t qos)
{
    return (struct message){.topic = "t", .topic_length = 1, .payload = payload, .payload_length = length, .flags = qos};
}

/* ---- mail between loops ---- */

static void mail_beyond_the_hard_limit_is_dropped_and_counted(void **state)
{
    struct fixture *fixture = *state;
    fixture->options.mail_hard_max = 1; /* any mail that waits is enough */
    begin(fixture);
    subscribe(connect_client(fixture, 'a'), 0);
    static const uint8_t payload[16];
    struct message message = make_message(payload, sizeof payload, 0);
    uint64_t sent = 0;
    do {
        for (unsigned i = 0; i < 1000; i++, sent++)
            bus_publish(fixture->bus, &message, 0);
    } while (counted(DROPPED_OVERLOADED) == 0 && sent < 10000000);
    assert_true(counted(DROPPED_OVERLOADED) > 0);
    wait_for(DELIVERED_0, sent - counted(DROPPED_OVERLOADED));
    assert_int_equal(counted(DELIVERED_0) + counted(DROPPED_OVERLOADED), sent);
}

static void senders_wait_for_mail_beyond_the_soft_limit(void **state)
{
    struct fixture *fixture = *state;
    fixture->options.mail_soft_max = 1;
    begin(fixture);
    int subscriber = connect_client(fixture, 'a'), publisher = connect_client(fixture, 'b'); /* on the other loop */
    subscribe(subscriber, 0);
    enum { COUNT = 2000 };
    static uint8_t packets[COUNT][6], received[COUNT][6];
    for (unsigned i = 0; i < COUNT; i++)
        memcpy(packets[i], (uint8_t[]){0x30, 4, 0, 1, 't', (uint8_t)i}, 6);
    send_all(publisher, packets, sizeof packets);
    receive(subscriber, received, sizeof received);
    assert_memory_equal(received, packets, sizeof packets); /* all of them, in order */
    assert_true(counted(PAUSED_MAIL) > 0);
    assert_int_equal(counted(DROPPED_OVERLOADED), 0);
}

/* Several senders of one loop, none of which has filled the mail alone. */
static void acknowledged_messages_never_reach_the_hard_limit(void **state)
{
    struct fixture *fixture = *state;
    fixture->options.mail_soft_max = 1;
    fixture->options.mail_hard_max = 256; /* a few messages, or what loops tell each other */
    begin(fixture);
    enum { SENDERS = 10, COUNT = 100 };
    int subscriber = connect_client(fixture, 'a'), senders[SENDERS];
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i] = connect_client(fixture, (char)('b' + 2 * i)); /* on the other loop */
        connect_client(fixture, (char)('c' + 2 * i));
    }
    subscribe(subscriber, 1);
    static uint8_t packets[COUNT][8], received[SENDERS * COUNT][8], acknowledgements[COUNT][4];
    for (unsigned i = 0; i < COUNT; i++)
        memcpy(packets[i], (uint8_t[]){0x32, 6, 0, 1, 't', (uint8_t)((i + 1) >> 8), (uint8_t)(i + 1), 'x'}, 8);
    for (unsigned i = 0; i < SENDERS; i++)
        send_all(senders[i], packets, sizeof packets);
    receive(subscriber, received, sizeof received);
    for (unsigned i = 0; i < SENDERS; i++)
        receive(senders[i], acknowledgements, sizeof acknowledgements);
    assert_true(counted(PAUSED_MAIL) > 0);
    assert_int_equal(counted(DROPPED_OVERLOADED), 0);
}

/* ---- acknowledgements that are not written yet ---- */

/* Whoever sends on while the disk is slow may never read: what will be its queue is counted before it is there. */
static void acknowledgements_that_are_owed_are_bounded(void **state)
{
    struct fixture *fixture = *state;
    enum { LIMIT = 64 << 10, ONE_READ = 256 << 10, PACKET = 7, ACKNOWLEDGEMENT = 4, COUNT = 60000 };
    fixture->options.outgoing_soft_max = LIMIT;
    begin(fixture);
    int client = connect_client(fixture, 'a');
    static uint8_t packets[COUNT][PACKET], answers[4 * COUNT][ACKNOWLEDGEMENT];
    for (unsigned i = 0; i < COUNT; i++)
        memcpy(packets[i], (uint8_t[]){0x32, 5, 0, 1, 't', (uint8_t)((i + 1) >> 8), (uint8_t)(i + 1)}, PACKET);
    atomic_store(&slow_disk.held, true);
    size_t sent = 0;
    uint64_t end_ns = clock_monotonic_ns() + DEADLINE_S * 1000000000ull;
    while (counted(PAUSED_UNREAD) == 0 && sent < 4 * sizeof packets && clock_monotonic_ns() < end_ns) {
        size_t at = sent % sizeof packets;
        ssize_t part = send(client, (uint8_t *)packets + at, sizeof packets - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        assert_true(part > 0 || errno == EAGAIN);
        sent += part > 0 ? (size_t)part : 0;
    }
    wait_for(PAUSED_UNREAD, 1);
    assert_true(counted(RECEIVED_1) * ACKNOWLEDGEMENT > LIMIT);
    assert_true(counted(RECEIVED_1) * ACKNOWLEDGEMENT <= LIMIT + (ONE_READ / PACKET + 1) * ACKNOWLEDGEMENT);
    atomic_store(&slow_disk.held, false);
    if (sent % PACKET)
        send_all(client, (uint8_t *)packets + sent % sizeof packets, PACKET - sent % PACKET);
    size_t count = (sent + PACKET - 1) / PACKET;
    receive(client, answers, count * ACKNOWLEDGEMENT);
    for (size_t i = 0; i < count; i++)
        assert_memory_equal(answers[i] + 2, packets[i % COUNT] + 5, 2);
    assert_int_equal(counted(RECEIVED_1), count);
}

/* To wait for the disk is no stall, to wait for the client is one, however its queue was measured. */
static void who_never_takes_its_acknowledgements_is_disconnected(void **state)
{
    struct fixture *fixture = *state;
    enum { LIMIT = 64 << 10, MEMORY_LIMIT = 1 << 20, PACKET = 7, COUNT = 10000 };
    fixture->options.outgoing_soft_max = LIMIT;
    fixture->options.stall_timeout_ns = 100000000u;
    begin(fixture);
    int client = connect_client(fixture, 'a'), small = 4096;
    assert_int_equal(setsockopt(client, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0); /* or millions of acknowledgements fit */
    static uint8_t packets[COUNT][PACKET];
    for (unsigned i = 0; i < COUNT; i++)
        memcpy(packets[i], (uint8_t[]){0x32, 5, 0, 1, 't', (uint8_t)((i + 1) >> 8), (uint8_t)(i + 1)}, PACKET);
    size_t sent = 0;
    uint64_t end_ns = clock_monotonic_ns() + DEADLINE_S * 1000000000ull;
    while (counted(CLOSED_SLOW) == 0 && clock_monotonic_ns() < end_ns) {
        size_t at = sent % sizeof packets;
        ssize_t part = send(client, (uint8_t *)packets + at, sizeof packets - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        sent += part > 0 ? (size_t)part : 0;
        assert_true(counted("spindle_bus_memory_bytes{use=\"queues\"} ") <= MEMORY_LIMIT);
    }
    assert_int_equal(counted(CLOSED_SLOW), 1);
}

/* ---- QoS 2 ---- */

static void send_publish(int client, uint8_t first, uint16_t id)
{
    send_all(client, (uint8_t[]){first, 5, 0, 1, 't', (uint8_t)(id >> 8), (uint8_t)id}, 7);
}

static void send_answer(int client, uint8_t first, uint16_t id)
{
    send_all(client, (uint8_t[]){first, 2, (uint8_t)(id >> 8), (uint8_t)id}, 4);
}

static void expect_answer(int client, uint8_t first, uint16_t id)
{
    uint8_t answer[4];
    receive(client, answer, sizeof answer);
    assert_memory_equal(answer, ((uint8_t[]){first, 2, (uint8_t)(id >> 8), (uint8_t)id}), 4);
}

/* In the order of the messages, and a repeat does not hasten it. */
static void a_pubrec_waits_for_the_disk(void **state)
{
    struct fixture *fixture = *state;
    begin(fixture);
    int client = connect_client(fixture, 'a');
    atomic_store(&slow_disk.held, true);
    send_publish(client, 0x32, 1);
    send_publish(client, 0x34, 2);
    send_publish(client, 0x3c, 2);
    send_publish(client, 0x32, 2); /* of the other kind: an exchange of its own */
    send_publish(client, 0x34, 3);
    send_publish(client, 0x34, 2);
    wait_for(RECEIVED_2, 4);
    wait_for(RECEIVED_1, 2);
    uint8_t nothing;
    assert_int_equal(recv(client, &nothing, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    atomic_store(&slow_disk.held, false);
    expect_answer(client, 0x40, 1);
    expect_answer(client, 0x50, 2);
    expect_answer(client, 0x40, 2);
    expect_answer(client, 0x50, 3);
    atomic_store(&slow_disk.held, true);
    send_publish(client, 0x34, 2); /* on disk already */
    expect_answer(client, 0x50, 2);
    send_answer(client, 0x62, 2);
    expect_answer(client, 0x70, 2);
    send_publish(client, 0x3c, 2); /* a new one */
    wait_for(RECEIVED_2, 6);
    assert_int_equal(recv(client, &nothing, 1, MSG_DONTWAIT), -1);
    atomic_store(&slow_disk.held, false);
    expect_answer(client, 0x50, 2);
}

/* What waits for its PUBREL owes the client nothing, however much it is. */
static void messages_that_wait_for_their_pubrel_hold_nobody_back(void **state)
{
    struct fixture *fixture = *state;
    enum { LIMIT = 64 << 10, PACKET = 7, ACKNOWLEDGEMENT = 4, COUNT = 30000, PART = 1000 };
    fixture->options.outgoing_soft_max = LIMIT;
    begin(fixture);
    assert_true(COUNT * ACKNOWLEDGEMENT > LIMIT);
    int client = connect_client(fixture, 'a');
    static uint8_t packets[PART][PACKET], answers[PART][ACKNOWLEDGEMENT];
    for (unsigned first = 1; first < COUNT; first += PART) {
        for (unsigned i = 0; i < PART; i++)
            memcpy(packets[i], (uint8_t[]){0x34, 5, 0, 1, 't', (uint8_t)((first + i) >> 8), (uint8_t)(first + i)}, PACKET);
        send_all(client, packets, sizeof packets);
        receive(client, answers, sizeof answers);
        for (unsigned i = 0; i < PART; i++) {
            assert_int_equal(answers[i][0], 0x50);
            assert_memory_equal(answers[i] + 2, packets[i] + 5, 2);
        }
    }
    for (unsigned id = 1; id < COUNT; id += PART) {
        send_answer(client, 0x62, (uint16_t)id);
        expect_answer(client, 0x70, (uint16_t)id);
    }
    assert_int_equal(counted(PAUSED_UNREAD), 0);
}

static void answers_can_be_of_qos_2(void **state)
{
    struct fixture *fixture = *state;
    begin(fixture);
    int subscriber = connect_client(fixture, 'a'), lower = connect_client(fixture, 'b');
    subscribe(subscriber, 2);
    subscribe(lower, 1);
    uint8_t payload = 'x', packet[8];
    struct message message = make_message(&payload, 1, 2);
    bus_publish(fixture->bus, &message, 0);
    receive(subscriber, packet, sizeof packet);
    assert_memory_equal(packet, "\x34\x06\x00\x01t\x00\x01x", 8);
    receive(lower, packet, sizeof packet);
    assert_memory_equal(packet, "\x32\x06\x00\x01t\x00\x01x", 8);
    send_answer(subscriber, 0x50, 1);
    expect_answer(subscriber, 0x62, 1);
    send_answer(subscriber, 0x70, 1);
    assert_int_equal(counted(DELIVERED_1), 1);
    assert_int_equal(counted(DELIVERED_2), 1);
}

/* ---- what cannot be held back ---- */

/* Publishes answers to a subscriber that takes nothing until it is disconnected; returns how many. */
static uint64_t publish_until_closed(struct fixture *fixture, const char *closed)
{
    static uint8_t payload[64 << 10];
    struct message message = make_message(payload, sizeof payload, 1);
    uint64_t sent = 0;
    while (counted(closed) == 0) {
        bus_publish(fixture->bus, &message, 0);
        sent++;
        uint64_t end_ns = clock_monotonic_ns() + DEADLINE_S * 1000000000ull;
        while (counted(DELIVERED_1) + counted(closed) < sent && clock_monotonic_ns() < end_ns)
            usleep(100);
        assert_int_equal(counted(DELIVERED_1) + counted(closed), sent);
        assert_true(counted("spindle_bus_memory_bytes{use=\"queues\"} ") <= fixture->options.memory_max);
    }
    return sent;
}

static void answers_disconnect_a_subscriber_at_four_times_its_limit(void **state)
{
    struct fixture *fixture = *state;
    fixture->options.outgoing_soft_max = 1 << 20;
    begin(fixture);
    subscribe(connect_client(fixture, 'a'), 1);
    assert_true(publish_until_closed(fixture, CLOSED_SLOW) > (4 << 20) / (64 << 10)); /* what the sockets hold comes on top */
    connect_client(fixture, 'b');
}

/* The same where it is not the subscriber's own limit that is used up, but that of all. */
static void answers_disconnect_a_subscriber_when_the_memory_of_all_is_used_up(void **state)
{
    struct fixture *fixture = *state;
    fixture->options.memory_max = 16 << 20;
    begin(fixture);
    subscribe(connect_client(fixture, 'a'), 1);
    publish_until_closed(fixture, CLOSED_LIMIT);
    assert_int_equal(counted(CLOSED_SLOW), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(mail_beyond_the_hard_limit_is_dropped_and_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(senders_wait_for_mail_beyond_the_soft_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(acknowledged_messages_never_reach_the_hard_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(acknowledgements_that_are_owed_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(who_never_takes_its_acknowledgements_is_disconnected, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pubrec_waits_for_the_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(messages_that_wait_for_their_pubrel_hold_nobody_back, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_can_be_of_qos_2, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_disconnect_a_subscriber_at_four_times_its_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_disconnect_a_subscriber_when_the_memory_of_all_is_used_up, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
