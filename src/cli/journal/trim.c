/* `spindle journal trim`: of a running server's folder it has the server remove what is not needed, which does it as its retention does; of
 * another it removes the files itself. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/journal/tool.h"
#include "cli/journal/trim_http.h"
#include "cli/journal/trim_request.h"
#include "cli/journal/when.h"
#include "cli/server_ask.h"
#include "control/pages.h"
#include "journal/ends.h"
#include "journal/inspect.h"
#include "queue/ledger.h"

static const char command[] = "spindle journal trim", retained[] = "retained", sessions[] = "sessions";

enum { REQUEST_MAX = 16 << 10 };

struct trimming {
    const struct journal_trim_arguments *arguments;
    struct trim_request request;
    struct trim_done done;
    bool by_server;

    /* Of a folder that no server has open. */
    char folder[TOOL_FOLDER_MAX];
    struct stream_segment *segments; /* [count], oldest first */
    size_t count;
    uint64_t guard; /* nothing at or beyond it goes unless forced */
};

/* ---- what lies there ---- */

static int find_segments(struct trimming *trimming)
{
    struct inspect_file *files;
    size_t count;
    int error = inspect_files(disk_posix(), trimming->folder, &files, &count);
    if (error)
        return error;
    while (count && files[count - 1].state > INSPECT_ACTIVE)
        count--;
    trimming->segments = calloc(count + 1, sizeof *trimming->segments);
    for (; trimming->segments && trimming->count < count; trimming->count++) {
        const struct inspect_file *file = &files[trimming->count];
        trimming->segments[trimming->count] =
            (struct stream_segment){.base_offset = file->base_offset, .bytes = file->bytes, .created_ns = file->created_ns};
    }
    free(files);
    return trimming->segments ? 0 : ERR_NO_MEMORY;
}

/* Of a server that was killed the newest segment is zeros for the most part, which were written ahead: they are nothing that is kept. */
static void measure_newest(struct trimming *trimming)
{
    static const struct inspect_visitor nobody;
    struct inspect_end end;
    if (trimming->count == 0 || inspect_stream(disk_posix(), trimming->folder, trimming->request.stream, UINT64_MAX, &nobody, &end))
        return;
    struct stream_segment *newest = &trimming->segments[trimming->count - 1];
    if (end.last_base == newest->base_offset && end.last_position < newest->bytes)
        newest->bytes = end.last_position;
}

/* ---- what is still needed ---- */

/* What the newest checkpoints include: those of the messages and those of the marks of dead letters. */
static int find_checkpoint(const char *folder, uint64_t *applied)
{
    struct ledger ledger;
    uint64_t of_messages = 0, of_marks = UINT64_MAX; /* where dead letters were never marked there is no checkpoint of it */
    bool found = false;
    ledger_init(&ledger);
    int error = ledger_load_checkpoint(&ledger, disk_posix(), folder, "ingest", &of_messages, &found);
    if (!error)
        error = ledger_load_checkpoint(&ledger, disk_posix(), folder, ledger_marks_stream, &of_marks, &found);
    ledger_fini(&ledger);
    if (!error)
        *applied = of_messages < of_marks ? of_messages : of_marks;
    return error;
}

static int find_guard(struct trimming *trimming, const struct ledger *ledger)
{
    trimming->guard = UINT64_MAX;
    if (strcmp(trimming->request.stream, retained) == 0)
        trimming->guard = 0; /* which of them hold messages that are still valid only the server knows */
    else if (strcmp(trimming->request.stream, "ingest") == 0)
        trimming->guard = ledger->cursor;
    else if (strcmp(trimming->request.stream, "outcomes") == 0)
        return find_checkpoint(trimming->folder, &trimming->guard);
    else if (strcmp(trimming->request.stream, "brokers") == 0 || strcmp(trimming->request.stream, sessions) == 0)
        trimming->guard = 0; /* the server removes what it has written again */
    return 0;
}

