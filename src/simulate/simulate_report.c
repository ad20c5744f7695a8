#include "simulate/simulate_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/terminal.h"

enum { JSON_LIMIT = 1 << 20, REMARK_MAX = 200, GROUPED_MAX = 32 };

struct rates { /* of the whole run, from the first message to the last answer */
    double seconds, holes_per_s, messages_per_s, megabytes_per_s;
};

static struct rates compute_rates(const struct simulation *simulation)
{
    const struct simulate_tally *tally = simulation->tally;
    uint64_t end_ns = tally->last_answer_ns > tally->first_message_ns ? tally->last_answer_ns : tally->last_progress_ns;
    struct rates rates = {0};
    if (tally->first_message_ns == 0 || end_ns <= tally->first_message_ns)
        return rates;
    rates.seconds = (double)(end_ns - tally->first_message_ns) / 1e9;
    rates.holes_per_s = (double)simulation->ledger.answered / rates.seconds;
    rates.messages_per_s = (double)tally->messages_sent / rates.seconds;
    rates.megabytes_per_s = (double)tally->payload_bytes / 1e6 / rates.seconds;
    return rates;
}

/* 1234567 as 1,234,567. */
static const char *grouped(uint64_t number, char text[GROUPED_MAX])
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%" PRIu64, number);
    char *at = text;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0)
            *at++ = ',';
        *at++ = digits[i];
    }
    *at = '\0';
    return text;
}

static double milliseconds(const struct histogram *histogram, double fraction)
{
    return (double)histogram_quantile(histogram, fraction) / 1e6;
}

/* ---- for a person ---- */

void simulate_report_progress(const struct simulation *simulation, uint64_t now_ns)
{
    char sent[GROUPED_MAX], answered[GROUPED_MAX];
    double elapsed_s = simulation->begin_ns ? (double)(now_ns - simulation->begin_ns) / 1e9 : 0;
    if (simulation->receiver_since_ns == 0) {
        terminal_progress("%5.1f s  waiting for the server: %s", elapsed_s, simulation->problem[0] ? simulation->problem : "connecting");
        return;
    }
    terminal_progress("%5.1f s  %s holes drilled, %s answered, %.0f a second, half within %.1f ms, %" PRIu32 " under way", elapsed_s,
                      grouped(simulation->holes_sent, sent), grouped(simulation->ledger.answered, answered),
                      compute_rates(simulation).holes_per_s, milliseconds(&simulation->tally->answer_ns, 0.5),
                      simulation->ledger.unanswered);
}

