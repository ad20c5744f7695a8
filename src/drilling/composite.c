/* The estimators that are put together from the others: `auto`, and `production`, which answers as the replaced system did but for its
 * network. Both refuse a cycle of fewer than two steps with the text that consumers know. */
#include <math.h>

#include "base/error.h"
#include "drilling/estimator_parts.h"

static const size_t NONE = SIZE_MAX;

static int refuse_few_steps(const struct curve *curve, struct estimator_failure *failure)
{
    if (curve->step_count >= 2)
        return 0;
    return estimator_fail(failure, ESTIMATOR_TOO_FEW_STEPS, "Not enough steps to estimate depth");
}

static double position_at(const struct curve *curve, size_t sample)
{
    return (double)fabsf(curve->position_mm[sample]);
}

int production_estimate(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                        struct keypoints *keypoints, struct estimator_failure *failure)
{
    struct keypoints entry, transition, gradient;
    int error = refuse_few_steps(curve, failure);
    if (!error)
        error = entry_estimate(curve, settings, scratch, &entry, failure);
    if (!error)
        error = transition_estimate(curve, settings, scratch, &transition, failure);
    if (!error)
        error = gradient_estimate(curve, settings, scratch, &gradient, failure);
    if (!error)
        *keypoints = (struct keypoints){
            .count = 3, .position_mm = {entry.position_mm[0], transition.position_mm[0], gradient.position_mm[gradient.count - 1]}};
    return error;
}

enum { PECK_STEP = 2, PECK_SAMPLES_MIN = 100, PECK_BACK_ONE_IN = 400 };

/* Whether the head drills in micro-pecks: in step 2 the tip goes back again and again, at least in every 400th sample, and its advance
 * from sample to sample varies by more than its mean. Each alone can be something else (jitter of the measurement; a stop and go of the
 * feed); together they are the head's doing. docs/estimators.md has what was measured. */
static bool is_micro_peck(const struct curve *curve)
{
    const struct curve_step *step = curve_find_step(curve, PECK_STEP);
    if (!step || step->count < PECK_SAMPLES_MIN)
        return false;
    size_t moves = step->count - 1, back = 0;
    double sum = 0, squares = 0;
    for (size_t i = step->first + 1; i <= step->first + moves; i++) {
        double move_mm = position_at(curve, i) - position_at(curve, i - 1);
        back += move_mm < 0;
        sum += move_mm;
        squares += move_mm * move_mm;
    }
    double mean = sum / (double)moves, variance = squares / (double)moves - mean * mean;
    return mean > 0 && variance > mean * mean && back * PECK_BACK_ONE_IN >= moves;
}

int auto_estimate(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                  struct keypoints *keypoints, struct estimator_failure *failure)
{
    struct keypoints best;
    int error = refuse_few_steps(curve, failure);
    if (!error)
        error = gradient_estimate(curve, settings, scratch, &best, failure);
    if (error)
        return error;
    size_t entry = entry_find(curve);
    if (entry != NONE)
        best.position_mm[0] = position_at(curve, entry);
    size_t transition = best.count == 3 && is_micro_peck(curve) ? transition_find(curve) : NONE;
    if (transition != NONE)
        best.position_mm[1] = position_at(curve, transition);
    *keypoints = best;
    return 0;
}
