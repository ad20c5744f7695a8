/* The lock around the sessions, their coming and going, and what their owners note.
 *
 * LEAVING. What the last owner has noted is durable when the stream is at the place of its detaching. His publishes were sent off before
 * that, but nothing tells that they are durable by then: notes overtake them while the disk is short, and which stream of a group is told
 * first is the journal's affair. So where an identifier is taken whose message may not be durable, a fence (journal_fence) is sent off
 * behind it, and what it says of the message waits for that. */
#include "sessions/sessions.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "mqtt/topic.h"
#include "sessions/sessions_parts.h"

enum { SWEEP_SLOTS = 8192 }; /* sessions that one sweep looks at */

static void ignore_notice(void *context)
{
    (void)context;
}

int sessions_open(const struct sessions_options *options, struct sessions **out)
{
    struct sessions *sessions = calloc(1, sizeof *sessions);
    if (!sessions)
        return ERR_NO_MEMORY;
    pthread_mutex_init(&sessions->lock, NULL);
    sessions->options = *options;
    struct sessions_options *own = &sessions->options;
    own->slack = own->slack ? own->slack : SESSIONS_SLACK_DEFAULT;
    own->mark_bytes = own->mark_bytes ? own->mark_bytes : SESSIONS_MARK_BYTES;
    own->notify = own->notify ? own->notify : ignore_notice;
    own->expiry_max_s = own->expiry_max_s ? own->expiry_max_s : SESSIONS_NEVER;
    sessions->store.sessions_max = own->sessions_max ? own->sessions_max : SESSIONS_MAX_DEFAULT;
    sessions->store.bytes_max = own->bytes_max ? own->bytes_max : SESSIONS_BYTES_MAX_DEFAULT;
    buffer_init(&sessions->note, SESSION_RECORD_MAX);
    buffer_init(&sessions->rewritten, SESSION_RECORD_MAX);
    int error = own->journal ? sessions_load(sessions) : 0;
    if (error) {
        sessions_close(sessions);
        return error;
    }
    *out = sessions;
    return 0;
}

void sessions_close(struct sessions *sessions)
{
    if (!sessions)
        return;
    journal_producer_close(sessions->producer);
    journal_producer_close(sessions->fences);
    session_store_fini(&sessions->store);
    buffer_fini(&sessions->note);
    buffer_fini(&sessions->rewritten);
    pthread_mutex_destroy(&sessions->lock);
    free(sessions);
}

static void lock(struct sessions *sessions)
{
    pthread_mutex_lock(&sessions->lock);
}

/* Ends a change: all that was noted so far is durable at *place. */
static int unlock(struct sessions *sessions, int error, uint64_t *place)
{
    if (!error && place)
        *place = sessions->next_offset;
    pthread_mutex_unlock(&sessions->lock);
    return error;
}

void sessions_flush(struct sessions *sessions)
{
    if (!atomic_load(&sessions->unsent))
        return;
    lock(sessions);
    sessions_submit(sessions);
    unlock(sessions, 0, NULL);
}

uint64_t sessions_durable(struct sessions *sessions)
{
    return sessions->producer ? journal_stream_durable(sessions->options.stream) : UINT64_MAX;
}

/* ---- coming and going ---- */

/* Whether the last owner's notes and publishes are durable by now. */
static bool has_left(struct sessions *sessions, struct session *session)
{
    if (!session->leaving)
        return true;
    if (sessions_durable(sessions) < session->leave_place)
        return false;
    if (session->pending && sessions->producer && !sessions_fence_is_passed(sessions, session))
        return false;
    session_taken_all(&sessions->store, session, SESSION_PENDING, SESSION_DURABLE);
    session->leaving = session->fenced = false;
    return true;
}

int sessions_end(struct sessions *sessions, struct session *session)
{
    sessions_scout_end(sessions, session);
    int error = sessions_note_begin(sessions, session);
    if (!error)
        error = session_item_ended(&sessions->note);
    if (!error)
        error = sessions_note_append(sessions, session);
    if (!error)
        session_end(&sessions->store, session);
    return error;
}

int sessions_note_attached(struct sessions *sessions, struct session *session, uint32_t expiry_s)
{
    int error = sessions_note_begin(sessions, session);
    if (!error)
        error = session_item_attached(&sessions->note, expiry_s);
    return error ? error : sessions_note_end(sessions, session);
}

