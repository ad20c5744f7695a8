#include "pipeline/join_sets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct stage_ops *ops(const struct join *join)
{
    return join->stage->ops;
}

/* ---- members ---- */

void join_member_hold(struct join *join, struct join_member *member)
{
    if (!member->item.data)
        return;
    member->is_held = true;
    join->held_bytes += member->item.held_bytes;
    TAILQ_INSERT_TAIL(&join->held, member, held);
}

static void release_hold(struct join *join, struct join_member *member)
{
    if (!member->is_held)
        return;
    member->is_held = false;
    join->held_bytes -= member->item.held_bytes;
    TAILQ_REMOVE(&join->held, member, held);
}

struct join_member *join_member_create(const struct join_message *message, const struct stage_item *item)
{
    struct join_member *member = malloc(sizeof *member);
    if (member)
        *member = (struct join_member){.item = *item,
                                       .offset = message->offset,
                                       .arrival_ns = message->arrival_ns,
                                       .origin_ns = message->origin_ns,
                                       .again = message->again,
                                       .was_refused = message->was_refused};
    return member;
}

static void member_free(struct join *join, struct join_member *member)
{
    release_hold(join, member);
    join->waiting_count--;
    if (!member->is_freed)
        ops(join)->item_free(join->stage, &member->item);
    free(member);
}

void join_member_drop_content(struct join *join, struct join_member *member)
{
    struct stage_item content = member->item;
    release_hold(join, member);
    ops(join)->item_free(join->stage, &content);
    member->item.data = NULL;
    member->item.held_bytes = 0;
    member->is_freed = true;
    member->dropped = true;
}

/* ---- sets ---- */

static struct join_set *set_of(struct hash_node *by_id)
{
    return (struct join_set *)(void *)by_id;
}

struct set_name join_set_name(const struct join_set *set)
{
    return (struct set_name){.key = set->key, .key_length = set->key_length, .key_hash = set->key_hash, .stamp = set->stamp, .id = set->id};
}

/* The lowest bits of a key's hash chose the lane, so they are equal here. */
static uint64_t table_hash_of_key(uint64_t key_hash)
{
    return key_hash >> 8;
}

static struct join_key *find_key(const struct join *join, const struct set_name *name)
{
    struct hash_node *node = hash_table_first(&join->keys, table_hash_of_key(name->key_hash));
    for (; node; node = hash_node_next(node)) {
        struct join_key *key = (struct join_key *)(void *)node;
        const struct join_set *set = TAILQ_FIRST(&key->sets);
        if (set->key_length == name->key_length && memcmp(set->key, name->key, name->key_length) == 0)
            return key;
    }
    return NULL;
}

static struct join_stamp *find_stamp(const struct join *join, const struct join_key *key, const struct set_name *name)
{
    struct hash_node *node = key ? hash_table_first(&join->stamps, set_stamp_hash(name)) : NULL;
    for (; node; node = hash_node_next(node)) {
        struct join_stamp *stamp = (struct join_stamp *)(void *)node;
        if (stamp->of_key == key && strcmp(stamp->text, name->stamp) == 0)
            return stamp;
    }
    return NULL;
}

/* Both are freed when nothing is in them, be it that the first set could not be opened. */
static void key_put(struct join *join, struct join_key *key)
{
    if (TAILQ_EMPTY(&key->sets)) {
        hash_table_remove(&join->keys, &key->node);
        free(key);
    }
}

static void stamp_put(struct join *join, struct join_stamp *stamp)
{
    if (stamp->set_count == 0) {
        hash_table_remove(&join->stamps, &stamp->node);
        free(stamp);
    }
}

static struct join_key *key_open(struct join *join, const struct set_name *name)
{
    struct join_key *key = calloc(1, sizeof *key);
    if (!key || hash_table_add(&join->keys, &key->node, table_hash_of_key(name->key_hash))) {
        free(key);
        return NULL;
    }
    TAILQ_INIT(&key->sets);
    TAILQ_INIT(&key->ready);
    return key;
}

static struct join_stamp *stamp_open(struct join *join, struct join_key *key, const struct set_name *name)
{
    struct join_stamp *stamp = calloc(1, sizeof *stamp);
    if (!stamp || hash_table_add(&join->stamps, &stamp->node, set_stamp_hash(name))) {
        free(stamp);
        return NULL;
    }
    stamp->of_key = key;
    snprintf(stamp->text, sizeof stamp->text, "%s", name->stamp);
    for (unsigned sides = 0; sides < JOIN_SIDE_MASKS; sides++)
        TAILQ_INIT(&stamp->by_sides[sides]);
    return stamp;
}

