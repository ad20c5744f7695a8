/* Dead letters as they lie in the files: beside a running server, of a stopped one, of a copy. Changes nothing. */
#ifndef CLI_DEAD_FILES_H
#define CLI_DEAD_FILES_H

#include <stdbool.h>

#include "cli/dead/filter.h"
#include "cli/dead/states.h"
#include "journal/reader.h"
#include "queue/ledger.h"

struct dead_files {
    struct reader *reader;
    struct ledger marks;       /* closed ones */
    struct dead_states states; /* how */
    uint64_t first, end;       /* offsets that the stream held when it was opened */
    bool damaged;              /* something could not be read; said on standard error */
};

/* Reads from the least offset that the filter lets pass. */
int dead_files_open(struct dead_files *files, const char *data_dir, const struct dead_filter *filter);
void dead_files_close(struct dead_files *files);

/* The next that matches; with `open_only` those without a mark. ERR_TRUNCATED at the end. Borrowed until the next call. */
int dead_files_next(struct dead_files *files, const struct dead_filter *filter, bool open_only, struct message *record,
                    struct dead_letter *letter);

/* A word of dead_states_word. */
const char *dead_files_state(const struct dead_files *files, uint64_t offset);

#endif
