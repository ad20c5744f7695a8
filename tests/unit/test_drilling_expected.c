/* All real curves and message sets, through payload, curve and estimators, against the key points that are expected of them. */
#include <jansson.h>
#include <math.h>

#include "base/error.h"
#include "drilling/estimator.h"
#include "drilling_shared.h"
#include "unit.h"

static const double TOLERANCE_MM = 1e-6;

static struct payload_reader *reader;
static struct curve_scratch *curves;
static struct estimator_scratch *estimates;
static struct payload_paths paths;

static void check_failure(const char *id, const char *name, const struct estimator_failure *failure, const json_t *row)
{
    char key[64];
    snprintf(key, sizeof key, "%s_note", name);
    const char *note = json_string_value(json_object_get(row, key));
    if (note && strcmp(failure->text, note) != 0)
        fail_msg("%s, %s: the failure is '%s', expected '%s'", id, name, failure->text, note);
}

static void check_estimate(const char *id, const char *name, const struct curve *curve, const json_t *row)
{
    struct keypoints found = {0};
    struct estimator_failure failure = {0};
    const json_t *expected = json_object_get(row, name);
    int error = estimator_find(name)->estimate(curve, &estimator_defaults, estimates, &found, &failure);
    if (!expected || json_is_null(expected)) {
        if (error != ERR_ESTIMATE)
            fail_msg("%s, %s: key points where none are expected", id, name);
        check_failure(id, name, &failure, row);
        return;
    }
    if (error)
        fail_msg("%s, %s: %s", id, name, failure.text);
    assert_int_equal(found.count, json_is_array(expected) ? json_array_size(expected) : 1);
    for (size_t i = 0; i < found.count; i++) {
        double value = json_number_value(json_is_array(expected) ? json_array_get(expected, i) : expected);
        if (!(fabs(found.position_mm[i] - value) <= TOLERANCE_MM))
            fail_msg("%s, %s: key point %zu is %.9f, expected %.9f", id, name, i, found.position_mm[i], value);
    }
}

/* Cycles of the steps 2 and 3 alone, and those of them whose second layer `auto` finds in step 3. */
static unsigned counts_from_step2, layers_in_step3;

static double curve_first_mm(const struct curve *curve, size_t step)
{
    return fabs((double)curve->position_mm[curve->steps[step].first]);
}

/* The composites have no column; they follow from the others. `auto` takes the transition for micro-peck heads, "MQ" in their names. */
static void check_composites(const char *id, const struct curve *curve)
{
    struct keypoints gradient = {0}, entry = {0}, transition = {0}, production = {0}, best = {0};
    struct estimator_failure failure;
    int no_gradient = estimator_find("gradient")->estimate(curve, &estimator_defaults, estimates, &gradient, &failure);
    int no_entry = estimator_find("entry")->estimate(curve, &estimator_defaults, estimates, &entry, &failure);
    int no_transition = estimator_find("transition")->estimate(curve, &estimator_defaults, estimates, &transition, &failure);
    int no_production = estimator_find("production")->estimate(curve, &estimator_defaults, estimates, &production, &failure);
    int no_best = estimator_find("auto")->estimate(curve, &estimator_defaults, estimates, &best, &failure);
    if (curve->step_count < 2) {
        assert_int_equal(no_production, ERR_ESTIMATE);
        assert_int_equal(no_best, ERR_ESTIMATE);
        assert_int_equal(failure.problem, ESTIMATOR_TOO_FEW_STEPS);
        assert_string_equal(failure.text, "Not enough steps to estimate depth");
        return;
    }
    assert_int_equal(no_production != 0, no_gradient || no_entry || no_transition);
    if (!no_production) {
        assert_int_equal(production.count, 3);
        assert_true(production.position_mm[0] == entry.position_mm[0]);
        assert_true(production.position_mm[1] == transition.position_mm[0]);
        assert_true(production.position_mm[2] == gradient.position_mm[gradient.count - 1]);
    }
    assert_int_equal(no_best, no_gradient);
    if (no_best)
        return;
    bool from_step2 = curve->step_count == 2 && curve->steps[0].number == 2 && curve->steps[1].number == 3;
    counts_from_step2 += from_step2;
    if (from_step2 && best.count == 3) {
        assert_true(best.position_mm[0] == (no_entry ? gradient : entry).position_mm[0]);
        assert_true(best.position_mm[0] < best.position_mm[1] && best.position_mm[1] < best.position_mm[2]);
        assert_true(best.position_mm[1] > curve_first_mm(curve, 1));
        layers_in_step3++;
        return;
    }
    bool micro_peck = strstr(id, "-MQ_") || strstr(id, "data_20250326");
    assert_int_equal(best.count, gradient.count);
    assert_true(best.position_mm[0] == (no_entry ? gradient : entry).position_mm[0]);
    assert_true(best.position_mm[best.count - 1] == gradient.position_mm[best.count - 1]);
    if (best.count == 3 && best.position_mm[1] != (micro_peck && !no_transition ? transition.position_mm[0] : gradient.position_mm[1]))
        fail_msg("%s: the transition is not that of its kind of head", id);
}

