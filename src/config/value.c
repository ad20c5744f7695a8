/* Each kind has one reader. They take decimal digits only: what C or YAML 1.1 would take beside them (octal, hexadecimal, base 60)
 * is more often a mistake than meant. */
#include "config/value.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/text.h"
#include "config/problems.h"

static const struct {
    const char *suffix;
    double factor;
} size_suffixes[] = {{"TiB", 1024 * VALUE_GIB}, {"GiB", VALUE_GIB}, {"MiB", VALUE_MIB}, {"KiB", VALUE_KIB}, {"B", 1}};
enum { SIZE_SUFFIX_COUNT = sizeof size_suffixes / sizeof *size_suffixes };

static void size_text(double bytes, char text[32])
{
    for (size_t i = 0; i < SIZE_SUFFIX_COUNT - 1; i++) {
        if (bytes > 0 && fmod(bytes, size_suffixes[i].factor) == 0) {
            snprintf(text, 32, "%.0f%s", bytes / size_suffixes[i].factor, size_suffixes[i].suffix);
            return;
        }
    }
    snprintf(text, 32, "%.0f", bytes);
}

/* The shortest text that reads back as the same number. */
static void number_text(double number, char text[32])
{
    if (number == trunc(number) && fabs(number) < 1e15) {
        snprintf(text, 32, "%.0f", number);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            return;
    }
}

static void describe_words(const struct value_word *words, char text[VALUE_MESSAGE_MAX])
{
    size_t used = (size_t)snprintf(text, VALUE_MESSAGE_MAX, "one of ");
    for (size_t i = 0; words[i].word && used < VALUE_MESSAGE_MAX; i++)
        used += (size_t)snprintf(text + used, VALUE_MESSAGE_MAX - used, "%s`%s`", i ? ", " : "", words[i].word);
}

void value_describe(const struct value_type *type, char text[VALUE_MESSAGE_MAX])
{
    char low[32], high[32];
    switch (type->kind) {
    case VALUE_BOOL:
        snprintf(text, VALUE_MESSAGE_MAX, "`true` or `false`");
        return;
    case VALUE_INT:
    case VALUE_COUNT:
        if (type->max < VALUE_UNBOUNDED)
            snprintf(text, VALUE_MESSAGE_MAX, "a whole number from %.0f to %.0f", type->min, type->max);
        else
            snprintf(text, VALUE_MESSAGE_MAX, "a whole number of at least %.0f", type->min);
        return;
    case VALUE_NUMBER:
        number_text(type->min, low);
        number_text(type->max, high);
        snprintf(text, VALUE_MESSAGE_MAX, "a number from %s to %s%s%s", low, high, type->unit ? " " : "", type->unit ? type->unit : "");
        return;
    case VALUE_SIZE:
        size_text(type->min, low);
        size_text(type->max, high);
        snprintf(text, VALUE_MESSAGE_MAX, "a size from %s to %s", low, high);
        return;
    case VALUE_WORD:
        describe_words(type->words, text);
        return;
    case VALUE_LIST:
        snprintf(text, VALUE_MESSAGE_MAX, "a list of texts");
        return;
    case VALUE_TEXT:
        snprintf(text, VALUE_MESSAGE_MAX, "%s",
                 type->form == VALUE_NOT_EMPTY      ? "a text that is not empty"
                 : type->form == VALUE_TOPIC_LEVELS ? "topic levels without `+` and `#`, and no `/` at either end"
                                                    : "a text");
        return;
    }
}

/* "expected <type>, found <text><hint>"; returns ERR_INVALID. */
__attribute__((format(printf, 5, 6))) static int refuse(const struct value_type *type, const char *text, size_t length, char *message,
                                                        const char *hint, ...)
{
    char expected[VALUE_MESSAGE_MAX], more[VALUE_MESSAGE_MAX];
    value_describe(type, expected);
    va_list arguments;
    va_start(arguments, hint);
    vsnprintf(more, sizeof more, hint, arguments);
    va_end(arguments);
    if (type->form == VALUE_HIDDEN)
        snprintf(message, VALUE_MESSAGE_MAX, "expected %.200s%.200s", expected, more);
    else if (length == 0)
        snprintf(message, VALUE_MESSAGE_MAX, "expected %.200s, found nothing%.100s", expected, more);
    else
        snprintf(message, VALUE_MESSAGE_MAX, "expected %.200s, found %s%.100s", expected, problem_quote(text, length).text, more);
    return ERR_INVALID;
}

