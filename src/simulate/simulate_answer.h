/* Reads what Spindle publishes for a hole (topics ...KeyPoints and ...DepthEstimation) as a consumer would. */
#ifndef SIMULATE_SIMULATE_ANSWER_H
#define SIMULATE_SIMULATE_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SIMULATE_VALUES_MAX = 3, SIMULATE_ANSWER_TEXT_MAX = 160, SIMULATE_ANSWER_STAMP_MAX = 64 };

struct simulate_answer {
    uint32_t result_id; /* 0: null */
    bool error;
    char stamp[SIMULATE_ANSWER_STAMP_MAX];      /* "" : null */
    char machine_id[SIMULATE_ANSWER_STAMP_MAX]; /* "" : null */
    char head_id[SIMULATE_ANSWER_STAMP_MAX];    /* "" : null */
    char text[SIMULATE_ANSWER_TEXT_MAX];        /* Value of an error answer */
    double values[SIMULATE_VALUES_MAX];         /* [value_count] else */
    unsigned value_count;
};

/* Returns 0, ERR_NOT_JSON, or ERR_PAYLOAD when it has another structure; *answer is untouched on failure. */
int simulate_answer_read(struct simulate_answer *answer, const char *text, size_t length);

#endif
