/* What Spindle reads from the three OPC UA PubSub messages of a hole.
 *
 *   { ..., "Messages": { ..., "Payload": { "<key>": { "Value": ..., "SourceTimestamp": "..." }, ... } } }
 *
 * Messages may also be an array; then its first element with a Payload counts. A field is found by its configured path: the first key
 * of the Payload, in the order of the document, that contains the path and has a Value. So name space, tool text and suffixes such as
 * ".MeasuredValue" do not matter. The stamp of a message is the first SourceTimestamp in any of its objects; it is an opaque text.
 * Pure but for the reader's memory. */
#ifndef DRILLING_PAYLOAD_H
#define DRILLING_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

#include "pipeline/stage.h"

enum payload_side { PAYLOAD_RESULT, PAYLOAD_TRACE, PAYLOAD_HEADS, PAYLOAD_SIDE_COUNT };

enum {
    PAYLOAD_PATH_MAX = 255,        /* bytes of a configured path */
    PAYLOAD_STEPS_MAX = 64,        /* rows of a result */
    PAYLOAD_SAMPLES_MAX = 1000000, /* of a trace: 2.7 hours at 100 a second */
    PAYLOAD_HEAD_MAX = 255,        /* bytes of a head's serial number */
    PAYLOAD_BYTES_MAX = 64 * 1024 * 1024
};

/* The fields, and the default path of each. */
enum payload_field {
#define PAYLOAD_FIELD(id, side, kind, need, name, path) PAYLOAD_##id,
#include "drilling/payload.def"
#undef PAYLOAD_FIELD
    PAYLOAD_FIELD_COUNT
};

struct payload_paths {
    char path[PAYLOAD_FIELD_COUNT][PAYLOAD_PATH_MAX + 1];
};

/* The name under which a field is configured (mqtt.data_ids.NAME). */
const char *payload_field_name(enum payload_field field);
void payload_paths_default(struct payload_paths *paths);

struct payload_result {
    char machine_id[STAGE_ID_MAX]; /* as text, whatever its JSON type */
    char result_id[STAGE_ID_MAX];
    size_t step_count; /* 1 .. PAYLOAD_STEPS_MAX */
    int32_t step[PAYLOAD_STEPS_MAX];
    float torque_empty_a[PAYLOAD_STEPS_MAX]; /* [step_count]; a scalar was broadcast */
    float thrust_empty_a[PAYLOAD_STEPS_MAX];
};

/* Arrays are the reader's, valid until its next payload_read. Signs are as sent (advance is negative). */
struct payload_trace {
    char result_id[STAGE_ID_MAX];                   /* "" when there is none */
    size_t sample_count;                            /* 1 .. PAYLOAD_SAMPLES_MAX */
    const float *position_mm, *torque_a, *thrust_a; /* [sample_count] */
    const int32_t *step;                            /* [sample_count] */
};

struct payload_heads {
    char head_id[PAYLOAD_HEAD_MAX + 1]; /* without white space around it; "" when it is empty or null */
    char cycle_counter[STAGE_ID_MAX];   /* "" when there is none */
};

struct payload {
    char stamp[STAGE_STAMP_MAX];
    union {
        struct payload_result result;
        struct payload_trace trace;
        struct payload_heads heads;
    };
};

struct payload_reader; /* working memory; one thread at a time */

int payload_reader_create(struct payload_reader **reader);
void payload_reader_destroy(struct payload_reader *reader);

/* Reads one message of `side`. Returns 0 with *payload; an error of class DATA with *refusal, and with payload->stamp set when the stamp
 * could be read all the same (else it is ""); or ERR_NO_MEMORY. */
int payload_read(struct payload_reader *reader, const struct payload_paths *paths, enum payload_side side, const uint8_t *bytes,
                 size_t length, struct payload *payload, struct stage_refusal *refusal);

/* The identifier as holes are told apart by it: 440, 440.0, "0440" and " 440 " are the number 440, whoever wrote them; any other text is
 * itself, without white space around it. `number` may be `id`. */
void payload_hole_number(const char *id, char number[STAGE_ID_MAX]);

#endif
