/* drilling/payload: every layout that tools send, every way in which a message can be wrong. */
#include "drilling/payload.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/text.h"
#include "drilling/json.h"
#include "drilling_messages.h"
#include "unit.h"

static struct payload_reader *reader;
static struct payload_paths paths;
static struct buffer message;
static struct payload payload;
static struct stage_refusal refusal;

static int setup(void **state)
{
    (void)state;
    payload_paths_default(&paths);
    buffer_init(&message, 256u << 20);
    return payload_reader_create(&reader);
}

static int teardown(void **state)
{
    (void)state;
    payload_reader_destroy(reader);
    payload_reader_destroy(NULL);
    buffer_fini(&message);
    return 0;
}

static int read_bytes(enum payload_side side, const void *bytes, size_t length)
{
    memset(&payload, 0xee, sizeof payload);
    memset(&refusal, 0, sizeof refusal);
    return payload_read(reader, &paths, side, bytes, length, &payload, &refusal);
}

static int read_text(enum payload_side side, const char *text)
{
    return read_bytes(side, text, strlen(text));
}

static int read_message(enum payload_side side)
{
    return read_bytes(side, message.data, message.length);
}

static bool reason_exists(const char *reason)
{
    static const char *const reasons[] = {
#define REASON(id, word, help) word,
#include "queue/reasons.def"
#undef REASON
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (strcmp(reasons[i], reason) == 0)
            return true;
    }
    return false;
}

static void assert_refused(int error, const char *reason, const char *part, const char *stamp)
{
    assert_int_not_equal(error, 0);
    assert_int_equal(error_class(error), ERROR_CLASS_DATA);
    assert_string_equal(refusal.reason, reason);
    assert_true(reason_exists(refusal.reason));
    if (!strstr(refusal.error, part))
        fail_msg("'%s' is not in '%s'", part, refusal.error);
    assert_true(text_is_utf8(refusal.error, strlen(refusal.error)));
    assert_string_equal(payload.stamp, stamp);
}

/* Builds a result, a trace or a heads message of which one value is replaced. */
static void build_result(const char *field, const char *value)
{
    const char *values[] = {"\"0\"", "\"1210\"", "[1, 2, 3]", "[0.5, 0.25, 4.736]", "[0.1, 0.2, 0.3]"};
    const char *fields[] = {PATH_MACHINE, PATH_RESULT, PATH_STEPS, PATH_TORQUE_0, PATH_THRUST_0};
    for (int i = 0; i < 5; i++) {
        if (field && strcmp(field, fields[i]) == 0)
            values[i] = value;
    }
    message_build(&message, MESSAGE_STAMP, fields[0], values[0], fields[1], values[1], fields[2], values[2], fields[3], values[3],
                  fields[4], values[4], NULL);
}

static void build_trace(const char *field, const char *value)
{
    const char *values[] = {"440", "[-0.551, -1, -2.5]", "[0.049, 0, 1.2]", "[3, 4, 5.25]", "[1, 1, 2]"};
    const char *fields[] = {PATH_TRACE_ID, PATH_POSITION, PATH_TORQUE, PATH_THRUST, PATH_STEP};
    for (int i = 0; i < 5; i++) {
        if (field && strcmp(field, fields[i]) == 0)
            values[i] = value;
    }
    message_build(&message, MESSAGE_STAMP, fields[0], values[0], fields[1], values[1], fields[2], values[2], fields[3], values[3],
                  fields[4], values[4], "Trace.StepTraces.GapLengthTrace.StepTraceContent[0].Values", "[null, null, null]", NULL);
}

/* ---- what is read ---- */

static void a_result_is_read(void **state)
{
    (void)state;
    build_result(NULL, NULL);
    assert_int_equal(read_message(PAYLOAD_RESULT), 0);
    assert_string_equal(payload.stamp, MESSAGE_STAMP);
    assert_string_equal(payload.result.machine_id, "0");
    assert_string_equal(payload.result.result_id, "1210");
    assert_int_equal(payload.result.step_count, 3);
    assert_int_equal(payload.result.step[2], 3);
    assert_true(payload.result.torque_empty_a[2] == 4.736f);
    assert_true(payload.result.thrust_empty_a[1] == 0.2f);
}

