/* Private to the follower: what its thread works on. Who calls from other threads touches the commands, and what is atomic.
 *
 * A seat is a member in one stream. It is in a sweep; or it waits, because all sweeps are taken; or it is parked, because its member lacks
 * room, has not begun, or is handed first what it wants again. A sweep reads on from one position for all that sit in it. It is the sweep
 * at the end, or one of those behind, or it brings one member what that wants again (its seat is parked then).
 *
 * A seat may sit in a sweep that has not reached it: its subscriptions take part from its place on, as each does from the place where it
 * begins.
 *
 * All sweeps of a stream match with one router. A subscription is in it from the time on when the sweep in which its member sits comes to
 * where it begins; who does not sit in the sweep that has a message is passed over. So a member may leave a sweep and sit down in another,
 * as a slow one does for each message, at a cost that its subscriptions have no part in. */
#ifndef SESSIONS_FOLLOWER_PARTS_H
#define SESSIONS_FOLLOWER_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/lists.h"
#include "sessions/follower.h"

enum {
    FOLLOWER_SWEEPS = FOLLOWER_SWEEPS_MAX + 1,
    FOLLOWER_NEAR = 4096,          /* messages that are rather read in vain than a view is opened */
    FOLLOWER_TURNS_MAX = 8,        /* that a sweep has while others wait for one */
    FOLLOWER_PAUSE_MS = 1000,      /* after an error of the disk, or without memory */
    FOLLOWER_REFUSED_MS = 1,       /* until a delivery that was refused is offered again */
    FOLLOWER_TOPICS_MAX = 8192,    /* of which a sweep remembers whom they match, ... */
    FOLLOWER_CACHE_BYTES = 2 << 20 /* ... and the bytes of that */
};

enum follower_asked { FOLLOWER_JOIN, FOLLOWER_SUBSCRIBE, FOLLOWER_UNSUBSCRIBE, FOLLOWER_GRANT, FOLLOWER_LEAVE };

struct follower_command {
    struct follower_command *next;
    struct follower_member *member;
    enum follower_asked asked;
    bool queued; /* under the lock */
};

struct follower_subscription {
    struct follower_command command;           /* with which it came, SUBSCRIBE or UNSUBSCRIBE */
    struct follower_subscription *prev, *next; /* of its member */
    struct follower_subscription *chain;       /* in the index */
    uint64_t hash;
    struct router_subscription how;
    struct follower_places from;
    bool active[FOLLOWER_CONTENTS]; /* it has begun: it is in the router of the stream */
    uint32_t length;
    char filter[];
};

struct follower_seat {
    struct follower_member *member;
    struct follower_seat *prev, *next; /* of its sweep, or of those that wait */
    struct follower_sweep *sweep;      /* NULL: in none */
    bool waits;
    size_t active;        /* subscriptions that have begun */
    uint64_t active_from; /* where its next subscription begins, or earlier; UINT64_MAX: all have begun */
    /* For follower_passed: odd while the two below change. */
    _Atomic uint32_t version;
    _Atomic(const struct follower_sweep *) passes; /* its position counts too where it is beyond `place`; or NULL */
    _Atomic uint64_t place;
};

struct follower_member {
    struct follower *follower;
    struct follower_member *prev, *next;
    struct follower_command join, grant, leave;
    uint16_t loop;
    uint32_t connection, generation;
    _Atomic uint64_t granted_messages, granted_bytes, handed;
    uint64_t handed_bytes;
    atomic_bool starved; /* it is to be told of a grant */
    struct follower_seat seats[FOLLOWER_CONTENTS];
    struct follower_subscription *subscriptions;
    size_t subscription_count;
    struct follower_places places; /* as it joined */
    struct follower_sweep *resends;
    size_t again_at, again_count;
    struct follower_again again[];
};

struct follower_stream;

struct follower_sweep {
    struct follower_stream *stream; /* NULL: the slot is free */
    struct queue_view *view;        /* NULL: it is opened when something is to be read */
    _Atomic uint64_t position;      /* all that lies before was handed */
    struct message message;         /* the next, read and not handed; borrowed from the view */
    uint64_t origin_session;
    bool has_message;
    unsigned served;                         /* loops below it have been handed the message */
    size_t active;                           /* subscriptions of those that sit in it, that have begun */
    struct follower_seat *seats, *beginning; /* `beginning`: those with subscriptions that have not begun */
    size_t seat_count;
    uint64_t active_from;            /* the least of theirs, or less */
    struct follower_member *resends; /* not NULL: what this member wants again is read */
    bool stands;                     /* its only member lacks room */
    uint64_t retry_ns;
    unsigned turns;
};

