/* One connection to a broker, again and again: name, address, socket, TLS where it is wanted, CONNECT, and then packets both ways.
 *
 * With TLS what is read goes through the transport, piece by piece; a link that is paused leaves the rest there, which is INGEST_READ_SIZE
 * at most. What is to be sent is sealed when the socket can take it.
 *
 * libuv holds on to its handles and requests until it has called back. So what it knows lives in objects of their own, which lose their
 * link when the link has done with them. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "ingest/parts.h"

enum {
    CONNECT_PROPERTIES_MAX = 64,
    SENDING_MAX = MQTT_REMAINING_LENGTH_MAX + LINK_OUT_MAX,
    SEALED_MAX = SENDING_MAX + SENDING_MAX / 16 + (64 << 10) /* TLS adds 22 bytes and more to each 16 KiB, and has its handshake */
};

struct link_lookup {
    uv_getaddrinfo_t request;
    struct link *link; /* NULL: nobody waits any more */
};

struct link_socket {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    struct link *link;           /* NULL: it is being closed */
    struct transport *transport; /* TLS; NULL: none */
    bool writing;
    struct buffer sending;
};

/* ---- life ---- */

static int make_sessions(struct link *link)
{
    const struct ingest *ingest = link->ingest;
    link->sessions = calloc(ingest->broker_count, sizeof *link->sessions);
    link->session_keys = calloc(ingest->broker_count, sizeof *link->session_keys);
    link->session_lives = calloc(ingest->broker_count, sizeof *link->session_lives);
    link->contents = calloc(ingest->broker_count, sizeof *link->contents);
    if (!link->sessions || !link->session_keys || !link->session_lives || !link->contents)
        return ERR_NO_MEMORY;
    struct mqtt_session_limits limits = {
        .packet_size_max = ingest->options.packet_size_max,
        .receive_maximum = ingest->options.receive_maximum,
        .qos_max = 2,
        .retain_available = true,
    };
    for (size_t i = 0; i < ingest->broker_count; i++)
        mqtt_session_init_client(&link->sessions[i], &limits);
    return 0;
}

int broker_link_create(struct ingest *ingest, enum link_role role, const char *name, struct link **out)
{
    if (ingest->link_count == INGEST_LINKS_MAX)
        return ERR_LIMIT;
    struct link *link = calloc(1, sizeof *link);
    if (!link)
        return ERR_NO_MEMORY;
    link->ingest = ingest;
    link->role = role;
    link->index = ingest->link_count;
    snprintf(link->client_id, sizeof link->client_id, "%s-%s", ingest->group, name);
    buffer_init(&link->in, (size_t)ingest->options.packet_size_max + INGEST_READ_SIZE);
    buffer_init(&link->out, SENDING_MAX);
    int error = make_sessions(link);
    if (error) {
        broker_link_destroy(link);
        return error;
    }
    ingest->links[ingest->link_count++] = link;
    *out = link;
    return 0;
}

void broker_link_destroy(struct link *link)
{
    if (!link)
        return;
    for (size_t i = 0; link->sessions && i < link->ingest->broker_count; i++)
        mqtt_session_fini(&link->sessions[i]);
    for (size_t i = 0; link->contents && i < link->ingest->broker_count; i++)
        free(link->contents[i]);
    free(link->contents);
    free(link->sessions);
    free(link->session_keys);
    free(link->session_lives);
    buffer_fini(&link->in);
    buffer_fini(&link->out);
    free(link);
}

static void on_closed(uv_handle_t *handle)
{
    struct link_socket *socket = handle->data;
    buffer_fini(&socket->sending);
    free(socket);
}

static void drop_socket(struct link *link)
{
    if (link->lookup) {
        link->lookup->link = NULL;
        uv_cancel((uv_req_t *)&link->lookup->request);
        link->lookup = NULL;
    }
    if (link->socket) {
        link->socket->link = NULL;
        transport_destroy(link->socket->transport);
        link->socket->transport = NULL;
        uv_close((uv_handle_t *)&link->socket->tcp, on_closed);
        link->socket = NULL;
    }
}

