#include "base/histogram.h"

#include <math.h>

enum { SUB_COUNT = 1 << HISTOGRAM_SUB_BITS };

static unsigned bucket_of(uint64_t value)
{
    if (value < SUB_COUNT)
        return (unsigned)value;
    unsigned top = 63u - (unsigned)__builtin_clzll(value);
    if (top >= HISTOGRAM_MAX_BITS)
        return HISTOGRAM_BUCKETS - 1;
    unsigned shift = top - HISTOGRAM_SUB_BITS;
    return ((shift + 1) << HISTOGRAM_SUB_BITS) + (unsigned)((value >> shift) & (SUB_COUNT - 1));
}

static uint64_t highest_of(unsigned bucket)
{
    if (bucket < SUB_COUNT)
        return bucket;
    unsigned shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
    uint64_t low = ((uint64_t)SUB_COUNT + (bucket & (SUB_COUNT - 1))) << shift;
    return low + ((uint64_t)1 << shift) - 1;
}

static uint64_t load(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void add(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

void histogram_record(struct histogram *histogram, uint64_t value)
{
    add(&histogram->counts[bucket_of(value)], 1);
    add(&histogram->count, 1);
    add(&histogram->sum, value);
    if (value > histogram->max)
        __atomic_store_n(&histogram->max, value, __ATOMIC_RELAXED);
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t count = load(&from->counts[i]);
        into->counts[i] += count;
        into->count += count;
    }
    into->sum += load(&from->sum);
    uint64_t max = load(&from->max);
    if (max > into->max)
        into->max = max;
}

/* The least number of values that are `fraction` of them, 1 .. total. The tolerance takes back what binary fractions add:
 * 0.07 of 100 is 7, not 8. */
static uint64_t rank_of(double fraction, uint64_t total)
{
    if (!(fraction > 0))
        return 1;
    double rank = ceil(fraction * (double)total * (1 - 1e-12));
    return rank >= (double)total ? total : (uint64_t)rank;
}

uint64_t histogram_quantile(const struct histogram *histogram, double fraction)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        total += load(&histogram->counts[i]);
    if (total == 0)
        return 0;
    uint64_t rank = rank_of(fraction, total);
    uint64_t seen = 0, max = load(&histogram->max);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
        seen += load(&histogram->counts[i]);
        if (seen >= rank)
            return highest_of(i) < max ? highest_of(i) : max;
    }
    return max; /* the last bucket has no upper end */
}

uint64_t histogram_count_below(const struct histogram *histogram, uint64_t limit)
{
    uint64_t seen = 0;
    unsigned last = bucket_of(limit);
    for (unsigned i = 0; i <= last; i++)
        seen += load(&histogram->counts[i]);
    return seen;
}
