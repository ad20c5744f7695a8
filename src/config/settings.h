/* The table of settings.def as data: look-up by path, suggestions, names of environment variables. Pure. */
#ifndef CONFIG_SETTINGS_H
#define CONFIG_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "config/value.h"

enum { SETTINGS_PATH_MAX = 160 }; /* bytes of a path or variable name, with its zero */

struct settings_row {
    const char *path;
    const char *initial; /* as a user would write it */
    const char *help;
    struct value_type type;
    enum config_effect effect;
    size_t offset; /* of the field in struct config */
};
extern const struct settings_row settings_rows[CONFIG_SETTING_COUNT];

struct settings_section {
    const char *path, *help;
};
extern const struct settings_section settings_sections[];
extern const size_t settings_section_count;

/* Another path, or another environment variable, of a setting. */
struct settings_alias {
    const char *name;
    enum config_setting setting;
};
extern const struct settings_alias settings_aliases[], settings_variables[];
extern const size_t settings_alias_count, settings_variable_count;

/* Accepted and never read. */
struct settings_ignored {
    const char *path, *help;
};
extern const struct settings_ignored settings_ignored[];
extern const size_t settings_ignored_count;

/* What a feature's settings have instead of an effect; NULL for RELOAD, RESTART and UNUSED. */
const char *settings_effect_feature(enum config_effect effect);

enum settings_kind { SETTINGS_UNKNOWN, SETTINGS_SECTION, SETTINGS_SETTING, SETTINGS_IGNORED };

struct settings_match {
    enum settings_kind kind;
    enum config_setting setting;            /* SETTING */
    const struct settings_ignored *ignored; /* IGNORED */
};

/* Looks a path up as it is written, by whichever of its names. "" is the section that holds all others. */
struct settings_match settings_find(const char *path);

/* What was meant by an unknown `key` within `section`: a key of that section, or the whole path of a setting elsewhere. NULL when
 * nothing is near. The text is static or in `text`. */
const char *settings_suggest_key(const char *section, const char *key, char text[SETTINGS_PATH_MAX]);

/* What was meant by an unknown path. */
const char *settings_suggest_path(const char *path);

/* "SPINDLE_BUS_PORT" for "bus.port". */
void settings_variable_name(const char *path, char name[SETTINGS_PATH_MAX]);

/* The setting of an environment variable, by whichever of its names. Returns false when it belongs to none. */
bool settings_find_variable(const char *name, enum config_setting *setting);

/* Whether an unknown variable begins as those of a section do: SPINDLE_BUS_..., SPINDLE_MQTT_LISTENER_... */
bool settings_is_variable_like(const char *name);

/* What was meant by an unknown SPINDLE_... variable; NULL when nothing is near. */
const char *settings_suggest_variable(const char *name, char text[SETTINGS_PATH_MAX]);

#endif
