/* Trailing medians without sorting each window: all values are sorted once, and from then on are known by their rank. A window is a
 * set of ranks in a bitmap, and its median a pointer into it that moves by at most one set bit when the window moves by one value. The
 * bitmap has levels above it, a bit for each word that is not empty, so that the next set bit is found in a few steps even when the
 * window is a few values among many. */
#include "drilling/median.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { LEVELS = 4, WORD_BITS = 64 }; /* 64^4 = 16 million values */
enum { KEPT_VALUES = 256 * 1024 };   /* the memory for longer arrays is given back at the next shorter one */

static const size_t NONE = SIZE_MAX;

struct entry {
    uint64_t key;
    uint32_t index;
};

struct median_scratch {
    size_t capacity;
    struct entry *entries, *other; /* [capacity] */
    uint32_t *rank;                /* [capacity]: of the value at an index */
    double *sorted;                /* [capacity]: the value of a rank */
    uint64_t *bits[LEVELS];        /* of the set of ranks */
};

int median_scratch_create(struct median_scratch **scratch)
{
    struct median_scratch *created = calloc(1, sizeof *created);
    if (!created)
        return ERR_NO_MEMORY;
    *scratch = created;
    return 0;
}

static void scratch_empty(struct median_scratch *scratch)
{
    free(scratch->entries);
    free(scratch->other);
    free(scratch->rank);
    free(scratch->sorted);
    for (size_t i = 0; i < LEVELS; i++)
        free(scratch->bits[i]);
    *scratch = (struct median_scratch){0};
}

void median_scratch_destroy(struct median_scratch *scratch)
{
    if (scratch) {
        scratch_empty(scratch);
        free(scratch);
    }
}

int median_scratch_reserve(struct median_scratch *scratch, size_t count)
{
    bool large = scratch->capacity > KEPT_VALUES && count <= KEPT_VALUES;
    if (scratch->capacity >= count && !large)
        return 0;
    size_t capacity = 4096;
    while (capacity < count)
        capacity *= 2;
    scratch_empty(scratch);
    scratch->entries = malloc(capacity * sizeof *scratch->entries);
    scratch->other = malloc(capacity * sizeof *scratch->other);
    scratch->rank = malloc(capacity * sizeof *scratch->rank);
    scratch->sorted = malloc(capacity * sizeof *scratch->sorted);
    bool complete = scratch->entries && scratch->other && scratch->rank && scratch->sorted;
    size_t words = capacity;
    for (size_t i = 0; i < LEVELS; i++) {
        words = (words + WORD_BITS - 1) / WORD_BITS;
        scratch->bits[i] = malloc(words * sizeof *scratch->bits[i]);
        complete = complete && scratch->bits[i];
    }
    if (!complete) {
        scratch_empty(scratch);
        return ERR_NO_MEMORY;
    }
    scratch->capacity = capacity;
    return 0;
}

/* An integer that is ordered as the double is. */
static uint64_t key_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

static double value_of(uint64_t key)
{
    uint64_t bits = key >> 63 ? key & ~(UINT64_C(1) << 63) : ~key;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- selection ---- */

/* The key of rank `rank` among `count`; one byte a round, keeping only the entries of that byte. The entries are used up. */
static uint64_t select_key(struct entry *entries, size_t count, size_t rank)
{
    for (int shift = 56; shift >= 0 && count > 1; shift -= 8) {
        size_t sizes[256] = {0};
        for (size_t i = 0; i < count; i++)
            sizes[entries[i].key >> shift & 0xff]++;
        unsigned byte = 0;
        while (rank >= sizes[byte])
            rank -= sizes[byte++];
        if (sizes[byte] == count)
            continue;
        size_t kept = 0;
        for (size_t i = 0; i < count; i++) {
            if ((entries[i].key >> shift & 0xff) == byte)
                entries[kept++].key = entries[i].key;
        }
        count = kept;
    }
    return entries[0].key;
}

double median_of(struct median_scratch *scratch, const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        scratch->entries[i].key = key_of(values[i]);
    uint64_t lower = select_key(scratch->entries, count, (count - 1) / 2);
    if (count % 2)
        return value_of(lower);
    uint64_t upper = UINT64_MAX;
    size_t up_to_lower = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t key = key_of(values[i]);
        up_to_lower += key <= lower;
        if (key > lower && key < upper)
            upper = key;
    }
    if (up_to_lower > count / 2)
        upper = lower;
    return (value_of(lower) + value_of(upper)) / 2;
}

/* ---- ranks ---- */

