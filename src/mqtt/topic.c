/* Topic names are checked for every publish, so the common case, plain ASCII, is read eight bytes at a time; anything else
 * takes the careful way. */
#include "mqtt/topic.h"

#include <stdint.h>
#include <string.h>

#include "base/text.h"

#define EACH_BYTE(b) (UINT64_C(0x0101010101010101) * (b))

/* Whether all eight bytes are ASCII and none is zero, '+' or '#'. Adding 0x7f sets the top bit of every byte from 1 to 0x7f and
 * carries into no neighbour as long as the bytes are ASCII, which the last term makes sure of. */
static inline bool word_is_plain(uint64_t word)
{
    uint64_t no_zero = word + EACH_BYTE(0x7f);
    uint64_t no_plus = (word ^ EACH_BYTE('+')) + EACH_BYTE(0x7f);
    uint64_t no_hash = (word ^ EACH_BYTE('#')) + EACH_BYTE(0x7f);
    return (no_zero & no_plus & no_hash & ~word & EACH_BYTE(0x80)) == EACH_BYTE(0x80);
}

static inline uint64_t load_64(const char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* One to seven bytes as a word in which some stand twice: the test does not mind. */
static inline uint64_t load_few(const char *at, size_t length)
{
    if (length >= 4) {
        uint32_t first, last;
        memcpy(&first, at, sizeof first);
        memcpy(&last, at + length - sizeof last, sizeof last);
        return (uint64_t)last << 32 | first;
    }
    if (length == 1)
        return EACH_BYTE((uint8_t)at[0]);
    uint16_t first, last;
    memcpy(&first, at, sizeof first);
    memcpy(&last, at + length - sizeof last, sizeof last);
    return UINT64_C(0x0000000100000001) * ((uint32_t)last << 16 | first);
}

static bool name_is_plain(const char *topic, size_t length)
{
    if (length < 8)
        return word_is_plain(load_few(topic, length));
    size_t i = 0;
    for (; i + 8 <= length; i += 8)
        if (!word_is_plain(load_64(topic + i)))
            return false;
    return i == length || word_is_plain(load_64(topic + length - 8));
}

static bool levels_within_limit(const char *topic, size_t length)
{
    if (length < MQTT_TOPIC_LEVELS_MAX)
        return true; /* too short to hold so many separators */
    size_t levels = 1;
    for (size_t i = 0; i < length; i++)
        levels += topic[i] == '/';
    return levels <= MQTT_TOPIC_LEVELS_MAX;
}

static bool text_valid(const char *text, size_t length)
{
    return !memchr(text, 0, length) && text_is_utf8(text, length);
}

bool mqtt_topic_name_valid(const char *topic, size_t length)
{
    if (length == 0 || length > MQTT_TOPIC_LENGTH_MAX || !levels_within_limit(topic, length))
        return false;
    if (name_is_plain(topic, length))
        return true;
    return !memchr(topic, '+', length) && !memchr(topic, '#', length) && text_valid(topic, length);
}

/* Length of a leading "$share/NAME/", 0 when there is none. False when it begins so and goes on wrongly. */
static bool share_prefix_length(const char *filter, size_t length, size_t *prefix_length)
{
    static const char share[] = "$share/";
    size_t start = sizeof share - 1;
    *prefix_length = 0;
    if (length < start || memcmp(filter, share, start) != 0)
        return true;
    const char *name_end = memchr(filter + start, '/', length - start);
    if (!name_end)
        return false;
    size_t name_length = (size_t)(name_end - filter) - start;
    if (name_length == 0 || memchr(filter + start, '+', name_length) || memchr(filter + start, '#', name_length))
        return false;
    *prefix_length = start + name_length + 1;
    return true;
}

size_t mqtt_topic_share_length(const char *filter, size_t length)
{
    size_t prefix_length;
    return share_prefix_length(filter, length, &prefix_length) ? prefix_length : 0;
}

bool mqtt_topic_filter_valid(const char *filter, size_t length)
{
    if (length == 0 || length > MQTT_TOPIC_LENGTH_MAX || !text_valid(filter, length))
        return false;
    size_t prefix_length;
    if (!share_prefix_length(filter, length, &prefix_length) || prefix_length == length)
        return false;
    filter += prefix_length;
    length -= prefix_length;
    if (!levels_within_limit(filter, length))
        return false;
    for (size_t i = 0; i < length; i++) {
        if (filter[i] != '+' && filter[i] != '#')
            continue;
        bool starts_level = i == 0 || filter[i - 1] == '/';
        bool ends_level = i + 1 == length || filter[i + 1] == '/';
        if (!starts_level || !ends_level || (filter[i] == '#' && i + 1 != length))
            return false;
    }
    return true;
}

bool mqtt_topic_matches(const char *filter, size_t filter_length, const char *topic, size_t topic_length)
{
    if (filter_length == 0 || topic_length == 0)
        return false;
    if (topic[0] == '$' && (filter[0] == '+' || filter[0] == '#'))
        return false;
    size_t i = 0, j = 0;
    for (;;) {
        if (i < filter_length && filter[i] == '#')
            return true;
        if (i < filter_length && filter[i] == '+') {
            i++;
            while (j < topic_length && topic[j] != '/')
                j++;
        } else {
            while (i < filter_length && filter[i] != '/' && j < topic_length && filter[i] == topic[j])
                i++, j++;
        }
        if (i == filter_length)
            return j == topic_length;
        if (filter[i] != '/')
            return false;
        if (j == topic_length) /* "sport/#" stands for its parent as well */
            return filter_length - i == 2 && filter[i + 1] == '#';
        if (topic[j] != '/')
            return false;
        i++, j++;
    }
}

/* The level that begins at `at`; *at gets the beginning of the next, length + 1 behind the last. */
static size_t next_level(const char *filter, size_t length, size_t *at)
{
    size_t start = *at;
    while (*at < length && filter[*at] != '/')
        (*at)++;
    size_t level_length = *at - start;
    (*at)++;
    return level_length;
}

static bool is_wildcard(const char *level, size_t length, char wildcard)
{
    return length == 1 && level[0] == wildcard;
}

bool mqtt_topic_filter_covers(const char *wide, size_t wide_length, const char *narrow, size_t narrow_length)
{
    if (wide_length == 0 || narrow_length == 0)
        return false;
    if (narrow[0] == '$' && (wide[0] == '+' || wide[0] == '#'))
        return false;
    if (is_wildcard(narrow, narrow_length, '#') && wide_length == 3 && memcmp(wide, "+/#", 3) == 0)
        return true; /* there is no topic without a level */
    size_t i = 0, j = 0;
    while (i <= wide_length) {
        const char *wide_level = wide + i, *narrow_level = narrow + j;
        size_t wide_size = next_level(wide, wide_length, &i);
        if (is_wildcard(wide_level, wide_size, '#'))
            return true; /* also where `narrow` has ended: "sport/#" stands for its parent as well */
        if (j > narrow_length)
            return false;
        size_t narrow_size = next_level(narrow, narrow_length, &j);
        if (is_wildcard(narrow_level, narrow_size, '#'))
            return false;
        if (!is_wildcard(wide_level, wide_size, '+') && (wide_size != narrow_size || memcmp(wide_level, narrow_level, wide_size) != 0))
            return false;
    }
    return j > narrow_length;
}