static void print_line(const char *name, uint64_t count, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void print_line(const char *name, uint64_t count, const char *format, ...)
{
    char text[GROUPED_MAX], remark[REMARK_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(remark, sizeof remark, format, arguments);
    va_end(arguments);
    printf("  %-28s %12s%s%s\n", name, grouped(count, text), remark[0] ? "   " : "", remark);
}

/* A line only where there is something to say. */
static void print_if(const char *name, uint64_t count, const char *remark)
{
    if (count)
        print_line(name, count, "%s", remark);
}

static void print_counts(const struct simulation *simulation)
{
    const struct simulate_tally *tally = simulation->tally;
    const struct simulate_ledger *ledger = &simulation->ledger;
    struct rates rates = compute_rates(simulation);
    print_line("holes drilled", simulation->holes_sent, "by %u tools", simulation->options->tools);
    print_line("answered", ledger->answered, "%.0f a second over %.1f s", rates.holes_per_s, rates.seconds);
    print_line("  with an estimate", tally->estimates, "%s", "");
    print_line("  with an error", tally->error_answers, "%s", "");
    print_if("    of complete holes", tally->unexpected_errors, "drilled through, so that an estimate was to be expected");
    print_line("lost", ledger->lost, "%s", ledger->lost ? "no answer came in time" : "");
    print_if("  perhaps unseen", tally->unseen, "answered while this receiver was cut off, or lost");
    print_if("answered after being lost", ledger->recovered, "");
    print_line("messages", tally->messages_sent, "%.0f a second, %.1f MB a second", rates.messages_per_s, rates.megabytes_per_s);
    print_if("  refused by the server", tally->messages_refused, "");
    print_if("  never acknowledged", tally->unacknowledged, "");
    print_if("  sent again", tally->messages_sent_again, "their connection was lost before the acknowledgement");
    print_if("  sent twice on purpose", tally->duplicates_sent, "");
    print_if("  malformed on purpose", tally->malformed_sent, "");
    print_if("  late heads", tally->late_heads_sent, "");
    print_if("holes without heads", tally->without_heads, "");
    print_if("answers received twice", tally->duplicates_received, "");
    print_if("answers to malformed", tally->answers_to_malformed + tally->answers_without_id, "");
    print_if("answers of other tools", tally->foreign_answers, "");
    print_if("WRONG: unreadable answers", tally->unreadable_answers, "");
    print_if("WRONG: stamp, tool, machine", tally->wrong_identity, "an answer names another hole than its ResultId");
    print_if("WRONG: head", tally->wrong_head, "an answer names another head than the hole's");
    print_if("times the server went away", tally->outages, "");
}

static void print_latency(const char *title, const struct histogram *histogram)
{
    if (histogram->count == 0)
        return;
    printf("\n%s\n", title);
    printf("  half within %.1f ms   90 %% within %.1f ms   99 %% within %.1f ms   slowest %.1f ms\n", milliseconds(histogram, 0.5),
           milliseconds(histogram, 0.9), milliseconds(histogram, 0.99), (double)histogram->max / 1e6);
}

static bool has_errors(const struct simulate_tally *tally)
{
    uint64_t count = 0;
    for (int shape = 0; shape < SIMULATE_MEASURED_SHAPES; shape++)
        count += tally->errors[shape][SIMULATE_EXIT].count;
    return count > 0;
}

static void print_errors(const struct simulate_tally *tally)
{
    if (!has_errors(tally))
        return;
    printf("\nEstimate minus truth, in mm (the truth: where the tip touches a surface)\n");
    printf("  %-12s %-12s %9s %9s %9s %9s %9s\n", "curves", "point", "holes", "offset", "spread", "half <", "95 % <");
    for (int shape = 0; shape < SIMULATE_MEASURED_SHAPES; shape++) {
        for (int point = 0; point < SIMULATE_POINT_COUNT; point++) {
            const struct simulate_errors *errors = &tally->errors[shape][point];
            char count[GROUPED_MAX];
            if (errors->count == 0)
                continue;
            printf("  %-12s %-12s %9s %+9.3f %9.3f %9.3f %9.3f\n", simulator_shape_name((enum simulator_shape)shape),
                   simulate_point_name((enum simulate_point)point), grouped(errors->count, count), errors->mean_mm,
                   simulate_errors_deviation(errors), (double)histogram_quantile(&errors->absolute_um, 0.5) / 1000,
                   (double)histogram_quantile(&errors->absolute_um, 0.95) / 1000);
        }
    }
    printf("  A steady offset of about one tip (%.1f mm) is the method's: it marks where the whole diameter is through.\n",
           SIMULATOR_TIP_MM);
}

static void print_texts(const struct simulate_tally *tally)
{
    if (tally->text_count == 0)
        return;
    printf("\nAnswers with an error\n");
    for (unsigned i = 0; i < tally->text_count; i++)
        print_line("", tally->texts[i].count, "%s", tally->texts[i].text);
    print_if("", tally->other_texts, "with other texts");
}

static void print_summary(const struct simulation *simulation, bool interrupted)
{
    const struct simulate_options *options = simulation->options;
    const struct simulate_tally *tally = simulation->tally;
    printf("%sDrilling against %s:%u%s\n", interrupted ? "(interrupted) " : "", options->host, options->port,
           options->rate > 0 ? "" : ", as fast as it goes");
    print_counts(simulation);
    print_latency("From the last message of a hole to its complete answer", &tally->answer_ns);
    print_latency("The same where the heads message was missing or late (the server waits for it a while)", &tally->answer_headless_ns);
    print_latency("From a message to its acknowledgement", &tally->acknowledge_ns);
    print_errors(tally);
    print_texts(tally);
    if (tally->answers_received == 0 && simulation->holes_sent)
        printf("\nNo answer came at all. Is the server at %s:%u Spindle, and does it use the topic root `%s`?\n", options->host,
               options->port, simulation->topics.root);
}

/* ---- for a program ---- */

static void json_latency(struct buffer *out, const char *name, const struct histogram *histogram)
{
    buffer_printf(out, ", \"%s\": {\"count\": %" PRIu64 ", \"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"p999\": %.3f, \"max\": %.3f}",
                  name, histogram->count, milliseconds(histogram, 0.5), milliseconds(histogram, 0.9), milliseconds(histogram, 0.99),
                  milliseconds(histogram, 0.999), (double)histogram->max / 1e6);
}

static void json_counts(struct buffer *out, const struct simulation *simulation)
{
    const struct simulate_tally *tally = simulation->tally;
    const struct simulate_ledger *ledger = &simulation->ledger;
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"holes_sent", simulation->holes_sent},
        {"holes_answered", ledger->answered},
        {"holes_with_estimate", tally->estimates},
        {"holes_with_error", tally->error_answers},
        {"holes_with_unexpected_error", tally->unexpected_errors},
        {"holes_lost", ledger->lost},
        {"holes_perhaps_unseen", tally->unseen},
        {"holes_recovered", ledger->recovered},
        {"messages_sent", tally->messages_sent},
        {"messages_acknowledged", tally->messages_acknowledged},
        {"messages_unacknowledged", tally->unacknowledged},
        {"messages_refused", tally->messages_refused},
        {"messages_sent_again", tally->messages_sent_again},
        {"duplicates_sent", tally->duplicates_sent},
        {"malformed_sent", tally->malformed_sent},
        {"late_heads_sent", tally->late_heads_sent},
        {"holes_without_heads", tally->without_heads},
        {"payload_bytes", tally->payload_bytes},
        {"answers_received", tally->answers_received},
        {"duplicates_received", tally->duplicates_received},
        {"answers_to_malformed", tally->answers_to_malformed},
        {"answers_without_id", tally->answers_without_id},
        {"foreign_answers", tally->foreign_answers},
        {"unreadable_answers", tally->unreadable_answers},
        {"wrong_identity", tally->wrong_identity},
        {"wrong_head", tally->wrong_head},
        {"outages", tally->outages},
        {"connections_lost", tally->connections_lost},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        buffer_printf(out, ", \"%s\": %" PRIu64, counts[i].name, counts[i].value);
}

static void json_errors(struct buffer *out, const struct simulate_tally *tally)
{
    const char *comma = "";
    buffer_append_text(out, ", \"estimate_errors_mm\": [");
    for (int shape = 0; shape < SIMULATE_MEASURED_SHAPES; shape++) {
        for (int point = 0; point < SIMULATE_POINT_COUNT; point++) {
            const struct simulate_errors *errors = &tally->errors[shape][point];
            if (errors->count == 0)
                continue;
            buffer_printf(out,
                          "%s{\"shape\": \"%s\", \"point\": \"%s\", \"count\": %" PRIu64
                          ", \"bias\": %.6f, \"sd\": %.6f, \"p50\": %.3f, \"p95\": %.3f, \"max\": %.6f}",
                          comma, simulator_shape_name((enum simulator_shape)shape), simulate_point_name((enum simulate_point)point),
                          errors->count, errors->mean_mm, simulate_errors_deviation(errors),
                          (double)histogram_quantile(&errors->absolute_um, 0.5) / 1000,
                          (double)histogram_quantile(&errors->absolute_um, 0.95) / 1000, errors->max_mm);
            comma = ", ";
        }
    }
    buffer_append_text(out, "]");
}

static void json_texts(struct buffer *out, const struct simulate_tally *tally)
{
    buffer_append_text(out, ", \"error_texts\": [");
    for (unsigned i = 0; i < tally->text_count; i++) {
        buffer_append_text(out, i ? ", {\"text\": " : "{\"text\": ");
        buffer_append_json_string(out, tally->texts[i].text, strlen(tally->texts[i].text), 0);
        buffer_printf(out, ", \"count\": %" PRIu64 "}", tally->texts[i].count);
    }
    buffer_append_text(out, "]");
}

static void print_json(const struct simulation *simulation, const char *problem, bool interrupted)
{
    const struct simulate_tally *tally = simulation->tally;
    struct rates rates = compute_rates(simulation);
    struct buffer out;
    buffer_init(&out, JSON_LIMIT);
    buffer_printf(&out,
                  "{\"seconds\": %.6f, \"holes_per_s\": %.3f, \"messages_per_s\": %.3f, \"megabytes_per_s\": %.3f, \"interrupted\": %s",
                  rates.seconds, rates.holes_per_s, rates.messages_per_s, rates.megabytes_per_s, interrupted ? "true" : "false");
    json_counts(&out, simulation);
    json_latency(&out, "answer_ms", &tally->answer_ns);
    json_latency(&out, "answer_without_heads_ms", &tally->answer_headless_ns);
    json_latency(&out, "acknowledge_ms", &tally->acknowledge_ns);
    json_errors(&out, tally);
    json_texts(&out, tally);
    buffer_append_text(&out, ", \"problem\": ");
    buffer_append_json_string(&out, problem, strlen(problem), 0);
    buffer_append_text(&out, "}\n");
    fwrite(out.data, 1, out.length, stdout);
    buffer_fini(&out);
}

void simulate_report_summary(const struct simulation *simulation, const char *problem, bool interrupted)
{
    if (simulation->options->json)
        print_json(simulation, problem, interrupted);
    else if (simulation->begin_ns)
        print_summary(simulation, interrupted);
    fflush(stdout);
}