static void a_trace_is_read(void **state)
{
    (void)state;
    build_trace(NULL, NULL);
    assert_int_equal(read_message(PAYLOAD_TRACE), 0);
    assert_string_equal(payload.stamp, MESSAGE_STAMP);
    assert_string_equal(payload.trace.result_id, "440");
    assert_int_equal(payload.trace.sample_count, 3);
    assert_true(payload.trace.position_mm[0] == -0.551f);
    assert_true(payload.trace.position_mm[1] == -1);
    assert_true(payload.trace.torque_a[0] == 0.049f);
    assert_true(payload.trace.thrust_a[2] == 5.25f);
    assert_int_equal(payload.trace.step[2], 2);
}

static void heads_are_read(void **state)
{
    (void)state;
    message_build(&message, MESSAGE_STAMP, "AssetManagement.Assets.Heads.0.Identification.Model", "\"Collet\"", PATH_HEAD,
                  "\" E00401009F45BACA\\n\"", PATH_CYCLES, "440", NULL);
    assert_int_equal(read_message(PAYLOAD_HEADS), 0);
    assert_string_equal(payload.heads.head_id, "E00401009F45BACA");
    assert_string_equal(payload.heads.cycle_counter, "440");
}

static void scalars_stand_for_one_step(void **state)
{
    (void)state;
    message_build(&message, MESSAGE_STAMP, PATH_MACHINE, "23120040", PATH_RESULT, "2412", PATH_STEPS, "1", PATH_TORQUE_0, "4.88",
                  PATH_THRUST_0, "0.3", NULL);
    assert_int_equal(read_message(PAYLOAD_RESULT), 0);
    assert_string_equal(payload.result.machine_id, "23120040");
    assert_int_equal(payload.result.step_count, 1);
    assert_true(payload.result.torque_empty_a[0] == 4.88f);

    build_trace(PATH_POSITION, "-1.5");
    assert_int_not_equal(read_message(PAYLOAD_TRACE), 0); /* one position, three torques */
    message_build(&message, MESSAGE_STAMP, PATH_POSITION, "-1.5", PATH_TORQUE, "2", PATH_THRUST, "[3]", PATH_STEP, "1.0", NULL);
    assert_int_equal(read_message(PAYLOAD_TRACE), 0);
    assert_int_equal(payload.trace.sample_count, 1);
    assert_string_equal(payload.trace.result_id, "");
}

static void a_scalar_is_broadcast_over_the_steps(void **state)
{
    (void)state;
    build_result(PATH_TORQUE_0, "4.5");
    assert_int_equal(read_message(PAYLOAD_RESULT), 0);
    for (int i = 0; i < 3; i++)
        assert_true(payload.result.torque_empty_a[i] == 4.5f);
}

static void suffix_name_space_and_tool_text_do_not_matter(void **state)
{
    (void)state;
    static const char text[] =
        "{\"Messages\":{\"Payload\":{"
        "\"nsu=http://airbus.com/IJT/AFastening;s=Objects.DeviceSet.some tool.ResultManagement.Results.0.ResultContent.StepResults.0."
        "StepResultValues.IntensityTorqueEmpty.MeasuredValue\":{\"SourceTimestamp\":\"s\",\"Value\":2.5},"
        "\"ResultManagement.Results.0.ResultContent.StepResults.0.StepResultValues.IntensityThrustEmpty.MeasuredValue\":{\"Value\":1},"
        "\"xResultManagement.Results.0.ResultContent.StepResults.0.StepResultValues.StepNumber.MeasuredValue\":{\"Value\":[4]},"
        "\"ResultManagement.Results.0.ResultMetaData.SerialNumber\":{\"Value\":\"m\"},"
        "\"ResultManagement.Results.0.ResultMetaData.ResultId\":{\"Value\":123456789012345678901}}}}";
    assert_int_equal(read_text(PAYLOAD_RESULT, text), 0);
    assert_string_equal(payload.stamp, "s");
    assert_string_equal(payload.result.result_id, "123456789012345678901"); /* as written, however long */
    assert_int_equal(payload.result.step[0], 4);
}

