#include "pipeline/join.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

enum { KEY_TEXT_MAX = 80, SIDES_TEXT_MAX = 96 };

static const double ns_per_s = 1e9;

static const struct stage_ops *ops(const struct join *join)
{
    return join->stage->ops;
}

void join_init(struct join *join, struct stage *stage, uint32_t finished_sets_max)
{
    *join = (struct join){.stage = stage, .all_sides = (1u << stage->ops->side_count) - 1};
    hash_table_init(&join->ids);
    hash_table_init(&join->stamps);
    hash_table_init(&join->keys);
    TAILQ_INIT(&join->waiting);
    TAILQ_INIT(&join->grace);
    TAILQ_INIT(&join->due);
    TAILQ_INIT(&join->held);
    finished_init(&join->finished, finished_sets_max);
}

void join_configure(struct join *join, const struct join_options *options)
{
    join->options = *options;
}

void join_set_reload(struct join *join, join_reload reload, void *context)
{
    join->reload = reload;
    join->reload_context = context;
}

/* ---- members ---- */

static void hold(struct join *join, struct join_member *member)
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

static struct join_member *member_create(const struct join_message *message, const struct stage_item *item)
{
    struct join_member *member = malloc(sizeof *member);
    if (member)
        *member = (struct join_member){
            .item = *item, .offset = message->offset, .arrival_ns = message->arrival_ns, .origin_ns = message->origin_ns};
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

/* The content of an item goes, its name stays. */
static void drop_content(struct join *join, struct join_member *member)
{
    struct stage_item content = member->item;
    release_hold(join, member);
    ops(join)->item_free(join->stage, &content);
    member->item.data = NULL;
    member->item.held_bytes = 0;
    member->is_freed = true;
    member->dropped = true;
}

bool join_drop_oldest_content(struct join *join)
{
    if (!join->reload || TAILQ_EMPTY(&join->held))
        return false;
    drop_content(join, TAILQ_FIRST(&join->held));
    return true;
}

/* ---- sets ---- */

static struct join_set *set_of(struct hash_node *by_id)
{
    return (struct join_set *)(void *)by_id;
}

static struct set_name name_of(const struct join_set *set)
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
    struct set_name nameless = name_of(set);
    if (hash_table_add(&join->ids, &set->by_id, set_id_hash(&nameless))) {
        free(set);
        return NULL;
    }
    return set;
}

static struct join_set *set_open(struct join *join, const struct set_name *name, uint64_t arrival_ns)
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

static void set_change_sides(struct join_set *set, unsigned sides)
{
    if (sides == set->sides)
        return;
    TAILQ_REMOVE(&set->of_stamp->by_sides[set->sides], set, in_stamp);
    set->sides = sides;
    TAILQ_INSERT_TAIL(&set->of_stamp->by_sides[sides], set, in_stamp);
}

/* Puts a member into its slot, in place of the one that may be there. */
static void set_put(struct join *join, struct join_set *set, struct join_member *member)
{
    unsigned side = member->item.side;
    if (set->members[side])
        member_free(join, set->members[side]);
    set->members[side] = member;
    set_change_sides(set, set->sides | 1u << side);
    join->waiting_count++;
    hold(join, member);
    if (*set->id || !*member->item.id)
        return;
    memcpy(set->id, member->item.id, sizeof set->id);
    struct set_name name = name_of(set);
    hash_table_remove(&join->ids, &set->by_id);
    hash_table_add(&join->ids, &set->by_id, set_id_hash(&name)); /* a table that held it has its buckets: it cannot fail */
}

static void set_move(struct join *join, struct join_set *set, enum join_wait wait)
{
    struct join_set_list *const lists[] = {[JOIN_IN_WINDOW] = &join->waiting, [JOIN_IN_GRACE] = &join->grace, [JOIN_DUE] = &join->due};
    TAILQ_REMOVE(lists[set->wait], set, timer);
    set->wait = wait;
    TAILQ_INSERT_TAIL(lists[wait], set, timer);
}

/* Whether a ready set waits for nothing more but its turn. */
static bool is_done(const struct join *join, const struct join_set *set)
{
    return set->mismatched || set->sides == join->all_sides || join->options.grace_ns == 0;
}

