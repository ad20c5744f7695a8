/* The stage: topics, payloads, curves, estimators, validation and results put together behind pipeline/stage.h. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "base/message.h"
#include "base/text.h"
#include "base/version.h"
#include "drilling/drilling.h"
#include "drilling/estimator.h"
#include "drilling/json.h"
#include "drilling/result.h"
#include "drilling/stamp.h"

enum { SIDE_COUNT = PAYLOAD_SIDE_COUNT };

static const char *const side_names[SIDE_COUNT] = {[PAYLOAD_RESULT] = "result", [PAYLOAD_TRACE] = "trace", [PAYLOAD_HEADS] = "heads"};

/* Labels of drilling_holes_total. */
static const char *const outcomes[] = {"estimated", "too_few_steps", "error", "skipped", "unpublished", NULL};

/* What may change while the stage is in use. */
struct tunables {
    char algo_version[DRILLING_VERSION_MAX + 1];
    const struct estimator_ops *estimator;
    struct estimator_settings settings;
    struct validation_options validation;
    bool silent;
};

struct drilling {
    struct stage stage; /* first: the pipeline's pointer is ours */
    struct topics topics;
    struct payload_paths paths;
    atomic_bool correlate_by_time;
    atomic_uint_fast64_t time_window_ns;
    pthread_mutex_t mutex; /* of the two below */
    struct tunables tunables;
    struct validation_tracker tracker;
    atomic_uint_fast64_t result_id_mismatches, cycle_mismatches;
    atomic_uint_fast64_t negatives[3]; /* by enum validation_behaviour */
    atomic_uint_fast64_t sequences;
};

struct scratch {
    struct payload_reader *payloads;
    struct curve_scratch *curves;
    struct estimator_scratch *estimates;
    struct json_reader *results;
};

static struct drilling *drilling_of(struct stage *stage)
{
    return (struct drilling *)stage;
}

