/* Sweeps: who sits in which, and what a turn of one is. */
#include <stdlib.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "sessions/follower_parts.h"

/* What a message counts in a turn besides its bytes. */
enum { TURN_MESSAGE_BYTES = 64 };

/* ---- one sweep ---- */

static uint64_t position_of(const struct follower_sweep *sweep)
{
    return atomic_load_explicit(&sweep->position, memory_order_relaxed);
}

static void move_to(struct follower_sweep *sweep, uint64_t position)
{
    atomic_store(&sweep->position, position);
}

void follower_sweep_drop_view(struct follower_sweep *sweep)
{
    if (sweep->view)
        sweep->view->ops->close(sweep->view);
    sweep->view = NULL;
    sweep->has_message = false;
    sweep->served = 0;
}

struct follower_sweep *follower_sweep_open(struct follower_stream *stream, uint64_t position)
{
    struct follower_sweep *sweep = stream->sweeps;
    while (sweep->stream)
        sweep++;
    sweep->stream = stream;
    sweep->active_from = UINT64_MAX;
    move_to(sweep, position);
    stream->open_count++;
    return sweep;
}

void follower_sweep_close(struct follower_sweep *sweep)
{
    struct follower_stream *stream = sweep->stream;
    follower_sweep_drop_view(sweep);
    if (sweep->resends)
        sweep->resends->resends = NULL;
    sweep->resends = NULL;
    sweep->stands = false;
    sweep->retry_ns = 0;
    sweep->turns = 0;
    sweep->stream = NULL;
    if (stream->end == sweep)
        stream->end = NULL;
    stream->open_count--;
}

void follower_sweep_pause(struct follower_sweep *sweep, int error)
{
    DIAG_LIMITED(DIAGNOSTICS_ERROR, "bus", "what waits for persistent sessions cannot be read: %s; it is tried again", error_text(error));
    sweep->retry_ns = sweep->stream->follower->now_ns + FOLLOWER_PAUSE_MS * UINT64_C(1000000);
}

int follower_sweep_read(struct follower_sweep *sweep)
{
    struct follower *follower = sweep->stream->follower;
    struct queue *queue = follower->options.queue;
    struct queue_origin origin;
    int error = 0;
    if (sweep->has_message)
        return 0;
    if (!sweep->view)
        error = queue->ops->view_open(queue, follower_contents[sweep->stream->index], position_of(sweep), &sweep->view);
    if (!error)
        error = sweep->view->ops->next(sweep->view, &sweep->message, &origin);
    if (error)
        return error;
    sweep->has_message = true;
    sweep->origin_session = origin.session;
    atomic_fetch_add_explicit(&follower->read_count, 1, memory_order_relaxed);
    return 0;
}

/* ---- who sits where ---- */

size_t follower_stream_behind(const struct follower_stream *stream)
{
    return stream->open_count - (stream->end ? 1 : 0);
}

void follower_seat_wait(struct follower_stream *stream, struct follower_seat *seat)
{
    DL_APPEND(stream->waiting, seat);
    seat->waits = true;
}

void follower_seat_park(struct follower_stream *stream, struct follower_seat *seat)
{
    struct follower_sweep *sweep = seat->sweep;
    if (seat->waits)
        DL_DELETE(stream->waiting, seat);
    seat->waits = false;
    if (!sweep)
        return;
    follower_seat_rise(seat);
    if (!sweep->seat_count)
        follower_sweep_close(sweep);
}

static bool may_sit(const struct follower_sweep *sweep, uint64_t place)
{
    uint64_t position = position_of(sweep);
    return sweep->stream && !sweep->resends && position <= place && (!sweep->served || position < place);
}

/* The sweep that comes to a place next; NULL: none does. */
static struct follower_sweep *find_sweep(struct follower_stream *stream, uint64_t place)
{
    struct follower_sweep *found = NULL;
    for (unsigned i = 0; i < FOLLOWER_SWEEPS; i++) {
        struct follower_sweep *sweep = &stream->sweeps[i];
        if (may_sit(sweep, place) && (!found || position_of(sweep) > position_of(found)))
            found = sweep;
    }
    return found;
}

