/* One loop: open the holes that are due, send what waits, handle what arrives. */
#include "simulate/simulate.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/terminal.h"
#include "simulate/simulate_receive.h"
#include "simulate/simulate_report.h"

enum {
    INFLIGHT_MAX = 4096, /* messages a connection has without PUBACK */
    KEEP_ALIVE_S = 30,
    WHY_MAX = 512,        /* bytes of a sentence */
    SLOTS_PER_WINDOW = 4, /* of the ledger: holes that wait for late heads or an acknowledgement keep theirs */
    SLOTS_MORE = 64,
    TURN_MS = 20,
    PROGRESS_MS = 250,
    EXPIRE_MS = 100
};

#define MS_NS UINT64_C(1000000)

static atomic_uint signals; /* how often the user asked to end */

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&signals, 1);
}

/* ---- connections; the context of each is its link ---- */

static bool is_receiver(const struct simulate_link *link)
{
    return link == &link->simulation->receiver;
}

static void subscribe_next(struct simulate_link *link)
{
    struct simulation *simulation = link->simulation;
    const char *const suffixes[] = {simulation->topics.keypoints, simulation->topics.depths};
    if (link->granted == 2) {
        simulation->receiver_since_ns = load_client_now_ns(simulation->client);
        if (simulation->begin_ns == 0)
            simulation->begin_ns = simulation->receiver_since_ns;
        return;
    }
    buffer_clear(&simulation->topic);
    buffer_printf(&simulation->topic, "%s/+/+/%s", simulation->topics.root, suffixes[link->granted]);
    const char *filter = buffer_text(&simulation->topic);
    if (!filter || load_connection_subscribe(link->connection, filter, 1) != 0)
        snprintf(simulation->problem, sizeof simulation->problem, "the subscription could not be sent");
}

static void on_connected(void *context, struct load_connection *connection)
{
    (void)connection;
    struct simulate_link *link = context;
    link->granted = 0;
    if (is_receiver(link))
        subscribe_next(link);
}

static void on_subscribed(void *context, struct load_connection *connection, bool granted)
{
    (void)connection;
    struct simulate_link *link = context;
    if (granted) {
        link->granted++;
        subscribe_next(link);
    } else {
        snprintf(link->simulation->problem, sizeof link->simulation->problem, "the server refused the subscription");
    }
}

static void on_disconnected(void *context, struct load_connection *connection, int error, const char *reason)
{
    (void)connection;
    (void)error;
    struct simulate_link *link = context;
    struct simulation *simulation = link->simulation;
    snprintf(simulation->problem, sizeof simulation->problem, "%s", reason);
    if (is_receiver(link) && simulation->receiver_since_ns) {
        simulation->tally->outages++;
        simulation->receiver_since_ns = 0;
    }
}

static void on_acknowledged(void *context, struct load_connection *connection, uint32_t tag, uint64_t due_ns, uint8_t reason)
{
    (void)connection;
    struct simulation *simulation = ((struct simulate_link *)context)->simulation;
    uint64_t now_ns = load_client_now_ns(simulation->client);
    histogram_record(&simulation->tally->acknowledge_ns, now_ns > due_ns ? now_ns - due_ns : 0);
    simulate_play_acknowledged(simulation, tag, now_ns, reason);
}

static void on_unacknowledged(void *context, struct load_connection *connection, uint32_t tag)
{
    (void)connection;
    struct simulate_link *link = context;
    simulate_play_again(link->simulation, link, tag);
}

static void on_received(void *context, struct load_connection *connection, const struct mqtt_publish *publish)
{
    (void)connection;
    struct simulation *simulation = ((struct simulate_link *)context)->simulation;
    simulate_receive(simulation, publish, load_client_now_ns(simulation->client));
}

static int connect_link(struct simulation *simulation, struct simulate_link *link, const char *name, uint16_t inflight_max)
{
    char client_id[48];
    snprintf(client_id, sizeof client_id, "spindle-%s-%s", simulation->prefix, name);
    struct load_connection_options options = {.client_id = client_id,
                                              .version = simulation->options->version,
                                              .keep_alive_s = KEEP_ALIVE_S,
                                              .inflight_max = inflight_max,
                                              .retry = true};
    return load_connection_open(simulation->client, &options, link, &link->connection);
}

static int connect_all(struct simulation *simulation)
{
    static const struct load_handlers handlers = {.connected = on_connected,
                                                  .subscribed = on_subscribed,
                                                  .acknowledged = on_acknowledged,
                                                  .unacknowledged = on_unacknowledged,
                                                  .disconnected = on_disconnected,
                                                  .received = on_received};
    const struct simulate_options *options = simulation->options;
    int error = load_client_create(&simulation->client, options->host, options->port, &handlers);
    if (error == ERR_NOT_FOUND)
        snprintf(simulation->problem, sizeof simulation->problem, "the host %s is not known", options->host);
    simulation->receiver.simulation = simulation;
    if (!error)
        error = connect_link(simulation, &simulation->receiver, "results", 0);
    for (unsigned i = 0; i < simulation->link_count && !error; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        error = connect_link(simulation, &simulation->links[i], name, options->qos ? INFLIGHT_MAX : 0);
    }
    return error;
}

