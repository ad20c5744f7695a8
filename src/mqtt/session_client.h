/* The client's side of a session (mqtt/session.h has what both sides share).
 *
 *   mqtt_session_init_client                  once
 *   mqtt_session_connect                      for each connection: appends CONNECT
 *   mqtt_session_next                         CONNACK; then what the server sends
 *   mqtt_session_ping_due_ns, _ping           while nothing else is sent
 *   mqtt_session_disconnected                 the connection is gone, for whatever reason
 *
 * A session that the server has kept goes on where it was: identifiers of QoS 2 messages that were received, and of all messages that were
 * sent, keep their state. A server that sends more than the receive maximum is not refused: after a crash some count wrong, and would for
 * ever. The server sends again what we have not answered, which comes out as REPEAT or as a new PUBLISH of QoS 1; what we
 * have sent and it has not answered is the owner's to send again (mqtt_session_outbound says what is missing: a PUBLISH with its DUP flag,
 * or a PUBREL), in the order of the identifiers, before anything new. When the server has kept nothing, nothing is remembered here
 * either. */
#ifndef MQTT_SESSION_CLIENT_H
#define MQTT_SESSION_CLIENT_H

#include "mqtt/session.h"

void mqtt_session_init_client(struct mqtt_session *session, const struct mqtt_session_limits *limits);

/* Begins a connection: appends the CONNECT, with limits.receive_maximum and limits.packet_size_max announced in 5.0 (behind the properties
 * that connect->properties.raw holds; no topic aliases are announced). 0, ERR_LIMIT or ERR_NO_MEMORY; then nothing has changed. */
int mqtt_session_connect(struct mqtt_session *session, const struct mqtt_connect *connect, uint64_t now_ns, struct buffer *out);

/* The connection is gone. What QoS 1 publishes were received on it and not acknowledged will come again. */
void mqtt_session_disconnected(struct mqtt_session *session);

/* When a PINGREQ must be sent, unless something else is before: monotonic ns; UINT64_MAX: never. mqtt_session_sent tells that something
 * was; mqtt_session_ping appends the PINGREQ. */
uint64_t mqtt_session_ping_due_ns(const struct mqtt_session *session);
int mqtt_session_ping(struct mqtt_session *session, uint64_t now_ns, struct buffer *out);
static inline void mqtt_session_sent(struct mqtt_session *session, uint64_t now_ns)
{
    session->last_sent_ns = now_ns;
}

/* An owner who has not read from the connection for a while tells it before he reads again: the answer to a ping may wait there. */
static inline void mqtt_session_heard(struct mqtt_session *session, uint64_t now_ns)
{
    session->last_packet_ns = now_ns;
    if (session->ping_sent_ns)
        session->ping_sent_ns = now_ns;
}

/* For an owner who has kept state across a restart, before mqtt_session_connect.
 * A QoS 2 message under this identifier was received and recorded; its PUBREL is to come. ERR_NO_MEMORY. */
int mqtt_session_restore_recorded(struct mqtt_session *session, uint16_t id);

/* The next identifier handed out will be this one; none may be in use. */
void mqtt_session_start_ids(struct mqtt_session *session, uint16_t id);

/* Leaves out `count` identifiers; false when the window would become larger than it may while others are in use: nothing has changed. */
bool mqtt_session_skip_ids(struct mqtt_session *session, uint64_t count);

/* Nothing that was sent waits for an answer any more, and the next identifier handed out will be this one: for an owner who goes through
 * all that was not answered again. */
void mqtt_session_forget_sent(struct mqtt_session *session, uint16_t id);

/* The QoS 2 message of an identifier in use is known to have been received: what waits for PUBREC waits for PUBCOMP. */
void mqtt_session_restore_received(struct mqtt_session *session, uint16_t id);

#endif
