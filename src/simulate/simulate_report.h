/* What a simulation says while it runs and at its end. */
#ifndef SIMULATE_SIMULATE_REPORT_H
#define SIMULATE_SIMULATE_REPORT_H

#include <stdbool.h>

#include "simulate/simulate_play.h"

/* One line for a terminal: how far it is. */
void simulate_report_progress(const struct simulation *simulation, uint64_t now_ns);

/* The summary on standard output, for a person or as one JSON object. `problem`: why it could not begin or go on; "": it could.
 * `interrupted`: a signal ended it early. */
void simulate_report_summary(const struct simulation *simulation, const char *problem, bool interrupted);

#endif
