/* A stream's files at the start: which segments there are, where the last one ends, and what of it cannot stay as it is. */
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
#include "journal/stream_parts.h"

/* A stepped journal must run the same way each time, down to its bytes. */
static uint64_t new_key(const struct journal_stream *stream)
{
    uint64_t key = stream->stepped ? hash_bytes(stream->name, strlen(stream->name), 1) : 0;
    while (key == 0)
        if (getrandom(&key, sizeof key, 0) != sizeof key)
            key = clock_wall_ns() * 0x9e3779b97f4a7c15u;
    return key;
}

/* Takes a segment of which nothing can be read out of the stream, so that its name is free; it may still be of use to somebody. */
static int set_aside(struct journal_stream *stream, const char *name)
{
    char kept[40], from[STREAM_PATH_MAX], to[STREAM_PATH_MAX];
    snprintf(kept, sizeof kept, "%s.damaged", name);
    stream_file_path(stream, name, from);
    stream_file_path(stream, kept, to);
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
    char name[32], path[STREAM_PATH_MAX];
    segment_name(base_offset, name);
    stream_file_path(stream, name, path);
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
        error = write_again(stream, segment.file, end.open_from, end.position);
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

/* Nothing follows from it but that it is said; what the books of a consumed stream lack they say themselves. */
static void say_lost_beginning(const struct journal_stream *stream)
{
    if (!stream->segment_count || stream->segments[0].base_offset <= stream->known_first)
        return;
    char text[ENDS_TEXT_MAX];
    ends_lost_beginning_text(stream->known_first, stream->segments[0].base_offset, text);
    diagnostics(DIAGNOSTICS_ERROR, "journal", "stream %s: %s (in %s)", stream->name, text, stream->folder);
}

int stream_recover(struct journal_stream *stream)
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
            error = stream_add_segment(stream, bases[i], bytes, created_ns);
    }
    free(bases);
    if (!error) {
        say_lost_beginning(stream);
        pass_lost_end(stream);
    }
    return error;
}
