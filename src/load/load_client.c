/* Edge-triggered epoll: a descriptor is registered once, and no system call is spent on changing what is waited for. A connection that may
 * have more to read stays on the ready list; one that has something to write stands on the dirty list. */
#include "load/load_client.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"
#include "load/load_inflight.h"
#include "load/load_socket.h"

enum {
    EVENTS_MAX = 256,
    READ_SIZE = 256 * 1024,
    READ_SIZE_LARGE = 1024 * 1024, /* where packets are larger than LARGE_PACKET, so that few of them are split between two reads */
    LARGE_PACKET = 32 * 1024,
    TIMER_NS = 20 * 1000 * 1000,
    TEXT_SIZE = 64
};

#define SECOND_NS UINT64_C(1000000000)

enum state { STATE_WAITING, STATE_CONNECTING, STATE_GREETING, STATE_OPEN, STATE_CLOSED };

struct load_connection {
    struct load_client *client;
    void *context;
    struct load_connection_options options;
    char *client_id; /* owned */
    struct load_connection *next_ready, *next_dirty;
    enum state state;
    int fd;
    bool on_ready, on_dirty, writable, hung_up, large;
    struct buffer out; /* bytes from `written` on wait to be written */
    size_t written;
    struct buffer rest; /* the beginning of a packet whose end has not arrived */
    struct load_inflight inflight;
    uint32_t window;          /* of inflight.size, what the server allows */
    uint32_t packet_size_max; /* what the server takes */
    uint64_t retry_at_ns, pause_ms;
    uint64_t last_sent_ns, ping_sent_ns;
};

struct load_client {
    struct load_handlers handlers;
    struct load_address address;
    struct load_counters counters;
    struct load_connection **connections; /* [connection_count], owned */
    size_t connection_count, connection_capacity;
    struct load_connection *ready, *dirty;
    struct random_source random;
    uint64_t now_ns, timer_ns;
    int epoll_fd;
    uint8_t *input; /* [READ_SIZE_LARGE], shared by all connections */
};

static void lose(struct load_connection *connection, int error, const char *reason);

/* ---- lists ---- */

static void mark_ready(struct load_connection *connection)
{
    if (connection->on_ready)
        return;
    connection->on_ready = true;
    connection->next_ready = connection->client->ready;
    connection->client->ready = connection;
}

static void mark_dirty(struct load_connection *connection)
{
    if (connection->on_dirty)
        return;
    connection->on_dirty = true;
    connection->next_dirty = connection->client->dirty;
    connection->client->dirty = connection;
}

/* ---- opening and losing ---- */

