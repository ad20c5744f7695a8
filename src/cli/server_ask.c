#include "cli/server_ask.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"
#include "base/terminal.h"
#include "cli/command.h"
#include "cli/http_client.h"
#include "cli/json_tree.h"

__attribute__((format(printf, 2, 3))) static int fail(const char *command, const char *format, ...)
{
    va_list arguments;
    terminal_progress_end();
    va_start(arguments, format);
    fprintf(stderr, "%s: ", command);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return COMMAND_FAILED;
}

int server_ask_find(const char *command, const char *data_dir, struct server_file *server)
{
    struct server_file found;
    if (server_file_read(data_dir, &found))
        return fail(command,
                    "%s is in use, and there is no server.json in it that says by which server: it is starting or stopping; try again",
                    data_dir);
    if (!found.http_port)
        return fail(command, "the server that runs on %s does not listen for HTTP (http.enabled); stop it first", data_dir);
    *server = found;
    return COMMAND_OK;
}

int server_ask(const char *command, const struct server_file *server, const char *path, const char *json, struct buffer *answer)
{
    struct json_tree *tree = NULL;
    char why[JSON_TREE_WHY_MAX];
    size_t before = answer->length;
    int code = 0, status = COMMAND_OK;
    int error = http_client_ask(server->http_host, server->http_port, path, json, &code, answer);
    if (error)
        status = fail(command, "the server (process %" PRIu64 ", HTTP port %u) does not answer: %s; try again, or stop it first",
                      server->pid, server->http_port, error_text(error));
    else if (code != 200 && json_tree_read(&tree, answer->data + before, answer->length - before, why) == 0 &&
             json_tree_text(tree, "error"))
        status = fail(command, "the server refuses: %s", json_tree_text(tree, "error"));
    else if (code != 200)
        status = server_ask_refuse_answer(command, server, code);
    json_tree_free(tree);
    return status;
}

int server_ask_refuse_answer(const char *command, const struct server_file *server, int http_status)
{
    return fail(command, "the server (process %" PRIu64 ", HTTP port %u) gives an answer that cannot be read (status %d)", server->pid,
                server->http_port, http_status);
}
