/* Where a publish goes: into the queue, to the retained messages, and to the subscribers that live on this loop and on others.
 *
 * A retained message is put before its subscribers are looked up, and a subscription is made before it looks for retained messages
 * (subscribe.c): so whoever subscribes meanwhile gets it one way or the other. Puts are numbered, and a new subscription remembers how many
 * there were: up to that number messages come to it as retained, and from there on live, so none comes both ways. It goes to the disk
 * before the publish itself does, and so is there when that is acknowledged. */
#include "bus/persistent.h"

#include <string.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "mqtt/topic.h"

/* The cached match of a topic remembers it. */
static enum queue_destination choose_destination(const struct bus *bus, struct mqtt_slice topic)
{
    for (unsigned i = 0; i < BUS_INGEST_FILTERS_MAX; i++) {
        const char *filter = bus->ingest_filters[i];
        if (filter && mqtt_topic_matches(filter, strlen(filter), (const char *)topic.data, topic.length))
            return QUEUE_CONSUMED;
    }
    return QUEUE_KEPT;
}

/* Whether so much is on its way to the disk that nothing may be added. */
static bool journal_is_full(const struct loop *loop)
{
    return loop->producer->ops->backlog(loop->producer) > loop->bus->options.journal_backlog_max;
}

static struct message message_of(struct loop *loop, const struct mqtt_publish *publish)
{
    return (struct message){
        .offset = UINT64_MAX,
        .time_ns = loop_wall_ns(loop),
        .topic = (const char *)publish->topic.data,
        .payload = publish->payload.data,
        .properties = publish->properties_raw.data,
        .topic_length = publish->topic.length,
        .payload_length = publish->payload.length,
        .properties_length = publish->properties_raw.length,
        .flags = (uint8_t)(publish->qos | (publish->retain ? MESSAGE_RETAIN : 0)),
    };
}

/* The producer sends off by itself what would grow beyond QUEUE_GATHERED_MIN; what was retained is to be on its way by then. */
static void flush_retained_before(struct loop *loop, const struct message *message)
{
    size_t size = (size_t)message->topic_length + message->properties_length + message->payload_length + QUEUE_RECORD_OVERHEAD;
    if (loop->producer->ops->gathered(loop->producer) + size > QUEUE_GATHERED_MIN)
        loop_flush_retained(loop);
}

/* A message of QoS 1 or 2 that cannot be taken is not acknowledged, and its sender has to offer it again. */
static void give_up(struct connection *from, const struct mqtt_publish *publish, int error)
{
    DIAG_LIMITED(DIAGNOSTICS_ERROR, "bus",
                 CONNECTION_NAME " is disconnected and may send again: its message of %u bytes on %.*s could not be taken: %s",
                 CONNECTION_NAMED(from), publish->payload.length, (int)publish->topic.length, (const char *)publish->topic.data,
                 error_text(error));
    connection_close(from, CLOSE_LIMIT, error_mqtt_reason(error));
}

/* A message without a sender is a will. Whether it was appended. */
static bool append(struct loop *loop, struct connection *from, const struct mqtt_publish *publish, enum queue_destination to)
{
    const struct bus_options *options = &loop->bus->options;
    if (publish->qos == 0 && journal_is_full(loop)) {
        counter_add(&loop->counters.ingest_dropped[INGEST_JOURNAL], 1);
        return false;
    }
    struct message message = message_of(loop, publish);
    uint64_t token = from ? 0 : LOOP_WILL_TOKEN;
    if (loop->retains)
        flush_retained_before(loop, &message);
    if (from && publish->qos > 0 && !options->acknowledge_at_once)
        token = connection_token(from, publish->packet_id, publish->qos == 2);
    struct queue_origin origin;
    bool has_origin = from && from->persistent && publish->qos > 0;
    int error = has_origin ? persistent_origin(from, publish, &origin) : 0;
    if (!error && has_origin)
        error = loop->producer->ops->append_from(loop->producer, to, &message, &origin, token);
    else if (!error)
        error = loop->producer->ops->append(loop->producer, to, &message, token);
    loop->needs_submit = true;
    if (error && has_origin && publish->qos == 2)
        persistent_not_taken(from, publish->packet_id);
    if (error && from && publish->qos > 0) {
        give_up(from, publish, error);
    } else if (error) {
        counter_add(&loop->counters.ingest_dropped[INGEST_NO_MEMORY], 1);
    } else if (from && publish->qos > 0 && options->acknowledge_at_once) {
        connection_acknowledge(from, publish->packet_id, publish->qos == 2);
    }
    return !error;
}

