#include "unit.h"

#include "pipeline/virtual_clock.h"

enum { SECOND = 1000000000 };

static const uint64_t start = 500ull * SECOND;       /* monotonic */
static const uint64_t wall = 1700000000ull * SECOND; /* wall clock at the start */

static uint64_t s(uint64_t seconds)
{
    return seconds * SECOND;
}

/* Each message moves the clock by a nanosecond at least. */
#define assert_shows(shown, expected) assert_in_range(shown, expected, (expected) + 999)

static void test_caught_up_is_the_monotonic_clock(void **state)
{
    (void)state;
    struct virtual_clock clock;
    virtual_clock_init(&clock, start);
    assert_int_equal(clock.now_ns, start);
    assert_int_equal(virtual_clock_catch_up(&clock, start + s(3)), start + s(3));
    assert_int_equal(virtual_clock_catch_up(&clock, start + s(2)), start + s(3)); /* never back */
}

static void test_fresh_message_arrives_now(void **state)
{
    (void)state;
    struct virtual_clock clock;
    virtual_clock_init(&clock, start);
    assert_shows(virtual_clock_read(&clock, start + s(5), wall + s(5), wall + s(5)), start + s(5));
    assert_shows(virtual_clock_read(&clock, start + s(7), wall + s(7), wall + s(6)), start + s(6));
}

static void test_backlog_moves_with_what_is_read(void **state)
{
    (void)state;
    struct virtual_clock clock;
    virtual_clock_init(&clock, start);
    virtual_clock_catch_up(&clock, start + s(10));
    /* Then 100 s of load that could not be read. The messages of these seconds are read within one. */
    for (uint64_t i = 11; i <= 110; i++)
        assert_shows(virtual_clock_read(&clock, start + s(110), wall + s(110), wall + s(i)), start + s(i));
    assert_int_equal(virtual_clock_catch_up(&clock, start + s(110)), start + s(110));
}

static void test_messages_of_an_earlier_life_arrive_at_the_start(void **state)
{
    (void)state;
    struct virtual_clock clock;
    virtual_clock_init(&clock, start);
    assert_shows(virtual_clock_read(&clock, start + s(1), wall + s(1), wall - s(7200)), start);
    assert_shows(virtual_clock_read(&clock, start + s(1), wall + s(1), wall - s(3600)), start);
    /* The first of this life: the hour in between does not count. */
    assert_shows(virtual_clock_read(&clock, start + s(2), wall + s(2), wall + s(1)), start + s(1));
    assert_int_equal(virtual_clock_catch_up(&clock, start + s(2)), start + s(2));
}

static void test_early_boot_does_not_underflow(void **state)
{
    (void)state;
    struct virtual_clock clock;
    virtual_clock_init(&clock, 5);
    assert_shows(virtual_clock_read(&clock, 10, wall, 0), 5);
    assert_int_equal(virtual_clock_origin(&clock, 10, wall, wall - 2), 8);
    assert_int_equal(virtual_clock_origin(&clock, 4, wall, wall - 2), 4); /* a reading from before the start */
}

static void test_wall_clock_set_forward(void **state)
{
    (void)state;
    struct virtual_clock clock;
    virtual_clock_init(&clock, start);
    virtual_clock_read(&clock, start + s(10), wall + s(10), wall + s(10));
    uint64_t hour = s(3600);
    /* Accepted before the jump, read after it: looks an hour old. The clock stands still. */
    assert_shows(virtual_clock_read(&clock, start + s(11), wall + s(11) + hour, wall + s(11)), start + s(10));
    /* Accepted and read after it: right again. */
    assert_shows(virtual_clock_read(&clock, start + s(12), wall + s(12) + hour, wall + s(12) + hour), start + s(12));
}

static void test_wall_clock_set_back(void **state)
{
    (void)state;
    struct virtual_clock clock;
    virtual_clock_init(&clock, start);
    virtual_clock_read(&clock, start + s(100), wall + s(100), wall + s(10)); /* 90 s behind */
    assert_shows(clock.now_ns, start + s(10));
    uint64_t hour = s(3600);
    /* With the wall clock an hour back the backlog seems to come from the future. It moves on by its own times. */
    assert_shows(virtual_clock_read(&clock, start + s(101), wall + s(101) - hour, wall + s(20)), start + s(20));
    assert_shows(virtual_clock_read(&clock, start + s(101), wall + s(101) - hour, wall + s(30)), start + s(30));
    /* The first after the jump moves nothing, the next ones do. */
    assert_shows(virtual_clock_read(&clock, start + s(102), wall + s(102) - hour, wall + s(50) - hour), start + s(30));
    assert_shows(virtual_clock_read(&clock, start + s(102), wall + s(102) - hour, wall + s(60) - hour), start + s(40));
    assert_int_equal(virtual_clock_catch_up(&clock, start + s(103)), start + s(103));
}

static void test_origin_is_not_held_back_by_what_was_shown(void **state)
{
    (void)state;
    struct virtual_clock clock;
    virtual_clock_init(&clock, start);
    virtual_clock_catch_up(&clock, start + s(10));
    assert_int_equal(virtual_clock_origin(&clock, start + s(10), wall + s(10), wall + s(9)), start + s(9));
    assert_shows(virtual_clock_read(&clock, start + s(10), wall + s(10), wall + s(9)), start + s(10));
    assert_int_equal(virtual_clock_origin(&clock, start + s(10), wall + s(10), wall + s(20)), start + s(10)); /* from the future: now */
}

static void test_never_falls(void **state)
{
    (void)state;
    struct virtual_clock clock;
    virtual_clock_init(&clock, start);
    uint64_t seed = 42, shown = start, monotonic = start;
    for (unsigned i = 0; i < 10000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        monotonic += seed >> 40;
        uint64_t wall_ns = wall + (seed >> 20) % s(100), time_ns = wall + (seed >> 10) % s(100);
        uint64_t now = i % 7 ? virtual_clock_read(&clock, monotonic, wall_ns, time_ns) : virtual_clock_catch_up(&clock, monotonic);
        assert_true(i % 7 ? now > shown : now >= shown);
        assert_true(now <= monotonic);
        shown = now;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_caught_up_is_the_monotonic_clock),
        cmocka_unit_test(test_fresh_message_arrives_now),
        cmocka_unit_test(test_backlog_moves_with_what_is_read),
        cmocka_unit_test(test_messages_of_an_earlier_life_arrive_at_the_start),
        cmocka_unit_test(test_early_boot_does_not_underflow),
        cmocka_unit_test(test_wall_clock_set_forward),
        cmocka_unit_test(test_wall_clock_set_back),
        cmocka_unit_test(test_origin_is_not_held_back_by_what_was_shown),
        cmocka_unit_test(test_never_falls),
    };
    return cmocka_run_group_tests_name("virtual_clock", tests, NULL, NULL);
}
