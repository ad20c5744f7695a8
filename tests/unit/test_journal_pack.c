/* Packed payloads: stored smaller, read as they were published. */
#include "journal_fixture.h"

#include <sys/stat.h>
#include <zstd.h>

#include "journal/inspect.h"
#include "journal/restore.h"

enum { PACK_FROM = 1000, LARGE = 300000, SMALL_BLOCK = 16 << 10 };

static uint64_t stored_bytes(void)
{
    char folder[512], path[600], name[32];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    uint64_t *bases, bytes = 0;
    size_t count;
    assert_int_equal(segment_list(disk_posix(), folder, &bases, &count), 0);
    for (size_t i = 0; i < count; i++) {
        struct stat status;
        segment_name(bases[i], name);
        snprintf(path, sizeof path, "%s/%s", folder, name);
        assert_int_equal(stat(path, &status), 0);
        bytes += (uint64_t)status.st_size - FORMAT_SEGMENT_HEADER_SIZE;
    }
    free(bases);
    return bytes;
}

static void large_payloads_are_stored_smaller_and_read_as_they_were(void **state)
{
    (void)state;
    struct fixture fixture = {.pack_from = PACK_FROM};
    start(&fixture);
    append(&fixture, 0, 20, PACK_FROM - 1);
    append(&fixture, 20, 20, PACK_FROM);
    append(&fixture, 40, 200, LARGE);
    append(&fixture, 240, 20, 30);
    stop(&fixture);
    assert_in_range(stored_bytes(), 20 * PACK_FROM, 300 * PACK_FROM);
    assert_int_equal(read_all(0, 0, NULL), 260);
    assert_int_equal(read_all(139, 139, NULL), 121);
    /* With another setting the same data is read. */
    fixture.pack_from = 0;
    start(&fixture);
    append(&fixture, 260, 3, LARGE);
    stop(&fixture);
    assert_int_equal(read_all(0, 0, NULL), 263);
}

static void what_does_not_shrink_is_stored_as_it_is(void **state)
{
    (void)state;
    struct fixture fixture = {.pack_from = PACK_FROM};
    start(&fixture);
    uint8_t *noise = malloc(LARGE);
    uint64_t seed = 1;
    for (size_t i = 0; i < LARGE; i++)
        noise[i] = (uint8_t)((seed = seed * 6364136223846793005u + 1442695040888963407u) >> 56);
    struct message message = make_message("topic", "");
    message.payload = noise;
    message.payload_length = LARGE;
    assert_int_equal(journal_append(fixture.producer, fixture.stream, &message, NULL, 0, 1), 0);
    journal_submit(fixture.producer);
    stop(&fixture);
    assert_in_range(stored_bytes(), LARGE, LARGE + 5000);
    char folder[512];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    struct reader *reader;
    assert_int_equal(reader_open(&reader, disk_posix(), folder, 0, NULL, NULL), 0);
    assert_int_equal(reader_next(reader, UINT64_MAX, &message, NULL), 0);
    assert_int_equal(message.payload_length, LARGE);
    assert_memory_equal(message.payload, noise, LARGE);
    reader_close(reader);
    free(noise);
}

/* Whatever the size of the block: as many as fit, unpacked, and the size that the next one needs. */
static void reader_says_how_much_an_unpacked_message_needs(void **state)
{
    (void)state;
    struct fixture fixture = {.pack_from = PACK_FROM};
    start(&fixture);
    append(&fixture, 0, 10, 5000);
    append(&fixture, 10, 1, LARGE);
    append(&fixture, 11, 10, 5000);
    stop(&fixture);
    char folder[512];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    struct reader *reader;
    assert_int_equal(reader_open(&reader, disk_posix(), folder, 0, NULL, NULL), 0);
    uint64_t expected = 0;
    unsigned limits = 0;
    for (size_t size = SMALL_BLOCK;;) {
        uint8_t *block = aligned_alloc(64, (size + 63) & ~(size_t)63);
        struct message messages[64];
        size_t count, needed;
        int error = reader_fill(reader, UINT64_MAX, block, size, messages, 64, &count, &needed);
        for (size_t i = 0; !error && i < count; i++, expected++) {
            char text[24];
            snprintf(text, sizeof text, "%020llu", (unsigned long long)expected);
            assert_int_equal(messages[i].offset, expected);
            assert_int_equal(messages[i].flags, 1);
            assert_int_equal(messages[i].payload_length, expected == 10 ? LARGE : 5000);
            assert_memory_equal(messages[i].payload, text, 20);
            assert_int_equal(messages[i].payload[messages[i].payload_length - 1], '.');
            assert_true(messages[i].payload >= block && messages[i].payload + messages[i].payload_length <= block + size);
        }
        free(block);
        if (error == ERR_TRUNCATED)
            break;
        if (error) {
            assert_int_equal(error, ERR_LIMIT);
            assert_true(needed > LARGE && needed < LARGE + 5000);
            limits++;
        }
        size = error ? needed : SMALL_BLOCK;
    }
    assert_int_equal(expected, 21);
    assert_int_equal(limits, 1);
    reader_close(reader);
}

