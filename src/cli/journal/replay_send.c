#include "cli/journal/replay_send.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/terminal.h"
#include "cli/journal/tool.h"
#include "cli/result_properties.h"
#include "load/load_client.h"
#include "mqtt/packet.h"
#include "mqtt/topic.h"
#include "queue/dead_letter.h"

#define SECOND_NS UINT64_C(1000000000)

enum { TURN_MS = 100, PROGRESS_MS = 200, KEEP_ALIVE_S = 60, REST_MS = 2000, REASON_MAX = 200 };

struct sender {
    struct replay_source *source;
    const struct replay_send_options *options;
    struct replay_state *state;
    struct replay_report *report;
    struct load_client *client;
    struct load_connection *connection;
    bool was_connected, lost;
    char reason[REASON_MAX]; /* why the connection was lost */
    struct replay_pace pace;
    struct replay_window window;
    struct message message; /* the next one to send, while has_message */
    bool has_message, ended, failed;
    uint64_t due_ns;  /* of the message */
    uint64_t last_ns; /* arrival of the last record of the stream; 0: unknown */
    struct buffer topic, properties;
    uint64_t begun_ns, moved_ns; /* monotonic; since when nothing that is due was acknowledged */
    uint64_t saved_ns, shown_ns;
};

static bool fail(struct sender *sender, const char *text)
{
    if (!sender->failed)
        snprintf(sender->report->problem, REPLAY_PROBLEM_MAX, "%s", text);
    sender->failed = true;
    return false;
}

/* Everything selected before it is acknowledged. */
static uint64_t next_offset(const struct sender *sender)
{
    return replay_window_next(&sender->window, sender->has_message ? sender->message.offset : replay_source_passed(sender->source));
}

/* ---- the connection ---- */

static void on_connected(void *context, struct load_connection *connection)
{
    struct sender *sender = context;
    (void)connection;
    sender->was_connected = true;
    sender->reason[0] = 0;
}

static void on_acknowledged(void *context, struct load_connection *connection, uint32_t tag, uint64_t due_ns, uint8_t reason)
{
    struct sender *sender = context;
    (void)connection;
    (void)due_ns;
    if (reason >= 0x80) {
        char text[REPLAY_PROBLEM_MAX];
        snprintf(text, sizeof text, "the server refused the message at offset %" PRIu64 " (MQTT reason 0x%02x)",
                 replay_window_offset(&sender->window, tag), reason);
        fail(sender, text);
        return;
    }
    sender->report->messages += replay_window_acknowledge(&sender->window, tag);
}

static void on_disconnected(void *context, struct load_connection *connection, int error, const char *reason)
{
    struct sender *sender = context;
    (void)connection;
    (void)error;
    sender->lost = true;
    snprintf(sender->reason, sizeof sender->reason, "%s", reason);
}

static int open_connection(struct sender *sender)
{
    static const struct load_handlers handlers = {
        .connected = on_connected, .acknowledged = on_acknowledged, .disconnected = on_disconnected};
    int error = load_client_create(&sender->client, sender->options->host, sender->options->port, &handlers);
    if (error)
        return error;
    char id[64];
    snprintf(id, sizeof id, "spindle-replay-%d", (int)getpid());
    const struct load_connection_options options = {
        .client_id = id, .version = MQTT_VERSION_5_0, .keep_alive_s = KEEP_ALIVE_S, .inflight_max = REPLAY_WINDOW_MAX, .retry = true};
    return load_connection_open(sender->client, &options, sender, &sender->connection);
}

/* What was on its way may have arrived or not: all of it is sent again, in order. */
static bool go_back(struct sender *sender)
{
    sender->lost = false;
    if (!sender->was_connected)
        return fail(sender, sender->reason);
    if (sender->window.count == 0)
        return true;
    uint64_t next = next_offset(sender);
    replay_window_clear(&sender->window);
    sender->has_message = sender->ended = false;
    int error = replay_source_seek(sender->source, next, true);
    return error ? fail(sender, error_text(error)) : true;
}

/* ---- sending ---- */

static int write_properties(struct sender *sender)
{
    const struct message *message = &sender->message;
    const uint8_t *published;
    uint32_t length;
    buffer_clear(&sender->properties);
    message_published_properties(message, &published, &length);
    return sender->options->results ? result_properties_write(message, &sender->properties)
                                    : buffer_append(&sender->properties, published, length);
}

