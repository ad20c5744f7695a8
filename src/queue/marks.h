/* The marks of a running queue: which dead letters were requeued or purged (ledger.h). Any thread. */
#ifndef QUEUE_MARKS_H
#define QUEUE_MARKS_H

#include <pthread.h>

#include "queue/ledger.h"

struct marks {
    pthread_mutex_t lock;
    struct ledger ledger;
};

void marks_init(struct marks *marks);
void marks_fini(struct marks *marks);

/* In memory. Returns 1 when it is new, 0 when there was one, ERR_LIMIT or ERR_NO_MEMORY. */
int marks_set(struct marks *marks, uint64_t dead_letter, enum ledger_mark mark);
bool marks_is_set(struct marks *marks, uint64_t dead_letter);

/* Applies a record of `outcomes` that has become durable. */
int marks_apply(struct marks *marks, const struct message *record);

/* How many of `accepted` dead letters were requeued (completed), purged or let go by retention (duplicates), and are open (pending). */
void marks_counts(struct marks *marks, uint64_t accepted, struct queue_counts *counts);

/* Appends the payload of a checkpoint; what lies before `first_kept` is forgotten. */
int marks_checkpoint(struct marks *marks, uint64_t first_kept, uint64_t applied, struct buffer *out);

enum { MARKS_RECORD_MAX = 4096 }; /* in one record */

/* Appends one record with marks to the open chunk of a producer; count <= MARKS_RECORD_MAX. */
int marks_append(struct journal_producer *producer, struct journal_stream *outcomes, const uint64_t *dead_letters, size_t count,
                 enum ledger_mark mark);

/* Marks the dead letters that were put back as some of these messages (at most MARKS_RECORD_MAX), in memory and, with what the producer
 * sends off here, on disk: to be called before any of them can have an outcome (ledger.h). */
int marks_take_requeued(struct marks *marks, struct journal_producer *producer, struct journal_stream *outcomes,
                        const struct message *messages, size_t count);

#endif
