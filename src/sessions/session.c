/* The table of sessions and what belongs to each. Bytes are counted by what is there, not by what was allocated for it, so that a start
 * needs no more than there was. */
#include "sessions/session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/lists.h"

enum {
    SLOTS_FIRST = 64,
    ARRAY_FIRST = 8,
    /* Besides the struct and its text: two places in each table that has it, since a table is never more than half empty for long, and what
     * an allocator adds. */
    SESSION_OVERHEAD = 2 * 2 * sizeof(struct table_slot) + sizeof(struct session *) + 16,
    FILTER_OVERHEAD = 2 * sizeof(struct table_slot) + 16
};

/* Stands before the subscription in memory. */
struct session_filter {
    struct session_filter *next, *previous;
    struct session *session;
};

static struct session_subscription *subscription_of(struct session_filter *filter)
{
    return (struct session_subscription *)(void *)(filter + 1);
}

static struct session_filter *filter_of(const struct session_subscription *subscription)
{
    return (struct session_filter *)(void *)(uintptr_t)subscription - 1;
}

/* Whether there is room. What is read is looked at when all was read (sessions_stream.c). */
int session_room(const struct session_store *store, size_t bytes)
{
    return !store->loading && (store->bytes > store->bytes_max || bytes > store->bytes_max - store->bytes) ? ERR_LIMIT : 0;
}

/* ---- sessions ---- */

struct text_key {
    const char *text;
    size_t length;
    const struct session *session; /* of a filter */
};

static uint64_t name_hash(const char *id, size_t length)
{
    return hash_bytes(id, length, 0);
}

static uint64_t number_hash(uint64_t number)
{
    return hash_bytes(&number, sizeof number, 0);
}

static bool has_name(const void *item, const void *key)
{
    const struct session *session = item;
    const struct text_key *name = key;
    return session->id_length == name->length && memcmp(session->text, name->text, name->length) == 0;
}

static bool has_number(const void *item, const void *key)
{
    return ((const struct session *)item)->number == *(const uint64_t *)key;
}

struct session *session_find(const struct session_store *store, const char *id, size_t length)
{
    struct text_key key = {.text = id, .length = length};
    return table_find(&store->names, name_hash(id, length), has_name, &key);
}

struct session *session_find_number(const struct session_store *store, uint64_t number)
{
    return table_find(&store->numbers, number_hash(number), has_number, &number);
}

/* The slot of the next session; there is room for it. */
static int find_slot(struct session_store *store, uint32_t *slot)
{
    for (*slot = store->free_from; *slot < store->slot_count; ++*slot)
        if (!store->slots[*slot])
            break;
    store->free_from = *slot;
    if (*slot < store->slot_capacity)
        return 0;
    uint32_t capacity = store->slot_capacity ? 2 * store->slot_capacity : SLOTS_FIRST;
    struct session **slots = realloc(store->slots, capacity * sizeof *slots);
    if (!slots)
        return ERR_NO_MEMORY;
    store->slots = slots;
    store->slot_capacity = capacity;
    return 0;
}

static size_t session_bytes(const struct session *session)
{
    return sizeof *session + session->id_length + session->user_length + 2 + SESSION_OVERHEAD;
}

int session_make(struct session_store *store, uint64_t number, const char *id, size_t id_length, const char *user, size_t user_length,
                 struct session **made)
{
    size_t text = id_length + user_length + 2;
    if ((!store->loading && store->count >= store->sessions_max) || session_room(store, sizeof **made + text + SESSION_OVERHEAD))
        return ERR_LIMIT;
    uint32_t slot;
    struct session *session = calloc(1, sizeof *session + text);
    if (!session || find_slot(store, &slot) || table_reserve(&store->names, SIZE_MAX) || table_reserve(&store->numbers, SIZE_MAX)) {
        free(session);
        return ERR_NO_MEMORY;
    }
    session->number = number;
    session->slot = slot;
    session->next_id = 1;
    session->id_length = (uint32_t)id_length;
    session->user_length = (uint32_t)user_length;
    memcpy(session->text, id, id_length);
    memcpy(session->text + id_length + 1, user, user_length);
    store->slots[slot] = session;
    if (slot == store->slot_count)
        store->slot_count++;
    store->free_from = slot + 1;
    table_insert(&store->names, name_hash(id, id_length), session);
    table_insert(&store->numbers, number_hash(number), session);
    store->count++;
    store->bytes += session_bytes(session);
    *made = session;
    return 0;
}

