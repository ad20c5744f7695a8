/* The retained messages in memory: a tree of topic levels whose nodes hold one message each. One owner at a time.
 *
 * Messages are immutable and counted: whoever has asked for those of a filter can pass them on little by little, on any thread, whatever
 * becomes of them in the tree meanwhile. */
#ifndef BUS_RETAINED_TREE_H
#define BUS_RETAINED_TREE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/message.h"

struct retained_message {
    _Atomic uint32_t references;
    uint8_t qos;
    uint64_t time_ns; /* wall clock at arrival */
    uint32_t topic_length, properties_length, payload_length;
    uint8_t bytes[]; /* topic, properties, payload */
};

struct retained_tree;

/* Returns 0, ERR_NO_MEMORY or ERR_IO (no randomness for the hash seed). bytes_max: of messages, nodes and table. */
int retained_tree_create(uint32_t messages_max, size_t bytes_max, struct retained_tree **out);
void retained_tree_destroy(struct retained_tree *tree); /* accepts NULL */

/* Puts a copy of the message in the place of the topic's former one; one without payload removes that. Returns 1, 0 when there was nothing
 * to remove, ERR_LIMIT or ERR_NO_MEMORY; nothing has changed then. */
int retained_tree_put(struct retained_tree *tree, const struct message *message);

/* Whether it is its topic's message still. */
bool retained_tree_has(const struct retained_tree *tree, const struct retained_message *message);

/* What a filter asks for. */
struct retained_list {
    struct retained_message **messages; /* [count]; owned, each with a reference */
    size_t count;
};

/* The messages whose topics a valid filter (without "$share/NAME/") matches, in no order; NULL: all there are, the server's own topics
 * included. Returns 0, or ERR_NO_MEMORY with an empty list. */
int retained_tree_find(const struct retained_tree *tree, const char *filter, size_t length, struct retained_list *list);
void retained_list_fini(struct retained_list *list);

void retained_release(struct retained_message *message); /* gives a reference back; accepts NULL */

/* The message as others know it; borrowed. Its offset is not known. */
struct message retained_message_view(const struct retained_message *message);

uint32_t retained_tree_count(const struct retained_tree *tree);
size_t retained_tree_bytes(const struct retained_tree *tree);

#endif
