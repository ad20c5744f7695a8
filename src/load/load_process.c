#include "load/load_process.h"

#include <stdio.h>
#include <string.h>
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
