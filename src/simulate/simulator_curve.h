/* Synthetic drilling curves whose true depths are known. Pure: the same shape and seed give the same curve.
 *
 * The model is a drill with a conical tip of SIMULATOR_TIP_MM that advances through layers. While the tip enters a layer the torque
 * grows with the square of the tip's depth in it (the edge that cuts, times its lever arm); while it leaves, the torque falls the same
 * way. Each program step has its feed and spindle speed, and with them a no-load current that the machine subtracts. On top come the
 * motor's lag, noise that grows with the load, and the quantisation of the real controllers. */
#ifndef SIMULATE_SIMULATOR_CURVE_H
#define SIMULATE_SIMULATOR_CURVE_H

#include <stddef.h>
#include <stdint.h>

enum simulator_shape {
    SIMULATOR_ONE_STACK,  /* steps 0 approach, 1 the layer, often 3 travel behind it */
    SIMULATOR_TWO_STACK,  /* CFRP on titanium; steps 0, 1, 2, 3, or 1, 2, 3 where the program begins in step 1 */
    SIMULATOR_MICRO_PECK, /* CFRP on titanium with an oscillating feed, steps 1, 2, 3, some 8,000 samples */
    SIMULATOR_ABORTED,    /* stopped during the approach (one step) or within the first layer */
    SIMULATOR_AIR,        /* a two-stack program without material */
    SIMULATOR_FROM_FILE,  /* a recorded curve: truth unknown; not for simulator_curve_generate */
    SIMULATOR_SHAPE_COUNT
};

enum { SIMULATOR_STEPS_MAX = 16, SIMULATOR_SAMPLES_MAX = 200000, SIMULATOR_SAMPLES_PER_S = 100 };

#define SIMULATOR_TIP_MM 0.7

/* Advance of the tip, in mm, at which it touches the surfaces: of the first layer, of the second, and the far side. NAN where the hole
 * has no such point. */
struct simulator_truth {
    double entry_mm, transition_mm, exit_mm;
};

/* One curve, in the units of the wire: every value has at most three decimals there. */
struct simulator_curve {
    enum simulator_shape shape;
    struct simulator_truth truth;
    size_t sample_count;
    int32_t *position_um;                         /* [sample_count] negative is advance; owned, one block of memory with the next three */
    int32_t *torque_ma;                           /* [sample_count] without the no-load part */
    int32_t *thrust_ma;                           /* [sample_count] */
    int32_t *step;                                /* [sample_count] program step */
    size_t step_count;                            /* distinct steps */
    int32_t step_number[SIMULATOR_STEPS_MAX];     /* [step_count] in order of first appearance */
    int32_t torque_empty_ma[SIMULATOR_STEPS_MAX]; /* [step_count] no-load current of the step */
    int32_t thrust_empty_ma[SIMULATOR_STEPS_MAX]; /* [step_count] */
};

/* Makes a curve. Returns 0, ERR_NO_MEMORY, or ERR_INVALID for a shape that cannot be generated. */
int simulator_curve_generate(struct simulator_curve *curve, enum simulator_shape shape, uint64_t seed);

/* Memory for sample_count samples (1 .. SIMULATOR_SAMPLES_MAX), all zero. Returns 0, ERR_INVALID or ERR_NO_MEMORY. */
int simulator_curve_init(struct simulator_curve *curve, size_t sample_count);
void simulator_curve_fini(struct simulator_curve *curve); /* accepts an all-zero curve */

/* Adds the step of a sample to the list of steps when it is new. Returns 0, or ERR_LIMIT beyond SIMULATOR_STEPS_MAX. */
int simulator_curve_add_step(struct simulator_curve *curve, int32_t number, int32_t torque_empty_ma, int32_t thrust_empty_ma);

const char *simulator_shape_name(enum simulator_shape shape); /* "two-stack"; static */

/* Shape by name; ERR_NOT_FOUND for another word and for what cannot be generated. */
int simulator_shape_parse(const char *name, enum simulator_shape *shape);

#endif
