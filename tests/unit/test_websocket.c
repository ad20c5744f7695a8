/* transport/upgrade and transport/websocket: the request, frames in both directions, and every limit. */
#include "transport/websocket.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "unit.h"

enum { OUT_MAX = 1 << 18, PAYLOAD_MAX = 1 << 17 };

static const char request[] = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Protocol: mqtt\r\n\r\n";

static struct websocket opened(struct buffer *answer)
{
    struct websocket websocket;
    uint8_t out[sizeof request];
    websocket_init(&websocket, "/mqtt", PAYLOAD_MAX);
    assert_int_equal(websocket_read(&websocket, (const uint8_t *)request, sizeof request - 1, out), 0);
    assert_int_equal(websocket.state, WEBSOCKET_OPEN);
    buffer_init(answer, 4 * OUT_MAX);
    assert_int_equal(websocket_answer(&websocket, answer), 0);
    return websocket;
}

static void finished(struct websocket *websocket, struct buffer *answer)
{
    websocket_fini(websocket);
    buffer_fini(answer);
}

/* A client's frame; returns its length. */
static size_t put_frame(uint8_t *out, uint8_t first, const void *payload, size_t length)
{
    static const uint8_t mask[] = {0x37, 0xfa, 0x21, 0x3d};
    size_t at = 0;
    out[at++] = first;
    out[at++] = (uint8_t)(0x80 | (length < 126 ? length : length <= UINT16_MAX ? 126 : 127));
    for (int shift = length < 126 ? 0 : length <= UINT16_MAX ? 16 : 64; shift > 0; shift -= 8)
        out[at++] = (uint8_t)((uint64_t)length >> (shift - 8));
    memcpy(out + at, mask, sizeof mask);
    at += sizeof mask;
    for (size_t i = 0; i < length; i++)
        out[at++] = (uint8_t)(((const uint8_t *)payload)[i] ^ mask[i % 4]);
    return at;
}

/* ---- the upgrade ---- */

static unsigned status_of(const char *text)
{
    struct upgrade upgrade = {0};
    size_t searched = 0;
    int error = upgrade_read((const uint8_t *)text, strlen(text), "/mqtt", &searched, &upgrade);
    if (error == ERR_TRUNCATED)
        return 0;
    assert_int_equal(error, upgrade.status == 101 ? 0 : ERR_PROTOCOL);
    assert_true((upgrade.status == 101) == (upgrade.refusal == NULL));
    return upgrade.status;
}

static void the_answer_is_that_of_the_standard(void **state)
{
    (void)state;
    char accept[UPGRADE_ACCEPT_SIZE];
    upgrade_accept("dGhlIHNhbXBsZSBub25jZQ==", accept); /* RFC 6455 section 1.3 */
    assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    struct buffer answer;
    struct websocket websocket = opened(&answer);
    assert_string_equal(buffer_text(&answer), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                              "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n");
    finished(&websocket, &answer);
}

static void every_prefix_of_a_request_needs_more(void **state)
{
    (void)state;
    struct upgrade upgrade;
    size_t searched = 0;
    for (size_t length = 0; length < sizeof request - 1; length++) {
        assert_int_equal(upgrade_read((const uint8_t *)request, length, "/mqtt", &searched, &upgrade), ERR_TRUNCATED);
        assert_int_equal(searched, length);
    }
    assert_int_equal(upgrade_read((const uint8_t *)request, sizeof request - 1, "/mqtt", &searched, &upgrade), 0);
    assert_int_equal(upgrade.length, sizeof request - 1);
}

static void a_request_has_limits(void **state)
{
    (void)state;
    static char text[2 * UPGRADE_SIZE_MAX];
    size_t head = sizeof request - 3; /* without the empty line */
    for (int over = 0; over < 2; over++) {
        size_t fill = UPGRADE_SIZE_MAX - head - strlen("X: \r\n\r\n") + (size_t)over;
        snprintf(text, sizeof text, "%.*sX: %0*d\r\n\r\n", (int)head, request, (int)fill, 0);
        assert_int_equal(status_of(text), over ? 431 : 101);
    }
    for (int headers = UPGRADE_HEADERS_MAX - 1; headers <= UPGRADE_HEADERS_MAX; headers++) {
        size_t at = (size_t)snprintf(text, sizeof text, "%.*s", (int)head, request);
        for (int i = 6; i < headers + 1; i++) /* five, Host with them, stand there */
            at += (size_t)snprintf(text + at, sizeof text - at, "X: y\r\n");
        snprintf(text + at, sizeof text - at, "\r\n");
        assert_int_equal(status_of(text), headers == UPGRADE_HEADERS_MAX ? 431 : 101);
    }
}

