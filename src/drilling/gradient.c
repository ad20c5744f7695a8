/* Entry, transition and exit as the places of steepest rise and fall of the torque over the position, step by step.
 *
 * Position and torque of a step are smoothed by a centred mean of 30 samples. The gradient is the ratio of their differences; its median
 * over a trailing window is largest where a layer is entered and smallest where it is left. docs/estimators.md has the formulas. */
#include <math.h>

#include "base/error.h"
#include "drilling/estimator_parts.h"

enum {
    SMOOTH = 30, /* samples of the centred mean: SMOOTH_BACK before, the sample, and the rest behind */
    SMOOTH_BACK = 15,
    SMOOTH_PART = 5, /* the mean is formed from sums of 5: fewer additions, and still none that is undone later */
    GRADIENT_WINDOW = 30
};

/* Where the median gradient of a step is largest and smallest. */
struct extremes {
    bool found;
    double steepest_rise_mm, steepest_fall_mm;
};

/* smoothed[i] = mean of values[i .. i+29], which is centred on sample i+15; count - 29 of them. `sums` is working memory [count]. */
static void smooth(const double *values, size_t count, double *sums, double *smoothed)
{
    for (size_t i = 0; i + SMOOTH_PART <= count; i++)
        sums[i] = values[i] + values[i + 1] + values[i + 2] + values[i + 3] + values[i + 4];
    for (size_t i = 0; i + SMOOTH <= count; i++)
        smoothed[i] = (sums[i] + sums[i + 5] + sums[i + 10] + sums[i + 15] + sums[i + 20] + sums[i + 25]) / SMOOTH;
}

/* How many samples the tip takes to advance by its own length, rounded half to even; 0 when the step has no feed.
 *
 * The median is over the step's samples, also those before and behind the smoothed ones, whose position counts as constant. */
static size_t tip_window(const double *position_mm, size_t smoothed_count, size_t sample_count, double bit_depth_mm,
                         struct estimator_scratch *scratch, double *feeds)
{
    size_t count = 0;
    for (size_t i = 1; i < smoothed_count; i++)
        feeds[count++] = position_mm[i] - position_mm[i - 1];
    while (count < sample_count - 1)
        feeds[count++] = 0;
    double feed_mm = median_of(scratch->medians, feeds, count);
    double window = feed_mm != 0 ? nearbyint(fabs(bit_depth_mm / feed_mm)) : 0;
    return window <= (double)sample_count ? (size_t)window : sample_count;
}

/* medians[i] belongs to the smoothed sample i+1. A missing median counts as the next one that is there, so an extreme stands where
 * that stretch begins. */
static void find_extremes(const double *position_mm, const double *medians, size_t median_count, struct extremes *extremes)
{
    double largest = 0, smallest = 0;
    size_t begin = 0; /* smoothed sample from which the next median counts */
    *extremes = (struct extremes){0};
    for (size_t i = 0; i < median_count; i++) {
        if (isnan(medians[i]))
            continue;
        if (!extremes->found || medians[i] > largest) {
            largest = medians[i];
            extremes->steepest_rise_mm = position_mm[begin];
        }
        if (!extremes->found || medians[i] < smallest) {
            smallest = medians[i];
            extremes->steepest_fall_mm = position_mm[begin];
        }
        extremes->found = true;
        begin = i + 2;
    }
}

/* `window`: samples of the trailing median, 0 to derive it from the bit depth. Not found: too few samples, no feed, or a window that is
 * longer than any stretch in which the position never stands still. */
static int step_extremes(const struct curve *curve, const struct curve_step *step, size_t window, const struct estimator_settings *settings,
                         struct estimator_scratch *scratch, struct extremes *extremes)
{
    *extremes = (struct extremes){0};
    if (step->count < SMOOTH)
        return 0;
    int error = estimator_reserve(scratch, step->count);
    if (error)
        return error;
    double *values = scratch->columns[0], *sums = scratch->columns[1], *position = scratch->columns[2], *torque = scratch->columns[3];
    for (size_t i = 0; i < step->count; i++)
        values[i] = (double)fabsf(curve->position_mm[step->first + i]);
    smooth(values, step->count, sums, position);
    for (size_t i = 0; i < step->count; i++)
        values[i] = (double)(curve->torque_a[step->first + i] + step->torque_empty_a);
    smooth(values, step->count, sums, torque);
    size_t count = step->count - SMOOTH + 1;
    if (window == 0)
        window = tip_window(position, count, step->count, settings->bit_depth_mm, scratch, values);
    if (window == 0)
        return 0;
    double *gradients = values, *medians = sums;
    for (size_t i = 1; i < count; i++)
        gradients[i - 1] = (torque[i] - torque[i - 1]) / (position[i] - position[i - 1]);
    median_trailing(scratch->medians, gradients, count - 1, window, medians);
    find_extremes(position, medians, count - 1, extremes);
    return 0;
}

