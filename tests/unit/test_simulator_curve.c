/* simulate/simulator_curve: curves look like recorded ones, and their truth is where the torque says it is. */
#include "simulate/simulator_curve.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "unit.h"

enum { SEEDS = 60 };

static struct simulator_curve make(enum simulator_shape shape, uint64_t seed)
{
    struct simulator_curve curve;
    assert_int_equal(simulator_curve_generate(&curve, shape, seed), 0);
    return curve;
}

/* Mean torque, A, of the samples of step `number` whose advance lies in [from_mm, to_mm); NAN when there are none. */
static double mean_torque(const struct simulator_curve *curve, int32_t number, double from_mm, double to_mm)
{
    double sum = 0;
    size_t count = 0;
    for (size_t i = 0; i < curve->sample_count; i++) {
        double advance_mm = -curve->position_um[i] / 1000.0;
        if (curve->step[i] == number && advance_mm >= from_mm && advance_mm < to_mm) {
            sum += curve->torque_ma[i] / 1000.0;
            count++;
        }
    }
    return count ? sum / (double)count : (double)NAN;
}

static void the_same_seed_gives_the_same_curve(void **state)
{
    (void)state;
    for (int shape = 0; shape < SIMULATOR_FROM_FILE; shape++) {
        struct simulator_curve a = make((enum simulator_shape)shape, 5), b = make((enum simulator_shape)shape, 5),
                               c = make((enum simulator_shape)shape, 6);
        assert_int_equal(a.sample_count, b.sample_count);
        assert_memory_equal(a.position_um, b.position_um, a.sample_count * 4 * sizeof *a.position_um);
        assert_true(a.sample_count != c.sample_count || memcmp(a.torque_ma, c.torque_ma, a.sample_count * sizeof *a.torque_ma) != 0);
        simulator_curve_fini(&a);
        simulator_curve_fini(&b);
        simulator_curve_fini(&c);
    }
}

static void truth_is_ordered_and_inside_the_stroke(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct simulator_curve one = make(SIMULATOR_ONE_STACK, seed), two = make(SIMULATOR_TWO_STACK, seed);
        assert_true(one.truth.entry_mm > 3.5 && one.truth.exit_mm > one.truth.entry_mm + 2.9);
        assert_true(isnan(one.truth.transition_mm));
        assert_true(two.truth.entry_mm < two.truth.transition_mm && two.truth.transition_mm < two.truth.exit_mm);
        assert_true(-two.position_um[two.sample_count - 1] / 1000.0 > two.truth.exit_mm + SIMULATOR_TIP_MM);
        simulator_curve_fini(&one);
        simulator_curve_fini(&two);
    }
}

static void torque_rises_at_the_entry_and_is_gone_behind_the_exit(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct simulator_curve curve = make(SIMULATOR_ONE_STACK, seed);
        double entry_mm = curve.truth.entry_mm, exit_mm = curve.truth.exit_mm;
        double before = mean_torque(&curve, 1, 0, entry_mm), inside = mean_torque(&curve, 1, entry_mm + 1, exit_mm - 0.5);
        double behind = mean_torque(&curve, 1, exit_mm + 1.3, exit_mm + 9);
        assert_true(before < 0.3);
        assert_true(inside > 3);
        assert_true(behind < 0.3);
        simulator_curve_fini(&curve);
    }
}

static void each_material_has_its_level(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct simulator_curve curve = make(SIMULATOR_TWO_STACK, seed);
        double cfrp = mean_torque(&curve, 1, curve.truth.entry_mm + 1, curve.truth.transition_mm - 0.6);
        double titanium = mean_torque(&curve, 2, curve.truth.transition_mm + 1, curve.truth.exit_mm - 0.5);
        assert_true(titanium > 1.8 * cfrp);
        simulator_curve_fini(&curve);
    }
}

static void values_are_multiples_of_the_quanta(void **state)
{
    (void)state;
    struct simulator_curve curve = make(SIMULATOR_TWO_STACK, 1);
    for (size_t i = 0; i < curve.sample_count; i++) {
        double quanta = curve.torque_ma[i] / 48.828125;
        assert_true(fabs(quanta - nearbyint(quanta)) < 0.02);
    }
    simulator_curve_fini(&curve);
}

static void micro_pecks_are_long_start_at_step_one_and_move_back_and_forth(void **state)
{
    (void)state;
    struct simulator_curve curve = make(SIMULATOR_MICRO_PECK, 3);
    size_t backwards = 0;
    for (size_t i = 1; i < curve.sample_count; i++)
        backwards += curve.position_um[i] > curve.position_um[i - 1];
    assert_true(curve.sample_count > 5000);
    assert_true(backwards > curve.sample_count / 20);
    assert_int_equal(curve.step[0], 1);
    assert_int_equal(curve.step_count, 3);
    simulator_curve_fini(&curve);
}

static void two_stacks_start_at_step_zero_or_one(void **state)
{
    (void)state;
    int start_zero = 0, start_one = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct simulator_curve curve = make(SIMULATOR_TWO_STACK, seed);
        start_zero += curve.step[0] == 0 && curve.step_count == 4;
        start_one += curve.step[0] == 1 && curve.step_count == 3;
        simulator_curve_fini(&curve);
    }
    assert_int_equal(start_zero + start_one, SEEDS);
    assert_true(start_zero > start_one && start_one > 0);
}

