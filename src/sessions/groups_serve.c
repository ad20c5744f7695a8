/* A durable group: its place in the follower, and to whom what comes from there goes.
 *
 * What has come back is wanted again of the follower, which takes that with a new membership alone: so the group leaves it and joins anew,
 * at its position, as soon as some member has room. What was handed to the former one by then is the former's: its number is gone. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "mqtt/topic.h"
#include "sessions/groups_parts.h"

/* ---- in the follower ---- */

static bool has_number(const void *item, const void *key)
{
    return ((const struct group *)item)->number == *(const uint64_t *)key;
}

struct group *group_find_number(const struct groups *groups, uint64_t number)
{
    return table_find(&groups->numbers, hash_bytes(&number, sizeof number, 0), has_number, &number);
}

static void leave_follower(struct group *group)
{
    if (!group->follower)
        return;
    follower_leave(group->follower);
    table_remove(&group->groups->numbers, hash_bytes(&group->number, sizeof group->number, 0), group);
    group->follower = NULL;
}

/* How far all was handed out. */
static struct follower_places position_of(const struct group *group)
{
    struct follower_places position = group->position, passed;
    uint64_t handed;
    if (!group->follower || group->lost)
        return position;
    follower_passed(group->follower, &handed, &passed);
    for (unsigned c = 0; c < FOLLOWER_CONTENTS && handed == group->handed; c++)
        if (passed.at[c] > position.at[c])
            position.at[c] = passed.at[c];
    return position;
}

static int by_place(const struct group_owed *one, const struct group_owed *other)
{
    if (one->content != other->content)
        return one->content < other->content ? -1 : 1;
    return one->offset < other->offset ? -1 : one->offset > other->offset;
}

/* All that has come back, in order. */
static size_t list_again(struct group *group, struct follower_again *again)
{
    struct group_owed *each;
    size_t count = 0;
    DL_SORT(group->returned, by_place);
    DL_FOREACH(group->returned, each)
    {
        each->asked = true;
        again[count++] = (struct follower_again){.offset = each->offset, .content = each->content, .qos = 1};
    }
    group->unasked = 0;
    return count;
}

static int join_follower(struct group *group, const struct follower_again *again, size_t count)
{
    struct groups *groups = group->groups;
    uint64_t number = ++groups->last_number;
    size_t prefix = mqtt_topic_share_length(group->filter, group->length);
    struct router_subscription how = {.qos = 2};
    struct follower_places from = {{0}};
    struct follower_join who = {.loop = GROUPS_LOOP,
                                .connection = (uint32_t)(number >> 32),
                                .generation = (uint32_t)number,
                                .places = group->position,
                                .again = again,
                                .again_count = count};
    int error = table_reserve(&groups->numbers, SIZE_MAX);
    if (!error)
        error = follower_join(groups->follower, &who, &group->follower);
    if (error)
        return error;
    group->number = number;
    group->handed = group->handed_bytes = 0;
    group->lost = false;
    table_insert(&groups->numbers, hash_bytes(&number, sizeof number, 0), group);
    error = follower_subscribe(group->follower, group->filter + prefix, group->length - prefix, &how, &from);
    if (error)
        leave_follower(group);
    return error;
}

/* Without memory it is tried again with the next look. */
static void rejoin(struct group *group)
{
    struct follower_again *again = malloc((group->returned_count + 1) * sizeof *again);
    if (!again)
        return;
    group->position = position_of(group);
    leave_follower(group);
    size_t count = list_again(group, again);
    if (join_follower(group, again, count)) {
        struct group_owed *each;
        DL_FOREACH(group->returned, each)
        each->asked = false;
        group->unasked = group->returned_count;
    }
    free(again);
}

/* ---- room ---- */

static bool has_room(const struct group_member *member)
{
    return !member->retired && member->granted > member->handed && member->granted_bytes > member->handed_bytes;
}

void group_add_room(const struct group_member *member)
{
    if (!has_room(member))
        return;
    member->group->room += member->granted - member->handed;
    member->group->room_bytes += member->granted_bytes - member->handed_bytes;
}

void group_take_room(const struct group_member *member)
{
    if (!has_room(member))
        return;
    member->group->room -= member->granted - member->handed;
    member->group->room_bytes -= member->granted_bytes - member->handed_bytes;
}

/* What has come back is handed out in any case: it is what the cursor waits for. */
static void grant(struct group *group)
{
    uint64_t owed = group->owed < GROUP_OWED_MAX ? GROUP_OWED_MAX - group->owed : 0;
    uint64_t used = (uint64_t)group->given + group->owed, given = used < GROUP_GIVEN_MAX ? GROUP_GIVEN_MAX - used : 0;
    uint64_t most = owed < given ? owed : given;
    uint64_t asked = group->returned_count - group->unasked;
    most = most < asked ? asked : most;
    group->limited = group->room > most;
    follower_grant(group->follower, group->handed + (group->limited ? most : group->room), group->handed_bytes + group->room_bytes);
}

