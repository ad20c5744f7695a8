/* drilling/stage: from topic and payload to the two answers, as the pipeline calls it. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/metrics.h"
#include "drilling/drilling.h"
#include "drilling/estimator.h"
#include "drilling/json.h"
#include "drilling_shared.h"
#include "unit.h"

#define KEY             "ILLL502033771/setitec001"
#define ROOT            "OPCPUBSUB/" KEY "/"
#define KEYPOINTS_TOPIC ROOT "ResultManagement.Results.0.ResultContent.DepthEstimation.KeyPoints"
#define DEPTHS_TOPIC    ROOT "ResultManagement.Results.0.ResultContent.DepthEstimation.DepthEstimation"

static const uint64_t SECOND_NS = 1000000000;

/* A stage in use by one worker. */
struct fixture {
    struct drilling_options options;
    struct stage *stage;
    void *scratch;
    struct stage_output output;
    struct stage_item items[STAGE_SIDES_MAX];
    const struct stage_item *set[STAGE_SIDES_MAX];
};

static struct fixture fixture;
static struct buffer message;
static char why[DRILLING_WHY_MAX];

static void open_stage(const struct drilling_options *options)
{
    assert_int_equal(drilling_create(&fixture.stage, options, why), 0);
    assert_int_equal(fixture.stage->ops->scratch_create(fixture.stage, &fixture.scratch), 0);
}

static void close_stage(void)
{
    for (int i = 0; i < STAGE_SIDES_MAX; i++)
        fixture.stage->ops->item_free(fixture.stage, &fixture.items[i]);
    fixture.stage->ops->scratch_destroy(fixture.stage, fixture.scratch);
    drilling_destroy(fixture.stage);
}

static int setup(void **state)
{
    (void)state;
    memset(&fixture, 0, sizeof fixture);
    for (int i = 0; i < 2; i++) {
        buffer_init(&fixture.output.topic[i], 1024);
        buffer_init(&fixture.output.payload[i], 16384);
    }
    buffer_init(&message, 64u << 20);
    drilling_options_default(&fixture.options);
    fixture.options.algo_version = "0.2.6";
    open_stage(&fixture.options);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close_stage();
    for (int i = 0; i < 2; i++) {
        buffer_fini(&fixture.output.topic[i]);
        buffer_fini(&fixture.output.payload[i]);
    }
    buffer_fini(&message);
    return 0;
}

/* Closes the stage of the setup and opens one with the options in the fixture. */
static void reopen(void)
{
    close_stage();
    memset(fixture.items, 0, sizeof fixture.items);
    memset(fixture.set, 0, sizeof fixture.set);
    open_stage(&fixture.options);
}

static struct stage_route route_of(const char *topic, struct stage_refusal *refusal)
{
    struct stage_route route;
    memset(&route, 0xee, sizeof route);
    memset(refusal, 0, sizeof *refusal);
    fixture.stage->ops->route(fixture.stage, topic, (uint32_t)strlen(topic), &route, refusal);
    return route;
}

/* Parses what is in `message` into a slot of the set. */
static int parse_into(struct stage_item *item, enum payload_side side, struct stage_refusal *refusal)
{
    const struct stage_route route = {.verdict = STAGE_TAKE, .key = KEY, .key_length = sizeof KEY - 1, .side = (uint8_t)side};
    const struct message published = {.payload = message.data, .payload_length = (uint32_t)message.length};
    memset(refusal, 0, sizeof *refusal);
    return fixture.stage->ops->parse(fixture.stage, fixture.scratch, &route, &published, item, refusal);
}

static void put(enum payload_side side)
{
    struct stage_refusal refusal;
    fixture.stage->ops->item_free(fixture.stage, &fixture.items[side]);
    if (parse_into(&fixture.items[side], side, &refusal) != 0)
        fail_msg("%s", refusal.error);
    assert_int_equal(fixture.items[side].side, side);
    fixture.set[side] = &fixture.items[side];
}

/* ---- the messages of a hole ---- */

static void put_result(const char *id, const char *steps)
{
    message_build(&message, MESSAGE_STAMP, PATH_MACHINE, "23120040", PATH_RESULT, id, PATH_STEPS, steps, PATH_TORQUE_0, "1.5",
                  PATH_THRUST_0, "0.5", NULL);
    put(PAYLOAD_RESULT);
}

/* A trace whose steps have `samples` samples each; the torque rises at the beginning of step 1 (and 2) and falls at the end of 2. With
 * `backwards` the fall stands before the rise, so that the second depth is negative. */
static void put_trace(const char *id, int step_count, int samples, bool backwards)
{
    struct buffer columns[3];
    for (int i = 0; i < 3; i++)
        buffer_init(&columns[i], 1 << 20);
    for (int i = 0; i < step_count * samples; i++) {
        int step = 1 + i / samples, at = i % samples;
        double high = step == 1 ? 2 : 4, torque = at < samples / 4 ? high - 2 : at < 3 * samples / 4 || step == 1 ? high : 0.05;
        if (backwards && step == 2)
            torque = at < samples / 4 ? 4 : at < 3 * samples / 4 ? 0.05 : 4;
        buffer_printf(&columns[0], "%c%.3f", i ? ',' : '[', -0.6 - 0.02 * i);
        buffer_printf(&columns[1], "%c%.3f", i ? ',' : '[', torque);
        buffer_printf(&columns[2], "%c%d", i ? ',' : '[', step);
    }
    for (int i = 0; i < 3; i++)
        buffer_append(&columns[i], "]", 2);
    const char *position = (const char *)columns[0].data, *torque = (const char *)columns[1].data, *step = (const char *)columns[2].data;
    message_build(&message, MESSAGE_STAMP, PATH_TRACE_ID, id, PATH_POSITION, position, PATH_TORQUE, torque, PATH_THRUST, torque, PATH_STEP,
                  step, NULL);
    put(PAYLOAD_TRACE);
    for (int i = 0; i < 3; i++)
        buffer_fini(&columns[i]);
}

