/* Appends records of one size as fast as the journal takes them, beside a bare loop that writes groups of the same size into space
 * that already holds data and syncs each. Both in the same folder, one after the other. Prints records/s, bytes/s and their ratio.
 *
 *   bench_journal [FOLDER [PAYLOAD_BYTES [SECONDS [TURN_BYTES [BACKLOG_BYTES]]]]] */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "journal/journal.h"

static uint64_t durable_records;

static void count(void *context, const struct journal_batch *batch)
{
    (void)context;
    durable_records += batch->token_count;
}

static struct journal_producer *producer;
static void notify(void *context)
{
    (void)context;
    journal_producer_poll(producer, count, NULL);
}

static double run_journal(const char *folder, size_t payload_bytes, double seconds, size_t turn_bytes, size_t backlog_max,
                          double *group_bytes, double *bytes_a_second)
{
    struct journal *journal;
    struct journal_options options = {.disk = disk_posix(), .folder = folder, .segment_size = 128 << 20};
    struct journal_stream *stream;
    struct journal_stream_options stream_options = {.name = "bench", .retention_size = 512 << 20};
    int error = journal_open(&journal, &options);
    error = error ? error : journal_stream_add(journal, &stream_options, &stream);
    error = error ? error : journal_start(journal);
    error = error ? error : journal_producer_open(journal, notify, NULL, &producer);
    if (error) {
        fprintf(stderr, "bench_journal: %s: %s\n", folder, error_text(error));
        exit(1);
    }
    uint8_t *payload = calloc(1, payload_bytes + 1);
    struct message message = {
        .topic = "bench/topic/of/20byte", .topic_length = 20, .payload = payload, .payload_length = (uint32_t)payload_bytes};
    uint64_t started = clock_monotonic_ns(), limit = started + (uint64_t)(seconds * 1e9);
    size_t in_turn = 0;
    while (clock_monotonic_ns() < limit) {
        for (unsigned i = 0; i < 64; i++) {
            message.time_ns = started;
            journal_append(producer, stream, &message, NULL, 0, 1);
            in_turn += payload_bytes;
            if (in_turn >= turn_bytes) {
                journal_submit(producer);
                in_turn = 0;
                journal_producer_wait(producer, backlog_max);
            }
        }
    }
    journal_submit(producer);
    journal_producer_wait(producer, 0);
    double elapsed = (double)(clock_monotonic_ns() - started) / 1e9;
    struct journal_stats stats;
    journal_stats(journal, &stats);
    *group_bytes = (double)stats.bytes / (double)stats.groups;
    *bytes_a_second = (double)stats.bytes / elapsed;
    journal_producer_close(producer);
    journal_close(journal);
    free(payload);
    return (double)durable_records / elapsed;
}

static double run_raw(const char *folder, double seconds, size_t group_bytes)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/raw", folder);
    const size_t file_bytes = 512 << 20;
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    char *bytes = calloc(1, group_bytes > 1 << 20 ? group_bytes : 1 << 20);
    for (size_t at = 0; at < file_bytes; at += 1 << 20)
        if (pwrite(file, bytes, 1 << 20, (off_t)at) < 0)
            exit(1);
    fsync(file);
    uint64_t started = clock_monotonic_ns(), limit = started + (uint64_t)(seconds * 1e9), written = 0;
    size_t at = 0;
    while (clock_monotonic_ns() < limit) {
        struct iovec part = {bytes, group_bytes};
        if (at + group_bytes > file_bytes)
            at = 0;
        if (pwritev(file, &part, 1, (off_t)at) != (ssize_t)group_bytes || fdatasync(file))
            exit(1);
        at += group_bytes;
        written += group_bytes;
    }
    double elapsed = (double)(clock_monotonic_ns() - started) / 1e9;
    close(file);
    unlink(path);
    free(bytes);
    return (double)written / elapsed;
}

int main(int count_of, char **words)
{
    const char *folder = count_of > 1 ? words[1] : "bench-journal";
    size_t payload = count_of > 2 ? strtoul(words[2], NULL, 10) : 256;
    double seconds = count_of > 3 ? strtod(words[3], NULL) : 5;
    size_t turn = count_of > 4 ? strtoul(words[4], NULL, 10) : 64 << 10;
    size_t backlog = count_of > 5 ? strtoul(words[5], NULL, 10) : 1 << 20;
    double group_bytes, journal_bytes;
    double records = run_journal(folder, payload, seconds, turn, backlog, &group_bytes, &journal_bytes);
    double raw_bytes = run_raw(folder, seconds, (size_t)group_bytes & ~(size_t)7);
    printf("{\"payload_bytes\":%zu,\"records_per_second\":%.0f,\"journal_bytes_per_second\":%.0f,\"group_bytes\":%.0f,\"raw_bytes_per_"
           "second\":%.0f,"
           "\"ratio\":%.3f}\n",
           payload, records, journal_bytes, group_bytes, raw_bytes, journal_bytes / raw_bytes);
    return 0;
}
