/* The file of users: a line each, NAME:HASH, as `spindle passwd` writes it. Empty lines and those that begin with # mean nothing.
 *
 * A line that cannot be read is a mistake of the whole file: a user who silently does not exist is looked for in the wrong place. */
#ifndef ACCESS_USERS_H
#define ACCESS_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "access/password.h"
#include "config/problems.h"

enum {
    USERS_FILE_BYTES_MAX = 32 << 20,
    USERS_MAX = 100000,
    USERS_NAME_MAX = 256 /* bytes of a name, without its zero */
};

struct user_row {
    const char *name, *hash; /* zero-terminated */
};

struct users {
    struct user_row *rows; /* [count], by name */
    size_t count;
    char *text;                    /* behind the rows */
    char decoy[PASSWORD_HASH_MAX]; /* of the price of the first user's hash */
};

/* Whether a user can be called so: 1 to USERS_NAME_MAX bytes of showable UTF-8 without ':', and not beginning with '#'. */
bool users_name_valid(const char *name, size_t length);

/* Reads `length` bytes. Mistakes go to `problems` with `source` as the place. Returns 0 with *users to give to users_fini; ERR_CONFIG when
 * there was a mistake; ERR_NO_MEMORY. Pure. */
int users_parse(struct users *users, const char *source, const char *text, size_t length, struct problems *problems);

/* The same of a file; that it cannot be read is a mistake too. */
int users_read(struct users *users, const char *path, struct problems *problems);
void users_fini(struct users *users); /* accepts one of zeros */

/* The hash of a user; NULL: there is none. */
const char *users_find(const struct users *users, const char *name, size_t length);

/* Gives a user this hash, or with NULL removes them, and puts a new file in place of the old one in one step (written, synced, renamed;
 * readable by its owner alone, who stays). What else stands in the file stays as it is. One that is missing is made. *existed gets whether
 * the user was there before. Returns 0, ERR_NOT_FOUND (to be removed, and not there; nothing was changed) or what the system says. */
int users_change(const char *path, const char *name, const char *hash, bool *existed);

#endif
