/* cli/bench: targets as people write them; and load/load_scenario's refusals. */
#include "cli/bench.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "load/load_process.h"
#include "mqtt/packet.h"
#include "unit.h"

#include <unistd.h>

static void targets_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text, *name, *host;
        uint16_t port;
        int pid;
    } cases[] = {
        {"localhost:1883", "localhost:1883", "localhost", 1883, 0},
        {"mosquitto=127.0.0.1:1884/77", "mosquitto", "127.0.0.1", 1884, 77},
        {"::1:1883", "::1:1883", "::1", 1883, 0},
        {"six=[::1]:65535/1", "six", "::1", 65535, 1},
        {"a-very-long-name-for-a-server-of-messages=h:1", "a-very-long-name-for-a-server-o", "h", 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bench_target target;
        char problem[BENCH_PROBLEM_MAX];
        assert_int_equal(bench_target_parse(&target, cases[i].text, problem), 0);
        assert_string_equal(target.name, cases[i].name);
        assert_string_equal(target.host, cases[i].host);
        assert_int_equal(target.port, cases[i].port);
        assert_int_equal(target.server_pid, cases[i].pid);
    }
}

static void what_is_no_target_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",           "host",    ":1883",   "host:",   "host:0", "host:65536",
                                        "host:1883x", "host:+1", "host: 1", "=host:1", "name=",  "name=:1",
                                        "h:1/",       "h:1/0",   "h:1/x",   "h:1/2/3", "[]:1",   "h:1/99999999999"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct bench_target target = {.port = 77};
        char problem[BENCH_PROBLEM_MAX] = "";
        if (bench_target_parse(&target, texts[i], problem) != ERR_INVALID)
            fail_msg("`%s` was taken", texts[i]);
        assert_non_null(strstr(problem, texts[i]));
        assert_int_equal(target.port, 77);
    }
}

static void scenarios_out_of_range_are_refused(void **state)
{
    (void)state;
    const struct load_scenario good = {.host = "127.0.0.1",
                                       .port = 1,
                                       .version = MQTT_VERSION_3_1_1,
                                       .publishers = 1,
                                       .subscribers = 1,
                                       .threads = 1,
                                       .payload_bytes = LOAD_STAMP_SIZE,
                                       .inflight = 1,
                                       .duration_s = 1};
    struct load_scenario bad[11];
    for (size_t i = 0; i < 11; i++)
        bad[i] = good;
    bad[0].publishers = 0;
    bad[1].publishers = LOAD_PUBLISHERS_MAX + 1;
    bad[2].subscribers = LOAD_SUBSCRIBERS_MAX + 1;
    bad[3].publishers = bad[3].subscribers = 1000;
    bad[4].threads = 0;
    bad[5].threads = LOAD_THREADS_MAX + 1;
    bad[6].payload_bytes = LOAD_STAMP_SIZE - 1;
    bad[7].payload_bytes = LOAD_PAYLOAD_MAX + 1;
    bad[8].inflight = 0;
    bad[9].publish_qos = 2;
    bad[10].duration_s = 0;
    struct load_result *result = malloc(sizeof *result);
    for (size_t i = 0; i < 11; i++) {
        assert_int_equal(load_scenario_run(&bad[i], result), ERR_INVALID);
        assert_true(strlen(result->problem) > 10);
    }
    assert_int_equal(load_scenario_run(&good, result), ERR_DISCONNECTED);
    assert_non_null(strstr(result->problem, "refused"));
    bad[0] = good;
    bad[0].host = "no such host";
    assert_int_equal(load_scenario_run(&bad[0], result), ERR_NOT_FOUND);
    free(result);
}

static void connections_out_of_range_are_refused(void **state)
{
    (void)state;
    struct load_connects connects = {.host = "127.0.0.1", .port = 1, .version = MQTT_VERSION_5_0, .count = 0, .at_once = 1, .timeout_s = 5};
    struct load_connects_result *result = malloc(sizeof *result);
    assert_int_equal(load_connects_run(&connects, result), ERR_INVALID);
    connects.count = LOAD_CONNECTS_MAX + 1;
    assert_int_equal(load_connects_run(&connects, result), ERR_INVALID);
    connects.count = 3;
    connects.at_once = 0;
    assert_int_equal(load_connects_run(&connects, result), ERR_INVALID);
    connects.at_once = 2;
    assert_int_equal(load_connects_run(&connects, result), 0);
    assert_int_equal(result->connected, 0);
    assert_int_equal(result->failed, 3);
    assert_non_null(strstr(result->problem, "refused"));
    free(result);
}

static void the_usage_of_a_process_is_read(void **state)
{
    (void)state;
    struct load_process_usage usage = {.cpu_s = 77};
    assert_int_equal(load_process_read(0x7ffffff0, &usage), ERR_NOT_FOUND);
    assert_true(usage.cpu_s > 76);
    assert_int_equal(load_process_read(getpid(), &usage), 0);
    assert_true(usage.cpu_s >= 0 && usage.cpu_s < 70);
    assert_true(usage.resident_bytes > 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_are_read),
        cmocka_unit_test(what_is_no_target_is_refused),
        cmocka_unit_test(scenarios_out_of_range_are_refused),
        cmocka_unit_test(connections_out_of_range_are_refused),
        cmocka_unit_test(the_usage_of_a_process_is_read),
    };
    return cmocka_run_group_tests_name("bench", tests, NULL, NULL);
}
