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
#include "cli/journal/selection.h"
#include "cli/journal/tool.h"
#include "cli/result_properties.h"
#include "journal/ends.h"
#include "mqtt/packet.h"
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
    struct mqtt_slice raw, name, value;
    struct buffer published;
    bool first = true;
    if (strcmp(stream, "dead-letters") == 0 || strcmp(stream, "outcomes") == 0)
        return;
    message_published_properties(message, &raw.data, &raw.length);
    buffer_init(&published, RESULT_PROPERTIES_MAX);
    if (strcmp(stream, "results") == 0) {
        (void)result_properties_write(message, &published);
        raw = (struct mqtt_slice){published.data, (uint32_t)published.length};
    }
    for (uint32_t position = 0; mqtt_properties_next_user(raw, &position, &name, &value); first = false)
        append_pair(line, first, name, value);
    if (!first)
        buffer_append_text(line, "]");
    buffer_fini(&published);
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
        if (message->flags & MESSAGE_WITHHELD)
            buffer_append_text(line, ",\"withheld\":true");
        buffer_append_text(line, "}\n");
    } else {
        char time_text[CLOCK_TEXT_SIZE];
        bool one = message->payload_length == 1;
        clock_wall_text(message->time_ns, time_text);
        buffer_printf(line, "%" PRIu64 " %s ", message->offset, time_text);
        buffer_append_showable(line, message->topic, message->topic_length);
        buffer_append_text(line, message->flags & MESSAGE_WITHHELD ? " (withheld) " : " ");
        if (text_is_utf8((const char *)message->payload, message->payload_length))
            buffer_append_showable(line, (const char *)message->payload, message->payload_length);
        else
            buffer_printf(line, "(%u byte%s that %s not text; --json shows %s)", message->payload_length, one ? "" : "s",
                          one ? "is" : "are", one ? "it" : "them");
        buffer_append_text(line, "\n");
    }
    return tool_emit(line);
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
    uint64_t unreadable_to;
    size_t have;
    bool stands = segment_read(disk, &segment, header, sizeof header, place.position, &have, &unreadable_to) == 0 &&
                  have == sizeof header && format_record_check(header, sizeof header, segment.salt, &length) != FORMAT_INVALID;
    segment_close(disk, &segment);
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
static int print_all(const struct journal_cat_arguments *arguments, const char *folder, const struct selection *selection,
                     struct reader *reader, uint64_t until)
{
    struct buffer line;
    struct message message;
    int notices = arguments->follow ? watch(folder) : -1, error = 0;
    bool written = true;
    uint64_t left = arguments->count_given ? arguments->count : UINT64_MAX;
    buffer_init(&line, TOOL_LINE_MAX);
    while (written && left && !error) {
        error = reader_next(reader, until, &message, NULL);
        if (error == ERR_TRUNCATED && arguments->follow) {
            wait_for_more(notices, folder, reader);
            error = 0;
        } else if (!error && selection_has(selection, &message)) {
            written = print(&line, arguments, &message);
            left--;
        }
    }
    buffer_fini(&line);
    if (notices >= 0)
        close(notices);
    return error;
}

/* Says what is gone from the beginning of the stream, if records from offset `from` on are asked for. */
static bool say_lost_beginning(const struct journal_cat_arguments *arguments, uint64_t from, uint64_t until)
{
    uint64_t first = tool_first_offset(arguments->data_dir, arguments->stream);
    uint64_t known = tool_known_first(arguments->data_dir, arguments->stream);
    if (first <= known || first <= from || until <= known)
        return false;
    char name[32], text[ENDS_TEXT_MAX];
    segment_name(first, name);
    ends_lost_beginning_text(known, first, text);
    fprintf(stderr, "damage: %s at byte 0: %s\n", name, text);
    return true;
}

static int check_arguments(const struct journal_cat_arguments *arguments)
{
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
    uint64_t first, until, known = tool_known_end(arguments->data_dir, arguments->stream);
    int status = selection_read(command, arguments->from, arguments->to_given ? arguments->to : NULL, arguments->topic, &selection);
    if (!status)
        status = check_arguments(arguments);
    if (status)
        return status;
    int error = tool_stream_folder(arguments->data_dir, arguments->stream, folder);
    if (!error)
        error = selection_range(folder, &selection, &first, &until);
    if (!error)
        error = reader_open(&reader, disk_posix(), folder, first, tool_say_damage, &damaged);
    if (!error)
        damaged = say_lost_beginning(arguments, first, until) || damaged;
    if (!error)
        error = print_all(arguments, folder, &selection, reader, until);
    if (error == ERR_TRUNCATED && reader_offset(reader) < (known < until ? known : until)) {
        char text[ENDS_TEXT_MAX];
        ends_lost_text(reader_offset(reader), known, text);
        fprintf(stderr, "damage: %s\n", text);
        damaged = true;
    }
    reader_close(reader);
    if (error && error != ERR_TRUNCATED)
        status = tool_refuse_folder(command, arguments->data_dir, arguments->stream, error);
    else if (damaged)
        status = COMMAND_FAILED;
    return command_finish_output(command, status);
}