/* A set without members and without id yet. */
static struct join_set *set_create(struct join *join, const struct set_name *name, uint64_t arrival_ns)
{
    struct join_set *set = calloc(1, sizeof *set + name->key_length + 1);
    if (!set)
        return NULL;
    set->first_ns = arrival_ns;
    set->key_hash = name->key_hash;
    set->key_length = name->key_length;
    memcpy(set->key, name->key, name->key_length);
    snprintf(set->stamp, sizeof set->stamp, "%s", name->stamp);
    struct set_name nameless = join_set_name(set);
    if (hash_table_add(&join->ids, &set->by_id, set_id_hash(&nameless))) {
        free(set);
        return NULL;
    }
    return set;
}

struct join_set *join_set_open(struct join *join, const struct set_name *name, uint64_t arrival_ns)
{
    struct join_key *known_key = find_key(join, name), *key = known_key ? known_key : key_open(join, name);
    struct join_stamp *known_stamp = find_stamp(join, known_key, name);
    struct join_stamp *stamp = known_stamp || !key ? known_stamp : stamp_open(join, key, name);
    struct join_set *set = stamp ? set_create(join, name, arrival_ns) : NULL;
    if (!set) {
        if (stamp)
            stamp_put(join, stamp);
        if (key)
            key_put(join, key);
        return NULL;
    }
    set->of_stamp = stamp;
    stamp->set_count++;
    TAILQ_INSERT_TAIL(&stamp->by_sides[0], set, in_stamp);
    TAILQ_INSERT_HEAD(&key->sets, set, in_key);
    TAILQ_INSERT_TAIL(&join->waiting, set, timer);
    join->open_count++;
    return set;
}

void join_set_change_sides(struct join_set *set, unsigned sides)
{
    if (sides == set->sides)
        return;
    TAILQ_REMOVE(&set->of_stamp->by_sides[set->sides], set, in_stamp);
    set->sides = sides;
    TAILQ_INSERT_TAIL(&set->of_stamp->by_sides[sides], set, in_stamp);
}

/* Whether a set is called by the id of this item from now on. */
static bool names_set(const struct join_set *set, const struct stage_item *item)
{
    if (item->id_is_hint)
        return !(set->sides & ~(1u << item->side));
    for (unsigned side = 0; *set->id && side < STAGE_SIDES_MAX; side++)
        if (set->members[side] && !set->members[side]->item.id_is_hint)
            return false;
    return true;
}

void join_set_put(struct join *join, struct join_set *set, struct join_member *member)
{
    unsigned side = member->item.side;
    bool names = names_set(set, &member->item);
    if (set->members[side])
        member_free(join, set->members[side]);
    set->members[side] = member;
    join_set_change_sides(set, set->sides | 1u << side);
    join->waiting_count++;
    join_member_hold(join, member);
    if (!names || strcmp(set->id, member->item.id) == 0)
        return;
    memcpy(set->id, member->item.id, sizeof set->id);
    struct set_name name = join_set_name(set);
    hash_table_remove(&join->ids, &set->by_id);
    hash_table_add(&join->ids, &set->by_id, set_id_hash(&name)); /* a table that held it has its buckets: it cannot fail */
}

void join_set_move(struct join *join, struct join_set *set, enum join_wait wait)
{
    struct join_set_list *const lists[] = {[JOIN_IN_WINDOW] = &join->waiting, [JOIN_IN_GRACE] = &join->grace, [JOIN_DUE] = &join->due};
    TAILQ_REMOVE(lists[set->wait], set, timer);
    set->wait = wait;
    TAILQ_INSERT_TAIL(lists[wait], set, timer);
}

bool join_set_is_done(const struct join *join, const struct join_set *set)
{
    return set->mismatched || set->sides == join->all_sides || join->options.grace_ns == 0;
}

void join_set_detach(struct join *join, struct join_set *set)
{
    struct join_set_list *const lists[] = {[JOIN_IN_WINDOW] = &join->waiting, [JOIN_IN_GRACE] = &join->grace, [JOIN_DUE] = &join->due};
    struct join_stamp *stamp = set->of_stamp;
    struct join_key *key = stamp->of_key;
    TAILQ_REMOVE(lists[set->wait], set, timer);
    if (set->wait != JOIN_IN_WINDOW) {
        TAILQ_REMOVE(&key->ready, set, in_ready);
        struct join_set *next = TAILQ_FIRST(&key->ready);
        if (next && next->wait == JOIN_IN_GRACE && join_set_is_done(join, next))
            join_set_move(join, next, JOIN_DUE);
    }
    hash_table_remove(&join->ids, &set->by_id);
    TAILQ_REMOVE(&stamp->by_sides[set->sides], set, in_stamp);
    stamp->set_count--;
    TAILQ_REMOVE(&key->sets, set, in_key);
    stamp_put(join, stamp);
    key_put(join, key);
    join->open_count--;
}

