/* One client connection: bytes to the session's events, events to actions, and what is to be sent back out. */
#include "bus/persistent.h"
#include "bus/shared.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/diagnostics.h"
#include "base/error.h"

enum {
    CONNACK_PROPERTIES_MAX = 256 << 10,
    CONNACK_REST_MAX = 16 /* bytes of a CONNACK besides its properties' values */
};

/* What the socket has not taken. */
static size_t unwritten(const struct connection *connection)
{
    return connection->out.length + connection->sending.length + connection->held_back;
}

/* The same with the acknowledgements that will be there when the journal is done with what was read. They are held against the client's own
 * limit alone: all of them together are few, as the journal's backlog bounds the messages that they answer. */
static size_t owed(const struct connection *connection)
{
    return unwritten(connection) + (size_t)connection->session.inbound_unacknowledged * CONNECTION_ACKNOWLEDGEMENT;
}

void connection_note_queue(struct connection *connection)
{
    struct loop *loop = connection->loop;
    memory_note_out(connection);
    size_t queued = connection->shut ? 0 : connection_queued(connection), most = memory_queue_max(loop->bus);
    uint8_t before = connection->congested, now = queued > (before ? most / 2 : most);
    if (queued > (before == 2 ? most : 2 * most))
        now = 2;
    if (connection->paused && connection->pause == PAUSE_OUTPUT && (!now || unwritten(connection) <= most / 2) &&
        owed(connection) <= loop->bus->options.outgoing_soft_max) /* not less: it would wait unseen by check_deadlines */
        connection->retry = true;
    if (now == before)
        return;
    if (!before)
        connection->progress_ns = uv_now(&loop->uv) * 1000000u;
    connection->congested = now;
    atomic_store_explicit(&loop->congested[connection->slot], now, memory_order_relaxed);
    if (now < before)
        mail_resume_all(loop->bus, PAUSE_SUBSCRIBER, connection_key(loop->index, connection->slot));
    else
        loop_watch(loop);
}

void connection_retry(struct connection *connection)
{
    if (!connection->paused || !connection->retry || connection->closing || connection->loop->quiet)
        return;
    loop_unpause(connection);
    connection_continue(connection);
}

/* ---- the end ---- */

static void fini(struct connection *connection)
{
    mqtt_session_fini(&connection->session);
    transport_destroy(connection->transport);
    buffer_fini(&connection->in);
    buffer_fini(&connection->out);
    buffer_fini(&connection->sending);
    buffer_fini(&connection->waiting);
    buffer_fini(&connection->refusals);
    aliases_destroy(connection->aliases);
    will_forget(connection);
    free(connection);
}

void connection_closed(struct connection *connection)
{
    for (struct connection **at = &connection->loop->dirty; connection->dirty && *at; at = &(*at)->dirty_next) {
        if (*at == connection) {
            *at = connection->dirty_next;
            break;
        }
    }
    fini(connection);
}

void connection_drop(struct connection *connection)
{
    if (connection->shut)
        return;
    connection->closing = connection->shut = true;
    struct loop *loop = connection->loop;
    shared_leave(connection);
    will_leave(connection); /* before its session may end: a kill in between does not lose it */
    persistent_leave(connection);
    connection->session.state = MQTT_SESSION_CLOSED;
    router_remove_connection(loop->bus->router, loop->index, connection->slot, connection->generation);
    counter_add(&loop->counters.subscriptions, (uint64_t) - (int64_t)connection->subscriptions);
    clients_release(connection);
    handout_end(connection);
    door_close(connection);
    connection_note_queue(connection);
    memory_note_in(connection);
    loop_forget(connection);
    link_close(connection);
}

void connection_end(struct connection *connection)
{
    if (connection->shut || uv_is_closing((uv_handle_t *)&connection->handle))
        return;
    shared_leave(connection);
    persistent_leave(connection); /* its client may come back before all of the goodbye is written */
    if (connection->goodbye) {
        link_finish(connection);
        link_flush(connection);
        if (connection->writing || (link_has_output(connection) && !connection->shut))
            return; /* what is written to the end comes back here */
        connection->goodbye = false;
        if (!connection->shut && link_shutdown(connection))
            return;
    }
    connection_drop(connection);
}

