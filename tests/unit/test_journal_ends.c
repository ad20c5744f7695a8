/* journal/ends: what is noted of the ends of streams, and what a start makes of it when their newest segments are gone. */
#include "journal/ends.h"

#include "base/clock.h"
#include "journal_fixture.h"
#include "simulated_disk.h"

enum { STREAMS = 3, BEFORE = 20, AFTER = 30 };

#define WAIT_NS UINT64_C(10000000000)

static const char *const names[STREAMS] = {"a", "b", "c"}; /* the last is another scribe's */

static uint64_t retention_size; /* of all streams */

/* A process with a journal on a simulated disk, which does on this thread what the journal's would. */
struct life {
    struct disk *disk;
    struct journal *journal;
    struct journal_stream *streams[STREAMS];
    struct journal_producer *producers[2]; /* of each scribe */
};

static void begin(struct life *life, struct simulated_disk *disk)
{
    life->disk = simulated_disk_table(disk);
    struct journal_options options = {.disk = life->disk, .folder = "/data", .segment_size = 64 << 10, .stepped = true};
    assert_int_equal(journal_open(&life->journal, &options), 0);
    for (unsigned i = 0; i < STREAMS; i++) {
        struct journal_stream_options stream = {.name = names[i], .scribe = i == STREAMS - 1, .retention_size = retention_size};
        assert_int_equal(journal_stream_add(life->journal, &stream, &life->streams[i]), 0);
    }
    assert_int_equal(journal_start(life->journal), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(journal_producer_open(life->journal, no_notice, NULL, &life->producers[i]), 0);
}

/* `count` records into each stream, durable and noted then. */
static void write_records(struct life *life, unsigned count)
{
    struct message message = make_message("topic", "payload");
    for (unsigned i = 0; i < STREAMS; i++)
        for (unsigned n = 0; n < count; n++)
            assert_int_equal(journal_append(life->producers[i == STREAMS - 1], life->streams[i], &message, NULL, 0, 0), 0);
    for (unsigned i = 0; i < 2; i++)
        journal_submit(life->producers[i]);
    while (journal_step_group(life->journal))
        continue;
    while (journal_step_keeper(life->journal))
        continue;
}

static void end(struct life *life)
{
    for (unsigned i = 0; i < 2; i++)
        journal_producer_close(life->producers[i]);
    journal_close(life->journal);
}

static void kill_process(struct life *life, struct simulated_disk *disk)
{
    simulated_disk_kill(disk);
    end(life);
    simulated_disk_revive(disk);
}

/* Two lives of BEFORE and AFTER records; the second is killed. */
static struct simulated_disk *make_disk(void)
{
    struct simulated_disk *disk = simulated_disk_create(1);
    struct life life;
    begin(&life, disk);
    write_records(&life, BEFORE);
    end(&life);
    begin(&life, disk);
    write_records(&life, AFTER);
    kill_process(&life, disk);
    return disk;
}

static void remove_segment(struct simulated_disk *disk, const char *stream, uint64_t base)
{
    char name[32], path[64];
    segment_name(base, name);
    snprintf(path, sizeof path, "/data/%s/%s", stream, name);
    assert_int_equal(simulated_disk_table(disk)->ops->remove(simulated_disk_table(disk), path), 0);
}

/* Reads a stream; returns its records. *lost: the offsets that are told to be lost. */
static uint64_t read_stream(struct simulated_disk *disk, const char *stream, uint64_t *lost)
{
    char folder[64];
    struct reader *reader;
    struct damage_count damage = {0};
    struct message message;
    uint64_t records = 0;
    snprintf(folder, sizeof folder, "/data/%s", stream);
    assert_int_equal(reader_open(&reader, simulated_disk_table(disk), folder, 0, count_damage, &damage), 0);
    while (reader_next(reader, UINT64_MAX, &message, NULL) == 0)
        records++;
    reader_close(reader);
    assert_true(damage.count <= 1);
    *lost = damage.count ? damage.last.next_offset - damage.last.first_offset : 0;
    return records;
}

static void no_offset_of_a_deleted_segment_is_given_again(void **state)
{
    (void)state;
    for (unsigned victim = 0; victim < STREAMS; victim++) {
        for (unsigned segments = 1; segments <= 2; segments++) { /* the newest, or all there are */
            struct simulated_disk *disk = make_disk();
            remove_segment(disk, names[victim], BEFORE);
            if (segments == 2)
                remove_segment(disk, names[victim], 0);
            struct life life;
            begin(&life, disk);
            for (unsigned i = 0; i < STREAMS; i++)
                assert_int_equal(journal_stream_durable(life.streams[i]), BEFORE + AFTER);
            write_records(&life, 1);
            for (unsigned i = 0; i < STREAMS; i++)
                assert_int_equal(journal_stream_durable(life.streams[i]), BEFORE + AFTER + 1);
            end(&life);
            uint64_t lost;
            assert_int_equal(read_stream(disk, names[victim], &lost), segments == 1 ? BEFORE + 1 : 1);
            assert_int_equal(lost, segments == 1 ? AFTER : 0); /* nothing lies before the first segment */
            assert_int_equal(read_stream(disk, names[(victim + 1) % STREAMS], &lost), BEFORE + AFTER + 1);
            assert_int_equal(lost, 0);
            simulated_disk_destroy(disk);
        }
    }
}

static void a_segment_that_is_put_back_fills_the_gap(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    char path[600], command[1400];
    for (uint64_t i = 0; i < 2; i++) {
        start(&fixture);
        append(&fixture, i * 10, 10, 30);
        stop(&fixture);
    }
    newest_segment(path);
    snprintf(command, sizeof command, "mv %s %s/away", path, test_folder);
    assert_int_equal(system(command), 0);
    start(&fixture);
    append(&fixture, 20, 10, 30);
    stop(&fixture);
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), 20);
    assert_true(damage.count == 1 && damage.last.first_offset == 10 && damage.last.next_offset == 20);
    snprintf(command, sizeof command, "mv %s/away %s", test_folder, path);
    assert_int_equal(system(command), 0);
    start(&fixture);
    assert_int_equal(journal_stream_durable(fixture.stream), 30);
    stop(&fixture);
    assert_int_equal(read_all(0, 0, NULL), 30);
}