/* Out of all lists; the members stay. What waited for its turn behind this set may be due now. */
static void set_detach(struct join *join, struct join_set *set)
{
    struct join_set_list *const lists[] = {[JOIN_IN_WINDOW] = &join->waiting, [JOIN_IN_GRACE] = &join->grace, [JOIN_DUE] = &join->due};
    struct join_stamp *stamp = set->of_stamp;
    struct join_key *key = stamp->of_key;
    TAILQ_REMOVE(lists[set->wait], set, timer);
    if (set->wait != JOIN_IN_WINDOW) {
        TAILQ_REMOVE(&key->ready, set, in_ready);
        struct join_set *next = TAILQ_FIRST(&key->ready);
        if (next && next->wait == JOIN_IN_GRACE && is_done(join, next))
            set_move(join, next, JOIN_DUE);
    }
    hash_table_remove(&join->ids, &set->by_id);
    TAILQ_REMOVE(&stamp->by_sides[set->sides], set, in_stamp);
    stamp->set_count--;
    TAILQ_REMOVE(&key->sets, set, in_key);
    stamp_put(join, stamp);
    key_put(join, key);
    join->open_count--;
}

static void set_free(struct join *join, struct join_set *set)
{
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++)
        if (set->members[side])
            member_free(join, set->members[side]);
    free(set);
}

static void set_close(struct join *join, struct join_set *set)
{
    set_detach(join, set);
    set_free(join, set);
}

void join_fini(struct join *join)
{
    struct join_set *set;
    while ((set = TAILQ_FIRST(&join->waiting)) || (set = TAILQ_FIRST(&join->grace)) || (set = TAILQ_FIRST(&join->due)))
        set_close(join, set);
    hash_table_fini(&join->ids);
    hash_table_fini(&join->stamps);
    hash_table_fini(&join->keys);
    finished_fini(&join->finished);
}

static bool set_is_near(const struct join *join, const struct join_set *set, const struct stage_item *item)
{
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++)
        if (set->members[side])
            return ops(join)->same_set(join->stage, &set->members[side]->item, item);
    return false;
}

static bool slot_is_free(const struct join_set *set, const struct stage_item *item)
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
        if (set->of_stamp == stamp && strcmp(set->id, name->id) == 0 && (!found || slot_is_free(set, item) || !slot_is_free(found, item)))
            found = set;
    }
    return found;
}

static struct join_set *older(struct join_set *a, struct join_set *b)
{
    return !a || (b && b->first_ns < a->first_ns) ? b : a;
}

/* The oldest set of a stamp among those that have been longest with the sides that they have, `sides & mask` being equal to `value`. */
static struct join_set *find_by_sides(const struct join_stamp *stamp, unsigned mask, unsigned value)
{
    struct join_set *oldest = NULL;
    for (unsigned sides = 0; sides < JOIN_SIDE_MASKS; sides++)
        if ((sides & mask) == value)
            oldest = older(oldest, TAILQ_FIRST(&stamp->by_sides[sides]));
    return oldest;
}

/* The open set of this very stamp to which an item belongs, or NULL: the one of its id, or else the one that knows no id yet; for an item
 * without id one that lacks its side, or else any. */
static struct join_set *find_named(const struct join *join, const struct set_name *name, const struct stage_item *item)
{
    const struct join_stamp *stamp = find_stamp(join, find_key(join, name), name);
    if (!stamp)
        return NULL;
    if (!*name->id) {
        struct join_set *set = find_by_sides(stamp, 1u << item->side, 0);
        return set ? set : find_by_sides(stamp, 0, 0);
    }
    struct set_name nameless = *name;
    nameless.id = "";
    struct join_set *set = find_by_id(join, stamp, name, item);
    return set ? set : find_by_id(join, stamp, &nameless, item);
}

static bool ids_fit(const char *a, const char *b)
{
    return !*a || !*b || strcmp(a, b) == 0;
}

/* The same by stamps that are only near: a known and equal id before an unknown one, then the oldest. The slot must be free: a taken one
 * means the next hole, not a repeat. */
static struct join_set *find_near(const struct join *join, const struct set_name *name, const struct stage_item *item)
{
    const struct join_key *key = ops(join)->same_set ? find_key(join, name) : NULL;
    struct join_set *best = NULL, *set = key ? TAILQ_FIRST(&key->sets) : NULL;
    for (unsigned i = 0; set && i < JOIN_NEAR_SETS_MAX; i++, set = TAILQ_NEXT(set, in_key))
        if (slot_is_free(set, item) && ids_fit(set->id, item->id) && set_is_near(join, set, item) &&
            (!best || !*best->id || !*item->id || *set->id))
            best = set;
    return best;
}

