/* The embedded queue whose files were lost or damaged: what follows for its messages, and what is said of it. */
#include "embedded_fixture.h"

static uint64_t damaged_of(struct fixture *fixture)
{
    uint64_t reasons[REASON_COUNT];
    struct queue_counts counts;
    queue_embedded_snapshot(fixture->queue, &counts, reasons);
    return reasons[REASON_DAMAGED];
}

/* Hands out what is there, settles nothing, and waits until what was given up is counted. Returns how many messages came. */
static size_t fetch_all(struct fixture *fixture, uint64_t damaged)
{
    size_t fetched = 0;
    struct queue_batch *batch;
    do {
        assert_int_equal(fixture->queue->ops->fetch(fixture->queue, 1 << 20, 0, &batch), 0);
        fetched += batch->count;
        size_t count = batch->count;
        queue_batch_release(batch);
        if (count == 0 && damaged_of(fixture) >= damaged)
            return fetched;
    } while (true);
}

static void remove_below(const char *name)
{
    char command[600];
    snprintf(command, sizeof command, "rm -r %s/%s", test_folder, name);
    assert_int_equal(system(command), 0);
}

/* Four messages of which one has an outcome, and then no `ingest` any more. */
static void lose_ingest(struct fixture *fixture, uint64_t settled)
{
    start(fixture);
    accept_messages(fixture, 4);
    assert_int_equal(fixture->queue->ops->settle(fixture->writer, (struct queue_position){settled}, QUEUE_DUPLICATE), 0);
    flush(fixture);
    stop(fixture);
    remove_below("ingest");
}

static void lost_messages_are_given_up_and_their_offsets_are_not_given_again(void **state)
{
    (void)state;
    struct fixture fixture;
    lose_ingest(&fixture, 1);
    start(&fixture);
    assert_int_equal(fetch_all(&fixture, 3), 0);
    assert_counts(&fixture, 4, 0, 1, 3, 0);
    assert_int_equal(damaged_of(&fixture), 3);
    accept_messages(&fixture, 1);
    assert_int_equal(journal_stream_durable(fixture.ingest), 5);
    stop(&fixture);
}

/* Then what the others say is all that is known: the last of the lost messages is forgotten. */
static void without_the_file_of_ends_the_outcomes_tell_what_is_lost(void **state)
{
    (void)state;
    struct fixture fixture;
    lose_ingest(&fixture, 2);
    test_folder_forget_ends();
    start(&fixture);
    assert_int_equal(fetch_all(&fixture, 2), 0);
    assert_counts(&fixture, 3, 0, 1, 2, 0);
    assert_int_equal(journal_stream_durable(fixture.ingest), 3);
    stop(&fixture);
}

static void overwrite(const char *stream, uint64_t base_offset, off_t from, size_t count)
{
    char name[32], path[600], bytes[4096];
    assert_true(count <= sizeof bytes);
    memset(bytes, 0x55, sizeof bytes);
    segment_name(base_offset, name);
    snprintf(path, sizeof path, "%s/%s/%s", test_folder, stream, name);
    int file = open(path, O_RDWR);
    assert_true(file >= 0);
    assert_int_equal(pwrite(file, bytes, count, from), (ssize_t)count);
    close(file);
}

enum { INGEST_RECORD = 64 }; /* 48 + 2 + 7, rounded up */

static void messages_that_damage_took_are_settled_and_the_terms_add_up(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    accept_messages(&fixture, 10);
    stop(&fixture);
    overwrite("ingest", 0, FORMAT_SEGMENT_HEADER_SIZE + 3 * INGEST_RECORD, 2 * INGEST_RECORD);
    start(&fixture);
    assert_counts(&fixture, 10, 0, 0, 0, 10);
    assert_int_equal(fetch_all(&fixture, 2), 8);
    assert_counts(&fixture, 10, 0, 0, 2, 8);
    stop(&fixture);
    start(&fixture);
    assert_counts(&fixture, 10, 0, 0, 2, 8);
    assert_int_equal(damaged_of(&fixture), 2);
    assert_int_equal(fetch_all(&fixture, 2), 8);
    assert_counts(&fixture, 10, 0, 0, 2, 8); /* once */
    stop(&fixture);
}

