/* Names, handles and faults; what becomes of a file's content is simulated_file.c's. See simulated_disk.h for the model. */
#include "simulated_disk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "simulated_file.h"

enum { NAME_MAX_BYTES = 64, HANDLES_MAX = 64 };

struct inode;

struct name {
    char text[NAME_MAX_BYTES];
    struct inode *inode;
};

struct names {
    struct name *list;
    size_t count, capacity;
};

/* A name that was given to an inode (`to`), taken from it (`from`), or both at once, since the folder's last sync. */
struct name_change {
    char from[NAME_MAX_BYTES], to[NAME_MAX_BYTES]; /* empty: none */
    struct inode *inode;
};

struct inode {
    bool is_folder, locked;
    /* A file's. */
    struct simulated_file file;
    unsigned sync_errors; /* so far */
    uint64_t *unreadable; /* [unreadable_count] pages */
    size_t unreadable_count;
    char last_path[SIMULATED_PATH_MAX];
    /* A folder's. */
    struct names seen, kept;
    struct name_change *name_changes;
    size_t name_change_count, name_change_capacity;

    struct inode *next; /* of all inodes of the disk */
    struct inode *copy; /* during a crash */
};

struct handle {
    struct inode *inode; /* NULL: free */
    unsigned sync_errors_seen;
    bool is_lock;
};

struct simulated_disk {
    struct disk table;
    struct random_source random;
    struct inode *root, *inodes;
    struct handle handles[HANDLES_MAX];
    struct simulated_hooks hooks;
    uint32_t short_one_in;
    unsigned full_calls;
    uint64_t free_bytes, total_bytes; /* what it says; it does not count */
    unsigned space_looks;
    bool dead;
};

static struct simulated_disk *from(struct disk *table)
{
    return (struct simulated_disk *)table;
}

/* ---- names ---- */

static struct name *names_find(const struct names *names, const char *text)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->list[i].text, text) == 0)
            return &names->list[i];
    return NULL;
}

static void names_set(struct names *names, const char *text, struct inode *inode)
{
    struct name *name = names_find(names, text);
    if (!name) {
        names->list = simulated_grow(names->list, &names->capacity, names->count, sizeof *names->list);
        name = &names->list[names->count++];
        memset(name, 0, sizeof *name);
        memcpy(name->text, text, strlen(text));
    }
    name->inode = inode;
}

static void names_unset(struct names *names, const char *text, const struct inode *inode)
{
    struct name *name = names_find(names, text);
    if (name && name->inode == inode)
        *name = names->list[--names->count];
}

static void names_change(struct names *names, const struct name_change *change)
{
    if (change->from[0])
        names_unset(names, change->from, change->inode);
    if (change->to[0])
        names_set(names, change->to, change->inode);
}

static void change_name(struct inode *folder, const char *from_name, const char *to_name, struct inode *inode)
{
    struct name_change change = {.inode = inode};
    memcpy(change.from, from_name, strlen(from_name));
    memcpy(change.to, to_name, strlen(to_name));
    names_change(&folder->seen, &change);
    folder->name_changes = simulated_grow(folder->name_changes, &folder->name_change_capacity, folder->name_change_count, sizeof change);
    folder->name_changes[folder->name_change_count++] = change;
}

static bool touches(const struct name_change *a, const struct name_change *b)
{
    const char *const of_a[2] = {a->from, a->to};
    for (unsigned i = 0; i < 2; i++)
        if (of_a[i][0] && (strcmp(of_a[i], b->from) == 0 || strcmp(of_a[i], b->to) == 0))
            return true;
    return a->inode == b->inode;
}

static void names_survive(const struct inode *folder, struct names *kept, struct random_source *random)
{
    uint32_t share = simulated_share(random);
    bool *lost = calloc(folder->name_change_count + 1, sizeof *lost);
    assert(lost);
    for (size_t i = 0; i < folder->name_change_count; i++) {
        lost[i] = !simulated_chance(random, share);
        for (size_t before = 0; before < i && !lost[i]; before++)
            lost[i] = lost[before] && touches(&folder->name_changes[before], &folder->name_changes[i]);
        if (!lost[i])
            names_change(kept, &folder->name_changes[i]);
    }
    free(lost);
}

/* ---- inodes and paths ---- */

static struct inode *inode_create(struct simulated_disk *disk, bool is_folder)
{
    struct inode *inode = calloc(1, sizeof *inode);
    assert(inode);
    inode->is_folder = is_folder;
    inode->next = disk->inodes;
    disk->inodes = inode;
    return inode;
}