static int choose(struct trimming *trimming)
{
    struct retention_trim limits = trim_request_limits(&trimming->request, clock_wall_ns());
    bool force = trimming->arguments->force && strcmp(trimming->request.stream, retained) != 0;
    if (force)
        limits.keep_count = 1;
    struct retention_plan plan = retention_plan(&limits, trimming->segments, trimming->count, force ? UINT64_MAX : trimming->guard);
    struct trim_done *done = &trimming->done;
    done->kept_back = plan.named - plan.removable;
    done->bases = calloc(plan.removable + 1, sizeof *done->bases);
    if (!done->bases)
        return ERR_NO_MEMORY;
    for (; done->count < plan.removable; done->count++) {
        done->bases[done->count] = trimming->segments[done->count].base_offset;
        done->bytes += trimming->segments[done->count].bytes;
    }
    return 0;
}

static uint64_t first_left(const struct trimming *trimming)
{
    return trimming->count ? trimming->segments[trimming->done.count].base_offset : 0;
}

static void count_pending(struct trimming *trimming, const struct ledger *ledger)
{
    if (strcmp(trimming->request.stream, "ingest") != 0 || trimming->done.count == 0)
        return;
    for (uint64_t offset = ledger->cursor; offset < first_left(trimming); offset++)
        trimming->done.pending += !ledger_is_settled(ledger, offset);
}

static int prepare(struct trimming *trimming)
{
    const char *data_dir = trimming->arguments->data_dir;
    struct ledger ledger;
    struct ledger_extent extent;
    int error = find_segments(trimming);
    if (error)
        return error;
    measure_newest(trimming);
    error = ledger_load(&ledger, disk_posix(), data_dir, "ingest", &extent, NULL, NULL);
    if (error)
        return error;
    error = find_guard(trimming, &ledger);
    if (!error)
        error = choose(trimming);
    if (!error)
        count_pending(trimming, &ledger);
    ledger_fini(&ledger);
    return error;
}

/* ---- removing ---- */

/* What says that the messages are done with must be on disk before they go; a server that was killed may have left it in memory. */
static int sync_stream(const char *data_dir, const char *stream)
{
    struct disk *disk = disk_posix();
    char folder[TOOL_FOLDER_MAX];
    uint64_t *bases = NULL;
    size_t count = 0;
    int error = tool_stream_folder(data_dir, stream, folder);
    if (!error)
        error = segment_list(disk, folder, &bases, &count);
    for (size_t i = count > LEDGER_TAIL_SEGMENTS ? count - LEDGER_TAIL_SEGMENTS : 0; i < count && !error; i++) {
        struct segment_file segment;
        error = segment_open(disk, folder, bases[i], DISK_WRITE, &segment);
        if (error)
            break;
        int failed = disk->ops->sync(disk, segment.file);
        segment_close(disk, &segment);
        error = failed ? error_from_errno(-failed) : 0;
    }
    free(bases);
    return error == ERR_NOT_FOUND || error == ERR_CORRUPT ? 0 : error;
}

/* What was chosen goes; done.count and done.bytes then say how much of it did. */
static int remove_segments(struct trimming *trimming)
{
    struct disk *disk = disk_posix();
    struct trim_done *done = &trimming->done;
    static const char *const books[] = {"results", "dead-letters", "outcomes"};
    int error = 0;
    for (unsigned i = 0; i < 3 && !error && done->count; i++)
        error = sync_stream(trimming->arguments->data_dir, books[i]);
    if (!error && done->count)
        error = ends_note_first(disk, trimming->arguments->data_dir, trimming->arguments->stream, first_left(trimming));
    size_t chosen = done->count;
    done->count = 0;
    done->bytes = 0;
    while (!error && done->count < chosen) {
        char name[INSPECT_NAME_MAX], path[TOOL_FOLDER_MAX + INSPECT_NAME_MAX];
        segment_name(done->bases[done->count], name);
        snprintf(path, sizeof path, "%s/%s", trimming->folder, name);
        int failed = disk->ops->remove(disk, path);
        error = failed ? error_from_errno(-failed) : 0;
        if (!error)
            done->bytes += trimming->segments[done->count++].bytes;
    }
    int failed = done->count ? disk->ops->sync_folder(disk, trimming->folder) : 0;
    return error ? error : failed ? error_from_errno(-failed) : 0;
}

