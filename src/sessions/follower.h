/* Reads the journal for persistent sessions, and hands each what it has subscribed to: a session's place in the journal is all that its
 * waiting messages cost.
 *
 * A member is a session that is read for. It has a position in each stream of messages (QUEUE_CONTENT_CONSUMED, _KEPT, _RESULTS) and is
 * handed, in order of offset, the messages of QoS 1 and 2 that match its subscriptions from there on, for as long as it is granted
 * room. One thread does that for all: it reads behind the durable end of a stream once for all members that have caught up. Members that
 * have not are gathered on sweeps of their own, which join when they meet; at most FOLLOWER_SWEEPS_MAX at a time, others wait for their
 * turn.
 *
 * A member may name single messages that it wants again (they were sent and not answered): these are handed to it first, whatever it has
 * subscribed to, and wherever they lie.
 *
 * Whoever opens a follower calls its functions from any thread; a member is one thread's at a time. None of them blocks. What they ask
 * for takes effect in order, soon. */
#ifndef SESSIONS_FOLLOWER_H
#define SESSIONS_FOLLOWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/message.h"
#include "queue/queue.h"
#include "router/router.h"

enum {
    FOLLOWER_CONTENTS = 3,          /* streams of messages */
    FOLLOWER_SWEEPS_MAX = 32,       /* of one stream, besides the one at its end */
    FOLLOWER_TURN_BYTES = 256 << 10 /* read for one sweep before the next has its turn */
};

extern const enum queue_content follower_contents[FOLLOWER_CONTENTS];

/* A place in each stream. */
struct follower_places {
    uint64_t at[FOLLOWER_CONTENTS];
};

/* One message that a member wants again, as `qos`. */
struct follower_again {
    uint64_t offset;
    uint8_t content; /* index in follower_contents */
    uint8_t qos;     /* 1 or 2 */
};

/* A message and to whom it goes. All pointers are borrowed. */
struct follower_delivery {
    const struct message *message; /* its offset included */
    uint8_t content;               /* index in follower_contents */
    bool again;                    /* it was wanted again: there is one target, with the QoS that was named, and no identifiers */
    uint64_t origin_session;       /* struct queue_origin; 0: none */
    const struct router_subscription *targets; /* [target_count], all of one loop, as in router_match; qos: of the subscription */
    uint32_t target_count;
    const uint32_t *identifiers; /* [identifier_count], as in router_match */
    uint32_t identifier_count;
};

/* On the follower's thread. False: there is no room at present (nothing was taken); it is offered again in a moment. */
typedef bool follower_deliver(void *context, const struct follower_delivery *delivery);

struct follower_options {
    struct queue *queue;
    follower_deliver *deliver;
    void *context;
};

struct follower;
struct follower_member;

/* Returns 0, ERR_NO_MEMORY or ERR_IO (no thread). */
int follower_start(struct follower **follower, const struct follower_options *options);

/* Ends the thread and frees all members; nobody calls any function any more. Accepts NULL. */
void follower_stop(struct follower *follower);

struct follower_join {
    uint16_t loop; /* who it is, in `targets`: as in struct router_subscription */
    uint32_t connection, generation;
    struct follower_places places;      /* from here on by subscriptions */
    const struct follower_again *again; /* [again_count] in order of content and offset; copied. What lies at or behind its place is met
                                         * there once more, if a subscription matches it */
    size_t again_count;
};

/* A new member, without subscriptions and without room. It stands at its places until it is granted room: what it is subscribed to by then
 * counts from there on. ERR_NO_MEMORY. */
int follower_join(struct follower *follower, const struct follower_join *join, struct follower_member **member);

/* A subscription (not a shared one) for what lies at or behind `from`; one to the same filter is replaced, and keeps the lesser `from`.
 * What becomes durable after the call is not missed; what the member has come past by then is not gone back for.
 * `how`: qos, options and identifier; the rest is not looked at. ERR_NO_MEMORY; a limit of the router is told by diagnostics, later. */
int follower_subscribe(struct follower_member *member, const char *filter, size_t length, const struct router_subscription *how,
                       const struct follower_places *from);
int follower_unsubscribe(struct follower_member *member, const char *filter, size_t length); /* 0 or ERR_NO_MEMORY */

/* Lets it begin without room: it comes as far as the first message for it. */
void follower_begin(struct follower_member *member);

/* How many messages, and bytes of these (topic, properties and payload), it may have been handed since it joined: a message is handed as
 * long as both numbers are above what was handed so far. Two targets for one message (ROUTER_OWN_ONLY) count once. Less than before
 * comes too late for what is being handed at that moment; `deliver` itself is in time. */
void follower_grant(struct follower_member *member, uint64_t messages, uint64_t bytes);

/* How far it has come: *handed messages were handed to it since it joined, and nothing else that it is to get, or wants again, lies before
 * `places`. So whoever has received that many has received all that lies before them; what he wanted again and has not got by then is gone.
 * Its own thread. */
void follower_passed(const struct follower_member *member, uint64_t *handed, struct follower_places *places);

/* It is not handed anything any more, soon: what was handed before may still arrive. The member is gone for the caller. */
void follower_leave(struct follower_member *member);

struct follower_status {
    uint64_t members, sweeps; /* sweeps: those that are behind */
    uint64_t read, handed;    /* messages since the start */
    uint64_t gone;            /* messages that were wanted again and are not kept any more, or cannot be read */
};
void follower_status(struct follower *follower, struct follower_status *status); /* any thread */

#endif
