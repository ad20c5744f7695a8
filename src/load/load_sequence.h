/* Loss, repeats and order of one publisher's messages as one subscriber sees them. Pure; a message in order costs one comparison.
 *
 * Sequence numbers start at 0. A gap is remembered as a range; what arrives late fills it. */
#ifndef LOAD_SEQUENCE_H
#define LOAD_SEQUENCE_H

#include <stdint.h>

enum { LOAD_SEQUENCE_GAPS_MAX = 64 };

struct load_sequence_gap {
    uint32_t first, end; /* first <= missing < end */
};

struct load_sequence {
    uint32_t next; /* lowest number above all that came */
    uint32_t gap_count;
    struct load_sequence_gap gaps[LOAD_SEQUENCE_GAPS_MAX]; /* [gap_count] ascending */
    uint64_t received;                                     /* distinct messages */
    uint64_t duplicates;                                   /* repeats, and what came later than the oldest gap that could be remembered */
    uint64_t late;                                         /* came after a higher number: out of order, not lost */
    uint64_t lost;                                         /* in gaps that had to be forgotten */
};

void load_sequence_slow(struct load_sequence *sequence, uint32_t number);

static inline void load_sequence_take(struct load_sequence *sequence, uint32_t number)
{
    if (number == sequence->next) {
        sequence->next++;
        sequence->received++;
    } else {
        load_sequence_slow(sequence, number);
    }
}

/* How many of the first `sent` numbers never came. */
uint64_t load_sequence_missing(const struct load_sequence *sequence, uint32_t sent);

#endif
