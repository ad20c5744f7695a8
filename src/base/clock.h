/* The two clocks, read in few places and passed on as numbers: pure code takes time as an argument. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_monotonic_ns(void); /* never jumps; for ages, time-outs and latency */
uint64_t clock_wall_ns(void);      /* since 1970-01-01T00:00:00Z; may jump; for stamps people read */

/* "YYYY-MM-DDTHH:MM:SS.mmmZ" (24 characters and a zero) of a wall clock reading. */
enum { CLOCK_TEXT_SIZE = 32 };
void clock_wall_text(uint64_t wall_ns, char text[CLOCK_TEXT_SIZE]);

#endif