static struct follower_seat *any_seat(const struct follower_sweep *sweep)
{
    return sweep->seats ? sweep->seats : sweep->beginning;
}

/* The sweep at the end is far from it: another becomes that. Whether there is room for it. */
static bool leave_end(struct follower_stream *stream)
{
    if (stream->end && stream->end->stands)
        follower_seat_park(stream, any_seat(stream->end));
    else if (stream->end && follower_stream_behind(stream) < FOLLOWER_SWEEPS_MAX)
        stream->end = NULL;
    return !stream->end;
}

void follower_seat_place(struct follower_stream *stream, struct follower_seat *seat)
{
    uint64_t place = atomic_load(&seat->place);
    struct follower_sweep *sweep = find_sweep(stream, place);
    if (sweep && place - position_of(sweep) <= FOLLOWER_NEAR) {
        follower_seat_sit(sweep, seat);
        return;
    }
    bool at_end = place + FOLLOWER_NEAR >= stream->limit && (!stream->end || position_of(stream->end) < place);
    if (at_end && !leave_end(stream)) {
        follower_seat_sit(stream->end, seat);
        return;
    }
    if (!at_end && follower_stream_behind(stream) == FOLLOWER_SWEEPS_MAX) {
        follower_seat_wait(stream, seat);
        return;
    }
    sweep = follower_sweep_open(stream, place);
    if (at_end)
        stream->end = sweep;
    follower_seat_sit(sweep, seat);
}

/* Those that wait and lie near before the sweep need none of their own. */
static void pick_up(struct follower_stream *stream, struct follower_sweep *sweep)
{
    struct follower_seat *seat, *next;
    DL_FOREACH_SAFE(stream->waiting, seat, next)
    {
        uint64_t place = atomic_load(&seat->place);
        if (seat->member->again_at < seat->member->again_count || !may_sit(sweep, place) || place - position_of(sweep) > FOLLOWER_NEAR)
            continue;
        follower_seat_park(stream, seat);
        follower_seat_sit(sweep, seat);
    }
}

/* A sweep behind that stands still or has had its turns; NULL: there is none. */
static struct follower_sweep *find_spent(struct follower_stream *stream)
{
    for (unsigned i = 0; i < FOLLOWER_SWEEPS; i++) {
        struct follower_sweep *sweep = &stream->sweeps[i];
        if (sweep->stream && sweep != stream->end && !sweep->served && (sweep->stands || sweep->turns >= FOLLOWER_TURNS_MAX))
            return sweep;
    }
    return NULL;
}

bool follower_stream_serves(struct follower_stream *stream)
{
    return stream->waiting && (follower_stream_behind(stream) < FOLLOWER_SWEEPS_MAX || find_spent(stream));
}

/* Such a sweep ends for the sake of those that wait. */
static void make_way(struct follower_stream *stream)
{
    struct follower_sweep *found = find_spent(stream);
    bool stands = found->stands;
    if (found->resends) {
        struct follower_member *member = found->resends;
        follower_sweep_close(found);
        if (!stands)
            follower_seat_wait(stream, &member->seats[stream->index]);
    }
    for (struct follower_seat *seat; found->stream && (seat = any_seat(found));) {
        follower_seat_park(stream, seat);
        if (!stands)
            follower_seat_wait(stream, seat);
    }
}

void follower_stream_serve(struct follower_stream *stream)
{
    for (unsigned i = 0; i < FOLLOWER_SWEEPS && !stream->end; i++) {
        struct follower_sweep *sweep = &stream->sweeps[i];
        if (sweep->stream && !sweep->resends && position_of(sweep) >= stream->limit)
            stream->end = sweep;
    }
    while (follower_stream_serves(stream)) {
        struct follower_seat *seat = stream->waiting;
        if (follower_stream_behind(stream) == FOLLOWER_SWEEPS_MAX)
            make_way(stream);
        follower_seat_park(stream, seat);
        follower_resume(seat->member);
        if (seat->waits)
            return;
        if (seat->sweep)
            pick_up(stream, seat->sweep);
    }
}

/* ---- handing over ---- */

