/* The time by which messages wait for one another.
 *
 * A message waits for the others of its set by arrival. While the pipeline is behind (a backlog after a restart, a burst), what it
 * reads arrived earlier, and the partner of a message may be durable and merely unread: that time must not count. So the pipeline
 * has a clock of its own, on the scale of the monotonic clock. Caught up, it is the monotonic clock. Behind, it stands where the
 * monotonic clock stood when the last message read was accepted, and moves only with what is read.
 *
 * Two bounds keep it honest. It never shows less than the start of the process: messages of an earlier life all arrive "at the
 * start", so the time in which nothing could arrive does not count either. And between two messages it moves no further than
 * their wall clock times lie apart, so a wall clock that is set back cannot make a backlog look current; one that is set forward
 * only lets the clock stand still until messages with new times come. It never goes backwards, and each message
 * moves it by a nanosecond at least, so that of two messages one is always older. Pure. */
#ifndef PIPELINE_VIRTUAL_CLOCK_H
#define PIPELINE_VIRTUAL_CLOCK_H

#include <stdint.h>

struct virtual_clock {
    uint64_t start_ns;        /* monotonic */
    uint64_t now_ns;          /* what it shows */
    uint64_t message_time_ns; /* wall clock of the last message read; 0 before the first */
};

void virtual_clock_init(struct virtual_clock *clock, uint64_t monotonic_ns);

/* The monotonic time at which a message was accepted, as well as the wall clock can tell: never later than now, never before the
 * start. For latencies. */
uint64_t virtual_clock_origin(const struct virtual_clock *clock, uint64_t monotonic_ns, uint64_t wall_ns, uint64_t message_time_ns);

/* A message was read that was accepted at message_time_ns (wall clock). Returns its time of arrival: what the clock shows now. */
uint64_t virtual_clock_read(struct virtual_clock *clock, uint64_t monotonic_ns, uint64_t wall_ns, uint64_t message_time_ns);

/* Messages were kept from being read, now or until now: what comes has arrived now at the earliest, as at a start. Returns what the clock
 * shows now. */
uint64_t virtual_clock_restart(struct virtual_clock *clock, uint64_t monotonic_ns);

/* Nothing is left to read. Returns what the clock shows now. */
uint64_t virtual_clock_catch_up(struct virtual_clock *clock, uint64_t monotonic_ns);

#endif
