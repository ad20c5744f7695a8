/* drilling/curve: the join of samples and rows. */
#include "drilling/curve.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "unit.h"

enum { SAMPLES_MAX = 16 };

static struct curve_scratch *scratch;
static struct payload_result result;
static float position[SAMPLES_MAX], torque[SAMPLES_MAX], thrust[SAMPLES_MAX];
static int32_t step[SAMPLES_MAX];
static struct payload_trace trace;
static struct curve curve;

static int setup(void **state)
{
    (void)state;
    return curve_scratch_create(&scratch);
}

static int teardown(void **state)
{
    (void)state;
    curve_scratch_destroy(scratch);
    curve_scratch_destroy(NULL);
    return 0;
}

static void set_rows(size_t count, const int32_t *numbers)
{
    result.step_count = count;
    for (size_t i = 0; i < count; i++) {
        result.step[i] = numbers[i];
        result.torque_empty_a[i] = (float)(10 + i);
        result.thrust_empty_a[i] = (float)(20 + i);
    }
}

/* Sample i has position -i, torque i + 0.5, thrust i + 0.25. */
static void set_samples(size_t count, const int32_t *numbers)
{
    for (size_t i = 0; i < count; i++) {
        position[i] = -(float)i;
        torque[i] = (float)i + 0.5f;
        thrust[i] = (float)i + 0.25f;
        step[i] = numbers[i];
    }
    trace = (struct payload_trace){.sample_count = count, .position_mm = position, .torque_a = torque, .thrust_a = thrust, .step = step};
}

static void assert_order(size_t count, const size_t *samples)
{
    assert_int_equal(curve.sample_count, count);
    for (size_t i = 0; i < count; i++) {
        assert_true(curve.position_mm[i] == (float)samples[i]);
        assert_true(curve.torque_a[i] == (float)samples[i] + 0.5f);
        assert_true(curve.thrust_a[i] == (float)samples[i] + 0.25f);
    }
}

static void assert_step(size_t index, int32_t number, size_t first, size_t count, float torque_empty_a)
{
    assert_int_equal(curve.steps[index].number, number);
    assert_int_equal(curve.steps[index].first, first);
    assert_int_equal(curve.steps[index].count, count);
    assert_true(curve.steps[index].torque_empty_a == torque_empty_a);
    assert_ptr_equal(curve_find_step(&curve, number), &curve.steps[index]);
}

static void a_regular_cycle_stays_as_it_is(void **state)
{
    (void)state;
    set_rows(3, (int32_t[]){0, 1, 2});
    set_samples(6, (int32_t[]){0, 0, 1, 2, 2, 2});
    assert_int_equal(curve_assemble(scratch, &result, &trace, &curve), 0);
    assert_order(6, (size_t[]){0, 1, 2, 3, 4, 5});
    assert_int_equal(curve.step_count, 3);
    assert_step(0, 0, 0, 2, 10);
    assert_step(1, 1, 2, 1, 11);
    assert_step(2, 2, 3, 3, 12);
    assert_int_equal(curve.left_out, 0);
    assert_null(curve_find_step(&curve, 3));
    assert_ptr_equal(curve.torque_a, torque); /* not copied */
}

static void interleaved_steps_are_ordered_and_keep_their_samples_order(void **state)
{
    (void)state;
    set_rows(3, (int32_t[]){3, 1, 2});
    set_samples(7, (int32_t[]){1, 2, 3, 1, 2, -1, 1});
    assert_int_equal(curve_assemble(scratch, &result, &trace, &curve), 0);
    assert_order(6, (size_t[]){0, 3, 6, 1, 4, 2});
    assert_int_equal(curve.step_count, 3);
    assert_step(0, 1, 0, 3, 11);
    assert_step(1, 2, 3, 2, 12);
    assert_step(2, 3, 5, 1, 10);
    assert_int_equal(curve.left_out, 1);
}

