/* Wills: kept with their connection, published when it ends without DISCONNECT (or with reason 0x04).
 *
 * A will that has a delay (MQTT 5 section 3.1.3.2.2) outlives its connection: it stands in the bus's table by client identifier, and on the
 * loop of its connection a timer waits for it, but no longer than the session lasts. A client that comes back before takes it out of the
 * table: when it goes on with its session nobody hears of the will, when it begins a new one the old session has ended, and the will is
 * published at once.
 *
 * The will of a persistent session is in its record too, from before the CONNACK until it was published or withdrawn. So it outlives the
 * server: after a start its delay is counted on from when the client left, or from that start when it had not. It is published first, and
 * taken from the record when its message is durable: while the disk is short that is late, and notes overtake messages. Who is killed in
 * between publishes it twice. Without such a session a will is published when the server stops, and lost when it is killed. */
#include "bus/persistent.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { WILL_PROPERTIES_MAX = 64 << 10, WILL_DELAYED_BYTES_MAX = 64 << 20, WILL_STEP_MS = 50 };

struct will {
    struct will *prev, *next; /* in loop->sent_wills; `next` also while those that are due are gathered */
    uint64_t session, serial; /* sessions_drop_will; serial 0: it is in no record */
    uint32_t delay_s;
    uint8_t qos;
    bool retain;
    uint32_t topic_length, properties_length, payload_length;
    uint8_t bytes[]; /* topic, properties, payload */
};

/* As it is in a record, integers little-endian; topic, properties and payload follow. */
struct __attribute__((packed)) recorded_will {
    uint32_t delay_s, topic_length, properties_length, payload_length;
    uint8_t qos, retain;
};

/* One that waits; under clients_lock. */
struct delayed_will {
    UT_hash_handle hh;
    struct loop *loop;
    struct delayed_will *before, *next; /* in loop->delayed_wills */
    uint64_t due_ns;                    /* monotonic */
    struct will *will;
    size_t bytes;
    const char *user; /* behind `id` */
    char id[];
};

static int make(const struct mqtt_connect *connect, struct mqtt_slice properties, struct will **out)
{
    struct will *will = malloc(sizeof *will + connect->will_topic.length + properties.length + connect->will_payload.length);
    if (!will)
        return ERR_NO_MEMORY;
    *will = (struct will){.delay_s = connect->will_properties.will_delay_interval,
                          .qos = connect->will_qos,
                          .retain = connect->will_retain,
                          .topic_length = connect->will_topic.length,
                          .properties_length = properties.length,
                          .payload_length = connect->will_payload.length};
    uint8_t *at = will->bytes;
    memcpy(at, connect->will_topic.data, will->topic_length);
    at += will->topic_length;
    if (properties.length)
        memcpy(at, properties.data, properties.length);
    at += properties.length;
    if (will->payload_length)
        memcpy(at, connect->will_payload.data, will->payload_length);
    *out = will;
    return 0;
}

int will_keep(struct connection *connection, const struct mqtt_connect *connect)
{
    if (!connect->will)
        return 0;
    if (deliver_is_reserved(connect->will_topic))
        return ERR_PERMISSION;
    struct buffer properties;
    buffer_init(&properties, WILL_PROPERTIES_MAX);
    int error = mqtt_properties_without(connect->will_properties.raw, MQTT_PROPERTY_WILL_DELAY, &properties);
    if (!error)
        error = make(connect, (struct mqtt_slice){properties.data, (uint32_t)properties.length}, &connection->will);
    buffer_fini(&properties);
    return error;
}

/* ---- in the session's record ---- */

static void drop(struct loop *loop, const struct will *will, uint64_t *place)
{
    if (!will->serial)
        return;
    sessions_drop_will(loop->bus->sessions, will->session, will->serial, place);
    loop->notes = loop->needs_submit = true;
}

