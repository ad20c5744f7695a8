/* Compressing closed segments: the keeper's work, a frame at a time, one segment of the journal at a time.
 *
 * A segment is taken when all of it is durable and, in a guarded stream, the guard is past it: what a consumer has still to read would be
 * read from it soon, and where the consumer is behind, the processor has better to do. The oldest is taken first. The new file
 * takes the name of the old one only when all of it is synced (frames.h). Whatever goes wrong before costs nothing but the work: the
 * file is removed, and tried again when the stream begins its next segment. The work takes three times the memory of a frame (1 MiB, or the
 * longest record), and none when there is nothing to do but what zstd keeps. */
#ifndef JOURNAL_SHRINK_H
#define JOURNAL_SHRINK_H

#include <stdbool.h>
#include <stdint.h>

struct journal_stream;
struct shrink;

/* `level` as compressor_create. NULL without memory. */
struct shrink *shrink_create(int level);
void shrink_destroy(struct shrink *shrink); /* NULL is allowed; nothing may be under way */

/* Keeper thread: does a piece of work for the stream, if there is one. `full`: a scribe waits for space, so the new file is given up.
 * Returns whether there was something to do. */
bool shrink_step(struct journal_stream *stream, bool full);

/* Removes what an earlier process had under way in this stream. */
void shrink_clear(struct journal_stream *stream);

/* Gives up what is under way in this stream. Keeper thread, or when it has ended. */
void shrink_abandon(struct journal_stream *stream);

/* Any thread: whether the guard's new place lets a segment be taken that it had kept back. True once for each. */
bool shrink_is_due(struct journal_stream *stream, uint64_t guard);

#endif
