/* drilling/median: against sorting each window, and its cost. */
#include "drilling/median.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "unit.h"

static struct median_scratch *scratch;

static int setup(void **state)
{
    (void)state;
    return median_scratch_create(&scratch);
}

static int teardown(void **state)
{
    (void)state;
    median_scratch_destroy(scratch);
    median_scratch_destroy(NULL);
    return 0;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double sorted_median(const double *values, size_t count)
{
    double *copy = malloc(count * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, values, count * sizeof *copy);
    qsort(copy, count, sizeof *copy, ascending);
    double median = count % 2 ? copy[count / 2] : (copy[count / 2 - 1] + copy[count / 2]) / 2;
    free(copy);
    return median;
}

static uint32_t seed = 12345;

static uint32_t random_below(uint32_t limit)
{
    seed = seed * 1664525 + 1013904223;
    return (uint32_t)(((uint64_t)seed * limit) >> 32);
}

/* kind 0: coarse, with many ties; 1: fine; 2: ascending; 3: descending; 4: with gaps; 5: all the same; 6: of very different size */
static double random_value(int kind, size_t i)
{
    switch (kind) {
    case 0:
        return (double)random_below(5) - 2;
    case 1:
        return (double)random_below(1u << 31) / 1e6 - 1000;
    case 2:
        return (double)i * 0.25;
    case 3:
        return -(double)i * 0.25;
    case 4: {
        uint32_t what = random_below(20);
        return what == 0 ? (double)NAN : what == 1 ? (double)INFINITY : what == 2 ? -(double)INFINITY : (double)random_below(100);
    }
    case 5:
        return -0.5;
    default:
        return ldexp((double)random_below(1000) - 500, (int)random_below(2000) - 1000);
    }
}

static void assert_trailing(const double *values, size_t count, size_t width)
{
    double *medians = malloc(count * sizeof *medians);
    assert_non_null(medians);
    assert_int_equal(median_scratch_reserve(scratch, count), 0);
    median_trailing(scratch, values, count, width, medians);
    size_t finite = 0;
    for (size_t i = 0; i < count; i++) {
        finite = isfinite(values[i]) ? finite + 1 : 0;
        if (finite < width)
            assert_true(isnan(medians[i]));
        else
            assert_true(medians[i] == sorted_median(values + i + 1 - width, width));
    }
    free(medians);
}

static void trailing_medians_are_those_of_sorted_windows(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 2, 3, 29, 64, 65, 200, 700};
    static const size_t widths[] = {1, 2, 3, 4, 5, 29, 30, 63, 64, 65, 100, 199, 200, 201, 699, 700};
    double values[700];
    for (int kind = 0; kind < 7; kind++) {
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            for (size_t i = 0; i < counts[c]; i++)
                values[i] = random_value(kind, i);
            for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
                assert_trailing(values, counts[c], widths[w]);
        }
    }
}

static void the_levels_of_the_bitmap_are_crossed(void **state)
{
    (void)state;
    enum { COUNT = 70000 }; /* more than 64 * 64 * 16 values: three levels, few of them set */
    double *values = malloc(COUNT * sizeof *values), medians_at_end;
    double *medians = malloc(COUNT * sizeof *medians);
    assert_non_null(values);
    assert_non_null(medians);
    for (size_t i = 0; i < COUNT; i++)
        values[i] = (double)((i * 48271) % 65537) * 0.5;
    assert_int_equal(median_scratch_reserve(scratch, COUNT), 0);
    for (size_t width = 1; width < COUNT; width = width * 7 + 1) {
        median_trailing(scratch, values, COUNT, width, medians);
        for (size_t i = width - 1; i < COUNT; i += 997)
            assert_true(medians[i] == sorted_median(values + i + 1 - width, width));
        medians_at_end = sorted_median(values + COUNT - width, width);
        assert_true(medians[COUNT - 1] == medians_at_end);
    }
    free(values);
    free(medians);
}

static void medians_of_whole_arrays_are_selected(void **state)
{
    (void)state;
    double values[500];
    assert_int_equal(median_scratch_reserve(scratch, 500), 0);
    for (int kind = 0; kind < 7; kind++) {
        for (size_t count = 1; count <= 500; count += 1 + count / 9) {
            for (size_t i = 0; i < count; i++) {
                do
                    values[i] = random_value(kind, i);
                while (!isfinite(values[i]));
            }
            assert_true(median_of(scratch, values, count) == sorted_median(values, count));
        }
    }
    const double zeros[] = {-0.0, 0.0, -0.0, 0.0};
    assert_true(median_of(scratch, zeros, 4) == 0);
    const double infinite[] = {-(double)INFINITY, 1, (double)INFINITY};
    assert_true(median_of(scratch, infinite, 3) == 1);
}

/* A window as wide as half of 200,000 values takes n log n steps; one that is sorted again for each value would take hours. */
static void wide_windows_are_not_quadratic(void **state)
{
    (void)state;
    enum { COUNT = 200000, WIDTH = COUNT / 2 };
    double *values = malloc(COUNT * sizeof *values), *medians = malloc(COUNT * sizeof *medians);
    assert_non_null(values);
    assert_non_null(medians);
    for (size_t i = 0; i < COUNT; i++)
        values[i] = random_value(1, i);
    assert_int_equal(median_scratch_reserve(scratch, COUNT), 0);
    clock_t before = clock();
    median_trailing(scratch, values, COUNT, WIDTH, medians);
    double cpu_s = (double)(clock() - before) / CLOCKS_PER_SEC;
    assert_true(cpu_s < 5); /* it is about 0.02 without sanitizers */
    assert_true(medians[WIDTH - 1] == sorted_median(values, WIDTH));
    free(values);
    free(medians);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trailing_medians_are_those_of_sorted_windows),
        cmocka_unit_test(the_levels_of_the_bitmap_are_crossed),
        cmocka_unit_test(medians_of_whole_arrays_are_selected),
        cmocka_unit_test(wide_windows_are_not_quadratic),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