static void put_heads(const char *head, const char *cycles)
{
    message_build(&message, MESSAGE_STAMP, PATH_HEAD, head, PATH_CYCLES, cycles, NULL);
    put(PAYLOAD_HEADS);
}

static void put_broken(enum payload_side side)
{
    buffer_clear(&message);
    buffer_append_text(&message, "{\"Messages\": {\"Payload\": {\"x\": {\"SourceTimestamp\": \"" MESSAGE_STAMP "\", \"Value\": [1,");
    put(side);
    assert_true(fixture.items[side].broken);
    assert_null(fixture.items[side].data);
}

static void complete_as(const char *key, uint64_t now_ns)
{
    for (int i = 0; i < 2; i++) {
        buffer_clear(&fixture.output.topic[i]);
        buffer_clear(&fixture.output.payload[i]);
    }
    fixture.output.count = 0;
    fixture.output.withheld = false;
    fixture.output.outcome = NULL;
    fixture.stage->ops->complete(fixture.stage, fixture.scratch, key, (uint32_t)strlen(key), fixture.set, now_ns, &fixture.output);
    assert_non_null(fixture.output.outcome);
}

static void complete_at(uint64_t now_ns)
{
    complete_as(KEY, now_ns);
}

static const char *payload_text(int i)
{
    return buffer_text(&fixture.output.payload[i]);
}

static void assert_answered(const char *outcome, bool withheld)
{
    assert_string_equal(fixture.output.outcome, outcome);
    assert_int_equal(fixture.output.count, 2);
    assert_int_equal(fixture.output.error, 0);
    assert_int_equal(fixture.output.withheld, withheld);
    assert_string_equal(buffer_text(&fixture.output.topic[0]), KEYPOINTS_TOPIC);
    assert_string_equal(buffer_text(&fixture.output.topic[1]), DEPTHS_TOPIC);
}

static void assert_published(const char *outcome)
{
    assert_answered(outcome, false);
}

/* What would have been published is there all the same. */
static void assert_withheld(const char *outcome)
{
    assert_answered(outcome, true);
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in '%s'", part, text);
}

#define IDENTITY "{\"SourceTimestamp\": \"" MESSAGE_STAMP "\", \"MachineId\": \"23120040\", \"ResultId\": \"440\", \"HeadId\": "

static void assert_error_texts(const char *identity, const char *reason)
{
    char expected[512];
    snprintf(expected, sizeof expected, "%s, \"Value\": \"Error in keypoint estimation: %s\", \"Error\": true}", identity, reason);
    assert_string_equal(payload_text(0), expected);
    snprintf(expected, sizeof expected, "%s, \"Value\": \"Error in depth estimation: %s\", \"Error\": true}", identity, reason);
    assert_string_equal(payload_text(1), expected);
}

/* ---- route ---- */

static void topics_are_routed(void **state)
{
    (void)state;
    static const struct {
        const char *topic;
        enum payload_side side;
    } taken[] = {{ROOT "ResultManagement", PAYLOAD_RESULT},
                 {ROOT "ResultManagement/Trace", PAYLOAD_TRACE},
                 {ROOT "AssetManagement/Heads", PAYLOAD_HEADS}};
    struct stage_refusal refusal;
    for (size_t i = 0; i < 3; i++) {
        struct stage_route route = route_of(taken[i].topic, &refusal);
        assert_int_equal(route.verdict, STAGE_TAKE);
        assert_int_equal(route.side, taken[i].side);
        assert_ptr_equal(route.key, taken[i].topic + strlen("OPCPUBSUB/"));
        assert_int_equal(route.key_length, strlen(KEY));
    }
    assert_int_equal(route_of(KEYPOINTS_TOPIC, &refusal).verdict, STAGE_IGNORE);
    assert_int_equal(route_of(DEPTHS_TOPIC, &refusal).verdict, STAGE_IGNORE);
    assert_int_equal(route_of(ROOT "AssetManagement/Servos", &refusal).verdict, STAGE_IGNORE);
    assert_int_equal(route_of(ROOT "AssetManagement/Head", &refusal).verdict, STAGE_REJECT);
    assert_string_equal(refusal.reason, "unknown_topic");
    assert_contains(refusal.error, "did you mean 'AssetManagement/Heads'?");
}

static void the_stage_states_its_sides(void **state)
{
    (void)state;
    const struct stage_ops *ops = fixture.stage->ops;
    assert_string_equal(ops->name, "drilling");
    assert_int_equal(ops->side_count, 3);
    assert_int_equal(ops->required, 1u << PAYLOAD_RESULT | 1u << PAYLOAD_TRACE);
    assert_string_equal(ops->side_names[PAYLOAD_HEADS], "heads");
}

