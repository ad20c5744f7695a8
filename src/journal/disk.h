/* The disk as the journal sees it: one small table of functions, so that a test can put a failing disk in its place.
 *
 * Every function returns a negative errno on failure, but never -EINTR: it goes on. Paths are zero-terminated. Handles are small
 * non-negative numbers. */
#ifndef JOURNAL_DISK_H
#define JOURNAL_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum disk_open { DISK_READ, DISK_WRITE, DISK_CREATE }; /* CREATE: for reading and writing, made when missing */

struct disk;

struct disk_ops {
    int (*open)(struct disk *disk, const char *path, enum disk_open how);
    void (*close)(struct disk *disk, int file);
    ssize_t (*write)(struct disk *disk, int file, const struct iovec *parts, int part_count, uint64_t position); /* may be short */
    ssize_t (*read)(struct disk *disk, int file, void *bytes, size_t count, uint64_t position); /* may be short; 0 at the end */
    int (*sync)(struct disk *disk, int file);    /* data and what is needed to read it back */
    void (*forget)(struct disk *disk, int file); /* a hint: what is synced need not stay in memory */
    int64_t (*size)(struct disk *disk, int file);
    int (*truncate)(struct disk *disk, int file, uint64_t size);
    int (*rename)(struct disk *disk, const char *from, const char *to);
    int (*remove)(struct disk *disk, const char *path);
    int (*check_name)(struct disk *disk, const char *path, int file); /* -ESTALE: `path` does not name the open file any more */
    int (*make_folder)(struct disk *disk, const char *path);          /* 0 when it exists */
    int (*sync_folder)(struct disk *disk, const char *path);          /* makes creations, renames and removals in it durable */
    int (*list)(struct disk *disk, const char *path, void (*each)(void *context, const char *name), void *context);
    /* Bytes that this process may still take on the file system of the folder, and all that it has. */
    int (*space)(struct disk *disk, const char *path, uint64_t *free_bytes, uint64_t *total_bytes);
    /* Holds the folder for this process until close of the returned handle; -EWOULDBLOCK when another process has it. */
    int (*lock)(struct disk *disk, const char *path);
};

struct disk {
    const struct disk_ops *ops;
};

/* Writes all of it, in as many calls as that takes. Returns 0 or an error of base/error.h. */
int disk_write_fully(struct disk *disk, int file, const void *bytes, size_t count, uint64_t position);

/* The operating system's files. */
struct disk *disk_posix(void);

#endif
