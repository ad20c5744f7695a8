/* The queue's books on a disk that crashes: after a crash at any call the terms add up, what was settled durably stays settled, nothing is
 * settled that nobody has settled, no message is answered twice, and retention has taken nothing whose outcome is not on disk.
 *
 * Seeds as in test_journal_faults.c. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "journal_trial.h"
#include "queue/embedded.h"
#include "queue/ledger.h"

enum { MESSAGES_MAX = 2000, PAYLOAD_MAX = 3000 };
enum { INGEST, RESULTS, DEAD_LETTERS, OUTCOMES, STREAMS };

/* What is known of each offset of `ingest`. */
struct offset_note {
    bool handed;  /* fetched in this life, and not settled yet */
    bool sent;    /* settled in this life, and on its way to the disk */
    bool given;   /* settled in any life: may be on disk */
    bool settled; /* must be */
};

struct books {
    struct simulated_disk *disk;
    struct random_source random, crash_seeds;
    struct offset_note notes[MESSAGES_MAX];
    uint64_t accepted; /* durable messages */
    bool crashing;     /* at every call */

    struct journal *journal;
    struct journal_stream *streams[STREAMS];
    struct journal_producer *producer;
    struct queue *queue;
    struct queue_writer *writer;
};

static const char *const stream_names[STREAMS] = {"ingest", "results", "dead-letters", "outcomes"};

/* ---- a life ---- */

static void no_notice(void *context)
{
    (void)context;
}

static void gave_up(const char *text)
{
    TRIAL_CHECK(false, "the journal gave up: %s", text);
}

static void open_books(struct books *books)
{
    struct journal_options options = {
        .disk = simulated_disk_table(books->disk), .folder = "/data", .segment_size = 64 << 10, .fatal = gave_up, .stepped = true};
    assert_int_equal(journal_open(&books->journal, &options), 0);
    for (unsigned i = 0; i < STREAMS; i++) {
        bool guarded = i == INGEST || i == OUTCOMES;
        struct journal_stream_options stream = {.name = stream_names[i], .retention_size = guarded ? 1 : 0, .guarded = guarded};
        assert_int_equal(journal_stream_add(books->journal, &stream, &books->streams[i]), 0);
    }
    struct queue_embedded_options queue = {.journal = books->journal,
                                           .data_folder = "/data",
                                           .ingest = books->streams[INGEST],
                                           .results = books->streams[RESULTS],
                                           .dead_letters = books->streams[DEAD_LETTERS],
                                           .outcomes = books->streams[OUTCOMES]};
    int error = queue_embedded_open(&books->queue, &queue);
    TRIAL_CHECK(error == 0, "the queue does not open: %s", error_text(error));
    assert_int_equal(journal_start(books->journal), 0);
    assert_int_equal(journal_producer_open(books->journal, no_notice, NULL, &books->producer), 0);
    assert_int_equal(books->queue->ops->writer_open(books->queue, &books->writer), 0);
    books->accepted = journal_stream_durable(books->streams[INGEST]);
    for (unsigned i = 0; i < MESSAGES_MAX; i++)
        books->notes[i].handed = books->notes[i].sent = false;
}

static void kill_books(struct books *books)
{
    simulated_disk_kill(books->disk);
    books->queue->ops->writer_close(books->writer);
    journal_producer_close(books->producer);
    books->queue->ops->close(books->queue);
    journal_close(books->journal);
    simulated_disk_revive(books->disk);
    books->journal = NULL;
}

/* The outcome of an offset is always the same, so that the terms can be foretold. */
static enum queue_outcome outcome_of(uint64_t offset)
{
    return (enum queue_outcome)(1 + offset * 7 % 3);
}

static void settle(struct books *books, uint64_t offset)
{
    static const uint8_t text[] = "answer";
    const struct queue_ops *ops = books->queue->ops;
    struct message result = {.time_ns = 1, .topic = "r", .topic_length = 1, .payload = text, .payload_length = sizeof text};
    struct queue_dead_letter letter = {.position = {offset}, .reason = "not_json", .stage = "test", .error = "none"};
    int error = 0;
    switch (outcome_of(offset)) {
    case QUEUE_COMPLETED:
        error = ops->result(books->writer, &result, &offset, 1);
        break;
    case QUEUE_DUPLICATE:
        error = ops->settle(books->writer, (struct queue_position){offset}, QUEUE_DUPLICATE);
        break;
    case QUEUE_DEAD_LETTERED:
        error = ops->dead_letter(books->writer, &letter);
        break;
    }
    TRIAL_CHECK(error == 0, "offset %llu could not be settled: %s", (unsigned long long)offset, error_text(error));
    books->notes[offset].sent = books->notes[offset].given = true;
    books->notes[offset].handed = false;
}

