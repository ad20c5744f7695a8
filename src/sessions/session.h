/* Private to sessions/: the sessions in memory (session.c), and what a record of their stream says of one (session_items.c). Nothing
 * here knows of the lock, the journal or the queue. */
#ifndef SESSIONS_SESSION_H
#define SESSIONS_SESSION_H

#include "base/buffer.h"
#include "base/table.h"
#include "sessions/sessions.h"

enum { SESSION_ORIGINS = 2 }; /* streams of messages that may come from a client; the first two of follower_contents */

/* What is known of an identifier of the client's own that is taken. */
enum session_taken_state {
    SESSION_PENDING, /* whether its message is durable is not known */
    SESSION_DURABLE, /* it is */
    SESSION_NOTED,   /* and the stream says that the identifier is taken */
    SESSION_RELEASED /* while the stream is read: it was given back. Its message may be met all the same */
};

struct session_taken {
    uint64_t word; /* sequence << 16 | packet identifier, as a record of a message has it */
    uint8_t state; /* enum session_taken_state */
    uint8_t generation;
};

static inline uint16_t session_taken_id(const struct session_taken *taken)
{
    return (uint16_t)taken->word;
}

struct session_filter; /* a subscription, in the list of its session */

struct session {
    uint64_t number;
    uint32_t slot;
    uint32_t id_length, user_length;
    bool attached;
    bool behind;   /* a note of it is missing in the stream: before the next one it is written as a whole */
    bool leaving;  /* SESSIONS_LEAVING */
    bool fenced;   /* `fence` was sent off */
    bool reserved; /* `next_id` is ahead of what was sent, by SESSIONS_IDS_STEP at most */
    bool group;    /* it is of a shared subscription (session_find_group) */
    bool unused;   /* of a group: in store->unused */
    uint16_t next_id;
    uint32_t expiry_s;
    struct session_owner owner; /* while attached */
    uint32_t fence;             /* while leaving: of sessions_parts.h */
    uint64_t left_ns;           /* while not */
    uint64_t leave_place;       /* while leaving: it ends when this place is durable */
    uint64_t whole_at;          /* offset of the newest record that holds all of it */
    uint64_t sequence;          /* of the newest identifier that was taken */
    uint64_t listed;            /* `sequence` in the newest record that holds all of it */
    struct follower_places cursor, position;
    struct follower_member *scout;  /* sessions_scout.c: while it is away; NULL: there is none */
    struct follower_places scouted; /* how far it had come when it was last looked at */
    uint64_t scout_ns;              /* when the last one set out; wall clock */
    struct session_filter *filters;
    struct session_sent *sent; /* in order of sending */
    uint32_t sent_count, sent_capacity;
    uint32_t taken_count, taken_capacity;
    uint32_t pending; /* of `taken`, SESSION_PENDING */
    uint32_t shared;  /* of `sent` */
    uint32_t members; /* of a group: subscriptions of QoS 1 and 2 that sessions have to it */
    struct session *unused_before, *unused_next;
    uint32_t filter_count;
    struct session_taken *taken; /* in no order */
    struct session_copy *copies; /* in the order in which they were put */
    char text[];                 /* client identifier and user, each with a zero behind it */
};

/* Identifiers that were taken since an instant and of which the stream does not know yet. Their messages lie at or behind the places where
 * the streams of messages ended at that instant. */
struct session_generation {
    uint64_t ends[SESSION_ORIGINS];
    uint64_t open; /* how many they are */
};

struct session_store {
    struct table names, numbers, filters;
    struct table users;     /* those that have sessions */
    struct session **slots; /* [slot_count]; a session keeps its own. NULL: free */
    uint32_t slot_count, slot_capacity;
    uint32_t free_from; /* no slot before it is free */
    uint32_t sessions_max;
    size_t bytes_max, bytes;
    size_t copied_bytes;              /* of these, copies of messages */
    uint64_t count, groups;           /* `count`: groups too, ... */
    uint64_t attached, subscriptions; /* ... here not */
    struct session *unused;           /* groups without members */
    bool loading;                     /* the stream is being read */
    struct session_generation generations[2];
    unsigned young;       /* the one to which what is taken now belongs */
    uint64_t copy_serial; /* of the newest copy */
};

static inline const char *session_id(const struct session *session)
{
    return session->text;
}

static inline const char *session_user(const struct session *session)
{
    return session->text + session->id_length + 1;
}

void session_store_fini(struct session_store *store);

/* ERR_LIMIT: there is no room for as many bytes more. */
int session_room(const struct session_store *store, size_t bytes);

struct session *session_find(const struct session_store *store, const char *id, size_t length);
struct session *session_find_number(const struct session_store *store, uint64_t number);

uint32_t session_count_of(const struct session_store *store, const char *user, size_t length); /* how many the user has */
/* The session of a shared subscription, `filter` with "$share/NAME/". Its identifier is that behind a zero, as no client's is; its
 * user is a zero alone, and so nobody. */
struct session *session_find_group(const struct session_store *store, const char *filter, size_t length);
static inline const char *session_group_filter(const struct session *group, size_t *length)
{
    *length = group->id_length - 1;
    return group->text + 1;
}
/* Counts the members of all groups. Before that, while the stream is read, nobody does. */
void session_groups_count(struct session_store *store);

/* A session that is not attached, all zero but for its names. ERR_LIMIT, ERR_NO_MEMORY. */
int session_make(struct session_store *store, uint64_t number, const char *id, size_t id_length, const char *user, size_t user_length,
                 struct session **made);
void session_end(struct session_store *store, struct session *session);

