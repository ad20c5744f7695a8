/* The tree of retained messages. Nodes come and go with the messages that need them. */
#include "bus/retained_tree.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/table.h"
#include "mqtt/packet.h"
#include "mqtt/topic.h"

/* One level of one or more topics. */
struct node {
    struct node *parent;          /* NULL: the root */
    struct node *first;           /* child */
    struct node *next, *previous; /* of the same parent */
    struct retained_message *message;
    uint32_t slot; /* of the message */
    uint16_t level_length;
    char level[]; /* [level_length] */
};

enum { SLOTS_FIRST = 64 };

#define NO_SLOT UINT32_MAX

struct slot {
    struct node *node; /* NULL: free */
    uint32_t generation;
    uint32_t next_free;
};

struct retained_tree {
    uint64_t seed;
    uint32_t messages_max, count, expiring;
    size_t bytes_max, bytes; /* without the table's */
    struct table nodes;      /* but the root, by parent and level */
    struct node *root;
    struct slot *slots; /* [slot_count] */
    uint32_t slot_count, slot_capacity, free_slot;
};

struct level {
    const char *text;
    size_t length;
};

int retained_tree_create(uint32_t messages_max, size_t bytes_max, struct retained_tree **out)
{
    struct retained_tree *tree = calloc(1, sizeof *tree);
    struct node *root = calloc(1, sizeof *root);
    int error = tree && root ? 0 : ERR_NO_MEMORY;
    if (!error && getentropy(&tree->seed, sizeof tree->seed))
        error = ERR_IO;
    if (error) {
        free(root);
        free(tree);
        return error;
    }
    tree->root = root;
    tree->messages_max = messages_max;
    tree->bytes_max = bytes_max;
    tree->free_slot = NO_SLOT;
    *out = tree;
    return 0;
}

void retained_release(struct retained_message *message)
{
    if (message && atomic_fetch_sub(&message->references, 1) == 1)
        free(message);
}

void retained_tree_destroy(struct retained_tree *tree)
{
    if (!tree)
        return;
    for (size_t i = 0; tree->nodes.slots && i <= tree->nodes.mask; i++) {
        struct node *node = tree->nodes.slots[i].item;
        if (node)
            retained_release(node->message);
        free(node);
    }
    table_fini(&tree->nodes);
    free(tree->slots);
    free(tree->root);
    free(tree);
}

/* ---- levels ---- */

/* The first level of what is left of a topic or filter; what is left then begins behind its separator, or is NULL. */
static struct level next_level(const char **at, const char *end)
{
    const char *start = *at, *slash = memchr(start, '/', (size_t)(end - start));
    *at = slash ? slash + 1 : NULL;
    return (struct level){start, (size_t)((slash ? slash : end) - start)};
}

struct edge {
    const struct node *parent;
    const struct level *level;
};

static bool same_edge(const void *item, const void *key)
{
    const struct node *node = item;
    const struct edge *edge = key;
    return node->parent == edge->parent && node->level_length == edge->level->length &&
           memcmp(node->level, edge->level->text, edge->level->length) == 0;
}

static uint64_t edge_hash(const struct retained_tree *tree, const struct node *parent, const char *level, size_t length)
{
    return hash_bytes(level, length, tree->seed ^ (uintptr_t)parent);
}

static struct node *find_child(const struct retained_tree *tree, const struct node *parent, const struct level *level)
{
    struct edge edge = {parent, level};
    return table_find(&tree->nodes, edge_hash(tree, parent, level->text, level->length), same_edge, &edge);
}

/* ---- changes ---- */

static size_t node_size(size_t level_length)
{
    return sizeof(struct node) + level_length;
}

static size_t message_size(const struct retained_message *message)
{
    return sizeof *message + (size_t)message->topic_length + message->properties_length + message->payload_length;
}

static size_t bytes_left(const struct retained_tree *tree)
{
    size_t used = tree->bytes + table_bytes(&tree->nodes);
    return used < tree->bytes_max ? tree->bytes_max - used : 0;
}

static int add_child(struct retained_tree *tree, struct node *parent, const struct level *level, struct node **out)
{
    int error = table_reserve(&tree->nodes, bytes_left(tree) + table_bytes(&tree->nodes));
    if (!error && node_size(level->length) > bytes_left(tree))
        error = ERR_LIMIT;
    struct node *node = error ? NULL : calloc(1, node_size(level->length));
    if (!node)
        return error ? error : ERR_NO_MEMORY;
    node->parent = parent;
    node->level_length = (uint16_t)level->length;
    memcpy(node->level, level->text, level->length);
    node->next = parent->first;
    if (node->next)
        node->next->previous = node;
    parent->first = node;
    table_insert(&tree->nodes, edge_hash(tree, parent, level->text, level->length), node);
    tree->bytes += node_size(level->length);
    *out = node;
    return 0;
}

