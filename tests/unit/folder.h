/* A folder of its own for a test, removed at the end. */
#ifndef TESTS_UNIT_FOLDER_H
#define TESTS_UNIT_FOLDER_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char test_folder[256];

static inline int test_folder_remove_entry(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    return remove(path);
}

static inline int test_folder_make(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(test_folder, sizeof test_folder, "%s/spindle-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(test_folder) ? 0 : -1;
}

static inline int test_folder_remove(void **state)
{
    (void)state;
    return nftw(test_folder, test_folder_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* What the journal has noted of the ends of its streams is not there: as in the folder of an older version, or where the last notes did not
 * come to the disk before a loss of power. */
static inline void test_folder_forget_ends(void)
{
    char path[sizeof test_folder + 8];
    snprintf(path, sizeof path, "%s/ends", test_folder);
    remove(path);
}

#endif
