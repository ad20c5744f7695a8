/* Finding and reading the frames of a compressed segment; what is where is told in frames.h. */
#include "journal/frames.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "journal/compress.h"
#include "journal/format.h"
#include "journal/reader.h"

enum { WALK_BLOCK_SIZE = 1 << 20 };

static const char frame_magic[8] = {'S', 'P', 'N', 'D', 'L', 'F', 'R', 'M'}, end_magic[8] = {'S', 'P', 'N', 'D', 'L', 'I', 'D', 'X'};

struct frame_header {
    char magic[8];
    uint64_t sum;
    struct frame frame;
};
_Static_assert(sizeof(struct frame) == FRAME_ENTRY_SIZE && sizeof(struct frame_header) == FRAME_HEADER_SIZE, "frames have no padding");

struct frames_end {
    char magic[8];
    uint64_t sum;
    uint64_t index_position;
    uint64_t count;
    uint64_t raw_end;
    uint64_t next_offset;
};
_Static_assert(sizeof(struct frames_end) == FRAMES_END_SIZE, "the end has no padding");

struct frames {
    struct disk *disk;
    int file;
    uint64_t salt;
    struct frame *list; /* [count], in order of their places */
    size_t count, capacity;
    uint64_t raw_end, next_offset;
    bool indexed;
    bool blemished;
    uint64_t blemish_position, blemish_length;

    struct decompressor *decompressor;
    size_t loaded; /* the frame whose bytes are in `raw`; SIZE_MAX: none */
    bool good;     /* it has checked out */
    uint8_t *raw, *packed;
    size_t raw_capacity, packed_capacity;
};

/* ---- headers and the end ---- */

static uint64_t frame_sum(const struct frame *frame, uint64_t salt)
{
    uint64_t block[7];
    memcpy(block, frame, sizeof *frame);
    block[6] = salt;
    return format_sum(block, sizeof block);
}

static uint64_t end_sum(const struct frames_end *end, const struct frame *list, size_t count, uint64_t salt)
{
    const uint64_t block[6] = {
        format_sum(list, count * sizeof *list), end->index_position, end->count, end->raw_end, end->next_offset, salt};
    return format_sum(block, sizeof block);
}

void frame_header_encode(uint8_t *out, const struct frame *frame, uint64_t salt)
{
    struct frame_header header = {.sum = frame_sum(frame, salt), .frame = *frame};
    memcpy(header.magic, frame_magic, sizeof frame_magic);
    memcpy(out, &header, sizeof header);
}

/* What a frame says of itself can be: no checksum says that whoever made it made sense. */
static bool is_possible(const struct frame *frame)
{
    return frame->raw_size >= FORMAT_RECORD_HEADER_SIZE && frame->raw_size % 8 == 0 && frame->raw_size <= FORMAT_RECORD_SIZE_MAX &&
           frame->size > 0 && frame->size <= compress_bound(frame->raw_size) && frame->raw_position >= FORMAT_SEGMENT_HEADER_SIZE &&
           frame->raw_position <= INT64_MAX && frame->first_offset <= INT64_MAX &&
           frame->record_count <= frame->raw_size / FORMAT_RECORD_HEADER_SIZE;
}

bool frame_header_decode(const uint8_t *bytes, uint64_t position, uint64_t salt, struct frame *frame)
{
    struct frame_header header;
    memcpy(&header, bytes, sizeof header);
    if (memcmp(header.magic, frame_magic, sizeof frame_magic) != 0 || header.sum != frame_sum(&header.frame, salt) ||
        header.frame.file_position != position || !is_possible(&header.frame))
        return false;
    *frame = header.frame;
    return true;
}

void frames_end_encode(uint8_t *out, const struct frame *list, size_t count, uint64_t index_position, uint64_t raw_end,
                       uint64_t next_offset, uint64_t salt)
{
    struct frames_end end = {.index_position = index_position, .count = count, .raw_end = raw_end, .next_offset = next_offset};
    memcpy(end.magic, end_magic, sizeof end_magic);
    end.sum = end_sum(&end, list, count, salt);
    memcpy(out, &end, sizeof end);
}

/* ---- finding the frames ---- */

static int read_file(struct frames *frames, void *bytes, size_t size, uint64_t position, size_t *have)
{
    uint64_t unreadable_to;
    return segment_read_file(frames->disk, frames->file, bytes, size, position, have, &unreadable_to);
}

