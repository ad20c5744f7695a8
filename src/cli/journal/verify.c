/* `spindle journal verify`: reads everything, and with --salvage writes what it can read into a new folder.
 *
 * The streams are read in the opposite order of writing. So beside a running server what one says of another is there when that is read: an
 * outcome that is on disk has its result on disk, and that the messages which it answers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/terminal.h"
#include "cli/command.h"
#include "cli/journal/salvage.h"
#include "cli/journal/tool.h"
#include "journal/ends.h"
#include "journal/inspect.h"
#include "queue/dead_letter.h"
#include "queue/ledger.h"

enum { VERIFY_UNKNOWN_MAX = 4096, PROGRESS_INTERVAL_MS = 200 };

static const char command[] = "spindle journal verify", consumed[] = "ingest";
static const char *const order[] = {"outcomes", "dead-letters", "results", "bus", "ingest", "retained", "brokers", "sessions"};
enum { ORDER_COUNT = sizeof order / sizeof *order };

/* What a record says of a message that was not there when the reading began. It may have come since. */
struct unknown {
    struct reader_place place;
    uint64_t offset; /* of the message */
};

struct verification {
    const struct journal_verify_arguments *arguments;
    struct salvage *salvage; /* NULL: none */
    struct buffer line;
    bool written, damaged, complete;

    const char *stream;   /* the one being read */
    uint64_t findings;    /* damages in it */
    uint64_t known_until; /* offsets of the consumed stream before it exist, or have existed */
    struct unknown unknown[VERIFY_UNKNOWN_MAX];
    size_t unknown_count;

    uint64_t bytes_total, bytes_done, begin_ns, shown_ns;
};

static void emit(struct verification *verification)
{
    terminal_progress_end();
    verification->written = tool_emit(&verification->line) && verification->written;
}

/* ---- damage ---- */

static void print_finding(struct verification *verification, const char *kind, bool damage, const struct reader_damage *place,
                          const char *text)
{
    struct buffer *line = &verification->line;
    buffer_clear(line);
    if (verification->arguments->json) {
        buffer_printf(line,
                      "{\"stream\":\"%s\",\"segment\":\"%s\",\"position\":%" PRIu64 ",\"length\":%" PRIu64
                      ",\"finding\":\"%s\",\"damage\":%s,\"first_offset\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"text\":",
                      verification->stream, place->segment, place->position, place->length, kind, damage ? "true" : "false",
                      place->first_offset, place->next_offset - place->first_offset);
        buffer_append_json_string(line, text, strlen(text), 0);
        buffer_append_text(line, "}\n");
    } else {
        buffer_printf(line, "%s: %s/%s, byte %" PRIu64, damage ? "damage" : "note", verification->stream, place->segment, place->position);
        if (place->length)
            buffer_printf(line, ", %" PRIu64 " bytes", place->length);
        buffer_printf(line, ": %s\n", text);
    }
    emit(verification);
    verification->damaged = verification->damaged || damage;
}

static const char *kind_word(enum inspect_kind kind)
{
    static const char *const words[] = {[INSPECT_HEADER_COPY] = "header-copy", [INSPECT_HEADER] = "header",   [INSPECT_INDEX] = "index",
                                        [INSPECT_FOREIGN] = "foreign",         [INSPECT_RECORDS] = "records", [INSPECT_MISSING] = "missing",
                                        [INSPECT_REPEATED] = "repeated",       [INSPECT_TORN] = "torn"};
    return words[kind];
}

static void lost_text(const struct reader_damage *place, char *text, size_t size)
{
    if (place->next_offset == place->first_offset)
        snprintf(text, size, "no record is lost");
    else if (place->next_offset == place->first_offset + 1)
        snprintf(text, size, "offset %" PRIu64 " is lost", place->first_offset);
    else
        snprintf(text, size, "offsets %" PRIu64 " to %" PRIu64 " are lost", place->first_offset, place->next_offset - 1);
}

