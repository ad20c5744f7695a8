/* The pipeline: takes messages from a queue, joins those that belong together, has their stage answer them, and settles every
 * one of them with an outcome.
 *
 *   consumer thread --(batches)--> 256 lanes by key --> workers: parse, join, complete --> queue writer --> durable --> settled
 *
 * A lane is an actor: it owns the open sets of its keys, and any free worker runs it, one worker at a time. What is pending
 * survives a crash, because the queue delivers again from the lowest offset without an outcome. */
#ifndef PIPELINE_PIPELINE_H
#define PIPELINE_PIPELINE_H

#include <stdint.h>

#include "pipeline/stage.h"
#include "queue/queue.h"

enum pipeline_duplicates { PIPELINE_DUPLICATES_IGNORE, PIPELINE_DUPLICATES_REPLACE, PIPELINE_DUPLICATES_ERROR };

struct pipeline_options {
    unsigned worker_count;   /* 1 .. 256 */
    uint64_t time_window_ns; /* how long a message waits for the required others, by arrival */
    uint64_t grace_ns;       /* how long a set with all required sides waits for the optional ones */
    enum pipeline_duplicates duplicates;
    uint32_t finished_sets_max;    /* how many answered sets are remembered, to recognise late repeats */
    uint32_t waiting_messages_max; /* beyond it the oldest open set is given up (reason overflow) */
    size_t held_bytes_max;         /* memory of waiting messages; beyond it their parsed content is dropped and read again later */
};

struct pipeline;

/* Borrows queue and stage until pipeline_destroy. Loads the finished sets that the queue remembers, then starts threads. */
int pipeline_start(struct pipeline **pipeline, struct queue *queue, struct stage *stage, const struct pipeline_options *options);

/* Stops fetching, lets the workers finish what they were given (at most timeout_ms), and joins the threads. Open sets stay pending in
 * the queue. Returns 0, or ERR_BUSY when the time was up. */
int pipeline_stop(struct pipeline *pipeline, unsigned timeout_ms);
void pipeline_destroy(struct pipeline *pipeline);

/* Changes what can change while running (time window, grace, duplicates); any thread. */
void pipeline_reconfigure(struct pipeline *pipeline, const struct pipeline_options *options);

#endif
