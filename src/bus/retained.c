/* The lock around the tree, and the stream behind it. */
#include "bus/retained.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "journal/format.h"
#include "journal/reader.h"

enum { REWRITE_STEP = 4096 }; /* bytes that are written again with each message, at least */

struct retained {
    struct retained_options options;
    pthread_mutex_t lock; /* guards all that follows */
    struct retained_tree *tree;
    uint64_t puts;                     /* since the start */
    uint32_t passing, swept;           /* messages that are passing; the slot at which retained_expire goes on */
    struct journal_producer *producer; /* NULL: in memory only */
    uint64_t next_offset;              /* of the next record of the stream */
    size_t written;                    /* bytes of the stream's records from `valid_from` on */

    /* Writing again what was written before a pass began. It ends when every slot was looked at; when the last of what it wrote is durable,
     * nothing is needed of what lay before. */
    bool rewriting;
    uint32_t rewriting_at;    /* slot */
    uint64_t rewriting_from;  /* next_offset when it began */
    size_t rewriting_before;  /* `written` then */
    uint64_t guard, guard_at; /* the guard may be set to the former when the latter is durable; 0: there is nothing to set */
};

static size_t record_size(const struct message *message)
{
    return format_record_size(message, 0);
}

/* Whether there is room for one more; what is passing does not count. */
static bool fits(struct retained *retained, const struct message *message)
{
    const struct retained_options *options = &retained->options;
    return message->payload_length == 0 || retained_tree_count(retained->tree) - retained->passing < options->messages_max ||
           retained_tree_holds(retained->tree, message);
}

/* ---- the start ---- */

/* Where the oldest message that is still retained lies: nothing before it is needed. */
static uint64_t first_needed(const struct retained *retained)
{
    uint64_t first = retained->next_offset;
    for (uint32_t i = 0; i < retained_tree_slots(retained->tree); i++) {
        const struct retained_message *kept = retained_tree_at(retained->tree, i);
        if (kept && kept->offset < first)
            first = kept->offset;
    }
    return first;
}

static int load(struct retained *retained)
{
    const struct retained_options *options = &retained->options;
    struct reader *reader;
    int error = journal_stream_reader(options->stream, 0, &reader);
    if (error)
        return error;
    uint64_t end = journal_stream_durable(options->stream), left_out = 0;
    struct message message;
    while (!(error = reader_next(reader, end, &message, NULL))) {
        struct retained_message *made = NULL;
        int taken = fits(retained, &message) ? retained_tree_put(retained->tree, &message, &made) : ERR_LIMIT;
        if (taken < 0 && taken != ERR_LIMIT) {
            error = taken;
            break;
        }
        left_out += taken == ERR_LIMIT;
        if (taken > 0 && made)
            made->offset = message.offset;
        retained->written += record_size(&message);
    }
    reader_close(reader);
    retained->next_offset = end;
    if (left_out)
        diagnostics(DIAGNOSTICS_WARNING, "bus",
                    "%" PRIu64 " retained messages in %s do not fit into bus.retained_max and bus.retained_size_max; they are left out",
                    left_out, journal_stream_folder(options->stream));
    if (!left_out && error == ERR_TRUNCATED)
        journal_stream_set_guard(options->stream, first_needed(retained));
    return error == ERR_TRUNCATED ? 0 : error;
}

static void ignore_notice(void *context)
{
    (void)context; /* the publish's own acknowledgement waits for this stream too */
}

int retained_open(const struct retained_options *options, struct retained **out)
{
    struct retained *retained = calloc(1, sizeof *retained);
    if (!retained)
        return ERR_NO_MEMORY;
    pthread_mutex_init(&retained->lock, NULL);
    retained->options = *options;
    struct retained_options *own = &retained->options;
    own->messages_max = own->messages_max ? own->messages_max : RETAINED_MESSAGES_MAX_DEFAULT;
    own->bytes_max = own->bytes_max ? own->bytes_max : RETAINED_BYTES_MAX_DEFAULT;
    own->backlog_max = own->backlog_max ? own->backlog_max : RETAINED_BACKLOG_MAX_DEFAULT;
    own->slack = own->slack ? own->slack : RETAINED_SLACK_DEFAULT;
    int error = retained_tree_create(own->messages_max + RETAINED_PASSING_MAX, own->bytes_max, &retained->tree);
    if (!error && own->journal) {
        error = load(retained);
        if (!error)
            error = journal_producer_open(own->journal, ignore_notice, NULL, &retained->producer);
    }
    if (error) {
        retained_close(retained);
        return error;
    }
    *out = retained;
    return 0;
}

void retained_close(struct retained *retained)
{
    if (!retained)
        return;
    journal_producer_close(retained->producer);
    retained_tree_destroy(retained->tree);
    pthread_mutex_destroy(&retained->lock);
    free(retained);
}

/* ---- the stream ---- */

static int append(struct retained *retained, const struct message *message, struct retained_message *made)
{
    int error = journal_append(retained->producer, retained->options.stream, message, NULL, 0, 0);
    if (error)
        return error;
    if (made)
        made->offset = retained->next_offset;
    retained->next_offset++;
    retained->written += record_size(message);
    return 0;
}

/* Begins a pass when the stream holds more in vain than it may. */
static void begin_rewriting(struct retained *retained)
{
    if (retained->rewriting || retained->guard || retained->written < 2 * retained_tree_bytes(retained->tree) + retained->options.slack)
        return;
    retained->rewriting = true;
    retained->rewriting_at = 0;
    retained->rewriting_from = retained->next_offset;
    retained->rewriting_before = retained->written;
}