/* Removes the node and those above it that nothing needs any more. */
static void prune(struct retained_tree *tree, struct node *node)
{
    while (node->parent && !node->message && !node->first) {
        struct node *parent = node->parent;
        if (node->next)
            node->next->previous = node->previous;
        *(node->previous ? &node->previous->next : &parent->first) = node->next;
        table_remove(&tree->nodes, edge_hash(tree, parent, node->level, node->level_length), node);
        tree->bytes -= node_size(node->level_length);
        free(node);
        node = parent;
    }
}

/* The node of a topic, made where it is missing. */
static int open_node(struct retained_tree *tree, const struct message *message, struct node **out)
{
    struct node *node = tree->root;
    const char *at = message->topic, *end = at + message->topic_length;
    while (at) {
        struct level level = next_level(&at, end);
        struct node *child = find_child(tree, node, &level);
        int error = child ? 0 : add_child(tree, node, &level, &child);
        if (error) {
            prune(tree, node);
            return error;
        }
        node = child;
    }
    *out = node;
    return 0;
}

static int reserve_slot(struct retained_tree *tree)
{
    if (tree->free_slot != NO_SLOT || tree->slot_count < tree->slot_capacity)
        return 0;
    uint32_t capacity = tree->slot_capacity ? tree->slot_capacity * 2 : SLOTS_FIRST;
    size_t more = (capacity - tree->slot_capacity) * sizeof *tree->slots;
    if (more > bytes_left(tree))
        return ERR_LIMIT;
    struct slot *slots = realloc(tree->slots, capacity * sizeof *slots);
    if (!slots)
        return ERR_NO_MEMORY;
    tree->slots = slots;
    tree->slot_capacity = capacity;
    tree->bytes += more;
    return 0;
}

static uint32_t take_slot(struct retained_tree *tree, struct node *node)
{
    uint32_t slot = tree->free_slot;
    if (slot != NO_SLOT)
        tree->free_slot = tree->slots[slot].next_free;
    else
        tree->slots[slot = tree->slot_count++].generation = 0;
    tree->slots[slot].node = node;
    return slot;
}

static void drop(struct retained_tree *tree, struct node *node)
{
    struct slot *slot = &tree->slots[node->slot];
    tree->bytes -= message_size(node->message);
    tree->count--;
    tree->expiring -= node->message->expires_ns != UINT64_MAX;
    retained_release(node->message);
    node->message = NULL;
    *slot = (struct slot){.generation = slot->generation + 1, .next_free = tree->free_slot};
    tree->free_slot = node->slot;
}

static void place(struct retained_tree *tree, struct node *node, struct retained_message *message)
{
    if (node->message)
        drop(tree, node);
    node->message = message;
    node->slot = take_slot(tree, node);
    tree->bytes += message_size(message);
    tree->count++;
    tree->expiring += message->expires_ns != UINT64_MAX;
}

/* When a message expires, as its properties say. */
static uint64_t expiry_of(const struct message *message)
{
    struct mqtt_slice raw = {message->properties, message->properties_length};
    uint32_t interval_s, at;
    if (raw.length == 0 || !mqtt_properties_expiry(raw, &interval_s, &at))
        return UINT64_MAX;
    return message->time_ns + interval_s * UINT64_C(1000000000);
}

static int copy(struct retained_tree *tree, const struct node *node, const struct message *message, struct retained_message **out)
{
    struct retained_message head = {.references = 1,
                                    .qos = message->flags & MESSAGE_QOS_MASK,
                                    .time_ns = message->time_ns,
                                    .expires_ns = expiry_of(message),
                                    .topic_length = message->topic_length,
                                    .properties_length = message->properties_length,
                                    .payload_length = message->payload_length};
    size_t size = message_size(&head), freed = node->message ? message_size(node->message) : 0;
    int error = node->message ? 0 : reserve_slot(tree);
    if (!error && (size > bytes_left(tree) + freed || (!node->message && tree->count >= tree->messages_max)))
        error = ERR_LIMIT;
    struct retained_message *made = error ? NULL : malloc(size);
    if (!made)
        return error ? error : ERR_NO_MEMORY;
    memcpy(made, &head, sizeof head);
    uint8_t *at = made->bytes;
    memcpy(at, message->topic, message->topic_length);
    at += message->topic_length;
    if (message->properties_length)
        memcpy(at, message->properties, message->properties_length);
    memcpy(at + message->properties_length, message->payload, message->payload_length);
    *out = made;
    return 0;
}

static const struct node *find_node(const struct retained_tree *tree, const struct message *message)
{
    const struct node *node = tree->root;
    const char *at = message->topic, *end = at + message->topic_length;
    while (at && node) {
        struct level level = next_level(&at, end);
        node = find_child(tree, node, &level);
    }
    return node;
}

