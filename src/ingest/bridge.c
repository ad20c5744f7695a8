/* What bridge rules make of messages: which of them pass in which direction, and under which names.
 *
 * Two things keep a message from going round. Where it came from: its record says by whose connection (struct queue_origin), and it is not
 * sent there again. Where it has been: whoever takes a message in or sends it out by a rule adds a mark of its own to its user properties,
 * and does not take in, nor send on, what has that mark already. So a broker of MQTT 3.1.1, which has no properties, may be bridged to
 * only by rules whose two directions do not meet there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "ingest/parts.h"
#include "mqtt/topic.h"

enum { BRIDGE_PROPERTIES_MAX = MQTT_REMAINING_LENGTH_MAX };

#define NS_PER_S UINT64_C(1000000000)

/* ---- open and close ---- */

static bool has_direction(const struct bridge *bridge, enum ingest_direction direction)
{
    for (size_t i = 0; i < bridge->rule_count; i++)
        if (bridge->rules[i].direction & direction)
            return true;
    return false;
}

static void list_filters(struct bridge *bridge)
{
    for (size_t i = 0; i < bridge->rule_count; i++) {
        const struct ingest_rule *rule = &bridge->rules[i];
        for (size_t j = 0; j < bridge->rule_count; j++)
            bridge->echoes = bridge->echoes || rule_echoes(rule, &bridge->rules[j]);
        if (!(rule->direction & INGEST_IN))
            continue;
        rule_filter(rule, RULE_REMOTE, bridge->filters[bridge->filter_count]);
        bridge->filter_qos[bridge->filter_count++] = rule->qos;
    }
}

/* Client identifiers name the broker, so that two names of one broker do not take each other's sessions away. */
static int make_links(struct ingest *ingest, struct bridge *bridge)
{
    const struct broker *broker = &ingest->brokers[bridge->broker];
    char name[32];
    int error = 0;
    if (bridge->filter_count) {
        snprintf(name, sizeof name, "bridge-%08x-in", (unsigned)(broker->key >> 32));
        error = broker_link_create(ingest, LINK_INTAKE, name, &bridge->in);
        if (!error)
            bridge->in->bridge = bridge;
    }
    if (error || !has_direction(bridge, INGEST_OUT))
        return error;
    snprintf(name, sizeof name, "bridge-%08x-out", (unsigned)(broker->key >> 32));
    bridge->outflow = (struct outflow){
        .ingest = ingest,
        .bridge = bridge,
        .content = QUEUE_CONTENT_KEPT,
        .what = "message",
        .inflight_max = ingest->options.bridge_inflight,
    };
    error = broker_link_create(ingest, LINK_OUTFLOW, name, &bridge->outflow.link);
    if (!error) {
        bridge->outflow.link->bridge = bridge;
        bridge->outflow.link->outflow = &bridge->outflow;
    }
    return error;
}

static struct bridge *bridge_to(struct ingest *ingest, unsigned broker)
{
    for (size_t i = 0; i < ingest->bridge_count; i++)
        if (ingest->bridges[i].broker == broker)
            return &ingest->bridges[i];
    struct bridge *bridge = &ingest->bridges[ingest->bridge_count++];
    bridge->broker = broker;
    buffer_init(&bridge->topic, MQTT_TOPIC_LENGTH_MAX);
    buffer_init(&bridge->properties, BRIDGE_PROPERTIES_MAX);
    return bridge;
}

int bridge_open_all(struct ingest *ingest)
{
    const struct ingest_options *options = &ingest->options;
    if (options->rule_count == 0)
        return 0;
    ingest->bridges = calloc(INGEST_BRIDGES_MAX, sizeof *ingest->bridges);
    if (!ingest->bridges)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < options->rule_count; i++) {
        struct bridge *bridge = bridge_to(ingest, options->rules[i].broker);
        bridge->rules[bridge->rule_count++] = options->rules[i];
    }
    int error = 0;
    for (size_t i = 0; !error && i < ingest->bridge_count; i++) {
        list_filters(&ingest->bridges[i]);
        error = make_links(ingest, &ingest->bridges[i]);
    }
    return error;
}

