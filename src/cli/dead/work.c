#include "cli/dead/work.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/json_tree.h"
#include "queue/embedded.h"

void dead_request_init(struct dead_request *request, enum dead_action action)
{
    *request = (struct dead_request){.action = action, .end = UINT64_MAX, .limit = DEAD_LIMIT_MAX};
    dead_filter_init(&request->filter);
}

/* ---- as JSON ---- */

static int expect(const char *what, char message[VALUE_MESSAGE_MAX])
{
    snprintf(message, VALUE_MESSAGE_MAX, "expected %s", what);
    return ERR_INVALID;
}

/* A time is a text as on the command line, or nanoseconds since 1970. */
static int read_time(const struct json_tree *tree, const char *name, uint64_t *time_ns, char message[VALUE_MESSAGE_MAX])
{
    const char *text = json_tree_text(tree, name);
    if (!json_tree_has(tree, name) || json_tree_count(tree, name, time_ns))
        return 0;
    return text ? dead_filter_parse_time(time_ns, text, clock_wall_ns(), message)
                : expect("a text such as \"-10m\" or \"2026-11-21T10:34:43Z\", or nanoseconds since 1970", message);
}

/* Offsets are a text of ranges, or one number. */
static int read_offsets(const struct json_tree *tree, struct dead_filter *filter, char message[VALUE_MESSAGE_MAX])
{
    const char *text = json_tree_text(tree, "offset");
    uint64_t offset;
    if (!json_tree_has(tree, "offset"))
        return 0;
    if (json_tree_count(tree, "offset", &offset)) {
        filter->ranges[0] = (struct dead_range){offset, offset};
        filter->range_count = 1;
        return 0;
    }
    return text ? dead_filter_set_offsets(filter, text, message) : expect("a whole number from 0, or a text such as \"3,8-12\"", message);
}

static int read_text(const struct json_tree *tree, const char *name, struct dead_filter *filter,
                     int (*set)(struct dead_filter *filter, const char *text, char message[VALUE_MESSAGE_MAX]),
                     char message[VALUE_MESSAGE_MAX])
{
    const char *text = json_tree_text(tree, name);
    if (!json_tree_has(tree, name))
        return 0;
    return text ? set(filter, text, message) : expect("a text", message);
}

static int read_flag(const struct json_tree *tree, const char *name, bool *flag, char message[VALUE_MESSAGE_MAX])
{
    if (!json_tree_has(tree, name) || json_tree_flag(tree, name, flag))
        return 0;
    return expect("true or false", message);
}

static int read_count(const struct json_tree *tree, const char *name, uint64_t *count, uint64_t least, uint64_t most,
                      char message[VALUE_MESSAGE_MAX])
{
    uint64_t value;
    if (!json_tree_has(tree, name))
        return 0;
    if (!json_tree_count(tree, name, &value) || value < least || value > most) {
        snprintf(message, VALUE_MESSAGE_MAX, "expected a whole number from %" PRIu64 " to %" PRIu64, least, most);
        return ERR_INVALID;
    }
    *count = value;
    return 0;
}

static int read_member(const struct json_tree *tree, const char *name, struct dead_request *request, uint64_t *limit,
                       char message[VALUE_MESSAGE_MAX])
{
    struct dead_filter *filter = &request->filter;
    if (strcmp(name, "reason") == 0)
        return read_text(tree, name, filter, dead_filter_set_reason, message);
    if (strcmp(name, "tool") == 0)
        return read_text(tree, name, filter, dead_filter_set_tool, message);
    if (strcmp(name, "since") == 0)
        return read_time(tree, name, &filter->since_ns, message);
    if (strcmp(name, "until") == 0)
        return read_time(tree, name, &filter->until_ns, message);
    if (strcmp(name, "offset") == 0)
        return read_offsets(tree, filter, message);
    if (strcmp(name, "limit") == 0)
        return read_count(tree, name, limit, 1, DEAD_LIMIT_MAX, message);
    if (strcmp(name, "from") == 0 || strcmp(name, "end") == 0)
        return read_count(tree, name, *name == 'f' ? &request->from : &request->end, 0, INT64_MAX, message);
    return read_flag(tree, name,
                     strcmp(name, "all") == 0     ? &request->all
                     : strcmp(name, "force") == 0 ? &request->force
                                                  : &request->dry_run,
                     message);
}

int dead_request_read(struct dead_request *out, const void *json, size_t length, char message[VALUE_MESSAGE_MAX])
{
    static const char *const names[] = {"reason", "tool", "since", "until", "offset",  "limit",
                                        "from",   "end",  "all",   "force", "dry_run", NULL};
    struct json_tree *tree;
    char text[VALUE_MESSAGE_MAX];
    int error = json_tree_read(&tree, json, length, text);
    if (error) {
        snprintf(message, VALUE_MESSAGE_MAX, "%s", text);
        return error;
    }
    struct dead_request request = *out;
    uint64_t limit = request.limit;
    const char *unknown = json_tree_unknown(tree, names);
    if (unknown) {
        snprintf(message, VALUE_MESSAGE_MAX, "unknown key `%.60s`", unknown);
        error = ERR_INVALID;
    }
    for (unsigned i = 0; names[i] && !error; i++) {
        error = read_member(tree, names[i], &request, &limit, text);
        if (error)
            snprintf(message, VALUE_MESSAGE_MAX, "%s: %.400s", names[i], text);
    }
    json_tree_free(tree);
    request.limit = (uint32_t)limit;
    if (!error)
        *out = request;
    return error;
}

static void append_text(struct buffer *out, const char *name, const char *text)
{
    if (!*text)
        return;
    buffer_printf(out, ",\"%s\":", name);
    buffer_append_json_string(out, text, strlen(text), 0);
}

