/* The embedded queue's way in: a producer of the journal. */
#ifndef QUEUE_EMBEDDED_PRODUCER_H
#define QUEUE_EMBEDDED_PRODUCER_H

#include "queue/embedded.h"

/* As queue_ops.producer_open; the streams of the destinations are all of one scribe. */
int embedded_producer_open(const struct queue_embedded_options *options, void (*notify)(void *context), void *context,
                           struct queue_producer **producer);

#endif
