/* `spindle bench`: one load on one or more servers, side by side. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "load/load_connects.h"
#include "load/load_scenario.h"

enum { BENCH_TARGETS_MAX = 8, BENCH_NAME_MAX = 32, BENCH_HOST_MAX = 256, BENCH_PROBLEM_MAX = 300 };

enum bench_scenario {
    BENCH_THROUGHPUT, /* closed loop: as many messages as the windows let through */
    BENCH_RATE,       /* open loop at `rate` */
    BENCH_FANOUT,     /* closed loop, one publisher, many subscribers */
    BENCH_CONNECT     /* connections only */
};

struct bench_target {
    char name[BENCH_NAME_MAX], host[BENCH_HOST_MAX];
    uint16_t port;
    int server_pid; /* 0: unknown */
};

struct bench_options {
    enum bench_scenario scenario;
    struct bench_target targets[BENCH_TARGETS_MAX]; /* [target_count]; ratios are those of the first to the others */
    unsigned target_count;
    uint8_t version; /* enum mqtt_version */
    unsigned publishers, subscribers, threads;
    uint8_t publish_qos, subscribe_qos;
    uint32_t payload_bytes, inflight;
    double rate; /* BENCH_RATE */
    bool spin;
    double warmup_s, duration_s;
    double hold_s;                       /* scenario connect: as in struct load_connects */
    unsigned connects, connects_at_once; /* BENCH_CONNECT */
    bool json;
};

/* What one target gave. */
struct bench_outcome {
    int error;                             /* of the run; the results' `problem` says it to a person */
    struct load_result *messages;          /* NULL for BENCH_CONNECT; owned */
    struct load_connects_result *connects; /* NULL for the others; owned */
};

/* "HOST:PORT", "NAME=HOST:PORT", each with "/PID" of the server's process behind it if its cost is to be measured; an IPv6 address in
 * brackets. Returns 0, or ERR_INVALID with what is wrong in `problem`. */
int bench_target_parse(struct bench_target *target, const char *text, char problem[BENCH_PROBLEM_MAX]);

/* Runs the scenario on one target. Returns outcome->error; free with bench_outcome_fini in any case. */
int bench_measure(const struct bench_options *options, const struct bench_target *target, struct bench_outcome *outcome);
void bench_outcome_fini(struct bench_outcome *outcome);

/* The table, or one JSON object, of all targets; outcomes: [target_count]. */
void bench_report(const struct bench_options *options, const struct bench_outcome *outcomes);

/* Measures all targets one after the other and prints. Returns an exit status: 0; 1 when one could not be measured or QoS 1 messages
 * were lost; 2 when an option is wrong. */
int bench(const struct bench_options *options);

#endif
