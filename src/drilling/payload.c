/* A visitor of json.h that follows Messages -> Payload -> key -> Value and collects the fields on its way through the document, which
 * is checked to its end before anything of it is believed. */
#include "drilling/payload.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "drilling/json.h"

enum field_kind { TEXT, FLOATS, INTEGERS };
enum field_need { NEEDED, OPTIONAL };

static const struct field_row {
    enum payload_side side;
    enum field_kind kind;
    enum field_need need;
    const char *name, *path;
} fields[PAYLOAD_FIELD_COUNT] = {
#define PAYLOAD_FIELD(id, side, kind, need, name, path) {PAYLOAD_##side, kind, need, name, path},
#include "drilling/payload.def"
#undef PAYLOAD_FIELD
};

static const char *const side_names[PAYLOAD_SIDE_COUNT] = {"result", "trace", "heads"};
static const char *const message_names[PAYLOAD_SIDE_COUNT] = {"result", "trace", "heads message"}; /* as the subject of a sentence */

const char *payload_field_name(enum payload_field field)
{
    return fields[field].name;
}

void payload_paths_default(struct payload_paths *paths)
{
    for (size_t i = 0; i < PAYLOAD_FIELD_COUNT; i++)
        memcpy(paths->path[i], fields[i].path, strlen(fields[i].path) + 1);
}

struct payload_reader {
    struct json_reader *json;
    float *samples[3]; /* position, torque, thrust: [sample_capacity] */
    int32_t *step;     /* [sample_capacity] */
    size_t sample_capacity;
    float empties[2][PAYLOAD_STEPS_MAX]; /* torque, thrust */
    int32_t rows[PAYLOAD_STEPS_MAX];
};

int payload_reader_create(struct payload_reader **reader)
{
    struct payload_reader *created = calloc(1, sizeof *created);
    if (!created)
        return ERR_NO_MEMORY;
    int error = json_reader_create(&created->json);
    if (error) {
        free(created);
        return error;
    }
    *reader = created;
    return 0;
}

static void samples_free(struct payload_reader *reader)
{
    for (size_t i = 0; i < 3; i++) {
        free(reader->samples[i]);
        reader->samples[i] = NULL;
    }
    free(reader->step);
    reader->step = NULL;
    reader->sample_capacity = 0;
}

void payload_reader_destroy(struct payload_reader *reader)
{
    if (reader) {
        samples_free(reader);
        json_reader_destroy(reader->json);
        free(reader);
    }
}

/* Room for as many samples as a document of `length` bytes can hold (two bytes each), and no more than are accepted. */
static int samples_reserve(struct payload_reader *reader, size_t length)
{
    size_t needed = length / 2 < PAYLOAD_SAMPLES_MAX ? length / 2 : PAYLOAD_SAMPLES_MAX;
    bool large = reader->sample_capacity > JSON_KEPT_BYTES / 2 && needed <= JSON_KEPT_BYTES / 2;
    if (reader->sample_capacity >= needed && reader->step && !large)
        return 0;
    size_t capacity = 4096;
    while (capacity < needed)
        capacity *= 2;
    samples_free(reader);
    for (size_t i = 0; i < 3; i++)
        reader->samples[i] = malloc(capacity * sizeof *reader->samples[i]);
    reader->step = malloc(capacity * sizeof *reader->step);
    if (!reader->samples[0] || !reader->samples[1] || !reader->samples[2] || !reader->step) {
        samples_free(reader);
        return ERR_NO_MEMORY;
    }
    reader->sample_capacity = capacity;
    return 0;
}

/* What was found of a field. */
struct found {
    bool present;
    bool scalar;
    bool too_many; /* TEXT: an array of several */
    enum json_type type;
    const char *text; /* TEXT: not terminated; the JSON reader's */
    size_t length;
    struct numbers_report numbers;
};