void session_end(struct session_store *store, struct session *session)
{
    while (session->filters)
        session_filter_drop(store, subscription_of(session->filters));
    session_sent_clear(store, session);
    while (session->copies)
        session_copy_drop(store, session, session->copies);
    while (session->taken_count)
        session_taken_drop(store, session, &session->taken[session->taken_count - 1]);
    store->attached -= session->attached;
    store->count--;
    store->bytes -= session_bytes(session);
    table_remove(&store->names, name_hash(session->text, session->id_length), session);
    table_remove(&store->numbers, number_hash(session->number), session);
    store->slots[session->slot] = NULL;
    if (session->slot < store->free_from)
        store->free_from = session->slot;
    free(session->sent);
    free(session->taken);
    free(session);
}

void session_store_fini(struct session_store *store)
{
    for (uint32_t i = 0; i < store->slot_count; i++)
        if (store->slots[i])
            session_end(store, store->slots[i]);
    free(store->slots);
    table_fini(&store->names);
    table_fini(&store->numbers);
    table_fini(&store->filters);
}

void session_attach(struct session_store *store, struct session *session, const struct session_owner *owner)
{
    store->attached += !session->attached;
    session->attached = true;
    session->owner = *owner;
}

void session_leave(struct session_store *store, struct session *session, uint64_t left_ns)
{
    store->attached -= session->attached;
    session->attached = false;
    session->left_ns = left_ns;
}

/* ---- subscriptions ---- */

static uint64_t filter_hash(const struct session *session, const char *filter, size_t length)
{
    return hash_bytes(filter, length, session->number);
}

static bool has_filter(const void *item, const void *key)
{
    const struct session_subscription *subscription = item;
    const struct text_key *wanted = key;
    return filter_of(subscription)->session == wanted->session && subscription->length == wanted->length &&
           memcmp(subscription->filter, wanted->text, wanted->length) == 0;
}

struct session_subscription *session_filter_find(const struct session_store *store, const struct session *session, const char *filter,
                                                 size_t length)
{
    struct text_key key = {filter, length, session};
    return table_find(&store->filters, filter_hash(session, filter, length), has_filter, &key);
}

static size_t filter_bytes(size_t length)
{
    return sizeof(struct session_filter) + sizeof(struct session_subscription) + length + 1 + FILTER_OVERHEAD;
}

int session_filter_add(struct session_store *store, struct session *session, const char *filter, size_t length,
                       struct session_subscription **made)
{
    if (session_room(store, filter_bytes(length)))
        return ERR_LIMIT;
    struct session_filter *added = malloc(sizeof *added + sizeof **made + length + 1);
    if (!added || table_reserve(&store->filters, SIZE_MAX)) {
        free(added);
        return ERR_NO_MEMORY;
    }
    *added = (struct session_filter){.next = session->filters, .session = session};
    struct session_subscription *subscription = subscription_of(added);
    *subscription = (struct session_subscription){.length = (uint32_t)length};
    memcpy(subscription->filter, filter, length);
    subscription->filter[length] = 0;
    if (added->next)
        added->next->previous = added;
    session->filters = added;
    session->filter_count++;
    table_insert(&store->filters, filter_hash(session, filter, length), subscription);
    store->subscriptions++;
    store->bytes += filter_bytes(length);
    *made = subscription;
    return 0;
}

void session_filter_drop(struct session_store *store, struct session_subscription *subscription)
{
    struct session_filter *dropped = filter_of(subscription);
    struct session *session = dropped->session;
    *(dropped->previous ? &dropped->previous->next : &session->filters) = dropped->next;
    if (dropped->next)
        dropped->next->previous = dropped->previous;
    table_remove(&store->filters, filter_hash(session, subscription->filter, subscription->length), subscription);
    session->filter_count--;
    store->subscriptions--;
    store->bytes -= filter_bytes(subscription->length);
    free(dropped);
}

struct session_subscription *session_filter_first(const struct session *session)
{
    return session->filters ? subscription_of(session->filters) : NULL;
}

struct session_subscription *session_filter_next(const struct session_subscription *subscription)
{
    const struct session_filter *filter = filter_of(subscription);
    return filter->next ? subscription_of(filter->next) : NULL;
}

