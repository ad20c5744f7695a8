#include <stdio.h>

#include "base/version.h"
#include "cli/command.h"

int command_version(const struct version_arguments *arguments)
{
    (void)arguments;
    return printf("spindle %s\n", SPINDLE_VERSION) > 0 && fflush(stdout) == 0 ? COMMAND_OK : COMMAND_FAILED;
}
