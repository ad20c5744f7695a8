/* `spindle journal replay`: which records, where to, and from where it goes on; replay_send.c sends them. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/message.h"
#include "cli/bench.h"
#include "cli/command.h"
#include "cli/journal/replay_send.h"
#include "cli/journal/tool.h"
#include "mqtt/topic.h"

static const char command[] = "spindle journal replay";

struct plan {
    const struct journal_replay_arguments *arguments;
    char folder[TOOL_FOLDER_MAX], state_path[PATH_MAX];
    bool into_pipeline, resumed;
    struct bench_target target;
    char prefix[REPLAY_FILTER_MAX]; /* with a slash behind it; empty: none */
    double speed;
    struct replay_source source;
    struct replay_state state;
};

static volatile bool interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = true;
}

/* ---- arguments ---- */

static int read_address(struct plan *plan, const char *option, const char *address)
{
    char problem[BENCH_PROBLEM_MAX];
    size_t length = strlen(address);
    if (length < BENCH_HOST_MAX && !strpbrk(address, "=/") && bench_target_parse(&plan->target, address, problem) == 0)
        return COMMAND_OK;
    return tool_refuse(command, "%s: `%s` is no HOST:PORT", option, address);
}

static int read_target(struct plan *plan)
{
    static const char scheme[] = "mqtt://";
    const struct journal_replay_arguments *arguments = plan->arguments;
    const char *into = arguments->into;
    if (!into)
        return tool_refuse(command, "--into is missing: `pipeline`, or mqtt://HOST:PORT");
    plan->into_pipeline = strcmp(into, "pipeline") == 0;
    if (!plan->into_pipeline && strncmp(into, scheme, sizeof scheme - 1) != 0)
        return tool_refuse(command, "--into: expected `pipeline` or mqtt://HOST:PORT, found `%s`", into);
    if (plan->into_pipeline && strcmp(arguments->stream, "ingest") != 0)
        return tool_refuse(command,
                           "the pipeline takes messages of the stream ingest alone; --into mqtt://HOST:PORT publishes those of `%s`",
                           arguments->stream);
    if (plan->into_pipeline && arguments->prefix)
        return tool_refuse(command, "--prefix is for mqtt://; into the pipeline the topics begin with %s/ID/", MESSAGE_REPLAY_LEVEL);
    if (!plan->into_pipeline && arguments->server_given)
        return tool_refuse(command, "--server is for `--into pipeline`; mqtt://HOST:PORT names the broker itself");
    return plan->into_pipeline ? read_address(plan, "--server", arguments->server) : read_address(plan, "--into", into + sizeof scheme - 1);
}

/* Levels with a slash behind them. */
static int read_prefix(struct plan *plan)
{
    const char *prefix = plan->arguments->prefix;
    if (!prefix)
        return COMMAND_OK;
    size_t length = strlen(prefix);
    bool has_slash = length && prefix[length - 1] == '/';
    if (length > VALUE_TOPIC_MAX || !mqtt_topic_name_valid(prefix, length))
        return tool_refuse(command, "--prefix: `%.100s` is no beginning of a topic", prefix);
    snprintf(plan->prefix, sizeof plan->prefix, "%s%s", prefix, has_slash ? "" : "/");
    return COMMAND_OK;
}

static int read_tool(struct plan *plan)
{
    const char *tool = plan->arguments->tool, *slash = tool ? strchr(tool, '/') : NULL;
    if (!tool)
        return COMMAND_OK;
    if (!slash || slash == tool || !slash[1] || strchr(slash + 1, '/') || strlen(tool) > VALUE_TOPIC_MAX ||
        !mqtt_topic_name_valid(tool, strlen(tool)))
        return tool_refuse(command, "--tool: expected TOOLBOX/TOOL, found `%.100s`", tool);
    snprintf(plan->source.tool_filter, sizeof plan->source.tool_filter, "%s/%s/#", plan->arguments->root, tool);
    return COMMAND_OK;
}

