/* The values of a configuration: read by number of setting, compared, shown. */
#include "config/config_value.h"

#include <string.h>

#include "config/settings.h"

_Static_assert(sizeof(enum config_durability) == sizeof(unsigned), "an enum field is an unsigned");

void *config_field(const struct config *config, enum config_setting setting)
{
    return (char *)config + settings_rows[setting].offset;
}

size_t config_list_split(const char *text, size_t length, struct config_item items[CONFIG_LIST_MAX + 1])
{
    size_t count = 0;
    const char *end = text + length;
    while (length && count <= CONFIG_LIST_MAX) {
        const char *comma = memchr(text, ',', (size_t)(end - text));
        const char *stop = comma ? comma : end;
        const char *first = text, *last = stop;
        while (first < last && *first == ' ')
            first++;
        while (first < last && last[-1] == ' ')
            last--;
        items[count++] = (struct config_item){first, (size_t)(last - first)};
        if (!comma)
            break;
        text = comma + 1;
    }
    return count;
}

static union value value_of(const struct config *config, enum config_setting setting)
{
    const void *field = config_field(config, setting);
    union value value = {0};
    switch (settings_rows[setting].type.kind) {
    case VALUE_BOOL:
        value.boolean = *(const bool *)field;
        break;
    case VALUE_INT:
        value.integer = *(const uint32_t *)field;
        break;
    case VALUE_NUMBER:
        value.number = *(const double *)field;
        break;
    case VALUE_SIZE:
        value.size = *(const uint64_t *)field;
        break;
    case VALUE_WORD:
        memcpy(&value.word, field, sizeof value.word);
        break;
    case VALUE_COUNT: /* no setting is one */
    case VALUE_TEXT:
    case VALUE_LIST:
        break;
    }
    return value;
}

static bool scalars_equal(enum value_kind kind, union value a, union value b)
{
    switch (kind) {
    case VALUE_BOOL:
        return a.boolean == b.boolean;
    case VALUE_INT:
        return a.integer == b.integer;
    case VALUE_NUMBER:
        return a.number == b.number;
    case VALUE_SIZE:
        return a.size == b.size;
    case VALUE_WORD:
        return a.word == b.word;
    case VALUE_COUNT:
    case VALUE_TEXT:
    case VALUE_LIST:
        break;
    }
    return false;
}

const char *config_text(const struct config *config, enum config_setting setting)
{
    return *(const char *const *)config_field(config, setting);
}

static const struct config_list *list_of(const struct config *config, enum config_setting setting)
{
    return config_field(config, setting);
}

bool config_values_equal(const struct config *a, const struct config *b, enum config_setting setting)
{
    enum value_kind kind = settings_rows[setting].type.kind;
    if (kind == VALUE_TEXT)
        return strcmp(config_text(a, setting), config_text(b, setting)) == 0;
    if (kind != VALUE_LIST)
        return scalars_equal(kind, value_of(a, setting), value_of(b, setting));
    const struct config_list *first = list_of(a, setting), *second = list_of(b, setting);
    bool equal = first->count == second->count;
    for (size_t i = 0; equal && i < first->count; i++)
        equal = strcmp(first->items[i], second->items[i]) == 0;
    return equal;
}

size_t config_diff(const struct config *before, const struct config *after, enum config_setting changed[CONFIG_SETTING_COUNT])
{
    size_t count = 0;
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++)
        if (!config_values_equal(before, after, (enum config_setting)i))
            changed[count++] = (enum config_setting)i;
    return count;
}

bool config_setting_reloads(enum config_setting setting)
{
    return settings_rows[setting].effect == CONFIG_EFFECT_RELOAD;
}

const char *config_setting_path(enum config_setting setting)
{
    return settings_rows[setting].path;
}

bool config_is_initial(const struct config *config, enum config_setting setting)
{
    const struct settings_row *row = &settings_rows[setting];
    size_t length = strlen(row->initial);
    if (row->type.kind == VALUE_TEXT)
        return strcmp(config_text(config, setting), row->initial) == 0;
    if (row->type.kind == VALUE_LIST) {
        const struct config_list *list = list_of(config, setting);
        struct config_item items[CONFIG_LIST_MAX + 1];
        bool equal = config_list_split(row->initial, length, items) == list->count;
        for (size_t i = 0; equal && i < list->count; i++)
            equal = strlen(list->items[i]) == items[i].length && memcmp(list->items[i], items[i].text, items[i].length) == 0;
        return equal;
    }
    union value initial = {0};
    char unused[VALUE_MESSAGE_MAX];
    return value_parse(&row->type, row->initial, length, &initial, unused) == 0 &&
           scalars_equal(row->type.kind, initial, value_of(config, setting));
}

int config_value_write(const struct config *config, enum config_setting setting, struct buffer *out)
{
    const struct value_type *type = &settings_rows[setting].type;
    if (type->form == VALUE_HIDDEN)
        return buffer_append_text(out, *config_text(config, setting) ? "(hidden)" : "");
    if (type->kind == VALUE_TEXT)
        return buffer_append_text(out, config_text(config, setting));
    if (type->kind == VALUE_LIST) {
        const struct config_list *list = list_of(config, setting);
        int error = 0;
        for (size_t i = 0; i < list->count && !error; i++)
            error = buffer_printf(out, "%s%s", i ? ", " : "", list->items[i]);
        return error;
    }
    union value value = value_of(config, setting);
    return value_write(type, &value, out);
}

int config_value_write_json(const struct config *config, enum config_setting setting, struct buffer *out)
{
    const struct value_type *type = &settings_rows[setting].type;
    if (type->kind == VALUE_SIZE)
        return buffer_printf(out, "%llu", (unsigned long long)value_of(config, setting).size);
    if (type->kind == VALUE_BOOL || type->kind == VALUE_INT || type->kind == VALUE_NUMBER)
        return config_value_write(config, setting, out);
    if (type->kind == VALUE_LIST) {
        const struct config_list *list = list_of(config, setting);
        int error = buffer_append_text(out, "[");
        for (size_t i = 0; i < list->count && !error; i++) {
            error = i ? buffer_append_text(out, ", ") : 0;
            if (!error)
                error = buffer_append_json_string(out, list->items[i], strlen(list->items[i]), 0);
        }
        return error ? error : buffer_append_text(out, "]");
    }
    struct buffer text;
    buffer_init(&text, SIZE_MAX);
    int error = config_value_write(config, setting, &text);
    if (!error)
        error = buffer_append_json_string(out, text.length ? (const char *)text.data : "", text.length, 0);
    buffer_fini(&text);
    return error;
}
