/* A message as every module sees it: topic, payload and properties as published; immutable. */
#ifndef BASE_MESSAGE_H
#define BASE_MESSAGE_H

#include <stdint.h>

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
    MESSAGE_REQUEUED = 8 /* a dead letter that was put back; its properties begin with its history (queue/dead_letter.h) */
};

#endif
