/* What a server on this machine uses, as the kernel tells it (Linux, /proc), and what the load itself may use. */
#ifndef LOAD_PROCESS_H
#define LOAD_PROCESS_H

#include <stdint.h>

struct load_process_usage {
    double cpu_s;            /* user and system time of all its threads, to 10 ms */
    uint64_t resident_bytes; /* memory in RAM */
};

/* Returns 0, ERR_NOT_FOUND when there is no such process, or ERR_IO. */
int load_process_read(int pid, struct load_process_usage *usage);

/* CPU time of the calling thread, s. */
double load_thread_cpu_s(void);

/* The same server, where its process is known (pid above 0); else, and where it cannot be read, cpu_s is -1 and the rest 0. */
void load_process_read_if_known(int pid, struct load_process_usage *usage);

/* CPU time between two readings; -1 where one of them is unknown. */
double load_process_cpu_between(const struct load_process_usage *before, const struct load_process_usage *after);

/* Raises this process's limit of open files as far as it goes; returns it. */
uint64_t load_file_limit_raise(void);

#endif
