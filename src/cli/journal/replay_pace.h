/* When each record of a replay is due, and which of those sent are acknowledged. Pure. */
#ifndef CLI_JOURNAL_REPLAY_PACE_H
#define CLI_JOURNAL_REPLAY_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* ---- when ---- */

#define REPLAY_SPEED_MIN 0.001
#define REPLAY_SPEED_MAX 1e6

struct replay_pace {
    double speed; /* times the original pace; 0: as fast as it goes */
    bool begun;
    uint64_t begun_ns;              /* monotonic, when the first record was due */
    uint64_t first_ns, furthest_ns; /* wall clock: arrival of the first record, and the latest so far */
};

/* "1", "10", "0.5", "max". Returns 0, or ERR_INVALID. */
int replay_speed_parse(const char *text, double *speed);

void replay_pace_init(struct replay_pace *pace, double speed);

/* The monotonic time at which a record that arrived at time_ns (wall clock) is to be sent; the first one asked about is due now. It never
 * falls from one record to the next: where the wall clock was set back, records are due at once. Asking again gives the same. */
uint64_t replay_pace_due_ns(struct replay_pace *pace, uint64_t time_ns, uint64_t now_ns);

/* How long the replay takes from what was asked about last to a record that arrived at time_ns, in ns; 0 as fast as it goes. */
uint64_t replay_pace_span_ns(const struct replay_pace *pace, uint64_t time_ns);

/* ---- what is acknowledged ---- */

enum { REPLAY_WINDOW_MAX = 1000 }; /* records on their way */

struct replay_window {
    uint64_t offsets[REPLAY_WINDOW_MAX]; /* ring, ascending from `first` on */
    bool acknowledged[REPLAY_WINDOW_MAX];
    uint32_t first, count;
};

void replay_window_clear(struct replay_window *window);

static inline bool replay_window_is_full(const struct replay_window *window)
{
    return window->count == REPLAY_WINDOW_MAX;
}

/* The tag by which the record that is added next will be acknowledged. */
static inline uint32_t replay_window_tag(const struct replay_window *window)
{
    return (window->first + window->count) % REPLAY_WINDOW_MAX;
}

/* A record was sent; not when the window is full. Offsets ascend. */
void replay_window_add(struct replay_window *window, uint64_t offset);

static inline uint64_t replay_window_offset(const struct replay_window *window, uint32_t tag)
{
    return window->offsets[tag];
}

/* Returns how many records have left the window: those before which everything is acknowledged too. */
uint32_t replay_window_acknowledge(struct replay_window *window, uint32_t tag);

/* The offset from which a replay has to go on: everything before it is acknowledged. `behind`: where it stands when nothing is on its way.
 */
uint64_t replay_window_next(const struct replay_window *window, uint64_t behind);

#endif
