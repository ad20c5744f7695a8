/* The order in which a retained message and its publish are sent off: whatever the queue sends off by itself, what was retained is there
 * first. */
#include "bus/bus.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "folder.h"
#include "journal/disk.h"
#include "queue/queue.h"
#include "unit.h"

/* A queue that keeps nothing. What gathers in it always is as much as it may be, so that each message may send off those before it; it
 * looks then whether they are on disk among the retained ones. */
struct fake {
    struct queue queue;
    struct queue_producer producer;
    struct journal *journal;
    struct journal_stream *stream;
    uint64_t retained; /* that were appended */
    _Atomic uint64_t appended, early;
};

static struct fake fake;

static void send_off(void)
{
    while (journal_step_group(fake.journal))
        continue;
    if (journal_stream_durable(fake.stream) < fake.retained)
        atomic_fetch_add(&fake.early, 1);
}

static int fake_append(struct queue_producer *producer, enum queue_destination to, const struct message *message, uint64_t token)
{
    (void)producer;
    (void)to;
    (void)token;
    send_off();
    fake.retained += message->flags & MESSAGE_RETAIN ? 1 : 0;
    atomic_fetch_add(&fake.appended, 1);
    return 0;
}

static void fake_submit(struct queue_producer *producer)
{
    (void)producer;
    send_off();
}

static void fake_close(struct queue_producer *producer)
{
    (void)producer;
}

static void fake_poll(struct queue_producer *producer, void (*each)(void *context, const uint64_t *tokens, size_t count), void *context)
{
    (void)producer;
    (void)each;
    (void)context;
}

static size_t fake_backlog(const struct queue_producer *producer)
{
    (void)producer;
    return 0;
}

static size_t fake_gathered(const struct queue_producer *producer)
{
    (void)producer;
    return QUEUE_GATHERED_MIN;
}

static int fake_open(struct queue *queue, void (*notify)(void *context), void *context, struct queue_producer **producer)
{
    static const struct queue_producer_ops ops = {.close = fake_close,
                                                  .append = fake_append,
                                                  .submit = fake_submit,
                                                  .poll = fake_poll,
                                                  .backlog = fake_backlog,
                                                  .gathered = fake_gathered};
    (void)queue;
    (void)notify;
    (void)context;
    fake.producer.ops = &ops;
    *producer = &fake.producer;
    return 0;
}

static void what_is_retained_goes_off_first(void **state)
{
    (void)state;
    static const struct queue_ops ops = {.producer_open = fake_open};
    static const char *const hosts[] = {"127.0.0.1"};
    enum { COUNT = 100 };
    struct journal_options journal = {.disk = disk_posix(), .folder = test_folder, .segment_size = 1 << 20, .stepped = true};
    struct journal_stream_options stream = {.name = "retained", .guarded = true};
    assert_int_equal(journal_open(&fake.journal, &journal), 0);
    assert_int_equal(journal_stream_add(fake.journal, &stream, &fake.stream), 0);
    assert_int_equal(journal_start(fake.journal), 0);
    fake.queue.ops = &ops;
    struct bus_options options = {.listeners[BUS_TCP] = {.hosts = hosts, .host_count = 1},
                                  .loop_count = 1,
                                  .connections_max = 10,
                                  .packet_size_max = 1 << 20,
                                  .receive_maximum = 65535,
                                  .outgoing_soft_max = 1 << 20,
                                  .stall_timeout_ns = 3600000000000u,
                                  .memory_max = 1 << 30,
                                  .journal_backlog_max = 1 << 20,
                                  .queue = &fake.queue,
                                  .acknowledge_at_once = true,
                                  .journal = fake.journal,
                                  .retained = fake.stream};
    struct bus *bus;
    assert_int_equal(bus_start(&bus, &options), 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(bus_port(bus, BUS_TCP))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval patience = {.tv_sec = 30};
    int client = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(client >= 0);
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(client, (const struct sockaddr *)&address, sizeof address), 0);
    static const uint8_t hello[] = {0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, 1, 'a'};
    static uint8_t packets[COUNT][8], answers[4 + COUNT * 4];
    assert_int_equal(send(client, hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    for (unsigned i = 0; i < COUNT; i++)
        memcpy(packets[i], (uint8_t[]){(uint8_t)(0x32 | (i % 3 < 2)), 6, 0, 1, 't', 0, (uint8_t)(i + 1), 'x'}, sizeof packets[i]);
    assert_int_equal(send(client, packets, sizeof packets, MSG_NOSIGNAL), sizeof packets);
    assert_int_equal(recv(client, answers, sizeof answers, MSG_WAITALL), sizeof answers);
    assert_int_equal(atomic_load(&fake.appended), COUNT);
    close(client);
    bus_stop(bus);
    assert_int_equal(atomic_load(&fake.early), 0);
    assert_true(journal_stream_durable(fake.stream) > COUNT / 2);
    journal_close(fake.journal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_retained_goes_off_first, test_folder_make, test_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
