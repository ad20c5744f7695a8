/* What the files of the session share. Private to them. */
#ifndef MQTT_SESSION_PARTS_H
#define MQTT_SESSION_PARTS_H

#include "mqtt/session.h"

enum { PACKET_ID_COUNT = 65535 };

#define NS_PER_S UINT64_C(1000000000)

/* Identifiers from `from` on to `to`, in the order in which they are handed out. */
static inline uint32_t id_distance(uint16_t from, uint16_t to)
{
    return to >= from ? (uint32_t)to - from : (uint32_t)to + PACKET_ID_COUNT - from;
}

static inline uint16_t id_after(uint16_t id, uint32_t steps)
{
    return (uint16_t)((id - 1u + steps) % PACKET_ID_COUNT + 1);
}

/* Whether packets of this type mean something else, or nothing, to the other side. */
static inline bool session_is_of_one_side(uint8_t type)
{
    return (type < MQTT_PUBLISH || type > MQTT_PUBCOMP) && type != MQTT_DISCONNECT;
}

/* A packet that only a client receives, or that no client does. 0 or an error. */
int session_client_take(struct mqtt_session *session, const struct mqtt_frame *frame, struct mqtt_event *event);

/* A DISCONNECT that was decoded into the event. */
int session_client_disconnect(struct mqtt_session *session, struct mqtt_event *event);

#endif
