/* Packets for tests, written the way the standard draws them. */
#ifndef TESTS_MQTT_BYTES_H
#define TESTS_MQTT_BYTES_H

#include <stdint.h>
#include <string.h>

#include "mqtt/packet.h"

/* Pieces of a packet: BYTES("\x00\x04" "MQTT") gives pointer and length without the closing zero. */
#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1

/* The protocol name of a CONNECT. */
#define NAME "\x00\x04MQTT"

static inline struct mqtt_slice slice_of(const char *text)
{
    return (struct mqtt_slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

/* A frame around a body. The flags are those the standard demands; a PUBLISH sets its own. */
static inline struct mqtt_frame frame_of(enum mqtt_packet_type type, const uint8_t *body, size_t body_size)
{
    uint8_t flags = type == MQTT_PUBREL || type == MQTT_SUBSCRIBE || type == MQTT_UNSUBSCRIBE ? 2 : 0;
    return (struct mqtt_frame){.type = (uint8_t)type,
                               .flags = flags,
                               .header_size = 2,
                               .total_size = (uint32_t)body_size + 2,
                               .body = body,
                               .body_size = (uint32_t)body_size};
}

#endif
