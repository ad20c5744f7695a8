/* One closed segment becomes a compressed one. See shrink.h for when, frames.h for what is written. */
#include "journal/shrink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "journal/compress.h"
#include "journal/frames.h"
#include "journal/stream.h"

/* A segment that has not become smaller by an eighth after so many bytes, or at its end, stays as it is. */
enum { SHRINK_TRIAL_SIZE = 4 << 20, SHRINK_SYNC_STEP = 1 << 20, SHRINK_PIECE_MAX = 8 << 20 };

static const char made[] = "compressed.seg";

struct shrink {
    struct compressor *compressor;
    struct decompressor *decompressor;

    /* The segment under way. */
    struct journal_stream *stream; /* NULL: none */
    struct segment_file segment;
    uint64_t end_offset;    /* where the next segment begins: behind the last record of this one */
    uint64_t position;      /* in the segment, of the next record */
    uint64_t next_offset;   /* of the next record */
    bool ended;             /* there is none */
    int file;               /* what is being made */
    uint64_t file_position; /* where the next frame goes */
    uint64_t synced;        /* bytes of the file that need no sync any more */
    struct frame *list;     /* [count]: the index */
    size_t count, capacity;
    uint8_t *raw, *packed, *check;
    size_t raw_size;
};

/* What the functions of the work return beside 0 and errors: the segment is compressed already, or not worth it. ERR_CORRUPT is about the
 * segment too: what is damaged stays as it is. */
enum { LEAVE_IT = 1 };

struct shrink *shrink_create(int level)
{
    struct shrink *shrink = calloc(1, sizeof *shrink);
    if (!shrink)
        return NULL;
    shrink->file = shrink->segment.file = -1;
    shrink->compressor = compressor_create(level);
    shrink->decompressor = decompressor_create();
    if (!shrink->compressor || !shrink->decompressor) {
        shrink_destroy(shrink);
        return NULL;
    }
    return shrink;
}

void shrink_destroy(struct shrink *shrink)
{
    if (!shrink)
        return;
    compressor_destroy(shrink->compressor);
    decompressor_destroy(shrink->decompressor);
    free(shrink);
}

/* ---- which segment ---- */

/* The oldest segment that may be taken. */
static bool choose(struct journal_stream *stream, uint64_t *base_offset, uint64_t *end_offset)
{
    pthread_mutex_lock(&stream->lock);
    size_t i = 0;
    while (i + 1 < stream->segment_count && stream->segments[i].left_as_is)
        i++;
    bool wanted = i + 1 < stream->segment_count && !stream->shrinking_failed;
    if (wanted) {
        *base_offset = stream->segments[i].base_offset;
        *end_offset = stream->segments[i + 1].base_offset;
        wanted = *end_offset <= atomic_load(&stream->durable);
    }
    if (wanted && stream->guarded) {
        /* In this order, as in retire_oldest: whoever comes later, this or the guard, sees what is to be done. */
        atomic_store(&stream->shrink_at, *end_offset);
        wanted = *end_offset <= atomic_load(&stream->guard);
        if (wanted)
            atomic_store(&stream->shrink_at, UINT64_MAX);
    }
    pthread_mutex_unlock(&stream->lock);
    return wanted;
}

bool shrink_is_due(struct journal_stream *stream, uint64_t guard)
{
    uint64_t at = atomic_load(&stream->shrink_at);
    return guard >= at && atomic_compare_exchange_strong(&stream->shrink_at, &at, UINT64_MAX);
}

/* What is under way, among the stream's segments; under the stream's lock. NULL: retention took it away. */
static struct stream_segment *entry(const struct shrink *shrink)
{
    struct journal_stream *stream = shrink->stream;
    for (size_t i = 0; i < stream->segment_count; i++)
        if (stream->segments[i].base_offset == shrink->segment.base_offset)
            return &stream->segments[i];
    return NULL;
}

