/* A message as every module sees it: topic, payload and properties as published; immutable. */
#ifndef BASE_MESSAGE_H
#define BASE_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct message {
    uint64_t offset;   /* place in its stream; UINT64_MAX before it has one */
    uint64_t time_ns;  /* wall clock at arrival */
    const char *topic; /* not zero-terminated */
    const uint8_t *payload;
    const uint8_t *properties; /* MQTT 5 property bytes, or what a module of ours has put there; may be NULL */
    uint32_t topic_length;
    uint32_t payload_length;
    uint32_t properties_length;
    uint8_t flags; /* MESSAGE_* */
};

enum {
    MESSAGE_QOS_MASK = 3,
    MESSAGE_RETAIN = 4,
    MESSAGE_REQUEUED = 8,   /* a dead letter that was put back; its properties begin with its history (queue/dead_letter.h) */
    MESSAGE_WITHHELD = 0x20 /* a result that is kept and not published */
};

/* The first level of the topics of replayed messages; the second is the id of the replay. */
#define MESSAGE_REPLAY_LEVEL "replay"

/* Whether a root of topics begins with that level, so that a live topic could not be told from a replayed one. */
static inline bool message_root_is_replay(const char *root)
{
    size_t length = strlen(MESSAGE_REPLAY_LEVEL);
    return strncmp(root, MESSAGE_REPLAY_LEVEL, length) == 0 && (root[length] == 0 || root[length] == '/');
}

#endif
