/* The inside of the bus: event loops, their connections, and the mail between loops. Private to the folder.
 *
 * A loop owns its connections, its producer of the journal and its router cache; no other thread touches them. Others send
 * it mail: a byte buffer under a lock, swapped out as a whole.
 *
 * Who is not read from, and until when. A connection is paused for one reason at a time; when that is gone it is tried again and may find
 * the next. What it was about to do is offered again as if it had just arrived.
 *
 *   PAUSE_JOURNAL     its next publish is to be acknowledged (QoS 1 or 2), and too much of this loop is on its way to the disk
 *   PAUSE_SUBSCRIBER  its next publish is to be acknowledged, and a subscriber that must get it has no room, nor has
 *                     any member of a shared subscription
 *   PAUSE_MAIL        the mail of another loop is full, which has not read it yet
 *   PAUSE_OUTPUT      it does not take what is written to it
 *   PAUSE_MEMORY      its next publish is to be acknowledged, and the outgoing queues of all clients have used up their budget (memory.c)
 *   PAUSE_PACKET      its next packet is large, and the unfinished packets of all clients have used up theirs
 *   PAUSE_LOGIN       its CONNECT waits until the password is checked
 *   PAUSE_SESSION     its CONNECT waits until the session is free: another connection has it, or has left what is not durable yet
 *   PAUSE_QUOTA       its user has published more than the quota lets through a second, or waits for acknowledgements of as much as it may
 * have on the way (3.1.1, where nothing tells the client of that)
 *
 * None of them waits for ever. The disk is the operator's; a loop always reads its mail; a login and a quota have their time; everything
 * else waits for some client that takes nothing, or does not finish a packet, and that one is disconnected after stall_timeout_ns
 * (connection_check). Who waits for memory, of which all loops have a part, is tried again with each sweep besides.
 *
 * Acknowledgements of what a client receives lie behind its own publishes. So a client for which messages wait behind the send window
 * (it "owes acknowledgements") is measured by twice the limits: otherwise one that publishes to itself, or two that publish to each other,
 * would wait for what only reading from them can bring. At twice the limits they wait like others, and the time-out ends it. Output
 * that the socket has not taken needs no such mercy: it goes as soon as the client reads, whatever is read from it. */
#ifndef BUS_LOOP_H
#define BUS_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <uthash.h>
#include <uv.h>

#include "access/access.h"
#include "base/lists.h"
#include "base/metrics.h"
#include "bus/aliases.h"
#include "bus/bus.h"
#include "bus/retained.h"
#include "mqtt/session.h"
#include "router/router.h"
#include "transport/transport.h"

enum {
    LOOP_READ_SIZE = 256 << 10,
    LOOP_WIRE_SIZE = 64 << 10,    /* bytes read at a time from a connection with a transport */
    LOOP_HANDSHAKES_NS = 5000000, /* of a turn: what it may spend on handshakes before it looks after the others again */
    LOOP_LISTENERS_MAX = 32,
    LOOP_DISK_FIRST = 16 << 10, /* bytes of a turn */
    LOOP_SWEEP_MS = 1000,
    LOOP_LINGER_MS = 2000, /* how long a closing connection may take to write what is left */
    LOOP_ACCEPT_PAUSE_MS = 100,
    LOOP_MAIL_SOFT_MAX = 16 << 20,     /* default of bus_options.mail_soft_max */
    LOOP_MAIL_HARD_MAX = 256 << 20,    /* default of bus_options.mail_hard_max */
    LOOP_MEMORY_SLACK = 64 << 10,      /* bytes by which a loop's use may differ from what the bus knows of it */
    LOOP_PRESSED_QUEUE_MAX = 64 << 10, /* in place of outgoing_soft_max while memory is pressed */
    LOOP_SLOT_BITS = 23,
    LOOP_GENERATION_BITS = 24,
    LOOP_SLOTS_FIRST = 64,
    LOOP_HARD_FACTOR = 4, /* outgoing_hard_max = outgoing_soft_max * LOOP_HARD_FACTOR */
    CONNECTION_KEEP_BUFFER = 16 << 10,
    CONNECTION_PREFIX_MAX = 16 << 10, /* bytes of an unfinished packet; a larger one is read straight into a buffer of its own */
    CONNECTION_PEER_SIZE = 64,
    CONNECTION_ACKNOWLEDGEMENT = 4,     /* bytes of a PUBACK or PUBREC without a reason */
    CONNECTION_REFUSALS_SIZE = 2 << 20, /* bytes of refusals that wait for acknowledgements: one for each packet identifier fits */
};

