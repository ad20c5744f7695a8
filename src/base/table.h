/* A hash table of pointers, open addressing with linear probing. It knows nothing of its items but their hashes;
 * the caller says which one is meant. */
#ifndef BASE_TABLE_H
#define BASE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table_slot {
    uint64_t hash;
    void *item; /* NULL: free */
};

struct table {
    struct table_slot *slots; /* owned; NULL while empty */
    size_t mask;              /* number of slots - 1 */
    size_t count;
};

enum { TABLE_FIRST_SLOTS = 64 };

/* Makes room for one more; 0, ERR_LIMIT when the slots would pass bytes_max, or ERR_NO_MEMORY. */
int table_reserve(struct table *table, size_t bytes_max);
void table_insert(struct table *table, uint64_t hash, void *item); /* behind table_reserve */
void table_remove(struct table *table, uint64_t hash, const void *item);
void table_fini(struct table *table);

static inline size_t table_bytes(const struct table *table)
{
    return table->slots ? (table->mask + 1) * sizeof *table->slots : 0;
}

/* Inlined with its `same`, so that the comparison is no call. */
static inline void *table_find(const struct table *table, uint64_t hash, bool (*same)(const void *item, const void *key), const void *key)
{
    if (table->count == 0)
        return NULL;
    for (size_t i = hash & table->mask; table->slots[i].item; i = (i + 1) & table->mask)
        if (table->slots[i].hash == hash && same(table->slots[i].item, key))
            return table->slots[i].item;
    return NULL;
}

#endif
