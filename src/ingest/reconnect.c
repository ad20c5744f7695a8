#include "ingest/reconnect.h"

/* value * 2^doublings, at most `most`. */
static uint64_t doubled(uint64_t value, unsigned doublings, uint64_t most)
{
    while (doublings-- && value < most)
        value = value > most / 2 ? most : value * 2;
    return value < most ? value : most;
}

uint64_t backoff_next(struct backoff *backoff, const struct backoff_options *options, struct random_source *random)
{
    uint64_t wait_ns = doubled(options->first_ns, backoff->failures, options->last_ns);
    if (backoff->failures < UINT16_MAX)
        backoff->failures++;
    return wait_ns / 2 + (uint64_t)(random_between(random, 0, 1) * (double)(wait_ns - wait_ns / 2));
}

bool breaker_try(struct breaker *breaker, uint64_t now_ns)
{
    if (breaker->state == BREAKER_CLOSED)
        return true;
    if (breaker->state == BREAKER_OPEN && now_ns >= breaker->until_ns)
        breaker->state = BREAKER_HALF_OPEN;
    if (breaker->state == BREAKER_OPEN || breaker->probing)
        return false;
    breaker->probing = true;
    return true;
}

void breaker_succeeded(struct breaker *breaker)
{
    *breaker = (struct breaker){.state = BREAKER_CLOSED};
}

bool breaker_failed(struct breaker *breaker, const struct breaker_options *options, bool refused, uint64_t now_ns)
{
    breaker->probing = false;
    if (breaker->failures < options->failures_max)
        breaker->failures++;
    if (breaker->state == BREAKER_OPEN || (!refused && breaker->failures < options->failures_max))
        return false;
    breaker->state = BREAKER_OPEN;
    breaker->until_ns = now_ns + doubled(options->open_ns, breaker->openings, options->open_max_ns);
    breaker->openings++;
    return true;
}

void breaker_gave_up(struct breaker *breaker)
{
    breaker->probing = false;
}
