/* What the modules say of themselves: readiness probes and fragments of the status page. Modules register, whoever answers
 * requests walks the registry and knows none of them.
 *
 * Registered functions run on the asking thread under the registry's lock: they must be quick, safe to call from any thread,
 * and must not register. When an unregister returns, the function does not run and will not run again. */
#ifndef BASE_PROBES_H
#define BASE_PROBES_H

#include <stdbool.h>

#include "base/buffer.h"

enum { PROBES_MAX = 32, STATUS_FRAGMENTS_MAX = 32, PROBE_TEXT_BYTES_MAX = 1024 };

/* Says whether the module can do its work now, and appends to `text` (for a person, plain UTF-8, at most PROBE_TEXT_BYTES_MAX bytes)
 * what it sees: "group commit in 0.2 ms", or what is wrong and what helps. */
typedef bool (*probe_check)(void *owner, struct buffer *text);

/* Appends one JSON value. Returns 0 or an error; after an error the fragment reads null. */
typedef int (*status_fragment)(void *owner, struct buffer *json);

/* `name` is borrowed until the unregister: a word of a-z, 0-9 and _. Returns 0, ERR_LIMIT, or ERR_INVALID for another kind of
 * name and for one that is taken. */
int probes_register(const char *name, probe_check check, void *owner);
void probes_unregister(const char *name);
int status_register(const char *name, status_fragment fragment, void *owner);
void status_unregister(const char *name);

/* Called for each probe in order of registration; `text` is what it says. Returns 0 or an error, which ends the reading. */
typedef int (*probe_reader)(void *context, const char *name, bool ready, const char *text, size_t length);

/* *ready gets whether all are; true when there is none. Returns 0, or the reader's error, and then leaves *ready as it was. */
int probes_read(probe_reader reader, void *context, bool *ready);

/* Appends [{"name": "journal", "ready": true, "text": "..."}, ...] in order of registration. *ready gets whether all are; true when
 * there is none. Returns 0, ERR_LIMIT or ERR_NO_MEMORY, and then leaves both as they were. */
int probes_write(struct buffer *json, bool *ready);

/* Appends , "name": value for each fragment in order of registration. Returns as probes_write. */
int status_write(struct buffer *json);

#endif