static bool is_over(const struct session *session, uint32_t most_s, uint64_t wall_ns)
{
    uint32_t lasts_s = session->expiry_s < most_s ? session->expiry_s : most_s;
    return !session->attached && !session->leaving && !session->group && lasts_s != SESSIONS_NEVER && session->left_ns <= wall_ns &&
           (wall_ns - session->left_ns) / 1000000000u >= lasts_s;
}

static enum sessions_found attach(struct sessions *sessions, struct session *found, const char *user, bool fresh, uint64_t wall_ns,
                                  struct session_owner *owner, struct session **session)
{
    if (!found)
        return SESSIONS_NONE;
    if (found->user_length != strlen(user) || memcmp(session_user(found), user, found->user_length) != 0)
        return SESSIONS_FOREIGN;
    if (found->attached) {
        *owner = found->owner;
        return SESSIONS_IN_USE;
    }
    if (!fresh && !has_left(sessions, found)) /* who begins anew waits for nothing */
        return SESSIONS_LEAVING;
    bool over = is_over(found, sessions->options.expiry_max_s, wall_ns);
    sessions->expired += over;
    if (fresh || over) {
        if (sessions_end(sessions, found))
            session_end(&sessions->store, found); /* a start may find it again */
        return SESSIONS_NONE;
    }
    sessions_scout_home(sessions, found);
    if (sessions_note_attached(sessions, found, found->expiry_s))
        found->behind = true;
    session_attach(&sessions->store, found, owner);
    *session = found;
    return SESSIONS_ATTACHED;
}

enum sessions_found sessions_attach(struct sessions *sessions, const char *id, size_t length, const char *user, bool fresh,
                                    uint64_t wall_ns, struct session_owner *owner, struct session **session)
{
    lock(sessions);
    enum sessions_found found = attach(sessions, session_find(&sessions->store, id, length), user, fresh, wall_ns, owner, session);
    unlock(sessions, 0, NULL);
    return found;
}

/* A random even number that no session has, and that no message in the journal speaks of. */
uint64_t sessions_make_number(const struct session_store *store)
{
    uint64_t number;
    do {
        if (getrandom(&number, sizeof number, 0) != sizeof number) {
            uint64_t seeds[] = {clock_wall_ns(), clock_monotonic_ns(), store->count};
            number = hash_bytes(seeds, sizeof seeds, (uintptr_t)store);
        }
        number &= ~UINT64_C(1);
    } while (number == 0 || session_find_number(store, number));
    return number;
}

static int create(struct sessions *sessions, const char *id, size_t length, const char *user, const struct session_owner *owner,
                  struct session **session)
{
    struct session_store *store = &sessions->store;
    assert(length > 0);
    if (session_find(store, id, length))
        return ERR_BUSY;
    if (sessions_backlog_is_full(sessions))
        return ERR_LIMIT;
    struct session *made;
    int error = session_make(store, sessions_make_number(store), id, length, user, strlen(user), &made);
    if (error)
        return error;
    sessions_find_ends(sessions, &made->cursor);
    made->position = made->cursor;
    made->expiry_s = SESSIONS_NEVER;
    session_attach(store, made, owner);
    made->behind = true; /* so it is noted as a whole */
    error = sessions_note_begin(sessions, made);
    if (!error)
        error = sessions_note_end(sessions, made);
    if (error) {
        session_end(store, made);
        return error;
    }
    if (store->count == 1)
        sessions_hold(sessions, &made->cursor); /* until now nothing was held */
    *session = made;
    return 0;
}

int sessions_create(struct sessions *sessions, const char *id, size_t length, const char *user, const struct session_owner *owner,
                    struct session **session)
{
    lock(sessions);
    return unlock(sessions, create(sessions, id, length, user, owner, session), NULL);
}

uint32_t sessions_of(struct sessions *sessions, const char *user)
{
    lock(sessions);
    uint32_t count = session_count_of(&sessions->store, user, strlen(user));
    unlock(sessions, 0, NULL);
    return count;
}

int sessions_set_expiry(struct sessions *sessions, struct session *session, uint32_t expiry_s)
{
    lock(sessions);
    return unlock(sessions, session->expiry_s == expiry_s ? 0 : sessions_note_attached(sessions, session, expiry_s), NULL);
}

static int put_stand(struct sessions *sessions, const struct sessions_leave *leave)
{
    const struct session_stand stand = {leave->cursor, leave->position, leave->next_id, leave->sent, leave->sent_count};
    return session_item_stands(&sessions->note, &stand);
}

static int stand_at(struct sessions *sessions, struct session *session, const struct sessions_leave *leave)
{
    int error = session_sent_reserve(&sessions->store, session, leave->sent_count);
    if (!error)
        error = sessions_note_begin(sessions, session);
    if (!error)
        error = put_stand(sessions, leave);
    return error ? error : sessions_note_end(sessions, session);
}

