#include "transport/transport.h"

#include <stdlib.h>

#include "base/error.h"
#include "transport/websocket.h"

struct transport {
    struct tls_stream *tls;      /* NULL: without */
    struct websocket *websocket; /* NULL: without */
    const uint8_t *fed;
    size_t fed_length;
    struct buffer held; /* behind `fed` after transport_hold */
    struct buffer wire;
    bool finished;
};

int transport_create(struct transport **out, const struct transport_options *options)
{
    struct transport *transport = calloc(1, sizeof *transport);
    if (!transport)
        return ERR_NO_MEMORY;
    buffer_init(&transport->held, SIZE_MAX / 2);
    buffer_init(&transport->wire, options->wire_max);
    int error = options->tls ? tls_stream_create(&transport->tls, options->tls, options->host) : 0;
    if (!error && options->websocket_path) {
        transport->websocket = malloc(sizeof *transport->websocket);
        error = transport->websocket ? 0 : ERR_NO_MEMORY;
        if (!error)
            websocket_init(transport->websocket, options->websocket_path, options->payload_max);
    }
    if (error)
        transport_destroy(transport);
    else
        *out = transport;
    return error;
}

void transport_destroy(struct transport *transport)
{
    if (!transport)
        return;
    tls_stream_destroy(transport->tls);
    if (transport->websocket)
        websocket_fini(transport->websocket);
    free(transport->websocket);
    buffer_fini(&transport->held);
    buffer_fini(&transport->wire);
    free(transport);
}

/* ---- in ---- */

void transport_feed(struct transport *transport, const uint8_t *bytes, size_t length)
{
    transport->fed = bytes;
    transport->fed_length = length;
}

/* Takes bytes without TLS, which are then `out` or lie in what was fed. *bytes gets where. */
static ptrdiff_t read_below(struct transport *transport, uint8_t *out, size_t size, const uint8_t **bytes)
{
    if (transport->tls) {
        *bytes = out;
        return tls_stream_read(transport->tls, &transport->fed, &transport->fed_length, out, size, &transport->wire);
    }
    size_t count = transport->fed_length < size ? transport->fed_length : size;
    *bytes = transport->fed;
    transport->fed += count;
    transport->fed_length -= count;
    return (ptrdiff_t)count;
}

ptrdiff_t transport_read(struct transport *transport, uint8_t *out, size_t size)
{
    ptrdiff_t count;
    bool more;
    do {
        const uint8_t *bytes;
        count = read_below(transport, out, size, &bytes);
        if (transport->wire.length > TRANSPORT_ANSWERS_MAX)
            return ERR_LIMIT;
        more = count > 0;
        if (count >= 0 && transport->websocket)
            count = websocket_read(transport->websocket, bytes, (size_t)count, out);
    } while (more && count == 0); /* nothing but heads of frames, so far */
    if (count <= 0 && transport->held.length) {
        buffer_fini(&transport->held);
        transport_feed(transport, NULL, 0);
    }
    return count;
}

int transport_hold(struct transport *transport)
{
    if (transport->fed_length == 0 || transport->held.length)
        return 0; /* what is held stays where it is */
    int error = buffer_append(&transport->held, transport->fed, transport->fed_length);
    if (!error)
        transport_feed(transport, transport->held.data, transport->held.length);
    return error;
}

/* ---- out ---- */

bool transport_is_private(const struct transport *transport)
{
    return !transport->tls || tls_stream_is_established(transport->tls);
}

bool transport_is_established(const struct transport *transport)
{
    return transport_is_private(transport) && (!transport->websocket || transport->websocket->state != WEBSOCKET_UPGRADING);
}

bool transport_has_answer(const struct transport *transport)
{
    return transport->wire.length || (transport->websocket && websocket_has_answer(transport->websocket));
}

/* Appends what WebSocket makes of `out`, with its own answers, to `to`. */
static int seal_websocket(struct transport *transport, struct buffer *out, bool finish, struct buffer *to)
{
    struct websocket *websocket = transport->websocket;
    int error = websocket_answer(websocket, to);
    if (!error && websocket->state == WEBSOCKET_OPEN)
        error = websocket_write(out->data, out->length, to);
    if (!error && finish)
        error = websocket_finish(websocket, to);
    if (websocket->state != WEBSOCKET_UPGRADING)
        buffer_clear(out);
    return error;
}

static int seal(struct transport *transport, struct buffer *out, bool finish)
{
    if (!transport->tls)
        return seal_websocket(transport, out, finish, &transport->wire);
    if (!tls_stream_is_established(transport->tls))
        return 0;
    struct buffer framed;
    buffer_init(&framed, transport->wire.limit);
    int error = transport->websocket ? seal_websocket(transport, out, finish, &framed) : 0;
    struct buffer *plain = transport->websocket ? &framed : out;
    if (!error)
        error = tls_stream_write(transport->tls, plain->data, plain->length, &transport->wire);
    buffer_clear(plain);
    buffer_fini(&framed);
    if (finish)
        tls_stream_finish(transport->tls, &transport->wire);
    return error == ERR_CLOSED ? 0 : error; /* what it had to say before it failed is still sent */
}

int transport_seal(struct transport *transport, struct buffer *out)
{
    if (!transport->finished)
        return seal(transport, out, false);
    buffer_clear(out); /* nothing may follow the goodbye */
    return 0;
}

int transport_finish(struct transport *transport, struct buffer *out)
{
    if (transport->finished)
        return 0;
    transport->finished = true;
    return seal(transport, out, true);
}

struct buffer *transport_wire(struct transport *transport)
{
    return &transport->wire;
}

/* ---- what is known of it ---- */

const char *transport_user(const struct transport *transport)
{
    return transport->tls ? tls_stream_user(transport->tls) : NULL;
}

const char *transport_secure(const struct transport *transport)
{
    return transport->tls ? tls_stream_version(transport->tls) : NULL;
}

const char *transport_why(const struct transport *transport)
{
    if (transport->websocket && transport->websocket->why)
        return transport->websocket->why;
    return transport->tls && *tls_stream_why(transport->tls) ? tls_stream_why(transport->tls) : "it cannot be gone on with";
}
