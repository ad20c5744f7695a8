/* Producers, the group thread and the keeper thread. The files are stream.c's. */
#include "journal/journal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "journal/stream.h"

enum { CHUNK_SIZE = 1 << 20, CHUNK_FREE_MAX = 16, PARTS_MAX = 1024, STALL_RETRY_MS = 100, STALL_SAY_INTERVAL_S = 60 };

/* A stretch of a chunk whose records all belong to one stream. */
struct chunk_run {
    struct journal_stream *stream;
    size_t start, bytes;
    size_t records;
};

struct journal_chunk {
    struct journal_chunk *next;
    struct journal_producer *producer;
    uint8_t *bytes;
    size_t length, capacity;
    uint64_t *tokens;
    size_t token_count, token_capacity;
    struct chunk_run *runs;
    size_t run_count, run_capacity;
    unsigned release_after; /* journal thread: index of the stream after which it may be told durable */
};

struct chunk_list {
    struct journal_chunk *first, *last;
    size_t count;
};

struct journal_producer {
    struct journal *journal;
    struct journal_producer *next;
    void (*notify)(void *context);
    void *context;
    struct journal_chunk *open; /* owner's */
    pthread_mutex_t lock;
    pthread_cond_t drained;
    unsigned waiting;
    struct chunk_list idle;    /* under lock: chunks to use again */
    struct chunk_list durable; /* under lock */
    _Atomic size_t backlog;
    bool touched; /* under lock: the journal thread is about to tell it */
    struct journal_producer *touched_next;
    unsigned release_after; /* journal thread: of its newest chunk in the group */
};

struct journal {
    struct journal_options options;
    char folder[JOURNAL_PATH_MAX];
    int lock_handle;
    struct journal_stream *streams[JOURNAL_STREAMS_MAX];
    unsigned stream_count;

    pthread_mutex_t lock;
    pthread_cond_t arrived;
    struct chunk_list submitted;
    struct chunk_list group; /* the group thread's: what it writes, at first what was submitted before the start */
    bool sleeping, stopping, started;

    pthread_mutex_t keeper_lock;
    pthread_cond_t keeper_wake;
    bool keeper_wanted, keeper_stop;

    pthread_t thread, keeper;
    struct iovec *parts; /* [PARTS_MAX] */
    _Atomic uint64_t group_count, byte_count;
    atomic_bool stalled, abandoned;
    uint64_t stalled_ns, stall_said_ns; /* journal thread, monotonic: since when; when that was said last (0: never) */
    bool stall_told;                    /* journal thread: this stall was said */
    struct histogram sync;
};

/* ---- chunks ---- */

static void list_push(struct chunk_list *list, struct journal_chunk *chunk)
{
    chunk->next = NULL;
    if (list->last)
        list->last->next = chunk;
    else
        list->first = chunk;
    list->last = chunk;
    list->count++;
}

static struct journal_chunk *list_pop(struct chunk_list *list)
{
    struct journal_chunk *chunk = list->first;
    if (chunk) {
        list->first = chunk->next;
        if (!list->first)
            list->last = NULL;
        list->count--;
    }
    return chunk;
}

static void chunk_destroy(struct journal_chunk *chunk)
{
    if (!chunk)
        return;
    free(chunk->bytes);
    free(chunk->tokens);
    free(chunk->runs);
    free(chunk);
}

static void list_destroy(struct chunk_list *list)
{
    struct journal_chunk *chunk;
    while ((chunk = list_pop(list)))
        chunk_destroy(chunk);
}

static struct journal_chunk *chunk_create(struct journal_producer *producer, size_t capacity)
{
    struct journal_chunk *chunk = calloc(1, sizeof *chunk);
    if (!chunk)
        return NULL;
    chunk->producer = producer;
    chunk->capacity = capacity;
    chunk->bytes = aligned_alloc(64, (capacity + 63) & ~(size_t)63);
    if (!chunk->bytes) {
        free(chunk);
        return NULL;
    }
    return chunk;
}

