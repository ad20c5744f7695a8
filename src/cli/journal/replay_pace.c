#include "cli/journal/replay_pace.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

int replay_speed_parse(const char *text, double *speed)
{
    if (strcmp(text, "max") == 0) {
        *speed = 0;
        return 0;
    }
    char *end;
    size_t digits = strspn(text, "0123456789.");
    double number = strtod(text, &end);
    if (digits == 0 || text[digits] || *end || !(number >= REPLAY_SPEED_MIN && number <= REPLAY_SPEED_MAX))
        return ERR_INVALID;
    *speed = number;
    return 0;
}

/* ---- when ---- */

void replay_pace_init(struct replay_pace *pace, double speed)
{
    *pace = (struct replay_pace){.speed = speed};
}

uint64_t replay_pace_due_ns(struct replay_pace *pace, uint64_t time_ns, uint64_t now_ns)
{
    if (!pace->begun)
        *pace = (struct replay_pace){.speed = pace->speed, .begun = true, .begun_ns = now_ns, .first_ns = time_ns, .furthest_ns = time_ns};
    if (time_ns > pace->furthest_ns)
        pace->furthest_ns = time_ns;
    double span_ns = pace->speed > 0 ? (double)(pace->furthest_ns - pace->first_ns) / pace->speed : 0;
    return span_ns < (double)(UINT64_MAX / 2) ? pace->begun_ns + (uint64_t)span_ns : UINT64_MAX;
}

uint64_t replay_pace_span_ns(const struct replay_pace *pace, uint64_t time_ns)
{
    if (!(pace->speed > 0) || time_ns <= pace->furthest_ns)
        return 0;
    double span_ns = (double)(time_ns - pace->furthest_ns) / pace->speed;
    return span_ns < (double)(UINT64_MAX / 2) ? (uint64_t)span_ns : UINT64_MAX;
}

/* ---- what is acknowledged ---- */

void replay_window_clear(struct replay_window *window)
{
    window->first = window->count = 0;
}

void replay_window_add(struct replay_window *window, uint64_t offset)
{
    assert(!replay_window_is_full(window));
    uint32_t tag = replay_window_tag(window);
    window->offsets[tag] = offset;
    window->acknowledged[tag] = false;
    window->count++;
}

uint32_t replay_window_acknowledge(struct replay_window *window, uint32_t tag)
{
    uint32_t left = 0;
    window->acknowledged[tag] = true;
    for (; window->count && window->acknowledged[window->first]; left++) {
        window->first = (window->first + 1) % REPLAY_WINDOW_MAX;
        window->count--;
    }
    return left;
}

uint64_t replay_window_next(const struct replay_window *window, uint64_t behind)
{
    return window->count ? window->offsets[window->first] : behind;
}
