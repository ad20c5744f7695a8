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
    struct journal_producer *producer; /* NULL: in memory only */
    uint64_t next_offset;              /* of the next record of the stream */
    size_t written;                    /* bytes of the stream's records from `valid_from` on */
    uint64_t valid_from;               /* nothing before it is needed */

    /* Writing again what was there when it began: the pass ends when all of it is written or has been replaced. */
    struct retained_list rewriting;
    size_t rewriting_at;
    uint64_t rewriting_from; /* next_offset then */
    size_t rewriting_before; /* `written` then */
};

static size_t record_size(const struct message *message)
{
    return format_record_size(message, 0);
}

/* ---- the start ---- */

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
        int taken = retained_tree_put(retained->tree, &message);
        if (taken < 0 && taken != ERR_LIMIT) {
            error = taken;
            break;
        }
        left_out += taken == ERR_LIMIT;
        retained->written += record_size(&message);
    }
    reader_close(reader);
    retained->next_offset = end;
    if (left_out)
        diagnostics(DIAGNOSTICS_WARNING, "bus",
                    "%" PRIu64 " retained messages in %s do not fit into bus.retained_max and bus.retained_size_max; they are left out",
                    left_out, journal_stream_folder(options->stream));
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
    int error = retained_tree_create(own->messages_max, own->bytes_max, &retained->tree);
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
    retained_list_fini(&retained->rewriting);
    retained_tree_destroy(retained->tree);
    pthread_mutex_destroy(&retained->lock);
    free(retained);
}

/* ---- the stream ---- */

static int append(struct retained *retained, const struct message *message)
{
    int error = journal_append(retained->producer, retained->options.stream, message, NULL, 0, 0);
    if (error)
        return error;
    retained->next_offset++;
    retained->written += record_size(message);
    return 0;
}

/* Begins a pass when the stream holds more in vain than it may. Without memory for it a later message does. */
static void begin_rewriting(struct retained *retained)
{
    if (retained->rewriting.messages || retained->written < 2 * retained_tree_bytes(retained->tree) + retained->options.slack)
        return;
    if (retained_tree_find(retained->tree, NULL, 0, &retained->rewriting))
        return;
    retained->rewriting_at = 0;
    retained->rewriting_from = retained->next_offset;
    retained->rewriting_before = retained->written;
}

/* Twice what has arrived, so that a pass ends before the stream has grown by more than it holds. */
static void rewrite_some(struct retained *retained, size_t arrived)
{
    begin_rewriting(retained);
    struct retained_list *list = &retained->rewriting;
    size_t budget = 2 * arrived > REWRITE_STEP ? 2 * arrived : REWRITE_STEP, from = retained->written;
    while (retained->rewriting_at < list->count && retained->written - from < budget) {
        struct retained_message *kept = list->messages[retained->rewriting_at];
        struct message message = retained_message_view(kept);
        if (retained_tree_has(retained->tree, kept) && append(retained, &message))
            return; /* a later one goes on here */
        retained->rewriting_at++;
    }
    if (retained->rewriting_from <= retained->valid_from || retained->rewriting_at < list->count)
        return;
    retained_list_fini(list);
    retained->valid_from = retained->rewriting_from;
    retained->written -= retained->rewriting_before;
    /* The guard may pass what is written again only when that is durable; see put(). */
}

static void discard(void *context, const struct journal_batch *batch)
{
    (void)context;
    (void)batch;
}

static int put(struct retained *retained, const struct message *message)
{
    if (!retained->producer) {
        int changed = retained_tree_put(retained->tree, message);
        return changed < 0 ? changed : 0;
    }
    journal_producer_poll(retained->producer, discard, NULL);
    if (journal_producer_backlog(retained->producer) == 0)
        journal_stream_set_guard(retained->options.stream, retained->valid_from);
    if (journal_producer_backlog(retained->producer) > retained->options.backlog_max)
        return ERR_LIMIT;
    int changed = retained_tree_put(retained->tree, message);
    if (changed <= 0)
        return changed;
    int error = append(retained, message);
    if (!error)
        rewrite_some(retained, record_size(message));
    journal_submit(retained->producer);
    return error;
}

int retained_put(struct retained *retained, const struct message *message)
{
    pthread_mutex_lock(&retained->lock);
    int error = put(retained, message);
    pthread_mutex_unlock(&retained->lock);
    return error;
}

/* ---- asking ---- */

int retained_find(struct retained *retained, const char *filter, size_t length, struct retained_list *list)
{
    pthread_mutex_lock(&retained->lock);
    int error = retained_tree_find(retained->tree, filter, length, list);
    pthread_mutex_unlock(&retained->lock);
    return error;
}

void retained_status(struct retained *retained, struct retained_status *status)
{
    pthread_mutex_lock(&retained->lock);
    *status = (struct retained_status){retained_tree_count(retained->tree), retained_tree_bytes(retained->tree)};
    pthread_mutex_unlock(&retained->lock);
}