enum scope { SCOPE_ROOT, SCOPE_MESSAGES_LIST, SCOPE_MESSAGES, SCOPE_PAYLOAD, SCOPE_ENTRY, SCOPE_VALUE_LIST, SCOPE_OTHER };

enum taking { TAKING_STAMP, TAKING_VALUE };

/* One payload_read: the visitor's state. */
struct reading {
    struct payload_reader *reader;
    const struct payload_paths *paths;
    enum payload_side side;
    enum payload_field first_field, end_field; /* of the side */
    size_t path_length[PAYLOAD_FIELD_COUNT];
    enum scope scopes[JSON_DEPTH_MAX + 2];
    unsigned level; /* scopes in use */
    enum taking taking;
    bool root_is_object, messages_seen, messages_usable, payload_seen, payload_usable;
    bool stamp_seen;
    struct json_value stamp;
    unsigned entry_fields; /* bit mask: the fields that the open entry of the Payload belongs to */
    struct found found[PAYLOAD_FIELD_COUNT];
};

static bool field_wanted(const struct reading *reading, enum payload_field field)
{
    return reading->entry_fields >> field & 1;
}

/* The fields whose first key this is. */
static unsigned match_fields(const struct reading *reading, const char *key, size_t key_length)
{
    unsigned mask = 0;
    for (unsigned i = reading->first_field; i < (unsigned)reading->end_field; i++) {
        if (!reading->found[i].present && memmem(key, key_length, reading->paths->path[i], reading->path_length[i]))
            mask |= 1u << i;
    }
    return mask;
}

static struct numbers_target target_of(struct payload_reader *reader, enum payload_field field)
{
    size_t samples = reader->sample_capacity < PAYLOAD_SAMPLES_MAX ? reader->sample_capacity : PAYLOAD_SAMPLES_MAX;
    switch (field) {
    case PAYLOAD_POSITION:
        return (struct numbers_target){.kind = NUMBERS_FLOAT, .floats = reader->samples[0], .capacity = samples};
    case PAYLOAD_TORQUE:
        return (struct numbers_target){.kind = NUMBERS_FLOAT, .floats = reader->samples[1], .capacity = samples};
    case PAYLOAD_THRUST:
        return (struct numbers_target){.kind = NUMBERS_FLOAT, .floats = reader->samples[2], .capacity = samples};
    case PAYLOAD_STEP:
        return (struct numbers_target){.kind = NUMBERS_INT32, .int32s = reader->step, .capacity = samples};
    case PAYLOAD_TORQUE_EMPTY:
        return (struct numbers_target){.kind = NUMBERS_FLOAT, .floats = reader->empties[0], .capacity = PAYLOAD_STEPS_MAX};
    case PAYLOAD_THRUST_EMPTY:
        return (struct numbers_target){.kind = NUMBERS_FLOAT, .floats = reader->empties[1], .capacity = PAYLOAD_STEPS_MAX};
    case PAYLOAD_STEPS:
        return (struct numbers_target){.kind = NUMBERS_INT32, .int32s = reader->rows, .capacity = PAYLOAD_STEPS_MAX};
    default:
        return (struct numbers_target){.kind = NUMBERS_CHECK_ONLY};
    }
}

/* Numbers go into the memory of the first field of the open entry that takes numbers. */
static enum payload_field first_number_field(const struct reading *reading)
{
    unsigned field = reading->first_field;
    while (field < (unsigned)reading->end_field && !(field_wanted(reading, field) && fields[field].kind != TEXT))
        field++;
    return field;
}

/* ---- the visitor ---- */

static enum json_action enter(struct reading *reading, enum scope scope)
{
    reading->scopes[reading->level++] = scope;
    return JSON_ENTER;
}

/* What no rule speaks of: objects may still hold the stamp. */
static enum json_action pass(struct reading *reading, enum json_type type)
{
    return type == JSON_OBJECT && !reading->stamp_seen ? enter(reading, SCOPE_OTHER) : JSON_SKIP;
}

