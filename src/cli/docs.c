/* docs/configuration.md and docs/commands.md. The manual page is in man.c. */
#include "cli/docs.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/command.h"
#include "config/settings.h"

enum { DOCS_BYTES_MAX = 1 << 20 };

/* ---- settings ---- */

static const char configuration_opening[] =
    "<!-- Made by `spindle docs configuration` from src/config/settings.def. Change it there. -->\n"
    "# Configuration\n"
    "\n"
    "`spindle run` needs no file: every setting has a default that works. With `-c FILE` it reads one YAML file. The file of the replaced "
    "system,\n"
    "`mqtt_conf.yaml`, is one too, as it is.\n"
    "\n"
    "```yaml\n"
    "bus:\n"
    "  port: 1883\n"
    "data:\n"
    "  dir: /var/lib/spindle\n"
    "drilling:\n"
    "  estimator: gradient\n"
    "```\n"
    "\n"
    "`spindle check -c FILE` says what is wrong with a file, with line and column and the word that was probably meant, and what differs "
    "from the\n"
    "defaults. `spindle run` refuses to start with a file that has a mistake.\n"
    "\n"
    "## Where a value comes from\n"
    "\n"
    "The first of these that has it:\n"
    "\n"
    "1. the command line: `--set drilling.estimator=gradient`, or an option that stands for a setting (`--port 1884`);\n"
    "2. the environment: the path in capitals with `_` for `.`, behind `SPINDLE_`: `SPINDLE_DRILLING_ESTIMATOR=gradient`. An empty "
    "variable counts as\n"
    "   not set. ";
static const char configuration_values[] =
    "\n"
    "3. the file;\n"
    "4. the default.\n"
    "\n"
    "A setting that has several names (`http.port` is also `high_throughput.monitoring.port`) may be given under one of them, or under "
    "several "
    "that\n"
    "say the same: two that differ in the file, or in the environment, are a mistake.\n"
    "\n"
    "A variable whose name begins with `SPINDLE_` and a section, or is nearly that of a setting, but belongs to none, is a mistake, as an "
    "unknown key\n"
    "of the file is; about any other `SPINDLE_` name there is a warning. What Kubernetes sets for services (`SPINDLE_HTTP_SERVICE_HOST`,\n"
    "`SPINDLE_HTTP_PORT=tcp://...`) is passed over.\n"
    "\n"
    "## How values are written\n"
    "\n"
    "- A size is a number of bytes, or has `KiB`, `MiB`, `GiB` or `TiB` behind it: `128MiB`.\n"
    "- A list is a YAML list, or one text with commas: `0.0.0.0, ::`.\n"
    "- `${NAME}` in a value is replaced by that environment variable, `${NAME:-text}` by `text` where it is not set or empty; `$${` is a "
    "plain `${`.\n"
    "- Anchors, aliases, merge keys, tags and more than one document are refused.\n"
    "\n"
    "## Changing a running Spindle\n"
    "\n"
    "At SIGHUP the file is read again. Settings marked *SIGHUP* take their new value; of the others Spindle says that they changed and "
    "need a\n"
    "restart. A file with a mistake changes nothing.\n"
    "\n"
    "## Settings\n"
    "\n"
    "The last column of each table says when a new value counts. *No effect*: accepted from files of the replaced system, never read. *Not "
    "in this\n"
    "version*: accepted and checked; `spindle check` and the start of `spindle run` warn when it differs from its default.\n";

static int write_effect(struct buffer *out, const struct settings_row *row)
{
    switch (row->effect) {
    case CONFIG_EFFECT_RELOAD:
        return buffer_append_text(out, "SIGHUP");
    case CONFIG_EFFECT_RESTART:
        return buffer_append_text(out, "restart");
    case CONFIG_EFFECT_UNUSED:
        return buffer_append_text(out, "no effect");
    default:
        return buffer_append_text(out, "not in this version");
    }
}

/* Text of a table's cell: a `|` would end it. */
static int write_cell(struct buffer *out, const char *text)
{
    int error = 0;
    for (; *text && !error; text++)
        error = *text == '|' ? buffer_append_text(out, "\\|") : buffer_append(out, text, 1);
    return error;
}

static int write_words(struct buffer *out, const struct value_word *words)
{
    int error = 0;
    for (size_t i = 0; words[i].word && !error; i++) {
        error = buffer_printf(out, "<br>`%s`: ", words[i].word);
        error = error ? error : write_cell(out, words[i].help);
    }
    return error;
}

static int write_setting(struct buffer *out, const struct settings_row *row)
{
    char admits[VALUE_MESSAGE_MAX];
    value_describe(&row->type, admits);
    int error = buffer_printf(out, "| `%s` | %s%s%s | ", row->path, *row->initial ? "`" : "", row->initial, *row->initial ? "`" : "");
    error = error ? error : write_cell(out, row->help);
    if (row->type.kind == VALUE_WORD)
        error = error ? error : write_words(out, row->type.words);
    else if (row->type.kind == VALUE_INT || row->type.kind == VALUE_NUMBER || row->type.kind == VALUE_SIZE)
        error = error ? error : buffer_printf(out, " (%s)", admits);
    error = error ? error : buffer_append_text(out, " | ");
    error = error ? error : write_effect(out, row);
    return error ? error : buffer_append_text(out, " |\n");
}

/* Whether a setting stands directly in a section. */
static bool is_in_section(const char *path, const char *section)
{
    size_t length = strlen(section);
    return strncmp(path, section, length) == 0 && path[length] == '.' && !strchr(path + length + 1, '.');
}

