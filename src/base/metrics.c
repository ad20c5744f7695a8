/* Samples are formatted at once into one text per metric, so that the page groups them without sorting. */
#include "base/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/text.h"

enum { METRICS_COLLECTORS_MAX = 64, NUMBER_TEXT_SIZE = 32 };

struct metric_row {
    const char *name;
    const char *type;
    const char *help;
};

static const struct metric_row rows[METRIC_COUNT] = {
#define METRIC(id, type, name, help) {name, #type, help},
#include "metrics.def"
#undef METRIC
};

struct metrics_writer {
    struct buffer lines[METRIC_COUNT];
    int error;                           /* the first that happened; nothing more is written after it */
    const struct metrics_reader *reader; /* gets the values in place of the lines; may be NULL */
};

struct registration {
    metrics_collector collector;
    void *owner;
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct registration registrations[METRICS_COLLECTORS_MAX];
static unsigned registration_count;

static unsigned find_registration(metrics_collector collector, const void *owner)
{
    unsigned i = 0;
    while (i < registration_count && (registrations[i].collector != collector || registrations[i].owner != owner))
        i++;
    return i;
}

int metrics_register(metrics_collector collector, void *owner)
{
    int error = 0;
    pthread_mutex_lock(&registry_lock);
    if (find_registration(collector, owner) < registration_count)
        error = ERR_INVALID;
    else if (registration_count == METRICS_COLLECTORS_MAX)
        error = ERR_LIMIT;
    else
        registrations[registration_count++] = (struct registration){collector, owner};
    pthread_mutex_unlock(&registry_lock);
    return error;
}

void metrics_unregister(metrics_collector collector, void *owner)
{
    pthread_mutex_lock(&registry_lock);
    unsigned i = find_registration(collector, owner);
    if (i < registration_count) {
        registration_count--;
        for (; i < registration_count; i++)
            registrations[i] = registrations[i + 1];
    }
    pthread_mutex_unlock(&registry_lock);
}

/* The shortest decimal text that reads back as the same number. */
static void number_text(double value, char text[NUMBER_TEXT_SIZE])
{
    if (isnan(value)) {
        snprintf(text, NUMBER_TEXT_SIZE, "NaN");
        return;
    }
    if (isinf(value)) {
        snprintf(text, NUMBER_TEXT_SIZE, value > 0 ? "+Inf" : "-Inf");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, NUMBER_TEXT_SIZE, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            return;
    }
}

static int append_label_value(struct buffer *line, const char *value)
{
    int error = 0;
    for (size_t length = strlen(value); length > 0 && !error;) {
        uint32_t code_point;
        size_t size = text_utf8_decode(value, length, &code_point);
        if (size == 0) {
            error = buffer_append_text(line, "\xef\xbf\xbd");
            size = 1;
        } else if (code_point == '\\' || code_point == '"') {
            error = buffer_printf(line, "\\%c", (int)code_point);
        } else if (code_point == '\n') {
            error = buffer_append_text(line, "\\n");
        } else {
            error = buffer_append(line, value, size);
        }
        value += size;
        length -= size;
    }
    return error;
}

/* Appends name="value" of each pair, `extra_bound` last as the label le when it is not NULL, in braces; nothing for no label. */
static int append_labels(struct buffer *line, const char *extra_bound, va_list labels)
{
    const char *separator = "{";
    int error = 0;
    for (const char *name = va_arg(labels, const char *); name && !error; name = va_arg(labels, const char *)) {
        const char *value = va_arg(labels, const char *);
        error = buffer_printf(line, "%s%s=\"", separator, name);
        if (!error)
            error = append_label_value(line, value);
        if (!error)
            error = buffer_append_text(line, "\"");
        separator = ",";
    }
    if (extra_bound && !error) {
        error = buffer_printf(line, "%sle=\"%s\"", separator, extra_bound);
        separator = ",";
    }
    return error || *separator == '{' ? error : buffer_append_text(line, "}");
}

/* Whole lines only: what an error cut short is taken back. */
static void append_line(struct metrics_writer *writer, enum metric metric, const char *suffix, const char *bound, const char *value,
                        va_list labels)
{
    if (writer->error)
        return;
    struct buffer *line = &writer->lines[metric];
    size_t start = line->length;
    va_list again;
    va_copy(again, labels);
    int error = buffer_printf(line, "%s%s", rows[metric].name, suffix);
    if (!error)
        error = append_labels(line, bound, again);
    if (!error)
        error = buffer_printf(line, " %s\n", value);
    va_end(again);
    if (error) {
        line->length = start;
        writer->error = error;
    }
}

static void tell_reader(const struct metrics_reader *reader, enum metric metric, double value, va_list labels)
{
    const char *texts[2 * METRICS_LABELS_MAX + 1];
    unsigned count = 0;
    for (const char *name; count < 2 * METRICS_LABELS_MAX && (name = va_arg(labels, const char *));) {
        texts[count++] = name;
        texts[count++] = va_arg(labels, const char *);
    }
    texts[count] = NULL;
    reader->sample(reader->context, metric, value, texts);
}

void metrics_sample(struct metrics_writer *writer, enum metric metric, double value, ...)
{
    char text[NUMBER_TEXT_SIZE];
    va_list labels;
    va_start(labels, value);
    if (writer->reader) {
        tell_reader(writer->reader, metric, value, labels);
    } else {
        number_text(value, text);
        append_line(writer, metric, "", NULL, text, labels);
    }
    va_end(labels);
}

void metrics_sample_u64(struct metrics_writer *writer, enum metric metric, uint64_t value, ...)
{
    char text[NUMBER_TEXT_SIZE];
    va_list labels;
    va_start(labels, value);
    if (writer->reader) {
        tell_reader(writer->reader, metric, (double)value, labels);
    } else {
        snprintf(text, sizeof text, "%llu", (unsigned long long)value);
        append_line(writer, metric, "", NULL, text, labels);
    }
    va_end(labels);
}

/* Counts are read in ascending order of the bounds and the total last: while the owner goes on recording, a later one is
 * never below an earlier one, as the format demands. */
void metrics_histogram_ns(struct metrics_writer *writer, enum metric metric, const struct histogram *histogram, const double *bounds_s,
                          unsigned bound_count, ...)
{
    if (writer->reader) {
        writer->reader->histogram(writer->reader->context, metric, histogram);
        return;
    }
    va_list labels;
    va_start(labels, bound_count);
    char bound[NUMBER_TEXT_SIZE], value[NUMBER_TEXT_SIZE];
    for (unsigned i = 0; i < bound_count; i++) {
        number_text(bounds_s[i], bound);
        uint64_t below = histogram_count_below(histogram, (uint64_t)llround(bounds_s[i] * 1e9));
        snprintf(value, sizeof value, "%llu", (unsigned long long)below);
        append_line(writer, metric, "_bucket", bound, value, labels);
    }
    uint64_t sum_ns = __atomic_load_n(&histogram->sum, __ATOMIC_RELAXED);
    snprintf(value, sizeof value, "%llu", (unsigned long long)histogram_count_below(histogram, UINT64_MAX));
    append_line(writer, metric, "_bucket", "+Inf", value, labels);
    append_line(writer, metric, "_count", NULL, value, labels);
    number_text((double)sum_ns / 1e9, value);
    append_line(writer, metric, "_sum", NULL, value, labels);
    va_end(labels);
}

static int append_page(const struct metrics_writer *writer, struct buffer *out)
{
    int error = 0;
    for (unsigned i = 0; i < METRIC_COUNT && !error; i++) {
        if (writer->lines[i].length == 0)
            continue;
        error = buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", rows[i].name, rows[i].help, rows[i].name, rows[i].type);
        if (!error)
            error = buffer_append(out, writer->lines[i].data, writer->lines[i].length);
    }
    return error;
}

static void collect(struct metrics_writer *writer)
{
    pthread_mutex_lock(&registry_lock);
    for (unsigned i = 0; i < registration_count; i++)
        registrations[i].collector(registrations[i].owner, writer);
    pthread_mutex_unlock(&registry_lock);
}

int metrics_read(const struct metrics_reader *reader)
{
    struct metrics_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return ERR_NO_MEMORY;
    writer->reader = reader;
    collect(writer);
    free(writer);
    return 0;
}

int metrics_write(struct buffer *out)
{
    struct metrics_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return ERR_NO_MEMORY;
    for (unsigned i = 0; i < METRIC_COUNT; i++)
        buffer_init(&writer->lines[i], out->limit);
    collect(writer);
    size_t start = out->length;
    int error = writer->error ? writer->error : append_page(writer, out);
    if (error)
        out->length = start;
    for (unsigned i = 0; i < METRIC_COUNT; i++)
        buffer_fini(&writer->lines[i]);
    free(writer);
    return error;
}
