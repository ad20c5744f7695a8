/* The queue interface over the journal.
 *
 * Everything that says what became of a message is applied to the ledger only when it is durable, on the scribe of the outcomes; so the
 * counts that a scrape sees are those that a restart would find. */
#include "queue/embedded.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "queue/books.h"
#include "queue/dead_letter.h"
#include "queue/embedded_producer.h"
#include "queue/embedded_view.h"
#include "queue/holds.h"
#include "queue/ledger.h"
#include "queue/marks.h"
#include "queue/places.h"
#include "queue/watch.h"

enum {
    EMBEDDED_BATCH_MESSAGES_MAX = 2048, /* at most MARKS_RECORD_MAX */
    EMBEDDED_BATCHES_IDLE_MAX = 8,
    EMBEDDED_BLOCK_KEEP = 4 << 20,         /* a block that one large message made larger is given back */
    EMBEDDED_WRITER_BACKLOG_MAX = 8 << 20, /* bytes a writer may have on their way to the disk */
    EMBEDDED_CHECKPOINT_INTERVAL = 200000, /* outcomes between two checkpoints */
    EMBEDDED_FOUND_MAX = 64 << 20,         /* bytes of outcomes that a start writes again */
    EMBEDDED_PROPERTIES_KEEP = 64 << 10,   /* bytes that a writer keeps allocated between dead letters */
    EMBEDDED_ENTRIES_MAX = 4096            /* outcomes in one record */
};

struct embedded_batch {
    struct queue_batch batch;
    struct embedded_batch *next;
    uint8_t *block;
    size_t block_size;
    struct message *messages;
    bool *settled;
};

struct embedded {
    struct queue queue;
    struct queue_embedded_options options;
    struct reader *reader; /* consumer thread */
    uint64_t recovered;    /* offsets below it may be settled already */
    uint64_t expected;     /* consumer thread: messages before it were handed out or given up */
    _Atomic uint64_t read_offset;
    struct queue_writer *repairs; /* consumer thread: settles what damage took away */

    pthread_mutex_t lock; /* idle batches, waiting, interrupt */
    pthread_cond_t more;
    bool waiting, interrupted;
    struct embedded_batch *idle;
    size_t idle_count;

    struct places places; /* of the consumed stream */
    struct holds holds;
    struct trail trails[QUEUE_CONTENT_COUNT]; /* of the views */
    struct watch watches[QUEUE_HOLDERS];

    pthread_mutex_t ledger_lock;
    struct ledger ledger;
    _Atomic uint64_t cursor; /* the ledger's, for the consumer thread */
    atomic_bool held_back;   /* the consumer thread waits for it to move */
    struct marks marks;      /* of the dead letters */

    /* The scribe's. */
    struct journal_producer *checkpoints;
    uint64_t outcomes_applied; /* outcomes below it are in the ledger */
    bool outcomes_failed;      /* the one at outcomes_applied is not, nor may be what follows */
    uint64_t since_checkpoint;
    uint64_t checkpoint_covers; /* what the checkpoint on its way includes */
};

struct commit_note {
    void (*done)(void *token, int error);
    void *token;
};

struct queue_writer {
    struct embedded *queue;
    struct journal_producer *producer;
    uint64_t entries[EMBEDDED_ENTRIES_MAX];
    size_t entry_count;
    struct buffer properties;
};

static struct embedded *from(struct queue *queue)
{
    return (struct embedded *)queue;
}

/* ---- consumer ---- */