static void inode_destroy(struct inode *inode)
{
    simulated_file_fini(&inode->file);
    free(inode->unreadable);
    free(inode->seen.list);
    free(inode->kept.list);
    free(inode->name_changes);
    free(inode);
}

/* The folder in which the last part of the path is or would be, and that part; NULL when there is no such folder. */
static struct inode *find_folder(const struct simulated_disk *disk, const char *path, const char **last)
{
    struct inode *folder = disk->root;
    assert(path[0] == '/');
    for (path++;; path++) {
        const char *slash = strchr(path, '/');
        if (!slash) {
            assert(strlen(path) < NAME_MAX_BYTES);
            *last = path;
            return folder;
        }
        char part[NAME_MAX_BYTES] = "";
        assert((size_t)(slash - path) < sizeof part);
        memcpy(part, path, (size_t)(slash - path));
        const struct name *name = names_find(&folder->seen, part);
        if (!name || !name->inode->is_folder)
            return NULL;
        folder = name->inode;
        path = slash;
    }
}

static struct inode *find(const struct simulated_disk *disk, const char *path)
{
    const char *last;
    struct inode *folder = find_folder(disk, path, &last);
    if (!folder || !last[0])
        return folder;
    const struct name *name = names_find(&folder->seen, last);
    return name ? name->inode : NULL;
}

static struct inode *inode_crash(struct inode *old, struct simulated_disk *disk, struct random_source *random)
{
    if (old->copy)
        return old->copy;
    struct inode *inode = old->copy = inode_create(disk, old->is_folder);
    if (!old->is_folder) {
        inode->file = simulated_file_crash(&old->file, random);
        memcpy(inode->last_path, old->last_path, sizeof inode->last_path);
        return inode;
    }
    for (size_t i = 0; i < old->kept.count; i++)
        names_set(&inode->kept, old->kept.list[i].text, old->kept.list[i].inode);
    names_survive(old, &inode->kept, random);
    for (size_t i = 0; i < inode->kept.count; i++) {
        inode->kept.list[i].inode = inode_crash(inode->kept.list[i].inode, disk, random);
        names_set(&inode->seen, inode->kept.list[i].text, inode->kept.list[i].inode);
    }
    return inode;
}

/* ---- calls ---- */

static int before(struct simulated_disk *disk, const struct simulated_call *call)
{
    if (disk->dead)
        return -EIO;
    return disk->hooks.before ? disk->hooks.before(disk->hooks.context, call) : 0;
}

static void after(struct simulated_disk *disk, const struct simulated_call *call)
{
    if (disk->hooks.after)
        disk->hooks.after(disk->hooks.context, call);
}

static bool is_full(struct simulated_disk *disk)
{
    if (!disk->full_calls)
        return false;
    disk->full_calls--;
    return true;
}

static size_t shorten(struct simulated_disk *disk, size_t count)
{
    if (disk->short_one_in && count > 1 && random_below(&disk->random, disk->short_one_in) == 0)
        count = 1 + random_below(&disk->random, (uint32_t)count - 1);
    return count;
}

static int add_handle(struct simulated_disk *disk, struct inode *inode)
{
    for (int i = 0; i < HANDLES_MAX; i++) {
        if (!disk->handles[i].inode) {
            disk->handles[i] = (struct handle){.inode = inode, .sync_errors_seen = inode->sync_errors};
            return i;
        }
    }
    return -EMFILE;
}

static struct handle *handle_of(struct simulated_disk *disk, int file)
{
    assert(file >= 0 && file < HANDLES_MAX && (disk->dead || disk->handles[file].inode));
    return &disk->handles[file];
}

static int simulated_open(struct disk *table, const char *path, enum disk_open how)
{
    struct simulated_disk *disk = from(table);
    struct inode *inode = find(disk, path);
    struct simulated_call call = {.kind = !inode && how == DISK_CREATE ? SIMULATED_CREATE : SIMULATED_OPEN, .path = path};
    int error = before(disk, &call);
    if (error)
        return error;
    const char *last;
    struct inode *folder = find_folder(disk, path, &last);
    if (!folder || (!inode && how != DISK_CREATE))
        return -ENOENT;
    if (call.kind == SIMULATED_OPEN)
        return add_handle(disk, inode);
    if (is_full(disk))
        return -ENOSPC;
    inode = inode_create(disk, false);
    assert(strlen(path) < SIMULATED_PATH_MAX);
    strcpy(inode->last_path, path);
    change_name(folder, "", last, inode);
    int file = add_handle(disk, inode);
    after(disk, &call);
    return file;
}

