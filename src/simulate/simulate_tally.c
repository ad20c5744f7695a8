#include "simulate/simulate_tally.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void add_error(struct simulate_errors *errors, double error_mm)
{
    /* B. P. Welford: Note on a method for calculating corrected sums of squares and products, Technometrics 4 (1962). */
    errors->count++;
    double distance_mm = error_mm - errors->mean_mm;
    errors->mean_mm += distance_mm / (double)errors->count;
    errors->squares_mm2 += distance_mm * (error_mm - errors->mean_mm);
    if (fabs(error_mm) > errors->max_mm)
        errors->max_mm = fabs(error_mm);
    histogram_record(&errors->absolute_um, (uint64_t)llround(fmin(fabs(error_mm), 1e6) * 1000));
}

void simulate_tally_estimate(struct simulate_tally *tally, enum simulator_shape shape, const struct simulator_truth *truth,
                             const double *values, unsigned value_count)
{
    if ((int)shape >= SIMULATE_MEASURED_SHAPES || value_count < 2 || value_count > 3)
        return;
    double entry_mm = values[0], exit_mm = values[value_count - 1], transition_mm = value_count == 3 ? values[1] : (double)NAN;
    const double errors_mm[SIMULATE_POINT_COUNT] = {
        [SIMULATE_ENTRY] = entry_mm - truth->entry_mm,
        [SIMULATE_TRANSITION] = transition_mm - truth->transition_mm,
        [SIMULATE_EXIT] = exit_mm - truth->exit_mm,
        [SIMULATE_LAYER_1] = transition_mm - entry_mm - (truth->transition_mm - truth->entry_mm),
        [SIMULATE_LAYER_2] = exit_mm - transition_mm - (truth->exit_mm - truth->transition_mm),
        [SIMULATE_DEPTH] = exit_mm - entry_mm - (truth->exit_mm - truth->entry_mm),
    };
    for (int point = 0; point < SIMULATE_POINT_COUNT; point++) {
        if (isfinite(errors_mm[point]))
            add_error(&tally->errors[shape][point], errors_mm[point]);
    }
}

void simulate_tally_error(struct simulate_tally *tally, const char *text)
{
    char cut[SIMULATE_ERROR_TEXT_MAX];
    snprintf(cut, sizeof cut, "%s", text);
    unsigned i = 0;
    while (i < tally->text_count && strcmp(tally->texts[i].text, cut) != 0)
        i++;
    if (i == SIMULATE_ERROR_TEXTS_MAX) {
        tally->other_texts++;
        return;
    }
    if (i == tally->text_count) {
        memcpy(tally->texts[i].text, cut, sizeof cut);
        tally->text_count++;
    }
    tally->texts[i].count++;
}

double simulate_errors_deviation(const struct simulate_errors *errors)
{
    return errors->count > 1 ? sqrt(errors->squares_mm2 / (double)(errors->count - 1)) : 0;
}

const char *simulate_point_name(enum simulate_point point)
{
    static const char *const names[SIMULATE_POINT_COUNT] = {"entry", "transition", "exit", "layer 1", "layer 2", "depth"};
    return names[point];
}
