/* Arrays of JSON numbers, straight from their text into memory: almost all bytes of a trace are such arrays.
 *
 * Grammar of RFC 8259 section 6, and the words NaN, Infinity and -Infinity, which Python's json module writes and reads. A number
 * is rounded to double, then to float (docs/estimators.md says why 32 bits). Pure. */
#ifndef DRILLING_NUMBERS_H
#define DRILLING_NUMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum numbers_kind { NUMBERS_CHECK_ONLY, NUMBERS_FLOAT, NUMBERS_INT32 };

/* Where the numbers of an array go; the caller's memory. */
struct numbers_target {
    enum numbers_kind kind;
    float *floats;   /* [capacity] for NUMBERS_FLOAT */
    int32_t *int32s; /* [capacity] for NUMBERS_INT32 */
    size_t capacity;
};

enum numbers_problem {
    NUMBERS_FINE,
    NUMBERS_NOT_A_NUMBER, /* text, null, boolean, array, object */
    NUMBERS_NOT_FINITE,   /* NaN, infinite, or beyond the range of a float */
    NUMBERS_NOT_WHOLE,    /* NUMBERS_INT32: has a fraction, or is beyond 32 bits */
    NUMBERS_TOO_MANY      /* more than `capacity` */
};

struct numbers_report {
    size_t count;                 /* numbers stored, or seen when nothing is stored */
    enum numbers_problem problem; /* the first one */
    size_t problem_index;
};

/* Reads one number. `text` must be followed by a byte that is no part of a number within the same memory. Returns the bytes of the
 * number, 0 when it is none. */
size_t numbers_read(const char *text, double *value);

/* Stores one value at `index` the way an array does; NUMBERS_FINE or the problem. */
enum numbers_problem numbers_store(const struct numbers_target *target, size_t index, double value);

/* Reads an array; text[0] is '['. At least 8 zero bytes must follow the text that the array is part of. Returns true with *report when all
 * its elements are numbers and its syntax is right, else false (and the target may be partly written). */
bool numbers_read_array(const char *text, const struct numbers_target *target, struct numbers_report *report);

/* "is not a number" and so on. */
const char *numbers_problem_text(enum numbers_problem problem);

#ifdef __cplusplus
}
#endif

#endif
