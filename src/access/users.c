#include "access/users.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/file.h"
#include "base/error.h"
#include "base/text.h"

bool users_name_valid(const char *name, size_t length)
{
    if (length == 0 || length > USERS_NAME_MAX || name[0] == '#' || memchr(name, ':', length))
        return false;
    for (size_t at = 0; at < length;) {
        uint32_t code_point;
        size_t size = text_utf8_decode(name + at, length - at, &code_point);
        if (size == 0 || !text_is_showable(code_point))
            return false;
        at += size;
    }
    return true;
}

/* ---- reading ---- */

static int by_name(const void *one, const void *other)
{
    return strcmp(((const struct user_row *)one)->name, ((const struct user_row *)other)->name);
}

/* Takes one line apart, in place. Returns false when it is wrong, which is reported. */
static bool take_line(struct users *users, char *line, size_t length, struct place place, struct problems *problems)
{
    char *colon = memchr(line, ':', length);
    if (!colon) {
        problems_add(problems, PROBLEM_ERROR, place, "expected NAME:HASH, found no `:`; `spindle passwd` writes such lines");
        return false;
    }
    size_t name_length = (size_t)(colon - line);
    if (!users_name_valid(line, name_length)) {
        problems_add(problems, PROBLEM_ERROR, place, "%s is no name of a user: 1 to %d bytes without `:` and control characters",
                     problem_quote(line, name_length).text, USERS_NAME_MAX);
        return false;
    }
    place.column += (unsigned)name_length + 1;
    size_t hash_length = length - name_length - 1;
    if (!password_hash_valid(colon + 1, hash_length)) { /* it is not shown: it may be a password in clear */
        problems_add(problems, PROBLEM_ERROR, place,
                     "what follows the name `%.*s` is no argon2id hash (at most %d MiB, %d passes); set the password again with `spindle "
                     "passwd`",
                     (int)name_length, line, PASSWORD_MEMORY_KIB_MAX >> 10, PASSWORD_PASSES_MAX);
        return false;
    }
    *colon = 0;
    line[length] = 0;
    users->rows[users->count++] = (struct user_row){line, colon + 1};
    return true;
}

static bool check_repeats(const struct users *users, const char *source, struct problems *problems)
{
    bool good = true;
    for (size_t i = 1; i < users->count; i++) {
        if (strcmp(users->rows[i - 1].name, users->rows[i].name) == 0) {
            problems_add(problems, PROBLEM_ERROR, (struct place){.source = source}, "the user `%s` stands there twice",
                         users->rows[i].name);
            good = false;
        }
    }
    return good;
}

