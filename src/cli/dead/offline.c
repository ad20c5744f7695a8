#include "cli/dead/offline.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/journal/tool.h"
#include "journal/journal.h"
#include "queue/embedded.h"

enum { OFFLINE_SEGMENT_SIZE = 16 << 20, OFFLINE_FETCH_BYTES = 1 << 20, OFFLINE_STREAMS = 5 };

struct dead_offline {
    struct journal *journal;
    struct journal_stream *streams[OFFLINE_STREAMS]; /* as tool_streams */
    struct queue *queue;
    struct dead_letters *letters;
};

/* Nothing is removed: how much is to be kept is the server's to know. */
static int open_streams(struct dead_offline *offline)
{
    int error = 0;
    for (unsigned i = 0; i < OFFLINE_STREAMS && !error; i++) {
        struct journal_stream_options stream = {.name = tool_streams[i], .scribe = i >= 2};
        error = journal_stream_add(offline->journal, &stream, &offline->streams[i]);
    }
    return error;
}

/* Reads what is pending, as a consumer does at a start; requeued messages are marked by that. Nothing is settled. */
static int read_again(struct queue *queue)
{
    size_t count;
    do {
        struct queue_batch *batch;
        int error = queue->ops->fetch(queue, OFFLINE_FETCH_BYTES, 0, &batch);
        if (error)
            return error;
        count = batch->count;
        queue_batch_release(batch);
    } while (count);
    return 0;
}

int dead_offline_open(struct dead_offline **out, const char *data_dir)
{
    struct dead_offline *offline = calloc(1, sizeof *offline);
    if (!offline)
        return ERR_NO_MEMORY;
    struct journal_options options = {
        .disk = disk_posix(), .folder = data_dir, .segment_size = OFFLINE_SEGMENT_SIZE, .durability = JOURNAL_DURABLE_DISK};
    int error = journal_open(&offline->journal, &options);
    if (!error)
        error = open_streams(offline);
    struct queue_embedded_options queue = {
        .journal = offline->journal,
        .data_folder = data_dir,
        .ingest = offline->streams[0],
        .results = offline->streams[2],
        .dead_letters = offline->streams[3],
        .outcomes = offline->streams[4],
    };
    if (!error)
        error = queue_embedded_open(&offline->queue, &queue);
    if (!error)
        error = journal_start(offline->journal);
    if (!error)
        error = read_again(offline->queue);
    if (!error)
        error = dead_letters_open(&offline->letters, offline->queue);
    if (error) {
        dead_offline_close(offline);
        return error;
    }
    *out = offline;
    return 0;
}

struct queue *dead_offline_queue(struct dead_offline *offline)
{
    return offline->queue;
}

struct dead_letters *dead_offline_letters(struct dead_offline *offline)
{
    return offline->letters;
}

int dead_offline_close(struct dead_offline *offline)
{
    if (!offline)
        return 0;
    int error = offline->letters ? read_again(offline->queue) : 0;
    dead_letters_close(offline->letters);
    if (offline->journal)
        journal_stop(offline->journal);
    if (offline->queue)
        offline->queue->ops->close(offline->queue);
    journal_close(offline->journal);
    free(offline);
    return error;
}