void session_attach(struct session_store *store, struct session *session, const struct session_owner *owner);
void session_leave(struct session_store *store, struct session *session, uint64_t left_ns);

struct session_subscription *session_filter_find(const struct session_store *store, const struct session *session, const char *filter,
                                                 size_t length);
/* A subscription to a filter that there is not yet. ERR_LIMIT, ERR_NO_MEMORY. */
int session_filter_add(struct session_store *store, struct session *session, const char *filter, size_t length,
                       struct session_subscription **made);
void session_filter_set(struct session_store *store, struct session_subscription *subscription, const struct router_subscription *how);
void session_filter_drop(struct session_store *store, struct session_subscription *subscription);
struct session_subscription *session_filter_first(const struct session *session);
struct session_subscription *session_filter_next(const struct session_subscription *subscription);

/* Makes room for `count` in all. ERR_LIMIT, ERR_NO_MEMORY. */
int session_sent_reserve(struct session_store *store, struct session *session, size_t count);
void session_sent_add(struct session_store *store, struct session *session, const struct session_sent *sent); /* behind the former */
void session_sent_clear(struct session_store *store, struct session *session);
void session_sent_finish(struct session_store *store, struct session *session, struct session_sent *sent);
/* The message that is under way under this identifier; NULL: there is none. */
struct session_sent *session_sent_find(const struct session *session, uint16_t packet_id);

/* A message of which there is a copy has come this far; the copy is not needed any more. */
void session_sent_settle(struct session_store *store, struct session *session, struct session_sent *sent, enum session_sent_state state);

/* Moves the cursor on, never back; what lies before it is forgotten. */
void session_advance(struct session_store *store, struct session *session, const struct follower_places *cursor);

/* A copy in nobody's list. ERR_LIMIT, ERR_NO_MEMORY. */
int session_copy_make(struct session_store *store, uint16_t packet_id, const void *bytes, size_t length, struct session_copy **made);
/* Takes it, behind the others, and drops what is there under its identifier. */
void session_copy_put(struct session_store *store, struct session *session, struct session_copy *copy);
struct session_copy *session_copy_find(const struct session *session, uint16_t packet_id);
void session_copy_drop(struct session_store *store, struct session *session, struct session_copy *copy); /* `copy` may be NULL */
/* Keeps those whose messages are to be sent again, and the will. */
void session_copy_trim(struct session_store *store, struct session *session);

struct session_taken *session_taken_find(const struct session *session, uint16_t packet_id);
/* Makes room for `count` in all. ERR_LIMIT, ERR_NO_MEMORY. */
int session_taken_reserve(struct session_store *store, struct session *session, size_t count);
/* One that is not there, with room. */
void session_taken_add(struct session_store *store, struct session *session, uint64_t word, enum session_taken_state state);
void session_taken_change(struct session_store *store, struct session *session, struct session_taken *taken, uint64_t word,
                          enum session_taken_state state);
void session_taken_drop(struct session_store *store, struct session *session, struct session_taken *taken);
/* All that are `from` become `to`. */
void session_taken_all(struct session_store *store, struct session *session, enum session_taken_state from, enum session_taken_state to);

/* ---- records (session_items.c tells their layout) ----
 *
 * The writers append to a buffer and return 0, ERR_LIMIT or ERR_NO_MEMORY; then it holds a part of what was to be written. */

enum { SESSION_RECORD_MAX = 400 << 20 };

struct session_stand {
    struct follower_places cursor, position;
    uint16_t next_id;
    const struct session_sent *sent; /* [sent_count] */
    size_t sent_count;
};

int session_record_begin(struct buffer *out, const uint64_t ends[SESSION_ORIGINS]);
int session_item_whole(struct buffer *out, const struct session *session);
int session_item_subscribed(struct buffer *out, const struct session_subscription *subscription);
int session_item_unsubscribed(struct buffer *out, const char *filter, size_t length);
int session_item_sent(struct buffer *out, const struct session_sent *sent);
/* `number`: of the group. */
int session_item_given(struct buffer *out, uint64_t number, const struct session_sent *sent);
int session_item_received(struct buffer *out, uint16_t packet_id);
int session_item_completed(struct buffer *out, uint16_t packet_id);
int session_item_advanced(struct buffer *out, const struct follower_places *cursor);
int session_item_taken(struct buffer *out, const struct session *session); /* those whose messages are durable */
int session_item_released(struct buffer *out, uint64_t word);
int session_item_attached(struct buffer *out, uint32_t expiry_s);
int session_item_left(struct buffer *out, uint32_t expiry_s, uint64_t left_ns);
int session_item_stands(struct buffer *out, const struct session_stand *stand);
int session_item_ended(struct buffer *out);
int session_item_copied(struct buffer *out, const struct session_copy *copy);
int session_item_next(struct buffer *out, uint16_t next_id);
int session_item_dropped(struct buffer *out, uint16_t packet_id);

/* Carries out the items of a session that is there, whose room was made before: nothing can fail. */
void session_items_apply(struct session_store *store, struct session *session, const uint8_t *items, size_t size);

/* Carries out a record of the stream; ends[] gets the places that it names. ERR_CORRUPT, ERR_FORMAT_VERSION, ERR_LIMIT, ERR_NO_MEMORY. */
int session_record_apply(struct session_store *store, const struct message *record, uint64_t ends[SESSION_ORIGINS]);

/* A message that was found behind these places. ERR_LIMIT, ERR_NO_MEMORY. */
int session_message_apply(struct session_store *store, const struct queue_origin *origin);

#endif