/* What it has asked for and lies before the places is not kept any more, or cannot be read. */
static void drop_gone(struct group *group)
{
    struct follower_places passed;
    struct group_owed *each, *next;
    uint64_t handed;
    follower_passed(group->follower, &handed, &passed);
    if (handed != group->handed)
        return;
    DL_FOREACH_SAFE(group->returned, each, next)
    {
        if (!each->asked || each->offset >= passed.at[each->content])
            continue;
        DL_DELETE(group->returned, each);
        group->returned_count--;
        free(each);
    }
}

void group_pump(struct group *group)
{
    if (!group->session || !group->groups->follower)
        return;
    if (group->room && (!group->follower || group->lost || group->unasked))
        rejoin(group);
    if (!group->follower)
        return;
    grant(group);
    if (group->returned_count > group->unasked)
        drop_gone(group);
}

/* ---- handing out ---- */

static bool is_known(const struct group *group, uint8_t content, uint64_t offset)
{
    uint32_t low = 0, high = group->known_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct session_sent *known = &group->known[middle];
        if (known->content < content || (known->content == content && known->offset < offset))
            low = middle + 1;
        else
            high = middle;
    }
    return low < group->known_count && group->known[low].content == content && group->known[low].offset == offset;
}

void group_take_back(struct group *group, struct group_owed *owed)
{
    if (!group->session) {
        free(owed);
        return;
    }
    owed->asked = false;
    DL_APPEND(group->returned, owed);
    group->returned_count++;
    group->unasked++;
    group->changed = true;
}

static struct group_owed *find_returned(const struct group *group, uint8_t content, uint64_t offset)
{
    struct group_owed *each;
    DL_FOREACH(group->returned, each)
    {
        if (each->asked && each->content == content && each->offset == offset)
            return each;
    }
    return NULL;
}

/* To the next in turn that has room. */
static bool hand_out(struct group *group, const struct follower_delivery *delivery, struct group_owed *owed, uint64_t bytes)
{
    const struct groups_options *options = &group->groups->options;
    struct group_member *member = group->members;
    while (member && !has_room(member))
        member = member->next;
    if (!member || !options->hand(options->context, delivery, &member->how, member->number, owed))
        return false;
    group_take_room(member);
    member->handed++;
    member->handed_bytes += bytes;
    group_add_room(member);
    DL_APPEND(member->owed, owed);
    group->owed++;
    DL_DELETE(group->members, member);
    DL_APPEND(group->members, member);
    return true;
}

static void take_new(struct group *group, const struct follower_delivery *delivery, uint64_t bytes)
{
    uint64_t offset = delivery->message->offset, *position = &group->position.at[delivery->content];
    if (group->lost || offset < *position)
        return;
    bool known = group->known_count && is_known(group, delivery->content, offset);
    struct group_owed *owed = known ? NULL : malloc(sizeof *owed);
    group->lost = !known && !owed;
    if (group->lost)
        return;
    *position = offset + 1;
    if (known)
        return;
    *owed = (struct group_owed){.offset = offset, .content = delivery->content};
    if (!hand_out(group, delivery, owed, bytes))
        group_take_back(group, owed);
}

static void take_again(struct group *group, const struct follower_delivery *delivery, uint64_t bytes)
{
    struct group_owed *owed = find_returned(group, delivery->content, delivery->message->offset);
    if (!owed)
        return;
    DL_DELETE(group->returned, owed);
    group->returned_count--;
    if (!hand_out(group, delivery, owed, bytes))
        group_take_back(group, owed);
}

void groups_deliver(struct groups *groups, const struct follower_delivery *delivery)
{
    const struct message *message = delivery->message;
    uint64_t bytes = (uint64_t)message->topic_length + message->properties_length + message->payload_length;
    pthread_mutex_lock(&groups->lock);
    for (uint32_t i = 0; i < delivery->target_count; i++) {
        const struct router_subscription *target = &delivery->targets[i];
        struct group *group = group_find_number(groups, (uint64_t)target->connection << 32 | target->generation);
        if (!group)
            continue;
        group->handed++;
        group->handed_bytes += bytes;
        if (delivery->again)
            take_again(group, delivery, bytes);
        else
            take_new(group, delivery, bytes);
        grant(group);
    }
    pthread_mutex_unlock(&groups->lock);
}

/* ---- how far it has come ---- */

static void lower(struct follower_places *places, const struct group_owed *list)
{
    const struct group_owed *each;
    DL_FOREACH(list, each)
    {
        if (each->offset < places->at[each->content])
            places->at[each->content] = each->offset;
    }
}

struct follower_places group_cursor(const struct group *group)
{
    struct follower_places cursor = position_of(group);
    const struct group_member *member;
    lower(&cursor, group->returned);
    DL_FOREACH(group->members, member)
    lower(&cursor, member->owed);
    return cursor;
}

