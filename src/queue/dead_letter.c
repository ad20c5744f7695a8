#include "queue/dead_letter.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "queue/ledger.h"

static void append_field(struct buffer *out, const char *name, const char *value)
{
    buffer_printf(out, "%s\"%s\":", out->length > 1 ? "," : "", name);
    buffer_append_json_string(out, value, strlen(value), 0);
}

int dead_letter_encode(const struct dead_letter *letter, struct buffer *out)
{
    struct buffer text;
    buffer_init(&text, 16384);
    buffer_append_text(&text, "{");
    append_field(&text, "reason", letter->reason);
    append_field(&text, "stage", letter->stage);
    append_field(&text, "error", letter->error);
    append_field(&text, "stream", letter->stream);
    int error = buffer_printf(&text, ",\"offset\":%" PRIu64 ",\"time_ns\":%" PRIu64 ",\"attempts\":%u}", letter->offset, letter->time_ns,
                              letter->attempts);
    if (!error)
        error = buffer_append(out, text.data, text.length);
    buffer_fini(&text);
    return error;
}

static void copy_text(const json_t *root, const char *name, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(root, name));
    snprintf(out, size, "%s", text ? text : "");
}

int dead_letter_decode(const struct message *record, struct dead_letter *out)
{
    json_t *root = json_loadb((const char *)record->properties, record->properties_length, 0, NULL);
    if (!json_is_object(root)) {
        json_decref(root);
        return ERR_CORRUPT;
    }
    struct dead_letter letter = {0};
    copy_text(root, "reason", letter.reason, sizeof letter.reason);
    copy_text(root, "stage", letter.stage, sizeof letter.stage);
    copy_text(root, "error", letter.error, sizeof letter.error);
    copy_text(root, "stream", letter.stream, sizeof letter.stream);
    letter.offset = (uint64_t)json_integer_value(json_object_get(root, "offset"));
    letter.time_ns = (uint64_t)json_integer_value(json_object_get(root, "time_ns"));
    letter.attempts = (unsigned)json_integer_value(json_object_get(root, "attempts"));
    json_decref(root);
    *out = letter;
    return 0;
}

unsigned dead_letter_reason(const struct message *record)
{
    struct dead_letter letter;
    return dead_letter_decode(record, &letter) ? (unsigned)LEDGER_REASON_INTERNAL : ledger_reason_parse(letter.reason);
}
