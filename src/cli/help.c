/* Help on the screen, from the table of commands. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/terminal.h"
#include "cli/command.h"

enum { HELP_BYTES_MAX = 1 << 20, HELP_INDENT = 2, HELP_COLUMN = 30, HELP_WIDTH_MAX = 110, HELP_WIDTH_MIN = 60 };

/* Appends text, broken between words; lines after the first begin at column `indent`. `column` is where the first begins. */
static void write_wrapped(struct buffer *out, const char *text, unsigned column, unsigned indent, unsigned width)
{
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column > indent && column + 1 + word > width) {
            buffer_printf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            buffer_append(out, " ", 1);
            column++;
        }
        buffer_append(out, text, word);
        column += (unsigned)word;
        text += word;
        text += strspn(text, " ");
    }
    buffer_append(out, "\n", 1);
}

/* "  name      text", the text in a column of its own. */
static void write_entry(struct buffer *out, const char *name, const char *text, unsigned width)
{
    unsigned used = HELP_INDENT + (unsigned)strlen(name);
    buffer_printf(out, "%*s%s", HELP_INDENT, "", name);
    if (used + 2 > HELP_COLUMN)
        buffer_printf(out, "\n%*s", HELP_COLUMN, "");
    else
        buffer_printf(out, "%*s", (int)(HELP_COLUMN - used), "");
    write_wrapped(out, text, HELP_COLUMN, HELP_COLUMN, width);
}

static void write_heading(struct buffer *out, const char *text, const struct command_help_style *style)
{
    buffer_printf(out, "\n%s%s%s\n", style->bold, text, style->plain);
}

static bool has_kind(const struct command *command, bool (*matches)(enum command_item_kind))
{
    for (const struct command_item *item = command->items; item->kind != COMMAND_ITEM_END; item++)
        if (matches(item->kind))
            return true;
    return false;
}

static bool is_option(enum command_item_kind kind)
{
    return kind > COMMAND_ITEM_END && kind < COMMAND_ITEM_ARGUMENT;
}
static bool is_argument(enum command_item_kind kind)
{
    return kind == COMMAND_ITEM_ARGUMENT;
}
static bool is_example(enum command_item_kind kind)
{
    return kind == COMMAND_ITEM_EXAMPLE;
}

int command_usage_write(const struct command *command, struct buffer *out)
{
    int error = buffer_printf(out, "spindle %s%s", command->name, has_kind(command, is_option) ? " [options]" : "");
    for (const struct command_item *item = command->items; item->kind != COMMAND_ITEM_END && !error; item++)
        if (item->kind == COMMAND_ITEM_ARGUMENT)
            error = buffer_printf(out, item->required ? " %s" : " [%s]", item->name);
    return error;
}

int command_item_write(const struct command_item *item, struct buffer *out)
{
    int error = 0;
    if (item->kind == COMMAND_ITEM_ARGUMENT)
        return buffer_append_text(out, item->name);
    if (item->letter)
        error = buffer_printf(out, "-%c, ", item->letter);
    if (!error)
        error = buffer_append_text(out, item->name);
    if (item->kind == COMMAND_ITEM_SWITCH && !error)
        error = buffer_printf(out, ", --no-%s", item->name + 2);
    if (item->argument && !error)
        error = buffer_printf(out, " %s", item->argument);
    return error;
}

/* "One of a, b, c; default a." and the like; nothing where there is nothing to say. */
int command_item_help_write(const struct command_item *item, struct buffer *out)
{
    char admits[VALUE_MESSAGE_MAX] = "";
    enum value_kind kind = item->type.kind;
    bool typed = (item->kind == COMMAND_ITEM_VALUE || item->kind == COMMAND_ITEM_ARGUMENT) && kind != VALUE_TEXT && kind != VALUE_LIST;
    if (typed)
        value_describe(&item->type, admits);
    if (admits[0] >= 'a' && admits[0] <= 'z')
        admits[0] = (char)(admits[0] - 'a' + 'A');
    const char *initial = item->initial;
    if (item->kind == COMMAND_ITEM_SWITCH)
        initial = strcmp(item->initial, "true") == 0 ? item->name : NULL;
    int error = buffer_append_text(out, item->help);
    if (!error && typed)
        error = buffer_printf(out, " %s%s", admits, initial ? "" : ".");
    if (!error && initial)
        error = buffer_printf(out, "%s `%s`.", typed ? "; default" : " Default", initial);
    return error;
}

