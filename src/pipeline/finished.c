#include "pipeline/finished.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

void finished_init(struct finished *finished, uint32_t count_max)
{
    hash_table_init(&finished->names);
    TAILQ_INIT(&finished->order);
    finished->count_max = count_max;
}

static void forget(struct finished *finished, struct finished_set *set)
{
    hash_table_remove(&finished->names, &set->node);
    TAILQ_REMOVE(&finished->order, set, order);
    free(set);
}

void finished_fini(struct finished *finished)
{
    while (!TAILQ_EMPTY(&finished->order))
        forget(finished, TAILQ_FIRST(&finished->order));
    hash_table_fini(&finished->names);
}

static char *put(char *at, const char *text, size_t length)
{
    memcpy(at, text, length);
    at[length] = 0;
    return at + length + 1;
}

int finished_add(struct finished *finished, uint64_t sequence, const struct set_name *name, unsigned sides)
{
    if (finished->count_max == 0)
        return 0;
    struct finished_set *newest = TAILQ_LAST(&finished->order, finished_list);
    assert(!newest || newest->sequence <= sequence);
    size_t stamp_length = strlen(name->stamp), id_length = strlen(name->id);
    struct finished_set *set = malloc(sizeof *set + name->key_length + stamp_length + id_length + 3);
    if (!set)
        return ERR_NO_MEMORY;
    char *at = (char *)(set + 1);
    *set = (struct finished_set){.sequence = sequence, .sides = sides, .key_length = name->key_length, .key = at};
    at = put(at, name->key, name->key_length);
    set->stamp = at;
    at = put(at, name->stamp, stamp_length);
    set->id = at;
    put(at, name->id, id_length);
    int error = hash_table_add(&finished->names, &set->node, set_name_hash(name));
    if (error) {
        free(set);
        return error;
    }
    TAILQ_INSERT_TAIL(&finished->order, set, order);
    if (finished->names.count > finished->count_max)
        forget(finished, TAILQ_FIRST(&finished->order));
    return 0;
}

static bool is_named(const struct finished_set *set, const struct set_name *name)
{
    return set->key_length == name->key_length && memcmp(set->key, name->key, name->key_length) == 0 &&
           strcmp(set->stamp, name->stamp) == 0;
}

unsigned finished_find(const struct finished *finished, const struct set_name *name, unsigned side, enum finished_match match)
{
    if (finished->names.count == 0 || (match == FINISHED_SAME_ID && !*name->id))
        return 0;
    unsigned found = 0;
    for (struct hash_node *node = hash_table_first(&finished->names, set_name_hash(name)); node; node = hash_node_next(node)) {
        const struct finished_set *set = (const struct finished_set *)(const void *)node;
        if (!is_named(set, name) || !set_ids_fit(set->id, name->id) || (match == FINISHED_SAME_ID && !*set->id))
            continue;
        found |= set->sides & 1u << side ? FINISHED_WITH_SIDE : FINISHED_WITHOUT_SIDE;
    }
    return found;
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
