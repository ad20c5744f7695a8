/* The estimators on curves that are made here. The expected values are those of a plain implementation in another language, which
 * sorts every window and sums exactly; ours must give the same doubles. */
#include "drilling/estimator.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "unit.h"

enum { SAMPLES_MAX = 20000, PHASES_MAX = 12 };

/* A stretch of a cycle: feed in um a sample, torque from first to last in mA with a ripple of up to four times `ripple_ma`, and a
 * position that is pulled back by peck_um in three of seven samples. */
struct phase {
    int step, samples, feed_um, torque_first_ma, torque_last_ma, ripple_ma, peck_um;
};

struct expected {
    unsigned count;
    double position_mm[KEYPOINTS_MAX];
    const char *failure; /* how its text begins, when count is 0 */
};

static const char *const names[] = {"gradient", "gradient30", "gradient30_by_order", "segments", "entry", "transition"};
enum { NAME_COUNT = sizeof names / sizeof *names };

static const struct example {
    const char *name;
    size_t phase_count;
    struct phase phases[PHASES_MAX];
    struct expected expected[NAME_COUNT];
} examples[] = {
    {"two layers",
     12,
     {{0, 140, 30, 0, 0, 49, 0},
      {1, 1, -150, 0, 0, 49, 0},
      {1, 20, 29, 0, 0, 49, 0},
      {1, 25, 29, 0, 1500, 49, 0},
      {1, 255, 29, 1500, 1500, 49, 0},
      {2, 1, -210, 1500, 1500, 49, 0},
      {2, 150, 7, 1500, 4500, 98, 0},
      {2, 600, 7, 4500, 4500, 98, 0},
      {2, 180, 7, 4500, 0, 98, 0},
      {2, 60, 7, 0, 0, 49, 0},
      {3, 1, -150, 0, 0, 49, 0},
      {3, 200, 40, 0, 0, 49, 0}},
     {{3, {5.795499992370606, 13.241499996185302, 19.226499557495117}, NULL},
      {3, {5.070500008265177, 13.976500002543132, 18.743499755859375}, NULL},
      {3, {5.070500008265177, 13.976500002543132, 18.743499755859375}, NULL},
      {3, {6.041999816894531, 14.03600025177002, 18.985000610351562}, NULL},
      {1, {3.059999942779541}, NULL},
      {1, {5.288000106811523}, NULL}}},
    {"micro-peck",
     8,
     {{1, 350, 10, 0, 0, 49, 0},
      {1, 60, 10, 0, 900, 49, 0},
      {1, 500, 10, 900, 900, 49, 0},
      {1, 40, 10, 900, 1700, 49, 0},
      {2, 3000, 2, 1700, 4000, 147, 40},
      {2, 400, 2, 4000, 300, 98, 40},
      {2, 100, 2, 300, 300, 49, 40},
      {3, 150, 30, 0, 0, 49, 0}},
     {{3, {4.665000009536743, 15.004333337148031, 16.842333285013833}, NULL},
      {3, {9.955000019073486, 11.169666703542074, 16.507666651407877}, NULL},
      {3, {11.169666703542074, 20.984999974568684, 18.495000012715657}, NULL},
      {0, {0}, "window 350 longer than a segment"},
      {1, {3.0899999141693115}, NULL},
      {1, {9.550000190734863}, NULL}}},
    {"one layer",
     5,
     {{2, 60, 60, 0, 0, 49, 0},
      {2, 40, 30, 0, 3000, 98, 0},
      {2, 200, 30, 3000, 3000, 98, 0},
      {2, 60, 30, 3000, 0, 98, 0},
      {3, 100, 20, 0, 0, 49, 0}},
     {{2, {5.084999990463257, 12.435000006357829}, NULL},
      {2, {5.1449999968210856, 12.645000012715657}, NULL},
      {2, {5.1449999968210856, 12.645000012715657}, NULL},
      {0, {0}, "fewer than 3 segments (1)"},
      {1, {4.019999980926514}, NULL},
      {0, {0}, "no transition"}}},
    {"one step",
     5,
     {{4, 110, 40, 0, 0, 49, 0},
      {4, 30, 40, 0, 2000, 98, 0},
      {4, 250, 40, 2000, 2000, 98, 0},
      {4, 30, 40, 2000, 100, 98, 0},
      {4, 60, 40, 100, 100, 49, 0}},
     {{2, {5.820000012715657, 17.1}, NULL},
      {2, {6.099999984105428, 17.339999961853028}, NULL},
      {2, {6.099999984105428, 17.339999961853028}, NULL},
      {0, {0}, "fewer than 3 segments (1)"},
      {1, {3.680000066757202}, NULL},
      {0, {0}, "no transition"}}},
    {"short",
     1,
     {{1, 18, 110, 0, 900, 49, 0}},
     {{0, {0}, "too few samples"},
      {0, {0}, "too few samples"},
      {0, {0}, "too few samples"},
      {0, {0}, "fewer than 3 segments (1)"},
      {0, {0}, "no entry"},
      {0, {0}, "no transition"}}},
    {"standing still",
     2,
     {{1, 100, 40, 0, 900, 49, 0}, {2, 200, 0, 900, 900, 49, 0}},
     {{2, {2.3799999992052716, 2.0199999888737996}, NULL},
      {2, {1.219999998807907, 2.5799999952316286}, NULL},
      {2, {1.219999998807907, 2.5799999952316286}, NULL},
      {0, {0}, "fewer than 3 segments (1)"},
      {1, {2.880000114440918}, NULL},
      {1, {1.7999999523162842}, NULL}}},
    {"interleaved",
     5,
     {{1, 120, 40, 0, 1000, 98, 0},
      {2, 150, 10, 1000, 3000, 98, 0},
      {3, 20, 5, 0, 0, 49, 0},
      {1, 90, 8, 1000, 200, 98, 0},
      {2, 80, 6, 3000, 100, 98, 0}},
     {{3, {3.0199999968210856, 5.554999987284343, 8.112999979654948}, NULL},
      {3, {2.9800000031789144, 6.3149999936421715, 8.059000015258789}, NULL},
      {0, {0}, "a step has too few samples"},
      {0, {0}, "window 140 longer than a segment"},
      {1, {2.880000114440918}, NULL},
      {1, {1.7999999523162842}, NULL}}},
};

