/* Growing, filling and emptying of the pointer table. */
#include "base/table.h"

#include <stdlib.h>

#include "base/error.h"

int table_reserve(struct table *table, size_t bytes_max)
{
    size_t slot_count = table->slots ? table->mask + 1 : 0;
    if ((table->count + 1) * 4 <= slot_count * 3)
        return 0;
    size_t wanted = slot_count ? slot_count * 2 : TABLE_FIRST_SLOTS;
    if (wanted > bytes_max / sizeof *table->slots)
        return ERR_LIMIT;
    struct table grown = {.slots = calloc(wanted, sizeof *table->slots), .mask = wanted - 1};
    if (!grown.slots)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < slot_count; i++)
        if (table->slots[i].item)
            table_insert(&grown, table->slots[i].hash, table->slots[i].item);
    free(table->slots);
    *table = grown;
    return 0;
}

void table_insert(struct table *table, uint64_t hash, void *item)
{
    size_t i = hash & table->mask;
    while (table->slots[i].item)
        i = (i + 1) & table->mask;
    table->slots[i] = (struct table_slot){hash, item};
    table->count++;
}

/* Moves later items of the same run back into the gap, so that no markers are left behind. */
static void close_gap(struct table *table, size_t gap)
{
    for (size_t i = (gap + 1) & table->mask; table->slots[i].item; i = (i + 1) & table->mask) {
        size_t home = table->slots[i].hash & table->mask;
        if (((i - home) & table->mask) < ((i - gap) & table->mask))
            continue; /* the gap lies before its home */
        table->slots[gap] = table->slots[i];
        gap = i;
    }
    table->slots[gap] = (struct table_slot){0};
}

void table_remove(struct table *table, uint64_t hash, const void *item)
{
    size_t i = hash & table->mask;
    while (table->slots[i].item != item)
        i = (i + 1) & table->mask;
    close_gap(table, i);
    table->count--;
}

void table_fini(struct table *table)
{
    free(table->slots);
    *table = (struct table){0};
}
