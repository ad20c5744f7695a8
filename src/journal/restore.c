/* Every record is a group of its own: all of them are synced before anybody reads them, so damage is never mistaken for a torn group. */
#include "journal/restore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/error.h"
#include "journal/format.h"
#include "journal/reader.h"

enum { RESTORE_BLOCK_SIZE = 4 << 20, RESTORE_PATH_MAX = 4200 };

struct restore {
    struct disk *disk;
    char folder[RESTORE_PATH_MAX];
    char stream[FORMAT_STREAM_NAME_MAX + 1];
    uint64_t key, salt;
    uint64_t next_offset;
    int file; /* -1: none */
    uint64_t position;
    uint8_t *block; /* what is not written yet */
    size_t block_size, length;
};

int restore_open(struct restore **out, struct disk *disk, const char *folder, const char *stream)
{
    struct restore *restore = calloc(1, sizeof *restore);
    if (!restore)
        return ERR_NO_MEMORY;
    *restore = (struct restore){.disk = disk, .file = -1, .block_size = RESTORE_BLOCK_SIZE};
    restore->block = aligned_alloc(64, RESTORE_BLOCK_SIZE);
    bool fits = (size_t)snprintf(restore->folder, sizeof restore->folder, "%s", folder) < sizeof restore->folder &&
                (size_t)snprintf(restore->stream, sizeof restore->stream, "%s", stream) < sizeof restore->stream;
    int error = !restore->block ? ERR_NO_MEMORY : !fits ? ERR_INVALID : 0;
    if (!error && getrandom(&restore->key, sizeof restore->key, 0) != sizeof restore->key)
        error = ERR_IO;
    if (error) {
        restore_abandon(restore);
        return error;
    }
    *out = restore;
    return 0;
}

void restore_abandon(struct restore *restore)
{
    if (!restore)
        return;
    if (restore->file >= 0)
        restore->disk->ops->close(restore->disk, restore->file);
    free(restore->block);
    free(restore);
}

static int flush_block(struct restore *restore)
{
    int error = disk_write_fully(restore->disk, restore->file, restore->block, restore->length, restore->position);
    if (error)
        return error;
    restore->position += restore->length;
    restore->length = 0;
    return 0;
}

static int close_segment(struct restore *restore)
{
    if (restore->file < 0)
        return 0;
    int error = flush_block(restore);
    if (!error) {
        int failed = restore->disk->ops->sync(restore->disk, restore->file);
        error = failed ? error_from_errno(-failed) : 0;
    }
    restore->disk->ops->close(restore->disk, restore->file);
    restore->file = -1;
    return error;
}

static int begin_segment(struct restore *restore, uint64_t base_offset, uint64_t created_ns)
{
    int error = close_segment(restore);
    if (error)
        return error;
    char name[32], path[RESTORE_PATH_MAX + 40];
    segment_name(base_offset, name);
    snprintf(path, sizeof path, "%s/%s", restore->folder, name);
    int file = restore->disk->ops->open(restore->disk, path, DISK_CREATE);
    if (file < 0)
        return error_from_errno(-file);
    restore->file = file;
    restore->position = 0;
    restore->next_offset = base_offset;
    restore->salt = format_segment_salt(restore->key, base_offset);
    struct format_segment_header header = {.key = restore->key, .base_offset = base_offset, .created_ns = created_ns};
    memcpy(header.stream, restore->stream, sizeof header.stream);
    format_segment_header_encode(restore->block, &header);
    restore->length = FORMAT_SEGMENT_HEADER_SIZE;
    return 0;
}

static int reserve(struct restore *restore, size_t size)
{
    if (restore->block_size - restore->length >= size)
        return 0;
    int error = flush_block(restore);
    if (error || restore->block_size >= size)
        return error;
    uint8_t *block = aligned_alloc(64, (size + 63) & ~(size_t)63);
    if (!block)
        return ERR_NO_MEMORY;
    free(restore->block);
    restore->block = block;
    restore->block_size = size;
    return 0;
}

int restore_add(struct restore *restore, const struct message *message, const uint64_t *sources, size_t source_count)
{
    size_t size = format_record_size(message, source_count);
    int error = 0;
    if (message->offset < restore->next_offset)
        return ERR_INVALID;
    if (size > FORMAT_RECORD_SIZE_MAX || source_count > FORMAT_SOURCES_MAX)
        return ERR_LIMIT;
    if (restore->file < 0 || message->offset > restore->next_offset || restore->position + restore->length + size > RESTORE_SEGMENT_SIZE)
        error = begin_segment(restore, message->offset, message->time_ns);
    if (!error)
        error = reserve(restore, size);
    if (error)
        return error;
    format_record_encode(restore->block + restore->length, message, sources, source_count);
    format_record_seal(restore->block + restore->length, message->offset, restore->salt, true);
    restore->length += size;
    restore->next_offset = message->offset + 1;
    return 0;
}

/* A seal behind the last record; or, where the stream goes on further behind, an empty segment that is named so. */
static int write_end(struct restore *restore, uint64_t next_offset)
{
    if (next_offset < restore->next_offset)
        return ERR_INVALID;
    bool gap = next_offset > restore->next_offset;
    if (restore->file >= 0) {
        int error = reserve(restore, FORMAT_RECORD_HEADER_SIZE);
        if (error)
            return error;
        format_seal_encode(restore->block + restore->length, clock_wall_ns());
        restore->length += format_record_seal(restore->block + restore->length, restore->next_offset, restore->salt, true);
    }
    return gap ? begin_segment(restore, next_offset, clock_wall_ns()) : 0;
}

int restore_finish(struct restore *restore, uint64_t next_offset)
{
    int error = write_end(restore, next_offset);
    if (!error)
        error = close_segment(restore);
    if (!error) {
        int failed = restore->disk->ops->sync_folder(restore->disk, restore->folder);
        error = failed ? error_from_errno(-failed) : 0;
    }
    restore_abandon(restore);
    return error;
}