static bool is_still_there(const struct shrink *shrink)
{
    pthread_mutex_lock(&shrink->stream->lock);
    bool there = entry(shrink);
    pthread_mutex_unlock(&shrink->stream->lock);
    return there;
}

/* ---- beginning and end ---- */

static void made_path(const struct journal_stream *stream, char path[STREAM_PATH_MAX])
{
    snprintf(path, STREAM_PATH_MAX, "%s/%s", stream->folder, made);
}

void shrink_clear(struct journal_stream *stream)
{
    char path[STREAM_PATH_MAX];
    made_path(stream, path);
    stream->disk->ops->remove(stream->disk, path);
}

static void release(struct shrink *shrink)
{
    struct disk *disk = shrink->stream->disk;
    if (shrink->file >= 0)
        disk->ops->close(disk, shrink->file);
    if (shrink->segment.file >= 0)
        segment_close(disk, &shrink->segment);
    free(shrink->list);
    free(shrink->raw);
    free(shrink->packed);
    free(shrink->check);
    *shrink = (struct shrink){.compressor = shrink->compressor, .decompressor = shrink->decompressor, .file = -1, .segment = {.file = -1}};
}

void shrink_abandon(struct journal_stream *stream)
{
    struct shrink *shrink = stream->shrink;
    if (!shrink || shrink->stream != stream)
        return;
    bool begun = shrink->file >= 0;
    release(shrink);
    if (begun)
        shrink_clear(stream);
}

static void give_up(struct shrink *shrink, int why)
{
    struct journal_stream *stream = shrink->stream;
    char name[32];
    segment_name(shrink->segment.base_offset, name);
    bool for_good = why == LEAVE_IT || why == ERR_CORRUPT;
    if (why == ERR_CORRUPT)
        diagnostics(DIAGNOSTICS_WARNING, "journal", "stream %s: %s is damaged, and not compressed; `spindle journal verify` tells where",
                    stream->name, name);
    else if (!for_good)
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "journal", "stream %s: %s could not be compressed: %s. It is tried again with the next segment",
                     stream->name, name, error_text(why));
    pthread_mutex_lock(&stream->lock);
    struct stream_segment *segment = entry(shrink);
    if (for_good && segment)
        segment->left_as_is = true;
    stream->shrinking_failed = stream->shrinking_failed || !for_good;
    pthread_mutex_unlock(&stream->lock);
    shrink_abandon(stream);
}

static int write_header(struct shrink *shrink)
{
    const struct journal_stream *stream = shrink->stream;
    struct format_segment_header header = {
        .key = stream->key, .base_offset = shrink->segment.base_offset, .created_ns = shrink->segment.created_ns, .compressed = true};
    memcpy(header.stream, stream->name, sizeof header.stream);
    uint8_t block[FORMAT_SEGMENT_HEADER_SIZE];
    format_segment_header_encode(block, &header);
    return disk_write_fully(shrink->stream->disk, shrink->file, block, sizeof block, 0);
}

static bool reserve_raw(struct shrink *shrink, size_t size)
{
    free(shrink->raw);
    free(shrink->packed);
    free(shrink->check);
    shrink->raw = malloc(size);
    shrink->check = malloc(size);
    shrink->packed = malloc(FRAME_HEADER_SIZE + compress_bound(size) + 8);
    shrink->raw_size = size;
    return shrink->raw && shrink->check && shrink->packed;
}

