/* Most numbers are short decimals: their digits fit a 64-bit integer and one correctly rounded division gives the double. The rest
 * go through strtod. */
#include "drilling/numbers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static inline bool is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

static inline bool is_space(char c)
{
    return (unsigned char)c <= ' ' && (c == ' ' || c == '\n' || c == '\r' || c == '\t');
}

static size_t read_word(const char *text, double *value)
{
    static const struct {
        const char *word;
        size_t length;
        double value;
    } words[] = {{"NaN", 3, (double)NAN}, {"Infinity", 8, (double)INFINITY}, {"-Infinity", 9, -(double)INFINITY}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strncmp(text, words[i].word, words[i].length) == 0) {
            *value = words[i].value;
            return words[i].length;
        }
    }
    return 0;
}

enum { EXACT_DIGITS = 15, EXACT_POWER = 22 }; /* 10^15 < 2^53, and 10^22 is the last power of ten that is a double */

static const double powers_of_ten[EXACT_POWER + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                                      1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* The exponent part, whose value the fast path does not use. Returns its end, NULL when it is malformed. */
static const char *skip_exponent(const char *at)
{
    at++;
    if (*at == '+' || *at == '-')
        at++;
    if (!is_digit(*at))
        return NULL;
    while (is_digit(*at))
        at++;
    return at;
}

static inline size_t read_number(const char *text, double *value)
{
    const char *at = text;
    bool negative = *at == '-';
    at += negative;
    const char *first = at;
    uint64_t digits = 0;
    while (is_digit(*at))
        digits = digits * 10 + (uint64_t)(*at++ - '0');
    ptrdiff_t whole = at - first;
    if (whole == 0)
        return read_word(text, value);
    if (*first == '0' && whole > 1)
        return 0;
    ptrdiff_t fraction = 0;
    if (*at == '.') {
        const char *point = at++;
        while (is_digit(*at))
            digits = digits * 10 + (uint64_t)(*at++ - '0');
        fraction = at - point - 1;
        if (fraction == 0)
            return 0;
    }
    bool has_exponent = *at == 'e' || *at == 'E';
    if (has_exponent && !(at = skip_exponent(at)))
        return 0;
    if (!has_exponent && whole + fraction <= EXACT_DIGITS) {
        double magnitude = (double)digits / powers_of_ten[fraction];
        *value = negative ? -magnitude : magnitude;
    } else {
        *value = strtod(text, NULL);
    }
    return (size_t)(at - text);
}

/* The number of eight digits, one a byte, the first in the lowest byte. */
static inline uint64_t eight_digits(uint64_t digits)
{
    digits = digits * 10 + (digits >> 8);
    return (((digits & 0x000000ff000000ff) * 0x000f424000000064) + (((digits >> 16) & 0x000000ff000000ff) * 0x0000271000000001)) >> 32;
}

/* A number without sign that ends within 8 bytes (up to 7 characters), read from one 64-bit word without a loop: nearly all numbers of
 * a trace. It is digits / 10^fraction. Returns its bytes, 0 when it is not of that form. Reads 8 bytes at `text`, which the zeros behind
 * the document allow. */
static inline __attribute__((always_inline)) size_t read_short(const char *text, int32_t *digits, unsigned *fraction)
{
    if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
        return 0;
    uint64_t word;
    memcpy(&word, text, sizeof word);
    uint64_t values = word ^ 0x3030303030303030;
    uint64_t others = ((values + 0x7676767676767676) | values) & 0x8080808080808080; /* the high bit of each byte that is no digit */
    if (others == 0)
        return 0;
    unsigned whole = (unsigned)__builtin_ctzll(others) & ~7u; /* in bits, as all below */
    uint64_t rest = others & (others - 1);
    if (whole == 0 || ((word & 0xff) == '0' && whole > 8))
        return 0;
    if (((word >> whole) & 0xff) != '.') {
        if (((word >> whole) & 0xdf) == 'E')
            return 0;
        *digits = (int32_t)eight_digits(values << (64 - whole));
        *fraction = 0;
        return whole / 8;
    }
    if (rest == 0)
        return 0;
    unsigned end = (unsigned)__builtin_ctzll(rest) & ~7u;
    if (end == whole + 8 || ((word >> end) & 0xdf) == 'E')
        return 0;
    uint64_t joined = (values & ((UINT64_C(1) << whole) - 1)) | (values >> (whole + 8) << whole);
    *digits = (int32_t)eight_digits(joined << (72 - end));
    *fraction = end / 8 - whole / 8 - 1;
    return end / 8;
}

size_t numbers_read(const char *text, double *value)
{
    return read_number(text, value);
}

static enum numbers_problem store(const struct numbers_target *target, size_t index, double value)
{
    if (target->kind == NUMBERS_CHECK_ONLY)
        return NUMBERS_FINE;
    if (index >= target->capacity)
        return NUMBERS_TOO_MANY;
    if (target->kind == NUMBERS_FLOAT) {
        float rounded = (float)value;
        target->floats[index] = rounded;
        return isfinite(rounded) ? NUMBERS_FINE : NUMBERS_NOT_FINITE;
    }
    if (!isfinite(value))
        return NUMBERS_NOT_FINITE;
    if (!(value >= INT32_MIN && value <= INT32_MAX) || value != trunc(value))
        return NUMBERS_NOT_WHOLE;
    target->int32s[index] = (int32_t)value;
    return NUMBERS_FINE;
}

enum numbers_problem numbers_store(const struct numbers_target *target, size_t index, double value)
{
    return store(target, index, value);
}

/* Reads and stores the number at `text`. Returns its bytes, 0 when there is none. `kind` is target->kind, known to the compiler.
 *
 * The short form goes to a float in one division. That gives what rounding to double and then to float gives: with less than 8 digits
 * the quotient is further from the middle of two floats than the first rounding moves it. */
static inline __attribute__((always_inline)) size_t read_element(const char *text, enum numbers_kind kind,
                                                                 const struct numbers_target *target, size_t index,
                                                                 enum numbers_problem *problem)
{
    static const float float_powers[] = {1e0f, 1e1f, 1e2f, 1e3f, 1e4f, 1e5f, 1e6f};
    bool negative = *text == '-';
    int32_t digits;
    unsigned fraction;
    size_t size = read_short(text + negative, &digits, &fraction);
    if (size && index < target->capacity && (kind == NUMBERS_FLOAT || fraction == 0)) {
        if (kind == NUMBERS_FLOAT) {
            float magnitude = (float)digits / float_powers[fraction];
            target->floats[index] = negative ? -magnitude : magnitude;
        } else {
            target->int32s[index] = negative ? -digits : digits;
        }
        return size + negative;
    }
    if (size && kind == NUMBERS_CHECK_ONLY)
        return size + negative;
    double value;
    size = read_number(text, &value);
    if (size)
        *problem = store(target, index, value);
    return size;
}

static inline __attribute__((always_inline)) bool read_array(const char *text, enum numbers_kind kind, const struct numbers_target *target,
                                                             struct numbers_report *report)
{
    struct numbers_report found = {0};
    size_t usual_size = 0; /* of the number before: a guess that lets the processor start on the next number before this one is done */
    const char *at = text + 1;
    while (is_space(*at))
        at++;
    if (*at == ']') {
        *report = found;
        return true;
    }
    for (;;) {
        enum numbers_problem problem = NUMBERS_FINE;
        size_t size = read_element(at, kind, target, found.count, &problem);
        if (size == 0)
            return false;
        if (size == usual_size) {
            __asm__("" : "+r"(usual_size)); /* keeps the compiler from using `size`, which is not known yet */
            at += usual_size;
        } else {
            at += size;
            usual_size = size;
        }
        if (problem && !found.problem) {
            found.problem = problem;
            found.problem_index = found.count;
        }
        found.count += problem != NUMBERS_TOO_MANY;
        while (is_space(*at))
            at++;
        if (*at == ']')
            break;
        if (*at++ != ',')
            return false;
        while (is_space(*at))
            at++;
    }
    *report = found;
    return true;
}

bool numbers_read_array(const char *text, const struct numbers_target *target, struct numbers_report *report)
{
    switch (target->kind) {
    case NUMBERS_FLOAT:
        return read_array(text, NUMBERS_FLOAT, target, report);
    case NUMBERS_INT32:
        return read_array(text, NUMBERS_INT32, target, report);
    case NUMBERS_CHECK_ONLY:
        break;
    }
    return read_array(text, NUMBERS_CHECK_ONLY, target, report);
}

const char *numbers_problem_text(enum numbers_problem problem)
{
    switch (problem) {
    case NUMBERS_FINE:
        return "is fine";
    case NUMBERS_NOT_A_NUMBER:
        return "is not a number";
    case NUMBERS_NOT_FINITE:
        return "is not a finite 32-bit number";
    case NUMBERS_NOT_WHOLE:
        return "is not a whole 32-bit number";
    case NUMBERS_TOO_MANY:
        return "is beyond the number of values that are accepted";
    }
    return "is not valid";
}
