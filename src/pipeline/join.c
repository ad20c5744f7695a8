#include "pipeline/join.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "pipeline/join_sets.h"

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

void join_fini(struct join *join)
{
    struct join_set *set;
    while ((set = TAILQ_FIRST(&join->waiting)) || (set = TAILQ_FIRST(&join->grace)) || (set = TAILQ_FIRST(&join->due)))
        join_set_close(join, set);
    hash_table_fini(&join->ids);
    hash_table_fini(&join->stamps);
    hash_table_fini(&join->keys);
    finished_fini(&join->finished);
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
        struct set_name name = join_set_name(set);
        char after[96];
        snprintf(after, sizeof after, ": %s", error_text(error));
        explain(decisions, "the message was put aside to save memory and could not be read again, for", &name, after);
        settle(decisions, member->offset, QUEUE_DEAD_LETTERED, "internal");
        member->item.broken = true;
    } else {
        member->item.data = item.data;
        member->item.held_bytes = item.held_bytes;
        member->is_freed = false;
        join_member_hold(join, member);
    }
    member->dropped = false;
    return error == 0;
}

/* `lone` has nothing but this side, which the other lacks. */
static void move_member(struct join *join, struct join_set *lone, struct join_set *set, unsigned side)
{
    set->members[side] = lone->members[side];
    lone->members[side] = NULL;
    join_set_change_sides(set, set->sides | 1u << side);
    join_set_close(join, lone);
}

/* An optional side that waits alone, because its hint called for another set, is better here than nowhere. */
static void take_lone_members(struct join *join, struct join_set *set)
{
    for (unsigned side = 0; side < ops(join)->side_count; side++) {
        struct join_set *lone = (ops(join)->required | set->sides) & 1u << side ? NULL : join_find_lone(join, set, side);
        if (lone)
            move_member(join, lone, set, side);
    }
}

static void judge_hints(struct join *join, const struct join_set *set)
{
    for (unsigned side = 0; *set->id && side < STAGE_SIDES_MAX; side++) {
        const struct stage_item *item = set->members[side] ? &set->members[side]->item : NULL;
        if (item && item->id_is_hint && *item->id)
            join->distrusts_hints = strcmp(item->id, set->id) != 0;
    }
}

static void answer(struct join *join, struct join_set *set, struct join_decisions *decisions)
{
    take_lone_members(join, set);
    judge_hints(join, set);
    for (unsigned side = 0; side < ops(join)->side_count; side++)
        if (set->members[side])
            load_content(join, set, set->members[side], decisions);
    join_set_detach(join, set);
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
    join_set_move(join, set, JOIN_IN_GRACE);
    set->ready_ns = now_ns;
    TAILQ_INSERT_TAIL(&set->of_stamp->of_key->ready, set, in_ready);
}

static void answer_in_turn(struct join *join, struct join_set *set, struct join_decisions *decisions)
{
    if (set->wait != JOIN_IN_WINDOW && join_set_is_done(join, set) && set == TAILQ_FIRST(&set->of_stamp->of_key->ready))
        answer(join, set, decisions);
}

static void answer_if_complete(struct join *join, struct join_set *set, uint64_t now_ns, struct join_decisions *decisions)
{
    unsigned required = ops(join)->required;
    if (set->wait == JOIN_IN_WINDOW && (set->sides & required) == required && has_good_member(set)) {
        set_ready(join, set, now_ns);
        if (join->distrusts_hints)
            take_lone_members(join, set);
    }
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
    bool late = optional && found & FINISHED_WITHOUT_SIDE && !message->again;
    bool repeated = found & FINISHED_WITH_SIDE && !message->was_refused;
    if (!late && !repeated)
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
        struct set_name name = join_set_name(set);
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
    struct join_set *set = join_find_named(join, name, item);
    if (!set && is_finished(join, message, name, item, FINISHED_ANY_FIT, decisions))
        return false;
    if (!set)
        set = join_find_near(join, name, item);
    bool opened = !set;
    if (!set)
        set = join_set_open(join, name, message->arrival_ns);
    struct join_member *member = set ? join_member_create(message, item) : NULL;
    if (!member) {
        if (set && opened)
            join_set_close(join, set);
        if (!item->broken) {
            explain(decisions, "out of memory at the message for", name, "");
            settle(decisions, message->offset, QUEUE_DEAD_LETTERED, "internal");
        }
        return false;
    }
    if (!join_slot_is_free(set, item) && !second_takes_slot(join, set, message, item, decisions)) {
        free(member);
        return false;
    }
    join_set_put(join, set, member);
    answer_if_complete(join, set, message->arrival_ns, decisions);
    return true;
}

