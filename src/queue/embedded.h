/* The embedded queue: the durable tier on this machine's journal.
 *
 * It consumes one stream (`ingest`), keeps what is not to be consumed in another, results in `results`, dead letters in `dead-letters` and
 * outcomes in `outcomes`. The streams must have been added to the journal in that order, outcomes last; the last three belong to one
 * scribe. */
#ifndef QUEUE_EMBEDDED_H
#define QUEUE_EMBEDDED_H

#include "journal/journal.h"
#include "queue/ledger.h"
#include "queue/queue.h"

struct queue_embedded_options {
    struct journal *journal;
    const char *data_folder; /* the journal's */
    struct journal_stream *ingest, *results, *dead_letters, *outcomes;
    struct journal_stream *kept;  /* for QUEUE_KEPT, of the scribe of `ingest`; NULL: nothing of that kind is appended */
    struct journal_stream *noted; /* for QUEUE_NOTED, of the same scribe; NULL: nothing of that kind is appended */
    /* Called for each result that is not withheld once it is durable, in order of commit per writer, on the scribe of the results; must not
     * block. */
    void (*publish)(void *context, const struct message *result);
    void *publish_context;
    unsigned holders; /* bits (1 << enum queue_holder): who will call `hold`; nothing is removed before each has */
    /* How far beyond the oldest message without an outcome messages are handed out; 0: EMBEDDED_WINDOW_MAX. Less is for tests. */
    uint64_t window;
};

/* So far the ledger reaches from any cursor; it counts in words of 64. */
enum { EMBEDDED_WINDOW_MAX = LEDGER_WINDOW_MAX - 64 };

/* After all streams were added and before journal_start; to be closed after journal_stop and before journal_close. Rebuilds the ledger from
 * disk, and sends off a checkpoint of it, which so is durable before anything else. */
int queue_embedded_open(struct queue **queue, const struct queue_embedded_options *options);

/* The counts of one instant, with the dead letters by reason: reasons[REASON_COUNT]. Any thread. */
void queue_embedded_snapshot(struct queue *queue, struct queue_counts *counts, uint64_t *reasons);

/* For those who work on dead letters (dead_letters.h): its streams; its marks; and whether what lay in the stream when it was opened has
 * been fetched again, so that no requeued message is without its mark. Any thread. */
const struct queue_embedded_options *queue_embedded_options(struct queue *queue);
struct marks *queue_embedded_marks(struct queue *queue);
bool queue_embedded_has_read_again(struct queue *queue);

#endif
