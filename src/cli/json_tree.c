#include "cli/json_tree.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { PATH_MAX_BYTES = 128 };

/* A tree is its root. */
static const json_t *root_of(const struct json_tree *tree)
{
    return (const json_t *)(const void *)tree;
}

int json_tree_read(struct json_tree **tree, const void *bytes, size_t length, char why[JSON_TREE_WHY_MAX])
{
    json_error_t error;
    json_t *root = json_loadb(length ? bytes : "", length, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        snprintf(why, JSON_TREE_WHY_MAX, "not JSON: %s (line %d, column %d)", error.text, error.line, error.column);
        return ERR_INVALID;
    }
    if (!json_is_object(root)) {
        json_decref(root);
        snprintf(why, JSON_TREE_WHY_MAX, "expected a JSON object");
        return ERR_INVALID;
    }
    *tree = (struct json_tree *)(void *)root;
    return 0;
}

void json_tree_free(struct json_tree *tree)
{
    json_decref((json_t *)(void *)tree);
}

const char *json_tree_unknown(const struct json_tree *tree, const char *const *known)
{
    json_t *root = (json_t *)(uintptr_t)root_of(tree);
    for (void *at = json_object_iter(root); at; at = json_object_iter_next(root, at)) {
        unsigned i = 0;
        while (known[i] && strcmp(known[i], json_object_iter_key(at)) != 0)
            i++;
        if (!known[i])
            return json_object_iter_key(at);
    }
    return NULL;
}

static const json_t *find(const struct json_tree *tree, const char *path)
{
    const json_t *at = root_of(tree);
    char names[PATH_MAX_BYTES], *rest = names;
    snprintf(names, sizeof names, "%s", path);
    for (char *name; at && (name = strsep(&rest, "."));)
        at = json_is_array(at) ? json_array_get(at, strtoul(name, NULL, 10)) : json_object_get(at, name);
    return at;
}

bool json_tree_has(const struct json_tree *tree, const char *path)
{
    const json_t *value = find(tree, path);
    return value && !json_is_null(value);
}

const char *json_tree_text(const struct json_tree *tree, const char *path)
{
    return json_string_value(find(tree, path));
}

bool json_tree_number(const struct json_tree *tree, const char *path, double *value)
{
    const json_t *found = find(tree, path);
    if (!json_is_number(found))
        return false;
    *value = json_number_value(found);
    return true;
}

bool json_tree_count(const struct json_tree *tree, const char *path, uint64_t *value)
{
    const json_t *found = find(tree, path);
    if (!json_is_integer(found) || json_integer_value(found) < 0)
        return false;
    *value = (uint64_t)json_integer_value(found);
    return true;
}

bool json_tree_flag(const struct json_tree *tree, const char *path, bool *value)
{
    const json_t *found = find(tree, path);
    if (!json_is_boolean(found))
        return false;
    *value = json_is_true(found);
    return true;
}
