/* The listening socket is opened here rather than by the library, so that a port in use is told apart from every other failure.
 * What is answered is made in pages.c; this file is about connections. */
#include "control/http.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "base/metrics.h"
#include "base/process.h"
#include "control/overview.h"
#include "control/pages.h"

enum { HTTP_LISTEN_BACKLOG = 128 };

struct place {         /* of a connection */
    int fd;            /* -1: free */
    bool leaving;      /* it was shut down, and will be closed */
    uint64_t since_ns; /* monotonic time of its last whole request, or of its beginning */
};

struct http {
    struct MHD_Daemon *daemon;
    struct place places[HTTP_CONNECTIONS_MAX]; /* the daemon's thread alone uses them */
    const char *version;
    uint64_t start_ns; /* monotonic */
    uint16_t port;
    struct overview_marks marks; /* the daemon's thread alone uses them */
};

/* ---- connections ---- */

/* Requests that were begun and never finished would otherwise hold every place until their time is up, and nobody else would be
 * answered. */
static void make_room(struct http *http)
{
    struct place *oldest = NULL;
    unsigned kept = 0;
    for (unsigned i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
        struct place *place = &http->places[i];
        if (place->fd < 0 || place->leaving)
            continue;
        kept++;
        if (!oldest || place->since_ns < oldest->since_ns)
            oldest = place;
    }
    if (kept <= HTTP_CONNECTIONS_KEPT)
        return;
    oldest->leaving = true;
    shutdown(oldest->fd, SHUT_RDWR);
    DIAG_LIMITED(DIAGNOSTICS_WARNING, "control", "http: more than %d connections; the one that has waited longest for a request was closed",
                 HTTP_CONNECTIONS_KEPT);
}

static void on_connection(void *owner, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode what)
{
    struct http *http = owner;
    struct place *place = *context;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (place)
            place->fd = -1;
        return;
    }
    for (unsigned i = 0; i < HTTP_CONNECTIONS_MAX && !place; i++)
        if (http->places[i].fd < 0)
            place = &http->places[i];
    if (!place)
        return;
    *place = (struct place){.fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
                            .since_ns = clock_monotonic_ns()};
    *context = place;
    make_room(http);
}

static void note_request(struct MHD_Connection *connection)
{
    struct place *place = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    if (place)
        place->since_ns = clock_monotonic_ns();
}

/* ---- answering ---- */

static int add_headers(struct MHD_Response *response, const struct page *page, bool close_connection)
{
    bool good = MHD_add_response_header(response, "Content-Type", page->content_type) == MHD_YES;
    good = good && MHD_add_response_header(response, "Cache-Control", "no-store") == MHD_YES;
    good = good && MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") == MHD_YES;
    good = good && MHD_add_response_header(response, "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'") == MHD_YES;
    if (page->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        good = good && MHD_add_response_header(response, "Allow", "GET, HEAD") == MHD_YES;
    if (close_connection)
        good = good && MHD_add_response_header(response, "Connection", "close") == MHD_YES;
    return good ? 0 : ERR_NO_MEMORY;
}

/* Hands the page over to the library, which frees its body. MHD_NO closes the connection without an answer. */
static enum MHD_Result send_page(struct MHD_Connection *connection, struct page *page, bool close_connection)
{
    bool empty = page->body.data == NULL;
    struct MHD_Response *response = MHD_create_response_from_buffer(page->body.length, empty ? (void *)"" : (void *)page->body.data,
                                                                    empty ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);
    if (!response) {
        buffer_fini(&page->body);
        return MHD_NO;
    }
    enum MHD_Result result = MHD_NO;
    if (add_headers(response, page, close_connection) == 0)
        result = MHD_queue_response(connection, (unsigned)page->status, response);
    MHD_destroy_response(response);
    return result;
}

static bool has_body(struct MHD_Connection *connection)
{
    const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
    return (length && strcmp(length, "0") != 0) || MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Transfer-Encoding");
}

/* Called once when the headers are there, and again when the request is complete. Requests that are refused are answered at
 * the first call, before anything of their body is read, and their connection is closed. */
static enum MHD_Result on_request(void *owner, struct MHD_Connection *connection, const char *path, const char *method, const char *version,
                                  const char *upload, size_t *upload_size, void **seen)
{
    (void)version;
    (void)upload;
    (void)upload_size;
    struct http *http = owner;
    struct page page = {0};
    note_request(connection);
    buffer_init(&page.body, PAGE_BYTES_MAX);
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        page_render_error(&page, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD are answered here");
        return send_page(connection, &page, true);
    }
    if (has_body(connection)) {
        page_render_error(&page, MHD_HTTP_CONTENT_TOO_LARGE, "requests with a body are not answered here");
        return send_page(connection, &page, true);
    }
    if (!*seen) {
        *seen = http;
        return MHD_YES;
    }
    uint64_t now_ns = clock_monotonic_ns();
    struct page_facts facts = {
        .version = http->version, .uptime_s = (double)(now_ns - http->start_ns) / 1e9, .now_ns = now_ns, .marks = &http->marks};
    page_render(&page, path, &facts);
    return send_page(connection, &page, false);
}

static void on_library_message(void *owner, const char *format, va_list arguments)
{
    (void)owner;
    char text[256];
    vsnprintf(text, sizeof text, format, arguments);
    text[strcspn(text, "\n")] = 0;
    DIAG_LIMITED(DIAGNOSTICS_DEBUG, "control", "http: %s", text);
}

static void collect_build(void *owner, struct metrics_writer *writer)
{
    const struct http *http = owner;
    metrics_sample_u64(writer, METRIC_BUILD_INFO, 1, "version", http->version, NULL);
}

/* ---- starting and stopping ---- */

static int bind_address(const struct addrinfo *address, int *listener)
{
    int fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->ai_protocol);
    if (fd < 0)
        return errno;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, address->ai_addr, address->ai_addrlen) || listen(fd, HTTP_LISTEN_BACKLOG)) {
        int failure = errno;
        close(fd);
        return failure;
    }
    *listener = fd;
    return 0;
}