/* ---- the run ---- */

/* Gives up holes whose answer has not come in time; what the server had no chance to answer is not counted against it. */
static void expire(struct simulation *simulation, uint64_t now_ns)
{
    uint64_t timeout_ns = (uint64_t)(simulation->options->timeout_s * 1e9);
    for (size_t i = 0; i < simulation->ledger.capacity && simulation->receiver_since_ns; i++) {
        struct simulate_hole *hole = &simulation->ledger.holes[i];
        if (!hole->in_use || hole->malformed || hole->given_up || hole->waiting || hole->answers == SIMULATE_BOTH)
            continue;
        uint64_t since_ns = hole->quiet_ns > simulation->receiver_since_ns ? hole->quiet_ns : simulation->receiver_since_ns;
        if (now_ns > since_ns + timeout_ns)
            simulate_play_give_up(simulation, hole);
    }
}

/* Whether nothing more is to be expected. */
static bool is_over(const struct simulation *simulation, uint64_t started_ns, uint64_t now_ns)
{
    uint64_t timeout_ns = (uint64_t)(simulation->options->timeout_s * 1e9);
    if (atomic_load(&signals) > 1)
        return true;
    if (simulation->stopping && simulation->ledger.free_count == simulation->ledger.capacity)
        return true;
    uint64_t since_ns = started_ns;
    if (simulation->tally->last_progress_ns > since_ns)
        since_ns = simulation->tally->last_progress_ns;
    bool cut_off = simulation->receiver_since_ns == 0;
    return (simulation->stopping || cut_off) && now_ns > since_ns + timeout_ns + timeout_ns / 10;
}

static uint64_t earliest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int run(struct simulation *simulation)
{
    uint64_t started_ns = clock_monotonic_ns(), expire_ns = 0, progress_ns = 0;
    int error = 0;
    for (uint64_t now_ns = started_ns; !error && !is_over(simulation, started_ns, now_ns); now_ns = clock_monotonic_ns()) {
        uint64_t until_ns = now_ns + TURN_MS * MS_NS;
        if (atomic_load(&signals))
            simulation->stopping = true;
        if (simulation->receiver_since_ns) {
            until_ns = earliest(until_ns, simulate_play_holes(simulation, now_ns));
            until_ns = earliest(until_ns, simulate_play_late(simulation, now_ns));
            error = simulate_play_messages(simulation);
        }
        if (now_ns >= expire_ns) {
            expire(simulation, now_ns);
            expire_ns = now_ns + EXPIRE_MS * MS_NS;
        }
        if (now_ns >= progress_ns) {
            simulate_report_progress(simulation, now_ns);
            progress_ns = now_ns + PROGRESS_MS * MS_NS;
        }
        if (!error)
            error = load_client_turn(simulation->client, until_ns);
    }
    return error;
}

/* What is still open at the end is lost, or was never acknowledged. */
static void close_books(struct simulation *simulation)
{
    for (size_t i = 0; i < simulation->ledger.capacity; i++) {
        struct simulate_hole *hole = &simulation->ledger.holes[i];
        if (!hole->in_use)
            continue;
        if (simulation->options->qos)
            simulation->tally->unacknowledged += hole->waiting;
        hole->waiting = 0;
        if (!hole->malformed && !hole->given_up && hole->answers != SIMULATE_BOTH)
            simulate_play_give_up(simulation, hole);
        else
            simulate_play_settle(simulation, hole);
    }
    simulation->tally->connections_lost = load_client_counters(simulation->client)->disconnected;
}

/* ---- set-up ---- */

static enum simulate_verdict refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

static enum simulate_verdict refuse(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "simulate: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    return SIMULATE_REFUSED;
}

static bool is_share(double value)
{
    return value >= 0 && value <= 1;
}

static enum simulate_verdict check_options(const struct simulate_options *options)
{
    if (options->tools < 1 || options->tools > SIMULATE_TOOLS_MAX)
        return refuse("the number of tools must be 1 to %d", SIMULATE_TOOLS_MAX);
    if (options->connections > SIMULATE_LINKS_MAX)
        return refuse("the number of connections must be at most %d", SIMULATE_LINKS_MAX);
    if (options->window < 1 || options->window > SIMULATE_WINDOW_MAX)
        return refuse("the holes under way must be 1 to %d", SIMULATE_WINDOW_MAX);
    if (options->qos > 1)
        return refuse("QoS must be 0 or 1");
    if (!(options->rate >= 0) || !(options->duration_s >= 0) || !(options->timeout_s > 0))
        return refuse("rate and duration must not be negative, and the time-out not zero");
    if (options->duration_s <= 0 && options->holes == 0)
        return refuse("a duration or a number of holes is needed");
    if (!is_share(options->duplicates) || !is_share(options->late_heads) || !is_share(options->malformed) || !is_share(options->no_heads))
        return refuse("shares (duplicates, late heads, malformed, no heads) must be 0 to 1");
    return SIMULATE_DONE;
}

