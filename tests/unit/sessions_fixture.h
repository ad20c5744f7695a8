/* Persistent sessions on a stepped journal of a simulated disk, with a queue whose holds are noted. */
#ifndef TESTS_UNIT_SESSIONS_FIXTURE_H
#define TESTS_UNIT_SESSIONS_FIXTURE_H

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "bus/sessions.h"
#include "queue/embedded.h"
#include "simulated_disk.h"

enum { STREAM_SESSIONS, STREAM_INGEST, STREAM_BUS, STREAM_RESULTS, STREAM_DEAD, STREAM_OUTCOMES, STREAM_COUNT };

struct fixture {
    struct simulated_disk *disk;
    struct journal *journal;
    struct journal_stream *streams[STREAM_COUNT];
    struct queue *embedded;
    struct queue queue; /* `embedded`, but for its hold */
    struct queue_ops ops;
    struct queue_producer *producer;
    struct sessions *sessions;
    struct sessions_options options; /* for the next start */
    uint64_t held[FOLLOWER_CONTENTS];
    unsigned notices;
};

static struct fixture *holding; /* the one whose queue is held */

static inline void no_notice(void *context)
{
    (void)context;
}

static inline void count_notice(void *context)
{
    struct fixture *f = context;
    f->notices++;
}

static inline void note_hold(struct queue *queue, enum queue_content content, uint64_t offset)
{
    struct fixture *f = holding;
    assert_ptr_equal(queue, &f->queue);
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        if (follower_contents[i] == content)
            f->held[i] = offset;
    f->embedded->ops->hold(f->embedded, content, offset);
}

static inline int pass_view(struct queue *queue, enum queue_content content, uint64_t from, struct queue_view **view)
{
    (void)queue;
    return holding->embedded->ops->view_open(holding->embedded, content, from, view);
}

static inline void pass_extent(struct queue *queue, enum queue_content content, uint64_t *first, uint64_t *next)
{
    (void)queue;
    holding->embedded->ops->extent(holding->embedded, content, first, next);
}

/* Returns what sessions_open does. */
static inline int try_start(struct fixture *f)
{
    static const char *const names[STREAM_COUNT] = {"sessions", "ingest", "bus", "results", "dead-letters", "outcomes"};
    if (!f->disk)
        f->disk = simulated_disk_create(1);
    struct journal_options journal = {.disk = simulated_disk_table(f->disk), .folder = "/data", .segment_size = 64 << 10, .stepped = true};
    assert_int_equal(journal_open(&f->journal, &journal), 0);
    for (unsigned i = 0; i < STREAM_COUNT; i++) {
        struct journal_stream_options stream = {
            .name = names[i], .scribe = i >= STREAM_RESULTS, .retention_size = i != STREAM_DEAD, .guarded = i != STREAM_DEAD};
        assert_int_equal(journal_stream_add(f->journal, &stream, &f->streams[i]), 0);
    }
    struct queue_embedded_options queue = {.journal = f->journal,
                                           .data_folder = "/data",
                                           .ingest = f->streams[STREAM_INGEST],
                                           .kept = f->streams[STREAM_BUS],
                                           .results = f->streams[STREAM_RESULTS],
                                           .dead_letters = f->streams[STREAM_DEAD],
                                           .outcomes = f->streams[STREAM_OUTCOMES]};
    assert_int_equal(queue_embedded_open(&f->embedded, &queue), 0);
    assert_int_equal(journal_start(f->journal), 0);
    assert_int_equal(f->embedded->ops->producer_open(f->embedded, no_notice, NULL, &f->producer), 0);
    holding = f;
    f->ops = *f->embedded->ops;
    f->ops.hold = note_hold;
    f->ops.view_open = pass_view;
    f->ops.extent = pass_extent;
    f->queue.ops = &f->ops;
    f->options.queue = &f->queue;
    f->options.journal = f->journal;
    f->options.stream = f->streams[STREAM_SESSIONS];
    f->options.notify = count_notice;
    f->options.context = f;
    f->sessions = NULL;
    return sessions_open(&f->options, &f->sessions);
}

static inline void start(struct fixture *f)
{
    assert_int_equal(try_start(f), 0);
}

/* What was sent off is durable then. */
static inline void step(struct fixture *f)
{
    while (journal_step_group(f->journal))
        continue;
    while (journal_step_keeper(f->journal))
        continue;
}

static inline void settle(struct fixture *f)
{
    sessions_flush(f->sessions);
    f->producer->ops->submit(f->producer);
    step(f);
}

/* The process is gone, with what it had not written. */
static inline void kill_process(struct fixture *f)
{
    simulated_disk_kill(f->disk);
    sessions_close(f->sessions);
    f->producer->ops->close(f->producer);
    f->embedded->ops->close(f->embedded);
    journal_close(f->journal);
    simulated_disk_revive(f->disk);
    f->sessions = NULL;
}

static inline void again(struct fixture *f)
{
    settle(f);
    kill_process(f);
    start(f);
}

static inline void finish(struct fixture *f)
{
    kill_process(f);
    simulated_disk_destroy(f->disk);
    f->disk = NULL;
}

#endif
