/* base/histogram: buckets, quantiles, merging. */
#include "base/histogram.h"

#include <math.h>
#include <string.h>

#include "unit.h"

static struct histogram h; /* too large for comfort on a stack */

static int clear(void **state)
{
    (void)state;
    memset(&h, 0, sizeof h);
    return 0;
}

static void an_empty_histogram_says_zero(void **state)
{
    (void)state;
    assert_int_equal(histogram_quantile(&h, 0.5), 0);
    assert_int_equal(histogram_count_below(&h, UINT64_MAX), 0);
    assert_int_equal(h.count, 0);
}

static void small_values_are_exact(void **state)
{
    (void)state;
    for (uint64_t v = 0; v < 128; v++)
        histogram_record(&h, v);
    assert_int_equal(h.count, 128);
    assert_int_equal(h.sum, 127 * 128 / 2);
    assert_int_equal(h.max, 127);
    for (uint64_t v = 0; v < 128; v++)
        assert_int_equal(histogram_count_below(&h, v), v + 1);
    assert_int_equal(histogram_quantile(&h, 0), 0);
    assert_int_equal(histogram_quantile(&h, 0.5), 63);
    assert_int_equal(histogram_quantile(&h, 1), 127);
}

/* Any value up to 2^40-1 is given back at most 1/64 too large and never too small. */
static void values_are_kept_within_a_sixty_fourth(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < HISTOGRAM_MAX_BITS; bit++) {
        for (int delta = -1; delta <= 1; delta++) {
            uint64_t value = ((uint64_t)1 << bit) + (uint64_t)(int64_t)delta;
            memset(&h, 0, sizeof h);
            histogram_record(&h, value);
            histogram_record(&h, ((uint64_t)1 << HISTOGRAM_MAX_BITS) - 1); /* so that the maximum does not help */
            uint64_t found = histogram_quantile(&h, 0.5);
            assert_true(found >= value);
            assert_true(found - value <= value / 64);
            assert_int_equal(histogram_count_below(&h, value), 1);
        }
    }
}

static void a_quantile_never_passes_the_maximum(void **state)
{
    (void)state;
    histogram_record(&h, 1000000);
    assert_int_equal(histogram_quantile(&h, 0.5), 1000000);
    assert_int_equal(histogram_quantile(&h, 1), 1000000);
}

static void very_large_values_count_in_the_last_bucket(void **state)
{
    (void)state;
    histogram_record(&h, (uint64_t)1 << HISTOGRAM_MAX_BITS);
    histogram_record(&h, UINT64_MAX);
    assert_int_equal(h.counts[HISTOGRAM_BUCKETS - 1], 2);
    assert_int_equal(histogram_quantile(&h, 0.5), UINT64_MAX);
    assert_int_equal(histogram_count_below(&h, UINT64_MAX), 2);
    assert_int_equal(histogram_count_below(&h, ((uint64_t)1 << (HISTOGRAM_MAX_BITS - 1)) - 1), 0);
}

/* "The value below or at which a fraction of the values lie": of ten values, 91 % needs all ten. */
static void quantiles_round_up_to_whole_values(void **state)
{
    (void)state;
    for (uint64_t v = 1; v <= 10; v++)
        histogram_record(&h, v);
    assert_int_equal(histogram_quantile(&h, 0.1), 1);
    assert_int_equal(histogram_quantile(&h, 0.11), 2);
    assert_int_equal(histogram_quantile(&h, 0.7), 7); /* 0.7 * 10 is a little more than 7 in binary */
    assert_int_equal(histogram_quantile(&h, 0.9), 9);
    assert_int_equal(histogram_quantile(&h, 0.91), 10);
    assert_int_equal(histogram_quantile(&h, 0.999), 10);
}

static void senseless_fractions_are_the_ends(void **state)
{
    (void)state;
    histogram_record(&h, 3);
    histogram_record(&h, 9);
    assert_int_equal(histogram_quantile(&h, -1), 3);
    assert_int_equal(histogram_quantile(&h, (double)NAN), 3);
    assert_int_equal(histogram_quantile(&h, 2), 9);
    assert_int_equal(histogram_quantile(&h, 1e300), 9);
}

static void merging_adds(void **state)
{
    (void)state;
    static struct histogram other;
    memset(&other, 0, sizeof other);
    for (uint64_t v = 0; v < 50; v++)
        histogram_record(&h, v);
    for (uint64_t v = 50; v < 60; v++)
        histogram_record(&other, v);
    histogram_merge(&h, &other);
    assert_int_equal(h.count, 60);
    assert_int_equal(h.sum, 59 * 60 / 2);
    assert_int_equal(h.max, 59);
    assert_int_equal(histogram_quantile(&h, 1), 59);
    assert_int_equal(other.count, 10);
    histogram_merge(&other, &h);
    assert_int_equal(other.max, 59);
    assert_int_equal(other.count, 70);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_empty_histogram_says_zero, clear),
        cmocka_unit_test_setup(small_values_are_exact, clear),
        cmocka_unit_test_setup(values_are_kept_within_a_sixty_fourth, clear),
        cmocka_unit_test_setup(a_quantile_never_passes_the_maximum, clear),
        cmocka_unit_test_setup(very_large_values_count_in_the_last_bucket, clear),
        cmocka_unit_test_setup(quantiles_round_up_to_whole_values, clear),
        cmocka_unit_test_setup(senseless_fractions_are_the_ends, clear),
        cmocka_unit_test_setup(merging_adds, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
