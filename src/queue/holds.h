/* How far the streams of an embedded queue may be removed: each holder says from where on it needs a stream, and what all of them have
 * passed is nobody's any more. */
#ifndef QUEUE_HOLDS_H
#define QUEUE_HOLDS_H

#include <pthread.h>
#include <stdint.h>

#include "journal/journal.h"
#include "queue/queue.h"

/* Who holds the consumed stream besides: the ledger, at its cursor. */
enum { HOLDS_LEDGER = QUEUE_HOLDERS, HOLDS_COUNT };

struct holds {
    pthread_mutex_t lock;
    struct journal_stream *streams[QUEUE_CONTENT_COUNT]; /* NULL: there is none */
    uint64_t at[QUEUE_CONTENT_COUNT][HOLDS_COUNT];       /* UINT64_MAX: nothing is held */
};

/* `holders`: bits of enum queue_holder. Each of them holds everything, the ledger the consumed stream from `cursor` on. */
void holds_init(struct holds *holds, struct journal_stream *const streams[QUEUE_CONTENT_COUNT], unsigned holders, uint64_t cursor);
void holds_fini(struct holds *holds);

/* Nothing at or beyond `offset` is removed. Any thread. */
void holds_move(struct holds *holds, enum queue_content content, unsigned holder, uint64_t offset);

#endif
