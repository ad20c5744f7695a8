/* What a connection with a persistent session remembers. Private to persistent*.c. */
#ifndef BUS_PERSISTENT_PARTS_H
#define BUS_PERSISTENT_PARTS_H

#include "bus/persistent.h"

struct persistent_sent {
    struct session_sent sent;
    bool unsent; /* it was sent on an earlier connection, and not on this one yet */
    bool noted;  /* the session remembers it */
};

/* What was sent on an earlier connection, by its place in the journal: it is not new when the follower comes by. */
struct persistent_known {
    uint64_t offset;
    uint16_t packet_id;
    uint8_t qos, content;
    bool again; /* it is to be sent again */
};

struct persistent_filter { /* the filter's bytes follow */
    struct router_subscription how;
    struct follower_places from;
    uint32_t length;
};

struct persistent {
    struct session *session;
    bool present;                    /* it was there before */
    uint64_t admitted_at;            /* when this place is durable its client may be told that it is let in */
    struct mqtt_session *mqtt;       /* the connection's */
    struct follower_member *member;  /* NULL before persistent_resume */
    uint64_t handed, handed_bytes;   /* by the follower, and received */
    uint64_t granted, granted_bytes; /* to it, counted like these */
    struct follower_places position; /* everything before it was received, or is in `sent` */
    struct follower_places noted;    /* the cursor that the session was told of last */
    uint64_t noted_ns;               /* when; monotonic */
    struct persistent_sent *sent;    /* ring [sent_capacity], a power of two: what is not answered, in order of sending */
    uint32_t sent_first, sent_count, sent_capacity;
    uint32_t unsent;                /* of these */
    uint32_t unsent_copies;         /* of these, where there is a copy */
    uint32_t unnoted;               /* of these, not answered */
    uint32_t completed;             /* QoS 2 messages since the last note of the cursor */
    bool answered;                  /* something was, since then */
    struct persistent_known *known; /* [known_count], in order of content and offset */
    uint32_t known_count;
    bool shared;                                      /* of what was sent on an earlier connection some came by a shared subscription */
    struct buffer filters;                            /* struct persistent_filter: what it had subscribed to; until persistent_resume */
    uint16_t next_id;                                 /* as it was left */
    uint16_t ids_noted_to;                            /* none before it is given again after a kill; 0: it was not noted */
    uint64_t ids_noted_at;                            /* place of that */
    struct buffer held;                               /* answers held back: struct held_head and bytes, each */
    struct connection *holding_before, *holding_next; /* in loop->holding */
    bool holding;
};

int persistent_known_order(const void *one, const void *other); /* as for qsort */
int persistent_reserve_sent(struct persistent *persistent);     /* the next persistent_put_sent does not fail */
int persistent_put_sent(struct persistent *persistent, const struct session_sent *sent, bool unsent, bool noted);
void persistent_all_noted(struct persistent *persistent);
size_t persistent_list_shared(const struct persistent *persistent, struct follower_again *again); /* of these; returns how many */
int persistent_carry_sent(struct connection *connection);    /* puts what is not answered into the MQTT session's window */
int persistent_release_again(struct connection *connection); /* PUBREL of what waits for PUBCOMP */
/* What is not answered, and what is and lies at or behind the position all the same; malloc'd, NULL without memory. */
struct session_sent *persistent_sent_list(const struct persistent *persistent, const struct follower_places *position, size_t *count);
/* Nothing before is to be sent again: in each stream the oldest that is not answered, or how far all was received. */
struct follower_places persistent_cursor(const struct connection *connection);
/* How far all was received, what waits without an identifier not. */
struct follower_places persistent_position(const struct connection *connection);
/* The first that has a copy and was not sent on this connection, of at least one: it is now. */
void persistent_take_copy(struct persistent *persistent, struct session_sent *sent);
/* Sends those again of which there are copies, as far as the client takes them. Whether they are all sent. */
bool persistent_send_copies(struct connection *connection);
void persistent_await(struct loop *loop); /* it waits for something to become durable, or for a session */
void persistent_let_go(struct connection *connection, uint64_t durable);
void persistent_unlist(struct connection *connection);
void persistent_noted(struct loop *loop); /* something was: it goes off with this turn */

#endif
