/* The persistent sessions: what the server remembers of a client when it is not connected (MQTT 5 section 4.1), in memory and, where there
 * is a stream for it, on disk.
 *
 * Not the messages that wait: those are in the journal, and a session knows from where on (follower.h). Besides its subscriptions it is the
 * place in each stream before which everything was delivered and answered, what was sent and is not answered, and the identifiers of the
 * client's own QoS 2 messages that wait for its PUBREL.
 *
 * The stream. A record says what has changed of one session; its topic is the client identifier. All are appended under one lock, so the
 * stream's order is the order in which things happened, and a start finds what was there. It grows with each change; sessions are written
 * again as a whole, a few with each change, so that what lies before can go (as in retained.h).
 *
 * When a note is durable. Each change returns a place in the stream; what it permits may happen when sessions_durable has reached that
 * place: a SUBACK, the PUBLISH of QoS 2 (sessions_sent), its PUBREL (sessions_received), the PUBCOMP of the client's own
 * (sessions_released). What the standard does not need to have on disk waits for nothing. While the disk is short notes are written and
 * publishes wait: what a session notes is what lets its messages go.
 *
 * QoS 2 from the client. A message and the note that its identifier is taken lie in two streams, of which either may reach the disk first.
 * So the message's own record says from which session it came, under which identifier and as the how manieth (struct queue_origin), and
 * every note names places in the streams of messages: what lies behind those of the last one is read at the start (sessions_stream.c proves
 * that this is enough). sessions_sweep writes such places down when nothing else has for long. The numbers of our sessions are even, those
 * of ingest/ odd.
 *
 * Memory. A session takes about 360 bytes besides its identifier and its user's name, a user who has any 60, a subscription 120 besides its
 * filter, a message that is under way 16, and as many an identifier that is taken, a copy 56 besides its bytes. bytes_max counts them.
 * Where there are more than 64 of those of 16 bytes, an index of up to 8 bytes for each comes to that, which it does not count.
 *
 * Who may call. Every function takes the lock and may be called from any thread; none waits for the disk but sessions_open. What a session
 * holds belongs to whoever has attached it; he reads it through sessions_visit. */
#ifndef SESSIONS_SESSIONS_H
#define SESSIONS_SESSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "journal/journal.h"
#include "queue/queue.h"
#include "router/router.h"
#include "sessions/follower.h"

#define SESSIONS_NEVER UINT32_MAX /* seconds: it does not expire */

enum {
    SESSIONS_MAX_DEFAULT = 100000,
    SESSIONS_BYTES_MAX_DEFAULT = 256 << 20,
    SESSIONS_SLACK_DEFAULT = 16 << 20,
    SESSIONS_MARK_BYTES = 64 << 20, /* of messages between two marks */
    SESSIONS_SENT_MAX = 65535,      /* unanswered messages of a session */
    SESSIONS_COPIED_PART = 2,       /* copies of messages take at most one part in so many of bytes_max */
    SESSIONS_IDS_STEP = 256         /* packet identifiers that are reserved at once */
};

struct sessions_options {
    uint32_t sessions_max;         /* 0: SESSIONS_MAX_DEFAULT */
    uint32_t expiry_max_s;         /* however long a session was to last; 0: SESSIONS_NEVER */
    size_t bytes_max;              /* of memory for all of them; 0: SESSIONS_BYTES_MAX_DEFAULT */
    size_t slack;                  /* bytes that the stream may hold in vain at least; 0: SESSIONS_SLACK_DEFAULT */
    uint64_t mark_bytes;           /* of messages between two marks; 0: SESSIONS_MARK_BYTES */
    struct queue *queue;           /* that keeps the messages */
    struct journal *journal;       /* started; NULL: in memory only */
    struct journal_stream *stream; /* guarded, pressing, of the same scribe as the streams of publishes */
    void (*notify)(void *context); /* called whenever sessions_durable may have moved; on a thread of the journal, must not block. May be
                                    * NULL, and is called before sessions_open has returned */
    /* A group begins or has ended; under the lock. An error for one that begins is that of sessions_subscribe; at a start it is passed
     * over. May be NULL. */
    int (*group)(void *context, const char *filter, size_t length, bool there);
    void *context;
};