/* ---- what is said ---- */

static const char *guard_text(const char *stream)
{
    return strcmp(stream, "ingest") == 0     ? "they hold messages without an outcome"
           : strcmp(stream, "outcomes") == 0 ? "no checkpoint includes what they say yet"
           : strcmp(stream, sessions) == 0   ? "they hold sessions of clients, and the server removes what it has written again"
           : strcmp(stream, retained) == 0   ? "they hold retained messages, and the server removes what it has written again"
                                             : "the next start needs them to find outcomes that a crash may have cut off";
}

static void print_outcome(const struct trimming *trimming)
{
    const struct trim_done *done = &trimming->done;
    const char *stream = trimming->request.stream;
    bool dry = trimming->request.dry_run;
    char size[TOOL_SIZE_TEXT_MAX];
    if (trimming->arguments->json) {
        struct buffer line;
        buffer_init(&line, TOOL_LINE_MAX);
        trim_done_write(&trimming->request, done, false, &line);
        tool_emit(&line);
        buffer_fini(&line);
        return;
    }
    for (size_t i = 0; i < done->count; i++) {
        char name[INSPECT_NAME_MAX];
        segment_name(done->bases[i], name);
        printf("%s %s/%s\n", dry ? "would remove" : "removed", stream, name);
    }
    printf("%s: %zu segments, %s %s; the first offset %s %" PRIu64 "\n", stream, done->count, tool_size_text(done->bytes, size),
           dry ? "would go" : "are gone", dry ? "would be" : "is", done->first_offset);
}

static void print_consequences(const struct trimming *trimming)
{
    const char *stream = trimming->request.stream;
    const struct trim_done *done = &trimming->done;
    bool dry = trimming->request.dry_run;
    if (done->kept_back && strcmp(stream, retained) == 0)
        fprintf(stderr, "%s: %" PRIu64 " segments of %s stay: %s\n", command, done->kept_back, stream, guard_text(stream));
    else if (done->kept_back)
        fprintf(stderr, "%s: %" PRIu64 " segments of %s stay: %s; --force %s\n", command, done->kept_back, stream, guard_text(stream),
                trimming->by_server ? "removes them when the server is stopped" : "removes them all the same");
    if (done->pending)
        fprintf(stderr, "%s: %" PRIu64 " messages without an outcome %s lost; the next start counts them as dead-lettered, reason %s\n",
                command, done->pending, dry ? "would be" : "are", reason_word(REASON_DAMAGED));
    if (trimming->arguments->force && strcmp(stream, "outcomes") == 0 && done->count && first_left(trimming) > trimming->guard)
        fprintf(stderr, "%s: outcomes that no checkpoint includes %s lost; their messages are handled again after the next start\n",
                command, dry ? "would be" : "are");
}

/* ---- the command ---- */

static int read_arguments(struct trimming *trimming)
{
    const struct journal_trim_arguments *arguments = trimming->arguments;
    struct trim_request *request = &trimming->request;
    char message[VALUE_MESSAGE_MAX];
    if (!arguments->stream_given)
        return tool_refuse(command, "--stream is missing");
    if (!arguments->before_given && !arguments->older_than_given && !arguments->keep_size_given)
        return tool_refuse(command, "nothing says what is to go; expected --before, --older-than or --keep-size");
    if (arguments->older_than_given && when_age_parse(arguments->older_than, &request->older_than_ns, message))
        return tool_refuse(command, "--older-than: %s", message);
    int error = tool_stream_folder(arguments->data_dir, arguments->stream, trimming->folder);
    if (!error && strlen(arguments->stream) >= sizeof request->stream)
        error = ERR_NOT_FOUND;
    if (error)
        return tool_refuse_folder(command, arguments->data_dir, arguments->stream, error);
    snprintf(request->stream, sizeof request->stream, "%s", arguments->stream);
    request->before_given = arguments->before_given;
    request->before = arguments->before;
    request->older_than_given = arguments->older_than_given;
    request->keep_size_given = arguments->keep_size_given;
    request->keep_size = arguments->keep_size;
    request->dry_run = arguments->dry_run;
    return COMMAND_OK;
}

