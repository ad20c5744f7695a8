/* Reading a stream's folder forward, record by record, across segments.
 *
 * A reader needs nothing of the process that writes: it works on the folder of a running server, of a stopped one, and on a
 * copy. It changes nothing. One thread at a time. */
#ifndef JOURNAL_READER_H
#define JOURNAL_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/message.h"
#include "journal/disk.h"
#include "journal/format.h"

struct reader;

/* A place where stored bytes did not check out. The records at offsets first_offset .. next_offset-1 are lost; none when the two are equal
 * (only a header was). At the end of a stream nothing may tell how many they were: then `unbounded` is set and next_offset is
 * first_offset. */
struct reader_damage {
    char segment[32];  /* file name */
    uint64_t position; /* byte in the file */
    uint64_t length;   /* bytes passed over */
    uint64_t first_offset;
    uint64_t next_offset;
    bool unbounded;
};
typedef void (*reader_on_damage)(void *context, const struct reader_damage *damage);

/* Where it is and what it took, in words. */
enum { READER_DAMAGE_TEXT_MAX = 256 };
void reader_damage_text(const struct reader_damage *damage, char text[READER_DAMAGE_TEXT_MAX]);

/* `folder` is the stream's. Starts at the first kept record whose offset is >= from. ERR_NOT_FOUND when there is no such folder; an
 * empty stream is no error. on_damage may be NULL. */
int reader_open(struct reader **reader, struct disk *disk, const char *folder, uint64_t from, reader_on_damage on_damage, void *context);
void reader_close(struct reader *reader);

/* The next record with an offset below `until`. Returns 0 with *message borrowed until the next call, ERR_TRUNCATED when there is none
 * yet (call again later), or ERR_IO and the like. `record` (may be NULL) gets the stored record for format_record_sources(). */
int reader_next(struct reader *reader, uint64_t until, struct message *message, const uint8_t **record);

/* Fills `block` (8-byte aligned) with records that follow each other, as many as fit and lie below `until`; messages[0..*count) borrow from
 * it. When the next record alone is larger than `size`, returns ERR_LIMIT with *needed set. ERR_TRUNCATED when there is none yet. */
int reader_fill(struct reader *reader, uint64_t until, uint8_t *block, size_t size, struct message *messages, size_t message_max,
                size_t *count, size_t *needed);

/* Where a reader stands, to begin there again: a byte of a segment (of a compressed one, of that which it has replaced), and the offset of
 * the record there. */
struct reader_place {
    uint64_t base_offset, position, next_offset;
};
void reader_place(const struct reader *reader, struct reader_place *place);

/* As reader_open, but when `place` (may be NULL) lies in the segment that holds `from` and not behind it, nothing before the place is
 * read. */
int reader_open_at(struct reader **reader, struct disk *disk, const char *folder, const struct reader_place *place, uint64_t from,
                   reader_on_damage on_damage, void *context);

/* The offset that the next record will have at least. */
uint64_t reader_offset(const struct reader *reader);

/* ---- one segment by itself ---- */

struct segment_end {
    uint64_t position;    /* behind the last record that checks out and may stand */
    uint64_t open_from;   /* where the first group begins of which nothing tells that it was durable */
    uint64_t next_offset; /* of the record that would follow */
    uint64_t records;
    bool torn; /* bytes of an unfinished group lay behind */
};

struct frames;

struct segment_file {
    int file;
    uint64_t base_offset, salt;
    uint64_t created_ns;   /* 0: unknown */
    bool header_lost;      /* both copies; what stands here comes from the file's name and from another segment of the stream */
    struct frames *frames; /* of a compressed segment; NULL: it is none */
};

/* Tells damage in an open segment, whose position and length are those of segment_read, with its name and the bytes of the file. */
void segment_report(const struct segment_file *segment, reader_on_damage on_damage, void *context, struct reader_damage damage);

/* Opens the segment of a stream's folder, to be closed with segment_close. ERR_CORRUPT: its header is lost, and no other segment tells the
 * stream's key. */
int segment_open(struct disk *disk, const char *folder, uint64_t base_offset, enum disk_open how, struct segment_file *segment);
void segment_close(struct disk *disk, struct segment_file *segment);

/* Opens a segment for reading whatever has become of its header; *header is set where that can be read, and else left alone. Only a header
 * of another version is refused: ERR_FORMAT_VERSION. */
int segment_open_plain(struct disk *disk, const char *folder, uint64_t base_offset, int *file, struct format_segment_header *header);

/* Reads a whole open segment as recovery does (format.h, "Groups and recovery"). Damage is reported but for the end, where what does not
 * check out is taken for a torn group (ERR_IO when it cannot be read, so that nothing is cut that may be there); a lost header with nothing
 * readable behind it is damage that is unbounded. */
int segment_scan(struct disk *disk, const struct segment_file *segment, reader_on_damage on_damage, void *context, struct segment_end *end);

/* The offset behind the last record of the stream in this folder: 0 when there is none. Only the last segment is read. */
int segment_stream_end(struct disk *disk, const char *folder, reader_on_damage on_damage, void *context, uint64_t *next_offset);

/* The key of the stream in this folder, from the newest header that can be read. ERR_CORRUPT when there is none, ERR_FORMAT_VERSION. */
int segment_key(struct disk *disk, const char *folder, uint64_t *key);

/* Whether all segments of a stream are of versions that can be read: 0, ERR_FORMAT_VERSION, or why a file cannot be opened. */
int segment_versions(struct disk *disk, const char *folder);

struct segment_found {
    bool any;          /* a record that checks out, with an offset >= least_offset */
    uint64_t position; /* of the first such */
    uint64_t offset;
    bool later_group; /* one of them tells that the record of least_offset had been synced */
    bool unreadable;  /* some of what was looked at could not be read, so more may be there */
};

/* Looks for records at or behind byte `from`. */
int segment_resynchronise(struct disk *disk, const struct segment_file *segment, uint64_t from, uint64_t least_offset,
                          struct segment_found *found);

/* Reads `size` bytes, fewer only at the end of the file. What the disk fails to read is filled with zeros, of which no record consists;
 * *unreadable_to becomes the byte behind the last such place, if there is one. */
int segment_read_file(struct disk *disk, int file, void *bytes, size_t size, uint64_t position, size_t *have, uint64_t *unreadable_to);

/* As segment_read_file; of a compressed segment the bytes of the one that it has replaced, behind its own header. What is lost of them is
 * zeros too, but not called unreadable: how far the records went is known all the same. */
int segment_read(struct disk *disk, const struct segment_file *segment, uint8_t *bytes, size_t size, uint64_t position, size_t *have,
                 uint64_t *unreadable_to);

/* Bytes that segment_read can give; negative: an error. */
int64_t segment_length(struct disk *disk, const struct segment_file *segment);

/* The byte of the file at which one finds what segment_read gives for a position. */
uint64_t segment_file_position(const struct segment_file *segment, uint64_t position);

/* The offset behind the last record, where that is known whatever can be read: of a compressed segment; else 0. */
uint64_t segment_known_end(const struct segment_file *segment);

/* Names: "%020llu.seg". parse returns false for any other name, and for an offset that cannot be. */
void segment_name(uint64_t base_offset, char name[32]);
bool segment_name_parse(const char *name, uint64_t *base_offset);

/* The base offsets of a stream's segments in ascending order; *bases is malloc'd (NULL when there are none). */
int segment_list(struct disk *disk, const char *folder, uint64_t **bases, size_t *count);

#endif
