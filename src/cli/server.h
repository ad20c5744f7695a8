/* The server as `spindle run` composes it: the one place where the modules are put together. */
#ifndef CLI_SERVER_H
#define CLI_SERVER_H

#include <stdint.h>

#include "config/config.h"

struct reload;
struct server;

/* Opens, recovers and starts everything, in the order in which it depends on each other. Diagnostics say what went wrong. The config is
 * borrowed until server_stop. `reload` is what a request to read the configuration again is given to; borrowed as well. */
int server_start(struct server **server, const struct config *config, struct reload *reload);

uint16_t server_mqtt_port(const struct server *server);
uint16_t server_http_port(const struct server *server); /* 0: not enabled */

/* Takes over those settings of a new configuration that may change while running, with the files that they name. It is borrowed for the
 * call. Returns 0; or ERR_CONFIG with what is wrong in `problems`, or ERR_NO_MEMORY, and nothing has changed then. */
int server_reload(struct server *server, const struct config *config, struct problems *problems);

/* Drains and stops: takes nothing new, finishes what was started, says goodbye. Returns 0, or ERR_BUSY when something had to be left
 * undone (it is pending, and goes on at the next start). Accepts NULL. */
int server_stop(struct server *server);

#endif
