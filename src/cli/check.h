/* What `spindle check` and `spindle run --check` share. */
#ifndef CLI_CHECK_H
#define CLI_CHECK_H

#include <stdbool.h>

#include "config/config.h"

/* Loads a configuration and prints what came of it to standard output, as text or as one JSON object. Returns the exit status. */
int check_configuration(const struct config_sources *sources, bool json);

#endif
