/* Producers and their chunks, the keeper thread, opening and closing. The threads that write are scribe.c's, the files stream.c's. */
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
#include "journal/compress.h"
#include "journal/ends.h"
#include "journal/scribe.h"
#include "journal/shrink.h"
#include "journal/stream.h"
#include "journal/trim.h"

enum { CHUNK_FREE_MAX = 16, PACK_LEVEL = 1, PACK_KEEP_MAX = 4 << 20 };

struct journal {
    struct journal_options options;
    char folder[JOURNAL_PATH_MAX];
    int lock_handle;
    struct journal_stream *streams[JOURNAL_STREAMS_MAX];
    unsigned stream_count;

    struct scribe scribes[JOURNAL_SCRIBES];
    struct scribe_shared shared;
    struct shrink *shrink; /* NULL: nothing is compressed */
    bool started;

    pthread_mutex_t keeper_lock;
    pthread_cond_t keeper_wake;
    bool keeper_wanted, keeper_stop;
    pthread_t keeper;

    /* The keeper's, while there is one. */
    struct format_ends ends; /* as written */
    uint64_t ends_turn, ends_ns;
    bool first_unwritten; /* a beginning stands in `ends` and not in its file */
};

/* ---- chunks ---- */

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
    if (bytes > JOURNAL_CHUNK_SIZE)
        return chunk_create(producer, bytes);
    pthread_mutex_lock(&producer->lock);
    struct journal_chunk *chunk = chunk_list_pop(&producer->idle);
    pthread_mutex_unlock(&producer->lock);
    return chunk ? chunk : chunk_create(producer, JOURNAL_CHUNK_SIZE);
}

static void chunk_give_back(struct journal_producer *producer, struct journal_chunk *chunk)
{
    chunk->length = chunk->token_count = chunk->run_count = 0;
    pthread_mutex_lock(&producer->lock);
    bool keep = chunk->capacity == JOURNAL_CHUNK_SIZE && producer->idle.count < CHUNK_FREE_MAX;
    if (keep)
        chunk_list_push(&producer->idle, chunk);
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
    compressor_destroy(producer->compressor);
    free(producer->packed);
    chunk_list_destroy(&producer->idle);
    chunk_list_destroy(&producer->durable);
    pthread_cond_destroy(&producer->drained);
    pthread_mutex_destroy(&producer->lock);
    free(producer);
}

static bool reserve_packed(struct journal_producer *producer, size_t capacity)
{
    if (!producer->compressor)
        producer->compressor = compressor_create(PACK_LEVEL);
    if (producer->packed_capacity < capacity || producer->packed_capacity > PACK_KEEP_MAX) {
        free(producer->packed);
        producer->packed = malloc(capacity);
        producer->packed_capacity = producer->packed ? capacity : 0;
    }
    return producer->compressor && producer->packed;
}

/* Makes *message one with a packed payload, which stays until the next call. Where that saves less than an eighth, or memory is short, it
 * stays as it is. */
static void pack_payload(struct journal_producer *producer, struct message *message)
{
    size_t capacity = FORMAT_PACKED_PREFIX + compress_bound(message->payload_length);
    if (!reserve_packed(producer, capacity))
        return;
    size_t size = compress(producer->compressor, producer->packed + FORMAT_PACKED_PREFIX, capacity - FORMAT_PACKED_PREFIX, message->payload,
                           message->payload_length);
    if (size == 0 || size + FORMAT_PACKED_PREFIX > message->payload_length - message->payload_length / 8)
        return;
    memcpy(producer->packed, &message->payload_length, FORMAT_PACKED_PREFIX);
    message->payload = producer->packed;
    message->payload_length = (uint32_t)(FORMAT_PACKED_PREFIX + size);
    message->flags |= FORMAT_FLAG_PACKED;
}

int journal_append(struct journal_producer *producer, struct journal_stream *stream, const struct message *message, const uint64_t *sources,
                   size_t source_count, uint64_t token)
{
    size_t size = format_record_size(message, source_count);
    if (size > FORMAT_RECORD_SIZE_MAX || message->topic_length > FORMAT_TOPIC_MAX || source_count > FORMAT_SOURCES_MAX)
        return ERR_LIMIT;
    struct message stored;
    if (stream->pack_from && message->payload_length >= stream->pack_from) {
        stored = *message;
        pack_payload(producer, &stored);
        message = &stored;
        size = format_record_size(message, source_count);
    }
    struct scribe *scribe = &producer->journal->scribes[stream->scribe];
    assert(!producer->scribe || producer->scribe == scribe);
    assert(!producer->scribe || producer->pressing == stream->pressing);
    if (!producer->scribe) { /* once: the scribe reads it */
        producer->scribe = scribe;
        producer->pressing = stream->pressing;
    }
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
    scribe_submit(producer->scribe, chunk);
}

