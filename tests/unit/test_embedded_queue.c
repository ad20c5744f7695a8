/* The embedded queue: what is settled stays settled, what is not comes again, and the terms add up across restarts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "folder.h"
#include "queue/dead_letters.h"
#include "queue/embedded.h"
#include "queue/ledger.h"

struct fixture {
    struct journal *journal;
    struct journal_stream *kept, *ingest, *results, *dead_letters, *outcomes;
    struct journal_producer *producer;
    struct queue *queue;
    struct queue_writer *writer;
    _Atomic unsigned published;
};

static uint64_t window;                    /* of the queues that are opened */
static enum journal_durability durability; /* of the journals */

static void no_notice(void *context)
{
    (void)context;
}

static void count_published(void *context, const struct message *result)
{
    struct fixture *fixture = context;
    assert_memory_equal(result->topic, "answer", 6);
    fixture->published++;
}

static void start(struct fixture *fixture)
{
    *fixture = (struct fixture){0};
    struct journal_options options = {.disk = disk_posix(), .folder = test_folder, .segment_size = 1 << 20, .durability = durability};
    assert_int_equal(journal_open(&fixture->journal, &options), 0);
    struct journal_stream_options stream = {.name = "bus"};
    assert_int_equal(journal_stream_add(fixture->journal, &stream, &fixture->kept), 0);
    stream = (struct journal_stream_options){.name = "ingest", .retention_size = 1, .guarded = true};
    assert_int_equal(journal_stream_add(fixture->journal, &stream, &fixture->ingest), 0);
    stream = (struct journal_stream_options){.name = "results", .scribe = 1};
    assert_int_equal(journal_stream_add(fixture->journal, &stream, &fixture->results), 0);
    stream.name = "dead-letters";
    assert_int_equal(journal_stream_add(fixture->journal, &stream, &fixture->dead_letters), 0);
    stream = (struct journal_stream_options){.name = "outcomes", .retention_size = 1, .guarded = true, .scribe = 1};
    assert_int_equal(journal_stream_add(fixture->journal, &stream, &fixture->outcomes), 0);
    struct queue_embedded_options queue = {
        .journal = fixture->journal,
        .data_folder = test_folder,
        .ingest = fixture->ingest,
        .results = fixture->results,
        .dead_letters = fixture->dead_letters,
        .outcomes = fixture->outcomes,
        .kept = fixture->kept,
        .publish = count_published,
        .publish_context = fixture,
        .window = window,
    };
    assert_int_equal(queue_embedded_open(&fixture->queue, &queue), 0);
    assert_int_equal(journal_start(fixture->journal), 0);
    assert_int_equal(journal_producer_open(fixture->journal, no_notice, NULL, &fixture->producer), 0);
    assert_int_equal(fixture->queue->ops->writer_open(fixture->queue, &fixture->writer), 0);
}

static void stop(struct fixture *fixture)
{
    fixture->queue->ops->writer_close(fixture->writer);
    journal_producer_close(fixture->producer);
    journal_stop(fixture->journal);
    fixture->queue->ops->close(fixture->queue);
    journal_close(fixture->journal);
}

static void accept_messages(struct fixture *fixture, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct message message = {.topic = "in", .topic_length = 2, .payload = (const uint8_t *)"payload", .payload_length = 7};
        assert_int_equal(journal_append(fixture->producer, fixture->ingest, &message, NULL, 0, 0), 0);
    }
    journal_submit(fixture->producer);
    journal_producer_wait(fixture->producer, 0);
}

static void settle_one(struct fixture *fixture, const struct message *message, enum queue_outcome outcome)
{
    const struct queue_ops *ops = fixture->queue->ops;
    struct queue_position position = {message->offset};
    if (outcome == QUEUE_COMPLETED) {
        struct message answer = {.topic = "answer", .topic_length = 6};
        assert_int_equal(ops->result(fixture->writer, &answer, &message->offset, 1), 0);
    } else if (outcome == QUEUE_DEAD_LETTERED) {
        struct queue_dead_letter letter = {.position = position, .reason = "unmatched", .stage = "join", .error = "alone", .message = NULL};
        assert_int_equal(ops->dead_letter(fixture->writer, &letter), 0);
    } else {
        assert_int_equal(ops->settle(fixture->writer, position, outcome), 0);
    }
}