static void take_finding(void *context, const struct inspect_finding *finding)
{
    struct verification *verification = context;
    const struct reader_damage *place = &finding->place;
    char lost[96], text[256];
    lost_text(place, lost, sizeof lost);
    switch (finding->kind) {
    case INSPECT_HEADER_COPY:
        snprintf(text, sizeof text, "one of the two copies of the header does not check out; no record is lost");
        break;
    case INSPECT_HEADER:
        snprintf(text, sizeof text, "the header does not check out; %s",
                 place->unbounded                            ? "nothing behind it can be read, and nothing tells how much it was"
                 : place->next_offset == place->first_offset ? "its records were read with the key of another segment"
                                                             : lost);
        break;
    case INSPECT_INDEX:
        snprintf(text, sizeof text, "what tells where the frames of this compressed segment are does not check out, but is there twice; %s",
                 lost);
        break;
    case INSPECT_FOREIGN:
        snprintf(text, sizeof text, "the header names another stream or offset: the file was copied from elsewhere, or renamed");
        break;
    case INSPECT_RECORDS:
        snprintf(text, sizeof text, "does not check out; %s", lost);
        break;
    case INSPECT_MISSING:
        snprintf(text, sizeof text, "what follows here is missing, in this file or in whole segments; %s", lost);
        break;
    case INSPECT_REPEATED:
        snprintf(text, sizeof text, "an offset that an earlier record has already; from here on such records are passed over");
        break;
    case INSPECT_TORN:
        snprintf(text, sizeof text,
                 "the rest of an unfinished group; what a crash leaves was not acknowledged, and the next start cuts it off");
        break;
    }
    bool damage = finding->kind != INSPECT_TORN;
    verification->findings += damage;
    print_finding(verification, kind_word(finding->kind), damage, place, text);
}

/* A record that checks out, but says what cannot be. */
static void object(struct verification *verification, const struct reader_place *place, const char *text)
{
    struct reader_damage damage = {.position = place->position, .first_offset = place->next_offset, .next_offset = place->next_offset};
    segment_name(place->base_offset, damage.segment);
    verification->findings++;
    print_finding(verification, "content", true, &damage, text);
}

/* ---- what records say of each other ---- */

static void refer(struct verification *verification, uint64_t offset, const struct reader_place *place)
{
    if (offset >= verification->known_until && verification->unknown_count < VERIFY_UNKNOWN_MAX)
        verification->unknown[verification->unknown_count++] = (struct unknown){*place, offset};
}

/* Marks of dead letters: of none that does not exist is worth an objection, since a start takes them for those of another time. */
static bool marks_are_valid(const struct message *record)
{
    struct ledger marks;
    uint64_t applied;
    ledger_init(&marks);
    int error = ledger_is_checkpoint(record) ? ledger_checkpoint_decode(&marks, record, &applied) : ledger_apply(&marks, record);
    ledger_fini(&marks);
    return !error;
}

static void check_outcomes(struct verification *verification, const struct message *record, const struct reader_place *place)
{
    if (ledger_is_of_marks(record)) {
        if (!marks_are_valid(record))
            object(verification, place, "marks of dead letters that cannot be read");
        return;
    }
    if (record->topic_length != strlen(consumed) || memcmp(record->topic, consumed, record->topic_length) != 0) {
        object(verification, place, "outcomes of a stream that nobody consumes");
        return;
    }
    if (ledger_is_checkpoint(record)) {
        struct ledger ledger;
        uint64_t applied;
        ledger_init(&ledger);
        if (ledger_checkpoint_decode(&ledger, record, &applied) || applied > record->offset)
            object(verification, place, "a checkpoint that cannot be read");
        else if (ledger.highest > 0)
            refer(verification, ledger.highest - 1, place);
        ledger_fini(&ledger);
        return;
    }
    bool valid = record->properties_length == 0 && record->payload_length % 8 == 0;
    for (uint32_t i = 0; valid && i < record->payload_length; i += 8) {
        uint64_t entry;
        memcpy(&entry, record->payload + i, 8);
        unsigned outcome = entry >> 8 & 0xff, reason = entry & 0xff;
        valid = outcome >= QUEUE_COMPLETED && outcome <= QUEUE_DEAD_LETTERED && reason < REASON_COUNT &&
                (outcome == QUEUE_DEAD_LETTERED) == (reason != REASON_NONE);
        if (valid)
            refer(verification, entry >> 16, place);
    }
    if (!valid)
        object(verification, place, "outcomes that cannot be read");
}

