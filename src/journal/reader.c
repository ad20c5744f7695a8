/* The reader: one open segment, a position in it, and the rule for what to do where no record checks out. */
#include "journal/reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "journal/compress.h"

enum { READER_BLOCK_SIZE = 1 << 20, READER_MESSAGES_MAX = 4096, READER_PATH_MAX = 4096 };

struct reader {
    struct disk *disk;
    char folder[READER_PATH_MAX];
    reader_on_damage on_damage;
    void *context;
    struct segment_file segment; /* the open one; file -1: none */
    uint64_t told_until;         /* segments that begin before it and cannot be read have been reported */
    uint64_t position;           /* of the next record in the open segment */
    uint64_t next_offset;        /* of the next record in the open segment */
    uint64_t skip_until;         /* records below it are read and not handed out */
    /* What reader_next hands out from. */
    uint8_t *block;
    size_t block_size;
    struct message *messages;
    size_t count, at;
    struct decompressor *decompressor; /* NULL until a packed payload is read */
};

/* `position` and `length` are those of the open segment, or of a header. */
static void report(const struct reader *reader, uint64_t base_offset, struct reader_damage damage)
{
    const struct segment_file other = {.base_offset = base_offset};
    bool open = reader->segment.file >= 0 && reader->segment.base_offset == base_offset;
    segment_report(open ? &reader->segment : &other, reader->on_damage, reader->context, damage);
}

static int use_segment(struct reader *reader, uint64_t base_offset)
{
    struct segment_file segment;
    int error = segment_open(reader->disk, reader->folder, base_offset, DISK_READ, &segment);
    if (error)
        return error;
    if (reader->segment.file >= 0)
        segment_close(reader->disk, &reader->segment);
    reader->segment = segment;
    reader->position = FORMAT_SEGMENT_HEADER_SIZE;
    if (segment.header_lost)
        report(reader, base_offset,
               (struct reader_damage){.length = FORMAT_SEGMENT_HEADER_SIZE, .first_offset = base_offset, .next_offset = base_offset});
    return 0;
}

/* Nothing of this segment can be read. What it held ends where the next one begins (NULL: there is none). */
static void pass_unreadable(struct reader *reader, uint64_t base_offset, const uint64_t *next_base)
{
    if (base_offset < reader->told_until)
        return;
    reader->told_until = base_offset + 1;
    report(reader, base_offset,
           (struct reader_damage){.length = FORMAT_SEGMENT_HEADER_SIZE,
                                  .first_offset = base_offset,
                                  .next_offset = next_base ? *next_base : base_offset,
                                  .unbounded = !next_base});
}

/* Opens the segment that holds skip_until or, when one is open, the next behind it. ERR_TRUNCATED when there is none. Unreadable segments
 * are reported and passed over; so are, when something was open and `gaps_are_damage`, offsets that neither of two neighbours has. */
static int open_next(struct reader *reader, bool gaps_are_damage)
{
    uint64_t *bases = NULL;
    size_t count = 0, pick = 0;
    bool first = reader->segment.file < 0;
    int error = segment_list(reader->disk, reader->folder, &bases, &count);
    if (error)
        return error;
    if (first)
        while (pick + 1 < count && bases[pick + 1] <= reader->skip_until)
            pick++;
    else
        while (pick < count && bases[pick] <= reader->segment.base_offset)
            pick++;
    uint64_t left = reader->segment.base_offset, left_at = reader->position;
    uint64_t expected = first && pick < count ? bases[pick] : reader->next_offset; /* what stands before it is accounted for */
    error = ERR_TRUNCATED;
    for (; pick < count && error; pick++) {
        if (bases[pick] > expected && gaps_are_damage)
            report(reader, left, (struct reader_damage){.position = left_at, .first_offset = expected, .next_offset = bases[pick]});
        const uint64_t *next_base = pick + 1 < count ? &bases[pick + 1] : NULL;
        error = use_segment(reader, bases[pick]);
        if (error == ERR_CORRUPT)
            pass_unreadable(reader, bases[pick], next_base);
        else if (error && error != ERR_NOT_FOUND) /* not found: retention took it a moment ago */
            break;
        expected = error && next_base ? *next_base : bases[pick] > expected ? bases[pick] : expected;
    }
    if (!error)
        reader->next_offset = expected;
    free(bases);
    return error == ERR_CORRUPT || error == ERR_NOT_FOUND ? ERR_TRUNCATED : error;
}

