/* Changes to the subscription tree. Nodes, records and connections come and go with the subscriptions that need them, so the
 * tree is never larger than what is subscribed. */
#include "router/router.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/hash.h"
#include "router/router_tree.h"

/* Removing a connection with very many subscriptions lets others in between batches of this size. */
enum { REMOVE_BATCH = 1024 };

int router_create(const struct router_options *options, struct router **out)
{
    struct router *router = calloc(1, sizeof *router);
    struct router_node *root = calloc(1, sizeof *root);
    int error = router && root ? 0 : ERR_NO_MEMORY;
    if (!error && getentropy(&router->seed, sizeof router->seed))
        error = ERR_IO;
    if (error) {
        free(root);
        free(router);
        return error;
    }
    router->root = root;
    router->subscriptions_max = options && options->subscriptions_max ? options->subscriptions_max : ROUTER_SUBSCRIPTIONS_MAX_DEFAULT;
    router->bytes_max = options && options->bytes_max ? options->bytes_max : ROUTER_BYTES_MAX_DEFAULT;
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    /* A stream of unknown topics must not keep a subscriber waiting for ever. */
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&router->lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    *out = router;
    return 0;
}

/* ---- memory within the limit ---- */

static size_t bytes_in_use(const struct router *router)
{
    return router->bytes + table_bytes(&router->nodes) + table_bytes(&router->connections) + table_bytes(&router->records) +
           table_bytes(&router->groups);
}

static size_t bytes_left(const struct router *router)
{
    size_t used = bytes_in_use(router);
    return used < router->bytes_max ? router->bytes_max - used : 0;
}

static int take_memory(struct router *router, size_t size, void **out)
{
    if (size > bytes_left(router))
        return ERR_LIMIT;
    void *memory = calloc(1, size);
    if (!memory)
        return ERR_NO_MEMORY;
    router->bytes += size;
    *out = memory;
    return 0;
}

static void give_memory(struct router *router, void *memory, size_t size)
{
    router->bytes -= size;
    free(memory);
}

/* What a table holds now is given back when it has moved into a larger one. */
static int reserve_slot(struct router *router, struct table *table)
{
    return table_reserve(table, bytes_left(router) + table_bytes(table));
}

/* ---- nodes ---- */

unsigned router_split(const char *text, size_t length, struct router_level levels[MQTT_TOPIC_LEVELS_MAX])
{
    unsigned count = 0;
    const char *end = text + length;
    for (;;) {
        if (count == MQTT_TOPIC_LEVELS_MAX)
            return 0;
        const char *slash = text;
        while (slash < end && *slash != '/')
            slash++;
        levels[count++] = (struct router_level){text, (size_t)(slash - text)};
        if (slash == end)
            return count;
        text = slash + 1;
    }
}

struct edge {
    const struct router_node *parent;
    const struct router_level *level;
};

static bool same_edge(const void *item, const void *key)
{
    const struct router_node *node = item;
    const struct edge *edge = key;
    return node->parent == edge->parent && node->level_length == edge->level->length &&
           memcmp(node->level, edge->level->text, edge->level->length) == 0;
}

static uint64_t edge_hash(const struct router *router, const struct router_node *parent, const char *level, size_t length)
{
    return hash_bytes(level, length, router->seed ^ (uintptr_t)parent);
}

struct router_node *router_child(const struct router *router, const struct router_node *parent, const struct router_level *level)
{
    struct edge edge = {parent, level};
    return table_find(&router->nodes, edge_hash(router, parent, level->text, level->length), same_edge, &edge);
}

static bool is_plus(const struct router_level *level)
{
    return level->length == 1 && level->text[0] == '+';
}

static size_t node_size(size_t level_length)
{
    return sizeof(struct router_node) + level_length;
}

static int add_child(struct router *router, struct router_node *parent, const struct router_level *level, struct router_node **out)
{
    bool plus = is_plus(level);
    int error = plus ? 0 : reserve_slot(router, &router->nodes);
    void *memory;
    if (!error)
        error = take_memory(router, node_size(level->length), &memory);
    if (error)
        return error;
    struct router_node *node = memory;
    node->parent = parent;
    node->level_length = (uint16_t)level->length;
    memcpy(node->level, level->text, level->length);
    if (plus) {
        parent->plus = node;
    } else {
        table_insert(&router->nodes, edge_hash(router, parent, level->text, level->length), node);
        parent->child_count++;
    }
    *out = node;
    return 0;
}