/* ---- parse and compare ---- */

static void items_carry_stamp_and_identifier(void **state)
{
    (void)state;
    put_result("\"440\"", "[1, 2]");
    put_trace("440", 2, 10, false);
    put_heads("\"E0\"", "440");
    for (int i = 0; i < 3; i++) {
        assert_string_equal(fixture.items[i].stamp, MESSAGE_STAMP);
        assert_string_equal(fixture.items[i].id, "440");
        assert_int_equal(fixture.items[i].id_is_hint, i == PAYLOAD_HEADS);
        assert_false(fixture.items[i].broken);
        assert_non_null(fixture.items[i].data);
    }
    assert_in_range(fixture.items[PAYLOAD_TRACE].held_bytes, 20 * 16, 20 * 16 + 256);
    fixture.stage->ops->item_free(fixture.stage, &fixture.items[PAYLOAD_TRACE]);
    assert_null(fixture.items[PAYLOAD_TRACE].data);
}

static void refused_messages_break_their_set_when_they_can_be_placed(void **state)
{
    (void)state;
    struct stage_item item = {.held_bytes = 77};
    struct stage_refusal refusal;
    message_build(&message, MESSAGE_STAMP, PATH_HEAD, "{}", NULL);
    assert_int_equal(parse_into(&item, PAYLOAD_HEADS, &refusal), 0);
    assert_true(item.broken);
    assert_string_equal(item.stamp, MESSAGE_STAMP);
    assert_string_equal(refusal.reason, "bad_value");
    assert_contains(refusal.error, "head_id");

    item = (struct stage_item){.held_bytes = 77};
    buffer_clear(&message);
    buffer_append_text(&message, "not json");
    int error = parse_into(&item, PAYLOAD_RESULT, &refusal);
    assert_int_equal(error_class(error), ERROR_CLASS_DATA);
    assert_string_equal(refusal.reason, "not_json");
    assert_int_equal(item.held_bytes, 77); /* untouched */
}

static void sets_are_told_apart_by_their_stamp(void **state)
{
    (void)state;
    const struct stage_item a = {.stamp = "2024-05-15T07:29:33Z"}, b = {.stamp = "2024-05-15T07:29:33Z", .id = "7"},
                            c = {.stamp = "2024-05-15T07:29:34Z"}, d = {.stamp = "2024-05-15T07:30:04Z"}, e = {.stamp = "other"};
    bool (*same_set)(struct stage *, const struct stage_item *, const struct stage_item *) = fixture.stage->ops->same_set;
    assert_true(same_set(fixture.stage, &a, &b));
    assert_false(same_set(fixture.stage, &a, &c));
    fixture.options.correlate_by_time = true;
    reopen();
    assert_true(same_set(fixture.stage, &a, &b));
    assert_true(same_set(fixture.stage, &a, &c));
    assert_true(same_set(fixture.stage, &c, &d));
    assert_false(same_set(fixture.stage, &a, &d));
    assert_false(same_set(fixture.stage, &a, &e));
    assert_true(same_set(fixture.stage, &e, &e));
    fixture.options.time_window_ns = 31 * SECOND_NS;
    assert_int_equal(drilling_reconfigure(fixture.stage, &fixture.options, why), 0);
    assert_true(same_set(fixture.stage, &a, &d));
}

/* Whether the message of `side` in `message` has the content of the one in the set. */
static bool same_as_in_set(enum payload_side side)
{
    struct stage_item item = {0};
    struct stage_refusal refusal;
    assert_int_equal(parse_into(&item, side, &refusal), 0);
    bool same = fixture.stage->ops->same_content(fixture.stage, &fixture.items[side], &item);
    fixture.stage->ops->item_free(fixture.stage, &item);
    return same;
}

static void content_is_what_is_read_of_a_message(void **state)
{
    (void)state;
    put_result("440", "[1, 2]");
    assert_true(same_as_in_set(PAYLOAD_RESULT));
    message_build(&message, MESSAGE_STAMP, "Another", "5", PATH_STEPS, "[1.0, 2]", PATH_TORQUE_0, "[1.5, 1.5]", PATH_THRUST_0, "0.5",
                  PATH_RESULT, "\"440\"", PATH_MACHINE, "\"23120040\"", NULL); /* order and types of keys do not matter */
    assert_true(same_as_in_set(PAYLOAD_RESULT));
    message_build(&message, MESSAGE_STAMP, PATH_MACHINE, "23120040", PATH_RESULT, "440", PATH_STEPS, "[1, 2]", PATH_TORQUE_0, "[1.5, 1.25]",
                  PATH_THRUST_0, "0.5", NULL);
    assert_false(same_as_in_set(PAYLOAD_RESULT));
    put_trace("440", 2, 10, false);
    assert_true(same_as_in_set(PAYLOAD_TRACE));
    message_build(&message, MESSAGE_STAMP, PATH_TRACE_ID, "440", PATH_POSITION, "[1]", PATH_TORQUE, "[1]", PATH_THRUST, "[1]", PATH_STEP,
                  "[1]", NULL);
    assert_false(same_as_in_set(PAYLOAD_TRACE));
    put_heads("\"E0\"", "440");
    assert_true(same_as_in_set(PAYLOAD_HEADS));
    message_build(&message, "another stamp", PATH_HEAD, "\"E0\"", PATH_CYCLES, "440", NULL);
    assert_false(same_as_in_set(PAYLOAD_HEADS));
    message_build(&message, MESSAGE_STAMP, PATH_HEAD, "\"E1\"", PATH_CYCLES, "440", NULL);
    assert_false(same_as_in_set(PAYLOAD_HEADS));
    const struct stage_item dropped = {.stamp = MESSAGE_STAMP, .side = PAYLOAD_HEADS};
    assert_false(fixture.stage->ops->same_content(fixture.stage, &fixture.items[PAYLOAD_HEADS], &dropped));
}

