/* See journal_trial.h. */
#include "journal_trial.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "base/hash.h"
#include "journal/ends.h"
#include "unit.h"

enum { NOISE_SIZE = 4 << 20, LARGE_SIZE = 1200 << 10, TOPIC_MAX = 24, SOURCES_MAX = 3, DAMAGE_MAX = 64 };

static const struct journal_stream_options stream_options[TRIAL_STREAMS] = {
    {.name = "first", .retention_size = 96 << 10},
    {.name = "guarded", .retention_size = 64 << 10, .guarded = true},
    {.name = "all"},
};

/* ---- seeds ---- */

static uint64_t current_seed;
static char again[128];

static void say_seed(int signal_number)
{
    (void)signal_number;
    if (write(STDERR_FILENO, again, strlen(again)) < 0)
        _exit(1);
}

void trial_fail(const char *file, int line, const char *condition, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s (%s)\n", text, condition);
    say_seed(0);
    _fail(file, line);
    abort();
}

void trial_seeds(unsigned default_runs, void (*run)(uint64_t seed))
{
    const char *seed = getenv("SPINDLE_FAULT_SEED"), *runs = getenv("SPINDLE_FAULT_RUNS");
    uint64_t first = seed ? strtoull(seed, NULL, 0) : 1;
    uint64_t count = seed ? 1 : runs ? strtoull(runs, NULL, 0) : default_runs;
    diagnostics_set_level((enum diagnostics_level)(DIAGNOSTICS_ERROR + 1)); /* damage is what it is all about */
    signal(SIGABRT, say_seed);
    for (uint64_t i = 0; i < count; i++) {
        current_seed = first + i;
        snprintf(again, sizeof again, "run it again with SPINDLE_FAULT_SEED=%llu\n", (unsigned long long)current_seed);
        run(current_seed);
    }
    signal(SIGABRT, SIG_DFL);
    diagnostics_set_level(DIAGNOSTICS_INFO);
}

/* ---- records ---- */

static const uint8_t *noise(void)
{
    static uint8_t bytes[NOISE_SIZE];
    static bool made;
    struct random_source random = {1};
    for (size_t i = 0; !made && i < sizeof bytes; i += 8) {
        uint64_t value = random_u64(&random) & 0x0f0f0f0f0f0f0f0fu; /* so that compression is worth it */
        memcpy(bytes + i, &value, 8);
    }
    made = true;
    return bytes;
}

/* The message of a serial number; its payload is the token and then noise. */
static struct message make_record(uint64_t token, uint32_t payload_length, uint8_t *payload, uint64_t sources[SOURCES_MAX], size_t *count)
{
    uint64_t serial = token >> 8;
    memcpy(payload, &token, 8);
    memcpy(payload + 8, noise() + serial * 31 % (NOISE_SIZE - LARGE_SIZE - 8), payload_length - 8);
    *count = serial % 5 ? 0 : serial % SOURCES_MAX;
    for (size_t i = 0; i < *count; i++)
        sources[i] = serial - i;
    return (struct message){.time_ns = 1000 + serial,
                            .topic = "site/rig/tool/channel/x",
                            .topic_length = (uint32_t)(serial % TOPIC_MAX),
                            .properties = noise() + serial,
                            .properties_length = serial % 3 ? 0 : (uint32_t)(serial % 40),
                            .payload = payload,
                            .payload_length = payload_length,
                            .flags = (uint8_t)(serial % 3 | (serial % 7 ? 0u : MESSAGE_WITHHELD))};
}

static uint64_t token_of(unsigned stream, uint64_t serial)
{
    return serial << 8 | (stream + 1);
}

static struct trial_record *record_of(struct trial *trial, unsigned stream, uint64_t token)
{
    uint64_t serial = token >> 8;
    TRIAL_CHECK((token & 0xff) == stream + 1 && serial < trial->streams[stream].count,
                "stream %u has a record that was never appended: %llx", stream, (unsigned long long)token);
    return &trial->streams[stream].records[serial];
}

static uint64_t token_read(const struct message *message)
{
    uint64_t token = 0;
    if (message->payload_length >= 8)
        memcpy(&token, message->payload, 8);
    return token;
}

