/* The stream behind the sessions.
 *
 * What a start must know of identifiers that clients have taken. A message that took one is in a stream of messages, or is not, because it
 * was not durable when the server ended; nothing else decides whether its identifier is taken. So the start reads these streams, from the
 * places that the newest record of the sessions names. Nothing of what lies before these is missed:
 *
 * - An identifier that is taken belongs to the young generation of that moment, and is open until it is given back, or until the stream
 *   tells that it is taken and its message durable (struct session_generation). A generation begins with a look at where the streams of
 *   messages end, and all that is taken later is appended later, so the messages of a generation lie at or behind its places.
 * - There are two generations. The older one makes room for a new one when none of it is open any more. A record names the places of the
 *   older one, before which so only messages lie whose identifiers were closed before the record was appended.
 * - What closed them stands in the stream before the record, and a crash leaves a beginning of the stream: whoever finds the record has
 *   found that too.
 *
 * While the disk is short the stream goes on and the streams of messages do not (it is pressing, journal.h). That a record is durable so
 * says nothing of messages that were sent off before it, and no record needs that: the places that it names are those of durable ends, a
 * cursor lies behind messages that were read from there, and that a message is durable is noted when that was told (sessions_taken, the
 * fence in sessions.c). One whose record names an identifier as taken by a message that is not on disk in the end is forgotten at the
 * start.
 *
 * Those that a start finds are told from those that were given back by number: what gives one back names the number of the message that had
 * taken it, and a record of a whole session names the last number that there was, and which identifiers were taken then. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "journal/format.h"
#include "journal/reader.h"
#include "sessions/sessions_parts.h"

enum {
    REWRITE_STEP = 4096,    /* bytes that are written again with each change, at least */
    BACKLOG_MAX = 64 << 20, /* bytes on their way to the disk beyond which nothing new is begun */
    NOTE_KEEP = 64 << 10,   /* bytes that a buffer keeps allocated between two records */
};

void sessions_find_ends(const struct sessions *sessions, struct follower_places *ends)
{
    struct queue *queue = sessions->options.queue;
    uint64_t first;
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        queue->ops->extent(queue, follower_contents[i], &first, &ends->at[i]);
}

/* The one place that knows how a queue is held. */
static void hold_messages(struct queue *queue, unsigned content, uint64_t offset)
{
    if (queue->ops->hold)
        queue->ops->hold(queue, follower_contents[content], QUEUE_HOLDER_SESSIONS, offset);
}

/* ---- generations ---- */

/* Lets new ones begin as long as nothing of the older one is open. */
static void turn_generations(struct sessions *sessions)
{
    struct session_store *store = &sessions->store;
    struct follower_places ends;
    sessions_find_ends(sessions, &ends);
    for (unsigned i = 0; i < 2 && store->generations[!store->young].open == 0; i++) {
        store->young = !store->young;
        memcpy(store->generations[store->young].ends, ends.at, sizeof store->generations[0].ends);
    }
}

static const uint64_t *places_of(const struct sessions *sessions)
{
    return sessions->store.generations[!sessions->store.young].ends;
}

/* ---- appending ---- */

static int append(struct sessions *sessions, const char *topic, size_t topic_length, const struct buffer *payload)
{
    struct message message = {.time_ns = clock_wall_ns(),
                              .topic = topic,
                              .topic_length = (uint32_t)topic_length,
                              .payload = payload->data,
                              .payload_length = (uint32_t)payload->length};
    int error = journal_append(sessions->producer, sessions->options.stream, &message, NULL, 0, 0);
    if (error)
        return error;
    sessions->next_offset++;
    sessions->written += format_record_size(&message, 0);
    if (sessions->newer.place == 0) {
        memcpy(sessions->newer.ends, places_of(sessions), sizeof sessions->newer.ends);
        sessions->newer.place = sessions->next_offset;
    }
    atomic_store(&sessions->unsent, true);
    return 0;
}

/* Looks where the streams of messages end once for all that is sent off together. */
static int begin(struct sessions *sessions, struct buffer *record)
{
    if (sessions->producer && !atomic_load(&sessions->unsent))
        turn_generations(sessions);
    buffer_clear(record);
    return session_record_begin(record, places_of(sessions));
}

