#include "cli/dead/http.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "cli/dead/json.h"
#include "cli/dead/work.h"
#include "control/pages.h"
#include "queue/embedded.h"

enum {
    LIST_DEFAULT = 100,
    LIST_MAX = 1000,
    LIST_BYTES = 4 << 20,   /* a list that has become so long ends */
    PAYLOAD_SHOWN = 2 << 20 /* bytes; a larger payload is not shown, only its size */
};

__attribute__((format(printf, 3, 4))) static void refuse(struct page *page, int status, const char *format, ...)
{
    char text[VALUE_MESSAGE_MAX + 64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    page_render_error(page, status, text);
}

/* ---- looking ---- */

struct listing {
    struct dead_filter filter;
    uint64_t from;
    uint32_t limit;
};

static int read_whole(const char *text, uint64_t least, uint64_t most, uint64_t *value, char message[VALUE_MESSAGE_MAX])
{
    size_t length = strlen(text);
    uint64_t number = strtoull(text, NULL, 10);
    if (length == 0 || length > 18 || text[strspn(text, "0123456789")] || number < least || number > most) {
        snprintf(message, VALUE_MESSAGE_MAX, "expected a whole number from %" PRIu64 " to %" PRIu64, least, most);
        return ERR_INVALID;
    }
    *value = number;
    return 0;
}

static int read_query(const struct http_request *request, struct listing *listing, const char **name, char message[VALUE_MESSAGE_MAX])
{
    static const char *const names[] = {"reason", "tool", "since", "until", "offset", "from", "limit"};
    uint64_t now_ns = clock_wall_ns(), limit = LIST_DEFAULT;
    struct dead_filter *filter = &listing->filter;
    *listing = (struct listing){0};
    dead_filter_init(filter);
    int error = 0;
    for (unsigned i = 0; i < sizeof names / sizeof *names && !error; i++) {
        const char *text = http_query(request, names[i]);
        *name = names[i];
        if (!text)
            continue;
        switch (i) {
        case 0:
            error = dead_filter_set_reason(filter, text, message);
            break;
        case 1:
            error = dead_filter_set_tool(filter, text, message);
            break;
        case 2:
        case 3:
            error = dead_filter_parse_time(i == 2 ? &filter->since_ns : &filter->until_ns, text, now_ns, message);
            break;
        case 4:
            error = dead_filter_set_offsets(filter, text, message);
            break;
        default:
            error = read_whole(text, i == 6, i == 6 ? LIST_MAX : INT64_MAX, i == 6 ? &limit : &listing->from, message);
        }
    }
    listing->limit = (uint32_t)limit;
    return error;
}

static int write_list(struct dead_http *http, const struct listing *listing, struct reader *reader, uint64_t end, struct buffer *body)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DEAD_TIME_MAX_MS * UINT64_C(1000000);
    struct message record;
    struct dead_letter letter;
    uint32_t count = 0;
    int error = buffer_append_text(body, "{\"dead_letters\":[");
    while (!error && !(error = reader_next(reader, end, &record, NULL))) {
        if (count == listing->limit || body->length > LIST_BYTES || clock_monotonic_ns() > deadline_ns)
            return buffer_printf(body, "],\"next\":%" PRIu64 "}\n", record.offset);
        dead_letter_read(&record, &letter);
        if (!dead_letters_is_open(http->letters, record.offset) || !dead_filter_matches(&listing->filter, &record, &letter))
            continue;
        error = count++ ? buffer_append_text(body, ",\n") : 0;
        if (!error)
            error = dead_json_write(body, &record, &letter, "open", 0);
    }
    return error == ERR_TRUNCATED ? buffer_append_text(body, "],\"next\":null}\n") : error;
}

static void answer_list(struct dead_http *http, const struct http_request *request, struct page *page)
{
    struct journal_stream *stream = queue_embedded_options(http->queue)->dead_letters;
    struct listing listing;
    struct reader *reader = NULL;
    char message[VALUE_MESSAGE_MAX];
    const char *name;
    if (read_query(request, &listing, &name, message)) {
        refuse(page, 400, "%s: %s", name, message);
        return;
    }
    uint64_t first = dead_filter_first(&listing.filter), from = listing.from > first ? listing.from : first;
    int error = journal_stream_reader(stream, from, &reader);
    if (!error)
        error = write_list(http, &listing, reader, journal_stream_durable(stream), &page->body);
    reader_close(reader);
    if (error)
        refuse(page, error_http_status(error), "%s", error_text(error));
}

