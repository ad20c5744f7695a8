/* What follows the header of a compressed segment: the input. Its checksums are made right, so that what they guard is reached too:
 * whatever frames and an index say, nothing is read but what is there, and what is read is the same in one piece as in small ones. */
#include <errno.h>
#include <string.h>

#include "fuzz.h"
#include "journal/format.h"
#include "journal/frames.h"

enum { FILE_MAX = 1 << 16, READ_MAX = 1 << 20, PIECE = 977 };

static const uint64_t salt = 1;
static uint8_t file[FILE_MAX];
static size_t file_size;

static ssize_t memory_read(struct disk *disk, int handle, void *bytes, size_t count, uint64_t position)
{
    (void)disk;
    (void)handle;
    if (position >= file_size)
        return 0;
    size_t left = file_size - (size_t)position;
    memcpy(bytes, file + position, count < left ? count : left);
    return (ssize_t)(count < left ? count : left);
}

static int64_t memory_size(struct disk *disk, int handle)
{
    (void)disk;
    (void)handle;
    return (int64_t)file_size;
}

static void mend_frame(uint8_t *header, size_t left)
{
    struct frame frame;
    memcpy(&frame, header + FRAME_HEADER_SIZE - sizeof frame, sizeof frame);
    if (frame.size <= left - FRAME_HEADER_SIZE)
        frame.content_sum = format_sum(header + FRAME_HEADER_SIZE, frame.size);
    frame_header_encode(header, &frame, salt);
}

static void mend_end(void)
{
    uint64_t values[4];
    uint8_t *end = file + file_size - FRAMES_END_SIZE;
    memcpy(values, end + 16, sizeof values);
    if (values[0] > file_size || values[1] > (file_size - values[0]) / FRAME_ENTRY_SIZE)
        return;
    struct frame *list = malloc((size_t)values[1] * sizeof *list + 1);
    memcpy(list, file + values[0], (size_t)values[1] * sizeof *list);
    frames_end_encode(end, list, (size_t)values[1], values[0], values[2], values[3], salt);
    free(list);
}

static void mend(void)
{
    for (size_t at = FORMAT_SEGMENT_HEADER_SIZE; at + FRAME_HEADER_SIZE <= file_size; at += 8)
        if (memcmp(file + at, "SPNDLFRM", 8) == 0)
            mend_frame(file + at, file_size - at);
    if (file_size >= FORMAT_SEGMENT_HEADER_SIZE + FRAMES_END_SIZE && memcmp(file + file_size - FRAMES_END_SIZE, "SPNDLIDX", 8) == 0)
        mend_end();
}

static void read_at(struct frames *frames, uint64_t position)
{
    static uint8_t whole[READ_MAX], pieces[READ_MAX];
    size_t have, have_pieces = 0, piece = PIECE;
    PROMISE(frames_read(frames, whole, READ_MAX, position, &have) == 0 && have <= READ_MAX);
    uint64_t end = frames_raw_end(frames);
    PROMISE(have == (position >= end ? 0 : end - position < READ_MAX ? end - position : READ_MAX));
    while (piece == PIECE && have_pieces + PIECE <= READ_MAX) {
        PROMISE(frames_read(frames, pieces + have_pieces, PIECE, position + have_pieces, &piece) == 0);
        have_pieces += piece;
    }
    PROMISE(memcmp(whole, pieces, have_pieces < have ? have_pieces : have) == 0);
    PROMISE(frames_file_position(frames, position) >= FORMAT_SEGMENT_HEADER_SIZE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct disk_ops ops = {.read = memory_read, .size = memory_size};
    static struct disk disk = {&ops};
    struct frames *frames;
    uint64_t position, length;
    if (size > FILE_MAX - FORMAT_SEGMENT_HEADER_SIZE)
        return 0;
    file_size = FORMAT_SEGMENT_HEADER_SIZE + size;
    if (size)
        memcpy(file + FORMAT_SEGMENT_HEADER_SIZE, data, size);
    mend();
    PROMISE(frames_open(&frames, &disk, 0, salt) == 0);
    read_at(frames, FORMAT_SEGMENT_HEADER_SIZE);
    uint64_t end = frames_raw_end(frames);
    read_at(frames, end > FORMAT_SEGMENT_HEADER_SIZE + READ_MAX / 2 ? end - READ_MAX / 2 : FORMAT_SEGMENT_HEADER_SIZE);
    if (frames_next_offset(frames))
        PROMISE(frames_are_there(&disk, 0, salt) || frames_blemish(frames, &position, &length));
    frames_close(frames);
    return 0;
}