static uint32_t draw_length(struct trial *trial)
{
    struct random_source *random = &trial->random;
    uint32_t kind = random_below(random, 400);
    uint32_t most = kind == 0 && trial->with_large ? LARGE_SIZE - 8 : kind < 4 ? 90000 : kind < 40 ? 20000 : kind < 160 ? 4000 : 200;
    return 8 + (kind == 0 && trial->with_large ? most : random_below(random, most));
}

static void append_one(struct trial *trial)
{
    static uint8_t payload[LARGE_SIZE];
    struct random_source *random = &trial->random;
    uint32_t kind = random_below(random, 8);
    unsigned index = kind < 4 ? 0 : kind < 7 ? 1 : 2;
    struct trial_stream *stream = &trial->streams[index];
    if (stream->count == stream->capacity) {
        stream->capacity = stream->capacity ? stream->capacity * 2 : 256;
        stream->records = realloc(stream->records, stream->capacity * sizeof *stream->records);
        assert(stream->records);
    }
    uint64_t sources[SOURCES_MAX], token = token_of(index, stream->count);
    size_t source_count;
    struct trial_record *record = &stream->records[stream->count++];
    *record = (struct trial_record){.state = TRIAL_SENT, .payload_length = draw_length(trial), .offset = UINT64_MAX};
    struct message message = make_record(token, record->payload_length, payload, sources, &source_count);
    struct journal_producer *producer = trial->producers[random_below(random, TRIAL_PRODUCERS)];
    TRIAL_CHECK(journal_append(producer, trial->journal_streams[index], &message, sources, source_count, token) == 0, "append");
}

/* ---- what the journal tells ---- */

static void note_shown(void *context, const struct message *message)
{
    const struct trial_shown *shown = context;
    struct trial *trial = shown->trial;
    unsigned index = shown->stream;
    struct trial_record *record = record_of(trial, index, token_read(message));
    struct trial_stream *stream = &trial->streams[index];
    TRIAL_CHECK(record->state == TRIAL_SENT, "stream %u shows offset %llu twice", index, (unsigned long long)message->offset);
    TRIAL_CHECK(message->offset == stream->next && journal_stream_durable(trial->journal_streams[index]) > message->offset,
                "stream %u shows offset %llu", index, (unsigned long long)message->offset);
    record->state = TRIAL_DURABLE;
    record->offset = stream->next++;
}

static void note_told(void *context, const struct journal_batch *batch)
{
    struct trial *trial = context;
    for (size_t i = 0; i < batch->token_count; i++) {
        unsigned index = (unsigned)(batch->tokens[i] & 0xff) - 1;
        TRIAL_CHECK(record_of(trial, index, batch->tokens[i])->state == TRIAL_DURABLE, "stream %u: told before it was durable", index);
    }
}

static void on_told(void *context)
{
    struct trial *trial = context;
    for (unsigned i = 0; i < TRIAL_PRODUCERS; i++)
        journal_producer_poll(trial->producers[i], note_told, trial);
}

static struct trial *running; /* whose journal is at work: fatal has no context */

static void on_fatal(const char *text)
{
    TRIAL_CHECK(running && running->may_die, "the journal gave up: %s", text);
    longjmp(running->died, 1);
}

/* ---- the disk's calls ---- */

static int before_call(void *context, const struct simulated_call *call)
{
    struct trial *trial = context;
    const uint64_t numbers[] = {call->kind, call->position, call->bytes};
    trial->calls_sum = hash_bytes(call->path, strlen(call->path), hash_bytes(numbers, sizeof numbers, trial->calls_sum));
    bool unlocked = call->kind == SIMULATED_WRITE || call->kind == SIMULATED_SYNC;
    if (trial->in_group && !trial->in_keeper && unlocked && random_below(&trial->random, trial->keeper_one_in) == 0) {
        trial->in_keeper = true;
        journal_step_keeper(trial->journal);
        trial->in_keeper = false;
    }
    bool counts = call->kind == trial->fail_kind && (trial->in_keeper || !trial->fail_keeper);
    if (trial->fail_in && counts && --trial->fail_in == 0)
        return trial->fail_error ? -trial->fail_error : -EIO;
    return 0;
}

