#include "load/load_connects.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "load/load_client.h"
#include "load/load_process.h"

#define SECOND_NS UINT64_C(1000000000)

struct attempt {
    struct crowd *crowd;
    uint64_t began_ns;
};

struct crowd {
    struct load_client *client;
    struct load_connects_result *result;
    struct attempt *attempts; /* [count] */
    unsigned opened, waiting;
};

static void on_connected(void *context, struct load_connection *connection)
{
    (void)connection;
    struct attempt *attempt = context;
    struct crowd *crowd = attempt->crowd;
    crowd->waiting--;
    crowd->result->connected++;
    histogram_record(&crowd->result->connect_ns, load_client_now_ns(crowd->client) - attempt->began_ns);
}

static void on_disconnected(void *context, struct load_connection *connection, int error, const char *reason)
{
    (void)connection;
    (void)error;
    struct crowd *crowd = ((struct attempt *)context)->crowd;
    struct load_connects_result *result = crowd->result;
    crowd->waiting -= crowd->waiting > 0;
    result->failed++;
    if (!result->problem[0])
        snprintf(result->problem, sizeof result->problem, "%s", reason);
}

static int open_one(struct crowd *crowd, const struct load_connects *connects)
{
    char name[64];
    snprintf(name, sizeof name, "spindle-bench-%08x-c%u", (unsigned)(crowd->attempts[0].began_ns / 1000), crowd->opened);
    struct load_connection_options options = {.client_id = name, .version = connects->version, .keep_alive_s = 600};
    struct attempt *attempt = &crowd->attempts[crowd->opened];
    struct load_connection *connection;
    *attempt = (struct attempt){crowd, clock_monotonic_ns()};
    int error = load_connection_open(crowd->client, &options, attempt, &connection);
    if (!error) {
        crowd->opened++;
        crowd->waiting++;
    }
    return error;
}

static int open_all(struct crowd *crowd, const struct load_connects *connects)
{
    struct load_connects_result *result = crowd->result;
    uint64_t begin_ns = clock_monotonic_ns(), progress_ns = begin_ns, last = 0;
    while (result->connected + result->failed < connects->count) {
        while (crowd->opened < connects->count && crowd->waiting < connects->at_once) {
            int error = open_one(crowd, connects);
            if (error)
                return error;
        }
        int error = load_client_turn(crowd->client, load_client_now_ns(crowd->client) + SECOND_NS / 10);
        if (error)
            return error;
        uint64_t now_ns = load_client_now_ns(crowd->client);
        if (result->connected + result->failed != last) {
            last = result->connected + result->failed;
            progress_ns = now_ns;
        } else if (now_ns > progress_ns + (uint64_t)(connects->timeout_s * 1e9)) {
            snprintf(result->problem, sizeof result->problem, "the server stopped answering");
            result->failed = connects->count - result->connected;
        }
    }
    result->seconds = (double)(load_client_now_ns(crowd->client) - begin_ns) / 1e9;
    return 0;
}

/* Nothing is to happen meanwhile. */
static int hold(struct crowd *crowd, const struct load_connects *connects)
{
    struct load_process_usage before, after;
    load_process_read_if_known(connects->server_pid, &before);
    uint64_t until_ns = load_client_now_ns(crowd->client) + (uint64_t)(connects->hold_s * 1e9);
    while (load_client_now_ns(crowd->client) < until_ns) {
        int error = load_client_turn(crowd->client, until_ns);
        if (error)
            return error;
    }
    load_process_read_if_known(connects->server_pid, &after);
    double cpu_s = load_process_cpu_between(&before, &after);
    crowd->result->idle_cpu_share = cpu_s < 0 ? -1 : cpu_s / connects->hold_s;
    return 0;
}

/* How many connections the limit of open files allows, raised as far as it goes. */
static unsigned connections_that_fit(void)
{
    enum { OTHER_FILES = 32 };
    uint64_t files = load_file_limit_raise();
    if (files == 0 || files > LOAD_CONNECTS_MAX + OTHER_FILES)
        return LOAD_CONNECTS_MAX;
    return files > OTHER_FILES ? (unsigned)files - OTHER_FILES : 1;
}

int load_connects_run(const struct load_connects *connects, struct load_connects_result *result)
{
    static const struct load_handlers handlers = {.connected = on_connected, .disconnected = on_disconnected};
    *result = (struct load_connects_result){.server_cpu_s = -1, .idle_cpu_share = -1};
    unsigned fit = connections_that_fit();
    if (connects->count < 1 || connects->count > fit || connects->at_once < 1) {
        snprintf(result->problem, sizeof result->problem, "the number of connections must be 1 to %u (the limit of open files)", fit);
        return ERR_INVALID;
    }
    struct crowd crowd = {.result = result, .attempts = calloc(connects->count, sizeof *crowd.attempts)};
    if (!crowd.attempts)
        return ERR_NO_MEMORY;
    crowd.attempts[0].began_ns = clock_wall_ns();
    struct load_process_usage before, after;
    int error = load_client_create(&crowd.client, connects->host, connects->port, &handlers);
    if (!error) {
        double cpu_s = load_thread_cpu_s();
        load_process_read_if_known(connects->server_pid, &before);
        error = open_all(&crowd, connects);
        load_process_read_if_known(connects->server_pid, &after);
        result->client_cpu_s = load_thread_cpu_s() - cpu_s;
        result->server_cpu_s = load_process_cpu_between(&before, &after);
        result->server_resident_before_bytes = before.resident_bytes;
        result->server_resident_bytes = after.resident_bytes;
        if (!error && connects->hold_s > 0)
            error = hold(&crowd, connects);
    }
    load_client_destroy(crowd.client);
    free(crowd.attempts);
    return error;
}
