/* Shared subscriptions that outlive their members' connections: one place in the journal for all of a group, and each message of QoS 1 and
 * 2 to one member that is there and has room.
 *
 * A group is durable as long as a persistent session is subscribed to it (sessions.h). It is then one member of the follower, with the room
 * that its members have together; what it is handed goes to the next of them in turn. Sessions that end with their connection are served
 * beside the others. As long as a group is not durable its members are known here, and nothing else: what is live goes to them by the
 * router. Of a durable one only QoS 0 is live.
 *
 * What a member owes. A message that was handed to it comes back with group_leave, and goes to another one before what is new, until it is
 *
 *   settled   answered, or dropped for good (expired, or too large for the member);
 *   given     of QoS 2, when it gets its packet identifier: it is among what was sent to the member's session then, in the same record, and
 *             goes to nobody else whatever happens.
 *
 * The cursor of a group is the least of what is owed or has come back, or how far all was handed out: so after a crash QoS 1 goes to some
 * member again, and of QoS 2 what was not given.
 *
 * Functions of a member are for the thread that has made it; groups_deliver is the follower's. One lock is around all groups; it is taken
 * before that of the sessions. */
#ifndef SESSIONS_GROUPS_H
#define SESSIONS_GROUPS_H

#include "sessions/sessions.h"

enum {
    GROUPS_LOOP = UINT16_MAX - 1, /* of a target that is a group */
    GROUP_OWED_MAX = 16384,       /* messages that members owe; beyond it nothing new is handed out */
    GROUP_GIVEN_MAX = 24576       /* that were given and lie behind the cursor; the same */
};

struct groups;
struct group_member;
struct group_owed; /* a message that a member owes */

/* Takes a message for the member `how`, under the lock. False: it could not be taken, and goes to some member later. */
typedef bool groups_hand(void *context, const struct follower_delivery *delivery, const struct router_subscription *how, uint64_t member,
                         struct group_owed *owed);

struct groups_options {
    struct sessions *sessions;
    groups_hand *hand;
    void *context;
};

/* ERR_NO_MEMORY. */
int groups_create(const struct groups_options *options, struct groups **out);
void groups_destroy(struct groups *groups); /* no member is left; accepts NULL */

/* From now on groups are served from it; NULL: no more. While nobody is a member. */
void groups_follow(struct groups *groups, struct follower *follower);

/* What the follower delivers to targets whose loop is GROUPS_LOOP. */
void groups_deliver(struct groups *groups, const struct follower_delivery *delivery);

/* Ends what has no sessions any more; notes how far the others have come. Once in a while, and after a subscription has ended. */
void groups_prune(struct groups *groups);
void groups_check(struct groups *groups);

/* ---- a member: a connection that is subscribed to "$share/NAME/FILTER" with QoS 1 or 2. After sessions_subscribe, where it has a session
 * that outlives it. It has room for nothing at first ---- */

int group_join(struct groups *groups, const char *filter, size_t length, const struct router_subscription *how,
               struct group_member **member); /* ERR_NO_MEMORY */
void group_change(struct group_member *member, const struct router_subscription *how);
void group_retire(struct group_member *member);            /* it has unsubscribed: nothing more comes, and what it owes it may finish */
bool group_is_finished(const struct group_member *member); /* it has retired and owes nothing: it may leave */
void group_leave(struct group_member *member); /* its connection has ended: what it owes goes to others. It is gone for the caller */

uint64_t group_member_number(const struct group_member *member); /* as in groups_hand; never used again */
bool group_is_durable(const struct group_member *member);        /* whether room matters */

/* How many messages and bytes it may have been handed since it joined, as in follower_grant. */
void group_grant(struct group_member *member, uint64_t messages, uint64_t bytes);

/* What it owes is settled; comes back at once; is given to its session (NULL: to one that ends with its connection): 0, and *place as of
 * sessions_give, or its error. */
void group_settle(struct group_member *member, struct group_owed *owed);
void group_return(struct group_member *member, struct group_owed *owed);
int group_give(struct group_member *member, struct group_owed *owed, struct session *session, const struct session_sent *sent,
               uint64_t *place);

#endif