/* ---- arrays ---- */

/* Makes `*capacity` items hold `count`; gives back what is four times too large. */
static int fit(void **items, uint32_t *capacity, size_t size, size_t count)
{
    size_t wanted = *capacity;
    if (count > wanted)
        wanted = count > 2 * wanted ? count : 2 * wanted;
    else if (count < wanted / 4 && wanted > ARRAY_FIRST)
        wanted = 2 * count;
    if (wanted < ARRAY_FIRST)
        wanted = ARRAY_FIRST;
    if (wanted == *capacity)
        return 0;
    void *moved = realloc(*items, wanted * size);
    if (!moved)
        return count > *capacity ? ERR_NO_MEMORY : 0;
    *items = moved;
    *capacity = (uint32_t)wanted;
    return 0;
}

static int reserve(struct session_store *store, void **items, uint32_t *capacity, size_t size, size_t have, size_t count)
{
    if (count > have && session_room(store, (count - have) * size))
        return ERR_LIMIT;
    return count > *capacity ? fit(items, capacity, size, count) : 0;
}

/* ---- what was sent ---- */

int session_sent_reserve(struct session_store *store, struct session *session, size_t count)
{
    if (count > SESSIONS_SENT_MAX)
        return ERR_LIMIT;
    void *items = session->sent;
    int error = reserve(store, &items, &session->sent_capacity, sizeof *session->sent, session->sent_count, count);
    session->sent = items;
    return error;
}

void session_sent_add(struct session_store *store, struct session *session, const struct session_sent *sent)
{
    assert(session->sent_count < session->sent_capacity);
    session->sent[session->sent_count++] = *sent;
    store->bytes += sizeof *sent;
}

static void sent_keep(struct session_store *store, struct session *session, uint32_t count)
{
    store->bytes -= (session->sent_count - count) * sizeof *session->sent;
    session->sent_count = count;
}

void session_sent_clear(struct session_store *store, struct session *session)
{
    sent_keep(store, session, 0);
}

/* From the newest on: what is under way is seldom far behind it. */
struct session_sent *session_sent_find(const struct session *session, uint16_t packet_id)
{
    for (uint32_t i = session->sent_count; i-- > 0;)
        if (session->sent[i].packet_id == packet_id && session->sent[i].state != SESSION_DONE)
            return &session->sent[i];
    return NULL;
}

void session_sent_settle(struct session_store *store, struct session *session, struct session_sent *sent, enum session_sent_state state)
{
    uint32_t behind = session->sent_count - (uint32_t)(sent - session->sent) - 1;
    session_copy_drop(store, session, session_copy_find(session, sent->packet_id));
    sent->state = (uint8_t)state;
    if (state != SESSION_DONE)
        return;
    memmove(sent, sent + 1, behind * sizeof *sent);
    sent_keep(store, session, session->sent_count - 1);
}

void session_advance(struct session_store *store, struct session *session, const struct follower_places *cursor)
{
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++) {
        if (cursor->at[i] > session->cursor.at[i])
            session->cursor.at[i] = cursor->at[i];
        if (session->position.at[i] < session->cursor.at[i])
            session->position.at[i] = session->cursor.at[i];
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < session->sent_count; i++)
        if (session->sent[i].content == SESSIONS_COPIED || session->sent[i].offset >= session->cursor.at[session->sent[i].content])
            session->sent[kept++] = session->sent[i];
    sent_keep(store, session, kept);
    void *items = session->sent;
    fit(&items, &session->sent_capacity, sizeof *session->sent, kept);
    session->sent = items;
}

/* ---- what was taken ---- */

