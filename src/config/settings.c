#include "config/settings.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

/* ---- the table ---- */

/* A static array of words for each group. */
/* clang-format off */
#define WORDS(group)                static const struct value_word words_of_##group[] = {
#define WORD(group, id, word, help)     {word, help},
#define WORDS_END(group)                {NULL, NULL}};
/* clang-format on */
#include "config/settings.def"

#define KIB VALUE_KIB
#define MIB VALUE_MIB
#define GIB VALUE_GIB

#define ROW(field, path, initial, effect, help, ...)                                                                                       \
    {path, initial, help, {__VA_ARGS__}, CONFIG_EFFECT_##effect, offsetof(struct config, field)},

const struct settings_row settings_rows[CONFIG_SETTING_COUNT] = {
#define BOOL(field, path, initial, effect, help) ROW(field, path, initial, effect, help, .kind = VALUE_BOOL)
#define INT(field, path, initial, low, high, effect, help)                                                                                 \
    ROW(field, path, initial, effect, help, .kind = VALUE_INT, .min = low, .max = high)
#define NUMBER(field, path, initial, low, high, in, effect, help)                                                                          \
    ROW(field, path, initial, effect, help, .kind = VALUE_NUMBER, .min = low, .max = high, .unit = in)
#define SIZE(field, path, initial, low, high, effect, help)                                                                                \
    ROW(field, path, initial, effect, help, .kind = VALUE_SIZE, .min = low, .max = high)
#define TEXT(field, path, initial, effect, help)   ROW(field, path, initial, effect, help, .kind = VALUE_TEXT)
#define NAME(field, path, initial, effect, help)   ROW(field, path, initial, effect, help, .kind = VALUE_TEXT, .form = VALUE_NOT_EMPTY)
#define TOPIC(field, path, initial, effect, help)  ROW(field, path, initial, effect, help, .kind = VALUE_TEXT, .form = VALUE_TOPIC_LEVELS)
#define SECRET(field, path, initial, effect, help) ROW(field, path, initial, effect, help, .kind = VALUE_TEXT, .form = VALUE_HIDDEN)
#define LIST(field, path, initial, effect, help)   ROW(field, path, initial, effect, help, .kind = VALUE_LIST, .form = VALUE_NOT_EMPTY)
#define CHOICE(field, path, group, initial, effect, help)                                                                                  \
    ROW(field, path, initial, effect, help, .kind = VALUE_WORD, .words = words_of_##group)
#include "config/settings.def"
};

const struct settings_section settings_sections[] = {
#define SECTION(path, help) {path, help},
#include "config/settings.def"
};
const size_t settings_section_count = sizeof settings_sections / sizeof *settings_sections;

const struct settings_alias settings_aliases[] = {
#define ALIAS(path, field) {path, CONFIG_SETTING_##field},
#include "config/settings.def"
};
const size_t settings_alias_count = sizeof settings_aliases / sizeof *settings_aliases;

const struct settings_alias settings_variables[] = {
#define ENVIRONMENT(name, field) {name, CONFIG_SETTING_##field},
#include "config/settings.def"
};
const size_t settings_variable_count = sizeof settings_variables / sizeof *settings_variables;

const struct settings_ignored settings_ignored[] = {
#define IGNORED(path, help) {path, help},
#include "config/settings.def"
};
const size_t settings_ignored_count = sizeof settings_ignored / sizeof *settings_ignored;

static const struct {
    const char *path, *target;
} renamed_sections[] = {
#define RENAMED(path, target) {path, target},
#include "config/settings.def"
};
enum { RENAMED_COUNT = sizeof renamed_sections / sizeof *renamed_sections };

const char *settings_effect_feature(enum config_effect effect)
{
    switch (effect) {
#define FEATURE(id, text)                                                                                                                  \
    case CONFIG_EFFECT_##id:                                                                                                               \
        return text;
#include "config/settings.def"
    default:
        return NULL;
    }
}

/* ---- look-up ---- */

/* The part of `path` below `section`, or NULL when it is not below it. Everything is below "". */
static const char *below(const char *path, const char *section)
{
    size_t length = strlen(section);
    if (length == 0)
        return path;
    return strncmp(path, section, length) == 0 && path[length] == '.' ? path + length + 1 : NULL;
}

/* The path by which the table knows it. */
static void canonical_path(const char *path, char out[SETTINGS_PATH_MAX])
{
    for (size_t i = 0; i < RENAMED_COUNT; i++) {
        const char *rest = below(path, renamed_sections[i].path);
        if (rest)
            snprintf(out, SETTINGS_PATH_MAX, "%s.%s", renamed_sections[i].target, rest);
        else if (strcmp(path, renamed_sections[i].path) == 0)
            snprintf(out, SETTINGS_PATH_MAX, "%s", renamed_sections[i].target);
        else
            continue;
        return;
    }
    snprintf(out, SETTINGS_PATH_MAX, "%s", path);
}

struct settings_match settings_find(const char *path)
{
    char known[SETTINGS_PATH_MAX];
    if (strlen(path) >= SETTINGS_PATH_MAX / 2)
        return (struct settings_match){.kind = SETTINGS_UNKNOWN};
    canonical_path(path, known);
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++)
        if (strcmp(settings_rows[i].path, known) == 0)
            return (struct settings_match){.kind = SETTINGS_SETTING, .setting = (enum config_setting)i};
    for (size_t i = 0; i < settings_alias_count; i++)
        if (strcmp(settings_aliases[i].name, known) == 0)
            return (struct settings_match){.kind = SETTINGS_SETTING, .setting = settings_aliases[i].setting};
    for (size_t i = 0; i < settings_ignored_count; i++)
        if (strcmp(settings_ignored[i].path, known) == 0)
            return (struct settings_match){.kind = SETTINGS_IGNORED, .ignored = &settings_ignored[i]};
    bool section = known[0] == 0;
    for (size_t i = 0; i < settings_section_count && !section; i++)
        section = strcmp(settings_sections[i].path, known) == 0;
    return (struct settings_match){.kind = section ? SETTINGS_SECTION : SETTINGS_UNKNOWN};
}

/* ---- suggestions ---- */

enum { KEYS_MAX = 64 };
struct keys {
    char texts[KEYS_MAX][SETTINGS_PATH_MAX];
    const char *words[KEYS_MAX];
    size_t count;
};

/* Adds the key of `section` on the way to `path`. */
static void keys_add(struct keys *keys, const char *section, const char *path)
{
    const char *rest = below(path, section);
    if (!rest || keys->count == KEYS_MAX)
        return;
    char *key = keys->texts[keys->count];
    snprintf(key, SETTINGS_PATH_MAX, "%.*s", (int)strcspn(rest, "."), rest);
    for (size_t i = 0; i < keys->count; i++)
        if (strcmp(keys->texts[i], key) == 0)
            return;
    keys->words[keys->count++] = key;
}

static const char *leaf_of(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

const char *settings_suggest_key(const char *section, const char *key, char text[SETTINGS_PATH_MAX])
{
    struct keys keys = {.count = 0};
    char known[SETTINGS_PATH_MAX];
    canonical_path(section, known);
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++)
        keys_add(&keys, known, settings_rows[i].path);
    for (size_t i = 0; i < settings_alias_count; i++)
        keys_add(&keys, known, settings_aliases[i].name);
    for (size_t i = 0; i < RENAMED_COUNT; i++)
        keys_add(&keys, known, renamed_sections[i].path);
    const char *meant = text_suggest(key, keys.words, keys.count);
    if (meant) {
        snprintf(text, SETTINGS_PATH_MAX, "%s", meant);
        return text;
    }
    return settings_suggest_path(key);
}

const char *settings_suggest_path(const char *path)
{
    const char *words[CONFIG_SETTING_COUNT];
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++)
        words[i] = settings_rows[i].path;
    if (strchr(path, '.')) {
        const char *meant = text_suggest(path, words, CONFIG_SETTING_COUNT);
        if (meant)
            return meant;
    }
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++)
        words[i] = leaf_of(settings_rows[i].path);
    const char *leaf = text_suggest(leaf_of(path), words, CONFIG_SETTING_COUNT);
    for (int i = 0; i < CONFIG_SETTING_COUNT && leaf; i++)
        if (words[i] == leaf)
            return settings_rows[i].path;
    return NULL;
}