static void what_is_cut_off_the_end_is_missed(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    char path[600];
    start(&fixture);
    append(&fixture, 0, 10, 30);
    stop(&fixture);
    newest_segment(path);
    assert_int_equal(truncate(path, FORMAT_SEGMENT_HEADER_SIZE + 3 * 88 + 40), 0); /* within the fourth record */
    start(&fixture);
    assert_int_equal(journal_stream_durable(fixture.stream), 10);
    append(&fixture, 10, 1, 30);
    stop(&fixture);
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), 4);
    assert_true(damage.count == 1 && damage.last.first_offset == 3 && damage.last.next_offset == 10);
}

/* The notes of a running journal come by themselves, and those of an orderly end are complete. */
static void the_keeper_notes_how_far_a_stream_has_come(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    struct format_ends ends = {0};
    start(&fixture);
    append(&fixture, 0, 5, 30);
    for (uint64_t deadline_ns = clock_monotonic_ns() + WAIT_NS; ends_of(&ends, "s") < 5;) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        assert_int_equal(ends_read(disk_posix(), test_folder, &ends), 0);
    }
    append(&fixture, 5, 100, 30);
    stop(&fixture);
    assert_int_equal(ends_read(disk_posix(), test_folder, &ends), 0);
    assert_int_equal(ends_of(&ends, "s"), 105);
    assert_int_equal(ends_of(&ends, "t"), 0);
}

