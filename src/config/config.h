/* The configuration: one field per row of settings.def, and where each value came from.
 *
 * A value is taken from, each before the next: the command line, the environment, the file, the table. */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/version.h"
#include "config/problems.h"

/* enum config_durability { CONFIG_DURABILITY_DISK, ... } and so on */
/* clang-format off */
#define WORDS(group)                enum config_##group {
#define WORD(group, id, word, help)     CONFIG_##group##_##id,
#define WORDS_END(group)            };
/* clang-format on */
#include "config/settings.def"

enum config_setting {
#define BOOL(field, path, initial, effect, help)                   CONFIG_SETTING_##field,
#define INT(field, path, initial, min, max, effect, help)          CONFIG_SETTING_##field,
#define NUMBER(field, path, initial, min, max, unit, effect, help) CONFIG_SETTING_##field,
#define SIZE(field, path, initial, min, max, effect, help)         CONFIG_SETTING_##field,
#define TEXT(field, path, initial, effect, help)                   CONFIG_SETTING_##field,
#define CHOICE(field, path, group, initial, effect, help)          CONFIG_SETTING_##field,
#define LIST(field, path, initial, effect, help)                   CONFIG_SETTING_##field,
#include "config/settings.def"
    CONFIG_SETTING_COUNT
};

enum config_effect {
    CONFIG_EFFECT_RELOAD,
    CONFIG_EFFECT_RESTART,
    CONFIG_EFFECT_UNUSED,
#define FEATURE(id, text) CONFIG_EFFECT_##id,
#include "config/settings.def"
    CONFIG_EFFECT_COUNT
};

struct config_list {
    const char *const *items; /* [count] */
    size_t count;
};

enum { CONFIG_LIST_MAX = 32 }; /* items of a list */

enum config_source { CONFIG_FROM_TABLE, CONFIG_FROM_FILE, CONFIG_FROM_ENVIRONMENT, CONFIG_FROM_ARGUMENT };

struct config_origin {
    enum config_source source;
    struct place place; /* the file and where in it; or the variable; or the option. Its text lives as long as the config */
};

struct config {
#define BOOL(field, path, initial, effect, help)                   bool field;
#define INT(field, path, initial, min, max, effect, help)          uint32_t field;
#define NUMBER(field, path, initial, min, max, unit, effect, help) double field;
#define SIZE(field, path, initial, min, max, effect, help)         uint64_t field;
#define TEXT(field, path, initial, effect, help)                   const char *field;
#define CHOICE(field, path, group, initial, effect, help)          enum config_##group field;
#define LIST(field, path, initial, effect, help)                   struct config_list field;
#include "config/settings.def"
    struct config_origin origins[CONFIG_SETTING_COUNT];
    struct config_block *blocks; /* memory behind the texts */
};

/* One setting from the command line. */
struct config_assignment {
    const char *option; /* as given, for messages: "--set", "--port" */
    const char *path;   /* NULL: `text` is "path=value" */
    const char *text;
};

struct config_sources {
    const char *file;                            /* NULL: none */
    const char *const *environment;              /* "NAME=value" each, ended by NULL; may be NULL */
    const struct config_assignment *assignments; /* [assignment_count] */
    size_t assignment_count;
};

/* Reads all sources. All mistakes are found in one run, and stand in `problems` with warnings (settings of features that this version
 * lacks) and notes (settings without effect), in the order of the file. Returns 0 with *config to give to config_fini; ERR_CONFIG when
 * there was a mistake; ERR_NO_MEMORY. */
int config_load(struct config *config, const struct config_sources *sources, struct problems *problems);

/* The same with the file's content in `bytes`; sources->file is its name. Pure. */
int config_load_bytes(struct config *config, const struct config_sources *sources, const uint8_t *bytes, size_t length,
                      struct problems *problems);

void config_fini(struct config *config);

/* Which settings have different values: fills changed[] and returns how many. */
size_t config_diff(const struct config *before, const struct config *after, enum config_setting changed[CONFIG_SETTING_COUNT]);

/* Whether a running Spindle takes a new value of the setting over. */
bool config_setting_reloads(enum config_setting setting);

const char *config_setting_path(enum config_setting setting);

/* Whether the value is the one of the table. */
bool config_is_initial(const struct config *config, enum config_setting setting);

/* Appends the value as it would be written; secrets as "(hidden)". */
int config_value_write(const struct config *config, enum config_setting setting, struct buffer *out);

/* Appends the value as JSON. */
int config_value_write_json(const struct config *config, enum config_setting setting, struct buffer *out);

/* Seconds of a setting in nanoseconds. */
static inline uint64_t config_ns(double seconds)
{
    return (uint64_t)(seconds * 1e9 + 0.5);
}

#endif
