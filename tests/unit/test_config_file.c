/* config/yaml and config/config: every kind of mistake in a file, with its place; and the limits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "config/config.h"
#include "config/yaml.h"
#include "config_text.h"
#include "folder.h"

/* ---- keys ---- */

static void unknown_keys_are_mistakes_with_a_suggestion(void **state)
{
    (void)state;
    expect_mistake("drilling:\n  estimater: auto\n", "f.yaml:2:3: unknown key `drilling.estimater`; did you mean `estimator`?\n");
    expect_mistake("driling:\n  estimator: auto\n", "f.yaml:1:1: unknown key `driling`; did you mean `drilling`?\n");
    expect_mistake("estimator: auto\n", "f.yaml:1:1: unknown key `estimator`; did you mean `drilling.estimator`?\n");
    expect_mistake("mqtt:\n  listener:\n    time_windwo: 3\n",
                   "f.yaml:3:5: unknown key `mqtt.listener.time_windwo`; did you mean `time_window`?\n");
    expect_mistake("high_throughputs: {}\n", "f.yaml:1:1: unknown key `high_throughputs`; did you mean `high_throughput`?\n");
    expect_mistake("high_throughput:\n  queue:\n    backnd: kafka\n",
                   "f.yaml:3:5: unknown key `high_throughput.queue.backnd`; did you mean `backend`?\n");
    expect_mistake("zzz: 1\n", "f.yaml:1:1: unknown key `zzz`\n");
    expect_mistake("bus.port: 1\n", "f.yaml:1:1: unknown key `bus.port`; a section and its keys stand in lines of their own, indented\n");
    expect_mistake("bus:\n  \"\\e[1m\": 1\n", "f.yaml:2:3: unknown key `bus.\\x1b[1m`\n");
}

static void sections_hold_keys(void **state)
{
    (void)state;
    expect_mistake("bus: 5\n", "f.yaml:1:6: `bus` is a section: expected keys below it, found a value\n");
    expect_mistake("mqtt:\n  broker: [a]\n", "f.yaml:2:11: `mqtt.broker` is a section: expected keys below it, found a list\n");
    expect_mistake("[a]\n", "f.yaml:1:1: expected sections such as `bus:` and `mqtt:`, found a list\n");
    expect_mistake("hello\n", "f.yaml:1:1: expected sections such as `bus:` and `mqtt:`, found a value\n");
}

static void duplicated_keys_are_mistakes(void **state)
{
    (void)state;
    expect_mistake("bus:\n  port: 1\n  threads: 2\n  port: 3\n", "f.yaml:4:3: duplicate key `port`; it stands first in line 2\n");
    expect_mistake("bus:\n  port: 1\nbus:\n  port: 2\n", "f.yaml:3:1: duplicate key `bus`; it stands first in line 1\n");
}

static void all_mistakes_are_found_in_one_run_in_the_order_of_the_file(void **state)
{
    (void)state;
    expect_mistake(
        "bus:\n"
        "  port: x\n"
        "  prot: 1\n"
        "drilling: {estimator: best}\n"
        "mqtt:\n"
        "  listener:\n"
        "    toolid: a\n"
        "    time_window: -1\n"
        "    time_window: 2\n",
        "f.yaml:2:9: `bus.port`: expected a whole number from 0 to 65535, found `x`\n"
        "f.yaml:3:3: unknown key `bus.prot`; did you mean `port`?\n"
        "f.yaml:4:23: `drilling.estimator`: expected one of `auto`, `gradient`, `gradient30`, `gradient30_by_order`, `segments`, "
        "`production`, found `best`\n"
        "f.yaml:7:13: note: `mqtt.listener.toolid` has no effect. Every tool is listened to, as before.\n"
        "f.yaml:8:18: `mqtt.listener.time_window`: expected a number from 0.1 to 86400 s, found `-1`\n"
        "f.yaml:9:5: duplicate key `time_window`; it stands first in line 8\n");
}

