/* Completion scripts for shells, from the table of commands. A script holds every word itself and never calls the program. */
#include "cli/completion.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "config/settings.h"

enum { COMPLETION_BYTES_MAX = 1 << 20 };

/* ---- the table, seen as completion needs it ---- */

static bool is_option(const struct command_item *item)
{
    return item->kind > COMMAND_ITEM_END && item->kind < COMMAND_ITEM_ARGUMENT;
}

static const struct value_word *words_of(const struct command_item *item)
{
    return item->kind == COMMAND_ITEM_SETTING ? settings_rows[item->setting].type.words : item->type.words;
}

/* The name of an option's or argument's value, in capitals. */
static const char *value_name(const struct command_item *item)
{
    return item->kind == COMMAND_ITEM_ARGUMENT ? item->name : item->argument;
}

static bool is_file(const struct command_item *item)
{
    return value_name(item) && strcmp(value_name(item), "FILE") == 0;
}
static bool is_folder(const struct command_item *item)
{
    return value_name(item) && strcmp(value_name(item), "DIR") == 0;
}

/* Length of the first word of a command's name. */
static size_t group_length(const struct command *command)
{
    return strcspn(command->name, " ");
}

/* Whether commands[i] is the first, not hidden, with its first word. */
static bool begins_group(size_t i)
{
    size_t length = group_length(&commands[i]);
    for (size_t j = 0; j < i; j++)
        if (!commands[j].hidden && group_length(&commands[j]) == length && memcmp(commands[i].name, commands[j].name, length) == 0)
            return false;
    return !commands[i].hidden;
}

static bool is_in_group(const struct command *command, const struct command *first)
{
    size_t length = group_length(first);
    return !command->hidden && group_length(command) == length && memcmp(command->name, first->name, length) == 0;
}

/* The second word of a name; NULL for a name of one. */
static const char *second_word(const struct command *command)
{
    const char *space = strchr(command->name, ' ');
    return space ? space + 1 : NULL;
}

/* What is said of commands[i] where only first words are listed: its summary, or "cat, audit". */
static const char *first_word_text(size_t i, char text[COMMAND_NAME_MAX])
{
    if (!second_word(&commands[i]))
        return commands[i].summary;
    int used = 0;
    for (size_t j = i; j < command_count && used < COMMAND_NAME_MAX; j++)
        if (is_in_group(&commands[j], &commands[i]))
            used += snprintf(text + used, (size_t)(COMMAND_NAME_MAX - used), "%s%s", j == i ? "" : ", ", second_word(&commands[j]));
    return text;
}

/* Text within '...' of a shell; `special` characters get a backslash. */
static int write_quoted(struct buffer *out, const char *text, const char *special)
{
    int error = 0;
    for (; *text && !error; text++) {
        if (*text == '\'')
            error = buffer_append_text(out, "'\\''");
        else
            error = strchr(special, *text) ? buffer_printf(out, "\\%c", *text) : buffer_append(out, text, 1);
    }
    return error;
}

static int write_words(struct buffer *out, const struct value_word *words)
{
    int error = 0;
    for (size_t i = 0; words[i].word && !error; i++)
        error = buffer_printf(out, "%s%s", i ? " " : "", words[i].word);
    return error;
}

static int write_setting_paths(struct buffer *out)
{
    int error = 0;
    for (int i = 0; i < CONFIG_SETTING_COUNT && !error; i++)
        error = buffer_printf(out, "%s%s=", i ? " " : "", settings_rows[i].path);
    return error;
}

/* ---- bash ---- */

static int bash_first_words(struct buffer *out)
{
    int error =
        buffer_append_text(out, "    local reply= about= words=(\"${COMP_WORDS[@]}\") at=$COMP_CWORD\n"
                                "    [[ ${words[1]} == help ]] && ((at > 1)) && about=help words=(\"${words[@]:1}\") at=$((at - 1))\n"
                                "    local command=${words[1]} cur=${words[at]} prev=${words[at-1]}\n"
                                "    if ((at == 1)); then\n        reply='--help --version");
    for (size_t i = 0; i < command_count && !error; i++)
        if (begins_group(i))
            error = buffer_printf(out, " %.*s", (int)group_length(&commands[i]), commands[i].name);
    return error ? error : buffer_append_text(out, "'\n    fi\n");
}