#define NO_LOOP UINT32_MAX

static void note_undelivered(struct loop *to, const struct mqtt_publish *publish, int error, uint32_t count)
{
    atomic_fetch_add_explicit(&to->counters.dropped[error == ERR_LIMIT ? DROP_MAIL_FULL : DROP_NO_MEMORY], count, memory_order_relaxed);
    DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus", "%u deliveries on %.*s were dropped: the receiving event loop is overloaded", count,
                 (int)publish->topic.length, (const char *)publish->topic.data);
}

static bool is_live(const struct router_subscription *subscriber, const struct mqtt_publish *publish)
{
    return !publish->qos || !router_is_from_journal(subscriber);
}

/* Sends the message to the subscribers of `match` that live on other loops, one piece of mail a loop. Returns a loop whose mail is full, or
 * NO_LOOP. The subscribers of a loop follow each other. */
static unsigned deliver_remote(struct bus *bus, const struct router_match *match, const struct mqtt_publish *publish, uint64_t retained,
                               unsigned except)
{
    unsigned full = NO_LOOP;
    for (uint32_t s = 0, next; s < match->count; s = next) {
        unsigned loop = match->subscribers[s].loop;
        bool live = is_live(&match->subscribers[s], publish);
        for (next = s + 1; next < match->count && match->subscribers[next].loop == loop; next++)
            live = live || is_live(&match->subscribers[next], publish);
        if (loop == except || !live)
            continue;
        struct loop *to = &bus->loops[loop];
        int error = mail_deliver(to, publish, retained, match, s, next - s);
        if (atomic_load_explicit(&to->mail_bytes, memory_order_relaxed) > bus->options.mail_soft_max)
            full = loop;
        if (error)
            note_undelivered(to, publish, error, next - s);
    }
    return full;
}

static uint8_t congestion(const struct bus *bus, const struct router_subscription *subscriber)
{
    return atomic_load_explicit(&bus->loops[subscriber->loop].congested[subscriber->connection], memory_order_relaxed);
}

/* The member of a shared subscription whose turn it is: the next that has room, or else just the next. `loop` (may be NULL) knows which of
 * its own are still there. */
static const struct router_subscription *choose_member(const struct bus *bus, struct loop *loop, const struct router_match *match,
                                                       struct router_share *share)
{
    const struct router_subscription *members = match->members + share->first, *chosen = NULL;
    for (uint32_t i = 0; i < share->count; i++) {
        const struct router_subscription *member = &members[(share->turn + i) % share->count];
        const struct connection *here =
            loop && member->loop == loop->index ? connection_find(loop, member->connection, member->generation) : NULL;
        if (loop && member->loop == loop->index && (!here || here->closing))
            continue;
        bool has_room = !congestion(bus, member);
        if (!chosen || has_room)
            chosen = member;
        if (has_room)
            break;
    }
    share->turn = chosen ? (uint32_t)(chosen - members) + 1 : 0;
    return chosen;
}

/* Each shared subscription of the match gets the message once. Returns a loop whose mail is full, or NO_LOOP. `loop` NULL: the caller is
 * none. */