static void mistakes_have_a_limit(void **state)
{
    (void)state;
    char yaml[4096] = "bus:\n";
    for (int i = 0; i < PROBLEMS_MAX + 3; i++)
        snprintf(yaml + strlen(yaml), sizeof yaml - strlen(yaml), "  qqqqq%d: 1\n", i);
    assert_int_equal(load(yaml), ERR_CONFIG);
    assert_int_equal(problems.count, PROBLEMS_MAX);
    assert_int_equal(problems.errors, PROBLEMS_MAX + 3);
    assert_int_equal(problems.left_out, 3);
    assert_non_null(strstr(problems_text(), "\n... and 3 more\n"));
}

/* ---- YAML ---- */

static void what_is_no_yaml(void **state)
{
    (void)state;
    expect_mistake("bus:\n\tport: 1\n", "f.yaml:2:1: not YAML: a tab stands here; indent with spaces\n");
    expect_mistake("bus:\n  port: 1\n port: 2\n",
                   "f.yaml:3:2: not YAML: did not find expected key (while parsing a block mapping that begins in line 1)\n");
    expect_mistake("bus: a: b\n",
                   "f.yaml:1:7: not YAML: a `:` is not expected here; put the value in quotes, or look at the indentation\n");
    expect_mistake("bus:\n  host: @x\n", "f.yaml:2:9: not YAML: a value cannot start with `@`; put it in quotes\n");
    expect_mistake("bus:\n  port: 1\n  threads 5\n", "f.yaml:3:3: not YAML: a `:` is missing after this key\n");
    expect_mistake("bus: {port: 5\n",
                   "f.yaml:2:1: not YAML: did not find expected ',' or '}' (while parsing a flow mapping that begins in line 1)\n");
    expect_mistake("bus:\n  host: \"abc\n",
                   "f.yaml:3:1: not YAML: found unexpected end of stream (while scanning a quoted scalar that begins in line 2)\n");
    expect_mistake("bus:\n  host: a\x01\n", "f.yaml:2:10: not YAML: control characters are not allowed (character 0x01)\n");
    expect_mistake("bus:\n  host: a\xff\n", "f.yaml:2:10: not UTF-8 (byte 0xff); save the file as UTF-8\n");
    expect_mistake("a\xc3\xa4\xc3\xa4: \xe4\n", "f.yaml:1:6: not UTF-8 (byte 0xe4); save the file as UTF-8\n");
    expect_mistake("\xff\xfe"
                   "b\n",
                   "f.yaml:1:1: not UTF-8 (byte 0xff); save the file as UTF-8\n");
}

static void a_file_without_settings(void **state)
{
    (void)state;
    static const char empty[] = "f.yaml:1:1: the file holds no settings; to use the defaults, name no file\n";
    expect_mistake("", empty);
    expect_mistake("# nothing\n\n", empty);
    expect_mistake("---\n...\n", empty);
    expect_mistake("~\n", empty);
    expect_good("{}\n");
}

static void what_of_yaml_is_not_supported(void **state)
{
    (void)state;
    expect_mistake("bus: &a\n  port: 1\nhttp:\n  port: *b\n",
                   "f.yaml:1:6: anchors (`a`) are not supported; write the value out where it is needed\n"
                   "f.yaml:4:9: aliases (`b`) are not supported; write the value out\n");
    expect_mistake("bus:\n  <<: {port: 1}\n", "f.yaml:2:3: merge keys (`<<`) are not supported; write the settings out\n");
    expect_mistake("bus:\n  port: !!int 5\n", "f.yaml:2:9: tags (`tag:yaml.org,2002:int`) are not supported; a setting has its own type\n");
    expect_mistake("bus:\n  port: 1\n---\nbus:\n  port: x\n",
                   "f.yaml:3:1: a second document begins here; a configuration is one document\n");
    expect_mistake("? [a, b]\n: 1\nbus: {port: 5}\n", "f.yaml:1:3: a key must be a word\n");
    expect_mistake("?\n: 5\n", "f.yaml:1:2: a key must be a word\n");
    expect_mistake("*a : 5\n", "f.yaml:1:1: aliases (`a`) are not supported; write the value out\n");
    expect_mistake("\"a\\0b\": 5\n", "f.yaml:1:1: key `a\\x00b` is no text\n");
}