static void simulated_close(struct disk *table, int file)
{
    struct simulated_disk *disk = from(table);
    struct handle *handle = handle_of(disk, file);
    if (disk->dead)
        return;
    if (handle->is_lock)
        handle->inode->locked = false;
    *handle = (struct handle){0};
}

/* A disk gives a bad place another sector when it is written. */
static void heal_written(struct inode *inode, uint64_t position, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < inode->unreadable_count; i++) {
        uint64_t start = inode->unreadable[i] * SIMULATED_PAGE_SIZE;
        if (start + SIMULATED_PAGE_SIZE <= position || start >= position + count)
            inode->unreadable[kept++] = inode->unreadable[i];
    }
    inode->unreadable_count = kept;
}

static ssize_t simulated_write(struct disk *table, int file, const struct iovec *parts, int part_count, uint64_t position)
{
    struct simulated_disk *disk = from(table);
    struct inode *inode = handle_of(disk, file)->inode;
    size_t count = 0;
    for (int i = 0; i < part_count; i++)
        count += parts[i].iov_len;
    struct simulated_call call = {
        .kind = SIMULATED_WRITE, .path = disk->dead ? "" : inode->last_path, .position = position, .bytes = count};
    int error = before(disk, &call);
    if (disk->dead)
        return error;
    size_t wanted = error ? random_below(&disk->random, (uint32_t)count) : shorten(disk, count);
    if (!error && position + wanted > inode->file.now.size && is_full(disk)) {
        wanted = inode->file.now.size > position ? (size_t)(inode->file.now.size - position) : 0;
        error = wanted ? 0 : -ENOSPC;
    }
    size_t left = wanted;
    for (int i = 0; i < part_count && left; i++) {
        size_t part = parts[i].iov_len < left ? parts[i].iov_len : left;
        simulated_file_write(&inode->file, parts[i].iov_base, part, position);
        heal_written(inode, position, part);
        position += part;
        left -= part;
    }
    after(disk, &call);
    return error ? error : (ssize_t)wanted;
}

/* The first unreadable byte at or behind `position`. */
static uint64_t unreadable_from(const struct inode *inode, uint64_t position)
{
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < inode->unreadable_count; i++) {
        uint64_t start = inode->unreadable[i] * SIMULATED_PAGE_SIZE;
        if (start + SIMULATED_PAGE_SIZE > position && start < least)
            least = start;
    }
    return least < position ? position : least;
}

static ssize_t simulated_read(struct disk *table, int file, void *bytes, size_t count, uint64_t position)
{
    struct simulated_disk *disk = from(table);
    struct inode *inode = handle_of(disk, file)->inode;
    struct simulated_call call = {.kind = SIMULATED_READ, .path = disk->dead ? "" : inode->last_path, .position = position, .bytes = count};
    int error = before(disk, &call);
    if (error)
        return error;
    uint64_t end = inode->file.now.size, bad = unreadable_from(inode, position);
    if (position >= end)
        return 0;
    if (bad == position && count)
        return -EIO;
    end = bad < end ? bad : end;
    if (count > end - position)
        count = (size_t)(end - position);
    count = shorten(disk, count);
    simulated_file_read(&inode->file, bytes, count, position);
    return (ssize_t)count;
}

static int simulated_sync(struct disk *table, int file)
{
    struct simulated_disk *disk = from(table);
    struct handle *handle = handle_of(disk, file);
    struct inode *inode = handle->inode;
    struct simulated_call call = {.kind = SIMULATED_SYNC, .path = disk->dead ? "" : inode->last_path};
    int error = before(disk, &call);
    if (disk->dead)
        return error;
    if (error) {
        simulated_file_fail_sync(&inode->file, &disk->random);
        inode->sync_errors++;
    } else {
        simulated_file_sync(&inode->file);
    }
    if (handle->sync_errors_seen != inode->sync_errors) {
        handle->sync_errors_seen = inode->sync_errors;
        error = error ? error : -EIO;
    }
    after(disk, &call);
    return error;
}

static void simulated_forget(struct disk *table, int file)
{
    handle_of(from(table), file);
}

