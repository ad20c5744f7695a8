/* MQTT packets, 3.1.1 and 5.0: bytes to structs and back. Pure: no I/O, no clock, no allocation in the decoders.
 *
 * Decoded structs borrow from the input bytes. Every decoder validates all that the standards demand of the packet by
 * itself (lengths, reserved bits, UTF-8, property sets, topic names), so what follows need not look again. */
#ifndef MQTT_PACKET_H
#define MQTT_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

enum mqtt_version { MQTT_VERSION_3_1_1 = 4, MQTT_VERSION_5_0 = 5 };

enum mqtt_packet_type {
    MQTT_CONNECT = 1,
    MQTT_CONNACK,
    MQTT_PUBLISH,
    MQTT_PUBACK,
    MQTT_PUBREC,
    MQTT_PUBREL,
    MQTT_PUBCOMP,
    MQTT_SUBSCRIBE,
    MQTT_SUBACK,
    MQTT_UNSUBSCRIBE,
    MQTT_UNSUBACK,
    MQTT_PINGREQ,
    MQTT_PINGRESP,
    MQTT_DISCONNECT,
    MQTT_AUTH
};

enum { MQTT_REMAINING_LENGTH_MAX = 268435455, MQTT_FIXED_HEADER_MAX = 5 };

struct mqtt_slice {
    const uint8_t *data; /* borrowed; may be NULL when length is 0 */
    uint32_t length;
};

/* ---- framing ---- */

struct mqtt_frame {
    uint8_t type;         /* enum mqtt_packet_type */
    uint8_t flags;        /* low four bits of byte 1 */
    uint32_t header_size; /* 2..5 */
    uint32_t total_size;  /* header_size + remaining length */
    const uint8_t *body;  /* behind the fixed header */
    uint32_t body_size;
};

/* Reads the fixed header of the packet that starts at `bytes`. Returns
 *   0                    the whole packet lies within `length`; *frame is filled
 *   ERR_TRUNCATED        more bytes are needed; frame->total_size is set when the header is complete, else 0; what the rest of
 *                        *frame holds is undefined
 *   ERR_MALFORMED_PACKET type 0, reserved flags wrong, remaining length of more than four bytes
 *   ERR_PACKET_TOO_LARGE total size above packet_size_max (known before the body has arrived) */
int mqtt_frame_decode(const uint8_t *bytes, size_t length, uint32_t packet_size_max, struct mqtt_frame *frame);

/* Whether the remaining length took no more bytes than it needs: demanded by 5.0 ([MQTT-1.5.5-1]), not by 3.1.1 (section 2.2.3). */
static inline bool mqtt_frame_is_shortest(const struct mqtt_frame *frame)
{
    return frame->header_size == 2 || frame->body_size >> 7 * (frame->header_size - 2);
}

/* ---- properties (MQTT 5 section 2.2.2) ---- */

/* All properties a packet can carry, decoded. `present` has bit (1 << identifier) for identifiers below 64. User properties
 * and, in a PUBLISH from a server, subscription identifiers may repeat: walk the former with mqtt_properties_next_user on `raw`.
 * A property that is absent has the value by which the standard says what its absence means: receive_maximum 65535,
 * maximum_packet_size UINT32_MAX (no limit), maximum_qos 2, every *_available 1, request_problem_information 1, the rest 0. */
struct mqtt_properties {
    struct mqtt_slice raw; /* the property bytes without their length */
    uint64_t present;
    uint8_t payload_format;
    uint8_t request_problem_information;
    uint8_t request_response_information;
    uint8_t maximum_qos;
    uint8_t retain_available;
    uint8_t wildcard_subscription_available;
    uint8_t subscription_identifier_available;
    uint8_t shared_subscription_available;
    uint16_t server_keep_alive;
    uint16_t receive_maximum;
    uint16_t topic_alias_maximum;
    uint16_t topic_alias;
    uint32_t message_expiry_interval;
    uint32_t subscription_identifier; /* first one */
    uint32_t session_expiry_interval;
    uint32_t will_delay_interval;
    uint32_t maximum_packet_size;
    struct mqtt_slice content_type, response_topic, correlation_data, assigned_client_identifier, authentication_method,
        authentication_data, response_information, server_reference, reason_string;
};

