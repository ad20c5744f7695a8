#include "queue/dead_letter.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "queue/reason.h"

enum { DEAD_LETTER_JSON_MAX = 16384 };

static void append_field(struct buffer *out, const char *name, const char *value)
{
    buffer_printf(out, "%s\"%s\":", out->length > 1 ? "," : "", name);
    buffer_append_json_string(out, value, strlen(value), 0);
}

int dead_letter_encode(const struct dead_letter *letter, const uint8_t *own, uint32_t own_length, struct buffer *out)
{
    struct buffer text;
    buffer_init(&text, DEAD_LETTER_JSON_MAX);
    buffer_append_text(&text, "{");
    append_field(&text, "reason", letter->reason);
    append_field(&text, "stage", letter->stage);
    append_field(&text, "error", letter->error);
    append_field(&text, "stream", letter->stream);
    if (letter->previous_reason[0])
        append_field(&text, "previous_reason", letter->previous_reason);
    if (letter->place != DEAD_LETTER_NO_PLACE)
        buffer_printf(&text, ",\"dead_letter\":%" PRIu64, letter->place);
    int error = buffer_printf(&text,
                              ",\"offset\":%" PRIu64 ",\"time_ns\":%" PRIu64 ",\"attempts\":%u,\"first_offset\":%" PRIu64
                              ",\"first_time_ns\":%" PRIu64 "}",
                              letter->offset, letter->time_ns, letter->attempts, letter->first_offset, letter->first_time_ns);
    if (!error)
        error = buffer_reserve(out, text.length + 1 + own_length);
    if (!error) {
        buffer_append(out, text.data, text.length);
        if (own_length) {
            buffer_append(out, "", 1);
            buffer_append(out, own, own_length);
        }
    }
    buffer_fini(&text);
    return error;
}

static void copy_text(const json_t *root, const char *name, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(root, name));
    snprintf(out, size, "%s", text ? text : "");
}

static uint64_t number(const json_t *root, const char *name, uint64_t otherwise)
{
    const json_t *value = json_object_get(root, name);
    return json_is_integer(value) ? (uint64_t)json_integer_value(value) : otherwise;
}

/* The length of the JSON text at the beginning. */
static uint32_t text_length(const struct message *record)
{
    const uint8_t *end = record->properties_length ? memchr(record->properties, 0, record->properties_length) : NULL;
    return end ? (uint32_t)(end - record->properties) : record->properties_length;
}

int dead_letter_decode(const struct message *record, struct dead_letter *out)
{
    json_t *root = json_loadb((const char *)record->properties, text_length(record), 0, NULL);
    if (!json_is_object(root)) {
        json_decref(root);
        return ERR_CORRUPT;
    }
    struct dead_letter letter = {0};
    copy_text(root, "reason", letter.reason, sizeof letter.reason);
    copy_text(root, "stage", letter.stage, sizeof letter.stage);
    copy_text(root, "error", letter.error, sizeof letter.error);
    copy_text(root, "stream", letter.stream, sizeof letter.stream);
    copy_text(root, "previous_reason", letter.previous_reason, sizeof letter.previous_reason);
    letter.offset = number(root, "offset", 0);
    letter.time_ns = number(root, "time_ns", 0);
    letter.attempts = (unsigned)number(root, "attempts", 0);
    letter.first_offset = number(root, "first_offset", letter.offset);
    letter.first_time_ns = number(root, "first_time_ns", letter.time_ns);
    letter.place = number(root, "dead_letter", DEAD_LETTER_NO_PLACE);
    json_decref(root);
    *out = letter;
    return 0;
}

void dead_letter_own_properties(const struct message *record, const uint8_t **own, uint32_t *own_length)
{
    uint32_t length = text_length(record);
    uint32_t before = length < record->properties_length ? length + 1 : length;
    *own = record->properties + before;
    *own_length = record->properties_length - before;
}

void message_published_properties(const struct message *message, const uint8_t **published, uint32_t *length)
{
    *published = message->properties;
    *length = message->properties_length;
    if (message->flags & MESSAGE_REQUEUED)
        dead_letter_own_properties(message, published, length);
}

void dead_letter_begin(struct dead_letter *out, const struct message *message, const char *stream)
{
    struct dead_letter letter = {.attempts = 1, .first_offset = message->offset, .first_time_ns = message->time_ns}, before;
    if (message->flags & MESSAGE_REQUEUED && dead_letter_decode(message, &before) == 0) {
        letter.attempts = before.attempts;
        letter.first_offset = before.first_offset;
        letter.first_time_ns = before.first_time_ns;
        memcpy(letter.previous_reason, before.reason, sizeof letter.previous_reason);
    }
    letter.offset = message->offset;
    letter.time_ns = message->time_ns;
    letter.place = DEAD_LETTER_NO_PLACE;
    snprintf(letter.stream, sizeof letter.stream, "%s", stream);
    *out = letter;
}

bool dead_letter_was_refused(const struct message *message)
{
    struct dead_letter letter;
    return message->flags & MESSAGE_REQUEUED && dead_letter_decode(message, &letter) == 0 &&
           (strcmp(letter.stage, "parse") == 0 || strcmp(letter.reason, "internal") == 0);
}

unsigned dead_letter_reason(const struct message *record)
{
    struct dead_letter letter;
    return dead_letter_decode(record, &letter) ? (unsigned)REASON_INTERNAL : reason_parse(letter.reason);
}
