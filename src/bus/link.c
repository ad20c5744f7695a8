/* How a connection's bytes travel: its socket, and what lies over it (TLS, WebSocket, both or nothing). connection.c sees MQTT only.
 *
 * Without a transport what is read lands where packets are decoded, and what is queued is written from where it was encoded. With one it is
 * read into a buffer of the loop's, which the transport turns into MQTT piece by piece where there is room; when the connection must wait
 * in between, the transport keeps the rest, LOOP_WIRE_SIZE at most. On the way out it is sealed when the socket can take it, not before:
 * what waits is counted as MQTT. */
#include "bus/loop.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/diagnostics.h"
#include "base/error.h"

enum {
    LINK_KEEP_WIRE = 1 << 10,     /* bytes of an empty buffer for sealed bytes */
    LINK_SEALED_SLACK = 64 << 10, /* bytes that a transport may add to an empty queue: its handshake */
    LINK_SEALED_SHARE = 16        /* and one byte more for so many */
};

/* ---- handshakes ---- */

static void end_handshake(struct connection *connection)
{
    if (!connection->handshaking)
        return;
    connection->handshaking = false;
    atomic_fetch_sub(&connection->loop->bus->handshakes, 1);
}

static void count_failure(struct connection *connection, enum handshake_failure failure)
{
    counter_add(&connection->loop->counters.handshakes_failed[failure], 1);
    end_handshake(connection);
}

const char *link_user(const struct connection *connection)
{
    return connection->transport ? transport_user(connection->transport) : NULL;
}

static void established(struct connection *connection)
{
    end_handshake(connection);
    connection->session.last_packet_ns = uv_now(&connection->loop->uv) * 1000000u; /* its time for CONNECT begins */
    const char *user = link_user(connection), *secure = transport_secure(connection->transport);
    if (diagnostics_enabled(DIAGNOSTICS_DEBUG))
        diagnostics(DIAGNOSTICS_DEBUG, "bus", "%s is connected by %s%s%s%s", connection->peer, secure ? secure : "WebSocket",
                    user ? ", user \"" : "", user ? user : "", user ? "\"" : "");
}

static void fail(struct connection *connection, int error)
{
    if (error == ERR_CLOSED) {
        connection_drop(connection);
        return;
    }
    connection->drain = true;
    const char *why = error == ERR_NO_MEMORY || error == ERR_LIMIT ? error_text(error) : transport_why(connection->transport);
    if (connection->handshaking) {
        count_failure(connection, error == ERR_PERMISSION                       ? HANDSHAKE_CERTIFICATE
                                  : transport_is_private(connection->transport) ? HANDSHAKE_WEBSOCKET
                                                                                : HANDSHAKE_TLS);
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus", "the handshake with %s failed: %s", connection->peer, why);
        connection_close(connection, CLOSE_HANDSHAKE, error_mqtt_reason(error));
    } else {
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus", CONNECTION_NAME " is disconnected: %s", CONNECTION_NAMED(connection), why);
        connection_close(connection, CLOSE_PROTOCOL, error_mqtt_reason(error));
    }
}

void link_time_out(struct connection *connection)
{
    count_failure(connection, HANDSHAKE_TIMEOUT);
    DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus", "the handshake with %s was not finished in %.3g s (bus.handshake_timeout_s)", connection->peer,
                 (double)connection->loop->bus->options.handshake_timeout_ns / 1e9);
    connection_close(connection, CLOSE_HANDSHAKE, 0x8d);
}

/* ---- in ---- */

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *room)
{
    (void)suggested;
    connection_room(handle->data, room);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *room)
{
    (void)room;
    struct connection *connection = stream->data;
    if (count < 0) {
        connection_drop(connection);
        return;
    }
    if (count == 0 || connection->closing)
        return;
    counter_add(&connection->loop->counters.bytes_received, (uint64_t)count);
    connection_received(connection, (size_t)count);
}

static void on_wire_room(uv_handle_t *handle, size_t suggested, uv_buf_t *room)
{
    (void)suggested;
    struct loop *loop = ((struct connection *)handle->data)->loop;
    room->base = (char *)loop->wire_buffer;
    room->len = memory_in_short(loop->bus) ? CONNECTION_PREFIX_MAX : LOOP_WIRE_SIZE; /* it may have to be kept */
}

/* Takes what the transport has, as long as the connection can. */
static void pump(struct connection *connection)
{
    struct transport *transport = connection->transport;
    ptrdiff_t count = 1;
    while (count > 0 && !connection->closing && !connection->paused) {
        uv_buf_t room;
        connection_room(connection, &room);
        count = transport_read(transport, (uint8_t *)room.base, room.len);
        if (count >= 0 && connection->handshaking && transport_is_established(transport))
            established(connection);
        if (count > 0)
            connection_received(connection, (size_t)count);
    }
    if (connection->closing)
        return;
    if (count < 0)
        fail(connection, (int)count);
    else if (connection->paused && transport_hold(transport))
        connection_close(connection, CLOSE_LIMIT, error_mqtt_reason(ERR_NO_MEMORY));
    if (!connection->closing && transport_has_answer(transport))
        loop_mark_dirty(connection);
}