enum pause_reason {
    PAUSE_JOURNAL,
    PAUSE_SUBSCRIBER,
    PAUSE_MAIL,
    PAUSE_OUTPUT,
    PAUSE_MEMORY,
    PAUSE_PACKET,
    PAUSE_LOGIN,
    PAUSE_QUOTA,
    PAUSE_SESSION,
    PAUSE_REASONS
};
enum drop_reason { DROP_QUEUE_FULL, DROP_PACKET_TOO_LARGE, DROP_MAIL_FULL, DROP_NO_MEMORY, DROP_MEMORY, DROP_EXPIRED, DROP_REASONS };
enum retained_drop { RETAINED_LIMIT, RETAINED_OVERLOADED, RETAINED_DROPS };
enum refused_reason { REFUSED_RESERVED, REFUSED_REASONS };
enum ingest_drop { INGEST_NO_MEMORY, INGEST_JOURNAL, INGEST_DROPS };
enum close_reason {
    CLOSE_PROTOCOL,
    CLOSE_KEEP_ALIVE,
    CLOSE_TAKEN_OVER,
    CLOSE_SLOW,
    CLOSE_LIMIT,
    CLOSE_SHUTDOWN,
    CLOSE_HANDSHAKE,
    CLOSE_DENIED,
    CLOSE_REASONS
};
enum handshake_failure { HANDSHAKE_TIMEOUT, HANDSHAKE_TLS, HANDSHAKE_CERTIFICATE, HANDSHAKE_WEBSOCKET, HANDSHAKE_LEFT, HANDSHAKE_FAILURES };

struct client; /* row of the table of client identifiers */

/* How far a CONNECT has come at the door. */
enum door_login {
    DOOR_LOGIN_NONE,
    DOOR_LOGIN_CHECKING, /* its password is being checked */
    DOOR_LOGIN_ADMITTED, /* by `way` */
    DOOR_LOGIN_WRONG,    /* no such user or password */
    DOOR_LOGIN_BUSY,     /* nobody had time to check it */
    DOOR_LOGIN_NAMELESS  /* a name is needed */
};

struct door {                     /* how the connection stands with access/ (door.c) */
    struct access_client *client; /* NULL until its CONNECT was taken, and where the bus asks nobody */
    uint64_t checking_since_ns;   /* DOOR_LOGIN_CHECKING */
    enum door_login login;
    enum access_way way;
    bool loopback; /* the peer is on this machine */
    bool bound;    /* there is something that the client may not do */
};

