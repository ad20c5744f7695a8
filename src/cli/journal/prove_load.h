/* Numbered messages of `spindle journal prove`: which were acknowledged, and which are in the files.
 *
 * A message carries its number and bytes that follow from it. Half of the connections publish to a topic of the bus, half below the topic
 * root of the drilling messages, where each becomes a dead letter: so acknowledgements and books are both at stake. What was not
 * acknowledged is published again on the next server, as a client would. */
#ifndef CLI_JOURNAL_PROVE_LOAD_H
#define CLI_JOURNAL_PROVE_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/journal/prove_child.h"

enum { PROVE_MESSAGES_MAX = 1 << 28, PROVE_PAYLOAD_MIN = 32, PROVE_CONNECTIONS_MAX = 1000 };

struct prove_load;

struct prove_counts {
    uint64_t published, acknowledged;
};

/* `rate`: messages a second; 0: as fast as acknowledgements come. ERR_NO_MEMORY, ERR_INVALID. */
int prove_load_create(struct prove_load **load, unsigned connections, uint32_t payload_bytes, double rate);
void prove_load_destroy(struct prove_load *load); /* accepts NULL */

/* Connects to a server. Returns 0, or ERR_DISCONNECTED when not all connections could be made, said in `problem`. */
int prove_load_connect(struct prove_load *load, uint16_t port, char problem[PROVE_PROBLEM_MAX]);

/* Publishes for so long, or until *stop. ERR_DISCONNECTED when a connection was lost. */
int prove_load_run(struct prove_load *load, double seconds, const volatile bool *stop, char problem[PROVE_PROBLEM_MAX]);

/* Publishes nothing more and waits until all is acknowledged. */
int prove_load_settle(struct prove_load *load, char problem[PROVE_PROBLEM_MAX]);

/* Takes the acknowledgements that have arrived still, and closes. What is not acknowledged will be published again. */
void prove_load_disconnect(struct prove_load *load);

void prove_load_counts(const struct prove_load *load, struct prove_counts *counts);

/* ---- what is in the files ---- */

struct prove_recount {
    uint64_t lost;     /* acknowledged and not there */
    uint64_t invented; /* there and never published, or with other content */
    uint64_t damages;  /* places that do not check out */
    uint64_t first_lost;
};

/* Reads what was added to the streams since the last recount; with `all` everything from the beginning. Returns 0 or an error of reading.
 */
int prove_load_recount(struct prove_load *load, const char *data_dir, bool all, struct prove_recount *recount);

#endif