/* Each frame lies behind the one before, in the file and in what it replaces. */
static bool is_in_order(const struct frame *list, size_t count, const struct frames_end *end)
{
    uint64_t file_position = FORMAT_SEGMENT_HEADER_SIZE, raw_position = FORMAT_SEGMENT_HEADER_SIZE;
    for (size_t i = 0; i < count; i++) {
        if (!is_possible(&list[i]) || list[i].file_position != file_position || list[i].raw_position != raw_position)
            return false;
        file_position += frame_file_size(&list[i]);
        raw_position += list[i].raw_size;
    }
    return file_position == end->index_position && raw_position == end->raw_end;
}

/* Takes the index, if it stands. */
static int take_index(struct frames *frames, uint64_t file_size)
{
    struct frames_end end;
    size_t have;
    if (file_size < FORMAT_SEGMENT_HEADER_SIZE + FRAMES_END_SIZE)
        return 0;
    int error = read_file(frames, &end, sizeof end, file_size - sizeof end, &have);
    if (error || have != sizeof end || memcmp(end.magic, end_magic, sizeof end_magic) != 0)
        return error;
    uint64_t room = file_size - FORMAT_SEGMENT_HEADER_SIZE - FRAMES_END_SIZE;
    if (end.count == 0 || end.count > room / FRAME_ENTRY_SIZE ||
        end.index_position != file_size - sizeof end - end.count * FRAME_ENTRY_SIZE)
        return 0;
    struct frame *list = malloc((size_t)end.count * sizeof *list);
    if (!list)
        return ERR_NO_MEMORY;
    size_t size = (size_t)end.count * sizeof *list;
    error = read_file(frames, list, size, end.index_position, &have);
    bool stands = !error && have == size && end_sum(&end, list, (size_t)end.count, frames->salt) == end.sum &&
                  is_in_order(list, (size_t)end.count, &end);
    if (!stands) {
        free(list);
        return error;
    }
    frames->list = list;
    frames->count = frames->capacity = (size_t)end.count;
    frames->raw_end = end.raw_end;
    frames->next_offset = end.next_offset;
    frames->indexed = true;
    return 0;
}

static int add_frame(struct frames *frames, const struct frame *frame)
{
    if (frames->count == frames->capacity) {
        size_t capacity = frames->capacity ? frames->capacity * 2 : 64;
        struct frame *list = realloc(frames->list, capacity * sizeof *list);
        if (!list)
            return ERR_NO_MEMORY;
        frames->list = list;
        frames->capacity = capacity;
    }
    frames->list[frames->count++] = *frame;
    frames->raw_end = frame->raw_position + frame->raw_size;
    frames->next_offset = frame->first_offset + frame->record_count;
    return 0;
}

/* Finds the frames by their headers. Where none stands, the next is looked for. */
static int walk(struct frames *frames)
{
    uint8_t *block = malloc(WALK_BLOCK_SIZE);
    int error = block ? 0 : ERR_NO_MEMORY;
    uint64_t position = FORMAT_SEGMENT_HEADER_SIZE, block_position = 0;
    size_t have = 0;
    while (!error) {
        if (position < block_position || position + FRAME_HEADER_SIZE > block_position + have) {
            block_position = position;
            error = read_file(frames, block, WALK_BLOCK_SIZE, position, &have);
            if (error || have < FRAME_HEADER_SIZE)
                break;
        }
        struct frame frame;
        if (frame_header_decode(block + (position - block_position), position, frames->salt, &frame) &&
            frame.raw_position >= frames->raw_end) {
            error = add_frame(frames, &frame);
            position += frame_file_size(&frame);
        } else {
            position += 8;
        }
    }
    free(block);
    return error;
}

int frames_open(struct frames **out, struct disk *disk, int file, uint64_t salt)
{
    int64_t size = disk->ops->size(disk, file);
    if (size < 0)
        return error_from_errno((int)-size);
    struct frames *frames = malloc(sizeof *frames);
    if (!frames)
        return ERR_NO_MEMORY;
    *frames = (struct frames){.disk = disk, .file = file, .salt = salt, .raw_end = FORMAT_SEGMENT_HEADER_SIZE, .loaded = SIZE_MAX};
    int error = take_index(frames, (uint64_t)size);
    if (!error && !frames->indexed)
        error = walk(frames);
    if (error) {
        frames_close(frames);
        return error;
    }
    if (!frames->indexed) {
        const struct frame *last = frames->count ? &frames->list[frames->count - 1] : NULL;
        frames->blemished = true;
        frames->blemish_position = last ? last->file_position + frame_file_size(last) : FORMAT_SEGMENT_HEADER_SIZE;
        frames->blemish_length = (uint64_t)size > frames->blemish_position ? (uint64_t)size - frames->blemish_position : 0;
    }
    *out = frames;
    return 0;
}

