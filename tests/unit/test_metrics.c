/* base/metrics: the page in Prometheus text format 0.0.4. */
#include "base/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "unit.h"

static struct buffer page;

static int begin(void **state)
{
    (void)state;
    buffer_init(&page, 1 << 20);
    return 0;
}

static int end(void **state)
{
    (void)state;
    buffer_fini(&page);
    return 0;
}

static const char *scrape(void)
{
    buffer_clear(&page);
    assert_int_equal(metrics_write(&page), 0);
    return buffer_text(&page);
}

static void collect_counter(void *owner, struct metrics_writer *writer)
{
    metrics_sample_u64(writer, METRIC_ACCEPTED, *(uint64_t *)owner, "stream", "ingest", NULL);
}

static void without_collectors_the_page_is_empty(void **state)
{
    (void)state;
    assert_string_equal(scrape(), "");
}

static void a_sample_stands_below_its_help_and_type(void **state)
{
    (void)state;
    uint64_t value = 18446744073709551615u; /* beyond what a double holds */
    assert_int_equal(metrics_register(collect_counter, &value), 0);
    assert_string_equal(scrape(), "# HELP spindle_accepted_total Messages made durable in a stream\n"
                                  "# TYPE spindle_accepted_total counter\n"
                                  "spindle_accepted_total{stream=\"ingest\"} 18446744073709551615\n");
    metrics_unregister(collect_counter, &value);
    assert_string_equal(scrape(), "");
}

static void collect_mixed(void *owner, struct metrics_writer *writer)
{
    (void)owner;
    metrics_sample(writer, METRIC_BUS_CONNECTIONS, 3, NULL);
    metrics_sample_u64(writer, METRIC_COMPLETED, 2, "stream", "bus", NULL);
    metrics_sample_u64(writer, METRIC_ACCEPTED, 5, "stream", "bus", NULL);
    metrics_sample_u64(writer, METRIC_DEAD_LETTERED, 1, "stream", "bus", "reason", "not_json", NULL);
}

/* The format wants all samples of a metric together, whichever collector they come from. */
static void samples_of_one_metric_stand_together(void **state)
{
    (void)state;
    uint64_t value = 9;
    metrics_register(collect_counter, &value);
    metrics_register(collect_mixed, NULL);
    const char *text = scrape();
    assert_non_null(strstr(text, "# TYPE spindle_accepted_total counter\n"
                                 "spindle_accepted_total{stream=\"ingest\"} 9\n"
                                 "spindle_accepted_total{stream=\"bus\"} 5\n"
                                 "# HELP spindle_completed_total "));
    assert_non_null(strstr(text, "spindle_dead_lettered_total{stream=\"bus\",reason=\"not_json\"} 1\n"));
    assert_non_null(strstr(text, "\nspindle_bus_connections 3\n"));
    const char *first = strstr(text, "# TYPE spindle_accepted_total");
    assert_null(strstr(first + 1, "# TYPE spindle_accepted_total"));
    metrics_unregister(collect_counter, &value);
    metrics_unregister(collect_mixed, NULL);
}

static void collect_numbers(void *owner, struct metrics_writer *writer)
{
    (void)owner;
    static const double values[] = {0, -1.5, 0.1, 1e21, 1.0 / 3, (double)NAN, (double)INFINITY, -(double)INFINITY};
    for (unsigned i = 0; i < sizeof values / sizeof *values; i++)
        metrics_sample(writer, METRIC_PENDING, values[i], NULL);
}

static void numbers_are_short_and_exact(void **state)
{
    (void)state;
    metrics_register(collect_numbers, NULL);
    assert_non_null(strstr(scrape(), "gauge\n"
                                     "spindle_pending 0\n"
                                     "spindle_pending -1.5\n"
                                     "spindle_pending 0.1\n"
                                     "spindle_pending 1e+21\n"
                                     "spindle_pending 0.3333333333333333\n"
                                     "spindle_pending NaN\n"
                                     "spindle_pending +Inf\n"
                                     "spindle_pending -Inf\n"));
    metrics_unregister(collect_numbers, NULL);
}

static void collect_label(void *owner, struct metrics_writer *writer)
{
    metrics_sample_u64(writer, METRIC_PENDING, 1, "stream", (const char *)owner, NULL);
}

static void label_values_are_escaped(void **state)
{
    (void)state;
    char odd[] = "a\\b\"c\nd\xff\xc3\xa9";
    metrics_register(collect_label, odd);
    assert_non_null(strstr(scrape(), "spindle_pending{stream=\"a\\\\b\\\"c\\nd\xef\xbf\xbd\xc3\xa9\"} 1\n"));
    metrics_unregister(collect_label, odd);
}

static struct histogram histogram;

static void collect_histogram(void *owner, struct metrics_writer *writer)
{
    (void)owner;
    static const double bounds_s[] = {.001, .01, .1, .5, 1, 5};
    metrics_histogram_ns(writer, METRIC_DRILLING_DURATION, &histogram, bounds_s, 6, NULL);
    metrics_histogram_ns(writer, METRIC_JOURNAL_SYNC, &histogram, bounds_s, 1, "disk", "sda", NULL);
}

