/* Log-linear histogram of durations or sizes: 64 sub-buckets a power of two, so a value is kept within 1.6 %.
 *
 * 0 .. 2^40-1 (18 minutes in ns); larger values count in the last bucket. One writer; a reader on another thread may
 * see a count that is a few values behind, never garbage (counts are relaxed atomics). */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stdint.h>

enum {
    HISTOGRAM_SUB_BITS = 6,
    HISTOGRAM_MAX_BITS = 40,
    HISTOGRAM_BUCKETS = (HISTOGRAM_MAX_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS
};

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t count;
    uint64_t sum;
    uint64_t max;
};

void histogram_record(struct histogram *histogram, uint64_t value);
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The value below or at which `fraction` (0..1) of the recorded values lie; 0 when nothing was recorded. */
uint64_t histogram_quantile(const struct histogram *histogram, double fraction);

/* How many recorded values are <= limit (to within a bucket). */
uint64_t histogram_count_below(const struct histogram *histogram, uint64_t limit);

#endif
