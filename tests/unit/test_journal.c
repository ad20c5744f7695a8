/* The journal: what is told durable can be read again, after a clean end, a torn end, damage, and recycling. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "folder.h"
#include "journal/format.h"
#include "journal/journal.h"

/* ---- format ---- */

static struct message make_message(const char *topic, const char *payload)
{
    return (struct message){.time_ns = 1234567890123456789u,
                            .topic = topic,
                            .topic_length = (uint32_t)strlen(topic),
                            .payload = (const uint8_t *)payload,
                            .payload_length = (uint32_t)strlen(payload),
                            .flags = 1};
}

static void a_record_survives_its_encoding(void **state)
{
    (void)state;
    _Alignas(8) uint8_t bytes[512];
    uint64_t sources[2] = {7, 9};
    for (size_t length = 0; length < 40; length++) {
        char payload[64];
        memset(payload, 'x', length);
        payload[length] = 0;
        struct message in = make_message("a/b", payload);
        in.properties = (const uint8_t *)"prop";
        in.properties_length = 4;
        memset(bytes, 0xaa, sizeof bytes);
        size_t size = format_record_size(&in, 2);
        assert_int_equal(size % 8, 0);
        format_record_encode(bytes, &in, sources, 2);
        assert_int_equal(format_record_seal(bytes, 42, 99, true), size);
        assert_int_equal(bytes[size], 0xaa);
        uint32_t checked;
        assert_int_equal(format_record_check(bytes, size, 99, &checked), FORMAT_VALID);
        assert_int_equal(checked, size);
        assert_int_equal(format_record_check(bytes, size - 1, 99, &checked), FORMAT_CUT);
        assert_int_equal(format_record_check(bytes, size, 98, &checked), FORMAT_INVALID);
        struct message out;
        format_record_decode(bytes, &out);
        assert_int_equal(out.offset, 42);
        assert_int_equal(out.time_ns, in.time_ns);
        assert_int_equal(out.flags, 1);
        assert_memory_equal(out.topic, "a/b", 3);
        assert_memory_equal(out.properties, "prop", 4);
        assert_int_equal(out.payload_length, length);
        assert_memory_equal(out.payload, payload, length);
        const uint64_t *found;
        assert_int_equal(format_record_sources(bytes, &found), 2);
        assert_int_equal(found[0], 7);
        assert_int_equal(found[1], 9);
        assert_true(format_record_is_group_start(bytes));
    }
}

