/* config/config and config/settings: what a configuration means, and from where. */
#include "config/config.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/docs.h"
#include "config/settings.h"
#include "config_text.h"

/* ---- the table ---- */

static void every_initial_value_is_valid(void **state)
{
    (void)state;
    assert_int_equal(load(NULL), 0);
    assert_string_equal(problems_text(), "");
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++) {
        assert_true(config_is_initial(&config, (enum config_setting)i));
        assert_int_equal(config.origins[i].source, CONFIG_FROM_TABLE);
    }
    assert_int_equal(config.bus_port, 1883);
    assert_int_equal(config.bus_host.count, 2);
    assert_string_equal(config.bus_host.items[0], "0.0.0.0");
    assert_string_equal(config.bus_host.items[1], "::");
    assert_int_equal(config.bus_packet_size_max, 16 << 20);
    assert_string_equal(config.data_dir, "./spindle-data");
    assert_int_equal(config.data_durability, CONFIG_DURABILITY_DISK);
    assert_int_equal(config.drilling_estimator, CONFIG_ESTIMATOR_AUTO);
    assert_true(config.pipeline_grace_s == 1.0);
    assert_string_equal(config.drilling_algo_version, SPINDLE_VERSION);
}

/* Field and variable follow from the path, and no two settings share a name. */
static void names_follow_one_rule(void **state)
{
    (void)state;
    static const char *const fields[] = {
#define BOOL(field, path, initial, effect, help)                   #field,
#define INT(field, path, initial, min, max, effect, help)          #field,
#define NUMBER(field, path, initial, min, max, unit, effect, help) #field,
#define SIZE(field, path, initial, min, max, effect, help)         #field,
#define TEXT(field, path, initial, effect, help)                   #field,
#define CHOICE(field, path, group, initial, effect, help)          #field,
#define LIST(field, path, initial, effect, help)                   #field,
#include "config/settings.def"
    };
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++) {
        char path[SETTINGS_PATH_MAX];
        snprintf(path, sizeof path, "%s", settings_rows[i].path);
        for (char *c = path; *c; c++)
            *c = *c == '.' ? '_' : *c;
        assert_string_equal(path, fields[i]);
        struct settings_match match = settings_find(settings_rows[i].path);
        assert_int_equal(match.kind, SETTINGS_SETTING);
        assert_int_equal(match.setting, i);
        char *last = strrchr(settings_rows[i].path, '.');
        assert_non_null(last);
        snprintf(path, sizeof path, "%.*s", (int)(last - settings_rows[i].path), settings_rows[i].path);
        assert_int_equal(settings_find(path).kind, SETTINGS_SECTION);
        char variable[SETTINGS_PATH_MAX];
        enum config_setting setting;
        settings_variable_name(settings_rows[i].path, variable);
        assert_true(settings_find_variable(variable, &setting));
        assert_int_equal(setting, i);
    }
}

static void every_choice_names_all_its_words(void **state)
{
    (void)state;
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const struct value_type *type = &settings_rows[i].type;
        if (type->kind != VALUE_WORD)
            continue;
        char text[VALUE_MESSAGE_MAX];
        value_describe(type, text);
        for (size_t j = 0; type->words[j].word; j++)
            assert_non_null(strstr(text, type->words[j].word));
    }
}

/* ---- values ---- */

static void values_of_every_kind_are_read(void **state)
{
    (void)state;
    expect_good("bus:\n"
                "  host: [127.0.0.1, \"::1\"]\n"
                "  port: 0\n"
                "  max_connections: 1_000\n"
                "  packet_size_max: 256MiB\n"
                "  stall_timeout_s: 1.5e1\n"
                "data: {dir: /x, durability: memory}\n"
                "journal:\n"
                "  retention_size: 0\n"
                "  segment_size: 1048576\n"
                "drilling:\n"
                "  enabled: No\n"
                "  estimator: 'segments'\n"
                "http:\n"
                "  port: \"9091\"\n");
    assert_int_equal(config.bus_host.count, 2);
    assert_string_equal(config.bus_host.items[1], "::1");
    assert_int_equal(config.bus_port, 0);
    assert_int_equal(config.bus_max_connections, 1000);
    assert_int_equal(config.bus_packet_size_max, 256u << 20);
    assert_true(config.bus_stall_timeout_s == 15.0);
    assert_string_equal(config.data_dir, "/x");
    assert_int_equal(config.data_durability, CONFIG_DURABILITY_MEMORY);
    assert_int_equal(config.journal_retention_size, 0);
    assert_int_equal(config.journal_segment_size, 1 << 20);
    assert_false(config.drilling_enabled);
    assert_int_equal(config.drilling_estimator, CONFIG_ESTIMATOR_SEGMENTS);
    assert_int_equal(config.http_port, 9091);
    struct config_origin origin = config.origins[CONFIG_SETTING_bus_port];
    assert_int_equal(origin.source, CONFIG_FROM_FILE);
    assert_string_equal(origin.place.source, "f.yaml");
    assert_int_equal(origin.place.line, 3);
    assert_int_equal(origin.place.column, 9);
}

