/* Which sessions wait for most: for the operator who wants to know what holds the journal. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/error.h"
#include "sessions/sessions_parts.h"

struct held {
    const struct session *session;
    uint64_t count; /* messages of all streams from its cursor on */
};

static uint64_t count_held(const struct session *session, const struct follower_places *ends)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        count += ends->at[i] > session->cursor.at[i] ? ends->at[i] - session->cursor.at[i] : 0;
    return count;
}

/* Keeps the list in order, most first. */
static void insert(struct held most[SESSIONS_REPORTED], size_t *count, const struct session *session, uint64_t held)
{
    size_t at = *count;
    if (at == SESSIONS_REPORTED && most[--at].count >= held)
        return;
    *count = at + 1;
    for (; at > 0 && most[at - 1].count < held; at--)
        most[at] = most[at - 1];
    most[at] = (struct held){session, held};
}

static int write_one(const struct session *session, const struct follower_places *ends, struct buffer *json)
{
    static const char *const streams[FOLLOWER_CONTENTS] = {"ingest", "bus", "results"};
    int error = buffer_append_text(json, session->group ? "{\"group\":" : "{\"client\":");
    error = error ? error : buffer_append_json_string(json, session_id(session) + session->group, session->id_length - session->group, 0);
    error = error ? error : buffer_append_text(json, ",\"user\":");
    error = error ? error : buffer_append_json_string(json, session_user(session), session->group ? 0 : session->user_length, 0);
    error = error ? error
                  : buffer_printf(json, ",\"connected\":%s,\"subscriptions\":%" PRIu32 ",\"unanswered\":%" PRIu32,
                                  session->attached ? "true" : "false", session->filter_count, session->sent_count);
    if (!error && !session->attached)
        error = buffer_printf(json, ",\"left_ns\":%" PRIu64, session->left_ns);
    if (!error && session->expiry_s != SESSIONS_NEVER)
        error = buffer_printf(json, ",\"expiry_s\":%" PRIu32, session->expiry_s);
    error = error ? error : buffer_append_text(json, ",\"holds\":{");
    for (unsigned i = 0; !error && i < FOLLOWER_CONTENTS; i++)
        error = buffer_printf(json, "%s\"%s\":%" PRIu64, i ? "," : "", streams[i],
                              ends->at[i] > session->cursor.at[i] ? ends->at[i] - session->cursor.at[i] : 0);
    return error ? error : buffer_append_text(json, "}}");
}

static int write_all(const struct sessions *sessions, struct buffer *json)
{
    const struct session_store *store = &sessions->store;
    struct held most[SESSIONS_REPORTED];
    struct follower_places ends;
    size_t count = 0;
    sessions_find_ends(sessions, &ends);
    for (uint32_t i = 0; i < store->slot_count; i++)
        if (store->slots[i])
            insert(most, &count, store->slots[i], count_held(store->slots[i], &ends));
    int error = buffer_printf(json, "{\"total\":%" PRIu64 ",\"sessions\":[", store->count);
    for (size_t i = 0; !error && i < count; i++) {
        error = i ? buffer_append_text(json, ",\n") : 0;
        error = error ? error : write_one(most[i].session, &ends, json);
    }
    return error ? error : buffer_append_text(json, "]}\n");
}

int sessions_write(struct sessions *sessions, struct buffer *json)
{
    pthread_mutex_lock(&sessions->lock);
    int error = write_all(sessions, json);
    pthread_mutex_unlock(&sessions->lock);
    return error;
}
