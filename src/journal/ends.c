#include "journal/ends.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

enum { ENDS_PATH_MAX = 4200 };

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
            ends_raise(&merged, read.streams[i].stream, read.streams[i].next_offset);
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

uint64_t ends_of(const struct format_ends *ends, const char *stream)
{
    for (uint32_t i = 0; i < ends->count; i++)
        if (strcmp(ends->streams[i].stream, stream) == 0)
            return ends->streams[i].next_offset;
    return 0;
}

bool ends_raise(struct format_ends *ends, const char *stream, uint64_t next_offset)
{
    uint32_t i = 0;
    while (i < ends->count && strcmp(ends->streams[i].stream, stream) != 0)
        i++;
    if (i == FORMAT_ENDS_MAX || (i < ends->count && ends->streams[i].next_offset >= next_offset))
        return false;
    if (i == ends->count) {
        snprintf(ends->streams[i].stream, sizeof ends->streams[i].stream, "%s", stream);
        ends->count++;
    }
    ends->streams[i].next_offset = next_offset;
    return true;
}

void ends_lost_text(uint64_t next, uint64_t known, char text[ENDS_TEXT_MAX])
{
    char lost[96];
    if (known == next + 1)
        snprintf(lost, sizeof lost, "offset %" PRIu64 " is lost", next);
    else
        snprintf(lost, sizeof lost, "offsets %" PRIu64 " to %" PRIu64 " are lost", next, known - 1);
    snprintf(text, ENDS_TEXT_MAX,
             "it had come to offset %" PRIu64 ", but its files end before offset %" PRIu64
             ": %s, acknowledged ones perhaps among them. Its "
             "newest segments were deleted, cut, damaged, are of an older copy, or were not yet on disk when the machine lost power (with "
             "data.durability os or memory); put them back if you have them, while no server runs",
             known - 1, next, lost);
}
