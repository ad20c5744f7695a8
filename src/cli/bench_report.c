/* The tables of `spindle bench`. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "cli/bench.h"

enum { JSON_LIMIT = 1 << 20 };

static const char *const scenario_names[] = {"throughput", "rate", "fanout", "connect"};

static double quantile_ms(const struct histogram *histogram, double fraction)
{
    return (double)histogram_quantile(histogram, fraction) / 1e6;
}

static double per_second(uint64_t count, double seconds)
{
    return seconds > 0 ? (double)count / seconds : 0;
}

/* What the user asked to be compared: messages delivered (acknowledged, where nobody listens), or connections, a second. */
static double speed(const struct bench_options *options, const struct bench_outcome *outcome)
{
    if (outcome->error && outcome->connects == NULL)
        return 0;
    if (options->scenario == BENCH_CONNECT)
        return per_second(outcome->connects->connected, outcome->connects->seconds);
    const struct load_result *messages = outcome->messages;
    return per_second(options->subscribers ? messages->measured_delivered : messages->measured_acknowledged, messages->measured_s);
}

/* Microseconds of CPU time for each of `count`; negative: unknown. */
static double cost_us(double cpu_s, uint64_t count)
{
    return cpu_s >= 0 && count ? cpu_s * 1e6 / (double)count : -1;
}

static uint64_t measured_messages(const struct bench_options *options, const struct load_result *messages)
{
    return options->subscribers ? messages->measured_delivered : messages->measured_acknowledged;
}

/* ---- for a person ---- */

static void print_title(const struct bench_options *options)
{
    unsigned publishers = options->scenario == BENCH_FANOUT ? 1 : options->publishers;
    if (options->scenario == BENCH_CONNECT) {
        printf("%u connections, %u at once\n", options->connects, options->connects_at_once);
        return;
    }
    printf("%u publisher%s (QoS %u, %" PRIu32 " bytes", publishers, publishers == 1 ? "" : "s", options->publish_qos,
           options->payload_bytes);
    if (options->scenario == BENCH_RATE)
        printf(", %.0f a second together", options->rate);
    else
        printf(", %" PRIu32 " in flight each", options->inflight);
    printf("), %u subscriber%s (QoS %u), %g s\n", options->subscribers, options->subscribers == 1 ? "" : "s", options->subscribe_qos,
           options->duration_s);
}

/* A number, or a dash where it is unknown. */
static void print_cell(int width, int decimals, double value)
{
    if (value < 0)
        printf(" %*s", width, "-");
    else
        printf(" %*.*f", width, decimals, value);
}

static void print_messages(const struct bench_options *options, const struct load_result *messages)
{
    uint64_t count = measured_messages(options, messages);
    bool delivered = options->subscribers > 0, acknowledged = options->publish_qos > 0;
    print_cell(12, 0, delivered ? per_second(messages->measured_delivered, messages->measured_s) : -1);
    print_cell(12, 0, acknowledged ? per_second(messages->measured_acknowledged, messages->measured_s) : -1);
    print_cell(9, 3, delivered ? quantile_ms(&messages->deliver_ns, 0.5) : -1);
    print_cell(9, 3, delivered ? quantile_ms(&messages->deliver_ns, 0.99) : -1);
    print_cell(9, 3, delivered ? quantile_ms(&messages->deliver_ns, 0.999) : -1);
    print_cell(9, 3, acknowledged ? quantile_ms(&messages->acknowledge_ns, 0.5) : -1);
    print_cell(9, 3, acknowledged ? quantile_ms(&messages->acknowledge_ns, 0.99) : -1);
    print_cell(8, 0, (double)messages->lost);
    print_cell(9, 2, cost_us(messages->server_cpu_s, count));
    print_cell(9, 2, cost_us(messages->client_cpu_s, count));
    print_cell(8, 1, messages->server_resident_bytes ? (double)messages->server_resident_bytes / 1048576.0 : -1);
    if (messages->duplicates || messages->late)
        printf("  (%" PRIu64 " twice, %" PRIu64 " out of order)", messages->duplicates, messages->late);
}

