#include "simulate/simulate_ledger.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Fates of holes without a slot; below FATE_FIRST it is the slot. A lost hole keeps which sides of its answer have come. */
#define FATE_FIRST     UINT32_C(0xfffffff0)
#define FATE_ANSWERED  UINT32_C(0xfffffff0)
#define FATE_MALFORMED UINT32_C(0xfffffff1)
#define FATE_LOST      UINT32_C(0xfffffff8) /* + enum simulate_answer_side */

enum { FATES_FIRST_CAPACITY = 1024 };

int simulate_ledger_init(struct simulate_ledger *ledger, size_t capacity)
{
    if (capacity < 1 || capacity > SIMULATE_SLOTS_MAX)
        return ERR_INVALID;
    struct simulate_ledger new = {.capacity = capacity};
    new.holes = calloc(capacity, sizeof *new.holes);
    new.free_slots = calloc(capacity, sizeof *new.free_slots);
    if (!new.holes || !new.free_slots) {
        simulate_ledger_fini(&new);
        return ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < capacity; i++)
        new.free_slots[new.free_count++] = (uint32_t)(capacity - 1 - i);
    *ledger = new;
    return 0;
}

void simulate_ledger_fini(struct simulate_ledger *ledger)
{
    free(ledger->holes);
    free(ledger->free_slots);
    free(ledger->fates);
    *ledger = (struct simulate_ledger){0};
}

static bool grow_fates(struct simulate_ledger *ledger)
{
    if (ledger->issued < ledger->fates_capacity)
        return true;
    if (ledger->issued >= SIMULATE_HOLES_MAX)
        return false;
    size_t capacity = ledger->fates_capacity ? ledger->fates_capacity * 2 : FATES_FIRST_CAPACITY;
    uint32_t *fates = realloc(ledger->fates, capacity * sizeof *fates);
    if (!fates)
        return false;
    ledger->fates = fates;
    ledger->fates_capacity = capacity;
    return true;
}

struct simulate_hole *simulate_ledger_open(struct simulate_ledger *ledger, bool malformed)
{
    if (ledger->free_count == 0 || !grow_fates(ledger))
        return NULL;
    uint32_t slot = ledger->free_slots[--ledger->free_count];
    ledger->fates[ledger->issued++] = slot;
    ledger->unanswered += !malformed;
    ledger->holes[slot] = (struct simulate_hole){.result_id = ledger->issued, .malformed = malformed, .in_use = true};
    return &ledger->holes[slot];
}

enum simulate_fate simulate_ledger_find(const struct simulate_ledger *ledger, uint32_t result_id, struct simulate_hole **hole)
{
    *hole = NULL;
    if (result_id < 1 || result_id > ledger->issued)
        return SIMULATE_FOREIGN;
    uint32_t fate = ledger->fates[result_id - 1];
    if (fate == FATE_ANSWERED)
        return SIMULATE_ANSWERED;
    if (fate == FATE_MALFORMED)
        return SIMULATE_MALFORMED;
    if (fate >= FATE_LOST)
        return SIMULATE_LOST;
    struct simulate_hole *found = &ledger->holes[fate];
    if (found->given_up)
        return SIMULATE_LOST;
    *hole = found;
    if (found->malformed)
        return SIMULATE_MALFORMED;
    return SIMULATE_OPEN;
}

bool simulate_ledger_answer(struct simulate_ledger *ledger, struct simulate_hole *hole, enum simulate_answer_side side)
{
    if (hole->answers & side)
        return false;
    hole->answers = (uint8_t)(hole->answers | side);
    if (hole->answers == SIMULATE_BOTH) {
        ledger->answered++;
        ledger->unanswered--;
    }
    return true;
}

bool simulate_ledger_recover(struct simulate_ledger *ledger, uint32_t result_id, enum simulate_answer_side side)
{
    assert(result_id >= 1 && result_id <= ledger->issued);
    uint32_t fate = ledger->fates[result_id - 1], answers;
    struct simulate_hole *hole = fate < FATE_FIRST ? &ledger->holes[fate] : NULL;
    if (hole) {
        hole->answers = (uint8_t)(hole->answers | side);
        answers = hole->answers;
    } else {
        ledger->fates[result_id - 1] = fate | side;
        answers = ledger->fates[result_id - 1] & SIMULATE_BOTH;
    }
    if (answers != SIMULATE_BOTH)
        return false;
    if (hole)
        hole->given_up = false;
    else
        ledger->fates[result_id - 1] = FATE_ANSWERED;
    ledger->lost--;
    ledger->answered++;
    ledger->recovered++;
    return true;
}

void simulate_ledger_give_up(struct simulate_ledger *ledger, struct simulate_hole *hole)
{
    assert(!hole->malformed && !hole->given_up && hole->answers != SIMULATE_BOTH);
    hole->given_up = true;
    ledger->lost++;
    ledger->unanswered--;
}

bool simulate_ledger_settle(struct simulate_ledger *ledger, struct simulate_hole *hole)
{
    bool answered = hole->answers == SIMULATE_BOTH;
    if (hole->waiting > 0 || !(answered || hole->given_up || hole->malformed))
        return false;
    uint32_t *fate = &ledger->fates[hole->result_id - 1];
    ledger->free_slots[ledger->free_count++] = *fate;
    *fate = hole->malformed ? FATE_MALFORMED : answered ? FATE_ANSWERED : FATE_LOST | hole->answers;
    hole->in_use = false;
    return true;
}
