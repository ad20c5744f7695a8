#include "cli/server_file.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/error.h"
#include "cli/json_tree.h"

enum { FILE_BYTES_MAX = 4096 };

static void path_of(const char *data_dir, const char *suffix, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/server.json%s", data_dir, suffix);
}

int server_file_write(const char *data_dir, const struct server_file *file)
{
    char path[PATH_MAX], fresh[PATH_MAX];
    struct buffer text;
    path_of(data_dir, "", path);
    path_of(data_dir, ".new", fresh);
    buffer_init(&text, FILE_BYTES_MAX);
    buffer_printf(&text, "{\"pid\":%" PRIu64 ",\"mqtt_port\":%u,\"http_port\":%u,\"http_host\":", file->pid, file->mqtt_port,
                  file->http_port);
    buffer_append_json_string(&text, file->http_host, strlen(file->http_host), 0);
    int error = buffer_append_text(&text, "}\n");
    FILE *out = error ? NULL : fopen(fresh, "we");
    if (!error && !out)
        error = error_from_errno(errno);
    if (out) {
        bool written = fwrite(text.data, 1, text.length, out) == text.length;
        written = fclose(out) == 0 && written;
        if (!written || rename(fresh, path))
            error = error_from_errno(errno);
        if (error)
            unlink(fresh);
    }
    buffer_fini(&text);
    return error;
}

void server_file_remove(const char *data_dir)
{
    char path[PATH_MAX];
    path_of(data_dir, "", path);
    unlink(path);
}

int server_file_read(const char *data_dir, struct server_file *out)
{
    char path[PATH_MAX], text[FILE_BYTES_MAX], why[JSON_TREE_WHY_MAX];
    path_of(data_dir, "", path);
    FILE *in = fopen(path, "re");
    if (!in)
        return error_from_errno(errno);
    size_t length = fread(text, 1, sizeof text, in);
    fclose(in);
    struct json_tree *tree;
    if (json_tree_read(&tree, text, length, why))
        return ERR_CORRUPT;
    struct server_file file = {0};
    uint64_t mqtt_port, http_port;
    const char *host = json_tree_text(tree, "http_host");
    bool whole = json_tree_count(tree, "pid", &file.pid) && json_tree_count(tree, "mqtt_port", &mqtt_port) &&
                 json_tree_count(tree, "http_port", &http_port) && mqtt_port <= UINT16_MAX && http_port <= UINT16_MAX && host;
    if (whole) {
        file.mqtt_port = (uint16_t)mqtt_port;
        file.http_port = (uint16_t)http_port;
        snprintf(file.http_host, sizeof file.http_host, "%s", host);
        *out = file;
    }
    json_tree_free(tree);
    return whole ? 0 : ERR_CORRUPT;
}
