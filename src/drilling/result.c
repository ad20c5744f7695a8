#include "drilling/result.h"

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

/* ---- reading back ---- */

enum member { MEMBER_STAMP, MEMBER_RESULT_ID, MEMBER_HEAD_ID, MEMBER_COUNT };

struct reading {
    struct result_known known;
    bool has_stamp, has_id;
    enum member member; /* whose value comes next */
};

static enum json_action read_member(void *context, unsigned depth, const char *key, size_t key_length, enum json_type type,
                                    struct numbers_target *target)
{
    static const char *const keys[MEMBER_COUNT] = {"SourceTimestamp", "ResultId", "HeadId"};
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
    case MEMBER_COUNT:
        reading->known.has_head = value->type == JSON_STRING;
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
