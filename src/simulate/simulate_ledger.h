/* What became of every hole that was sent. Pure: no clock, no I/O.
 *
 * A hole in work has a slot, of which there are a fixed number; that bounds memory and what a server is asked to hold. Of a hole that is
 * finished four bytes stay, so that a late or second answer is known for what it is. */
#ifndef SIMULATE_SIMULATE_LEDGER_H
#define SIMULATE_SIMULATE_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "simulate/simulator_messages.h"

enum { SIMULATE_SLOTS_MAX = 1 << 20, SIMULATE_HOLES_MAX = 1 << 28 };

enum simulate_answer_side { SIMULATE_KEYPOINTS = 1, SIMULATE_DEPTHS = 2, SIMULATE_BOTH = 3 };

struct simulate_hole {
    uint32_t result_id; /* 1, 2, 3 … through the whole run */
    uint32_t tool, curve;
    uint64_t stamp_s;         /* SourceTimestamp, Unix seconds */
    uint64_t last_message_ns; /* when the last of its messages was due, or left; late heads do not count */
    uint64_t quiet_ns;        /* since when nothing is missing but its answer */
    uint32_t outages;         /* how often the receiver had been cut off when it was sent */
    uint16_t waiting;         /* messages that are not sent, or not acknowledged */
    uint8_t messages;         /* mask of enum simulator_message: what belongs to it */
    uint8_t acknowledged;     /* of these */
    uint8_t answers;          /* mask of enum simulate_answer_side */
    uint8_t malformed_kind;
    bool late_heads, no_heads, malformed, given_up, error_answer, in_use;
};

enum simulate_fate { SIMULATE_FOREIGN, SIMULATE_OPEN, SIMULATE_ANSWERED, SIMULATE_LOST, SIMULATE_MALFORMED };

struct simulate_ledger {
    struct simulate_hole *holes; /* [capacity], owned */
    uint32_t *free_slots;        /* [free_count], owned */
    uint32_t *fates;             /* [fates_capacity], of ResultId 1 ..: a slot, or FATE_ + enum simulate_fate; owned */
    size_t capacity, free_count, fates_capacity;
    uint32_t issued;                    /* ResultIds given out */
    uint32_t unanswered;                /* holes in work whose answer is not complete; malformed ones do not count */
    uint64_t answered, lost, recovered; /* recovered: answered after they had been given up; they no longer count as lost */
};

/* 1 .. SIMULATE_SLOTS_MAX slots. Returns 0, ERR_INVALID or ERR_NO_MEMORY. */
int simulate_ledger_init(struct simulate_ledger *ledger, size_t capacity);
void simulate_ledger_fini(struct simulate_ledger *ledger); /* accepts all zero */

/* Opens a hole with the next ResultId. Returns it, in a slot; NULL when all slots are in use, SIMULATE_HOLES_MAX is reached, or memory
 * is short. The caller fills what is not about the slot. */
struct simulate_hole *simulate_ledger_open(struct simulate_ledger *ledger, bool malformed);

static inline uint32_t simulate_ledger_slot(const struct simulate_ledger *ledger, const struct simulate_hole *hole)
{
    return (uint32_t)(hole - ledger->holes);
}

/* What is known of a ResultId; *hole is set for SIMULATE_OPEN and, while it has its slot, for SIMULATE_MALFORMED; else NULL. */
enum simulate_fate simulate_ledger_find(const struct simulate_ledger *ledger, uint32_t result_id, struct simulate_hole **hole);

/* One side of an answer has come for an open hole. Returns true when it is new, false for a repeat. Both sides make it answered. */
bool simulate_ledger_answer(struct simulate_ledger *ledger, struct simulate_hole *hole, enum simulate_answer_side side);

/* A side has come for a hole that had been given up. True when it counts as answered now. */
bool simulate_ledger_recover(struct simulate_ledger *ledger, uint32_t result_id, enum simulate_answer_side side);

/* Its answer is not waited for any longer. */
void simulate_ledger_give_up(struct simulate_ledger *ledger, struct simulate_hole *hole);

/* Gives the slot back when nothing is waited for: no message and no answer. Returns whether it did. */
bool simulate_ledger_settle(struct simulate_ledger *ledger, struct simulate_hole *hole);

#endif