struct connection {
    union {
        uv_tcp_t handle;
        uv_pipe_t pipe; /* BUS_UNIX */
    };
    struct transport *transport; /* NULL: bytes travel as they are */
    enum bus_transport kind;
    struct loop *loop;
    uint32_t slot, generation;
    struct mqtt_session session;
    struct buffer in;      /* bytes of an unfinished packet */
    struct buffer out;     /* to be written at the end of this turn */
    struct buffer sending; /* handed to libuv */
    uv_write_t write;
    struct buffer waiting;    /* messages of QoS 1 and 2 behind the send window: struct waiting_head and the packet, each */
    size_t waiting_at;        /* what of it was taken already */
    struct buffer refusals;   /* of publishes, which wait for acknowledgements (acknowledge.c) */
    uint32_t refusals_ahead;  /* the acknowledgements that leave before the last of them */
    struct handout *handouts; /* retained messages that its subscriptions asked for (handout.c) */
    size_t handout_bytes;     /* of what these remember */
    struct connection *handing_before, *handing_next; /* in loop->handing */
    struct aliases *aliases;                          /* that it knows; NULL: none */
    struct persistent *persistent;                    /* its session outlives it (persistent.h); NULL: that ends with it */
    size_t held_back;                                 /* bytes that wait for the disk there */
    uint32_t persistent_waiting;                      /* messages from the journal in `waiting` */
    struct shared *shared;                            /* it is in shared subscriptions (shared.h); NULL: in none */
    uint32_t shared_waiting;                          /* messages of these in `waiting` */
    struct connection *dirty_next;
    struct connection *paused_before, *paused_next;   /* in loop->paused[pause] */
    struct connection *shaking_before, *shaking_next; /* in loop->shaking */
    struct client *client;
    char peer[CONNECTION_PEER_SIZE]; /* address and port, or process and user, for diagnostics */
    uint64_t progress_ns;            /* when it last took bytes or acknowledged, or had no more queued than it may */
    size_t unwritten;                /* of `sending`, when it was last looked at */
    uint64_t unfinished_ns;          /* when its unfinished large packet began; 0: there is none */
    size_t wanted;                   /* PAUSE_PACKET: bytes that `in` needs */
    size_t counted_in, counted_out;  /* what the budget holds for it */
    uint64_t awaited;                /* paused: whose room it waits for, as in loop_resume */
    enum pause_reason pause;
    uint32_t prefix; /* bytes of `in` that were copied in front of the read buffer */
    bool large;      /* what is unfinished is read straight into `in` */
    bool dirty, paused, writing, handing;
    bool retry;        /* paused, and to be tried again at the end of the turn */
    uint8_t congested; /* 1: more is queued for it than it may have, until half of that is gone; 2: more than twice that */
    bool closing;      /* it will end with this turn: nothing more is read or delivered */
    bool goodbye;      /* closing: what is queued is written first */
    bool shut;         /* the handle is being closed */
    bool handshaking;  /* its transport is not established yet */
    bool shaking;      /* it has sent something for its handshake, which was not looked at yet */
    bool drain;        /* what it goes on to send is read and thrown away, so that it sees why it is disconnected */
    uint32_t subscriptions;
    struct will *will; /* for an end without DISCONNECT; NULL: none */
    struct door door;
};

struct group_member;
struct group_owed;

/* What a message of a shared subscription is besides (shared.h). */
struct shared_ticket {
    struct group_member *member; /* NULL: it is of none */
    struct group_owed *owed;
};

struct waiting_head {
    uint32_t size;            /* of the packet */
    uint32_t id_position;     /* of its packet identifier, within the packet */
    uint32_t expiry_position; /* of its message expiry interval, within the packet; 0: it has none */
    uint64_t expires_ns;      /* monotonic; 0: never */
    uint64_t offset;          /* from_journal: its place there */
    uint8_t content;
    bool from_journal;
    struct shared_ticket ticket;
};

struct loop_counters { /* written by the loop alone; read by anybody */
    _Atomic uint64_t connections, accepted, subscriptions;
    _Atomic uint64_t by_transport[BUS_TRANSPORTS];
    _Atomic uint64_t handshakes_failed[HANDSHAKE_FAILURES], handshakes_waited;
    _Atomic uint64_t received[3], delivered[3];
    _Atomic uint64_t dropped[DROP_REASONS];
    _Atomic uint64_t closed[CLOSE_REASONS];
    _Atomic uint64_t paused[PAUSE_REASONS], paused_now[PAUSE_REASONS];
    _Atomic uint64_t ingest_dropped[INGEST_DROPS];
    _Atomic uint64_t retained_dropped[RETAINED_DROPS];
    _Atomic uint64_t refused[REFUSED_REASONS];
    _Atomic uint64_t bytes_received, bytes_sent;
};

