/* Private to groups*.c: the groups and who is a member. All is under the lock of the groups. */
#ifndef SESSIONS_GROUPS_PARTS_H
#define SESSIONS_GROUPS_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/lists.h"
#include "base/table.h"
#include "sessions/groups.h"

struct group_owed {
    struct group_owed *prev, *next; /* of a member, or of what has come back */
    uint64_t offset;
    uint8_t content;
    bool asked; /* it has come back, and the follower brings it again */
};

struct group_member {
    struct group_member *prev, *next;
    struct group *group;
    struct router_subscription how;
    uint64_t number;
    uint64_t granted, granted_bytes, handed, handed_bytes;
    struct group_owed *owed;
    bool retired;
};

struct group {
    struct groups *groups;
    struct group *prev, *next;
    atomic_bool durable;              /* it is served: `session` is there */
    struct session *session;          /* NULL: it is not durable */
    struct group_member *members;     /* the next in turn first; at least one */
    struct follower_member *follower; /* NULL: there was no memory for it */
    uint64_t number;                  /* of that, in targets */
    uint64_t handed, handed_bytes;    /* by the follower, since it joined */
    struct follower_places position;  /* what lies before it was handed out, or has come back */
    struct follower_places noted;     /* the cursor that the session was told of last */
    struct group_owed *returned;      /* what has come back; what is asked for is in order */
    uint32_t returned_count, unasked; /* how many; of these not asked for */
    uint64_t room, room_bytes;        /* of all members that have both */
    uint32_t owed, given;             /* of all members; and behind the cursor */
    struct session_sent *known;       /* [known_count], in order: given before a crash; the follower comes by again */
    uint32_t known_count;
    bool lost;           /* what the follower has handed could not be remembered: it is to hand it again */
    bool changed, retry; /* since the last note; it is to be served, and could not be */
    bool limited;        /* more room was there than GROUP_*_MAX allow */
    unsigned rested;     /* looks since the last note */
    uint32_t length;
    char filter[];
};

struct groups {
    struct groups_options options;
    pthread_mutex_t lock;
    struct follower *follower;
    struct table names, numbers; /* numbers: of those with a follower_member */
    struct group *all;
    uint64_t last_number;
};

/* ---- groups_serve.c ---- */

/* A member's room has part in that of its group between the two; what it depends on changes in between. */
void group_add_room(const struct group_member *member);
void group_take_room(const struct group_member *member);

struct group *group_find_number(const struct groups *groups, uint64_t number);

/* Whether the group is durable from now on: its session is there, and nobody serves it yet. */
void group_begin(struct group *group);
void group_end(struct group *group);  /* has let go of its session, or lost it: nothing is handed out any more */
void group_stop(struct group *group); /* the last member has left: its session is told how it stands */
void group_pump(struct group *group); /* after its room has changed, or something has come back */
struct follower_places group_cursor(const struct group *group);
void group_note(struct group *group);
void group_take_back(struct group *group, struct group_owed *owed); /* which is in no list */

#endif
