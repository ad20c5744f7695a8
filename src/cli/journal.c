/* `spindle journal` and `spindle dead`: what lies on disk, read from the files alone. They change nothing, and work beside a running
 * server as well as on the folder of a stopped one. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command.h"
#include "journal/journal.h"
#include "queue/dead_letter.h"
#include "queue/ledger.h"

enum { LINE_MAX_BYTES = 1 << 30, STREAM_FOLDER_MAX = 4400 };

static const char *const public_streams[] = {"ingest", "bus", "results", "dead-letters"};
enum { PUBLIC_STREAM_COUNT = sizeof public_streams / sizeof *public_streams };

static int stream_folder(const char *data_dir, const char *stream, char folder[STREAM_FOLDER_MAX])
{
    snprintf(folder, STREAM_FOLDER_MAX, "%s/%s", data_dir, stream);
    struct stat status;
    return stat(folder, &status) == 0 && S_ISDIR(status.st_mode) ? 0 : ERR_NOT_FOUND;
}

static int no_such_stream(const char *command, const char *data_dir, const char *stream)
{
    fprintf(stderr, "%s: there is no stream `%s` in %s; --data-dir names the folder that `spindle run` was given (data.dir)\n", command,
            stream, data_dir);
    return COMMAND_USAGE;
}

static void say_damage(void *context, const struct reader_damage *damage)
{
    bool *damaged = context;
    *damaged = true;
    fprintf(stderr, "damage: %s at byte %" PRIu64 ": offsets %" PRIu64 " to %" PRIu64 " are lost\n", damage->segment, damage->position,
            damage->first_offset, damage->next_offset - 1);
}

/* ---- one record a line ---- */

static void append_bytes_json(struct buffer *line, const char *name, const uint8_t *bytes, size_t length)
{
    if (text_is_utf8((const char *)bytes, length)) {
        buffer_printf(line, "\"%s\":", name);
        buffer_append_json_string(line, (const char *)bytes, length, 0);
        return;
    }
    buffer_printf(line, "\"%s_base64\":\"", name);
    if (buffer_reserve(line, text_base64_size(length)) == 0) {
        text_base64(bytes, length, (char *)line->data + line->length);
        line->length += text_base64_size(length) - 1;
    }
    buffer_append_text(line, "\"");
}

/* For a terminal: what would move the cursor or end the line is shown as \xNN. */
static void append_printable(struct buffer *line, const char *text, size_t length)
{
    size_t done = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != 0x7f)
            continue;
        buffer_append(line, text + done, i - done);
        buffer_printf(line, "\\x%02x", c);
        done = i + 1;
    }
    buffer_append(line, text + done, length - done);
}

static void print_record(struct buffer *line, const char *stream, const struct message *message, bool json)
{
    buffer_clear(line);
    if (json) {
        buffer_printf(line, "{\"stream\":\"%s\",\"offset\":%" PRIu64 ",\"time_ns\":%" PRIu64 ",\"topic\":", stream, message->offset,
                      message->time_ns);
        buffer_append_json_string(line, message->topic, message->topic_length, 0);
        buffer_append_text(line, ",");
        append_bytes_json(line, "payload", message->payload, message->payload_length);
        buffer_append_text(line, "}\n");
    } else {
        char time_text[CLOCK_TEXT_SIZE];
        clock_wall_text(message->time_ns, time_text);
        buffer_printf(line, "%" PRIu64 " %s ", message->offset, time_text);
        append_printable(line, message->topic, message->topic_length);
        buffer_append_text(line, " ");
        if (text_is_utf8((const char *)message->payload, message->payload_length))
            append_printable(line, (const char *)message->payload, message->payload_length);
        else
            buffer_printf(line, "(%u bytes that are not text; --json shows them)", message->payload_length);
        buffer_append_text(line, "\n");
    }
    fwrite(line->data, 1, line->length, stdout);
}

