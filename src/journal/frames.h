/* A compressed segment on disk: format version 4.
 *
 * A segment that is full and on disk may be replaced by one that holds the same records compressed. It has the name of the one that it
 * replaces. It is written and synced under another name ("compressed.seg") and then renamed: so there is one of the two at every moment and
 * after every crash, never neither and never both, and nothing has to be chosen between them. An older program finds a
 * header with its own magic and a version that it does not know, and refuses; had the file another ending, it would pass it over and
 * take its records for lost.
 *
 * The file begins with the header of a segment (format.h): both copies, with the key, the offset, the name and the time of creation of the
 * segment that it replaces, and version 4. Key and offset give the salt as they do there.
 *
 * Then frames follow without gaps, each beginning on a multiple of 8. The bytes between the header and the end of the last record of the
 * replaced segment, in their order, are cut between records into pieces of at most 1 MiB (FRAMES_RAW_SIZE; a longer record is a piece of
 * its own), and each is compressed by itself with zstd, so that reading can begin anywhere, and damage costs one frame at most. A record
 * is byte for byte what it was: what format.h says of checking a record holds of what comes out of a frame. A place in a compressed
 * segment is told as the byte in the segment that it has replaced, its raw position; so a place that was remembered stays right.
 *
 *    0  8 bytes "SPNDLFRM"
 *    8  u64      header sum: XXH3-64 of the bytes from 16 to 63 and the salt
 *   16  u64      byte of the file at which this header stands
 *   24  u64      raw position of its first record
 *   32  u64      offset of its first record
 *   40  u64      XXH3-64 of the compressed bytes
 *   48  u32      number of records, seals not counted: their offsets follow each other without gaps
 *   52  u32      number of bytes of the records
 *   56  u32      number of compressed bytes
 *   60  u32      0
 *   64           compressed bytes; zeros up to the next multiple of 8
 *
 * Behind the last frame lies the index: for each frame the bytes from 16 to 63 of its header, 48 bytes, in order. The last 48 bytes of the
 * file are the end:
 *
 *    0  8 bytes "SPNDLIDX"
 *    8  u64      end sum: XXH3-64 of the XXH3-64 of the index, the bytes from 16 to 47, and the salt
 *   16  u64      byte of the file at which the index begins
 *   24  u64      number of frames
 *   32  u64      raw position behind the last record
 *   40  u64      offset behind the last record
 *
 * Index and frame headers say the same, and either will do. With the index, a frame is read without any other, and without its own
 * header. When index or end do not check out, the frames are found from the file's beginning by their headers; one whose header is damaged
 * too is then lost, and the next is looked for in steps of 8 bytes. The records that a lost frame held are those between the last that
 * stands before it and the first behind it, as everywhere in the journal.
 *
 * A segment in which a record does not check out, or an offset is missing, is never compressed: what is left of it stays as it is. The
 * newest segment never is; so nothing here is ever written to, and no end of a compressed segment is a torn group. */
#ifndef JOURNAL_FRAMES_H
#define JOURNAL_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "journal/disk.h"

enum { FRAMES_RAW_SIZE = 1 << 20, FRAME_HEADER_SIZE = 64, FRAME_ENTRY_SIZE = 48, FRAMES_END_SIZE = 48 };

/* As in the index. */
struct frame {
    uint64_t file_position;
    uint64_t raw_position;
    uint64_t first_offset;
    uint64_t content_sum;
    uint32_t record_count;
    uint32_t raw_size;
    uint32_t size;
    uint32_t zero;
};

/* `out` is FRAME_HEADER_SIZE bytes. */
void frame_header_encode(uint8_t *out, const struct frame *frame, uint64_t salt);

/* Whether a frame's header stands in these FRAME_HEADER_SIZE bytes, which begin at byte `position` of the file. */
bool frame_header_decode(const uint8_t *bytes, uint64_t position, uint64_t salt, struct frame *frame);

/* The bytes of a frame in the file. */
static inline uint64_t frame_file_size(const struct frame *frame)
{
    return FRAME_HEADER_SIZE + (((uint64_t)frame->size + 7) & ~(uint64_t)7);
}

/* The end of a file whose index of `count` frames begins at its byte `index_position`. */
void frames_end_encode(uint8_t *out, const struct frame *list, size_t count, uint64_t index_position, uint64_t raw_end,
                       uint64_t next_offset, uint64_t salt);

/* The frames of an open file, to be read as the bytes of the segment that it has replaced. One thread at a time. It holds the index and
 * one frame in memory. */
struct frames;

/* Whether the file is a compressed segment of this salt, though its header does not tell: the end or the first frame stands. */
bool frames_are_there(struct disk *disk, int file, uint64_t salt);

/* The file is borrowed until close. ERR_NO_MEMORY, or the disk's error. */
int frames_open(struct frames **frames, struct disk *disk, int file, uint64_t salt);
void frames_close(struct frames *frames); /* NULL is allowed */

/* Reads `size` bytes at a raw position behind the segment's header; fewer only at the end. What is lost is filled with zeros, of which no
 * record consists. */
int frames_read(struct frames *frames, uint8_t *bytes, size_t size, uint64_t raw_position, size_t *have);

/* The raw position behind the last record, and the offset behind it, as far as is known: FORMAT_SEGMENT_HEADER_SIZE and 0 when no frame is
 * there any more. */
uint64_t frames_raw_end(const struct frames *frames);
uint64_t frames_next_offset(const struct frames *frames);

/* The byte of the file at which the frame of a raw position stands; of a lost one, or behind the last, where the frame before it ends. */
uint64_t frames_file_position(const struct frames *frames, uint64_t raw_position);

/* The first thing found so far that does not check out though nothing is lost with it: a frame's header where there is an index, or the
 * index. False: there is none. */
bool frames_blemish(const struct frames *frames, uint64_t *file_position, uint64_t *length);

#endif
