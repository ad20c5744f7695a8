/* SourceTimestamp as a time. Only the compatibility mode that joins by nearness reads it so; everywhere else a stamp is an opaque text,
 * because tools write local time and call it Z. Pure. */
#ifndef DRILLING_STAMP_H
#define DRILLING_STAMP_H

#include <stdbool.h>
#include <stdint.h>

/* Reads "YYYY-MM-DDTHH:MM:SS", a fraction of any length, and Z, an offset (+HH, +HHMM, +HH:MM) or nothing, which means Z. *ns is since
 * 1970-01-01T00:00:00Z. False when it is not of that form or not between the years 1900 and 2200. */
bool stamp_parse(const char *stamp, int64_t *ns);

/* Whether two stamps are at most window_ns apart. Stamps that are no times are near only when they are the same text. */
bool stamp_near(const char *a, const char *b, uint64_t window_ns);

#endif
