/* Durable publishing beside other servers: one connection sends messages of 256 B, at most WINDOW of them without an acknowledgement, as
 * fast as those come or RATE a second, and every acknowledgement is to mean that the message is on disk. All servers are driven by the same
 * loop; only what is written and read differs, one row of `protocols` each. Prints one JSON line a target.
 *
 *   bench_peers SECONDS RATE WINDOW TARGET...
 *
 * RATE 0: as fast as it goes. TARGET: mqtt=PORT/PID (QoS 1), redis=PORT/PID (XADD), nats=PORT/PID (JetStream), amqp=PORT/PID (a RabbitMQ
 * quorum queue with publisher confirms), or disk=FOLDER (pwrite and fdatasync into written space, one message at a time). Several targets
 * take turns, since what a disk can do changes from one second to the next.
 *
 * A time begins when the message was due: for RATE, whether or not the window had room. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/histogram.h"
#include "base/random.h"
#include "load/load_process.h"
#include "mqtt/packet.h"

enum {
    PAYLOAD = 256,
    WINDOW_MAX = 32768,
    RING = 65536, /* messages from the oldest unacknowledged one on */
    TARGETS_MAX = 8,
    TURNS = 3,
    WARMUP_MS = 200,
    ANSWER_SECONDS = 10, /* without any answer: the server has failed */
    BUFFER_MAX = 64 << 20,
    READ_SIZE = 64 << 10,
    DISK_FILE = 64 << 20
};

struct peer;
struct protocol {
    const char *name;
    bool (*greet)(struct peer *peer); /* on a blocking socket; false: peer->problem says why */
    void (*request)(struct peer *peer, uint64_t number);
    size_t (*answer)(struct peer *peer, const uint8_t *bytes, size_t length); /* bytes of the first answer, 0: more are needed */
};

struct peer {
    const struct protocol *protocol; /* NULL: the bare disk */
    const char *name;
    int fd, pid;
    struct buffer out, in;
    struct buffer fixed; /* what every request of this protocol looks like, where they are all the same */
    uint64_t oldest, next, in_flight;
    struct {
        uint64_t due_ns;
        bool done;
    } ring[RING];
    uint64_t measure_ns, end_ns; /* of this turn */
    uint64_t measured, late_answer_ns;
    double measured_s, client_cpu_s, server_cpu_s;
    uint64_t resident_bytes;
    struct histogram times_ns;
    char problem[256];
};

static uint8_t payload[PAYLOAD];

static bool fail(struct peer *peer, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct peer *peer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (!peer->problem[0])
        vsnprintf(peer->problem, sizeof peer->problem, format, arguments);
    va_end(arguments);
    for (char *at = peer->problem; *at; at++)
        if (*at < ' ' || *at == '"' || *at == '\\' || *at > '~')
            *at = '\'';
    return false;
}

static void put(struct peer *peer, struct buffer *out, const void *bytes, size_t count)
{
    if (buffer_append(out, bytes, count))
        fail(peer, "out of memory");
}

static void acknowledge(struct peer *peer, uint64_t number)
{
    if (number < peer->oldest || number >= peer->next || peer->ring[number % RING].done)
        return;
    uint64_t now_ns = clock_monotonic_ns(), due_ns = peer->ring[number % RING].due_ns;
    peer->ring[number % RING].done = true;
    peer->in_flight--;
    if (due_ns >= peer->measure_ns && due_ns < peer->end_ns)
        histogram_record(&peer->times_ns, now_ns - due_ns);
    peer->measured += now_ns >= peer->measure_ns && now_ns < peer->end_ns;
    while (peer->oldest < peer->next && peer->ring[peer->oldest % RING].done)
        peer->oldest++;
}

/* ---- the greeting's blocking steps ---- */

