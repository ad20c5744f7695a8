/* What the bus as a whole has to do with its transports: the certificates, and what is counted. */
#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "bus/loop.h"

static int64_t wall_s(void)
{
    return (int64_t)(clock_wall_ns() / 1000000000u);
}

#define COUNTER_AT(field) offsetof(struct loop_counters, field)

void transports_collect(const struct bus *bus, struct metrics_writer *writer)
{
    static const char *const transports[] = {"tcp", "tls", "websocket", "websocket_tls", "unix"};
    static const char *const failures[] = {"timeout", "tls", "certificate", "websocket", "left"};
    static const char *const files[] = {"server", "key", "client_ca"};
    for (unsigned i = 0; i < BUS_TRANSPORTS; i++)
        metrics_sample_u64(writer, METRIC_BUS_TRANSPORT, bus_sum(bus, COUNTER_AT(by_transport) + i * 8), "transport", transports[i], NULL);
    metrics_sample_u64(writer, METRIC_BUS_HANDSHAKES, atomic_load(&bus->handshakes), NULL);
    metrics_sample_u64(writer, METRIC_BUS_HANDSHAKES_MAX, bus->options.handshakes_max, NULL);
    metrics_sample_u64(writer, METRIC_BUS_HANDSHAKES_WAITED, bus_sum(bus, COUNTER_AT(handshakes_waited)), NULL);
    for (unsigned i = 0; i < HANDSHAKE_FAILURES; i++)
        metrics_sample_u64(writer, METRIC_BUS_HANDSHAKES_FAILED, bus_sum(bus, COUNTER_AT(handshakes_failed) + i * 8), "reason", failures[i],
                           NULL);
    for (enum tls_file file = 0; bus->tls && file < TLS_FILES; file++) {
        int64_t ends_s = tls_context_ends_s(bus->tls, file);
        if (ends_s != INT64_MAX)
            metrics_sample(writer, METRIC_BUS_CERTIFICATE_EXPIRY, (double)(ends_s - wall_s()), "certificate", files[file], NULL);
    }
}

static bool wants_tls(const struct bus_options *options)
{
    return options->listeners[BUS_TLS].host_count || options->listeners[BUS_WEBSOCKET_TLS].host_count;
}

static void say_tls_problem(enum diagnostics_level level, const struct tls_problem *problem, const char *what)
{
    static const char *const settings[TLS_FILES] = {"bus.tls.certificate", "bus.tls.key", "bus.tls.client_ca"};
    diagnostics(level, "bus", "%s: %s%s", settings[problem->file], problem->text, what);
}

/* A certificate that has ended is served all the same: what comes in by other ways must not be lost over it. */
int transports_start_tls(struct bus *bus)
{
    struct tls_problem problem;
    if (!wants_tls(&bus->options))
        return 0;
    int error = tls_context_create(&bus->tls, &bus->options.tls, &problem);
    if (error == ERR_INVALID)
        say_tls_problem(DIAGNOSTICS_ERROR, &problem, "");
    if (error)
        return error;
    enum tls_age age = tls_check_age(&bus->options.tls, wall_s(), &problem);
    if (age != TLS_AGE_GOOD)
        say_tls_problem(age == TLS_AGE_NOT_VALID ? DIAGNOSTICS_ERROR : DIAGNOSTICS_WARNING, &problem, "");
    return 0;
}

void bus_reload_tls(struct bus *bus, const struct tls_options *options)
{
    struct tls_problem problem;
    if (!bus->tls)
        return;
    enum tls_age age = tls_check_age(options, wall_s(), &problem);
    if (age == TLS_AGE_NOT_VALID) {
        say_tls_problem(DIAGNOSTICS_ERROR, &problem, ". The certificates that were read before hold");
        return;
    }
    if (age == TLS_AGE_ENDS_SOON)
        say_tls_problem(DIAGNOSTICS_WARNING, &problem, "");
    int error = tls_context_reload(bus->tls, options, &problem);
    if (error == ERR_INVALID)
        say_tls_problem(DIAGNOSTICS_ERROR, &problem, ". The certificates that were read before hold");
    else if (error)
        diagnostics(DIAGNOSTICS_ERROR, "bus", "certificates cannot be read again: %s; those that were read before hold", error_text(error));
    else
        diagnostics(DIAGNOSTICS_INFO, "bus", "the certificates were read again; they hold for new connections");
}
