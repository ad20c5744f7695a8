/* What is remembered of a replay so that it can go on after a kill: a small text file, replaced as a whole and synced.
 *
 *   spindle replay 1
 *   id 20261121T103443000
 *   selection stream=ingest from=0 ...
 *   from_ns 0
 *   to_ns 18446744073709551615
 *   until 4711
 *   next 815
 */
#ifndef CLI_JOURNAL_REPLAY_STATE_H
#define CLI_JOURNAL_REPLAY_STATE_H

#include <stdint.h>

enum { REPLAY_ID_MAX = 64, REPLAY_SELECTION_MAX = 8192 };

struct replay_state {
    char id[REPLAY_ID_MAX + 1];
    char selection[REPLAY_SELECTION_MAX]; /* what was asked for, one line; compared as text */
    uint64_t from_ns, to_ns;              /* the times in it: an age means another one every day */
    uint64_t until;                       /* where the stream or the selection ended when it began */
    uint64_t next;                        /* everything selected before it is acknowledged; `until`: complete */
};

/* 1 to REPLAY_ID_MAX letters, digits, dots, dashes and underscores: a level of a topic. */
int replay_id_check(const char *id);

/* Returns 0, ERR_NOT_FOUND, ERR_CORRUPT (no such file of ours, or of another version) or an error of reading. */
int replay_state_read(const char *path, struct replay_state *state);

/* Replaces the file; durable when it returns 0. Else an error of writing, and the file is as it was. */
int replay_state_write(const char *path, const struct replay_state *state);

#endif
