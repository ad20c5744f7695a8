/* How a command has the server that runs on a data folder do something: it finds it by server.json, and asks it over HTTP. */
#ifndef CLI_SERVER_ASK_H
#define CLI_SERVER_ASK_H

#include "base/buffer.h"
#include "cli/server_file.h"

/* Of a folder that is in use. Returns COMMAND_OK with *server, or COMMAND_FAILED after saying on standard error why it cannot be asked. */
int server_ask_find(const char *command, const char *data_dir, struct server_file *server);

/* POSTs `json`. Returns COMMAND_OK with the body of the answer appended to `answer`, or COMMAND_FAILED after saying why there is none, or
 * why the server refuses. */
int server_ask(const char *command, const struct server_file *server, const char *path, const char *json, struct buffer *answer);

/* Says that an answer is not what it should be. COMMAND_FAILED. */
int server_ask_refuse_answer(const char *command, const struct server_file *server, int http_status);

#endif
