/* What the pipeline itself costs: messages through consumer, lanes, join and answers, with a stage and a queue that do next to nothing.
 *
 *   bench_pipeline [MESSAGES]      (3,000,000)
 *
 * Sets of three messages from many keys, in batches as large as the embedded queue's; the queue confirms each commit at once. A row a
 * case: messages a second by the wall clock, CPU time of all threads a message. Then the latency of sets that come one at a time. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/histogram.h"
#include "pipeline/pipeline.h"
#include "queue/queue.h"

enum { BATCH = 900, SIDES = 3, TOPIC_MAX = 32, PAYLOAD_MAX = 24 };

/* ---- the queue ---- */

struct bench_queue {
    struct queue queue;
    struct message *messages; /* [count] */
    size_t count, read;
    pthread_mutex_t lock;
    pthread_cond_t more;
    size_t ready; /* messages that may be fetched */
    bool interrupted;
    atomic_size_t settled;
    atomic_size_t wanted; /* at this many the waiting thread is woken */
    pthread_cond_t done;
};

struct queue_writer {
    struct bench_queue *queue;
    size_t settled;
};

static int bench_fetch(struct queue *base, size_t bytes_max, unsigned timeout_ms, struct queue_batch **out)
{
    struct bench_queue *queue = (struct bench_queue *)base;
    struct queue_batch *batch = calloc(1, sizeof *batch);
    (void)bytes_max;
    if (!batch)
        return ERR_NO_MEMORY;
    pthread_mutex_lock(&queue->lock);
    while (queue->read == queue->ready && timeout_ms && !queue->interrupted)
        pthread_cond_wait(&queue->more, &queue->lock);
    queue->interrupted = false;
    size_t count = queue->ready - queue->read;
    *batch = (struct queue_batch){.queue = base, .count = count < BATCH ? count : BATCH, .messages = queue->messages + queue->read};
    queue->read += batch->count;
    pthread_mutex_unlock(&queue->lock);
    *out = batch;
    return 0;
}

static void bench_batch_free(struct queue_batch *batch)
{
    free(batch);
}

static void bench_interrupt(struct queue *base)
{
    struct bench_queue *queue = (struct bench_queue *)base;
    pthread_mutex_lock(&queue->lock);
    queue->interrupted = true;
    pthread_cond_signal(&queue->more);
    pthread_mutex_unlock(&queue->lock);
}

static void bench_counts(struct queue *base, struct queue_counts *counts)
{
    (void)base;
    memset(counts, 0, sizeof *counts);
}

static int bench_writer_open(struct queue *base, struct queue_writer **writer)
{
    *writer = calloc(1, sizeof **writer);
    if (!*writer)
        return ERR_NO_MEMORY;
    (*writer)->queue = (struct bench_queue *)base;
    return 0;
}

static void bench_writer_close(struct queue_writer *writer)
{
    free(writer);
}

static int bench_result(struct queue_writer *writer, const struct message *message, const uint64_t *sources, size_t source_count)
{
    (void)message, (void)sources;
    writer->settled += source_count;
    return 0;
}

static int bench_dead_letter(struct queue_writer *writer, const struct queue_dead_letter *letter)
{
    fprintf(stderr, "dead letter: %s: %s\n", letter->reason, letter->error);
    writer->settled++;
    return 0;
}

static int bench_settle(struct queue_writer *writer, struct queue_position position, enum queue_outcome outcome)
{
    (void)position, (void)outcome;
    writer->settled++;
    return 0;
}

static int bench_commit(struct queue_writer *writer, void (*done)(void *token, int error), void *token)
{
    struct bench_queue *queue = writer->queue;
    size_t settled = writer->settled;
    writer->settled = 0;
    done(token, 0);
    if (atomic_fetch_add(&queue->settled, settled) + settled >= atomic_load(&queue->wanted)) {
        pthread_mutex_lock(&queue->lock);
        pthread_cond_signal(&queue->done);
        pthread_mutex_unlock(&queue->lock);
    }
    return 0;
}

static const struct queue_ops bench_queue_ops = {
    .name = "bench",
    .fetch = bench_fetch,
    .batch_free = bench_batch_free,
    .interrupt = bench_interrupt,
    .counts = bench_counts,
    .writer_open = bench_writer_open,
    .writer_close = bench_writer_close,
    .result = bench_result,
    .dead_letter = bench_dead_letter,
    .settle = bench_settle,
    .commit = bench_commit,
};

/* ---- the stage: topic "KEY/SIDE", payload is the stamp; with the side "x" the message is none of its business ---- */

static int bench_scratch_create(struct stage *stage, void **scratch)
{
    (void)stage;
    *scratch = NULL;
    return 0;
}

static void bench_scratch_destroy(struct stage *stage, void *scratch)
{
    (void)stage, (void)scratch;
}

static void bench_route(struct stage *stage, const char *topic, uint32_t topic_length, struct stage_route *route,
                        struct stage_refusal *refusal)
{
    (void)stage, (void)refusal;
    char side = topic[topic_length - 1];
    route->verdict = side == 'x' ? STAGE_IGNORE : STAGE_TAKE;
    route->key = topic;
    route->key_length = topic_length - 2;
    route->side = (uint8_t)(side - 'a');
}

static int bench_parse(struct stage *stage, void *scratch, const struct stage_route *route, const struct message *message,
                       struct stage_item *item, struct stage_refusal *refusal)
{
    (void)stage, (void)scratch, (void)refusal;
    memcpy(item->stamp, message->payload, message->payload_length);
    item->side = route->side;
    return 0;
}

