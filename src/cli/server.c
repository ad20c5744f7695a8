/* Composition and order. What starts later may use what started before; stopping goes the other way round. */
#include "cli/server.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "base/message.h"
#include "base/metrics.h"
#include "base/probes.h"
#include "bus/bus.h"
#include "cli/dead/http.h"
#include "cli/journal/trim_http.h"
#include "cli/reload.h"
#include "cli/result_properties.h"
#include "cli/server_access.h"
#include "cli/server_file.h"
#include "cli/server_ingest.h"
#include "cli/server_transports.h"
#include "config/value.h"
#include "control/http.h"
#include "control/pages.h"
#include "drilling/drilling.h"
#include "journal/journal.h"
#include "mqtt/packet.h"
#include "pipeline/pipeline.h"
#include "queue/embedded.h"
#include "queue/ledger.h"
#include "queue/marks.h"

enum {
    SERVER_QUIESCE_MS = 5000,
    SERVER_DRAIN_MS = 15000,
    SERVER_OUTCOMES_SEGMENT = 8 << 20,
    SERVER_BROKERS_SEGMENT = 1 << 20,
    SERVER_SESSIONS_SEGMENT = 4 << 20,
    SERVER_RETAINED_SEGMENT = 8 << 20,
    SERVER_FILES_KEPT = HTTP_CONNECTIONS_MAX + 64, /* file descriptors that MQTT connections may not take */
    SERVER_FILES_SHARE = 4,                        /* where there are not so many: this part of them is for MQTT connections */
    SERVER_SUBSCRIPTIONS_MAX = 1000000
};

/* In the order in which a group becomes durable: a publish is acknowledged when it is in the last of its streams. The last three are books
 * about the others. */
enum stream_index {
    STREAM_RETAINED,
    STREAM_INGEST,
    STREAM_BUS,
    STREAM_RESULTS,
    STREAM_DEAD_LETTERS,
    STREAM_OUTCOMES,
    STREAM_BROKERS,
    STREAM_SESSIONS,
    STREAM_COUNT
};
static const char *const stream_names[STREAM_COUNT] = {"retained",     "ingest",   "bus",     "results",
                                                       "dead-letters", "outcomes", "brokers", "sessions"};

enum server_state { SERVER_STARTING, SERVER_SERVING, SERVER_STOPPING };

struct server {
    const struct config *config;
    _Atomic enum server_state state;
    const char *_Atomic doing; /* while it starts; static */
    uint64_t started_ns;       /* monotonic */
    struct journal *journal;
    struct journal_stream *streams[STREAM_COUNT];
    struct queue *queue;
    struct access *access;
    struct bus *bus;
    struct ingest *_Atomic ingest; /* NULL where there is no broker to connect to */
    struct server_ingest other;    /* its options */
    struct stage *stage;
    struct pipeline *pipeline;
    struct http *http;
    struct dead_http dead;
    struct trim_http trim;
    struct reload *reload;
    struct http_route routes[DEAD_HTTP_ROUTE_COUNT + 4];
    bool observed, has_file;
};

/* ---- what each module is told of the configuration ---- */

static unsigned processors(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : (unsigned)count;
}

/* What to do when a folder cannot be used. */
static const char *folder_advice(int error)
{
    switch (error) {
    case ERR_PERMISSION:
        return "this user may not write there; give it the folder (chown), or choose another with --data-dir";
    case ERR_READ_ONLY:
        return "mount it for writing, or choose another folder with --data-dir";
    case ERR_NOT_FOLDER:
        return "something on this path is a file; choose another folder with --data-dir";
    case ERR_NOT_FOUND:
        return "the folder above it does not exist; make it, or choose another with --data-dir";
    case ERR_NO_SPACE:
        return "free some, or choose another folder with --data-dir";
    case ERR_FORMAT_VERSION:
        return "another version of Spindle wrote it; use that one, or choose another folder with --data-dir";
    default:
        return "look at the disk (dmesg), or choose another folder with --data-dir";
    }
}

static double seconds_since(uint64_t since_ns)
{
    return (double)(clock_monotonic_ns() - since_ns) / 1e9;
}

