#include "simulate/simulate_curves.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "simulate/curve_file.h"

enum { WORD_MAX = 64 };

/* ---- shares ---- */

static int refuse_shape(const char *word, char problem[SIMULATE_PROBLEM_MAX])
{
    const char *names[SIMULATOR_FROM_FILE];
    for (int i = 0; i < SIMULATOR_FROM_FILE; i++)
        names[i] = simulator_shape_name((enum simulator_shape)i);
    const char *meant = text_suggest(word, names, SIMULATOR_FROM_FILE);
    int used = snprintf(problem, SIMULATE_PROBLEM_MAX, "`%s` is no shape; the shapes are", word);
    for (int i = 0; i < SIMULATOR_FROM_FILE; i++)
        used += snprintf(problem + used, (size_t)(SIMULATE_PROBLEM_MAX - used), "%s %s", i ? "," : "", names[i]);
    if (meant)
        snprintf(problem + used, (size_t)(SIMULATE_PROBLEM_MAX - used), ". Did you mean `%s`?", meant);
    return ERR_INVALID;
}

/* One "name" or "name=weight". */
static int parse_share(struct simulate_mix *mix, char *word, char problem[SIMULATE_PROBLEM_MAX])
{
    double weight = 1;
    char *equals = strchr(word, '=');
    if (equals) {
        char *end;
        *equals = '\0';
        weight = strtod(equals + 1, &end);
        if (end == equals + 1 || *end || !(weight >= 0 && weight <= 1e6)) {
            snprintf(problem, SIMULATE_PROBLEM_MAX, "the weight of %s is `%s`, expected a number from 0 to 1000000", word, equals + 1);
            return ERR_INVALID;
        }
    }
    enum simulator_shape shape;
    if (simulator_shape_parse(word, &shape) != 0)
        return refuse_shape(word, problem);
    mix->weight[shape] += weight;
    return 0;
}

int simulate_mix_parse(struct simulate_mix *mix, const char *text, char problem[SIMULATE_PROBLEM_MAX])
{
    struct simulate_mix parsed = {{0}};
    double sum = 0;
    for (const char *at = text;; at++) {
        char word[WORD_MAX];
        size_t length = strcspn(at, ",");
        snprintf(word, sizeof word, "%.*s", (int)(length < WORD_MAX ? length : WORD_MAX - 1), at);
        int error = parse_share(&parsed, word, problem);
        if (error)
            return error;
        at += length;
        if (!*at)
            break;
    }
    for (int i = 0; i < SIMULATOR_FROM_FILE; i++)
        sum += parsed.weight[i];
    if (!(sum > 0)) {
        snprintf(problem, SIMULATE_PROBLEM_MAX, "at least one shape needs a weight above 0");
        return ERR_INVALID;
    }
    *mix = parsed;
    return 0;
}

/* ---- curves ---- */

static int render(struct simulate_curve *item, const struct simulator_curve *curve)
{
    item->shape = curve->shape;
    item->truth = curve->truth;
    item->sample_count = (uint32_t)curve->sample_count;
    return simulator_rendering_init(&item->rendering, curve);
}

/* The shape whose share is most in arrears when `done` curves of each have been dealt. */
static enum simulator_shape next_shape(const struct simulate_mix *mix, const size_t done[SIMULATOR_FROM_FILE])
{
    int best = -1;
    double best_arrears = 0;
    for (int i = 0; i < SIMULATOR_FROM_FILE; i++) {
        double arrears = mix->weight[i] > 0 ? mix->weight[i] / ((double)done[i] + 0.5) : -1;
        if (arrears > best_arrears) {
            best = i;
            best_arrears = arrears;
        }
    }
    return (enum simulator_shape)best;
}

int simulate_curves_generate(struct simulate_curves *curves, const struct simulate_mix *mix, size_t count, uint64_t seed)
{
    struct simulate_curves made = {.items = calloc(count, sizeof *made.items)};
    size_t done[SIMULATOR_FROM_FILE] = {0};
    int error = made.items ? 0 : ERR_NO_MEMORY;
    while (!error && made.count < count) {
        struct simulator_curve curve;
        enum simulator_shape shape = next_shape(mix, done);
        done[shape]++;
        error = simulator_curve_generate(&curve, shape, seed * 1000003 + made.count);
        if (error)
            break;
        error = render(&made.items[made.count], &curve);
        made.count += !error;
        simulator_curve_fini(&curve);
    }
    if (error)
        simulate_curves_fini(&made);
    else
        *curves = made;
    return error;
}

int simulate_curves_read(struct simulate_curves *curves, const char *folder, char problem[SIMULATE_PROBLEM_MAX])
{
    struct curve_file_problem found;
    char **paths;
    size_t count;
    int error = curve_folder_list(folder, &paths, &count, &found);
    if (error) {
        snprintf(problem, SIMULATE_PROBLEM_MAX, "%s", found.text);
        return error;
    }
    struct simulate_curves made = {.items = calloc(count, sizeof *made.items)};
    snprintf(found.text, sizeof found.text, "%s", error_text(ERR_NO_MEMORY));
    error = made.items ? 0 : ERR_NO_MEMORY;
    while (!error && made.count < count) {
        struct simulator_curve curve;
        error = curve_file_read(paths[made.count], &curve, &found);
        if (error)
            break;
        error = render(&made.items[made.count], &curve);
        made.count += !error;
        simulator_curve_fini(&curve);
    }
    curve_folder_free(paths, count);
    if (error) {
        snprintf(problem, SIMULATE_PROBLEM_MAX, "%s", found.text);
        simulate_curves_fini(&made);
        return error;
    }
    *curves = made;
    return 0;
}

void simulate_curves_fini(struct simulate_curves *curves)
{
    for (size_t i = 0; i < curves->count; i++)
        simulator_rendering_fini(&curves->items[i].rendering);
    free(curves->items);
    *curves = (struct simulate_curves){0};
}
