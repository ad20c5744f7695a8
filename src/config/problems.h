/* What is wrong with a configuration or a command line: a bounded list, filled in one run, read by people and by programs.
 *
 * Printed as "SOURCE:LINE:COLUMN: text" for an error and "SOURCE:LINE:COLUMN: warning: text" for the rest. */
#ifndef CONFIG_PROBLEMS_H
#define CONFIG_PROBLEMS_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include "base/buffer.h"

enum problem_severity { PROBLEM_ERROR, PROBLEM_WARNING, PROBLEM_NOTE };

enum {
    PROBLEMS_MAX = 50, /* of errors, and of warnings and notes together; further ones are only counted */
    PROBLEM_QUOTE_MAX = 160
};

/* Where something stands: a file, an environment variable, an argument. */
struct place {
    const char *source;
    unsigned line, column; /* from 1; 0: not a place in a file */
};

struct problem {
    enum problem_severity severity;
    struct place place; /* source is owned */
    char *text;         /* owned */
};

struct problems {
    struct problem items[2 * PROBLEMS_MAX];
    size_t count;
    size_t errors;   /* found, kept or not */
    size_t remarks;  /* warnings and notes found, kept or not */
    size_t left_out; /* found and not kept */
};

void problems_init(struct problems *problems);
void problems_fini(struct problems *problems);

/* Copies place and text. place.source may be NULL. */
void problems_add(struct problems *problems, enum problem_severity severity, struct place place, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts what stands in a file into the order of its lines; the rest follows in the order in which it was added. */
void problems_sort(struct problems *problems);

/* "error", "warning" or "note". */
const char *problem_severity_word(enum problem_severity severity);

/* Appends one line without its end. */
int problem_write(const struct problem *problem, struct buffer *out);

/* Appends all, a line each, then how many were left out. */
int problems_write(const struct problems *problems, struct buffer *out);

/* Writes them to `file`, in colour where it is a terminal that shows colour. */
void problems_print(const struct problems *problems, FILE *file);

/* A text made safe to show: control characters and bytes that are not UTF-8 become \xNN, and what is long is cut. Between ` `. */
struct problem_quoted {
    char text[PROBLEM_QUOTE_MAX];
};
struct problem_quoted problem_quote(const char *text, size_t length);

#endif
