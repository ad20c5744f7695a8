/* What the HTTP server answers, without HTTP: a path in, a page out. */
#ifndef CONTROL_PAGES_H
#define CONTROL_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"

enum { PAGE_BYTES_MAX = 16 << 20 };

struct page {
    int status;               /* HTTP */
    const char *content_type; /* static */
    const char *allow;        /* static; with status 405: which methods are answered */
    struct buffer body;
};

struct overview_marks;
struct http_route;

struct page_facts {
    const char *version; /* of the program */
    double uptime_s;
    uint64_t now_ns;                      /* monotonic */
    struct overview_marks *marks;         /* of the page at `/` */
    const struct http_route *more_routes; /* [more_route_count]: what else there is, for who asks for what there is not */
    unsigned more_route_count;
};

/* Whether page_render has something other than 404 for this path. */
bool page_exists(const char *path);

/* Fills *page for a GET of `path` (decoded, without query): a page, or an error as JSON {"status": 404, "error": "..."}. Never fails: where
 * even the error does not fit in memory the body is empty and the status 503. The caller ends with buffer_fini(&page->body). */
void page_render(struct page *page, const char *path, const struct page_facts *facts);

/* An error page with this status and text. */
void page_render_error(struct page *page, int status, const char *text);

#endif
