/* The topic aliases that we use towards one client. One owner. */
#ifndef BUS_ALIASES_H
#define BUS_ALIASES_H

#include <stdbool.h>
#include <stdint.h>

#include "mqtt/packet.h"

struct aliases;

/* NULL when max is 0 or memory is short: then there are none. */
struct aliases *aliases_create(uint16_t max);
void aliases_destroy(struct aliases *aliases); /* accepts NULL */

/* The alias of the topic: one that the client knows, or the next that is free, for aliases_add; 0: none is left. */
uint16_t aliases_choose(const struct aliases *aliases, struct mqtt_slice topic, bool *known);
int aliases_add(struct aliases *aliases, struct mqtt_slice topic); /* gives it the next free one, which there is; 0 or ERR_NO_MEMORY */

#endif