/* A message that waits for others is damaged while the server runs; then it is to become a dead letter. */
static void a_message_that_is_gone_when_it_is_given_up_is_settled_at_once(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    for (unsigned groups = 0; groups < 3; groups++)
        accept_messages(&fixture, 1);
    struct queue_batch *batch;
    assert_int_equal(fixture.queue->ops->fetch(fixture.queue, 1 << 20, 1000, &batch), 0);
    assert_int_equal(batch->count, 3);
    queue_batch_release(batch);
    overwrite("ingest", 0, FORMAT_SEGMENT_HEADER_SIZE + INGEST_RECORD + 8, 32);
    for (uint64_t offset = 0; offset < 3; offset++)
        settle_one(&fixture, &(struct message){.offset = offset}, QUEUE_DEAD_LETTERED);
    flush(&fixture);
    assert_counts(&fixture, 3, 0, 0, 3, 0);
    assert_int_equal(damaged_of(&fixture), 1);
    stop(&fixture);
    start(&fixture);
    assert_counts(&fixture, 3, 0, 0, 3, 0);
    assert_int_equal(damaged_of(&fixture), 1);
    stop(&fixture);
}

/* Two lives of 5 messages; of the second 7 and 8 get an outcome. Then the second is lost, or all messages are. */
static void lose_newest_messages(bool all)
{
    struct fixture fixture;
    start(&fixture);
    accept_messages(&fixture, 5);
    stop(&fixture);
    start(&fixture);
    accept_messages(&fixture, 5);
    settle_one(&fixture, &(struct message){.offset = 7}, QUEUE_DUPLICATE);
    settle_one(&fixture, &(struct message){.offset = 8}, QUEUE_COMPLETED);
    flush(&fixture);
    stop(&fixture);
    char command[600];
    snprintf(command, sizeof command, "rm %s/ingest/%s", test_folder, all ? "*" : "00000000000000000005.seg");
    assert_int_equal(system(command), 0);
    test_folder_forget_ends();
}

static void without_syncs_a_lost_end_of_the_messages_is_passed_over(void **state)
{
    (void)state;
    struct fixture fixture;
    lose_newest_messages(false);
    durability = JOURNAL_DURABLE_OS;
    start(&fixture);
    assert_counts(&fixture, 9, 1, 1, 0, 7);
    assert_int_equal(fetch_all(&fixture, 2), 5);
    assert_counts(&fixture, 9, 1, 1, 2, 5);
    accept_messages(&fixture, 1);
    assert_counts(&fixture, 10, 1, 1, 2, 6); /* it has none of the outcomes of those that are lost */
    stop(&fixture);
    for (unsigned starts = 0; starts < 2; starts++) {
        start(&fixture);
        assert_counts(&fixture, 10, 1, 1, 2, 6);
        assert_int_equal(fetch_all(&fixture, 2), 6);
        stop(&fixture);
    }
    durability = JOURNAL_DURABLE_DISK;
    struct ledger ledger;
    struct ledger_extent extent;
    char why[LEDGER_WHY_MAX];
    assert_int_equal(ledger_load(&ledger, disk_posix(), test_folder, "ingest", &extent, NULL, NULL), 0); /* as an audit does */
    assert_int_equal(extent.next, 10);
    assert_int_equal(ledger_fits(&ledger, &extent, why), LEDGER_FITS);
    assert_int_equal(ledger_dead_lettered(&ledger), 2);
    ledger_fini(&ledger);
    start(&fixture);
    stop(&fixture);
}

static void without_syncs_a_loss_of_all_messages_is_passed_over(void **state)
{
    (void)state;
    struct fixture fixture;
    lose_newest_messages(true);
    durability = JOURNAL_DURABLE_MEMORY;
    start(&fixture);
    assert_int_equal(fetch_all(&fixture, 7), 0);
    assert_counts(&fixture, 9, 1, 1, 7, 0);
    stop(&fixture);
    durability = JOURNAL_DURABLE_DISK;
}

