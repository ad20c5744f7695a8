/* The journal on disk.
 *
 * A stream is a folder. In it lie segments, each named by the offset of its first record in 20 decimal digits, "…042.seg". Files of other
 * names belong to no stream: "prepared.seg" is the next segment, prepared ahead; "next.seg" is one that is made at the moment when it is
 * needed; "spare.seg" is a retired one that waits to be used again; "compressed.seg" is one that is being compressed; "….seg.damaged" is
 * one of which a recovery could read nothing.
 * All integers are little-endian.
 *
 * Segment. The first 8,192 bytes are its header, written twice (at 0 and at 4,096), so that a lost sector or page takes one copy at most:
 *
 *    0  8 bytes  "SPNDLSEG"
 *    8  u32      format version
 *   12  u32      size of the header
 *   16  u64      key of the stream
 *   24  u64      offset of the first record; equal to the file's name
 *   32  u64      time of creation, wall clock, ns
 *   40  64 bytes name of the stream, filled up with zeros
 * 4088  u64      XXH3-64 of the 4,088 bytes before
 *
 * Records follow without gaps, each beginning on a multiple of 8. Each group is written together with zeros up to the end of its last page
 * of 4,096 bytes, and the next group over them, so that no page has to be read before it is written. What lies behind the last record is
 * one of three things: the end of the file; zeros, written ahead of need so that a sync has no metadata to write; or the records that the
 * file held in an earlier life, before it was used again. The salt tells the last two apart from records: every record's checksum includes
 * it, and it is another one in every life of a file. So nothing stale ever checks out, nor does anything that a sender puts into a payload.
 *
 * The salt is not stored: it is XXH3-64 of the stream's key (random, made with the stream's first segment) and the segment's first offset.
 * A file gets a new first offset with each life, since it is used again only after records behind it were written; a segment that has no
 * record yet is never used again under the same name, it is removed and made anew. That every header of a stream carries the key is what
 * makes a header dispensable: when both copies are lost, any other segment of the stream gives the key, the file's name gives the offset,
 * and the records are read as if nothing had happened. Only a stream of one single segment has no such help.
 *
 * Record. A header of 48 bytes, then topic, properties, payload, the offsets of its sources, and zeros up to the next multiple of 8:
 *
 *    0  u32  length of the whole record, padding included
 *    4  u16  length of the topic
 *    6  u8   flags: QoS (bits 0-1), retained (bit 2), requeued (bit 3), packed (bit 4), withheld (bit 5), mark (bit 6), first record of
 *             its group (bit 7)
 *    7  u8   number of sources
 *    8  u64  checksum
 *   16  u64  offset
 *   24  u64  time of arrival, wall clock, ns
 *   32  u32  length of the properties
 *   36  u32  length of the payload
 *   40  u64  header sum
 *   48       topic, properties, payload; sources (u64 each, at the next multiple of 8)
 *
 * The sources are the offsets, in the stream that was consumed, of the records which this one answers: a result names the
 * messages of its hole, a dead letter names the message it was. A message that came from another broker has two words there instead,
 * which say where it came from (queue/embedded_view.h).
 *
 * A packed payload is stored as a u32, its length as it was published, and behind it a zstd frame of that content; the lengths above are
 * those of what is stored. The checksums cover what is stored too, so a record is checked without unpacking it.
 *
 * Checksums. Two steps, because the thread that encodes a record does not know yet where it will stand. The content sum is XXH3-64
 * of the bytes from 48 to the end, taken where the data is warm. The header sum is XXH3-64 of the first 8 bytes, the bytes from 16 to 39,
 * and the salt; the checksum is XXH3-64 of content sum, header sum and salt. The header sum is looked at first: what merely looks like a
 * record (a sender may put that into a payload) is told apart without reading as much as it claims to be long.
 *
 * Groups and recovery. Records reach the disk in groups: one write, one sync. Up to four groups of a stream may be on their way at once:
 * they are written one after the other, their syncs overlap, and they are acknowledged in order. So when the machine stops, any parts of
 * these may be on disk, of a later one perhaps more than of an earlier one, and none of their records was acknowledged. To tell such a torn
 * end from damage every group says what was durable when it was written. A group that was written while all before it was durable says so
 * by the flag of its first record alone. Any other begins with a mark: a record with the bits 6 and 7 set, without a topic, that takes no
 * offset (it has the one of the record behind it), and whose payload is a u64: the offset before which all records were durable.
 *
 * Recovery reads the last segment forward to the first record that does not check out, and looks further for records that do. If one of
 * them begins a group that knows the bad one to have been durable, that is damage: it is reported with its place and passed over. If none
 * does, the bad one was on its way when the machine stopped: the segment is cut there, whatever stands behind. Writing goes on in a
 * new segment, so that what is left of a torn group can never be taken for part of the next; and a segment is begun only when all of the
 * one before is durable, so that only the last one can be torn. A stream that is closed in order ends with a seal: a mark without content,
 * a group of its own. So damage in the last groups before it is not mistaken for a torn end. The groups of which nothing tells that they
 * were durable are written once more by recovery, since a sync that failed may have left them in memory only.
 *
 * What damage has taken. The offsets lost are those between the last record that checks out and the next one that does, in this segment or,
 * as its name, the next. At the end of the last segment nothing tells how many there were; then none is counted, and offsets go on
 * behind the last record that is known.
 *
 * Versions. Two layouts of development called themselves 1: the first without a header sum, the second with the salt in a header of
 * 4,096 bytes. 2 had no packed payloads, and is read as 3, which this is. A segment of version 4 has the header that is told here, with
 * another number, and behind it the records of such a segment compressed: frames.h. A program that does not know a segment's version
 * refuses its stream, and changes nothing in it. A number that cannot be told from damage to it is damage: one beyond 255, one that leaves
 * the header whole when one of ours is put in its place, and one beside another copy of ours; then the header is lost (above). A flag that
 * says what a message is (bits 3 and 5) makes no new version: where the parts of a record lie does not depend on it. Nor did marks: who
 * does not know them passes over them as over a seal, and at worst takes a torn end for damage. */
