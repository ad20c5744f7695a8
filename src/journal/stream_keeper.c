/* What the keeper thread does for a stream: zeros ahead of what is written, the segment prepared for after it, retention. */
#include <stdlib.h>
#include <string.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "journal/shrink.h"
#include "journal/stream_parts.h"
#include "journal/trim.h"

static uint64_t zero_step(const struct journal_stream *stream, uint64_t from)
{
    return from + STREAM_ZERO_STEP < stream->segment_size ? from + STREAM_ZERO_STEP : stream->segment_size;
}

/* Through a handle of its own: the system tells each handle of a failed sync once, and what failed may have been the group's pages. */
static int zero_active(struct journal_stream *stream, uint64_t base_offset, uint64_t from, uint64_t to)
{
    char name[32], path[STREAM_PATH_MAX];
    segment_name(base_offset, name);
    stream_file_path(stream, name, path);
    int file = stream->disk->ops->open(stream->disk, path, DISK_WRITE);
    if (file < 0)
        return error_from_errno(-file);
    int error = stream_file_zero(stream, file, from, to);
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
    char next[STREAM_PATH_MAX], old[STREAM_PATH_MAX];
    stream_file_path(stream, stream_name_prepared, next);
    stream_file_path(stream, stream_name_spare, old);
    if (spare && stream->disk->ops->rename(stream->disk, old, next) < 0)
        spare = false;
    int file;
    int error = stream_file_create(stream, stream_name_prepared, &file);
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
                error = stream_file_zero(stream, file, from, zeroed_to);
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

/* Before the first file goes: what is removed on purpose is nothing that somebody has deleted. `asked`: whoever asks says it. */
static bool note_first(struct journal_stream *stream, uint64_t first_left, bool asked)
{
    if (journal_note_first(stream->journal, stream, first_left))
        return true;
    pthread_mutex_lock(&stream->lock);
    trim_fail(stream, ERR_IO);
    pthread_mutex_unlock(&stream->lock);
    if (!asked)
        DIAG_LIMITED(
            DIAGNOSTICS_WARNING, "journal",
            "stream %s: retention removes nothing, since it cannot note in `ends` what it is about to remove; look at the disk. It is "
            "tried again later",
            stream->name);
    return false;
}

/* What is retired becomes the next segment, unless the disk is full or somebody asks for its space: then that is needed at once. Only when
 * it is gone for good may the next one go: a crash that brought back one and not the other would look as if the records between were lost.
 */
static bool retire_oldest(struct journal_stream *stream, bool full)
{
    char name[32], path[STREAM_PATH_MAX], spare[STREAM_PATH_MAX];
    struct retention_look look;
    pthread_mutex_lock(&stream->lock);
    bool asked = trim_is_asked(stream), wanted = is_due(stream, &look) || asked;
    bool keep = wanted && !asked && !stream->has_spare && !full && stream->segments[0].bytes > stream->segment_size / 2;
    uint64_t first_left = wanted ? stream->segments[1].base_offset : 0;
    if (wanted)
        segment_name(stream->segments[0].base_offset, name);
    pthread_mutex_unlock(&stream->lock);
    if (look.tell)
        tell_of_leap(stream, &look);
    uint64_t now_ns = journal_monotonic_ns(stream->clock);
    stream->look_at_ns = look.look_in_ns < UINT64_MAX - now_ns ? now_ns + look.look_in_ns : UINT64_MAX;
    if (!wanted)
        return false;
    if (!note_first(stream, first_left, asked))
        return false;
    stream_file_path(stream, name, path);
    stream_file_path(stream, stream_name_spare, spare);
    int failed = keep ? stream->disk->ops->rename(stream->disk, path, spare) : stream->disk->ops->remove(stream->disk, path);
    if (failed) {
        pthread_mutex_lock(&stream->lock);
        trim_fail(stream, error_from_errno(-failed));
        pthread_mutex_unlock(&stream->lock);
        if (!asked) /* else whoever asks says so */
            DIAG_LIMITED(DIAGNOSTICS_WARNING, "journal", "stream %s: retention could not remove %s: %s. It is tried again later",
                         stream->name, name, strerror(-failed));
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
    trim_note(stream);
    stream->segment_count--;
    memmove(stream->segments, stream->segments + 1, stream->segment_count * sizeof *stream->segments);
    pthread_mutex_unlock(&stream->lock);
    return true;
}

/* On a full disk its space is needed more than it is. */
static bool drop_spare(struct journal_stream *stream)
{
    char spare[STREAM_PATH_MAX];
    stream_file_path(stream, stream_name_spare, spare);
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
