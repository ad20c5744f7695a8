/* The server's own topics, by the names that operators know from other brokers: $SYS/broker/... Each has a value that a new subscriber gets
 * at once, as with retained messages, and that is published again when it has changed. They are no part of the stream of retained messages,
 * and a filter that begins with a wildcard does not match them.
 *
 * A timer on the first loop makes them all. It also removes what has expired among the retained messages and the sessions. */
#include "bus/persistent.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/version.h"

enum { SYS_EXPIRE_S = 10, SYS_SESSIONS_MS = 2000 /* while there are any */, SYS_TEXT_MAX = 64, SYS_TOPIC_MAX = 96 };

#define SYS_EARLY_NS UINT64_C(100000000) /* by which the timer may come before its time */

enum value {
    VALUE_VERSION,
    VALUE_UPTIME,
    VALUE_CONNECTED,
    VALUE_DISCONNECTED,
    VALUE_EXPIRED,
    VALUE_TOTAL,
    VALUE_MAXIMUM,
    VALUE_SUBSCRIPTIONS,
    VALUE_RETAINED,
    VALUE_MESSAGES_RECEIVED,
    VALUE_MESSAGES_SENT,
    VALUE_PUBLISH_RECEIVED,
    VALUE_PUBLISH_SENT,
    VALUE_PUBLISH_DROPPED,
    VALUE_BYTES_RECEIVED,
    VALUE_BYTES_SENT,
    VALUE_SOCKETS,
    VALUE_COUNT
};

/* `load`: its averages over 1, 5 and 15 minutes, per minute, are published besides. */
static const struct row {
    const char *topic;
    const char *load;
} rows[VALUE_COUNT] = {
    [VALUE_VERSION] = {"version", NULL},
    [VALUE_UPTIME] = {"uptime", NULL},
    [VALUE_CONNECTED] = {"clients/connected", NULL},
    [VALUE_DISCONNECTED] = {"clients/disconnected", NULL},
    [VALUE_EXPIRED] = {"clients/expired", NULL},
    [VALUE_TOTAL] = {"clients/total", NULL},
    [VALUE_MAXIMUM] = {"clients/maximum", NULL},
    [VALUE_SUBSCRIPTIONS] = {"subscriptions/count", NULL},
    [VALUE_RETAINED] = {"retained messages/count", NULL},
    [VALUE_MESSAGES_RECEIVED] = {"messages/received", "messages/received"},
    [VALUE_MESSAGES_SENT] = {"messages/sent", "messages/sent"},
    [VALUE_PUBLISH_RECEIVED] = {"publish/messages/received", "publish/received"},
    [VALUE_PUBLISH_SENT] = {"publish/messages/sent", "publish/sent"},
    [VALUE_PUBLISH_DROPPED] = {"publish/messages/dropped", "publish/dropped"},
    [VALUE_BYTES_RECEIVED] = {"bytes/received", "bytes/received"},
    [VALUE_BYTES_SENT] = {"bytes/sent", "bytes/sent"},
    [VALUE_SOCKETS] = {NULL, "connections"},
};

static const unsigned minutes[] = {1, 5, 15};
enum { PERIODS = sizeof minutes / sizeof *minutes, TEXTS = VALUE_COUNT * (1 + PERIODS) };

struct sys {
    struct bus *bus;
    uv_timer_t timer;
    uint64_t period_ms;
    uint64_t started_ns, last_ns; /* monotonic */
    uint64_t most_clients;
    uint64_t values[VALUE_COUNT]; /* as last looked at */
    double loads[VALUE_COUNT][PERIODS];
    char texts[TEXTS][SYS_TEXT_MAX]; /* as last published */
};

_Static_assert((int)TEXTS <= (int)RETAINED_PASSING_MAX, "every value can be kept");

/* ---- the values ---- */

static uint64_t sum_all(const struct bus *bus, size_t counters_at, unsigned count)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < count; i++)
        total += bus_sum(bus, counters_at + i * sizeof(uint64_t));
    return total;
}

#define COUNTER_AT(field) offsetof(struct loop_counters, field)

static void look(struct sys *sys, uint64_t values[VALUE_COUNT])
{
    const struct bus *bus = sys->bus;
    struct retained_status retained;
    retained_status(bus->retained, &retained);
    values[VALUE_VERSION] = 0;
    values[VALUE_UPTIME] = (clock_monotonic_ns() - sys->started_ns) / 1000000000u;
    struct sessions_status sessions = {0};
    if (bus->sessions)
        sessions_status(bus->sessions, &sessions);
    values[VALUE_CONNECTED] = bus_sum(bus, COUNTER_AT(connections));
    values[VALUE_DISCONNECTED] = sessions.sessions - sessions.attached;
    values[VALUE_EXPIRED] = sessions.expired;
    values[VALUE_TOTAL] = values[VALUE_CONNECTED] + values[VALUE_DISCONNECTED];
    sys->most_clients = values[VALUE_CONNECTED] > sys->most_clients ? values[VALUE_CONNECTED] : sys->most_clients;
    values[VALUE_MAXIMUM] = sys->most_clients;
    values[VALUE_SUBSCRIPTIONS] = bus_sum(bus, COUNTER_AT(subscriptions));
    values[VALUE_RETAINED] = retained.count;
    values[VALUE_MESSAGES_RECEIVED] = values[VALUE_PUBLISH_RECEIVED] = sum_all(bus, COUNTER_AT(received), 3);
    values[VALUE_MESSAGES_SENT] = values[VALUE_PUBLISH_SENT] = sum_all(bus, COUNTER_AT(delivered), 3);
    values[VALUE_PUBLISH_DROPPED] = sum_all(bus, COUNTER_AT(dropped), DROP_REASONS);
    values[VALUE_BYTES_RECEIVED] = bus_sum(bus, COUNTER_AT(bytes_received));
    values[VALUE_BYTES_SENT] = bus_sum(bus, COUNTER_AT(bytes_sent));
    values[VALUE_SOCKETS] = bus_sum(bus, COUNTER_AT(accepted));
}

