/* The command line: what commands.def becomes in C.
 *
 * A command gets a struct with one field an option, checked and typed: struct check_arguments for `spindle check`. */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "config/config.h"
#include "config/problems.h"
#include "config/value.h"

/* Exit statuses of every command. */
enum command_status { COMMAND_OK = 0, COMMAND_FAILED = 1, COMMAND_USAGE = 2 };

struct command;

/* clang-format off */
#define WORDS(group)                enum command_##group {
#define WORD(group, id, word, help)     COMMAND_##group##_##id,
#define WORDS_END(group)            };
#include "cli/commands.def"

#define COMMAND(id, name, visibility, summary, details, failure)                             struct id##_arguments { const struct command *row;
#define OPTION_FLAG(id, field, name, letter, help)                                           bool field;
#define OPTION_SWITCH(id, field, name, initial, help)                                        bool field, field##_given;
#define OPTION_INT(id, field, name, letter, argument, initial, min, max, help)               uint32_t field; bool field##_given;
#define OPTION_COUNT(id, field, name, letter, argument, initial, min, help)                  uint64_t field; bool field##_given;
#define OPTION_NUMBER(id, field, name, letter, argument, initial, min, max, unit, help)      double field; bool field##_given;
#define OPTION_SIZE(id, field, name, letter, argument, initial, min, max, help)              uint64_t field; bool field##_given;
#define OPTION_TEXT(id, field, name, letter, argument, initial, help)                        const char *field; bool field##_given;
#define OPTION_WORD(id, field, name, letter, argument, group, initial, help)                 enum command_##group field; bool field##_given;
#define OPTION_SETTINGS(id)                                                                  const struct config_assignment *assignments; size_t assignment_count;
#define ARGUMENT(id, field, argument, need, help)                                            const char *field; bool field##_given;
#define ARGUMENT_WORD(id, field, argument, need, group, help)                                enum command_##group field; bool field##_given;
#define END(id)                                                                              };
#include "cli/commands.def"
/* clang-format on */

#define COMMAND(id, name, visibility, summary, details, failure) int command_##id(const struct id##_arguments *arguments);
#include "cli/commands.def"

/* ---- the table as data ---- */

enum command_item_kind {
    COMMAND_ITEM_END,
    COMMAND_ITEM_FLAG,
    COMMAND_ITEM_SWITCH,
    COMMAND_ITEM_VALUE,    /* an option with an argument */
    COMMAND_ITEM_SETTING,  /* the same as --set with a path */
    COMMAND_ITEM_SETTINGS, /* --set */
    COMMAND_ITEM_ARGUMENT,
    COMMAND_ITEM_EXAMPLE
};

struct command_item {
    enum command_item_kind kind;
    const char *name;     /* of an option "--name", of an ARGUMENT its name in capitals, of an EXAMPLE the line */
    char letter;          /* 0: none */
    bool required;        /* ARGUMENT */
    const char *argument; /* of an option, in capitals; NULL: it has none */
    const char *initial;  /* NULL: none */
    const char *help;
    struct value_type type;
    enum config_setting setting;       /* SETTING */
    size_t field_offset, given_offset; /* in the command's struct; FLAG has no `given` */
};

struct command {
    const char *name; /* one or two words */
    bool hidden;
    const char *summary, *details, *failure;
    const struct command_item *items; /* ended by COMMAND_ITEM_END */
    size_t arguments_size;
    int (*run)(const void *arguments);
};
extern const struct command commands[];
extern const size_t command_count;

/* Whether `name` is the first word of commands with two. */
bool command_is_group(const char *name);

/* ---- parsing ---- */

enum {
    COMMAND_ASSIGNMENTS_MAX = 128, /* --set and the like on one command line */
    COMMAND_NAME_MAX = 64,
    COMMAND_ITEMS_MAX = 64 /* of one command */
};

enum command_action { COMMAND_ACTION_RUN, COMMAND_ACTION_HELP, COMMAND_ACTION_VERSION };

struct command_line {
    enum command_action action;
    const struct command *command; /* RUN, and HELP about one command; else NULL */
    const char *group;             /* HELP about the commands that begin with this word; else NULL */
    void *arguments;               /* RUN: struct <id>_arguments; owned */
    struct config_assignment assignments[COMMAND_ASSIGNMENTS_MAX];
    size_t assignment_count;
};

/* Parses argv[1..]. Texts of *line are borrowed from argv. Returns 0; or ERR_INVALID, with what is wrong in `problems` (their place is the
 * command, "spindle check") and line->command still set when it is known; or ERR_NO_MEMORY. Give *line to command_line_fini in any case. */
int command_line_parse(struct command_line *line, int argc, char *const *argv, struct problems *problems);
void command_line_fini(struct command_line *line);

/* Finds the command of one or two words: sets line->command, or line->group when the first word is one and no second follows. Returns how
 * many words it took; 0 when there is no such command, which is reported. */
size_t command_line_choose(struct command_line *line, const char *const *words, size_t word_count, struct problems *problems);

/* ---- help ---- */

struct command_help_style {
    unsigned width;           /* columns to fill */
    const char *bold, *plain; /* turn a heading on and off; "" for none */
};

/* Appends help about line->command, or line->group, or the program. */
int command_help_write(const struct command_line *line, const struct command_help_style *style, struct buffer *out);

/* Appends "spindle check [options]", with the arguments by name. */
int command_usage_write(const struct command *command, struct buffer *out);

/* Appends an option or argument as it is shown: "-c, --config FILE". */
int command_item_write(const struct command_item *item, struct buffer *out);

/* Appends an item's help, with what its type and initial value imply: "Port. A whole number from 1 to 65535; default 1883." */
int command_item_help_write(const struct command_item *item, struct buffer *out);

/* Prints help to standard output. Returns the exit status. */
int command_help_print(const struct command_line *line);

/* The exit status: `status`, or COMMAND_FAILED (said) when not all that was printed could be written. */
int command_finish_output(const char *command, int status);

#endif
