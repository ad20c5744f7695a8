/* The messages as tables of fields; one pass over a table writes a message. */
#include "simulate/simulator_messages.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/random.h"

enum { RENDERING_LIMIT = 64 << 20, NUMBER_MAX = 16, FIELD_OVERHEAD = 96, ENVELOPE_OVERHEAD = 512 };

enum value {
    VALUE_STAMP,
    VALUE_MACHINE_ID,
    VALUE_RESULT_ID,
    VALUE_RESULT_NUMBER, /* never text */
    VALUE_HEAD_ID,
    VALUE_STEP_NUMBERS,
    VALUE_TORQUE_EMPTY,
    VALUE_THRUST_EMPTY,
    VALUE_STOP_CODES,
    VALUE_DURATIONS,
    VALUE_CYCLE_TIME,
    VALUE_EVALUATION,
    VALUE_POSITION,
    VALUE_TORQUE,
    VALUE_THRUST,
    VALUE_STEP,
    VALUE_SAMPLE_RATE,
    VALUE_STANDARD,
    VALUE_COUNT
};

struct field {
    const char *path;
    enum value value;
    bool measured; /* may carry ".MeasuredValue" */
};

#define META  "ResultManagement.Results.0.ResultMetaData."
#define STEPS "ResultManagement.Results.0.ResultContent.StepResults.0.StepResultValues."
#define TRACE "ResultManagement.Results.0.ResultContent.Trace.StepTraces."
#define HEAD  "AssetManagement.Assets.Heads.0."

static const struct field result_fields[] = {
    {META "CreationTime", VALUE_STAMP, false},
    {META "SerialNumber", VALUE_MACHINE_ID, false},
    {META "InternalRecipeType", VALUE_STANDARD, false},
    {STEPS "IntensityTorqueEmpty", VALUE_TORQUE_EMPTY, true},
    {STEPS "IntensityThrustEmpty", VALUE_THRUST_EMPTY, true},
    {STEPS "StepNumber", VALUE_STEP_NUMBERS, true},
    {STEPS "StopCode", VALUE_STOP_CODES, true},
    {STEPS "Duration", VALUE_DURATIONS, true},
    {"ResultManagement.Results.0.ResultContent.OverallResultValues.CycleTime", VALUE_CYCLE_TIME, true},
    {META "ResultId", VALUE_RESULT_ID, false},
    {META "ResultEvaluation", VALUE_EVALUATION, false},
};

#define TRACE_FIELDS(name, value)                                                                                                          \
    {TRACE name ".StepResultId", VALUE_RESULT_ID, false}, {TRACE name ".SamplingInterval", VALUE_SAMPLE_RATE, false},                      \
    {                                                                                                                                      \
        TRACE name ".StepTraceContent[0].Values", value, false                                                                             \
    }

static const struct field trace_fields[] = {
    TRACE_FIELDS("PositionTrace", VALUE_POSITION),
    TRACE_FIELDS("IntensityTorqueTrace", VALUE_TORQUE),
    TRACE_FIELDS("IntensityThrustTrace", VALUE_THRUST),
    TRACE_FIELDS("StepNumberTrace", VALUE_STEP),
};

static const struct field heads_fields[] = {
    {HEAD "Identification.SerialNumber", VALUE_HEAD_ID, false},
    {HEAD "LifetimeCounters.0.LifeTimeCycleCounter", VALUE_RESULT_NUMBER, false},
};

static const struct {
    const struct field *fields;
    size_t count;
} tables[SIMULATOR_MESSAGE_COUNT] = {
    [SIMULATOR_RESULT] = {result_fields, sizeof result_fields / sizeof *result_fields},
    [SIMULATOR_TRACE] = {trace_fields, sizeof trace_fields / sizeof *trace_fields},
    [SIMULATOR_HEADS] = {heads_fields, sizeof heads_fields / sizeof *heads_fields},
};

/* ---- numbers ---- */

