/* Reading the configuration again while the server runs: at SIGHUP, and at POST /api/v1/reload. One at a time; with a mistake anywhere, in
 * the configuration or in a file that it names, everything stays as it was. */
#ifndef CLI_RELOAD_H
#define CLI_RELOAD_H

#include "cli/server.h"
#include "config/config.h"
#include "control/http.h"

#define RELOAD_HTTP_PATH "/api/v1/reload"

struct reload;

/* The sources are borrowed. Returns 0, ERR_CONFIG or ERR_NO_MEMORY. */
int reload_create(struct reload **reload, const struct config_sources *sources);
void reload_destroy(struct reload *reload); /* accepts NULL */

/* Between these a configuration can be taken over. */
void reload_begin(struct reload *reload, struct server *server);
void reload_end(struct reload *reload);

/* Reads it again and says on standard error what came of it. */
void reload_now(struct reload *reload);

/* An http_handler; the context is a struct reload. Answers {"ok": true, "changed": [...]}, or with status 400 what is wrong. */
void reload_http_answer(void *context, const struct http_request *request, struct page *page);

/* What diagnostics are to be written, and how. */
void reload_set_diagnostics(const struct config *config);

#endif
