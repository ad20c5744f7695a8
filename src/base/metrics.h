/* Metrics: one table of names (metrics.def), many collectors, one writer in Prometheus text format 0.0.4.
 *
 * Modules count for themselves, in memory they own; at a scrape each registered collector is called and states its
 * current values. The writer groups the samples of one metric whatever the order in which collectors speak. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stdint.h>

#include "base/buffer.h"
#include "base/histogram.h"

enum metric {
#define METRIC(id, type, name, help) METRIC_##id,
#include "metrics.def"
#undef METRIC
    METRIC_COUNT
};

struct metrics_writer; /* lives for one scrape */

typedef void (*metrics_collector)(void *owner, struct metrics_writer *writer);

/* Registers a collector for the life of the process or until metrics_unregister. At most 64; ERR_LIMIT beyond;
 * ERR_INVALID for a pair that is registered already.
 * Collectors run on the scraping thread, under the registry's lock; they must be quick and must not register. */
int metrics_register(metrics_collector collector, void *owner);

/* When it returns, the collector does not run and will not run again. */
void metrics_unregister(metrics_collector collector, void *owner);

/* One sample. Labels are name, value pairs ended by NULL; values are escaped. */
void metrics_sample(struct metrics_writer *writer, enum metric metric, double value, ...) __attribute__((sentinel));

/* A counter or gauge that is a whole number beyond 2^53 stays exact here. */
void metrics_sample_u64(struct metrics_writer *writer, enum metric metric, uint64_t value, ...) __attribute__((sentinel));

/* A histogram recorded in ns, written in seconds with the given upper bounds (seconds, ascending; +Inf is added). */
void metrics_histogram_ns(struct metrics_writer *writer, enum metric metric, const struct histogram *histogram, const double *bounds_s,
                          unsigned bound_count, ...) __attribute__((sentinel));

/* Calls every collector and appends the whole page to `out`. Returns 0, ERR_LIMIT or ERR_NO_MEMORY;
 * `out` is unchanged on failure. */
int metrics_write(struct buffer *out);

/* Who wants the values themselves: each sample and histogram in the order in which the collectors state them, while the registry is locked.
 * `labels` are name, value pairs ended by NULL; they are borrowed for the call. */
struct metrics_reader {
    void (*sample)(void *context, enum metric metric, double value, const char *const *labels);
    void (*histogram)(void *context, enum metric metric, const struct histogram *histogram);
    void *context;
};
enum { METRICS_LABELS_MAX = 8 }; /* of one sample; further ones are left out */

/* Calls every collector. Returns 0 or ERR_NO_MEMORY. */
int metrics_read(const struct metrics_reader *reader);

#endif
