/* One side of an MQTT session as a state machine: the server's, or the client's. Pure: bytes and time in, events out; no socket, no clock,
 * no allocation but for what QoS 2 and topic aliases have to remember. Both sides exchange messages by the same rules, which follow here;
 * how a client connects, and what only it receives, is in mqtt/session_client.h.
 *
 * The owner feeds what it has read and acts on each event; the machine keeps the rules of order, identifiers, flow control
 * and keep alive. What a peer does wrong becomes MQTT_EVENT_ERROR with the reason to send, after which nothing more is
 * accepted.
 *
 * A message that we receive. What the owner does, and by which name the state of its identifier goes (enum mqtt_inbound):
 *
 *   QoS 1   PUBLISH: take it; PUBACK when it is durable, mqtt_session_acknowledged.
 *   QoS 2   PUBLISH: take it                                              RECEIVED
 *           PUBREC when it is durable, mqtt_session_recorded              RECORDED
 *           PUBREL: send PUBCOMP                                          NONE
 *           REPEAT: the same identifier while it is RECEIVED or RECORDED, whatever its DUP flag says; it is no new message.
 *
 * A message that we send (enum mqtt_outbound). The rows are what our peer answers; "ignored" is counted and makes no event:
 *
 *                          waits for        PUBACK     PUBREC         PUBREC >= 0x80   PUBCOMP
 *   mqtt_session_take_id   PUBACK (QoS 1)   SETTLED    error          error            error
 *                          PUBREC (QoS 2)   error      send PUBREL    SETTLED          error
 *   PUBREL was sent        PUBCOMP          error      PUBREL again   error            SETTLED
 *   no such identifier                      ignored    PUBREL 0x92    ignored          ignored
 *
 * An error is ERR_PROTOCOL in both versions: the standards have who finds such a thing close the connection ([MQTT-4.8.0-1] of 3.1.1,
 * [MQTT-4.13.1-1] of 5.0), and the peer would never give the awaited answer. To answer what is unknown is forgiven (it may be left from an
 * earlier connection), and so is a PUBREL for an identifier that is not in use: its PUBCOMP has 0x92 in 5.0. */
#ifndef MQTT_SESSION_H
#define MQTT_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mqtt/id_map.h"
#include "mqtt/packet.h"

enum mqtt_role { MQTT_ROLE_SERVER, MQTT_ROLE_CLIENT };

enum mqtt_session_state { MQTT_SESSION_NEW, MQTT_SESSION_ACTIVE, MQTT_SESSION_CLOSED };

enum mqtt_event_type {
    MQTT_EVENT_NEED_MORE, /* the bytes end within a packet */
    MQTT_EVENT_CONNECT,   /* answer with CONNACK, then call mqtt_session_accept, or close */
    MQTT_EVENT_PUBLISH,   /* a new message; or mqtt_session_forget, when it is not taken */
    MQTT_EVENT_REPEAT,    /* a QoS 2 PUBLISH that is here already: send PUBREC if `recorded`, otherwise it is still to come */
    MQTT_EVENT_PUBREL,    /* answer with PUBCOMP and `reason` */
    MQTT_EVENT_PUBREC,    /* answer with PUBREL and `reason` */
    MQTT_EVENT_SETTLED,   /* our peer is done with a message we sent; its identifier is free again */
    MQTT_EVENT_SUBSCRIBE,
    MQTT_EVENT_UNSUBSCRIBE,
    MQTT_EVENT_PING,       /* answer with PINGRESP */
    MQTT_EVENT_DISCONNECT, /* the peer leaves in order */
    MQTT_EVENT_ERROR,      /* protocol violated: `error` says how; mqtt_session_refuse and close */

    /* of a client only */
    MQTT_EVENT_CONNACK,  /* with a reason other than 0 the server has refused, and the session is closed */
    MQTT_EVENT_SUBACK,   /* and UNSUBACK */
    MQTT_EVENT_UNSUBACK, /* without codes in 3.1.1 */
    MQTT_EVENT_PONG      /* the answer to a ping */
};

struct mqtt_event {
    enum mqtt_event_type type;
    int error;      /* MQTT_EVENT_ERROR: a value of base/error.h, class PEER */
    size_t needed;  /* MQTT_EVENT_NEED_MORE: total size of the unfinished packet, 0 while unknown */
    uint8_t reason; /* MQTT_EVENT_PUBREL, _PUBREC: of the answer; 0x92 when nothing is known by the identifier (told in MQTT 5) */
    bool recorded;  /* MQTT_EVENT_REPEAT */
    union {
        struct mqtt_connect connect;
        struct mqtt_publish publish;     /* and REPEAT */
        struct mqtt_ack ack;             /* PUBREL, PUBREC, SETTLED */
        struct mqtt_subscribe subscribe; /* and UNSUBSCRIBE */
        struct mqtt_disconnect disconnect;
        struct mqtt_connack connack;
        struct mqtt_suback suback; /* and UNSUBACK */
    };
};