static void assert_counts(struct fixture *fixture, uint64_t accepted, uint64_t completed, uint64_t duplicates, uint64_t dead,
                          uint64_t pending)
{
    struct queue_counts counts;
    fixture->queue->ops->counts(fixture->queue, &counts);
    assert_int_equal(counts.accepted, accepted);
    assert_int_equal(counts.completed, completed);
    assert_int_equal(counts.duplicates, duplicates);
    assert_int_equal(counts.dead_lettered, dead);
    assert_int_equal(counts.pending, pending);
}

static void flush(struct fixture *fixture)
{
    assert_int_equal(fixture->queue->ops->commit(fixture->writer, NULL, NULL), 0);
    fixture->queue->ops->writer_close(fixture->writer); /* waits until it is durable and applied */
    assert_int_equal(fixture->queue->ops->writer_open(fixture->queue, &fixture->writer), 0);
}

/* ---- the way in ---- */

struct arrivals {
    pthread_mutex_t lock;
    pthread_cond_t told;
    bool news;
    uint64_t tokens[8];
    size_t count;
};

static void note_news(void *context)
{
    struct arrivals *arrivals = context;
    pthread_mutex_lock(&arrivals->lock);
    arrivals->news = true;
    pthread_cond_signal(&arrivals->told);
    pthread_mutex_unlock(&arrivals->lock);
}

static void take_tokens(void *context, const uint64_t *tokens, size_t count)
{
    struct arrivals *arrivals = context;
    for (size_t i = 0; i < count; i++)
        arrivals->tokens[arrivals->count++] = tokens[i];
}

static void what_is_accepted_is_told_in_order_and_consumed_or_kept(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    struct arrivals arrivals = {.lock = PTHREAD_MUTEX_INITIALIZER, .told = PTHREAD_COND_INITIALIZER};
    struct queue_producer *producer;
    assert_int_equal(fixture.queue->ops->producer_open(fixture.queue, note_news, &arrivals, &producer), 0);
    struct message message = {.topic = "in", .topic_length = 2, .payload = (const uint8_t *)"payload", .payload_length = 7};
    for (uint64_t i = 0; i < 6; i++) /* two have no token */
        assert_int_equal(producer->ops->append(producer, i % 2 ? QUEUE_KEPT : QUEUE_CONSUMED, &message, i < 4 ? 11 + i : 0), 0);
    assert_true(producer->ops->gathered(producer) > 0);
    assert_int_equal(producer->ops->backlog(producer), 0);
    producer->ops->submit(producer);
    assert_int_equal(producer->ops->gathered(producer), 0);
    while (arrivals.count < 4) {
        pthread_mutex_lock(&arrivals.lock);
        while (!arrivals.news)
            pthread_cond_wait(&arrivals.told, &arrivals.lock);
        arrivals.news = false;
        pthread_mutex_unlock(&arrivals.lock);
        producer->ops->poll(producer, take_tokens, &arrivals);
    }
    for (uint64_t i = 0; i < 4; i++)
        assert_int_equal(arrivals.tokens[i], 11 + i);
    producer->ops->close(producer);
    assert_int_equal(arrivals.count, 4);
    assert_counts(&fixture, 3, 0, 0, 0, 3);
    assert_int_equal(journal_stream_durable(fixture.kept), 3);
    stop(&fixture);
}

