/* Start and stop: who is created, in which order, and how all of it comes to rest. */
#include "pipeline/pipeline.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "pipeline/internal.h"

static const char *const operation_names[OPERATION_COUNT] = {"fetch", "read_again", "write", "commit"};

void pipeline_report(struct pipeline *pipeline, enum pipeline_operation operation, uint64_t offset, int error)
{
    static struct diagnostics_limit limits[OPERATION_COUNT];
    uint64_t muted;
    atomic_fetch_add_explicit(&pipeline->failures[operation], 1, memory_order_relaxed);
    if (diagnostics_limit_pass(&limits[operation], &muted))
        diagnostics(DIAGNOSTICS_ERROR, "pipeline", "the queue failed: operation=%s offset=%llu error=\"%s\" left_out=%llu; %s",
                    operation_names[operation], (unsigned long long)offset, error_text(error), (unsigned long long)muted,
                    operation == OPERATION_READ_AGAIN && queue_message_is_gone(error) ? "the message is given up"
                                                                                      : "what it concerns stays pending until a restart");
}

void pipeline_commit(struct pipeline *pipeline, struct queue_writer *writer, struct commit **open)
{
    struct commit *commit = *open;
    if (!commit)
        return;
    *open = NULL;
    int error = pipeline->queue->ops->commit(writer, commits_done, commit);
    if (!error)
        return;
    commits_cancel(commit);
    pipeline_report(pipeline, OPERATION_COMMIT, 0, error);
}

/* ---- start ---- */

static bool options_are_valid(const struct stage_ops *ops, const struct pipeline_options *options)
{
    unsigned all = (1u << ops->side_count) - 1;
    return ops->side_count >= 1 && ops->side_count <= STAGE_SIDES_MAX && ops->required && !(ops->required & ~all) &&
           options->worker_count >= 1 && options->worker_count <= PIPELINE_WORKERS_MAX && options->time_window_ns > 0 &&
           options->waiting_messages_max >= ops->side_count && options->duplicates <= PIPELINE_DUPLICATES_ERROR;
}

struct remembering {
    struct pipeline *pipeline;
    void *scratch;
    int error;
};

/* An answer need not show a side that is not required (heads without an id); that all were there is told by the number of messages that it
 * answers. */
static unsigned sides_unseen(const struct stage_ops *ops, size_t source_count)
{
    return source_count == ops->side_count ? ((1u << ops->side_count) - 1) & ~ops->required : 0;
}

static void remember(void *context, const struct message *result, size_t source_count)
{
    struct remembering *remembering = context;
    struct pipeline *pipeline = remembering->pipeline;
    struct stage_answered answered = {0};
    if (!pipeline->stage->ops->identify(pipeline->stage, remembering->scratch, result, &answered))
        return;
    struct set_name name = {.key = answered.key,
                            .key_length = answered.key_length,
                            .key_hash = set_key_hash(answered.key, answered.key_length),
                            .stamp = answered.stamp};
    uint64_t sequence = atomic_fetch_add_explicit(&pipeline->answers, 1, memory_order_relaxed);
    for (unsigned i = 0; i < answered.name_count; i++) {
        name.id = answered.names[i].id;
        int error = join_remember(&pipeline->lanes[name.key_hash % LANE_COUNT].join, sequence, &name,
                                  answered.names[i].sides | sides_unseen(pipeline->stage->ops, source_count));
        if (error)
            remembering->error = error;
    }
}

/* A set may have two results, of which one is recognised; so twice as many are read as sets are remembered. */
static int remember_finished(struct pipeline *pipeline)
{
    const struct queue_ops *ops = pipeline->queue->ops;
    if (!ops->recent_results || !pipeline->stage->ops->identify || pipeline->options.finished_sets_max == 0)
        return 0;
    struct remembering remembering = {.pipeline = pipeline, .scratch = pipeline->workers[0].scratch};
    int error = ops->recent_results(pipeline->queue, (uint64_t)pipeline->options.finished_sets_max * 2, remember, &remembering);
    return error ? error : remembering.error;
}

static int worker_open(struct pipeline *pipeline, struct worker *worker)
{
    worker->pipeline = pipeline;
    for (unsigned i = 0; i < 2; i++) {
        buffer_init(&worker->output.topic[i], PIPELINE_OUTPUT_TOPIC_MAX);
        buffer_init(&worker->output.payload[i], PIPELINE_OUTPUT_PAYLOAD_MAX);
    }
    int error = pipeline->stage->ops->scratch_create(pipeline->stage, &worker->scratch);
    return error ? error : pipeline->queue->ops->writer_open(pipeline->queue, &worker->writer);
}

