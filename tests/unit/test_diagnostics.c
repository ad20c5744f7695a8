/* base/diagnostics: what is written to standard error, and how often. */
#include "base/diagnostics.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "unit.h"

static char captured[65536];
static int saved_stderr = -1;
static int pipe_fds[2];

/* Everything written to standard error between begin and end lands in `captured`. */
static void capture_begin(void)
{
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(fcntl(pipe_fds[1], F_SETPIPE_SZ, (int)sizeof captured), (int)sizeof captured);
    saved_stderr = dup(STDERR_FILENO);
    dup2(pipe_fds[1], STDERR_FILENO);
    close(pipe_fds[1]);
}

static size_t capture_end(void)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    size_t length = 0;
    for (ssize_t n; (n = read(pipe_fds[0], captured + length, sizeof captured - 1 - length)) > 0;)
        length += (size_t)n;
    close(pipe_fds[0]);
    captured[length] = 0;
    return length;
}

static int defaults(void **state)
{
    (void)state;
    diagnostics_set_level(DIAGNOSTICS_INFO);
    diagnostics_set_json(false);
    return 0;
}

static unsigned count_lines(void)
{
    unsigned lines = 0;
    for (const char *c = captured; *c; c++)
        lines += *c == '\n';
    return lines;
}

static void a_line_has_time_level_module_and_text(void **state)
{
    (void)state;
    capture_begin();
    diagnostics(DIAGNOSTICS_WARNING, "bus", "client=%s left after %d s", "drill-7", 12);
    capture_end();
    assert_int_equal(captured[10], 'T');
    assert_int_equal(captured[23], 'Z');
    assert_string_equal(captured + 24, " warning bus: client=drill-7 left after 12 s\n");
}

static void lower_levels_are_silent(void **state)
{
    (void)state;
    capture_begin();
    diagnostics(DIAGNOSTICS_DEBUG, "bus", "not seen");
    diagnostics_set_level(DIAGNOSTICS_ERROR);
    diagnostics(DIAGNOSTICS_WARNING, "bus", "not seen");
    diagnostics(DIAGNOSTICS_ERROR, "bus", "seen");
    capture_end();
    assert_null(strstr(captured, "not seen"));
    assert_non_null(strstr(captured, "error   bus: seen\n"));
    assert_false(diagnostics_enabled(DIAGNOSTICS_WARNING));
    assert_true(diagnostics_enabled(DIAGNOSTICS_ERROR));
}

/* What peers send ends up in these texts. */
static void one_event_is_one_line_whatever_the_text(void **state)
{
    (void)state;
    capture_begin();
    diagnostics(DIAGNOSTICS_INFO, "bus", "topic=%s", "a\nb\x1b[2J\x7f\xff \xc2\x9b \xc3\xa9\xe2\x80\xa8");
    capture_end();
    assert_int_equal(count_lines(), 1);
    assert_non_null(strstr(captured, "topic=a\\x0ab\\x1b[2J\\x7f\\xff \\xc2\\x9b \xc3\xa9\\xe2\\x80\\xa8\n"));
}

static void json_lines_are_json(void **state)
{
    (void)state;
    diagnostics_set_json(true);
    capture_begin();
    diagnostics(DIAGNOSTICS_ERROR, "journal", "a \"quoted\"\nline \xff");
    capture_end();
    assert_int_equal(count_lines(), 1);
    assert_memory_equal(captured, "{\"time\":\"2", 10);
    assert_string_equal(captured + 33,
                        "\",\"level\":\"error\",\"module\":\"journal\",\"text\":\"a \\\"quoted\\\"\\nline \xef\xbf\xbd\"}\n");
}

static void very_long_texts_are_cut_but_stay_one_line(void **state)
{
    (void)state;
    char *text = malloc(20001);
    memset(text, 1, 20000); /* every byte becomes six in JSON */
    text[20000] = 0;
    for (int as_json = 0; as_json <= 1; as_json++) {
        diagnostics_set_json(as_json);
        capture_begin();
        diagnostics(DIAGNOSTICS_INFO, "bus", "%s", text);
        size_t length = capture_end();
        assert_int_equal(count_lines(), 1);
        assert_string_equal(captured + length - 6, as_json ? "001\"}\n" : "1\\x01\n");
    }
    free(text);
}

static void a_limited_site_speaks_once_a_second(void **state)
{
    (void)state;
    struct diagnostics_limit limit = {0};
    uint64_t muted = 77;
    assert_true(diagnostics_limit_pass(&limit, &muted));
    assert_int_equal(muted, 0);
    muted = 77;
    for (int i = 0; i < 5; i++)
        assert_false(diagnostics_limit_pass(&limit, &muted));
    assert_int_equal(muted, 77);
    limit.next_ns = clock_monotonic_ns(); /* a second later */
    assert_true(diagnostics_limit_pass(&limit, &muted));
    assert_int_equal(muted, 5);
    assert_true(limit.next_ns > clock_monotonic_ns());
}

static void a_limited_site_is_muted_within_a_second(void **state)
{
    (void)state;
    capture_begin();
    for (int i = 0; i < 10; i++)
        DIAG_LIMITED(DIAGNOSTICS_INFO, "bus", "dropped number %d", i);
    capture_end();
    assert_int_equal(count_lines(), 1);
    assert_non_null(strstr(captured, "dropped number 0\n"));
}

static void the_next_line_says_how_many_were_muted(void **state)
{
    (void)state;
    capture_begin();
    for (int i = 0; i < 2; i++) {
        diagnostics_after((uint64_t)i * 41, DIAGNOSTICS_WARNING, "bus", "client \"%s\" is disconnected", "drill");
        diagnostics_after((uint64_t)i, DIAGNOSTICS_WARNING, "bus", "refused");
    }
    capture_end();
    assert_int_equal(count_lines(), 4);
    assert_non_null(strstr(captured, "bus: client \"drill\" is disconnected\n"));
    assert_non_null(strstr(captured, "bus: client \"drill\" is disconnected (41 similar lines were muted)\n"));
    assert_non_null(strstr(captured, "bus: refused (1 similar line was muted)\n"));
}

/* The macro again a second later, by the same site. */
static void a_site_says_what_it_muted_when_it_speaks_again(void **state)
{
    (void)state;
    capture_begin();
    for (int i = 0; i < 10; i++) {
        if (i == 9)
            usleep(1010000);
        DIAG_LIMITED(DIAGNOSTICS_INFO, "bus", "number %d", i);
    }
    capture_end();
    assert_true(count_lines() >= 2);
    assert_non_null(strstr(captured, " were muted)\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_line_has_time_level_module_and_text, defaults),
        cmocka_unit_test_setup(lower_levels_are_silent, defaults),
        cmocka_unit_test_setup(one_event_is_one_line_whatever_the_text, defaults),
        cmocka_unit_test_setup(json_lines_are_json, defaults),
        cmocka_unit_test_setup(very_long_texts_are_cut_but_stay_one_line, defaults),
        cmocka_unit_test_setup(a_limited_site_speaks_once_a_second, defaults),
        cmocka_unit_test_setup(a_limited_site_is_muted_within_a_second, defaults),
        cmocka_unit_test_setup(the_next_line_says_how_many_were_muted, defaults),
        cmocka_unit_test_setup(a_site_says_what_it_muted_when_it_speaks_again, defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
