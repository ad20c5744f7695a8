#include <stdio.h>

#include "base/version.h"
#include "cli/command.h"

int command_version(const struct version_arguments *arguments)
{
    (void)arguments;
    printf("spindle %s\n", SPINDLE_VERSION);
    return command_finish_output("spindle version", COMMAND_OK);
}
