/* The coordinator (the caller's thread) sleeps while the load threads work; it says when to begin, reads the server's CPU time, and
 * decides when nothing more will come. */
#include "load/load_scenario.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "load/load_client.h"
#include "load/load_process.h"
#include "load/load_sequence.h"

enum { CONNECT_TIMEOUT_S = 20, CLOCK_EVERY = 32, TOPIC_MAX = 64 };

#define SECOND_NS UINT64_C(1000000000)
#define TICK_NS   UINT64_C(50000) /* an open loop does not wake up more often: it shares its processors with the server */

struct stamp {
    uint64_t due_ns;
    uint32_t publisher, number;
};

struct publisher {
    struct worker *worker;
    struct load_connection *connection;
    char topic[TOPIC_MAX];
    uint32_t index, number; /* number of the next message */
    double next_due_ns, interval_ns;
};

struct subscriber {
    struct worker *worker;
    struct load_connection *connection;
    bool subscribed, first;
    struct load_sequence *sequences; /* [publishers] */
};

struct worker {
    struct run *run;
    pthread_t thread;
    struct load_client *client;
    struct publisher *publishers; /* part of the run's array */
    struct subscriber *subscribers;
    unsigned publisher_count, subscriber_count;
    uint8_t *payload; /* [payload_bytes] */
    uint64_t published, acknowledged, refused, delivered;
    uint64_t measured_published, measured_acknowledged, measured_delivered;
    struct histogram deliver_ns, acknowledge_ns;
    double cpu_begin_s, cpu_s;
    bool measuring, measured;
    int error;
};

struct run {
    const struct load_scenario *scenario;
    struct worker *workers;
    struct publisher *publishers;
    struct subscriber *subscribers;
    struct load_sequence *sequences; /* [subscribers * publishers] */
    unsigned worker_count;
    atomic_uint waiting;         /* connections and subscriptions that are not there yet */
    _Atomic uint64_t begin_ns;   /* 0: not yet */
    uint64_t measure_ns, end_ns; /* set before begin_ns */
    _Atomic uint64_t published, settled, delivered, first_delivered, forgiven;
    atomic_uint disconnects;
    atomic_bool stop;
    pthread_mutex_t problem_lock;
    char problem[LOAD_PROBLEM_MAX]; /* the first one */
};

static void note_problem(struct run *run, const char *text)
{
    pthread_mutex_lock(&run->problem_lock);
    if (!run->problem[0])
        snprintf(run->problem, sizeof run->problem, "%s", text);
    pthread_mutex_unlock(&run->problem_lock);
}

/* ---- what happens on connections; a context is a publisher or a subscriber, told apart by the client's two sets of handlers ---- */

static bool in_window(const struct run *run, uint64_t time_ns)
{
    return time_ns >= run->measure_ns && time_ns < run->end_ns;
}

static void on_disconnected(void *context, struct load_connection *connection, int error, const char *reason)
{
    (void)connection;
    (void)error;
    struct worker *worker = *(struct worker **)context; /* first member of both */
    atomic_fetch_add(&worker->run->disconnects, 1);
    note_problem(worker->run, reason);
}

static void on_connected(void *context, struct load_connection *connection)
{
    struct worker *worker = *(struct worker **)context;
    struct run *run = worker->run;
    bool is_publisher =
        (struct publisher *)context >= run->publishers && (struct publisher *)context < run->publishers + run->scenario->publishers;
    if (is_publisher)
        atomic_fetch_sub(&run->waiting, 1);
    else if (load_connection_subscribe(connection, "spindle/bench/+", run->scenario->subscribe_qos) != 0)
        note_problem(run, "the subscription could not be sent");
}

static void on_subscribed(void *context, struct load_connection *connection, bool granted)
{
    (void)connection;
    struct subscriber *subscriber = context;
    if (!granted)
        note_problem(subscriber->worker->run, "the server refused the subscription");
    subscriber->subscribed = true;
    atomic_fetch_sub(&subscriber->worker->run->waiting, 1);
}

