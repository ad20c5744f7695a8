/* Damage to a stream's files: what is lost is named exactly, what is not lost is read, and nothing is invented. */
#include "journal_fixture.h"

#include <stdio.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { RECORD_SIZE = 160, PAYLOAD = 100 }; /* a record is 48 + 5 + 100 bytes, rounded up */

static void segment_path(uint64_t base_offset, char path[600])
{
    char name[32];
    segment_name(base_offset, name);
    snprintf(path, 600, "%s/s/%s", test_folder, name);
}

static void zero(uint64_t base_offset, off_t from, size_t count)
{
    char path[600];
    segment_path(base_offset, path);
    int file = open(path, O_RDWR);
    assert_true(file >= 0);
    uint8_t *zeros = calloc(1, count);
    assert_int_equal(pwrite(file, zeros, count, from), (ssize_t)count);
    free(zeros);
    close(file);
}

static off_t segment_size(uint64_t base_offset)
{
    char path[600];
    segment_path(base_offset, path);
    struct stat status;
    return stat(path, &status) ? -1 : status.st_size;
}

/* Three segments of 1,000 records, ended in order. */
static void write_three_segments(void)
{
    struct fixture fixture = {0};
    for (uint64_t round = 0; round < 3; round++) {
        start(&fixture);
        append(&fixture, round * 1000, 1000, PAYLOAD);
        stop(&fixture);
    }
}

static void damage_in_the_middle_is_reported_and_passed_over(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    start(&fixture);
    append(&fixture, 0, 70, PAYLOAD);
    stop(&fixture);
    char path[600];
    newest_segment(path);
    flip(path, FORMAT_SEGMENT_HEADER_SIZE + RECORD_SIZE * 20 + 70);
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), 69);
    assert_int_equal(damage.count, 1);
    assert_int_equal(damage.last.first_offset, 20);
    assert_int_equal(damage.last.next_offset, 21);
    assert_int_equal(damage.last.position, FORMAT_SEGMENT_HEADER_SIZE + RECORD_SIZE * 20);
    start(&fixture);
    assert_int_equal(journal_stream_durable(fixture.stream), 70);
    append(&fixture, 70, 5, PAYLOAD);
    stop(&fixture);
    damage = (struct damage_count){0};
    assert_int_equal(read_all(0, 0, &damage), 74);
    assert_int_equal(damage.count, 1);
}

/* One page or sector is what a disk typically loses. */
static void a_lost_first_page_costs_nothing(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    start(&fixture);
    append(&fixture, 0, 100, PAYLOAD);
    stop(&fixture);
    zero(0, 0, 4096);
    assert_int_equal(read_all(0, 0, NULL), 100);
    start(&fixture);
    assert_int_equal(journal_stream_durable(fixture.stream), 100);
    append(&fixture, 100, 10, PAYLOAD);
    stop(&fixture);
    assert_int_equal(read_all(0, 0, NULL), 110);
}

static void a_lost_header_costs_no_record_where_another_segment_stands(void **state)
{
    (void)state;
    write_three_segments();
    for (uint64_t base = 0; base < 3000; base += 1000) {
        char command[800];
        snprintf(command, sizeof command, "cp -r %s/s %s/whole", test_folder, test_folder);
        assert_int_equal(system(command), 0);
        zero(base, 0, FORMAT_SEGMENT_HEADER_SIZE);
        struct damage_count damage = {0};
        assert_int_equal(read_all(0, 0, &damage), 3000);
        assert_int_equal(damage.count, 1);
        assert_int_equal(damage.last.first_offset, damage.last.next_offset);
        assert_false(damage.last.unbounded);
        struct fixture fixture = {0};
        start(&fixture);
        assert_int_equal(journal_stream_durable(fixture.stream), 3000);
        append(&fixture, 3000, 10, PAYLOAD);
        stop(&fixture);
        assert_int_equal(read_all(0, 0, &damage), 3010);
        snprintf(command, sizeof command, "rm -r %s/s && mv %s/whole %s/s", test_folder, test_folder, test_folder);
        assert_int_equal(system(command), 0);
        test_folder_forget_ends();
    }
}

static void a_lost_beginning_costs_what_stood_there_and_no_more(void **state)
{
    (void)state;
    write_three_segments();
    uint64_t lost = (65536 - FORMAT_SEGMENT_HEADER_SIZE + RECORD_SIZE - 1) / RECORD_SIZE, left = 3000;
    for (uint64_t base = 1000; base < 3000; base += 1000) { /* the first keeps the key */
        zero(base, 0, 65536);
        left -= lost;
        struct damage_count damage = {0};
        assert_int_equal(read_all(0, 0, &damage), left);
        assert_int_equal(damage.last.first_offset, base);
        assert_int_equal(damage.last.next_offset, base + lost);
    }
    struct fixture fixture = {0};
    start(&fixture);
    assert_int_equal(journal_stream_durable(fixture.stream), 3000);
    stop(&fixture);
}