/* Back to IDLE. Whoever calls says when it goes on. */
static void end(struct link *link)
{
    drop_socket(link);
    buffer_clear(&link->in);
    buffer_shrink(&link->in, INGEST_READ_SIZE);
    buffer_clear(&link->out);
    buffer_shrink(&link->out, INGEST_READ_SIZE);
    mqtt_session_disconnected(broker_link_session(link));
    link->state = LINK_IDLE;
    link->in_use = link->paused = false;
    link->generation++;
}

/* If the socket takes it at once. */
static void say_goodbye(struct link *link)
{
    struct buffer *out = &link->out;
    struct transport *transport = link->socket->transport;
    mqtt_disconnect_encode(out, broker_link_session(link)->version, 0);
    if (transport && transport_finish(transport, out))
        return;
    if (transport)
        out = transport_wire(transport);
    uv_buf_t part = uv_buf_init((char *)out->data, (unsigned)out->length);
    uv_try_write((uv_stream_t *)&link->socket->tcp, &part, 1);
}

void broker_link_close(struct link *link, bool goodbye)
{
    if (link->state == LINK_IDLE)
        return;
    bool was_open = link->state == LINK_OPEN, in_use = link->in_use;
    if (goodbye && was_open && link->socket && !link->socket->writing)
        say_goodbye(link);
    end(link);
    link->next_ns = link->ingest->now_ns;
    ingest_link_ended(link, was_open, in_use, false, NULL);
}

void broker_link_fail(struct link *link, bool refused, const char *format, ...)
{
    if (link->state == LINK_IDLE)
        return;
    char why[INGEST_TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    struct ingest *ingest = link->ingest;
    bool was_open = link->state == LINK_OPEN, in_use = link->in_use;
    if (was_open && ingest->now_ns - link->opened_ns > INGEST_STABLE_NS)
        link->backoff.failures = 0;
    end(link);
    link->next_ns = ingest->now_ns + backoff_next(&link->backoff, &ingest->options.backoff, &ingest->random);
    ingest_link_ended(link, was_open, in_use, refused, why);
}

/* ---- packets in ---- */

/* What a refusal means. *refused: the same will happen again. */
static const char *refusal_text(uint8_t version, uint8_t reason, bool *refused)
{
    *refused = true;
    if (version != MQTT_VERSION_5_0) {
        static const char *const texts[] = {"",
                                            "it does not speak this version of MQTT",
                                            "it refuses the client identifier",
                                            "it is not available",
                                            "user name or password are wrong",
                                            "this client is not allowed"};
        *refused = reason != 3;
        return reason < sizeof texts / sizeof texts[0] ? texts[reason] : "for a reason that MQTT does not know";
    }
    switch (reason) {
    case 0x84:
        return "it does not speak this version of MQTT";
    case 0x85:
        return "it refuses the client identifier";
    case 0x86:
        return "user name or password are wrong";
    case 0x87:
        return "this client is not allowed";
    case 0x8a:
        return "this client is banned";
    case 0x8c:
        return "it demands another way to log in";
    case 0x8e:
        return "another client uses the same client identifier; give each Spindle an ingest.instance of its own";
    default:
        *refused = false;
        return reason == 0x8b ? "it is shutting down" : reason == 0x97 ? "its quota is used up" : "it gave no reason that helps";
    }
}

static void on_connack(struct link *link, const struct mqtt_connack *connack)
{
    struct broker *broker = broker_link_broker(link);
    if (connack->reason == 0) {
        link->state = LINK_OPEN;
        link->opened_ns = link->ingest->now_ns;
        bool clean = link->clean;
        link->clean = false;
        ingest_link_opened(link);
        if (link->role == LINK_INTAKE)
            intake_connected(link, connack);
        else if (link->role == LINK_OUTFLOW)
            outflow_connected(link->outflow, connack, clean);
        return;
    }
    bool refused;
    uint8_t version = broker_link_session(link)->version;
    const char *text = refusal_text(version, connack->reason, &refused);
    if (version == MQTT_VERSION_5_0 && connack->reason == 0x84 && !link->ingest->options.version)
        broker->version = MQTT_VERSION_3_1_1;
    broker_link_fail(link, refused && broker->version == version, "it refused the connection: %s (code 0x%02x)", text, connack->reason);
}

static void on_disconnect(struct link *link, uint8_t reason)
{
    bool refused;
    const char *text = refusal_text(MQTT_VERSION_5_0, reason, &refused);
    broker_link_fail(link, refused, "it ended the connection: %s (reason 0x%02x)", text, reason);
}

static void on_error(struct link *link, int error)
{
    struct broker *broker = broker_link_broker(link);
    bool older = error == ERR_PROTOCOL_VERSION && link->state == LINK_GREETING && !link->ingest->options.version &&
                 broker->version == MQTT_VERSION_5_0;
    if (older)
        broker->version = MQTT_VERSION_3_1_1;
    if (link->state == LINK_OPEN && mqtt_session_refuse(broker_link_session(link), error, &link->out) == 0)
        broker_link_flush(link);
    broker_link_fail(link, !older && error_class(error) == ERROR_CLASS_PEER && link->state == LINK_GREETING, "%s",
                     older ? "it does not speak MQTT 5.0; 3.1.1 is tried" : error_text(error));
}

/* False: the event has to wait. */
static bool act(struct link *link, struct mqtt_event *event)
{
    switch (event->type) {
    case MQTT_EVENT_CONNACK:
        on_connack(link, &event->connack);
        return true;
    case MQTT_EVENT_DISCONNECT:
        on_disconnect(link, event->disconnect.reason);
        return true;
    case MQTT_EVENT_ERROR:
        on_error(link, event->error);
        return true;
    default:
        if (link->role == LINK_INTAKE)
            return intake_event(link, event);
        if (link->role == LINK_OUTFLOW)
            outflow_event(link->outflow, event);
        return true;
    }
}

/* Takes whole packets; returns how many bytes they were. Nothing more is to be taken when the connection has ended meanwhile. */
static size_t process(struct link *link, const uint8_t *bytes, size_t length)
{
    struct ingest *ingest = link->ingest;
    uint32_t generation = link->generation;
    size_t done = 0;
    while (!link->paused) {
        struct mqtt_event event;
        size_t consumed;
        mqtt_session_next(broker_link_session(link), bytes + done, length - done, ingest->now_ns, &consumed, &event);
        if (event.type == MQTT_EVENT_NEED_MORE)
            return done + consumed;
        if (!act(link, &event)) {
            link->paused = true;
            ingest->holding = true;
            ingest_count(&ingest->counters.pauses, !link->retried || done > 0);
            return done;
        }
        if (link->generation != generation)
            return length;
        done += consumed;
    }
    return done;
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)suggested;
    struct link_socket *socket = handle->data;
    *buffer = uv_buf_init((char *)socket->link->ingest->read_buffer, INGEST_READ_SIZE);
}