void frames_close(struct frames *frames)
{
    if (!frames)
        return;
    decompressor_destroy(frames->decompressor);
    free(frames->raw);
    free(frames->packed);
    free(frames->list);
    free(frames);
}

bool frames_are_there(struct disk *disk, int file, uint64_t salt)
{
    struct frames probe = {.disk = disk, .file = file, .salt = salt};
    uint8_t header[FRAME_HEADER_SIZE];
    struct frame first;
    size_t have;
    int64_t size = disk->ops->size(disk, file);
    bool found = size > 0 && take_index(&probe, (uint64_t)size) == 0 && probe.indexed;
    free(probe.list);
    return found || (read_file(&probe, header, sizeof header, FORMAT_SEGMENT_HEADER_SIZE, &have) == 0 && have == sizeof header &&
                     frame_header_decode(header, FORMAT_SEGMENT_HEADER_SIZE, salt, &first));
}

/* ---- reading ---- */

static int reserve(uint8_t **bytes, size_t *capacity, size_t size)
{
    if (*capacity >= size)
        return 0;
    uint8_t *larger = realloc(*bytes, size);
    if (!larger)
        return ERR_NO_MEMORY;
    *bytes = larger;
    *capacity = size;
    return 0;
}

/* Brings a frame into memory; frames->good says whether it is there. */
static int load(struct frames *frames, size_t index)
{
    const struct frame *frame = &frames->list[index];
    if (frames->loaded == index)
        return 0;
    frames->loaded = SIZE_MAX;
    if (!frames->decompressor && !(frames->decompressor = decompressor_create()))
        return ERR_NO_MEMORY;
    size_t wanted = FRAME_HEADER_SIZE + frame->size, have;
    int error = reserve(&frames->raw, &frames->raw_capacity, frame->raw_size);
    if (!error)
        error = reserve(&frames->packed, &frames->packed_capacity, wanted);
    if (!error)
        error = read_file(frames, frames->packed, wanted, frame->file_position, &have);
    if (error)
        return error;
    const uint8_t *content = frames->packed + FRAME_HEADER_SIZE;
    struct frame read;
    frames->good = have == wanted && format_sum(content, frame->size) == frame->content_sum &&
                   decompress(frames->decompressor, frames->raw, frame->raw_size, content, frame->size) == 0;
    if (frames->good && !frames->blemished &&
        (!frame_header_decode(frames->packed, frame->file_position, frames->salt, &read) || memcmp(&read, frame, sizeof read) != 0)) {
        frames->blemished = true;
        frames->blemish_position = frame->file_position;
        frames->blemish_length = FRAME_HEADER_SIZE;
    }
    frames->loaded = index;
    return 0;
}

/* The first frame that ends behind a raw position. */
static size_t find(const struct frames *frames, uint64_t raw_position)
{
    size_t low = 0, high = frames->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (frames->list[middle].raw_position + frames->list[middle].raw_size <= raw_position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int frames_read(struct frames *frames, uint8_t *bytes, size_t size, uint64_t raw_position, size_t *have)
{
    size_t done = 0;
    for (size_t index = find(frames, raw_position); done < size && index < frames->count; index++) {
        const struct frame *frame = &frames->list[index];
        uint64_t at = raw_position + done;
        if (at < frame->raw_position) { /* the frame in between is lost */
            uint64_t gap = frame->raw_position - at;
            size_t count = gap < size - done ? (size_t)gap : size - done;
            memset(bytes + done, 0, count);
            done += count;
            at += count;
            if (done == size)
                break;
        }
        int error = load(frames, index);
        if (error)
            return error;
        size_t from = (size_t)(at - frame->raw_position), left = frame->raw_size - from;
        size_t count = left < size - done ? left : size - done;
        if (frames->good)
            memcpy(bytes + done, frames->raw + from, count);
        else
            memset(bytes + done, 0, count);
        done += count;
    }
    *have = done;
    return 0;
}

uint64_t frames_raw_end(const struct frames *frames)
{
    return frames->raw_end;
}

uint64_t frames_next_offset(const struct frames *frames)
{
    return frames->next_offset;
}

uint64_t frames_file_position(const struct frames *frames, uint64_t raw_position)
{
    size_t index = find(frames, raw_position);
    if (index < frames->count && raw_position >= frames->list[index].raw_position)
        return frames->list[index].file_position;
    return index ? frames->list[index - 1].file_position + frame_file_size(&frames->list[index - 1]) : FORMAT_SEGMENT_HEADER_SIZE;
}

bool frames_blemish(const struct frames *frames, uint64_t *file_position, uint64_t *length)
{
    if (frames->blemished) {
        *file_position = frames->blemish_position;
        *length = frames->blemish_length;
    }
    return frames->blemished;
}
