/* Closed segments become compressed ones, and nobody who reads them can tell. */
#include "compressed_fixture.h"

#include <errno.h>
#include <stdio.h>

#include "journal/frames.h"
#include "journal/inspect.h"
#include "journal/stream.h"

enum { SEGMENT = 3 << 20, PAYLOAD = 10000, RECORDS = 1000, TEXT = 0, HALF_NOISE = 0x0f, NOISE = 0xff };

static bool is_compressed(uint64_t base_offset)
{
    struct segment_file segment;
    char folder[600];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    assert_int_equal(segment_open(disk_posix(), folder, base_offset, DISK_READ, &segment), 0);
    bool compressed = segment.frames;
    segment_close(disk_posix(), &segment);
    return compressed;
}

/* The base offsets of the stream's segments; how many of them are compressed. */
static size_t list_segments(uint64_t bases[64], size_t *compressed)
{
    char folder[600];
    uint64_t *list;
    size_t count;
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    assert_int_equal(segment_list(disk_posix(), folder, &list, &count), 0);
    assert_true(count > 0 && count < 64);
    *compressed = 0;
    for (size_t i = 0; i < count; i++) {
        bases[i] = list[i];
        *compressed += is_compressed(list[i]);
    }
    free(list);
    return count;
}

static uint64_t bytes_kept(struct stepped *stepped)
{
    struct journal_stream_stats stats;
    journal_stream_stats(stepped->stream, &stats);
    return stats.bytes;
}

/* Four segments, three of them full and compressed, of three frames each. */
static void write_compressed(struct stepped *stepped, uint64_t bases[64])
{
    size_t compressed;
    *stepped = (struct stepped){.segment_size = SEGMENT, .level = 3};
    stepped_start(stepped);
    stepped_fill(stepped, RECORDS, PAYLOAD, TEXT);
    stepped_keep(stepped);
    assert_int_equal(list_segments(bases, &compressed), 4);
    assert_int_equal(compressed, 3);
}

static void closed_segments_are_compressed_and_read_as_before(void **state)
{
    (void)state;
    struct stepped stepped;
    uint64_t bases[64];
    write_compressed(&stepped, bases);
    assert_true(bytes_kept(&stepped) < SEGMENT * 3 / 2);
    assert_false(is_compressed(bases[3]));
    assert_int_equal(read_all(0, 0, NULL), RECORDS);
    for (uint64_t from = 0; from < RECORDS; from += 37)
        assert_int_equal(read_all(from, from, NULL), RECORDS - from);
    stepped_stop(&stepped);
    struct stepped plain = {.segment_size = SEGMENT}; /* compression is off again */
    stepped_start(&plain);
    stepped_fill(&plain, 10, PAYLOAD, TEXT);
    stepped_stop(&plain);
    assert_int_equal(read_all(0, 0, NULL), RECORDS + 10);
}

/* The bytes of the new segment, read as a segment's, are those of the old. */
static void what_is_compressed_is_byte_for_byte_what_was_there(void **state)
{
    (void)state;
    struct stepped stepped = {.segment_size = SEGMENT};
    stepped_start(&stepped);
    stepped_fill(&stepped, 400, PAYLOAD, TEXT);
    char path[600], folder[600];
    stepped_path(0, path);
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    uint8_t *before = malloc(SEGMENT), *after = malloc(SEGMENT);
    struct segment_file segment;
    size_t have, have_after;
    uint64_t unreadable_to;
    assert_int_equal(segment_open(disk_posix(), folder, 0, DISK_READ, &segment), 0);
    assert_int_equal(segment_read(disk_posix(), &segment, before, SEGMENT, FORMAT_SEGMENT_HEADER_SIZE, &have, &unreadable_to), 0);
    segment_close(disk_posix(), &segment);
    stepped_stop(&stepped);
    stepped.level = 1;
    stepped_start(&stepped);
    stepped_keep(&stepped);
    stepped_stop(&stepped);
    assert_int_equal(segment_open(disk_posix(), folder, 0, DISK_READ, &segment), 0);
    assert_non_null(segment.frames);
    assert_int_equal(segment_read(disk_posix(), &segment, after, SEGMENT, FORMAT_SEGMENT_HEADER_SIZE, &have_after, &unreadable_to), 0);
    assert_int_equal(FORMAT_SEGMENT_HEADER_SIZE + have_after, segment_length(disk_posix(), &segment));
    assert_true(have_after <= have && have_after > SEGMENT / 2);
    assert_memory_equal(before, after, have_after);
    segment_close(disk_posix(), &segment);
    free(before);
    free(after);
}

