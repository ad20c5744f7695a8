#include "simulate/simulate_play.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "simulate/simulator_malformed.h"

enum {
    TOOLS_PER_TOOLBOX = 5,
    PAUSE_S = 2,        /* between two holes of a tool, by their stamps */
    SHUFFLE_DEPTH = 16, /* how many places a message may jump ahead */
    PAYLOAD_LIMIT = 32 << 20,
    TOPIC_LIMIT = 1024,
    QUEUE_FIRST_CAPACITY = 64,
    CODE_BITS = 3
};

/* Which message of its hole a tag means: enum simulator_message; the same plus CODE_REPEAT for its duplicate; CODE_MALFORMED. */
enum { CODE_REPEAT = SIMULATOR_MESSAGE_COUNT, CODE_MALFORMED = 2 * SIMULATOR_MESSAGE_COUNT };

#define SECOND_NS UINT64_C(1000000000)

static uint32_t tag_of(const struct simulation *simulation, const struct simulate_hole *hole, unsigned code)
{
    return simulate_ledger_slot(&simulation->ledger, hole) << CODE_BITS | code;
}

static struct simulate_hole *hole_of(struct simulation *simulation, uint32_t tag, unsigned *code)
{
    *code = tag & ((1u << CODE_BITS) - 1);
    return &simulation->ledger.holes[tag >> CODE_BITS];
}

static bool happens(struct simulation *simulation, double share)
{
    return share > 0 && random_between(&simulation->random, 0, 1) < share;
}

/* ---- set-up ---- */

static void equip(struct simulation *simulation, struct simulate_tool *tool, unsigned index, uint64_t wall_s)
{
    static const unsigned layouts[] = {SIMULATOR_LAYOUT_MEASURED_VALUE | SIMULATOR_LAYOUT_TEXT_IDS,
                                       SIMULATOR_LAYOUT_MEASURED_VALUE | SIMULATOR_LAYOUT_TEXT_IDS, SIMULATOR_LAYOUT_FASTENING, 0};
    *tool = (struct simulate_tool){.layout = layouts[index % 4], .link = index / TOOLS_PER_TOOLBOX % simulation->link_count};
    if (simulation->options->messages_array)
        tool->layout |= SIMULATOR_LAYOUT_ARRAY;
    snprintf(tool->toolbox, sizeof tool->toolbox, "%s-%u", simulation->prefix, index / TOOLS_PER_TOOLBOX + 1);
    snprintf(tool->name, sizeof tool->name, "setitec%03u", index + 1);
    snprintf(tool->device, sizeof tool->device, "Setitec XLS-%u", index + 1);
    snprintf(tool->machine_id, sizeof tool->machine_id, "%u", 23120000 + index);
    snprintf(tool->head_id, sizeof tool->head_id, "E0040100%08X", 0x6B000000u + index * 7919u);
    tool->next_stamp_s = wall_s + index % 10;
}

int simulate_play_init(struct simulation *simulation, uint64_t wall_s)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    const struct simulate_options *options = simulation->options;
    char *at = simulation->prefix + snprintf(simulation->prefix, sizeof simulation->prefix, "SIM");
    for (uint64_t rest = wall_s % (36ull * 36 * 36 * 36 * 36 * 36), i = 0; i < 6; i++, rest /= 36)
        *at++ = digits[rest % 36];
    *at = '\0';
    simulation->link_count = options->connections;
    if (simulation->link_count == 0)
        simulation->link_count = (options->tools + TOOLS_PER_TOOLBOX - 1) / TOOLS_PER_TOOLBOX;
    if (simulation->link_count > (options->connections ? SIMULATE_LINKS_MAX : 16))
        simulation->link_count = options->connections ? SIMULATE_LINKS_MAX : 16;
    simulation->random.state = options->seed * 31 + 7;
    buffer_init(&simulation->payload, PAYLOAD_LIMIT);
    buffer_init(&simulation->topic, TOPIC_LIMIT);
    simulation->tools = calloc(options->tools, sizeof *simulation->tools);
    simulation->links = calloc(simulation->link_count, sizeof *simulation->links);
    simulation->late = calloc(simulation->ledger.capacity, sizeof *simulation->late);
    if (!simulation->tools || !simulation->links || !simulation->late)
        return ERR_NO_MEMORY;
    for (unsigned i = 0; i < options->tools; i++)
        equip(simulation, &simulation->tools[i], i, wall_s);
    for (unsigned i = 0; i < simulation->link_count; i++)
        simulation->links[i].simulation = simulation;
    return 0;
}

