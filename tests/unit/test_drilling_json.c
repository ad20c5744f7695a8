/* drilling/json: what is announced, what is refused, and Python's text of a double. */
#include "drilling/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/error.h"
#include "unit.h"

/* Writes down what the visitor is told: "key:" for a member, "[" "]" around what is entered, texts of scalars, counts of arrays. */
struct script {
    struct buffer heard;
    enum json_action for_arrays, for_objects, for_scalars;
    float floats[64];
};

static enum json_action hear_member(void *context, unsigned depth, const char *key, size_t key_length, enum json_type type,
                                    struct numbers_target *target)
{
    struct script *script = context;
    if (key)
        buffer_printf(&script->heard, "%u%.*s:", depth, (int)key_length, key);
    enum json_action action = type == JSON_ARRAY ? script->for_arrays : type == JSON_OBJECT ? script->for_objects : script->for_scalars;
    if (type == JSON_ARRAY && action == JSON_TAKE)
        *target = (struct numbers_target){.kind = NUMBERS_FLOAT, .floats = script->floats, .capacity = 64};
    if (action == JSON_ENTER)
        buffer_append_text(&script->heard, "[");
    return action;
}

static void hear_value(void *context, const struct json_value *value)
{
    struct script *script = context;
    if (value->type == JSON_ARRAY)
        buffer_printf(&script->heard, "#%zu/%d@%zu ", value->numbers.count, value->numbers.problem, value->numbers.problem_index);
    else
        buffer_printf(&script->heard, "%.*s ", (int)value->length, value->text);
}

static void hear_leave(void *context)
{
    buffer_append_text(&((struct script *)context)->heard, "]");
}

static const struct json_visitor listener = {hear_member, hear_value, hear_leave};

static int read_bytes(struct script *script, const char *bytes, size_t length, struct json_failure *failure)
{
    struct json_reader *reader;
    assert_int_equal(json_reader_create(&reader), 0);
    buffer_init(&script->heard, 1 << 20);
    int error = json_read(reader, (const uint8_t *)bytes, length, &listener, script, failure);
    json_reader_destroy(reader);
    return error;
}

static void assert_heard(const char *document, enum json_action arrays, const char *expected)
{
    struct script script = {.for_arrays = arrays, .for_objects = JSON_ENTER, .for_scalars = JSON_TAKE};
    struct json_failure failure;
    assert_int_equal(read_bytes(&script, document, strlen(document), &failure), 0);
    assert_string_equal(buffer_text(&script.heard), expected);
    buffer_fini(&script.heard);
}

/* Refused whatever the visitor does with the parts. */
static void assert_refused(const char *bytes, size_t length, int expected)
{
    static const enum json_action actions[] = {JSON_SKIP, JSON_ENTER, JSON_TAKE};
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 2; j++) {
            struct script script = {.for_arrays = actions[i], .for_objects = actions[j], .for_scalars = JSON_SKIP};
            struct json_failure failure = {0};
            assert_int_equal(read_bytes(&script, bytes, length, &failure), expected);
            assert_non_null(failure.text);
            assert_in_range(failure.offset, 0, length);
            buffer_fini(&script.heard);
        }
    }
}

static void members_are_announced_in_order(void **state)
{
    (void)state;
    assert_heard("{\"a\": 1, \"b\": {\"c\": \"x\\u00e9\\n\", \"a\": null}, \"a\": [true, false, -2.50]}", JSON_ENTER,
                 "[1a:1 1b:[2c:x\xc3\xa9\n 2a:null ]1a:[true false -2.50 ]]");
    assert_heard("{}", JSON_ENTER, "[]");
    assert_heard(" [ ] ", JSON_ENTER, "[]");
    assert_heard("[[], {}, [[1]]]", JSON_ENTER, "[[][][[1 ]]]");
}

static void arrays_of_numbers_are_taken_whole(void **state)
{
    (void)state;
    assert_heard("{\"a\":[1,2.5,3],\"b\":[],\"c\":[1,null,2],\"d\":[1,[2],\"x\"],\"e\":[NaN]}", JSON_TAKE,
                 "[1a:#3/0@0 1b:#0/0@0 1c:#0/1@1 1d:#0/1@1 1e:#1/2@0 ]");
    assert_heard("{\"a\":[\"x\"],\"b\":[{\"c\":1}, 2]}", JSON_TAKE, "[1a:#0/1@0 1b:#0/1@0 ]");
}