/* ---- complete ---- */

static void a_hole_is_estimated(void **state)
{
    (void)state;
    put_result("\"440\"", "[1, 2]");
    put_trace("440", 2, 400, false);
    put_heads("\"E00401009F45BACA\"", "440");
    complete_at(0);
    assert_published("estimated");
    double points[3], depths[2];
    char rest[64];
    assert_int_equal(sscanf(payload_text(0), IDENTITY "\"E00401009F45BACA\", \"Value\": [%lf, %lf, %lf], %63[^\n]", &points[0], &points[1],
                            &points[2], rest),
                     4);
    assert_string_equal(rest, "\"AlgoVersion\": \"0.2.6\"}");
    assert_int_equal(
        sscanf(payload_text(1), IDENTITY "\"E00401009F45BACA\", \"Value\": [%lf, %lf], %63[^\n]", &depths[0], &depths[1], rest), 3);
    assert_string_equal(rest, "\"AlgoVersion\": \"0.2.6\"}");
    assert_true(points[0] < points[1] && points[1] < points[2]);
    assert_true(depths[0] == points[1] - points[0]);
    assert_true(depths[1] == points[2] - points[1]);
}

static void heads_may_be_missing_broken_or_blank(void **state)
{
    (void)state;
    put_result("\"440\"", "[1, 2]");
    put_trace("440", 2, 400, false);
    complete_at(0);
    assert_published("estimated");
    assert_contains(payload_text(0), IDENTITY "null, \"Value\": [");
    put_broken(PAYLOAD_HEADS);
    complete_at(0);
    assert_published("estimated");
    assert_contains(payload_text(1), IDENTITY "null, \"Value\": [");
    put_heads("\"  \"", "440");
    complete_at(0);
    assert_published("estimated");
    assert_contains(payload_text(1), IDENTITY "null, \"Value\": [");
    put_heads("41", "440");
    complete_at(0);
    assert_contains(payload_text(1), IDENTITY "\"41\", \"Value\": [");
}

static void too_few_steps_are_answered_as_ever(void **state)
{
    (void)state;
    put_result("440", "1");
    put_trace("440", 1, 400, false);
    complete_at(0);
    assert_published("too_few_steps");
    assert_error_texts(IDENTITY "null", "Not enough steps to estimate depth");
    fixture.options.silent = true; /* this the replaced system published */
    assert_int_equal(drilling_reconfigure(fixture.stage, &fixture.options, why), 0);
    complete_at(0);
    assert_published("too_few_steps");
    assert_error_texts(IDENTITY "null", "Not enough steps to estimate depth");
}

static void failures_are_answered_unless_silent(void **state)
{
    (void)state;
    put_result("440", "[1, 2]");
    put_trace("440", 2, 20, false);
    complete_at(0);
    assert_published("error");
    assert_error_texts(IDENTITY "null", "too few samples");
    put_result("440", "[7, 8]");
    complete_at(0);
    assert_published("error");
    assert_error_texts(IDENTITY "null", "no sample of the trace belongs to a step of the result");
    fixture.options.silent = true;
    assert_int_equal(drilling_reconfigure(fixture.stage, &fixture.options, why), 0);
    complete_at(0);
    assert_withheld("error");
    assert_error_texts(IDENTITY "null", "no sample of the trace belongs to a step of the result");
}

static void a_hole_with_a_broken_message_is_answered(void **state)
{
    (void)state;
    put_result("440", "[1, 2]");
    put_broken(PAYLOAD_TRACE);
    complete_at(0);
    assert_published("error");
    assert_error_texts(IDENTITY "null", "the trace message of this hole cannot be read");
    put_trace("440", 2, 400, false);
    put_broken(PAYLOAD_RESULT);
    put_heads("\"E0\"", "440");
    complete_at(0);
    assert_published("error");
    assert_error_texts("{\"SourceTimestamp\": \"" MESSAGE_STAMP "\", \"MachineId\": null, \"ResultId\": \"440\", \"HeadId\": \"E0\"",
                       "the result message of this hole cannot be read");
    put_broken(PAYLOAD_TRACE);
    complete_at(0);
    assert_error_texts("{\"SourceTimestamp\": \"" MESSAGE_STAMP "\", \"MachineId\": null, \"ResultId\": null, \"HeadId\": \"E0\"",
                       "the result message of this hole cannot be read");
    fixture.options.silent = true;
    assert_int_equal(drilling_reconfigure(fixture.stage, &fixture.options, why), 0);
    complete_at(0);
    assert_withheld("error");
    assert_error_texts("{\"SourceTimestamp\": \"" MESSAGE_STAMP "\", \"MachineId\": null, \"ResultId\": null, \"HeadId\": \"E0\"",
                       "the result message of this hole cannot be read");
}