static enum json_action member_of_root(struct reading *reading, const char *key, size_t key_length, enum json_type type)
{
    if (reading->messages_seen || key_length != 8 || memcmp(key, "Messages", 8) != 0)
        return pass(reading, type);
    reading->messages_seen = true;
    reading->messages_usable = type == JSON_OBJECT || type == JSON_ARRAY;
    if (!reading->messages_usable)
        return JSON_SKIP;
    return enter(reading, type == JSON_OBJECT ? SCOPE_MESSAGES : SCOPE_MESSAGES_LIST);
}

static enum json_action member_of_messages(struct reading *reading, const char *key, size_t key_length, enum json_type type)
{
    if (reading->payload_seen || key_length != 7 || memcmp(key, "Payload", 7) != 0)
        return pass(reading, type);
    reading->payload_seen = true;
    reading->payload_usable = type == JSON_OBJECT;
    return reading->payload_usable ? enter(reading, SCOPE_PAYLOAD) : JSON_SKIP;
}

static enum json_action member_of_payload(struct reading *reading, const char *key, size_t key_length, enum json_type type)
{
    reading->entry_fields = type == JSON_OBJECT ? match_fields(reading, key, key_length) : 0;
    return reading->entry_fields ? enter(reading, SCOPE_ENTRY) : pass(reading, type);
}

static enum json_action member_of_entry(struct reading *reading, const char *key, size_t key_length, enum json_type type,
                                        struct numbers_target *target)
{
    if (reading->entry_fields == 0 || key_length != 5 || memcmp(key, "Value", 5) != 0)
        return pass(reading, type);
    enum payload_field number_field = first_number_field(reading);
    reading->taking = TAKING_VALUE;
    if (number_field < reading->end_field)
        *target = target_of(reading->reader, number_field);
    else if (type == JSON_ARRAY)
        return enter(reading, SCOPE_VALUE_LIST); /* identifiers: its first element */
    if (type != JSON_OBJECT)
        return JSON_TAKE;
    for (unsigned i = reading->first_field; i < (unsigned)reading->end_field; i++) {
        if (field_wanted(reading, i))
            reading->found[i] = (struct found){.present = true, .type = JSON_OBJECT, .scalar = true};
    }
    reading->entry_fields = 0;
    return pass(reading, type);
}

static enum json_action visit_member(void *context, unsigned depth, const char *key, size_t key_length, enum json_type type,
                                     struct numbers_target *target)
{
    struct reading *reading = context;
    if (depth == 0) {
        reading->root_is_object = type == JSON_OBJECT;
        return reading->root_is_object ? enter(reading, SCOPE_ROOT) : JSON_SKIP;
    }
    enum scope scope = reading->scopes[reading->level - 1];
    if (!reading->stamp_seen && key && key_length == 15 && memcmp(key, "SourceTimestamp", 15) == 0) {
        reading->stamp_seen = true;
        reading->stamp.type = type;
        reading->taking = TAKING_STAMP;
        return type == JSON_STRING ? JSON_TAKE : JSON_SKIP;
    }
    switch (scope) {
    case SCOPE_ROOT:
        return member_of_root(reading, key, key_length, type);
    case SCOPE_MESSAGES_LIST:
        return type == JSON_OBJECT ? enter(reading, SCOPE_MESSAGES) : JSON_SKIP;
    case SCOPE_MESSAGES:
        return member_of_messages(reading, key, key_length, type);
    case SCOPE_PAYLOAD:
        return member_of_payload(reading, key, key_length, type);
    case SCOPE_ENTRY:
        return member_of_entry(reading, key, key_length, type, target);
    case SCOPE_VALUE_LIST:
        reading->taking = TAKING_VALUE;
        return type == JSON_OBJECT || type == JSON_ARRAY ? JSON_SKIP : JSON_TAKE;
    case SCOPE_OTHER:
        break;
    }
    return pass(reading, type);
}

