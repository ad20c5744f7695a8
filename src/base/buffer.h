/* A growing byte buffer with a ceiling.
 *
 * The ceiling is set once and never passed: an append that would pass it fails with ERR_LIMIT and changes nothing.
 * Not thread-safe: one owner. */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buffer {
    uint8_t *data;   /* owned; NULL while nothing was ever stored */
    size_t length;   /* bytes in use */
    size_t capacity; /* bytes that fit, at most limit; one more is allocated for a terminating zero */
    size_t limit;    /* ceiling of length, bytes */
};

void buffer_init(struct buffer *buffer, size_t limit);
void buffer_fini(struct buffer *buffer); /* accepts an all-zero buffer */

/* Makes room for `more` bytes behind length. Returns 0, ERR_LIMIT or ERR_NO_MEMORY. */
int buffer_reserve_slow(struct buffer *buffer, size_t more);
static inline int buffer_reserve(struct buffer *buffer, size_t more)
{
    return buffer->capacity - buffer->length >= more ? 0 : buffer_reserve_slow(buffer, more);
}

int buffer_append(struct buffer *buffer, const void *bytes, size_t count);
int buffer_append_text(struct buffer *buffer, const char *text);
int buffer_printf(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
int buffer_vprintf(struct buffer *buffer, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));

/* Appends a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD; what text_is_showable refuses is written as \uXXXX; with
 * `ascii` everything above U+007E is (surrogate pairs beyond U+FFFF), the way Python's json.dumps does by default. */
int buffer_append_json_string(struct buffer *buffer, const char *text, size_t length, int ascii);

/* Appends text for a line of a terminal: each byte of what text_is_showable refuses, or of what is not UTF-8, is written as \xNN. */
int buffer_append_showable(struct buffer *buffer, const char *text, size_t length);

/* Removes the first `count` bytes (count <= length), moving the rest to the front. */
void buffer_consume(struct buffer *buffer, size_t count);

static inline void buffer_clear(struct buffer *buffer)
{
    buffer->length = 0;
}

/* Gives memory back when more than `keep` bytes are allocated and nothing is stored. */
void buffer_shrink(struct buffer *buffer, size_t keep);

/* Appends a terminating zero that does not count in length and returns the text; NULL when there is no memory. */
const char *buffer_text(struct buffer *buffer);

#endif
