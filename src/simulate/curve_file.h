/* Recorded drilling curves: text with one sample a line (100 a second), plain (.csv) or compressed (.csv.gz).
 *
 * The first line names the columns, in any order: step, position_mm (negative is advance), torque_a, thrust_a, torque_empty_a,
 * thrust_empty_a. Other columns are skipped. Values are kept to three decimals, as the tools send them. The no-load currents of a step
 * are those of its first sample. */
#ifndef SIMULATE_CURVE_FILE_H
#define SIMULATE_CURVE_FILE_H

#include <stddef.h>

#include "simulate/simulator_curve.h"

enum { CURVE_FILE_PROBLEM_MAX = 512, CURVE_FILE_LINE_MAX = 1024, CURVE_FOLDER_FILES_MAX = 20000 };

/* What is wrong, for a person: "FILE:LINE: what was found, what was expected". */
struct curve_file_problem {
    char text[CURVE_FILE_PROBLEM_MAX];
};

/* Reads one file. On success the caller owns *curve (simulator_curve_fini). Returns 0, or with *problem filled and *curve untouched:
 *   ERR_NOT_FOUND  cannot be opened
 *   ERR_CORRUPT    the compressed data is cut or damaged
 *   ERR_INVALID    no header, a column missing or named twice, a field missing, not a number, out of range, no sample
 *   ERR_LIMIT      more than SIMULATOR_SAMPLES_MAX samples, SIMULATOR_STEPS_MAX steps, or CURVE_FILE_LINE_MAX bytes in a line
 *   ERR_NO_MEMORY */
int curve_file_read(const char *path, struct simulator_curve *curve, struct curve_file_problem *problem);

/* Paths of the *.csv.gz and *.csv files of a folder, sorted by name. The caller frees with curve_folder_free. Returns 0,
 * ERR_NOT_FOUND (no such folder, or no such file in it), ERR_LIMIT (more than CURVE_FOLDER_FILES_MAX) or ERR_NO_MEMORY, with *problem. */
int curve_folder_list(const char *folder, char ***paths, size_t *count, struct curve_file_problem *problem);
void curve_folder_free(char **paths, size_t count);

#endif
