/* Where views have been in a stream, so that the next one that begins nearby need not read the segment from its beginning. */
#ifndef QUEUE_TRAIL_H
#define QUEUE_TRAIL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "journal/journal.h"

enum {
    TRAIL_MAX = 4096,     /* places; the oldest make room */
    TRAIL_STEP = 1 << 20, /* bytes between two of one segment */
};

struct trail {
    pthread_mutex_t lock;
    size_t count;
    struct reader_place places[TRAIL_MAX]; /* ascending, [count] */
};

void trail_init(struct trail *trail);
void trail_fini(struct trail *trail);

/* Any thread. A place that lies nearer to another than TRAIL_STEP is not noted. */
void trail_note(struct trail *trail, const struct reader_place *place);

/* The last place at or before an offset; false: there is none. */
bool trail_find(struct trail *trail, uint64_t offset, struct reader_place *place);

#endif
