/* The inside of the ingest module: brokers, links, and what runs over them. Private to the folder; all of it belongs to one thread, but for
 * what is atomic or stands under the lock.
 *
 *   ingest.c   the thread: its turns, deadlines, and which broker the group is at
 *   broker_link.c  one connection to a broker: address, socket, session, keep alive
 *   intake.c   the way in, over links of the role INTAKE
 *   outflow.c  a way out, over a link of the role OUTFLOW: of results, and of each broker with rules that send
 *   bridge.c   what rules make of messages: which pass, under which names */
#ifndef INGEST_PARTS_H
#define INGEST_PARTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include "base/buffer.h"
#include "base/metrics.h"
#include "ingest/ingest.h"
#include "ingest/notes.h"
#include "ingest/rules.h"
#include "mqtt/session_client.h"
#include "transport/transport.h"

enum {
    INGEST_READ_SIZE = 256 << 10,
    INGEST_ID_MAX = 256,
    INGEST_LINKS_MAX = INGEST_CONNECTIONS_MAX + 2 + 2 * INGEST_BRIDGES_MAX, /* the way out, and the probe */
    INGEST_OUTFLOWS_MAX = 1 + INGEST_BRIDGES_MAX,
    INGEST_MARK_SIZE = 17, /* of a Spindle, in hexadecimal, with its zero */
    INGEST_TEXT_MAX = 640,
    LINK_ADDRESSES_MAX = 8,
    LINK_OUT_MAX = 1 << 20,     /* bytes waiting to be written beyond which nothing more is published */
    INTAKE_RETRY_NS = 20000000, /* what has to wait for who listens is tried again so often */
    OUTFLOW_TURN_MAX = 512,     /* messages of a turn */
    OUTFLOW_NOTE_NS = 200000000 /* QoS 1: the cursor is noted so often while it moves */
};

#define OUTFLOW_PASSING_NS UINT64_C(5000000000) /* and so often while nothing is to be published of what it passes */

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

struct outflow;
struct bridge;

struct link {
    struct ingest *ingest;
    enum link_role role;
    struct outflow *outflow; /* of the role OUTFLOW */
    struct bridge *bridge;   /* whose rules it serves; NULL: the group's */
    unsigned index;          /* in ingest->links */
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
    bool paused;          /* not read from: the disk is behind, or who listens is */
    bool retried;         /* it is resumed, and looks whether it may go on */
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
    struct ingest *ingest;
    struct link *link;
    struct bridge *bridge; /* whose rules choose what is published; NULL: results */
    enum queue_content content;
    const char *what; /* is published, for diagnostics: "result" */
    unsigned inflight_max;
    struct queue_view *view;
    struct notes_cursor *cursor;
    struct message held;        /* read from the view and not published yet; borrowed from it */
    struct queue_origin origin; /* of that */
    bool has_held;
    uint8_t qos_max;                    /* that the broker takes */
    unsigned redeliver;                 /* so many of the next may have been published before a restart */
    uint64_t position;                  /* offset behind the last message that was looked at */
    uint64_t sent;                      /* offset behind the last that was ever published */
    uint64_t received;                  /* QoS 2: before it everything has its PUBREC */
    uint64_t released;                  /* QoS 2: before it every PUBREL was sent */
    uint64_t noted_ns;                  /* when the cursor was noted last */
    struct notes_cursor noted, durable; /* on its way to the disk, while ingest->noting; on disk */
    struct buffer topic, properties;    /* of what is published */
    _Atomic uint64_t acknowledged, refused, lag, inflight;
};

