#include "journal/ends.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

enum { ENDS_PATH_MAX = 4200 };

/* NULL: nothing is noted of it. */
static struct format_end *find(struct format_ends *ends, const char *stream)
{
    uint32_t i = 0;
    while (i < ends->count && strcmp(ends->streams[i].stream, stream) != 0)
        i++;
    return i < ends->count ? &ends->streams[i] : NULL;
}

static int open_ends(struct disk *disk, const char *data_folder, enum disk_open how, int *file)
{
    char path[ENDS_PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/ends", data_folder) >= sizeof path)
        return ERR_INVALID;
    int opened = disk->ops->open(disk, path, how);
    if (opened < 0)
        return error_from_errno(-opened);
    *file = opened;
    return 0;
}

/* What lies beyond the end of the file stays zero, which does not check out. A block that cannot be read is as good as one that does not.
 */
static int read_block(struct disk *disk, int file, uint64_t position, uint8_t block[FORMAT_ENDS_SIZE])
{
    memset(block, 0, FORMAT_ENDS_SIZE);
    for (size_t have = 0; have < FORMAT_ENDS_SIZE;) {
        ssize_t got = disk->ops->read(disk, file, block + have, FORMAT_ENDS_SIZE - have, position + have);
        if (got < 0)
            return error_from_errno((int)-got);
        if (got == 0)
            break;
        have += (size_t)got;
    }
    return 0;
}

static void merge(struct format_ends *ends, const struct format_end *read)
{
    struct format_end *end = find(ends, read->stream);
    if (!end && ends->count < FORMAT_ENDS_MAX) {
        ends->streams[ends->count++] = *read;
    } else if (end) {
        end->next_offset = read->next_offset > end->next_offset ? read->next_offset : end->next_offset;
        end->first_offset = read->first_offset > end->first_offset ? read->first_offset : end->first_offset;
    }
}

int ends_read(struct disk *disk, const char *data_folder, struct format_ends *ends)
{
    struct format_ends read = {0}, merged = {0};
    int file, error = open_ends(disk, data_folder, DISK_READ, &file), failed = ERR_CORRUPT;
    if (error)
        return error;
    bool any = false;
    for (unsigned turn = 0; turn < 2; turn++) {
        uint8_t block[FORMAT_ENDS_SIZE];
        error = read_block(disk, file, turn * FORMAT_ENDS_SIZE, block);
        if (!error)
            error = format_ends_decode(block, &read);
        if (error && error != ERR_CORRUPT)
            failed = error;
        if (error)
            continue;
        any = true;
        for (uint32_t i = 0; i < read.count; i++)
            merge(&merged, &read.streams[i]);
    }
    disk->ops->close(disk, file);
    if (!any)
        return failed;
    *ends = merged;
    return 0;
}

int ends_write(struct disk *disk, const char *data_folder, const struct format_ends *ends, uint64_t turn, bool sync)
{
    uint8_t block[FORMAT_ENDS_SIZE];
    int file, error = open_ends(disk, data_folder, DISK_CREATE, &file);
    if (error)
        return error;
    format_ends_encode(block, ends);
    error = disk_write_fully(disk, file, block, sizeof block, turn % 2 * FORMAT_ENDS_SIZE);
    if (!error && sync) {
        int failed = disk->ops->sync(disk, file);
        error = failed ? error_from_errno(-failed) : 0;
    }
    disk->ops->close(disk, file);
    return error;
}

int ends_write_both(struct disk *disk, const char *data_folder, const struct format_ends *ends)
{
    int error = ends_write(disk, data_folder, ends, 0, true);
    return error ? error : ends_write(disk, data_folder, ends, 1, true);
}

int ends_remove(struct disk *disk, const char *data_folder)
{
    char path[ENDS_PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/ends", data_folder) >= sizeof path)
        return ERR_INVALID;
    int failed = disk->ops->remove(disk, path);
    return failed && failed != -ENOENT ? error_from_errno(-failed) : 0;
}

uint64_t ends_of(const struct format_ends *ends, const char *stream)
{
    for (uint32_t i = 0; i < ends->count; i++)
        if (strcmp(ends->streams[i].stream, stream) == 0)
            return ends->streams[i].next_offset;
    return 0;
}

uint64_t ends_first_of(const struct format_ends *ends, const char *stream)
{
    for (uint32_t i = 0; i < ends->count; i++)
        if (strcmp(ends->streams[i].stream, stream) == 0)
            return ends->streams[i].first_offset;
    return FORMAT_BEGINNING_UNKNOWN;
}

/* Makes one where there is none; NULL: there are FORMAT_ENDS_MAX others. */
static struct format_end *find_or_add(struct format_ends *ends, const char *stream)
{
    struct format_end *end = find(ends, stream);
    if (end || ends->count == FORMAT_ENDS_MAX)
        return end;
    end = &ends->streams[ends->count++];
    *end = (struct format_end){.first_offset = FORMAT_BEGINNING_UNKNOWN};
    snprintf(end->stream, sizeof end->stream, "%s", stream);
    return end;
}

bool ends_raise(struct format_ends *ends, const char *stream, uint64_t next_offset)
{
    bool known = find(ends, stream);
    struct format_end *end = find_or_add(ends, stream);
    if (!end || (known && end->next_offset >= next_offset))
        return false;
    end->next_offset = next_offset;
    return true;
}

bool ends_raise_first(struct format_ends *ends, const char *stream, uint64_t first_offset)
{
    struct format_end *end = find_or_add(ends, stream);
    if (!end || (end->first_offset != FORMAT_BEGINNING_UNKNOWN && end->first_offset >= first_offset))
        return false;
    end->first_offset = first_offset;
    return true;
}

int ends_note_first(struct disk *disk, const char *data_folder, const char *stream, uint64_t first_offset)
{
    struct format_ends ends;
    if (ends_read(disk, data_folder, &ends) || ends_first_of(&ends, stream) == FORMAT_BEGINNING_UNKNOWN ||
        !ends_raise_first(&ends, stream, first_offset))
        return 0;
    return ends_write_both(disk, data_folder, &ends);
}

static void lost_offsets(uint64_t first, uint64_t next, char text[96])
{
    if (next == first + 1)
        snprintf(text, 96, "offset %" PRIu64 " is lost", first);
    else
        snprintf(text, 96, "offsets %" PRIu64 " to %" PRIu64 " are lost", first, next - 1);
}

void ends_lost_beginning_text(uint64_t known, uint64_t first, char text[ENDS_TEXT_MAX])
{
    char lost[96];
    lost_offsets(known, first, lost);
    char removed[96] = "neither retention nor a trim has removed anything";
    if (known)
        snprintf(removed, sizeof removed, "retention or a trim has removed only what lies before offset %" PRIu64, known);
    snprintf(text, ENDS_TEXT_MAX,
             "its first file begins at offset %" PRIu64
             ", but %s: %s. Its oldest segments were deleted, moved or damaged; put them back if you have them, while no server runs",
             first, removed, lost);
}

void ends_lost_text(uint64_t next, uint64_t known, char text[ENDS_TEXT_MAX])
{
    char lost[96];
    lost_offsets(next, known, lost);
    snprintf(text, ENDS_TEXT_MAX,
             "it had come to offset %" PRIu64 ", but its files end before offset %" PRIu64
             ": %s, acknowledged ones perhaps among them. Its "
             "newest segments were deleted, cut, damaged, are of an older copy, or were not yet on disk when the machine lost power (with "
             "data.durability os or memory); put them back if you have them, while no server runs",
             known - 1, next, lost);
}
