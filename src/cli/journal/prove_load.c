#include "cli/journal/prove_load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/journal/tool.h"
#include "journal/reader.h"
#include "load/load_client.h"
#include "mqtt/packet.h"

enum { PROVE_INFLIGHT = 500, CONNECT_TIMEOUT_S = 30, SETTLE_TIMEOUT_S = 60, REST_TIMEOUT_MS = 2000, TURN_MS = 2, PROVE_TOPIC_MAX = 64 };

#define SECOND_NS UINT64_C(1000000000)

static const char *const streams[] = {"bus", "ingest"};
enum { STREAM_COUNT = sizeof streams / sizeof *streams };

struct prove_load {
    unsigned connections;
    uint32_t payload_bytes;
    double rate;
    struct load_client *client;
    struct load_connection **opened; /* [connections] */
    unsigned connected, gone;
    bool closing;  /* a lost connection is expected */
    bool settling; /* no new numbers */
    char problem[PROVE_PROBLEM_MAX];

    uint64_t *acknowledged, *seen; /* bits by number; [words] */
    size_t words;
    uint32_t issued;    /* numbers below it were published at least once */
    uint32_t again_at;  /* numbers from here on may have to be published again ... */
    uint32_t again_end; /* ... below this one */
    struct prove_counts counts;
    uint64_t read_until[STREAM_COUNT];
    uint8_t *payload; /* [payload_bytes] */
};

/* ---- payloads ---- */

static void write_payload(const struct prove_load *load, uint32_t number, uint8_t *out)
{
    int length = snprintf((char *)out, PROVE_PAYLOAD_MIN, "prove %010" PRIu32 " ", number);
    for (uint32_t i = (uint32_t)length; i < load->payload_bytes; i++)
        out[i] = (uint8_t)('a' + (number * 7 + i) % 26);
}

/* The number of a payload that is as it was published; false for any other. */
static bool read_payload(struct prove_load *load, const struct message *message, uint32_t *number)
{
    char text[PROVE_PAYLOAD_MIN + 1];
    if (message->payload_length != load->payload_bytes)
        return false;
    memcpy(text, message->payload, PROVE_PAYLOAD_MIN);
    text[PROVE_PAYLOAD_MIN] = 0;
    if (sscanf(text, "prove %10" SCNu32, number) != 1 || *number >= load->issued)
        return false;
    write_payload(load, *number, load->payload);
    return memcmp(load->payload, message->payload, load->payload_bytes) == 0;
}

static bool bit(const uint64_t *bits, uint32_t number)
{
    return bits[number / 64] >> (number % 64) & 1;
}

static int reserve_bits(struct prove_load *load, uint32_t number)
{
    if (number / 64 < load->words)
        return 0;
    size_t words = load->words ? load->words * 2 : 1 << 14;
    uint64_t *acknowledged = realloc(load->acknowledged, words * sizeof *acknowledged);
    if (acknowledged)
        load->acknowledged = acknowledged;
    uint64_t *seen = acknowledged ? realloc(load->seen, words * sizeof *seen) : NULL;
    if (!seen)
        return ERR_NO_MEMORY;
    load->seen = seen;
    memset(load->acknowledged + load->words, 0, (words - load->words) * sizeof *acknowledged);
    memset(load->seen + load->words, 0, (words - load->words) * sizeof *seen);
    load->words = words;
    return 0;
}

/* ---- connections ---- */

static void on_connected(void *context, struct load_connection *connection)
{
    struct prove_load *load = context;
    (void)connection;
    load->connected++;
}

static void on_acknowledged(void *context, struct load_connection *connection, uint32_t tag, uint64_t due_ns, uint8_t reason)
{
    struct prove_load *load = context;
    (void)connection;
    (void)due_ns;
    if (reason >= 0x80 || bit(load->acknowledged, tag))
        return;
    load->acknowledged[tag / 64] |= UINT64_C(1) << (tag % 64);
    load->counts.acknowledged++;
}

static void on_disconnected(void *context, struct load_connection *connection, int error, const char *reason)
{
    struct prove_load *load = context;
    (void)connection;
    (void)error;
    if (!load->gone && !load->closing)
        snprintf(load->problem, sizeof load->problem, "a connection was lost: %s", reason);
    load->gone++;
}