enum session_sent_state {
    SESSION_SENT,     /* PUBACK or PUBREC is awaited */
    SESSION_RECEIVED, /* PUBCOMP is */
    SESSION_DONE      /* QoS 2: all is over, but something before it is not */
};

enum {
    SESSIONS_COPIED = FOLLOWER_CONTENTS, /* `content` of a message that is in none of the streams: there is a copy; `offset` is 0 */
    SESSIONS_WILL = 0                    /* `packet_id` of a copy: it is the will */
};

/* A message that was sent from the journal, or of which there is a copy. */
struct session_sent {
    uint64_t offset;
    uint16_t packet_id;
    uint8_t content; /* index in follower_contents, or SESSIONS_COPIED */
    uint8_t qos;     /* 1 or 2 */
    uint8_t state;   /* enum session_sent_state */
    bool shared;     /* it came by a shared subscription (groups.h), and may lie anywhere */
};

/* What comes from no stream of messages, in its owner's encoding: a will; a message that is under way, until it is received. */
struct session_copy {
    struct session_copy *prev, *next;
    uint64_t serial; /* no other copy has it before the next start */
    uint32_t length;
    uint16_t packet_id;
    uint8_t bytes[];
};

struct session_subscription {
    struct router_subscription how; /* qos, options, identifier; the rest is 0 */
    struct follower_places from;    /* where the streams ended when it was made */
    uint32_t length;
    char filter[]; /* zero-terminated */
};

struct sessions;
struct session;

/* Takes up what the stream holds. The clients whose sessions were attached when the server ended have left now. Returns 0, ERR_CORRUPT (a
 * record that is none of ours; diagnostics say where), ERR_FORMAT_VERSION, ERR_LIMIT (more than the limits allow; diagnostics say which to
 * raise), ERR_NO_MEMORY or an error of the reader. */
int sessions_open(const struct sessions_options *options, struct sessions **out);
void sessions_close(struct sessions *sessions); /* before the journal; what was not flushed is lost; accepts NULL */

/* Sends off what was noted; to be called before a publish that was appended meanwhile is sent off. Cheap when there is nothing. */
void sessions_flush(struct sessions *sessions);

/* Where the stream is durable. Without a stream UINT64_MAX. */
uint64_t sessions_durable(struct sessions *sessions);

/* From now on cursors of sessions whose clients are away move past what is not for these, with the sweeps. NULL, before that follower is
 * stopped: no more. */
void sessions_follow(struct sessions *sessions, struct follower *follower);

/* ---- coming and going ---- */

/* Who has attached a session. */
struct session_owner {
    uint32_t loop, slot, generation;
};

enum sessions_found {
    SESSIONS_NONE,     /* there is no such session, or its time was over */
    SESSIONS_ATTACHED, /* it is the caller's now */
    SESSIONS_IN_USE,   /* another owner has it: *owner says who, and is to let go of it */
    SESSIONS_LEAVING,  /* what its last owner has noted or published is not durable yet: try again when sessions_durable moves */
    SESSIONS_FOREIGN   /* it is another user's */
};

/* Attaches the session of a client identifier to *owner, or says why not. `fresh`: what there is ends first (it counts as SESSIONS_NONE
 * then), unless it is IN_USE or FOREIGN; so does one whose time is over by wall_ns. */
enum sessions_found sessions_attach(struct sessions *sessions, const char *id, size_t length, const char *user, bool fresh,
                                    uint64_t wall_ns, struct session_owner *owner, struct session **session);

/* Makes a session, attached to the owner. Its places are where the streams end now. ERR_BUSY (there is one of that name), ERR_LIMIT,
 * ERR_NO_MEMORY. */
