/* Sockets of the load client: names, non-blocking connects. */
#ifndef LOAD_SOCKET_H
#define LOAD_SOCKET_H

#include <stdint.h>
#include <sys/socket.h>

struct load_address {
    struct sockaddr_storage storage;
    socklen_t length;
};

/* The first address of a host name or number. Returns 0 or ERR_NOT_FOUND. */
int load_address_resolve(struct load_address *address, const char *host, uint16_t port);

/* A non-blocking TCP socket whose connect has begun. Returns the descriptor, or an error as for errno. */
int load_socket_connect(const struct load_address *address);

/* How the connect ended: 0 or the errno. */
int load_socket_result(int fd);

#endif
