/* simulate: the accounts of a simulation: holes, estimates, answers, shares of shapes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "simulate/simulate_answer.h"
#include "simulate/simulate_curves.h"
#include "simulate/simulate_ledger.h"
#include "simulate/simulate_tally.h"
#include "unit.h"

/* ---- ledger ---- */

static void a_hole_keeps_its_slot_until_nothing_is_waited_for(void **state)
{
    (void)state;
    struct simulate_ledger ledger;
    struct simulate_hole *found;
    assert_int_equal(simulate_ledger_init(&ledger, 2), 0);
    struct simulate_hole *hole = simulate_ledger_open(&ledger, false);
    assert_int_equal(hole->result_id, 1);
    hole->waiting = 1;
    assert_true(simulate_ledger_answer(&ledger, hole, SIMULATE_KEYPOINTS));
    assert_false(simulate_ledger_answer(&ledger, hole, SIMULATE_KEYPOINTS));
    assert_int_equal(ledger.answered, 0);
    assert_true(simulate_ledger_answer(&ledger, hole, SIMULATE_DEPTHS));
    assert_int_equal(ledger.answered, 1);
    assert_int_equal(ledger.unanswered, 0);
    assert_false(simulate_ledger_settle(&ledger, hole));
    assert_int_equal(simulate_ledger_find(&ledger, 1, &found), SIMULATE_OPEN);
    assert_ptr_equal(found, hole);
    hole->waiting = 0;
    assert_true(simulate_ledger_settle(&ledger, hole));
    assert_int_equal(simulate_ledger_find(&ledger, 1, &found), SIMULATE_ANSWERED);
    assert_null(found);
    assert_int_equal(ledger.free_count, 2);
    simulate_ledger_fini(&ledger);
}

static void slots_are_limited_and_identifiers_are_not_used_twice(void **state)
{
    (void)state;
    struct simulate_ledger ledger;
    struct simulate_hole *found;
    assert_int_equal(simulate_ledger_init(&ledger, 0), ERR_INVALID);
    assert_int_equal(simulate_ledger_init(&ledger, SIMULATE_SLOTS_MAX + 1), ERR_INVALID);
    assert_int_equal(simulate_ledger_init(&ledger, 3), 0);
    for (uint32_t id = 1; id <= 3000; id += 3) {
        struct simulate_hole *holes[3];
        for (uint32_t i = 0; i < 3; i++) {
            holes[i] = simulate_ledger_open(&ledger, i == 2);
            assert_int_equal(holes[i]->result_id, id + i);
        }
        assert_null(simulate_ledger_open(&ledger, false));
        simulate_ledger_answer(&ledger, holes[0], SIMULATE_KEYPOINTS);
        simulate_ledger_answer(&ledger, holes[0], SIMULATE_DEPTHS);
        simulate_ledger_give_up(&ledger, holes[1]);
        for (uint32_t i = 0; i < 3; i++)
            assert_true(simulate_ledger_settle(&ledger, holes[i]));
    }
    assert_int_equal(ledger.answered, 1000);
    assert_int_equal(ledger.lost, 1000);
    assert_int_equal(ledger.unanswered, 0);
    assert_int_equal(simulate_ledger_find(&ledger, 1, &found), SIMULATE_ANSWERED);
    assert_int_equal(simulate_ledger_find(&ledger, 2999, &found), SIMULATE_LOST);
    assert_int_equal(simulate_ledger_find(&ledger, 3000, &found), SIMULATE_MALFORMED);
    assert_int_equal(simulate_ledger_find(&ledger, 0, &found), SIMULATE_FOREIGN);
    assert_int_equal(simulate_ledger_find(&ledger, 3001, &found), SIMULATE_FOREIGN);
    simulate_ledger_fini(&ledger);
}

