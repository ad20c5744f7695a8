/* `spindle journal ls`. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/journal/tool.h"
#include "journal/ends.h"
#include "journal/inspect.h"
#include "queue/ledger.h"

static const char command[] = "spindle journal ls";

struct listing {
    const char *stream;
    struct inspect_file *files; /* [file_count]: segments in order, then the others */
    size_t file_count, segment_count;
    size_t compressed_count;
    uint64_t bytes, other_bytes, raw_bytes; /* raw_bytes: of the segments, if none of them were compressed */
    struct inspect_end newest;              /* of the last segment alone */
    uint64_t oldest_ns, newest_ns;
    bool damaged;
    int error;     /* why not all of it could be looked at */
    bool consumed; /* the fields below hold */
    uint64_t cursor, pending;
};

static void take_newest(void *context, uint64_t time_ns)
{
    struct listing *listing = context;
    listing->newest_ns = time_ns;
}

static int take_record(void *context, const struct message *message, const uint8_t *bytes, const struct reader_place *place)
{
    (void)bytes;
    (void)place;
    take_newest(context, message->time_ns);
    return 0;
}

static void take_finding(void *context, const struct inspect_finding *finding)
{
    struct listing *listing = context;
    if (finding->kind == INSPECT_TORN)
        return;
    listing->damaged = true;
    char text[READER_DAMAGE_TEXT_MAX];
    reader_damage_text(&finding->place, text);
    fprintf(stderr, "damage: %s/%s\n", listing->stream, text);
}

/* The time of the first record at or behind an offset. */
static int record_time(const char *folder, uint64_t offset, uint64_t *time_ns)
{
    struct reader *reader;
    struct message message;
    int error = reader_open(&reader, disk_posix(), folder, offset, NULL, NULL);
    if (error)
        return error;
    error = reader_next(reader, UINT64_MAX, &message, NULL);
    if (!error)
        *time_ns = message.time_ns;
    reader_close(reader);
    return error == ERR_TRUNCATED ? 0 : error;
}

static void look_at_end(struct listing *listing, uint64_t known)
{
    if (listing->newest.next_offset >= known)
        return;
    char text[ENDS_TEXT_MAX];
    ends_lost_text(listing->newest.next_offset, known, text);
    fprintf(stderr, "damage: %s: %s\n", listing->stream, text);
    listing->damaged = true;
}

static void look_at_beginning(struct listing *listing, uint64_t known)
{
    if (!listing->segment_count || listing->files[0].base_offset <= known)
        return;
    char text[ENDS_TEXT_MAX];
    ends_lost_beginning_text(known, listing->files[0].base_offset, text);
    fprintf(stderr, "damage: %s: %s\n", listing->stream, text);
    listing->damaged = true;
}

static int look_at_stream(const char *data_dir, struct listing *listing)
{
    char folder[TOOL_FOLDER_MAX];
    uint64_t known = tool_known_end(data_dir, listing->stream);
    const struct inspect_visitor visitor = {.context = listing, .record = take_record, .finding = take_finding};
    int error = tool_stream_folder(data_dir, listing->stream, folder);
    if (!error)
        error = inspect_files(disk_posix(), folder, &listing->files, &listing->file_count);
    if (error)
        return error;
    for (size_t i = 0; i < listing->file_count; i++) {
        bool is_segment = listing->files[i].state <= INSPECT_ACTIVE;
        listing->segment_count += is_segment;
        *(is_segment ? &listing->bytes : &listing->other_bytes) += listing->files[i].bytes;
        if (is_segment)
            listing->raw_bytes += listing->files[i].raw_bytes ? listing->files[i].raw_bytes : listing->files[i].bytes;
        listing->compressed_count += listing->files[i].raw_bytes > 0;
    }
    error = inspect_stream(disk_posix(), folder, listing->stream, UINT64_MAX, &visitor, &listing->newest);
    look_at_beginning(listing, tool_known_first(data_dir, listing->stream));
    if (!error)
        look_at_end(listing, known);
    if (!error && listing->newest.sealed && listing->segment_count)
        listing->files[listing->segment_count - 1].state = INSPECT_CLOSED;
    if (!error && listing->segment_count)
        error = record_time(folder, listing->files[0].base_offset, &listing->oldest_ns);
    if (!error && !listing->newest_ns && listing->newest.next_offset)
        error = record_time(folder, listing->newest.next_offset - 1, &listing->newest_ns);
    return error;
}