/* Sorts the entries by key, a byte a pass from the last; returns where they are then. */
static struct entry *entries_sort(struct entry *from, struct entry *to, size_t count)
{
    size_t sizes[8][256] = {{0}};
    for (size_t i = 0; i < count; i++) {
        for (int byte = 0; byte < 8; byte++)
            sizes[byte][from[i].key >> 8 * byte & 0xff]++;
    }
    for (int byte = 0; byte < 8; byte++) {
        if (sizes[byte][from[0].key >> 8 * byte & 0xff] == count)
            continue;
        size_t place = 0;
        for (int i = 0; i < 256; i++) {
            size_t size = sizes[byte][i];
            sizes[byte][i] = place;
            place += size;
        }
        for (size_t i = 0; i < count; i++)
            to[sizes[byte][from[i].key >> 8 * byte & 0xff]++] = from[i];
        struct entry *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

/* Ranks all finite values. Returns how many there are. */
static size_t values_rank(struct median_scratch *scratch, const double *values, size_t count)
{
    size_t finite = 0;
    for (size_t i = 0; i < count; i++) {
        if (isfinite(values[i]))
            scratch->entries[finite++] = (struct entry){key_of(values[i]), (uint32_t)i};
    }
    if (finite == 0)
        return 0;
    const struct entry *sorted = entries_sort(scratch->entries, scratch->other, finite);
    for (size_t rank = 0; rank < finite; rank++) {
        scratch->rank[sorted[rank].index] = (uint32_t)rank;
        scratch->sorted[rank] = value_of(sorted[rank].key);
    }
    return finite;
}

/* ---- the set of ranks ---- */

static void set_clear(struct median_scratch *scratch, size_t ranks)
{
    size_t words = ranks;
    for (size_t i = 0; i < LEVELS; i++) {
        words = (words + WORD_BITS - 1) / WORD_BITS;
        memset(scratch->bits[i], 0, words * sizeof *scratch->bits[i]);
    }
}

static inline void set_add(struct median_scratch *scratch, size_t rank)
{
    for (size_t level = 0; level < LEVELS; level++) {
        uint64_t *word = &scratch->bits[level][rank / WORD_BITS];
        uint64_t before = *word;
        *word = before | UINT64_C(1) << rank % WORD_BITS;
        if (before)
            return;
        rank /= WORD_BITS;
    }
}

static inline void set_remove(struct median_scratch *scratch, size_t rank)
{
    for (size_t level = 0; level < LEVELS; level++) {
        uint64_t *word = &scratch->bits[level][rank / WORD_BITS];
        *word &= ~(UINT64_C(1) << rank % WORD_BITS);
        if (*word)
            return;
        rank /= WORD_BITS;
    }
}

static inline size_t set_next(const struct median_scratch *scratch, size_t rank)
{
    for (size_t level = 0; level < LEVELS; level++) {
        size_t word = rank / WORD_BITS;
        uint64_t above = scratch->bits[level][word] & (~UINT64_C(0) << rank % WORD_BITS << 1);
        if (above) {
            rank = word * WORD_BITS + (size_t)__builtin_ctzll(above);
            while (level--)
                rank = rank * WORD_BITS + (size_t)__builtin_ctzll(scratch->bits[level][rank]);
            return rank;
        }
        rank = word;
    }
    return NONE;
}

static inline size_t highest(uint64_t bits)
{
    return 63 - (size_t)__builtin_clzll(bits);
}

static inline size_t set_previous(const struct median_scratch *scratch, size_t rank)
{
    for (size_t level = 0; level < LEVELS; level++) {
        size_t word = rank / WORD_BITS;
        uint64_t below = scratch->bits[level][word] & ((UINT64_C(1) << rank % WORD_BITS) - 1);
        if (below) {
            rank = word * WORD_BITS + highest(below);
            while (level--)
                rank = rank * WORD_BITS + highest(scratch->bits[level][rank]);
            return rank;
        }
        rank = word;
    }
    return NONE;
}

/* ---- windows ---- */

/* Where the median of a window stands: `middle` is the rank of the lower median, `below` how many ranks of the set lie below it. */
struct pointer {
    size_t middle, below;
};

static inline double pointer_median(const struct median_scratch *scratch, const struct pointer *pointer, size_t width)
{
    double lower = scratch->sorted[pointer->middle];
    return width % 2 ? lower : (lower + scratch->sorted[set_next(scratch, pointer->middle)]) / 2;
}

static inline void window_slide(struct median_scratch *scratch, struct pointer *pointer, size_t width, size_t arriving, size_t leaving)
{
    set_add(scratch, arriving);
    pointer->below += arriving < pointer->middle;
    if (leaving == pointer->middle) {
        size_t next = set_next(scratch, leaving);
        if (next != NONE) {
            pointer->middle = next;
        } else {
            pointer->middle = set_previous(scratch, leaving);
            pointer->below--;
        }
    } else {
        pointer->below -= leaving < pointer->middle;
    }
    set_remove(scratch, leaving);
    while (pointer->below > (width - 1) / 2) {
        pointer->middle = set_previous(scratch, pointer->middle);
        pointer->below--;
    }
    while (pointer->below < (width - 1) / 2) {
        pointer->middle = set_next(scratch, pointer->middle);
        pointer->below++;
    }
}

/* The windows within values [first, end), all of which are finite; end - first >= width. The set is empty before and after. */
static void run_medians(struct median_scratch *scratch, size_t first, size_t end, size_t width, double *medians)
{
    const uint32_t *rank = scratch->rank;
    for (size_t i = first; i < first + width; i++)
        set_add(scratch, rank[i]);
    struct pointer pointer = {rank[first], 0};
    for (size_t i = first; i < first + width; i++)
        pointer.middle = rank[i] < pointer.middle ? rank[i] : pointer.middle;
    for (; pointer.below < (width - 1) / 2; pointer.below++)
        pointer.middle = set_next(scratch, pointer.middle);
    medians[first + width - 1] = pointer_median(scratch, &pointer, width);
    for (size_t i = first + width; i < end; i++) {
        window_slide(scratch, &pointer, width, rank[i], rank[i - width]);
        medians[i] = pointer_median(scratch, &pointer, width);
    }
    for (size_t i = end - width; i < end; i++)
        set_remove(scratch, rank[i]);
}

void median_trailing(struct median_scratch *scratch, const double *values, size_t count, size_t width, double *medians)
{
    for (size_t i = 0; i < count; i++)
        medians[i] = (double)NAN;
    if (width > count)
        return;
    set_clear(scratch, values_rank(scratch, values, count));
    for (size_t i = 0; i < count;) {
        size_t end = i;
        while (end < count && isfinite(values[end]))
            end++;
        if (end - i >= width)
            run_medians(scratch, i, end, width, medians);
        i = end + 1;
    }
}
