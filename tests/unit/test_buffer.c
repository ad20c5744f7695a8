/* base/buffer: growth, the ceiling, JSON strings. */
#include "base/buffer.h"

#include <limits.h>

#include "base/error.h"
#include "unit.h"

static void assert_holds(const struct buffer *buffer, const char *text)
{
    assert_int_equal(buffer->length, strlen(text));
    assert_memory_equal(buffer->data, text, strlen(text));
}

static void appends_grow_and_keep_what_was_there(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 100000);
    assert_null(buffer.data);
    for (unsigned i = 0; i < 20000; i++)
        assert_int_equal(buffer_append(&buffer, "abcde", 5), 0);
    assert_int_equal(buffer.length, 100000);
    for (unsigned i = 0; i < 20000; i++)
        assert_memory_equal(buffer.data + i * 5, "abcde", 5);
    buffer_fini(&buffer);
    assert_null(buffer.data);
    assert_int_equal(buffer.length, 0);
    assert_int_equal(buffer.limit, 100000);
}

static void a_zeroed_buffer_may_be_finished(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    buffer_fini(&buffer);
    buffer_fini(&buffer);
    assert_int_equal(buffer_append(&buffer, "x", 1), ERR_LIMIT);
}

static void the_limit_is_reached_but_not_passed(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 10);
    assert_int_equal(buffer_append(&buffer, "0123456789", 10), 0);
    assert_int_equal(buffer_append(&buffer, "x", 1), ERR_LIMIT);
    assert_int_equal(buffer_append(&buffer, "x", 0), 0);
    assert_int_equal(buffer_append(&buffer, "x", SIZE_MAX), ERR_LIMIT);
    assert_int_equal(buffer_printf(&buffer, "%d", 7), ERR_LIMIT);
    assert_int_equal(buffer_printf(&buffer, "%s", ""), 0);
    assert_int_equal(buffer_append_json_string(&buffer, "", 0, 0), ERR_LIMIT);
    assert_holds(&buffer, "0123456789");
    buffer_fini(&buffer);
}

/* Growth by doubling must not hand out room beyond the ceiling. */
static void reserve_never_gives_room_beyond_the_limit(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 10);
    assert_int_equal(buffer_reserve(&buffer, 1), 0);
    assert_true(buffer.capacity <= 10);
    assert_int_equal(buffer_reserve(&buffer, 11), ERR_LIMIT);
    assert_int_equal(buffer_reserve(&buffer, 10), 0);
    assert_int_equal(buffer_reserve(&buffer, SIZE_MAX), ERR_LIMIT);
    buffer_fini(&buffer);
}

static void no_memory_is_an_error_and_changes_nothing(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, SIZE_MAX);
    assert_int_equal(buffer_append(&buffer, "kept", 4), 0);
    assert_int_equal(buffer_reserve(&buffer, SIZE_MAX - 4), ERR_NO_MEMORY);
    assert_int_equal(buffer_reserve(&buffer, SIZE_MAX), ERR_LIMIT);
    assert_holds(&buffer, "kept");
    buffer_fini(&buffer);
}

static void printf_fits_exactly_to_the_limit(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 8);
    assert_int_equal(buffer_printf(&buffer, "%s=%d", "abc", 1234), 0);
    assert_holds(&buffer, "abc=1234");
    buffer_fini(&buffer);
    buffer_init(&buffer, 7);
    assert_int_equal(buffer_printf(&buffer, "%s=%d", "abc", 1234), ERR_LIMIT);
    assert_int_equal(buffer.length, 0);
    buffer_fini(&buffer);
}

static void text_is_terminated_without_counting_the_zero(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 3);
    assert_string_equal(buffer_text(&buffer), "");
    assert_int_equal(buffer_append_text(&buffer, "abc"), 0);
    assert_string_equal(buffer_text(&buffer), "abc");
    assert_int_equal(buffer.length, 3);
    buffer_fini(&buffer);
}

static void consume_moves_the_rest_to_the_front(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 100);
    buffer_append_text(&buffer, "head and tail");
    buffer_consume(&buffer, 0);
    assert_holds(&buffer, "head and tail");
    buffer_consume(&buffer, 9);
    assert_holds(&buffer, "tail");
    buffer_consume(&buffer, 4);
    assert_int_equal(buffer.length, 0);
    buffer_fini(&buffer);
}

static void shrink_gives_memory_back_only_when_empty_and_large(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 100000);
    assert_int_equal(buffer_reserve(&buffer, 50000), 0);
    buffer_append_text(&buffer, "x");
    buffer_shrink(&buffer, 1000);
    assert_true(buffer.capacity >= 50000);
    buffer_clear(&buffer);
    buffer_shrink(&buffer, 100000);
    assert_true(buffer.capacity >= 50000);
    buffer_shrink(&buffer, 1000);
    assert_int_equal(buffer.capacity, 0);
    assert_null(buffer.data);
    assert_int_equal(buffer_append_text(&buffer, "again"), 0);
    assert_holds(&buffer, "again");
    buffer_fini(&buffer);
}