static void what_is_open_comes_again_after_a_restart(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    accept_messages(&fixture, 10);
    assert_counts(&fixture, 10, 0, 0, 0, 10);
    struct queue_batch *batch;
    assert_int_equal(fixture.queue->ops->fetch(fixture.queue, 1 << 20, 1000, &batch), 0);
    assert_int_equal(batch->count, 10);
    settle_one(&fixture, &batch->messages[0], QUEUE_COMPLETED);
    settle_one(&fixture, &batch->messages[1], QUEUE_DUPLICATE);
    settle_one(&fixture, &batch->messages[5], QUEUE_DEAD_LETTERED);
    settle_one(&fixture, &batch->messages[7], QUEUE_COMPLETED);
    queue_batch_release(batch);
    flush(&fixture);
    assert_int_equal(fixture.published, 2);
    assert_counts(&fixture, 10, 2, 1, 1, 6);
    uint64_t reasons[REASON_COUNT];
    struct queue_counts counts;
    queue_embedded_snapshot(fixture.queue, &counts, reasons);
    assert_int_equal(reasons[REASON_UNMATCHED], 1);
    assert_int_equal(fixture.queue->ops->fetch(fixture.queue, 1 << 20, 0, &batch), 0);
    assert_int_equal(batch->count, 0);
    queue_batch_release(batch);
    stop(&fixture);

    start(&fixture);
    assert_counts(&fixture, 10, 2, 1, 1, 6);
    assert_int_equal(fixture.queue->ops->fetch(fixture.queue, 1 << 20, 1000, &batch), 0);
    assert_int_equal(batch->count, 8);
    assert_int_equal(batch->messages[0].offset, 2);
    for (size_t i = 0; i < batch->count; i++) {
        uint64_t offset = batch->messages[i].offset;
        assert_int_equal(batch->settled[i], offset == 5 || offset == 7);
        if (!batch->settled[i])
            settle_one(&fixture, &batch->messages[i], QUEUE_COMPLETED);
    }
    queue_batch_release(batch);
    flush(&fixture);
    assert_counts(&fixture, 10, 8, 1, 1, 0);
    accept_messages(&fixture, 3);
    assert_counts(&fixture, 13, 8, 1, 1, 3);
    stop(&fixture);
    start(&fixture);
    assert_counts(&fixture, 13, 8, 1, 1, 3);
    stop(&fixture);
}

static void count_withheld(void *context, const struct message *result, size_t source_count)
{
    unsigned *withheld = context;
    assert_int_equal(result->topic_length, 6);
    assert_int_equal(source_count, 1);
    *withheld += result->flags & MESSAGE_WITHHELD ? 1 : 0;
}

/* It is kept under an offset, completes its sources and is read back, like any other. */
static void a_withheld_result_is_kept_and_not_published(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    accept_messages(&fixture, 3);
    for (uint64_t offset = 0; offset < 3; offset++) {
        struct message answer = {.topic = "answer", .topic_length = 6, .flags = offset == 1 ? 1 : 1 | MESSAGE_WITHHELD};
        assert_int_equal(fixture.queue->ops->result(fixture.writer, &answer, &offset, 1), 0);
    }
    flush(&fixture);
    assert_int_equal(fixture.published, 1);
    assert_counts(&fixture, 3, 3, 0, 0, 0);
    stop(&fixture);
    start(&fixture);
    unsigned withheld = 0;
    assert_counts(&fixture, 3, 3, 0, 0, 0);
    assert_int_equal(journal_stream_durable(fixture.results), 3);
    assert_int_equal(fixture.queue->ops->recent_results(fixture.queue, 100, count_withheld, &withheld), 0);
    assert_int_equal(withheld, 2);
    assert_int_equal(fixture.published, 0);
    stop(&fixture);
}

/* Outcomes of `ingest` that are written one by one. */
static uint64_t count_entries(void)
{
    char folder[600];
    snprintf(folder, sizeof folder, "%s/outcomes", test_folder);
    struct reader *reader;
    struct message record;
    uint64_t entries = 0;
    assert_int_equal(reader_open(&reader, disk_posix(), folder, 0, NULL, NULL), 0);
    while (reader_next(reader, UINT64_MAX, &record, NULL) == 0)
        entries += ledger_is_checkpoint(&record) || memcmp(record.topic, "ingest", 6) != 0 ? 0 : record.payload_length / 8;
    reader_close(reader);
    return entries;
}