struct mqtt_session_limits {
    uint32_t packet_size_max; /* bytes, whole packet */
    uint16_t receive_maximum; /* publishes of QoS 1 and 2 a client may have without PUBACK or PUBCOMP; announced in CONNACK (MQTT 5) */
    uint16_t topic_alias_max; /* topic aliases a client may use; announced in CONNACK (MQTT 5) */
    uint8_t qos_max;          /* a higher PUBLISH is ERR_QOS_NOT_SUPPORTED */
    bool retain_available;    /* false: a retained MQTT 5 PUBLISH is ERR_RETAIN_NOT_SUPPORTED; 3.1.1 has no way to say so */
};

/* Where an identifier is in its exchange; see above. */
enum mqtt_inbound { MQTT_INBOUND_NONE, MQTT_INBOUND_RECEIVED, MQTT_INBOUND_RECORDED };
enum mqtt_outbound { MQTT_OUTBOUND_NONE, MQTT_OUTBOUND_WAITS_PUBREC, MQTT_OUTBOUND_WAITS_PUBCOMP, MQTT_OUTBOUND_WAITS_PUBACK };

enum { MQTT_SEND_WINDOW = 4096 }; /* most identifiers from the oldest unacknowledged to the next, whatever the peer would allow */

struct mqtt_session {
    enum mqtt_role role;
    enum mqtt_session_state state;
    bool accepted;   /* by mqtt_session_accept, and ever after */
    uint8_t version; /* 0 until CONNECT; known for a refused CONNECT as well if its protocol name and level were */
    bool no_reasons; /* the peer wants no reason strings (MQTT 5 Request Problem Information) */
    int error;       /* when CLOSED: what every further call reports */
    struct mqtt_session_limits limits;
    uint16_t keep_alive_s;              /* 0: none */
    uint32_t session_expiry_interval_s; /* of CONNECT or DISCONNECT (MQTT 5); 0: the session ends with the connection */
    uint64_t last_packet_ns;
    uint64_t last_sent_ns, ping_sent_ns; /* of a client; ping_sent_ns 0: none is unanswered */
    uint32_t inbound_unacknowledged;     /* publishes received whose PUBACK or PUBREC was not sent yet */
    uint32_t inbound_recorded;           /* those that wait for their PUBREL */
    uint32_t inbound_carried;            /* of these, from an earlier connection: no receive maximum counts them (MQTT 5 section 4.9) */
    struct mqtt_id_map inbound;          /* QoS 2: identifier -> enum mqtt_inbound */
    struct mqtt_id_map outbound;         /* QoS 2: identifier -> enum mqtt_outbound; its bit in `outstanding` is set too */
    uint16_t send_maximum;               /* min(peer's receive maximum, MQTT_SEND_WINDOW) */
    uint32_t outbound_unacknowledged;
    uint32_t outbound_unsent;    /* the owner's: of these, what was carried over and not sent on this connection yet; it takes no room */
    struct mqtt_slice *aliases;  /* [limits.topic_alias_max] topics that the peer has given aliases, owned; NULL: none yet */
    uint64_t unexpected_answers; /* that answered nothing; they were ignored */
    uint16_t oldest_packet_id;   /* identifiers are handed out in turn, 1..65535; the window starts here */
    uint16_t oldest_bit;         /* the place of oldest_packet_id in `outstanding` */
    uint16_t next_packet_id;
    uint32_t peer_packet_size_max;               /* MQTT 5 Maximum Packet Size of the peer; UINT32_MAX when it set none */
    uint64_t outstanding[MQTT_SEND_WINDOW / 64]; /* ring: bit oldest_bit + i: identifier oldest_packet_id + i is in use */
};

void mqtt_session_init(struct mqtt_session *session, const struct mqtt_session_limits *limits, uint64_t now_ns);
void mqtt_session_fini(struct mqtt_session *session);

/* Takes the next packet from `bytes`. *consumed gets the bytes it took. The event borrows from `bytes`, and a topic that was
 * given by its alias from the session. Call again with what is
 * left until NEED_MORE, DISCONNECT or ERROR. PUBLISH is the fast path: only event->type and the member of that type are written.
 *
 * An answer under an identifier that is not in use is skipped without an event, so *consumed may be above 0 with NEED_MORE and
 * ERROR too: the owner always drops *consumed bytes. Behind a CONNECT nothing is taken before mqtt_session_accept; the owner calls again
 * then.
 *
 * Errors: those of the decoders, and
 *   ERR_PROTOCOL              first packet not CONNECT, second CONNECT, AUTH, a packet only a server sends, an answer that does not
 *                             belong to the message, PUBREL before PUBREC, anything behind DISCONNECT, session expiry set by
 *                             DISCONNECT after 0 in CONNECT
 *   ERR_PACKET_TOO_LARGE      above limits.packet_size_max, known before the body has arrived
 *   ERR_QOS_NOT_SUPPORTED     above limits.qos_max
 *   ERR_RETAIN_NOT_SUPPORTED  MQTT 5 only
 *   ERR_RECEIVE_MAXIMUM       a server, MQTT 5 only: more publishes of QoS 1 and 2 without PUBACK or PUBCOMP than announced
 *   ERR_NO_MEMORY             (not class PEER) for what QoS 2 and topic aliases have to remember
 *   ERR_TOPIC_ALIAS           above limits.topic_alias_max
 *   ERR_AUTHENTICATION_METHOD CONNECT with an authentication method */
