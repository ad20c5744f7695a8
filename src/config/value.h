/* Values as people write them, in a configuration, an environment variable or an argument: checked and turned into numbers. Pure. */
#ifndef CONFIG_VALUE_H
#define CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

enum value_kind { VALUE_BOOL, VALUE_INT, VALUE_COUNT, VALUE_NUMBER, VALUE_SIZE, VALUE_TEXT, VALUE_WORD, VALUE_LIST };

enum value_form {
    VALUE_ANY,
    VALUE_NOT_EMPTY,
    VALUE_TOPIC_LEVELS, /* 1 to VALUE_TOPIC_MAX bytes; no `+`, `#`; no `/` at either end */
    VALUE_HIDDEN        /* a secret: messages and listings do not show it */
};

struct value_word {
    const char *word; /* NULL ends the array */
    const char *help;
};

struct value_type {
    enum value_kind kind;
    enum value_form form;           /* TEXT */
    double min, max;                /* INT, COUNT, NUMBER, SIZE: both included; whole numbers up to 2^53 but for NUMBER */
    const char *unit;               /* NUMBER; may be NULL */
    const struct value_word *words; /* WORD */
};

union value {
    bool boolean;
    uint32_t integer;
    uint64_t count;
    double number;
    uint64_t size; /* bytes */
    unsigned word; /* index into words */
};

enum {
    VALUE_TEXT_MAX = 4096,   /* bytes of a text */
    VALUE_TOPIC_MAX = 1000,  /* bytes of topic levels */
    VALUE_MESSAGE_MAX = 512, /* bytes of a message, with its zero */
    VALUE_WORDS_MAX = 32
};

#define VALUE_COUNT_MAX 0x1p53
#define VALUE_UNBOUNDED 4e9 /* from here on a maximum is not worth telling */

#define VALUE_KIB 1024.0
#define VALUE_MIB (1024.0 * VALUE_KIB)
#define VALUE_GIB (1024.0 * VALUE_MIB)

/* Reads `length` bytes as a value of `type`. For TEXT, and for one item of a LIST, it only checks. Returns 0, or ERR_INVALID with
 * a message that says what was expected and what was found ("expected a whole number from 0 to 65535, found `abc`"). */
int value_parse(const struct value_type *type, const char *text, size_t length, union value *value, char message[VALUE_MESSAGE_MAX]);

/* Stores a value in a variable of its kind: a bool, uint32_t, uint64_t (COUNT and SIZE), double or enumeration. Not for TEXT and LIST. */
void value_store(const struct value_type *type, const union value *value, void *variable);

/* What the type admits: "a whole number from 0 to 65535". Cut to the array. */
void value_describe(const struct value_type *type, char text[VALUE_MESSAGE_MAX]);

/* Appends a value as value_parse reads it. Not for TEXT and LIST. */
int value_write(const struct value_type *type, const union value *value, struct buffer *out);

#endif
