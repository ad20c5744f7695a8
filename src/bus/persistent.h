/* A connection whose session outlives it: what it is sent comes from the journal, and what it does is noted (sessions.h).
 *
 * Messages of QoS 1 and 2 reach it through the follower, behind the durable end of their stream, as far as it is granted room: places in
 * the send window, and bytes of its queue. What was sent and not answered is remembered with its place in the journal, in the order of
 * sending. The cursor, which is noted once in a while, is in each stream the place of the oldest of these; or, where there is none, how far
 * all was handed out. When the client comes back what was not answered comes again: under the identifier that it had, as the follower finds
 * it.
 *
 * Answers that promise something wait until what they promise is durable: they are held back, in the order in which they were made, and let
 * go when sessions_durable has reached their places. */
#ifndef BUS_PERSISTENT_H
#define BUS_PERSISTENT_H

#include "bus/loop.h"
#include "sessions/sessions.h"

/* What the follower hands to a loop, besides the message. */
struct persistent_handed {
    uint64_t offset, time_ns;
    uint64_t origin_session;
    uint64_t bytes;          /* that count against what was granted */
    uint64_t member;         /* of a group (shared.h): its number; 0: it is of none */
    struct group_owed *owed; /* then */
    uint8_t content;
    bool again;
};

/* ---- coming and going ---- */

/* How long the session is to outlast the connection: what its client wants, as far as it may. */
uint32_t persistent_expiry_s(const struct connection *connection);

/* Of a CONNECT that has its client identifier. Returns 0 (connection->persistent is set if there is a session that outlives it, *present
 * says whether it was there before), ERR_BUSY (it has to wait, and is paused; to be called again), ERR_CLIENT_ID, ERR_LIMIT or
 * ERR_NO_MEMORY. */
int persistent_attach(struct connection *connection, const struct mqtt_connect *connect, bool *present);

/* Behind the CONNACK: goes on where the session was left. */
void persistent_resume(struct connection *connection);

/* The connection has ended, or is about to: nothing is received or sent any more. */
void persistent_leave(struct connection *connection);

/* ---- what it is sent ---- */

/* Whether what the follower hands over is the client's own. */
bool persistent_is_own(const struct connection *connection, const struct persistent_handed *handed);

/* Takes what the follower hands to it: once, however many targets of one message are this connection's. */
void persistent_receive(struct connection *to, const struct mqtt_publish *publish, const struct router_subscription *how,
                        const uint32_t *identifiers, const struct persistent_handed *handed);

/* A message from the journal got its packet identifier. 0 and *place, which QoS 2 has to wait for; ERR_LIMIT, ERR_NO_MEMORY. */
int persistent_note_sent(struct connection *connection, const struct session_sent *sent, uint64_t *place);

/* The same of a retained message, and it is kept; an expiry counts from now. */
int persistent_note_copy(struct connection *connection, const struct mqtt_publish *outgoing, uint64_t *place);

/* A message that the session does not remember got its packet identifier: that is not given to another one after a kill. */
int persistent_note_id(struct connection *connection, uint64_t *place);

void persistent_give_up(struct connection *connection, uint16_t packet_id);              /* it cannot be sent again */
void persistent_settled(struct connection *connection, uint16_t packet_id);              /* PUBACK, PUBCOMP, or a PUBREC that refuses */
void persistent_recorded(struct connection *connection, const struct mqtt_event *event); /* PUBREC: makes the PUBREL */

/* ---- what it does ---- */

/* Whether messages come from the journal for its subscription to this filter. When that is lowered to QoS 0 they go on to: those that wait
 * there, and those that are on their way there meanwhile, are not missed, and none comes twice. */
bool persistent_is_followed(const struct connection *connection, struct mqtt_slice filter);

/* 0, and *place for the answer; else the error for it. Shared subscriptions are remembered, not followed. */
int persistent_subscribe(struct connection *connection, struct mqtt_slice filter, const struct router_subscription *how, uint64_t *place);
void persistent_unsubscribe(struct connection *connection, struct mqtt_slice filter, uint64_t *place); /* `place` may be NULL */

/* Where its publish comes from; notes its identifier if it has QoS 2. */
int persistent_origin(struct connection *from, const struct mqtt_publish *publish, struct queue_origin *origin);
void persistent_not_taken(struct connection *from, uint16_t packet_id);                 /* it could not be appended */
void persistent_taken(struct connection *connection, uint16_t packet_id);               /* its PUBREC leaves */
void persistent_release(struct connection *connection, const struct mqtt_event *event); /* PUBREL: makes the PUBCOMP */

/* Holds back what was put into `out` behind `mark`, until `place` is durable. */
void persistent_hold_back(struct connection *connection, size_t mark, uint64_t place);

/* ---- the loop's ---- */

void persistent_turn(struct connection *connection);                       /* after it was sent something, or has answered: grants room */
uint64_t persistent_check(struct connection *connection, uint64_t now_ns); /* notes how far it has come; when to look again */
bool persistent_sweep(struct loop *loop);                                  /* ends sessions whose time is over; whether there were any */
void persistent_durable(struct loop *loop);                                /* lets go what waited for the disk */
void persistent_wake(struct bus *bus);                                     /* any thread: loops that wait for sessions look again */

/* ---- the bus's ---- */

int persistent_start(struct bus *bus);     /* before the loops */
int persistent_follow(struct bus *bus);    /* when the loops can get mail */
void persistent_unfollow(struct bus *bus); /* when they have ended */
void persistent_stop(struct bus *bus);

#endif