static void on_acknowledged(void *context, struct load_connection *connection, uint32_t tag, uint64_t due_ns, uint8_t reason)
{
    (void)connection;
    (void)tag;
    struct worker *worker = ((struct publisher *)context)->worker;
    uint64_t now_ns = load_client_now_ns(worker->client);
    worker->acknowledged++;
    worker->refused += reason >= 0x80;
    worker->measured_acknowledged += in_window(worker->run, now_ns);
    if (in_window(worker->run, due_ns))
        histogram_record(&worker->acknowledge_ns, now_ns > due_ns ? now_ns - due_ns : 0);
}

static void on_received(void *context, struct load_connection *connection, const struct mqtt_publish *publish)
{
    (void)connection;
    struct subscriber *subscriber = context;
    struct worker *worker = subscriber->worker;
    struct stamp stamp;
    if (publish->payload.length < LOAD_STAMP_SIZE)
        return;
    memcpy(&stamp, publish->payload.data, sizeof stamp);
    if (stamp.publisher >= worker->run->scenario->publishers)
        return;
    uint64_t now_ns = load_client_now_ns(worker->client);
    load_sequence_take(&subscriber->sequences[stamp.publisher], stamp.number);
    worker->delivered++;
    worker->measured_delivered += in_window(worker->run, now_ns);
    if (in_window(worker->run, stamp.due_ns))
        histogram_record(&worker->deliver_ns, now_ns > stamp.due_ns ? now_ns - stamp.due_ns : 0);
}

/* ---- publishing ---- */

static int publish_one(struct publisher *publisher, uint64_t due_ns)
{
    struct worker *worker = publisher->worker;
    const struct load_scenario *scenario = worker->run->scenario;
    struct stamp stamp = {due_ns, publisher->index, publisher->number};
    memcpy(worker->payload, &stamp, sizeof stamp);
    struct mqtt_publish publish = {
        .qos = scenario->publish_qos,
        .topic = {(const uint8_t *)publisher->topic, (uint32_t)strlen(publisher->topic)},
        .payload = {worker->payload, scenario->payload_bytes},
    };
    int error = load_connection_publish(publisher->connection, &publish, 0, due_ns);
    if (error)
        return error;
    publisher->number++;
    worker->published++;
    worker->measured_published += in_window(worker->run, due_ns);
    return 0;
}

/* As many as the window allows. QoS 0 has none of its own: what subscribers have not seen yet takes its place. */
static void publish_closed(struct worker *worker)
{
    struct run *run = worker->run;
    const struct load_scenario *scenario = run->scenario;
    uint64_t now_ns = load_client_now_ns(worker->client), room = UINT64_MAX;
    if (scenario->publish_qos == 0 && scenario->subscribers) {
        uint64_t gone = atomic_load(&run->first_delivered) + atomic_load(&run->forgiven), out = atomic_load(&run->published);
        uint64_t window = (uint64_t)scenario->inflight * scenario->publishers, waiting = out > gone ? out - gone : 0;
        room = waiting < window ? window - waiting : 0;
    }
    for (unsigned i = 0; i < worker->publisher_count && room; i++) {
        struct publisher *publisher = &worker->publishers[i];
        uint64_t share = room == UINT64_MAX ? room : (room + worker->publisher_count - 1) / worker->publisher_count;
        for (uint64_t sent = 0; sent < share && load_connection_ready(publisher->connection, scenario->publish_qos); sent++) {
            if (sent % CLOCK_EVERY == CLOCK_EVERY - 1)
                now_ns = clock_monotonic_ns();
            if (publish_one(publisher, now_ns) != 0)
                break;
        }
    }
}