static int64_t simulated_size(struct disk *table, int file)
{
    struct simulated_disk *disk = from(table);
    struct inode *inode = handle_of(disk, file)->inode;
    return disk->dead ? -EIO : (int64_t)inode->file.now.size;
}

static int simulated_truncate(struct disk *table, int file, uint64_t size)
{
    struct simulated_disk *disk = from(table);
    struct inode *inode = handle_of(disk, file)->inode;
    struct simulated_call call = {.kind = SIMULATED_TRUNCATE, .path = disk->dead ? "" : inode->last_path, .position = size};
    int error = before(disk, &call);
    if (error)
        return error;
    simulated_file_resize(&inode->file, size);
    after(disk, &call);
    return 0;
}

static int simulated_rename(struct disk *table, const char *old_path, const char *new_path)
{
    struct simulated_disk *disk = from(table);
    struct simulated_call call = {.kind = SIMULATED_RENAME, .path = old_path, .to = new_path};
    int error = before(disk, &call);
    if (error)
        return error;
    const char *old_last, *new_last;
    struct inode *folder = find_folder(disk, old_path, &old_last);
    assert(folder && folder == find_folder(disk, new_path, &new_last));
    struct inode *inode = find(disk, old_path);
    if (!inode)
        return -ENOENT;
    assert(strlen(new_path) < SIMULATED_PATH_MAX);
    strcpy(inode->last_path, new_path);
    change_name(folder, old_last, new_last, inode);
    after(disk, &call);
    return 0;
}

static int simulated_remove(struct disk *table, const char *path)
{
    struct simulated_disk *disk = from(table);
    struct simulated_call call = {.kind = SIMULATED_REMOVE, .path = path};
    int error = before(disk, &call);
    if (error)
        return error;
    const char *last;
    struct inode *folder = find_folder(disk, path, &last), *inode = find(disk, path);
    if (!inode)
        return -ENOENT;
    change_name(folder, last, "", inode);
    after(disk, &call);
    return 0;
}

/* Nobody meddles with this disk; and the look at a name is no call that a crash could come after. */
static int simulated_check_name(struct disk *table, const char *path, int file)
{
    struct simulated_disk *disk = from(table);
    return disk->dead ? -EIO : find(disk, path) == handle_of(disk, file)->inode ? 0 : -ESTALE;
}

static int simulated_make_folder(struct disk *table, const char *path)
{
    struct simulated_disk *disk = from(table);
    struct simulated_call call = {.kind = SIMULATED_MAKE_FOLDER, .path = path};
    int error = before(disk, &call);
    if (error)
        return error;
    const char *last;
    struct inode *folder = find_folder(disk, path, &last), *inode = find(disk, path);
    if (!folder)
        return -ENOENT;
    if (inode)
        return inode->is_folder ? 0 : -ENOTDIR;
    if (is_full(disk))
        return -ENOSPC;
    change_name(folder, "", last, inode_create(disk, true));
    after(disk, &call);
    return 0;
}

static int simulated_sync_folder(struct disk *table, const char *path)
{
    struct simulated_disk *disk = from(table);
    struct simulated_call call = {.kind = SIMULATED_SYNC_FOLDER, .path = path};
    int error = before(disk, &call);
    if (disk->dead)
        return error;
    struct inode *folder = find(disk, path);
    if (!folder)
        return -ENOENT;
    for (size_t i = 0; i < folder->name_change_count && !error; i++)
        names_change(&folder->kept, &folder->name_changes[i]);
    if (!error)
        folder->name_change_count = 0;
    after(disk, &call);
    return error;
}

static int simulated_list(struct disk *table, const char *path, void (*each)(void *context, const char *name), void *context)
{
    struct simulated_disk *disk = from(table);
    int error = before(disk, &(struct simulated_call){.kind = SIMULATED_LIST, .path = path});
    if (error)
        return error;
    struct inode *folder = find(disk, path);
    if (!folder)
        return -ENOENT;
    each(context, ".");
    each(context, "..");
    for (size_t i = 0; i < folder->seen.count; i++)
        each(context, folder->seen.list[i].text);
    return 0;
}

static int simulated_space(struct disk *table, const char *path, uint64_t *free_bytes, uint64_t *total_bytes)
{
    struct simulated_disk *disk = from(table);
    disk->space_looks++;
    int error = before(disk, &(struct simulated_call){.kind = SIMULATED_SPACE, .path = path});
    if (error)
        return error;
    *free_bytes = disk->free_bytes;
    *total_bytes = disk->total_bytes;
    return 0;
}

