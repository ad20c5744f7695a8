/* A drill, a work piece and a program, run sample by sample. The numbers are those of recorded curves: feeds, no-load currents,
 * current quanta, how far a program retracts between two steps, how much the torque trembles. */
#include "simulate/simulator_curve.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/random.h"

#define TORQUE_QUANTUM_MA 48.828125 /* 200 A / 4096 */
#define THRUST_QUANTUM_MA 11.71875  /* 48 A / 4096 */
#define PI                3.14159265358979323846

enum { PROGRAM_STEPS_MAX = 4, GENERATED_SAMPLES_MAX = 24000, LAYERS_MAX = 2 };

struct layer {
    double top_mm, bottom_mm;
    double torque_a, thrust_a; /* with the whole diameter in it, at the feed of its step */
    double tremble;            /* standard deviation of the torque as a share of it */
    double give_mm;            /* how much further than the surface the tip must go to break through: the sheet bends, the last
                                  skin tears early */
    double tip_mm;             /* travel over which the torque falls there */
};

/* One step of a program; it ends where the first of its conditions holds. */
struct program_step {
    int32_t number;
    double feed_mm;      /* per sample */
    double retract_mm;   /* how far the drill goes back before it begins */
    double end_mm;       /* advance at which it ends */
    double peck_samples; /* period of the oscillation of the feed; 0: none */
    double offset_a;     /* error of the no-load current that the machine subtracts */
    double torque_empty_a, thrust_empty_a;
    size_t samples_max;
};

struct program {
    struct layer layers[LAYERS_MAX];
    unsigned layer_count;
    struct program_step steps[PROGRAM_STEPS_MAX];
    unsigned step_count;
    double start_mm;
};

struct drill {
    struct random_source random;
    double tip_mm;             /* advance of the tip */
    double deepest_mm;         /* how far it has ever been: behind it there is nothing left to cut */
    double torque_a, thrust_a; /* behind the motor's lag */
    double tremble;            /* slow part of the noise, standard deviation 1 */
    double phase;
};

static const char *const shape_names[SIMULATOR_SHAPE_COUNT] = {"one-stack", "two-stack", "micro-peck", "aborted", "air", "file"};

const char *simulator_shape_name(enum simulator_shape shape)
{
    return shape_names[shape];
}

int simulator_shape_parse(const char *name, enum simulator_shape *shape)
{
    for (int i = 0; i < SIMULATOR_FROM_FILE; i++) {
        if (strcmp(name, shape_names[i]) == 0) {
            *shape = (enum simulator_shape)i;
            return 0;
        }
    }
    return ERR_NOT_FOUND;
}

/* ---- the curve's memory ---- */

int simulator_curve_init(struct simulator_curve *curve, size_t sample_count)
{
    if (sample_count == 0 || sample_count > SIMULATOR_SAMPLES_MAX)
        return ERR_INVALID;
    int32_t *memory = calloc(sample_count * 4, sizeof *memory);
    if (!memory)
        return ERR_NO_MEMORY;
    *curve = (struct simulator_curve){
        .shape = SIMULATOR_FROM_FILE,
        .truth = {NAN, NAN, NAN},
        .sample_count = sample_count,
        .position_um = memory,
        .torque_ma = memory + sample_count,
        .thrust_ma = memory + 2 * sample_count,
        .step = memory + 3 * sample_count,
    };
    return 0;
}

void simulator_curve_fini(struct simulator_curve *curve)
{
    free(curve->position_um);
    *curve = (struct simulator_curve){0};
}

int simulator_curve_add_step(struct simulator_curve *curve, int32_t number, int32_t torque_empty_ma, int32_t thrust_empty_ma)
{
    size_t i = 0;
    while (i < curve->step_count && curve->step_number[i] != number)
        i++;
    if (i < curve->step_count)
        return 0;
    if (i == SIMULATOR_STEPS_MAX)
        return ERR_LIMIT;
    curve->step_number[i] = number;
    curve->torque_empty_ma[i] = torque_empty_ma;
    curve->thrust_empty_ma[i] = thrust_empty_ma;
    curve->step_count++;
    return 0;
}

/* ---- the programs ---- */

enum material { CFRP, ALUMINIUM, TITANIUM, MATERIAL_COUNT };

static const struct {
    double torque_a[2], thrust_a[2]; /* lowest and highest */
    double tremble;
} materials[MATERIAL_COUNT] = {
    [CFRP] = {{3.5, 6.5}, {0.04, 0.1}, 0.02},
    [ALUMINIUM] = {{6, 11}, {0.08, 0.2}, 0.015},
    [TITANIUM] = {{13, 24}, {0.2, 0.4}, 0.012},
};