int prove_load_create(struct prove_load **out, unsigned connections, uint32_t payload_bytes, double rate)
{
    if (connections < 1 || connections > PROVE_CONNECTIONS_MAX || payload_bytes < PROVE_PAYLOAD_MIN)
        return ERR_INVALID;
    struct prove_load *load = calloc(1, sizeof *load);
    if (!load)
        return ERR_NO_MEMORY;
    *load = (struct prove_load){.connections = connections, .payload_bytes = payload_bytes, .rate = rate};
    load->opened = calloc(connections, sizeof(struct load_connection *));
    load->payload = malloc(payload_bytes);
    if (!load->opened || !load->payload || reserve_bits(load, 0)) {
        prove_load_destroy(load);
        return ERR_NO_MEMORY;
    }
    *out = load;
    return 0;
}

void prove_load_destroy(struct prove_load *load)
{
    if (!load)
        return;
    load_client_destroy(load->client);
    free(load->opened);
    free(load->payload);
    free(load->acknowledged);
    free(load->seen);
    free(load);
}

static int open_connections(struct prove_load *load, uint16_t port)
{
    static const struct load_handlers handlers = {
        .connected = on_connected, .acknowledged = on_acknowledged, .disconnected = on_disconnected};
    int error = load_client_create(&load->client, "127.0.0.1", port, &handlers);
    for (unsigned i = 0; i < load->connections && !error; i++) {
        char id[64];
        snprintf(id, sizeof id, "prove-%d-%u", (int)getpid(), i);
        const struct load_connection_options options = {.client_id = id, .version = MQTT_VERSION_5_0, .inflight_max = PROVE_INFLIGHT};
        error = load_connection_open(load->client, &options, load, &load->opened[i]);
    }
    return error;
}

int prove_load_connect(struct prove_load *load, uint16_t port, char problem[PROVE_PROBLEM_MAX])
{
    load->connected = load->gone = 0;
    load->closing = false;
    load->problem[0] = 0;
    uint64_t end_ns = clock_monotonic_ns() + CONNECT_TIMEOUT_S * SECOND_NS;
    int error = open_connections(load, port);
    while (!error && load->connected < load->connections && !load->gone && load_client_now_ns(load->client) < end_ns)
        error = load_client_turn(load->client, end_ns);
    if (!error && load->connected == load->connections)
        return 0;
    snprintf(problem, PROVE_PROBLEM_MAX, "not all connections could be made: %.200s", load->problem[0] ? load->problem : error_text(error));
    return ERR_DISCONNECTED;
}

void prove_load_disconnect(struct prove_load *load)
{
    if (!load->client)
        return;
    load->closing = true;
    uint64_t end_ns = clock_monotonic_ns() + REST_TIMEOUT_MS * UINT64_C(1000000);
    while (load->gone < load->connections && load_client_now_ns(load->client) < end_ns)
        if (load_client_turn(load->client, end_ns))
            break;
    load_client_destroy(load->client);
    load->client = NULL;
    load->again_at = 0;
    load->again_end = load->issued;
}

/* ---- publishing ---- */

/* The next number to publish: first what is owed from the server before. False: no more. */
static bool next_number(struct prove_load *load, uint32_t *number)
{
    while (load->again_at < load->again_end && bit(load->acknowledged, load->again_at))
        load->again_at++;
    if (load->again_at < load->again_end) {
        *number = load->again_at++;
        return true;
    }
    if (load->settling || load->issued >= PROVE_MESSAGES_MAX || reserve_bits(load, load->issued))
        return false;
    *number = load->issued++;
    return true;
}

/* Publishes up to `budget` messages. Returns how many. */
static uint64_t publish(struct prove_load *load, uint64_t budget)
{
    uint64_t done = 0;
    for (unsigned i = 0; i < load->connections; i++) {
        uint64_t share = budget / load->connections + (i < budget % load->connections);
        char topic[PROVE_TOPIC_MAX];
        int length = snprintf(topic, sizeof topic, i % 2 ? "OPCPUBSUB/prove/tool%u/Number" : "spindle/prove/%u", i);
        for (uint64_t n = 0; n < share && load_connection_ready(load->opened[i], 1); n++) {
            uint32_t number;
            if (!next_number(load, &number))
                return done;
            write_payload(load, number, load->payload);
            const struct mqtt_publish message = {
                .qos = 1, .topic = {(const uint8_t *)topic, (uint32_t)length}, .payload = {load->payload, load->payload_bytes}};
            if (load_connection_publish(load->opened[i], &message, number, 0))
                return done; /* it stays unacknowledged, and is published to the next server */
            load->counts.published++;
            done++;
        }
    }
    return done;
}

