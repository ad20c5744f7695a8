/* Packet identifiers, each with a small state: where the QoS 2 exchanges of a session are in their handshake.
 *
 * Peers pick identifiers as they like, so any of them may be in it; most sessions have none, and those that have some have
 * neighbours. So the map is made of pages, which exist while they hold something; an empty map takes no memory, a full one
 * MQTT_ID_MAP_BYTES_MAX. Pure but for malloc. One thread at a time. */
#ifndef MQTT_ID_MAP_H
#define MQTT_ID_MAP_H

#include <stdint.h>

enum {
    MQTT_ID_PAGE_IDS = 2048,
    MQTT_ID_PAGE_COUNT = 65536 / MQTT_ID_PAGE_IDS,
    MQTT_ID_STATE_MAX = 3,
    MQTT_ID_MAP_BYTES_MAX = 65536 / 4 + 1024 /* two bits each, and the table of pages */
};

struct mqtt_id_map {
    struct mqtt_id_pages *pages; /* NULL until something is put in */
    uint32_t count;              /* identifiers whose state is not 0 */
};

/* 0 for an identifier that is not in the map. */
unsigned mqtt_id_map_get(const struct mqtt_id_map *map, uint16_t id);

/* `state`: 1 .. MQTT_ID_STATE_MAX, or 0 to remove it. ERR_NO_MEMORY only where an identifier is new; nothing changes then. */
int mqtt_id_map_put(struct mqtt_id_map *map, uint16_t id, unsigned state);

/* The next identifier in the map behind `id` (0: from the beginning), in order of number; 0 at the end. */
uint16_t mqtt_id_map_next(const struct mqtt_id_map *map, uint16_t id);

/* Frees what it holds; it is empty then. All zero is an empty map. */
void mqtt_id_map_fini(struct mqtt_id_map *map);

#endif
