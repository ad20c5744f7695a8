/* Groups and their members, as those who serve connections know them. */
#include "sessions/groups.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "sessions/groups_parts.h"

enum { RESTS = 10 }; /* looks between two notes of a group whose members have answered nothing */

int groups_create(const struct groups_options *options, struct groups **out)
{
    struct groups *groups = calloc(1, sizeof *groups);
    if (!groups)
        return ERR_NO_MEMORY;
    groups->options = *options;
    pthread_mutex_init(&groups->lock, NULL);
    *out = groups;
    return 0;
}

void groups_destroy(struct groups *groups)
{
    if (!groups)
        return;
    table_fini(&groups->names);
    table_fini(&groups->numbers);
    pthread_mutex_destroy(&groups->lock);
    free(groups);
}

static void lock(struct groups *groups)
{
    pthread_mutex_lock(&groups->lock);
}

static void unlock(struct groups *groups)
{
    pthread_mutex_unlock(&groups->lock);
}

void groups_follow(struct groups *groups, struct follower *follower)
{
    lock(groups);
    groups->follower = follower;
    unlock(groups);
}

/* ---- groups ---- */

struct name {
    const char *filter;
    size_t length;
};

static bool has_name(const void *item, const void *key)
{
    const struct group *group = item;
    const struct name *name = key;
    return group->length == name->length && memcmp(group->filter, name->filter, name->length) == 0;
}

static struct group *find(const struct groups *groups, const char *filter, size_t length)
{
    struct name name = {filter, length};
    return table_find(&groups->names, hash_bytes(filter, length, 0), has_name, &name);
}

static struct group *find_or_make(struct groups *groups, const char *filter, size_t length)
{
    struct group *group = find(groups, filter, length);
    if (group)
        return group;
    group = calloc(1, sizeof *group + length + 1);
    if (!group || table_reserve(&groups->names, SIZE_MAX)) {
        free(group);
        return NULL;
    }
    group->groups = groups;
    group->length = (uint32_t)length;
    memcpy(group->filter, filter, length);
    table_insert(&groups->names, hash_bytes(filter, length, 0), group);
    DL_APPEND(groups->all, group);
    return group;
}

static void forget(struct group *group)
{
    struct groups *groups = group->groups;
    table_remove(&groups->names, hash_bytes(group->filter, group->length, 0), group);
    DL_DELETE(groups->all, group);
    free(group);
}

/* ---- members come and go ---- */

int group_join(struct groups *groups, const char *filter, size_t length, const struct router_subscription *how,
               struct group_member **member)
{
    struct group_member *made = calloc(1, sizeof *made);
    lock(groups);
    struct group *group = made ? find_or_make(groups, filter, length) : NULL;
    if (group) {
        made->group = group;
        made->how = *how;
        made->number = ++groups->last_number;
        DL_PREPEND(group->members, made);
        if (!group->session)
            group_begin(group);
    }
    unlock(groups);
    if (!group) {
        free(made);
        return ERR_NO_MEMORY;
    }
    *member = made;
    return 0;
}

void group_change(struct group_member *member, const struct router_subscription *how)
{
    struct groups *groups = member->group->groups;
    lock(groups);
    member->how = *how;
    if (!member->group->session) /* it may have become durable with this */
        group_begin(member->group);
    unlock(groups);
}

void group_retire(struct group_member *member)
{
    struct groups *groups = member->group->groups;
    lock(groups);
    group_take_room(member);
    member->retired = true;
    group_pump(member->group);
    unlock(groups);
}

bool group_is_finished(const struct group_member *member)
{
    struct groups *groups = member->group->groups;
    lock(groups);
    bool finished = member->retired && !member->owed;
    unlock(groups);
    return finished;
}

void group_leave(struct group_member *member)
{
    struct group *group = member->group;
    struct groups *groups = group->groups;
    lock(groups);
    while (member->owed) {
        struct group_owed *owed = member->owed;
        DL_DELETE(member->owed, owed);
        group->owed--;
        group_take_back(group, owed);
    }
    group_take_room(member);
    DL_DELETE(group->members, member);
    if (group->members) {
        group_pump(group);
    } else {
        group_stop(group);
        forget(group);
    }
    unlock(groups);
    free(member);
}

uint64_t group_member_number(const struct group_member *member)
{
    return member->number;
}

bool group_is_durable(const struct group_member *member)
{
    return atomic_load_explicit(&member->group->durable, memory_order_relaxed);
}

void group_grant(struct group_member *member, uint64_t messages, uint64_t bytes)
{
    struct groups *groups = member->group->groups;
    lock(groups);
    group_take_room(member);
    member->granted = messages;
    member->granted_bytes = bytes;
    group_add_room(member);
    group_pump(member->group);
    unlock(groups);
}

/* ---- what a member owes ---- */

static void release(struct group_member *member, struct group_owed *owed)
{
    DL_DELETE(member->owed, owed);
    member->group->owed--;
    member->group->changed = true;
}

void group_settle(struct group_member *member, struct group_owed *owed)
{
    struct groups *groups = member->group->groups;
    lock(groups);
    release(member, owed);
    free(owed);
    if (member->group->limited)
        group_pump(member->group);
    unlock(groups);
}

void group_return(struct group_member *member, struct group_owed *owed)
{
    struct groups *groups = member->group->groups;
    lock(groups);
    release(member, owed);
    group_take_back(member->group, owed);
    group_pump(member->group);
    unlock(groups);
}

int group_give(struct group_member *member, struct group_owed *owed, struct session *session, const struct session_sent *sent,
               uint64_t *place)
{
    struct group *group = member->group;
    struct groups *groups = group->groups;
    lock(groups);
    int error = sessions_give(groups->options.sessions, group->session, session, sent, place);
    if (!error) {
        release(member, owed);
        free(owed);
        if (++group->given % (GROUP_GIVEN_MAX / 8) == 0)
            group_note(group);
        if (group->limited)
            group_pump(group);
    }
    unlock(groups);
    return error;
}

/* ---- once in a while ---- */

void groups_prune(struct groups *groups)
{
    struct buffer filter;
    buffer_init(&filter, UINT16_MAX);
    lock(groups);
    while (sessions_group_unused(groups->options.sessions, &filter)) {
        struct group *group = find(groups, (const char *)filter.data, filter.length);
        if (!group || !group->session || !sessions_group_end(groups->options.sessions, group->session))
            break; /* it has got a member again, or cannot be noted at present */
        group_end(group);
    }
    unlock(groups);
    buffer_fini(&filter);
}

void groups_check(struct groups *groups)
{
    struct group *group;
    groups_prune(groups);
    lock(groups);
    DL_FOREACH(groups->all, group)
    {
        if (group->retry && !group->session)
            group_begin(group);
        if (!group->session)
            continue;
        group_pump(group);
        if (group->changed || ++group->rested >= RESTS)
            group_note(group);
    }
    unlock(groups);
}