static void rows_and_samples_without_each_other_are_left_out(void **state)
{
    (void)state;
    set_rows(3, (int32_t[]){2, 7, 9});
    set_samples(5, (int32_t[]){1, 2, 2, 3, 9});
    assert_int_equal(curve_assemble(scratch, &result, &trace, &curve), 0);
    assert_order(3, (size_t[]){1, 2, 4});
    assert_int_equal(curve.step_count, 2);
    assert_step(0, 2, 0, 2, 10);
    assert_step(1, 9, 2, 1, 12);
    assert_int_equal(curve.left_out, 2);
}

static void of_repeated_rows_the_last_counts(void **state)
{
    (void)state;
    set_rows(4, (int32_t[]){1, 2, 1, 1});
    set_samples(2, (int32_t[]){1, 2});
    assert_int_equal(curve_assemble(scratch, &result, &trace, &curve), 0);
    assert_int_equal(curve.step_count, 2);
    assert_step(0, 1, 0, 1, 13);
    assert_step(1, 2, 1, 1, 11);
}

static void without_a_common_step_there_is_no_curve(void **state)
{
    (void)state;
    set_rows(2, (int32_t[]){1, 2});
    set_samples(3, (int32_t[]){0, 3, 4});
    assert_int_equal(curve_assemble(scratch, &result, &trace, &curve), ERR_ESTIMATE);
}

static void all_rows_may_be_in_use(void **state)
{
    (void)state;
    int32_t numbers[PAYLOAD_STEPS_MAX];
    for (int i = 0; i < PAYLOAD_STEPS_MAX; i++)
        numbers[i] = PAYLOAD_STEPS_MAX - i;
    set_rows(PAYLOAD_STEPS_MAX, numbers);
    enum { COUNT = PAYLOAD_STEPS_MAX * 1000 };
    float *samples = calloc(COUNT, sizeof *samples);
    int32_t *steps = malloc(COUNT * sizeof *steps);
    assert_non_null(samples);
    assert_non_null(steps);
    for (int i = 0; i < COUNT; i++)
        steps[i] = 1 + i % PAYLOAD_STEPS_MAX;
    struct payload_trace many = {.sample_count = COUNT, .position_mm = samples, .torque_a = samples, .thrust_a = samples, .step = steps};
    assert_int_equal(curve_assemble(scratch, &result, &many, &curve), 0);
    assert_int_equal(curve.step_count, PAYLOAD_STEPS_MAX);
    assert_int_equal(curve.sample_count, COUNT);
    assert_step(PAYLOAD_STEPS_MAX - 1, PAYLOAD_STEPS_MAX, COUNT - 1000, 1000, 10);
    free(samples);
    free(steps);
}

static void memory_of_a_long_curve_is_given_back(void **state)
{
    (void)state;
    enum { COUNT = 600000 };
    float *samples = calloc(COUNT, sizeof *samples);
    int32_t *steps = calloc(COUNT, sizeof *steps);
    assert_non_null(samples);
    assert_non_null(steps);
    struct payload_trace many = {.sample_count = COUNT, .position_mm = samples, .torque_a = samples, .thrust_a = samples, .step = steps};
    set_rows(1, (int32_t[]){0});
    for (int i = 0; i < 2; i++) {
        assert_int_equal(curve_assemble(scratch, &result, &many, &curve), 0);
        assert_int_equal(curve.sample_count, COUNT);
        set_samples(2, (int32_t[]){0, 0});
        assert_int_equal(curve_assemble(scratch, &result, &trace, &curve), 0);
        assert_order(2, (size_t[]){0, 1});
    }
    free(samples);
    free(steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_regular_cycle_stays_as_it_is),
        cmocka_unit_test(interleaved_steps_are_ordered_and_keep_their_samples_order),
        cmocka_unit_test(rows_and_samples_without_each_other_are_left_out),
        cmocka_unit_test(of_repeated_rows_the_last_counts),
        cmocka_unit_test(without_a_common_step_there_is_no_curve),
        cmocka_unit_test(all_rows_may_be_in_use),
        cmocka_unit_test(memory_of_a_long_curve_is_given_back),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
