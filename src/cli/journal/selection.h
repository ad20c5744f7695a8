/* Which records of a stream a command is asked for: from a place to a place, and by topic. */
#ifndef CLI_JOURNAL_SELECTION_H
#define CLI_JOURNAL_SELECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/message.h"
#include "cli/journal/when.h"

struct selection {
    struct when from, to;
    bool to_given;
    const char *topic; /* a valid filter, borrowed; NULL: all */
};

/* Reads the arguments --from, --to (may be NULL) and --topic (may be NULL) of `command`. Returns COMMAND_OK, or COMMAND_USAGE after it has
 * said what is wrong. */
int selection_read(const char *command, const char *from, const char *to, const char *topic, struct selection *selection);

/* By times and topic; offsets are those of selection_range. */
bool selection_has(const struct selection *selection, const struct message *message);

/* Offsets between which all records of the selection lie; *until is UINT64_MAX where only the stream's end bounds it. Times are looked up
 * in the headers of the segments. Returns 0 or an error of reading the folder. */
int selection_range(const char *folder, const struct selection *selection, uint64_t *first, uint64_t *until);

#endif
