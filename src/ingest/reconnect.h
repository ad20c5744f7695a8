/* When to try a broker again: exponential back-off with jitter for each connection, and a circuit breaker for the broker. Pure: time and
 * randomness come in.
 *
 * The breaker, by what attempts have come to. It begins HALF_OPEN.
 *
 * HALF_OPEN: one attempt may be under way, a probe. Success: CLOSED. Failure: OPEN after `failures_max` of them in a row, or at once when
 * the broker has refused us for good (a password that is wrong will be wrong again); else the next probe comes after a back-off.
 *
 * CLOSED: any connection may try, each after its own back-off. OPEN after `failures_max` failures in a row without a success.
 *
 * OPEN: nobody tries for `open_ns`, which doubles each time a probe fails, up to open_max_ns; then HALF_OPEN. */
#ifndef INGEST_RECONNECT_H
#define INGEST_RECONNECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/random.h"

struct backoff_options {
    uint64_t first_ns, last_ns; /* 0 < first_ns <= last_ns */
};

struct backoff {
    unsigned failures; /* in a row */
};

/* How long to wait after another failure: half of first_ns * 2^failures (at most last_ns), and as much again by chance. */
uint64_t backoff_next(struct backoff *backoff, const struct backoff_options *options, struct random_source *random);

enum breaker_state { BREAKER_HALF_OPEN, BREAKER_CLOSED, BREAKER_OPEN };

struct breaker_options {
    unsigned failures_max;         /* at least 1 */
    uint64_t open_ns, open_max_ns; /* 0 < open_ns <= open_max_ns */
};

struct breaker {
    enum breaker_state state;
    unsigned failures; /* in a row */
    unsigned openings; /* in a row */
    bool probing;      /* HALF_OPEN: an attempt is under way */
    uint64_t until_ns; /* OPEN */
};

/* Whether an attempt may begin now; then it has begun, and breaker_succeeded, _failed or _gave_up tells how it ended. */
bool breaker_try(struct breaker *breaker, uint64_t now_ns);
void breaker_succeeded(struct breaker *breaker);
/* `refused`: the broker has answered, and would answer the same again. Returns whether it has opened now. */
bool breaker_failed(struct breaker *breaker, const struct breaker_options *options, bool refused, uint64_t now_ns);
void breaker_gave_up(struct breaker *breaker); /* the attempt was ended by its owner, and says nothing of the broker */

/* Whether breaker_try could succeed now or after some attempt has ended. */
static inline bool breaker_is_usable(const struct breaker *breaker, uint64_t now_ns)
{
    return breaker->state != BREAKER_OPEN || now_ns >= breaker->until_ns;
}

#endif
