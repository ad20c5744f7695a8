/* The table of errors.def turned into look-ups. */
#include "base/error.h"

#include <errno.h>

struct error_entry {
    const char *text;
    enum error_class klass;
    int mqtt_reason;
    int http_status;
};

static const struct error_entry entries[] = {
#define ERROR(name, klass, mqtt, http, text) {text, ERROR_CLASS_##klass, mqtt, http},
#include "errors.def"
#undef ERROR
};

static const struct error_entry ok_entry = {"ok", ERROR_CLASS_NONE, 0x00, 200};
static const struct error_entry unknown_entry = {"unknown error", ERROR_CLASS_FATAL, 0x80, 500};

static const struct error_entry *find(int error)
{
    if (error == OK)
        return &ok_entry;
    if (error > 0 || error < -ERROR_ROW_COUNT)
        return &unknown_entry;
    return &entries[-error - 1];
}

const char *error_text(int error)
{
    return find(error)->text;
}

enum error_class error_class(int error)
{
    return find(error)->klass;
}

int error_mqtt_reason(int error)
{
    return find(error)->mqtt_reason;
}

int error_http_status(int error)
{
    return find(error)->http_status;
}

int error_from_errno(int errno_value)
{
    switch (errno_value) {
    case 0:
        return OK;
    case ENOMEM:
        return ERR_NO_MEMORY;
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case ENOENT:
        return ERR_NOT_FOUND;
    case ENOTDIR:
        return ERR_NOT_FOLDER;
    case EACCES:
    case EPERM:
        return ERR_PERMISSION;
    case EROFS:
        return ERR_READ_ONLY;
    case EMFILE:
    case ENFILE:
        return ERR_LIMIT;
    case EINVAL:
        return ERR_INVALID;
    default:
        return ERR_IO;
    }
}