static void one_block_that_stands_is_enough(void **state)
{
    (void)state;
    struct format_ends ends = {0}, read;
    char path[sizeof test_folder + 8];
    snprintf(path, sizeof path, "%s/ends", test_folder);
    assert_int_equal(ends_read(disk_posix(), test_folder, &read), ERR_NOT_FOUND);
    for (uint64_t turn = 0; turn < 4; turn++) {
        assert_true(ends_raise(&ends, "s", turn + 1));
        assert_int_equal(ends_write(disk_posix(), test_folder, &ends, turn, turn == 0), 0);
        assert_int_equal(ends_read(disk_posix(), test_folder, &read), 0);
        assert_int_equal(ends_of(&read, "s"), turn + 1);
    }
    flip(path, FORMAT_ENDS_SIZE + 100); /* the block of turn 3 */
    assert_int_equal(ends_read(disk_posix(), test_folder, &read), 0);
    assert_int_equal(ends_of(&read, "s"), 3);
    flip(path, 100);
    assert_int_equal(ends_read(disk_posix(), test_folder, &read), ERR_CORRUPT);
    assert_int_equal(ends_of(&read, "s"), 3); /* untouched on failure */
    assert_int_equal(truncate(path, 17), 0);
    assert_int_equal(ends_read(disk_posix(), test_folder, &read), ERR_CORRUPT);
    struct fixture fixture = {0}; /* it hinders nobody, and is written anew */
    start(&fixture);
    append(&fixture, 0, 2, 30);
    stop(&fixture);
    assert_int_equal(ends_read(disk_posix(), test_folder, &read), 0);
    assert_int_equal(ends_of(&read, "s"), 2);
}

static void beginnings_are_known_where_all_that_stands_knows_them(void **state)
{
    (void)state;
    struct format_ends ends = {0}, read;
    assert_true(ends_raise(&ends, "s", 9));
    assert_int_equal(ends_write(disk_posix(), test_folder, &ends, 0, false), 0);
    assert_int_equal(ends_read(disk_posix(), test_folder, &read), 0);
    assert_true(ends_first_of(&read, "s") == FORMAT_BEGINNING_UNKNOWN);
    assert_true(ends_first_of(&read, "other") == FORMAT_BEGINNING_UNKNOWN);
    assert_int_equal(ends_note_first(disk_posix(), test_folder, "s", 3), 0); /* which makes it no better known */
    assert_true(ends_raise_first(&ends, "s", 3));
    assert_false(ends_raise_first(&ends, "s", 3));
    assert_false(ends_raise_first(&ends, "s", 2));
    assert_int_equal(ends_write(disk_posix(), test_folder, &ends, 1, false), 0);
    assert_int_equal(ends_read(disk_posix(), test_folder, &read), 0);
    assert_true(ends_first_of(&read, "s") == FORMAT_BEGINNING_UNKNOWN);
    assert_int_equal(ends_write(disk_posix(), test_folder, &ends, 2, false), 0);
    assert_int_equal(ends_note_first(disk_posix(), test_folder, "s", 5), 0);
    assert_int_equal(ends_read(disk_posix(), test_folder, &read), 0);
    assert_int_equal(ends_first_of(&read, "s"), 5);
    assert_int_equal(ends_of(&read, "s"), 9);
    char text[ENDS_TEXT_MAX];
    ends_lost_beginning_text(5, 6, text);
    assert_non_null(strstr(text, "offset 5 is lost"));
}

static void version_1_is_read_and_tells_nothing_of_beginnings(void **state)
{
    (void)state;
    enum { ENTRY = 72 };
    uint8_t block[FORMAT_ENDS_SIZE] = "SPNDLEND";
    const uint32_t version = 1, count = 2;
    struct format_ends ends;
    memcpy(block + 8, &version, 4);
    memcpy(block + 12, &count, 4);
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t next = 40 + i;
        memcpy(block + 16 + i * ENTRY, names[i], 2);
        memcpy(block + 16 + i * ENTRY + 64, &next, 8);
    }
    const uint64_t sum = format_sum(block, sizeof block - 8);
    memcpy(block + sizeof block - 8, &sum, 8);
    assert_int_equal(format_ends_decode(block, &ends), 0);
    assert_int_equal(ends.count, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(ends_of(&ends, names[i]), 40 + i);
        assert_true(ends_first_of(&ends, names[i]) == FORMAT_BEGINNING_UNKNOWN);
    }
    block[8] = 3;
    const uint64_t later = format_sum(block, sizeof block - 8);
    memcpy(block + sizeof block - 8, &later, 8);
    assert_int_equal(format_ends_decode(block, &ends), ERR_FORMAT_VERSION);
}