static void a_segment_of_which_nothing_is_left_costs_exactly_what_the_next_name_tells(void **state)
{
    (void)state;
    write_three_segments();
    char path[600];
    segment_path(1000, path);
    assert_int_equal(truncate(path, 0), 0);
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), 2000);
    assert_int_equal(damage.last.first_offset, 1000);
    assert_int_equal(damage.last.next_offset, 2000);
    assert_int_equal(remove(path), 0);
    damage = (struct damage_count){0};
    assert_int_equal(read_all(0, 0, &damage), 2000);
    assert_int_equal(damage.count, 1);
    assert_int_equal(damage.last.first_offset, 1000);
    assert_int_equal(damage.last.next_offset, 2000);
}

static void where_every_header_is_lost_the_names_tell_what_is_missing(void **state)
{
    (void)state;
    write_three_segments();
    for (uint64_t base = 0; base < 3000; base += 1000)
        zero(base, 0, FORMAT_SEGMENT_HEADER_SIZE);
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), 0);
    assert_int_equal(damage.count, 3); /* each once */
    assert_int_equal(damage.last.first_offset, 2000);
    assert_int_equal(damage.last.next_offset, 2000);
    assert_true(damage.last.unbounded);
}

static void where_nothing_tells_how_much_is_lost_no_offset_is_invented(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    start(&fixture);
    append(&fixture, 0, 100, PAYLOAD);
    stop(&fixture);
    off_t size = segment_size(0);
    zero(0, 0, FORMAT_SEGMENT_HEADER_SIZE);
    test_folder_forget_ends();
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), 0);
    assert_int_equal(damage.count, 1);
    assert_true(damage.last.unbounded);
    char text[READER_DAMAGE_TEXT_MAX];
    reader_damage_text(&damage.last, text);
    assert_null(strstr(text, "18446744073709551615"));
    start(&fixture);
    assert_int_equal(journal_stream_durable(fixture.stream), 0);
    append(&fixture, 0, 4, PAYLOAD);
    stop(&fixture);
    assert_int_equal(read_all(0, 0, NULL), 4);
    char kept[600];
    snprintf(kept, sizeof kept, "%s/s/00000000000000000000.seg.damaged", test_folder);
    struct stat status;
    assert_int_equal(stat(kept, &status), 0); /* nothing that somebody may still use is thrown away */
    assert_int_equal(status.st_size, size);
}

static void damage_in_the_last_group_before_a_seal_is_no_torn_end(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    start(&fixture);
    append(&fixture, 0, 70, PAYLOAD);
    stop(&fixture);
    off_t end = segment_size(0), seal = end - FORMAT_RECORD_HEADER_SIZE;
    assert_int_equal(seal, FORMAT_SEGMENT_HEADER_SIZE + 70 * RECORD_SIZE);
    zero(0, seal - RECORD_SIZE, RECORD_SIZE);
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), 69);
    assert_int_equal(damage.last.first_offset, 69);
    assert_int_equal(damage.last.next_offset, 70);
    start(&fixture);
    assert_int_equal(journal_stream_durable(fixture.stream), 70); /* the lost offset is not given again */
    append(&fixture, 70, 5, PAYLOAD);
    stop(&fixture);
    assert_int_equal(segment_size(0), end); /* and nothing was cut off */
}

static void without_a_seal_what_does_not_stand_at_the_end_is_cut_off(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    start(&fixture);
    append(&fixture, 0, 70, PAYLOAD);
    stop(&fixture);
    off_t seal = segment_size(0) - FORMAT_RECORD_HEADER_SIZE;
    zero(0, seal - RECORD_SIZE, RECORD_SIZE + FORMAT_RECORD_HEADER_SIZE);
    test_folder_forget_ends();
    start(&fixture);
    assert_int_equal(journal_stream_durable(fixture.stream), 69);
    stop(&fixture);
    assert_int_equal(segment_size(0), seal - RECORD_SIZE);
    assert_int_equal(read_all(0, 0, NULL), 69);
}

static void assert_refused(const uint8_t *header, size_t size)
{
    char path[600], folder[300];
    segment_path(0, path);
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    int file = open(path, O_RDWR);
    assert_int_equal(pwrite(file, header, size, 0), (ssize_t)size);
    off_t length = lseek(file, 0, SEEK_END);
    close(file);
    struct reader *reader;
    assert_int_equal(reader_open(&reader, disk_posix(), folder, 0, NULL, NULL), ERR_FORMAT_VERSION);
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_options options = {.disk = disk_posix(), .folder = test_folder, .segment_size = 1 << 20};
    assert_int_equal(journal_open(&journal, &options), 0);
    struct journal_stream_options named = {.name = "s"};
    assert_int_equal(journal_stream_add(journal, &named, &stream), ERR_FORMAT_VERSION);
    journal_close(journal);
    assert_int_equal(segment_size(0), length); /* left as it was */
}

