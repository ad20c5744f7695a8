/* A table of damages done to good messages. */
#include "simulate/simulator_malformed.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"

enum damage {
    DAMAGE_NONE,   /* the message is good; its topic is not */
    DAMAGE_WHOLE,  /* `text` is all there is */
    DAMAGE_CUT,    /* the second half is missing */
    DAMAGE_INSERT, /* `text` behind the first `find` */
    DAMAGE_SPOIL   /* the last letter of every `find` is another one */
};

struct malformation {
    const char *name;
    enum simulator_message message;
    const char *topic;
    enum damage damage;
    const char *find, *text;
};

#define TORQUE_ARRAY "IntensityTorqueTrace.StepTraceContent[0].Values\":{\"Value\":["

static const struct malformation malformations[] = {
    {"cut", SIMULATOR_TRACE, NULL, DAMAGE_CUT, NULL, NULL},
    {"empty", SIMULATOR_RESULT, NULL, DAMAGE_WHOLE, NULL, ""},
    {"not-json", SIMULATOR_RESULT, NULL, DAMAGE_WHOLE, NULL, "drill finished\n"},
    {"not-an-object", SIMULATOR_TRACE, NULL, DAMAGE_WHOLE, NULL, "[1,2,3]"},
    {"no-messages", SIMULATOR_HEADS, NULL, DAMAGE_WHOLE, NULL, "{\"MessageType\":\"ua-data\"}"},
    {"no-payload", SIMULATOR_RESULT, NULL, DAMAGE_WHOLE, NULL, "{\"MessageType\":\"ua-data\",\"Messages\":{}}"},
    {"not-utf8", SIMULATOR_RESULT, NULL, DAMAGE_INSERT, "\"MessageType\":\"ua-data", "\xff\xfe"},
    {"no-stamp", SIMULATOR_RESULT, NULL, DAMAGE_SPOIL, "SourceTimestamp", NULL},
    {"text-among-numbers", SIMULATOR_TRACE, NULL, DAMAGE_INSERT, TORQUE_ARRAY, "\"much\","},
    {"null-among-numbers", SIMULATOR_TRACE, NULL, DAMAGE_INSERT, TORQUE_ARRAY, "null,"},
    {"number-too-large", SIMULATOR_TRACE, NULL, DAMAGE_INSERT, TORQUE_ARRAY, "1e999,"},
    {"unequal-arrays", SIMULATOR_TRACE, NULL, DAMAGE_INSERT, TORQUE_ARRAY, "0,"},
    {"no-torque", SIMULATOR_TRACE, NULL, DAMAGE_SPOIL, "IntensityTorqueTrace", NULL},
    {"unknown-topic", SIMULATOR_TRACE, "ResultManagement/Traces", DAMAGE_NONE, NULL, NULL},
};

unsigned simulator_malformed_count(void)
{
    return sizeof malformations / sizeof *malformations;
}

const char *simulator_malformed_name(unsigned kind)
{
    assert(kind < simulator_malformed_count());
    return malformations[kind].name;
}

const char *simulator_malformed_topic(unsigned kind, enum simulator_message *message)
{
    assert(kind < simulator_malformed_count());
    *message = malformations[kind].message;
    return malformations[kind].topic;
}

static int insert(struct buffer *out, size_t start, const char *find, const char *text)
{
    size_t text_length = strlen(text);
    int error = buffer_reserve(out, text_length);
    if (error)
        return error;
    uint8_t *found = memmem(out->data + start, out->length - start, find, strlen(find));
    assert(found); /* the tables of this file and of simulator_messages.c agree */
    uint8_t *behind = found + strlen(find);
    memmove(behind + text_length, behind, (size_t)(out->data + out->length - behind));
    memcpy(behind, text, text_length);
    out->length += text_length;
    return 0;
}

static void spoil(struct buffer *out, size_t start, const char *find)
{
    size_t length = strlen(find);
    uint8_t *at = out->data + start, *end = out->data + out->length;
    while ((at = memmem(at, (size_t)(end - at), find, length)) != NULL) {
        at += length;
        at[-1] = 'X';
    }
}

int simulator_malformed_write(struct buffer *out, unsigned kind, const struct simulator_rendering *rendering,
                              const struct simulator_identity *identity)
{
    assert(kind < simulator_malformed_count());
    const struct malformation *row = &malformations[kind];
    if (row->damage == DAMAGE_WHOLE)
        return buffer_append_text(out, row->text);
    size_t start = out->length;
    int error = simulator_message_write(out, row->message, rendering, identity);
    if (!error && row->damage == DAMAGE_CUT)
        out->length = start + (out->length - start) / 2;
    if (!error && row->damage == DAMAGE_SPOIL)
        spoil(out, start, row->find);
    if (!error && row->damage == DAMAGE_INSERT)
        error = insert(out, start, row->find, row->text);
    if (error)
        out->length = start;
    return error;
}