enum { EXAMPLE_COUNT = sizeof examples / sizeof *examples };

static float position[SAMPLES_MAX], torque[SAMPLES_MAX], thrust[SAMPLES_MAX];
static int32_t step[SAMPLES_MAX];
static struct curve_scratch *curves;
static struct estimator_scratch *scratch;
static struct curve curve;

static int setup(void **state)
{
    (void)state;
    return curve_scratch_create(&curves) || estimator_scratch_create(&scratch);
}

static int teardown(void **state)
{
    (void)state;
    curve_scratch_destroy(curves);
    estimator_scratch_destroy(scratch);
    estimator_scratch_destroy(NULL);
    return 0;
}

static const struct payload_result rows = {
    .step_count = 5, .step = {0, 1, 2, 3, 4}, .torque_empty_a = {4.736f, 3.125f, 2.734f, 1.953f, 1.5f}};

/* Joins the first `count` samples. */
static void assemble(size_t count)
{
    struct payload_trace trace = {.sample_count = count, .position_mm = position, .torque_a = torque, .thrust_a = thrust, .step = step};
    assert_int_equal(curve_assemble(curves, &rows, &trace, &curve), 0);
}

static void build(const struct phase *phases, size_t phase_count)
{
    uint32_t seed = 1;
    int at_um = 600;
    size_t count = 0;
    for (const struct phase *phase = phases; phase < phases + phase_count; phase++) {
        for (int i = 0; i < phase->samples; i++) {
            seed = seed * 1664525 + 1013904223;
            at_um += phase->feed_um;
            int pulled_um = phase->peck_um * (i * 3 / 7 % 2);
            int level_ma = phase->torque_first_ma + (phase->torque_last_ma - phase->torque_first_ma) * i / phase->samples;
            int torque_ma = level_ma / 49 * 49 + (int)((seed >> 16) % 5) * phase->ripple_ma;
            assert_in_range(count, 0, SAMPLES_MAX - 1);
            position[count] = (float)(-(at_um - pulled_um) / 1000.0);
            torque[count] = (float)(torque_ma / 1000.0);
            step[count++] = phase->step;
        }
    }
    assemble(count);
}