static int open_journal(struct server *server)
{
    const struct config *config = server->config;
    static const enum journal_durability durabilities[] = {
        [CONFIG_DURABILITY_DISK] = JOURNAL_DURABLE_DISK,
        [CONFIG_DURABILITY_OS] = JOURNAL_DURABLE_OS,
        [CONFIG_DURABILITY_MEMORY] = JOURNAL_DURABLE_MEMORY,
    };
    struct journal_options options = {
        .disk = disk_posix(),
        .folder = config->data_dir,
        .segment_size = config->journal_segment_size,
        .durability = durabilities[config->data_durability],
        .disk_free_min = config->journal_disk_free_min,
        .compression_level = config->journal_compression == CONFIG_COMPRESSION_ZSTD ? (int)config->journal_compression_level : 0,
    };
    int error = journal_open(&server->journal, &options);
    if (error == ERR_BUSY)
        diagnostics(DIAGNOSTICS_ERROR, "journal",
                    "the data folder %s is in use by another Spindle; stop that one, or choose another with --data-dir", config->data_dir);
    else if (error)
        diagnostics(DIAGNOSTICS_ERROR, "journal", "the data folder %s cannot be used: %s; %s", config->data_dir, error_text(error),
                    folder_advice(error));
    char path[PATH_MAX];
    if (!error)
        diagnostics(DIAGNOSTICS_INFO, "journal", "the data folder is %s", realpath(config->data_dir, path) ? path : config->data_dir);
    return error;
}

static void say_stream(struct journal_stream *stream, uint64_t since_ns)
{
    struct journal_stream_stats stats;
    journal_stream_stats(stream, &stats);
    if (stats.durable_offset > stats.first_offset)
        diagnostics(DIAGNOSTICS_INFO, "journal",
                    "stream %s: offsets %" PRIu64 " to %" PRIu64 " in %" PRIu64 " segments, %.1f MB; recovered in %.3f s",
                    journal_stream_name(stream), stats.first_offset, stats.durable_offset - 1, stats.segment_count,
                    (double)stats.bytes / 1e6, seconds_since(since_ns));
    else
        diagnostics(DIAGNOSTICS_INFO, "journal", "stream %s: no messages", journal_stream_name(stream));
}

/* What the server keeps for itself is written again or summed up, and needs few bytes; retention is not for that. 0: as configured. */
static uint64_t own_segment(unsigned stream)
{
    switch (stream) {
    case STREAM_OUTCOMES:
        return SERVER_OUTCOMES_SEGMENT;
    case STREAM_BROKERS:
        return SERVER_BROKERS_SEGMENT;
    case STREAM_SESSIONS:
        return SERVER_SESSIONS_SEGMENT;
    case STREAM_RETAINED:
        return SERVER_RETAINED_SEGMENT;
    default:
        return 0;
    }
}

static int open_streams(struct server *server)
{
    const struct config *config = server->config;
    int error = 0;
    atomic_store(&server->doing, "the streams of the journal are recovered");
    for (unsigned i = 0; !error && i < STREAM_COUNT; i++) {
        uint64_t since_ns = clock_monotonic_ns();
        struct journal_stream_options stream = {
            .name = stream_names[i],
            .segment_size = own_segment(i),
            .retention_size = own_segment(i) ? own_segment(i) : config->journal_retention_size,
            .retention_age_ns = own_segment(i) ? 0 : config_ns(config->journal_retention_age_s),
            .pack_from = i == STREAM_INGEST || i == STREAM_BUS || i == STREAM_DEAD_LETTERS ? config->journal_pack_from : 0,
            .scribe = i >= STREAM_RESULTS && i < STREAM_BROKERS, /* what waits for its PUBACK does not wait for those */
            .guarded = i != STREAM_DEAD_LETTERS,
            .pressing = i == STREAM_SESSIONS,
        };
        error = journal_stream_add(server->journal, &stream, &server->streams[i]);
        if (error)
            diagnostics(DIAGNOSTICS_ERROR, "journal", "the folder %s/%s cannot be used: %s; %s", config->data_dir, stream_names[i],
                        error_text(error), folder_advice(error));
        else
            say_stream(server->streams[i], since_ns);
    }
    return error;
}

static void publish_result(void *context, const struct message *result)
{
    struct server *server = context;
    if (!server->bus)
        return;
    struct message published = *result;
    struct buffer properties;
    buffer_init(&properties, RESULT_PROPERTIES_MAX);
    bool known = result_properties_write(result, &properties) == 0 && properties.length;
    published.properties = known ? properties.data : NULL;
    published.properties_length = known ? (uint32_t)properties.length : 0;
    bus_publish(server->bus, &published, 0);
    buffer_fini(&properties);
}