static void assert_json(const char *text, size_t length, int ascii, const char *expected)
{
    struct buffer buffer;
    buffer_init(&buffer, 1000);
    assert_int_equal(buffer_append_json_string(&buffer, text, length, ascii), 0);
    assert_string_equal(buffer_text(&buffer), expected);
    buffer_fini(&buffer);
}

static void json_strings_escape_what_json_demands(void **state)
{
    (void)state;
    assert_json("", 0, 0, "\"\"");
    assert_json("plain", 5, 0, "\"plain\"");
    assert_json("a\"b\\c/", 6, 0, "\"a\\\"b\\\\c/\"");
    assert_json("\b\f\n\r\t\x01\x1f", 7, 0, "\"\\b\\f\\n\\r\\t\\u0001\\u001f\"");
    assert_json("a\0b", 3, 0, "\"a\\u0000b\"");
    assert_json("\xc3\xa9\xc2\xa0", 4, 0, "\"\xc3\xa9\xc2\xa0\"");
}

/* What a terminal obeys, and where some readers of lines end one, stands in no line as it is. */
static void json_strings_and_shown_text_stay_one_harmless_line(void **state)
{
    (void)state;
    static const char text[] = "\x7f\xc2\x80\xc2\x85\xc2\x9b"
                               "2J\xc2\x9f\xc2\xa0\xe2\x80\xa7\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa";
    assert_json(text, sizeof text - 1, 0, "\"\\u007f\\u0080\\u0085\\u009b2J\\u009f\xc2\xa0\xe2\x80\xa7\\u2028\\u2029\xe2\x80\xaa\"");
    struct buffer buffer;
    buffer_init(&buffer, 200);
    assert_int_equal(buffer_append_showable(&buffer, text, sizeof text - 1), 0);
    assert_string_equal(buffer_text(&buffer),
                        "\\x7f\\xc2\\x80\\xc2\\x85\\xc2\\x9b2J\\xc2\\x9f\xc2\xa0\xe2\x80\xa7\\xe2\\x80\\xa8\\xe2\\x80\\xa9\xe2\x80\xaa");
    buffer_clear(&buffer);
    assert_int_equal(buffer_append_showable(&buffer, "a\nb\0\xff\xe2\x80", 7), 0);
    assert_string_equal(buffer_text(&buffer), "a\\x0ab\\x00\\xff\\xe2\\x80");
    buffer_fini(&buffer);
    buffer_init(&buffer, 10);
    buffer_append(&buffer, "kept", 4);
    assert_int_equal(buffer_append_showable(&buffer, "abc\n", 4), ERR_LIMIT);
    assert_holds(&buffer, "kept");
    buffer_fini(&buffer);
}

/* Expected texts as Python's json.dumps prints them. */
static void ascii_json_strings_equal_pythons(void **state)
{
    (void)state;
    assert_json("a\xc3\xa9~\x7f", 5, 1, "\"a\\u00e9~\\u007f\"");
    assert_json("\xef\xbf\xbf", 3, 1, "\"\\uffff\"");
    assert_json("\xf0\x9f\x94\xa9", 4, 1, "\"\\ud83d\\udd29\"");
    assert_json("\xf4\x8f\xbf\xbf", 4, 1, "\"\\udbff\\udfff\"");
}

static void json_strings_replace_bytes_that_are_not_utf8(void **state)
{
    (void)state;
    assert_json("a\xff"
                "b",
                3, 0,
                "\"a\xef\xbf\xbd"
                "b\"");
    assert_json("\xc3", 1, 1, "\"\\ufffd\"");
    assert_json("\xed\xa0\x80", 3, 1, "\"\\ufffd\\ufffd\\ufffd\"");
}

static void a_json_string_that_does_not_fit_leaves_nothing_behind(void **state)
{
    (void)state;
    struct buffer buffer;
    for (size_t limit = 4; limit < 14; limit++) {
        buffer_init(&buffer, limit);
        buffer_append_text(&buffer, "key:");
        assert_int_equal(buffer_append_json_string(&buffer, "\x01zzz", 4, 0), limit < 15 ? ERR_LIMIT : 0);
        assert_holds(&buffer, "key:");
        buffer_fini(&buffer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_grow_and_keep_what_was_there),
        cmocka_unit_test(a_zeroed_buffer_may_be_finished),
        cmocka_unit_test(the_limit_is_reached_but_not_passed),
        cmocka_unit_test(reserve_never_gives_room_beyond_the_limit),
        cmocka_unit_test(no_memory_is_an_error_and_changes_nothing),
        cmocka_unit_test(printf_fits_exactly_to_the_limit),
        cmocka_unit_test(text_is_terminated_without_counting_the_zero),
        cmocka_unit_test(consume_moves_the_rest_to_the_front),
        cmocka_unit_test(shrink_gives_memory_back_only_when_empty_and_large),
        cmocka_unit_test(json_strings_escape_what_json_demands),
        cmocka_unit_test(json_strings_and_shown_text_stay_one_harmless_line),
        cmocka_unit_test(ascii_json_strings_equal_pythons),
        cmocka_unit_test(json_strings_replace_bytes_that_are_not_utf8),
        cmocka_unit_test(a_json_string_that_does_not_fit_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
