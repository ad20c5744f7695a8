/* Private to sessions/sessions*.c: the lock around the sessions, and the stream behind them. All functions
 * are called under the lock, but sessions_load, before anybody else knows of the sessions. */
#ifndef SESSIONS_SESSIONS_PARTS_H
#define SESSIONS_SESSIONS_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "sessions/session.h"

/* Where messages may come from a client of which the stream does not tell, and the place at which a record that says so is durable. */
struct sessions_reach {
    uint64_t ends[SESSION_ORIGINS];
    uint64_t place; /* 0: there is none */
};

struct sessions {
    struct sessions_options options;
    atomic_bool unsent;   /* something was appended since the last flush */
    pthread_mutex_t lock; /* guards all that follows */
    struct session_store store;
    uint64_t expired;

    struct buffer note;                /* a record that is being made */
    size_t note_items;                 /* where in it the items of the present change begin */
    struct buffer rewritten;           /* one of a session that is written again */
    struct journal_producer *producer; /* NULL: in memory only */
    struct journal_producer *fences;   /* of no records */
    uint32_t fences_sent, fences_passed;
    uint64_t next_offset; /* of the next record of the stream */
    size_t written;       /* bytes of the stream's records from its guard on, or that which it is about to have */
    size_t arrived;       /* bytes of the last change's record */

    /* Writing again what was written before a pass began, as in retained.c. */
    bool rewriting;
    uint32_t rewriting_at;    /* slot */
    uint64_t rewriting_from;  /* next_offset when it began */
    size_t rewriting_before;  /* `written` then */
    uint64_t guard, guard_at; /* the guard may be set to the former when the latter is durable; 0: there is nothing to set */

    struct sessions_reach held;  /* of a durable record: a start reads from there on, or later */
    struct sessions_reach newer; /* of one that may not be durable yet */

    /* sessions_sweep. */
    uint32_t swept;               /* slot */
    bool noting;                  /* this pass tells the stream of what was taken, and ends with a mark */
    uint64_t marked_bytes;        /* of the journal at the last one */
    struct follower_places least; /* what was found so far */
    struct follower_places ends;  /* of the streams of messages when this pass began */

    struct follower *follower; /* NULL: there is none */
    unsigned scouts;
};

/* Reads the stream and what lies behind its places. */
int sessions_load(struct sessions *sessions);

void sessions_find_ends(const struct sessions *sessions, struct follower_places *ends);

/* A change: sessions_note_begin; the items, put into sessions->note; sessions_note_end, which appends it and carries it out. What can fail
 * in carrying it out is made sure of before. On failure nothing has changed. */
int sessions_note_begin(struct sessions *sessions, const struct session *session);
int sessions_note_end(struct sessions *sessions, struct session *session);

/* The same without carrying it out, for the end of a session. */
int sessions_note_append(struct sessions *sessions, const struct session *session);

/* sessions_scout.c. The cursor of a session whose client is away moves past what is not for it. */
void sessions_scout(struct sessions *sessions, struct session *session, const struct follower_places *ends, uint64_t wall_ns);
void sessions_scout_home(struct sessions *sessions, struct session *session); /* its client is back: it has come this far */
void sessions_scout_end(struct sessions *sessions, struct session *session);

/* sessions_groups.c. */
int sessions_group_begin(struct sessions *sessions, const char *filter, size_t length); /* if there is none; ERR_LIMIT, ERR_NO_MEMORY */
int sessions_groups_load(struct sessions *sessions);                                    /* behind what was read */
/* What a session has been given and not answered is held as well, wherever it lies. */
void sessions_group_hold(const struct session *session, struct follower_places *least);

uint64_t sessions_make_number(const struct session_store *store);
int sessions_note_attached(struct sessions *sessions, struct session *session, uint32_t expiry_s);
int sessions_end(struct sessions *sessions, struct session *session); /* with a note; when that cannot be made the session stays */

int sessions_mark(struct sessions *sessions); /* a record of no session */

/* A fence behind all publishes that were sent off so far, and whether it is passed: then they are durable. One that could not be sent off
 * is when it is asked for. */
void sessions_fence(struct sessions *sessions, struct session *session);
bool sessions_fence_is_passed(struct sessions *sessions, struct session *session);
void sessions_submit(struct sessions *sessions);
void sessions_move_guard(struct sessions *sessions);
bool sessions_backlog_is_full(const struct sessions *sessions);

/* Nothing of the messages from `least` on, or of what a start would read, is removed; without any session everything may be. */
void sessions_hold(struct sessions *sessions, const struct follower_places *least);

#endif
