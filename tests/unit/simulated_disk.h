/* A disk in memory that fails on purpose: the table of journal/disk.h over a model of what is durable and what is not.
 *
 * What a crash leaves. For each file the disk keeps what its readers see, what is durable, and in between the list of what was done since
 * the last sync: pages written (4 KiB, as they were after each write) and changes of size. After a crash
 * - of the pages any subset is on disk, in any of their versions; some are torn, that is, a part of their sectors (512 bytes) is old;
 * - of the changes of size a beginning of the list has happened, as in a journalling file system. What a survived size spans and no
 *   survived page fills is zeros; what lies behind it is gone;
 * - names made, renamed and removed in a folder since its last sync_folder: a subset in which everything that touched the same file or
 *   the same name before has happened too. A file or folder whose name did not survive is gone with all that is in it.
 * So a sync of a file makes no name durable, and a sync of a folder no content. How much survives is drawn anew for each crash: nothing,
 * everything, or anything between.
 *
 * What fails. A hook is asked before each call and may make it fail. A write that fails has still written a part. After a sync that fails
 * its pages are clean: readers see them as long as the disk runs, nobody will ever write them, and a part of them is lost; each handle that
 * was open is told once, by its next sync, as Linux does. A sync of a folder that fails has done nothing; the next may. A disk that is full
 * refuses new files, and bytes in places that hold none yet. Transfers can be short. A page can be made unreadable, a bit can be flipped.
 *
 * Everything is drawn from the seed: the same calls have the same effects. One thread at a time. */
#ifndef TESTS_UNIT_SIMULATED_DISK_H
#define TESTS_UNIT_SIMULATED_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/random.h"
#include "journal/disk.h"

enum { SIMULATED_PAGE_SIZE = 4096, SIMULATED_SECTOR_SIZE = 512, SIMULATED_PATH_MAX = 256 };

enum simulated_kind {
    SIMULATED_OPEN,
    SIMULATED_CREATE,
    SIMULATED_WRITE,
    SIMULATED_READ,
    SIMULATED_SYNC,
    SIMULATED_TRUNCATE,
    SIMULATED_RENAME,
    SIMULATED_REMOVE,
    SIMULATED_MAKE_FOLDER,
    SIMULATED_SYNC_FOLDER,
    SIMULATED_LIST,
    SIMULATED_SPACE
};

struct simulated_call {
    enum simulated_kind kind;
    const char *path; /* of a file that was removed: its last */
    const char *to;   /* of a rename */
    uint64_t position, bytes;
};

struct simulated_hooks {
    /* Before a call has effect; 0, or the negative errno with which it fails. May be NULL. */
    int (*before)(void *context, const struct simulated_call *call);
    /* After a call that could have changed what is on disk (not open, read, list and space). May be NULL. */
    void (*after)(void *context, const struct simulated_call *call);
    void *context;
};

struct simulated_disk;

/* An empty disk with the folder "/". */
struct simulated_disk *simulated_disk_create(uint64_t seed);
void simulated_disk_destroy(struct simulated_disk *disk);
struct disk *simulated_disk_table(struct simulated_disk *disk);

void simulated_disk_set_hooks(struct simulated_disk *disk, const struct simulated_hooks *hooks);

/* One transfer in `one_in` is short; 0: none. */
void simulated_disk_set_short(struct simulated_disk *disk, uint32_t one_in);

/* The next `calls` calls that need space are refused. */
void simulated_disk_fill(struct simulated_disk *disk, unsigned calls);

/* What it says of its space from now on, whatever is written; at first there is no end to it. */
void simulated_disk_set_space(struct simulated_disk *disk, uint64_t free_bytes, uint64_t total_bytes);
unsigned simulated_disk_space_looks(const struct simulated_disk *disk); /* how often it was asked */

/* The disk that is found after a crash at this moment; its caller's. Takes no hooks and no faults along. */
struct simulated_disk *simulated_disk_crash(const struct simulated_disk *disk, uint64_t seed);

/* The process that uses the disk is gone, the machine is not: closes all handles. Until simulated_disk_revive nothing that is
 * called has an effect or succeeds, so that what the process held can be freed. */
void simulated_disk_kill(struct simulated_disk *disk);
void simulated_disk_revive(struct simulated_disk *disk);

/* The size that readers see; negative when there is no such file. */
int64_t simulated_disk_file_size(const struct simulated_disk *disk, const char *path);

/* Changes a bit, on the disk and for readers. `bit` counts from the file's beginning and must lie within it. */
void simulated_disk_flip(struct simulated_disk *disk, const char *path, uint64_t bit);

/* Reads that touch the page of this byte fail with EIO from now on; one that begins before it is short. Until it is
 * written over, or healed. */
void simulated_disk_make_unreadable(struct simulated_disk *disk, const char *path, uint64_t position);
void simulated_disk_heal(struct simulated_disk *disk, const char *path);

#endif