/* All that is due. Returns when the next one is. */
static uint64_t publish_open(struct worker *worker, uint64_t now_ns)
{
    double next_ns = (double)worker->run->end_ns;
    for (unsigned i = 0; i < worker->publisher_count; i++) {
        struct publisher *publisher = &worker->publishers[i];
        while (publisher->next_due_ns <= (double)now_ns && publisher->next_due_ns < (double)worker->run->end_ns &&
               publish_one(publisher, (uint64_t)publisher->next_due_ns) == 0)
            publisher->next_due_ns += publisher->interval_ns;
        if (publisher->next_due_ns > (double)now_ns && publisher->next_due_ns < next_ns)
            next_ns = publisher->next_due_ns;
    }
    return (uint64_t)next_ns > now_ns + TICK_NS ? (uint64_t)next_ns : now_ns + TICK_NS;
}

static void begin_publishers(struct worker *worker, uint64_t begin_ns)
{
    const struct load_scenario *scenario = worker->run->scenario;
    for (unsigned i = 0; i < worker->publisher_count && scenario->rate > 0; i++) {
        struct publisher *publisher = &worker->publishers[i];
        double spacing_ns = 1e9 / scenario->rate;
        publisher->interval_ns = spacing_ns * scenario->publishers;
        publisher->next_due_ns = (double)begin_ns + spacing_ns * publisher->index;
    }
}

/* ---- a load thread ---- */

/* Makes the worker's counts known to the coordinator and to the other workers. */
static void share_counts(struct worker *worker, uint64_t before[3])
{
    struct run *run = worker->run;
    atomic_fetch_add_explicit(&run->published, worker->published - before[0], memory_order_relaxed);
    atomic_fetch_add_explicit(&run->settled, worker->acknowledged - before[1], memory_order_relaxed);
    atomic_fetch_add_explicit(&run->delivered, worker->delivered - before[2], memory_order_relaxed);
    before[0] = worker->published;
    before[1] = worker->acknowledged;
    before[2] = worker->delivered;
    for (unsigned i = 0; i < worker->subscriber_count; i++) {
        if (worker->subscribers[i].first && run->scenario->publish_qos == 0) {
            uint64_t received = 0;
            for (unsigned j = 0; j < run->scenario->publishers; j++)
                received += worker->subscribers[i].sequences[j].received;
            atomic_store(&run->first_delivered, received);
        }
    }
}

static void note_cpu(struct worker *worker, uint64_t now_ns)
{
    if (!worker->measuring && now_ns >= worker->run->measure_ns) {
        worker->measuring = true;
        worker->cpu_begin_s = load_thread_cpu_s();
    }
    if (worker->measuring && !worker->measured && now_ns >= worker->run->end_ns) {
        worker->measured = true;
        worker->cpu_s = load_thread_cpu_s() - worker->cpu_begin_s;
    }
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct run *run = worker->run;
    uint64_t shared[3] = {0}, begin_ns = 0;
    while (!atomic_load(&run->stop) && !worker->error) {
        uint64_t now_ns = load_client_now_ns(worker->client), until_ns = now_ns + SECOND_NS / 100;
        if (!begin_ns && (begin_ns = atomic_load(&run->begin_ns)) != 0)
            begin_publishers(worker, begin_ns);
        if (begin_ns) {
            if (now_ns < run->end_ns && run->scenario->rate > 0)
                until_ns = publish_open(worker, clock_monotonic_ns());
            else if (now_ns < run->end_ns)
                publish_closed(worker);
            note_cpu(worker, now_ns);
            share_counts(worker, shared);
        }
        worker->error = load_client_turn(worker->client, run->scenario->spin ? 0 : until_ns);
    }
    share_counts(worker, shared);
    return NULL;
}

/* ---- setting up ---- */

