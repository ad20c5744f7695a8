/* What `spindle journal audit` tells beyond the terms: --pending and --full. */
#ifndef CLI_JOURNAL_AUDIT_H
#define CLI_JOURNAL_AUDIT_H

#include <stdbool.h>

#include "base/buffer.h"
#include "queue/ledger.h"

/* Appends the offsets of `stream` without an outcome, as ranges of neighbours of one topic: as text, one a line, or as a member
 * "pending_offsets" of an object that is being written. */
int audit_pending_write(const char *data_dir, const char *stream, const struct ledger *ledger, const struct ledger_extent *extent,
                        bool json, struct buffer *out);

enum { AUDIT_MESSAGES_MAX = 1 << 30, AUDIT_TOLD_MAX = 20 };

/* The terms, recounted from every outcome, result and dead letter of `stream` that is kept. */
struct audit_recount {
    uint64_t from; /* what lies before this offset is taken from a checkpoint */
    uint64_t completed, duplicates, dead_lettered;
    uint64_t disagreements;
};

/* Recounts and calls `object` with a text for each disagreement: with `ledger`, which was loaded before, or among the records. Of a kind
 * only AUDIT_TOLD_MAX are told one by one. ERR_LIMIT beyond AUDIT_MESSAGES_MAX messages; ERR_NOT_FOUND: the beginning of `outcomes` is
 * gone, and no checkpoint that is kept makes up for it. */
int audit_recount(const char *data_dir, const char *stream, const struct ledger *ledger, struct audit_recount *recount,
                  void (*object)(void *context, const char *text), void *context);

#endif
