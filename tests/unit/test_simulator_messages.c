/* simulate/simulator_messages and simulator_malformed: what they write is the real envelope, checked by a JSON library. */
#include "simulate/simulator_messages.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/error.h"
#include "simulate/simulator_malformed.h"
#include "unit.h"

enum { OUT_LIMIT = 4 << 20 };

static const struct simulator_identity nobody = {
    .toolbox = "BOX1",
    .device = "setitec 007",
    .stamp = "2026-01-31T12:00:00Z",
    .machine_id = "23120040",
    .head_id = "E00401009F45C395",
    .result_id = 4711,
    .message_id = 99,
};

struct fixture {
    struct simulator_curve curve;
    struct simulator_rendering rendering;
    struct buffer out;
};

static void open_shape(struct fixture *fixture, enum simulator_shape shape, uint64_t seed)
{
    assert_int_equal(simulator_curve_generate(&fixture->curve, shape, seed), 0);
    assert_int_equal(simulator_rendering_init(&fixture->rendering, &fixture->curve), 0);
    buffer_init(&fixture->out, OUT_LIMIT);
}

static void close_fixture(struct fixture *fixture)
{
    simulator_curve_fini(&fixture->curve);
    simulator_rendering_fini(&fixture->rendering);
    buffer_fini(&fixture->out);
}

/* Writes a message and parses it. The caller owns the reference. */
static json_t *write_and_parse(struct fixture *fixture, enum simulator_message message, const struct simulator_identity *identity)
{
    buffer_clear(&fixture->out);
    assert_int_equal(simulator_message_write(&fixture->out, message, &fixture->rendering, identity), 0);
    json_error_t problem;
    json_t *root = json_loadb((const char *)fixture->out.data, fixture->out.length, JSON_REJECT_DUPLICATES, &problem);
    if (!root)
        fail_msg("not JSON: %s at %d", problem.text, problem.position);
    return root;
}

static json_t *payload_of(json_t *root)
{
    json_t *messages = json_object_get(root, "Messages");
    json_t *payload = json_object_get(json_is_array(messages) ? json_array_get(messages, 0) : messages, "Payload");
    assert_true(json_is_object(payload));
    return payload;
}

/* The Value of the one key that contains `path`. */
static json_t *value_of(json_t *root, const char *path)
{
    json_t *found = NULL, *entry;
    const char *key;
    json_object_foreach(payload_of(root), key, entry)
    {
        if (strstr(key, path)) {
            assert_null(found);
            found = json_object_get(entry, "Value");
        }
    }
    assert_non_null(found);
    return found;
}

static void every_entry_carries_the_stamp(void **state)
{
    (void)state;
    struct fixture fixture;
    open_shape(&fixture, SIMULATOR_TWO_STACK, 1);
    for (int message = 0; message < SIMULATOR_MESSAGE_COUNT; message++) {
        json_t *root = write_and_parse(&fixture, (enum simulator_message)message, &nobody), *entry;
        const char *key;
        json_object_foreach(payload_of(root), key, entry)
        {
            assert_string_equal(json_string_value(json_object_get(entry, "SourceTimestamp")), nobody.stamp);
            assert_non_null(strstr(key, "nsu=http://airbus.com/IJT/ADrilling;s=Objects.DeviceSet.setitec 007."));
        }
        assert_string_equal(json_string_value(json_object_get(root, "PublisherId")), "BOX1");
        assert_int_equal(strlen(json_string_value(json_object_get(root, "MessageId"))), 36);
        json_decref(root);
    }
    close_fixture(&fixture);
}

static void arrays_are_the_curve(void **state)
{
    (void)state;
    struct fixture fixture;
    open_shape(&fixture, SIMULATOR_TWO_STACK, 2);
    json_t *root = write_and_parse(&fixture, SIMULATOR_TRACE, &nobody);
    const struct {
        const char *path;
        const int32_t *values;
        double scale;
    } arrays[] = {{"PositionTrace.StepTraceContent[0].Values", fixture.curve.position_um, 1000},
                  {"IntensityTorqueTrace.StepTraceContent[0].Values", fixture.curve.torque_ma, 1000},
                  {"IntensityThrustTrace.StepTraceContent[0].Values", fixture.curve.thrust_ma, 1000},
                  {"StepNumberTrace.StepTraceContent[0].Values", fixture.curve.step, 1}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        json_t *values = value_of(root, arrays[i].path);
        assert_int_equal(json_array_size(values), fixture.curve.sample_count);
        for (size_t j = 0; j < fixture.curve.sample_count; j++)
            assert_true(fabs(json_number_value(json_array_get(values, j)) - arrays[i].values[j] / arrays[i].scale) < 1e-12);
    }
    assert_int_equal(json_integer_value(value_of(root, "PositionTrace.StepResultId")), 4711);
    json_decref(root);
    close_fixture(&fixture);
}

