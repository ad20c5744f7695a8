/* A chained hash table whose nodes lie inside what they index.
 *
 * Several entries may share a hash and even a name (two holes of one tool in one second), and the newest comes first in its
 * chain; both survive growing. That, and that running out of memory is an error and not an exit, is why it is not uthash.
 * It has no limit of its own: whoever adds entries bounds them. One owner. */
#ifndef PIPELINE_HASH_TABLE_H
#define PIPELINE_HASH_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct hash_node {
    struct hash_node *next;
    struct hash_node **link; /* what points at this node; NULL while it is in no table */
    uint64_t hash;
};

struct hash_table {
    struct hash_node **buckets; /* owned; [bucket_count], NULL while nothing was ever added */
    size_t bucket_count;        /* a power of two */
    size_t count;
};

void hash_table_init(struct hash_table *table);
void hash_table_fini(struct hash_table *table); /* frees the buckets; the nodes are their owners' */

/* Adds a node before all others of its hash. Returns 0 or ERR_NO_MEMORY. */
int hash_table_add(struct hash_table *table, struct hash_node *node, uint64_t hash);
void hash_table_remove(struct hash_table *table, struct hash_node *node); /* nothing happens when it is in no table */

/* The newest node of this hash, and the next older one; NULL at the end. */
struct hash_node *hash_table_first(const struct hash_table *table, uint64_t hash);
struct hash_node *hash_node_next(const struct hash_node *node);

#endif
