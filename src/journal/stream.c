/* One stream's files: beginning segments, and room in them. See stream.h for who does what, format.h for what is in them;
 * stream_recovery.c finds what is there at the start, stream_keeper.c does what can be done ahead or later.
 *
 * A segment comes to be in this order, so that a name of digits always has a valid header behind it: a file of another name is
 * written (zeros, or a retired segment's old bytes), its header is written and synced, it is renamed to its
 * first offset, and the folder is synced. Only then does a group go into it. */
#include "journal/stream.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "journal/shrink.h"
#include "journal/stream_parts.h"

const char stream_name_spare[] = "spare.seg";
/* Two names, so that a scribe never waits for what the keeper prepares, nor takes it half done. */
const char stream_name_prepared[] = "prepared.seg";
static const char made_in_haste[] = "next.seg";

void stream_file_path(const struct journal_stream *stream, const char *name, char path[STREAM_PATH_MAX])
{
    snprintf(path, STREAM_PATH_MAX, "%s/%s", stream->folder, name);
}

int stream_file_zero(struct journal_stream *stream, int file, uint64_t from, uint64_t to)
{
    static const uint8_t zeros[256 << 10];
    while (from < to) {
        size_t count = to - from < sizeof zeros ? (size_t)(to - from) : sizeof zeros;
        int error = disk_write_fully(stream->disk, file, zeros, count, from);
        if (error)
            return error;
        from += count;
    }
    int error = stream->disk->ops->sync(stream->disk, file);
    return error ? error_from_errno(-error) : 0;
}

bool stream_may_write_ahead(const struct journal_stream *stream, uint64_t bytes)
{
    struct space space = {0};
    if (stream->disk_free_min)
        space_look(stream->disk, stream->folder, stream->disk_free_min, &space);
    return !space.least || (space.free >= bytes && space.free - bytes >= space.least);
}

int stream_add_segment(struct journal_stream *stream, uint64_t base_offset, uint64_t bytes, uint64_t created_ns)
{
    if (stream->segment_count == stream->segment_capacity) {
        size_t capacity = stream->segment_capacity ? stream->segment_capacity * 2 : 64;
        struct stream_segment *segments = realloc(stream->segments, capacity * sizeof *segments);
        if (!segments)
            return ERR_NO_MEMORY;
        stream->segments = segments;
        stream->segment_capacity = capacity;
    }
    stream->segments[stream->segment_count++] =
        (struct stream_segment){.base_offset = base_offset, .bytes = bytes, .created_ns = created_ns};
    return 0;
}

/* Gives the file `made` its header and its name, and makes it the active one. */
static int activate(struct journal_stream *stream, int file, const char *made, uint64_t zeroed_to, uint64_t base_offset)
{
    struct format_segment_header header = {.key = stream->key, .base_offset = base_offset, .created_ns = journal_wall_ns(stream->clock)};
    memcpy(header.stream, stream->name, sizeof header.stream);
    uint8_t block[FORMAT_SEGMENT_HEADER_SIZE];
    format_segment_header_encode(block, &header);
    int error = disk_write_fully(stream->disk, file, block, sizeof block, 0);
    if (!error) {
        error = stream->disk->ops->sync(stream->disk, file);
        error = error ? error_from_errno(-error) : 0;
    }
    if (error)
        return error;
    char name[32], from[STREAM_PATH_MAX], to[STREAM_PATH_MAX];
    segment_name(base_offset, name);
    stream_file_path(stream, made, from);
    stream_file_path(stream, name, to);
    int old = -1;
    bool spoilt = false;
    pthread_mutex_lock(&stream->lock);
    while (stream->zeroing) /* the keeper is at work in the file that is about to be left */
        pthread_cond_wait(&stream->zero_done, &stream->lock);
    error = stream_add_segment(stream, base_offset, FORMAT_SEGMENT_HEADER_SIZE, header.created_ns);
    if (!error) {
        error = stream->disk->ops->rename(stream->disk, from, to);
        spoilt = !error;
        if (!error)
            error = stream->disk->ops->sync_folder(stream->disk, stream->folder);
        error = error ? error_from_errno(-error) : 0;
        if (error)
            stream->segment_count--;
        spoilt = spoilt && error;
    }
    if (spoilt) {
        /* It has the new name, and perhaps not for good. What is tried next makes another file, for which this one makes room. */
        stream->disk->ops->remove(stream->disk, to);
        if (made == stream_name_prepared) {
            stream->next_file = -1;
            old = file;
        }
    }
    if (!error) {
        old = stream->left_file;
        stream->left_file = stream->file;
        stream->left_unread = stream->guarded && atomic_load(&stream->guard) != base_offset;
        stream->file = file;
        memcpy(stream->path, to, sizeof to);
        if (made == stream_name_prepared)
            stream->next_file = -1; /* only now: until its name is gone the keeper must not make another */
        stream->salt = format_segment_salt(stream->key, base_offset);
        stream->begun_ns = journal_monotonic_ns(stream->clock);
        stream->position = stream->position_seen = FORMAT_SEGMENT_HEADER_SIZE;
        stream->zeroed_to = zeroed_to;
        stream->zeroing_failed = stream->shrinking_failed = false;
    }
    pthread_mutex_unlock(&stream->lock);
    if (old >= 0) /* spoilt, or the keeper has not come to it */
        stream->disk->ops->close(stream->disk, old);
    return error;
}

