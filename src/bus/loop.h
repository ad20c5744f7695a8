/* The inside of the bus: event loops, their connections, and the mail between loops. Private to the folder.
 *
 * A loop owns its connections, its producer of the journal and its router cache; no other thread touches them. Others send
 * it mail: a byte buffer under a lock, swapped out as a whole. */
#ifndef BUS_LOOP_H
#define BUS_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <uthash.h>
#include <uv.h>

#include "base/metrics.h"
#include "bus/bus.h"
#include "bus/router.h"
#include "mqtt/session.h"

enum {
    LOOP_READ_SIZE = 256 << 10,
    LOOP_LISTENERS_MAX = 8,
    LOOP_DISK_FIRST = 16 << 10, /* bytes of a turn */
    LOOP_SWEEP_MS = 1000,
    LOOP_LINGER_MS = 2000, /* how long a closing connection may take to write what is left */
    LOOP_ACCEPT_PAUSE_MS = 100,
    LOOP_MAIL_SOFT_MAX = 16 << 20, /* bytes of mail beyond which senders stop reading */
    LOOP_MAIL_HARD_MAX = 256 << 20,
    LOOP_SLOT_BITS = 24,
    LOOP_SLOTS_FIRST = 64,
    LOOP_HARD_FACTOR = 4, /* outgoing_hard_max = outgoing_soft_max * LOOP_HARD_FACTOR */
    CONNECTION_KEEP_BUFFER = 16 << 10
};

enum pause_reason { PAUSE_JOURNAL, PAUSE_SUBSCRIBER, PAUSE_MAIL, PAUSE_REASONS };
enum drop_reason { DROP_QUEUE_FULL, DROP_PACKET_TOO_LARGE, DROP_MAIL_FULL, DROP_NO_MEMORY, DROP_REASONS };
enum close_reason { CLOSE_PROTOCOL, CLOSE_KEEP_ALIVE, CLOSE_TAKEN_OVER, CLOSE_SLOW, CLOSE_LIMIT, CLOSE_SHUTDOWN, CLOSE_REASONS };

struct client; /* row of the table of client identifiers */

struct connection {
    uv_tcp_t handle;
    struct loop *loop;
    uint32_t slot, generation;
    struct mqtt_session session;
    struct buffer in;      /* bytes of an unfinished packet */
    struct buffer out;     /* to be written at the end of this turn */
    struct buffer sending; /* handed to libuv */
    uv_write_t write;
    struct buffer waiting; /* QoS 1 messages behind the send window: struct waiting_head and the packet, each */
    size_t waiting_at;     /* what of it was taken already */
    struct connection *dirty_next;
    struct connection *paused_next;
    struct client *client;
    uint64_t progress_ns; /* when it last took bytes or acknowledged, or had nothing queued */
    uint32_t prefix;      /* bytes of `in` that were copied in front of the read buffer */
    bool large;           /* the unfinished packet is read straight into `in` */
    bool dirty, paused, writing;
    bool congested; /* more is queued for it than outgoing_soft_max; until half of that is gone */
    bool closing;   /* it will end with this turn: nothing more is read or delivered */
    bool goodbye;   /* closing: what is queued is written first */
    bool shut;      /* the handle is being closed */
    uint32_t subscriptions;
    bool will; /* a will waits for an end without DISCONNECT */
    uint8_t will_qos;
    struct buffer will_topic, will_payload;
};

struct waiting_head {
    uint32_t size;        /* of the packet */
    uint32_t id_position; /* of its packet identifier, within the packet */
};

struct loop_counters { /* written by the loop alone; read by anybody */
    _Atomic uint64_t connections, accepted, subscriptions;
    _Atomic uint64_t received[3], delivered[2];
    _Atomic uint64_t dropped[DROP_REASONS];
    _Atomic uint64_t closed[CLOSE_REASONS];
    _Atomic uint64_t paused[PAUSE_REASONS];
    _Atomic uint64_t ingest_dropped;
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
    bool sweeping;
    struct connection **slots; /* [slot_count]; NULL: free */
    uint32_t *generations;     /* [slot_count] */
    uint32_t *free_slots;      /* stack */
    uint32_t slot_count, slots_max, free_count;
    uint32_t open_count;
    _Atomic uint8_t *congested; /* [slots_max]: connection.congested by slot, for the loops of publishers */
    struct router_cache *cache;
    struct journal_producer *producer;
    struct connection *dirty, *paused;
    uint64_t turn_wall_ns; /* wall clock of this turn, 0 until it was needed */
    bool quiet, stopping;  /* what bus_quiesce and bus_stop have asked for */
    uint8_t *read_buffer;  /* [LOOP_READ_SIZE] */
    bool needs_submit;

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
    char id[]; /* zero-terminated */
};