static void print_connects(const struct load_connects_result *connects)
{
    double each = (double)connects->server_resident_bytes - (double)connects->server_resident_before_bytes;
    print_cell(12, 0, per_second(connects->connected, connects->seconds));
    print_cell(9, 3, quantile_ms(&connects->connect_ns, 0.5));
    print_cell(9, 3, quantile_ms(&connects->connect_ns, 0.99));
    print_cell(8, 0, (double)connects->failed);
    print_cell(9, 2, cost_us(connects->server_cpu_s, connects->connected));
    print_cell(9, 2, cost_us(connects->client_cpu_s, connects->connected));
    print_cell(8, 1, connects->server_resident_bytes && connects->connected ? each / 1024 / (double)connects->connected : -1);
    print_cell(9, 3, connects->idle_cpu_share);
    if (connects->problem[0])
        printf("  (%s)", connects->problem);
}

static void print_row(const struct bench_options *options, unsigned index, const struct bench_outcome *outcomes)
{
    const struct bench_outcome *outcome = &outcomes[index];
    printf("  %-16.16s", options->targets[index].name);
    if (outcome->connects && outcome->connects->connected)
        print_connects(outcome->connects);
    else if (outcome->messages && !outcome->error)
        print_messages(options, outcome->messages);
    else
        printf("  not measured: %s", outcome->connects   ? outcome->connects->problem
                                     : outcome->messages ? outcome->messages->problem
                                                         : "memory");
    double first = speed(options, &outcomes[0]), own = speed(options, outcome);
    if (index && first > 0 && own > 0)
        printf("  %.1fx", first / own);
    putchar('\n');
}

static void print_table(const struct bench_options *options, const struct bench_outcome *outcomes)
{
    print_title(options);
    if (options->scenario == BENCH_CONNECT)
        printf("  %-16s %12s %9s %9s %8s %9s %9s %8s %9s\n", "", "connects/s", "p50 ms", "p99 ms", "failed", "CPU us", "client us",
               "KiB each", "idle CPU");
    else
        printf("  %-16s %12s %12s %9s %9s %9s %9s %9s %8s %9s %9s %8s\n", "", "delivered/s", "PUBACK/s", "p50 ms", "p99 ms", "p99.9 ms",
               "ack p50", "ack p99", "lost", "CPU us", "client us", "MiB");
    for (unsigned i = 0; i < options->target_count; i++)
        print_row(options, i, outcomes);
    if (options->scenario != BENCH_CONNECT)
        printf("  CPU us: the server's processor time for each message%s; client us: this program's.\n",
               options->subscribers ? " delivered" : "");
    if (options->target_count > 1)
        printf("  Nx: how many times as fast %s is.\n", options->targets[0].name);
}

/* ---- for a program ---- */

static void json_latency(struct buffer *out, const char *name, const struct histogram *histogram)
{
    buffer_printf(out, ", \"%s\": {\"count\": %" PRIu64 ", \"p50\": %.6f, \"p99\": %.6f, \"p999\": %.6f, \"max\": %.6f}", name,
                  histogram->count, quantile_ms(histogram, 0.5), quantile_ms(histogram, 0.99), quantile_ms(histogram, 0.999),
                  (double)histogram->max / 1e6);
}

/* A member that is null where the value is unknown (negative). */
static void json_number(struct buffer *out, const char *name, double value)
{
    if (value < 0)
        buffer_printf(out, ", \"%s\": null", name);
    else
        buffer_printf(out, ", \"%s\": %.6f", name, value);
}

