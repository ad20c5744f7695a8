/* `spindle journal` and `spindle dead`: what lies on disk, read from the files alone. They change nothing, and work beside a running
 * server as well as on the folder of a stopped one. */
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
#include "journal/journal.h"
#include "mqtt/packet.h"
#include "queue/dead_letter.h"
#include "queue/ledger.h"

enum { LINE_MAX_BYTES = 1 << 30, STREAM_FOLDER_MAX = 4400 };

static const char *const public_streams[] = {"ingest", "bus", "results", "dead-letters"};
enum { PUBLIC_STREAM_COUNT = sizeof public_streams / sizeof *public_streams };

static int stream_folder(const char *data_dir, const char *stream, char folder[STREAM_FOLDER_MAX])
{
    snprintf(folder, STREAM_FOLDER_MAX, "%s/%s", data_dir, stream);
    struct stat status;
    if (stat(folder, &status))
        return error_from_errno(errno);
    return S_ISDIR(status.st_mode) ? 0 : ERR_NOT_FOLDER;
}

static const char *reading_advice(int error)
{
    switch (error) {
    case ERR_PERMISSION:
        return "; run this as the user that the server runs as, or as root";
    case ERR_FORMAT_VERSION:
        return "; another version of Spindle wrote it: use that one";
    case ERR_NOT_FOLDER:
        return ", or something on its path is none; --data-dir names the folder that `spindle run` was given (data.dir)";
    default:
        return "";
    }
}

/* Says why a stream's folder cannot be read. Returns the exit status. */
static int refuse_folder(const char *command, const char *data_dir, const char *stream, int error)
{
    if (error == ERR_NOT_FOUND) {
        fprintf(stderr, "%s: there is no stream `%s` in %s; --data-dir names the folder that `spindle run` was given (data.dir)\n", command,
                stream, data_dir);
        return COMMAND_USAGE;
    }
    fprintf(stderr, "%s: %s/%s cannot be read: %s%s\n", command, data_dir, stream, error_text(error), reading_advice(error));
    return error == ERR_NOT_FOLDER ? COMMAND_USAGE : COMMAND_FAILED;
}

static void say_damage(void *context, const struct reader_damage *damage)
{
    bool *damaged = context;
    *damaged = true;
    char text[READER_DAMAGE_TEXT_MAX];
    reader_damage_text(damage, text);
    fprintf(stderr, "damage: %s\n", text);
}

/* ---- output that may fail ---- */

static void begin_output(void)
{
    signal(SIGPIPE, SIG_DFL); /* `| head` ends it quietly */
}

static bool emit(const struct buffer *line)
{
    return fwrite(line->data, 1, line->length, stdout) == line->length;
}

/* The exit status: `status`, or COMMAND_FAILED when not all that was printed could be written. */
static int finish_output(const char *command, int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "%s: the output cannot be written: %s\n", command, strerror(errno));
    return COMMAND_FAILED;
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

static void append_pair(struct buffer *line, bool first, struct mqtt_slice name, struct mqtt_slice value)
{
    buffer_append_text(line, first ? ",\"properties\":[[" : ",[");
    buffer_append_json_string(line, (const char *)name.data, name.length, 0);
    buffer_append_text(line, ",");
    buffer_append_json_string(line, (const char *)value.data, value.length, 0);
    buffer_append_text(line, "]");
}

/* The user properties of a message as it was or will be published: [[name, value], ...], since names may repeat. What `dead-letters` and
 * `outcomes` keep in their place is not published. */
static void append_properties(struct buffer *line, const char *stream, const struct message *message)
{
    struct mqtt_slice raw = {message->properties, message->properties_length}, name, value;
    bool first = true;
    if (strcmp(stream, "results") == 0) {
        static const char id[] = "message-id";
        if (raw.length) {
            append_pair(line, true, (struct mqtt_slice){(const uint8_t *)id, sizeof id - 1}, raw);
            first = false;
        }
    } else if (strcmp(stream, "dead-letters") != 0 && strcmp(stream, "outcomes") != 0) {
        for (uint32_t position = 0; mqtt_properties_next_user(raw, &position, &name, &value); first = false)
            append_pair(line, first, name, value);
    }
    if (!first)
        buffer_append_text(line, "]");
}

