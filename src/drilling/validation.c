#include "drilling/validation.h"

const struct validation_options validation_defaults = {
    .behaviour = VALIDATION_PUBLISH,
    .track_sequences = true,
    .sequence_threshold = 5,
    .sequence_window_ns = UINT64_C(5) * 60 * 1000000000,
};

void validation_tracker_init(struct validation_tracker *tracker)
{
    *tracker = (struct validation_tracker){0};
}

bool validation_is_negative(const double *depths_mm, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (depths_mm[i] < 0)
            return true;
    }
    return false;
}

static unsigned count_within(const struct validation_tracker *tracker, uint64_t window_ns, uint64_t now_ns)
{
    unsigned within = 0;
    for (unsigned i = 0; i < tracker->count; i++)
        within += now_ns < tracker->times_ns[i] || now_ns - tracker->times_ns[i] <= window_ns;
    return within;
}

static unsigned track(struct validation_tracker *tracker, const struct validation_options *options, uint64_t now_ns)
{
    tracker->times_ns[tracker->next] = now_ns;
    tracker->next = (tracker->next + 1) % VALIDATION_TRACKED_MAX;
    if (tracker->count < VALIDATION_TRACKED_MAX)
        tracker->count++;
    unsigned within = count_within(tracker, options->sequence_window_ns, now_ns);
    if (within < options->sequence_threshold || (tracker->reported && now_ns < tracker->report_after_ns))
        return 0;
    tracker->reported = true;
    tracker->report_after_ns = now_ns + VALIDATION_REPORT_INTERVAL_NS;
    return within;
}

struct validation_verdict validation_judge(struct validation_tracker *tracker, const struct validation_options *options,
                                           const double *depths_mm, size_t count, uint64_t now_ns)
{
    struct validation_verdict verdict = {.negative = validation_is_negative(depths_mm, count), .action = VALIDATION_PUBLISH};
    if (!verdict.negative)
        return verdict;
    verdict.action = options->behaviour;
    if (options->track_sequences)
        verdict.sequence = track(tracker, options, now_ns);
    return verdict;
}