/* A step of a handshake may take a millisecond, and a thousand clients may come at once: each waits its turn, and is not read from
 * meanwhile. */
static void shake_hands_later(struct connection *connection)
{
    struct loop *loop = connection->loop;
    if (transport_hold(connection->transport)) {
        connection_close(connection, CLOSE_LIMIT, error_mqtt_reason(ERR_NO_MEMORY));
        return;
    }
    link_stop(connection);
    connection->shaking = true;
    DL_APPEND2(loop->shaking, connection, shaking_before, shaking_next);
}

static void shake_no_more(struct connection *connection)
{
    if (connection->shaking)
        DL_DELETE2(connection->loop->shaking, connection, shaking_before, shaking_next);
    connection->shaking = false;
}

void link_shake_hands(struct loop *loop)
{
    uint64_t until_ns = uv_hrtime() + LOOP_HANDSHAKES_NS;
    while (loop->shaking && !loop->quiet && uv_hrtime() < until_ns) {
        struct connection *first = loop->shaking;
        shake_no_more(first);
        if (!first->closing)
            link_read(first);
    }
    if (loop->shaking && !loop->quiet)
        uv_async_send(&loop->wake); /* the next turn begins at once */
}

static void on_wire_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *room)
{
    struct connection *connection = stream->data;
    if (count < 0) {
        connection_drop(connection);
        return;
    }
    if (count == 0 || connection->closing)
        return;
    counter_add(&connection->loop->counters.bytes_received, (uint64_t)count);
    transport_feed(connection->transport, (const uint8_t *)room->base, (size_t)count);
    if (connection->handshaking)
        shake_hands_later(connection);
    else
        pump(connection);
}

void link_read(struct connection *connection)
{
    uv_stream_t *stream = (uv_stream_t *)&connection->handle;
    if (!connection->transport) {
        uv_read_start(stream, on_room, on_read);
        return;
    }
    pump(connection);
    if (!connection->closing && !connection->paused)
        uv_read_start(stream, on_wire_room, on_wire_read);
}

void link_stop(struct connection *connection)
{
    uv_read_stop((uv_stream_t *)&connection->handle);
}

/* ---- out ---- */

bool link_has_output(const struct connection *connection)
{
    return connection->out.length || (connection->transport && transport_has_answer(connection->transport));
}

static void on_written(uv_write_t *request, int status)
{
    struct connection *connection = request->data;
    connection->writing = false;
    counter_add(&connection->loop->counters.bytes_sent, connection->sending.length);
    buffer_clear(&connection->sending);
    buffer_shrink(&connection->sending, CONNECTION_KEEP_BUFFER);
    connection->progress_ns = uv_now(&connection->loop->uv) * 1000000u;
    if (status < 0) {
        connection_drop(connection);
        return;
    }
    if (connection->closing)
        connection_end(connection);
    else
        link_flush(connection);
    connection_note_queue(connection);
    connection_retry(connection);
    if (connection->persistent || connection->shared)
        loop_mark_dirty(connection);
    if (connection->handouts)
        handout_resume(connection);
}

/* All of `out` was written. */
static void give_back(struct connection *connection, struct buffer *out)
{
    buffer_clear(out);
    if (out != &connection->out)
        buffer_shrink(out, LINK_KEEP_WIRE);
    buffer_shrink(&connection->out, memory_level(connection->loop->bus) == MEMORY_AMPLE ? 4 * LOOP_READ_SIZE : CONNECTION_KEEP_BUFFER);
    connection_note_queue(connection);
    if (connection->out.capacity > CONNECTION_KEEP_BUFFER)
        loop_watch(connection->loop); /* given back when it turns out to be idle */
    if (connection->handouts)
        handout_resume(connection);
}

