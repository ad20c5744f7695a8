/* The thread: one turn reads from every socket that has something, then notes, submits to the queue and writes; in between it looks at
 * which broker the group should be, and when something is due. */
#include "ingest/ingest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/metrics.h"
#include "ingest/parts.h"

enum { START_WAIT_MS = 5000, STOP_WAIT_MS = 2000, CHECKPOINT_S = 10 };

static const char *const breaker_words[] = {"half-open", "closed", "open"};

/* ---- brokers ---- */

void ingest_breaker_note(struct broker *broker)
{
    atomic_store(&broker->breaker_state, (int)broker->breaker.state);
}

static void set_trouble(struct ingest *ingest, struct broker *broker, const char *why)
{
    pthread_mutex_lock(&ingest->lock);
    snprintf(broker->trouble, sizeof broker->trouble, "%s", why);
    pthread_mutex_unlock(&ingest->lock);
}

void ingest_link_opened(struct link *link)
{
    struct broker *broker = broker_link_broker(link);
    breaker_succeeded(&broker->breaker);
    ingest_breaker_note(broker);
    if (link->role == LINK_PROBE) {
        broker_link_close(link, true);
        return;
    }
    link->after_outage = link->outages[link->broker] != broker->outages;
    link->outages[link->broker] = broker->outages;
    ingest_count(&broker->connects, 1);
}

void ingest_link_in_use(struct link *link)
{
    struct broker *broker = broker_link_broker(link);
    if (link->in_use)
        return;
    link->in_use = true;
    set_trouble(link->ingest, broker, "");
    if (atomic_fetch_add(&broker->connected, 1) == 0)
        diagnostics(DIAGNOSTICS_INFO, "ingest", "connected to broker %s as %s (MQTT %s)", broker->name, link->client_id,
                    broker_link_session(link)->version == MQTT_VERSION_5_0 ? "5.0" : "3.1.1");
}

void ingest_link_ended(struct link *link, bool was_open, bool was_in_use, bool refused, const char *why)
{
    struct ingest *ingest = link->ingest;
    struct broker *broker = broker_link_broker(link);
    if (was_in_use && atomic_fetch_sub(&broker->connected, 1) == 1)
        broker->outages++;
    if (!why) { /* our own doing */
        if (!was_open)
            breaker_gave_up(&broker->breaker);
        return;
    }
    ingest_count(&broker->failures, 1);
    set_trouble(ingest, broker, why);
    bool opened = false;
    if (!was_open || refused)
        opened = breaker_failed(&broker->breaker, &ingest->options.breaker, refused, ingest->now_ns);
    ingest_breaker_note(broker);
    if (opened)
        diagnostics(DIAGNOSTICS_WARNING, "ingest", "broker %s cannot be used: %s; it is tried again in %.1f s", broker->name, why,
                    (double)(broker->breaker.until_ns - ingest->now_ns) / 1e9);
    else if (was_open || broker->breaker.failures == 1)
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "ingest", "broker %s, %s: %s", broker->name, link->client_id, why);
}

/* The first that is known to be well; else of those that may be tried the one that has failed least. */
static unsigned choose(const struct ingest *ingest)
{
    unsigned best = ingest->active;
    bool found = false;
    for (unsigned i = 0; i < ingest->group_count; i++)
        if (ingest->brokers[i].breaker.state == BREAKER_CLOSED)
            return i;
    for (unsigned i = 0; i < ingest->group_count; i++) {
        const struct breaker *breaker = &ingest->brokers[i].breaker;
        if (breaker_is_usable(breaker, ingest->now_ns) && (!found || breaker->failures < ingest->brokers[best].breaker.failures)) {
            best = i;
            found = true;
        }
    }
    return best;
}

static void move(struct ingest *ingest, unsigned to)
{
    diagnostics(DIAGNOSTICS_INFO, "ingest", "broker %s is used from now on instead of %s", ingest->brokers[to].name,
                ingest->brokers[ingest->active].name);
    ingest->active = to;
    for (unsigned i = 0; i < ingest->link_count; i++)
        if (ingest->links[i] != ingest->probe && !ingest->links[i]->bridge && ingest->links[i]->broker != to)
            broker_link_close(ingest->links[i], true);
}

