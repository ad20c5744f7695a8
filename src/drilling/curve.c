/* A stable counting sort by step. A trace that is in order already, which all of a regular cycle are, is not copied but for its
 * positions. */
#include "drilling/curve.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

struct curve_scratch {
    float *samples[3]; /* position, torque, thrust: [capacity] */
    size_t capacity;
};

int curve_scratch_create(struct curve_scratch **scratch)
{
    struct curve_scratch *created = calloc(1, sizeof *created);
    if (!created)
        return ERR_NO_MEMORY;
    *scratch = created;
    return 0;
}

static void samples_free(struct curve_scratch *scratch)
{
    for (size_t i = 0; i < 3; i++) {
        free(scratch->samples[i]);
        scratch->samples[i] = NULL;
    }
    scratch->capacity = 0;
}

void curve_scratch_destroy(struct curve_scratch *scratch)
{
    if (scratch) {
        samples_free(scratch);
        free(scratch);
    }
}

enum { KEPT_SAMPLES = 256 * 1024 }; /* the memory of a longer curve is given back at the next shorter one */

static int samples_reserve(struct curve_scratch *scratch, size_t count)
{
    bool large = scratch->capacity > KEPT_SAMPLES && count <= KEPT_SAMPLES;
    if (scratch->capacity >= count && !large)
        return 0;
    size_t capacity = 4096;
    while (capacity < count)
        capacity *= 2;
    samples_free(scratch);
    for (size_t i = 0; i < 3; i++) {
        scratch->samples[i] = malloc(capacity * sizeof *scratch->samples[i]);
        if (!scratch->samples[i]) {
            samples_free(scratch);
            return ERR_NO_MEMORY;
        }
    }
    scratch->capacity = capacity;
    return 0;
}

/* The rows of the result as empty steps, ascending, without repeats. Returns how many. */
static size_t rows_sort(const struct payload_result *result, struct curve_step steps[PAYLOAD_STEPS_MAX])
{
    size_t count = 0;
    for (size_t row = 0; row < result->step_count; row++) {
        struct curve_step step = {
            .number = result->step[row], .torque_empty_a = result->torque_empty_a[row], .thrust_empty_a = result->thrust_empty_a[row]};
        size_t place = 0;
        while (place < count && steps[place].number < step.number)
            place++;
        if (place == count || steps[place].number != step.number) {
            memmove(&steps[place + 1], &steps[place], (count - place) * sizeof *steps);
            count++;
        }
        steps[place] = step;
    }
    return count;
}

static size_t row_of(const struct curve_step *rows, size_t row_count, int32_t number)
{
    size_t row = 0;
    while (row < row_count && rows[row].number != number)
        row++;
    return row;
}

/* Counts the samples of each row. Returns whether they are all there, in ascending order. */
static bool rows_count(struct curve_step *rows, size_t row_count, const struct payload_trace *trace, size_t *left_out)
{
    bool ordered = true;
    size_t last_row = 0, missing = 0;
    for (size_t i = 0; i < trace->sample_count;) {
        int32_t number = trace->step[i];
        size_t end = i + 1;
        while (end < trace->sample_count && trace->step[end] == number)
            end++;
        size_t row = row_of(rows, row_count, number);
        if (row == row_count) {
            missing += end - i;
        } else {
            ordered = ordered && row >= last_row;
            last_row = row;
            rows[row].count += end - i;
        }
        i = end;
    }
    *left_out = missing;
    return ordered && missing == 0;
}

static void samples_scatter(const struct curve_step *rows, size_t row_count, const struct payload_trace *trace, float *const target[3])
{
    size_t next[PAYLOAD_STEPS_MAX];
    for (size_t row = 0; row < row_count; row++)
        next[row] = rows[row].first;
    for (size_t i = 0; i < trace->sample_count; i++) {
        size_t row = row_of(rows, row_count, trace->step[i]);
        if (row == row_count)
            continue;
        size_t place = next[row]++;
        target[0][place] = -trace->position_mm[i];
        target[1][place] = trace->torque_a[i];
        target[2][place] = trace->thrust_a[i];
    }
}

int curve_assemble(struct curve_scratch *scratch, const struct payload_result *result, const struct payload_trace *trace,
                   struct curve *curve)
{
    struct curve_step rows[PAYLOAD_STEPS_MAX];
    size_t left_out, row_count = rows_sort(result, rows);
    bool ordered = rows_count(rows, row_count, trace, &left_out);
    if (left_out == trace->sample_count)
        return ERR_ESTIMATE;
    int error = samples_reserve(scratch, trace->sample_count);
    if (error)
        return error;
    curve->step_count = 0;
    curve->sample_count = 0;
    for (size_t row = 0; row < row_count; row++) {
        rows[row].first = curve->sample_count;
        curve->sample_count += rows[row].count;
        if (rows[row].count)
            curve->steps[curve->step_count++] = rows[row];
    }
    curve->left_out = left_out;
    curve->position_mm = scratch->samples[0];
    curve->torque_a = ordered ? trace->torque_a : scratch->samples[1];
    curve->thrust_a = ordered ? trace->thrust_a : scratch->samples[2];
    if (ordered) {
        for (size_t i = 0; i < trace->sample_count; i++)
            scratch->samples[0][i] = -trace->position_mm[i];
    } else {
        samples_scatter(rows, row_count, trace, scratch->samples);
    }
    return 0;
}

const struct curve_step *curve_find_step(const struct curve *curve, int32_t number)
{
    for (size_t i = 0; i < curve->step_count; i++) {
        if (curve->steps[i].number == number)
            return &curve->steps[i];
    }
    return NULL;
}