static struct journal_chunk *chunk_take(struct journal_producer *producer, size_t bytes)
{
    if (bytes > CHUNK_SIZE)
        return chunk_create(producer, bytes);
    pthread_mutex_lock(&producer->lock);
    struct journal_chunk *chunk = list_pop(&producer->idle);
    pthread_mutex_unlock(&producer->lock);
    return chunk ? chunk : chunk_create(producer, CHUNK_SIZE);
}

static void chunk_give_back(struct journal_producer *producer, struct journal_chunk *chunk)
{
    chunk->length = chunk->token_count = chunk->run_count = 0;
    pthread_mutex_lock(&producer->lock);
    bool keep = chunk->capacity == CHUNK_SIZE && producer->idle.count < CHUNK_FREE_MAX;
    if (keep)
        list_push(&producer->idle, chunk);
    pthread_mutex_unlock(&producer->lock);
    if (!keep)
        chunk_destroy(chunk);
}

static int chunk_reserve_token(struct journal_chunk *chunk)
{
    if (chunk->token_count < chunk->token_capacity)
        return 0;
    size_t capacity = chunk->token_capacity ? chunk->token_capacity * 2 : 64;
    uint64_t *tokens = realloc(chunk->tokens, capacity * sizeof *tokens);
    if (!tokens)
        return ERR_NO_MEMORY;
    chunk->tokens = tokens;
    chunk->token_capacity = capacity;
    return 0;
}

static int chunk_reserve_run(struct journal_chunk *chunk, struct journal_stream *stream)
{
    if (chunk->run_count && chunk->runs[chunk->run_count - 1].stream == stream)
        return 0;
    if (chunk->run_count == chunk->run_capacity) {
        size_t capacity = chunk->run_capacity ? chunk->run_capacity * 2 : 4;
        struct chunk_run *runs = realloc(chunk->runs, capacity * sizeof *runs);
        if (!runs)
            return ERR_NO_MEMORY;
        chunk->runs = runs;
        chunk->run_capacity = capacity;
    }
    chunk->runs[chunk->run_count++] = (struct chunk_run){.stream = stream, .start = chunk->length};
    return 0;
}

/* ---- producers ---- */

int journal_producer_open(struct journal *journal, void (*notify)(void *context), void *context, struct journal_producer **out)
{
    struct journal_producer *producer = calloc(1, sizeof *producer);
    if (!producer)
        return ERR_NO_MEMORY;
    producer->journal = journal;
    producer->notify = notify;
    producer->context = context;
    pthread_mutex_init(&producer->lock, NULL);
    pthread_cond_init(&producer->drained, NULL);
    *out = producer;
    return 0;
}

void journal_producer_close(struct journal_producer *producer)
{
    if (!producer)
        return;
    pthread_mutex_lock(&producer->lock);
    producer->waiting++;
    while (producer->journal->started && (producer->touched || atomic_load(&producer->backlog)))
        pthread_cond_wait(&producer->drained, &producer->lock);
    pthread_mutex_unlock(&producer->lock);
    chunk_destroy(producer->open);
    list_destroy(&producer->idle);
    list_destroy(&producer->durable);
    pthread_cond_destroy(&producer->drained);
    pthread_mutex_destroy(&producer->lock);
    free(producer);
}

int journal_append(struct journal_producer *producer, struct journal_stream *stream, const struct message *message, const uint64_t *sources,
                   size_t source_count, uint64_t token)
{
    size_t size = format_record_size(message, source_count);
    if (size > FORMAT_RECORD_SIZE_MAX || message->topic_length > FORMAT_TOPIC_MAX || source_count > FORMAT_SOURCES_MAX)
        return ERR_LIMIT;
    struct journal_chunk *chunk = producer->open;
    if (chunk && chunk->capacity - chunk->length < size) {
        journal_submit(producer);
        chunk = NULL;
    }
    if (!chunk) {
        chunk = chunk_take(producer, size);
        if (!chunk)
            return ERR_NO_MEMORY;
        producer->open = chunk;
    }
    if (token && chunk_reserve_token(chunk))
        return ERR_NO_MEMORY;
    if (chunk_reserve_run(chunk, stream))
        return ERR_NO_MEMORY;
    format_record_encode(chunk->bytes + chunk->length, message, sources, source_count);
    struct chunk_run *run = &chunk->runs[chunk->run_count - 1];
    run->bytes += size;
    run->records++;
    chunk->length += size;
    if (token)
        chunk->tokens[chunk->token_count++] = token;
    return 0;
}