void simulate_play_fini(struct simulation *simulation)
{
    for (unsigned i = 0; simulation->links && i < simulation->link_count; i++)
        free(simulation->links[i].queue);
    free(simulation->links);
    free(simulation->tools);
    free(simulation->late);
    buffer_fini(&simulation->payload);
    buffer_fini(&simulation->topic);
}

/* ---- queues: bounded by the ledger's slots, each of which has at most seven messages ---- */

static struct simulate_outgoing *queue_place(struct simulate_link *link, size_t index)
{
    return &link->queue[(link->queue_head + index) % link->queue_capacity];
}

static bool queue_grow(struct simulate_link *link)
{
    size_t capacity = link->queue_capacity ? link->queue_capacity * 2 : QUEUE_FIRST_CAPACITY;
    struct simulate_outgoing *queue = malloc(capacity * sizeof *queue);
    if (!queue)
        return false;
    for (size_t i = 0; i < link->queue_length; i++)
        queue[i] = *queue_place(link, i);
    free(link->queue);
    link->queue = queue;
    link->queue_capacity = capacity;
    link->queue_head = 0;
    return true;
}

/* Adds a message at the end; with `shuffle` it changes places with one of the last. False when memory is short. */
static bool queue_add(struct simulate_link *link, uint32_t tag, bool again, bool shuffle)
{
    if (link->queue_length == link->queue_capacity && !queue_grow(link))
        return false;
    struct simulate_outgoing *last = queue_place(link, link->queue_length++);
    *last = (struct simulate_outgoing){tag, again};
    if (shuffle) {
        size_t depth = link->queue_length < SHUFFLE_DEPTH ? link->queue_length : SHUFFLE_DEPTH;
        struct simulate_outgoing *other =
                                     queue_place(link, link->queue_length - 1 - random_below(&link->simulation->random, (uint32_t)depth)),
                                 swap = *other;
        *other = *last;
        *last = swap;
    }
    return true;
}

/* ---- holes ---- */

/* A message for which there is no memory is not sent; its hole then has no answer. */
static void queue_message(struct simulation *simulation, struct simulate_hole *hole, unsigned code)
{
    struct simulate_link *link = &simulation->links[simulation->tools[hole->tool].link];
    if (queue_add(link, tag_of(simulation, hole, code), false, simulation->options->shuffle))
        hole->waiting++;
}

/* The next hole of a tool, with its own second. */
static void place_hole(struct simulation *simulation, struct simulate_hole *hole)
{
    hole->tool = random_below(&simulation->random, simulation->options->tools);
    hole->curve = random_below(&simulation->random, (uint32_t)simulation->curves.count);
    hole->outages = (uint32_t)simulation->tally->outages;
    struct simulate_tool *tool = &simulation->tools[hole->tool];
    hole->stamp_s = tool->next_stamp_s;
    tool->next_stamp_s += simulation->curves.items[hole->curve].sample_count / SIMULATOR_SAMPLES_PER_S + PAUSE_S;
}

static void send_malformed(struct simulation *simulation)
{
    struct simulate_hole *hole = simulate_ledger_open(&simulation->ledger, true);
    if (!hole)
        return;
    place_hole(simulation, hole);
    hole->malformed_kind = (uint8_t)random_below(&simulation->random, simulator_malformed_count());
    queue_message(simulation, hole, CODE_MALFORMED);
    simulation->tally->malformed_sent++;
}

static void plan_late_heads(struct simulation *simulation, struct simulate_hole *hole, uint64_t due_ns)
{
    assert(simulation->late_count < simulation->ledger.capacity);
    size_t place = (simulation->late_head + simulation->late_count++) % simulation->ledger.capacity;
    simulation->late[place] = (struct simulate_late){due_ns + SIMULATE_LATE_HEADS_S * SECOND_NS, tag_of(simulation, hole, SIMULATOR_HEADS)};
    hole->late_heads = true;
    hole->waiting++;
    hole->messages |= 1u << SIMULATOR_HEADS;
    simulation->tally->late_heads_sent++;
}