enum mqtt_property {
    MQTT_PROPERTY_PAYLOAD_FORMAT = 0x01,
    MQTT_PROPERTY_MESSAGE_EXPIRY = 0x02,
    MQTT_PROPERTY_CONTENT_TYPE = 0x03,
    MQTT_PROPERTY_RESPONSE_TOPIC = 0x08,
    MQTT_PROPERTY_CORRELATION_DATA = 0x09,
    MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER = 0x0b,
    MQTT_PROPERTY_SESSION_EXPIRY = 0x11,
    MQTT_PROPERTY_ASSIGNED_CLIENT_IDENTIFIER = 0x12,
    MQTT_PROPERTY_SERVER_KEEP_ALIVE = 0x13,
    MQTT_PROPERTY_AUTHENTICATION_METHOD = 0x15,
    MQTT_PROPERTY_AUTHENTICATION_DATA = 0x16,
    MQTT_PROPERTY_REQUEST_PROBLEM_INFORMATION = 0x17,
    MQTT_PROPERTY_WILL_DELAY = 0x18,
    MQTT_PROPERTY_REQUEST_RESPONSE_INFORMATION = 0x19,
    MQTT_PROPERTY_RESPONSE_INFORMATION = 0x1a,
    MQTT_PROPERTY_SERVER_REFERENCE = 0x1c,
    MQTT_PROPERTY_REASON_STRING = 0x1f,
    MQTT_PROPERTY_RECEIVE_MAXIMUM = 0x21,
    MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM = 0x22,
    MQTT_PROPERTY_TOPIC_ALIAS = 0x23,
    MQTT_PROPERTY_MAXIMUM_QOS = 0x24,
    MQTT_PROPERTY_RETAIN_AVAILABLE = 0x25,
    MQTT_PROPERTY_USER = 0x26,
    MQTT_PROPERTY_MAXIMUM_PACKET_SIZE = 0x27,
    MQTT_PROPERTY_WILDCARD_AVAILABLE = 0x28,
    MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29,
    MQTT_PROPERTY_SHARED_AVAILABLE = 0x2a
};

/* All properties of one set without its length, such as the properties_raw of a PUBLISH. `type` says which may occur. Returns 0,
 * ERR_MALFORMED_PACKET (unknown identifier, not of this packet, cut, bad UTF-8), ERR_PROTOCOL (repeated, forbidden value),
 * ERR_TOPIC_NAME (response topic) or ERR_TOPIC_ALIAS (0). */
int mqtt_properties_decode(struct mqtt_slice raw, enum mqtt_packet_type type, struct mqtt_properties *out);

/* Walks the user properties of `raw`: *position starts at 0. Returns false at the end; bytes that no decoder has validated end
 * the walk where they stop making sense. */
bool mqtt_properties_next_user(struct mqtt_slice raw, uint32_t *position, struct mqtt_slice *name, struct mqtt_slice *value);

/* Whether `raw` holds a message expiry interval; *interval_s gets it and *at where its four bytes lie in raw. */
bool mqtt_properties_expiry(struct mqtt_slice raw, uint32_t *interval_s, uint32_t *at);

/* Appends the properties of `raw` to `out` as they are, but for those of one identifier. 0, ERR_LIMIT or ERR_NO_MEMORY. */
int mqtt_properties_without(struct mqtt_slice raw, enum mqtt_property property, struct buffer *out);

/* ---- packets ---- */

struct mqtt_connect {
    uint8_t version; /* 4 or 5 */
    bool clean_start;
    bool will, will_retain;
    uint8_t will_qos;
    bool has_username, has_password;
    uint16_t keep_alive_s;
    struct mqtt_slice client_id, will_topic, will_payload, username, password;
    struct mqtt_properties properties, will_properties;
};

