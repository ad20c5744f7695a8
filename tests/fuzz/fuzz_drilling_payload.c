/* Payloads of the three messages: the first byte picks the side and the paths, the rest is the message. Whatever is read of a trace goes
 * on through the curve and every estimator. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "drilling/estimator.h"
#include "fuzz.h"

enum { SIDE_BITS = 3, SHORT_PATHS = 4 }; /* of the first byte */

/* Paths that an input reaches with few bytes. */
static const char *const short_paths[PAYLOAD_FIELD_COUNT] = {
    [PAYLOAD_MACHINE_ID] = ".mid",  [PAYLOAD_RESULT_ID] = ".rid",       [PAYLOAD_STEPS] = ".rows",   [PAYLOAD_TORQUE_EMPTY] = ".te",
    [PAYLOAD_THRUST_EMPTY] = ".he", [PAYLOAD_POSITION] = ".pos",        [PAYLOAD_THRUST] = ".thr",   [PAYLOAD_TORQUE] = ".tor",
    [PAYLOAD_STEP] = ".step",       [PAYLOAD_TRACE_RESULT_ID] = ".tid", [PAYLOAD_HEAD_ID] = ".head", [PAYLOAD_HEAD_CYCLES] = ".cyc"};

static struct payload_reader *reader;
static struct curve_scratch *curves;
static struct estimator_scratch *estimates;
static struct payload_paths paths[2];

static void open_once(void)
{
    if (reader)
        return;
    PROMISE(payload_reader_create(&reader) == 0);
    PROMISE(curve_scratch_create(&curves) == 0);
    PROMISE(estimator_scratch_create(&estimates) == 0);
    payload_paths_default(&paths[0]);
    for (size_t i = 0; i < PAYLOAD_FIELD_COUNT; i++)
        strcpy(paths[1].path[i], short_paths[i]);
}

/* A text that was taken: it ends in its memory and is UTF-8. */
static void check_text(const char *text, size_t size)
{
    PROMISE(memchr(text, 0, size));
    PROMISE(text_is_utf8(text, strlen(text)));
}

static void check_estimates(const struct payload_trace *trace)
{
    struct payload_result rows = {.step_count = 6, .step = {3, 1, 2, 0, 1, -7}, .torque_empty_a = {1, 2, 3, 4, 5, 6}};
    struct curve curve;
    int error = curve_assemble(curves, &rows, trace, &curve);
    PROMISE(error == 0 || error == ERR_ESTIMATE);
    if (error)
        return;
    PROMISE(curve.sample_count + curve.left_out == trace->sample_count);
    for (size_t i = 0; estimator_at(i); i++) {
        struct keypoints keypoints;
        struct estimator_failure failure;
        error = estimator_at(i)->estimate(&curve, &estimator_defaults, estimates, &keypoints, &failure);
        PROMISE(error == 0 || error == ERR_ESTIMATE);
        if (error) {
            PROMISE(failure.text[0] && memchr(failure.text, 0, sizeof failure.text));
            continue;
        }
        PROMISE(keypoints.count >= 1 && keypoints.count <= KEYPOINTS_MAX);
        for (unsigned j = 0; j < keypoints.count; j++)
            PROMISE(isfinite(keypoints.position_mm[j]));
    }
}

static void check_payload(enum payload_side side, const struct payload *payload)
{
    PROMISE(payload->stamp[0]);
    if (side == PAYLOAD_RESULT) {
        check_text(payload->result.machine_id, sizeof payload->result.machine_id);
        check_text(payload->result.result_id, sizeof payload->result.result_id);
        PROMISE(payload->result.machine_id[0] && payload->result.result_id[0]);
        PROMISE(payload->result.step_count >= 1 && payload->result.step_count <= PAYLOAD_STEPS_MAX);
    } else if (side == PAYLOAD_TRACE) {
        check_text(payload->trace.result_id, sizeof payload->trace.result_id);
        PROMISE(payload->trace.sample_count >= 1 && payload->trace.sample_count <= PAYLOAD_SAMPLES_MAX);
        for (size_t i = 0; i < payload->trace.sample_count; i++)
            PROMISE(isfinite(payload->trace.position_mm[i]) && isfinite(payload->trace.torque_a[i]) &&
                    isfinite(payload->trace.thrust_a[i]));
        check_estimates(&payload->trace);
    } else {
        check_text(payload->heads.head_id, sizeof payload->heads.head_id);
        check_text(payload->heads.cycle_counter, sizeof payload->heads.cycle_counter);
    }
}

/* A document that is taken ends in its closing brace: without it, nothing of it may be taken. */
static void check_cut(enum payload_side side, const struct payload_paths *chosen, const uint8_t *data, size_t size)
{
    struct payload payload;
    struct stage_refusal refusal = {0};
    while (size && data[size - 1] != '}')
        size--;
    PROMISE(size > 0);
    PROMISE(payload_read(reader, chosen, side, data, size - 1, &payload, &refusal) != 0);
    PROMISE(strcmp(refusal.reason, "not_json") == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    open_once();
    if (size == 0)
        return 0;
    enum payload_side side = (data[0] & SIDE_BITS) % PAYLOAD_SIDE_COUNT;
    const struct payload_paths *chosen = &paths[data[0] & SHORT_PATHS ? 1 : 0];
    data++;
    size--;
    struct payload payload;
    struct stage_refusal refusal = {0};
    int error = payload_read(reader, chosen, side, data, size, &payload, &refusal);
    check_text(payload.stamp, sizeof payload.stamp);
    if (error) {
        PROMISE(error_class(error) == ERROR_CLASS_DATA);
        PROMISE(refusal.reason && refusal.error[0]);
        check_text(refusal.error, sizeof refusal.error);
        return 0;
    }
    PROMISE(text_is_utf8((const char *)data, size));
    check_payload(side, &payload);
    check_cut(side, chosen, data, size);
    return 0;
}