static int reserve_targets(struct follower *follower, size_t count)
{
    if (count <= follower->target_capacity)
        return 0;
    size_t capacity = count + count / 2;
    struct router_subscription *larger = realloc(follower->targets, capacity * sizeof *larger);
    if (!larger)
        return ERR_NO_MEMORY;
    follower->targets = larger;
    follower->target_capacity = capacity;
    return 0;
}

/* Who of subscribers[0..count), all of one loop, has room. The others leave the sweep, but the only member lets it stand still. Their
 * number goes to *target_count; returns false when the sweep stands still. */
static bool choose_targets(struct follower_sweep *sweep, const struct router_subscription *subscribers, uint32_t count,
                           uint32_t *target_count)
{
    struct follower_stream *stream = sweep->stream;
    const struct follower_member *last = NULL;
    bool room = false;
    *target_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct follower_member *member = follower_routed_member(&subscribers[i]);
        if (member != last) {
            last = member;
            room = false;
            if (!follower_seat_takes_part(&member->seats[stream->index], sweep))
                continue;
            room = follower_has_room(member);
            sweep->stands = !room && sweep->seat_count == 1;
            if (sweep->stands)
                return false;
            if (!room)
                follower_seat_park(stream, &member->seats[stream->index]);
        }
        if (!room)
            continue;
        struct router_subscription *target = &stream->follower->targets[(*target_count)++];
        *target = subscribers[i];
        target->connection = member->connection;
        target->generation = member->generation;
    }
    return true;
}

static void count_handed(struct follower_sweep *sweep, const struct router_subscription *subscribers, uint32_t count)
{
    const struct follower_member *last = NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct follower_member *member = follower_routed_member(&subscribers[i]);
        if (member != last && follower_seat_takes_part(&member->seats[sweep->stream->index], sweep))
            follower_count_handed(member, &sweep->message);
        last = member;
    }
}

static bool routed_before(const struct router_subscription *routed, const struct follower_member *member)
{
    return routed->loop != member->loop ? routed->loop < member->loop : follower_routed_member(routed) < member;
}

/* Those of a match who may sit in the sweep: where that is one, he is looked for, lest a sweep behind looks at all who are at the end.
 * Returns the first; *count, in all, becomes how many. */
static const struct router_subscription *narrow(const struct follower_sweep *sweep, const struct router_subscription *first,
                                                uint32_t *count)
{
    if (sweep->seat_count != 1)
        return first;
    const struct follower_member *member = any_seat(sweep)->member;
    uint32_t from = 0, to = *count, end;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (routed_before(&first[middle], member))
            from = middle + 1;
        else
            to = middle;
    }
    for (end = from; end < *count && follower_routed_member(&first[end]) == member;)
        end++;
    *count = end - from;
    return first + from;
}

/* Hands the message to those that it matches. Returns whether that is done; else the sweep rests. */
static bool hand_over(struct follower_sweep *sweep)
{
    struct follower *follower = sweep->stream->follower;
    const struct router_match *match =
        router_match(sweep->stream->router, sweep->stream->cache, sweep->message.topic, sweep->message.topic_length);
    if (!match || reserve_targets(follower, match->count)) {
        follower_sweep_pause(sweep, ERR_NO_MEMORY);
        return false;
    }
    struct follower_delivery delivery = {.message = &sweep->message,
                                         .content = (uint8_t)sweep->stream->index,
                                         .origin_session = sweep->origin_session,
                                         .targets = follower->targets,
                                         .identifiers = match->identifiers,
                                         .identifier_count = match->identifier_count};
    uint32_t count = match->count;
    const struct router_subscription *subscribers = narrow(sweep, match->subscribers, &count);
    for (uint32_t s = 0, next; s < count; s = next) {
        unsigned loop = subscribers[s].loop;
        for (next = s + 1; next < count && subscribers[next].loop == loop;)
            next++;
        if (loop < sweep->served)
            continue;
        if (!choose_targets(sweep, subscribers + s, next - s, &delivery.target_count))
            return false;
        if (delivery.target_count && !follower->options.deliver(follower->options.context, &delivery)) {
            sweep->served = loop;
            sweep->retry_ns = follower->now_ns + FOLLOWER_REFUSED_MS * UINT64_C(1000000);
            return false;
        }
        count_handed(sweep, subscribers + s, next - s);
        sweep->served = loop + 1;
    }
    return true;
}

