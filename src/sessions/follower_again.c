/* What a member wants again: single messages, each found by its offset. */
#include "base/error.h"
#include "sessions/follower_parts.h"

enum { AGAIN_MESSAGES_MAX = 1024 }; /* handed in one turn */

static const struct follower_again *next_again(const struct follower_member *member)
{
    return member->again_at < member->again_count ? &member->again[member->again_at] : NULL;
}

uint64_t follower_again_place(const struct follower_member *member, unsigned content)
{
    uint64_t place = member->places.at[content];
    for (size_t i = member->again_at; i < member->again_count; i++)
        if (member->again[i].content == content && member->again[i].offset < place)
            return member->again[i].offset;
    return place;
}

/* Its next message has been handed, or is gone. */
static void go_on(struct follower_member *member)
{
    unsigned content = next_again(member)->content;
    member->again_at++;
    follower_seat_set(&member->seats[content], NULL, follower_again_place(member, content));
}

static void resend(struct follower_member *member, struct follower_stream *stream)
{
    if (follower_stream_behind(stream) == FOLLOWER_SWEEPS_MAX) {
        follower_seat_wait(stream, &member->seats[stream->index]);
        return;
    }
    struct follower_sweep *sweep = follower_sweep_open(stream, next_again(member)->offset);
    sweep->resends = member;
    member->resends = sweep;
}

void follower_resume(struct follower_member *member)
{
    struct follower *follower = member->follower;
    const struct follower_again *next = next_again(member);
    if (next) {
        if (!member->resends && !member->seats[next->content].waits)
            resend(member, &follower->streams[next->content]);
        return;
    }
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        if (!member->seats[i].sweep && !member->seats[i].waits)
            follower_seat_place(&follower->streams[i], &member->seats[i]);
}

/* Whether the message has been handed over; else the sweep rests. */
static bool hand_again(struct follower_sweep *sweep, struct follower_member *member)
{
    struct follower *follower = member->follower;
    struct router_subscription target = {
        .loop = member->loop, .qos = next_again(member)->qos, .connection = member->connection, .generation = member->generation};
    struct follower_delivery delivery = {.message = &sweep->message,
                                         .content = (uint8_t)sweep->stream->index,
                                         .again = true,
                                         .origin_session = sweep->origin_session,
                                         .targets = &target,
                                         .target_count = 1};
    if (!follower_has_room(member)) {
        sweep->stands = true;
        return false;
    }
    if (!follower->options.deliver(follower->options.context, &delivery)) {
        sweep->retry_ns = follower->now_ns + FOLLOWER_REFUSED_MS * UINT64_C(1000000);
        return false;
    }
    follower_count_handed(member, &sweep->message);
    sweep->has_message = false;
    go_on(member);
    return true;
}

/* Finds the wanted message, or whether it is gone. Returns 0, ERR_NOT_FOUND or why it cannot be read. */
static int find_wanted(struct follower_sweep *sweep, uint64_t wanted)
{
    uint64_t position = sweep->has_message ? sweep->message.offset : atomic_load(&sweep->position);
    if (wanted > position + FOLLOWER_NEAR)
        follower_sweep_drop_view(sweep);
    atomic_store(&sweep->position, wanted);
    for (;;) {
        int error = follower_sweep_read(sweep);
        if (error)
            return error == ERR_TRUNCATED ? ERR_NOT_FOUND : error;
        if (sweep->message.offset >= wanted)
            return sweep->message.offset == wanted ? 0 : ERR_NOT_FOUND;
        sweep->has_message = false;
    }
}

bool follower_again_turn(struct follower_sweep *sweep)
{
    struct follower_member *member = sweep->resends;
    const struct follower_again *next;
    sweep->turns++;
    for (unsigned i = 0; (next = next_again(member)) && next->content == sweep->stream->index; i++) {
        if (i == AGAIN_MESSAGES_MAX)
            return true;
        int error = find_wanted(sweep, next->offset);
        if (error && error != ERR_NOT_FOUND) {
            follower_sweep_pause(sweep, error);
            return false;
        }
        if (!error && !hand_again(sweep, member))
            return false;
        if (error) {
            atomic_fetch_add_explicit(&member->follower->gone_count, 1, memory_order_relaxed);
            go_on(member);
        }
    }
    follower_sweep_close(sweep);
    follower_resume(member);
    return true;
}
