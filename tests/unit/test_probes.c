/* base/probes: who is ready, and the fragments of the status. */
#include "base/probes.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "unit.h"

static struct buffer json;

static int begin(void **state)
{
    (void)state;
    buffer_init(&json, 1 << 16);
    return 0;
}

static int end(void **state)
{
    (void)state;
    buffer_fini(&json);
    return 0;
}

struct module {
    bool ready;
    const char *text;
};

static bool check(void *owner, struct buffer *text)
{
    const struct module *module = owner;
    buffer_append_text(text, module->text);
    return module->ready;
}

static const char *probes_text(bool *ready)
{
    buffer_clear(&json);
    assert_int_equal(probes_write(&json, ready), 0);
    return buffer_text(&json);
}

static void without_probes_all_are_ready(void **state)
{
    (void)state;
    bool ready = false;
    assert_string_equal(probes_text(&ready), "[]");
    assert_true(ready);
}

static void one_that_is_not_ready_is_enough(void **state)
{
    (void)state;
    struct module journal = {true, "synced"}, bus = {true, ""};
    bool ready = false;
    assert_int_equal(probes_register("journal", check, &journal), 0);
    assert_int_equal(probes_register("bus", check, &bus), 0);
    assert_string_equal(probes_text(&ready), "[{\"name\": \"journal\", \"ready\": true, \"text\": \"synced\"}, "
                                             "{\"name\": \"bus\", \"ready\": true, \"text\": \"\"}]");
    assert_true(ready);
    journal = (struct module){false, "disk \"sda\" is full"};
    assert_string_equal(probes_text(&ready), "[{\"name\": \"journal\", \"ready\": false, \"text\": \"disk \\\"sda\\\" is full\"}, "
                                             "{\"name\": \"bus\", \"ready\": true, \"text\": \"\"}]");
    assert_false(ready);
    probes_unregister("journal");
    assert_string_equal(probes_text(&ready), "[{\"name\": \"bus\", \"ready\": true, \"text\": \"\"}]");
    assert_true(ready);
    probes_unregister("bus");
}

static void a_text_beyond_its_limit_is_left_out(void **state)
{
    (void)state;
    char text[PROBE_TEXT_BYTES_MAX + 2];
    struct module module = {true, text};
    bool ready;
    probes_register("talker", check, &module);
    memset(text, 'x', sizeof text);
    text[PROBE_TEXT_BYTES_MAX] = 0;
    assert_non_null(strstr(probes_text(&ready), text));
    text[PROBE_TEXT_BYTES_MAX] = 'x';
    text[PROBE_TEXT_BYTES_MAX + 1] = 0;
    assert_non_null(strstr(probes_text(&ready), "\"text\": \"\""));
    probes_unregister("talker");
}