/* The cursor, of the stream that is consumed. */
static int look_at_ledger(const char *data_dir, struct listing *listing)
{
    struct ledger ledger;
    struct ledger_extent extent;
    struct queue_counts counts;
    int error = ledger_load(&ledger, disk_posix(), data_dir, listing->stream, &extent, NULL, NULL);
    if (error)
        return error;
    ledger_counts(&ledger, extent.next, &counts);
    listing->consumed = true;
    listing->cursor = ledger.cursor;
    listing->pending = counts.pending;
    ledger_fini(&ledger);
    return 0;
}

/* ---- what is printed ---- */

static const char *state_word(enum inspect_state state)
{
    static const char *const words[] = {[INSPECT_CLOSED] = "closed",          [INSPECT_ACTIVE] = "active", [INSPECT_PREPARED] = "prepared",
                                        [INSPECT_COMPRESSING] = "being made", [INSPECT_SPARE] = "spare",   [INSPECT_ASIDE] = "set aside"};
    return words[state];
}

static bool file_records(const struct listing *listing, size_t index, uint64_t *records)
{
    if (index >= listing->segment_count)
        return false;
    uint64_t next = index + 1 < listing->segment_count ? listing->files[index + 1].base_offset : listing->newest.next_offset;
    *records = next > listing->files[index].base_offset ? next - listing->files[index].base_offset : 0;
    return true;
}

static uint64_t lag(const struct listing *listing)
{
    return listing->newest.next_offset > listing->cursor ? listing->newest.next_offset - listing->cursor : 0;
}

static void print_file_json(struct buffer *line, const struct listing *listing, size_t index)
{
    const struct inspect_file *file = &listing->files[index];
    uint64_t records;
    buffer_printf(line, "%s{\"name\":\"%s\",\"state\":\"%s\",\"bytes\":%" PRIu64, index ? "," : "", file->name, state_word(file->state),
                  file->bytes);
    if (file->raw_bytes)
        buffer_printf(line, ",\"raw_bytes\":%" PRIu64, file->raw_bytes);
    if (file_records(listing, index, &records))
        buffer_printf(line, ",\"base_offset\":%" PRIu64 ",\"records\":%" PRIu64 ",\"created_ns\":%" PRIu64, file->base_offset, records,
                      file->created_ns);
    buffer_append_text(line, "}");
}

static void print_json(struct buffer *line, const struct listing *listing, bool segments)
{
    uint64_t first = listing->segment_count ? listing->files[0].base_offset : 0;
    buffer_printf(line,
                  "{\"stream\":\"%s\",\"segments\":%zu,\"compressed_segments\":%zu,\"bytes\":%" PRIu64 ",\"raw_bytes\":%" PRIu64
                  ",\"other_bytes\":%" PRIu64 ",\"first_offset\":%" PRIu64 ",\"next_offset\":%" PRIu64 ",\"oldest_ns\":%" PRIu64
                  ",\"newest_ns\":%" PRIu64,
                  listing->stream, listing->segment_count, listing->compressed_count, listing->bytes, listing->raw_bytes,
                  listing->other_bytes, first, listing->newest.next_offset, listing->oldest_ns, listing->newest_ns);
    if (listing->consumed)
        buffer_printf(line, ",\"cursor\":%" PRIu64 ",\"lag\":%" PRIu64 ",\"pending\":%" PRIu64, listing->cursor, lag(listing),
                      listing->pending);
    if (segments) {
        buffer_append_text(line, ",\"files\":[");
        for (size_t i = 0; i < listing->file_count; i++)
            print_file_json(line, listing, i);
        buffer_append_text(line, "]");
    }
    if (listing->error)
        buffer_printf(line, ",\"error\":\"%s\"", error_text(listing->error));
    buffer_append_text(line, "}\n");
}