static void take(struct link *link, const uint8_t *bytes, size_t length)
{
    uint32_t generation = link->generation;
    size_t done = 0;
    if (link->in.length == 0)
        done = process(link, bytes, length);
    if (link->generation != generation)
        return;
    if (buffer_append(&link->in, bytes + done, length - done)) {
        broker_link_fail(link, false, "there is no memory for a packet of it");
        return;
    }
    if (done == 0 && link->in.length > 0 && !link->paused) {
        done = process(link, link->in.data, link->in.length);
        if (link->generation != generation)
            return;
        buffer_consume(&link->in, done);
    }
    if (link->in.length == 0)
        buffer_shrink(&link->in, INGEST_READ_SIZE);
}

/* ---- TLS ---- */

static void greet(struct link *link);

/* What TLS still has to say, an alert for example, if the socket takes it at once; then the end. */
static void fail_transport(struct link *link, int error)
{
    struct link_socket *socket = link->socket;
    struct buffer *wire = transport_wire(socket->transport);
    char why[TLS_TEXT_MAX];
    if (error == ERR_CLOSED) {
        broker_link_fail(link, false, "it closed the connection");
        return;
    }
    uv_buf_t part = uv_buf_init((char *)wire->data, (unsigned)wire->length);
    if (!socket->writing && wire->length)
        uv_try_write((uv_stream_t *)&socket->tcp, &part, 1);
    bool ours = error == ERR_NO_MEMORY || error == ERR_LIMIT;
    snprintf(why, sizeof why, "%s", ours ? error_text(error) : transport_why(socket->transport));
    ingest_count(&broker_link_broker(link)->tls_failures, 1);
    broker_link_fail(link, error == ERR_PERMISSION, "%s%s", link->state == LINK_SECURING ? "the TLS handshake failed: " : "TLS: ", why);
}

