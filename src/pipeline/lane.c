/* One slice of a lane: its messages are parsed and joined in order of arrival, deadlines that pass in between are handled in
 * between, sets that are complete are answered. Everything that is decided goes to the worker's writer. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "pipeline/internal.h"
#include "queue/dead_letter.h"

static const struct stage_ops *stage_ops_of(const struct worker *worker)
{
    return worker->pipeline->stage->ops;
}

static struct commit *open_turn(struct worker *worker)
{
    if (!worker->commit)
        worker->commit = commits_take(&worker->pipeline->commits);
    return worker->commit;
}

/* ---- settling ---- */

static void settle(struct worker *worker, uint64_t offset, enum queue_outcome outcome)
{
    struct pipeline *pipeline = worker->pipeline;
    struct commit *commit = open_turn(worker);
    int error = pipeline->queue->ops->settle(worker->writer, (struct queue_position){offset}, outcome);
    if (error)
        pipeline_report(pipeline, OPERATION_WRITE, offset, error);
    else
        commit->outcomes[outcome]++;
}

static void dead_letter(struct worker *worker, uint64_t offset, const char *reason, const char *part, const char *text,
                        const struct message *message)
{
    struct pipeline *pipeline = worker->pipeline;
    struct queue_dead_letter letter = {
        .position = {offset}, .reason = reason ? reason : "internal", .stage = part, .error = text, .message = message};
    struct commit *commit = open_turn(worker);
    int error = pipeline->queue->ops->dead_letter(worker->writer, &letter);
    if (error)
        pipeline_report(pipeline, OPERATION_WRITE, offset, error);
    else
        commit->outcomes[QUEUE_DEAD_LETTERED]++;
}

/* ---- answering ---- */

static void count_answer(struct worker *worker, const char *word)
{
    struct worker_counters *counters = &worker->counters;
    unsigned i = 0;
    for (; word && i < PIPELINE_OUTCOME_WORDS_MAX; i++) {
        const char *known = atomic_load_explicit(&counters->words[i], memory_order_relaxed);
        if (!known)
            atomic_store_explicit(&counters->words[i], word, memory_order_release);
        if (!known || strcmp(known, word) == 0)
            break;
    }
    atomic_fetch_add_explicit(&counters->answers[word ? i : PIPELINE_OUTCOME_WORDS_MAX], 1, memory_order_relaxed);
}

static void output_clear(struct stage_output *output)
{
    for (unsigned i = 0; i < 2; i++) {
        buffer_clear(&output->topic[i]);
        buffer_clear(&output->payload[i]);
        buffer_shrink(&output->payload[i], PIPELINE_OUTPUT_PAYLOAD_KEEP);
    }
    output->count = 0;
    output->withheld = false;
    output->error = 0;
    output->outcome = NULL;
}

/* Results are published with QoS 1, so that whoever subscribes with QoS 1 gets them for sure. Their properties are their message id: 16
 * hexadecimal digits of the set's key, stamp and id, a dash, and which of its results it is. It is the same whenever the same set is
 * answered, so a subscriber can tell the rare repeat after a crash from a new result. */
static int publish(struct worker *worker, const struct join_set *set, const uint64_t *sources, size_t source_count)
{
    const struct set_name name = {.key = set->key,
                                  .key_length = set->key_length,
                                  .key_hash = set_key_hash(set->key, set->key_length),
                                  .stamp = set->stamp,
                                  .id = set->id};
    uint64_t hash = set_id_hash(&name);
    const struct stage_output *output = &worker->output;
    uint64_t time_ns = clock_wall_ns();
    int error = 0;
    for (unsigned i = 0; i < output->count && !error; i++) {
        char id[32];
        int id_length = snprintf(id, sizeof id, "%016" PRIx64 "-%u", hash, i);
        struct message message = {.offset = UINT64_MAX,
                                  .time_ns = time_ns,
                                  .topic = (const char *)output->topic[i].data,
                                  .topic_length = (uint32_t)output->topic[i].length,
                                  .payload = output->payload[i].data,
                                  .payload_length = (uint32_t)output->payload[i].length,
                                  .properties = (const uint8_t *)id,
                                  .properties_length = (uint32_t)id_length,
                                  .flags = output->withheld ? 1 | MESSAGE_WITHHELD : 1};
        bool last = i + 1 == output->count;
        error = worker->pipeline->queue->ops->result(worker->writer, &message, last ? sources : NULL, last ? source_count : 0);
    }
    return error;
}

