/* One HTTP request to a Spindle, as its own commands make them. */
#ifndef CLI_HTTP_CLIENT_H
#define CLI_HTTP_CLIENT_H

#include <stdint.h>

#include "base/buffer.h"

/* Asks `host` (an address; "" or one for all addresses: loopback) with GET, or with POST where `json` is not NULL. Returns 0 with *status,
 * and the body appended to `body`; or ERR_DISCONNECTED (nobody answers, or not within a minute), ERR_LIMIT (the body passed its ceiling).
 */
int http_client_ask(const char *host, uint16_t port, const char *path, const char *json, int *status, struct buffer *body);

#endif
