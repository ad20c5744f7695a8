/* The table of estimators and their working memory. */
#include "drilling/estimator.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "drilling/estimator_parts.h"

const struct estimator_settings estimator_defaults = {.bit_depth_mm = 0.7};

static const struct estimator_ops estimators[] = {
    {"auto", "entry by torque, transition by the kind of head, exit by gradient: the best without a network", auto_estimate},
    {"gradient", "steepest rise and fall of torque over the length of the bit's tip, in steps 1 and 2", gradient_estimate},
    {"gradient30", "as gradient, over 30 samples", gradient30_estimate},
    {"gradient30_by_order", "as gradient30, in the second and third step of the cycle whatever their numbers",
     gradient30_by_order_estimate},
    {"segments", "as gradient, in the first three stretches of steady advance, without smoothing", segments_estimate},
    {"entry", "the foot of the first rise of torque alone", entry_estimate},
    {"transition", "the break before step 2 alone", transition_estimate},
    {"production", "entry, transition and the exit by gradient; fails where one of them is not found", production_estimate},
};
enum { ESTIMATOR_COUNT = sizeof estimators / sizeof *estimators };

const struct estimator_ops *estimator_at(size_t index)
{
    return index < ESTIMATOR_COUNT ? &estimators[index] : NULL;
}

const struct estimator_ops *estimator_find(const char *name)
{
    for (size_t i = 0; i < ESTIMATOR_COUNT; i++) {
        if (strcmp(estimators[i].name, name) == 0)
            return &estimators[i];
    }
    return NULL;
}

int estimator_scratch_create(struct estimator_scratch **scratch)
{
    struct estimator_scratch *created = calloc(1, sizeof *created);
    if (!created)
        return ERR_NO_MEMORY;
    int error = median_scratch_create(&created->medians);
    if (error) {
        free(created);
        return error;
    }
    *scratch = created;
    return 0;
}

static void columns_free(struct estimator_scratch *scratch)
{
    for (size_t i = 0; i < ESTIMATOR_COLUMNS; i++) {
        free(scratch->columns[i]);
        scratch->columns[i] = NULL;
    }
    scratch->capacity = 0;
}

void estimator_scratch_destroy(struct estimator_scratch *scratch)
{
    if (scratch) {
        columns_free(scratch);
        median_scratch_destroy(scratch->medians);
        free(scratch);
    }
}

enum { KEPT_SAMPLES = 256 * 1024 }; /* the memory for a longer step is given back at the next shorter one */

int estimator_reserve(struct estimator_scratch *scratch, size_t count)
{
    int error = median_scratch_reserve(scratch->medians, count);
    if (error || (scratch->capacity >= count && !(scratch->capacity > KEPT_SAMPLES && count <= KEPT_SAMPLES)))
        return error;
    size_t capacity = 4096;
    while (capacity < count)
        capacity *= 2;
    columns_free(scratch);
    for (size_t i = 0; i < ESTIMATOR_COLUMNS; i++) {
        scratch->columns[i] = malloc(capacity * sizeof *scratch->columns[i]);
        if (!scratch->columns[i]) {
            columns_free(scratch);
            return ERR_NO_MEMORY;
        }
    }
    scratch->capacity = capacity;
    return 0;
}

int estimator_fail(struct estimator_failure *failure, enum estimator_problem problem, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure->text, sizeof failure->text, format, arguments);
    va_end(arguments);
    failure->problem = problem;
    return ERR_ESTIMATE;
}
