/* A small seeded generator for simulations, back-off and load: the same seed gives the same numbers on every machine.
 *
 * SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014). Nothing secret may depend on it. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stdint.h>

struct random_source {
    uint64_t state; /* any seed */
};

static inline uint64_t random_u64(struct random_source *source)
{
    uint64_t z = source->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 .. bound-1; 0 when bound is 0. The bias is below bound / 2^32. */
static inline uint32_t random_below(struct random_source *source, uint32_t bound)
{
    return (uint32_t)((random_u64(source) >> 32) * bound >> 32);
}

/* low <= x < high */
static inline double random_between(struct random_source *source, double low, double high)
{
    return low + (high - low) * (double)(random_u64(source) >> 11) * 0x1p-53;
}

/* Mean 0, standard deviation 1, by the sum of twelve uniform values: within +-6, which suits measured noise. */
static inline double random_normal(struct random_source *source)
{
    double sum = -6;
    for (int i = 0; i < 6; i++) {
        uint64_t bits = random_u64(source);
        sum += (double)(bits >> 32) * 0x1p-32 + (double)(uint32_t)bits * 0x1p-32;
    }
    return sum;
}

#endif
