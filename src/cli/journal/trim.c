/* `spindle journal trim`: what retention does in a running server, for a folder that none has open. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/journal/tool.h"
#include "cli/journal/when.h"
#include "journal/inspect.h"
#include "queue/ledger.h"

static const char command[] = "spindle journal trim";

struct trimming {
    const struct journal_trim_arguments *arguments;
    uint64_t older_than_ns; /* age */
    char folder[TOOL_FOLDER_MAX];
    struct inspect_file *files; /* [count], segments only */
    size_t count;
    uint64_t guard;   /* nothing at or beyond it goes unless forced */
    uint64_t pending; /* messages without an outcome that go */
    size_t wanted;    /* segments that the options name */
    size_t removable; /* of these, what may go */
    size_t removed;
    uint64_t removed_bytes;
};

/* ---- what goes ---- */

/* A segment's records are all below its follower's first offset, and have all arrived before that was made. A follower that was made before
 * the segment itself was made while the clock was wrong: it tells nothing. */
static bool is_named(const struct trimming *trimming, size_t index, uint64_t bytes_behind)
{
    const struct journal_trim_arguments *arguments = trimming->arguments;
    const struct inspect_file *next = &trimming->files[index + 1];
    uint64_t now_ns = clock_wall_ns(), limit_ns = now_ns > trimming->older_than_ns ? now_ns - trimming->older_than_ns : 0;
    return (!arguments->before_given || next->base_offset <= arguments->before) &&
           (!arguments->older_than_given ||
            (next->created_ns && next->created_ns >= trimming->files[index].created_ns && next->created_ns <= limit_ns)) &&
           (!arguments->keep_size_given || bytes_behind >= arguments->keep_size);
}

static void choose(struct trimming *trimming)
{
    uint64_t bytes_behind = 0;
    for (size_t i = 0; i < trimming->count; i++)
        bytes_behind += trimming->files[i].bytes;
    for (size_t i = 0; i + 1 < trimming->count; i++) {
        bytes_behind -= trimming->files[i].bytes;
        if (!is_named(trimming, i, bytes_behind))
            break;
        trimming->wanted++;
        if (trimming->arguments->force || trimming->files[i + 1].base_offset <= trimming->guard)
            trimming->removable++;
    }
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
    const char *stream = trimming->arguments->stream;
    trimming->guard = UINT64_MAX;
    if (strcmp(stream, "ingest") == 0)
        trimming->guard = ledger->cursor;
    else if (strcmp(stream, "outcomes") == 0)
        return find_checkpoint(trimming->folder, &trimming->guard);
    else if (strcmp(stream, "results") == 0 || strcmp(stream, "dead-letters") == 0)
        trimming->guard = trimming->count > LEDGER_TAIL_SEGMENTS ? trimming->files[trimming->count - LEDGER_TAIL_SEGMENTS].base_offset : 0;
    return 0;
}

static void count_pending(struct trimming *trimming, const struct ledger *ledger)
{
    if (strcmp(trimming->arguments->stream, "ingest") != 0 || trimming->removable == 0)
        return;
    uint64_t until = trimming->files[trimming->removable].base_offset;
    for (uint64_t offset = ledger->cursor; offset < until; offset++)
        trimming->pending += !ledger_is_settled(ledger, offset);
}

/* Of a server that was killed the newest segment is zeros for the most part, which were written ahead: they are nothing that is kept. */
static void measure_newest(struct trimming *trimming)
{
    static const struct inspect_visitor nobody;
    struct inspect_end end;
    if (trimming->count == 0 || inspect_stream(disk_posix(), trimming->folder, trimming->arguments->stream, UINT64_MAX, &nobody, &end))
        return;
    struct inspect_file *newest = &trimming->files[trimming->count - 1];
    if (end.last_base == newest->base_offset && end.last_position < newest->bytes)
        newest->bytes = end.last_position;
}