static struct layer layer_of(struct random_source *random, enum material material, double top_mm, double thickness_mm)
{
    const double *torque_a = materials[material].torque_a, *thrust_a = materials[material].thrust_a;
    return (struct layer){.top_mm = top_mm,
                          .bottom_mm = top_mm + thickness_mm,
                          .torque_a = random_between(random, torque_a[0], torque_a[1]),
                          .thrust_a = random_between(random, thrust_a[0], thrust_a[1]),
                          .tremble = materials[material].tremble};
}

/* CFRP under a program that begins in step 1: slow enough for a small and steady torque. */
static void soften(struct layer *layer, struct random_source *random)
{
    layer->torque_a = random_between(random, 0.8, 2);
    layer->tremble = 0.012;
}

/* No two holes break through alike. */
static void vary_breakthrough(struct program *program, struct random_source *random)
{
    for (unsigned i = 0; i < program->layer_count; i++) {
        program->layers[i].give_mm = 0.08 * random_normal(random);
        program->layers[i].tip_mm = SIMULATOR_TIP_MM * random_between(random, 0.85, 1.25);
    }
}

/* A step at the high speed of approach and travel, or at the low one of drilling titanium. */
static struct program_step *add_step(struct program *program, struct random_source *random, int32_t number, double feed_mm, double end_mm,
                                     bool slow_spindle)
{
    struct program_step *step = &program->steps[program->step_count++];
    *step = (struct program_step){
        .number = number,
        .feed_mm = feed_mm,
        .end_mm = end_mm,
        .offset_a = random_between(random, -0.15, 0.02),
        .torque_empty_a = slow_spindle ? random_between(random, 2.05, 3.35) : random_between(random, 4.5, 5.9),
        .thrust_empty_a = slow_spindle ? random_between(random, 0.035, 0.2) : random_between(random, 0.3, 0.46),
        .samples_max = GENERATED_SAMPLES_MAX,
    };
    return step;
}

static void plan_one_stack(struct program *program, struct random_source *random)
{
    double entry_mm = random_between(random, 4.2, 6.5), thickness_mm = random_between(random, 3, 12);
    enum material material = random_below(random, MATERIAL_COUNT);
    bool titanium = material == TITANIUM;
    program->layers[0] = layer_of(random, material, entry_mm, thickness_mm);
    program->layer_count = 1;
    double behind_mm = entry_mm + thickness_mm + SIMULATOR_TIP_MM + random_between(random, 1.2, 2.4);
    add_step(program, random, 0, random_between(random, 0.03, 0.045), entry_mm - random_between(random, 0.2, 0.6), false);
    add_step(program, random, 1, titanium ? random_between(random, 0.009, 0.016) : random_between(random, 0.018, 0.03), behind_mm,
             titanium);
    if (random_below(random, 3))
        add_step(program, random, 3, random_between(random, 0.03, 0.045), behind_mm + random_between(random, 3, 10), false);
}

static void plan_two_stack(struct program *program, struct random_source *random)
{
    double entry_mm = random_between(random, 4.2, 6.5), first_mm = random_between(random, 3, 10), second_mm = random_between(random, 3, 9);
    double transition_mm = entry_mm + first_mm;
    program->layers[0] = layer_of(random, CFRP, entry_mm, first_mm);
    program->layers[1] = layer_of(random, TITANIUM, transition_mm, second_mm);
    program->layer_count = 2;
    double fast_mm = random_between(random, 0.03, 0.042);
    double behind_mm = transition_mm + second_mm + SIMULATOR_TIP_MM + random_between(random, 1.2, 2.2);
    if (random_below(random, 5)) {
        add_step(program, random, 0, fast_mm, entry_mm - random_between(random, 0.2, 0.6), false);
        add_step(program, random, 1, fast_mm, transition_mm - random_between(random, 0.1, 0.5), false);
    } else { /* the program begins in step 1 and feels the titanium */
        soften(&program->layers[0], random);
        add_step(program, random, 1, random_between(random, 0.012, 0.02), transition_mm + random_between(random, 0.25, 0.45), false);
    }
    add_step(program, random, 2, random_between(random, 0.009, 0.017), behind_mm, true)->retract_mm = random_between(random, 0.1, 0.25);
    add_step(program, random, 3, fast_mm, behind_mm + random_between(random, 3, 10), false)->retract_mm =
        random_between(random, 0.05, 0.15);
}