static bool publish(struct sender *sender)
{
    const struct message *message = &sender->message;
    char text[REPLAY_PROBLEM_MAX];
    buffer_clear(&sender->topic);
    int error = buffer_append_text(&sender->topic, sender->options->prefix);
    if (!error)
        error = buffer_append(&sender->topic, message->topic, message->topic_length);
    if (!error && !mqtt_topic_name_valid((const char *)sender->topic.data, sender->topic.length))
        error = ERR_TOPIC_NAME;
    if (!error)
        error = write_properties(sender);
    const struct mqtt_publish packet = {.qos = 1,
                                        .topic = {sender->topic.data, (uint32_t)sender->topic.length},
                                        .payload = {message->payload, message->payload_length},
                                        .properties_raw = {sender->properties.data, (uint32_t)sender->properties.length}};
    if (!error)
        error = load_connection_publish(sender->connection, &packet, replay_window_tag(&sender->window), 0);
    if (error) { /* it was ready, so a limit is that of the packet's size */
        snprintf(text, sizeof text,
                 "the message at offset %" PRIu64 " (payload: %u B) cannot be sent: %s; --from %" PRIu64 " begins behind it",
                 message->offset, message->payload_length, error == ERR_LIMIT ? "it is larger than the server takes" : error_text(error),
                 message->offset + 1);
        return fail(sender, text);
    }
    replay_window_add(&sender->window, message->offset);
    sender->report->sent++;
    sender->report->bytes += message->payload_length;
    sender->has_message = false;
    return true;
}

/* Makes sure that the next message is known; false: there is none now. */
static bool fetch(struct sender *sender)
{
    if (sender->has_message || sender->ended)
        return sender->has_message;
    int error = replay_source_next(sender->source, &sender->message);
    if (error == ERR_TRUNCATED)
        sender->ended = true;
    else if (error && error != ERR_BUSY)
        fail(sender, error_text(error));
    sender->has_message = !error;
    if (!error)
        sender->due_ns = replay_pace_due_ns(&sender->pace, sender->message.time_ns, clock_monotonic_ns());
    return sender->has_message;
}

/* Sends what is due. Returns until when there is nothing to do but to wait for the server. */
static uint64_t pump(struct sender *sender)
{
    uint64_t now_ns = clock_monotonic_ns(), later_ns = now_ns + TURN_MS * UINT64_C(1000000);
    while (!sender->failed && fetch(sender)) {
        if (sender->due_ns > now_ns)
            return sender->due_ns < later_ns ? sender->due_ns : later_ns;
        if (replay_window_is_full(&sender->window) || !load_connection_ready(sender->connection, 1))
            return later_ns;
        publish(sender);
    }
    return sender->ended || sender->failed ? later_ns : now_ns;
}

/* ---- what is remembered, and shown ---- */

static bool save(struct sender *sender)
{
    uint64_t next = next_offset(sender);
    char text[REPLAY_PROBLEM_MAX];
    sender->report->next = next;
    sender->saved_ns = clock_monotonic_ns();
    if (sender->state->next == next)
        return true;
    struct replay_state state = *sender->state;
    state.next = next;
    int error = replay_state_write(sender->options->state_path, &state);
    if (error) {
        snprintf(text, sizeof text, "%.300s cannot be written: %s; --state names another file", sender->options->state_path,
                 error_text(error));
        return fail(sender, text);
    }
    sender->state->next = next;
    return true;
}

static void show(struct sender *sender, uint64_t now_ns)
{
    uint64_t next = next_offset(sender), until = sender->source->until;
    double elapsed_s = (double)(now_ns - sender->begun_ns) / 1e9;
    uint64_t behind_ns = sender->pace.speed > 0 && sender->has_message && now_ns > sender->due_ns ? now_ns - sender->due_ns : 0;
    double left_s = 0;
    if (sender->pace.speed > 0)
        left_s = (double)(replay_pace_span_ns(&sender->pace, sender->last_ns) + behind_ns) / 1e9;
    else if (next > sender->report->first)
        left_s = elapsed_s * (double)(until - next) / (double)(next - sender->report->first);
    char behind[TOOL_SIZE_TEXT_MAX], left[TOOL_SIZE_TEXT_MAX];
    terminal_progress("offset %" PRIu64 " of %" PRIu64 "; %.0f messages/s, %s behind, %s left%s%.60s", next, until,
                      elapsed_s > 0 ? (double)sender->report->messages / elapsed_s : 0, tool_age_text(behind_ns, behind),
                      tool_age_text((uint64_t)(left_s * 1e9), left), *sender->reason ? "; " : "", sender->reason);
    sender->shown_ns = now_ns;
}