static void a_section_without_keys_and_a_text_without_value_are_allowed(void **state)
{
    (void)state;
    expect_good("bus:\nmqtt:\n  broker:\n    username:\n    password: ~\n");
    assert_string_equal(config.mqtt_broker_username, "");
    expect_good("bus: null\n");
    expect_good("%YAML 1.1\n---\nbus:\n  port: 5\n...\n");
    expect_good("\xef\xbb\xbf"
                "bus:\n  port: 5\n");
    assert_int_equal(config.bus_port, 5);
}

static void wrong_whole_numbers(void **state)
{
    (void)state;
#define PORT "`bus.port`: expected a whole number from 0 to 65535, found "
    expect_mistake("bus:\n  port: abc\n", "f.yaml:2:9: " PORT "`abc`\n");
    expect_mistake("bus:\n  port: 65536\n", "f.yaml:2:9: " PORT "`65536`\n");
    expect_mistake("bus:\n  port: -1\n", "f.yaml:2:9: " PORT "`-1`\n");
    expect_mistake("bus:\n  port: 1883.0\n", "f.yaml:2:9: " PORT "`1883.0`\n");
    expect_mistake("bus:\n  port: 0x75b\n", "f.yaml:2:9: " PORT "`0x75b`\n");
    expect_mistake("bus:\n  port: 01883\n", "f.yaml:2:9: " PORT "`01883`\n");
    expect_mistake("bus:\n  port: 18_\n", "f.yaml:2:9: " PORT "`18_`\n");
    expect_mistake("bus:\n  port: 99999999999999999999999999\n", "f.yaml:2:9: " PORT "`99999999999999999999999999`\n");
    expect_mistake("bus:\n  port: true\n", "f.yaml:2:9: " PORT "`true`\n");
    expect_mistake("bus:\n  port: \"\"\n", "f.yaml:2:9: " PORT "nothing\n");
    expect_mistake("bus:\n  port:\n", "f.yaml:2:8: " PORT "nothing\n");
    expect_mistake("bus:\n  port: [1]\n", "f.yaml:2:9: " PORT "a list\n");
    expect_mistake("bus:\n  port: {a: 1}\n", "f.yaml:2:9: " PORT "a section\n");
    expect_mistake("bus:\n  max_connections: 0\n",
                   "f.yaml:2:20: `bus.max_connections`: expected a whole number from 1 to 1000000, found `0`\n");
#undef PORT
}

static void wrong_numbers_sizes_and_truths(void **state)
{
    (void)state;
    expect_mistake("pipeline:\n  grace_s: abc\n", "f.yaml:2:12: `pipeline.grace_s`: expected a number from 0 to 60 s, found `abc`\n");
    expect_mistake("pipeline:\n  grace_s: nan\n", "f.yaml:2:12: `pipeline.grace_s`: expected a number from 0 to 60 s, found `nan`\n");
    expect_mistake("pipeline:\n  grace_s: 0x1\n", "f.yaml:2:12: `pipeline.grace_s`: expected a number from 0 to 60 s, found `0x1`\n");
    expect_mistake("pipeline:\n  grace_s: 61\n", "f.yaml:2:12: `pipeline.grace_s`: expected a number from 0 to 60 s, found `61`\n");
    expect_mistake("pipeline:\n  grace_s: 1e999\n", "f.yaml:2:12: `pipeline.grace_s`: expected a number from 0 to 60 s, found `1e999`\n");
    expect_mistake("mqtt:\n  listener:\n    time_window: 0\n",
                   "f.yaml:3:18: `mqtt.listener.time_window`: expected a number from 0.1 to 86400 s, found `0`\n");
    expect_mistake("journal:\n  segment_size: 16M\n",
                   "f.yaml:2:17: `journal.segment_size`: expected a size from 1MiB to 4GiB, found `16M`; did you mean `16MiB`?\n");
    expect_mistake("journal:\n  segment_size: 16 mb\n",
                   "f.yaml:2:17: `journal.segment_size`: expected a size from 1MiB to 4GiB, found `16 mb`; did you mean `16MiB`?\n");
    expect_mistake(
        "journal:\n  segment_size: 16 apples\n",
        "f.yaml:2:17: `journal.segment_size`: expected a size from 1MiB to 4GiB, found `16 apples`; a size is a number of bytes, or has "
        "KiB, MiB, GiB or TiB behind it\n");
    expect_mistake("journal:\n  segment_size: 1\n", "f.yaml:2:17: `journal.segment_size`: expected a size from 1MiB to 4GiB, found `1`\n");
    expect_mistake("journal:\n  segment_size: 9999999TiB\n",
                   "f.yaml:2:17: `journal.segment_size`: expected a size from 1MiB to 4GiB, found `9999999TiB`\n");
    expect_mistake("http:\n  enabled: ja\n", "f.yaml:2:12: `http.enabled`: expected `true` or `false`, found `ja`\n");
    expect_mistake("http:\n  enabled: 1\n", "f.yaml:2:12: `http.enabled`: expected `true` or `false`, found `1`\n");
}

