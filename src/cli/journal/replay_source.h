/* The records that are replayed: of one stream's files, those of a selection, in order; never a result that is withheld. It changes nothing
 * and works beside a running server. */
#ifndef CLI_JOURNAL_REPLAY_SOURCE_H
#define CLI_JOURNAL_REPLAY_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/message.h"
#include "cli/journal/selection.h"
#include "journal/reader.h"

enum { REPLAY_FILTER_MAX = 2100, REPLAY_SOURCE_STEPS_MAX = 4096 };

struct replay_source {
    /* Filled in by the owner. */
    const char *folder; /* of the stream */
    struct selection selection;
    char tool_filter[REPLAY_FILTER_MAX]; /* a topic filter beside that of the selection; empty: all tools */
    bool pass_replayed;                  /* what an earlier replay has sent, or was answered to it, is left out */
    uint64_t until;

    struct reader *reader;
    uint64_t expected; /* the offset that the next record should have; UINT64_MAX: whichever is the oldest kept */
    uint64_t lost_until;
    uint64_t replayed_until, replayed; /* left out below that offset, so that none counts twice */
    bool damaged;                      /* something was missing, and was said */
};

/* Goes to the first kept record at or behind an offset. With `strict` it is said when records from there on are not kept any more. */
int replay_source_seek(struct replay_source *source, uint64_t offset, bool strict);
void replay_source_close(struct replay_source *source);

/* The next record of the selection, borrowed until the next call. Returns 0, ERR_TRUNCATED at the end, ERR_BUSY after passing over many
 * that are not selected (call again), or an error of reading. */
int replay_source_next(struct replay_source *source, struct message *message);

/* The offset behind the last record that was looked at; at the end `until`. */
uint64_t replay_source_passed(const struct replay_source *source);

#endif
