#include "load/load_sequence.h"

#include <stdbool.h>
#include <string.h>

static void remove_gap(struct load_sequence *sequence, uint32_t index)
{
    sequence->gap_count--;
    memmove(&sequence->gaps[index], &sequence->gaps[index + 1], (sequence->gap_count - index) * sizeof *sequence->gaps);
}

/* Where gaps are many the oldest is given up: what it misses counts as lost. */
static void insert_gap(struct load_sequence *sequence, uint32_t index, struct load_sequence_gap gap)
{
    if (sequence->gap_count == LOAD_SEQUENCE_GAPS_MAX) {
        sequence->lost += sequence->gaps[0].end - sequence->gaps[0].first;
        remove_gap(sequence, 0);
        index -= index > 0;
    }
    memmove(&sequence->gaps[index + 1], &sequence->gaps[index], (sequence->gap_count - index) * sizeof *sequence->gaps);
    sequence->gaps[index] = gap;
    sequence->gap_count++;
}

/* Takes `number` out of the gap it lies in; false when it lies in none. */
static bool fill_gap(struct load_sequence *sequence, uint32_t number)
{
    for (uint32_t i = sequence->gap_count; i-- > 0;) {
        struct load_sequence_gap *gap = &sequence->gaps[i];
        if (number >= gap->end)
            return false;
        if (number < gap->first)
            continue;
        struct load_sequence_gap rest = {number + 1, gap->end};
        gap->end = number;
        bool front = gap->first < gap->end, back = rest.first < rest.end;
        if (front && back)
            insert_gap(sequence, i + 1, rest);
        else if (back)
            *gap = rest;
        else if (!front)
            remove_gap(sequence, i);
        return true;
    }
    return false;
}

void load_sequence_slow(struct load_sequence *sequence, uint32_t number)
{
    if (number >= sequence->next) {
        if (number > sequence->next)
            insert_gap(sequence, sequence->gap_count, (struct load_sequence_gap){sequence->next, number});
        sequence->next = number + 1;
        sequence->received++;
    } else if (fill_gap(sequence, number)) {
        sequence->late++;
        sequence->received++;
    } else {
        sequence->duplicates++;
    }
}

uint64_t load_sequence_missing(const struct load_sequence *sequence, uint32_t sent)
{
    uint64_t missing = sequence->lost;
    for (uint32_t i = 0; i < sequence->gap_count; i++)
        missing += sequence->gaps[i].end - sequence->gaps[i].first;
    return missing + (sent > sequence->next ? sent - sequence->next : 0);
}
