#include "base/diagnostics.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"

enum { DIAGNOSTICS_LINE_MAX = 8192 };

static const char *const level_names[] = {"debug", "info", "warning", "error"};
static atomic_int current_level = DIAGNOSTICS_INFO;
static atomic_bool as_json;

void diagnostics_set_level(enum diagnostics_level level)
{
    atomic_store(&current_level, (int)level);
}

void diagnostics_set_json(bool json)
{
    atomic_store(&as_json, json);
}

bool diagnostics_enabled(enum diagnostics_level level)
{
    return (int)level >= atomic_load_explicit(&current_level, memory_order_relaxed);
}

static void write_line(enum diagnostics_level level, const char *module, uint64_t muted, const char *format, va_list arguments)
{
    if (!diagnostics_enabled(level))
        return;
    enum { MUTED_TEXT_MAX = 64 };
    char text[DIAGNOSTICS_LINE_MAX / 2];
    vsnprintf(text, sizeof text - MUTED_TEXT_MAX, format, arguments);
    size_t length = strlen(text);
    if (muted)
        snprintf(text + length, sizeof text - length, " (%" PRIu64 " similar line%s muted)", muted, muted == 1 ? " was" : "s were");
    char time_text[CLOCK_TEXT_SIZE];
    clock_wall_text(clock_wall_ns(), time_text);
    struct buffer line;
    buffer_init(&line, DIAGNOSTICS_LINE_MAX * 4);
    if (atomic_load(&as_json)) {
        buffer_printf(&line, "{\"time\":\"%s\",\"level\":\"%s\",\"module\":\"%s\",\"text\":", time_text, level_names[level], module);
        buffer_append_json_string(&line, text, strlen(text), 0);
        buffer_append_text(&line, "}\n");
    } else {
        buffer_printf(&line, "%s %-7s %s: ", time_text, level_names[level], module);
        buffer_append_showable(&line, text, strlen(text)); /* one event stays one line, and nothing that a peer has sent is a command */
        buffer_append_text(&line, "\n");
    }
    ssize_t ignored = write(STDERR_FILENO, line.data, line.length);
    (void)ignored;
    buffer_fini(&line);
}

void diagnostics(enum diagnostics_level level, const char *module, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_line(level, module, 0, format, arguments);
    va_end(arguments);
}

void diagnostics_after(uint64_t muted, enum diagnostics_level level, const char *module, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_line(level, module, muted, format, arguments);
    va_end(arguments);
}

bool diagnostics_limit_pass(struct diagnostics_limit *limit, uint64_t *muted)
{
    uint64_t now = clock_monotonic_ns();
    uint64_t next = __atomic_load_n(&limit->next_ns, __ATOMIC_RELAXED);
    if (now < next || !__atomic_compare_exchange_n(&limit->next_ns, &next, now + 1000000000u, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        __atomic_add_fetch(&limit->muted, 1, __ATOMIC_RELAXED);
        return false;
    }
    *muted = __atomic_exchange_n(&limit->muted, 0, __ATOMIC_RELAXED);
    return true;
}
