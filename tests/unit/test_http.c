/* control/http through plain sockets: what is answered, what is refused, and that nothing is left behind. */
#include "control/http.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/metrics.h"
#include "base/probes.h"
#include "base/process.h"
#include "unit.h"

enum { DEADLINE_S = 10, ANSWER_MAX = 1 << 20 };

static struct http *http;
static char answer[ANSWER_MAX];

static int start(void **state)
{
    (void)state;
    char why[HTTP_WHY_MAX];
    const struct http_options options = {.host = "127.0.0.1", .port = 0, .version = "1.2.3-test"};
    return http_start(&http, &options, why);
}

static int stop(void **state)
{
    (void)state;
    http_stop(http);
    http = NULL;
    return 0;
}

static int connect_to(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval deadline = {.tv_sec = DEADLINE_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof deadline);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Sends the bytes, reads until the server closes; returns the status and leaves everything in `answer`. 0: closed without answer. */
static int exchange(const char *request, size_t length)
{
    int fd = connect_to(http_port(http));
    assert_true(fd >= 0);
    for (size_t sent = 0; sent < length;) {
        ssize_t n = send(fd, request + sent, length - sent, MSG_NOSIGNAL);
        if (n <= 0)
            break; /* refused before all of it was taken */
        sent += (size_t)n;
    }
    size_t got = 0;
    for (ssize_t n; got < sizeof answer - 1 && (n = recv(fd, answer + got, sizeof answer - 1 - got, 0)) > 0;)
        got += (size_t)n;
    answer[got] = 0;
    close(fd);
    int status = 0;
    return sscanf(answer, "HTTP/1.1 %d", &status) == 1 ? status : 0;
}

static int ask(const char *method, const char *path)
{
    char request[512];
    snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", method, path);
    return exchange(request, strlen(request));
}

static const char *body(void)
{
    const char *gap = strstr(answer, "\r\n\r\n");
    return gap ? gap + 4 : "(no body)";
}

static bool has_header(const char *line)
{
    const char *gap = strstr(answer, "\r\n\r\n"), *found = strstr(answer, line);
    return gap && found && found < gap;
}

static void a_live_process_is_healthy(void **state)
{
    (void)state;
    assert_int_equal(ask("GET", "/healthz"), 200);
    assert_string_equal(body(), "ok\n");
    assert_true(has_header("Content-Type: text/plain"));
}

static void metrics_come_in_the_text_format(void **state)
{
    (void)state;
    assert_int_equal(ask("GET", "/metrics"), 200);
    assert_true(has_header("Content-Type: text/plain; version=0.0.4; charset=utf-8"));
    assert_non_null(strstr(body(), "\nspindle_build_info{version=\"1.2.3-test\"} 1\n"));
    assert_non_null(strstr(body(), "\nprocess_resident_memory_bytes "));
}

static bool say_ready(void *owner, struct buffer *text)
{
    buffer_append_text(text, "as \"asked\"");
    return *(bool *)owner;
}

static void readiness_follows_the_probes(void **state)
{
    (void)state;
    bool ready = false;
    assert_int_equal(ask("GET", "/readyz"), 200);
    assert_string_equal(body(), "{\"ready\": true, \"probes\": []}\n");
    probes_register("journal", say_ready, &ready);
    assert_int_equal(ask("GET", "/readyz"), 503);
    assert_true(has_header("Content-Type: application/json"));
    assert_string_equal(body(),
                        "{\"ready\": false, \"probes\": [{\"name\": \"journal\", \"ready\": false, \"text\": \"as \\\"asked\\\"\"}]}\n");
    assert_int_equal(ask("GET", "/healthz"), 200); /* alive all the same */
    assert_int_equal(ask("GET", "/"), 200);
    assert_non_null(strstr(body(), ">not ready</span>"));
    ready = true;
    assert_int_equal(ask("GET", "/readyz"), 200);
    probes_unregister("journal");
}

static int say_streams(void *owner, struct buffer *json)
{
    (void)owner;
    return buffer_append_text(json, "{\"ingest\": {\"accepted\": 1}}");
}

static void the_status_has_facts_probes_and_fragments(void **state)
{
    (void)state;
    status_register("streams", say_streams, NULL);
    assert_int_equal(ask("GET", "/api/v1/status"), 200);
    status_unregister("streams");
    double uptime_s = -1;
    assert_int_equal(sscanf(body(), "{\"name\": \"spindle\", \"version\": \"1.2.3-test\", \"uptime_s\": %lf,", &uptime_s), 1);
    assert_true(uptime_s >= 0 && uptime_s < 100);
    assert_non_null(strstr(body(), ", \"ready\": true, \"probes\": [], \"streams\": {\"ingest\": {\"accepted\": 1}}}\n"));
}

static void the_first_page_leads_to_the_others(void **state)
{
    (void)state;
    assert_int_equal(ask("GET", "/?from=bookmark"), 200);
    assert_true(has_header("Content-Type: text/html; charset=utf-8"));
    assert_non_null(strstr(body(), "Spindle 1.2.3-test"));
    assert_non_null(strstr(body(), "href=\"/metrics\""));
    assert_non_null(strstr(body(), "href=\"/readyz\""));
    assert_non_null(strstr(body(), "href=\"/api/v1/status\""));
}

static void head_gives_the_headers_alone(void **state)
{
    (void)state;
    assert_int_equal(ask("HEAD", "/healthz"), 200);
    assert_true(has_header("Content-Length: 3\r\n"));
    assert_string_equal(body(), "");
}

static void unknown_paths_are_404_in_json(void **state)
{
    (void)state;
    static const char *const paths[] = {"/metric", "/metrics/", "//", "/api/v1/", "/%22%3Cscript%3E%ff", "/../etc/passwd"};
    for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
        assert_int_equal(ask("GET", paths[i]), 404);
        assert_true(has_header("Content-Type: application/json"));
        assert_memory_equal(body(), "{\"status\": 404, \"error\": \"there is nothing at /", 46);
    }
    assert_int_equal(ask("POST", "/nowhere"), 404);
    assert_int_equal(ask("GET", "/%22%3Cscript%3E%ff"), 404);
    assert_non_null(strstr(body(), "at /\\\"<script>\xef\xbf\xbd; try / /metrics /healthz"));
}