void mqtt_session_next(struct mqtt_session *session, const uint8_t *bytes, size_t length, uint64_t now_ns, size_t *consumed,
                       struct mqtt_event *event);

/* The CONNECT that was just taken will be offered again: its bytes were not dropped. */
void mqtt_session_postpone(struct mqtt_session *session);

/* The reason string that goes with a code, or NULL when the peer is to get none; `text` in place of what the code says, if not NULL. */
static inline const char *mqtt_session_reason(const struct mqtt_session *session, uint8_t reason, const char *text)
{
    return session->no_reasons ? NULL : text ? text : mqtt_reason_text(reason);
}

/* After MQTT_EVENT_CONNECT was answered with success, in state NEW. keep_alive_s: what was agreed (server keep alive wins in MQTT 5). */
void mqtt_session_accept(struct mqtt_session *session, uint16_t keep_alive_s);

/* Appends what a peer is told before its connection is closed for `error`; often nothing. Before mqtt_session_accept that is a CONNACK: in
 * 5.0 always (section 4.13.2 allows it), in 3.1.1 for an identifier that is refused ([MQTT-3.1.3-8]) and for what is no fault of the peer;
 * any other CONNECT that does not conform is met with silence there ([MQTT-3.1.4-1]). A version that is not known is answered in the form
 * of 3.1.1 ([MQTT-3.1.2-2]). Afterwards it is a DISCONNECT in 5.0; in 3.1.1 only clients send one. 0, ERR_LIMIT or ERR_NO_MEMORY. */
int mqtt_session_refuse(const struct mqtt_session *session, int error, struct buffer *out);

/* One PUBACK was sent for a received QoS 1 publish. */
static inline void mqtt_session_acknowledged(struct mqtt_session *session)
{
    session->inbound_unacknowledged--;
}

/* PUBREC was sent for a received QoS 2 publish. */
void mqtt_session_recorded(struct mqtt_session *session, uint16_t id);

/* What came as REPEAT of a recorded message is known to be another one: it is taken as new. */
void mqtt_session_reused(struct mqtt_session *session, uint16_t id);

/* A publish is as good as never received: it will be offered again, or was refused by a PUBACK or PUBREC of 0x80 and above. */
void mqtt_session_forget(struct mqtt_session *session, const struct mqtt_publish *publish);

/* The identifier for the next message of QoS 1 or 2 to send, now in use; 0 when the window is full, or for lack of memory (QoS 2): the
 * owner queues. */
uint16_t mqtt_session_take_id(struct mqtt_session *session, unsigned qos);

/* For a server who has kept the session of an earlier connection, before anything is sent: what was sent and
 * not answered, in the order of sending; `received`: its PUBREC has come. The window may be larger than what the peer takes at a time: it
 * is the owner who sends no more again than that. ERR_INVALID (it does not fit into the window, or is out of its order), ERR_NO_MEMORY:
 * nothing has changed. */
int mqtt_session_carry_sent(struct mqtt_session *session, uint16_t id, unsigned qos, bool received);

/* And then: the next identifier handed out is this one, if it lies behind those and within the window; the last of that at most. */
void mqtt_session_skip_to(struct mqtt_session *session, uint16_t id);

/* The same for the identifier of a QoS 2 message that was received and recorded. ERR_NO_MEMORY. */
int mqtt_session_carry_recorded(struct mqtt_session *session, uint16_t id);

/* Gives up waiting for an answer: the identifier is free again. */
void mqtt_session_give_up(struct mqtt_session *session, uint16_t id);

/* Where identifiers are in their exchanges. QoS 1 publishes that we have received are counted, but not known by identifier. All that are in
 * use: mqtt_id_map_next over `inbound`; from oldest_packet_id on to next_packet_id. */
enum mqtt_inbound mqtt_session_inbound(const struct mqtt_session *session, uint16_t id);
enum mqtt_outbound mqtt_session_outbound(const struct mqtt_session *session, uint16_t id);

/* When the peer must have been heard again (a client: 1.5 x keep alive after its last packet; a server: keep alive after the ping that it
 * has not answered; within 10 s for CONNECT and CONNACK): monotonic ns; UINT64_MAX for never (no keep alive, or closed). */
uint64_t mqtt_session_deadline_ns(const struct mqtt_session *session);

#endif
