/* Recovering and reading a large journal. It is really written first, and its pages are dropped from memory before each cold measure.
 * Prints one JSON line a measure.
 *
 *   bench_journal_read FOLDER [GIB [SECONDS]]
 *
 * recovery: from opening the folder to a stream that can be written, after an orderly end and after kill -9 under load.
 * read:     a consumer that lags, from the oldest record on: cold, beside the bare disk; and cold and warm beside a writer of 1,000 records
 * a second, in turns with the writer alone, since what a disk can do changes from one second to the next. memory:   the largest of the
 * process that writes, after the first GiB and at the end, and of the one that recovers and reads. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "journal_load.h"

enum { FILL_GROUP = 8 << 20, FILL_SECONDS_MAX = 45, KILL_AFTER_RECORDS = 500000, WRITER_RATE = 1000, TURNS = 3, BLOCK = 1 << 20 };
static const uint64_t gib = 1 << 30;

/* What a child tells its parent. */
struct told {
    _Atomic uint64_t records;
    uint64_t bytes, resident_first_gib, resident_end;
    double seconds;
};

static uint64_t resident_max(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_maxrss << 10;
}

/* Calls `each` for every segment, in order. */
static void each_segment(const char *folder, void (*each)(int file, void *context), void *context)
{
    char stream[4200], path[4300], name[32];
    snprintf(stream, sizeof stream, "%s/bench", folder);
    uint64_t *bases;
    size_t count;
    load_must(segment_list(disk_posix(), stream, &bases, &count), stream);
    for (size_t i = 0; i < count; i++) {
        segment_name(bases[i], name);
        snprintf(path, sizeof path, "%s/%s", stream, name);
        int file = open(path, O_RDONLY);
        if (file < 0)
            load_must(ERR_IO, path);
        each(file, context);
        close(file);
    }
    free(bases);
}

static void forget(int file, void *context)
{
    (void)context;
    fdatasync(file);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
}

static void add_size(int file, void *context)
{
    *(uint64_t *)context += (uint64_t)lseek(file, 0, SEEK_END);
}

/* ---- the journal ---- */

static void fill(const char *folder, uint64_t bytes, struct told *told)
{
    static struct journal_load load;
    load_open(&load, folder, FILL_GROUP, 0, false);
    load_start(&load);
    load_open_producer(&load);
    uint64_t started = clock_monotonic_ns();
    struct journal_stats stats = {0};
    while (stats.bytes < bytes && load_seconds(started) < FILL_SECONDS_MAX) {
        load_append_group(&load);
        journal_stats(load.journal, &stats);
        if (told->resident_first_gib == 0 && stats.bytes > gib)
            told->resident_first_gib = resident_max();
    }
    load_close(&load);
    told->seconds = load_seconds(started);
    told->bytes = stats.bytes;
    told->resident_end = resident_max();
}

static void write_until_killed(const char *folder, struct told *told)
{
    static struct journal_load load;
    load_open(&load, folder, 64 << 10, 0, false);
    load_start(&load);
    load_open_producer(&load);
    uint64_t first = journal_stream_durable(load.stream);
    for (;;) {
        load_append_group(&load);
        atomic_store(&told->records, journal_stream_durable(load.stream) - first);
    }
}

