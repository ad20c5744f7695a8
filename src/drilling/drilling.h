/* Drilling as a stage of the pipeline: the three messages of a hole in, its key points and depths out.
 *
 * A hole is one tool's result, trace and (if it comes in time) heads message with the same SourceTimestamp. Every hole is answered with
 * two messages, also when it cannot be estimated. This header is the module's face to the program; docs/estimators.md and
 * docs/results.md say what it does. */
#ifndef DRILLING_DRILLING_H
#define DRILLING_DRILLING_H

#include <stdbool.h>
#include <stdint.h>

#include "drilling/payload.h"
#include "drilling/topics.h"
#include "drilling/validation.h"
#include "pipeline/stage.h"

struct drilling_options {
    struct topics_options topics;           /* root and suffixes of input, suffixes of answers */
    const char *paths[PAYLOAD_FIELD_COUNT]; /* where values stand in a payload (mqtt.data_ids); NULL: the default of the field */
    const char *estimator;                  /* a name of estimator.h */
    double bit_depth_mm;                    /* > 0, length of the bit's tip */
    struct validation_options validation;   /* of negative depths */
    const char *algo_version;               /* the text of AlgoVersion; up to DRILLING_VERSION_MAX bytes */
    bool correlate_by_time;                 /* join messages whose stamps are near, not only equal ones */
    uint64_t time_window_ns;                /* how near */
    bool silent;                            /* publish nothing for the failures that the replaced system swallowed */
};

enum { DRILLING_WHY_MAX = 256, DRILLING_VERSION_MAX = 63 };

/* Fills in what a site without a configuration file gets. */
void drilling_options_default(struct drilling_options *options);

/* Copies the options. Returns 0 with *stage; ERR_CONFIG with a sentence for a person in `why`; or ERR_NO_MEMORY. */
int drilling_create(struct stage **stage, const struct drilling_options *options, char why[DRILLING_WHY_MAX]);
void drilling_destroy(struct stage *stage); /* accepts NULL */

/* Takes over estimator, bit depth, validation, version, kind of correlation, time window and silence while the stage is in use; any thread.
 * Topics and paths stay as they were created. Errors as drilling_create; then nothing changes. */
int drilling_reconfigure(struct stage *stage, const struct drilling_options *options, char why[DRILLING_WHY_MAX]);

#endif