static void open_links(struct ingest *ingest)
{
    for (unsigned i = 0; i < ingest->link_count; i++) {
        struct link *link = ingest->links[i];
        if (link == ingest->probe || link->state != LINK_IDLE || ingest->now_ns < link->next_ns)
            continue;
        unsigned target = broker_link_target(link);
        struct broker *broker = &ingest->brokers[target];
        if (!breaker_try(&broker->breaker, ingest->now_ns))
            continue;
        ingest_breaker_note(broker);
        link->broker = target;
        link->clean = link->role == LINK_OUTFLOW && outflow_begins_clean(link->outflow, broker);
        broker_link_open(link);
    }
}

/* While the group is not at the broker that it likes best, somebody looks whether it could be. */
static void open_probe(struct ingest *ingest)
{
    struct link *probe = ingest->probe;
    if (!probe || probe->state != LINK_IDLE || ingest->now_ns < probe->next_ns)
        return;
    for (unsigned i = 0; i < ingest->active; i++) {
        if (!breaker_try(&ingest->brokers[i].breaker, ingest->now_ns))
            continue;
        ingest_breaker_note(&ingest->brokers[i]);
        probe->broker = i;
        broker_link_open(probe);
        return;
    }
}

/* ---- time ---- */

static void on_timer(uv_timer_t *timer)
{
    (void)timer; /* what is due is done at the end of the turn */
}

/* When a link that waits could be opened. */
static uint64_t opening_ns(const struct ingest *ingest, const struct link *link)
{
    uint64_t at_ns = link->next_ns;
    if (link == ingest->probe) {
        uint64_t first_ns = UINT64_MAX;
        for (unsigned i = 0; i < ingest->active; i++) {
            const struct breaker *breaker = &ingest->brokers[i].breaker;
            uint64_t usable_ns = breaker->state == BREAKER_OPEN ? breaker->until_ns : 0;
            first_ns = usable_ns < first_ns ? usable_ns : first_ns;
        }
        return first_ns > at_ns ? first_ns : at_ns;
    }
    const struct breaker *breaker = &ingest->brokers[broker_link_target(link)].breaker;
    if (breaker->probing && breaker->state == BREAKER_HALF_OPEN)
        return UINT64_MAX; /* whoever is trying ends that */
    return breaker->state == BREAKER_OPEN && breaker->until_ns > at_ns ? breaker->until_ns : at_ns;
}

/* Who is held back is not resumed yet. */
static bool disk_is_behind(const struct ingest *ingest)
{
    return ingest->producer->ops->backlog(ingest->producer) > ingest->options.backlog_max / 2;
}

static void watch(struct ingest *ingest)
{
    uint64_t next_ns = ingest->checkpointing ? UINT64_MAX : ingest->checkpoint_ns + CHECKPOINT_S * UINT64_C(1000000000);
    bool may_open = ingest->settled && !ingest->stopping;
    for (unsigned i = 0; i < ingest->link_count; i++) {
        struct link *link = ingest->links[i];
        uint64_t at_ns = link->state != LINK_IDLE ? broker_link_check(link) : may_open ? opening_ns(ingest, link) : UINT64_MAX;
        next_ns = at_ns < next_ns ? at_ns : next_ns;
    }
    if (ingest->retry_ns && !ingest->quiet && !disk_is_behind(ingest) && ingest->retry_ns < next_ns)
        next_ns = ingest->retry_ns;
    if (ingest->stopping && ingest->stop_ns < next_ns)
        next_ns = ingest->stop_ns;
    for (unsigned i = 0; i < ingest->outflow_count; i++) {
        uint64_t at_ns = outflow_due_ns(ingest->outflows[i]);
        next_ns = at_ns < next_ns ? at_ns : next_ns;
    }
    uint64_t wait_ms = next_ns <= ingest->now_ns ? 1 : (next_ns - ingest->now_ns) / 1000000u + 1;
    if (next_ns == UINT64_MAX)
        uv_timer_stop(&ingest->timer);
    else
        uv_timer_start(&ingest->timer, on_timer, wait_ms, 0);
}

/* ---- notes ---- */