/* Writes thousandths with as many decimals as needed, at most three: -684 as -0.684, 5000 as 5. Returns the end. */
static char *put_thousandths(char *at, int32_t value)
{
    uint32_t rest = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
    if (value < 0)
        *at++ = '-';
    char digits[NUMBER_MAX];
    unsigned count = 0;
    for (uint32_t whole = rest / 1000; whole || count == 0; whole /= 10)
        digits[count++] = (char)('0' + whole % 10);
    while (count)
        *at++ = digits[--count];
    uint32_t fraction = rest % 1000;
    if (fraction == 0)
        return at;
    *at++ = '.';
    *at++ = (char)('0' + fraction / 100);
    if (fraction % 100)
        *at++ = (char)('0' + fraction / 10 % 10);
    if (fraction % 10)
        *at++ = (char)('0' + fraction % 10);
    return at;
}

/* Appends the numbers as an array, or the only one as it is when `collapse`. `scale` 1000 makes whole numbers of thousandths. */
static int render_numbers(struct buffer *out, const int32_t *values, size_t count, int32_t scale, bool collapse)
{
    int error = buffer_reserve(out, count * NUMBER_MAX + 2);
    if (error)
        return error;
    char *start = (char *)out->data + out->length, *at = start;
    bool array = !(collapse && count == 1);
    if (array)
        *at++ = '[';
    for (size_t i = 0; i < count; i++) {
        if (i)
            *at++ = ',';
        at = put_thousandths(at, values[i] * scale);
    }
    if (array)
        *at++ = ']';
    out->length += (size_t)(at - start);
    return 0;
}

/* ---- what depends on the curve alone ---- */

/* Why each step ended: its stroke was reached; the last one of an aborted cycle by the stop button. And how long it took. */
static void step_facts(const struct simulator_curve *curve, int32_t stop_codes[], int32_t durations[])
{
    enum { STOP_STROKE = 0x40, STOP_BUTTON = 0x80 };
    for (size_t i = 0; i < curve->step_count; i++) {
        int32_t samples = 0;
        for (size_t j = 0; j < curve->sample_count; j++)
            samples += curve->step[j] == curve->step_number[i];
        durations[i] = samples * (1000 / SIMULATOR_SAMPLES_PER_S);
        stop_codes[i] = STOP_STROKE;
    }
    if (curve->shape == SIMULATOR_ABORTED)
        stop_codes[curve->step_count - 1] = STOP_BUTTON;
}

int simulator_rendering_init(struct simulator_rendering *rendering, const struct simulator_curve *curve)
{
    int32_t stop_codes[SIMULATOR_STEPS_MAX], durations[SIMULATOR_STEPS_MAX];
    int32_t cycle_time = (int32_t)curve->sample_count * (1000 / SIMULATOR_SAMPLES_PER_S);
    step_facts(curve, stop_codes, durations);

    struct simulator_rendering new = {0};
    buffer_init(&new.memory, RENDERING_LIMIT);
    size_t steps = curve->step_count, samples = curve->sample_count;
    const struct {
        struct simulator_slice *slice;
        const int32_t *values;
        size_t count;
        int32_t scale;
        bool collapse;
    } parts[] = {
        {&new.position, curve->position_um, samples, 1, false},
        {&new.torque, curve->torque_ma, samples, 1, false},
        {&new.thrust, curve->thrust_ma, samples, 1, false},
        {&new.step, curve->step, samples, 1000, false},
        {&new.step_numbers, curve->step_number, steps, 1000, true},
        {&new.torque_empty, curve->torque_empty_ma, steps, 1, true},
        {&new.thrust_empty, curve->thrust_empty_ma, steps, 1, true},
        {&new.stop_codes, stop_codes, steps, 1000, true},
        {&new.durations, durations, steps, 1, true},
        {&new.cycle_time, &cycle_time, 1, 1, true},
    };
    enum { PART_COUNT = sizeof parts / sizeof *parts };
    size_t ends[PART_COUNT];
    for (size_t i = 0; i < PART_COUNT; i++) {
        int error = render_numbers(&new.memory, parts[i].values, parts[i].count, parts[i].scale, parts[i].collapse);
        if (error) {
            buffer_fini(&new.memory);
            return error;
        }
        ends[i] = new.memory.length;
    }
    for (size_t i = 0; i < PART_COUNT; i++) { /* the memory does not move any more */
        size_t start = i ? ends[i - 1] : 0;
        *parts[i].slice = (struct simulator_slice){(const char *)new.memory.data + start, ends[i] - start};
    }
    bool good = curve->shape != SIMULATOR_ABORTED;
    new.evaluation = (struct simulator_slice){good ? "\"OK\"" : "\"NotOK\"", good ? 4 : 7};
    *rendering = new;
    return 0;
}