static void an_unknown_version_is_refused_and_left_alone(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    start(&fixture);
    append(&fixture, 0, 70, PAYLOAD);
    stop(&fixture);
    uint8_t block[FORMAT_SEGMENT_HEADER_SIZE];
    struct format_segment_header header = {.key = 1, .stream = "s"};
    format_segment_header_encode(block, &header);
    uint32_t version = FORMAT_VERSION_COMPRESSED + 1, first = 1, first_size = 4096;
    memcpy(block + 8, &version, sizeof version);
    uint64_t sum = XXH3_64bits(block, 4088);
    memcpy(block + 4088, &sum, sizeof sum);
    assert_refused(block, sizeof block); /* a later one of this layout */
    memcpy(block + 8, &first, sizeof first);
    memcpy(block + 12, &first_size, sizeof first_size);
    memset(block + 104, 0, sizeof block - 104);
    memcpy(block + 2048, block, 2048);
    assert_refused(block, sizeof block); /* an earlier one, whose checksum stood elsewhere */
}

/* Of a header whose version is damaged nothing is lost but the header. */
static void a_damaged_version_is_a_lost_header(void **state)
{
    (void)state;
    write_three_segments();
    char path[600];
    segment_path(1000, path);
    int file = open(path, O_RDWR);
    assert_true(file >= 0);
    static const struct {
        uint32_t first[2], second[2]; /* version and size of the header, in each copy */
    } cases[] = {
        {{9, 8192}, {9, 8192}},                               /* it checks out with one of ours */
        {{9, 8192}, {200, 8192}},                             /* not the same */
        {{UINT32_MAX, UINT32_MAX}, {UINT32_MAX, UINT32_MAX}}, /* not a version */
        {{0, 0}, {0, 0}},
        {{9, 9}, {3, 9}}, /* the other copy is of ours */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(pwrite(file, cases[i].first, 8, 8), 8);
        assert_int_equal(pwrite(file, cases[i].second, 8, 4096 + 8), 8);
        struct damage_count damage = {0};
        assert_int_equal(read_all(0, 0, &damage), 3000);
        assert_true(damage.count == 1 && damage.last.first_offset == damage.last.next_offset);
    }
    close(file);
    struct fixture fixture = {0};
    start(&fixture);
    append(&fixture, 3000, 10, PAYLOAD);
    stop(&fixture);
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), 3010);
}

static void an_unknown_version_of_an_older_segment_keeps_a_start_from_it(void **state)
{
    (void)state;
    write_three_segments();
    uint8_t block[FORMAT_SEGMENT_HEADER_SIZE];
    struct format_segment_header header = {.key = 1, .base_offset = 1000, .stream = "s"};
    format_segment_header_encode(block, &header);
    block[8] = FORMAT_VERSION_COMPRESSED + 1;
    block[4096 + 8] = FORMAT_VERSION_COMPRESSED + 1;
    block[200] = block[4096 + 200] = 1; /* a field that we do not know, under another sum */
    char path[600], folder[300];
    segment_path(1000, path);
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    int file = open(path, O_RDWR);
    assert_int_equal(segment_versions(disk_posix(), folder), 0);
    assert_int_equal(pwrite(file, block, sizeof block, 0), (ssize_t)sizeof block);
    close(file);
    assert_int_equal(segment_versions(disk_posix(), folder), ERR_FORMAT_VERSION);
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_options options = {.disk = disk_posix(), .folder = test_folder, .segment_size = 1 << 20};
    assert_int_equal(journal_open(&journal, &options), 0);
    struct journal_stream_options named = {.name = "s"};
    assert_int_equal(journal_stream_add(journal, &named, &stream), ERR_FORMAT_VERSION);
    journal_close(journal);
}