static void wrong_words(void **state)
{
    (void)state;
    expect_mistake(
        "mqtt:\n  listener:\n    duplicate_handling: ignor\n",
        "f.yaml:3:25: `mqtt.listener.duplicate_handling`: expected one of `ignore`, `replace`, `error`, found `ignor`; did you mean "
        "`ignore`?\n");
    expect_mistake(
        "mqtt:\n  listener:\n    duplicate_handling: REPLACE\n",
        "f.yaml:3:25: `mqtt.listener.duplicate_handling`: expected one of `ignore`, `replace`, `error`, found `REPLACE`; did you mean "
        "`replace`?\n");
    expect_mistake(
        "high_throughput:\n  queue:\n    backend: redis\n",
        "f.yaml:3:14: `mqtt.high_throughput.queue.backend`: expected one of `embedded`, `rabbitmq`, `kafka`, `hybrid`, found `redis`\n");
    expect_mistake(
        "mqtt:\n  high_throughput:\n    architecture: hybrd\n",
        "f.yaml:3:19: `mqtt.high_throughput.architecture`: expected one of `async`, `rabbitmq`, `kafka`, `hybrid`, found `hybrd`; did you "
        "mean `hybrid`?\n");
    expect_mistake(
        "mqtt:\n  depth_validation:\n    negative_depth_behavior: drop\n",
        "f.yaml:3:30: `mqtt.depth_validation.negative_depth_behavior`: expected one of `publish`, `skip`, `warning`, found `drop`\n");
}

static void wrong_texts_topics_and_lists(void **state)
{
    (void)state;
#define ROOT "`mqtt.listener.root`: expected topic levels without `+` and `#`, and no `/` at either end, found "
    expect_mistake("mqtt: {listener: {root: A/#}}\n", "f.yaml:1:25: " ROOT "`A/#`\n");
    expect_mistake("mqtt: {listener: {root: /A}}\n", "f.yaml:1:25: " ROOT "`/A`\n");
    expect_mistake("mqtt: {listener: {root: A/}}\n", "f.yaml:1:25: " ROOT "`A/`\n");
    expect_mistake("mqtt: {listener: {root: }}\n", "f.yaml:1:25: " ROOT "nothing\n");
    expect_mistake("mqtt: {listener: {root: \"A\\0B\"}}\n", "f.yaml:1:25: " ROOT "`A\\x00B`, which contains a zero byte\n");
    expect_good("mqtt: {listener: {root: A/B}}\n");
    char text[VALUE_TOPIC_MAX + 64];
    int start = snprintf(text, sizeof text, "mqtt: {listener: {root: ");
    memset(text + start, 'a', VALUE_TOPIC_MAX);
    snprintf(text + start + VALUE_TOPIC_MAX, sizeof text - (size_t)start - VALUE_TOPIC_MAX, "}}\n");
    expect_good(text);
    snprintf(text + start + VALUE_TOPIC_MAX, sizeof text - (size_t)start - VALUE_TOPIC_MAX, "a}}\n");
    assert_int_equal(load_with(text, NULL, NULL, 0), ERR_CONFIG);
    assert_non_null(strstr(problems_text(), ", which is longer than 1000 bytes"));
#undef ROOT
    expect_mistake("data:\n  dir: \"\"\n", "f.yaml:2:8: `data.dir`: expected a text that is not empty, found nothing\n");
    expect_mistake("bus:\n  host: []\n", "f.yaml:2:9: `bus.host`: expected 1 to 32 items\n");
    expect_mistake("bus:\n  host: [a, {b: c}, \"\"]\n", "f.yaml:2:13: `bus.host`: expected a text, found a section\n");
    expect_mistake("bus:\n  host: [a, \"\"]\n", "f.yaml:2:13: `bus.host`: expected a text that is not empty, found nothing\n");
    expect_mistake("bus:\n  host: a,,b\n", "f.yaml:2:9: `bus.host`: expected a text that is not empty, found nothing\n");
    expect_mistake("bus:\n  host: {a: b}\n", "f.yaml:2:9: `bus.host`: expected a list of texts, found a section\n");
}

static void what_is_shown_of_a_value_is_short_and_harmless(void **state)
{
    (void)state;
    expect_mistake("bus:\n  port: \"\\e[31m\\x01ä\\u009b\"\n",
                   "f.yaml:2:9: `bus.port`: expected a whole number from 0 to 65535, found `\\x1b[31m\\x01ä\\xc2\\x9b`\n");
    char yaml[2000] = "bus:\n  port: ";
    memset(yaml + strlen(yaml), 'a', 1500);
    assert_int_equal(load(yaml), ERR_CONFIG);
    assert_true(strlen(problems_text()) < 300);
    assert_non_null(strstr(problems_text(), "aaa...`\n"));
}

static void lists_have_a_limit(void **state)
{
    (void)state;
    char yaml[1024], items[512] = "";
    for (int i = 0; i < CONFIG_LIST_MAX; i++)
        snprintf(items + strlen(items), sizeof items - strlen(items), "%sa%d", i ? "," : "", i);
    snprintf(yaml, sizeof yaml, "bus:\n  host: [%s]\n", items);
    expect_good(yaml);
    assert_int_equal(config.bus_host.count, CONFIG_LIST_MAX);
    snprintf(yaml, sizeof yaml, "bus:\n  host: [%s,a]\n", items);
    expect_mistake(yaml, "f.yaml:2:9: `bus.host`: expected 1 to 32 items\n");
    snprintf(yaml, sizeof yaml, "bus:\n  host: %s,a\n", items);
    expect_mistake(yaml, "f.yaml:2:9: `bus.host`: expected 1 to 32 items\n");
}

