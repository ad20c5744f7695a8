/* What the commands have in common that look into a data folder: folders that cannot be read, damage, and output that may fail. */
#ifndef CLI_JOURNAL_TOOL_H
#define CLI_JOURNAL_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "journal/reader.h"

enum { TOOL_LINE_MAX = 1 << 30, TOOL_FOLDER_MAX = 4400, TOOL_SIZE_TEXT_MAX = 32 };

/* Every stream of a data folder, in the order in which a group is written. NULL behind the last. */
extern const char *const tool_streams[];

/* The folder of a stream. 0 when there is one, else ERR_NOT_FOUND and the like; `folder` is set in any case. What is no name of a stream,
 * but a path, is not found. */
int tool_stream_folder(const char *data_dir, const char *stream, char folder[TOOL_FOLDER_MAX]);

/* The offset behind the last that is known to have been written to a stream (journal/ends.h); 0: nothing is known. Beside a running server
 * to be asked before the stream's end is looked for. */
uint64_t tool_known_end(const char *data_dir, const char *stream);

/* The offset with which the first file of a stream begins; 0 also when there is none. */
uint64_t tool_first_offset(const char *data_dir, const char *stream);

/* The offset before which records of a stream may have been removed (journal/ends.h); where nothing is known FORMAT_BEGINNING_UNKNOWN,
 * which is greater than all others. Beside a running server to be asked after the stream's first file is looked for. */
uint64_t tool_known_first(const char *data_dir, const char *stream);

/* What to do about an error of reading, as the end of a sentence; "" when there is nothing to say. */
const char *tool_reading_advice(int error);

/* Says why a stream's folder cannot be read. Returns the exit status. */
int tool_refuse_folder(const char *command, const char *data_dir, const char *stream, int error);

/* Says that something cannot be written, and what to do. `what` is the path, with words around it if that helps. Returns the exit status.
 */
int tool_refuse_writing(const char *command, const char *what, int error);

/* Says on standard error what is wrong with the command's arguments. Returns the exit status. */
int tool_refuse(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A reader_on_damage that says it on standard error; the context is a bool that becomes true. */
void tool_say_damage(void *context, const struct reader_damage *damage);

/* ---- output ---- */

void tool_begin_output(void);

/* False when it could not be written. */
bool tool_emit(const struct buffer *line);

/* Appends "name":"text", or "name_base64":"..." for what is not UTF-8. */
void tool_append_bytes_json(struct buffer *line, const char *name, const uint8_t *bytes, size_t length);

/* "1.5 GiB", "812 B". */
const char *tool_size_text(uint64_t bytes, char text[TOOL_SIZE_TEXT_MAX]);

/* "2.1 d", "13 s", "0.4 s". */
const char *tool_age_text(uint64_t age_ns, char text[TOOL_SIZE_TEXT_MAX]);

#endif