static void names_are_words_and_taken_once(void **state)
{
    (void)state;
    struct module module = {true, ""};
    static const char *const bad[] = {"", "Bus", "my bus", "a\"b", "a-b"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(probes_register(bad[i], check, &module), ERR_INVALID);
    assert_int_equal(probes_register("bus_2", check, &module), 0);
    assert_int_equal(probes_register("bus_2", check, &module), ERR_INVALID);
    probes_unregister("unknown");
    probes_unregister("bus_2");
    assert_int_equal(probes_register("bus_2", check, &module), 0);
    probes_unregister("bus_2");
}

static int fragment(void *owner, struct buffer *out)
{
    return buffer_append_text(out, owner);
}

static int failing_fragment(void *owner, struct buffer *out)
{
    (void)owner;
    buffer_append_text(out, "{\"half\":");
    return ERR_IO;
}

static void fragments_follow_one_another(void **state)
{
    (void)state;
    static char durability[] = "\"disk\"", streams[] = "{\"ingest\": {}}", nothing[] = "";
    buffer_append_text(&json, "{\"x\": 1");
    assert_int_equal(status_register("durability", fragment, durability), 0);
    assert_int_equal(status_register("broken", failing_fragment, NULL), 0);
    assert_int_equal(status_register("empty", fragment, nothing), 0);
    assert_int_equal(status_register("streams", fragment, streams), 0);
    assert_int_equal(status_register("streams", fragment, streams), ERR_INVALID);
    assert_int_equal(status_write(&json), 0);
    assert_string_equal(buffer_text(&json), "{\"x\": 1, \"durability\": \"disk\", \"broken\": null, \"empty\": null, "
                                            "\"streams\": {\"ingest\": {}}");
    status_unregister("durability");
    status_unregister("broken");
    status_unregister("empty");
    status_unregister("streams");
    buffer_clear(&json);
    assert_int_equal(status_write(&json), 0);
    assert_int_equal(json.length, 0);
}

static void the_limits_are_reached(void **state)
{
    (void)state;
    static char names[PROBES_MAX + 1][16];
    struct module module = {true, ""};
    static char value[] = "0";
    for (unsigned i = 0; i < PROBES_MAX; i++) {
        snprintf(names[i], sizeof names[i], "module_%u", i);
        assert_int_equal(probes_register(names[i], check, &module), 0);
        assert_int_equal(status_register(names[i], fragment, value), 0);
    }
    assert_int_equal(probes_register("more", check, &module), ERR_LIMIT);
    assert_int_equal(status_register("more", fragment, value), ERR_LIMIT);
    assert_int_equal(STATUS_FRAGMENTS_MAX, PROBES_MAX);
    for (unsigned i = 0; i < PROBES_MAX; i++) {
        probes_unregister(names[i]);
        status_unregister(names[i]);
    }
}

static void what_does_not_fit_leaves_nothing_behind(void **state)
{
    (void)state;
    struct module module = {false, "text"};
    static char value[] = "12345";
    bool ready;
    probes_register("bus", check, &module);
    status_register("bus", fragment, value);
    size_t probes_size = strlen(probes_text(&ready));
    const size_t status_size = strlen(", \"bus\": 12345");
    for (size_t limit = 0; limit < probes_size; limit++) {
        struct buffer small;
        bool untouched = true;
        buffer_init(&small, limit);
        assert_int_equal(probes_write(&small, &untouched), ERR_LIMIT);
        assert_int_equal(small.length, 0);
        assert_true(untouched);
        /* a value that does not fit becomes null, which is one byte shorter */
        assert_int_equal(status_write(&small), limit < status_size - 1 ? ERR_LIMIT : 0);
        buffer_fini(&small);
    }
    probes_unregister("bus");
    status_unregister("bus");
}

static bool check_freed(void *owner, struct buffer *text)
{
    (void)text;
    return *(bool *)owner;
}

static void *register_often(void *argument)
{
    (void)argument;
    for (int i = 0; i < 1000; i++) {
        bool ready = true;
        probes_register("short_lived", check_freed, &ready);
        probes_unregister("short_lived");
        ready = false; /* seen by nobody any more */
    }
    return NULL;
}

static void probes_come_and_go_while_others_ask(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, register_often, NULL), 0);
    for (int i = 0; i < 500; i++) {
        bool ready = false;
        probes_text(&ready);
        assert_true(ready);
    }
    pthread_join(thread, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_probes_all_are_ready, begin, end),
        cmocka_unit_test_setup_teardown(one_that_is_not_ready_is_enough, begin, end),
        cmocka_unit_test_setup_teardown(a_text_beyond_its_limit_is_left_out, begin, end),
        cmocka_unit_test_setup_teardown(names_are_words_and_taken_once, begin, end),
        cmocka_unit_test_setup_teardown(fragments_follow_one_another, begin, end),
        cmocka_unit_test_setup_teardown(the_limits_are_reached, begin, end),
        cmocka_unit_test_setup_teardown(what_does_not_fit_leaves_nothing_behind, begin, end),
        cmocka_unit_test_setup_teardown(probes_come_and_go_while_others_ask, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
