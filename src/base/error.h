/* Errors: one table (errors.def), one meaning each.
 *
 * A function that can fail returns 0 or one of these negative values; the caller acts on error_class(). Outputs are
 * untouched on failure. Whoever decides what happens next reports the error, once. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

enum error_class { ERROR_CLASS_NONE, ERROR_CLASS_RETRY, ERROR_CLASS_PEER, ERROR_CLASS_DATA, ERROR_CLASS_CALLER, ERROR_CLASS_FATAL };

enum error_row {
#define ERROR(name, klass, mqtt, http, text) name##_ROW,
#include "errors.def"
#undef ERROR
    ERROR_ROW_COUNT
};

enum error {
    OK = 0,
#define ERROR(name, klass, mqtt, http, text) name = -(name##_ROW + 1),
#include "errors.def"
#undef ERROR
};

/* All four accept any int; 0 gives "ok", class NONE, reason 0x00 and status 200; an unknown value gives "unknown error". */
const char *error_text(int error);
enum error_class error_class(int error);
int error_mqtt_reason(int error);
int error_http_status(int error);

/* The error for an errno value of the C library. */
int error_from_errno(int errno_value);

#endif