static int simulated_lock(struct disk *table, const char *path)
{
    struct simulated_disk *disk = from(table);
    struct inode *folder = disk->dead ? NULL : find(disk, path);
    if (!folder)
        return disk->dead ? -EIO : -ENOENT;
    if (folder->locked)
        return -EWOULDBLOCK;
    int file = add_handle(disk, folder);
    if (file >= 0)
        folder->locked = disk->handles[file].is_lock = true;
    return file;
}

/* ---- the disk itself ---- */

static const struct disk_ops simulated_ops = {
    .open = simulated_open,
    .close = simulated_close,
    .write = simulated_write,
    .read = simulated_read,
    .sync = simulated_sync,
    .forget = simulated_forget,
    .size = simulated_size,
    .truncate = simulated_truncate,
    .rename = simulated_rename,
    .remove = simulated_remove,
    .check_name = simulated_check_name,
    .make_folder = simulated_make_folder,
    .sync_folder = simulated_sync_folder,
    .list = simulated_list,
    .space = simulated_space,
    .lock = simulated_lock,
};

static struct simulated_disk *create(uint64_t seed)
{
    struct simulated_disk *disk = calloc(1, sizeof *disk);
    assert(disk);
    disk->table.ops = &simulated_ops;
    disk->random.state = seed;
    simulated_disk_set_space(disk, UINT64_MAX, UINT64_MAX);
    return disk;
}

struct simulated_disk *simulated_disk_create(uint64_t seed)
{
    struct simulated_disk *disk = create(seed);
    disk->root = inode_create(disk, true);
    return disk;
}

void simulated_disk_destroy(struct simulated_disk *disk)
{
    while (disk && disk->inodes) {
        struct inode *next = disk->inodes->next;
        inode_destroy(disk->inodes);
        disk->inodes = next;
    }
    free(disk);
}

struct disk *simulated_disk_table(struct simulated_disk *disk)
{
    return &disk->table;
}

void simulated_disk_set_hooks(struct simulated_disk *disk, const struct simulated_hooks *hooks)
{
    disk->hooks = *hooks;
}

void simulated_disk_set_short(struct simulated_disk *disk, uint32_t one_in)
{
    disk->short_one_in = one_in;
}

void simulated_disk_fill(struct simulated_disk *disk, unsigned calls)
{
    disk->full_calls = calls;
}

void simulated_disk_set_space(struct simulated_disk *disk, uint64_t free_bytes, uint64_t total_bytes)
{
    disk->free_bytes = free_bytes;
    disk->total_bytes = total_bytes;
}

unsigned simulated_disk_space_looks(const struct simulated_disk *disk)
{
    return disk->space_looks;
}

struct simulated_disk *simulated_disk_crash(const struct simulated_disk *disk, uint64_t seed)
{
    struct simulated_disk *left = create(seed);
    for (struct inode *inode = disk->inodes; inode; inode = inode->next)
        inode->copy = NULL;
    left->root = inode_crash(disk->root, left, &left->random);
    return left;
}

void simulated_disk_kill(struct simulated_disk *disk)
{
    memset(disk->handles, 0, sizeof disk->handles);
    for (struct inode *inode = disk->inodes; inode; inode = inode->next)
        inode->locked = false;
    disk->dead = true;
}

void simulated_disk_revive(struct simulated_disk *disk)
{
    disk->dead = false;
}

int64_t simulated_disk_file_size(const struct simulated_disk *disk, const char *path)
{
    const struct inode *inode = find(disk, path);
    return inode ? (int64_t)inode->file.now.size : -ENOENT;
}

void simulated_disk_flip(struct simulated_disk *disk, const char *path, uint64_t bit)
{
    struct inode *inode = find(disk, path);
    assert(inode && bit / 8 < inode->file.now.size);
    simulated_file_damage(&inode->file, bit / 8, (uint8_t)(1u << bit % 8));
}

void simulated_disk_make_unreadable(struct simulated_disk *disk, const char *path, uint64_t position)
{
    struct inode *inode = find(disk, path);
    assert(inode);
    inode->unreadable = realloc(inode->unreadable, (inode->unreadable_count + 1) * sizeof *inode->unreadable);
    assert(inode->unreadable);
    inode->unreadable[inode->unreadable_count++] = position / SIMULATED_PAGE_SIZE;
}

void simulated_disk_heal(struct simulated_disk *disk, const char *path)
{
    find(disk, path)->unreadable_count = 0;
}