static bool say(struct peer *peer)
{
    for (size_t at = 0; at < peer->out.length;) {
        ssize_t written = write(peer->fd, peer->out.data + at, peer->out.length - at);
        if (written <= 0)
            return fail(peer, "the connection was lost while greeting");
        at += (size_t)written;
    }
    buffer_clear(&peer->out);
    return true;
}

/* Reads until `peer->in` holds `wanted` bytes. */
static bool hear(struct peer *peer, size_t wanted)
{
    while (peer->in.length < wanted) {
        if (buffer_reserve(&peer->in, READ_SIZE))
            return fail(peer, "out of memory");
        ssize_t got = read(peer->fd, peer->in.data + peer->in.length, READ_SIZE);
        if (got <= 0)
            return fail(peer, "the server closed the connection or did not answer while greeting");
        peer->in.length += (size_t)got;
    }
    return true;
}

/* Reads until the answer to what was said contains `text`, and forgets it. */
static bool hear_text(struct peer *peer, const char *text)
{
    while (!peer->in.length || !memmem(peer->in.data, peer->in.length, text, strlen(text)))
        if (!hear(peer, peer->in.length + 1))
            return false;
    bool refused = memmem(peer->in.data, peer->in.length, "\"error\"", 7) || memmem(peer->in.data, peer->in.length, "-ERR", 4);
    if (refused)
        return fail(peer, "refused: %.*s", (int)(peer->in.length < 200 ? peer->in.length : 200), (const char *)peer->in.data);
    buffer_clear(&peer->in);
    return true;
}

/* ---- MQTT ---- */

static bool mqtt_greet(struct peer *peer)
{
    static const uint8_t connect[] = "\x10\x11\0\4MQTT\4\2\0\0\0\5peers"; /* 3.1.1, clean session, no keep alive */
    put(peer, &peer->out, connect, sizeof connect - 1);
    if (!say(peer) || !hear(peer, 4))
        return false;
    bool accepted = peer->in.data[0] == 0x20 && peer->in.data[3] == 0;
    buffer_clear(&peer->in);
    return accepted || fail(peer, "CONNECT was refused");
}

static void mqtt_request(struct peer *peer, uint64_t number)
{
    static const char topic[] = "peers/bench";
    struct mqtt_publish publish = {.qos = 1,
                                   .packet_id = (uint16_t)(number % 65535 + 1),
                                   .topic = {(const uint8_t *)topic, sizeof topic - 1},
                                   .payload = {payload, PAYLOAD}};
    size_t packet_id_position;
    if (mqtt_publish_encode(&peer->out, MQTT_VERSION_3_1_1, &publish, &packet_id_position))
        fail(peer, "out of memory");
}

static size_t mqtt_answer(struct peer *peer, const uint8_t *bytes, size_t length)
{
    struct mqtt_frame frame;
    struct mqtt_ack ack;
    int error = mqtt_frame_decode(bytes, length, 1 << 20, &frame);
    if (error == ERR_TRUNCATED)
        return 0;
    if (error || frame.type != MQTT_PUBACK || mqtt_ack_decode(&frame, MQTT_VERSION_3_1_1, &ack)) {
        fail(peer, "an answer that is no PUBACK");
        return 0;
    }
    uint64_t oldest_id = peer->oldest % 65535 + 1;
    acknowledge(peer, peer->oldest + (ack.packet_id + 65535 - oldest_id) % 65535);
    return frame.total_size;
}

/* ---- Redis ---- */

static bool redis_greet(struct peer *peer)
{
    put(peer, &peer->out, "PING\r\n", 6);
    buffer_printf(&peer->fixed, "*5\r\n$4\r\nXADD\r\n$5\r\npeers\r\n$1\r\n*\r\n$1\r\np\r\n$%d\r\n", PAYLOAD);
    put(peer, &peer->fixed, payload, PAYLOAD);
    put(peer, &peer->fixed, "\r\n", 2);
    return say(peer) && hear_text(peer, "+PONG\r\n");
}

