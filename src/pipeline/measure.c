/* What a scrape sees of the pipeline. */
#include <string.h>

#include "pipeline/internal.h"

static const double duration_bounds_s[] = {.001, .01, .1, .5, 1, 5};
enum { DURATION_BOUNDS = sizeof duration_bounds_s / sizeof *duration_bounds_s };

static uint64_t load(atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void collect_received(struct pipeline *pipeline, struct metrics_writer *writer)
{
    struct consumer *consumer = &pipeline->consumer;
    const struct stage_ops *ops = pipeline->stage->ops;
    for (unsigned side = 0; side < ops->side_count; side++)
        metrics_sample_u64(writer, METRIC_DRILLING_RECEIVED, load(&consumer->received[side]), "message_type", ops->side_names[side], NULL);
    metrics_sample_u64(writer, METRIC_DRILLING_RECEIVED, load(&consumer->ignored), "message_type", "other", NULL);
    metrics_sample_u64(writer, METRIC_DRILLING_RECEIVED, load(&consumer->rejected), "message_type", "unknown", NULL);
}

static void collect_durable(struct commits *commits, uint64_t commit_failures, struct metrics_writer *writer)
{
    static const char *const names[] = {
        [QUEUE_COMPLETED] = "completed", [QUEUE_DUPLICATE] = "duplicate", [QUEUE_DEAD_LETTERED] = "dead_lettered"};
    uint64_t outcomes[QUEUE_DEAD_LETTERED + 1];
    struct histogram duration;
    pthread_mutex_lock(&commits->lock);
    memcpy(outcomes, commits->outcomes, sizeof outcomes);
    memcpy(&duration, &commits->duration, sizeof duration);
    commit_failures += commits->failures;
    pthread_mutex_unlock(&commits->lock);
    for (unsigned i = QUEUE_COMPLETED; i <= QUEUE_DEAD_LETTERED; i++)
        metrics_sample_u64(writer, METRIC_DRILLING_PROCESSED, outcomes[i], "status", names[i], NULL);
    metrics_histogram_ns(writer, METRIC_DRILLING_DURATION, &duration, duration_bounds_s, DURATION_BOUNDS, NULL);
    metrics_sample_u64(writer, METRIC_PIPELINE_FAILURES, commit_failures, "operation", "commit", NULL);
}

struct outcome_sum {
    const char *word;
    uint64_t count;
};

/* Workers meet the words in different orders. */
static void collect_answers(struct pipeline *pipeline, struct metrics_writer *writer)
{
    struct outcome_sum sums[PIPELINE_OUTCOME_WORDS_MAX] = {0};
    uint64_t other = 0;
    const char *const *words = pipeline->stage->ops->outcomes;
    for (unsigned at = 0; at < PIPELINE_OUTCOME_WORDS_MAX && words[at]; at++)
        sums[at].word = words[at];
    for (unsigned i = 0; i < pipeline->options.worker_count; i++) {
        struct worker_counters *counters = &pipeline->workers[i].counters;
        for (unsigned word = 0; word < PIPELINE_OUTCOME_WORDS_MAX; word++) {
            const char *text = atomic_load_explicit(&counters->words[word], memory_order_acquire);
            unsigned at = 0;
            if (!text)
                break;
            while (at < PIPELINE_OUTCOME_WORDS_MAX && sums[at].word && strcmp(sums[at].word, text) != 0)
                at++;
            if (at == PIPELINE_OUTCOME_WORDS_MAX) {
                other += load(&counters->answers[word]);
                continue;
            }
            sums[at].word = text;
            sums[at].count += load(&counters->answers[word]);
        }
        other += load(&counters->answers[PIPELINE_OUTCOME_WORDS_MAX]);
    }
    for (unsigned at = 0; at < PIPELINE_OUTCOME_WORDS_MAX && sums[at].word; at++)
        metrics_sample_u64(writer, METRIC_DRILLING_HOLES, sums[at].count, "outcome", sums[at].word, NULL);
    if (other)
        metrics_sample_u64(writer, METRIC_DRILLING_HOLES, other, "outcome", "other", NULL);
}

void pipeline_collect(void *owner, struct metrics_writer *writer)
{
    struct pipeline *pipeline = owner;
    struct queue_counts counts = {0};
    pipeline->queue->ops->counts(pipeline->queue, &counts);
    collect_received(pipeline, writer);
    collect_answers(pipeline, writer);
    metrics_sample_u64(writer, METRIC_DRILLING_QUEUE_DEPTH, scheduler_depth(&pipeline->scheduler), "queue_name", "lanes", NULL);
    metrics_sample_u64(writer, METRIC_DRILLING_QUEUE_CAPACITY, SCHEDULER_ENTRIES_MAX + SCHEDULER_ASIDE_MAX, "queue_name", "lanes", NULL);
    metrics_sample_u64(writer, METRIC_DRILLING_QUEUE_DEPTH, load(&pipeline->waiting_messages), "queue_name", "waiting", NULL);
    metrics_sample_u64(writer, METRIC_DRILLING_QUEUE_CAPACITY, pipeline->options.waiting_messages_max, "queue_name", "waiting", NULL);
    metrics_sample_u64(writer, METRIC_PIPELINE_WORKERS, pipeline->options.worker_count, NULL);
    metrics_sample_u64(writer, METRIC_PIPELINE_OPEN_SETS, load(&pipeline->open_sets), NULL);
    metrics_sample_u64(writer, METRIC_PIPELINE_HELD_BYTES, load(&pipeline->held_bytes), NULL);
    metrics_sample_u64(writer, METRIC_PIPELINE_LAG, counts.unread, NULL);
    metrics_sample_u64(writer, METRIC_PIPELINE_FAILURES, load(&pipeline->failures[OPERATION_FETCH]), "operation", "fetch", NULL);
    metrics_sample_u64(writer, METRIC_PIPELINE_FAILURES, load(&pipeline->failures[OPERATION_READ_AGAIN]), "operation", "read_again", NULL);
    metrics_sample_u64(writer, METRIC_PIPELINE_FAILURES, load(&pipeline->failures[OPERATION_WRITE]), "operation", "write", NULL);
    collect_durable(&pipeline->commits, load(&pipeline->failures[OPERATION_COMMIT]), writer);
    if (pipeline->stage->ops->collect)
        pipeline->stage->ops->collect(pipeline->stage, writer);
}