/* The stream has all of the session at `offset`. */
static void is_whole(struct sessions *sessions, struct session *session, uint64_t offset)
{
    session->behind = false;
    session->whole_at = offset;
    session->listed = session->sequence;
    session_taken_all(&sessions->store, session, SESSION_DURABLE, SESSION_NOTED);
}

/* ---- writing again ---- */

/* Begins a pass when the stream holds more in vain than it may. */
static void begin_rewriting(struct sessions *sessions)
{
    if (sessions->rewriting || sessions->guard || sessions->written < 2 * sessions->store.bytes + sessions->options.slack)
        return;
    sessions->rewriting = true;
    sessions->rewriting_at = 0;
    sessions->rewriting_from = sessions->next_offset;
    sessions->rewriting_before = sessions->written;
}

static int rewrite(struct sessions *sessions, struct session *session)
{
    int error = begin(sessions, &sessions->rewritten);
    if (!error)
        error = session_item_whole(&sessions->rewritten, session);
    if (!error)
        error = append(sessions, session_id(session), session->id_length, &sessions->rewritten);
    if (!error)
        is_whole(sessions, session, sessions->next_offset - 1);
    buffer_clear(&sessions->rewritten);
    buffer_shrink(&sessions->rewritten, NOTE_KEEP);
    return error;
}

/* Twice what the last change has brought, so that a pass ends before the stream has grown by more than it holds. Before the next change, so
 * that its record is the last: where that ends, what was noted is durable. */
static void rewrite_some(struct sessions *sessions)
{
    struct session_store *store = &sessions->store;
    size_t arrived = sessions->arrived;
    sessions->arrived = 0;
    begin_rewriting(sessions);
    if (!sessions->rewriting || sessions_backlog_is_full(sessions))
        return;
    size_t budget = 2 * arrived > REWRITE_STEP ? 2 * arrived : REWRITE_STEP, from = sessions->written;
    for (; sessions->rewriting_at < store->slot_count && sessions->written - from < budget; sessions->rewriting_at++) {
        struct session *session = store->slots[sessions->rewriting_at];
        if (session && session->whole_at < sessions->rewriting_from && rewrite(sessions, session))
            return; /* a later one goes on here */
    }
    if (sessions->rewriting_at < store->slot_count)
        return;
    sessions->rewriting = false;
    sessions->written -= sessions->rewriting_before;
    sessions->guard = sessions->rewriting_from;
    sessions->guard_at = sessions->next_offset;
}

void sessions_move_guard(struct sessions *sessions)
{
    struct journal_stream *stream = sessions->options.stream;
    if (!sessions->guard || journal_stream_durable(stream) < sessions->guard_at)
        return;
    journal_stream_set_guard(stream, sessions->guard);
    sessions->guard = 0;
}

/* ---- changes ---- */

int sessions_note_begin(struct sessions *sessions, const struct session *session)
{
    if (sessions->arrived)
        rewrite_some(sessions);
    int error = begin(sessions, &sessions->note);
    if (!error && session->behind && sessions->producer)
        error = session_item_whole(&sessions->note, session);
    sessions->note_items = sessions->note.length;
    return error;
}

int sessions_note_append(struct sessions *sessions, const struct session *session)
{
    if (!sessions->producer)
        return 0;
    sessions->arrived = sessions->note.length;
    return append(sessions, session_id(session), session->id_length, &sessions->note);
}

int sessions_note_end(struct sessions *sessions, struct session *session)
{
    int error = sessions_note_append(sessions, session);
    if (error)
        return error;
    if (session->behind && sessions->producer)
        is_whole(sessions, session, sessions->next_offset - 1);
    session_items_apply(&sessions->store, session, sessions->note.data + sessions->note_items,
                        sessions->note.length - sessions->note_items);
    buffer_clear(&sessions->note);
    buffer_shrink(&sessions->note, NOTE_KEEP);
    return 0;
}

int sessions_mark(struct sessions *sessions)
{
    int error = begin(sessions, &sessions->note);
    return error ? error : append(sessions, "", 0, &sessions->note);
}