/* Removes the node and then its ancestors as far as nobody needs them. */
static void prune(struct router *router, struct router_node *node)
{
    while (node->parent && !node->plus && !node->child_count && !node->here.count && !node->below.count && !node->groups) {
        struct router_node *parent = node->parent;
        if (parent->plus == node) {
            parent->plus = NULL;
        } else {
            table_remove(&router->nodes, edge_hash(router, parent, node->level, node->level_length), node);
            parent->child_count--;
        }
        give_memory(router, node, node_size(node->level_length));
        node = parent;
    }
}

/* A filter in the form the tree wants it. */
struct path {
    struct router_level levels[MQTT_TOPIC_LEVELS_MAX];
    unsigned count;
    struct router_level share; /* name of a shared subscription; length 0: it is none */
    bool below;                /* ended with '#', which is no level of its own here */
};

static int parse_filter(const char *filter, size_t length, struct path *path)
{
    static const size_t share_start = sizeof "$share/" - 1;
    if (!mqtt_topic_filter_valid(filter, length))
        return ERR_TOPIC_FILTER;
    size_t share_length = mqtt_topic_share_length(filter, length);
    path->share = (struct router_level){0};
    if (share_length)
        path->share = (struct router_level){filter + share_start, share_length - share_start - 1};
    filter += share_length;
    length -= share_length;
    path->count = router_split(filter, length, path->levels);
    path->below = filter[length - 1] == '#';
    path->count -= path->below;
    return 0;
}

static struct router_node *find_node(const struct router *router, const struct path *path)
{
    struct router_node *node = router->root;
    for (unsigned i = 0; i < path->count && node; i++)
        node = is_plus(&path->levels[i]) ? node->plus : router_child(router, node, &path->levels[i]);
    return node;
}

static int make_node(struct router *router, const struct path *path, struct router_node **out)
{
    struct router_node *node = router->root;
    for (unsigned i = 0; i < path->count; i++) {
        struct router_node *child = is_plus(&path->levels[i]) ? node->plus : router_child(router, node, &path->levels[i]);
        if (!child) {
            int error = add_child(router, node, &path->levels[i], &child);
            if (error) {
                prune(router, node);
                return error;
            }
        }
        node = child;
    }
    *out = node;
    return 0;
}

/* ---- connections ---- */

static bool same_connection(const void *item, const void *key)
{
    const struct router_connection *connection = item;
    const struct router_subscription *subscriber = key;
    return connection->loop == subscriber->loop && connection->connection == subscriber->connection &&
           connection->generation == subscriber->generation;
}

static uint64_t connection_hash(const struct router *router, uint32_t loop, uint32_t connection, uint32_t generation)
{
    uint32_t identity[] = {loop, connection, generation};
    return hash_bytes(identity, sizeof identity, router->seed);
}

static struct router_connection *find_connection(const struct router *router, const struct router_subscription *subscriber)
{
    uint64_t hash = connection_hash(router, subscriber->loop, subscriber->connection, subscriber->generation);
    return table_find(&router->connections, hash, same_connection, subscriber);
}

static int make_connection(struct router *router, const struct router_subscription *subscriber, struct router_connection **out)
{
    struct router_connection *connection = find_connection(router, subscriber);
    if (!connection) {
        void *memory;
        int error = reserve_slot(router, &router->connections);
        if (!error)
            error = take_memory(router, sizeof *connection, &memory);
        if (error)
            return error;
        connection = memory;
        *connection = (struct router_connection){subscriber->loop, subscriber->connection, subscriber->generation, NULL};
        table_insert(&router->connections, connection_hash(router, subscriber->loop, subscriber->connection, subscriber->generation),
                     connection);
    }
    *out = connection;
    return 0;
}

