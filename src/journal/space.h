/* How much of the disk is left, and how much of it is not for new messages.
 *
 * What arrives is written while `least` bytes are free and waits otherwise; what is needed to finish what was accepted (results, dead
 * letters, outcomes) may use the rest. So a disk that fills up stops the senders first, and the work on what they have sent last.
 *
 * What is pressing (journal.h) comes from clients too, but is small, and may be what lets room be made: it may use half of the rest.
 *
 * Nothing is written ahead of need into that part, by no stream. All streams are taken to lie on one file system.
 *
 * `least` is what was asked for, but no more than a tenth of the file system: 256 MiB would be all of a small one. */
#ifndef JOURNAL_SPACE_H
#define JOURNAL_SPACE_H

#include <stdbool.h>
#include <stdint.h>

#include "journal/disk.h"

enum {
    SPACE_SHARE = 10,             /* of a file system at most this part is kept free */
    SPACE_PRESSING_SHARE = 2,     /* of that, this part is not for what is pressing */
    SPACE_LOOK_MS = 1000,         /* while it is written to, the disk is asked so often, and ... */
    SPACE_LOOK_BYTES = 32 << 20,  /* ... whenever so much was written, or half of what was left above the limit, ... */
    SPACE_LOOK_LEAST = 256 << 10, /* ... but not more often */
    SPACE_TEXT_MAX = 160
};

struct space {
    uint64_t free, least; /* bytes */
};

/* Asks the disk of `folder`. `wanted`: bytes to be kept free. Where the disk does not tell, *space has no limit: a write that finds no
 * space will. */
void space_look(struct disk *disk, const char *folder, uint64_t wanted, struct space *space);

static inline bool space_is_short(const struct space *space)
{
    return space->free < space->least;
}

/* How many bytes may be written before the disk is asked again. */
static inline uint64_t space_until_look(const struct space *space)
{
    uint64_t half = space_is_short(space) ? 0 : (space->free - space->least) / 2;
    return half < SPACE_LOOK_LEAST ? SPACE_LOOK_LEAST : half < SPACE_LOOK_BYTES ? half : SPACE_LOOK_BYTES;
}

/* Not even what is pressing may be written. */
static inline bool space_is_spent(const struct space *space)
{
    return space->free < space->least / SPACE_PRESSING_SHARE;
}

/* What there is and what is kept, in words. */
void space_text(const struct space *space, char text[SPACE_TEXT_MAX]);

#endif