static struct embedded_batch *batch_take(struct embedded *queue, size_t bytes)
{
    pthread_mutex_lock(&queue->lock);
    struct embedded_batch *batch = queue->idle;
    if (batch) {
        queue->idle = batch->next;
        queue->idle_count--;
    }
    pthread_mutex_unlock(&queue->lock);
    if (!batch) {
        batch = calloc(1, sizeof *batch);
        if (!batch)
            return NULL;
        batch->messages = calloc(EMBEDDED_BATCH_MESSAGES_MAX, sizeof *batch->messages);
        batch->settled = calloc(EMBEDDED_BATCH_MESSAGES_MAX, sizeof *batch->settled);
    }
    if (batch->block_size < bytes || (batch->block_size > bytes && batch->block_size > EMBEDDED_BLOCK_KEEP)) {
        free(batch->block);
        batch->block = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
        batch->block_size = batch->block ? bytes : 0;
    }
    if (!batch->messages || !batch->settled || !batch->block) {
        free(batch->messages);
        free(batch->settled);
        free(batch->block);
        free(batch);
        return NULL;
    }
    batch->batch = (struct queue_batch){.queue = &queue->queue, .messages = batch->messages, .settled = batch->settled};
    return batch;
}

static void embedded_batch_free(struct queue_batch *freed)
{
    struct embedded_batch *batch = (struct embedded_batch *)freed;
    struct embedded *queue = from(freed->queue);
    pthread_mutex_lock(&queue->lock);
    bool keep = queue->idle_count < EMBEDDED_BATCHES_IDLE_MAX;
    if (keep) {
        batch->next = queue->idle;
        queue->idle = batch;
        queue->idle_count++;
    }
    pthread_mutex_unlock(&queue->lock);
    if (!keep) {
        free(batch->messages);
        free(batch->settled);
        free(batch->block);
        free(batch);
    }
}

static void wake_consumer(void *context)
{
    struct embedded *queue = context;
    pthread_mutex_lock(&queue->lock);
    if (queue->waiting)
        pthread_cond_signal(&queue->more);
    pthread_mutex_unlock(&queue->lock);
}

static uint64_t embedded_holds(struct queue *base)
{
    return journal_stream_stalls(from(base)->options.ingest);
}

static void embedded_interrupt(struct queue *base)
{
    struct embedded *queue = from(base);
    pthread_mutex_lock(&queue->lock);
    queue->interrupted = true;
    pthread_cond_signal(&queue->more);
    pthread_mutex_unlock(&queue->lock);
}

/* The offset before which messages may be handed out: what is durable, as far as the ledger can take their outcomes. */
static uint64_t readable(struct embedded *queue)
{
    uint64_t durable = journal_stream_durable(queue->options.ingest);
    uint64_t limit = atomic_load(&queue->cursor) + queue->options.window;
    if (durable <= limit)
        return durable;
    if (limit > queue->expected || atomic_load(&queue->held_back))
        return limit;
    DIAG_LIMITED(DIAGNOSTICS_WARNING, "queue",
                 "stream %s: the message at offset %" PRIu64 " has no outcome yet, and %" PRIu64
                 " behind it were read. Nothing more is read "
                 "until it has one. If the pipeline could not read or write it, a restart handles it again",
                 journal_stream_name(queue->options.ingest), limit - queue->options.window, queue->options.window);
    atomic_store(&queue->held_back, true); /* whoever moves the cursor from now on wakes this thread */
    return atomic_load(&queue->cursor) + queue->options.window;
}

/* Waits until there is more to be read than was read. Returns the offset behind it. */
static uint64_t wait_for_more(struct embedded *queue, unsigned timeout_ms)
{
    uint64_t deadline_ns = clock_monotonic_ns() + timeout_ms * 1000000ull;
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / 1000000000u), .tv_nsec = (long)(deadline_ns % 1000000000u)};
    uint64_t until;
    pthread_mutex_lock(&queue->lock);
    queue->waiting = true;
    while ((until = readable(queue)) <= queue->expected && !queue->interrupted && timeout_ms)
        if (pthread_cond_timedwait(&queue->more, &queue->lock, &deadline))
            timeout_ms = 0;
    queue->waiting = false;
    queue->interrupted = false;
    atomic_store(&queue->held_back, false);
    pthread_mutex_unlock(&queue->lock);
    return until;
}

