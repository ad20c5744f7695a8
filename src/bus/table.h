/* Private to bus/: a hash table of pointers, open addressing with linear probing. It knows nothing of its items but their hashes;
 * the caller says which one is meant. */
#ifndef BUS_TABLE_H
#define BUS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

/* ---- hashing: multiply and fold, with a secret seed so that nobody can choose colliding topics ---- */

__extension__ typedef unsigned __int128 table_wide;

static inline uint64_t table_mix(uint64_t a, uint64_t b)
{
    table_wide product = (table_wide)(a ^ UINT64_C(0x9e3779b97f4a7c15)) * (b ^ UINT64_C(0xd1b54a32d192ed03));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t table_load(const char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* Fewer than eight bytes as one word; bytes that stand in it twice do no harm because the length is hashed too. */
static inline uint64_t table_load_few(const char *at, size_t length)
{
    if (length >= 4) {
        uint32_t first, last;
        memcpy(&first, at, sizeof first);
        memcpy(&last, at + length - sizeof last, sizeof last);
        return (uint64_t)last << 32 | first;
    }
    if (length == 0)
        return 0;
    return (uint64_t)(uint8_t)at[0] << 16 | (uint64_t)(uint8_t)at[length / 2] << 8 | (uint8_t)at[length - 1];
}

static inline uint64_t table_hash(uint64_t seed, const char *bytes, size_t length)
{
    uint64_t hash = table_mix(seed, length);
    if (length < 8)
        return table_mix(hash, table_load_few(bytes, length));
    for (size_t i = 0; i + 8 < length; i += 8)
        hash = table_mix(hash, table_load(bytes + i));
    return table_mix(hash, table_load(bytes + length - 8));
}

#endif