/* One line: control characters would break it, and belong in no topic. */
static int write_selection(struct plan *plan)
{
    const struct journal_replay_arguments *arguments = plan->arguments;
    char *text = plan->state.selection;
    int length = snprintf(text, REPLAY_SELECTION_MAX, "stream=%s from=%s to=%s topic=%s tool=%s root=%s into=%s server=%s prefix=%s",
                          arguments->stream, arguments->from, arguments->to ? arguments->to : "", arguments->topic ? arguments->topic : "",
                          arguments->tool ? arguments->tool : "", arguments->root, arguments->into, arguments->server, plan->prefix);
    if (length >= REPLAY_SELECTION_MAX)
        return tool_refuse(command, "the arguments are too long");
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at < ' ')
            return tool_refuse(command, "an argument holds a control character");
    return COMMAND_OK;
}

static int read_arguments(struct plan *plan)
{
    const struct journal_replay_arguments *arguments = plan->arguments;
    const char *stream = arguments->stream;
    if (strcmp(stream, "dead-letters") == 0)
        return tool_refuse(command, "dead letters are sent again with `spindle dead requeue`");
    if (strcmp(stream, "ingest") != 0 && strcmp(stream, "bus") != 0 && strcmp(stream, "results") != 0)
        return tool_refuse(command, "there is no stream `%s` to replay; the streams are ingest, bus and results", stream);
    if (replay_speed_parse(arguments->speed, &plan->speed))
        return tool_refuse(command, "--speed: expected a number from 0.001 to 1000000 or `max`, found `%s`", arguments->speed);
    if (arguments->id && replay_id_check(arguments->id))
        return tool_refuse(command, "--id: expected 1 to %d letters, digits, dots, dashes and underscores, found `%.100s`", REPLAY_ID_MAX,
                           arguments->id);
    int status = selection_read(command, arguments->from, arguments->to, arguments->topic, &plan->source.selection);
    if (!status)
        status = read_target(plan);
    if (!status)
        status = read_prefix(plan);
    if (!status)
        status = read_tool(plan);
    if (!status)
        status = write_selection(plan);
    int length = arguments->state ? snprintf(plan->state_path, sizeof plan->state_path, "%s", arguments->state)
                                  : snprintf(plan->state_path, sizeof plan->state_path, "%s/replay.state", arguments->data_dir);
    if (!status && length >= (int)sizeof plan->state_path)
        status = tool_refuse(command, "the name of the state file is too long");
    return status;
}

/* ---- where it begins ---- */

/* The time to the millisecond. */
static void make_id(char id[REPLAY_ID_MAX + 1])
{
    uint64_t now_ns = clock_wall_ns();
    time_t seconds = (time_t)(now_ns / 1000000000u);
    struct tm t;
    gmtime_r(&seconds, &t);
    size_t length = strftime(id, REPLAY_ID_MAX, "%Y%m%dT%H%M%S", &t);
    snprintf(id + length, REPLAY_ID_MAX - length, "%03u", (unsigned)(now_ns / 1000000u % 1000));
}

static int oldest_kept(const char *folder, uint64_t *offset)
{
    uint64_t *bases;
    size_t count;
    int error = segment_list(disk_posix(), folder, &bases, &count);
    if (error)
        return error;
    *offset = count ? bases[0] : 0;
    free(bases);
    return 0;
}

/* Where a new replay begins and ends. Not before the oldest record that is kept: what is missing later was removed meanwhile. */
static int find_range(struct plan *plan)
{
    const struct selection *selection = &plan->source.selection;
    struct replay_state *state = &plan->state;
    uint64_t oldest, end;
    int error = selection_range(plan->folder, selection, &state->next, &state->until);
    if (!error)
        error = oldest_kept(plan->folder, &oldest);
    if (!error)
        error = segment_stream_end(disk_posix(), plan->folder, NULL, NULL, &end);
    if (error)
        return error;
    if (state->next < oldest)
        state->next = oldest;
    if (state->until > end)
        state->until = end;
    if (state->next > state->until)
        state->next = state->until;
    state->from_ns = selection->from.is_time ? selection->from.time_ns : 0;
    state->to_ns = selection->to_given && selection->to.is_time ? selection->to.time_ns : UINT64_MAX;
    return 0;
}