static void drop_connection_if_idle(struct router *router, struct router_connection *connection)
{
    if (connection->first)
        return;
    table_remove(&router->connections, connection_hash(router, connection->loop, connection->connection, connection->generation),
                 connection);
    give_memory(router, connection, sizeof *connection);
}

/* ---- shared subscriptions ---- */

struct group_key {
    const struct router_node *node;
    const struct path *path;
};

static bool same_group(const void *item, const void *key)
{
    const struct router_group *group = item;
    const struct group_key *wanted = key;
    return group->node == wanted->node && group->below == wanted->path->below && group->name_length == wanted->path->share.length &&
           memcmp(group->name, wanted->path->share.text, group->name_length) == 0;
}

static uint64_t group_hash(const struct router *router, const struct router_node *node, bool below, const char *name, size_t length)
{
    return hash_bytes(name, length, router->seed ^ ((uintptr_t)node + below));
}

/* NULL: there is none, or the path is not of one. */
static struct router_group *find_group(const struct router *router, const struct router_node *node, const struct path *path)
{
    struct group_key key = {node, path};
    return path->share.length && node
               ? table_find(&router->groups, group_hash(router, node, path->below, path->share.text, path->share.length), same_group, &key)
               : NULL;
}

static int make_group(struct router *router, struct router_node *node, const struct path *path, struct router_group **out)
{
    struct router_group *group = find_group(router, node, path);
    if (!group && path->share.length) {
        void *memory;
        int error = reserve_slot(router, &router->groups);
        if (!error)
            error = take_memory(router, sizeof *group + path->share.length, &memory);
        if (error)
            return error;
        group = memory;
        *group =
            (struct router_group){.node = node, .next = node->groups, .below = path->below, .name_length = (uint16_t)path->share.length};
        memcpy(group->name, path->share.text, group->name_length);
        if (node->groups)
            node->groups->previous = group;
        node->groups = group;
        table_insert(&router->groups, group_hash(router, node, group->below, group->name, group->name_length), group);
    }
    *out = group;
    return 0;
}

static void drop_group_if_empty(struct router *router, struct router_group *group)
{
    if (!group || group->members.count)
        return;
    table_remove(&router->groups, group_hash(router, group->node, group->below, group->name, group->name_length), group);
    if (group->next)
        group->next->previous = group->previous;
    if (group->previous)
        group->previous->next = group->next;
    else
        group->node->groups = group->next;
    give_memory(router, group, sizeof *group + group->name_length);
}

/* ---- subscriptions ---- */

struct record_key {
    const struct router_connection *connection;
    const struct router_node *node;
    const struct router_group *group;
    bool below;
};

static bool same_record(const void *item, const void *key)
{
    const struct router_record *record = item;
    const struct record_key *wanted = key;
    return record->connection == wanted->connection && record->node == wanted->node && record->group == wanted->group &&
           record->below == wanted->below;
}

static uint64_t record_hash(const struct router *router, const struct router_connection *connection, const struct router_node *node,
                            const struct router_group *group, bool below)
{
    uintptr_t identity[] = {(uintptr_t)connection, (uintptr_t)node + below, (uintptr_t)group};
    return hash_bytes(identity, sizeof identity, router->seed);
}

static struct router_record *find_record(const struct router *router, const struct router_subscription *subscriber, const struct path *path)
{
    const struct router_connection *connection = find_connection(router, subscriber);
    const struct router_node *node = find_node(router, path);
    const struct router_group *group = find_group(router, node, path);
    if (!connection || !node || (path->share.length && !group))
        return NULL;
    struct record_key key = {connection, node, group, path->below};
    return table_find(&router->records, record_hash(router, connection, node, group, path->below), same_record, &key);
}

static struct router_list *list_at(struct router_node *node, struct router_group *group, bool below)
{
    return group ? &group->members : below ? &node->below : &node->here;
}

static struct router_list *list_of(const struct router_record *record)
{
    return list_at(record->node, record->group, record->below);
}

