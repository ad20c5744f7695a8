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
#include "cli/dead/states.h"
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
    bool all; /* closed ones too */
};

/* Otherwise the page says why not. */
static bool may_answer(struct dead_http *http, struct page *page)
{
    bool serving = atomic_load(&http->serving);
    if (!serving)
        refuse(page, 503, "it is starting or stopping; see /readyz");
    return serving;
}

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

static int read_flag(const char *text, bool *flag, char message[VALUE_MESSAGE_MAX])
{
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
        snprintf(message, VALUE_MESSAGE_MAX, "expected true or false");
        return ERR_INVALID;
    }
    *flag = *text == 't';
    return 0;
}

static const char *const list_names[] = {"reason", "tool", "since", "until", "offset", "all", "from", "limit", NULL};

static int read_query(const struct http_request *request, struct listing *listing, const char **name, char message[VALUE_MESSAGE_MAX])
{
    uint64_t now_ns = clock_wall_ns(), limit = LIST_DEFAULT;
    struct dead_filter *filter = &listing->filter;
    *listing = (struct listing){0};
    dead_filter_init(filter);
    int error = 0;
    for (unsigned i = 0; list_names[i] && !error; i++) {
        const char *text = http_query(request, list_names[i]);
        *name = list_names[i];
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
        case 5:
            error = read_flag(text, &listing->all, message);
            break;
        case 6:
            error = read_whole(text, 0, INT64_MAX, &listing->from, message);
            break;
        default:
            error = read_whole(text, 1, LIST_MAX, &limit, message);
        }
    }
    listing->limit = (uint32_t)limit;
    return error;
}

static uint64_t deadline(void)
{
    return clock_monotonic_ns() + DEAD_TIME_MAX_MS * UINT64_C(1000000);
}

/* How closed dead letters from `first` on were closed. A mark that is made only now may not be there yet: its dead letter is "closed". */
static int load_states(struct dead_http *http, uint64_t first, uint64_t end, struct dead_states *states)
{
    struct journal_stream *outcomes = queue_embedded_options(http->queue)->outcomes;
    struct reader *reader;
    int error = journal_stream_reader(outcomes, 0, &reader);
    if (error)
        return error;
    error = dead_states_load(states, reader, journal_stream_durable(outcomes), first, end, deadline());
    reader_close(reader);
    return error;
}

static int write_list(struct dead_http *http, const struct listing *listing, const struct dead_states *states, struct reader *reader,
                      uint64_t end, struct buffer *body)
{
    uint64_t deadline_ns = deadline();
    struct message record;
    struct dead_letter letter;
    uint32_t count = 0;
    int error = buffer_append_text(body, "{\"dead_letters\":[");
    while (!error && !(error = reader_next(reader, end, &record, NULL))) {
        if (count == listing->limit || body->length > LIST_BYTES || clock_monotonic_ns() > deadline_ns)
            return buffer_printf(body, "],\"next\":%" PRIu64 "}\n", record.offset);
        dead_letter_read(&record, &letter);
        bool open = dead_letters_is_open(http->letters, record.offset);
        if ((!open && !listing->all) || !dead_filter_matches(&listing->filter, &record, &letter))
            continue;
        error = count++ ? buffer_append_text(body, ",\n") : 0;
        if (!error)
            error = dead_json_write(body, &record, &letter, dead_states_word(states, record.offset, open), 0);
    }
    return error == ERR_TRUNCATED ? buffer_append_text(body, "],\"next\":null}\n") : error;
}

static void answer_list(void *context, const struct http_request *request, struct page *page)
{
    struct dead_http *http = context;
    struct listing listing;
    char message[VALUE_MESSAGE_MAX];
    const char *name;
    if (!may_answer(http, page))
        return;
    if (read_query(request, &listing, &name, message)) {
        refuse(page, 400, "%s: %s", name, message);
        return;
    }
    struct journal_stream *stream = queue_embedded_options(http->queue)->dead_letters;
    struct reader *reader = NULL;
    struct dead_states states = {0};
    uint64_t first = dead_filter_first(&listing.filter), from = listing.from > first ? listing.from : first;
    uint64_t end = journal_stream_durable(stream);
    int error = listing.all ? load_states(http, from, end, &states) : 0;
    if (!error)
        error = journal_stream_reader(stream, from, &reader);
    if (!error)
        error = write_list(http, &listing, &states, reader, end, &page->body);
    reader_close(reader);
    dead_states_fini(&states);
    if (error)
        refuse(page, error_http_status(error), "%s", error_text(error));
}

static void answer_one(void *context, const struct http_request *request, struct page *page)
{
    struct dead_http *http = context;
    struct reader *reader = NULL;
    struct message record;
    struct dead_letter letter;
    struct dead_states states = {0};
    uint64_t offset;
    char message[VALUE_MESSAGE_MAX];
    if (!may_answer(http, page))
        return;
    if (read_whole(request->element, 0, INT64_MAX, &offset, message)) {
        refuse(page, 404, "there is nothing at " DEAD_HTTP_PATH "/%.60s; the place of a dead letter is its offset, a whole number",
               request->element);
        return;
    }
    struct journal_stream *stream = queue_embedded_options(http->queue)->dead_letters;
    uint64_t durable = journal_stream_durable(stream);
    bool open = dead_letters_is_open(http->letters, offset);
    int error = offset < durable ? journal_stream_reader(stream, offset, &reader) : ERR_NOT_FOUND;
    if (!error)
        error = reader_next(reader, offset + 1, &record, NULL);
    if (!error && !open)
        error = load_states(http, offset, offset + 1, &states);
    if (!error) {
        dead_letter_read(&record, &letter);
        error = dead_json_write(&page->body, &record, &letter, dead_states_word(&states, offset, open), PAYLOAD_SHOWN);
        buffer_append_text(&page->body, "\n");
    }
    reader_close(reader);
    dead_states_fini(&states);
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
    if (!may_answer(http, page))
        return;
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

static void answer_requeue(void *context, const struct http_request *request, struct page *page)
{
    answer_action(context, request, DEAD_REQUEUE, page);
}

static void answer_purge(void *context, const struct http_request *request, struct page *page)
{
    answer_action(context, request, DEAD_PURGE, page);
}

void dead_http_routes(struct dead_http *http, struct http_route routes[DEAD_HTTP_ROUTE_COUNT])
{
    routes[0] = (struct http_route){.path = DEAD_HTTP_PATH, .parameters = list_names, .answer = answer_list};
    routes[1] = (struct http_route){.path = DEAD_HTTP_PATH "/requeue", .changes = true, .answer = answer_requeue};
    routes[2] = (struct http_route){.path = DEAD_HTTP_PATH "/purge", .changes = true, .answer = answer_purge};
    routes[3] = (struct http_route){.path = DEAD_HTTP_PATH "/{offset}", .answer = answer_one};
    for (unsigned i = 0; i < DEAD_HTTP_ROUTE_COUNT; i++)
        routes[i].context = http;
}