static int prepare(struct trimming *trimming)
{
    const char *data_dir = trimming->arguments->data_dir;
    struct ledger ledger;
    struct ledger_extent extent;
    int error = tool_stream_folder(data_dir, trimming->arguments->stream, trimming->folder);
    if (!error)
        error = inspect_files(disk_posix(), trimming->folder, &trimming->files, &trimming->count);
    while (!error && trimming->count && trimming->files[trimming->count - 1].state > INSPECT_ACTIVE)
        trimming->count--;
    if (!error)
        measure_newest(trimming);
    if (!error)
        error = ledger_load(&ledger, disk_posix(), data_dir, "ingest", &extent, NULL, NULL);
    if (error)
        return error;
    error = find_guard(trimming, &ledger);
    if (!error) {
        choose(trimming);
        count_pending(trimming, &ledger);
    }
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

static int remove_segments(struct trimming *trimming)
{
    struct disk *disk = disk_posix();
    static const char *const books[] = {"results", "dead-letters", "outcomes"};
    int error = 0;
    for (unsigned i = 0; i < 3 && !error && trimming->removable; i++)
        error = sync_stream(trimming->arguments->data_dir, books[i]);
    while (!error && trimming->removed < trimming->removable) {
        char path[TOOL_FOLDER_MAX + INSPECT_NAME_MAX];
        snprintf(path, sizeof path, "%s/%s", trimming->folder, trimming->files[trimming->removed].name);
        int failed = disk->ops->remove(disk, path);
        error = failed ? error_from_errno(-failed) : 0;
        if (!error)
            trimming->removed_bytes += trimming->files[trimming->removed++].bytes;
    }
    int failed = trimming->removed ? disk->ops->sync_folder(disk, trimming->folder) : 0;
    return error ? error : failed ? error_from_errno(-failed) : 0;
}

/* ---- the command ---- */

static const char *guard_text(const char *stream)
{
    return strcmp(stream, "ingest") == 0     ? "they hold messages without an outcome"
           : strcmp(stream, "outcomes") == 0 ? "no checkpoint includes what they say yet"
                                             : "the next start needs them to find outcomes that a crash may have cut off";
}

static void print_outcome(const struct trimming *trimming)
{
    const struct journal_trim_arguments *arguments = trimming->arguments;
    bool dry = arguments->dry_run;
    size_t count = dry ? trimming->removable : trimming->removed;
    uint64_t bytes = trimming->removed_bytes;
    for (size_t i = 0; dry && i < trimming->removable; i++)
        bytes += trimming->files[i].bytes;
    uint64_t first = trimming->count ? trimming->files[count].base_offset : 0;
    char size[TOOL_SIZE_TEXT_MAX];
    if (arguments->json) {
        printf("{\"stream\":\"%s\",\"dry_run\":%s,\"segments\":%zu,\"bytes\":%" PRIu64 ",\"first_offset\":%" PRIu64
               ",\"kept_back\":%zu,\"pending_lost\":%" PRIu64 "}\n",
               arguments->stream, dry ? "true" : "false", count, bytes, first, trimming->wanted - trimming->removable, trimming->pending);
        return;
    }
    for (size_t i = 0; i < count; i++)
        printf("%s %s/%s\n", dry ? "would remove" : "removed", arguments->stream, trimming->files[i].name);
    printf("%s: %zu segments, %s %s; the first offset %s %" PRIu64 "\n", arguments->stream, count, tool_size_text(bytes, size),
           dry ? "would go" : "are gone", dry ? "would be" : "is", first);
}

static void print_consequences(const struct trimming *trimming)
{
    const char *stream = trimming->arguments->stream;
    size_t kept = trimming->wanted - trimming->removable;
    if (kept)
        fprintf(stderr, "%s: %zu segments of %s stay: %s; --force removes them all the same\n", command, kept, stream, guard_text(stream));
    if (trimming->pending)
        fprintf(stderr, "%s: %" PRIu64 " messages without an outcome %s lost; the next start counts them as dead-lettered, reason %s\n",
                command, trimming->pending, trimming->arguments->dry_run ? "would be" : "are", reason_word(REASON_DAMAGED));
    if (trimming->arguments->force && strcmp(stream, "outcomes") == 0 && trimming->removable &&
        trimming->files[trimming->removable].base_offset > trimming->guard)
        fprintf(stderr, "%s: outcomes that no checkpoint includes %s lost; their messages are handled again after the next start\n",
                command, trimming->arguments->dry_run ? "would be" : "are");
}

static int check_arguments(struct trimming *trimming)
{
    const struct journal_trim_arguments *arguments = trimming->arguments;
    char message[VALUE_MESSAGE_MAX];
    if (!arguments->stream_given)
        return tool_refuse(command, "--stream is missing");
    if (!arguments->before_given && !arguments->older_than_given && !arguments->keep_size_given)
        return tool_refuse(command, "nothing says what is to go; expected --before, --older-than or --keep-size");
    if (arguments->older_than_given && when_age_parse(arguments->older_than, &trimming->older_than_ns, message))
        return tool_refuse(command, "--older-than: %s", message);
    return COMMAND_OK;
}

/* Holds the folder as a server would, so that none can start on it. A dry run looks only. Returns the exit status. */
static int take_folder(const struct journal_trim_arguments *arguments, int *lock)
{
    struct disk *disk = disk_posix();
    int taken = arguments->dry_run ? 0 : disk->ops->lock(disk, arguments->data_dir);
    if (taken == -EWOULDBLOCK) {
        fprintf(stderr,
                "%s: %s is in use by a running server, which removes old segments by itself: set journal.retention_size or "
                "journal.retention_age_s, or stop it first\n",
                command, arguments->data_dir);
        return COMMAND_FAILED;
    }
    if (taken < 0)
        return tool_refuse_folder(command, arguments->data_dir, arguments->stream, error_from_errno(-taken));
    *lock = arguments->dry_run ? -1 : taken;
    return COMMAND_OK;
}

int command_journal_trim(const struct journal_trim_arguments *arguments)
{
    struct trimming trimming = {.arguments = arguments};
    int lock = -1;
    tool_begin_output();
    int status = check_arguments(&trimming);
    if (!status)
        status = take_folder(arguments, &lock);
    if (status)
        return status;
    int error = prepare(&trimming);
    if (!error) {
        print_consequences(&trimming);
        if (!arguments->dry_run)
            error = remove_segments(&trimming);
        print_outcome(&trimming);
        status = trimming.wanted > trimming.removable ? COMMAND_FAILED : COMMAND_OK;
    }
    if (error)
        status = tool_refuse_folder(command, arguments->data_dir, arguments->stream, error);
    if (lock >= 0)
        disk_posix()->ops->close(disk_posix(), lock);
    free(trimming.files);
    return command_finish_output(command, status);
}