/* The stage's answer becomes results, and the good messages of the set are completed by them. */
static void answer(struct worker *worker, struct lane *lane, struct join_set *set)
{
    struct pipeline *pipeline = worker->pipeline;
    const struct stage_item *items[STAGE_SIDES_MAX] = {0};
    uint64_t sources[STAGE_SIDES_MAX], origin_ns = 0;
    size_t source_count = 0;
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++) {
        const struct join_member *member = set->members[side];
        if (!member)
            continue;
        items[side] = &member->item;
        if (member->origin_ns > origin_ns)
            origin_ns = member->origin_ns;
        if (!member->item.broken)
            sources[source_count++] = member->offset;
    }
    output_clear(&worker->output);
    stage_ops_of(worker)->complete(pipeline->stage, worker->scratch, set->key, set->key_length, items, clock_monotonic_ns(),
                                   &worker->output);
    count_answer(worker, worker->output.outcome);
    struct commit *commit = open_turn(worker);
    commit->origins_ns[commit->answer_count++] = origin_ns;
    int error = worker->output.error;
    assert(error || worker->output.count); /* the last result names the sources, and so settles them */
    if (!error)
        error = publish(worker, set, sources, source_count);
    for (size_t i = 0; i < source_count; i++) {
        if (error)
            dead_letter(worker, sources[i], "internal", "publish", error_text(error), NULL);
        else
            commit->outcomes[QUEUE_COMPLETED]++;
    }
    if (error)
        pipeline_report(pipeline, OPERATION_WRITE, source_count ? sources[0] : 0, error);
    join_finish(&lane->join, set, atomic_fetch_add_explicit(&pipeline->answers, 1, memory_order_relaxed));
}

/* Does what the join decided. `message` is the one that came, or NULL. */
static void act(struct worker *worker, struct lane *lane, const struct join_decisions *decisions, const struct message *message)
{
    for (unsigned i = 0; i < decisions->count; i++) {
        const struct join_settlement *settlement = &decisions->settlements[i];
        const struct message *known = message && message->offset == settlement->offset ? message : NULL;
        if (settlement->outcome == QUEUE_DEAD_LETTERED)
            dead_letter(worker, settlement->offset, settlement->reason, "join", decisions->error, known);
        else
            settle(worker, settlement->offset, settlement->outcome);
    }
    if (decisions->answer)
        answer(worker, lane, decisions->answer);
}

/* ---- messages ---- */

/* Reads a message again; *message is the caller's to free. Its key and side follow from its topic, as they did the first time. */
static int read_again(struct worker *worker, uint64_t offset, struct message **message, struct stage_route *route)
{
    struct pipeline *pipeline = worker->pipeline;
    struct stage_refusal refusal = {0};
    int error = pipeline->queue->ops->read_again(pipeline->queue, (struct queue_position){offset}, message);
    if (!error) {
        *route = (struct stage_route){0};
        stage_ops_of(worker)->route(pipeline->stage, (*message)->topic, (*message)->topic_length, route, &refusal);
        error = route->verdict == STAGE_TAKE ? 0 : ERR_CORRUPT;
        if (error)
            free(*message);
    }
    if (error)
        pipeline_report(pipeline, OPERATION_READ_AGAIN, offset, error);
    return error;
}

