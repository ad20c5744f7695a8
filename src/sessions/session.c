/* The table of sessions and what belongs to each. Bytes are counted by what is there, not by what was allocated for it, so that a start
 * needs no more than there was. */
#include "sessions/session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/lists.h"
#include "mqtt/topic.h"

enum {
    SLOTS_FIRST = 64,
    ARRAY_FIRST = 8,
    ARRAY_PLAIN = 64,      /* places in an array without an index */
    NO_PLACE = UINT16_MAX, /* there are no more than that */
    /* Besides the struct and its text: two places in each table that has it, since a table is never more than half empty for long, and what
     * an allocator adds. */
    SESSION_OVERHEAD = 2 * 2 * sizeof(struct table_slot) + sizeof(struct session *) + 16,
    FILTER_OVERHEAD = 2 * sizeof(struct table_slot) + 16,
    USER_OVERHEAD = 2 * sizeof(struct table_slot) + 16
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

/* That of a group is found by what is behind the zero. */
static uint64_t name_hash(const char *id, size_t length)
{
    return length && id[0] == 0 ? hash_bytes(id + 1, length - 1, 1) : hash_bytes(id, length, 0);
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

static bool has_group(const void *item, const void *key)
{
    const struct session *session = item;
    const struct text_key *name = key;
    return session->group && session->id_length == name->length + 1 && memcmp(session->text + 1, name->text, name->length) == 0;
}

struct session *session_find_group(const struct session_store *store, const char *filter, size_t length)
{
    struct text_key key = {.text = filter, .length = length};
    return table_find(&store->names, hash_bytes(filter, length, 1), has_group, &key);
}

struct session *session_find_number(const struct session_store *store, uint64_t number)
{
    return table_find(&store->numbers, number_hash(number), has_number, &number);
}

struct session_user_row {
    uint32_t sessions, length;
    char text[];
};

static bool is_user(const void *item, const void *key)
{
    const struct session_user_row *row = item;
    const struct text_key *user = key;
    return row->length == user->length && memcmp(row->text, user->text, user->length) == 0;
}

static struct session_user_row *find_user(const struct session_store *store, const char *user, size_t length)
{
    struct text_key key = {.text = user, .length = length};
    return table_find(&store->users, name_hash(user, length), is_user, &key);
}

uint32_t session_count_of(const struct session_store *store, const char *user, size_t length)
{
    const struct session_user_row *row = find_user(store, user, length);
    return row ? row->sessions : 0;
}

static size_t user_bytes(size_t length)
{
    return sizeof(struct session_user_row) + length + USER_OVERHEAD;
}

/* The user's row, made where there is none. NULL: there is no memory. */
static struct session_user_row *make_user(struct session_store *store, const char *user, size_t length)
{
    struct session_user_row *row = find_user(store, user, length);
    if (row || table_reserve(&store->users, SIZE_MAX) || !(row = malloc(sizeof *row + length)))
        return row;
    *row = (struct session_user_row){.length = (uint32_t)length};
    memcpy(row->text, user, length);
    table_insert(&store->users, name_hash(user, length), row);
    store->bytes += user_bytes(length);
    return row;
}

/* One session less. */
static void leave_user(struct session_store *store, struct session_user_row *row)
{
    if (--row->sessions)
        return;
    table_remove(&store->users, name_hash(row->text, row->length), row);
    store->bytes -= user_bytes(row->length);
    free(row);
}

/* ---- members of groups ---- */

static void list_unused(struct session_store *store, struct session *group)
{
    bool unused = group->members == 0;
    if (unused && !group->unused)
        DL_APPEND2(store->unused, group, unused_before, unused_next);
    else if (!unused && group->unused)
        DL_DELETE2(store->unused, group, unused_before, unused_next);
    group->unused = unused;
}

static struct session *group_of(const struct session_store *store, const struct session_subscription *subscription)
{
    bool shared = subscription->how.qos && mqtt_topic_share_length(subscription->filter, subscription->length);
    return shared ? session_find_group(store, subscription->filter, subscription->length) : NULL;
}

static void count_member(struct session_store *store, const struct session_subscription *subscription, int by)
{
    struct session *group = store->loading ? NULL : group_of(store, subscription);
    if (!group)
        return;
    group->members += (uint32_t)by;
    list_unused(store, group);
}

void session_groups_count(struct session_store *store)
{
    for (uint32_t i = 0; i < store->slot_count; i++) {
        const struct session *session = store->slots[i];
        const struct session_subscription *each = session ? session_filter_first(session) : NULL;
        for (; each; each = session_filter_next(each)) {
            struct session *group = group_of(store, each);
            if (group)
                group->members++;
        }
    }
    for (uint32_t i = 0; i < store->slot_count; i++)
        if (store->slots[i] && store->slots[i]->group)
            list_unused(store, store->slots[i]);
}

/* ---- sessions come and go ---- */

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
    if ((!store->loading && store->count >= store->sessions_max) ||
        session_room(store, sizeof **made + text + SESSION_OVERHEAD + user_bytes(user_length)))
        return ERR_LIMIT;
    uint32_t slot;
    struct session *session = calloc(1, sizeof *session + text);
    struct session_user_row *row = NULL;
    if (!session || find_slot(store, &slot) || table_reserve(&store->names, SIZE_MAX) || table_reserve(&store->numbers, SIZE_MAX) ||
        !(row = make_user(store, user, user_length))) {
        free(session);
        return ERR_NO_MEMORY;
    }
    row->sessions++;
    session->number = number;
    session->slot = slot;
    session->next_id = 1;
    session->group = id[0] == 0;
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
    store->groups += session->group;
    store->bytes += session_bytes(session);
    if (session->group && !store->loading)
        list_unused(store, session);
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
    if (session->unused)
        DL_DELETE2(store->unused, session, unused_before, unused_next);
    store->attached -= session->attached && !session->group;
    store->groups -= session->group;
    store->count--;
    store->bytes -= session_bytes(session);
    table_remove(&store->names, name_hash(session->text, session->id_length), session);
    table_remove(&store->numbers, number_hash(session->number), session);
    leave_user(store, find_user(store, session_user(session), session->user_length));
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
    table_fini(&store->users);
}

void session_attach(struct session_store *store, struct session *session, const struct session_owner *owner)
{
    store->attached += !session->attached && !session->group;
    session->attached = true;
    session->owner = *owner;
}

void session_leave(struct session_store *store, struct session *session, uint64_t left_ns)
{
    store->attached -= session->attached && !session->group;
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
    store->subscriptions += !session->group;
    store->bytes += filter_bytes(length);
    *made = subscription;
    return 0;
}

void session_filter_set(struct session_store *store, struct session_subscription *subscription, const struct router_subscription *how)
{
    count_member(store, subscription, -1);
    subscription->how = *how;
    count_member(store, subscription, 1);
}

void session_filter_drop(struct session_store *store, struct session_subscription *subscription)
{
    struct session_filter *dropped = filter_of(subscription);
    struct session *session = dropped->session;
    count_member(store, subscription, -1);
    *(dropped->previous ? &dropped->previous->next : &session->filters) = dropped->next;
    if (dropped->next)
        dropped->next->previous = dropped->previous;
    table_remove(&store->filters, filter_hash(session, subscription->filter, subscription->length), subscription);
    session->filter_count--;
    store->subscriptions -= !session->group;
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

/* ---- arrays ----
 *
 * Of items that have a packet identifier. Behind those of a large one lies an index in the same memory, a hash table of their places by
 * identifier: of items with the same one it knows the newest. A small one is searched from the newest on. */

struct array {
    void *items;
    uint32_t count, capacity;
    size_t size;                                       /* of an item */
    uint16_t (*id_at)(const void *items, uint32_t at); /* packet identifier */
};

/* Slots, a power of two that at most half of the items take; 0: there is no index. */
static uint32_t index_slots(uint32_t capacity)
{
    uint32_t slots = 4 * ARRAY_PLAIN;
    if (capacity <= ARRAY_PLAIN)
        return 0;
    while (slots < 2 * capacity)
        slots *= 2;
    return slots;
}

static uint16_t *index_of(const struct array *array)
{
    return (uint16_t *)(void *)((char *)array->items + array->capacity * array->size);
}

/* The slot of an identifier, or the free one where it would be. */
static uint32_t index_slot(const struct array *array, uint16_t packet_id)
{
    const uint16_t *index = index_of(array);
    uint32_t mask = index_slots(array->capacity) - 1, slot = packet_id & mask;
    while (index[slot] != NO_PLACE && array->id_at(array->items, index[slot]) != packet_id)
        slot = (slot + 1) & mask;
    return slot;
}

static void index_put(const struct array *array, uint32_t at)
{
    if (index_slots(array->capacity))
        index_of(array)[index_slot(array, array->id_at(array->items, at))] = (uint16_t)at;
}

static void index_build(const struct array *array)
{
    uint32_t slots = index_slots(array->capacity);
    if (slots)
        memset(index_of(array), 0xff, slots * sizeof(uint16_t));
    for (uint32_t i = 0; slots && i < array->count; i++)
        index_put(array, i);
}

/* Frees a slot; what lies behind it and would not be found any more moves up. */
static void index_drop(const struct array *array, uint32_t slot)
{
    uint16_t *index = index_of(array);
    uint32_t mask = index_slots(array->capacity) - 1;
    for (uint32_t next = (slot + 1) & mask; index[next] != NO_PLACE; next = (next + 1) & mask) {
        uint32_t home = array->id_at(array->items, index[next]) & mask;
        if (((next - home) & mask) < ((next - slot) & mask))
            continue;
        index[slot] = index[next];
        slot = next;
    }
    index[slot] = NO_PLACE;
}

/* The newest with this identifier; NO_PLACE: there is none. */
static uint32_t array_find(const struct array *array, uint16_t packet_id)
{
    if (index_slots(array->capacity))
        return index_of(array)[index_slot(array, packet_id)];
    for (uint32_t i = array->count; i-- > 0;)
        if (array->id_at(array->items, i) == packet_id)
            return i;
    return NO_PLACE;
}

/* Makes it hold `count`; gives back what is four times too large. */
static int fit(struct array *array, size_t count)
{
    size_t wanted = array->capacity;
    if (count > wanted)
        wanted = count > 2 * wanted ? count : 2 * wanted;
    else if (count < wanted / 4 && wanted > ARRAY_FIRST)
        wanted = 2 * count;
    if (wanted < ARRAY_FIRST)
        wanted = ARRAY_FIRST;
    if (wanted == array->capacity)
        return 0;
    void *moved = realloc(array->items, wanted * array->size + index_slots((uint32_t)wanted) * sizeof(uint16_t));
    if (!moved)
        return count > array->capacity ? ERR_NO_MEMORY : 0;
    array->items = moved;
    array->capacity = (uint32_t)wanted;
    index_build(array);
    return 0;
}

static int reserve(const struct session_store *store, struct array *array, size_t count)
{
    if (count > array->count && session_room(store, (count - array->count) * array->size))
        return ERR_LIMIT;
    return count > array->capacity ? fit(array, count) : 0;
}

/* ---- what was sent ---- */

static uint16_t sent_id_at(const void *items, uint32_t at)
{
    return ((const struct session_sent *)items)[at].packet_id;
}

static struct array sent_array(const struct session *session)
{
    return (struct array){session->sent, session->sent_count, session->sent_capacity, sizeof *session->sent, sent_id_at};
}

static void keep_sent_array(struct session *session, const struct array *array)
{
    session->sent = array->items;
    session->sent_capacity = array->capacity;
}

int session_sent_reserve(struct session_store *store, struct session *session, size_t count)
{
    if (count > SESSIONS_SENT_MAX)
        return ERR_LIMIT;
    struct array array = sent_array(session);
    int error = reserve(store, &array, count);
    keep_sent_array(session, &array);
    return error;
}

void session_sent_add(struct session_store *store, struct session *session, const struct session_sent *sent)
{
    assert(session->sent_count < session->sent_capacity);
    session->sent[session->sent_count++] = *sent;
    session->shared += sent->shared;
    store->bytes += sizeof *sent;
    struct array array = sent_array(session);
    index_put(&array, array.count - 1);
}

static void sent_keep(struct session_store *store, struct session *session, uint32_t count)
{
    if (count == session->sent_count)
        return;
    store->bytes -= (session->sent_count - count) * sizeof *session->sent;
    session->sent_count = count;
    struct array array = sent_array(session);
    index_build(&array);
}

void session_sent_clear(struct session_store *store, struct session *session)
{
    sent_keep(store, session, 0);
    session->shared = 0;
}

/* One of a group is no matter of the cursor: it goes at once. */
void session_sent_finish(struct session_store *store, struct session *session, struct session_sent *sent)
{
    sent->state = SESSION_DONE;
    if (!sent->shared)
        return;
    size_t behind = session->sent_count - (size_t)(sent - session->sent) - 1;
    memmove(sent, sent + 1, behind * sizeof *sent);
    session->shared--;
    sent_keep(store, session, session->sent_count - 1);
}

/* An identifier is used again when all is over with the older message, so the newest is the one. */
struct session_sent *session_sent_find(const struct session *session, uint16_t packet_id)
{
    struct array array = sent_array(session);
    uint32_t at = array_find(&array, packet_id);
    return at != NO_PLACE && session->sent[at].state != SESSION_DONE ? &session->sent[at] : NULL;
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
        if (session->sent[i].shared || session->sent[i].content == SESSIONS_COPIED ||
            session->sent[i].offset >= session->cursor.at[session->sent[i].content])
            session->sent[kept++] = session->sent[i];
    sent_keep(store, session, kept);
    struct array array = sent_array(session);
    fit(&array, kept);
    keep_sent_array(session, &array);
}

/* ---- what was taken ---- */

static uint16_t taken_id_at(const void *items, uint32_t at)
{
    return session_taken_id(&((const struct session_taken *)items)[at]);
}

static struct array taken_array(const struct session *session)
{
    return (struct array){session->taken, session->taken_count, session->taken_capacity, sizeof *session->taken, taken_id_at};
}

static void keep_taken_array(struct session *session, const struct array *array)
{
    session->taken = array->items;
    session->taken_capacity = array->capacity;
}

struct session_taken *session_taken_find(const struct session *session, uint16_t packet_id)
{
    struct array array = taken_array(session);
    uint32_t at = array_find(&array, packet_id);
    return at != NO_PLACE ? &session->taken[at] : NULL;
}

int session_taken_reserve(struct session_store *store, struct session *session, size_t count)
{
    struct array array = taken_array(session);
    int error = reserve(store, &array, count);
    keep_taken_array(session, &array);
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
    struct session_taken *taken = &session->taken[session->taken_count++];
    *taken = (struct session_taken){word, (uint8_t)state, (uint8_t)store->young};
    store->bytes += sizeof *taken;
    struct array array = taken_array(session);
    index_put(&array, array.count - 1);
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

/* The last comes to its place. */
void session_taken_drop(struct session_store *store, struct session *session, struct session_taken *taken)
{
    count_taken(store, session, taken, -1);
    store->bytes -= sizeof *taken;
    struct array array = taken_array(session);
    uint32_t at = (uint32_t)(taken - session->taken);
    if (index_slots(array.capacity))
        index_drop(&array, index_slot(&array, session_taken_id(taken)));
    *taken = session->taken[--session->taken_count];
    array.count--;
    if (at < array.count && index_slots(array.capacity)) /* its slot still names its old place, where it still lies */
        index_of(&array)[index_slot(&array, session_taken_id(taken))] = (uint16_t)at;
    fit(&array, array.count);
    keep_taken_array(session, &array);
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

/* Copies of messages take no more than their part, lest a client that answers none of them leaves others no room. */
static int copy_room(const struct session_store *store, uint16_t packet_id, size_t bytes)
{
    size_t most = store->bytes_max / SESSIONS_COPIED_PART;
    if (packet_id != SESSIONS_WILL && !store->loading && (store->copied_bytes > most || bytes > most - store->copied_bytes))
        return ERR_LIMIT;
    return session_room(store, bytes);
}

int session_copy_make(struct session_store *store, uint16_t packet_id, const void *bytes, size_t length, struct session_copy **made)
{
    if (length > UINT32_MAX || copy_room(store, packet_id, copy_bytes(length)))
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
    if (copy->packet_id != SESSIONS_WILL)
        store->copied_bytes += copy_bytes(copy->length);
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
    if (copy->packet_id != SESSIONS_WILL)
        store->copied_bytes -= copy_bytes(copy->length);
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
