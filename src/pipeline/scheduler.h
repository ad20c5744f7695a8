/* Who runs when: the mailboxes of the lanes, the free workers, the time.
 *
 * One monitor (a mutex and its conditions) guards all of it. Work is moved in bulk: the consumer brings up to
 * SCHEDULER_PUSH_MAX messages at a time, a worker takes a slice of a lane and gives it back with one visit, and parsing, joining and
 * answering happen outside. So the mutex is taken a few times for a hundred messages, and there is one place to reason about.
 * Lock-free rings would save little of that, and could neither share one bounded pool of entries among the lanes nor be checked by
 * the thread sanitizer where they are written in assembler. tests/bench/bench_pipeline.c measures the whole: about 1 us a message.
 *
 * Nothing polls. A free worker sleeps; one of them, the keeper, sleeps no longer than until the first deadline of a lane.
 *
 * Bounded: SCHEDULER_ENTRIES_MAX messages in all mailboxes, SCHEDULER_BYTES_MAX of referenced batches. Of these a lane has a share of an
 * eighth, LANE_ENTRIES_MAX and LANE_BYTES_MAX: a tool that sends faster than one worker can follow must not hold up the others. What
 * comes beyond its share is put aside: its place in the mailbox is kept, its memory is not, and it is read again from the queue when its
 * turn comes. SCHEDULER_ASIDE_MAX messages of all lanes together may be aside. At a bound the consumer waits, and with it the
 * virtual clock, so that nothing is given up for what is merely unread. The clock stands too while the queue holds messages back, and all
 * that waits begins to wait anew when that is over: what it waits for may be among them, or at a sender that was held back. */
#ifndef PIPELINE_SCHEDULER_H
#define PIPELINE_SCHEDULER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/message.h"
#include "pipeline/join.h"
#include "pipeline/virtual_clock.h"
#include "queue/queue.h"

enum {
    LANE_COUNT = 256, /* a lane is the low byte of a key's hash */
    SCHEDULER_ENTRIES_MAX = 32768,
    SCHEDULER_ASIDE_MAX = 131072,
    SCHEDULER_BYTES_MAX = 64 << 20,
    LANE_ENTRIES_MAX = SCHEDULER_ENTRIES_MAX / 8,
    LANE_BYTES_MAX = SCHEDULER_BYTES_MAX / 8,
    SCHEDULER_BATCH_BYTES = 256 << 10, /* what a fetch asks for; a batch counts at least this, as its memory does */
    SCHEDULER_PUSH_MAX = 256,
    SLICE_ENTRIES_MAX = 64,
    SCHEDULER_HOLD_LOOK_MS = 100 /* how often the keeper looks whether the queue still holds messages back */
};

/* A fetched batch while entries refer to it. */
struct lane_batch {
    struct queue_batch *batch;
    size_t bytes;
    uint32_t references;
    STAILQ_ENTRY(lane_batch) released;
};
STAILQ_HEAD(lane_batch_list, lane_batch);

/* A message on its way to a lane. */
struct lane_entry {
    STAILQ_ENTRY(lane_entry) next;
    struct lane_batch *batch;      /* NULL when it was put aside, as are message and key */
    const struct message *message; /* of the batch */
    const char *key;               /* of its topic */
    uint64_t offset;               /* of the message; set by scheduler_push */
    size_t bytes;                  /* of its batch, when it is the first of the lane there */
    uint64_t key_hash;
    uint64_t arrival_ns; /* virtual clock; set by scheduler_push, as is origin_ns */
    uint64_t origin_ns;
    uint32_t key_length;
    uint8_t side;
    bool settled;
};
STAILQ_HEAD(lane_entry_list, lane_entry);

/* What a lane tells about itself when it is given back. All but the deadline say where to make room: the smallest is the oldest. */
struct lane_standing {
    uint64_t deadline_ns;
    uint64_t oldest[3]; /* [enum relief - 1]: arrival of a set, arrival of content, sequence of a finished set; UINT64_MAX: none */
};

/* What must make room, beside ordinary work. */
enum relief { RELIEF_NONE, RELIEF_SETS, RELIEF_CONTENT, RELIEF_FINISHED };