/* Takes over what an interrupted replay has left behind, if there is any. */
static int resume(struct plan *plan)
{
    struct replay_state *state = &plan->state, *left = malloc(sizeof *left);
    int error = left ? replay_state_read(plan->state_path, left) : ERR_NO_MEMORY, status = COMMAND_OK;
    if (error == ERR_CORRUPT) {
        status = tool_refuse(command, "%s is no state of a replay; --state names another file", plan->state_path);
    } else if (error && error != ERR_NOT_FOUND) {
        fprintf(stderr, "%s: %s cannot be read: %s\n", command, plan->state_path, error_text(error));
        status = COMMAND_FAILED;
    } else if (!error && strcmp(left->selection, state->selection) != 0) {
        status = tool_refuse(command, "%s is of another replay (%s); repeat its arguments, or name another file with --state",
                             plan->state_path, left->selection);
    } else if (!error && plan->arguments->id && strcmp(left->id, plan->arguments->id) != 0) {
        status = tool_refuse(command, "%s is of the replay `%s`", plan->state_path, left->id);
    } else if (!error) {
        *state = *left;
        plan->source.selection.from.time_ns = left->from_ns;
        plan->source.selection.to.time_ns = left->to_ns;
        plan->resumed = true;
    }
    free(left);
    return status;
}

static int begin(struct plan *plan)
{
    const struct journal_replay_arguments *arguments = plan->arguments;
    struct replay_source *source = &plan->source;
    int error = tool_stream_folder(arguments->data_dir, arguments->stream, plan->folder);
    if (error)
        return tool_refuse_folder(command, arguments->data_dir, arguments->stream, error);
    int status = arguments->resume ? resume(plan) : COMMAND_OK;
    if (status)
        return status;
    if (!plan->resumed) {
        error = find_range(plan);
        if (arguments->id)
            snprintf(plan->state.id, sizeof plan->state.id, "%s", arguments->id);
        else
            make_id(plan->state.id);
    }
    if (plan->into_pipeline)
        snprintf(plan->prefix, sizeof plan->prefix, MESSAGE_REPLAY_LEVEL "/%s/", plan->state.id);
    source->folder = plan->folder;
    source->pass_replayed = strcmp(arguments->stream, "bus") != 0;
    source->until = plan->state.until;
    if (!error)
        error = replay_source_seek(source, plan->state.next, plan->resumed);
    return error ? tool_refuse_folder(command, arguments->data_dir, arguments->stream, error) : COMMAND_OK;
}

/* ---- a dry run ---- */

static int dry_run(struct plan *plan)
{
    const struct journal_replay_arguments *arguments = plan->arguments;
    uint64_t messages = 0, bytes = 0, first = 0, last = 0, first_ns = 0, last_ns = 0;
    struct message message;
    int error;
    while (!(error = replay_source_next(&plan->source, &message)) || error == ERR_BUSY) {
        if (error)
            continue;
        if (!messages++) {
            first = message.offset;
            first_ns = message.time_ns;
        }
        last = message.offset;
        last_ns = message.time_ns;
        bytes += message.payload_length;
    }
    if (error != ERR_TRUNCATED)
        return tool_refuse_folder(command, arguments->data_dir, arguments->stream, error);
    char from[CLOCK_TEXT_SIZE], to[CLOCK_TEXT_SIZE], size[TOOL_SIZE_TEXT_MAX];
    clock_wall_text(first_ns, from);
    clock_wall_text(last_ns, to);
    if (arguments->json)
        printf("{\"stream\":\"%s\",\"messages\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"first\":%" PRIu64 ",\"last\":%" PRIu64
               ",\"first_time_ns\":%" PRIu64 ",\"last_time_ns\":%" PRIu64 ",\"replayed_before\":%" PRIu64 "}\n",
               arguments->stream, messages, bytes, first, last, first_ns, last_ns, plan->source.replayed);
    else if (!messages)
        printf("nothing would be sent\n");
    else
        printf("%" PRIu64 " messages (%s) would be sent, offsets %" PRIu64 " to %" PRIu64 ", which arrived from %s to %s\n", messages,
               tool_size_text(bytes, size), first, last, from, to);
    return plan->source.damaged ? COMMAND_FAILED : COMMAND_OK;
}

