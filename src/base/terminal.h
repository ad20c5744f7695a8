/* What a terminal can do beyond plain text: colour, and one line of progress that is written over. Nothing of it leaves for a file or pipe.
 */
#ifndef BASE_TERMINAL_H
#define BASE_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

enum terminal_style { TERMINAL_PLAIN, TERMINAL_BOLD, TERMINAL_DIM, TERMINAL_RED, TERMINAL_GREEN, TERMINAL_YELLOW };

/* The escape sequence that turns a style on (PLAIN turns all off); "" when `fd` is no terminal, NO_COLOR is set, or TERM is "dumb". */
const char *terminal_style(int fd, enum terminal_style style);

/* Columns of the terminal at `fd`; 80 when it is none. */
unsigned terminal_columns(int fd);

/* Copies as much of `text` as fits into `columns` cells (wide characters count two, control characters become spaces), zero-terminated.
 * Returns the cells used. Pure. */
unsigned terminal_fit(const char *text, unsigned columns, char *out, size_t out_size);

/* Shows one line of progress on standard error in place of the one before it. Does nothing where standard error is no terminal. */
void terminal_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Removes the line of progress. Call it before anything else is written, and at the end. */
void terminal_progress_end(void);

#endif