static void items_of_lists_differ(void **state)
{
    (void)state;
    expect_mistake("bus:\n  host: [a.b, 127.0.0.1, a.b]\n", "f.yaml:2:26: `bus.host`: `a.b` occurs twice\n");
    expect_mistake("bus:\n  host: 127.0.0.1,127.0.0.1\n", "f.yaml:2:9: `bus.host`: `127.0.0.1` occurs twice\n");
    struct config_assignment assignment = {"--set", NULL, "bus.host=a, b,a"};
    assert_int_equal(load_with(NULL, NULL, &assignment, 1), ERR_CONFIG);
    assert_string_equal(problems_text(), "--set: `bus.host`: `a` occurs twice\n");
    expect_good("bus:\n  host: [a, aa, A]\n");
}

static void texts_have_a_limit(void **state)
{
    (void)state;
    static char yaml[VALUE_TEXT_MAX + 100];
    strcpy(yaml, "data:\n  dir: ");
    memset(yaml + strlen(yaml), 'a', VALUE_TEXT_MAX);
    expect_good(yaml);
    assert_int_equal(strlen(config.data_dir), VALUE_TEXT_MAX);
    strcat(yaml, "a");
    expect_mistake(yaml, "f.yaml:2:8: the text is longer than 4096 bytes\n");
    struct config_assignment assignment = {"--data-dir", "data.dir", yaml};
    assert_int_equal(load_with(NULL, NULL, &assignment, 1), ERR_CONFIG);
    assert_non_null(strstr(problems_text(), "longer than 4096 bytes"));
}

/* ---- ${NAME:-default} ---- */

static void variables_in_values_are_expanded(void **state)
{
    (void)state;
    static const char *const environment[] = {"HOST=h1", "EMPTY=", "PORT=77", NULL};
    assert_int_equal(load_with("data:\n  dir: /a/${HOST}-${NONE:-x y}-${EMPTY:-e}${EMPTY}/$${HOST}$\n"
                               "bus:\n  port: ${PORT:-1883}\n  threads: \"${NONE:-3}\"\n  host: [\"${HOST}\", '${NONE:-::}']\n",
                               environment, NULL, 0),
                     0);
    assert_string_equal(config.data_dir, "/a/h1-x y-e/${HOST}$");
    assert_int_equal(config.bus_port, 77);
    assert_int_equal(config.bus_threads, 3);
    assert_string_equal(config.bus_host.items[0], "h1");
    assert_string_equal(config.bus_host.items[1], "::");
}

static void wrong_variables_in_values(void **state)
{
    (void)state;
    expect_mistake("data:\n  dir: /a/${NONE}\n",
                   "f.yaml:2:8: environment variable `NONE` is not set, and there is no default (${NAME:-default})\n");
#define FORM ": expected ${NAME} or ${NAME:-default}; write $${ for a plain ${\n"
    expect_mistake("data:\n  dir: /a/${NONE\n", "f.yaml:2:8: `${NONE`" FORM);
    expect_mistake("data:\n  dir: /a/${NO-NE}\n", "f.yaml:2:8: `${NO-NE}`" FORM);
    expect_mistake("data:\n  dir: ${}\n", "f.yaml:2:8: `${}`" FORM);
    expect_mistake("data:\n  dir: ${A:}\n", "f.yaml:2:8: `${A:}`" FORM);
#undef FORM
    expect_mistake("bus:\n  port: ${NONE:-x}\n", "f.yaml:2:9: `bus.port`: expected a whole number from 0 to 65535, found `x`\n");
    static char large[VALUE_TEXT_MAX + 10] = "LARGE=";
    memset(large + strlen(large), 'a', VALUE_TEXT_MAX);
    const char *environment[] = {large, NULL};
    assert_int_equal(load_with("data:\n  dir: x${LARGE}\n", environment, NULL, 0), ERR_CONFIG);
    assert_string_equal(problems_text(), "f.yaml:2:8: `${LARGE}`: the expanded text is longer than 4096 bytes\n");
}

/* ---- environment and command line ---- */

static void each_source_wins_over_the_one_before(void **state)
{
    (void)state;
    static const char *const environment[] = {"SPINDLE_BUS_PORT=2", "SPINDLE_DATA_DIR=/env", "SPINDLE_HTTP_PORT=", "PATH=/bin", NULL};
    struct config_assignment assignments[] = {{"--set", NULL, "bus.port=3"}, {"--port", "bus.port", "4"}, {"--set", NULL, "bus.threads=5"}};
    assert_int_equal(load_with("bus:\n  port: 1\ndata:\n  dir: /file\nhttp:\n  port: 9\n", environment, assignments, 3), 0);
    assert_string_equal(problems_text(), "");
    assert_int_equal(config.bus_port, 4);
    assert_int_equal(config.bus_threads, 5);
    assert_string_equal(config.data_dir, "/env");
    assert_int_equal(config.http_port, 9);
    assert_string_equal(config.origins[CONFIG_SETTING_bus_port].place.source, "--port");
    assert_string_equal(config.origins[CONFIG_SETTING_data_dir].place.source, "environment SPINDLE_DATA_DIR");
    assert_int_equal(config.origins[CONFIG_SETTING_data_dir].source, CONFIG_FROM_ENVIRONMENT);
    assert_int_equal(config.origins[CONFIG_SETTING_data_dir].place.line, 0);
}

