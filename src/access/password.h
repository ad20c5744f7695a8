/* Hashes of passwords, and the keyed digests by which a check that has succeeded is known again (libsodium). */
#ifndef ACCESS_PASSWORD_H
#define ACCESS_PASSWORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PASSWORD_HASH_MAX = 128,        /* bytes of a hash as text, with its zero */
    PASSWORD_MEMORY_KIB = 19 << 10, /* that a hash of this program takes, and its passes: about 20 ms of a processor */
    PASSWORD_PASSES = 2,
    PASSWORD_MEMORY_KIB_MAX = 64 << 10, /* of a hash that another program has made; a dearer one is refused */
    PASSWORD_PASSES_MAX = 10,
    PASSWORD_DIGEST_SIZE = 32
};

/* Before all others, once or more often. Returns 0, or ERR_IO when the system has no randomness. */
int password_init(void);

/* The argon2id hash of a password, as text. Returns 0, ERR_NO_MEMORY, or ERR_INVALID for one longer than the algorithm takes. */
int password_hash(const void *password, size_t length, char hash[PASSWORD_HASH_MAX]);

/* Whether `hash` is one that password_matches can check at a bearable price. */
bool password_hash_valid(const char *hash, size_t length);

/* Whether the password is the one of the hash. Takes as long as the hash wants, tens of ms: never on an event loop. */
bool password_matches(const char *hash, const void *password, size_t length);

/* A hash of the same price as `like` that no password matches: unknown users must not be told from known ones by the time they take. */
void password_decoy(const char *like, char hash[PASSWORD_HASH_MAX]);

/* The digest of (name, hash, password) under a random key of the process. */
void password_digest(const uint8_t key[PASSWORD_DIGEST_SIZE], const char *name, const char *hash, const void *password, size_t length,
                     uint8_t digest[PASSWORD_DIGEST_SIZE]);
bool password_digest_equal(const uint8_t *one, const uint8_t *other); /* in constant time */

void password_random(void *bytes, size_t length);
void password_wipe(void *bytes, size_t length); /* the compiler cannot leave it out */

#endif