/* ---- texts ---- */

/* Keys and stamps come from outside, and a text may have been cut inside a character. */
static void mend_text(char *text)
{
    size_t length = strlen(text), size;
    uint32_t code_point;
    for (size_t i = 0; i < length; i += size) {
        size = text_utf8_decode(text + i, length - i, &code_point);
        if (size == 0) {
            text[i] = '?';
            size = 1;
        }
    }
}

static void name_sides(const struct join *join, unsigned sides, char text[SIDES_TEXT_MAX])
{
    size_t length = 0;
    text[0] = 0;
    for (unsigned side = 0; side < ops(join)->side_count && length < SIDES_TEXT_MAX; side++)
        if (sides & 1u << side)
            length += (size_t)snprintf(text + length, SIDES_TEXT_MAX - length, "%s%s", length ? ", " : "", ops(join)->side_names[side]);
}

/* "KEY at STAMP (id ID)" */
static void name_set(const struct set_name *name, char text[STAGE_ERROR_TEXT_MAX])
{
    int key_length = name->key_length < KEY_TEXT_MAX ? (int)name->key_length : KEY_TEXT_MAX;
    snprintf(text, STAGE_ERROR_TEXT_MAX, "%.*s at %s%s%s%s", key_length, name->key, name->stamp, *name->id ? " (id " : "", name->id,
             *name->id ? ")" : "");
}

static void explain(struct join_decisions *decisions, const char *before, const struct set_name *name, const char *after)
{
    char set_text[STAGE_ERROR_TEXT_MAX];
    name_set(name, set_text);
    int length = snprintf(decisions->error, sizeof decisions->error, "%s %s%s", before, set_text, after);
    if (length >= (int)sizeof decisions->error)
        memcpy(decisions->error + sizeof decisions->error - 4, "...", 4);
    mend_text(decisions->error);
}

/* ---- decisions ---- */

static void settle(struct join_decisions *decisions, uint64_t offset, enum queue_outcome outcome, const char *reason)
{
    assert(decisions->count < JOIN_SETTLEMENTS_MAX);
    decisions->settlements[decisions->count++] = (struct join_settlement){.offset = offset, .outcome = outcome, .reason = reason};
}

static void clear(struct join_decisions *decisions)
{
    decisions->count = 0;
    decisions->error[0] = 0;
    decisions->answer = NULL;
}

/* Has the content of a member read again if it was dropped. When that fails the member is lost: dead-lettered and broken. */
static bool load_content(struct join *join, struct join_set *set, struct join_member *member, struct join_decisions *decisions)
{
    if (!member->dropped)
        return true;
    struct stage_item item;
    int error = join->reload ? join->reload(join->reload_context, set, member, &item) : ERR_NOT_SUPPORTED;
    if (error) {
        struct set_name name = name_of(set);
        char after[96];
        snprintf(after, sizeof after, ": %s", error_text(error));
        explain(decisions, "the message was put aside to save memory and could not be read again, for", &name, after);
        settle(decisions, member->offset, QUEUE_DEAD_LETTERED, "internal");
        member->item.broken = true;
    } else {
        member->item.data = item.data;
        member->item.held_bytes = item.held_bytes;
        member->is_freed = false;
        hold(join, member);
    }
    member->dropped = false;
    return error == 0;
}

static void answer(struct join *join, struct join_set *set, struct join_decisions *decisions)
{
    for (unsigned side = 0; side < ops(join)->side_count; side++)
        if (set->members[side])
            load_content(join, set, set->members[side], decisions);
    set_detach(join, set);
    decisions->answer = set;
}

static bool has_good_member(const struct join_set *set)
{
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++)
        if (set->members[side] && !set->members[side]->item.broken)
            return true;
    return false;
}

/* All required sides are there, as of now_ns: it takes its place behind those of its key that became ready before it. */
static void set_ready(struct join *join, struct join_set *set, uint64_t now_ns)
{
    set_move(join, set, JOIN_IN_GRACE);
    set->ready_ns = now_ns;
    TAILQ_INSERT_TAIL(&set->of_stamp->of_key->ready, set, in_ready);
}

static void answer_in_turn(struct join *join, struct join_set *set, struct join_decisions *decisions)
{
    if (set->wait != JOIN_IN_WINDOW && is_done(join, set) && set == TAILQ_FIRST(&set->of_stamp->of_key->ready))
        answer(join, set, decisions);
}

