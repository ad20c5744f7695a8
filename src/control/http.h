/* The HTTP server: /metrics, /healthz, /readyz, /api/v1/status and a page for people.
 *
 * One thread of its own serves all connections. It answers GET and HEAD, and states what it says from the registries of base/metrics.h and
 * base/probes.h. Further paths are routes of its owner, which may also change things: requests with POST get there only from where
 * `changes` lets them come from, with a body of type application/json, and not from a page of another site. */
#ifndef CONTROL_HTTP_H
#define CONTROL_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HTTP_CONNECTIONS_MAX = 128,        /* more wait in the kernel until one is closed */
    HTTP_CONNECTIONS_KEPT = 112,       /* beyond these, the one that has waited longest for a whole request is closed for each new one */
    HTTP_REQUEST_BYTES_MAX = 16 << 10, /* request line and headers of one connection; larger ones are refused with 431 or 414 */
    HTTP_BODY_BYTES_MAX = 64 << 10,    /* of a POST; larger ones are refused with 413 */
    HTTP_IDLE_TIMEOUT_S = 10,          /* a connection that says nothing for so long is closed */
    HTTP_WHY_MAX = 256
};

enum http_changes { HTTP_CHANGES_LOOPBACK, HTTP_CHANGES_ALL, HTTP_CHANGES_NONE }; /* who may change things */

struct http_request {
    const char *element; /* what stands in the place of the route's "{...}", decoded; NULL when it has none */
    const char *body;    /* [body_length], of a POST */
    size_t body_length;
    const void *connection;
};

/* A parameter of the query; NULL when it is not there. Borrowed for the call of the handler. */
const char *http_query(const struct http_request *request, const char *name);

struct page;

/* Fills the page; its body is ready for use. Runs on the server's thread: while it does, nobody else is answered. */
typedef void (*http_handler)(void *context, const struct http_request *request, struct page *page);

struct http_route {
    const char *path;              /* whole; "{...}" as its last element stands for any one element. The first that fits counts */
    bool changes;                  /* it is answered to POST, from where that is allowed; otherwise to GET and HEAD */
    const char *const *parameters; /* of the query, ended by NULL; others are refused. NULL: none */
    http_handler answer;
    void *context;
};

struct http_options {
    const char *host;    /* name or address to listen on, a name's IPv4 address first; "" or NULL: 0.0.0.0 */
    uint16_t port;       /* 0: a free one */
    const char *version; /* of the program; borrowed until http_stop */
    enum http_changes changes;
    const struct http_route *routes; /* [route_count], borrowed until http_stop */
    unsigned route_count;
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
