/* Which dead letters are meant: from the command line or a request, as texts. Pure. */
#ifndef CLI_DEAD_FILTER_H
#define CLI_DEAD_FILTER_H

#include <stdbool.h>
#include <stdint.h>

#include "config/value.h"
#include "queue/dead_letter.h"

enum { DEAD_FILTER_RANGES_MAX = 64, DEAD_FILTER_TOOL_MAX = 512 };

struct dead_range {
    uint64_t first, last; /* both included; last UINT64_MAX: to the end */
};

struct dead_filter {
    char reason[32];                                  /* "": any */
    char tool[DEAD_FILTER_TOOL_MAX];                  /* "": any */
    uint64_t since_ns, until_ns;                      /* arrival of the message: since <= arrival < until */
    struct dead_range ranges[DEAD_FILTER_RANGES_MAX]; /* of offsets in `dead-letters`; none: any */
    unsigned range_count;
};

/* Everything. */
void dead_filter_init(struct dead_filter *filter);

/* Each returns 0, or ERR_INVALID with what was expected, and leaves the filter as it was. */
int dead_filter_set_reason(struct dead_filter *filter, const char *text, char message[VALUE_MESSAGE_MAX]);
int dead_filter_set_tool(struct dead_filter *filter, const char *text, char message[VALUE_MESSAGE_MAX]);    /* "toolbox/tool" */
int dead_filter_set_offsets(struct dead_filter *filter, const char *text, char message[VALUE_MESSAGE_MAX]); /* "7", "3,8-12,40-" */
/* RFC 3339, or an age before now_ns: "-10m". */
int dead_filter_parse_time(uint64_t *time_ns, const char *text, uint64_t now_ns, char message[VALUE_MESSAGE_MAX]);

/* Whether it lets everything pass. */
bool dead_filter_is_empty(const struct dead_filter *filter);

/* The least offset that can match. */
uint64_t dead_filter_first(const struct dead_filter *filter);

bool dead_filter_matches(const struct dead_filter *filter, const struct message *record, const struct dead_letter *letter);

/* Reads the reason and the rest of a dead letter; one that cannot be read is shown as such. */
void dead_letter_read(const struct message *record, struct dead_letter *letter);

#endif