static void histograms_are_cumulative_and_end_with_their_total(void **state)
{
    (void)state;
    memset(&histogram, 0, sizeof histogram);
    static const uint64_t values_ms[] = {0, 5, 6, 50, 400, 900, 4000, 60000};
    for (unsigned i = 0; i < sizeof values_ms / sizeof *values_ms; i++)
        histogram_record(&histogram, values_ms[i] * 1000000);
    metrics_register(collect_histogram, NULL);
    const char *text = scrape();
    assert_non_null(strstr(text, "# TYPE drilling_processing_duration_seconds histogram\n"
                                 "drilling_processing_duration_seconds_bucket{le=\"0.001\"} 1\n"
                                 "drilling_processing_duration_seconds_bucket{le=\"0.01\"} 3\n"
                                 "drilling_processing_duration_seconds_bucket{le=\"0.1\"} 4\n"
                                 "drilling_processing_duration_seconds_bucket{le=\"0.5\"} 5\n"
                                 "drilling_processing_duration_seconds_bucket{le=\"1\"} 6\n"
                                 "drilling_processing_duration_seconds_bucket{le=\"5\"} 7\n"
                                 "drilling_processing_duration_seconds_bucket{le=\"+Inf\"} 8\n"
                                 "drilling_processing_duration_seconds_count 8\n"
                                 "drilling_processing_duration_seconds_sum 65.361\n"));
    assert_non_null(strstr(text, "spindle_journal_sync_duration_seconds_bucket{disk=\"sda\",le=\"0.001\"} 1\n"
                                 "spindle_journal_sync_duration_seconds_bucket{disk=\"sda\",le=\"+Inf\"} 8\n"
                                 "spindle_journal_sync_duration_seconds_count{disk=\"sda\"} 8\n"));
    metrics_unregister(collect_histogram, NULL);
}

static void a_page_that_does_not_fit_is_refused_whole(void **state)
{
    (void)state;
    uint64_t value = 1;
    metrics_register(collect_counter, &value);
    size_t full = strlen(scrape());
    for (size_t limit = 0; limit <= full + 3; limit += limit + 1 < full ? 7 : 1) {
        struct buffer small;
        buffer_init(&small, limit + 3);
        buffer_append_text(&small, "old");
        assert_int_equal(metrics_write(&small), limit >= full ? 0 : ERR_LIMIT);
        assert_int_equal(small.length, limit >= full ? full + 3 : 3);
        buffer_fini(&small);
    }
    metrics_unregister(collect_counter, &value);
}

static void the_registry_has_a_limit_and_no_doubles(void **state)
{
    (void)state;
    uint64_t values[65] = {0};
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(metrics_register(collect_counter, &values[i]), 0);
    assert_int_equal(metrics_register(collect_counter, &values[64]), ERR_LIMIT);
    assert_int_equal(metrics_register(collect_counter, &values[3]), ERR_INVALID);
    metrics_unregister(collect_counter, &values[64]); /* unknown: nothing happens */
    for (unsigned i = 0; i < 63; i++)
        metrics_unregister(collect_counter, &values[i]);
    values[63] = 63;
    assert_non_null(strstr(scrape(), "{stream=\"ingest\"} 63\n"));
    assert_int_equal(metrics_register(collect_counter, &values[64]), 0);
    metrics_unregister(collect_counter, &values[63]);
    metrics_unregister(collect_counter, &values[64]);
    assert_string_equal(scrape(), "");
}

static void *register_often(void *argument)
{
    (void)argument;
    for (int i = 0; i < 500; i++) {
        uint64_t *value = calloc(1, sizeof *value);
        metrics_register(collect_counter, value);
        metrics_unregister(collect_counter, value);
        free(value); /* a collector that still ran would read freed memory */
    }
    return NULL;
}

static void collectors_come_and_go_while_others_scrape(void **state)
{
    (void)state;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, register_often, NULL), 0);
    for (int i = 0; i < 200; i++)
        scrape();
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_string_equal(scrape(), "");
}

/* Names are part of what users build on: valid, unique, counters end in _total (the standard's rule). */
static void names_follow_the_rules(void **state)
{
    (void)state;
    static const struct {
        const char *type, *name, *help;
    } rows[] = {
#define METRIC(id, type, name, help) {#type, name, help},
#include "base/metrics.def"
#undef METRIC
    };
    for (unsigned i = 0; i < METRIC_COUNT; i++) {
        assert_int_equal(strspn(rows[i].name, "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(rows[i].name));
        assert_null(strpbrk(rows[i].help, "\\\n"));
        size_t length = strlen(rows[i].name);
        assert_int_equal(length > 6 && strcmp(rows[i].name + length - 6, "_total") == 0, strcmp(rows[i].type, "counter") == 0);
        assert_true(strcmp(rows[i].type, "counter") == 0 || strcmp(rows[i].type, "gauge") == 0 || strcmp(rows[i].type, "histogram") == 0);
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(rows[i].name, rows[j].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_collectors_the_page_is_empty, begin, end),
        cmocka_unit_test_setup_teardown(a_sample_stands_below_its_help_and_type, begin, end),
        cmocka_unit_test_setup_teardown(samples_of_one_metric_stand_together, begin, end),
        cmocka_unit_test_setup_teardown(numbers_are_short_and_exact, begin, end),
        cmocka_unit_test_setup_teardown(label_values_are_escaped, begin, end),
        cmocka_unit_test_setup_teardown(histograms_are_cumulative_and_end_with_their_total, begin, end),
        cmocka_unit_test_setup_teardown(a_page_that_does_not_fit_is_refused_whole, begin, end),
        cmocka_unit_test_setup_teardown(the_registry_has_a_limit_and_no_doubles, begin, end),
        cmocka_unit_test_setup_teardown(collectors_come_and_go_while_others_scrape, begin, end),
        cmocka_unit_test(names_follow_the_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
