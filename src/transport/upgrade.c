#include "transport/upgrade.h"

#include <openssl/sha.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/text.h"

/* A part of the request; not zero-terminated. */
struct part {
    const char *text;
    size_t length;
};

/* What the headers said. */
struct headers {
    unsigned hosts, keys, versions; /* how often they were there */
    bool upgrades, connects, speaks_mqtt, has_body;
    struct part key, version;
};

static int refuse(struct upgrade *upgrade, unsigned status, const char *why)
{
    upgrade->status = status;
    upgrade->refusal = why;
    return ERR_PROTOCOL;
}

static bool equals(struct part part, const char *text)
{
    return part.length == strlen(text) && strncasecmp(part.text, text, part.length) == 0;
}

static bool is_token_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static struct part trim(struct part part)
{
    while (part.length && (*part.text == ' ' || *part.text == '\t')) {
        part.text++;
        part.length--;
    }
    while (part.length && (part.text[part.length - 1] == ' ' || part.text[part.length - 1] == '\t'))
        part.length--;
    return part;
}

/* Whether `wanted` is one of the words of a list "a, b,c". */
static bool has_word(struct part list, const char *wanted)
{
    for (bool more = true; more;) {
        const char *comma = list.length ? memchr(list.text, ',', list.length) : NULL;
        struct part word = {list.text, comma ? (size_t)(comma - list.text) : list.length};
        if (equals(trim(word), wanted))
            return true;
        more = comma;
        if (more)
            list = (struct part){comma + 1, list.length - word.length - 1};
    }
    return false;
}

/* Cuts the next line off, without its CR LF. Returns false for the empty line at the end. */
static bool next_line(struct part *rest, struct part *line)
{
    const char *end = memmem(rest->text, rest->length, "\r\n", 2);
    if (!end || end == rest->text)
        return false;
    *line = (struct part){rest->text, (size_t)(end - rest->text)};
    rest->length -= line->length + 2;
    rest->text = end + 2;
    return true;
}

