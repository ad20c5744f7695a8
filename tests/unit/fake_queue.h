/* A queue in memory with everything a test wants to see and to break.
 *
 * Turns become durable on a thread of its own, one after the other, each as a whole. The test can hold that thread, make fetch or
 * commits fail, crash the queue (what is not durable is lost) and open it again. Each turn checks the equation
 * accepted = completed + duplicates + dead_lettered + pending, and that no message is settled twice. */
#ifndef TESTS_FAKE_QUEUE_H
#define TESTS_FAKE_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "queue/queue.h"

enum { FAKE_MESSAGES_MAX = 200000, FAKE_BATCH_MAX = 250, FAKE_DEADLINE_S = 60 };

struct fake_message {
    char *topic, *payload;
    uint32_t payload_length;
    uint64_t time_ns;
    enum queue_outcome outcome; /* 0: pending */
    char reason[32], stage[16], error[256];
    uint64_t result; /* the result that answered it; UINT64_MAX: none */
};

struct fake_result {
    char *topic, *payload;
    size_t source_count;
    bool withheld;
};

struct fake_step {
    char *topic, *payload; /* a result */
    bool withheld;
    uint64_t sources[4];
    size_t source_count;
    uint64_t offset; /* else a settlement */
    enum queue_outcome outcome;
    char reason[32], stage[16], error[256];
};

struct fake_turn {
    struct fake_turn *next;
    struct fake_step *steps;
    size_t count, capacity;
    void (*done)(void *token, int error);
    void *token;
};

struct fake_queue;
struct queue_writer {
    struct fake_queue *queue;
    struct fake_turn *turn;
};

struct fake_queue {
    struct queue queue;
    struct queue_ops ops;
    pthread_mutex_t lock;
    pthread_cond_t more, turns, changed;
    pthread_t durable_thread;
    struct fake_message *messages; /* [count] */
    uint64_t count, read, recovered;
    struct fake_result *results;
    uint64_t result_count;
    uint64_t outcomes[4];
    struct fake_turn *first, **last;
    uint64_t turns_waiting;
    unsigned fetches, reads_again, batches, writers, fetch_failures, commit_failures, double_settlements, broken_equations;
    uint64_t lost_again; /* this offset cannot be read again; 0: all can */
    int lost_error;      /* why; 0: ERR_NOT_FOUND */
    bool interrupted, held, crashed, closing;
};

static inline struct fake_queue *fake(struct queue *queue)
{
    return (struct fake_queue *)queue;
}

static inline char *fake_text(const void *bytes, size_t length)
{
    char *text = malloc(length + 1);
    memcpy(text, bytes, length);
    text[length] = 0;
    return text;
}

/* ---- consumer ---- */

static inline int fake_fetch(struct queue *base, size_t bytes_max, unsigned timeout_ms, struct queue_batch **out)
{
    struct fake_queue *queue = fake(base);
    uint64_t until_ns = clock_monotonic_ns() + timeout_ms * 1000000ull;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
    pthread_mutex_lock(&queue->lock);
    queue->fetches++;
    pthread_cond_broadcast(&queue->changed);
    if (queue->fetch_failures) {
        queue->fetch_failures--;
        pthread_mutex_unlock(&queue->lock);
        return ERR_DISCONNECTED;
    }
    for (bool late = timeout_ms == 0; !late && queue->read == queue->count && !queue->interrupted;)
        late = pthread_cond_timedwait(&queue->more, &queue->lock, &until) != 0;
    queue->interrupted = false;
    struct queue_batch *batch = calloc(1, sizeof *batch);
    struct message *messages = calloc(FAKE_BATCH_MAX, sizeof *messages);
    bool *settled = calloc(FAKE_BATCH_MAX, sizeof *settled);
    *batch = (struct queue_batch){.queue = base, .messages = messages, .settled = settled};
    for (size_t bytes = 0; queue->read < queue->count && batch->count < FAKE_BATCH_MAX && bytes < bytes_max; queue->read++) {
        const struct fake_message *message = &queue->messages[queue->read];
        settled[batch->count] = queue->read < queue->recovered && message->outcome;
        messages[batch->count++] = (struct message){.offset = queue->read,
                                                    .time_ns = message->time_ns,
                                                    .topic = message->topic,
                                                    .topic_length = (uint32_t)strlen(message->topic),
                                                    .payload = (const uint8_t *)message->payload,
                                                    .payload_length = message->payload_length};
        bytes += message->payload_length;
    }
    queue->batches++;
    pthread_mutex_unlock(&queue->lock);
    *out = batch;
    return 0;
}

