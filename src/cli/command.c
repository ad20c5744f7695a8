/* The table of commands, and the command line parsed by it. */
#include "cli/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "config/settings.h"

/* ---- the table ---- */

enum { VISIBLE, HIDDEN };
enum { OPTIONAL, REQUIRED };

/* clang-format off */
#define WORDS(group)                static const struct value_word words_of_##group[] = {
#define WORD(group, id, word, help)     {word, help},
#define WORDS_END(group)                {NULL, NULL}};
#include "cli/commands.def"

#define FIELD(id, field)       .field_offset = offsetof(struct id##_arguments, field)
#define FIELD_GIVEN(id, field) FIELD(id, field), .given_offset = offsetof(struct id##_arguments, field##_given)

#define KIB VALUE_KIB
#define MIB VALUE_MIB
#define GIB VALUE_GIB

#define COMMAND(id, text, visibility, summary, details, failure) \
    static int run_##id(const void *arguments) { return command_##id(arguments); } \
    static const struct command_item items_of_##id[] = {
#define OPTION_FLAG(id, field, text, key, about) \
    {.kind = COMMAND_ITEM_FLAG, .name = "--" text, .letter = key, .help = about, FIELD(id, field)},
#define OPTION_SWITCH(id, field, text, value, about) \
    {.kind = COMMAND_ITEM_SWITCH, .name = "--" text, .initial = value, .help = about, .type = {.kind = VALUE_BOOL}, FIELD_GIVEN(id, field)},
#define OPTION_VALUE(id, field, text, key, shown, value, about, ...) \
    {.kind = COMMAND_ITEM_VALUE, .name = "--" text, .letter = key, .argument = shown, .initial = value, .help = about, .type = {__VA_ARGS__}, \
     FIELD_GIVEN(id, field)},
#define OPTION_INT(id, field, text, key, shown, value, low, high, about) \
    OPTION_VALUE(id, field, text, key, shown, value, about, .kind = VALUE_INT, .min = low, .max = high)
#define OPTION_COUNT(id, field, text, key, shown, value, low, about)                                                                             \
    OPTION_VALUE(id, field, text, key, shown, value, about, .kind = VALUE_COUNT, .min = low, .max = VALUE_COUNT_MAX)
#define OPTION_NUMBER(id, field, text, key, shown, value, low, high, in, about) \
    OPTION_VALUE(id, field, text, key, shown, value, about, .kind = VALUE_NUMBER, .min = low, .max = high, .unit = in)
#define OPTION_SIZE(id, field, text, key, shown, value, low, high, about) \
    OPTION_VALUE(id, field, text, key, shown, value, about, .kind = VALUE_SIZE, .min = low, .max = high)
#define OPTION_TEXT(id, field, text, key, shown, value, about) \
    OPTION_VALUE(id, field, text, key, shown, value, about, .kind = VALUE_TEXT, .form = VALUE_NOT_EMPTY)
#define OPTION_TOPIC(id, field, text, key, shown, value, about) \
    OPTION_VALUE(id, field, text, key, shown, value, about, .kind = VALUE_TEXT, .form = VALUE_TOPIC_LEVELS)