static void what_was_lost_can_be_answered_late(void **state)
{
    (void)state;
    for (int settled = 0; settled < 2; settled++) {
        struct simulate_ledger ledger;
        struct simulate_hole *found;
        assert_int_equal(simulate_ledger_init(&ledger, 4), 0);
        struct simulate_hole *hole = simulate_ledger_open(&ledger, false);
        hole->waiting = !settled;
        simulate_ledger_answer(&ledger, hole, SIMULATE_DEPTHS);
        simulate_ledger_give_up(&ledger, hole);
        assert_int_equal(simulate_ledger_settle(&ledger, hole), settled);
        assert_int_equal(simulate_ledger_find(&ledger, 1, &found), SIMULATE_LOST);
        assert_false(simulate_ledger_recover(&ledger, 1, SIMULATE_DEPTHS));
        assert_int_equal(ledger.lost, 1);
        assert_true(simulate_ledger_recover(&ledger, 1, SIMULATE_KEYPOINTS));
        assert_int_equal(ledger.lost, 0);
        assert_int_equal(ledger.answered, 1);
        assert_int_equal(ledger.recovered, 1);
        hole->waiting = 0;
        if (!settled)
            assert_true(simulate_ledger_settle(&ledger, hole));
        assert_int_equal(simulate_ledger_find(&ledger, 1, &found), SIMULATE_ANSWERED);
        simulate_ledger_fini(&ledger);
    }
}

/* ---- tally ---- */

static void estimates_are_compared_point_by_point(void **state)
{
    (void)state;
    struct simulate_tally *tally = calloc(1, sizeof *tally);
    struct simulator_truth truth = {5, 9, 13};
    const double first[] = {5.1, 9.3, 13.5}, second[] = {5.3, 9.3, 13.5};
    simulate_tally_estimate(tally, SIMULATOR_TWO_STACK, &truth, first, 3);
    simulate_tally_estimate(tally, SIMULATOR_TWO_STACK, &truth, second, 3);
    const struct simulate_errors *errors = tally->errors[SIMULATOR_TWO_STACK];
    assert_int_equal(errors[SIMULATE_ENTRY].count, 2);
    assert_true(fabs(errors[SIMULATE_ENTRY].mean_mm - 0.2) < 1e-12);
    assert_true(fabs(simulate_errors_deviation(&errors[SIMULATE_ENTRY]) - sqrt(0.02)) < 1e-12);
    assert_true(fabs(errors[SIMULATE_ENTRY].max_mm - 0.3) < 1e-12);
    assert_true(fabs(errors[SIMULATE_LAYER_1].mean_mm - 0.1) < 1e-12);
    assert_true(fabs(errors[SIMULATE_LAYER_2].mean_mm - 0.2) < 1e-12);
    assert_true(fabs(errors[SIMULATE_DEPTH].mean_mm - 0.3) < 1e-12);
    assert_in_range(histogram_quantile(&errors[SIMULATE_EXIT].absolute_um, 0.5), 495, 510);
    free(tally);
}

static void unknown_points_are_left_out(void **state)
{
    (void)state;
    struct simulate_tally *tally = calloc(1, sizeof *tally);
    struct simulator_truth one_stack = {5, (double)NAN, 13}, unknown = {(double)NAN, (double)NAN, (double)NAN};
    const double values[] = {5, 8, 14};
    simulate_tally_estimate(tally, SIMULATOR_ONE_STACK, &one_stack, values, 3);
    assert_int_equal(tally->errors[SIMULATOR_ONE_STACK][SIMULATE_TRANSITION].count, 0);
    assert_int_equal(tally->errors[SIMULATOR_ONE_STACK][SIMULATE_LAYER_1].count, 0);
    assert_true(fabs(tally->errors[SIMULATOR_ONE_STACK][SIMULATE_EXIT].mean_mm - 1) < 1e-12);
    simulate_tally_estimate(tally, SIMULATOR_ONE_STACK, &one_stack, (const double[]){5, 13}, 2);
    assert_int_equal(tally->errors[SIMULATOR_ONE_STACK][SIMULATE_EXIT].count, 2);
    simulate_tally_estimate(tally, SIMULATOR_ONE_STACK, &one_stack, values, 1);
    simulate_tally_estimate(tally, SIMULATOR_FROM_FILE, &unknown, values, 3);
    simulate_tally_estimate(tally, SIMULATOR_AIR, &unknown, values, 3);
    assert_int_equal(tally->errors[SIMULATOR_ONE_STACK][SIMULATE_EXIT].count, 2);
    assert_true(simulate_errors_deviation(&tally->errors[SIMULATOR_MICRO_PECK][SIMULATE_EXIT]) < 1e-12);
    free(tally);
}