static void discard(void *context, const struct journal_batch *batch)
{
    (void)context;
    (void)batch;
}

void sessions_fence(struct sessions *sessions, struct session *session)
{
    session->fenced = !journal_fence(sessions->fences, sessions->options.stream, 1);
    session->fence = sessions->fences_sent += session->fenced;
}

static void count_fence(void *context, const struct journal_batch *batch)
{
    struct sessions *sessions = context;
    sessions->fences_passed += (uint32_t)batch->token_count;
}

bool sessions_fence_is_passed(struct sessions *sessions, struct session *session)
{
    if (!session->fenced)
        sessions_fence(sessions, session);
    journal_producer_poll(sessions->fences, count_fence, sessions);
    return session->fenced && (int32_t)(sessions->fences_passed - session->fence) >= 0;
}

void sessions_submit(struct sessions *sessions)
{
    if (!sessions->producer)
        return;
    journal_producer_poll(sessions->producer, discard, NULL);
    sessions_move_guard(sessions);
    journal_submit(sessions->producer);
    atomic_store(&sessions->unsent, false); /* after it: who finds that there is nothing to send off counts on it */
}

bool sessions_backlog_is_full(const struct sessions *sessions)
{
    return sessions->producer && journal_producer_backlog(sessions->producer) + journal_producer_gathered(sessions->producer) > BACKLOG_MAX;
}

static void promote(struct sessions *sessions)
{
    if (!sessions->newer.place || journal_stream_durable(sessions->options.stream) < sessions->newer.place)
        return;
    sessions->held = sessions->newer;
    sessions->newer.place = 0;
}

/* While no identifier is open, all that closed one lies before the next record: a start that finds that much needs no message from before
 * now. */
static void note_quiet(struct sessions *sessions)
{
    const struct session_generation *generations = sessions->store.generations;
    struct follower_places ends;
    if (sessions->newer.place || generations[0].open || generations[1].open)
        return;
    bool durable = sessions_durable(sessions) >= sessions->next_offset;
    sessions_find_ends(sessions, &ends);
    memcpy(durable ? sessions->held.ends : sessions->newer.ends, ends.at, sizeof sessions->newer.ends);
    sessions->newer.place = durable ? 0 : sessions->next_offset;
}

void sessions_hold(struct sessions *sessions, const struct follower_places *least)
{
    if (sessions->producer) {
        promote(sessions);
        note_quiet(sessions);
    }
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++) {
        uint64_t offset = sessions->store.count ? least->at[i] : UINT64_MAX;
        if (sessions->producer && sessions->store.count && i < SESSION_ORIGINS && sessions->held.ends[i] < offset)
            offset = sessions->held.ends[i];
        hold_messages(sessions->options.queue, i, offset);
    }
}

/* ---- the start ---- */

static int read_stream(struct sessions *sessions, uint64_t ends[SESSION_ORIGINS], bool *any)
{
    const struct sessions_options *options = &sessions->options;
    struct reader *reader;
    int error = journal_stream_reader(options->stream, 0, &reader);
    if (error)
        return error;
    uint64_t end = journal_stream_durable(options->stream);
    struct message record;
    *any = false;
    while (!(error = reader_next(reader, end, &record, NULL))) {
        error = session_record_apply(&sessions->store, &record, ends);
        if (error) {
            diagnostics(DIAGNOSTICS_ERROR, "bus",
                        "%s: the record at offset %" PRIu64 " cannot be taken up as one of a persistent session: %s",
                        journal_stream_folder(options->stream), record.offset, error_text(error));
            break;
        }
        *any = true;
        sessions->written += format_record_size(&record, 0);
    }
    reader_close(reader);
    sessions->next_offset = end;
    return error == ERR_TRUNCATED ? 0 : error;
}

static int read_messages(struct sessions *sessions, unsigned content, uint64_t from)
{
    struct queue *queue = sessions->options.queue;
    struct queue_view *view;
    struct message message;
    struct queue_origin origin;
    int error = queue->ops->view_open(queue, follower_contents[content], from, &view);
    if (error)
        return error;
    while (!(error = view->ops->next(view, &message, &origin)))
        if ((error = session_message_apply(&sessions->store, &origin)))
            break;
    view->ops->close(view);
    return error == ERR_TRUNCATED ? 0 : error;
}