static int begin(struct shrink *shrink, struct journal_stream *stream, uint64_t base_offset, uint64_t end_offset)
{
    struct disk *disk = stream->disk;
    char path[STREAM_PATH_MAX];
    shrink->stream = stream;
    shrink->segment = (struct segment_file){.file = -1, .base_offset = base_offset};
    int error = segment_open(disk, stream->folder, base_offset, DISK_READ, &shrink->segment);
    if (error)
        return error;
    if (shrink->segment.frames || shrink->segment.header_lost)
        return shrink->segment.frames ? LEAVE_IT : ERR_CORRUPT;
    int64_t size = disk->ops->size(disk, shrink->segment.file);
    if (size > 0 && !stream_may_write_ahead(stream, (uint64_t)size))
        return ERR_NO_SPACE;
    made_path(stream, path);
    shrink->file = disk->ops->open(disk, path, DISK_CREATE);
    int failed = shrink->file < 0 ? shrink->file : disk->ops->truncate(disk, shrink->file, 0);
    if (failed)
        return error_from_errno(-failed);
    shrink->end_offset = end_offset;
    shrink->next_offset = base_offset;
    shrink->position = shrink->file_position = FORMAT_SEGMENT_HEADER_SIZE;
    return write_header(shrink);
}

/* ---- frames ---- */

/* Reads the whole records in the next `limit` bytes, or up to the segment's end: *size bytes of them, with *records that have an offset of
 * their own. */
static int gather(struct shrink *shrink, size_t limit, size_t *size, uint32_t *records)
{
    size_t have, at = 0;
    uint64_t unreadable_to;
    uint32_t count = 0, length = 0;
    struct disk *disk = shrink->stream->disk;
    if (shrink->raw_size < limit && !reserve_raw(shrink, limit))
        return ERR_NO_MEMORY;
    int error = segment_read(disk, &shrink->segment, shrink->raw, limit, shrink->position, &have, &unreadable_to);
    if (error)
        return error;
    enum format_check check;
    while ((check = format_record_check(shrink->raw + at, have - at, shrink->segment.salt, &length)) == FORMAT_VALID) {
        struct message message;
        format_record_decode(shrink->raw + at, &message);
        if (message.offset != shrink->next_offset + count)
            return ERR_CORRUPT;
        count += format_record_is_message(shrink->raw + at);
        at += length;
    }
    bool full = check == FORMAT_CUT && have == limit;
    if (full && at == 0 && length > SHRINK_PIECE_MAX) /* the keeper has other work, for which it would be away too long */
        return LEAVE_IT;
    if (full && at == 0) /* a record that is longer than a frame */
        return gather(shrink, length, size, records);
    if (!full && shrink->next_offset + count != shrink->end_offset)
        return check == FORMAT_CUT && have - at < FORMAT_RECORD_HEADER_SIZE ? LEAVE_IT : ERR_CORRUPT;
    shrink->ended = !full;
    *size = at;
    *records = count;
    return 0;
}

static bool add_entry(struct shrink *shrink, const struct frame *frame)
{
    if (shrink->count == shrink->capacity) {
        size_t capacity = shrink->capacity ? shrink->capacity * 2 : 64;
        struct frame *list = realloc(shrink->list, capacity * sizeof *list);
        if (!list)
            return false;
        shrink->list = list;
        shrink->capacity = capacity;
    }
    shrink->list[shrink->count++] = *frame;
    return true;
}

static int sync_file(struct shrink *shrink)
{
    int failed = shrink->stream->disk->ops->sync(shrink->stream->disk, shrink->file);
    shrink->synced = shrink->file_position;
    return failed ? error_from_errno(-failed) : 0;
}