/* Where a reader stood in the old file is where it goes on in the new one; what had the old one open reads it to its end. */
static void a_place_stays_right(void **state)
{
    (void)state;
    struct stepped stepped = {.segment_size = SEGMENT};
    char folder[600];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    stepped_start(&stepped);
    stepped_fill(&stepped, 400, PAYLOAD, TEXT);
    stepped_stop(&stepped);
    struct reader *before, *after;
    struct message message;
    struct reader_place place;
    uint8_t *block = malloc(20 * PAYLOAD);
    struct message messages[64];
    size_t count, needed;
    assert_int_equal(reader_open(&before, disk_posix(), folder, 150, NULL, NULL), 0);
    while (reader_offset(before) < 200)
        assert_int_equal(reader_fill(before, 200, block, 20 * PAYLOAD, messages, 64, &count, &needed), 0);
    reader_place(before, &place);
    stepped.level = 3;
    stepped_start(&stepped);
    stepped_keep(&stepped);
    assert_true(is_compressed(0));
    assert_int_equal(reader_open_at(&after, disk_posix(), folder, &place, 200, NULL, NULL), 0);
    struct reader_place same;
    reader_place(after, &same);
    assert_memory_equal(&same, &place, sizeof place);
    struct reader *readers[] = {before, after};
    for (unsigned i = 0; i < 2; i++) {
        for (uint64_t offset = 200; offset < 400; offset++) {
            assert_int_equal(reader_next(readers[i], UINT64_MAX, &message, NULL), 0);
            assert_int_equal(message.offset, offset);
        }
        assert_int_equal(reader_next(readers[i], UINT64_MAX, &message, NULL), ERR_TRUNCATED);
        reader_close(readers[i]);
    }
    free(block);
    stepped_stop(&stepped);
}

static void a_record_longer_than_a_frame_is_a_frame_of_its_own(void **state)
{
    (void)state;
    struct stepped stepped = {.segment_size = SEGMENT, .level = 3};
    stepped_start(&stepped);
    stepped_fill(&stepped, 3, 100, TEXT);
    stepped_fill(&stepped, 1, FRAMES_RAW_SIZE + 5000, TEXT);
    stepped_fill(&stepped, 50, 100000, TEXT);
    stepped_keep(&stepped);
    assert_true(is_compressed(0));
    stepped_stop(&stepped);
    assert_int_equal(read_all(0, 0, NULL), 54);
    assert_int_equal(read_all(3, 3, NULL), 51);
}

static void what_does_not_become_smaller_stays_as_it_is(void **state)
{
    (void)state;
    struct stepped stepped = {.segment_size = SEGMENT, .level = 3};
    uint64_t bases[64];
    size_t compressed;
    stepped_start(&stepped);
    stepped_fill(&stepped, 400, PAYLOAD, NOISE);
    stepped_keep(&stepped);
    assert_true(list_segments(bases, &compressed) > 1);
    assert_int_equal(compressed, 0);
    assert_false(journal_step_keeper(stepped.journal)); /* it is not tried again */
    char path[600];
    snprintf(path, sizeof path, "%s/s/compressed.seg", test_folder);
    assert_int_equal(file_length(path), -1);
    stepped_stop(&stepped);
    assert_int_equal(read_all(0, 0, NULL), 400);
}

static void a_damaged_segment_stays_as_it_is(void **state)
{
    (void)state;
    struct stepped stepped = {.segment_size = SEGMENT};
    uint64_t bases[64];
    size_t compressed;
    stepped_start(&stepped);
    stepped_fill(&stepped, 700, PAYLOAD, TEXT);
    stepped_stop(&stepped);
    char path[600];
    stepped_path(0, path);
    flip(path, SEGMENT / 2);
    stepped.level = 3;
    stepped_start(&stepped);
    stepped_keep(&stepped);
    assert_true(list_segments(bases, &compressed) > 3);
    assert_false(is_compressed(0));
    assert_int_equal(compressed, 2);
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), 699);
    stepped_stop(&stepped);
}

