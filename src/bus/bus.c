/* The bus as a whole: start, stop, and what it tells the metrics. */
#include "bus/bus.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "bus/persistent.h"

uint64_t bus_sum(const struct bus *bus, size_t counter_at)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < bus->options.loop_count; i++) {
        const _Atomic uint64_t *counter = (const _Atomic uint64_t *)(const void *)((const char *)&bus->loops[i].counters + counter_at);
        total += atomic_load_explicit(counter, memory_order_relaxed);
    }
    return total;
}

#define COUNTER_AT(field) offsetof(struct loop_counters, field)

static void collect(void *owner, struct metrics_writer *writer)
{
    static const char *const drops[] = {"queue_full", "packet_too_large", "overloaded", "no_memory", "memory", "expired"};
    static const char *const retained_drops[] = {"limit", "overloaded"};
    static const char *const refusals[] = {"reserved"};
    static const char *const closes[] = {"protocol", "keep_alive", "taken_over", "slow", "limit", "shutdown", "handshake", "denied"};
    static const char *const pauses[] = {"journal", "subscriber", "overloaded", "unread", "memory", "packet", "login", "quota", "session"};
    static const char *const levels[] = {"0", "1", "2"};
    const struct bus *bus = owner;
    transports_collect(bus, writer);
    metrics_sample_u64(writer, METRIC_BUS_CONNECTIONS, bus_sum(bus, COUNTER_AT(connections)), NULL);
    metrics_sample_u64(writer, METRIC_BUS_CONNECTIONS_TOTAL, bus_sum(bus, COUNTER_AT(accepted)), NULL);
    metrics_sample_u64(writer, METRIC_BUS_SUBSCRIPTIONS, bus_sum(bus, COUNTER_AT(subscriptions)), NULL);
    metrics_sample_u64(writer, METRIC_BUS_MEMORY, atomic_load(&bus->memory_in), "use", "packets", NULL);
    metrics_sample_u64(writer, METRIC_BUS_MEMORY, atomic_load(&bus->memory_out), "use", "queues", NULL);
    metrics_sample_u64(writer, METRIC_BUS_BYTES_RECEIVED, bus_sum(bus, COUNTER_AT(bytes_received)), NULL);
    metrics_sample_u64(writer, METRIC_BUS_BYTES_SENT, bus_sum(bus, COUNTER_AT(bytes_sent)), NULL);
    for (unsigned i = 0; i < 3; i++) {
        metrics_sample_u64(writer, METRIC_BUS_RECEIVED, bus_sum(bus, COUNTER_AT(received) + i * 8), "qos", levels[i], NULL);
        metrics_sample_u64(writer, METRIC_BUS_DELIVERED, bus_sum(bus, COUNTER_AT(delivered) + i * 8), "qos", levels[i], NULL);
    }
    for (unsigned i = 0; i < DROP_REASONS; i++)
        metrics_sample_u64(writer, METRIC_BUS_DROPPED, bus_sum(bus, COUNTER_AT(dropped) + i * 8), "reason", drops[i], NULL);
    struct retained_status retained;
    retained_status(bus->retained, &retained);
    metrics_sample_u64(writer, METRIC_BUS_RETAINED, retained.count, NULL);
    metrics_sample_u64(writer, METRIC_BUS_RETAINED_BYTES, retained.bytes, NULL);
    for (unsigned i = 0; i < RETAINED_DROPS; i++)
        metrics_sample_u64(writer, METRIC_BUS_RETAINED_DROPPED, bus_sum(bus, COUNTER_AT(retained_dropped) + i * 8), "reason",
                           retained_drops[i], NULL);
    struct sessions_status sessions = {0};
    if (bus->sessions)
        sessions_status(bus->sessions, &sessions);
    metrics_sample_u64(writer, METRIC_BUS_SESSIONS, sessions.attached, "client", "connected", NULL);
    metrics_sample_u64(writer, METRIC_BUS_SESSIONS, sessions.sessions - sessions.attached, "client", "away", NULL);
    metrics_sample_u64(writer, METRIC_BUS_SESSIONS_EXPIRED, sessions.expired, NULL);
    for (unsigned i = 0; i < REFUSED_REASONS; i++)
        metrics_sample_u64(writer, METRIC_BUS_REFUSED, bus_sum(bus, COUNTER_AT(refused) + i * 8), "reason", refusals[i], NULL);
    for (unsigned i = 0; i < CLOSE_REASONS; i++)
        metrics_sample_u64(writer, METRIC_BUS_DISCONNECTS, bus_sum(bus, COUNTER_AT(closed) + i * 8), "reason", closes[i], NULL);
    for (unsigned i = 0; i < PAUSE_REASONS; i++)
        metrics_sample_u64(writer, METRIC_BUS_PAUSES, bus_sum(bus, COUNTER_AT(paused) + i * 8), "reason", pauses[i], NULL);
    for (unsigned i = 0; i < PAUSE_REASONS; i++)
        metrics_sample_u64(writer, METRIC_BUS_PAUSED, bus_sum(bus, COUNTER_AT(paused_now) + i * 8), "reason", pauses[i], NULL);
}

static int copy_filters(struct bus *bus, const struct bus_options *options)
{
    for (unsigned i = 0; i < BUS_INGEST_FILTERS_MAX; i++)
        if (options->ingest_filters[i] && !(bus->ingest_filters[i] = strdup(options->ingest_filters[i])))
            return ERR_NO_MEMORY;
    return 0;
}