static inline void counter_add(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

struct loop {
    struct bus *bus;
    unsigned index;
    pthread_t thread;
    bool started, initialised;
    uv_loop_t uv;
    uv_async_t wake;
    uv_check_t turn_end;
    uv_timer_t sweep;
    uv_timer_t wills;                   /* the next of those that wait is due */
    struct delayed_will *delayed_wills; /* of connections that were this loop's; under clients_lock */
    struct will *sent_wills;            /* their messages were appended and are not durable yet, in that order */
    bool watching;                      /* the sweep comes within LOOP_SWEEP_MS; otherwise when a keep alive ends, or never */
    struct connection **slots;          /* [slot_count]; NULL: free */
    uint32_t *generations;              /* [slot_count] */
    uint32_t *free_slots;               /* stack */
    uint32_t slot_count, slots_max, free_count;
    uint32_t open_count;
    _Atomic uint8_t *congested; /* [slots_max]: connection.congested by slot, for the loops of publishers */
    struct router_cache *cache;
    struct queue_producer *producer;
    struct connection *dirty;
    struct connection *paused[PAUSE_REASONS]; /* in order of waiting */
    struct connection *shaking;               /* in order of waiting */
    size_t memory_out, memory_told;           /* bytes of its outgoing queues; of these known to the bus */
    uint64_t turn_wall_ns;                    /* wall clock of this turn, 0 until it was needed */
    uv_timer_t quota_due;                     /* when the first of those with PAUSE_QUOTA may go on */
    bool quiesce;                             /* bus_quiesce has asked for quiet, which begins at the end of this turn */
    bool quiet, stopping;                     /* no more is read; all connections are closed */
    uint8_t *read_buffer;                     /* [LOOP_READ_SIZE] */
    uint8_t *wire_buffer;                     /* [LOOP_WIRE_SIZE] */
    bool needs_submit;
    struct connection *holding;                  /* those that hold answers back */
    _Atomic bool awaits;                         /* somebody waits for what sessions.h makes durable, or for a session */
    bool notes;                                  /* something was noted of a session and not sent off yet */
    bool retains;                                /* messages were put among the retained ones and not sent off yet */
    struct connection *handing;                  /* those that can go on with handing out */
    struct buffer properties_in, properties_out; /* of the message at hand, where they are not as they came in */

    pthread_mutex_t mail_lock;
    struct buffer mail; /* under lock */
    _Atomic size_t mail_bytes;
    struct buffer mail_read; /* the loop's: the mail being read */
    _Atomic bool deaf;       /* it is stopping and reads no more mail */
    _Atomic bool drained;    /* quiesced: nothing is on its way to the disk, all acknowledgements are written */
    struct loop_counters counters;
};

struct client {
    UT_hash_handle hh;
    uint32_t loop, slot, generation;
    bool resumed;     /* who has taken it over goes on with the session */
    const char *user; /* behind `id`; "" for one without a name */
    char id[];        /* zero-terminated */
};

struct listener {
    uv_poll_t poll;
    int socket;
    enum bus_transport kind;
};

struct bus {
    struct bus_options options;
    char *ingest_filters[BUS_INGEST_FILTERS_MAX];
    uint16_t ports[BUS_UNIX];
    struct unix_file {
        uint64_t device, number; /* of the file that was made; 0: none */
    } unix_file;
    struct tls_context *tls; /* NULL: nobody speaks it */
    struct router *router;
    struct retained *retained;
    struct sys *sys;           /* of loop 0, when it runs */
    struct sessions *sessions; /* NULL: there are none, nor groups */
    struct groups *groups;
    struct follower *follower;
    struct buffer follower_properties;    /* its thread's */
    struct loop *loops;                   /* [options.loop_count] */
    _Atomic size_t memory_out, memory_in; /* bytes of the budget in use; written seldom, read for every message, as is what stands above */
    _Atomic uint32_t packets_waiting;     /* connections with PAUSE_PACKET */
    struct listener listeners[LOOP_LISTENERS_MAX];
    unsigned listener_count;
    uv_timer_t accept_pause; /* on loop 0 */
    unsigned next_loop;
    _Atomic uint32_t connection_count, handshakes;
    pthread_mutex_t clients_lock;
    struct client *clients;
    struct delayed_will *wills; /* by client identifier, under clients_lock */
    size_t wills_bytes;         /* of these, under clients_lock */
    uint64_t anonymous_count;   /* under clients_lock */
    uint64_t instance;          /* random: part of assigned client identifiers */
    pthread_mutex_t publish_lock;
    struct router_cache *publish_cache; /* under publish_lock */
};

/* loop.c */
int loop_start(struct loop *loop, struct bus *bus, unsigned index);
void loop_join(struct loop *loop);
void loop_fini(struct loop *loop);
void loop_mark_dirty(struct connection *connection);
void loop_watch(struct loop *loop); /* the sweep is to come soon: something has a deadline */
#define LOOP_AWAIT_ANY UINT64_MAX   /* for `awaited`: the first of several, as the members of a shared subscription */
void loop_pause(struct connection *connection, enum pause_reason reason, uint64_t awaited);
void loop_unpause(struct connection *connection);                                /* takes it off its list; reading is the caller's */
void loop_resume(struct loop *loop, enum pause_reason reason, uint64_t awaited); /* tries those again that waited for this */
void loop_stop(struct loop *loop);                                               /* bus_stop's */
void loop_forget(struct connection *connection);                                 /* its slot is free again; the memory is the caller's */
struct connection *loop_new_connection(struct loop *loop);                       /* NULL: no memory or no slot */
uint64_t loop_wall_ns(struct loop *loop);
void loop_flush_retained(struct loop *loop); /* before the producer sends off what was published */
void loop_submit(struct loop *loop);         /* sends off all that was appended and noted */

/* bus.c */
uint64_t bus_sum(const struct bus *bus, size_t counter_at); /* of a counter of all loops, by its offset in struct loop_counters */

/* sys.c: $SYS, and what is done once in a while; of loop 0, before it runs and on it */
int sys_start(struct bus *bus);
void sys_stop(struct bus *bus); /* once; bus->sys is freed when the loop has ended */

/* mail.c: what other threads ask of a loop */
/* To `count` subscribers of the match from the one at `first` on, all of them on that loop. 0, or ERR_LIMIT / ERR_NO_MEMORY when the
 * message was not sent. */
int mail_deliver(struct loop *to, const struct mqtt_publish *publish, uint64_t retained, const struct router_match *match, uint32_t first,
                 uint32_t count);
/* The same from the journal. */
struct persistent_handed;
int mail_hand(struct loop *to, const struct mqtt_publish *publish, const struct router_match *match,
              const struct persistent_handed *handed);
void mail_socket(struct loop *to, int socket, enum bus_transport kind);
void mail_close(struct loop *to, uint32_t slot, uint32_t generation, enum close_reason reason);
void mail_resume_all(struct bus *bus, enum pause_reason reason, uint64_t awaited);
void mail_login(struct loop *to, uint32_t slot, uint32_t generation, enum door_login login);
void mail_access(struct loop *to); /* door_renew */
void mail_quiesce(struct loop *to);
void mail_stop(struct loop *to);
void mail_read(struct loop *loop);

/* connection.c */
void connection_open(struct loop *loop, int socket, enum bus_transport kind);
void connection_continue(struct connection *connection);   /* starts to read, or goes on where it was held back */
void connection_note_queue(struct connection *connection); /* after what is queued for it has changed */
void connection_close(struct connection *connection, enum close_reason reason, int mqtt_reason);
void connection_drop(struct connection *connection);                     /* the peer is gone */
void connection_part(struct connection *connection);                     /* it has said DISCONNECT, and all its answers are in `out` */
static inline bool connection_parts(const struct connection *connection) /* it has said DISCONNECT, and answers of it are held back */
{
    return connection->session.state == MQTT_SESSION_CLOSED && !connection->closing;
}
void connection_closed(struct connection *connection);                 /* its handle is: the memory goes */
void connection_room(struct connection *connection, uv_buf_t *room);   /* where what it sends is to be read to */
void connection_received(struct connection *connection, size_t count); /* so much was read there */
void connection_end(struct connection *connection);                    /* of a closing one: write and close, or close */
void connection_retry(struct connection *connection); /* at the end of a turn: if it is paused and what held it may be gone */
uint64_t connection_check(struct connection *connection, uint64_t now_ns);  /* when to look again; now or before: soon */
static inline size_t connection_queued(const struct connection *connection) /* bytes that wait for it */
{
    return connection->out.length + connection->sending.length + connection->held_back +
           (connection->waiting.length - connection->waiting_at);
}
static inline size_t buffer_memory(const struct buffer *buffer) /* what an empty one keeps for the next message is not counted */
{
    return buffer->length == 0 && buffer->capacity <= CONNECTION_KEEP_BUFFER ? 0 : buffer->capacity;
}
static inline size_t connection_memory(const struct connection *connection) /* bytes of the buffers in which they do */
{
    return buffer_memory(&connection->out) + buffer_memory(&connection->sending) + buffer_memory(&connection->waiting) +
           connection->handout_bytes + connection->held_back;
}
static inline uint64_t connection_key(uint32_t loop, uint32_t slot) /* for `awaited` */
{
    return (uint64_t)loop << 32 | slot;
}
/* What the journal gives back when a publish is durable: whom to answer, and how. */
static inline uint64_t connection_token(const struct connection *connection, uint16_t packet_id, bool exactly_once)
{
    return (uint64_t)exactly_once << 63 | (uint64_t)connection->slot << 40 | (uint64_t)connection->generation << 16 | packet_id;
}
#define LOOP_WILL_TOKEN (UINT64_C(1) << 63) /* it answers nobody: packet identifiers are not 0 */
static inline struct connection *connection_find(const struct loop *loop, uint32_t slot, uint32_t generation)
{
    struct connection *connection = slot < loop->slot_count ? loop->slots[slot] : NULL;
    return connection && connection->generation == generation ? connection : NULL;
}

/* link.c: how a connection's bytes travel */
static inline bool link_shakes_hands(enum bus_transport kind)
{
    return kind != BUS_TCP && kind != BUS_UNIX;
}
int link_open(struct connection *connection, int socket, enum bus_transport kind); /* takes the socket if it succeeds */
void link_turn_away(struct bus *bus, int socket, enum bus_transport kind);         /* one that was accepted and finds no room */
void link_read(struct connection *connection);                                     /* starts to read, or goes on */
void link_stop(struct connection *connection);
void link_flush(struct connection *connection);
bool link_has_output(const struct connection *connection);  /* that was not handed to the system */
void link_finish(struct connection *connection);            /* puts the goodbye behind it */
bool link_shutdown(struct connection *connection);          /* after the last write: connection_drop follows; false: it could not */
void link_close(struct connection *connection);             /* connection_closed follows */
void link_shake_hands(struct loop *loop);                   /* at the end of a turn: handshakes go on, for as long as LOOP_HANDSHAKES_NS */
void link_time_out(struct connection *connection);          /* its handshakes have taken too long */
const char *link_user(const struct connection *connection); /* whom its certificate names, once it is established; NULL: nobody */

/* How diagnostics name a connection: printf format and arguments. */
#define CONNECTION_NAME              "client \"%.200s\" at %s"
#define CONNECTION_NAMED(connection) (connection)->client ? (connection)->client->id : "", (connection)->peer

/* door.c: what the connection may do, as access/ says */
enum door_answer { DOOR_OPEN, DOOR_WAITS, DOOR_CLOSED };
/* Whether the CONNECT has to wait for its password to be checked; the connection is paused then, and the packet to be offered again. */
bool door_waits(struct connection *connection, const struct mqtt_connect *connect);
/* Lets the client in, or returns the error that it is told; what it may do is known then. */
int door_admit(struct connection *connection, const struct mqtt_connect *connect);
int door_rename(struct connection *connection, struct mqtt_slice id); /* it got an identifier from the server */
/* For a connection with door.bound. OPEN: take it, then door_charge. WAITS: nothing was done but to pause. CLOSED: it was refused, and
 * answered. */
enum door_answer door_publish(struct connection *connection, const struct mqtt_publish *publish);
void door_charge(struct connection *connection, const struct mqtt_publish *publish);
bool door_will(struct connection *connection, struct mqtt_slice topic); /* whether the will may be published now */
/* 0, or the error for the SUBACK; afterwards, for one that was new, door_subscribed may still refuse it. */
int door_subscribe(struct connection *connection, struct mqtt_slice filter);
int door_subscribed(struct connection *connection, struct mqtt_slice filter);
void door_unsubscribed(struct connection *connection, uint32_t count);
void door_logged_in(struct connection *connection, enum door_login login); /* the outcome of a check */
void door_check(struct connection *connection, uint64_t now_ns);           /* gives up waiting for it after its time */
void door_renew(struct loop *loop);                                        /* after bus_renew_access */
void door_on_quota_due(uv_timer_t *timer);
bool door_begins_session(struct connection *connection, uint32_t count); /* its user, who has `count`, may begin another; it is told */
void door_deny_identifier(struct connection *connection, const struct mqtt_connect *connect); /* it is another user's */
void door_close(struct connection *connection);                                               /* the connection is gone */

/* memory.c */
enum memory_level {
    MEMORY_AMPLE,
    MEMORY_PRESSED, /* no connection may have more than LOOP_PRESSED_QUEUE_MAX queued */
    MEMORY_FULL,    /* QoS 0 is dropped, publishes of QoS 1 and 2 wait */
    MEMORY_OVER     /* subscribers of what could not be held back are disconnected */
};
static inline enum memory_level memory_level(const struct bus *bus)
{
    size_t out = atomic_load_explicit(&bus->memory_out, memory_order_relaxed), quarter = bus->options.memory_max / 4;
    return out <= quarter ? MEMORY_AMPLE : out <= 2 * quarter ? MEMORY_PRESSED : out <= 3 * quarter ? MEMORY_FULL : MEMORY_OVER;
}
static inline bool memory_has_room(const struct bus *bus, size_t more) /* without reaching MEMORY_OVER */
{
    return more == 0 || atomic_load_explicit(&bus->memory_out, memory_order_relaxed) + more <= bus->options.memory_max / 4 * 3;
}
size_t memory_queue_max(const struct bus *bus);               /* bytes that may be queued for one connection at present */
void memory_note_out(struct connection *connection);          /* after its outgoing buffers have grown or shrunk */
void memory_tell(struct loop *loop);                          /* at the end of a turn: the bus knows the loop's count exactly */
void memory_note_in(struct connection *connection);           /* after its incoming buffer has */
bool memory_in_short(const struct bus *bus);                  /* unfinished packets have used up their part */
int memory_admit(struct connection *connection, size_t size); /* room for `size` bytes in `in`; ERR_LIMIT: it has to wait, and is paused */
void memory_resume(struct loop *loop);                        /* goes on with those for whom there is room now */

/* deliver.c. Of what was put among the retained messages `retained` is the number of its put; 0: it was not. */
/* Takes a publish: to its stream and its subscribers. False when it has to wait: nothing was done but to pause the connection, and the
 * message is to be offered again. */
bool deliver_publish(struct connection *from, const struct mqtt_publish *publish);
/* Takes it in any case. Whether it was appended, so that LOOP_WILL_TOKEN comes back. */
bool deliver_will(struct loop *loop, const struct mqtt_publish *will);
bool deliver_is_reserved(struct mqtt_slice topic); /* it is the server's own */
/* To live subscribers; any thread. */
void deliver_from_server(struct bus *bus, const struct mqtt_publish *publish, uint64_t retained);

/* send.c */
void deliver_note_drop(struct loop *loop, enum drop_reason reason);
/* `how` and `identifiers` are the router's. */
void deliver_local(struct loop *loop, struct connection *to, const struct mqtt_publish *publish, uint64_t retained,
                   const struct router_subscription *how, const uint32_t *identifiers);
/* Sends what was retained, as it is. False: the send window is closed. */
bool deliver_retained(struct loop *loop, struct connection *to, struct mqtt_publish *outgoing, uint32_t identifier);
struct session_sent;
struct follower_places;
/* The same for what the follower has handed over, `sent` with its place; with a packet identifier, it was sent before. time_ns: wall clock
 * when it was accepted. False: the connection is closed, and nothing knows of the message. */
bool deliver_from_journal(struct connection *to, const struct mqtt_publish *publish, const struct router_subscription *how,
                          const uint32_t *identifiers, const struct session_sent *sent, uint64_t time_ns);
/* The same for a message of a shared subscription, which it settles if it does not send it. */
void deliver_from_group(struct connection *to, const struct mqtt_publish *publish, const struct router_subscription *how,
                        const struct session_sent *sent, const struct shared_ticket *ticket, uint64_t time_ns);
/* Lowers the places to those of what waits behind the send window. */
void deliver_lower_to_waiting(const struct connection *connection, struct follower_places *places);
/* The message gets another expiry interval, in properties of the loop's. */
int deliver_set_expiry(struct loop *loop, struct mqtt_publish *outgoing, uint32_t interval_s);
static inline void deliver_put_expiry(uint8_t *at, uint32_t interval_s)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(interval_s >> (24 - 8 * i));
}
void deliver_waiting(struct connection *connection);