static void start_connect(struct load_connection *connection)
{
    struct load_client *client = connection->client;
    int fd = load_socket_connect(&client->address);
    connection->state = STATE_CONNECTING;
    if (fd < 0) {
        lose(connection, fd, "the server cannot be reached");
        return;
    }
    connection->fd = fd;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    if (epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        lose(connection, error_from_errno(errno), "the socket cannot be watched");
}

static void greet(struct load_connection *connection)
{
    int result = load_socket_result(connection->fd);
    if (result) {
        lose(connection, ERR_DISCONNECTED, strerror(result));
        return;
    }
    struct mqtt_connect packet = {
        .version = connection->options.version,
        .clean_start = true,
        .keep_alive_s = connection->options.keep_alive_s,
        .client_id = {(const uint8_t *)connection->client_id, (uint32_t)strlen(connection->client_id)},
    };
    int error = mqtt_connect_encode(&connection->out, &packet);
    if (error) {
        lose(connection, error, error_text(error));
        return;
    }
    connection->state = STATE_GREETING;
    mark_dirty(connection);
}

static void hand_back(void *owner, uint32_t tag)
{
    struct load_connection *connection = owner;
    if (connection->client->handlers.unacknowledged)
        connection->client->handlers.unacknowledged(connection->context, connection, tag);
}

static void plan_retry(struct load_connection *connection)
{
    struct load_client *client = connection->client;
    uint64_t pause_ms = connection->pause_ms + random_below(&client->random, (uint32_t)connection->pause_ms);
    connection->state = STATE_WAITING;
    connection->retry_at_ns = client->now_ns + pause_ms * 1000000;
    connection->pause_ms = connection->pause_ms * 2 < LOAD_RETRY_LAST_MS ? connection->pause_ms * 2 : LOAD_RETRY_LAST_MS;
}

static void drop_socket(struct load_connection *connection)
{
    if (connection->fd >= 0)
        close(connection->fd);
    connection->fd = -1;
    connection->hung_up = connection->writable = false;
    buffer_clear(&connection->out);
    buffer_clear(&connection->rest);
    connection->written = 0;
    connection->ping_sent_ns = 0;
}

static void lose(struct load_connection *connection, int error, const char *reason)
{
    struct load_client *client = connection->client;
    client->counters.disconnected += connection->state == STATE_OPEN;
    drop_socket(connection);
    if (connection->options.retry)
        plan_retry(connection);
    else
        connection->state = STATE_CLOSED;
    if (connection->inflight.size)
        load_inflight_drain(&connection->inflight, hand_back, connection);
    if (client->handlers.disconnected)
        client->handlers.disconnected(connection->context, connection, error, reason);
}

/* ---- packets that arrive ---- */

static void take_connack(struct load_connection *connection, const struct mqtt_frame *frame)
{
    struct load_client *client = connection->client;
    struct mqtt_connack packet;
    int error = connection->state == STATE_GREETING ? mqtt_connack_decode(frame, connection->options.version, &packet) : ERR_PROTOCOL;
    if (error) {
        lose(connection, error, "the server's CONNACK is not valid");
        return;
    }
    if (packet.reason) {
        char text[TEXT_SIZE];
        snprintf(text, sizeof text, "the server refused the connection (code 0x%02x)", packet.reason);
        lose(connection, ERR_PROTOCOL, text);
        return;
    }
    connection->state = STATE_OPEN;
    connection->pause_ms = LOAD_RETRY_FIRST_MS;
    connection->window = connection->inflight.size;
    connection->packet_size_max = LOAD_PACKET_MAX;
    if (connection->options.version == MQTT_VERSION_5_0) {
        if (packet.properties.receive_maximum < connection->window)
            connection->window = packet.properties.receive_maximum;
        if (packet.properties.maximum_packet_size < connection->packet_size_max)
            connection->packet_size_max = packet.properties.maximum_packet_size;
    }
    client->counters.connected++;
    if (client->handlers.connected)
        client->handlers.connected(connection->context, connection);
}

static void take_suback(struct load_connection *connection, const struct mqtt_frame *frame)
{
    struct load_client *client = connection->client;
    uint16_t packet_id;
    struct mqtt_slice codes;
    int error = mqtt_suback_decode(frame, connection->options.version, &packet_id, &codes);
    if (error)
        lose(connection, error, "the server's SUBACK is not valid");
    else if (client->handlers.subscribed)
        client->handlers.subscribed(connection->context, connection, codes.length == 1 && codes.data[0] < 0x80);
}

static void take_publish(struct load_connection *connection, const struct mqtt_frame *frame)
{
    struct load_client *client = connection->client;
    struct mqtt_publish packet;
    int error = mqtt_publish_decode(frame, connection->options.version, &packet);
    if (!error && packet.qos == 2)
        error = ERR_QOS_NOT_SUPPORTED;
    if (!error && packet.qos == 1) {
        error = mqtt_ack_encode(&connection->out, connection->options.version, MQTT_PUBACK, packet.packet_id, 0);
        mark_dirty(connection);
    }
    if (error) {
        lose(connection, error, "a PUBLISH of the server is not valid");
        return;
    }
    client->counters.received++;
    if (client->handlers.received)
        client->handlers.received(connection->context, connection, &packet);
}

static void take_puback(struct load_connection *connection, const struct mqtt_frame *frame)
{
    struct load_client *client = connection->client;
    struct mqtt_ack packet;
    struct load_inflight_entry entry;
    int error = mqtt_ack_decode(frame, connection->options.version, &packet);
    if (!error && !load_inflight_remove(&connection->inflight, packet.packet_id, &entry))
        error = ERR_PROTOCOL;
    if (error) {
        lose(connection, error, "a PUBACK of the server is not valid");
        return;
    }
    client->counters.acknowledged++;
    if (client->handlers.acknowledged)
        client->handlers.acknowledged(connection->context, connection, entry.tag, entry.time_ns, packet.reason);
}

static void take_disconnect(struct load_connection *connection, const struct mqtt_frame *frame)
{
    struct mqtt_disconnect packet;
    char text[TEXT_SIZE] = "the server said goodbye";
    if (mqtt_disconnect_decode(frame, connection->options.version, &packet) == 0)
        snprintf(text, sizeof text, "the server closed the connection (reason 0x%02x)", packet.reason);
    lose(connection, ERR_DISCONNECTED, text);
}

static void take_packet(struct load_connection *connection, const struct mqtt_frame *frame)
{
    if (connection->state != STATE_OPEN && frame->type != MQTT_CONNACK) {
        lose(connection, ERR_PROTOCOL, "the server spoke before its CONNACK");
        return;
    }
    switch (frame->type) {
    case MQTT_PUBLISH:
        take_publish(connection, frame);
        break;
    case MQTT_PUBACK:
        take_puback(connection, frame);
        break;
    case MQTT_CONNACK:
        take_connack(connection, frame);
        break;
    case MQTT_SUBACK:
        take_suback(connection, frame);
        break;
    case MQTT_PINGRESP:
        connection->ping_sent_ns = 0;
        break;
    case MQTT_DISCONNECT:
        take_disconnect(connection, frame);
        break;
    default:
        lose(connection, ERR_PROTOCOL, "the server sent a packet that clients never get");
    }
}

/* Takes all whole packets; returns how many bytes they were. */
static size_t take_packets(struct load_connection *connection, const uint8_t *bytes, size_t length)
{
    size_t used = 0;
    while (used < length) {
        struct mqtt_frame frame;
        int error = mqtt_frame_decode(bytes + used, length - used, LOAD_PACKET_MAX, &frame);
        if (error == ERR_TRUNCATED)
            break;
        if (error) {
            lose(connection, error, error_text(error));
            return length;
        }
        connection->large = frame.total_size > LARGE_PACKET;
        take_packet(connection, &frame);
        used += frame.total_size;
        if (connection->fd < 0) /* lost, or closed by a handler */
            return length;
    }
    return used;
}

/* ---- reading and writing ---- */

/* Size of the packet whose beginning is kept; 0 while its header is not complete. */
static size_t kept_packet_size(const struct load_connection *connection)
{
    struct mqtt_frame frame = {0};
    return mqtt_frame_decode(connection->rest.data, connection->rest.length, LOAD_PACKET_MAX, &frame) == ERR_TRUNCATED ? frame.total_size
                                                                                                                       : 0;
}

/* A short read has emptied the socket, unless the peer has hung up: then only a read of nothing tells the end. */
static bool check_read(struct load_connection *connection, ssize_t count, size_t wanted)
{
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
        lose(connection, ERR_DISCONNECTED, count == 0 ? "the server closed the connection" : strerror(errno));
        return false;
    }
    if (count > 0)
        connection->client->counters.bytes_received += (uint64_t)count;
    if ((size_t)(count > 0 ? count : 0) == wanted || (connection->hung_up && count > 0) || (count < 0 && errno == EINTR))
        mark_ready(connection);
    connection->client->now_ns = clock_monotonic_ns();
    return count > 0;
}

