/* An embedded queue on a journal in a folder of its own, for tests: messages in, outcomes, and the terms. */
#ifndef TESTS_UNIT_EMBEDDED_FIXTURE_H
#define TESTS_UNIT_EMBEDDED_FIXTURE_H

#include "unit.h"

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
static unsigned holders;                   /* of the queues */

static inline void no_notice(void *context)
{
    (void)context;
}

static inline void count_published(void *context, const struct message *result)
{
    struct fixture *fixture = context;
    assert_memory_equal(result->topic, "answer", 6);
    fixture->published++;
}

static inline void start(struct fixture *fixture)
{
    *fixture = (struct fixture){0};
    struct journal_options options = {.disk = disk_posix(), .folder = test_folder, .segment_size = 1 << 20, .durability = durability};
    assert_int_equal(journal_open(&fixture->journal, &options), 0);
    struct journal_stream_options stream = {.name = "bus", .guarded = true};
    assert_int_equal(journal_stream_add(fixture->journal, &stream, &fixture->kept), 0);
    stream = (struct journal_stream_options){.name = "ingest", .retention_size = 1, .guarded = true};
    assert_int_equal(journal_stream_add(fixture->journal, &stream, &fixture->ingest), 0);
    stream = (struct journal_stream_options){.name = "results", .guarded = true, .scribe = 1};
    assert_int_equal(journal_stream_add(fixture->journal, &stream, &fixture->results), 0);
    stream.name = "dead-letters";
    stream.guarded = false;
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
        .holders = holders,
    };
    assert_int_equal(queue_embedded_open(&fixture->queue, &queue), 0);
    assert_int_equal(journal_start(fixture->journal), 0);
    assert_int_equal(journal_producer_open(fixture->journal, no_notice, NULL, &fixture->producer), 0);
    assert_int_equal(fixture->queue->ops->writer_open(fixture->queue, &fixture->writer), 0);
}

static inline void stop(struct fixture *fixture)
{
    fixture->queue->ops->writer_close(fixture->writer);
    journal_producer_close(fixture->producer);
    journal_stop(fixture->journal);
    fixture->queue->ops->close(fixture->queue);
    journal_close(fixture->journal);
}

static inline void accept_messages(struct fixture *fixture, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct message message = {.topic = "in", .topic_length = 2, .payload = (const uint8_t *)"payload", .payload_length = 7};
        assert_int_equal(journal_append(fixture->producer, fixture->ingest, &message, NULL, 0, 0), 0);
    }
    journal_submit(fixture->producer);
    journal_producer_wait(fixture->producer, 0);
}

static inline void settle_one(struct fixture *fixture, const struct message *message, enum queue_outcome outcome)
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

static inline void assert_counts(struct fixture *fixture, uint64_t accepted, uint64_t completed, uint64_t duplicates, uint64_t dead,
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

static inline void flush(struct fixture *fixture)
{
    assert_int_equal(fixture->queue->ops->commit(fixture->writer, NULL, NULL), 0);
    fixture->queue->ops->writer_close(fixture->writer); /* waits until it is durable and applied */
    assert_int_equal(fixture->queue->ops->writer_open(fixture->queue, &fixture->writer), 0);
}

#endif
