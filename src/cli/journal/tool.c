#include "cli/journal/tool.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/text.h"
#include "cli/command.h"
#include "journal/ends.h"

const char *const tool_streams[] = {"ingest", "bus", "results", "dead-letters", "outcomes", "retained", "brokers", "sessions", NULL};

/* Letters, digits and dashes: nothing that leads out of the data folder. */
static bool is_stream_name(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return length > 0 && length <= FORMAT_STREAM_NAME_MAX && !name[length];
}

int tool_stream_folder(const char *data_dir, const char *stream, char folder[TOOL_FOLDER_MAX])
{
    snprintf(folder, TOOL_FOLDER_MAX, "%s/%s", data_dir, stream);
    struct stat status;
    if (!is_stream_name(stream))
        return ERR_NOT_FOUND;
    if (stat(folder, &status))
        return error_from_errno(errno);
    return S_ISDIR(status.st_mode) ? 0 : ERR_NOT_FOLDER;
}

uint64_t tool_known_end(const char *data_dir, const char *stream)
{
    struct format_ends ends;
    return ends_read(disk_posix(), data_dir, &ends) ? 0 : ends_of(&ends, stream);
}

uint64_t tool_first_offset(const char *data_dir, const char *stream)
{
    char folder[TOOL_FOLDER_MAX];
    uint64_t *bases = NULL;
    size_t count = 0;
    tool_stream_folder(data_dir, stream, folder);
    uint64_t first = segment_list(disk_posix(), folder, &bases, &count) || !count ? 0 : bases[0];
    free(bases);
    return first;
}

uint64_t tool_known_first(const char *data_dir, const char *stream)
{
    struct format_ends ends;
    return ends_read(disk_posix(), data_dir, &ends) ? FORMAT_BEGINNING_UNKNOWN : ends_first_of(&ends, stream);
}

const char *tool_reading_advice(int error)
{
    switch (error) {
    case ERR_PERMISSION:
        return "; run this as the user that the server runs as, or as root";
    case ERR_FORMAT_VERSION:
        return "; another version of Spindle wrote it: use that one";
    case ERR_NOT_FOLDER:
        return ", or something on its path is none; --data-dir names the folder that `spindle run` was given (data.dir)";
    default:
        return "";
    }
}

/* Ends the line with the streams that there are, or with what to do when there are none. */
static void say_streams(const char *data_dir)
{
    char folder[TOOL_FOLDER_MAX];
    unsigned count = 0;
    for (const char *const *stream = tool_streams; *stream; stream++)
        if (tool_stream_folder(data_dir, *stream, folder) == 0)
            fprintf(stderr, "%s%s", count++ ? ", " : "; there are ", *stream);
    fputs(count ? "\n" : "; --data-dir names the folder that `spindle run` was given (data.dir)\n", stderr);
}

static const char *writing_advice(int error)
{
    switch (error) {
    case ERR_PERMISSION:
        return "; this user may not write there: give it the folder (chown), or name another";
    case ERR_READ_ONLY:
        return "; mount it for writing, or name another folder";
    case ERR_NOT_FOLDER:
        return "; something on this path is a file: name another folder";
    case ERR_NOT_FOUND:
        return "; the folder above it does not exist: make it, or name another";
    case ERR_NO_SPACE:
        return "; free some, or name a folder elsewhere";
    default:
        return "; look at the disk (dmesg), or name another folder";
    }
}

int tool_refuse_writing(const char *command, const char *what, int error)
{
    fprintf(stderr, "%s: %s: %s%s\n", command, what, error_text(error), writing_advice(error));
    return COMMAND_FAILED;
}

int tool_refuse_folder(const char *command, const char *data_dir, const char *stream, int error)
{
    if (error == ERR_NOT_FOUND) {
        fprintf(stderr, "%s: there is no stream `%s` in %s", command, stream, data_dir);
        say_streams(data_dir);
        return COMMAND_USAGE;
    }
    fprintf(stderr, "%s: %s/%s cannot be read: %s%s\n", command, data_dir, stream, error_text(error), tool_reading_advice(error));
    return error == ERR_NOT_FOLDER ? COMMAND_USAGE : COMMAND_FAILED;
}

int tool_refuse(const char *command, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", command);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return COMMAND_USAGE;
}

void tool_say_damage(void *context, const struct reader_damage *damage)
{
    bool *damaged = context;
    *damaged = true;
    char text[READER_DAMAGE_TEXT_MAX];
    reader_damage_text(damage, text);
    fprintf(stderr, "damage: %s\n", text);
}

/* ---- output that may fail ---- */

void tool_begin_output(void)
{
    signal(SIGPIPE, SIG_DFL); /* `| head` ends it quietly */
}

bool tool_emit(const struct buffer *line)
{
    return line->length == 0 || fwrite(line->data, 1, line->length, stdout) == line->length;
}

void tool_append_bytes_json(struct buffer *line, const char *name, const uint8_t *bytes, size_t length)
{
    if (text_is_utf8((const char *)bytes, length)) {
        buffer_printf(line, "\"%s\":", name);
        buffer_append_json_string(line, (const char *)bytes, length, 0);
        return;
    }
    buffer_printf(line, "\"%s_base64\":\"", name);
    if (buffer_reserve(line, text_base64_size(length)) == 0) {
        text_base64(bytes, length, (char *)line->data + line->length);
        line->length += text_base64_size(length) - 1;
    }
    buffer_append_text(line, "\"");
}

const char *tool_size_text(uint64_t bytes, char text[TOOL_SIZE_TEXT_MAX])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double size = (double)bytes / 1024;
    unsigned unit = 0;
    for (; unit < 3 && size >= 1024; unit++)
        size /= 1024;
    if (bytes < 1024)
        snprintf(text, TOOL_SIZE_TEXT_MAX, "%u B", (unsigned)bytes);
    else
        snprintf(text, TOOL_SIZE_TEXT_MAX, "%.1f %s", size, units[unit]);
    return text;
}

const char *tool_age_text(uint64_t age_ns, char text[TOOL_SIZE_TEXT_MAX])
{
    double age_s = (double)age_ns / 1e9;
    if (age_s < 120)
        snprintf(text, TOOL_SIZE_TEXT_MAX, "%.1f s", age_s);
    else if (age_s < 7200)
        snprintf(text, TOOL_SIZE_TEXT_MAX, "%.1f min", age_s / 60);
    else if (age_s < 172800)
        snprintf(text, TOOL_SIZE_TEXT_MAX, "%.1f h", age_s / 3600);
    else
        snprintf(text, TOOL_SIZE_TEXT_MAX, "%.1f d", age_s / 86400);
    return text;
}
