/* Filters of dead letters: what the texts mean, what is refused, and what a request says over HTTP. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/dead/work.h"

static const uint64_t second = 1000000000, now_ns = UINT64_C(1800000000) * 1000000000;

static bool passes(const struct dead_filter *filter, uint64_t offset, const char *topic, const char *reason, uint64_t time_ns)
{
    struct message record = {.offset = offset, .topic = topic, .topic_length = (uint32_t)strlen(topic)};
    struct dead_letter letter = {.time_ns = time_ns};
    snprintf(letter.reason, sizeof letter.reason, "%s", reason);
    return dead_filter_matches(filter, &record, &letter);
}

static void an_empty_filter_lets_everything_pass(void **state)
{
    (void)state;
    struct dead_filter filter;
    dead_filter_init(&filter);
    assert_true(dead_filter_is_empty(&filter));
    assert_true(passes(&filter, 0, "", "", 0));
    assert_true(passes(&filter, UINT64_MAX, "a", "late", UINT64_MAX - 1));
    assert_int_equal(dead_filter_first(&filter), 0);
}

static void offsets_are_numbers_and_ranges(void **state)
{
    (void)state;
    struct dead_filter filter;
    char message[VALUE_MESSAGE_MAX];
    dead_filter_init(&filter);
    assert_int_equal(dead_filter_set_offsets(&filter, "9,3-5,40-", message), 0);
    assert_false(dead_filter_is_empty(&filter));
    assert_int_equal(dead_filter_first(&filter), 3);
    for (uint64_t offset = 0; offset < 50; offset++)
        assert_int_equal(passes(&filter, offset, "t", "late", 1), offset == 9 || (offset >= 3 && offset <= 5) || offset >= 40);
    static const char *const bad[] = {"", ",", "1,", ",1", "a", "1-x", "5-3", "-3", "1 2", "1--2", "1-2-3", "9999999999999999999", "1,,2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        message[0] = 0;
        assert_int_equal(dead_filter_set_offsets(&filter, bad[i], message), ERR_INVALID);
        assert_non_null(strstr(message, "expected offsets"));
        assert_int_equal(filter.range_count, 3);
    }
}

static void ranges_are_bounded(void **state)
{
    (void)state;
    char text[4 * DEAD_FILTER_RANGES_MAX + 8] = "0", message[VALUE_MESSAGE_MAX];
    struct dead_filter filter;
    dead_filter_init(&filter);
    for (unsigned i = 1; i < DEAD_FILTER_RANGES_MAX; i++)
        strcat(text, ",1");
    assert_int_equal(dead_filter_set_offsets(&filter, text, message), 0);
    assert_int_equal(filter.range_count, DEAD_FILTER_RANGES_MAX);
    strcat(text, ",1");
    assert_int_equal(dead_filter_set_offsets(&filter, text, message), ERR_INVALID);
}

static void a_tool_is_two_whole_levels_anywhere(void **state)
{
    (void)state;
    struct dead_filter filter;
    char message[VALUE_MESSAGE_MAX];
    dead_filter_init(&filter);
    assert_int_equal(dead_filter_set_tool(&filter, "box/a", message), 0);
    static const char *const its[] = {"root/box/a/x", "two/levels/box/a/x/y", "box/a", "root/box/a", "box/box/a/x"};
    static const char *const others[] = {"root/box/ab/x", "root/abox/a/x", "root/box", "root/box/b/a", "", "/", "box/", "root/box//a"};
    for (size_t i = 0; i < sizeof its / sizeof *its; i++)
        assert_true(passes(&filter, 0, its[i], "late", 0));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(passes(&filter, 0, others[i], "late", 0));
    static const char *const bad[] = {"", "a", "/", "a/", "/a", "a/b/c", "+/a", "a/#"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(dead_filter_set_tool(&filter, bad[i], message), ERR_INVALID);
    char large[DEAD_FILTER_TOOL_MAX + 2] = "a/";
    memset(large + 2, 'x', sizeof large - 3);
    assert_int_equal(dead_filter_set_tool(&filter, large, message), ERR_INVALID);
    assert_string_equal(filter.tool, "box/a");
}

static void times_are_rfc_3339_or_ages(void **state)
{
    (void)state;
    struct dead_filter filter;
    char message[VALUE_MESSAGE_MAX];
    dead_filter_init(&filter);
    assert_int_equal(dead_filter_parse_time(&filter.since_ns, "-10m", now_ns, message), 0);
    assert_int_equal(filter.since_ns, now_ns - 600 * second);
    assert_int_equal(dead_filter_parse_time(&filter.until_ns, "1970-01-01T00:00:07Z", now_ns, message), 0);
    assert_int_equal(filter.until_ns, 7 * second);
    filter.since_ns = 3 * second;
    assert_false(passes(&filter, 0, "t", "late", 3 * second - 1));
    assert_true(passes(&filter, 0, "t", "late", 3 * second));
    assert_false(passes(&filter, 0, "t", "late", 7 * second));
    static const char *const bad[] = {"", "7", "yesterday", "10m", "2026-13-01"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(dead_filter_parse_time(&filter.since_ns, bad[i], now_ns, message), ERR_INVALID);
}

static void unknown_reasons_are_refused_and_the_known_named(void **state)
{
    (void)state;
    struct dead_filter filter;
    char message[VALUE_MESSAGE_MAX];
    dead_filter_init(&filter);
    assert_int_equal(dead_filter_set_reason(&filter, "unmached", message), ERR_INVALID);
    assert_non_null(strstr(message, " unmatched"));
    assert_int_equal(dead_filter_set_reason(&filter, "late", message), 0);
    assert_true(passes(&filter, 0, "t", "late", 0));
    assert_false(passes(&filter, 0, "t", "latest", 0));
}

static void a_request_survives_its_way(void **state)
{
    (void)state;
    struct dead_request out, in;
    char message[VALUE_MESSAGE_MAX];
    struct buffer json;
    buffer_init(&json, 65536);
    dead_request_init(&out, DEAD_REQUEUE);
    assert_int_equal(dead_filter_set_offsets(&out.filter, "1,5-9,70-", message), 0);
    assert_int_equal(dead_filter_set_reason(&out.filter, "late", message), 0);
    assert_int_equal(dead_filter_set_tool(&out.filter, "b\"ox/t", message), 0);
    out.filter.since_ns = 12345678901;
    out.filter.until_ns = now_ns;
    out.from = 3;
    out.end = 99;
    out.limit = 7;
    out.all = out.force = out.dry_run = true;
    assert_int_equal(dead_request_write(&out, &json), 0);
    dead_request_init(&in, DEAD_REQUEUE);
    assert_int_equal(dead_request_read(&in, json.data, json.length, message), 0);
    assert_memory_equal(in.filter.ranges, out.filter.ranges, 3 * sizeof in.filter.ranges[0]);
    assert_int_equal(in.filter.range_count, 3);
    assert_string_equal(in.filter.reason, "late");
    assert_string_equal(in.filter.tool, "b\"ox/t");
    assert_int_equal(in.filter.since_ns, out.filter.since_ns);
    assert_int_equal(in.filter.until_ns, now_ns);
    assert_int_equal(in.from, 3);
    assert_int_equal(in.end, 99);
    assert_int_equal(in.limit, 7);
    assert_true(in.all && in.force && in.dry_run);
    buffer_fini(&json);
}

static void bodies_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "{",
                                      "[]",
                                      "7",
                                      "{\"all\":1}",
                                      "{\"al\":true}",
                                      "{\"reason\":7}",
                                      "{\"limit\":10001}",
                                      "{\"limit\":0}",
                                      "{\"from\":-1}",
                                      "{\"offset\":\"x\"}",
                                      "{\"since\":\"7\"}",
                                      "{\"since\":-1}",
                                      "{\"tool\":[]}"};
    struct dead_request request;
    char message[VALUE_MESSAGE_MAX];
    dead_request_init(&request, DEAD_PURGE);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        message[0] = 0;
        assert_int_equal(dead_request_read(&request, bad[i], strlen(bad[i]), message), ERR_INVALID);
        assert_true(message[0]);
    }
    assert_true(dead_filter_is_empty(&request.filter));
    assert_false(request.all);
    assert_int_equal(dead_request_read(&request, "{}", 2, message), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_filter_lets_everything_pass),
        cmocka_unit_test(offsets_are_numbers_and_ranges),
        cmocka_unit_test(ranges_are_bounded),
        cmocka_unit_test(a_tool_is_two_whole_levels_anywhere),
        cmocka_unit_test(times_are_rfc_3339_or_ages),
        cmocka_unit_test(unknown_reasons_are_refused_and_the_known_named),
        cmocka_unit_test(a_request_survives_its_way),
        cmocka_unit_test(bodies_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
