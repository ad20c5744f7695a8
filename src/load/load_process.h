/* What another process of this machine uses, as the kernel tells it (Linux, /proc). */
#ifndef LOAD_PROCESS_H
#define LOAD_PROCESS_H

#include <stdint.h>

struct load_process_usage {
    double cpu_s;            /* user and system time of all its threads, to 10 ms */
    uint64_t resident_bytes; /* memory in RAM */
};

/* Returns 0, ERR_NOT_FOUND when there is no such process, or ERR_IO. */
int load_process_read(int pid, struct load_process_usage *usage);

#endif
