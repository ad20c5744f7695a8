/* The inside of the ingest module: brokers, links, and what runs over them. Private to the folder; all of it belongs to one thread, but for
 * what is atomic or stands under the lock.
 *
 *   ingest.c   the thread: its turns, deadlines, and which broker the group is at
 *   broker_link.c  one connection to a broker: address, socket, session, keep alive
 *   intake.c   the way in, over links of the role INTAKE
 *   outflow.c  the way out, over the link of the role OUTFLOW */
#ifndef INGEST_PARTS_H
#define INGEST_PARTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include "base/buffer.h"
#include "ingest/ingest.h"
#include "ingest/notes.h"
#include "mqtt/session_client.h"
#include "transport/transport.h"

enum {
    INGEST_READ_SIZE = 256 << 10,
    INGEST_ID_MAX = 256,
    INGEST_LINKS_MAX = INGEST_CONNECTIONS_MAX + 2, /* the way out, and the probe */
    INGEST_TEXT_MAX = 640,
    LINK_ADDRESSES_MAX = 8,
    LINK_OUT_MAX = 1 << 20,     /* bytes waiting to be written beyond which nothing more is published */
    OUTFLOW_TURN_MAX = 512,     /* messages of a turn */
    OUTFLOW_NOTE_NS = 200000000 /* QoS 1: the cursor is noted so often while it moves */
};

#define INGEST_STABLE_NS UINT64_C(5000000000) /* a connection that lasted so long was a good one */

/* What is known of a broker's shared subscriptions. */
enum broker_sharing {
    BROKER_UNKNOWN,
    BROKER_SHARES,
    BROKER_FORGETS, /* them when it restarts, so that until we are back nobody gets what is published */
    BROKER_REFUSES
};

struct broker {
    struct ingest_broker options;
    char name[INGEST_NAME_MAX];
    uint64_t key;    /* of the name; never 0 */
    uint8_t version; /* to be spoken */
    enum broker_sharing sharing;
    uint32_t outages; /* how often the last connection to it was lost */
    struct breaker breaker;
    _Atomic uint32_t connected;                        /* links that are in use */
    _Atomic int breaker_state;                         /* of the breaker, for who asks */
    _Atomic uint64_t connects, failures, tls_failures; /* since the start */
    char trouble[INGEST_TEXT_MAX];                     /* under ingest->lock: what went wrong last; empty: nothing since the last success */
};

enum link_role { LINK_INTAKE, LINK_OUTFLOW, LINK_PROBE };
enum link_state { LINK_IDLE, LINK_RESOLVING, LINK_CONNECTING, LINK_SECURING, LINK_GREETING, LINK_OPEN };

struct link_socket; /* what libuv holds on to; broker_link.c */
struct link_lookup;

struct link {
    struct ingest *ingest;
    enum link_role role;
    unsigned index; /* in ingest->links */
    char client_id[INGEST_ID_MAX];
    struct mqtt_session *sessions; /* [broker_count] */
    uint64_t *session_keys;        /* [broker_count]: name of the session, for origins */
    uint64_t **contents; /* [broker_count]: hash of what came last under each packet identifier of QoS 2; NULL until there is one */
    uint32_t outages[INGEST_BROKERS_MAX]; /* of each broker, when it was connected to last */
    bool after_outage;                    /* this connection is the first since the broker was away */
    uint32_t *session_lives;              /* [broker_count]: how often the broker had forgotten the session */
    unsigned broker;                      /* that it is at, or is trying */
    enum link_state state;
    uint32_t generation; /* of the connection */
    bool clean;          /* the next connection begins without what the broker has kept */
    bool in_use;         /* what it is there for has begun: it is subscribed, or may publish */
    bool shared;
    bool kept, shareable; /* the broker has kept the session; it says that it has shared subscriptions */
    bool asking;          /* what broker it is */
    bool paused;          /* not read from: the disk is behind */
    bool dirty;
    uint64_t next_ns; /* IDLE: not before; on the way to OPEN: not later */
    uint64_t opened_ns;
    struct backoff backoff;
    struct link_lookup *lookup;
    struct link_socket *socket;
    struct sockaddr_storage addresses[LINK_ADDRESSES_MAX];
    unsigned address_count, address_at;
    struct buffer in;  /* an unfinished packet, or what waits while paused */
    struct buffer out; /* to be written at the end of the turn */
};

struct outflow {
    struct link *link;
    struct queue_view *view;
    struct notes_cursor *cursor;
    struct message held; /* read from the view and not published yet; borrowed from it */
    bool active, has_held, noting;
    unsigned qos;                       /* at this broker */
    unsigned redeliver;                 /* so many of the next may have been published before a restart */
    uint64_t position;                  /* offset behind the last message that was looked at */
    uint64_t sent;                      /* offset behind the last that was ever published */
    uint64_t received;                  /* QoS 2: before it everything has its PUBREC */
    uint64_t released;                  /* QoS 2: before it every PUBREL was sent */
    uint64_t noted_ns;                  /* when the cursor was noted last */
    struct notes_cursor noted, durable; /* on its way to the disk, while `noting`; on disk */
    struct buffer properties;
    _Atomic uint64_t acknowledged, refused, lag, inflight;
};