static int write_section(struct buffer *out, const struct settings_section *section)
{
    int error = buffer_printf(out, "\n### `%s`\n\n%s\n", section->path, section->help);
    bool first = true;
    for (int i = 0; i < CONFIG_SETTING_COUNT && !error; i++) {
        if (!is_in_section(settings_rows[i].path, section->path))
            continue;
        if (first)
            error = buffer_append_text(out, "\n| setting | default | meaning | new value |\n|---|---|---|---|\n");
        first = false;
        error = error ? error : write_setting(out, &settings_rows[i]);
    }
    return error;
}

static int write_other_names(struct buffer *out)
{
    int error = buffer_append_text(
        out, "\n## Other names\n\n| name | stands for |\n|---|---|\n| section `high_throughput` | `mqtt.high_throughput` |\n");
    for (size_t i = 0; i < settings_alias_count && !error; i++)
        error = buffer_printf(out, "| `%s` | `%s` |\n", settings_aliases[i].name, settings_rows[settings_aliases[i].setting].path);
    return error ? error
                 : buffer_append_text(out, "\nA setting that stands in a file under two of its names with two values is a mistake.\n");
}

static int write_ignored(struct buffer *out)
{
    int error = buffer_append_text(out, "\n## Keys that are accepted and never read\n\n| key | why |\n|---|---|\n");
    for (size_t i = 0; i < settings_ignored_count && !error; i++)
        error = buffer_printf(out, "| `%s` | %s |\n", settings_ignored[i].path, settings_ignored[i].help);
    return error;
}

int docs_configuration_write(struct buffer *out)
{
    int error = buffer_append_text(out, configuration_opening);
    for (size_t i = 0; i < settings_variable_count && !error; i++)
        error = buffer_printf(out, "%s`%s`",
                              i == 0                            ? "Also "
                              : i + 1 < settings_variable_count ? ", "
                                                                : " and ",
                              settings_variables[i].name);
    error = error ? error : buffer_append_text(out, ", as the replaced system has them;");
    error = error ? error : buffer_append_text(out, configuration_values);
    for (size_t i = 0; i < settings_section_count && !error; i++)
        error = write_section(out, &settings_sections[i]);
    error = error ? error : write_other_names(out);
    return error ? error : write_ignored(out);
}

/* ---- commands ---- */

static int write_command_items(struct buffer *out, const struct command *command)
{
    int error = buffer_append_text(out, "| option | meaning |\n|---|---|\n");
    struct buffer text;
    buffer_init(&text, DOCS_BYTES_MAX);
    for (const struct command_item *item = command->items; item->kind != COMMAND_ITEM_END && !error; item++) {
        if (item->kind == COMMAND_ITEM_EXAMPLE)
            continue;
        buffer_clear(&text);
        error = buffer_append_text(out, "| `");
        error = error ? error : command_item_write(item, out);
        error = error ? error : buffer_append_text(out, "` | ");
        error = error ? error : command_item_help_write(item, &text);
        error = error ? error : buffer_text(&text) ? write_cell(out, (const char *)text.data) : ERR_NO_MEMORY;
        if (item->type.kind == VALUE_WORD)
            error = error ? error : write_words(out, item->type.words);
        error = error ? error : buffer_append_text(out, " |\n");
    }
    buffer_fini(&text);
    return error;
}

static int write_command(struct buffer *out, const struct command *command)
{
    int error =
        buffer_printf(out, "\n## spindle %s\n\n%c%s.\n\n```\n", command->name, command->summary[0] - ('a' - 'A'), command->summary + 1);
    error = error ? error : command_usage_write(command, out);
    error = error ? error : buffer_printf(out, "\n```\n\n%s\n\n", command->details);
    if (command->items->kind != COMMAND_ITEM_END)
        error = error ? error : write_command_items(out, command);
    if (command->failure)
        error = error ? error : buffer_printf(out, "\nExit status 1: %s\n", command->failure);
    bool first = true;
    for (const struct command_item *item = command->items; item->kind != COMMAND_ITEM_END && !error; item++) {
        if (item->kind != COMMAND_ITEM_EXAMPLE)
            continue;
        error = buffer_printf(out, "%s# %s\n%s\n", first ? "\n```\n" : "", item->help, item->name);
        first = false;
    }
    return error || first ? error : buffer_append_text(out, "```\n");
}

int docs_commands_write(struct buffer *out)
{
    int error = buffer_append_text(
        out,
        "<!-- Made by `spindle docs commands` from src/cli/commands.def. Change it there. -->\n"
        "# Commands\n"
        "\n"
        "Every command explains itself with `--help`. Exit status: 0 when all is well, 2 when the command line or the configuration\n"
        "is wrong; 1 is said below where a command has it. Colour and progress appear on a terminal only; `NO_COLOR` turns colour off.\n");
    for (size_t i = 0; i < command_count && !error; i++)
        if (!commands[i].hidden)
            error = write_command(out, &commands[i]);
    return error;
}

int command_docs(const struct docs_arguments *arguments)
{
    struct buffer page;
    buffer_init(&page, DOCS_BYTES_MAX);
    int error = 0;
    switch (arguments->page) {
    case COMMAND_PAGE_CONFIGURATION:
        error = docs_configuration_write(&page);
        break;
    case COMMAND_PAGE_COMMANDS:
        error = docs_commands_write(&page);
        break;
    case COMMAND_PAGE_MAN:
        error = docs_man_write(&page);
        break;
    }
    if (!error)
        fwrite(page.data, 1, page.length, stdout);
    buffer_fini(&page);
    return command_finish_output("spindle docs", error ? COMMAND_FAILED : COMMAND_OK);
}
