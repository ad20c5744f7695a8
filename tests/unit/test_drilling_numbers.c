/* drilling/numbers: the grammar of numbers, and rounding that agrees with the C library. */
#include "drilling/numbers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

enum { PADDING = 16 };

/* Reads `text` as an array of floats; the memory behind it is zero, as the contract wants it. */
static bool read_floats(const char *text, float *floats, size_t capacity, struct numbers_report *report)
{
    char *copy = calloc(1, strlen(text) + PADDING);
    assert_non_null(copy);
    strcpy(copy, text);
    struct numbers_target target = {.kind = NUMBERS_FLOAT, .floats = floats, .capacity = capacity};
    bool read = numbers_read_array(copy, &target, report);
    free(copy);
    return read;
}

static bool read_int32s(const char *text, int32_t *int32s, size_t capacity, struct numbers_report *report)
{
    char *copy = calloc(1, strlen(text) + PADDING);
    assert_non_null(copy);
    strcpy(copy, text);
    struct numbers_target target = {.kind = NUMBERS_INT32, .int32s = int32s, .capacity = capacity};
    bool read = numbers_read_array(copy, &target, report);
    free(copy);
    return read;
}

static void numbers_of_every_form_are_read(void **state)
{
    (void)state;
    static const char *const good[] = {"0",
                                       "-0",
                                       "7",
                                       "-12",
                                       "0.5",
                                       "-0.049",
                                       "123456.7",
                                       "1234567",
                                       "12345678",
                                       "123456789.125",
                                       "1e5",
                                       "1E-3",
                                       "-2.5e+10",
                                       "1.5e0",
                                       "0.000001",
                                       "0e7",
                                       "99999999999999999999",
                                       "0.1000000000000000055511151231257827",
                                       "4.35",
                                       "1e-400",
                                       "3.4028234e38"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char text[128];
        float value;
        struct numbers_report report;
        snprintf(text, sizeof text, "[%s]", good[i]);
        assert_true(read_floats(text, &value, 1, &report));
        assert_int_equal(report.count, 1);
        assert_int_equal(report.problem, NUMBERS_FINE);
        float expected = (float)strtod(good[i], NULL);
        assert_memory_equal(&value, &expected, sizeof value);
    }
}

static void what_is_no_number_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"-",
                                      "+1",
                                      ".5",
                                      "1.",
                                      "01",
                                      "-01",
                                      "00",
                                      "1e",
                                      "1e+",
                                      "1.e5",
                                      "0x10",
                                      "1.2.3",
                                      "1 2",
                                      "nan",
                                      "Nan",
                                      "inf",
                                      "-NaN",
                                      "infinity",
                                      "null",
                                      "true",
                                      "\"1\"",
                                      "[1]",
                                      "{}",
                                      "1a",
                                      "1,,2",
                                      "--1",
                                      "1-",
                                      "NaNs",
                                      "01.5",
                                      "012345",
                                      "1234567890123456789012345x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[64];
        float values[4];
        struct numbers_report report;
        snprintf(text, sizeof text, "[%s]", bad[i]);
        assert_false(read_floats(text, values, 4, &report));
        snprintf(text, sizeof text, "[7,%s,8]", bad[i]);
        assert_false(read_floats(text, values, 4, &report));
    }
    float value;
    struct numbers_report report;
    assert_false(read_floats("[1", &value, 1, &report));
    assert_false(read_floats("[", &value, 1, &report));
    assert_false(read_floats("[1}", &value, 1, &report));
    assert_false(read_floats("[1,]", &value, 1, &report));
    assert_false(read_floats("[1, ]", &value, 1, &report));
    assert_false(read_floats("[,1]", &value, 1, &report));
    assert_false(read_floats("[1;2]", &value, 1, &report));
}

static void white_space_may_stand_anywhere_between(void **state)
{
    (void)state;
    float values[3];
    struct numbers_report report;
    assert_true(read_floats("[ 1 ,\n\t-2.5\r\n,  3\t]", values, 3, &report));
    assert_int_equal(report.count, 3);
    assert_true(values[0] == 1 && values[1] == -2.5f && values[2] == 3);
    assert_true(read_floats("[]", values, 3, &report));
    assert_int_equal(report.count, 0);
    assert_true(read_floats("[ \n ]", values, 3, &report));
    assert_int_equal(report.count, 0);
    assert_false(read_floats("[1\v,2]", values, 3, &report));
}