static void other_methods_are_405_and_named(void **state)
{
    (void)state;
    static const char *const methods[] = {"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"};
    for (unsigned i = 0; i < sizeof methods / sizeof *methods; i++) {
        assert_int_equal(ask(methods[i], "/metrics"), 405);
        assert_true(has_header("Allow: GET, HEAD\r\n"));
        assert_string_equal(body(), "{\"status\": 405, \"error\": \"only GET and HEAD are answered here\"}\n");
    }
}

static void bodies_are_refused_without_being_read(void **state)
{
    (void)state;
    static const char post[] = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nabc";
    assert_int_equal(exchange(post, sizeof post - 1), 405);
    assert_true(has_header("Connection: close"));
    static const char get[] = "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde";
    assert_int_equal(exchange(get, sizeof get - 1), 413);
    assert_true(has_header("Connection: close"));
    static const char chunked[] = "GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n";
    assert_int_equal(exchange(chunked, sizeof chunked - 1), 413);
    static const char empty[] = "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_int_equal(exchange(empty, sizeof empty - 1), 200);
}

static void requests_beyond_the_limit_are_refused(void **state)
{
    (void)state;
    enum { HUGE_REQUEST = HTTP_REQUEST_BYTES_MAX * 4 };
    char *request = malloc(HUGE_REQUEST);
    int length = snprintf(request, HUGE_REQUEST, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Padding: ");
    memset(request + length, 'x', HUGE_REQUEST - (size_t)length);
    int status = exchange(request, HUGE_REQUEST);
    assert_true(status == 0 || (status >= 400 && status < 500));
    memset(request, 'x', HUGE_REQUEST);
    memcpy(request, "GET /", 5);
    status = exchange(request, HUGE_REQUEST);
    assert_true(status == 0 || (status >= 400 && status < 500));
    free(request);
    assert_int_equal(ask("GET", "/healthz"), 200);
}

static void what_is_not_http_is_refused(void **state)
{
    (void)state;
    static const char garbage[] = "\x10\x0c\0\4MQTT\4\2\0\0\0\0\r\n\r\n\r\n";
    int status = exchange(garbage, sizeof garbage - 1);
    assert_true(status == 0 || (status >= 400 && status < 600));
    assert_int_equal(ask("GET", "/healthz"), 200);
}

static void connections_are_kept_for_the_next_request(void **state)
{
    (void)state;
    static const char two[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_int_equal(exchange(two, sizeof two - 1), 200);
    assert_non_null(strstr(answer, "ok\nHTTP/1.1 404 "));
}

/* Reads what comes until the server closes. */
static bool is_closed(int fd)
{
    char bytes[512];
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
        ;
    return n == 0;
}

/* Requests that are begun and not finished hold nobody: those that began first are closed. */
static void unfinished_requests_give_way(void **state)
{
    (void)state;
    int fds[2 * HTTP_CONNECTIONS_MAX];
    enum { COUNT = sizeof fds / sizeof *fds };
    static const char begun[] = "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: ";
    for (int i = 0; i < COUNT; i++) {
        assert_true((fds[i] = connect_to(http_port(http))) >= 0);
        assert_int_equal(send(fds[i], begun, sizeof begun - 1, MSG_NOSIGNAL), sizeof begun - 1);
    }
    time_t began = time(NULL);
    assert_int_equal(ask("GET", "/healthz"), 200);
    assert_int_equal(ask("GET", "/metrics"), 200);
    assert_true(time(NULL) - began < HTTP_IDLE_TIMEOUT_S / 2);
    for (int i = 0; i <= COUNT - HTTP_CONNECTIONS_KEPT; i++)
        assert_true(is_closed(fds[i]));
    char byte;
    assert_int_equal(recv(fds[COUNT - 1], &byte, 1, MSG_DONTWAIT), -1); /* the last is still waited for */
    for (int i = 0; i < COUNT; i++)
        close(fds[i]);
}

/* A connection that asks now and then stays when others only wait. */
static void who_asks_stays(void **state)
{
    (void)state;
    int asking = connect_to(http_port(http)), waiting[HTTP_CONNECTIONS_MAX];
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    for (int i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
        char bytes[512];
        waiting[i] = connect_to(http_port(http));
        assert_true(waiting[i] >= 0);
        assert_int_equal(send(asking, request, sizeof request - 1, MSG_NOSIGNAL), sizeof request - 1);
        assert_true(recv(asking, bytes, sizeof bytes, 0) > 12);
        assert_memory_equal(bytes, "HTTP/1.1 200", 12);
    }
    assert_true(is_closed(waiting[0]));
    close(asking);
    for (int i = 0; i < HTTP_CONNECTIONS_MAX; i++)
        close(waiting[i]);
}

static void a_port_in_use_is_said(void **state)
{
    (void)state;
    struct http *second = NULL;
    char why[HTTP_WHY_MAX] = "", expected[64];
    const struct http_options options = {.host = "127.0.0.1", .port = http_port(http), .version = "x"};
    assert_int_equal(http_start(&second, &options, why), ERR_BUSY);
    assert_null(second);
    snprintf(expected, sizeof expected, "127.0.0.1 port %u: Address already in use", http_port(http));
    assert_non_null(strstr(why, expected));
    assert_int_equal(ask("GET", "/healthz"), 200);
}

static void hosts_that_are_not_ours_are_said(void **state)
{
    (void)state;
    struct http *other = NULL;
    char why[HTTP_WHY_MAX] = "";
    static const char *const hosts[] = {"not a host", "203.0.113.1", "256.1.1.1"};
    for (unsigned i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        const struct http_options options = {.host = hosts[i], .version = "x"};
        assert_int_equal(http_start(&other, &options, why), ERR_INVALID);
        assert_null(other);
        assert_non_null(strstr(why, hosts[i]));
    }
}

static void it_can_be_stopped_and_started_again_on_its_port(void **state)
{
    (void)state;
    char why[HTTP_WHY_MAX];
    uint16_t port = http_port(http);
    assert_int_not_equal(port, 0);
    int open_connection = connect_to(port);
    struct process_usage before, after;
    stop(NULL);
    assert_int_equal(connect_to(port), -1);
    assert_int_equal(process_usage_read(&before), 0);
    for (int i = 0; i < 5; i++) {
        const struct http_options options = {.host = "127.0.0.1", .port = port, .version = "x"};
        assert_int_equal(http_start(&http, &options, why), 0);
        assert_int_equal(http_port(http), port);
        assert_int_equal(ask("GET", "/healthz"), 200);
        stop(NULL);
    }
    assert_int_equal(process_usage_read(&after), 0);
    assert_int_equal(after.open_fds, before.open_fds);
    char byte;
    assert_true(recv(open_connection, &byte, 1, 0) <= 0); /* it was closed */
    close(open_connection);
    http_stop(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_live_process_is_healthy, start, stop),
        cmocka_unit_test_setup_teardown(metrics_come_in_the_text_format, start, stop),
        cmocka_unit_test_setup_teardown(readiness_follows_the_probes, start, stop),
        cmocka_unit_test_setup_teardown(the_status_has_facts_probes_and_fragments, start, stop),
        cmocka_unit_test_setup_teardown(the_first_page_leads_to_the_others, start, stop),
        cmocka_unit_test_setup_teardown(head_gives_the_headers_alone, start, stop),
        cmocka_unit_test_setup_teardown(unknown_paths_are_404_in_json, start, stop),
        cmocka_unit_test_setup_teardown(other_methods_are_405_and_named, start, stop),
        cmocka_unit_test_setup_teardown(bodies_are_refused_without_being_read, start, stop),
        cmocka_unit_test_setup_teardown(requests_beyond_the_limit_are_refused, start, stop),
        cmocka_unit_test_setup_teardown(what_is_not_http_is_refused, start, stop),
        cmocka_unit_test_setup_teardown(connections_are_kept_for_the_next_request, start, stop),
        cmocka_unit_test_setup_teardown(unfinished_requests_give_way, start, stop),
        cmocka_unit_test_setup_teardown(who_asks_stays, start, stop),
        cmocka_unit_test_setup_teardown(a_port_in_use_is_said, start, stop),
        cmocka_unit_test_setup_teardown(hosts_that_are_not_ours_are_said, start, stop),
        cmocka_unit_test_setup_teardown(it_can_be_stopped_and_started_again_on_its_port, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