static unsigned deliver_shares(struct bus *bus, struct loop *loop, const struct router_match *match, const struct mqtt_publish *publish)
{
    unsigned full = NO_LOOP;
    for (uint32_t i = 0; i < match->share_count; i++) {
        if (publish->qos && match->shares[i].from_journal)
            continue;
        const struct router_subscription *member = choose_member(bus, loop, match, &match->shares[i]);
        if (member && loop && member->loop == loop->index) {
            deliver_local(loop, connection_find(loop, member->connection, member->generation), publish, 0, member, NULL);
        } else if (member) {
            unsigned remote = deliver_remote(bus, &(struct router_match){.subscribers = member, .count = 1}, publish, 0, NO_LOOP);
            full = remote != NO_LOOP ? remote : full;
        }
    }
    return full;
}

/* Whether no member of a shared subscription has room. */
static bool share_is_congested(const struct bus *bus, const struct router_match *match, const struct router_share *share, uint8_t most)
{
    for (uint32_t i = 0; i < share->count; i++) {
        const struct router_subscription *member = &match->members[share->first + i];
        if (!member->qos || congestion(bus, member) <= most)
            return false;
    }
    return true;
}

/* Who is in the way of a publish of QoS 1 or 2, for loop_pause. */
struct obstacle {
    enum pause_reason reason;
    uint64_t awaited;
};

/* Whether there is anybody. The mail of loop `here`, its own, is not looked at; owes: it owes acknowledgements. */
static bool find_obstacle(const struct bus *bus, unsigned here, const struct router_match *match, bool owes, struct obstacle *found)
{
    bool full = memory_level(bus) > (owes ? MEMORY_FULL : MEMORY_PRESSED);
    for (uint32_t i = 0; i < match->count; i++) {
        const struct router_subscription *subscriber = &match->subscribers[i];
        if (!subscriber->qos || subscriber->options & ROUTER_FROM_JOURNAL)
            continue;
        if (subscriber->loop != here &&
            atomic_load_explicit(&bus->loops[subscriber->loop].mail_bytes, memory_order_relaxed) > bus->options.mail_soft_max) {
            *found = (struct obstacle){PAUSE_MAIL, subscriber->loop};
            return true;
        }
        if (full || congestion(bus, subscriber) > owes) {
            *found = full ? (struct obstacle){PAUSE_MEMORY, 0}
                          : (struct obstacle){PAUSE_SUBSCRIBER, connection_key(subscriber->loop, subscriber->connection)};
            return true;
        }
    }
    for (uint32_t i = 0; i < match->share_count; i++) {
        if (!match->shares[i].from_journal && (full || share_is_congested(bus, match, &match->shares[i], owes))) {
            *found = full ? (struct obstacle){PAUSE_MEMORY, 0} : (struct obstacle){PAUSE_SUBSCRIBER, LOOP_AWAIT_ANY};
            return true;
        }
    }
    return false;
}

/* Whether a publish of QoS 1 or 2 has to wait; pauses its sender then. */
static bool must_wait(struct connection *from, const struct router_match *match)
{
    const struct loop *loop = from->loop;
    struct obstacle obstacle = {PAUSE_JOURNAL, 0};
    bool waits = journal_is_full(loop) || (match && find_obstacle(loop->bus, loop->index, match, from->waiting.length > 0, &obstacle));
    if (waits)
        loop_pause(from, obstacle.reason, obstacle.awaited);
    return waits;
}

