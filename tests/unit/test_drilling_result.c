/* drilling/result: byte for byte what Python's json.dumps makes, and back. */
#include "drilling/result.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "unit.h"

static struct buffer out;

static int setup(void **state)
{
    (void)state;
    buffer_init(&out, 1 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buffer_fini(&out);
    return 0;
}

static const struct result_identity known = {
    .stamp = "2024-05-15T07:29:33Z", .machine_id = "0", .result_id = "440", .head_id = "E00401009F45BACA"};
static const struct result_identity unknown = {.stamp = "2024-05-15T07:29:33Z"};

static void assert_written(int error, const char *expected)
{
    assert_int_equal(error, 0);
    assert_string_equal(buffer_text(&out), expected);
    buffer_clear(&out);
}

static void estimates_are_written(void **state)
{
    (void)state;
    const double points[] = {3.588, 21.366, 25.1};
    assert_written(
        result_write_values(&out, &known, points, 3, "0.2.6", false),
        "{\"SourceTimestamp\": \"2024-05-15T07:29:33Z\", \"MachineId\": \"0\", \"ResultId\": \"440\", \"HeadId\": \"E00401009F45BACA\", "
        "\"Value\": [3.588, 21.366, 25.1], \"AlgoVersion\": \"0.2.6\"}");
    const double depths[] = {21, 1e-5, -0.0, 1e16, 0.1 + 0.2};
    assert_written(result_write_values(&out, &unknown, depths, 5, "1", false),
                   "{\"SourceTimestamp\": \"2024-05-15T07:29:33Z\", \"MachineId\": null, \"ResultId\": null, \"HeadId\": null, \"Value\": "
                   "[21.0, 1e-05, "
                   "-0.0, 1e+16, 0.30000000000000004], \"AlgoVersion\": \"1\"}");
    assert_written(
        result_write_values(&out, &unknown, NULL, 0, "", false),
        "{\"SourceTimestamp\": \"2024-05-15T07:29:33Z\", \"MachineId\": null, \"ResultId\": null, \"HeadId\": null, \"Value\": [], "
        "\"AlgoVersion\": \"\"}");
}

static void a_warning_is_the_last_key(void **state)
{
    (void)state;
    const double depths[] = {-1.5};
    assert_written(
        result_write_values(&out, &unknown, depths, 1, "1", true),
        "{\"SourceTimestamp\": \"2024-05-15T07:29:33Z\", \"MachineId\": null, \"ResultId\": null, \"HeadId\": null, \"Value\": [-1.5], "
        "\"AlgoVersion\": \"1\", \"Warning\": \"Negative depth values detected\"}");
}

static void errors_are_written(void **state)
{
    (void)state;
    assert_written(
        result_write_error(&out, &known, RESULT_KEYPOINTS, "Not enough steps to estimate depth"),
        "{\"SourceTimestamp\": \"2024-05-15T07:29:33Z\", \"MachineId\": \"0\", \"ResultId\": \"440\", \"HeadId\": \"E00401009F45BACA\", "
        "\"Value\": \"Error in keypoint estimation: Not enough steps to estimate depth\", \"Error\": true}");
    assert_written(result_write_error(&out, &unknown, RESULT_DEPTHS, "a \"quoted\"\nline"),
                   "{\"SourceTimestamp\": \"2024-05-15T07:29:33Z\", \"MachineId\": null, \"ResultId\": null, \"HeadId\": null, "
                   "\"Value\": \"Error in depth estimation: a \\\"quoted\\\"\\nline\", \"Error\": true}");
    assert_written(result_write_error(&out, &unknown, RESULT_DEPTHS, ""),
                   "{\"SourceTimestamp\": \"2024-05-15T07:29:33Z\", \"MachineId\": null, \"ResultId\": null, \"HeadId\": null, "
                   "\"Value\": \"Error in depth estimation: \", \"Error\": true}");
}

static void texts_are_escaped_to_ascii(void **state)
{
    (void)state;
    const struct result_identity identity = {
        .stamp = "\x01\x1f\x7f\"\\/\b\f\t", .machine_id = "\xc3\xa9\xe2\x82\xac", .result_id = "\xf0\x9f\x98\x80", .head_id = ""};
    assert_written(result_write_values(&out, &identity, NULL, 0, "\xc2\x80", false),
                   "{\"SourceTimestamp\": \"\\u0001\\u001f\\u007f\\\"\\\\/\\b\\f\\t\", \"MachineId\": \"\\u00e9\\u20ac\", \"ResultId\": "
                   "\"\\ud83d\\ude00\", \"HeadId\": \"\", \"Value\": [], \"AlgoVersion\": \"\\u0080\"}");
}

static void what_does_not_fit_leaves_nothing(void **state)
{
    (void)state;
    const double points[] = {3.588, 21.366, 25.1};
    struct buffer full;
    buffer_init(&full, 10000);
    assert_int_equal(result_write_values(&full, &known, points, 3, "0.2.6", true), 0);
    size_t whole = full.length;
    assert_int_equal(result_write_error(&full, &known, RESULT_DEPTHS, "why"), 0);
    size_t whole_error = full.length - whole;
    buffer_fini(&full);
    for (size_t limit = 0; limit <= whole || limit <= whole_error; limit++) {
        buffer_init(&full, limit);
        assert_int_equal(result_write_values(&full, &known, points, 3, "0.2.6", true), limit < whole ? ERR_LIMIT : 0);
        assert_int_equal(full.length, limit < whole ? 0 : whole);
        buffer_clear(&full);
        int error = result_write_error(&full, &known, RESULT_DEPTHS, "why");
        if (limit < whole_error)
            assert_int_equal(error, ERR_LIMIT);
        if (error)
            assert_int_equal(full.length, 0);
        buffer_fini(&full);
    }
}

/* ---- against Python ---- */

enum { CASES = 3000 };

static uint64_t seed = 88172645463325252u;

static uint64_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static size_t append_code_point(char *text, uint32_t c)
{
    if (c < 0x80) {
        text[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        text[0] = (char)(0xc0 | c >> 6);
        text[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        text[0] = (char)(0xe0 | c >> 12);
        text[1] = (char)(0x80 | (c >> 6 & 63));
        text[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    text[0] = (char)(0xf0 | c >> 18);
    text[1] = (char)(0x80 | (c >> 12 & 63));
    text[2] = (char)(0x80 | (c >> 6 & 63));
    text[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* Up to seven characters of all planes, without zero and surrogates. */
static void random_text(char text[32])
{
    static const uint32_t limits[] = {0x20, 0x80, 0x800, 0x10000, 0x110000};
    size_t length = 0;
    for (uint64_t left = random_bits() % 8; left > 0; left--) {
        uint32_t c = (uint32_t)(random_bits() >> 20) % limits[random_bits() % 5];
        if (c > 0 && (c < 0xd800 || c > 0xdfff))
            length += append_code_point(text + length, c);
    }
    text[length] = 0;
}

/* Doubles of all sizes, and such as key points are. */
static double random_double(void)
{
    double value;
    uint64_t bits = random_bits();
    switch (random_bits() % 4) {
    case 0:
        memcpy(&value, &bits, sizeof value);
        return isfinite(value) ? value : 0.5;
    case 1:
        return (double)(int64_t)bits / 1e3;
    case 2:
        return (double)(float)((double)(bits % 40000) / 1000.0);
    default:
        return (double)(bits % 1000000) / 30.0 / 1000.0;
    }
}

static void print_hex(FILE *file, const char *text)
{
    if (!text) {
        fputs(" null", file);
        return;
    }
    fputs(" x", file);
    for (; *text; text++)
        fprintf(file, "%02x", (unsigned)(unsigned char)*text);
}

/* What json.dumps is to be given, a case a line: kind, texts in hexadecimal, the bits of the values. */
static const char script[] =
    "import json,struct,sys\n"
    "def text(h): return None if h=='null' else bytes.fromhex(h[1:]).decode()\n"
    "for line in open(sys.argv[1]):\n"
    "    f=line.split(); d={k:text(h) for k,h in zip(('SourceTimestamp','MachineId','ResultId','HeadId'),f[1:5])}\n"
    "    if f[0]=='e':\n"
    "        d['Value']='Error in depth estimation: '+text(f[5]); d['Error']=True\n"
    "    else:\n"
    "        d['Value']=[struct.unpack('>d',bytes.fromhex(h))[0] for h in f[6:]]; d['AlgoVersion']=text(f[5])\n"
    "        if f[0]=='w': d['Warning']='Negative depth values detected'\n"
    "    print(json.dumps(d))\n";

/* Makes one case: its line into `file`, and what we write of it into `out` with a line end. */
static void make_case(FILE *file)
{
    char texts[5][32];
    const char *given[5];
    for (int i = 0; i < 5; i++) {
        random_text(texts[i]);
        given[i] = i > 0 && i < 4 && random_bits() % 3 == 0 ? NULL : texts[i];
    }
    const struct result_identity identity = {given[0], given[1], given[2], given[3]};
    char kind = "vwe"[random_bits() % 3];
    fputc(kind, file);
    for (int i = 0; i < 5; i++)
        print_hex(file, given[i]);
    double values[3];
    size_t count = kind == 'e' ? 0 : random_bits() % 4;
    for (size_t i = 0; i < count; i++) {
        uint64_t bits;
        values[i] = random_double();
        memcpy(&bits, &values[i], sizeof bits);
        fprintf(file, " %016llx", (unsigned long long)bits);
    }
    fputc('\n', file);
    int error = kind == 'e' ? result_write_error(&out, &identity, RESULT_DEPTHS, texts[4])
                            : result_write_values(&out, &identity, values, count, texts[4], kind == 'w');
    assert_int_equal(error, 0);
    assert_int_equal(buffer_append_text(&out, "\n"), 0);
}

static void python_writes_the_same(void **state)
{
    (void)state;
    if (system("python3 -c '' 2>/dev/null") != 0) {
        printf("skipped: there is no python3 to compare with\n");
        skip();
    }
    char cases_path[] = "/tmp/spindle-cases-XXXXXX", script_path[] = "/tmp/spindle-script-XXXXXX";
    FILE *cases = fdopen(mkstemp(cases_path), "w"), *program = fdopen(mkstemp(script_path), "w");
    assert_non_null(cases);
    assert_non_null(program);
    fputs(script, program);
    fclose(program);
    buffer_clear(&out);
    for (int i = 0; i < CASES; i++)
        make_case(cases);
    fclose(cases);
    char command[128];
    snprintf(command, sizeof command, "python3 %s %s", script_path, cases_path);
    FILE *python = popen(command, "r");
    assert_non_null(python);
    char *theirs = malloc(out.length + 2);
    assert_non_null(theirs);
    size_t length = fread(theirs, 1, out.length + 1, python);
    assert_int_equal(pclose(python), 0);
    unlink(cases_path);
    unlink(script_path);
    assert_int_equal(length, out.length);
    assert_memory_equal(theirs, out.data, length);
    free(theirs);
    buffer_clear(&out);
}

/* ---- reading back ---- */

static int read_back(const char *text, struct result_known *found)
{
    struct json_reader *reader;
    assert_int_equal(json_reader_create(&reader), 0);
    int error = result_read(reader, (const uint8_t *)text, strlen(text), found);
    json_reader_destroy(reader);
    return error;
}

static void written_messages_are_read_back(void **state)
{
    (void)state;
    struct result_known found;
    const double points[] = {1, 2};
    assert_int_equal(result_write_values(&out, &known, points, 2, "1", true), 0);
    assert_int_equal(read_back(buffer_text(&out), &found), 0);
    assert_string_equal(found.stamp, known.stamp);
    assert_string_equal(found.id, "440");
    assert_true(found.has_head);
    buffer_clear(&out);
    assert_int_equal(result_write_error(&out, &unknown, RESULT_KEYPOINTS, "why"), 0);
    assert_int_equal(read_back(buffer_text(&out), &found), 0);
    assert_string_equal(found.stamp, unknown.stamp);
    assert_string_equal(found.id, "");
    assert_false(found.has_head);
    buffer_clear(&out);
}

static void other_messages_are_not_taken_for_ours(void **state)
{
    (void)state;
    static const char *const others[] = {
        "",
        "[]",
        "5",
        "{}",
        "{\"SourceTimestamp\": \"t\"}",
        "{\"ResultId\": \"7\"}",
        "{\"SourceTimestamp\": \"\", \"ResultId\": \"7\"}",
        "{\"SourceTimestamp\": null, \"ResultId\": \"7\"}",
        "{\"SourceTimestamp\": \"t\", \"ResultId\": 7}",
        "{\"Deep\": {\"SourceTimestamp\": \"t\", \"ResultId\": \"7\"}}",
        "[{\"SourceTimestamp\": \"t\", \"ResultId\": \"7\"}]",
        "{\"SourceTimestamp\": \"t\", \"ResultId\": \"7\"",
        "{\"SourceTimestamp\": \"t\", \"ResultId\": \"7777777777777777777777777777777777777777777777777777777777777777\"}"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct result_known found = {.id = "before"};
        int error = read_back(others[i], &found);
        assert_int_equal(error_class(error), ERROR_CLASS_DATA);
        assert_string_equal(found.id, "before");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(estimates_are_written),
        cmocka_unit_test(a_warning_is_the_last_key),
        cmocka_unit_test(errors_are_written),
        cmocka_unit_test(texts_are_escaped_to_ascii),
        cmocka_unit_test(what_does_not_fit_leaves_nothing),
        cmocka_unit_test(python_writes_the_same),
        cmocka_unit_test(written_messages_are_read_back),
        cmocka_unit_test(other_messages_are_not_taken_for_ours),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