static int bash_second_words(struct buffer *out)
{
    int error = buffer_append_text(out, "    case $command in\n");
    for (size_t i = 0; i < command_count && !error; i++) {
        if (!begins_group(i) || !second_word(&commands[i]))
            continue;
        error = buffer_printf(out, "    %.*s)\n        ((at == 2)) && reply='", (int)group_length(&commands[i]), commands[i].name);
        for (size_t j = i; j < command_count && !error; j++)
            if (is_in_group(&commands[j], &commands[i]))
                error = buffer_printf(out, "%s%s", j == i ? "" : " ", second_word(&commands[j]));
        error = error ? error : buffer_append_text(out, "'\n        command+=\" ${words[2]}\" ;;\n");
    }
    return error ? error : buffer_append_text(out, "    esac\n");
}

/* The case of an option whose value comes next. */
static int bash_value(struct buffer *out, const struct command *command, const struct command_item *item)
{
    int error = buffer_printf(out, "    '%s %s'", command->name, item->name);
    if (item->letter && !error)
        error = buffer_printf(out, "|'%s -%c'", command->name, item->letter);
    error = error ? error : buffer_append_text(out, ") ");
    if (is_file(item) || is_folder(item))
        return error ? error
                     : buffer_printf(out, "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -%c -- \"$cur\"); return ;;\n",
                                     is_file(item) ? 'f' : 'd');
    error = error ? error : buffer_append_text(out, "reply='");
    if (item->kind == COMMAND_ITEM_SETTINGS)
        error = error ? error : write_setting_paths(out);
    else if (words_of(item))
        error = error ? error : write_words(out, words_of(item));
    return error ? error : buffer_printf(out, "'%s ;;\n", item->kind == COMMAND_ITEM_SETTINGS ? "; compopt -o nospace" : "");
}

static int bash_command(struct buffer *out, const struct command *command)
{
    int error = 0;
    for (const struct command_item *item = command->items; item->kind != COMMAND_ITEM_END && !error; item++)
        if (is_option(item) && item->argument)
            error = bash_value(out, command, item);
    error = error ? error : buffer_printf(out, "    '%s '*) reply='--help", command->name);
    for (const struct command_item *item = command->items; item->kind != COMMAND_ITEM_END && !error; item++) {
        if (is_option(item))
            error = buffer_printf(out, " %s", item->name);
        if (item->kind == COMMAND_ITEM_SWITCH && !error)
            error = buffer_printf(out, " --no-%s", item->name + 2);
        if (item->kind == COMMAND_ITEM_ARGUMENT && words_of(item) && !error) {
            error = buffer_append_text(out, " ");
            error = error ? error : write_words(out, words_of(item));
        }
    }
    return error ? error : buffer_append_text(out, "' ;;\n");
}

static int bash_write(struct buffer *out)
{
    int error = buffer_append_text(out, "# Completion of spindle for bash. Made by `spindle completion bash`.\n_spindle() {\n");
    error = error ? error : bash_first_words(out);
    error = error ? error : bash_second_words(out);
    error = error ? error : buffer_append_text(out, "    [[ -z $reply$about ]] && case \"$command $prev\" in\n");
    for (size_t i = 0; i < command_count && !error; i++)
        if (!commands[i].hidden)
            error = bash_command(out, &commands[i]);
    return error ? error
                 : buffer_append_text(
                       out, "    esac\n    mapfile -t COMPREPLY < <(compgen -W \"$reply\" -- \"$cur\")\n}\ncomplete -F _spindle spindle\n");
}

/* ---- zsh ---- */

static int zsh_describe(struct buffer *out, const char *indent, const char *name, size_t length, const char *text)
{
    int error = buffer_printf(out, "%s'%.*s:", indent, (int)length, name);
    error = error ? error : write_quoted(out, text, ":\\");
    return error ? error : buffer_append_text(out, "'\n");
}

static int zsh_value(struct buffer *out, const struct command_item *item)
{
    int error = buffer_printf(out, ":%s:", value_name(item));
    if (is_file(item) || is_folder(item))
        return error ? error : buffer_append_text(out, is_file(item) ? "_files" : "_files -/");
    if (item->kind != COMMAND_ITEM_SETTINGS && !words_of(item))
        return error ? error : buffer_append_text(out, " ");
    error = error ? error : buffer_append_text(out, "(");
    error = error ? error : item->kind == COMMAND_ITEM_SETTINGS ? write_setting_paths(out) : write_words(out, words_of(item));
    return error ? error : buffer_append_text(out, ")");
}

