/* Places in a stream, and ages, as people write them. Pure. */
#ifndef CLI_JOURNAL_WHEN_H
#define CLI_JOURNAL_WHEN_H

#include <stdbool.h>
#include <stdint.h>

#include "config/value.h"

struct when {
    bool is_time;
    uint64_t offset;  /* when it is none */
    uint64_t time_ns; /* wall clock */
};

/* An offset ("42"), a time (RFC 3339, "2026-11-21T10:34:43.5Z" or with "+01:00"; "2026-11-21" is its midnight UTC), or an age before
 * `now_ns`
 * ("-10m", "-1.5h"). Returns 0, or ERR_INVALID with a message that says what was expected. */
int when_parse(const char *text, uint64_t now_ns, struct when *when, char message[VALUE_MESSAGE_MAX]);

/* "90s", "10m", "36h", "7d", "2w", in ns. Returns 0, or ERR_INVALID with a message. */
int when_age_parse(const char *text, uint64_t *age_ns, char message[VALUE_MESSAGE_MAX]);

#endif
