/* What one client may do: the filters of all rules that fit it, with its names put in, in one piece of memory. */
#include <stdlib.h>
#include <string.h>

#include "access/internal.h"
#include "base/error.h"
#include "mqtt/topic.h"

struct allowed {
    const char *text; /* of the policy, or behind the client */
    uint32_t length;
};

struct access_client {
    struct access_policy *policy; /* a share */
    struct account *account;
    const struct access_limits *limits; /* of the policy, or none */
    struct allowed *publish, *subscribe;
    uint32_t publish_count, subscribe_count;
    uint32_t kept_length;             /* 0: none */
    char kept[ACCESS_TOPIC_KEPT_MAX]; /* the last topic on which it was allowed to publish */
    const char *id;
    size_t id_length;
};

static const struct access_limits no_limits;

/* ---- making one ---- */

/* Whether a name can stand in a filter without making it wider than one level. */
static bool is_plain(const char *name, size_t length)
{
    return length && name[0] != '$' && !memchr(name, '+', length) && !memchr(name, '#', length) && !memchr(name, '/', length);
}

/* The names of a client, and how much memory its filters take. */
struct making {
    const char *user, *id;
    size_t user_length, id_length;
    bool user_plain, id_plain;
    struct allowed *allowed; /* NULL: they are only counted */
    char *text;
    size_t text_size;
};

/* The length of a filter with the names in it; written to `out` unless that is NULL. */
static size_t expand(const struct making *making, const struct policy_filter *filter, char *out)
{
    size_t length = 0;
    for (uint32_t i = 0; i < filter->length; i++) {
        const char *part = filter->text + i;
        size_t part_length = 1;
        if (*part == '%') {
            char what = filter->text[++i];
            part = what == 'u' ? making->user : what == 'c' ? making->id : part;
            part_length = what == 'u' ? making->user_length : what == 'c' ? making->id_length : 1;
        }
        if (out)
            memcpy(out + length, part, part_length);
        length += part_length;
    }
    return length;
}

/* Adds filters of a rule that fits. Returns how many it added. */
static uint32_t add_filters(struct making *making, const struct policy_filter *filters, uint32_t count)
{
    uint32_t added = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct policy_filter *filter = &filters[i];
        if ((filter->user && !making->user_plain) || (filter->client && !making->id_plain))
            continue;
        bool own = filter->user || filter->client || filter->percent;
        size_t length = own ? expand(making, filter, making->allowed ? making->text : NULL) : filter->length;
        if (making->allowed) {
            *making->allowed++ = (struct allowed){own ? making->text : filter->text, (uint32_t)length};
            making->text += own ? length : 0;
        }
        making->text_size += own ? length : 0;
        added++;
    }
    return added;
}

static uint32_t add_rules(struct making *making, const struct access_policy *policy, bool publish)
{
    uint32_t added = 0;
    for (size_t i = 0; i < policy->rule_count; i++) {
        const struct policy_rule *rule = &policy->rules[i];
        if ((!rule->user || policy_pattern_fits(rule->user, making->user)) &&
            (!rule->client || policy_pattern_fits(rule->client, making->id)))
            added += publish ? add_filters(making, rule->publish, rule->publish_count)
                             : add_filters(making, rule->subscribe, rule->subscribe_count);
    }
    return added;
}

static const struct access_limits *find_limits(const struct access_policy *policy, const char *user, const char *id)
{
    for (size_t i = 0; i < policy->quota_count; i++) {
        const struct policy_quota *quota = &policy->quotas[i];
        if ((!quota->user || policy_pattern_fits(quota->user, user)) && (!quota->client || policy_pattern_fits(quota->client, id)))
            return &quota->limits;
    }
    return &no_limits;
}

/* Takes the policy and the account over. */
static struct access_client *make(struct access_policy *policy, struct account *account, const char *id, size_t id_length)
{
    char *id_text = malloc(id_length + 1); /* patterns want an end */
    if (!id_text)
        return NULL;
    memcpy(id_text, id, id_length);
    id_text[id_length] = '\0';
    struct making making = {.user = account->name, .id = id_text, .user_length = strlen(account->name), .id_length = id_length};
    making.user_plain = is_plain(making.user, making.user_length);
    making.id_plain = is_plain(id_text, id_length);
    uint32_t publish_count = add_rules(&making, policy, true), subscribe_count = add_rules(&making, policy, false);
    size_t count = (size_t)publish_count + subscribe_count;
    struct access_client *client = malloc(sizeof *client + count * sizeof(struct allowed) + making.text_size + id_length + 1);
    if (client) {
        struct allowed *allowed = (struct allowed *)(void *)(client + 1);
        making.allowed = allowed;
        making.text = (char *)(allowed + count);
        add_rules(&making, policy, true);
        add_rules(&making, policy, false);
        memcpy(making.text, id_text, id_length + 1);
        *client = (struct access_client){.policy = policy,
                                         .account = account,
                                         .limits = find_limits(policy, account->name, id_text),
                                         .publish = allowed,
                                         .subscribe = allowed + publish_count,
                                         .publish_count = publish_count,
                                         .subscribe_count = subscribe_count,
                                         .id = making.text,
                                         .id_length = id_length};
    }
    free(id_text);
    return client;
}

