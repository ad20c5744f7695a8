/* `spindle journal audit --full`: every outcome once more, one byte a message, beside the ledger.
 *
 * Beside a running server outcomes are added while this reads. So the ledger is loaded before and after: what it knew before, the recount
 * must know; what the recount knows, the ledger must know after. On the folder of a stopped server the two are equal, and so must be all.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/terminal.h"
#include "cli/journal/audit.h"
#include "cli/journal/tool.h"
#include "journal/ends.h"
#include "queue/dead_letter.h"

enum { PROGRESS_RECORDS = 1 << 18 }; /* between two showings */

enum kind {
    KIND_TWO_OUTCOMES,
    KIND_DEAD_LETTER,
    KIND_RESULT,
    KIND_NO_DEAD_LETTER,
    KIND_LEDGER_ONLY,
    KIND_RECOUNT_ONLY,
    KIND_TERM,
    KIND_BEGINNING,
    KIND_COUNT
};

/* What a byte says of a message: nothing yet, an outcome, or that a checkpoint has settled it without saying how. */
enum { MARK_NONE, MARK_COMPLETED, MARK_DUPLICATE, MARK_DEAD, MARK_SETTLED = 0x7f, MARK_HAS_LETTER = 0x80 };
_Static_assert(MARK_DEAD + REASON_COUNT < MARK_SETTLED, "every reason has a mark");

struct counting {
    const char *data_dir, *stream;
    struct audit_recount *recount;
    void (*object)(void *context, const char *text);
    void *context;
    uint64_t told[KIND_COUNT];
    uint64_t from, next;   /* offsets that have a mark */
    uint8_t *marks;        /* [next - from] */
    uint64_t applied;      /* records of `outcomes` before it are in the checkpoint that was begun with */
    bool letters_complete; /* no dead letter has been retired */
};

