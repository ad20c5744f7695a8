/* `spindle journal cat`. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/journal_tool.h"
#include "mqtt/packet.h"

static void append_pair(struct buffer *line, bool first, struct mqtt_slice name, struct mqtt_slice value)
{
    buffer_append_text(line, first ? ",\"properties\":[[" : ",[");
    buffer_append_json_string(line, (const char *)name.data, name.length, 0);
    buffer_append_text(line, ",");
    buffer_append_json_string(line, (const char *)value.data, value.length, 0);
    buffer_append_text(line, "]");
}

/* The user properties of a message as it was or will be published: [[name, value], ...], since names may repeat. What `dead-letters` and
 * `outcomes` keep in their place is not published. */
static void append_properties(struct buffer *line, const char *stream, const struct message *message)
{
    struct mqtt_slice raw = {message->properties, message->properties_length}, name, value;
    bool first = true;
    if (strcmp(stream, "results") == 0) {
        static const char id[] = "message-id";
        if (raw.length) {
            append_pair(line, true, (struct mqtt_slice){(const uint8_t *)id, sizeof id - 1}, raw);
            first = false;
        }
    } else if (strcmp(stream, "dead-letters") != 0 && strcmp(stream, "outcomes") != 0) {
        for (uint32_t position = 0; mqtt_properties_next_user(raw, &position, &name, &value); first = false)
            append_pair(line, first, name, value);
    }
    if (!first)
        buffer_append_text(line, "]");
}

static bool print_record(struct buffer *line, const char *stream, const struct message *message, bool json)
{
    buffer_clear(line);
    if (json) {
        buffer_printf(line, "{\"stream\":\"%s\",\"offset\":%" PRIu64 ",\"time_ns\":%" PRIu64 ",\"topic\":", stream, message->offset,
                      message->time_ns);
        buffer_append_json_string(line, message->topic, message->topic_length, 0);
        buffer_append_text(line, ",");
        tool_append_bytes_json(line, "payload", message->payload, message->payload_length);
        append_properties(line, stream, message);
        buffer_append_text(line, "}\n");
    } else {
        char time_text[CLOCK_TEXT_SIZE];
        clock_wall_text(message->time_ns, time_text);
        buffer_printf(line, "%" PRIu64 " %s ", message->offset, time_text);
        tool_append_printable(line, message->topic, message->topic_length);
        buffer_append_text(line, " ");
        if (text_is_utf8((const char *)message->payload, message->payload_length))
            tool_append_printable(line, (const char *)message->payload, message->payload_length);
        else
            buffer_printf(line, "(%u bytes that are not text; --json shows them)", message->payload_length);
        buffer_append_text(line, "\n");
    }
    return tool_emit(line);
}

int command_journal_cat(const struct journal_cat_arguments *arguments)
{
    static const char command[] = "spindle journal cat";
    tool_begin_output();
    char folder[TOOL_FOLDER_MAX];
    bool damaged = false;
    struct reader *reader;
    int error = tool_stream_folder(arguments->data_dir, arguments->stream, folder);
    if (!error)
        error = reader_open(&reader, disk_posix(), folder, arguments->from, tool_say_damage, &damaged);
    if (error)
        return tool_refuse_folder(command, arguments->data_dir, arguments->stream, error);
    struct buffer line;
    buffer_init(&line, TOOL_LINE_MAX);
    struct message message;
    uint64_t left = arguments->count_given ? arguments->count : UINT64_MAX;
    bool written = true;
    while (written && left-- && !(error = reader_next(reader, UINT64_MAX, &message, NULL)))
        written = print_record(&line, arguments->stream, &message, arguments->json);
    buffer_fini(&line);
    reader_close(reader);
    int status = damaged ? COMMAND_FAILED : COMMAND_OK;
    if (error && error != ERR_TRUNCATED)
        status = tool_refuse_folder(command, arguments->data_dir, arguments->stream, error);
    return tool_finish_output(command, status);
}