/* Nothing of a stream is gone when nothing was deleted, wherever retention was stopped. */
static void what_retention_removes_is_noted_before(void **state)
{
    (void)state;
    for (unsigned calls = 0, removed = 0; removed == 0; calls++) {
        struct simulated_disk *disk = simulated_disk_create(1);
        struct life life;
        for (unsigned i = 0; i < 3; i++) {
            begin(&life, disk);
            write_records(&life, BEFORE);
            end(&life);
        }
        retention_size = 1;
        begin(&life, disk);
        retention_size = 0;
        for (unsigned i = 0; i < calls; i++)
            removed = !journal_step_keeper(life.journal);
        struct simulated_disk *later = simulated_disk_crash(disk, calls);
        end(&life);
        simulated_disk_destroy(disk);
        disk = later;
        life.disk = simulated_disk_table(disk);
        struct format_ends ends;
        assert_int_equal(ends_read(life.disk, "/data", &ends), 0);
        for (unsigned i = 0; i < STREAMS; i++) {
            char folder[64];
            uint64_t *bases;
            size_t count;
            snprintf(folder, sizeof folder, "/data/%s", names[i]);
            assert_int_equal(segment_list(life.disk, folder, &bases, &count), 0);
            assert_true(count && bases[0] <= ends_first_of(&ends, names[i]));
            assert_true(!removed || ends_first_of(&ends, names[i]) > 0);
            free(bases);
        }
        simulated_disk_destroy(disk);
    }
}

static void ends_only_grow_and_are_of_so_many_streams(void **state)
{
    (void)state;
    struct format_ends ends = {0}, read;
    uint8_t block[FORMAT_ENDS_SIZE];
    char name[16];
    for (unsigned i = 0; i < FORMAT_ENDS_MAX; i++) {
        snprintf(name, sizeof name, "stream-%u", i);
        assert_true(ends_raise(&ends, name, 7));
        assert_false(ends_raise(&ends, name, 6));
        assert_false(ends_raise(&ends, name, 7));
    }
    assert_false(ends_raise(&ends, "one-more", 7));
    format_ends_encode(block, &ends);
    assert_int_equal(format_ends_decode(block, &read), 0);
    assert_int_equal(read.count, ends.count);
    assert_memory_equal(read.streams, ends.streams, sizeof ends.streams);
    assert_int_equal(ends_of(&read, "stream-15"), 7);
    assert_int_equal(ends_of(&read, "one-more"), 0);
}

static void a_loss_is_told_with_its_offsets(void **state)
{
    (void)state;
    char text[ENDS_TEXT_MAX];
    ends_lost_text(20, 40, text);
    assert_non_null(strstr(text, "offsets 20 to 39 are lost"));
    ends_lost_text(0, 1, text);
    assert_non_null(strstr(text, "offset 0 is lost"));
    ends_lost_text(UINT64_MAX - 1000, UINT64_MAX - 1, text);
    assert_true(strlen(text) < ENDS_TEXT_MAX - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_offset_of_a_deleted_segment_is_given_again),
        cmocka_unit_test_setup_teardown(a_segment_that_is_put_back_fills_the_gap, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(what_is_cut_off_the_end_is_missed, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(the_keeper_notes_how_far_a_stream_has_come, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(one_block_that_stands_is_enough, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(beginnings_are_known_where_all_that_stands_knows_them, test_folder_make, test_folder_remove),
        cmocka_unit_test(version_1_is_read_and_tells_nothing_of_beginnings),
        cmocka_unit_test(what_retention_removes_is_noted_before),
        cmocka_unit_test(ends_only_grow_and_are_of_so_many_streams),
        cmocka_unit_test(a_loss_is_told_with_its_offsets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