/* Everything that was sent off is durable then. */
static void step(struct books *books)
{
    while (journal_step_group(books->journal))
        continue;
    books->accepted = journal_stream_durable(books->streams[INGEST]);
    for (unsigned i = 0; i < MESSAGES_MAX; i++)
        books->notes[i].settled = books->notes[i].settled || books->notes[i].sent;
    while (journal_step_keeper(books->journal))
        continue;
}

static void ignore_batch(void *context, const struct journal_batch *batch)
{
    (void)context;
    (void)batch;
}

static void append_some(struct books *books)
{
    static const uint8_t payload[PAYLOAD_MAX];
    journal_producer_poll(books->producer, ignore_batch, NULL);
    uint32_t count = random_below(&books->random, 12);
    for (uint32_t i = 0; i < count && books->accepted + count < MESSAGES_MAX; i++) {
        struct message message = {
            .time_ns = 1, .topic = "t", .topic_length = 1, .payload = payload, .payload_length = random_below(&books->random, PAYLOAD_MAX)};
        assert_int_equal(journal_append(books->producer, books->streams[INGEST], &message, NULL, 0, 0), 0);
    }
    journal_submit(books->producer);
}

static void fetch_some(struct books *books)
{
    struct queue_batch *batch;
    int error = books->queue->ops->fetch(books->queue, 64 << 10, 0, &batch);
    TRIAL_CHECK(error == 0, "fetch: %s", error_text(error));
    for (size_t i = 0; i < batch->count; i++) {
        struct offset_note *note = &books->notes[batch->messages[i].offset];
        TRIAL_CHECK(batch->settled[i] || !note->settled, "offset %llu comes again", (unsigned long long)batch->messages[i].offset);
        note->handed = !batch->settled[i];
    }
    queue_batch_release(batch);
}

static void settle_some(struct books *books, uint32_t of_256)
{
    for (uint64_t offset = 0; offset < books->accepted; offset++)
        if (books->notes[offset].handed && random_below(&books->random, 256) < of_256)
            settle(books, offset);
    assert_int_equal(books->queue->ops->commit(books->writer, NULL, NULL), 0);
}

static void live(struct books *books, unsigned turns)
{
    for (unsigned i = 0; i < turns; i++) {
        append_some(books);
        if (random_below(&books->random, 2))
            step(books);
        fetch_some(books);
        settle_some(books, random_below(&books->random, 256));
        if (random_below(&books->random, 2))
            step(books);
    }
    step(books);
}

/* ---- what must hold ---- */

/* No message has two answers. */
static void check_answers(struct books *books, unsigned stream)
{
    static bool answered[MESSAGES_MAX];
    memset(answered, 0, sizeof answered);
    char folder[64];
    snprintf(folder, sizeof folder, "/data/%s", stream_names[stream]);
    struct reader *reader = NULL;
    int error = reader_open(&reader, simulated_disk_table(books->disk), folder, 0, NULL, NULL);
    struct message message;
    const uint8_t *record;
    while (!error && !(error = reader_next(reader, UINT64_MAX, &message, &record))) {
        const uint64_t *sources;
        TRIAL_CHECK(format_record_sources(record, &sources) == 1 && sources[0] < MESSAGES_MAX && books->notes[sources[0]].given,
                    "an answer that nobody has given");
        TRIAL_CHECK(!answered[sources[0]], "offset %llu has two answers", (unsigned long long)sources[0]);
        answered[sources[0]] = true;
    }
    TRIAL_CHECK(error == ERR_TRUNCATED || error == ERR_NOT_FOUND, "%s: %s", folder, error_text(error));
    reader_close(reader);
}

static void check_books(struct books *books)
{
    struct ledger ledger;
    struct ledger_extent extent;
    char why[LEDGER_WHY_MAX];
    int error = ledger_load(&ledger, simulated_disk_table(books->disk), "/data", "ingest", &extent, NULL, NULL);
    TRIAL_CHECK(error == 0, "the ledger cannot be loaded: %s", error_text(error));
    TRIAL_CHECK(ledger_fits(&ledger, &extent, why) == LEDGER_FITS, "%s", why);
    TRIAL_CHECK(extent.next >= books->accepted, "%llu messages were accepted, %llu are there", (unsigned long long)books->accepted,
                (unsigned long long)extent.next);
    uint64_t terms[4] = {0};
    for (uint64_t offset = 0; offset < extent.next; offset++) {
        bool settled = ledger_is_settled(&ledger, offset);
        TRIAL_CHECK(settled || !books->notes[offset].settled, "the outcome of offset %llu is gone", (unsigned long long)offset);
        TRIAL_CHECK(!settled || books->notes[offset].given, "offset %llu has an outcome that nobody gave", (unsigned long long)offset);
        terms[settled ? outcome_of(offset) : 0]++;
    }
    struct queue_counts counts;
    ledger_counts(&ledger, extent.next, &counts);
    TRIAL_CHECK(counts.pending == terms[0] && counts.completed == terms[QUEUE_COMPLETED] && counts.duplicates == terms[QUEUE_DUPLICATE] &&
                    counts.dead_lettered == terms[QUEUE_DEAD_LETTERED],
                "the terms are not those of the outcomes");
    TRIAL_CHECK(counts.accepted == counts.completed + counts.duplicates + counts.dead_lettered + counts.pending, "the terms do not add up");
    ledger_fini(&ledger);
    check_answers(books, RESULTS);
    check_answers(books, DEAD_LETTERS);
}

