/* A new data folder from what can be read of a damaged one: the records with their offsets, and, as a checkpoint, what is known of their
 * outcomes. A server that starts on it gives up what is lost as dead letters of reason `damaged`, and handles what has no outcome. */
#ifndef CLI_JOURNAL_SALVAGE_H
#define CLI_JOURNAL_SALVAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/message.h"

struct salvage;

/* `to` must not be there, or be empty. Returns the exit status; what is wrong is said in the name of `command`. */
int salvage_open(struct salvage **salvage, const char *command, const char *from, const char *to);

/* One stream after the other; each record in order. 0, or ERR_CLOSED when it failed, which was said. */
int salvage_begin_stream(struct salvage *salvage, const char *stream);
int salvage_add(struct salvage *salvage, const struct message *record, const uint64_t *sources, size_t source_count);
int salvage_end_stream(struct salvage *salvage, uint64_t next_offset);

/* Writes the rest when everything was read (`complete`), says what has become of it, and frees. Returns the exit status. Accepts NULL. */
int salvage_close(struct salvage *salvage, bool complete, bool json);

#endif
