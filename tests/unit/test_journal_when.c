/* cli/journal/when: places and ages as people write them. */
#include "cli/journal/when.h"

#include <string.h>

#include "base/error.h"
#include "unit.h"

#define NOW_NS UINT64_C(1795257283000000000) /* 2026-11-21T10:34:43Z */

static void expect_time(const char *text, uint64_t time_ns)
{
    struct when when = {0};
    char message[VALUE_MESSAGE_MAX];
    assert_int_equal(when_parse(text, NOW_NS, &when, message), 0);
    assert_true(when.is_time);
    assert_int_equal(when.time_ns, time_ns);
}

static void offsets_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t offset;
    } cases[] = {
        {"0", 0}, {"42", 42}, {"281474976710655", UINT64_C(281474976710655)}, {"9999999999999999999", UINT64_C(9999999999999999999)}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct when when = {.is_time = true};
        char message[VALUE_MESSAGE_MAX];
        assert_int_equal(when_parse(cases[i].text, NOW_NS, &when, message), 0);
        assert_false(when.is_time);
        assert_int_equal(when.offset, cases[i].offset);
    }
}

static void times_are_read(void **state)
{
    (void)state;
    expect_time("2026-11-21T10:34:43Z", NOW_NS);
    expect_time("2026-11-21t10:34:43z", NOW_NS);
    expect_time("2026-11-21 10:34:43Z", NOW_NS);
    expect_time("2026-11-21T11:34:43+01:00", NOW_NS);
    expect_time("2026-11-21T05:04:43-05:30", NOW_NS);
    expect_time("2026-11-21T10:34:43.5Z", NOW_NS + 500000000);
    expect_time("2026-11-21T10:34:43.000000007Z", NOW_NS + 7);
    expect_time("2026-11-21T10:34:43.0000000079Z", NOW_NS + 7);
    expect_time("2026-11-21", UINT64_C(1795219200000000000));
    expect_time("1970-01-01T00:00:00Z", 0);
    expect_time("2024-02-29", UINT64_C(1709164800000000000));
}

static void ages_are_read(void **state)
{
    (void)state;
    expect_time("-10m", NOW_NS - 600 * UINT64_C(1000000000));
    expect_time("-1.5h", NOW_NS - 5400 * UINT64_C(1000000000));
    expect_time("-0s", NOW_NS);
}

static void everything_else_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "-",
                                        "-10",
                                        "-10x",
                                        "10m",
                                        "now",
                                        "1e3",

                                        "2026-11",
                                        "2026-13-01",
                                        "2026-06-31",
                                        "2026-02-29",
                                        "2026-1-1",
                                        "2026-11-21T",
                                        "2026-11-21T10:34:43",
                                        "2026-11-21T10:34:43.Z",
                                        "2026-11-21T25:00:00Z",
                                        "2026-11-21T10:34:43Zx",
                                        "2026-11-21T10:34:43+0100",
                                        "1970-01-01T00:00:00+01:00",
                                        "99999999999999999999",
                                        "--10m",
                                        "-1.2.3h"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct when when = {.offset = 7};
        char message[VALUE_MESSAGE_MAX] = "";
        assert_int_equal(when_parse(texts[i], NOW_NS, &when, message), ERR_INVALID);
        assert_int_equal(when.offset, 7);
        assert_non_null(strstr(message, "expected an offset, a time such as"));
    }
}

static void ages_alone(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t seconds;
    } cases[] = {{"90s", 90}, {"10m", 600}, {"36h", 129600}, {"7d", 604800}, {"2w", 1209600}, {"0.5m", 30}};
    static const char *const refused[] = {"", "10", "m", "-10m", "10 m", "1e3s", "100000w", "nan", "5ms"};
    char message[VALUE_MESSAGE_MAX];
    uint64_t age_ns = 3;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(when_age_parse(cases[i].text, &age_ns, message), 0);
        assert_int_equal(age_ns, cases[i].seconds * UINT64_C(1000000000));
    }
    age_ns = 3;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_int_equal(when_age_parse(refused[i], &age_ns, message), ERR_INVALID);
    assert_int_equal(age_ns, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offsets_are_read),           cmocka_unit_test(times_are_read), cmocka_unit_test(ages_are_read),
        cmocka_unit_test(everything_else_is_refused), cmocka_unit_test(ages_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