/* To its stream and its subscribers. A message without a sender is a will. Whether it was appended to a stream. */
static bool distribute(struct loop *loop, struct connection *from, const struct mqtt_publish *publish, uint64_t retained,
                       struct router_match *match)
{
    struct bus *bus = loop->bus;
    bool appended = false;
    enum queue_destination destination =
        match && match->user_set ? (enum queue_destination)match->user : choose_destination(bus, publish->topic);
    if (match && !match->user_set)
        router_match_set_user(match, destination);
    if (publish->qos > 0 || destination == QUEUE_CONSUMED)
        appended = append(loop, from, publish, destination);
    if (!match) {
        deliver_note_drop(loop, DROP_NO_MEMORY); /* who wanted it cannot be known */
        return appended;
    }
    uint32_t local = 0;
    for (uint32_t i = 0; i < match->count; i++) {
        const struct router_subscription *subscriber = &match->subscribers[i];
        if (subscriber->loop != loop->index)
            continue;
        local++;
        struct connection *to = connection_find(loop, subscriber->connection, subscriber->generation);
        if (to && !(subscriber->options & (to == from ? ROUTER_NO_LOCAL : ROUTER_OWN_ONLY)))
            deliver_local(loop, to, publish, retained, subscriber, match->identifiers);
    }
    unsigned full = local < match->count ? deliver_remote(bus, match, publish, retained, loop->index) : NO_LOOP;
    if (match->share_count) {
        unsigned also = deliver_shares(bus, loop, match, publish);
        full = also != NO_LOOP ? also : full;
    }
    if (full != NO_LOOP && from)
        loop_pause(from, PAUSE_MAIL, full);
    return appended;
}

/* Puts a message among the retained ones, or takes it from there. False when it was refused or its sender was. */
static bool retain(struct loop *loop, struct connection *from, const struct mqtt_publish *publish, uint64_t *retained)
{
    struct message message = message_of(loop, publish);
    int error = retained_put(loop->bus->retained, &message, retained);
    if (error == 0) {
        loop->retains = loop->needs_submit = true;
        return true;
    }
    bool acknowledged = from && publish->qos > 0;
    if (error == ERR_NO_MEMORY && acknowledged) {
        give_up(from, publish, error);
        return false;
    }
    counter_add(&loop->counters.retained_dropped[error == ERR_LIMIT ? RETAINED_LIMIT : RETAINED_OVERLOADED], 1);
    if (error == ERR_LIMIT)
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus", "a message on %.*s was not retained: bus.retained_max or bus.retained_size_max is reached",
                     (int)publish->topic.length, (const char *)publish->topic.data);
    if (error == ERR_LIMIT && acknowledged && from->session.version == MQTT_VERSION_5_0) {
        connection_refuse(from, publish, 0x97, "there is no room for another retained message");
        return false;
    }
    /* Nobody can be told. Others get it now; so the one before it is no more what the topic says. */
    message.payload_length = 0;
    message.flags = (uint8_t)((message.flags & ~MESSAGE_QOS_MASK) | 1);
    uint64_t removed;
    if (retained_put(loop->bus->retained, &message, &removed) == 0)
        loop->retains = loop->needs_submit = true;
    return true;
}

/* The message as others get it: a topic alias is between its sender and us. */
static int without_alias(struct loop *loop, const struct mqtt_publish *publish, struct mqtt_publish *out)
{
    buffer_clear(&loop->properties_in);
    int error = mqtt_properties_without(publish->properties_raw, MQTT_PROPERTY_TOPIC_ALIAS, &loop->properties_in);
    if (error)
        return error;
    *out = *publish;
    out->topic_alias = 0;
    out->properties_raw = (struct mqtt_slice){loop->properties_in.data, (uint32_t)loop->properties_in.length};
    if (publish->has_message_expiry)
        mqtt_properties_expiry(out->properties_raw, &out->message_expiry_interval, &out->message_expiry_at);
    return 0;
}

bool deliver_is_reserved(struct mqtt_slice topic)
{
    static const char own[] = "$SYS";
    size_t length = sizeof own - 1;
    return topic.data[0] == '$' && topic.length >= length && memcmp(topic.data, own, length) == 0 &&
           (topic.length == length || topic.data[length] == '/');
}

static void refuse_reserved(struct connection *from, const struct mqtt_publish *publish)
{
    counter_add(&from->loop->counters.received[publish->qos], 1);
    counter_add(&from->loop->counters.refused[REFUSED_RESERVED], 1);
    if (publish->qos > 0)
        connection_refuse(from, publish, 0x87, "topics below $SYS are the server's");
}