static int open_connections(struct worker *worker)
{
    const struct load_scenario *scenario = worker->run->scenario;
    struct load_connection_options options = {.version = scenario->version, .keep_alive_s = 60};
    char name[64];
    unsigned run_id = (unsigned)(clock_wall_ns() / 1000);
    options.client_id = name;
    int error = 0;
    for (unsigned i = 0; i < worker->subscriber_count && !error; i++) {
        snprintf(name, sizeof name, "spindle-bench-%08x-s%u", run_id, (unsigned)(&worker->subscribers[i] - worker->run->subscribers));
        error = load_connection_open(worker->client, &options, &worker->subscribers[i], &worker->subscribers[i].connection);
    }
    options.inflight_max = scenario->publish_qos ? (uint16_t)scenario->inflight : 0;
    for (unsigned i = 0; i < worker->publisher_count && !error; i++) {
        snprintf(name, sizeof name, "spindle-bench-%08x-p%u", run_id, worker->publishers[i].index);
        error = load_connection_open(worker->client, &options, &worker->publishers[i], &worker->publishers[i].connection);
    }
    return error;
}

/* Publishers are dealt to all workers but the first, which has the subscribers; a single worker has both. */
static int create_worker(struct run *run, unsigned index)
{
    const struct load_scenario *scenario = run->scenario;
    static const struct load_handlers handlers = {.connected = on_connected,
                                                  .subscribed = on_subscribed,
                                                  .acknowledged = on_acknowledged,
                                                  .disconnected = on_disconnected,
                                                  .received = on_received};
    struct worker *worker = &run->workers[index];
    worker->run = run;
    unsigned parts = run->worker_count > 1 ? run->worker_count - 1 : 1, part = run->worker_count > 1 ? index - 1 : 0;
    if (run->worker_count == 1 || index > 0) {
        unsigned first = scenario->publishers * part / parts, end = scenario->publishers * (part + 1) / parts;
        worker->publishers = run->publishers + first;
        worker->publisher_count = end - first;
    }
    if (index == 0) {
        worker->subscribers = run->subscribers;
        worker->subscriber_count = scenario->subscribers;
    }
    for (unsigned i = 0; i < worker->publisher_count; i++) {
        struct publisher *publisher = &worker->publishers[i];
        publisher->worker = worker;
        publisher->index = (uint32_t)(publisher - run->publishers);
        snprintf(publisher->topic, sizeof publisher->topic, "spindle/bench/%u", publisher->index);
    }
    for (unsigned i = 0; i < worker->subscriber_count; i++) {
        worker->subscribers[i] =
            (struct subscriber){.worker = worker, .first = i == 0, .sequences = run->sequences + (size_t)i * scenario->publishers};
    }
    worker->payload = calloc(1, scenario->payload_bytes);
    if (!worker->payload)
        return ERR_NO_MEMORY;
    memset(worker->payload, 'x', scenario->payload_bytes);
    int error = load_client_create(&worker->client, scenario->host, scenario->port, &handlers);
    return error ? error : open_connections(worker);
}

static int create_run(struct run *run, const struct load_scenario *scenario)
{
    run->scenario = scenario;
    run->worker_count = scenario->threads;
    run->workers = calloc(run->worker_count, sizeof *run->workers);
    run->publishers = calloc(scenario->publishers, sizeof *run->publishers);
    run->subscribers = calloc(scenario->subscribers + 1u, sizeof *run->subscribers);
    run->sequences = calloc((size_t)scenario->subscribers * scenario->publishers + 1, sizeof *run->sequences);
    if (!run->workers || !run->publishers || !run->subscribers || !run->sequences)
        return ERR_NO_MEMORY;
    atomic_store(&run->waiting, scenario->publishers + scenario->subscribers);
    int error = 0;
    for (unsigned i = 0; i < run->worker_count && !error; i++)
        error = create_worker(run, i);
    return error;
}

static void destroy_run(struct run *run)
{
    for (unsigned i = 0; run->workers && i < run->worker_count; i++) {
        load_client_destroy(run->workers[i].client);
        free(run->workers[i].payload);
    }
    free(run->workers);
    free(run->publishers);
    free(run->subscribers);
    free(run->sequences);
}

/* ---- the coordinator ---- */

static void sleep_until(uint64_t time_ns)
{
    struct timespec time = {.tv_sec = (time_t)(time_ns / SECOND_NS), .tv_nsec = (long)(time_ns % SECOND_NS)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) != 0)
        ;
}

