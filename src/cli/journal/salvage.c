#include "cli/journal/salvage.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/journal/tool.h"
#include "journal/restore.h"
#include "queue/dead_letter.h"
#include "queue/ledger.h"

static const char consumed[] = "ingest", books[] = "outcomes";

struct salvage {
    const char *command, *to;
    const char *stream; /* the one being written */
    struct restore *current;
    struct restore *books; /* `outcomes`, kept open until everything is known */
    uint64_t books_next;
    bool begun[8]; /* [as tool_streams] */
    struct ledger ledger;
    uint64_t records;
};

/* Says what went wrong, once. Returns 0 or ERR_CLOSED. */
static int fail(const struct salvage *salvage, int error)
{
    char what[TOOL_FOLDER_MAX + 64];
    snprintf(what, sizeof what, "%s cannot be written", salvage->to);
    if (error)
        tool_refuse_writing(salvage->command, what, error);
    return error ? ERR_CLOSED : 0;
}

static void count_name(void *context, const char *name)
{
    unsigned *count = context;
    *count += strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* The folder `to`, or, where it is yet to be made, the one that will hold it. Returns a file to close, or -1 when there is neither. */
static int open_nearest(const char *to)
{
    char parent[TOOL_FOLDER_MAX];
    int folder = open(to, O_PATH | O_DIRECTORY | O_CLOEXEC);
    size_t length = strlen(to);
    if (folder >= 0 || length >= sizeof parent)
        return folder;
    while (length > 1 && to[length - 1] == '/')
        length--;
    while (length && to[length - 1] != '/')
        length--;
    snprintf(parent, sizeof parent, "%.*s", length ? (int)length : 1, length ? to : ".");
    return open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Whether `path` is a folder that lies at or above `to`. Goes up folder by folder, so that links and `..` deceive nobody. */
static bool is_above(const char *path, const char *to)
{
    struct stat outer, here, before = {0};
    int folder = stat(path, &outer) ? -1 : open_nearest(to);
    bool found = false;
    while (folder >= 0 && !found && fstat(folder, &here) == 0) {
        if (here.st_ino == before.st_ino && here.st_dev == before.st_dev)
            break; /* the root is its own parent */
        found = here.st_ino == outer.st_ino && here.st_dev == outer.st_dev;
        before = here;
        int parent = openat(folder, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(folder);
        folder = parent;
    }
    if (folder >= 0)
        close(folder);
    return found;
}

/* A stream may lie elsewhere, behind a link. */
static bool lies_within(const char *data_dir, const char *to)
{
    bool within = is_above(data_dir, to);
    char folder[TOOL_FOLDER_MAX];
    for (unsigned i = 0; tool_streams[i] && !within; i++)
        within = tool_stream_folder(data_dir, tool_streams[i], folder) == 0 && is_above(folder, to);
    return within;
}

static int make_folder(const char *command, const char *to)
{
    struct disk *disk = disk_posix();
    unsigned names = 0;
    int failed = disk->ops->make_folder(disk, to);
    if (!failed)
        failed = disk->ops->list(disk, to, count_name, &names);
    if (failed) {
        char what[TOOL_FOLDER_MAX + 64];
        snprintf(what, sizeof what, "--salvage: %s cannot be made", to);
        return tool_refuse_writing(command, what, error_from_errno(-failed));
    }
    if (names)
        return tool_refuse(command, "--salvage: %s is not empty; name a new folder", to);
    return COMMAND_OK;
}

int salvage_open(struct salvage **out, const char *command, const char *from, const char *to)
{
    struct ledger ledger;
    struct ledger_extent extent;
    if (lies_within(from, to))
        return tool_refuse(command, "--salvage: %s is the data folder %s or lies within it; name a new folder outside of it", to, from);
    int status = make_folder(command, to);
    if (status)
        return status;
    int error = ledger_load(&ledger, disk_posix(), from, consumed, &extent, NULL, NULL);
    if (error)
        return tool_refuse_folder(command, from, consumed, error);
    struct salvage *salvage = calloc(1, sizeof *salvage);
    if (!salvage) {
        ledger_fini(&ledger);
        return tool_refuse(command, "%s", error_text(ERR_NO_MEMORY));
    }
    *salvage = (struct salvage){.command = command, .to = to, .ledger = ledger};
    *out = salvage;
    return COMMAND_OK;
}

int salvage_begin_stream(struct salvage *salvage, const char *stream)
{
    struct disk *disk = disk_posix();
    char folder[TOOL_FOLDER_MAX];
    tool_stream_folder(salvage->to, stream, folder);
    int failed = disk->ops->make_folder(disk, folder);
    int error = failed ? error_from_errno(-failed) : restore_open(&salvage->current, disk, folder, stream);
    salvage->stream = stream;
    for (unsigned i = 0; tool_streams[i]; i++)
        salvage->begun[i] = salvage->begun[i] || strcmp(stream, tool_streams[i]) == 0;
    return fail(salvage, error);
}

int salvage_add(struct salvage *salvage, const struct message *record, const uint64_t *sources, size_t source_count)
{
    int error = restore_add(salvage->current, record, sources, source_count);
    /* What was said of a message in a record that is lost may still stand here. */
    bool dead = strcmp(salvage->stream, "dead-letters") == 0;
    for (size_t i = 0; i < source_count && !error; i++) {
        int settled = ledger_settle(&salvage->ledger, sources[i], dead ? QUEUE_DEAD_LETTERED : QUEUE_COMPLETED,
                                    dead ? dead_letter_reason(record) : (unsigned)REASON_NONE);
        error = settled == ERR_NO_MEMORY ? settled : 0; /* an offset that cannot be is not worth failing for */
    }
    salvage->records += !error;
    return fail(salvage, error);
}

int salvage_end_stream(struct salvage *salvage, uint64_t next_offset)
{
    struct restore *finished = salvage->current;
    salvage->current = NULL;
    if (strcmp(salvage->stream, books) == 0) {
        salvage->books = finished;
        salvage->books_next = next_offset;
        return 0;
    }
    /* Offsets that have an outcome are never given to other messages, even if the end of the stream is lost. */
    uint64_t spoken_of = salvage->ledger.highest > salvage->ledger.cursor ? salvage->ledger.highest : salvage->ledger.cursor;
    if (strcmp(salvage->stream, consumed) == 0 && spoken_of > next_offset)
        next_offset = spoken_of;
    return fail(salvage, restore_finish(finished, next_offset));
}

/* The checkpoint, which holds all that is known of outcomes. */
static int write_books(struct salvage *salvage)
{
    struct buffer payload;
    buffer_init(&payload, (size_t)LEDGER_WINDOW_MAX / 8 + 8192);
    int error = ledger_checkpoint_encode(&salvage->ledger, salvage->books_next, &payload);
    struct message record = {
        .offset = salvage->books_next,
        .time_ns = clock_wall_ns(),
        .topic = consumed,
        .topic_length = sizeof consumed - 1,
        .properties = (const uint8_t *)ledger_checkpoint_mark,
        .properties_length = (uint32_t)strlen(ledger_checkpoint_mark),
        .payload = payload.data,
        .payload_length = (uint32_t)payload.length,
    };
    if (!error)
        error = restore_add(salvage->books, &record, NULL, 0);
    buffer_fini(&payload);
    if (error)
        return error;
    error = restore_finish(salvage->books, salvage->books_next + 1);
    salvage->books = NULL;
    return error;
}

static int finish(struct salvage *salvage)
{
    struct disk *disk = disk_posix();
    int error = 0;
    for (unsigned i = 0; tool_streams[i] && !error; i++) {
        if (salvage->begun[i])
            continue;
        error = salvage_begin_stream(salvage, tool_streams[i]);
        if (!error)
            error = salvage_end_stream(salvage, 0);
    }
    if (error)
        return error; /* said */
    error = write_books(salvage);
    if (!error) {
        int failed = disk->ops->sync_folder(disk, salvage->to);
        error = failed ? error_from_errno(-failed) : 0;
    }
    return fail(salvage, error);
}

int salvage_close(struct salvage *salvage, bool complete, bool json)
{
    if (!salvage)
        return COMMAND_OK;
    int error = complete ? finish(salvage) : ERR_CLOSED;
    struct buffer line;
    buffer_init(&line, TOOL_LINE_MAX);
    if (error) {
        fprintf(stderr, "%s: %s is not complete, and of no use\n", salvage->command, salvage->to);
    } else if (json) {
        buffer_append_text(&line, "{\"salvage\":");
        buffer_append_json_string(&line, salvage->to, strlen(salvage->to), 0);
        buffer_printf(&line, ",\"records\":%" PRIu64 "}\n", salvage->records);
    } else {
        buffer_printf(&line, "%" PRIu64 " records are in %s; `spindle run --data-dir %s` starts on it\n", salvage->records, salvage->to,
                      salvage->to);
    }
    tool_emit(&line);
    buffer_fini(&line);
    restore_abandon(salvage->current);
    restore_abandon(salvage->books);
    ledger_fini(&salvage->ledger);
    free(salvage);
    return error ? COMMAND_FAILED : COMMAND_OK;
}