void join_set_free(struct join *join, struct join_set *set)
{
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++)
        if (set->members[side])
            member_free(join, set->members[side]);
    free(set);
}

void join_set_close(struct join *join, struct join_set *set)
{
    join_set_detach(join, set);
    join_set_free(join, set);
}

static bool set_is_near(const struct join *join, const struct join_set *set, const struct stage_item *item)
{
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++)
        if (set->members[side])
            return ops(join)->same_set(join->stage, &set->members[side]->item, item);
    return false;
}

bool join_slot_is_free(const struct join_set *set, const struct stage_item *item)
{
    return !(set->sides & 1u << item->side);
}

/* The set of this id; "" asks for the one that knows none. With near stamps a set may come by its id late, so there may be two: the one
 * with a free slot. */
static struct join_set *find_by_id(const struct join *join, const struct join_stamp *stamp, const struct set_name *name,
                                   const struct stage_item *item)
{
    struct join_set *found = NULL;
    struct hash_node *node = hash_table_first(&join->ids, set_id_hash(name));
    for (; node; node = hash_node_next(node)) {
        struct join_set *set = set_of(node);
        if (set->of_stamp == stamp && strcmp(set->id, name->id) == 0 &&
            (!found || join_slot_is_free(set, item) || !join_slot_is_free(found, item)))
            found = set;
    }
    return found;
}

static struct join_set *older(struct join_set *a, struct join_set *b)
{
    return !a || (b && b->first_ns < a->first_ns) ? b : a;
}

struct join_set *join_find_by_sides(const struct join_stamp *stamp, unsigned mask, unsigned value)
{
    struct join_set *oldest = NULL;
    for (unsigned sides = 0; sides < JOIN_SIDE_MASKS; sides++)
        if ((sides & mask) == value)
            oldest = older(oldest, TAILQ_FIRST(&stamp->by_sides[sides]));
    return oldest;
}

struct join_set *join_find_named(const struct join *join, const struct set_name *name, const struct stage_item *item)
{
    const struct join_stamp *stamp = find_stamp(join, find_key(join, name), name);
    if (!stamp)
        return NULL;
    if (!*name->id) {
        struct join_set *set = join_find_by_sides(stamp, 1u << item->side, 0);
        return set ? set : join_find_by_sides(stamp, 0, 0);
    }
    struct set_name nameless = *name;
    nameless.id = "";
    struct join_set *set = find_by_id(join, stamp, name, item);
    return set ? set : find_by_id(join, stamp, &nameless, item);
}

bool join_ids_fit(const char *a, const char *b)
{
    return !*a || !*b || strcmp(a, b) == 0;
}

struct join_set *join_find_near(const struct join *join, const struct set_name *name, const struct stage_item *item)
{
    const struct join_key *key = ops(join)->same_set ? find_key(join, name) : NULL;
    struct join_set *best = NULL, *set = key ? TAILQ_FIRST(&key->sets) : NULL;
    for (unsigned i = 0; set && i < JOIN_NEAR_SETS_MAX; i++, set = TAILQ_NEXT(set, in_key))
        if (join_slot_is_free(set, item) && join_ids_fit(set->id, name->id) && set_is_near(join, set, item) &&
            (!best || !*best->id || !*name->id || *set->id))
            best = set;
    return best;
}

struct join_set *join_find_lone(const struct join *join, const struct join_set *set, unsigned side)
{
    struct join_set *found = TAILQ_FIRST(&set->of_stamp->by_sides[1u << side]);
    struct join_set *other = found || !ops(join)->same_set ? NULL : TAILQ_FIRST(&set->of_stamp->of_key->sets);
    for (unsigned i = 0; other && i < JOIN_NEAR_SETS_MAX; i++, other = TAILQ_NEXT(other, in_key))
        if (other->sides == 1u << side && set_is_near(join, set, &other->members[side]->item))
            found = other;
    return found;
}

struct join_set *join_find_ready(const struct join *join, const struct join_set *lone, unsigned side)
{
    const struct stage_item *item = &lone->members[side]->item;
    struct join_set *set = TAILQ_FIRST(&lone->of_stamp->of_key->ready);
    for (unsigned i = 0; set && i < JOIN_NEAR_SETS_MAX; i++, set = TAILQ_NEXT(set, in_ready))
        if (join_slot_is_free(set, item) && (set->of_stamp == lone->of_stamp || (ops(join)->same_set && set_is_near(join, set, item))))
            return set;
    return NULL;
}
