/* cli/command and what is made from its table: help, completion, pages. And base/terminal. */
#include "cli/command.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/terminal.h"
#include "cli/completion.h"
#include "cli/docs.h"
#include "unit.h"

static struct command_line line;
static struct problems problems;
static struct buffer text;

static int begin(void **state)
{
    (void)state;
    line = (struct command_line){0};
    problems_init(&problems);
    buffer_init(&text, 1 << 20);
    return 0;
}

static int end(void **state)
{
    (void)state;
    command_line_fini(&line);
    problems_fini(&problems);
    buffer_fini(&text);
    return 0;
}

/* Parses words separated by one space. */
static int parse(const char *words)
{
    static char copy[1 << 16];
    static char *argv[COMMAND_ASSIGNMENTS_MAX * 2 + 16];
    int argc = 0;
    command_line_fini(&line);
    problems_fini(&problems);
    snprintf(copy, sizeof copy, "%s", words);
    for (char *word = copy; word; argc++) {
        char *space = strchr(word, ' ');
        if (space)
            *space++ = 0;
        argv[argc] = word;
        word = space;
    }
    argv[argc] = NULL;
    return command_line_parse(&line, argc, argv, &problems);
}

static const char *problems_text(void)
{
    buffer_clear(&text);
    assert_int_equal(problems_write(&problems, &text), 0);
    return buffer_text(&text);
}

static void expect_mistake(const char *words, const char *lines)
{
    assert_int_equal(parse(words), ERR_INVALID);
    assert_string_equal(problems_text(), lines);
}

static bool is_option(const struct command_item *item)
{
    return item->kind > COMMAND_ITEM_END && item->kind < COMMAND_ITEM_ARGUMENT;
}

#define EACH_COMMAND(command)                                                                                                              \
    const struct command *command = commands;                                                                                              \
    command < commands + command_count;                                                                                                    \
    command++
#define EACH_ITEM(item, command)                                                                                                           \
    const struct command_item *item = (command)->items;                                                                                    \
    item->kind != COMMAND_ITEM_END;                                                                                                        \
    item++

/* ---- parsing ---- */

static void options_are_read_in_every_spelling(void **state)
{
    (void)state;
    static const char *const spellings[] = {"spindle check --config f.yaml --json", "spindle check --config=f.yaml --json",
                                            "spindle check -c f.yaml --json", "spindle check --json -cf.yaml"};
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        assert_int_equal(parse(spellings[i]), 0);
        assert_int_equal(line.action, COMMAND_ACTION_RUN);
        assert_string_equal(line.command->name, "check");
        const struct check_arguments *arguments = line.arguments;
        assert_ptr_equal(arguments->row, line.command);
        assert_true(arguments->config_given);
        assert_string_equal(arguments->config, "f.yaml");
        assert_true(arguments->json);
        assert_int_equal(arguments->assignment_count, 0);
    }
    assert_int_equal(parse("spindle check"), 0);
    const struct check_arguments *arguments = line.arguments;
    assert_false(arguments->config_given);
    assert_null(arguments->config);
    assert_false(arguments->json);
    assert_int_equal(parse("spindle check -c a -c b"), 0); /* the last one counts */
    assert_string_equal(((const struct check_arguments *)line.arguments)->config, "b");
}

static void settings_are_collected_in_order(void **state)
{
    (void)state;
    assert_int_equal(parse("spindle check --set bus.port=1 --set=data.dir=a=b"), 0);
    const struct check_arguments *arguments = line.arguments;
    assert_int_equal(arguments->assignment_count, 2);
    assert_string_equal(arguments->assignments[0].option, "--set");
    assert_null(arguments->assignments[0].path);
    assert_string_equal(arguments->assignments[0].text, "bus.port=1");
    assert_string_equal(arguments->assignments[1].text, "data.dir=a=b");
}

static void settings_have_a_limit(void **state)
{
    (void)state;
    struct buffer words;
    buffer_init(&words, 1 << 20);
    buffer_append_text(&words, "spindle check");
    for (int i = 0; i < COMMAND_ASSIGNMENTS_MAX; i++)
        buffer_append_text(&words, " --set a=b");
    assert_int_equal(parse(buffer_text(&words)), 0);
    buffer_append_text(&words, " --set a=b");
    expect_mistake(buffer_text(&words), "spindle check: --set: more than 128 settings on the command line; put them into a file\n");
    buffer_fini(&words);
}

