/* simulate/curve_file: reads what real tools recorded, and says file and line of what it refuses. */
#include "simulate/curve_file.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "base/error.h"
#include "unit.h"

#define HEADER "step,position_mm,torque_a,thrust_a,torque_empty_a,thrust_empty_a\n"

static char folder[] = "/tmp/spindle-curves-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"a.csv", "a.csv.gz", "b.csv", "notes.txt"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(path_of(names[i]));
    return rmdir(folder);
}

static void write_file(const char *name, const void *bytes, size_t length)
{
    FILE *file = fopen(path_of(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

/* Writes `text` compressed and cuts `missing` bytes off its end. */
static void write_compressed(const char *name, const char *text, size_t missing)
{
    gzFile file = gzopen(path_of(name), "wb");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, text, (unsigned)strlen(text)), (int)strlen(text));
    assert_int_equal(gzclose(file), Z_OK);
    struct stat status;
    assert_int_equal(stat(path_of(name), &status), 0);
    assert_int_equal(truncate(path_of(name), status.st_size - (off_t)missing), 0);
}

static void reads_to(struct simulator_curve *curve, const char *text)
{
    struct curve_file_problem problem = {""};
    write_file("a.csv", text, strlen(text));
    int error = curve_file_read(path_of("a.csv"), curve, &problem);
    if (error)
        fail_msg("%s", problem.text);
}

/* The text is refused with `error`, at `line`, in words that hold `words`; the curve is left alone. */
static void is_refused(const char *text, size_t length, int error, unsigned line, const char *words)
{
    struct simulator_curve curve = {.sample_count = 77};
    struct curve_file_problem problem = {""};
    char where[300];
    write_file("a.csv", text, length);
    assert_int_equal(curve_file_read(path_of("a.csv"), &curve, &problem), error);
    snprintf(where, sizeof where, "%s:%u: ", path_of("a.csv"), line);
    if (strncmp(problem.text, where, strlen(where)) != 0 || !strstr(problem.text, words))
        fail_msg("said \"%s\", expected line %u and \"%s\"", problem.text, line, words);
    assert_int_equal(curve.sample_count, 77);
}

static void columns_come_in_any_order_and_others_are_skipped(void **state)
{
    (void)state;
    struct simulator_curve curve;
    reads_to(&curve, "thrust_a,note,position_mm,step,torque_empty_a,torque_a,thrust_empty_a\r\n"
                     "-0.012,x,-0.684,0,5.811,-0.049,0.41\r\n"
                     "0.5,,-1,2.0,3.271,1e1,0.1\r\n"
                     "0.5,,-1,2,9,1e1,9");
    assert_int_equal(curve.sample_count, 3);
    assert_int_equal(curve.position_um[0], -684);
    assert_int_equal(curve.torque_ma[0], -49);
    assert_int_equal(curve.torque_ma[1], 10000);
    assert_int_equal(curve.thrust_ma[0], -12);
    assert_int_equal(curve.step[2], 2);
    assert_int_equal(curve.step_count, 2);
    assert_int_equal(curve.torque_empty_ma[0], 5811);
    assert_int_equal(curve.torque_empty_ma[1], 3271);
    assert_int_equal(curve.thrust_empty_ma[1], 100);
    assert_int_equal(curve.shape, SIMULATOR_FROM_FILE);
    simulator_curve_fini(&curve);
}

static void compressed_and_plain_are_alike(void **state)
{
    (void)state;
    struct simulator_curve curve;
    struct curve_file_problem problem;
    write_compressed("a.csv.gz", HEADER "1,-2.5,0.049,0,4,0.3\n", 0);
    assert_int_equal(curve_file_read(path_of("a.csv.gz"), &curve, &problem), 0);
    assert_int_equal(curve.position_um[0], -2500);
    simulator_curve_fini(&curve);
}

static void a_cut_file_is_damaged(void **state)
{
    (void)state;
    enum { ROWS = 3000, ROW_SIZE = 24 };
    static char text[100 + ROWS * ROW_SIZE];
    char *at = text + sprintf(text, HEADER);
    for (int i = 0; i < ROWS; i++)
        at += sprintf(at, "1,-%d.%03d,0.%03d,0,4,0.3\n", i / 1000, i % 1000, i * 7919 % 1000);
    for (size_t missing = 1; missing < 3000; missing += 331) {
        struct simulator_curve curve = {.sample_count = 77};
        struct curve_file_problem problem;
        write_compressed("a.csv.gz", text, missing);
        assert_int_equal(curve_file_read(path_of("a.csv.gz"), &curve, &problem), ERR_CORRUPT);
        assert_non_null(strstr(problem.text, "cut or damaged"));
        assert_int_equal(curve.sample_count, 77);
    }
}

static void a_file_that_is_not_there_is_named(void **state)
{
    (void)state;
    struct simulator_curve curve;
    struct curve_file_problem problem;
    assert_int_equal(curve_file_read("/nonexistent/x.csv.gz", &curve, &problem), ERR_NOT_FOUND);
    assert_non_null(strstr(problem.text, "/nonexistent/x.csv.gz: cannot be opened: No such file"));
}

static void headers_are_checked(void **state)
{
    (void)state;
    static const char twice[] = "step,step,position_mm,torque_a,thrust_a,torque_empty_a,thrust_empty_a\n";
    static const char missing[] = "step,position_mm,torque_a,thrust_a,thrust_empty_a\n1,1,1,1,1\n";
    is_refused("", 0, ERR_INVALID, 1, "empty");
    is_refused(missing, sizeof missing - 1, ERR_INVALID, 1, "column torque_empty_a is missing");
    is_refused(twice, sizeof twice - 1, ERR_INVALID, 1, "column step is named twice");
    is_refused(HEADER, sizeof HEADER - 1, ERR_INVALID, 2, "no sample");
}

static void rows_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *row, *words;
    } cases[] = {
        {"1,-2.5,much,0,4,0.3", "torque_a is \"much\", expected a number"},
        {"1,-2.5,,0,4,0.3", "torque_a is \"\", expected a number"},
        {"1,-2.5,nan,0,4,0.3", "expected a number"},
        {"1,0x10,0,0,4,0.3", "expected a number"},
        {"1,-2.5,1.2.3,0,4,0.3", "expected a number"},
        {"1,1e300,0,0,4,0.3", "position_mm is 1e300, beyond"},
        {"1.5,-2.5,0,0,4,0.3", "step is 1.5, expected a whole number"},
        {"1e9,-2.5,0,0,4,0.3", "expected a whole number"},
        {"1,-2.5,0,0,4", "5 fields, expected 6"},
        {"1,-2.5,0,0,4,0.3,9", "more than 6 fields"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[300];
        int length = snprintf(text, sizeof text, HEADER "1,-2.5,0,0,4,0.3\n\n%s\n", cases[i].row);
        is_refused(text, (size_t)length, ERR_INVALID, 4, cases[i].words);
    }
}