int bridge_open_outflows(struct ingest *ingest)
{
    int error = 0;
    for (size_t i = 0; !error && i < ingest->bridge_count; i++) {
        struct bridge *bridge = &ingest->bridges[i];
        char name[sizeof "bridge " + INGEST_NAME_MAX];
        snprintf(name, sizeof name, "bridge %s", ingest->brokers[bridge->broker].name);
        error = bridge->outflow.link ? outflow_open(&bridge->outflow, name) : 0;
    }
    return error;
}

void bridge_close_all(struct ingest *ingest)
{
    for (size_t i = 0; i < ingest->bridge_count; i++) {
        struct bridge *bridge = &ingest->bridges[i];
        outflow_close(&bridge->outflow);
        buffer_fini(&bridge->topic);
        buffer_fini(&bridge->properties);
    }
    free(ingest->bridges);
}

/* ---- in ---- */

bool bridge_may_take(struct link *link)
{
    return broker_link_session(link)->version == MQTT_VERSION_5_0 || !link->bridge->echoes;
}

static int enter(struct bridge *bridge, const struct ingest *ingest, const struct ingest_rule *rule, const struct mqtt_publish *publish)
{
    buffer_clear(&bridge->properties);
    int error = rule_map(rule, RULE_REMOTE, (const char *)publish->topic.data, publish->topic.length, &bridge->topic);
    return error ? error : rule_mark(publish->properties_raw, ingest->mark, &bridge->properties);
}

bool bridge_take(struct bridge *bridge, const struct ingest *ingest, const struct mqtt_publish *publish, struct message *message)
{
    const struct ingest_rule *rule = NULL;
    for (size_t i = 0; i < bridge->rule_count && !rule; i++)
        if (bridge->rules[i].direction & INGEST_IN &&
            rule_matches(&bridge->rules[i], RULE_REMOTE, (const char *)publish->topic.data, publish->topic.length))
            rule = &bridge->rules[i];
    if (!rule)
        return false; /* a session that the broker has kept knows of older rules */
    enum rule_past past = rule_past(publish->properties_raw, ingest->mark);
    if (past != RULE_NEW) {
        ingest_count(&bridge->looped, 1);
        if (past == RULE_RING)
            DIAG_LIMITED(
                DIAGNOSTICS_WARNING, "ingest",
                "a message on %.*s came back from broker %s over another Spindle, and is not taken in: bridge rules make a ring, in which "
                "messages may come several times",
                (int)publish->topic.length, (const char *)publish->topic.data, ingest->brokers[bridge->broker].name);
        return false;
    }
    if (enter(bridge, ingest, rule, publish))
        return false;
    message->topic = (const char *)bridge->topic.data;
    message->topic_length = (uint32_t)bridge->topic.length;
    message->properties = bridge->properties.data;
    message->properties_length = (uint32_t)bridge->properties.length;
    message->flags = (uint8_t)(publish->qos | (publish->retain ? MESSAGE_RETAIN : 0));
    return true;
}

/* ---- out ---- */

static struct mqtt_slice properties_of(const struct message *message)
{
    return (struct mqtt_slice){message->properties, message->properties_length};
}

/* Seconds since it arrived. */
static uint64_t age_s(const struct message *message)
{
    uint64_t now_ns = clock_wall_ns();
    return now_ns > message->time_ns ? (now_ns - message->time_ns) / NS_PER_S : 0;
}

const struct ingest_rule *bridge_rule_for(const struct outflow *out)
{
    const struct bridge *bridge = out->bridge;
    const struct ingest *ingest = out->ingest;
    const struct message *message = &out->held;
    uint32_t interval_s, at;
    const struct ingest_rule *rule = NULL;
    for (size_t i = 0; i < bridge->rule_count && !rule; i++)
        if (bridge->rules[i].direction & INGEST_OUT && rule_matches(&bridge->rules[i], RULE_LOCAL, message->topic, message->topic_length))
            rule = &bridge->rules[i];
    if (!rule || broker_sent(&ingest->brokers[bridge->broker], &out->origin))
        return NULL;
    if (message->topic_length - strlen(rule->local) + strlen(rule->remote) > MQTT_TOPIC_LENGTH_MAX)
        return NULL;
    /* What was taken in has our own mark from there. */
    if (!queue_origin_is_broker(&out->origin) && rule_past(properties_of(message), ingest->mark) != RULE_NEW)
        return NULL;
    if (mqtt_properties_expiry(properties_of(message), &interval_s, &at) && age_s(message) >= interval_s)
        return NULL;
    return rule;
}

