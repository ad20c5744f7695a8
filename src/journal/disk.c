/* The table of disk.h over POSIX calls. */
#include "journal/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/error.h"

static int posix_open(struct disk *disk, const char *path, enum disk_open how)
{
    (void)disk;
    static const int flags[] = {[DISK_READ] = O_RDONLY, [DISK_WRITE] = O_RDWR, [DISK_CREATE] = O_RDWR | O_CREAT};
    int file;
    do
        file = open(path, flags[how] | O_CLOEXEC, 0640);
    while (file < 0 && errno == EINTR);
    return file < 0 ? -errno : file;
}

static void posix_close(struct disk *disk, int file)
{
    (void)disk;
    close(file);
}

static ssize_t posix_write(struct disk *disk, int file, const struct iovec *parts, int part_count, uint64_t position)
{
    (void)disk;
    ssize_t count;
    do
        count = pwritev(file, parts, part_count, (off_t)position);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

static ssize_t posix_read(struct disk *disk, int file, void *bytes, size_t count, uint64_t position)
{
    (void)disk;
    ssize_t got;
    do
        got = pread(file, bytes, count, (off_t)position);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

static int posix_sync(struct disk *disk, int file)
{
    (void)disk;
    int failed;
    do
        failed = fdatasync(file);
    while (failed && errno == EINTR);
    return failed ? -errno : 0;
}

static void posix_forget(struct disk *disk, int file)
{
    (void)disk;
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
}

static int64_t posix_size(struct disk *disk, int file)
{
    (void)disk;
    struct stat status;
    return fstat(file, &status) ? -errno : status.st_size;
}

static int posix_truncate(struct disk *disk, int file, uint64_t size)
{
    (void)disk;
    int failed;
    do
        failed = ftruncate(file, (off_t)size);
    while (failed && errno == EINTR);
    return failed ? -errno : 0;
}

static int posix_rename(struct disk *disk, const char *from, const char *to)
{
    (void)disk;
    return rename(from, to) ? -errno : 0;
}

static int posix_remove(struct disk *disk, const char *path)
{
    (void)disk;
    return unlink(path) ? -errno : 0;
}

static int posix_check_name(struct disk *disk, const char *path, int file)
{
    (void)disk;
    struct stat named, opened;
    if (fstat(file, &opened))
        return -errno;
    if (stat(path, &named))
        return errno == ENOENT || errno == ENOTDIR ? -ESTALE : -errno;
    return named.st_dev == opened.st_dev && named.st_ino == opened.st_ino ? 0 : -ESTALE;
}

static int posix_make_folder(struct disk *disk, const char *path)
{
    (void)disk;
    if (mkdir(path, 0750) == 0)
        return 0;
    if (errno != EEXIST)
        return -errno;
    struct stat status;
    if (stat(path, &status))
        return -errno;
    return S_ISDIR(status.st_mode) ? 0 : -ENOTDIR;
}

static int posix_sync_folder(struct disk *disk, const char *path)
{
    (void)disk;
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return -errno;
    int failed;
    do
        failed = fsync(folder);
    while (failed && errno == EINTR);
    int error = failed ? -errno : 0;
    close(folder);
    return error;
}

static int posix_list(struct disk *disk, const char *path, void (*each)(void *context, const char *name), void *context)
{
    (void)disk;
    DIR *folder = opendir(path);
    if (!folder)
        return -errno;
    const struct dirent *entry;
    errno = 0;
    while ((entry = readdir(folder)))
        each(context, entry->d_name);
    int error = -errno;
    closedir(folder);
    return error;
}

static int posix_space(struct disk *disk, const char *path, uint64_t *free_bytes, uint64_t *total_bytes)
{
    (void)disk;
    struct statvfs status;
    int failed;
    do
        failed = statvfs(path, &status);
    while (failed && errno == EINTR);
    if (failed)
        return -errno;
    *free_bytes = (uint64_t)status.f_bavail * status.f_frsize;
    *total_bytes = (uint64_t)status.f_blocks * status.f_frsize;
    return 0;
}

static int posix_lock(struct disk *disk, const char *path)
{
    (void)disk;
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return -errno;
    if (flock(folder, LOCK_EX | LOCK_NB)) {
        int error = -errno;
        close(folder);
        return error;
    }
    return folder;
}

int disk_write_fully(struct disk *disk, int file, const void *bytes, size_t count, uint64_t position)
{
    for (size_t done = 0; done < count;) {
        struct iovec part = {(char *)(uintptr_t)bytes + done, count - done};
        ssize_t written = disk->ops->write(disk, file, &part, 1, position + done);
        if (written <= 0)
            return written < 0 ? error_from_errno((int)-written) : ERR_IO;
        done += (size_t)written;
    }
    return 0;
}

struct disk *disk_posix(void)
{
    static const struct disk_ops ops = {
        .open = posix_open,
        .close = posix_close,
        .write = posix_write,
        .read = posix_read,
        .sync = posix_sync,
        .forget = posix_forget,
        .size = posix_size,
        .truncate = posix_truncate,
        .rename = posix_rename,
        .remove = posix_remove,
        .check_name = posix_check_name,
        .make_folder = posix_make_folder,
        .sync_folder = posix_sync_folder,
        .list = posix_list,
        .space = posix_space,
        .lock = posix_lock,
    };
    static struct disk posix = {&ops};
    return &posix;
}