static int open_queue(struct server *server)
{
    struct queue_embedded_options options = {
        .journal = server->journal,
        .data_folder = server->config->data_dir,
        .ingest = server->streams[STREAM_INGEST],
        .results = server->streams[STREAM_RESULTS],
        .dead_letters = server->streams[STREAM_DEAD_LETTERS],
        .outcomes = server->streams[STREAM_OUTCOMES],
        .kept = server->streams[STREAM_BUS],
        .noted = server->streams[STREAM_BROKERS],
        .holders = 1u << QUEUE_HOLDER_BROKERS | (server->config->bus_session_expiry_max_s > 0 ? 1u << QUEUE_HOLDER_SESSIONS : 0),
        .publish = publish_result,
        .publish_context = server,
    };
    uint64_t since_ns = clock_monotonic_ns();
    atomic_store(&server->doing, "what became of each message is read again");
    int error = queue_embedded_open(&server->queue, &options);
    if (!error)
        error = journal_start(server->journal);
    if (error)
        diagnostics(DIAGNOSTICS_ERROR, "queue", "the messages in %s cannot be taken up again: %s", server->config->data_dir,
                    error_text(error));
    if (error)
        return error;
    struct queue_counts counts;
    server->queue->ops->counts(server->queue, &counts);
    diagnostics(DIAGNOSTICS_INFO, "queue", "%" PRIu64 " of %" PRIu64 " drilling messages are pending and go on; found in %.3f s",
                counts.pending, counts.accepted, seconds_since(since_ns));
    return 0;
}

/* Connections may not take the file descriptors that the journal needs. */
static uint32_t connections_max(const struct config *config)
{
    struct rlimit limit;
    uint32_t most = config->bus_max_connections;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= (rlim_t)most + SERVER_FILES_KEPT)
        return most;
    uint32_t files = (uint32_t)limit.rlim_cur, left = files / SERVER_FILES_SHARE;
    if (files > SERVER_FILES_KEPT && files - SERVER_FILES_KEPT > left)
        left = files - SERVER_FILES_KEPT;
    diagnostics(DIAGNOSTICS_WARNING, "bus",
                "at most %u connections instead of %u (bus.max_connections): the limit of open files is %llu; raise it (ulimit -n)", left,
                most, (unsigned long long)limit.rlim_cur);
    return left < 1 ? 1 : left;
}

static int start_bus(struct server *server)
{
    const struct config *config = server->config;
    char filter[VALUE_TOPIC_MAX + sizeof "/#"], replay_filter[sizeof MESSAGE_REPLAY_LEVEL "/+/" + sizeof filter];
    snprintf(filter, sizeof filter, "%s/#", config->mqtt_listener_root);
    snprintf(replay_filter, sizeof replay_filter, MESSAGE_REPLAY_LEVEL "/+/%s", filter);
    unsigned threads = config->bus_threads ? config->bus_threads : processors() / 2;
    if (threads < 1)
        threads = 1;
    if (threads > BUS_LOOPS_MAX)
        threads = BUS_LOOPS_MAX;
    struct bus_options options = {
        .loop_count = threads,
        .connections_max = connections_max(config),
        .subscriptions_max = SERVER_SUBSCRIPTIONS_MAX,
        .packet_size_max = (uint32_t)config->bus_packet_size_max,
        .receive_maximum = (uint16_t)config->bus_receive_maximum,
        .keep_alive_max_s = (uint16_t)config->bus_keep_alive_max_s,
        .outgoing_soft_max = config->bus_outgoing_size_max,
        .stall_timeout_ns = config_ns(config->bus_stall_timeout_s),
        .memory_max = config->bus_memory_max,
        .journal_backlog_max = config->journal_backlog_size_max,
        .queue = server->queue,
        .access = server->access,
        .ingest_filters = {config->drilling_enabled ? filter : NULL, config->drilling_enabled ? replay_filter : NULL},
        .acknowledge_at_once = config->data_durability == CONFIG_DURABILITY_MEMORY,
        .retained_max = (uint32_t)config->bus_retained_max,
        .retained_size_max = config->bus_retained_size_max,
        .journal = server->journal,
        .retained = server->streams[STREAM_RETAINED],
        .sessions = server->streams[STREAM_SESSIONS],
        .sessions_max = (uint32_t)config->bus_sessions_max,
        .sessions_size_max = config->bus_sessions_size_max,
        .session_expiry_max_s = (uint32_t)config->bus_session_expiry_max_s,
        .result_properties = result_properties_write,
        .sys_interval_ns = config_ns(config->bus_sys_interval_s),
        .topic_alias_max = (uint16_t)config->bus_topic_alias_max,
        .response_information = config->bus_response_information,
    };
    server_transports_fill(config, &options);
    return bus_start(&server->bus, &options);
}

static bool skip_answers(void *context, const char *topic, size_t length)
{
    const struct server *server = context;
    return server_ingest_skip(&server->other.topics, topic, length);
}

static uint64_t retain_ingested(void *context, const struct message *message)
{
    const struct server *server = context;
    return bus_retain(server->bus, message);
}