static void check_dead_letter(struct verification *verification, const struct message *record, const uint64_t *sources, size_t source_count,
                              const struct reader_place *place)
{
    struct dead_letter letter;
    if (dead_letter_decode(record, &letter))
        object(verification, place, "a dead letter whose reason cannot be read");
    else if (source_count != 1 || letter.offset != sources[0] || strcmp(letter.stream, consumed) != 0)
        object(verification, place, "a dead letter that does not tell which message it was");
}

static int take_record(void *context, const struct message *record, const uint8_t *bytes, const struct reader_place *place)
{
    struct verification *verification = context;
    const uint64_t *sources;
    size_t source_count = format_record_sources(bytes, &sources);
    if (strcmp(verification->stream, "outcomes") == 0)
        check_outcomes(verification, record, place);
    else if (strcmp(verification->stream, "dead-letters") == 0)
        check_dead_letter(verification, record, sources, source_count, place);
    /* Of a message they say where it came from (struct queue_origin). */
    bool about_messages = strcmp(verification->stream, consumed) != 0 && strcmp(verification->stream, "bus") != 0;
    for (size_t i = 0; about_messages && i < source_count; i++)
        refer(verification, sources[i], place);
    return verification->salvage ? salvage_add(verification->salvage, record, sources, source_count) : 0;
}

/* The offset behind the last that the stream holds, or has held. */
static int stream_end(const char *data_dir, const char *stream, uint64_t *next_offset)
{
    char folder[TOOL_FOLDER_MAX];
    uint64_t known = tool_known_end(data_dir, stream);
    int error = tool_stream_folder(data_dir, stream, folder);
    *next_offset = 0;
    if (!error)
        error = segment_stream_end(disk_posix(), folder, NULL, NULL, next_offset);
    if (*next_offset < known)
        *next_offset = known;
    return error == ERR_NOT_FOUND ? 0 : error;
}

/* Once more, now that the stream was read: what has come since is no mistake. */
static int check_unknown(struct verification *verification)
{
    uint64_t next_offset;
    int error = verification->unknown_count ? stream_end(verification->arguments->data_dir, consumed, &next_offset) : 0;
    for (size_t i = 0; !error && i < verification->unknown_count; i++) {
        const struct unknown *unknown = &verification->unknown[i];
        char text[128];
        if (unknown->offset < next_offset)
            continue;
        snprintf(text, sizeof text, "it speaks of offset %" PRIu64 " of %s, which ends before offset %" PRIu64, unknown->offset, consumed,
                 next_offset);
        object(verification, &unknown->place, text);
    }
    return error;
}

/* ---- the streams ---- */

/* What neither retention nor `trim` has removed from the beginning of the stream, and is gone with its files. */
static void check_beginning(struct verification *verification, struct inspect_end *end, uint64_t known)
{
    if (!end->segments || end->first_offset <= known)
        return;
    struct reader_damage damage = {.first_offset = known, .next_offset = end->first_offset};
    char text[ENDS_TEXT_MAX];
    segment_name(end->first_offset, damage.segment);
    ends_lost_beginning_text(known, end->first_offset, text);
    verification->findings++;
    print_finding(verification, kind_word(INSPECT_MISSING), true, &damage, text);
    end->lost += end->first_offset - known;
}

