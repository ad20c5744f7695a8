/* load/load_sequence and load/load_inflight: what a subscriber and a publisher keep in mind. */
#include "load/load_sequence.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/random.h"
#include "load/load_inflight.h"
#include "unit.h"

/* ---- sequence ---- */

static void take_all(struct load_sequence *sequence, const uint32_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        load_sequence_take(sequence, numbers[i]);
}

#define TAKE(sequence, ...) take_all(sequence, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void messages_in_order_are_only_counted(void **state)
{
    (void)state;
    struct load_sequence sequence = {0};
    TAKE(&sequence, 0, 1, 2, 3);
    assert_int_equal(sequence.received, 4);
    assert_int_equal(sequence.duplicates + sequence.late + sequence.lost + sequence.gap_count, 0);
    assert_int_equal(load_sequence_missing(&sequence, 4), 0);
    assert_int_equal(load_sequence_missing(&sequence, 7), 3);
}

static void gaps_are_missing_until_they_are_filled(void **state)
{
    (void)state;
    struct load_sequence sequence = {0};
    TAKE(&sequence, 0, 5);
    assert_int_equal(load_sequence_missing(&sequence, 6), 4);
    TAKE(&sequence, 2);
    assert_int_equal(sequence.gap_count, 2);
    TAKE(&sequence, 1, 4);
    assert_int_equal(load_sequence_missing(&sequence, 6), 1);
    TAKE(&sequence, 3);
    assert_int_equal(load_sequence_missing(&sequence, 6), 0);
    assert_int_equal(sequence.gap_count, 0);
    assert_int_equal(sequence.late, 4);
    assert_int_equal(sequence.received, 6);
    assert_int_equal(sequence.duplicates, 0);
}

static void repeats_are_duplicates_once_each(void **state)
{
    (void)state;
    struct load_sequence sequence = {0};
    TAKE(&sequence, 0, 1, 1, 0, 4, 2, 2, 4);
    assert_int_equal(sequence.duplicates, 4);
    assert_int_equal(sequence.received, 4);
    assert_int_equal(load_sequence_missing(&sequence, 5), 1);
}

static void a_first_number_above_zero_is_a_gap(void **state)
{
    (void)state;
    struct load_sequence sequence = {0};
    TAKE(&sequence, 3);
    assert_int_equal(load_sequence_missing(&sequence, 4), 3);
}

static void beyond_the_limit_the_oldest_gaps_are_given_up(void **state)
{
    (void)state;
    struct load_sequence sequence = {0};
    for (uint32_t i = 0; i < LOAD_SEQUENCE_GAPS_MAX + 10; i++)
        load_sequence_take(&sequence, 2 * i + 1);
    uint32_t sent = 2 * (LOAD_SEQUENCE_GAPS_MAX + 10);
    assert_int_equal(sequence.gap_count, LOAD_SEQUENCE_GAPS_MAX);
    assert_int_equal(sequence.lost, 10);
    assert_int_equal(load_sequence_missing(&sequence, sent), LOAD_SEQUENCE_GAPS_MAX + 10);
    TAKE(&sequence, 0);
    assert_int_equal(sequence.duplicates, 1);
    TAKE(&sequence, sent - 2);
    assert_int_equal(sequence.late, 1);
}

static void splitting_a_gap_in_a_full_list_keeps_the_count(void **state)
{
    (void)state;
    struct load_sequence sequence = {0};
    for (uint32_t i = 0; i < LOAD_SEQUENCE_GAPS_MAX; i++)
        load_sequence_take(&sequence, 4 * i + 3);
    assert_int_equal(sequence.gap_count, LOAD_SEQUENCE_GAPS_MAX);
    TAKE(&sequence, 1);
    assert_int_equal(load_sequence_missing(&sequence, 4 * LOAD_SEQUENCE_GAPS_MAX), 3 * LOAD_SEQUENCE_GAPS_MAX - 1);
    TAKE(&sequence, 41);
    assert_int_equal(load_sequence_missing(&sequence, 4 * LOAD_SEQUENCE_GAPS_MAX), 3 * LOAD_SEQUENCE_GAPS_MAX - 2);
}

static void any_order_is_accounted_for(void **state)
{
    (void)state;
    enum { COUNT = 2000, NEIGHBOURS = 20 };
    struct random_source random = {.state = 1};
    uint32_t numbers[COUNT];
    for (uint32_t i = 0; i < COUNT; i++)
        numbers[i] = i;
    for (uint32_t i = 0; i + NEIGHBOURS < COUNT; i++) {
        uint32_t j = i + random_below(&random, NEIGHBOURS), swap = numbers[i];
        numbers[i] = numbers[j];
        numbers[j] = swap;
    }
    struct load_sequence sequence = {0};
    uint64_t dropped = 0, repeated = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        if (random_below(&random, 100) == 0) {
            dropped++;
            continue;
        }
        load_sequence_take(&sequence, numbers[i]);
        if (random_below(&random, 50) == 0) {
            load_sequence_take(&sequence, numbers[i]);
            repeated++;
        }
    }
    assert_int_equal(load_sequence_missing(&sequence, COUNT), dropped);
    assert_int_equal(sequence.duplicates, repeated);
    assert_int_equal(sequence.received, COUNT - dropped);
}

