/* Dead letters by HTTP: GET /api/v1/dead-letters and /api/v1/dead-letters/OFFSET, POST /api/v1/dead-letters/requeue and /purge. */
#ifndef CLI_DEAD_HTTP_H
#define CLI_DEAD_HTTP_H

#include <stdatomic.h>

#include "control/http.h"
#include "queue/dead_letters.h"
#include "queue/queue.h"

#define DEAD_HTTP_PATH "/api/v1/dead-letters"

struct dead_http {
    struct queue *queue;
    struct dead_letters *letters;
    unsigned attempts_max;
    bool has_pipeline;   /* else what is put back would wait for ever */
    atomic_bool serving; /* the rest is set; it is not yet, or no more, and every request is refused */
};

/* An http_handler; the context is a struct dead_http. */
void dead_http_answer(void *context, const struct http_request *request, struct page *page);

#endif