int sessions_stand(struct sessions *sessions, struct session *session, const struct sessions_leave *leave, uint64_t *place)
{
    lock(sessions);
    return unlock(sessions, stand_at(sessions, session, leave), place);
}

int sessions_reserve_ids(struct sessions *sessions, struct session *session, uint16_t next_id, uint64_t *place)
{
    lock(sessions);
    int error = sessions_note_begin(sessions, session);
    if (!error)
        error = session_item_next(&sessions->note, next_id);
    return unlock(sessions, error ? error : sessions_note_end(sessions, session), place);
}

/* `leave` NULL, or more than there is room for: it stands where it stood, as after a crash. */
static int note_left(struct sessions *sessions, struct session *session, const struct sessions_leave *leave, uint64_t wall_ns)
{
    bool moved = leave && session_sent_reserve(&sessions->store, session, leave->sent_count) == 0;
    int error = sessions_note_begin(sessions, session);
    if (!error)
        error = session_item_left(&sessions->note, leave ? leave->expiry_s : session->expiry_s, wall_ns);
    if (!error && moved)
        error = put_stand(sessions, leave);
    return error ? error : sessions_note_end(sessions, session);
}

static void detach(struct sessions *sessions, struct session *session, const struct sessions_leave *leave)
{
    assert(session->attached && (!leave || leave->sent_count <= SESSIONS_SENT_MAX));
    if (leave && leave->expiry_s == 0) {
        if (sessions_end(sessions, session))
            session_end(&sessions->store, session);
        return;
    }
    const uint64_t wall_ns = leave ? leave->wall_ns : clock_wall_ns();
    if (note_left(sessions, session, leave, wall_ns)) {
        session->behind = true;
        session->expiry_s = leave ? leave->expiry_s : session->expiry_s;
        session_leave(&sessions->store, session, wall_ns);
    }
    session->leaving = true;
    session->fenced = false;
    session->leave_place = sessions->next_offset;
    if (session->pending && sessions->producer)
        sessions_fence(sessions, session);
}

void sessions_detach(struct sessions *sessions, struct session *session, const struct sessions_leave *leave)
{
    lock(sessions);
    detach(sessions, session, leave);
    unlock(sessions, 0, NULL);
}

/* ---- sweeping ---- */

/* What was taken long ago and is not given back keeps a generation open, until the stream tells of it. */
static void note_taken(struct sessions *sessions, struct session *session)
{
    bool any = false;
    for (uint32_t i = 0; !any && i < session->taken_count; i++)
        any = session->taken[i].state == SESSION_DURABLE;
    if (!any || sessions_note_begin(sessions, session))
        return;
    if (!session_item_taken(&sessions->note, session))
        sessions_note_end(sessions, session);
}

static uint32_t sweep_one(struct sessions *sessions, struct session *session, uint64_t wall_ns)
{
    if (!session->attached)
        has_left(sessions, session);
    bool over = is_over(session, sessions->options.expiry_max_s, wall_ns) && !session_copy_find(session, SESSIONS_WILL);
    if (over && sessions_end(sessions, session) == 0)
        return 1;
    if (sessions->noting)
        note_taken(sessions, session);
    sessions_scout(sessions, session, &sessions->ends, wall_ns);
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        if (session->cursor.at[i] < sessions->least.at[i])
            sessions->least.at[i] = session->cursor.at[i];
    sessions_group_hold(session, &sessions->least);
    return 0;
}

/* Where the streams end now is what the cursors of sessions that are made during the pass, or after it, are not less than. */
static void begin_sweep(struct sessions *sessions)
{
    sessions_find_ends(sessions, &sessions->ends);
    sessions->least = sessions->ends;
    if (!sessions->producer)
        return;
    struct journal_stats stats;
    journal_stats(sessions->options.journal, &stats);
    sessions->noting = stats.bytes - sessions->marked_bytes >= sessions->options.mark_bytes;
    if (sessions->noting)
        sessions->marked_bytes = stats.bytes;
}

static uint32_t sweep(struct sessions *sessions, uint64_t wall_ns)
{
    uint32_t ended = 0;
    if (sessions->swept == 0)
        begin_sweep(sessions);
    for (uint32_t looked = 0; sessions->swept < sessions->store.slot_count && looked < SWEEP_SLOTS; looked++, sessions->swept++)
        if (sessions->store.slots[sessions->swept])
            ended += sweep_one(sessions, sessions->store.slots[sessions->swept], wall_ns);
    if (sessions->swept >= sessions->store.slot_count) {
        sessions->swept = 0;
        if (sessions->noting && sessions->store.count)
            sessions_mark(sessions);
        sessions_hold(sessions, &sessions->least);
    }
    sessions_submit(sessions);
    sessions->expired += ended;
    return ended;
}