static void send_fixed(struct peer *peer, uint64_t number)
{
    (void)number;
    put(peer, &peer->out, peer->fixed.data, peer->fixed.length);
}

/* Answers come in order: "$15\r\n1700000000000-0\r\n". */
static size_t redis_answer(struct peer *peer, const uint8_t *bytes, size_t length)
{
    const uint8_t *line_end = memmem(bytes, length, "\r\n", 2);
    if (!line_end)
        return 0;
    if (bytes[0] != '$') {
        fail(peer, "refused: %.*s", (int)(line_end - bytes), (const char *)bytes);
        return 0;
    }
    size_t size = (size_t)(line_end + 2 - bytes) + strtoul((const char *)bytes + 1, NULL, 10) + 2;
    if (length < size)
        return 0;
    acknowledge(peer, peer->oldest);
    return size;
}

/* ---- NATS JetStream ---- */

static bool nats_greet(struct peer *peer)
{
    static const char create[] = "{\"name\":\"peers\",\"subjects\":[\"peers\"],\"storage\":\"file\",\"num_replicas\":1}";
    if (!hear_text(peer, "INFO "))
        return false;
    buffer_printf(&peer->out, "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB peers.answer.* 1\r\nPING\r\n");
    if (!say(peer) || !hear_text(peer, "PONG\r\n"))
        return false;
    buffer_printf(&peer->out, "PUB $JS.API.STREAM.CREATE.peers peers.answer.create %zu\r\n%s\r\n", sizeof create - 1, create);
    return say(peer) && hear_text(peer, "}\r\n");
}

static void nats_request(struct peer *peer, uint64_t number)
{
    if (buffer_printf(&peer->out, "PUB peers peers.answer.%llu %d\r\n", (unsigned long long)number, PAYLOAD))
        fail(peer, "out of memory");
    put(peer, &peer->out, payload, PAYLOAD);
    put(peer, &peer->out, "\r\n", 2);
}

/* "MSG peers.answer.17 1 30\r\n{"stream":"peers","seq":18}\r\n" */
static size_t nats_answer(struct peer *peer, const uint8_t *bytes, size_t length)
{
    const uint8_t *line_end = memmem(bytes, length, "\r\n", 2);
    if (!line_end)
        return 0;
    size_t line = (size_t)(line_end + 2 - bytes);
    if (memcmp(bytes, "PING", 4) == 0) {
        put(peer, &peer->out, "PONG\r\n", 6);
        return line;
    }
    unsigned long long number;
    size_t size;
    if (sscanf((const char *)bytes, "MSG peers.answer.%llu 1 %zu", &number, &size) != 2) {
        fail(peer, "refused: %.*s", (int)line, (const char *)bytes);
        return 0;
    }
    if (length < line + size + 2)
        return 0;
    if (memmem(bytes + line, size, "\"error\"", 7))
        fail(peer, "refused: %.*s", (int)size, (const char *)bytes + line);
    acknowledge(peer, number);
    return line + size + 2;
}

/* ---- AMQP 0-9-1: frames of type, channel, size, content and 0xCE ---- */

enum {
    AMQP_METHOD = 1,
    AMQP_HEADER = 2,
    AMQP_BODY = 3,
    AMQP_FRAME_MIN = 8,
    AMQP_START_OK = 10 << 16 | 11,
    AMQP_TUNE_OK = 10 << 16 | 31,
    AMQP_OPEN = 10 << 16 | 40,
    AMQP_CHANNEL_OPEN = 20 << 16 | 10,
    AMQP_QUEUE_DECLARE = 50 << 16 | 10,
    AMQP_PUBLISH = 60 << 16 | 40,
    AMQP_ACK = 60 << 16 | 80,
    AMQP_CONFIRM_SELECT = 85 << 16 | 10
};