/* What is damaged before the place is not met. */
static void a_reader_at_a_place_reads_nothing_before_it(void **state)
{
    (void)state;
    write_three_segments();
    char folder[300];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    zero(1000, FORMAT_SEGMENT_HEADER_SIZE + 10 * RECORD_SIZE, RECORD_SIZE);
    struct reader_place place = {.base_offset = 1000, .position = FORMAT_SEGMENT_HEADER_SIZE + 500 * RECORD_SIZE, .next_offset = 1500};
    static const struct {
        uint64_t from;
        unsigned damaged;
    } cases[] = {{1500, 0}, {1700, 0}, {1400, 1} /* the place lies behind it */, {2500, 0} /* another segment */, {20, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct damage_count damage = {0};
        struct reader *reader;
        struct message message;
        assert_int_equal(reader_open_at(&reader, disk_posix(), folder, &place, cases[i].from, count_damage, &damage), 0);
        assert_int_equal(reader_next(reader, UINT64_MAX, &message, NULL), 0);
        assert_int_equal(message.offset, cases[i].from);
        assert_int_equal(damage.count, cases[i].damaged);
        reader_close(reader);
    }
}

/* Each by itself is whole, but none of their records belong where they stand. Those between them do. */
static void exchanged_files_cost_nothing_but_what_they_hold(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    for (uint64_t round = 0; round < 6; round++) {
        start(&fixture);
        append(&fixture, round * 1000, 1000, PAYLOAD);
        stop(&fixture);
    }
    char first[600], second[600], aside[600];
    segment_path(1000, first);
    segment_path(4000, second);
    snprintf(aside, sizeof aside, "%s/aside", test_folder);
    assert_int_equal(rename(first, aside), 0);
    assert_int_equal(rename(second, first), 0);
    assert_int_equal(rename(aside, second), 0);
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), 4000);
    assert_int_equal(damage.last.first_offset, 4000);
    assert_int_equal(damage.last.next_offset, 5000);
    damage = (struct damage_count){0};
    assert_int_equal(read_all(2500, 2500, &damage), 2500);
    start(&fixture);
    append(&fixture, 6000, 10, PAYLOAD);
    stop(&fixture);
    assert_int_equal(read_all(0, 0, &damage), 4010);
}

/* Nobody has written what lies before a name that somebody has made up. */
static void renamed_file_at_the_end_is_set_aside_and_offsets_go_on_where_they_were(void **state)
{
    (void)state;
    static const uint64_t names[] = {100912, UINT64_C(1) << 47, UINT64_C(9000000000000000000), UINT64_MAX};
    char second[600], kept[640], removal[600];
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        write_three_segments();
        char renamed[600];
        segment_path(1000, second);
        segment_path(names[i], renamed);
        assert_int_equal(rename(second, renamed), 0);
        struct fixture fixture = {0};
        start(&fixture);
        assert_int_equal(journal_stream_durable(fixture.stream), 3000);
        append(&fixture, 3000, 10, PAYLOAD);
        stop(&fixture);
        struct damage_count damage = {0};
        assert_int_equal(read_all(0, 0, &damage), 2010);
        assert_int_equal(damage.last.first_offset, 1000);
        assert_int_equal(damage.last.next_offset, 2000);
        snprintf(kept, sizeof kept, "%s%s", renamed, names[i] < FORMAT_OFFSET_END ? ".damaged" : "");
        assert_int_equal(rename(kept, second), 0); /* given back its name it is there again */
        assert_int_equal(read_all(0, 0, NULL), 3010);
        snprintf(removal, sizeof removal, "rm -r %s/*", test_folder);
        assert_int_equal(system(removal), 0);
    }
}

int main(void)
{
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, test_folder_make, test_folder_remove)
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(damage_in_the_middle_is_reported_and_passed_over),
        WITH_FOLDER(a_lost_first_page_costs_nothing),
        WITH_FOLDER(a_lost_header_costs_no_record_where_another_segment_stands),
        WITH_FOLDER(a_lost_beginning_costs_what_stood_there_and_no_more),
        WITH_FOLDER(a_segment_of_which_nothing_is_left_costs_exactly_what_the_next_name_tells),
        WITH_FOLDER(where_every_header_is_lost_the_names_tell_what_is_missing),
        WITH_FOLDER(where_nothing_tells_how_much_is_lost_no_offset_is_invented),
        WITH_FOLDER(damage_in_the_last_group_before_a_seal_is_no_torn_end),
        WITH_FOLDER(without_a_seal_what_does_not_stand_at_the_end_is_cut_off),
        WITH_FOLDER(renamed_file_at_the_end_is_set_aside_and_offsets_go_on_where_they_were),
        WITH_FOLDER(exchanged_files_cost_nothing_but_what_they_hold),
        cmocka_unit_test_setup_teardown(a_damaged_version_is_a_lost_header, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(an_unknown_version_of_an_older_segment_keeps_a_start_from_it, test_folder_make, test_folder_remove),
        WITH_FOLDER(an_unknown_version_is_refused_and_left_alone),
        WITH_FOLDER(a_reader_at_a_place_reads_nothing_before_it),
    };
    return cmocka_run_group_tests_name("journal damage", tests, NULL, NULL);
}