/* An answer may be there without its outcome, too. */
static void no_new_message_takes_the_offset_that_an_answer_names(void **state)
{
    (void)state;
    struct fixture fixture;
    lose_newest_messages(false);
    char command[600];
    snprintf(command, sizeof command, "rm -r %s/outcomes", test_folder);
    assert_int_equal(system(command), 0);
    start(&fixture);
    assert_counts(&fixture, 9, 1, 0, 0, 8);
    stop(&fixture);
}

static void messages_of_a_missing_first_segment_do_not_stay_pending(void **state)
{
    (void)state;
    struct fixture fixture;
    for (unsigned round = 0; round < 2; round++) {
        start(&fixture);
        accept_messages(&fixture, 5);
        assert_int_equal(fixture.queue->ops->settle(fixture.writer, (struct queue_position){2}, QUEUE_DUPLICATE), 0);
        flush(&fixture);
        stop(&fixture);
    }
    char path[600];
    snprintf(path, sizeof path, "%s/ingest/00000000000000000000.seg", test_folder);
    assert_int_equal(remove(path), 0);
    start(&fixture);
    assert_int_equal(fetch_all(&fixture, 4), 5);
    assert_counts(&fixture, 10, 0, 1, 4, 5); /* what had an outcome keeps it */
    stop(&fixture);
}

struct reports {
    unsigned outcomes, others;
};

static void note_damage(void *context, const char *stream, const struct reader_damage *damage)
{
    struct reports *reports = context;
    assert_true(damage->unbounded || damage->next_offset > damage->first_offset);
    if (strcmp(stream, "outcomes") == 0)
        reports->outcomes++;
    else
        reports->others++;
}

static void damage_to_the_outcomes_is_said_and_their_messages_are_pending_again(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    accept_messages(&fixture, 4);
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(fixture.queue->ops->settle(fixture.writer, (struct queue_position){i}, QUEUE_DUPLICATE), 0);
        flush(&fixture);
    }
    stop(&fixture);
    struct ledger ledger;
    struct ledger_extent extent;
    struct reports reports = {0};
    assert_int_equal(ledger_load(&ledger, disk_posix(), test_folder, "ingest", &extent, note_damage, &reports), 0);
    assert_int_equal(ledger.duplicates, 4);
    assert_int_equal(reports.outcomes + reports.others, 0);
    ledger_fini(&ledger);
    char path[600];
    snprintf(path, sizeof path, "%s/outcomes/00000000000000000000.seg", test_folder);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    overwrite("outcomes", 0, status.st_size - FORMAT_RECORD_HEADER_SIZE - 16, 16); /* in the last entry, before the seal */
    assert_int_equal(ledger_load(&ledger, disk_posix(), test_folder, "ingest", &extent, note_damage, &reports), 0);
    assert_int_equal(ledger.duplicates, 3);
    assert_int_equal(reports.outcomes, 1);
    assert_int_equal(reports.others, 0);
    ledger_fini(&ledger);
    start(&fixture); /* and its checkpoint makes the damage a thing of the past */
    assert_counts(&fixture, 4, 0, 3, 0, 1);
    stop(&fixture);
    reports = (struct reports){0};
    assert_int_equal(ledger_load(&ledger, disk_posix(), test_folder, "ingest", &extent, note_damage, &reports), 0);
    assert_int_equal(reports.outcomes + reports.others, 0);
    ledger_fini(&ledger);
}

static struct reports reports_of_a_load(void)
{
    struct ledger ledger;
    struct ledger_extent extent;
    struct reports reports = {0};
    assert_int_equal(ledger_load(&ledger, disk_posix(), test_folder, "ingest", &extent, note_damage, &reports), 0);
    ledger_fini(&ledger);
    return reports;
}

enum { RESULT_RECORD = 64 }; /* 48 + 6, rounded up, and one source */

