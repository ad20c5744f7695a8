/* What config.c and config_value.c share: fields by number of setting instead of by name. */
#ifndef CONFIG_CONFIG_VALUE_H
#define CONFIG_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"

/* The field of a setting; its type is that of the row's kind. */
void *config_field(const struct config *config, enum config_setting setting);

/* The field of a TEXT. */
const char *config_text(const struct config *config, enum config_setting setting);

bool config_values_equal(const struct config *a, const struct config *b, enum config_setting setting);

struct config_item {
    const char *text; /* borrowed; not zero-terminated */
    size_t length;
};

/* Cuts "a, b,c" into its items, without the spaces around them. Returns how many there are, at most CONFIG_LIST_MAX + 1. */
size_t config_list_split(const char *text, size_t length, struct config_item items[CONFIG_LIST_MAX + 1]);

#endif
