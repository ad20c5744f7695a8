/* What a hole costs: reading its messages, assembling its curve, each estimator. Over all real curves where they are (see
 * tests/unit/drilling_shared.h), and over one long curve with tiny feed, whose windows are tens of thousands of samples wide. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "../unit/drilling_shared.h"
#include "base/clock.h"
#include "drilling/estimator.h"

enum { REPEATS = 3, HOLES_MAX = 1024, LONG_SAMPLES = 100000 };

struct hole {
    struct buffer result, trace;
};

static struct hole holes[HOLES_MAX];
static size_t hole_count;
static struct payload_reader *reader;
static struct curve_scratch *curves;
static struct estimator_scratch *estimates;
static struct payload_paths paths;

static void load_holes(const char *data)
{
    struct shared_curve columns;
    shared_curve_each(&columns, shared_buffer_init);
    char path[1024];
    snprintf(path, sizeof path, "%s/curves", data);
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder)) && hole_count < HOLES_MAX;) {
        char *end = strstr(entry->d_name, ".csv.gz");
        if (!end)
            continue;
        *end = 0;
        struct hole *hole = &holes[hole_count];
        shared_buffer_init(&hole->result);
        shared_buffer_init(&hole->trace);
        if (shared_messages(data, entry->d_name, &columns, &hole->result, &hole->trace))
            hole_count++;
    }
    if (folder)
        closedir(folder);
    shared_curve_each(&columns, buffer_fini);
}

/* Best of the repeats, in ns: parse, assemble, and each estimator. */
struct cost {
    uint64_t parse, assemble, estimate[8];
    size_t bytes, samples;
};

static uint64_t lap(uint64_t *since)
{
    uint64_t now = clock_monotonic_ns(), took = now - *since;
    *since = now;
    return took;
}

static void least(uint64_t *best, uint64_t value, int repeat)
{
    *best = repeat == 0 || value < *best ? value : *best;
}

static bool measure(const struct hole *hole, struct cost *cost)
{
    struct payload first, second;
    struct stage_refusal refusal;
    struct curve curve;
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        uint64_t since = clock_monotonic_ns();
        if (payload_read(reader, &paths, PAYLOAD_RESULT, hole->result.data, hole->result.length, &first, &refusal) != 0 ||
            payload_read(reader, &paths, PAYLOAD_TRACE, hole->trace.data, hole->trace.length, &second, &refusal) != 0)
            return false;
        least(&cost->parse, lap(&since), repeat);
        if (curve_assemble(curves, &first.result, &second.trace, &curve) != 0)
            return false;
        least(&cost->assemble, lap(&since), repeat);
        for (size_t i = 0; estimator_at(i); i++) {
            struct keypoints keypoints;
            struct estimator_failure failure;
            estimator_at(i)->estimate(&curve, &estimator_defaults, estimates, &keypoints, &failure);
            least(&cost->estimate[i], lap(&since), repeat);
        }
    }
    cost->bytes = hole->trace.length;
    cost->samples = curve.sample_count;
    return true;
}

static void print_cost(const char *what, const struct cost *cost, size_t count)
{
    double scale = 1e-6 / (double)count;
    printf("%s: %zu samples, %zu kB of trace\n", what, cost->samples / count, cost->bytes / count / 1000);
    printf("  %-20s %8.3f ms\n", "parse", (double)cost->parse * scale);
    printf("  %-20s %8.3f ms\n", "assemble", (double)cost->assemble * scale);
    for (size_t i = 0; estimator_at(i); i++)
        printf("  %-20s %8.3f ms\n", estimator_at(i)->name, (double)cost->estimate[i] * scale);
}

static void measure_real(const char *data)
{
    struct cost total = {0};
    load_holes(data);
    for (size_t i = 0; i < hole_count; i++) {
        struct cost cost = {0};
        if (!measure(&holes[i], &cost))
            continue;
        total.parse += cost.parse;
        total.assemble += cost.assemble;
        for (size_t j = 0; j < 8; j++)
            total.estimate[j] += cost.estimate[j];
        total.bytes += cost.bytes;
        total.samples += cost.samples;
    }
    if (hole_count) {
        char what[64];
        snprintf(what, sizeof what, "mean of %zu real curves", hole_count);
        print_cost(what, &total, hole_count);
    }
}

static void measure_set(const char *data)
{
    struct hole *hole = &holes[0];
    struct cost cost = {0};
    if (shared_messages(data, "messages/data_20250326", NULL, &hole->result, &hole->trace) && measure(hole, &cost))
        print_cost("a real message set of a micro-peck head", &cost, 1);
}

static void measure_long(void)
{
    struct buffer position, torque, step;
    shared_buffer_init(&position);
    shared_buffer_init(&torque);
    shared_buffer_init(&step);
    for (int i = 0; i < LONG_SAMPLES; i++) {
        int in_step = i % (LONG_SAMPLES / 2);
        buffer_printf(&position, "%c%.6f", i ? ',' : '[', -4 - i * 2e-5 - 1e-6 * (i * 7919 % 13));
        buffer_printf(&torque, "%c%.3f", i ? ',' : '[', (in_step > 15000 && in_step < 40000 ? 3 : 1) + 0.049 * (i * 29 % 5));
        buffer_printf(&step, "%c%d", i ? ',' : '[', i < LONG_SAMPLES / 2 ? 1 : 2);
    }
    buffer_append(&position, "]", 2);
    buffer_append(&torque, "]", 2);
    buffer_append(&step, "]", 2);
    struct hole *hole = &holes[1];
    shared_buffer_init(&hole->result);
    shared_buffer_init(&hole->trace);
    message_build(&hole->result, MESSAGE_STAMP, PATH_MACHINE, "1", PATH_RESULT, "1", PATH_STEPS, "[1,2]", PATH_TORQUE_0, "0.5",
                  PATH_THRUST_0, "0", NULL);
    message_build(&hole->trace, MESSAGE_STAMP, PATH_POSITION, shared_text(&position), PATH_TORQUE, shared_text(&torque), PATH_THRUST,
                  shared_text(&torque), PATH_STEP, shared_text(&step), NULL);
    struct cost cost = {0};
    if (measure(hole, &cost))
        print_cost("one long curve with tiny feed", &cost, 1);
}

int main(void)
{
    if (payload_reader_create(&reader) != 0 || curve_scratch_create(&curves) != 0 || estimator_scratch_create(&estimates) != 0)
        return 1;
    payload_paths_default(&paths);
    const char *data = shared_data();
    if (data) {
        measure_real(data);
        measure_set(data);
    }
    measure_long();
    return 0;
}
