/* The way in: subscriptions, and messages that are acknowledged when they are durable.
 *
 * Shared: each connection subscribes to "$share/GROUP/filter" for every filter, so the broker gives each message to one of them. Not
 * shared: each filter belongs to one connection. Filters do not overlap, so in both cases a message comes once. A session that the broker
 * has kept may have other subscriptions, from other settings; those that are known by the settings of today are taken back first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "base/hash.h"
#include "ingest/filters.h"
#include "ingest/parts.h"
#include "mqtt/topic.h"

enum { ID_SUBSCRIBE = 1, ID_UNSUBSCRIBE = 2, ID_ASK = 3, FILTER_MAX = 1100, ACKNOWLEDGEMENT_SIZE = 4 };

static const char shared_form[] = "$share/%s/%s";
static const char topic_version[] = "$SYS/broker/version", name_of_mosquitto[] = "mosquitto version";

static bool may_share(const struct link *link)
{
    const struct ingest_options *options = &link->ingest->options;
    const struct broker *broker = &link->ingest->brokers[link->broker];
    return !link->bridge && options->connection_count > 1 && options->sharing == INGEST_SHARED_AUTO &&
           broker->version == MQTT_VERSION_5_0 && link->shareable;
}

static bool is_shared(const struct link *link)
{
    const struct ingest_options *options = &link->ingest->options;
    if (options->sharing == INGEST_SHARED_ALWAYS && !link->bridge)
        return options->connection_count > 1;
    return may_share(link) && link->ingest->brokers[link->broker].sharing == BROKER_SHARES;
}

/* ---- contents ---- */

static uint64_t content_of(const struct mqtt_publish *publish)
{
    uint64_t hash = hash_bytes(publish->topic.data, publish->topic.length, 1);
    hash = hash_bytes(publish->properties_raw.data, publish->properties_raw.length, hash);
    return hash_bytes(publish->payload.data, publish->payload.length, hash) | 1;
}

/* Of what came last under a packet identifier of QoS 2; 0: nothing is known. */
static uint64_t last_content(const struct link *link, uint16_t packet_id)
{
    const uint64_t *contents = link->contents[link->broker];
    return contents ? contents[packet_id] : 0;
}

static void note_content(struct link *link, uint16_t packet_id, uint64_t content)
{
    uint64_t **contents = &link->contents[link->broker];
    if (!*contents)
        *contents = calloc((size_t)UINT16_MAX + 1, sizeof **contents);
    if (*contents)
        (*contents)[packet_id] = content;
}

static void forget_contents(struct link *link)
{
    free(link->contents[link->broker]);
    link->contents[link->broker] = NULL;
}

/* ---- subscribing ---- */

static size_t filter_count(const struct link *link)
{
    return link->bridge ? link->bridge->filter_count : link->ingest->options.filter_count;
}

static struct mqtt_slice filter_slice(char text[FILTER_MAX], const struct link *link, size_t filter, bool shared)
{
    const char *plain = link->bridge ? link->bridge->filters[filter] : link->ingest->filters[filter];
    int length = shared ? snprintf(text, FILTER_MAX, shared_form, link->ingest->group, plain) : snprintf(text, FILTER_MAX, "%s", plain);
    return (struct mqtt_slice){(const uint8_t *)text, (uint32_t)length};
}

static bool has_filter(const struct link *link, size_t filter, bool shared)
{
    return shared || link->bridge || filter_connection((unsigned)filter, link->ingest->options.connection_count) == link->index;
}

static int unsubscribe_others(struct link *link, bool shared)
{
    static char texts[2 * INGEST_FILTERS_MAX][FILTER_MAX]; /* of the one thread */
    struct mqtt_slice filters[2 * INGEST_FILTERS_MAX];
    size_t count = 0;
    if (link->bridge)
        return 0; /* it never shares */
    for (size_t i = 0; i < filter_count(link); i++) {
        filters[count] = filter_slice(texts[count], link, i, !shared);
        count++;
        if (!shared && !has_filter(link, i, false)) {
            filters[count] = filter_slice(texts[count], link, i, false);
            count++;
        }
    }
    return mqtt_unsubscribe_encode(&link->out, broker_link_session(link)->version, ID_UNSUBSCRIBE, filters, count);
}