/* subscribe.c */
void subscribe_add(struct connection *connection, const struct mqtt_subscribe *subscribe);
void subscribe_remove(struct connection *connection, const struct mqtt_subscribe *unsubscribe);
/* Ends one; *place gets when that is durable (may be NULL). Whether there was such a subscription. */
bool subscribe_end(struct connection *connection, struct mqtt_slice filter, uint64_t *place);
/* A session goes on with one that it had: the router learns of it. 0, ERR_PERMISSION, ERR_LIMIT or ERR_NO_MEMORY. */
int subscribe_carry(struct connection *connection, struct mqtt_slice filter, const struct router_subscription *how);

/* handout.c: retained messages for new subscriptions */
/* What was put behind number `since` comes live, and is not handed out but where it may not. 0, ERR_LIMIT, ERR_NO_MEMORY. */
int handout_begin(struct connection *connection, const struct mqtt_subscription *wanted, uint32_t identifier, uint64_t since);
void handout_forget(struct connection *connection, struct mqtt_slice filter); /* what is left for this filter */
void handout_end(struct connection *connection);                              /* all that is left */
void handout_resume(struct connection *connection);                           /* it may be able to go on */
void handout_continue(struct connection *connection);                         /* a turn of one that is in no list */
void handout_turn(struct loop *loop);                                         /* of all that can go on */