/* ---- publishing ---- */

static void publish(const struct sys *sys, const char *topic, char *before, const char *text)
{
    if (strcmp(before, text) == 0)
        return;
    snprintf(before, SYS_TEXT_MAX, "%s", text);
    struct message message = {.offset = UINT64_MAX,
                              .time_ns = clock_wall_ns(),
                              .topic = topic,
                              .topic_length = (uint32_t)strlen(topic),
                              .payload = (const uint8_t *)text,
                              .payload_length = (uint32_t)strlen(text),
                              .flags = MESSAGE_RETAIN};
    uint64_t retained = 0;
    (void)retained_put_passing(sys->bus->retained, &message, &retained); /* without room the next value is tried */
    struct mqtt_publish live = {.retain = true,
                                .topic = {(const uint8_t *)message.topic, message.topic_length},
                                .payload = {message.payload, message.payload_length}};
    deliver_from_server(sys->bus, &live, retained);
}

static void publish_value(struct sys *sys, enum value value, uint64_t number, char *before)
{
    char topic[SYS_TOPIC_MAX], text[SYS_TEXT_MAX];
    snprintf(topic, sizeof topic, "$SYS/broker/%s", rows[value].topic);
    if (value == VALUE_VERSION)
        snprintf(text, sizeof text, "spindle version %s", SPINDLE_VERSION);
    else if (value == VALUE_UPTIME)
        snprintf(text, sizeof text, "%" PRIu64 " seconds", number);
    else
        snprintf(text, sizeof text, "%" PRIu64, number);
    publish(sys, topic, before, text);
}

/* Exponentially weighted: what has arrived in `passed_s` seconds counts by their part in the period. */
static void publish_loads(struct sys *sys, enum value value, uint64_t more, double passed_s, char (*before)[SYS_TEXT_MAX])
{
    for (unsigned i = 0; i < PERIODS; i++) {
        char topic[SYS_TOPIC_MAX], text[SYS_TEXT_MAX];
        double rate = (double)more * 60 / passed_s, *load = &sys->loads[value][i];
        *load = rate + exp(-passed_s / (60 * minutes[i])) * (*load - rate);
        snprintf(topic, sizeof topic, "$SYS/broker/load/%s/%umin", rows[value].load, minutes[i]);
        snprintf(text, sizeof text, "%.2f", *load);
        publish(sys, topic, before[i], text);
    }
}

static void publish_all(struct sys *sys)
{
    uint64_t values[VALUE_COUNT], now_ns = clock_monotonic_ns();
    double passed_s = (double)(now_ns - sys->last_ns) / 1e9;
    look(sys, values);
    for (unsigned i = 0; i < VALUE_COUNT; i++) {
        char(*texts)[SYS_TEXT_MAX] = &sys->texts[i * (1 + PERIODS)];
        if (rows[i].topic)
            publish_value(sys, (enum value)i, values[i], texts[0]);
        if (rows[i].load && passed_s > 0)
            publish_loads(sys, (enum value)i, values[i] - sys->values[i], passed_s, texts + 1);
    }
    memcpy(sys->values, values, sizeof values);
    sys->last_ns = now_ns;
}

static void on_timer(uv_timer_t *timer)
{
    struct sys *sys = timer->data;
    struct bus *bus = sys->bus;
    retained_expire(bus->retained, clock_wall_ns());
    bool sessions = bus->sessions && persistent_sweep(&bus->loops[0]);
    uint64_t next_ms = sessions && sys->period_ms > SYS_SESSIONS_MS ? SYS_SESSIONS_MS : sys->period_ms;
    uv_timer_start(timer, on_timer, next_ms, 0);
    uint64_t interval_ns = bus->options.sys_interval_ns;
    if (interval_ns && clock_monotonic_ns() - sys->last_ns + SYS_EARLY_NS >= interval_ns)
        publish_all(sys);
}

int sys_start(struct bus *bus)
{
    struct sys *sys = calloc(1, sizeof *sys);
    if (!sys)
        return ERR_NO_MEMORY;
    sys->bus = bus;
    sys->started_ns = sys->last_ns = clock_monotonic_ns();
    sys->timer.data = sys;
    bus->sys = sys;
    sys->period_ms = bus->options.sys_interval_ns / 1000000u;
    if (sys->period_ms == 0 || sys->period_ms > SYS_EXPIRE_S * 1000)
        sys->period_ms = SYS_EXPIRE_S * 1000;
    uv_timer_init(&bus->loops[0].uv, &sys->timer);
    uv_timer_start(&sys->timer, on_timer, 0, 0);
    return 0;
}

void sys_stop(struct bus *bus)
{
    uv_close((uv_handle_t *)&bus->sys->timer, NULL);
}