static enum simulate_verdict load_curves(struct simulation *simulation)
{
    const struct simulate_options *options = simulation->options;
    char problem[SIMULATE_PROBLEM_MAX];
    if (options->curves)
        return simulate_curves_read(&simulation->curves, options->curves, problem) == 0 ? SIMULATE_DONE : refuse("%s", problem);
    struct simulate_mix mix;
    if (simulate_mix_parse(&mix, options->shapes ? options->shapes : SIMULATE_SHAPES_DEFAULT, problem) != 0)
        return refuse("%s", problem);
    if (simulate_curves_generate(&simulation->curves, &mix, SIMULATE_GENERATED_CURVES, options->seed) != 0)
        return refuse("%s", error_text(ERR_NO_MEMORY));
    return SIMULATE_DONE;
}

static enum simulate_verdict open_report(struct simulation *simulation)
{
    const char *path = simulation->options->report;
    simulation->report = path ? fopen(path, "w") : NULL;
    return path && !simulation->report ? refuse("%s: cannot be written: %s", path, strerror(errno)) : SIMULATE_DONE;
}

static enum simulate_verdict close_report(struct simulation *simulation)
{
    const char *path = simulation->options->report;
    if (simulation->report && fclose(simulation->report) != 0)
        return refuse("%s: cannot be written: %s", path, strerror(errno));
    return SIMULATE_DONE;
}

static enum simulate_verdict prepare(struct simulation *simulation)
{
    enum simulate_verdict status = check_options(simulation->options);
    if (!status)
        status = load_curves(simulation);
    if (!status)
        status = open_report(simulation);
    if (status)
        return status;
    simulation->topics = topics_defaults;
    if (simulation->options->root)
        simulation->topics.root = simulation->options->root;
    simulation->tally = calloc(1, sizeof *simulation->tally);
    int error = simulation->tally ? 0 : ERR_NO_MEMORY;
    if (!error)
        error = simulate_ledger_init(&simulation->ledger, (size_t)simulation->options->window * SLOTS_PER_WINDOW + SLOTS_MORE);
    if (!error)
        error = simulate_play_init(simulation, clock_wall_ns() / 1000000000);
    return error ? refuse("%s", error_text(error)) : SIMULATE_DONE;
}

static void release(struct simulation *simulation)
{
    load_client_destroy(simulation->client);
    simulate_play_fini(simulation);
    simulate_ledger_fini(&simulation->ledger);
    simulate_curves_fini(&simulation->curves);
    free(simulation->tally);
}

/* Why it could not begin or go on; "" when it could. */
static void describe(const struct simulation *simulation, int error, char text[WHY_MAX])
{
    text[0] = 0;
    if (error)
        snprintf(text, WHY_MAX, "%s", simulation->problem[0] ? simulation->problem : error_text(error));
    else if (simulation->begin_ns == 0)
        snprintf(text, WHY_MAX, "no connection to %s:%u: %s", simulation->options->host, simulation->options->port, simulation->problem);
}

static enum simulate_verdict conclude(const struct simulation *simulation, int error)
{
    const struct simulate_tally *tally = simulation->tally;
    char why[WHY_MAX];
    describe(simulation, error, why);
    simulate_report_summary(simulation, why, atomic_load(&signals) > 0);
    if (*why)
        fprintf(stderr, "simulate: %s\n", why);
    bool wrong = tally->unreadable_answers || tally->wrong_identity || tally->wrong_head;
    return *why || simulation->ledger.lost || wrong ? SIMULATE_FAILED : SIMULATE_DONE;
}

enum simulate_verdict simulate(const struct simulate_options *options)
{
    struct simulation simulation = {.options = options};
    enum simulate_verdict status = prepare(&simulation);
    if (!status) {
        atomic_store(&signals, 0);
        struct sigaction action = {.sa_handler = on_signal}, interrupt, terminate;
        sigaction(SIGINT, &action, &interrupt);
        sigaction(SIGTERM, &action, &terminate);
        int error = connect_all(&simulation);
        if (!error)
            error = run(&simulation);
        terminal_progress_end();
        sigaction(SIGINT, &interrupt, NULL);
        sigaction(SIGTERM, &terminate, NULL);
        if (simulation.client)
            close_books(&simulation);
        status = conclude(&simulation, error);
        enum simulate_verdict report_status = close_report(&simulation);
        status = status ? status : report_status;
    }
    release(&simulation);
    return status;
}
