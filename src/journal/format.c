/* Encoding and checking of segments and records; the format itself is told in format.h. Little-endian machines only, which the
 * build asserts, so that a record in memory is the record on disk. */
#include "journal/format.h"

#include <assert.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/error.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the journal's format is the memory of a little-endian machine");

struct record_header {
    uint32_t length;
    uint16_t topic_length;
    uint8_t flags;
    uint8_t source_count;
    uint64_t checksum;
    uint64_t offset;
    uint64_t time_ns;
    uint32_t properties_length;
    uint32_t payload_length;
    uint64_t header_sum;
};
_Static_assert(sizeof(struct record_header) == FORMAT_RECORD_HEADER_SIZE, "the record header has no padding");
_Static_assert(((MESSAGE_QOS_MASK | MESSAGE_RETAIN | MESSAGE_REQUEUED | MESSAGE_WITHHELD) &
                (FORMAT_FLAG_PACKED | FORMAT_FLAG_MARK | FORMAT_FLAG_GROUP_START)) == 0,
               "the flags of a message and those of its record share a byte");

enum {
    CONTENT_START = FORMAT_RECORD_HEADER_SIZE,
    HEADER_COPY_SIZE = FORMAT_SEGMENT_HEADER_SIZE / 2,
    COPY_CHECKSUM_AT = HEADER_COPY_SIZE - 8
};

static const char segment_magic[8] = {'S', 'P', 'N', 'D', 'L', 'S', 'E', 'G'};

struct segment_block {
    char magic[8];
    uint32_t version;
    uint32_t header_size;
    uint64_t key;
    uint64_t base_offset;
    uint64_t created_ns;
    char stream[FORMAT_STREAM_NAME_MAX + 1];
};
_Static_assert(sizeof(struct segment_block) == 104, "the fields of a segment header have no padding");

void format_segment_header_encode(uint8_t *block, const struct format_segment_header *header)
{
    memset(block, 0, FORMAT_SEGMENT_HEADER_SIZE);
    struct segment_block fields = {.version = header->compressed ? FORMAT_VERSION_COMPRESSED : FORMAT_VERSION,
                                   .header_size = FORMAT_SEGMENT_HEADER_SIZE,
                                   .key = header->key,
                                   .base_offset = header->base_offset,
                                   .created_ns = header->created_ns};
    memcpy(fields.magic, segment_magic, sizeof segment_magic);
    memcpy(fields.stream, header->stream, sizeof fields.stream);
    memcpy(block, &fields, sizeof fields);
    uint64_t sum = XXH3_64bits(block, COPY_CHECKSUM_AT);
    memcpy(block + COPY_CHECKSUM_AT, &sum, sizeof sum);
    memcpy(block + HEADER_COPY_SIZE, block, HEADER_COPY_SIZE);
}

static bool is_known(uint32_t version)
{
    return version >= FORMAT_VERSION_OLDEST && version <= FORMAT_VERSION_COMPRESSED;
}

static int decode_header_copy(const uint8_t *copy, struct format_segment_header *header)
{
    struct segment_block fields;
    memcpy(&fields, copy, sizeof fields);
    uint64_t sum;
    memcpy(&sum, copy + COPY_CHECKSUM_AT, sizeof sum);
    if (memcmp(fields.magic, segment_magic, sizeof segment_magic) != 0 || sum != XXH3_64bits(copy, COPY_CHECKSUM_AT))
        return ERR_CORRUPT;
    if (!is_known(fields.version) || fields.header_size != FORMAT_SEGMENT_HEADER_SIZE)
        return ERR_FORMAT_VERSION;
    *header = (struct format_segment_header){.key = fields.key,
                                             .base_offset = fields.base_offset,
                                             .created_ns = fields.created_ns,
                                             .compressed = fields.version == FORMAT_VERSION_COMPRESSED};
    memcpy(header->stream, fields.stream, FORMAT_STREAM_NAME_MAX);
    return 0;
}

