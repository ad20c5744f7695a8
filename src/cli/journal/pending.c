/* `spindle journal audit --pending`: which messages have no outcome. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/journal/audit.h"
#include "cli/journal/tool.h"

/* Neighbours without an outcome, of one topic. */
struct range {
    uint64_t first, next; /* equal: none */
    uint64_t time_ns;     /* arrival of the first; 0: it cannot be read */
    struct buffer topic;
};

struct writing {
    struct buffer *out;
    bool json, any;
    uint64_t now_ns;
    struct range range;
};

static int write_range(struct writing *writing)
{
    struct range *range = &writing->range;
    if (range->first == range->next)
        return 0;
    uint64_t age_ns = range->time_ns && range->time_ns < writing->now_ns ? writing->now_ns - range->time_ns : 0;
    char age[TOOL_SIZE_TEXT_MAX];
    int error;
    if (writing->json) {
        error = buffer_printf(
            writing->out,
            "%s{\"first\":%" PRIu64 ",\"last\":%" PRIu64 ",\"count\":%" PRIu64 ",\"time_ns\":%" PRIu64 ",\"age_s\":%.3f,\"topic\":",
            writing->any ? "," : "", range->first, range->next - 1, range->next - range->first, range->time_ns, (double)age_ns / 1e9);
        if (!error)
            error = range->time_ns ? buffer_append_json_string(writing->out, (const char *)range->topic.data, range->topic.length, 0)
                                   : buffer_append_text(writing->out, "null");
        if (!error)
            error = buffer_append_text(writing->out, "}");
    } else {
        error = buffer_printf(writing->out, "%-13s   pending %" PRIu64, "", range->first);
        if (!error && range->next - range->first > 1)
            error = buffer_printf(writing->out, " to %" PRIu64, range->next - 1);
        if (!error)
            error = buffer_printf(writing->out, range->time_ns ? ", since %s: " : ": cannot be read", tool_age_text(age_ns, age));
        if (!error && range->time_ns)
            buffer_append_showable(writing->out, (const char *)range->topic.data, range->topic.length);
        if (!error)
            error = buffer_append_text(writing->out, "\n");
    }
    writing->any = true;
    range->first = range->next;
    return error;
}

/* `message` NULL: there is no record at the offset. */
static int add_offset(struct writing *writing, uint64_t offset, const struct message *message)
{
    struct range *range = &writing->range;
    bool fits = range->first < range->next && offset == range->next && (message != NULL) == (range->time_ns != 0) &&
                (!message || (message->topic_length == range->topic.length &&
                              (!message->topic_length || memcmp(message->topic, range->topic.data, message->topic_length) == 0)));
    int error = 0;
    if (!fits) {
        error = write_range(writing);
        range->first = offset;
        range->time_ns = message ? message->time_ns : 0;
        buffer_clear(&range->topic);
        if (!error && message)
            error = buffer_append(&range->topic, message->topic, message->topic_length);
    }
    range->next = offset + 1;
    return error;
}

static int write_ranges(struct writing *writing, struct reader *reader, const struct ledger *ledger, const struct ledger_extent *extent)
{
    uint64_t offset = ledger->cursor;
    int error = 0;
    while (!error && offset < extent->next) {
        struct message message;
        error = reader ? reader_next(reader, extent->next, &message, NULL) : ERR_TRUNCATED;
        uint64_t found = error == ERR_TRUNCATED ? extent->next : error ? offset : message.offset;
        bool is_record = !error;
        error = error == ERR_TRUNCATED ? 0 : error;
        for (; !error && offset < found; offset++)
            if (!ledger_is_settled(ledger, offset))
                error = add_offset(writing, offset, NULL);
        if (!error && is_record && !ledger_is_settled(ledger, found))
            error = add_offset(writing, found, &message);
        offset = found + is_record;
    }
    return error ? error : write_range(writing);
}

int audit_pending_write(const char *data_dir, const char *stream, const struct ledger *ledger, const struct ledger_extent *extent,
                        bool json, struct buffer *out)
{
    char folder[TOOL_FOLDER_MAX];
    struct writing writing = {.out = out, .json = json, .now_ns = clock_wall_ns()};
    struct reader *reader = NULL;
    buffer_init(&writing.range.topic, FORMAT_TOPIC_MAX);
    int error = tool_stream_folder(data_dir, stream, folder);
    if (!error)
        error = reader_open(&reader, disk_posix(), folder, ledger->cursor, NULL, NULL);
    if (error == ERR_NOT_FOUND)
        error = 0;
    if (!error && json)
        error = buffer_append_text(out, ",\"pending_offsets\":[");
    if (!error)
        error = write_ranges(&writing, reader, ledger, extent);
    if (!error && json)
        error = buffer_append_text(out, "]");
    reader_close(reader);
    buffer_fini(&writing.range.topic);
    return error;
}