/* A crash may cut the outcomes off behind the results that they speak of. */
static void a_result_without_its_outcome_still_settles_its_sources(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    accept_messages(&fixture, 4);
    struct queue_batch *batch;
    assert_int_equal(fixture.queue->ops->fetch(fixture.queue, 1 << 20, 1000, &batch), 0);
    settle_one(&fixture, &batch->messages[0], QUEUE_COMPLETED);
    settle_one(&fixture, &batch->messages[1], QUEUE_DEAD_LETTERED);
    queue_batch_release(batch);
    flush(&fixture);
    stop(&fixture);
    char command[600];
    snprintf(command, sizeof command, "rm -r %s/outcomes", test_folder);
    assert_int_equal(system(command), 0);
    struct ledger ledger;
    struct ledger_extent extent;
    assert_int_equal(ledger_load(&ledger, disk_posix(), test_folder, "ingest", &extent, NULL, NULL), 0);
    assert_int_equal(extent.next, 4);
    assert_int_equal(ledger.completed, 1);
    assert_int_equal(ledger.dead_lettered[REASON_UNMATCHED], 1);
    ledger_fini(&ledger);
    start(&fixture);
    assert_counts(&fixture, 4, 1, 0, 1, 2);
    stop(&fixture);
    assert_int_equal(count_entries(), 2); /* from now on they are said where others are, though answers and dead letters are retired */
}

static void many_rounds_keep_the_equation_and_little_disk(void **state)
{
    (void)state;
    struct fixture fixture;
    uint64_t accepted = 0, settled = 0;
    for (unsigned round = 0; round < 3; round++) {
        start(&fixture);
        accept_messages(&fixture, 150000);
        accepted += 150000;
        while (settled < accepted) {
            struct queue_batch *batch;
            assert_int_equal(fixture.queue->ops->fetch(fixture.queue, 1 << 20, 1000, &batch), 0);
            assert_true(batch->count > 0);
            for (size_t i = 0; i < batch->count; i++)
                assert_int_equal(
                    fixture.queue->ops->settle(fixture.writer, (struct queue_position){batch->messages[i].offset}, QUEUE_DUPLICATE), 0);
            settled += batch->count;
            queue_batch_release(batch);
            assert_int_equal(fixture.queue->ops->commit(fixture.writer, NULL, NULL), 0);
        }
        flush(&fixture);
        assert_counts(&fixture, accepted, 0, accepted, 0, 0);
        struct journal_stream_stats stats;
        journal_stream_stats(fixture.outcomes, &stats);
        assert_true(stats.bytes < 8 << 20);
        stop(&fixture);
    }
}

static uint64_t damaged_of(struct fixture *fixture);
static size_t fetch_all(struct fixture *fixture, uint64_t damaged);

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

static size_t fetch_some(struct fixture *fixture, unsigned timeout_ms, uint64_t *last)
{
    struct queue_batch *batch;
    assert_int_equal(fixture->queue->ops->fetch(fixture->queue, 1 << 20, timeout_ms, &batch), 0);
    size_t count = batch->count;
    if (count)
        *last = batch->messages[count - 1].offset;
    queue_batch_release(batch);
    return count;
}

/* What is handed out has room in the ledger, however far the pipeline has come with the rest. */
static void the_oldest_message_without_an_outcome_holds_the_consumer_back(void **state)
{
    (void)state;
    enum { WINDOW = 100, COUNT = 250 };
    struct fixture fixture;
    window = WINDOW;
    start(&fixture);
    window = 0;
    accept_messages(&fixture, COUNT);
    uint64_t last = 0;
    assert_int_equal(fetch_some(&fixture, 0, &last), WINDOW);
    for (uint64_t offset = 1; offset < WINDOW; offset++)
        assert_int_equal(fixture.queue->ops->settle(fixture.writer, (struct queue_position){offset}, QUEUE_DUPLICATE), 0);
    flush(&fixture);
    assert_int_equal(fetch_some(&fixture, 0, &last), 0);
    assert_int_equal(fetch_some(&fixture, 1, &last), 0);
    assert_counts(&fixture, COUNT, 0, WINDOW - 1, 0, COUNT - WINDOW + 1);
    assert_int_equal(fixture.queue->ops->settle(fixture.writer, (struct queue_position){0}, QUEUE_DUPLICATE), 0);
    assert_int_equal(fixture.queue->ops->commit(fixture.writer, NULL, NULL), 0);
    assert_int_equal(fetch_some(&fixture, 60000, &last), WINDOW); /* woken by the outcome */
    assert_int_equal(last, 2 * WINDOW - 1);
    stop(&fixture);
}