/* acknowledge.c */
void connection_acknowledge(struct connection *connection, uint16_t packet_id, bool exactly_once); /* PUBACK, or PUBREC */
/* Answers a publish of QoS 1 or 2 that is not taken, behind the acknowledgements of what arrived before it: in MQTT 5 with a reason of 0x80
 * and above; in 3.1.1, which knows none, as if it had been taken. `why`: static, or NULL. */
void connection_refuse(struct connection *connection, const struct mqtt_publish *publish, uint8_t reason, const char *why);
bool acknowledge_put(struct connection *connection, enum mqtt_packet_type type,
                     uint16_t packet_id); /* without a reason; whether it could */

/* listener.c */
bool listener_peer_is_local(int socket);                         /* the peer is on this machine */
void listener_peer(int socket, char text[CONNECTION_PEER_SIZE]); /* "192.0.2.1:50123", "[2001:db8::1]:50123", "unix:PID/UID", or "?" */
int listener_open(struct bus *bus);
void listener_watch(struct bus *bus); /* on loop 0, before it runs */
void listener_close(struct bus *bus); /* on loop 0 */

/* transports.c */
int transports_start_tls(struct bus *bus); /* where somebody listens with it; diagnostics say what is wrong with a file */
void transports_collect(const struct bus *bus, struct metrics_writer *writer);

