#include "simulate/simulate_receive.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "simulate/simulate_answer.h"

struct origin {
    enum simulate_answer_side side;
    const char *tool; /* the topic's level 3, borrowed */
    size_t tool_length;
};

/* Whether the topic is one of the two of this run's tools. */
static bool read_topic(const struct simulation *simulation, struct mqtt_slice topic, struct origin *origin)
{
    const char *at = (const char *)topic.data, *end = at + topic.length;
    size_t root = strlen(simulation->topics.root), prefix = strlen(simulation->prefix);
    if (topic.length < root + 1 + prefix || memcmp(at, simulation->topics.root, root) != 0 || at[root] != '/' ||
        memcmp(at + root + 1, simulation->prefix, prefix) != 0)
        return false;
    const char *toolbox_end = memchr(at + root + 1, '/', (size_t)(end - at) - root - 1);
    const char *tool_end = toolbox_end ? memchr(toolbox_end + 1, '/', (size_t)(end - toolbox_end) - 1) : NULL;
    if (!tool_end)
        return false;
    const char *suffix = tool_end + 1;
    size_t length = (size_t)(end - suffix);
    bool keypoints = length == strlen(simulation->topics.keypoints) && memcmp(suffix, simulation->topics.keypoints, length) == 0;
    *origin = (struct origin){keypoints ? SIMULATE_KEYPOINTS : SIMULATE_DEPTHS, toolbox_end + 1, (size_t)(tool_end - toolbox_end - 1)};
    return true;
}

/* Whether the answer names the hole it is matched with in every other respect as well. */
static void check_identity(struct simulation *simulation, const struct simulate_hole *hole, const struct origin *origin,
                           const struct simulate_answer *answer)
{
    const struct simulate_tool *tool = &simulation->tools[hole->tool];
    char stamp[SIMULATOR_STAMP_SIZE];
    simulator_stamp_write(stamp, hole->stamp_s);
    bool right_tool = origin->tool_length == strlen(tool->name) && memcmp(origin->tool, tool->name, origin->tool_length) == 0;
    if (!right_tool || strcmp(answer->stamp, stamp) != 0 || strcmp(answer->machine_id, tool->machine_id) != 0)
        simulation->tally->wrong_identity++;
    bool right_head = strcmp(answer->head_id, tool->head_id) == 0, no_head = answer->head_id[0] == '\0';
    if (!(hole->no_heads ? no_head : hole->late_heads ? no_head || right_head : right_head))
        simulation->tally->wrong_head++;
}

static void measure(struct simulation *simulation, struct simulate_hole *hole, const struct origin *origin,
                    const struct simulate_answer *answer)
{
    const struct simulate_curve *curve = &simulation->curves.items[hole->curve];
    if (origin->side != SIMULATE_KEYPOINTS)
        return;
    if (answer->error) {
        hole->error_answer = true;
        simulation->tally->error_answers++;
        simulation->tally->unexpected_errors += curve->shape < SIMULATOR_ABORTED;
        simulate_tally_error(simulation->tally, answer->text);
    } else {
        simulation->tally->estimates++;
        simulate_tally_estimate(simulation->tally, curve->shape, &curve->truth, answer->values, answer->value_count);
    }
}

static void take_answer(struct simulation *simulation, struct simulate_hole *hole, const struct origin *origin,
                        const struct simulate_answer *answer, uint64_t now_ns)
{
    struct simulate_tally *tally = simulation->tally;
    if (!simulate_ledger_answer(&simulation->ledger, hole, origin->side)) {
        tally->duplicates_received++;
        return;
    }
    check_identity(simulation, hole, origin, answer);
    measure(simulation, hole, origin, answer);
    tally->last_answer_ns = tally->last_progress_ns = now_ns;
    if (hole->answers != SIMULATE_BOTH)
        return;
    uint64_t waited_ns = now_ns > hole->last_message_ns ? now_ns - hole->last_message_ns : 0;
    histogram_record(hole->no_heads || hole->late_heads ? &tally->answer_headless_ns : &tally->answer_ns, waited_ns);
    simulate_play_settle(simulation, hole);
}

void simulate_receive(struct simulation *simulation, const struct mqtt_publish *publish, uint64_t now_ns)
{
    struct simulate_tally *tally = simulation->tally;
    struct origin origin;
    struct simulate_answer answer;
    struct simulate_hole *hole;
    if (!read_topic(simulation, publish->topic, &origin)) {
        tally->foreign_answers++;
        return;
    }
    tally->answers_received++;
    if (simulate_answer_read(&answer, (const char *)publish->payload.data, publish->payload.length) != 0) {
        tally->unreadable_answers++;
        return;
    }
    if (answer.result_id == 0) {
        tally->answers_without_id++;
        return;
    }
    switch (simulate_ledger_find(&simulation->ledger, answer.result_id, &hole)) {
    case SIMULATE_OPEN:
        take_answer(simulation, hole, &origin, &answer, now_ns);
        break;
    case SIMULATE_ANSWERED:
        tally->duplicates_received++;
        break;
    case SIMULATE_LOST:
        simulate_ledger_recover(&simulation->ledger, answer.result_id, origin.side);
        break;
    case SIMULATE_MALFORMED:
        tally->answers_to_malformed++;
        break;
    case SIMULATE_FOREIGN:
        tally->foreign_answers++;
        break;
    }
}