static bool is_held(void *context, const struct message *message)
{
    const struct server *server = context;
    return bus_is_held(server->bus, message->topic, message->topic_length);
}

static void deliver_ingested(void *context, const struct message *message, uint64_t retained)
{
    const struct server *server = context;
    bus_publish(server->bus, message, retained);
}

/* Behind the bus, which is told of what arrives, and before the pipeline, whose results are published. */
static int start_ingest(struct server *server)
{
    struct ingest_options *options = &server->other.options;
    if (!server_ingest_options(server->config, &server->other)) {
        for (int i = 0; i < QUEUE_CONTENT_COUNT; i++) /* nobody reads them from a place of his own */
            server->queue->ops->hold(server->queue, (enum queue_content)i, QUEUE_HOLDER_BROKERS, UINT64_MAX);
        return 0;
    }
    options->queue = server->queue;
    options->skip = skip_answers;
    options->retain = retain_ingested;
    options->is_held = is_held;
    options->deliver = deliver_ingested;
    options->result_properties = result_properties_write;
    options->context = server;
    if (!options->results)
        server->queue->ops->hold(server->queue, QUEUE_CONTENT_RESULTS, QUEUE_HOLDER_BROKERS, UINT64_MAX);
    struct ingest *ingest;
    int error = ingest_start(&ingest, options);
    if (!error)
        atomic_store(&server->ingest, ingest);
    return error;
}

static void fill_pipeline(const struct config *config, struct pipeline_options *options)
{
    static const enum pipeline_duplicates duplicates[] = {
        [CONFIG_DUPLICATES_IGNORE] = PIPELINE_DUPLICATES_IGNORE,
        [CONFIG_DUPLICATES_REPLACE] = PIPELINE_DUPLICATES_REPLACE,
        [CONFIG_DUPLICATES_ERROR] = PIPELINE_DUPLICATES_ERROR,
    };
    *options = (struct pipeline_options){
        .worker_count = config->pipeline_workers ? config->pipeline_workers : processors(),
        .time_window_ns = config_ns(config->mqtt_listener_time_window),
        .grace_ns = config_ns(config->pipeline_grace_s),
        .duplicates = duplicates[config->mqtt_listener_duplicate_handling],
        .finished_sets_max = config->pipeline_finished_sets_max,
        .waiting_messages_max = config->pipeline_waiting_messages_max,
        .held_bytes_max = config->pipeline_memory_limit,
    };
}

static void fill_drilling(const struct config *config, struct drilling_options *options)
{
    static const char *const estimators[] = {
        [CONFIG_ESTIMATOR_AUTO] = "auto",
        [CONFIG_ESTIMATOR_GRADIENT] = "gradient",
        [CONFIG_ESTIMATOR_GRADIENT30] = "gradient30",
        [CONFIG_ESTIMATOR_GRADIENT30_BY_ORDER] = "gradient30_by_order",
        [CONFIG_ESTIMATOR_SEGMENTS] = "segments",
        [CONFIG_ESTIMATOR_PRODUCTION] = "production",
    };
    static const enum validation_behaviour behaviours[] = {
        [CONFIG_NEGATIVE_DEPTH_PUBLISH] = VALIDATION_PUBLISH,
        [CONFIG_NEGATIVE_DEPTH_SKIP] = VALIDATION_SKIP,
        [CONFIG_NEGATIVE_DEPTH_WARNING] = VALIDATION_WARNING,
    };
    drilling_options_default(options);
    options->topics = (struct topics_options){
        .root = config->mqtt_listener_root,
        .result = config->mqtt_listener_result,
        .trace = config->mqtt_listener_trace,
        .heads = config->mqtt_listener_heads,
        .keypoints = config->mqtt_estimation_keypoints,
        .depths = config->mqtt_estimation_depth_estimation,
    };
    options->paths[PAYLOAD_MACHINE_ID] = config->mqtt_data_ids_machine_id;
    options->paths[PAYLOAD_RESULT_ID] = config->mqtt_data_ids_result_id;
    options->paths[PAYLOAD_STEPS] = config->mqtt_data_ids_step_vals;
    options->paths[PAYLOAD_TORQUE_EMPTY] = config->mqtt_data_ids_torque_empty_vals;
    options->paths[PAYLOAD_THRUST_EMPTY] = config->mqtt_data_ids_thrust_empty_vals;
    options->paths[PAYLOAD_POSITION] = config->mqtt_data_ids_position;
    options->paths[PAYLOAD_THRUST] = config->mqtt_data_ids_thrust;
    options->paths[PAYLOAD_TORQUE] = config->mqtt_data_ids_torque;
    options->paths[PAYLOAD_STEP] = config->mqtt_data_ids_step;
    options->paths[PAYLOAD_TRACE_RESULT_ID] = config->mqtt_data_ids_trace_result_id;
    options->paths[PAYLOAD_HEAD_ID] = config->mqtt_data_ids_head_id;
    options->estimator = estimators[config->drilling_estimator];
    options->validation = (struct validation_options){
        .behaviour = behaviours[config->mqtt_depth_validation_negative_depth_behavior],
        .track_sequences = config->mqtt_depth_validation_track_sequential_negatives,
        .sequence_threshold = config->mqtt_depth_validation_sequential_threshold,
        .sequence_window_ns = config_ns(config->mqtt_depth_validation_sequential_window_minutes * 60),
    };
    options->algo_version = config->drilling_algo_version;
    options->correlate_by_time = config->drilling_correlation == CONFIG_CORRELATION_TIME_WINDOW;
    options->time_window_ns = config_ns(config->mqtt_listener_time_window);
    options->silent = config->drilling_compatibility == CONFIG_COMPATIBILITY_SILENT;
}