static inline void fake_batch_free(struct queue_batch *batch)
{
    struct fake_queue *queue = fake(batch->queue);
    pthread_mutex_lock(&queue->lock);
    queue->batches--;
    pthread_mutex_unlock(&queue->lock);
    free((void *)(uintptr_t)batch->messages);
    free((void *)(uintptr_t)batch->settled);
    free(batch);
}

static inline void fake_interrupt(struct queue *base)
{
    struct fake_queue *queue = fake(base);
    pthread_mutex_lock(&queue->lock);
    queue->interrupted = true;
    pthread_cond_broadcast(&queue->more);
    pthread_mutex_unlock(&queue->lock);
}

static inline int fake_read_again(struct queue *base, struct queue_position position, struct message **copy)
{
    struct fake_queue *queue = fake(base);
    pthread_mutex_lock(&queue->lock);
    if (queue->lost_again && position.offset == queue->lost_again) {
        pthread_mutex_unlock(&queue->lock);
        return queue->lost_error ? queue->lost_error : ERR_NOT_FOUND;
    }
    const struct fake_message *message = &queue->messages[position.offset];
    size_t topic_length = strlen(message->topic);
    struct message *again = malloc(sizeof *again + topic_length + message->payload_length);
    char *text = (char *)(again + 1);
    memcpy(text, message->topic, topic_length);
    memcpy(text + topic_length, message->payload, message->payload_length);
    *again = (struct message){.offset = position.offset,
                              .time_ns = message->time_ns,
                              .topic = text,
                              .topic_length = (uint32_t)topic_length,
                              .payload = (const uint8_t *)text + topic_length,
                              .payload_length = message->payload_length};
    queue->reads_again++;
    pthread_mutex_unlock(&queue->lock);
    *copy = again;
    return 0;
}

static inline int fake_recent_results(struct queue *base, uint64_t count_max, queue_on_result *each, void *context)
{
    struct fake_queue *queue = fake(base);
    for (uint64_t i = queue->result_count > count_max ? queue->result_count - count_max : 0; i < queue->result_count; i++) {
        const struct fake_result *result = &queue->results[i];
        struct message message = {.offset = i,
                                  .topic = result->topic,
                                  .topic_length = (uint32_t)strlen(result->topic),
                                  .payload = (const uint8_t *)result->payload,
                                  .payload_length = (uint32_t)strlen(result->payload)};
        each(context, &message, result->source_count);
    }
    return 0;
}

static inline void fake_counts_locked(const struct fake_queue *queue, struct queue_counts *counts)
{
    *counts = (struct queue_counts){.accepted = queue->count,
                                    .completed = queue->outcomes[QUEUE_COMPLETED],
                                    .duplicates = queue->outcomes[QUEUE_DUPLICATE],
                                    .dead_lettered = queue->outcomes[QUEUE_DEAD_LETTERED],
                                    .unread = queue->count - queue->read};
    counts->pending = counts->accepted - counts->completed - counts->duplicates - counts->dead_lettered;
}

static inline void fake_counts(struct queue *base, struct queue_counts *counts)
{
    struct fake_queue *queue = fake(base);
    pthread_mutex_lock(&queue->lock);
    fake_counts_locked(queue, counts);
    pthread_mutex_unlock(&queue->lock);
}

/* ---- settling ---- */

static inline int fake_writer_open(struct queue *base, struct queue_writer **out)
{
    struct queue_writer *writer = calloc(1, sizeof *writer);
    writer->queue = fake(base);
    pthread_mutex_lock(&writer->queue->lock);
    writer->queue->writers++;
    pthread_mutex_unlock(&writer->queue->lock);
    *out = writer;
    return 0;
}

static inline void fake_turn_free(struct fake_turn *turn)
{
    for (size_t i = 0; turn && i < turn->count; i++) {
        free(turn->steps[i].topic);
        free(turn->steps[i].payload);
    }
    if (turn)
        free(turn->steps);
    free(turn);
}

static inline void fake_writer_close(struct queue_writer *writer)
{
    pthread_mutex_lock(&writer->queue->lock);
    writer->queue->writers--;
    pthread_mutex_unlock(&writer->queue->lock);
    fake_turn_free(writer->turn);
    free(writer);
}

static inline struct fake_step *fake_step(struct queue_writer *writer)
{
    if (!writer->turn)
        writer->turn = calloc(1, sizeof *writer->turn);
    struct fake_turn *turn = writer->turn;
    if (turn->count == turn->capacity) {
        turn->capacity = turn->capacity ? turn->capacity * 2 : 16;
        turn->steps = realloc(turn->steps, turn->capacity * sizeof *turn->steps);
    }
    struct fake_step *step = &turn->steps[turn->count++];
    memset(step, 0, sizeof *step);
    return step;
}

