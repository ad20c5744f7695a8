/* Which segments of a stream may go, by their size and by their age. Pure: segments and times come in as arguments; the files are
 * stream_keeper.c's.
 *
 * The oldest segment is due when either rule says so: more than `size` bytes are kept without it, or its newest record has been there for
 * `age_ns`. The newest segment is never due, and what the guard protects stays whatever is due (stream_keeper.c asks it first).
 *
 * Age. The newest record of a segment had arrived when the segment behind it was begun, so that one's stamp (format.h) tells how old it is:
 * nothing of it needs to be read. A segment that is written to for longer than age_ns is followed by the next though it is not full; so a
 * stream that is written to at all keeps a record twice age_ns at most. What was last written before a stop counts from the next start.
 *
 * The wall clock may be wrong, now or when a stamp was made.
 * - A stamp in the future, or from before the segment itself was begun, is of no use; the next one behind it takes its place, and until
 * there is one nothing is due by age. So a clock that is set back, and later right again, retires nothing early. Only where the segment's
 * own stamp is of the wrong time too does nothing tell.
 * - A segment that is found to be twice as old as it may become did not grow that old under the eyes of the keeper, which looks every hour
 *   at least: the clock was set forward, or nobody looked (a long stop, a setting that was lowered, a guard that held it). It may be the
 *   whole stream. So it is told, and nothing goes by age for `age_ns`, a day at most; if the clock is set right by then, nothing has gone.
 *   The time counts across restarts: a segment that was begun so long ago, with a stamp that called the old one too old, has seen it pass.
 * A clock that is set forward by less than age_ns retires what is older by that clock. */
#ifndef JOURNAL_RETENTION_H
#define JOURNAL_RETENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stream_segment {
    uint64_t base_offset;
    uint64_t bytes;
    uint64_t created_ns; /* wall clock; 0: its header is lost */
    bool left_as_is;     /* not to be compressed: it is already, or would lose or gain nothing by it */
};

struct retention {
    uint64_t size;    /* bytes that are kept at least; 0: no limit */
    uint64_t age_ns;  /* 0: no limit */
    uint64_t told_ns; /* monotonic: when it was told that something is twice as old as it may be; 0: nothing is */
};

enum { RETENTION_HOLD_MAX_S = 86400, RETENTION_LOOK_S = 3600 };

/* Whether size has the oldest of `count` segments retired, oldest first. */
bool retention_by_size(const struct retention *retention, const struct stream_segment *segments, size_t count);

struct retention_look {
    bool retire;         /* the oldest segment is due */
    bool tell;           /* it is twice as old as it may be, and is not due before `hold_ns` from now are over: to be told, once */
    uint64_t hold_ns;    /* 0: nothing is held */
    uint64_t ended_ns;   /* wall clock, with hold_ns: when its newest record had arrived */
    uint64_t look_in_ns; /* when there is nothing else to do, look again after so long; UINT64_MAX: when the segments have changed */
};
struct retention_look retention_look(struct retention *retention, const struct stream_segment *segments, size_t count, uint64_t wall_ns,
                                     uint64_t monotonic_ns);

/* What somebody asks to be removed (`spindle journal trim`): the oldest segments, as long as each limit names them. */
struct retention_trim {
    uint64_t before;   /* those that end before this offset; UINT64_MAX: wherever they end */
    uint64_t until_ns; /* wall clock: those whose newest record had arrived by then, as the stamp behind them tells; UINT64_MAX: whenever */
    uint64_t keep_size; /* bytes: those without which so much is kept */
    size_t keep_count;  /* so many of the newest stay though they are named; the newest stays in any case */
};

struct retention_plan {
    size_t named;     /* how many of the oldest the limits name */
    size_t removable; /* of these, how many may go: their records lie before the guard, and keep_count newer ones are left */
};
struct retention_plan retention_plan(const struct retention_trim *trim, const struct stream_segment *segments, size_t count,
                                     uint64_t guard);

/* Bytes of segments that would be due, were it not for the guard. */
uint64_t retention_held(const struct retention *retention, const struct stream_segment *segments, size_t count, uint64_t guard,
                        uint64_t wall_ns);

#endif