static void what_is_skipped_is_not_announced(void **state)
{
    (void)state;
    assert_heard("{\"a\":[1,{\"b\":2}],\"c\":3}", JSON_SKIP, "[1a:1c:3 ]");
}

static void a_document_may_be_one_scalar(void **state)
{
    (void)state;
    assert_heard("\"text\"", JSON_SKIP, "text ");
    assert_heard(" 12.5 ", JSON_SKIP, "12.5 ");
    assert_heard("null", JSON_SKIP, "null ");
    assert_heard("NaN", JSON_SKIP, "NaN ");
}

static void malformed_documents_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "   ",
                                      "{",
                                      "}",
                                      "[",
                                      "{}{}",
                                      "{} x",
                                      "[1] 2",
                                      "1 2",
                                      "tru",
                                      "nulll",
                                      "\"open",
                                      "{\"a\"}",
                                      "{\"a\" 1}",
                                      "{\"a\":}",
                                      "{\"a\":1,}",
                                      "{,\"a\":1}",
                                      "{\"a\":1 \"b\":2}",
                                      "{a:1}",
                                      "{'a':1}",
                                      "[1,]",
                                      "[,1]",
                                      "[1 2]",
                                      "[1,,2]",
                                      "[1}",
                                      "{\"a\":[1,2}",
                                      "{\"a\":[1,2]",
                                      "{\"a\":[null,]}",
                                      "{\"a\":[1,2",
                                      "{\"a\":{\"b\":1}",
                                      "{\"a\":01}",
                                      "{\"a\":1.}",
                                      "{\"a\":.5}",
                                      "{\"a\":+1}",
                                      "{\"a\":trux}",
                                      "{\"a\":True}",
                                      "{\"a\":\"\\x\"}",
                                      "{\"a\":\"\\u12g4\"}",
                                      "{\"a\":\"\\ud800\"}",
                                      "{\"a\":\"line\nbreak\"}",
                                      "{\"\\q\":1}",
                                      "[\"a\\\"]",
                                      "\xef\xbb\xbf{}",
                                      "{\"a\":\"\xff\"}",
                                      "\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(bad[i], strlen(bad[i]), ERR_NOT_JSON);
    assert_refused("{\"a\":1}\0", 8, ERR_NOT_JSON);
    assert_refused("[1,\0 2]", 7, ERR_NOT_JSON);
}

static void every_cut_of_a_document_is_refused(void **state)
{
    (void)state;
    static const char document[] = "{\"a\": [1.5, -2], \"b\": {\"c\": [null, \"x\", {}]}, \"d\": \"e\", \"f\": true}";
    for (size_t length = 0; length + 1 < sizeof document - 1; length++)
        assert_refused(document, length, ERR_NOT_JSON);
}

static char *nested(unsigned levels)
{
    char *text = malloc(2 * levels + 1);
    assert_non_null(text);
    memset(text, '[', levels);
    memset(text + levels, ']', levels);
    text[2 * levels] = 0;
    return text;
}

static void nesting_ends_at_its_limit(void **state)
{
    (void)state;
    char *deepest = nested(JSON_DEPTH_MAX + 1); /* levels 0 .. JSON_DEPTH_MAX */
    char *deeper = nested(JSON_DEPTH_MAX + 2);
    char *bomb = nested(200000);
    struct script script = {.for_arrays = JSON_ENTER, .for_objects = JSON_ENTER};
    struct json_failure failure;
    assert_int_equal(read_bytes(&script, deepest, strlen(deepest), &failure), 0);
    buffer_fini(&script.heard);
    assert_refused(deeper, strlen(deeper), ERR_PAYLOAD);
    assert_refused(bomb, strlen(bomb), ERR_PAYLOAD);
    assert_refused(bomb, 200000, ERR_NOT_JSON);
    free(deepest);
    free(deeper);
    free(bomb);
}

