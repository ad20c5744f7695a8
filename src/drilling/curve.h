/* The curve of one hole: the samples of a trace joined with the rows of a result, by step number.
 *
 * Samples are ordered by ascending step number and keep their order within a step, so each step is one range. A sample whose step has
 * no row in the result is left out: without its no-load current it cannot be judged. A row without samples is left out as well. Of
 * several rows with one number the last counts. Pure. */
#ifndef DRILLING_CURVE_H
#define DRILLING_CURVE_H

#include <stddef.h>
#include <stdint.h>

#include "drilling/payload.h"

struct curve_step {
    int32_t number;
    size_t first, count; /* its samples: [first, first + count), count > 0 */
    float torque_empty_a, thrust_empty_a;
};

struct curve {
    size_t sample_count;
    const float *position_mm;         /* [sample_count]; advance is positive: the sign of the wire is turned */
    const float *torque_a, *thrust_a; /* [sample_count] as measured, without the no-load current */
    size_t step_count;                /* >= 1, ascending numbers */
    struct curve_step steps[PAYLOAD_STEPS_MAX];
    size_t left_out; /* samples whose step has no row */
};

struct curve_scratch; /* memory of the curves; one thread at a time */

int curve_scratch_create(struct curve_scratch **scratch);
void curve_scratch_destroy(struct curve_scratch *scratch);

/* Returns 0 with *curve, which is valid until the next call with this scratch and as long as *trace; ERR_ESTIMATE when no sample has a
 * row; ERR_NO_MEMORY. */
int curve_assemble(struct curve_scratch *scratch, const struct payload_result *result, const struct payload_trace *trace,
                   struct curve *curve);

/* The step with this number, or NULL. */
const struct curve_step *curve_find_step(const struct curve *curve, int32_t number);

#endif
