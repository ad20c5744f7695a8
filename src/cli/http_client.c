#include "cli/http_client.h"

#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/error.h"

enum { HEADERS_MAX = 16 << 10, ANSWER_TIMEOUT_S = 60 };

static int open_socket(const char *host, uint16_t port)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *addresses;
    struct timeval patience = {.tv_sec = ANSWER_TIMEOUT_S};
    char service[8];
    bool any = !*host || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(any ? "127.0.0.1" : host, service, &hints, &addresses))
        return -1;
    int fd = -1;
    for (const struct addrinfo *address = addresses; address && fd < 0; address = address->ai_next) {
        fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC, address->ai_protocol);
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        if (connect(fd, address->ai_addr, address->ai_addrlen)) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(addresses);
    return fd;
}

static int send_all(int fd, const struct buffer *request)
{
    for (size_t sent = 0; sent < request->length;) {
        ssize_t count = send(fd, request->data + sent, request->length - sent, MSG_NOSIGNAL);
        if (count <= 0)
            return ERR_DISCONNECTED;
        sent += (size_t)count;
    }
    return 0;
}

static int receive_all(int fd, struct buffer *answer)
{
    char block[16384];
    ssize_t count;
    while ((count = recv(fd, block, sizeof block, 0)) > 0) {
        int error = buffer_append(answer, block, (size_t)count);
        if (error)
            return error;
    }
    return count == 0 ? 0 : ERR_DISCONNECTED;
}

int http_client_ask(const char *host, uint16_t port, const char *path, const char *json, int *status, struct buffer *body)
{
    struct buffer request, answer;
    int fd = open_socket(host, port), code = 0;
    if (fd < 0)
        return ERR_DISCONNECTED;
    buffer_init(&request, HEADERS_MAX + (json ? strlen(json) : 0));
    buffer_init(&answer, HEADERS_MAX + body->limit);
    buffer_printf(&request, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", json ? "POST" : "GET", path);
    if (json)
        buffer_printf(&request, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(json));
    int error = buffer_printf(&request, "\r\n%s", json ? json : "");
    if (!error)
        error = send_all(fd, &request);
    if (!error)
        error = receive_all(fd, &answer);
    const char *text = error ? NULL : buffer_text(&answer), *content = text ? strstr(text, "\r\n\r\n") : NULL;
    if (!error && (!content || sscanf(text, "HTTP/1.1 %d", &code) != 1))
        error = ERR_DISCONNECTED;
    if (!error)
        error = buffer_append(body, content + 4, answer.length - (size_t)(content + 4 - text));
    if (!error)
        *status = code;
    buffer_fini(&answer);
    buffer_fini(&request);
    close(fd);
    return error;
}
