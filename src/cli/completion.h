/* Completion scripts for shells. */
#ifndef CLI_COMPLETION_H
#define CLI_COMPLETION_H

#include "base/buffer.h"
#include "cli/command.h"

int completion_write(enum command_shell shell, struct buffer *out);

#endif