struct follower_stream {
    struct follower *follower;
    unsigned index;        /* in follower_contents */
    uint64_t limit;        /* where it ended before the last commands were taken: so far is read */
    struct router *router; /* NULL: no subscription has begun yet */
    struct router_cache *cache;
    struct follower_sweep sweeps[FOLLOWER_SWEEPS];
    struct follower_sweep *end; /* the one at the end, or NULL */
    size_t open_count;          /* of sweeps */
    struct follower_seat *waiting;
};

struct follower {
    struct follower_options options;
    pthread_t thread;
    uint64_t now_ns; /* monotonic, of this round */

    pthread_mutex_t lock; /* commands, stopping */
    pthread_cond_t wake;
    struct follower_command *first, **last;
    bool stopping;
    atomic_bool sleeping, news;

    struct follower_stream streams[FOLLOWER_CONTENTS];
    struct follower_member *members;
    struct follower_subscription **index; /* by member and filter; [index_mask + 1] */
    size_t index_mask, subscription_count;
    struct router_subscription *targets; /* [target_capacity] */
    size_t target_capacity;
    _Atomic uint64_t member_count, sweep_count, read_count, handed_count, gone_count;
};

/* ---- follower_seats.c ---- */

void follower_seat_set(struct follower_seat *seat, const struct follower_sweep *passes, uint64_t place);

/* Whether the member may be handed a message; if not, its next grant comes as a command. */
bool follower_has_room(struct follower_member *member);
void follower_count_handed(struct follower_member *member, const struct message *message);

/* Into a sweep that is not beyond its place, and out of it. A sweep that is empty then is the caller's to close. */
void follower_seat_sit(struct follower_sweep *sweep, struct follower_seat *seat);
void follower_seat_rise(struct follower_seat *seat);

/* Those subscriptions take part that begin at the sweep's position. Returns 0 or ERR_NO_MEMORY. */
int follower_sweep_activate(struct follower_sweep *sweep);
struct follower_member *follower_routed_member(const struct router_subscription *routed);

/* The first takes it over, and frees one to the same filter. */
void follower_subscription_add(struct follower_member *member, struct follower_subscription *subscription);
void follower_subscription_remove(struct follower_member *member, const char *filter, size_t length);
void follower_member_free(struct follower_member *member); /* sits nowhere */

/* Whether the message at which the sweep stands may be for it. */
bool follower_seat_takes_part(const struct follower_seat *seat, const struct follower_sweep *sweep);

/* ---- follower_sweep.c ---- */

/* Gives a parked seat a sweep, or lets it wait for one. */
void follower_seat_place(struct follower_stream *stream, struct follower_seat *seat);
void follower_seat_wait(struct follower_stream *stream, struct follower_seat *seat);
void follower_seat_park(struct follower_stream *stream, struct follower_seat *seat); /* from wherever it is */

struct follower_sweep *follower_sweep_open(struct follower_stream *stream, uint64_t position); /* in a slot that is free */
void follower_sweep_close(struct follower_sweep *sweep);                                       /* nobody sits in it */
void follower_sweep_drop_view(struct follower_sweep *sweep);
void follower_sweep_pause(struct follower_sweep *sweep, int error);
/* Fetches the next message, if there is none. ERR_TRUNCATED: there is none yet. */
int follower_sweep_read(struct follower_sweep *sweep);

size_t follower_stream_behind(const struct follower_stream *stream); /* sweeps besides the one at the end */

/* One turn. Returns whether there is more to do at once. */
bool follower_sweep_turn(struct follower_sweep *sweep);
/* Gives sweeps to those that wait, as far as there are any; whether it would. */
void follower_stream_serve(struct follower_stream *stream);
bool follower_stream_serves(struct follower_stream *stream);

/* ---- follower_again.c ---- */

/* The member is handed what it still wants again, and then sits down in each stream. */
void follower_resume(struct follower_member *member);
bool follower_again_turn(struct follower_sweep *sweep);
/* The least place of a stream that it wants again or has not come to. */
uint64_t follower_again_place(const struct follower_member *member, unsigned content);

#endif
