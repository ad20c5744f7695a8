/* Journals that earlier builds have written, as files: what could be read of them once can be read for ever.
 *
 * tests/unit/golden holds a data folder for each case, with the one stream "s". The records are made here, and so were the files:
 *
 *     SPINDLE_GOLDEN_MAKE=folder build/tests/test_golden
 *
 * writes those that this program can write into another folder; that is for a new format version, whose files are to stand beside those
 * of the older ones. A file that is here is never made again. */
#include "compressed_fixture.h"

#include <sys/stat.h>

#include "base/buffer.h"
#include "journal/frames.h"
#include "journal/inspect.h"

enum { PAYLOAD_MAX = 64 << 10, TEXT_MAX = 4096, MADE_RECORDS = 64 };

/* ---- records ---- */

struct made_record {
    struct message message;
    char topic[32], properties[32];
    uint8_t payload[PAYLOAD_MAX];
    uint64_t sources[3];
    size_t source_count;
};

/* The record of an offset. Those of the compressed segment have long payloads. */
static void make_record(struct made_record *made, uint64_t offset, bool large)
{
    uint32_t size = large ? PAYLOAD_MAX - (uint32_t)offset : (uint32_t)offset * 37;
    for (uint32_t i = 0; i < size; i++)
        made->payload[i] = (uint8_t)("OPC UA drilling "[(i + offset) % 16]);
    int topic = snprintf(made->topic, sizeof made->topic, "OPCPUBSUB/box%u/drill%u", (unsigned)offset % 3, (unsigned)offset % 5);
    int properties = offset % 3 ? 0 : snprintf(made->properties, sizeof made->properties, "properties of %u", (unsigned)offset);
    made->source_count = offset % 4;
    for (size_t i = 0; i < made->source_count; i++)
        made->sources[i] = offset * 10 + i;
    made->message = (struct message){.offset = offset,
                                     .time_ns = UINT64_C(1700000000000000000) + offset * 1000,
                                     .topic = made->topic,
                                     .topic_length = (uint32_t)topic,
                                     .properties = (const uint8_t *)made->properties,
                                     .properties_length = (uint32_t)properties,
                                     .payload = made->payload,
                                     .payload_length = size,
                                     .flags = offset % 2};
}

static void assert_as_made(const struct message *message, const uint8_t *stored, bool large)
{
    static struct made_record made;
    const uint64_t *sources;
    make_record(&made, message->offset, large);
    assert_int_equal(message->time_ns, made.message.time_ns);
    assert_int_equal(message->flags, made.message.flags);
    assert_int_equal(message->topic_length, made.message.topic_length);
    assert_memory_equal(message->topic, made.topic, made.message.topic_length);
    assert_int_equal(message->properties_length, made.message.properties_length);
    assert_memory_equal(message->properties, made.properties, made.message.properties_length);
    assert_int_equal(message->payload_length, made.message.payload_length);
    assert_memory_equal(message->payload, made.payload, made.message.payload_length);
    assert_int_equal(format_record_sources(stored, &sources), made.source_count);
    assert_memory_equal(sources, made.sources, made.source_count * sizeof *sources);
}

/* ---- files ---- */

enum kind {
    OLDER, /* this program does not write it any more */
    PACKED,
    COMPRESSED
};

/* A stream of `first` records in a closed segment and `second` in the newest. */
static void write_stream(uint64_t first, uint64_t second, enum kind kind)
{
    bool compressed = kind == COMPRESSED;
    static struct made_record made;
    for (unsigned life = 0; life < 2; life++) {
        struct stepped stepped = {.segment_size = 4 << 20, .level = life && compressed ? 3 : 0, .pack_from = kind == PACKED ? 100 : 0};
        stepped_start(&stepped);
        stepped_keep(&stepped);
        for (uint64_t i = 0; i < (life ? second : first); i++) {
            uint64_t offset = life * first + i;
            make_record(&made, offset, compressed && !life);
            assert_int_equal(journal_append(stepped.producer, stepped.stream, &made.message, made.sources, made.source_count, 0), 0);
            if (offset % 2)
                stepped_write(&stepped);
        }
        stepped_write(&stepped);
        stepped_stop(&stepped);
    }
    char path[600];
    snprintf(path, sizeof path, "%s/s/prepared.seg", test_folder);
    unlink(path);
}

static void zero_header(void)
{
    static const uint8_t zeros[FORMAT_SEGMENT_HEADER_SIZE];
    char path[600];
    stepped_path(0, path);
    int file = open(path, O_RDWR);
    assert_int_equal(pwrite(file, zeros, sizeof zeros, 0), sizeof zeros);
    close(file);
}

static void flip_record(void)
{
    char path[600];
    stepped_path(0, path);
    flip(path, FORMAT_SEGMENT_HEADER_SIZE + 600);
}

static void tear_end(void)
{
    char path[600];
    stepped_path(6, path);
    assert_int_equal(truncate(path, file_length(path) - FORMAT_RECORD_HEADER_SIZE - 100), 0);
}

