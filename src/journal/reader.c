/* The reader: one open segment, a position in it, and the rule for what to do where no record checks out. */
#include "journal/reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { READER_BLOCK_SIZE = 1 << 20, READER_MESSAGES_MAX = 4096, READER_PATH_MAX = 4096 };

struct reader {
    struct disk *disk;
    char folder[READER_PATH_MAX];
    reader_on_damage on_damage;
    void *context;
    int file;             /* -1: none open */
    uint64_t base_offset; /* of the open segment */
    uint64_t salt;
    uint64_t position;    /* of the next record in the open segment */
    uint64_t next_offset; /* of the next record in the open segment */
    uint64_t skip_until;  /* records below it are read and not handed out */
    /* What reader_next hands out from. */
    uint8_t *block;
    size_t block_size;
    struct message *messages;
    size_t count, at;
};

static int open_segment(struct reader *reader, uint64_t base_offset)
{
    char name[32], path[READER_PATH_MAX + 40];
    segment_name(base_offset, name);
    snprintf(path, sizeof path, "%s/%s", reader->folder, name);
    int file = reader->disk->ops->open(reader->disk, path, DISK_READ);
    if (file < 0)
        return error_from_errno(-file);
    struct format_segment_header header;
    int error = segment_header_read(reader->disk, file, &header);
    if (!error && header.base_offset != base_offset)
        error = ERR_CORRUPT;
    if (error) {
        reader->disk->ops->close(reader->disk, file);
        return error;
    }
    if (reader->file >= 0)
        reader->disk->ops->close(reader->disk, reader->file);
    reader->file = file;
    reader->base_offset = base_offset;
    reader->salt = header.salt;
    reader->position = FORMAT_SEGMENT_HEADER_SIZE;
    return 0;
}

static void report(struct reader *reader, uint64_t position, uint64_t length, uint64_t next_offset)
{
    struct reader_damage damage = {.position = position, .length = length, .first_offset = reader->next_offset, .next_offset = next_offset};
    segment_name(reader->base_offset, damage.segment);
    if (reader->on_damage)
        reader->on_damage(reader->context, &damage);
}

/* Opens the segment that holds next_offset, or the first behind it. `after` (when something is open): only segments behind the open
 * one count. ERR_TRUNCATED when there is none; a segment whose header is unreadable is reported and passed over. */
static int open_next(struct reader *reader)
{
    uint64_t *bases = NULL;
    size_t count = 0, pick = 0;
    bool first = reader->file < 0;
    int error = segment_list(reader->disk, reader->folder, &bases, &count);
    if (error)
        return error;
    if (reader->file >= 0) {
        while (pick < count && bases[pick] <= reader->base_offset)
            pick++;
    } else {
        while (pick + 1 < count && bases[pick + 1] <= reader->skip_until)
            pick++;
    }
    error = ERR_TRUNCATED;
    for (; pick < count; pick++) {
        error = open_segment(reader, bases[pick]);
        if (error != ERR_CORRUPT && error != ERR_NOT_FOUND)
            break;
        if (error == ERR_CORRUPT) {
            reader->base_offset = bases[pick];
            report(reader, 0, FORMAT_SEGMENT_HEADER_SIZE, pick + 1 < count ? bases[pick + 1] : reader->next_offset);
        }
        error = ERR_TRUNCATED;
    }
    if (!error && (first || reader->base_offset > reader->next_offset))
        reader->next_offset = reader->base_offset;
    free(bases);
    return error;
}

int reader_open(struct reader **out, struct disk *disk, const char *folder, uint64_t from, reader_on_damage on_damage, void *context)
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return ERR_NO_MEMORY;
    *reader =
        (struct reader){.disk = disk, .on_damage = on_damage, .context = context, .file = -1, .next_offset = from, .skip_until = from};
    if ((size_t)snprintf(reader->folder, sizeof reader->folder, "%s", folder) >= sizeof reader->folder) {
        free(reader);
        return ERR_INVALID;
    }
    int error = open_next(reader);
    if (error && error != ERR_TRUNCATED) {
        reader_close(reader);
        return error;
    }
    *out = reader;
    return 0;
}

void reader_place(const struct reader *reader, struct reader_place *place)
{
    *place = (struct reader_place){.base_offset = reader->base_offset, .position = reader->position, .next_offset = reader->next_offset};
}

int reader_open_at(struct reader **out, struct disk *disk, const char *folder, const struct reader_place *place, uint64_t from,
                   reader_on_damage on_damage, void *context)
{
    struct reader *reader;
    int error = reader_open(&reader, disk, folder, from, on_damage, context);
    if (error)
        return error;
    if (place && reader->file >= 0 && reader->base_offset == place->base_offset && place->next_offset <= from &&
        place->position > reader->position) {
        reader->position = place->position;
        reader->next_offset = place->next_offset;
    }
    *out = reader;
    return 0;
}

void reader_close(struct reader *reader)
{
    if (!reader)
        return;
    if (reader->file >= 0)
        reader->disk->ops->close(reader->disk, reader->file);
    free(reader->block);
    free(reader->messages);
    free(reader);
}

static int read_fully(struct reader *reader, uint8_t *block, size_t size, uint64_t position, size_t *have)
{
    *have = 0;
    while (*have < size) {
        ssize_t got = reader->disk->ops->read(reader->disk, reader->file, block + *have, size - *have, position + *have);
        if (got < 0)
            return error_from_errno((int)-got);
        if (got == 0)
            break;
        *have += (size_t)got;
    }
    return 0;
}