static int estimate(const char *name, const struct estimator_settings *settings, struct keypoints *keypoints,
                    struct estimator_failure *failure)
{
    const struct estimator_ops *estimator = estimator_find(name);
    assert_non_null(estimator);
    memset(keypoints, 0, sizeof *keypoints);
    memset(failure, 0, sizeof *failure);
    return estimator->estimate(&curve, settings, scratch, keypoints, failure);
}

static void assert_points(const char *name, const struct expected *expected)
{
    struct keypoints found;
    struct estimator_failure failure;
    int error = estimate(name, &estimator_defaults, &found, &failure);
    if (expected->count == 0) {
        assert_int_equal(error, ERR_ESTIMATE);
        if (strncmp(failure.text, expected->failure, strlen(expected->failure)) != 0)
            fail_msg("%s: '%s', expected '%s'", name, failure.text, expected->failure);
        return;
    }
    if (error)
        fail_msg("%s: %s", name, failure.text);
    assert_int_equal(found.count, expected->count);
    for (unsigned i = 0; i < found.count; i++) {
        if (found.position_mm[i] != expected->position_mm[i])
            fail_msg("%s: point %u is %.17g, expected %.17g", name, i, found.position_mm[i], expected->position_mm[i]);
    }
}

static void every_estimator_gives_what_is_expected(void **state)
{
    (void)state;
    for (size_t i = 0; i < EXAMPLE_COUNT; i++) {
        build(examples[i].phases, examples[i].phase_count);
        for (size_t j = 0; j < NAME_COUNT; j++)
            assert_points(names[j], &examples[i].expected[j]);
    }
}

/* `production`: entry, transition, exit by gradient, all of them or none. `auto`: the same, but the transition by gradient unless the
 * head pecks, and the gradient's own where something is not found. */
static void composites_put_the_others_together(void **state)
{
    (void)state;
    for (size_t i = 0; i < EXAMPLE_COUNT; i++) {
        build(examples[i].phases, examples[i].phase_count);
        const struct expected *gradient = &examples[i].expected[0], *entry = &examples[i].expected[4],
                              *transition = &examples[i].expected[5];
        struct expected production = {.failure = "Not enough steps to estimate depth"}, best = production;
        if (curve.step_count >= 2) {
            bool complete = gradient->count && entry->count && transition->count;
            production =
                complete
                    ? (struct expected){3,
                                        {entry->position_mm[0], transition->position_mm[0], gradient->position_mm[gradient->count - 1]},
                                        NULL}
                    : (struct expected){.failure = "no transition found"};
            best = *gradient;
            if (entry->count)
                best.position_mm[0] = entry->position_mm[0];
            if (strcmp(examples[i].name, "micro-peck") == 0)
                best.position_mm[1] = transition->position_mm[0];
        }
        assert_points("production", &production);
        assert_points("auto", &best);
    }
}

static void too_few_steps_are_told_by_the_composites_alone(void **state)
{
    (void)state;
    struct keypoints found;
    struct estimator_failure failure;
    build(examples[3].phases, examples[3].phase_count);
    assert_int_equal(curve.step_count, 1);
    assert_int_equal(estimate("auto", &estimator_defaults, &found, &failure), ERR_ESTIMATE);
    assert_int_equal(failure.problem, ESTIMATOR_TOO_FEW_STEPS);
    assert_int_equal(estimate("production", &estimator_defaults, &found, &failure), ERR_ESTIMATE);
    assert_int_equal(failure.problem, ESTIMATOR_TOO_FEW_STEPS);
    assert_int_equal(estimate("gradient", &estimator_defaults, &found, &failure), 0);
}

