/* `spindle journal cat`. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/journal_tool.h"
#include "cli/journal_when.h"
#include "journal/inspect.h"
#include "mqtt/packet.h"
#include "mqtt/topic.h"
#include "queue/dead_letter.h"

static const char command[] = "spindle journal cat";

/* ---- one record ---- */

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
    if (message->flags & MESSAGE_REQUEUED)
        dead_letter_own_properties(message, &raw.data, &raw.length);
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

/* Of a dead letter that was put back. */
static void append_history(struct buffer *line, const struct message *message)
{
    struct dead_letter letter;
    if (!(message->flags & MESSAGE_REQUEUED) || dead_letter_decode(message, &letter))
        return;
    buffer_printf(line,
                  ",\"requeued\":{\"dead_letter\":%" PRIu64 ",\"attempts\":%u,\"first_offset\":%" PRIu64 ",\"first_time_ns\":%" PRIu64
                  ",\"reason\":",
                  letter.place, letter.attempts, letter.first_offset, letter.first_time_ns);
    buffer_append_json_string(line, letter.reason, strlen(letter.reason), 0);
    buffer_append_text(line, "}");
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
        append_history(line, message);
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

/* ---- which records ---- */

/* A record may reach a segment a little after its arrival, and a clock may be set back a little. */
#define CLOCK_MARGIN_NS (60 * UINT64_C(1000000000))

struct selection {
    struct when from, to;
    bool to_given;
    const char *topic; /* NULL: all */
    uint64_t left;     /* records to print */
};

static bool is_selected(const struct selection *selection, const struct message *message)
{
    return (!selection->from.is_time || message->time_ns >= selection->from.time_ns) &&
           (!selection->to_given || !selection->to.is_time || message->time_ns < selection->to.time_ns) &&
           (!selection->topic || mqtt_topic_matches(selection->topic, strlen(selection->topic), message->topic, message->topic_length));
}

/* Offsets between which all records of the selection lie: times are looked up in the headers of the segments. */
static int find_range(const char *folder, const struct selection *selection, uint64_t *first, uint64_t *until)
{
    *first = selection->from.offset;
    *until = selection->to_given && !selection->to.is_time ? selection->to.offset : UINT64_MAX;
    if (!selection->from.is_time && !(selection->to_given && selection->to.is_time))
        return 0;
    struct inspect_file *files = NULL;
    size_t count = 0, begin = 0;
    int error = inspect_files(disk_posix(), folder, &files, &count);
    if (error)
        return error;
    while (count && files[count - 1].state > INSPECT_ACTIVE)
        count--;
    /* What was made before the time holds nothing from then on if its follower was made before it too. */
    while (selection->from.is_time && begin + 1 < count && files[begin + 1].created_ns &&
           files[begin + 1].created_ns + CLOCK_MARGIN_NS < selection->from.time_ns)
        begin++;
    if (begin && count)
        *first = files[begin].base_offset;
    for (size_t i = count; selection->to_given && selection->to.is_time && i > 0; i--) {
        if (files[i - 1].created_ns <= selection->to.time_ns + CLOCK_MARGIN_NS)
            break;
        *until = files[i - 1].base_offset;
    }
    free(files);
    return 0;
}

/* ---- waiting for more ---- */

enum { FOLLOW_WAIT_MS = 5000, FOLLOW_WAIT_BLIND_MS = 500 }; /* BLIND: where the system does not tell of changes */

static int watch(const char *folder)
{
    int notices = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (notices >= 0 && inotify_add_watch(notices, folder, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF) < 0) {
        close(notices);
        notices = -1;
    }
    return notices;
}

/* Whether a record may stand where the reader is, or a segment behind. Cheaper than to let the reader look for damage. */
static bool is_more(const char *folder, const struct reader *reader)
{
    struct disk *disk = disk_posix();
    struct reader_place place;
    struct segment_file segment;
    _Alignas(8) uint8_t header[FORMAT_RECORD_HEADER_SIZE];
    uint32_t length;
    uint64_t *bases = NULL;
    size_t count = 0;
    reader_place(reader, &place);
    bool behind = segment_list(disk, folder, &bases, &count) != 0 || (count && bases[count - 1] != place.base_offset);
    free(bases);
    if (behind)
        return true;
    if (!count || segment_open(disk, folder, place.base_offset, DISK_READ, &segment))
        return count > 0;
    bool stands = disk->ops->read(disk, segment.file, header, sizeof header, place.position) == sizeof header &&
                  format_record_check(header, sizeof header, segment.salt, &length) != FORMAT_INVALID;
    disk->ops->close(disk, segment.file);
    return stands;
}

static void wait_for_more(int notices, const char *folder, const struct reader *reader)
{
    char events[4096];
    fflush(stdout);
    do {
        struct pollfd poller = {.fd = notices, .events = POLLIN};
        poll(&poller, 1, notices < 0 ? FOLLOW_WAIT_BLIND_MS : FOLLOW_WAIT_MS);
        while (notices >= 0 && read(notices, events, sizeof events) > 0)
            continue;
    } while (!is_more(folder, reader));
}

/* ---- the command ---- */

static bool print(struct buffer *line, const struct journal_cat_arguments *arguments, const struct message *message)
{
    if (arguments->raw)
        return fwrite(message->payload, 1, message->payload_length, stdout) == message->payload_length;
    return print_record(line, arguments->stream, message, arguments->json);
}

/* Prints until the end. Returns ERR_TRUNCATED there, 0 when enough was printed or nothing more can be. */
static int print_all(const struct journal_cat_arguments *arguments, const char *folder, struct selection *selection, struct reader *reader,
                     uint64_t until)
{
    struct buffer line;
    struct message message;
    int notices = arguments->follow ? watch(folder) : -1, error = 0;
    bool written = true;
    buffer_init(&line, TOOL_LINE_MAX);
    while (written && selection->left && !error) {
        error = reader_next(reader, until, &message, NULL);
        if (error == ERR_TRUNCATED && arguments->follow) {
            wait_for_more(notices, folder, reader);
            error = 0;
        } else if (!error && is_selected(selection, &message)) {
            written = print(&line, arguments, &message);
            selection->left--;
        }
    }
    buffer_fini(&line);
    if (notices >= 0)
        close(notices);
    return error;
}

static int read_selection(const struct journal_cat_arguments *arguments, struct selection *selection)
{
    char message[VALUE_MESSAGE_MAX];
    uint64_t now_ns = clock_wall_ns();
    *selection = (struct selection){
        .to_given = arguments->to_given, .topic = arguments->topic, .left = arguments->count_given ? arguments->count : UINT64_MAX};
    if (when_parse(arguments->from, now_ns, &selection->from, message))
        return tool_refuse(command, "--from: %s", message);
    if (arguments->to_given && when_parse(arguments->to, now_ns, &selection->to, message))
        return tool_refuse(command, "--to: %s", message);
    if (arguments->topic && !mqtt_topic_filter_valid(arguments->topic, strlen(arguments->topic)))
        return tool_refuse(command, "--topic: `%s` is no MQTT topic filter; `+` stands for one level, `#` for all that follow",
                           arguments->topic);
    if (arguments->json && arguments->raw)
        return tool_refuse(command, "--json and --raw exclude each other");
    if (arguments->to_given && arguments->follow)
        return tool_refuse(command, "--to and --follow exclude each other");
    return COMMAND_OK;
}

int command_journal_cat(const struct journal_cat_arguments *arguments)
{
    tool_begin_output();
    char folder[TOOL_FOLDER_MAX];
    struct selection selection;
    bool damaged = false;
    struct reader *reader = NULL;
    uint64_t first, until;
    int status = read_selection(arguments, &selection);
    if (status)
        return status;
    int error = tool_stream_folder(arguments->data_dir, arguments->stream, folder);
    if (!error)
        error = find_range(folder, &selection, &first, &until);
    if (!error)
        error = reader_open(&reader, disk_posix(), folder, first, tool_say_damage, &damaged);
    if (!error)
        error = print_all(arguments, folder, &selection, reader, until);
    reader_close(reader);
    if (error && error != ERR_TRUNCATED)
        status = tool_refuse_folder(command, arguments->data_dir, arguments->stream, error);
    else if (damaged)
        status = COMMAND_FAILED;
    return tool_finish_output(command, status);
}
