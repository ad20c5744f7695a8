/* Copies: what a session keeps that is in no stream of messages. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "sessions/sessions_parts.h"

static int unlock(struct sessions *sessions, int error, uint64_t *place)
{
    if (!error && place)
        *place = sessions->next_offset;
    pthread_mutex_unlock(&sessions->lock);
    return error;
}

/* Notes the copy, behind what is in the note; takes it when that succeeds. */
static int keep(struct sessions *sessions, struct session *session, struct session_copy *copy)
{
    int error = session_item_copied(&sessions->note, copy);
    if (!error)
        error = sessions_note_end(sessions, session);
    if (!error)
        session_copy_put(&sessions->store, session, copy);
    return error;
}

static int sent_copy(struct sessions *sessions, struct session *session, const struct session_sent *sent, const void *bytes, size_t length)
{
    struct session_store *store = &sessions->store;
    struct session_copy *copy;
    assert(sent->packet_id && sent->content == SESSIONS_COPIED);
    int error = session_sent_reserve(store, session, (size_t)session->sent_count + 1);
    if (!error && sessions_backlog_is_full(sessions))
        error = ERR_LIMIT;
    if (!error)
        error = session_copy_make(store, sent->packet_id, bytes, length, &copy);
    if (error)
        return error;
    error = sessions_note_begin(sessions, session);
    if (!error)
        error = session_item_sent(&sessions->note, sent);
    if (!error)
        error = keep(sessions, session, copy);
    if (error)
        free(copy);
    return error;
}

int sessions_sent_copy(struct sessions *sessions, struct session *session, const struct session_sent *sent, const void *bytes,
                       size_t length, uint64_t *place)
{
    pthread_mutex_lock(&sessions->lock);
    return unlock(sessions, sent_copy(sessions, session, sent, bytes, length), place);
}

static int keep_will(struct sessions *sessions, struct session *session, const void *bytes, size_t length, uint64_t *serial)
{
    struct session_copy *copy;
    if (sessions_backlog_is_full(sessions))
        return ERR_LIMIT;
    int error = session_copy_make(&sessions->store, SESSIONS_WILL, bytes, length, &copy);
    if (error)
        return error;
    error = sessions_note_begin(sessions, session);
    if (!error)
        error = keep(sessions, session, copy);
    if (error)
        free(copy);
    else
        *serial = copy->serial;
    return error;
}

int sessions_keep_will(struct sessions *sessions, struct session *session, const void *bytes, size_t length, uint64_t *serial,
                       uint64_t *place)
{
    pthread_mutex_lock(&sessions->lock);
    return unlock(sessions, keep_will(sessions, session, bytes, length, serial), place);
}

void sessions_drop_will(struct sessions *sessions, uint64_t number, uint64_t serial, uint64_t *place)
{
    pthread_mutex_lock(&sessions->lock);
    struct session *session = session_find_number(&sessions->store, number);
    struct session_copy *will = session ? session_copy_find(session, SESSIONS_WILL) : NULL;
    if (will && will->serial == serial) {
        int error = sessions_note_begin(sessions, session);
        if (!error)
            error = session_item_dropped(&sessions->note, SESSIONS_WILL);
        if (!error)
            error = sessions_note_end(sessions, session);
        if (error) { /* the next note tells of it */
            session_copy_drop(&sessions->store, session, will);
            session->behind = true;
        }
    }
    unlock(sessions, 0, place);
}

const struct session_copy *sessions_copy(struct sessions *sessions, const struct session *session, uint16_t packet_id)
{
    pthread_mutex_lock(&sessions->lock);
    const struct session_copy *copy = session_copy_find(session, packet_id);
    unlock(sessions, 0, NULL);
    return copy;
}

int sessions_visit_wills(struct sessions *sessions, int (*visit)(void *context, const struct session_will *will), void *context)
{
    int error = 0;
    pthread_mutex_lock(&sessions->lock);
    for (uint32_t i = 0; !error && i < sessions->store.slot_count; i++) {
        const struct session *session = sessions->store.slots[i];
        const struct session_copy *copy = session && !session->attached ? session_copy_find(session, SESSIONS_WILL) : NULL;
        if (!copy)
            continue;
        uint32_t most_s = sessions->options.expiry_max_s, lasts_s = session->expiry_s < most_s ? session->expiry_s : most_s;
        error = visit(context, &(struct session_will){.number = session->number,
                                                      .left_ns = session->left_ns,
                                                      .expiry_s = lasts_s,
                                                      .id = session_id(session),
                                                      .user = session_user(session),
                                                      .copy = copy});
    }
    return unlock(sessions, error, NULL);
}
