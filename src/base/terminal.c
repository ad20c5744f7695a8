#include "base/terminal.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/text.h"

enum { COLUMNS_WITHOUT_TERMINAL = 80, COLUMNS_LEAST = 20, PROGRESS_BYTES_MAX = 2048 };

static bool shows_escapes(int fd)
{
    const char *term = getenv("TERM");
    return isatty(fd) && term && *term && strcmp(term, "dumb") != 0;
}

const char *terminal_style(int fd, enum terminal_style style)
{
    static const char *const sequences[] = {"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"};
    const char *no_colour = getenv("NO_COLOR");
    return (no_colour && *no_colour) || !shows_escapes(fd) ? "" : sequences[style];
}

unsigned terminal_columns(int fd)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return COLUMNS_WITHOUT_TERMINAL;
    return size.ws_col < COLUMNS_LEAST ? COLUMNS_LEAST : size.ws_col;
}

/* Cells of a character: 0 for those that combine with the one before, 2 for East Asian wide ones and pictures, else 1. Near enough to keep
 * a line on one row: where fonts differ, it counts the wider. */
static unsigned cells_of(uint32_t c)
{
    if ((c >= 0x300 && c <= 0x36f) || (c >= 0x200b && c <= 0x200f) || (c >= 0xfe00 && c <= 0xfe0f))
        return 0;
    return (c >= 0x1100 && c <= 0x115f) || (c >= 0x2e80 && c <= 0xa4cf) || (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xf900 && c <= 0xfaff) ||
                   (c >= 0xfe30 && c <= 0xfe6f) || (c >= 0xff00 && c <= 0xff60) || (c >= 0xffe0 && c <= 0xffe6) || c >= 0x1f000
               ? 2
               : 1;
}

unsigned terminal_fit(const char *text, unsigned columns, char *out, size_t out_size)
{
    size_t length = strlen(text), used = 0;
    unsigned cells = 0;
    while (length > 0 && out_size > 0) {
        uint32_t c = 0;
        size_t size = text_utf8_decode(text, length, &c);
        bool blank = size == 0 || !text_is_showable(c);
        unsigned more = blank ? 1 : cells_of(c);
        size = size ? size : 1;
        size_t bytes = blank ? 1 : size;
        if (cells + more > columns || used + bytes >= out_size)
            break;
        memcpy(out + used, blank ? " " : text, bytes);
        used += bytes;
        cells += more;
        text += size;
        length -= size;
    }
    if (out_size > 0)
        out[used] = 0;
    return cells;
}

static bool progress_shown;

void terminal_progress(const char *format, ...)
{
    if (!shows_escapes(STDERR_FILENO))
        return;
    char text[PROGRESS_BYTES_MAX], line[PROGRESS_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    terminal_fit(text, terminal_columns(STDERR_FILENO) - 1, line, sizeof line);
    fprintf(stderr, "\r%s\x1b[K", line);
    fflush(stderr);
    progress_shown = true;
}

void terminal_progress_end(void)
{
    if (!progress_shown)
        return;
    fputs("\r\x1b[K", stderr);
    fflush(stderr);
    progress_shown = false;
}