struct mqtt_publish {
    bool dup, retain;
    uint8_t qos;
    uint16_t packet_id; /* 0 for QoS 0 */
    struct mqtt_slice topic, payload;
    struct mqtt_slice properties_raw; /* MQTT 5 property bytes without their length; empty for 3.1.1 */
    uint16_t topic_alias;             /* 0: none */
    uint32_t message_expiry_interval; /* seconds; valid when has_message_expiry */
    uint32_t message_expiry_at;       /* where its four bytes lie in properties_raw */
    bool has_message_expiry;
    bool has_subscription_identifier; /* one or more; only a server sends them */
};

struct mqtt_ack { /* PUBACK, PUBREC, PUBREL, PUBCOMP */
    uint16_t packet_id;
    uint8_t reason; /* 0 when the short form leaves it out, and in 3.1.1 */
};

struct mqtt_subscription {
    struct mqtt_slice filter; /* valid as a topic filter */
    uint8_t qos;
    bool no_local, retain_as_published;
    uint8_t retain_handling;
};

/* SUBSCRIBE and UNSUBSCRIBE: the entries are walked, not stored. The decoder has validated every one of them. */
struct mqtt_subscribe {
    uint16_t packet_id;
    struct mqtt_properties properties;
    struct mqtt_slice entries;
    uint32_t entry_count; /* at least 1 */
};

struct mqtt_disconnect {
    uint8_t reason;
    struct mqtt_properties properties;
};

struct mqtt_auth {
    uint8_t reason;
    struct mqtt_properties properties;
};

struct mqtt_suback { /* and UNSUBACK */
    uint16_t packet_id;
    struct mqtt_slice codes; /* a byte for each entry of the request; none in an UNSUBACK of 3.1.1 */
};

struct mqtt_connack {
    bool session_present;
    uint8_t reason; /* MQTT 5 reason code, or 3.1.1 return code as received */
    struct mqtt_properties properties;
};

/* Decoders of one frame of the type in their name. Returns 0 or
 *   ERR_MALFORMED_PACKET   cannot be parsed: cut, bytes left over, reserved bits, bad UTF-8, a property that is not of this packet
 *   ERR_PROTOCOL           parsed, but forbidden: a property twice, packet identifier 0, an unknown reason code, no entry in a
 *                          SUBSCRIBE, neither topic nor alias, a password without user name in 3.1.1
 *   ERR_PROTOCOL_VERSION   CONNECT: unknown protocol name or level; CONNACK: the server knows only an older version
 *   ERR_CLIENT_ID          CONNECT of 3.1.1 with empty identifier and clean session 0
 *   ERR_TOPIC_NAME         PUBLISH topic, will topic or response topic with a wildcard, empty or of too many levels
 *   ERR_TOPIC_FILTER       misplaced wildcard, empty filter, too many levels, bad "$share/"
 *   ERR_TOPIC_ALIAS        PUBLISH with topic alias 0
 * *out is untouched on failure.
 *
 * A PUBLISH with an alias may have an empty topic: the session decides about aliases. */
int mqtt_connect_decode(const struct mqtt_frame *frame, struct mqtt_connect *out);
int mqtt_connack_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_connack *out);
int mqtt_publish_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_publish *out);
int mqtt_ack_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_ack *out);
int mqtt_subscribe_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_subscribe *out);
int mqtt_unsubscribe_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_subscribe *out);
int mqtt_disconnect_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_disconnect *out);
int mqtt_auth_decode(const struct mqtt_frame *frame, uint8_t version, struct mqtt_auth *out);
/* PINGREQ, PINGRESP: an empty body. */
int mqtt_empty_decode(const struct mqtt_frame *frame);

/* The next entry of a decoded SUBSCRIBE (UNSUBSCRIBE: only filter is set). *position starts at 0; false at the end. */
bool mqtt_subscribe_next(const struct mqtt_subscribe *subscribe, bool unsubscribe, uint32_t *position, struct mqtt_subscription *out);

