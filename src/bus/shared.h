/* A connection as a member of shared subscriptions with QoS 1 and 2 (groups.h). As long as a group is live that is no more than a name in a
 * list; of a durable one it is handed messages from the journal, as far as it has room. */
#ifndef BUS_SHARED_H
#define BUS_SHARED_H

#include "bus/loop.h"
#include "sessions/groups.h"

struct persistent_handed;

/* A subscription to $share/NAME/FILTER has been made, or another one to the same filter has taken its place; or it has ended. Returns 0 or
 * ERR_NO_MEMORY. */
int shared_subscribe(struct connection *connection, struct mqtt_slice filter, const struct router_subscription *how);
void shared_unsubscribe(struct connection *connection, struct mqtt_slice filter);
void shared_leave(struct connection *connection); /* it has ended, or is about to; accepts one that is no member */

/* What was handed to its member of this number. */
void shared_receive(struct connection *to, uint64_t member, const struct mqtt_publish *publish, const struct router_subscription *how,
                    struct group_owed *owed, const struct persistent_handed *handed);

/* A message got its packet identifier: 0 and *place, which QoS 2 of a persistent session has to wait for, else 0; or ERR_LIMIT,
 * ERR_NO_MEMORY. */
int shared_note_sent(struct connection *connection, const struct session_sent *sent, const struct shared_ticket *ticket, uint64_t *place);
void shared_settled(struct connection *connection, uint16_t packet_id);              /* PUBACK; other identifiers are passed over */
void shared_drop(struct connection *connection, const struct shared_ticket *ticket); /* it is not sent at all */

void shared_turn(struct connection *connection); /* after it was sent something, or has answered: grants room */

#endif