#define OPTION_WORD(id, field, text, key, shown, group, value, about) \
    OPTION_VALUE(id, field, text, key, shown, value, about, .kind = VALUE_WORD, .words = words_of_##group)
#define OPTION_SETTING(id, text, key, shown, field, about) \
    {.kind = COMMAND_ITEM_SETTING, .name = "--" text, .letter = key, .argument = shown, .help = about, .setting = CONFIG_SETTING_##field},
#define OPTION_SETTINGS(id) \
    {.kind = COMMAND_ITEM_SETTINGS, .name = "--set", .argument = "PATH=VALUE", .help = "Set one setting; may be repeated. See docs/configuration.md.", \
     FIELD(id, assignments), .given_offset = offsetof(struct id##_arguments, assignment_count)},
#define ARGUMENT(id, field, shown, need, about) \
    {.kind = COMMAND_ITEM_ARGUMENT, .name = shown, .required = need, .help = about, .type = {.kind = VALUE_TEXT, .form = VALUE_NOT_EMPTY}, \
     FIELD_GIVEN(id, field)},
#define ARGUMENT_WORD(id, field, shown, need, group, about) \
    {.kind = COMMAND_ITEM_ARGUMENT, .name = shown, .required = need, .help = about, .type = {.kind = VALUE_WORD, .words = words_of_##group}, \
     FIELD_GIVEN(id, field)},
#define EXAMPLE(id, line, about) {.kind = COMMAND_ITEM_EXAMPLE, .name = line, .help = about},
#define END(id)                  {.kind = COMMAND_ITEM_END}};
#include "cli/commands.def"

const struct command commands[] = {
#define COMMAND(id, name, visibility, summary, details, failure) \
    {name, visibility == HIDDEN, summary, details, failure, items_of_##id, sizeof(struct id##_arguments), run_##id},
#include "cli/commands.def"
};
/* clang-format on */

const size_t command_count = sizeof commands / sizeof *commands;

/* ---- finding ---- */

bool command_is_group(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < command_count; i++)
        if (strncmp(commands[i].name, name, length) == 0 && commands[i].name[length] == ' ')
            return true;
    return false;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < command_count; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* What was meant by `word`: a first word of a command, or, within a group, a second. The text is in `meant`. */
static bool suggest_command(const char *group, const char *word, char meant[COMMAND_NAME_MAX])
{
    char texts[64][COMMAND_NAME_MAX];
    const char *words[64];
    size_t count = 0, skip = group ? strlen(group) + 1 : 0;
    for (size_t i = 0; i < command_count && count < 64; i++) {
        const char *name = commands[i].name;
        if (commands[i].hidden || (group && (strncmp(name, group, skip - 1) != 0 || name[skip - 1] != ' ')))
            continue;
        snprintf(texts[count], COMMAND_NAME_MAX, "%.*s", (int)strcspn(name + skip, " "), name + skip);
        words[count] = texts[count];
        count++;
    }
    const char *best = text_suggest(word, words, count);
    if (best)
        snprintf(meant, COMMAND_NAME_MAX, "%s", best);
    return best != NULL;
}

/* `name` is without its dashes. */
static const struct command_item *find_option(const struct command *command, const char *name, size_t length)
{
    for (const struct command_item *item = command->items; item->kind != COMMAND_ITEM_END; item++)
        if (item->kind < COMMAND_ITEM_ARGUMENT && strlen(item->name + 2) == length && memcmp(item->name + 2, name, length) == 0)
            return item;
    return NULL;
}

static const struct command_item *find_letter(const struct command *command, char letter)
{
    for (const struct command_item *item = command->items; item->kind != COMMAND_ITEM_END; item++)
        if (item->kind < COMMAND_ITEM_ARGUMENT && item->letter == letter)
            return item;
    return NULL;
}

/* ---- parsing ---- */

struct parser {
    struct command_line *line;
    struct problems *problems;
    int argc;
    char *const *argv;
    int at;                               /* the next argument */
    const struct command_item *next_item; /* where the next ARGUMENT is looked for */
    char place[COMMAND_NAME_MAX + 16];
};

#define MISTAKE(parser, ...) problems_add((parser)->problems, PROBLEM_ERROR, (struct place){.source = (parser)->place}, __VA_ARGS__)

static void store(const struct command_line *line, const struct command_item *item, const union value *value, const char *text)
{
    void *field = (char *)line->arguments + item->field_offset;
    if (item->type.kind == VALUE_TEXT || item->type.kind == VALUE_LIST)
        *(const char **)field = text;
    else
        value_store(&item->type, value, field);
}

static void mark_given(const struct command_line *line, const struct command_item *item)
{
    *(bool *)((char *)line->arguments + item->given_offset) = true;
}

static int set_initial(const struct command_line *line)
{
    for (const struct command_item *item = line->command->items; item->kind != COMMAND_ITEM_END; item++) {
        union value value;
        char message[VALUE_MESSAGE_MAX];
        if (!item->initial)
            continue;
        if (value_parse(&item->type, item->initial, strlen(item->initial), &value, message))
            return ERR_INVALID;
        store(line, item, &value, item->initial);
    }
    return 0;
}

/* Takes the value of an option or argument. */
static void take_value(struct parser *parser, const struct command_item *item, const char *text)
{
    struct command_line *line = parser->line;
    if (item->kind == COMMAND_ITEM_SETTING || item->kind == COMMAND_ITEM_SETTINGS) {
        const char *path = item->kind == COMMAND_ITEM_SETTING ? config_setting_path(item->setting) : NULL;
        if (line->assignment_count == COMMAND_ASSIGNMENTS_MAX)
            MISTAKE(parser, "%s: more than %d settings on the command line; put them into a file", item->name, COMMAND_ASSIGNMENTS_MAX);
        else
            line->assignments[line->assignment_count++] = (struct config_assignment){item->name, path, text};
        return;
    }
    union value value;
    char message[VALUE_MESSAGE_MAX];
    if (value_parse(&item->type, text, strlen(text), &value, message)) {
        MISTAKE(parser, "%s: %s", item->name, message);
        return;
    }
    store(line, item, &value, text);
    mark_given(line, item);
}

static void report_unknown_option(struct parser *parser, const char *word, const char *name, size_t length)
{
    char copy[COMMAND_NAME_MAX];
    const char *words[COMMAND_ITEMS_MAX];
    size_t count = 0;
    for (const struct command_item *item = parser->line->command->items; item->kind != COMMAND_ITEM_END && count < COMMAND_ITEMS_MAX - 1;
         item++)
        if (item->kind < COMMAND_ITEM_ARGUMENT)
            words[count++] = item->name + 2;
    words[count++] = "help";
    snprintf(copy, sizeof copy, "%.*s", (int)(length < sizeof copy ? length : sizeof copy - 1), name);
    const char *meant = text_suggest(copy, words, count);
    if (meant)
        MISTAKE(parser, "unknown option %s; did you mean `--%s`?", problem_quote(word, strlen(word)).text, meant);
    else
        MISTAKE(parser, "unknown option %s", problem_quote(word, strlen(word)).text);
}

/* The argument of an option that stands in the next word; NULL when there is none (reported). */
static const char *next_word(struct parser *parser, const struct command_item *item)
{
    const char *word = parser->at < parser->argc ? parser->argv[parser->at] : NULL;
    if (!word || strncmp(word, "--", 2) == 0) {
        MISTAKE(parser, "%s: expected %s behind it", item->name, item->argument);
        return NULL;
    }
    parser->at++;
    return word;
}

/* `text` is the argument that stood in the same word; NULL: none. */
static void take_option(struct parser *parser, const struct command_item *item, const char *text, bool on)
{
    bool *field = (bool *)((char *)parser->line->arguments + item->field_offset);
    if (item->argument) {
        text = text ? text : next_word(parser, item);
        if (text)
            take_value(parser, item, text);
    } else if (text) {
        MISTAKE(parser, "%s takes no value", item->name);
    } else {
        *field = on;
        if (item->kind == COMMAND_ITEM_SWITCH)
            mark_given(parser->line, item);
    }
}

/* "--name", "--name value", "--name=value", "--no-name". */
static void take_long_option(struct parser *parser, const char *word)
{
    const char *name = word + 2;
    size_t length = strcspn(name, "=");
    const char *text = name[length] ? name + length + 1 : NULL;
    const struct command_item *item = find_option(parser->line->command, name, length);
    const struct command_item *negated = strncmp(name, "no-", 3) == 0 ? find_option(parser->line->command, name + 3, length - 3) : NULL;
    if (length == 4 && memcmp(name, "help", 4) == 0)
        parser->line->action = COMMAND_ACTION_HELP;
    else if (item)
        take_option(parser, item, text, true);
    else if (negated && negated->kind == COMMAND_ITEM_SWITCH)
        take_option(parser, negated, text, false);
    else
        report_unknown_option(parser, word, name, length);
}

/* "-c FILE", "-cFILE", "-h". */
static void take_short_option(struct parser *parser, const char *word)
{
    const struct command_item *item = find_letter(parser->line->command, word[1]);
    if (strcmp(word, "-h") == 0)
        parser->line->action = COMMAND_ACTION_HELP;
    else if (item)
        take_option(parser, item, word[2] ? word + 2 : NULL, true);
    else
        report_unknown_option(parser, word, word + 1, strlen(word + 1));
}

static void take_argument(struct parser *parser, const char *word)
{
    while (parser->next_item->kind != COMMAND_ITEM_END && parser->next_item->kind != COMMAND_ITEM_ARGUMENT)
        parser->next_item++;
    if (parser->next_item->kind == COMMAND_ITEM_END)
        MISTAKE(parser, "unexpected argument %s", problem_quote(word, strlen(word)).text);
    else
        take_value(parser, parser->next_item++, word);
}

static void take_words(struct parser *parser)
{
    bool only_arguments = false;
    while (parser->at < parser->argc) {
        const char *word = parser->argv[parser->at++];
        if (only_arguments || word[0] != '-' || word[1] == 0)
            take_argument(parser, word);
        else if (strcmp(word, "--") == 0)
            only_arguments = true;
        else if (word[1] == '-')
            take_long_option(parser, word);
        else
            take_short_option(parser, word);
    }
    for (const struct command_item *item = parser->next_item; item->kind != COMMAND_ITEM_END; item++)
        if (item->kind == COMMAND_ITEM_ARGUMENT && item->required && parser->line->action == COMMAND_ACTION_RUN)
            MISTAKE(parser, "%s is missing", item->name);
}

/* Hands the collected settings to the command's struct. */
static void store_assignments(const struct command_line *line)
{
    for (const struct command_item *item = line->command->items; item->kind != COMMAND_ITEM_END; item++) {
        if (item->kind != COMMAND_ITEM_SETTINGS)
            continue;
        *(const struct config_assignment **)((char *)line->arguments + item->field_offset) = line->assignments;
        *(size_t *)((char *)line->arguments + item->given_offset) = line->assignment_count;
    }
}

size_t command_line_choose(struct command_line *line, const char *const *words, size_t word_count, struct problems *problems)
{
    static const struct place place = {.source = "spindle"};
    const char *first = words[0];
    const char *group = command_is_group(first) ? first : NULL;
    const char *unknown = group ? (word_count > 1 ? words[1] : NULL) : first;
    char name[COMMAND_NAME_MAX], meant[COMMAND_NAME_MAX];
    if (group && (!unknown || unknown[0] == '-' || strcmp(unknown, "help") == 0)) {
        line->group = group;
        return 1;
    }
    int length = snprintf(name, sizeof name, "%s%s%s", group ? group : "", group ? " " : "", unknown);
    line->command = length < (int)sizeof name ? find_command(name) : NULL;
    if (line->command)
        return group ? 2 : 1;
    struct problem_quoted shown = problem_quote(unknown, strlen(unknown));
    if (unknown[0] == '-')
        problems_add(problems, PROBLEM_ERROR, place, "unknown option %s; options stand behind the command they belong to", shown.text);
    else if (suggest_command(group, unknown, meant))
        problems_add(problems, PROBLEM_ERROR, place, "unknown command %s; did you mean `%s%s%s`?", shown.text, group ? group : "",
                     group ? " " : "", meant);
    else
        problems_add(problems, PROBLEM_ERROR, place, "unknown command %s", shown.text);
    return 0;
}

static int parse_command(struct parser *parser)
{
    struct command_line *line = parser->line;
    const char *words[2] = {parser->argv[1], parser->argc > 2 ? parser->argv[2] : NULL};
    size_t used = command_line_choose(line, words, words[1] ? 2 : 1, parser->problems);
    if (line->group) {
        line->action = COMMAND_ACTION_HELP;
        if (!words[1] || (strcmp(words[1], "--help") != 0 && strcmp(words[1], "-h") != 0 && strcmp(words[1], "help") != 0))
            MISTAKE(parser, "%s needs a second word", line->group);
    }
    if (!line->command)
        return 0;
    snprintf(parser->place, sizeof parser->place, "spindle %s", line->command->name);
    line->arguments = calloc(1, line->command->arguments_size);
    if (!line->arguments)
        return ERR_NO_MEMORY;
    *(const struct command **)line->arguments = line->command;
    int error = set_initial(line);
    if (error)
        return error;
    parser->at = 1 + (int)used;
    parser->next_item = line->command->items;
    take_words(parser);
    store_assignments(line);
    return 0;
}

int command_line_parse(struct command_line *line, int argc, char *const *argv, struct problems *problems)
{
    *line = (struct command_line){.action = COMMAND_ACTION_RUN};
    struct parser parser = {.line = line, .problems = problems, .argc = argc, .argv = argv, .place = "spindle"};
    size_t mistakes = problems->errors;
    const char *first = argc > 1 ? argv[1] : "";
    int error = 0;
    if (argc < 2) {
        line->action = COMMAND_ACTION_HELP;
        MISTAKE(&parser, "a command is missing");
    } else if (strcmp(first, "--version") == 0 || strcmp(first, "-V") == 0) {
        line->action = COMMAND_ACTION_VERSION;
    } else if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
        line->action = COMMAND_ACTION_HELP;
    } else {
        error = parse_command(&parser);
    }
    return error ? error : problems->errors > mistakes ? ERR_INVALID : 0;
}

void command_line_fini(struct command_line *line)
{
    free(line->arguments);
    line->arguments = NULL;
}

int command_finish_output(const char *command, int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "%s: the output cannot be written: %s\n", command, strerror(errno));
    return COMMAND_FAILED;
}