static void settle_far(struct fixture *fixture)
{
    assert_int_equal(fixture->queue->ops->settle(fixture->writer, (struct queue_position){LEDGER_WINDOW_MAX + 100}, QUEUE_DUPLICATE), 0);
    flush(fixture);
}

static void an_outcome_that_the_ledger_cannot_take_is_in_no_checkpoint(void **state)
{
    (void)state;
    enum { CHECKPOINT_AFTER = 250000 };
    struct fixture fixture;
    start(&fixture);
    settle_far(&fixture);
    for (uint64_t offset = 0; offset < CHECKPOINT_AFTER; offset++)
        assert_int_equal(fixture.queue->ops->settle(fixture.writer, (struct queue_position){offset}, QUEUE_DUPLICATE), 0);
    flush(&fixture);
    stop(&fixture);
    struct ledger ledger;
    struct ledger_extent extent;
    assert_int_equal(ledger_load(&ledger, disk_posix(), test_folder, "ingest", &extent, NULL, NULL), 0);
    assert_int_equal(ledger.cursor, CHECKPOINT_AFTER);
    assert_true(ledger_is_settled(&ledger, LEDGER_WINDOW_MAX + 100));
    assert_int_equal(ledger.left_out, 0);
    ledger_fini(&ledger);
}

static void an_outcome_beyond_the_window_does_not_keep_the_server_from_starting(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    accept_messages(&fixture, 2);
    settle_far(&fixture);
    assert_int_equal(fixture.queue->ops->settle(fixture.writer, (struct queue_position){1}, QUEUE_DUPLICATE), 0);
    flush(&fixture);
    stop(&fixture);
    start(&fixture);
    assert_counts(&fixture, 2, 0, 1, 0, 1);
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

static void a_checkpoint_counts_for_its_stream_only(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    accept_messages(&fixture, 1);
    settle_one(&fixture, &(struct message){.offset = 0}, QUEUE_DUPLICATE);
    flush(&fixture);
    stop(&fixture);
    start(&fixture); /* writes a checkpoint that includes it */
    stop(&fixture);
    char folder[600];
    snprintf(folder, sizeof folder, "%s/outcomes", test_folder);
    struct ledger ledger;
    ledger_init(&ledger);
    uint64_t applied = 0;
    bool found = false;
    assert_int_equal(ledger_load_checkpoint(&ledger, disk_posix(), folder, "other", &applied, &found), 0);
    assert_int_equal(applied, 0);
    assert_int_equal(ledger.cursor, 0);
    assert_int_equal(ledger_load_checkpoint(&ledger, disk_posix(), folder, "ingest", &applied, &found), 0);
    assert_true(applied > 0);
    assert_int_equal(ledger.cursor, 1);
    ledger_fini(&ledger);
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

static void a_message_is_found_again_by_its_offset(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    struct fixture fixture;
    start(&fixture);
    accept_messages(&fixture, COUNT / 2);
    stop(&fixture);
    start(&fixture);
    accept_messages(&fixture, COUNT / 2);
    struct queue_batch *batch;
    for (size_t fetched = 0; fetched < COUNT; fetched += batch->count) {
        assert_int_equal(fixture.queue->ops->fetch(fixture.queue, 1 << 16, 1000, &batch), 0);
        queue_batch_release(batch);
    }
    for (uint64_t offset = 0; offset < COUNT; offset += 997) {
        struct message *again;
        assert_int_equal(fixture.queue->ops->read_again(fixture.queue, (struct queue_position){offset}, &again), 0);
        assert_int_equal(again->offset, offset);
        assert_memory_equal(again->payload, "payload", 7);
        free(again);
    }
    struct message *none;
    assert_int_equal(fixture.queue->ops->read_again(fixture.queue, (struct queue_position){COUNT}, &none), ERR_NOT_FOUND);
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

/* Fetches everything and gives what was not settled its outcome. Returns the last message's flags. */
static uint8_t settle_all(struct fixture *fixture, enum queue_outcome outcome)
{
    struct queue_batch *batch;
    uint8_t flags = 0;
    for (size_t count = 1; count;) {
        assert_int_equal(fixture->queue->ops->fetch(fixture->queue, 1 << 20, 0, &batch), 0);
        count = batch->count;
        for (size_t i = 0; i < count; i++) {
            if (!batch->settled[i])
                settle_one(fixture, &batch->messages[i], outcome);
            flags = batch->messages[i].flags;
        }
        queue_batch_release(batch);
    }
    flush(fixture);
    return flags;
}

static void requeue(struct fixture *fixture, struct dead_letters *letters, uint64_t offset)
{
    struct reader *reader;
    struct message record;
    assert_int_equal(journal_stream_reader(fixture->dead_letters, offset, &reader), 0);
    assert_int_equal(reader_next(reader, offset + 1, &record, NULL), 0);
    assert_int_equal(dead_letters_requeue(letters, &record), 0);
    reader_close(reader);
}

static void assert_marks(const bool *marked, size_t count)
{
    struct ledger marks;
    struct ledger_extent extent;
    assert_int_equal(ledger_load_marks(&marks, disk_posix(), test_folder, UINT64_MAX, &extent, NULL, NULL), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(ledger_is_settled(&marks, i), marked[i]);
    ledger_fini(&marks);
}

static void marks_survive_checkpoints_and_restarts(void **state)
{
    (void)state;
    struct fixture fixture;
    struct dead_letters *letters;
    start(&fixture);
    accept_messages(&fixture, 6);
    settle_all(&fixture, QUEUE_DEAD_LETTERED);
    assert_int_equal(dead_letters_open(&letters, fixture.queue), 0);
    assert_int_equal(dead_letters_ready(letters), 0);
    requeue(&fixture, letters, 1);
    requeue(&fixture, letters, 4);
    assert_int_equal(dead_letters_purge(letters, 0), 0);
    assert_int_equal(dead_letters_commit(letters, 5000), 0);
    assert_false(dead_letters_is_open(letters, 0));
    assert_false(dead_letters_is_open(letters, 1));
    assert_true(dead_letters_is_open(letters, 2));
    assert_counts(&fixture, 8, 0, 0, 6, 2);
    dead_letters_close(letters);
    stop(&fixture);
    /* Nobody has read the two again: they are known by themselves, not by their marks. */
    assert_marks((const bool[]){true, false, false, false, false, false}, 6);
    for (unsigned round = 0; round < 3; round++) {
        start(&fixture);
        assert_int_equal(dead_letters_open(&letters, fixture.queue), 0);
        assert_int_equal(dead_letters_ready(letters), round == 0 ? ERR_BUSY : 0);
        uint8_t flags = settle_all(&fixture, QUEUE_DEAD_LETTERED);
        assert_int_equal(flags & MESSAGE_REQUEUED, round == 0 ? MESSAGE_REQUEUED : 0);
        assert_int_equal(dead_letters_ready(letters), 0);
        dead_letters_close(letters);
        assert_counts(&fixture, 8, 0, 0, 8, 0);
        stop(&fixture);
        assert_marks((const bool[]){true, true, false, false, true, false, false, false}, 8);
    }
}

/* The mark is on disk before the message can have an outcome, whoever was faster. */
static void a_requeued_message_has_no_outcome_without_its_mark(void **state)
{
    (void)state;
    struct fixture fixture;
    struct dead_letters *letters;
    start(&fixture);
    accept_messages(&fixture, 1);
    settle_all(&fixture, QUEUE_DEAD_LETTERED);
    assert_int_equal(dead_letters_open(&letters, fixture.queue), 0);
    for (uint64_t i = 0; i < 20; i++) {
        requeue(&fixture, letters, i);
        assert_int_equal(dead_letters_commit(letters, 5000), 0);
        settle_all(&fixture, QUEUE_DEAD_LETTERED);
    }
    dead_letters_close(letters);
    stop(&fixture);
    char folder[600];
    struct reader *reader;
    struct message record;
    uint64_t marked = 0, settled = 0;
    snprintf(folder, sizeof folder, "%s/outcomes", test_folder);
    assert_int_equal(reader_open(&reader, disk_posix(), folder, 0, NULL, NULL), 0);
    while (reader_next(reader, UINT64_MAX, &record, NULL) == 0) {
        if (ledger_is_checkpoint(&record))
            continue;
        *(ledger_is_of_marks(&record) ? &marked : &settled) += record.payload_length / 8;
        assert_true(settled <= marked + 1);
    }
    reader_close(reader);
    assert_int_equal(marked, 20);
    assert_int_equal(settled, 21);
}

static void marks_of_dead_letters_that_are_gone_hide_no_others(void **state)
{
    (void)state;
    struct fixture fixture;
    struct dead_letters *letters;
    start(&fixture);
    accept_messages(&fixture, 3);
    settle_all(&fixture, QUEUE_DEAD_LETTERED);
    assert_int_equal(dead_letters_open(&letters, fixture.queue), 0);
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(dead_letters_purge(letters, i), 0);
    assert_int_equal(dead_letters_commit(letters, 5000), 0);
    dead_letters_close(letters);
    stop(&fixture);
    char command[600];
    snprintf(command, sizeof command, "rm -r %s/dead-letters", test_folder);
    assert_int_equal(system(command), 0);
    test_folder_forget_ends();
    start(&fixture);
    accept_messages(&fixture, 1);
    settle_all(&fixture, QUEUE_DEAD_LETTERED);
    assert_int_equal(dead_letters_open(&letters, fixture.queue), 0);
    assert_true(dead_letters_is_open(letters, 0));
    dead_letters_close(letters);
    stop(&fixture);
}

static void a_turn_is_bounded(void **state)
{
    (void)state;
    struct fixture fixture;
    struct dead_letters *letters;
    start(&fixture);
    assert_int_equal(dead_letters_open(&letters, fixture.queue), 0);
    for (uint64_t i = 0; i < DEAD_LETTERS_TURN_MAX; i++) {
        assert_false(dead_letters_turn_is_full(letters));
        assert_int_equal(dead_letters_purge(letters, i), 0);
    }
    assert_true(dead_letters_turn_is_full(letters));
    assert_int_equal(dead_letters_purge(letters, 0), ERR_LIMIT);
    assert_int_equal(dead_letters_commit(letters, 5000), 0);
    assert_false(dead_letters_turn_is_full(letters));
    dead_letters_close(letters);
    stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_accepted_is_told_in_order_and_consumed_or_kept, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(what_is_open_comes_again_after_a_restart, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_withheld_result_is_kept_and_not_published, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_result_without_its_outcome_still_settles_its_sources, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(many_rounds_keep_the_equation_and_little_disk, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(marks_survive_checkpoints_and_restarts, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_requeued_message_has_no_outcome_without_its_mark, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(marks_of_dead_letters_that_are_gone_hide_no_others, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_turn_is_bounded, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(lost_messages_are_given_up_and_their_offsets_are_not_given_again, test_folder_make,
                                        test_folder_remove),
        cmocka_unit_test_setup_teardown(without_the_file_of_ends_the_outcomes_tell_what_is_lost, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(messages_that_damage_took_are_settled_and_the_terms_add_up, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_message_that_is_gone_when_it_is_given_up_is_settled_at_once, test_folder_make,
                                        test_folder_remove),
        cmocka_unit_test_setup_teardown(the_oldest_message_without_an_outcome_holds_the_consumer_back, test_folder_make,
                                        test_folder_remove),
        cmocka_unit_test_setup_teardown(an_outcome_that_the_ledger_cannot_take_is_in_no_checkpoint, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(an_outcome_beyond_the_window_does_not_keep_the_server_from_starting, test_folder_make,
                                        test_folder_remove),
        cmocka_unit_test_setup_teardown(without_syncs_a_lost_end_of_the_messages_is_passed_over, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(without_syncs_a_loss_of_all_messages_is_passed_over, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(no_new_message_takes_the_offset_that_an_answer_names, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_checkpoint_counts_for_its_stream_only, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(messages_of_a_missing_first_segment_do_not_stay_pending, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(damage_to_answers_counts_only_where_the_outcomes_may_lack_them, test_folder_make,
                                        test_folder_remove),
        cmocka_unit_test_setup_teardown(damage_to_answers_that_the_outcomes_have_is_not_said, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(damage_to_messages_counts_only_where_they_have_no_outcome, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_message_is_found_again_by_its_offset, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(damage_to_the_outcomes_is_said_and_their_messages_are_pending_again, test_folder_make,
                                        test_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
