/* `spindle dead`: ls and show read the files alone; requeue and purge ask the server that runs on the folder, or, when none does, open the
 * folder themselves. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "base/terminal.h"
#include "cli/command.h"
#include "cli/dead/files.h"
#include "cli/dead/http.h"
#include "cli/dead/json.h"
#include "cli/dead/offline.h"
#include "cli/dead/work.h"
#include "cli/journal/tool.h"
#include "cli/server_ask.h"
#include "config/settings.h"

enum { ANSWER_MAX = 1 << 20, REQUEST_MAX = 16 << 10 };

/* ---- what was asked ---- */

/* The filter as texts of the command line; NULL where it is not given. */
struct filter_texts {
    const char *reason, *tool, *since, *until, *offset;
};

#define FILTER_TEXTS(arguments)                                                                                                            \
    (struct filter_texts)                                                                                                                  \
    {                                                                                                                                      \
        (arguments)->reason, (arguments)->tool, (arguments)->since, (arguments)->until, (arguments)->offset                                \
    }

/* The exit status. */
static int read_filter(const char *command, const struct filter_texts *texts, struct dead_filter *filter)
{
    char message[VALUE_MESSAGE_MAX];
    uint64_t now_ns = clock_wall_ns();
    const char *option = NULL;
    dead_filter_init(filter);
    if (texts->reason && dead_filter_set_reason(filter, texts->reason, message))
        option = "--reason";
    else if (texts->tool && dead_filter_set_tool(filter, texts->tool, message))
        option = "--tool";
    else if (texts->since && dead_filter_parse_time(&filter->since_ns, texts->since, now_ns, message))
        option = "--since";
    else if (texts->until && dead_filter_parse_time(&filter->until_ns, texts->until, now_ns, message))
        option = "--until";
    else if (texts->offset && dead_filter_set_offsets(filter, texts->offset, message))
        option = "--offset";
    if (!option)
        return COMMAND_OK;
    int status = tool_refuse(command, "%s: %s", option, message);
    for (unsigned i = 1; i < REASON_COUNT && strcmp(option, "--reason") == 0; i++)
        fprintf(stderr, "  %-14s %s\n", reason_word(i), reason_help(i));
    return status;
}

/* ---- looking ---- */

static void append_text(struct buffer *line, const struct message *record, const struct dead_letter *letter, const char *state)
{
    char time_text[CLOCK_TEXT_SIZE];
    clock_wall_text(letter->time_ns, time_text);
    buffer_printf(line, "%" PRIu64 " %s %-14s ", record->offset, time_text, letter->reason);
    buffer_append_showable(line, record->topic, record->topic_length);
    buffer_printf(line, " (%u byte%s)", record->payload_length, record->payload_length == 1 ? "" : "s");
    if (letter->attempts > 1)
        buffer_printf(line, ", attempt %u", letter->attempts);
    if (strcmp(state, "open") != 0)
        buffer_printf(line, ", %s", state);
    buffer_append_text(line, "\n      ");
    buffer_append_showable(line, letter->error, strlen(letter->error));
    buffer_append_text(line, "\n");
}

static bool print_letter(struct buffer *line, const struct dead_files *files, const struct message *record,
                         const struct dead_letter *letter, bool json)
{
    const char *state = dead_files_state(files, record->offset);
    buffer_clear(line);
    if (json) {
        dead_json_write(line, record, letter, state, UINT32_MAX);
        buffer_append_text(line, "\n");
    } else {
        append_text(line, record, letter, state);
    }
    return tool_emit(line);
}

/* Goes through those that match, and prints them where `print` is set. *count of them there are, *tried of them attempts_max times or more.
 */
