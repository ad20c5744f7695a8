/* The embedded queue: what is settled stays settled, what is not comes again, and the terms add up across restarts. */
#include "embedded_fixture.h"

#include <stdatomic.h>

#include "queue/trail.h"

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

/* ---- who holds what ---- */

/* The offset of the first message that is left when all that may go has gone. */
static uint64_t first_left(struct fixture *fixture, struct journal_stream *stream, enum queue_content content)
{
    struct retention_trim all = {.before = UINT64_MAX, .until_ns = UINT64_MAX};
    struct journal_trimmed trimmed;
    uint64_t first, next;
    assert_int_equal(journal_stream_trim(stream, &all, false, &trimmed), 0);
    free(trimmed.bases);
    fixture->queue->ops->extent(fixture->queue, content, &first, &next);
    return first;
}

static void append_segments(struct journal_stream *stream, struct journal_producer *producer)
{
    static uint8_t payload[512 << 10];
    struct message message = {.topic = "answer", .topic_length = 6, .payload = payload, .payload_length = sizeof payload};
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(journal_append(producer, stream, &message, NULL, 0, 0), 0);
        journal_submit(producer);
        journal_producer_wait(producer, 0); /* a group each: a segment takes whole ones */
    }
}

static void nothing_goes_before_every_holder_lets_it_go(void **state)
{
    (void)state;
    struct fixture fixture;
    holders = 1u << QUEUE_HOLDER_BROKERS | 1u << QUEUE_HOLDER_SESSIONS;
    start(&fixture);
    holders = 0;
    struct journal_stream *streams[QUEUE_CONTENT_COUNT] = {
        [QUEUE_CONTENT_CONSUMED] = fixture.ingest, [QUEUE_CONTENT_KEPT] = fixture.kept, [QUEUE_CONTENT_RESULTS] = fixture.results};
    struct journal_producer *results;
    assert_int_equal(journal_producer_open(fixture.journal, no_notice, NULL, &results), 0);
    append_segments(fixture.ingest, fixture.producer);
    append_segments(fixture.kept, fixture.producer);
    append_segments(fixture.results, results);
    journal_producer_close(results);
    for (uint64_t offset = 0; offset < 8; offset++)
        settle_one(&fixture, &(struct message){.offset = offset}, QUEUE_DUPLICATE);
    flush(&fixture);
    const struct queue_ops *ops = fixture.queue->ops;
    for (enum queue_content content = 0; content < QUEUE_CONTENT_COUNT; content++) {
        if (!streams[content])
            continue;
        enum queue_holder one = content % 2 ? QUEUE_HOLDER_BROKERS : QUEUE_HOLDER_SESSIONS, other = (enum queue_holder)(1 - one);
        assert_int_equal(first_left(&fixture, streams[content], content), 0);
        ops->hold(fixture.queue, content, one, UINT64_MAX);
        assert_int_equal(first_left(&fixture, streams[content], content), 0);
        ops->hold(fixture.queue, content, other, 4);
        uint64_t first = first_left(&fixture, streams[content], content);
        assert_in_range(first, 1, 4);
        ops->hold(fixture.queue, content, one, 5);
        assert_int_equal(first_left(&fixture, streams[content], content), first);
        ops->hold(fixture.queue, content, other, UINT64_MAX);
        assert_in_range(first_left(&fixture, streams[content], content), first, 5);
    }
    stop(&fixture);
}

static void the_ledger_holds_beside_the_holders(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture); /* without holders */
    append_segments(fixture.ingest, fixture.producer);
    assert_int_equal(first_left(&fixture, fixture.ingest, QUEUE_CONTENT_CONSUMED), 0);
    for (uint64_t offset = 0; offset < 4; offset++)
        settle_one(&fixture, &(struct message){.offset = offset}, QUEUE_DUPLICATE);
    flush(&fixture);
    assert_in_range(first_left(&fixture, fixture.ingest, QUEUE_CONTENT_CONSUMED), 1, 4);
    append_segments(fixture.kept, fixture.producer);
    assert_true(first_left(&fixture, fixture.kept, QUEUE_CONTENT_KEPT) > 0);
    stop(&fixture);
}

/* ---- views ---- */

/* Opened anywhere, before and behind where others have been, a view begins at the first message that it is to read. */
static void a_view_begins_at_its_place_wherever_others_have_been(void **state)
{
    (void)state;
    enum { COUNT = 40000 };
    struct fixture fixture;
    start(&fixture);
    static const uint8_t payload[100];
    struct message message = {.topic = "in", .topic_length = 2, .payload = payload, .payload_length = sizeof payload};
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(journal_append(fixture.producer, fixture.kept, &message, NULL, 0, 0), 0);
        if (i % 1000 == 999) {
            journal_submit(fixture.producer);
            journal_producer_wait(fixture.producer, 0);
        }
    }
    static const uint64_t places[] = {30000, 29999, 39999, 0, 12345, 12346, 30000, 7, 25000, COUNT, 20000};
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct queue_view *view;
        assert_int_equal(fixture.queue->ops->view_open(fixture.queue, QUEUE_CONTENT_KEPT, places[i], &view), 0);
        for (uint64_t offset = places[i]; offset < COUNT && offset < places[i] + 12000; offset++) {
            assert_int_equal(view->ops->next(view, &message, NULL), 0);
            assert_int_equal(message.offset, offset);
        }
        if (places[i] + 12000 > COUNT)
            assert_int_equal(view->ops->next(view, &message, NULL), ERR_TRUNCATED);
        view->ops->close(view);
    }
    stop(&fixture);
}

static struct reader_place place_of(uint64_t offset)
{
    return (struct reader_place){.base_offset = offset / 100000 * 100000, .position = offset % 100000 * 1000, .next_offset = offset};
}

