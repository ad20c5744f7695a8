/* Medians: of an array in linear time, and of every trailing window of it in n log n, whatever the width of the window. Pure. */
#ifndef DRILLING_MEDIAN_H
#define DRILLING_MEDIAN_H

#include <stddef.h>

struct median_scratch; /* working memory; one thread at a time */

int median_scratch_create(struct median_scratch **scratch);
void median_scratch_destroy(struct median_scratch *scratch);

/* Makes room for arrays of `count` values, so that the functions below cannot fail. Returns 0 or ERR_NO_MEMORY. */
int median_scratch_reserve(struct median_scratch *scratch, size_t count);

/* The median of `count` > 0 values without NaN: the middle one, or the mean of the two in the middle. Reserved: count. */
double median_of(struct median_scratch *scratch, const double *values, size_t count);

/* medians[i] = median of values[i-width+1 .. i], NaN where that window begins before the array or holds a value that is not finite.
 * width >= 1. Reserved: count. */
void median_trailing(struct median_scratch *scratch, const double *values, size_t count, size_t width, double *medians);

#endif