/* Without memory, or where the client takes no packet of this size, it is closed without a word. */
static void put_disconnect(struct connection *connection, uint8_t reason)
{
    const struct mqtt_session *session = &connection->session;
    (void)mqtt_refusal_encode(&connection->out, MQTT_DISCONNECT, 0, &reason, 1, mqtt_session_reason(session, reason, NULL),
                              session->peer_packet_size_max);
}

void connection_close(struct connection *connection, enum close_reason reason, int mqtt_reason)
{
    if (connection->closing)
        return;
    connection->closing = true;
    counter_add(&connection->loop->counters.closed[reason], 1);
    if (diagnostics_enabled(DIAGNOSTICS_DEBUG))
        diagnostics(DIAGNOSTICS_DEBUG, "bus", CONNECTION_NAME " is disconnected with reason 0x%02x", CONNECTION_NAMED(connection),
                    (unsigned)mqtt_reason);
    link_stop(connection);
    connection->goodbye = reason != CLOSE_SLOW && connection_queued(connection) <= connection->loop->bus->options.outgoing_soft_max;
    if (connection->goodbye && connection->session.version == MQTT_VERSION_5_0 && connection->session.state == MQTT_SESSION_ACTIVE)
        put_disconnect(connection, (uint8_t)mqtt_reason);
    connection->progress_ns = uv_now(&connection->loop->uv) * 1000000u;
    loop_watch(connection->loop);
    loop_mark_dirty(connection); /* ended at the end of the turn: whoever called may be walking a list that this would change */
}

void connection_part(struct connection *connection)
{
    if (connection->closing)
        return;
    connection->closing = connection->goodbye = true;
    connection->progress_ns = uv_now(&connection->loop->uv) * 1000000u;
    loop_watch(connection->loop);
    loop_mark_dirty(connection);
}

/* ---- events ---- */

static struct mqtt_slice text(const char *zero_terminated)
{
    return (struct mqtt_slice){(const uint8_t *)zero_terminated, (uint32_t)strlen(zero_terminated)};
}

static int connack_properties(struct connection *connection, const struct mqtt_connect *connect, struct mqtt_slice assigned,
                              uint16_t keep_alive_s, struct buffer *out)
{
    uint32_t expiry_s = persistent_expiry_s(connection);
    const struct bus_options *options = &connection->loop->bus->options;
    int error = mqtt_property_u16(out, MQTT_PROPERTY_RECEIVE_MAXIMUM, connection->session.limits.receive_maximum);
    error = error ? error : mqtt_property_u32(out, MQTT_PROPERTY_MAXIMUM_PACKET_SIZE, options->packet_size_max);
    if (options->topic_alias_max)
        error = error ? error : mqtt_property_u16(out, MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM, options->topic_alias_max);
    if (connect->properties.session_expiry_interval != expiry_s)
        error = error ? error : mqtt_property_u32(out, MQTT_PROPERTY_SESSION_EXPIRY, expiry_s);
    if (keep_alive_s != connect->keep_alive_s)
        error = error ? error : mqtt_property_u16(out, MQTT_PROPERTY_SERVER_KEEP_ALIVE, keep_alive_s);
    if (assigned.length)
        error = error ? error : mqtt_property_text(out, MQTT_PROPERTY_ASSIGNED_CLIENT_IDENTIFIER, assigned);
    struct mqtt_slice information = text(options->response_information ? options->response_information : "");
    bool fits = out->length + information.length + CONNACK_REST_MAX <= connect->properties.maximum_packet_size;
    if (connect->properties.request_response_information && information.length && fits)
        error = error ? error : mqtt_property_text(out, MQTT_PROPERTY_RESPONSE_INFORMATION, information);
    return error;
}

/* Tells the client what there is to be told, and closes. */
static void refuse(struct connection *connection, int error)
{
    mqtt_session_refuse(&connection->session, error, &connection->out);
    enum error_class class = error_class(error);
    enum close_reason reason = class == ERROR_CLASS_CALLER ? CLOSE_DENIED : class == ERROR_CLASS_RETRY ? CLOSE_LIMIT : CLOSE_PROTOCOL;
    connection_close(connection, reason, error_mqtt_reason(error));
}