static void after_call(void *context, const struct simulated_call *call)
{
    struct trial *trial = context;
    if (trial->on_call) {
        struct trial *outer = running;
        trial->on_call(trial, call);
        running = outer;
    }
}

static void take_disk(struct trial *trial, struct simulated_disk *disk)
{
    trial->disk = disk;
    simulated_disk_set_hooks(disk, &(struct simulated_hooks){before_call, after_call, trial});
}

/* ---- processes ---- */

void trial_init(struct trial *trial, uint64_t seed)
{
    *trial = (struct trial){
        .random = {seed}, .segment_size = TRIAL_SEGMENT_SIZE, .keeper_one_in = 4, .writers = 1 + (unsigned)(seed % JOURNAL_WRITERS_MAX)};
    take_disk(trial, simulated_disk_create(random_u64(&trial->random)));
}

void trial_init_crashed(struct trial *crashed, const struct trial *trial, uint64_t seed)
{
    *crashed = (struct trial){.random = {seed},
                              .segment_size = trial->segment_size,
                              .keeper_one_in = trial->keeper_one_in,
                              .readings = trial->readings,
                              .compression_level = trial->compression_level,
                              .writers = trial->writers};
    for (unsigned i = 0; i < TRIAL_STREAMS; i++) {
        struct trial_stream *stream = &crashed->streams[i];
        *stream = trial->streams[i];
        stream->capacity = stream->count;
        stream->records = malloc((stream->count + 1) * sizeof *stream->records);
        assert(stream->records);
        if (stream->count)
            memcpy(stream->records, trial->streams[i].records, stream->count * sizeof *stream->records);
    }
    take_disk(crashed, simulated_disk_crash(trial->disk, random_u64(&crashed->random)));
}

static void close_journal(struct trial *trial)
{
    for (unsigned i = 0; i < TRIAL_PRODUCERS; i++) {
        journal_producer_close(trial->producers[i]);
        trial->producers[i] = NULL;
    }
    journal_close(trial->journal);
    trial->journal = NULL;
    trial->in_group = trial->in_keeper = false;
}

void trial_fini(struct trial *trial)
{
    if (trial->journal)
        trial_kill(trial);
    simulated_disk_destroy(trial->disk);
    for (unsigned i = 0; i < TRIAL_STREAMS; i++)
        free(trial->streams[i].records);
}

void trial_crash(struct trial *trial)
{
    struct simulated_disk *left = simulated_disk_crash(trial->disk, random_u64(&trial->random));
    if (trial->journal)
        trial_kill(trial);
    simulated_disk_destroy(trial->disk);
    take_disk(trial, left);
}

int trial_open(struct trial *trial)
{
    struct journal_options options = {.disk = simulated_disk_table(trial->disk),
                                      .folder = "/data",
                                      .segment_size = trial->segment_size,
                                      .fatal = on_fatal,
                                      .compression_level = trial->compression_level,
                                      .writers = trial->writers,
                                      .stepped = true};
    int error = journal_open(&trial->journal, &options);
    if (error)
        return error;
    for (unsigned i = 0; i < TRIAL_STREAMS && !error; i++) {
        error = journal_stream_add(trial->journal, &stream_options[i], &trial->journal_streams[i]);
        trial->shown[i] = (struct trial_shown){trial, i};
        if (!error)
            journal_stream_on_record(trial->journal_streams[i], note_shown, &trial->shown[i]);
    }
    if (!error)
        error = journal_start(trial->journal);
    for (unsigned i = 0; i < TRIAL_PRODUCERS && !error; i++)
        error = journal_producer_open(trial->journal, on_told, trial, &trial->producers[i]);
    if (error)
        trial_kill(trial);
    return error;
}

bool trial_close(struct trial *trial)
{
    struct trial *outer = running;
    running = trial;
    bool alive = setjmp(trial->died) == 0;
    while (alive && journal_step_group(trial->journal))
        continue;
    running = outer;
    if (alive)
        close_journal(trial);
    return alive;
}

void trial_kill(struct trial *trial)
{
    simulated_disk_kill(trial->disk);
    close_journal(trial);
    simulated_disk_revive(trial->disk);
}

static void step_group(struct trial *trial)
{
    trial->in_group = true;
    journal_step_group(trial->journal);
    trial->in_group = false;
}

