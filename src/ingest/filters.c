#include "ingest/filters.h"

#include <string.h>

#include "mqtt/topic.h"

/* The level at *at: its length; *at goes behind it and its slash, or becomes NULL at the end. */
static size_t take_level(const char **at)
{
    size_t length = strcspn(*at, "/");
    *at = (*at)[length] ? *at + length + 1 : NULL;
    return length;
}

static bool level_is(const char *level, size_t length, char wildcard)
{
    return length == 1 && level[0] == wildcard;
}

/* "sport/#" matches "sport" too, so the end of one may be met by the '#' of the other. */
static bool is_rest(const char *filter)
{
    return filter && strcmp(filter, "#") == 0;
}

/* A wildcard in front matches no topic of the system ([MQTT-4.7.2-1]). */
static bool begins_apart(const char *wild, const char *other)
{
    return (wild[0] == '+' || wild[0] == '#') && other[0] == '$';
}

bool filter_covers(const char *outer, const char *inner)
{
    return mqtt_topic_filter_covers(outer, strlen(outer), inner, strlen(inner));
}

bool filter_overlaps(const char *one, const char *other)
{
    if (begins_apart(one, other) || begins_apart(other, one))
        return false;
    while (one && other) {
        const char *one_level = one, *other_level = other;
        size_t one_length = take_level(&one), other_length = take_level(&other);
        if (level_is(one_level, one_length, '#') || level_is(other_level, other_length, '#'))
            return true;
        if (level_is(one_level, one_length, '+') || level_is(other_level, other_length, '+'))
            continue;
        if (one_length != other_length || memcmp(one_level, other_level, one_length) != 0)
            return false;
    }
    return (!one && !other) || is_rest(one) || is_rest(other);
}