static bool print_record(struct buffer *line, const char *stream, const struct message *message, bool json)
{
    buffer_clear(line);
    if (json) {
        buffer_printf(line, "{\"stream\":\"%s\",\"offset\":%" PRIu64 ",\"time_ns\":%" PRIu64 ",\"topic\":", stream, message->offset,
                      message->time_ns);
        buffer_append_json_string(line, message->topic, message->topic_length, 0);
        buffer_append_text(line, ",");
        append_bytes_json(line, "payload", message->payload, message->payload_length);
        append_properties(line, stream, message);
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
    return emit(line);
}

int command_journal_cat(const struct journal_cat_arguments *arguments)
{
    static const char command[] = "spindle journal cat";
    begin_output();
    char folder[STREAM_FOLDER_MAX];
    bool damaged = false;
    struct reader *reader;
    int error = stream_folder(arguments->data_dir, arguments->stream, folder);
    if (!error)
        error = reader_open(&reader, disk_posix(), folder, arguments->from, say_damage, &damaged);
    if (error)
        return refuse_folder(command, arguments->data_dir, arguments->stream, error);
    struct buffer line;
    buffer_init(&line, LINE_MAX_BYTES);
    struct message message;
    uint64_t left = arguments->count_given ? arguments->count : UINT64_MAX;
    bool written = true;
    while (written && left-- && !(error = reader_next(reader, UINT64_MAX, &message, NULL)))
        written = print_record(&line, arguments->stream, &message, arguments->json);
    buffer_fini(&line);
    reader_close(reader);
    int status = damaged ? COMMAND_FAILED : COMMAND_OK;
    if (error && error != ERR_TRUNCATED)
        status = refuse_folder(command, arguments->data_dir, arguments->stream, error);
    return finish_output(command, status);
}

/* ---- the equation, counted from disk ---- */

struct audit {
    const char *stream;
    struct queue_counts counts;
    uint64_t reasons[LEDGER_REASON_COUNT];
    char why[1024]; /* it does not hold, or cannot be known; empty: it holds */
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
    if (strcmp(stream, audit->stream) == 0)
        object(audit, "damage in %s/%s", stream, text);
    else
        object(audit, "damage in %s/%s; messages whose outcome stood there count as pending", stream, text);
}

static void object_to_own_damage(void *context, const struct reader_damage *damage)
{
    struct audit *audit = context;
    object_to_damage(audit, audit->stream, damage);
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
    ledger_fini(&ledger);
    return 0;
}

static void audit_stream(const char *data_dir, struct audit *audit)
{
    char folder[STREAM_FOLDER_MAX];
    uint64_t next;
    int error = stream_folder(data_dir, audit->stream, folder);
    if (error)
        object(audit, "%s: %s%s", folder, error_text(error), reading_advice(error));
    if (strcmp(audit->stream, "ingest") == 0) {
        error = audit_ledger(data_dir, audit);
    } else if (!error) {
        error = segment_stream_end(disk_posix(), folder, object_to_own_damage, audit, &next);
        if (!error)
            audit->counts = (struct queue_counts){.accepted = next, .completed = next};
    }
    if (error && !audit->why[0])
        object(audit, "%s cannot be read: %s%s", folder, error_text(error), reading_advice(error));
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
        buffer_append_text(line, "}\n");
        return emit(line);
    }
    buffer_printf(line, "%-13s %12" PRIu64 " = %12" PRIu64 " + %10" PRIu64 " + %10" PRIu64 " + %10" PRIu64 "   %s\n", audit->stream,
                  counts->accepted, counts->completed, counts->duplicates, counts->dead_lettered, counts->pending,
                  holds ? "holds" : "DOES NOT HOLD");
    for (unsigned i = 1; i < LEDGER_REASON_COUNT; i++)
        if (audit->reasons[i])
            buffer_printf(line, "%-13s   dead-lettered as %s: %" PRIu64 "\n", "", ledger_reason_word(i), audit->reasons[i]);
    return emit(line);
}