static int subscribe(struct link *link, bool shared)
{
    const struct ingest *ingest = link->ingest;
    static char texts[INGEST_FILTERS_MAX][FILTER_MAX];
    struct mqtt_subscription entries[INGEST_FILTERS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < filter_count(link); i++) {
        if (!has_filter(link, i, shared))
            continue;
        entries[count] = (struct mqtt_subscription){.qos = ingest->options.qos, .retain_handling = 1};
        if (link->bridge)
            entries[count] =
                (struct mqtt_subscription){.qos = link->bridge->filter_qos[i], .retain_as_published = true, .retain_handling = 1};
        entries[count].filter = filter_slice(texts[count], link, i, shared);
        count++;
    }
    if (count == 0)
        ingest_link_in_use(link);
    return count ? mqtt_subscribe_encode(&link->out, broker_link_session(link)->version, ID_SUBSCRIBE, entries, count) : 0;
}

static int push_completion(struct ingest *ingest, struct completion completion)
{
    uint64_t count = ingest->completions_next - ingest->completions_first;
    if (count == ingest->completion_size) {
        size_t size = count ? count * 2 : 1024;
        struct completion *ring = malloc(size * sizeof *ring);
        if (!ring)
            return ERR_NO_MEMORY;
        for (uint64_t i = ingest->completions_first; i != ingest->completions_next; i++)
            ring[i & (size - 1)] = ingest->completions[i & (ingest->completion_size - 1)];
        free(ingest->completions);
        ingest->completions = ring;
        ingest->completion_size = size;
    }
    ingest->completions[ingest->completions_next++ & (ingest->completion_size - 1)] = completion;
    ingest->completions_open++;
    return 0;
}

static void begin(struct link *link)
{
    struct ingest *ingest = link->ingest;
    int error;
    link->shared = is_shared(link);
    if (link->kept) {
        error = unsubscribe_others(link, link->shared);
        error = error ? error : subscribe(link, link->shared);
    } else {
        /* That the identifiers of the old session mean nothing any more must be on disk before there are new ones, so before anything is
         * subscribed to. */
        struct completion completion = {.link = (uint16_t)link->index, .generation = link->generation};
        error = notes_release(&ingest->notes, link->session_keys[link->broker], 0);
        error = error ? error : push_completion(ingest, completion);
    }
    broker_link_mark_dirty(link);
    if (error)
        broker_link_fail(link, false, "%s", error_text(error));
}

/* A Mosquitto says in a retained message that it is one. The answer to the ping behind the question tells that there was no answer to it.
 */
static void ask(struct link *link)
{
    struct mqtt_session *session = broker_link_session(link);
    struct mqtt_subscription version = {.filter = {(const uint8_t *)topic_version, sizeof topic_version - 1}};
    int error = mqtt_subscribe_encode(&link->out, session->version, ID_ASK, &version, 1);
    error = error ? error : mqtt_session_ping(session, link->ingest->now_ns, &link->out);
    link->asking = true;
    broker_link_mark_dirty(link);
    if (error)
        broker_link_fail(link, false, "%s", error_text(error));
}

static bool is_answer(const struct link *link, const struct mqtt_publish *publish)
{
    return link->asking && publish->topic.length == sizeof topic_version - 1 &&
           memcmp(publish->topic.data, topic_version, sizeof topic_version - 1) == 0;
}

static void on_answer(struct link *link, const struct mqtt_publish *publish)
{
    struct broker *broker = broker_link_broker(link);
    size_t length = sizeof name_of_mosquitto - 1;
    if (publish->payload.length < length || memcmp(publish->payload.data, name_of_mosquitto, length) != 0)
        return;
    if (broker->sharing == BROKER_UNKNOWN)
        diagnostics(DIAGNOSTICS_INFO, "ingest",
                    "broker %s is a Mosquitto, which forgets shared subscriptions when it restarts: each filter is given to one connection "
                    "instead (see ingest.shared)",
                    broker->name);
    broker->sharing = BROKER_FORGETS;
}

