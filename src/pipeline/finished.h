/* The answered sets that a lane remembers, so that a repeat of one of their messages is known for what it is.
 *
 * Entries leave in the order in which they came: when there are more than count_max, or when finished_trim says that they are too
 * old. A look-up costs the same however many sets share a key and stamp. `sequence` numbers the answers of all lanes together, so that
 * trimming by it keeps the same span in each. Pure; one owner. */
#ifndef PIPELINE_FINISHED_H
#define PIPELINE_FINISHED_H

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "pipeline/hash_table.h"
#include "pipeline/set_name.h"
#include "pipeline/stage.h"

/* All finished sets of one key and stamp: what a message without id is looked up in. */
struct finished_stamp {
    struct hash_node node;
    uint32_t set_count, side_counts[STAGE_SIDES_MAX]; /* sets, and those of them that had the side */
    uint32_t key_length;
    const char *key, *text; /* in the same block */
};

struct finished_set {
    struct hash_node node; /* by key, stamp and id */
    TAILQ_ENTRY(finished_set) order;
    struct finished_stamp *of_stamp;
    uint64_t sequence;
    unsigned sides; /* bit mask of those that it had */
    char id[];
};

struct finished {
    struct hash_table ids, stamps;
    TAILQ_HEAD(finished_list, finished_set) order; /* oldest first */
    uint32_t count_max;
};

void finished_init(struct finished *finished, uint32_t count_max);
void finished_fini(struct finished *finished);

/* Remembers a set; sequences never fall. Returns 0 or ERR_NO_MEMORY. */
int finished_add(struct finished *finished, uint64_t sequence, const struct set_name *name, unsigned sides);

enum finished_match {
    FINISHED_SAME_ID, /* only sets whose id is known and equal */
    FINISHED_ANY_FIT  /* also those whose id, or the asked one, is unknown */
};

/* Whether a message of this name and side belongs to a finished set: bits of enum finished_found. Both are set when several sets fit. */
enum finished_found { FINISHED_WITH_SIDE = 1, FINISHED_WITHOUT_SIDE = 2 };
unsigned finished_find(const struct finished *finished, const struct set_name *name, unsigned side, enum finished_match match);

/* Forgets all sets with a sequence below this. Returns how many. */
size_t finished_trim(struct finished *finished, uint64_t sequence);

/* Sequence of the oldest set; UINT64_MAX when there is none. */
uint64_t finished_oldest(const struct finished *finished);

static inline size_t finished_count(const struct finished *finished)
{
    return finished->ids.count;
}

#endif