/* The rest of one large packet goes straight to where its beginning is. */
static void read_rest(struct load_connection *connection, size_t packet_size)
{
    struct buffer *rest = &connection->rest;
    if (buffer_reserve(rest, packet_size - rest->length) != 0) {
        lose(connection, ERR_NO_MEMORY, error_text(ERR_NO_MEMORY));
        return;
    }
    size_t wanted = packet_size - rest->length;
    ssize_t count = recv(connection->fd, rest->data + rest->length, wanted, 0);
    if (!check_read(connection, count, wanted))
        return;
    rest->length += (size_t)count;
    if (rest->length == packet_size) {
        take_packets(connection, rest->data, rest->length);
        buffer_clear(rest);
    }
}

static void read_some(struct load_connection *connection)
{
    struct load_client *client = connection->client;
    size_t kept = connection->rest.length, packet_size = kept ? kept_packet_size(connection) : 0;
    if (packet_size > LARGE_PACKET) {
        read_rest(connection, packet_size);
        return;
    }
    if (kept)
        memcpy(client->input, connection->rest.data, kept);
    size_t wanted = (connection->large ? READ_SIZE_LARGE : READ_SIZE) - kept;
    ssize_t count = recv(connection->fd, client->input + kept, wanted, 0);
    if (!check_read(connection, count, wanted))
        return;
    size_t length = kept + (size_t)count, used = take_packets(connection, client->input, length);
    buffer_clear(&connection->rest);
    if (used < length && buffer_append(&connection->rest, client->input + used, length - used) != 0)
        lose(connection, ERR_NO_MEMORY, error_text(ERR_NO_MEMORY));
}

static void write_some(struct load_connection *connection)
{
    struct buffer *out = &connection->out;
    if (!connection->writable || connection->written == out->length)
        return;
    ssize_t count = send(connection->fd, out->data + connection->written, out->length - connection->written, MSG_NOSIGNAL);
    if (count < 0) {
        connection->writable = errno == EINTR;
        if (errno == EINTR)
            mark_dirty(connection);
        else if (errno != EAGAIN)
            lose(connection, ERR_DISCONNECTED, strerror(errno));
        return;
    }
    connection->client->counters.bytes_sent += (uint64_t)count;
    connection->last_sent_ns = connection->client->now_ns;
    connection->written += (size_t)count;
    if (connection->written == out->length) {
        buffer_clear(out);
        connection->written = 0;
        return;
    }
    connection->writable = false;
    if (connection->written > out->length / 2) {
        buffer_consume(out, connection->written);
        connection->written = 0;
    }
}