static int open_retained(struct bus *bus)
{
    const struct bus_options *options = &bus->options;
    struct retained_options retained = {.messages_max = options->retained_max,
                                        .bytes_max = options->retained_size_max,
                                        .journal = options->journal,
                                        .stream = options->retained};
    int error = retained_open(&retained, &bus->retained);
    if (error)
        diagnostics(DIAGNOSTICS_ERROR, "bus", "the retained messages cannot be taken up again: %s", error_text(error));
    return error;
}

int bus_start(struct bus **out, const struct bus_options *options)
{
    struct bus *bus = calloc(1, sizeof *bus);
    if (!bus)
        return ERR_NO_MEMORY;
    bus->options = *options;
    /* What is on its way to a subscriber comes on top of its queue, which must not reach its hard limit by that. */
    size_t mail_soft_max = options->outgoing_soft_max < LOOP_MAIL_SOFT_MAX ? options->outgoing_soft_max : LOOP_MAIL_SOFT_MAX;
    bus->options.mail_soft_max = options->mail_soft_max ? options->mail_soft_max : mail_soft_max;
    bus->options.mail_hard_max = options->mail_hard_max ? options->mail_hard_max : LOOP_MAIL_HARD_MAX;
    bus->options.retained_max = options->retained_max ? options->retained_max : RETAINED_MESSAGES_MAX_DEFAULT;
    bus->loops = calloc(options->loop_count, sizeof *bus->loops);
    pthread_mutex_init(&bus->clients_lock, NULL);
    pthread_mutex_init(&bus->publish_lock, NULL);
    if (getrandom(&bus->instance, sizeof bus->instance, 0) != sizeof bus->instance)
        bus->instance = clock_wall_ns();
    int error = bus->loops ? copy_filters(bus, options) : ERR_NO_MEMORY;
    if (!error)
        error = router_create(&(struct router_options){.subscriptions_max = options->subscriptions_max}, &bus->router);
    if (!error)
        error = open_retained(bus);
    if (!error)
        error = persistent_start(bus);
    if (!error)
        error = router_cache_create(NULL, &bus->publish_cache);
    if (!error)
        error = transports_start_tls(bus);
    if (!error)
        error = listener_open(bus);
    if (!error)
        error = persistent_follow(bus); /* nobody has joined before the loops run */
    for (unsigned i = options->loop_count; !error && i-- > 0;)
        error = loop_start(&bus->loops[i], bus, i); /* the first last: it listens */
    if (!error)
        error = metrics_register(collect, bus);
    if (error) {
        bus_stop(bus);
        return error;
    }
    *out = bus;
    return 0;
}

uint16_t bus_port(const struct bus *bus, enum bus_transport transport)
{
    return transport < BUS_UNIX ? bus->ports[transport] : 0;
}

void bus_renew_access(struct bus *bus)
{
    for (unsigned i = 0; i < bus->options.loop_count; i++)
        mail_access(&bus->loops[i]);
}

void bus_quiesce(struct bus *bus, unsigned timeout_ms)
{
    for (unsigned i = 0; i < bus->options.loop_count; i++)
        mail_quiesce(&bus->loops[i]);
    uint64_t deadline_ns = clock_monotonic_ns() + timeout_ms * 1000000ull;
    for (unsigned i = 0; i < bus->options.loop_count; i++) {
        while (!atomic_load(&bus->loops[i].drained) && clock_monotonic_ns() < deadline_ns) {
            struct timespec pause = {.tv_nsec = 1000000};
            uv_async_send(&bus->loops[i].wake);
            nanosleep(&pause, NULL);
        }
    }
}

void bus_stop(struct bus *bus)
{
    if (!bus)
        return;
    metrics_unregister(collect, bus);
    if (bus->options.access)
        access_stop_checks(bus->options.access); /* they tell the loops */
    for (unsigned i = 0; bus->loops && i < bus->options.loop_count; i++)
        if (bus->loops[i].started)
            mail_stop(&bus->loops[i]);
    for (unsigned i = 0; bus->loops && i < bus->options.loop_count; i++)
        loop_join(&bus->loops[i]);
    persistent_unfollow(bus);
    for (unsigned i = 0; bus->loops && i < bus->options.loop_count; i++)
        loop_fini(&bus->loops[i]); /* after all have ended: they write to one another */
    persistent_stop(bus);
    retained_close(bus->retained);
    free(bus->sys);
    listener_unix_remove(bus);
    tls_context_destroy(bus->tls);
    router_cache_destroy(bus->publish_cache);
    router_destroy(bus->router);
    pthread_mutex_destroy(&bus->publish_lock);
    pthread_mutex_destroy(&bus->clients_lock);
    free(bus->loops);
    for (unsigned i = 0; i < BUS_INGEST_FILTERS_MAX; i++)
        free(bus->ingest_filters[i]);
    free(bus);
}

int bus_sessions_write(struct bus *bus, struct buffer *json)
{
    return bus->sessions ? sessions_write(bus->sessions, json) : buffer_append_text(json, "{\"total\":0,\"sessions\":[]}\n");
}

void bus_status(struct bus *bus, struct bus_status *status)
{
    *status = (struct bus_status){0};
    for (unsigned i = 0; i < bus->options.loop_count; i++) {
        status->connections += atomic_load_explicit(&bus->loops[i].counters.connections, memory_order_relaxed);
        const struct loop_counters *counters = &bus->loops[i].counters;
        status->ingest_no_memory += atomic_load_explicit(&counters->ingest_dropped[INGEST_NO_MEMORY], memory_order_relaxed);
        status->ingest_journal += atomic_load_explicit(&counters->ingest_dropped[INGEST_JOURNAL], memory_order_relaxed);
        status->subscriptions += atomic_load_explicit(&bus->loops[i].counters.subscriptions, memory_order_relaxed);
    }
}