/* The arrival of the last record, by which a paced replay knows how long it will take. */
static void find_last(struct sender *sender)
{
    struct reader *reader;
    struct message message;
    uint64_t until = sender->source->until;
    if (!until || reader_open(&reader, disk_posix(), sender->source->folder, until - 1, NULL, NULL))
        return;
    if (reader_next(reader, until, &message, NULL) == 0)
        sender->last_ns = message.time_ns;
    reader_close(reader);
}

/* ---- the whole ---- */

/* Something is due and nothing moves. */
static bool is_stuck(struct sender *sender, uint64_t before, uint64_t now_ns)
{
    bool waits = sender->window.count || (sender->has_message && sender->due_ns <= now_ns);
    if (!waits || next_offset(sender) != before)
        sender->moved_ns = now_ns;
    return (double)(now_ns - sender->moved_ns) / 1e9 > sender->options->timeout_s;
}

static void run(struct sender *sender)
{
    while (!sender->failed && !*sender->options->stop && !(sender->ended && sender->window.count == 0)) {
        uint64_t before = next_offset(sender), wake_ns = pump(sender);
        if (sender->failed)
            return;
        if (load_client_turn(sender->client, wake_ns))
            fail(sender, error_text(ERR_IO));
        uint64_t now_ns = clock_monotonic_ns();
        if (is_stuck(sender, before, now_ns)) {
            char text[REPLAY_PROBLEM_MAX];
            snprintf(text, sizeof text, "nothing was acknowledged for %.0f s%s%s", sender->options->timeout_s, *sender->reason ? ": " : "",
                     sender->reason);
            fail(sender, text);
        }
        if (sender->lost)
            go_back(sender);
        if (now_ns - sender->saved_ns > SECOND_NS)
            save(sender);
        if (now_ns - sender->shown_ns > PROGRESS_MS * UINT64_C(1000000))
            show(sender, now_ns);
    }
}

/* Takes the acknowledgements of what is on its way, so that little is sent twice. */
static void rest(struct sender *sender)
{
    uint64_t end_ns = clock_monotonic_ns() + REST_MS * UINT64_C(1000000);
    while (sender->window.count && !sender->lost && load_client_now_ns(sender->client) < end_ns)
        if (load_client_turn(sender->client, end_ns))
            return;
}

static int begin(struct sender *sender)
{
    buffer_init(&sender->topic, MQTT_TOPIC_LENGTH_MAX + REPLAY_FILTER_MAX);
    buffer_init(&sender->properties, LOAD_PACKET_MAX);
    replay_pace_init(&sender->pace, sender->options->speed);
    if (sender->pace.speed > 0)
        find_last(sender);
    sender->begun_ns = sender->moved_ns = sender->saved_ns = clock_monotonic_ns();
    return open_connection(sender);
}

enum replay_end replay_send(struct replay_source *source, const struct replay_send_options *options, struct replay_state *state,
                            struct replay_report *report)
{
    struct sender sender = {.source = source, .options = options, .state = state, .report = report};
    *report = (struct replay_report){.first = state->next, .next = state->next};
    int error = begin(&sender);
    if (error == ERR_NOT_FOUND)
        fail(&sender, "there is no such host");
    else if (error)
        fail(&sender, error_text(error));
    else
        run(&sender);
    bool complete = !sender.failed && sender.ended && sender.window.count == 0;
    if (!error)
        rest(&sender);
    if (sender.begun_ns && sender.source->reader)
        save(&sender);
    report->seconds = (double)(clock_monotonic_ns() - sender.begun_ns) / 1e9;
    terminal_progress_end();
    load_client_destroy(sender.client);
    buffer_fini(&sender.topic);
    buffer_fini(&sender.properties);
    return sender.failed ? REPLAY_FAILED : complete ? REPLAY_COMPLETE : REPLAY_INTERRUPTED;
}
