/* The HTTP request with which a WebSocket connection begins (RFC 6455 section 4, MQTT 5.0 section 6): read strictly, and answered. Pure.
 *
 * Nothing of HTTP is understood beyond this one request: no body, no folded lines, no line ends but CR LF. */
#ifndef TRANSPORT_UPGRADE_H
#define TRANSPORT_UPGRADE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

enum {
    UPGRADE_SIZE_MAX = 8192, /* bytes of the request, with its empty line */
    UPGRADE_HEADERS_MAX = 64,
    UPGRADE_ANSWER_MAX = 512, /* bytes of an answer */
    UPGRADE_KEY_LENGTH = 24,
    UPGRADE_ACCEPT_SIZE = 29 /* bytes of Sec-WebSocket-Accept, with its zero */
};

struct upgrade {
    unsigned status;     /* of the answer: 101, or why it is refused: 400, 404, 405, 426, 431, 505 */
    const char *refusal; /* NULL for 101; otherwise what was wrong, for the peer and for diagnostics; static */
    size_t length;       /* bytes of the request; what stands behind them belongs to frames */
    char key[UPGRADE_KEY_LENGTH + 1];
};

/* Reads a request for `path` and the subprotocol "mqtt". Call again with more when it returns ERR_TRUNCATED: its end has not arrived.
 * Returns 0 for a request to accept, ERR_PROTOCOL for one to refuse. *searched is 0 at first, and keeps how much needs no second look. */
int upgrade_read(const uint8_t *bytes, size_t length, const char *path, size_t *searched, struct upgrade *upgrade);

/* Appends the answer to what was read. 0, ERR_LIMIT or ERR_NO_MEMORY. */
int upgrade_answer(const struct upgrade *upgrade, struct buffer *out);

/* The value of Sec-WebSocket-Accept for a key. */
void upgrade_accept(const char *key, char accept[UPGRADE_ACCEPT_SIZE]);

#endif
