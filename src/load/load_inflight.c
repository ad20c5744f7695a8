#include "load/load_inflight.h"

#include <stdlib.h>

#include "base/error.h"

static void fill_ring(struct load_inflight *inflight)
{
    for (uint32_t i = 0; i < inflight->size; i++)
        inflight->free_ids[i] = (uint16_t)(i + 1);
    inflight->free_head = 0;
    inflight->free_count = inflight->size;
}

int load_inflight_init(struct load_inflight *inflight, uint32_t size)
{
    if (size == 0 || size > LOAD_INFLIGHT_MAX)
        return ERR_INVALID;
    struct load_inflight new = {.size = size};
    new.entries = calloc((size_t)size + 1, sizeof *new.entries);
    new.free_ids = calloc(size, sizeof *new.free_ids);
    if (!new.entries || !new.free_ids) {
        load_inflight_fini(&new);
        return ERR_NO_MEMORY;
    }
    fill_ring(&new);
    *inflight = new;
    return 0;
}

void load_inflight_fini(struct load_inflight *inflight)
{
    free(inflight->entries);
    free(inflight->free_ids);
    *inflight = (struct load_inflight){0};
}

static int compare_orders(const void *a, const void *b)
{
    uint64_t left = ((const struct load_inflight_entry *)a)->order, right = ((const struct load_inflight_entry *)b)->order;
    return (left > right) - (left < right);
}

void load_inflight_drain(struct load_inflight *inflight, void (*each)(void *owner, uint32_t tag), void *owner)
{
    uint32_t count = 0;
    for (uint32_t id = 1; id <= inflight->size; id++) {
        if (inflight->entries[id].order)
            inflight->entries[count++] = inflight->entries[id];
    }
    qsort(inflight->entries, count, sizeof *inflight->entries, compare_orders);
    for (uint32_t i = 0; i < count; i++)
        each(owner, inflight->entries[i].tag);
    for (uint32_t id = 0; id <= inflight->size && count; id++)
        inflight->entries[id].order = 0;
    if (count)
        fill_ring(inflight);
}