int command_journal_cat(const struct journal_cat_arguments *arguments)
{
    signal(SIGPIPE, SIG_DFL); /* `| head` ends it quietly */
    char folder[STREAM_FOLDER_MAX];
    if (stream_folder(arguments->data_dir, arguments->stream, folder))
        return no_such_stream("spindle journal cat", arguments->data_dir, arguments->stream);
    bool damaged = false;
    struct reader *reader;
    int error = reader_open(&reader, disk_posix(), folder, arguments->from, say_damage, &damaged);
    if (error) {
        fprintf(stderr, "spindle journal cat: %s: %s\n", folder, error_text(error));
        return COMMAND_FAILED;
    }
    struct buffer line;
    buffer_init(&line, LINE_MAX_BYTES);
    struct message message;
    uint64_t left = arguments->count_given ? arguments->count : UINT64_MAX;
    while (left-- && !(error = reader_next(reader, UINT64_MAX, &message, NULL)))
        print_record(&line, arguments->stream, &message, arguments->json);
    buffer_fini(&line);
    reader_close(reader);
    if (error && error != ERR_TRUNCATED) {
        fprintf(stderr, "spindle journal cat: %s: %s\n", folder, error_text(error));
        return COMMAND_FAILED;
    }
    return damaged ? COMMAND_FAILED : COMMAND_OK;
}

/* ---- the equation, counted from disk ---- */

struct audit {
    struct queue_counts counts;
    uint64_t reasons[LEDGER_REASON_COUNT];
    bool holds;
};

static int audit_stream(const char *data_dir, const char *stream, struct audit *audit)
{
    *audit = (struct audit){0};
    if (strcmp(stream, "ingest") == 0) {
        struct ledger ledger;
        uint64_t accepted;
        int error = ledger_load(&ledger, disk_posix(), data_dir, stream, &accepted);
        if (error)
            return error;
        ledger_counts(&ledger, accepted, &audit->counts);
        memcpy(audit->reasons, ledger.dead_lettered, sizeof audit->reasons);
        audit->holds = ledger.highest <= accepted && ledger.cursor <= accepted;
        ledger_fini(&ledger);
    } else {
        char folder[STREAM_FOLDER_MAX];
        uint64_t first, next;
        stream_folder(data_dir, stream, folder);
        int error = ledger_stream_end(disk_posix(), folder, &first, &next);
        if (error)
            return error;
        audit->counts = (struct queue_counts){.accepted = next, .completed = next};
        audit->holds = true;
    }
    const struct queue_counts *counts = &audit->counts;
    audit->holds = audit->holds && counts->accepted == counts->completed + counts->duplicates + counts->dead_lettered + counts->pending;
    return 0;
}

static void print_audit(const char *stream, const struct audit *audit, bool json)
{
    const struct queue_counts *counts = &audit->counts;
    if (json) {
        printf("{\"stream\":\"%s\",\"accepted\":%" PRIu64 ",\"completed\":%" PRIu64 ",\"duplicates\":%" PRIu64 ",\"dead_lettered\":%" PRIu64
               ",\"pending\":%" PRIu64 ",\"holds\":%s}\n",
               stream, counts->accepted, counts->completed, counts->duplicates, counts->dead_lettered, counts->pending,
               audit->holds ? "true" : "false");
        return;
    }
    printf("%-13s %12" PRIu64 " = %12" PRIu64 " + %10" PRIu64 " + %10" PRIu64 " + %10" PRIu64 "   %s\n", stream, counts->accepted,
           counts->completed, counts->duplicates, counts->dead_lettered, counts->pending, audit->holds ? "holds" : "DOES NOT HOLD");
    for (unsigned i = 1; i < LEDGER_REASON_COUNT; i++)
        if (audit->reasons[i])
            printf("%-13s   dead-lettered as %s: %" PRIu64 "\n", "", ledger_reason_word(i), audit->reasons[i]);
}

