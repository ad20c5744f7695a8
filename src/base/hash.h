/* The one hash of keys: XXH3, 64 bits. Not for secrets. On disk it stands in the notes of ingest/notes.h alone, as the name of
 * a session or of a way out. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* `seed` chains: hash_bytes(b, m, hash_bytes(a, n, 0)) depends on both parts and on where the first ends. */
uint64_t hash_bytes(const void *bytes, size_t count, uint64_t seed);

#endif
