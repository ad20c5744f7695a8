/* Taking what has arrived, writing it stream by stream, and telling the producers. The files are stream.c's. */
#include "journal/scribe.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"

enum { STALL_RETRY_MS = 100, STALL_SAY_INTERVAL_S = 60, SEAL_PREFETCH_BYTES = 2048 };

void chunk_list_push(struct chunk_list *list, struct journal_chunk *chunk)
{
    chunk->next = NULL;
    if (list->last)
        list->last->next = chunk;
    else
        list->first = chunk;
    list->last = chunk;
    list->count++;
}

struct journal_chunk *chunk_list_pop(struct chunk_list *list)
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

void chunk_destroy(struct journal_chunk *chunk)
{
    if (!chunk)
        return;
    free(chunk->bytes);
    free(chunk->tokens);
    free(chunk->runs);
    free(chunk);
}

void chunk_list_destroy(struct chunk_list *list)
{
    struct journal_chunk *chunk;
    while ((chunk = chunk_list_pop(list)))
        chunk_destroy(chunk);
}

static void stop_process(struct scribe *scribe, const char *text)
{
    if (scribe->options->fatal)
        scribe->options->fatal(text);
    diagnostics(DIAGNOSTICS_ERROR, "journal", "%s", text);
    abort();
}

static void fatal(struct scribe *scribe, const char *what, const struct journal_stream *stream, const char *reason)
{
    char text[JOURNAL_PATH_MAX + 512];
    snprintf(text, sizeof text,
             "%s of stream %s in %s failed: %s. Nothing that was not acknowledged may be believed any more, so the process stops; start it "
             "again "
             "when the disk is well, it will read what is really there",
             what, stream->name, stream->folder, reason);
    stop_process(scribe, text);
}

/* What was just written is durable, but of use only where the next start looks for it. Where that cannot be told (no memory, no rights) the
 * next group looks again. */
static void check_in_place(struct scribe *scribe, const struct journal_stream *stream)
{
    if (stream->disk->ops->check_name(stream->disk, stream->path, stream->file) != -ESTALE)
        return;
    char text[2 * JOURNAL_PATH_MAX];
    snprintf(text, sizeof text,
             "stream %s: %s was deleted, moved or replaced while it was in use. What was written to it last is not acknowledged, and the "
             "process stops. Put the data folder back as it was and start again; what is missing in it then is lost",
             stream->name, stream->path);
    stop_process(scribe, text);
}

/* Whether it is to be said now that a scribe waits, and for how long one does. */
static bool begin_stall(struct scribe *scribe, uint64_t *lasting_ns)
{
    struct scribe_shared *shared = scribe->shared;
    uint64_t now_ns = clock_monotonic_ns();
    pthread_mutex_lock(&shared->lock);
    if (!scribe->stalled && shared->stalled++ == 0) {
        shared->stalled_ns = now_ns;
        shared->told = false;
    }
    if (!scribe->stalled)
        atomic_fetch_add(&scribe->stalls, 1);
    scribe->stalled = true;
    bool say = !shared->said_ns || now_ns - shared->said_ns >= STALL_SAY_INTERVAL_S * 1000000000ull;
    if (say) {
        shared->said_ns = now_ns;
        shared->told = true;
    }
    *lasting_ns = now_ns - shared->stalled_ns;
    pthread_mutex_unlock(&shared->lock);
    return say;
}

/* A disk at its limit stops and goes on many times a second; that is said once a minute. */
static void say_stall(struct scribe *scribe, const struct journal_stream *stream, const char *why)
{
    uint64_t lasting_ns;
    bool begins = !scribe->stalled, say = begin_stall(scribe, &lasting_ns);
    if (begins)
        scribe->wake_keeper(scribe->journal); /* retention may make room */
    if (say) {
        char lasting[64] = "";
        if (lasting_ns >= 1000000000u)
            snprintf(lasting, sizeof lasting, ", for %" PRIu64 " s now", lasting_ns / 1000000000u);
        diagnostics(DIAGNOSTICS_ERROR, "journal",
                    "stream %s: cannot write to %s: %s%s. Nothing is lost: acknowledgements wait, senders are held back, and what is on "
                    "disk is served. It goes on by itself when there is space; free some",
                    stream->name, stream->folder, why, lasting);
    }
}