static void what_the_consumer_has_not_read_stays_as_it_is(void **state)
{
    (void)state;
    struct stepped stepped = {.segment_size = SEGMENT, .level = 3, .guarded = true};
    uint64_t bases[64];
    size_t compressed;
    stepped_start(&stepped);
    stepped_fill(&stepped, RECORDS, PAYLOAD, TEXT);
    stepped_keep(&stepped);
    assert_int_equal(list_segments(bases, &compressed), 4);
    assert_int_equal(compressed, 0);
    journal_stream_set_guard(stepped.stream, bases[2] - 1);
    stepped_keep(&stepped);
    assert_true(is_compressed(bases[0]) && !is_compressed(bases[1]));
    journal_stream_set_guard(stepped.stream, bases[2]);
    stepped_keep(&stepped);
    assert_true(is_compressed(bases[1]) && !is_compressed(bases[2]));
    stepped_stop(&stepped);
    assert_int_equal(read_all(0, 0, NULL), RECORDS);
}

/* They count with the bytes that they take, and go like others. */
static void retention_takes_compressed_segments(void **state)
{
    (void)state;
    struct stepped stepped = {.segment_size = SEGMENT, .level = 3, .retention_size = 2 * SEGMENT};
    uint64_t bases[64], records = 0;
    size_t compressed, count = 0;
    stepped_start(&stepped);
    do {
        stepped_fill(&stepped, 50, PAYLOAD, HALF_NOISE);
        stepped_keep(&stepped);
        records += 50;
        count = list_segments(bases, &compressed);
        assert_int_equal(compressed, count - 1);
    } while (bases[0] == 0 && records < 20000);
    assert_true(count > 4);                                                /* of the others four would hold more */
    assert_true(bytes_kept(&stepped) >= stepped.retention_size - SEGMENT); /* when it went the newest closed one was raw yet */
    stepped_stop(&stepped);
    assert_int_equal(read_all(bases[0], bases[0], NULL), records - bases[0]);
}

/* As in retention that is tight: the oldest goes while it is being compressed. */
static void what_is_taken_away_under_way_is_given_up(void **state)
{
    (void)state;
    struct stepped stepped = {.segment_size = SEGMENT, .level = 3, .retention_size = SEGMENT / 2};
    char path[600];
    stepped_start(&stepped);
    stepped_fill(&stepped, 340, PAYLOAD, HALF_NOISE);
    snprintf(path, sizeof path, "%s/s/compressed.seg", test_folder);
    while (file_length(path) < FRAMES_RAW_SIZE / 4)
        assert_true(journal_step_keeper(stepped.journal));
    stepped_fill(&stepped, 200, PAYLOAD, TEXT);
    stepped_keep(&stepped);
    assert_int_equal(file_length(path), -1);
    uint64_t bases[64];
    size_t compressed;
    assert_int_equal(list_segments(bases, &compressed), 1);
    assert_int_equal(read_all(0, bases[0], NULL), 540 - bases[0]);
    stepped_stop(&stepped);
}

/* With the journal's own threads: it is read while it is written, and while what is read becomes another file. */
static void it_is_read_while_it_is_compressed(void **state)
{
    (void)state;
    /* Groups much smaller than a segment, so that none is left with so little in it that it is not worth compressing. */
    struct fixture fixture = {.segment_size = 256 << 10, .compression_level = 1, .group_bytes_max = 32 << 10};
    uint64_t bases[64], written = 0;
    size_t compressed, count;
    start(&fixture);
    for (; written < 6000; written += 1000) {
        append(&fixture, written, 1000, 1000);
        assert_int_equal(read_all(0, 0, NULL), written + 1000);
    }
    unsigned readings = 0;
    do {
        assert_int_equal(read_all(0, 0, NULL), written);
        count = list_segments(bases, &compressed);
    } while (compressed + 1 < count && ++readings < 10000);
    assert_int_equal(compressed, count - 1);
    stop(&fixture);
    assert_int_equal(read_all(0, 0, NULL), written);
}

/* ---- a disk without space ---- */

static struct disk_ops failing_ops;
static struct disk failing = {&failing_ops};
static bool refuse;
static int made = -1;

static int failing_open(struct disk *disk, const char *path, enum disk_open how)
{
    int file = disk_posix()->ops->open(disk, path, how);
    if (strstr(path, "/compressed.seg"))
        made = file;
    return file;
}

static ssize_t failing_write(struct disk *disk, int file, const struct iovec *parts, int part_count, uint64_t position)
{
    if (refuse && file == made && position > FORMAT_SEGMENT_HEADER_SIZE)
        return -ENOSPC;
    return disk_posix()->ops->write(disk, file, parts, part_count, position);
}

