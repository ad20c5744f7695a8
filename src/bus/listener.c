/* Listening sockets: bound before the threads start, watched by the first loop, which deals what it accepts out in turn.
 *
 * Clients that have to shake hands are accepted a few at a time, as each takes some memory and arithmetic to begin with; and none is while
 * bus.handshakes_max are under way: they wait in the system's queue. */
#include "bus/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/diagnostics.h"
#include "base/error.h"

enum { LISTEN_BACKLOG = 4096, ACCEPTS_A_TURN = 256, HANDSHAKES_A_TURN = 16 };

/* What it is called, and which settings say where it is. */
static const struct {
    const char *name, *host, *port;
} kinds[BUS_TRANSPORTS] = {
    [BUS_TCP] = {"", "bus.host", "--port"},
    [BUS_TLS] = {" with TLS", "bus.tls.host", "bus.tls.port"},
    [BUS_WEBSOCKET] = {" with WebSocket", "bus.websocket.host", "bus.websocket.port"},
    [BUS_WEBSOCKET_TLS] = {" with WebSocket and TLS", "bus.websocket_tls.host", "bus.websocket_tls.port"},
    [BUS_UNIX] = {"", "bus.unix.path", "bus.unix.path"},
};

/* The port to bind: that of the addresses before it, if there were any. */
static uint16_t port_of(const struct bus *bus, enum bus_transport kind)
{
    return bus->ports[kind] ? bus->ports[kind] : bus->options.listeners[kind].port;
}

static int bind_address(struct bus *bus, enum bus_transport kind, const struct addrinfo *address, int *out)
{
    int one = 1;
    int listening = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listening < 0)
        return errno;
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (address->ai_family == AF_INET6)
        setsockopt(listening, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    struct sockaddr_storage bound;
    memcpy(&bound, address->ai_addr, address->ai_addrlen);
    in_port_t port = htons(port_of(bus, kind));
    if (address->ai_family == AF_INET6)
        ((struct sockaddr_in6 *)&bound)->sin6_port = port;
    else
        ((struct sockaddr_in *)&bound)->sin_port = port;
    socklen_t length = address->ai_addrlen;
    if (bind(listening, (const struct sockaddr *)&bound, length) || listen(listening, LISTEN_BACKLOG) ||
        getsockname(listening, (struct sockaddr *)&bound, &length)) {
        int error = errno;
        close(listening);
        return error;
    }
    bus->ports[kind] =
        ntohs(address->ai_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port : ((struct sockaddr_in *)&bound)->sin_port);
    *out = listening;
    return 0;
}

static bool cannot_have(int error)
{
    return error == EAFNOSUPPORT || error == EADDRNOTAVAIL;
}

/* Says that an address of `host` could not be bound. */
static int refuse_address(const struct bus *bus, enum bus_transport kind, const char *host, int system_error)
{
    char advice[160] = "";
    bool others = bus->listener_count && bus->listeners[bus->listener_count - 1].kind == kind;
    if (system_error == EADDRINUSE && others)
        snprintf(advice, sizeof advice, "; another of the addresses in %s covers it, or another program (a broker?) has it",
                 kinds[kind].host);
    else if (system_error == EADDRINUSE)
        snprintf(advice, sizeof advice, "; another program (a broker?) has it: stop that one, or choose another with %s", kinds[kind].port);
    diagnostics(DIAGNOSTICS_ERROR, "bus", "cannot listen on %s port %u%s: %s%s", host, port_of(bus, kind), kinds[kind].name,
                strerror(system_error), advice);
    return system_error == EADDRINUSE ? ERR_BUSY : ERR_INVALID;
}

