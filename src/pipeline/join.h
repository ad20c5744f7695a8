/* The join of one lane: which messages belong together, how long they wait, and what becomes of those that wait in vain.
 *
 * Pure: parsed messages and times come in, decisions go out; the caller settles, answers and dead-letters as it is told.
 * Times are those of the virtual clock and never fall. One owner.
 *
 * A set is called by key and stamp. An id, where a message has one, must agree: two holes of one tool in one second have one stamp
 * and two ids, and are two sets. A message without id joins any set of its stamp, one that lacks its side first. One whose id is a hint
 * joins the set of that id. Where there is none it waits for it, alone, and goes to the first set of its stamp that is answered without
 * its side; once hints have proved wrong, and until one is right again, it joins such a set at once.
 *
 * - A set is ready when all required sides are there. It is answered when it has all sides, or when the grace has passed since it became
 *   ready; but the sets of one key are answered in the order in which they became ready, so one with all sides waits behind an older one
 *   of its key that is still in its grace. That one's grace ends first, so nothing waits longer than its own.
 * - Any other set is answered or given up when the time window has passed since its first message came: answered when another open set
 *   of its key and stamp has, under another id, exactly the required sides that it lacks. Then the two are one set whose ids disagree.
 * - A broken message has been dead-lettered before it comes here, yet it fills its side: its set is answered (with an error) when
 *   the other sides are there, provided that one message of it is good. Broken ones alone vanish silently.
 * - A message of a set that was answered is a duplicate, or late if it is of an optional side that the answer lacked.
 * - A message that had been given up and comes again is never called late, and a duplicate only of another: when it had been refused for
 * its content, or lost by a failure, the answered set that had its side had it from this very message. It opens a set or joins an open one.
 */
#ifndef PIPELINE_JOIN_H
#define PIPELINE_JOIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "pipeline/finished.h"
#include "pipeline/hash_table.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage.h"
#include "queue/queue.h"

enum {
    JOIN_NEAR_SETS_MAX = 256, /* how many open sets of a key are looked at when stamps need only be near */
    JOIN_SETTLEMENTS_MAX = 2 * STAGE_SIDES_MAX,
    JOIN_SIDE_MASKS = 1 << STAGE_SIDES_MAX
};

struct join_options {
    uint64_t time_window_ns;
    uint64_t grace_ns;
    enum pipeline_duplicates duplicates;
};

/* A parsed message; borrowed. */
struct join_message {
    const char *key;
    uint32_t key_length;
    uint64_t key_hash;
    uint64_t offset;
    uint64_t arrival_ns; /* virtual clock */
    uint64_t origin_ns;  /* monotonic clock at acceptance, for latencies; only carried along */
    bool again;          /* it had been given up before */
    bool was_refused;    /* then, for its content or by a failure; with `again` */
};

struct join_member {
    TAILQ_ENTRY(join_member) held; /* while it has content in memory */
    struct stage_item item;
    uint64_t offset;
    uint64_t arrival_ns;
    uint64_t origin_ns;
    bool is_held;
    bool is_freed;           /* the stage has its item back: only stamp, id and side are left */
    bool dropped;            /* for lack of memory; to be read again when it is needed */
    bool again, was_refused; /* as its join_message says */
};

struct join_set;
TAILQ_HEAD(join_set_list, join_set);

/* The open sets of one key. Its name is that of any of them, as it is with the next. */
struct join_key {
    struct hash_node node;
    struct join_set_list sets;  /* newest first */
    struct join_set_list ready; /* in the order in which they became ready */
};

/* The open sets of one key and stamp: any number of ids, and beside them at most one set that knows no id yet. */
struct join_stamp {
    struct hash_node node;
    struct join_key *of_key;
    unsigned set_count;
    char text[STAGE_STAMP_MAX];
    struct join_set_list by_sides[JOIN_SIDE_MASKS]; /* by the sides that they have; longest so first */
};

enum join_wait { JOIN_IN_WINDOW, JOIN_IN_GRACE, JOIN_DUE };

