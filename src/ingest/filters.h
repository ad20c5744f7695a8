/* Topic filters of subscriptions to another broker: which of them say the same, how they are shared out among connections, and how topics
 * are named here and there. Pure. Filters are valid and without "$share/". */
#ifndef INGEST_FILTERS_H
#define INGEST_FILTERS_H

#include <stdbool.h>
#include <stddef.h>

/* Whether every topic that matches `inner` matches `outer`. */
bool filter_covers(const char *outer, const char *inner);

/* Whether a topic can match both. */
bool filter_overlaps(const char *one, const char *other);

/* Which connection has filter number `index` when they are not shared: each filter has one, each connection as many as any other, or one
 * more. */
static inline unsigned filter_connection(unsigned index, unsigned connection_count)
{
    return index % connection_count;
}

#endif