int sessions_create(struct sessions *sessions, const char *id, size_t length, const char *user, const struct session_owner *owner,
                    struct session **session);

/* How many sessions a user has; two that begin at the same moment may both find that there is room for one. */
uint32_t sessions_of(struct sessions *sessions, const char *user);

/* When it ends if its client never comes back and there is no sessions_detach that says so: after a crash. SESSIONS_NEVER for a new one,
 * and else what it was. A lazy note; ERR_NO_MEMORY. */
int sessions_set_expiry(struct sessions *sessions, struct session *session, uint32_t expiry_s);

struct sessions_leave {
    uint32_t expiry_s;               /* 0: it ends now; SESSIONS_NEVER */
    uint64_t wall_ns;                /* now */
    struct follower_places cursor;   /* nothing before is to be sent */
    struct follower_places position; /* from here on by subscriptions; between the two only what is in `sent` */
    const struct session_sent *sent; /* [sent_count], in the order in which it was sent */
    size_t sent_count;
    uint16_t next_id; /* the packet identifier that would have come next */
};

/* Its owner lets go of it; the publishes that came under its identifiers must have been sent off before. `leave` NULL: he has done nothing
 * with it, and it is as it was. */
void sessions_detach(struct sessions *sessions, struct session *session, const struct sessions_leave *leave);

/* Ends the sessions whose time is over and whose will was published, lets go of what nobody waits for, and takes note of where the streams
 * are when it is time. To be called once in a while. Returns how many have ended. */
uint32_t sessions_sweep(struct sessions *sessions, uint64_t wall_ns);

/* ---- groups (groups.h). A shared subscription, "$share/NAME/FILTER", to which a session is subscribed with QoS 1 or 2 has a session of
 * its own, for as long as any is: its place in the journal is that of all members. It begins with sessions_subscribe. Whoever serves its
 * members attaches it meanwhile; sessions_visit, sessions_advance and sessions_detach are for it too. ---- */

/* NULL: there is no such group, or it has no members any more. A lazy note. */
struct session *sessions_group_attach(struct sessions *sessions, const char *filter, size_t length);

/* A message of QoS 2 is about to be sent to a member, whose it is from now on: it is among what was sent there, and is not the group's any
 * more. Either is noted or none. `member` NULL: its session ends with its connection. `group` NULL: it has ended. As below. */
int sessions_give(struct sessions *sessions, struct session *group, struct session *member, const struct session_sent *sent,
                  uint64_t *place);
/* How many these are that lie behind its cursor: so many it remembers. */
uint32_t sessions_given(struct sessions *sessions, const struct session *group);

/* Ends the groups that have no members and are not attached; then the first that is attached, which its owner is to end, goes to *filter.
 * Whether there is one; ERR_NO_MEMORY is none. */
bool sessions_group_unused(struct sessions *sessions, struct buffer *filter);

/* Ends one that is attached, if it has no members. Whether it has ended. */
bool sessions_group_end(struct sessions *sessions, struct session *group);

/* ---- what its owner notes. Each returns through *place (may be NULL) when it is durable; ERR_LIMIT, ERR_NO_MEMORY: nothing is noted ----
 */

int sessions_subscribe(struct sessions *sessions, struct session *session, const char *filter, size_t length,
                       const struct router_subscription *how, const struct session_subscription **made, uint64_t *place);
bool sessions_follows(struct sessions *sessions, const struct session *session, const char *filter,
                      size_t length); /* router_is_from_journal */
int sessions_unsubscribe(struct sessions *sessions, struct session *session, const char *filter, size_t length, uint64_t *place);

/* A QoS 2 message is about to be sent; its PUBREC has come; its PUBCOMP (or a PUBREC that refuses it) has. */
int sessions_sent(struct sessions *sessions, struct session *session, const struct session_sent *sent, uint64_t *place);
int sessions_received(struct sessions *sessions, struct session *session, uint16_t packet_id, uint64_t *place);
int sessions_completed(struct sessions *sessions, struct session *session, uint16_t packet_id, uint64_t *place);

