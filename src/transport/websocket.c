#include "transport/websocket.h"

#include <string.h>

#include "base/error.h"
#include "base/text.h"

enum { FINAL = 0x80, RESERVED = 0x70, OPCODE = 0x0f, MASKED = 0x80, LENGTH = 0x7f, LENGTH_16 = 126, LENGTH_64 = 127 };
enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { CODE_SIZE = 2 };

void websocket_init(struct websocket *websocket, const char *path, uint64_t payload_max)
{
    *websocket = (struct websocket){.path = path, .payload_max = payload_max};
    buffer_init(&websocket->request, UPGRADE_SIZE_MAX);
    buffer_init(&websocket->answer, UPGRADE_ANSWER_MAX);
}

void websocket_fini(struct websocket *websocket)
{
    buffer_fini(&websocket->request);
    buffer_fini(&websocket->answer);
}

/* ---- in ---- */

static void end(struct websocket *websocket, int error, enum websocket_code code, const char *why)
{
    websocket->state = WEBSOCKET_CLOSED;
    websocket->error = error;
    websocket->code = (uint16_t)code;
    websocket->why = why;
}

static void fail(struct websocket *websocket, enum websocket_code code, const char *why)
{
    end(websocket, ERR_PROTOCOL, code, why);
}

/* Takes bytes of the upgrade; returns how many. */
static size_t upgrade(struct websocket *websocket, const uint8_t *bytes, size_t length)
{
    struct buffer *request = &websocket->request;
    size_t before = request->length, room = UPGRADE_SIZE_MAX - before, more = length < room ? length : room;
    struct upgrade upgrade;
    int error = buffer_append(request, bytes, more);
    if (!error)
        error = upgrade_read(request->data, request->length, websocket->path, &websocket->searched, &upgrade);
    if (error == ERR_TRUNCATED)
        return more;
    size_t taken = error ? length : upgrade.length - before;
    if (error == ERR_PROTOCOL)
        websocket->why = upgrade.refusal;
    if (!error || error == ERR_PROTOCOL) {
        int unanswered = upgrade_answer(&upgrade, &websocket->answer);
        error = unanswered ? unanswered : error;
    }
    buffer_fini(request);
    websocket->state = WEBSOCKET_OPEN;
    if (error) {
        end(websocket, error, WEBSOCKET_PROTOCOL_ERROR, websocket->why);
        websocket->finished = true; /* HTTP was spoken, not WebSocket */
    }
    return taken;
}

/* How many bytes the head of a frame has, as far as that is known. */
static unsigned head_size(const uint8_t *head, unsigned length)
{
    if (length < 2)
        return 2;
    unsigned size = head[1] & LENGTH;
    return 2u + (size == LENGTH_16 ? 2u : size == LENGTH_64 ? 8u : 0u) + (head[1] & MASKED ? 4u : 0u);
}

static const char *wrong_frame(const struct websocket *websocket, uint8_t first, uint8_t second)
{
    uint8_t opcode = first & OPCODE;
    if (first & RESERVED)
        return "a frame has reserved bits";
    if (!(second & MASKED))
        return "a frame is not masked";
    if (opcode > PONG || (opcode > BINARY && opcode < CLOSE))
        return "a frame has an unknown opcode";
    if (opcode >= CLOSE && (!(first & FINAL) || (second & LENGTH) > WEBSOCKET_CONTROL_MAX))
        return "a control frame is in parts, or longer than 125 bytes";
    if (opcode == CONTINUATION && !websocket->in_message)
        return "a frame continues a message that has not begun";
    if (opcode != CONTINUATION && opcode < CLOSE && websocket->in_message)
        return "a message begins within another";
    return NULL;
}