/* One specification of _arguments. */
static int zsh_item(struct buffer *out, const struct command_item *item, const char *name)
{
    int error = buffer_append_text(out, " \\\n            '");
    if (item->kind == COMMAND_ITEM_SETTINGS)
        error = error ? error : buffer_append_text(out, "*");
    if (item->kind != COMMAND_ITEM_ARGUMENT) {
        error = error ? error : buffer_printf(out, "%s[", name);
        error = error ? error : write_quoted(out, item->help, "[]:\\");
        error = error ? error : buffer_append_text(out, "]");
    }
    if (value_name(item))
        error = error ? error : zsh_value(out, item);
    return error ? error : buffer_append_text(out, "'");
}

static int zsh_command(struct buffer *out, const struct command *command)
{
    int error = buffer_printf(out, "    '%s')\n        _arguments '--help[Print help.]'", command->name);
    for (const struct command_item *item = command->items; item->kind != COMMAND_ITEM_END && !error; item++) {
        char other[COMMAND_NAME_MAX] = "";
        if (item->kind == COMMAND_ITEM_EXAMPLE)
            continue;
        error = zsh_item(out, item, item->name);
        if (item->letter)
            snprintf(other, sizeof other, "-%c", item->letter);
        else if (item->kind == COMMAND_ITEM_SWITCH)
            snprintf(other, sizeof other, "--no-%s", item->name + 2);
        if (other[0] && !error)
            error = zsh_item(out, item, other);
    }
    return error ? error : buffer_append_text(out, " ;;\n");
}

static int zsh_groups(struct buffer *out)
{
    int error = buffer_append_text(out, "    case $command in\n");
    for (size_t i = 0; i < command_count && !error; i++) {
        if (!begins_group(i) || !second_word(&commands[i]))
            continue;
        error = buffer_printf(out, "    %.*s)\n        if ((CURRENT == 3)); then\n            choices=(\n", (int)group_length(&commands[i]),
                              commands[i].name);
        for (size_t j = i; j < command_count && !error; j++)
            if (is_in_group(&commands[j], &commands[i]))
                error = zsh_describe(out, "                ", second_word(&commands[j]), strlen(second_word(&commands[j])),
                                     commands[j].summary);
        error = error ? error
                      : buffer_append_text(out, "            )\n            _describe command choices\n            return\n        fi\n"
                                                "        command+=\" $words[3]\"\n        shift words\n        ((CURRENT--)) ;;\n");
    }
    return error ? error : buffer_append_text(out, "    esac\n");
}

static int zsh_write(struct buffer *out)
{
    int error =
        buffer_append_text(out, "#compdef spindle\n# Completion of spindle for zsh. Made by `spindle completion zsh`.\n_spindle() {\n"
                                "    local -a choices\n    local command=$words[2]\n    if ((CURRENT == 2)); then\n        choices=(\n");
    char text[COMMAND_NAME_MAX];
    for (size_t i = 0; i < command_count && !error; i++)
        if (begins_group(i))
            error = zsh_describe(out, "            ", commands[i].name, group_length(&commands[i]), first_word_text(i, text));
    error = error ? error : buffer_append_text(out, "        )\n        _describe command choices\n        return\n    fi\n");
    error = error ? error : zsh_groups(out);
    error = error ? error : buffer_append_text(out, "    shift words\n    ((CURRENT--))\n    case $command in\n");
    for (size_t i = 0; i < command_count && !error; i++)
        if (!commands[i].hidden)
            error = zsh_command(out, &commands[i]);
    return error ? error
                 : buffer_append_text(out, "    esac\n}\nif [[ $funcstack[1] == _spindle ]]; then\n    _spindle \"$@\"\nelse\n    compdef "
                                           "_spindle spindle\nfi\n");
}

/* ---- fish ---- */

/* "complete -c spindle -n '<the command was given>'". */
static int fish_begin(struct buffer *out, const struct command *command)
{
    int error = buffer_printf(out, "complete -c spindle -n '__fish_seen_subcommand_from %.*s", (int)group_length(command), command->name);
    if (second_word(command) && !error)
        error = buffer_printf(out, "; and __fish_seen_subcommand_from %s", second_word(command));
    return error ? error : buffer_append_text(out, "'");
}

