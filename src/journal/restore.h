/* Writing a stream's folder anew from the records of another that can still be read. Records keep their offsets; where some are missing,
 * the segment ends and the next begins behind the gap. A server starts on the result as on a folder that was closed in order. */
#ifndef JOURNAL_RESTORE_H
#define JOURNAL_RESTORE_H

#include <stddef.h>
#include <stdint.h>

#include "base/message.h"
#include "journal/disk.h"

enum { RESTORE_SEGMENT_SIZE = 128 << 20 };

struct restore;

/* `folder` must be there and hold no segment. */
int restore_open(struct restore **restore, struct disk *disk, const char *folder, const char *stream);

/* Adds a record; its offset must not be below that of one that was added before (ERR_INVALID). */
int restore_add(struct restore *restore, const struct message *message, const uint64_t *sources, size_t source_count);

/* The stream goes on at next_offset (no less than what was added + 1). Syncs everything and closes; on failure what was written is
 * of no use. */
int restore_finish(struct restore *restore, uint64_t next_offset);

/* Closes without finishing. Accepts NULL. */
void restore_abandon(struct restore *restore);

#endif
