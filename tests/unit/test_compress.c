/* What is compressed comes out again; what is no such thing is refused. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "journal/compress.h"

enum { SIZE = 100000 };

static void what_is_compressed_comes_out_again(void **state)
{
    (void)state;
    struct compressor *compressor = compressor_create(1);
    struct decompressor *decompressor = decompressor_create();
    size_t capacity = compress_bound(SIZE);
    uint8_t *in = malloc(SIZE), *packed = malloc(capacity), *out = malloc(SIZE);
    for (unsigned i = 0; i < SIZE; i++)
        in[i] = (uint8_t)(i / 64 * 7);
    for (unsigned round = 0; round < 3; round++) {
        size_t size = SIZE >> round, length = compress(compressor, packed, capacity, in, size);
        assert_true(length > 0 && length < size / 10);
        memset(out, 0xaa, SIZE);
        assert_int_equal(decompress(decompressor, out, size, packed, length), 0);
        assert_memory_equal(out, in, size);
    }
    free(in);
    free(packed);
    free(out);
    compressor_destroy(compressor);
    decompressor_destroy(decompressor);
}

static void what_does_not_fit_or_is_damaged_is_refused(void **state)
{
    (void)state;
    struct compressor *compressor = compressor_create(1);
    struct decompressor *decompressor = decompressor_create();
    static const uint8_t in[1000];
    uint8_t packed[2000], out[1001];
    assert_int_equal(compress(compressor, packed, 5, in, sizeof in), 0);
    size_t length = compress(compressor, packed, sizeof packed, in, sizeof in);
    assert_true(length > 5);
    assert_int_equal(decompress(decompressor, out, sizeof in, packed, length - 1), ERR_CORRUPT);
    assert_int_equal(decompress(decompressor, out, sizeof in - 1, packed, length), ERR_CORRUPT);
    assert_int_equal(decompress(decompressor, out, sizeof in + 1, packed, length), ERR_CORRUPT);
    assert_int_equal(decompress(decompressor, out, sizeof in, packed, 0), ERR_CORRUPT);
    packed[0] ^= 1;
    assert_int_equal(decompress(decompressor, out, sizeof in, packed, length), ERR_CORRUPT);
    packed[0] ^= 1;
    assert_int_equal(decompress(decompressor, out, sizeof in, packed, length), 0); /* a failure leaves nothing behind */
    compressor_destroy(compressor);
    decompressor_destroy(decompressor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_compressed_comes_out_again),
        cmocka_unit_test(what_does_not_fit_or_is_damaged_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
