/* Pages of documentation made from the tables of settings and commands. */
#ifndef CLI_DOCS_H
#define CLI_DOCS_H

#include "base/buffer.h"

int docs_configuration_write(struct buffer *out); /* docs/configuration.md */
int docs_commands_write(struct buffer *out);      /* docs/commands.md */
int docs_man_write(struct buffer *out);           /* spindle.1, roff */

#endif
