/* Compression of what the journal writes, with zstd. A context is for one thread; making one allocates what its calls need. */
#ifndef JOURNAL_COMPRESS_H
#define JOURNAL_COMPRESS_H

#include <stddef.h>
#include <stdint.h>

struct compressor;
struct decompressor;

/* Level 1 (fastest) to 19. NULL without memory. */
struct compressor *compressor_create(int level);
void compressor_destroy(struct compressor *compressor); /* NULL is allowed, as below */

struct decompressor *decompressor_create(void);
void decompressor_destroy(struct decompressor *decompressor);

/* The size of the output that is large enough for any input of this size. */
size_t compress_bound(size_t size);

/* Returns the size of the output, or 0 when it does not fit into `capacity` or memory is short. */
size_t compress(struct compressor *compressor, uint8_t *out, size_t capacity, const uint8_t *in, size_t size);

/* `size` must be exactly what comes out. Returns 0, or ERR_CORRUPT when the input is no such thing; `out` may then hold anything. */
int decompress(struct decompressor *decompressor, uint8_t *out, size_t size, const uint8_t *in, size_t in_size);

#endif