/* Copies numbers from the field that took them to another one of the same key. */
static void share_numbers(struct reading *reading, enum payload_field from, enum payload_field to)
{
    struct numbers_target source = target_of(reading->reader, from), target = target_of(reading->reader, to);
    struct found *found = &reading->found[to];
    found->numbers.count = 0;
    for (size_t i = 0; i < reading->found[from].numbers.count; i++) {
        double value = source.kind == NUMBERS_FLOAT ? (double)source.floats[i] : (double)source.int32s[i];
        enum numbers_problem problem = numbers_store(&target, i, value);
        if (problem && !found->numbers.problem) {
            found->numbers.problem = problem;
            found->numbers.problem_index = i;
        }
        found->numbers.count += problem != NUMBERS_TOO_MANY;
    }
}

static void visit_value(void *context, const struct json_value *value)
{
    struct reading *reading = context;
    if (reading->taking == TAKING_STAMP) {
        reading->stamp = *value;
        return;
    }
    bool listed = reading->scopes[reading->level - 1] == SCOPE_VALUE_LIST;
    enum payload_field number_field = first_number_field(reading);
    for (unsigned i = reading->first_field; i < (unsigned)reading->end_field; i++) {
        if (!field_wanted(reading, i))
            continue;
        struct found *found = &reading->found[i];
        if (found->present) {
            found->too_many = true;
            continue;
        }
        *found = (struct found){.present = true,
                                .scalar = value->type != JSON_ARRAY,
                                .type = value->type,
                                .text = value->text,
                                .length = value->length,
                                .numbers = value->numbers};
        if (fields[i].kind != TEXT && i != (unsigned)number_field)
            share_numbers(reading, number_field, i);
    }
    if (!listed)
        reading->entry_fields = 0; /* a second Value of the same entry does not count */
}

static void visit_leave(void *context)
{
    struct reading *reading = context;
    enum scope left = reading->scopes[--reading->level];
    if (left == SCOPE_VALUE_LIST) {
        for (unsigned i = reading->first_field; i < (unsigned)reading->end_field; i++) {
            if (field_wanted(reading, i) && !reading->found[i].present)
                reading->found[i] = (struct found){.present = true, .scalar = true, .type = JSON_NULL};
        }
        reading->entry_fields = 0;
    } else if (left == SCOPE_ENTRY) {
        reading->entry_fields = 0; /* without a Value the fields stay open for a later key */
    }
}

/* ---- judging what was found ---- */

__attribute__((format(printf, 3, 4))) static int refuse(struct stage_refusal *refusal, const char *reason, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(refusal->error, sizeof refusal->error, format, arguments);
    va_end(arguments);
    refusal->reason = reason;
    return ERR_PAYLOAD;
}

static int refuse_field(struct stage_refusal *refusal, enum payload_field field, const char *what)
{
    return refuse(refusal, "bad_value", "%s field '%s': %s", side_names[fields[field].side], fields[field].name, what);
}

/* Copies a text of a document into zero-terminated memory. False when it does not fit or has a zero within. */
static bool copy_text(char *out, size_t size, const char *text, size_t length)
{
    if (length >= size || memchr(text, 0, length))
        return false;
    memcpy(out, text, length);
    out[length] = 0;
    return true;
}

static int check_stamp(const struct reading *reading, char stamp[STAGE_STAMP_MAX], struct stage_refusal *refusal)
{
    if (!reading->stamp_seen)
        return refuse(refusal, "bad_structure", "the %s has no SourceTimestamp", message_names[reading->side]);
    if (reading->stamp.type != JSON_STRING || reading->stamp.length == 0)
        return refuse(refusal, "bad_structure", "the SourceTimestamp of the %s is not a text", message_names[reading->side]);
    if (memchr(reading->stamp.text, 0, reading->stamp.length))
        return refuse(refusal, "bad_structure", "the SourceTimestamp of the %s has a zero character (\\u0000)",
                      message_names[reading->side]);
    if (!copy_text(stamp, STAGE_STAMP_MAX, reading->stamp.text, reading->stamp.length))
        return refuse(refusal, "bad_structure", "the SourceTimestamp of the %s is longer than %d bytes", message_names[reading->side],
                      STAGE_STAMP_MAX - 1);
    return 0;
}