static int embedded_commit(struct queue_writer *writer, void (*done)(void *token, int error), void *token);
static int add_entry(struct queue_writer *writer, uint64_t entry);

/* What damage took away can have no outcome but this one, and must not stay pending for ever. */
static int give_up_damaged(struct embedded *queue, uint64_t next)
{
    int error = 0;
    while (queue->expected < next && !error) {
        pthread_mutex_lock(&queue->ledger_lock);
        bool settled = ledger_is_settled(&queue->ledger, queue->expected);
        pthread_mutex_unlock(&queue->ledger_lock);
        if (!settled && queue->repairs->entry_count == EMBEDDED_ENTRIES_MAX)
            error = embedded_commit(queue->repairs, NULL, NULL); /* waits for the disk when there are many */
        if (!settled && !error)
            error = add_entry(queue->repairs, ledger_entry(queue->expected, QUEUE_DEAD_LETTERED, REASON_DAMAGED));
        if (!error)
            queue->expected++;
    }
    return error ? error : embedded_commit(queue->repairs, NULL, NULL);
}

static int settle_gaps(struct embedded *queue, const struct embedded_batch *batch)
{
    int error = 0;
    for (size_t i = 0; i < batch->batch.count && !error; i++) {
        uint64_t offset = batch->messages[i].offset;
        if (offset > queue->expected)
            error = give_up_damaged(queue, offset);
        if (!error)
            queue->expected = offset + 1;
    }
    return error;
}

/* Records were counted as durable, but none of them can be found: the reader goes on behind them. */
static int pass_lost_end(struct embedded *queue, uint64_t until)
{
    struct reader *reader;
    int error = give_up_damaged(queue, until);
    if (!error)
        error = journal_stream_reader(queue->options.ingest, until, &reader);
    if (error)
        return error;
    reader_close(queue->reader);
    queue->reader = reader;
    atomic_store(&queue->read_offset, until);
    return 0;
}

static int fill_batch(struct embedded *queue, size_t bytes_max, uint64_t until, struct embedded_batch **out)
{
    size_t count = 0, bytes = bytes_max;
    for (;;) {
        struct embedded_batch *batch = batch_take(queue, bytes);
        if (!batch)
            return ERR_NO_MEMORY;
        int error = reader_fill(queue->reader, until, batch->block, bytes, batch->messages, EMBEDDED_BATCH_MESSAGES_MAX, &count, &bytes);
        if (!error || error == ERR_TRUNCATED) {
            batch->batch.count = error ? 0 : count;
            *out = batch;
            return 0;
        }
        embedded_batch_free(&batch->batch);
        if (error != ERR_LIMIT) /* one message larger than the batch: `bytes` says how large */
            return error;
    }
}

static int embedded_fetch(struct queue *base, size_t bytes_max, unsigned timeout_ms, struct queue_batch **out)
{
    struct embedded *queue = from(base);
    uint64_t until = wait_for_more(queue, timeout_ms);
    struct embedded_batch *batch;
    places_remember(&queue->places, queue->reader);
    int error = fill_batch(queue, bytes_max, until, &batch);
    if (error)
        return error;
    error = batch->batch.count ? settle_gaps(queue, batch) : queue->expected < until ? pass_lost_end(queue, until) : 0;
    if (error) {
        embedded_batch_free(&batch->batch);
        return error;
    }
    if (batch->batch.count) {
        bool recovering = batch->messages[0].offset < queue->recovered;
        if (recovering)
            pthread_mutex_lock(&queue->ledger_lock);
        for (size_t i = 0; i < batch->batch.count; i++)
            batch->settled[i] = recovering && ledger_is_settled(&queue->ledger, batch->messages[i].offset);
        if (recovering)
            pthread_mutex_unlock(&queue->ledger_lock);
        error = marks_take_requeued(&queue->marks, queue->repairs->producer, queue->options.outcomes, batch->messages, batch->batch.count);
        if (error)
            DIAG_LIMITED(DIAGNOSTICS_ERROR, "queue", "dead letters that were requeued could not be marked: %s; they may be requeued twice",
                         error_text(error));
        atomic_store(&queue->read_offset, reader_offset(queue->reader));
    }
    *out = &batch->batch;
    return 0;
}