/* listener_unix.c */
int listener_unix_open(struct bus *bus, int *out);
void listener_unix_remove(struct bus *bus); /* the file, unless another has taken its place */

/* clients.c: who is connected under which client identifier */
/* An identifier of length 0: one is made, and *assigned gets it. Returns 0, ERR_CLIENT_ID (a client of another user has it) or
 * ERR_NO_MEMORY. */
int clients_claim(struct connection *connection, const struct mqtt_connect *connect, struct mqtt_slice *assigned);
bool clients_has(struct bus *bus, const char *id, size_t length); /* somebody is connected under it */
void clients_release(struct connection *connection);
/* Under clients_lock: whether another connection has its identifier; *resumed gets whether that one goes on with the session. */
bool clients_is_replaced(const struct connection *connection, bool *resumed);

/* will.c */
int will_keep(struct connection *connection, const struct mqtt_connect *connect); /* 0, or why the CONNECT is to be refused */
/* Puts it into the record of its session, which is the connection's now, or takes a former one from there: durable at *place. */
struct session;
int will_note(struct connection *connection, struct session *session, uint64_t *place);
void will_forget(struct connection *connection);
void will_withdraw(struct connection *connection); /* the same by the client, who may count on it when the connection has ended */
void will_leave(struct connection *connection);    /* when the connection ends: publishes it, or lets it wait */
/* Under clients_lock: takes the one of that user that waits, or NULL. */
struct will *will_find(struct bus *bus, const char *id, size_t length, const char *user);
void will_settle(struct loop *loop, struct will *will, bool session_ended); /* takes one that was found; accepts NULL */
/* The server stops: those of its connections are published, but what a session counts on after the next start. */
void will_stop(struct loop *loop);
/* Before the loop runs, and for all: those in the records of sessions wait, or are published. 0, ERR_CORRUPT, ERR_NO_MEMORY. */
int will_start(struct loop *loop);
void will_durable(struct loop *loop); /* the oldest of those that were appended is: it is taken from its record */
void will_fini(struct loop *loop);    /* when all loops have ended */

#endif