static void write_dirty(struct load_client *client)
{
    struct load_connection *connection = client->dirty;
    client->dirty = NULL;
    while (connection) {
        struct load_connection *next = connection->next_dirty;
        connection->on_dirty = false;
        write_some(connection);
        connection = next;
    }
}

static void read_ready(struct load_client *client)
{
    struct load_connection *connection = client->ready;
    client->ready = NULL;
    while (connection) {
        struct load_connection *next = connection->next_ready;
        connection->on_ready = false;
        if (connection->fd >= 0)
            read_some(connection);
        connection = next;
    }
}

/* ---- time ---- */

static void keep_alive(struct load_connection *connection, uint64_t now_ns)
{
    uint64_t limit_ns = connection->options.keep_alive_s * SECOND_NS;
    if (limit_ns == 0)
        return;
    if (connection->ping_sent_ns && now_ns - connection->ping_sent_ns > limit_ns) {
        lose(connection, ERR_KEEP_ALIVE, "the server does not answer PINGREQ");
    } else if (!connection->ping_sent_ns && now_ns > connection->last_sent_ns + limit_ns / 2 &&
               mqtt_empty_encode(&connection->out, MQTT_PINGREQ) == 0) {
        connection->ping_sent_ns = now_ns;
        mark_dirty(connection);
    }
}

static void run_timers(struct load_client *client)
{
    client->timer_ns = client->now_ns + SECOND_NS;
    for (size_t i = 0; i < client->connection_count; i++) {
        struct load_connection *connection = client->connections[i];
        if (connection->state == STATE_WAITING && connection->retry_at_ns <= client->now_ns)
            start_connect(connection);
        if (connection->state == STATE_OPEN)
            keep_alive(connection, client->now_ns);
        if (connection->state == STATE_WAITING)
            client->timer_ns = client->now_ns + TIMER_NS;
    }
}

/* ---- the loop ---- */

int load_client_create(struct load_client **client, const char *host, uint16_t port, const struct load_handlers *handlers)
{
    struct load_client *new = calloc(1, sizeof *new);
    if (!new)
        return ERR_NO_MEMORY;
    *new = (struct load_client){.handlers = *handlers, .epoll_fd = -1, .now_ns = clock_monotonic_ns()};
    new->random.state = new->now_ns;
    int error = load_address_resolve(&new->address, host, port);
    if (!error && !(new->input = malloc(READ_SIZE_LARGE)))
        error = ERR_NO_MEMORY;
    if (!error && (new->epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0)
        error = error_from_errno(errno);
    if (error) {
        load_client_destroy(new);
        return error;
    }
    prctl(PR_SET_TIMERSLACK, 1000); /* or a message that is due would wait for 50 microseconds */
    *client = new;
    return 0;
}

static void say_goodbye(struct load_connection *connection)
{
    if (connection->state != STATE_OPEN || mqtt_disconnect_encode(&connection->out, connection->options.version, 0) != 0)
        return;
    ssize_t ignored =
        send(connection->fd, connection->out.data + connection->written, connection->out.length - connection->written, MSG_NOSIGNAL);
    (void)ignored; /* what does not fit is not worth waiting for */
}

void load_client_destroy(struct load_client *client)
{
    if (!client)
        return;
    for (size_t i = 0; i < client->connection_count; i++) {
        struct load_connection *connection = client->connections[i];
        say_goodbye(connection);
        drop_socket(connection);
        buffer_fini(&connection->out);
        buffer_fini(&connection->rest);
        load_inflight_fini(&connection->inflight);
        free(connection->client_id);
        free(connection);
    }
    if (client->epoll_fd >= 0)
        close(client->epoll_fd);
    free(client->connections);
    free(client->input);
    free(client);
}

static void take_event(struct load_connection *connection, uint32_t events)
{
    if (connection->fd < 0) /* lost by an earlier event of this turn */
        return;
    if (events & EPOLLOUT)
        connection->writable = true;
    if (connection->state == STATE_CONNECTING && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        greet(connection);
        if (connection->fd < 0)
            return;
    }
    if (events & EPOLLOUT)
        mark_dirty(connection);
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        connection->hung_up = true;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        mark_ready(connection);
}

int load_client_turn(struct load_client *client, uint64_t until_ns)
{
    write_dirty(client);
    client->now_ns = clock_monotonic_ns();
    if (client->timer_ns < until_ns)
        until_ns = client->timer_ns;
    uint64_t wait_ns = client->ready || client->dirty || until_ns <= client->now_ns ? 0 : until_ns - client->now_ns;
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / SECOND_NS), .tv_nsec = (long)(wait_ns % SECOND_NS)};
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_pwait2(client->epoll_fd, events, EVENTS_MAX, &wait, NULL);
    if (count < 0 && errno != EINTR)
        return ERR_IO;
    client->now_ns = clock_monotonic_ns();
    for (int i = 0; i < count; i++)
        take_event(events[i].data.ptr, events[i].events);
    read_ready(client);
    write_dirty(client);
    if (client->now_ns >= client->timer_ns)
        run_timers(client);
    return 0;
}

