#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/terminal.h"
#include "cli/command.h"
#include "mqtt/packet.h"

enum { CONNECT_TIMEOUT_S = 10, DRAIN_S = 3, BENCH_FANOUT_SUBSCRIBERS = 100 };

/* ---- targets ---- */

static int refuse_target(const char *text, char problem[BENCH_PROBLEM_MAX])
{
    snprintf(problem, BENCH_PROBLEM_MAX,
             "`%.100s` is no target; expected HOST:PORT or NAME=HOST:PORT, and /PID behind it for the server's process", text);
    return ERR_INVALID;
}

/* A whole decimal number from `low` to `high` that ends at `end`. */
static bool read_number(const char *text, const char *end, long low, long high, long *number)
{
    char *stop;
    if (text == end || *text < '0' || *text > '9')
        return false;
    *number = strtol(text, &stop, 10);
    return stop == end && *number >= low && *number <= high;
}

int bench_target_parse(struct bench_target *target, const char *text, char problem[BENCH_PROBLEM_MAX])
{
    struct bench_target parsed = {0};
    long port, pid = 0;
    const char *equals = strchr(text, '='), *host = equals ? equals + 1 : text, *end = strchr(host, '/');
    const char *address_end = end ? end : host + strlen(host);
    const char *colon = memrchr(host, ':', (size_t)(address_end - host));
    if (!colon || colon == host || !read_number(colon + 1, address_end, 1, 65535, &port))
        return refuse_target(text, problem);
    if (end && !read_number(end + 1, end + strlen(end), 1, INT32_MAX, &pid))
        return refuse_target(text, problem);
    const char *host_end = colon;
    if (*host == '[' && colon[-1] == ']') {
        host++;
        host_end--;
    }
    size_t host_length = (size_t)(host_end - host), name_length = equals ? (size_t)(equals - text) : (size_t)(address_end - text);
    if (host_length == 0 || host_length >= BENCH_HOST_MAX || (equals && name_length == 0))
        return refuse_target(text, problem);
    snprintf(parsed.host, sizeof parsed.host, "%.*s", (int)host_length, host);
    snprintf(parsed.name, sizeof parsed.name, "%.*s", (int)(name_length < BENCH_NAME_MAX ? name_length : BENCH_NAME_MAX - 1), text);
    parsed.port = (uint16_t)port;
    parsed.server_pid = (int)pid;
    *target = parsed;
    return 0;
}

/* ---- measuring ---- */

static int measure_connects(const struct bench_options *options, const struct bench_target *target, struct bench_outcome *outcome)
{
    outcome->connects = calloc(1, sizeof *outcome->connects);
    if (!outcome->connects)
        return ERR_NO_MEMORY;
    struct load_connects connects = {.host = target->host,
                                     .port = target->port,
                                     .version = options->version,
                                     .count = options->connects,
                                     .at_once = options->connects_at_once,
                                     .timeout_s = CONNECT_TIMEOUT_S,
                                     .hold_s = options->hold_s,
                                     .server_pid = target->server_pid};
    int error = load_connects_run(&connects, outcome->connects);
    if (error && !outcome->connects->problem[0])
        snprintf(outcome->connects->problem, sizeof outcome->connects->problem, "%s", error_text(error));
    if (!error && outcome->connects->connected < options->connects)
        error = ERR_DISCONNECTED;
    return error;
}

int bench_measure(const struct bench_options *options, const struct bench_target *target, struct bench_outcome *outcome)
{
    *outcome = (struct bench_outcome){0};
    if (options->scenario == BENCH_CONNECT)
        return outcome->error = measure_connects(options, target, outcome);
    outcome->messages = calloc(1, sizeof *outcome->messages);
    if (!outcome->messages)
        return outcome->error = ERR_NO_MEMORY;
    struct load_scenario scenario = {.host = target->host,
                                     .port = target->port,
                                     .version = options->version,
                                     .publishers = options->scenario == BENCH_FANOUT ? 1 : options->publishers,
                                     .subscribers = options->subscribers,
                                     .threads = options->threads,
                                     .publish_qos = options->publish_qos,
                                     .subscribe_qos = options->subscribe_qos,
                                     .payload_bytes = options->payload_bytes,
                                     .inflight = options->inflight,
                                     .rate = options->scenario == BENCH_RATE ? options->rate : 0,
                                     .spin = options->spin,
                                     .warmup_s = options->warmup_s,
                                     .duration_s = options->duration_s,
                                     .drain_s = DRAIN_S,
                                     .server_pid = target->server_pid};
    return outcome->error = load_scenario_run(&scenario, outcome->messages);
}

