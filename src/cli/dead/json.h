/* A dead letter as JSON, for `spindle dead --json` and for the HTTP interface. */
#ifndef CLI_DEAD_JSON_H
#define CLI_DEAD_JSON_H

#include "base/buffer.h"
#include "queue/dead_letter.h"

/* Appends one object. `state` is a word: open, requeued, purged, closed. Without the payload when `payload_max` is smaller than it: then
 * there is "payload_bytes". Returns 0, ERR_LIMIT or ERR_NO_MEMORY. */
int dead_json_write(struct buffer *out, const struct message *record, const struct dead_letter *letter, const char *state,
                    uint32_t payload_max);

#endif
