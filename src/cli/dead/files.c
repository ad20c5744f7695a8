#include "cli/dead/files.h"

#include "base/error.h"
#include "cli/journal/tool.h"

/* How those were closed of which the outcomes still tell. */
static int load_states(struct dead_files *files, const char *data_dir)
{
    char folder[TOOL_FOLDER_MAX];
    struct reader *reader;
    tool_stream_folder(data_dir, "outcomes", folder);
    int error = reader_open(&reader, disk_posix(), folder, 0, NULL, NULL);
    if (error)
        return error == ERR_NOT_FOUND ? 0 : error;
    error = dead_states_load(&files->states, reader, UINT64_MAX, files->first, files->end, UINT64_MAX);
    reader_close(reader);
    return error;
}

static int load_marks(struct dead_files *files, const char *data_dir)
{
    struct ledger ledger;
    struct ledger_extent extent;
    int error = ledger_load(&ledger, disk_posix(), data_dir, "ingest", &extent, NULL, NULL);
    if (error)
        return error;
    uint64_t cursor = ledger.cursor;
    ledger_fini(&ledger);
    error = ledger_load_marks(&files->marks, disk_posix(), data_dir, cursor, &extent, NULL, NULL);
    if (!error) {
        files->first = extent.first;
        files->end = extent.next;
    }
    return error;
}

int dead_files_open(struct dead_files *files, const char *data_dir, const struct dead_filter *filter)
{
    char folder[TOOL_FOLDER_MAX];
    *files = (struct dead_files){0};
    int error = tool_stream_folder(data_dir, ledger_marks_stream, folder);
    if (!error)
        error = load_marks(files, data_dir);
    if (!error)
        error = load_states(files, data_dir);
    if (!error)
        error = reader_open(&files->reader, disk_posix(), folder, dead_filter_first(filter), tool_say_damage, &files->damaged);
    if (error)
        dead_files_close(files);
    return error;
}

void dead_files_close(struct dead_files *files)
{
    reader_close(files->reader);
    ledger_fini(&files->marks);
    dead_states_fini(&files->states);
    *files = (struct dead_files){0};
}

int dead_files_next(struct dead_files *files, const struct dead_filter *filter, bool open_only, struct message *record,
                    struct dead_letter *letter)
{
    int error;
    while (!(error = reader_next(files->reader, files->end, record, NULL))) {
        dead_letter_read(record, letter);
        if (dead_filter_matches(filter, record, letter) && !(open_only && ledger_is_settled(&files->marks, record->offset)))
            return 0;
    }
    return error;
}

const char *dead_files_state(const struct dead_files *files, uint64_t offset)
{
    return dead_states_word(&files->states, offset, !ledger_is_settled(&files->marks, offset));
}