/* join_reload */
static int reload(void *context, const struct join_set *set, const struct join_member *member, struct stage_item *item)
{
    struct worker *worker = context;
    struct pipeline *pipeline = worker->pipeline;
    struct message *message;
    struct stage_refusal refusal = {0};
    struct stage_route route;
    (void)set;
    int error = read_again(worker, member->offset, &message, &route);
    if (error)
        return error;
    memset(item, 0, sizeof *item);
    error = stage_ops_of(worker)->parse(pipeline->stage, worker->scratch, &route, message, item, &refusal);
    if (!error && item->broken) {
        stage_ops_of(worker)->item_free(pipeline->stage, item);
        error = ERR_CORRUPT;
    }
    if (error)
        pipeline_report(pipeline, OPERATION_READ_AGAIN, member->offset, error);
    free(message);
    return error;
}

static void handle_message(struct worker *worker, struct lane *lane, const struct lane_entry *entry)
{
    struct pipeline *pipeline = worker->pipeline;
    const struct message *message = entry->message;
    struct stage_route route = {.verdict = STAGE_TAKE, .key = entry->key, .key_length = entry->key_length, .side = entry->side};
    struct stage_refusal refusal = {0};
    struct stage_item item = {0};
    int error = stage_ops_of(worker)->parse(pipeline->stage, worker->scratch, &route, message, &item, &refusal);
    if (error || item.broken) {
        const char *text = refusal.error[0] || !error ? refusal.error : error_text(error);
        if (!entry->settled)
            dead_letter(worker, message->offset, refusal.reason, "parse", text, message);
        if (error)
            return;
    } else if (entry->settled) {
        stage_ops_of(worker)->item_free(pipeline->stage, &item);
        return;
    }
    item.side = entry->side;
    struct join_message arrived = {.key = entry->key,
                                   .key_length = entry->key_length,
                                   .key_hash = entry->key_hash,
                                   .offset = message->offset,
                                   .arrival_ns = entry->arrival_ns,
                                   .origin_ns = entry->origin_ns,
                                   .again = message->flags & MESSAGE_REQUEUED,
                                   .was_refused = dead_letter_was_refused(message)};
    struct join_decisions decisions;
    join_add(&lane->join, &arrived, &item, &decisions);
    act(worker, lane, &decisions, message);
}

/* A message that was put aside and is gone is given up. Where the reading failed for another reason it stays pending. */
static void handle(struct worker *worker, struct lane *lane, const struct lane_entry *entry)
{
    struct lane_entry whole = *entry;
    struct message *again = NULL;
    if (!entry->message) {
        struct stage_route route;
        int error = read_again(worker, entry->offset, &again, &route);
        if (queue_message_is_gone(error) && !entry->settled)
            dead_letter(worker, entry->offset, "internal", "join", error_text(error), NULL);
        if (error)
            return;
        whole.message = again;
        whole.key = route.key;
        whole.key_length = route.key_length;
    }
    handle_message(worker, lane, &whole);
    free(again);
}

/* ---- making room ---- */

static void tell(atomic_uint_fast64_t *sum, uint64_t *told, uint64_t now)
{
    if (now != *told)
        atomic_fetch_add_explicit(sum, now - *told, memory_order_relaxed); /* modulo 2^64, so it may fall too */
    *told = now;
}

static void tell_use(struct pipeline *pipeline, struct lane *lane)
{
    tell(&pipeline->open_sets, &lane->told_open, lane->join.open_count);
    tell(&pipeline->waiting_messages, &lane->told_waiting, lane->join.waiting_count);
    tell(&pipeline->held_bytes, &lane->told_held, lane->join.held_bytes);
    tell(&pipeline->finished_sets, &lane->told_finished, finished_count(&lane->join.finished));
}

enum relief pipeline_relief(struct pipeline *pipeline)
{
    const struct pipeline_options *options = &pipeline->options;
    if (atomic_load_explicit(&pipeline->waiting_messages, memory_order_relaxed) > options->waiting_messages_max)
        return RELIEF_SETS;
    if (atomic_load_explicit(&pipeline->held_bytes, memory_order_relaxed) > options->held_bytes_max)
        return pipeline->queue->ops->read_again ? RELIEF_CONTENT : RELIEF_SETS;
    if (atomic_load_explicit(&pipeline->finished_sets, memory_order_relaxed) > options->finished_sets_max)
        return RELIEF_FINISHED;
    return RELIEF_NONE;
}

