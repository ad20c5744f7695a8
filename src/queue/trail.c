#include "queue/trail.h"

#include <string.h>

void trail_init(struct trail *trail)
{
    trail->count = 0;
    pthread_mutex_init(&trail->lock, NULL);
}

void trail_fini(struct trail *trail)
{
    pthread_mutex_destroy(&trail->lock);
}

/* How many places lie at or before an offset. */
static size_t count_before(const struct trail *trail, uint64_t offset)
{
    size_t low = 0, high = trail->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (trail->places[middle].next_offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_near(const struct reader_place *before, const struct reader_place *behind)
{
    return before->base_offset == behind->base_offset && behind->position < before->position + TRAIL_STEP;
}

void trail_note(struct trail *trail, const struct reader_place *place)
{
    pthread_mutex_lock(&trail->lock);
    size_t at = count_before(trail, place->next_offset);
    bool near = (at && is_near(&trail->places[at - 1], place)) || (at < trail->count && is_near(place, &trail->places[at]));
    bool full = trail->count == TRAIL_MAX;
    if (!near && !(full && at == 0)) {
        struct reader_place *places = trail->places;
        if (full)
            memmove(places, places + 1, --at * sizeof *places);
        else
            memmove(places + at + 1, places + at, (trail->count++ - at) * sizeof *places);
        places[at] = *place;
    }
    pthread_mutex_unlock(&trail->lock);
}

bool trail_find(struct trail *trail, uint64_t offset, struct reader_place *place)
{
    pthread_mutex_lock(&trail->lock);
    size_t before = count_before(trail, offset);
    if (before)
        *place = trail->places[before - 1];
    pthread_mutex_unlock(&trail->lock);
    return before > 0;
}
