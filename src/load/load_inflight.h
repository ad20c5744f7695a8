/* The window of QoS 1 messages that a publisher has sent and whose PUBACK it waits for. Pure.
 *
 * Identifiers are handed out in turn from a ring, so that one is used again as late as possible. */
#ifndef LOAD_INFLIGHT_H
#define LOAD_INFLIGHT_H

#include <stdbool.h>
#include <stdint.h>

enum { LOAD_INFLIGHT_MAX = 65535 };

struct load_inflight_entry {
    uint64_t time_ns; /* when it was due */
    uint64_t order;   /* 1, 2, 3 … in the order of sending; 0: not in use */
    uint32_t tag;     /* the owner's */
};

struct load_inflight {
    struct load_inflight_entry *entries; /* [size + 1], by identifier 1..size; owned */
    uint16_t *free_ids;                  /* [size] ring */
    uint32_t size;
    uint32_t free_head, free_count;
    uint64_t sent;
};

/* size: 1 .. LOAD_INFLIGHT_MAX. Returns 0, ERR_INVALID or ERR_NO_MEMORY. */
int load_inflight_init(struct load_inflight *inflight, uint32_t size);
void load_inflight_fini(struct load_inflight *inflight); /* accepts all zero */

static inline uint32_t load_inflight_count(const struct load_inflight *inflight)
{
    return inflight->size - inflight->free_count;
}

/* An identifier for a new message; 0 when the window is full. */
static inline uint16_t load_inflight_add(struct load_inflight *inflight, uint32_t tag, uint64_t time_ns)
{
    if (inflight->free_count == 0)
        return 0;
    uint16_t id = inflight->free_ids[inflight->free_head];
    inflight->free_head = inflight->free_head + 1 == inflight->size ? 0 : inflight->free_head + 1;
    inflight->free_count--;
    inflight->entries[id] = (struct load_inflight_entry){time_ns, ++inflight->sent, tag};
    return id;
}

/* Takes an acknowledged message out. False when the identifier is not in use: the peer acknowledged what was not sent. */
static inline bool load_inflight_remove(struct load_inflight *inflight, uint16_t id, struct load_inflight_entry *entry)
{
    if (id == 0 || id > inflight->size || inflight->entries[id].order == 0)
        return false;
    *entry = inflight->entries[id];
    inflight->entries[id].order = 0;
    uint32_t tail = inflight->free_head + inflight->free_count;
    inflight->free_ids[tail >= inflight->size ? tail - inflight->size : tail] = id;
    inflight->free_count++;
    return true;
}

/* Empties the window: gives the tags of what was in it, in the order of sending, to `each`, which must not add to this window. */
void load_inflight_drain(struct load_inflight *inflight, void (*each)(void *owner, uint32_t tag), void *owner);

#endif
