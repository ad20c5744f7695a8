/* Dead letters by HTTP: GET /api/v1/dead-letters and /api/v1/dead-letters/{offset}, POST /api/v1/dead-letters/requeue and /purge. */
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

enum { DEAD_HTTP_ROUTE_COUNT = 4 };

/* Fills them; `http` is borrowed by them. */
void dead_http_routes(struct dead_http *http, struct http_route routes[DEAD_HTTP_ROUTE_COUNT]);

#endif
