#include "cli/dead/json.h"

#include <inttypes.h>
#include <string.h>

#include "cli/journal/tool.h"
#include "mqtt/packet.h"

enum { PROPERTIES_SHOWN_MAX = 64 << 10 }; /* bytes; more are not shown */

static void append_text_member(struct buffer *out, const char *name, const char *text)
{
    buffer_printf(out, ",\"%s\":", name);
    buffer_append_json_string(out, text, strlen(text), 0);
}

/* The user properties with which the message was published: [[name, value], ...]. */
static void append_properties(struct buffer *out, const struct message *record)
{
    struct mqtt_slice raw, name, value;
    const char *before = ",\"properties\":[[";
    uint32_t position = 0;
    dead_letter_own_properties(record, &raw.data, &raw.length);
    if (raw.length > PROPERTIES_SHOWN_MAX)
        return;
    for (; mqtt_properties_next_user(raw, &position, &name, &value); before = ",[") {
        buffer_append_text(out, before);
        buffer_append_json_string(out, (const char *)name.data, name.length, 0);
        buffer_append_text(out, ",");
        buffer_append_json_string(out, (const char *)value.data, value.length, 0);
        buffer_append_text(out, "]");
    }
    if (*before == ',' && before[1] == '[')
        buffer_append_text(out, "]");
}

int dead_json_write(struct buffer *out, const struct message *record, const struct dead_letter *letter, const char *state,
                    uint32_t payload_max)
{
    buffer_printf(out, "{\"offset\":%" PRIu64 ",\"time_ns\":%" PRIu64 ",\"state\":\"%s\"", record->offset, record->time_ns, state);
    append_text_member(out, "reason", letter->reason);
    append_text_member(out, "stage", letter->stage);
    buffer_printf(out, ",\"attempts\":%u", letter->attempts);
    append_text_member(out, "error", letter->error);
    buffer_append_text(out, ",\"source\":{\"stream\":");
    buffer_append_json_string(out, letter->stream, strlen(letter->stream), 0);
    buffer_printf(out, ",\"offset\":%" PRIu64 ",\"time_ns\":%" PRIu64 "},\"first\":{\"offset\":%" PRIu64 ",\"time_ns\":%" PRIu64 "}",
                  letter->offset, letter->time_ns, letter->first_offset, letter->first_time_ns);
    if (letter->previous_reason[0])
        append_text_member(out, "previous_reason", letter->previous_reason);
    buffer_append_text(out, ",\"topic\":");
    buffer_append_json_string(out, record->topic, record->topic_length, 0);
    append_properties(out, record);
    buffer_append_text(out, ",");
    if (record->payload_length <= payload_max)
        tool_append_bytes_json(out, "payload", record->payload, record->payload_length);
    else
        buffer_printf(out, "\"payload_bytes\":%u", record->payload_length);
    return buffer_append_text(out, "}");
}