static void limits_hold(void **state)
{
    (void)state;
    static char text[(SIMULATOR_SAMPLES_MAX + 2) * 12 + 200];
    char *at = text + sprintf(text, HEADER);
    memset(at, '1', CURVE_FILE_LINE_MAX);
    is_refused(text, (size_t)(at - text) + CURVE_FILE_LINE_MAX, ERR_LIMIT, 2, "longer than");

    at = text + sprintf(text, HEADER);
    for (int i = 0; i <= SIMULATOR_STEPS_MAX; i++)
        at += sprintf(at, "%d,0,0,0,0,0\n", i);
    is_refused(text, (size_t)(at - text), ERR_LIMIT, SIMULATOR_STEPS_MAX + 3, "different steps");

    at = text + sprintf(text, HEADER);
    for (int i = 0; i <= SIMULATOR_SAMPLES_MAX; i++)
        at = memcpy(at, "1,0,0,0,0,0\n", 12), at += 12;
    is_refused(text, (size_t)(at - text), ERR_LIMIT, SIMULATOR_SAMPLES_MAX + 2, "samples");
}

static void folders_list_their_curves_by_name(void **state)
{
    (void)state;
    char **paths;
    size_t count;
    struct curve_file_problem problem;
    write_file("b.csv", "", 0);
    write_file("a.csv.gz", "", 0);
    write_file("notes.txt", "", 0);
    unlink(path_of("a.csv"));
    assert_int_equal(curve_folder_list(folder, &paths, &count, &problem), 0);
    assert_int_equal(count, 2);
    assert_non_null(strstr(paths[0], "/a.csv.gz"));
    assert_non_null(strstr(paths[1], "/b.csv"));
    curve_folder_free(paths, count);
    unlink(path_of("b.csv"));
    unlink(path_of("a.csv.gz"));
    assert_int_equal(curve_folder_list(folder, &paths, &count, &problem), ERR_NOT_FOUND);
    assert_non_null(strstr(problem.text, "holds no file"));
    assert_int_equal(curve_folder_list("/nonexistent", &paths, &count, &problem), ERR_NOT_FOUND);
    assert_non_null(strstr(problem.text, "/nonexistent: cannot be read"));
}

static void recorded_curves_can_be_read(void **state)
{
    (void)state;
    const char *shared = getenv("SPINDLE_SHARED");
    char curves[300];
    snprintf(curves, sizeof curves, "%s/data/curves", shared ? shared : "../shared");
    char **paths;
    size_t count;
    struct curve_file_problem problem;
    if (curve_folder_list(curves, &paths, &count, &problem) != 0) {
        print_message("skipped: %s (set SPINDLE_SHARED)\n", problem.text);
        skip();
    }
    for (size_t i = 0; i < count; i += 40) {
        struct simulator_curve curve;
        if (curve_file_read(paths[i], &curve, &problem) != 0)
            fail_msg("%s", problem.text);
        assert_in_range(curve.sample_count, 50, 12000);
        assert_in_range(curve.step_count, 1, 5);
        simulator_curve_fini(&curve);
    }
    curve_folder_free(paths, count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_come_in_any_order_and_others_are_skipped),
        cmocka_unit_test(compressed_and_plain_are_alike),
        cmocka_unit_test(a_cut_file_is_damaged),
        cmocka_unit_test(a_file_that_is_not_there_is_named),
        cmocka_unit_test(headers_are_checked),
        cmocka_unit_test(rows_are_checked),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(folders_list_their_curves_by_name),
        cmocka_unit_test(recorded_curves_can_be_read),
    };
    return cmocka_run_group_tests_name("curve_file", tests, make_folder, remove_folder);
}