static bool same(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && memcmp(text, word, length) == 0;
}

static bool same_any_case(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && strncasecmp(text, word, length) == 0;
}

static int parse_bool(const struct value_type *type, const char *text, size_t length, union value *value, char *message)
{
    static const char *const yes[] = {"true", "yes", "on"};
    static const char *const no[] = {"false", "no", "off"};
    for (size_t i = 0; i < 3; i++) {
        bool is_yes = same_any_case(text, length, yes[i]);
        if (is_yes || same_any_case(text, length, no[i])) {
            value->boolean = is_yes;
            return 0;
        }
    }
    return refuse(type, text, length, message, "%s", "");
}

/* Digits with single `_` between them (as YAML allows), no sign but a minus that is refused by range, no leading zero. Returns how many
 * bytes it read, 0 when there is no such number; beyond 2^63 *number is infinite. */
static size_t read_digits(const char *text, size_t length, double *number)
{
    size_t i = 0;
    bool negative = length > 1 && text[0] == '-';
    i += negative || (length > 1 && text[0] == '+');
    size_t first = i;
    double sum = 0;
    while (i < length) {
        if (text[i] >= '0' && text[i] <= '9')
            sum = sum * 10 + (text[i] - '0');
        else if (text[i] != '_' || i == first || i + 1 == length || text[i + 1] < '0' || text[i + 1] > '9')
            break;
        i++;
    }
    if (i == first || (text[first] == '0' && i > first + 1))
        return 0;
    *number = sum > 0x1p63 ? INFINITY : sum;
    if (negative)
        *number = -*number;
    return i;
}

static int parse_int(const struct value_type *type, const char *text, size_t length, union value *value, char *message)
{
    double number;
    if (length == 0 || read_digits(text, length, &number) != length || number < type->min || number > type->max)
        return refuse(type, text, length, message, "%s", "");
    if (type->kind == VALUE_INT)
        value->integer = (uint32_t)number;
    else
        value->count = (uint64_t)number;
    return 0;
}

/* A decimal number; strtod alone would also take "nan", "inf" and hexadecimal. */
static int parse_number(const struct value_type *type, const char *text, size_t length, union value *value, char *message)
{
    char copy[64], *end;
    if (length == 0 || length >= sizeof copy)
        return refuse(type, text, length, message, "%s", "");
    memcpy(copy, text, length);
    copy[length] = 0;
    double number = strtod(copy, &end);
    if (strspn(copy, "0123456789+-.eE") < length || *end || end == copy || !(number >= type->min) || !(number <= type->max))
        return refuse(type, text, length, message, "%s", "");
    value->number = number;
    return 0;
}

/* The suffix that was meant by "M", "mb" and the like; NULL when none was. */
static const char *size_suffix_meant(const char *suffix, size_t length)
{
    for (size_t i = 0; i < SIZE_SUFFIX_COUNT; i++)
        if (length >= 1 && length <= 3 && strncasecmp(suffix, size_suffixes[i].suffix, 1) == 0)
            return size_suffixes[i].suffix;
    return NULL;
}

static int parse_size(const struct value_type *type, const char *text, size_t length, union value *value, char *message)
{
    double number;
    size_t digits = length ? read_digits(text, length, &number) : 0;
    if (digits == 0)
        return refuse(type, text, length, message, "%s", "");
    size_t suffix = digits + (digits < length && text[digits] == ' ');
    double factor = suffix == length && digits == length ? 1 : 0;
    for (size_t i = 0; i < SIZE_SUFFIX_COUNT && factor == 0; i++)
        if (same(text + suffix, length - suffix, size_suffixes[i].suffix))
            factor = size_suffixes[i].factor;
    if (factor == 0) {
        const char *meant = size_suffix_meant(text + suffix, length - suffix);
        return meant ? refuse(type, text, length, message, "; did you mean `%.*s%s`?", (int)(digits < 20 ? digits : 20), text, meant)
                     : refuse(type, text, length, message, "; a size is a number of bytes, or has KiB, MiB, GiB or TiB behind it");
    }
    number *= factor;
    if (number < type->min || number > type->max)
        return refuse(type, text, length, message, "%s", "");
    value->size = (uint64_t)number;
    return 0;
}

