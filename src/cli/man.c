/* The manual page, spindle(1), in roff's man macros. */
#include <ctype.h>
#include <string.h>

#include "base/error.h"
#include "base/version.h"
#include "cli/command.h"
#include "cli/docs.h"
#include "config/settings.h"

enum { MAN_BYTES_MAX = 1 << 20 };

/* Text for roff: `-` and `\` escaped, a line that begins with a control character made harmless, `code` in bold. */
static int write_text(struct buffer *out, const char *text)
{
    bool code = false;
    int error = *text == '.' || *text == '\'' ? buffer_append_text(out, "\\&") : 0;
    for (; *text && !error; text++) {
        if (*text == '`') {
            error = buffer_append_text(out, code ? "\\fR" : "\\fB");
            code = !code;
        } else if (*text == '-') {
            error = buffer_append_text(out, "\\-");
        } else if (*text == '\\') {
            error = buffer_append_text(out, "\\e");
        } else {
            error = buffer_append(out, text, 1);
        }
    }
    return error ? error : buffer_append_text(out, "\n");
}

static int write_tagged(struct buffer *out, const char *tag, const char *text)
{
    int error = buffer_append_text(out, ".TP\n.B ");
    error = error ? error : write_text(out, tag);
    return error ? error : write_text(out, text);
}

static int write_item(struct buffer *out, const struct command_item *item)
{
    struct buffer tag, text;
    buffer_init(&tag, MAN_BYTES_MAX);
    buffer_init(&text, MAN_BYTES_MAX);
    int error = command_item_write(item, &tag);
    error = error ? error : command_item_help_write(item, &text);
    if (!error)
        error =
            buffer_text(&tag) && buffer_text(&text) ? write_tagged(out, (const char *)tag.data, (const char *)text.data) : ERR_NO_MEMORY;
    buffer_fini(&tag);
    buffer_fini(&text);
    return error;
}

static int write_command(struct buffer *out, const struct command *command)
{
    struct buffer usage;
    buffer_init(&usage, MAN_BYTES_MAX);
    int error = command_usage_write(command, &usage);
    error = error ? error : buffer_append_text(out, ".SS ");
    error = error ? error : buffer_text(&usage) ? write_text(out, (const char *)usage.data) : ERR_NO_MEMORY;
    buffer_fini(&usage);
    error = error ? error : write_text(out, command->details);
    for (const struct command_item *item = command->items; item->kind != COMMAND_ITEM_END && !error; item++)
        if (item->kind != COMMAND_ITEM_EXAMPLE)
            error = write_item(out, item);
    if (command->failure && !error) {
        error = buffer_append_text(out, ".PP\nExit status 1: ");
        error = error ? error : write_text(out, command->failure);
    }
    return error;
}

static int write_examples(struct buffer *out)
{
    int error = buffer_append_text(out, ".SH EXAMPLES\n");
    for (size_t i = 0; i < command_count; i++)
        for (const struct command_item *item = commands[i].items; item->kind != COMMAND_ITEM_END && !error; item++)
            if (item->kind == COMMAND_ITEM_EXAMPLE)
                error = write_tagged(out, item->name, item->help);
    return error;
}

static int write_environment(struct buffer *out)
{
    int error = buffer_append_text(out, ".SH ENVIRONMENT\n");
    error = error ? error : write_tagged(out, "SPINDLE_SECTION_KEY", "Sets the setting section.key; see FILES.");
    for (size_t i = 0; i < settings_variable_count && !error; i++) {
        error = buffer_append_text(out, ".TP\n.B ");
        error = error ? error : write_text(out, settings_variables[i].name);
        error = error ? error : buffer_append_text(out, "Sets ");
        error = error ? error : write_text(out, settings_rows[settings_variables[i].setting].path);
    }
    return error ? error : write_tagged(out, "NO_COLOR", "Turns colour off.");
}

int docs_man_write(struct buffer *out)
{
    int error = buffer_append_text(
        out, ".TH SPINDLE 1 \"\" \"Spindle " SPINDLE_VERSION "\" \"User Commands\"\n"
             ".SH NAME\n"
             "spindle \\- durable message pipeline and bus\n"
             ".SH SYNOPSIS\n"
             ".B spindle\n"
             ".I COMMAND\n"
             ".RI [ options ]\n"
             ".SH DESCRIPTION\n"
             "Spindle takes messages from machines and engines over MQTT, makes them durable, joins the ones that belong together,\n"
             "estimates drilling depths, and publishes the results.\n"
             ".SH COMMANDS\n");
    for (size_t i = 0; i < command_count && !error; i++)
        if (!commands[i].hidden)
            error = write_command(out, &commands[i]);
    error = error ? error : buffer_append_text(out, ".SH EXIT STATUS\n");
    error = error ? error : write_tagged(out, "0", "All is well.");
    error = error ? error : write_tagged(out, "1", "The command failed, or found what it looks for to be wrong.");
    error = error ? error : write_tagged(out, "2", "The command line or the configuration is wrong.");
    error = error ? error : write_environment(out);
    error =
        error ? error
              : buffer_append_text(out, ".SH FILES\nA configuration is one YAML file, named with \\fB\\-c\\fR. Its settings are listed in\n"
                                        ".IR docs/configuration.md ;\n"
                                        ".B spindle check\nsays what is wrong with one.\n");
    return error ? error : write_examples(out);
}