static void plan_micro_peck(struct program *program, struct random_source *random)
{
    double entry_mm = random_between(random, 4.2, 6.5), first_mm = random_between(random, 5, 12),
           second_mm = random_between(random, 5.5, 8.5);
    double transition_mm = entry_mm + first_mm;
    program->layers[0] = layer_of(random, CFRP, entry_mm, first_mm);
    soften(&program->layers[0], random);
    program->layers[1] = layer_of(random, TITANIUM, transition_mm, second_mm);
    program->layers[1].torque_a *= 0.5;
    program->layer_count = 2;
    double behind_mm = transition_mm + second_mm + SIMULATOR_TIP_MM + random_between(random, 0.3, 0.8);
    double feed_mm = random_between(random, 0.0095, 0.0101);
    add_step(program, random, 1, feed_mm, transition_mm + random_between(random, 0.25, 0.45), false);
    struct program_step *drill = add_step(program, random, 2, random_between(random, 0.0015, 0.0017), behind_mm, true);
    drill->retract_mm = random_between(random, 0.24, 0.32);
    drill->peck_samples = random_between(random, 12, 14);
    add_step(program, random, 3, feed_mm, fmax(behind_mm + 4, random_between(random, 30, 36.5)), false)->retract_mm = 0.25;
}

static void plan_aborted(struct program *program, struct random_source *random)
{
    plan_two_stack(program, random);
    if (random_below(random, 2)) { /* during the approach: one step, which the messages state as plain numbers */
        program->step_count = 1;
        program->steps[0].number = 1;
        program->steps[0].end_mm = fmin(program->steps[0].end_mm, program->layers[0].top_mm);
        program->steps[0].samples_max = 18 + random_below(random, 120);
    } else { /* within the first layer */
        const struct layer *layer = &program->layers[0];
        program->step_count = program->steps[0].number == 0 ? 2 : 1;
        program->steps[program->step_count - 1].end_mm = random_between(random, layer->top_mm + 0.2, layer->bottom_mm - 1);
    }
}

static void plan_air(struct program *program, struct random_source *random)
{
    plan_two_stack(program, random);
    program->layer_count = 0;
}

/* ---- the run ---- */

/* Share of the tip's torque after it has gone `mm` beyond a surface. */
static double engaged(double mm, double tip_mm)
{
    if (mm <= 0)
        return 0;
    if (mm >= tip_mm)
        return 1;
    return mm * mm / (tip_mm * tip_mm);
}

static void cutting_load(const struct program *program, double tip_mm, double *torque_a, double *thrust_a, double *tremble)
{
    *torque_a = *thrust_a = *tremble = 0;
    for (unsigned i = 0; i < program->layer_count; i++) {
        const struct layer *layer = &program->layers[i];
        double share = engaged(tip_mm - layer->top_mm, SIMULATOR_TIP_MM);
        share -= engaged(tip_mm - layer->bottom_mm - layer->give_mm, layer->tip_mm);
        /* Chips and the wall rub more the deeper the hole is. */
        double rub = 1 + 0.02 * fmax(0, tip_mm - layer->top_mm);
        *torque_a += layer->torque_a * share * rub;
        *thrust_a += layer->thrust_a * share;
        *tremble += layer->tremble * layer->torque_a * share;
    }
}

static int32_t quantise(double ampere, double quantum_ma)
{
    return (int32_t)lround(nearbyint(ampere * 1000 / quantum_ma) * quantum_ma);
}

