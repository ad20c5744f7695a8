/* Sessions of shared subscriptions: when there is one, and what it gives to its members. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "base/lists.h"
#include "mqtt/topic.h"
#include "sessions/sessions_parts.h"

static int tell(const struct sessions *sessions, const struct session *group, bool there)
{
    size_t length;
    const char *filter = session_group_filter(group, &length);
    return sessions->options.group ? sessions->options.group(sessions->options.context, filter, length, there) : 0;
}

/* ---- beginning and ending ---- */

static int make(struct sessions *sessions, const char *filter, size_t length, struct session **group)
{
    struct session_store *store = &sessions->store;
    char *id = malloc(length + 1);
    if (!id)
        return ERR_NO_MEMORY;
    id[0] = 0;
    memcpy(id + 1, filter, length);
    int error = session_make(store, sessions_make_number(store), id, length + 1, id, 1, group);
    free(id);
    if (error)
        return error;
    size_t prefix = mqtt_topic_share_length(filter, length);
    struct session_subscription *subscription;
    error = session_filter_add(store, *group, filter + prefix, length - prefix, &subscription);
    if (error) {
        session_end(store, *group);
        return error;
    }
    sessions_find_ends(sessions, &(*group)->cursor);
    (*group)->position = subscription->from = (*group)->cursor;
    (*group)->expiry_s = SESSIONS_NEVER;
    (*group)->left_ns = clock_wall_ns();
    subscription->how = (struct router_subscription){.qos = 2, .options = ROUTER_FROM_JOURNAL};
    return 0;
}

int sessions_group_begin(struct sessions *sessions, const char *filter, size_t length)
{
    struct session *group;
    if (session_find_group(&sessions->store, filter, length))
        return 0;
    int error = make(sessions, filter, length, &group);
    if (error)
        return error;
    group->behind = true; /* so it is noted as a whole */
    error = tell(sessions, group, true);
    if (!error) {
        error = sessions_note_begin(sessions, group);
        if (!error)
            error = sessions_note_end(sessions, group);
        if (error)
            tell(sessions, group, false);
    }
    if (error)
        session_end(&sessions->store, group);
    return error;
}

static bool end(struct sessions *sessions, struct session *group)
{
    tell(sessions, group, false);
    if (sessions_end(sessions, group) == 0)
        return true;
    tell(sessions, group, true); /* it was there before */
    return false;
}

bool sessions_group_unused(struct sessions *sessions, struct buffer *filter)
{
    struct session *group, *next, *attached = NULL;
    buffer_clear(filter);
    pthread_mutex_lock(&sessions->lock);
    DL_FOREACH_SAFE2(sessions->store.unused, group, next, unused_next)
    {
        if (group->attached)
            attached = group;
        else
            end(sessions, group); /* or else another time */
    }
    bool found = attached && buffer_append(filter, session_id(attached) + 1, attached->id_length - 1) == 0;
    pthread_mutex_unlock(&sessions->lock);
    return found;
}

bool sessions_group_end(struct sessions *sessions, struct session *group)
{
    pthread_mutex_lock(&sessions->lock);
    bool ended = group->members == 0 && end(sessions, group);
    pthread_mutex_unlock(&sessions->lock);
    return ended;
}

/* One for which there is no room stays live, as it was. */
static int begin_late(struct sessions *sessions, const char *filter, size_t length)
{
    enum { SHOWN = 200 };
    int error = sessions_group_begin(sessions, filter, length);
    if (error != ERR_LIMIT)
        return error;
    DIAG_LIMITED(
        DIAGNOSTICS_WARNING, "bus",
        "nothing waits for the members of %.*s while they are away: bus.sessions_max or bus.sessions_size_max has no room for it, or "
        "its name is longer than 65,534 bytes",
        length < SHOWN ? (int)length : SHOWN, filter);
    return 0;
}

/* Each group that the subscriptions speak of is there: what a kill has torn, and what an older version has left, which knew of none. */
static int complete(struct sessions *sessions)
{
    const struct session_store *store = &sessions->store;
    int error = 0;
    for (uint32_t i = 0; !error && i < store->slot_count; i++) {
        const struct session *session = store->slots[i];
        const struct session_subscription *each = session && !session->group ? session_filter_first(session) : NULL;
        for (; !error && each; each = session_filter_next(each))
            if (each->how.qos && mqtt_topic_share_length(each->filter, each->length))
                error = begin_late(sessions, each->filter, each->length);
    }
    return error;
}

int sessions_groups_load(struct sessions *sessions)
{
    struct session_store *store = &sessions->store;
    for (uint32_t i = 0; i < store->slot_count; i++)
        if (store->slots[i] && store->slots[i]->group)
            tell(sessions, store->slots[i], true);
    int error = complete(sessions);
    session_groups_count(store);
    return error;
}

/* ---- serving ---- */

struct session *sessions_group_attach(struct sessions *sessions, const char *filter, size_t length)
{
    pthread_mutex_lock(&sessions->lock);
    struct session *group = session_find_group(&sessions->store, filter, length);
    if (group && (group->members == 0 || group->attached))
        group = NULL;
    if (group) {
        sessions_scout_home(sessions, group);
        if (sessions_note_attached(sessions, group, SESSIONS_NEVER))
            group->behind = true;
        group->leaving = false; /* nobody is answered for it */
        session_attach(&sessions->store, group, &(struct session_owner){0});
    }
    pthread_mutex_unlock(&sessions->lock);
    return group;
}

/* What the sweep has found so far may be behind the message. */
static void hold(struct sessions *sessions, const struct session_sent *sent)
{
    if (sent->offset < sessions->least.at[sent->content])
        sessions->least.at[sent->content] = sent->offset;
}

static int give(struct sessions *sessions, struct session *group, struct session *member, const struct session_sent *sent)
{
    struct session_store *store = &sessions->store;
    struct session *noted = member ? member : group;
    int error = member ? session_sent_reserve(store, member, (size_t)member->sent_count + 1) : 0;
    if (!error && group) /* the member's counts as well */
        error = session_sent_reserve(store, group, (size_t)group->sent_count + 2);
    if (!error && group && group->behind && member) { /* the stream is to know it before it gives */
        error = sessions_note_begin(sessions, group);
        error = error ? error : sessions_note_end(sessions, group);
    }
    if (!error)
        error = sessions_note_begin(sessions, noted);
    if (!error)
        error = session_item_given(&sessions->note, group ? group->number : 0, sent);
    if (!error)
        error = sessions_note_end(sessions, noted);
    if (!error && member)
        hold(sessions, sent);
    return error;
}

int sessions_give(struct sessions *sessions, struct session *group, struct session *member, const struct session_sent *sent,
                  uint64_t *place)
{
    pthread_mutex_lock(&sessions->lock);
    int error = group || member ? give(sessions, group, member, sent) : 0;
    if (!error)
        *place = sessions->next_offset;
    pthread_mutex_unlock(&sessions->lock);
    return error;
}

uint32_t sessions_given(struct sessions *sessions, const struct session *group)
{
    pthread_mutex_lock(&sessions->lock);
    uint32_t count = 0;
    for (uint32_t i = 0; i < group->sent_count; i++)
        count += group->sent[i].state == SESSION_DONE;
    pthread_mutex_unlock(&sessions->lock);
    return count;
}

void sessions_group_hold(const struct session *session, struct follower_places *least)
{
    for (uint32_t i = 0; session->shared && i < session->sent_count; i++) {
        const struct session_sent *sent = &session->sent[i];
        if (sent->shared && sent->state != SESSION_DONE && sent->offset < least->at[sent->content])
            least->at[sent->content] = sent->offset;
    }
}
