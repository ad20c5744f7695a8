#include "pipeline/finished.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

void finished_init(struct finished *finished, uint32_t count_max)
{
    hash_table_init(&finished->ids);
    hash_table_init(&finished->stamps);
    TAILQ_INIT(&finished->order);
    finished->count_max = count_max;
}

/* Frees a stamp without sets. */
static void stamp_put(struct finished *finished, struct finished_stamp *stamp)
{
    if (stamp->set_count)
        return;
    hash_table_remove(&finished->stamps, &stamp->node);
    free(stamp);
}

/* Counts a set in (1) or out (-1). */
static void stamp_count(struct finished_stamp *stamp, unsigned sides, int change)
{
    stamp->set_count += (uint32_t)change;
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++)
        if (sides & 1u << side)
            stamp->side_counts[side] += (uint32_t)change;
}

static void forget(struct finished *finished, struct finished_set *set)
{
    hash_table_remove(&finished->ids, &set->node);
    TAILQ_REMOVE(&finished->order, set, order);
    stamp_count(set->of_stamp, set->sides, -1);
    stamp_put(finished, set->of_stamp);
    free(set);
}

void finished_fini(struct finished *finished)
{
    while (!TAILQ_EMPTY(&finished->order))
        forget(finished, TAILQ_FIRST(&finished->order));
    hash_table_fini(&finished->ids);
    hash_table_fini(&finished->stamps);
}

static struct finished_stamp *stamp_find(const struct finished *finished, const struct set_name *name)
{
    struct hash_node *node = hash_table_first(&finished->stamps, set_stamp_hash(name));
    for (; node; node = hash_node_next(node)) {
        struct finished_stamp *stamp = (struct finished_stamp *)(void *)node;
        if (stamp->key_length == name->key_length && memcmp(stamp->key, name->key, name->key_length) == 0 &&
            strcmp(stamp->text, name->stamp) == 0)
            return stamp;
    }
    return NULL;
}

static struct finished_stamp *stamp_open(struct finished *finished, const struct set_name *name)
{
    size_t text_size = strlen(name->stamp) + 1;
    struct finished_stamp *stamp = malloc(sizeof *stamp + text_size + name->key_length);
    if (!stamp)
        return NULL;
    char *text = (char *)(stamp + 1), *key = text + text_size;
    *stamp = (struct finished_stamp){.key_length = name->key_length, .key = key, .text = text};
    memcpy(text, name->stamp, text_size);
    memcpy(key, name->key, name->key_length);
    if (hash_table_add(&finished->stamps, &stamp->node, set_stamp_hash(name))) {
        free(stamp);
        return NULL;
    }
    return stamp;
}

int finished_add(struct finished *finished, uint64_t sequence, const struct set_name *name, unsigned sides)
{
    if (finished->count_max == 0)
        return 0;
    struct finished_set *newest = TAILQ_LAST(&finished->order, finished_list);
    assert(!newest || newest->sequence <= sequence);
    struct finished_stamp *known = stamp_find(finished, name), *stamp = known ? known : stamp_open(finished, name);
    size_t id_size = strlen(name->id) + 1;
    struct finished_set *set = stamp ? malloc(sizeof *set + id_size) : NULL;
    if (!set || hash_table_add(&finished->ids, &set->node, set_id_hash(name))) {
        if (stamp)
            stamp_put(finished, stamp);
        free(set);
        return ERR_NO_MEMORY;
    }
    set->sequence = sequence;
    set->sides = sides;
    set->of_stamp = stamp;
    memcpy(set->id, name->id, id_size);
    stamp_count(stamp, sides, 1);
    TAILQ_INSERT_TAIL(&finished->order, set, order);
    if (finished->ids.count > finished->count_max)
        forget(finished, TAILQ_FIRST(&finished->order));
    return 0;
}

static unsigned find_id(const struct finished *finished, const struct finished_stamp *stamp, const struct set_name *name, unsigned side)
{
    unsigned found = 0;
    for (struct hash_node *node = hash_table_first(&finished->ids, set_id_hash(name)); node; node = hash_node_next(node)) {
        const struct finished_set *set = (const struct finished_set *)(const void *)node;
        if (set->of_stamp == stamp && strcmp(set->id, name->id) == 0)
            found |= set->sides & 1u << side ? FINISHED_WITH_SIDE : FINISHED_WITHOUT_SIDE;
    }
    return found;
}

unsigned finished_find(const struct finished *finished, const struct set_name *name, unsigned side, enum finished_match match)
{
    const struct finished_stamp *stamp = match == FINISHED_SAME_ID && !*name->id ? NULL : stamp_find(finished, name);
    if (!stamp)
        return 0;
    if (!*name->id)
        return (stamp->side_counts[side] ? FINISHED_WITH_SIDE : 0u) |
               (stamp->side_counts[side] < stamp->set_count ? FINISHED_WITHOUT_SIDE : 0u);
    struct set_name nameless = *name;
    nameless.id = "";
    return find_id(finished, stamp, name, side) | (match == FINISHED_ANY_FIT ? find_id(finished, stamp, &nameless, side) : 0u);
}

size_t finished_trim(struct finished *finished, uint64_t sequence)
{
    size_t count = 0;
    while (!TAILQ_EMPTY(&finished->order) && TAILQ_FIRST(&finished->order)->sequence < sequence) {
        forget(finished, TAILQ_FIRST(&finished->order));
        count++;
    }
    return count;
}

uint64_t finished_oldest(const struct finished *finished)
{
    return TAILQ_EMPTY(&finished->order) ? UINT64_MAX : TAILQ_FIRST(&finished->order)->sequence;
}
