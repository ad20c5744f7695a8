#include "access/file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"

enum { PART = 16 << 10 };

int file_read(const char *path, struct buffer *content)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return error_from_errno(errno);
    int error = 0;
    for (ssize_t count = 1; !error && count != 0;) {
        error = buffer_reserve(content, PART);
        count = error ? 0 : read(file, content->data + content->length, PART);
        if (count > 0)
            content->length += (size_t)count;
        else if (count < 0 && errno != EINTR)
            error = error_from_errno(errno);
    }
    close(file);
    return error;
}
