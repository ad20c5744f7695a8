/* Reading the streams of an embedded queue from a place on, and the origins that stand in their records. */
#ifndef QUEUE_EMBEDDED_VIEW_H
#define QUEUE_EMBEDDED_VIEW_H

#include "journal/journal.h"
#include "queue/queue.h"
#include "queue/trail.h"

/* An origin stands where a record has the offsets of its sources (journal/format.h): the session; sequence and packet identifier. */
enum { EMBEDDED_ORIGIN_WORDS = 2 };

static inline void embedded_origin_encode(const struct queue_origin *origin, uint64_t words[EMBEDDED_ORIGIN_WORDS])
{
    words[0] = origin->session;
    words[1] = origin->sequence << 16 | origin->packet_id;
}

/* `trail` is the stream's. */
int embedded_view_open(struct journal_stream *stream, struct trail *trail, uint64_t from, struct queue_view **view);

#endif