static int answer_connect(struct connection *connection, const struct mqtt_connect *connect, bool present, uint16_t keep_alive_s)
{
    struct mqtt_slice assigned = connect->client_id.length ? (struct mqtt_slice){0} : text(connection->client->id);
    struct buffer properties;
    buffer_init(&properties, CONNACK_PROPERTIES_MAX);
    int error = 0;
    if (connect->version == MQTT_VERSION_5_0)
        error = connack_properties(connection, connect, assigned, keep_alive_s, &properties);
    if (!error)
        error = mqtt_connack_encode(&connection->out, connect->version, present, 0,
                                    (struct mqtt_slice){properties.data, (uint32_t)properties.length});
    buffer_fini(&properties);
    if (!error && connection->out.length > connect->properties.maximum_packet_size) { /* whoever takes it takes all short answers */
        buffer_clear(&connection->out);
        error = ERR_PACKET_TOO_LARGE;
    }
    return error;
}

/* Everything that happens once: its CONNECT may be offered again after it, until its session is free. */
static int admit(struct connection *connection, const struct mqtt_connect *connect)
{
    struct mqtt_slice assigned;
    int error = connection->loop->bus->options.access ? door_admit(connection, connect) : 0;
    if (!error)
        error = will_keep(connection, connect);
    if (!error) {
        error = clients_claim(connection, connect, &assigned);
        if (error == ERR_CLIENT_ID)
            door_deny_identifier(connection, connect);
    }
    if (!error && connection->door.client && assigned.length)
        error = door_rename(connection, assigned);
    return error;
}

/* False: it has to wait, and is to be offered again. */
static bool on_connect(struct connection *connection, const struct mqtt_connect *connect)
{
    struct bus *bus = connection->loop->bus;
    bool present = false;
    if (bus->options.access && door_waits(connection, connect))
        return false;
    int error = connection->client ? 0 : admit(connection, connect);
    if (!error) {
        error = persistent_attach(connection, connect, &present);
        if (error == ERR_CLIENT_ID)
            door_deny_identifier(connection, connect);
    }
    if (connection->paused)
        return false;
    uint16_t keep_alive_s = connect->keep_alive_s, most = bus->options.keep_alive_max_s;
    if (connect->version == MQTT_VERSION_5_0 && most && (keep_alive_s == 0 || keep_alive_s > most))
        keep_alive_s = most;
    if (!error)
        error = answer_connect(connection, connect, present, keep_alive_s);
    if (error) {
        will_forget(connection);
        refuse(connection, error);
        return true;
    }
    mqtt_session_accept(&connection->session, keep_alive_s);
    uint16_t aliases = connect->properties.topic_alias_maximum, aliases_max = bus->options.topic_alias_max;
    connection->aliases = aliases_create(aliases < aliases_max ? aliases : aliases_max);
    if (connection->persistent)
        persistent_resume(connection);
    loop_watch(connection->loop);
    return true;
}

static void on_error(struct connection *connection, int error)
{
    DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus", CONNECTION_NAME " is disconnected: %s", CONNECTION_NAMED(connection), error_text(error));
    refuse(connection, error);
}

/* The next step of a QoS 2 exchange, in either direction. */
static void answer(struct connection *connection, enum mqtt_packet_type type, const struct mqtt_event *event)
{
    int error = mqtt_ack_encode(&connection->out, connection->session.version, type, event->ack.packet_id, event->reason);
    if (error)
        connection_close(connection, CLOSE_LIMIT, error_mqtt_reason(error));
}

/* A password does not stay where it was read: in the loop's buffer, behind a part that waited in `in`, or in `in` itself. */
static void wipe_password(struct connection *connection, const struct mqtt_connect *connect)
{
    struct buffer *in = &connection->in;
    uintptr_t password = (uintptr_t)connect->password.data, kept = (uintptr_t)in->data;
    if (!connect->password.length)
        return;
    explicit_bzero((void *)password, connect->password.length);
    if (in->length && (password < kept || password >= kept + in->length))
        explicit_bzero(in->data, in->length); /* its copy is what was taken */
}

