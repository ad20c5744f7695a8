/* A token bucket without tokens: the time at which all that was taken is paid for. Whoever is further ahead of it than the burst waits. One
 * 64-bit word, so the clients of a user on several threads share it without a lock; two that look at the same moment may both pass. */
#ifndef ACCESS_QUOTA_H
#define ACCESS_QUOTA_H

#include <stdatomic.h>
#include <stdint.h>

#define QUOTA_BURST_NS UINT64_C(1000000000) /* a second's worth may come at once */
#define QUOTA_COST_MAX UINT64_C(3600000000000)

struct quota_bucket {
    _Atomic uint64_t paid_ns; /* monotonic */
};

/* ns until something may be taken; 0: now. */
static inline uint64_t quota_wait_ns(const struct quota_bucket *bucket, uint64_t now_ns)
{
    uint64_t paid_ns = atomic_load_explicit(&bucket->paid_ns, memory_order_relaxed);
    return paid_ns > now_ns + QUOTA_BURST_NS ? paid_ns - now_ns - QUOTA_BURST_NS : 0;
}

/* Takes what costs `cost_ns` (its amount by the rate; at most QUOTA_COST_MAX counts), allowed or not. */
static inline void quota_charge(struct quota_bucket *bucket, uint64_t now_ns, uint64_t cost_ns)
{
    uint64_t paid_ns = atomic_load_explicit(&bucket->paid_ns, memory_order_relaxed), later_ns;
    if (cost_ns > QUOTA_COST_MAX)
        cost_ns = QUOTA_COST_MAX;
    do
        later_ns = (paid_ns > now_ns ? paid_ns : now_ns) + cost_ns;
    while (!atomic_compare_exchange_weak_explicit(&bucket->paid_ns, &paid_ns, later_ns, memory_order_relaxed, memory_order_relaxed));
}

#endif