static void variables_reach_nested_settings_by_all_names(void **state)
{
    (void)state;
    static const char *const environment[] = {"SPINDLE_MQTT_LISTENER_ROOT=SITE",
                                              "SPINDLE_DRILLING_ESTIMATOR=gradient",
                                              "SPINDLE_HIGH_THROUGHPUT_PROCESSING_BATCH_SIZE=1000",
                                              "SPINDLE_HIGH_THROUGHPUT_MONITORING_PORT=9100",
                                              "SPINDLE_BUS_HOST=127.0.0.1, ::1",
                                              "SPINDLE_MQTT_BROKER_PORT=2222",
                                              "MQTT_BROKER_PORT=2222",
                                              "SPINDLE_SHARED=/x",
                                              NULL};
    assert_int_equal(load_with(NULL, environment, NULL, 0), 0);
    assert_string_equal(config.mqtt_listener_root, "SITE");
    assert_int_equal(config.drilling_estimator, CONFIG_ESTIMATOR_GRADIENT);
    assert_int_equal(config.http_port, 9100);
    assert_int_equal(config.bus_host.count, 2);
    assert_string_equal(config.bus_host.items[1], "::1");
    assert_int_equal(config.mqtt_broker_port, 2222);
    assert_int_equal(problems.errors, 0);
    assert_null(strstr(problems_text(), "SHARED"));
}

static void two_variables_of_one_setting_must_agree(void **state)
{
    (void)state;
    static const char *const environment[] = {"SPINDLE_MQTT_BROKER_PORT=2222",
                                              "MQTT_BROKER_PORT=3333",
                                              "SPINDLE_MQTT_HIGH_THROUGHPUT_MONITORING_PORT=9100",
                                              "SPINDLE_HIGH_THROUGHPUT_MONITORING_PORT=9100",
                                              "SPINDLE_HTTP_PORT=9101",
                                              "MQTT_BROKER_PASSWORD=a",
                                              "SPINDLE_MQTT_BROKER_PASSWORD=b",
                                              "MQTT_BROKER_HOST=",
                                              "SPINDLE_MQTT_BROKER_HOST=h",
                                              NULL};
    static const char lines[] = "environment MQTT_BROKER_PORT: `mqtt.broker.port` is `3333` here, but `2222` in environment "
                                "SPINDLE_MQTT_BROKER_PORT, where it goes by its other name; keep one of them\n"
                                "environment SPINDLE_HTTP_PORT: `http.port` is `9101` here, but `9100` in environment "
                                "SPINDLE_HIGH_THROUGHPUT_MONITORING_PORT, where it goes by its other name; keep one of them\n"
                                "environment SPINDLE_MQTT_BROKER_PASSWORD: `mqtt.broker.password` is `(hidden)` here, but `(hidden)` in "
                                "environment MQTT_BROKER_PASSWORD, where it goes by its other name; keep one of them\n";
    assert_int_equal(load_with(NULL, environment, NULL, 0), ERR_CONFIG);
    assert_int_equal(problems.errors, 3);
    assert_memory_equal(problems_text(), lines, sizeof lines - 1);
    /* The file is another source: its value gives way. */
    static const char *const one[] = {"SPINDLE_HIGH_THROUGHPUT_MONITORING_PORT=9100", NULL};
    assert_int_equal(load_with("http:\n  port: 9101\n", one, NULL, 0), 0);
    assert_int_equal(config.http_port, 9100);
}

static void the_old_variables_of_the_broker_are_read(void **state)
{
    (void)state;
    static const char *const environment[] = {"MQTT_BROKER_HOST=h", "MQTT_BROKER_PORT=1", "MQTT_BROKER_USERNAME=u",
                                              "MQTT_BROKER_PASSWORD=p", NULL};
    assert_int_equal(load_with(NULL, environment, NULL, 0), 0);
    assert_string_equal(config.mqtt_broker_host, "h");
    assert_int_equal(config.mqtt_broker_port, 1);
    assert_string_equal(config.mqtt_broker_username, "u");
    assert_string_equal(config.mqtt_broker_password, "p");
    assert_string_equal(problems_text(), "");
}

