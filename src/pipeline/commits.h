/* What was handed to the queue and is not durable yet.
 *
 * Each slice that decides something makes one commit. It carries what will have happened once it is durable: how many messages
 * got which outcome, and when the last message of each answered set was accepted. There are `count` of them; a worker that finds
 * none waits, so the work that is decided and not durable is bounded whatever the queue allows. */
#ifndef PIPELINE_COMMITS_H
#define PIPELINE_COMMITS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/histogram.h"
#include "queue/queue.h"

enum {
    COMMITS_SPARE = 256, /* how many commits may be on their way beyond one a settling thread */
    COMMIT_ANSWERS_MAX = 64
};

struct commits;

struct commit {
    struct commits *commits;
    struct commit *next;
    uint64_t origins_ns[COMMIT_ANSWERS_MAX]; /* [answer_count]: monotonic time at which the last message of an answered set was accepted */
    unsigned answer_count;
    uint64_t outcomes[QUEUE_DEAD_LETTERED + 1]; /* by enum queue_outcome */
};

struct commits {
    pthread_mutex_t lock;
    pthread_cond_t returned;
    struct commit *pool; /* owned; [count] */
    struct commit *unused;
    unsigned count, in_flight;
    /* Of what is durable. */
    uint64_t outcomes[QUEUE_DEAD_LETTERED + 1];
    uint64_t failures;
    struct histogram duration; /* ns from acceptance of a set's last message to its durable answer */
};

int commits_init(struct commits *commits, unsigned thread_count);
void commits_fini(struct commits *commits);

/* An empty commit; waits for one to return when all are on their way. */
struct commit *commits_take(struct commits *commits);

/* Gives back a commit that the queue did not accept, or that was not needed. */
void commits_cancel(struct commit *commit);

/* The `done` of queue_ops.commit, with the commit as its token; any thread. */
void commits_done(void *token, int error);

/* Whether all have returned, waiting until deadline_ns (monotonic). */
bool commits_wait_idle(struct commits *commits, uint64_t deadline_ns);

#endif