/* What is written in the place of records that somebody was promised is looked at before it is. */
static int write_frame(struct shrink *shrink, size_t size, uint32_t records)
{
    uint8_t *content = shrink->packed + FRAME_HEADER_SIZE;
    size_t packed = compress(shrink->compressor, content, compress_bound(size), shrink->raw, size);
    if (packed == 0)
        return ERR_NO_MEMORY;
    if (decompress(shrink->decompressor, shrink->check, size, content, packed) || memcmp(shrink->check, shrink->raw, size) != 0)
        return ERR_IO;
    struct frame frame = {.file_position = shrink->file_position,
                          .raw_position = shrink->position,
                          .first_offset = shrink->next_offset,
                          .content_sum = format_sum(content, packed),
                          .record_count = records,
                          .raw_size = (uint32_t)size,
                          .size = (uint32_t)packed};
    frame_header_encode(shrink->packed, &frame, shrink->segment.salt);
    memset(content + packed, 0, 8);
    if (!add_entry(shrink, &frame))
        return ERR_NO_MEMORY;
    int error = disk_write_fully(shrink->stream->disk, shrink->file, shrink->packed, frame_file_size(&frame), shrink->file_position);
    shrink->file_position += frame_file_size(&frame);
    shrink->position += size;
    shrink->next_offset += records;
    if (!error && shrink->file_position - shrink->synced >= SHRINK_SYNC_STEP)
        error = sync_file(shrink);
    return error;
}

static bool is_worth_it(const struct shrink *shrink)
{
    return shrink->file_position <= shrink->position - shrink->position / 8;
}

static int write_index(struct shrink *shrink)
{
    uint8_t end[FRAMES_END_SIZE];
    size_t size = shrink->count * sizeof *shrink->list;
    frames_end_encode(end, shrink->list, shrink->count, shrink->file_position, shrink->position, shrink->next_offset, shrink->segment.salt);
    int error = disk_write_fully(shrink->stream->disk, shrink->file, shrink->list, size, shrink->file_position);
    if (!error)
        error = disk_write_fully(shrink->stream->disk, shrink->file, end, sizeof end, shrink->file_position + size);
    shrink->file_position += size + sizeof end;
    return error;
}

/* Gives what was made the name of the segment, which is gone with that. */
static int take_its_place(struct shrink *shrink)
{
    struct journal_stream *stream = shrink->stream;
    char name[32], from[STREAM_PATH_MAX], to[JOURNAL_PATH_MAX + 40];
    segment_name(shrink->segment.base_offset, name);
    made_path(stream, from);
    snprintf(to, sizeof to, "%s/%s", stream->folder, name);
    int failed = stream->disk->ops->rename(stream->disk, from, to);
    if (failed)
        return error_from_errno(-failed);
    failed = stream->disk->ops->sync_folder(stream->disk, stream->folder);
    if (failed) /* a crash brings the old one back: as good as the new */
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "journal", "stream %s: compression could not sync %s: %s", stream->name, stream->folder,
                     strerror(-failed));
    pthread_mutex_lock(&stream->lock);
    struct stream_segment *segment = entry(shrink);
    segment->bytes = shrink->file_position;
    segment->left_as_is = true;
    pthread_mutex_unlock(&stream->lock);
    stream->disk->ops->forget(stream->disk, shrink->file);
    release(shrink);
    return 0;
}

static int step(struct shrink *shrink)
{
    if (shrink->ended) {
        int error = is_worth_it(shrink) ? write_index(shrink) : LEAVE_IT;
        if (!error)
            error = sync_file(shrink);
        return error ? error : take_its_place(shrink);
    }
    size_t size;
    uint32_t records;
    int error = gather(shrink, FRAMES_RAW_SIZE, &size, &records);
    if (!error && size)
        error = write_frame(shrink, size, records);
    if (!error && shrink->position >= SHRINK_TRIAL_SIZE && !is_worth_it(shrink))
        error = LEAVE_IT;
    return error;
}

bool shrink_step(struct journal_stream *stream, bool full)
{
    struct shrink *shrink = stream->shrink;
    if (!shrink || (shrink->stream && shrink->stream != stream))
        return false;
    if (shrink->stream && (full || !is_still_there(shrink)))
        shrink_abandon(stream);
    uint64_t base_offset, end_offset;
    if (full || (!shrink->stream && !choose(stream, &base_offset, &end_offset)))
        return false;
    int error = shrink->stream ? step(shrink) : begin(shrink, stream, base_offset, end_offset);
    if (error)
        give_up(shrink, error);
    return true;
}
