/* A whole file into memory. */
#ifndef ACCESS_FILE_H
#define ACCESS_FILE_H

#include "base/buffer.h"

/* Appends the content of `path`. Returns 0, ERR_LIMIT (of the buffer), ERR_NO_MEMORY, or what the system says. */
int file_read(const char *path, struct buffer *content);

#endif