static void aborted_cycles_have_no_exit_and_are_short(void **state)
{
    (void)state;
    int one_step = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct simulator_curve curve = make(SIMULATOR_ABORTED, seed);
        assert_true(isnan(curve.truth.exit_mm));
        assert_true(curve.sample_count < 1000);
        one_step += curve.step_count == 1;
        simulator_curve_fini(&curve);
    }
    assert_true(one_step > 0 && one_step < SEEDS);
}

static void air_has_no_truth_and_no_torque(void **state)
{
    (void)state;
    struct simulator_curve curve = make(SIMULATOR_AIR, 4);
    assert_true(isnan(curve.truth.entry_mm) && isnan(curve.truth.transition_mm) && isnan(curve.truth.exit_mm));
    for (size_t i = 0; i < curve.sample_count; i++)
        assert_true(abs(curve.torque_ma[i]) < 400);
    simulator_curve_fini(&curve);
}

static int compare_sizes(const void *a, const void *b)
{
    size_t left = *(const size_t *)a, right = *(const size_t *)b;
    return (left > right) - (left < right);
}

static void lengths_are_those_of_recorded_curves(void **state)
{
    (void)state;
    size_t lengths[SEEDS];
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct simulator_curve curve = make(seed % 5 < 2 ? SIMULATOR_ONE_STACK : SIMULATOR_TWO_STACK, seed);
        lengths[seed] = curve.sample_count;
        simulator_curve_fini(&curve);
    }
    qsort(lengths, SEEDS, sizeof *lengths, compare_sizes);
    assert_in_range(lengths[SEEDS / 2], 850, 1250);
}

static void shapes_have_names(void **state)
{
    (void)state;
    enum simulator_shape shape = SIMULATOR_AIR;
    assert_int_equal(simulator_shape_parse("micro-peck", &shape), 0);
    assert_int_equal(shape, SIMULATOR_MICRO_PECK);
    assert_string_equal(simulator_shape_name(shape), "micro-peck");
    assert_int_equal(simulator_shape_parse("file", &shape), ERR_NOT_FOUND);
    assert_int_equal(simulator_shape_parse("", &shape), ERR_NOT_FOUND);
    assert_int_equal(shape, SIMULATOR_MICRO_PECK);
}

static void what_cannot_be_generated_is_refused(void **state)
{
    (void)state;
    struct simulator_curve curve = {.sample_count = 77};
    assert_int_equal(simulator_curve_generate(&curve, SIMULATOR_FROM_FILE, 1), ERR_INVALID);
    assert_int_equal(simulator_curve_generate(&curve, SIMULATOR_SHAPE_COUNT, 1), ERR_INVALID);
    assert_int_equal(simulator_curve_init(&curve, 0), ERR_INVALID);
    assert_int_equal(simulator_curve_init(&curve, SIMULATOR_SAMPLES_MAX + 1), ERR_INVALID);
    assert_int_equal(curve.sample_count, 77);
}

static void steps_are_listed_once_and_at_most_sixteen(void **state)
{
    (void)state;
    struct simulator_curve curve;
    assert_int_equal(simulator_curve_init(&curve, 1), 0);
    for (int32_t i = 0; i < SIMULATOR_STEPS_MAX; i++) {
        assert_int_equal(simulator_curve_add_step(&curve, i, 5000 + i, 300), 0);
        assert_int_equal(simulator_curve_add_step(&curve, i, 1, 1), 0);
    }
    assert_int_equal(curve.step_count, SIMULATOR_STEPS_MAX);
    assert_int_equal(curve.torque_empty_ma[3], 5003);
    assert_int_equal(simulator_curve_add_step(&curve, 99, 0, 0), ERR_LIMIT);
    assert_int_equal(curve.step_count, SIMULATOR_STEPS_MAX);
    simulator_curve_fini(&curve);
    simulator_curve_fini(&curve);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_curve),
        cmocka_unit_test(truth_is_ordered_and_inside_the_stroke),
        cmocka_unit_test(torque_rises_at_the_entry_and_is_gone_behind_the_exit),
        cmocka_unit_test(each_material_has_its_level),
        cmocka_unit_test(values_are_multiples_of_the_quanta),
        cmocka_unit_test(micro_pecks_are_long_start_at_step_one_and_move_back_and_forth),
        cmocka_unit_test(two_stacks_start_at_step_zero_or_one),
        cmocka_unit_test(aborted_cycles_have_no_exit_and_are_short),
        cmocka_unit_test(air_has_no_truth_and_no_torque),
        cmocka_unit_test(lengths_are_those_of_recorded_curves),
        cmocka_unit_test(shapes_have_names),
        cmocka_unit_test(what_cannot_be_generated_is_refused),
        cmocka_unit_test(steps_are_listed_once_and_at_most_sixteen),
    };
    return cmocka_run_group_tests_name("simulator", tests, NULL, NULL);
}