static void in_child_fill(const char *folder, uint64_t bytes, struct told *told)
{
    pid_t child = fork();
    if (child == 0) {
        fill(folder, bytes, told);
        exit(0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status)
        load_must(ERR_IO, "the process that writes the journal");
}

static void in_child_killed(const char *folder, struct told *told)
{
    pid_t child = fork();
    if (child == 0)
        write_until_killed(folder, told);
    if (child < 0)
        load_must(ERR_NO_MEMORY, "fork");
    while (atomic_load(&told->records) < KILL_AFTER_RECORDS && waitpid(child, NULL, WNOHANG) == 0)
        load_sleep_until(clock_monotonic_ns() + 1000000);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void measure_recovery(const char *folder, const char *after, struct journal_load *load)
{
    uint64_t bytes = 0;
    each_segment(folder, forget, NULL);
    each_segment(folder, add_size, &bytes);
    struct rusage before, behind;
    getrusage(RUSAGE_SELF, &before);
    uint64_t started = clock_monotonic_ns();
    load_open(load, folder, 0, 0, true);
    double seconds = load_seconds(started);
    getrusage(RUSAGE_SELF, &behind);
    printf("{\"measure\":\"recovery\",\"after\":\"%s\",\"journal_bytes\":%" PRIu64 ",\"seconds\":%.3f,\"records\":%" PRIu64
           ",\"bytes_read\":%ld}\n",
           after, bytes, seconds, journal_stream_durable(load->stream), (behind.ru_inblock - before.ru_inblock) * 512);
    fflush(stdout);
}

/* ---- reading ---- */

struct pass {
    uint64_t records, bytes;
    double seconds;
};

/* Reads from the oldest record on until `seconds` are over; at `until` (or the end) again from the oldest. */
static void read_records(struct journal_load *load, uint64_t until, double seconds, struct pass *pass)
{
    struct reader *reader;
    struct message message;
    const uint8_t *record;
    uint64_t started = clock_monotonic_ns();
    *pass = (struct pass){0};
    load_must(journal_stream_reader(load->stream, 0, &reader), "journal_stream_reader");
    while (pass->records % 1024 || load_seconds(started) < seconds) {
        int error = reader_next(reader, until, &message, &record);
        if (error == ERR_TRUNCATED && pass->records) {
            reader_close(reader);
            load_must(journal_stream_reader(load->stream, 0, &reader), "journal_stream_reader");
            continue;
        }
        load_must(error, "reader_next");
        pass->records++;
        pass->bytes += format_record_length(record);
    }
    pass->seconds = load_seconds(started);
    reader_close(reader);
}

struct bare {
    uint64_t started_ns, bytes;
    double seconds_max, seconds;
    uint8_t *block; /* [BLOCK] */
};

static void read_bare(int file, void *context)
{
    struct bare *bare = context;
    ssize_t got = 1;
    for (off_t at = 0; got > 0 && load_seconds(bare->started_ns) < bare->seconds_max; at += got) {
        got = pread(file, bare->block, BLOCK, at);
        bare->bytes += got > 0 ? (uint64_t)got : 0;
        bare->seconds = load_seconds(bare->started_ns);
    }
}

static double bare_bytes_per_s(const char *folder, double seconds)
{
    each_segment(folder, forget, NULL);
    struct bare bare = {.started_ns = clock_monotonic_ns(), .seconds_max = seconds, .block = malloc(BLOCK)};
    each_segment(folder, read_bare, &bare);
    free(bare.block);
    return (double)bare.bytes / bare.seconds;
}

struct writer {
    struct journal_load *load;
    double seconds;
    atomic_bool stop;
};

static void *write_paced(void *context)
{
    struct writer *writer = context;
    load_append_paced(writer->load, WRITER_RATE, writer->seconds, &writer->stop);
    return NULL;
}

/* One way of reading: what was read, and how long the writer's commits took meanwhile. */
struct way {
    const char *name;
    struct pass pass;
    struct histogram commits;
};

static void print_way(const struct way *way, double bare)
{
    printf("{\"measure\":\"read\",\"how\":\"%s\"", way->name);
    if (way->pass.records)
        printf(",\"records_per_s\":%.0f,\"bytes_per_s\":%.0f", (double)way->pass.records / way->pass.seconds,
               (double)way->pass.bytes / way->pass.seconds);
    if (bare > 0)
        printf(",\"bare_bytes_per_s\":%.0f", bare);
    if (way->commits.count)
        printf(",\"writer_p50_us\":%.1f,\"writer_p99_us\":%.1f", (double)histogram_quantile(&way->commits, .5) / 1e3,
               (double)histogram_quantile(&way->commits, .99) / 1e3);
    printf("}\n");
    fflush(stdout);
}

/* Returns how many records were read. */
static uint64_t read_beside_writer(struct journal_load *load, uint64_t until, double seconds, struct way *way)
{
    struct writer writer = {.load = load, .seconds = 3600};
    struct pass pass;
    pthread_t thread;
    memset(&load->commit_ns, 0, sizeof load->commit_ns);
    if (pthread_create(&thread, NULL, write_paced, &writer))
        load_must(ERR_NO_MEMORY, "a thread");
    read_records(load, until, seconds, &pass);
    atomic_store(&writer.stop, true);
    pthread_join(thread, NULL);
    histogram_merge(&way->commits, &load->commit_ns);
    way->pass.records += pass.records;
    way->pass.bytes += pass.bytes;
    way->pass.seconds += pass.seconds;
    return pass.records;
}

static void measure_read(const char *folder, struct journal_load *load, double seconds)
{
    static struct way alone = {.name = "cold"}, nobody = {.name = "writer alone"}, cold = {.name = "cold beside a writer"},
                      warm = {.name = "warm beside a writer"};
    uint64_t until = journal_stream_durable(load->stream);
    double bare = bare_bytes_per_s(folder, seconds);
    each_segment(folder, forget, NULL);
    read_records(load, until, seconds, &alone.pass);
    for (unsigned turn = 0; turn < TURNS; turn++) {
        memset(&load->commit_ns, 0, sizeof load->commit_ns);
        load_append_paced(load, WRITER_RATE, seconds / TURNS, NULL);
        histogram_merge(&nobody.commits, &load->commit_ns);
        each_segment(folder, forget, NULL);
        uint64_t in_memory = read_beside_writer(load, until, seconds / TURNS, &cold);
        read_beside_writer(load, in_memory, seconds / TURNS, &warm);
    }
    print_way(&alone, bare);
    print_way(&nobody, 0);
    print_way(&cold, 0);
    print_way(&warm, 0);
}

int main(int count, char **words)
{
    if (count < 2) {
        fprintf(stderr, "usage: bench_journal_read FOLDER [GIB [SECONDS]]\n");
        return 2;
    }
    const char *folder = words[1];
    uint64_t asked = (uint64_t)((count > 2 ? strtod(words[2], NULL) : 10) * (double)gib), bytes = asked;
    double seconds = count > 3 ? strtod(words[3], NULL) : 5;
    struct statvfs room;
    if (statvfs(folder, &room))
        load_must(ERR_IO, folder);
    if (bytes > room.f_bavail * room.f_frsize / 2)
        bytes = room.f_bavail * room.f_frsize / 2;
    struct told *told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (told == MAP_FAILED)
        load_must(ERR_NO_MEMORY, "mmap");
    char journal[4100];
    snprintf(journal, sizeof journal, "%s/journal", folder);
    in_child_fill(journal, bytes, told);
    static struct journal_load load;
    measure_recovery(journal, "clean", &load);
    load_close(&load);
    in_child_killed(journal, told);
    measure_recovery(journal, "kill", &load);
    load_start(&load);
    measure_read(journal, &load, seconds);
    load_close(&load);
    printf("{\"measure\":\"memory\",\"asked_bytes\":%" PRIu64 ",\"journal_bytes\":%" PRIu64 ",\"writing_bytes_per_s\":%.0f"
           ",\"writing_first_gib_bytes\":%" PRIu64 ",\"writing_bytes\":%" PRIu64 ",\"recovering_and_reading_bytes\":%" PRIu64 "}\n",
           asked, told->bytes, (double)told->bytes / told->seconds, told->resident_first_gib, told->resident_end, resident_max());
    return 0;
}