int prove_load_run(struct prove_load *load, double seconds, const volatile bool *stop, char problem[PROVE_PROBLEM_MAX])
{
    uint64_t begin_ns = clock_monotonic_ns(), now_ns = begin_ns, end_ns = begin_ns + (uint64_t)(seconds * 1e9), sent = 0;
    while (now_ns < end_ns && !*stop) {
        uint64_t due = load->rate > 0 ? (uint64_t)((double)(now_ns - begin_ns) / 1e9 * load->rate) + 1 : UINT64_MAX;
        sent += due > sent ? publish(load, load->rate > 0 ? due - sent : UINT64_MAX) : 0;
        uint64_t next_ns = now_ns + TURN_MS * UINT64_C(1000000);
        if (load_client_turn(load->client, next_ns < end_ns ? next_ns : end_ns) || load->gone) {
            snprintf(problem, PROVE_PROBLEM_MAX, "%s", load->problem);
            return ERR_DISCONNECTED;
        }
        now_ns = clock_monotonic_ns();
    }
    return 0;
}

int prove_load_settle(struct prove_load *load, char problem[PROVE_PROBLEM_MAX])
{
    uint64_t end_ns = clock_monotonic_ns() + SETTLE_TIMEOUT_S * SECOND_NS, now_ns = 0;
    load->settling = true;
    while (load->counts.acknowledged < load->issued && now_ns < end_ns) {
        publish(load, UINT64_MAX);
        if (load_client_turn(load->client, clock_monotonic_ns() + TURN_MS * UINT64_C(1000000)) || load->gone) {
            snprintf(problem, PROVE_PROBLEM_MAX, "%s", load->problem);
            return ERR_DISCONNECTED;
        }
        now_ns = clock_monotonic_ns();
    }
    if (load->counts.acknowledged == load->issued)
        return 0;
    snprintf(problem, PROVE_PROBLEM_MAX, "%" PRIu64 " messages were not acknowledged within %d s", load->issued - load->counts.acknowledged,
             SETTLE_TIMEOUT_S);
    return ERR_DISCONNECTED;
}

void prove_load_counts(const struct prove_load *load, struct prove_counts *counts)
{
    *counts = load->counts;
}

/* ---- what is in the files ---- */

static void count_damage(void *context, const struct reader_damage *damage)
{
    (void)damage;
    struct prove_recount *recount = context;
    recount->damages++;
}

static int recount_stream(struct prove_load *load, const char *data_dir, unsigned index, struct prove_recount *recount)
{
    char folder[TOOL_FOLDER_MAX];
    struct reader *reader;
    struct message message;
    int error = tool_stream_folder(data_dir, streams[index], folder);
    if (!error)
        error = reader_open(&reader, disk_posix(), folder, load->read_until[index], count_damage, recount);
    if (error)
        return error;
    while (!(error = reader_next(reader, UINT64_MAX, &message, NULL))) {
        uint32_t number;
        if (read_payload(load, &message, &number))
            load->seen[number / 64] |= UINT64_C(1) << (number % 64);
        else
            recount->invented++;
        load->read_until[index] = message.offset + 1;
    }
    reader_close(reader);
    return error == ERR_TRUNCATED ? 0 : error;
}

int prove_load_recount(struct prove_load *load, const char *data_dir, bool all, struct prove_recount *recount)
{
    struct prove_recount counted = {0};
    int error = 0;
    if (all) {
        memset(load->seen, 0, load->words * sizeof *load->seen);
        memset(load->read_until, 0, sizeof load->read_until);
    }
    for (unsigned i = 0; i < STREAM_COUNT && !error; i++)
        error = recount_stream(load, data_dir, i, &counted);
    if (error)
        return error;
    for (size_t i = 0; i < load->words; i++) {
        uint64_t missing = load->acknowledged[i] & ~load->seen[i];
        if (missing && !counted.lost)
            counted.first_lost = i * 64 + (unsigned)__builtin_ctzll(missing);
        counted.lost += (unsigned)__builtin_popcountll(missing);
    }
    *recount = counted;
    return 0;
}