static int resize_list(struct router *router, struct router_list *list, uint32_t capacity)
{
    size_t size = capacity * sizeof *list->entries, old_size = list->capacity * sizeof *list->entries;
    if (size > old_size && size - old_size > bytes_left(router))
        return ERR_LIMIT;
    struct router_entry *entries = realloc(list->entries, size);
    if (!entries)
        return ERR_NO_MEMORY;
    router->bytes += size - old_size;
    list->entries = entries;
    list->capacity = capacity;
    return 0;
}

static int add_record(struct router *router, struct router_connection *connection, struct router_node *node, struct router_group *group,
                      bool below, const struct router_subscription *subscription)
{
    struct router_list *list = list_at(node, group, below);
    void *memory;
    int error = reserve_slot(router, &router->records);
    if (!error)
        error = take_memory(router, sizeof(struct router_record), &memory);
    if (error)
        return error;
    struct router_record *record = memory;
    if (list->count == list->capacity)
        error = resize_list(router, list, list->capacity ? list->capacity * 2 : 1);
    if (error) {
        give_memory(router, record, sizeof *record);
        return error;
    }
    *record = (struct router_record){
        .node = node, .connection = connection, .group = group, .next = connection->first, .index = list->count, .below = below};
    if (connection->first)
        connection->first->previous = record;
    connection->first = record;
    list->entries[list->count++] = (struct router_entry){*subscription, record};
    table_insert(&router->records, record_hash(router, connection, node, group, below), record);
    return 0;
}

/* Takes the last entry of the list into the place of the one that goes. */
static void remove_from_list(struct router *router, struct router_list *list, uint32_t index)
{
    list->entries[index] = list->entries[--list->count];
    if (index < list->count)
        list->entries[index].record->index = index;
    if (list->count == 0) {
        give_memory(router, list->entries, list->capacity * sizeof *list->entries);
        *list = (struct router_list){0};
    } else if (list->count <= list->capacity / 4) {
        resize_list(router, list, list->capacity / 2); /* a failure leaves it as large as it was */
    }
}

static void remove_record(struct router *router, struct router_record *record)
{
    struct router_connection *connection = record->connection;
    struct router_node *node = record->node;
    remove_from_list(router, list_of(record), record->index);
    table_remove(&router->records, record_hash(router, connection, node, record->group, record->below), record);
    if (record->next)
        record->next->previous = record->previous;
    if (record->previous)
        record->previous->next = record->next;
    else
        connection->first = record->next;
    drop_group_if_empty(router, record->group);
    give_memory(router, record, sizeof *record);
    prune(router, node);
}

static void changed(struct router *router)
{
    atomic_fetch_add_explicit(&router->generation, 1, memory_order_release);
}

static int subscribe_new(struct router *router, const struct path *path, const struct router_subscription *subscription)
{
    if (router->records.count >= router->subscriptions_max)
        return ERR_LIMIT;
    struct router_node *node;
    struct router_connection *connection;
    struct router_group *group = NULL;
    int error = make_node(router, path, &node);
    if (error)
        return error;
    error = make_group(router, node, path, &group);
    if (!error)
        error = make_connection(router, subscription, &connection);
    if (!error) {
        error = add_record(router, connection, node, group, path->below, subscription);
        drop_connection_if_idle(router, connection);
    }
    drop_group_if_empty(router, group);
    prune(router, node);
    if (!error)
        changed(router);
    return error;
}

/* Clients repeat their subscriptions when they come back; what changes nothing shall not empty every cache. */
static void replace(struct router *router, struct router_record *record, const struct router_subscription *subscription)
{
    struct router_subscription *old = &list_of(record)->entries[record->index].subscription;
    bool same = old->qos == subscription->qos && old->options == subscription->options && old->identifier == subscription->identifier;
    uint64_t since = old->since;
    *old = *subscription;
    old->since = since;
    if (!same)
        changed(router);
}

int router_subscribe(struct router *router, const char *filter, size_t length, const struct router_subscription *subscription)
{
    struct path path;
    int result = subscription->qos > 2 ? ERR_INVALID : parse_filter(filter, length, &path);
    if (result)
        return result;
    pthread_rwlock_wrlock(&router->lock);
    struct router_record *record = find_record(router, subscription, &path);
    if (record) {
        replace(router, record, subscription);
        result = 1;
    } else {
        result = subscribe_new(router, &path, subscription);
    }
    pthread_rwlock_unlock(&router->lock);
    return result;
}

