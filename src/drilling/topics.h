/* What a drilling topic means: {root}/{toolbox}/{tool}/{suffix}, or replay/{id}/ and the same behind it.
 *
 * The root is one or more levels; the two behind it are the tool key; the rest must equal one of the known suffixes exactly.
 * (A test for substrings, which suggests itself, takes a trace for a result and our own answers for input.)
 *
 * A replayed message has its original topic behind "replay/" and the id of the replay. Its key is all of the topic up to the tool, so
 * nothing of a replay is ever joined with, taken for a repeat of, or published among the live messages of the tool. A live key has one
 * slash, that of a replay at least four. Pure. */
#ifndef DRILLING_TOPICS_H
#define DRILLING_TOPICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum topics_kind {
    TOPICS_RESULT,
    TOPICS_TRACE,
    TOPICS_HEADS,
    TOPICS_ANSWER,      /* one of the two topics that Spindle publishes itself */
    TOPICS_OTHER_ASSET, /* Controllers, CuttingTools, Servos, Tools: known, not needed */
    TOPICS_UNKNOWN
};

enum {
    TOPICS_PART_MAX = 255, /* bytes of a root or suffix */
    TOPICS_LENGTH_MAX = 65535
};

/* Texts without slashes at their ends; zero-terminated and borrowed. */
struct topics_options {
    const char *root, *result, *trace, *heads, *keypoints, *depths;
};

struct topics {
    char root[TOPICS_PART_MAX + 1];
    char result[TOPICS_PART_MAX + 1], trace[TOPICS_PART_MAX + 1], heads[TOPICS_PART_MAX + 1];
    char keypoints[TOPICS_PART_MAX + 1], depths[TOPICS_PART_MAX + 1];
};

struct topics_match {
    enum topics_kind kind;
    const char *key; /* "toolbox/tool", of a replay "replay/id/root/toolbox/tool"; borrowed from the topic; NULL when unknown */
    uint32_t key_length;
};

extern const struct topics_options topics_defaults;

/* Copies the options. Returns 0, or ERR_CONFIG when a part is empty, too long, begins or ends with a slash, has an empty level or a
 * wildcard, when the root begins with the level of replays, or when two suffixes are the same. *topics is untouched on failure. */
int topics_init(struct topics *topics, const struct topics_options *options);

/* The longest tool key whose answers still have a topic that MQTT can carry, in bytes. */
uint32_t topics_key_max(const struct topics *topics);

void topics_classify(const struct topics *topics, const char *topic, size_t topic_length, struct topics_match *match);

/* Whether a topic is one of a replay; then *id is that of the replay, borrowed from the topic, at least one byte. */
bool topics_replay_id(const char *topic, size_t topic_length, const char **id, uint32_t *id_length);

/* Whether a key of topics_classify is one of a replay, and so a whole topic up to the tool. */
bool topics_key_is_replayed(const char *key, uint32_t key_length);

/* Says in `text` [size] why a topic is TOPICS_UNKNOWN and which known one is near. */
void topics_explain(const struct topics *topics, const char *topic, size_t topic_length, char *text, size_t size);

#endif