/* Where the second frame of the first segment stands. */
static off_t second_frame(void)
{
    char path[600];
    uint32_t size;
    stepped_path(0, path);
    int file = open(path, O_RDONLY);
    assert_int_equal(pread(file, &size, sizeof size, FORMAT_SEGMENT_HEADER_SIZE + 56), sizeof size);
    close(file);
    return (off_t)(FORMAT_SEGMENT_HEADER_SIZE + FRAME_HEADER_SIZE + (size + 7) / 8 * 8);
}

static void flip_frame(void)
{
    char path[600];
    stepped_path(0, path);
    flip(path, second_frame() + FRAME_HEADER_SIZE + 100);
}

static void flip_index(void)
{
    char path[600];
    stepped_path(0, path);
    flip(path, file_length(path) - 100);
}

static void cut_frames(void)
{
    char path[600];
    stepped_path(0, path);
    assert_int_equal(truncate(path, second_frame() + 200), 0);
}

/* ---- what is found in them ---- */

static void tell(struct buffer *text, const char *what, const struct reader_damage *damage)
{
    buffer_printf(text, "%s: %s byte %llu, %llu bytes, offsets %llu to before %llu%s\n", what, damage->segment,
                  (unsigned long long)damage->position, (unsigned long long)damage->length, (unsigned long long)damage->first_offset,
                  (unsigned long long)damage->next_offset, damage->unbounded ? " or more" : "");
}

static void tell_damage(void *context, const struct reader_damage *damage)
{
    tell(context, "reader", damage);
}

static void tell_finding(void *context, const struct inspect_finding *finding)
{
    static const char *const words[] = {[INSPECT_HEADER_COPY] = "header-copy", [INSPECT_HEADER] = "header",   [INSPECT_INDEX] = "index",
                                        [INSPECT_FOREIGN] = "foreign",         [INSPECT_RECORDS] = "records", [INSPECT_MISSING] = "missing",
                                        [INSPECT_REPEATED] = "repeated",       [INSPECT_TORN] = "torn"};
    tell(context, words[finding->kind], &finding->place);
}

struct golden_case {
    const char *name;
    enum kind kind;
    void (*damage)(void); /* how it came to be: of test_folder */
    const char *expected;
};

static const struct golden_case cases[] = {
    {"version-2", OLDER, NULL,
     "version 2\n"
     "version 2\n"
     "records 0 to 9\n"
     "10 records, 0 lost, next 10, sealed\n"},
    {"version-2-header-lost", OLDER, zero_header,
     "version 0\n"
     "version 2\n"
     "reader: 00000000000000000000.seg byte 0, 8192 bytes, offsets 0 to before 0\n"
     "records 0 to 9\n"
     "header: 00000000000000000000.seg byte 0, 8192 bytes, offsets 6 to before 6\n"
     "10 records, 0 lost, next 10, sealed\n"},
    {"version-2-bit-flipped", OLDER, flip_record,
     "version 2\n"
     "version 2\n"
     "reader: 00000000000000000000.seg byte 8784, 224 bytes, offsets 4 to before 5\n"
     "records 0 to 3\n"
     "records 5 to 9\n"
     "records: 00000000000000000000.seg byte 8784, 224 bytes, offsets 4 to before 5\n"
     "9 records, 1 lost, next 10, sealed\n"},
    {"version-2-end-torn", OLDER, tear_end,
     "version 2\n"
     "version 2\n"
     "records 0 to 8\n"
     "torn: 00000000000000000006.seg byte 9240, 332 bytes, offsets 9 to before 9\n"
     "9 records, 0 lost, next 9\n"},
    {"version-3", PACKED, NULL,
     "version 3\n"
     "version 3\n"
     "records 0 to 9\n"
     "10 records, 0 lost, next 10, sealed\n"},
    {"version-3-bit-flipped", PACKED, flip_record,
     "version 3\n"
     "version 3\n"
     "reader: 00000000000000000000.seg byte 8704, 112 bytes, offsets 4 to before 5\n"
     "records 0 to 3\n"
     "records 5 to 9\n"
     "records: 00000000000000000000.seg byte 8704, 112 bytes, offsets 4 to before 5\n"
     "9 records, 1 lost, next 10, sealed\n"},
    {"version-4", COMPRESSED, NULL,
     "version 4\n"
     "version 3\n"
     "records 0 to 43\n"
     "44 records, 0 lost, next 44, sealed\n"},
    {"version-4-header-lost", COMPRESSED, zero_header,
     "version 0\n"
     "version 3\n"
     "reader: 00000000000000000000.seg byte 0, 8192 bytes, offsets 0 to before 0\n"
     "records 0 to 43\n"
     "header: 00000000000000000000.seg byte 0, 8192 bytes, offsets 40 to before 40\n"
     "44 records, 0 lost, next 44, sealed\n"},
    {"version-4-frame-damaged", COMPRESSED, flip_frame,
     "version 4\n"
     "version 3\n"
     "reader: 00000000000000000000.seg byte 9216, 1040 bytes, offsets 15 to before 30\n"
     "records 0 to 14\n"
     "records 30 to 43\n"
     "records: 00000000000000000000.seg byte 9216, 1040 bytes, offsets 15 to before 30\n"
     "29 records, 15 lost, next 44, sealed\n"},
    {"version-4-index-damaged", COMPRESSED, flip_index,
     "version 4\n"
     "version 3\n"
     "records 0 to 43\n"
     "index: 00000000000000000000.seg byte 11056, 192 bytes, offsets 40 to before 40\n"
     "44 records, 0 lost, next 44, sealed\n"},
    {"version-4-cut", COMPRESSED, cut_frames,
     "version 4\n"
     "version 3\n"
     "reader: 00000000000000000000.seg byte 9216, 1040 bytes, offsets 15 to before 30\n"
     "reader: 00000000000000000000.seg byte 10256, 0 bytes, offsets 30 to before 40\n"
     "records 0 to 14\n"
     "records 40 to 43\n"
     "records: 00000000000000000000.seg byte 9216, 1040 bytes, offsets 15 to before 30\n"
     "index: 00000000000000000000.seg byte 10256, 0 bytes, offsets 30 to before 30\n"
     "missing: 00000000000000000000.seg byte 10256, 0 bytes, offsets 30 to before 40\n"
     "19 records, 25 lost, next 44, sealed\n"},
};