static void damage_to_answers_counts_only_where_the_outcomes_may_lack_them(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    accept_messages(&fixture, 3);
    struct queue_batch *batch;
    assert_int_equal(fixture.queue->ops->fetch(fixture.queue, 1 << 20, 1000, &batch), 0);
    for (size_t i = 0; i < 3; i++) {
        settle_one(&fixture, &batch->messages[i], QUEUE_COMPLETED);
        flush(&fixture);
    }
    queue_batch_release(batch);
    stop(&fixture);
    overwrite("results", 0, FORMAT_SEGMENT_HEADER_SIZE + 2 * RESULT_RECORD, 16);
    assert_int_equal(reports_of_a_load().others, 0); /* nothing is pending */
    start(&fixture);
    accept_messages(&fixture, 1);
    stop(&fixture);
    assert_int_equal(reports_of_a_load().others, 1); /* and nothing tells whether the last one was for that */
}

static void damage_to_answers_that_the_outcomes_have_is_not_said(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    accept_messages(&fixture, 6); /* two stay pending */
    struct queue_batch *batch;
    assert_int_equal(fixture.queue->ops->fetch(fixture.queue, 1 << 20, 1000, &batch), 0);
    for (size_t i = 0; i < 4; i++) {
        settle_one(&fixture, &batch->messages[i], i < 2 ? QUEUE_COMPLETED : QUEUE_DEAD_LETTERED);
        flush(&fixture);
    }
    queue_batch_release(batch);
    stop(&fixture);
    overwrite("results", 0, FORMAT_SEGMENT_HEADER_SIZE, 16);
    overwrite("dead-letters", 0, FORMAT_SEGMENT_HEADER_SIZE, 16);
    assert_int_equal(reports_of_a_load().others, 0);
    char path[600];
    snprintf(path, sizeof path, "%s/outcomes/00000000000000000000.seg", test_folder);
    assert_int_equal(truncate(path, FORMAT_SEGMENT_HEADER_SIZE), 0); /* what stands behind it does not tell any more */
    assert_int_equal(reports_of_a_load().others, 2);
}

static void damage_to_messages_counts_only_where_they_have_no_outcome(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    accept_messages(&fixture, 4);
    struct queue_batch *batch;
    assert_int_equal(fixture.queue->ops->fetch(fixture.queue, 1 << 20, 1000, &batch), 0);
    settle_one(&fixture, &batch->messages[1], QUEUE_DUPLICATE);
    flush(&fixture);
    queue_batch_release(batch);
    stop(&fixture);
    overwrite("ingest", 0, FORMAT_SEGMENT_HEADER_SIZE + INGEST_RECORD, 16);
    assert_int_equal(reports_of_a_load().others, 0);
    overwrite("ingest", 0, FORMAT_SEGMENT_HEADER_SIZE + 2 * INGEST_RECORD, 16);
    assert_int_equal(reports_of_a_load().others, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lost_messages_are_given_up_and_their_offsets_are_not_given_again, test_folder_make,
                                        test_folder_remove),
        cmocka_unit_test_setup_teardown(without_the_file_of_ends_the_outcomes_tell_what_is_lost, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(messages_that_damage_took_are_settled_and_the_terms_add_up, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_message_that_is_gone_when_it_is_given_up_is_settled_at_once, test_folder_make,
                                        test_folder_remove),
        cmocka_unit_test_setup_teardown(without_syncs_a_lost_end_of_the_messages_is_passed_over, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(without_syncs_a_loss_of_all_messages_is_passed_over, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(no_new_message_takes_the_offset_that_an_answer_names, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(messages_of_a_missing_first_segment_do_not_stay_pending, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(damage_to_answers_counts_only_where_the_outcomes_may_lack_them, test_folder_make,
                                        test_folder_remove),
        cmocka_unit_test_setup_teardown(damage_to_answers_that_the_outcomes_have_is_not_said, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(damage_to_messages_counts_only_where_they_have_no_outcome, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(damage_to_the_outcomes_is_said_and_their_messages_are_pending_again, test_folder_make,
                                        test_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
