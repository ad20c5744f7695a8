/* Private to router/: the tree of router.h as its two halves see it, changing (router.c) and matching (router_match.c). */
#ifndef ROUTER_TREE_H
#define ROUTER_TREE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/table.h"
#include "mqtt/topic.h"
#include "router/router.h"

struct router_record;

struct router_entry {
    struct router_subscription subscription;
    struct router_record *record;
};

struct router_list {
    struct router_entry *entries; /* [count], owned */
    uint32_t count;
    uint32_t capacity;
};

/* A shared subscription: a name and a filter that ends at a node. */
struct router_group {
    struct router_node *node;
    struct router_group *next, *previous; /* of the same node */
    struct router_list members;
    bool below; /* as router_record */
    uint16_t name_length;
    char name[]; /* [name_length] */
};

/* One level of one or more filters. */
struct router_node {
    struct router_node *parent; /* NULL: the root */
    struct router_node *plus;   /* child for '+' */
    struct router_list here;    /* filters that end at this level */
    struct router_list below;   /* filters that end with '#' below it; they match this level as well */
    struct router_group *groups;
    uint32_t child_count; /* named children; they lie in router.nodes */
    uint16_t level_length;
    char level[]; /* [level_length]; '+' for a plus child */
};

/* One connection's subscriptions. */
struct router_connection {
    uint32_t loop, connection, generation;
    struct router_record *first;
};

/* One subscription: joins its connection to its entry in a node's list. */
struct router_record {
    struct router_node *node;
    struct router_connection *connection;
    struct router_group *group;            /* NULL: a subscription of its own */
    struct router_record *next, *previous; /* of the same connection */
    uint32_t index;                        /* within the list */
    bool below;                            /* the filter ends with '#' below the node */
};

struct router {
    _Atomic uint64_t generation; /* bumped by every change, under the write lock */
    pthread_rwlock_t lock;       /* guards all that follows */
    uint64_t seed;
    uint32_t subscriptions_max;
    size_t bytes_max;
    size_t bytes;             /* without the tables' */
    struct table nodes;       /* named children by parent and level */
    struct table connections; /* by identity */
    struct table records;     /* by connection, node and list */
    struct table groups;      /* by node, list and name */
    struct router_node *root;
};

struct router_level {
    const char *text;
    size_t length;
};

/* Splits at '/'. Returns the number of levels, or 0 when there are more than MQTT_TOPIC_LEVELS_MAX. */
unsigned router_split(const char *text, size_t length, struct router_level levels[MQTT_TOPIC_LEVELS_MAX]);

struct router_node *router_child(const struct router *router, const struct router_node *parent, const struct router_level *level);

#endif
