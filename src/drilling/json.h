/* Reading a JSON document in one pass: a visitor is told of every member and says what to do with it. Also the shortest decimal
 * text of a double.
 *
 * The whole document is checked, also what the visitor skips and what lies behind the point where it found everything. Accepted is
 * RFC 8259 in UTF-8 and the three words of numbers.h; an escaped half of a surrogate pair is refused, for UTF-8 cannot hold it. Of
 * several members with the same name each is announced. This is the C face of simdjson; json.cpp is the only file that includes it. */
#ifndef DRILLING_JSON_H
#define DRILLING_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "drilling/numbers.h"

#ifdef __cplusplus
extern "C" {
#endif

enum json_type { JSON_NULL, JSON_BOOLEAN, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

enum json_action {
    JSON_SKIP,  /* only check it */
    JSON_ENTER, /* array, object: announce its members, then leave() */
    JSON_TAKE   /* everything but an object: hand it to value(). An array is read into *target */
};

enum {
    JSON_DEPTH_MAX = 64,       /* levels of nesting; a deeper document is refused */
    JSON_KEPT_BYTES = 1 << 20, /* working memory for larger documents is given back at the next smaller one */
};

struct json_value {
    enum json_type type;
    const char *text; /* string: its characters, unescaped; number, true, false, null: as written. Valid until the next json_read */
    size_t length;
    struct numbers_report numbers; /* array and number with a target */
};

struct json_visitor {
    /* `depth` is 0 for the document itself, 1 for its members. `key` is NULL in arrays and for the document. A visitor that
     * answers JSON_TAKE for a number or an array may fill *target (cleared before the call). */
    enum json_action (*member)(void *context, unsigned depth, const char *key, size_t key_length, enum json_type type,
                               struct numbers_target *target);
    void (*value)(void *context, const struct json_value *value);
    void (*leave)(void *context);
};

struct json_failure {
    size_t offset;    /* about where, bytes */
    const char *text; /* static; what is wrong */
};

struct json_reader; /* working memory; one thread at a time */

int json_reader_create(struct json_reader **reader);
void json_reader_destroy(struct json_reader *reader);

/* Returns 0; ERR_NOT_JSON or ERR_PAYLOAD (nested too deep) with *failure; ERR_NO_MEMORY. The visitor may have been told of the part
 * before the failure. `bytes` needs no padding. */
int json_read(struct json_reader *reader, const uint8_t *bytes, size_t length, const struct json_visitor *visitor, void *context,
              struct json_failure *failure);

/* The shortest decimal text that reads back as `value`, written as Python's repr does ("21.0", "1e-05", "1e+16", "nan", "inf").
 * Returns its length; `text` is zero-terminated. */
enum { JSON_DOUBLE_TEXT_SIZE = 32 };
size_t json_double_text(double value, char text[JSON_DOUBLE_TEXT_SIZE]);

#ifdef __cplusplus
}
#endif

#endif