/* One sample: moves the drill, lets the load act, and writes what the controller would record. */
static void take_sample(struct drill *drill, const struct program *program, const struct program_step *step, struct simulator_curve *curve,
                        size_t i)
{
    struct random_source *random = &drill->random;
    double swing = 0;
    if (step->peck_samples > 0) {
        drill->phase += 2 * PI / step->peck_samples;
        swing = sin(drill->phase);
        drill->tip_mm += step->feed_mm * fmax(-0.4, 1 + 2 * swing) * 0.93;
    } else {
        drill->tip_mm += step->feed_mm;
    }
    double torque_a = 0, thrust_a = 0, tremble = 0;
    if (drill->tip_mm >= drill->deepest_mm) {
        drill->deepest_mm = drill->tip_mm;
        cutting_load(program, drill->tip_mm, &torque_a, &thrust_a, &tremble);
    } else if (step->peck_samples > 0 && drill->tip_mm > drill->deepest_mm - 0.02) {
        cutting_load(program, drill->deepest_mm, &torque_a, &thrust_a, &tremble);
    }
    torque_a *= 1 + 0.18 * swing * (step->peck_samples > 0);
    thrust_a *= 1 + 0.35 * swing * (step->peck_samples > 0);
    drill->torque_a += 0.5 * (torque_a - drill->torque_a);
    drill->thrust_a += 0.5 * (thrust_a - drill->thrust_a);
    drill->tremble = 0.8 * drill->tremble + 0.6 * random_normal(random);

    double idle_a = step->offset_a + 0.022 * random_normal(random);
    curve->position_um[i] = -(int32_t)lround((drill->tip_mm + 0.0011 * random_normal(random)) * 1000);
    curve->torque_ma[i] = quantise(drill->torque_a + tremble * drill->tremble + idle_a, TORQUE_QUANTUM_MA);
    curve->thrust_ma[i] = quantise(drill->thrust_a + 0.006 * random_normal(random), THRUST_QUANTUM_MA);
    curve->step[i] = step->number;
}

/* Runs one step from sample `start` on; returns the sample behind it. */
static size_t run_step(struct drill *drill, const struct program *program, const struct program_step *step, struct simulator_curve *curve,
                       size_t start)
{
    drill->tip_mm -= step->retract_mm;
    size_t i = start;
    while (i < curve->sample_count && i - start < step->samples_max && drill->tip_mm < step->end_mm)
        take_sample(drill, program, step, curve, i++);
    if (i > start)
        simulator_curve_add_step(curve, step->number, quantise(step->torque_empty_a, TORQUE_QUANTUM_MA),
                                 quantise(step->thrust_empty_a, THRUST_QUANTUM_MA));
    return i;
}

static void note_truth(const struct program *program, const struct drill *drill, struct simulator_truth *truth)
{
    unsigned layers = program->layer_count;
    *truth = (struct simulator_truth){NAN, NAN, NAN};
    if (layers > 0 && drill->deepest_mm > program->layers[0].top_mm)
        truth->entry_mm = program->layers[0].top_mm;
    if (layers > 1 && drill->deepest_mm > program->layers[1].top_mm)
        truth->transition_mm = program->layers[1].top_mm;
    if (layers > 0 && drill->deepest_mm > program->layers[layers - 1].bottom_mm)
        truth->exit_mm = program->layers[layers - 1].bottom_mm;
}

int simulator_curve_generate(struct simulator_curve *curve, enum simulator_shape shape, uint64_t seed)
{
    static void (*const plans[SIMULATOR_FROM_FILE])(struct program *, struct random_source *) = {plan_one_stack, plan_two_stack,
                                                                                                 plan_micro_peck, plan_aborted, plan_air};
    if ((unsigned)shape >= SIMULATOR_FROM_FILE)
        return ERR_INVALID;
    struct drill drill = {.random.state = seed ^ ((uint64_t)shape + 1) << 56};
    struct program program = {.start_mm = random_between(&drill.random, 0.5, 0.95)};
    plans[shape](&program, &drill.random);
    vary_breakthrough(&program, &drill.random);
    struct simulator_curve wide;
    int error = simulator_curve_init(&wide, GENERATED_SAMPLES_MAX);
    if (error)
        return error;
    drill.tip_mm = drill.deepest_mm = program.start_mm;
    size_t count = 0;
    for (unsigned i = 0; i < program.step_count; i++)
        count = run_step(&drill, &program, &program.steps[i], &wide, count);
    struct simulator_curve fit;
    error = simulator_curve_init(&fit, count);
    if (!error) {
        memcpy(fit.position_um, wide.position_um, count * sizeof *fit.position_um);
        memcpy(fit.torque_ma, wide.torque_ma, count * sizeof *fit.torque_ma);
        memcpy(fit.thrust_ma, wide.thrust_ma, count * sizeof *fit.thrust_ma);
        memcpy(fit.step, wide.step, count * sizeof *fit.step);
        fit.step_count = wide.step_count;
        memcpy(fit.step_number, wide.step_number, sizeof fit.step_number);
        memcpy(fit.torque_empty_ma, wide.torque_empty_ma, sizeof fit.torque_empty_ma);
        memcpy(fit.thrust_empty_ma, wide.thrust_empty_ma, sizeof fit.thrust_empty_ma);
        fit.shape = shape;
        note_truth(&program, &drill, &fit.truth);
        *curve = fit;
    }
    simulator_curve_fini(&wide);
    return error;
}