static void act(struct connection *connection, struct mqtt_event *event, uint64_t now_ns)
{
    switch (event->type) {
    case MQTT_EVENT_PUBLISH: /* taken by process() */
        break;
    case MQTT_EVENT_REPEAT:
        counter_add(&connection->loop->counters.received[2], 1);
        if (event->recorded)
            acknowledge_put(connection, MQTT_PUBREC, event->publish.packet_id);
        break;
    case MQTT_EVENT_PUBREL:
        if (connection->persistent)
            persistent_release(connection, event);
        else
            answer(connection, MQTT_PUBCOMP, event);
        break;
    case MQTT_EVENT_PUBREC:
        if (connection->persistent)
            persistent_recorded(connection, event);
        else
            answer(connection, MQTT_PUBREL, event);
        if (!event->reason)
            connection->progress_ns = now_ns;
        break;
    case MQTT_EVENT_SETTLED:
        if (connection->persistent)
            persistent_settled(connection, event->ack.packet_id);
        if (connection->shared)
            shared_settled(connection, event->ack.packet_id);
        connection->progress_ns = now_ns;
        break;
    case MQTT_EVENT_CONNECT: /* taken by process() too */
        wipe_password(connection, &event->connect);
        break;
    case MQTT_EVENT_SUBSCRIBE:
        subscribe_add(connection, &event->subscribe);
        break;
    case MQTT_EVENT_UNSUBSCRIBE:
        subscribe_remove(connection, &event->subscribe);
        break;
    case MQTT_EVENT_PING:
        if (mqtt_empty_encode(&connection->out, MQTT_PINGRESP))
            connection_close(connection, CLOSE_LIMIT, 0x97);
        break;
    case MQTT_EVENT_DISCONNECT:
        if (event->disconnect.reason == 0)
            will_withdraw(connection); /* any other goodbye leaves it (MQTT-3.1.2-8) */
        if (connection->held_back) {
            link_stop(connection); /* persistent_let_go comes to connection_part */
            break;
        }
        link_flush(connection); /* what was asked for in the same breath is answered */
        connection->closing = true;
        connection_drop(connection);
        break;
    case MQTT_EVENT_ERROR:
        on_error(connection, event->error);
        break;
    case MQTT_EVENT_CONNACK: /* these four only a client gets */
    case MQTT_EVENT_SUBACK:
    case MQTT_EVENT_UNSUBACK:
    case MQTT_EVENT_PONG:
    case MQTT_EVENT_NEED_MORE:
        break;
    }
}

/* Takes a publish. False when it has to wait and is to be offered again. */
static bool publish(struct connection *connection, const struct mqtt_publish *publish)
{
    enum door_answer answer = connection->door.bound ? door_publish(connection, publish) : DOOR_OPEN;
    if (answer == DOOR_CLOSED)
        return true;
    if (answer == DOOR_WAITS || !deliver_publish(connection, publish)) {
        mqtt_session_forget(&connection->session, publish);
        return false;
    }
    if (connection->door.bound)
        door_charge(connection, publish);
    return true;
}

/* Takes every whole packet from `bytes`, up to a publish that has to wait. Returns how many bytes it took; *needed gets the size of the
 * unfinished packet. */
static size_t process(struct connection *connection, const uint8_t *bytes, size_t length, size_t *needed)
{
    uint64_t now_ns = uv_now(&connection->loop->uv) * 1000000u;
    size_t done = 0;
    *needed = 0;
    struct mqtt_event event;
    while (!connection->closing && !connection->paused && !connection_parts(connection)) {
        size_t consumed;
        mqtt_session_next(&connection->session, bytes + done, length - done, now_ns, &consumed, &event);
        if (event.type == MQTT_EVENT_PUBLISH && !publish(connection, &event.publish))
            break;
        if (event.type == MQTT_EVENT_CONNECT && !on_connect(connection, &event.connect)) {
            mqtt_session_postpone(&connection->session);
            break;
        }
        done += consumed;
        if (event.type == MQTT_EVENT_NEED_MORE) {
            *needed = event.needed;
            break;
        }
        act(connection, &event, now_ns);
    }
    if (connection->closing || connection_parts(connection))
        return length;
    if (connection->waiting.length)
        deliver_waiting(connection);
    if (connection->handouts && !connection->handing)
        handout_continue(connection);
    if (connection->out.length)
        loop_mark_dirty(connection);
    return done;
}

/* ---- in ---- */