static void on_a_full_disk_it_is_tried_again_with_the_next_segment(void **state)
{
    (void)state;
    failing_ops = *disk_posix()->ops;
    failing_ops.open = failing_open;
    failing_ops.write = failing_write;
    refuse = true;
    struct stepped stepped = {.segment_size = SEGMENT, .level = 3, .disk = &failing};
    uint64_t bases[64];
    size_t compressed;
    char path[600];
    snprintf(path, sizeof path, "%s/s/compressed.seg", test_folder);
    stepped_start(&stepped);
    stepped_fill(&stepped, 400, PAYLOAD, TEXT);
    stepped_keep(&stepped);
    assert_int_equal(list_segments(bases, &compressed), 2);
    assert_int_equal(compressed, 0);
    assert_int_equal(file_length(path), -1); /* its space is given back */
    refuse = false;
    stepped_keep(&stepped);
    list_segments(bases, &compressed);
    assert_int_equal(compressed, 0); /* not yet */
    stepped_fill(&stepped, 400, PAYLOAD, TEXT);
    stepped_keep(&stepped);
    assert_int_equal(list_segments(bases, &compressed), 3);
    assert_int_equal(compressed, 2);
    stepped_stop(&stepped);
    assert_int_equal(read_all(0, 0, NULL), 800);
}

/* ---- a compressed segment that is the last ---- */

/* As after a crash before the newest segment had a record, and another during the start. */
static void remove_newest(uint64_t base_offset)
{
    char path[600];
    stepped_path(base_offset, path);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/ends", test_folder); /* it would tell of the records that were there */
    assert_int_equal(unlink(path), 0);
}

static void a_start_goes_on_behind_a_compressed_segment(void **state)
{
    (void)state;
    struct stepped stepped;
    uint64_t bases[64];
    char path[600];
    write_compressed(&stepped, bases);
    stepped_stop(&stepped);
    remove_newest(bases[3]);
    stepped_path(bases[2], path);
    off_t size = file_length(path);
    stepped_start(&stepped);
    assert_int_equal(journal_stream_durable(stepped.stream), bases[3]);
    stepped_fill(&stepped, 5, PAYLOAD, TEXT);
    stepped_stop(&stepped);
    assert_int_equal(file_length(path), size);
    assert_int_equal(read_all(0, 0, NULL), bases[3] + 5);
}

/* Retention by age asks for it: of the last one, of closed ones, of compressed ones. */
static void a_start_knows_when_each_segment_was_made(void **state)
{
    (void)state;
    struct stepped stepped;
    uint64_t bases[64], created_ns[4];
    write_compressed(&stepped, bases);
    for (unsigned i = 0; i < 4; i++)
        created_ns[i] = stepped.stream->segments[i].created_ns;
    stepped_stop(&stepped);
    stepped_start(&stepped);
    assert_int_equal(stepped.stream->segment_count, 5);
    for (unsigned i = 0; i < 4; i++)
        assert_true(created_ns[i] > 0 && stepped.stream->segments[i].created_ns == created_ns[i]);
    stepped_stop(&stepped);
}

/* ---- damage ---- */

struct findings {
    unsigned count;
    struct inspect_finding list[8];
};

static void note_finding(void *context, const struct inspect_finding *finding)
{
    struct findings *findings = context;
    assert_true(findings->count < 8);
    findings->list[findings->count++] = *finding;
}

/* What `verify` would find. */
static void inspect(struct findings *findings, struct inspect_end *end)
{
    char folder[600];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    *findings = (struct findings){0};
    const struct inspect_visitor visitor = {.context = findings, .finding = note_finding};
    assert_int_equal(inspect_stream(disk_posix(), folder, "s", 0, &visitor, end), 0);
}

/* A frame of the segment, as its header tells. */
static struct frame read_frame(uint64_t base_offset, unsigned index)
{
    struct segment_file segment;
    char folder[600];
    uint8_t header[FRAME_HEADER_SIZE];
    struct frame frame = {0};
    uint64_t position = FORMAT_SEGMENT_HEADER_SIZE;
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    assert_int_equal(segment_open(disk_posix(), folder, base_offset, DISK_READ, &segment), 0);
    for (unsigned i = 0; i <= index; i++) {
        assert_int_equal(disk_posix()->ops->read(disk_posix(), segment.file, header, sizeof header, position), sizeof header);
        assert_true(frame_header_decode(header, position, segment.salt, &frame));
        position += frame_file_size(&frame);
    }
    segment_close(disk_posix(), &segment);
    return frame;
}

