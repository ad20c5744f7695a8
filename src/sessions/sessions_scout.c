/* Sessions whose clients are away, and what is not for them.
 *
 * The journal is held at the cursor of a session, and that of one whose client is away stands still. So that it holds only what the client
 * is to get, a few of these sessions at a time are members of the follower, without room: a scout comes as far as the first message for its
 * session, and all before that is behind the cursor. It comes back when it has not moved between two looks, or is at the end, and goes
 * again after a while. */
#include "mqtt/topic.h"
#include "sessions/sessions_parts.h"

enum { SCOUTS_MAX = 256 };

#define SCOUT_REST_NS UINT64_C(30000000000)

void sessions_follow(struct sessions *sessions, struct follower *follower)
{
    pthread_mutex_lock(&sessions->lock);
    sessions->follower = follower;
    sessions->scouts = 0;
    for (uint32_t i = 0; i < sessions->store.slot_count; i++)
        if (sessions->store.slots[i])
            sessions->store.slots[i]->scout = NULL; /* its follower frees it */
    pthread_mutex_unlock(&sessions->lock);
}

void sessions_scout_end(struct sessions *sessions, struct session *session)
{
    if (!session->scout)
        return;
    follower_leave(session->scout);
    session->scout = NULL;
    sessions->scouts--;
}

static int subscribe(struct follower_member *scout, const struct session *session)
{
    int error = 0;
    for (const struct session_subscription *each = session_filter_first(session); each && !error; each = session_filter_next(each))
        if (router_is_from_journal(&each->how) && !mqtt_topic_share_length(each->filter, each->length))
            error = follower_subscribe(scout, each->filter, each->length, &each->how, &each->from);
    return error;
}

static void begin(struct sessions *sessions, struct session *session)
{
    struct follower_join who = {.loop = UINT16_MAX, .connection = session->slot, .places = session->position};
    if (follower_join(sessions->follower, &who, &session->scout)) {
        session->scout = NULL; /* another time */
        return;
    }
    sessions->scouts++;
    session->scouted = session->position;
    if (subscribe(session->scout, session))
        sessions_scout_end(sessions, session);
    else
        follower_begin(session->scout);
}

/* Where something was sent and is not answered the cursor stays. What was given by a group is no matter of it. */
static bool has_sent(const struct session *session, unsigned content)
{
    for (uint32_t i = 0; i < session->sent_count; i++)
        if (session->sent[i].content == content && !session->sent[i].shared && !(session->group && session->sent[i].state == SESSION_DONE))
            return true;
    return false;
}

static void advance(struct sessions *sessions, struct session *session, const struct follower_places *passed)
{
    struct follower_places cursor = session->cursor;
    bool further = false;
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++) {
        if (passed->at[i] <= cursor.at[i] || has_sent(session, i))
            continue;
        cursor.at[i] = passed->at[i];
        further = true;
    }
    if (further && !sessions_note_begin(sessions, session) && !session_item_advanced(&sessions->note, &cursor))
        sessions_note_end(sessions, session); /* or else the next time */
}

/* Whether the scout goes on. */
static bool look(struct sessions *sessions, struct session *session, const struct follower_places *ends)
{
    struct follower_places passed;
    uint64_t handed;
    bool moved = false, left = false;
    follower_passed(session->scout, &handed, &passed);
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++) {
        moved = moved || passed.at[i] > session->scouted.at[i];
        left = left || passed.at[i] < ends->at[i];
    }
    session->scouted = passed;
    advance(sessions, session, &passed);
    return moved && left;
}

void sessions_scout(struct sessions *sessions, struct session *session, const struct follower_places *ends, uint64_t wall_ns)
{
    if (!sessions->follower || session->attached || session->leaving)
        return;
    if (session->scout) {
        if (!look(sessions, session, ends))
            sessions_scout_end(sessions, session);
        return;
    }
    bool behind = false;
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        behind = behind || (session->position.at[i] < ends->at[i] && !has_sent(session, i));
    bool rested = wall_ns >= session->scout_ns + SCOUT_REST_NS || wall_ns < session->scout_ns; /* the clock was set back */
    if (!behind || !rested || sessions->scouts == SCOUTS_MAX)
        return;
    session->scout_ns = wall_ns;
    begin(sessions, session);
}

void sessions_scout_home(struct sessions *sessions, struct session *session)
{
    if (!session->scout)
        return;
    look(sessions, session, &session->scouted);
    sessions_scout_end(sessions, session);
}
