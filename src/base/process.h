/* What this process uses of the machine, as the kernel tells it (Linux, /proc). */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

#include <stdint.h>

#include "base/metrics.h"

struct process_usage {
    double cpu_s;            /* user and system time of all threads */
    uint64_t resident_bytes; /* memory in RAM */
    uint64_t open_fds;       /* the one that counts them left out */
    double start_time_s;     /* Unix time at which the process began, to 10 ms */
};

/* Returns 0, or ERR_IO where /proc is missing or reads differently than expected. */
int process_usage_read(struct process_usage *usage);

/* A metrics_collector of the PROCESS_* metrics; owner is not used. Says nothing when the usage cannot be read. */
void process_collect(void *owner, struct metrics_writer *writer);

#endif