static int check_structure(const struct reading *reading, struct stage_refusal *refusal)
{
    const char *side = message_names[reading->side];
    if (!reading->root_is_object)
        return refuse(refusal, "bad_structure", "the %s is not a JSON object", side);
    if (!reading->messages_seen)
        return refuse(refusal, "bad_structure", "the %s has no member Messages", side);
    if (!reading->messages_usable)
        return refuse(refusal, "bad_structure", "Messages of the %s is neither an object nor an array", side);
    if (!reading->payload_seen)
        return refuse(refusal, "bad_structure", "Messages of the %s has no member Payload", side);
    if (!reading->payload_usable)
        return refuse(refusal, "bad_structure", "Messages.Payload of the %s is not an object", side);
    return 0;
}

static int check_number_field(const struct reading *reading, enum payload_field field, struct stage_refusal *refusal)
{
    const struct found *found = &reading->found[field];
    char what[128];
    if (found->type != JSON_ARRAY && found->type != JSON_NUMBER)
        return refuse_field(refusal, field, "it is neither a number nor an array of numbers");
    if (found->numbers.problem) {
        snprintf(what, sizeof what, "element %zu %s", found->numbers.problem_index, numbers_problem_text(found->numbers.problem));
        return refuse_field(refusal, field, what);
    }
    return found->numbers.count ? 0 : refuse_field(refusal, field, "it is empty");
}

static int check_fields(const struct reading *reading, struct stage_refusal *refusal)
{
    for (unsigned i = reading->first_field; i < (unsigned)reading->end_field; i++) {
        const struct found *found = &reading->found[i];
        if (!found->present && fields[i].need == NEEDED)
            return refuse(refusal, "bad_value", "%s field '%s': it is missing; no key with a Value contains '%.120s'",
                          side_names[reading->side], fields[i].name, reading->paths->path[i]);
        int error = found->present && fields[i].kind != TEXT ? check_number_field(reading, i, refusal) : 0;
        if (error)
            return error;
    }
    return 0;
}

/* Why copy_text does not take a text. */
static const char *uncopied_text(const char *text, size_t length)
{
    return memchr(text, 0, length) ? "it has a zero character (\\u0000)" : "it is too long";
}

/* An identifier that is needed: a number as written or a text, not empty. */
static int take_id(const struct reading *reading, enum payload_field field, char id[STAGE_ID_MAX], struct stage_refusal *refusal)
{
    const struct found *found = &reading->found[field];
    if ((found->type != JSON_NUMBER && found->type != JSON_STRING) || found->too_many)
        return refuse_field(refusal, field, "it is neither a number nor a text");
    if (found->length == 0)
        return refuse_field(refusal, field, "it is empty");
    if (!copy_text(id, STAGE_ID_MAX, found->text, found->length))
        return refuse_field(refusal, field, uncopied_text(found->text, found->length));
    return 0;
}

/* An identifier that only serves as a cross-check: "" unless it is usable. */
static void take_optional_id(const struct reading *reading, enum payload_field field, char id[STAGE_ID_MAX])
{
    struct stage_refusal ignored;
    if (!reading->found[field].present || take_id(reading, field, id, &ignored) != 0)
        id[0] = 0;
}

static int refuse_lengths(struct stage_refusal *refusal, enum payload_field field, size_t count, enum payload_field other,
                          size_t other_count)
{
    char what[128];
    snprintf(what, sizeof what, "it has %zu values where '%s' has %zu", count, fields[other].name, other_count);
    return refuse_field(refusal, field, what);
}