/* False when the connections do not come about in time, or one was lost. */
static bool wait_for_connections(struct run *run)
{
    uint64_t deadline_ns = clock_monotonic_ns() + CONNECT_TIMEOUT_S * SECOND_NS;
    while (atomic_load(&run->waiting) > 0 && !atomic_load(&run->disconnects)) {
        if (clock_monotonic_ns() > deadline_ns) {
            note_problem(run, "the server does not accept all connections in time");
            return false;
        }
        sleep_until(clock_monotonic_ns() + SECOND_NS / 1000);
    }
    return !atomic_load(&run->disconnects);
}

/* QoS 0 messages that a server has dropped would fill the window for ever: after half a second without a delivery they are let go. */
static void forgive_losses(struct run *run, uint64_t *last_delivered, uint64_t *since_ns, uint64_t now_ns)
{
    uint64_t delivered = atomic_load(&run->first_delivered);
    if (delivered != *last_delivered) {
        *last_delivered = delivered;
        *since_ns = now_ns;
    } else if (now_ns > *since_ns + SECOND_NS / 2) {
        uint64_t published = atomic_load(&run->published);
        if (published > delivered)
            atomic_store(&run->forgiven, published - delivered);
        *since_ns = now_ns;
    }
}

static void watch_until(struct run *run, uint64_t end_ns)
{
    uint64_t last_delivered = 0, since_ns = clock_monotonic_ns(), now_ns;
    while ((now_ns = clock_monotonic_ns()) < end_ns && !atomic_load(&run->disconnects)) {
        uint64_t next_ns = now_ns + SECOND_NS / 10;
        sleep_until(next_ns < end_ns ? next_ns : end_ns);
        if (run->scenario->publish_qos == 0 && run->scenario->subscribers && run->scenario->rate <= 0)
            forgive_losses(run, &last_delivered, &since_ns, now_ns);
    }
}

/* Waits until everything that was published is acknowledged and delivered, or nothing has come for drain_s. */
static void drain(struct run *run)
{
    const struct load_scenario *scenario = run->scenario;
    uint64_t last = 0, since_ns = clock_monotonic_ns();
    while (!atomic_load(&run->disconnects)) {
        sleep_until(clock_monotonic_ns() + SECOND_NS / 100);
        uint64_t published = atomic_load(&run->published), settled = atomic_load(&run->settled), delivered = atomic_load(&run->delivered);
        uint64_t now_ns = clock_monotonic_ns();
        if ((scenario->publish_qos == 0 || settled >= published) && delivered >= published * scenario->subscribers &&
            now_ns > run->end_ns + SECOND_NS / 20)
            return;
        if (published + settled + delivered != last) {
            last = published + settled + delivered;
            since_ns = now_ns;
        } else if (now_ns > since_ns + (uint64_t)(scenario->drain_s * 1e9)) {
            return;
        }
    }
}

static void conduct(struct run *run, struct load_result *result)
{
    const struct load_scenario *scenario = run->scenario;
    struct load_process_usage before, after;
    uint64_t begin_ns = clock_monotonic_ns() + SECOND_NS / 100;
    run->measure_ns = begin_ns + (uint64_t)(scenario->warmup_s * 1e9);
    run->end_ns = run->measure_ns + (uint64_t)(scenario->duration_s * 1e9);
    atomic_store(&run->begin_ns, begin_ns);
    watch_until(run, run->measure_ns);
    load_process_read_if_known(scenario->server_pid, &before);
    watch_until(run, run->end_ns);
    load_process_read_if_known(scenario->server_pid, &after);
    drain(run);
    result->measured_s = scenario->duration_s;
    result->server_cpu_s = load_process_cpu_between(&before, &after);
    result->server_resident_before_bytes = before.resident_bytes;
    result->server_resident_bytes = after.resident_bytes;
}