/* Visible characters, spaces and tabs; above 0x7f anything is let be. */
static bool is_plain(struct part line)
{
    for (size_t i = 0; i < line.length; i++) {
        unsigned char c = (unsigned char)line.text[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

/* "GET /mqtt?anything HTTP/1.1" */
static int read_request_line(struct part line, const char *path, struct upgrade *upgrade)
{
    const char *first = memchr(line.text, ' ', line.length);
    const char *last = memrchr(line.text, ' ', line.length);
    if (!first || first == last)
        return refuse(upgrade, 400, "the first line is not that of an HTTP request");
    struct part method = {line.text, (size_t)(first - line.text)}, target = {first + 1, (size_t)(last - first - 1)};
    struct part version = {last + 1, line.length - (size_t)(last + 1 - line.text)};
    if (!target.length || memchr(target.text, ' ', target.length) || version.length != 8 || memcmp(version.text, "HTTP/", 5) != 0)
        return refuse(upgrade, 400, "the first line is not that of an HTTP request");
    if (memcmp(version.text, "HTTP/1.1", 8) != 0)
        return refuse(upgrade, 505, "the version of HTTP is not 1.1");
    if (method.length != 3 || memcmp(method.text, "GET", 3) != 0)
        return refuse(upgrade, 405, "the method is not GET");
    const char *query = memchr(target.text, '?', target.length);
    if (query)
        target.length = (size_t)(query - target.text);
    if (target.length != strlen(path) || memcmp(target.text, path, target.length) != 0)
        return refuse(upgrade, 404, "there is no WebSocket at this path");
    return 0;
}

static int read_header(struct part line, struct headers *headers, struct upgrade *upgrade)
{
    const char *colon = memchr(line.text, ':', line.length);
    struct part name = {line.text, colon ? (size_t)(colon - line.text) : 0};
    if (name.length == 0)
        return refuse(upgrade, 400, "a header has no name");
    for (size_t i = 0; i < name.length; i++)
        if (!is_token_character(name.text[i]))
            return refuse(upgrade, 400, "the name of a header has a character that it may not have");
    struct part value = trim((struct part){colon + 1, line.length - name.length - 1});
    if (equals(name, "Host")) {
        headers->hosts++;
    } else if (equals(name, "Upgrade")) {
        headers->upgrades |= has_word(value, "websocket");
    } else if (equals(name, "Connection")) {
        headers->connects |= has_word(value, "upgrade");
    } else if (equals(name, "Sec-WebSocket-Protocol")) {
        headers->speaks_mqtt |= has_word(value, "mqtt");
    } else if (equals(name, "Sec-WebSocket-Key")) {
        headers->keys++;
        headers->key = value;
    } else if (equals(name, "Sec-WebSocket-Version")) {
        headers->versions++;
        headers->version = value;
    } else if (equals(name, "Transfer-Encoding") || (equals(name, "Content-Length") && !equals(value, "0"))) {
        headers->has_body = true;
    }
    return 0;
}

/* 16 bytes in base64: 22 characters and "==". */
static bool is_key(struct part key)
{
    if (key.length != UPGRADE_KEY_LENGTH || memcmp(key.text + 22, "==", 2) != 0)
        return false;
    for (size_t i = 0; i < 22; i++) {
        char c = key.text[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' || c == '/'))
            return false;
    }
    return strchr("AQgw", key.text[21]); /* the bits behind the sixteenth byte are 0 */
}

static int judge(const struct headers *headers, struct upgrade *upgrade)
{
    if (headers->hosts != 1)
        return refuse(upgrade, 400, "there must be one header Host");
    if (headers->has_body)
        return refuse(upgrade, 400, "the request has a body");
    if (!headers->upgrades || !headers->connects)
        return refuse(upgrade, 426, "this port speaks MQTT over WebSocket: Upgrade: websocket and Connection: Upgrade are expected");
    if (headers->versions != 1 || !equals(headers->version, "13"))
        return refuse(upgrade, 426, "the version of WebSocket is not 13");
    if (headers->keys != 1 || !is_key(headers->key))
        return refuse(upgrade, 400, "Sec-WebSocket-Key is not one key of 16 bytes in base64");
    if (!headers->speaks_mqtt)
        return refuse(upgrade, 400, "the subprotocol mqtt is not among those in Sec-WebSocket-Protocol");
    memcpy(upgrade->key, headers->key.text, UPGRADE_KEY_LENGTH);
    upgrade->key[UPGRADE_KEY_LENGTH] = 0;
    upgrade->status = 101;
    upgrade->refusal = NULL;
    return 0;
}

int upgrade_read(const uint8_t *bytes, size_t length, const char *path, size_t *searched, struct upgrade *upgrade)
{
    size_t looked_at = length < UPGRADE_SIZE_MAX ? length : UPGRADE_SIZE_MAX;
    size_t from = *searched > 3 ? *searched - 3 : 0; /* the end may begin in what was searched */
    const uint8_t *end = looked_at > from ? memmem(bytes + from, looked_at - from, "\r\n\r\n", 4) : NULL;
    if (!end && length >= UPGRADE_SIZE_MAX)
        return refuse(upgrade, 431, "the request is larger than 8 KiB");
    if (!end) {
        *searched = looked_at;
        return ERR_TRUNCATED;
    }
    struct part rest = {(const char *)bytes, (size_t)(end - bytes) + 4}, line;
    struct headers headers = {0};
    upgrade->length = rest.length;
    if (!next_line(&rest, &line) || !is_plain(line))
        return refuse(upgrade, 400, "the first line is not that of an HTTP request");
    int error = read_request_line(line, path, upgrade);
    for (unsigned count = 0; !error && next_line(&rest, &line); count++) {
        if (count == UPGRADE_HEADERS_MAX)
            return refuse(upgrade, 431, "there are more than 64 headers");
        error = is_plain(line) ? read_header(line, &headers, upgrade) : refuse(upgrade, 400, "a header has a control character");
    }
    return error ? error : judge(&headers, upgrade);
}

void upgrade_accept(const char *key, char accept[UPGRADE_ACCEPT_SIZE])
{
    char text[UPGRADE_KEY_LENGTH + 37];
    unsigned char digest[SHA_DIGEST_LENGTH];
    int length = snprintf(text, sizeof text, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", UPGRADE_KEY_LENGTH, key);
    SHA1((const unsigned char *)text, (size_t)length, digest);
    text_base64(digest, sizeof digest, accept);
}

static const char *status_text(unsigned status)
{
    switch (status) {
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 426:
        return "Upgrade Required";
    case 431:
        return "Request Header Fields Too Large";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Bad Request";
    }
}

int upgrade_answer(const struct upgrade *upgrade, struct buffer *out)
{
    char accept[UPGRADE_ACCEPT_SIZE];
    if (upgrade->status == 101) {
        upgrade_accept(upgrade->key, accept);
        return buffer_printf(out,
                             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
                             accept);
    }
    const char *more = upgrade->status == 405   ? "Allow: GET\r\n"
                       : upgrade->status == 426 ? "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                                : "";
    return buffer_printf(out, "HTTP/1.1 %u %s\r\nConnection: close%s\r\n%sContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s\n",
                         upgrade->status, status_text(upgrade->status), upgrade->status == 426 ? ", Upgrade" : "", more,
                         strlen(upgrade->refusal) + 1, upgrade->refusal);
}