static int go_through(struct dead_files *files, const struct dead_filter *filter, bool open_only, unsigned attempts_max, bool print,
                      bool json, uint64_t *count, uint64_t *tried)
{
    struct buffer line;
    struct message record;
    struct dead_letter letter;
    bool written = true;
    int error = 0;
    *count = *tried = 0;
    buffer_init(&line, TOOL_LINE_MAX);
    while (written && !(error = dead_files_next(files, filter, open_only, &record, &letter))) {
        if (print)
            written = print_letter(&line, files, &record, &letter, json);
        *count += 1;
        *tried += letter.attempts >= attempts_max;
    }
    buffer_fini(&line);
    return error == ERR_TRUNCATED ? 0 : error;
}

int command_dead_ls(const struct dead_ls_arguments *arguments)
{
    static const char command[] = "spindle dead ls";
    struct dead_filter filter;
    struct dead_files files;
    uint64_t count, tried;
    tool_begin_output();
    int status = read_filter(command, &FILTER_TEXTS(arguments), &filter);
    if (status)
        return status;
    int error = dead_files_open(&files, arguments->data_dir, &filter);
    if (error)
        return tool_refuse_folder(command, arguments->data_dir, ledger_marks_stream, error);
    error = go_through(&files, &filter, !arguments->all, UINT32_MAX, true, arguments->json, &count, &tried);
    status = files.damaged ? COMMAND_FAILED : COMMAND_OK;
    if (error)
        status = tool_refuse_folder(command, arguments->data_dir, ledger_marks_stream, error);
    else if (!arguments->json && count == 0)
        printf("no %sdead letters%s\n", arguments->all ? "" : "open ", dead_filter_is_empty(&filter) ? "" : " match");
    dead_files_close(&files);
    return command_finish_output(command, status);
}

static void print_whole(struct buffer *line, const struct dead_files *files, const struct message *record, const struct dead_letter *letter)
{
    char died[CLOCK_TEXT_SIZE], arrived[CLOCK_TEXT_SIZE], first[CLOCK_TEXT_SIZE];
    clock_wall_text(record->time_ns, died);
    clock_wall_text(letter->time_ns, arrived);
    clock_wall_text(letter->first_time_ns, first);
    buffer_printf(line, "offset    %" PRIu64 "\nstate     %s\nreason    %s (%s)\nerror     ", record->offset,
                  dead_files_state(files, record->offset), letter->reason, letter->stage);
    buffer_append_showable(line, letter->error, strlen(letter->error));
    buffer_printf(line, "\ngiven up  %s\nattempts  %u", died, letter->attempts);
    if (letter->previous_reason[0])
        buffer_printf(line, ", the time before: %s", letter->previous_reason);
    buffer_printf(line, "\nmessage   %s offset %" PRIu64 ", %s\nfirst     offset %" PRIu64 ", %s\ntopic     ", letter->stream,
                  letter->offset, arrived, letter->first_offset, first);
    buffer_append_showable(line, record->topic, record->topic_length);
    buffer_printf(line, "\npayload   %u byte%s\n\n", record->payload_length, record->payload_length == 1 ? "" : "s");
    buffer_append_showable(line, (const char *)record->payload, record->payload_length);
    buffer_append_text(line, "\n");
}

int command_dead_show(const struct dead_show_arguments *arguments)
{
    static const char command[] = "spindle dead show";
    struct dead_filter filter;
    struct dead_files files;
    struct message record;
    struct dead_letter letter;
    char message[VALUE_MESSAGE_MAX];
    tool_begin_output();
    dead_filter_init(&filter);
    if (dead_filter_set_offsets(&filter, arguments->offset, message) || filter.range_count != 1 ||
        filter.ranges[0].first != filter.ranges[0].last)
        return tool_refuse(command, "expected the offset of a dead letter, found `%s`", arguments->offset);
    int error = dead_files_open(&files, arguments->data_dir, &filter);
    if (error)
        return tool_refuse_folder(command, arguments->data_dir, ledger_marks_stream, error);
    error = dead_files_next(&files, &filter, false, &record, &letter);
    struct buffer line;
    buffer_init(&line, TOOL_LINE_MAX);
    int status = files.damaged ? COMMAND_FAILED : COMMAND_OK;
    if (error == ERR_TRUNCATED) {
        fprintf(stderr, "%s: there is no dead letter at offset %s\n", command, arguments->offset);
        status = COMMAND_FAILED;
    } else if (error) {
        status = tool_refuse_folder(command, arguments->data_dir, ledger_marks_stream, error);
    } else if (arguments->raw) {
        buffer_append(&line, record.payload, record.payload_length);
        tool_emit(&line);
    } else if (arguments->json) {
        print_letter(&line, &files, &record, &letter, true);
    } else {
        print_whole(&line, &files, &record, &letter);
        tool_emit(&line);
    }
    buffer_fini(&line);
    dead_files_close(&files);
    return command_finish_output(command, status);
}

