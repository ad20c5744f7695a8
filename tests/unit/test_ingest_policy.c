/* Back-off, the circuit breaker, and filters: what decides when and for what Spindle asks another broker. */
#include "base/error.h"
#include "ingest/filters.h"
#include "ingest/ingest.h"
#include "ingest/reconnect.h"
#include "unit.h"

#define MS UINT64_C(1000000)

static const struct backoff_options waits = {.first_ns = 100 * MS, .last_ns = 1000 * MS};
static const struct breaker_options breaks = {.failures_max = 3, .open_ns = 1000 * MS, .open_max_ns = 3000 * MS};

static void the_back_off_doubles_to_its_limit_with_jitter(void **state)
{
    (void)state;
    struct random_source random = {7};
    struct backoff backoff = {0};
    static const uint64_t most_ms[] = {100, 200, 400, 800, 1000, 1000, 1000};
    for (size_t i = 0; i < sizeof most_ms / sizeof most_ms[0]; i++) {
        uint64_t wait_ns = backoff_next(&backoff, &waits, &random);
        assert_in_range(wait_ns, most_ms[i] * MS / 2, most_ms[i] * MS);
    }
    backoff.failures = 1000000; /* however long it lasts */
    assert_in_range(backoff_next(&backoff, &waits, &random), 500 * MS, 1000 * MS);
    uint64_t least = UINT64_MAX, most = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t wait_ns = backoff_next(&backoff, &waits, &random);
        least = wait_ns < least ? wait_ns : least;
        most = wait_ns > most ? wait_ns : most;
    }
    assert_true(least < 550 * MS && most > 950 * MS); /* clients that lost a broker together do not come back together */
}

static void one_attempt_at_a_time_until_the_broker_is_known(void **state)
{
    (void)state;
    struct breaker breaker = {0};
    assert_true(breaker_try(&breaker, 0));
    assert_false(breaker_try(&breaker, 0));
    breaker_gave_up(&breaker);
    assert_true(breaker_try(&breaker, 0));
    breaker_succeeded(&breaker);
    assert_int_equal(breaker.state, BREAKER_CLOSED);
    for (int i = 0; i < 5; i++)
        assert_true(breaker_try(&breaker, 0));
}

static void it_opens_after_failures_in_a_row_and_probes_again(void **state)
{
    (void)state;
    struct breaker breaker = {0};
    breaker_succeeded(&breaker);
    assert_false(breaker_failed(&breaker, &breaks, false, 0));
    assert_false(breaker_failed(&breaker, &breaks, false, 0));
    breaker_succeeded(&breaker); /* in a row only */
    assert_false(breaker_failed(&breaker, &breaks, false, 0));
    assert_false(breaker_failed(&breaker, &breaks, false, 0));
    assert_true(breaker_failed(&breaker, &breaks, false, 0));
    assert_int_equal(breaker.state, BREAKER_OPEN);
    assert_false(breaker_failed(&breaker, &breaks, false, 0)); /* attempts that were under way prolong nothing */
    uint64_t now_ns = 0;
    static const uint64_t open_ms[] = {1000, 2000, 3000, 3000}; /* doubles to its limit */
    for (size_t i = 0; i < sizeof open_ms / sizeof open_ms[0]; i++) {
        assert_int_equal(breaker.until_ns, now_ns + open_ms[i] * MS);
        assert_false(breaker_is_usable(&breaker, breaker.until_ns - 1));
        assert_false(breaker_try(&breaker, breaker.until_ns - 1));
        now_ns = breaker.until_ns;
        assert_true(breaker_is_usable(&breaker, now_ns));
        assert_true(breaker_try(&breaker, now_ns));
        assert_int_equal(breaker.state, BREAKER_HALF_OPEN);
        assert_false(breaker_try(&breaker, now_ns));
        assert_true(breaker_failed(&breaker, &breaks, false, now_ns));
    }
    assert_true(breaker_try(&breaker, breaker.until_ns));
    breaker_succeeded(&breaker);
    assert_int_equal(breaker.openings, 0);
}

