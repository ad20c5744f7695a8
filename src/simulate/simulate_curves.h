/* The curves that simulated tools drill: generated in given shares of shapes, or recorded ones from a folder; rendered once. */
#ifndef SIMULATE_SIMULATE_CURVES_H
#define SIMULATE_SIMULATE_CURVES_H

#include <stddef.h>
#include <stdint.h>

#include "simulate/simulator_messages.h"

enum { SIMULATE_PROBLEM_MAX = 600, SIMULATE_GENERATED_CURVES = 240 };

struct simulate_curve {
    enum simulator_shape shape;
    struct simulator_truth truth;
    uint32_t sample_count;
    struct simulator_rendering rendering;
};

struct simulate_curves {
    struct simulate_curve *items; /* [count], owned */
    size_t count;
};

/* Shares of the shapes that can be generated. */
struct simulate_mix {
    double weight[SIMULATOR_FROM_FILE];
};

/* "two-stack", "one-stack=3,two-stack=5": names with an optional weight (1). Returns 0, or ERR_INVALID with what is wrong, and what was
 * probably meant, in `problem`. */
int simulate_mix_parse(struct simulate_mix *mix, const char *text, char problem[SIMULATE_PROBLEM_MAX]);

/* Exactly `count` curves (at least one), dealt to the shapes by their weights. Returns 0 or ERR_NO_MEMORY. */
int simulate_curves_generate(struct simulate_curves *curves, const struct simulate_mix *mix, size_t count, uint64_t seed);

/* All curves of a folder. Returns 0, or an error of simulate/curve_file.h with what is wrong in `problem`. */
int simulate_curves_read(struct simulate_curves *curves, const char *folder, char problem[SIMULATE_PROBLEM_MAX]);

void simulate_curves_fini(struct simulate_curves *curves); /* accepts all zero */

#endif
