/* The embedded queue's way in: a producer of the journal. */
#ifndef QUEUE_EMBEDDED_PRODUCER_H
#define QUEUE_EMBEDDED_PRODUCER_H

#include "journal/journal.h"
#include "queue/queue.h"

/* As queue_ops.producer_open; `consumed` and `kept` are the streams of the two destinations, both of one scribe. */
int embedded_producer_open(struct journal *journal, struct journal_stream *consumed, struct journal_stream *kept,
                           void (*notify)(void *context), void *context, struct queue_producer **producer);

#endif