static void amqp_frame(struct peer *peer, struct buffer *out, uint8_t type, uint16_t channel, const void *content, size_t size)
{
    uint8_t head[7] = {type, (uint8_t)(channel >> 8), (uint8_t)channel};
    uint32_t size_be = htobe32((uint32_t)size);
    memcpy(head + 3, &size_be, 4);
    put(peer, out, head, sizeof head);
    put(peer, out, content, size);
    put(peer, out, "\xCE", 1);
}

static void amqp_method(struct peer *peer, struct buffer *out, uint16_t channel, uint32_t method, const void *arguments, size_t size)
{
    uint8_t content[512];
    uint32_t method_be = htobe32(method);
    memcpy(content, &method_be, 4);
    memcpy(content + 4, arguments, size);
    amqp_frame(peer, out, AMQP_METHOD, channel, content, size + 4);
}

static uint64_t amqp_number(const uint8_t *bytes, unsigned size)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < size; i++)
        number = number << 8 | bytes[i];
    return number;
}

/* Hears one frame whose method is the given one, and forgets it. */
static bool amqp_hear(struct peer *peer, uint32_t method)
{
    if (!hear(peer, 11))
        return false;
    size_t size = (size_t)amqp_number(peer->in.data + 3, 4) + AMQP_FRAME_MIN;
    uint32_t found = (uint32_t)amqp_number(peer->in.data + 7, 4);
    if (found != method)
        return fail(peer, "method %u.%u instead of %u.%u: %.*s", found >> 16, found & 0xffff, method >> 16, method & 0xffff,
                    (int)(peer->in.length > 100 ? 80 : 0), (const char *)peer->in.data + 14);
    if (!hear(peer, size))
        return false;
    buffer_consume(&peer->in, size);
    return true;
}

static bool amqp_greet(struct peer *peer)
{
    static const uint8_t start_ok[] = "\0\0\0\0\5PLAIN\0\0\0\14\0guest\0guest\5en_US";
    static const uint8_t tune_ok[] = {0, 1, 0, 2, 0, 0, 0, 0}; /* 1 channel, frames of 128 KiB, no heartbeat */
    static const uint8_t declare[] = "\0\0\5peers\2\0\0\0\30\14x-queue-typeS\0\0\0\6quorum";
    const struct {
        uint16_t channel;
        uint32_t method;
        const void *arguments;
        size_t size;
        uint32_t answer; /* 0: none */
    } steps[] = {
        {0, AMQP_START_OK, start_ok, sizeof start_ok - 1, 10 << 16 | 30},
        {0, AMQP_TUNE_OK, tune_ok, sizeof tune_ok, 0},
        {0, AMQP_OPEN, "\1/\0", 4, AMQP_OPEN + 1},
        {1, AMQP_CHANNEL_OPEN, "", 1, AMQP_CHANNEL_OPEN + 1},
        {1, AMQP_QUEUE_DECLARE, declare, sizeof declare - 1, AMQP_QUEUE_DECLARE + 1},
        {1, AMQP_CONFIRM_SELECT, "", 1, AMQP_CONFIRM_SELECT + 1},
    };
    static const uint8_t publish[] = "\0\0\0\5peers"; /* the default exchange; a zero byte of flags closes it */
    static const uint8_t header[] = {0, 60, 0, 0, 0, 0, 0, 0, 0, 0, PAYLOAD >> 8, PAYLOAD & 0xff, 0x10, 0, 2}; /* persistent */
    amqp_method(peer, &peer->fixed, 1, AMQP_PUBLISH, publish, sizeof publish);
    amqp_frame(peer, &peer->fixed, AMQP_HEADER, 1, header, sizeof header);
    amqp_frame(peer, &peer->fixed, AMQP_BODY, 1, payload, PAYLOAD);
    put(peer, &peer->out, "AMQP\0\0\11\1", 8);
    if (!say(peer) || !amqp_hear(peer, 10 << 16 | 10))
        return false;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        amqp_method(peer, &peer->out, steps[i].channel, steps[i].method, steps[i].arguments, steps[i].size);
        if (!say(peer) || (steps[i].answer && !amqp_hear(peer, steps[i].answer)))
            return false;
    }
    return true;
}