static void wrong_variables_and_assignments(void **state)
{
    (void)state;
    static const char *const environment[] = {"SPINDLE_DRILLING_ESTIMATOR=gradent",
                                              "SPINDLE_DRILLING_ESTIMATER=auto",
                                              "SPINDLE_BUS_PORT",
                                              "SPINDLE_HIGH_THROUGHPUT_QQQ=1",
                                              "SPINDLE_JOURNAL_QQQQQQQQQQ=",
                                              "SPINDLE_FOO=1",
                                              NULL};
    assert_int_equal(load_with(NULL, environment, NULL, 0), ERR_CONFIG);
    assert_string_equal(problems_text(),
                        "environment SPINDLE_DRILLING_ESTIMATOR: `drilling.estimator`: expected one of `auto`, `gradient`, "
                        "`gradient30`, `gradient30_by_order`, `segments`, `production`, found `gradent`; did you mean `gradient`?\n"
                        "environment SPINDLE_DRILLING_ESTIMATER: no setting has this name; did you mean SPINDLE_DRILLING_ESTIMATOR?\n"
                        "environment SPINDLE_HIGH_THROUGHPUT_QQQ: no setting has this name; docs/configuration.md lists them\n"
                        "environment SPINDLE_JOURNAL_QQQQQQQQQQ: no setting has this name; docs/configuration.md lists them\n"
                        "environment SPINDLE_FOO: warning: no setting has this name\n");
    assert_int_equal(problems.errors, 4);
}

/* A service named spindle-http gets these in every pod of its namespace. */
static void variables_of_kubernetes_are_passed_over(void **state)
{
    (void)state;
    static const char *const environment[] = {"SPINDLE_SERVICE_HOST=10.0.0.1",
                                              "SPINDLE_HTTP_SERVICE_PORT=9090",
                                              "SPINDLE_HTTP_SERVICE_PORT_HTTP=9090",
                                              "SPINDLE_HTTP_PORT=tcp://10.0.0.1:9090",
                                              "SPINDLE_HTTP_PORT_9090_TCP=tcp://10.0.0.1:9090",
                                              "SPINDLE_HTTP_PORT_9090_TCP_PROTO=tcp",
                                              "SPINDLE_MQTT_PORT_1883_TCP_ADDR=10.0.0.1",
                                              NULL};
    assert_int_equal(load_with(NULL, environment, NULL, 0), 0);
    assert_int_equal(config.http_port, 9090);
    assert_string_equal(problems_text(), "");
}

