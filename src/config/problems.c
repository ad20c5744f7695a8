#include "config/problems.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/terminal.h"
#include "base/text.h"

void problems_init(struct problems *problems)
{
    problems->count = problems->errors = problems->remarks = problems->left_out = 0;
}

void problems_fini(struct problems *problems)
{
    for (size_t i = 0; i < problems->count; i++) {
        free((char *)problems->items[i].place.source);
        free(problems->items[i].text);
    }
    problems_init(problems);
}

void problems_add(struct problems *problems, enum problem_severity severity, struct place place, const char *format, ...)
{
    size_t *found = severity == PROBLEM_ERROR ? &problems->errors : &problems->remarks;
    if ((*found)++ >= PROBLEMS_MAX) {
        problems->left_out++;
        return;
    }
    char *text = NULL;
    char *source = place.source ? strdup(place.source) : NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0 || (place.source && !source)) {
        if (length >= 0)
            free(text);
        free(source);
        problems->left_out++;
        return;
    }
    place.source = source;
    problems->items[problems->count++] = (struct problem){.severity = severity, .place = place, .text = text};
}

enum { PROBLEM_LINE_MAX = 1 << 20 };

static bool stands_before(const struct place *a, const struct place *b)
{
    if (a->line == 0 || b->line == 0)
        return a->line > b->line;
    return a->line != b->line ? a->line < b->line : a->column < b->column;
}

void problems_sort(struct problems *problems)
{
    for (size_t i = 1; i < problems->count; i++) {
        struct problem moving = problems->items[i];
        size_t j = i;
        for (; j > 0 && stands_before(&moving.place, &problems->items[j - 1].place); j--)
            problems->items[j] = problems->items[j - 1];
        problems->items[j] = moving;
    }
}

const char *problem_severity_word(enum problem_severity severity)
{
    static const char *const words[] = {"error", "warning", "note"};
    return words[severity];
}

int problem_write(const struct problem *problem, struct buffer *out)
{
    int error = 0;
    if (problem->place.source)
        error = buffer_append_text(out, problem->place.source);
    if (problem->place.line && !error)
        error = buffer_printf(out, ":%u:%u", problem->place.line, problem->place.column);
    if (problem->place.source && !error)
        error = buffer_append_text(out, ": ");
    if (problem->severity != PROBLEM_ERROR && !error)
        error = buffer_printf(out, "%s: ", problem_severity_word(problem->severity));
    return error ? error : buffer_append_text(out, problem->text);
}

int problems_write(const struct problems *problems, struct buffer *out)
{
    int error = 0;
    for (size_t i = 0; i < problems->count && !error; i++) {
        error = problem_write(&problems->items[i], out);
        if (!error)
            error = buffer_append_text(out, "\n");
    }
    if (problems->left_out && !error)
        error = buffer_printf(out, "... and %zu more\n", problems->left_out);
    return error;
}

void problems_print(const struct problems *problems, FILE *file)
{
    static const enum terminal_style styles[] = {TERMINAL_RED, TERMINAL_YELLOW, TERMINAL_DIM};
    int fd = fileno(file);
    struct buffer line;
    buffer_init(&line, PROBLEM_LINE_MAX);
    for (size_t i = 0; i < problems->count; i++) {
        const struct problem *problem = &problems->items[i];
        buffer_clear(&line);
        if (problem_write(problem, &line) == 0)
            fprintf(file, "%s%.*s%s\n", terminal_style(fd, styles[problem->severity]), (int)line.length, (const char *)line.data,
                    terminal_style(fd, TERMINAL_PLAIN));
    }
    if (problems->left_out)
        fprintf(file, "... and %zu more\n", problems->left_out);
    buffer_fini(&line);
}

struct problem_quoted problem_quote(const char *text, size_t length)
{
    static const char ellipsis[] = "...`";
    struct problem_quoted quoted;
    size_t used = 0;
    quoted.text[used++] = '`';
    while (length > 0) {
        uint32_t code_point = 0;
        size_t size = text_utf8_decode(text, length, &code_point);
        bool shown = size > 0 && text_is_showable(code_point);
        size_t needed = shown ? size : 4;
        if (used + needed + sizeof ellipsis > sizeof quoted.text) {
            memcpy(quoted.text + used, ellipsis, sizeof ellipsis);
            return quoted;
        }
        size = size && shown ? size : 1;
        if (shown)
            memcpy(quoted.text + used, text, size);
        else
            snprintf(quoted.text + used, 5, "\\x%02x", (unsigned)(unsigned char)*text);
        used += needed;
        text += size;
        length -= size;
    }
    quoted.text[used++] = '`';
    quoted.text[used] = 0;
    return quoted;
}
