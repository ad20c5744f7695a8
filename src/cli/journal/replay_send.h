/* Sends the records of a replay to an MQTT server: in order, with QoS 1, at most REPLAY_WINDOW_MAX without acknowledgement.
 *
 * When the connection is lost it goes back to the first record that is not acknowledged and sends everything from there again, so that the
 * order stays what it was. What was acknowledged is remembered in a file each second and at the end. */
#ifndef CLI_JOURNAL_REPLAY_SEND_H
#define CLI_JOURNAL_REPLAY_SEND_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/journal/replay_pace.h"
#include "cli/journal/replay_source.h"
#include "cli/journal/replay_state.h"

enum { REPLAY_PROBLEM_MAX = 512 };

enum replay_end { REPLAY_COMPLETE, REPLAY_INTERRUPTED, REPLAY_FAILED };

struct replay_send_options {
    const char *host;
    uint16_t port;
    const char *prefix; /* of each topic; "" for none */
    bool results;       /* the stream holds results: their properties are written as they were published */
    double speed;       /* of replay_speed_parse */
    double timeout_s;   /* how long a server that does not acknowledge is waited for */
    const char *state_path;
    const volatile bool *stop; /* set by a signal */
};

struct replay_report {
    uint64_t messages;    /* acknowledged, with all before them */
    uint64_t sent;        /* repeats after a lost connection included */
    uint64_t bytes;       /* of their payloads */
    uint64_t first, next; /* offsets: where this run began, and where another one has to go on */
    double seconds;
    char problem[REPLAY_PROBLEM_MAX]; /* when it failed */
};

/* Sends from state->next on to the end of the source; *state and its file follow. */
enum replay_end replay_send(struct replay_source *source, const struct replay_send_options *options, struct replay_state *state,
                            struct replay_report *report);

#endif