static int parse_word(const struct value_type *type, const char *text, size_t length, union value *value, char *message)
{
    const char *known[VALUE_WORDS_MAX];
    unsigned count = 0;
    for (; type->words[count].word && count < VALUE_WORDS_MAX; count++) {
        known[count] = type->words[count].word;
        if (same(text, length, known[count])) {
            value->word = count;
            return 0;
        }
    }
    char copy[64];
    const char *meant = NULL;
    if (length < sizeof copy) {
        memcpy(copy, text, length);
        copy[length] = 0;
        for (char *c = copy; *c; c++)
            if (*c >= 'A' && *c <= 'Z')
                *c = (char)(*c - 'A' + 'a');
        meant = text_suggest(copy, known, count);
    }
    return meant ? refuse(type, text, length, message, "; did you mean `%s`?", meant) : refuse(type, text, length, message, "%s", "");
}

static int parse_text(const struct value_type *type, const char *text, size_t length, char *message)
{
    if (length > VALUE_TEXT_MAX)
        return refuse(type, text, length, message, ", which is longer than %d bytes", VALUE_TEXT_MAX);
    if (memchr(text, 0, length))
        return refuse(type, text, length, message, ", which contains a zero byte");
    if (!text_is_utf8(text, length))
        return refuse(type, text, length, message, ", which is not UTF-8");
    bool levels = type->form == VALUE_TOPIC_LEVELS;
    if (levels && length > VALUE_TOPIC_MAX)
        return refuse(type, text, length, message, ", which is longer than %d bytes", VALUE_TOPIC_MAX);
    if ((levels || type->form == VALUE_NOT_EMPTY) && length == 0)
        return refuse(type, text, length, message, "%s", "");
    if (levels && (memchr(text, '+', length) || memchr(text, '#', length) || text[0] == '/' || text[length - 1] == '/'))
        return refuse(type, text, length, message, "%s", "");
    return 0;
}

int value_parse(const struct value_type *type, const char *text, size_t length, union value *value, char message[VALUE_MESSAGE_MAX])
{
    switch (type->kind) {
    case VALUE_BOOL:
        return parse_bool(type, text, length, value, message);
    case VALUE_INT:
    case VALUE_COUNT:
        return parse_int(type, text, length, value, message);
    case VALUE_NUMBER:
        return parse_number(type, text, length, value, message);
    case VALUE_SIZE:
        return parse_size(type, text, length, value, message);
    case VALUE_WORD:
        return parse_word(type, text, length, value, message);
    case VALUE_TEXT:
    case VALUE_LIST:
        return parse_text(type, text, length, message);
    }
    return ERR_INVALID;
}

int value_write(const struct value_type *type, const union value *value, struct buffer *out)
{
    char text[32];
    switch (type->kind) {
    case VALUE_BOOL:
        return buffer_append_text(out, value->boolean ? "true" : "false");
    case VALUE_INT:
        return buffer_printf(out, "%u", (unsigned)value->integer);
    case VALUE_COUNT:
        return buffer_printf(out, "%llu", (unsigned long long)value->count);
    case VALUE_NUMBER:
        number_text(value->number, text);
        return buffer_append_text(out, text);
    case VALUE_SIZE:
        size_text((double)value->size, text);
        return buffer_append_text(out, text);
    case VALUE_WORD:
        return buffer_append_text(out, type->words[value->word].word);
    case VALUE_TEXT:
    case VALUE_LIST:
        break;
    }
    return ERR_INVALID;
}

void value_store(const struct value_type *type, const union value *value, void *variable)
{
    switch (type->kind) {
    case VALUE_BOOL:
        *(bool *)variable = value->boolean;
        return;
    case VALUE_INT:
        *(uint32_t *)variable = value->integer;
        return;
    case VALUE_COUNT:
        *(uint64_t *)variable = value->count;
        return;
    case VALUE_NUMBER:
        *(double *)variable = value->number;
        return;
    case VALUE_SIZE:
        *(uint64_t *)variable = value->size;
        return;
    case VALUE_WORD:
        memcpy(variable, &value->word, sizeof value->word);
        return;
    case VALUE_TEXT:
    case VALUE_LIST:
        return;
    }
}
