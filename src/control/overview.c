/* Two passes: the metrics are read into one struct, then it is written. */
#include "control/overview.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/histogram.h"
#include "base/metrics.h"
#include "base/probes.h"

enum { WORD_SIZE = 32, ROWS_MAX = 32, REFRESH_S = 5, MARK_S = 10, NUMBER_SIZE = 40 };

enum term { TERM_ACCEPTED, TERM_COMPLETED, TERM_DUPLICATES, TERM_DEAD, TERM_PENDING, TERM_COUNT };

struct row { /* of a table: a stream with its terms, or a word with a count */
    char word[WORD_SIZE];
    double terms[TERM_COUNT];
};

struct table {
    struct row rows[ROWS_MAX];
    unsigned count;
};

struct spread { /* of a histogram, ms */
    uint64_t count;
    double half, most, largest;
};

struct overview {
    struct table streams, reasons, outcomes, drops;
    struct spread answers, syncs;
    double holes, messages; /* since the start */
    double values[METRIC_COUNT];
};

/* ---- reading ---- */

static const char *label(const char *const *labels, const char *name)
{
    for (; *labels; labels += 2)
        if (strcmp(labels[0], name) == 0)
            return labels[1];
    return "";
}

/* The row of this word; beyond ROWS_MAX the last one takes the rest. */
static struct row *row_of(struct table *table, const char *word)
{
    for (unsigned i = 0; i < table->count; i++)
        if (strcmp(table->rows[i].word, word) == 0)
            return &table->rows[i];
    if (table->count == ROWS_MAX)
        return &table->rows[ROWS_MAX - 1];
    struct row *row = &table->rows[table->count++];
    snprintf(row->word, sizeof row->word, "%s", word);
    return row;
}

static void take_term(struct overview *overview, enum term term, double value, const char *const *labels)
{
    row_of(&overview->streams, label(labels, "stream"))->terms[term] += value;
    if (term == TERM_DEAD && value > 0)
        row_of(&overview->reasons, label(labels, "reason"))->terms[0] += value;
}

static void take_sample(void *context, enum metric metric, double value, const char *const *labels)
{
    struct overview *overview = context;
    overview->values[metric] += value;
    switch (metric) {
    case METRIC_ACCEPTED:
        take_term(overview, TERM_ACCEPTED, value, labels);
        break;
    case METRIC_COMPLETED:
        take_term(overview, TERM_COMPLETED, value, labels);
        break;
    case METRIC_DUPLICATES:
        take_term(overview, TERM_DUPLICATES, value, labels);
        break;
    case METRIC_DEAD_LETTERED:
        take_term(overview, TERM_DEAD, value, labels);
        break;
    case METRIC_PENDING:
        take_term(overview, TERM_PENDING, value, labels);
        break;
    case METRIC_DRILLING_HOLES:
        row_of(&overview->outcomes, label(labels, "outcome"))->terms[0] += value;
        overview->holes += value;
        break;
    case METRIC_BUS_RECEIVED:
        overview->messages += value;
        break;
    case METRIC_BUS_DROPPED:
    case METRIC_DRILLING_DROPPED:
        if (value > 0)
            row_of(&overview->drops, label(labels, "reason"))->terms[0] += value;
        break;
    default:
        break;
    }
}

static void take_histogram(void *context, enum metric metric, const struct histogram *histogram)
{
    struct overview *overview = context;
    struct spread *spread = metric == METRIC_DRILLING_DURATION ? &overview->answers
                            : metric == METRIC_JOURNAL_SYNC    ? &overview->syncs
                                                               : NULL;
    if (!spread)
        return;
    *spread = (struct spread){.count = histogram->count,
                              .half = (double)histogram_quantile(histogram, 0.5) / 1e6,
                              .most = (double)histogram_quantile(histogram, 0.99) / 1e6,
                              .largest = (double)histogram->max / 1e6};
}

/* ---- a second ---- */

struct rates {
    double holes, messages, seconds; /* the first two per second, over `seconds` */
};

/* Against the older mark, so that two viewers do not shorten each other's time. */
static struct rates rates_since(struct overview_marks *marks, const struct overview *overview, const struct overview_facts *facts)
{
    struct overview_mark now = {facts->now_ns, overview->holes, overview->messages}, then = marks->older;
    struct rates rates = {.seconds = then.at_ns ? (double)(now.at_ns - then.at_ns) / 1e9 : facts->uptime_s};
    if (rates.seconds > 0) {
        rates.holes = (now.holes - then.holes) / rates.seconds;
        rates.messages = (now.messages - then.messages) / rates.seconds;
    }
    if (marks->newer.at_ns == 0 || now.at_ns - marks->newer.at_ns >= (uint64_t)MARK_S * 1000000000) {
        marks->older = marks->newer.at_ns ? marks->newer : now;
        marks->newer = now;
    }
    return rates;
}

/* ---- writing ---- */

