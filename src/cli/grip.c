/* `spindle grip`: which fastener a hole of a certain depth asks for. */
#include "drilling/grip.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/command.h"

int command_grip(const struct grip_arguments *arguments)
{
    char *end;
    double depth_mm = strtod(arguments->depth, &end);
    if (end == arguments->depth || *end || !isfinite(depth_mm) || depth_mm < 0) {
        fprintf(stderr, "spindle grip: `%s` is no depth; it is a number of mm from 0 on, such as 20.55\n", arguments->depth);
        return COMMAND_FAILED;
    }
    struct grip_codes codes = grip_length_codes(depth_mm, GRIP_UNIT_MM, GRIP_LOW_MM, GRIP_HIGH_MM);
    int table = grip_table_code(depth_mm);
    if (arguments->json)
        printf("{\"depth_mm\":%.15g,\"table\":%d,\"next\":%d,\"exact_or_next\":%d,\"nearest\":%d}\n", depth_mm, table, codes.next,
               codes.exact_or_next, codes.nearest);
    else
        printf("table          %d%s\nnext           %d\nexact or next  %d\nnearest        %d\n", table, table ? "" : " (none)", codes.next,
               codes.exact_or_next, codes.nearest);
    return command_finish_output("spindle grip", COMMAND_OK);
}