/* False when there is no slot. */
static bool send_hole(struct simulation *simulation, uint64_t due_ns)
{
    const struct simulate_options *options = simulation->options;
    struct simulate_hole *hole = simulate_ledger_open(&simulation->ledger, false);
    if (!hole)
        return false;
    place_hole(simulation, hole);
    hole->last_message_ns = due_ns;
    hole->no_heads = happens(simulation, options->no_heads);
    bool late_heads = !hole->no_heads && happens(simulation, options->late_heads);
    simulation->tally->without_heads += hole->no_heads;
    for (unsigned message = 0; message < SIMULATOR_MESSAGE_COUNT; message++) {
        if (message == SIMULATOR_HEADS && (hole->no_heads || late_heads))
            continue;
        hole->messages = (uint8_t)(hole->messages | 1u << message);
        queue_message(simulation, hole, message);
        if (happens(simulation, options->duplicates)) {
            queue_message(simulation, hole, CODE_REPEAT + message);
            simulation->tally->duplicates_sent++;
        }
    }
    if (late_heads)
        plan_late_heads(simulation, hole, due_ns);
    simulation->holes_sent++;
    if (happens(simulation, options->malformed))
        send_malformed(simulation);
    return true;
}

uint64_t simulate_play_holes(struct simulation *simulation, uint64_t now_ns)
{
    const struct simulate_options *options = simulation->options;
    while (!simulation->stopping) {
        double elapsed_s = (double)(now_ns - simulation->begin_ns) / 1e9;
        if ((options->holes && simulation->holes_sent >= options->holes) || (options->duration_s > 0 && elapsed_s >= options->duration_s)) {
            simulation->stopping = true;
            break;
        }
        uint64_t due_ns = now_ns;
        if (options->rate > 0) {
            due_ns = simulation->begin_ns + (uint64_t)((double)simulation->holes_sent / options->rate * 1e9);
            if (due_ns > now_ns)
                return due_ns;
        }
        if (simulation->ledger.unanswered >= options->window || !send_hole(simulation, due_ns))
            break;
    }
    return UINT64_MAX;
}

uint64_t simulate_play_late(struct simulation *simulation, uint64_t now_ns)
{
    while (simulation->late_count) {
        const struct simulate_late *late = &simulation->late[simulation->late_head];
        if (late->at_ns > now_ns)
            return late->at_ns;
        unsigned code;
        struct simulate_hole *hole = hole_of(simulation, late->tag, &code);
        if (!queue_add(&simulation->links[simulation->tools[hole->tool].link], late->tag, false, false))
            return now_ns + SECOND_NS / 10;
        simulation->late_head = (simulation->late_head + 1) % simulation->ledger.capacity;
        simulation->late_count--;
    }
    return UINT64_MAX;
}

/* ---- messages ---- */

static int write_topic(struct simulation *simulation, const struct simulate_hole *hole, unsigned code)
{
    const struct simulate_tool *tool = &simulation->tools[hole->tool];
    const char *const suffixes[SIMULATOR_MESSAGE_COUNT] = {simulation->topics.result, simulation->topics.trace, simulation->topics.heads};
    enum simulator_message message = (enum simulator_message)(code % SIMULATOR_MESSAGE_COUNT);
    const char *suffix = code == CODE_MALFORMED ? simulator_malformed_topic(hole->malformed_kind, &message) : NULL;
    if (!suffix)
        suffix = suffixes[message];
    buffer_clear(&simulation->topic);
    return buffer_printf(&simulation->topic, "%s/%s/%s/%s", simulation->topics.root, tool->toolbox, tool->name, suffix);
}

static int write_payload(struct simulation *simulation, const struct simulate_hole *hole, unsigned code)
{
    const struct simulate_tool *tool = &simulation->tools[hole->tool];
    const struct simulator_rendering *rendering = &simulation->curves.items[hole->curve].rendering;
    char stamp[SIMULATOR_STAMP_SIZE];
    simulator_stamp_write(stamp, hole->stamp_s);
    struct simulator_identity identity = {.toolbox = tool->toolbox,
                                          .device = tool->device,
                                          .stamp = stamp,
                                          .machine_id = tool->machine_id,
                                          .head_id = tool->head_id,
                                          .result_id = hole->result_id,
                                          .message_id = hole->result_id,
                                          .layout = tool->layout};
    buffer_clear(&simulation->payload);
    if (code == CODE_MALFORMED)
        return simulator_malformed_write(&simulation->payload, hole->malformed_kind, rendering, &identity);
    return simulator_message_write(&simulation->payload, (enum simulator_message)(code % SIMULATOR_MESSAGE_COUNT), rendering, &identity);
}

static void count_message(struct simulation *simulation, struct simulate_hole *hole, unsigned code, bool again, uint64_t now_ns)
{
    struct simulate_tally *tally = simulation->tally;
    if (again) {
        tally->messages_sent_again++;
        return;
    }
    tally->messages_sent++;
    tally->payload_bytes += simulation->payload.length;
    if (tally->first_message_ns == 0)
        tally->first_message_ns = now_ns;
    /* In the closed loop the last message is due when it leaves; in the open loop when the rate says so. */
    if (simulation->options->rate <= 0 && code < SIMULATOR_MESSAGE_COUNT && !(hole->late_heads && code == SIMULATOR_HEADS))
        hole->last_message_ns = now_ns;
}

