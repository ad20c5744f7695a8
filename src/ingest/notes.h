/* What has to be known of other brokers after a restart: durable in the queue's notes (QUEUE_NOTED), beside the messages.
 *
 * QoS 2, on the way in. A broker that has our PUBREC sends PUBREL, and may use the packet identifier again when it has our PUBCOMP. Which
 * identifiers lie between the two must survive a crash: a PUBLISH under one of them is a repetition, under any other a new message. An
 * identifier is taken by the record of the message itself, which carries session, sequence number and identifier (struct queue_origin): so
 * message and identifier are on disk together, or neither is. It is given back by a note, which is durable before PUBCOMP leaves. The
 * sequence number orders the two: a note gives back what was taken up to its number.
 *
 * The way out. What was published to a broker and acknowledged is a cursor into the stream that is published, with the broker that it was
 * published to. With QoS 2 it has two places: before `received` the broker has said PUBREC, which is durable here before our PUBREL
 * leaves; before `completed` it has said PUBCOMP. A message's packet identifier follows from its offset, so nothing else needs to be known.
 *
 * A start reads the notes, and in the streams of messages what lies behind the places that the last checkpoint names. A checkpoint repeats
 * the identifiers whose messages are durable. Nothing tells which of two records in different streams reaches the disk first, so what is
 * not durable yet stands in none: its records lie behind the places where the streams ended when the checkpoint before was appended, since
 * all that had been appended by then was told durable with that one. Those are the places that a checkpoint names, and what lies before
 * them, in the notes too, may be removed when it is durable itself. */
#ifndef INGEST_NOTES_H
#define INGEST_NOTES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "queue/queue.h"

enum {
    NOTES_CURSORS_MAX = 64,
    NOTES_HELD_MAX = 1 << 22,         /* identifiers */
    NOTES_CHECKPOINT_EVERY = 2048,    /* messages of QoS 2 and identifiers given back, between two checkpoints */
    NOTES_CHECKPOINT_BYTES = 64 << 20 /* bytes of messages of QoS 2 between two checkpoints */
};

struct notes_cursor {
    uint64_t name;                /* of the way out; never 0 */
    uint64_t broker;              /* to which the messages from `completed` on were published, as far as they were */
    uint64_t received, completed; /* offsets; completed <= received */
};

struct notes_held; /* an identifier that is taken */

struct notes_places {
    uint64_t consumed, kept, noted; /* offsets in the streams of that content */
};

struct notes {
    uint64_t instance; /* random, made at the first start; never 0 */
    uint64_t sequence; /* of the newest message that came from a broker */
    struct notes_held *held;
    struct notes_cursor cursors[NOTES_CURSORS_MAX];
    unsigned cursor_count;
    struct buffer released;            /* of this turn */
    uint64_t dirty_cursors;            /* bit i: cursors[i] has changed */
    uint64_t since_count, since_bytes; /* since the last checkpoint */
    struct notes_places from;          /* that the last checkpoint names: nothing before is needed when it is durable */
    struct notes_places ends;          /* of the streams when it was appended */
};

/* Reads what is known. Without any, it is a first start. Returns 0, ERR_CORRUPT (a note that is none of ours), ERR_LIMIT, ERR_NO_MEMORY or
 * of the disk; notes_fini in any case. */
int notes_load(struct notes *notes, struct queue *queue);
void notes_fini(struct notes *notes);

/* Gives out the identifiers that are held for a session, which are its owner's from now on. Stops at the first error of `each`. */
int notes_take_session(struct notes *notes, uint64_t session, int (*each)(void *context, uint16_t packet_id), void *context);

/* An identifier is given back (0: all of the session), with the next notes_write. ERR_NO_MEMORY, ERR_LIMIT. */
int notes_release(struct notes *notes, uint64_t session, uint16_t packet_id);

/* The cursor of that name; NULL: there is none yet, and no room for another when `add`. A new one is all zero but for its name. */
struct notes_cursor *notes_cursor(struct notes *notes, uint64_t name, bool add);
void notes_cursor_changed(struct notes *notes, const struct notes_cursor *cursor);

/* Appends what was given back (nothing: no note); the token comes back when it is durable. */
int notes_write(struct notes *notes, struct queue_producer *producer, uint64_t token);

/* Appends the cursors that have changed, the same. */
int notes_write_cursors(struct notes *notes, struct queue_producer *producer, uint64_t token);

/* What the owner holds: calls `put` for each identifier of each session that he has taken over whose message is durable. */
typedef int notes_put(void *context, uint64_t session, uint16_t packet_id);
typedef int notes_each(void *owner, notes_put *put, void *context);

/* Appends a checkpoint; the token comes back when it is durable, and not before may there be another. */
int notes_checkpoint(struct notes *notes, struct queue *queue, struct queue_producer *producer, notes_each *each, void *owner,
                     uint64_t token);

#endif