static void negative_depths_follow_their_behaviour(void **state)
{
    (void)state;
    put_result("440", "[1, 2]");
    put_trace("440", 2, 400, true);
    char would[1024];
    complete_at(0);
    assert_published("estimated");
    assert_contains(payload_text(1), ", -");
    assert_null(strstr(payload_text(1), "Warning"));
    snprintf(would, sizeof would, "%s", payload_text(1));
    fixture.options.validation.behaviour = VALIDATION_WARNING;
    assert_int_equal(drilling_reconfigure(fixture.stage, &fixture.options, why), 0);
    complete_at(0);
    assert_published("estimated");
    for (int i = 0; i < 2; i++)
        assert_contains(payload_text(i), "], \"AlgoVersion\": \"0.2.6\", \"Warning\": \"Negative depth values detected\"}");
    fixture.options.validation.behaviour = VALIDATION_SKIP;
    assert_int_equal(drilling_reconfigure(fixture.stage, &fixture.options, why), 0);
    complete_at(0);
    assert_withheld("skipped");
    assert_string_equal(payload_text(1), would);
    put_trace("440", 2, 400, false); /* positive ones do not care */
    complete_at(0);
    assert_published("estimated");
}

static void the_estimator_can_be_changed_while_running(void **state)
{
    (void)state;
    put_result("440", "[1, 2]");
    put_trace("440", 2, 400, false);
    static const struct {
        const char *name, *part;
    } cases[] = {{"segments", "Error in depth estimation: fewer than 3 segments (1)"},
                 {"entry", "\"Value\": [], \"AlgoVersion\""},
                 {"gradient30", "\"Value\": ["}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture.options.estimator = cases[i].name;
        assert_int_equal(drilling_reconfigure(fixture.stage, &fixture.options, why), 0);
        complete_at(0);
        assert_contains(payload_text(1), cases[i].part);
    }
}

static void an_answer_that_does_not_fit_is_not_published(void **state)
{
    (void)state;
    put_result("440", "[1, 2]");
    put_trace("440", 2, 400, false);
    buffer_fini(&fixture.output.payload[1]);
    buffer_init(&fixture.output.payload[1], 50);
    complete_at(0);
    assert_string_equal(fixture.output.outcome, "unpublished");
    assert_int_equal(fixture.output.count, 0);
    assert_int_equal(fixture.output.error, ERR_LIMIT);
}

static void a_key_is_refused_whose_answer_had_too_long_a_topic(void **state)
{
    (void)state;
    char topic[70000], expected[160];
    struct stage_refusal refusal;
    unsigned longest = 65535 - (unsigned)strlen(KEYPOINTS_TOPIC) + (unsigned)strlen(KEY);
    longest -= (unsigned)(strlen(DEPTHS_TOPIC) - strlen(KEYPOINTS_TOPIC));
    for (unsigned length = longest; length <= longest + 1; length++) {
        char *key = topic + strlen("OPCPUBSUB/");
        strcpy(topic, "OPCPUBSUB/");
        memset(key, 'x', length);
        key[3] = '/';
        strcpy(key + length, "/ResultManagement");
        struct stage_route route = route_of(topic, &refusal);
        assert_int_equal(route.verdict, length == longest ? STAGE_TAKE : STAGE_REJECT);
    }
    snprintf(expected, sizeof expected, "toolbox and tool have %u bytes together; with more than %u the topic", longest + 1, longest);
    assert_string_equal(refusal.reason, "too_large");
    assert_contains(refusal.error, expected);
}

/* ---- identify ---- */

static bool identify_as(const char *key, int which, struct stage_answered *answered)
{
    const struct message published = {.topic = (const char *)fixture.output.topic[which].data,
                                      .topic_length = (uint32_t)fixture.output.topic[which].length,
                                      .payload = fixture.output.payload[which].data,
                                      .payload_length = (uint32_t)fixture.output.payload[which].length};
    if (!fixture.stage->ops->identify(fixture.stage, fixture.scratch, &published, answered))
        return false;
    assert_int_equal(answered->key_length, strlen(key));
    assert_memory_equal(answered->key, key, answered->key_length);
    return true;
}

static bool identify(int which, struct stage_answered *answered)
{
    return identify_as(KEY, which, answered);
}

static void the_answers_of_a_replay_stay_apart(void **state)
{
    (void)state;
    static const char key[] = "replay/7/OPCPUBSUB/" KEY;
    struct stage_answered answered;
    char live[2][1024];
    put_result("440", "[1, 2]");
    put_trace("440", 2, 400, false);
    complete_at(0);
    for (int i = 0; i < 2; i++)
        snprintf(live[i], sizeof live[i], "%s", payload_text(i));
    complete_as(key, 0);
    assert_string_equal(buffer_text(&fixture.output.topic[0]), "replay/7/" KEYPOINTS_TOPIC);
    assert_string_equal(buffer_text(&fixture.output.topic[1]), "replay/7/" DEPTHS_TOPIC);
    for (int i = 0; i < 2; i++)
        assert_string_equal(payload_text(i), live[i]);
    assert_true(identify_as(key, 1, &answered));
}