/* Waits a little for a full disk to have space again. False when waiting is to end. */
static bool stall(struct scribe *scribe, const struct journal_stream *stream, const char *why)
{
    say_stall(scribe, stream, why);
    struct timespec pause = {.tv_nsec = STALL_RETRY_MS * 1000000L};
    if (!scribe->options->stepped)
        nanosleep(&pause, NULL);
    scribe->gave_up = atomic_load(&scribe->abandoned);
    return !scribe->gave_up;
}

/* The same, but something pressing ends it at once. */
static bool stall_unless_pressed(struct scribe *scribe, const struct journal_stream *stream, const char *why)
{
    say_stall(scribe, stream, why);
    uint64_t until_ns = clock_monotonic_ns() + STALL_RETRY_MS * UINT64_C(1000000);
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
    bool late = scribe->options->stepped;
    pthread_mutex_lock(&scribe->lock);
    while (!late && !scribe->pressing)
        late = pthread_cond_timedwait(&scribe->pressed, &scribe->lock, &until) != 0;
    pthread_mutex_unlock(&scribe->lock);
    scribe->gave_up = atomic_load(&scribe->abandoned);
    return !scribe->gave_up;
}

static void end_stall(struct scribe *scribe)
{
    if (!scribe->stalled)
        return;
    struct scribe_shared *shared = scribe->shared;
    pthread_mutex_lock(&shared->lock);
    scribe->stalled = false;
    atomic_fetch_add(&scribe->stalls, 1);
    bool say = --shared->stalled == 0 && shared->told;
    uint64_t lasting_ns = clock_monotonic_ns() - shared->stalled_ns;
    pthread_mutex_unlock(&shared->lock);
    if (say)
        diagnostics(DIAGNOSTICS_INFO, "journal", "writing goes on after %.1f s", (double)lasting_ns / 1e9);
}