/* Whether a copy that does not check out is one of ours: its number is, or it checks out with one of ours in the place of the number. */
static bool is_damaged_copy(const uint8_t *copy)
{
    struct segment_block fields;
    uint8_t repaired[COPY_CHECKSUM_AT];
    uint64_t sum;
    memcpy(&fields, copy, sizeof fields);
    memcpy(repaired, copy, sizeof repaired);
    memcpy(&sum, copy + COPY_CHECKSUM_AT, sizeof sum);
    bool is_ours = is_known(fields.version);
    for (uint32_t version = FORMAT_VERSION_OLDEST; is_known(version) && !is_ours; version++) {
        memcpy(repaired + offsetof(struct segment_block, version), &version, sizeof version);
        is_ours = XXH3_64bits(repaired, sizeof repaired) == sum;
    }
    return memcmp(fields.magic, segment_magic, sizeof segment_magic) == 0 && is_ours;
}

/* Another version may have its checksum elsewhere, and no second copy: only then does the number count without one, and only one that a
 * version could have, so that a damaged header of ours is not taken for a version that nobody has made. */
static bool is_other_version(const uint8_t *block)
{
    struct segment_block fields;
    memcpy(&fields, block, sizeof fields);
    return memcmp(fields.magic, segment_magic, sizeof segment_magic) == 0 && fields.version > 0 && fields.version <= FORMAT_VERSION_LIMIT &&
           !is_damaged_copy(block) && !is_damaged_copy(block + HEADER_COPY_SIZE);
}

int format_segment_header_decode(const uint8_t *block, struct format_segment_header *header)
{
    int error = decode_header_copy(block, header);
    if (error == ERR_CORRUPT)
        error = decode_header_copy(block + HEADER_COPY_SIZE, header);
    return error == ERR_CORRUPT && is_other_version(block) ? ERR_FORMAT_VERSION : error;
}

struct ends_block {
    char magic[8];
    uint32_t version;
    uint32_t count;
    struct format_end streams[FORMAT_ENDS_MAX];
};
_Static_assert(sizeof(struct ends_block) == 16 + FORMAT_ENDS_MAX * 80, "the block of ends has no padding");

/* An entry of version 1, which knew of no beginnings. */
struct old_end {
    char stream[FORMAT_STREAM_NAME_MAX + 1];
    uint64_t next_offset;
};

enum { ENDS_VERSION = 2, ENDS_VERSION_OLDEST = 1, ENDS_ENTRIES_AT = 16, ENDS_CHECKSUM_AT = FORMAT_ENDS_SIZE - 8 };
static const char ends_magic[8] = {'S', 'P', 'N', 'D', 'L', 'E', 'N', 'D'};

void format_ends_encode(uint8_t *block, const struct format_ends *ends)
{
    memset(block, 0, FORMAT_ENDS_SIZE);
    struct ends_block fields = {.version = ENDS_VERSION, .count = ends->count};
    memcpy(fields.magic, ends_magic, sizeof ends_magic);
    memcpy(fields.streams, ends->streams, sizeof fields.streams);
    memcpy(block, &fields, sizeof fields);
    uint64_t sum = XXH3_64bits(block, ENDS_CHECKSUM_AT);
    memcpy(block + ENDS_CHECKSUM_AT, &sum, sizeof sum);
}

