/* Topics and filters: the input is "filter\ntopic". The quick checks agree with plain ones, the matcher with a plain matcher, and
 * the router with the matcher. */
#include <stdbool.h>
#include <string.h>

#include "base/text.h"
#include "fuzz.h"
#include "mqtt/topic.h"
#include "router/router.h"

struct level {
    const char *text;
    size_t length;
};

static size_t split(const char *text, size_t length, struct level *levels, size_t levels_max)
{
    size_t count = 0, start = 0;
    for (size_t i = 0; i <= length; i++)
        if (i == length || text[i] == '/') {
            if (count < levels_max)
                levels[count] = (struct level){text + start, i - start};
            count++;
            start = i + 1;
        }
    return count;
}

static bool is(const struct level *level, char wildcard)
{
    return level->length == 1 && level->text[0] == wildcard;
}

static bool has(const struct level *level, char byte)
{
    return memchr(level->text, byte, level->length);
}

enum { LEVELS_ROOM = MQTT_TOPIC_LEVELS_MAX + 2 };

static bool text_plainly_valid(const char *text, size_t length)
{
    return length >= 1 && length <= MQTT_TOPIC_LENGTH_MAX && text_is_utf8(text, length) && !memchr(text, 0, length);
}

static bool name_plainly_valid(const char *topic, size_t length)
{
    struct level levels[LEVELS_ROOM];
    return text_plainly_valid(topic, length) && split(topic, length, levels, LEVELS_ROOM) <= MQTT_TOPIC_LEVELS_MAX &&
           !memchr(topic, '+', length) && !memchr(topic, '#', length);
}

static bool filter_plainly_valid(const char *filter, size_t length)
{
    struct level levels[LEVELS_ROOM];
    if (!text_plainly_valid(filter, length))
        return false;
    size_t count = split(filter, length, levels, LEVELS_ROOM), first = 0;
    if (levels[0].length == 6 && memcmp(levels[0].text, "$share", 6) == 0 && count > 1) {
        if (count < 3 || levels[1].length == 0 || has(&levels[1], '+') || has(&levels[1], '#'))
            return false;
        if (count == 3 && levels[2].length == 0)
            return false;
        first = 2;
    }
    if (count - first > MQTT_TOPIC_LEVELS_MAX)
        return false;
    for (size_t i = first; i < count; i++) {
        if (has(&levels[i], '+') && !is(&levels[i], '+'))
            return false;
        if (has(&levels[i], '#') && (!is(&levels[i], '#') || i + 1 != count))
            return false;
    }
    return true;
}

static bool plainly_matches(const char *filter, size_t filter_length, const char *topic, size_t topic_length)
{
    struct level f[LEVELS_ROOM], t[LEVELS_ROOM];
    size_t f_count = split(filter, filter_length, f, LEVELS_ROOM), t_count = split(topic, topic_length, t, LEVELS_ROOM);
    if (topic[0] == '$' && (is(&f[0], '+') || is(&f[0], '#')))
        return false;
    for (size_t i = 0; i < f_count; i++) {
        if (is(&f[i], '#'))
            return t_count >= i;
        if (i >= t_count)
            return false;
        if (!is(&f[i], '+') && (f[i].length != t[i].length || memcmp(f[i].text, t[i].text, f[i].length) != 0))
            return false;
    }
    return f_count == t_count;
}

static void check_router(const char *filter, size_t filter_length, const char *topic, size_t topic_length, bool matches)
{
    static struct router *router;
    static struct router_cache *cache;
    if (!router) {
        PROMISE(router_create(NULL, &router) == 0);
        PROMISE(router_cache_create(&(struct router_cache_options){.topics_max = 4, .bytes_max = 4096}, &cache) == 0);
    }
    struct router_subscription subscription = {.connection = 1, .qos = 1};
    PROMISE(router_subscribe(router, filter, filter_length, &subscription) == 0);
    PROMISE(router_match(router, cache, topic, topic_length)->count == matches);
    PROMISE(router_unsubscribe(router, filter, filter_length, &subscription));
    PROMISE(router_match(router, cache, topic, topic_length)->count == 0);
    PROMISE(router_subscription_count(router) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *filter = (const char *)data;
    const uint8_t *newline = size ? memchr(data, '\n', size) : NULL;
    size_t filter_length = newline ? (size_t)(newline - data) : size;
    const char *topic = newline ? (const char *)newline + 1 : filter;
    size_t topic_length = newline ? size - filter_length - 1 : size;
    bool filter_valid = mqtt_topic_filter_valid(filter, filter_length), topic_valid = mqtt_topic_name_valid(topic, topic_length);
    PROMISE(filter_valid == filter_plainly_valid(filter, filter_length));
    PROMISE(topic_valid == name_plainly_valid(topic, topic_length));
    if (!filter_valid || !topic_valid)
        return 0;
    bool matches = mqtt_topic_matches(filter, filter_length, topic, topic_length);
    bool shared = filter_length > 7 && memcmp(filter, "$share/", 7) == 0;
    if (shared)
        return 0;
    PROMISE(matches == plainly_matches(filter, filter_length, topic, topic_length));
    check_router(filter, filter_length, topic, topic_length, matches);
    return 0;
}