void join_add(struct join *join, const struct join_message *message, struct stage_item *item, struct join_decisions *decisions)
{
    struct set_name name = {
        .key = message->key, .key_length = message->key_length, .key_hash = message->key_hash, .stamp = item->stamp, .id = item->id};
    assert(item->side < ops(join)->side_count);
    clear(decisions);
    bool finished = is_finished(join, message, &name, item, FINISHED_SAME_ID, decisions);
    if (item->id_is_hint && join->distrusts_hints && !join_find_named(join, &name, item))
        name.id = "";
    if (finished || !place(join, message, &name, item, decisions))
        ops(join)->item_free(join->stage, item);
}

bool join_drop_oldest_content(struct join *join)
{
    if (!join->reload || TAILQ_EMPTY(&join->held))
        return false;
    join_member_drop_content(join, TAILQ_FIRST(&join->held));
    return true;
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

/* The set that has what this one lacks, under another id: what came first of it, first. One without any required side lacks too much. Where
 * stamps need only be near, a set may be called by another stamp than those of its required members; then some more sets of the key are
 * looked at. */
static struct join_set *find_mismatch(const struct join *join, const struct join_set *set)
{
    unsigned required = ops(join)->required, missing = required & ~set->sides;
    struct join_set *other = missing ? join_find_by_sides(set->of_stamp, required, missing) : NULL, *found = NULL;
    if (missing == required)
        return NULL;
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
    join_set_change_sides(set, set->sides | other->sides);
    join_set_close(join, other);
    set->mismatched = true;
}

static void explain_unmatched(struct join *join, const struct join_set *set, uint64_t now_ns, struct join_decisions *decisions)
{
    struct set_name name = join_set_name(set);
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
    join_set_close(join, set);
}

/* The window of a set of optional sides has passed. A hint that nobody answered to may have kept them from where they belong, be it that
 * this was answered by now. False when they belong nowhere. */
static bool place_lone(struct join *join, struct join_set *set, struct join_decisions *decisions)
{
    unsigned side = 0;
    while (!set->members[side])
        side++;
    struct join_member *member = set->members[side];
    struct join_set *ready = set->sides == 1u << side ? join_find_ready(join, set, side) : NULL;
    if (ready) {
        move_member(join, set, ready, side);
        answer_in_turn(join, ready, decisions);
        return true;
    }
    struct set_name name = join_set_name(set);
    name.id = "";
    const struct join_message message = {.offset = member->offset, .again = member->again, .was_refused = member->was_refused};
    if (set->sides != 1u << side || !is_finished(join, &message, &name, &member->item, FINISHED_ANY_FIT, decisions))
        return false;
    join_set_close(join, set);
    return true;
}

/* The time window of a set has passed. */
static void window_passed(struct join *join, struct join_set *set, uint64_t now_ns, struct join_decisions *decisions)
{
    if (!(set->sides & ops(join)->required) && place_lone(join, set, decisions))
        return;
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

void join_restart(struct join *join, uint64_t now_ns)
{
    for (struct join_set *set = TAILQ_FIRST(&join->waiting); set; set = TAILQ_NEXT(set, timer))
        set->first_ns = now_ns;
    for (struct join_set *set = TAILQ_FIRST(&join->grace); set; set = TAILQ_NEXT(set, timer))
        set->ready_ns = now_ns;
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
    struct set_name name = join_set_name(set);
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
    struct set_name name = join_set_name(set);
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
            if (item && strcmp(item->stamp, names[i].stamp) == 0 && (item->id_is_hint || join_ids_fit(item->id, names[i].id)))
                sides |= 1u << side;
        }
        /* Without memory a repeat of this set would be answered again: at least once is what is promised. */
        (void)finished_add(&join->finished, sequence, &names[i], sides);
    }
    join_set_free(join, set);
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
