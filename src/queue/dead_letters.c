#include "queue/dead_letters.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "queue/embedded.h"
#include "queue/marks.h"

/* One producer for the consumed stream, one for the outcomes: they belong to different scribes. */
enum part { PART_MESSAGES, PART_MARKS, PART_COUNT };

struct dead_letters {
    struct queue *queue;
    const struct queue_embedded_options *streams;
    struct journal_producer *producers[PART_COUNT];
    pthread_mutex_t lock;
    pthread_cond_t written;
    uint64_t requeued[DEAD_LETTERS_TURN_MAX], purged[DEAD_LETTERS_TURN_MAX]; /* of the turn */
    size_t requeued_count, purged_count, bytes;
    struct buffer properties;
};

static void on_durable(void *context)
{
    struct dead_letters *letters = context;
    pthread_mutex_lock(&letters->lock);
    pthread_cond_broadcast(&letters->written);
    pthread_mutex_unlock(&letters->lock);
}

int dead_letters_open(struct dead_letters **out, struct queue *queue)
{
    struct dead_letters *letters = calloc(1, sizeof *letters);
    if (!letters)
        return ERR_NO_MEMORY;
    letters->queue = queue;
    letters->streams = queue_embedded_options(queue);
    buffer_init(&letters->properties, FORMAT_RECORD_SIZE_MAX);
    pthread_mutex_init(&letters->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&letters->written, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int error = 0;
    for (unsigned i = 0; i < PART_COUNT && !error; i++)
        error = journal_producer_open(letters->streams->journal, on_durable, letters, &letters->producers[i]);
    if (error) {
        dead_letters_close(letters);
        return error;
    }
    *out = letters;
    return 0;
}

void dead_letters_close(struct dead_letters *letters)
{
    if (!letters)
        return;
    for (unsigned i = 0; i < PART_COUNT; i++)
        journal_producer_close(letters->producers[i]);
    buffer_fini(&letters->properties);
    pthread_cond_destroy(&letters->written);
    pthread_mutex_destroy(&letters->lock);
    free(letters);
}

static bool is_written(const struct dead_letters *letters)
{
    return !journal_producer_backlog(letters->producers[PART_MESSAGES]) && !journal_producer_backlog(letters->producers[PART_MARKS]);
}

/* What is durable is marked in memory at once: nobody puts it back again before the consumer has come to it. */
static int take_written(struct dead_letters *letters)
{
    struct marks *marks = queue_embedded_marks(letters->queue);
    int error = 0;
    for (size_t i = 0; i < letters->requeued_count; i++) {
        int set = marks_set(marks, letters->requeued[i], LEDGER_MARK_REQUEUED);
        error = set < 0 ? set : error;
    }
    letters->requeued_count = letters->purged_count = letters->bytes = 0;
    return error;
}

static void ignore(void *context, const struct journal_batch *batch)
{
    (void)context;
    (void)batch;
}

int dead_letters_ready(struct dead_letters *letters)
{
    if (!is_written(letters) || !queue_embedded_has_read_again(letters->queue))
        return ERR_BUSY;
    return take_written(letters); /* of a turn that was late */
}

bool dead_letters_is_open(struct dead_letters *letters, uint64_t offset)
{
    return !marks_is_set(queue_embedded_marks(letters->queue), offset);
}

int dead_letters_requeue(struct dead_letters *letters, const struct message *record)
{
    struct dead_letter letter;
    const uint8_t *own;
    uint32_t own_length;
    if (dead_letters_turn_is_full(letters))
        return ERR_LIMIT;
    if (dead_letter_decode(record, &letter)) /* why it was given up is lost; the message is not */
        letter = (struct dead_letter){.reason = "internal", .attempts = 1};
    letter.attempts++;
    letter.place = record->offset;
    dead_letter_own_properties(record, &own, &own_length);
    buffer_clear(&letters->properties);
    int error = dead_letter_encode(&letter, own, own_length, &letters->properties);
    struct message message = *record;
    message.time_ns = clock_wall_ns();
    message.properties = letters->properties.data;
    message.properties_length = (uint32_t)letters->properties.length;
    message.flags |= MESSAGE_REQUEUED;
    if (!error)
        error = journal_append(letters->producers[PART_MESSAGES], letters->streams->ingest, &message, NULL, 0, 0);
    if (error)
        return error;
    letters->requeued[letters->requeued_count++] = record->offset;
    letters->bytes += (size_t)message.topic_length + message.properties_length + message.payload_length;
    return 0;
}

int dead_letters_purge(struct dead_letters *letters, uint64_t offset)
{
    if (dead_letters_turn_is_full(letters))
        return ERR_LIMIT;
    letters->purged[letters->purged_count++] = offset;
    return 0;
}

bool dead_letters_turn_is_full(const struct dead_letters *letters)
{
    return letters->requeued_count == DEAD_LETTERS_TURN_MAX || letters->purged_count == DEAD_LETTERS_TURN_MAX ||
           letters->bytes >= DEAD_LETTERS_TURN_BYTES;
}

static bool wait_written(struct dead_letters *letters, unsigned timeout_ms)
{
    uint64_t deadline_ns = clock_monotonic_ns() + timeout_ms * UINT64_C(1000000);
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / 1000000000u), .tv_nsec = (long)(deadline_ns % 1000000000u)};
    pthread_mutex_lock(&letters->lock);
    while (!is_written(letters) && pthread_cond_timedwait(&letters->written, &letters->lock, &deadline) != ETIMEDOUT)
        continue;
    pthread_mutex_unlock(&letters->lock);
    for (unsigned i = 0; i < PART_COUNT; i++)
        journal_producer_poll(letters->producers[i], ignore, NULL);
    return is_written(letters);
}

int dead_letters_commit(struct dead_letters *letters, unsigned timeout_ms)
{
    int error = 0;
    if (letters->purged_count)
        error = marks_append(letters->producers[PART_MARKS], letters->streams->outcomes, letters->purged, letters->purged_count,
                             LEDGER_MARK_PURGED);
    for (unsigned i = 0; i < PART_COUNT; i++)
        journal_submit(letters->producers[i]);
    if (error)
        return error;
    return wait_written(letters, timeout_ms) ? take_written(letters) : ERR_BUSY;
}