static void on_pong(struct link *link)
{
    if (!link->asking)
        return;
    struct broker *broker = broker_link_broker(link);
    struct mqtt_slice version = {(const uint8_t *)topic_version, sizeof topic_version - 1};
    link->asking = false;
    if (broker->sharing == BROKER_UNKNOWN)
        broker->sharing = BROKER_SHARES;
    if (mqtt_unsubscribe_encode(&link->out, broker_link_session(link)->version, ID_ASK, &version, 1))
        broker_link_fail(link, false, "%s", error_text(ERR_NO_MEMORY));
    else
        begin(link);
}

void intake_connected(struct link *link, const struct mqtt_connack *connack)
{
    if (link->bridge && !bridge_may_take(link)) {
        broker_link_fail(
            link, true,
            "it speaks only MQTT 3.1.1, in which what goes out by bridge.rules and comes in again could not be known; give both "
            "directions remote topics that do not meet");
        return;
    }
    link->kept = connack->session_present;
    link->shareable = connack->properties.shared_subscription_available;
    link->asking = false;
    if (!link->kept) {
        link->session_lives[link->broker]++; /* what is on its way to the disk under its identifiers is acknowledged to nobody */
        forget_contents(link);
    }
    if (may_share(link) && broker_link_broker(link)->sharing == BROKER_UNKNOWN)
        ask(link);
    else
        begin(link);
}

static void on_suback(struct link *link, const struct mqtt_suback *suback)
{
    struct broker *broker = broker_link_broker(link);
    bool shared = link->shared;
    if (suback->packet_id != ID_SUBSCRIBE)
        return;
    for (uint32_t i = 0; i < suback->codes.length; i++) {
        uint8_t code = suback->codes.data[i];
        if (code < 0x80)
            continue;
        if (shared && link->ingest->options.sharing == INGEST_SHARED_AUTO && (code == 0x9e || code == 0x80)) {
            broker->sharing = BROKER_REFUSES;
            broker_link_fail(link, false, "it refuses shared subscriptions; each filter is given to one connection instead");
            return;
        }
        broker_link_fail(link, true, "it refuses the subscription (code 0x%02x); see %s, and the broker's rules of access", code,
                         link->bridge ? "bridge.rules" : "ingest.filters");
        return;
    }
    ingest_link_in_use(link);
}

/* ---- messages ---- */

static void answer(struct link *link, enum mqtt_packet_type type, uint16_t packet_id, uint8_t reason)
{
    if (mqtt_ack_encode(&link->out, broker_link_session(link)->version, type, packet_id, reason))
        broker_link_fail(link, false, "%s", error_text(ERR_NO_MEMORY));
    else
        broker_link_mark_dirty(link);
}

static void acknowledge(struct link *link, unsigned qos, uint16_t packet_id)
{
    ingest_count(&link->ingest->counters.acknowledged, 1);
    if (qos == 2)
        mqtt_session_recorded(broker_link_session(link), packet_id);
    else
        mqtt_session_acknowledged(broker_link_session(link));
    answer(link, qos == 2 ? MQTT_PUBREC : MQTT_PUBACK, packet_id, 0);
}

static enum queue_destination destination(const struct ingest *ingest, const struct message *message)
{
    const char *filter = ingest->consumed_filter;
    bool consumed = filter && mqtt_topic_matches(filter, strlen(filter), message->topic, message->topic_length);
    return consumed ? QUEUE_CONSUMED : QUEUE_KEPT;
}

static int append(struct link *link, const struct mqtt_publish *publish, const struct message *message)
{
    struct ingest *ingest = link->ingest;
    struct queue_origin origin = {.session = link->session_keys[link->broker],
                                  .sequence = ++ingest->notes.sequence,
                                  .packet_id = publish->qos == 2 ? publish->packet_id : 0};
    uint64_t token = 0;
    if (publish->qos && !ingest->options.acknowledge_at_once)
        token = publish->qos == 2 ? token_message(TOKEN_PUBREC, link, link->session_lives[link->broker], publish->packet_id)
                                  : token_message(TOKEN_PUBACK, link, link->generation, publish->packet_id);
    int error = ingest->producer->ops->append_from(ingest->producer, destination(ingest, message), message, &origin, token);
    if (!error && publish->qos == 2) {
        ingest->notes.since_count++;
        ingest->notes.since_bytes += message->payload_length;
    }
    ingest->needs_submit = true;
    return error;
}