static void json_messages(struct buffer *out, const struct bench_options *options, const struct load_result *messages)
{
    uint64_t count = measured_messages(options, messages);
    json_number(out, "delivered_per_s", per_second(messages->measured_delivered, messages->measured_s));
    json_number(out, "acknowledged_per_s", per_second(messages->measured_acknowledged, messages->measured_s));
    json_number(out, "published_per_s", per_second(messages->measured_published, messages->measured_s));
    json_latency(out, "deliver_ms", &messages->deliver_ns);
    json_latency(out, "acknowledge_ms", &messages->acknowledge_ns);
    buffer_printf(out,
                  ", \"published\": %" PRIu64 ", \"acknowledged\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"delivered\": %" PRIu64
                  ", \"lost\": %" PRIu64 ", \"duplicates\": %" PRIu64 ", \"out_of_order\": %" PRIu64,
                  messages->published, messages->acknowledged, messages->refused, messages->delivered, messages->lost, messages->duplicates,
                  messages->late);
    json_number(out, "server_cpu_us_per_message", cost_us(messages->server_cpu_s, count));
    json_number(out, "client_cpu_us_per_message", cost_us(messages->client_cpu_s, count));
    json_number(out, "server_resident_bytes", messages->server_resident_bytes ? (double)messages->server_resident_bytes : -1);
}

static void json_connects(struct buffer *out, const struct load_connects_result *connects)
{
    json_number(out, "connects_per_s", per_second(connects->connected, connects->seconds));
    json_latency(out, "connect_ms", &connects->connect_ns);
    buffer_printf(out, ", \"connected\": %" PRIu64 ", \"failed\": %" PRIu64, connects->connected, connects->failed);
    json_number(out, "server_cpu_us_per_connect", cost_us(connects->server_cpu_s, connects->connected));
    json_number(out, "client_cpu_us_per_connect", cost_us(connects->client_cpu_s, connects->connected));
    json_number(out, "server_resident_before_bytes",
                connects->server_resident_before_bytes ? (double)connects->server_resident_before_bytes : -1);
    json_number(out, "server_idle_cpu_share", connects->idle_cpu_share);
    json_number(out, "server_resident_bytes", connects->server_resident_bytes ? (double)connects->server_resident_bytes : -1);
}

static void print_json(const struct bench_options *options, const struct bench_outcome *outcomes)
{
    struct buffer out;
    buffer_init(&out, JSON_LIMIT);
    buffer_printf(&out, "{\"scenario\": \"%s\", \"publishers\": %u, \"subscribers\": %u, \"publish_qos\": %u, \"subscribe_qos\": %u",
                  scenario_names[options->scenario], options->scenario == BENCH_FANOUT ? 1 : options->publishers, options->subscribers,
                  options->publish_qos, options->subscribe_qos);
    buffer_printf(&out, ", \"payload_bytes\": %" PRIu32 ", \"inflight\": %" PRIu32 ", \"rate\": %.3f, \"seconds\": %.3f, \"targets\": [",
                  options->payload_bytes, options->inflight, options->rate, options->duration_s);
    for (unsigned i = 0; i < options->target_count; i++) {
        const struct bench_outcome *outcome = &outcomes[i];
        const char *problem = outcome->connects ? outcome->connects->problem : outcome->messages ? outcome->messages->problem : "";
        buffer_append_text(&out, i ? ", {\"name\": " : "{\"name\": ");
        buffer_append_json_string(&out, options->targets[i].name, strlen(options->targets[i].name), 0);
        buffer_printf(&out, ", \"measured\": %s, \"problem\": ", outcome->error ? "false" : "true");
        buffer_append_json_string(&out, problem, strlen(problem), 0);
        if (outcome->messages)
            json_messages(&out, options, outcome->messages);
        if (outcome->connects)
            json_connects(&out, outcome->connects);
        buffer_append_text(&out, "}");
    }
    buffer_append_text(&out, "]}\n");
    fwrite(out.data, 1, out.length, stdout);
    buffer_fini(&out);
}

void bench_report(const struct bench_options *options, const struct bench_outcome *outcomes)
{
    if (options->json)
        print_json(options, outcomes);
    else
        print_table(options, outcomes);
    fflush(stdout);
}