void journal_submit(struct journal_producer *producer)
{
    struct journal_chunk *chunk = producer->open;
    if (!chunk || chunk->length == 0)
        return;
    producer->open = NULL;
    atomic_fetch_add_explicit(&producer->backlog, chunk->length, memory_order_relaxed);
    struct journal *journal = producer->journal;
    pthread_mutex_lock(&journal->lock);
    list_push(&journal->submitted, chunk);
    bool wake = journal->sleeping;
    journal->sleeping = false;
    pthread_mutex_unlock(&journal->lock);
    if (wake)
        pthread_cond_signal(&journal->arrived);
}

void journal_producer_poll(struct journal_producer *producer, void (*each)(void *context, const struct journal_batch *batch), void *context)
{
    pthread_mutex_lock(&producer->lock);
    struct chunk_list list = producer->durable;
    producer->durable = (struct chunk_list){0};
    pthread_mutex_unlock(&producer->lock);
    struct journal_chunk *chunk;
    while ((chunk = list_pop(&list))) {
        struct journal_batch batch = {.tokens = chunk->tokens, .token_count = chunk->token_count};
        each(context, &batch);
        chunk_give_back(producer, chunk);
    }
}

size_t journal_producer_backlog(const struct journal_producer *producer)
{
    return atomic_load_explicit(&producer->backlog, memory_order_relaxed);
}

size_t journal_producer_gathered(const struct journal_producer *producer)
{
    return producer->open ? producer->open->length : 0;
}

void journal_producer_wait(struct journal_producer *producer, size_t bytes)
{
    pthread_mutex_lock(&producer->lock);
    producer->waiting++;
    while (atomic_load(&producer->backlog) > bytes)
        pthread_cond_wait(&producer->drained, &producer->lock);
    producer->waiting--;
    pthread_mutex_unlock(&producer->lock);
}

/* ---- the group thread ---- */

static void stop_process(struct journal *journal, const char *text)
{
    if (journal->options.fatal)
        journal->options.fatal(text);
    diagnostics(DIAGNOSTICS_ERROR, "journal", "%s", text);
    abort();
}

static void fatal(struct journal *journal, const char *what, const struct journal_stream *stream, const char *reason)
{
    char text[JOURNAL_PATH_MAX + 512];
    snprintf(text, sizeof text,
             "%s of stream %s in %s failed: %s. Nothing that was not acknowledged may be believed any more, so the process stops; start it "
             "again "
             "when the disk is well, it will read what is really there",
             what, stream->name, stream->folder, reason);
    stop_process(journal, text);
}

/* What was just written is durable, but of use only where the next start looks for it. Where that cannot be told (no memory, no rights) the
 * next group looks again. */
static void check_in_place(struct journal *journal, const struct journal_stream *stream)
{
    if (stream->disk->ops->check_name(stream->disk, stream->path, stream->file) != -ESTALE)
        return;
    char text[2 * JOURNAL_PATH_MAX];
    snprintf(text, sizeof text,
             "stream %s: %s was deleted, moved or replaced while it was in use. What was written to it last is not acknowledged, and the "
             "process stops. Put the data folder back as it was and start again; what is missing in it then is lost",
             stream->name, stream->path);
    stop_process(journal, text);
}

/* Waits a little for a full disk to have space again. False when waiting is to end. A disk at its limit stops and goes on many times a
 * second; that is said once a minute. */