/* One step: the next oldest may lie in another lane. */
static void relieve(struct worker *worker, struct lane *lane, const struct slice *slice)
{
    struct join *join = &lane->join;
    struct join_decisions decisions;
    if (pipeline_relief(worker->pipeline) == RELIEF_NONE)
        return; /* another worker was faster */
    if (slice->relief == RELIEF_SETS && join_give_up_oldest(join, slice->now_ns, &decisions))
        act(worker, lane, &decisions, NULL);
    else if (slice->relief == RELIEF_CONTENT)
        join_drop_oldest_content(join);
    else if (slice->relief == RELIEF_FINISHED)
        finished_trim(&join->finished, finished_oldest(&join->finished) + 1);
}

/* ---- the slice ---- */

static void run(struct worker *worker, struct lane *lane, struct slice *slice)
{
    struct join_decisions decisions;
    uint64_t end_ns = clock_monotonic_ns() + PIPELINE_SLICE_NS_MAX;
    for (unsigned step = 0; step < COMMIT_ANSWERS_MAX; step++) {
        struct lane_entry *entry = STAILQ_FIRST(&slice->entries);
        /* Without an entry, while more wait in the mailbox: no deadline is handled, only what an answer has let go. */
        uint64_t now_ns = entry ? entry->arrival_ns : slice->drained ? slice->now_ns : 0;
        if (join_expire(&lane->join, now_ns, &decisions)) {
            act(worker, lane, &decisions, NULL);
        } else if (entry) {
            handle(worker, lane, entry);
            STAILQ_REMOVE_HEAD(&slice->entries, next);
            STAILQ_INSERT_TAIL(&slice->done, entry, next);
        } else {
            break;
        }
        tell_use(worker->pipeline, lane);
        enum relief relief = pipeline_relief(worker->pipeline);
        if (relief == RELIEF_SETS || relief == RELIEF_CONTENT || clock_monotonic_ns() > end_ns)
            break;
    }
}

/* Each lane forgets what is older than the last 7/8 of the limit whenever it runs. So lanes that run seldom may keep a little more before
 * somebody must visit them to make room. */
static uint64_t finished_horizon(struct pipeline *pipeline)
{
    uint64_t answers = atomic_load_explicit(&pipeline->answers, memory_order_relaxed), max = pipeline->options.finished_sets_max;
    uint64_t kept = max - max / 8;
    return answers > kept ? answers - kept : 0;
}

/* What came before the clock's last restart waits from then on. */
static void begin_anew(struct lane *lane, struct slice *slice)
{
    if (lane->restarted_ns != slice->restarted_ns)
        join_restart(&lane->join, slice->restarted_ns);
    lane->restarted_ns = slice->restarted_ns;
    for (struct lane_entry *entry = STAILQ_FIRST(&slice->entries); entry; entry = STAILQ_NEXT(entry, next))
        if (entry->arrival_ns < slice->restarted_ns)
            entry->arrival_ns = slice->restarted_ns;
}

void lane_run(struct worker *worker, struct lane *lane, struct slice *slice)
{
    struct pipeline *pipeline = worker->pipeline;
    struct join *join = &lane->join;
    join_configure(join, &slice->join_options);
    join_set_reload(join, pipeline->queue->ops->read_again ? reload : NULL, worker);
    if (slice->restarted_ns)
        begin_anew(lane, slice);
    if (slice->relief != RELIEF_NONE)
        relieve(worker, lane, slice);
    else
        run(worker, lane, slice);
    finished_trim(&join->finished, finished_horizon(pipeline));
    tell_use(pipeline, lane);
    slice->standing = (struct lane_standing){
        .deadline_ns = join_deadline(join),
        .oldest = {join_oldest_set_ns(join), join_oldest_content_ns(join), finished_oldest(&join->finished)},
    };
}
