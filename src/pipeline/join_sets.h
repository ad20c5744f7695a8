/* The open sets of a lane: kept by key, stamp, id and sides, so that the one to which a message belongs is found in a few steps, however
 * many share a key and a stamp. What becomes of them is join.c's to decide. Private to the join. */
#ifndef PIPELINE_JOIN_SETS_H
#define PIPELINE_JOIN_SETS_H

#include "pipeline/join.h"

/* ---- members ---- */

/* With the content of *item; NULL without memory. It is the caller's until join_set_put(). */
struct join_member *join_member_create(const struct join_message *message, const struct stage_item *item);

/* Counts content that is in memory, and lets it go; the name of the item stays. */
void join_member_hold(struct join *join, struct join_member *member);
void join_member_drop_content(struct join *join, struct join_member *member);

/* ---- sets ---- */

/* Opens a set of this key and stamp, without members and without id. NULL without memory. */
struct join_set *join_set_open(struct join *join, const struct set_name *name, uint64_t arrival_ns);

/* Puts a member into its slot, in place of the one that may be there. The set takes its id when it knows none but a hint, and a hint when
 * nothing else is in it. */
void join_set_put(struct join *join, struct join_set *set, struct join_member *member);
void join_set_change_sides(struct join_set *set, unsigned sides);

/* To the end of the list in which it now waits. */
void join_set_move(struct join *join, struct join_set *set, enum join_wait wait);

/* Whether a ready set waits for nothing more but its turn. */
bool join_set_is_done(const struct join *join, const struct join_set *set);

/* Out of all lists; the members stay. What waited for its turn behind this set may be due now. */
void join_set_detach(struct join *join, struct join_set *set);
void join_set_free(struct join *join, struct join_set *set);  /* a detached one, with its members */
void join_set_close(struct join *join, struct join_set *set); /* both */

struct set_name join_set_name(const struct join_set *set);

/* ---- which one ---- */

bool join_slot_is_free(const struct join_set *set, const struct stage_item *item);

/* Whether two ids may be of one set: an unknown one fits all. */
bool join_ids_fit(const char *a, const char *b);

/* The open set of this very stamp to which an item belongs, or NULL: the one of its id, or else the one that knows no id yet; for an item
 * without id one that lacks its side, or else any. */
struct join_set *join_find_named(const struct join *join, const struct set_name *name, const struct stage_item *item);

/* The same by stamps that are only near: a known and equal id before an unknown one, then the oldest. The slot must be free: a taken one
 * means the next hole, not a repeat. */
struct join_set *join_find_near(const struct join *join, const struct set_name *name, const struct stage_item *item);

/* The oldest set of a stamp among those that have been longest with the sides that they have, `sides & mask` being equal to `value`. */
struct join_set *join_find_by_sides(const struct join_stamp *stamp, unsigned mask, unsigned value);

/* The oldest set that has this side alone, its stamp being that of `set` or near it; NULL when there is none. */
struct join_set *join_find_lone(const struct join *join, const struct join_set *set, unsigned side);

/* The set that was ready first among those that lack this side, the only one of `lone`, their stamps being equal or near; or NULL. */
struct join_set *join_find_ready(const struct join *join, const struct join_set *lone, unsigned side);

#endif
