/* The consumer: fetches, asks the stage where each message belongs, and hands it to its lane. What the stage does not want is
 * settled here. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "pipeline/internal.h"

static void count(atomic_uint_fast64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static struct commit *open_turn(struct pipeline *pipeline)
{
    if (!pipeline->consumer.commit)
        pipeline->consumer.commit = commits_take(&pipeline->commits);
    return pipeline->consumer.commit;
}

static void settle(struct pipeline *pipeline, const struct message *message, const struct stage_refusal *refusal)
{
    struct consumer *consumer = &pipeline->consumer;
    struct queue_position position = {message->offset};
    enum queue_outcome outcome = refusal ? QUEUE_DEAD_LETTERED : QUEUE_COMPLETED;
    struct commit *commit = open_turn(pipeline);
    int error;
    if (refusal) {
        struct queue_dead_letter letter = {.position = position,
                                           .reason = refusal->reason ? refusal->reason : "internal",
                                           .stage = "route",
                                           .error = refusal->error,
                                           .message = message};
        error = pipeline->queue->ops->dead_letter(consumer->writer, &letter);
    } else {
        error = pipeline->queue->ops->settle(consumer->writer, position, outcome);
    }
    if (error)
        pipeline_report(pipeline, OPERATION_WRITE, message->offset, error);
    else
        commit->outcomes[outcome]++;
}

/* Fills an entry for the scheduler; it has no key when the message goes no further. */
static void route(struct pipeline *pipeline, const struct message *message, bool settled, struct lane_entry *entry)
{
    struct consumer *consumer = &pipeline->consumer;
    struct stage_route route = {0};
    struct stage_refusal refusal;
    refusal.reason = NULL;
    refusal.error[0] = 0;
    *entry = (struct lane_entry){.message = message, .settled = settled};
    pipeline->stage->ops->route(pipeline->stage, message->topic, message->topic_length, &route, &refusal);
    if (route.verdict == STAGE_TAKE) {
        entry->key = route.key;
        entry->key_length = route.key_length;
        entry->key_hash = set_key_hash(route.key, route.key_length);
        entry->side = route.side;
        if (!settled)
            count(&consumer->received[route.side]);
    } else if (!settled) {
        count(route.verdict == STAGE_IGNORE ? &consumer->ignored : &consumer->rejected);
        settle(pipeline, message, route.verdict == STAGE_REJECT ? &refusal : NULL);
    }
}

/* False when stopping: the rest of the batch was left out. */
static bool consume(struct pipeline *pipeline, struct queue_batch *fetched, struct lane_batch *batch)
{
    struct lane_entry entries[SCHEDULER_PUSH_MAX];
    bool go_on = true;
    for (size_t done = 0; done < fetched->count && go_on;) {
        size_t part = fetched->count - done < SCHEDULER_PUSH_MAX ? fetched->count - done : SCHEDULER_PUSH_MAX;
        for (size_t i = 0; i < part; i++)
            route(pipeline, &fetched->messages[done + i], fetched->settled && fetched->settled[done + i], &entries[i]);
        go_on = scheduler_push(&pipeline->scheduler, batch, entries, part);
        done += part;
    }
    pipeline_commit(pipeline, pipeline->consumer.writer, &pipeline->consumer.commit);
    return go_on;
}

/* Fetches one batch and hands it on. Returns 1, 0 when nothing was waiting, or an error. */
static int turn(struct pipeline *pipeline, unsigned wait_ms, bool *go_on)
{
    struct queue *queue = pipeline->queue;
    struct queue_batch *fetched = NULL;
    struct lane_batch *batch = malloc(sizeof *batch); /* first: what is fetched must find its place */
    int error = batch ? queue->ops->fetch(queue, SCHEDULER_BATCH_BYTES, wait_ms, &fetched) : ERR_NO_MEMORY;
    if (error || !fetched || fetched->count == 0) {
        free(batch);
        if (!error && fetched)
            queue_batch_release(fetched);
        return error;
    }
    scheduler_open_batch(&pipeline->scheduler, batch, fetched);
    *go_on = consume(pipeline, fetched, batch);
    scheduler_close_batch(&pipeline->scheduler, batch);
    return 1;
}

static void run(struct pipeline *pipeline)
{
    struct scheduler *scheduler = &pipeline->scheduler;
    uint64_t retry_ns = PIPELINE_RETRY_NS_MIN;
    unsigned wait_ms = 0;
    bool go_on = true;
    uint64_t recovered_ns = pipeline->recovering ? clock_monotonic_ns() + PIPELINE_RECOVERY_MS * UINT64_C(1000000) : 0;
    while (go_on && scheduler_wait_for_room(scheduler)) {
        if (recovered_ns && clock_monotonic_ns() >= recovered_ns) {
            pipeline_recovered(pipeline);
            recovered_ns = 0;
        }
        int result = turn(pipeline, wait_ms, &go_on);
        if (result < 0) {
            pipeline_report(pipeline, OPERATION_FETCH, 0, result);
            scheduler_pause(scheduler, retry_ns);
            retry_ns = retry_ns * 2 < PIPELINE_RETRY_NS_MAX ? retry_ns * 2 : PIPELINE_RETRY_NS_MAX;
            continue;
        }
        retry_ns = PIPELINE_RETRY_NS_MIN;
        wait_ms = result         ? 0
                  : recovered_ns ? PIPELINE_RECOVERY_MS / 10
                                 : PIPELINE_FETCH_WAIT_MS; /* a fetch that does not wait and finds nothing shows that all is read */
        if (result == 0)
            scheduler_catch_up(scheduler);
    }
}

void *consumer_main(void *argument)
{
    struct pipeline *pipeline = argument;
    run(pipeline);
    scheduler_consumer_ended(&pipeline->scheduler);
    pipeline_thread_ended(pipeline);
    return NULL;
}