void connection_room(struct connection *connection, uv_buf_t *room)
{
    struct loop *loop = connection->loop;
    if (connection->large) {
        room->base = (char *)connection->in.data + connection->in.length;
        room->len = connection->in.capacity - connection->in.length;
        return;
    }
    connection->prefix = (uint32_t)connection->in.length;
    if (connection->prefix)
        memcpy(loop->read_buffer, connection->in.data, connection->prefix);
    room->base = (char *)loop->read_buffer + connection->prefix;
    /* What is read must be kept when a publish has to wait. */
    room->len = memory_in_short(loop->bus) ? CONNECTION_PREFIX_MAX : LOOP_READ_SIZE - connection->prefix;
}

/* A small rest does not keep the memory of the large packet that was before it. */
static int trim(struct buffer *in, size_t size)
{
    struct buffer smaller;
    buffer_init(&smaller, size > LOOP_READ_SIZE ? size : LOOP_READ_SIZE);
    int error = buffer_reserve(&smaller, size);
    error = error ? error : buffer_append(&smaller, in->data, in->length);
    if (error) {
        buffer_fini(&smaller);
        return error;
    }
    buffer_fini(in);
    *in = smaller;
    return 0;
}

/* Keeps what was not taken of `bytes`, which lie in the read buffer or in `in` itself, and makes room for the rest of a large packet. */
static void keep_rest(struct connection *connection, const uint8_t *bytes, size_t length, size_t done, size_t needed)
{
    struct buffer *in = &connection->in;
    size_t rest = length - done, size = rest;
    int error = 0;
    if (bytes == in->data) {
        buffer_consume(in, done);
    } else {
        buffer_clear(in);
        error = buffer_append(in, bytes + done, rest);
    }
    connection->large = needed > CONNECTION_PREFIX_MAX;
    if (connection->large)
        size = needed + needed / 4; /* the beginning of the next is read along */
    if (!connection->large || done || !connection->unfinished_ns)
        connection->unfinished_ns = connection->large ? uv_now(&connection->loop->uv) * 1000000u : 0;
    if (!error && in->capacity > CONNECTION_KEEP_BUFFER && in->capacity / 4 > size)
        error = trim(in, size);
    if (!error && connection->large) {
        error = memory_admit(connection, size);
        loop_watch(connection->loop);
        if (error == ERR_LIMIT) {
            connection->unfinished_ns = 0;
            error = 0;
        }
    }
    memory_note_in(connection);
    if (error)
        connection_close(connection, CLOSE_LIMIT, error_mqtt_reason(error));
}

static void take(struct connection *connection, const uint8_t *bytes, size_t length)
{
    size_t needed;
    size_t done = process(connection, bytes, length, &needed);
    if (connection->closing)
        return;
    keep_rest(connection, bytes, length, done, needed);
    if (connection->paused && (connection->pause == PAUSE_LOGIN || connection->pause == PAUSE_SESSION) && bytes != connection->in.data)
        explicit_bzero((void *)(uintptr_t)bytes, length); /* its password is in `in` now, and wiped there */
    const struct bus *bus = connection->loop->bus;
    if (unwritten(connection) > memory_queue_max(bus) || owed(connection) > bus->options.outgoing_soft_max)
        loop_pause(connection, PAUSE_OUTPUT, 0);
}

void connection_received(struct connection *connection, size_t count)
{
    struct loop *loop = connection->loop;
    if (connection->session.state == MQTT_SESSION_ACTIVE)
        connection->session.last_packet_ns = uv_now(&loop->uv) * 1000000u; /* a large packet on a slow link is a sign of life */
    if (connection->large) {
        connection->in.length += count;
        take(connection, connection->in.data, connection->in.length);
    } else {
        take(connection, loop->read_buffer, connection->prefix + count);
    }
}

void connection_continue(struct connection *connection)
{
    if (connection->session.state != MQTT_SESSION_NEW) /* what it said meanwhile is still in the socket */
        connection->session.last_packet_ns = uv_now(&connection->loop->uv) * 1000000u;
    if (!connection->closing && connection->in.length)
        take(connection, connection->in.data, connection->in.length);
    if (connection->closing || connection->paused || connection_parts(connection))
        return;
    link_read(connection);
    loop_watch(connection->loop); /* its keep alive counts again */
}

/* ---- the beginning, and the watch over it ---- */