int stream_file_create(struct journal_stream *stream, const char *name, int *file)
{
    char path[STREAM_PATH_MAX];
    stream_file_path(stream, name, path);
    int opened = stream->disk->ops->open(stream->disk, path, DISK_CREATE);
    if (opened < 0)
        return error_from_errno(-opened);
    *file = opened;
    return 0;
}

/* Begins a new segment: the one that the keeper has prepared, or else one made now, with `zero_size` bytes of zeros. */
static int start_segment(struct journal_stream *stream, uint64_t zero_size)
{
    pthread_mutex_lock(&stream->lock);
    int file = stream->next_file;
    uint64_t zeroed_to = stream->next_zeroed_to;
    pthread_mutex_unlock(&stream->lock);
    if (file >= 0)
        return activate(stream, file, stream_name_prepared, zeroed_to, stream->next_offset);
    int error = stream_file_create(stream, made_in_haste, &file);
    if (error)
        return error;
    int truncated = stream->disk->ops->truncate(stream->disk, file, 0);
    error = truncated ? error_from_errno(-truncated) : zero_size ? stream_file_zero(stream, file, 0, zero_size) : 0;
    if (error) /* most likely the disk is full: what it took is needed elsewhere */
        stream->disk->ops->truncate(stream->disk, file, 0);
    else
        error = activate(stream, file, made_in_haste, zero_size ? zero_size : FORMAT_SEGMENT_HEADER_SIZE, stream->next_offset);
    if (error)
        stream->disk->ops->close(stream->disk, file);
    return error;
}

void stream_say_damage(void *context, const struct reader_damage *damage)
{
    const struct journal_stream *stream = context;
    char text[READER_DAMAGE_TEXT_MAX];
    reader_damage_text(damage, text);
    diagnostics(DIAGNOSTICS_ERROR, "journal", "stream %s: damage in %s. Look at the disk, and restore the file from a copy if there is one",
                stream->name, text);
}

static int start_first_segment(struct journal_stream *stream)
{
    uint64_t first = FORMAT_SEGMENT_HEADER_SIZE + STREAM_ZERO_FIRST;
    if (first > stream->segment_size)
        first = stream->segment_size;
    return start_segment(stream, stream_may_write_ahead(stream, first) ? first : 0);
}