static int create_stage(struct server *server)
{
    struct drilling_options options;
    char why[DRILLING_WHY_MAX];
    fill_drilling(server->config, &options);
    int error = drilling_create(&server->stage, &options, why);
    if (error)
        diagnostics(DIAGNOSTICS_ERROR, "drilling", "%s", why);
    return error;
}

static int start_pipeline(struct server *server)
{
    if (!server->config->drilling_enabled)
        return 0;
    struct pipeline_options options;
    fill_pipeline(server->config, &options);
    int error = create_stage(server);
    if (!error)
        error = pipeline_start(&server->pipeline, server->queue, server->stage, &options);
    if (error)
        diagnostics(DIAGNOSTICS_ERROR, "pipeline", "the pipeline cannot start: %s", error_text(error));
    return error;
}

static void answer_sessions(void *context, const struct http_request *request, struct page *page)
{
    struct server *server = context;
    (void)request;
    if (atomic_load(&server->state) != SERVER_SERVING)
        page_render_error(page, 503, "the server is starting or stopping");
    else if (bus_sessions_write(server->bus, &page->body))
        page_render_error(page, 503, error_text(ERR_NO_MEMORY));
}

static int start_http(struct server *server)
{
    const struct config *config = server->config;
    if (!config->http_enabled)
        return 0;
    static const enum http_changes changes[] = {
        [CONFIG_CHANGES_LOOPBACK] = HTTP_CHANGES_LOOPBACK,
        [CONFIG_CHANGES_ALL] = HTTP_CHANGES_ALL,
        [CONFIG_CHANGES_NONE] = HTTP_CHANGES_NONE,
    };
    dead_http_routes(&server->dead, server->routes);
    server->routes[DEAD_HTTP_ROUTE_COUNT] =
        (struct http_route){.path = TRIM_HTTP_PATH, .changes = true, .answer = trim_http_answer, .context = &server->trim};
    server->routes[DEAD_HTTP_ROUTE_COUNT + 1] =
        (struct http_route){.path = RELOAD_HTTP_PATH, .changes = true, .answer = reload_http_answer, .context = server->reload};
    server->routes[DEAD_HTTP_ROUTE_COUNT + 2] =
        (struct http_route){.path = SERVER_ACCESS_HTTP_PATH, .answer = server_access_http_answer, .context = server->access};
    server->routes[DEAD_HTTP_ROUTE_COUNT + 3] =
        (struct http_route){.path = "/api/v1/sessions", .answer = answer_sessions, .context = server};
    struct http_options options = {
        .host = config->http_host,
        .port = (uint16_t)config->http_port,
        .version = SPINDLE_VERSION,
        .changes = changes[config->http_changes],
        .routes = server->routes,
        .route_count = sizeof server->routes / sizeof *server->routes,
    };
    char why[HTTP_WHY_MAX];
    int error = http_start(&server->http, &options, why);
    if (error)
        diagnostics(DIAGNOSTICS_ERROR, "http", "%s", why);
    else
        diagnostics(DIAGNOSTICS_INFO, "http", "listening on %s port %u", config->http_host, http_port(server->http));
    return error;
}

/* Requests for dead letters, and to trim streams, are answered from now on. */
static int serve_changes(struct server *server)
{
    int error = dead_letters_open(&server->dead.letters, server->queue);
    if (error) {
        diagnostics(DIAGNOSTICS_ERROR, "dead", "dead letters cannot be served: %s", error_text(error));
        return error;
    }
    server->dead.queue = server->queue;
    server->dead.attempts_max = server->config->dead_letters_attempts_max;
    server->dead.has_pipeline = server->pipeline;
    atomic_store(&server->dead.serving, true);
    server->trim.journal = server->journal;
    atomic_store(&server->trim.serving, true);
    return 0;
}

