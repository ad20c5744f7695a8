/* What lies between the bytes of a socket and those of the protocol above: TLS, WebSocket, or WebSocket within TLS. It knows neither
 * sockets nor MQTT: bytes in, bytes out.
 *
 * A reader gives it what has arrived (transport_feed) and takes what it means in as many pieces as it likes (transport_read). When it must
 * stop between two pieces the rest is kept (transport_hold). A client of TLS begins by reading what has not arrived yet. */
#ifndef TRANSPORT_TRANSPORT_H
#define TRANSPORT_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "transport/tls.h"

enum { TRANSPORT_ANSWERS_MAX = 64 << 10 }; /* bytes that TLS itself has to send to a peer that does not take them */

struct transport_options {
    struct tls_context *tls;    /* borrowed during transport_create; NULL: without */
    const char *host;           /* whom a client of TLS wants to reach; borrowed during transport_create; NULL: it is a server's */
    const char *websocket_path; /* borrowed until transport_destroy; NULL: without */
    uint64_t payload_max;       /* bytes of a WebSocket frame of the peer's */
    size_t wire_max;            /* bytes to send */
};

struct transport;

int transport_create(struct transport **transport, const struct transport_options *options); /* 0 or ERR_NO_MEMORY */
void transport_destroy(struct transport *transport);                                         /* accepts NULL */

/* `bytes` have arrived; borrowed until they are read or held. Everything that was fed before must have been read. */
void transport_feed(struct transport *transport, const uint8_t *bytes, size_t length);

/* Writes at most `size` bytes of what was fed to `out`. Returns how many; 0: it needs more; or an error, when it is over:
 *   ERR_CLOSED      the peer has closed in order
 *   ERR_PERMISSION  a certificate is refused, or a client's server does not speak TLS
 *   ERR_PROTOCOL    the peer broke the rules of TLS or WebSocket
 *   ERR_LIMIT       TRANSPORT_ANSWERS_MAX
 *   ERR_NO_MEMORY */
ptrdiff_t transport_read(struct transport *transport, uint8_t *out, size_t size);

/* Keeps what was fed and not read. 0 or ERR_NO_MEMORY. */
int transport_hold(struct transport *transport);

/* Whether TLS, if there is any, is established. */
bool transport_is_private(const struct transport *transport);

/* Whether all handshakes are done. Nothing may be sent before. */
bool transport_is_established(const struct transport *transport);

/* Whether it has something to send by itself. */
bool transport_has_answer(const struct transport *transport);

/* Turns everything in `out` into what is to be sent, behind its own answers, and empties it; what cannot be sent any more is left out.
 * Before it is established there must be nothing in `out`. 0, ERR_LIMIT or ERR_NO_MEMORY: the connection is of no use any more. */
int transport_seal(struct transport *transport, struct buffer *out);

/* The same, and the goodbye behind it. */
int transport_finish(struct transport *transport, struct buffer *out);

/* What is to be sent. Its owner may exchange it for another buffer, of the same limit. */
struct buffer *transport_wire(struct transport *transport);

const char *transport_user(const struct transport *transport);   /* of the client's certificate; NULL: none. Lives as long as it does */
const char *transport_secure(const struct transport *transport); /* "TLSv1.3"; NULL: not encrypted. Static */
const char *transport_why(const struct transport *transport);    /* what went wrong, after an error */

#endif