static void every_flipped_bit_of_a_record_is_noticed(void **state)
{
    (void)state;
    _Alignas(8) uint8_t bytes[128];
    struct message in = make_message("topic", "payload");
    uint64_t source = 3;
    size_t size = format_record_size(&in, 1);
    format_record_encode(bytes, &in, &source, 1);
    format_record_seal(bytes, 5, 77, false);
    for (size_t bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        uint32_t length;
        assert_int_not_equal(format_record_check(bytes, size, 77, &length), FORMAT_VALID);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
}

static void a_segment_header_survives_the_loss_of_one_copy(void **state)
{
    (void)state;
    uint8_t block[FORMAT_SEGMENT_HEADER_SIZE];
    struct format_segment_header in = {.salt = 5, .base_offset = 6, .created_ns = 7, .stream = "ingest"}, out;
    format_segment_header_encode(block, &in);
    assert_int_equal(format_segment_header_decode(block, &out), 0);
    assert_memory_equal(&in, &out, sizeof in);
    memset(block, 0xff, 512);
    assert_int_equal(format_segment_header_decode(block, &out), 0);
    assert_int_equal(out.salt, 5);
    memset(block + 2048, 0, 512);
    assert_int_equal(format_segment_header_decode(block, &out), ERR_CORRUPT);
}

/* ---- whole journals ---- */

struct fixture {
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_producer *producer;
    uint64_t tokens, expected_token;
    uint64_t segment_size, retention_size;
};

static void count_tokens(void *context, const struct journal_batch *batch)
{
    struct fixture *fixture = context;
    for (size_t i = 0; i < batch->token_count; i++)
        assert_int_equal(batch->tokens[i], ++fixture->expected_token);
    fixture->tokens += batch->token_count;
}

static void no_notice(void *context)
{
    (void)context;
}

static void start(struct fixture *fixture)
{
    struct journal_options options = {
        .disk = disk_posix(), .folder = test_folder, .segment_size = fixture->segment_size ? fixture->segment_size : 1 << 20};
    assert_int_equal(journal_open(&fixture->journal, &options), 0);
    struct journal_stream_options stream = {.name = "s", .retention_size = fixture->retention_size};
    assert_int_equal(journal_stream_add(fixture->journal, &stream, &fixture->stream), 0);
    assert_int_equal(journal_start(fixture->journal), 0);
    assert_int_equal(journal_producer_open(fixture->journal, no_notice, NULL, &fixture->producer), 0);
    fixture->tokens = fixture->expected_token = 0;
}

static void stop(struct fixture *fixture)
{
    journal_producer_close(fixture->producer);
    journal_close(fixture->journal);
}

static void append(struct fixture *fixture, uint64_t from, uint64_t count, size_t payload_bytes)
{
    char *payload = malloc(payload_bytes + 32);
    memset(payload, '.', payload_bytes);
    for (uint64_t i = from; i < from + count; i++) {
        int written = snprintf(payload, 24, "%020llu", (unsigned long long)i);
        payload[written] = '.';
        payload[payload_bytes] = 0;
        struct message message = make_message("topic", payload);
        message.payload_length = (uint32_t)payload_bytes;
        assert_int_equal(journal_append(fixture->producer, fixture->stream, &message, NULL, 0, i - from + 1), 0);
        if (i % 7 == 0)
            journal_submit(fixture->producer);
    }
    journal_submit(fixture->producer);
    journal_producer_wait(fixture->producer, 0);
    fixture->expected_token = 0;
    journal_producer_poll(fixture->producer, count_tokens, fixture);
    free(payload);
}

struct damage_count {
    unsigned count;
    struct reader_damage last;
};

static void count_damage(void *context, const struct reader_damage *damage)
{
    struct damage_count *counted = context;
    counted->count++;
    counted->last = *damage;
}

/* Reads the stream from `from` and checks that offsets and contents are what append() wrote. Returns the number of records. */
static uint64_t read_all(uint64_t from, uint64_t first_expected, struct damage_count *damage)
{
    char folder[512];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    struct reader *reader;
    struct damage_count none = {0};
    assert_int_equal(reader_open(&reader, disk_posix(), folder, from, count_damage, damage ? damage : &none), 0);
    struct message message;
    uint64_t records = 0, expected = first_expected;
    int error;
    while (!(error = reader_next(reader, UINT64_MAX, &message, NULL))) {
        if (damage && message.offset != expected)
            expected = message.offset;
        assert_int_equal(message.offset, expected);
        char text[24];
        snprintf(text, sizeof text, "%020llu", (unsigned long long)expected);
        assert_memory_equal(message.payload, text, 20);
        expected++;
        records++;
    }
    assert_int_equal(error, ERR_TRUNCATED);
    assert_int_equal(none.count, 0);
    reader_close(reader);
    return records;
}

static void what_is_durable_is_read_again_across_restarts(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    uint64_t written = 0;
    for (unsigned round = 0; round < 4; round++) {
        start(&fixture);
        assert_int_equal(journal_stream_durable(fixture.stream), written);
        append(&fixture, written, 1000, 300);
        assert_int_equal(fixture.tokens, 1000);
        written += 1000;
        assert_int_equal(journal_stream_durable(fixture.stream), written);
        assert_int_equal(read_all(0, 0, NULL), written);
        stop(&fixture);
        assert_int_equal(read_all(0, 0, NULL), written);
        assert_int_equal(read_all(written - 3, written - 3, NULL), 3);
    }
}

static void records_larger_than_a_segment_are_kept(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    start(&fixture);
    append(&fixture, 0, 5, 3 << 20);
    append(&fixture, 5, 100, 100);
    append(&fixture, 105, 2, 2 << 20);
    stop(&fixture);
    assert_int_equal(read_all(0, 0, NULL), 107);
    start(&fixture);
    assert_int_equal(journal_stream_durable(fixture.stream), 107);
    stop(&fixture);
}

static void newest_segment(char path[600])
{
    char folder[512];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    uint64_t *bases;
    size_t count;
    assert_int_equal(segment_list(disk_posix(), folder, &bases, &count), 0);
    char name[32];
    segment_name(bases[count - 1], name);
    snprintf(path, 600, "%s/%s", folder, name);
    free(bases);
}

/* Each byte in turn where the file may end after a crash. */
static void a_torn_end_is_cut_and_writing_goes_on(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    start(&fixture);
    append(&fixture, 0, 70, 100);
    stop(&fixture);
    char path[600];
    newest_segment(path);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    for (uint64_t cut = 1; cut < 250; cut += 13) { /* into the seal, and into the records before it */
        newest_segment(path);
        assert_int_equal(stat(path, &status), 0);
        assert_int_equal(truncate(path, status.st_size - (off_t)cut), 0);
        start(&fixture);
        uint64_t next = journal_stream_durable(fixture.stream);
        assert_int_equal(read_all(0, 0, NULL), next);
        append(&fixture, next, 3, 100);
        stop(&fixture);
        assert_int_equal(read_all(0, 0, NULL), next + 3);
    }
}

static void flip(const char *path, off_t position)
{
    int file = open(path, O_RDWR);
    uint8_t byte;
    assert_int_equal(pread(file, &byte, 1, position), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(file, &byte, 1, position), 1);
    close(file);
}

static void damage_in_the_middle_is_reported_and_passed_over(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    start(&fixture);
    append(&fixture, 0, 70, 100);
    stop(&fixture);
    char path[600];
    newest_segment(path);
    flip(path, FORMAT_SEGMENT_HEADER_SIZE + 160 * 20 + 70); /* a record is 48 + 5 + 100 bytes, rounded up to 160 */
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, 0, &damage), 69);
    assert_int_equal(damage.count, 1);
    assert_int_equal(damage.last.first_offset, 20);
    assert_int_equal(damage.last.next_offset, 21);
    assert_int_equal(damage.last.position, FORMAT_SEGMENT_HEADER_SIZE + 160 * 20);
    start(&fixture);
    assert_int_equal(journal_stream_durable(fixture.stream), 70);
    append(&fixture, 70, 5, 100);
    stop(&fixture);
    damage = (struct damage_count){0};
    assert_int_equal(read_all(0, 0, &damage), 74);
    assert_int_equal(damage.count, 1);
}