/* Tells the commands on this machine where it is. */
static void write_file(struct server *server)
{
    struct server_file file = {.pid = (uint64_t)getpid(), .mqtt_port = server_mqtt_port(server), .http_port = server_http_port(server)};
    snprintf(file.http_host, sizeof file.http_host, "%s", server->config->http_host);
    int error = server_file_write(server->config->data_dir, &file);
    server->has_file = !error;
    if (error)
        diagnostics(DIAGNOSTICS_WARNING, "run",
                    "server.json cannot be written: %s; `spindle dead requeue` and `spindle journal trim` will not find this server",
                    error_text(error));
}

/* ---- what it says of itself ---- */

static void stream_counts(struct server *server, enum stream_index index, struct queue_counts *counts)
{
    if (index == STREAM_INGEST) {
        server->queue->ops->counts(server->queue, counts);
        return;
    }
    /* Nobody consumes the others: a message there is complete once it is kept. */
    uint64_t durable = journal_stream_durable(server->streams[index]);
    *counts = (struct queue_counts){.accepted = durable, .completed = durable};
}

static void collect(void *owner, struct metrics_writer *writer)
{
    struct server *server = owner;
    journal_collect(server->journal, writer);
    for (unsigned i = STREAM_INGEST; i < STREAM_OUTCOMES; i++) {
        struct queue_counts counts;
        uint64_t reasons[REASON_COUNT] = {0};
        if (i == STREAM_INGEST) {
            queue_embedded_snapshot(server->queue, &counts, reasons);
            metrics_sample_u64(writer, METRIC_DRILLING_QUEUE_DEPTH, counts.unread, "queue_name", "ingest", NULL);
            metrics_sample(writer, METRIC_DRILLING_QUEUE_CAPACITY, INFINITY, "queue_name", "ingest", NULL); /* the disk's */
            struct bus_status bus;
            bus_status(server->bus, &bus);
            metrics_sample_u64(writer, METRIC_DRILLING_DROPPED, bus.ingest_no_memory, "reason", "no_memory", NULL);
            metrics_sample_u64(writer, METRIC_DRILLING_DROPPED, bus.ingest_journal, "reason", "journal", NULL);
        } else {
            stream_counts(server, (enum stream_index)i, &counts);
        }
        metrics_sample_u64(writer, METRIC_ACCEPTED, counts.accepted, "stream", stream_names[i], NULL);
        metrics_sample_u64(writer, METRIC_COMPLETED, counts.completed, "stream", stream_names[i], NULL);
        metrics_sample_u64(writer, METRIC_DUPLICATES, counts.duplicates, "stream", stream_names[i], NULL);
        if (i == STREAM_DEAD_LETTERS) {
            struct queue_counts letters;
            marks_counts(queue_embedded_marks(server->queue), counts.accepted, &letters);
            metrics_sample_u64(writer, METRIC_DEAD_LETTERS_OPEN, letters.pending, NULL);
        }
        metrics_sample_u64(writer, METRIC_PENDING, counts.pending, "stream", stream_names[i], NULL);
        for (unsigned r = 1; i == STREAM_INGEST && r < REASON_COUNT; r++)
            metrics_sample_u64(writer, METRIC_DEAD_LETTERED, reasons[r], "stream", stream_names[i], "reason", reason_word(r), NULL);
    }
}

static int streams_status(void *owner, struct buffer *json)
{
    struct server *server = owner;
    int error = buffer_append_text(json, "{");
    for (unsigned i = STREAM_INGEST; !error && i < STREAM_OUTCOMES; i++) {
        struct queue_counts counts;
        stream_counts(server, (enum stream_index)i, &counts);
        error = buffer_printf(json,
                              "%s\"%s\":{\"accepted\":%" PRIu64 ",\"completed\":%" PRIu64 ",\"duplicates\":%" PRIu64
                              ",\"dead_lettered\":%" PRIu64 ",\"pending\":%" PRIu64 "}",
                              i > STREAM_INGEST ? "," : "", stream_names[i], counts.accepted, counts.completed, counts.duplicates,
                              counts.dead_lettered, counts.pending);
    }
    return error ? error : buffer_append_text(json, "}");
}