static void worker_close(struct worker *worker)
{
    struct pipeline *pipeline = worker->pipeline;
    if (!pipeline)
        return;
    if (worker->writer)
        pipeline->queue->ops->writer_close(worker->writer);
    if (worker->scratch)
        pipeline->stage->ops->scratch_destroy(pipeline->stage, worker->scratch);
    for (unsigned i = 0; i < 2; i++) {
        buffer_fini(&worker->output.topic[i]);
        buffer_fini(&worker->output.payload[i]);
    }
}

static struct join_options join_options_of(const struct pipeline_options *options)
{
    return (struct join_options){
        .time_window_ns = options->time_window_ns, .grace_ns = options->grace_ns, .duplicates = options->duplicates};
}

/* Puts the wanted options in force; configure_lock is held. */
static void configure(struct pipeline *pipeline)
{
    const uint64_t recovery_ns = PIPELINE_RECOVERY_MS * UINT64_C(1000000);
    struct join_options options = pipeline->wanted;
    if (pipeline->recovering && options.grace_ns > 0 && options.grace_ns < recovery_ns)
        options.grace_ns = recovery_ns;
    scheduler_configure(&pipeline->scheduler, &options);
}

void pipeline_recovered(struct pipeline *pipeline)
{
    pthread_mutex_lock(&pipeline->configure_lock);
    pipeline->recovering = false;
    configure(pipeline);
    pthread_mutex_unlock(&pipeline->configure_lock);
}

static int threads_start(struct pipeline *pipeline)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the thread that waits for them */
    int failed = 0;
    for (unsigned i = 0; i < pipeline->options.worker_count && !failed; i++) {
        struct worker *worker = &pipeline->workers[i];
        char name[24];
        pthread_mutex_lock(&pipeline->threads_lock);
        failed = pthread_create(&worker->thread, NULL, worker_main, worker);
        worker->has_thread = !failed;
        pipeline->thread_count += worker->has_thread;
        pthread_mutex_unlock(&pipeline->threads_lock);
        snprintf(name, sizeof name, "worker-%u", i);
        if (!failed)
            pthread_setname_np(worker->thread, name);
    }
    if (!failed) {
        pthread_mutex_lock(&pipeline->threads_lock);
        failed = pthread_create(&pipeline->consumer.thread, NULL, consumer_main, pipeline);
        pipeline->consumer.has_thread = !failed;
        pipeline->thread_count += pipeline->consumer.has_thread;
        pthread_mutex_unlock(&pipeline->threads_lock);
    }
    if (!failed)
        pthread_setname_np(pipeline->consumer.thread, "consumer");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed ? error_from_errno(failed) : 0;
}

static int open_all(struct pipeline *pipeline)
{
    const struct pipeline_options *options = &pipeline->options;
    struct queue_counts counts = {0};
    pipeline->queue->ops->counts(pipeline->queue, &counts);
    pipeline->wanted = join_options_of(options);
    pipeline->recovering = counts.pending > 0;
    for (unsigned i = 0; i < LANE_COUNT; i++)
        join_init(&pipeline->lanes[i].join, pipeline->stage, options->finished_sets_max);
    int error = scheduler_init(&pipeline->scheduler, pipeline->queue);
    if (!error)
        error = commits_init(&pipeline->commits, options->worker_count + 1);
    if (!error) {
        configure(pipeline);
        pipeline->workers = calloc(options->worker_count, sizeof(struct worker));
        error = pipeline->workers ? 0 : ERR_NO_MEMORY;
    }
    for (unsigned i = 0; i < options->worker_count && !error; i++)
        error = worker_open(pipeline, &pipeline->workers[i]);
    if (!error)
        error = pipeline->queue->ops->writer_open(pipeline->queue, &pipeline->consumer.writer);
    if (!error)
        error = remember_finished(pipeline);
    if (!error)
        error = metrics_register(pipeline_collect, pipeline);
    pipeline->has_collector = !error;
    return error ? error : threads_start(pipeline);
}

int pipeline_start(struct pipeline **out, struct queue *queue, struct stage *stage, const struct pipeline_options *options)
{
    if (!options_are_valid(stage->ops, options))
        return ERR_INVALID;
    struct pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (!pipeline)
        return ERR_NO_MEMORY;
    pipeline->queue = queue;
    pipeline->stage = stage;
    pipeline->options = *options;
    pthread_mutex_init(&pipeline->threads_lock, NULL);
    pthread_mutex_init(&pipeline->configure_lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pipeline->thread_ended, &attributes);
    pthread_condattr_destroy(&attributes);
    int error = open_all(pipeline);
    if (error) {
        pipeline_destroy(pipeline);
        return error;
    }
    *out = pipeline;
    return 0;
}