static bool stall(struct journal *journal, const struct journal_stream *stream, int error)
{
    uint64_t now_ns = clock_monotonic_ns();
    if (!atomic_exchange(&journal->stalled, true)) {
        journal->stalled_ns = now_ns;
        journal->stall_told = false;
    }
    if (!journal->stall_said_ns || now_ns - journal->stall_said_ns >= STALL_SAY_INTERVAL_S * 1000000000ull) {
        char lasting[64] = "";
        if (now_ns - journal->stalled_ns >= 1000000000u)
            snprintf(lasting, sizeof lasting, ", for %" PRIu64 " s now", (now_ns - journal->stalled_ns) / 1000000000u);
        diagnostics(DIAGNOSTICS_ERROR, "journal",
                    "stream %s: cannot write to %s: %s%s. Nothing is lost: acknowledgements wait, senders are held back, and what is on "
                    "disk is served. It goes on by itself when there is space; free some",
                    stream->name, stream->folder, error_text(error), lasting);
        journal->stall_said_ns = now_ns;
        journal->stall_told = true;
    }
    struct timespec pause = {.tv_nsec = STALL_RETRY_MS * 1000000L};
    if (!journal->options.stepped)
        nanosleep(&pause, NULL);
    return !atomic_load(&journal->abandoned);
}

static void end_stall(struct journal *journal)
{
    if (!atomic_exchange(&journal->stalled, false) || !journal->stall_told)
        return;
    diagnostics(DIAGNOSTICS_INFO, "journal", "writing goes on after %.1f s", (double)(clock_monotonic_ns() - journal->stalled_ns) / 1e9);
}

static bool write_parts(struct journal *journal, struct journal_stream *stream, struct iovec *parts, size_t count, uint64_t *position)
{
    size_t first = 0;
    while (first < count) {
        ssize_t written = stream->disk->ops->write(stream->disk, stream->file, parts + first, (int)(count - first), *position);
        if (written <= 0) {
            int error = error_from_errno(written < 0 ? (int)-written : ENOSPC);
            if (error_class(error) != ERROR_CLASS_RETRY)
                fatal(journal, "a write", stream, strerror((int)-written));
            if (!stall(journal, stream, error))
                return false;
            continue;
        }
        *position += (uint64_t)written;
        size_t left = (size_t)written;
        while (left && left >= parts[first].iov_len)
            left -= parts[first++].iov_len;
        if (left) {
            parts[first].iov_base = (char *)parts[first].iov_base + left;
            parts[first].iov_len -= left;
        }
    }
    return true;
}

enum commit { COMMIT_NOTHING, COMMIT_DONE, COMMIT_ABANDONED };

/* Writes and syncs what the group's chunks hold for one stream. */
static enum commit commit_stream(struct journal *journal, struct journal_stream *stream, const struct chunk_list *group, bool *care)
{
    uint64_t bytes = 0;
    for (const struct journal_chunk *chunk = group->first; chunk; chunk = chunk->next)
        for (size_t i = 0; i < chunk->run_count; i++)
            if (chunk->runs[i].stream == stream)
                bytes += chunk->runs[i].bytes;
    if (bytes == 0)
        return COMMIT_NOTHING;
    int error;
    while ((error = stream_make_room(stream, bytes))) {
        if (error_class(error) != ERROR_CLASS_RETRY)
            fatal(journal, "a new segment", stream, error_text(error));
        if (!stall(journal, stream, error))
            return COMMIT_ABANDONED;
    }
    *care = stream_claim(stream, bytes) || *care;
    uint64_t position = stream->position, offset = stream->next_offset;
    bool group_start = true;
    size_t part_count = 0;
    for (struct journal_chunk *chunk = group->first; chunk; chunk = chunk->next) {
        for (size_t i = 0; i < chunk->run_count; i++) {
            const struct chunk_run *run = &chunk->runs[i];
            if (run->stream != stream)
                continue;
            uint8_t *record = chunk->bytes + run->start, *end = record + run->bytes;
            while (record < end) {
                record += format_record_seal(record, offset++, stream->salt, group_start);
                group_start = false;
            }
            journal->parts[part_count++] = (struct iovec){chunk->bytes + run->start, run->bytes};
            if (part_count == PARTS_MAX) {
                if (!write_parts(journal, stream, journal->parts, part_count, &position))
                    return COMMIT_ABANDONED;
                part_count = 0;
            }
        }
    }
    if (!write_parts(journal, stream, journal->parts, part_count, &position))
        return COMMIT_ABANDONED;
    if (journal->options.durability == JOURNAL_DURABLE_DISK) {
        int failed;
        while ((failed = stream->disk->ops->sync(stream->disk, stream->file)) == -EINTR) {
        }
        if (failed)
            fatal(journal, "a sync", stream, strerror(-failed));
    }
    check_in_place(journal, stream);
    assert(position == stream->position + bytes);
    stream->position = position;
    stream->next_offset = offset;
    atomic_store_explicit(&stream->durable, offset, memory_order_release);
    atomic_fetch_add_explicit(&journal->byte_count, bytes, memory_order_relaxed);
    return COMMIT_DONE;
}