void simulator_rendering_fini(struct simulator_rendering *rendering)
{
    buffer_fini(&rendering->memory);
    *rendering = (struct simulator_rendering){0};
}

/* ---- one hole ---- */

struct texts { /* the small values of one hole, where their slices point */
    char stamp[48], machine_id[32], result_id[16], result_number[16], head_id[64];
};

static struct simulator_slice print_value(char *text, size_t size, bool quoted, const char *value)
{
    int length = snprintf(text, size, quoted ? "\"%s\"" : "%s", value);
    return (struct simulator_slice){text, (size_t)length < size ? (size_t)length : size - 1};
}

static void collect_values(struct simulator_slice values[VALUE_COUNT], struct texts *texts, const struct simulator_rendering *rendering,
                           const struct simulator_identity *identity)
{
    bool text_ids = identity->layout & SIMULATOR_LAYOUT_TEXT_IDS;
    char number[16];
    snprintf(number, sizeof number, "%" PRIu32, identity->result_id);
    values[VALUE_STAMP] = print_value(texts->stamp, sizeof texts->stamp, true, identity->stamp);
    values[VALUE_MACHINE_ID] = print_value(texts->machine_id, sizeof texts->machine_id, text_ids, identity->machine_id);
    values[VALUE_RESULT_ID] = print_value(texts->result_id, sizeof texts->result_id, text_ids, number);
    values[VALUE_RESULT_NUMBER] = print_value(texts->result_number, sizeof texts->result_number, false, number);
    values[VALUE_HEAD_ID] = print_value(texts->head_id, sizeof texts->head_id, true, identity->head_id);
    values[VALUE_STEP_NUMBERS] = rendering->step_numbers;
    values[VALUE_TORQUE_EMPTY] = rendering->torque_empty;
    values[VALUE_THRUST_EMPTY] = rendering->thrust_empty;
    values[VALUE_STOP_CODES] = rendering->stop_codes;
    values[VALUE_DURATIONS] = rendering->durations;
    values[VALUE_CYCLE_TIME] = rendering->cycle_time;
    values[VALUE_EVALUATION] = rendering->evaluation;
    values[VALUE_POSITION] = rendering->position;
    values[VALUE_TORQUE] = rendering->torque;
    values[VALUE_THRUST] = rendering->thrust;
    values[VALUE_STEP] = rendering->step;
    values[VALUE_SAMPLE_RATE] = (struct simulator_slice){"100", 3};
    values[VALUE_STANDARD] = (struct simulator_slice){"\"Standard\"", 10};
}

static char *put(char *at, const char *text, size_t length)
{
    memcpy(at, text, length);
    return at + length;
}

static char *put_text(char *at, const char *text)
{
    return put(at, text, strlen(text));
}

/* A random (version 4) UUID made of one number. */
static char *put_uuid(char *at, uint64_t number)
{
    static const char hex[] = "0123456789abcdef";
    struct random_source source = {.state = number};
    uint64_t halves[2] = {random_u64(&source), random_u64(&source)};
    halves[0] = (halves[0] & ~0xf000u) | 0x4000u;
    halves[1] = (halves[1] >> 2) | (uint64_t)1 << 63;
    for (unsigned i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            *at++ = '-';
        *at++ = hex[halves[i / 16] >> (60 - 4 * (i % 16)) & 15];
    }
    return at;
}