/* Step 2 of a cycle whose advance is given by `advance_um` for each sample. */
static void build_step2(int (*advance_um)(int sample))
{
    int at_um = 600;
    size_t count = 0;
    for (int i = 0; i < 1400; i++) {
        at_um += i < 400 ? 20 : advance_um(i - 400);
        position[count] = (float)(-at_um / 1000.0);
        torque[count] = i < 200 ? 0 : i < 390 ? 1 : i < 1000 ? 3 : 0.2f;
        step[count++] = i < 400 ? 1 : 2;
    }
    assemble(count);
}

static int steady(int sample)
{
    return sample % 2 ? 8 : 9;
}
static int jittering(int sample)
{
    return sample % 50 == 0 ? -1 : 8;
}
static int glitching(int sample)
{
    return sample == 500 || sample == 501 ? (sample == 500 ? -900 : 908) : 8;
}
static int stopping(int sample)
{
    return sample % 10 == 0 ? 80 : 0;
}
static int pecking(int sample)
{
    return sample % 10 == 0 ? 80 : sample % 10 == 5 ? -10 : 1;
}
static int seldom_pecking(int sample)
{
    return sample % 500 == 0 ? -400 : sample % 10 == 0 ? 80 : 0;
}

/* Which transition `auto` takes tells for what kind of head it holds the curve. */
static bool looks_like_micro_peck(int (*advance_um)(int sample))
{
    struct keypoints best, gradient, transition;
    struct estimator_failure failure;
    build_step2(advance_um);
    assert_int_equal(estimate("auto", &estimator_defaults, &best, &failure), 0);
    assert_int_equal(estimate("gradient", &estimator_defaults, &gradient, &failure), 0);
    assert_int_equal(estimate("transition", &estimator_defaults, &transition, &failure), 0);
    assert_int_equal(best.count, 3);
    assert_true(gradient.position_mm[1] != transition.position_mm[0]);
    bool by_break = best.position_mm[1] == transition.position_mm[0];
    assert_true(by_break || best.position_mm[1] == gradient.position_mm[1]);
    return by_break;
}

static void micro_pecks_are_told_from_other_movements(void **state)
{
    (void)state;
    assert_true(looks_like_micro_peck(pecking));
    assert_false(looks_like_micro_peck(steady));
    assert_false(looks_like_micro_peck(jittering));
    assert_false(looks_like_micro_peck(glitching));
    assert_false(looks_like_micro_peck(stopping));
    assert_false(looks_like_micro_peck(seldom_pecking));
}