static void wrong_assignments(void **state)
{
    (void)state;
    static const struct {
        const char *text, *problem;
    } cases[] = {
        {"drilling.estimater=auto", "--set: unknown setting `drilling.estimater`; did you mean `drilling.estimator`?\n"},
        {"estimator=auto", "--set: unknown setting `estimator`; did you mean `drilling.estimator`?\n"},
        {"qqq=1", "--set: unknown setting `qqq`\n"},
        {"drilling=auto", "--set: `drilling` is a section; set one of its keys\n"},
        {"bus.port", "--set: expected path=value, such as drilling.estimator=gradient, found `bus.port`\n"},
        {"=5", "--set: expected path=value, such as drilling.estimator=gradient, found `=5`\n"},
        {"bus.port=", "--set: `bus.port`: expected a whole number from 0 to 65535, found nothing\n"},
        {"bus.port=5=6", "--set: `bus.port`: expected a whole number from 0 to 65535, found `5=6`\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config_assignment assignment = {"--set", NULL, cases[i].text};
        assert_int_equal(load_with(NULL, NULL, &assignment, 1), ERR_CONFIG);
        assert_string_equal(problems_text(), cases[i].problem);
    }
    struct config_assignment ignored = {"--set", NULL, "logging=x"};
    assert_int_equal(load_with(NULL, NULL, &ignored, 1), 0);
    assert_string_equal(problems_text(), "--set: note: `logging` has no effect. It was never read; see diagnostics.\n");
    struct config_assignment renamed = {"--set", NULL, "high_throughput.monitoring.port=5"};
    assert_int_equal(load_with(NULL, NULL, &renamed, 1), 0);
    assert_int_equal(config.http_port, 5);
}

/* ---- settings that depend on each other ---- */

static void two_names_of_one_setting_must_agree(void **state)
{
    (void)state;
    expect("mqtt:\n  high_throughput:\n    processing:\n      batch_size: 1000\n"
           "high_throughput:\n  processing:\n    batch_size: 1000\n",
           "");
    expect_mistake(
        "mqtt:\n  high_throughput:\n    monitoring:\n      metrics_interval: 10\n"
        "high_throughput:\n  monitoring:\n    metrics_interval: 11\n",
        "f.yaml:7:5: `high_throughput.monitoring.metrics_interval` is `11` here, but `10` in line 4, where it goes by its other name; keep "
        "one of them\n"
        "f.yaml:7:23: note: `mqtt.high_throughput.monitoring.metrics_interval` has no effect. Metrics are computed when they are asked "
        "for.\n");
    expect_mistake(
        "http:\n  port: 9091\nhigh_throughput:\n  monitoring:\n    port: 9092\n",
        "f.yaml:5:5: `high_throughput.monitoring.port` is `9092` here, but `9091` in line 2, where it goes by its other name; keep one of "
        "them\n");
    expect_mistake(
        "high_throughput:\n  queue: {kafka: {brokers: [a, b]}}\nmqtt:\n  high_throughput:\n    queue: {kafka: {brokers: [a]}}\n",
        "f.yaml:5:21: `mqtt.high_throughput.queue.kafka.brokers` is `a` here, but `a, b` in line 2, where it goes by its other name; keep "
        "one of them\n"
        "f.yaml:5:30: warning: `mqtt.high_throughput.queue.kafka.brokers` has no effect: this version keeps messages in its own journal "
        "(data.dir), not in RabbitMQ or Kafka\n");
}

static void two_listeners_cannot_share_a_port(void **state)
{
    (void)state;
    expect_mistake("http:\n  port: 1883\n", "f.yaml:2:9: `bus.port` and `http.port` are both 1883\n");
    expect_mistake("bus:\n  port: 9090\n", "f.yaml:2:9: `bus.port` and `http.port` are both 9090\n");
    expect_good("bus:\n  port: 0\nhttp:\n  port: 0\n");
    expect_good("bus:\n  port: 9090\nhttp:\n  enabled: false\n");
}

static void the_root_is_not_that_of_replays(void **state)
{
    (void)state;
    expect_mistake("mqtt:\n  listener:\n    root: replay/x\n",
                   "f.yaml:3:11: `mqtt.listener.root` cannot begin with `replay`: that is where replayed messages are\n");
    expect_good("mqtt:\n  listener:\n    root: replays\n");
}

static void topic_suffixes_must_differ(void **state)
{
    (void)state;
    expect_mistake("mqtt:\n  listener:\n    result: A\n    trace: A\n",
                   "f.yaml:4:12: `mqtt.listener.result` and `mqtt.listener.trace` are both `A`; messages could not be told apart\n");
    expect_mistake(
        "mqtt:\n  estimation:\n    keypoints: AssetManagement/Heads\n",
        "f.yaml:3:16: `mqtt.listener.heads` and `mqtt.estimation.keypoints` are both `AssetManagement/Heads`; messages could not be told "
        "apart\n");
}

/* ---- the replaced system's files ---- */

static int load_file(const char *path)
{
    struct config_sources sources = {.file = path};
    int error = config_load(&config, &sources, &problems);
    if (error)
        print_message("%s", problems_text());
    return error;
}

static void the_old_file_is_accepted_as_it_is(void **state)
{
    (void)state;
    assert_int_equal(load_file("tests/data/mqtt_conf_old.yaml"), 0);
    assert_int_equal(config.mqtt_listener_duplicate_handling, CONFIG_DUPLICATES_REPLACE);
    assert_int_equal(config.mqtt_depth_validation_negative_depth_behavior, CONFIG_NEGATIVE_DEPTH_WARNING);
    assert_string_equal(config.mqtt_broker_host, "mqtt-broker");
    assert_int_equal(config.http_port, 9191);
    const char *text = problems_text();
    assert_int_equal(config.ingest_keep_alive_s, 60);
    assert_non_null(
        strstr(text, ":60:19: warning: `mqtt.high_throughput.architecture`, `mqtt.high_throughput.queue.backend` have no effect: "));
    static const char *const notes[] = {"mqtt.broker.clean_session",
                                        "mqtt.broker.client_id_prefix",
                                        "mqtt.listener.toolboxid",
                                        "mqtt.listener.buffer_size",
                                        "mqtt.listener.max_buffer_size",
                                        "mqtt.publisher",
                                        "mqtt.processing.model_id",
                                        "mqtt.analyzer.correlation_debug",
                                        "mqtt.monitoring",
                                        "monitoring",
                                        "logging",
                                        "mqtt.high_throughput.enabled"};
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++) {
        char note[128];
        snprintf(note, sizeof note, ": note: `%s` has no effect. ", notes[i]);
        assert_non_null(strstr(text, note));
    }
    assert_int_equal(problems.errors, 0);
    assert_int_equal(problems.left_out, 0);
    /* What the old file says by default is what Spindle does by default. */
    for (int i = CONFIG_SETTING_mqtt_data_ids_machine_id; i <= CONFIG_SETTING_mqtt_estimation_depth_estimation; i++) {
        assert_int_equal(config.origins[i].source, CONFIG_FROM_FILE);
        assert_true(config_is_initial(&config, (enum config_setting)i));
    }
}

static void the_block_is_accepted_at_the_top_level(void **state)
{
    (void)state;
    assert_int_equal(load_file("tests/data/mqtt_conf_top_level.yaml"), 0);
    assert_false(config.mqtt_high_throughput_enabled);
    assert_false(config.http_enabled);
    assert_int_equal(config.http_port, 9100);
    assert_string_equal(config.mqtt_listener_root, "SITE/LINE1");
    assert_true(config.mqtt_listener_time_window == 12.5);
}

/* ---- comparing and showing ---- */

static void differences_are_found_with_what_they_need(void **state)
{
    (void)state;
    struct config before = {0};
    struct config_sources sources = {.file = "f.yaml"};
    static const char yaml[] = "bus: {host: [a, b]}\npipeline: {grace_s: 2}\ndata: {dir: x}\n";
    assert_int_equal(config_load_bytes(&before, &sources, (const uint8_t *)yaml, strlen(yaml), &problems), 0);
    expect_good("bus: {host: [a, c]}\npipeline: {grace_s: 3}\ndata: {dir: x}\n");
    enum config_setting changed[CONFIG_SETTING_COUNT];
    assert_int_equal(config_diff(&before, &config, changed), 2);
    assert_int_equal(changed[0], CONFIG_SETTING_bus_host);
    assert_false(config_setting_reloads(changed[0]));
    assert_string_equal(config_setting_path(changed[0]), "bus.host");
    assert_int_equal(changed[1], CONFIG_SETTING_pipeline_grace_s);
    assert_true(config_setting_reloads(changed[1]));
    assert_int_equal(config_diff(&config, &config, changed), 0);
    config_fini(&before);
}