static int durability_status(void *owner, struct buffer *json)
{
    static const char *const words[] = {
        [CONFIG_DURABILITY_DISK] = "\"disk\"", [CONFIG_DURABILITY_OS] = "\"os\"", [CONFIG_DURABILITY_MEMORY] = "\"memory\""};
    const struct server *server = owner;
    return buffer_append_text(json, words[server->config->data_durability]);
}

static bool server_ready(void *owner, struct buffer *text)
{
    struct server *server = owner;
    switch (atomic_load(&server->state)) {
    case SERVER_STARTING:
        buffer_printf(text, "it is starting: %s", atomic_load(&server->doing));
        return false;
    case SERVER_STOPPING:
        buffer_append_text(text, "it is stopping: it takes nothing new, and finishes what it has accepted");
        return false;
    case SERVER_SERVING:
        buffer_append_text(text, "it serves");
        return true;
    }
    return false;
}

static int journal_status(void *owner, struct buffer *json)
{
    const struct server *server = owner;
    struct journal_stats stats;
    journal_stats(server->journal, &stats);
    char disk_free[24] = "null"; /* the file system does not tell */
    if (stats.space.free != UINT64_MAX)
        snprintf(disk_free, sizeof disk_free, "%" PRIu64, stats.space.free);
    return buffer_printf(json,
                         "{\"groups\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"stalled\":%s,\"disk_free\":%s,\"disk_free_min\":%" PRIu64
                         ",\"sync_s\":{\"p50\":%.9f,\"p99\":%.9f,\"max\":%.9f}}",
                         stats.groups, stats.bytes, stats.stalled ? "true" : "false", disk_free, stats.space.least,
                         (double)histogram_quantile(stats.sync, 0.5) / 1e9, (double)histogram_quantile(stats.sync, 0.99) / 1e9,
                         (double)__atomic_load_n(&stats.sync->max, __ATOMIC_RELAXED) / 1e9);
}

static bool journal_ready(void *owner, struct buffer *text)
{
    const struct server *server = owner;
    struct journal_stats stats;
    journal_stats(server->journal, &stats);
    if (space_is_short(&stats.space)) {
        char space[SPACE_TEXT_MAX];
        space_text(&stats.space, space);
        buffer_printf(text, "%s: they wait, and what was accepted is finished; free some space", space);
        return false;
    }
    if (stats.stalled)
        buffer_append_text(text, "writes wait, for example for space on the disk; acknowledgements wait with them");
    else
        buffer_printf(text, "%" PRIu64 " groups written, half of them in less than %.3f ms", stats.groups,
                      (double)histogram_quantile(stats.sync, 0.5) / 1e6);
    return !stats.stalled;
}

static bool bus_ready(void *owner, struct buffer *text)
{
    const struct server *server = owner;
    struct bus_status status;
    bus_status(server->bus, &status);
    buffer_printf(text, "%" PRIu64 " connections, %" PRIu64 " subscriptions", status.connections, status.subscriptions);
    return true;
}

static bool brokers_ready(void *owner, struct buffer *text)
{
    struct server *server = owner;
    return ingest_ready(atomic_load(&server->ingest), text);
}

static int brokers_status(void *owner, struct buffer *json)
{
    struct server *server = owner;
    return ingest_status(atomic_load(&server->ingest), json);
}

static bool pipeline_ready(void *owner, struct buffer *text)
{
    const struct server *server = owner;
    struct queue_counts counts;
    server->queue->ops->counts(server->queue, &counts);
    buffer_printf(text, "%" PRIu64 " messages wait, %" PRIu64 " of them not read yet", counts.pending, counts.unread);
    return true;
}

/* Begins before recovery, so that who asks is told of it. */
static int observe_start(struct server *server)
{
    server->observed = true;
    return probes_register("server", server_ready, server);
}

static int observe(struct server *server)
{
    int error = metrics_register(collect, server);
    error = error ? error : status_register("streams", streams_status, server);
    error = error ? error : status_register("durability", durability_status, server);
    error = error ? error : status_register("journal", journal_status, server);
    error = error ? error : probes_register("journal", journal_ready, server);
    error = error ? error : probes_register("bus", bus_ready, server);
    if (atomic_load(&server->ingest)) {
        error = error ? error : probes_register("ingest", brokers_ready, server);
        error = error ? error : status_register("ingest", brokers_status, server);
    }
    if (server->pipeline)
        error = error ? error : probes_register("pipeline", pipeline_ready, server);
    return error;
}

static void observe_no_more(struct server *server)
{
    if (!server->observed)
        return;
    metrics_unregister(collect, server);
    status_unregister("streams");
    status_unregister("durability");
    probes_unregister("server");
    status_unregister("journal");
    probes_unregister("journal");
    probes_unregister("bus");
    probes_unregister("ingest");
    status_unregister("ingest");
    probes_unregister("pipeline");
}

