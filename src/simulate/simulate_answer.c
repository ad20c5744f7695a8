#include "simulate/simulate_answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/error.h"

/* A text member, or "" when it is null. False when it is missing or something else. */
static bool read_text(json_t *root, const char *name, char *out, size_t size)
{
    json_t *member = json_object_get(root, name);
    if (!json_is_string(member) && !json_is_null(member))
        return false;
    snprintf(out, size, "%s", json_is_string(member) ? json_string_value(member) : "");
    return true;
}

static bool read_result_id(json_t *root, uint32_t *id)
{
    char text[SIMULATE_ANSWER_STAMP_MAX], *end;
    if (!read_text(root, "ResultId", text, sizeof text))
        return false;
    unsigned long long number = strtoull(text, &end, 10);
    *id = *end || number > UINT32_MAX ? 0 : (uint32_t)number;
    return true;
}

static bool read_value(json_t *root, struct simulate_answer *answer)
{
    json_t *value = json_object_get(root, "Value");
    if (json_is_string(value)) {
        answer->error = true;
        snprintf(answer->text, sizeof answer->text, "%s", json_string_value(value));
        return true;
    }
    size_t count = json_array_size(value);
    if (json_is_true(json_object_get(root, "Error")) || count < 1 || count > SIMULATE_VALUES_MAX)
        return false;
    for (size_t i = 0; i < count; i++) {
        json_t *number = json_array_get(value, i);
        if (!json_is_number(number))
            return false;
        answer->values[i] = json_number_value(number);
    }
    answer->value_count = (unsigned)count;
    return true;
}

int simulate_answer_read(struct simulate_answer *answer, const char *text, size_t length)
{
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    if (!root)
        return ERR_NOT_JSON;
    struct simulate_answer read = {0};
    bool whole = json_is_object(root) && read_text(root, "SourceTimestamp", read.stamp, sizeof read.stamp) &&
                 read_text(root, "MachineId", read.machine_id, sizeof read.machine_id) &&
                 read_text(root, "HeadId", read.head_id, sizeof read.head_id) && read_result_id(root, &read.result_id) &&
                 read_value(root, &read);
    json_decref(root);
    if (!whole)
        return ERR_PAYLOAD;
    *answer = read;
    return 0;
}