static const char *value_text(enum config_setting setting, int (*write)(const struct config *, enum config_setting, struct buffer *))
{
    buffer_clear(&shown);
    assert_int_equal(write(&config, setting, &shown), 0);
    return buffer_text(&shown);
}

static void values_are_shown_as_they_are_written(void **state)
{
    (void)state;
    load("bus: {packet_size_max: 1536KiB, stall_timeout_s: 2.5}\nmqtt: {broker: {password: geheim}}\ndata: {dir: 'a\"b'}\n");
    assert_string_equal(value_text(CONFIG_SETTING_bus_packet_size_max, config_value_write), "1536KiB");
    assert_string_equal(value_text(CONFIG_SETTING_bus_packet_size_max, config_value_write_json), "1572864");
    assert_string_equal(value_text(CONFIG_SETTING_bus_stall_timeout_s, config_value_write), "2.5");
    assert_string_equal(value_text(CONFIG_SETTING_bus_host, config_value_write), "0.0.0.0, ::");
    assert_string_equal(value_text(CONFIG_SETTING_bus_host, config_value_write_json), "[\"0.0.0.0\", \"::\"]");
    assert_string_equal(value_text(CONFIG_SETTING_data_dir, config_value_write_json), "\"a\\\"b\"");
    assert_string_equal(value_text(CONFIG_SETTING_drilling_estimator, config_value_write_json), "\"auto\"");
    assert_string_equal(value_text(CONFIG_SETTING_http_enabled, config_value_write_json), "true");
    assert_string_equal(value_text(CONFIG_SETTING_mqtt_broker_password, config_value_write), "(hidden)");
    assert_string_equal(value_text(CONFIG_SETTING_mqtt_broker_password, config_value_write_json), "\"(hidden)\"");
    assert_true(config_ns(0.25) == 250000000);
}

static void a_secret_is_not_shown_in_a_message(void **state)
{
    (void)state;
    expect_mistake("mqtt: {broker: {password: \"top\\0secret\"}}\n",
                   "f.yaml:1:27: `mqtt.broker.password`: expected a text, which contains a zero byte\n");
}

/* ---- documentation ---- */

static void the_committed_page_is_the_generated_one(void **state)
{
    (void)state;
    struct buffer page, file;
    buffer_init(&page, 1 << 20);
    buffer_init(&file, 1 << 20);
    assert_int_equal(docs_configuration_write(&page), 0);
    FILE *stored = fopen("docs/configuration.md", "rb");
    if (!stored)
        fail_msg("docs/configuration.md cannot be read; run `build/spindle docs configuration > docs/configuration.md`");
    assert_int_equal(buffer_reserve(&file, 1 << 19), 0);
    file.length = fread(file.data, 1, 1 << 19, stored);
    fclose(stored);
    if (file.length != page.length || memcmp(file.data, page.data, page.length) != 0)
        fail_msg("docs/configuration.md is out of date; run `build/spindle docs configuration > docs/configuration.md`");
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++)
        assert_non_null(strstr(buffer_text(&page), settings_rows[i].path));
    buffer_fini(&page);
    buffer_fini(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        TEST(every_initial_value_is_valid),
        TEST(names_follow_one_rule),
        TEST(every_choice_names_all_its_words),
        TEST(values_of_every_kind_are_read),
        TEST(a_section_without_keys_and_a_text_without_value_are_allowed),
        TEST(wrong_whole_numbers),
        TEST(wrong_numbers_sizes_and_truths),
        TEST(wrong_words),
        TEST(wrong_texts_topics_and_lists),
        TEST(what_is_shown_of_a_value_is_short_and_harmless),
        TEST(lists_have_a_limit),
        TEST(items_of_lists_differ),
        TEST(texts_have_a_limit),
        TEST(variables_in_values_are_expanded),
        TEST(wrong_variables_in_values),
        TEST(each_source_wins_over_the_one_before),
        TEST(variables_reach_nested_settings_by_all_names),
        TEST(two_variables_of_one_setting_must_agree),
        TEST(the_old_variables_of_the_broker_are_read),
        TEST(wrong_variables_and_assignments),
        TEST(variables_of_kubernetes_are_passed_over),
        TEST(wrong_assignments),
        TEST(two_names_of_one_setting_must_agree),
        TEST(two_listeners_cannot_share_a_port),
        TEST(the_root_is_not_that_of_replays),
        TEST(topic_suffixes_must_differ),
        TEST(the_old_file_is_accepted_as_it_is),
        TEST(the_block_is_accepted_at_the_top_level),
        TEST(differences_are_found_with_what_they_need),
        TEST(values_are_shown_as_they_are_written),
        TEST(a_secret_is_not_shown_in_a_message),
        TEST(the_committed_page_is_the_generated_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
