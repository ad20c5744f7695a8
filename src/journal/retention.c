#include "journal/retention.h"

static const uint64_t second_ns = 1000000000;

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Whether a stamp behind segments[0] can be right: it lies in the future neither of now nor of what is behind it. */
static bool is_likely(const struct stream_segment *segments, size_t i, uint64_t wall_ns)
{
    return segments[i].created_ns && segments[i].created_ns >= segments[0].created_ns && segments[i].created_ns <= wall_ns;
}

/* How old the newest record of segments[0] is at least; 0 when nothing tells. */
static uint64_t age_ns(const struct stream_segment *segments, size_t count, uint64_t wall_ns)
{
    for (size_t i = 1; i < count; i++)
        if (is_likely(segments, i, wall_ns))
            return wall_ns - segments[i].created_ns;
    return 0;
}

/* Whether a segment that was begun `hold_ns` ago says that segments[0], whose newest record had arrived at ended_ns, was too old by then.
 */
static bool was_old_before(const struct retention *retention, const struct stream_segment *segments, size_t count, uint64_t wall_ns,
                           uint64_t ended_ns, uint64_t hold_ns)
{
    for (size_t i = 1; i < count; i++)
        if (is_likely(segments, i, wall_ns) && segments[i].created_ns - ended_ns >= retention->age_ns &&
            wall_ns - segments[i].created_ns >= hold_ns)
            return true;
    return false;
}

static uint64_t bytes_behind_first(const struct stream_segment *segments, size_t count)
{
    uint64_t bytes = 0;
    for (size_t i = 1; i < count; i++)
        bytes += segments[i].bytes;
    return bytes;
}

bool retention_by_size(const struct retention *retention, const struct stream_segment *segments, size_t count)
{
    return retention->size && count > 1 && bytes_behind_first(segments, count) >= retention->size;
}

struct retention_look retention_look(struct retention *retention, const struct stream_segment *segments, size_t count, uint64_t wall_ns,
                                     uint64_t monotonic_ns)
{
    struct retention_look look = {.retire = retention_by_size(retention, segments, count), .look_in_ns = UINT64_MAX};
    if (!retention->age_ns || count < 2)
        return look;
    uint64_t old_ns = age_ns(segments, count, wall_ns), hourly_ns = RETENTION_LOOK_S * second_ns;
    look.look_in_ns = hourly_ns; /* somebody may set the clock */
    if (old_ns < retention->age_ns)
        look.look_in_ns = smaller(hourly_ns, retention->age_ns - old_ns);
    if (old_ns / 2 < retention->age_ns) {
        retention->told_ns = 0;
        look.retire = look.retire || old_ns >= retention->age_ns;
        return look;
    }
    uint64_t hold_ns = smaller(retention->age_ns, RETENTION_HOLD_MAX_S * second_ns);
    look.ended_ns = wall_ns - old_ns;
    if (was_old_before(retention, segments, count, wall_ns, look.ended_ns, hold_ns)) {
        look.retire = true;
        return look;
    }
    look.tell = !retention->told_ns;
    if (look.tell)
        retention->told_ns = monotonic_ns;
    uint64_t held_ns = monotonic_ns - retention->told_ns;
    look.hold_ns = held_ns < hold_ns ? hold_ns - held_ns : 0;
    look.look_in_ns = look.hold_ns ? smaller(hourly_ns, look.hold_ns) : hourly_ns;
    look.retire = look.retire || !look.hold_ns;
    return look;
}

uint64_t retention_held(const struct retention *retention, const struct stream_segment *segments, size_t count, uint64_t guard,
                        uint64_t wall_ns)
{
    uint64_t held = 0, behind = bytes_behind_first(segments, count);
    for (size_t i = 0; i + 1 < count; i++) {
        bool large = retention->size && behind >= retention->size;
        bool old = retention->age_ns && age_ns(segments + i, count - i, wall_ns) >= retention->age_ns;
        if (!large && !old)
            break;
        if (segments[i + 1].base_offset > guard)
            held += segments[i].bytes;
        behind -= segments[i + 1].bytes;
    }
    return held;
}

/* A segment's records are all below its follower's first offset, and have all arrived before that was made. A follower that was made before
 * the segment itself was made while the clock was wrong: it tells nothing. */
static bool is_named(const struct retention_trim *trim, const struct stream_segment *segment, uint64_t bytes_behind)
{
    const struct stream_segment *next = segment + 1;
    bool old =
        trim->until_ns == UINT64_MAX || (next->created_ns && next->created_ns >= segment->created_ns && next->created_ns <= trim->until_ns);
    return old && next->base_offset <= trim->before && bytes_behind >= trim->keep_size;
}

struct retention_plan retention_plan(const struct retention_trim *trim, const struct stream_segment *segments, size_t count, uint64_t guard)
{
    struct retention_plan plan = {0};
    uint64_t behind = bytes_behind_first(segments, count);
    for (size_t i = 0; i + 1 < count && is_named(trim, &segments[i], behind); i++) {
        plan.named++;
        if (segments[i + 1].base_offset <= guard && i + trim->keep_count < count)
            plan.removable++;
        behind -= segments[i + 1].bytes;
    }
    return plan;
}