int format_ends_decode(const uint8_t *block, struct format_ends *ends)
{
    struct ends_block fields;
    uint64_t sum;
    memcpy(&fields, block, sizeof fields);
    memcpy(&sum, block + ENDS_CHECKSUM_AT, sizeof sum);
    if (memcmp(fields.magic, ends_magic, sizeof ends_magic) != 0 || sum != XXH3_64bits(block, ENDS_CHECKSUM_AT))
        return ERR_CORRUPT;
    if (fields.version != ENDS_VERSION && fields.version != ENDS_VERSION_OLDEST)
        return ERR_FORMAT_VERSION;
    if (fields.count > FORMAT_ENDS_MAX)
        return ERR_CORRUPT;
    for (uint32_t i = 0; i < fields.count && fields.version == ENDS_VERSION_OLDEST; i++) {
        struct old_end old;
        memcpy(&old, block + ENDS_ENTRIES_AT + i * sizeof old, sizeof old);
        fields.streams[i] = (struct format_end){.next_offset = old.next_offset, .first_offset = FORMAT_BEGINNING_UNKNOWN};
        memcpy(fields.streams[i].stream, old.stream, sizeof old.stream);
    }
    for (uint32_t i = 0; i < fields.count; i++)
        fields.streams[i].stream[FORMAT_STREAM_NAME_MAX] = 0;
    ends->count = fields.count;
    memcpy(ends->streams, fields.streams, sizeof fields.streams);
    return 0;
}

uint64_t format_sum(const void *bytes, size_t size)
{
    return XXH3_64bits(bytes, size);
}

uint64_t format_segment_salt(uint64_t key, uint64_t base_offset)
{
    const uint64_t block[2] = {key, base_offset};
    return XXH3_64bits(block, sizeof block);
}

