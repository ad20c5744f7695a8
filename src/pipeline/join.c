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
    hash_table_init(&join->names);
    hash_table_init(&join->keys);
    TAILQ_INIT(&join->waiting);
    TAILQ_INIT(&join->grace);
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

static void set_put(struct join *join, struct join_set *set, struct join_member *member)
{
    unsigned side = member->item.side;
    set->members[side] = member;
    set->sides |= 1u << side;
    if (!*set->id)
        memcpy(set->id, member->item.id, sizeof set->id);
    join->waiting_count++;
    hold(join, member);
}

static void set_drop(struct join *join, struct join_set *set, unsigned side)
{
    struct join_member *member = set->members[side];
    if (!member)
        return;
    release_hold(join, member);
    join->waiting_count--;
    if (!member->is_freed)
        ops(join)->item_free(join->stage, &member->item);
    free(member);
    set->members[side] = NULL;
    set->sides &= ~(1u << side);
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

static struct join_set *set_by_name(struct hash_node *node)
{
    return (struct join_set *)(void *)node;
}

static struct join_set *set_by_key(struct hash_node *node)
{
    return (struct join_set *)(void *)((char *)node - offsetof(struct join_set, by_key));
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

static struct join_set *set_open(struct join *join, const struct set_name *name, uint64_t arrival_ns)
{
    struct join_set *set = calloc(1, sizeof *set + name->key_length + 1);
    if (!set)
        return NULL;
    set->first_ns = arrival_ns;
    set->key_hash = name->key_hash;
    set->key_length = name->key_length;
    memcpy(set->key, name->key, name->key_length);
    snprintf(set->stamp, sizeof set->stamp, "%s", name->stamp);
    int error = hash_table_add(&join->names, &set->by_name, set_name_hash(name));
    if (!error && ops(join)->same_set)
        error = hash_table_add(&join->keys, &set->by_key, table_hash_of_key(name->key_hash));
    if (error) {
        hash_table_remove(&join->names, &set->by_name);
        free(set);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&join->waiting, set, timer);
    join->open_count++;
    return set;
}

/* Out of all lists; the members stay. */
static void set_detach(struct join *join, struct join_set *set)
{
    hash_table_remove(&join->names, &set->by_name);
    hash_table_remove(&join->keys, &set->by_key);
    if (set->in_grace)
        TAILQ_REMOVE(&join->grace, set, timer);
    else
        TAILQ_REMOVE(&join->waiting, set, timer);
    join->open_count--;
}

static void set_free(struct join *join, struct join_set *set)
{
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++)
        set_drop(join, set, side);
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
    while ((set = TAILQ_FIRST(&join->waiting)) || (set = TAILQ_FIRST(&join->grace)))
        set_close(join, set);
    hash_table_fini(&join->names);
    hash_table_fini(&join->keys);
    finished_fini(&join->finished);
}

static bool set_has_key(const struct join_set *set, const struct set_name *name)
{
    return set->key_length == name->key_length && memcmp(set->key, name->key, name->key_length) == 0;
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

/* How well an open set suits an item, the ids fitting: a known and equal id before an unknown one, a free slot before a taken one. */
static unsigned rank(const struct join_set *set, const struct stage_item *item)
{
    return (*set->id && *item->id ? 2u : 0u) + (slot_is_free(set, item) ? 1u : 0u);
}

static struct join_set *better(struct join_set *best, struct join_set *older, const struct stage_item *item)
{
    return !best || rank(older, item) >= rank(best, item) ? older : best;
}

static bool set_is_called(const struct join_set *set, const struct set_name *name)
{
    return set_has_key(set, name) && strcmp(set->stamp, name->stamp) == 0;
}

/* The open set of this very stamp to which an item belongs, or NULL. Of several that suit equally well the oldest. */
static struct join_set *find_named(const struct join *join, const struct set_name *name, const struct stage_item *item)
{
    struct join_set *best = NULL;
    for (struct hash_node *node = hash_table_first(&join->names, set_name_hash(name)); node; node = hash_node_next(node)) {
        struct join_set *set = set_by_name(node);
        if (set_is_called(set, name) && set_ids_fit(set->id, item->id))
            best = better(best, set, item);
    }
    return best;
}

/* The same by stamps that are only near. The slot must be free: a taken one means the next hole, not a repeat. */
static struct join_set *find_near(const struct join *join, const struct set_name *name, const struct stage_item *item)
{
    struct join_set *best = NULL;
    struct hash_node *node = ops(join)->same_set ? hash_table_first(&join->keys, table_hash_of_key(name->key_hash)) : NULL;
    for (unsigned i = 0; node && i < JOIN_NEAR_SETS_MAX; i++, node = hash_node_next(node)) {
        struct join_set *set = set_by_key(node);
        if (set_has_key(set, name) && slot_is_free(set, item) && set_ids_fit(set->id, item->id) && set_is_near(join, set, item))
            best = better(best, set, item);
    }
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

static void answer_if_complete(struct join *join, struct join_set *set, uint64_t now_ns, struct join_decisions *decisions)
{
    unsigned required = ops(join)->required;
    if ((set->sides & required) != required || !has_good_member(set))
        return;
    if (set->sides == join->all_sides || join->options.grace_ns == 0) {
        answer(join, set, decisions);
    } else if (!set->in_grace) {
        TAILQ_REMOVE(&join->waiting, set, timer);
        set->in_grace = true;
        set->ready_ns = now_ns;
        TAILQ_INSERT_TAIL(&join->grace, set, timer);
    }
}

/* A message whose set was answered. */
static void settle_finished(struct join *join, const struct join_message *message, const struct set_name *name,
                            const struct stage_item *item, bool late, struct join_decisions *decisions)
{
    if (item->broken)
        return;
    if (!late) {
        settle(decisions, message->offset, QUEUE_DUPLICATE, NULL);
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
    if (join->options.duplicates == PIPELINE_DUPLICATES_IGNORE) {
        settle(decisions, message->offset, QUEUE_DUPLICATE, NULL);
        return false;
    }
    if (!load_content(join, set, first, decisions))
        return true;
    if (ops(join)->same_content(join->stage, &first->item, item)) {
        settle(decisions, message->offset, QUEUE_DUPLICATE, NULL);
        return false;
    }
    if (join->options.duplicates == PIPELINE_DUPLICATES_REPLACE) {
        settle(decisions, first->offset, QUEUE_DUPLICATE, NULL);
        return true;
    }
    struct set_name name = name_of(set);
    char before[SIDES_TEXT_MAX];
    snprintf(before, sizeof before, "a second %s with other content for", ops(join)->side_names[item->side]);
    explain(decisions, before, &name, "; the first one counts");
    settle(decisions, message->offset, QUEUE_DEAD_LETTERED, "duplicate");
    return false;
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
    set_drop(join, set, item->side);
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

/* Another open set of the same stamp that has what this one lacks, under another id. */
static struct join_set *find_mismatch(const struct join *join, const struct join_set *set, unsigned missing)
{
    struct set_name name = name_of(set);
    for (struct hash_node *node = hash_table_first(&join->names, set->by_name.hash); node && *set->id; node = hash_node_next(node)) {
        struct join_set *other = set_by_name(node);
        if (other != set && set_is_called(other, &name) && *other->id && other->sides & missing)
            return other;
    }
    return NULL;
}

static unsigned lowest_side(unsigned sides)
{
    return (unsigned)__builtin_ctz(sides);
}

/* Says why the set is given up; returns the reason. Two sets that lack each other's messages both name the other's id: the first to
 * go leaves its own behind. */
static const char *explain_unmatched(struct join *join, struct join_set *set, uint64_t now_ns, struct join_decisions *decisions)
{
    unsigned missing = ops(join)->required & ~set->sides;
    struct set_name name = name_of(set);
    struct join_set *other = missing ? find_mismatch(join, set, missing) : NULL;
    if (other) {
        memcpy(set->mismatch_id, other->id, sizeof set->mismatch_id);
        set->mismatch_side = lowest_side(other->sides & missing);
        unsigned other_missing = ops(join)->required & ~other->sides & set->sides;
        if (other_missing) {
            memcpy(other->mismatch_id, set->id, sizeof other->mismatch_id);
            other->mismatch_side = lowest_side(other_missing);
        }
    }
    char before[SIDES_TEXT_MAX + 16], sides[SIDES_TEXT_MAX], after[SIDES_TEXT_MAX + STAGE_ID_MAX + 64];
    name_sides(join, missing, sides);
    snprintf(before, sizeof before, "no %s for", sides);
    double waited_s = (double)(now_ns - set->first_ns) / ns_per_s;
    if (*set->mismatch_id)
        snprintf(after, sizeof after, ", but a %s with id %s; waited %.3f s", ops(join)->side_names[set->mismatch_side], set->mismatch_id,
                 waited_s);
    else
        snprintf(after, sizeof after, "; waited %.3f s", waited_s);
    explain(decisions, before, &name, after);
    return *set->mismatch_id ? "id_mismatch" : "unmatched";
}

static void give_up(struct join *join, struct join_set *set, const char *reason, struct join_decisions *decisions)
{
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++)
        if (set->members[side] && !set->members[side]->item.broken)
            settle(decisions, set->members[side]->offset, QUEUE_DEAD_LETTERED, reason);
    set_close(join, set);
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
    return window < grace ? window : grace;
}

bool join_expire(struct join *join, uint64_t now_ns, struct join_decisions *decisions)
{
    clear(decisions);
    uint64_t deadline = join_deadline(join);
    if (deadline > now_ns || deadline == UINT64_MAX)
        return false;
    if (deadline == grace_deadline(join)) {
        answer(join, TAILQ_FIRST(&join->grace), decisions);
        return true;
    }
    struct join_set *set = TAILQ_FIRST(&join->waiting);
    give_up(join, set, has_good_member(set) ? explain_unmatched(join, set, now_ns, decisions) : NULL, decisions);
    return true;
}

bool join_give_up_oldest(struct join *join, uint64_t now_ns, struct join_decisions *decisions)
{
    clear(decisions);
    struct join_set *set = TAILQ_FIRST(&join->waiting), *ready = TAILQ_FIRST(&join->grace);
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

void join_finish(struct join *join, struct join_set *set, uint64_t sequence)
{
    unsigned named = 0; /* sides whose stamp is remembered; with near stamps a set has more than one */
    for (unsigned side = 0; side < STAGE_SIDES_MAX; side++) {
        if (!(set->sides & 1u << side) || named & 1u << side)
            continue;
        struct set_name name = name_of(set);
        name.stamp = set->members[side]->item.stamp;
        unsigned sides = 0;
        for (unsigned other = side; other < STAGE_SIDES_MAX; other++)
            if (set->members[other] && strcmp(set->members[other]->item.stamp, name.stamp) == 0)
                sides |= 1u << other;
        /* Without memory a repeat of this set would be answered again: at least once is what is promised. */
        (void)finished_add(&join->finished, sequence, &name, sides);
        named |= sides;
    }
    set_free(join, set);
}

int join_remember(struct join *join, uint64_t sequence, const struct set_name *name, unsigned sides)
{
    return finished_add(&join->finished, sequence, name, sides);
}

uint64_t join_oldest_set_ns(const struct join *join)
{
    const struct join_set *set = TAILQ_FIRST(&join->waiting), *ready = TAILQ_FIRST(&join->grace);
    uint64_t oldest = set ? set->first_ns : UINT64_MAX;
    return ready && ready->first_ns < oldest ? ready->first_ns : oldest;
}

uint64_t join_oldest_content_ns(const struct join *join)
{
    return TAILQ_EMPTY(&join->held) ? UINT64_MAX : TAILQ_FIRST(&join->held)->arrival_ns;
}