static void count_down(struct buffer *properties, const struct message *message)
{
    uint32_t interval_s, at;
    if (!mqtt_properties_expiry((struct mqtt_slice){properties->data, (uint32_t)properties->length}, &interval_s, &at))
        return;
    uint64_t age = age_s(message);
    uint32_t left_s = age < interval_s ? interval_s - (uint32_t)age : 1;
    for (unsigned i = 0; i < 4; i++)
        properties->data[at + i] = (uint8_t)(left_s >> (24 - 8 * i));
}

int bridge_name_outgoing(struct outflow *out, const struct ingest_rule *rule, struct mqtt_publish *packet)
{
    const struct message *message = &out->held;
    int error = rule_map(rule, RULE_LOCAL, message->topic, message->topic_length, &out->topic);
    if (error)
        return error;
    packet->topic = (struct mqtt_slice){out->topic.data, (uint32_t)out->topic.length};
    packet->retain = message->flags & MESSAGE_RETAIN;
    if (broker_link_session(out->link)->version != MQTT_VERSION_5_0)
        return 0;
    error = queue_origin_is_broker(&out->origin) ? buffer_append(&out->properties, message->properties, message->properties_length)
                                                 : rule_mark(properties_of(message), out->ingest->mark, &out->properties);
    count_down(&out->properties, message);
    return error;
}

/* ---- what is known of it ---- */

void bridge_collect(struct ingest *ingest, struct metrics_writer *writer)
{
    for (size_t i = 0; i < ingest->bridge_count; i++) {
        const struct bridge *bridge = &ingest->bridges[i];
        const struct outflow *out = &bridge->outflow;
        const char *name = ingest->brokers[bridge->broker].name;
        metrics_sample_u64(writer, METRIC_BRIDGE_RECEIVED, atomic_load(&bridge->received), "broker", name, NULL);
        metrics_sample_u64(writer, METRIC_BRIDGE_LOOPED, atomic_load(&bridge->looped), "broker", name, NULL);
        metrics_sample_u64(writer, METRIC_BRIDGE_SENT, atomic_load(&out->acknowledged), "broker", name, NULL);
        metrics_sample_u64(writer, METRIC_BRIDGE_REFUSED, atomic_load(&out->refused), "broker", name, NULL);
        metrics_sample_u64(writer, METRIC_BRIDGE_LAG, atomic_load(&out->lag), "broker", name, NULL);
        metrics_sample_u64(writer, METRIC_BRIDGE_INFLIGHT, atomic_load(&out->inflight), "broker", name, NULL);
    }
}

int bridge_status(struct ingest *ingest, struct buffer *json)
{
    int error = buffer_append_text(json, ",\"bridges\":[");
    for (size_t i = 0; i < ingest->bridge_count && !error; i++) {
        const struct bridge *bridge = &ingest->bridges[i];
        const struct outflow *out = &bridge->outflow;
        const char *name = ingest->brokers[bridge->broker].name;
        error = buffer_printf(json,
                              "%s{\"rules\":%zu,\"received\":%llu,\"looped\":%llu,\"sent\":%llu,\"refused\":%llu,\"lag\":%llu,"
                              "\"inflight\":%llu,\"broker\":",
                              i ? "," : "", bridge->rule_count, (unsigned long long)atomic_load(&bridge->received),
                              (unsigned long long)atomic_load(&bridge->looped), (unsigned long long)atomic_load(&out->acknowledged),
                              (unsigned long long)atomic_load(&out->refused), (unsigned long long)atomic_load(&out->lag),
                              (unsigned long long)atomic_load(&out->inflight));
        error = error ? error : buffer_append_json_string(json, name, strlen(name), 0);
        error = error ? error : buffer_append_text(json, "}");
    }
    return error ? error : buffer_append_text(json, "]");
}
