/* What the estimators share among themselves; private to drilling/. */
#ifndef DRILLING_ESTIMATOR_PARTS_H
#define DRILLING_ESTIMATOR_PARTS_H

#include "drilling/estimator.h"
#include "drilling/median.h"

enum { ESTIMATOR_COLUMNS = 4 };

struct estimator_scratch {
    struct median_scratch *medians;
    double *columns[ESTIMATOR_COLUMNS]; /* [capacity] */
    size_t capacity;
};

/* Makes room for steps or segments of `count` samples. Returns 0 or ERR_NO_MEMORY. */
int estimator_reserve(struct estimator_scratch *scratch, size_t count);

/* Fills *failure and returns ERR_ESTIMATE. */
int estimator_fail(struct estimator_failure *failure, enum estimator_problem problem, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

typedef int estimator_function(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                               struct keypoints *keypoints, struct estimator_failure *failure);

estimator_function gradient_estimate, gradient30_estimate, gradient30_by_order_estimate;
estimator_function segments_estimate;
estimator_function entry_estimate, transition_estimate;
estimator_function auto_estimate, production_estimate;

/* As `gradient`, but the first layer is judged in the first of the curve's steps and the second in the second. *found is false, and
 * *keypoints untouched, when one of them cannot be judged. Returns 0 or ERR_NO_MEMORY. */
int gradient_two_layers(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                        struct keypoints *keypoints, bool *found);

/* The sample at which the bit enters the first layer, or transition to the second; SIZE_MAX when there is none. */
size_t entry_find(const struct curve *curve);
size_t transition_find(const struct curve *curve);

#endif