/* ---- sending ---- */

static void print_report(const struct plan *plan, const struct replay_report *report, enum replay_end end)
{
    const char *stream = plan->arguments->stream;
    if (plan->arguments->json) {
        static const char *const words[] = {
            [REPLAY_COMPLETE] = "complete", [REPLAY_INTERRUPTED] = "interrupted", [REPLAY_FAILED] = "failed"};
        printf("{\"id\":\"%s\",\"stream\":\"%s\",\"end\":\"%s\",\"messages\":%" PRIu64 ",\"sent\":%" PRIu64 ",\"bytes\":%" PRIu64
               ",\"from\":%" PRIu64 ",\"next\":%" PRIu64 ",\"until\":%" PRIu64 ",\"replayed_before\":%" PRIu64
               ",\"resumed\":%s,\"seconds\":%.3f}\n",
               plan->state.id, stream, words[end], report->messages, report->sent, report->bytes, report->first, report->next,
               plan->state.until, plan->source.replayed, plan->resumed ? "true" : "false", report->seconds);
        return;
    }
    printf("%" PRIu64 " messages of %s acknowledged in %.1f s, replay %s\n", report->messages, stream, report->seconds, plan->state.id);
    if (plan->source.replayed)
        printf("%" PRIu64 " messages that an earlier replay had brought were left out\n", plan->source.replayed);
    if (end == REPLAY_COMPLETE && plan->into_pipeline)
        printf("complete; the answers come below " MESSAGE_REPLAY_LEVEL "/%s/\n", plan->state.id);
    else if (end == REPLAY_COMPLETE)
        printf("complete\n");
    else
        printf("everything before offset %" PRIu64 " (of %" PRIu64
               ") is acknowledged; the same command with --resume goes on there, and may send again what was on its way\n",
               report->next, plan->state.until);
}

static int send_all(struct plan *plan)
{
    const struct journal_replay_arguments *arguments = plan->arguments;
    int error = plan->resumed ? 0 : replay_state_write(plan->state_path, &plan->state);
    if (error) {
        fprintf(stderr, "%s: %s cannot be written: %s; --state names another file\n", command, plan->state_path, error_text(error));
        return COMMAND_FAILED;
    }
    const struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    const struct replay_send_options options = {.host = plan->target.host,
                                                .port = plan->target.port,
                                                .prefix = plan->prefix,
                                                .results = strcmp(arguments->stream, "results") == 0,
                                                .speed = plan->speed,
                                                .timeout_s = arguments->timeout,
                                                .state_path = plan->state_path,
                                                .stop = &interrupted};
    struct replay_report report;
    enum replay_end end = replay_send(&plan->source, &options, &plan->state, &report);
    if (end == REPLAY_FAILED)
        fprintf(stderr, "%s: %s:%u: %s\n", command, plan->target.host, plan->target.port, report.problem);
    print_report(plan, &report, end);
    return end == REPLAY_COMPLETE && !plan->source.damaged ? COMMAND_OK : COMMAND_FAILED;
}

int command_journal_replay(const struct journal_replay_arguments *arguments)
{
    struct plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        fprintf(stderr, "%s: %s\n", command, error_text(ERR_NO_MEMORY));
        return COMMAND_FAILED;
    }
    plan->arguments = arguments;
    tool_begin_output();
    int status = read_arguments(plan);
    if (!status)
        status = begin(plan);
    if (!status)
        status = arguments->dry_run ? dry_run(plan) : send_all(plan);
    replay_source_close(&plan->source);
    free(plan);
    return command_finish_output(command, status);
}