static void a_lost_header_costs_its_segment_only(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    start(&fixture);
    append(&fixture, 0, 10, 100);
    stop(&fixture);
    char path[600];
    newest_segment(path);
    flip(path, 20);
    flip(path, 2048 + 20);
    start(&fixture);
    uint64_t next = journal_stream_durable(fixture.stream);
    assert_true(next >= 10); /* offsets are never given twice */
    append(&fixture, next, 4, 100);
    stop(&fixture);
    struct damage_count damage = {0};
    assert_int_equal(read_all(0, next, &damage), 4);
    assert_int_equal(damage.count, 1);
}

static void retention_recycles_and_old_bytes_never_come_back(void **state)
{
    (void)state;
    struct fixture fixture = {.segment_size = 1 << 20, .retention_size = 3 << 20};
    uint64_t written = 0;
    for (unsigned round = 0; round < 3; round++) {
        start(&fixture);
        for (unsigned i = 0; i < 40; i++) {
            append(&fixture, written, 1000, 256);
            written += 1000;
        }
        struct journal_stream_stats stats;
        journal_stream_stats(fixture.stream, &stats);
        assert_true(stats.bytes < 16 << 20);
        assert_int_equal(stats.durable_offset, written);
        stop(&fixture);
    }
}

static void first_kept(uint64_t *first)
{
    char folder[512];
    snprintf(folder, sizeof folder, "%s/s", test_folder);
    uint64_t *bases;
    size_t count;
    assert_int_equal(segment_list(disk_posix(), folder, &bases, &count), 0);
    *first = bases[0];
    free(bases);
}

static void what_retention_keeps_is_whole(void **state)
{
    (void)state;
    struct fixture fixture = {.segment_size = 1 << 20, .retention_size = 3 << 20};
    start(&fixture);
    for (uint64_t written = 0; written < 60000; written += 1000)
        append(&fixture, written, 1000, 256);
    stop(&fixture);
    uint64_t first;
    first_kept(&first);
    assert_true(first > 0);
    assert_int_equal(read_all(0, first, NULL), 60000 - first);
}

static void a_second_process_is_refused(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    start(&fixture);
    struct journal *second;
    struct journal_options options = {.disk = disk_posix(), .folder = test_folder, .segment_size = 1 << 20};
    assert_int_equal(journal_open(&second, &options), ERR_BUSY);
    stop(&fixture);
    assert_int_equal(journal_open(&second, &options), 0);
    journal_close(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_survives_its_encoding),
        cmocka_unit_test(every_flipped_bit_of_a_record_is_noticed),
        cmocka_unit_test(a_segment_header_survives_the_loss_of_one_copy),
        cmocka_unit_test_setup_teardown(what_is_durable_is_read_again_across_restarts, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(records_larger_than_a_segment_are_kept, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_torn_end_is_cut_and_writing_goes_on, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(damage_in_the_middle_is_reported_and_passed_over, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_lost_header_costs_its_segment_only, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(retention_recycles_and_old_bytes_never_come_back, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(what_retention_keeps_is_whole, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_second_process_is_refused, test_folder_make, test_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
