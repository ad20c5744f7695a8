/* journal/inspect and journal/restore: what a folder holds, what is damaged in it, and a folder written anew. */
#include "journal/inspect.h"

#include "journal/restore.h"
#include "journal_fixture.h"

struct seen {
    uint64_t records, sources;
    unsigned findings[INSPECT_TORN + 1];
    struct inspect_finding last;
    struct restore *restore;
    uint64_t progress;
    int stop_with;
};

static int take_record(void *context, const struct message *message, const uint8_t *bytes, const struct reader_place *place)
{
    struct seen *seen = context;
    const uint64_t *sources;
    size_t source_count = format_record_sources(bytes, &sources);
    seen->records++;
    seen->sources += source_count;
    assert_true(place->next_offset == message->offset && place->position >= FORMAT_SEGMENT_HEADER_SIZE);
    if (seen->restore)
        assert_int_equal(restore_add(seen->restore, message, sources, source_count), 0);
    return seen->stop_with;
}

static void take_finding(void *context, const struct inspect_finding *finding)
{
    struct seen *seen = context;
    seen->findings[finding->kind]++;
    seen->last = *finding;
}

static void take_progress(void *context, uint64_t bytes)
{
    struct seen *seen = context;
    seen->progress += bytes;
}

static struct inspect_end inspect(const char *stream, uint64_t from, struct seen *seen)
{
    char folder[512];
    const struct inspect_visitor visitor = {seen, take_record, take_finding, take_progress};
    struct inspect_end end;
    snprintf(folder, sizeof folder, "%s/%s", test_folder, stream);
    assert_int_equal(inspect_stream(disk_posix(), folder, "s", from, &visitor, &end), seen->stop_with);
    return end;
}

static unsigned damages(const struct seen *seen)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < INSPECT_TORN; i++)
        sum += seen->findings[i];
    return sum;
}

/* Two starts of a server with small segments: 400 records. */
static void make_stream(struct fixture *fixture)
{
    fixture->segment_size = 1 << 20;
    start(fixture);
    for (uint64_t i = 0; i < 300; i += 50)
        append(fixture, i, 50, 10000);
    stop(fixture);
    start(fixture);
    append(fixture, 300, 100, 10000);
    stop(fixture);
}

static void a_whole_stream_has_no_findings(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    make_stream(&fixture);
    struct seen seen = {0};
    struct inspect_end end = inspect("s", 0, &seen);
    assert_int_equal(seen.records, 400);
    assert_int_equal(damages(&seen) + seen.findings[INSPECT_TORN], 0);
    assert_true(end.records == 400 && end.first_offset == 0 && end.next_offset == 400 && end.lost == 0 && end.sealed);
    assert_int_equal(seen.progress, end.bytes);
    assert_true(end.segments > 3);
    struct seen last = {0};
    end = inspect("s", UINT64_MAX, &last);
    assert_true(end.segments == 1 && end.next_offset == 400 && end.first_offset == 400 - last.records);
}

static void the_visitor_ends_it(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    make_stream(&fixture);
    struct seen seen = {.stop_with = ERR_NO_SPACE};
    inspect("s", 0, &seen);
    assert_int_equal(seen.records, 1);
}

static void files_are_told_by_their_names(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    make_stream(&fixture);
    char folder[512], path[600];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    static const char *const others[] = {"spare.seg", "00000000000000000007.seg.damaged", "notes.txt", "1.seg"};
    for (unsigned i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, others[i]);
        close(open(path, O_CREAT | O_WRONLY, 0600));
    }
    struct inspect_file *files;
    size_t count;
    assert_int_equal(inspect_files(disk_posix(), folder, &files, &count), 0);
    unsigned states[INSPECT_ASIDE + 1] = {0};
    for (size_t i = 0; i < count; i++) {
        states[files[i].state]++;
        assert_true(i == 0 || files[i - 1].state <= files[i].state);
        if (files[i].state <= INSPECT_ACTIVE)
            assert_true(files[i].created_ns > 0 && files[i].bytes > 0);
    }
    assert_true(states[INSPECT_CLOSED] > 2 && states[INSPECT_ACTIVE] == 1 && states[INSPECT_SPARE] == 1 && states[INSPECT_ASIDE] == 1);
    assert_int_equal(count, states[INSPECT_CLOSED] + states[INSPECT_PREPARED] + 3);
    free(files);
    snprintf(folder, sizeof folder, "%s/none", test_folder);
    assert_int_equal(inspect_files(disk_posix(), folder, &files, &count), ERR_NOT_FOUND);
}

