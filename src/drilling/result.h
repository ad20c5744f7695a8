/* The two messages that answer a hole: key points and depths. Byte for byte what Python's json.dumps makes of the same values, for
 * consumers compare texts. docs/results.md shows them. Pure. */
#ifndef DRILLING_RESULT_H
#define DRILLING_RESULT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"
#include "drilling/json.h"
#include "pipeline/stage.h"

enum result_kind { RESULT_KEYPOINTS, RESULT_DEPTHS };

/* Whose answer it is. A text that is not known is NULL and becomes null. Borrowed; UTF-8. */
struct result_identity {
    const char *stamp;
    const char *machine_id, *result_id, *head_id;
};

/* Each appends one JSON object to `out` and returns 0, ERR_LIMIT or ERR_NO_MEMORY (then `out` has what it had). */

/* values: [count], mm, finite. With `warning` a last key says that there are negative depths. */
int result_write_values(struct buffer *out, const struct result_identity *identity, const double *values, size_t count,
                        const char *algo_version, bool negative_warning);

/* message: why there is no estimate. */
int result_write_error(struct buffer *out, const struct result_identity *identity, enum result_kind kind, const char *message);

enum { RESULT_MISMATCH_TEXT_MAX = 2 * STAGE_ID_MAX + 64 };

/* The message of an error answer to a hole whose result and trace have different ids. */
void result_mismatch_text(const char *result_id, const char *trace_id, char text[RESULT_MISMATCH_TEXT_MAX]);

/* What a written message still tells of its hole. */
struct result_known {
    char stamp[STAGE_STAMP_MAX];
    char id[STAGE_ID_MAX];       /* ResultId; "" for null */
    char trace_id[STAGE_ID_MAX]; /* the trace's, where the message says that it is another; else "" */
    bool has_head;
};

/* Reads a message of either kind back. Returns 0, or an error of class DATA when it is none; *known is untouched then. */
int result_read(struct json_reader *reader, const uint8_t *bytes, size_t length, struct result_known *known);

#endif