static void lines_that_are_none_are_refused(void **state)
{
    (void)state;
    assert_int_equal(status_of("\r\n\r\n"), 400);
    assert_int_equal(status_of("GET /mqtt\r\n\r\n"), 400);
    assert_int_equal(status_of("GET  HTTP/1.1\r\n\r\n"), 400);
    assert_int_equal(status_of("GET /mqtt HTTP/1.1 \r\n\r\n"), 400);
    assert_int_equal(status_of(" GET /mqtt HTTP/1.1\r\n\r\n"), 400);
    assert_int_equal(status_of("GET /mqtt HTTP/1.10\r\n\r\n"), 400);
    assert_int_equal(status_of("GET /mqtt HTTP/1.2\r\n\r\n"), 505);
    assert_int_equal(status_of("get /mqtt HTTP/1.1\r\n\r\n"), 405);
    assert_int_equal(status_of("GET /mqtt2 HTTP/1.1\r\n\r\n"), 404);
    assert_int_equal(status_of("GET /mqtt HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n"), 400);
    assert_int_equal(status_of("GET /mqtt HTTP/1.1\r\n: a\r\n\r\n"), 400);
    assert_int_equal(status_of("GET /mqtt HTTP/1.1\r\nHost\r\n\r\n"), 400);
    assert_int_equal(status_of("GET /mqtt HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"), 400);
    assert_int_equal(status_of("GET /mqtt HTTP/1.1\nHost: a\n\n"), 0); /* a line ends with CR LF: this one has not ended */
}

static void a_refusal_is_http_and_no_close_follows(void **state)
{
    (void)state;
    struct websocket websocket;
    struct buffer answer;
    uint8_t out[64];
    static const char post[] = "POST /mqtt HTTP/1.1\r\n\r\nxyz";
    websocket_init(&websocket, "/mqtt", PAYLOAD_MAX);
    buffer_init(&answer, OUT_MAX);
    assert_int_equal(websocket_read(&websocket, (const uint8_t *)post, sizeof post - 1, out), ERR_PROTOCOL);
    assert_int_equal(websocket_read(&websocket, (const uint8_t *)"x", 1, out), ERR_PROTOCOL);
    assert_true(websocket_has_answer(&websocket));
    assert_int_equal(websocket_answer(&websocket, &answer), 0);
    assert_int_equal(websocket_finish(&websocket, &answer), 0);
    assert_false(websocket_has_answer(&websocket));
    assert_memory_equal(answer.data, "HTTP/1.1 405 ", 13);
    assert_memory_equal(answer.data + answer.length - 24, "\r\nthe method is not GET\n", 24);
    finished(&websocket, &answer);
}

/* ---- frames in ---- */

static void a_frame_of_the_standard_is_unmasked(void **state)
{
    (void)state;
    struct buffer answer;
    struct websocket websocket = opened(&answer);
    uint8_t frame[] = {0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58}; /* "Hello", RFC 6455 section 5.7 */
    assert_int_equal(websocket_read(&websocket, frame, sizeof frame, frame), 5);          /* in its own place */
    assert_memory_equal(frame, "Hello", 5);
    finished(&websocket, &answer);
}

static void frames_of_every_size_arrive_in_pieces_of_every_size(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 7, 8, 9, 125, 126, 127, 65535, 65536, PAYLOAD_MAX};
    static uint8_t payload[PAYLOAD_MAX], frame[OUT_MAX], out[OUT_MAX];
    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t piece = 1; piece < OUT_MAX; piece = piece * 3 + 1) {
            struct buffer answer;
            struct websocket websocket = opened(&answer);
            size_t length = put_frame(frame, 0x82, payload, sizes[i]), written = 0;
            for (size_t at = 0; at < length; at += piece) {
                size_t more = length - at < piece ? length - at : piece;
                ptrdiff_t count = websocket_read(&websocket, frame + at, more, out + written);
                assert_in_range(count, 0, more);
                written += (size_t)count;
            }
            assert_int_equal(written, sizes[i]);
            assert_memory_equal(out, payload, written);
            assert_int_equal(websocket.left, 0);
            finished(&websocket, &answer);
        }
    }
}

static void a_larger_frame_is_refused_by_its_head(void **state)
{
    (void)state;
    struct buffer answer;
    struct websocket websocket = opened(&answer);
    static const uint8_t head[] = {0x82, 0xff, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0};
    uint8_t out[sizeof head];
    assert_int_equal(websocket_read(&websocket, head, sizeof head, out), ERR_PROTOCOL);
    assert_int_equal(websocket.code, WEBSOCKET_TOO_LARGE);
    finished(&websocket, &answer);
}

