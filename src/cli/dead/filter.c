#include "cli/dead/filter.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "cli/journal/when.h"
#include "queue/ledger.h"

enum { OFFSET_DIGITS_MAX = 18 };

void dead_filter_init(struct dead_filter *filter)
{
    *filter = (struct dead_filter){.until_ns = UINT64_MAX};
}

int dead_filter_set_reason(struct dead_filter *filter, const char *text, char message[VALUE_MESSAGE_MAX])
{
    const char *words[REASON_COUNT];
    for (unsigned i = 1; i < REASON_COUNT; i++) {
        words[i - 1] = reason_word(i);
        if (strcmp(text, words[i - 1]) == 0) {
            snprintf(filter->reason, sizeof filter->reason, "%s", text);
            return 0;
        }
    }
    int length = snprintf(message, VALUE_MESSAGE_MAX, "there is no reason `%.40s`; the reasons are:", text);
    for (unsigned i = 0; i + 1 < REASON_COUNT && length < VALUE_MESSAGE_MAX; i++)
        length += snprintf(message + length, (size_t)(VALUE_MESSAGE_MAX - length), " %s", words[i]);
    return ERR_INVALID;
}

int dead_filter_set_tool(struct dead_filter *filter, const char *text, char message[VALUE_MESSAGE_MAX])
{
    size_t length = strlen(text);
    const char *slash = strchr(text, '/');
    if (!slash || slash == text || !slash[1] || strchr(slash + 1, '/') || strpbrk(text, "+#") || length >= sizeof filter->tool) {
        snprintf(message, VALUE_MESSAGE_MAX, "expected a tool's key, toolbox/tool, found `%.60s`", text);
        return ERR_INVALID;
    }
    memcpy(filter->tool, text, length + 1);
    return 0;
}

/* Takes a number; false when there is none. */
static bool take_offset(const char **at, uint64_t *offset)
{
    size_t digits = strspn(*at, "0123456789");
    if (digits == 0 || digits > OFFSET_DIGITS_MAX)
        return false;
    *offset = strtoull(*at, NULL, 10);
    *at += digits;
    return true;
}

static bool take_range(const char **at, struct dead_range *range)
{
    if (!take_offset(at, &range->first))
        return false;
    range->last = range->first;
    if (**at != '-')
        return true;
    (*at)++;
    range->last = UINT64_MAX;
    return !isdigit((unsigned char)**at) || (take_offset(at, &range->last) && range->last >= range->first);
}

int dead_filter_set_offsets(struct dead_filter *filter, const char *text, char message[VALUE_MESSAGE_MAX])
{
    struct dead_range ranges[DEAD_FILTER_RANGES_MAX];
    unsigned count = 0;
    const char *at = text;
    bool good = true;
    do {
        good = count < DEAD_FILTER_RANGES_MAX && take_range(&at, &ranges[count]);
        count++;
    } while (good && *at == ',' && at++);
    if (!good || *at) {
        snprintf(message, VALUE_MESSAGE_MAX, "expected offsets such as 7 or 3,8-12,40- (at most %d ranges), found `%.60s`",
                 DEAD_FILTER_RANGES_MAX, text);
        return ERR_INVALID;
    }
    memcpy(filter->ranges, ranges, sizeof ranges);
    filter->range_count = count;
    return 0;
}

int dead_filter_parse_time(uint64_t *time_ns, const char *text, uint64_t now_ns, char message[VALUE_MESSAGE_MAX])
{
    struct when when;
    if (when_parse(text, now_ns, &when, message) == 0 && when.is_time) {
        *time_ns = when.time_ns;
        return 0;
    }
    snprintf(message, VALUE_MESSAGE_MAX, "expected a time such as 2026-11-21T10:34:43Z, or an age such as -10m, found `%.60s`", text);
    return ERR_INVALID;
}

bool dead_filter_is_empty(const struct dead_filter *filter)
{
    return !filter->reason[0] && !filter->tool[0] && filter->since_ns == 0 && filter->until_ns == UINT64_MAX && filter->range_count == 0;
}

uint64_t dead_filter_first(const struct dead_filter *filter)
{
    uint64_t first = filter->range_count ? UINT64_MAX : 0;
    for (unsigned i = 0; i < filter->range_count; i++)
        first = filter->ranges[i].first < first ? filter->ranges[i].first : first;
    return first;
}

static bool is_in_ranges(const struct dead_filter *filter, uint64_t offset)
{
    for (unsigned i = 0; i < filter->range_count; i++)
        if (offset >= filter->ranges[i].first && offset <= filter->ranges[i].last)
            return true;
    return filter->range_count == 0;
}

/* Whether a tool's key stands in a topic as whole levels; where the root ends is not known here. */
static bool is_of_tool(const char *topic, uint32_t length, const char *tool)
{
    size_t size = strlen(tool);
    for (uint32_t at = 0; length - at >= size;) {
        if (memcmp(topic + at, tool, size) == 0 && (at + size == length || topic[at + size] == '/'))
            return true;
        const char *slash = memchr(topic + at, '/', length - at);
        if (!slash)
            return false;
        at = (uint32_t)(slash + 1 - topic);
    }
    return false;
}

bool dead_filter_matches(const struct dead_filter *filter, const struct message *record, const struct dead_letter *letter)
{
    return is_in_ranges(filter, record->offset) && (!filter->reason[0] || strcmp(filter->reason, letter->reason) == 0) &&
           letter->time_ns >= filter->since_ns && letter->time_ns < filter->until_ns &&
           (!filter->tool[0] || is_of_tool(record->topic, record->topic_length, filter->tool));
}

void dead_letter_read(const struct message *record, struct dead_letter *letter)
{
    if (dead_letter_decode(record, letter))
        *letter = (struct dead_letter){.reason = "internal",
                                       .error = "the reason of this dead letter cannot be read",
                                       .time_ns = record->time_ns,
                                       .attempts = 1,
                                       .place = DEAD_LETTER_NO_PLACE};
}