/* ---- stop ---- */

void pipeline_thread_ended(struct pipeline *pipeline)
{
    pthread_mutex_lock(&pipeline->threads_lock);
    pipeline->thread_count--;
    pthread_cond_signal(&pipeline->thread_ended);
    pthread_mutex_unlock(&pipeline->threads_lock);
}

/* A fetch may begin after it was interrupted, so the interruption is repeated. */
static bool threads_wait(struct pipeline *pipeline, uint64_t deadline_ns)
{
    enum { AGAIN_NS = 20 * 1000 * 1000 };
    pthread_mutex_lock(&pipeline->threads_lock);
    for (uint64_t now_ns; pipeline->thread_count && (now_ns = clock_monotonic_ns()) < deadline_ns;) {
        uint64_t until_ns = deadline_ns - now_ns > AGAIN_NS ? now_ns + AGAIN_NS : deadline_ns;
        struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
        pthread_mutex_unlock(&pipeline->threads_lock);
        pipeline->queue->ops->interrupt(pipeline->queue);
        pthread_mutex_lock(&pipeline->threads_lock);
        if (pipeline->thread_count)
            pthread_cond_timedwait(&pipeline->thread_ended, &pipeline->threads_lock, &until);
    }
    bool ended = pipeline->thread_count == 0;
    pthread_mutex_unlock(&pipeline->threads_lock);
    return ended;
}

static void threads_join(struct pipeline *pipeline)
{
    for (unsigned i = 0; i < pipeline->options.worker_count && pipeline->workers; i++) {
        if (pipeline->workers[i].has_thread)
            pthread_join(pipeline->workers[i].thread, NULL);
        pipeline->workers[i].has_thread = false;
    }
    if (pipeline->consumer.has_thread)
        pthread_join(pipeline->consumer.thread, NULL);
    pipeline->consumer.has_thread = false;
}

int pipeline_stop(struct pipeline *pipeline, unsigned timeout_ms)
{
    if (pipeline->stopped)
        return 0;
    uint64_t deadline_ns = clock_monotonic_ns() + timeout_ms * (uint64_t)1000000;
    scheduler_stop(&pipeline->scheduler);
    if (!pipeline->consumer.has_thread)
        scheduler_consumer_ended(&pipeline->scheduler); /* it never began */
    bool in_time = threads_wait(pipeline, deadline_ns);
    if (!in_time) {
        scheduler_abort(&pipeline->scheduler);
        deadline_ns += PIPELINE_STOP_EXTRA_MS * (uint64_t)1000000;
        if (!threads_wait(pipeline, deadline_ns))
            return ERR_BUSY; /* a thread is held up in the queue */
    }
    threads_join(pipeline);
    if (!commits_wait_idle(&pipeline->commits, deadline_ns))
        return ERR_BUSY;
    pipeline->stopped = true;
    return in_time ? 0 : ERR_BUSY;
}

void pipeline_destroy(struct pipeline *pipeline)
{
    if (!pipeline)
        return;
    if (pipeline->has_collector)
        metrics_unregister(pipeline_collect, pipeline);
    pipeline->has_collector = false;
    if (pipeline->scheduler.entries && pipeline->commits.pool && !pipeline->stopped) {
        pipeline_stop(pipeline, 0);
        if (!pipeline->stopped) {
            diagnostics(DIAGNOSTICS_ERROR, "pipeline",
                        "the queue still holds threads or outcomes of the pipeline; its memory is left to the end of the process");
            return;
        }
    }
    for (unsigned i = 0; i < pipeline->options.worker_count && pipeline->workers; i++)
        worker_close(&pipeline->workers[i]);
    if (pipeline->consumer.writer)
        pipeline->queue->ops->writer_close(pipeline->consumer.writer);
    for (unsigned i = 0; i < LANE_COUNT; i++)
        join_fini(&pipeline->lanes[i].join);
    scheduler_fini(&pipeline->scheduler);
    commits_fini(&pipeline->commits);
    free(pipeline->workers);
    pthread_cond_destroy(&pipeline->thread_ended);
    pthread_mutex_destroy(&pipeline->threads_lock);
    pthread_mutex_destroy(&pipeline->configure_lock);
    free(pipeline);
}

/* ---- while running ---- */

void pipeline_reconfigure(struct pipeline *pipeline, const struct pipeline_options *options)
{
    pthread_mutex_lock(&pipeline->configure_lock);
    pipeline->wanted = join_options_of(options);
    configure(pipeline);
    pthread_mutex_unlock(&pipeline->configure_lock);
}