__attribute__((format(printf, 3, 4))) static void disagree(struct counting *counting, enum kind kind, const char *format, ...)
{
    counting->recount->disagreements++;
    if (++counting->told[kind] > AUDIT_TOLD_MAX)
        return;
    char text[ENDS_TEXT_MAX + 64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    counting->object(counting->context, text);
}

static uint8_t mark_of(enum queue_outcome outcome, unsigned reason)
{
    switch (outcome) {
    case QUEUE_COMPLETED:
        return MARK_COMPLETED;
    case QUEUE_DUPLICATE:
        return MARK_DUPLICATE;
    case QUEUE_DEAD_LETTERED:
        break;
    }
    return (uint8_t)(MARK_DEAD + (reason < REASON_COUNT ? reason : (unsigned)REASON_INTERNAL));
}

static const char *mark_text(uint8_t mark, char text[64])
{
    if (mark == MARK_COMPLETED || mark == MARK_DUPLICATE)
        snprintf(text, 64, "%s", mark == MARK_COMPLETED ? "completed" : "a duplicate");
    else
        snprintf(text, 64, "dead-lettered as %s", reason_word((unsigned)(mark - MARK_DEAD)));
    return text;
}

/* Counts an outcome. Returns false when the message has another already. */
static bool take_outcome(struct counting *counting, uint64_t offset, uint8_t mark)
{
    if (offset < counting->from || offset >= counting->next)
        return true;
    uint8_t *slot = &counting->marks[offset - counting->from];
    uint8_t old = *slot & (uint8_t)~MARK_HAS_LETTER;
    if (old != MARK_NONE)
        return old == mark || old == MARK_SETTLED;
    *slot |= mark;
    *(mark == MARK_COMPLETED   ? &counting->recount->completed
      : mark == MARK_DUPLICATE ? &counting->recount->duplicates
                               : &counting->recount->dead_lettered) += 1;
    return true;
}

static uint8_t mark_at(const struct counting *counting, uint64_t offset)
{
    return counting->marks[offset - counting->from] & (uint8_t)~MARK_HAS_LETTER;
}

/* The offset before which a stream's records may have been removed; objects where more of them are gone. */
static uint64_t beginning_of(struct counting *counting, const char *stream)
{
    char text[ENDS_TEXT_MAX];
    uint64_t first = tool_first_offset(counting->data_dir, stream), known = tool_known_first(counting->data_dir, stream);
    if (first <= known)
        return known == FORMAT_BEGINNING_UNKNOWN ? first : known;
    ends_lost_beginning_text(known, first, text);
    disagree(counting, KIND_BEGINNING, "stream %s: %s", stream, text);
    return known;
}

/* Calls `each` for every record of a stream from `from` on. */
static int for_each(struct counting *counting, const char *stream, uint64_t from,
                    void (*each)(struct counting *counting, const struct message *record, const uint8_t *bytes))
{
    char folder[TOOL_FOLDER_MAX];
    struct reader *reader;
    struct message record;
    const uint8_t *bytes;
    int error = tool_stream_folder(counting->data_dir, stream, folder);
    if (!error)
        error = reader_open(&reader, disk_posix(), folder, from, NULL, NULL);
    if (error)
        return error == ERR_NOT_FOUND ? 0 : error;
    for (uint64_t records = 1; !(error = reader_next(reader, UINT64_MAX, &record, &bytes)); records++) {
        each(counting, &record, bytes);
        if (records % PROGRESS_RECORDS == 0)
            terminal_progress("%s: %" PRIu64 " records counted", stream, records);
    }
    terminal_progress_end();
    reader_close(reader);
    return error == ERR_TRUNCATED ? 0 : error;
}

/* ---- what it begins with ---- */

/* The oldest checkpoint behind which all outcomes are kept. */
static int find_checkpoint(const char *folder, struct counting *counting, uint64_t kept_from, struct ledger *ledger)
{
    struct reader *reader;
    struct message record;
    int error = reader_open(&reader, disk_posix(), folder, 0, NULL, NULL);
    if (error)
        return error;
    uint64_t applied = 0;
    bool found = false;
    while (!found && !(error = reader_next(reader, UINT64_MAX, &record, NULL)))
        found = ledger_is_checkpoint(&record) && record.topic_length == strlen(counting->stream) &&
                memcmp(record.topic, counting->stream, record.topic_length) == 0 &&
                ledger_checkpoint_decode(ledger, &record, &applied) == 0 && applied >= kept_from;
    reader_close(reader);
    counting->applied = applied;
    return found ? 0 : error == ERR_TRUNCATED ? ERR_NOT_FOUND : error;
}

static int begin(struct counting *counting)
{
    char folder[TOOL_FOLDER_MAX];
    struct ledger ledger;
    uint64_t *bases = NULL;
    size_t count = 0;
    int error = tool_stream_folder(counting->data_dir, "outcomes", folder);
    if (!error)
        error = segment_list(disk_posix(), folder, &bases, &count);
    uint64_t kept_from = count ? bases[0] : 0;
    free(bases);
    ledger_init(&ledger);
    if (!error && kept_from)
        error = find_checkpoint(folder, counting, kept_from, &ledger);
    counting->from = ledger.cursor;
    if (!error && counting->next > counting->from && counting->next - counting->from > AUDIT_MESSAGES_MAX)
        error = ERR_LIMIT;
    size_t size = counting->next > counting->from ? (size_t)(counting->next - counting->from) : 0;
    if (!error && !(counting->marks = calloc(size + 1, 1)))
        error = ERR_NO_MEMORY;
    for (uint64_t offset = counting->from; !error && offset < ledger.highest && offset < counting->next; offset++)
        if (ledger_is_settled(&ledger, offset))
            counting->marks[offset - counting->from] = MARK_SETTLED;
    *counting->recount = (struct audit_recount){.from = ledger.cursor,
                                                .completed = ledger.completed,
                                                .duplicates = ledger.duplicates,
                                                .dead_lettered = ledger_dead_lettered(&ledger)};
    ledger_fini(&ledger);
    return error;
}

/* ---- what is kept ---- */

static void take_outcomes(struct counting *counting, const struct message *record, const uint8_t *bytes)
{
    (void)bytes;
    if (ledger_is_checkpoint(record) || record->topic_length != strlen(counting->stream) ||
        memcmp(record->topic, counting->stream, record->topic_length) != 0)
        return;
    for (uint32_t i = 0; i + 8 <= record->payload_length; i += 8) {
        uint64_t entry;
        char had[64], has[64];
        memcpy(&entry, record->payload + i, 8);
        unsigned outcome = entry >> 8 & 0xff;
        if (outcome < QUEUE_COMPLETED || outcome > QUEUE_DEAD_LETTERED)
            continue;
        uint8_t mark = mark_of((enum queue_outcome)outcome, entry & 0xff);
        if (!take_outcome(counting, entry >> 16, mark))
            disagree(counting, KIND_TWO_OUTCOMES, "offset %" PRIu64 " has two outcomes: %s, then (record %" PRIu64 " of outcomes) %s",
                     (uint64_t)(entry >> 16), mark_text(mark_at(counting, entry >> 16), had), record->offset, mark_text(mark, has));
    }
}

static void take_letter(struct counting *counting, const struct message *record, const uint8_t *bytes)
{
    const uint64_t *sources;
    if (format_record_sources(bytes, &sources) == 0 || sources[0] < counting->from || sources[0] >= counting->next)
        return;
    char had[64];
    uint8_t mark = mark_of(QUEUE_DEAD_LETTERED, dead_letter_reason(record));
    if (!take_outcome(counting, sources[0], mark))
        disagree(counting, KIND_DEAD_LETTER, "dead letter %" PRIu64 " is the message at offset %" PRIu64 ", which is %s", record->offset,
                 sources[0], mark_text(mark_at(counting, sources[0]), had));
    counting->marks[sources[0] - counting->from] |= MARK_HAS_LETTER;
}

static void take_result(struct counting *counting, const struct message *record, const uint8_t *bytes)
{
    const uint64_t *sources;
    size_t source_count = format_record_sources(bytes, &sources);
    char had[64];
    for (size_t i = 0; i < source_count; i++)
        if (!take_outcome(counting, sources[i], MARK_COMPLETED))
            disagree(counting, KIND_RESULT, "result %" PRIu64 " answers the message at offset %" PRIu64 ", which is %s", record->offset,
                     sources[i], mark_text(mark_at(counting, sources[i]), had));
}

static void check_letters(struct counting *counting)
{
    for (uint64_t offset = counting->from; offset < counting->next && counting->letters_complete; offset++) {
        uint8_t slot = counting->marks[offset - counting->from];
        bool dead = slot > MARK_DEAD && slot < MARK_SETTLED && slot != MARK_DEAD + REASON_DAMAGED;
        if (dead) /* without MARK_HAS_LETTER */
            disagree(counting, KIND_NO_DEAD_LETTER, "offset %" PRIu64 " is dead-lettered as %s, but there is no dead letter of it", offset,
                     reason_word((unsigned)(slot - MARK_DEAD)));
    }
}

/* ---- beside the ledger ---- */

static void check_ranges(struct counting *counting, enum kind kind, const struct ledger *ledger)
{
    uint64_t first = 0;
    bool within = false;
    for (uint64_t offset = counting->from; offset <= counting->next; offset++) {
        bool counted = offset < counting->next && mark_at(counting, offset) != MARK_NONE;
        bool settled = offset < counting->next && ledger_is_settled(ledger, offset);
        bool differs = kind == KIND_LEDGER_ONLY ? settled && !counted : counted && !settled;
        if (differs && !within)
            first = offset;
        if (within && !differs)
            disagree(counting, kind, "offsets %" PRIu64 " to %" PRIu64 " %s", first, offset - 1,
                     kind == KIND_LEDGER_ONLY ? "are settled in the ledger, but no outcome, result or dead letter says so"
                                              : "have an outcome that the ledger does not know");
        within = differs;
    }
}

static void check_term(struct counting *counting, const char *term, uint64_t before, uint64_t counted, uint64_t after)
{
    if (counted < before || counted > after)
        disagree(counting, KIND_TERM, "%s: the ledger says %" PRIu64 ", the recount %" PRIu64, term, counted < before ? before : after,
                 counted);
}

static int compare(struct counting *counting, const struct ledger *before)
{
    struct ledger after;
    struct ledger_extent extent;
    int error = ledger_load(&after, disk_posix(), counting->data_dir, counting->stream, &extent, NULL, NULL);
    if (error)
        return error;
    const struct audit_recount *recount = counting->recount;
    check_ranges(counting, KIND_LEDGER_ONLY, before);
    check_ranges(counting, KIND_RECOUNT_ONLY, &after);
    check_term(counting, "completed", before->completed, recount->completed, after.completed);
    check_term(counting, "duplicates", before->duplicates, recount->duplicates, after.duplicates);
    check_term(counting, "dead-lettered", ledger_dead_lettered(before), recount->dead_lettered, ledger_dead_lettered(&after));
    ledger_fini(&after);
    return 0;
}

static void tell_how_many_more(struct counting *counting)
{
    for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
        char text[64];
        if (counting->told[kind] <= AUDIT_TOLD_MAX)
            continue;
        snprintf(text, sizeof text, "... and %" PRIu64 " more of this kind", counting->told[kind] - AUDIT_TOLD_MAX);
        counting->object(counting->context, text);
    }
}

