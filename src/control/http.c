/* The listening socket is opened here rather than by the library, so that a port in use is told apart from every other failure.
 * What is answered is made in pages.c; this file is about connections. */
#include "control/http.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
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
    struct http_options options;
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
        good = good && MHD_add_response_header(response, "Allow", page->allow) == MHD_YES;
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

/* ---- requests that change something ---- */

/* The body of a POST while it arrives. */
struct upload {
    struct buffer body;
    bool too_large;
};

const char *http_query(const struct http_request *request, const char *name)
{
    return MHD_lookup_connection_value((struct MHD_Connection *)(uintptr_t)request->connection, MHD_GET_ARGUMENT_KIND, name);
}

/* *element gets what stands for the route's "{...}". */
static const struct http_route *find_route(const struct http *http, const char *path, const char **element)
{
    for (unsigned i = 0; i < http->options.route_count; i++) {
        const struct http_route *route = &http->options.routes[i];
        size_t fixed = strcspn(route->path, "{");
        if (strncmp(path, route->path, fixed) != 0)
            continue;
        bool any = route->path[fixed];
        const char *rest = path + fixed;
        if (any ? !*rest || strchr(rest, '/') : *rest)
            continue;
        *element = any ? rest : NULL;
        return route;
    }
    return NULL;
}

