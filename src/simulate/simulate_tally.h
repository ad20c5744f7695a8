/* What a simulation has measured. Pure. */
#ifndef SIMULATE_SIMULATE_TALLY_H
#define SIMULATE_SIMULATE_TALLY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/histogram.h"
#include "simulate/simulator_curve.h"

enum { SIMULATE_ERROR_TEXTS_MAX = 12, SIMULATE_ERROR_TEXT_MAX = 160 };

/* What an estimate is compared in. */
enum simulate_point {
    SIMULATE_ENTRY,
    SIMULATE_TRANSITION,
    SIMULATE_EXIT,
    SIMULATE_LAYER_1, /* transition - entry */
    SIMULATE_LAYER_2, /* exit - transition */
    SIMULATE_DEPTH,   /* exit - entry */
    SIMULATE_POINT_COUNT
};

enum { SIMULATE_MEASURED_SHAPES = SIMULATOR_MICRO_PECK + 1 }; /* those that have an exit */

/* Errors of one point: estimate minus truth. */
struct simulate_errors {
    uint64_t count;
    double mean_mm, squares_mm2; /* squares: sum of squared distances from the mean */
    double max_mm;               /* largest distance from the truth */
    struct histogram absolute_um;
};

struct simulate_error_text {
    char text[SIMULATE_ERROR_TEXT_MAX];
    uint64_t count;
};

struct simulate_tally {
    uint64_t messages_sent, messages_acknowledged, messages_refused, messages_sent_again; /* sent: first sendings, duplicates included */
    uint64_t payload_bytes;
    uint64_t duplicates_sent, late_heads_sent, without_heads, malformed_sent;
    uint64_t estimates, error_answers, unexpected_errors; /* holes; unexpected: of a shape that can be estimated */
    uint64_t answers_received, duplicates_received, foreign_answers, unreadable_answers, wrong_identity, wrong_head, answers_to_malformed;
    uint64_t answers_without_id;
    uint64_t unseen;                    /* of the lost: sent before the receiver was cut off, so that the answer may have gone by */
    uint64_t unacknowledged;            /* messages, at the end */
    uint64_t outages, connections_lost; /* outages: the receiver was cut off */
    uint64_t first_message_ns, last_answer_ns, last_progress_ns;
    struct histogram answer_ns;          /* from a hole's last message to its complete answer; all its messages came in time */
    struct histogram answer_headless_ns; /* the same where heads were missing or late */
    struct histogram acknowledge_ns;
    struct simulate_errors errors[SIMULATE_MEASURED_SHAPES][SIMULATE_POINT_COUNT];
    struct simulate_error_text texts[SIMULATE_ERROR_TEXTS_MAX]; /* [text_count] */
    unsigned text_count;
    uint64_t other_texts; /* errors whose text did not fit into the list */
};

/* Compares an estimate with the truth: `values` are 2 (entry, exit) or 3 key points, mm. Points whose truth is unknown are left out. */
void simulate_tally_estimate(struct simulate_tally *tally, enum simulator_shape shape, const struct simulator_truth *truth,
                             const double *values, unsigned value_count);

/* Counts the text of an error answer. */
void simulate_tally_error(struct simulate_tally *tally, const char *text);

double simulate_errors_deviation(const struct simulate_errors *errors); /* standard deviation, mm; 0 for fewer than two */

const char *simulate_point_name(enum simulate_point point);

#endif
