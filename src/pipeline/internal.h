/* What the files of the pipeline share: its threads, its lanes, its counters. Who owns what:
 *
 *   a lane       whoever the scheduler lets run it: one worker at a time
 *   a worker     its thread; its counters are read by the scraping thread, so they are relaxed atomics
 *   the use      all workers together, as relaxed atomics: what the lanes hold, in sum */
#ifndef PIPELINE_INTERNAL_H
#define PIPELINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pipeline/commits.h"
#include "pipeline/join.h"
#include "pipeline/pipeline.h"
#include "pipeline/scheduler.h"

enum {
    PIPELINE_WORKERS_MAX = 256,
    PIPELINE_OUTCOME_WORDS_MAX = 16,          /* different words of stage_output.outcome that are counted apart */
    PIPELINE_OUTPUT_TOPIC_MAX = 65535,        /* bytes */
    PIPELINE_OUTPUT_PAYLOAD_MAX = 16 << 20,   /* bytes */
    PIPELINE_OUTPUT_PAYLOAD_KEEP = 256 << 10, /* bytes a worker keeps allocated between answers */
    PIPELINE_SLICE_NS_MAX = 1000000,          /* a slice begins nothing more after it, so that what is answered leaves soon */
    PIPELINE_FETCH_WAIT_MS = 60000,           /* an idle consumer wakes this often, for no reason but prudence */
    PIPELINE_RECOVERY_MS = 10000,             /* how long after a start with pending messages the grace is at least so long */
    PIPELINE_RETRY_NS_MIN = 50 * 1000 * 1000, /* pause after a failed fetch, doubled each time */
    PIPELINE_RETRY_NS_MAX = 2000 * 1000 * 1000,
    PIPELINE_STOP_EXTRA_MS = 1000 /* after the time is up: for slices that are running */
};

struct worker_counters {
    _Atomic(const char *) words[PIPELINE_OUTCOME_WORDS_MAX];      /* in order of appearance; NULL behind the last */
    atomic_uint_fast64_t answers[PIPELINE_OUTCOME_WORDS_MAX + 1]; /* the last: without a word, or with one too many */
};

struct worker {
    struct pipeline *pipeline;
    pthread_t thread;
    bool has_thread;
    void *scratch;
    struct queue_writer *writer;
    struct commit *commit; /* of the turn that is open; NULL while there is none */
    struct stage_output output;
    struct worker_counters counters;
};

/* The open and finished sets of some keys. */
struct lane {
    struct join join;
    uint64_t restarted_ns;                                      /* as of its last slice */
    uint64_t told_open, told_waiting, told_held, told_finished; /* its part of the use, as last told */
};

struct consumer {
    pthread_t thread;
    bool has_thread;
    struct queue_writer *writer;
    struct commit *commit;
    atomic_uint_fast64_t received[STAGE_SIDES_MAX]; /* by side; these three without what was settled in an earlier life */
    atomic_uint_fast64_t ignored, rejected;
};

enum pipeline_operation { OPERATION_FETCH, OPERATION_READ_AGAIN, OPERATION_WRITE, OPERATION_COMMIT, OPERATION_COUNT };

struct pipeline {
    struct queue *queue;
    struct stage *stage;
    struct pipeline_options options; /* as given at the start; the reconfigurable ones in force lie in the scheduler */
    pthread_mutex_t configure_lock;
    struct join_options wanted; /* under configure_lock: what is in force but for the recovery */
    bool recovering;            /* under configure_lock */
    struct scheduler scheduler;
    struct commits commits;
    struct lane lanes[LANE_COUNT];
    struct worker *workers; /* [options.worker_count] */
    struct consumer consumer;
    bool has_collector;

    pthread_mutex_t threads_lock;
    pthread_cond_t thread_ended;
    unsigned thread_count; /* running */
    bool stopped;

    atomic_uint_fast64_t open_sets, waiting_messages, held_bytes, finished_sets; /* the use */
    atomic_uint_fast64_t answers; /* since the start and remembered from before: numbers the finished sets */
    atomic_uint_fast64_t failures[OPERATION_COUNT];
};

/* Counts a failure and reports it, at most once a second for each kind. */
void pipeline_report(struct pipeline *pipeline, enum pipeline_operation operation, uint64_t offset, int error);

/* Ends a turn: hands `*commit` with what the writer holds to the queue. */
void pipeline_commit(struct pipeline *pipeline, struct queue_writer *writer, struct commit **commit);

/* Runs a slice: parses, joins, answers, and fills slice->standing. What it decided is in the worker's writer, to be committed. */
void lane_run(struct worker *worker, struct lane *lane, struct slice *slice);

/* What must make room first, if anything. */
enum relief pipeline_relief(struct pipeline *pipeline);

/* Ends what begins at a start with pending messages: the time in which the grace is longer, because the clients that had a message on
 * its way when the process ended must first connect again. */
void pipeline_recovered(struct pipeline *pipeline);

void *consumer_main(void *pipeline);
void *worker_main(void *worker);

/* Called by both as their last act. */
void pipeline_thread_ended(struct pipeline *pipeline);

/* The collector; `owner` is the pipeline. */
void pipeline_collect(void *owner, struct metrics_writer *writer);

#endif
