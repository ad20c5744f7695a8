#include "pipeline/set_name.h"

#include <string.h>

#include "base/hash.h"

uint64_t set_key_hash(const char *key, uint32_t key_length)
{
    return hash_bytes(key, key_length, 0);
}

uint64_t set_stamp_hash(const struct set_name *name)
{
    return hash_bytes(name->stamp, strlen(name->stamp), name->key_hash);
}

uint64_t set_id_hash(const struct set_name *name)
{
    return hash_bytes(name->id, strlen(name->id), set_stamp_hash(name));
}
