/* UTF-8 by the table of RFC 3629 section 4; optimal string alignment distance for suggestions. */
#include "base/text.h"

#include <string.h>

size_t text_utf8_decode(const char *bytes, size_t length, uint32_t *code_point)
{
    const uint8_t *b = (const uint8_t *)bytes;
    if (length == 0)
        return 0;
    if (b[0] < 0x80) {
        *code_point = b[0];
        return 1;
    }
    size_t size = b[0] >= 0xf0 ? 4 : b[0] >= 0xe0 ? 3 : 2;
    if (b[0] < 0xc2 || b[0] > 0xf4 || length < size)
        return 0;
    uint32_t value = b[0] & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((b[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (b[i] & 0x3fu);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < least[size] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *code_point = value;
    return size;
}

bool text_is_utf8(const char *bytes, size_t length)
{
    size_t i = 0;
    while (i < length) {
        uint64_t eight;
        if (length - i >= 8) {
            memcpy(&eight, bytes + i, 8);
            if (!(eight & 0x8080808080808080u)) {
                i += 8;
                continue;
            }
        }
        uint32_t code_point;
        size_t size = text_utf8_decode(bytes + i, length - i, &code_point);
        if (size == 0)
            return false;
        i += size;
    }
    return true;
}

bool text_is_showable(uint32_t c)
{
    return c >= 0x20 && (c < 0x7f || c > 0x9f) && c != 0x2028 && c != 0x2029;
}

static bool is_white_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

void text_trim(const char **text, size_t *length)
{
    uint32_t code_point;
    size_t size, start = 0, end = *length;
    while ((size = text_utf8_decode(*text + start, end - start, &code_point)) && is_white_space(code_point))
        start += size;
    while (end > start) {
        size_t last = end - 1;
        while (last > start && ((uint8_t)(*text)[last] & 0xc0) == 0x80)
            last--;
        if (text_utf8_decode(*text + last, end - last, &code_point) != end - last || !is_white_space(code_point))
            break;
        end = last;
    }
    *text += start;
    *length = end - start;
}

enum { TEXT_SUGGEST_LENGTH_MAX = 63 };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t rows[3][TEXT_SUGGEST_LENGTH_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_length; j++)
        last[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t cost = a[i - 1] != b[j - 1];
            row[j] = smaller(smaller(last[j] + 1, row[j - 1] + 1), last[j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = smaller(row[j], before[j - 2] + 1);
        }
        size_t *free_row = before;
        before = last;
        last = row;
        row = free_row;
    }
    return last[b_length];
}

const char *text_suggest(const char *word, const char *const *words, size_t word_count)
{
    size_t length = strlen(word);
    if (length == 0 || length > TEXT_SUGGEST_LENGTH_MAX)
        return NULL;
    const char *best = NULL;
    size_t best_distance = (length + 2) / 3 + 1;
    for (size_t i = 0; i < word_count; i++) {
        size_t other = strlen(words[i]);
        if (other > TEXT_SUGGEST_LENGTH_MAX)
            continue;
        size_t distance = edit_distance(word, length, words[i], other);
        if (distance < best_distance) {
            best_distance = distance;
            best = words[i];
        }
    }
    return best;
}

size_t text_base64_size(size_t length)
{
    return (length + 2) / 3 * 4 + 1;
}

void text_base64(const uint8_t *bytes, size_t length, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        size_t left = length - i;
        uint32_t group = (uint32_t)bytes[i] << 16;
        if (left > 1)
            group |= (uint32_t)bytes[i + 1] << 8;
        if (left > 2)
            group |= bytes[i + 2];
        *out++ = digits[group >> 18];
        *out++ = digits[group >> 12 & 63];
        *out++ = left > 1 ? digits[group >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[group & 63] : '=';
    }
    *out = 0;
}