/* Whether it is what we publish ourselves, at the group's brokers. */
static bool is_own(const struct link *link, const struct mqtt_publish *publish)
{
    const struct ingest_options *options = &link->ingest->options;
    bool may_be = link->broker < options->group_count && options->skip;
    return may_be && options->skip(options->context, (const char *)publish->topic.data, publish->topic.length);
}

/* False: the disk is behind, or who listens is. */
static bool on_publish(struct link *link, const struct mqtt_publish *publish)
{
    struct ingest *ingest = link->ingest;
    if (ingest->producer->ops->backlog(ingest->producer) > ingest->options.backlog_max || ingest->quiet) {
        mqtt_session_forget(broker_link_session(link), publish);
        return false;
    }
    if (is_answer(link, publish)) {
        on_answer(link, publish);
        return true;
    }
    struct message message = {
        .time_ns = clock_wall_ns(),
        .topic = (const char *)publish->topic.data,
        .topic_length = publish->topic.length,
        .payload = publish->payload.data,
        .payload_length = publish->payload.length,
        .properties = publish->properties_raw.data,
        .properties_length = publish->properties_raw.length,
        .flags = publish->qos,
    };
    bool wanted = !is_own(link, publish) && (!link->bridge || bridge_take(link->bridge, ingest, publish, &message));
    if (wanted && publish->qos && ingest->options.is_held && ingest->options.is_held(ingest->options.context, &message)) {
        mqtt_session_forget(broker_link_session(link), publish);
        ingest->retry_ns = ingest->now_ns + INTAKE_RETRY_NS;
        return false;
    }
    ingest_count(&ingest->counters.received[publish->qos], 1);
    if (link->bridge && wanted)
        ingest_count(&link->bridge->received, 1);
    if (!wanted) {
        ingest_count(&ingest->counters.skipped, 1);
        if (publish->qos)
            acknowledge(link, publish->qos, publish->packet_id);
        return true;
    }
    /* A broker that was killed may come back with an older state than it had, and send again what it had been told was complete. All that
     * is left to know such a message by is its content. */
    uint64_t content = publish->qos == 2 ? content_of(publish) : 0;
    if (publish->qos == 2 && publish->dup && link->after_outage && content == last_content(link, publish->packet_id)) {
        ingest_count(&ingest->counters.repeated, 1);
        acknowledge(link, 2, publish->packet_id);
        return true;
    }
    uint64_t retained = 0;
    if (message.flags & MESSAGE_RETAIN && ingest->options.retain)
        retained = ingest->options.retain(ingest->options.context, &message);
    int error = append(link, publish, &message);
    if (error) {
        mqtt_session_forget(broker_link_session(link), publish);
        broker_link_fail(link, false, "a message of %u bytes could not be taken: %s", publish->payload.length, error_text(error));
        return true;
    }
    if (publish->qos == 2)
        note_content(link, publish->packet_id, content);
    if (publish->qos && ingest->options.acknowledge_at_once)
        acknowledge(link, publish->qos, publish->packet_id);
    if (ingest->options.deliver)
        ingest->options.deliver(ingest->options.context, &message, retained);
    return true;
}

/* ---- QoS 2: giving identifiers back ---- */

static void on_pubrel(struct link *link, const struct mqtt_event *event)
{
    struct ingest *ingest = link->ingest;
    uint16_t packet_id = event->ack.packet_id;
    if (event->reason) { /* nothing is held under it */
        answer(link, MQTT_PUBCOMP, packet_id, event->reason);
        return;
    }
    struct completion completion = {.link = (uint16_t)link->index, .packet_id = packet_id, .generation = link->generation};
    int error = notes_release(&ingest->notes, link->session_keys[link->broker], packet_id);
    if (!error)
        error = push_completion(ingest, completion);
    ingest->needs_submit = true;
    if (error)
        broker_link_fail(link, false, "%s", error_text(error));
}

int intake_write_notes(struct ingest *ingest)
{
    if (ingest->notes.released.length == 0)
        return 0;
    int error = notes_write(&ingest->notes, ingest->producer, (uint64_t)TOKEN_NOTE << 60 | ingest->completions_open);
    if (!error)
        ingest->completions_open = 0;
    return error;
}

