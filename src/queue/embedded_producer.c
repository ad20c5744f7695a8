/* Hands on to the journal; the journal's group is what was appended between two submits. */
#include "queue/embedded_producer.h"

#include <stdlib.h>

#include "queue/embedded_view.h"

_Static_assert((int)QUEUE_GATHERED_MIN <= (int)JOURNAL_CHUNK_SIZE, "a chunk holds what is promised to gather");

struct embedded_producer {
    struct queue_producer producer;
    struct journal_producer *journal;
    struct journal_stream *streams[3]; /* by destination */
};

static struct embedded_producer *embedded_of(struct queue_producer *producer)
{
    return (struct embedded_producer *)(void *)producer;
}

static const struct embedded_producer *embedded_of_const(const struct queue_producer *producer)
{
    return (const struct embedded_producer *)(const void *)producer;
}

static void producer_close(struct queue_producer *producer)
{
    struct embedded_producer *embedded = embedded_of(producer);
    journal_producer_close(embedded->journal);
    free(embedded);
}

static int producer_append(struct queue_producer *producer, enum queue_destination to, const struct message *message, uint64_t token)
{
    struct embedded_producer *embedded = embedded_of(producer);
    return journal_append(embedded->journal, embedded->streams[to], message, NULL, 0, token);
}

static int producer_append_from(struct queue_producer *producer, enum queue_destination to, const struct message *message,
                                const struct queue_origin *origin, uint64_t token)
{
    struct embedded_producer *embedded = embedded_of(producer);
    uint64_t words[EMBEDDED_ORIGIN_WORDS];
    embedded_origin_encode(origin, words);
    return journal_append(embedded->journal, embedded->streams[to], message, words, EMBEDDED_ORIGIN_WORDS, token);
}

static void producer_submit(struct queue_producer *producer)
{
    journal_submit(embedded_of(producer)->journal);
}

struct polling {
    void (*each)(void *context, const uint64_t *tokens, size_t count);
    void *context;
};

static void pass_on(void *context, const struct journal_batch *batch)
{
    const struct polling *polling = context;
    polling->each(polling->context, batch->tokens, batch->token_count);
}

static void producer_poll(struct queue_producer *producer, void (*each)(void *context, const uint64_t *tokens, size_t count), void *context)
{
    struct polling polling = {each, context};
    journal_producer_poll(embedded_of(producer)->journal, pass_on, &polling);
}

static size_t producer_backlog(const struct queue_producer *producer)
{
    return journal_producer_backlog(embedded_of_const(producer)->journal);
}

static size_t producer_gathered(const struct queue_producer *producer)
{
    return journal_producer_gathered(embedded_of_const(producer)->journal);
}

int embedded_producer_open(const struct queue_embedded_options *options, void (*notify)(void *context), void *context,
                           struct queue_producer **producer)
{
    static const struct queue_producer_ops ops = {
        .close = producer_close,
        .append = producer_append,
        .append_from = producer_append_from,
        .submit = producer_submit,
        .poll = producer_poll,
        .backlog = producer_backlog,
        .gathered = producer_gathered,
    };
    struct embedded_producer *embedded = malloc(sizeof *embedded);
    if (!embedded)
        return ERR_NO_MEMORY;
    *embedded = (struct embedded_producer){
        .producer.ops = &ops,
        .streams = {[QUEUE_CONSUMED] = options->ingest, [QUEUE_KEPT] = options->kept, [QUEUE_NOTED] = options->noted},
    };
    int error = journal_producer_open(options->journal, notify, context, &embedded->journal);
    if (error) {
        free(embedded);
        return error;
    }
    *producer = &embedded->producer;
    return 0;
}