static void gather(const struct run *run, struct load_result *result)
{
    const struct load_scenario *scenario = run->scenario;
    for (unsigned i = 0; i < run->worker_count; i++) {
        const struct worker *worker = &run->workers[i];
        result->published += worker->published;
        result->acknowledged += worker->acknowledged;
        result->refused += worker->refused;
        result->delivered += worker->delivered;
        result->measured_published += worker->measured_published;
        result->measured_acknowledged += worker->measured_acknowledged;
        result->measured_delivered += worker->measured_delivered;
        result->client_cpu_s += worker->cpu_s;
        histogram_merge(&result->deliver_ns, &worker->deliver_ns);
        histogram_merge(&result->acknowledge_ns, &worker->acknowledge_ns);
    }
    for (size_t i = 0; i < (size_t)scenario->subscribers * scenario->publishers; i++) {
        const struct load_sequence *sequence = &run->sequences[i];
        result->lost += load_sequence_missing(sequence, run->publishers[i % scenario->publishers].number);
        result->duplicates += sequence->duplicates;
        result->late += sequence->late;
    }
}

static int check_scenario(const struct load_scenario *scenario, struct load_result *result)
{
    const char *wrong = NULL;
    if (scenario->publishers < 1 || scenario->publishers > LOAD_PUBLISHERS_MAX)
        wrong = "the number of publishers must be 1 to 10000";
    else if (scenario->subscribers > LOAD_SUBSCRIBERS_MAX || (uint64_t)scenario->subscribers * scenario->publishers > LOAD_PAIRS_MAX)
        wrong = "too many subscribers (at most 10000, and publishers times subscribers at most 100000)";
    else if (scenario->threads < 1 || scenario->threads > LOAD_THREADS_MAX)
        wrong = "the number of threads must be 1 to 64";
    else if (scenario->payload_bytes < LOAD_STAMP_SIZE || scenario->payload_bytes > LOAD_PAYLOAD_MAX)
        wrong = "the payload must have 16 to 16777216 bytes";
    else if (scenario->inflight < 1 || scenario->inflight > 65535)
        wrong = "the messages in flight must be 1 to 65535";
    else if (scenario->publish_qos > 1 || scenario->subscribe_qos > 1)
        wrong = "QoS must be 0 or 1";
    else if (!(scenario->duration_s > 0) || !(scenario->warmup_s >= 0) || !(scenario->rate >= 0) || !(scenario->drain_s >= 0))
        wrong = "times and rates must not be negative, and the duration not zero";
    if (!wrong)
        return 0;
    snprintf(result->problem, sizeof result->problem, "%s", wrong);
    return ERR_INVALID;
}

int load_scenario_run(const struct load_scenario *scenario, struct load_result *result)
{
    *result = (struct load_result){.server_cpu_s = -1};
    int error = check_scenario(scenario, result);
    if (error)
        return error;
    load_file_limit_raise();
    struct run run = {.problem_lock = PTHREAD_MUTEX_INITIALIZER};
    error = create_run(&run, scenario);
    unsigned started = 0;
    for (; !error && started < run.worker_count; started++) {
        if (pthread_create(&run.workers[started].thread, NULL, work, &run.workers[started]) != 0) {
            error = ERR_LIMIT;
            break;
        }
    }
    if (!error && wait_for_connections(&run))
        conduct(&run, result);
    atomic_store(&run.stop, true);
    for (unsigned i = 0; i < started; i++) {
        pthread_join(run.workers[i].thread, NULL);
        error = error ? error : run.workers[i].error;
    }
    if (!error) {
        gather(&run, result);
        result->disconnects = atomic_load(&run.disconnects);
        snprintf(result->problem, sizeof result->problem, "%s", run.problem);
        error = run.problem[0] ? ERR_DISCONNECTED : 0;
    } else {
        snprintf(result->problem, sizeof result->problem, "%s", error == ERR_NOT_FOUND ? "the host is not known" : error_text(error));
    }
    destroy_run(&run);
    return error;
}