/* Where nothing is new it looks again after the same time. */
static bool checkpoint_is_due(struct ingest *ingest)
{
    const struct notes *notes = &ingest->notes;
    if (ingest->checkpointing)
        return false;
    if (notes->since_count >= NOTES_CHECKPOINT_EVERY || notes->since_bytes >= NOTES_CHECKPOINT_BYTES)
        return true;
    if (ingest->now_ns - ingest->checkpoint_ns < CHECKPOINT_S * UINT64_C(1000000000))
        return false;
    uint64_t first, consumed, kept; /* without a checkpoint nothing of what was written since could be removed */
    ingest->options.queue->ops->extent(ingest->options.queue, QUEUE_CONTENT_CONSUMED, &first, &consumed);
    ingest->options.queue->ops->extent(ingest->options.queue, QUEUE_CONTENT_KEPT, &first, &kept);
    bool due = notes->since_count || consumed != notes->from.consumed || kept != notes->from.kept;
    if (!due)
        ingest->checkpoint_ns = ingest->now_ns;
    return due;
}

static int checkpoint(struct ingest *ingest)
{
    int error = notes_checkpoint(&ingest->notes, ingest->options.queue, ingest->producer, intake_each_held, ingest,
                                 (uint64_t)TOKEN_CHECKPOINT << 60);
    ingest->checkpointing = !error;
    ingest->checkpoint_ns = ingest->now_ns;
    return error;
}

/* Nothing is removed before the first checkpoint is durable. */
static void hold(struct ingest *ingest)
{
    struct queue *queue = ingest->options.queue;
    struct notes_places needed = ingest->needed;
    if (!ingest->settled)
        return;
    for (unsigned i = 0; i < ingest->outflow_count; i++) {
        const struct outflow *out = ingest->outflows[i];
        if (out->content == QUEUE_CONTENT_RESULTS)
            queue->ops->hold(queue, QUEUE_CONTENT_RESULTS, QUEUE_HOLDER_BROKERS, out->durable.completed);
        else if (out->durable.completed < needed.kept)
            needed.kept = out->durable.completed;
    }
    queue->ops->hold(queue, QUEUE_CONTENT_CONSUMED, QUEUE_HOLDER_BROKERS, needed.consumed);
    queue->ops->hold(queue, QUEUE_CONTENT_KEPT, QUEUE_HOLDER_BROKERS, needed.kept);
    queue->ops->hold(queue, QUEUE_CONTENT_NOTED, QUEUE_HOLDER_BROKERS, needed.noted);
}

static void checkpoint_durable(struct ingest *ingest)
{
    ingest->checkpointing = false;
    ingest->settled = true;
    atomic_store(&ingest->known, true);
    ingest->needed = ingest->notes.from;
    hold(ingest);
}

/* One group of cursors at a time, with those of all ways out. */
static int write_cursors(struct ingest *ingest)
{
    if (ingest->noting || !ingest->notes.dirty_cursors)
        return 0;
    int error = notes_write_cursors(&ingest->notes, ingest->producer, (uint64_t)TOKEN_CURSOR << 60);
    ingest->noting = !error;
    for (unsigned i = 0; !error && i < ingest->outflow_count; i++)
        outflow_noting(ingest->outflows[i]);
    return error;
}

static void cursors_durable(struct ingest *ingest)
{
    ingest->noting = false;
    for (unsigned i = 0; i < ingest->outflow_count; i++)
        outflow_noted(ingest->outflows[i]);
    hold(ingest);
}

/* ---- one turn ---- */

static void on_token(struct ingest *ingest, uint64_t token)
{
    switch (token >> 60) {
    case TOKEN_CHECKPOINT:
        checkpoint_durable(ingest);
        break;
    case TOKEN_CURSOR:
        cursors_durable(ingest);
        break;
    default:
        intake_durable(ingest, token);
    }
}

static void on_tokens(void *context, const uint64_t *tokens, size_t count)
{
    for (size_t i = 0; i < count; i++)
        on_token(context, tokens[i]);
}

static void resume(struct ingest *ingest)
{
    ingest->holding = false;
    ingest->retry_ns = 0;
    for (unsigned i = 0; i < ingest->link_count; i++)
        broker_link_resume(ingest->links[i]);
}

static void on_wake(uv_async_t *async)
{
    struct ingest *ingest = async->data;
    ingest->now_ns = uv_now(&ingest->uv) * 1000000u;
    ingest->producer->ops->poll(ingest->producer, on_tokens, ingest);
    if (ingest->holding && !disk_is_behind(ingest))
        resume(ingest);
}