/* A consumer has moved on. */
static void raise_guard(struct trial *trial)
{
    struct trial_stream *stream = &trial->streams[1];
    if (stream->guard < stream->next)
        stream->guard += random_below(&trial->random, (uint32_t)(stream->next - stream->guard) + 1);
    journal_stream_set_guard(trial->journal_streams[1], stream->guard);
}

bool trial_turns(struct trial *trial, unsigned turns)
{
    struct random_source *random = &trial->random;
    struct trial *outer = running;
    running = trial;
    bool alive = setjmp(trial->died) == 0;
    if (alive) {
        for (unsigned i = 0; i < turns; i++) {
            for (uint32_t records = random_below(random, 12); records > 0; records--)
                append_one(trial);
            for (unsigned p = 0; p < TRIAL_PRODUCERS; p++)
                if (random_below(random, 4))
                    journal_submit(trial->producers[p]);
            if (random_below(random, 4))
                step_group(trial);
            for (uint32_t steps = random_below(random, 4); steps > 0; steps--)
                journal_step_keeper(trial->journal);
            if (random_below(random, 4) == 0)
                raise_guard(trial);
        }
    }
    running = outer;
    return alive;
}

/* ---- readings ---- */

void trial_folder(unsigned stream, char folder[64])
{
    snprintf(folder, 64, "/data/%s", stream_options[stream].name);
}

struct damage_list {
    struct reader_damage list[DAMAGE_MAX];
    unsigned count;
};

static void note_damage(void *context, const struct reader_damage *damage)
{
    struct damage_list *noted = context;
    TRIAL_CHECK(noted->count < DAMAGE_MAX, "too much damage to note");
    noted->list[noted->count++] = *damage;
}

static bool is_damaged(const struct damage_list *damage, uint64_t offset)
{
    for (unsigned i = 0; i < damage->count; i++)
        if (offset >= damage->list[i].first_offset && (offset < damage->list[i].next_offset || damage->list[i].unbounded))
            return true;
    return false;
}

/* What was read is what was appended, at an offset that follows the last one's but for damage. */
static void check_record(struct trial *trial, unsigned index, const struct message *message, const uint8_t *stored, uint64_t expected,
                         const struct damage_list *damage)
{
    static uint8_t payload[LARGE_SIZE];
    unsigned long long offset = message->offset;
    for (; expected < message->offset; expected++)
        TRIAL_CHECK(is_damaged(damage, expected), "stream %u: offset %llu is missing, and nobody says so", index,
                    (unsigned long long)expected);
    TRIAL_CHECK(message->offset == expected && !is_damaged(damage, expected), "stream %u: offset %llu where %llu follows", index, offset,
                (unsigned long long)expected);
    uint64_t token = token_read(message);
    struct trial_record *record = record_of(trial, index, token);
    TRIAL_CHECK(record->read != trial->readings, "stream %u has the record at offset %llu twice", index, offset);
    TRIAL_CHECK(record->state != TRIAL_GONE, "stream %u: the record at offset %llu had been lost", index, offset);
    TRIAL_CHECK(record->state != TRIAL_DURABLE || record->offset == message->offset, "stream %u: a record has moved to offset %llu", index,
                offset);
    uint64_t sources[SOURCES_MAX];
    const uint64_t *stored_sources;
    size_t count;
    struct message made = make_record(token, record->payload_length, payload, sources, &count);
    bool same = message->payload_length == made.payload_length && memcmp(message->payload, payload, made.payload_length) == 0 &&
                message->topic_length == made.topic_length && memcmp(message->topic, made.topic, made.topic_length) == 0 &&
                message->properties_length == made.properties_length &&
                memcmp(message->properties, made.properties, made.properties_length) == 0 && message->time_ns == made.time_ns &&
                message->flags == made.flags && format_record_sources(stored, &stored_sources) == count &&
                memcmp(stored_sources, sources, count * sizeof *sources) == 0;
    TRIAL_CHECK(same, "stream %u: the record at offset %llu is not what was appended", index, offset);
    record->read = trial->readings;
    if (record->state == TRIAL_SENT)
        record->offset = message->offset;
}

