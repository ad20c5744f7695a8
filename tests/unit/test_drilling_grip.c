/* drilling/grip: both rules, at their edges. */
#include "drilling/grip.h"

#include <math.h>

#include "unit.h"

static void assert_codes(double depth_mm, int next, int exact_or_next, int nearest)
{
    struct grip_codes codes = grip_length_codes(depth_mm, GRIP_UNIT_MM, GRIP_LOW_MM, GRIP_HIGH_MM);
    assert_int_equal(codes.next, next);
    assert_int_equal(codes.exact_or_next, exact_or_next);
    assert_int_equal(codes.nearest, nearest);
}

static void lengths_are_counted_in_sixteenths(void **state)
{
    (void)state;
    assert_codes(0, 1, 0, 0);
    assert_codes(0.3, 1, 0, 0);
    assert_codes(0.5, 1, 0, 1);
    assert_codes(1.5, 1, 1, 2);
    assert_codes(1.5875, 2, 1, 1); /* a whole unit, nothing left */
    assert_codes(1.5875 + 0.5, 2, 1, 2);
    assert_codes(1.5875 + 1.5, 2, 2, 3);
    assert_codes(15.12, 10, 9, 10); /* 9 units and 0.8325 */
    assert_codes(21.83, 14, 13, 14);
}

static void parts_belong_to_the_middle_at_their_edges(void **state)
{
    (void)state;
    struct grip_codes low = grip_length_codes(4.25, 1, 0.25, 0.75), high = grip_length_codes(4.75, 1, 0.25, 0.75);
    assert_int_equal(low.nearest, 5);
    assert_int_equal(low.exact_or_next, 4);
    assert_int_equal(high.nearest, 5);
    assert_int_equal(high.exact_or_next, 4);
}

static void depths_without_sense_have_no_code(void **state)
{
    (void)state;
    assert_codes(-0.001, 0, 0, 0);
    assert_codes((double)NAN, 0, 0, 0);
    assert_codes((double)INFINITY, 0, 0, 0);
    assert_codes(1e300, 0, 0, 0);
    assert_int_equal(grip_table_code((double)NAN), 0);
    assert_int_equal(grip_table_code(-1), 0);
    assert_int_equal(grip_table_code(0), 0);
}

static void the_table_gives_the_code_up_to_and_with_its_limit(void **state)
{
    (void)state;
    assert_int_equal(grip_table_code(0.001), 1);
    for (int code = 1; code <= GRIP_CODE_MAX; code++) {
        double limit_mm = 1.5875 * code + 0.127;
        assert_int_equal(grip_table_code(limit_mm), code);
        assert_int_equal(grip_table_code(nextafter(limit_mm, 100)), code < GRIP_CODE_MAX ? code + 1 : 0);
    }
    assert_int_equal(grip_table_code(40), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_are_counted_in_sixteenths),
        cmocka_unit_test(parts_belong_to_the_middle_at_their_edges),
        cmocka_unit_test(depths_without_sense_have_no_code),
        cmocka_unit_test(the_table_gives_the_code_up_to_and_with_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
