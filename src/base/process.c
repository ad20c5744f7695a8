#include "base/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

/* proc(5): field 22 of /proc/self/stat, counted from 1; the second field is the program's name in parentheses. */
enum { STAT_FIELD_AFTER_NAME = 3, STAT_FIELD_START_TIME = 22, PROC_FILE_MAX = 2048 };

static double clock_s(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int read_file(const char *path, char text[PROC_FILE_MAX])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return ERR_IO;
    ssize_t count = read(fd, text, PROC_FILE_MAX - 1);
    close(fd);
    if (count <= 0)
        return ERR_IO;
    text[count] = 0;
    return 0;
}

static int read_resident(uint64_t *bytes)
{
    char text[PROC_FILE_MAX];
    unsigned long long size, resident;
    if (read_file("/proc/self/statm", text) || sscanf(text, "%llu %llu", &size, &resident) != 2)
        return ERR_IO;
    *bytes = resident * (uint64_t)sysconf(_SC_PAGESIZE);
    return 0;
}

static int count_fds(uint64_t *count)
{
    DIR *folder = opendir("/proc/self/fd");
    if (!folder)
        return ERR_IO;
    uint64_t found = 0;
    for (const struct dirent *entry = readdir(folder); entry; entry = readdir(folder))
        found += entry->d_name[0] != '.';
    closedir(folder);
    *count = found ? found - 1 : 0;
    return 0;
}

static pthread_once_t start_once = PTHREAD_ONCE_INIT;
static int start_error;
static double start_time_s;

/* The kernel gives the start in ticks since the machine began; the difference of the two clocks turns it into Unix time. Read
 * once: a later step of the wall clock must not look like a restart. */
static void read_start_time(void)
{
    start_error = ERR_IO;
    char text[PROC_FILE_MAX];
    if (read_file("/proc/self/stat", text))
        return;
    const char *field = strrchr(text, ')'); /* the name itself may hold blanks and parentheses */
    for (int i = STAT_FIELD_AFTER_NAME; field && i <= STAT_FIELD_START_TIME; i++)
        field = strchr(field + 1, ' ');
    unsigned long long ticks;
    if (!field || sscanf(field, "%llu", &ticks) != 1)
        return;
    start_time_s = clock_s(CLOCK_REALTIME) - clock_s(CLOCK_BOOTTIME) + (double)ticks / (double)sysconf(_SC_CLK_TCK);
    start_error = 0;
}

int process_usage_read(struct process_usage *usage)
{
    pthread_once(&start_once, read_start_time);
    struct process_usage read = {.cpu_s = clock_s(CLOCK_PROCESS_CPUTIME_ID), .start_time_s = start_time_s};
    int error = start_error;
    if (!error)
        error = read_resident(&read.resident_bytes);
    if (!error)
        error = count_fds(&read.open_fds);
    if (!error)
        *usage = read;
    return error;
}

void process_collect(void *owner, struct metrics_writer *writer)
{
    (void)owner;
    struct process_usage usage;
    if (process_usage_read(&usage))
        return;
    metrics_sample(writer, METRIC_PROCESS_CPU, usage.cpu_s, NULL);
    metrics_sample_u64(writer, METRIC_PROCESS_MEMORY, usage.resident_bytes, NULL);
    metrics_sample_u64(writer, METRIC_PROCESS_FDS, usage.open_fds, NULL);
    metrics_sample(writer, METRIC_PROCESS_START, usage.start_time_s, NULL);
}