bool router_unsubscribe(struct router *router, const char *filter, size_t length, const struct router_subscription *subscriber)
{
    struct path path;
    if (parse_filter(filter, length, &path))
        return false;
    pthread_rwlock_wrlock(&router->lock);
    struct router_record *record = find_record(router, subscriber, &path);
    if (record) {
        struct router_connection *connection = record->connection;
        remove_record(router, record);
        drop_connection_if_idle(router, connection);
        changed(router);
    }
    pthread_rwlock_unlock(&router->lock);
    return record;
}

/* Returns how many it removed; fewer than REMOVE_BATCH when none are left. */
static uint32_t remove_batch(struct router *router, const struct router_subscription *subscriber)
{
    uint32_t removed = 0;
    pthread_rwlock_wrlock(&router->lock);
    struct router_connection *connection = find_connection(router, subscriber);
    if (connection) {
        for (; removed < REMOVE_BATCH && connection->first; removed++)
            remove_record(router, connection->first);
        drop_connection_if_idle(router, connection);
        changed(router);
    }
    pthread_rwlock_unlock(&router->lock);
    return removed;
}

uint32_t router_remove_connection(struct router *router, uint32_t loop, uint32_t connection, uint32_t generation)
{
    struct router_subscription subscriber = {.loop = (uint16_t)loop, .connection = connection, .generation = generation};
    uint32_t removed = 0, batch;
    do {
        batch = remove_batch(router, &subscriber);
        removed += batch;
    } while (batch == REMOVE_BATCH);
    return removed;
}

/* Writes the filter of a record from its end; returns where it begins within `text`. */
static const char *filter_of(const struct router_record *record, char *text, size_t size)
{
    char *at = text + size;
    bool last = !record->below;
    if (record->below)
        *--at = '#';
    for (const struct router_node *node = record->node; node->parent; node = node->parent) {
        if (!last)
            *--at = '/';
        last = false;
        at -= node->level_length;
        memcpy(at, node->level, node->level_length);
    }
    static const char share[] = "$share/";
    const struct router_group *group = record->group;
    if (group) {
        *--at = '/';
        at -= group->name_length;
        memcpy(at, group->name, group->name_length);
        at -= sizeof share - 1;
        memcpy(at, share, sizeof share - 1);
    }
    return at;
}

void router_visit_filters(struct router *router, const struct router_subscription *subscriber, router_visit visit, void *context)
{
    char text[MQTT_TOPIC_LENGTH_MAX]; /* with "$share/NAME/" */
    pthread_rwlock_rdlock(&router->lock);
    const struct router_connection *connection = find_connection(router, subscriber);
    for (const struct router_record *record = connection ? connection->first : NULL; record; record = record->next) {
        const char *filter = filter_of(record, text, sizeof text);
        visit(context, filter, (size_t)(text + sizeof text - filter));
    }
    pthread_rwlock_unlock(&router->lock);
}

void router_destroy(struct router *router)
{
    if (!router)
        return;
    for (size_t i = 0; router->records.slots && i <= router->records.mask;) {
        struct router_record *record = router->records.slots[i].item;
        if (!record) {
            i++;
            continue;
        }
        struct router_connection *connection = record->connection;
        remove_record(router, record); /* others may move into this slot */
        drop_connection_if_idle(router, connection);
    }
    assert(router->bytes == 0);
    table_fini(&router->nodes);
    table_fini(&router->connections);
    table_fini(&router->records);
    table_fini(&router->groups);
    free(router->root);
    pthread_rwlock_destroy(&router->lock);
    free(router);
}

uint32_t router_subscription_count(struct router *router)
{
    pthread_rwlock_rdlock(&router->lock);
    uint32_t count = (uint32_t)router->records.count;
    pthread_rwlock_unlock(&router->lock);
    return count;
}

size_t router_bytes(struct router *router)
{
    pthread_rwlock_rdlock(&router->lock);
    size_t bytes = bytes_in_use(router);
    pthread_rwlock_unlock(&router->lock);
    return bytes;
}