static void messages_may_be_an_array(void **state)
{
    (void)state;
    static const char text[] =
        "{\"Messages\":[7, {\"MessageType\":\"ua-delta\"},{\"Payload\":{\"AssetManagement.Assets.Heads.0.Identification."
        "SerialNumber\":{\"Value\":\"first\",\"SourceTimestamp\":\"t\"}}},{\"Payload\":{\"AssetManagement.Assets.Heads.0."
        "Identification.SerialNumber\":{\"Value\":\"second\",\"SourceTimestamp\":\"t\"}}}]}";
    assert_int_equal(read_text(PAYLOAD_HEADS, text), 0);
    assert_string_equal(payload.heads.head_id, "first");
}

static void the_first_key_with_a_value_counts(void **state)
{
    (void)state;
    message_build(&message, MESSAGE_STAMP, PATH_HEAD, NULL, PATH_HEAD, "\"one\"", PATH_HEAD, "\"two\"", NULL);
    assert_int_equal(read_message(PAYLOAD_HEADS), 0);
    assert_string_equal(payload.heads.head_id, "one");
    static const char twice[] =
        "{\"Messages\":{\"Payload\":{\"AssetManagement.Assets.Heads.0.Identification.SerialNumber\":{\"Value\":\"a\","
        "\"Value\":\"b\",\"SourceTimestamp\":\"t\"}, \"scalar\": 5, \"list\": [{\"SourceTimestamp\": \"no\"}]}}}";
    assert_int_equal(read_text(PAYLOAD_HEADS, twice), 0);
    assert_string_equal(payload.heads.head_id, "a");
}

static void a_path_that_is_a_prefix_takes_the_first_key_of_the_document(void **state)
{
    (void)state;
    build_trace(NULL, NULL);
    strcpy(paths.path[PAYLOAD_TRACE_RESULT_ID], "ResultManagement.Results.0.ResultContent.Trace.StepTraces.PositionTrace");
    assert_int_equal(read_message(PAYLOAD_TRACE), 0);
    assert_string_equal(payload.trace.result_id, "440");
    payload_paths_default(&paths);
}

static void one_key_may_serve_several_fields(void **state)
{
    (void)state;
    strcpy(paths.path[PAYLOAD_THRUST_EMPTY], "IntensityTorqueEmpty");
    strcpy(paths.path[PAYLOAD_MACHINE_ID], "ResultMetaData.ResultId");
    build_result(NULL, NULL);
    assert_int_equal(read_message(PAYLOAD_RESULT), 0);
    assert_string_equal(payload.result.machine_id, "1210");
    assert_true(payload.result.thrust_empty_a[2] == 4.736f);
    strcpy(paths.path[PAYLOAD_THRUST_EMPTY], "StepNumber");
    assert_int_equal(read_message(PAYLOAD_RESULT), 0);
    assert_true(payload.result.thrust_empty_a[2] == 3);
    payload_paths_default(&paths);
}

static void the_first_source_timestamp_anywhere_is_the_stamp(void **state)
{
    (void)state;
    assert_int_not_equal(read_text(PAYLOAD_HEADS,
                                   "{\"Header\":{\"Deep\":{\"SourceTimestamp\":\"2024-05-15T07:29:33.250+02:00\"}},\"Messages\":{"
                                   "\"Payload\":{\"k\":{\"SourceTimestamp\":\"later\"}}}}"),
                         0);
    assert_string_equal(payload.stamp, "2024-05-15T07:29:33.250+02:00");
    assert_int_not_equal(read_text(PAYLOAD_HEADS, "{\"SourceTimestamp\":\"top\",\"Messages\":{}}"), 0);
    assert_string_equal(payload.stamp, "top");
}