static void error_texts_are_counted_up_to_a_limit(void **state)
{
    (void)state;
    struct simulate_tally *tally = calloc(1, sizeof *tally);
    for (int i = 0; i < SIMULATE_ERROR_TEXTS_MAX + 3; i++) {
        char text[300];
        snprintf(text, sizeof text, "%0250d", i);
        memmove(text, text + 200, 51);
        simulate_tally_error(tally, text);
        simulate_tally_error(tally, text);
    }
    assert_int_equal(tally->text_count, SIMULATE_ERROR_TEXTS_MAX);
    assert_int_equal(tally->texts[0].count, 2);
    assert_int_equal(tally->other_texts, 6);
    free(tally);
}

/* ---- answers ---- */

static int read_answer(struct simulate_answer *answer, const char *text)
{
    return simulate_answer_read(answer, text, strlen(text));
}

static void answers_are_read(void **state)
{
    (void)state;
    struct simulate_answer answer;
    assert_int_equal(read_answer(&answer,
                                 "{\"SourceTimestamp\": \"2024-05-15T07:29:33Z\", \"MachineId\": \"0\", \"ResultId\": \"440\", \"HeadId\": "
                                 "\"E00401009F45BACA\", \"Value\": [3.588, 21, 25.1], \"AlgoVersion\": \"0.2.6\"}"),
                     0);
    assert_int_equal(answer.result_id, 440);
    assert_string_equal(answer.stamp, "2024-05-15T07:29:33Z");
    assert_string_equal(answer.machine_id, "0");
    assert_string_equal(answer.head_id, "E00401009F45BACA");
    assert_int_equal(answer.value_count, 3);
    assert_true(fabs(answer.values[1] - 21) < 1e-12);
    assert_false(answer.error);
    assert_int_equal(read_answer(&answer,
                                 "{\"SourceTimestamp\": \"s\", \"MachineId\": null, \"ResultId\": null, \"HeadId\": null, \"Value\": "
                                 "\"Error in keypoint estimation: no torque\", \"Error\": true}"),
                     0);
    assert_int_equal(answer.result_id, 0);
    assert_true(answer.error);
    assert_string_equal(answer.text, "Error in keypoint estimation: no torque");
    assert_string_equal(answer.head_id, "");
}

static void other_structures_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "[]",
        "{\"SourceTimestamp\": \"s\", \"MachineId\": \"0\", \"ResultId\": \"1\", \"HeadId\": null}",
        "{\"SourceTimestamp\": \"s\", \"MachineId\": \"0\", \"ResultId\": \"1\", \"HeadId\": null, \"Value\": []}",
        "{\"SourceTimestamp\": \"s\", \"MachineId\": \"0\", \"ResultId\": \"1\", \"HeadId\": null, \"Value\": [1, 2, 3, 4]}",
        "{\"SourceTimestamp\": \"s\", \"MachineId\": \"0\", \"ResultId\": \"1\", \"HeadId\": null, \"Value\": [1, null]}",
        "{\"SourceTimestamp\": \"s\", \"MachineId\": \"0\", \"ResultId\": \"1\", \"HeadId\": null, \"Value\": [1], \"Error\": true}",
        "{\"SourceTimestamp\": \"s\", \"MachineId\": 0, \"ResultId\": \"1\", \"HeadId\": null, \"Value\": [1]}",
        "{\"SourceTimestamp\": \"s\", \"MachineId\": \"0\", \"ResultId\": 1, \"HeadId\": null, \"Value\": [1]}",
        "{\"MachineId\": \"0\", \"ResultId\": \"1\", \"HeadId\": null, \"Value\": [1]}",
    };
    struct simulate_answer answer = {.result_id = 77};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_int_equal(read_answer(&answer, texts[i]), ERR_PAYLOAD);
    assert_int_equal(read_answer(&answer, "{"), ERR_NOT_JSON);
    assert_int_equal(read_answer(&answer, ""), ERR_NOT_JSON);
    assert_int_equal(answer.result_id, 77);
}

