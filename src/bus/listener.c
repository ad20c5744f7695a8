/* Listening sockets: bound before the threads start, watched by the first loop, which deals what it accepts out in turn. */
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
#include <unistd.h>

#include "base/diagnostics.h"
#include "base/error.h"

enum { LISTEN_BACKLOG = 4096, ACCEPTS_A_TURN = 256 };

static int bind_address(struct bus *bus, const struct addrinfo *address, int *out)
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
    in_port_t port = htons(bus->port ? bus->port : bus->options.port);
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
    bus->port =
        ntohs(address->ai_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port : ((struct sockaddr_in *)&bound)->sin_port);
    *out = listening;
    return 0;
}

static bool cannot_have(int error)
{
    return error == EAFNOSUPPORT || error == EADDRNOTAVAIL;
}

static int open_host(struct bus *bus, const char *host, int *system_error)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *addresses = NULL;
    int failed = getaddrinfo(host, "1883", &hints, &addresses);
    if (failed) {
        diagnostics(DIAGNOSTICS_ERROR, "bus", "cannot listen on \"%s\": %s; bus.host takes addresses and names of this machine", host,
                    gai_strerror(failed));
        return ERR_INVALID;
    }
    int error = 0, missing = 0;
    unsigned before = bus->listener_count;
    for (const struct addrinfo *address = addresses; address && !error && bus->listener_count < LOOP_LISTENERS_MAX;
         address = address->ai_next) {
        int listening = -1;
        int bound = bind_address(bus, address, &listening);
        if (bound == 0)
            bus->listeners[bus->listener_count++].socket = listening;
        else if (cannot_have(bound))
            *system_error = missing = bound;
        else
            error = bound;
    }
    freeaddrinfo(addresses);
    if (missing && !error && bus->listener_count == before) /* without IPv6 the default has an address too many */
        diagnostics(strcmp(host, "::") == 0 ? DIAGNOSTICS_INFO : DIAGNOSTICS_WARNING, "bus",
                    "not listening on \"%s\": %s; nobody can connect there. Look at the network, or correct bus.host and start again", host,
                    strerror(missing));
    if (error) {
        uint16_t port = bus->port ? bus->port : bus->options.port;
        diagnostics(DIAGNOSTICS_ERROR, "bus", "cannot listen on %s port %u: %s%s", host, port, strerror(error),
                    error != EADDRINUSE ? ""
                    : before            ? "; another of the addresses in bus.host covers it, or another program (a broker?) has it"
                                        : "; another program (a broker?) has it: stop that one, or choose another with --port");
        return error == EADDRINUSE ? ERR_BUSY : ERR_INVALID;
    }
    return 0;
}

static void say_listener(int listening)
{
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    char host[INET6_ADDRSTRLEN + IF_NAMESIZE], port[8];
    if (getsockname(listening, (struct sockaddr *)&bound, &length) == 0 &&
        getnameinfo((struct sockaddr *)&bound, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        diagnostics(DIAGNOSTICS_INFO, "bus", "listening on %s port %s", host, port);
}

int listener_open(struct bus *bus)
{
    int error = 0, system_error = 0;
    for (size_t i = 0; !error && i < bus->options.host_count; i++)
        error = open_host(bus, bus->options.hosts[i], &system_error);
    if (!error && bus->listener_count == 0) {
        diagnostics(DIAGNOSTICS_ERROR, "bus", "cannot listen: %s; none of the addresses in bus.host is one of this machine",
                    system_error ? strerror(system_error) : "no address given");
        error = ERR_INVALID;
    }
    while (error && bus->listener_count)
        close(bus->listeners[--bus->listener_count].socket);
    for (size_t i = 0; i < bus->listener_count; i++)
        say_listener(bus->listeners[i].socket);
    return error;
}

void listener_peer(int socket, char text[CONNECTION_PEER_SIZE])
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char host[CONNECTION_PEER_SIZE - 8], port[6];
    if (getpeername(socket, (struct sockaddr *)&address, &length) ||
        getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(text, CONNECTION_PEER_SIZE, "?");
    else
        snprintf(text, CONNECTION_PEER_SIZE, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static void refuse(struct bus *bus, int accepted)
{
    char peer[CONNECTION_PEER_SIZE];
    listener_peer(accepted, peer);
    atomic_fetch_sub(&bus->connection_count, 1);
    counter_add(&bus->loops[0].counters.closed[CLOSE_LIMIT], 1);
    DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus", "a connection from %s was refused: %u are open, the most that bus.max_connections allows",
                 peer, bus->options.connections_max);
    close(accepted);
}

static void on_readable(uv_poll_t *poll, int status, int events);

static void resume_accepting(uv_timer_t *timer)
{
    struct bus *bus = timer->data;
    for (unsigned i = 0; i < bus->listener_count; i++)
        if (!uv_is_closing((uv_handle_t *)&bus->listeners[i].poll))
            uv_poll_start(&bus->listeners[i].poll, UV_READABLE, on_readable);
}

static void pause_accepting(struct bus *bus)
{
    for (unsigned i = 0; i < bus->listener_count; i++)
        uv_poll_stop(&bus->listeners[i].poll);
    uv_timer_start(&bus->accept_pause, resume_accepting, LOOP_ACCEPT_PAUSE_MS, 0);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)events;
    struct bus *bus = poll->data;
    struct listener *listener = (struct listener *)poll;
    for (unsigned i = 0; status == 0 && i < ACCEPTS_A_TURN; i++) {
        int accepted = accept4(listener->socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus",
                             "cannot accept a connection: %s; clients wait and are accepted when others leave. Raise the limit of open "
                             "files (ulimit -n) "
                             "for more connections",
                             strerror(errno));
                pause_accepting(bus);
            }
            return;
        }
        int one = 1;
        setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct loop *loop = &bus->loops[bus->next_loop++ % bus->options.loop_count];
        if (atomic_fetch_add(&bus->connection_count, 1) >= bus->options.connections_max) {
            refuse(bus, accepted);
        } else if (loop->index == 0) {
            connection_open(loop, accepted);
        } else {
            mail_socket(loop, accepted);
        }
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
