/* The two key points that come from the torque alone, without its no-load current: the foot of the first rise (entry), and the break
 * shortly before step 2 (transition). */
#include <math.h>

#include "base/error.h"
#include "drilling/estimator_parts.h"

static const size_t NONE = SIZE_MAX;

static double position_at(const struct curve *curve, size_t sample)
{
    return (double)fabsf(curve->position_mm[sample]);
}

/* ---- entry ---- */

static const double ENTRY_TORQUE_A = 0.1, ENTRY_POSITION_MM = 3, FOOT_RISE_BEFORE_A = 0.0001, FOOT_RISE_BEHIND_A = 0.05;
enum { FOOT_REACH = 3 };

static bool is_cutting(const struct curve *curve, size_t sample)
{
    const float *torque = curve->torque_a + sample;
    return (double)torque[0] > ENTRY_TORQUE_A && (double)torque[1] > ENTRY_TORQUE_A && (double)torque[2] > ENTRY_TORQUE_A &&
           position_at(curve, sample) > ENTRY_POSITION_MM;
}

/* Whether the torque does not rise before the sample but does behind it. Before the first samples stand the last ones: a quirk of the
 * definition that is kept, for results must agree. */
static bool is_foot(const struct curve *curve, size_t sample)
{
    const float *torque = curve->torque_a;
    if (sample + FOOT_REACH >= curve->sample_count)
        return false;
    size_t before = sample >= FOOT_REACH ? sample - FOOT_REACH : sample + curve->sample_count - FOOT_REACH;
    return (double)torque[sample] - (double)torque[before] < FOOT_RISE_BEFORE_A &&
           (double)torque[sample + FOOT_REACH] - (double)torque[sample] >= FOOT_RISE_BEHIND_A;
}

size_t entry_find(const struct curve *curve)
{
    size_t cutting = 0;
    while (cutting + 2 < curve->sample_count && !is_cutting(curve, cutting))
        cutting++;
    if (cutting == 0 || cutting + 2 >= curve->sample_count)
        return NONE; /* a curve that begins while cutting has no entry */
    for (size_t i = cutting - 1; i > 0; i--) {
        if (is_foot(curve, i))
            return i;
    }
    return cutting;
}

int entry_estimate(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                   struct keypoints *keypoints, struct estimator_failure *failure)
{
    (void)settings;
    (void)scratch;
    size_t sample = entry_find(curve);
    if (sample == NONE)
        return estimator_fail(failure, ESTIMATOR_NO_ENTRY, "no entry found: torque does not rise above 0.1 A beyond 3 mm");
    *keypoints = (struct keypoints){.count = 1, .position_mm = {position_at(curve, sample)}};
    return 0;
}

/* ---- transition ---- */

enum {
    TRANSITION_SAMPLES = 300, /* before step 2: three seconds */
    FIT = 11,                 /* points of the smoothing filter */
    FIT_HALF = 5,
    FIT_SQUARES = 110, /* sum of k^2 and k^4, k = -5 .. 5 */
    FIT_FOURTHS = 1958,
    FIT_DETERMINANT = FIT * FIT_FOURTHS - FIT_SQUARES * FIT_SQUARES
};

/* The quadratic a + b k + c k^2 fitted to 11 samples, k = -5 .. 5 (Savitzky and Golay, Analytical Chemistry 36, 1964). */
struct quadratic {
    double a, b, c;
};

static struct quadratic fit(const float *values)
{
    double sum = 0, first = 0, second = 0;
    for (int k = -FIT_HALF; k <= FIT_HALF; k++) {
        double value = (double)values[k + FIT_HALF];
        sum += value;
        first += k * value;
        second += k * k * value;
    }
    return (struct quadratic){.a = (FIT_FOURTHS * sum - FIT_SQUARES * second) / FIT_DETERMINANT,
                              .b = first / FIT_SQUARES,
                              .c = (FIT * second - FIT_SQUARES * sum) / FIT_DETERMINANT};
}

static double quadratic_at(const struct quadratic *curve, double k)
{
    return curve->a + curve->b * k + curve->c * k * k;
}

/* Smoothes count >= 11 samples; the ends come from the quadratics of the first and last 11. */
static void savitzky_golay(const float *values, size_t count, double *smoothed)
{
    for (size_t i = FIT_HALF; i + FIT_HALF < count; i++)
        smoothed[i] = fit(values + i - FIT_HALF).a;
    struct quadratic first = fit(values), last = fit(values + count - FIT);
    for (int i = 0; i < FIT_HALF; i++) {
        smoothed[i] = quadratic_at(&first, i - FIT_HALF);
        smoothed[count - FIT_HALF + (size_t)i] = quadratic_at(&last, i + 1);
    }
}

/* A sum that carries the rounding error of each addition along (Neumaier, ZAMM 54, 1974). */
struct exact_sum {
    double sum, rest;
};

static void exact_add(struct exact_sum *exact, double value)
{
    double sum = exact->sum + value;
    exact->rest += fabs(exact->sum) >= fabs(value) ? (exact->sum - sum) + value : (value - sum) + exact->sum;
    exact->sum = sum;
}

static double mean_of(const double *values, size_t count)
{
    struct exact_sum total = {0};
    for (size_t i = 0; i < count; i++)
        exact_add(&total, values[i]);
    return (total.sum + total.rest) / (double)count;
}

static double deviation_of(const double *values, size_t count, double mean)
{
    struct exact_sum total = {0};
    for (size_t i = 0; i < count; i++)
        exact_add(&total, (values[i] - mean) * (values[i] - mean));
    return sqrt((total.sum + total.rest) / (double)count);
}

size_t transition_find(const struct curve *curve)
{
    const struct curve_step *step = curve_find_step(curve, 2);
    if (!step || step->first < FIT)
        return NONE;
    size_t count = step->first < TRANSITION_SAMPLES ? step->first : TRANSITION_SAMPLES, first = step->first - count;
    double smoothed[TRANSITION_SAMPLES], gradient[TRANSITION_SAMPLES];
    savitzky_golay(curve->torque_a + first, count, smoothed);
    gradient[0] = smoothed[1] - smoothed[0];
    gradient[count - 1] = smoothed[count - 1] - smoothed[count - 2];
    for (size_t i = 1; i + 1 < count; i++)
        gradient[i] = (smoothed[i + 1] - smoothed[i - 1]) / 2;
    double mean = mean_of(gradient, count), threshold = mean + 2 * deviation_of(gradient, count, mean);
    for (size_t i = 0; i < count; i++) {
        if (gradient[i] > threshold)
            return first + i;
    }
    return NONE;
}

int transition_estimate(const struct curve *curve, const struct estimator_settings *settings, struct estimator_scratch *scratch,
                        struct keypoints *keypoints, struct estimator_failure *failure)
{
    (void)settings;
    (void)scratch;
    size_t sample = transition_find(curve);
    if (sample == NONE)
        return estimator_fail(failure, ESTIMATOR_NO_TRANSITION, "no transition found: the torque before step 2 has no break");
    *keypoints = (struct keypoints){.count = 1, .position_mm = {position_at(curve, sample)}};
    return 0;
}
