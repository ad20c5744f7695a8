/* drilling/stamp: times in the forms that tools write, and nearness. */
#include "drilling/stamp.h"

#include "unit.h"

static const int64_t SECOND_NS = 1000000000;

static void assert_time(const char *stamp, int64_t seconds, int64_t ns)
{
    int64_t found = -1;
    assert_true(stamp_parse(stamp, &found));
    assert_true(found == seconds * SECOND_NS + ns);
}

static void stamps_are_read(void **state)
{
    (void)state;
    assert_time("1970-01-01T00:00:00Z", 0, 0);
    assert_time("2024-05-15T07:29:33Z", 1715758173, 0);
    assert_time("2024-05-15T07:29:33", 1715758173, 0);
    assert_time("2000-02-29T23:59:59Z", 951868799, 0);
    assert_time("1969-12-31T23:59:59Z", -1, 0);
    assert_time("1900-01-01T00:00:00Z", -2208988800, 0);
    assert_time("2199-12-31T23:59:60Z", 7258118400, 0);
    assert_time("2024-05-15T07:29:33.5Z", 1715758173, 500000000);
    assert_time("2024-05-15T07:29:33.123456789123Z", 1715758173, 123456789);
    assert_time("2024-05-15T09:29:33+02:00", 1715758173, 0);
    assert_time("2024-05-15T09:29:33+0200", 1715758173, 0);
    assert_time("2024-05-15T09:29:33+02", 1715758173, 0);
    assert_time("2024-05-15T01:59:33.25-05:30", 1715758173, 250000000);
}

static void what_is_no_time_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "hello",
                                      "2024",
                                      "2024-05-15",
                                      "2024-05-15 07:29:33Z",
                                      "2024-5-15T07:29:33Z",
                                      "2024-13-15T07:29:33Z",
                                      "2024-00-15T07:29:33Z",
                                      "2024-04-31T07:29:33Z",
                                      "2023-02-29T07:29:33Z",
                                      "1900-02-29T07:29:33Z",
                                      "2024-05-15T24:29:33Z",
                                      "2024-05-15T07:60:33Z",
                                      "2024-05-15T07:29:61Z",
                                      "2024-05-15T07:29:33.Z",
                                      "2024-05-15T07:29:33ZZ",
                                      "2024-05-15T07:29:33+",
                                      "2024-05-15T07:29:33+2",
                                      "2024-05-15T07:29:33+02:",
                                      "2024-05-15T07:29:33+02:0",
                                      "2024-05-15T07:29:33+24:00",
                                      "2024-05-15T07:29:33X",
                                      "1899-12-31T23:59:59Z",
                                      "2201-01-01T00:00:00Z",
                                      "-024-05-15T07:29:33Z"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t ns = 77;
        assert_false(stamp_parse(bad[i], &ns));
        assert_true(ns == 77);
    }
}

static void nearness_is_a_distance(void **state)
{
    (void)state;
    uint64_t window_ns = 30u * (uint64_t)SECOND_NS;
    assert_true(stamp_near("2024-05-15T07:29:33Z", "2024-05-15T07:30:03Z", window_ns));
    assert_true(stamp_near("2024-05-15T07:30:03Z", "2024-05-15T07:29:33Z", window_ns));
    assert_false(stamp_near("2024-05-15T07:29:33Z", "2024-05-15T07:30:03.001Z", window_ns));
    assert_true(stamp_near("2024-05-15T07:29:33Z", "2024-05-15T09:29:33+02:00", 0));
    assert_false(stamp_near("1900-01-01T00:00:00Z", "2200-12-31T23:59:59Z", window_ns));
    assert_true(stamp_near("1900-01-01T00:00:00Z", "2200-12-31T23:59:59Z", UINT64_MAX));
    assert_true(stamp_near("no time", "no time", 0));
    assert_false(stamp_near("no time", "another", UINT64_MAX));
    assert_false(stamp_near("no time", "2024-05-15T07:29:33Z", UINT64_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stamps_are_read),
        cmocka_unit_test(what_is_no_time_is_refused),
        cmocka_unit_test(nearness_is_a_distance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