static size_t round_up(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

size_t format_record_size(const struct message *message, size_t source_count)
{
    size_t content = (size_t)message->topic_length + message->properties_length + message->payload_length;
    return round_up(FORMAT_RECORD_HEADER_SIZE + content) + source_count * sizeof(uint64_t);
}

void format_record_encode(uint8_t *out, const struct message *message, const uint64_t *sources, size_t source_count)
{
    size_t length = format_record_size(message, source_count);
    assert(message->topic_length <= FORMAT_TOPIC_MAX && source_count <= FORMAT_SOURCES_MAX && length <= FORMAT_RECORD_SIZE_MAX);
    size_t sources_at = length - source_count * sizeof(uint64_t);
    memset(out + sources_at - 8, 0, 8); /* the padding lies within these 8 bytes; the rest of them is written below */
    struct record_header *header = (struct record_header *)(void *)out;
    *header = (struct record_header){
        .length = (uint32_t)length,
        .topic_length = (uint16_t)message->topic_length,
        .flags = message->flags & (uint8_t)~FORMAT_FLAG_GROUP_START,
        .source_count = (uint8_t)source_count,
        .time_ns = message->time_ns,
        .properties_length = message->properties_length,
        .payload_length = message->payload_length,
    };
    uint8_t *at = out + FORMAT_RECORD_HEADER_SIZE;
    if (message->topic_length)
        memcpy(at, message->topic, message->topic_length);
    at += message->topic_length;
    if (message->properties_length)
        memcpy(at, message->properties, message->properties_length);
    at += message->properties_length;
    if (message->payload_length)
        memcpy(at, message->payload, message->payload_length);
    if (source_count)
        memcpy(out + sources_at, sources, source_count * sizeof(uint64_t));
    header->checksum = XXH3_64bits(out + CONTENT_START, length - CONTENT_START);
}

static uint64_t header_sum(const struct record_header *header, uint64_t salt)
{
    uint64_t block[5];
    memcpy(&block[0], header, 8);
    memcpy(&block[1], &header->offset, 24);
    block[4] = salt;
    return XXH3_64bits(block, sizeof block);
}

static uint64_t final_checksum(uint64_t content_sum, uint64_t sum_of_header, uint64_t salt)
{
    const uint64_t block[3] = {content_sum, sum_of_header, salt};
    return XXH3_64bits(block, sizeof block);
}

uint32_t format_record_seal(uint8_t *record, uint64_t offset, uint64_t salt, bool group_start)
{
    struct record_header *header = (struct record_header *)(void *)record;
    header->offset = offset;
    if (group_start)
        header->flags |= FORMAT_FLAG_GROUP_START;
    header->header_sum = header_sum(header, salt);
    header->checksum = final_checksum(header->checksum, header->header_sum, salt);
    return header->length;
}

enum format_check format_record_check(const uint8_t *bytes, size_t available, uint64_t salt, uint32_t *length)
{
    if (available < FORMAT_RECORD_HEADER_SIZE) {
        *length = FORMAT_RECORD_HEADER_SIZE;
        return FORMAT_CUT;
    }
    const struct record_header *header = (const struct record_header *)(const void *)bytes;
    uint64_t content = (uint64_t)header->topic_length + header->properties_length + header->payload_length;
    uint64_t expected = ((FORMAT_RECORD_HEADER_SIZE + content + 7) & ~(uint64_t)7) + header->source_count * 8u;
    if (header->length != expected || expected > FORMAT_RECORD_SIZE_MAX || header->header_sum != header_sum(header, salt))
        return FORMAT_INVALID;
    *length = header->length;
    if (header->length > available)
        return FORMAT_CUT;
    uint64_t sum = XXH3_64bits(bytes + CONTENT_START, header->length - CONTENT_START);
    return final_checksum(sum, header->header_sum, salt) == header->checksum ? FORMAT_VALID : FORMAT_INVALID;
}

void format_record_decode(const uint8_t *record, struct message *message)
{
    const struct record_header *header = (const struct record_header *)(const void *)record;
    const uint8_t *at = record + FORMAT_RECORD_HEADER_SIZE;
    *message = (struct message){
        .offset = header->offset,
        .time_ns = header->time_ns,
        .topic = (const char *)at,
        .properties = at + header->topic_length,
        .payload = at + header->topic_length + header->properties_length,
        .topic_length = header->topic_length,
        .properties_length = header->properties_length,
        .payload_length = header->payload_length,
        .flags = header->flags & (uint8_t) ~(FORMAT_FLAG_GROUP_START | FORMAT_FLAG_MARK),
    };
}

size_t format_unpacked_length(const struct message *message)
{
    uint32_t length = 0;
    if (message->flags & FORMAT_FLAG_PACKED && message->payload_length > FORMAT_PACKED_PREFIX)
        memcpy(&length, message->payload, sizeof length);
    return length <= FORMAT_RECORD_SIZE_MAX ? length : 0;
}

void format_mark_encode(uint8_t *out, uint64_t durable_offset)
{
    struct message mark = {.flags = FORMAT_FLAG_MARK, .payload = (const uint8_t *)&durable_offset, .payload_length = sizeof durable_offset};
    format_record_encode(out, &mark, NULL, 0);
}

void format_seal_encode(uint8_t *out, uint64_t time_ns)
{
    format_record_encode(out, &(struct message){.time_ns = time_ns, .flags = FORMAT_FLAG_MARK}, NULL, 0);
}

static const struct record_header *header_of(const uint8_t *record)
{
    return (const struct record_header *)(const void *)record;
}

bool format_record_is_message(const uint8_t *record)
{
    return !(header_of(record)->flags & FORMAT_FLAG_MARK);
}

bool format_record_is_seal(const uint8_t *record)
{
    return !format_record_is_message(record) && header_of(record)->length == FORMAT_RECORD_HEADER_SIZE;
}

bool format_record_begins_group(const uint8_t *record, uint64_t *durable_offset)
{
    const struct record_header *header = header_of(record);
    if (!(header->flags & FORMAT_FLAG_GROUP_START))
        return false;
    *durable_offset = header->offset;
    if (header->flags & FORMAT_FLAG_MARK && header->length == FORMAT_MARK_SIZE)
        memcpy(durable_offset, record + FORMAT_RECORD_HEADER_SIZE, sizeof *durable_offset);
    return true;
}

size_t format_record_sources(const uint8_t *record, const uint64_t **sources)
{
    const struct record_header *header = (const struct record_header *)(const void *)record;
    *sources = (const uint64_t *)(const void *)(record + header->length - header->source_count * 8u);
    return header->source_count;
}