static int fish_end(struct buffer *out, const char *text)
{
    int error = buffer_append_text(out, " -d '");
    for (; *text && !error; text++)
        error = *text == '\'' || *text == '\\' ? buffer_printf(out, "\\%c", *text) : buffer_append(out, text, 1);
    return error ? error : buffer_append_text(out, "'\n");
}

static int fish_item(struct buffer *out, const struct command *command, const struct command_item *item)
{
    const struct value_word *words = words_of(item);
    if (item->kind == COMMAND_ITEM_EXAMPLE || (item->kind == COMMAND_ITEM_ARGUMENT && !words))
        return 0;
    int error = fish_begin(out, command);
    if (is_option(item))
        error = error ? error : buffer_printf(out, " -l %s", item->name + 2);
    if (item->letter)
        error = error ? error : buffer_printf(out, " -s %c", item->letter);
    if (item->argument)
        error = error ? error : buffer_append_text(out, is_file(item) || is_folder(item) ? " -r -F" : " -x");
    if (words || item->kind == COMMAND_ITEM_SETTINGS) {
        error = error ? error : buffer_append_text(out, " -a '");
        error = error ? error : words ? write_words(out, words) : write_setting_paths(out);
        error = error ? error : buffer_append_text(out, "'");
    }
    error = error ? error : fish_end(out, item->help);
    if (item->kind != COMMAND_ITEM_SWITCH)
        return error;
    error = error ? error : fish_begin(out, command);
    error = error ? error : buffer_printf(out, " -l no-%s", item->name + 2);
    return error ? error : fish_end(out, item->help);
}

/* The names of commands: the first word where none stands yet, then the second. */
static int fish_names(struct buffer *out)
{
    int error = 0;
    for (size_t i = 0; i < command_count && !error; i++) {
        char text[COMMAND_NAME_MAX];
        const char *second = second_word(&commands[i]);
        int length = (int)group_length(&commands[i]);
        if (begins_group(i)) {
            error = buffer_printf(out, "complete -c spindle -n __fish_use_subcommand -a %.*s", length, commands[i].name);
            error = error ? error : fish_end(out, first_word_text(i, text));
        }
        if (!second || commands[i].hidden)
            continue;
        error = error ? error
                      : buffer_printf(out, "complete -c spindle -n '__fish_seen_subcommand_from %.*s; and not __fish_seen_subcommand_from",
                                      length, commands[i].name);
        for (size_t j = 0; j < command_count && !error; j++)
            if (is_in_group(&commands[j], &commands[i]))
                error = buffer_printf(out, " %s", second_word(&commands[j]));
        error = error ? error : buffer_printf(out, "' -a %s", second);
        error = error ? error : fish_end(out, commands[i].summary);
    }
    return error;
}

static int fish_write(struct buffer *out)
{
    int error = buffer_append_text(out, "# Completion of spindle for fish. Made by `spindle completion fish`.\ncomplete -c spindle -f\n"
                                        "complete -c spindle -s h -l help -d 'Print help.'\n");
    error = error ? error : fish_names(out);
    for (size_t i = 0; i < command_count && !error; i++)
        for (const struct command_item *item = commands[i].items; !commands[i].hidden && item->kind != COMMAND_ITEM_END && !error; item++)
            error = fish_item(out, &commands[i], item);
    return error;
}

/* ---- public ---- */

int completion_write(enum command_shell shell, struct buffer *out)
{
    switch (shell) {
    case COMMAND_SHELL_BASH:
        return bash_write(out);
    case COMMAND_SHELL_ZSH:
        return zsh_write(out);
    case COMMAND_SHELL_FISH:
        return fish_write(out);
    }
    return ERR_INVALID;
}

int command_completion(const struct completion_arguments *arguments)
{
    struct buffer script;
    buffer_init(&script, COMPLETION_BYTES_MAX);
    int error = completion_write(arguments->shell, &script);
    if (!error)
        fwrite(script.data, 1, script.length, stdout);
    buffer_fini(&script);
    return command_finish_output("spindle completion", error ? COMMAND_FAILED : COMMAND_OK);
}
