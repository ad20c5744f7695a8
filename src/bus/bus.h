/* The bus: an MQTT 3.1.1 and 5.0 server over several event-loop threads.
 *
 * A connection belongs to one loop for life. What arrives is routed once: to live subscribers at once, and to the stream that
 * wants it; its acknowledgement leaves when the stream says that it is durable. */
#ifndef BUS_BUS_H
#define BUS_BUS_H

#include <stdint.h>

#include "base/buffer.h"
#include "base/message.h"
#include "journal/journal.h"
#include "queue/queue.h"
#include "transport/tls.h"

struct access;

enum { BUS_LOOPS_MAX = 64, BUS_INGEST_FILTERS_MAX = 2 };

/* How clients reach it. */
enum bus_transport { BUS_TCP, BUS_TLS, BUS_WEBSOCKET, BUS_WEBSOCKET_TLS, BUS_UNIX, BUS_TRANSPORTS };

struct bus_listener {
    const char *const *hosts; /* [host_count] addresses or names to listen on; one that the machine cannot have (no IPv6) is passed over
                               * as long as another can be had */
    size_t host_count;        /* 0: does not listen */
    uint16_t port;            /* 0: a free one */
};

struct bus_options {
    struct bus_listener listeners[BUS_UNIX]; /* by enum bus_transport */
    const char *unix_path;                   /* NULL: none */
    unsigned unix_mode;                      /* permissions of that file */
    const char *websocket_path;              /* where WebSocket is, "/mqtt" for example */
    struct tls_options tls;
    uint32_t handshakes_max;       /* of TLS and WebSocket under way at a time; further clients wait to be accepted */
    uint64_t handshake_timeout_ns; /* for all of a client's */
    unsigned loop_count;           /* 1 .. BUS_LOOPS_MAX */
    uint32_t connections_max;
    uint32_t subscriptions_max;
    uint32_t packet_size_max;   /* bytes */
    uint16_t receive_maximum;   /* publishes of QoS 1 and 2 a client may have unacknowledged (announced in MQTT 5) */
    uint16_t keep_alive_max_s;  /* 0: any; a longer wish is shortened to it (MQTT 5), 3.1.1 clients are told nothing */
    size_t outgoing_soft_max;   /* bytes queued for one subscriber, beyond which QoS 0 is dropped and publishers are held back */
    uint64_t stall_timeout_ns;  /* a client beyond that limit which makes no progress for so long is disconnected */
    size_t memory_max;          /* bytes of unfinished packets and outgoing queues of all connections */
    size_t journal_backlog_max; /* bytes on their way to the disk, beyond which publishes wait; those of QoS 0 are dropped */
    size_t mail_soft_max;       /* bytes on their way from one loop to another, beyond which senders wait; 0: LOOP_MAIL_SOFT_MAX,
                                 * or outgoing_soft_max if that is less */
    size_t mail_hard_max;       /* beyond which deliveries are dropped; 0: LOOP_MAIL_HARD_MAX */
    struct queue *queue;        /* gets publishes of QoS 1 and 2; to be consumed, of any QoS, those that match one of ingest_filters */
    const char *ingest_filters[BUS_INGEST_FILTERS_MAX]; /* topic filters, for example "OPCPUBSUB/#"; NULL: none; copied */
    struct access *access;                              /* who may do what; NULL: everybody everything */
    bool acknowledge_at_once;                           /* durability "memory": PUBACK and PUBREC do not wait for the journal */
    uint32_t retained_max;                              /* retained messages; 0: RETAINED_MESSAGES_MAX_DEFAULT */
    size_t retained_size_max;                           /* bytes of memory for them; 0: RETAINED_BYTES_MAX_DEFAULT */
    struct journal *journal;                            /* started; NULL: retained messages live as long as the bus */
    struct journal_stream *retained;                    /* of the journal, for them (retained.h) */
    struct journal_stream *sessions;                    /* of the journal, behind the streams of publishes (sessions.h); NULL: not kept */
    uint32_t sessions_max;                              /* 0: SESSIONS_MAX_DEFAULT */
    size_t sessions_size_max;                           /* bytes of memory for them; 0: SESSIONS_BYTES_MAX_DEFAULT */
    uint32_t session_expiry_max_s; /* how long a session may outlast its connection; 0: none does; UINT32_MAX: for ever */
    int (*result_properties)(const struct message *result, struct buffer *properties); /* as it is published; NULL: as it is stored */
    uint64_t sys_interval_ns;         /* how often the topics below $SYS are published; 0: never */
    uint16_t topic_alias_max;         /* topic aliases of each direction of a connection; 0: none */
    const char *response_information; /* for clients that ask for it (MQTT 5); NULL or empty: none; it stays */
};

struct bus;

/* Binds the sockets and starts the threads. On failure diagnostics say which address or file and why. */
int bus_start(struct bus **bus, const struct bus_options *options);
uint16_t bus_port(const struct bus *bus, enum bus_transport transport); /* the port that was bound; 0: none */

/* Reads the certificates again, for connections that begin from now on. What cannot be used is told, and the old ones stay. */
void bus_reload_tls(struct bus *bus, const struct tls_options *options);

/* Publishes to live subscribers; any thread, never blocks. The message is copied. retained: what bus_retain returned for it; 0: nothing. */
void bus_publish(struct bus *bus, const struct message *message, uint64_t retained);

/* Whether a message of QoS 1 or 2 on that topic should wait, as that of a client would: for a live subscriber who is slow, and not longer
 * than stall_timeout_ns for each. Any thread, never blocks. */
bool bus_is_held(struct bus *bus, const char *topic, size_t length);

/* Keeps the message for who subscribes later, or with no payload takes away the one that is kept for its topic; any thread. It is on its
 * way to the disk when this returns. What cannot be kept is told, and 0 is returned. */
uint64_t bus_retain(struct bus *bus, const struct message *message);

/* What is written down about access has changed: clients go by it from now on, and subscriptions that are not allowed any more end. */
void bus_renew_access(struct bus *bus);

/* Takes no more connections and reads no more; what was read becomes durable and is acknowledged; deliveries go on. Waits until that is
 * done, at most timeout_ms. */
void bus_quiesce(struct bus *bus, unsigned timeout_ms);

/* Says goodbye to every client, closes, joins the threads. Accepts NULL. */
void bus_stop(struct bus *bus);

/* The persistent sessions that hold most of the journal, as JSON: 0, ERR_NO_MEMORY or ERR_LIMIT. */
int bus_sessions_write(struct bus *bus, struct buffer *json);

struct bus_status {
    uint64_t connections, subscriptions;
    uint64_t ingest_no_memory, ingest_journal; /* QoS 0 publishes for the ingest stream that could not be taken: for lack of memory, or
                                                * because too much is on its way to the disk */
};
void bus_status(struct bus *bus, struct bus_status *status);

#endif
