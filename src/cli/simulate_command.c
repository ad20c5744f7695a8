/* `spindle simulate` as the command line names it; simulate.h does the work. */
#include <stdio.h>

#include "cli/command.h"
#include "cli/simulate.h"
#include "mqtt/packet.h"

int command_simulate(const struct simulate_arguments *arguments)
{
    struct simulate_options options = {
        .host = arguments->host,
        .port = (uint16_t)arguments->port,
        .version = arguments->mqtt == COMMAND_MQTT_5 ? MQTT_VERSION_5_0 : MQTT_VERSION_3_1_1,
        .qos = (uint8_t)arguments->qos,
        .tools = arguments->tools,
        .connections = arguments->connections,
        .window = arguments->window,
        .rate = arguments->rate,
        .duration_s = arguments->duration,
        .holes = arguments->holes,
        .timeout_s = arguments->timeout,
        .curves = arguments->curves,
        .shapes = arguments->shapes,
        .seed = arguments->seed,
        .root = arguments->root,
        .shuffle = arguments->shuffle,
        .duplicates = arguments->duplicates,
        .late_heads = arguments->late_heads,
        .malformed = arguments->malformed,
        .no_heads = arguments->no_heads,
        .report = arguments->report,
        .json = arguments->json,
    };
    if (!arguments->duration_given && !arguments->holes_given)
        options.duration_s = 15;
    return simulate(&options);
}