/* Twice what has arrived, so that a pass ends before the stream has grown by more than it holds. */
static void rewrite_some(struct retained *retained, size_t arrived)
{
    begin_rewriting(retained);
    if (!retained->rewriting || journal_producer_backlog(retained->producer) > retained->options.backlog_max)
        return;
    size_t budget = 2 * arrived > REWRITE_STEP ? 2 * arrived : REWRITE_STEP, from = retained->written;
    for (; retained->rewriting_at < retained_tree_slots(retained->tree) && retained->written - from < budget; retained->rewriting_at++) {
        struct retained_message *kept = retained_tree_at(retained->tree, retained->rewriting_at);
        if (!kept || kept->passing || kept->offset >= retained->rewriting_from)
            continue;
        struct message message = retained_message_view(kept);
        if (append(retained, &message, kept))
            return; /* a later one goes on here */
    }
    if (retained->rewriting_at < retained_tree_slots(retained->tree))
        return;
    retained->rewriting = false;
    retained->written -= retained->rewriting_before;
    retained->guard = retained->rewriting_from;
    retained->guard_at = retained->next_offset;
}

static void discard(void *context, const struct journal_batch *batch)
{
    (void)context;
    (void)batch;
}

static void move_guard(struct retained *retained)
{
    struct journal_stream *stream = retained->options.stream;
    if (!retained->guard || journal_stream_durable(stream) < retained->guard_at)
        return;
    journal_stream_set_guard(stream, retained->guard);
    retained->guard = 0;
}

static uint64_t count_put(struct retained *retained, struct retained_message *made)
{
    retained->puts++;
    if (made)
        made->number = retained->puts;
    return retained->puts;
}

static int put(struct retained *retained, const struct message *message, uint64_t *number)
{
    if (!fits(retained, message))
        return ERR_LIMIT;
    if (retained->producer && (message->flags & MESSAGE_QOS_MASK) == 0 &&
        journal_producer_backlog(retained->producer) > retained->options.backlog_max)
        return ERR_BUSY;
    struct retained_message *made;
    int changed = retained_tree_put(retained->tree, message, &made);
    if (changed < 0)
        return changed;
    uint64_t counted = count_put(retained, made);
    int error = changed && retained->producer ? append(retained, message, made) : 0;
    if (error)
        return error;
    if (changed && retained->producer)
        rewrite_some(retained, record_size(message));
    *number = counted;
    return 0;
}

int retained_put(struct retained *retained, const struct message *message, uint64_t *number)
{
    pthread_mutex_lock(&retained->lock);
    int error = put(retained, message, number);
    pthread_mutex_unlock(&retained->lock);
    return error;
}

int retained_put_passing(struct retained *retained, const struct message *message, uint64_t *number)
{
    pthread_mutex_lock(&retained->lock);
    bool there = retained_tree_holds(retained->tree, message);
    struct retained_message *made = NULL;
    int changed = !there && retained->passing == RETAINED_PASSING_MAX ? ERR_LIMIT : retained_tree_put(retained->tree, message, &made);
    if (changed >= 0)
        *number = count_put(retained, made);
    if (changed >= 0 && made) {
        made->passing = true;
        retained->passing += !there;
    }
    pthread_mutex_unlock(&retained->lock);
    return changed < 0 ? changed : 0;
}

void retained_flush(struct retained *retained)
{
    if (!retained->producer)
        return;
    pthread_mutex_lock(&retained->lock);
    journal_producer_poll(retained->producer, discard, NULL);
    move_guard(retained);
    journal_submit(retained->producer);
    pthread_mutex_unlock(&retained->lock);
}

uint32_t retained_expire(struct retained *retained, uint64_t wall_ns)
{
    uint32_t removed = 0;
    pthread_mutex_lock(&retained->lock);
    uint32_t slots = retained_tree_slots(retained->tree), looked = 0;
    if (retained_tree_expiring(retained->tree) == 0)
        looked = slots;
    for (; looked < slots && looked < RETAINED_SWEEP; looked++) {
        retained->swept = retained->swept + 1 < slots ? retained->swept + 1 : 0;
        const struct retained_message *kept = retained_tree_at(retained->tree, retained->swept);
        if (kept && kept->expires_ns <= wall_ns) {
            retained_tree_remove(retained->tree, retained->swept);
            removed++;
        }
    }
    pthread_mutex_unlock(&retained->lock);
    return removed;
}

/* ---- asking ---- */

uint64_t retained_hold(struct retained *retained)
{
    pthread_mutex_lock(&retained->lock);
    return retained->puts;
}

void retained_let_go(struct retained *retained)
{
    pthread_mutex_unlock(&retained->lock);
}

int retained_find(struct retained *retained, const char *filter, size_t length, struct retained_list *list)
{
    pthread_mutex_lock(&retained->lock);
    int error = retained_tree_find(retained->tree, filter, length, list);
    pthread_mutex_unlock(&retained->lock);
    return error;
}

void retained_take(struct retained *retained, const struct retained_handle *handles, size_t count, uint64_t wall_ns,
                   struct retained_message **messages)
{
    pthread_mutex_lock(&retained->lock);
    for (size_t i = 0; i < count; i++) {
        struct retained_message *message = retained_tree_get(retained->tree, handles[i]);
        if (message && message->expires_ns <= wall_ns)
            message = NULL; /* retained_expire removes it */
        if (message)
            atomic_fetch_add(&message->references, 1);
        messages[i] = message;
    }
    pthread_mutex_unlock(&retained->lock);
}

void retained_status(struct retained *retained, struct retained_status *status)
{
    pthread_mutex_lock(&retained->lock);
    *status = (struct retained_status){retained_tree_count(retained->tree) - retained->passing, retained_tree_bytes(retained->tree)};
    pthread_mutex_unlock(&retained->lock);
}
