/* Topic names and filters (MQTT 5 section 4.7). Pure. */
#ifndef MQTT_TOPIC_H
#define MQTT_TOPIC_H

#include <stdbool.h>
#include <stddef.h>

/* The standards have no limit to the levels; 200 separators are what Mosquitto takes, so that whoever leaves it keeps its topics. */
enum { MQTT_TOPIC_LENGTH_MAX = 65535, MQTT_TOPIC_LEVELS_MAX = 201 };

/* A topic a client may publish to: 1..65535 bytes, no wildcard, no U+0000, well-formed UTF-8, at most
 * MQTT_TOPIC_LEVELS_MAX levels. */
bool mqtt_topic_name_valid(const char *topic, size_t length);

/* A filter a client may subscribe to; '#' only as the last whole level, '+' only as a whole level; a leading
 * "$share/NAME/" is checked as well (section 4.8.2). */
bool mqtt_topic_filter_valid(const char *filter, size_t length);

/* Length of the "$share/NAME/" with which a valid filter of a shared subscription begins; 0: it is none. */
size_t mqtt_topic_share_length(const char *filter, size_t length);

/* Whether a valid filter (without "$share/NAME/") matches a valid topic. A filter that starts with a wildcard does not match a
 * topic that starts with '$'. "sport/#" matches "sport". */
bool mqtt_topic_matches(const char *filter, size_t filter_length, const char *topic, size_t topic_length);

/* Whether every topic that a valid filter `narrow` matches is matched by the valid filter `wide` too (both without "$share/NAME/"). */
bool mqtt_topic_filter_covers(const char *wide, size_t wide_length, const char *narrow, size_t narrow_length);

#endif
