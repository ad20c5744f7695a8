/* A JSON object that is read, not written: by paths such as "journal.sync_s.p50", or "removed.0" for the first item of an array. */
#ifndef CLI_JSON_TREE_H
#define CLI_JSON_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_TREE_WHY_MAX = 256 };

struct json_tree;

/* ERR_INVALID, with a sentence for a person, when it is no JSON object. */
int json_tree_read(struct json_tree **tree, const void *bytes, size_t length, char why[JSON_TREE_WHY_MAX]);
void json_tree_free(struct json_tree *tree); /* accepts NULL */

/* The first key at the top that is none of `known` (ended by NULL); NULL when there is none. */
const char *json_tree_unknown(const struct json_tree *tree, const char *const *known);

bool json_tree_has(const struct json_tree *tree, const char *path); /* null counts as absent */

/* NULL, or false with *value as it was, when there is nothing of that type. A count is a whole number from 0. */
const char *json_tree_text(const struct json_tree *tree, const char *path);
bool json_tree_number(const struct json_tree *tree, const char *path, double *value);
bool json_tree_count(const struct json_tree *tree, const char *path, uint64_t *value);
bool json_tree_flag(const struct json_tree *tree, const char *path, bool *value);

#endif