bool retained_tree_holds(const struct retained_tree *tree, const struct message *message)
{
    const struct node *node = find_node(tree, message);
    return node && node->message;
}

int retained_tree_put(struct retained_tree *tree, const struct message *message, struct retained_message **out)
{
    struct retained_message *made = NULL;
    if (message->payload_length == 0) {
        const struct node *node = find_node(tree, message);
        bool found = node && node->message;
        if (found)
            retained_tree_remove(tree, node->slot);
        if (out)
            *out = NULL;
        return found;
    }
    struct node *node;
    int error = open_node(tree, message, &node);
    if (error)
        return error;
    error = copy(tree, node, message, &made);
    if (!error)
        place(tree, node, made);
    else
        prune(tree, node);
    if (!error && out)
        *out = made;
    return error ? error : 1;
}

void retained_tree_remove(struct retained_tree *tree, uint32_t slot)
{
    struct node *node = tree->slots[slot].node;
    drop(tree, node);
    prune(tree, node);
}

/* ---- what a filter asks for ---- */

struct search {
    const struct retained_tree *tree;
    const char *end; /* of the filter */
    struct retained_list *list;
    size_t capacity;
};

static int add(struct search *search, const struct node *node)
{
    if (!node->message)
        return 0;
    struct retained_list *list = search->list;
    if (list->count == search->capacity) {
        size_t capacity = search->capacity ? search->capacity * 2 : 16;
        struct retained_handle *handles = realloc(list->handles, capacity * sizeof *handles);
        if (!handles)
            return ERR_NO_MEMORY;
        list->handles = handles;
        search->capacity = capacity;
    }
    list->handles[list->count++] = (struct retained_handle){node->slot, search->tree->slots[node->slot].generation};
    return 0;
}

/* A wildcard at the first level does not stand for the server's own topics (MQTT-4.7.2-1). */
static bool is_hidden(const struct node *child)
{
    return !child->parent->parent && child->level_length && child->level[0] == '$';
}

static int add_all(struct search *search, const struct node *node)
{
    int error = add(search, node);
    for (const struct node *child = node->first; child && !error; child = child->next)
        if (!is_hidden(child))
            error = add_all(search, child); /* as deep as a topic has levels: MQTT_TOPIC_LEVELS_MAX */
    return error;
}

static int search_below(struct search *search, const struct node *node, const char *at)
{
    if (!at)
        return add(search, node);
    struct level level = next_level(&at, search->end);
    if (level.length == 1 && *level.text == '#')
        return add_all(search, node);
    if (level.length != 1 || *level.text != '+') {
        const struct node *child = find_child(search->tree, node, &level);
        return child ? search_below(search, child, at) : 0;
    }
    int error = 0;
    for (const struct node *child = node->first; child && !error; child = child->next)
        if (!is_hidden(child))
            error = search_below(search, child, at);
    return error;
}

int retained_tree_find(const struct retained_tree *tree, const char *filter, size_t length, struct retained_list *list)
{
    *list = (struct retained_list){0};
    struct search search = {.tree = tree, .end = filter + length, .list = list};
    int error = search_below(&search, tree->root, filter);
    if (error)
        retained_list_fini(list);
    return error;
}

void retained_list_fini(struct retained_list *list)
{
    free(list->handles);
    *list = (struct retained_list){0};
}

struct retained_message *retained_tree_get(const struct retained_tree *tree, struct retained_handle handle)
{
    const struct slot *slot = &tree->slots[handle.slot];
    return slot->node && slot->generation == handle.generation ? slot->node->message : NULL;
}

uint32_t retained_tree_slots(const struct retained_tree *tree)
{
    return tree->slot_count;
}

struct retained_message *retained_tree_at(const struct retained_tree *tree, uint32_t slot)
{
    const struct node *node = tree->slots[slot].node;
    return node ? node->message : NULL;
}

struct message retained_message_view(const struct retained_message *message)
{
    const uint8_t *properties = message->bytes + message->topic_length;
    return (struct message){.offset = message->offset,
                            .time_ns = message->time_ns,
                            .topic = (const char *)message->bytes,
                            .topic_length = message->topic_length,
                            .properties = properties,
                            .properties_length = message->properties_length,
                            .payload = properties + message->properties_length,
                            .payload_length = message->payload_length,
                            .flags = message->qos | MESSAGE_RETAIN};
}

uint32_t retained_tree_count(const struct retained_tree *tree)
{
    return tree->count;
}

uint32_t retained_tree_expiring(const struct retained_tree *tree)
{
    return tree->expiring;
}

size_t retained_tree_bytes(const struct retained_tree *tree)
{
    return tree->bytes + table_bytes(&tree->nodes);
}