static void words_and_arguments_are_read(void **state)
{
    (void)state;
    assert_int_equal(parse("spindle completion fish"), 0);
    assert_int_equal(((const struct completion_arguments *)line.arguments)->shell, COMMAND_SHELL_FISH);
    assert_int_equal(parse("spindle completion -- bash"), 0);
    assert_int_equal(parse("spindle help"), 0);
    assert_false(((const struct help_arguments *)line.arguments)->command_given);
    assert_int_equal(parse("spindle help check"), 0);
    assert_string_equal(((const struct help_arguments *)line.arguments)->command, "check");
}

static void mistakes_are_named_with_what_was_meant(void **state)
{
    (void)state;
    expect_mistake("spindle", "spindle: a command is missing\n");
    expect_mistake("spindle chek", "spindle: unknown command `chek`; did you mean `check`?\n");
    expect_mistake("spindle zzzzzz", "spindle: unknown command `zzzzzz`\n");
    expect_mistake("spindle -c f.yaml", "spindle: unknown option `-c`; options stand behind the command they belong to\n");
    expect_mistake("spindle check --confg f.yaml", "spindle check: unknown option `--confg`; did you mean `--config`?\n"
                                                   "spindle check: unexpected argument `f.yaml`\n");
    expect_mistake("spindle check -x", "spindle check: unknown option `-x`\n");
    expect_mistake("spindle check --zzzzzz=1", "spindle check: unknown option `--zzzzzz=1`\n");
    expect_mistake("spindle check --config", "spindle check: --config: expected FILE behind it\n");
    expect_mistake("spindle check --config --json", "spindle check: --config: expected FILE behind it\n");
    expect_mistake("spindle check -c", "spindle check: --config: expected FILE behind it\n");
    expect_mistake("spindle check --config=", "spindle check: --config: expected a text that is not empty, found nothing\n");
    expect_mistake("spindle check --json=1", "spindle check: --json takes no value\n");
    expect_mistake("spindle check --no-json", "spindle check: unknown option `--no-json`; did you mean `--json`?\n");
    expect_mistake("spindle check a -", "spindle check: unexpected argument `a`\nspindle check: unexpected argument `-`\n");
    expect_mistake("spindle completion", "spindle completion: SHELL is missing\n");
    expect_mistake("spindle completion bsh",
                   "spindle completion: SHELL: expected one of `bash`, `zsh`, `fish`, found `bsh`; did you mean `bash`?\n");
    expect_mistake("spindle completion bash zsh", "spindle completion: unexpected argument `zsh`\n");
    assert_string_equal(line.command->name, "completion"); /* known, so that its help can be pointed to */
}

static void help_and_version_are_asked_for(void **state)
{
    (void)state;
    assert_int_equal(parse("spindle --help"), 0);
    assert_int_equal(line.action, COMMAND_ACTION_HELP);
    assert_null(line.command);
    assert_int_equal(parse("spindle -V"), 0);
    assert_int_equal(line.action, COMMAND_ACTION_VERSION);
    assert_int_equal(parse("spindle completion -h"), 0); /* its argument is not missed */
    assert_int_equal(line.action, COMMAND_ACTION_HELP);
    assert_string_equal(line.command->name, "completion");
}

/* ---- the table ---- */

/* A text for an argument that must be there, or nothing. */
static const char *required_argument(const struct command *command)
{
    for (EACH_ITEM(item, command))
        if (item->kind == COMMAND_ITEM_ARGUMENT && item->required)
            return " 1";
    return "";
}

static void every_option_takes_its_initial_value_and_refuses_another_type(void **state)
{
    (void)state;
    for (EACH_COMMAND(command)) {
        const char *argument = required_argument(command);
        for (EACH_ITEM(item, command)) {
            char words[256];
            enum value_kind kind = item->type.kind;
            if (item->kind != COMMAND_ITEM_VALUE)
                continue;
            if (item->initial) {
                snprintf(words, sizeof words, "spindle %s %s=%s%s", command->name, item->name, item->initial, argument);
                assert_int_equal(parse(words), 0);
            }
            snprintf(words, sizeof words, "spindle %s %s=?%s", command->name, item->name, argument);
            assert_int_equal(parse(words), kind == VALUE_TEXT ? 0 : ERR_INVALID);
        }
    }
}