void link_flush(struct connection *connection)
{
    if (!link_has_output(connection) || connection->shut)
        return;
    if (connection->writing) {
        connection_note_queue(connection); /* acknowledgements may have made it too long */
        return;
    }
    struct buffer *out = &connection->out;
    if (connection->transport) {
        if (transport_seal(connection->transport, out)) {
            connection_drop(connection);
            return;
        }
        out = transport_wire(connection->transport);
        if (out->length == 0)
            return;
    }
    uv_buf_t part = uv_buf_init((char *)out->data, (unsigned)out->length);
    int written = uv_try_write((uv_stream_t *)&connection->handle, &part, 1);
    if (written < 0 && written != UV_EAGAIN) {
        connection_drop(connection);
        return;
    }
    size_t done = written > 0 ? (size_t)written : 0;
    counter_add(&connection->loop->counters.bytes_sent, done);
    if (done == out->length) {
        give_back(connection, out);
        return;
    }
    struct buffer rest = *out;
    *out = connection->sending;
    connection->sending = rest;
    buffer_consume(&connection->sending, done);
    part = uv_buf_init((char *)connection->sending.data, (unsigned)connection->sending.length);
    connection->write.data = connection;
    connection->writing = true;
    connection->progress_ns = uv_now(&connection->loop->uv) * 1000000u;
    if (uv_write(&connection->write, (uv_stream_t *)&connection->handle, &part, 1, on_written)) {
        connection->writing = false;
        connection_drop(connection);
        return;
    }
    connection->unwritten = uv_stream_get_write_queue_size((const uv_stream_t *)&connection->handle);
    connection_note_queue(connection);
}

/* ---- beginning and end ---- */

void link_turn_away(struct bus *bus, int socket, enum bus_transport kind)
{
    close(socket);
    atomic_fetch_sub(&bus->connection_count, 1);
    if (link_shakes_hands(kind))
        atomic_fetch_sub(&bus->handshakes, 1);
}

static int open_transport(struct connection *connection)
{
    const struct bus *bus = connection->loop->bus;
    enum bus_transport kind = connection->kind;
    size_t queue_max = connection->sending.limit, wire_max = queue_max + queue_max / LINK_SEALED_SHARE + LINK_SEALED_SLACK;
    struct transport_options options = {
        .tls = kind == BUS_TLS || kind == BUS_WEBSOCKET_TLS ? bus->tls : NULL,
        .websocket_path = kind == BUS_WEBSOCKET || kind == BUS_WEBSOCKET_TLS ? bus->options.websocket_path : NULL,
        .payload_max = bus->options.packet_size_max > LOOP_WIRE_SIZE ? bus->options.packet_size_max : LOOP_WIRE_SIZE,
        .wire_max = wire_max,
    };
    connection->sending.limit = wire_max; /* they are exchanged */
    return transport_create(&connection->transport, &options);
}

int link_open(struct connection *connection, int socket, enum bus_transport kind)
{
    struct loop *loop = connection->loop;
    connection->kind = kind;
    connection->handshaking = link_shakes_hands(kind);
    counter_add(&loop->counters.by_transport[kind], 1);
    if (kind == BUS_UNIX)
        uv_pipe_init(&loop->uv, &connection->pipe, 0);
    else
        uv_tcp_init(&loop->uv, &connection->handle);
    connection->handle.data = connection;
    int error = connection->handshaking ? open_transport(connection) : 0;
    if (error)
        return error;
    return (kind == BUS_UNIX ? uv_pipe_open(&connection->pipe, socket) : uv_tcp_open(&connection->handle, socket)) ? ERR_INVALID : 0;
}

void link_finish(struct connection *connection)
{
    if (connection->transport && transport_finish(connection->transport, &connection->out))
        buffer_clear(&connection->out);
}

static void on_drained(uv_stream_t *stream, ssize_t count, const uv_buf_t *room)
{
    (void)room;
    struct connection *connection = stream->data;
    if (count < 0)
        connection_drop(connection);
}

/* A socket that is closed while something is unread in it takes back what it had to say. So a peer that is in the middle of a large frame
 * is heard out, for LOOP_LINGER_MS at most. */
static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct connection *connection = request->data;
    free(request);
    if (status || !connection->drain || connection->shut)
        connection_drop(connection);
    else
        uv_read_start((uv_stream_t *)&connection->handle, on_wire_room, on_drained);
}

bool link_shutdown(struct connection *connection)
{
    uv_shutdown_t *request = malloc(sizeof *request);
    if (!request)
        return false;
    request->data = connection;
    bool begun = uv_shutdown(request, (uv_stream_t *)&connection->handle, on_shutdown) == 0;
    if (!begun)
        free(request);
    return begun;
}

static void on_closed(uv_handle_t *handle)
{
    connection_closed(handle->data);
}

/* A peer of TLS or WebSocket is told that it was no accident, if the socket takes that at once. */
static void say_goodbye(struct connection *connection)
{
    link_finish(connection);
    const struct buffer *wire = transport_wire(connection->transport);
    uv_buf_t part = uv_buf_init((char *)wire->data, (unsigned)wire->length);
    if (wire->length)
        uv_try_write((uv_stream_t *)&connection->handle, &part, 1);
}

void link_close(struct connection *connection)
{
    shake_no_more(connection);
    if (connection->handshaking)
        count_failure(connection, HANDSHAKE_LEFT);
    counter_add(&connection->loop->counters.by_transport[connection->kind], (uint64_t)-1);
    if (connection->transport && !connection->writing)
        say_goodbye(connection);
    uv_close((uv_handle_t *)&connection->handle, on_closed);
}