/* ---- start and stop ---- */

int server_start(struct server **out, const struct config *config, struct reload *reload)
{
    struct server *server = calloc(1, sizeof *server);
    if (!server)
        return ERR_NO_MEMORY;
    server->config = config;
    server->reload = reload;
    server->started_ns = clock_monotonic_ns();
    atomic_store(&server->doing, "the journal is opened");
    int error = server_access_start(&server->access, config);
    error = error ? error : open_journal(server);
    error = error ? error : observe_start(server);
    error = error ? error : start_http(server);
    error = error ? error : open_streams(server);
    error = error ? error : open_queue(server);
    atomic_store(&server->doing, "the last holes are read again");
    error = error ? error : start_bus(server);
    error = error ? error : start_ingest(server);
    error = error ? error : start_pipeline(server);
    error = error ? error : serve_changes(server);
    error = error ? error : observe(server);
    if (error) {
        server_stop(server);
        return error;
    }
    write_file(server);
    atomic_store(&server->state, SERVER_SERVING);
    diagnostics(DIAGNOSTICS_INFO, "run", "ready %.3f s after the start", seconds_since(server->started_ns));
    *out = server;
    return 0;
}

uint16_t server_mqtt_port(const struct server *server)
{
    return bus_port(server->bus, BUS_TCP);
}

uint16_t server_http_port(const struct server *server)
{
    return server->http ? http_port(server->http) : 0;
}

int server_reload(struct server *server, const struct config *config, struct problems *problems)
{
    int error = server_access_reload(server->access, config, problems);
    if (error)
        return error;
    bus_renew_access(server->bus);
    server_transports_reload(config, server->bus);
    server_ingest_reload(config, atomic_load(&server->ingest));
    if (server->pipeline) {
        struct pipeline_options options;
        fill_pipeline(config, &options);
        pipeline_reconfigure(server->pipeline, &options);
        struct drilling_options drilling;
        char why[DRILLING_WHY_MAX];
        fill_drilling(config, &drilling);
        if (drilling_reconfigure(server->stage, &drilling, why))
            diagnostics(DIAGNOSTICS_ERROR, "drilling", "%s; the old drilling settings hold", why);
    }
    return 0;
}

/* A full disk must not keep the process from ending: what is not durable was not acknowledged, and is sent again by its senders. While only
 * new messages wait for space, the work on the others can still be finished; *nothing_written says that it cannot. */
static int give_up_if_stalled(struct server *server, bool *nothing_written)
{
    struct journal_stats stats;
    journal_stats(server->journal, &stats);
    *nothing_written = false;
    if (!stats.stalled)
        return 0;
    diagnostics(DIAGNOSTICS_WARNING, "run", "the disk does not take what is waiting; it was not acknowledged, and is given up");
    *nothing_written = journal_abandon(server->journal);
    return ERR_BUSY;
}

int server_stop(struct server *server)
{
    if (!server)
        return 0;
    int undone = 0;
    atomic_store(&server->state, SERVER_STOPPING);
    atomic_store(&server->dead.serving, false);
    atomic_store(&server->trim.serving, false);
    if (server->has_file)
        server_file_remove(server->config->data_dir);
    struct ingest *ingest = atomic_load(&server->ingest);
    if (ingest)
        ingest_quiesce(ingest, SERVER_QUIESCE_MS);
    if (server->bus)
        bus_quiesce(server->bus, SERVER_QUIESCE_MS);
    bool given_up = false;
    if (server->journal)
        undone = give_up_if_stalled(server, &given_up);
    if (server->pipeline) {
        int left = pipeline_stop(server->pipeline, given_up ? 0 : SERVER_DRAIN_MS);
        undone = undone ? undone : left;
        if (left) {
            /* Its threads still run and use the rest: the process ends with everything in place. What is on disk is whole. */
            if (!given_up)
                give_up_if_stalled(server, &given_up);
            return undone;
        }
        pipeline_destroy(server->pipeline);
    }
    http_stop(server->http);
    observe_no_more(server);
    dead_letters_close(server->dead.letters);
    atomic_store(&server->ingest, NULL);
    ingest_stop(ingest);
    bus_stop(server->bus);
    access_destroy(server->access);
    if (server->journal) {
        journal_abandon(server->journal); /* a disk that is full by now is not waited for */
        journal_stop(server->journal);
    }
    if (server->queue)
        server->queue->ops->close(server->queue);
    journal_close(server->journal);
    if (server->stage)
        drilling_destroy(server->stage);
    free(server);
    return undone;
}