void connection_open(struct loop *loop, int socket, enum bus_transport kind)
{
    struct connection *connection = loop->quiet || loop->stopping ? NULL : loop_new_connection(loop);
    if (!connection) {
        link_turn_away(loop->bus, socket, kind);
        return;
    }
    const struct bus_options *options = &loop->bus->options;
    size_t hard_max = options->outgoing_soft_max * LOOP_HARD_FACTOR + MQTT_REMAINING_LENGTH_MAX + MQTT_FIXED_HEADER_MAX;
    buffer_init(&connection->in, LOOP_READ_SIZE); /* more where memory_admit allows it */
    buffer_init(&connection->out, hard_max);
    buffer_init(&connection->sending, hard_max);
    buffer_init(&connection->waiting, hard_max * 2);
    buffer_init(&connection->refusals, CONNECTION_REFUSALS_SIZE);
    struct mqtt_session_limits limits = {.packet_size_max = options->packet_size_max,
                                         .receive_maximum = options->receive_maximum,
                                         .qos_max = 2,
                                         .retain_available = true,
                                         .topic_alias_max = options->topic_alias_max};
    uint64_t now_ns = uv_now(&loop->uv) * 1000000u;
    mqtt_session_init(&connection->session, &limits, now_ns);
    connection->progress_ns = now_ns;
    counter_add(&loop->counters.accepted, 1);
    listener_peer(socket, connection->peer);
    connection->door.loopback = listener_peer_is_local(socket);
    if (link_open(connection, socket, kind)) {
        close(socket);
        connection_drop(connection);
        return;
    }
    connection_continue(connection);
}

/* When it must have been heard. */
static uint64_t deadline_ns(const struct connection *connection)
{
    if (connection->handshaking)
        return connection->session.last_packet_ns + connection->loop->bus->options.handshake_timeout_ns;
    return mqtt_session_deadline_ns(&connection->session);
}

/* Closes a connection whose time has run out. */
static void check_deadlines(struct connection *connection, uint64_t now_ns)
{
    const struct bus *bus = connection->loop->bus;
    uint64_t patience_ns = bus->options.stall_timeout_ns, patience_s = patience_ns / 1000000000u;
    if (connection->congested && now_ns - connection->progress_ns > patience_ns) {
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus",
                     CONNECTION_NAME " is disconnected: %zu bytes wait for it and it has taken none for %" PRIu64 " s",
                     CONNECTION_NAMED(connection), connection_queued(connection), patience_s);
        connection_close(connection, CLOSE_SLOW, 0x97);
    } else if (connection->unfinished_ns && now_ns - connection->unfinished_ns > patience_ns && atomic_load(&bus->packets_waiting)) {
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus",
                     CONNECTION_NAME " is disconnected: it has sent %zu bytes of a packet and not the rest for %" PRIu64
                                     " s, and others wait for memory (bus.memory_max)",
                     CONNECTION_NAMED(connection), connection->in.length, patience_s);
        connection_close(connection, CLOSE_SLOW, 0x97);
    } else if (!connection->paused && now_ns > deadline_ns(connection)) {
        if (connection->handshaking)
            link_time_out(connection);
        else
            connection_close(connection, CLOSE_KEEP_ALIVE, 0x8d);
    } else if (connection->door.login == DOOR_LOGIN_CHECKING) {
        door_check(connection, now_ns);
    }
}

uint64_t connection_check(struct connection *connection, uint64_t now_ns)
{
    size_t left = uv_stream_get_write_queue_size((const uv_stream_t *)&connection->handle);
    if (left < connection->unwritten)
        connection->progress_ns = now_ns;
    connection->unwritten = left;
    if (connection->closing) {
        if (now_ns - connection->progress_ns > LOOP_LINGER_MS * 1000000ull)
            connection_drop(connection);
        return now_ns;
    }
    buffer_shrink(&connection->out, CONNECTION_KEEP_BUFFER);
    connection_note_queue(connection); /* the limit changes with the memory of all */
    if (!connection->congested)
        connection->progress_ns = now_ns;
    check_deadlines(connection, now_ns);
    connection_retry(connection);
    if (connection->shared)
        loop_mark_dirty(connection); /* so does the room of its groups */
    uint64_t again_ns = connection->persistent ? persistent_check(connection, now_ns) : UINT64_MAX;
    if (connection->closing || connection->congested || connection->unfinished_ns || connection->door.login == DOOR_LOGIN_CHECKING)
        return now_ns;
    uint64_t due_ns = connection->paused ? UINT64_MAX : deadline_ns(connection);
    return due_ns < again_ns ? due_ns : again_ns;
}