#ifndef JOURNAL_FORMAT_H
#define JOURNAL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/message.h"

enum {
    FORMAT_VERSION = 3,
    FORMAT_VERSION_OLDEST = 2, /* that can be read */
    FORMAT_VERSION_COMPRESSED = 4,
    FORMAT_VERSION_LIMIT = 255, /* no version will have a larger number: that is damage */
    FORMAT_SEGMENT_HEADER_SIZE = 8192,
    FORMAT_RECORD_HEADER_SIZE = 48,
    FORMAT_STREAM_NAME_MAX = 63,
    FORMAT_SOURCES_MAX = 255,
    FORMAT_TOPIC_MAX = 65535,
    FORMAT_ENDS_SIZE = 4096,
    FORMAT_ENDS_MAX = 16,               /* streams in it */
    FORMAT_RECORD_SIZE_MAX = 512 << 20, /* bytes; no longer record is ever written, so a longer length is damage */
    FORMAT_OPEN_GROUPS_MAX = 4,         /* groups of a stream that are ever on their way to the disk at once */
    FORMAT_PACKED_PREFIX = 4,           /* bytes before the frame of a packed payload: its unpacked length */
    FORMAT_MARK_SIZE = FORMAT_RECORD_HEADER_SIZE + 8,
    FORMAT_FLAG_PACKED = 0x10,
    FORMAT_FLAG_MARK = 0x40,
    FORMAT_FLAG_GROUP_START = 0x80
};

#define FORMAT_OFFSET_END (UINT64_C(1) << 48) /* all offsets are less: outcomes name them in 48 bits (queue/ledger.h) */