static void bench_item_free(struct stage *stage, struct stage_item *item)
{
    (void)stage, (void)item;
}

static bool bench_same_content(struct stage *stage, const struct stage_item *a, const struct stage_item *b)
{
    (void)stage, (void)a, (void)b;
    return true;
}

static void bench_complete(struct stage *stage, void *scratch, const char *key, uint32_t key_length,
                           const struct stage_item *const items[STAGE_SIDES_MAX], uint64_t now_ns, struct stage_output *output)
{
    (void)stage, (void)scratch, (void)items, (void)now_ns;
    buffer_append(&output->topic[0], key, key_length);
    buffer_append(&output->payload[0], "done", 4);
    output->count = 1;
    output->outcome = "answered";
}

static const char *const bench_side_names[SIDES] = {"a", "b", "c"};
static const struct stage_ops bench_stage_ops = {
    .name = "bench",
    .side_count = SIDES,
    .required = 7,
    .side_names = bench_side_names,
    .scratch_create = bench_scratch_create,
    .scratch_destroy = bench_scratch_destroy,
    .route = bench_route,
    .parse = bench_parse,
    .item_free = bench_item_free,
    .same_content = bench_same_content,
    .complete = bench_complete,
};

/* ---- the cases ---- */

static double cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Sets of `keys` keys follow one another; the three messages of a set lie `keys` messages apart. */
static void make_messages(struct bench_queue *queue, char *text, size_t count, unsigned keys, bool ignored)
{
    for (size_t i = 0; i < count; i++, text += TOPIC_MAX + PAYLOAD_MAX) {
        size_t round = i / keys, side = round % SIDES;
        int topic = snprintf(text, TOPIC_MAX, "toolbox/tool%06zu/%c", i % keys, ignored ? 'x' : "abc"[side]);
        int payload = snprintf(text + TOPIC_MAX, PAYLOAD_MAX, "%zu", round / SIDES);
        queue->messages[i] = (struct message){.offset = i,
                                              .time_ns = clock_wall_ns(),
                                              .topic = text,
                                              .topic_length = (uint32_t)topic,
                                              .payload = (const uint8_t *)text + TOPIC_MAX,
                                              .payload_length = (uint32_t)payload};
    }
}

static void offer(struct bench_queue *queue, size_t ready)
{
    pthread_mutex_lock(&queue->lock);
    atomic_store(&queue->wanted, ready);
    queue->ready = ready;
    pthread_cond_signal(&queue->more);
    while (atomic_load(&queue->settled) < ready)
        pthread_cond_wait(&queue->done, &queue->lock);
    pthread_mutex_unlock(&queue->lock);
}

struct bench_case {
    const char *name;
    unsigned workers, keys;
    bool ignored;
};

static int run_case(const struct bench_case *bench, size_t count, bool one_by_one)
{
    struct bench_queue queue = {
        .queue = {&bench_queue_ops}, .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};
    struct stage stage = {&bench_stage_ops};
    struct pipeline_options options = {.worker_count = bench->workers,
                                       .time_window_ns = UINT64_C(600000000000),
                                       .finished_sets_max = 10000,
                                       .waiting_messages_max = 1000000,
                                       .held_bytes_max = 64 << 20};
    struct pipeline *pipeline;
    count -= count % (bench->keys * (size_t)SIDES);
    char *text = malloc(count * (TOPIC_MAX + PAYLOAD_MAX));
    queue.messages = calloc(count, sizeof *queue.messages);
    if (!text || !queue.messages)
        return ERR_NO_MEMORY;
    make_messages(&queue, text, count, bench->keys, bench->ignored);
    int error = pipeline_start(&pipeline, &queue.queue, &stage, &options);
    if (error)
        return error;
    double cpu = cpu_s();
    uint64_t start_ns = clock_monotonic_ns();
    if (one_by_one) {
        struct histogram *latency = calloc(1, sizeof *latency);
        for (size_t set = 0; latency && set < count / SIDES; set++) {
            uint64_t sent_ns = clock_monotonic_ns();
            offer(&queue, (set + 1) * SIDES);
            histogram_record(latency, clock_monotonic_ns() - sent_ns);
            nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
        }
        printf("%-44s p50 %.1f us, p99 %.1f us, %.1f us CPU a set\n", bench->name, (double)histogram_quantile(latency, .5) / 1e3,
               (double)histogram_quantile(latency, .99) / 1e3, (cpu_s() - cpu) * 1e6 * SIDES / (double)count);
        free(latency);
    } else {
        offer(&queue, count);
        double elapsed_s = (double)(clock_monotonic_ns() - start_ns) / 1e9;
        printf("%-44s %10.0f messages/s  %6.0f ns CPU a message\n", bench->name, (double)count / elapsed_s,
               (cpu_s() - cpu) * 1e9 / (double)count);
    }
    error = pipeline_stop(pipeline, 10000);
    pipeline_destroy(pipeline);
    free(queue.messages);
    free(text);
    return error;
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"3,000 keys, 1 worker", 1, 3000, false},        {"3,000 keys, 2 workers", 2, 3000, false},
        {"3,000 keys, 8 workers", 8, 3000, false},       {"1 key, 2 workers", 2, 1, false},
        {"not for the stage, 2 workers", 2, 3000, true},
    };
    static const struct bench_case single = {"one set at a time, 2 workers", 2, 1, false};
    size_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 3000000;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (count < cases[i].keys * (size_t)SIDES || run_case(&cases[i], count, false))
            return fprintf(stderr, "the case \"%s\" failed\n", cases[i].name), 1;
    return run_case(&single, 3 * SIDES * 1000, true) != 0;
}