/* A head that counts its steps from 2. The curve is one of the steps 1 and 2 with other numbers. */
static void a_cycle_of_steps_2_and_3_has_its_layers_there(void **state)
{
    (void)state;
    static const struct phase ordinary[] = {
        {1, 220, 30, 0, 0, 49, 0},        {1, 40, 30, 0, 5000, 98, 0},   {1, 200, 30, 5000, 5000, 98, 0}, {2, 100, 8, 5000, 15000, 98, 0},
        {2, 500, 8, 15000, 15000, 98, 0}, {2, 60, 8, 15000, 300, 98, 0}, {2, 100, 8, 300, 300, 49, 0}};
    enum { PHASES = sizeof ordinary / sizeof *ordinary };
    struct phase shifted[PHASES];
    struct keypoints expected, found, gradient;
    struct estimator_failure failure;
    build(ordinary, PHASES);
    assert_int_equal(estimate("auto", &estimator_defaults, &expected, &failure), 0);
    assert_int_equal(expected.count, 3);
    memcpy(shifted, ordinary, sizeof shifted);
    for (size_t i = 0; i < PHASES; i++)
        shifted[i].step++;
    build(shifted, PHASES);
    assert_int_equal(estimate("auto", &estimator_defaults, &found, &failure), 0);
    assert_int_equal(found.count, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_true(fabs(found.position_mm[i] - expected.position_mm[i]) < 1e-9);
    /* `gradient` judges step 2 alone, as ever. */
    assert_int_equal(estimate("gradient", &estimator_defaults, &gradient, &failure), 0);
    assert_int_equal(gradient.count, 2);
    /* Where step 3 runs out in the air, so does `auto`: but for its entry. */
    for (size_t i = 3; i < PHASES; i++) {
        shifted[i].torque_first_ma = shifted[i].torque_last_ma = 0;
        shifted[i].ripple_ma = 49;
    }
    build(shifted, PHASES);
    assert_int_equal(estimate("auto", &estimator_defaults, &found, &failure), 0);
    assert_int_equal(estimate("gradient", &estimator_defaults, &gradient, &failure), 0);
    assert_int_equal(found.count, 2);
    assert_true(found.position_mm[1] == gradient.position_mm[1]);
    /* And where the order of the key points is impossible: the torque falls first and rises at the end. */
    memcpy(&shifted[3], (struct phase[]){{3, 60, 8, 15000, 300, 98, 0}, {3, 500, 8, 300, 300, 98, 0}, {3, 100, 8, 300, 15000, 98, 0}},
           3 * sizeof *shifted);
    build(shifted, PHASES - 1);
    assert_int_equal(estimate("auto", &estimator_defaults, &found, &failure), 0);
    assert_int_equal(found.count, 2);
}

static void the_bit_depth_sets_the_window(void **state)
{
    (void)state;
    build(examples[0].phases, examples[0].phase_count);
    struct keypoints narrow, wide;
    struct estimator_failure failure;
    /* 30 samples at 7 um are 0.21 mm: there the automatic window is the fixed one for the second layer */
    assert_int_equal(estimate("gradient", &(struct estimator_settings){.bit_depth_mm = 0.21}, &narrow, &failure), 0);
    assert_int_equal(estimate("gradient30", &estimator_defaults, &wide, &failure), 0);
    assert_true(fabs(narrow.position_mm[1] - wide.position_mm[1]) < 0.3);
    assert_int_equal(estimate("gradient", &(struct estimator_settings){.bit_depth_mm = 1e6}, &wide, &failure), ERR_ESTIMATE);
    assert_string_equal(failure.text, "too few samples");
    assert_int_equal(estimate("gradient", &(struct estimator_settings){.bit_depth_mm = 1e-9}, &wide, &failure), ERR_ESTIMATE);
    assert_int_equal(estimate("segments", &(struct estimator_settings){.bit_depth_mm = 1e-9}, &wide, &failure), ERR_ESTIMATE);
    assert_int_equal(failure.problem, ESTIMATOR_WINDOW);
}

static void a_curve_that_begins_while_cutting_has_no_entry(void **state)
{
    (void)state;
    struct keypoints found;
    struct estimator_failure failure;
    for (int i = 0; i < 100; i++) {
        position[i] = -4 - 0.01f * (float)i;
        torque[i] = 1;
        step[i] = 1 + i / 50;
    }
    assemble(100);
    assert_int_equal(estimate("entry", &estimator_defaults, &found, &failure), ERR_ESTIMATE);
    assert_int_equal(failure.problem, ESTIMATOR_NO_ENTRY);
    assert_int_equal(estimate("production", &estimator_defaults, &found, &failure), ERR_ESTIMATE);
    assert_int_equal(failure.problem, ESTIMATOR_NO_ENTRY);
    torque[0] = 0; /* and one that begins just before has it at its second sample */
    assemble(100);
    assert_int_equal(estimate("entry", &estimator_defaults, &found, &failure), 0);
    assert_true(found.position_mm[0] == (double)(4 + 0.01f));
}

static void curves_of_a_few_samples_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t count = 1; count <= 31; count++) {
        for (size_t i = 0; i < count; i++) {
            position[i] = -0.5f - 0.25f * (float)i;
            torque[i] = i % 3 ? 0.3f : 0;
            step[i] = i < count / 2 ? 1 : 2;
        }
        assemble(count);
        for (size_t i = 0; estimator_at(i); i++) {
            struct keypoints found;
            struct estimator_failure failure;
            int error = estimate(estimator_at(i)->name, &estimator_defaults, &found, &failure);
            assert_true(error == ERR_ESTIMATE ? failure.text[0] != 0 : error == 0 && found.count > 0);
        }
    }
}

