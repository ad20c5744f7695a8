/* A ring of places, searched by halves; a small block that grows to the record. */
#include "queue/places.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { BLOCK_BYTES = 64 << 10 }; /* with which the reading of one message begins */

int places_init(struct places *places)
{
    *places = (struct places){.ring = calloc(PLACES_MAX, sizeof *places->ring)};
    pthread_mutex_init(&places->lock, NULL);
    return places->ring ? 0 : ERR_NO_MEMORY;
}

void places_fini(struct places *places)
{
    free(places->ring);
    pthread_mutex_destroy(&places->lock);
}

void places_remember(struct places *places, const struct reader *reader)
{
    struct reader_place place;
    reader_place(reader, &place);
    pthread_mutex_lock(&places->lock);
    const struct reader_place *last = places->count ? &places->ring[(places->next + PLACES_MAX - 1) % PLACES_MAX] : NULL;
    if (!last || last->base_offset != place.base_offset || place.position >= last->position + PLACES_STEP) {
        places->ring[places->next] = place;
        places->next = (places->next + 1) % PLACES_MAX;
        places->count += places->count < PLACES_MAX;
    }
    pthread_mutex_unlock(&places->lock);
}

/* The nearest remembered place at or before an offset; false when there is none. */
static bool find(struct places *places, uint64_t offset, struct reader_place *place)
{
    pthread_mutex_lock(&places->lock);
    size_t oldest = (places->next + PLACES_MAX - places->count) % PLACES_MAX;
    size_t low = 0, high = places->count; /* places before `low` are at or before the offset, those from `high` on are behind it */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (places->ring[(oldest + middle) % PLACES_MAX].next_offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low)
        *place = places->ring[(oldest + low - 1) % PLACES_MAX];
    pthread_mutex_unlock(&places->lock);
    return low > 0;
}

/* Fills *block, which is the caller's to free, with the record of an offset, to which the reader was opened. The block is small, because
 * a remembered place lies near; it grows to the record. */
static int read_one(struct reader *reader, uint64_t offset, uint8_t **block, struct message *message)
{
    int error = ERR_LIMIT;
    for (size_t size = BLOCK_BYTES, count; error == ERR_LIMIT;) {
        size = (size + 63) & ~(size_t)63;
        free(*block);
        *block = aligned_alloc(64, size);
        error = *block ? reader_fill(reader, offset + 1, *block, size, message, 1, &count, &size) : ERR_NO_MEMORY;
    }
    if (error)
        return error;
    return message->offset == offset ? 0 : ERR_NOT_FOUND;
}

int places_read(struct places *places, struct journal_stream *stream, uint64_t offset, struct message **copy)
{
    struct reader *reader;
    struct reader_place place;
    bool near = find(places, offset, &place);
    int error = journal_stream_reader_at(stream, near ? &place : NULL, offset, false, &reader);
    if (error)
        return error;
    struct message message;
    uint8_t *block = NULL;
    error = read_one(reader, offset, &block, &message);
    if (!error) {
        size_t size = (size_t)message.topic_length + message.properties_length + message.payload_length;
        struct message *again = malloc(sizeof *again + size + 1);
        if (again) {
            *again = message;
            char *at = (char *)(again + 1);
            memcpy(at, message.topic, message.topic_length);
            again->topic = at;
            at += message.topic_length;
            memcpy(at, message.properties, message.properties_length);
            again->properties = (const uint8_t *)at;
            at += message.properties_length;
            memcpy(at, message.payload, message.payload_length);
            again->payload = (const uint8_t *)at;
            *copy = again;
        } else {
            error = ERR_NO_MEMORY;
        }
    }
    free(block);
    reader_close(reader);
    return error == ERR_TRUNCATED ? ERR_NOT_FOUND : error;
}
