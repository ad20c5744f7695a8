/* The page at `/`: what an engineer wants to see first, from the registries of base/probes.h and base/metrics.h. HTML that needs no
 * script and nothing from elsewhere; it asks for itself again every few seconds. */
#ifndef CONTROL_OVERVIEW_H
#define CONTROL_OVERVIEW_H

#include <stdint.h>

#include "base/buffer.h"

/* What earlier views have seen, so that a view can say how much there is a second. All zero at first; one thread. */
struct overview_marks {
    struct overview_mark {
        uint64_t at_ns; /* monotonic; 0: none */
        double holes, messages;
    } older, newer;
};

struct overview_link {
    const char *path, *title;
};

struct overview_facts {
    const char *version;
    double uptime_s;
    uint64_t now_ns; /* monotonic */
    const struct overview_link *links;
    unsigned link_count;
};

/* Appends the page. Returns 0, ERR_LIMIT or ERR_NO_MEMORY; the body is of no use after a failure. */
int overview_write(struct buffer *body, const struct overview_facts *facts, struct overview_marks *marks);

#endif