/* A chunk without records, which counts as a byte, so that the producer is not closed before it has come back. */
int journal_fence(struct journal_producer *producer, const struct journal_stream *stream, uint64_t token)
{
    struct scribe *scribe = &producer->journal->scribes[stream->scribe];
    assert(!producer->pressing && (!producer->scribe || producer->scribe == scribe));
    struct journal_chunk *chunk = chunk_create(producer, 1);
    if (!chunk || chunk_reserve_token(chunk)) {
        chunk_destroy(chunk);
        return ERR_NO_MEMORY;
    }
    journal_submit(producer);
    producer->scribe = scribe;
    chunk->length = 1;
    chunk->tokens[chunk->token_count++] = token;
    atomic_fetch_add_explicit(&producer->backlog, chunk->length, memory_order_relaxed);
    scribe_submit(scribe, chunk);
    return 0;
}

void journal_producer_poll(struct journal_producer *producer, void (*each)(void *context, const struct journal_batch *batch), void *context)
{
    pthread_mutex_lock(&producer->lock);
    struct chunk_list list = producer->durable;
    producer->durable = (struct chunk_list){0};
    pthread_mutex_unlock(&producer->lock);
    struct journal_chunk *chunk;
    while ((chunk = chunk_list_pop(&list))) {
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

void journal_wake_keeper(struct journal *journal)
{
    pthread_mutex_lock(&journal->keeper_lock);
    journal->keeper_wanted = true;
    pthread_cond_signal(&journal->keeper_wake);
    pthread_mutex_unlock(&journal->keeper_lock);
}

bool journal_step_group(struct journal *journal)
{
    bool any = false;
    for (unsigned i = 0; i < JOURNAL_SCRIBES; i++)
        any = scribe_step(&journal->scribes[i]) || any;
    return any;
}

/* ---- the file of ends ---- */

static void read_ends(struct journal *journal)
{
    int error = ends_read(journal->options.disk, journal->folder, &journal->ends);
    if (error && error != ERR_NOT_FOUND)
        diagnostics(DIAGNOSTICS_WARNING, "journal",
                    "%s/ends cannot be read: %s. It is written anew; whether the newest segments of a stream were deleted while no server "
                    "ran cannot be told this time",
                    journal->folder, error_text(error));
}

/* Nothing depends on it but what can be told of files that somebody deletes later: what cannot be written now is written with the next. */
static void write_ends(struct journal *journal, bool sync)
{
    bool news = sync;
    atomic_store(&journal->shared.ends_behind, false); /* before looking: what comes from here on is written next time */
    for (unsigned i = 0; i < journal->stream_count; i++)
        news = ends_raise(&journal->ends, journal->streams[i]->name, journal_stream_durable(journal->streams[i])) || news;
    int error = news ? ends_write(journal->options.disk, journal->folder, &journal->ends, journal->ends_turn++, sync) : 0;
    journal->ends_ns = clock_monotonic_ns();
    if (error && error_class(error) != ERROR_CLASS_RETRY)
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "journal",
                     "%s/ends cannot be written: %s. Should somebody delete the newest segments of a stream, the next start may not notice",
                     journal->folder, error_text(error));
}

/* Where it cannot be written, the file goes: without it nobody misses what is about to be removed. */
bool journal_note_first(struct journal *journal, const struct journal_stream *stream, uint64_t first_offset)
{
    if (!ends_raise_first(&journal->ends, stream->name, first_offset) && !journal->first_unwritten)
        return true;
    struct disk *disk = journal->options.disk;
    int error = ends_write_both(disk, journal->folder, &journal->ends);
    journal->first_unwritten = error && (ends_remove(disk, journal->folder) || disk->ops->sync_folder(disk, journal->folder));
    return !journal->first_unwritten;
}

static uint64_t ends_due_ns(const struct journal *journal)
{
    return journal->options.stepped ? 0 : journal->ends_ns + ENDS_INTERVAL_MS * UINT64_C(1000000);
}

static bool keep_ends(struct journal *journal)
{
    if (!atomic_load(&journal->shared.ends_behind) || clock_monotonic_ns() < ends_due_ns(journal))
        return false;
    write_ends(journal, false);
    return true;
}

/* ---- the keeper ---- */

bool journal_step_keeper(struct journal *journal)
{
    bool worked = keep_ends(journal), full = atomic_load(&journal->shared.stalled) > 0;
    for (unsigned i = 0; i < journal->stream_count; i++)
        worked = stream_keep(journal->streams[i], full) || worked;
    return worked;
}

/* Until it is woken, the file of ends is due, or retention by age has something to look at. */
static void keeper_wait(struct journal *journal)
{
    uint64_t due_ns = atomic_load(&journal->shared.ends_behind) ? ends_due_ns(journal) : UINT64_MAX;
    for (unsigned i = 0; i < journal->stream_count; i++)
        if (journal->streams[i]->look_at_ns < due_ns)
            due_ns = journal->streams[i]->look_at_ns;
    if (due_ns == UINT64_MAX) {
        pthread_cond_wait(&journal->keeper_wake, &journal->keeper_lock);
        return;
    }
    struct timespec due = {.tv_sec = (time_t)(due_ns / 1000000000u), .tv_nsec = (long)(due_ns % 1000000000u)};
    if (pthread_cond_timedwait(&journal->keeper_wake, &journal->keeper_lock, &due))
        journal->keeper_wanted = true;
}

static void *keeper_thread(void *context)
{
    struct journal *journal = context;
    for (;;) {
        bool worked = journal_step_keeper(journal);
        pthread_mutex_lock(&journal->keeper_lock);
        while (!worked && !journal->keeper_wanted && !journal->keeper_stop)
            keeper_wait(journal);
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
    if (!journal)
        return ERR_NO_MEMORY;
    journal->options = *options;
    if (options->group_bytes_max == 0)
        journal->options.group_bytes_max = JOURNAL_GROUP_BYTES_MAX;
    if (options->writers == 0)
        journal->options.writers = options->stepped ? 1 : JOURNAL_WRITERS;
    assert(journal->options.writers <= JOURNAL_WRITERS_MAX);
    journal->lock_handle = -1;
    pthread_mutex_init(&journal->shared.lock, NULL);
    pthread_mutex_init(&journal->keeper_lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&journal->keeper_wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int error = 0;
    for (unsigned i = 0; i < JOURNAL_SCRIBES; i++) {
        journal->scribes[i] = (struct scribe){
            .options = &journal->options, .wake_keeper = journal_wake_keeper, .journal = journal, .shared = &journal->shared};
        journal->scribes[i].writer_count = i == 0 ? journal->options.writers : 1;
        journal->scribes[i].disk_free_min = i == 0 ? options->disk_free_min : 0;
        int failed = scribe_init(&journal->scribes[i]);
        error = error ? error : failed;
    }
    if (options->compression_level && !(journal->shrink = shrink_create(options->compression_level)))
        error = ERR_NO_MEMORY;
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
    read_ends(journal);
    *out = journal;
    return 0;
}

int journal_stream_add(struct journal *journal, const struct journal_stream_options *options, struct journal_stream **out)
{
    assert(!journal->started && options->scribe < JOURNAL_SCRIBES);
    if (journal->stream_count == JOURNAL_STREAMS_MAX)
        return ERR_LIMIT;
    struct journal_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return ERR_NO_MEMORY;
    stream->disk = journal->options.disk;
    stream->segment_size = options->segment_size ? options->segment_size : journal->options.segment_size;
    stream->clock = journal->options.clock;
    stream->disk_free_min = journal->options.disk_free_min;
    stream->retention = (struct retention){.size = options->retention_size, .age_ns = options->retention_age_ns};
    stream->look_at_ns = UINT64_MAX;
    stream->guarded = options->guarded;
    stream->pressing = options->pressing;
    stream->stepped = journal->options.stepped;
    stream->pack_from = options->pack_from;
    stream->index = journal->stream_count;
    stream->scribe = options->scribe;
    stream->journal = journal;
    stream->shrink = journal->shrink;
    atomic_init(&stream->retire_at, UINT64_MAX);
    atomic_init(&stream->shrink_at, UINT64_MAX);
    stream->file = stream->left_file = stream->next_file = -1;
    snprintf(stream->name, sizeof stream->name, "%s", options->name);
    stream->known_end = ends_of(&journal->ends, stream->name);
    int length = snprintf(stream->folder, sizeof stream->folder, "%s/%s", journal->folder, options->name);
    stream->known_first = ends_first_of(&journal->ends, stream->name);
    int error = length < 0 || (size_t)length >= sizeof stream->folder ? ERR_INVALID : stream_open(stream);
    if (error) {
        stream_close(stream);
        free(stream);
        return error;
    }
    if (stream->known_first == FORMAT_BEGINNING_UNKNOWN)
        ends_raise_first(&journal->ends, stream->name, stream->segment_count ? stream->segments[0].base_offset : stream->next_offset);
    struct scribe *scribe = &journal->scribes[stream->scribe];
    stream->place = scribe->stream_count;
    scribe->streams[scribe->stream_count++] = stream;
    journal->streams[journal->stream_count++] = stream;
    *out = stream;
    return 0;
}

/* Nobody has sent anything yet that would be told that it waits. */
static void say_if_short(struct journal *journal)
{
    struct journal_stats stats;
    char text[SPACE_TEXT_MAX];
    journal_stats(journal, &stats);
    space_text(&stats.space, text);
    if (space_is_short(&stats.space))
        diagnostics(DIAGNOSTICS_WARNING, "journal", "%s: %s. They will wait until there is more; free some", journal->folder, text);
}

int journal_start(struct journal *journal)
{
    write_ends(journal, true);
    int failed =
        journal->options.disk->ops->sync_folder(journal->options.disk, journal->folder); /* and the names of the streams' folders */
    if (failed)
        return error_from_errno(-failed);
    if (!journal->options.stepped) {
        if (pthread_create(&journal->keeper, NULL, keeper_thread, journal))
            return ERR_NO_MEMORY;
        journal->started = true;
        trim_allow(journal, true);
    }
    say_if_short(journal);
    int error = 0;
    for (unsigned i = 0; i < JOURNAL_SCRIBES && !error; i++)
        error = scribe_start(&journal->scribes[i]);
    if (error)
        journal_stop(journal);
    return error;
}

bool journal_abandon(struct journal *journal)
{
    bool all = true;
    for (unsigned i = 0; i < JOURNAL_SCRIBES; i++) {
        atomic_store(&journal->scribes[i].abandoned, true);
        all = atomic_load(&journal->scribes[i].stalled) && all;
    }
    return all;
}

void journal_stop(struct journal *journal)
{
    if (!journal->started)
        return;
    for (unsigned i = 0; i < JOURNAL_SCRIBES; i++)
        scribe_stop(&journal->scribes[i]);
    pthread_mutex_lock(&journal->keeper_lock);
    journal->keeper_stop = true;
    pthread_cond_signal(&journal->keeper_wake);
    pthread_mutex_unlock(&journal->keeper_lock);
    pthread_join(journal->keeper, NULL);
    trim_allow(journal, false);
    write_ends(journal, true);
    journal->started = false;
}

void journal_close(struct journal *journal)
{
    if (!journal)
        return;
    journal_stop(journal);
    for (unsigned i = 0; i < JOURNAL_SCRIBES; i++)
        scribe_fini(&journal->scribes[i]);
    for (unsigned i = 0; i < journal->stream_count; i++) {
        stream_close(journal->streams[i]);
        free(journal->streams[i]);
    }
    shrink_destroy(journal->shrink);
    if (journal->lock_handle >= 0)
        journal->options.disk->ops->close(journal->options.disk, journal->lock_handle);
    pthread_cond_destroy(&journal->keeper_wake);
    pthread_mutex_destroy(&journal->keeper_lock);
    pthread_mutex_destroy(&journal->shared.lock);
    free(journal);
}

/* ---- what others may know ---- */

struct disk *journal_disk(const struct journal *journal)
{
    return journal->options.disk;
}

enum journal_durability journal_durability(const struct journal *journal)
{
    return journal->options.durability;
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
    /* retire_oldest stores retire_at, then looks at the guard: whichever is later, one of the two sees what is to be done. */
    uint64_t at = atomic_load(&stream->retire_at);
    bool due = offset >= at && atomic_compare_exchange_strong(&stream->retire_at, &at, UINT64_MAX);
    if (shrink_is_due(stream, offset) || due)
        journal_wake_keeper(stream->journal);
}

int journal_stream_skip(struct journal_stream *stream, uint64_t offset)
{
    assert(!stream->journal->started);
    return offset > journal_stream_durable(stream) ? stream_skip(stream, offset) : 0;
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
    if (stream->guarded)
        stats->held_bytes = retention_held(&stream->retention, stream->segments, stream->segment_count, atomic_load(&stream->guard),
                                           journal_wall_ns(stream->clock));
    pthread_mutex_unlock(&stream->lock);
}

int journal_stream_reader_at(struct journal_stream *stream, const struct reader_place *place, uint64_t from, bool tells,
                             struct reader **reader)
{
    return reader_open_at(reader, stream->disk, stream->folder, place, from, tells ? stream_say_damage : NULL, stream);
}

int journal_stream_reader(struct journal_stream *stream, uint64_t from, struct reader **reader)
{
    return reader_open(reader, stream->disk, stream->folder, from, stream_say_damage, stream);
}

uint64_t journal_stream_stalls(const struct journal_stream *stream)
{
    return atomic_load(&stream->journal->scribes[stream->scribe].stalls);
}

void journal_stats(struct journal *journal, struct journal_stats *stats)
{
    *stats = (struct journal_stats){.sync = &journal->shared.sync, .stalled = atomic_load(&journal->shared.stalled) > 0};
    space_look(journal->options.disk, journal->folder, journal->options.disk_free_min, &stats->space);
    for (unsigned i = 0; i < JOURNAL_SCRIBES; i++) {
        const struct scribe *scribe = &journal->scribes[i];
        stats->groups += atomic_load_explicit(&scribe->group_count, memory_order_relaxed);
        stats->bytes += atomic_load_explicit(&scribe->byte_count, memory_order_relaxed);
    }
}