static void write_notes(struct ingest *ingest)
{
    int error = intake_write_notes(ingest);
    if (!error)
        error = write_cursors(ingest);
    if (!error && checkpoint_is_due(ingest))
        error = checkpoint(ingest);
    if (error)
        DIAG_LIMITED(DIAGNOSTICS_ERROR, "ingest", "what has to be known after a restart cannot be noted: %s", error_text(error));
}

static bool is_written(const struct ingest *ingest)
{
    for (unsigned i = 0; i < ingest->link_count; i++)
        if (ingest->links[i]->state == LINK_OPEN && ingest->links[i]->out.length)
            return false;
    return true;
}

static void close_all(struct ingest *ingest)
{
    for (unsigned i = 0; i < ingest->link_count; i++)
        broker_link_close(ingest->links[i], true);
    atomic_store(&ingest->deaf, true);
    uv_close((uv_handle_t *)&ingest->wake, NULL);
    uv_close((uv_handle_t *)&ingest->timer, NULL);
    uv_close((uv_handle_t *)&ingest->turn_end, NULL);
}

/* Whether the thread has come to its end. */
static bool end_turn(struct ingest *ingest)
{
    if (atomic_load(&ingest->quiesce))
        ingest->quiet = true;
    if (ingest->quiet && ingest->producer->ops->backlog(ingest->producer) == 0 && ingest->producer->ops->gathered(ingest->producer) == 0 &&
        is_written(ingest))
        atomic_store(&ingest->drained, true);
    if (!atomic_load(&ingest->stop))
        return false;
    if (!ingest->stopping)
        ingest->stop_ns = ingest->now_ns + STOP_WAIT_MS * UINT64_C(1000000);
    ingest->stopping = ingest->quiet = true;
    for (unsigned i = 0; i < ingest->outflow_count && ingest->now_ns < ingest->stop_ns; i++)
        if (ingest->outflows[i]->link->state == LINK_OPEN && !outflow_is_idle(ingest->outflows[i]))
            return false;
    close_all(ingest);
    return true;
}

static void on_turn_end(uv_check_t *check)
{
    struct ingest *ingest = check->data;
    uv_update_time(&ingest->uv);
    ingest->now_ns = uv_now(&ingest->uv) * 1000000u;
    if (ingest->settled && !ingest->stopping) {
        unsigned best = choose(ingest);
        if (best != ingest->active)
            move(ingest, best);
        open_links(ingest);
        open_probe(ingest);
    }
    if (ingest->retry_ns && ingest->now_ns >= ingest->retry_ns && !ingest->quiet && !disk_is_behind(ingest))
        resume(ingest);
    for (unsigned i = 0; i < ingest->outflow_count; i++)
        outflow_turn(ingest->outflows[i]);
    write_notes(ingest);
    ingest->producer->ops->submit(ingest->producer);
    watch(ingest);
    for (unsigned i = 0; i < ingest->link_count; i++)
        if (ingest->links[i]->dirty)
            broker_link_flush(ingest->links[i]);
    watch(ingest); /* that may have ended a link */
    end_turn(ingest);
}

static void on_durable(void *context)
{
    struct ingest *ingest = context;
    if (!atomic_load(&ingest->deaf))
        uv_async_send(&ingest->wake);
}

/* ---- metrics ---- */