/* The address as 16 bytes, IPv4 mapped into IPv6. False for another family. */
static bool address_bytes(const struct sockaddr *address, uint8_t bytes[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (address->sa_family == AF_INET6) {
        memcpy(bytes, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
        return true;
    }
    if (address->sa_family != AF_INET)
        return false;
    memcpy(bytes, mapped, sizeof mapped);
    memcpy(bytes + sizeof mapped, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    return true;
}

/* From a loopback address, or from the very address that was connected to. */
static bool is_from_this_machine(struct MHD_Connection *connection)
{
    static const uint8_t loopback6[16] = {[15] = 1}, loopback4[13] = {[10] = 0xff, [11] = 0xff, [12] = 127};
    struct sockaddr_storage own;
    socklen_t size = sizeof own;
    uint8_t peer_bytes[16], own_bytes[16];
    const struct sockaddr *peer = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
    int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    if (!address_bytes(peer, peer_bytes))
        return false;
    if (memcmp(peer_bytes, loopback6, 16) == 0 || memcmp(peer_bytes, loopback4, 13) == 0)
        return true;
    return getsockname(fd, (struct sockaddr *)&own, &size) == 0 && address_bytes((struct sockaddr *)&own, own_bytes) &&
           memcmp(peer_bytes, own_bytes, 16) == 0;
}

/* A name that no foreign domain server can have given: an address, or localhost. With or without a port. */
static bool is_own_name(const char *host)
{
    size_t length = strspn(host, "0123456789.");
    if (strncmp(host, "localhost", 9) == 0)
        length = 9;
    else if (host[0] == '[')
        length = strcspn(host, "]") + 1;
    return length && (host[length] == 0 || host[length] == ':');
}

/* Browsers say in Origin which page a request comes from. */
static bool is_from_another_site(struct MHD_Connection *connection)
{
    static const char scheme[] = "http://";
    const char *origin = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Origin");
    const char *host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host");
    if (!origin)
        return false;
    return !host || !is_own_name(host) || strncmp(origin, scheme, sizeof scheme - 1) != 0 || strcmp(origin + sizeof scheme - 1, host) != 0;
}

static bool is_json(struct MHD_Connection *connection)
{
    static const char json[] = "application/json";
    const char *type = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Type");
    return type && strncasecmp(type, json, sizeof json - 1) == 0 && (type[sizeof json - 1] == 0 || strchr("; \t", type[sizeof json - 1]));
}

/* Why a POST is refused; NULL when it is not. */
static const char *refusal_of(const struct http *http, struct MHD_Connection *connection, int *status)
{
    const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
    *status = MHD_HTTP_FORBIDDEN;
    if (http->options.changes == HTTP_CHANGES_NONE)
        return "changes by HTTP are turned off (http.changes: none)";
    if (http->options.changes == HTTP_CHANGES_LOOPBACK && !is_from_this_machine(connection))
        return "changes are accepted from this machine only (http.changes: loopback)";
    if (is_from_another_site(connection))
        return "this request comes from a page of another site";
    *status = MHD_HTTP_UNSUPPORTED_MEDIA_TYPE;
    if (!is_json(connection))
        return "expected Content-Type: application/json";
    *status = MHD_HTTP_CONTENT_TOO_LARGE;
    if (length && strtoull(length, NULL, 10) > HTTP_BODY_BYTES_MAX)
        return "the body is too large";
    return NULL;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, int status, const char *text)
{
    struct page page = {0};
    buffer_init(&page.body, PAGE_BYTES_MAX);
    page_render_error(&page, status, text);
    return send_page(connection, &page, true);
}

static enum MHD_Result refuse_method(struct MHD_Connection *connection, bool post)
{
    struct page page = {.allow = post ? "POST" : "GET, HEAD"};
    buffer_init(&page.body, PAGE_BYTES_MAX);
    page_render_error(&page, MHD_HTTP_METHOD_NOT_ALLOWED, post ? "only POST is answered here" : "only GET and HEAD are answered here");
    return send_page(connection, &page, true);
}

/* ---- parameters that a route does not know ---- */

struct search {
    const char *const *known;
    const char *unknown;
};

static enum MHD_Result look_at_parameter(void *context, enum MHD_ValueKind kind, const char *name, const char *value)
{
    (void)kind;
    (void)value;
    struct search *search = context;
    const char *const *known = search->known;
    while (*known && strcmp(*known, name) != 0)
        known++;
    if (!*known)
        search->unknown = name;
    return *known ? MHD_YES : MHD_NO;
}

/* NULL when there is none. */
static const char *unknown_parameter(struct MHD_Connection *connection, const struct http_route *route)
{
    static const char *const none[] = {NULL};
    struct search search = {.known = route->parameters ? route->parameters : none};
    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, look_at_parameter, &search);
    return search.unknown;
}

static enum MHD_Result refuse_parameter(struct MHD_Connection *connection, const struct http_route *route, const char *unknown)
{
    struct buffer text;
    buffer_init(&text, PAGE_BYTES_MAX);
    int error = buffer_printf(&text, "unknown parameter `%.60s`; there are %s", unknown, route->parameters ? "" : "none here");
    for (const char *const *known = route->parameters; known && *known && !error; known++)
        error = buffer_printf(&text, "%s%s", known == route->parameters ? "" : ", ", *known);
    const char *whole = error ? NULL : buffer_text(&text);
    enum MHD_Result result = refuse(connection, MHD_HTTP_BAD_REQUEST, whole ? whole : error_text(ERR_NO_MEMORY));
    buffer_fini(&text);
    return result;
}

/* ---- requests ---- */

static void on_completed(void *owner, struct MHD_Connection *connection, void **seen, enum MHD_RequestTerminationCode code)
{
    (void)connection;
    (void)code;
    struct upload *upload = *seen == owner ? NULL : *seen;
    if (upload)
        buffer_fini(&upload->body);
    free(upload);
    *seen = NULL;
}

static enum MHD_Result ask_route(const struct http_route *route, struct MHD_Connection *connection, const char *element,
                                 const struct upload *upload)
{
    struct page page = {.status = MHD_HTTP_OK, .content_type = "application/json"};
    struct http_request request = {.element = element, .connection = connection};
    if (upload) {
        request.body = (const char *)upload->body.data;
        request.body_length = upload->body.length;
    }
    buffer_init(&page.body, PAGE_BYTES_MAX);
    route->answer(route->context, &request, &page);
    return send_page(connection, &page, false);
}

/* Called when the headers are there, for each piece of the body, and when it is complete. */
static enum MHD_Result on_post(const struct http *http, const struct http_route *route, struct MHD_Connection *connection,
                               const char *element, const char *piece, size_t *size, void **seen)
{
    struct upload *upload = *seen;
    int status;
    if (!upload) {
        const char *why = refusal_of(http, connection, &status);
        if (why)
            return refuse(connection, status, why);
        upload = calloc(1, sizeof *upload);
        if (!upload)
            return MHD_NO;
        buffer_init(&upload->body, HTTP_BODY_BYTES_MAX);
        *seen = upload;
        return MHD_YES;
    }
    if (*size) {
        upload->too_large = upload->too_large || buffer_append(&upload->body, piece, *size);
        *size = 0;
        return MHD_YES;
    }
    if (upload->too_large)
        return refuse(connection, MHD_HTTP_CONTENT_TOO_LARGE, "the body is too large");
    return ask_route(route, connection, element, upload);
}

static enum MHD_Result answer_page(struct http *http, struct MHD_Connection *connection, const char *path, bool close_connection)
{
    struct page page = {0};
    buffer_init(&page.body, PAGE_BYTES_MAX);
    uint64_t now_ns = clock_monotonic_ns();
    struct page_facts facts = {
        .version = http->options.version,
        .uptime_s = (double)(now_ns - http->start_ns) / 1e9,
        .now_ns = now_ns,
        .marks = &http->marks,
        .more_routes = http->options.routes,
        .more_route_count = http->options.route_count,
    };
    page_render(&page, path, &facts);
    return send_page(connection, &page, close_connection);
}

/* Called once when the headers are there, and again when the request is complete. Requests that are refused are answered at
 * the first call, before anything of their body is read, and their connection is closed. */
static enum MHD_Result on_request(void *owner, struct MHD_Connection *connection, const char *path, const char *method, const char *version,
                                  const char *upload, size_t *upload_size, void **seen)
{
    (void)version;
    struct http *http = owner;
    note_request(connection);
    const char *element = NULL;
    const struct http_route *route = find_route(http, path, &element);
    bool post = route && route->changes;
    bool reads = strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    if (!reads && !route && !page_exists(path))
        return answer_page(http, connection, path, true);
    if (post ? strcmp(method, MHD_HTTP_METHOD_POST) != 0 : !reads)
        return refuse_method(connection, post);
    const char *unknown = route ? unknown_parameter(connection, route) : NULL;
    if (unknown)
        return refuse_parameter(connection, route, unknown);
    if (post)
        return on_post(http, route, connection, element, upload, upload_size, seen);
    if (has_body(connection))
        return refuse(connection, MHD_HTTP_CONTENT_TOO_LARGE, "requests with a body are not answered here");
    if (!*seen) {
        *seen = http;
        return MHD_YES;
    }
    if (route)
        return ask_route(route, connection, element, NULL);
    return answer_page(http, connection, path, false);
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
    metrics_sample_u64(writer, METRIC_BUILD_INFO, 1, "version", http->options.version, NULL);
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
    new->options = *options;
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
                             on_library_message, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, new, MHD_OPTION_NOTIFY_COMPLETED,
                             on_completed, new, MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_CONNECTION_LIMIT,
                             (unsigned)HTTP_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_REQUEST_BYTES_MAX,
                             MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_IDLE_TIMEOUT_S, MHD_OPTION_END);
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
