/* Messages from publishers to subscribers through one server, and what came of them.
 *
 * Every message carries, in its first 16 bytes, the time at which it was due, its publisher and its number. In the closed loop a message
 * is due when it is sent. In the open loop it is due when the rate says so, whether or not the server was ready to take it: a server
 * that stalls shows the stall in every message that had to wait (no coordinated omission). */
#ifndef LOAD_SCENARIO_H
#define LOAD_SCENARIO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/histogram.h"

enum {
    LOAD_STAMP_SIZE = 16,
    LOAD_PAYLOAD_MAX = 16 << 20,
    LOAD_PUBLISHERS_MAX = 10000,
    LOAD_SUBSCRIBERS_MAX = 10000,
    LOAD_PAIRS_MAX = 100000, /* publishers times subscribers */
    LOAD_THREADS_MAX = 64,
    LOAD_PROBLEM_MAX = 256
};

struct load_scenario {
    const char *host;
    uint16_t port;
    uint8_t version;                  /* enum mqtt_version */
    unsigned publishers, subscribers; /* each subscriber gets every message; 0 subscribers: PUBACKs alone are measured */
    unsigned threads;                 /* with more than one, the subscribers have the first for themselves */
    uint8_t publish_qos, subscribe_qos;
    uint32_t payload_bytes; /* LOAD_STAMP_SIZE .. LOAD_PAYLOAD_MAX */
    uint32_t inflight;      /* per publisher: QoS 1 without PUBACK; QoS 0 sent and not delivered */
    double rate;            /* messages a second of all publishers together; 0: closed loop, as fast as it goes */
    bool spin;              /* the load threads never sleep: no wake-up of theirs in the latencies, at the price of a processor each */
    double warmup_s, duration_s;
    double drain_s; /* how long without any progress after the end until what is missing counts as lost */
    int server_pid; /* of a server on this machine, for its CPU time; 0: unknown */
};

struct load_result {
    /* The whole run. */
    uint64_t published, acknowledged, refused;  /* refused: acknowledged with an MQTT 5 reason that means no */
    uint64_t delivered, lost, duplicates, late; /* sums over the subscribers */
    uint64_t disconnects;
    char problem[LOAD_PROBLEM_MAX]; /* why the run is worthless, or empty */

    /* The measured part: counted while it lasted, latencies of the messages that were due in it. */
    double measured_s;
    uint64_t measured_published, measured_acknowledged, measured_delivered;
    struct histogram deliver_ns, acknowledge_ns; /* from due to arrival at the subscriber, and to PUBACK */
    double client_cpu_s;                         /* of all load threads */
    double server_cpu_s;                         /* negative: unknown */
    uint64_t server_resident_bytes;              /* at the end; 0: unknown */
    uint64_t server_resident_before_bytes;
};

/* Returns 0 with *result filled; ERR_INVALID (a value out of range, said in result->problem), ERR_NOT_FOUND (unknown host),
 * ERR_DISCONNECTED (the connections could not be made or were lost, result->problem says why), ERR_NO_MEMORY, ERR_LIMIT or ERR_IO. */
int load_scenario_run(const struct load_scenario *scenario, struct load_result *result);

#endif