static int embedded_read_again(struct queue *base, struct queue_position position, struct message **copy)
{
    struct embedded *queue = from(base);
    return places_read(&queue->places, queue->options.ingest, position.offset, copy);
}

static int embedded_recent_results(struct queue *base, uint64_t count_max, queue_on_result *each, void *context)
{
    struct embedded *queue = from(base);
    uint64_t durable = journal_stream_durable(queue->options.results);
    struct reader *reader;
    int error = journal_stream_reader(queue->options.results, durable > count_max ? durable - count_max : 0, &reader);
    if (error)
        return error;
    struct message message;
    const uint8_t *bytes;
    const uint64_t *sources;
    while (!(error = reader_next(reader, durable, &message, &bytes)))
        each(context, &message, format_record_sources(bytes, &sources));
    reader_close(reader);
    return error == ERR_TRUNCATED ? 0 : error;
}

void queue_embedded_snapshot(struct queue *base, struct queue_counts *counts, uint64_t *reasons)
{
    struct embedded *queue = from(base);
    pthread_mutex_lock(&queue->ledger_lock);
    uint64_t accepted = journal_stream_durable(queue->options.ingest);
    ledger_counts(&queue->ledger, accepted, counts);
    memcpy(reasons, queue->ledger.dead_lettered, sizeof queue->ledger.dead_lettered);
    pthread_mutex_unlock(&queue->ledger_lock);
    uint64_t read = atomic_load(&queue->read_offset);
    counts->unread = accepted > read ? accepted - read : 0;
}

const struct queue_embedded_options *queue_embedded_options(struct queue *base)
{
    return &from(base)->options;
}

struct marks *queue_embedded_marks(struct queue *base)
{
    return &from(base)->marks;
}

bool queue_embedded_has_read_again(struct queue *base)
{
    struct embedded *queue = from(base);
    return atomic_load(&queue->read_offset) >= queue->recovered;
}

static void embedded_counts(struct queue *base, struct queue_counts *counts)
{
    uint64_t reasons[REASON_COUNT];
    queue_embedded_snapshot(base, counts, reasons);
}

/* ---- settling ---- */

/* Both run on one scribe, record by record in order of offset: the answers of a key leave in the order in which they were
 * given, whichever workers gave them. */
static void on_result(void *context, const struct message *record)
{
    struct embedded *queue = context;
    if (queue->options.publish && !(record->flags & MESSAGE_WITHHELD))
        queue->options.publish(queue->options.publish_context, record);
}

static void on_outcomes(void *context, const struct message *record)
{
    struct embedded *queue = context;
    bool is_checkpoint = record->properties_length, of_marks = ledger_is_of_marks(record); /* a checkpoint says nothing new */
    int error = of_marks && !is_checkpoint ? marks_apply(&queue->marks, record) : 0;
    pthread_mutex_lock(&queue->ledger_lock);
    if (!of_marks && !is_checkpoint)
        error = ledger_apply(&queue->ledger, record);
    uint64_t cursor = queue->ledger.cursor;
    pthread_mutex_unlock(&queue->ledger_lock);
    if (error)
        DIAG_LIMITED(
            DIAGNOSTICS_ERROR, "queue",
            "outcomes could not be taken into the ledger: %s; they are on disk and stay there until a restart, after which they count",
            error_text(error));
    /* No checkpoint may claim what the ledger does not have. That it has some of what follows does no harm: outcomes are applied once. */
    queue->outcomes_failed = queue->outcomes_failed || error;
    if (!queue->outcomes_failed)
        queue->outcomes_applied = record->offset + 1;
    atomic_store(&queue->cursor, cursor);
    if (atomic_load(&queue->held_back))
        wake_consumer(queue);
    holds_move(&queue->holds, QUEUE_CONTENT_CONSUMED, HOLDS_LEDGER, cursor);
    queue->since_checkpoint += record->payload_length / 8;
}