static void collect(void *owner, struct metrics_writer *writer)
{
    static const char *const levels[] = {"0", "1", "2"};
    struct ingest *ingest = owner;
    for (size_t i = 0; i < ingest->broker_count; i++) {
        struct broker *broker = &ingest->brokers[i];
        metrics_sample_u64(writer, METRIC_INGEST_CONNECTIONS, atomic_load(&broker->connected), "broker", broker->name, NULL);
        metrics_sample_u64(writer, METRIC_INGEST_CONNECTS, atomic_load(&broker->connects), "broker", broker->name, NULL);
        metrics_sample_u64(writer, METRIC_INGEST_FAILURES, atomic_load(&broker->failures), "broker", broker->name, NULL);
        if (broker->options.tls)
            metrics_sample_u64(writer, METRIC_INGEST_TLS_FAILURES, atomic_load(&broker->tls_failures), "broker", broker->name, NULL);
        for (int state = 0; state < 3; state++)
            metrics_sample_u64(writer, METRIC_INGEST_BREAKER, atomic_load(&broker->breaker_state) == state, "broker", broker->name, "state",
                               breaker_words[state], NULL);
    }
    for (unsigned i = 0; i < 3; i++)
        metrics_sample_u64(writer, METRIC_INGEST_RECEIVED, atomic_load(&ingest->counters.received[i]), "qos", levels[i], NULL);
    metrics_sample_u64(writer, METRIC_INGEST_ACKNOWLEDGED, atomic_load(&ingest->counters.acknowledged), NULL);
    metrics_sample_u64(writer, METRIC_INGEST_REPEATED, atomic_load(&ingest->counters.repeated), NULL);
    metrics_sample_u64(writer, METRIC_INGEST_SKIPPED, atomic_load(&ingest->counters.skipped), NULL);
    metrics_sample_u64(writer, METRIC_INGEST_PAUSES, atomic_load(&ingest->counters.pauses), NULL);
    metrics_sample_u64(writer, METRIC_INGEST_BYTES_RECEIVED, atomic_load(&ingest->counters.bytes_received), NULL);
    metrics_sample_u64(writer, METRIC_INGEST_BYTES_SENT, atomic_load(&ingest->counters.bytes_sent), NULL);
    bridge_collect(ingest, writer);
    if (!ingest->options.results)
        return;
    metrics_sample_u64(writer, METRIC_INGEST_RESULTS, atomic_load(&ingest->results.acknowledged), NULL);
    metrics_sample_u64(writer, METRIC_INGEST_RESULTS_REFUSED, atomic_load(&ingest->results.refused), NULL);
    metrics_sample_u64(writer, METRIC_INGEST_RESULTS_LAG, atomic_load(&ingest->results.lag), NULL);
    metrics_sample_u64(writer, METRIC_INGEST_RESULTS_INFLIGHT, atomic_load(&ingest->results.inflight), NULL);
}

bool ingest_ready(struct ingest *ingest, struct buffer *text)
{
    bool ready = ingest->group_count == 0; /* what waits for the broker of a rule waits on disk, and nothing else with it */
    for (size_t i = 0; i < ingest->broker_count; i++) {
        struct broker *broker = &ingest->brokers[i];
        uint32_t connected = atomic_load(&broker->connected);
        ready = ready || (i < ingest->group_count && connected);
        buffer_printf(text, "%s%u connections to broker %s (circuit breaker %s)", i ? "; " : "", connected, broker->name,
                      breaker_words[atomic_load(&broker->breaker_state)]);
        pthread_mutex_lock(&ingest->lock);
        if (broker->trouble[0])
            buffer_printf(text, ", last: %s", broker->trouble);
        pthread_mutex_unlock(&ingest->lock);
    }
    return ready;
}

int ingest_status(struct ingest *ingest, struct buffer *json)
{
    int error = buffer_printf(json, "{\"group\":");
    error = error ? error : buffer_append_json_string(json, ingest->group, strlen(ingest->group), 0);
    error = error ? error : buffer_append_text(json, ",\"brokers\":[");
    for (size_t i = 0; i < ingest->broker_count && !error; i++) {
        struct broker *broker = &ingest->brokers[i];
        error = buffer_printf(json, "%s{\"connections\":%u,\"circuit_breaker\":\"%s\",\"name\":", i ? "," : "",
                              atomic_load(&broker->connected), breaker_words[atomic_load(&broker->breaker_state)]);
        error = error ? error : buffer_append_json_string(json, broker->name, strlen(broker->name), 0);
        error = error ? error : buffer_append_text(json, ",\"last_error\":");
        pthread_mutex_lock(&ingest->lock);
        error = error ? error : buffer_append_json_string(json, broker->trouble, strlen(broker->trouble), 0);
        pthread_mutex_unlock(&ingest->lock);
        error = error ? error : buffer_append_text(json, "}");
    }
    error = error ? error : buffer_append_text(json, "]");
    error = error ? error : bridge_status(ingest, json);
    return error ? error : buffer_append_text(json, "}");
}

/* ---- start and stop ---- */

static void *run(void *context)
{
    struct ingest *ingest = context;
    uv_run(&ingest->uv, UV_RUN_DEFAULT);
    return NULL;
}