/* One visit of a worker to a lane. Zeroed before the first scheduler_next. */
struct slice {
    bool has_lane;
    unsigned lane;
    enum relief relief;               /* RELIEF_NONE: ordinary work */
    struct lane_entry_list entries;   /* to do, at most SLICE_ENTRIES_MAX; what is left goes back to the mailbox */
    struct lane_entry_list done;      /* moved here by the worker */
    bool drained;                     /* the mailbox held no more: deadlines up to now_ns may be handled behind the entries */
    uint64_t now_ns;                  /* virtual clock at taking */
    uint64_t restarted_ns;            /* the clock's last restart: nothing has waited for longer */
    struct join_options join_options; /* in force */
    struct lane_standing standing;    /* filled by the worker */
};

struct lane_mailbox {
    struct lane_entry_list entries;
    /* Of the entries here and in the slice of the worker that runs the lane: */
    unsigned count, aside_count;
    size_t bytes; /* of the batches to which they refer */
    const struct lane_batch *last_batch;
    struct lane_standing standing;
};

struct scheduler {
    pthread_mutex_t lock;
    pthread_cond_t work, alarm, room; /* free workers; the keeper; the consumer */
    struct lane_mailbox lanes[LANE_COUNT];
    uint64_t ready[LANE_COUNT / 64], running[LANE_COUNT / 64];
    unsigned next_lane; /* from where to look for a ready one */
    struct lane_entry *entries;
    struct lane_entry_list unused;
    unsigned entry_count, aside_count; /* in mailboxes and slices, and how many of them were put aside */
    bool can_put_aside;
    size_t batch_bytes;

    struct virtual_clock clock;
    struct queue *queue;
    uint64_t holds;        /* of the queue, as last seen: odd while it holds messages back */
    uint64_t restarted_ns; /* virtual clock; 0: never since the start */
    bool caught_up;        /* the clock runs by itself, unless messages are held back */
    uint64_t earliest_ns;  /* no lane's deadline is earlier */
    uint64_t alarm_ns;     /* how long the keeper sleeps; UINT64_MAX: until it is woken */
    bool has_keeper;
    unsigned idle; /* free workers, the keeper included */
    enum consumer_wait { WAITS_FOR_NOTHING, WAITS_FOR_BYTES, WAITS_FOR_ENTRY } consumer_waits;
    const struct lane_mailbox *full_mailbox; /* while it waits for an entry */
    bool consumer_gone;
    bool stopping, aborting;
    struct join_options join_options;
};

/* The queue is asked whether it holds messages back, and whether a message can be read again by its offset. */
int scheduler_init(struct scheduler *scheduler, struct queue *queue);
void scheduler_fini(struct scheduler *scheduler); /* no thread is in it any more; releases all batches */

/* From the next slice of each lane on; every lane is visited soon. Any thread. */
void scheduler_configure(struct scheduler *scheduler, const struct join_options *options);

/* ---- the consumer ---- */

/* Waits until another batch may be fetched. False when stopping. */
bool scheduler_wait_for_room(struct scheduler *scheduler);

/* Waits that long, or until stopping, because the queue cannot be read; the clock stands still. */
void scheduler_pause(struct scheduler *scheduler, uint64_t span_ns);

/* The queue has nothing more: from now until the next batch the clock runs by itself. */
void scheduler_catch_up(struct scheduler *scheduler);

/* Takes a fetched batch over into `batch` (malloc'd by the caller, who gives it away), with one reference for the caller. */
void scheduler_open_batch(struct scheduler *scheduler, struct lane_batch *batch, struct queue_batch *fetched);

/* Hands `count` (at most SCHEDULER_PUSH_MAX) messages of a batch, in order, to their lanes; those without a key only move the clock.
 * Waits for room. False when stopping: the rest was left out and is delivered again after a restart. */
bool scheduler_push(struct scheduler *scheduler, struct lane_batch *batch, const struct lane_entry *entries, size_t count);

/* Gives up the caller's reference. */
void scheduler_close_batch(struct scheduler *scheduler, struct lane_batch *batch);

void scheduler_consumer_ended(struct scheduler *scheduler);

/* ---- workers ---- */

/* Gives the lane of the slice back, if it has one, and waits for the next. With a relief other than NONE, a lane that nobody runs and
 * that holds the oldest of its kind comes first. False when it is time to end: stopping and all done, or aborting. */
bool scheduler_next(struct scheduler *scheduler, struct slice *slice, enum relief relief);

/* ---- anyone ---- */

/* From now on nothing more is taken in and no deadline is handled; workers end when the mailboxes are empty. */
void scheduler_stop(struct scheduler *scheduler);
/* Workers end when they have finished their slice. */
void scheduler_abort(struct scheduler *scheduler);

/* Messages in mailboxes and slices. */
unsigned scheduler_depth(struct scheduler *scheduler);

#endif