/* ---- shares of shapes ---- */

static void mixes_are_read(void **state)
{
    (void)state;
    struct simulate_mix mix;
    char problem[SIMULATE_PROBLEM_MAX];
    assert_int_equal(simulate_mix_parse(&mix, "two-stack,air=0.5,two-stack=2", problem), 0);
    assert_true(fabs(mix.weight[SIMULATOR_TWO_STACK] - 3) < 1e-12);
    assert_true(fabs(mix.weight[SIMULATOR_AIR] - 0.5) < 1e-12);
    assert_true(fabs(mix.weight[SIMULATOR_ONE_STACK]) < 1e-12);
}

static void mixes_are_refused_with_a_reason(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {{"two-stak", "Did you mean `two-stack`?"},
                 {"", "is no shape"},
                 {"two-stack,", "is no shape"},
                 {"two-stack=x", "weight of two-stack"},
                 {"air=-1", "from 0 to"},
                 {"air=nan", "from 0 to"},
                 {"air=", "expected a number"},
                 {"air=0", "needs a weight"},
                 {"file", "is no shape"}};
    struct simulate_mix mix = {{42}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char problem[SIMULATE_PROBLEM_MAX] = "";
        assert_int_equal(simulate_mix_parse(&mix, cases[i].text, problem), ERR_INVALID);
        if (!strstr(problem, cases[i].words))
            fail_msg("`%s` said \"%s\"", cases[i].text, problem);
    }
    assert_true(fabs(mix.weight[0] - 42) < 1e-12);
}

static void curves_are_dealt_by_weight(void **state)
{
    (void)state;
    struct simulate_mix mix = {{0}};
    struct simulate_curves curves;
    mix.weight[SIMULATOR_ONE_STACK] = 1;
    mix.weight[SIMULATOR_ABORTED] = 3;
    assert_int_equal(simulate_curves_generate(&curves, &mix, 40, 1), 0);
    unsigned aborted = 0;
    for (size_t i = 0; i < curves.count; i++) {
        aborted += curves.items[i].shape == SIMULATOR_ABORTED;
        assert_true(curves.items[i].rendering.torque.length > 0);
    }
    assert_int_equal(curves.count, 40);
    assert_in_range(aborted, 29, 31);
    simulate_curves_fini(&curves);
}

static void a_folder_that_is_not_there_is_named(void **state)
{
    (void)state;
    struct simulate_curves curves = {.count = 5};
    char problem[SIMULATE_PROBLEM_MAX];
    assert_int_equal(simulate_curves_read(&curves, "/nonexistent", problem), ERR_NOT_FOUND);
    assert_non_null(strstr(problem, "/nonexistent"));
    assert_int_equal(curves.count, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hole_keeps_its_slot_until_nothing_is_waited_for),
        cmocka_unit_test(slots_are_limited_and_identifiers_are_not_used_twice),
        cmocka_unit_test(what_was_lost_can_be_answered_late),
        cmocka_unit_test(estimates_are_compared_point_by_point),
        cmocka_unit_test(unknown_points_are_left_out),
        cmocka_unit_test(error_texts_are_counted_up_to_a_limit),
        cmocka_unit_test(answers_are_read),
        cmocka_unit_test(other_structures_are_refused),
        cmocka_unit_test(mixes_are_read),
        cmocka_unit_test(mixes_are_refused_with_a_reason),
        cmocka_unit_test(curves_are_dealt_by_weight),
        cmocka_unit_test(a_folder_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests_name("simulate", tests, NULL, NULL);
}
