/* Bridge rules: which topics go where under which names, and the marks by which a message that has been here is known. Pure. */
#ifndef INGEST_RULES_H
#define INGEST_RULES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"
#include "ingest/ingest.h"
#include "mqtt/packet.h"

/* A topic is here (LOCAL) or at the broker (REMOTE). */
enum rule_side { RULE_LOCAL, RULE_REMOTE };

enum {
    RULE_TOPIC_FILTER_MAX = INGEST_RULE_FILTER_MAX + INGEST_RULE_PREFIX_MAX,
    RULE_HOPS_MAX = 16 /* Spindles that a message passes by bridges; with more of them it goes no further */
};

/* Prefix and filter of a side, as one topic filter; zero-terminated. */
void rule_filter(const struct ingest_rule *rule, enum rule_side side, char text[RULE_TOPIC_FILTER_MAX]);

/* Whether a topic of that side is the rule's. */
bool rule_matches(const struct ingest_rule *rule, enum rule_side side, const char *topic, size_t length);

/* Puts the name that a topic of side `from` which is the rule's has at the other side into `out`. 0; ERR_LIMIT (longer than a topic may be)
 * or ERR_NO_MEMORY. */
int rule_map(const struct ingest_rule *rule, enum rule_side from, const char *topic, size_t length, struct buffer *out);

/* Whether what one rule sends comes back by the other, as far as topics say: they have the same broker. */
bool rule_echoes(const struct ingest_rule *out, const struct ingest_rule *in);

/* Where a message has been, by its properties (of MQTT 5), as the Spindle of that mark sees it. */
enum rule_past {
    RULE_NEW,
    RULE_ECHO, /* here, and nowhere since */
    RULE_RING  /* here, and at another Spindle since; or at RULE_HOPS_MAX of them */
};
enum rule_past rule_past(struct mqtt_slice properties, const char *mark);

/* Appends properties and one mark more. 0, ERR_LIMIT or ERR_NO_MEMORY. */
int rule_mark(struct mqtt_slice properties, const char *mark, struct buffer *out);

#endif