/* Whether a record stands at the reader's position after all: the writer may have been at it when it was read. */
static bool stands_now(struct reader *reader)
{
    uint8_t header[FORMAT_RECORD_HEADER_SIZE];
    size_t have;
    uint32_t length;
    if (read_fully(reader, header, sizeof header, reader->position, &have) ||
        format_record_check(header, have, reader->salt, &length) != FORMAT_CUT)
        return false;
    uint8_t *record = malloc(length);
    bool stands = record && length > sizeof header && !read_fully(reader, record, length, reader->position, &have) &&
                  format_record_check(record, have, reader->salt, &length) == FORMAT_VALID;
    free(record);
    return stands;
}

/* What lies at the reader's position is no record. Decides between the next segment, damage to pass over, and the end of the stream.
 * Returns 0 to try again, ERR_TRUNCATED at the end. */
static int pass_over(struct reader *reader)
{
    uint64_t old_base = reader->base_offset, old_position = reader->position, expected = reader->next_offset;
    uint64_t *bases = NULL;
    size_t count = 0;
    int error = segment_list(reader->disk, reader->folder, &bases, &count);
    if (error)
        return error;
    size_t later = 0;
    bool trimmed = true; /* retention took the open segment away: what is gone is no damage */
    for (; later < count && bases[later] <= old_base; later++)
        trimmed = trimmed && bases[later] != old_base;
    bool has_later = later < count;
    bool follows = has_later && (trimmed || bases[later] == expected);
    free(bases);
    if (follows)
        return open_next(reader);
    struct segment_found found;
    error = segment_resynchronise(reader->disk, reader->file, old_position, reader->salt, expected, &found);
    if (error)
        return error;
    if (found.any && (found.later_group || has_later)) {
        if (found.position > old_position && !stands_now(reader)) {
            report(reader, old_position, found.position - old_position, found.offset);
            reader->position = found.position;
            reader->next_offset = found.offset;
        }
        return 0;
    }
    if (!has_later)
        return ERR_TRUNCATED;
    error = open_next(reader);
    if (!error && reader->next_offset > expected) { /* the loss lies at the end of the segment before */
        uint64_t found_base = reader->base_offset, found_offset = reader->next_offset;
        reader->base_offset = old_base;
        reader->next_offset = expected;
        report(reader, old_position, 0, found_offset);
        reader->base_offset = found_base;
        reader->next_offset = found_offset;
    }
    return error;
}

int reader_fill(struct reader *reader, uint64_t until, uint8_t *block, size_t size, struct message *messages, size_t message_max,
                size_t *count, size_t *needed)
{
    for (;;) {
        if (reader->file < 0) {
            int error = open_next(reader);
            if (error)
                return error;
        }
        if ((reader->next_offset > reader->skip_until ? reader->next_offset : reader->skip_until) >= until)
            return ERR_TRUNCATED;
        size_t have, at = 0, taken = 0;
        int error = read_fully(reader, block, size, reader->position, &have);
        if (error)
            return error;
        enum format_check check = FORMAT_CUT;
        uint32_t length = 0;
        while (taken < message_max && at < have) {
            check = format_record_check(block + at, have - at, reader->salt, &length);
            if (check != FORMAT_VALID)
                break;
            struct message *message = &messages[taken];
            format_record_decode(block + at, message);
            if (message->offset >= until)
                break;
            if (message->offset > reader->next_offset)
                report(reader, reader->position + at, 0, message->offset);
            if (message->offset >= reader->next_offset && !format_record_is_seal(block + at)) {
                reader->next_offset = message->offset + 1;
                taken += message->offset >= reader->skip_until;
            }
            at += length;
        }
        reader->position += at;
        if (taken) {
            *count = taken;
            return 0;
        }
        if (at > 0)
            continue; /* records before the wanted offset were skipped */
        if (check == FORMAT_VALID)
            return ERR_TRUNCATED; /* at or behind `until` */
        if (check == FORMAT_CUT && have == size && length > size) {
            *needed = length;
            return ERR_LIMIT;
        }
        error = pass_over(reader);
        if (error)
            return error;
    }
}

int reader_next(struct reader *reader, uint64_t until, struct message *message, const uint8_t **record)
{
    if (!reader->block) {
        reader->block = malloc(READER_BLOCK_SIZE);
        reader->messages = malloc(READER_MESSAGES_MAX * sizeof *reader->messages);
        if (!reader->block || !reader->messages)
            return ERR_NO_MEMORY;
        reader->block_size = READER_BLOCK_SIZE;
    }
    while (reader->at == reader->count) {
        size_t needed, count;
        int error = reader_fill(reader, until, reader->block, reader->block_size, reader->messages, READER_MESSAGES_MAX, &count, &needed);
        if (error == ERR_LIMIT) {
            uint8_t *larger = realloc(reader->block, needed);
            if (!larger)
                return ERR_NO_MEMORY;
            reader->block = larger;
            reader->block_size = needed;
            continue;
        }
        if (error)
            return error;
        reader->at = 0;
        reader->count = count;
    }
    if (reader->messages[reader->at].offset >= until)
        return ERR_TRUNCATED;
    *message = reader->messages[reader->at++];
    if (record)
        *record = (const uint8_t *)message->topic - FORMAT_RECORD_HEADER_SIZE;
    return 0;
}

uint64_t reader_offset(const struct reader *reader)
{
    if (reader->at < reader->count)
        return reader->messages[reader->at].offset;
    return reader->next_offset > reader->skip_until ? reader->next_offset : reader->skip_until;
}

uint64_t reader_position(const struct reader *reader, char segment[32])
{
    segment_name(reader->base_offset, segment);
    return reader->position;
}
