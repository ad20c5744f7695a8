/* Two bits for each identifier of a page; 0 is the state of those that are not there, so a page that has become empty is all
 * zero and can serve as another. One such page is kept: exchanges that begin and end one by one need no allocation. */
#include "mqtt/id_map.h"

#include <assert.h>
#include <stdlib.h>

#include "base/error.h"

struct page {
    uint32_t used; /* identifiers whose state is not 0 */
    uint8_t states[MQTT_ID_PAGE_IDS / 4];
};

struct mqtt_id_pages {
    struct page *of[MQTT_ID_PAGE_COUNT]; /* NULL: none of its identifiers is in the map */
    struct page *spare;                  /* all zero, or NULL */
};

_Static_assert(sizeof(struct mqtt_id_pages) + MQTT_ID_PAGE_COUNT * sizeof(struct page) <= MQTT_ID_MAP_BYTES_MAX, "a full map is larger");

unsigned mqtt_id_map_get(const struct mqtt_id_map *map, uint16_t id)
{
    const struct page *page = map->count ? map->pages->of[id / MQTT_ID_PAGE_IDS] : NULL;
    unsigned place = id % MQTT_ID_PAGE_IDS;
    return page ? (unsigned)page->states[place / 4] >> place % 4 * 2 & 3u : 0;
}

static struct page *page_of(struct mqtt_id_map *map, uint16_t id)
{
    if (!map->pages && !(map->pages = calloc(1, sizeof *map->pages)))
        return NULL;
    struct page **at = &map->pages->of[id / MQTT_ID_PAGE_IDS];
    if (!*at) {
        *at = map->pages->spare ? map->pages->spare : calloc(1, sizeof **at);
        map->pages->spare = NULL;
    }
    return *at;
}

static void remove_page(struct mqtt_id_map *map, uint16_t id)
{
    struct page **at = &map->pages->of[id / MQTT_ID_PAGE_IDS];
    if (map->pages->spare)
        free(*at);
    else
        map->pages->spare = *at;
    *at = NULL;
}

int mqtt_id_map_put(struct mqtt_id_map *map, uint16_t id, unsigned state)
{
    assert(state <= MQTT_ID_STATE_MAX);
    unsigned before = mqtt_id_map_get(map, id);
    if (before == state)
        return 0;
    struct page *page = page_of(map, id);
    if (!page)
        return ERR_NO_MEMORY;
    unsigned place = id % MQTT_ID_PAGE_IDS, shift = place % 4 * 2;
    uint8_t *states = &page->states[place / 4];
    *states = (uint8_t)((*states & ~(3u << shift)) | state << shift);
    if (!before) {
        page->used++;
        map->count++;
    } else if (!state) {
        map->count--;
        if (--page->used == 0)
            remove_page(map, id);
    }
    return 0;
}

uint16_t mqtt_id_map_next(const struct mqtt_id_map *map, uint16_t id)
{
    if (map->count == 0)
        return 0;
    for (uint32_t next = id + 1u; next <= UINT16_MAX; next++) {
        if (!map->pages->of[next / MQTT_ID_PAGE_IDS])
            next |= MQTT_ID_PAGE_IDS - 1;
        else if (mqtt_id_map_get(map, (uint16_t)next))
            return (uint16_t)next;
    }
    return 0;
}

void mqtt_id_map_fini(struct mqtt_id_map *map)
{
    for (unsigned i = 0; map->pages && i < MQTT_ID_PAGE_COUNT; i++)
        free(map->pages->of[i]);
    if (map->pages)
        free(map->pages->spare);
    free(map->pages);
    *map = (struct mqtt_id_map){0};
}