static int append_html(struct buffer *body, const char *text, size_t length)
{
    int error = 0;
    for (size_t i = 0; i < length && !error; i++) {
        if (text[i] == '&')
            error = buffer_append_text(body, "&amp;");
        else if (text[i] == '<')
            error = buffer_append_text(body, "&lt;");
        else
            error = buffer_append(body, text + i, 1);
    }
    return error;
}

/* 1234567 as 1,234,567. */
static const char *grouped(double number, char text[NUMBER_SIZE])
{
    char digits[NUMBER_SIZE];
    int length = snprintf(digits, sizeof digits, "%.0f", number);
    char *at = text;
    for (int i = 0; i < length && at < text + NUMBER_SIZE - 3; i++) {
        if (i && (length - i) % 3 == 0 && digits[i - 1] != '-')
            *at++ = ',';
        *at++ = digits[i];
    }
    *at = '\0';
    return text;
}

static const char head_style[] =
    "<style>\n"
    ":root{color-scheme:light dark;--line:#8884;--good:#18794e;--bad:#c62a2f;--dim:#777}\n"
    "@media(prefers-color-scheme:dark){:root{--good:#3dd68c;--bad:#ff8589;--dim:#999}}\n"
    "body{font:15px/1.45 system-ui,sans-serif;margin:1.5em auto;max-width:60em;padding:0 1em}\n"
    "h1{font-size:1.35em;margin:0}h2{font-size:1em;margin:1.6em 0 .3em}p{margin:.3em 0}\n"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:.2em .9em .2em 0;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}\n"
    "th{font-weight:600;color:var(--dim)}th:first-child,td:first-child,.text td{text-align:left}\n"
    ".good{color:var(--good)}.bad{color:var(--bad);font-weight:600}.dim{color:var(--dim)}\n"
    ".figures{display:flex;flex-wrap:wrap;gap:.3em 2.2em}.figures b{display:block;font-size:1.5em;font-variant-numeric:tabular-nums}\n"
    ".wide{overflow-x:auto}\n"
    "</style>\n";

static int write_head(struct buffer *body, const struct overview_facts *facts, bool ready)
{
    unsigned long seconds = (unsigned long)facts->uptime_s;
    int error = buffer_printf(body,
                              "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                              "<meta name=\"viewport\" content=\"width=device-width\"><meta http-equiv=\"refresh\" content=\"%d\">"
                              "<title>%sSpindle</title>\n",
                              REFRESH_S, ready ? "" : "NOT READY - ");
    error = error ? error : buffer_append_text(body, head_style);
    error = error ? error : buffer_append_text(body, "</head><body>\n<h1>Spindle ");
    error = error ? error : append_html(body, facts->version, strlen(facts->version));
    return error
               ? error
               : buffer_printf(body,
                               ": <span class=\"%s\">%s</span></h1>\n<p class=\"dim\">running for %lu d %02lu:%02lu:%02lu; this page asks "
                               "again every %d s</p>\n",
                               ready ? "good" : "bad", ready ? "ready" : "not ready", seconds / 86400, seconds / 3600 % 24,
                               seconds / 60 % 60, seconds % 60, REFRESH_S);
}

static int write_probe(void *context, const char *name, bool ready, const char *text, size_t length)
{
    struct buffer *body = context;
    int error = buffer_printf(body, "<tr><td>%s<td class=\"%s\">%s<td>", name, ready ? "good" : "bad", ready ? "ready" : "not ready");
    error = error ? error : append_html(body, text, length);
    return error ? error : buffer_append_text(body, "\n");
}

static int write_figure(struct buffer *body, const char *name, const char *format, double value)
{
    char number[NUMBER_SIZE];
    if (format)
        snprintf(number, sizeof number, format, value);
    else
        grouped(value, number);
    return buffer_printf(body, "<p><b>%s</b>%s</p>\n", number, name);
}

static int write_figures(struct buffer *body, const struct overview *overview, const struct rates *rates)
{
    int error = buffer_printf(body, "<h2>Now <span class=\"dim\">(over %.0f s)</span></h2>\n<div class=\"figures\">\n", rates->seconds);
    error = error ? error : write_figure(body, "holes/s answered", "%.1f", rates->holes);
    error = error ? error : write_figure(body, "messages/s received", NULL, rates->messages);
    error = error ? error : write_figure(body, "durable, not read yet", NULL, overview->values[METRIC_PIPELINE_LAG]);
    error = error ? error : write_figure(body, "holes that wait for a message", NULL, overview->values[METRIC_PIPELINE_OPEN_SETS]);
    error = error ? error : write_figure(body, "connections", NULL, overview->values[METRIC_BUS_CONNECTIONS]);
    error = error ? error : write_figure(body, "subscriptions", NULL, overview->values[METRIC_BUS_SUBSCRIPTIONS]);
    error = error ? error : write_figure(body, "MiB of memory", NULL, overview->values[METRIC_PROCESS_MEMORY] / (1 << 20));
    error = error ? error : write_figure(body, "open files", NULL, overview->values[METRIC_PROCESS_FDS]);
    return error ? error : buffer_append_text(body, "</div>\n");
}

