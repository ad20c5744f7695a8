/* Topic aliases of what is sent to a client (MQTT 5 section 3.3.2.3.4): the first topics that it gets, as many as it allows, have one for
 * as long as it is connected. */
#include "bus/aliases.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/table.h"

struct alias {
    uint16_t number;
    uint32_t length;
    uint8_t topic[];
};

struct aliases {
    uint64_t seed;
    struct table table; /* of struct alias, by topic */
    uint16_t max;
};

struct aliases *aliases_create(uint16_t max)
{
    struct aliases *aliases = max ? calloc(1, sizeof *aliases) : NULL;
    if (!aliases)
        return NULL;
    aliases->max = max;
    if (getentropy(&aliases->seed, sizeof aliases->seed)) {
        free(aliases);
        return NULL;
    }
    return aliases;
}

void aliases_destroy(struct aliases *aliases)
{
    if (!aliases)
        return;
    for (size_t i = 0; aliases->table.slots && i <= aliases->table.mask; i++)
        free(aliases->table.slots[i].item);
    table_fini(&aliases->table);
    free(aliases);
}

static bool same_topic(const void *item, const void *key)
{
    const struct alias *alias = item;
    const struct mqtt_slice *topic = key;
    return alias->length == topic->length && memcmp(alias->topic, topic->data, topic->length) == 0;
}

static uint64_t topic_hash(const struct aliases *aliases, struct mqtt_slice topic)
{
    return hash_bytes((const char *)topic.data, topic.length, aliases->seed);
}

uint16_t aliases_choose(const struct aliases *aliases, struct mqtt_slice topic, bool *known)
{
    const struct alias *alias = table_find(&aliases->table, topic_hash(aliases, topic), same_topic, &topic);
    *known = alias;
    if (alias)
        return alias->number;
    return aliases->table.count < aliases->max ? (uint16_t)(aliases->table.count + 1) : 0;
}

int aliases_add(struct aliases *aliases, struct mqtt_slice topic)
{
    int error = table_reserve(&aliases->table, SIZE_MAX);
    struct alias *alias = error ? NULL : malloc(sizeof *alias + topic.length);
    if (!alias)
        return ERR_NO_MEMORY;
    *alias = (struct alias){.number = (uint16_t)(aliases->table.count + 1), .length = topic.length};
    memcpy(alias->topic, topic.data, topic.length);
    table_insert(&aliases->table, topic_hash(aliases, topic), alias);
    return 0;
}