/* ---- doing ---- */

struct doing {
    const char *command, *data_dir;
    struct dead_request request;
    struct dead_done sum;
    uint64_t expected; /* how many match, counted from the files before */
    bool json;
};

static const char *word_of(const struct doing *doing)
{
    return doing->request.action == DEAD_REQUEUE ? "requeued" : "purged";
}

static void add(struct doing *doing, const struct dead_done *done)
{
    doing->sum.matched += done->matched;
    doing->sum.done += done->done;
    doing->sum.refused += done->refused;
    doing->request.from = done->next;
    terminal_progress("%" PRIu64 " of %" PRIu64 " %s", doing->sum.done, doing->expected, word_of(doing));
}

__attribute__((format(printf, 2, 3))) static int fail(const struct doing *doing, const char *format, ...)
{
    va_list arguments;
    terminal_progress_end();
    va_start(arguments, format);
    fprintf(stderr, "%s: ", doing->command);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return COMMAND_FAILED;
}

/* One request to the running server. The exit status. */
static int ask(struct doing *doing, const struct server_file *server, struct dead_done *done)
{
    struct buffer request, answer;
    buffer_init(&request, REQUEST_MAX);
    buffer_init(&answer, ANSWER_MAX);
    const char *json = dead_request_write(&doing->request, &request) ? NULL : buffer_text(&request);
    const char *path = doing->request.action == DEAD_REQUEUE ? DEAD_HTTP_PATH "/requeue" : DEAD_HTTP_PATH "/purge";
    int status = json ? server_ask(doing->command, server, path, json, &answer) : fail(doing, "%s", error_text(ERR_NO_MEMORY));
    if (!status && dead_done_read(done, answer.data, answer.length))
        status = server_ask_refuse_answer(doing->command, server, 200);
    buffer_fini(&answer);
    buffer_fini(&request);
    return status;
}

static int do_by_server(struct doing *doing)
{
    struct server_file server;
    struct dead_done done;
    int status = server_ask_find(doing->command, doing->data_dir, &server);
    if (status)
        return status;
    do {
        status = ask(doing, &server, &done);
        if (status)
            return status;
        add(doing, &done);
    } while (done.more);
    return COMMAND_OK;
}

/* As the table says; the server's own setting is not known here. */
static unsigned attempts_max(void)
{
    return (unsigned)strtoul(settings_rows[CONFIG_SETTING_dead_letters_attempts_max].initial, NULL, 10);
}

static int do_offline(struct doing *doing, struct dead_offline *offline)
{
    struct dead_done done;
    int error;
    do {
        error = dead_work(dead_offline_queue(offline), dead_offline_letters(offline), &doing->request, attempts_max(), &done);
        add(doing, &done);
    } while (!error && done.more);
    int failed = dead_offline_close(offline);
    error = error ? error : failed;
    return error ? fail(doing, "%s: %s after %" PRIu64 " were %s", doing->data_dir, error_text(error), doing->sum.done, word_of(doing))
                 : COMMAND_OK;
}

/* By the server that has the folder, or in its place. */
static int do_it(struct doing *doing)
{
    struct dead_offline *offline;
    diagnostics_set_level(DIAGNOSTICS_WARNING);
    int error = dead_offline_open(&offline, doing->data_dir);
    if (error == ERR_BUSY)
        return do_by_server(doing);
    if (error)
        return fail(doing, "%s cannot be opened: %s%s", doing->data_dir, error_text(error), tool_reading_advice(error));
    return do_offline(doing, offline);
}

