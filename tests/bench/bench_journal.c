/* Writing a journal beside the bare disk: loops of pwritev and fdatasync into space that is already written, in the same folder, in turns
 * with the journal, since what a disk can do changes from one second to the next. Prints one JSON line a measure.
 *
 *   bench_journal FOLDER [SECONDS]
 *
 * append: 256 B records, the producer ahead of the journal thread, so that each group is full (64 KiB, 1 MiB) and the journal thread never
 *         waits; the bare loop writes exactly that many bytes, aligned. `segments` says what the groups go into: recycled ones (retention
 *         has been reached before the first turn), or new ones, which the keeper fills with zeros meanwhile.
 * commit: 1,000 records a second, one a group; the time from append to notice, beside the same for a bare write of the same size. */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "journal_load.h"

enum { TURNS = 5, RAW_FILE = 512 << 20, RAW_STEP = 1 << 20, RETENTION = 256 << 20, COMMITS_PER_S = 1000 };

/* ---- the bare disk ---- */

struct raw {
    int file;
    off_t at;
    uint8_t *bytes; /* [RAW_STEP] */
    char path[4200];
};

static void raw_open(struct raw *raw, const char *folder)
{
    snprintf(raw->path, sizeof raw->path, "%s/bare", folder);
    raw->at = 0;
    raw->file = open(raw->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    raw->bytes = aligned_alloc(4096, RAW_STEP);
    if (raw->file < 0 || !raw->bytes)
        load_must(ERR_IO, raw->path);
    struct random_source random = {.state = 2};
    for (size_t i = 0; i < RAW_STEP; i++)
        raw->bytes[i] = (uint8_t)random_u64(&random);
    for (off_t at = 0; at < RAW_FILE; at += RAW_STEP)
        if (pwrite(raw->file, raw->bytes, RAW_STEP, at) != RAW_STEP)
            load_must(ERR_IO, raw->path);
    fsync(raw->file);
}

static void raw_write(struct raw *raw, size_t bytes)
{
    if (raw->at + (off_t)bytes > RAW_FILE)
        raw->at = 0;
    struct iovec part = {raw->bytes, bytes};
    if (pwritev(raw->file, &part, 1, raw->at) != (ssize_t)bytes || fdatasync(raw->file))
        load_must(ERR_IO, raw->path);
    raw->at += (off_t)bytes;
}

static void raw_close(struct raw *raw)
{
    close(raw->file);
    unlink(raw->path);
    free(raw->bytes);
}

/* ---- append ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

/* Bytes a second of `seconds` of groups. What is on its way at the beginning and at the end is the same. */
static double append_turn(struct journal_load *load, double seconds)
{
    struct journal_stats before, after;
    load_append_group(load);
    journal_stats(load->journal, &before);
    uint64_t started = clock_monotonic_ns();
    while (load_seconds(started) < seconds)
        load_append_group(load);
    journal_stats(load->journal, &after);
    double elapsed = load_seconds(started);
    journal_producer_wait(load->producer, 0);
    return (double)(after.bytes - before.bytes) / elapsed;
}

static double raw_turn(struct raw *raw, size_t group_bytes, double seconds)
{
    uint64_t started = clock_monotonic_ns(), bytes = 0;
    for (; load_seconds(started) < seconds; bytes += group_bytes)
        raw_write(raw, group_bytes);
    return (double)bytes / load_seconds(started);
}

static uint64_t first_offset(struct journal_load *load)
{
    struct journal_stream_stats stats;
    journal_stream_stats(load->stream, &stats);
    return stats.first_offset;
}

/* Writes until retention has taken a segment away twice, so that from now on each segment is a used one. */
static void reach_retention(struct journal_load *load)
{
    for (unsigned i = 0; i < 2; i++)
        for (uint64_t first = first_offset(load); first_offset(load) == first;)
            load_append_group(load);
    journal_producer_wait(load->producer, 0);
}

static void measure_append(const char *folder, struct raw *raw, size_t group_bytes, bool recycled, double seconds)
{
    struct journal_load load;
    load_open(&load, folder, group_bytes, recycled ? RETENTION : 0, false);
    load_start(&load);
    load_open_producer(&load);
    if (recycled)
        reach_retention(&load);
    unsigned turns = recycled ? TURNS : 1; /* new segments in one go: a pause would let the keeper work ahead for nothing */
    double journal[TURNS], bare[TURNS], ratio[TURNS];
    struct journal_stats before, after;
    journal_stats(load.journal, &before);
    for (unsigned i = 0; i < turns; i++) {
        journal[i] = append_turn(&load, seconds / 2 / turns);
        bare[i] = raw_turn(raw, group_bytes, seconds / 2 / turns);
        ratio[i] = journal[i] / bare[i];
    }
    journal_stats(load.journal, &after);
    double journal_bytes = median(journal, turns), bare_bytes = median(bare, turns);
    printf("{\"measure\":\"append\",\"segments\":\"%s\",\"group_bytes_max\":%zu,\"group_bytes\":%.0f,\"records_per_s\":%.0f,"
           "\"bytes_per_s\":%.0f,\"bare_bytes_per_s\":%.0f,\"bare_records_per_s\":%.0f,\"ratio\":%.3f,\"turns\":%u}\n",
           recycled ? "recycled" : "new", group_bytes, (double)(after.bytes - before.bytes) / (double)(after.groups - before.groups),
           journal_bytes / (double)load.record_bytes, journal_bytes, bare_bytes, bare_bytes / (double)load.record_bytes,
           median(ratio, turns), turns);
    fflush(stdout);
    load_close(&load);
}

/* ---- commit ---- */

static void raw_paced(struct raw *raw, size_t bytes, double seconds, struct histogram *times)
{
    uint64_t interval_ns = 1000000000u / COMMITS_PER_S, due_ns = clock_monotonic_ns(), end_ns = due_ns + (uint64_t)(seconds * 1e9);
    for (; due_ns < end_ns; due_ns += interval_ns) {
        load_sleep_until(due_ns);
        uint64_t began_ns = clock_monotonic_ns();
        raw_write(raw, bytes);
        histogram_record(times, clock_monotonic_ns() - began_ns);
    }
}

static void measure_commit(const char *folder, struct raw *raw, double seconds)
{
    static struct journal_load load;
    static struct histogram bare;
    load_open(&load, folder, 0, RETENTION, true);
    load_start(&load);
    for (unsigned i = 0; i < TURNS; i++) {
        load_append_paced(&load, COMMITS_PER_S, seconds / 2 / TURNS, NULL);
        raw_paced(raw, load.record_bytes, seconds / 2 / TURNS, &bare);
    }
    struct journal_stats stats;
    journal_stats(load.journal, &stats);
    printf("{\"measure\":\"commit\",\"rate\":%d,\"records_per_group\":%.2f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"bare_p50_us\":%.1f,"
           "\"bare_p99_us\":%.1f,\"write_and_sync_p50_us\":%.1f}\n",
           COMMITS_PER_S, (double)load.commit_ns.count / (double)stats.groups, (double)histogram_quantile(&load.commit_ns, .5) / 1e3,
           (double)histogram_quantile(&load.commit_ns, .99) / 1e3, (double)histogram_quantile(&bare, .5) / 1e3,
           (double)histogram_quantile(&bare, .99) / 1e3, (double)histogram_quantile(stats.sync, .5) / 1e3);
    fflush(stdout);
    load_close(&load);
}

int main(int count, char **words)
{
    if (count < 2) {
        fprintf(stderr, "usage: bench_journal FOLDER [SECONDS]\n");
        return 2;
    }
    const char *folder = words[1];
    double seconds = count > 2 ? strtod(words[2], NULL) : 5;
    struct raw raw;
    char journal[4200];
    snprintf(journal, sizeof journal, "%s/journal", folder);
    raw_open(&raw, folder);
    for (unsigned recycled = 0; recycled < 2; recycled++)
        for (size_t group_bytes = 1 << 20; group_bytes >= 64 << 10; group_bytes >>= 4)
            measure_append(journal, &raw, group_bytes, recycled, seconds);
    measure_commit(journal, &raw, seconds);
    raw_close(&raw);
    return 0;
}
