/* The ledger of an embedded queue at its start. */
#ifndef QUEUE_BOOKS_H
#define QUEUE_BOOKS_H

#include "queue/embedded.h"
#include "queue/ledger.h"

/* Rebuilds the ledger, the caller's to free, and says what is wrong with it. Where other streams name messages that `ingest` has lost,
 * ingest goes on behind those. `entries` gets the outcomes that are not written as such yet. */
int books_load(struct ledger *ledger, const struct queue_embedded_options *options, struct buffer *entries);

#endif
