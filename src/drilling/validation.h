/* What becomes of a hole with a negative depth, and when a sequence of such holes is worth a warning. Air drilling, a cycle without
 * material, gives them on purpose. Pure: time is an argument, and there is one thread at a time. */
#ifndef DRILLING_VALIDATION_H
#define DRILLING_VALIDATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum validation_behaviour { VALIDATION_PUBLISH, VALIDATION_SKIP, VALIDATION_WARNING };

enum { VALIDATION_TRACKED_MAX = 100 }; /* negative holes that are remembered */

/* A sequence is reported at most so often. */
#define VALIDATION_REPORT_INTERVAL_NS UINT64_C(300000000000)

struct validation_options {
    enum validation_behaviour behaviour;
    bool track_sequences;
    unsigned sequence_threshold; /* 1 .. VALIDATION_TRACKED_MAX negative holes ... */
    uint64_t sequence_window_ns; /* ... within this time */
};

extern const struct validation_options validation_defaults; /* publish; 5 within 5 minutes */

struct validation_tracker {
    uint64_t times_ns[VALIDATION_TRACKED_MAX]; /* a ring */
    unsigned count, next;
    bool reported;
    uint64_t report_after_ns;
};

struct validation_verdict {
    bool negative;
    enum validation_behaviour action; /* VALIDATION_PUBLISH unless negative */
    unsigned sequence;                /* negative holes in the window when that is to be reported now, else 0 */
};

void validation_tracker_init(struct validation_tracker *tracker);

/* Whether any of the depths is negative; NULL and 0 are not. */
bool validation_is_negative(const double *depths_mm, size_t count);

/* Judges one hole. now_ns is monotonic. */
struct validation_verdict validation_judge(struct validation_tracker *tracker, const struct validation_options *options,
                                           const double *depths_mm, size_t count, uint64_t now_ns);

#endif