static void time_column(uint64_t time_ns, char text[CLOCK_TEXT_SIZE])
{
    if (time_ns)
        clock_wall_text(time_ns, text);
    else
        snprintf(text, CLOCK_TEXT_SIZE, "-");
}

static void print_text(struct buffer *line, const struct listing *listing, bool segments)
{
    char size[TOOL_SIZE_TEXT_MAX], oldest[CLOCK_TEXT_SIZE], newest[CLOCK_TEXT_SIZE], cursor[64] = "";
    time_column(listing->oldest_ns, oldest);
    time_column(listing->newest_ns, newest);
    if (listing->consumed)
        snprintf(cursor, sizeof cursor, " %12" PRIu64 " %10" PRIu64 " %10" PRIu64, listing->cursor, lag(listing), listing->pending);
    buffer_printf(line, "%-13s %8zu %10s %12" PRIu64 " %12" PRIu64 "  %-24s  %-24s%s\n", listing->stream, listing->segment_count,
                  tool_size_text(listing->bytes, size), listing->segment_count ? listing->files[0].base_offset : 0,
                  listing->newest.next_offset, oldest, newest, cursor);
    for (size_t i = 0; segments && i < listing->file_count; i++) {
        const struct inspect_file *file = &listing->files[i];
        uint64_t records;
        time_column(file->created_ns, oldest);
        buffer_printf(line, "  %-32s %-10s %10s", file->name, file->raw_bytes ? "compressed" : state_word(file->state),
                      tool_size_text(file->bytes, size));
        if (file_records(listing, i, &records))
            buffer_printf(line, " %12" PRIu64 " records  %s", records, oldest);
        if (file->raw_bytes)
            buffer_printf(line, "  1/%.1f of %s", (double)file->raw_bytes / (double)file->bytes, tool_size_text(file->raw_bytes, size));
        buffer_append_text(line, "\n");
    }
}

/* Returns the exit status. */
static int list_stream(const char *data_dir, const char *stream, const struct journal_ls_arguments *arguments, struct buffer *line)
{
    struct listing listing = {.stream = stream};
    int error = look_at_stream(data_dir, &listing);
    if (!error && strcmp(stream, "ingest") == 0)
        error = look_at_ledger(data_dir, &listing);
    listing.error = error;
    buffer_clear(line);
    if (arguments->json)
        print_json(line, &listing, arguments->segments);
    else if (!error)
        print_text(line, &listing, arguments->segments);
    free(listing.files);
    bool written = tool_emit(line); /* of what cannot be read, as far as it was seen */
    if (error)
        return tool_refuse_folder(command, data_dir, stream, error);
    return written && !listing.damaged ? COMMAND_OK : COMMAND_FAILED;
}

int command_journal_ls(const struct journal_ls_arguments *arguments)
{
    tool_begin_output();
    char folder[TOOL_FOLDER_MAX];
    int status = COMMAND_OK;
    unsigned found = 0;
    bool gone = false;
    struct buffer line;
    buffer_init(&line, TOOL_LINE_MAX);
    for (const char *const *stream = tool_streams; *stream; stream++) {
        if (arguments->stream_given && strcmp(arguments->stream, *stream) != 0)
            continue;
        if (tool_stream_folder(arguments->data_dir, *stream, folder) == ERR_NOT_FOUND) {
            struct listing nothing = {.stream = *stream};
            look_at_end(&nothing, tool_known_end(arguments->data_dir, *stream));
            gone = gone || nothing.damaged;
            continue;
        }
        if (found++ == 0 && !arguments->json)
            printf("%-13s %8s %10s %12s %12s  %-24s  %-24s %12s %10s %10s\n", "stream", "segments", "size", "first", "next", "oldest",
                   "newest", "cursor", "lag", "pending");
        int of_stream = list_stream(arguments->data_dir, *stream, arguments, &line);
        status = of_stream > status ? of_stream : status;
    }
    buffer_fini(&line);
    if (gone && status == COMMAND_OK)
        status = COMMAND_FAILED;
    if (!found && !gone)
        status =
            tool_refuse_folder(command, arguments->data_dir, arguments->stream_given ? arguments->stream : tool_streams[0], ERR_NOT_FOUND);
    return command_finish_output(command, status);
}
