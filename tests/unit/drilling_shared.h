/* The real curves and messages with their expected key points, where they are: $SPINDLE_SHARED/data, or ../shared/data beside the
 * checkout. They are no part of the repository; a test skips without them. */
#ifndef TESTS_DRILLING_SHARED_H
#define TESTS_DRILLING_SHARED_H

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "drilling_messages.h"

/* The folder of the data; NULL, and a line that says so, where there is none. */
static inline const char *shared_data(void)
{
    static char path[512];
    const char *shared = getenv("SPINDLE_SHARED");
    snprintf(path, sizeof path, "%s/data", shared ? shared : "../shared");
    DIR *folder = opendir(path);
    if (!folder) {
        printf("skipped: there is no folder %s (set SPINDLE_SHARED to the folder that holds data/)\n", path);
        return NULL;
    }
    closedir(folder);
    return path;
}

/* Reads a whole file, packed or not, into `out`. */
static inline bool shared_read(struct buffer *out, const char *path)
{
    gzFile file = gzopen(path, "rb");
    if (!file)
        return false;
    buffer_clear(out);
    int count = 0;
    do {
        if (buffer_reserve(out, 1 << 16) != 0)
            break;
        count = gzread(file, out->data + out->length, 1 << 16);
        out->length += count > 0 ? (size_t)count : 0;
    } while (count > 0);
    gzclose(file);
    return count == 0 && buffer_text(out) != NULL;
}

/* The columns of a curve file as JSON texts of arrays, and the rows of its result. */
struct shared_curve {
    struct buffer position, torque, thrust, step;               /* per sample */
    struct buffer row_step, row_torque_empty, row_thrust_empty; /* per step; a scalar when there is one step */
    size_t row_count;
};

static inline void shared_curve_each(struct shared_curve *curve, void (*act)(struct buffer *))
{
    act(&curve->position);
    act(&curve->torque);
    act(&curve->thrust);
    act(&curve->step);
    act(&curve->row_step);
    act(&curve->row_torque_empty);
    act(&curve->row_thrust_empty);
}

static inline void shared_buffer_init(struct buffer *buffer)
{
    buffer_init(buffer, 64u << 20);
}

static inline void shared_buffer_open(struct buffer *buffer)
{
    buffer_clear(buffer);
    buffer_append_text(buffer, "[");
}

static inline void shared_buffer_close(struct buffer *buffer)
{
    buffer->data[buffer->length - 1] = ']'; /* in place of the last comma */
    buffer_text(buffer);
}

static inline void shared_buffer_unwrap(struct buffer *buffer)
{
    buffer_consume(buffer, 1);
    buffer->length--;
    buffer_text(buffer);
}

/* Turns the text of a curve file (step, position, torque, thrust, torque empty, thrust empty) into *curve. */
static inline void shared_curve_parse(char *text, struct shared_curve *curve)
{
    long last_step = -1;
    curve->row_count = 0;
    shared_curve_each(curve, shared_buffer_open);
    char *line_end, *line = strchr(text, '\n') + 1;
    for (; (line_end = strchr(line, '\n')); line = line_end + 1) {
        char *columns[6], *at = line;
        *line_end = 0;
        for (int i = 0; i < 6; i++)
            columns[i] = strsep(&at, ",\r");
        buffer_printf(&curve->step, "%s,", columns[0]);
        buffer_printf(&curve->position, "%s,", columns[1]);
        buffer_printf(&curve->torque, "%s,", columns[2]);
        buffer_printf(&curve->thrust, "%s,", columns[3]);
        long step = strtol(columns[0], NULL, 10);
        if (step != last_step) {
            buffer_printf(&curve->row_step, "%s,", columns[0]);
            buffer_printf(&curve->row_torque_empty, "%s,", columns[4]);
            buffer_printf(&curve->row_thrust_empty, "%s,", columns[5]);
            curve->row_count++;
        }
        last_step = step;
    }
    shared_curve_each(curve, shared_buffer_close);
    if (curve->row_count == 1) { /* as real tools do */
        shared_buffer_unwrap(&curve->row_step);
        shared_buffer_unwrap(&curve->row_torque_empty);
        shared_buffer_unwrap(&curve->row_thrust_empty);
    }
}

static inline const char *shared_text(const struct buffer *buffer)
{
    return (const char *)buffer->data;
}

/* The result and trace messages of a curve. */
static inline void shared_curve_messages(const struct shared_curve *curve, struct buffer *result, struct buffer *trace)
{
    message_build(result, MESSAGE_STAMP, PATH_MACHINE, "\"0\"", PATH_RESULT, "\"7\"", PATH_STEPS, shared_text(&curve->row_step),
                  PATH_TORQUE_0, shared_text(&curve->row_torque_empty), PATH_THRUST_0, shared_text(&curve->row_thrust_empty), NULL);
    message_build(trace, MESSAGE_STAMP, PATH_TRACE_ID, "\"7\"", PATH_POSITION, shared_text(&curve->position), PATH_TORQUE,
                  shared_text(&curve->torque), PATH_THRUST, shared_text(&curve->thrust), PATH_STEP, shared_text(&curve->step), NULL);
}

/* Makes the two messages of a row of expected_keypoints.jsonl: those of a set "messages/NAME", or of the curve with that name. */
static inline bool shared_messages(const char *data, const char *id, struct shared_curve *curve, struct buffer *result,
                                   struct buffer *trace)
{
    char path[1024];
    if (strncmp(id, "messages/", 9) == 0) {
        snprintf(path, sizeof path, "%s/%s/ResultManagement.json", data, id);
        if (!shared_read(result, path))
            return false;
        snprintf(path, sizeof path, "%s/%s/Trace.json", data, id);
        return shared_read(trace, path);
    }
    snprintf(path, sizeof path, "%s/curves/%s.csv.gz", data, id);
    if (!shared_read(result, path))
        return false;
    shared_curve_parse((char *)result->data, curve);
    shared_curve_messages(curve, result, trace);
    return true;
}

#endif