static void a_reader_serves_small_documents_after_large_ones(void **state)
{
    (void)state;
    struct json_reader *reader;
    assert_int_equal(json_reader_create(&reader), 0);
    size_t large = 2 * JSON_KEPT_BYTES;
    char *text = malloc(large);
    assert_non_null(text);
    memset(text, ' ', large);
    memcpy(text, "{\"a\":", 5);
    memcpy(text + large - 2, "7}", 2);
    struct script script = {.for_objects = JSON_ENTER, .for_scalars = JSON_TAKE};
    struct json_failure failure;
    buffer_init(&script.heard, 1000);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(json_read(reader, (const uint8_t *)text, large, &listener, &script, &failure), 0);
        assert_int_equal(json_read(reader, (const uint8_t *)"[]", 2, &listener, &script, &failure), 0);
        assert_int_equal(json_read(reader, (const uint8_t *)"", 0, &listener, &script, &failure), ERR_NOT_JSON);
    }
    assert_string_equal(buffer_text(&script.heard), "[1a:7 ][1a:7 ][1a:7 ]");
    buffer_fini(&script.heard);
    free(text);
    json_reader_destroy(reader);
    json_reader_destroy(NULL);
}

static void assert_double(double value, const char *expected)
{
    char text[JSON_DOUBLE_TEXT_SIZE];
    assert_int_equal(json_double_text(value, text), strlen(expected));
    assert_string_equal(text, expected);
}

/* What Python 3 prints for repr(). */
static void doubles_are_written_as_python_does(void **state)
{
    (void)state;
    assert_double(0.0, "0.0");
    assert_double(-0.0, "-0.0");
    assert_double(1, "1.0");
    assert_double(21, "21.0");
    assert_double(-3.588, "-3.588");
    assert_double(0.1, "0.1");
    assert_double(0.1 + 0.2, "0.30000000000000004");
    assert_double(100, "100.0");
    assert_double(123456.789, "123456.789");
    assert_double(0.0001, "0.0001");
    assert_double(0.00012345, "0.00012345");
    assert_double(0.00001, "1e-05");
    assert_double(1.5e-7, "1.5e-07");
    assert_double(1e15, "1000000000000000.0");
    assert_double(1234567890123456, "1234567890123456.0");
    assert_double(1e16, "1e+16");
    assert_double(1.5e16, "1.5e+16");
    assert_double(1e22, "1e+22");
    assert_double(1e100, "1e+100");
    assert_double(5e-324, "5e-324");
    assert_double(1.7976931348623157e308, "1.7976931348623157e+308");
    assert_double(-1.7976931348623157e308, "-1.7976931348623157e+308");
    assert_double(2.2250738585072014e-308, "2.2250738585072014e-308");
    assert_double(5.684341886080802e-14, "5.684341886080802e-14"); /* 2^-44: the interval is lopsided */
    assert_double(9007199254740993.0, "9007199254740992.0");
    assert_double((double)3.588f, "3.5880000591278076");
    assert_double((double)NAN, "nan");
    assert_double((double)INFINITY, "inf");
    assert_double(-(double)INFINITY, "-inf");
}

static void doubles_read_back_as_themselves(void **state)
{
    (void)state;
    uint64_t seed = 88172645463325252u;
    for (int i = 0; i < 200000; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        double value, again;
        memcpy(&value, &seed, sizeof value);
        if (!isfinite(value))
            continue;
        char text[JSON_DOUBLE_TEXT_SIZE];
        assert_in_range(json_double_text(value, text), 3, JSON_DOUBLE_TEXT_SIZE - 1);
        again = strtod(text, NULL);
        assert_memory_equal(&value, &again, sizeof value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_are_announced_in_order),     cmocka_unit_test(arrays_of_numbers_are_taken_whole),
        cmocka_unit_test(what_is_skipped_is_not_announced),   cmocka_unit_test(a_document_may_be_one_scalar),
        cmocka_unit_test(malformed_documents_are_refused),    cmocka_unit_test(every_cut_of_a_document_is_refused),
        cmocka_unit_test(nesting_ends_at_its_limit),          cmocka_unit_test(a_reader_serves_small_documents_after_large_ones),
        cmocka_unit_test(doubles_are_written_as_python_does), cmocka_unit_test(doubles_read_back_as_themselves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