struct format_segment_header {
    uint64_t key; /* the stream's */
    uint64_t base_offset;
    uint64_t created_ns;
    char stream[FORMAT_STREAM_NAME_MAX + 1];
    bool compressed; /* FORMAT_VERSION_COMPRESSED */
};

/* `block` is FORMAT_SEGMENT_HEADER_SIZE bytes. decode returns 0, ERR_CORRUPT or ERR_FORMAT_VERSION. */
void format_segment_header_encode(uint8_t *block, const struct format_segment_header *header);
int format_segment_header_decode(const uint8_t *block, struct format_segment_header *header);

#define FORMAT_BEGINNING_UNKNOWN UINT64_MAX

/* From where to where the streams of a data folder reach (ends.h). */
struct format_ends {
    uint32_t count;
    struct format_end {
        char stream[FORMAT_STREAM_NAME_MAX + 1];
        uint64_t next_offset;
        uint64_t first_offset; /* what lies before it may have been removed; FORMAT_BEGINNING_UNKNOWN, greater than all others */
    } streams[FORMAT_ENDS_MAX];
};

/* `block` is FORMAT_ENDS_SIZE bytes. decode returns 0, ERR_CORRUPT or ERR_FORMAT_VERSION. */
void format_ends_encode(uint8_t *block, const struct format_ends *ends);
int format_ends_decode(const uint8_t *block, struct format_ends *ends);

/* XXH3-64. */
uint64_t format_sum(const void *bytes, size_t size);

/* The salt of the segment of a stream with this key whose first record has this offset. */
uint64_t format_segment_salt(uint64_t key, uint64_t base_offset);

/* Size of the record of a message: a multiple of 8. */
size_t format_record_size(const struct message *message, size_t source_count);

/* Writes a record of format_record_size() bytes; `out` is 8-byte aligned. Offset and checksum stay open: the place of the checksum holds
 * the content sum until format_record_seal. */
void format_record_encode(uint8_t *out, const struct message *message, const uint64_t *sources, size_t source_count);

/* Gives an encoded record its offset and checksum. Returns its length. */
uint32_t format_record_seal(uint8_t *record, uint64_t offset, uint64_t salt, bool group_start);

/* The length of a sealed or unsealed record in our own memory. */
static inline uint32_t format_record_length(const uint8_t *record)
{
    return *(const uint32_t *)(const void *)record;
}

enum format_check { FORMAT_VALID, FORMAT_CUT, FORMAT_INVALID };

/* Looks at the record that starts at `bytes` (8-byte aligned), of which `available` bytes may be read. FORMAT_VALID: it checks out and
 * *length is its length. FORMAT_CUT: it may be valid but more bytes are needed, *length in all. FORMAT_INVALID: no record of this
 * salt stands here. */
enum format_check format_record_check(const uint8_t *bytes, size_t available, uint64_t salt, uint32_t *length);

/* Fields of a record that has checked out. *message borrows from it; its payload is as it is stored, and FORMAT_FLAG_PACKED says how. */
void format_record_decode(const uint8_t *record, struct message *message);

/* The length of a decoded message's packed payload when it is unpacked; 0 when it is not packed, or is no such thing. */
size_t format_unpacked_length(const struct message *message);

/* Makes a mark (of FORMAT_MARK_SIZE) or a seal (of FORMAT_RECORD_HEADER_SIZE), to be sealed as a record. `out` is 8-byte aligned. */
void format_mark_encode(uint8_t *out, uint64_t durable_offset);
void format_seal_encode(uint8_t *out, uint64_t time_ns);

bool format_record_is_message(const uint8_t *record); /* neither a mark nor a seal: it takes an offset */
bool format_record_is_seal(const uint8_t *record);

/* Whether the record is the first of its group; *durable_offset gets the offset before which all records of the stream were durable when it
 * was written. */
bool format_record_begins_group(const uint8_t *record, uint64_t *durable_offset);
size_t format_record_sources(const uint8_t *record, const uint64_t **sources);

#endif