static int copy_options(struct ingest *ingest, const struct ingest_options *options)
{
    ingest->options = *options;
    ingest->broker_count = options->broker_count;
    ingest->group_count = options->group_count;
    for (size_t i = 0; i < options->broker_count; i++) {
        struct broker *broker = &ingest->brokers[i];
        broker->options = options->brokers[i];
        bool plain = !strchr(broker->options.host, ':');
        snprintf(broker->name, sizeof broker->name, plain ? "%s:%u" : "[%s]:%u", broker->options.host, broker->options.port);
        broker->key = hash_bytes(broker->name, strlen(broker->name), 0) | 1;
        broker->version = options->version ? options->version : MQTT_VERSION_5_0;
    }
    for (size_t i = 0; i < options->filter_count; i++)
        if (!(ingest->filters[i] = strdup(options->filters[i])))
            return ERR_NO_MEMORY;
    if (options->consumed_filter && !(ingest->consumed_filter = strdup(options->consumed_filter)))
        return ERR_NO_MEMORY;
    return 0;
}

static int make_links(struct ingest *ingest)
{
    struct link *link;
    char name[16];
    int error = 0;
    bool has_group = ingest->group_count;
    for (unsigned i = 0; !error && has_group && ingest->options.filter_count && i < ingest->options.connection_count; i++) {
        snprintf(name, sizeof name, "%u", i);
        error = broker_link_create(ingest, LINK_INTAKE, name, &link);
    }
    if (!error && ingest->options.results)
        error = broker_link_create(ingest, LINK_OUTFLOW, "results", &ingest->results.link);
    if (!error && ingest->options.results)
        ingest->results.link->outflow = &ingest->results;
    if (!error && ingest->group_count > 1)
        error = broker_link_create(ingest, LINK_PROBE, "probe", &ingest->probe);
    return error ? error : bridge_open_all(ingest);
}

static int open_outflows(struct ingest *ingest)
{
    struct outflow *results = &ingest->results;
    results->ingest = ingest;
    results->content = QUEUE_CONTENT_RESULTS;
    results->what = "result";
    results->inflight_max = ingest->options.results_inflight;
    int error = ingest->options.results ? outflow_open(results, "results") : 0;
    return error ? error : bridge_open_outflows(ingest);
}

static int open_loop(struct ingest *ingest)
{
    ingest->read_buffer = malloc(INGEST_READ_SIZE);
    ingest->plain_buffer = ingest->tls ? malloc(INGEST_READ_SIZE) : NULL;
    if (!ingest->read_buffer || (ingest->tls && !ingest->plain_buffer) || uv_loop_init(&ingest->uv))
        return ERR_NO_MEMORY;
    ingest->initialised = true;
    uv_async_init(&ingest->uv, &ingest->wake, on_wake);
    uv_check_init(&ingest->uv, &ingest->turn_end);
    uv_timer_init(&ingest->uv, &ingest->timer);
    ingest->wake.data = ingest->turn_end.data = ingest->timer.data = ingest;
    uv_check_start(&ingest->turn_end, on_turn_end);
    ingest->now_ns = uv_now(&ingest->uv) * 1000000u;
    return 0;
}

/* Who we are must be on disk before a broker keeps anything for us, and how far results were published before there are new ones. */
static int first_notes(struct ingest *ingest)
{
    int error = checkpoint(ingest);
    ingest->notes.dirty_cursors = 0; /* the checkpoint has them */
    if (!error)
        ingest->producer->ops->submit(ingest->producer);
    return error;
}

static int open_tls(struct ingest *ingest)
{
    struct tls_problem problem;
    bool wanted = false;
    for (size_t i = 0; i < ingest->broker_count; i++)
        wanted = wanted || ingest->brokers[i].options.tls;
    int error = wanted ? tls_context_create(&ingest->tls, &ingest->options.tls, &problem) : 0;
    if (error)
        diagnostics(DIAGNOSTICS_ERROR, "ingest", "TLS to brokers: %s", error == ERR_INVALID ? problem.text : error_text(error));
    return error;
}

void ingest_reload_tls(struct ingest *ingest, const struct tls_options *options)
{
    struct tls_problem problem;
    int error = ingest->tls ? tls_context_reload(ingest->tls, options, &problem) : 0;
    if (error)
        diagnostics(DIAGNOSTICS_ERROR, "ingest", "TLS to brokers: %s. What was read before holds",
                    error == ERR_INVALID ? problem.text : error_text(error));
}

