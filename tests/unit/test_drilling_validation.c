/* drilling/validation: what becomes of negative depths, and when a sequence is reported. */
#include "drilling/validation.h"

#include <math.h>

#include "unit.h"

static const uint64_t SECOND_NS = 1000000000;

static struct validation_tracker tracker;
static struct validation_options options;

static int setup(void **state)
{
    (void)state;
    validation_tracker_init(&tracker);
    options = validation_defaults;
    return 0;
}

static struct validation_verdict judge_at(uint64_t second, double depth_mm)
{
    const double depths_mm[] = {3.5, depth_mm};
    return validation_judge(&tracker, &options, depths_mm, 2, second * SECOND_NS);
}

static void only_less_than_zero_is_negative(void **state)
{
    (void)state;
    assert_true(validation_is_negative((const double[]){1, -0.001}, 2));
    assert_true(validation_is_negative((const double[]){-1, 5}, 2));
    assert_false(validation_is_negative((const double[]){0, -0.0}, 2));
    assert_false(validation_is_negative((const double[]){1, 2}, 2));
    assert_false(validation_is_negative((const double[]){(double)NAN}, 1));
    assert_false(validation_is_negative(NULL, 0));
}

static void the_behaviour_says_what_is_done(void **state)
{
    (void)state;
    static const enum validation_behaviour behaviours[] = {VALIDATION_PUBLISH, VALIDATION_SKIP, VALIDATION_WARNING};
    for (int i = 0; i < 3; i++) {
        options.behaviour = behaviours[i];
        assert_true(judge_at(1, -1).negative);
        assert_int_equal(judge_at(1, -1).action, behaviours[i]);
        assert_false(judge_at(1, 1).negative);
        assert_int_equal(judge_at(1, 1).action, VALIDATION_PUBLISH);
    }
}

static void five_within_five_minutes_are_reported_once(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 4; i++)
        assert_int_equal(judge_at(1000 + i, -1).sequence, 0);
    assert_int_equal(judge_at(1004, 1).sequence, 0);
    assert_int_equal(judge_at(1005, -1).sequence, 5);
    assert_int_equal(judge_at(1006, -1).sequence, 0);
    assert_int_equal(judge_at(1007, -1).sequence, 0);
    assert_int_equal(judge_at(1005 + 299, -1).sequence, 0); /* still a sequence, but reported less than 300 s ago */
    assert_int_equal(judge_at(1005 + 300, -1).sequence, 5);
}

static void old_ones_do_not_count(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(judge_at(1000 + i * 76, -1).sequence, 0); /* never five within 300 s */
    validation_tracker_init(&tracker);
    for (uint64_t i = 0; i < 4; i++)
        assert_int_equal(judge_at(1000 + i * 75, -1).sequence, 0);
    assert_int_equal(judge_at(1300, -1).sequence, 5); /* the first is exactly 300 s old */
}

static void threshold_and_window_can_be_chosen(void **state)
{
    (void)state;
    options.sequence_threshold = 1;
    assert_int_equal(judge_at(5, -1).sequence, 1);
    validation_tracker_init(&tracker);
    options.sequence_threshold = VALIDATION_TRACKED_MAX;
    options.sequence_window_ns = UINT64_MAX;
    for (unsigned i = 1; i < VALIDATION_TRACKED_MAX; i++)
        assert_int_equal(judge_at(i, -1).sequence, 0);
    assert_int_equal(judge_at(5000, -1).sequence, VALIDATION_TRACKED_MAX);
    assert_int_equal(judge_at(9000, -1).sequence, VALIDATION_TRACKED_MAX); /* no more are remembered */
}

static void tracking_can_be_off(void **state)
{
    (void)state;
    options.track_sequences = false;
    for (uint64_t i = 0; i < 50; i++)
        assert_int_equal(judge_at(i, -1).sequence, 0);
    assert_int_equal(tracker.count, 0);
}

/* Workers read the clock before they are let in, so times may come a little out of order. */
static void a_time_before_the_last_counts_as_now(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 4; i++)
        assert_int_equal(judge_at(2000 - i, -1).sequence, 0);
    assert_int_equal(judge_at(1990, -1).sequence, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_less_than_zero_is_negative),
        cmocka_unit_test_setup(the_behaviour_says_what_is_done, setup),
        cmocka_unit_test_setup(five_within_five_minutes_are_reported_once, setup),
        cmocka_unit_test_setup(old_ones_do_not_count, setup),
        cmocka_unit_test_setup(threshold_and_window_can_be_chosen, setup),
        cmocka_unit_test_setup(tracking_can_be_off, setup),
        cmocka_unit_test_setup(a_time_before_the_last_counts_as_now, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