static void write_items(struct buffer *out, const struct command *command, bool (*matches)(enum command_item_kind), unsigned width)
{
    struct buffer name, text;
    buffer_init(&name, HELP_BYTES_MAX);
    buffer_init(&text, HELP_BYTES_MAX);
    for (const struct command_item *item = command->items; item->kind != COMMAND_ITEM_END; item++) {
        if (!matches(item->kind))
            continue;
        buffer_clear(&name);
        buffer_clear(&text);
        if (command_item_write(item, &name) == 0 && command_item_help_write(item, &text) == 0 && buffer_text(&name) && buffer_text(&text))
            write_entry(out, (const char *)name.data, (const char *)text.data, width);
    }
    buffer_fini(&name);
    buffer_fini(&text);
}

static void write_command(struct buffer *out, const struct command *command, const struct command_help_style *style)
{
    buffer_printf(out, "%sUsage:%s ", style->bold, style->plain);
    command_usage_write(command, out);
    buffer_append_text(out, "\n\n");
    write_wrapped(out, command->details, 0, 0, style->width);
    if (has_kind(command, is_argument)) {
        write_heading(out, "Arguments", style);
        write_items(out, command, is_argument, style->width);
    }
    write_heading(out, "Options", style);
    write_items(out, command, is_option, style->width);
    write_entry(out, "-h, --help", "Print this help.", style->width);
    write_heading(out, "Exit status", style);
    write_entry(out, "0", "All is well.", style->width);
    if (command->failure)
        write_entry(out, "1", command->failure, style->width);
    write_entry(out, "2", "The command line or the configuration is wrong.", style->width);
    if (has_kind(command, is_example)) {
        write_heading(out, "Examples", style);
        for (const struct command_item *item = command->items; item->kind != COMMAND_ITEM_END; item++)
            if (item->kind == COMMAND_ITEM_EXAMPLE)
                buffer_printf(out, "  # %s\n  %s\n", item->help, item->name);
    }
}

/* `group` NULL: all commands. */
static void write_command_list(struct buffer *out, const char *group, unsigned width)
{
    size_t length = group ? strlen(group) : 0;
    for (size_t i = 0; i < command_count; i++) {
        const struct command *command = &commands[i];
        if (!command->hidden && (!group || (strncmp(command->name, group, length) == 0 && command->name[length] == ' ')))
            write_entry(out, command->name, command->summary, width);
    }
}

int command_help_write(const struct command_line *line, const struct command_help_style *style, struct buffer *out)
{
    if (line->command) {
        write_command(out, line->command, style);
    } else if (line->group) {
        buffer_printf(out, "%sUsage:%s spindle %s COMMAND [options]\n", style->bold, style->plain, line->group);
        write_heading(out, "Commands", style);
        write_command_list(out, line->group, style->width);
    } else {
        buffer_printf(out, "%sUsage:%s spindle COMMAND [options]\n\n", style->bold, style->plain);
        write_wrapped(out,
                      "Spindle takes messages from machines and engines over MQTT, makes them durable, joins the ones that belong "
                      "together, estimates "
                      "drilling depths, and publishes the results.",
                      0, 0, style->width);
        write_heading(out, "Commands", style);
        write_command_list(out, NULL, style->width);
        write_heading(out, "Options", style);
        write_entry(out, "-h, --help", "Print this help; behind a command, that command's.", style->width);
        write_entry(out, "-V, --version", "Print the version.", style->width);
    }
    return buffer_text(out) ? 0 : ERR_NO_MEMORY;
}

int command_help_print(const struct command_line *line)
{
    unsigned width = terminal_columns(STDOUT_FILENO);
    width = width > HELP_WIDTH_MAX ? HELP_WIDTH_MAX : width < HELP_WIDTH_MIN ? HELP_WIDTH_MIN : width;
    struct command_help_style style = {width, terminal_style(STDOUT_FILENO, TERMINAL_BOLD), terminal_style(STDOUT_FILENO, TERMINAL_PLAIN)};
    struct buffer text;
    buffer_init(&text, HELP_BYTES_MAX);
    int status = COMMAND_FAILED;
    if (command_help_write(line, &style, &text) == 0) {
        fwrite(text.data, 1, text.length, stdout);
        status = command_finish_output("spindle help", COMMAND_OK);
    }
    buffer_fini(&text);
    return status;
}

int command_help(const struct help_arguments *arguments)
{
    struct command_line line = {.action = COMMAND_ACTION_HELP};
    struct problems problems;
    problems_init(&problems);
    const char *words[2] = {arguments->command, arguments->subcommand};
    size_t given = (size_t)arguments->command_given + arguments->subcommand_given;
    size_t used = given ? command_line_choose(&line, words, given, &problems) : 0;
    if (used < given && problems.errors == 0)
        problems_add(&problems, PROBLEM_ERROR, (struct place){.source = "spindle help"}, "unexpected argument %s",
                     problem_quote(words[used], strlen(words[used])).text);
    int status = problems.errors ? COMMAND_USAGE : command_help_print(&line);
    problems_print(&problems, stderr);
    problems_fini(&problems);
    return status;
}
