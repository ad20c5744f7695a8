/* The Unix socket: a file that programs of this machine connect to. */
#include "bus/loop.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/diagnostics.h"
#include "base/error.h"

enum { LISTEN_BACKLOG = 4096 };

static int refuse(const char *path, int error, const char *why, const char *advice)
{
    diagnostics(DIAGNOSTICS_ERROR, "bus", "cannot listen on the Unix socket %s: %s; %s", path, why, advice);
    return error;
}

/* Removes a socket file that a program has left behind. Nobody listens there: whoever connects is refused. */
static int clear_stale(const struct sockaddr_un *address)
{
    const char *path = address->sun_path;
    struct stat status;
    if (lstat(path, &status))
        return errno == ENOENT ? 0 : refuse(path, ERR_INVALID, strerror(errno), "correct bus.unix.path, or let this user reach it");
    if (!S_ISSOCK(status.st_mode))
        return refuse(path, ERR_INVALID, "there is something else of this name", "remove it, or choose another name with bus.unix.path");
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = probe < 0 || connect(probe, (const struct sockaddr *)address, sizeof *address) ? errno : 0;
    if (probe >= 0)
        close(probe);
    if (error == 0 || error == EAGAIN)
        return refuse(path, ERR_BUSY, "another program listens there", "stop that one, or choose another name with bus.unix.path");
    if (error != ECONNREFUSED)
        return refuse(path, ERR_INVALID, strerror(error), "remove the file, or choose another name with bus.unix.path");
    if (unlink(path) && errno != ENOENT)
        return refuse(path, ERR_INVALID, strerror(errno), "it is left over, and cannot be replaced; remove it");
    return 0;
}

int listener_unix_open(struct bus *bus, int *out)
{
    const char *path = bus->options.unix_path;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return refuse(path, ERR_INVALID, "the path is longer than 107 bytes", "choose a shorter one with bus.unix.path");
    strcpy(address.sun_path, path);
    int error = clear_stale(&address);
    if (error)
        return error;
    struct stat status;
    int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* With the permissions before it has a name, so that at no moment more can connect; and after, for what the umask took away. */
    if (listening < 0 || fchmod(listening, bus->options.unix_mode) || bind(listening, (const struct sockaddr *)&address, sizeof address) ||
        chmod(path, bus->options.unix_mode) || lstat(path, &status) || listen(listening, LISTEN_BACKLOG)) {
        error = refuse(path, ERR_INVALID, strerror(errno), "the folder must exist, and this user must be able to write there");
        if (listening >= 0)
            close(listening);
        return error;
    }
    bus->unix_file = (struct unix_file){status.st_dev, status.st_ino};
    *out = listening;
    return 0;
}

void listener_unix_remove(struct bus *bus)
{
    struct stat status;
    const char *path = bus->options.unix_path;
    if (bus->unix_file.number && lstat(path, &status) == 0 && status.st_dev == bus->unix_file.device &&
        status.st_ino == bus->unix_file.number)
        unlink(path);
    bus->unix_file = (struct unix_file){0};
}