static void head_identifiers_are_lenient(void **state)
{
    (void)state;
    static const struct {
        const char *value, *expected;
    } cases[] = {{"41", "41"},
                 {"null", ""},
                 {"\"\"", ""},
                 {"\"  \\t\"", ""},
                 {"[\"a\",\"b\"]", "a"},
                 {"[]", ""},
                 {"[7]", "7"},
                 {"\"\\u00e9\"", "\xc3\xa9"},
                 {"\"\\u2029\\u00a0h 1\\u2028\\u3000\"", "h 1"},
                 {"\"\\u2028\\u0085\"", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        message_build(&message, MESSAGE_STAMP, PATH_HEAD, cases[i].value, NULL);
        assert_int_equal(read_message(PAYLOAD_HEADS), 0);
        assert_string_equal(payload.heads.head_id, cases[i].expected);
        assert_string_equal(payload.heads.cycle_counter, "");
    }
}

static void words_of_python_do_not_matter_where_they_are_not_needed(void **state)
{
    (void)state;
    message_build(&message, MESSAGE_STAMP, "PowerTrace", "[NaN, Infinity]", PATH_POSITION, "[-1]", PATH_TORQUE, "[1]", PATH_THRUST, "[1]",
                  PATH_STEP, "[1]", "Distance", "1e999", NULL);
    assert_int_equal(read_message(PAYLOAD_TRACE), 0);
}

/* ---- what is refused ---- */

static void bytes_that_are_no_document_are_refused(void **state)
{
    (void)state;
    assert_refused(read_text(PAYLOAD_RESULT, ""), "not_json", "empty", "");
    assert_refused(read_text(PAYLOAD_RESULT, "hello"), "not_json", "result cannot be read as JSON", "");
    assert_refused(read_text(PAYLOAD_TRACE, "<xml/>"), "not_json", "trace", "");
    assert_refused(read_text(PAYLOAD_HEADS, "{\"a\":\"\xff\"}"), "not_utf8", "the heads message is not UTF-8", "");
    assert_refused(read_bytes(PAYLOAD_HEADS, "\x00\x01\x02\x80", 4), "not_utf8", "", "");
    assert_refused(read_bytes(PAYLOAD_HEADS, NULL, 0), "not_json", "empty", "");
}

static void a_cut_message_still_gives_its_stamp(void **state)
{
    (void)state;
    build_trace(NULL, NULL);
    size_t whole = message.length;
    for (size_t length = whole / 2; length < whole; length++)
        assert_refused(read_bytes(PAYLOAD_TRACE, message.data, length), "not_json", "cut", MESSAGE_STAMP);
    assert_refused(read_text(PAYLOAD_TRACE, "{\"SourceTimestamp\" : \"a b\""), "not_json", "cut", "a b");
    assert_refused(read_text(PAYLOAD_TRACE, "{\"SourceTimestamp\" \"a\""), "not_json", "", "");
    assert_refused(read_text(PAYLOAD_TRACE, "{\"SourceTimestamp\":\"a"), "not_json", "", "");
    assert_refused(read_text(PAYLOAD_TRACE, "{\"SourceTimestamp\":"), "not_json", "", "");
    assert_refused(read_text(PAYLOAD_TRACE, "{\"SourceTimestamp\":\"\""), "not_json", "", "");
    assert_refused(read_text(PAYLOAD_TRACE, "{\"SourceTimestamp\":\"a\\n\""), "not_json", "", "");
    assert_refused(read_text(PAYLOAD_TRACE, "{\"SourceTimestamp\":\"\xff\", \"x\":"), "not_utf8", "", "");
    assert_refused(read_text(PAYLOAD_TRACE, "{\"SourceTimestamp\":\"t\", \"x\": \"\xff\"}"), "not_utf8", "", "t");
}

static void structure_is_checked(void **state)
{
    (void)state;
    assert_refused(read_text(PAYLOAD_RESULT, "[]"), "bad_structure", "not a JSON object", "");
    assert_refused(read_text(PAYLOAD_RESULT, "3"), "bad_structure", "not a JSON object", "");
    assert_refused(read_text(PAYLOAD_RESULT, "{\"SourceTimestamp\":\"t\"}"), "bad_structure", "no member Messages", "t");
    assert_refused(read_text(PAYLOAD_RESULT, "{\"SourceTimestamp\":\"t\",\"Messages\":5}"), "bad_structure",
                   "neither an object nor an array", "t");
    assert_refused(read_text(PAYLOAD_RESULT, "{\"SourceTimestamp\":\"t\",\"Messages\":[]}"), "bad_structure", "no member Payload", "t");
    assert_refused(read_text(PAYLOAD_RESULT, "{\"SourceTimestamp\":\"t\",\"Messages\":{\"Payload\":[]}}"), "bad_structure",
                   "Messages.Payload of the result is not an object", "t");
    assert_refused(read_text(PAYLOAD_RESULT, "{\"Messages\":{\"Payload\":{}}}"), "bad_structure", "no SourceTimestamp", "");
    assert_refused(read_text(PAYLOAD_RESULT, "{\"Messages\":{\"Payload\":{\"a\":{\"SourceTimestamp\":5}}}}"), "bad_structure", "not a text",
                   "");
    assert_refused(read_text(PAYLOAD_RESULT, "{\"Messages\":{\"Payload\":{\"a\":{\"SourceTimestamp\":\"\"}}}}"), "bad_structure",
                   "not a text", "");
    assert_refused(read_text(PAYLOAD_RESULT, "{\"Messages\":{\"Payload\":{\"a\":{\"SourceTimestamp\":\"x\\u0000y\"}}}}"), "bad_structure",
                   "the SourceTimestamp of the result has a zero character (\\u0000)", "");
}

/* A text that ends where C would end it is another text: none is cut. */
static void no_text_is_cut_at_a_zero_character(void **state)
{
    (void)state;
    static const char *const zeros[] = {"\"a\\u0000b\"", "\"a\\u0000\"", "\"\\u0000\""};
    for (size_t i = 0; i < sizeof zeros / sizeof *zeros; i++) {
        build_result(PATH_MACHINE, zeros[i]);
        assert_refused(read_message(PAYLOAD_RESULT), "bad_value", "machine_id': it has a zero character (\\u0000)", MESSAGE_STAMP);
        build_result(PATH_RESULT, zeros[i]);
        assert_refused(read_message(PAYLOAD_RESULT), "bad_value", "result_id': it has a zero character (\\u0000)", MESSAGE_STAMP);
        message_build(&message, MESSAGE_STAMP, PATH_HEAD, zeros[i], NULL);
        assert_refused(read_message(PAYLOAD_HEADS), "bad_value", "head_id': it has a zero character (\\u0000)", MESSAGE_STAMP);
        build_trace(PATH_TRACE_ID, zeros[i]); /* only a cross-check: unknown rather than cut */
        assert_int_equal(read_message(PAYLOAD_TRACE), 0);
        assert_string_equal(payload.trace.result_id, "");
    }
}

static void a_stamp_has_a_longest_length(void **state)
{
    (void)state;
    char stamp[STAGE_STAMP_MAX + 1];
    memset(stamp, 's', sizeof stamp);
    stamp[STAGE_STAMP_MAX - 1] = 0;
    message_build(&message, stamp, PATH_HEAD, "1", NULL);
    assert_int_equal(read_message(PAYLOAD_HEADS), 0);
    assert_string_equal(payload.stamp, stamp);
    stamp[STAGE_STAMP_MAX - 1] = 's';
    stamp[STAGE_STAMP_MAX] = 0;
    message_build(&message, stamp, PATH_HEAD, "1", NULL);
    assert_refused(read_message(PAYLOAD_HEADS), "bad_structure", "longer than 63 bytes", "");
}

static void values_are_named_with_field_and_index(void **state)
{
    (void)state;
    static const struct {
        enum payload_field field;
        const char *value, *part;
    } cases[] = {
        {PAYLOAD_POSITION, "[1, null, 3]", "trace field 'position': element 1 is not a number"},
        {PAYLOAD_POSITION, "[1, 2, \"3\"]", "trace field 'position': element 2 is not a number"},
        {PAYLOAD_TORQUE, "[1, 2, NaN]", "trace field 'torque': element 2 is not a finite"},
        {PAYLOAD_THRUST, "[-Infinity, 2, 3]", "trace field 'thrust': element 0 is not a finite"},
        {PAYLOAD_TORQUE, "[1, 1e39, 3]", "trace field 'torque': element 1 is not a finite"},
        {PAYLOAD_STEP, "[1, 1.5, 2]", "trace field 'step': element 1 is not a whole"},
        {PAYLOAD_STEP, "[1, 99999999999, 2]", "trace field 'step': element 1 is not a whole"},
        {PAYLOAD_TORQUE, "[1, 2]", "trace field 'torque': it has 2 values where 'position' has 3"},
        {PAYLOAD_STEP, "[1, 1, 1, 1]", "trace field 'step': it has 4 values where 'position' has 3"},
        {PAYLOAD_POSITION, "[]", "trace field 'position': it is empty"},
        {PAYLOAD_POSITION, "\"1\"", "trace field 'position': it is neither a number nor an array"},
        {PAYLOAD_POSITION, "null", "trace field 'position': it is neither a number nor an array"},
        {PAYLOAD_POSITION, "{\"a\": 1}", "trace field 'position': it is neither a number nor an array"},
        {PAYLOAD_POSITION, "[[1], [2], [3]]", "trace field 'position': element 0 is not a number"},
        {PAYLOAD_POSITION, "true", "trace field 'position': it is neither"},
        {PAYLOAD_POSITION, NULL, "trace field 'position': it is missing"},
        {PAYLOAD_MACHINE_ID, "null", "result field 'machine_id': it is neither a number nor a text"},
        {PAYLOAD_MACHINE_ID, "[1, 2]", "result field 'machine_id': it is neither"},
        {PAYLOAD_MACHINE_ID, "[]", "result field 'machine_id': it is neither"},
        {PAYLOAD_MACHINE_ID, "true", "result field 'machine_id': it is neither"},
        {PAYLOAD_MACHINE_ID, NULL, "result field 'machine_id': it is missing; no key with a Value contains 'ResultManagement"},
        {PAYLOAD_RESULT_ID, "\"\"", "result field 'result_id': it is empty"},
        {PAYLOAD_RESULT_ID, "{}", "result field 'result_id': it is neither"},
        {PAYLOAD_STEPS, "[1, 2]", "result field 'torque_empty_vals': it has 3 values where 'step_vals' has 2"},
        {PAYLOAD_STEPS, "1", "result field 'torque_empty_vals': it has 3 values where 'step_vals' has 1"},
        {PAYLOAD_STEPS, "[]", "result field 'step_vals': it is empty"},
        {PAYLOAD_TORQUE_EMPTY, "[1, 2]", "result field 'torque_empty_vals': it has 2 values where 'step_vals' has 3"},
        {PAYLOAD_THRUST_EMPTY, "[1, 2, 3, 4]", "result field 'thrust_empty_vals': it has 4 values"},
        {PAYLOAD_THRUST_EMPTY, "\"x\"", "result field 'thrust_empty_vals': it is neither"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum payload_side side = cases[i].field < PAYLOAD_POSITION ? PAYLOAD_RESULT : PAYLOAD_TRACE;
        (side == PAYLOAD_RESULT ? build_result : build_trace)(message_path(cases[i].field), cases[i].value);
        assert_refused(read_message(side), "bad_value", cases[i].part, MESSAGE_STAMP);
    }
    message_build(&message, MESSAGE_STAMP, PATH_HEAD, "false", NULL);
    assert_refused(read_message(PAYLOAD_HEADS), "bad_value", "heads field 'head_id'", MESSAGE_STAMP);
    message_build(&message, MESSAGE_STAMP, PATH_CYCLES, "1", NULL);
    assert_refused(read_message(PAYLOAD_HEADS), "bad_value", "heads field 'head_id': it is missing", MESSAGE_STAMP);
}

static void fields_do_not_excuse_a_broken_end(void **state)
{
    (void)state;
    build_trace(PATH_POSITION, "[1, null, 3]");
    message.data[message.length - 1] = ']';
    assert_refused(read_message(PAYLOAD_TRACE), "not_json", "", MESSAGE_STAMP);
    build_trace(NULL, NULL);
    buffer_append_text(&message, "{}");
    assert_refused(read_message(PAYLOAD_TRACE), "not_json", "follows", MESSAGE_STAMP);
}

static void identifiers_have_a_longest_length(void **state)
{
    (void)state;
    char id[STAGE_ID_MAX + 3];
    memset(id, '7', sizeof id);
    id[STAGE_ID_MAX - 1] = 0;
    build_result(PATH_RESULT, id);
    assert_int_equal(read_message(PAYLOAD_RESULT), 0);
    assert_string_equal(payload.result.result_id, id);
    id[STAGE_ID_MAX - 1] = '7';
    id[STAGE_ID_MAX] = 0;
    build_result(PATH_RESULT, id);
    assert_refused(read_message(PAYLOAD_RESULT), "bad_value", "result_id': it is too long", MESSAGE_STAMP);
    build_trace(PATH_TRACE_ID, id); /* only a cross-check: unknown rather than an error */
    assert_int_equal(read_message(PAYLOAD_TRACE), 0);
    assert_string_equal(payload.trace.result_id, "");

    char head[PAYLOAD_HEAD_MAX + 4];
    memset(head, 'h', sizeof head);
    head[0] = '"';
    head[PAYLOAD_HEAD_MAX + 1] = '"';
    head[PAYLOAD_HEAD_MAX + 2] = 0;
    message_build(&message, MESSAGE_STAMP, PATH_HEAD, head, NULL);
    assert_int_equal(read_message(PAYLOAD_HEADS), 0);
    assert_int_equal(strlen(payload.heads.head_id), PAYLOAD_HEAD_MAX);
    head[PAYLOAD_HEAD_MAX + 1] = 'h';
    head[PAYLOAD_HEAD_MAX + 2] = '"';
    head[PAYLOAD_HEAD_MAX + 3] = 0;
    message_build(&message, MESSAGE_STAMP, PATH_HEAD, head, NULL);
    assert_refused(read_message(PAYLOAD_HEADS), "bad_value", "head_id': it is too long", MESSAGE_STAMP);
}

/* "[v,v,...]" with `count` values. */
static char *repeated(const char *value, size_t count)
{
    size_t size = strlen(value);
    char *text = malloc(count * (size + 1) + 2), *out = text;
    assert_non_null(text);
    for (size_t i = 0; i < count; i++) {
        *out++ = i ? ',' : '[';
        memcpy(out, value, size);
        out += size;
    }
    *out++ = ']';
    *out = 0;
    return text;
}

static void a_result_has_a_largest_number_of_rows(void **state)
{
    (void)state;
    for (size_t count = PAYLOAD_STEPS_MAX; count <= PAYLOAD_STEPS_MAX + 1; count++) {
        char *rows = repeated("2", count);
        message_build(&message, MESSAGE_STAMP, PATH_MACHINE, "1", PATH_RESULT, "1", PATH_STEPS, rows, PATH_TORQUE_0, rows, PATH_THRUST_0,
                      "1", NULL);
        free(rows);
        int error = read_message(PAYLOAD_RESULT);
        if (count == PAYLOAD_STEPS_MAX)
            assert_int_equal(error, 0);
        else
            assert_refused(error, "bad_value", "step_vals': element 64 is beyond", MESSAGE_STAMP);
    }
}

static void a_trace_has_a_largest_number_of_samples(void **state)
{
    (void)state;
    for (size_t count = PAYLOAD_SAMPLES_MAX; count <= PAYLOAD_SAMPLES_MAX + 1; count++) {
        char *samples = repeated("1", count);
        message_build(&message, MESSAGE_STAMP, PATH_POSITION, samples, PATH_TORQUE, samples, PATH_THRUST, samples, PATH_STEP, samples,
                      NULL);
        free(samples);
        int error = read_message(PAYLOAD_TRACE);
        if (count == PAYLOAD_SAMPLES_MAX) {
            assert_int_equal(error, 0);
            assert_int_equal(payload.trace.sample_count, PAYLOAD_SAMPLES_MAX);
        } else {
            assert_refused(error, "bad_value", "element 1000000 is beyond", MESSAGE_STAMP);
        }
    }
    build_trace(NULL, NULL); /* the memory of the large one is given back */
    assert_int_equal(read_message(PAYLOAD_TRACE), 0);
}

static void a_message_has_a_largest_size(void **state)
{
    (void)state;
    build_trace(NULL, NULL);
    size_t length = message.length;
    assert_int_equal(buffer_reserve(&message, PAYLOAD_BYTES_MAX + 1 - length), 0);
    memset(message.data + length, ' ', PAYLOAD_BYTES_MAX + 1 - length);
    assert_int_equal(read_bytes(PAYLOAD_TRACE, message.data, PAYLOAD_BYTES_MAX), 0);
    assert_refused(read_bytes(PAYLOAD_TRACE, message.data, PAYLOAD_BYTES_MAX + 1), "too_large", "67108865 bytes", MESSAGE_STAMP);
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    char *text = malloc(100000);
    assert_non_null(text);
    size_t length = 0;
    while (length < 50000) {
        memcpy(text + length, "{\"a\":", 5);
        length += 5;
    }
    assert_refused(read_bytes(PAYLOAD_TRACE, text, length), "not_json", "cut", "");
    memset(text + length, '}', length / 5);
    text[length - 1] = '1';
    text[length - 2] = ':';
    assert_refused(read_bytes(PAYLOAD_TRACE, text, length + length / 5), "not_json", "", "");
    memmove(text + length, ":1", 2);
    text[length - 2] = 'b';
    text[length - 1] = '"';
    memset(text + length + 2, '}', length / 5);
    assert_refused(read_bytes(PAYLOAD_TRACE, text, length + 2 + length / 5), "bad_structure", "nested too deep", "");
    free(text);
}

/* ---- identifiers ---- */

static void a_hole_has_the_same_number_however_it_is_written(void **state)
{
    (void)state;
    static const char *const same[][2] = {
        {"440", "440"},       {"440.0", "440"},   {"0440", "440"},
        {" 440 ", "440"},     {"440.", "440"},    {"0", "0"},
        {"000", "0"},         {"0.00", "0"},      {"", ""},
        {"  ", ""},           {"440.5", "440.5"}, {"4.4e2", "4.4e2"},
        {" a 440 ", "a 440"}, {"-440", "-440"},   {"440a", "440a"},
        {".0", ".0"},         {"\t12\n", "12"},   {"1e400", "1e400"},
        {"00a", "00a"},       {"1.0.0", "1.0.0"}, {"18446744073709551617.0", "18446744073709551617"},
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char number[STAGE_ID_MAX];
        snprintf(number, sizeof number, "%s", same[i][0]);
        payload_hole_number(number, number);
        assert_string_equal(number, same[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_result_is_read),
        cmocka_unit_test(a_trace_is_read),
        cmocka_unit_test(heads_are_read),
        cmocka_unit_test(scalars_stand_for_one_step),
        cmocka_unit_test(a_scalar_is_broadcast_over_the_steps),
        cmocka_unit_test(suffix_name_space_and_tool_text_do_not_matter),
        cmocka_unit_test(messages_may_be_an_array),
        cmocka_unit_test(the_first_key_with_a_value_counts),
        cmocka_unit_test(a_path_that_is_a_prefix_takes_the_first_key_of_the_document),
        cmocka_unit_test(one_key_may_serve_several_fields),
        cmocka_unit_test(the_first_source_timestamp_anywhere_is_the_stamp),
        cmocka_unit_test(head_identifiers_are_lenient),
        cmocka_unit_test(words_of_python_do_not_matter_where_they_are_not_needed),
        cmocka_unit_test(bytes_that_are_no_document_are_refused),
        cmocka_unit_test(a_cut_message_still_gives_its_stamp),
        cmocka_unit_test(structure_is_checked),
        cmocka_unit_test(no_text_is_cut_at_a_zero_character),
        cmocka_unit_test(a_stamp_has_a_longest_length),
        cmocka_unit_test(values_are_named_with_field_and_index),
        cmocka_unit_test(fields_do_not_excuse_a_broken_end),
        cmocka_unit_test(identifiers_have_a_longest_length),
        cmocka_unit_test(a_result_has_a_largest_number_of_rows),
        cmocka_unit_test(a_trace_has_a_largest_number_of_samples),
        cmocka_unit_test(a_message_has_a_largest_size),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(a_hole_has_the_same_number_however_it_is_written),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