static inline int fake_result(struct queue_writer *writer, const struct message *message, const uint64_t *sources, size_t source_count)
{
    struct fake_step *step = fake_step(writer);
    step->topic = fake_text(message->topic, message->topic_length);
    step->payload = fake_text(message->payload, message->payload_length);
    step->withheld = message->flags & MESSAGE_WITHHELD;
    step->source_count = source_count;
    if (source_count)
        memcpy(step->sources, sources, source_count * sizeof *sources);
    return 0;
}

static inline int fake_dead_letter(struct queue_writer *writer, const struct queue_dead_letter *letter)
{
    struct fake_step *step = fake_step(writer);
    step->offset = letter->position.offset;
    step->outcome = QUEUE_DEAD_LETTERED;
    snprintf(step->reason, sizeof step->reason, "%s", letter->reason);
    snprintf(step->stage, sizeof step->stage, "%s", letter->stage);
    snprintf(step->error, sizeof step->error, "%s", letter->error);
    return 0;
}

static inline int fake_settle(struct queue_writer *writer, struct queue_position position, enum queue_outcome outcome)
{
    struct fake_step *step = fake_step(writer);
    step->offset = position.offset;
    step->outcome = outcome;
    return 0;
}

static inline int fake_commit(struct queue_writer *writer, void (*done)(void *token, int error), void *token)
{
    struct fake_queue *queue = writer->queue;
    struct fake_turn *turn = writer->turn;
    pthread_mutex_lock(&queue->lock);
    if (queue->commit_failures) {
        queue->commit_failures--;
        pthread_mutex_unlock(&queue->lock);
        return ERR_NO_MEMORY;
    }
    writer->turn = NULL;
    turn->done = done;
    turn->token = token;
    *queue->last = turn;
    queue->last = &turn->next;
    queue->turns_waiting++;
    pthread_cond_broadcast(&queue->turns);
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
    return 0;
}

static inline void fake_settle_locked(struct fake_queue *queue, uint64_t offset, enum queue_outcome outcome, const struct fake_step *step,
                                      uint64_t result)
{
    struct fake_message *message = &queue->messages[offset];
    if (message->outcome) {
        queue->double_settlements++;
        return;
    }
    message->outcome = outcome;
    message->result = result;
    memcpy(message->reason, step->reason, sizeof message->reason);
    memcpy(message->stage, step->stage, sizeof message->stage);
    memcpy(message->error, step->error, sizeof message->error);
    queue->outcomes[outcome]++;
}

static inline void fake_apply_locked(struct fake_queue *queue, struct fake_turn *turn)
{
    for (size_t i = 0; i < turn->count; i++) {
        struct fake_step *step = &turn->steps[i];
        uint64_t result = UINT64_MAX;
        if (step->topic) {
            result = queue->result_count++;
            queue->results[result] = (struct fake_result){step->topic, step->payload, step->source_count, step->withheld};
            step->topic = step->payload = NULL;
            for (size_t j = 0; j < step->source_count; j++)
                fake_settle_locked(queue, step->sources[j], QUEUE_COMPLETED, step, result);
        } else {
            fake_settle_locked(queue, step->offset, step->outcome, step, result);
        }
    }
    uint64_t pending = 0;
    if (queue->count < 2000)
        for (uint64_t i = 0; i < queue->count; i++)
            pending += queue->messages[i].outcome == 0;
    struct queue_counts counts;
    fake_counts_locked(queue, &counts);
    if (queue->count < 2000 && pending != counts.pending)
        queue->broken_equations++;
}

static inline void *fake_durable_main(void *argument)
{
    struct fake_queue *queue = argument;
    pthread_mutex_lock(&queue->lock);
    for (;;) {
        while (!queue->closing && (!queue->first || (queue->held && !queue->crashed)))
            pthread_cond_wait(&queue->turns, &queue->lock);
        struct fake_turn *turn = queue->first;
        if (!turn)
            break;
        queue->first = turn->next;
        if (!queue->first)
            queue->last = &queue->first;
        bool lost = queue->crashed;
        if (!lost)
            fake_apply_locked(queue, turn);
        pthread_mutex_unlock(&queue->lock);
        turn->done(turn->token, lost ? ERR_CLOSED : 0);
        fake_turn_free(turn);
        pthread_mutex_lock(&queue->lock);
        queue->turns_waiting--;
        pthread_cond_broadcast(&queue->changed);
    }
    pthread_mutex_unlock(&queue->lock);
    return NULL;
}

/* ---- what a test does ---- */