static int open_host(struct bus *bus, enum bus_transport kind, const char *host, int *system_error)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *addresses = NULL;
    int failed = getaddrinfo(host, "1883", &hints, &addresses);
    if (failed) {
        diagnostics(DIAGNOSTICS_ERROR, "bus", "cannot listen on \"%s\": %s; %s takes addresses and names of this machine", host,
                    gai_strerror(failed), kinds[kind].host);
        return ERR_INVALID;
    }
    int error = 0, missing = 0;
    unsigned before = bus->listener_count;
    for (const struct addrinfo *address = addresses; address && !error; address = address->ai_next) {
        int listening = -1;
        if (bus->listener_count == LOOP_LISTENERS_MAX - 1) { /* the last is the Unix socket's */
            freeaddrinfo(addresses);
            diagnostics(DIAGNOSTICS_ERROR, "bus", "cannot listen on \"%s\"%s: more than %d addresses; name fewer with %s", host,
                        kinds[kind].name, LOOP_LISTENERS_MAX - 1, kinds[kind].host);
            return ERR_LIMIT;
        }
        int bound = bind_address(bus, kind, address, &listening);
        if (bound == 0)
            bus->listeners[bus->listener_count++] = (struct listener){.socket = listening, .kind = kind};
        else if (cannot_have(bound))
            *system_error = missing = bound;
        else
            error = bound;
    }
    freeaddrinfo(addresses);
    if (missing && !error && bus->listener_count == before) /* without IPv6 the default has an address too many */
        diagnostics(strcmp(host, "::") == 0 ? DIAGNOSTICS_INFO : DIAGNOSTICS_WARNING, "bus",
                    "not listening on \"%s\": %s; nobody can connect there. Look at the network, or correct %s and start again", host,
                    strerror(missing), kinds[kind].host);
    return error ? refuse_address(bus, kind, host, error) : 0;
}

static void say_listener(const struct bus *bus, const struct listener *listener)
{
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    char host[INET6_ADDRSTRLEN + IF_NAMESIZE], port[8];
    if (listener->kind == BUS_UNIX)
        diagnostics(DIAGNOSTICS_INFO, "bus", "listening on the Unix socket %s", bus->options.unix_path);
    else if (getsockname(listener->socket, (struct sockaddr *)&bound, &length) == 0 &&
             getnameinfo((struct sockaddr *)&bound, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        diagnostics(DIAGNOSTICS_INFO, "bus", "listening on %s port %s%s", host, port, kinds[listener->kind].name);
}

/* All addresses of a kind; at least one must be had. */
static int open_kind(struct bus *bus, enum bus_transport kind)
{
    const struct bus_listener *wanted = &bus->options.listeners[kind];
    unsigned before = bus->listener_count;
    int error = 0, system_error = 0;
    for (size_t i = 0; !error && i < wanted->host_count; i++)
        error = open_host(bus, kind, wanted->hosts[i], &system_error);
    if (!error && wanted->host_count && bus->listener_count == before) {
        diagnostics(DIAGNOSTICS_ERROR, "bus", "cannot listen: %s; none of the addresses in %s is one of this machine",
                    system_error ? strerror(system_error) : "no address given", kinds[kind].host);
        error = ERR_INVALID;
    }
    return error;
}

int listener_open(struct bus *bus)
{
    int error = 0;
    for (enum bus_transport kind = 0; !error && kind < BUS_UNIX; kind++)
        error = open_kind(bus, kind);
    if (!error && bus->options.unix_path) {
        int listening;
        error = listener_unix_open(bus, &listening);
        if (!error)
            bus->listeners[bus->listener_count++] = (struct listener){.socket = listening, .kind = BUS_UNIX};
    }
    if (!error && bus->listener_count == 0) {
        diagnostics(DIAGNOSTICS_ERROR, "bus", "there is nothing to listen on; set bus.tcp_enabled, or configure another way to connect");
        error = ERR_INVALID;
    }
    while (error && bus->listener_count)
        close(bus->listeners[--bus->listener_count].socket);
    for (size_t i = 0; i < bus->listener_count; i++)
        say_listener(bus, &bus->listeners[i]);
    return error;
}

bool listener_peer_is_local(int socket)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (getpeername(socket, (struct sockaddr *)&address, &length))
        return false;
    if (address.ss_family == AF_UNIX)
        return true;
    if (address.ss_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)&address)->sin_addr.s_addr) >> 24 == 127;
    const struct in6_addr *six = &((const struct sockaddr_in6 *)&address)->sin6_addr;
    return address.ss_family == AF_INET6 && (IN6_IS_ADDR_LOOPBACK(six) || (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127));
}