static void numbers_have_no_more_decimals_than_they_need(void **state)
{
    (void)state;
    struct simulator_curve curve;
    static const int32_t positions[] = {0, 5000, -684, -10, 1, 2000000000, -2000000000, 100, 120};
    enum { COUNT = sizeof positions / sizeof *positions };
    assert_int_equal(simulator_curve_init(&curve, COUNT), 0);
    memcpy(curve.position_um, positions, sizeof positions);
    assert_int_equal(simulator_curve_add_step(&curve, 0, 5811, 410), 0);
    struct simulator_rendering rendering;
    assert_int_equal(simulator_rendering_init(&rendering, &curve), 0);
    char text[200];
    snprintf(text, sizeof text, "%.*s %.*s %.*s", (int)rendering.position.length, rendering.position.text,
             (int)rendering.torque_empty.length, rendering.torque_empty.text, (int)rendering.cycle_time.length, rendering.cycle_time.text);
    assert_string_equal(text, "[0,5,-0.684,-0.01,0.001,2000000,-2000000,0.1,0.12] 5.811 0.09");
    simulator_rendering_fini(&rendering);
    simulator_curve_fini(&curve);
}

static void layouts_vary_ids_suffix_namespace_and_array(void **state)
{
    (void)state;
    struct fixture fixture;
    open_shape(&fixture, SIMULATOR_TWO_STACK, 3);
    struct simulator_identity identity = nobody;
    json_t *root = write_and_parse(&fixture, SIMULATOR_RESULT, &identity);
    assert_true(json_is_integer(value_of(root, "ResultMetaData.ResultId")));
    assert_true(json_is_integer(value_of(root, "ResultMetaData.SerialNumber")));
    assert_null(memmem(fixture.out.data, fixture.out.length, "MeasuredValue", 13));
    json_decref(root);

    identity.layout = SIMULATOR_LAYOUT_MEASURED_VALUE | SIMULATOR_LAYOUT_TEXT_IDS | SIMULATOR_LAYOUT_ARRAY | SIMULATOR_LAYOUT_FASTENING;
    root = write_and_parse(&fixture, SIMULATOR_RESULT, &identity);
    assert_true(json_is_array(json_object_get(root, "Messages")));
    assert_string_equal(json_string_value(value_of(root, "ResultMetaData.ResultId")), "4711");
    assert_string_equal(json_string_value(value_of(root, "ResultMetaData.SerialNumber")), "23120040");
    assert_int_equal(json_array_size(value_of(root, "StepNumber.MeasuredValue")), fixture.curve.step_count);
    assert_null(memmem(fixture.out.data, fixture.out.length, "AFastening", 10));
    json_decref(root);
    root = write_and_parse(&fixture, SIMULATOR_TRACE, &identity);
    assert_non_null(memmem(fixture.out.data, fixture.out.length, "AFastening", 10));
    assert_null(memmem(fixture.out.data, fixture.out.length, "ADrilling", 9));
    json_decref(root);
    root = write_and_parse(&fixture, SIMULATOR_HEADS, &identity);
    assert_int_equal(json_integer_value(value_of(root, "LifeTimeCycleCounter")), 4711);
    assert_string_equal(json_string_value(value_of(root, "Identification.SerialNumber")), "E00401009F45C395");
    json_decref(root);
    close_fixture(&fixture);
}

static void a_cycle_of_one_step_has_plain_numbers(void **state)
{
    (void)state;
    struct fixture fixture;
    uint64_t seed = 0;
    for (;; seed++) { /* every other aborted cycle has one step */
        assert_true(seed < 50);
        open_shape(&fixture, SIMULATOR_ABORTED, seed);
        if (fixture.curve.step_count == 1)
            break;
        close_fixture(&fixture);
    }
    json_t *root = write_and_parse(&fixture, SIMULATOR_RESULT, &nobody);
    assert_true(json_is_number(value_of(root, "IntensityTorqueEmpty")));
    assert_true(json_is_integer(value_of(root, "StepNumber")));
    assert_string_equal(json_string_value(value_of(root, "ResultEvaluation")), "NotOK");
    json_decref(root);
    root = write_and_parse(&fixture, SIMULATOR_TRACE, &nobody);
    assert_true(json_is_array(value_of(root, "StepNumberTrace.StepTraceContent[0].Values")));
    json_decref(root);
    close_fixture(&fixture);
}

static void message_ids_differ(void **state)
{
    (void)state;
    struct fixture fixture;
    open_shape(&fixture, SIMULATOR_AIR, 4);
    char seen[6][37];
    for (unsigned i = 0; i < 6; i++) {
        struct simulator_identity identity = nobody;
        identity.message_id = 7 + i / 3;
        json_t *root = write_and_parse(&fixture, (enum simulator_message)(i % 3), &identity);
        snprintf(seen[i], sizeof seen[i], "%s", json_string_value(json_object_get(root, "MessageId")));
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(seen[i], seen[j]);
        json_decref(root);
    }
    close_fixture(&fixture);
}