/* Hands the chunks back to their producers and tells each producer once. */
static void release_group(struct chunk_list *group)
{
    struct journal_producer *touched = NULL;
    struct journal_chunk *chunk;
    while ((chunk = list_pop(group))) {
        struct journal_producer *producer = chunk->producer;
        pthread_mutex_lock(&producer->lock);
        list_push(&producer->durable, chunk);
        atomic_fetch_sub(&producer->backlog, chunk->length);
        if (!producer->touched) {
            producer->touched = true;
            producer->touched_next = touched;
            touched = producer;
        }
        if (producer->waiting)
            pthread_cond_broadcast(&producer->drained);
        pthread_mutex_unlock(&producer->lock);
    }
    while (touched) {
        struct journal_producer *producer = touched;
        touched = producer->touched_next;
        producer->notify(producer->context);
        pthread_mutex_lock(&producer->lock);
        producer->touched = false;
        if (producer->waiting)
            pthread_cond_broadcast(&producer->drained);
        pthread_mutex_unlock(&producer->lock); /* its owner may close it from here on */
    }
}

/* Throws the chunks away, telling nobody. */
static void discard_group(struct chunk_list *group)
{
    struct journal_chunk *chunk;
    while ((chunk = list_pop(group))) {
        struct journal_producer *producer = chunk->producer;
        pthread_mutex_lock(&producer->lock);
        atomic_fetch_sub(&producer->backlog, chunk->length);
        if (producer->waiting)
            pthread_cond_broadcast(&producer->drained);
        pthread_mutex_unlock(&producer->lock);
        chunk_destroy(chunk);
    }
}

/* Shows the group's records of one stream to whoever watches it. */
static void show_records(const struct journal_stream *stream, const struct chunk_list *group)
{
    for (const struct journal_chunk *chunk = group->first; chunk; chunk = chunk->next) {
        for (size_t i = 0; i < chunk->run_count; i++) {
            const struct chunk_run *run = &chunk->runs[i];
            if (run->stream != stream)
                continue;
            const uint8_t *record = chunk->bytes + run->start, *end = record + run->bytes;
            for (; record < end; record += format_record_length(record)) {
                struct message message;
                format_record_decode(record, &message);
                stream->on_record(stream->on_record_context, &message);
            }
        }
    }
}

static void wake_keeper(struct journal *journal)
{
    pthread_mutex_lock(&journal->keeper_lock);
    journal->keeper_wanted = true;
    pthread_cond_signal(&journal->keeper_wake);
    pthread_mutex_unlock(&journal->keeper_lock);
}