static int keep(struct sessions *sessions, struct session *session, struct will *will, uint64_t *place)
{
    const size_t length = (size_t)will->topic_length + will->properties_length + will->payload_length;
    struct recorded_will head = {.delay_s = htole32(will->delay_s),
                                 .topic_length = htole32(will->topic_length),
                                 .properties_length = htole32(will->properties_length),
                                 .payload_length = htole32(will->payload_length),
                                 .qos = will->qos,
                                 .retain = will->retain};
    struct buffer record;
    buffer_init(&record, sizeof head + length);
    int error = buffer_append(&record, &head, sizeof head);
    if (!error)
        error = buffer_append(&record, will->bytes, length);
    if (!error)
        error = sessions_keep_will(sessions, session, record.data, record.length, &will->serial, place);
    buffer_fini(&record);
    if (!error)
        will->session = session_number(session);
    return error;
}

int will_note(struct connection *connection, struct session *session, uint64_t *place)
{
    struct loop *loop = connection->loop;
    struct sessions *sessions = loop->bus->sessions;
    const struct session_copy *older = sessions_copy(sessions, session, SESSIONS_WILL);
    *place = 0;
    if (!connection->will && !older)
        return 0;
    loop->notes = loop->needs_submit = true;
    if (connection->will)
        return keep(sessions, session, connection->will, place);
    sessions_drop_will(sessions, session_number(session), older->serial, place);
    return 0;
}

void will_forget(struct connection *connection)
{
    if (connection->will)
        drop(connection->loop, connection->will, NULL);
    free(connection->will);
    connection->will = NULL;
}

void will_withdraw(struct connection *connection)
{
    uint64_t place = 0;
    if (connection->will)
        drop(connection->loop, connection->will, &place);
    free(connection->will);
    connection->will = NULL;
    if (place && connection->persistent)
        persistent_hold_back(connection, connection->out.length, place);
}

/* ---- publishing ---- */

/* Whether will_durable is to follow. */
static bool deliver(struct loop *loop, const struct will *will)
{
    struct mqtt_publish message = {
        .qos = will->qos,
        .retain = will->retain,
        .topic = {will->bytes, will->topic_length},
        .properties_raw = {will->bytes + will->topic_length, will->properties_length},
        .payload = {will->bytes + will->topic_length + will->properties_length, will->payload_length},
    };
    message.has_message_expiry =
        mqtt_properties_expiry(message.properties_raw, &message.message_expiry_interval, &message.message_expiry_at);
    return deliver_will(loop, &message);
}

static void forget(struct loop *loop, struct will *will)
{
    drop(loop, will, NULL);
    free(will);
}

/* What it says is the journal's now. */
static void await_durable(struct loop *loop, struct will *will)
{
    struct will *less = realloc(will, sizeof *will);
    will = less ? less : will;
    DL_APPEND(loop->sent_wills, will);
}

/* Takes the wills of a list. They are on their way to the disk before a session whose end comes with them is said to have ended. */
static void publish(struct loop *loop, struct will *list)
{
    bool recorded = false;
    struct will *will, *next;
    LL_FOREACH_SAFE(list, will, next)
    {
        recorded = recorded || will->serial;
        if (deliver(loop, will)) {
            await_durable(loop, will);
        } else {
            loop_flush_retained(loop);
            forget(loop, will);
        }
    }
    if (recorded)
        loop_submit(loop);
}

void will_durable(struct loop *loop)
{
    struct will *will = loop->sent_wills;
    DL_DELETE(loop->sent_wills, will);
    forget(loop, will);
}

/* ---- those that wait ---- */

/* Under clients_lock. It waits no more. */
static struct will *take(struct bus *bus, struct delayed_will *delayed)
{
    struct will *will = delayed->will;
    HASH_DEL(bus->wills, delayed);
    DL_DELETE2(delayed->loop->delayed_wills, delayed, before, next);
    bus->wills_bytes -= delayed->bytes;
    free(delayed);
    return will;
}

static void on_due(uv_timer_t *timer);

/* Has the timer come no later than then, but not sooner than WILL_STEP_MS from now: each time it comes it looks at all that wait. */
static void set_timer(struct loop *loop, uint64_t due_ns)
{
    uint64_t now_ns = uv_now(&loop->uv) * 1000000u, wait_ms = due_ns <= now_ns ? 0 : (due_ns - now_ns + 999999u) / 1000000u;
    if (wait_ms < WILL_STEP_MS)
        wait_ms = WILL_STEP_MS;
    if (!uv_is_active((const uv_handle_t *)&loop->wills) || uv_timer_get_due_in(&loop->wills) > wait_ms)
        uv_timer_start(&loop->wills, on_due, wait_ms, 0);
}