static void a_full_buffer_stays_as_it_was(void **state)
{
    (void)state;
    struct fixture fixture;
    open_shape(&fixture, SIMULATOR_TWO_STACK, 5);
    struct buffer small;
    buffer_init(&small, 300);
    assert_int_equal(buffer_append_text(&small, "kept"), 0);
    assert_int_equal(simulator_message_write(&small, SIMULATOR_TRACE, &fixture.rendering, &nobody), ERR_LIMIT);
    for (unsigned kind = 0; kind < simulator_malformed_count(); kind++) {
        enum simulator_message message;
        simulator_malformed_topic(kind, &message);
        if (simulator_malformed_write(&small, kind, &fixture.rendering, &nobody) == 0)
            small.length = 4;
        assert_int_equal(small.length, 4);
    }
    buffer_fini(&small);
    close_fixture(&fixture);
}

static void stamps_are_whole_seconds_of_utc(void **state)
{
    (void)state;
    char text[SIMULATOR_STAMP_SIZE];
    simulator_stamp_write(text, 0);
    assert_string_equal(text, "1970-01-01T00:00:00Z");
    simulator_stamp_write(text, 1769860800);
    assert_string_equal(text, "2026-01-31T12:00:00Z");
    simulator_stamp_write(text, 253402300799u);
    assert_string_equal(text, "9999-12-31T23:59:59Z");
}

/* ---- damaged messages ---- */

static unsigned kind_of(const char *name)
{
    unsigned kind = 0;
    while (strcmp(simulator_malformed_name(kind), name) != 0)
        kind++;
    return kind;
}

static json_t *parse_malformed(struct fixture *fixture, const char *name)
{
    buffer_clear(&fixture->out);
    assert_int_equal(simulator_malformed_write(&fixture->out, kind_of(name), &fixture->rendering, &nobody), 0);
    return json_loadb((const char *)fixture->out.data, fixture->out.length, 0, NULL);
}

static void some_damage_leaves_no_json(void **state)
{
    (void)state;
    static const char *const names[] = {"cut", "empty", "not-json", "not-utf8"};
    struct fixture fixture;
    open_shape(&fixture, SIMULATOR_ONE_STACK, 6);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_null(parse_malformed(&fixture, names[i]));
    close_fixture(&fixture);
}

static void some_damage_is_json_of_another_structure(void **state)
{
    (void)state;
    struct fixture fixture;
    open_shape(&fixture, SIMULATOR_ONE_STACK, 7);
    size_t samples = fixture.curve.sample_count;
    json_t *root = parse_malformed(&fixture, "not-an-object");
    assert_true(json_is_array(root));
    json_decref(root);
    root = parse_malformed(&fixture, "no-messages");
    assert_null(json_object_get(root, "Messages"));
    json_decref(root);
    root = parse_malformed(&fixture, "no-payload");
    assert_null(json_object_get(json_object_get(root, "Messages"), "Payload"));
    json_decref(root);
    root = parse_malformed(&fixture, "no-stamp");
    assert_non_null(payload_of(root));
    assert_null(memmem(fixture.out.data, fixture.out.length, "SourceTimestamp", 15));
    json_decref(root);
    root = parse_malformed(&fixture, "unequal-arrays");
    assert_int_equal(json_array_size(value_of(root, "IntensityTorqueTrace.StepTraceContent[0].Values")), samples + 1);
    assert_int_equal(json_array_size(value_of(root, "PositionTrace.StepTraceContent[0].Values")), samples);
    json_decref(root);
    root = parse_malformed(&fixture, "text-among-numbers");
    assert_true(json_is_string(json_array_get(value_of(root, "IntensityTorqueTrace.StepTraceContent[0].Values"), 0)));
    json_decref(root);
    root = parse_malformed(&fixture, "null-among-numbers");
    assert_true(json_is_null(json_array_get(value_of(root, "IntensityTorqueTrace.StepTraceContent[0].Values"), 0)));
    json_decref(root);
    close_fixture(&fixture);
}

static void an_unknown_topic_carries_a_good_message(void **state)
{
    (void)state;
    struct fixture fixture;
    open_shape(&fixture, SIMULATOR_ONE_STACK, 8);
    enum simulator_message message;
    assert_string_equal(simulator_malformed_topic(kind_of("unknown-topic"), &message), "ResultManagement/Traces");
    assert_int_equal(message, SIMULATOR_TRACE);
    assert_null(simulator_malformed_topic(kind_of("cut"), &message));
    json_t *root = parse_malformed(&fixture, "unknown-topic");
    assert_int_equal(json_array_size(value_of(root, "PositionTrace.StepTraceContent[0].Values")), fixture.curve.sample_count);
    json_decref(root);
    close_fixture(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_entry_carries_the_stamp),
        cmocka_unit_test(arrays_are_the_curve),
        cmocka_unit_test(numbers_have_no_more_decimals_than_they_need),
        cmocka_unit_test(layouts_vary_ids_suffix_namespace_and_array),
        cmocka_unit_test(a_cycle_of_one_step_has_plain_numbers),
        cmocka_unit_test(message_ids_differ),
        cmocka_unit_test(a_full_buffer_stays_as_it_was),
        cmocka_unit_test(stamps_are_whole_seconds_of_utc),
        cmocka_unit_test(some_damage_leaves_no_json),
        cmocka_unit_test(some_damage_is_json_of_another_structure),
        cmocka_unit_test(an_unknown_topic_carries_a_good_message),
    };
    return cmocka_run_group_tests_name("simulator_messages", tests, NULL, NULL);
}