/* The rules of one broker, and the connections that serve them. */
struct bridge {
    unsigned broker;
    struct ingest_rule rules[INGEST_RULES_MAX];
    size_t rule_count;
    char filters[INGEST_RULES_MAX][RULE_TOPIC_FILTER_MAX]; /* to subscribe to: [filter_count] */
    uint8_t filter_qos[INGEST_RULES_MAX];
    size_t filter_count;
    bool echoes;     /* what goes out comes in again, but for its mark */
    struct link *in; /* NULL: no rule takes anything in */
    struct outflow outflow;
    struct buffer topic, properties; /* of a message that is taken in */
    _Atomic uint64_t received, looped;
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
    size_t group_count;
    unsigned active;
    struct link *links[INGEST_LINKS_MAX];
    unsigned link_count;
    struct link *probe; /* one of links; NULL where there is one broker */
    struct outflow results;
    struct bridge *bridges; /* [bridge_count] */
    size_t bridge_count;
    struct outflow *outflows[INGEST_OUTFLOWS_MAX];
    unsigned outflow_count;
    char mark[INGEST_MARK_SIZE]; /* of messages that have been here */
    bool noting;                 /* cursors are on their way to the disk */
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
    uint64_t retry_ns;                            /* when those that wait for who listens are resumed; 0: none does */
    uint64_t completions_first, completions_next; /* of `completions` */
    struct completion *completions;               /* ring: what waits until identifiers are given back on disk */
    size_t completion_size;                       /* a power of two */
    unsigned completions_open;                    /* of this turn, not yet with a note */
    struct notes_places needed;                   /* that the last durable checkpoint names */
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

_Static_assert(INGEST_LINKS_MAX *INGEST_BROKERS_MAX <= 1 << 12, "a token has room for link and broker");

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
/* Where a link belongs. */
static inline unsigned broker_link_target(const struct link *link)
{
    return link->bridge ? link->bridge->broker : link->ingest->active;
}
/* Whether a message has come from the broker: the upper half of a session's key is its broker's. */
static inline bool broker_sent(const struct broker *broker, const struct queue_origin *origin)
{
    return queue_origin_is_broker(origin) && origin->session >> 32 == broker->key >> 32;
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
int outflow_open(struct outflow *out, const char *name);
void outflow_close(struct outflow *out); /* also of one that was not opened */
bool outflow_begins_clean(const struct outflow *out, const struct broker *broker);
void outflow_connected(struct outflow *out, const struct mqtt_connack *connack, bool clean);
void outflow_event(struct outflow *out, struct mqtt_event *event);
void outflow_turn(struct outflow *out);
uint64_t outflow_due_ns(const struct outflow *out); /* when the cursor has to be looked at again; UINT64_MAX: not before something comes */
void outflow_noting(struct outflow *out);           /* the cursors are being written */
void outflow_noted(struct outflow *out);            /* what was written of the cursor is durable */
bool outflow_is_idle(const struct outflow *out);    /* everything is acknowledged */

/* bridge.c */
int bridge_open_all(struct ingest *ingest); /* with their links, for the rules of the options; before bridge_close_all in any case */
int bridge_open_outflows(struct ingest *ingest);
void bridge_close_all(struct ingest *ingest);
bool bridge_may_take(struct link *link); /* false: what goes out would come in again as new */
/* Makes the message that comes in by a rule of what the broker sends; its topic and properties last until the next. False: it is not taken.
 */
bool bridge_take(struct bridge *bridge, const struct ingest *ingest, const struct mqtt_publish *publish, struct message *message);
/* The rule by which the held message of an outflow goes out; NULL: it does not. */
const struct ingest_rule *bridge_rule_for(const struct outflow *out);
/* Topic and properties under which it goes. */
int bridge_name_outgoing(struct outflow *out, const struct ingest_rule *rule, struct mqtt_publish *packet);
void bridge_collect(struct ingest *ingest, struct metrics_writer *writer);
int bridge_status(struct ingest *ingest, struct buffer *json);

/* ingest.c */
void ingest_link_opened(struct link *link); /* CONNACK has come */
void ingest_link_in_use(struct link *link); /* and all that was to be done behind it is done */
void ingest_link_ended(struct link *link, bool was_open, bool was_in_use, bool refused, const char *why);
void ingest_breaker_note(struct broker *broker);

#endif