static void damage_at_the_end_of_an_unsealed_stream_is_torn(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    start(&fixture);
    append(&fixture, 0, 20, 1000);
    stop(&fixture);
    char path[600];
    newest_segment(path);
    int file = open(path, O_RDWR);
    off_t size = lseek(file, 0, SEEK_END);
    assert_int_equal(ftruncate(file, size - FORMAT_RECORD_HEADER_SIZE), 0); /* without its seal */
    close(file);
    flip(path, size - FORMAT_RECORD_HEADER_SIZE - 500);
    struct seen seen = {0};
    struct inspect_end end = inspect("s", 0, &seen);
    assert_int_equal(damages(&seen), 0);
    assert_int_equal(seen.findings[INSPECT_TORN], 1);
    assert_true(end.next_offset == 19 && end.records == 19 && !end.sealed);
}

static void restored_records_keep_their_offsets(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    make_stream(&fixture);
    char from[512], path[600];
    snprintf(from, sizeof from, "%s/s", test_folder);
    uint64_t *bases;
    size_t count;
    assert_int_equal(segment_list(disk_posix(), from, &bases, &count), 0);
    char name[32];
    segment_name(bases[1], name);
    snprintf(path, sizeof path, "%s/%s", from, name);
    flip(path, FORMAT_SEGMENT_HEADER_SIZE + 300);
    assert_int_equal(unlink(path), 0);
    uint64_t missing = bases[2] - bases[1];
    free(bases);

    snprintf(path, sizeof path, "%s/copy", test_folder);
    assert_int_equal(disk_posix()->ops->make_folder(disk_posix(), path), 0);
    snprintf(path, sizeof path, "%s/copy/s", test_folder);
    assert_int_equal(disk_posix()->ops->make_folder(disk_posix(), path), 0);
    struct seen seen = {0}, again = {0};
    assert_int_equal(restore_open(&seen.restore, disk_posix(), path, "s"), 0);
    struct inspect_end end = inspect("s", 0, &seen);
    assert_int_equal(end.lost, missing);
    struct message early = make_message("x", "y");
    early.offset = 5;
    assert_int_equal(restore_add(seen.restore, &early, NULL, 0), ERR_INVALID);
    assert_int_equal(restore_finish(seen.restore, end.next_offset + 10), 0);

    struct inspect_end copied = inspect("copy/s", 0, &again);
    assert_true(copied.records == end.records && copied.lost == missing + 10 && copied.next_offset == end.next_offset + 10);
    assert_true(again.findings[INSPECT_MISSING] == 2 && damages(&again) == 2 && again.findings[INSPECT_TORN] == 0);
}

static void a_large_record_is_restored(void **state)
{
    (void)state;
    enum { SIZE = 9 << 20 };
    char folder[512];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    assert_int_equal(disk_posix()->ops->make_folder(disk_posix(), folder), 0);
    uint8_t *payload = malloc(SIZE);
    memset(payload, 'p', SIZE);
    struct restore *restore;
    assert_int_equal(restore_open(&restore, disk_posix(), folder, "s"), 0);
    static const uint64_t sources[] = {3, 4};
    for (uint64_t i = 0; i < 20; i++) {
        struct message message = make_message("topic", "");
        message.offset = 7 + i;
        message.payload = payload;
        message.payload_length = i % 2 ? SIZE : 5;
        assert_int_equal(restore_add(restore, &message, sources, 2), 0);
    }
    assert_int_equal(restore_finish(restore, 27), 0);
    free(payload);
    struct seen seen = {0};
    struct inspect_end end = inspect("s", 0, &seen);
    assert_true(end.records == 20 && end.first_offset == 7 && end.next_offset == 27 && end.sealed && damages(&seen) == 0);
    assert_int_equal(seen.sources, 40);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_folder_make, test_folder_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_whole_stream_has_no_findings),      TEST(the_visitor_ends_it),
        TEST(files_are_told_by_their_names),       TEST(damage_at_the_end_of_an_unsealed_stream_is_torn),
        TEST(restored_records_keep_their_offsets), TEST(a_large_record_is_restored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