/* Takes what TLS makes of what has arrived, as long as the link may. */
static void pump(struct link *link)
{
    struct ingest *ingest = link->ingest;
    struct transport *transport = link->socket->transport;
    uint32_t generation = link->generation;
    ptrdiff_t count = 1;
    while (count > 0 && !link->paused) {
        count = transport_read(transport, ingest->plain_buffer, INGEST_READ_SIZE);
        if (count >= 0 && link->state == LINK_SECURING && transport_is_established(transport))
            greet(link);
        if (count > 0 && link->generation == generation)
            take(link, ingest->plain_buffer, (size_t)count);
        if (link->generation != generation)
            return;
    }
    if (count >= 0 && link->paused && transport_hold(transport))
        count = ERR_NO_MEMORY;
    if (count < 0)
        fail_transport(link, (int)count);
    else if (transport_has_answer(transport))
        broker_link_mark_dirty(link);
}

static void secure(struct link *link)
{
    const struct broker *broker = broker_link_broker(link);
    struct transport_options options = {.tls = link->ingest->tls, .host = broker->options.host, .wire_max = SEALED_MAX};
    link->state = LINK_SECURING;
    if (transport_create(&link->socket->transport, &options)) {
        broker_link_fail(link, false, "%s", error_text(ERR_NO_MEMORY));
        return;
    }
    link->socket->sending.limit = SEALED_MAX; /* they are exchanged */
    pump(link);                               /* which begins */
}

/* ---- the socket ---- */

static void on_read_error(struct link *link, int error)
{
    const char *when = "";
    if (link->state == LINK_SECURING) {
        ingest_count(&broker_link_broker(link)->tls_failures, 1);
        when = " in the middle of the TLS handshake; does it speak TLS on this port?";
    } else if (link->state == LINK_GREETING && error == UV_EOF) {
        when = " instead of answering CONNECT";
    }
    broker_link_fail(link, false, "%s%s", error == UV_EOF ? "it closed the connection" : uv_strerror(error), when);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct link_socket *socket = stream->data;
    struct link *link = socket->link;
    if (!link || count == 0)
        return;
    link->ingest->now_ns = uv_now(&link->ingest->uv) * 1000000u;
    if (count < 0) {
        on_read_error(link, (int)count);
        return;
    }
    ingest_count(&link->ingest->counters.bytes_received, (uint64_t)count);
    if (socket->transport) {
        transport_feed(socket->transport, (const uint8_t *)buffer->base, (size_t)count);
        pump(link);
    } else {
        take(link, (const uint8_t *)buffer->base, (size_t)count);
    }
    if (link->paused && link->socket)
        uv_read_stop((uv_stream_t *)&link->socket->tcp);
}

void broker_link_resume(struct link *link)
{
    if (!link->paused || link->ingest->quiet)
        return;
    uint32_t generation = link->generation;
    link->paused = false;
    mqtt_session_heard(broker_link_session(link), link->ingest->now_ns);
    link->retried = true;
    size_t done = process(link, link->in.data, link->in.length);
    link->retried = false;
    if (link->generation != generation)
        return;
    buffer_consume(&link->in, done);
    if (!link->paused && link->socket && link->socket->transport)
        pump(link);
    if (link->generation == generation && !link->paused && link->socket)
        uv_read_start((uv_stream_t *)&link->socket->tcp, on_allocate, on_read);
}

/* ---- packets out ---- */

void broker_link_mark_dirty(struct link *link)
{
    link->dirty = true;
}

static void on_written(uv_write_t *request, int status)
{
    struct link_socket *socket = request->data;
    socket->writing = false;
    buffer_clear(&socket->sending);
    buffer_shrink(&socket->sending, INGEST_READ_SIZE);
    struct link *link = socket->link;
    if (!link)
        return;
    if (status < 0)
        broker_link_fail(link, false, "%s", uv_strerror(status));
    else if (link->out.length || (socket->transport && transport_has_answer(socket->transport)))
        broker_link_mark_dirty(link);
}

