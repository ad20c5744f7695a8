/* A curve and an identity as the three messages of a hole, in the envelope that real tools send (OPC UA PubSub, JSON).
 *
 * Nearly all bytes of a hole are its arrays, and they depend on the curve alone: they are rendered once, and each hole only splices
 * its stamp, ids and tool between them. Pure. */
#ifndef SIMULATE_SIMULATOR_MESSAGES_H
#define SIMULATE_SIMULATOR_MESSAGES_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "simulate/simulator_curve.h"

enum simulator_message { SIMULATOR_RESULT, SIMULATOR_TRACE, SIMULATOR_HEADS, SIMULATOR_MESSAGE_COUNT };

/* How the makers of tools have varied the same messages. Zero is the layout before 2025-06. */
enum simulator_layout {
    SIMULATOR_LAYOUT_MEASURED_VALUE = 1, /* the keys of step results end in ".MeasuredValue" */
    SIMULATOR_LAYOUT_TEXT_IDS = 2,       /* ResultId and SerialNumber are text instead of numbers */
    SIMULATOR_LAYOUT_FASTENING = 4,      /* the trace's keys lie in the namespace AFastening */
    SIMULATOR_LAYOUT_ARRAY = 8           /* Messages is an array of one object, as the standard has it */
};

struct simulator_slice {
    const char *text; /* not zero-terminated */
    size_t length;
};

/* The values of one curve as JSON text. */
struct simulator_rendering {
    struct buffer memory;                                            /* owned; the slices point into it */
    struct simulator_slice position, torque, thrust, step;           /* arrays of the trace */
    struct simulator_slice step_numbers, torque_empty, thrust_empty; /* arrays, or plain numbers where the cycle has one step */
    struct simulator_slice stop_codes, durations, cycle_time, evaluation;
};

/* Whose hole it is. Texts are borrowed, zero-terminated, and hold nothing that JSON would escape. */
struct simulator_identity {
    const char *toolbox;    /* PublisherId */
    const char *device;     /* the tool's name within the keys; need not be that of the topic */
    const char *stamp;      /* SourceTimestamp, simulator_stamp_write() */
    const char *machine_id; /* digits */
    const char *head_id;
    uint32_t result_id;
    uint64_t message_id; /* from which the MessageId is made */
    unsigned layout;     /* enum simulator_layout */
};

enum { SIMULATOR_STAMP_SIZE = 21 };

/* Returns 0, ERR_NO_MEMORY or ERR_LIMIT (more than 64 MiB of text); *rendering is untouched on failure. */
int simulator_rendering_init(struct simulator_rendering *rendering, const struct simulator_curve *curve);
void simulator_rendering_fini(struct simulator_rendering *rendering); /* accepts all zero */

/* Appends one message. Returns 0, ERR_LIMIT or ERR_NO_MEMORY; `out` is unchanged on failure. */
int simulator_message_write(struct buffer *out, enum simulator_message message, const struct simulator_rendering *rendering,
                            const struct simulator_identity *identity);

/* "2026-01-31T12:00:00Z" and a zero, of seconds since 1970 (years up to 9999). */
void simulator_stamp_write(char text[SIMULATOR_STAMP_SIZE], uint64_t unix_s);

#endif