static void what_came_before_the_end_is_given_first(void **state)
{
    (void)state;
    struct buffer answer;
    struct websocket websocket = opened(&answer);
    uint8_t frames[64], out[64];
    size_t length = put_frame(frames, 0x82, "mqtt", 4);
    length += put_frame(frames + length, 0x88, "\x03\xe8", 2);
    length += put_frame(frames + length, 0x82, "late", 4);
    assert_int_equal(websocket_read(&websocket, frames, length, out), 4);
    assert_int_equal(websocket_read(&websocket, NULL, 0, out), ERR_CLOSED);
    answer.length = 0;
    assert_int_equal(websocket_finish(&websocket, &answer), 0);
    assert_int_equal(websocket_finish(&websocket, &answer), 0);
    assert_int_equal(answer.length, 4);
    assert_memory_equal(answer.data, "\x88\x02\x03\xe8", 4);
    finished(&websocket, &answer);
}

static void of_many_pings_the_last_is_answered(void **state)
{
    (void)state;
    struct buffer answer;
    struct websocket websocket = opened(&answer);
    uint8_t frames[256], out[256];
    size_t length = put_frame(frames, 0x89, "first", 5);
    length += put_frame(frames + length, 0x89, "last", 4);
    answer.length = 0;
    assert_int_equal(websocket_read(&websocket, frames, length, out), 0);
    assert_true(websocket_has_answer(&websocket));
    assert_int_equal(websocket_answer(&websocket, &answer), 0);
    assert_false(websocket_has_answer(&websocket));
    assert_int_equal(answer.length, 6);
    assert_memory_equal(answer.data, "\x8a\x04last", 6);
    finished(&websocket, &answer);
}

/* ---- frames out ---- */

static void what_is_sent_is_cut_into_frames(void **state)
{
    (void)state;
    static const struct {
        size_t length;
        const char *head;
        size_t head_length, frames;
    } cases[] = {
        {0, "", 0, 0},
        {1, "\x82\x01", 2, 1},
        {125, "\x82\x7d", 2, 1},
        {126, "\x82\x7e\x00\x7e", 4, 1},
        {65535, "\x82\x7e\xff\xff", 4, 1},
        {65536, "\x82\x7f\0\0\0\0\0\x01\0\0", 10, 1},
        {65537, "\x82\x7f\0\0\0\0\0\x01\0\0", 10, 2},
        {3 * WEBSOCKET_SEND_MAX, "\x82\x7f\0\0\0\0\0\x01\0\0", 10, 3},
    };
    static uint8_t bytes[3 * WEBSOCKET_SEND_MAX];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer out;
        buffer_init(&out, OUT_MAX);
        assert_int_equal(websocket_write(bytes, cases[i].length, &out), 0);
        if (cases[i].head_length)
            assert_memory_equal(out.data, cases[i].head, cases[i].head_length);
        size_t rest = cases[i].length % WEBSOCKET_SEND_MAX, last = cases[i].frames == 2 && rest == 1 ? 2 : cases[i].head_length;
        size_t heads = cases[i].frames ? (cases[i].frames - 1) * 10 + last : 0;
        assert_int_equal(out.length, cases[i].length + heads);
        buffer_fini(&out);
    }
}

static void nothing_is_left_behind_where_there_is_no_room(void **state)
{
    (void)state;
    struct buffer out;
    uint8_t bytes[100] = {0};
    buffer_init(&out, 101);
    assert_int_equal(websocket_write(bytes, sizeof bytes, &out), ERR_LIMIT);
    assert_int_equal(out.length, 0);
    buffer_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_is_that_of_the_standard),
        cmocka_unit_test(every_prefix_of_a_request_needs_more),
        cmocka_unit_test(a_request_has_limits),
        cmocka_unit_test(lines_that_are_none_are_refused),
        cmocka_unit_test(a_refusal_is_http_and_no_close_follows),
        cmocka_unit_test(a_frame_of_the_standard_is_unmasked),
        cmocka_unit_test(frames_of_every_size_arrive_in_pieces_of_every_size),
        cmocka_unit_test(a_larger_frame_is_refused_by_its_head),
        cmocka_unit_test(what_came_before_the_end_is_given_first),
        cmocka_unit_test(of_many_pings_the_last_is_answered),
        cmocka_unit_test(what_is_sent_is_cut_into_frames),
        cmocka_unit_test(nothing_is_left_behind_where_there_is_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