/* What was written and is gone from the end of the stream, with its files. */
static void check_end(struct verification *verification, struct inspect_end *end, uint64_t known)
{
    if (end->next_offset >= known)
        return;
    struct reader_damage damage = {.position = end->last_position, .first_offset = end->next_offset, .next_offset = known};
    char text[ENDS_TEXT_MAX];
    segment_name(end->last_base, damage.segment);
    ends_lost_text(end->next_offset, known, text);
    verification->findings++;
    print_finding(verification, kind_word(INSPECT_MISSING), true, &damage, text);
    end->lost += known - end->next_offset;
    end->next_offset = known;
}

static void take_progress(void *context, uint64_t bytes)
{
    struct verification *verification = context;
    verification->bytes_done += bytes;
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns - verification->shown_ns < PROGRESS_INTERVAL_MS * UINT64_C(1000000))
        return;
    verification->shown_ns = now_ns;
    char done[TOOL_SIZE_TEXT_MAX], total[TOOL_SIZE_TEXT_MAX];
    terminal_progress("%s: %s of %s, %.0f MB/s", verification->stream, tool_size_text(verification->bytes_done, done),
                      tool_size_text(verification->bytes_total, total),
                      (double)verification->bytes_done * 1e3 / (double)(now_ns - verification->begin_ns + 1));
}

/* `error`: why it could not be read to its end. */
static void print_stream(struct verification *verification, const struct inspect_end *end, double seconds, int error)
{
    struct buffer *line = &verification->line;
    char size[TOOL_SIZE_TEXT_MAX];
    buffer_clear(line);
    if (verification->arguments->json)
        buffer_printf(line,
                      "{\"stream\":\"%s\",\"segments\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"records\":%" PRIu64 ",\"first_offset\":%" PRIu64
                      ",\"next_offset\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"damages\":%" PRIu64 ",\"seconds\":%.3f,\"ok\":%s",
                      verification->stream, end->segments, end->bytes, end->records, end->first_offset, end->next_offset, end->lost,
                      verification->findings, seconds, verification->findings || error ? "false" : "true");
    else
        buffer_printf(line, "%-13s %4" PRIu64 " segments, %10s, %10" PRIu64 " records from offset %" PRIu64 " to before %" PRIu64 ": ",
                      verification->stream, end->segments, tool_size_text(end->bytes, size), end->records, end->first_offset,
                      end->next_offset);
    if (verification->arguments->json && error)
        buffer_printf(line, ",\"error\":\"%s\"", error_text(error));
    if (verification->arguments->json)
        buffer_append_text(line, "}\n");
    else if (error)
        buffer_printf(line, "not read to the end: %s\n", error_text(error));
    else if (verification->findings)
        buffer_printf(line, "%" PRIu64 " damage%s, %" PRIu64 " record%s lost\n", verification->findings,
                      verification->findings == 1 ? "" : "s", end->lost, end->lost == 1 ? "" : "s");
    else
        buffer_append_text(line, "all good\n");
    emit(verification);
}

static int verify_stream(struct verification *verification, const char *stream)
{
    const struct inspect_visitor visitor = {
        .context = verification, .record = take_record, .finding = take_finding, .progress = take_progress};
    const char *data_dir = verification->arguments->data_dir;
    char folder[TOOL_FOLDER_MAX];
    struct inspect_end end = {0};
    uint64_t begin_ns = clock_monotonic_ns();
    verification->stream = stream;
    verification->findings = 0;
    verification->unknown_count = 0;
    uint64_t known = tool_known_end(data_dir, stream);
    int error = tool_stream_folder(data_dir, stream, folder);
    bool gone = error == ERR_NOT_FOUND; /* though it is known to have been there */
    error = gone ? 0 : error;
    if (!error && verification->salvage)
        error = salvage_begin_stream(verification->salvage, stream);
    if (!error && !gone)
        error = inspect_stream(disk_posix(), folder, stream, 0, &visitor, &end);
    if (!error) {
        check_beginning(verification, &end, tool_known_first(data_dir, stream));
        check_end(verification, &end, known);
    }
    if (!error)
        error = check_unknown(verification);
    if (!error && verification->salvage)
        error = salvage_end_stream(verification->salvage, end.next_offset);
    terminal_progress_end();
    if (error != ERR_CLOSED)
        print_stream(verification, &end, (double)(clock_monotonic_ns() - begin_ns) / 1e9, error);
    return error;
}

