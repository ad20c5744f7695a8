/* Growth by doubling under a ceiling; text helpers on top of it. */
#include "base/buffer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/text.h"

enum { BUFFER_FIRST_CAPACITY = 256 };

void buffer_init(struct buffer *buffer, size_t limit)
{
    *buffer = (struct buffer){.limit = limit};
}

void buffer_fini(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){.limit = buffer->limit};
}

int buffer_reserve_slow(struct buffer *buffer, size_t more)
{
    if (more > buffer->limit || buffer->length > buffer->limit - more)
        return ERR_LIMIT;
    size_t needed = buffer->length + more;
    size_t capacity = buffer->capacity ? buffer->capacity : BUFFER_FIRST_CAPACITY;
    while (capacity < needed)
        capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
    if (capacity > buffer->limit)
        capacity = buffer->limit;
    if (capacity >= PTRDIFF_MAX)
        return ERR_NO_MEMORY;
    uint8_t *data = realloc(buffer->data, capacity + 1);
    if (!data)
        return ERR_NO_MEMORY;
    buffer->data = data;
    buffer->capacity = capacity;
    return 0;
}

int buffer_append(struct buffer *buffer, const void *bytes, size_t count)
{
    if (count == 0)
        return 0;
    int error = buffer_reserve(buffer, count);
    if (error)
        return error;
    memcpy(buffer->data + buffer->length, bytes, count);
    buffer->length += count;
    return 0;
}

int buffer_append_text(struct buffer *buffer, const char *text)
{
    return buffer_append(buffer, text, strlen(text));
}

int buffer_vprintf(struct buffer *buffer, const char *format, va_list arguments)
{
    va_list again;
    va_copy(again, arguments);
    int needed = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (needed < 0)
        return ERR_INVALID;
    if (needed == 0)
        return 0;
    int error = buffer_reserve(buffer, (size_t)needed);
    if (error)
        return error;
    vsnprintf((char *)buffer->data + buffer->length, (size_t)needed + 1, format, arguments);
    buffer->length += (size_t)needed;
    return 0;
}

int buffer_printf(struct buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int error = buffer_vprintf(buffer, format, arguments);
    va_end(arguments);
    return error;
}

static int append_escape(struct buffer *buffer, uint32_t code_point)
{
    if (code_point < 0x10000)
        return buffer_printf(buffer, "\\u%04x", (unsigned)code_point);
    code_point -= 0x10000;
    return buffer_printf(buffer, "\\u%04x\\u%04x", (unsigned)(0xd800 + (code_point >> 10)), (unsigned)(0xdc00 + (code_point & 0x3ff)));
}

static int append_json_character(struct buffer *buffer, const char *bytes, size_t size, uint32_t code_point, int ascii)
{
    switch (code_point) {
    case '"':
        return buffer_append(buffer, "\\\"", 2);
    case '\\':
        return buffer_append(buffer, "\\\\", 2);
    case '\n':
        return buffer_append(buffer, "\\n", 2);
    case '\r':
        return buffer_append(buffer, "\\r", 2);
    case '\t':
        return buffer_append(buffer, "\\t", 2);
    case '\b':
        return buffer_append(buffer, "\\b", 2);
    case '\f':
        return buffer_append(buffer, "\\f", 2);
    default:
        if (!text_is_showable(code_point) || (ascii && code_point > 0x7e))
            return append_escape(buffer, code_point);
        return buffer_append(buffer, bytes, size);
    }
}

int buffer_append_json_string(struct buffer *buffer, const char *text, size_t length, int ascii)
{
    static const char replacement[] = "\xef\xbf\xbd";
    size_t start = buffer->length;
    int error = buffer_append(buffer, "\"", 1);
    for (size_t i = 0; i < length && !error;) {
        uint32_t code_point;
        size_t size = text_utf8_decode(text + i, length - i, &code_point);
        if (size == 0) {
            error = append_json_character(buffer, replacement, 3, 0xfffd, ascii);
            i += 1;
        } else {
            error = append_json_character(buffer, text + i, size, code_point, ascii);
            i += size;
        }
    }
    if (!error)
        error = buffer_append(buffer, "\"", 1);
    if (error)
        buffer->length = start;
    return error;
}

int buffer_append_showable(struct buffer *buffer, const char *text, size_t length)
{
    size_t start = buffer->length, done = 0;
    int error = 0;
    for (size_t i = 0; i < length && !error;) {
        uint32_t code_point;
        size_t size = text_utf8_decode(text + i, length - i, &code_point), next = i + (size ? size : 1);
        if (size == 0 || !text_is_showable(code_point)) {
            error = buffer_append(buffer, text + done, i - done);
            for (; i < next && !error; i++)
                error = buffer_printf(buffer, "\\x%02x", (unsigned)(uint8_t)text[i]);
            done = next;
        }
        i = next;
    }
    if (!error)
        error = buffer_append(buffer, text + done, length - done);
    if (error)
        buffer->length = start;
    return error;
}

void buffer_consume(struct buffer *buffer, size_t count)
{
    assert(count <= buffer->length);
    buffer->length -= count;
    if (buffer->length && count)
        memmove(buffer->data, buffer->data + count, buffer->length);
}

void buffer_shrink(struct buffer *buffer, size_t keep)
{
    if (buffer->length == 0 && buffer->capacity > keep) {
        free(buffer->data);
        buffer->data = NULL;
        buffer->capacity = 0;
    }
}

const char *buffer_text(struct buffer *buffer)
{
    if (!buffer->data && buffer_reserve_slow(buffer, 0))
        return NULL;
    buffer->data[buffer->length] = 0;
    return (const char *)buffer->data;
}