static void crash_and_look(void *context, const struct simulated_call *call);

static void take_disk(struct books *books, struct simulated_disk *disk)
{
    books->disk = disk;
    simulated_disk_set_hooks(disk, &(struct simulated_hooks){.after = crash_and_look, .context = books});
}

/* A new life settles all that is left. */
static void finish(struct books *books)
{
    open_books(books);
    struct queue_counts counts;
    unsigned rounds = 0;
    do {
        TRIAL_CHECK(rounds++ < MESSAGES_MAX, "%llu messages stay pending", (unsigned long long)counts.pending);
        fetch_some(books);
        settle_some(books, 256);
        step(books);
        books->queue->ops->counts(books->queue, &counts);
    } while (counts.pending > 0);
    TRIAL_CHECK(counts.accepted == books->accepted, "%llu messages are counted of %llu", (unsigned long long)counts.accepted,
                (unsigned long long)books->accepted);
    kill_books(books);
    check_books(books);
}

static void crash_and_look(void *context, const struct simulated_call *call)
{
    (void)call;
    struct books *books = context;
    if (!books->crashing)
        return;
    static struct books left; /* one crash at a time: what is left does not crash again */
    left = *books;
    left.crashing = false;
    left.random.state = random_u64(&books->crash_seeds);
    take_disk(&left, simulated_disk_crash(books->disk, random_u64(&books->crash_seeds)));
    check_books(&left);
    if (random_below(&left.random, 4) == 0)
        finish(&left);
    simulated_disk_destroy(left.disk);
}

static void keep_books(uint64_t seed)
{
    static struct books books;
    books = (struct books){.random = {seed}, .crash_seeds = {~seed}};
    take_disk(&books, simulated_disk_create(seed));
    for (unsigned lives = 0; lives < 4; lives++) {
        books.crashing = true;
        open_books(&books);
        live(&books, 12);
        books.crashing = false;
        struct simulated_disk *left = simulated_disk_crash(books.disk, random_u64(&books.random));
        struct journal_stream_stats stats;
        journal_stream_stats(books.streams[INGEST], &stats);
        TRIAL_CHECK(lives < 3 || stats.first_offset > 0, "retention has taken nothing");
        kill_books(&books);
        if (random_below(&books.random, 2)) {
            simulated_disk_destroy(books.disk);
            take_disk(&books, left);
        } else {
            simulated_disk_destroy(left);
        }
        check_books(&books);
    }
    finish(&books);
    simulated_disk_destroy(books.disk);
}

static void after_a_crash_at_any_call_the_books_are_right(void **state)
{
    (void)state;
    trial_seeds(2, keep_books);
}

/* ---- what is no outcome ---- */

static void an_undecodable_record_does_not_block_the_start(void **state)
{
    (void)state;
    static struct books books;
    books = (struct books){.random = {1}};
    take_disk(&books, simulated_disk_create(1));
    open_books(&books);
    live(&books, 10);
    static const char *const payloads[] = {"", "short", "\xff\xff\xff\xff\xff\xff\xff\xff", "checkpoint without its fields"};
    for (unsigned i = 0; i < sizeof payloads / sizeof *payloads; i++) {
        for (unsigned marked = 0; marked < 2; marked++) {
            struct message record = {.topic = "ingest",
                                     .topic_length = 6,
                                     .properties = (const uint8_t *)ledger_checkpoint_mark,
                                     .properties_length = marked ? (uint32_t)strlen(ledger_checkpoint_mark) : 0,
                                     .payload = (const uint8_t *)payloads[i],
                                     .payload_length = (uint32_t)strlen(payloads[i])};
            assert_int_equal(journal_append(books.producer, books.streams[OUTCOMES], &record, NULL, 0, 0), 0);
        }
    }
    journal_submit(books.producer);
    step(&books);
    live(&books, 5);
    kill_books(&books);
    check_books(&books);
    finish(&books);
    simulated_disk_destroy(books.disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_a_crash_at_any_call_the_books_are_right),
        cmocka_unit_test(an_undecodable_record_does_not_block_the_start),
    };
    cmocka_set_test_filter(getenv("SPINDLE_FAULT_TEST"));
    return cmocka_run_group_tests_name("queue faults", tests, NULL, NULL);
}