int audit_recount(const char *data_dir, const char *stream, const struct ledger *ledger, struct audit_recount *recount,
                  void (*object)(void *context, const char *text), void *context)
{
    struct audit_recount counted = {0};
    struct counting counting = {.data_dir = data_dir, .stream = stream, .recount = &counted, .object = object, .context = context};
    char folder[TOOL_FOLDER_MAX];
    int error = tool_stream_folder(data_dir, stream, folder);
    if (!error)
        error = segment_stream_end(disk_posix(), folder, NULL, NULL, &counting.next);
    if (counting.next < ledger->highest)
        counting.next = ledger->highest;
    if (!error)
        error = begin(&counting);
    if (!error)
        error = for_each(&counting, "outcomes", counting.applied, take_outcomes);
    if (!error)
        error = for_each(&counting, "dead-letters", 0, take_letter);
    if (!error)
        counting.letters_complete = beginning_of(&counting, "dead-letters") == 0;
    if (!error)
        error = for_each(&counting, "results", 0, take_result);
    if (!error) {
        beginning_of(&counting, "results");
        beginning_of(&counting, stream);
    }
    if (!error)
        error = compare(&counting, ledger);
    if (!error) {
        check_letters(&counting);
        tell_how_many_more(&counting);
        *recount = counted;
    }
    free(counting.marks);
    return error;
}
