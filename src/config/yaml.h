/* A YAML file as a small tree in which every key and value knows where it stands.
 *
 * What a configuration has no use for is refused by name: anchors, aliases, merge keys, tags, a second document. Size, depth and
 * number of nodes are bounded. */
#ifndef CONFIG_YAML_H
#define CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/problems.h"

enum {
    YAML_TREE_BYTES_MAX = 256 << 10,
    YAML_TREE_DEPTH_MAX = 16,
    YAML_TREE_NODES_MAX = 4096,
    YAML_TREE_KEY_MAX = 128 /* bytes of a key */
};

enum yaml_tree_kind {
    YAML_TREE_SCALAR,
    YAML_TREE_MAPPING,
    YAML_TREE_SEQUENCE,
    YAML_TREE_REFUSED /* stood here, and was reported */
};

struct yaml_tree_node {
    enum yaml_tree_kind kind;
    bool quoted;           /* SCALAR: in quotes or a block, so never null */
    unsigned line, column; /* from 1, in characters */
    const char *text;      /* SCALAR; zero-terminated, but may contain zeros */
    size_t length;
    const char *key; /* within a mapping; zero-terminated, without zeros within */
    unsigned key_line, key_column;
    struct yaml_tree_node *first, *last, *next; /* children in order of appearance, and the next brother */
    struct yaml_tree_node *older;               /* all nodes of the tree */
};

struct yaml_tree {
    struct yaml_tree_node *root; /* NULL when the file holds nothing */
    struct yaml_tree_node *newest;
    size_t node_count;
};

/* Reads `length` bytes. What is wrong goes to `problems` with `source` as the place. Returns 0 with a tree to give to yaml_tree_fini,
 * even when parts of it were refused; ERR_CONFIG when it is no YAML, no UTF-8 or above a limit; ERR_NO_MEMORY. */
int yaml_tree_read(struct yaml_tree *tree, const char *source, const uint8_t *bytes, size_t length, struct problems *problems);
void yaml_tree_fini(struct yaml_tree *tree);

/* Whether a scalar is YAML's null: nothing, `~`, `null`. */
bool yaml_tree_is_null(const struct yaml_tree_node *node);

#endif