/* `mark`: ledger_checkpoint_mark, or "" for entries. */
static int append_books(struct embedded *queue, const char *stream, const char *mark, const struct buffer *payload, uint64_t token)
{
    struct message record = {
        .time_ns = clock_wall_ns(),
        .topic = stream,
        .topic_length = (uint32_t)strlen(stream),
        .properties = (const uint8_t *)mark,
        .properties_length = (uint32_t)strlen(mark),
        .payload = payload->data,
        .payload_length = (uint32_t)payload->length,
    };
    return journal_append(queue->checkpoints, queue->options.outcomes, &record, NULL, 0, token);
}

/* Both ledgers, in one chunk. The token stands with the second: what lies before may go when both are on disk. */
static int append_checkpoint(struct embedded *queue)
{
    struct journal_stream_stats letters;
    struct buffer marks, payload;
    journal_stream_stats(queue->options.dead_letters, &letters);
    buffer_init(&payload, (size_t)LEDGER_WINDOW_MAX / 8 + 8192);
    buffer_init(&marks, (size_t)LEDGER_WINDOW_MAX / 8 + 8192);
    pthread_mutex_lock(&queue->ledger_lock);
    int error = ledger_checkpoint_encode(&queue->ledger, queue->outcomes_applied, &payload);
    pthread_mutex_unlock(&queue->ledger_lock);
    if (!error)
        error = marks_checkpoint(&queue->marks, letters.first_offset, queue->outcomes_applied, &marks);
    if (!error)
        error = append_books(queue, ledger_marks_stream, ledger_checkpoint_mark, &marks, 0);
    if (!error)
        error =
            append_books(queue, journal_stream_name(queue->options.ingest), ledger_checkpoint_mark, &payload, queue->outcomes_applied + 1);
    if (!error) {
        journal_submit(queue->checkpoints);
        queue->since_checkpoint = 0;
    }
    buffer_fini(&marks);
    buffer_fini(&payload);
    return error;
}

static void checkpoint_durable(void *context, const struct journal_batch *batch)
{
    struct embedded *queue = context;
    if (batch->token_count)
        journal_stream_set_guard(queue->options.outcomes, batch->tokens[batch->token_count - 1] - 1);
}

static void on_checkpoint_durable(void *context)
{
    struct embedded *queue = context;
    journal_producer_poll(queue->checkpoints, checkpoint_durable, queue);
}

static void batch_durable(void *context, const struct journal_batch *batch)
{
    (void)context;
    for (size_t i = 0; i < batch->token_count; i++) {
        struct commit_note *note = (struct commit_note *)(uintptr_t)batch->tokens[i];
        note->done(note->token, 0);
        free(note);
    }
}

static void on_writer_durable(void *context)
{
    struct queue_writer *writer = context;
    journal_producer_poll(writer->producer, batch_durable, writer);
    struct embedded *queue = writer->queue;
    if (queue->since_checkpoint >= EMBEDDED_CHECKPOINT_INTERVAL)
        append_checkpoint(queue);
}

static int embedded_writer_open(struct queue *base, struct queue_writer **out)
{
    struct embedded *queue = from(base);
    struct queue_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return ERR_NO_MEMORY;
    writer->queue = queue;
    buffer_init(&writer->properties, FORMAT_RECORD_SIZE_MAX);
    int error = journal_producer_open(queue->options.journal, on_writer_durable, writer, &writer->producer);
    if (error) {
        free(writer);
        return error;
    }
    *out = writer;
    return 0;
}

