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
            assert_int_equal(ledger_settle(&ledger, order[i], outcome, REASON_UNMATCHED), 1);
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
    ledger_settle(&ledger, 777, QUEUE_DEAD_LETTERED, REASON_NOT_JSON);
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
    assert_int_equal(dead_letter_reason(&record), REASON_NOT_JSON);
    record.properties_length -= 1;
    assert_int_equal(dead_letter_decode(&record, &out), ERR_CORRUPT);
    assert_int_equal(dead_letter_reason(&record), REASON_INTERNAL);
    buffer_fini(&properties);
}

static void a_history_goes_on_with_each_time(void **state)
{
    (void)state;
    static const uint8_t own[] = {0x26, 0, 1, 'a', 0, 1, 'b'};
    struct message first = {.offset = 7, .time_ns = 70, .properties = own, .properties_length = sizeof own}, again = {0};
    struct dead_letter letter, read;
    const uint8_t *kept;
    uint32_t kept_length;
    struct buffer properties;
    buffer_init(&properties, 65536);
    dead_letter_begin(&letter, &first, "ingest");
    assert_int_equal(letter.attempts, 1);
    assert_int_equal(letter.first_offset, 7);
    assert_string_equal(letter.previous_reason, "");
    strcpy(letter.reason, "bad_value");
    strcpy(letter.stage, "parse");
    letter.attempts = 2;
    letter.place = 3;
    assert_int_equal(dead_letter_encode(&letter, own, sizeof own, &properties), 0);
    again = (struct message){.offset = 90,
                             .time_ns = 900,
                             .flags = MESSAGE_REQUEUED,
                             .properties = properties.data,
                             .properties_length = (uint32_t)properties.length};
    assert_int_equal(dead_letter_decode(&again, &read), 0);
    assert_int_equal(read.place, 3);
    assert_true(dead_letter_was_refused(&again));
    dead_letter_own_properties(&again, &kept, &kept_length);
    assert_int_equal(kept_length, sizeof own);
    assert_memory_equal(kept, own, sizeof own);
    dead_letter_begin(&letter, &again, "ingest");
    assert_int_equal(letter.attempts, 2);
    assert_int_equal(letter.offset, 90);
    assert_int_equal(letter.first_offset, 7);
    assert_int_equal(letter.first_time_ns, 70);
    assert_string_equal(letter.previous_reason, "bad_value");
    assert_true(letter.place == DEAD_LETTER_NO_PLACE);
    /* A sender cannot write itself a history: what it sends has not the flag. */
    again.flags = 1;
    dead_letter_begin(&letter, &again, "ingest");
    assert_int_equal(letter.attempts, 1);
    assert_false(dead_letter_was_refused(&again));
    /* A message without properties of its own has none after it. */
    buffer_clear(&properties);
    assert_int_equal(dead_letter_encode(&letter, NULL, 0, &properties), 0);
    again.properties = properties.data;
    again.properties_length = (uint32_t)properties.length;
    dead_letter_own_properties(&again, &kept, &kept_length);
    assert_int_equal(kept_length, 0);
    buffer_fini(&properties);
}

static void what_was_written_before_there_were_histories_is_its_own_first_time(void **state)
{
    (void)state;
    static const char json[] = "{\"reason\":\"late\",\"stage\":\"join\",\"error\":\"x\",\"stream\":\"ingest\",\"offset\":12,\"time_ns\":34,"
                               "\"attempts\":1}";
    struct message record = {.properties = (const uint8_t *)json, .properties_length = sizeof json - 1};
    struct dead_letter letter;
    assert_int_equal(dead_letter_decode(&record, &letter), 0);
    assert_int_equal(letter.first_offset, 12);
    assert_int_equal(letter.first_time_ns, 34);
    assert_true(letter.place == DEAD_LETTER_NO_PLACE);
}

static void what_is_forgotten_is_settled_and_the_rest_stays(void **state)
{
    (void)state;
    for (uint64_t first = 0; first < 400; first += 7) {
        struct ledger ledger;
        ledger_init(&ledger);
        for (uint64_t offset = 0; offset < 300; offset += 3)
            assert_int_equal(ledger_settle(&ledger, offset, QUEUE_COMPLETED, 0), 1);
        ledger_forget(&ledger, first);
        uint64_t open = 0;
        for (uint64_t offset = 0; offset < 400; offset++) {
            bool settled = offset < first || (offset < 300 && offset % 3 == 0);
            assert_int_equal(ledger_is_settled(&ledger, offset), settled);
            open += !settled;
        }
        struct queue_counts counts;
        ledger_counts(&ledger, 400, &counts);
        assert_int_equal(counts.pending, open);
        for (uint64_t offset = first; offset < 20000; offset++)
            ledger_settle(&ledger, offset, QUEUE_COMPLETED, 0);
        assert_int_equal(ledger.cursor, 20000);
        ledger_fini(&ledger);
    }
}

static void every_reason_has_its_number(void **state)
{
    (void)state;
    for (unsigned i = 1; i < REASON_COUNT; i++) {
        assert_int_equal(reason_parse(reason_word(i)), i);
        assert_true(strlen(reason_help(i)) > 10);
    }
    assert_int_equal(reason_parse("no such word"), REASON_INTERNAL);
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
        cmocka_unit_test(a_history_goes_on_with_each_time),
        cmocka_unit_test(what_was_written_before_there_were_histories_is_its_own_first_time),
        cmocka_unit_test(what_is_forgotten_is_settled_and_the_rest_stays),
        cmocka_unit_test(every_reason_has_its_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
