#include "cli/journal/trim_http.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "cli/journal/trim_request.h"
#include "control/pages.h"

static struct journal_stream *find_stream(struct journal *journal, const char *name)
{
    struct journal_stream *stream;
    for (unsigned i = 0; (stream = journal_stream_at(journal, i)); i++)
        if (strcmp(journal_stream_name(stream), name) == 0)
            return stream;
    return NULL;
}

static void refuse_error(struct page *page, int error, const struct journal_trimmed *trimmed)
{
    char text[VALUE_MESSAGE_MAX];
    if (error == ERR_BUSY)
        snprintf(text, sizeof text, "nothing could be removed in time: the disk is slow, or another request is at it; try again");
    else
        snprintf(text, sizeof text, "%s, after %zu segments were removed; the server's diagnostics may say more", error_text(error),
                 trimmed->count);
    page_render_error(page, error == ERR_BUSY ? 503 : error_http_status(error), text);
}

static void answer(struct journal_stream *stream, const struct trim_request *request, struct page *page)
{
    struct retention_trim limits = trim_request_limits(request, clock_wall_ns());
    struct journal_trimmed trimmed;
    int error = journal_stream_trim(stream, &limits, request->dry_run, &trimmed);
    if (trimmed.count && !request->dry_run)
        diagnostics(DIAGNOSTICS_INFO, "journal",
                    "stream %s: %zu segments, %.1f MB, were removed because a request says so; the first offset is %" PRIu64,
                    request->stream, trimmed.count, (double)trimmed.bytes / 1e6, trimmed.first_offset);
    struct trim_done done = {.bases = trimmed.bases,
                             .count = trimmed.count,
                             .bytes = trimmed.bytes,
                             .first_offset = trimmed.first_offset,
                             .kept_back = trimmed.kept_back,
                             .more = trimmed.more};
    if (error)
        refuse_error(page, error, &trimmed);
    else if (trim_done_write(request, &done, true, &page->body))
        page_render_error(page, 503, error_text(ERR_NO_MEMORY));
    free(trimmed.bases);
}

void trim_http_answer(void *context, const struct http_request *request, struct page *page)
{
    struct trim_http *http = context;
    struct trim_request wanted;
    struct journal_stream *stream = NULL;
    char message[VALUE_MESSAGE_MAX];
    if (!atomic_load(&http->serving)) {
        page_render_error(page, 503, "it is starting or stopping; see /readyz");
    } else if (trim_request_read(&wanted, request->body, request->body_length, message)) {
        page_render_error(page, 400, message);
    } else if (!(stream = find_stream(http->journal, wanted.stream))) {
        page_render_error(page, 404, "there is no stream of this name");
    } else {
        answer(stream, &wanted, page);
    }
}
