/* Finds the command and runs it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "cli/command.h"

/* What jemalloc reads at its start (docs/decisions/jemalloc.md). */
extern const char *malloc_conf;
const char *malloc_conf = "oversize_threshold:0,background_thread:true";

/* After a mistake: the whole help when no command was named at all, else where it is found. */
static void point_to_help(const struct command_line *line, int argc)
{
    if (argc < 2 || line->group)
        command_help_print(line);
    else if (line->command)
        fprintf(stderr, "`spindle %s --help` explains it.\n", line->command->name);
    else
        fprintf(stderr, "`spindle --help` lists the commands.\n");
}

static int act(const struct command_line *line)
{
    switch (line->action) {
    case COMMAND_ACTION_HELP:
        return command_help_print(line);
    case COMMAND_ACTION_VERSION:
        return command_version(NULL);
    case COMMAND_ACTION_RUN:
        break;
    }
    return line->command->run(line->arguments);
}

/* Whoever started the program may have closed these; the next file opened would take their place, and what is printed would go into
 * it. */
static void open_standard_files(void)
{
    for (int file = 0; file <= 2; file++)
        if (fcntl(file, F_GETFD) < 0 && open("/dev/null", file == 0 ? O_RDONLY : O_WRONLY) != file)
            abort();
}

int main(int argc, char **argv)
{
    open_standard_files();
    static struct command_line line;
    static struct problems problems;
    problems_init(&problems);
    int error = command_line_parse(&line, argc, argv, &problems);
    int status;
    if (error == ERR_INVALID) {
        problems_print(&problems, stderr);
        point_to_help(&line, argc);
        status = COMMAND_USAGE;
    } else if (error) {
        fprintf(stderr, "spindle: %s\n", error_text(error));
        status = COMMAND_FAILED;
    } else {
        status = act(&line);
    }
    problems_fini(&problems);
    command_line_fini(&line);
    return status;
}
