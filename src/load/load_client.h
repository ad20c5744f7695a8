/* An MQTT client (3.1.1 and 5.0, QoS 0 and 1) for offering load and measuring what comes back, at a small part of the cost of the server
 * it measures.
 *
 * One client is one thread: an event loop over any number of connections to one server. The owner calls load_client_turn again and
 * again; in between it publishes. Everything that is published or acknowledged in a turn leaves with one write per connection at the
 * end of the turn; everything that has arrived is read in large pieces. A lost connection is opened again with growing pauses; what was
 * in flight is handed back to the owner, who knows what it was and sends it again. */
#ifndef LOAD_CLIENT_H
#define LOAD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mqtt/packet.h"

enum {
    LOAD_CONNECTIONS_MAX = 100000, /* per client */
    LOAD_OUTPUT_FULL = 256 * 1024, /* bytes waiting to be written beyond which publishing is refused */
    LOAD_PACKET_MAX = 64 << 20,    /* bytes of one packet, either way */
    LOAD_RETRY_FIRST_MS = 20,      /* pause before a connection is opened again; doubles */
    LOAD_RETRY_LAST_MS = 1000,
    LOAD_REASON_TEXT_MAX = 160
};

struct load_client;
struct load_connection;

/* What happens to a connection; called within load_client_turn. Each may be NULL. `context` is that of the connection. A handler may
 * publish, subscribe and open connections, on this and other connections of the client. */
struct load_handlers {
    void (*connected)(void *context, struct load_connection *connection);
    void (*subscribed)(void *context, struct load_connection *connection, bool granted);

    /* A PUBACK arrived; reason 0x80 and above (MQTT 5): the server has refused the message. */
    void (*acknowledged)(void *context, struct load_connection *connection, uint32_t tag, uint64_t due_ns, uint8_t reason);

    /* A message of the owner's that was in flight when the connection was lost, oldest first; followed by `disconnected`. */
    void (*unacknowledged)(void *context, struct load_connection *connection, uint32_t tag);

    /* `error` is what happened (base/error.h), `reason` says it to a person. When the connection does not retry this was its end. */
    void (*disconnected)(void *context, struct load_connection *connection, int error, const char *reason);

    /* A message arrived; the slices are valid during the call. It is acknowledged by the client. */
    void (*received)(void *context, struct load_connection *connection, const struct mqtt_publish *publish);
};

struct load_connection_options {
    const char *client_id; /* copied */
    uint8_t version;       /* enum mqtt_version */
    uint16_t keep_alive_s; /* 0: none */
    uint16_t inflight_max; /* QoS 1 messages without PUBACK; the server may allow fewer. 0: this connection publishes QoS 0 only */
    bool retry;            /* open it again when it is lost */
};

struct load_counters {
    uint64_t published, acknowledged, received, bytes_sent, bytes_received;
    uint64_t connected, disconnected; /* connections that were accepted; of these, lost */
};

/* Resolves the name and makes a loop. Returns 0, ERR_NOT_FOUND (unknown host), ERR_NO_MEMORY or ERR_IO. */
int load_client_create(struct load_client **client, const char *host, uint16_t port, const struct load_handlers *handlers);
void load_client_destroy(struct load_client *client); /* open connections say goodbye; no handler is called; accepts NULL */

/* Waits until something happens or the time has come (monotonic ns; now or before: does not wait), handles it, and writes what is to be
 * written. Returns 0 or ERR_IO. */
int load_client_turn(struct load_client *client, uint64_t until_ns);

/* The monotonic time that the client read last: after waiting, and after each read from a socket. */
uint64_t load_client_now_ns(const struct load_client *client);
const struct load_counters *load_client_counters(const struct load_client *client);

/* Begins to connect. Returns 0 with *connection, valid until load_client_destroy; ERR_LIMIT or ERR_NO_MEMORY. What goes wrong later is
 * told by `disconnected`. */
int load_connection_open(struct load_client *client, const struct load_connection_options *options, void *context,
                         struct load_connection **connection);

/* One subscription at a time. Returns 0, ERR_DISCONNECTED, ERR_LIMIT or ERR_NO_MEMORY; the answer comes as `subscribed`. */
int load_connection_subscribe(struct load_connection *connection, const char *filter, uint8_t qos);

/* Whether load_connection_publish would take a message now. */
bool load_connection_ready(const struct load_connection *connection, uint8_t qos);

/* Fields of *publish used: dup, qos, retain, topic, payload, properties_raw. `tag` and `due_ns` come back with the PUBACK. Returns 0,
 * ERR_DISCONNECTED, ERR_LIMIT (window or output full, or the packet is too large) or ERR_NO_MEMORY. */
int load_connection_publish(struct load_connection *connection, const struct mqtt_publish *publish, uint32_t tag, uint64_t due_ns);

#endif
