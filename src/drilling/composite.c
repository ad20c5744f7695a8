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

static float peak_torque_a(const struct curve *curve, const struct curve_step *step)
{
    float peak_a = curve->torque_a[step->first];
    for (size_t i = step->first + 1; i < step->first + step->count; i++)
        peak_a = fmaxf(peak_a, curve->torque_a[i]);
    return peak_a;
}

/* A cycle of the steps 2 and 3 alone, of a head that counts from 2, drills the first layer in step 2 and the second in step 3. It could
 * as well drill all in step 2 and run out in step 3: then there is hardly any torque in step 3, or its key points do not ascend, and
 * *found is false. docs/estimators.md has what was measured. */
static int estimate_from_step2(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                               double entry_mm, struct keypoints *keypoints, bool *found)
{
    struct keypoints layers;
    *found = false;
    if (curve->step_count != 2 || curve->steps[0].number != 2 || curve->steps[1].number != 3 ||
        2 * peak_torque_a(curve, &curve->steps[1]) < peak_torque_a(curve, &curve->steps[0]))
        return 0;
    int error = gradient_two_layers(curve, settings, scratch, &layers, found);
    *found = *found && entry_mm < layers.position_mm[1] && layers.position_mm[1] < layers.position_mm[2];
    if (*found)
        *keypoints = layers;
    return error;
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
    double entry_mm = entry != NONE ? position_at(curve, entry) : best.position_mm[0];
    bool from_step2;
    error = estimate_from_step2(curve, settings, scratch, entry_mm, &best, &from_step2);
    if (error)
        return error;
    best.position_mm[0] = entry_mm;
    size_t transition = best.count == 3 && is_micro_peck(curve) ? transition_find(curve) : NONE;
    if (transition != NONE)
        best.position_mm[1] = position_at(curve, transition);
    *keypoints = best;
    return 0;
}