void group_note(struct group *group)
{
    struct sessions *sessions = group->groups->options.sessions;
    struct follower_places cursor = group_cursor(group);
    group->changed = false;
    group->rested = 0;
    if (!group->session || memcmp(&cursor, &group->noted, sizeof cursor) == 0 || sessions_advance(sessions, group->session, &cursor))
        return; /* or else the next time */
    group->noted = cursor;
    group->given = sessions_given(sessions, group->session);
    if (group->limited && group->follower)
        grant(group);
}

/* ---- beginning and ending ---- */

static int put_sent(void *context, const struct session_sent *sent)
{
    struct group *group = context;
    struct session_sent *known = realloc(group->known, (group->known_count + 1) * sizeof *known);
    if (!known)
        return ERR_NO_MEMORY;
    group->known = known;
    known[group->known_count++] = *sent;
    return 0;
}

/* What was given comes first of those at one place. */
static int by_sent(const void *a, const void *b)
{
    const struct session_sent *one = a, *other = b;
    if (one->content != other->content)
        return one->content < other->content ? -1 : 1;
    if (one->offset != other->offset)
        return one->offset < other->offset ? -1 : 1;
    return (one->state != SESSION_DONE) - (other->state != SESSION_DONE);
}

/* What waits comes back; of what was given that stays which the follower has not come by. */
static int sort_out(struct group *group)
{
    uint32_t kept = 0;
    struct session_sent *known = group->known;
    if (group->known_count)
        qsort(known, group->known_count, sizeof *known, by_sent);
    for (uint32_t i = 0; i < group->known_count; i++) {
        const struct session_sent one = known[i];
        bool twice = i > 0 && known[i - 1].content == one.content && known[i - 1].offset == one.offset;
        struct group_owed *owed = one.state == SESSION_DONE || twice ? NULL : malloc(sizeof *owed);
        if (owed) {
            *owed = (struct group_owed){.offset = one.offset, .content = one.content};
            group_take_back(group, owed);
        } else if (one.state != SESSION_DONE && !twice) {
            return ERR_NO_MEMORY;
        }
    }
    for (uint32_t i = 0; i < group->known_count; i++)
        if (known[i].state == SESSION_DONE && known[i].offset >= group->position.at[known[i].content])
            known[kept++] = known[i];
    group->known_count = kept;
    return 0;
}

void group_end(struct group *group)
{
    leave_follower(group);
    group->session = NULL;
    atomic_store(&group->durable, false);
    while (group->returned) {
        struct group_owed *gone = group->returned;
        DL_DELETE(group->returned, gone);
        free(gone);
    }
    group->returned_count = group->unasked = group->given = 0;
    free(group->known);
    group->known = NULL;
    group->known_count = 0;
    group->limited = group->lost = false;
}

void group_begin(struct group *group)
{
    struct sessions *sessions = group->groups->options.sessions;
    struct session_visitor visitor = {.context = group, .sent = put_sent};
    uint16_t next_id;
    group->retry = false;
    group->session = sessions_group_attach(sessions, group->filter, group->length);
    if (!group->session)
        return;
    int error = sessions_visit(sessions, group->session, &visitor, &group->noted, &group->position, &next_id);
    if (!error)
        error = sort_out(group);
    if (error) {
        sessions_detach(sessions, group->session, NULL);
        group_end(group);
        group->retry = true;
        return;
    }
    group->given = sessions_given(sessions, group->session);
    atomic_store(&group->durable, true);
    group_pump(group);
}

/* What has come back, and what was given and lies before the follower. NULL without memory, or for more than a session remembers: it is
 * as it was noted last then, and what was settled since comes again. */
static struct session_sent *list_sent(const struct group *group, const struct follower_places *position, size_t *count)
{
    size_t most = (size_t)group->returned_count + group->known_count;
    struct session_sent *list = most <= SESSIONS_SENT_MAX ? malloc((most + 1) * sizeof *list) : NULL;
    const struct group_owed *each;
    *count = 0;
    DL_FOREACH(group->returned, each)
    {
        if (list)
            list[(*count)++] = (struct session_sent){.offset = each->offset, .packet_id = 1, .content = each->content, .qos = 1};
    }
    for (uint32_t i = 0; list && i < group->known_count; i++)
        if (group->known[i].offset >= position->at[group->known[i].content])
            list[(*count)++] = group->known[i];
    return list;
}

void group_stop(struct group *group)
{
    struct sessions *sessions = group->groups->options.sessions;
    struct sessions_leave leave = {.expiry_s = SESSIONS_NEVER, .wall_ns = clock_wall_ns(), .next_id = 1};
    if (group->session) {
        leave.position = position_of(group);
        leave.cursor = group_cursor(group);
        leave.sent = list_sent(group, &leave.position, &leave.sent_count);
        sessions_detach(sessions, group->session, leave.sent ? &leave : NULL);
        free((void *)(uintptr_t)leave.sent);
    }
    group_end(group);
}
