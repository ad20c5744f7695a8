/* Estimators: a curve in, key points or a named failure out.
 *
 * Each estimator is one row of a table, chosen by name. docs/estimators.md explains them, with their formulas and when to use which.
 * All follow one rule: samples and no-load currents are 32-bit floats, their sum is formed in 32 bits, and everything after it in 64.
 * Sums of such values are exact, so a result depends neither on the order of summation nor on the machine. Pure. */
#ifndef DRILLING_ESTIMATOR_H
#define DRILLING_ESTIMATOR_H

#include <stdbool.h>
#include <stddef.h>

#include "drilling/curve.h"

enum { KEYPOINTS_MAX = 3 };

/* Positions along the axis of the drill, mm. Three: entry, transition between the two layers, exit. Two: entry, exit. One: the point
 * that the estimator is named after. */
struct keypoints {
    unsigned count;
    double position_mm[KEYPOINTS_MAX];
};

enum estimator_problem {
    ESTIMATOR_TOO_FEW_STEPS,
    ESTIMATOR_TOO_FEW_SAMPLES,
    ESTIMATOR_TOO_FEW_SEGMENTS,
    ESTIMATOR_ZERO_FEED,
    ESTIMATOR_WINDOW,
    ESTIMATOR_NO_ENTRY,
    ESTIMATOR_NO_TRANSITION
};

enum { ESTIMATOR_TEXT_MAX = 128 };

struct estimator_failure {
    enum estimator_problem problem;
    char text[ESTIMATOR_TEXT_MAX]; /* for a person; goes into the published error */
};

struct estimator_settings {
    double bit_depth_mm; /* length of the bit's tip, > 0: over so much advance a gradient is judged */
};

extern const struct estimator_settings estimator_defaults;

struct estimator_scratch; /* working memory; one thread at a time */

int estimator_scratch_create(struct estimator_scratch **scratch);
void estimator_scratch_destroy(struct estimator_scratch *scratch);

struct estimator_ops {
    const char *name;
    const char *help; /* one line */
    /* Returns 0 with *keypoints (finite), ERR_ESTIMATE with *failure, or ERR_NO_MEMORY. */
    int (*estimate)(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                    struct keypoints *keypoints, struct estimator_failure *failure);
};

/* The table: NULL beyond its end, or for an unknown name. The first row is the default. */
const struct estimator_ops *estimator_at(size_t index);
const struct estimator_ops *estimator_find(const char *name);

#endif
