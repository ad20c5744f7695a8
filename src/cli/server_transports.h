/* How clients reach the server, as it is configured: what the bus is told of it, and what is wrong with the files. */
#ifndef CLI_SERVER_TRANSPORTS_H
#define CLI_SERVER_TRANSPORTS_H

#include "bus/bus.h"
#include "config/config.h"

/* Borrows from the config. */
void server_transports_fill(const struct config *config, struct bus_options *options);

/* Has the certificates read again. Does nothing where nobody listens with TLS any more, which the next start takes over. */
void server_transports_reload(const struct config *config, struct bus *bus);

/* Reads the certificates as a start would. What cannot be used, and what has ended, is an error at the setting that names it; what ends
 * soon a warning. Does nothing where nobody listens with TLS. */
void server_transports_check(const struct config *config, struct problems *problems);

#endif