static void names_and_letters_are_unique(void **state)
{
    (void)state;
    for (EACH_COMMAND(command)) {
        assert_true(strlen(command->name) < COMMAND_NAME_MAX);
        size_t count = 0;
        for (EACH_ITEM(item, command)) {
            count++;
            if (!is_option(item))
                continue;
            assert_true(strlen(item->name) < COMMAND_NAME_MAX - 8);
            assert_string_not_equal(item->name, "--help");
            assert_int_not_equal(item->letter, 'h');
            for (const struct command_item *other = command->items; other < item; other++)
                if (is_option(other)) {
                    assert_string_not_equal(item->name, other->name);
                    assert_true(item->letter == 0 || item->letter != other->letter);
                }
        }
        assert_true(count < COMMAND_ITEMS_MAX);
    }
}

/* Both words of a command of two are needed, and a wrong second one is noticed. */
static void groups_need_a_second_word(void **state)
{
    (void)state;
    for (EACH_COMMAND(command)) {
        const char *space = strchr(command->name, ' ');
        char words[256], group[COMMAND_NAME_MAX];
        snprintf(words, sizeof words, "spindle %s --help", command->name);
        assert_int_equal(parse(words), 0);
        assert_ptr_equal(line.command, command);
        if (!space)
            continue;
        snprintf(group, sizeof group, "%.*s", (int)(space - command->name), command->name);
        assert_true(command_is_group(group));
        snprintf(words, sizeof words, "spindle %s", group);
        assert_int_equal(parse(words), ERR_INVALID);
        assert_string_equal(line.group, group);
        static const char *const helps[] = {"--help", "-h", "help"};
        for (unsigned i = 0; i < 3; i++) {
            snprintf(words, sizeof words, "spindle %s %s", group, helps[i]);
            assert_int_equal(parse(words), 0);
            assert_string_equal(line.group, group);
            assert_int_equal(line.action, COMMAND_ACTION_HELP);
        }
        snprintf(words, sizeof words, "spindle %s zzzzzz", group);
        expect_mistake(words, "spindle: unknown command `zzzzzz`\n");
    }
    assert_false(command_is_group("check"));
    assert_false(command_is_group(""));
}

/* ---- what is made from it ---- */

static void help_names_every_option(void **state)
{
    (void)state;
    static const struct command_help_style style = {80, "", ""};
    line.action = COMMAND_ACTION_HELP;
    assert_int_equal(command_help_write(&line, &style, &text), 0);
    for (EACH_COMMAND(command))
        assert_true((strstr(buffer_text(&text), command->name) != NULL) == !command->hidden);
    for (EACH_COMMAND(command)) {
        line.command = command;
        buffer_clear(&text);
        assert_int_equal(command_help_write(&line, &style, &text), 0);
        for (EACH_ITEM(item, command))
            assert_non_null(strstr(buffer_text(&text), item->name));
        for (const char *row = buffer_text(&text); *row; row += strcspn(row, "\n") + 1)
            if (strncmp(row, "  # ", 4) != 0 && strncmp(row, "  spindle", 9) != 0)
                assert_true(strcspn(row, "\n") <= 80);
    }
    line.command = NULL;
}

static void completion_knows_every_option(void **state)
{
    (void)state;
    static const enum command_shell shells[] = {COMMAND_SHELL_BASH, COMMAND_SHELL_ZSH, COMMAND_SHELL_FISH};
    for (size_t i = 0; i < 3; i++) {
        buffer_clear(&text);
        assert_int_equal(completion_write(shells[i], &text), 0);
        for (EACH_COMMAND(command))
            for (EACH_ITEM(item, command))
                if (is_option(item) && !command->hidden)
                    assert_non_null(strstr(buffer_text(&text), item->name + (shells[i] == COMMAND_SHELL_FISH ? 2 : 0)));
    }
    assert_int_equal(completion_write((enum command_shell)99, &text), ERR_INVALID);
}

