/* Wills: kept with their connection, published when it ends without DISCONNECT (or with reason 0x04).
 *
 * A will that has a delay (MQTT 5 section 3.1.3.2.2) outlives its connection: it stands in the bus's table by client identifier, and on the
 * loop of its connection a timer waits for it, but no longer than the session lasts. A client that comes back before takes it out of the
 * table: when it goes on with its session nobody hears of the will, when it begins a new one the old session has ended, and the will is
 * published at once. Wills that wait are lost with the server, as are those of clients that are connected when it stops. */
#include "bus/persistent.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { WILL_PROPERTIES_MAX = 64 << 10, WILL_DELAYED_BYTES_MAX = 64 << 20, WILL_STEP_MS = 50 };

struct will {
    struct will *next; /* while those that are due are gathered */
    uint32_t delay_s;
    uint8_t qos;
    bool retain;
    uint32_t topic_length, properties_length, payload_length;
    uint8_t bytes[]; /* topic, properties, payload */
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

void will_forget(struct connection *connection)
{
    free(connection->will);
    connection->will = NULL;
}

/* Takes the will. */
static void publish(struct loop *loop, struct will *will)
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
    deliver_will(loop, &message);
    free(will);
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
    struct will *following;
    LL_FOREACH_SAFE(due, will, following)
    publish(loop, will);
    uv_async_send(&loop->wake); /* what was published is sent at the end of a turn */
}

/* Makes the will one that waits; false: it does not. */
static bool delay(struct connection *connection, uint32_t delay_s)
{
    struct loop *loop = connection->loop;
    struct bus *bus = loop->bus;
    struct will *will = connection->will;
    size_t id_length = strlen(connection->client->id);
    size_t user_size = strlen(connection->client->user) + 1;
    struct delayed_will *delayed = malloc(sizeof *delayed + id_length + 1 + user_size), *older;
    if (!delayed)
        return false;
    *delayed = (struct delayed_will){.loop = loop, .due_ns = (uv_now(&loop->uv) + (uint64_t)delay_s * 1000) * 1000000u, .will = will};
    delayed->bytes = sizeof *delayed + sizeof *will + will->topic_length + will->properties_length + will->payload_length + id_length;
    memcpy(delayed->id, connection->client->id, id_length + 1);
    delayed->user = memcpy(delayed->id + id_length + 1, connection->client->user, user_size);
    HASH_FIND(hh, bus->wills, delayed->id, id_length, older);
    if (older || bus->wills_bytes + delayed->bytes > WILL_DELAYED_BYTES_MAX) {
        free(delayed);
        return false;
    }
    HASH_ADD_KEYPTR(hh, bus->wills, delayed->id, id_length, delayed);
    bus->wills_bytes += delayed->bytes;
    DL_APPEND2(loop->delayed_wills, delayed, before, next);
    set_timer(loop, delayed->due_ns);
    return true;
}

void will_leave(struct connection *connection)
{
    struct will *will = connection->will;
    struct loop *loop = connection->loop;
    struct bus *bus = loop->bus;
    if (!will)
        return;
    if (!connection->session.accepted) { /* it was never let in */
        will_forget(connection);
        return;
    }
    if (connection->door.bound && !door_will(connection, (struct mqtt_slice){will->bytes, will->topic_length})) {
        will_forget(connection);
        return;
    }
    uint32_t expiry_s = persistent_expiry_s(connection), delay_s = will->delay_s < expiry_s ? will->delay_s : expiry_s;
    bool resumed = false, delayed = false;
    if (delay_s && connection->client && !loop->stopping) {
        pthread_mutex_lock(&bus->clients_lock);
        bool replaced = clients_is_replaced(connection, &resumed);
        delayed = !replaced && delay(connection, delay_s);
        pthread_mutex_unlock(&bus->clients_lock);
    }
    connection->will = NULL;
    if (!delayed && resumed)
        free(will);
    else if (!delayed)
        publish(loop, will);
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
}