static void files_have_limits(void **state)
{
    (void)state;
    char deep[64] = "";
    memset(deep, '[', YAML_TREE_DEPTH_MAX + 1);
    expect_mistake(deep, "f.yaml:1:17: nested more than 16 levels deep\n");

    char *many = calloc(1, 64 * YAML_TREE_NODES_MAX);
    strcpy(many, "logging:\n");
    char *put = many + strlen(many);
    for (int i = 0; i < YAML_TREE_NODES_MAX / 2 + 1; i++)
        put += sprintf(put, "  k%d: 1\n", i);
    assert_int_equal(load(many), ERR_CONFIG);
    assert_non_null(strstr(problems_text(), ": the file holds more than 4096 keys and values\n"));
    free(many);

    char *large = malloc(YAML_TREE_BYTES_MAX + 2);
    memset(large, '#', YAML_TREE_BYTES_MAX + 1);
    large[YAML_TREE_BYTES_MAX + 1] = 0;
    expect_mistake(large, "f.yaml: larger than 262144 bytes; this is no configuration\n");
    large[YAML_TREE_BYTES_MAX] = 0;
    expect_mistake(large, "f.yaml:1:1: the file holds no settings; to use the defaults, name no file\n");
    free(large);

    char key[YAML_TREE_KEY_MAX + 8] = "";
    memset(key, 'k', YAML_TREE_KEY_MAX + 1);
    strcat(key, ": 1");
    assert_int_equal(load(key), ERR_CONFIG);
    assert_non_null(strstr(problems_text(), "kkk` is too long\n"));
}

static void files_that_cannot_be_read(void **state)
{
    (void)state;
    char path[512];
    struct config_sources sources = {.file = path};
    snprintf(path, sizeof path, "%s/none.yaml", test_folder);
    assert_int_equal(config_load(&config, &sources, &problems), ERR_CONFIG);
    assert_non_null(strstr(problems_text(), "/none.yaml: cannot be read: No such file or directory\n"));
    problems_fini(&problems);
    snprintf(path, sizeof path, "%s", test_folder);
    assert_int_equal(config_load(&config, &sources, &problems), ERR_CONFIG);
    assert_non_null(strstr(problems_text(), ": cannot be read: Is a directory\n"));
    problems_fini(&problems);
    if (geteuid() == 0)
        return; /* root reads everything */
    snprintf(path, sizeof path, "%s/secret.yaml", test_folder);
    FILE *file = fopen(path, "w");
    fclose(file);
    assert_int_equal(chmod(path, 0), 0);
    assert_int_equal(config_load(&config, &sources, &problems), ERR_CONFIG);
    assert_non_null(strstr(problems_text(), ": cannot be read: Permission denied\n"));
}

/* A mistake in the file does not hide one on the command line. */
static void an_unreadable_file_does_not_hide_other_mistakes(void **state)
{
    (void)state;
    struct config_assignment assignment = {"--port", "bus.port", "x"};
    struct config_sources sources = {.file = "/nowhere/f.yaml", .assignments = &assignment, .assignment_count = 1};
    assert_int_equal(config_load(&config, &sources, &problems), ERR_CONFIG);
    assert_string_equal(problems_text(), "/nowhere/f.yaml: cannot be read: No such file or directory\n"
                                         "--port: `bus.port`: expected a whole number from 0 to 65535, found `x`\n");
    assert_int_equal(load_with("bus:\n\tport: 1\n", NULL, &assignment, 1), ERR_CONFIG);
    assert_int_equal(problems.errors, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        TEST(unknown_keys_are_mistakes_with_a_suggestion),
        TEST(sections_hold_keys),
        TEST(duplicated_keys_are_mistakes),
        TEST(all_mistakes_are_found_in_one_run_in_the_order_of_the_file),
        TEST(mistakes_have_a_limit),
        TEST(what_is_no_yaml),
        TEST(a_file_without_settings),
        TEST(what_of_yaml_is_not_supported),
        TEST(files_have_limits),
        TEST(files_that_cannot_be_read),
        TEST(an_unreadable_file_does_not_hide_other_mistakes),
    };
    return cmocka_run_group_tests(tests, test_folder_make, test_folder_remove);
}
