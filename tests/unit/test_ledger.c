/* The ledger: every offset has one outcome, the terms add up at every instant, and a checkpoint is the ledger. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "queue/dead_letter.h"
#include "queue/ledger.h"

static void assert_holds(const struct ledger *ledger, uint64_t accepted)
{
    struct queue_counts counts;
    ledger_counts(ledger, accepted, &counts);
    assert_int_equal(counts.accepted, counts.completed + counts.duplicates + counts.dead_lettered + counts.pending);
}

static void outcomes_in_any_order_move_the_cursor_to_the_first_open_one(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    for (unsigned seed = 1; seed <= 5; seed++) {
        srand(seed);
        unsigned order[COUNT];
        for (unsigned i = 0; i < COUNT; i++)
            order[i] = i;
        for (unsigned i = COUNT - 1; i > 0; i--) {
            unsigned j = (unsigned)rand() % (i + 1), swapped = order[i];
            order[i] = order[j];
            order[j] = swapped;
        }
        struct ledger ledger;
        ledger_init(&ledger);
        bool settled[COUNT] = {false};
        uint64_t cursor = 0;
        for (unsigned i = 0; i < COUNT; i++) {
            enum queue_outcome outcome = (enum queue_outcome)(1 + order[i] % 3);
            assert_false(ledger_is_settled(&ledger, order[i]));
            assert_int_equal(ledger_settle(&ledger, order[i], outcome, LEDGER_REASON_UNMATCHED), 1);
            assert_int_equal(ledger_settle(&ledger, order[i], QUEUE_COMPLETED, 0), 0);
            settled[order[i]] = true;
            while (cursor < COUNT && settled[cursor])
                cursor++;
            assert_int_equal(ledger.cursor, cursor);
            assert_holds(&ledger, COUNT);
        }
        assert_int_equal(ledger.completed, (COUNT + 2) / 3);
        assert_int_equal(ledger_dead_lettered(&ledger), COUNT / 3);
        ledger_fini(&ledger);
    }
}

static void a_checkpoint_is_the_ledger(void **state)
{
    (void)state;
    struct ledger ledger;
    ledger_init(&ledger);
    for (uint64_t i = 0; i < 1000; i++)
        if (i < 130 || i % 5 == 0)
            ledger_settle(&ledger, i, QUEUE_COMPLETED, 0);
    ledger_settle(&ledger, 777, QUEUE_DEAD_LETTERED, LEDGER_REASON_NOT_JSON);
    struct buffer payload;
    buffer_init(&payload, 1 << 20);
    assert_int_equal(ledger_checkpoint_encode(&ledger, 11, &payload), 0);
    for (uint64_t i = 0; i < 1001; i++) {
        bool expected = i <= 130 || (i < 1000 && i % 5 == 0) || i == 777;
        assert_int_equal(ledger_is_settled(&ledger, i), expected);
    }
    assert_holds(&ledger, 1000);
    buffer_fini(&payload);
    ledger_fini(&ledger);
}

static void too_far_ahead_is_refused(void **state)
{
    (void)state;
    struct ledger ledger;
    ledger_init(&ledger);
    assert_int_equal(ledger_settle(&ledger, (uint64_t)LEDGER_WINDOW_MAX + 64, QUEUE_COMPLETED, 0), ERR_LIMIT);
    assert_holds(&ledger, 10);
    assert_int_equal(ledger_settle(&ledger, 0, QUEUE_COMPLETED, 0), 1);
    ledger_fini(&ledger);
}

static void a_ledger_and_a_stream_that_do_not_belong_together_are_told_apart(void **state)
{
    (void)state;
    struct ledger ledger;
    struct queue_counts counts;
    char why[LEDGER_WHY_MAX];
    ledger_init(&ledger);
    for (uint64_t i = 0; i < 100; i++)
        if (i < 10 || i >= 20)
            ledger_settle(&ledger, i, QUEUE_COMPLETED, 0);
    assert_int_equal(ledger_fits(&ledger, &(struct ledger_extent){.first = 0, .next = 100}, why), LEDGER_FITS);
    assert_int_equal(ledger_fits(&ledger, &(struct ledger_extent){.first = 10, .next = 200}, why), LEDGER_FITS);
    assert_int_equal(ledger_fits(&ledger, &(struct ledger_extent){.first = 0, .next = 99}, why), LEDGER_AHEAD);
    assert_non_null(strstr(why, "up to offset 99"));
    assert_int_equal(ledger_fits(&ledger, &(struct ledger_extent){.first = 0, .next = 5}, why), LEDGER_AHEAD);
    assert_int_equal(ledger_fits(&ledger, &(struct ledger_extent){.first = 15, .next = 100}, why), LEDGER_BEHIND);
    assert_non_null(strstr(why, "5 messages from offset 10"));
    assert_int_equal(ledger_fits(&ledger, &(struct ledger_extent){.first = 150, .next = 200}, why), LEDGER_BEHIND);
    assert_non_null(strstr(why, "60 messages from offset 10"));
    for (uint64_t accepted = 0; accepted < 200; accepted++) {
        ledger_counts(&ledger, accepted, &counts);
        assert_true(counts.pending <= accepted); /* it never underflows */
    }
    ledger_fini(&ledger);
}