static void on_due(uv_timer_t *timer)
{
    struct loop *loop = timer->data;
    struct bus *bus = loop->bus;
    uint64_t now_ns = uv_now(&loop->uv) * 1000000u, next_ns = UINT64_MAX;
    struct delayed_will *delayed, *next;
    struct will *due = NULL, *will;
    pthread_mutex_lock(&bus->clients_lock);
    DL_FOREACH_SAFE2(loop->delayed_wills, delayed, next, next)
    {
        if (delayed->due_ns > now_ns) {
            next_ns = delayed->due_ns < next_ns ? delayed->due_ns : next_ns;
            continue;
        }
        will = take(bus, delayed);
        LL_PREPEND(due, will);
    }
    pthread_mutex_unlock(&bus->clients_lock);
    if (next_ns != UINT64_MAX)
        set_timer(loop, next_ns);
    publish(loop, due);
    uv_async_send(&loop->wake); /* what was published is sent at the end of a turn */
}

static bool has_room(const struct bus *bus, const struct delayed_will *delayed)
{
    return bus->wills_bytes + delayed->bytes <= WILL_DELAYED_BYTES_MAX;
}

/* Under clients_lock: one that waits from now on, where there is room if it needs any. False: it does not, and is the caller's. */
static bool wait_for(struct loop *loop, struct will *will, const char *id, const char *user, uint64_t due_ns, bool needs_room)
{
    struct bus *bus = loop->bus;
    size_t id_length = strlen(id), user_size = strlen(user) + 1;
    struct delayed_will *delayed = malloc(sizeof *delayed + id_length + 1 + user_size), *older;
    if (!delayed)
        return false;
    *delayed = (struct delayed_will){.loop = loop, .due_ns = due_ns, .will = will};
    delayed->bytes = sizeof *delayed + sizeof *will + will->topic_length + will->properties_length + will->payload_length + id_length;
    memcpy(delayed->id, id, id_length + 1);
    delayed->user = memcpy(delayed->id + id_length + 1, user, user_size);
    HASH_FIND(hh, bus->wills, delayed->id, id_length, older);
    if (older || (needs_room && !has_room(bus, delayed))) {
        free(delayed);
        return false;
    }
    HASH_ADD_KEYPTR(hh, bus->wills, delayed->id, id_length, delayed);
    bus->wills_bytes += delayed->bytes;
    DL_APPEND2(loop->delayed_wills, delayed, before, next);
    set_timer(loop, due_ns);
    return true;
}

/* How long it waits for its client. */
static uint32_t delay_of(const struct connection *connection)
{
    uint32_t expiry_s = persistent_expiry_s(connection), delay_s = connection->will->delay_s;
    return delay_s < expiry_s ? delay_s : expiry_s;
}

/* Whether the connection's will may be published at its end; if not it is forgotten. */
static bool may_leave(struct connection *connection)
{
    const struct will *will = connection->will;
    if (!will)
        return false;
    bool allowed = connection->session.accepted; /* or else it was never let in */
    if (allowed && connection->door.bound)
        allowed = door_will(connection, (struct mqtt_slice){will->bytes, will->topic_length});
    if (!allowed)
        will_forget(connection);
    return allowed;
}

void will_leave(struct connection *connection)
{
    struct loop *loop = connection->loop;
    struct bus *bus = loop->bus;
    if (!may_leave(connection))
        return;
    struct will *will = connection->will;
    uint32_t delay_s = delay_of(connection);
    bool resumed = false, delayed = false;
    if (delay_s && connection->client && !loop->stopping) {
        uint64_t due_ns = (uv_now(&loop->uv) + (uint64_t)delay_s * 1000) * 1000000u;
        pthread_mutex_lock(&bus->clients_lock);
        bool replaced = clients_is_replaced(connection, &resumed);
        delayed = !replaced && wait_for(loop, will, connection->client->id, connection->client->user, due_ns, true);
        pthread_mutex_unlock(&bus->clients_lock);
    }
    connection->will = NULL;
    if (!delayed && resumed)
        free(will);
    else if (!delayed)
        publish(loop, will);
}