void bench_outcome_fini(struct bench_outcome *outcome)
{
    free(outcome->messages);
    free(outcome->connects);
    *outcome = (struct bench_outcome){0};
}

/* ---- the command ---- */

static int check_options(const struct bench_options *options)
{
    const char *wrong = NULL;
    if (options->target_count < 1 || options->target_count > BENCH_TARGETS_MAX)
        wrong = "1 to 8 targets are needed";
    else if (options->scenario == BENCH_RATE && !(options->rate > 0))
        wrong = "the open loop needs a rate above 0";
    if (wrong)
        fprintf(stderr, "bench: %s\n", wrong);
    return wrong ? COMMAND_USAGE : COMMAND_OK;
}

static int judge(const struct bench_options *options, const struct bench_outcome *outcomes)
{
    int status = COMMAND_OK;
    for (unsigned i = 0; i < options->target_count; i++) {
        const struct load_result *messages = outcomes[i].messages;
        bool durable = options->publish_qos && options->subscribe_qos;
        if (outcomes[i].error == ERR_INVALID)
            return COMMAND_USAGE;
        if (outcomes[i].error || (messages && durable && messages->lost))
            status = COMMAND_FAILED;
    }
    return status;
}

int bench(const struct bench_options *options)
{
    int status = check_options(options);
    if (status)
        return status;
    struct bench_outcome outcomes[BENCH_TARGETS_MAX] = {{0}};
    for (unsigned i = 0; i < options->target_count; i++) {
        terminal_progress("measuring %s ...", options->targets[i].name);
        bench_measure(options, &options->targets[i], &outcomes[i]);
    }
    terminal_progress_end();
    bench_report(options, outcomes);
    status = judge(options, outcomes);
    for (unsigned i = 0; i < options->target_count; i++)
        bench_outcome_fini(&outcomes[i]);
    return status;
}

/* The targets of a list separated by commas. Returns an exit status. */
static int parse_targets(struct bench_options *options, const char *list)
{
    for (const char *at = list;; at++) {
        char text[BENCH_NAME_MAX + BENCH_HOST_MAX + 32], problem[BENCH_PROBLEM_MAX];
        size_t length = strcspn(at, ",");
        snprintf(text, sizeof text, "%.*s", (int)(length < sizeof text ? length : sizeof text - 1), at);
        if (options->target_count == BENCH_TARGETS_MAX) {
            fprintf(stderr, "bench: more than %d targets\n", BENCH_TARGETS_MAX);
            return COMMAND_USAGE;
        }
        if (bench_target_parse(&options->targets[options->target_count], text, problem) != 0) {
            fprintf(stderr, "bench: %s\n", problem);
            return COMMAND_USAGE;
        }
        options->target_count++;
        at += length;
        if (!*at)
            return COMMAND_OK;
    }
}

int command_bench(const struct bench_arguments *arguments)
{
    static const enum bench_scenario scenarios[] = {
        [COMMAND_SCENARIO_THROUGHPUT] = BENCH_THROUGHPUT,
        [COMMAND_SCENARIO_RATE] = BENCH_RATE,
        [COMMAND_SCENARIO_FANOUT] = BENCH_FANOUT,
        [COMMAND_SCENARIO_CONNECT] = BENCH_CONNECT,
    };
    struct bench_options options = {
        .scenario = scenarios[arguments->scenario],
        .version = arguments->protocol == COMMAND_PROTOCOL_MQTT_5_0 ? MQTT_VERSION_5_0 : MQTT_VERSION_3_1_1,
        .publishers = arguments->publishers,
        .subscribers = arguments->subscribers_given                     ? arguments->subscribers
                       : scenarios[arguments->scenario] == BENCH_FANOUT ? BENCH_FANOUT_SUBSCRIBERS
                                                                        : 1,
        .threads = arguments->threads,
        .publish_qos = (uint8_t)arguments->qos,
        .subscribe_qos = (uint8_t)(arguments->subscribe_qos_given ? arguments->subscribe_qos : arguments->qos),
        .payload_bytes = (uint32_t)arguments->payload,
        .inflight = arguments->inflight,
        .rate = arguments->rate,
        .spin = arguments->spin,
        .warmup_s = arguments->warmup,
        .duration_s = arguments->duration,
        .hold_s = arguments->duration_given ? arguments->duration : 0,
        .connects = arguments->connects,
        .connects_at_once = arguments->at_once,
        .json = arguments->json,
    };
    int status = parse_targets(&options, arguments->targets);
    return status ? status : bench(&options);
}
