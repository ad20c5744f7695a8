/* A WebSocket: the first byte sets how the bytes arrive and whether the upgrade is done already, the rest is what a client sends. At once
 * and in small pieces, in place and not, the same bytes of MQTT come out, and it ends alike; what is to be answered is bounded. */
#include <stdbool.h>
#include <string.h>

#include "base/error.h"
#include "fuzz.h"
#include "transport/websocket.h"

enum { ANSWERS_MAX = UPGRADE_ANSWER_MAX + 2 * (WEBSOCKET_CONTROL_MAX + 2), PAYLOAD_MAX = 4096 };

static const char request[] = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Protocol: mqtt\r\n\r\n";

struct outcome {
    struct buffer mqtt;
    enum websocket_state state;
    int error;
    uint16_t code;
};

static void check_end(struct websocket *websocket)
{
    uint8_t byte = 0;
    PROMISE(websocket->state != WEBSOCKET_CLOSED || websocket_read(websocket, &byte, 1, &byte) == websocket->error);
    struct buffer answers;
    buffer_init(&answers, ANSWERS_MAX);
    PROMISE(websocket_answer(websocket, &answers) == 0);
    PROMISE(websocket_finish(websocket, &answers) == 0);
    size_t length = answers.length;
    PROMISE(websocket_answer(websocket, &answers) == 0 && websocket_finish(websocket, &answers) == 0);
    PROMISE(answers.length == length && !websocket_has_answer(websocket));
    buffer_fini(&answers);
}

static void run(const uint8_t *data, size_t size, size_t piece, bool upgraded, bool in_place, struct outcome *outcome)
{
    struct websocket websocket;
    websocket_init(&websocket, "/mqtt", PAYLOAD_MAX);
    buffer_init(&outcome->mqtt, size + 1);
    if (upgraded)
        PROMISE(websocket_read(&websocket, (const uint8_t *)request, sizeof request - 1, (uint8_t[sizeof request]){0}) == 0);
    for (size_t at = 0; at < size && websocket.state != WEBSOCKET_CLOSED; at += piece) {
        size_t more = size - at < piece ? size - at : piece;
        uint8_t *copy = malloc(more), *out = in_place ? copy : malloc(more);
        PROMISE(copy && out);
        memcpy(copy, data + at, more);
        ptrdiff_t count = websocket_read(&websocket, copy, more, out);
        PROMISE(count <= (ptrdiff_t)more);
        PROMISE(count >= 0 || (websocket.state == WEBSOCKET_CLOSED && (count == ERR_PROTOCOL || count == ERR_CLOSED)));
        PROMISE(count <= 0 || buffer_append(&outcome->mqtt, out, (size_t)count) == 0);
        PROMISE(websocket.request.length <= UPGRADE_SIZE_MAX && websocket.left <= PAYLOAD_MAX);
        if (!in_place)
            free(out);
        free(copy);
    }
    outcome->state = websocket.state;
    outcome->error = websocket.error;
    outcome->code = websocket.code;
    check_end(&websocket);
    websocket_fini(&websocket);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    bool upgraded = data[0] & 1, in_place = data[0] & 2;
    struct outcome whole, pieces;
    run(data + 1, size - 1, size, upgraded, in_place, &whole);
    run(data + 1, size - 1, (data[0] >> 2) + 1u, upgraded, !in_place, &pieces);
    PROMISE(whole.state == pieces.state && whole.error == pieces.error && whole.code == pieces.code);
    PROMISE(whole.mqtt.length == pieces.mqtt.length);
    PROMISE(whole.mqtt.length == 0 || memcmp(whole.mqtt.data, pieces.mqtt.data, whole.mqtt.length) == 0);
    buffer_fini(&whole.mqtt);
    buffer_fini(&pieces.mqtt);
    return 0;
}
