#include "cli/dead/states.h"

#include <string.h>

#include "base/clock.h"
#include "base/error.h"

static int read_marks(struct dead_states *states, const struct message *record, uint64_t end)
{
    for (uint32_t i = 0; i + 8 <= record->payload_length; i += 8) {
        uint64_t entry;
        memcpy(&entry, record->payload + i, 8);
        enum ledger_mark mark = (enum ledger_mark)(entry >> 8 & 0xff);
        struct ledger *ledger = mark == LEDGER_MARK_PURGED ? &states->purged : &states->requeued;
        int settled = entry >> 16 < end ? ledger_settle(ledger, entry >> 16, (enum queue_outcome)mark, REASON_NONE) : 0;
        if (settled < 0)
            return settled;
    }
    return 0;
}

int dead_states_load(struct dead_states *states, struct reader *outcomes, uint64_t to, uint64_t first, uint64_t end, uint64_t deadline_ns)
{
    struct message record;
    int error;
    ledger_init(&states->requeued);
    ledger_init(&states->purged);
    ledger_forget(&states->requeued, first);
    ledger_forget(&states->purged, first);
    while (!(error = reader_next(outcomes, to, &record, NULL)) && clock_monotonic_ns() < deadline_ns) {
        error = ledger_is_of_marks(&record) && !ledger_is_checkpoint(&record) ? read_marks(states, &record, end) : 0;
        if (error)
            break;
    }
    return error == ERR_TRUNCATED ? 0 : error;
}

void dead_states_fini(struct dead_states *states)
{
    ledger_fini(&states->requeued);
    ledger_fini(&states->purged);
}

const char *dead_states_word(const struct dead_states *states, uint64_t offset, bool open)
{
    if (open)
        return "open";
    if (ledger_is_settled(&states->requeued, offset))
        return "requeued";
    return ledger_is_settled(&states->purged, offset) ? "purged" : "closed";
}
