/* What a start finds in the files, and what follows from it. */
#include "queue/books.h"

#include <inttypes.h>
#include <string.h>

#include "base/diagnostics.h"
#include "base/error.h"

/* Tells the operator what damage to the books means. */
static void say_damage(void *context, const char *stream, const struct reader_damage *damage)
{
    const struct queue_embedded_options *options = context;
    if (strcmp(stream, journal_stream_name(options->ingest)) == 0)
        return; /* the stream has said it when it was opened */
    char text[READER_DAMAGE_TEXT_MAX];
    reader_damage_text(damage, text);
    diagnostics(DIAGNOSTICS_ERROR, "queue",
                "stream %s: damage in %s. What became of some messages is not known any more: those count as pending and are handled "
                "again, so answers may be published twice (with the same message id)",
                stream, text);
}

/* Files are gone of which the journal itself knows nothing, or what was written without a sync is on disk when what was written before it
 * is not: the stream goes on behind all that others name, so that no new message takes the offset, and so the outcome, of one that is lost.
 */
static int pass_lost_messages(struct ledger *ledger, const struct queue_embedded_options *options, struct ledger_extent *extent,
                              struct buffer *entries)
{
    uint64_t end = journal_stream_durable(options->ingest);
    diagnostics(DIAGNOSTICS_ERROR, "queue",
                "stream %s: the messages from offset %" PRIu64 " to %" PRIu64
                " are lost; other streams name them. Its newest segments are missing, cut, damaged, or of another time than those of the "
                "others; put them back if you have them, while no server runs. It goes on behind them. Those that have no outcome are "
                "given up as dead letters of reason %s (in %s)",
                journal_stream_name(options->ingest), end, extent->spoken_of - 1, reason_word(REASON_DAMAGED),
                journal_stream_folder(options->ingest));
    int error = journal_stream_skip(options->ingest, extent->spoken_of);
    if (error)
        return error;
    ledger_fini(ledger);
    buffer_clear(entries);
    return ledger_load_found(ledger, journal_disk(options->journal), options->data_folder, journal_stream_name(options->ingest), extent,
                             NULL, NULL, entries);
}

int books_load(struct ledger *ledger, const struct queue_embedded_options *options, struct buffer *entries)
{
    struct ledger_extent extent;
    char why[LEDGER_WHY_MAX];
    int error = ledger_load_found(ledger, journal_disk(options->journal), options->data_folder, journal_stream_name(options->ingest),
                                  &extent, say_damage, (void *)(uintptr_t)options, entries);
    if (error)
        return error;
    extent.next = journal_stream_durable(options->ingest);
    if (extent.spoken_of > extent.next)
        error = pass_lost_messages(ledger, options, &extent, entries);
    enum ledger_fit fit = error ? LEDGER_FITS : ledger_fits(ledger, &extent, why);
    if (fit == LEDGER_BEHIND)
        diagnostics(DIAGNOSTICS_ERROR, "queue", "%s (in %s). They are given up as dead letters of reason %s", why,
                    journal_stream_folder(options->ingest), reason_word(REASON_DAMAGED));
    if (!error && ledger->left_out)
        diagnostics(DIAGNOSTICS_ERROR, "queue",
                    "%" PRIu64
                    " outcomes speak of messages more than %u behind the oldest without one, and are left out: those messages are "
                    "handled again, so answers may be published twice (with the same message id)",
                    ledger->left_out, (unsigned)LEDGER_WINDOW_MAX);
    return error;
}
