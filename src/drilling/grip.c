#include "drilling/grip.h"

#include <limits.h>
#include <math.h>

struct grip_codes grip_length_codes(double depth_mm, double unit_mm, double low_mm, double high_mm)
{
    double units = floor(depth_mm / unit_mm);
    if (!(depth_mm >= 0) || !(units < INT_MAX - 2))
        return (struct grip_codes){0};
    int whole = (int)units;
    double rest_mm = depth_mm - units * unit_mm;
    return (struct grip_codes){.next = whole + 1,
                               .exact_or_next = whole + (rest_mm > high_mm),
                               .nearest = whole + (rest_mm < low_mm    ? 0
                                                   : rest_mm > high_mm ? 2
                                                                       : 1)};
}

static double upper_limit_mm(int code)
{
    return code == 0 ? 0 : GRIP_UNIT_MM * code + GRIP_TOLERANCE_MM;
}

int grip_table_code(double depth_mm)
{
    for (int code = 1; code <= GRIP_CODE_MAX; code++) {
        if (depth_mm > upper_limit_mm(code - 1) && depth_mm <= upper_limit_mm(code))
            return code;
    }
    return 0;
}
