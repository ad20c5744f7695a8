/* Removing old segments by HTTP: POST /api/v1/journal/trim. */
#ifndef CLI_JOURNAL_TRIM_HTTP_H
#define CLI_JOURNAL_TRIM_HTTP_H

#include <stdatomic.h>

#include "control/http.h"
#include "journal/journal.h"

#define TRIM_HTTP_PATH "/api/v1/journal/trim"

struct trim_http {
    struct journal *journal;
    atomic_bool serving; /* the rest is set; it is not yet, or no more, and every request is refused */
};

/* An http_handler; the context is a struct trim_http. */
void trim_http_answer(void *context, const struct http_request *request, struct page *page);

#endif