/* Values that are finite as floats but not when they are added, or whose differences vanish. */
static void extreme_values_do_no_harm(void **state)
{
    (void)state;
    static const float values[] = {0, -0.0f, 3.4e38f, -3.4e38f, 1e-45f, 1, -1, 1e30f, 1e-30f, 100};
    uint32_t seed = 7;
    for (int round = 0; round < 200; round++) {
        size_t count = 1 + (size_t)round * 3;
        for (size_t i = 0; i < count; i++) {
            seed = seed * 1664525 + 1013904223;
            position[i] = values[(seed >> 8) % 10];
            torque[i] = values[(seed >> 16) % 10];
            step[i] = (int32_t)(i * 4 / count);
        }
        assemble(count);
        for (size_t i = 0; estimator_at(i); i++) {
            struct keypoints found;
            struct estimator_failure failure;
            int error = estimate(estimator_at(i)->name, &estimator_defaults, &found, &failure);
            assert_true(error == 0 || error == ERR_ESTIMATE);
            for (unsigned j = 0; !error && j < found.count; j++)
                assert_true(isfinite(found.position_mm[j]));
        }
    }
}

static void memory_of_a_long_step_is_given_back(void **state)
{
    (void)state;
    enum { COUNT = 300000 };
    float *values = calloc(COUNT, sizeof *values);
    int32_t *steps = calloc(COUNT, sizeof *steps);
    assert_non_null(values);
    assert_non_null(steps);
    for (int i = 0; i < COUNT; i++) {
        values[i] = (float)i * -1e-4f;
        steps[i] = 1;
    }
    struct payload_trace trace = {.sample_count = COUNT, .position_mm = values, .torque_a = values, .thrust_a = values, .step = steps};
    struct keypoints found;
    struct estimator_failure failure;
    assert_int_equal(curve_assemble(curves, &rows, &trace, &curve), 0);
    assert_int_equal(estimate("gradient", &estimator_defaults, &found, &failure), 0);
    build(examples[0].phases, examples[0].phase_count);
    assert_points("gradient", &examples[0].expected[0]);
    free(values);
    free(steps);
}

static void names_are_found_in_the_table(void **state)
{
    (void)state;
    assert_string_equal(estimator_at(0)->name, "auto");
    size_t count = 0;
    for (; estimator_at(count); count++) {
        assert_ptr_equal(estimator_find(estimator_at(count)->name), estimator_at(count));
        assert_true(strlen(estimator_at(count)->help) > 10);
    }
    assert_int_equal(count, 8);
    assert_null(estimator_at(1000));
    assert_null(estimator_find("Gradient"));
    assert_null(estimator_find(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_estimator_gives_what_is_expected),
        cmocka_unit_test(composites_put_the_others_together),
        cmocka_unit_test(too_few_steps_are_told_by_the_composites_alone),
        cmocka_unit_test(micro_pecks_are_told_from_other_movements),
        cmocka_unit_test(a_cycle_of_steps_2_and_3_has_its_layers_there),
        cmocka_unit_test(the_bit_depth_sets_the_window),
        cmocka_unit_test(a_curve_that_begins_while_cutting_has_no_entry),
        cmocka_unit_test(curves_of_a_few_samples_are_refused_by_name),
        cmocka_unit_test(extreme_values_do_no_harm),
        cmocka_unit_test(memory_of_a_long_step_is_given_back),
        cmocka_unit_test(names_are_found_in_the_table),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