static void a_trail_keeps_places_apart_and_the_newest(void **state)
{
    (void)state;
    enum { APART = TRAIL_STEP / 1000 + 1 };
    struct trail *trail = malloc(sizeof *trail);
    struct reader_place found;
    trail_init(trail);
    assert_false(trail_find(trail, UINT64_MAX, &found));
    const uint64_t offsets[] = {50000, 10000, 10000 + APART, 10001, 9999 + APART, 9000 - APART, 150000, 50001 - APART};
    for (unsigned i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        struct reader_place place = place_of(offsets[i]);
        trail_note(trail, &place);
    }
    assert_int_equal(trail->count, 5); /* the others lie too near to one before or behind */
    assert_true(trail_find(trail, 10000 + APART - 1, &found));
    assert_int_equal(found.next_offset, 10000);
    assert_true(trail_find(trail, 10000 + APART, &found));
    assert_int_equal(found.next_offset, 10000 + APART);
    assert_false(trail_find(trail, 9000 - APART - 1, &found));
    for (uint64_t i = 0; i < TRAIL_MAX + 10; i++) {
        struct reader_place place = place_of(200000 + i * APART);
        trail_note(trail, &place);
    }
    assert_int_equal(trail->count, TRAIL_MAX);
    assert_false(trail_find(trail, 150000, &found));
    struct reader_place old = place_of(100);
    trail_note(trail, &old); /* older than all of them */
    assert_false(trail_find(trail, 150000, &found));
    for (size_t i = 1; i < trail->count; i++)
        assert_true(trail->places[i - 1].next_offset < trail->places[i].next_offset);
    trail_fini(trail);
    free(trail);
}

/* ---- the watcher ---- */

struct watching {
    struct queue *queue;
    _Atomic uint64_t calls;
    _Atomic uint64_t ends[QUEUE_CONTENT_COUNT]; /* seen by the last call */
};

static void look_at_ends(void *context)
{
    struct watching *watching = context;
    static const enum queue_content contents[] = {QUEUE_CONTENT_CONSUMED, QUEUE_CONTENT_KEPT, QUEUE_CONTENT_RESULTS};
    for (unsigned i = 0; i < 3; i++) {
        uint64_t first, next;
        watching->queue->ops->extent(watching->queue, contents[i], &first, &next);
        uint64_t seen = atomic_load(&watching->ends[contents[i]]);
        while (seen < next && !atomic_compare_exchange_weak(&watching->ends[contents[i]], &seen, next))
            ;
    }
    atomic_fetch_add(&watching->calls, 1);
}

/* Whoever appended may be told before the watcher is. */
static void await(_Atomic uint64_t *value, uint64_t least)
{
    for (unsigned i = 0; i < 20000 && *value < least; i++)
        usleep(500);
    assert_int_equal(*value, least);
}

static void the_watcher_is_told_of_every_end_that_moves(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    const struct queue_ops *ops = fixture.queue->ops;
    struct watching watching = {.queue = fixture.queue};
    accept_messages(&fixture, 3);
    assert_int_equal(watching.calls, 0);
    ops->watch(fixture.queue, QUEUE_HOLDER_SESSIONS, look_at_ends, &watching);
    struct message message = {.topic = "in", .topic_length = 2};
    for (uint64_t i = 0; i < 20; i++) {
        accept_messages(&fixture, 1);
        assert_int_equal(journal_append(fixture.producer, fixture.kept, &message, NULL, 0, 0), 0);
        journal_submit(fixture.producer);
        journal_producer_wait(fixture.producer, 0);
        settle_one(&fixture, &(struct message){.offset = i}, QUEUE_COMPLETED);
        flush(&fixture);
    }
    await(&watching.ends[QUEUE_CONTENT_CONSUMED], 23);
    await(&watching.ends[QUEUE_CONTENT_KEPT], 20);
    await(&watching.ends[QUEUE_CONTENT_RESULTS], 20);
    ops->watch(fixture.queue, QUEUE_HOLDER_SESSIONS, NULL, NULL);
    uint64_t calls = watching.calls;
    assert_true(calls >= 3);
    accept_messages(&fixture, 5);
    ops->watch(fixture.queue, QUEUE_HOLDER_SESSIONS, look_at_ends, &watching);
    ops->watch(fixture.queue, QUEUE_HOLDER_SESSIONS, NULL, NULL);
    ops->watch(fixture.queue, QUEUE_HOLDER_SESSIONS, look_at_ends, &watching);
    accept_messages(&fixture, 1);
    await(&watching.ends[QUEUE_CONTENT_CONSUMED], 29);
    assert_in_range(watching.calls, calls + 1, calls + 2); /* the one before may not have been told of when it was set again */
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
        cmocka_unit_test_setup_teardown(the_oldest_message_without_an_outcome_holds_the_consumer_back, test_folder_make,
                                        test_folder_remove),
        cmocka_unit_test_setup_teardown(an_outcome_that_the_ledger_cannot_take_is_in_no_checkpoint, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(an_outcome_beyond_the_window_does_not_keep_the_server_from_starting, test_folder_make,
                                        test_folder_remove),
        cmocka_unit_test_setup_teardown(a_checkpoint_counts_for_its_stream_only, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_message_is_found_again_by_its_offset, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(nothing_goes_before_every_holder_lets_it_go, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(the_ledger_holds_beside_the_holders, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_view_begins_at_its_place_wherever_others_have_been, test_folder_make, test_folder_remove),
        cmocka_unit_test(a_trail_keeps_places_apart_and_the_newest),
        cmocka_unit_test_setup_teardown(the_watcher_is_told_of_every_end_that_moves, test_folder_make, test_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