struct join_set {
    struct hash_node by_id; /* by key, stamp and id */
    struct join_stamp *of_stamp;
    TAILQ_ENTRY(join_set) in_key, in_ready, in_stamp, timer;
    struct join_member *members[STAGE_SIDES_MAX]; /* broken ones have their outcome already, the others none */
    unsigned sides;
    enum join_wait wait; /* which list `timer` is in */
    bool mismatched;     /* put together of two sets whose ids disagree */
    uint64_t first_ns;   /* arrival of the first message */
    uint64_t ready_ns;   /* when it became ready */
    uint64_t key_hash;
    uint32_t key_length;
    char stamp[STAGE_STAMP_MAX];
    char id[STAGE_ID_MAX]; /* "" until a member has one */
    char key[];
};

struct join_settlement {
    uint64_t offset;
    enum queue_outcome outcome;
    const char *reason; /* when dead-lettered */
};

struct join_decisions {
    struct join_settlement settlements[JOIN_SETTLEMENTS_MAX];
    unsigned count;
    char error[STAGE_ERROR_TEXT_MAX]; /* of the dead letters among them */
    struct join_set *answer;          /* to be answered, its good messages settled with it; give it to join_finish() */
};

/* Parses a message again. Returns 0 with *item as parse() gave it the first time, or an error. */
typedef int (*join_reload)(void *context, const struct join_set *set, const struct join_member *member, struct stage_item *item);

struct join {
    struct stage *stage;
    unsigned all_sides;
    struct join_options options;
    bool distrusts_hints; /* the last set that was answered with a hint and an id had two different ones */
    join_reload reload;   /* NULL: content is never dropped */
    void *reload_context;
    struct hash_table ids, stamps, keys;
    struct join_set_list waiting, grace, due;       /* oldest first_ns, oldest ready_ns first; to be answered at once */
    TAILQ_HEAD(join_member_list, join_member) held; /* longest held first */
    struct finished finished;
    /* What it holds, for whoever bounds it. */
    uint64_t open_count;    /* sets */
    uint64_t waiting_count; /* messages in them, broken ones included */
    uint64_t held_bytes;    /* of their content */
};

void join_init(struct join *join, struct stage *stage, uint32_t finished_sets_max);
void join_fini(struct join *join);

/* Takes effect at once, for open sets too. */
void join_configure(struct join *join, const struct join_options *options);
void join_set_reload(struct join *join, join_reload reload, void *context);

/* A message came. Takes *item. Fills *decisions. */
void join_add(struct join *join, const struct join_message *message, struct stage_item *item, struct join_decisions *decisions);

/* Handles one set whose time is up by now_ns, or that an answer has let go. False when there is none. True with empty decisions: a set of
 * broken messages went, or two sets became one that waits for its turn. */
bool join_expire(struct join *join, uint64_t now_ns, struct join_decisions *decisions);

/* When join_expire will have something to do; 0 when it has now, UINT64_MAX when nothing waits. */
uint64_t join_deadline(const struct join *join);

/* All open sets wait from now_ns on, as if their messages had just come. */
void join_restart(struct join *join, uint64_t now_ns);

/* Makes room: gives up the oldest set (answers it if only the grace kept it). False when there is none. */
bool join_give_up_oldest(struct join *join, uint64_t now_ns, struct join_decisions *decisions);

/* Makes room: drops the content that is held longest. False when nothing is held or nothing can be read again. */
bool join_drop_oldest_content(struct join *join);

/* An answered set: remembers it as finished under this sequence number and frees it. */
void join_finish(struct join *join, struct join_set *set, uint64_t sequence);

/* A set that was answered in an earlier life. Returns 0 or ERR_NO_MEMORY. */
int join_remember(struct join *join, uint64_t sequence, const struct set_name *name, unsigned sides);

/* Arrival of the oldest open set and of the longest held content; UINT64_MAX when there is none. */
uint64_t join_oldest_set_ns(const struct join *join);
uint64_t join_oldest_content_ns(const struct join *join);

#endif
