/* base/process: the kernel's numbers, checked against what the test does to them. */
#include "base/process.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "unit.h"

static struct process_usage usage(void)
{
    struct process_usage now;
    assert_int_equal(process_usage_read(&now), 0);
    return now;
}

static void cpu_time_grows_with_work(void **state)
{
    (void)state;
    double before = usage().cpu_s;
    uint64_t deadline_ns = clock_monotonic_ns() + 10000000000u;
    while (usage().cpu_s < before + 0.02) /* reading /proc is work enough */
        assert_true(clock_monotonic_ns() < deadline_ns);
}

static void touched_memory_is_resident(void **state)
{
    (void)state;
    enum { MORE = 32 << 20 };
    uint64_t before = usage().resident_bytes;
    assert_true(before > 100000);
    char *memory = malloc(MORE);
    memset(memory, 1, MORE);
    __asm__ volatile("" : : "r"(memory) : "memory");
    assert_true(usage().resident_bytes >= before + MORE / 2);
    free(memory);
}

static void open_files_are_counted(void **state)
{
    (void)state;
    uint64_t before = usage().open_fds;
    int fds[5];
    for (int i = 0; i < 5; i++)
        fds[i] = open("/dev/null", O_RDONLY);
    assert_int_equal(usage().open_fds, before + 5);
    for (int i = 0; i < 5; i++)
        close(fds[i]);
    assert_int_equal(usage().open_fds, before);
}

static void the_start_lies_a_little_back_and_stays(void **state)
{
    (void)state;
    double start = usage().start_time_s, now = (double)clock_wall_ns() / 1e9;
    assert_true(start <= now + 0.1);
    assert_true(start > now - 600);
    assert_true(usage().start_time_s == start);
}

static void the_collector_states_all_four(void **state)
{
    (void)state;
    struct buffer page;
    buffer_init(&page, 1 << 16);
    metrics_register(process_collect, NULL);
    assert_int_equal(metrics_write(&page), 0);
    metrics_unregister(process_collect, NULL);
    const char *text = buffer_text(&page);
    assert_non_null(strstr(text, "\nprocess_cpu_seconds_total "));
    assert_non_null(strstr(text, "\nprocess_resident_memory_bytes "));
    assert_non_null(strstr(text, "\nprocess_open_fds "));
    assert_non_null(strstr(text, "\nprocess_start_time_seconds "));
    buffer_fini(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_time_grows_with_work),      cmocka_unit_test(touched_memory_is_resident),
        cmocka_unit_test(open_files_are_counted),        cmocka_unit_test(the_start_lies_a_little_back_and_stays),
        cmocka_unit_test(the_collector_states_all_four),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
