/* `spindle simulate`: its options as the simulation takes them. */
#include "simulate/simulate.h"

#include "cli/command.h"
#include "mqtt/packet.h"

int command_simulate(const struct simulate_arguments *arguments)
{
    struct simulate_options options = {
        .host = arguments->host,
        .port = (uint16_t)arguments->port,
        .version = arguments->protocol == COMMAND_PROTOCOL_MQTT_5_0 ? MQTT_VERSION_5_0 : MQTT_VERSION_3_1_1,
        .qos = (uint8_t)arguments->qos,
        .tools = arguments->tools,
        .connections = arguments->connections,
        .window = arguments->window,
        .rate = arguments->rate,
        .duration_s = arguments->holes && !arguments->duration_given ? 0 : arguments->duration,
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
        .messages_array = arguments->messages_array,
        .report = arguments->report,
        .json = arguments->json,
    };
    static const int statuses[] = {[SIMULATE_DONE] = COMMAND_OK, [SIMULATE_FAILED] = COMMAND_FAILED, [SIMULATE_REFUSED] = COMMAND_USAGE};
    return statuses[simulate(&options)];
}