static void answer_if_complete(struct join *join, struct join_set *set, uint64_t now_ns, struct join_decisions *decisions)
{
    unsigned required = ops(join)->required;
    if (set->wait == JOIN_IN_WINDOW && (set->sides & required) == required && has_good_member(set))
        set_ready(join, set, now_ns);
    answer_in_turn(join, set, decisions);
}

/* A repeat is dead-lettered for whoever asked to see repeats, else merely counted. `after`: what became of the first. */
static void settle_repeat(struct join *join, const struct join_message *message, const struct set_name *name, unsigned side,
                          const char *after, struct join_decisions *decisions)
{
    if (join->options.duplicates != PIPELINE_DUPLICATES_ERROR) {
        settle(decisions, message->offset, QUEUE_DUPLICATE, NULL);
        return;
    }
    char before[SIDES_TEXT_MAX];
    snprintf(before, sizeof before, "a second %s for", ops(join)->side_names[side]);
    explain(decisions, before, name, after);
    settle(decisions, message->offset, QUEUE_DEAD_LETTERED, "duplicate");
}

/* A message whose set was answered. */
static void settle_finished(struct join *join, const struct join_message *message, const struct set_name *name,
                            const struct stage_item *item, bool late, struct join_decisions *decisions)
{
    if (item->broken)
        return;
    if (!late) {
        settle_repeat(join, message, name, item->side, ", which was answered", decisions);
        return;
    }
    char before[SIDES_TEXT_MAX];
    snprintf(before, sizeof before, "the %s came after the answer for", ops(join)->side_names[item->side]);
    explain(decisions, before, name, " had gone without it");
    settle(decisions, message->offset, QUEUE_DEAD_LETTERED, "late");
}

/* Whether the message was one of a finished set, and so is done with. */
static bool is_finished(struct join *join, const struct join_message *message, const struct set_name *name, const struct stage_item *item,
                        enum finished_match match, struct join_decisions *decisions)
{
    unsigned found = finished_find(&join->finished, name, item->side, match);
    bool optional = !(ops(join)->required & 1u << item->side);
    bool late = optional && found & FINISHED_WITHOUT_SIDE;
    if (!late && !(found & FINISHED_WITH_SIDE))
        return false;
    settle_finished(join, message, name, item, late, decisions);
    return true;
}

/* A second message for a taken slot: it stays outside (false), or the slot is to be freed for it (true). */
static bool second_takes_slot(struct join *join, struct join_set *set, const struct join_message *message, const struct stage_item *item,
                              struct join_decisions *decisions)
{
    struct join_member *first = set->members[item->side];
    if (item->broken || first->item.broken)
        return !item->broken;
    if (join->options.duplicates != PIPELINE_DUPLICATES_REPLACE) {
        struct set_name name = name_of(set);
        settle_repeat(join, message, &name, item->side, "; the first one counts", decisions);
        return false;
    }
    if (!load_content(join, set, first, decisions))
        return true;
    bool same = ops(join)->same_content(join->stage, &first->item, item);
    settle(decisions, same ? message->offset : first->offset, QUEUE_DUPLICATE, NULL);
    return !same;
}

/* Puts the item into its set if it may; the set is opened when there is none. False when the item was not taken. */
static bool place(struct join *join, const struct join_message *message, const struct set_name *name, const struct stage_item *item,
                  struct join_decisions *decisions)
{
    struct join_set *set = find_named(join, name, item);
    if (!set && is_finished(join, message, name, item, FINISHED_ANY_FIT, decisions))
        return false;
    if (!set)
        set = find_near(join, name, item);
    bool opened = !set;
    if (!set)
        set = set_open(join, name, message->arrival_ns);
    struct join_member *member = set ? member_create(message, item) : NULL;
    if (!member) {
        if (set && opened)
            set_close(join, set);
        if (!item->broken) {
            explain(decisions, "out of memory at the message for", name, "");
            settle(decisions, message->offset, QUEUE_DEAD_LETTERED, "internal");
        }
        return false;
    }
    if (!slot_is_free(set, item) && !second_takes_slot(join, set, message, item, decisions)) {
        free(member);
        return false;
    }
    set_put(join, set, member);
    answer_if_complete(join, set, message->arrival_ns, decisions);
    return true;
}

void join_add(struct join *join, const struct join_message *message, struct stage_item *item, struct join_decisions *decisions)
{
    struct set_name name = {
        .key = message->key, .key_length = message->key_length, .key_hash = message->key_hash, .stamp = item->stamp, .id = item->id};
    assert(item->side < ops(join)->side_count);
    clear(decisions);
    if (is_finished(join, message, &name, item, FINISHED_SAME_ID, decisions) || !place(join, message, &name, item, decisions))
        ops(join)->item_free(join->stage, item);
}