struct ingest_counters { /* written by the thread */
    _Atomic uint64_t received[3], acknowledged, skipped, repeated, pauses, bytes_received, bytes_sent;
};

struct ingest {
    struct ingest_options options;
    char *filters[INGEST_FILTERS_MAX], *consumed_filter;
    char group[INGEST_ID_MAX - 16]; /* prefix-instance: name of shared subscriptions, and beginning of client identifiers */
    struct broker brokers[INGEST_BROKERS_MAX];
    size_t broker_count;
    unsigned active;
    struct link *links[INGEST_LINKS_MAX];
    unsigned link_count;
    struct link *probe; /* one of links; NULL where there is one broker */
    struct outflow outflow;
    struct notes notes;
    struct queue_producer *producer;
    pthread_t thread;
    bool started, initialised;
    uv_loop_t uv;
    uv_async_t wake;
    uv_check_t turn_end;
    uv_timer_t timer;
    uint8_t *read_buffer;    /* [INGEST_READ_SIZE] */
    uint8_t *plain_buffer;   /* [INGEST_READ_SIZE]: what TLS makes of it; NULL without */
    struct tls_context *tls; /* NULL: no broker is reached by it */
    uint64_t now_ns;         /* of this turn */
    struct random_source random;
    bool needs_submit, holding;                   /* something was appended; links are paused */
    uint64_t completions_first, completions_next; /* of `completions` */
    struct completion *completions;               /* ring: what waits until identifiers are given back on disk */
    size_t completion_size;                       /* a power of two */
    unsigned completions_open;                    /* of this turn, not yet with a note */
    bool checkpointing, settled;                  /* one is on its way; the first is durable */
    uint64_t checkpoint_ns;                       /* when the last was begun */
    _Atomic bool known;                           /* the same as `settled`, for who waits for the start */
    atomic_bool quiesce, stop, drained, deaf;
    bool quiet, stopping;
    uint64_t stop_ns;
    pthread_mutex_t lock;
    struct ingest_counters counters;
};

struct completion {
    uint16_t link;
    uint16_t packet_id; /* 0: of the whole session, and its subscriptions may be made now */
    uint32_t generation;
};

static inline void ingest_count(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

/* What the queue gives back when something is durable. */
enum token_kind { TOKEN_PUBACK = 1, TOKEN_PUBREC, TOKEN_NOTE, TOKEN_CURSOR, TOKEN_CHECKPOINT };
static inline uint64_t token_message(enum token_kind kind, const struct link *link, uint32_t life, uint16_t packet_id)
{
    return (uint64_t)kind << 60 | (uint64_t)(link->index * INGEST_BROKERS_MAX + link->broker) << 48 | (uint64_t)life << 16 | packet_id;
}

static inline struct mqtt_session *broker_link_session(struct link *link)
{
    return &link->sessions[link->broker];
}
static inline struct broker *broker_link_broker(struct link *link)
{
    return &link->ingest->brokers[link->broker];
}

/* broker_link.c */
int broker_link_create(struct ingest *ingest, enum link_role role, const char *name, struct link **link);
void broker_link_destroy(struct link *link); /* after the loop has ended; accepts NULL */
void broker_link_open(struct link *link);    /* to ingest->active, or to the broker of a probe */
void broker_link_close(struct link *link, bool goodbye);
/* The connection has come to nothing, or to an end. `refused`: the broker would do the same again. */
void broker_link_fail(struct link *link, bool refused, const char *format, ...) __attribute__((format(printf, 3, 4)));
void broker_link_mark_dirty(struct link *link);
void broker_link_flush(struct link *link);
void broker_link_resume(struct link *link);    /* reads again */
uint64_t broker_link_check(struct link *link); /* keep alive and time-outs; when to look again */

/* intake.c */
void intake_connected(struct link *link, const struct mqtt_connack *connack);
bool intake_event(struct link *link, struct mqtt_event *event); /* false: it has to wait, and nothing has happened */
void intake_durable(struct ingest *ingest, uint64_t token);
int intake_take_held(struct ingest *ingest);
int intake_each_held(void *owner, notes_put *put, void *context);
int intake_write_notes(struct ingest *ingest);

/* outflow.c */
int outflow_open(struct ingest *ingest);
void outflow_close(struct ingest *ingest);
bool outflow_begins_clean(const struct ingest *ingest, const struct broker *broker);
void outflow_connected(struct ingest *ingest, const struct mqtt_connack *connack, bool clean);
void outflow_event(struct ingest *ingest, struct mqtt_event *event);
void outflow_turn(struct ingest *ingest);
int outflow_write_notes(struct ingest *ingest);
void outflow_noted(struct ingest *ingest);         /* what was written of the cursor is durable */
bool outflow_is_idle(const struct ingest *ingest); /* everything is acknowledged */

/* ingest.c */
void ingest_link_opened(struct link *link); /* CONNACK has come */
void ingest_link_in_use(struct link *link); /* and all that was to be done behind it is done */
void ingest_link_ended(struct link *link, bool was_open, bool was_in_use, bool refused, const char *why);
void ingest_breaker_note(struct broker *broker);

#endif