/* What is not taken in the end is forgotten: its message is not on disk, or it was given back. */
static void keep_what_is_taken(struct session_store *store, struct session *session)
{
    for (uint32_t i = session->taken_count; i-- > 0;)
        if (session->taken[i].state == SESSION_PENDING || session->taken[i].state == SESSION_RELEASED)
            session_taken_drop(store, session, &session->taken[i]);
}

/* The client of a session that was attached when the server ended has left now, and the stream says so, lest another start calls it
 * later. */
static int let_go(struct sessions *sessions, struct session *session, uint64_t now_ns)
{
    int error = sessions_note_begin(sessions, session);
    if (!error)
        error = session_item_left(&sessions->note, session->expiry_s, now_ns);
    return error ? error : sessions_note_end(sessions, session);
}

static int check_limits(const struct sessions *sessions)
{
    const struct session_store *store = &sessions->store;
    const char *folder = journal_stream_folder(sessions->options.stream);
    if (store->count > store->sessions_max)
        diagnostics(DIAGNOSTICS_ERROR, "bus", "%s holds %" PRIu64 " persistent sessions, and bus.sessions_max is %" PRIu32 ": raise it",
                    folder, store->count, store->sessions_max);
    if (store->bytes > store->bytes_max)
        diagnostics(DIAGNOSTICS_ERROR, "bus", "the persistent sessions of %s take %zu bytes, and bus.sessions_size_max is %zu: raise it",
                    folder, store->bytes, store->bytes_max);
    return store->count > store->sessions_max || store->bytes > store->bytes_max ? ERR_LIMIT : 0;
}

/* Where the oldest record lies that tells of a session as a whole: nothing before it is needed. */
static uint64_t first_needed(const struct sessions *sessions)
{
    uint64_t first = sessions->next_offset;
    for (uint32_t i = 0; i < sessions->store.slot_count; i++)
        if (sessions->store.slots[i] && sessions->store.slots[i]->whole_at < first)
            first = sessions->store.slots[i]->whole_at;
    return first;
}

static int take_up(struct sessions *sessions)
{
    struct session_store *store = &sessions->store;
    struct follower_places ends;
    bool any;
    sessions_find_ends(sessions, &ends);
    memcpy(sessions->held.ends, ends.at, sizeof sessions->held.ends);
    int error = read_stream(sessions, sessions->held.ends, &any);
    for (unsigned i = 0; !error && any && i < SESSION_ORIGINS; i++)
        error = read_messages(sessions, i, sessions->held.ends[i]);
    if (error)
        return error;
    for (uint32_t i = 0; i < store->slot_count; i++)
        if (store->slots[i])
            keep_what_is_taken(store, store->slots[i]);
    memcpy(store->generations[store->young].ends, sessions->held.ends, sizeof sessions->held.ends);
    store->young = !store->young;
    memcpy(store->generations[store->young].ends, ends.at, sizeof sessions->held.ends);
    return check_limits(sessions);
}

int sessions_load(struct sessions *sessions)
{
    struct session_store *store = &sessions->store;
    store->loading = true;
    int error = take_up(sessions);
    store->loading = false;
    if (!error)
        error = journal_producer_open(sessions->options.journal, sessions->options.notify, sessions->options.context, &sessions->producer);
    if (!error)
        error = journal_producer_open(sessions->options.journal, sessions->options.notify, sessions->options.context, &sessions->fences);
    if (error)
        return error;
    journal_stream_set_guard(sessions->options.stream, first_needed(sessions));
    uint64_t now_ns = clock_wall_ns();
    for (uint32_t i = 0; !error && i < store->slot_count; i++)
        if (store->slots[i] && store->slots[i]->attached)
            error = let_go(sessions, store->slots[i], now_ns);
    if (!error)
        error = sessions_groups_load(sessions);
    sessions_submit(sessions);
    return error;
}