static void the_manual_page_knows_every_command(void **state)
{
    (void)state;
    assert_int_equal(docs_man_write(&text), 0);
    for (EACH_COMMAND(command)) {
        char heading[COMMAND_NAME_MAX + 32];
        snprintf(heading, sizeof heading, "\n.SS spindle %s", command->name);
        assert_true((strstr(buffer_text(&text), heading) != NULL) == !command->hidden);
    }
    for (const char *row = buffer_text(&text); *row; row += strcspn(row, "\n") + 1)
        assert_true(row[0] != '\'' && (row[0] != '.' || (row[1] >= 'A' && row[1] <= 'Z')));
}

static void the_committed_page_is_the_generated_one(void **state)
{
    (void)state;
    struct buffer file;
    buffer_init(&file, 1 << 20);
    assert_int_equal(docs_commands_write(&text), 0);
    FILE *stored = fopen("docs/commands.md", "rb");
    if (!stored)
        fail_msg("docs/commands.md cannot be read; run `build/spindle docs commands > docs/commands.md`");
    assert_int_equal(buffer_reserve(&file, 1 << 19), 0);
    file.length = fread(file.data, 1, 1 << 19, stored);
    fclose(stored);
    if (file.length != text.length || memcmp(file.data, text.data, text.length) != 0)
        fail_msg("docs/commands.md is out of date; run `build/spindle docs commands > docs/commands.md`");
    buffer_fini(&file);
}

static void a_full_buffer_is_reported(void **state)
{
    (void)state;
    for (size_t limit = 0; limit < 1500; limit += 97) {
        struct buffer small;
        buffer_init(&small, limit);
        assert_int_equal(docs_commands_write(&small), ERR_LIMIT);
        assert_true(small.length <= limit);
        buffer_clear(&small);
        assert_int_equal(docs_man_write(&small), ERR_LIMIT);
        buffer_clear(&small);
        assert_int_equal(docs_configuration_write(&small), ERR_LIMIT);
        buffer_fini(&small);
    }
}

/* ---- terminal ---- */

static void a_line_is_cut_to_the_columns_there_are(void **state)
{
    (void)state;
    char out[32];
    assert_int_equal(terminal_fit("hello", 10, out, sizeof out), 5);
    assert_string_equal(out, "hello");
    assert_int_equal(terminal_fit("hello", 3, out, sizeof out), 3);
    assert_string_equal(out, "hel");
    assert_int_equal(terminal_fit("ä\xe6\xbc\xa2\xe6\xbc\xa2", 4, out, sizeof out), 3); /* the second wide one does not fit */
    assert_string_equal(out, "ä\xe6\xbc\xa2");
    assert_int_equal(terminal_fit("a\n\x1b[1m\xff\xcc\x81", 10, out, sizeof out), 7);
    assert_string_equal(out, "a  [1m \xcc\x81");
    assert_int_equal(terminal_fit("ää", 10, out, 4), 1); /* a character is not torn */
    assert_string_equal(out, "ä");
    assert_int_equal(terminal_fit("x", 0, out, sizeof out), 0);
    assert_string_equal(out, "");
}

static void no_escapes_leave_for_a_file(void **state)
{
    (void)state;
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_string_equal(terminal_style(fileno(file), TERMINAL_RED), "");
    assert_int_equal(terminal_columns(fileno(file)), 80);
    fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        TEST(options_are_read_in_every_spelling),
        TEST(settings_are_collected_in_order),
        TEST(settings_have_a_limit),
        TEST(words_and_arguments_are_read),
        TEST(mistakes_are_named_with_what_was_meant),
        TEST(help_and_version_are_asked_for),
        TEST(every_option_takes_its_initial_value_and_refuses_another_type),
        TEST(names_and_letters_are_unique),
        TEST(groups_need_a_second_word),
        TEST(help_names_every_option),
        TEST(completion_knows_every_option),
        TEST(the_manual_page_knows_every_command),
        TEST(the_committed_page_is_the_generated_one),
        TEST(a_full_buffer_is_reported),
        TEST(a_line_is_cut_to_the_columns_there_are),
        TEST(no_escapes_leave_for_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
