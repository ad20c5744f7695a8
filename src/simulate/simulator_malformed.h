/* Messages as broken senders, cut lines and strange firmware produce them. Each is one that the pipeline must refuse: one dead letter,
 * and nothing else changes. Pure. */
#ifndef SIMULATE_SIMULATOR_MALFORMED_H
#define SIMULATE_SIMULATOR_MALFORMED_H

#include "simulate/simulator_messages.h"

/* How many kinds there are; a kind is 0 .. simulator_malformed_count() - 1. */
unsigned simulator_malformed_count(void);

/* "cut", "not-utf8" and so on; static. */
const char *simulator_malformed_name(unsigned kind);

/* The topic behind {root}/{toolbox}/{tool}/ that the message goes to when it is not that of *message; else NULL. */
const char *simulator_malformed_topic(unsigned kind, enum simulator_message *message);

/* Appends the payload. Returns 0, ERR_LIMIT or ERR_NO_MEMORY; `out` is unchanged on failure. */
int simulator_malformed_write(struct buffer *out, unsigned kind, const struct simulator_rendering *rendering,
                              const struct simulator_identity *identity);

#endif