int command_journal_audit(const struct journal_audit_arguments *arguments)
{
    char folder[STREAM_FOLDER_MAX];
    if (stream_folder(arguments->data_dir, "ingest", folder))
        return no_such_stream("spindle journal audit", arguments->data_dir, "ingest");
    if (!arguments->json)
        printf("%-13s %12s = %12s + %10s + %10s + %10s\n", "stream", "accepted", "completed", "duplicates", "dead", "pending");
    bool holds = true;
    for (unsigned i = 0; i < PUBLIC_STREAM_COUNT; i++) {
        struct audit audit;
        int error = audit_stream(arguments->data_dir, public_streams[i], &audit);
        if (error) {
            fprintf(stderr, "spindle journal audit: stream %s in %s: %s\n", public_streams[i], arguments->data_dir, error_text(error));
            return COMMAND_FAILED;
        }
        print_audit(public_streams[i], &audit, arguments->json);
        holds = holds && audit.holds;
    }
    return holds ? COMMAND_OK : COMMAND_FAILED;
}

/* ---- dead letters ---- */

static void print_dead_letter(struct buffer *line, const struct message *record, const struct dead_letter *letter, bool json)
{
    buffer_clear(line);
    if (json) {
        buffer_printf(line, "{\"offset\":%" PRIu64 ",\"time_ns\":%" PRIu64 ",\"reason\":\"%s\",\"stage\":\"%s\",\"attempts\":%u,\"error\":",
                      record->offset, record->time_ns, letter->reason, letter->stage, letter->attempts);
        buffer_append_json_string(line, letter->error, strlen(letter->error), 0);
        buffer_printf(line, ",\"source\":{\"stream\":\"%s\",\"offset\":%" PRIu64 ",\"time_ns\":%" PRIu64 "},\"topic\":", letter->stream,
                      letter->offset, letter->time_ns);
        buffer_append_json_string(line, record->topic, record->topic_length, 0);
        buffer_append_text(line, ",");
        append_bytes_json(line, "payload", record->payload, record->payload_length);
        buffer_append_text(line, "}\n");
    } else {
        char time_text[CLOCK_TEXT_SIZE];
        clock_wall_text(letter->time_ns, time_text);
        buffer_printf(line, "%" PRIu64 " %s %-14s ", record->offset, time_text, letter->reason);
        append_printable(line, record->topic, record->topic_length);
        buffer_printf(line, " (%u bytes)\n      ", record->payload_length);
        append_printable(line, letter->error, strlen(letter->error));
        buffer_append_text(line, "\n");
    }
    fwrite(line->data, 1, line->length, stdout);
}

int command_dead_ls(const struct dead_ls_arguments *arguments)
{
    signal(SIGPIPE, SIG_DFL);
    char folder[STREAM_FOLDER_MAX];
    if (stream_folder(arguments->data_dir, "dead-letters", folder))
        return no_such_stream("spindle dead ls", arguments->data_dir, "dead-letters");
    if (arguments->reason && strcmp(ledger_reason_word(ledger_reason_parse(arguments->reason)), arguments->reason) != 0) {
        fprintf(stderr, "spindle dead ls: there is no reason `%s`; the reasons are:", arguments->reason);
        for (unsigned i = 1; i < LEDGER_REASON_COUNT; i++)
            fprintf(stderr, " %s", ledger_reason_word(i));
        fprintf(stderr, "\n");
        return COMMAND_USAGE;
    }
    bool damaged = false;
    struct reader *reader;
    int error = reader_open(&reader, disk_posix(), folder, 0, say_damage, &damaged);
    struct buffer line;
    buffer_init(&line, LINE_MAX_BYTES);
    struct message record;
    uint64_t shown = 0;
    while (!error && !(error = reader_next(reader, UINT64_MAX, &record, NULL))) {
        struct dead_letter letter = {.reason = "internal", .error = "the reason of this dead letter cannot be read"};
        dead_letter_decode(&record, &letter);
        if (arguments->reason && strcmp(letter.reason, arguments->reason) != 0)
            continue;
        print_dead_letter(&line, &record, &letter, arguments->json);
        shown++;
    }
    buffer_fini(&line);
    if (error == ERR_TRUNCATED)
        reader_close(reader);
    else
        fprintf(stderr, "spindle dead ls: %s: %s\n", folder, error_text(error));
    if (!arguments->json && error == ERR_TRUNCATED && shown == 0)
        printf("no dead letters%s%s\n", arguments->reason ? " of reason " : "", arguments->reason ? arguments->reason : "");
    return error == ERR_TRUNCATED && !damaged ? COMMAND_OK : COMMAND_FAILED;
}