/* A whole head has arrived. */
static void begin_frame(struct websocket *websocket)
{
    const uint8_t *head = websocket->head;
    unsigned size = head[1] & LENGTH, at = 2, bytes = size == LENGTH_16 ? 2 : size == LENGTH_64 ? 8 : 0;
    uint64_t left = bytes ? 0 : size;
    for (unsigned i = 0; i < bytes; i++)
        left = left << 8 | head[at++];
    if ((bytes == 2 && left < LENGTH_16) || (bytes == 8 && (left <= UINT16_MAX || left >> 63))) {
        fail(websocket, WEBSOCKET_PROTOCOL_ERROR, "the length of a frame is not in its shortest form");
        return;
    }
    if (left > websocket->payload_max) {
        fail(websocket, WEBSOCKET_TOO_LARGE, "a frame is larger than the largest MQTT packet (bus.packet_size_max)");
        return;
    }
    memcpy(websocket->mask, head + at, sizeof websocket->mask);
    websocket->mask_at = 0;
    websocket->left = left;
    websocket->opcode = head[0] & OPCODE;
    if (websocket->opcode < CLOSE)
        websocket->in_message = !(head[0] & FINAL);
    websocket->control_length = 0;
    websocket->head_length = 0;
}

/* Takes bytes of a frame's head; returns how many. Sets `left`, `opcode` and `mask` when it is whole. */
static size_t take_head(struct websocket *websocket, const uint8_t *bytes, size_t length, bool *whole)
{
    size_t taken = 0;
    while (taken < length && websocket->head_length < head_size(websocket->head, websocket->head_length)) {
        websocket->head[websocket->head_length++] = bytes[taken++];
        if (websocket->head_length != 2)
            continue;
        const char *wrong = wrong_frame(websocket, websocket->head[0], websocket->head[1]);
        if (wrong) {
            fail(websocket, WEBSOCKET_PROTOCOL_ERROR, wrong);
            return length;
        }
        if ((websocket->head[0] & OPCODE) == TEXT) {
            fail(websocket, WEBSOCKET_UNSUPPORTED, "a message is text; MQTT is sent in binary ones");
            return length;
        }
    }
    *whole = websocket->head_length == head_size(websocket->head, websocket->head_length);
    if (*whole)
        begin_frame(websocket);
    return taken;
}

/* Copies `length` bytes (at most `left`) from `bytes` to `out`, which does not lie behind it, and takes the mask away. */
static void unmask(struct websocket *websocket, const uint8_t *bytes, size_t length, uint8_t *out)
{
    uint8_t turned[8];
    for (unsigned i = 0; i < sizeof turned; i++)
        turned[i] = websocket->mask[(websocket->mask_at + i) % 4];
    uint64_t mask, word;
    memcpy(&mask, turned, sizeof mask);
    size_t i = 0;
    for (; i + sizeof word <= length; i += sizeof word) {
        memcpy(&word, bytes + i, sizeof word);
        word ^= mask;
        memcpy(out + i, &word, sizeof word);
    }
    for (; i < length; i++)
        out[i] = bytes[i] ^ turned[i % 4];
    websocket->mask_at = (unsigned)((websocket->mask_at + length) % 4);
    websocket->left -= length;
}