static uint64_t read_stream(struct trial *trial, unsigned index, bool undamaged, struct damage_list *damage)
{
    struct disk *disk = simulated_disk_table(trial->disk);
    struct trial_stream *stream = &trial->streams[index];
    char folder[64];
    trial_folder(index, folder);
    uint64_t *bases = NULL, first = 0;
    size_t count = 0;
    int error = segment_list(disk, folder, &bases, &count);
    if (!error && count)
        first = bases[0];
    free(bases);
    struct format_ends ends;
    TRIAL_CHECK(!undamaged || ends_read(disk, "/data", &ends) || first <= ends_first_of(&ends, stream_options[index].name),
                "stream %u begins at offset %llu, and ends says that nothing before it was removed", index, (unsigned long long)first);
    TRIAL_CHECK(first == 0 || (stream_options[index].retention_size && (!stream_options[index].guarded || first <= stream->guard)),
                "stream %u begins at offset %llu", index, (unsigned long long)first);
    struct reader *reader = NULL;
    if (!error)
        error = reader_open(&reader, disk, folder, 0, note_damage, damage);
    struct message message;
    const uint8_t *stored;
    uint64_t expected = first;
    while (!error && !(error = reader_next(reader, UINT64_MAX, &message, &stored))) {
        check_record(trial, index, &message, stored, expected, damage);
        expected = message.offset + 1;
    }
    reader_close(reader);
    TRIAL_CHECK(error == ERR_TRUNCATED || error == ERR_NOT_FOUND, "stream %u: reading ends with: %s", index, error_text(error));
    for (size_t i = 0; i < stream->count; i++) {
        const struct trial_record *record = &stream->records[i];
        if (record->state == TRIAL_DURABLE && record->read != trial->readings)
            TRIAL_CHECK(record->offset < first || is_damaged(damage, record->offset),
                        "stream %u: the durable record at offset %llu of %llu to %llu is not there", index,
                        (unsigned long long)record->offset, (unsigned long long)first, (unsigned long long)expected);
    }
    return first;
}

/* What is told lost had been there. */
static void check_damage(const struct trial_stream *stream, unsigned index, const struct damage_list *damage, uint64_t first)
{
    for (unsigned i = 0; i < damage->count; i++) {
        const struct reader_damage *one = &damage->list[i];
        TRIAL_CHECK(one->first_offset >= first && one->first_offset <= one->next_offset && one->next_offset <= stream->next,
                    "stream %u: damage is told at offsets %llu to %llu, of %llu to %llu", index, (unsigned long long)one->first_offset,
                    (unsigned long long)one->next_offset, (unsigned long long)first, (unsigned long long)stream->next);
    }
}

void trial_read(struct trial *trial, bool damaged)
{
    trial->readings++;
    for (unsigned i = 0; i < TRIAL_STREAMS; i++) {
        struct damage_list damage = {0};
        uint64_t first = read_stream(trial, i, !damaged, &damage);
        TRIAL_CHECK(damaged || damage.count == 0, "stream %u: damage is told at offsets %llu to %llu of %s, byte %llu", i,
                    (unsigned long long)damage.list[0].first_offset, (unsigned long long)damage.list[0].next_offset, damage.list[0].segment,
                    (unsigned long long)damage.list[0].position);
        check_damage(&trial->streams[i], i, &damage, first);
    }
}

void trial_adopt(struct trial *trial, bool damaged)
{
    trial_read(trial, damaged);
    for (unsigned i = 0; i < TRIAL_STREAMS; i++) {
        struct trial_stream *stream = &trial->streams[i];
        for (size_t r = 0; r < stream->count; r++)
            if (stream->records[r].state == TRIAL_SENT)
                stream->records[r].state = stream->records[r].read == trial->readings ? TRIAL_DURABLE : TRIAL_GONE;
        stream->next = 0;
        for (size_t r = 0; r < stream->count; r++)
            if (stream->records[r].state == TRIAL_DURABLE && stream->records[r].offset >= stream->next)
                stream->next = stream->records[r].offset + 1;
        TRIAL_CHECK(!trial->journal || journal_stream_durable(trial->journal_streams[i]) == stream->next,
                    "stream %u goes on at offset %llu, not %llu", i, (unsigned long long)journal_stream_durable(trial->journal_streams[i]),
                    (unsigned long long)stream->next);
    }
}