/* ---- environment variables ---- */

static const char variable_prefix[] = "SPINDLE_";

void settings_variable_name(const char *path, char name[SETTINGS_PATH_MAX])
{
    snprintf(name, SETTINGS_PATH_MAX, "%s%s", variable_prefix, path);
    for (char *c = name; *c; c++)
        *c = (char)(*c == '.' ? '_' : *c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
}

/* The variable by which the table knows it: SPINDLE_HIGH_THROUGHPUT_X is SPINDLE_MQTT_HIGH_THROUGHPUT_X. */
static void canonical_variable(const char *name, char out[SETTINGS_PATH_MAX])
{
    for (size_t i = 0; i < RENAMED_COUNT; i++) {
        char from[SETTINGS_PATH_MAX], to[SETTINGS_PATH_MAX / 2];
        settings_variable_name(renamed_sections[i].path, from);
        size_t length = strlen(from);
        if (strncmp(name, from, length) != 0 || name[length] != '_')
            continue;
        settings_variable_name(renamed_sections[i].target, from);
        snprintf(to, sizeof to, "%s", from);
        snprintf(out, SETTINGS_PATH_MAX, "%s%.*s", to, SETTINGS_PATH_MAX / 2, name + length);
        return;
    }
    snprintf(out, SETTINGS_PATH_MAX, "%s", name);
}

bool settings_find_variable(const char *name, enum config_setting *setting)
{
    char known[SETTINGS_PATH_MAX], row[SETTINGS_PATH_MAX];
    if (strlen(name) >= SETTINGS_PATH_MAX / 2)
        return false;
    canonical_variable(name, known);
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++) {
        settings_variable_name(settings_rows[i].path, row);
        if (strcmp(row, known) == 0) {
            *setting = (enum config_setting)i;
            return true;
        }
    }
    for (size_t i = 0; i < settings_alias_count; i++) {
        settings_variable_name(settings_aliases[i].name, row);
        if (strcmp(row, known) == 0) {
            *setting = settings_aliases[i].setting;
            return true;
        }
    }
    for (size_t i = 0; i < settings_variable_count; i++) {
        if (strcmp(settings_variables[i].name, name) == 0) {
            *setting = settings_variables[i].setting;
            return true;
        }
    }
    return false;
}

