/* The part of the server that says who may do what: access/ with the settings below `access`. */
#ifndef CLI_SERVER_ACCESS_H
#define CLI_SERVER_ACCESS_H

#include "access/access.h"
#include "config/config.h"
#include "control/http.h"

#define SERVER_ACCESS_HTTP_PATH "/api/v1/access/denials"

/* Reads users and rules; prints what is wrong with them to standard error. Returns 0, ERR_CONFIG, ERR_NO_MEMORY or ERR_IO. */
int server_access_start(struct access **access, const struct config *config);

/* Takes over users and rules as they are written down now; with mistakes, which go to `problems`, those of before stay. */
int server_access_reload(struct access *access, const struct config *config, struct problems *problems);

/* Whether server_access_start would take them: 0, ERR_CONFIG with what is wrong in `problems`, ERR_NO_MEMORY or ERR_IO. */
int server_access_check(const struct config *config, struct problems *problems);

/* An http_handler; the context is a struct access. */
void server_access_http_answer(void *context, const struct http_request *request, struct page *page);

#endif
