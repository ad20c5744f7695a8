#include "pipeline/virtual_clock.h"

void virtual_clock_init(struct virtual_clock *clock, uint64_t monotonic_ns)
{
    *clock = (struct virtual_clock){.start_ns = monotonic_ns, .now_ns = monotonic_ns};
}

uint64_t virtual_clock_origin(const struct virtual_clock *clock, uint64_t monotonic_ns, uint64_t wall_ns, uint64_t message_time_ns)
{
    uint64_t age_max = monotonic_ns > clock->start_ns ? monotonic_ns - clock->start_ns : 0;
    uint64_t age = wall_ns > message_time_ns ? wall_ns - message_time_ns : 0;
    return monotonic_ns - (age < age_max ? age : age_max);
}

uint64_t virtual_clock_read(struct virtual_clock *clock, uint64_t monotonic_ns, uint64_t wall_ns, uint64_t message_time_ns)
{
    uint64_t shown = virtual_clock_origin(clock, monotonic_ns, wall_ns, message_time_ns);
    if (clock->message_time_ns != 0) {
        uint64_t step = message_time_ns > clock->message_time_ns ? message_time_ns - clock->message_time_ns : 0;
        uint64_t farthest = step < UINT64_MAX - clock->now_ns ? clock->now_ns + step : UINT64_MAX;
        if (shown > farthest)
            shown = farthest;
    }
    clock->message_time_ns = message_time_ns;
    clock->now_ns = shown > clock->now_ns ? shown : clock->now_ns + 1;
    return clock->now_ns;
}

uint64_t virtual_clock_catch_up(struct virtual_clock *clock, uint64_t monotonic_ns)
{
    if (monotonic_ns > clock->now_ns)
        clock->now_ns = monotonic_ns;
    return clock->now_ns;
}

uint64_t virtual_clock_restart(struct virtual_clock *clock, uint64_t monotonic_ns)
{
    clock->start_ns = monotonic_ns;
    return virtual_clock_catch_up(clock, monotonic_ns);
}
