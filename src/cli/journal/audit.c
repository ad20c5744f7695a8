/* `spindle journal audit`: what became of the messages, read from the files alone. It changes nothing, and works beside
 * a running server as well as on the folder of a stopped one. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/journal/audit.h"
#include "cli/journal/tool.h"
#include "journal/ends.h"
#include "journal/journal.h"
#include "queue/ledger.h"

static const char *const public_streams[] = {"ingest", "bus", "results", "dead-letters"};
enum { PUBLIC_STREAM_COUNT = sizeof public_streams / sizeof *public_streams };

/* ---- the equation, counted from disk ---- */

struct audit {
    const char *stream;
    struct queue_counts counts;
    uint64_t reasons[REASON_COUNT];
    char why[1024]; /* it does not hold, or cannot be known; empty: it holds */
    const struct journal_audit_arguments *arguments;
    struct buffer more; /* what is printed behind the terms */
};

/* The first reason stays; all are printed. */
__attribute__((format(printf, 2, 3))) static void object(struct audit *audit, const char *format, ...)
{
    char text[sizeof audit->why];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "spindle journal audit: stream %s: %s\n", audit->stream, text);
    if (!audit->why[0])
        memcpy(audit->why, text, sizeof text);
}

static void object_to_damage(void *context, const char *stream, const struct reader_damage *damage)
{
    struct audit *audit = context;
    char text[READER_DAMAGE_TEXT_MAX];
    reader_damage_text(damage, text);
    if (!damage->unbounded && damage->first_offset == damage->next_offset)
        return; /* nothing that is counted */
    bool consumed = strcmp(stream, "ingest") == 0;
    if (strcmp(stream, audit->stream) == 0)
        object(audit, "damage in %s/%s%s", stream, text,
               consumed && !damage->unbounded ? "; those without an outcome are counted as pending, but are not there" : "");
    else
        object(audit, "damage in %s/%s; messages whose outcome stood there count as pending", stream, text);
}

/* Of a stream that nobody consumes: what is lost in it counts as accepted and completed, if it is known how much that was. */
static void object_to_own_damage(void *context, const struct reader_damage *damage)
{
    struct audit *audit = context;
    if (damage->unbounded)
        object_to_damage(audit, audit->stream, damage);
}

static void object_to_text(void *context, const char *text)
{
    object(context, "%s", text);
}

/* Objects when the files of `stream` end before what is known to have been written, for example because the whole folder is gone. */
static void check_end(struct audit *audit, const char *data_dir, const char *stream)
{
    char folder[TOOL_FOLDER_MAX], text[ENDS_TEXT_MAX];
    uint64_t known = tool_known_end(data_dir, stream), next = 0;
    int error = tool_stream_folder(data_dir, stream, folder);
    if (!error)
        error = segment_stream_end(disk_posix(), folder, NULL, NULL, &next);
    if ((error && error != ERR_NOT_FOUND) || next >= known)
        return;
    ends_lost_text(next, known, text);
    if (strcmp(stream, audit->stream) == 0)
        object(audit, "%s", text);
    else
        object(audit, "stream %s: %s. Messages whose outcome stood there count as pending", stream, text);
}

/* Objects to segments that no reader takes. What the books of `ingest` stand on is that stream's matter too. */
static void check_versions(struct audit *audit, const char *data_dir)
{
    static const char *const books[] = {"ingest", "results", "dead-letters", "outcomes"};
    bool consumed = strcmp(audit->stream, books[0]) == 0;
    for (unsigned i = 0; i < (consumed ? sizeof books / sizeof *books : 1); i++) {
        char folder[TOOL_FOLDER_MAX];
        int error = tool_stream_folder(data_dir, consumed ? books[i] : audit->stream, folder);
        if (!error)
            error = segment_versions(disk_posix(), folder);
        if (error && error != ERR_NOT_FOUND)
            object(audit, "%s cannot be read: %s%s", folder, error_text(error), tool_reading_advice(error));
    }
}

/* --pending and --full. */
static int audit_more(const char *data_dir, struct audit *audit, const struct ledger *ledger, const struct ledger_extent *extent)
{
    struct audit_recount recount;
    int error = 0;
    if (audit->arguments->full) {
        error = audit_recount(data_dir, audit->stream, ledger, &recount, object_to_text, audit);
        if (error == ERR_LIMIT)
            object(audit, "more than %d messages cannot be recounted", AUDIT_MESSAGES_MAX);
        else if (error == ERR_NOT_FOUND)
            object(audit, "it cannot be recounted: the oldest segments of `outcomes` are missing, and no checkpoint makes up for them");
        else if (!error)
            error = buffer_printf(&audit->more,
                                  audit->arguments->json
                                      ? ",\"recount\":{\"from\":%" PRIu64 ",\"completed\":%" PRIu64 ",\"duplicates\":%" PRIu64
                                        ",\"dead_lettered\":%" PRIu64 ",\"disagreements\":%" PRIu64 "}"
                                      : "                recounted from offset %" PRIu64 ": completed %" PRIu64 ", duplicates %" PRIu64
                                        ", dead-lettered %" PRIu64 "; disagreements: %" PRIu64 "\n",
                                  recount.from, recount.completed, recount.duplicates, recount.dead_lettered, recount.disagreements);
        if (error == ERR_LIMIT || error == ERR_NOT_FOUND)
            error = 0;
    }
    if (!error && audit->arguments->pending)
        error = audit_pending_write(data_dir, audit->stream, ledger, extent, audit->arguments->json, &audit->more);
    return error;
}