void broker_link_flush(struct link *link)
{
    struct link_socket *socket = link->socket;
    link->dirty = false;
    struct buffer *out = &link->out;
    if (!socket || socket->writing || link->state < LINK_SECURING)
        return;
    if (out->length)
        mqtt_session_sent(broker_link_session(link), link->ingest->now_ns);
    if (socket->transport) {
        if (transport_seal(socket->transport, out)) {
            broker_link_fail(link, false, "%s", error_text(ERR_NO_MEMORY));
            return;
        }
        buffer_shrink(out, LINK_OUT_MAX);
        out = transport_wire(socket->transport);
    }
    if (out->length == 0)
        return;
    ingest_count(&link->ingest->counters.bytes_sent, out->length);
    uv_buf_t part = uv_buf_init((char *)out->data, (unsigned)out->length);
    int written = uv_try_write((uv_stream_t *)&socket->tcp, &part, 1);
    if (written < 0 && written != UV_EAGAIN) {
        broker_link_fail(link, false, "%s", uv_strerror(written));
        return;
    }
    size_t done = written > 0 ? (size_t)written : 0;
    if (done == out->length) {
        buffer_clear(out);
        buffer_shrink(out, LINK_OUT_MAX);
        return;
    }
    struct buffer rest = *out;
    *out = socket->sending;
    socket->sending = rest;
    buffer_consume(&socket->sending, done);
    part = uv_buf_init((char *)socket->sending.data, (unsigned)socket->sending.length);
    socket->write.data = socket;
    socket->writing = uv_write(&socket->write, (uv_stream_t *)&socket->tcp, &part, 1, on_written) == 0;
    if (!socket->writing)
        broker_link_fail(link, false, "nothing can be written to it");
}

/* ---- connecting ---- */

static void greet(struct link *link)
{
    const struct ingest_options *options = &link->ingest->options;
    const struct broker *broker = broker_link_broker(link);
    bool keeps = link->role != LINK_PROBE && !(link->clean && broker->version != MQTT_VERSION_5_0);
    struct mqtt_connect connect = {
        .version = broker->version,
        .clean_start = !keeps || link->clean,
        .keep_alive_s = options->keep_alive_s,
        .client_id = {(const uint8_t *)link->client_id, (uint32_t)strlen(link->client_id)},
        .has_username = broker->options.username[0],
        .has_password = broker->options.username[0] && broker->options.password[0],
        .username = {(const uint8_t *)broker->options.username, (uint32_t)strlen(broker->options.username)},
        .password = {(const uint8_t *)broker->options.password, (uint32_t)strlen(broker->options.password)},
    };
    struct buffer properties;
    buffer_init(&properties, CONNECT_PROPERTIES_MAX);
    int error = 0;
    if (connect.version == MQTT_VERSION_5_0 && keeps)
        error = mqtt_property_u32(&properties, MQTT_PROPERTY_SESSION_EXPIRY, options->session_expiry_s);
    connect.properties.raw = (struct mqtt_slice){properties.data, (uint32_t)properties.length};
    if (!error)
        error = mqtt_session_connect(broker_link_session(link), &connect, link->ingest->now_ns, &link->out);
    buffer_fini(&properties);
    link->state = LINK_GREETING;
    if (error)
        broker_link_fail(link, false, "%s", error_text(error));
    else
        broker_link_flush(link);
}

static void try_address(struct link *link);

static void on_connect(uv_connect_t *request, int status)
{
    struct link_socket *socket = request->data;
    struct link *link = socket->link;
    if (!link)
        return;
    link->ingest->now_ns = uv_now(&link->ingest->uv) * 1000000u;
    if (status < 0 && ++link->address_at < link->address_count) {
        drop_socket(link);
        try_address(link);
        return;
    }
    if (status < 0) {
        broker_link_fail(link, false, "%s", uv_strerror(status));
        return;
    }
    uv_tcp_nodelay(&socket->tcp, 1);
    uv_read_start((uv_stream_t *)&socket->tcp, on_allocate, on_read);
    if (broker_link_broker(link)->options.tls)
        secure(link);
    else
        greet(link);
}

