/* The server's side of one MQTT session as a state machine. Pure: bytes and time in, events out; no socket, no clock,
 * no allocation after mqtt_session_init.
 *
 * The owner feeds what it has read and acts on each event; the machine keeps the rules of order, identifiers, flow control
 * and keep alive. What a peer does wrong becomes MQTT_EVENT_ERROR with the reason to send, after which nothing more is
 * accepted. */
#ifndef MQTT_SESSION_H
#define MQTT_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mqtt/packet.h"

enum mqtt_session_state { MQTT_SESSION_NEW, MQTT_SESSION_ACTIVE, MQTT_SESSION_CLOSED };

enum mqtt_event_type {
    MQTT_EVENT_NEED_MORE, /* the bytes end within a packet */
    MQTT_EVENT_CONNECT,   /* answer with CONNACK, then call mqtt_session_accept, or close */
    MQTT_EVENT_PUBLISH,   /* QoS 1: call mqtt_session_acknowledged when the PUBACK is sent */
    MQTT_EVENT_PUBACK,    /* of a message we sent; the identifier was outstanding and is free again */
    MQTT_EVENT_SUBSCRIBE,
    MQTT_EVENT_UNSUBSCRIBE,
    MQTT_EVENT_PING,       /* answer with PINGRESP */
    MQTT_EVENT_DISCONNECT, /* the client leaves in order */
    MQTT_EVENT_ERROR       /* protocol violated: `error` says how; send error_mqtt_reason() and close */
};

struct mqtt_event {
    enum mqtt_event_type type;
    int error;     /* MQTT_EVENT_ERROR: a value of base/error.h, class PEER */
    size_t needed; /* MQTT_EVENT_NEED_MORE: total size of the unfinished packet, 0 while unknown */
    union {
        struct mqtt_connect connect;
        struct mqtt_publish publish;
        struct mqtt_ack ack;
        struct mqtt_subscribe subscribe; /* and UNSUBSCRIBE */
        struct mqtt_disconnect disconnect;
    };
};

struct mqtt_session_limits {
    uint32_t packet_size_max; /* bytes, whole packet */
    uint16_t receive_maximum; /* unacknowledged QoS 1 publishes a client may have; announced in CONNACK (MQTT 5) */
    uint8_t qos_max;          /* 1 in this version; a higher PUBLISH is ERR_QOS_NOT_SUPPORTED */
    bool retain_available;    /* false: a retained MQTT 5 PUBLISH is ERR_RETAIN_NOT_SUPPORTED; 3.1.1 has no way to say so */
};

enum { MQTT_SEND_WINDOW = 4096 }; /* most identifiers from the oldest unacknowledged to the next, whatever the peer would allow */

struct mqtt_session {
    enum mqtt_session_state state;
    uint8_t version; /* 0 until CONNECT; known for a refused CONNECT as well if its protocol name and level were */
    int error;       /* when CLOSED: what every further call reports */
    struct mqtt_session_limits limits;
    uint16_t keep_alive_s;              /* 0: none */
    uint32_t session_expiry_interval_s; /* of CONNECT (MQTT 5); 0: the session ends with the connection */
    uint64_t last_packet_ns;
    uint32_t inbound_unacknowledged; /* QoS 1 publishes received and not yet acknowledged */
    uint16_t send_maximum;           /* min(peer's receive maximum, MQTT_SEND_WINDOW) */
    uint32_t outbound_unacknowledged;
    uint64_t unexpected_pubacks; /* PUBACKs that answered nothing; they were ignored */
    uint16_t oldest_packet_id;   /* identifiers are handed out in turn, 1..65535; the window starts here */
    uint16_t oldest_bit;         /* the place of oldest_packet_id in `outstanding` */
    uint16_t next_packet_id;
    uint32_t peer_packet_size_max;               /* MQTT 5 Maximum Packet Size of the peer; UINT32_MAX when it set none */
    uint64_t outstanding[MQTT_SEND_WINDOW / 64]; /* ring: bit oldest_bit + i: identifier oldest_packet_id + i waits for its PUBACK */
};

void mqtt_session_init(struct mqtt_session *session, const struct mqtt_session_limits *limits, uint64_t now_ns);

/* Takes the next packet from `bytes`. *consumed gets the bytes it took. The event borrows from `bytes`. Call again with what is
 * left until NEED_MORE, DISCONNECT or ERROR. PUBLISH is the fast path: only event->type and the member of that type are written.
 *
 * A PUBACK for an identifier that is not outstanding is skipped without an event, so *consumed may be above 0 with NEED_MORE and
 * ERROR too: the owner always drops *consumed bytes. Behind a CONNECT nothing is taken before mqtt_session_accept; the owner calls again
 * then.
 *
 * Errors: those of the decoders, and
 *   ERR_PROTOCOL              first packet not CONNECT, second CONNECT, a packet only a server sends, PUBREC/PUBREL/PUBCOMP, anything
 *                             behind DISCONNECT, session expiry set by DISCONNECT after 0 in CONNECT
 *   ERR_PACKET_TOO_LARGE      above limits.packet_size_max, known before the body has arrived
 *   ERR_QOS_NOT_SUPPORTED     above limits.qos_max
 *   ERR_RETAIN_NOT_SUPPORTED  MQTT 5 only
 *   ERR_RECEIVE_MAXIMUM       MQTT 5 only: more unacknowledged QoS 1 publishes than announced
 *   ERR_TOPIC_ALIAS           any alias: the server announces a maximum of 0
 *   ERR_AUTHENTICATION_METHOD CONNECT with an authentication method, AUTH */
void mqtt_session_next(struct mqtt_session *session, const uint8_t *bytes, size_t length, uint64_t now_ns, size_t *consumed,
                       struct mqtt_event *event);

/* After MQTT_EVENT_CONNECT was answered with success, in state NEW. keep_alive_s: what was agreed (server keep alive wins in MQTT 5). */
void mqtt_session_accept(struct mqtt_session *session, uint16_t keep_alive_s);

/* One PUBACK was sent for a received QoS 1 publish. */
static inline void mqtt_session_acknowledged(struct mqtt_session *session)
{
    session->inbound_unacknowledged--;
}

/* The identifier for the next QoS 1 message to send, now outstanding; 0 when the window is full (the owner queues). */
uint16_t mqtt_session_take_id(struct mqtt_session *session);

/* When the peer must have been heard again (1.5 x keep alive after the last packet; within 10 s for CONNECT): monotonic ns;
 * UINT64_MAX for never (no keep alive, or closed). */
uint64_t mqtt_session_deadline_ns(const struct mqtt_session *session);

#endif
