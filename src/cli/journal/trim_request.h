/* Removing old segments of a stream: what `spindle journal trim` and the HTTP interface have in common. */
#ifndef CLI_JOURNAL_TRIM_REQUEST_H
#define CLI_JOURNAL_TRIM_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "config/value.h"
#include "journal/format.h"
#include "journal/retention.h"

struct trim_request {
    char stream[FORMAT_STREAM_NAME_MAX + 1];
    bool before_given, older_than_given, keep_size_given;
    uint64_t before;        /* offset */
    uint64_t older_than_ns; /* age */
    uint64_t keep_size;     /* bytes */
    bool dry_run;
};

/* Which segments that names now. */
struct retention_trim trim_request_limits(const struct trim_request *request, uint64_t wall_ns);

/* From the body of a request. ERR_INVALID with a sentence. */
int trim_request_read(struct trim_request *request, const void *json, size_t length, char message[VALUE_MESSAGE_MAX]);

/* Appends it as such a body. */
int trim_request_write(const struct trim_request *request, struct buffer *out);

struct trim_done {
    uint64_t *bases; /* [count]: of what went, or would go, oldest first; malloc'd */
    size_t count;
    uint64_t bytes;
    uint64_t first_offset; /* of what is left */
    uint64_t kept_back;    /* segments that stay though the request names them */
    uint64_t pending;      /* messages without an outcome that went with them; by force only */
    bool more;             /* of a server: it has not come to the end of it */
};

/* Appends it as one line of JSON; `names`: with those of the files, and `more`, as a server answers. */
int trim_done_write(const struct trim_request *request, const struct trim_done *done, bool names, struct buffer *out);

/* Takes an answer in: adds to counts, bytes and bases, and sets the rest. ERR_CORRUPT, ERR_NO_MEMORY. */
int trim_done_add(struct trim_done *done, const void *json, size_t length);

#endif