static void records_that_are_no_outcomes_are_refused(void **state)
{
    (void)state;
    struct ledger ledger;
    ledger_init(&ledger);
    uint64_t bad = ledger_entry(5, (enum queue_outcome)9, 0);
    struct message record = {.payload = (const uint8_t *)&bad, .payload_length = 8};
    assert_int_equal(ledger_apply(&ledger, &record), ERR_CORRUPT);
    record.payload_length = 7;
    assert_int_equal(ledger_apply(&ledger, &record), ERR_CORRUPT);
    assert_int_equal(ledger.beyond, 0);
    ledger_fini(&ledger);
}

static void a_dead_letter_is_read_back(void **state)
{
    (void)state;
    struct dead_letter in = {.reason = "not_json",
                             .stage = "parse",
                             .stream = "ingest",
                             .error = "line \"3\"\n\xff",
                             .offset = 12,
                             .time_ns = 34,
                             .attempts = 1,
                             .place = DEAD_LETTER_NO_PLACE};
    struct buffer properties;
    buffer_init(&properties, 65536);
    assert_int_equal(dead_letter_encode(&in, NULL, 0, &properties), 0);
    struct message record = {.properties = properties.data, .properties_length = (uint32_t)properties.length};
    struct dead_letter out;
    assert_int_equal(dead_letter_decode(&record, &out), 0);
    assert_string_equal(out.reason, "not_json");
    assert_string_equal(out.error, "line \"3\"\n\xef\xbf\xbd");
    assert_int_equal(out.offset, 12);
    assert_int_equal(dead_letter_reason(&record), LEDGER_REASON_NOT_JSON);
    record.properties_length -= 1;
    assert_int_equal(dead_letter_decode(&record, &out), ERR_CORRUPT);
    assert_int_equal(dead_letter_reason(&record), LEDGER_REASON_INTERNAL);
    buffer_fini(&properties);
}

static void every_reason_has_its_number(void **state)
{
    (void)state;
    for (unsigned i = 1; i < LEDGER_REASON_COUNT; i++) {
        assert_int_equal(ledger_reason_parse(ledger_reason_word(i)), i);
        assert_true(strlen(ledger_reason_help(i)) > 10);
    }
    assert_int_equal(ledger_reason_parse("no such word"), LEDGER_REASON_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outcomes_in_any_order_move_the_cursor_to_the_first_open_one),
        cmocka_unit_test(a_checkpoint_is_the_ledger),
        cmocka_unit_test(too_far_ahead_is_refused),
        cmocka_unit_test(a_ledger_and_a_stream_that_do_not_belong_together_are_told_apart),
        cmocka_unit_test(records_that_are_no_outcomes_are_refused),
        cmocka_unit_test(a_dead_letter_is_read_back),
        cmocka_unit_test(every_reason_has_its_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