static int send_message(struct simulation *simulation, struct simulate_link *link, struct simulate_outgoing outgoing)
{
    unsigned code;
    struct simulate_hole *hole = hole_of(simulation, outgoing.tag, &code);
    int error = write_topic(simulation, hole, code);
    if (!error)
        error = write_payload(simulation, hole, code);
    if (error)
        return error;
    uint64_t now_ns = clock_monotonic_ns();
    struct mqtt_publish publish = {.qos = simulation->options->qos,
                                   .dup = outgoing.again && simulation->options->qos,
                                   .topic = {simulation->topic.data, (uint32_t)simulation->topic.length},
                                   .payload = {simulation->payload.data, (uint32_t)simulation->payload.length}};
    error = load_connection_publish(link->connection, &publish, outgoing.tag, now_ns);
    if (error)
        return error;
    count_message(simulation, hole, code, outgoing.again, now_ns);
    if (simulation->options->qos == 0)
        simulate_play_acknowledged(simulation, outgoing.tag, now_ns, 0);
    return 0;
}

int simulate_play_messages(struct simulation *simulation)
{
    for (unsigned i = 0; i < simulation->link_count; i++) {
        struct simulate_link *link = &simulation->links[i];
        while (link->queue_length && load_connection_ready(link->connection, simulation->options->qos)) {
            int error = send_message(simulation, link, *queue_place(link, 0));
            if (error)
                return error;
            link->queue_head = (link->queue_head + 1) % link->queue_capacity;
            link->queue_length--;
        }
    }
    return 0;
}

/* ---- what comes back for a message ---- */

void simulate_play_acknowledged(struct simulation *simulation, uint32_t tag, uint64_t now_ns, uint8_t reason)
{
    unsigned code;
    struct simulate_hole *hole = hole_of(simulation, tag, &code);
    assert(hole->in_use && hole->waiting > 0);
    if (simulation->options->qos) {
        simulation->tally->messages_acknowledged++;
        simulation->tally->messages_refused += reason >= 0x80;
        if (code < SIMULATOR_MESSAGE_COUNT && reason < 0x80)
            hole->acknowledged = (uint8_t)(hole->acknowledged | 1u << code);
    }
    simulation->tally->last_progress_ns = now_ns;
    hole->waiting--;
    hole->quiet_ns = now_ns;
    simulate_play_settle(simulation, hole);
}

void simulate_play_again(struct simulation *simulation, struct simulate_link *link, uint32_t tag)
{
    unsigned code;
    struct simulate_hole *hole = hole_of(simulation, tag, &code);
    if (!queue_add(link, tag, true, false)) {
        hole->waiting--; /* it can never be acknowledged now */
        simulation->tally->unacknowledged++;
        simulate_play_settle(simulation, hole);
    }
}

void simulate_play_report(struct simulation *simulation, const struct simulate_hole *hole)
{
    if (!simulation->report || hole->malformed)
        return;
    const struct simulate_tool *tool = &simulation->tools[hole->tool];
    char stamp[SIMULATOR_STAMP_SIZE];
    simulator_stamp_write(stamp, hole->stamp_s);
    const char *outcome = hole->answers == SIMULATE_BOTH ? hole->error_answer ? "error" : "estimate" : "none";
    fprintf(simulation->report,
            "{\"toolbox\": \"%s\", \"tool\": \"%s\", \"stamp\": \"%s\", \"result_id\": %" PRIu32
            ", \"shape\": \"%s\", \"messages\": %d, \"acknowledged\": %d, \"answer\": \"%s\"}\n",
            tool->toolbox, tool->name, stamp, hole->result_id, simulator_shape_name(simulation->curves.items[hole->curve].shape),
            __builtin_popcount(hole->messages), __builtin_popcount(hole->acknowledged), outcome);
}

void simulate_play_give_up(struct simulation *simulation, struct simulate_hole *hole)
{
    simulate_ledger_give_up(&simulation->ledger, hole);
    simulation->tally->unseen += hole->outages != simulation->tally->outages;
    simulate_play_settle(simulation, hole);
}

void simulate_play_settle(struct simulation *simulation, struct simulate_hole *hole)
{
    if (simulate_ledger_settle(&simulation->ledger, hole))
        simulate_play_report(simulation, hole);
}