/* ---- giving up ---- */

/* The stamp of a required member of `a` is that of one of `b`. */
static bool share_a_stamp(const struct join *join, const struct join_set *a, const struct join_set *b)
{
    for (unsigned i = 0; i < STAGE_SIDES_MAX; i++)
        for (unsigned j = 0; j < STAGE_SIDES_MAX; j++)
            if (ops(join)->required >> i & ops(join)->required >> j & 1 && a->members[i] && b->members[j] &&
                strcmp(a->members[i]->item.stamp, b->members[j]->item.stamp) == 0)
                return true;
    return false;
}

/* Of two sets of one key and stamp, whether the other has the required sides that this one lacks, no others, and another id. */
static bool is_mismatch(const struct join *join, const struct join_set *set, const struct join_set *other)
{
    unsigned required = ops(join)->required;
    return other && other != set && (other->sides & required) == (required & ~set->sides) && *set->id && *other->id &&
           strcmp(set->id, other->id) != 0 && (has_good_member(set) || has_good_member(other));
}

/* The set that has what this one lacks, under another id: what came first of it, first. Where stamps need only be near, a set may be
 * called by another stamp than those of its required members; then some more sets of the key are looked at. */
static struct join_set *find_mismatch(const struct join *join, const struct join_set *set)
{
    unsigned required = ops(join)->required, missing = required & ~set->sides;
    struct join_set *other = missing ? find_by_sides(set->of_stamp, required, missing) : NULL, *found = NULL;
    if (!missing || is_mismatch(join, set, other))
        return other;
    other = ops(join)->same_set ? TAILQ_FIRST(&set->of_stamp->of_key->sets) : NULL;
    for (unsigned i = 0; other && i < JOIN_NEAR_SETS_MAX; i++, other = TAILQ_NEXT(other, in_key))
        if (is_mismatch(join, set, other) && share_a_stamp(join, set, other))
            found = other;
    return found;
}

/* Puts the members of another set into this one. Of an optional side that both have, this set's stays. */
static void merge(struct join *join, struct join_set *set, struct join_set *other, struct join_decisions *decisions)
{
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++) {
        struct join_member *member = other->members[side];
        if (!member)
            continue;
        if (!set->members[side]) {
            set->members[side] = member;
            other->members[side] = NULL;
        } else if (!member->item.broken) {
            settle(decisions, member->offset, QUEUE_DUPLICATE, NULL);
        }
    }
    set_change_sides(set, set->sides | other->sides);
    set_close(join, other);
    set->mismatched = true;
}

static void explain_unmatched(struct join *join, const struct join_set *set, uint64_t now_ns, struct join_decisions *decisions)
{
    struct set_name name = name_of(set);
    char before[SIDES_TEXT_MAX + 16], sides[SIDES_TEXT_MAX], after[64];
    name_sides(join, ops(join)->required & ~set->sides, sides);
    snprintf(before, sizeof before, "no %s for", sides);
    snprintf(after, sizeof after, "; waited %.3f s", (double)(now_ns - set->first_ns) / ns_per_s);
    explain(decisions, before, &name, after);
}

static void give_up(struct join *join, struct join_set *set, const char *reason, struct join_decisions *decisions)
{
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++)
        if (set->members[side] && !set->members[side]->item.broken)
            settle(decisions, set->members[side]->offset, QUEUE_DEAD_LETTERED, reason);
    set_close(join, set);
}

/* The time window of a set has passed. */
static void window_passed(struct join *join, struct join_set *set, uint64_t now_ns, struct join_decisions *decisions)
{
    struct join_set *other = find_mismatch(join, set);
    if (other) {
        merge(join, set, other, decisions);
        set_ready(join, set, now_ns);
        answer_in_turn(join, set, decisions);
        return;
    }
    if (has_good_member(set))
        explain_unmatched(join, set, now_ns, decisions);
    give_up(join, set, "unmatched", decisions);
}

static uint64_t later(uint64_t time_ns, uint64_t span_ns)
{
    return span_ns < UINT64_MAX - time_ns ? time_ns + span_ns : UINT64_MAX;
}