static bool is_wanted(const struct verification *verification, const char *stream)
{
    return !verification->arguments->stream_given || strcmp(verification->arguments->stream, stream) == 0;
}

static int measure(struct verification *verification)
{
    int error = stream_end(verification->arguments->data_dir, consumed, &verification->known_until);
    if (error == ERR_FORMAT_VERSION) { /* said when its turn comes; nothing tells what there is not */
        verification->known_until = UINT64_MAX;
        error = 0;
    }
    for (unsigned i = 0; i < ORDER_COUNT && !error; i++) {
        char folder[TOOL_FOLDER_MAX];
        struct inspect_file *files = NULL;
        size_t count = 0;
        if (!is_wanted(verification, order[i]) || tool_stream_folder(verification->arguments->data_dir, order[i], folder))
            continue;
        error = inspect_files(disk_posix(), folder, &files, &count);
        for (size_t f = 0; f < count; f++)
            verification->bytes_total += files[f].state <= INSPECT_ACTIVE ? files[f].bytes : 0;
        free(files);
    }
    return error;
}

/* Returns the exit status; sets verification->complete when everything was read. */
static int verify_all(struct verification *verification)
{
    const char *data_dir = verification->arguments->data_dir;
    unsigned found = 0, failed = 0;
    int status = COMMAND_OK, error = measure(verification);
    if (error)
        return tool_refuse_folder(command, data_dir, consumed, error);
    for (unsigned i = 0; i < ORDER_COUNT; i++) {
        char folder[TOOL_FOLDER_MAX];
        if (!is_wanted(verification, order[i]) ||
            (tool_stream_folder(data_dir, order[i], folder) == ERR_NOT_FOUND && !tool_known_end(data_dir, order[i])))
            continue;
        found++;
        error = verify_stream(verification, order[i]);
        failed += error != 0;
        if (error)
            status = error == ERR_CLOSED ? COMMAND_FAILED : tool_refuse_folder(command, data_dir, order[i], error);
        if (error && verification->salvage)
            break;
    }
    if (!found)
        return tool_refuse_folder(command, data_dir, verification->arguments->stream_given ? verification->arguments->stream : consumed,
                                  ERR_NOT_FOUND);
    if (failed)
        return status;
    verification->complete = true;
    return verification->damaged ? COMMAND_FAILED : COMMAND_OK;
}

int command_journal_verify(const struct journal_verify_arguments *arguments)
{
    tool_begin_output();
    if (arguments->salvage && arguments->stream_given)
        return tool_refuse(command, "--salvage takes every stream; leave --stream out");
    struct verification *verification = calloc(1, sizeof *verification);
    if (!verification)
        return tool_refuse(command, "%s", error_text(ERR_NO_MEMORY));
    *verification = (struct verification){.arguments = arguments, .written = true, .begin_ns = clock_monotonic_ns()};
    buffer_init(&verification->line, TOOL_LINE_MAX);
    int status = COMMAND_OK;
    if (arguments->salvage)
        status = salvage_open(&verification->salvage, command, arguments->data_dir, arguments->salvage);
    if (!status)
        status = verify_all(verification);
    if (salvage_close(verification->salvage, verification->complete, arguments->json))
        status = COMMAND_FAILED;
    buffer_fini(&verification->line);
    free(verification);
    return command_finish_output(command, status);
}