static inline void fake_open(struct fake_queue *queue)
{
    memset(queue, 0, sizeof *queue);
    queue->ops = (struct queue_ops){.name = "fake",
                                    .capabilities = QUEUE_REPLAY | QUEUE_ORDERED,
                                    .fetch = fake_fetch,
                                    .batch_free = fake_batch_free,
                                    .interrupt = fake_interrupt,
                                    .read_again = fake_read_again,
                                    .recent_results = fake_recent_results,
                                    .counts = fake_counts,
                                    .writer_open = fake_writer_open,
                                    .writer_close = fake_writer_close,
                                    .result = fake_result,
                                    .dead_letter = fake_dead_letter,
                                    .settle = fake_settle,
                                    .commit = fake_commit};
    queue->queue.ops = &queue->ops;
    queue->last = &queue->first;
    queue->messages = calloc(FAKE_MESSAGES_MAX, sizeof *queue->messages);
    queue->results = calloc(FAKE_MESSAGES_MAX, sizeof *queue->results);
    pthread_mutex_init(&queue->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue->more, &monotonic);
    pthread_cond_init(&queue->turns, &monotonic);
    pthread_cond_init(&queue->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_create(&queue->durable_thread, NULL, fake_durable_main, queue);
}

static inline void fake_close(struct fake_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->closing = true;
    queue->held = false;
    pthread_cond_broadcast(&queue->turns);
    pthread_mutex_unlock(&queue->lock);
    pthread_join(queue->durable_thread, NULL);
    for (uint64_t i = 0; i < queue->count; i++) {
        free(queue->messages[i].topic);
        free(queue->messages[i].payload);
    }
    for (uint64_t i = 0; i < queue->result_count; i++) {
        free(queue->results[i].topic);
        free(queue->results[i].payload);
    }
    free(queue->messages);
    free(queue->results);
    pthread_cond_destroy(&queue->more);
    pthread_cond_destroy(&queue->turns);
    pthread_cond_destroy(&queue->changed);
    pthread_mutex_destroy(&queue->lock);
}

/* Accepts a message that is durable at once; returns its offset. */
static inline uint64_t fake_accept_bytes(struct fake_queue *queue, const char *topic, const void *payload, size_t length)
{
    pthread_mutex_lock(&queue->lock);
    uint64_t offset = queue->count;
    queue->messages[queue->count++] = (struct fake_message){.topic = fake_text(topic, strlen(topic)),
                                                            .payload = fake_text(payload, length),
                                                            .payload_length = (uint32_t)length,
                                                            .time_ns = clock_wall_ns(),
                                                            .result = UINT64_MAX};
    pthread_cond_signal(&queue->more);
    pthread_mutex_unlock(&queue->lock);
    return offset;
}

static inline uint64_t fake_accept(struct fake_queue *queue, const char *topic, const char *payload)
{
    return fake_accept_bytes(queue, topic, payload, strlen(payload));
}

/* As after a restart: delivers again from the lowest offset without an outcome. No pipeline may be running. */
static inline void fake_reopen(struct fake_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->crashed = queue->interrupted = false;
    queue->recovered = queue->count;
    queue->read = 0;
    while (queue->read < queue->count && queue->messages[queue->read].outcome)
        queue->read++;
    pthread_mutex_unlock(&queue->lock);
}

/* From now on nothing more becomes durable. */
static inline void fake_crash(struct fake_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->crashed = true;
    pthread_cond_broadcast(&queue->turns);
    pthread_mutex_unlock(&queue->lock);
}

static inline void fake_hold(struct fake_queue *queue, bool held)
{
    pthread_mutex_lock(&queue->lock);
    queue->held = held;
    pthread_cond_broadcast(&queue->turns);
    pthread_mutex_unlock(&queue->lock);
}

/* Waits until at most `pending` messages are without an outcome. False when that takes too long. */
static inline bool fake_wait_pending(struct fake_queue *queue, uint64_t pending)
{
    uint64_t until_ns = clock_monotonic_ns() + FAKE_DEADLINE_S * 1000000000ull;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
    struct queue_counts counts;
    int late = 0;
    pthread_mutex_lock(&queue->lock);
    for (fake_counts_locked(queue, &counts); counts.pending > pending && !late; fake_counts_locked(queue, &counts))
        late = pthread_cond_timedwait(&queue->changed, &queue->lock, &until);
    pthread_mutex_unlock(&queue->lock);
    return counts.pending <= pending;
}

/* A copy of what is known of a message; its texts are the queue's. */
static inline struct fake_message fake_look(struct fake_queue *queue, uint64_t offset)
{
    pthread_mutex_lock(&queue->lock);
    struct fake_message message = queue->messages[offset];
    pthread_mutex_unlock(&queue->lock);
    return message;
}

#endif
