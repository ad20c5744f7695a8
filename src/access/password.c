/* The one file that knows libsodium. */
#include "access/password.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

_Static_assert(PASSWORD_HASH_MAX == crypto_pwhash_STRBYTES, "a hash fits");
_Static_assert(PASSWORD_DIGEST_SIZE == crypto_generichash_BYTES, "a digest fits");

int password_init(void)
{
    return sodium_init() < 0 ? ERR_IO : 0;
}

int password_hash(const void *password, size_t length, char hash[PASSWORD_HASH_MAX])
{
    if (length > crypto_pwhash_PASSWD_MAX)
        return ERR_INVALID;
    char made[PASSWORD_HASH_MAX];
    if (crypto_pwhash_str_alg(made, password, length, PASSWORD_PASSES, (size_t)PASSWORD_MEMORY_KIB << 10, crypto_pwhash_ALG_ARGON2ID13))
        return ERR_NO_MEMORY;
    memcpy(hash, made, PASSWORD_HASH_MAX);
    return 0;
}

/* Reads the parameters of "$argon2id$v=19$m=19456,t=2,p=1$SALT$TAG"; *tail gets where the salt begins. */
static bool read_price(const char *hash, unsigned *memory_kib, unsigned *passes, int *tail)
{
    unsigned lanes;
    *tail = 0;
    return sscanf(hash, "$argon2id$v=19$m=%7u,t=%7u,p=%7u$%n", memory_kib, passes, &lanes, tail) == 3 && *tail && lanes == 1;
}

bool password_hash_valid(const char *hash, size_t length)
{
    char text[PASSWORD_HASH_MAX];
    unsigned memory_kib, passes;
    int tail;
    if (length >= sizeof text || memchr(hash, 0, length))
        return false;
    memcpy(text, hash, length);
    text[length] = 0;
    if (!read_price(text, &memory_kib, &passes, &tail) || memory_kib < 8 || memory_kib > PASSWORD_MEMORY_KIB_MAX || passes < 1 ||
        passes > PASSWORD_PASSES_MAX)
        return false;
    /* The library reads a hash strictly, but says only of one of this price whether it can: ask for a price that none has. */
    return crypto_pwhash_str_needs_rehash(text, PASSWORD_PASSES_MAX + 1, crypto_pwhash_MEMLIMIT_MIN) == 1;
}

bool password_matches(const char *hash, const void *password, size_t length)
{
    return length <= crypto_pwhash_PASSWD_MAX && crypto_pwhash_str_verify(hash, password, length) == 0;
}

void password_decoy(const char *like, char hash[PASSWORD_HASH_MAX])
{
    unsigned memory_kib = PASSWORD_MEMORY_KIB, passes = PASSWORD_PASSES;
    uint8_t salt[crypto_pwhash_SALTBYTES], tag[32];
    char salt_text[32], tag_text[48];
    int tail;
    if (like && !read_price(like, &memory_kib, &passes, &tail)) {
        memory_kib = PASSWORD_MEMORY_KIB;
        passes = PASSWORD_PASSES;
    }
    randombytes_buf(salt, sizeof salt);
    randombytes_buf(tag, sizeof tag);
    sodium_bin2base64(salt_text, sizeof salt_text, salt, sizeof salt, sodium_base64_VARIANT_ORIGINAL_NO_PADDING);
    sodium_bin2base64(tag_text, sizeof tag_text, tag, sizeof tag, sodium_base64_VARIANT_ORIGINAL_NO_PADDING);
    memset(hash, 0, PASSWORD_HASH_MAX);
    snprintf(hash, PASSWORD_HASH_MAX, "$argon2id$v=19$m=%u,t=%u,p=1$%s$%s", memory_kib, passes, salt_text, tag_text);
}

void password_digest(const uint8_t key[PASSWORD_DIGEST_SIZE], const char *name, const char *hash, const void *password, size_t length,
                     uint8_t digest[PASSWORD_DIGEST_SIZE])
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, key, PASSWORD_DIGEST_SIZE, PASSWORD_DIGEST_SIZE);
    crypto_generichash_update(&state, (const uint8_t *)name, strlen(name) + 1); /* the zeros keep the parts apart */
    crypto_generichash_update(&state, (const uint8_t *)hash, strlen(hash) + 1);
    crypto_generichash_update(&state, password, length);
    crypto_generichash_final(&state, digest, PASSWORD_DIGEST_SIZE);
    sodium_memzero(&state, sizeof state);
}

bool password_digest_equal(const uint8_t *one, const uint8_t *other)
{
    return sodium_memcmp(one, other, PASSWORD_DIGEST_SIZE) == 0;
}

void password_random(void *bytes, size_t length)
{
    randombytes_buf(bytes, length);
}

void password_wipe(void *bytes, size_t length)
{
    sodium_memzero(bytes, length);
}
