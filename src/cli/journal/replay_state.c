#include "cli/journal/replay_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

enum { STATE_SIZE_MAX = REPLAY_SELECTION_MAX + 1024 };

static const char heading[] = "spindle replay 1\n";

int replay_id_check(const char *id)
{
    size_t length = strlen(id);
    static const char accepted[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    return length > 0 && length <= REPLAY_ID_MAX && strspn(id, accepted) == length ? 0 : ERR_INVALID;
}

/* ---- reading ---- */

static int read_file(const char *path, char text[STATE_SIZE_MAX + 1])
{
    FILE *file = fopen(path, "re");
    if (!file)
        return error_from_errno(errno);
    size_t length = fread(text, 1, STATE_SIZE_MAX + 1, file);
    bool failed = ferror(file);
    fclose(file);
    if (failed)
        return ERR_IO;
    if (length > STATE_SIZE_MAX || memchr(text, 0, length))
        return ERR_CORRUPT;
    text[length] = 0;
    return 0;
}

/* Takes "name value\n" off the front. */
static bool take_text(char **at, const char *name, char *value, size_t size)
{
    size_t name_length = strlen(name);
    char *end = strchr(*at, '\n');
    if (!end || strncmp(*at, name, name_length) != 0 || (*at)[name_length] != ' ')
        return false;
    char *begin = *at + name_length + 1;
    size_t length = (size_t)(end - begin);
    if (length >= size)
        return false;
    memcpy(value, begin, length);
    value[length] = 0;
    *at = end + 1;
    return true;
}

static bool take_number(char **at, const char *name, uint64_t *number)
{
    char digits[24], *end;
    if (!take_text(at, name, digits, sizeof digits) || !*digits || digits[strspn(digits, "0123456789")])
        return false;
    errno = 0;
    *number = strtoull(digits, &end, 10);
    return errno == 0;
}

int replay_state_read(const char *path, struct replay_state *state)
{
    char text[STATE_SIZE_MAX + 1], *at = text + sizeof heading - 1;
    struct replay_state read;
    int error = read_file(path, text);
    if (error)
        return error;
    if (strncmp(text, heading, sizeof heading - 1) != 0 || !take_text(&at, "id", read.id, sizeof read.id) || replay_id_check(read.id) ||
        !take_text(&at, "selection", read.selection, sizeof read.selection) || !take_number(&at, "from_ns", &read.from_ns) ||
        !take_number(&at, "to_ns", &read.to_ns) || !take_number(&at, "until", &read.until) || !take_number(&at, "next", &read.next) || *at)
        return ERR_CORRUPT;
    *state = read;
    return 0;
}

/* ---- writing ---- */

static int write_synced(const char *path, const char *text, size_t length)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (file < 0)
        return error_from_errno(errno);
    ssize_t written = write(file, text, length);
    int error = written < 0 ? error_from_errno(errno) : (size_t)written < length ? ERR_NO_SPACE : 0;
    if (!error && fdatasync(file))
        error = error_from_errno(errno);
    close(file);
    return error;
}

static int sync_folder_of(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0)
        return error_from_errno(errno);
    int error = fsync(file) ? error_from_errno(errno) : 0;
    close(file);
    return error;
}

int replay_state_write(const char *path, const struct replay_state *state)
{
    char text[STATE_SIZE_MAX], fresh[PATH_MAX];
    int length =
        snprintf(text, sizeof text, "%sid %s\nselection %s\nfrom_ns %" PRIu64 "\nto_ns %" PRIu64 "\nuntil %" PRIu64 "\nnext %" PRIu64 "\n",
                 heading, state->id, state->selection, state->from_ns, state->to_ns, state->until, state->next);
    if (length >= (int)sizeof text || snprintf(fresh, sizeof fresh, "%s.new", path) >= (int)sizeof fresh)
        return ERR_LIMIT;
    int error = write_synced(fresh, text, (size_t)length);
    if (!error && rename(fresh, path))
        error = error_from_errno(errno);
    if (error)
        unlink(fresh);
    return error ? error : sync_folder_of(path);
}