/* Of the stream that is consumed. */
static int audit_ledger(const char *data_dir, struct audit *audit)
{
    struct ledger ledger;
    struct ledger_extent extent;
    int error = ledger_load(&ledger, disk_posix(), data_dir, audit->stream, &extent, object_to_damage, audit);
    if (error)
        return error;
    ledger_counts(&ledger, extent.next, &audit->counts);
    memcpy(audit->reasons, ledger.dead_lettered, sizeof audit->reasons);
    char why[LEDGER_WHY_MAX];
    if (ledger_fits(&ledger, &extent, why) != LEDGER_FITS)
        object(audit, "%s", why);
    error = audit_more(data_dir, audit, &ledger, &extent);
    ledger_fini(&ledger);
    return error;
}

static void audit_stream(const char *data_dir, struct audit *audit)
{
    char folder[TOOL_FOLDER_MAX];
    uint64_t next;
    int error = tool_stream_folder(data_dir, audit->stream, folder);
    if (error)
        object(audit, "%s: %s%s", folder, error_text(error), tool_reading_advice(error));
    else
        check_versions(audit, data_dir);
    if (strcmp(audit->stream, "ingest") == 0) {
        error = audit_ledger(data_dir, audit);
    } else if (!error) {
        error = segment_stream_end(disk_posix(), folder, object_to_own_damage, audit, &next);
        if (!error)
            audit->counts = (struct queue_counts){.accepted = next, .completed = next};
    }
    if (error && !audit->why[0])
        object(audit, "%s cannot be read: %s%s", folder, error_text(error), tool_reading_advice(error));
    check_end(audit, data_dir, audit->stream);
    if (strcmp(audit->stream, "ingest") == 0)
        check_end(audit, data_dir, "outcomes");
    const struct queue_counts *counts = &audit->counts;
    if (counts->accepted != counts->completed + counts->duplicates + counts->dead_lettered + counts->pending && !audit->why[0])
        object(audit, "the terms do not add up");
}

static bool print_audit(struct buffer *line, const struct audit *audit, bool json)
{
    const struct queue_counts *counts = &audit->counts;
    bool holds = !audit->why[0];
    buffer_clear(line);
    if (json) {
        buffer_printf(line,
                      "{\"stream\":\"%s\",\"accepted\":%" PRIu64 ",\"completed\":%" PRIu64 ",\"duplicates\":%" PRIu64
                      ",\"dead_lettered\":%" PRIu64 ",\"pending\":%" PRIu64 ",\"holds\":%s",
                      audit->stream, counts->accepted, counts->completed, counts->duplicates, counts->dead_lettered, counts->pending,
                      holds ? "true" : "false");
        if (!holds) {
            buffer_append_text(line, ",\"why\":");
            buffer_append_json_string(line, audit->why, strlen(audit->why), 0);
        }
        buffer_append(line, audit->more.data, audit->more.length);
        buffer_append_text(line, "}\n");
        return tool_emit(line);
    }
    buffer_printf(line, "%-13s %12" PRIu64 " = %12" PRIu64 " + %10" PRIu64 " + %10" PRIu64 " + %10" PRIu64 "   %s\n", audit->stream,
                  counts->accepted, counts->completed, counts->duplicates, counts->dead_lettered, counts->pending,
                  holds ? "holds" : "DOES NOT HOLD");
    for (unsigned i = 1; i < REASON_COUNT; i++)
        if (audit->reasons[i])
            buffer_printf(line, "%-13s   dead-lettered as %s: %" PRIu64 "\n", "", reason_word(i), audit->reasons[i]);
    buffer_append(line, audit->more.data, audit->more.length);
    return tool_emit(line);
}

int command_journal_audit(const struct journal_audit_arguments *arguments)
{
    static const char command[] = "spindle journal audit";
    tool_begin_output();
    char folder[TOOL_FOLDER_MAX];
    int error = ERR_NOT_FOUND;
    for (unsigned i = 0; i < PUBLIC_STREAM_COUNT && error == ERR_NOT_FOUND; i++)
        error = tool_stream_folder(arguments->data_dir, public_streams[i], folder);
    if (error == ERR_NOT_FOUND || error == ERR_NOT_FOLDER) /* no data folder at all */
        return tool_refuse_folder(command, arguments->data_dir, public_streams[0], error);
    if (!arguments->json)
        printf("%-13s %12s = %12s + %10s + %10s + %10s\n", "stream", "accepted", "completed", "duplicates", "dead", "pending");
    int status = COMMAND_OK;
    struct buffer line;
    buffer_init(&line, TOOL_LINE_MAX);
    for (unsigned i = 0; i < PUBLIC_STREAM_COUNT; i++) {
        struct audit audit = {.stream = public_streams[i], .arguments = arguments};
        buffer_init(&audit.more, TOOL_LINE_MAX);
        audit_stream(arguments->data_dir, &audit);
        if (audit.why[0])
            status = COMMAND_FAILED;
        bool written = print_audit(&line, &audit, arguments->json);
        buffer_fini(&audit.more);
        if (!written)
            break;
    }
    buffer_fini(&line);
    return command_finish_output(command, status);
}