static void answers_are_recognised_again(void **state)
{
    (void)state;
    struct stage_answered answered;
    put_result("440", "[1, 2]");
    put_trace("440", 2, 400, false);
    complete_at(0);
    assert_true(identify(1, &answered));
    assert_string_equal(answered.stamp, MESSAGE_STAMP);
    assert_int_equal(answered.name_count, 1);
    assert_string_equal(answered.names[0].id, "440");
    assert_int_equal(answered.names[0].sides, 1u << PAYLOAD_RESULT | 1u << PAYLOAD_TRACE);
    assert_false(identify(0, &answered)); /* the last of the two: with it alone both were written */
    put_heads("\"E0\"", "440");
    complete_at(0);
    assert_true(identify(1, &answered));
    assert_int_equal(answered.names[0].sides, 1u << PAYLOAD_RESULT | 1u << PAYLOAD_TRACE | 1u << PAYLOAD_HEADS);
    put_trace("\"4 of the trace 4\"", 2, 400, false);
    complete_at(0);
    assert_true(identify(1, &answered)); /* a result and a trace of different ids: both are known */
    assert_int_equal(answered.name_count, 2);
    assert_string_equal(answered.names[0].id, "440");
    assert_int_equal(answered.names[0].sides, 1u << PAYLOAD_RESULT | 1u << PAYLOAD_HEADS);
    assert_string_equal(answered.names[1].id, "4 of the trace 4");
    assert_int_equal(answered.names[1].sides, 1u << PAYLOAD_TRACE | 1u << PAYLOAD_HEADS);
    put_broken(PAYLOAD_RESULT);
    put_broken(PAYLOAD_TRACE);
    complete_at(0);
    assert_true(identify(1, &answered));
    assert_int_equal(answered.name_count, 1);
    assert_string_equal(answered.names[0].id, "");
    buffer_clear(&fixture.output.payload[1]);
    buffer_append_text(&fixture.output.payload[1], "{\"half\": ");
    assert_false(identify(1, &answered));
    buffer_clear(&fixture.output.topic[1]);
    buffer_append_text(&fixture.output.topic[1], ROOT "ResultManagement");
    assert_false(identify(1, &answered));
}

static void withheld_answers_are_recognised_again(void **state)
{
    (void)state;
    struct stage_answered answered;
    unsigned whole = 1u << PAYLOAD_RESULT | 1u << PAYLOAD_TRACE | 1u << PAYLOAD_HEADS;
    fixture.options.silent = true;
    fixture.options.validation.behaviour = VALIDATION_SKIP;
    assert_int_equal(drilling_reconfigure(fixture.stage, &fixture.options, why), 0);
    put_result("440", "[1, 2]");
    put_heads("\"E0\"", "440");
    for (int round = 0; round < 3; round++) {
        if (round == 2)
            put_broken(PAYLOAD_TRACE);
        else
            put_trace("440", 2, round ? 20 : 400, round == 0);
        complete_at(0);
        assert_withheld(round ? "error" : "skipped");
        assert_true(identify(1, &answered));
        assert_false(identify(0, &answered));
        assert_string_equal(answered.stamp, MESSAGE_STAMP);
        assert_string_equal(answered.names[0].id, "440");
        assert_int_equal(answered.names[0].sides, whole);
    }
}

/* ---- metrics ---- */

static void collect(void *owner, struct metrics_writer *writer)
{
    struct stage *stage = owner;
    stage->ops->collect(stage, writer);
}

static void assert_metric(const char *line)
{
    struct buffer page;
    buffer_init(&page, 1 << 20);
    assert_int_equal(metrics_register(collect, fixture.stage), 0);
    assert_int_equal(metrics_write(&page), 0);
    metrics_unregister(collect, fixture.stage);
    assert_contains(buffer_text(&page), line);
    buffer_fini(&page);
}

static void mismatches_and_negatives_are_counted(void **state)
{
    (void)state;
    assert_metric("drilling_cross_check_mismatches_total{field=\"result_id\"} 0\n");
    put_result("440", "[1, 2]");
    put_trace("\"440\"", 2, 400, false);
    put_heads("\"E0\"", "440");
    complete_at(0);
    assert_metric("drilling_cross_check_mismatches_total{field=\"result_id\"} 0\n");
    assert_metric("drilling_cross_check_mismatches_total{field=\"life_time_cycle_counter\"} 0\n");
    put_result("440.0", "[1, 2]");
    put_trace("\" 0440\"", 2, 400, false);
    complete_at(0);
    assert_published("estimated");
    assert_contains(payload_text(0), "\"ResultId\": \"440.0\"");
    assert_metric("drilling_cross_check_mismatches_total{field=\"result_id\"} 0\n");
    put_result("440", "[1, 2]");
    put_trace("441", 2, 400, false);
    put_heads("\"E0\"", "12");
    complete_at(0);
    assert_published("error");
    assert_contains(payload_text(0),
                    "\"ResultId\": \"440\", \"HeadId\": \"E0\", \"Value\": \"Error in keypoint estimation: ResultId 440 of "
                    "the result is not the StepResultId 441 of the trace\", \"Error\": true}");
    assert_contains(payload_text(1),
                    "\"Value\": \"Error in depth estimation: ResultId 440 of the result is not the StepResultId 441 of the "
                    "trace\", \"Error\": true}");
    put_heads("\"E0\"", "13");
    put_trace("true", 2, 400, false);
    complete_at(0);
    assert_metric("drilling_cross_check_mismatches_total{field=\"result_id\"} 1\n");
    assert_metric("drilling_cross_check_mismatches_total{field=\"life_time_cycle_counter\"} 2\n");

    put_trace("440", 2, 400, true);
    for (uint64_t i = 0; i < 7; i++)
        complete_at(i * SECOND_NS);
    assert_metric("drilling_negative_depths_total{action=\"published\"} 7\n");
    assert_metric("drilling_negative_depth_sequences_total 1\n");
    fixture.options.validation.behaviour = VALIDATION_SKIP;
    assert_int_equal(drilling_reconfigure(fixture.stage, &fixture.options, why), 0);
    complete_at(7 * SECOND_NS);
    complete_at(400 * SECOND_NS);
    assert_metric("drilling_negative_depths_total{action=\"skipped\"} 2\n");
    assert_metric("drilling_negative_depths_total{action=\"published_with_warning\"} 0\n");
}