static size_t count_lines(const char *text, size_t length)
{
    size_t lines = 1;
    for (size_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    return lines;
}

int users_parse(struct users *out, const char *source, const char *text, size_t length, struct problems *problems)
{
    size_t lines = count_lines(text, length);
    struct users users = {.rows = calloc(lines, sizeof *users.rows), .text = malloc(length + 1)};
    if (!users.rows || !users.text) {
        users_fini(&users);
        return ERR_NO_MEMORY;
    }
    memcpy(users.text, text, length);
    users.text[length] = '\n';
    bool good = true;
    unsigned number = 1;
    for (char *line = users.text, *end = users.text + length + 1; line < end; number++) {
        char *next = memchr(line, '\n', (size_t)(end - line));
        size_t size = (size_t)(next - line);
        if (size && line[size - 1] == '\r')
            size--;
        if (size && line[0] != '#' && users.count < USERS_MAX)
            good = take_line(&users, line, size, (struct place){source, number, 1}, problems) && good;
        else if (size && line[0] != '#') {
            problems_add(problems, PROBLEM_ERROR, (struct place){source, number, 1}, "more than %d users", USERS_MAX);
            good = false;
            break;
        }
        line = next + 1;
    }
    qsort(users.rows, users.count, sizeof *users.rows, by_name);
    good = check_repeats(&users, source, problems) && good;
    if (!good) {
        users_fini(&users);
        return ERR_CONFIG;
    }
    password_decoy(users.count ? users.rows[0].hash : NULL, users.decoy);
    *out = users;
    return 0;
}

int users_read(struct users *users, const char *path, struct problems *problems)
{
    struct buffer text;
    buffer_init(&text, USERS_FILE_BYTES_MAX);
    int error = file_read(path, &text);
    if (error && error != ERR_NO_MEMORY) {
        problems_add(problems, PROBLEM_ERROR, (struct place){.source = path}, "the file of users (access.users) cannot be read: %s",
                     error_text(error));
        error = ERR_CONFIG;
    }
    if (!error)
        error = users_parse(users, path, text.length ? (const char *)text.data : "", text.length, problems);
    buffer_fini(&text);
    return error;
}

void users_fini(struct users *users)
{
    free(users->rows);
    free(users->text);
    *users = (struct users){0};
}

const char *users_find(const struct users *users, const char *name, size_t length)
{
    char text[USERS_NAME_MAX + 1];
    if (length > USERS_NAME_MAX || memchr(name, 0, length))
        return NULL;
    memcpy(text, name, length);
    text[length] = 0;
    struct user_row wanted = {.name = text};
    const struct user_row *row = users->count ? bsearch(&wanted, users->rows, users->count, sizeof wanted, by_name) : NULL;
    return row ? row->hash : NULL;
}

/* ---- changing ---- */

/* Copies all lines but the user's; the first of those gets the new hash, which otherwise comes at the end. */
static int rewrite(const struct buffer *before, const char *name, const char *hash, struct buffer *after, bool *existed)
{
    size_t name_length = strlen(name);
    bool written = false;
    int error = 0;
    *existed = false;
    for (size_t at = 0; !error && at < before->length;) {
        const char *line = (const char *)before->data + at;
        const char *end = memchr(line, '\n', before->length - at);
        size_t size = end ? (size_t)(end - line) : before->length - at;
        if (size > name_length && line[name_length] == ':' && memcmp(line, name, name_length) == 0) {
            *existed = true;
            if (hash && !written)
                error = buffer_printf(after, "%s:%s\n", name, hash);
            written = true;
        } else {
            error = buffer_append(after, line, size);
            error = error ? error : buffer_append_text(after, "\n");
        }
        at += size + 1;
    }
    if (!error && hash && !written)
        error = buffer_printf(after, "%s:%s\n", name, hash);
    return error;
}

static int write_all(int file, const struct buffer *text)
{
    for (size_t at = 0; at < text->length;) {
        ssize_t count = write(file, text->data + at, text->length - at);
        if (count < 0 && errno != EINTR)
            return error_from_errno(errno);
        at += count > 0 ? (size_t)count : 0;
    }
    return fsync(file) ? error_from_errno(errno) : 0;
}

/* Opens the file that is to be renamed, and waits until no other process writes it. */
static int open_fresh(const char *path, int *out)
{
    for (;;) {
        int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        struct stat mine, there;
        if (file < 0)
            return error_from_errno(errno);
        if (flock(file, LOCK_EX) == 0 && fstat(file, &mine) == 0 && stat(path, &there) == 0 && mine.st_ino == there.st_ino) {
            *out = file;
            return 0;
        }
        close(file); /* the other one has renamed it meanwhile */
    }
}

static int sync_folder(const char *path)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    int file = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0)
        return error_from_errno(errno);
    int error = fsync(file) ? error_from_errno(errno) : 0;
    close(file);
    return error;
}

static int replace(const char *path, const char *fresh_path, int fresh, const char *name, const char *hash, bool *existed)
{
    struct buffer before, after;
    struct stat owner;
    buffer_init(&before, USERS_FILE_BYTES_MAX);
    buffer_init(&after, USERS_FILE_BYTES_MAX);
    bool there = stat(path, &owner) == 0;
    int error = there ? file_read(path, &before) : errno != ENOENT ? error_from_errno(errno) : 0;
    if (!error)
        error = rewrite(&before, name, hash, &after, existed);
    if (!error && !hash && !*existed)
        error = ERR_NOT_FOUND;
    if (!error && (ftruncate(fresh, 0) || fchmod(fresh, 0600)))
        error = error_from_errno(errno);
    if (!error && there && (owner.st_uid != geteuid() || owner.st_gid != getegid()) && fchown(fresh, owner.st_uid, owner.st_gid))
        error = error_from_errno(errno); /* the server could not read it any more */
    if (!error)
        error = write_all(fresh, &after);
    if (!error && rename(fresh_path, path))
        error = error_from_errno(errno);
    buffer_fini(&before);
    buffer_fini(&after);
    return error ? error : sync_folder(path);
}

int users_change(const char *path, const char *name, const char *hash, bool *existed)
{
    char real[PATH_MAX], fresh_path[PATH_MAX];
    if (!realpath(path, real)) /* a link stays one */
        snprintf(real, sizeof real, "%s", path);
    if ((size_t)snprintf(fresh_path, sizeof fresh_path, "%s.new", real) >= sizeof fresh_path)
        return ERR_LIMIT;
    int fresh = -1;
    bool was_there = false;
    int error = open_fresh(fresh_path, &fresh);
    if (error)
        return error;
    error = replace(real, fresh_path, fresh, name, hash, &was_there);
    if (error)
        unlink(fresh_path);
    close(fresh);
    if (!error || error == ERR_NOT_FOUND)
        *existed = was_there;
    return error;
}
