/* `spindle bench` as the command line names it; bench.h does the work. */
#include <stdio.h>

#include "base/error.h"
#include "cli/bench.h"
#include "cli/command.h"
#include "mqtt/packet.h"

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
        .version = arguments->mqtt == COMMAND_MQTT_5 ? MQTT_VERSION_5_0 : MQTT_VERSION_3_1_1,
        .publishers = arguments->publishers_given                          ? arguments->publishers
                      : arguments->scenario == COMMAND_SCENARIO_THROUGHPUT ? 4
                                                                           : 1,
        .subscribers = arguments->subscribers_given                     ? arguments->subscribers
                       : arguments->scenario == COMMAND_SCENARIO_FANOUT ? 1000
                                                                        : 1,
        .threads = arguments->threads,
        .publish_qos = (uint8_t)arguments->qos,
        .subscribe_qos = (uint8_t)(arguments->subscribe_qos_given ? arguments->subscribe_qos : arguments->qos),
        .payload_bytes = (uint32_t)arguments->payload,
        .inflight = arguments->inflight,
        .rate = arguments->rate,
        .spin = arguments->spin,
        .warmup_s = 1,
        .duration_s = arguments->duration,
        .connects = arguments->connects,
        .connects_at_once = 100,
        .json = arguments->json,
    };
    const char *const targets[] = {arguments->target, arguments->beside, arguments->beside_too};
    for (unsigned i = 0; i < sizeof targets / sizeof *targets; i++) {
        char problem[BENCH_PROBLEM_MAX];
        if (!targets[i])
            continue;
        if (bench_target_parse(&options.targets[options.target_count++], targets[i], problem)) {
            fprintf(stderr, "spindle bench: %s\n", problem);
            return COMMAND_USAGE;
        }
    }
    return bench(&options);
}