/* SUBACK / UNSUBACK as a client reads them: reason codes are the bytes of *codes (none in an UNSUBACK of 3.1.1). */
int mqtt_suback_decode(const struct mqtt_frame *frame, uint8_t version, uint16_t *packet_id, struct mqtt_slice *codes);

/* ---- encoders: append to `out`; 0, ERR_LIMIT or ERR_NO_MEMORY; `out` is unchanged on failure ---- */

int mqtt_connect_encode(struct buffer *out, const struct mqtt_connect *connect); /* properties.raw is written as it is */
/* In 3.1.1 a reason of 0x80 and above becomes the nearest of its five return codes, and properties are not written. */
int mqtt_connack_encode(struct buffer *out, uint8_t version, bool session_present, uint8_t reason, struct mqtt_slice properties);
int mqtt_ack_encode(struct buffer *out, uint8_t version, enum mqtt_packet_type type, uint16_t packet_id, uint8_t reason);
int mqtt_subscribe_encode(struct buffer *out, uint8_t version, uint16_t packet_id, const struct mqtt_subscription *entries, size_t count);
int mqtt_unsubscribe_encode(struct buffer *out, uint8_t version, uint16_t packet_id, const struct mqtt_slice *filters, size_t count);
/* In 3.1.1 every refusal of a SUBACK is 0x80, and an UNSUBACK carries no codes. */
int mqtt_suback_encode(struct buffer *out, uint8_t version, uint16_t packet_id, const uint8_t *codes, size_t count);
/* Bytes of a SUBACK, or of an UNSUBACK of MQTT 5, with `count` codes and no properties. */
size_t mqtt_suback_size(uint8_t version, size_t count);
int mqtt_unsuback_encode(struct buffer *out, uint8_t version, uint16_t packet_id, const uint8_t *codes, size_t count);
int mqtt_empty_encode(struct buffer *out, enum mqtt_packet_type type); /* PINGREQ, PINGRESP */
/* In 3.1.1 only a client sends DISCONNECT, without a reason. */
int mqtt_disconnect_encode(struct buffer *out, uint8_t version, uint8_t reason);

/* A reason code in a few words; never NULL. */
const char *mqtt_reason_text(uint8_t reason);

/* MQTT 5 only: a CONNACK, PUBACK, PUBREC, SUBACK, UNSUBACK or DISCONNECT with its reason codes (one, but for SUBACK and UNSUBACK) and
 * `text` (NULL: none) as reason string, which is left out where the packet would be larger than packet_size_max with it. ERR_LIMIT as well
 * when it is larger without. packet_id: 0 where the type has none. */
int mqtt_refusal_encode(struct buffer *out, enum mqtt_packet_type type, uint16_t packet_id, const uint8_t *codes, size_t count,
                        const char *text, uint32_t packet_size_max);

/* Bytes that mqtt_publish_encode will append. */
size_t mqtt_publish_size(uint8_t version, const struct mqtt_publish *publish);

/* Fields used: dup, retain, qos, packet_id, topic, payload and (MQTT 5) properties_raw, written as it is. The position of the
 * packet identifier within `out` (absolute) goes to *packet_id_position when that is not NULL and qos > 0. */
int mqtt_publish_encode(struct buffer *out, uint8_t version, const struct mqtt_publish *publish, size_t *packet_id_position);

/* Property writers for CONNECT, CONNACK, PUBLISH and so on: append identifier and value. The property must be of the writer's
 * type; mqtt_property_text serves text and binary, mqtt_property_u32 also the subscription identifier, in its own encoding. */
int mqtt_property_byte(struct buffer *out, enum mqtt_property property, uint8_t value);
int mqtt_property_u16(struct buffer *out, enum mqtt_property property, uint16_t value);
int mqtt_property_u32(struct buffer *out, enum mqtt_property property, uint32_t value);
int mqtt_property_text(struct buffer *out, enum mqtt_property property, struct mqtt_slice value);
int mqtt_property_user(struct buffer *out, struct mqtt_slice name, struct mqtt_slice value);

#endif
