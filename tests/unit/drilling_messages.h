/* Messages for tests: the OPC UA envelope around given fields. */
#ifndef TESTS_DRILLING_MESSAGES_H
#define TESTS_DRILLING_MESSAGES_H

#include <stdarg.h>
#include <string.h>

#include "base/buffer.h"
#include "drilling/payload.h"

#define MESSAGE_STAMP "2024-05-15T07:29:33Z"

/* Appends the entries of a Payload: path, JSON text of the value, ..., NULL. A value of NULL makes an entry without Value. */
static inline void message_entries(struct buffer *out, const char *stamp, va_list pairs)
{
    const char *comma = "", *path;
    while ((path = va_arg(pairs, const char *))) {
        const char *value = va_arg(pairs, const char *);
        buffer_printf(out, "%s\n  \"nsu=http://airbus.com/IJT/ADrilling;s=Objects.DeviceSet.E0025C_A4HL-LG_ST.%s\": {", comma, path);
        if (value) {
            buffer_append_text(out, "\"Value\": ");
            buffer_append_text(out, value);
            buffer_append_text(out, ", ");
        }
        buffer_printf(out, "\"SourceTimestamp\": \"%s\"}", stamp);
        comma = ",";
    }
}

static inline void message_build(struct buffer *out, const char *stamp, ...)
{
    buffer_clear(out);
    buffer_append_text(out,
                       "{\"MessageId\": \"f3ff8d4f\", \"MessageType\": \"ua-data\", \"Messages\": {\"DataSetWriterId\": 1, \"Payload\": {");
    va_list pairs;
    va_start(pairs, stamp);
    message_entries(out, stamp, pairs);
    va_end(pairs);
    buffer_append_text(out, "}}}");
}

static inline const char *message_path(enum payload_field field)
{
    static struct payload_paths paths;
    payload_paths_default(&paths);
    return paths.path[field];
}

/* Default paths by their field, to be read in a list of pairs. */
#define PATH_MACHINE  message_path(PAYLOAD_MACHINE_ID)
#define PATH_RESULT   message_path(PAYLOAD_RESULT_ID)
#define PATH_STEPS    message_path(PAYLOAD_STEPS)
#define PATH_TORQUE_0 message_path(PAYLOAD_TORQUE_EMPTY)
#define PATH_THRUST_0 message_path(PAYLOAD_THRUST_EMPTY)
#define PATH_POSITION message_path(PAYLOAD_POSITION)
#define PATH_THRUST   message_path(PAYLOAD_THRUST)
#define PATH_TORQUE   message_path(PAYLOAD_TORQUE)
#define PATH_STEP     message_path(PAYLOAD_STEP)
#define PATH_TRACE_ID message_path(PAYLOAD_TRACE_RESULT_ID)
#define PATH_HEAD     message_path(PAYLOAD_HEAD_ID)
#define PATH_CYCLES   message_path(PAYLOAD_HEAD_CYCLES)

#endif