static void count(atomic_uint_fast64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static uint64_t counted(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* ---- memory of a worker ---- */

static void scratch_destroy(struct stage *stage, void *given)
{
    (void)stage;
    struct scratch *scratch = given;
    if (scratch) {
        payload_reader_destroy(scratch->payloads);
        curve_scratch_destroy(scratch->curves);
        estimator_scratch_destroy(scratch->estimates);
        json_reader_destroy(scratch->results);
        free(scratch);
    }
}

static int scratch_create(struct stage *stage, void **out)
{
    struct scratch *scratch = calloc(1, sizeof *scratch);
    if (!scratch)
        return ERR_NO_MEMORY;
    int error = payload_reader_create(&scratch->payloads);
    if (!error)
        error = curve_scratch_create(&scratch->curves);
    if (!error)
        error = estimator_scratch_create(&scratch->estimates);
    if (!error)
        error = json_reader_create(&scratch->results);
    if (error)
        scratch_destroy(stage, scratch);
    else
        *out = scratch;
    return error;
}

/* ---- from topic to side ---- */

static void stage_route_topic(struct stage *stage, const char *topic, uint32_t topic_length, struct stage_route *route,
                              struct stage_refusal *refusal)
{
    static const enum payload_side sides[] = {
        [TOPICS_RESULT] = PAYLOAD_RESULT, [TOPICS_TRACE] = PAYLOAD_TRACE, [TOPICS_HEADS] = PAYLOAD_HEADS};
    const struct drilling *drilling = drilling_of(stage);
    struct topics_match match;
    topics_classify(&drilling->topics, topic, topic_length, &match);
    *route = (struct stage_route){.key = match.key, .key_length = match.key_length};
    switch (match.kind) {
    case TOPICS_RESULT:
    case TOPICS_TRACE:
    case TOPICS_HEADS:
        if (match.key_length > topics_key_max(&drilling->topics)) {
            route->verdict = STAGE_REJECT;
            refusal->reason = "too_large";
            snprintf(refusal->error, sizeof refusal->error,
                     "toolbox and tool have %u bytes together; with more than %u the topic of the answer is too long", match.key_length,
                     topics_key_max(&drilling->topics));
            return;
        }
        route->verdict = STAGE_TAKE;
        route->side = (uint8_t)sides[match.kind];
        return;
    case TOPICS_ANSWER:
    case TOPICS_OTHER_ASSET:
        route->verdict = STAGE_IGNORE;
        return;
    case TOPICS_UNKNOWN:
        break;
    }
    route->verdict = STAGE_REJECT;
    refusal->reason = "unknown_topic";
    topics_explain(&drilling->topics, topic, topic_length, refusal->error, sizeof refusal->error);
}

/* ---- from message to item ---- */

/* A trace that waits: one block with its samples behind it. */
static void *hold_trace(const struct payload_trace *trace, size_t *held_bytes)
{
    size_t count = trace->sample_count;
    *held_bytes = sizeof *trace + count * (3 * sizeof(float) + sizeof(int32_t));
    struct payload_trace *held = malloc(*held_bytes);
    if (!held)
        return NULL;
    *held = *trace;
    float *samples = (float *)(held + 1);
    int32_t *steps = (int32_t *)(samples + 3 * count);
    held->position_mm = memcpy(samples, trace->position_mm, count * sizeof *samples);
    held->torque_a = memcpy(samples + count, trace->torque_a, count * sizeof *samples);
    held->thrust_a = memcpy(samples + 2 * count, trace->thrust_a, count * sizeof *samples);
    held->step = memcpy(steps, trace->step, count * sizeof *steps);
    return held;
}

static void *hold_copy(const void *content, size_t size, size_t *held_bytes)
{
    void *held = malloc(size);
    *held_bytes = size;
    return held ? memcpy(held, content, size) : NULL;
}

static int fill_item(const struct payload *payload, enum payload_side side, struct stage_item *item)
{
    const char *id = "";
    if (side == PAYLOAD_RESULT) {
        id = payload->result.result_id;
        item->data = hold_copy(&payload->result, sizeof payload->result, &item->held_bytes);
    } else if (side == PAYLOAD_TRACE) {
        id = payload->trace.result_id;
        item->data = hold_trace(&payload->trace, &item->held_bytes);
    } else {
        id = payload->heads.cycle_counter; /* a head that counts otherwise must not be kept from its hole */
        item->id_is_hint = true;
        item->data = hold_copy(&payload->heads, sizeof payload->heads, &item->held_bytes);
    }
    payload_hole_number(id, item->id);
    return item->data ? 0 : ERR_NO_MEMORY;
}

static int stage_parse(struct stage *stage, void *given, const struct stage_route *route, const struct message *message,
                       struct stage_item *item, struct stage_refusal *refusal)
{
    const struct drilling *drilling = drilling_of(stage);
    struct scratch *scratch = given;
    struct payload payload;
    struct stage_item parsed = {.side = route->side};
    int error =
        payload_read(scratch->payloads, &drilling->paths, route->side, message->payload, message->payload_length, &payload, refusal);
    if (!error) {
        error = fill_item(&payload, route->side, &parsed);
    } else if (error_class(error) == ERROR_CLASS_DATA && payload.stamp[0]) {
        parsed.broken = true;
        error = 0;
    }
    if (error && error_class(error) != ERROR_CLASS_DATA) {
        refusal->reason = "internal";
        snprintf(refusal->error, sizeof refusal->error, "the %s could not be read: %s", side_names[route->side], error_text(error));
    }
    if (!error) {
        memcpy(parsed.stamp, payload.stamp, sizeof parsed.stamp);
        *item = parsed;
    }
    return error;
}

static void stage_item_free(struct stage *stage, struct stage_item *item)
{
    (void)stage;
    free(item->data);
    item->data = NULL;
    item->held_bytes = 0;
}

/* ---- comparing items ---- */

static bool stage_same_set(struct stage *stage, const struct stage_item *a, const struct stage_item *b)
{
    const struct drilling *drilling = drilling_of(stage);
    if (atomic_load_explicit(&drilling->correlate_by_time, memory_order_relaxed))
        return stamp_near(a->stamp, b->stamp, counted(&drilling->time_window_ns));
    return strcmp(a->stamp, b->stamp) == 0;
}

static bool same_result(const struct payload_result *a, const struct payload_result *b)
{
    return strcmp(a->machine_id, b->machine_id) == 0 && strcmp(a->result_id, b->result_id) == 0 && a->step_count == b->step_count &&
           memcmp(a->step, b->step, a->step_count * sizeof *a->step) == 0 &&
           memcmp(a->torque_empty_a, b->torque_empty_a, a->step_count * sizeof *a->torque_empty_a) == 0 &&
           memcmp(a->thrust_empty_a, b->thrust_empty_a, a->step_count * sizeof *a->thrust_empty_a) == 0;
}

static bool same_trace(const struct payload_trace *a, const struct payload_trace *b)
{
    size_t size = a->sample_count * sizeof(float);
    return strcmp(a->result_id, b->result_id) == 0 && a->sample_count == b->sample_count &&
           memcmp(a->position_mm, b->position_mm, size) == 0 && memcmp(a->torque_a, b->torque_a, size) == 0 &&
           memcmp(a->thrust_a, b->thrust_a, size) == 0 && memcmp(a->step, b->step, a->sample_count * sizeof *a->step) == 0;
}

static bool same_heads(const struct payload_heads *a, const struct payload_heads *b)
{
    return strcmp(a->head_id, b->head_id) == 0 && strcmp(a->cycle_counter, b->cycle_counter) == 0;
}

/* What is read of a message decides; the order of its keys, its MessageId and fields that are not needed do not. */
static bool stage_same_content(struct stage *stage, const struct stage_item *a, const struct stage_item *b)
{
    (void)stage;
    if (!a->data || !b->data || a->side != b->side || strcmp(a->stamp, b->stamp) != 0)
        return false;
    if (a->side == PAYLOAD_RESULT)
        return same_result(a->data, b->data);
    return a->side == PAYLOAD_TRACE ? same_trace(a->data, b->data) : same_heads(a->data, b->data);
}

/* ---- the answer ---- */

/* One complete(): what is known of the hole, and where its answer goes. */
struct hole {
    struct drilling *drilling;
    const char *key;
    uint32_t key_length;
    const struct payload_result *result; /* NULL where the message is broken or missing */
    const struct payload_trace *trace;
    const struct payload_heads *heads;
    struct result_identity identity;
    struct stage_output *output;
};

/* As much of a key as a diagnostic shows. */
static int shown_length(const struct hole *hole)
{
    enum { KEY_SHOWN_MAX = 100 };
    return hole->key_length < KEY_SHOWN_MAX ? (int)hole->key_length : KEY_SHOWN_MAX;
}

static const char *known(const char *text)
{
    return text && text[0] ? text : NULL;
}

static void identify_hole(struct hole *hole, const struct stage_item *const items[STAGE_SIDES_MAX])
{
    const struct stage_item *first = NULL;
    for (int side = SIDE_COUNT - 1; side >= 0; side--)
        first = items[side] ? items[side] : first;
    hole->result = items[PAYLOAD_RESULT] ? items[PAYLOAD_RESULT]->data : NULL;
    hole->trace = items[PAYLOAD_TRACE] ? items[PAYLOAD_TRACE]->data : NULL;
    hole->heads = items[PAYLOAD_HEADS] ? items[PAYLOAD_HEADS]->data : NULL;
    hole->identity = (struct result_identity){.stamp = first ? first->stamp : NULL};
    if (hole->result) {
        hole->identity.machine_id = hole->result->machine_id;
        hole->identity.result_id = hole->result->result_id;
    } else if (hole->trace) {
        hole->identity.result_id = known(hole->trace->result_id);
    }
    if (hole->heads)
        hole->identity.head_id = known(hole->heads->head_id);
}

static bool same_number(const char *a, const char *b)
{
    char numbers[2][STAGE_ID_MAX];
    payload_hole_number(a, numbers[0]);
    payload_hole_number(b, numbers[1]);
    return strcmp(numbers[0], numbers[1]) == 0;
}

/* The three messages of a hole carry its number. That the heads disagree is counted and no more; that result and trace do means that they
 * may be of two holes, so nothing is estimated from them. Then false, with a sentence in `text`. */
static bool cross_check(struct hole *hole, char text[RESULT_MISMATCH_TEXT_MAX])
{
    const char *expected = hole->result ? known(hole->result->result_id) : NULL;
    const char *traced = hole->trace ? known(hole->trace->result_id) : NULL;
    const char *cycles = hole->heads ? known(hole->heads->cycle_counter) : NULL;
    if (hole->identity.result_id && cycles && !same_number(hole->identity.result_id, cycles))
        count(&hole->drilling->cycle_mismatches);
    if (!expected || !traced || same_number(expected, traced))
        return true;
    count(&hole->drilling->result_id_mismatches);
    result_mismatch_text(expected, traced, text);
    return false;
}

static int write_topics(const struct hole *hole)
{
    const struct topics *topics = &hole->drilling->topics;
    const char *const suffixes[] = {[RESULT_KEYPOINTS] = topics->keypoints, [RESULT_DEPTHS] = topics->depths};
    bool whole = topics_key_is_replayed(hole->key, hole->key_length);
    int error = 0;
    for (int i = 0; i < 2 && !error; i++)
        error = buffer_printf(&hole->output->topic[i], "%s%s%.*s/%s", whole ? "" : topics->root, whole ? "" : "/", (int)hole->key_length,
                              hole->key, suffixes[i]);
    return error;
}

static void finish(struct hole *hole, int error, const char *outcome)
{
    if (!error)
        error = write_topics(hole);
    hole->output->count = error ? 0 : 2;
    hole->output->error = error;
    hole->output->outcome = error ? "unpublished" : outcome;
    if (error)
        DIAG_LIMITED(DIAGNOSTICS_ERROR, "drilling", "the answer of %.*s, SourceTimestamp %s, cannot be written: %s", shown_length(hole),
                     hole->key, hole->identity.stamp ? hole->identity.stamp : "unknown", error_text(error));
}

/* `swallowed`: the replaced system answered nothing here. */
static void answer_error(struct hole *hole, const struct tunables *tunables, const char *message, const char *outcome, bool swallowed)
{
    hole->output->withheld = swallowed && tunables->silent;
    int error = result_write_error(&hole->output->payload[RESULT_KEYPOINTS], &hole->identity, RESULT_KEYPOINTS, message);
    if (!error)
        error = result_write_error(&hole->output->payload[RESULT_DEPTHS], &hole->identity, RESULT_DEPTHS, message);
    finish(hole, error, outcome);
}

static struct validation_verdict judge(struct hole *hole, const struct tunables *tunables, const double *depths_mm, size_t depth_count,
                                       uint64_t now_ns)
{
    struct drilling *drilling = hole->drilling;
    if (!validation_is_negative(depths_mm, depth_count))
        return (struct validation_verdict){.action = VALIDATION_PUBLISH};
    struct validation_options options = tunables->validation;
    if (topics_key_is_replayed(hole->key, hole->key_length))
        options.track_sequences = false; /* what was drilled another day says nothing of the tools now */
    pthread_mutex_lock(&drilling->mutex);
    struct validation_verdict verdict = validation_judge(&drilling->tracker, &options, depths_mm, depth_count, now_ns);
    pthread_mutex_unlock(&drilling->mutex);
    count(&drilling->negatives[verdict.action]);
    if (verdict.sequence) {
        count(&drilling->sequences);
        diagnostics(DIAGNOSTICS_WARNING, "drilling",
                    "%u holes with a negative depth within %.1f minutes, the last of %.*s: is a tool drilling air, or a head worn?",
                    verdict.sequence, (double)options.sequence_window_ns / 60e9, shown_length(hole), hole->key);
    }
    return verdict;
}

static void answer_keypoints(struct hole *hole, const struct tunables *tunables, const struct keypoints *keypoints, uint64_t now_ns)
{
    double depths_mm[KEYPOINTS_MAX];
    size_t depth_count = 0;
    for (unsigned i = 1; i < keypoints->count; i++)
        depths_mm[depth_count++] = keypoints->position_mm[i] - keypoints->position_mm[i - 1];
    struct validation_verdict verdict = judge(hole, tunables, depths_mm, depth_count, now_ns);
    hole->output->withheld = verdict.action == VALIDATION_SKIP;
    const char *version = tunables->algo_version;
    bool warning = verdict.action == VALIDATION_WARNING;
    struct buffer *payload = hole->output->payload;
    int error =
        result_write_values(&payload[RESULT_KEYPOINTS], &hole->identity, keypoints->position_mm, keypoints->count, version, warning);
    if (!error)
        error = result_write_values(&payload[RESULT_DEPTHS], &hole->identity, depths_mm, depth_count, version, warning);
    finish(hole, error, hole->output->withheld ? "skipped" : "estimated");
}

static void answer_hole(struct hole *hole, const struct tunables *tunables, struct scratch *scratch, uint64_t now_ns)
{
    struct curve curve;
    struct keypoints keypoints;
    struct estimator_failure failure = {.text = "out of memory"};
    if (!hole->result || !hole->trace) {
        const char *side = side_names[hole->result ? PAYLOAD_TRACE : PAYLOAD_RESULT];
        snprintf(failure.text, sizeof failure.text, "the %s message of this hole cannot be read", side);
        answer_error(hole, tunables, failure.text, "error", true);
        return;
    }
    int error = curve_assemble(scratch->curves, hole->result, hole->trace, &curve);
    if (error == ERR_ESTIMATE)
        snprintf(failure.text, sizeof failure.text, "no sample of the trace belongs to a step of the result");
    if (!error) {
        failure.problem = ESTIMATOR_TOO_FEW_SAMPLES;
        error = tunables->estimator->estimate(&curve, &tunables->settings, scratch->estimates, &keypoints, &failure);
        if (error == ERR_ESTIMATE && failure.problem == ESTIMATOR_TOO_FEW_STEPS) {
            answer_error(hole, tunables, failure.text, "too_few_steps", false);
            return;
        }
    }
    if (error)
        answer_error(hole, tunables, failure.text, "error", true);
    else
        answer_keypoints(hole, tunables, &keypoints, now_ns);
}

static void stage_complete(struct stage *stage, void *given, const char *key, uint32_t key_length,
                           const struct stage_item *const items[STAGE_SIDES_MAX], uint64_t now_ns, struct stage_output *output)
{
    struct drilling *drilling = drilling_of(stage);
    struct hole hole = {.drilling = drilling, .key = key, .key_length = key_length, .output = output};
    pthread_mutex_lock(&drilling->mutex);
    struct tunables tunables = drilling->tunables;
    pthread_mutex_unlock(&drilling->mutex);
    identify_hole(&hole, items);
    char mismatch[RESULT_MISMATCH_TEXT_MAX];
    if (cross_check(&hole, mismatch))
        answer_hole(&hole, &tunables, given, now_ns);
    else
        answer_error(&hole, &tunables, mismatch, "error", false);
}

/* ---- an answer read back ---- */

static bool ends_with(const struct message *message, const char *suffix)
{
    size_t length = strlen(suffix);
    return message->topic_length > length && message->topic[message->topic_length - length - 1] == '/' &&
           memcmp(message->topic + message->topic_length - length, suffix, length) == 0;
}

static bool stage_identify(struct stage *stage, void *given, const struct message *result, struct stage_answered *answered)
{
    const struct drilling *drilling = drilling_of(stage);
    struct scratch *scratch = given;
    struct topics_match match;
    topics_classify(&drilling->topics, result->topic, result->topic_length, &match);
    /* The depths are written behind the key points: where they stand, the whole answer does. */
    if (match.kind != TOPICS_ANSWER || !ends_with(result, drilling->topics.depths))
        return false;
    struct result_known known_result;
    if (result_read(scratch->results, result->payload, result->payload_length, &known_result) != 0)
        return false;
    /* Only sets with both required sides are answered. Heads without an identifier look like none. */
    unsigned heads = known_result.has_head ? 1u << PAYLOAD_HEADS : 0;
    bool mismatched = known_result.trace_id[0] != 0;
    *answered = (struct stage_answered){.key = match.key, .key_length = match.key_length, .name_count = mismatched ? 2 : 1};
    memcpy(answered->stamp, known_result.stamp, sizeof known_result.stamp);
    payload_hole_number(known_result.id, answered->names[0].id);
    payload_hole_number(known_result.trace_id, answered->names[1].id);
    answered->names[0].sides = 1u << PAYLOAD_RESULT | (mismatched ? 0 : 1u << PAYLOAD_TRACE) | heads;
    answered->names[1].sides = mismatched ? 1u << PAYLOAD_TRACE | heads : 0;
    return true;
}

/* ---- metrics ---- */

static void stage_collect(struct stage *stage, struct metrics_writer *writer)
{
    static const char *const actions[] = {
        [VALIDATION_PUBLISH] = "published", [VALIDATION_SKIP] = "skipped", [VALIDATION_WARNING] = "published_with_warning"};
    const struct drilling *drilling = drilling_of(stage);
    metrics_sample_u64(writer, METRIC_DRILLING_CROSS_CHECK, counted(&drilling->result_id_mismatches), "field", "result_id", NULL);
    metrics_sample_u64(writer, METRIC_DRILLING_CROSS_CHECK, counted(&drilling->cycle_mismatches), "field", "life_time_cycle_counter", NULL);
    for (int i = 0; i < 3; i++)
        metrics_sample_u64(writer, METRIC_DRILLING_NEGATIVE, counted(&drilling->negatives[i]), "action", actions[i], NULL);
    metrics_sample_u64(writer, METRIC_DRILLING_NEGATIVE_SEQUENCES, counted(&drilling->sequences), NULL);
}

/* ---- options ---- */

void drilling_options_default(struct drilling_options *options)
{
    *options = (struct drilling_options){
        .topics = topics_defaults,
        .estimator = estimator_at(0)->name,
        .bit_depth_mm = estimator_defaults.bit_depth_mm,
        .validation = validation_defaults,
        .algo_version = SPINDLE_VERSION,
        .time_window_ns = UINT64_C(30000000000),
    };
}

static int refuse_estimator(const char *name, char why[DRILLING_WHY_MAX])
{
    const char *names[16];
    size_t name_count = 0;
    while (name_count < sizeof names / sizeof *names && estimator_at(name_count)) {
        names[name_count] = estimator_at(name_count)->name;
        name_count++;
    }
    const char *near = text_suggest(name, names, name_count);
    snprintf(why, DRILLING_WHY_MAX, near ? "there is no estimator '%.60s'; did you mean '%s'?" : "there is no estimator '%.60s'", name,
             near);
    return ERR_CONFIG;
}

static int read_tunables(const struct drilling_options *options, struct tunables *tunables, char why[DRILLING_WHY_MAX])
{
    const struct estimator_ops *estimator = options->estimator ? estimator_find(options->estimator) : NULL;
    if (!estimator)
        return refuse_estimator(options->estimator ? options->estimator : "", why);
    const char *complaint = NULL;
    size_t version_length = options->algo_version ? strlen(options->algo_version) : SIZE_MAX;
    if (!(options->bit_depth_mm > 0) || !isfinite(options->bit_depth_mm))
        complaint = "the bit depth must be more than 0 mm";
    else if (options->validation.sequence_threshold < 1 || options->validation.sequence_threshold > VALIDATION_TRACKED_MAX)
        complaint = "the threshold of a sequence of negative depths must be 1 to 100";
    else if (version_length > DRILLING_VERSION_MAX)
        complaint = "the text of AlgoVersion must have at most 63 bytes";
    if (complaint) {
        snprintf(why, DRILLING_WHY_MAX, "%s", complaint);
        return ERR_CONFIG;
    }
    *tunables = (struct tunables){.estimator = estimator,
                                  .settings = {.bit_depth_mm = options->bit_depth_mm},
                                  .validation = options->validation,
                                  .silent = options->silent};
    memcpy(tunables->algo_version, options->algo_version, version_length + 1);
    return 0;
}

static int read_paths(const struct drilling_options *options, struct payload_paths *paths, char why[DRILLING_WHY_MAX])
{
    payload_paths_default(paths);
    for (unsigned i = 0; i < PAYLOAD_FIELD_COUNT; i++) {
        const char *path = options->paths[i];
        if (!path)
            continue;
        size_t length = strlen(path);
        if (length == 0 || length > PAYLOAD_PATH_MAX) {
            snprintf(why, DRILLING_WHY_MAX, "the path of '%s' must have 1 to %d bytes", payload_field_name(i), PAYLOAD_PATH_MAX);
            return ERR_CONFIG;
        }
        memcpy(paths->path[i], path, length + 1);
    }
    return 0;
}

static const struct stage_ops drilling_ops = {
    .name = "drilling",
    .side_count = SIDE_COUNT,
    .required = 1u << PAYLOAD_RESULT | 1u << PAYLOAD_TRACE,
    .side_names = side_names,
    .outcomes = outcomes,
    .scratch_create = scratch_create,
    .scratch_destroy = scratch_destroy,
    .route = stage_route_topic,
    .parse = stage_parse,
    .item_free = stage_item_free,
    .same_set = stage_same_set,
    .same_content = stage_same_content,
    .complete = stage_complete,
    .identify = stage_identify,
    .collect = stage_collect,
};

static int fill_drilling(struct drilling *drilling, const struct drilling_options *options, char why[DRILLING_WHY_MAX])
{
    int error = topics_init(&drilling->topics, &options->topics);
    if (error) {
        snprintf(
            why, DRILLING_WHY_MAX, "the root and the suffixes of topics must be %s",
            "different texts of at most 255 bytes, without wildcards, empty levels or slashes at their ends, the root's first level not "
            "`" MESSAGE_REPLAY_LEVEL "`");
        return error;
    }
    error = read_paths(options, &drilling->paths, why);
    if (!error)
        error = read_tunables(options, &drilling->tunables, why);
    return error;
}

int drilling_create(struct stage **stage, const struct drilling_options *options, char why[DRILLING_WHY_MAX])
{
    struct drilling *drilling = calloc(1, sizeof *drilling);
    if (!drilling)
        return ERR_NO_MEMORY;
    int error = fill_drilling(drilling, options, why);
    if (!error && pthread_mutex_init(&drilling->mutex, NULL) != 0)
        error = ERR_NO_MEMORY;
    if (error) {
        free(drilling);
        return error;
    }
    drilling->stage.ops = &drilling_ops;
    atomic_store(&drilling->correlate_by_time, options->correlate_by_time);
    atomic_store(&drilling->time_window_ns, options->time_window_ns);
    validation_tracker_init(&drilling->tracker);
    *stage = &drilling->stage;
    return 0;
}

void drilling_destroy(struct stage *stage)
{
    if (stage) {
        pthread_mutex_destroy(&drilling_of(stage)->mutex);
        free(stage);
    }
}

int drilling_reconfigure(struct stage *stage, const struct drilling_options *options, char why[DRILLING_WHY_MAX])
{
    struct drilling *drilling = drilling_of(stage);
    struct tunables tunables;
    int error = read_tunables(options, &tunables, why);
    if (error)
        return error;
    pthread_mutex_lock(&drilling->mutex);
    drilling->tunables = tunables;
    pthread_mutex_unlock(&drilling->mutex);
    atomic_store(&drilling->time_window_ns, options->time_window_ns);
    atomic_store(&drilling->correlate_by_time, options->correlate_by_time);
    return 0;
}