int reader_open(struct reader **out, struct disk *disk, const char *folder, uint64_t from, reader_on_damage on_damage, void *context)
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return ERR_NO_MEMORY;
    *reader = (struct reader){
        .disk = disk, .on_damage = on_damage, .context = context, .segment = {.file = -1}, .next_offset = from, .skip_until = from};
    if ((size_t)snprintf(reader->folder, sizeof reader->folder, "%s", folder) >= sizeof reader->folder) {
        free(reader);
        return ERR_INVALID;
    }
    int error = open_next(reader, false);
    if (error && error != ERR_TRUNCATED) {
        reader_close(reader);
        return error;
    }
    *out = reader;
    return 0;
}

void reader_place(const struct reader *reader, struct reader_place *place)
{
    *place =
        (struct reader_place){.base_offset = reader->segment.base_offset, .position = reader->position, .next_offset = reader->next_offset};
}

int reader_open_at(struct reader **out, struct disk *disk, const char *folder, const struct reader_place *place, uint64_t from,
                   reader_on_damage on_damage, void *context)
{
    struct reader *reader;
    int error = reader_open(&reader, disk, folder, from, on_damage, context);
    if (error)
        return error;
    if (place && reader->segment.file >= 0 && reader->segment.base_offset == place->base_offset && place->next_offset <= from &&
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
    if (reader->segment.file >= 0)
        segment_close(reader->disk, &reader->segment);
    decompressor_destroy(reader->decompressor);
    free(reader->block);
    free(reader->messages);
    free(reader);
}

static int read_fully(struct reader *reader, uint8_t *block, size_t size, uint64_t position, size_t *have)
{
    uint64_t unreadable_to;
    return segment_read(reader->disk, &reader->segment, block, size, position, have, &unreadable_to);
}

/* Whether a record stands at the reader's position after all: the writer may have been at it when it was read. */
static bool stands_now(struct reader *reader)
{
    uint8_t header[FORMAT_RECORD_HEADER_SIZE];
    size_t have;
    uint32_t length;
    if (read_fully(reader, header, sizeof header, reader->position, &have) ||
        format_record_check(header, have, reader->segment.salt, &length) != FORMAT_CUT)
        return false;
    uint8_t *record = malloc(length);
    bool stands = record && length > sizeof header && !read_fully(reader, record, length, reader->position, &have) &&
                  format_record_check(record, have, reader->segment.salt, &length) == FORMAT_VALID;
    free(record);
    return stands;
}

/* What lies at the reader's position is no record. Decides between the next segment, damage to pass over, and the end of the stream.
 * Returns 0 to try again, ERR_TRUNCATED at the end. */
static int pass_over(struct reader *reader)
{
    const struct segment_file *segment = &reader->segment;
    uint64_t *bases = NULL;
    size_t count = 0;
    int error = segment_list(reader->disk, reader->folder, &bases, &count);
    if (error)
        return error;
    size_t later = 0;
    bool trimmed = true; /* retention took the open segment away: what is gone is no damage */
    for (; later < count && bases[later] <= segment->base_offset; later++)
        trimmed = trimmed && bases[later] != segment->base_offset;
    bool has_later = later < count;
    bool follows = has_later && (trimmed || bases[later] == reader->next_offset);
    free(bases);
    if (follows)
        return open_next(reader, false);
    struct segment_found found;
    error = segment_resynchronise(reader->disk, segment, reader->position, reader->next_offset, &found);
    if (error)
        return error;
    if (found.any && (found.later_group || has_later)) {
        if (found.position > reader->position && !stands_now(reader)) {
            report(reader, segment->base_offset,
                   (struct reader_damage){.position = reader->position,
                                          .length = found.position - reader->position,
                                          .first_offset = reader->next_offset,
                                          .next_offset = found.offset});
            reader->position = found.position;
            reader->next_offset = found.offset;
        }
        return 0;
    }
    if (reader->next_offset < segment_known_end(segment)) {
        uint64_t end = (uint64_t)segment_length(reader->disk, segment);
        report(reader, segment->base_offset,
               (struct reader_damage){.position = reader->position,
                                      .length = end - reader->position,
                                      .first_offset = reader->next_offset,
                                      .next_offset = segment_known_end(segment)});
        reader->position = end;
        reader->next_offset = segment_known_end(segment);
        return 0;
    }
    if (has_later)
        return open_next(reader, true); /* the loss, if there is one, lies at the end of this segment */
    if (found.unreadable)
        return ERR_IO;
    if (segment->header_lost && reader->position == FORMAT_SEGMENT_HEADER_SIZE)
        pass_unreadable(reader, segment->base_offset, NULL);
    return ERR_TRUNCATED;
}

/* Unpacks the payload of a decoded message to `to`, `length` bytes. */
static int unpack(struct reader *reader, struct message *message, uint8_t *to, size_t length)
{
    if (!reader->decompressor && !(reader->decompressor = decompressor_create()))
        return ERR_NO_MEMORY;
    int error = length ? decompress(reader->decompressor, to, length, message->payload + FORMAT_PACKED_PREFIX,
                                    message->payload_length - FORMAT_PACKED_PREFIX)
                       : ERR_CORRUPT;
    if (error)
        return error;
    message->payload = to;
    message->payload_length = (uint32_t)length;
    message->flags &= (uint8_t)~FORMAT_FLAG_PACKED;
    return 0;
}

/* The caller's block while it is filled: records in front, unpacked payloads behind `end`. */
struct filling {
    uint8_t *block;
    size_t at; /* of the next record */
    size_t have, end;
};

/* Takes the record at filling->at, `length` bytes that have checked out. Returns 1 when *message is to be handed out, 0 when it is passed
 * over. Nothing is taken with ERR_TRUNCATED (it does not lie below `until`), ERR_LIMIT (its unpacked payload does not fit, *needed would
 * do) and ERR_NO_MEMORY. */
static int take_record(struct reader *reader, struct filling *filling, uint32_t length, uint64_t until, struct message *message,
                       size_t *needed)
{
    const uint8_t *record = filling->block + filling->at;
    struct reader_damage damage = {.position = reader->position + filling->at, .first_offset = reader->next_offset};
    format_record_decode(record, message);
    if (message->offset >= until)
        return ERR_TRUNCATED;
    bool is_next = message->offset >= reader->next_offset && format_record_is_message(record);
    bool wanted = is_next && message->offset >= reader->skip_until;
    int error = 0;
    if (wanted && message->flags & FORMAT_FLAG_PACKED) {
        size_t unpacked = format_unpacked_length(message);
        *needed = length + unpacked;
        if (unpacked > filling->end - filling->at - length)
            return ERR_LIMIT;
        error = unpack(reader, message, filling->block + filling->end - unpacked, unpacked);
        if (error == ERR_NO_MEMORY)
            return error;
        filling->end -= unpacked;
        filling->have = filling->have < filling->end ? filling->have : filling->end;
    }
    damage.next_offset = message->offset;
    if (damage.next_offset > damage.first_offset)
        report(reader, reader->segment.base_offset, damage);
    if (error) { /* it checks out, yet what it holds cannot be unpacked */
        damage = (struct reader_damage){
            .position = damage.position, .length = length, .first_offset = message->offset, .next_offset = message->offset + 1};
        report(reader, reader->segment.base_offset, damage);
    }
    if (is_next)
        reader->next_offset = message->offset + 1;
    return wanted && !error;
}

int reader_fill(struct reader *reader, uint64_t until, uint8_t *block, size_t size, struct message *messages, size_t message_max,
                size_t *count, size_t *needed)
{
    for (;;) {
        if (reader->segment.file < 0) {
            int error = open_next(reader, false);
            if (error)
                return error;
        }
        if ((reader->next_offset > reader->skip_until ? reader->next_offset : reader->skip_until) >= until)
            return ERR_TRUNCATED;
        struct filling filling = {.block = block, .end = size};
        int error = read_fully(reader, block, size, reader->position, &filling.have);
        if (error)
            return error;
        size_t read = filling.have, taken = 0;
        enum format_check check = FORMAT_CUT;
        uint32_t length = 0;
        while (taken < message_max && filling.at < filling.have) {
            check = format_record_check(block + filling.at, filling.have - filling.at, reader->segment.salt, &length);
            if (check != FORMAT_VALID)
                break;
            int result = take_record(reader, &filling, length, until, &messages[taken], needed);
            error = result < 0 ? result : 0;
            if (error)
                break;
            taken += (size_t)result;
            filling.at += length;
        }
        reader->position += filling.at;
        if (taken) {
            *count = taken;
            return 0;
        }
        if (filling.at > 0)
            continue; /* records before the wanted offset were skipped */
        if (error)
            return error;
        if (check == FORMAT_CUT && read == size && length > size) {
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
