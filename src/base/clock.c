#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static uint64_t read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

void clock_wall_text(uint64_t wall_ns, char text[CLOCK_TEXT_SIZE])
{
    time_t seconds = (time_t)(wall_ns / 1000000000u);
    struct tm t;
    gmtime_r(&seconds, &t);
    char date[24];
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &t);
    snprintf(text, CLOCK_TEXT_SIZE, "%s.%03uZ", date, (unsigned)(wall_ns / 1000000u % 1000u));
}
