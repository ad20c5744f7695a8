/* control/overview: the page says what the registries say, with sums, rates and percentiles, and escapes what it is told. */
#include "control/overview.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/histogram.h"
#include "base/metrics.h"
#include "base/probes.h"
#include "unit.h"

#define SECOND_NS UINT64_C(1000000000)

static struct buffer body;
static struct overview_marks marks;
static struct histogram histogram;
static uint64_t holes, accepted;
static unsigned reasons;
static bool ready;

static void collect(void *owner, struct metrics_writer *writer)
{
    (void)owner;
    metrics_sample_u64(writer, METRIC_ACCEPTED, accepted, "stream", "ingest", NULL);
    metrics_sample_u64(writer, METRIC_COMPLETED, 1000000, "stream", "ingest", NULL);
    metrics_sample_u64(writer, METRIC_DUPLICATES, 200, "stream", "ingest", NULL);
    metrics_sample_u64(writer, METRIC_PENDING, 30, "stream", "ingest", NULL);
    for (unsigned i = 0; i < reasons; i++) {
        char word[24];
        snprintf(word, sizeof word, "reason<%u>", i);
        metrics_sample_u64(writer, METRIC_DEAD_LETTERED, 4, "stream", "ingest", "reason", word, NULL);
    }
    metrics_sample_u64(writer, METRIC_DRILLING_HOLES, holes, "outcome", "estimated", NULL);
    static const double bounds_s[] = {1};
    metrics_histogram_ns(writer, METRIC_DRILLING_DURATION, &histogram, bounds_s, 1, NULL);
}

static bool check(void *owner, struct buffer *text)
{
    (void)owner;
    buffer_append_text(text, "a < b & c");
    return ready;
}

static int begin(void **state)
{
    (void)state;
    buffer_init(&body, 1 << 20);
    marks = (struct overview_marks){0};
    memset(&histogram, 0, sizeof histogram);
    holes = 0;
    reasons = 1;
    accepted = 1000234;
    ready = true;
    metrics_register(collect, NULL);
    return probes_register("journal", check, NULL);
}

static int end(void **state)
{
    (void)state;
    metrics_unregister(collect, NULL);
    probes_unregister("journal");
    buffer_fini(&body);
    return 0;
}

static const char *view(uint64_t now_ns)
{
    static const struct overview_link links[] = {{"/metrics", "Numbers"}};
    struct overview_facts facts = {"1.2.3", 90061.5, now_ns, links, 1};
    buffer_clear(&body);
    assert_int_equal(overview_write(&body, &facts, &marks), 0);
    return buffer_text(&body);
}

static void sees(const char *page, const char *part)
{
    if (!strstr(page, part))
        fail_msg("`%s` is not on the page:\n%s", part, page);
}

static void it_says_how_it_is(void **state)
{
    (void)state;
    const char *page = view(SECOND_NS);
    sees(page, "<title>Spindle</title>");
    sees(page, "Spindle 1.2.3: <span class=\"good\">ready</span>");
    sees(page, "running for 1 d 01:01:01");
    sees(page, "<tr><td>journal<td class=\"good\">ready<td>a &lt; b &amp; c\n");
    sees(page, "<a href=\"/metrics\">/metrics</a><td>Numbers");
    ready = false;
    page = view(2 * SECOND_NS);
    sees(page, "<title>NOT READY - Spindle</title>");
    sees(page, "<tr><td>journal<td class=\"bad\">not ready<td>");
}

static void sums_are_checked(void **state)
{
    (void)state;
    sees(view(SECOND_NS), "<tr><td>ingest<td>1,000,234<td>1,000,000<td>200<td>4<td>30<td class=\"good\">holds\n");
    accepted++;
    sees(view(SECOND_NS), "<td>30<td class=\"bad\">does not hold\n");
    sees(view(SECOND_NS), "<tr><td>reason&lt;0><td>4\n");
}

static void without_dead_letters_it_says_none(void **state)
{
    (void)state;
    reasons = 0;
    sees(view(SECOND_NS), "Dead letters by reason, since the data folder began</h2>\n<p class=\"dim\">none</p>");
}

/* 32 rows; the last takes what comes beyond. */
static void tables_have_a_limit(void **state)
{
    (void)state;
    reasons = 40;
    const char *page = view(SECOND_NS);
    sees(page, "<tr><td>reason&lt;30><td>4\n");
    sees(page, "<tr><td>reason&lt;31><td>36\n");
    assert_null(strstr(page, "reason&lt;32>"));
}

static void times_are_percentiles(void **state)
{
    (void)state;
    sees(view(SECOND_NS), "durable result<td>-<td>-<td>-<td>0\n");
    for (int i = 0; i < 1000; i++)
        histogram_record(&histogram, 1024);
    histogram_record(&histogram, SECOND_NS);
    sees(view(SECOND_NS), "durable result<td>0.001<td>0.001<td>1000.000<td>1,001\n");
}

/* At first over the time since the start; then over the last ten to twenty seconds, where somebody has looked. */
static void rates_are_those_of_now(void **state)
{
    (void)state;
    holes = 90061;
    sees(view(100 * SECOND_NS), "(over 90062 s)");
    sees(buffer_text(&body), "<b>1.0</b>holes/s");
    holes += 50;
    sees(view(105 * SECOND_NS), "(over 5 s)");
    sees(buffer_text(&body), "<b>10.0</b>holes/s");
    holes += 100;
    sees(view(110 * SECOND_NS), "(over 10 s)");
    sees(buffer_text(&body), "<b>15.0</b>holes/s");
    sees(view(115 * SECOND_NS), "(over 15 s)");
    sees(view(120 * SECOND_NS), "(over 20 s)");
    sees(view(125 * SECOND_NS), "(over 15 s)"); /* since the view at 110 s */
    sees(buffer_text(&body), "<b>0.0</b>holes/s");
}

static void a_page_without_room_is_an_error(void **state)
{
    (void)state;
    struct overview_facts facts = {"1.2.3", 1, SECOND_NS, NULL, 0};
    struct buffer small;
    buffer_init(&small, 1000);
    assert_int_equal(overview_write(&small, &facts, &marks), ERR_LIMIT);
    buffer_fini(&small);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_says_how_it_is),     TEST(sums_are_checked),       TEST(without_dead_letters_it_says_none), TEST(tables_have_a_limit),
        TEST(times_are_percentiles), TEST(rates_are_those_of_now), TEST(a_page_without_room_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
