/* Private to mqtt/: integers, strings and cursors as they lie in packets (big-endian). */
#ifndef MQTT_WIRE_H
#define MQTT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "mqtt/packet.h"

enum { WIRE_STRING_LENGTH_MAX = 65535 };

/* ---- reading: a cursor over borrowed bytes; false or an error leaves the output untouched ---- */

struct wire_reader {
    const uint8_t *at;
    const uint8_t *end;
};

static inline struct wire_reader wire_reader_of(const uint8_t *bytes, size_t length)
{
    /* An absent body may be NULL, which cannot be added to. */
    return (struct wire_reader){bytes, length ? bytes + length : bytes};
}

static inline size_t wire_left(const struct wire_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

static inline uint16_t wire_u16_at(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t wire_u32_at(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline bool wire_read_u8(struct wire_reader *reader, uint8_t *value)
{
    if (wire_left(reader) < 1)
        return false;
    *value = *reader->at++;
    return true;
}

static inline bool wire_read_u16(struct wire_reader *reader, uint16_t *value)
{
    if (wire_left(reader) < 2)
        return false;
    *value = wire_u16_at(reader->at);
    reader->at += 2;
    return true;
}

static inline bool wire_read_u32(struct wire_reader *reader, uint32_t *value)
{
    if (wire_left(reader) < 4)
        return false;
    *value = wire_u32_at(reader->at);
    reader->at += 4;
    return true;
}

/* Variable byte integer (MQTT 5 section 1.5.5): at most four bytes and no longer than it need be. */
static inline bool wire_read_varint(struct wire_reader *reader, uint32_t *value)
{
    uint32_t result = 0;
    for (unsigned i = 0; i < 4 && reader->at + i < reader->end; i++) {
        uint8_t byte = reader->at[i];
        result |= (uint32_t)(byte & 0x7f) << (7 * i);
        if (byte & 0x80)
            continue;
        if (byte == 0 && i > 0)
            return false;
        reader->at += i + 1;
        *value = result;
        return true;
    }
    return false;
}

static inline bool wire_read_bytes(struct wire_reader *reader, size_t length, struct mqtt_slice *out)
{
    if (wire_left(reader) < length)
        return false;
    *out = (struct mqtt_slice){reader->at, (uint32_t)length};
    reader->at += length;
    return true;
}

/* Binary data: two bytes of length, then the bytes. */
static inline bool wire_read_binary(struct wire_reader *reader, struct mqtt_slice *out)
{
    if (wire_left(reader) < 2 || wire_left(reader) - 2 < wire_u16_at(reader->at))
        return false;
    *out = (struct mqtt_slice){reader->at + 2, wire_u16_at(reader->at)};
    reader->at += 2 + out->length;
    return true;
}

/* A string as the standard wants it: well-formed UTF-8 without U+0000 (MQTT 5 section 1.5.4). */
static inline bool wire_text_valid(struct mqtt_slice text)
{
    return text.length == 0 || (!memchr(text.data, 0, text.length) && text_is_utf8((const char *)text.data, text.length));
}

static inline bool wire_read_text(struct wire_reader *reader, struct mqtt_slice *out)
{
    struct wire_reader ahead = *reader;
    struct mqtt_slice text;
    if (!wire_read_binary(&ahead, &text) || !wire_text_valid(text))
        return false;
    *reader = ahead;
    *out = text;
    return true;
}

/* ---- writing: into memory that the caller has reserved; each returns the place behind what it wrote ---- */

static inline uint8_t *wire_put_u16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
    return at + 2;
}

static inline uint8_t *wire_put_u32(uint8_t *at, uint32_t value)
{
    return wire_put_u16(wire_put_u16(at, value >> 16), value & 0xffff);
}

static inline size_t wire_varint_size(size_t value)
{
    return value < 128 ? 1 : value < 16384 ? 2 : value < 2097152 ? 3 : 4;
}

static inline uint8_t *wire_put_varint(uint8_t *at, size_t value)
{
    while (value >= 128) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    return at;
}

static inline uint8_t *wire_put_bytes(uint8_t *at, struct mqtt_slice bytes)
{
    if (bytes.length)
        memcpy(at, bytes.data, bytes.length);
    return at + bytes.length;
}

static inline uint8_t *wire_put_binary(uint8_t *at, struct mqtt_slice bytes)
{
    return wire_put_bytes(wire_put_u16(at, bytes.length), bytes);
}

/* buffer_reserve that also minds the ceiling when the capacity already lies beyond it. */
static inline int wire_reserve(struct buffer *out, size_t more)
{
    if (more > out->limit || out->length > out->limit - more)
        return ERR_LIMIT;
    return buffer_reserve(out, more);
}

/* ---- properties ---- */

/* Where properties stand: a bit per packet type, and bit 0 for the will of a CONNECT. */
enum { WIRE_WILL_PROPERTIES = 0 };

/* One property, read and checked by itself. */
struct wire_property {
    uint8_t identifier;
    uint32_t number;         /* of the number kinds */
    struct mqtt_slice value; /* of the text and binary kinds; of a pair its name */
    struct mqtt_slice pair_value;
};

/* The next property of a set. `place` is a packet type or WIRE_WILL_PROPERTIES; *present collects what was seen, 0 at the start.
 * Returns 0, ERR_MALFORMED_PACKET (unknown, not of this packet, cut), ERR_PROTOCOL (repeated, value forbidden),
 * ERR_TOPIC_NAME (response topic) or ERR_TOPIC_ALIAS (0). */
int wire_property_next(struct wire_reader *reader, unsigned place, uint64_t *present, struct wire_property *out);

/* Reads a property set without its length into *out, with the standard's defaults for what is absent. Errors as above. */
int wire_properties_decode(struct mqtt_slice raw, unsigned place, struct mqtt_properties *out);

/* Reads the length and then the set. */
int wire_read_properties(struct wire_reader *reader, unsigned place, struct mqtt_properties *out);

/* What version 3.1.1 has in place of properties: no bytes, the defaults. */
void wire_properties_default(struct mqtt_properties *out);

/* ---- packets ---- */

/* Whether a reason code may stand in a packet of this type (MQTT 5 section 2.4 and the tables of chapter 3). */
bool wire_reason_valid(unsigned type, uint8_t reason);

/* Protocol level of a CONNECT if its protocol name is known, else 0. */
uint8_t wire_connect_version(const struct mqtt_frame *frame);

#endif