static void damage_takes_one_packed_record(void **state)
{
    (void)state;
    struct fixture fixture = {.pack_from = PACK_FROM};
    start(&fixture);
    append(&fixture, 0, 30, 5000);
    stop(&fixture);
    char path[600];
    newest_segment(path);
    flip(path, FORMAT_SEGMENT_HEADER_SIZE + FORMAT_RECORD_HEADER_SIZE + 20); /* within the frame of the first */
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 1, &damage), 29);
    assert_int_equal(damage.count, 1);
    assert_int_equal(damage.last.first_offset, 0);
    assert_int_equal(damage.last.next_offset, 1);
}

/* A record that checks out and yet holds no frame. */
static void what_cannot_be_unpacked_is_damage(void **state)
{
    (void)state;
    char folder[512];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    assert_int_equal(mkdir(folder, 0700), 0);
    static const uint8_t no_frame[] = {100, 0, 0, 0, 'n', 'o', 'n', 'e'}, too_long[] = {255, 255, 255, 255, 'n', 'o', 'n', 'e'},
                         too_short[3];
    const struct {
        const uint8_t *bytes;
        uint32_t length;
    } payloads[] = {{no_frame, sizeof no_frame}, {too_long, sizeof too_long}, {too_short, sizeof too_short}};
    struct restore *restore;
    assert_int_equal(restore_open(&restore, disk_posix(), folder, "s"), 0);
    for (unsigned i = 0; i < 6; i++) {
        char text[24];
        snprintf(text, sizeof text, "%020u", i);
        struct message message = make_message("topic", text);
        message.offset = i;
        if (i % 2 == 0) {
            message.payload = payloads[i / 2].bytes;
            message.payload_length = payloads[i / 2].length;
            message.flags |= FORMAT_FLAG_PACKED;
        }
        assert_int_equal(restore_add(restore, &message, NULL, 0), 0);
    }
    assert_int_equal(restore_finish(restore, 6), 0);
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 1, &damage), 3);
    assert_int_equal(damage.count, 3);
    assert_int_equal(damage.last.first_offset, 4);
    assert_int_equal(damage.last.next_offset, 5);
}

/* The library's own, but for the first calls: there is no memory. */
static unsigned decompressors_refused;

ZSTD_DCtx *ZSTD_createDCtx(void)
{
    if (decompressors_refused == 0)
        return ZSTD_createDStream();
    decompressors_refused--;
    return NULL;
}

static void no_memory_costs_no_record(void **state)
{
    (void)state;
    struct fixture fixture = {.pack_from = PACK_FROM};
    start(&fixture);
    append(&fixture, 0, 5, PACK_FROM - 1);
    append(&fixture, 5, 5, PACK_FROM);
    stop(&fixture);
    char folder[512];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    struct reader *reader;
    struct message message;
    struct damage_count damage = {0};
    assert_int_equal(reader_open(&reader, disk_posix(), folder, 0, count_damage, &damage), 0);
    decompressors_refused = 2;
    unsigned refusals = 0;
    uint64_t expected = 0;
    for (int error; (error = reader_next(reader, UINT64_MAX, &message, NULL)) != ERR_TRUNCATED;) {
        assert_true(error == 0 || error == ERR_NO_MEMORY);
        if (error)
            refusals++;
        else
            assert_int_equal(message.offset, expected++);
    }
    assert_int_equal(expected, 10);
    assert_int_equal(refusals, 1); /* the first one ended a batch */
    assert_int_equal(damage.count, 0);
    assert_int_equal(decompressors_refused, 0);
    reader_close(reader);
}

/* ---- what is taken out of damaged files stays packed ---- */

static int keep_record(void *context, const struct message *message, const uint8_t *record, const struct reader_place *place)
{
    (void)place;
    const uint64_t *sources;
    size_t count = format_record_sources(record, &sources);
    return restore_add(context, message, sources, count);
}

static void restored_records_stay_packed(void **state)
{
    (void)state;
    struct fixture fixture = {.pack_from = PACK_FROM};
    start(&fixture);
    append(&fixture, 0, 30, 5000);
    stop(&fixture);
    char folder[512], copy[512];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    snprintf(copy, sizeof copy, "%s/copy", test_folder);
    assert_int_equal(mkdir(copy, 0700), 0);
    struct restore *restore;
    assert_int_equal(restore_open(&restore, disk_posix(), copy, "s"), 0);
    struct inspect_visitor visitor = {.context = restore, .record = keep_record};
    struct inspect_end end;
    assert_int_equal(inspect_stream(disk_posix(), folder, "s", 0, &visitor, &end), 0);
    assert_int_equal(restore_finish(restore, 30), 0);
    char moved[600];
    snprintf(moved, sizeof moved, "%s/moved", test_folder);
    assert_int_equal(rename(folder, moved), 0);
    assert_int_equal(rename(copy, folder), 0);
    assert_int_equal(read_all(0, 0, NULL), 30);
    assert_true(stored_bytes() < 30 * 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, test_folder_make, test_folder_remove)
        TEST(large_payloads_are_stored_smaller_and_read_as_they_were),
        TEST(what_does_not_shrink_is_stored_as_it_is),
        TEST(reader_says_how_much_an_unpacked_message_needs),
        TEST(damage_takes_one_packed_record),
        TEST(what_cannot_be_unpacked_is_damage),
        TEST(no_memory_costs_no_record),
        TEST(restored_records_stay_packed),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