static char *put_envelope(char *at, enum simulator_message message, const struct simulator_identity *identity)
{
    char numbers[80];
    at = put_text(at, "{\"MessageId\":\"");
    at = put_uuid(at, identity->message_id * SIMULATOR_MESSAGE_COUNT + message);
    at = put_text(at, "\",\"MessageType\":\"ua-data\",\"PublisherId\":\"");
    at = put_text(at, identity->toolbox);
    at = put_text(at, identity->layout & SIMULATOR_LAYOUT_ARRAY ? "\",\"Messages\":[{\"DataSetWriterId\":"
                                                                : "\",\"Messages\":{\"DataSetWriterId\":");
    if (identity->layout & SIMULATOR_LAYOUT_TEXT_IDS) {
        *at++ = '"';
        at = put_text(at, identity->device);
        *at++ = '"';
    } else {
        *at++ = '1';
    }
    snprintf(numbers, sizeof numbers, ",\"SequenceNumber\":%" PRIu64 ",\"Timestamp\":\"",
             identity->message_id * SIMULATOR_MESSAGE_COUNT + message);
    at = put_text(at, numbers);
    at = put_text(at, identity->stamp);
    return put_text(at, "\",\"MessageType\":\"ua-keyframe\",\"Payload\":{");
}

/* {"<prefix><path>[.MeasuredValue]":{"Value":<value>,"SourceTimestamp":"<stamp>"} for each field. */
static char *put_fields(char *at, enum simulator_message message, const struct simulator_slice values[VALUE_COUNT],
                        const struct simulator_identity *identity)
{
    bool fastening = message == SIMULATOR_TRACE && (identity->layout & SIMULATOR_LAYOUT_FASTENING);
    const char *space = fastening ? "\"nsu=http://airbus.com/IJT/AFastening;s=Objects.DeviceSet."
                                  : "\"nsu=http://airbus.com/IJT/ADrilling;s=Objects.DeviceSet.";
    size_t space_length = strlen(space), device_length = strlen(identity->device);
    for (size_t i = 0; i < tables[message].count; i++) {
        const struct field *field = &tables[message].fields[i];
        if (i)
            *at++ = ',';
        at = put(at, space, space_length);
        at = put(at, identity->device, device_length);
        *at++ = '.';
        at = put_text(at, field->path);
        if (field->measured && (identity->layout & SIMULATOR_LAYOUT_MEASURED_VALUE))
            at = put_text(at, ".MeasuredValue");
        at = put_text(at, "\":{\"Value\":");
        at = put(at, values[field->value].text, values[field->value].length);
        at = put_text(at, ",\"SourceTimestamp\":");
        at = put(at, values[VALUE_STAMP].text, values[VALUE_STAMP].length);
        *at++ = '}';
    }
    return at;
}

/* Room that the message needs at most. */
static size_t bound_size(enum simulator_message message, const struct simulator_slice values[VALUE_COUNT],
                         const struct simulator_identity *identity)
{
    size_t device = strlen(identity->device), bound = ENVELOPE_OVERHEAD + device + strlen(identity->toolbox);
    for (size_t i = 0; i < tables[message].count; i++) {
        const struct field *field = &tables[message].fields[i];
        bound += FIELD_OVERHEAD + device + strlen(field->path) + values[field->value].length + values[VALUE_STAMP].length + 32;
    }
    return bound;
}

int simulator_message_write(struct buffer *out, enum simulator_message message, const struct simulator_rendering *rendering,
                            const struct simulator_identity *identity)
{
    struct simulator_slice values[VALUE_COUNT];
    struct texts texts;
    collect_values(values, &texts, rendering, identity);
    int error = buffer_reserve(out, bound_size(message, values, identity));
    if (error)
        return error;
    char *start = (char *)out->data + out->length, *at = put_envelope(start, message, identity);
    at = put_fields(at, message, values, identity);
    at = put_text(at, identity->layout & SIMULATOR_LAYOUT_ARRAY ? "}}]}" : "}}}");
    out->length += (size_t)(at - start);
    return 0;
}

void simulator_stamp_write(char text[SIMULATOR_STAMP_SIZE], uint64_t unix_s)
{
    time_t seconds = (time_t)unix_s;
    struct tm parts;
    gmtime_r(&seconds, &parts);
    strftime(text, SIMULATOR_STAMP_SIZE, "%Y-%m-%dT%H:%M:%SZ", &parts);
}