static void try_address(struct link *link)
{
    struct link_socket *socket = calloc(1, sizeof *socket);
    if (!socket || uv_tcp_init(&link->ingest->uv, &socket->tcp)) {
        free(socket);
        broker_link_fail(link, false, "%s", error_text(ERR_NO_MEMORY));
        return;
    }
    buffer_init(&socket->sending, SENDING_MAX);
    socket->link = link;
    socket->tcp.data = socket->connect.data = socket;
    link->socket = socket;
    link->state = LINK_CONNECTING;
    const struct sockaddr *address = (const struct sockaddr *)&link->addresses[link->address_at];
    int status = uv_tcp_connect(&socket->connect, &socket->tcp, address, on_connect);
    if (status)
        broker_link_fail(link, false, "%s", uv_strerror(status));
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct link_lookup *lookup = (struct link_lookup *)request->data;
    struct link *link = lookup->link;
    free(lookup);
    if (link) {
        link->ingest->now_ns = uv_now(&link->ingest->uv) * 1000000u;
        link->lookup = NULL;
        link->address_count = link->address_at = 0;
        for (const struct addrinfo *each = found; each && link->address_count < LINK_ADDRESSES_MAX; each = each->ai_next)
            if (each->ai_addrlen <= sizeof link->addresses[0])
                memcpy(&link->addresses[link->address_count++], each->ai_addr, each->ai_addrlen);
        if (status || link->address_count == 0)
            broker_link_fail(link, false, "its name cannot be resolved: %s", status ? uv_strerror(status) : "it has no address");
        else
            try_address(link);
    }
    uv_freeaddrinfo(found);
}

void broker_link_open(struct link *link)
{
    struct ingest *ingest = link->ingest;
    const struct broker *broker = broker_link_broker(link);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    char port[8];
    snprintf(port, sizeof port, "%u", broker->options.port);
    link->state = LINK_RESOLVING;
    link->next_ns = ingest->now_ns + ingest->options.connect_timeout_ns;
    struct link_lookup *lookup = calloc(1, sizeof *lookup);
    if (!lookup) {
        broker_link_fail(link, false, "%s", error_text(ERR_NO_MEMORY));
        return;
    }
    lookup->link = link;
    lookup->request.data = lookup;
    int status = uv_getaddrinfo(&ingest->uv, &lookup->request, on_resolved, broker->options.host, port, &hints);
    if (status) {
        free(lookup);
        broker_link_fail(link, false, "its name cannot be resolved: %s", uv_strerror(status));
        return;
    }
    link->lookup = lookup;
}

/* ---- time ---- */

/* A link that is not read from cannot hear an answer; it goes on pinging all the same. */
static uint64_t next_ping_ns(struct link *link)
{
    const struct mqtt_session *session = broker_link_session(link);
    if (link->paused && session->ping_sent_ns)
        return session->ping_sent_ns + session->keep_alive_s * UINT64_C(750000000);
    return mqtt_session_ping_due_ns(session);
}

uint64_t broker_link_check(struct link *link)
{
    struct ingest *ingest = link->ingest;
    if (link->state == LINK_IDLE)
        return link->next_ns;
    if (link->state != LINK_OPEN) {
        if (ingest->now_ns < link->next_ns)
            return link->next_ns;
        if (link->state == LINK_SECURING)
            ingest_count(&broker_link_broker(link)->tls_failures, 1);
        broker_link_fail(link, false, "%s",
                         link->state == LINK_GREETING    ? "it did not answer CONNECT in time"
                         : link->state == LINK_SECURING  ? "it did not finish the TLS handshake in time; does it speak TLS on this port?"
                         : link->state == LINK_RESOLVING ? "its name was not resolved in time"
                                                         : "it did not accept the connection in time");
        return link->next_ns;
    }
    struct mqtt_session *session = broker_link_session(link);
    uint64_t deadline_ns = link->paused ? UINT64_MAX : mqtt_session_deadline_ns(session);
    if (ingest->now_ns >= deadline_ns) {
        broker_link_fail(link, false, "it did not answer for %u s", session->keep_alive_s);
        return link->next_ns;
    }
    if (ingest->now_ns >= next_ping_ns(link)) {
        mqtt_session_ping(session, ingest->now_ns, &link->out);
        broker_link_mark_dirty(link);
        deadline_ns = link->paused ? UINT64_MAX : mqtt_session_deadline_ns(session);
    }
    uint64_t ping_ns = next_ping_ns(link);
    return ping_ns < deadline_ns ? ping_ns : deadline_ns;
}
