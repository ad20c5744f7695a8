/* base/error: one table, looked up safely. */
#include "base/error.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "unit.h"

static const int all[] = {
#define ERROR(name, klass, mqtt, http, text) name,
#include "base/errors.def"
#undef ERROR
};
static const char *const texts[] = {
#define ERROR(name, klass, mqtt, http, text) text,
#include "base/errors.def"
#undef ERROR
};
enum { COUNT = sizeof all / sizeof *all };

static void errors_are_negative_and_follow_their_rows(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(all[i], -(i + 1));
        assert_string_equal(error_text(all[i]), texts[i]);
    }
    assert_int_equal(ERR_NO_MEMORY, -1);
}

/* What a row gives must be sayable: an MQTT 5 reason code of failure, an HTTP status of failure, a class, a text of its own. */
static void every_row_makes_sense(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT; i++) {
        assert_in_range(error_mqtt_reason(all[i]), 0x80, 0xa2);
        assert_in_range(error_http_status(all[i]), 400, 599);
        assert_in_range(error_class(all[i]), ERROR_CLASS_RETRY, ERROR_CLASS_FATAL);
        assert_true(strlen(error_text(all[i])) > 3);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(error_text(all[i]), error_text(all[j]));
    }
}

static void zero_is_ok(void **state)
{
    (void)state;
    assert_string_equal(error_text(OK), "ok");
    assert_int_equal(error_class(OK), ERROR_CLASS_NONE);
    assert_int_equal(error_mqtt_reason(OK), 0);
    assert_int_equal(error_http_status(OK), 200);
}

static void unknown_values_are_told_apart_from_errors(void **state)
{
    (void)state;
    static const int unknown[] = {1, INT_MAX, -COUNT - 1, INT_MIN};
    for (unsigned i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_string_equal(error_text(unknown[i]), "unknown error");
        assert_int_equal(error_class(unknown[i]), ERROR_CLASS_FATAL);
        assert_int_equal(error_mqtt_reason(unknown[i]), 0x80);
        assert_int_equal(error_http_status(unknown[i]), 500);
    }
}

static void classes_say_what_to_do(void **state)
{
    (void)state;
    assert_int_equal(error_class(ERR_NO_SPACE), ERROR_CLASS_RETRY);
    assert_int_equal(error_class(ERR_IO), ERROR_CLASS_FATAL);
    assert_int_equal(error_class(ERR_MALFORMED_PACKET), ERROR_CLASS_PEER);
    assert_int_equal(error_class(ERR_NOT_JSON), ERROR_CLASS_DATA);
    assert_int_equal(error_class(ERR_CONFIG), ERROR_CLASS_CALLER);
}

static void errno_values_map_to_rows(void **state)
{
    (void)state;
    assert_int_equal(error_from_errno(0), OK);
    assert_int_equal(error_from_errno(ENOMEM), ERR_NO_MEMORY);
    assert_int_equal(error_from_errno(ENOSPC), ERR_NO_SPACE);
    assert_int_equal(error_from_errno(EDQUOT), ERR_NO_SPACE);
    assert_int_equal(error_from_errno(ENOENT), ERR_NOT_FOUND);
    assert_int_equal(error_from_errno(ENOTDIR), ERR_NOT_FOLDER);
    assert_int_equal(error_from_errno(EACCES), ERR_PERMISSION);
    assert_int_equal(error_from_errno(EPERM), ERR_PERMISSION);
    assert_int_equal(error_from_errno(EROFS), ERR_READ_ONLY);
    assert_int_equal(error_from_errno(EMFILE), ERR_LIMIT);
    assert_int_equal(error_from_errno(EINVAL), ERR_INVALID);
    assert_int_equal(error_from_errno(EIO), ERR_IO);
    assert_int_equal(error_from_errno(-1), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_negative_and_follow_their_rows),
        cmocka_unit_test(every_row_makes_sense),
        cmocka_unit_test(zero_is_ok),
        cmocka_unit_test(unknown_values_are_told_apart_from_errors),
        cmocka_unit_test(classes_say_what_to_do),
        cmocka_unit_test(errno_values_map_to_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