/* It stands there, and goes on from there after a crash; of `leave` all but the times counts. */
int sessions_stand(struct sessions *sessions, struct session *session, const struct sessions_leave *leave, uint64_t *place);

/* After a crash no identifier before this one is given that may have been given before it; at most SESSIONS_IDS_STEP ahead. */
int sessions_reserve_ids(struct sessions *sessions, struct session *session, uint16_t next_id, uint64_t *place);

/* Everything before the cursor is answered; a lazy note. */
int sessions_advance(struct sessions *sessions, struct session *session, const struct follower_places *cursor);

/* The client's QoS 2 message under this identifier, which is not taken, is about to be appended with *origin; it is durable, so that its
 * PUBREC may go; its PUBREL has come, or it could not be appended after all. To give back what is not taken changes nothing. (Who does not
 * say that it is durable makes the next start read more, as long as the identifier is taken.) */
int sessions_take(struct sessions *sessions, struct session *session, uint16_t packet_id, struct queue_origin *origin);
void sessions_taken(struct sessions *sessions, struct session *session, uint16_t packet_id);
int sessions_release(struct sessions *sessions, struct session *session, uint16_t packet_id, uint64_t *place);

/* ---- copies (sessions_copies.c) ---- */

/* As sessions_sent, of a message that is in no stream (`content`: SESSIONS_COPIED) of either QoS. ERR_LIMIT also when the copies of all
 * sessions take their part (SESSIONS_COPIED_PART). */
int sessions_sent_copy(struct sessions *sessions, struct session *session, const struct session_sent *sent, const void *bytes,
                       size_t length, uint64_t *place);

/* The will of its client, in the place of a former one. */
int sessions_keep_will(struct sessions *sessions, struct session *session, const void *bytes, size_t length, uint64_t *serial,
                       uint64_t *place);

/* It was published, or withdrawn: any thread, whoever has the session of that number. Nothing happens when there is no such session or will
 * any more. */
void sessions_drop_will(struct sessions *sessions, uint64_t number, uint64_t serial, uint64_t *place);

/* Its owner's; there until its message is received or answered. NULL: there is none. */
const struct session_copy *sessions_copy(struct sessions *sessions, const struct session *session, uint16_t packet_id);

/* A session whose client is away, and its will. All is borrowed. */
struct session_will {
    uint64_t number, left_ns;
    uint32_t expiry_s;
    const char *id, *user; /* zero-terminated */
    const struct session_copy *copy;
};
/* Under the lock: `visit` may call no function of this module. Returns 0 or its error, which ends the visit. */
int sessions_visit_wills(struct sessions *sessions, int (*visit)(void *context, const struct session_will *will), void *context);

/* ---- what it holds ---- */

uint64_t session_number(const struct session *session); /* even, not 0; as in struct queue_origin */

struct session_visitor {
    void *context; /* under the lock: none of these may call a function of this module; the first error ends the visit. NULL: is left out */
    int (*subscription)(void *context, const struct session_subscription *subscription);
    int (*sent)(void *context, const struct session_sent *sent); /* in order of sending; DONE ones too */
    int (*taken)(void *context, uint16_t packet_id);
};

/* For its owner: *cursor, *position and *next_id as they were left. Returns 0 or the visitor's error. */
int sessions_visit(struct sessions *sessions, struct session *session, const struct session_visitor *visitor,
                   struct follower_places *cursor, struct follower_places *position, uint16_t *next_id);

struct sessions_status {
    uint64_t sessions, attached, subscriptions;
    uint64_t expired; /* since the start */
    uint64_t groups;
    size_t bytes; /* of memory */
};
void sessions_status(struct sessions *sessions, struct sessions_status *status);

enum { SESSIONS_REPORTED = 100 };
/* Those that hold most of the journal, as JSON. */
int sessions_write(struct sessions *sessions, struct buffer *json);

#endif
