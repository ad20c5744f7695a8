#include "queue/reason.h"

#include <string.h>

struct reason_row {
    const char *word, *help;
};

static const struct reason_row reasons[REASON_COUNT] = {
    {"", ""},
#define REASON(id, word, help) {word, help},
#include "queue/reasons.def"
#undef REASON
};

const char *reason_word(unsigned reason)
{
    return reason < REASON_COUNT ? reasons[reason].word : "";
}

const char *reason_help(unsigned reason)
{
    return reason < REASON_COUNT ? reasons[reason].help : "";
}

unsigned reason_parse(const char *word)
{
    for (unsigned i = 1; i < REASON_COUNT; i++)
        if (strcmp(reasons[i].word, word) == 0)
            return i;
    return REASON_INTERNAL;
}