int command_journal_audit(const struct journal_audit_arguments *arguments)
{
    static const char command[] = "spindle journal audit";
    begin_output();
    char folder[STREAM_FOLDER_MAX];
    int error = ERR_NOT_FOUND;
    for (unsigned i = 0; i < PUBLIC_STREAM_COUNT && error == ERR_NOT_FOUND; i++)
        error = stream_folder(arguments->data_dir, public_streams[i], folder);
    if (error == ERR_NOT_FOUND || error == ERR_NOT_FOLDER) /* no data folder at all */
        return refuse_folder(command, arguments->data_dir, public_streams[0], error);
    if (!arguments->json)
        printf("%-13s %12s = %12s + %10s + %10s + %10s\n", "stream", "accepted", "completed", "duplicates", "dead", "pending");
    int status = COMMAND_OK;
    struct buffer line;
    buffer_init(&line, LINE_MAX_BYTES);
    for (unsigned i = 0; i < PUBLIC_STREAM_COUNT; i++) {
        struct audit audit = {.stream = public_streams[i]};
        audit_stream(arguments->data_dir, &audit);
        if (audit.why[0])
            status = COMMAND_FAILED;
        if (!print_audit(&line, &audit, arguments->json))
            break;
    }
    buffer_fini(&line);
    return finish_output(command, status);
}

/* ---- dead letters ---- */

static bool print_dead_letter(struct buffer *line, const struct message *record, const struct dead_letter *letter, bool json)
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
    return emit(line);
}

static bool is_reason(const char *word)
{
    return strcmp(ledger_reason_word(ledger_reason_parse(word)), word) == 0;
}

static int refuse_reason(const char *command, const char *word)
{
    fprintf(stderr, "%s: there is no reason `%s`; the reasons are:\n", command, word);
    for (unsigned i = 1; i < LEDGER_REASON_COUNT; i++)
        fprintf(stderr, "  %-14s %s\n", ledger_reason_word(i), ledger_reason_help(i));
    return COMMAND_USAGE;
}

int command_dead_ls(const struct dead_ls_arguments *arguments)
{
    static const char command[] = "spindle dead ls", stream[] = "dead-letters";
    begin_output();
    if (arguments->reason && !is_reason(arguments->reason))
        return refuse_reason(command, arguments->reason);
    char folder[STREAM_FOLDER_MAX];
    bool damaged = false, written = true;
    struct reader *reader;
    int error = stream_folder(arguments->data_dir, stream, folder);
    if (!error)
        error = reader_open(&reader, disk_posix(), folder, 0, say_damage, &damaged);
    if (error)
        return refuse_folder(command, arguments->data_dir, stream, error);
    struct buffer line;
    buffer_init(&line, LINE_MAX_BYTES);
    struct message record;
    uint64_t shown = 0;
    while (written && !(error = reader_next(reader, UINT64_MAX, &record, NULL))) {
        struct dead_letter letter = {.reason = "internal", .error = "the reason of this dead letter cannot be read"};
        dead_letter_decode(&record, &letter);
        if (arguments->reason && strcmp(letter.reason, arguments->reason) != 0)
            continue;
        written = print_dead_letter(&line, &record, &letter, arguments->json);
        shown++;
    }
    buffer_fini(&line);
    reader_close(reader);
    int status = damaged ? COMMAND_FAILED : COMMAND_OK;
    if (error && error != ERR_TRUNCATED)
        status = refuse_folder(command, arguments->data_dir, stream, error);
    else if (!arguments->json && shown == 0)
        printf("no dead letters%s%s\n", arguments->reason ? " of reason " : "", arguments->reason ? arguments->reason : "");
    return finish_output(command, status);
}
