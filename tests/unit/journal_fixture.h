/* A journal of one stream for tests: records whose payload tells their offset, and a look at what can be read of them. */
#ifndef TESTS_UNIT_JOURNAL_FIXTURE_H
#define TESTS_UNIT_JOURNAL_FIXTURE_H

#include "unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "folder.h"
#include "journal/format.h"
#include "journal/journal.h"

static inline struct message make_message(const char *topic, const char *payload)
{
    return (struct message){.time_ns = 1234567890123456789u,
                            .topic = topic,
                            .topic_length = (uint32_t)strlen(topic),
                            .payload = (const uint8_t *)payload,
                            .payload_length = (uint32_t)strlen(payload),
                            .flags = 1};
}

struct fixture {
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_producer *producer;
    uint64_t tokens, expected_token;
    uint64_t segment_size, retention_size;
    size_t group_bytes_max; /* 0: the journal's */
    size_t pack_from;
    int compression_level; /* 0: none */
};

static inline void count_tokens(void *context, const struct journal_batch *batch)
{
    struct fixture *fixture = context;
    for (size_t i = 0; i < batch->token_count; i++)
        assert_int_equal(batch->tokens[i], ++fixture->expected_token);
    fixture->tokens += batch->token_count;
}

static inline void no_notice(void *context)
{
    (void)context;
}

static inline void start(struct fixture *fixture)
{
    struct journal_options options = {.disk = disk_posix(),
                                      .folder = test_folder,
                                      .segment_size = fixture->segment_size ? fixture->segment_size : 1 << 20,
                                      .group_bytes_max = fixture->group_bytes_max,
                                      .writers = 1, /* no marks: tests know where records stand */
                                      .compression_level = fixture->compression_level};
    assert_int_equal(journal_open(&fixture->journal, &options), 0);
    struct journal_stream_options stream = {.name = "s", .retention_size = fixture->retention_size, .pack_from = fixture->pack_from};
    assert_int_equal(journal_stream_add(fixture->journal, &stream, &fixture->stream), 0);
    assert_int_equal(journal_start(fixture->journal), 0);
    assert_int_equal(journal_producer_open(fixture->journal, no_notice, NULL, &fixture->producer), 0);
    fixture->tokens = fixture->expected_token = 0;
}

static inline void stop(struct fixture *fixture)
{
    journal_producer_close(fixture->producer);
    journal_close(fixture->journal);
}

static inline void append(struct fixture *fixture, uint64_t from, uint64_t count, size_t payload_bytes)
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

static inline void count_damage(void *context, const struct reader_damage *damage)
{
    struct damage_count *counted = context;
    counted->count++;
    counted->last = *damage;
}

/* Reads the stream from `from` and checks that offsets and contents are what append() wrote. Returns the number of records. */
static inline uint64_t read_all(uint64_t from, uint64_t first_expected, struct damage_count *damage)
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

static inline void newest_segment(char path[600])
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

static inline void flip(const char *path, off_t position)
{
    int file = open(path, O_RDWR);
    uint8_t byte;
    assert_int_equal(pread(file, &byte, 1, position), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(file, &byte, 1, position), 1);
    close(file);
}

#endif