static int print_done(const struct doing *doing)
{
    const struct dead_done *sum = &doing->sum;
    bool dry = doing->request.dry_run;
    uint64_t count = dry ? sum->matched - sum->refused : sum->done;
    if (doing->json) {
        struct buffer line;
        buffer_init(&line, REQUEST_MAX);
        dead_done_write(&doing->request, sum, &line);
        tool_emit(&line);
        buffer_fini(&line);
    } else if (sum->matched == 0) {
        printf("no open dead letters match\n");
    } else {
        printf("%" PRIu64 " %s %s%s\n", count, count == 1 ? "dead letter" : "dead letters",
               dry          ? "would be "
               : count == 1 ? "was "
                            : "were ",
               word_of(doing));
    }
    if (sum->refused)
        fprintf(stderr,
                "%s: %" PRIu64 " %s tried too often already (dead_letters.attempts_max), and %s; --force requeues them all the same\n",
                doing->command, sum->refused, sum->refused == 1 ? "was" : "were", dry ? "would stay" : "stayed");
    if (sum->matched == 0 && doing->request.filter.range_count)
        fprintf(stderr, "%s: none of these offsets is an open dead letter\n", doing->command);
    return sum->refused || (sum->matched == 0 && doing->request.filter.range_count) ? COMMAND_FAILED : COMMAND_OK;
}

/* Counts from the files what will be met, so that there is progress to show, and an end: what fails again meanwhile is not taken again. */
static int count_first(struct doing *doing)
{
    struct dead_files files;
    const struct dead_filter *filter = &doing->request.filter;
    uint64_t tried;
    int error = dead_files_open(&files, doing->data_dir, filter);
    if (error)
        return tool_refuse_folder(doing->command, doing->data_dir, ledger_marks_stream, error);
    bool print = doing->request.dry_run && !doing->json;
    error = go_through(&files, filter, true, attempts_max(), print, false, &doing->expected, &tried);
    doing->request.end = doing->sum.end = files.end;
    if (doing->request.dry_run) {
        doing->sum.matched = doing->expected;
        doing->sum.refused = doing->request.action == DEAD_REQUEUE && !doing->request.force ? tried : 0;
    }
    dead_files_close(&files);
    return error ? tool_refuse_folder(doing->command, doing->data_dir, ledger_marks_stream, error) : COMMAND_OK;
}

static int act(struct doing *doing, const struct filter_texts *texts)
{
    tool_begin_output();
    int status = read_filter(doing->command, texts, &doing->request.filter);
    if (!status && dead_filter_is_empty(&doing->request.filter) && !doing->request.all)
        status = tool_refuse(doing->command, "nothing says which; expected --reason, --tool, --since, --until or --offset, or --all");
    if (!status)
        status = count_first(doing);
    if (!status && !doing->request.dry_run && doing->expected)
        status = do_it(doing);
    terminal_progress_end();
    if (!status)
        status = print_done(doing);
    return command_finish_output(doing->command, status);
}

int command_dead_requeue(const struct dead_requeue_arguments *arguments)
{
    struct doing doing = {.command = "spindle dead requeue", .data_dir = arguments->data_dir, .json = arguments->json};
    dead_request_init(&doing.request, DEAD_REQUEUE);
    doing.request.all = arguments->all;
    doing.request.force = arguments->force;
    doing.request.dry_run = arguments->dry_run;
    return act(&doing, &FILTER_TEXTS(arguments));
}

int command_dead_purge(const struct dead_purge_arguments *arguments)
{
    struct doing doing = {.command = "spindle dead purge", .data_dir = arguments->data_dir, .json = arguments->json};
    dead_request_init(&doing.request, DEAD_PURGE);
    doing.request.all = arguments->all;
    doing.request.dry_run = arguments->dry_run;
    return act(&doing, &FILTER_TEXTS(arguments));
}
