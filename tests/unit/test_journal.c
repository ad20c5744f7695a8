/* The journal: what is told durable can be read again, after a clean end, a torn end, and recycling. */
#include "unit.h"

#include <string.h>
#include <sys/stat.h>

#include "journal_fixture.h"

/* ---- format ---- */

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
        in.flags = length % 2 ? 1 : 1 | MESSAGE_WITHHELD;
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
        assert_int_equal(out.flags, in.flags);
        assert_memory_equal(out.topic, "a/b", 3);
        assert_memory_equal(out.properties, "prop", 4);
        assert_int_equal(out.payload_length, length);
        assert_memory_equal(out.payload, payload, length);
        const uint64_t *found;
        assert_int_equal(format_record_sources(bytes, &found), 2);
        assert_int_equal(found[0], 7);
        assert_int_equal(found[1], 9);
        uint64_t durable;
        assert_true(format_record_begins_group(bytes, &durable) && durable == 42);
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

static void a_segment_header_survives_the_loss_of_either_page(void **state)
{
    (void)state;
    uint8_t whole[FORMAT_SEGMENT_HEADER_SIZE], block[FORMAT_SEGMENT_HEADER_SIZE];
    struct format_segment_header in = {.key = 5, .base_offset = 6, .created_ns = 7, .stream = "ingest"}, out;
    format_segment_header_encode(whole, &in);
    for (size_t lost = 0; lost < sizeof whole; lost += 4096) {
        memcpy(block, whole, sizeof block);
        memset(block + lost, 0, 4096);
        assert_int_equal(format_segment_header_decode(block, &out), 0);
        assert_memory_equal(&in, &out, sizeof in);
    }
    memset(block, 0, sizeof block);
    assert_int_equal(format_segment_header_decode(block, &out), ERR_CORRUPT);
}

static void every_flipped_bit_of_both_copies_of_a_header_is_noticed(void **state)
{
    (void)state;
    uint8_t block[FORMAT_SEGMENT_HEADER_SIZE];
    struct format_segment_header in = {.key = 5, .base_offset = 6, .created_ns = 7, .stream = "ingest"}, out;
    format_segment_header_encode(block, &in);
    for (size_t bit = 0; bit < sizeof block / 2 * 8; bit++) {
        block[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        block[4096 + bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_equal(format_segment_header_decode(block, &out), ERR_CORRUPT); /* the version's too: nobody has made that one */
        block[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        block[4096 + bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    assert_int_equal(format_segment_header_decode(block, &out), 0);
}

/* What looks like a record from afar costs no reading as far as it claims to reach: the header sum is wrong. */
static void a_payload_that_imitates_a_record_is_found_out_by_its_header(void **state)
{
    (void)state;
    _Alignas(8) uint8_t bytes[128];
    struct message in = make_message("topic", "payload");
    format_record_encode(bytes, &in, NULL, 0);
    format_record_seal(bytes, 5, 77, true);
    uint32_t claimed = 400 << 20, payload_length = claimed - 48 - 8;
    memcpy(bytes, &claimed, sizeof claimed);
    memcpy(bytes + 36, &payload_length, sizeof payload_length); /* topic of 5 bytes and 3 of padding */
    uint32_t length = 0;
    assert_int_equal(format_record_check(bytes, sizeof bytes, 77, &length), FORMAT_INVALID);
    assert_int_equal(length, 0); /* no more bytes are asked for */
}

static void each_segment_and_each_stream_has_a_salt_of_its_own(void **state)
{
    (void)state;
    assert_int_not_equal(format_segment_salt(1, 0), format_segment_salt(1, 1));
    assert_int_not_equal(format_segment_salt(1, 0), format_segment_salt(2, 0));
}

/* ---- whole journals ---- */

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
        test_folder_forget_ends();
        start(&fixture);
        uint64_t next = journal_stream_durable(fixture.stream);
        assert_int_equal(read_all(0, 0, NULL), next);
        append(&fixture, next, 3, 100);
        stop(&fixture);
        assert_int_equal(read_all(0, 0, NULL), next + 3);
    }
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

/* Everything waits before the first group is made, so each group is as large as it may be. */
static void a_group_is_no_larger_than_its_limit(void **state)
{
    (void)state;
    enum { CHUNKS = 64, PAYLOAD = 1000 };
    struct message message = make_message("t", "");
    uint8_t payload[PAYLOAD] = {0};
    message.payload = payload;
    message.payload_length = PAYLOAD;
    size_t record_bytes = format_record_size(&message, 0);
    const struct {
        size_t group_bytes_max, groups;
    } cases[] = {{4 * record_bytes, CHUNKS / 4}, {5 * record_bytes - 1, CHUNKS / 4}, {1, CHUNKS}, {0, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct journal_options options = {.disk = disk_posix(),
                                          .folder = test_folder,
                                          .segment_size = 1 << 20,
                                          .stepped = true,
                                          .group_bytes_max = cases[i].group_bytes_max};
        struct journal_stream_options stream_options = {.name = "s"};
        struct journal *journal;
        struct journal_stream *stream;
        struct journal_producer *producer;
        assert_int_equal(journal_open(&journal, &options), 0);
        assert_int_equal(journal_stream_add(journal, &stream_options, &stream), 0);
        assert_int_equal(journal_producer_open(journal, no_notice, NULL, &producer), 0);
        assert_int_equal(journal_start(journal), 0);
        for (unsigned chunk = 0; chunk < CHUNKS; chunk++) {
            assert_int_equal(journal_append(producer, stream, &message, NULL, 0, 0), 0);
            journal_submit(producer);
        }
        while (journal_step_group(journal)) {
        }
        struct journal_stats stats;
        journal_stats(journal, &stats);
        assert_int_equal(stats.groups, cases[i].groups);
        assert_int_equal(stats.bytes, CHUNKS * record_bytes);
        journal_producer_close(producer);
        journal_close(journal);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_survives_its_encoding),
        cmocka_unit_test(every_flipped_bit_of_a_record_is_noticed),
        cmocka_unit_test(a_segment_header_survives_the_loss_of_either_page),
        cmocka_unit_test(every_flipped_bit_of_both_copies_of_a_header_is_noticed),
        cmocka_unit_test(a_payload_that_imitates_a_record_is_found_out_by_its_header),
        cmocka_unit_test(each_segment_and_each_stream_has_a_salt_of_its_own),
        cmocka_unit_test_setup_teardown(what_is_durable_is_read_again_across_restarts, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(records_larger_than_a_segment_are_kept, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_torn_end_is_cut_and_writing_goes_on, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(retention_recycles_and_old_bytes_never_come_back, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(what_retention_keeps_is_whole, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_group_is_no_larger_than_its_limit, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_second_process_is_refused, test_folder_make, test_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
