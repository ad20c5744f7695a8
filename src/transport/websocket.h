/* WebSocket, the server's side (RFC 6455, MQTT 5.0 section 6): the upgrade, then frames, between the bytes of a stream and those of MQTT.
 * Pure: bytes in, bytes out.
 *
 * MQTT takes the payloads of binary messages as one stream; packets need not be aligned with frames or messages. So payloads are unmasked
 * on their way from where they arrived to where they are read, and nothing is gathered but heads of frames and the content of control
 * frames. (wslay, the library for frames, copies through 4 KiB of its own and unmasks byte by byte, which costs large messages more than
 * TLS.) */
#ifndef TRANSPORT_WEBSOCKET_H
#define TRANSPORT_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "transport/upgrade.h"

enum {
    WEBSOCKET_CONTROL_MAX = 125,   /* bytes of a ping, pong or close */
    WEBSOCKET_HEAD_MAX = 14,       /* of a frame of a client */
    WEBSOCKET_SEND_MAX = 64 << 10, /* bytes of a frame that we send: some clients take no larger ones */
    WEBSOCKET_TEXT_MAX = 160
};

enum websocket_code {
    WEBSOCKET_NORMAL = 1000,
    WEBSOCKET_PROTOCOL_ERROR = 1002,
    WEBSOCKET_UNSUPPORTED = 1003,
    WEBSOCKET_NO_CODE = 1005, /* a close without one; never sent */
    WEBSOCKET_NOT_UTF8 = 1007,
    WEBSOCKET_TOO_LARGE = 1009
};

enum websocket_state { WEBSOCKET_UPGRADING, WEBSOCKET_OPEN, WEBSOCKET_CLOSED };

struct websocket {
    enum websocket_state state;
    int error;            /* CLOSED: what every further websocket_read returns */
    const char *path;     /* borrowed */
    uint64_t payload_max; /* bytes of a frame of the peer's */
    uint16_t code;        /* CLOSED: what is, or was, to be sent with the close */
    const char *why;      /* what was wrong, for diagnostics; NULL: nothing. Static */
    struct buffer request;
    size_t searched;
    struct buffer answer; /* to the upgrade */
    bool in_message;      /* the next data frame continues it */
    bool finished;        /* the close was sent */
    uint8_t opcode;       /* of the frame that is being read */
    uint8_t head[WEBSOCKET_HEAD_MAX];
    unsigned head_length;
    uint8_t mask[4];
    unsigned mask_at;
    uint64_t left; /* bytes of its payload that have not arrived */
    uint8_t control[WEBSOCKET_CONTROL_MAX];
    unsigned control_length;
    uint8_t pong[WEBSOCKET_CONTROL_MAX]; /* of pings that come faster than they can be answered the last one is (section 5.5.3) */
    unsigned pong_length;
    bool has_pong;
};

/* `path` is where the WebSocket is, "/mqtt" for example; borrowed. */
void websocket_init(struct websocket *websocket, const char *path, uint64_t payload_max);
void websocket_fini(struct websocket *websocket);

/* Takes all of `bytes` and writes what of them is MQTT to `out`, which holds `length` bytes and may be `bytes` itself. Returns how many,
 * or, when nothing was written and it has ended, an error: ERR_CLOSED     the peer has closed ERR_PROTOCOL   it broke a rule, or the
 * upgrade was refused ERR_NO_MEMORY What it makes necessary to send waits for websocket_answer. */
ptrdiff_t websocket_read(struct websocket *websocket, const uint8_t *bytes, size_t length, uint8_t *out);

/* Whether there is something for websocket_answer. */
bool websocket_has_answer(const struct websocket *websocket);

/* Appends the answer to the upgrade, and to a ping. 0, ERR_LIMIT or ERR_NO_MEMORY. */
int websocket_answer(struct websocket *websocket, struct buffer *out);

/* Appends `length` bytes as binary messages. Only when it is open. 0, ERR_LIMIT or ERR_NO_MEMORY. */
int websocket_write(const uint8_t *bytes, size_t length, struct buffer *out);

/* Appends the close, once; nothing before the upgrade. 0, ERR_LIMIT or ERR_NO_MEMORY. */
int websocket_finish(struct websocket *websocket, struct buffer *out);

#endif
