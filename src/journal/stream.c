/* One stream's files. See stream.h for who does what, format.h for what is in them.
 *
 * A segment comes to be in this order, so that a name of digits always has a valid header behind it: a file of another name is
 * written (zeros, or a retired segment's old bytes), its header is written and synced, it is renamed to its
 * first offset, and the folder is synced. Only then does a group go into it. */
#include "journal/stream.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "base/hash.h"
#include "journal/ends.h"
#include "journal/shrink.h"

/* Two names, so that a scribe never waits for what the keeper prepares, nor takes it half done. */
static const char made_by_keeper[] = "prepared.seg", made_in_haste[] = "next.seg";

static void file_path(const struct journal_stream *stream, const char *name, char path[JOURNAL_PATH_MAX + 40])
{
    snprintf(path, JOURNAL_PATH_MAX + 40, "%s/%s", stream->folder, name);
}

static int write_zeros(struct journal_stream *stream, int file, uint64_t from, uint64_t to)
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

static int add_segment(struct journal_stream *stream, uint64_t base_offset, uint64_t bytes, uint64_t created_ns)
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

/* A stepped journal must run the same way each time, down to its bytes. */
static uint64_t new_key(const struct journal_stream *stream)
{
    uint64_t key = stream->stepped ? hash_bytes(stream->name, strlen(stream->name), 1) : 0;
    while (key == 0)
        if (getrandom(&key, sizeof key, 0) != sizeof key)
            key = clock_wall_ns() * 0x9e3779b97f4a7c15u;
    return key;
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
    char name[32], from[JOURNAL_PATH_MAX + 40], to[JOURNAL_PATH_MAX + 40];
    segment_name(base_offset, name);
    file_path(stream, made, from);
    file_path(stream, name, to);
    int old = -1;
    bool spoilt = false;
    pthread_mutex_lock(&stream->lock);
    while (stream->zeroing) /* the keeper is at work in the file that is about to be left */
        pthread_cond_wait(&stream->zero_done, &stream->lock);
    error = add_segment(stream, base_offset, FORMAT_SEGMENT_HEADER_SIZE, header.created_ns);
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
        if (made == made_by_keeper) {
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
        if (made == made_by_keeper)
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

static int create_file(struct journal_stream *stream, const char *name, int *file)
{
    char path[JOURNAL_PATH_MAX + 40];
    file_path(stream, name, path);
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
        return activate(stream, file, made_by_keeper, zeroed_to, stream->next_offset);
    int error = create_file(stream, made_in_haste, &file);
    if (error)
        return error;
    int truncated = stream->disk->ops->truncate(stream->disk, file, 0);
    error = truncated ? error_from_errno(-truncated) : zero_size ? write_zeros(stream, file, 0, zero_size) : 0;
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

/* Takes a segment of which nothing can be read out of the stream, so that its name is free; it may still be of use to somebody. */
static int set_aside(struct journal_stream *stream, const char *name)
{
    char kept[40], from[JOURNAL_PATH_MAX + 40], to[JOURNAL_PATH_MAX + 40];
    snprintf(kept, sizeof kept, "%s.damaged", name);
    file_path(stream, name, from);
    file_path(stream, kept, to);
    int failed = stream->disk->ops->rename(stream->disk, from, to);
    if (failed)
        return error_from_errno(-failed);
    diagnostics(DIAGNOSTICS_ERROR, "journal", "stream %s: nothing in %s can be read where it stands; it is kept as %s", stream->name, name,
                kept);
    return 0;
}

/* Writes bytes of a file once more. After a sync that failed, what it was to write may stand in memory only; there it is read as if it were
 * on disk, and another sync would find nothing to do. */
static int write_again(struct journal_stream *stream, int file, uint64_t from, uint64_t to)
{
    enum { STEP = 256 << 10 };
    uint8_t *bytes = malloc(STEP);
    int error = bytes ? 0 : ERR_NO_MEMORY;
    while (!error && from < to) {
        ssize_t got = stream->disk->ops->read(stream->disk, file, bytes, to - from < STEP ? (size_t)(to - from) : STEP, from);
        error = got > 0 ? disk_write_fully(stream->disk, file, bytes, (size_t)got, from) : got < 0 ? error_from_errno((int)-got) : ERR_IO;
        from += got > 0 ? (uint64_t)got : 0;
    }
    free(bytes);
    return error;
}

/* A compressed segment is the last when the one behind it held nothing and was removed. It is whole, whatever can be read of it. */
static int recover_compressed(struct journal_stream *stream, const char *name, struct segment_file *segment, uint64_t *bytes)
{
    struct segment_end end = {0};
    int64_t size = stream->disk->ops->size(stream->disk, segment->file);
    int error = size < 0 ? error_from_errno((int)-size) : segment_scan(stream->disk, segment, stream_say_damage, stream, &end);
    if (error)
        return error;
    if (end.next_offset == segment->base_offset)
        return set_aside(stream, name);
    stream->next_offset = end.next_offset;
    *bytes = (uint64_t)size;
    return 0;
}

/* Finds where the last segment ends and cuts off what an unfinished group has left. *bytes: how long it is then, 0 when it is gone: a name
 * is needed again when its file holds no record. */
static int recover_last(struct journal_stream *stream, uint64_t base_offset, uint64_t *bytes, uint64_t *created_ns)
{
    char name[32], path[JOURNAL_PATH_MAX + 40];
    segment_name(base_offset, name);
    file_path(stream, name, path);
    stream->next_offset = base_offset;
    struct segment_file segment;
    int error = segment_open(stream->disk, stream->folder, base_offset, DISK_WRITE, &segment);
    if (error == ERR_CORRUPT) {
        struct reader_damage damage = {
            .length = FORMAT_SEGMENT_HEADER_SIZE, .first_offset = base_offset, .next_offset = base_offset, .unbounded = true};
        snprintf(damage.segment, sizeof damage.segment, "%s", name);
        stream_say_damage(stream, &damage);
        return set_aside(stream, name);
    }
    if (error)
        return error;
    if (segment.frames) {
        *created_ns = segment.created_ns;
        error = recover_compressed(stream, name, &segment, bytes);
        segment_close(stream->disk, &segment);
        return error;
    }
    struct segment_end end = {0};
    error = segment_scan(stream->disk, &segment, stream_say_damage, stream, &end);
    bool readable = end.position > FORMAT_SEGMENT_HEADER_SIZE;
    if (!error && readable)
        error = write_again(stream, segment.file, end.last_group, end.position);
    if (error == ERR_NO_SPACE)
        error = 0; /* a full file system that copies what is written over: it is read as it is */
    if (!error && readable) {
        int failed = stream->disk->ops->truncate(stream->disk, segment.file, end.position);
        if (!failed)
            failed = stream->disk->ops->sync(stream->disk, segment.file);
        error = failed ? error_from_errno(-failed) : 0;
    }
    bool header_lost = segment.header_lost;
    uint64_t begun_ns = segment.created_ns;
    segment_close(stream->disk, &segment);
    if (error)
        return error;
    if (end.torn && !header_lost)
        diagnostics(DIAGNOSTICS_INFO, "journal",
                    "stream %s: an unfinished group at the end of %s was cut off; what a crash leaves there was not acknowledged",
                    stream->name, name);
    if (readable) {
        stream->next_offset = end.next_offset;
        *bytes = end.position;
        *created_ns = begun_ns;
        return 0;
    }
    if (header_lost)
        return set_aside(stream, name);
    int removed = stream->disk->ops->remove(stream->disk, path);
    return removed ? error_from_errno(-removed) : 0;
}

/* What there is to know of a segment that is not the last. */
static int recover_closed(struct journal_stream *stream, uint64_t base_offset, uint64_t *bytes, uint64_t *created_ns)
{
    struct format_segment_header header = {0};
    int file;
    int error = segment_open_plain(stream->disk, stream->folder, base_offset, &file, &header);
    if (error)
        return error;
    int64_t size = stream->disk->ops->size(stream->disk, file);
    stream->disk->ops->close(stream->disk, file);
    *bytes = size < 0 ? 0 : (uint64_t)size;
    *created_ns = header.base_offset == base_offset ? header.created_ns : 0; /* another segment's tells nothing of this one */
    return 0;
}

/* Takes the last segment out of the stream when its header is whole and names another offset, and no record belongs where its name says:
 * the file was renamed, and offsets do not go on behind a name that somebody has made up. Returns 1 when that was so. */
static int set_renamed_aside(struct journal_stream *stream, uint64_t base_offset)
{
    struct format_segment_header header = {.base_offset = base_offset};
    struct segment_file segment;
    struct segment_end end = {0};
    int file;
    int error = segment_open_plain(stream->disk, stream->folder, base_offset, &file, &header);
    if (error)
        return error;
    stream->disk->ops->close(stream->disk, file);
    if (header.base_offset == base_offset)
        return 0;
    error = segment_open(stream->disk, stream->folder, base_offset, DISK_READ, &segment);
    if (error)
        return error == ERR_CORRUPT ? 0 : error;
    error = segment_scan(stream->disk, &segment, NULL, NULL, &end);
    segment_close(stream->disk, &segment);
    if (error || end.position > FORMAT_SEGMENT_HEADER_SIZE)
        return error;
    char name[32];
    segment_name(base_offset, name);
    diagnostics(DIAGNOSTICS_ERROR, "journal",
                "stream %s: %s was renamed: its header says that it begins at offset %" PRIu64
                ". Where that one is missing, give it its name back (%020" PRIu64 ".seg) while no server runs (in %s)",
                stream->name, name, header.base_offset, header.base_offset, stream->folder);
    error = set_aside(stream, name);
    return error ? error : 1;
}

static int recover(struct journal_stream *stream)
{
    uint64_t *bases = NULL;
    size_t count = 0;
    int error = segment_key(stream->disk, stream->folder, &stream->key);
    if (error == ERR_CORRUPT) {
        stream->key = new_key(stream);
        error = 0;
    }
    if (!error)
        error = segment_list(stream->disk, stream->folder, &bases, &count);
    int renamed = 1;
    while (!error && count && renamed == 1) {
        renamed = set_renamed_aside(stream, bases[count - 1]);
        error = renamed < 0 ? renamed : 0;
        count -= renamed == 1;
    }
    for (size_t i = 0; !error && i < count; i++) {
        bool last = i + 1 == count;
        uint64_t bytes = 0, created_ns = 0;
        error = last ? recover_last(stream, bases[i], &bytes, &created_ns) : recover_closed(stream, bases[i], &bytes, &created_ns);
        if (!error && (bytes || !last))
            error = add_segment(stream, bases[i], bytes, created_ns);
    }
    free(bases);
    return error;
}

/* The offsets of what is lost are never given again: a gap, which readers report as damage. */
static void pass_lost_end(struct journal_stream *stream)
{
    if (stream->next_offset >= stream->known_end)
        return;
    char text[ENDS_TEXT_MAX];
    ends_lost_text(stream->next_offset, stream->known_end, text);
    diagnostics(DIAGNOSTICS_ERROR, "journal", "stream %s: %s. It goes on at offset %" PRIu64 " (in %s)", stream->name, text,
                stream->known_end, stream->folder);
    stream->next_offset = stream->known_end;
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
    int failed = stream->disk->ops->make_folder(stream->disk, stream->folder);
    if (failed)
        return error_from_errno(-failed);
    int error = recover(stream);
    if (error)
        return error;
    pass_lost_end(stream);
    char spare[JOURNAL_PATH_MAX + 40];
    file_path(stream, "spare.seg", spare);
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
        format_record_encode(seal, &(struct message){.time_ns = clock_wall_ns(), .flags = FORMAT_FLAG_SEAL}, NULL, 0);
        format_record_seal(seal, stream->next_offset, stream->salt, true);
        if (stream->position > FORMAT_SEGMENT_HEADER_SIZE &&
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
    pthread_cond_destroy(&stream->zero_done);
    pthread_mutex_destroy(&stream->lock);
}

int stream_make_room(struct journal_stream *stream, uint64_t bytes)
{
    bool empty = stream->position == FORMAT_SEGMENT_HEADER_SIZE;
    uint64_t now_ns = stream->retention.age_ns ? journal_monotonic_ns(stream->clock) : 0;
    if (empty)
        stream->begun_ns = now_ns; /* with this group */
    bool old = stream->retention.age_ns && now_ns - stream->begun_ns >= stream->retention.age_ns;
    if (stream->file >= 0 && (empty || (!old && stream->position + bytes <= stream->segment_size)))
        return 0;
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

/* ---- the keeper's part ---- */

static uint64_t zero_step(const struct journal_stream *stream, uint64_t from)
{
    return from + STREAM_ZERO_STEP < stream->segment_size ? from + STREAM_ZERO_STEP : stream->segment_size;
}

/* Through a handle of its own: the system tells each handle of a failed sync once, and what failed may have been the group's pages. */
static int zero_active(struct journal_stream *stream, uint64_t base_offset, uint64_t from, uint64_t to)
{
    char name[32], path[JOURNAL_PATH_MAX + 40];
    segment_name(base_offset, name);
    file_path(stream, name, path);
    int file = stream->disk->ops->open(stream->disk, path, DISK_WRITE);
    if (file < 0)
        return error_from_errno(-file);
    int error = write_zeros(stream, file, from, to);
    stream->disk->ops->close(stream->disk, file);
    return error;
}

static bool zero_ahead(struct journal_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    uint64_t from = stream->zeroed_to;
    bool wanted =
        stream->file >= 0 && !stream->zeroing_failed && from < stream->segment_size && from < stream->position_seen + STREAM_ZERO_AHEAD;
    uint64_t base_offset = wanted ? stream->segments[stream->segment_count - 1].base_offset : 0;
    stream->zeroing = wanted;
    pthread_mutex_unlock(&stream->lock);
    if (!wanted)
        return false;
    uint64_t to = zero_step(stream, from);
    int error = stream_may_write_ahead(stream, to - from) ? zero_active(stream, base_offset, from, to) : ERR_NO_SPACE;
    pthread_mutex_lock(&stream->lock);
    stream->zeroing = false;
    if (error)
        stream->zeroing_failed = true;
    else
        stream->zeroed_to = to;
    pthread_cond_broadcast(&stream->zero_done);
    pthread_mutex_unlock(&stream->lock);
    return true;
}

/* Memory that a full segment leaves is used again for the next, which is cheaper than taking fresh memory for ever. What a consumer has
 * still to read stays. */
static bool close_left(struct journal_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    int file = stream->left_file;
    bool unread = stream->left_unread;
    stream->left_file = -1;
    pthread_mutex_unlock(&stream->lock);
    if (file < 0)
        return false;
    if (!unread)
        stream->disk->ops->forget(stream->disk, file);
    stream->disk->ops->close(stream->disk, file);
    return true;
}

static bool prepare_next(struct journal_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    bool wanted =
        stream->next_file < 0 && (stream->has_spare || !stream->zeroing_failed) && stream->position_seen > stream->segment_size / 2;
    bool spare = stream->has_spare;
    if (wanted)
        stream->has_spare = false;
    pthread_mutex_unlock(&stream->lock);
    if (!wanted)
        return false;
    char next[JOURNAL_PATH_MAX + 40], old[JOURNAL_PATH_MAX + 40];
    file_path(stream, made_by_keeper, next);
    file_path(stream, "spare.seg", old);
    if (spare && stream->disk->ops->rename(stream->disk, old, next) < 0)
        spare = false;
    int file;
    int error = create_file(stream, made_by_keeper, &file);
    uint64_t zeroed_to = 0;
    if (!error) {
        int64_t size = stream->disk->ops->size(stream->disk, file);
        if (spare && size > 0) {
            zeroed_to = (uint64_t)size < stream->segment_size ? (uint64_t)size : stream->segment_size;
        } else {
            /* All of it, while nobody waits for a sync of this file. */
            error = stream_may_write_ahead(stream, stream->segment_size) ? 0 : ERR_NO_SPACE;
            while (!error && zeroed_to < stream->segment_size) {
                uint64_t from = zeroed_to;
                zeroed_to = zero_step(stream, from);
                error = write_zeros(stream, file, from, zeroed_to);
            }
        }
        if (error) {
            /* Most likely the disk is full: what it took is needed elsewhere. */
            stream->disk->ops->close(stream->disk, file);
            stream->disk->ops->remove(stream->disk, next);
        }
    }
    pthread_mutex_lock(&stream->lock);
    if (error) {
        stream->zeroing_failed = true;
    } else {
        stream->next_file = file;
        stream->next_zeroed_to = zeroed_to;
    }
    pthread_mutex_unlock(&stream->lock);
    return true;
}

static void tell_of_leap(const struct journal_stream *stream, const struct retention_look *look)
{
    char ended[CLOCK_TEXT_SIZE];
    clock_wall_text(look->ended_ns, ended);
    diagnostics(
        DIAGNOSTICS_WARNING, "journal",
        "stream %s: what is there from before %s is twice as old as journal.retention_age_s: the clock was set forward, or the server "
        "was away, the setting lowered, or a message long without an outcome. It is removed in %.1f h; if the clock is wrong, set it "
        "right before",
        stream->name, ended, (double)look->hold_ns / 3600e9);
}

/* Under lock. Whether the oldest segment may go: retention.h, and the guard is beyond its last record. */
static bool is_due(struct journal_stream *stream, struct retention_look *look)
{
    *look = (struct retention_look){.look_in_ns = UINT64_MAX};
    bool may = !stream->retention_stopped && stream->segment_count > 1 &&
               (stream->retention.age_ns || retention_by_size(&stream->retention, stream->segments, stream->segment_count));
    if (may && stream->guarded) {
        atomic_store(&stream->retire_at, stream->segments[1].base_offset);
        may = stream->segments[1].base_offset <= atomic_load(&stream->guard);
        if (may)
            atomic_store(&stream->retire_at, UINT64_MAX);
    }
    if (may)
        *look = retention_look(&stream->retention, stream->segments, stream->segment_count, journal_wall_ns(stream->clock),
                               journal_monotonic_ns(stream->clock));
    return look->retire;
}

/* What is retired becomes the next segment, unless the disk is full: then its space is needed at once. Only when it is gone
 * for good may the next one go: a crash that brought back one and not the other would look as if the records between were lost. */
static bool retire_oldest(struct journal_stream *stream, bool full)
{
    char name[32], path[JOURNAL_PATH_MAX + 40], spare[JOURNAL_PATH_MAX + 40];
    struct retention_look look;
    pthread_mutex_lock(&stream->lock);
    bool wanted = is_due(stream, &look);
    bool keep = wanted && !stream->has_spare && !full && stream->segments[0].bytes > stream->segment_size / 2;
    if (wanted)
        segment_name(stream->segments[0].base_offset, name);
    pthread_mutex_unlock(&stream->lock);
    if (look.tell)
        tell_of_leap(stream, &look);
    uint64_t now_ns = journal_monotonic_ns(stream->clock);
    stream->look_at_ns = look.look_in_ns < UINT64_MAX - now_ns ? now_ns + look.look_in_ns : UINT64_MAX;
    if (!wanted)
        return false;
    file_path(stream, name, path);
    file_path(stream, "spare.seg", spare);
    int failed = keep ? stream->disk->ops->rename(stream->disk, path, spare) : stream->disk->ops->remove(stream->disk, path);
    if (failed) {
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "journal", "stream %s: retention could not remove %s: %s. It is tried again later", stream->name,
                     name, strerror(-failed));
        return false;
    }
    failed = stream->disk->ops->sync_folder(stream->disk, stream->folder);
    if (failed)
        diagnostics(DIAGNOSTICS_ERROR, "journal",
                    "stream %s: retention could not sync %s: %s. Nothing more is removed until the next start; look at the disk",
                    stream->name, stream->folder, strerror(-failed));
    pthread_mutex_lock(&stream->lock);
    stream->retention_stopped = failed;
    stream->has_spare = stream->has_spare || (keep && !failed);
    stream->segment_count--;
    memmove(stream->segments, stream->segments + 1, stream->segment_count * sizeof *stream->segments);
    pthread_mutex_unlock(&stream->lock);
    return true;
}

/* On a full disk its space is needed more than it is. */
static bool drop_spare(struct journal_stream *stream)
{
    char spare[JOURNAL_PATH_MAX + 40];
    file_path(stream, "spare.seg", spare);
    pthread_mutex_lock(&stream->lock);
    bool had = stream->has_spare;
    stream->has_spare = false;
    pthread_mutex_unlock(&stream->lock);
    return had && stream->disk->ops->remove(stream->disk, spare) == 0;
}

bool stream_keep(struct journal_stream *stream, bool full)
{
    bool worked = full ? drop_spare(stream) : zero_ahead(stream);
    if (!worked)
        worked = close_left(stream);
    if (!worked)
        worked = retire_oldest(stream, full);
    if (!worked)
        worked = !full && prepare_next(stream);
    if (!worked)
        worked = shrink_step(stream, full);
    return worked;
}