static void the_first_problem_is_reported_with_its_index(void **state)
{
    (void)state;
    float values[8];
    int32_t whole[8];
    struct numbers_report report;
    assert_true(read_floats("[1,2,NaN,Infinity,3]", values, 8, &report));
    assert_int_equal(report.count, 5);
    assert_int_equal(report.problem, NUMBERS_NOT_FINITE);
    assert_int_equal(report.problem_index, 2);
    assert_true(read_floats("[1,-Infinity]", values, 8, &report));
    assert_int_equal(report.problem_index, 1);
    assert_true(read_floats("[1,1e39]", values, 8, &report)); /* a double, no float */
    assert_int_equal(report.problem, NUMBERS_NOT_FINITE);
    assert_true(read_floats("[1e999]", values, 8, &report));
    assert_int_equal(report.problem, NUMBERS_NOT_FINITE);

    assert_true(read_int32s("[0,1.0,-2,3.0e0,2147483647,-2147483648]", whole, 8, &report));
    assert_int_equal(report.problem, NUMBERS_FINE);
    assert_int_equal(whole[1], 1);
    assert_int_equal(whole[2], -2);
    assert_int_equal(whole[3], 3);
    assert_int_equal(whole[4], INT32_MAX);
    assert_int_equal(whole[5], INT32_MIN);
    assert_true(read_int32s("[1,1.5,2]", whole, 8, &report));
    assert_int_equal(report.problem, NUMBERS_NOT_WHOLE);
    assert_int_equal(report.problem_index, 1);
    assert_true(read_int32s("[2147483648]", whole, 8, &report));
    assert_int_equal(report.problem, NUMBERS_NOT_WHOLE);
    assert_true(read_int32s("[NaN]", whole, 8, &report));
    assert_int_equal(report.problem, NUMBERS_NOT_FINITE);
}

static void no_more_is_stored_than_fits(void **state)
{
    (void)state;
    float values[3] = {0, 0, 77};
    struct numbers_report report;
    assert_true(read_floats("[1,2]", values, 2, &report));
    assert_int_equal(report.problem, NUMBERS_FINE);
    assert_true(read_floats("[1,2,3,4,12345678.5]", values, 2, &report));
    assert_int_equal(report.count, 2);
    assert_int_equal(report.problem, NUMBERS_TOO_MANY);
    assert_int_equal(report.problem_index, 2);
    assert_true(values[2] == 77);
}

static void an_array_can_be_checked_without_storing(void **state)
{
    (void)state;
    char text[64] = "[1,2.5,-3e7,NaN, 123456789]";
    struct numbers_target nowhere = {0};
    struct numbers_report report;
    assert_true(numbers_read_array(text, &nowhere, &report));
    assert_int_equal(report.count, 5);
    assert_int_equal(report.problem, NUMBERS_FINE);
    strcpy(text, "[1,2.]");
    assert_false(numbers_read_array(text, &nowhere, &report));
}

/* The short path divides floats; the rule is: round to double, then to float. */
static void all_short_decimals_round_like_the_c_library(void **state)
{
    (void)state;
    char text[PADDING * 2];
    uint32_t seed = 1;
    for (int i = 0; i < 300000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned digits = (seed >> 8) % 10000000;
        int decimals = (int)(seed % 7);
        memset(text, 0, sizeof text);
        if (decimals == 0)
            snprintf(text, sizeof text, "[%u]", digits);
        else
            snprintf(text, sizeof text, "[%s%.*f]", seed & 0x80 ? "-" : "", decimals, digits / pow(10, decimals));
        float value, expected = (float)strtod(text + 1, NULL);
        struct numbers_target target = {.kind = NUMBERS_FLOAT, .floats = &value, .capacity = 1};
        struct numbers_report report;
        assert_true(numbers_read_array(text, &target, &report));
        assert_memory_equal(&value, &expected, sizeof value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_every_form_are_read),
        cmocka_unit_test(what_is_no_number_is_refused),
        cmocka_unit_test(white_space_may_stand_anywhere_between),
        cmocka_unit_test(the_first_problem_is_reported_with_its_index),
        cmocka_unit_test(no_more_is_stored_than_fits),
        cmocka_unit_test(an_array_can_be_checked_without_storing),
        cmocka_unit_test(all_short_decimals_round_like_the_c_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