static int start(struct ingest *ingest, const struct ingest_options *options)
{
    int error = copy_options(ingest, options);
    error = error ? error : open_tls(ingest);
    if (error)
        return error;
    error = notes_load(&ingest->notes, options->queue);
    if (error) {
        diagnostics(DIAGNOSTICS_ERROR, "ingest", "what is known of other brokers cannot be read: %s", error_text(error));
        return error;
    }
    if (options->instance[0])
        snprintf(ingest->group, sizeof ingest->group, "%s-%s", options->client_prefix, options->instance);
    else
        snprintf(ingest->group, sizeof ingest->group, "%s-%08x", options->client_prefix, (unsigned)(ingest->notes.instance >> 32));
    snprintf(ingest->mark, sizeof ingest->mark, "%016llx", (unsigned long long)ingest->notes.instance);
    ingest->random.state = ingest->notes.instance ^ clock_monotonic_ns();
    error = make_links(ingest);
    error = error ? error : intake_take_held(ingest);
    error = error ? error : open_outflows(ingest);
    error = error ? error : open_loop(ingest);
    error = error ? error : options->queue->ops->producer_open(options->queue, on_durable, ingest, &ingest->producer);
    error = error ? error : first_notes(ingest);
    error = error ? error : metrics_register(collect, ingest);
    if (!error && pthread_create(&ingest->thread, NULL, run, ingest))
        error = ERR_NO_MEMORY;
    ingest->started = !error;
    if (error)
        diagnostics(DIAGNOSTICS_ERROR, "ingest", "the connections to other brokers cannot be started: %s", error_text(error));
    return error;
}

static void wait_for(struct ingest *ingest, const _Atomic bool *flag, unsigned timeout_ms)
{
    uint64_t deadline_ns = clock_monotonic_ns() + timeout_ms * UINT64_C(1000000);
    while (!atomic_load(flag) && clock_monotonic_ns() < deadline_ns) {
        struct timespec pause = {.tv_nsec = 1000000};
        on_durable(ingest);
        nanosleep(&pause, NULL);
    }
}

int ingest_start(struct ingest **out, const struct ingest_options *options)
{
    struct ingest *ingest = calloc(1, sizeof *ingest);
    if (!ingest)
        return ERR_NO_MEMORY;
    pthread_mutex_init(&ingest->lock, NULL);
    int error = start(ingest, options);
    if (error) {
        ingest_stop(ingest);
        return error;
    }
    if (ingest->outflow_count)
        options->queue->ops->watch(options->queue, QUEUE_HOLDER_BROKERS, on_durable, ingest);
    wait_for(ingest, &ingest->known, START_WAIT_MS);
    *out = ingest;
    return 0;
}

void ingest_quiesce(struct ingest *ingest, unsigned timeout_ms)
{
    atomic_store(&ingest->quiesce, true);
    wait_for(ingest, &ingest->drained, timeout_ms);
}

static void close_handle(uv_handle_t *handle, void *context)
{
    (void)context;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

void ingest_stop(struct ingest *ingest)
{
    if (!ingest)
        return;
    metrics_unregister(collect, ingest);
    if (ingest->outflow_count)
        ingest->options.queue->ops->watch(ingest->options.queue, QUEUE_HOLDER_BROKERS, NULL, NULL);
    if (ingest->started) {
        atomic_store(&ingest->stop, true);
        on_durable(ingest);
        pthread_join(ingest->thread, NULL);
    }
    if (ingest->producer)
        ingest->producer->ops->close(ingest->producer);
    if (ingest->initialised) {
        if (!ingest->started)
            uv_walk(&ingest->uv, close_handle, NULL);
        uv_run(&ingest->uv, UV_RUN_DEFAULT);
        uv_loop_close(&ingest->uv);
    }
    outflow_close(&ingest->results);
    bridge_close_all(ingest);
    for (unsigned i = 0; i < ingest->link_count; i++)
        broker_link_destroy(ingest->links[i]);
    notes_fini(&ingest->notes);
    for (unsigned i = 0; i < INGEST_FILTERS_MAX; i++)
        free(ingest->filters[i]);
    free(ingest->consumed_filter);
    free(ingest->completions);
    free(ingest->read_buffer);
    free(ingest->plain_buffer);
    tls_context_destroy(ingest->tls);
    pthread_mutex_destroy(&ingest->lock);
    free(ingest);
}