static uint64_t window_deadline(const struct join *join)
{
    return TAILQ_EMPTY(&join->waiting) ? UINT64_MAX : later(TAILQ_FIRST(&join->waiting)->first_ns, join->options.time_window_ns);
}

static uint64_t grace_deadline(const struct join *join)
{
    return TAILQ_EMPTY(&join->grace) ? UINT64_MAX : later(TAILQ_FIRST(&join->grace)->ready_ns, join->options.grace_ns);
}

uint64_t join_deadline(const struct join *join)
{
    uint64_t window = window_deadline(join), grace = grace_deadline(join);
    if (!TAILQ_EMPTY(&join->due))
        return 0;
    return window < grace ? window : grace;
}

bool join_expire(struct join *join, uint64_t now_ns, struct join_decisions *decisions)
{
    clear(decisions);
    uint64_t deadline = join_deadline(join);
    if (deadline > now_ns || deadline == UINT64_MAX)
        return false;
    if (!TAILQ_EMPTY(&join->due))
        answer(join, TAILQ_FIRST(&join->due), decisions);
    else if (deadline == grace_deadline(join))
        answer(join, TAILQ_FIRST(&join->grace), decisions);
    else
        window_passed(join, TAILQ_FIRST(&join->waiting), now_ns, decisions);
    return true;
}

/* Of those that may be answered now the one to begin with: the head of `grace` is always the first ready set of its key. */
static struct join_set *first_ready(const struct join *join)
{
    return TAILQ_EMPTY(&join->due) ? TAILQ_FIRST(&join->grace) : TAILQ_FIRST(&join->due);
}

bool join_give_up_oldest(struct join *join, uint64_t now_ns, struct join_decisions *decisions)
{
    clear(decisions);
    struct join_set *set = TAILQ_FIRST(&join->waiting), *ready = first_ready(join);
    if (ready && (!set || ready->first_ns < set->first_ns)) {
        answer(join, ready, decisions);
        return true;
    }
    if (!set)
        return false;
    struct set_name name = name_of(set);
    char after[64];
    snprintf(after, sizeof after, "; waited %.3f s", (double)(now_ns - set->first_ns) / ns_per_s);
    explain(decisions, "too many messages wait; given up:", &name, after);
    give_up(join, set, "overflow", decisions);
    return true;
}

/* ---- finished sets ---- */

/* What a repeat of a member is called. */
static struct set_name name_of_member(const struct join_set *set, const struct join_member *member)
{
    struct set_name name = name_of(set);
    name.stamp = member->item.stamp;
    if (*member->item.id)
        name.id = member->item.id;
    return name;
}

static bool same_name(const struct set_name *a, const struct set_name *b)
{
    return strcmp(a->stamp, b->stamp) == 0 && strcmp(a->id, b->id) == 0;
}

/* A set has one name, or more when its stamps are only near or its ids disagree. A member without id is one of all ids. */
void join_finish(struct join *join, struct join_set *set, uint64_t sequence)
{
    struct set_name names[STAGE_SIDES_MAX];
    unsigned count = 0;
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++) {
        if (!set->members[side])
            continue;
        names[count] = name_of_member(set, set->members[side]);
        unsigned i = 0;
        while (!same_name(&names[i], &names[count]))
            i++;
        count += i == count;
    }
    for (unsigned i = 0; i < count; i++) {
        unsigned sides = 0;
        for (unsigned side = 0; side < STAGE_SIDES_MAX; side++) {
            const struct stage_item *item = set->members[side] ? &set->members[side]->item : NULL;
            if (item && strcmp(item->stamp, names[i].stamp) == 0 && ids_fit(item->id, names[i].id))
                sides |= 1u << side;
        }
        /* Without memory a repeat of this set would be answered again: at least once is what is promised. */
        (void)finished_add(&join->finished, sequence, &names[i], sides);
    }
    set_free(join, set);
}

int join_remember(struct join *join, uint64_t sequence, const struct set_name *name, unsigned sides)
{
    return finished_add(&join->finished, sequence, name, sides);
}

uint64_t join_oldest_set_ns(const struct join *join)
{
    const struct join_set *set = TAILQ_FIRST(&join->waiting), *ready = first_ready(join);
    uint64_t oldest = set ? set->first_ns : UINT64_MAX;
    return ready && ready->first_ns < oldest ? ready->first_ns : oldest;
}

uint64_t join_oldest_content_ns(const struct join *join)
{
    return TAILQ_EMPTY(&join->held) ? UINT64_MAX : TAILQ_FIRST(&join->held)->arrival_ns;
}