static void complete(struct ingest *ingest, uint64_t count)
{
    while (count--) {
        struct completion completion = ingest->completions[ingest->completions_first++ & (ingest->completion_size - 1)];
        struct link *link = ingest->links[completion.link];
        if (link->generation != completion.generation)
            continue;
        if (completion.packet_id) {
            answer(link, MQTT_PUBCOMP, completion.packet_id, 0);
        } else {
            if (subscribe(link, link->shared))
                broker_link_fail(link, false, "%s", error_text(ERR_NO_MEMORY));
            broker_link_mark_dirty(link);
        }
    }
}

void intake_durable(struct ingest *ingest, uint64_t token)
{
    if (token >> 60 == TOKEN_NOTE) {
        complete(ingest, token & UINT32_MAX);
        return;
    }
    unsigned slot = token >> 48 & 0xfff, broker = slot % INGEST_BROKERS_MAX;
    uint32_t life = (uint32_t)(token >> 16);
    uint16_t packet_id = (uint16_t)token;
    struct link *link = ingest->links[slot / INGEST_BROKERS_MAX];
    bool here = link->state == LINK_OPEN && link->broker == broker;
    if (token >> 60 == TOKEN_PUBACK) {
        if (here && link->generation == life)
            acknowledge(link, 1, packet_id);
    } else if (link->session_lives[broker] == life) {
        if (here)
            acknowledge(link, 2, packet_id);
        else
            mqtt_session_recorded(&link->sessions[broker], packet_id); /* its PUBREC leaves when the broker sends it again */
    }
}

/* The same identifier again. Where such a broker has given it to another message meanwhile, that is a new one. */
static bool on_repeat(struct link *link, struct mqtt_event *event)
{
    uint64_t last = last_content(link, event->publish.packet_id);
    if (link->after_outage && event->recorded && last && last != content_of(&event->publish)) {
        mqtt_session_reused(broker_link_session(link), event->publish.packet_id);
        return on_publish(link, &event->publish);
    }
    ingest_count(&link->ingest->counters.repeated, 1);
    if (event->recorded)
        answer(link, MQTT_PUBREC, event->publish.packet_id, 0);
    return true;
}

bool intake_event(struct link *link, struct mqtt_event *event)
{
    switch (event->type) {
    case MQTT_EVENT_PUBLISH:
        return on_publish(link, &event->publish);
    case MQTT_EVENT_REPEAT:
        return on_repeat(link, event);
    case MQTT_EVENT_PUBREL:
        on_pubrel(link, event);
        return true;
    case MQTT_EVENT_SUBACK:
        on_suback(link, &event->suback);
        return true;
    case MQTT_EVENT_PONG:
        on_pong(link);
        return true;
    default: /* answers to what is not awaited */
        return true;
    }
}

/* ---- across a restart ---- */

struct taking {
    struct mqtt_session *session;
};

static int restore(void *context, uint16_t packet_id)
{
    struct taking *taking = context;
    return mqtt_session_restore_recorded(taking->session, packet_id);
}

int intake_take_held(struct ingest *ingest)
{
    for (unsigned i = 0; i < ingest->link_count; i++) {
        struct link *link = ingest->links[i];
        for (size_t b = 0; b < ingest->broker_count; b++) {
            const char *id = link->client_id;
            uint64_t hash = hash_bytes(id, strlen(id), ingest->brokers[b].key ^ ingest->notes.instance);
            link->session_keys[b] = (ingest->brokers[b].key & ~(uint64_t)UINT32_MAX) | (uint32_t)hash | 1; /* see broker_sent */
            struct taking taking = {&link->sessions[b]};
            int error = link->role == LINK_INTAKE ? notes_take_session(&ingest->notes, link->session_keys[b], restore, &taking) : 0;
            if (error)
                return error;
        }
    }
    return 0;
}

int intake_each_held(void *owner, notes_put *put, void *context)
{
    struct ingest *ingest = owner;
    int error = 0;
    for (unsigned i = 0; i < ingest->link_count && !error; i++) {
        const struct link *link = ingest->links[i];
        for (size_t b = 0; b < ingest->broker_count && link->role == LINK_INTAKE; b++)
            for (uint16_t id = 0; !error && (id = mqtt_id_map_next(&link->sessions[b].inbound, id));)
                if (mqtt_session_inbound(&link->sessions[b], id) == MQTT_INBOUND_RECORDED)
                    error = put(context, link->session_keys[b], id);
    }
    return error;
}