static int take_empties(const struct reading *reading, enum payload_field field, const float *source, size_t step_count,
                        float target[PAYLOAD_STEPS_MAX], struct stage_refusal *refusal)
{
    const struct found *found = &reading->found[field];
    if (!found->scalar && found->numbers.count != step_count)
        return refuse_lengths(refusal, field, found->numbers.count, PAYLOAD_STEPS, step_count);
    for (size_t i = 0; i < step_count; i++)
        target[i] = source[found->scalar ? 0 : i];
    return 0;
}

static int take_result(const struct reading *reading, struct payload_result *result, struct stage_refusal *refusal)
{
    const struct payload_reader *reader = reading->reader;
    int error = take_id(reading, PAYLOAD_MACHINE_ID, result->machine_id, refusal);
    if (!error)
        error = take_id(reading, PAYLOAD_RESULT_ID, result->result_id, refusal);
    if (error)
        return error;
    result->step_count = reading->found[PAYLOAD_STEPS].numbers.count;
    memcpy(result->step, reader->rows, result->step_count * sizeof *result->step);
    error = take_empties(reading, PAYLOAD_TORQUE_EMPTY, reader->empties[0], result->step_count, result->torque_empty_a, refusal);
    if (!error)
        error = take_empties(reading, PAYLOAD_THRUST_EMPTY, reader->empties[1], result->step_count, result->thrust_empty_a, refusal);
    return error;
}

static int take_trace(const struct reading *reading, struct payload_trace *trace, struct stage_refusal *refusal)
{
    const struct payload_reader *reader = reading->reader;
    static const enum payload_field others[] = {PAYLOAD_TORQUE, PAYLOAD_THRUST, PAYLOAD_STEP};
    size_t count = reading->found[PAYLOAD_POSITION].numbers.count;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        size_t other = reading->found[others[i]].numbers.count;
        if (other != count)
            return refuse_lengths(refusal, others[i], other, PAYLOAD_POSITION, count);
    }
    take_optional_id(reading, PAYLOAD_TRACE_RESULT_ID, trace->result_id);
    trace->sample_count = count;
    trace->position_mm = reader->samples[0];
    trace->torque_a = reader->samples[1];
    trace->thrust_a = reader->samples[2];
    trace->step = reader->step;
    return 0;
}

