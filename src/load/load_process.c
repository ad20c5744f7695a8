#include "load/load_process.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

enum { STAT_MAX = 2048 };

int load_process_read(int pid, struct load_process_usage *usage)
{
    char path[64], text[STAT_MAX];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return ERR_NOT_FOUND;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    /* The name, in parentheses, may hold anything: the fields are counted from its end (proc(5): 14 utime, 15 stime, 24 rss). */
    const char *name_end = strrchr(text, ')');
    unsigned long user_ticks, system_ticks;
    long pages;
    if (!name_end || sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %*u %ld",
                            &user_ticks, &system_ticks, &pages) != 3)
        return ERR_IO;
    usage->cpu_s = (double)(user_ticks + system_ticks) / (double)sysconf(_SC_CLK_TCK);
    usage->resident_bytes = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
    return 0;
}

double load_thread_cpu_s(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void load_process_read_if_known(int pid, struct load_process_usage *usage)
{
    if (pid <= 0 || load_process_read(pid, usage) != 0)
        *usage = (struct load_process_usage){.cpu_s = -1};
}

double load_process_cpu_between(const struct load_process_usage *before, const struct load_process_usage *after)
{
    return before->cpu_s >= 0 && after->cpu_s >= 0 ? after->cpu_s - before->cpu_s : -1;
}

uint64_t load_file_limit_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}
