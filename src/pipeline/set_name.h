/* What a set is called by: the key of its messages, the stamp that they share, and an id that tells apart what shares both. */
#ifndef PIPELINE_SET_NAME_H
#define PIPELINE_SET_NAME_H

#include <stdint.h>

/* Borrowed texts. */
struct set_name {
    const char *key;
    uint32_t key_length;
    uint64_t key_hash;
    const char *stamp; /* zero-terminated, as `id` */
    const char *id;    /* "" when unknown */
};

uint64_t set_key_hash(const char *key, uint32_t key_length);

/* Of key and stamp, and of all three. */
uint64_t set_stamp_hash(const struct set_name *name);
uint64_t set_id_hash(const struct set_name *name);

#endif