static void embedded_writer_close(struct queue_writer *writer)
{
    if (!writer)
        return;
    journal_producer_close(writer->producer);
    buffer_fini(&writer->properties);
    free(writer);
}

static int flush_entries(struct queue_writer *writer, uint64_t token)
{
    struct embedded *queue = writer->queue;
    const char *stream = journal_stream_name(queue->options.ingest);
    struct message record = {
        .time_ns = clock_wall_ns(),
        .topic = stream,
        .topic_length = (uint32_t)strlen(stream),
        .payload = (const uint8_t *)writer->entries,
        .payload_length = (uint32_t)(writer->entry_count * sizeof writer->entries[0]),
    };
    int error = journal_append(writer->producer, queue->options.outcomes, &record, NULL, 0, token);
    if (!error)
        writer->entry_count = 0;
    return error;
}

static int add_entry(struct queue_writer *writer, uint64_t entry)
{
    if (writer->entry_count == EMBEDDED_ENTRIES_MAX) {
        int error = flush_entries(writer, 0);
        if (error)
            return error;
    }
    writer->entries[writer->entry_count++] = entry;
    return 0;
}

static int embedded_result(struct queue_writer *writer, const struct message *message, const uint64_t *sources, size_t source_count)
{
    int error = journal_append(writer->producer, writer->queue->options.results, message, sources, source_count, 0);
    for (size_t i = 0; !error && i < source_count; i++)
        error = add_entry(writer, ledger_entry(sources[i], QUEUE_COMPLETED, REASON_NONE));
    return error;
}

/* There is nothing to keep as a dead letter, and the message must not stay pending. */
static int settle_gone(struct queue_writer *writer, const struct queue_dead_letter *letter, int error)
{
    DIAG_LIMITED(DIAGNOSTICS_ERROR, "queue",
                 "stream %s: the message at offset %" PRIu64
                 " cannot be read any more: %s. It was to become a dead letter of reason %s; it "
                 "counts as one of reason %s, of which nothing is kept",
                 journal_stream_name(writer->queue->options.ingest), letter->position.offset, error_text(error), letter->reason,
                 reason_word(REASON_DAMAGED));
    return add_entry(writer, ledger_entry(letter->position.offset, QUEUE_DEAD_LETTERED, REASON_DAMAGED));
}

static int embedded_dead_letter(struct queue_writer *writer, const struct queue_dead_letter *letter)
{
    struct embedded *queue = writer->queue;
    struct message *again = NULL;
    const struct message *message = letter->message;
    if (!message) {
        int error = embedded_read_again(&queue->queue, letter->position, &again);
        if (queue_message_is_gone(error))
            return settle_gone(writer, letter, error);
        if (error)
            return error;
        message = again;
    }
    struct dead_letter stored;
    dead_letter_begin(&stored, message, journal_stream_name(queue->options.ingest));
    snprintf(stored.reason, sizeof stored.reason, "%s", letter->reason);
    snprintf(stored.stage, sizeof stored.stage, "%s", letter->stage);
    snprintf(stored.error, sizeof stored.error, "%s", letter->error);
    const uint8_t *own;
    uint32_t own_length;
    message_published_properties(message, &own, &own_length);
    buffer_clear(&writer->properties);
    buffer_shrink(&writer->properties, EMBEDDED_PROPERTIES_KEEP);
    int error = dead_letter_encode(&stored, own, own_length, &writer->properties);
    struct message record = *message;
    record.time_ns = clock_wall_ns();
    record.flags &= (uint8_t)~MESSAGE_REQUEUED;
    record.properties = writer->properties.data;
    record.properties_length = (uint32_t)writer->properties.length;
    if (!error)
        error = journal_append(writer->producer, queue->options.dead_letters, &record, &letter->position.offset, 1, 0);
    if (!error)
        error = add_entry(writer, ledger_entry(letter->position.offset, QUEUE_DEAD_LETTERED, reason_parse(letter->reason)));
    free(again);
    return error;
}

