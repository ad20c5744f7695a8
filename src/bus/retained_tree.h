/* The retained messages in memory: a tree of topic levels whose nodes hold one message each. One owner at a time.
 *
 * Each message has a slot, and a handle is a slot and how often it has changed: whoever has asked for the messages of a filter keeps eight
 * bytes for each, takes them one by one, and finds those gone that were replaced meanwhile. Messages are immutable and counted, so one that
 * was taken can be passed on without the tree. */
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
    bool passing;        /* it is never written to the stream */
    uint64_t time_ns;    /* wall clock at arrival */
    uint64_t expires_ns; /* wall clock; UINT64_MAX: never */
    uint64_t offset;     /* of its newest record in the stream */
    uint64_t number;     /* of its put, counted since the start; 0: it was there before */
    uint32_t topic_length, properties_length, payload_length;
    uint8_t bytes[]; /* topic, properties, payload */
};

struct retained_tree;

/* Returns 0, ERR_NO_MEMORY or ERR_IO (no randomness for the hash seed). bytes_max: of messages, nodes and tables. */
int retained_tree_create(uint32_t messages_max, size_t bytes_max, struct retained_tree **out);
void retained_tree_destroy(struct retained_tree *tree); /* accepts NULL */

/* Puts a copy of the message in the place of the topic's former one; one without payload removes that. Returns 1, 0 when there was nothing
 * to remove, ERR_LIMIT or ERR_NO_MEMORY; nothing has changed then. *made (may be NULL) gets the copy, borrowed, or NULL. */
int retained_tree_put(struct retained_tree *tree, const struct message *message, struct retained_message **made);

bool retained_tree_holds(const struct retained_tree *tree, const struct message *message); /* one of its topic */

struct retained_handle {
    uint32_t slot, generation;
};

/* What a filter asks for. */
struct retained_list {
    struct retained_handle *handles; /* [count]; owned */
    size_t count;
};

/* The messages whose topics a valid filter (without "$share/NAME/") matches, in no order. Returns 0, or ERR_NO_MEMORY with an empty
 * list. */
int retained_tree_find(const struct retained_tree *tree, const char *filter, size_t length, struct retained_list *list);
void retained_list_fini(struct retained_list *list);

/* The message of a handle, borrowed; NULL: it was replaced or removed. */
struct retained_message *retained_tree_get(const struct retained_tree *tree, struct retained_handle handle);

/* Every message has a slot below this; in one that is free there is NULL. */
uint32_t retained_tree_slots(const struct retained_tree *tree);
struct retained_message *retained_tree_at(const struct retained_tree *tree, uint32_t slot);
void retained_tree_remove(struct retained_tree *tree, uint32_t slot); /* which is not free */

void retained_release(struct retained_message *message); /* gives a reference back; accepts NULL */

/* The message as others know it; borrowed. */
struct message retained_message_view(const struct retained_message *message);

uint32_t retained_tree_count(const struct retained_tree *tree);
uint32_t retained_tree_expiring(const struct retained_tree *tree); /* how many of them expire */
size_t retained_tree_bytes(const struct retained_tree *tree);

#endif