static int take_heads(const struct reading *reading, struct payload_heads *heads, struct stage_refusal *refusal)
{
    const struct found *found = &reading->found[PAYLOAD_HEAD_ID];
    if (found->type != JSON_NUMBER && found->type != JSON_STRING && found->type != JSON_NULL)
        return refuse_field(refusal, PAYLOAD_HEAD_ID, "it is neither a number nor a text");
    const char *text = found->text;
    size_t length = found->type == JSON_NULL ? 0 : found->length;
    text_trim(&text, &length);
    if (length && !copy_text(heads->head_id, sizeof heads->head_id, text, length))
        return refuse_field(refusal, PAYLOAD_HEAD_ID, uncopied_text(text, length));
    if (length == 0)
        heads->head_id[0] = 0;
    take_optional_id(reading, PAYLOAD_HEAD_CYCLES, heads->cycle_counter);
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Looks for the first SourceTimestamp in bytes that are no valid document: a hole whose trace was cut is still answered. */
static void find_stamp(const uint8_t *bytes, size_t length, char stamp[STAGE_STAMP_MAX])
{
    static const char name[] = "\"SourceTimestamp\"";
    const char *end = (const char *)bytes + length;
    const char *at = length ? memmem(bytes, length, name, sizeof name - 1) : NULL;
    if (!at)
        return;
    at += sizeof name - 1;
    for (int part = 0; part < 2; part++) { /* the colon, then the quote */
        while (at < end && is_blank(*at))
            at++;
        if (at == end || *at++ != ":\""[part])
            return;
    }
    const char *quote = memchr(at, '"', (size_t)(end - at));
    if (!quote || quote == at || memchr(at, '\\', (size_t)(quote - at)) || !text_is_utf8(at, (size_t)(quote - at)))
        return;
    copy_text(stamp, STAGE_STAMP_MAX, at, (size_t)(quote - at));
}

static void set_fields(struct reading *reading)
{
    unsigned first = 0;
    while (fields[first].side != reading->side)
        first++;
    unsigned end = first;
    while (end < PAYLOAD_FIELD_COUNT && fields[end].side == reading->side)
        end++;
    reading->first_field = first;
    reading->end_field = end;
    for (unsigned i = first; i < end; i++)
        reading->path_length[i] = strlen(reading->paths->path[i]);
}

static int read_document(struct reading *reading, const uint8_t *bytes, size_t length, struct payload *payload,
                         struct stage_refusal *refusal)
{
    static const struct json_visitor visitor = {visit_member, visit_value, visit_leave};
    struct json_failure failure;
    int error = json_read(reading->reader->json, bytes, length, &visitor, reading, &failure);
    if (error == 0 || error == ERR_NO_MEMORY)
        return error;
    find_stamp(bytes, length, payload->stamp);
    if (!text_is_utf8((const char *)bytes, length)) {
        refuse(refusal, "not_utf8", "the %s is not UTF-8", message_names[reading->side]);
        return ERR_NOT_UTF8;
    }
    const char *reason = error == ERR_NOT_JSON ? "not_json" : "bad_structure";
    refuse(refusal, reason, "the %s cannot be read as JSON: %s (near byte %zu of %zu)", message_names[reading->side], failure.text,
           failure.offset, length);
    return error;
}

int payload_read(struct payload_reader *reader, const struct payload_paths *paths, enum payload_side side, const uint8_t *bytes,
                 size_t length, struct payload *payload, struct stage_refusal *refusal)
{
    payload->stamp[0] = 0;
    if (length > PAYLOAD_BYTES_MAX) {
        find_stamp(bytes, length, payload->stamp);
        return refuse(refusal, "too_large", "the %s has %zu bytes; at most %d are accepted", message_names[side], length,
                      PAYLOAD_BYTES_MAX);
    }
    int error = side == PAYLOAD_TRACE ? samples_reserve(reader, length) : 0;
    if (error)
        return error;
    struct reading reading = {.reader = reader, .paths = paths, .side = side};
    set_fields(&reading);
    error = read_document(&reading, bytes, length, payload, refusal);
    if (error)
        return error;
    int stamp_error = check_stamp(&reading, payload->stamp, refusal);
    error = check_structure(&reading, refusal);
    if (stamp_error || error)
        return ERR_PAYLOAD;
    error = check_fields(&reading, refusal);
    if (error)
        return error;
    switch (side) {
    case PAYLOAD_RESULT:
        return take_result(&reading, &payload->result, refusal);
    case PAYLOAD_TRACE:
        return take_trace(&reading, &payload->trace, refusal);
    default:
        return take_heads(&reading, &payload->heads, refusal);
    }
}

/* ---- identifiers ---- */

static size_t count_digits(const char *text, size_t length)
{
    size_t count = 0;
    while (count < length && text[count] >= '0' && text[count] <= '9')
        count++;
    return count;
}

void payload_hole_number(const char *id, char number[STAGE_ID_MAX])
{
    size_t length = strlen(id);
    text_trim(&id, &length);
    size_t whole = count_digits(id, length), behind = whole;
    if (whole && behind < length && id[behind] == '.')
        for (behind++; behind < length && id[behind] == '0';)
            behind++;
    if (whole && behind == length) { /* a whole number */
        length = whole;
        while (length > 1 && *id == '0') {
            id++;
            length--;
        }
    }
    memmove(number, id, length);
    number[length] = 0;
}