/* The exit status. What is not needed any more goes in pieces, so that the server answers others in between. */
static int trim_by_server(struct trimming *trimming)
{
    struct server_file server;
    struct buffer json, answer;
    if (trimming->arguments->force) {
        fprintf(stderr,
                "%s: %s is in use by a running server, which removes nothing that is still needed; stop it first, or leave out --force\n",
                command, trimming->arguments->data_dir);
        return COMMAND_FAILED;
    }
    int status = server_ask_find(command, trimming->arguments->data_dir, &server);
    buffer_init(&json, REQUEST_MAX);
    buffer_init(&answer, PAGE_BYTES_MAX);
    const char *text = trim_request_write(&trimming->request, &json) ? NULL : buffer_text(&json);
    if (!status && !text)
        status = tool_refuse_folder(command, trimming->arguments->data_dir, trimming->request.stream, ERR_NO_MEMORY);
    do {
        buffer_clear(&answer);
        trimming->done.more = false;
        if (!status)
            status = server_ask(command, &server, TRIM_HTTP_PATH, text, &answer);
        if (!status && trim_done_add(&trimming->done, answer.data, answer.length))
            status = server_ask_refuse_answer(command, &server, 200);
    } while (!status && trimming->done.more);
    buffer_fini(&answer);
    buffer_fini(&json);
    trimming->by_server = true;
    if (!status)
        print_consequences(trimming);
    if (!status || trimming->done.count)
        print_outcome(trimming);
    return status;
}

static int refuse_writing(const char *data_dir, int error)
{
    fprintf(stderr, "%s: %s cannot be written: %s%s\n", command, data_dir, error_text(error), tool_reading_advice(error));
    return COMMAND_FAILED;
}

static int trim_offline(struct trimming *trimming)
{
    const char *data_dir = trimming->arguments->data_dir;
    int error = prepare(trimming);
    if (error)
        return tool_refuse_folder(command, data_dir, trimming->request.stream, error);
    print_consequences(trimming);
    if (!trimming->request.dry_run)
        error = remove_segments(trimming);
    trimming->done.first_offset = first_left(trimming);
    print_outcome(trimming);
    return error ? refuse_writing(data_dir, error) : COMMAND_OK;
}

/* Holds the folder as a server would, so that none can start on it. A dry run looks only: it finds out whether there is a server to ask.
 * ERR_BUSY: there is. */
static int take_folder(const struct trim_request *request, const char *data_dir, int *lock)
{
    struct disk *disk = disk_posix();
    struct server_file server;
    if (request->dry_run && server_file_read(data_dir, &server))
        return 0;
    int taken = disk->ops->lock(disk, data_dir);
    if (taken >= 0 && request->dry_run)
        disk->ops->close(disk, taken);
    else if (taken >= 0)
        *lock = taken;
    if (taken == -EWOULDBLOCK)
        return ERR_BUSY;
    return taken < 0 && !request->dry_run ? error_from_errno(-taken) : 0;
}

int command_journal_trim(const struct journal_trim_arguments *arguments)
{
    struct trimming trimming = {.arguments = arguments};
    int lock = -1;
    tool_begin_output();
    int status = read_arguments(&trimming);
    if (status)
        return status;
    int error = take_folder(&trimming.request, arguments->data_dir, &lock);
    if (error == ERR_BUSY)
        status = trim_by_server(&trimming);
    else if (error)
        status = refuse_writing(arguments->data_dir, error);
    else
        status = trim_offline(&trimming);
    if (!status && trimming.done.kept_back)
        status = COMMAND_FAILED;
    if (lock >= 0)
        disk_posix()->ops->close(disk_posix(), lock);
    free(trimming.segments);
    free(trimming.done.bases);
    return command_finish_output(command, status);
}