/* ---- in flight ---- */

static uint32_t drained[8];
static unsigned drained_count;

static void note_tag(void *owner, uint32_t tag)
{
    assert_ptr_equal(owner, drained);
    drained[drained_count++] = tag;
}

static void identifiers_are_unique_and_come_back(void **state)
{
    (void)state;
    struct load_inflight inflight;
    struct load_inflight_entry entry;
    assert_int_equal(load_inflight_init(&inflight, 3), 0);
    for (uint32_t round = 0; round < 100; round++) {
        uint16_t a = load_inflight_add(&inflight, 10, 100), b = load_inflight_add(&inflight, 11, 101),
                 c = load_inflight_add(&inflight, 12, 102);
        assert_true(a && b && c && a != b && b != c && a != c);
        assert_int_equal(load_inflight_add(&inflight, 13, 103), 0);
        assert_int_equal(load_inflight_count(&inflight), 3);
        assert_true(load_inflight_remove(&inflight, b, &entry));
        assert_int_equal(entry.tag, 11);
        assert_int_equal(entry.time_ns, 101);
        assert_false(load_inflight_remove(&inflight, b, &entry));
        assert_true(load_inflight_remove(&inflight, c, &entry));
        assert_true(load_inflight_remove(&inflight, a, &entry));
        assert_int_equal(load_inflight_count(&inflight), 0);
    }
    load_inflight_fini(&inflight);
}

static void what_was_not_sent_cannot_be_acknowledged(void **state)
{
    (void)state;
    struct load_inflight inflight;
    struct load_inflight_entry entry = {.tag = 5};
    assert_int_equal(load_inflight_init(&inflight, 2), 0);
    assert_false(load_inflight_remove(&inflight, 0, &entry));
    assert_false(load_inflight_remove(&inflight, 1, &entry));
    assert_false(load_inflight_remove(&inflight, 3, &entry));
    assert_false(load_inflight_remove(&inflight, UINT16_MAX, &entry));
    assert_int_equal(entry.tag, 5);
    load_inflight_fini(&inflight);
    assert_int_equal(load_inflight_init(&inflight, 0), ERR_INVALID);
    assert_int_equal(load_inflight_init(&inflight, LOAD_INFLIGHT_MAX + 1), ERR_INVALID);
}

static void draining_keeps_the_order_of_sending(void **state)
{
    (void)state;
    struct load_inflight inflight;
    struct load_inflight_entry entry;
    assert_int_equal(load_inflight_init(&inflight, 4), 0);
    uint16_t first = load_inflight_add(&inflight, 1, 0), second = load_inflight_add(&inflight, 2, 0);
    load_inflight_add(&inflight, 3, 0);
    assert_true(load_inflight_remove(&inflight, second, &entry));
    assert_true(load_inflight_remove(&inflight, first, &entry));
    for (uint32_t tag = 4; tag <= 6; tag++)
        assert_true(load_inflight_add(&inflight, tag, 0));
    drained_count = 0;
    load_inflight_drain(&inflight, note_tag, drained);
    assert_int_equal(drained_count, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(drained[i], 3 + i);
    assert_int_equal(load_inflight_count(&inflight), 0);
    for (uint32_t i = 0; i < 4; i++)
        assert_true(load_inflight_add(&inflight, 9, 0));
    assert_int_equal(load_inflight_add(&inflight, 9, 0), 0);
    load_inflight_fini(&inflight);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_in_order_are_only_counted),
        cmocka_unit_test(gaps_are_missing_until_they_are_filled),
        cmocka_unit_test(repeats_are_duplicates_once_each),
        cmocka_unit_test(a_first_number_above_zero_is_a_gap),
        cmocka_unit_test(beyond_the_limit_the_oldest_gaps_are_given_up),
        cmocka_unit_test(splitting_a_gap_in_a_full_list_keeps_the_count),
        cmocka_unit_test(any_order_is_accounted_for),
        cmocka_unit_test(identifiers_are_unique_and_come_back),
        cmocka_unit_test(what_was_not_sent_cannot_be_acknowledged),
        cmocka_unit_test(draining_keeps_the_order_of_sending),
    };
    return cmocka_run_group_tests_name("load_sequence", tests, NULL, NULL);
}
