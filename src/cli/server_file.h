/* "server.json" in the data folder: how a command on this machine reaches the server that runs on it. It is there while the server serves;
 * one that a kill has left behind is told by the folder's lock, which nobody holds then. */
#ifndef CLI_SERVER_FILE_H
#define CLI_SERVER_FILE_H

#include <stdint.h>

enum { SERVER_FILE_HOST_MAX = 256 };

struct server_file {
    uint64_t pid;
    uint16_t mqtt_port, http_port;        /* http_port 0: it does not listen */
    char http_host[SERVER_FILE_HOST_MAX]; /* as configured */
};

/* Returns 0 or an error of class FATAL or RETRY; what was there stays then. */
int server_file_write(const char *data_dir, const struct server_file *file);
void server_file_remove(const char *data_dir);

/* ERR_NOT_FOUND, ERR_CORRUPT. */
int server_file_read(const char *data_dir, struct server_file *file);

#endif