static void check_row(const char *data, const json_t *row, struct shared_curve *columns, struct buffer *result, struct buffer *trace)
{
    static const char *const names[] = {"gradient30_by_order", "gradient30", "gradient", "segments", "entry", "transition"};
    const char *id = json_string_value(json_object_get(row, "id"));
    struct payload first, second;
    struct stage_refusal refusal = {0};
    struct curve curve;
    if (!shared_messages(data, id, columns, result, trace))
        fail_msg("%s cannot be read", id);
    if (payload_read(reader, &paths, PAYLOAD_RESULT, result->data, result->length, &first, &refusal) != 0 ||
        payload_read(reader, &paths, PAYLOAD_TRACE, trace->data, trace->length, &second, &refusal) != 0)
        fail_msg("%s: %s", id, refusal.error);
    assert_string_equal(first.stamp, second.stamp);
    assert_string_equal(first.result.result_id, second.trace.result_id);
    assert_int_equal(curve_assemble(curves, &first.result, &second.trace, &curve), 0);
    assert_int_equal(curve.sample_count, json_integer_value(json_object_get(row, "samples")));
    const json_t *steps = json_object_get(row, "steps");
    assert_int_equal(curve.step_count, json_array_size(steps));
    for (size_t i = 0; i < curve.step_count; i++)
        assert_int_equal(curve.steps[i].number, json_integer_value(json_array_get(steps, i)));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check_estimate(id, names[i], &curve, row);
    check_composites(id, &curve);
}

static void every_expected_row_is_met(void **state)
{
    (void)state;
    const char *data = shared_data();
    if (!data)
        skip();
    assert_int_equal(payload_reader_create(&reader), 0);
    assert_int_equal(curve_scratch_create(&curves), 0);
    assert_int_equal(estimator_scratch_create(&estimates), 0);
    payload_paths_default(&paths);
    struct buffer list, result, trace;
    shared_buffer_init(&list);
    shared_buffer_init(&result);
    shared_buffer_init(&trace);
    struct shared_curve columns;
    shared_curve_each(&columns, shared_buffer_init);
    char path[1024];
    snprintf(path, sizeof path, "%s/expected_keypoints.jsonl", data);
    assert_true(shared_read(&list, path));
    size_t rows = 0;
    char *line = (char *)list.data;
    for (char *end; (end = strchr(line, '\n')); line = end + 1) {
        json_t *row = json_loadb(line, (size_t)(end - line), 0, NULL);
        assert_non_null(row);
        check_row(data, row, &columns, &result, &trace);
        json_decref(row);
        rows++;
    }
    printf("%zu rows agree within %g mm\n", rows, TOLERANCE_MM);
    assert_in_range(rows, 446, 1000000);
    printf("%u of %u cycles of steps 2 and 3 have their second layer in step 3\n", layers_in_step3, counts_from_step2);
    assert_true(layers_in_step3 >= counts_from_step2 - 3);
    shared_curve_each(&columns, buffer_fini);
    buffer_fini(&list);
    buffer_fini(&result);
    buffer_fini(&trace);
    estimator_scratch_destroy(estimates);
    curve_scratch_destroy(curves);
    payload_reader_destroy(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_expected_row_is_met)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
