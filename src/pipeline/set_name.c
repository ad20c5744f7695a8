#include "pipeline/set_name.h"

#include <string.h>

#include "base/hash.h"

uint64_t set_key_hash(const char *key, uint32_t key_length)
{
    return hash_bytes(key, key_length, 0);
}

uint64_t set_name_hash(const struct set_name *name)
{
    return hash_bytes(name->stamp, strlen(name->stamp), name->key_hash);
}

bool set_ids_fit(const char *a, const char *b)
{
    return !*a || !*b || strcmp(a, b) == 0;
}