static bool write_parts(struct scribe *scribe, struct journal_stream *stream, struct iovec *parts, size_t count, uint64_t *position)
{
    size_t first = 0;
    while (first < count) {
        ssize_t written = stream->disk->ops->write(stream->disk, stream->file, parts + first, (int)(count - first), *position);
        if (written <= 0) {
            int error = error_from_errno(written < 0 ? (int)-written : ENOSPC);
            if (error_class(error) != ERROR_CLASS_RETRY)
                fatal(scribe, "a write", stream, strerror((int)-written));
            if (!stall(scribe, stream, error_text(error)))
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

/* Whether the syncs of this writer may overlap with those of others: it has a handle of its own of the stream's segment. The first writer
 * has the one that is written to. */
static bool has_own_file(struct writer *writer, const struct journal_stream *stream, struct writer_stream *mine)
{
    if (writer == writer->scribe->writers)
        return true;
    if (mine->file >= 0 && mine->file_salt == stream->salt)
        return true;
    if (mine->file >= 0)
        stream->disk->ops->close(stream->disk, mine->file);
    mine->file = stream->disk->ops->open(stream->disk, stream->path, DISK_WRITE);
    mine->file_salt = stream->salt;
    return mine->file >= 0;
}

static void finish_group(struct writer *writer);

/* Waits until all earlier groups have ended. */
static void await_earlier(struct writer *writer)
{
    struct scribe *scribe = writer->scribe;
    while (scribe->options->stepped && scribe->ended != writer->number)
        finish_group(&scribe->writers[scribe->ended % scribe->writer_count]);
    pthread_mutex_lock(&scribe->lock);
    while (scribe->ended != writer->number)
        pthread_cond_wait(&scribe->told, &scribe->lock);
    pthread_mutex_unlock(&scribe->lock);
}

/* Gives the records their offsets and writes them, with a mark before them when what they follow is not durable yet (format.h). */
static bool write_records(struct writer *writer, struct journal_stream *stream, uint64_t bytes, uint64_t mark_size)
{
    struct scribe *scribe = writer->scribe;
    struct writer_stream *mine = &writer->streams[stream->place];
    uint64_t position = stream->position, offset = stream->next_offset;
    size_t part_count = 0;
    if (mark_size) {
        format_mark_encode(mine->mark, atomic_load_explicit(&stream->durable, memory_order_relaxed));
        format_record_seal(mine->mark, offset, stream->salt, true);
        scribe->parts[part_count++] = (struct iovec){mine->mark, mark_size};
    }
    bool group_start = !mark_size;
    for (struct journal_chunk *chunk = writer->group.first; chunk; chunk = chunk->next) {
        for (size_t i = 0; i < chunk->run_count; i++) {
            const struct chunk_run *run = &chunk->runs[i];
            if (run->stream != stream)
                continue;
            uint8_t *record = chunk->bytes + run->start, *end = record + run->bytes;
            while (record < end) {
                __builtin_prefetch(record + SEAL_PREFETCH_BYTES, 1); /* another core has written it */
                record += format_record_seal(record, offset++, stream->salt, group_start);
                group_start = false;
            }
            scribe->parts[part_count++] = (struct iovec){chunk->bytes + run->start, run->bytes};
            if (part_count == SCRIBE_PARTS_MAX) {
                if (!write_parts(scribe, stream, scribe->parts, part_count, &position))
                    return false;
                part_count = 0;
            }
        }
    }
    static uint8_t zeros[STREAM_PAGE_SIZE];
    uint64_t padding = stream_padding(stream, mark_size + bytes);
    if (padding)
        scribe->parts[part_count++] = (struct iovec){zeros, padding};
    if (!write_parts(scribe, stream, scribe->parts, part_count, &position))
        return false;
    assert(position == stream->position + mark_size + bytes + padding);
    stream->position += mark_size + bytes;
    stream->next_offset = offset;
    mine->end_offset = offset;
    return true;
}

/* Writes what the group holds for one stream. False: waiting for space is to end. *alone: it must be synced before another group is
 * written. */
static bool write_stream(struct writer *writer, struct journal_stream *stream, bool *alone)
{
    struct scribe *scribe = writer->scribe;
    struct writer_stream *mine = &writer->streams[stream->place];
    uint64_t bytes = 0;
    for (const struct journal_chunk *chunk = writer->group.first; chunk; chunk = chunk->next)
        for (size_t i = 0; i < chunk->run_count; i++)
            if (chunk->runs[i].stream == stream)
                bytes += chunk->runs[i].bytes;
    mine->bytes = bytes;
    if (bytes == 0)
        return true;
    if (!stream_has_room(stream, FORMAT_MARK_SIZE + bytes)) {
        await_earlier(writer); /* a segment is left when all of it is durable */
        int error;
        while ((error = stream_begin_segment(stream))) {
            if (error_class(error) != ERROR_CLASS_RETRY)
                fatal(scribe, "a new segment", stream, error_text(error));
            if (!stall(scribe, stream, error_text(error)))
                return false;
        }
    }
    if (!*alone && !has_own_file(writer, stream, mine)) {
        await_earlier(writer);
        *alone = true;
    }
    bool behind = atomic_load_explicit(&stream->durable, memory_order_relaxed) < stream->next_offset;
    uint64_t mark_size = behind ? FORMAT_MARK_SIZE : 0;
    writer->care = stream_claim(stream, mark_size + bytes) || writer->care;
    if (!write_records(writer, stream, bytes, mark_size))
        return false;
    atomic_fetch_add_explicit(&scribe->byte_count, mark_size + bytes, memory_order_relaxed);
    return true;
}

static void sync_stream(struct writer *writer, struct journal_stream *stream)
{
    struct scribe *scribe = writer->scribe;
    const struct writer_stream *mine = &writer->streams[stream->place];
    bool own = mine->file >= 0 && mine->file_salt == stream->salt; /* and not one of a segment that was left */
    if (scribe->options->durability == JOURNAL_DURABLE_DISK) {
        int failed = stream->disk->ops->sync(stream->disk, own ? mine->file : stream->file);
        if (failed)
            fatal(scribe, "a sync", stream, strerror(-failed));
    }
    check_in_place(scribe, stream);
}

/* Hands the chunks back to their producers and tells each producer once. */
static void release_group(struct chunk_list *group)
{
    struct journal_producer *touched = NULL;
    struct journal_chunk *chunk;
    while ((chunk = chunk_list_pop(group))) {
        struct journal_producer *producer = chunk->producer;
        pthread_mutex_lock(&producer->lock);
        chunk_list_push(&producer->durable, chunk);
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
    while ((chunk = chunk_list_pop(group))) {
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

/* Finds out for each chunk after which stream it may be told durable. */
static void plan_release(const struct chunk_list *group)
{
    for (const struct journal_chunk *chunk = group->first; chunk; chunk = chunk->next)
        chunk->producer->release_after = 0;
    for (struct journal_chunk *chunk = group->first; chunk; chunk = chunk->next) {
        unsigned *after = &chunk->producer->release_after;
        if (!chunk->run_count)
            *after = UINT_MAX; /* a fence: after all of them */
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
    while ((chunk = chunk_list_pop(group)))
        chunk_list_push(chunk->release_after <= index ? &ready : &rest, chunk);
    *group = rest;
    release_group(&ready);
}

/* Whether the disk is to be asked for its space before the next group. */
static bool has_to_look(struct scribe *scribe, uint64_t now_ns, uint64_t written)
{
    bool recent = scribe->looked_ns && now_ns - scribe->looked_ns < SPACE_LOOK_MS * 1000000ull;
    if (recent && written - scribe->looked_at < scribe->until_look)
        return false;
    scribe->looked_ns = now_ns;
    scribe->looked_at = written;
    return true;
}

/* Adds what was submitted to the group, as much as may be in one. Under the lock. */
static void fill_group(struct writer *writer)
{
    struct scribe *scribe = writer->scribe;
    size_t bytes = 0;
    bool early = scribe->sent_before_start > 0;
    size_t most = early ? SIZE_MAX : scribe->options->group_bytes_max;
    while (scribe->submitted.first && early == (scribe->sent_before_start > 0) &&
           (bytes == 0 || bytes + scribe->submitted.first->length <= most)) {
        struct journal_chunk *chunk = chunk_list_pop(&scribe->submitted);
        scribe->sent_before_start -= early;
        bytes += chunk->length;
        chunk_list_push(&writer->group, chunk);
    }
    writer->early = early;
}

/* Leaves in the group what is pressing, adds what has been submitted of that, and puts the rest back to where it was. */
static void press_group(struct writer *writer)
{
    struct scribe *scribe = writer->scribe;
    struct chunk_list lists[] = {writer->group, {0}}, rest = {0};
    size_t bytes = 0;
    bool full = false;
    pthread_mutex_lock(&scribe->lock);
    lists[1] = scribe->submitted;
    writer->group = (struct chunk_list){0};
    scribe->holds_back = scribe->pressing = false;
    for (unsigned i = 0; i < 2; i++) {
        for (struct journal_chunk *chunk; (chunk = chunk_list_pop(&lists[i]));) {
            bool pressing = chunk->producer->pressing;
            full = full || (pressing && bytes && bytes + chunk->length > scribe->options->group_bytes_max);
            bytes += pressing ? chunk->length : 0;
            scribe->holds_back = scribe->holds_back || !pressing;
            chunk_list_push(pressing && !full ? &writer->group : &rest, chunk);
        }
    }
    scribe->submitted = rest;
    pthread_mutex_unlock(&scribe->lock);
}

/* Has the group made of what there is room for now. Whether there is such; else why not is told. */
static bool fit_group(struct writer *writer, const struct journal_stream *stream, bool *spent, char why[SPACE_TEXT_MAX])
{
    struct scribe *scribe = writer->scribe;
    struct space space;
    space_look(stream->disk, stream->folder, scribe->disk_free_min, &space);
    space_text(&space, why);
    scribe->is_short = space_is_short(&space);
    scribe->until_look = space_until_look(&space);
    *spent = space_is_spent(&space) || writer->early;
    if (scribe->is_short && !*spent) {
        press_group(writer);
    } else if (!scribe->is_short && !writer->group.first) {
        pthread_mutex_lock(&scribe->lock);
        fill_group(writer);
        pthread_mutex_unlock(&scribe->lock);
    }
    scribe->holds_back = scribe->holds_back && scribe->is_short;
    return !scribe->is_short || (!*spent && writer->group.first);
}

/* Waits until there is room for a group, or a pressing one (space.h). False when waiting is to end. */
static bool wait_for_room(struct writer *writer)
{
    struct scribe *scribe = writer->scribe;
    const struct journal_chunk *first = writer->group.first;
    const struct journal_stream *stream = first->run_count ? first->runs[0].stream : scribe->streams[0];
    uint64_t written = atomic_load_explicit(&scribe->byte_count, memory_order_relaxed);
    if (!scribe->disk_free_min || (!has_to_look(scribe, journal_monotonic_ns(scribe->options->clock), written) && !scribe->is_short))
        return true;
    bool spent, goes_on = true;
    char why[SPACE_TEXT_MAX];
    while (goes_on && !fit_group(writer, stream, &spent, why))
        goes_on = spent ? stall(scribe, stream, why) : stall_unless_pressed(scribe, stream, why);
    if (goes_on && scribe->holds_back)
        say_stall(scribe, stream, why);
    return goes_on;
}

/* Tells everybody that what the group holds for the stream is durable. */
static void tell_stream(struct writer *writer, struct journal_stream *stream)
{
    atomic_store_explicit(&stream->durable, writer->streams[stream->place].end_offset, memory_order_release);
    if (stream->on_record)
        show_records(stream, &writer->group);
    release_after(&writer->group, stream->index);
    if (stream->notify)
        stream->notify(stream->notify_context);
}

static void pass_turn(struct scribe *scribe)
{
    pthread_mutex_lock(&scribe->lock);
    scribe->writing = false;
    bool wake = scribe->sleeping && scribe->submitted.first;
    pthread_mutex_unlock(&scribe->lock);
    if (wake)
        pthread_cond_signal(&scribe->arrived);
}

/* Syncs what the group holds for the first `count` streams and tells of it, in their order: whoever waits for one of them waits for all
 * that come before it. */
static void finish_streams(struct writer *writer, unsigned count)
{
    struct scribe *scribe = writer->scribe;
    for (unsigned i = 0; i < count; i++) {
        if (!writer->streams[i].bytes)
            continue;
        sync_stream(writer, scribe->streams[i]);
        tell_stream(writer, scribe->streams[i]);
        writer->streams[i].bytes = 0;
    }
}

/* The first half: all that is done in turn. What has to be alone is finished stream by stream, from where that turns out together with what
 * was written before. */
static void write_group(struct writer *writer)
{
    struct scribe *scribe = writer->scribe;
    bool alone = scribe->writer_count == 1;
    writer->started_ns = clock_monotonic_ns();
    writer->care = false;
    writer->abandoned = scribe->gave_up || !wait_for_room(writer);
    plan_release(&writer->group);
    for (unsigned i = 0; i < scribe->stream_count && !writer->abandoned; i++) {
        writer->abandoned = !write_stream(writer, scribe->streams[i], &alone);
        if (alone && !writer->abandoned)
            finish_streams(writer, i + 1);
    }
    if (!writer->abandoned && !scribe->holds_back)
        end_stall(scribe);
    pass_turn(scribe);
}

/* The second half, beside the writing of the next group. */
static void finish_group(struct writer *writer)
{
    struct scribe *scribe = writer->scribe;
    bool first = true;
    for (unsigned i = 0; i < scribe->stream_count && !writer->abandoned; i++) {
        if (!writer->streams[i].bytes)
            continue;
        sync_stream(writer, scribe->streams[i]);
        if (first)
            await_earlier(writer);
        first = false;
        tell_stream(writer, scribe->streams[i]);
    }
    await_earlier(writer);
    if (writer->abandoned)
        discard_group(&writer->group);
    release_group(&writer->group); /* fences, and what was sent off behind them; all else was released after the last stream of its runs */
    pthread_mutex_lock(&scribe->shared->lock);
    if (!writer->abandoned)
        histogram_record(&scribe->shared->sync, clock_monotonic_ns() - writer->started_ns);
    pthread_mutex_unlock(&scribe->shared->lock);
    atomic_fetch_add_explicit(&scribe->group_count, !writer->abandoned, memory_order_relaxed);
    if (!writer->abandoned && !atomic_load(&scribe->shared->ends_behind)) {
        atomic_store(&scribe->shared->ends_behind, true);
        writer->care = true;
    }
    if (writer->care)
        scribe->wake_keeper(scribe->journal);
    pthread_mutex_lock(&scribe->lock);
    scribe->ended++;
    pthread_cond_broadcast(&scribe->told);
    pthread_mutex_unlock(&scribe->lock);
}

/* Makes a group of what has arrived, and takes the turn to write it; `wait`: until something has, or the scribe stops. Whether there is
 * one. */
static bool gather_group(struct writer *writer, bool wait)
{
    struct scribe *scribe = writer->scribe;
    pthread_mutex_lock(&scribe->lock);
    while (wait && (scribe->writing || (!scribe->submitted.first && !scribe->stopping))) {
        scribe->sleeping++;
        pthread_cond_wait(&scribe->arrived, &scribe->lock);
        scribe->sleeping--;
    }
    fill_group(writer);
    scribe->writing = writer->group.first;
    writer->number = scribe->begun;
    scribe->begun += scribe->writing;
    bool end = !scribe->writing;
    pthread_mutex_unlock(&scribe->lock);
    if (end)
        pthread_cond_broadcast(&scribe->arrived); /* the others end too */
    return !end;
}

static void *write_groups(void *context)
{
    struct writer *writer = context;
    while (gather_group(writer, true)) {
        write_group(writer);
        finish_group(writer);
    }
    return NULL;
}

bool scribe_step(struct scribe *scribe)
{
    struct writer *writer = &scribe->writers[scribe->begun % scribe->writer_count];
    bool any = gather_group(writer, false);
    if (any)
        write_group(writer);
    bool all_under_way = scribe->begun - scribe->ended == scribe->writer_count, finish = scribe->begun > scribe->ended && !any;
    if (all_under_way || finish)
        finish_group(&scribe->writers[scribe->ended % scribe->writer_count]);
    return any || finish;
}

/* ---- open and close ---- */

int scribe_init(struct scribe *scribe)
{
    pthread_mutex_init(&scribe->lock, NULL);
    pthread_cond_init(&scribe->arrived, NULL);
    pthread_cond_init(&scribe->told, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&scribe->pressed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (unsigned i = 0; i < scribe->writer_count; i++) {
        scribe->writers[i].scribe = scribe;
        for (unsigned s = 0; s < JOURNAL_STREAMS_MAX; s++)
            scribe->writers[i].streams[s].file = -1;
    }
    scribe->parts = calloc(SCRIBE_PARTS_MAX, sizeof *scribe->parts);
    return scribe->parts ? 0 : ERR_NO_MEMORY;
}

void scribe_fini(struct scribe *scribe)
{
    scribe_stop(scribe);
    for (unsigned i = 0; i < scribe->writer_count; i++) {
        chunk_list_destroy(&scribe->writers[i].group);
        for (unsigned s = 0; s < scribe->stream_count; s++)
            if (scribe->writers[i].streams[s].file >= 0)
                scribe->streams[s]->disk->ops->close(scribe->streams[s]->disk, scribe->writers[i].streams[s].file);
    }
    chunk_list_destroy(&scribe->submitted);
    pthread_cond_destroy(&scribe->pressed);
    pthread_cond_destroy(&scribe->told);
    pthread_cond_destroy(&scribe->arrived);
    pthread_mutex_destroy(&scribe->lock);
    free(scribe->parts);
}

int scribe_start(struct scribe *scribe)
{
    scribe->sent_before_start = scribe->submitted.count;
    for (unsigned i = 0; i < scribe->writer_count && !scribe->options->stepped; i++) {
        if (pthread_create(&scribe->writers[i].thread, NULL, write_groups, &scribe->writers[i]))
            return ERR_NO_MEMORY;
        scribe->writers[i].running = true;
    }
    return 0;
}

void scribe_stop(struct scribe *scribe)
{
    pthread_mutex_lock(&scribe->lock);
    scribe->stopping = true;
    pthread_cond_broadcast(&scribe->arrived);
    pthread_mutex_unlock(&scribe->lock);
    for (unsigned i = 0; i < scribe->writer_count; i++) {
        if (scribe->writers[i].running)
            pthread_join(scribe->writers[i].thread, NULL);
        scribe->writers[i].running = false;
    }
}

void scribe_submit(struct scribe *scribe, struct journal_chunk *chunk)
{
    pthread_mutex_lock(&scribe->lock);
    chunk_list_push(&scribe->submitted, chunk);
    bool wake = scribe->sleeping && !scribe->writing, pressing = chunk->producer->pressing;
    scribe->pressing = scribe->pressing || pressing;
    pthread_mutex_unlock(&scribe->lock);
    if (wake)
        pthread_cond_signal(&scribe->arrived);
    if (pressing)
        pthread_cond_signal(&scribe->pressed);
}
