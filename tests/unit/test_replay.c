/* cli/journal/replay_*: when records are due, what is acknowledged, where a replay goes on, and which records are selected. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/journal/replay_pace.h"
#include "cli/journal/replay_state.h"
#include "cli/journal/selection.h"
#include "unit.h"

#define S UINT64_C(1000000000)

/* ---- when ---- */

static void speeds_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double speed;
    } good[] = {{"max", 0}, {"1", 1}, {"10", 10}, {"0.5", 0.5}, {"1000000", 1e6}, {"0.001", 0.001}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        double speed = -1;
        assert_int_equal(replay_speed_parse(good[i].text, &speed), 0);
        assert_true(speed == good[i].speed);
    }
    static const char *const bad[] = {"", "0", "-1", "x", "1x", "1e3", "nan", "0.0001", "1000001", "1.2.3", " 1", "."};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        double speed = -1;
        assert_int_equal(replay_speed_parse(bad[i], &speed), ERR_INVALID);
        assert_true(speed == -1);
    }
}

static void the_pace_is_that_of_the_arrivals(void **state)
{
    (void)state;
    struct replay_pace pace;
    replay_pace_init(&pace, 1);
    assert_int_equal(replay_pace_due_ns(&pace, 1000 * S, 50 * S), 50 * S);
    assert_int_equal(replay_pace_due_ns(&pace, 1003 * S, 50 * S), 53 * S);
    assert_int_equal(replay_pace_due_ns(&pace, 1003 * S, 99 * S), 53 * S);
    replay_pace_init(&pace, 10);
    assert_int_equal(replay_pace_due_ns(&pace, 1000 * S, 50 * S), 50 * S);
    assert_int_equal(replay_pace_due_ns(&pace, 1030 * S, 50 * S), 53 * S);
    assert_int_equal(replay_pace_span_ns(&pace, 1130 * S), 10 * S);
    assert_int_equal(replay_pace_span_ns(&pace, 1000 * S), 0);
}

static void a_clock_that_was_set_back_holds_nothing_up(void **state)
{
    (void)state;
    struct replay_pace pace;
    replay_pace_init(&pace, 1);
    replay_pace_due_ns(&pace, 1000 * S, 50 * S);
    assert_int_equal(replay_pace_due_ns(&pace, 1010 * S, 50 * S), 60 * S);
    assert_int_equal(replay_pace_due_ns(&pace, 10 * S, 61 * S), 60 * S);
    assert_int_equal(replay_pace_due_ns(&pace, 1011 * S, 61 * S), 61 * S);
}

static void as_fast_as_it_goes_everything_is_due(void **state)
{
    (void)state;
    struct replay_pace pace;
    replay_pace_init(&pace, 0);
    assert_int_equal(replay_pace_due_ns(&pace, 0, 50 * S), 50 * S);
    assert_int_equal(replay_pace_due_ns(&pace, UINT64_MAX, 51 * S), 50 * S);
    assert_int_equal(replay_pace_span_ns(&pace, UINT64_MAX), 0);
}

static void what_is_due_after_the_end_of_time_does_not_overflow(void **state)
{
    (void)state;
    struct replay_pace pace;
    replay_pace_init(&pace, REPLAY_SPEED_MIN);
    replay_pace_due_ns(&pace, 0, S);
    assert_int_equal(replay_pace_due_ns(&pace, UINT64_MAX, S), UINT64_MAX);
}

/* ---- what is acknowledged ---- */

static void the_window_is_left_in_order(void **state)
{
    (void)state;
    struct replay_window window;
    replay_window_clear(&window);
    assert_int_equal(replay_window_next(&window, 7), 7);
    uint32_t tags[3];
    for (unsigned i = 0; i < 3; i++) {
        tags[i] = replay_window_tag(&window);
        replay_window_add(&window, 10 + i * 5);
        assert_int_equal(replay_window_offset(&window, tags[i]), 10 + i * 5);
    }
    assert_int_equal(replay_window_acknowledge(&window, tags[1]), 0);
    assert_int_equal(replay_window_next(&window, 99), 10);
    assert_int_equal(replay_window_acknowledge(&window, tags[0]), 2);
    assert_int_equal(replay_window_next(&window, 99), 20);
    assert_int_equal(replay_window_acknowledge(&window, tags[2]), 1);
    assert_int_equal(replay_window_next(&window, 99), 99);
}

