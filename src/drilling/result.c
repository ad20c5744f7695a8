#include "drilling/result.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

static int append_text(struct buffer *out, const char *text)
{
    return text ? buffer_append_json_string(out, text, strlen(text), 1) : buffer_append_text(out, "null");
}

static int append_member(struct buffer *out, const char *before, const char *text)
{
    int error = buffer_append_text(out, before);
    return error ? error : append_text(out, text);
}

static int append_identity(struct buffer *out, const struct result_identity *identity)
{
    int error = append_member(out, "{\"SourceTimestamp\": ", identity->stamp);
    if (!error)
        error = append_member(out, ", \"MachineId\": ", identity->machine_id);
    if (!error)
        error = append_member(out, ", \"ResultId\": ", identity->result_id);
    if (!error)
        error = append_member(out, ", \"HeadId\": ", identity->head_id);
    return error;
}

static int append_values(struct buffer *out, const double *values, size_t count)
{
    int error = buffer_append_text(out, ", \"Value\": [");
    for (size_t i = 0; i < count && !error; i++) {
        char text[JSON_DOUBLE_TEXT_SIZE];
        size_t length = json_double_text(values[i], text);
        error = i ? buffer_append(out, ", ", 2) : 0;
        if (!error)
            error = buffer_append(out, text, length);
    }
    return error ? error : buffer_append(out, "]", 1);
}

int result_write_values(struct buffer *out, const struct result_identity *identity, const double *values, size_t count,
                        const char *algo_version, bool negative_warning)
{
    size_t start = out->length;
    int error = append_identity(out, identity);
    if (!error)
        error = append_values(out, values, count);
    if (!error)
        error = append_member(out, ", \"AlgoVersion\": ", algo_version);
    if (!error && negative_warning)
        error = append_member(out, ", \"Warning\": ", "Negative depth values detected");
    if (!error)
        error = buffer_append(out, "}", 1);
    if (error)
        out->length = start;
    return error;
}

static int append_error(struct buffer *out, enum result_kind kind, const char *message)
{
    static const char *const heads[] = {[RESULT_KEYPOINTS] = ", \"Value\": \"Error in keypoint estimation: ",
                                        [RESULT_DEPTHS] = ", \"Value\": \"Error in depth estimation: "};
    int error = buffer_append_text(out, heads[kind]);
    size_t quote = out->length;
    if (!error)
        error = append_text(out, message);
    if (!error) { /* the message continues a text that is open */
        memmove(out->data + quote, out->data + quote + 1, out->length - quote - 1);
        out->length--;
    }
    return error;
}

int result_write_error(struct buffer *out, const struct result_identity *identity, enum result_kind kind, const char *message)
{
    size_t start = out->length;
    int error = append_identity(out, identity);
    if (!error)
        error = append_error(out, kind, message);
    if (!error)
        error = buffer_append_text(out, ", \"Error\": true}");
    if (error)
        out->length = start;
    return error;
}

/* ---- ids that disagree ---- */

#define MISMATCH_BEFORE  "ResultId "
#define MISMATCH_BETWEEN " of the result is not the StepResultId "
#define MISMATCH_BEHIND  " of the trace"

void result_mismatch_text(const char *result_id, const char *trace_id, char text[RESULT_MISMATCH_TEXT_MAX])
{
    snprintf(text, RESULT_MISMATCH_TEXT_MAX, MISMATCH_BEFORE "%s" MISMATCH_BETWEEN "%s" MISMATCH_BEHIND, result_id, trace_id);
}

/* The id of the trace in a text that ends as the one above, the id of the result being known; "" when it is another text. */
static void read_mismatch(const char *text, size_t length, const char *result_id, char trace_id[STAGE_ID_MAX])
{
    char before[RESULT_MISMATCH_TEXT_MAX];
    const char *between = memmem(text, length, MISMATCH_BEFORE, strlen(MISMATCH_BEFORE));
    int before_length = snprintf(before, sizeof before, MISMATCH_BEFORE "%s" MISMATCH_BETWEEN, result_id);
    size_t behind_length = strlen(MISMATCH_BEHIND), left = between ? length - (size_t)(between - text) : 0;
    trace_id[0] = 0;
    if (left <= (size_t)before_length + behind_length || memcmp(between, before, (size_t)before_length) != 0 ||
        memcmp(text + length - behind_length, MISMATCH_BEHIND, behind_length) != 0)
        return;
    size_t id_length = left - (size_t)before_length - behind_length;
    if (id_length >= STAGE_ID_MAX)
        return;
    memcpy(trace_id, between + before_length, id_length);
    trace_id[id_length] = 0;
}

/* ---- reading back ---- */

enum member { MEMBER_STAMP, MEMBER_RESULT_ID, MEMBER_HEAD_ID, MEMBER_VALUE, MEMBER_COUNT };

struct reading {
    struct result_known known;
    bool has_stamp, has_id;
    enum member member; /* whose value comes next */
};

static enum json_action read_member(void *context, unsigned depth, const char *key, size_t key_length, enum json_type type,
                                    struct numbers_target *target)
{
    static const char *const keys[MEMBER_COUNT] = {"SourceTimestamp", "ResultId", "HeadId", "Value"};
    struct reading *reading = context;
    (void)target;
    if (depth == 0)
        return type == JSON_OBJECT ? JSON_ENTER : JSON_SKIP;
    for (unsigned i = 0; i < MEMBER_COUNT; i++) {
        if (strlen(keys[i]) == key_length && memcmp(keys[i], key, key_length) == 0 && (type == JSON_STRING || type == JSON_NULL)) {
            reading->member = i;
            return JSON_TAKE;
        }
    }
    return JSON_SKIP;
}

static bool take_text(char *out, size_t size, const struct json_value *value)
{
    if (value->type != JSON_STRING || value->length >= size)
        return false;
    memcpy(out, value->text, value->length);
    out[value->length] = 0;
    return true;
}

static void read_value(void *context, const struct json_value *value)
{
    struct reading *reading = context;
    switch (reading->member) {
    case MEMBER_STAMP:
        reading->has_stamp = take_text(reading->known.stamp, sizeof reading->known.stamp, value) && value->length > 0;
        break;
    case MEMBER_RESULT_ID:
        reading->has_id = value->type == JSON_NULL || take_text(reading->known.id, sizeof reading->known.id, value);
        break;
    case MEMBER_HEAD_ID:
        reading->known.has_head = value->type == JSON_STRING;
        break;
    case MEMBER_VALUE: /* behind the ResultId */
    case MEMBER_COUNT:
        if (value->type == JSON_STRING)
            read_mismatch(value->text, value->length, reading->known.id, reading->known.trace_id);
    }
}

static void read_leave(void *context)
{
    (void)context;
}

int result_read(struct json_reader *reader, const uint8_t *bytes, size_t length, struct result_known *known)
{
    static const struct json_visitor visitor = {read_member, read_value, read_leave};
    struct reading reading = {.member = MEMBER_COUNT};
    struct json_failure failure;
    int error = json_read(reader, bytes, length, &visitor, &reading, &failure);
    if (!error && !(reading.has_stamp && reading.has_id))
        error = ERR_PAYLOAD;
    if (!error)
        *known = reading.known;
    return error;
}
