#include "journal/compress.h"

#include <zstd.h>

#include "base/error.h"

static ZSTD_CCtx *context_of(struct compressor *compressor)
{
    return (ZSTD_CCtx *)(void *)compressor;
}

struct compressor *compressor_create(int level)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    if (context && ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level))) {
        ZSTD_freeCCtx(context);
        return NULL;
    }
    return (struct compressor *)(void *)context;
}

void compressor_destroy(struct compressor *compressor)
{
    ZSTD_freeCCtx(context_of(compressor));
}

struct decompressor *decompressor_create(void)
{
    return (struct decompressor *)(void *)ZSTD_createDCtx();
}

void decompressor_destroy(struct decompressor *decompressor)
{
    ZSTD_freeDCtx((ZSTD_DCtx *)(void *)decompressor);
}

size_t compress_bound(size_t size)
{
    return ZSTD_compressBound(size);
}

size_t compress(struct compressor *compressor, uint8_t *out, size_t capacity, const uint8_t *in, size_t size)
{
    size_t length = ZSTD_compress2(context_of(compressor), out, capacity, in, size);
    return ZSTD_isError(length) ? 0 : length;
}

int decompress(struct decompressor *decompressor, uint8_t *out, size_t size, const uint8_t *in, size_t in_size)
{
    size_t length = ZSTD_decompressDCtx((ZSTD_DCtx *)(void *)decompressor, out, size, in, in_size);
    return ZSTD_isError(length) || length != size ? ERR_CORRUPT : 0;
}