static void answer_one(struct dead_http *http, uint64_t offset, struct page *page)
{
    struct journal_stream *stream = queue_embedded_options(http->queue)->dead_letters;
    struct reader *reader = NULL;
    struct message record;
    struct dead_letter letter;
    uint64_t durable = journal_stream_durable(stream);
    int error = offset < durable ? journal_stream_reader(stream, offset, &reader) : ERR_NOT_FOUND;
    if (!error)
        error = reader_next(reader, offset + 1, &record, NULL);
    if (!error) {
        dead_letter_read(&record, &letter);
        const char *state = dead_letters_is_open(http->letters, offset) ? "open" : "closed";
        error = dead_json_write(&page->body, &record, &letter, state, PAYLOAD_SHOWN);
        buffer_append_text(&page->body, "\n");
    }
    reader_close(reader);
    if (error == ERR_NOT_FOUND || error == ERR_TRUNCATED)
        refuse(page, 404, "there is no dead letter at offset %" PRIu64, offset);
    else if (error)
        refuse(page, error_http_status(error), "%s", error_text(error));
}

/* ---- changing ---- */

static void answer_action(struct dead_http *http, const struct http_request *request, enum dead_action action, struct page *page)
{
    struct dead_request wanted;
    struct dead_done done;
    char message[VALUE_MESSAGE_MAX];
    dead_request_init(&wanted, action);
    if (!request->is_post) {
        refuse(page, 405, "only POST is answered here");
        page->allow = "POST";
        return;
    }
    if (dead_request_read(&wanted, request->body, request->body_length, message)) {
        refuse(page, 400, "%s", message);
        return;
    }
    if (dead_filter_is_empty(&wanted.filter) && !wanted.all) {
        refuse(page, 400, "nothing says which; expected reason, tool, since, until or offset, or \"all\": true");
        return;
    }
    if (action == DEAD_REQUEUE && !http->has_pipeline) {
        refuse(page, 409, "drilling.enabled is false: nobody would take what is put back");
        return;
    }
    int error = dead_work(http->queue, http->letters, &wanted, http->attempts_max, &done);
    if (done.done)
        diagnostics(DIAGNOSTICS_INFO, "dead", "%" PRIu64 " dead letters were %s", done.done,
                    action == DEAD_REQUEUE ? "requeued" : "purged");
    if (error == ERR_BUSY)
        refuse(page, 503, "not now: messages from before the start are still being read, or the disk does not take what is waiting");
    else if (error)
        refuse(page, error_http_status(error), "%s", error_text(error));
    else if (dead_done_write(&wanted, &done, &page->body))
        refuse(page, 503, "%s", error_text(ERR_NO_MEMORY));
}

void dead_http_answer(void *context, const struct http_request *request, struct page *page)
{
    struct dead_http *http = context;
    const char *rest = request->path + strlen(DEAD_HTTP_PATH);
    char message[VALUE_MESSAGE_MAX];
    uint64_t offset;
    if (!atomic_load(&http->serving))
        refuse(page, 503, "it is starting or stopping; see /readyz");
    else if (strcmp(rest, "/requeue") == 0)
        answer_action(http, request, DEAD_REQUEUE, page);
    else if (strcmp(rest, "/purge") == 0)
        answer_action(http, request, DEAD_PURGE, page);
    else if (*rest && read_whole(rest + 1, 0, INT64_MAX, &offset, message))
        refuse(page, 404,
               "there is nothing here; try " DEAD_HTTP_PATH ", " DEAD_HTTP_PATH "/OFFSET, " DEAD_HTTP_PATH "/requeue, " DEAD_HTTP_PATH
               "/purge");
    else if (request->is_post)
        refuse(page, 405, "only GET and HEAD are answered here");
    else if (*rest)
        answer_one(http, offset, page);
    else
        answer_list(http, request, page);
}
