/* Small helpers on text: UTF-8, suggestions for mistyped words, base64. Pure. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes the first code point of `length` bytes. Returns its size (1..4), or 0 when it is not well-formed UTF-8
 * (overlong, surrogate, beyond U+10FFFF or cut). */
size_t text_utf8_decode(const char *bytes, size_t length, uint32_t *code_point);

/* Whether all bytes are well-formed UTF-8. */
bool text_is_utf8(const char *bytes, size_t length);

/* Whether a character can be shown as it is, within one line: a terminal takes it for no command, and nothing that splits text into lines
 * splits there. Not so are the control characters (U+0000 to U+001F, U+007F to U+009F) and the separators U+2028 and U+2029. */
bool text_is_showable(uint32_t code_point);

/* Takes white space from both ends of *text, of *length bytes: the characters that Unicode counts as such (property White_Space), and
 * U+001C to U+001F. What is not well-formed UTF-8 stays. */
void text_trim(const char **text, size_t *length);

/* The word nearest to `word` by edit distance (insert, delete, replace, swap of neighbours), or NULL when none is near
 * enough to be what was meant (more than a third of its length away, rounded up). `words` is borrowed. */
const char *text_suggest(const char *word, const char *const *words, size_t word_count);

/* Base64 (RFC 4648) of `length` bytes into `out`, which must hold text_base64_size(length) bytes, zero included. */
size_t text_base64_size(size_t length);
void text_base64(const uint8_t *bytes, size_t length, char *out);

#endif