/* Finds out for each chunk after which stream it may be told durable. */
static void plan_release(const struct chunk_list *group)
{
    for (const struct journal_chunk *chunk = group->first; chunk; chunk = chunk->next)
        chunk->producer->release_after = 0;
    for (struct journal_chunk *chunk = group->first; chunk; chunk = chunk->next) {
        unsigned *after = &chunk->producer->release_after;
        for (size_t i = 0; i < chunk->run_count; i++)
            if (chunk->runs[i].stream->index > *after)
                *after = chunk->runs[i].stream->index;
        chunk->release_after = *after;
    }
}

/* Tells the producers of those chunks that had to wait for the stream with this index and for none behind it. */
static void release_after(struct chunk_list *group, unsigned index)
{
    struct chunk_list ready = {0}, rest = {0};
    struct journal_chunk *chunk;
    while ((chunk = list_pop(group)))
        list_push(chunk->release_after <= index ? &ready : &rest, chunk);
    *group = rest;
    release_group(&ready);
}

static void commit_group(struct journal *journal)
{
    struct chunk_list *group = &journal->group;
    uint64_t started = clock_monotonic_ns();
    bool care = false;
    plan_release(group);
    for (unsigned i = 0; i < journal->stream_count && group->first; i++) {
        struct journal_stream *stream = journal->streams[i];
        enum commit done = atomic_load(&journal->abandoned) ? COMMIT_ABANDONED : commit_stream(journal, stream, group, &care);
        if (done == COMMIT_ABANDONED) {
            discard_group(group);
            return;
        }
        if (done == COMMIT_NOTHING)
            continue;
        if (stream->on_record)
            show_records(stream, group);
        release_after(group, i);
        if (stream->notify)
            stream->notify(stream->notify_context);
    }
    histogram_record(&journal->sync, clock_monotonic_ns() - started);
    atomic_fetch_add_explicit(&journal->group_count, 1, memory_order_relaxed);
    end_stall(journal);
    if (care)
        wake_keeper(journal);
}

/* Makes a group of what has arrived; `wait`: until something has, or the journal stops. Whether there is one. */
static bool gather_group(struct journal *journal, bool wait)
{
    struct chunk_list *group = &journal->group;
    if (group->first)
        return true; /* what was sent off before the start */
    size_t bytes = 0;
    pthread_mutex_lock(&journal->lock);
    while (wait && !journal->submitted.first && !journal->stopping) {
        journal->sleeping = true;
        pthread_cond_wait(&journal->arrived, &journal->lock);
    }
    journal->sleeping = false;
    while (journal->submitted.first && (bytes == 0 || bytes + journal->submitted.first->length <= journal->options.group_bytes_max)) {
        struct journal_chunk *chunk = list_pop(&journal->submitted);
        bytes += chunk->length;
        list_push(group, chunk);
    }
    pthread_mutex_unlock(&journal->lock);
    return group->first;
}

static void *group_thread(void *context)
{
    struct journal *journal = context;
    while (gather_group(journal, true))
        commit_group(journal);
    return NULL;
}

bool journal_step_group(struct journal *journal)
{
    bool any = gather_group(journal, false);
    if (any)
        commit_group(journal);
    return any;
}

bool journal_step_keeper(struct journal *journal)
{
    bool worked = false;
    for (unsigned i = 0; i < journal->stream_count; i++)
        worked = stream_keep(journal->streams[i]) || worked;
    return worked;
}

static void *keeper_thread(void *context)
{
    struct journal *journal = context;
    for (;;) {
        bool worked = journal_step_keeper(journal);
        pthread_mutex_lock(&journal->keeper_lock);
        while (!worked && !journal->keeper_wanted && !journal->keeper_stop)
            pthread_cond_wait(&journal->keeper_wake, &journal->keeper_lock);
        journal->keeper_wanted = false;
        bool stop = journal->keeper_stop;
        pthread_mutex_unlock(&journal->keeper_lock);
        if (stop)
            return NULL;
    }
}

/* ---- open and close ---- */

/* Makes the name of the folder durable: with it all that is in it would be lost. A parent that we may not open is none in which we have
 * made it. */
