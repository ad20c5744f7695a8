/* Diagnostics: what the program tells its operator, on standard error. (The journal is data; this is talk.)
 *
 * One line an event: time, level, module, text, then key=value fields; or one JSON object a line. Thread-safe; a line is
 * written with one write(2). Each call site of DIAG_LIMITED speaks at most once a second and says how often it was muted. */
#ifndef BASE_DIAGNOSTICS_H
#define BASE_DIAGNOSTICS_H

#include <stdbool.h>
#include <stdint.h>

enum diagnostics_level { DIAGNOSTICS_DEBUG, DIAGNOSTICS_INFO, DIAGNOSTICS_WARNING, DIAGNOSTICS_ERROR };

/* Both may be called again at any time. */
void diagnostics_set_level(enum diagnostics_level level);
void diagnostics_set_json(bool json);
bool diagnostics_enabled(enum diagnostics_level level);

/* Writes one line. `module` is the folder's name. */
void diagnostics(enum diagnostics_level level, const char *module, const char *format, ...) __attribute__((format(printf, 3, 4)));

struct diagnostics_limit {
    uint64_t next_ns; /* monotonic time from which it may speak again */
    uint64_t muted;
};
/* Whether the site may speak now; *muted gets how many lines were left out since it last spoke. */
bool diagnostics_limit_pass(struct diagnostics_limit *limit, uint64_t *muted);

/* As diagnostics(), and says at the end of the line how many similar ones were left out before it, if any. */
void diagnostics_after(uint64_t muted, enum diagnostics_level level, const char *module, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#define DIAG_LIMITED(level, module, ...)                                                                                                   \
    do {                                                                                                                                   \
        static struct diagnostics_limit diag_limit_;                                                                                       \
        uint64_t diag_muted_;                                                                                                              \
        if (diagnostics_limit_pass(&diag_limit_, &diag_muted_))                                                                            \
            diagnostics_after(diag_muted_, level, module, __VA_ARGS__);                                                                    \
    } while (0)

#endif
