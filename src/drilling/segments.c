/* Key points from the first three stretches of steady advance, whatever the step numbers. Where the position neither jitters nor
 * stands still this is the most accurate of the gradient methods; elsewhere it fails. */
#include <math.h>

#include "base/error.h"
#include "drilling/estimator_parts.h"

enum { SEGMENTS = 3 };

struct segment {
    size_t first, end;
};

/* A segment ends where the position goes back. Returns how many of the first SEGMENTS there are. */
static size_t segments_cut(const struct curve *curve, struct segment segments[SEGMENTS])
{
    size_t count = 0;
    for (size_t i = 0; i < curve->sample_count; i++) {
        if (i == 0 || fabsf(curve->position_mm[i]) < fabsf(curve->position_mm[i - 1])) {
            if (count == SEGMENTS)
                return count;
            segments[count++].first = i;
        }
        segments[count - 1].end = i + 1;
    }
    return count;
}

/* Torque with the no-load current of the step that the sample belongs to; `step` moves along with `sample`. */
static float signal_at(const struct curve *curve, size_t sample, size_t *step)
{
    while (sample >= curve->steps[*step].first + curve->steps[*step].count)
        (*step)++;
    return curve->torque_a[sample] + curve->steps[*step].torque_empty_a;
}

/* Feed and gradient from sample to sample, in 32 bits; [end - first - 1] each. */
static void differences(const struct curve *curve, const struct segment *segment, double *feeds, double *gradients)
{
    size_t step = 0;
    float before = signal_at(curve, segment->first, &step);
    for (size_t i = segment->first + 1; i < segment->end; i++) {
        float signal = signal_at(curve, i, &step);
        float advance = fabsf(curve->position_mm[i]) - fabsf(curve->position_mm[i - 1]);
        feeds[i - segment->first - 1] = (double)advance;
        gradients[i - segment->first - 1] = (double)((signal - before) / advance);
        before = signal;
    }
}

/* The samples at which the median gradient of a segment is largest and smallest. */
static int segment_extremes(const struct curve *curve, const struct segment *segment, const struct estimator_settings *settings,
                            struct estimator_scratch *scratch, size_t *rise, size_t *fall, struct estimator_failure *failure)
{
    size_t count = segment->end - segment->first;
    int error = estimator_reserve(scratch, count);
    if (error)
        return error;
    double *feeds = scratch->columns[0], *gradients = scratch->columns[1], *medians = scratch->columns[2];
    differences(curve, segment, feeds, gradients);
    double feed_mm = count > 1 ? median_of(scratch->medians, feeds, count - 1) : 0;
    if (feed_mm == 0)
        return estimator_fail(failure, ESTIMATOR_ZERO_FEED, "zero feed in a segment");
    double window = nearbyint(settings->bit_depth_mm / feed_mm);
    if (window < 1)
        return estimator_fail(failure, ESTIMATOR_WINDOW, "a segment advances by more than the bit depth from sample to sample");
    bool found = false;
    if (window < (double)count) {
        median_trailing(scratch->medians, gradients, count - 1, (size_t)window, medians);
        for (size_t i = 0, largest = 0, smallest = 0; i + 1 < count; i++) {
            if (isnan(medians[i]))
                continue;
            largest = !found || medians[i] > medians[largest] ? i : largest;
            smallest = !found || medians[i] < medians[smallest] ? i : smallest;
            found = true;
            *rise = segment->first + 1 + largest;
            *fall = segment->first + 1 + smallest;
        }
    }
    return found ? 0 : estimator_fail(failure, ESTIMATOR_WINDOW, "window %.6g longer than a segment", window);
}

int segments_estimate(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                      struct keypoints *keypoints, struct estimator_failure *failure)
{
    struct segment segments[SEGMENTS];
    size_t rise[SEGMENTS], fall[SEGMENTS], count = segments_cut(curve, segments);
    if (count < SEGMENTS)
        return estimator_fail(failure, ESTIMATOR_TOO_FEW_SEGMENTS, "fewer than 3 segments (%zu)", count);
    for (size_t i = 0; i < SEGMENTS; i++) {
        int error = segment_extremes(curve, &segments[i], settings, scratch, &rise[i], &fall[i], failure);
        if (error)
            return error;
    }
    *keypoints = (struct keypoints){.count = 3,
                                    .position_mm = {(double)fabsf(curve->position_mm[rise[1]]), (double)fabsf(curve->position_mm[rise[2]]),
                                                    (double)fabsf(curve->position_mm[fall[2]])}};
    return 0;
}