int stream_open(struct journal_stream *stream)
{
    pthread_mutex_init(&stream->lock, NULL);
    pthread_cond_init(&stream->zero_done, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&stream->trimmed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int failed = stream->disk->ops->make_folder(stream->disk, stream->folder);
    if (failed)
        return error_from_errno(-failed);
    int error = stream_recover(stream);
    if (error)
        return error;
    char spare[STREAM_PATH_MAX];
    stream_file_path(stream, stream_name_spare, spare);
    stream->disk->ops->remove(stream->disk, spare);
    shrink_clear(stream);
    atomic_store(&stream->durable, stream->next_offset);
    error = start_first_segment(stream);
    return error_class(error) == ERROR_CLASS_RETRY ? 0 : error; /* the first group tries again, and says what it waits for */
}

int stream_skip(struct journal_stream *stream, uint64_t offset)
{
    assert(stream->file < 0 || stream->position == FORMAT_SEGMENT_HEADER_SIZE);
    if (stream->file >= 0) {
        int failed = stream->disk->ops->remove(stream->disk, stream->path);
        if (failed)
            return error_from_errno(-failed);
        stream->disk->ops->close(stream->disk, stream->file);
        stream->file = -1;
        stream->segment_count--;
    }
    stream->next_offset = offset;
    atomic_store(&stream->durable, offset);
    int error = start_first_segment(stream);
    return error_class(error) == ERROR_CLASS_RETRY ? 0 : error; /* as above */
}

void stream_close(struct journal_stream *stream)
{
    if (stream->file >= 0) {
        /* The next start begins a new segment: this one is sealed, and what was zeroed ahead is given back. */
        _Alignas(8) uint8_t seal[FORMAT_RECORD_HEADER_SIZE];
        format_seal_encode(seal, clock_wall_ns());
        format_record_seal(seal, stream->next_offset, stream->salt, true);
        bool whole = atomic_load(&stream->durable) == stream->next_offset; /* nothing was given up that was written already */
        if (whole && stream->position > FORMAT_SEGMENT_HEADER_SIZE &&
            disk_write_fully(stream->disk, stream->file, seal, sizeof seal, stream->position) == 0)
            stream->position += sizeof seal;
        stream->disk->ops->truncate(stream->disk, stream->file, stream->position);
        stream->disk->ops->sync(stream->disk, stream->file);
        stream->disk->ops->close(stream->disk, stream->file);
    }
    if (stream->left_file >= 0)
        stream->disk->ops->close(stream->disk, stream->left_file);
    if (stream->next_file >= 0)
        stream->disk->ops->close(stream->disk, stream->next_file);
    stream->file = stream->left_file = stream->next_file = -1;
    shrink_abandon(stream);
    free(stream->segments);
    stream->segments = NULL;
    pthread_cond_destroy(&stream->trimmed);
    pthread_cond_destroy(&stream->zero_done);
    pthread_mutex_destroy(&stream->lock);
}

bool stream_has_room(struct journal_stream *stream, uint64_t bytes)
{
    bool empty = stream->position == FORMAT_SEGMENT_HEADER_SIZE;
    uint64_t now_ns = stream->retention.age_ns ? journal_monotonic_ns(stream->clock) : 0;
    if (empty)
        stream->begun_ns = now_ns; /* with this group */
    bool old = stream->retention.age_ns && now_ns - stream->begun_ns >= stream->retention.age_ns;
    return stream->file >= 0 && (empty || (!old && stream->position + bytes <= stream->segment_size));
}

int stream_begin_segment(struct journal_stream *stream)
{
    return start_segment(stream, 0);
}

uint64_t stream_padding(const struct journal_stream *stream, uint64_t bytes)
{
    return -(stream->position + bytes) % STREAM_PAGE_SIZE;
}

bool stream_claim(struct journal_stream *stream, uint64_t bytes)
{
    pthread_mutex_lock(&stream->lock);
    uint64_t end = stream->position + bytes, padded_end = end + stream_padding(stream, bytes);
    while (padded_end > stream->zeroed_to && stream->zeroing)
        pthread_cond_wait(&stream->zero_done, &stream->lock);
    if (padded_end > stream->zeroed_to)
        stream->zeroed_to = padded_end;
    stream->position_seen = end;
    stream->segments[stream->segment_count - 1].bytes = end;
    bool low = stream->zeroed_to < stream->segment_size && end + STREAM_ZERO_AHEAD / 2 > stream->zeroed_to && !stream->zeroing_failed;
    bool unprepared = end > stream->segment_size / 2 && stream->next_file < 0;
    bool left = stream->left_file >= 0;
    pthread_mutex_unlock(&stream->lock);
    return low || unprepared || left;
}