static int sync_parent(struct disk *disk, const char *folder)
{
    char parent[JOURNAL_PATH_MAX];
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    while (length > 0 && folder[length - 1] != '/')
        length--;
    while (length > 1 && folder[length - 1] == '/')
        length--;
    snprintf(parent, sizeof parent, "%.*s", length ? (int)length : 1, length ? folder : ".");
    int failed = disk->ops->sync_folder(disk, parent);
    int error = failed ? error_from_errno(-failed) : 0;
    return error == ERR_PERMISSION ? 0 : error;
}

int journal_open(struct journal **out, const struct journal_options *options)
{
    struct journal *journal = calloc(1, sizeof *journal);
    struct iovec *parts = calloc(PARTS_MAX, sizeof *parts);
    if (!journal || !parts) {
        free(journal);
        free(parts);
        return ERR_NO_MEMORY;
    }
    journal->options = *options;
    if (options->group_bytes_max == 0)
        journal->options.group_bytes_max = JOURNAL_GROUP_BYTES_MAX;
    journal->parts = parts;
    journal->lock_handle = -1;
    pthread_mutex_init(&journal->lock, NULL);
    pthread_cond_init(&journal->arrived, NULL);
    pthread_mutex_init(&journal->keeper_lock, NULL);
    pthread_cond_init(&journal->keeper_wake, NULL);
    int error = 0;
    if ((size_t)snprintf(journal->folder, sizeof journal->folder, "%s", options->folder) >=
        sizeof journal->folder - FORMAT_STREAM_NAME_MAX - 1)
        error = ERR_INVALID;
    if (!error) {
        int failed = options->disk->ops->make_folder(options->disk, options->folder);
        error = failed ? error_from_errno(-failed) : sync_parent(options->disk, options->folder);
    }
    if (!error) {
        journal->lock_handle = options->disk->ops->lock(options->disk, options->folder);
        if (journal->lock_handle < 0)
            error = journal->lock_handle == -EWOULDBLOCK ? ERR_BUSY : error_from_errno(-journal->lock_handle);
    }
    if (error) {
        journal_close(journal);
        return error;
    }
    *out = journal;
    return 0;
}

int journal_stream_add(struct journal *journal, const struct journal_stream_options *options, struct journal_stream **out)
{
    assert(!journal->started);
    if (journal->stream_count == JOURNAL_STREAMS_MAX)
        return ERR_LIMIT;
    struct journal_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return ERR_NO_MEMORY;
    stream->disk = journal->options.disk;
    stream->segment_size = options->segment_size ? options->segment_size : journal->options.segment_size;
    stream->retention_size = options->retention_size;
    stream->guarded = options->guarded;
    stream->index = journal->stream_count;
    stream->file = stream->next_file = -1;
    snprintf(stream->name, sizeof stream->name, "%s", options->name);
    int length = snprintf(stream->folder, sizeof stream->folder, "%s/%s", journal->folder, options->name);
    int error = length < 0 || (size_t)length >= sizeof stream->folder ? ERR_INVALID : stream_open(stream);
    if (error) {
        stream_close(stream);
        free(stream);
        return error;
    }
    journal->streams[journal->stream_count++] = stream;
    *out = stream;
    return 0;
}

int journal_start(struct journal *journal)
{
    int failed = journal->options.disk->ops->sync_folder(journal->options.disk, journal->folder); /* the names of the streams' folders */
    if (failed)
        return error_from_errno(-failed);
    journal->group = journal->submitted;
    journal->submitted = (struct chunk_list){0};
    if (journal->options.stepped)
        return 0;
    if (pthread_create(&journal->thread, NULL, group_thread, journal))
        return ERR_NO_MEMORY;
    if (pthread_create(&journal->keeper, NULL, keeper_thread, journal)) {
        pthread_mutex_lock(&journal->lock);
        journal->stopping = true;
        pthread_cond_signal(&journal->arrived);
        pthread_mutex_unlock(&journal->lock);
        pthread_join(journal->thread, NULL);
        return ERR_NO_MEMORY;
    }
    journal->started = true;
    return 0;
}

