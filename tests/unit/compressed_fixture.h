/* A journal of one stream whose turns a test takes itself, with compression. */
#ifndef TESTS_UNIT_COMPRESSED_FIXTURE_H
#define TESTS_UNIT_COMPRESSED_FIXTURE_H

#include <stdio.h>

#include "base/diagnostics.h"
#include "journal_fixture.h"

struct stepped {
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_producer *producer;
    uint64_t segment_size, retention_size;
    int level;        /* 0: no compression */
    size_t pack_from; /* 0: no packed payloads */
    bool guarded;
    struct disk *disk; /* NULL: the system's */
};

static inline void stepped_start(struct stepped *stepped)
{
    struct journal_options options = {.disk = stepped->disk ? stepped->disk : disk_posix(),
                                      .folder = test_folder,
                                      .segment_size = stepped->segment_size,
                                      .compression_level = stepped->level,
                                      .stepped = true};
    assert_int_equal(journal_open(&stepped->journal, &options), 0);
    struct journal_stream_options stream = {
        .name = "s", .retention_size = stepped->retention_size, .guarded = stepped->guarded, .pack_from = stepped->pack_from};
    assert_int_equal(journal_stream_add(stepped->journal, &stream, &stepped->stream), 0);
    assert_int_equal(journal_start(stepped->journal), 0);
    assert_int_equal(journal_producer_open(stepped->journal, no_notice, NULL, &stepped->producer), 0);
}

static inline void stepped_stop(struct stepped *stepped)
{
    journal_producer_close(stepped->producer);
    journal_close(stepped->journal);
}

/* What was appended becomes a group. */
static inline void stepped_write(struct stepped *stepped)
{
    journal_submit(stepped->producer);
    journal_step_group(stepped->journal);
}

/* Records whose payload begins with their offset in 20 digits, as read_all() expects; the rest is text, or noise in these bits. */
static inline void stepped_fill(struct stepped *stepped, uint64_t count, size_t payload_size, uint8_t noise)
{
    uint8_t *payload = malloc(payload_size + 1);
    uint64_t first = journal_stream_durable(stepped->stream), value = 88172645463325252u;
    for (uint64_t i = first; i < first + count; i++) {
        for (size_t k = 0; k < payload_size; k++) {
            value ^= value << 13;
            value ^= value >> 7;
            value ^= value << 17;
            payload[k] = noise ? (uint8_t)value & noise : (uint8_t)('a' + (i + k) % 26);
        }
        char number[24];
        snprintf(number, sizeof number, "%020llu", (unsigned long long)i);
        memcpy(payload, number, 20);
        struct message message = make_message("topic", "");
        message.payload = payload;
        message.payload_length = (uint32_t)payload_size;
        assert_int_equal(journal_append(stepped->producer, stepped->stream, &message, NULL, 0, 0), 0);
        if (i % 16 == 0)
            stepped_write(stepped);
    }
    stepped_write(stepped);
    free(payload);
}

static inline void stepped_keep(struct stepped *stepped)
{
    while (journal_step_keeper(stepped->journal))
        continue;
}

static inline void stepped_path(uint64_t base_offset, char path[600])
{
    char name[32];
    segment_name(base_offset, name);
    snprintf(path, 600, "%s/s/%s", test_folder, name);
}

static inline off_t file_length(const char *path)
{
    int file = open(path, O_RDONLY);
    off_t size = file < 0 ? -1 : lseek(file, 0, SEEK_END);
    close(file);
    return size;
}

#endif