void will_stop(struct loop *loop)
{
    struct will *list = NULL;
    for (uint32_t i = 0; i < loop->slot_count; i++) {
        struct connection *connection = loop->slots[i];
        if (!connection || !may_leave(connection))
            continue;
        if (connection->will->serial && delay_of(connection))
            free(connection->will); /* its record counts on */
        else
            LL_PREPEND(list, connection->will);
        connection->will = NULL;
    }
    publish(loop, list);
}

/* ---- the start ---- */

static int read_record(const struct session_copy *copy, struct will **out)
{
    struct recorded_will head;
    if (copy->length < sizeof head)
        return ERR_CORRUPT;
    memcpy(&head, copy->bytes, sizeof head);
    const size_t length = copy->length - sizeof head;
    if ((uint64_t)le32toh(head.topic_length) + le32toh(head.properties_length) + le32toh(head.payload_length) != length || head.qos > 2)
        return ERR_CORRUPT;
    struct will *will = malloc(sizeof *will + length);
    if (!will)
        return ERR_NO_MEMORY;
    *will = (struct will){.delay_s = le32toh(head.delay_s),
                          .qos = head.qos,
                          .retain = head.retain,
                          .topic_length = le32toh(head.topic_length),
                          .properties_length = le32toh(head.properties_length),
                          .payload_length = le32toh(head.payload_length)};
    memcpy(will->bytes, copy->bytes + sizeof head, length);
    *out = will;
    return 0;
}

struct taking_up {
    struct loop *loop;
    struct will *due;
};

static int take_up(void *context, const struct session_will *recorded)
{
    struct taking_up *taking_up = context;
    struct loop *loop = taking_up->loop;
    struct will *will;
    int error = read_record(recorded->copy, &will);
    if (error)
        return error;
    will->session = recorded->number;
    will->serial = recorded->copy->serial;
    uint64_t delay_s = will->delay_s < recorded->expiry_s ? will->delay_s : recorded->expiry_s;
    uint64_t due_ns = recorded->left_ns + delay_s * 1000000000u, wall_ns = loop_wall_ns(loop);
    if (due_ns <= wall_ns) {
        LL_PREPEND(taking_up->due, will);
        return 0;
    }
    due_ns = uv_now(&loop->uv) * 1000000u + due_ns - wall_ns;
    if (wait_for(loop, will, recorded->id, recorded->user, due_ns, false))
        return 0;
    free(will);
    return ERR_NO_MEMORY;
}

int will_start(struct loop *loop)
{
    struct bus *bus = loop->bus;
    if (!bus->sessions)
        return 0;
    struct taking_up taking_up = {.loop = loop};
    pthread_mutex_lock(&bus->clients_lock);
    int error = sessions_visit_wills(bus->sessions, take_up, &taking_up);
    pthread_mutex_unlock(&bus->clients_lock);
    publish(loop, taking_up.due);
    loop->turn_wall_ns = 0;
    uv_async_send(&loop->wake); /* what was noted is sent off at the end of a turn */
    return error;
}

struct will *will_find(struct bus *bus, const char *id, size_t length, const char *user)
{
    struct delayed_will *delayed;
    HASH_FIND(hh, bus->wills, id, length, delayed);
    return delayed && strcmp(delayed->user, user) == 0 ? take(bus, delayed) : NULL;
}

void will_settle(struct loop *loop, struct will *will, bool session_ended)
{
    if (will && session_ended)
        publish(loop, will);
    else
        free(will);
}

void will_fini(struct loop *loop)
{
    struct delayed_will *delayed, *next;
    DL_FOREACH_SAFE2(loop->delayed_wills, delayed, next, next)
    free(take(loop->bus, delayed));
    struct will *will, *after;
    DL_FOREACH_SAFE(loop->sent_wills, will, after)
    free(will); /* the next start publishes it again */
}