static void tell_version(struct buffer *text, uint64_t base_offset)
{
    char path[600];
    uint32_t version;
    stepped_path(base_offset, path);
    int file = open(path, O_RDONLY);
    assert_int_equal(pread(file, &version, sizeof version, 8), sizeof version);
    close(file);
    buffer_printf(text, "version %u\n", (unsigned)version);
}

/* What a reader gives, and what an inspection says. */
static void read_case(const struct golden_case *one, struct buffer *text)
{
    char folder[600];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    struct segment_file segment;
    assert_int_equal(segment_open(disk_posix(), folder, 0, DISK_READ, &segment), 0);
    assert_int_equal(segment.frames != NULL, one->kind == COMPRESSED);
    segment_close(disk_posix(), &segment);
    tell_version(text, 0);
    tell_version(text, one->kind == COMPRESSED ? 40 : 6);
    struct reader *reader;
    struct message message;
    const uint8_t *stored;
    uint64_t first = UINT64_MAX, last = 0;
    int error;
    assert_int_equal(reader_open(&reader, disk_posix(), folder, 0, tell_damage, text), 0);
    while (!(error = reader_next(reader, UINT64_MAX, &message, &stored))) {
        assert_as_made(&message, stored, one->kind == COMPRESSED && message.offset < 40);
        if (first != UINT64_MAX && message.offset != last + 1) {
            buffer_printf(text, "records %llu to %llu\n", (unsigned long long)first, (unsigned long long)last);
            first = UINT64_MAX;
        }
        first = first == UINT64_MAX ? message.offset : first;
        last = message.offset;
    }
    assert_int_equal(error, ERR_TRUNCATED);
    reader_close(reader);
    buffer_printf(text, "records %llu to %llu\n", (unsigned long long)first, (unsigned long long)last);
    const struct inspect_visitor visitor = {.context = text, .finding = tell_finding};
    struct inspect_end end;
    assert_int_equal(inspect_stream(disk_posix(), folder, "s", 0, &visitor, &end), 0);
    buffer_printf(text, "%llu records, %llu lost, next %llu%s\n", (unsigned long long)end.records, (unsigned long long)end.lost,
                  (unsigned long long)end.next_offset, end.sealed ? ", sealed" : "");
}

static void what_was_written_once_is_read_for_ever(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer text;
        buffer_init(&text, TEXT_MAX);
        snprintf(test_folder, sizeof test_folder, "tests/unit/golden/%s", cases[i].name);
        read_case(&cases[i], &text);
        buffer_append(&text, "", 1);
        if (strcmp((const char *)text.data, cases[i].expected) != 0)
            print_message("%s:\n%s", cases[i].name, (const char *)text.data);
        assert_string_equal(text.data, cases[i].expected);
        buffer_fini(&text);
    }
}

static void make_files(void **state)
{
    (void)state;
    const char *folder = getenv("SPINDLE_GOLDEN_MAKE");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(test_folder, sizeof test_folder, "%s/%s", folder, cases[i].name);
        if (cases[i].kind == OLDER)
            continue;
        assert_int_equal(mkdir(test_folder, 0755), 0);
        write_stream(cases[i].kind == COMPRESSED ? 40 : 6, 4, cases[i].kind);
        if (cases[i].damage)
            cases[i].damage();
        struct buffer text;
        buffer_init(&text, TEXT_MAX);
        read_case(&cases[i], &text);
        print_message("%s:\n%.*s", cases[i].name, (int)text.length, (const char *)text.data);
        buffer_fini(&text);
    }
}

int main(void)
{
    const struct CMUnitTest reading[] = {cmocka_unit_test(what_was_written_once_is_read_for_ever)};
    const struct CMUnitTest making[] = {cmocka_unit_test(make_files)};
    if (getenv("SPINDLE_GOLDEN_MAKE"))
        return cmocka_run_group_tests_name("golden files, made", making, NULL, NULL);
    return cmocka_run_group_tests_name("golden files", reading, NULL, NULL);
}