/* Reader and inspection tell the loss of exactly these records, in this frame. */
static void assert_lost(uint64_t base_offset, const struct frame *lost, unsigned damages)
{
    struct damage_count damage = {0};
    struct findings findings;
    struct inspect_end end;
    char name[32];
    segment_name(base_offset, name);
    assert_int_equal(read_all(0, 0, &damage), RECORDS - lost->record_count);
    assert_int_equal(damage.count, 1);
    inspect(&findings, &end);
    assert_int_equal(findings.count, damages);
    assert_int_equal(findings.list[0].kind, INSPECT_RECORDS);
    assert_int_equal(end.records, RECORDS - lost->record_count);
    assert_int_equal(end.lost, lost->record_count);
    const struct reader_damage *told[2] = {&damage.last, &findings.list[0].place};
    for (unsigned i = 0; i < 2; i++) {
        assert_string_equal(told[i]->segment, name);
        assert_int_equal(told[i]->position, lost->file_position);
        assert_int_equal(told[i]->length, frame_file_size(lost));
        assert_int_equal(told[i]->first_offset, lost->first_offset);
        assert_int_equal(told[i]->next_offset, lost->first_offset + lost->record_count);
    }
}

static void damage_costs_one_frame_whose_offsets_are_told(void **state)
{
    (void)state;
    struct stepped stepped;
    uint64_t bases[64];
    char path[600];
    write_compressed(&stepped, bases);
    stepped_stop(&stepped);
    for (unsigned segment = 0; segment < 3; segment += 2) {
        for (unsigned index = 0; index < 3; index++) {
            struct frame frame = read_frame(bases[segment], index);
            off_t place = (off_t)frame.file_position + FRAME_HEADER_SIZE + frame.size / 2;
            stepped_path(bases[segment], path);
            flip(path, place);
            assert_lost(bases[segment], &frame, 1);
            flip(path, place);
        }
    }
    assert_int_equal(read_all(0, 0, NULL), RECORDS);
}

static void assert_nothing_lost(unsigned kind)
{
    struct findings findings;
    struct inspect_end end;
    assert_int_equal(read_all(0, 0, NULL), RECORDS);
    inspect(&findings, &end);
    assert_int_equal(findings.count, 1);
    assert_int_equal(findings.list[0].kind, kind);
    assert_int_equal(end.records, RECORDS);
    assert_int_equal(end.lost, 0);
}

static void what_is_there_twice_may_be_damaged_once(void **state)
{
    (void)state;
    struct stepped stepped;
    uint64_t bases[64];
    char path[600];
    write_compressed(&stepped, bases);
    stepped_stop(&stepped);
    stepped_path(bases[1], path);
    off_t size = file_length(path);
    struct frame frame = read_frame(bases[1], 1);
    const off_t places[] = {(off_t)frame.file_position + 40, size - FRAMES_END_SIZE - 100, size - 20};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        flip(path, places[i]);
        assert_nothing_lost(INSPECT_INDEX);
        flip(path, places[i]);
    }
    flip(path, 30);
    assert_nothing_lost(INSPECT_HEADER_COPY);
    flip(path, 4096 + 30);
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), RECORDS); /* with the key of another segment */
    assert_int_equal(damage.count, 1);
    assert_int_equal(damage.last.next_offset - damage.last.first_offset, 0);
    flip(path, (off_t)frame.file_position + 40); /* without an index, the header is what tells of the frame */
    flip(path, size - 20);
    flip(path, 30);
    flip(path, 4096 + 30);
    assert_lost(bases[1], &frame, 2);
}