static int open_listener(const struct http_options *options, int *listener, char why[HTTP_WHY_MAX])
{
    const char *host = options->host && *options->host ? options->host : "0.0.0.0";
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *addresses;
    char port[8];
    snprintf(port, sizeof port, "%u", options->port);
    int lookup = getaddrinfo(host, port, &hints, &addresses);
    if (lookup) {
        hints.ai_family = AF_UNSPEC;
        lookup = getaddrinfo(host, port, &hints, &addresses);
    }
    if (lookup) {
        snprintf(why, HTTP_WHY_MAX, "HTTP cannot listen on %s: %s", host, gai_strerror(lookup));
        return ERR_INVALID;
    }
    int failure = EADDRNOTAVAIL;
    for (const struct addrinfo *address = addresses; address && failure; address = address->ai_next)
        failure = bind_address(address, listener);
    freeaddrinfo(addresses);
    if (failure)
        snprintf(why, HTTP_WHY_MAX, "HTTP cannot listen on %s port %u: %s%s", host, options->port, strerror(failure),
                 failure == EADDRINUSE ? " (choose another port, or 0 for a free one)" : "");
    return failure == EADDRINUSE ? ERR_BUSY : failure == EADDRNOTAVAIL ? ERR_INVALID : error_from_errno(failure);
}

static uint16_t bound_port(int listener)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    char port[8] = "0";
    if (getsockname(listener, (struct sockaddr *)&address, &size) == 0)
        getnameinfo((struct sockaddr *)&address, size, NULL, 0, port, sizeof port, NI_NUMERICSERV);
    return (uint16_t)strtoul(port, NULL, 10);
}

static int register_collectors(struct http *http)
{
    int error = metrics_register(collect_build, http);
    return error ? error : metrics_register(process_collect, NULL);
}

int http_start(struct http **http, const struct http_options *options, char why[HTTP_WHY_MAX])
{
    struct http *new = calloc(1, sizeof *new);
    if (!new) {
        snprintf(why, HTTP_WHY_MAX, "%s", error_text(ERR_NO_MEMORY));
        return ERR_NO_MEMORY;
    }
    new->version = options->version;
    new->start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < HTTP_CONNECTIONS_MAX; i++)
        new->places[i].fd = -1;
    int listener = -1;
    int error = open_listener(options, &listener, why);
    if (error) {
        free(new);
        return error;
    }
    new->port = bound_port(listener);
    error = register_collectors(new);
    if (!error) {
        new->daemon =
            MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL, on_request, new, MHD_OPTION_EXTERNAL_LOGGER,
                             on_library_message, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, new, MHD_OPTION_LISTEN_SOCKET, listener,
                             MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                             (size_t)HTTP_REQUEST_BYTES_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_IDLE_TIMEOUT_S, MHD_OPTION_END);
        error = new->daemon ? 0 : ERR_IO;
    }
    if (error) {
        snprintf(why, HTTP_WHY_MAX, "the HTTP server cannot start: %s", error_text(error));
        close(listener);
        http_stop(new);
        return error;
    }
    *http = new;
    return 0;
}

uint16_t http_port(const struct http *http)
{
    return http->port;
}

void http_stop(struct http *http)
{
    if (!http)
        return;
    if (http->daemon)
        MHD_stop_daemon(http->daemon);
    metrics_unregister(collect_build, http);
    metrics_unregister(process_collect, NULL);
    free(http);
}
