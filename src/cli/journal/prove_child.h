/* A server of this very program as a child process: started, asked, killed. It dies with its parent. */
#ifndef CLI_JOURNAL_PROVE_CHILD_H
#define CLI_JOURNAL_PROVE_CHILD_H

#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"

enum { PROVE_PROBLEM_MAX = 256 };

struct prove_child {
    pid_t pid;  /* 0: none */
    int output; /* its standard output; -1: none */
    uint16_t mqtt_port, http_port;
};

/* Starts it on a data folder, with free ports and the settings of its own defaults; standard error is appended to log_path. Returns 0 with
 * *child, or ERR_IO. */
int prove_child_start(struct prove_child *child, const char *data_dir, const char *log_path);

/* Waits until it serves. Returns 0 with its ports known, or ERR_CLOSED (it ended, or did not serve in time), said in `problem`. */
int prove_child_wait_ready(struct prove_child *child, char problem[PROVE_PROBLEM_MAX]);

/* SIGKILL, and waits for its end. Accepts one that does not run. */
void prove_child_kill(struct prove_child *child);

/* SIGTERM, and waits for its end. Returns 0, or ERR_CLOSED when it did not end in order, said in `problem`. */
int prove_child_stop(struct prove_child *child, char problem[PROVE_PROBLEM_MAX]);

/* The body of an HTTP answer. Returns 0 or ERR_IO. */
int prove_child_get(const struct prove_child *child, const char *path, struct buffer *body);

#endif
