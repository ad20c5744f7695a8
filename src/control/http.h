/* The HTTP server: /metrics, /healthz, /readyz, /api/v1/status and a page for people.
 *
 * One thread of its own serves all connections. It answers GET and HEAD, takes no request body, and states what it says from the
 * registries of base/metrics.h and base/probes.h. */
#ifndef CONTROL_HTTP_H
#define CONTROL_HTTP_H

#include <stdint.h>

enum {
    HTTP_CONNECTIONS_MAX = 128,        /* more wait in the kernel until one is closed */
    HTTP_CONNECTIONS_KEPT = 112,       /* beyond these, the one that has waited longest for a whole request is closed for each new one */
    HTTP_REQUEST_BYTES_MAX = 16 << 10, /* request line and headers of one connection; larger ones are refused with 431 or 414 */
    HTTP_IDLE_TIMEOUT_S = 10,          /* a connection that says nothing for so long is closed */
    HTTP_WHY_MAX = 256
};

struct http_options {
    const char *host;    /* name or address to listen on, a name's IPv4 address first; "" or NULL: 0.0.0.0 */
    uint16_t port;       /* 0: a free one */
    const char *version; /* of the program; borrowed until http_stop */
};

struct http;

/* Listens and serves. Returns 0, or an error with a sentence for the operator in `why`: ERR_BUSY (the port is in use), ERR_INVALID
 * (host unknown), ERR_NO_MEMORY, ERR_LIMIT or ERR_IO. */
int http_start(struct http **http, const struct http_options *options, char why[HTTP_WHY_MAX]);

/* The port it listens on. */
uint16_t http_port(const struct http *http);

/* Closes every connection and ends the thread. Accepts NULL. */
void http_stop(struct http *http);

#endif
