/* What closed dead letters were closed by, as far as the stream `outcomes` still tells. */
#ifndef CLI_DEAD_STATES_H
#define CLI_DEAD_STATES_H

#include "journal/reader.h"
#include "queue/ledger.h"

struct dead_states {
    struct ledger requeued, purged;
};

/* Reads the marks of the dead letters first .. end-1 from `outcomes`, before its record `to`. Ends at deadline_ns (monotonic; UINT64_MAX:
 * never) without an error: of what it has not come to nothing is known. For dead_states_fini in any case. */
int dead_states_load(struct dead_states *states, struct reader *outcomes, uint64_t to, uint64_t first, uint64_t end, uint64_t deadline_ns);
void dead_states_fini(struct dead_states *states); /* accepts an all-zero one */

/* The state of a dead letter that is open or not: "open", "requeued", "purged"; "closed": one of the two, and it is not known which. */
const char *dead_states_word(const struct dead_states *states, uint64_t offset, bool open);

#endif