uint32_t sessions_sweep(struct sessions *sessions, uint64_t wall_ns)
{
    lock(sessions);
    uint32_t ended = sweep(sessions, wall_ns);
    unlock(sessions, 0, NULL);
    return ended;
}

/* ---- notes ---- */

static bool same_subscription(const struct router_subscription *one, const struct router_subscription *other)
{
    return one->qos == other->qos && one->options == other->options && one->identifier == other->identifier;
}

/* Into the note, with how it is to be; what is there stays as it was until that is carried out. */
static int put_subscription(struct sessions *sessions, struct session_subscription *subscription, const struct router_subscription *how)
{
    const struct router_subscription before = subscription->how;
    subscription->how = (struct router_subscription){.qos = how->qos, .options = how->options, .identifier = how->identifier};
    int error = session_item_subscribed(&sessions->note, subscription);
    subscription->how = before;
    return error;
}

static int subscribe(struct sessions *sessions, struct session *session, const char *filter, size_t length,
                     const struct router_subscription *how, const struct session_subscription **made)
{
    struct session_store *store = &sessions->store;
    assert(length > 0 && length <= UINT16_MAX && how->qos <= 2);
    struct session_subscription *subscription = session_filter_find(store, session, filter, length);
    bool added = !subscription;
    if (!added && same_subscription(&subscription->how, how)) {
        *made = subscription;
        return 0;
    }
    if (sessions_backlog_is_full(sessions))
        return ERR_LIMIT;
    int error = how->qos && mqtt_topic_share_length(filter, length) ? sessions_group_begin(sessions, filter, length) : 0;
    if (!error)
        error = sessions_note_begin(sessions, session);
    if (!error && added) {
        error = session_filter_add(store, session, filter, length, &subscription);
        if (error)
            return error;
        sessions_find_ends(sessions, &subscription->from);
    }
    if (!error)
        error = put_subscription(sessions, subscription, how);
    if (!error)
        error = sessions_note_end(sessions, session);
    if (!error)
        *made = subscription;
    else if (added && subscription)
        session_filter_drop(store, subscription);
    return error;
}

int sessions_subscribe(struct sessions *sessions, struct session *session, const char *filter, size_t length,
                       const struct router_subscription *how, const struct session_subscription **made, uint64_t *place)
{
    const struct session_subscription *subscription = NULL;
    lock(sessions);
    int error = subscribe(sessions, session, filter, length, how, &subscription);
    if (!error && made)
        *made = subscription;
    return unlock(sessions, error, place);
}

bool sessions_follows(struct sessions *sessions, const struct session *session, const char *filter, size_t length)
{
    lock(sessions);
    const struct session_subscription *found = session_filter_find(&sessions->store, session, filter, length);
    bool follows = found && router_is_from_journal(&found->how);
    unlock(sessions, 0, NULL);
    return follows;
}

static int unsubscribe(struct sessions *sessions, struct session *session, const char *filter, size_t length)
{
    if (!session_filter_find(&sessions->store, session, filter, length))
        return 0;
    if (sessions_backlog_is_full(sessions))
        return ERR_LIMIT;
    int error = sessions_note_begin(sessions, session);
    if (!error)
        error = session_item_unsubscribed(&sessions->note, filter, length);
    return error ? error : sessions_note_end(sessions, session);
}

int sessions_unsubscribe(struct sessions *sessions, struct session *session, const char *filter, size_t length, uint64_t *place)
{
    lock(sessions);
    return unlock(sessions, unsubscribe(sessions, session, filter, length), place);
}

static int sent_one(struct sessions *sessions, struct session *session, const struct session_sent *sent)
{
    assert(sent->packet_id && sent->content < FOLLOWER_CONTENTS && (sent->qos == 1 || sent->qos == 2));
    int error = session_sent_reserve(&sessions->store, session, (size_t)session->sent_count + 1);
    if (!error)
        error = sessions_note_begin(sessions, session);
    if (!error)
        error = session_item_sent(&sessions->note, sent);
    return error ? error : sessions_note_end(sessions, session);
}

int sessions_sent(struct sessions *sessions, struct session *session, const struct session_sent *sent, uint64_t *place)
{
    lock(sessions);
    return unlock(sessions, sent_one(sessions, session, sent), place);
}