uint64_t load_client_now_ns(const struct load_client *client)
{
    return client->now_ns;
}

const struct load_counters *load_client_counters(const struct load_client *client)
{
    return &client->counters;
}

/* ---- connections ---- */

static int add_connection(struct load_client *client, struct load_connection *connection)
{
    if (client->connection_count == LOAD_CONNECTIONS_MAX)
        return ERR_LIMIT;
    if (client->connection_count == client->connection_capacity) {
        size_t capacity = client->connection_capacity ? client->connection_capacity * 2 : 16;
        struct load_connection **connections = realloc(client->connections, capacity * sizeof *connections);
        if (!connections)
            return ERR_NO_MEMORY;
        client->connections = connections;
        client->connection_capacity = capacity;
    }
    client->connections[client->connection_count++] = connection;
    return 0;
}

int load_connection_open(struct load_client *client, const struct load_connection_options *options, void *context,
                         struct load_connection **connection)
{
    struct load_connection *new = calloc(1, sizeof *new);
    if (!new)
        return ERR_NO_MEMORY;
    *new = (struct load_connection){.client = client, .context = context, .options = *options, .fd = -1, .pause_ms = LOAD_RETRY_FIRST_MS};
    buffer_init(&new->out, 2 * (size_t)LOAD_PACKET_MAX);
    buffer_init(&new->rest, LOAD_PACKET_MAX);
    new->client_id = strdup(options->client_id);
    int error = new->client_id ? 0 : ERR_NO_MEMORY;
    if (!error && options->inflight_max)
        error = load_inflight_init(&new->inflight, options->inflight_max);
    if (!error)
        error = add_connection(client, new);
    if (error) {
        load_inflight_fini(&new->inflight);
        free(new->client_id);
        free(new);
        return error;
    }
    new->options.client_id = new->client_id;
    new->state = STATE_WAITING; /* the next turn connects, so that no handler runs before this returns */
    client->timer_ns = 0;
    *connection = new;
    return 0;
}

int load_connection_subscribe(struct load_connection *connection, const char *filter, uint8_t qos)
{
    if (connection->state != STATE_OPEN)
        return ERR_DISCONNECTED;
    struct mqtt_subscription entry = {.filter = {(const uint8_t *)filter, (uint32_t)strlen(filter)}, .qos = qos};
    int error = mqtt_subscribe_encode(&connection->out, connection->options.version, 1, &entry, 1);
    if (!error)
        mark_dirty(connection);
    return error;
}

bool load_connection_ready(const struct load_connection *connection, uint8_t qos)
{
    return connection->state == STATE_OPEN && connection->out.length - connection->written < LOAD_OUTPUT_FULL &&
           (qos == 0 || load_inflight_count(&connection->inflight) < connection->window);
}

int load_connection_publish(struct load_connection *connection, const struct mqtt_publish *publish, uint32_t tag, uint64_t due_ns)
{
    assert(publish->qos <= 1);
    if (connection->state != STATE_OPEN)
        return ERR_DISCONNECTED;
    if (!load_connection_ready(connection, publish->qos))
        return ERR_LIMIT;
    uint8_t version = connection->options.version;
    if (publish->payload.length > LOAD_PACKET_MAX / 2 || mqtt_publish_size(version, publish) > connection->packet_size_max)
        return ERR_LIMIT;
    struct mqtt_publish packet = *publish;
    if (packet.qos)
        packet.packet_id = load_inflight_add(&connection->inflight, tag, due_ns);
    int error = mqtt_publish_encode(&connection->out, version, &packet, NULL);
    if (error) {
        struct load_inflight_entry entry;
        if (packet.qos)
            load_inflight_remove(&connection->inflight, packet.packet_id, &entry);
        return error;
    }
    connection->client->counters.published++;
    mark_dirty(connection);
    return 0;
}