static int write_streams(struct buffer *body, const struct table *streams)
{
    int error = buffer_append_text(body, "<h2>Messages, since the data folder began</h2>\n<div class=\"wide\"><table>\n"
                                         "<tr><th>stream<th>accepted =<th>completed +<th>duplicates +<th>dead letters +<th>pending<th>\n");
    for (unsigned i = 0; i < streams->count && !error; i++) {
        const double *terms = streams->rows[i].terms;
        double sum = terms[TERM_COMPLETED] + terms[TERM_DUPLICATES] + terms[TERM_DEAD] + terms[TERM_PENDING];
        bool holds = terms[TERM_ACCEPTED] == sum;
        char text[NUMBER_SIZE];
        error = buffer_append_text(body, "<tr><td>");
        error = error ? error : append_html(body, streams->rows[i].word, strlen(streams->rows[i].word));
        for (int term = 0; term < TERM_COUNT && !error; term++)
            error = buffer_printf(body, "<td>%s", grouped(terms[term], text));
        error = error ? error : buffer_printf(body, "<td class=\"%s\">%s\n", holds ? "good" : "bad", holds ? "holds" : "does not hold");
    }
    return error ? error : buffer_append_text(body, "</table></div>\n");
}

static int write_spread(struct buffer *body, const char *name, const struct spread *spread)
{
    char text[NUMBER_SIZE];
    return spread->count ? buffer_printf(body, "<tr><td>%s<td>%.3f<td>%.3f<td>%.3f<td>%s\n", name, spread->half, spread->most,
                                         spread->largest, grouped((double)spread->count, text))
                         : buffer_printf(body, "<tr><td>%s<td>-<td>-<td>-<td>0\n", name);
}

static int write_spreads(struct buffer *body, const struct overview *overview)
{
    int error = buffer_append_text(body, "<h2>Times, since the start</h2>\n<div class=\"wide\"><table>\n"
                                         "<tr><th>ms<th>half below<th>99 % below<th>largest<th>count\n");
    error = error ? error : write_spread(body, "from the last message of a hole to its durable result", &overview->answers);
    error = error ? error : write_spread(body, "write and sync of a journal group", &overview->syncs);
    return error ? error : buffer_append_text(body, "</table></div>\n");
}

/* A table of words and counts; `none` where it is empty. */
static int write_counts(struct buffer *body, const char *title, const struct table *table, const char *none)
{
    int error = buffer_printf(body, "<h2>%s</h2>\n", title);
    if (table->count == 0)
        return error ? error : buffer_printf(body, "<p class=\"dim\">%s</p>\n", none);
    error = error ? error : buffer_append_text(body, "<table>\n");
    for (unsigned i = 0; i < table->count && !error; i++) {
        char text[NUMBER_SIZE];
        error = buffer_append_text(body, "<tr><td>");
        error = error ? error : append_html(body, table->rows[i].word, strlen(table->rows[i].word));
        error = error ? error : buffer_printf(body, "<td>%s\n", grouped(table->rows[i].terms[0], text));
    }
    return error ? error : buffer_append_text(body, "</table>\n");
}

static int write_links(struct buffer *body, const struct overview_facts *facts)
{
    int error = buffer_append_text(body, "<h2>More</h2>\n<table class=\"text\">\n");
    for (unsigned i = 0; i < facts->link_count && !error; i++)
        error =
            buffer_printf(body, "<tr><td><a href=\"%s\">%s</a><td>%s\n", facts->links[i].path, facts->links[i].path, facts->links[i].title);
    return error ? error
                 : buffer_append_text(body, "<tr><td>spindle dead ls<td>Dead letters, each with its reason and error\n"
                                            "<tr><td>spindle journal audit<td>The same sums, counted again from the files\n"
                                            "</table>\n</body></html>\n");
}

int overview_write(struct buffer *body, const struct overview_facts *facts, struct overview_marks *marks)
{
    struct overview *overview = calloc(1, sizeof *overview);
    if (!overview)
        return ERR_NO_MEMORY;
    struct buffer probes;
    bool ready = true;
    buffer_init(&probes, body->limit);
    int error = metrics_read(&(struct metrics_reader){take_sample, take_histogram, overview});
    error = error ? error : probes_read(write_probe, &probes, &ready);
    struct rates rates = rates_since(marks, overview, facts);
    error = error ? error : write_head(body, facts, ready);
    error = error ? error : buffer_append_text(body, "<div class=\"wide\"><table class=\"text\">\n");
    error = error ? error : buffer_append(body, probes.data, probes.length);
    error = error ? error : buffer_append_text(body, "</table></div>\n");
    error = error ? error : write_figures(body, overview, &rates);
    error = error ? error : write_streams(body, &overview->streams);
    error = error ? error : write_spreads(body, overview);
    error = error ? error : write_counts(body, "Dead letters by reason, since the data folder began", &overview->reasons, "none");
    error = error ? error : write_counts(body, "Holes by outcome, since the start", &overview->outcomes, "none yet");
    error = error ? error : write_counts(body, "QoS 0 messages dropped, since the start", &overview->drops, "none");
    error = error ? error : write_links(body, facts);
    buffer_fini(&probes);
    free(overview);
    return error;
}
