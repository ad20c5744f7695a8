/* Line by line through zlib, which reads plain files as well. */
#include "simulate/curve_file.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "base/error.h"

enum column { COLUMN_STEP, COLUMN_POSITION, COLUMN_TORQUE, COLUMN_THRUST, COLUMN_TORQUE_EMPTY, COLUMN_THRUST_EMPTY, COLUMN_COUNT };

enum { FIELDS_MAX = 64, STEP_NUMBER_MAX = 1000, VALUE_MAX = 2000000 /* so that thousandths fit 32 bits */ };

static const char *const column_names[COLUMN_COUNT] = {"step", "position_mm", "torque_a", "thrust_a", "torque_empty_a", "thrust_empty_a"};

struct row {
    int32_t values[COLUMN_COUNT]; /* thousandths; the step as it is */
};

struct reader {
    gzFile file;
    const char *path;
    unsigned line;
    int column_of[FIELDS_MAX]; /* enum column of each field, -1: skipped */
    unsigned field_count;
    struct row *rows;
    size_t row_count, row_capacity;
    struct curve_file_problem *problem;
};

static int explain(struct reader *reader, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int explain(struct reader *reader, int error, const char *format, ...)
{
    char *text = reader->problem->text;
    int used = snprintf(text, CURVE_FILE_PROBLEM_MAX, "%s:%u: ", reader->path, reader->line);
    va_list arguments;
    va_start(arguments, format);
    if (used > 0 && used < CURVE_FILE_PROBLEM_MAX)
        vsnprintf(text + used, (size_t)(CURVE_FILE_PROBLEM_MAX - used), format, arguments);
    va_end(arguments);
    return error;
}

/* What zlib says after a short read; 0 at the end of an undamaged file. */
static int check_stream(struct reader *reader)
{
    int code;
    gzerror(reader->file, &code);
    if (code == Z_OK || code == Z_STREAM_END)
        return 0;
    if (code == Z_MEM_ERROR)
        return explain(reader, ERR_NO_MEMORY, "%s", error_text(ERR_NO_MEMORY));
    if (code == Z_ERRNO)
        return explain(reader, ERR_CORRUPT, "cannot be read: %s", strerror(errno));
    return explain(reader, ERR_CORRUPT, "the compressed data is cut or damaged");
}

/* Reads the next line without its end. *end is set behind the last one. */
static int read_line(struct reader *reader, char line[CURVE_FILE_LINE_MAX], bool *end)
{
    reader->line++;
    *end = false;
    if (!gzgets(reader->file, line, CURVE_FILE_LINE_MAX)) {
        *end = true;
        return check_stream(reader);
    }
    size_t length = strlen(line);
    bool whole = length > 0 && line[length - 1] == '\n';
    if (!whole && length == CURVE_FILE_LINE_MAX - 1)
        return explain(reader, ERR_LIMIT, "the line is longer than %d bytes", CURVE_FILE_LINE_MAX - 2);
    int error = whole ? 0 : check_stream(reader);
    if (error)
        return error;
    while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r'))
        line[--length] = '\0';
    return 0;
}

/* Cuts the next field off *rest; NULL behind the last one. */
static char *next_field(char **rest)
{
    char *field = *rest;
    if (!field)
        return NULL;
    char *comma = strchr(field, ',');
    if (comma)
        *comma = '\0';
    *rest = comma ? comma + 1 : NULL;
    return field;
}

static int read_header(struct reader *reader)
{
    char line[CURVE_FILE_LINE_MAX];
    bool end, seen[COLUMN_COUNT] = {false};
    int error = read_line(reader, line, &end);
    if (error)
        return error;
    if (end)
        return explain(reader, ERR_INVALID, "the file is empty; its first line must name the columns");
    char *rest = line;
    for (char *name = next_field(&rest); name; name = next_field(&rest)) {
        if (reader->field_count == FIELDS_MAX)
            return explain(reader, ERR_LIMIT, "more than %d columns", FIELDS_MAX);
        int column = COLUMN_COUNT - 1;
        while (column >= 0 && strcmp(name, column_names[column]) != 0)
            column--;
        if (column >= 0 && seen[column])
            return explain(reader, ERR_INVALID, "column %s is named twice", name);
        if (column >= 0)
            seen[column] = true;
        reader->column_of[reader->field_count++] = column;
    }
    for (int column = 0; column < COLUMN_COUNT; column++) {
        if (!seen[column])
            return explain(reader, ERR_INVALID, "column %s is missing", column_names[column]);
    }
    return 0;
}

/* A decimal number, kept in thousandths (the step: whole, as it is). */
static int read_value(struct reader *reader, enum column column, const char *text, int32_t *out)
{
    char *end;
    bool plain = text[0] != '\0' && strspn(text, "+-.0123456789eE") == strlen(text);
    double value = plain ? strtod(text, &end) : 0;
    if (!plain || *end)
        return explain(reader, ERR_INVALID, "%s is \"%.40s\", expected a number", column_names[column], text);
    if (column == COLUMN_STEP) {
        if (!(fabs(value) <= STEP_NUMBER_MAX) || floor(value) < value || floor(value) > value)
            return explain(reader, ERR_INVALID, "step is %.40s, expected a whole number up to %d", text, STEP_NUMBER_MAX);
        *out = (int32_t)value;
        return 0;
    }
    if (!(fabs(value) <= VALUE_MAX))
        return explain(reader, ERR_INVALID, "%s is %.40s, beyond %d", column_names[column], text, VALUE_MAX);
    *out = (int32_t)lround(value * 1000);
    return 0;
}

static int read_row(struct reader *reader, char *line)
{
    struct row row = {{0}};
    char *rest = line;
    for (unsigned i = 0; i < reader->field_count; i++) {
        const char *text = next_field(&rest);
        if (!text)
            return explain(reader, ERR_INVALID, "%u fields, expected %u", i, reader->field_count);
        int column = reader->column_of[i];
        int error = column < 0 ? 0 : read_value(reader, (enum column)column, text, &row.values[column]);
        if (error)
            return error;
    }
    if (rest)
        return explain(reader, ERR_INVALID, "more than %u fields", reader->field_count);
    if (reader->row_count == SIMULATOR_SAMPLES_MAX)
        return explain(reader, ERR_LIMIT, "more than %d samples", SIMULATOR_SAMPLES_MAX);
    if (reader->row_count == reader->row_capacity) {
        size_t capacity = reader->row_capacity ? reader->row_capacity * 2 : 1024;
        struct row *rows = realloc(reader->rows, capacity * sizeof *rows);
        if (!rows)
            return explain(reader, ERR_NO_MEMORY, "%s", error_text(ERR_NO_MEMORY));
        reader->rows = rows;
        reader->row_capacity = capacity;
    }
    reader->rows[reader->row_count++] = row;
    return 0;
}

static int read_rows(struct reader *reader)
{
    char line[CURVE_FILE_LINE_MAX];
    bool end;
    int error;
    while ((error = read_line(reader, line, &end)) == 0 && !end) {
        if (line[0] != '\0' && (error = read_row(reader, line)) != 0)
            return error;
    }
    if (!error && reader->row_count == 0)
        return explain(reader, ERR_INVALID, "no sample behind the header");
    return error;
}

static int make_curve(struct reader *reader, struct simulator_curve *out)
{
    struct simulator_curve curve;
    int error = simulator_curve_init(&curve, reader->row_count);
    if (error)
        return explain(reader, error, "%s", error_text(error));
    for (size_t i = 0; i < reader->row_count; i++) {
        const int32_t *values = reader->rows[i].values;
        curve.position_um[i] = values[COLUMN_POSITION];
        curve.torque_ma[i] = values[COLUMN_TORQUE];
        curve.thrust_ma[i] = values[COLUMN_THRUST];
        curve.step[i] = values[COLUMN_STEP];
        error = simulator_curve_add_step(&curve, values[COLUMN_STEP], values[COLUMN_TORQUE_EMPTY], values[COLUMN_THRUST_EMPTY]);
        if (error) {
            simulator_curve_fini(&curve);
            return explain(reader, error, "more than %d different steps", SIMULATOR_STEPS_MAX);
        }
    }
    *out = curve;
    return 0;
}

int curve_file_read(const char *path, struct simulator_curve *curve, struct curve_file_problem *problem)
{
    struct reader reader = {.path = path, .problem = problem};
    reader.file = gzopen(path, "rb");
    if (!reader.file) {
        snprintf(problem->text, sizeof problem->text, "%s: cannot be opened: %s", path, strerror(errno));
        return errno == ENOMEM ? ERR_NO_MEMORY : ERR_NOT_FOUND;
    }
    int error = read_header(&reader);
    if (!error)
        error = read_rows(&reader);
    if (!error)
        error = make_curve(&reader, curve);
    gzclose(reader.file);
    free(reader.rows);
    return error;
}

/* ---- folders ---- */

static bool has_ending(const char *name, const char *ending)
{
    size_t length = strlen(name), ending_length = strlen(ending);
    return length > ending_length && strcmp(name + length - ending_length, ending) == 0;
}

static int is_curve(const struct dirent *entry)
{
    return has_ending(entry->d_name, ".csv.gz") || has_ending(entry->d_name, ".csv");
}

static char **join_paths(const char *folder, struct dirent **entries, size_t count)
{
    char **paths = calloc(count, sizeof *paths);
    for (size_t i = 0; paths && i < count; i++) {
        if (asprintf(&paths[i], "%s/%s", folder, entries[i]->d_name) < 0) {
            curve_folder_free(paths, i);
            paths = NULL;
        }
    }
    return paths;
}

int curve_folder_list(const char *folder, char ***paths, size_t *count, struct curve_file_problem *problem)
{
    struct dirent **entries;
    int found = scandir(folder, &entries, is_curve, alphasort);
    if (found < 0) {
        snprintf(problem->text, sizeof problem->text, "%s: cannot be read as a folder: %s", folder, strerror(errno));
        return errno == ENOMEM ? ERR_NO_MEMORY : ERR_NOT_FOUND;
    }
    int error = 0;
    char **joined = NULL;
    if (found == 0) {
        error = ERR_NOT_FOUND;
        snprintf(problem->text, sizeof problem->text, "%s: holds no file named *.csv.gz or *.csv", folder);
    } else if (found > CURVE_FOLDER_FILES_MAX) {
        error = ERR_LIMIT;
        snprintf(problem->text, sizeof problem->text, "%s: holds more than %d curves", folder, CURVE_FOLDER_FILES_MAX);
    } else if (!(joined = join_paths(folder, entries, (size_t)found))) {
        error = ERR_NO_MEMORY;
        snprintf(problem->text, sizeof problem->text, "%s: %s", folder, error_text(error));
    }
    for (int i = 0; i < found; i++)
        free(entries[i]);
    free(entries);
    if (error)
        return error;
    *paths = joined;
    *count = (size_t)found;
    return 0;
}

void curve_folder_free(char **paths, size_t count)
{
    for (size_t i = 0; i < count && paths; i++)
        free(paths[i]);
    free(paths);
}