/* They were drilled another time: neither are they a sequence, nor do they make one of the live ones. */
static void replayed_negatives_are_no_sequence(void **state)
{
    (void)state;
    put_result("440", "[1, 2]");
    put_trace("440", 2, 400, true);
    for (uint64_t i = 0; i < 7; i++)
        complete_as("replay/7/OPCPUBSUB/" KEY, i * SECOND_NS);
    for (uint64_t i = 0; i < 4; i++)
        complete_at((7 + i) * SECOND_NS);
    assert_metric("drilling_negative_depths_total{action=\"published\"} 11\n");
    assert_metric("drilling_negative_depth_sequences_total 0\n");
    complete_at(11 * SECOND_NS);
    assert_metric("drilling_negative_depth_sequences_total 1\n");
}

/* ---- options ---- */

static void bad_options_are_refused_with_a_reason(void **state)
{
    (void)state;
    char long_text[PAYLOAD_PATH_MAX + 2];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    struct drilling_options good = fixture.options, options;
    struct stage *stage = NULL;
#define REFUSED(change, part)                                                                                                              \
    options = good;                                                                                                                        \
    change;                                                                                                                                \
    assert_int_equal(drilling_create(&stage, &options, why), ERR_CONFIG);                                                                  \
    assert_contains(why, part);                                                                                                            \
    assert_null(stage)
    REFUSED(options.estimator = "gradiant", "there is no estimator 'gradiant'; did you mean 'gradient'?");
    REFUSED(options.estimator = "network", "there is no estimator 'network'");
    REFUSED(options.estimator = NULL, "there is no estimator");
    REFUSED(options.topics.root = "", "the root and the suffixes");
    REFUSED(options.topics.heads = options.topics.trace, "different texts");
    REFUSED(options.paths[PAYLOAD_TORQUE] = "", "the path of 'torque'");
    REFUSED(options.paths[PAYLOAD_HEAD_ID] = long_text, "the path of 'head_id' must have 1 to 255 bytes");
    REFUSED(options.bit_depth_mm = 0, "bit depth");
    REFUSED(options.bit_depth_mm = (double)NAN, "bit depth");
    REFUSED(options.validation.sequence_threshold = 0, "1 to 100");
    REFUSED(options.validation.sequence_threshold = 101, "1 to 100");
    REFUSED(options.algo_version = long_text, "AlgoVersion");
    REFUSED(options.algo_version = NULL, "AlgoVersion");
#undef REFUSED
    options = good;
    options.estimator = "nothing";
    assert_int_equal(drilling_reconfigure(fixture.stage, &options, why), ERR_CONFIG);
    drilling_destroy(NULL);
}

static void options_can_be_chosen(void **state)
{
    (void)state;
    fixture.options.topics.root = "site/cell";
    fixture.options.topics.keypoints = "Answers/Points";
    fixture.options.topics.depths = "Answers/Depths";
    fixture.options.paths[PAYLOAD_MACHINE_ID] = "MyMachine";
    reopen();
    struct stage_refusal refusal;
    assert_int_equal(route_of("site/cell/a/b/ResultManagement", &refusal).verdict, STAGE_TAKE);
    assert_int_equal(route_of("site/cell/a/b/Answers/Depths", &refusal).verdict, STAGE_IGNORE);
    assert_int_equal(route_of(ROOT "ResultManagement", &refusal).verdict, STAGE_REJECT);
    message_build(&message, MESSAGE_STAMP, "x.MyMachine.y", "\"m\"", PATH_MACHINE, "23120040", PATH_RESULT, "440", PATH_STEPS, "1",
                  PATH_TORQUE_0, "1.5", PATH_THRUST_0, "0.5", NULL);
    put(PAYLOAD_RESULT);
    put_trace("440", 1, 5, false);
    complete_at(0);
    assert_string_equal(buffer_text(&fixture.output.topic[0]), "site/cell/" KEY "/Answers/Points");
    assert_string_equal(buffer_text(&fixture.output.topic[1]), "site/cell/" KEY "/Answers/Depths");
    assert_contains(payload_text(0), "\"MachineId\": \"m\"");
}

/* ---- many workers ---- */

enum { WORKERS = 4, ROUNDS = 60 };