void listener_peer(int socket, char text[CONNECTION_PEER_SIZE])
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    struct ucred process;
    socklen_t process_length = sizeof process;
    char host[CONNECTION_PEER_SIZE - 8], port[6];
    if (getpeername(socket, (struct sockaddr *)&address, &length))
        snprintf(text, CONNECTION_PEER_SIZE, "?");
    else if (address.ss_family == AF_UNIX && getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &process, &process_length) == 0)
        snprintf(text, CONNECTION_PEER_SIZE, "unix:%ld/%lu", (long)process.pid, (unsigned long)process.uid);
    else if (getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(text, CONNECTION_PEER_SIZE, "?");
    else
        snprintf(text, CONNECTION_PEER_SIZE, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static void refuse(struct bus *bus, int accepted, enum bus_transport kind)
{
    char peer[CONNECTION_PEER_SIZE];
    listener_peer(accepted, peer);
    counter_add(&bus->loops[0].counters.closed[CLOSE_LIMIT], 1);
    DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus", "a connection from %s was refused: %u are open, the most that bus.max_connections allows",
                 peer, bus->options.connections_max);
    link_turn_away(bus, accepted, kind);
}

static void on_readable(uv_poll_t *poll, int status, int events);

static void resume_accepting(uv_timer_t *timer)
{
    struct bus *bus = timer->data;
    for (unsigned i = 0; i < bus->listener_count; i++)
        if (!uv_is_closing((uv_handle_t *)&bus->listeners[i].poll))
            uv_poll_start(&bus->listeners[i].poll, UV_READABLE, on_readable);
}

/* For a moment; `all`, or only of those who have to shake hands. */
static void pause_accepting(struct bus *bus, bool all)
{
    for (unsigned i = 0; i < bus->listener_count; i++)
        if (all || link_shakes_hands(bus->listeners[i].kind))
            uv_poll_stop(&bus->listeners[i].poll);
    uv_timer_start(&bus->accept_pause, resume_accepting, LOOP_ACCEPT_PAUSE_MS, 0);
}

/* Whether so many shake hands that the others must wait. */
static bool hands_are_full(struct bus *bus)
{
    if (atomic_load(&bus->handshakes) < bus->options.handshakes_max)
        return false;
    counter_add(&bus->loops[0].counters.handshakes_waited, 1);
    DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus", "%u handshakes are under way, the most that bus.handshakes_max allows; further clients wait",
                 bus->options.handshakes_max);
    pause_accepting(bus, false);
    return true;
}

/* Hands what was accepted to the next loop. */
static void deal(struct bus *bus, int accepted, enum bus_transport kind)
{
    int one = 1;
    if (kind != BUS_UNIX)
        setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (link_shakes_hands(kind))
        atomic_fetch_add(&bus->handshakes, 1);
    struct loop *loop = &bus->loops[bus->next_loop++ % bus->options.loop_count];
    if (atomic_fetch_add(&bus->connection_count, 1) >= bus->options.connections_max)
        refuse(bus, accepted, kind);
    else if (loop->index == 0)
        connection_open(loop, accepted, kind);
    else
        mail_socket(loop, accepted, kind);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)events;
    struct bus *bus = poll->data;
    struct listener *listener = (struct listener *)poll;
    bool shakes_hands = link_shakes_hands(listener->kind);
    for (unsigned i = 0; status == 0 && i < (shakes_hands ? HANDSHAKES_A_TURN : ACCEPTS_A_TURN); i++) {
        if (shakes_hands && hands_are_full(bus))
            return;
        int accepted = accept4(listener->socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus",
                             "cannot accept a connection: %s; clients wait and are accepted when others leave. Raise the limit of open "
                             "files (ulimit -n) "
                             "for more connections",
                             strerror(errno));
                pause_accepting(bus, true);
            }
            return;
        }
        deal(bus, accepted, listener->kind);
    }
}

void listener_watch(struct bus *bus)
{
    struct loop *loop = &bus->loops[0];
    uv_timer_init(&loop->uv, &bus->accept_pause);
    bus->accept_pause.data = bus;
    for (unsigned i = 0; i < bus->listener_count; i++) {
        struct listener *listener = &bus->listeners[i];
        uv_poll_init(&loop->uv, &listener->poll, listener->socket);
        listener->poll.data = bus;
        uv_poll_start(&listener->poll, UV_READABLE, on_readable);
    }
}

static void on_closed(uv_handle_t *handle)
{
    close(((struct listener *)handle)->socket);
}

void listener_close(struct bus *bus)
{
    for (unsigned i = 0; i < bus->listener_count; i++)
        if (!uv_is_closing((uv_handle_t *)&bus->listeners[i].poll))
            uv_close((uv_handle_t *)&bus->listeners[i].poll, on_closed);
    if (!uv_is_closing((uv_handle_t *)&bus->accept_pause))
        uv_close((uv_handle_t *)&bus->accept_pause, NULL);
}