static size_t amqp_answer(struct peer *peer, const uint8_t *bytes, size_t length)
{
    if (length < AMQP_FRAME_MIN || length < amqp_number(bytes + 3, 4) + AMQP_FRAME_MIN)
        return 0;
    size_t size = (size_t)amqp_number(bytes + 3, 4) + AMQP_FRAME_MIN;
    if (bytes[0] != AMQP_METHOD || size < 21 || amqp_number(bytes + 7, 4) != AMQP_ACK) {
        fail(peer, "an answer that is no confirm: frame type %u, method %u.%u", bytes[0], (unsigned)amqp_number(bytes + 7, 2),
             (unsigned)amqp_number(bytes + 9, 2));
        return 0;
    }
    uint64_t number = amqp_number(bytes + 11, 8) - 1;
    if (bytes[19] & 1) /* it and all before it */
        for (uint64_t earlier = peer->oldest; earlier < number; earlier++)
            acknowledge(peer, earlier);
    acknowledge(peer, number);
    return size;
}

static const struct protocol protocols[] = {
    {"mqtt", mqtt_greet, mqtt_request, mqtt_answer},
    {"redis", redis_greet, send_fixed, redis_answer},
    {"nats", nats_greet, nats_request, nats_answer},
    {"amqp", amqp_greet, send_fixed, amqp_answer},
};

/* ---- one turn of a server ---- */

static bool flush(struct peer *peer)
{
    size_t at = 0;
    while (at < peer->out.length) {
        ssize_t written = write(peer->fd, peer->out.data + at, peer->out.length - at);
        if (written < 0 && errno == EAGAIN)
            break;
        if (written <= 0)
            return fail(peer, "the connection was lost: %s", strerror(errno));
        at += (size_t)written;
    }
    buffer_consume(&peer->out, at);
    return true;
}

static bool take_answers(struct peer *peer)
{
    for (;;) {
        if (buffer_reserve(&peer->in, READ_SIZE + 1))
            return fail(peer, "out of memory");
        ssize_t got = read(peer->fd, peer->in.data + peer->in.length, READ_SIZE);
        if (got < 0 && errno == EAGAIN)
            return true;
        if (got <= 0)
            return fail(peer, "the server closed the connection");
        peer->in.length += (size_t)got;
        peer->in.data[peer->in.length] = 0; /* sscanf and strtoul stop here at the latest */
        peer->late_answer_ns = clock_monotonic_ns();
        size_t at = 0, size;
        while (at < peer->in.length && (size = peer->protocol->answer(peer, peer->in.data + at, peer->in.length - at)) > 0)
            at += size;
        buffer_consume(&peer->in, at);
        if (peer->problem[0])
            return false;
        if (got < READ_SIZE)
            return true;
    }
}

static void send_one(struct peer *peer, uint64_t due_ns)
{
    peer->ring[peer->next % RING].due_ns = due_ns;
    peer->ring[peer->next % RING].done = false;
    peer->protocol->request(peer, peer->next++);
    peer->in_flight++;
}