/* The place of the first identifier that is not less. */
static uint32_t taken_place(const struct session *session, uint16_t packet_id)
{
    uint32_t from = 0, to = session->taken_count;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (session_taken_id(&session->taken[middle]) < packet_id)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

struct session_taken *session_taken_find(const struct session *session, uint16_t packet_id)
{
    uint32_t place = taken_place(session, packet_id);
    return place < session->taken_count && session_taken_id(&session->taken[place]) == packet_id ? &session->taken[place] : NULL;
}

int session_taken_reserve(struct session_store *store, struct session *session, size_t count)
{
    void *items = session->taken;
    int error = reserve(store, &items, &session->taken_capacity, sizeof *session->taken, session->taken_count, count);
    session->taken = items;
    return error;
}

static bool is_open(const struct session_taken *taken)
{
    return taken->state == SESSION_PENDING || taken->state == SESSION_DURABLE;
}

static void count_taken(struct session_store *store, struct session *session, const struct session_taken *taken, int by)
{
    store->generations[taken->generation].open += (uint64_t)(is_open(taken) ? by : 0);
    session->pending += (uint32_t)(taken->state == SESSION_PENDING ? by : 0);
}

void session_taken_add(struct session_store *store, struct session *session, uint64_t word, enum session_taken_state state)
{
    assert(session->taken_count < session->taken_capacity);
    uint32_t place = taken_place(session, (uint16_t)word);
    struct session_taken *taken = &session->taken[place];
    memmove(taken + 1, taken, (session->taken_count - place) * sizeof *taken);
    *taken = (struct session_taken){word, (uint8_t)state, (uint8_t)store->young};
    session->taken_count++;
    store->bytes += sizeof *taken;
    count_taken(store, session, taken, 1);
}

void session_taken_change(struct session_store *store, struct session *session, struct session_taken *taken, uint64_t word,
                          enum session_taken_state state)
{
    count_taken(store, session, taken, -1);
    taken->word = word;
    taken->state = (uint8_t)state;
    count_taken(store, session, taken, 1);
}

void session_taken_drop(struct session_store *store, struct session *session, struct session_taken *taken)
{
    count_taken(store, session, taken, -1);
    size_t behind = session->taken_count - (size_t)(taken - session->taken) - 1;
    memmove(taken, taken + 1, behind * sizeof *taken);
    session->taken_count--;
    store->bytes -= sizeof *taken;
    void *items = session->taken;
    fit(&items, &session->taken_capacity, sizeof *session->taken, session->taken_count);
    session->taken = items;
}

void session_taken_all(struct session_store *store, struct session *session, enum session_taken_state from, enum session_taken_state to)
{
    for (uint32_t i = 0; i < session->taken_count; i++)
        if (session->taken[i].state == from)
            session_taken_change(store, session, &session->taken[i], session->taken[i].word, to);
}

/* ---- copies ---- */

static size_t copy_bytes(size_t length)
{
    return sizeof(struct session_copy) + length + 16;
}

int session_copy_make(struct session_store *store, uint16_t packet_id, const void *bytes, size_t length, struct session_copy **made)
{
    if (length > UINT32_MAX || session_room(store, copy_bytes(length)))
        return ERR_LIMIT;
    struct session_copy *copy = malloc(sizeof *copy + length);
    if (!copy)
        return ERR_NO_MEMORY;
    *copy = (struct session_copy){.serial = ++store->copy_serial, .length = (uint32_t)length, .packet_id = packet_id};
    if (length)
        memcpy(copy->bytes, bytes, length);
    *made = copy;
    return 0;
}

void session_copy_put(struct session_store *store, struct session *session, struct session_copy *copy)
{
    session_copy_drop(store, session, session_copy_find(session, copy->packet_id));
    DL_APPEND(session->copies, copy);
    store->bytes += copy_bytes(copy->length);
}

/* Answers come in the order of sending, or nearly. */
struct session_copy *session_copy_find(const struct session *session, uint16_t packet_id)
{
    struct session_copy *copy;
    DL_FOREACH(session->copies, copy)
    if (copy->packet_id == packet_id)
        return copy;
    return NULL;
}

void session_copy_drop(struct session_store *store, struct session *session, struct session_copy *copy)
{
    if (!copy)
        return;
    DL_DELETE(session->copies, copy);
    store->bytes -= copy_bytes(copy->length);
    free(copy);
}

/* Both lists are in the order of sending. */
void session_copy_trim(struct session_store *store, struct session *session)
{
    struct session_copy *copy, *next;
    uint32_t at = 0;
    DL_FOREACH_SAFE(session->copies, copy, next)
    {
        uint32_t found = at;
        while (found < session->sent_count &&
               (session->sent[found].content != SESSIONS_COPIED || session->sent[found].state != SESSION_SENT ||
                session->sent[found].packet_id != copy->packet_id))
            found++;
        if (found < session->sent_count)
            at = found + 1;
        else if (copy->packet_id != SESSIONS_WILL)
            session_copy_drop(store, session, copy);
    }
}