void journal_abandon(struct journal *journal)
{
    atomic_store(&journal->abandoned, true);
}

void journal_stop(struct journal *journal)
{
    if (!journal->started)
        return;
    pthread_mutex_lock(&journal->lock);
    journal->stopping = true;
    pthread_cond_signal(&journal->arrived);
    pthread_mutex_unlock(&journal->lock);
    pthread_join(journal->thread, NULL);
    pthread_mutex_lock(&journal->keeper_lock);
    journal->keeper_stop = true;
    pthread_cond_signal(&journal->keeper_wake);
    pthread_mutex_unlock(&journal->keeper_lock);
    pthread_join(journal->keeper, NULL);
    journal->started = false;
}

void journal_close(struct journal *journal)
{
    if (!journal)
        return;
    journal_stop(journal);
    list_destroy(&journal->group); /* when it was never started, or stepped */
    list_destroy(&journal->submitted);
    for (unsigned i = 0; i < journal->stream_count; i++) {
        stream_close(journal->streams[i]);
        free(journal->streams[i]);
    }
    if (journal->lock_handle >= 0)
        journal->options.disk->ops->close(journal->options.disk, journal->lock_handle);
    pthread_cond_destroy(&journal->keeper_wake);
    pthread_mutex_destroy(&journal->keeper_lock);
    pthread_cond_destroy(&journal->arrived);
    pthread_mutex_destroy(&journal->lock);
    free(journal->parts);
    free(journal);
}

/* ---- what others may know ---- */

struct disk *journal_disk(const struct journal *journal)
{
    return journal->options.disk;
}

struct journal_stream *journal_stream_at(struct journal *journal, unsigned index)
{
    return index < journal->stream_count ? journal->streams[index] : NULL;
}

const char *journal_stream_name(const struct journal_stream *stream)
{
    return stream->name;
}

const char *journal_stream_folder(const struct journal_stream *stream)
{
    return stream->folder;
}

uint64_t journal_stream_durable(const struct journal_stream *stream)
{
    return atomic_load_explicit(&stream->durable, memory_order_acquire);
}

void journal_stream_set_guard(struct journal_stream *stream, uint64_t offset)
{
    atomic_store(&stream->guard, offset);
}

void journal_stream_on_durable(struct journal_stream *stream, void (*notify)(void *context), void *context)
{
    stream->notify = notify;
    stream->notify_context = context;
}

void journal_stream_on_record(struct journal_stream *stream, void (*each)(void *context, const struct message *record), void *context)
{
    stream->on_record = each;
    stream->on_record_context = context;
}

void journal_stream_stats(struct journal_stream *stream, struct journal_stream_stats *stats)
{
    pthread_mutex_lock(&stream->lock);
    uint64_t durable = journal_stream_durable(stream);
    *stats = (struct journal_stream_stats){.first_offset = stream->segment_count ? stream->segments[0].base_offset : durable,
                                           .segment_count = stream->segment_count,
                                           .durable_offset = durable};
    for (size_t i = 0; i < stream->segment_count; i++)
        stats->bytes += stream->segments[i].bytes;
    pthread_mutex_unlock(&stream->lock);
}

int journal_stream_reader_at(struct journal_stream *stream, const struct reader_place *place, uint64_t from, struct reader **reader)
{
    return reader_open_at(reader, stream->disk, stream->folder, place, from, NULL, NULL);
}

int journal_stream_reader(struct journal_stream *stream, uint64_t from, struct reader **reader)
{
    return reader_open(reader, stream->disk, stream->folder, from, stream_say_damage, stream);
}

void journal_stats(struct journal *journal, struct journal_stats *stats)
{
    *stats = (struct journal_stats){
        .groups = atomic_load_explicit(&journal->group_count, memory_order_relaxed),
        .bytes = atomic_load_explicit(&journal->byte_count, memory_order_relaxed),
        .sync = &journal->sync,
        .stalled = atomic_load_explicit(&journal->stalled, memory_order_relaxed),
    };
}