/* Sends what is due and waits for answers until the turn is over and everything is answered. */
static void run_turn(struct peer *peer, double rate, uint64_t window)
{
    uint64_t interval_ns = rate > 0 ? (uint64_t)(1e9 / rate) : 0, due_ns = clock_monotonic_ns(), now_ns = due_ns;
    peer->late_answer_ns = now_ns;
    while (now_ns < peer->end_ns || peer->in_flight) {
        while (peer->in_flight < window && peer->next - peer->oldest < RING && now_ns < peer->end_ns &&
               (!interval_ns || due_ns <= now_ns)) {
            send_one(peer, interval_ns ? due_ns : now_ns);
            due_ns += interval_ns;
        }
        if (peer->problem[0] || !flush(peer))
            return;
        uint64_t wait_ns = 1000000000;
        if (interval_ns && peer->in_flight < window && now_ns < peer->end_ns)
            wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;
        struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000), .tv_nsec = (long)(wait_ns % 1000000000)};
        struct pollfd poll = {.fd = peer->fd, .events = (short)(POLLIN | (peer->out.length ? POLLOUT : 0))};
        ppoll(&poll, 1, &wait, NULL);
        if (poll.revents & (POLLIN | POLLHUP | POLLERR) && !take_answers(peer))
            return;
        now_ns = clock_monotonic_ns();
        if (peer->in_flight && now_ns > peer->late_answer_ns + ANSWER_SECONDS * 1000000000ull && now_ns > peer->end_ns) {
            fail(peer, "%llu messages were not acknowledged within %d s", (unsigned long long)peer->in_flight, ANSWER_SECONDS);
            return;
        }
    }
}

/* ---- the bare disk ---- */