/* Of what is behind the cut, only the next segment's name tells how much it was. */
static void a_cut_file_gives_what_is_left(void **state)
{
    (void)state;
    struct stepped stepped;
    uint64_t bases[64];
    char path[600];
    write_compressed(&stepped, bases);
    stepped_stop(&stepped);
    stepped_path(bases[1], path);
    struct frame frame = read_frame(bases[1], 2);
    assert_int_equal(truncate(path, (off_t)frame.file_position + 10), 0);
    struct damage_count damage = {0};
    struct findings findings;
    struct inspect_end end;
    assert_int_equal(read_all(0, 0, &damage), RECORDS - (bases[2] - frame.first_offset));
    assert_int_equal(damage.count, 1);
    assert_int_equal(damage.last.first_offset, frame.first_offset);
    assert_int_equal(damage.last.next_offset, bases[2]);
    inspect(&findings, &end);
    assert_int_equal(findings.count, 2);
    assert_int_equal(findings.list[0].kind, INSPECT_INDEX);
    assert_int_equal(findings.list[1].kind, INSPECT_MISSING);
    assert_int_equal(findings.list[1].place.first_offset, frame.first_offset);
    assert_int_equal(findings.list[1].place.next_offset, bases[2]);
    assert_int_equal(truncate(path, FORMAT_SEGMENT_HEADER_SIZE), 0); /* nothing is left */
    damage = (struct damage_count){0};
    assert_int_equal(read_all(0, 0, &damage), RECORDS - (bases[2] - bases[1]));
    assert_int_equal(damage.count, 1);
}

/* The last frame of the last segment: how far the offsets went is known all the same. */
static void a_start_behind_a_damaged_frame_gives_no_offset_twice(void **state)
{
    (void)state;
    struct stepped stepped;
    uint64_t bases[64];
    char path[600];
    write_compressed(&stepped, bases);
    stepped_stop(&stepped);
    remove_newest(bases[3]);
    stepped_path(bases[2], path);
    struct frame frame = read_frame(bases[2], 2);
    flip(path, (off_t)frame.file_position + FRAME_HEADER_SIZE + 20);
    struct findings findings;
    struct inspect_end end;
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), frame.first_offset);
    assert_int_equal(damage.last.next_offset, bases[3]);
    inspect(&findings, &end);
    assert_int_equal(findings.count, 1);
    assert_int_equal(end.next_offset, bases[3]);
    stepped_start(&stepped);
    assert_int_equal(journal_stream_durable(stepped.stream), bases[3]);
    stepped_stop(&stepped);
}

static void files_tell_what_they_were_before(void **state)
{
    (void)state;
    struct stepped stepped;
    uint64_t bases[64];
    char folder[600];
    write_compressed(&stepped, bases);
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    struct inspect_file *files;
    size_t count;
    assert_int_equal(inspect_files(disk_posix(), folder, &files, &count), 0);
    assert_true(count >= 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(files[i].raw_bytes > 0, i < 3);
        assert_true(files[i].created_ns > 0);
        assert_true(i == 3 ||
                    (files[i].raw_bytes > SEGMENT - 20 * PAYLOAD && files[i].raw_bytes <= SEGMENT && files[i].bytes < SEGMENT / 8));
    }
    free(files);
    stepped_stop(&stepped);
}

int main(void)
{
    diagnostics_set_level((enum diagnostics_level)(DIAGNOSTICS_ERROR + 1)); /* damage and full disks are what it is about */
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, test_folder_make, test_folder_remove)
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(closed_segments_are_compressed_and_read_as_before),
        WITH_FOLDER(what_is_compressed_is_byte_for_byte_what_was_there),
        WITH_FOLDER(a_place_stays_right),
        WITH_FOLDER(a_record_longer_than_a_frame_is_a_frame_of_its_own),
        WITH_FOLDER(what_does_not_become_smaller_stays_as_it_is),
        WITH_FOLDER(a_damaged_segment_stays_as_it_is),
        WITH_FOLDER(what_the_consumer_has_not_read_stays_as_it_is),
        WITH_FOLDER(retention_takes_compressed_segments),
        WITH_FOLDER(what_is_taken_away_under_way_is_given_up),
        WITH_FOLDER(it_is_read_while_it_is_compressed),
        WITH_FOLDER(on_a_full_disk_it_is_tried_again_with_the_next_segment),
        WITH_FOLDER(a_start_goes_on_behind_a_compressed_segment),
        WITH_FOLDER(a_start_knows_when_each_segment_was_made),
        WITH_FOLDER(damage_costs_one_frame_whose_offsets_are_told),
        WITH_FOLDER(what_is_there_twice_may_be_damaged_once),
        WITH_FOLDER(a_cut_file_gives_what_is_left),
        WITH_FOLDER(a_start_behind_a_damaged_frame_gives_no_offset_twice),
        WITH_FOLDER(files_tell_what_they_were_before),
    };
    return cmocka_run_group_tests_name("journal compression", tests, NULL, NULL);
}
