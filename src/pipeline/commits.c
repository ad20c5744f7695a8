#include "pipeline/commits.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"

int commits_init(struct commits *commits, unsigned thread_count)
{
    memset(commits, 0, sizeof *commits);
    commits->count = thread_count + COMMITS_SPARE;
    commits->pool = calloc(commits->count, sizeof(struct commit));
    if (!commits->pool)
        return ERR_NO_MEMORY;
    for (unsigned i = commits->count; i-- > 0;) {
        commits->pool[i].commits = commits;
        commits->pool[i].next = commits->unused;
        commits->unused = &commits->pool[i];
    }
    pthread_mutex_init(&commits->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&commits->returned, &attributes);
    pthread_condattr_destroy(&attributes);
    return 0;
}

void commits_fini(struct commits *commits)
{
    if (!commits->pool)
        return;
    free(commits->pool);
    commits->pool = NULL;
    pthread_cond_destroy(&commits->returned);
    pthread_mutex_destroy(&commits->lock);
}

struct commit *commits_take(struct commits *commits)
{
    pthread_mutex_lock(&commits->lock);
    while (!commits->unused)
        pthread_cond_wait(&commits->returned, &commits->lock);
    struct commit *commit = commits->unused;
    commits->unused = commit->next;
    commits->in_flight++;
    pthread_mutex_unlock(&commits->lock);
    commit->answer_count = 0;
    memset(commit->outcomes, 0, sizeof commit->outcomes);
    return commit;
}

/* Under the lock. All who wait may go on: a worker with this one, a stop with the last one. */
static void put_back(struct commit *commit)
{
    struct commits *commits = commit->commits;
    commit->next = commits->unused;
    commits->unused = commit;
    commits->in_flight--;
    pthread_cond_broadcast(&commits->returned);
}

void commits_cancel(struct commit *commit)
{
    struct commits *commits = commit->commits;
    pthread_mutex_lock(&commits->lock);
    put_back(commit);
    pthread_mutex_unlock(&commits->lock);
}

void commits_done(void *token, int error)
{
    struct commit *commit = token;
    struct commits *commits = commit->commits;
    uint64_t now_ns = clock_monotonic_ns();
    pthread_mutex_lock(&commits->lock);
    if (error) {
        commits->failures++;
    } else {
        for (unsigned i = QUEUE_COMPLETED; i <= QUEUE_DEAD_LETTERED; i++)
            commits->outcomes[i] += commit->outcomes[i];
        for (unsigned i = 0; i < commit->answer_count; i++)
            histogram_record(&commits->duration, now_ns > commit->origins_ns[i] ? now_ns - commit->origins_ns[i] : 0);
    }
    put_back(commit);
    pthread_mutex_unlock(&commits->lock);
    if (error)
        DIAG_LIMITED(DIAGNOSTICS_ERROR, "pipeline",
                     "the queue could not make outcomes durable: %s; their messages stay pending until a restart", error_text(error));
}

bool commits_wait_idle(struct commits *commits, uint64_t deadline_ns)
{
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / 1000000000u), .tv_nsec = (long)(deadline_ns % 1000000000u)};
    int error = 0;
    pthread_mutex_lock(&commits->lock);
    while (commits->in_flight && !error)
        error = pthread_cond_timedwait(&commits->returned, &commits->lock, &deadline);
    bool idle = commits->in_flight == 0;
    pthread_mutex_unlock(&commits->lock);
    return idle;
}