static void disk_turn(struct peer *peer, double rate)
{
    uint64_t interval_ns = rate > 0 ? (uint64_t)(1e9 / rate) : 0, due_ns = clock_monotonic_ns();
    for (; due_ns < peer->end_ns; due_ns = interval_ns ? due_ns + interval_ns : clock_monotonic_ns()) {
        struct timespec until = {.tv_sec = (time_t)(due_ns / 1000000000), .tv_nsec = (long)(due_ns % 1000000000)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        uint64_t began_ns = clock_monotonic_ns();
        off_t at = (off_t)(peer->next++ % (DISK_FILE / PAYLOAD)) * PAYLOAD;
        if (pwrite(peer->fd, payload, PAYLOAD, at) != PAYLOAD || fdatasync(peer->fd)) {
            fail(peer, "the disk: %s", strerror(errno));
            return;
        }
        if (began_ns >= peer->measure_ns) {
            histogram_record(&peer->times_ns, clock_monotonic_ns() - began_ns);
            peer->measured++;
        }
    }
}

static bool disk_open(struct peer *peer, const char *folder)
{
    char path[4200];
    static const uint8_t block[1 << 20];
    snprintf(path, sizeof path, "%s/bare", folder);
    peer->fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (off_t at = 0; peer->fd >= 0 && at < DISK_FILE; at += (off_t)sizeof block)
        if (pwrite(peer->fd, block, sizeof block, at) != (ssize_t)sizeof block)
            return fail(peer, "%s: %s", path, strerror(errno));
    if (peer->fd < 0 || fsync(peer->fd))
        return fail(peer, "%s: %s", path, strerror(errno));
    return true;
}

/* ---- the whole ---- */

static bool server_open(struct peer *peer, const char *port)
{
    const char *slash = strchr(port, '/');
    peer->pid = slash ? atoi(slash + 1) : 0;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = ANSWER_SECONDS};
    int one = 1;
    peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (peer->fd < 0 || connect(peer->fd, (struct sockaddr *)&address, sizeof address))
        return fail(peer, "cannot connect: %s", strerror(errno));
    setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(peer->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (!peer->protocol->greet(peer))
        return false;
    fcntl(peer->fd, F_SETFL, O_NONBLOCK);
    return true;
}

static struct peer *peer_open(char *target)
{
    char *equals = strchr(target, '=');
    struct peer *peer = calloc(1, sizeof *peer);
    if (!equals || !peer) {
        fprintf(stderr, "bench_peers: `%s` is no target\n", target);
        exit(2);
    }
    *equals = 0;
    peer->name = target;
    buffer_init(&peer->out, BUFFER_MAX);
    buffer_init(&peer->in, BUFFER_MAX);
    buffer_init(&peer->fixed, BUFFER_MAX);
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
        if (strcmp(protocols[i].name, target) == 0)
            peer->protocol = &protocols[i];
    if (!peer->protocol && strcmp(target, "disk") != 0) {
        fprintf(stderr, "bench_peers: `%s` is no protocol\n", target);
        exit(2);
    }
    if (peer->protocol)
        server_open(peer, equals + 1);
    else
        disk_open(peer, equals + 1);
    return peer;
}

static void peer_close(struct peer *peer)
{
    if (peer->fd >= 0)
        close(peer->fd);
    buffer_fini(&peer->out);
    buffer_fini(&peer->in);
    buffer_fini(&peer->fixed);
    free(peer);
}

static void take_turn(struct peer *peer, double seconds, double rate, uint64_t window)
{
    if (peer->problem[0])
        return;
    struct load_process_usage before, after;
    peer->measure_ns = clock_monotonic_ns() + WARMUP_MS * 1000000ull;
    peer->end_ns = peer->measure_ns + (uint64_t)(seconds * 1e9);
    load_process_read_if_known(peer->pid, &before);
    double cpu_s = load_thread_cpu_s();
    if (peer->protocol)
        run_turn(peer, rate, window);
    else
        disk_turn(peer, rate);
    load_process_read_if_known(peer->pid, &after);
    peer->client_cpu_s += load_thread_cpu_s() - cpu_s;
    peer->server_cpu_s += load_process_cpu_between(&before, &after);
    peer->resident_bytes = after.resident_bytes;
    peer->measured_s += seconds;
}

static void print_peer(const struct peer *peer, double rate, uint64_t window)
{
    double all_s = peer->measured_s + TURNS * WARMUP_MS / 1e3;
    printf("{\"target\":\"%s\",\"rate\":%.0f,\"window\":%llu,\"problem\":\"%s\"", peer->name, rate, (unsigned long long)window,
           peer->problem);
    if (!peer->problem[0])
        printf(",\"messages_per_s\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"client_cpu_share\":%.2f,\"server_cpu_share\":%.2f,"
               "\"server_resident_bytes\":%llu",
               (double)peer->measured / peer->measured_s, (double)histogram_quantile(&peer->times_ns, .5) / 1e3,
               (double)histogram_quantile(&peer->times_ns, .99) / 1e3, peer->client_cpu_s / all_s,
               peer->server_cpu_s < 0 ? 0 : peer->server_cpu_s / all_s, (unsigned long long)peer->resident_bytes);
    printf("}\n");
}

int main(int count, char **words)
{
    if (count < 5 || count > 4 + TARGETS_MAX || atoi(words[3]) < 1 || atoi(words[3]) > WINDOW_MAX) {
        fprintf(stderr, "usage: bench_peers SECONDS RATE WINDOW TARGET...\n");
        return 2;
    }
    double seconds = strtod(words[1], NULL), rate = strtod(words[2], NULL);
    uint64_t window = strtoul(words[3], NULL, 10);
    struct random_source random = {.state = 3};
    for (size_t i = 0; i < PAYLOAD; i++)
        payload[i] = (uint8_t)random_u64(&random);
    prctl(PR_SET_TIMERSLACK, 1);
    struct peer *peers[TARGETS_MAX];
    unsigned peer_count = (unsigned)count - 4;
    for (unsigned i = 0; i < peer_count; i++)
        peers[i] = peer_open(words[4 + i]);
    for (unsigned turn = 0; turn < TURNS; turn++)
        for (unsigned i = 0; i < peer_count; i++)
            take_turn(peers[i], seconds / TURNS, rate, window);
    int status = 0;
    for (unsigned i = 0; i < peer_count; i++) {
        if (!peers[i]->measured)
            fail(peers[i], "no acknowledgement came within the measured time; measure for longer");
        status |= peers[i]->problem[0] != 0;
        print_peer(peers[i], rate, window);
        peer_close(peers[i]);
    }
    return status;
}