static void the_window_has_a_limit_and_goes_round(void **state)
{
    (void)state;
    struct replay_window window;
    replay_window_clear(&window);
    for (uint64_t offset = 0; offset < 3 * REPLAY_WINDOW_MAX; offset++) {
        if (replay_window_is_full(&window))
            assert_int_equal(replay_window_acknowledge(&window, window.first), 1);
        replay_window_add(&window, offset);
    }
    assert_true(replay_window_is_full(&window));
    assert_int_equal(replay_window_next(&window, 0), 2 * REPLAY_WINDOW_MAX);
    replay_window_clear(&window);
    assert_int_equal(replay_window_next(&window, 5), 5);
}

/* ---- what is remembered ---- */

static char path[] = "/tmp/spindle-test-replay-XXXXXX";

static int make_path(void **state)
{
    (void)state;
    memcpy(path + sizeof path - 7, "XXXXXX", 6);
    int file = mkstemp(path);
    return file < 0 ? -1 : close(file);
}

static int remove_path(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static void write_text(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void the_state_is_read_as_it_was_written(void **state)
{
    (void)state;
    const struct replay_state written = {.id = "a-1._Z",
                                         .selection = "stream=ingest from=-10m to= topic=a b/#",
                                         .from_ns = 5,
                                         .to_ns = UINT64_MAX,
                                         .until = 900,
                                         .next = 17};
    struct replay_state read;
    memset(&read, 0xff, sizeof read);
    assert_int_equal(replay_state_write(path, &written), 0);
    assert_int_equal(replay_state_read(path, &read), 0);
    assert_string_equal(read.id, written.id);
    assert_string_equal(read.selection, written.selection);
    assert_int_equal(read.from_ns, 5);
    assert_true(read.to_ns == UINT64_MAX);
    assert_int_equal(read.until, 900);
    assert_int_equal(read.next, 17);
}

static void the_longest_state_can_be_written(void **state)
{
    (void)state;
    struct replay_state written = {.from_ns = UINT64_MAX, .to_ns = UINT64_MAX, .until = UINT64_MAX, .next = UINT64_MAX}, read;
    memset(written.id, 'i', REPLAY_ID_MAX);
    memset(written.selection, 's', REPLAY_SELECTION_MAX - 1);
    assert_int_equal(replay_state_write(path, &written), 0);
    assert_int_equal(replay_state_read(path, &read), 0);
    assert_string_equal(read.selection, written.selection);
}

static void other_files_are_no_states(void **state)
{
    (void)state;
    static const char *const others[] = {
        "",
        "spindle replay 2\nid a\nselection x\nfrom_ns 0\nto_ns 0\nuntil 1\nnext 0\n",
        "spindle replay 1\nid a/b\nselection x\nfrom_ns 0\nto_ns 0\nuntil 1\nnext 0\n",
        "spindle replay 1\nid a\nselection x\nfrom_ns 0\nto_ns 0\nuntil 1\nnext 0",
        "spindle replay 1\nid a\nselection x\nfrom_ns 0\nto_ns 0\nuntil 1\nnext 0\nmore\n",
        "spindle replay 1\nid a\nselection x\nfrom_ns 0\nto_ns 0\nuntil 1\nnext -1\n",
        "spindle replay 1\nid a\nselection x\nfrom_ns 0\nto_ns 0\nuntil 1\nnext 18446744073709551616\n",
        "spindle replay 1\nid a\nselection x\nfrom_ns 0\nto_ns 0\nuntil \nnext 0\n",
        "spindle replay 1\nid a\nfrom_ns 0\nto_ns 0\nuntil 1\nnext 0\n",
    };
    struct replay_state untouched = {.next = 42};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        write_text(others[i]);
        assert_int_equal(replay_state_read(path, &untouched), ERR_CORRUPT);
        assert_int_equal(untouched.next, 42);
    }
    unlink(path);
    assert_int_equal(replay_state_read(path, &untouched), ERR_NOT_FOUND);
}

static void a_state_that_cannot_be_written_leaves_the_old_one(void **state)
{
    (void)state;
    const struct replay_state written = {.id = "a", .selection = "x"};
    assert_int_equal(replay_state_write("/nonexistent/replay.state", &written), ERR_NOT_FOUND);
    char fresh[sizeof path + 8];
    struct replay_state read;
    snprintf(fresh, sizeof fresh, "%s.new", path);
    assert_int_equal(replay_state_write(path, &written), 0);
    assert_int_equal(symlink("/nonexistent/folder/file", fresh), 0);
    const struct replay_state other = {.id = "b", .selection = "x"};
    assert_int_equal(replay_state_write(path, &other), ERR_NOT_FOUND);
    assert_int_equal(replay_state_read(path, &read), 0);
    assert_string_equal(read.id, "a");
}

static void ids_are_one_level_of_a_topic(void **state)
{
    (void)state;
    char longest[REPLAY_ID_MAX + 2] = {0};
    memset(longest, 'x', REPLAY_ID_MAX);
    assert_int_equal(replay_id_check("20261121T103443000"), 0);
    assert_int_equal(replay_id_check("a.b-c_D9"), 0);
    assert_int_equal(replay_id_check(longest), 0);
    longest[REPLAY_ID_MAX] = 'x';
    static const char *const bad[] = {"", "a/b", "+", "#", "a b", "\xc3\xa9"};
    assert_int_equal(replay_id_check(longest), ERR_INVALID);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(replay_id_check(bad[i]), ERR_INVALID);
}

/* ---- which ---- */

static void records_are_selected_by_time_and_topic(void **state)
{
    (void)state;
    struct selection selection;
    assert_int_equal(selection_read("test", "2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z", "a/+/c", &selection), 0);
    const uint64_t from_ns = selection.from.time_ns, to_ns = selection.to.time_ns;
    static const char topic[] = "a/b/c";
    struct message message = {.time_ns = from_ns, .topic = topic, .topic_length = sizeof topic - 1};
    assert_true(selection_has(&selection, &message));
    message.time_ns = from_ns - 1;
    assert_false(selection_has(&selection, &message));
    message.time_ns = to_ns - 1;
    assert_true(selection_has(&selection, &message));
    message.time_ns = to_ns;
    assert_false(selection_has(&selection, &message));
    message.time_ns = from_ns;
    message.topic_length = 3;
    assert_false(selection_has(&selection, &message));
    assert_int_equal(selection_read("test", "5", NULL, NULL, &selection), 0);
    assert_true(selection_has(&selection, &message)); /* offsets are not its business */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(speeds_are_read),
        cmocka_unit_test(the_pace_is_that_of_the_arrivals),
        cmocka_unit_test(a_clock_that_was_set_back_holds_nothing_up),
        cmocka_unit_test(as_fast_as_it_goes_everything_is_due),
        cmocka_unit_test(what_is_due_after_the_end_of_time_does_not_overflow),
        cmocka_unit_test(the_window_is_left_in_order),
        cmocka_unit_test(the_window_has_a_limit_and_goes_round),
        cmocka_unit_test_setup_teardown(the_state_is_read_as_it_was_written, make_path, remove_path),
        cmocka_unit_test_setup_teardown(the_longest_state_can_be_written, make_path, remove_path),
        cmocka_unit_test_setup_teardown(other_files_are_no_states, make_path, remove_path),
        cmocka_unit_test_setup_teardown(a_state_that_cannot_be_written_leaves_the_old_one, make_path, remove_path),
        cmocka_unit_test(ids_are_one_level_of_a_topic),
        cmocka_unit_test(records_are_selected_by_time_and_topic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