bool deliver_publish(struct connection *from, const struct mqtt_publish *publish)
{
    struct loop *loop = from->loop;
    struct bus *bus = loop->bus;
    const char *topic = (const char *)publish->topic.data;
    struct mqtt_publish plain;
    struct router_match *match = router_match(bus->router, loop->cache, topic, publish->topic.length);
    if (topic[0] == '$' && deliver_is_reserved(publish->topic)) {
        refuse_reserved(from, publish);
        return true;
    }
    if (publish->qos > 0 && must_wait(from, match))
        return false;
    if (publish->topic_alias) {
        int error = without_alias(loop, publish, &plain);
        if (error) {
            connection_close(from, CLOSE_LIMIT, error_mqtt_reason(error));
            return true;
        }
        publish = &plain;
    }
    counter_add(&loop->counters.received[publish->qos], 1);
    uint64_t retained = 0;
    if (publish->retain) {
        if (!retain(loop, from, publish, &retained))
            return true;
        match = router_match(bus->router, loop->cache, topic, publish->topic.length);
    }
    distribute(loop, from, publish, retained, match);
    return true;
}

bool deliver_will(struct loop *loop, const struct mqtt_publish *will)
{
    counter_add(&loop->counters.received[will->qos], 1);
    uint64_t retained = 0;
    if (will->retain)
        retain(loop, NULL, will, &retained);
    return distribute(loop, NULL, will, retained,
                      router_match(loop->bus->router, loop->cache, (const char *)will->topic.data, will->topic.length));
}

void deliver_from_server(struct bus *bus, const struct mqtt_publish *publish, uint64_t retained)
{
    pthread_mutex_lock(&bus->publish_lock);
    const struct router_match *match =
        router_match(bus->router, bus->publish_cache, (const char *)publish->topic.data, publish->topic.length);
    if (match && match->count)
        deliver_remote(bus, match, publish, retained, NO_LOOP);
    if (match && match->share_count)
        deliver_shares(bus, NULL, match, publish);
    pthread_mutex_unlock(&bus->publish_lock);
}

bool bus_is_held(struct bus *bus, const char *topic, size_t length)
{
    struct obstacle obstacle;
    pthread_mutex_lock(&bus->publish_lock);
    const struct router_match *match = router_match(bus->router, bus->publish_cache, topic, length);
    bool held = match && find_obstacle(bus, NO_LOOP, match, false, &obstacle);
    pthread_mutex_unlock(&bus->publish_lock);
    return held;
}

void bus_publish(struct bus *bus, const struct message *message, uint64_t retained)
{
    struct mqtt_publish publish = {
        .retain = message->flags & MESSAGE_RETAIN,
        .qos = message->flags & MESSAGE_QOS_MASK,
        .topic = {(const uint8_t *)message->topic, message->topic_length},
        .payload = {message->payload, message->payload_length},
        .properties_raw = {message->properties, message->properties_length},
    };
    publish.has_message_expiry =
        publish.properties_raw.length &&
        mqtt_properties_expiry(publish.properties_raw, &publish.message_expiry_interval, &publish.message_expiry_at);
    deliver_from_server(bus, &publish, retained);
}

uint64_t bus_retain(struct bus *bus, const struct message *message)
{
    uint64_t number = 0, removed;
    int error = retained_put(bus->retained, message, &number);
    if (error) { /* others get it now, so the one before it is no more what the topic says */
        struct message nothing = *message;
        nothing.payload_length = 0;
        nothing.flags = MESSAGE_RETAIN | 1;
        retained_put(bus->retained, &nothing, &removed);
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus", "a message on %.*s was not retained: %s", (int)message->topic_length, message->topic,
                     error == ERR_LIMIT ? "bus.retained_max or bus.retained_size_max is reached" : error_text(error));
    }
    retained_flush(bus->retained);
    return number;
}