static int embedded_settle(struct queue_writer *writer, struct queue_position position, enum queue_outcome outcome)
{
    return add_entry(writer, ledger_entry(position.offset, outcome, REASON_NONE));
}

static int embedded_commit(struct queue_writer *writer, void (*done)(void *token, int error), void *token)
{
    struct commit_note *note = NULL;
    if (done) {
        note = malloc(sizeof *note);
        if (!note)
            return ERR_NO_MEMORY;
        *note = (struct commit_note){done, token};
    }
    if (writer->entry_count == 0) {
        /* Nothing is settled, so nobody waits for it. */
        journal_submit(writer->producer);
        if (note)
            note->done(note->token, 0);
        free(note);
        return 0;
    }
    int error = flush_entries(writer, (uint64_t)(uintptr_t)note);
    if (error) {
        free(note);
        return error;
    }
    journal_submit(writer->producer);
    if (journal_producer_backlog(writer->producer) > EMBEDDED_WRITER_BACKLOG_MAX)
        journal_producer_wait(writer->producer, EMBEDDED_WRITER_BACKLOG_MAX);
    return 0;
}

/* ---- open and close ---- */

static void embedded_close(struct queue *base)
{
    struct embedded *queue = from(base);
    embedded_writer_close(queue->repairs);
    journal_producer_close(queue->checkpoints);
    reader_close(queue->reader);
    places_fini(&queue->places);
    while (queue->idle) {
        struct embedded_batch *next = queue->idle->next;
        free(queue->idle->messages);
        free(queue->idle->settled);
        free(queue->idle->block);
        free(queue->idle);
        queue->idle = next;
    }
    for (unsigned i = 0; i < QUEUE_CONTENT_COUNT; i++)
        trail_fini(&queue->trails[i]);
    for (unsigned i = 0; i < QUEUE_HOLDERS; i++)
        watch_fini(&queue->watches[i]);
    holds_fini(&queue->holds);
    marks_fini(&queue->marks);
    ledger_fini(&queue->ledger);
    pthread_cond_destroy(&queue->more);
    pthread_mutex_destroy(&queue->ledger_lock);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

static int embedded_producer_for(struct queue *base, void (*notify)(void *context), void *context, struct queue_producer **producer)
{
    return embedded_producer_open(&from(base)->options, notify, context, producer);
}

/* ---- views ---- */

static struct journal_stream *content_stream(struct queue *base, enum queue_content content)
{
    return from(base)->holds.streams[content];
}

static int embedded_view(struct queue *base, enum queue_content content, uint64_t first, struct queue_view **view)
{
    return embedded_view_open(content_stream(base, content), &from(base)->trails[content], first, view);
}

static void embedded_extent(struct queue *base, enum queue_content content, uint64_t *first, uint64_t *next)
{
    struct journal_stream_stats stats;
    journal_stream_stats(content_stream(base, content), &stats);
    *first = stats.first_offset;
    *next = stats.durable_offset;
}

static void embedded_hold(struct queue *base, enum queue_content content, enum queue_holder holder, uint64_t offset)
{
    struct embedded *queue = from(base);
    assert(queue->options.holders & 1u << holder);
    holds_move(&queue->holds, content, holder, offset);
}

static void embedded_watch(struct queue *base, enum queue_holder holder, void (*notify)(void *context), void *context)
{
    watch_set(&from(base)->watches[holder], notify, context);
}

static void has_grown(void *context)
{
    struct embedded *queue = context;
    for (unsigned i = 0; i < QUEUE_HOLDERS; i++)
        watch_tell(&queue->watches[i]);
}

static void consumed_has_grown(void *context)
{
    wake_consumer(context);
    has_grown(context);
}

static const struct queue_ops embedded_ops = {
    .name = "embedded",
    .capabilities = QUEUE_REPLAY | QUEUE_ORDERED | QUEUE_LIVE_RESULTS,
    .close = embedded_close,
    .producer_open = embedded_producer_for,
    .fetch = embedded_fetch,
    .batch_free = embedded_batch_free,
    .interrupt = embedded_interrupt,
    .read_again = embedded_read_again,
    .recent_results = embedded_recent_results,
    .holds = embedded_holds,
    .view_open = embedded_view,
    .extent = embedded_extent,
    .hold = embedded_hold,
    .watch = embedded_watch,
    .counts = embedded_counts,
    .writer_open = embedded_writer_open,
    .writer_close = embedded_writer_close,
    .result = embedded_result,
    .dead_letter = embedded_dead_letter,
    .settle = embedded_settle,
    .commit = embedded_commit,
};

static int load_marks(struct embedded *queue)
{
    struct ledger_extent extent;
    return ledger_load_marks(&queue->marks.ledger, journal_disk(queue->options.journal), queue->options.data_folder, UINT64_MAX, &extent,
                             NULL, NULL);
}

int queue_embedded_open(struct queue **out, const struct queue_embedded_options *options)
{
    struct embedded *queue = calloc(1, sizeof *queue);
    if (!queue)
        return ERR_NO_MEMORY;
    queue->queue.ops = &embedded_ops;
    queue->options = *options;
    if (queue->options.window == 0)
        queue->options.window = EMBEDDED_WINDOW_MAX;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_mutex_init(&queue->ledger_lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue->more, &monotonic);
    pthread_condattr_destroy(&monotonic);
    marks_init(&queue->marks);
    for (unsigned i = 0; i < QUEUE_HOLDERS; i++)
        watch_init(&queue->watches[i]);
    for (unsigned i = 0; i < QUEUE_CONTENT_COUNT; i++)
        trail_init(&queue->trails[i]);
    struct buffer found; /* outcomes that a crash has cut off */
    buffer_init(&found, EMBEDDED_FOUND_MAX);
    int error = books_load(&queue->ledger, options, &found);
    if (!error)
        error = load_marks(queue);
    queue->recovered = journal_stream_durable(options->ingest);
    queue->expected = queue->ledger.cursor;
    atomic_store(&queue->cursor, queue->ledger.cursor);
    struct journal_stream *const streams[QUEUE_CONTENT_COUNT] = {options->ingest, options->kept, options->noted, options->results};
    holds_init(&queue->holds, streams, options->holders, queue->ledger.cursor);
    if (!error)
        error = journal_stream_reader(options->ingest, queue->ledger.cursor, &queue->reader);
    if (!error)
        error = journal_producer_open(options->journal, on_checkpoint_durable, queue, &queue->checkpoints);
    if (!error)
        error = embedded_writer_open(&queue->queue, &queue->repairs);
    int failed = places_init(&queue->places);
    if (!error)
        error = failed;
    if (!error && found.length)
        error = append_books(queue, journal_stream_name(options->ingest), "", &found, 0);
    buffer_fini(&found);
    if (error) {
        embedded_close(&queue->queue);
        return error;
    }
    atomic_store(&queue->read_offset, queue->ledger.cursor);
    queue->outcomes_applied = journal_stream_durable(options->outcomes);
    journal_stream_on_durable(options->ingest, consumed_has_grown, queue);
    if (options->kept)
        journal_stream_on_durable(options->kept, has_grown, queue);
    journal_stream_on_durable(options->results, has_grown, queue);
    journal_stream_on_record(options->results, on_result, queue);
    journal_stream_on_record(options->outcomes, on_outcomes, queue);
    /* Before anything else: what the ledger has from the newest results and dead letters must stand before there are newer ones. */
    error = append_checkpoint(queue);
    if (error) {
        embedded_close(&queue->queue);
        return error;
    }
    *out = &queue->queue;
    return 0;
}