int sessions_received(struct sessions *sessions, struct session *session, uint16_t packet_id, uint64_t *place)
{
    lock(sessions);
    const struct session_sent *sent = session_sent_find(session, packet_id);
    int error = 0;
    if (sent && sent->state == SESSION_SENT) {
        error = sessions_note_begin(sessions, session);
        if (!error)
            error = session_item_received(&sessions->note, packet_id);
        if (!error)
            error = sessions_note_end(sessions, session);
    }
    return unlock(sessions, error, place);
}

int sessions_completed(struct sessions *sessions, struct session *session, uint16_t packet_id, uint64_t *place)
{
    lock(sessions);
    int error = 0;
    if (session_sent_find(session, packet_id)) {
        error = sessions_note_begin(sessions, session);
        if (!error)
            error = session_item_completed(&sessions->note, packet_id);
        if (!error)
            error = sessions_note_end(sessions, session);
    }
    return unlock(sessions, error, place);
}

int sessions_advance(struct sessions *sessions, struct session *session, const struct follower_places *cursor)
{
    lock(sessions);
    bool further = false;
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        further = further || cursor->at[i] > session->cursor.at[i];
    int error = further ? sessions_note_begin(sessions, session) : 0;
    if (further && !error)
        error = session_item_advanced(&sessions->note, cursor);
    if (further && !error)
        error = sessions_note_end(sessions, session);
    return unlock(sessions, error, NULL);
}

int sessions_take(struct sessions *sessions, struct session *session, uint16_t packet_id, struct queue_origin *origin)
{
    lock(sessions);
    assert(packet_id && !session_taken_find(session, packet_id));
    int error = session_taken_reserve(&sessions->store, session, (size_t)session->taken_count + 1);
    if (!error) {
        session->sequence++;
        *origin = (struct queue_origin){.session = session->number, .sequence = session->sequence, .packet_id = packet_id};
        session_taken_add(&sessions->store, session, session->sequence << 16 | packet_id, SESSION_PENDING);
    }
    return unlock(sessions, error, NULL);
}

void sessions_taken(struct sessions *sessions, struct session *session, uint16_t packet_id)
{
    lock(sessions);
    struct session_taken *taken = session_taken_find(session, packet_id);
    if (taken && taken->state == SESSION_PENDING)
        session_taken_change(&sessions->store, session, taken, taken->word, SESSION_DURABLE);
    unlock(sessions, 0, NULL);
}

int sessions_release(struct sessions *sessions, struct session *session, uint16_t packet_id, uint64_t *place)
{
    lock(sessions);
    const struct session_taken *taken = session_taken_find(session, packet_id);
    int error = taken ? sessions_note_begin(sessions, session) : 0;
    if (taken && !error)
        error = session_item_released(&sessions->note, taken->word);
    if (taken && !error)
        error = sessions_note_end(sessions, session);
    return unlock(sessions, error, place);
}

/* ---- what it holds ---- */

uint64_t session_number(const struct session *session)
{
    return session->number;
}

static int visit(const struct session *session, const struct session_visitor *visitor)
{
    int error = 0;
    const struct session_subscription *each = visitor->subscription ? session_filter_first(session) : NULL;
    for (; !error && each; each = session_filter_next(each))
        error = visitor->subscription(visitor->context, each);
    for (uint32_t i = 0; visitor->sent && !error && i < session->sent_count; i++)
        error = visitor->sent(visitor->context, &session->sent[i]);
    for (uint32_t i = 0; visitor->taken && !error && i < session->taken_count; i++)
        error = visitor->taken(visitor->context, session_taken_id(&session->taken[i]));
    return error;
}

int sessions_visit(struct sessions *sessions, struct session *session, const struct session_visitor *visitor,
                   struct follower_places *cursor, struct follower_places *position, uint16_t *next_id)
{
    lock(sessions);
    int error = visit(session, visitor);
    *cursor = session->cursor;
    *position = session->position;
    *next_id = session->next_id;
    return unlock(sessions, error, NULL);
}

void sessions_status(struct sessions *sessions, struct sessions_status *status)
{
    lock(sessions);
    const struct session_store *store = &sessions->store;
    *status = (struct sessions_status){.sessions = store->count - store->groups,
                                       .attached = store->attached,
                                       .subscriptions = store->subscriptions,
                                       .expired = sessions->expired,
                                       .groups = store->groups,
                                       .bytes = store->bytes};
    unlock(sessions, 0, NULL);
}