static bool is_close_code(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

static void take_close(struct websocket *websocket)
{
    const uint8_t *content = websocket->control;
    unsigned length = websocket->control_length, code = length < CODE_SIZE ? WEBSOCKET_NO_CODE : (unsigned)content[0] << 8 | content[1];
    if (length && (length < CODE_SIZE || !is_close_code(code)))
        fail(websocket, WEBSOCKET_PROTOCOL_ERROR, "a close has a code that none may have");
    else if (length && !text_is_utf8((const char *)content + CODE_SIZE, length - CODE_SIZE))
        fail(websocket, WEBSOCKET_NOT_UTF8, "the reason of a close is not UTF-8");
    else
        end(websocket, ERR_CLOSED, (enum websocket_code)code, NULL);
}

static void end_control(struct websocket *websocket)
{
    if (websocket->opcode == CLOSE) {
        take_close(websocket);
    } else if (websocket->opcode == PING) {
        memcpy(websocket->pong, websocket->control, websocket->control_length);
        websocket->pong_length = websocket->control_length;
        websocket->has_pong = true;
    }
    websocket->opcode = BINARY;
}

ptrdiff_t websocket_read(struct websocket *websocket, const uint8_t *bytes, size_t length, uint8_t *out)
{
    size_t at = 0, written = 0;
    while (websocket->state == WEBSOCKET_UPGRADING && at < length)
        at += upgrade(websocket, bytes + at, length - at);
    while (websocket->state == WEBSOCKET_OPEN && at < length) {
        bool whole = false;
        if (!websocket->left)
            at += take_head(websocket, bytes + at, length - at, &whole);
        if (websocket->state != WEBSOCKET_OPEN || (!whole && !websocket->left))
            continue;
        size_t more = length - at < websocket->left ? length - at : (size_t)websocket->left;
        if (websocket->opcode < CLOSE) {
            unmask(websocket, bytes + at, more, out + written);
            written += more;
        } else {
            unmask(websocket, bytes + at, more, websocket->control + websocket->control_length);
            websocket->control_length += (unsigned)more;
            if (!websocket->left)
                end_control(websocket);
        }
        at += more;
    }
    return written || websocket->state != WEBSOCKET_CLOSED ? (ptrdiff_t)written : websocket->error;
}

/* ---- out ---- */

bool websocket_has_answer(const struct websocket *websocket)
{
    return websocket->answer.length || websocket->has_pong;
}

static int put_control(struct buffer *out, uint8_t opcode, const uint8_t *content, unsigned length)
{
    uint8_t frame[2 + WEBSOCKET_CONTROL_MAX] = {(uint8_t)(FINAL | opcode), (uint8_t)length};
    if (length)
        memcpy(frame + 2, content, length);
    return buffer_append(out, frame, 2 + length);
}

int websocket_answer(struct websocket *websocket, struct buffer *out)
{
    int error = 0;
    if (websocket->answer.length)
        error = buffer_append(out, websocket->answer.data, websocket->answer.length);
    if (!error)
        buffer_fini(&websocket->answer);
    if (!error && websocket->has_pong && !websocket->finished)
        error = put_control(out, PONG, websocket->pong, websocket->pong_length);
    websocket->has_pong = websocket->has_pong && error;
    return error;
}

int websocket_write(const uint8_t *bytes, size_t length, struct buffer *out)
{
    size_t frames = length / WEBSOCKET_SEND_MAX + 1;
    int error = buffer_reserve(out, length + frames * 10); /* so that none of it is there when it fails */
    while (!error && length) {
        size_t size = length < WEBSOCKET_SEND_MAX ? length : WEBSOCKET_SEND_MAX;
        uint8_t head[10] = {FINAL | BINARY};
        unsigned head_length = size < LENGTH_16 ? 2 : size <= UINT16_MAX ? 4 : 10;
        head[1] = (uint8_t)(size < LENGTH_16 ? size : head_length == 4 ? LENGTH_16 : LENGTH_64);
        for (unsigned i = 2; i < head_length; i++)
            head[i] = (uint8_t)(size >> 8 * (head_length - 1 - i));
        error = buffer_append(out, head, head_length);
        error = error ? error : buffer_append(out, bytes, size);
        bytes += size;
        length -= size;
    }
    return error;
}

int websocket_finish(struct websocket *websocket, struct buffer *out)
{
    if (websocket->state == WEBSOCKET_UPGRADING || websocket->finished)
        return 0;
    unsigned code = websocket->state == WEBSOCKET_CLOSED ? websocket->code : WEBSOCKET_NORMAL;
    uint8_t content[CODE_SIZE] = {(uint8_t)(code >> 8), (uint8_t)code};
    websocket->finished = true;
    return put_control(out, CLOSE, content, code == WEBSOCKET_NO_CODE ? 0 : CODE_SIZE);
}
