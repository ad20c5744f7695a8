#include "pipeline/hash_table.h"

#include <stdlib.h>

#include "base/error.h"

enum { BUCKETS_AT_FIRST = 16 };

void hash_table_init(struct hash_table *table)
{
    *table = (struct hash_table){0};
}

void hash_table_fini(struct hash_table *table)
{
    free(table->buckets);
    hash_table_init(table);
}

static void link_at(struct hash_node **link, struct hash_node *node)
{
    node->next = *link;
    node->link = link;
    if (node->next)
        node->next->link = &node->next;
    *link = node;
}

/* Each chain splits in two; walking it in order and appending keeps the newest first. */
static void grow(struct hash_table *table)
{
    size_t old_count = table->bucket_count, count = old_count * 2;
    struct hash_node **buckets = calloc(count, sizeof(struct hash_node *));
    if (!buckets)
        return; /* longer chains, nothing worse */
    for (size_t i = 0; i < old_count; i++) {
        struct hash_node **tails[2] = {&buckets[i], &buckets[i + old_count]};
        struct hash_node *next;
        for (struct hash_node *node = table->buckets[i]; node; node = next) {
            next = node->next;
            unsigned half = (node->hash & old_count) != 0;
            link_at(tails[half], node);
            tails[half] = &node->next;
        }
    }
    free(table->buckets);
    table->buckets = buckets;
    table->bucket_count = count;
}

int hash_table_add(struct hash_table *table, struct hash_node *node, uint64_t hash)
{
    if (!table->buckets) {
        table->buckets = calloc(BUCKETS_AT_FIRST, sizeof(struct hash_node *));
        if (!table->buckets)
            return ERR_NO_MEMORY;
        table->bucket_count = BUCKETS_AT_FIRST;
    } else if (table->count >= table->bucket_count) {
        grow(table);
    }
    node->hash = hash;
    link_at(&table->buckets[hash & (table->bucket_count - 1)], node);
    table->count++;
    return 0;
}

void hash_table_remove(struct hash_table *table, struct hash_node *node)
{
    if (!node->link)
        return;
    *node->link = node->next;
    if (node->next)
        node->next->link = node->link;
    node->next = NULL;
    node->link = NULL;
    table->count--;
}

static struct hash_node *skip_others(struct hash_node *node, uint64_t hash)
{
    while (node && node->hash != hash)
        node = node->next;
    return node;
}

struct hash_node *hash_table_first(const struct hash_table *table, uint64_t hash)
{
    return table->buckets ? skip_others(table->buckets[hash & (table->bucket_count - 1)], hash) : NULL;
}

struct hash_node *hash_node_next(const struct hash_node *node)
{
    return skip_others(node->next, node->hash);
}