int access_client_create(struct access *access, const char *user, size_t user_length, const char *id, size_t id_length, bool replaces,
                         struct access_client **out)
{
    struct account *account;
    int error = accounts_take(&access->accounts, user, user_length, &account);
    if (error)
        return error;
    struct access_policy *policy = access_policy_now(access);
    struct access_client *client = make(policy, account, id, id_length);
    if (!client) {
        policy_release(policy);
        accounts_drop(&access->accounts, account);
        return ERR_NO_MEMORY;
    }
    uint32_t most = client->limits->connections, now = atomic_fetch_add(&account->connections, 1) + 1;
    if (most && now > most + replaces) {
        access_client_destroy(access, client);
        return ERR_LIMIT;
    }
    *out = client;
    return 0;
}

int access_client_renew(struct access *access, struct access_client **client, const char *id, size_t id_length)
{
    struct access_client *before = *client;
    struct access_policy *policy = access_policy_now(access);
    struct access_client *after = make(policy, before->account, id ? id : before->id, id ? id_length : before->id_length);
    if (!after) {
        policy_release(policy);
        return ERR_NO_MEMORY;
    }
    policy_release(before->policy);
    free(before);
    *client = after;
    return 0;
}

void access_client_destroy(struct access *access, struct access_client *client)
{
    if (!client)
        return;
    atomic_fetch_sub(&client->account->connections, 1);
    accounts_drop(&access->accounts, client->account);
    policy_release(client->policy);
    free(client);
}

/* ---- asking it ---- */

const char *access_client_user(const struct access_client *client)
{
    return client->account->name;
}

const struct access_limits *access_client_limits(const struct access_client *client)
{
    return client->limits;
}

bool access_client_is_bound(const struct access_client *client)
{
    return client->policy->has_rules || client->limits != &no_limits;
}

bool access_may_publish(struct access_client *client, const char *topic, size_t length)
{
    if (!client->policy->has_rules || (length == client->kept_length && memcmp(topic, client->kept, length) == 0))
        return true;
    for (uint32_t i = 0; i < client->publish_count; i++) {
        if (!mqtt_topic_matches(client->publish[i].text, client->publish[i].length, topic, length))
            continue;
        if (length <= sizeof client->kept) {
            memcpy(client->kept, topic, length);
            client->kept_length = (uint32_t)length;
        }
        return true;
    }
    return false;
}

bool access_may_subscribe(const struct access_client *client, const char *filter, size_t length)
{
    if (!client->policy->has_rules)
        return true;
    size_t share_length = mqtt_topic_share_length(filter, length);
    filter += share_length;
    length -= share_length;
    for (uint32_t i = 0; i < client->subscribe_count; i++)
        if (mqtt_topic_filter_covers(client->subscribe[i].text, client->subscribe[i].length, filter, length))
            return true;
    return false;
}

bool access_levels_fit(const struct access_client *client, const char *topic, size_t length)
{
    unsigned most = client->limits->topic_levels, levels = 1;
    for (size_t i = 0; most && i < length; i++)
        levels += topic[i] == '/';
    return !most || levels <= most;
}

/* ---- what it uses up ---- */

bool access_take_subscriptions(struct access_client *client, int count)
{
    uint32_t now = atomic_fetch_add(&client->account->subscriptions, (uint32_t)count) + (uint32_t)count,
             most = client->limits->subscriptions;
    if (count <= 0 || !most || now <= most)
        return true;
    atomic_fetch_sub(&client->account->subscriptions, (uint32_t)count);
    return false;
}

uint64_t access_publish_wait_ns(const struct access_client *client, uint64_t now_ns)
{
    const struct access_limits *limits = client->limits;
    uint64_t messages_ns = limits->messages_per_s > 0 ? quota_wait_ns(&client->account->messages, now_ns) : 0;
    uint64_t bytes_ns = limits->bytes_per_s ? quota_wait_ns(&client->account->bytes, now_ns) : 0;
    return messages_ns > bytes_ns ? messages_ns : bytes_ns;
}

void access_publish_charge(struct access_client *client, uint64_t now_ns, size_t bytes)
{
    const struct access_limits *limits = client->limits;
    if (limits->messages_per_s > 0)
        quota_charge(&client->account->messages, now_ns, (uint64_t)(1e9 / limits->messages_per_s));
    if (limits->bytes_per_s)
        quota_charge(&client->account->bytes, now_ns, bytes * UINT64_C(1000000000) / limits->bytes_per_s);
}
