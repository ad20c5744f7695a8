/* Many connections to one server: how fast it accepts them, and what one costs it. */
#ifndef LOAD_CONNECTS_H
#define LOAD_CONNECTS_H

#include <stdint.h>

#include "base/histogram.h"

enum { LOAD_CONNECTS_MAX = 100000 };

struct load_connects {
    const char *host;
    uint16_t port;
    uint8_t version;  /* enum mqtt_version */
    unsigned count;   /* 1 .. LOAD_CONNECTS_MAX, and what the limit of open files allows */
    unsigned at_once; /* how many wait for their CONNACK at the same time */
    double timeout_s; /* without any progress */
    double hold_s;    /* how long they are held, idle, when all are there; 0: not at all */
    int server_pid;   /* of a server on this machine, for its CPU time and memory; 0: unknown */
};

struct load_connects_result {
    uint64_t connected, failed;
    double seconds;                    /* from the first connect() to the last CONNACK */
    struct histogram connect_ns;       /* from connect() to CONNACK */
    double client_cpu_s, server_cpu_s; /* negative: unknown */
    double idle_cpu_share;             /* of one processor, by the server while they were held; negative: unknown, or they were not held */
    uint64_t server_resident_before_bytes, server_resident_bytes;
    char problem[160]; /* of the first that failed, or empty */
};

/* Opens them, holds them until all are there and for hold_s more, and closes them. Returns 0 with *result filled, also when some failed;
 * ERR_INVALID, ERR_NOT_FOUND (unknown host), ERR_NO_MEMORY or ERR_IO. */
int load_connects_run(const struct load_connects *connects, struct load_connects_result *result);

#endif