static int too_few(struct estimator_failure *failure)
{
    return estimator_fail(failure, ESTIMATOR_TOO_FEW_SAMPLES, "too few samples");
}

static void set_two(struct keypoints *keypoints, const struct extremes *layer)
{
    *keypoints = (struct keypoints){.count = 2, .position_mm = {layer->steepest_rise_mm, layer->steepest_fall_mm}};
}

static void set_three(struct keypoints *keypoints, const struct extremes *first, const struct extremes *second)
{
    *keypoints =
        (struct keypoints){.count = 3, .position_mm = {first->steepest_rise_mm, second->steepest_rise_mm, second->steepest_fall_mm}};
}

static int step_extremes_by_number(const struct curve *curve, int number, size_t window, const struct estimator_settings *settings,
                                   struct estimator_scratch *scratch, struct extremes *extremes)
{
    const struct curve_step *step = curve_find_step(curve, number);
    *extremes = (struct extremes){0};
    return step ? step_extremes(curve, step, window, settings, scratch, extremes) : 0;
}

/* Step 1 drills the first layer and step 2 the second. A cycle without one of them has one layer, in the first step of this order that
 * can be judged. */
static int estimate_by_number(const struct curve *curve, size_t window, const struct estimator_settings *settings,
                              struct estimator_scratch *scratch, struct keypoints *keypoints, struct estimator_failure *failure)
{
    static const int order[] = {2, 1, 3, 4, 0};
    struct extremes layers[2];
    bool any_step = false;
    for (int i = 0; i < 2; i++) {
        int error = step_extremes_by_number(curve, order[i], window, settings, scratch, &layers[i]);
        if (error)
            return error;
    }
    if (layers[0].found && layers[1].found) {
        set_three(keypoints, &layers[1], &layers[0]);
        return 0;
    }
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        struct extremes layer;
        any_step = any_step || curve_find_step(curve, order[i]);
        int error = i < 2 ? 0 : step_extremes_by_number(curve, order[i], window, settings, scratch, &layer);
        if (error)
            return error;
        if (i < 2)
            layer = layers[i];
        if (layer.found) {
            set_two(keypoints, &layer);
            return 0;
        }
    }
    return any_step ? too_few(failure) : estimator_fail(failure, ESTIMATOR_TOO_FEW_SAMPLES, "no step has a number from 0 to 4");
}

int gradient_estimate(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                      struct keypoints *keypoints, struct estimator_failure *failure)
{
    return estimate_by_number(curve, 0, settings, scratch, keypoints, failure);
}

int gradient_two_layers(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                        struct keypoints *keypoints, bool *found)
{
    struct extremes first, second;
    *found = false;
    int error = step_extremes(curve, &curve->steps[0], 0, settings, scratch, &first);
    if (!error)
        error = step_extremes(curve, &curve->steps[1], 0, settings, scratch, &second);
    if (error || !first.found || !second.found)
        return error;
    *found = true;
    set_three(keypoints, &first, &second);
    return 0;
}

int gradient30_estimate(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                        struct keypoints *keypoints, struct estimator_failure *failure)
{
    return estimate_by_number(curve, GRADIENT_WINDOW, settings, scratch, keypoints, failure);
}

/* The second step drills the first layer and the third the second; with fewer steps the first drills the only one. */
int gradient30_by_order_estimate(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                                 struct keypoints *keypoints, struct estimator_failure *failure)
{
    bool two_layers = curve->step_count >= 3;
    struct extremes layers[3];
    for (size_t i = 0; i < curve->step_count && (two_layers || i == 0); i++) {
        struct extremes layer;
        int error = step_extremes(curve, &curve->steps[i], GRADIENT_WINDOW, settings, scratch, &layer);
        if (error)
            return error;
        if (!layer.found)
            return two_layers ? estimator_fail(failure, ESTIMATOR_TOO_FEW_SAMPLES, "a step has too few samples") : too_few(failure);
        if (i < 3)
            layers[i] = layer;
    }
    if (two_layers)
        set_three(keypoints, &layers[1], &layers[2]);
    else
        set_two(keypoints, &layers[0]);
    return 0;
}