bool settings_is_variable_like(const char *name)
{
    char known[SETTINGS_PATH_MAX], section[SETTINGS_PATH_MAX];
    if (strlen(name) >= SETTINGS_PATH_MAX / 2)
        return false;
    canonical_variable(name, known);
    for (size_t i = 0; i < settings_section_count; i++) {
        settings_variable_name(settings_sections[i].path, section);
        size_t length = strlen(section);
        if (strncmp(known, section, length) == 0 && known[length] == '_')
            return true;
    }
    return false;
}

const char *settings_suggest_variable(const char *name, char text[SETTINGS_PATH_MAX])
{
    static const size_t prefix = sizeof variable_prefix - 1;
    if (strncmp(name, variable_prefix, prefix) != 0)
        return NULL;
    char names[CONFIG_SETTING_COUNT][SETTINGS_PATH_MAX];
    const char *words[CONFIG_SETTING_COUNT];
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++) {
        settings_variable_name(settings_rows[i].path, names[i]);
        words[i] = names[i] + prefix;
    }
    const char *meant = text_suggest(name + prefix, words, CONFIG_SETTING_COUNT);
    if (!meant)
        return NULL;
    snprintf(text, SETTINGS_PATH_MAX, "%s%s", variable_prefix, meant);
    return text;
}