static void *work(void *given)
{
    struct fixture *shared = given;
    struct stage_output output = {0};
    void *scratch;
    assert_int_equal(shared->stage->ops->scratch_create(shared->stage, &scratch), 0);
    for (int i = 0; i < 2; i++) {
        buffer_init(&output.topic[i], 1024);
        buffer_init(&output.payload[i], 16384);
    }
    for (int i = 0; i < ROUNDS; i++) {
        for (int j = 0; j < 2; j++) {
            buffer_clear(&output.topic[j]);
            buffer_clear(&output.payload[j]);
        }
        shared->stage->ops->complete(shared->stage, scratch, KEY, sizeof KEY - 1, shared->set, (uint64_t)i * SECOND_NS, &output);
        assert_true(output.count == 2 || strcmp(output.outcome, "skipped") == 0);
    }
    for (int i = 0; i < 2; i++) {
        buffer_fini(&output.topic[i]);
        buffer_fini(&output.payload[i]);
    }
    shared->stage->ops->scratch_destroy(shared->stage, scratch);
    return NULL;
}

static void workers_share_a_stage_that_is_reconfigured(void **state)
{
    (void)state;
    static const char *const estimators[] = {"auto", "gradient", "gradient30"};
    put_result("440", "[1, 2]");
    put_trace("441", 2, 200, true);
    pthread_t threads[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &fixture), 0);
    for (int i = 0; i < 100; i++) {
        fixture.options.estimator = estimators[i % 3];
        fixture.options.validation.behaviour = (enum validation_behaviour)(i % 3);
        fixture.options.time_window_ns = (uint64_t)i;
        assert_int_equal(drilling_reconfigure(fixture.stage, &fixture.options, why), 0);
        assert_metric("drilling_cross_check_mismatches_total");
    }
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    char line[96];
    snprintf(line, sizeof line, "drilling_cross_check_mismatches_total{field=\"result_id\"} %d\n", WORKERS * ROUNDS);
    assert_metric(line);
}

/* ---- real messages ---- */

static bool put_file(const char *data, const char *name, enum payload_side side)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/messages/%s", data, name);
    if (!shared_read(&message, path))
        return false;
    put(side);
    return true;
}

static void real_sets_are_answered(void **state)
{
    (void)state;
    const char *data = shared_data();
    if (!data)
        skip();
    assert_true(put_file(data, "data_20250326/ResultManagement.json", PAYLOAD_RESULT));
    assert_true(put_file(data, "data_20250326/Trace.json", PAYLOAD_TRACE));
    assert_true(put_file(data, "data_20250326/Heads.json", PAYLOAD_HEADS));
    complete_at(0);
    assert_published("estimated");
    assert_string_equal(payload_text(0),
                        "{\"SourceTimestamp\": \"2024-05-15T07:29:33Z\", \"MachineId\": \"0\", \"ResultId\": \"440\", \"HeadId\": "
                        "\"E00401009F45BACA\", \"Value\": [3.5880000591278076, 21.365999221801758, 25.268033345540363], "
                        "\"AlgoVersion\": \"0.2.6\"}");
    assert_metric("drilling_cross_check_mismatches_total{field=\"life_time_cycle_counter\"} 0\n");
    assert_true(put_file(data, "data_20250623/ResultManagement.json", PAYLOAD_RESULT));
    assert_true(put_file(data, "data_20250623/Trace.json", PAYLOAD_TRACE));
    assert_true(put_file(data, "data_20250623/Heads.json", PAYLOAD_HEADS));
    complete_at(0);
    assert_published("too_few_steps");
    assert_true(put_file(data, "data_20250626_cut/ResultManagement.json", PAYLOAD_RESULT));
    assert_true(put_file(data, "data_20250626_cut/Trace.json", PAYLOAD_TRACE)); /* broken, yet its stamp is known */
    assert_true(fixture.items[PAYLOAD_TRACE].broken);
    assert_string_equal(fixture.items[PAYLOAD_TRACE].stamp, fixture.items[PAYLOAD_RESULT].stamp);
    complete_at(0);
    assert_published("error");
    assert_contains(payload_text(1), "\"ResultId\": \"432\"");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(topics_are_routed),
        TEST(the_stage_states_its_sides),
        TEST(items_carry_stamp_and_identifier),
        TEST(refused_messages_break_their_set_when_they_can_be_placed),
        TEST(sets_are_told_apart_by_their_stamp),
        TEST(content_is_what_is_read_of_a_message),
        TEST(a_hole_is_estimated),
        TEST(heads_may_be_missing_broken_or_blank),
        TEST(too_few_steps_are_answered_as_ever),
        TEST(failures_are_answered_unless_silent),
        TEST(a_hole_with_a_broken_message_is_answered),
        TEST(negative_depths_follow_their_behaviour),
        TEST(the_estimator_can_be_changed_while_running),
        TEST(an_answer_that_does_not_fit_is_not_published),
        TEST(a_key_is_refused_whose_answer_had_too_long_a_topic),
        TEST(answers_are_recognised_again),
        TEST(withheld_answers_are_recognised_again),
        TEST(the_answers_of_a_replay_stay_apart),
        TEST(mismatches_and_negatives_are_counted),
        TEST(replayed_negatives_are_no_sequence),
        TEST(bad_options_are_refused_with_a_reason),
        TEST(options_can_be_chosen),
        TEST(workers_share_a_stage_that_is_reconfigured),
        TEST(real_sets_are_answered),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