static void a_refusal_opens_it_at_once(void **state)
{
    (void)state;
    struct breaker breaker = {0};
    assert_true(breaker_try(&breaker, 5));
    assert_true(breaker_failed(&breaker, &breaks, true, 5));
    assert_int_equal(breaker.state, BREAKER_OPEN);
}

static void filters_cover_and_overlap(void **state)
{
    (void)state;
    static const struct {
        const char *one, *other;
        bool covers, covered, overlaps;
    } rows[] = {
        {"a/b", "a/b", true, true, true},     {"a/b", "a/c", false, false, false},     {"a/+", "a/b", true, false, true},
        {"a/#", "a", true, false, true},      {"a/#", "a/b/c", true, false, true},     {"#", "+/x", true, false, true},
        {"+/b", "a/+", false, false, true},   {"+/b", "a/c", false, false, false},     {"a/+", "a/b/c", false, false, false},
        {"a/+/#", "a/b", true, false, true},  {"a/+/#", "a", false, false, false},     {"a/#", "a/+", true, false, true},
        {"a/+", "a/#", false, true, true},    {"#", "$SYS/x", false, false, false},    {"$SYS/#", "$SYS/+", true, false, true},
        {"a//b", "a/+/b", false, true, true}, {"+/+", "/a", true, false, true},        {"a/b/#", "a/+", false, false, true},
        {"a", "a/", false, false, false},     {"a/b/c", "a/+/+/#", false, true, true}, {"ab/c", "a/c", false, false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (filter_covers(rows[i].one, rows[i].other) != rows[i].covers || filter_covers(rows[i].other, rows[i].one) != rows[i].covered ||
            filter_overlaps(rows[i].one, rows[i].other) != rows[i].overlaps ||
            filter_overlaps(rows[i].other, rows[i].one) != rows[i].overlaps)
            fail_msg("%s and %s", rows[i].one, rows[i].other);
    }
}

static void filters_are_shared_out_evenly(void **state)
{
    (void)state;
    unsigned counts[4] = {0};
    for (unsigned i = 0; i < 10; i++)
        counts[filter_connection(i, 4)]++;
    for (unsigned i = 0; i < 4; i++)
        assert_in_range(counts[i], 2, 3);
}

static void addresses_say_whether_and_where_tls_is_spoken(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host, *user;
        uint16_t port;
        bool tls;
    } rows[] = {
        {"host", "host", "", 1883, false},        {"mqtt://u@host", "host", "u", 1883, false},
        {"mqtts://host", "host", "", 8883, true}, {"mqtts://u@host:1884/", "host", "u", 1884, true},
        {"mqtts://[::1]", "::1", "", 8883, true},
    };
    static const char *const wrong[] = {"mqtts://", "mqtts://u:p@h", "mqttss://h", "ssl://h", "mqtts://h:0", "mqtts://h/x"};
    struct ingest_broker broker;
    char why[INGEST_WHY_MAX];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(ingest_broker_parse(rows[i].text, &broker, why), 0);
        assert_string_equal(broker.host, rows[i].host);
        assert_string_equal(broker.username, rows[i].user);
        assert_int_equal(broker.port, rows[i].port);
        assert_int_equal(broker.tls, rows[i].tls);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(ingest_broker_parse(wrong[i], &broker, why), ERR_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_back_off_doubles_to_its_limit_with_jitter),
        cmocka_unit_test(one_attempt_at_a_time_until_the_broker_is_known),
        cmocka_unit_test(it_opens_after_failures_in_a_row_and_probes_again),
        cmocka_unit_test(a_refusal_opens_it_at_once),
        cmocka_unit_test(filters_cover_and_overlap),
        cmocka_unit_test(filters_are_shared_out_evenly),
        cmocka_unit_test(addresses_say_whether_and_where_tls_is_spoken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