/* ---- a turn ---- */

static bool is_for_sessions(const struct message *message)
{
    return message->flags & MESSAGE_QOS_MASK && !(message->flags & (MESSAGE_WITHHELD | MESSAGE_REQUEUED));
}

/* Another sweep at its position; NULL: there is none. */
static struct follower_sweep *find_met(const struct follower_sweep *sweep)
{
    for (unsigned i = 0; i < FOLLOWER_SWEEPS; i++) {
        struct follower_sweep *other = &sweep->stream->sweeps[i];
        if (other != sweep && other->stream && !other->resends && position_of(other) == position_of(sweep))
            return other;
    }
    return NULL;
}

/* All sit in one of the two then. Returns which. */
static struct follower_sweep *merge(struct follower_sweep *sweep, struct follower_sweep *met)
{
    const struct follower_sweep *end = sweep->stream->end;
    bool stays = sweep == end || (met != end && sweep->seat_count > met->seat_count);
    struct follower_sweep *kept = stays ? sweep : met, *left = stays ? met : sweep;
    for (struct follower_seat *seat; (seat = any_seat(left));) {
        follower_seat_rise(seat);
        follower_seat_sit(kept, seat);
    }
    follower_sweep_close(left);
    return kept;
}

/* How far it may read without looking up: to where it meets another, to where a subscription begins, to the end. */
static uint64_t find_stop(const struct follower_sweep *sweep)
{
    uint64_t position = position_of(sweep);
    uint64_t stop = sweep->active_from < sweep->stream->limit ? sweep->active_from : sweep->stream->limit;
    for (unsigned i = 0; i < FOLLOWER_SWEEPS; i++) {
        const struct follower_sweep *other = &sweep->stream->sweeps[i];
        if (other->stream && !other->resends && position_of(other) > position && position_of(other) < stop)
            stop = position_of(other);
    }
    return stop;
}

enum turn { TURN_ON, TURN_REST, TURN_OVER };

/* Reads and hands over up to `stop`. */
static enum turn read_to(struct follower_sweep *sweep, uint64_t stop, size_t *bytes)
{
    while (position_of(sweep) < stop) {
        int error = follower_sweep_read(sweep);
        const struct message *message = &sweep->message;
        if (error && error != ERR_TRUNCATED) {
            follower_sweep_pause(sweep, error);
            return TURN_REST;
        }
        if (error || message->offset >= stop) {
            move_to(sweep, stop);
            return TURN_ON;
        }
        if (message->offset >= position_of(sweep)) {
            move_to(sweep, message->offset);
            if (is_for_sessions(message) && !hand_over(sweep))
                return TURN_REST;
            move_to(sweep, message->offset + 1);
        }
        sweep->has_message = false;
        sweep->served = 0;
        *bytes += (size_t)message->topic_length + message->properties_length + message->payload_length + TURN_MESSAGE_BYTES;
        if (*bytes >= FOLLOWER_TURN_BYTES)
            return TURN_OVER;
    }
    return TURN_ON;
}

bool follower_sweep_turn(struct follower_sweep *sweep)
{
    size_t bytes = 0;
    enum turn turn = TURN_ON;
    sweep->turns++;
    while (turn == TURN_ON) {
        int error = follower_sweep_activate(sweep);
        if (error) {
            follower_sweep_pause(sweep, error);
            return false;
        }
        struct follower_sweep *met = sweep->served ? NULL : find_met(sweep);
        if (met && met->served)
            return false; /* it goes on soon */
        if (met && merge(sweep, met) != sweep)
            return true;
        uint64_t stop = find_stop(sweep);
        if (met)
            continue;
        if (position_of(sweep) >= stop)
            return false;
        if (sweep->active) {
            turn = read_to(sweep, stop, &bytes);
        } else {
            follower_sweep_drop_view(sweep);
            move_to(sweep, stop);
        }
    }
    return turn == TURN_OVER;
}
