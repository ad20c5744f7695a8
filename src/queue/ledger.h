/* The ledger: which messages of a consumed stream have an outcome, and which.
 *
 * It holds a cursor (everything below it is settled), one bit for each offset beyond it, and the counts. On disk it is the stream
 * `outcomes`: each record names the consumed stream as its topic and holds entries of 8 bytes: offset (48 bits), outcome (8), reason
 * (8; the row of reasons.def, 0 unless dead-lettered). Now and then a checkpoint (its properties are the word "checkpoint") holds the whole
 * ledger, so that what lies before it may be forgotten; it says up to which record of `outcomes` it includes them.
 *
 * Entries are applied once: a second outcome for the same offset changes nothing.
 *
 * Marks. What became of a dead letter is kept the same way, in a ledger of its own: records of `outcomes` whose topic is `dead-letters`,
 * with the outcomes of enum ledger_mark, and checkpoints, written together with those of the consumed stream. A dead letter without a mark
 * is open. A requeued one is marked when its message, which names it, is read by the consumer: before that message can have an outcome. So
 * where a crash cut the mark off, the message is pending still, is read again, and its dead letter is marked then. */
#ifndef QUEUE_LEDGER_H
#define QUEUE_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "journal/journal.h"
#include "queue/queue.h"
#include "queue/reason.h"

/* What became of a dead letter, in the place of an outcome. */
enum ledger_mark { LEDGER_MARK_REQUEUED = QUEUE_COMPLETED, LEDGER_MARK_PURGED = QUEUE_DUPLICATE };

enum { LEDGER_WINDOW_MAX = 1 << 28 }; /* most offsets between the cursor and the newest outcome; 32 MiB of bits */

struct ledger {
    uint64_t cursor; /* lowest offset without an outcome */
    uint64_t completed, duplicates;
    uint64_t dead_lettered[REASON_COUNT];
    uint64_t beyond;   /* settled offsets beyond the cursor */
    uint64_t highest;  /* offset behind the highest settled one */
    uint64_t left_out; /* outcomes that ledger_apply could not take, beyond LEDGER_WINDOW_MAX */
    uint64_t *words;   /* ring of bits: offset o is bit o % 64 of words[o / 64 % word_count] */
    size_t word_count; /* a power of two */
};

void ledger_init(struct ledger *ledger);
void ledger_fini(struct ledger *ledger);

/* Gives an offset its outcome. Returns 1 when it is new, 0 when it had one, ERR_LIMIT beyond LEDGER_WINDOW_MAX, ERR_NO_MEMORY. */
int ledger_settle(struct ledger *ledger, uint64_t offset, enum queue_outcome outcome, unsigned reason);
bool ledger_is_settled(const struct ledger *ledger, uint64_t offset);
uint64_t ledger_dead_lettered(const struct ledger *ledger);

/* Gives up everything before `first`: nothing there is without an outcome any more. */
void ledger_forget(struct ledger *ledger, uint64_t first);

/* The four terms for a stream whose next offset is `accepted`. pending is counted from cursor and bits, not as a difference of the
 * others; it is 0 when the ledger speaks of more than there is (ledger_fits). unread is left 0. */
void ledger_counts(const struct ledger *ledger, uint64_t accepted, struct queue_counts *counts);

/* ---- on disk ---- */

static inline uint64_t ledger_entry(uint64_t offset, enum queue_outcome outcome, unsigned reason)
{
    return offset << 16 | (uint64_t)outcome << 8 | reason;
}

/* Applies the payload of a record of `outcomes`. Returns 0, or ERR_CORRUPT when it is none, or ERR_NO_MEMORY; then it may be applied in
 * part. ERR_LIMIT: all of it is applied but the outcomes beyond LEDGER_WINDOW_MAX. */
int ledger_apply(struct ledger *ledger, const struct message *record);

/* Appends the payload of a checkpoint that includes all of `outcomes` before record `applied`. */
int ledger_checkpoint_encode(const struct ledger *ledger, uint64_t applied, struct buffer *out);
extern const char ledger_checkpoint_mark[]; /* its properties */
extern const char ledger_marks_stream[];    /* "dead-letters": the topic of marks */

/* Segments of `results` and of `dead-letters`, the newest, in which a start looks for outcomes that a crash cut off. */
enum { LEDGER_TAIL_SEGMENTS = 2 };

/* Replaces the ledger by that of the newest checkpoint of `stream` in the folder `outcomes`, if there is one; then *applied is the record
 * of `outcomes` before which it includes all. Returns 0, or an error of the reader. */
int ledger_load_checkpoint(struct ledger *ledger, struct disk *disk, const char *outcomes, const char *stream, uint64_t *applied,
                           bool *found);

bool ledger_is_checkpoint(const struct message *record);
bool ledger_is_of_marks(const struct message *record); /* of the dead letters' ledger */

/* Replaces the ledger by the one that a checkpoint holds. Returns 0, or ERR_CORRUPT when it is none. */
int ledger_checkpoint_decode(struct ledger *ledger, const struct message *record, uint64_t *applied);

/* What the consumed stream holds: offsets first .. next-1. */
struct ledger_extent {
    uint64_t first, next;
    uint64_t spoken_of; /* offset behind the highest that outcomes, results and dead letters name */
};

/* Damage in `stream` from which something follows for the ledger: what the lost records said of messages is not known; or, in the consumed
 * stream itself, messages are lost that have no outcome, or nobody knows how many. */
typedef void (*ledger_on_damage)(void *context, const char *stream, const struct reader_damage *damage);

/* Rebuilds the ledger of `stream` from the folders of a data directory, as a start and an audit do: the last checkpoint, the entries behind
 * it, and the sources named by the newest results and dead letters (whose entry a crash may have cut off). What lies beyond
 * LEDGER_WINDOW_MAX is counted in ledger->left_out; those messages are pending. Changes nothing. */
int ledger_load(struct ledger *ledger, struct disk *disk, const char *data_folder, const char *stream, struct ledger_extent *extent,
                ledger_on_damage on_damage, void *context);

/* The same; appends to `entries`, as far as it takes them, the outcomes that only answers and dead letters tell, because a crash has cut
 * them off. */
int ledger_load_found(struct ledger *ledger, struct disk *disk, const char *data_folder, const char *stream, struct ledger_extent *extent,
                      ledger_on_damage on_damage, void *context, struct buffer *entries);

/* Rebuilds the ledger of the marks. Where they speak of dead letters that the stream does not hold, which are those of another time, none
 * is taken. With `pending_from`, the cursor of the consumed stream, requeued messages from there on are looked for too: whoever has no
 * consumer to mark them needs that; UINT64_MAX: not. Changes nothing. */
int ledger_load_marks(struct ledger *marks, struct disk *disk, const char *data_folder, uint64_t pending_from, struct ledger_extent *extent,
                      ledger_on_damage on_damage, void *context);

enum ledger_fit {
    LEDGER_FITS,
    LEDGER_AHEAD, /* outcomes of messages that the stream does not hold: its end is missing */
    LEDGER_BEHIND /* messages without an outcome, some of which the stream holds no more: its beginning is missing */
};

/* Whether the ledger and what the stream holds belong together. If not, why[] says what is missing, as the end of a sentence. */
enum { LEDGER_WHY_MAX = 384 };
enum ledger_fit ledger_fits(const struct ledger *ledger, const struct ledger_extent *extent, char why[LEDGER_WHY_MAX]);

#endif
