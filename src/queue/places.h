/* Where messages of a stream lie, as far as it was read: so that one of them can be read again without reading all that is before it. */
#ifndef QUEUE_PLACES_H
#define QUEUE_PLACES_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "journal/journal.h"

enum {
    PLACES_MAX = 65536,     /* remembered ... */
    PLACES_STEP = 256 << 10 /* ... at least so many bytes apart */
};

struct places {
    pthread_mutex_t lock;
    struct reader_place *ring; /* [PLACES_MAX], ascending */
    size_t count, next;
};

/* Returns 0 or ERR_NO_MEMORY; places_fini is due in either case. */
int places_init(struct places *places);
void places_fini(struct places *places);

/* Where the reader stands is remembered when it is far enough from what was remembered last. The thread that reads, from front to back. */
void places_remember(struct places *places, const struct reader *reader);

/* Reads the message of an offset. *copy is malloc'd with its topic, payload and properties behind it; free() it. Any thread. Returns 0,
 * ERR_NOT_FOUND, ERR_NO_MEMORY or an error of reading. */
int places_read(struct places *places, struct journal_stream *stream, uint64_t offset, struct message **copy);

#endif