static void append_offsets(struct buffer *out, const struct dead_filter *filter)
{
    for (unsigned i = 0; i < filter->range_count; i++) {
        const struct dead_range *range = &filter->ranges[i];
        buffer_printf(out, "%s%" PRIu64 "-", i ? "," : ",\"offset\":\"", range->first);
        if (range->last != UINT64_MAX)
            buffer_printf(out, "%" PRIu64, range->last);
    }
    if (filter->range_count)
        buffer_append_text(out, "\"");
}

int dead_request_write(const struct dead_request *request, struct buffer *out)
{
    const struct dead_filter *filter = &request->filter;
    buffer_printf(out, "{\"limit\":%u,\"from\":%" PRIu64, request->limit, request->from);
    if (request->end != UINT64_MAX)
        buffer_printf(out, ",\"end\":%" PRIu64, request->end);
    append_text(out, "reason", filter->reason);
    append_text(out, "tool", filter->tool);
    if (filter->since_ns)
        buffer_printf(out, ",\"since\":%" PRIu64, filter->since_ns);
    if (filter->until_ns != UINT64_MAX)
        buffer_printf(out, ",\"until\":%" PRIu64, filter->until_ns);
    append_offsets(out, filter);
    return buffer_printf(out, "%s%s%s}", request->all ? ",\"all\":true" : "", request->force ? ",\"force\":true" : "",
                         request->dry_run ? ",\"dry_run\":true" : "");
}

int dead_done_write(const struct dead_request *request, const struct dead_done *done, struct buffer *out)
{
    buffer_printf(out, "{\"dry_run\":%s,\"matched\":%" PRIu64 ",\"%s\":%" PRIu64, request->dry_run ? "true" : "false", done->matched,
                  request->action == DEAD_REQUEUE ? "requeued" : "purged", done->done);
    if (request->action == DEAD_REQUEUE)
        buffer_printf(out, ",\"refused\":%" PRIu64, done->refused);
    buffer_printf(out, ",\"more\":%s,\"end\":%" PRIu64, done->more ? "true" : "false", done->end);
    if (done->more)
        buffer_printf(out, ",\"next\":%" PRIu64, done->next);
    return buffer_append_text(out, "}\n");
}

int dead_done_read(struct dead_done *out, const void *json, size_t length)
{
    struct json_tree *tree;
    char why[JSON_TREE_WHY_MAX];
    struct dead_done done = {0};
    if (json_tree_read(&tree, json, length, why))
        return ERR_CORRUPT;
    bool whole = json_tree_count(tree, "matched", &done.matched) &&
                 (json_tree_count(tree, "requeued", &done.done) || json_tree_count(tree, "purged", &done.done)) &&
                 json_tree_count(tree, "end", &done.end) && json_tree_flag(tree, "more", &done.more) &&
                 (!done.more || json_tree_count(tree, "next", &done.next));
    json_tree_count(tree, "refused", &done.refused);
    json_tree_free(tree);
    if (whole)
        *out = done;
    return whole ? 0 : ERR_CORRUPT;
}

/* ---- doing it ---- */

struct working {
    struct dead_letters *letters;
    const struct dead_request *request;
    unsigned attempts_max;
    struct dead_done done;
    uint64_t in_turn;
};

static int commit(struct working *working)
{
    int error = dead_letters_commit(working->letters, DEAD_COMMIT_WAIT_MS);
    if (!error)
        working->done.done += working->in_turn;
    working->in_turn = 0;
    return error;
}

static int take(struct working *working, const struct message *record)
{
    const struct dead_request *request = working->request;
    struct dead_letter letter;
    dead_letter_read(record, &letter);
    if (!dead_letters_is_open(working->letters, record->offset) || !dead_filter_matches(&request->filter, record, &letter))
        return 0;
    working->done.matched++;
    if (request->action == DEAD_REQUEUE && letter.attempts >= working->attempts_max && !request->force) {
        working->done.refused++;
        return 0;
    }
    if (request->dry_run)
        return 0;
    int error = dead_letters_turn_is_full(working->letters) ? commit(working) : 0;
    if (!error)
        error = request->action == DEAD_REQUEUE ? dead_letters_requeue(working->letters, record)
                                                : dead_letters_purge(working->letters, record->offset);
    working->in_turn += !error;
    return error;
}

static int work(struct working *working, struct reader *reader)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DEAD_TIME_MAX_MS * UINT64_C(1000000);
    struct dead_done *done = &working->done;
    struct message record;
    int error;
    while (!(error = reader_next(reader, done->end, &record, NULL))) {
        if (done->matched == working->request->limit || clock_monotonic_ns() > deadline_ns) {
            done->next = record.offset;
            done->more = true;
            return 0;
        }
        error = take(working, &record);
        if (error)
            return error;
    }
    return error == ERR_TRUNCATED ? 0 : error;
}

int dead_work(struct queue *queue, struct dead_letters *letters, const struct dead_request *request, unsigned attempts_max,
              struct dead_done *out)
{
    struct working working = {.letters = letters, .request = request, .attempts_max = attempts_max};
    struct journal_stream *stream = queue_embedded_options(queue)->dead_letters;
    uint64_t first = dead_filter_first(&request->filter), durable = journal_stream_durable(stream);
    struct reader *reader = NULL;
    working.done.end = request->end < durable ? request->end : durable;
    int error = dead_letters_ready(letters);
    if (!error)
        error = journal_stream_reader(stream, request->from > first ? request->from : first, &reader);
    if (!error)
        error = work(&working, reader);
    if (working.in_turn) {
        int failed = commit(&working);
        error = error ? error : failed;
    }
    reader_close(reader);
    *out = working.done;
    return error;
}