struct listener {
    uv_poll_t poll;
    int socket;
};

struct bus {
    struct bus_options options;
    char *ingest_filter;
    uint16_t port;
    struct router *router;
    struct loop *loops; /* [options.loop_count] */
    struct listener listeners[LOOP_LISTENERS_MAX];
    unsigned listener_count;
    uv_timer_t accept_pause; /* on loop 0 */
    unsigned next_loop;
    _Atomic uint32_t connection_count;
    pthread_mutex_t clients_lock;
    struct client *clients;
    uint64_t anonymous_count; /* under clients_lock */
    uint64_t instance;        /* random: part of assigned client identifiers */
    pthread_mutex_t publish_lock;
    struct router_cache *publish_cache; /* under publish_lock */
};

/* loop.c */
int loop_start(struct loop *loop, struct bus *bus, unsigned index);
void loop_join(struct loop *loop);
void loop_fini(struct loop *loop);
void loop_mark_dirty(struct connection *connection);
void loop_pause(struct connection *connection, enum pause_reason reason);
void loop_resume(struct loop *loop);                       /* reads again from every connection that was held back */
void loop_quiesce(struct loop *loop);                      /* bus_quiesce's part on this loop */
void loop_stop(struct loop *loop);                         /* bus_stop's */
void loop_forget(struct connection *connection);           /* its slot is free again; the memory is the caller's */
struct connection *loop_new_connection(struct loop *loop); /* NULL: no memory or no slot */
uint64_t loop_wall_ns(struct loop *loop);

/* mail.c: what other threads ask of a loop */
struct mail_target {
    uint32_t slot, generation, qos;
};
/* 0, or ERR_LIMIT / ERR_NO_MEMORY when the message was not sent. */
int mail_deliver(struct loop *to, const struct mqtt_publish *publish, const struct mail_target *targets, uint32_t target_count);
void mail_socket(struct loop *to, int socket);
void mail_close(struct loop *to, uint32_t slot, uint32_t generation, enum close_reason reason);
void mail_resume_all(struct bus *bus);
void mail_quiesce(struct loop *to);
void mail_stop(struct loop *to);
void mail_read(struct loop *loop);

/* connection.c */
void connection_open(struct loop *loop, int socket);
void connection_continue(struct connection *connection);   /* starts to read, or goes on where it was held back */
void connection_note_queue(struct connection *connection); /* after what is queued for it has changed */
void connection_close(struct connection *connection, enum close_reason reason, int mqtt_reason);
void connection_drop(struct connection *connection); /* the peer is gone */
void connection_flush(struct connection *connection);
void connection_end(struct connection *connection); /* of a closing one: write and close, or close */
void connection_check(struct connection *connection, uint64_t now_ns);
size_t connection_queued(const struct connection *connection);
void connection_puback(struct connection *connection, uint16_t packet_id);
static inline struct connection *connection_find(const struct loop *loop, uint32_t slot, uint32_t generation)
{
    struct connection *connection = slot < loop->slot_count ? loop->slots[slot] : NULL;
    return connection && connection->generation == generation ? connection : NULL;
}

/* deliver.c */
/* Takes a publish: to its stream and its subscribers. False when a subscriber that is to get it acknowledged has no room: nothing was
 * done, and the message is to be offered again. With `force` it is taken all the same. */
bool deliver_publish(struct connection *from, const struct mqtt_publish *publish, bool force);
void deliver_local(struct loop *loop, struct connection *to, const struct mqtt_publish *publish, unsigned qos);
void deliver_waiting(struct connection *connection);

/* listener.c */
int listener_open(struct bus *bus);
void listener_watch(struct bus *bus); /* on loop 0, before it runs */
void listener_close(struct bus *bus); /* on loop 0 */

/* clients.c: who is connected under which client identifier */
int clients_claim(struct connection *connection, const char *id, size_t length, struct mqtt_slice *assigned);
void clients_release(struct connection *connection);

/* observe.c */
void bus_collect(void *bus, struct metrics_writer *writer);

#endif
