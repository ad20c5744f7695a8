/* The rules file: a YAML tree into rules and quotas, and the policy as a whole. */
#include "access/policy.h"

#include <stdlib.h>
#include <string.h>

#include "access/file.h"
#include "base/error.h"
#include "base/text.h"
#include "config/value.h"
#include "mqtt/topic.h"

struct reading {
    const char *source;
    struct problems *problems;
    bool wrong, no_memory;
};

#define MISTAKE(reading, at_line, at_column, ...)                                                                                          \
    ((reading)->wrong = true,                                                                                                              \
     problems_add((reading)->problems, PROBLEM_ERROR, (struct place){(reading)->source, at_line, at_column}, __VA_ARGS__))

bool policy_pattern_fits(const char *pattern, const char *text)
{
    const char *star = NULL, *after_star = NULL; /* the last '*', and where in `text` it is tried to end */
    while (*text) {
        if (*pattern == '*') {
            star = pattern++;
            after_star = text;
        } else if (*pattern == '?' || *pattern == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star + 1;
            text = ++after_star;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == 0;
}

/* ---- pieces of a rule ---- */

static const char *read_pattern(struct reading *reading, const struct yaml_tree_node *node)
{
    if (node->kind == YAML_TREE_SCALAR && !yaml_tree_is_null(node) && !memchr(node->text, 0, node->length))
        return node->text;
    if (node->kind != YAML_TREE_REFUSED)
        MISTAKE(reading, node->line, node->column, "`%s`: expected a name, in which `*` stands for anything; a list needs several rules",
                node->key);
    reading->wrong = true;
    return NULL;
}

static bool read_filter(struct reading *reading, const struct yaml_tree_node *node, struct policy_filter *filter)
{
    if (node->kind != YAML_TREE_SCALAR || yaml_tree_is_null(node)) {
        if (node->kind != YAML_TREE_REFUSED)
            MISTAKE(reading, node->line, node->column, "expected a topic filter in quotes, such as \"results/#\"");
        reading->wrong = true;
        return false;
    }
    *filter = (struct policy_filter){.text = node->text, .length = (uint32_t)node->length};
    for (size_t i = 0; i < node->length; i++) {
        if (node->text[i] != '%')
            continue;
        char what = node->text[++i];
        filter->user |= what == 'u';
        filter->client |= what == 'c';
        filter->percent |= what == '%';
        if (what != 'u' && what != 'c' && what != '%') {
            MISTAKE(reading, node->line, node->column, "%s: expected %%u (user), %%c (client identifier) or %%%% (a percent sign)",
                    problem_quote(node->text, node->length).text);
            return false;
        }
    }
    if (!mqtt_topic_filter_valid(node->text, node->length)) {
        MISTAKE(reading, node->line, node->column, "%s is no topic filter: `+` and `#` stand for whole levels, `#` for the last",
                problem_quote(node->text, node->length).text);
        return false;
    }
    if (mqtt_topic_share_length(node->text, node->length)) {
        MISTAKE(reading, node->line, node->column, "%s: write the filter without `$share/NAME/`; it counts for shared subscriptions too",
                problem_quote(node->text, node->length).text);
        return false;
    }
    return true;
}

static void read_filters(struct reading *reading, const struct yaml_tree_node *node, struct policy_filter **filters, uint32_t *count)
{
    uint32_t length = 0;
    if (node->kind != YAML_TREE_SEQUENCE) {
        if (node->kind != YAML_TREE_REFUSED)
            MISTAKE(reading, node->line, node->column, "`%s`: expected a list of topic filters in [ ]", node->key);
        reading->wrong = true;
        return;
    }
    for (const struct yaml_tree_node *item = node->first; item; item = item->next)
        length++;
    if (length > POLICY_FILTERS_MAX) {
        MISTAKE(reading, node->line, node->column, "`%s`: more than %d filters; make several rules", node->key, POLICY_FILTERS_MAX);
        return;
    }
    *filters = calloc(length ? length : 1, sizeof **filters);
    if (!*filters) {
        reading->no_memory = true;
        return;
    }
    for (const struct yaml_tree_node *item = node->first; item; item = item->next)
        if (read_filter(reading, item, &(*filters)[*count]))
            ++*count;
}

static void unknown_key(struct reading *reading, const struct yaml_tree_node *node, const char *where, const char *const *known,
                        size_t count)
{
    const char *meant = text_suggest(node->key, known, count);
    MISTAKE(reading, node->key_line, node->key_column, "unknown key %s in %s%s%s%s", problem_quote(node->key, strlen(node->key)).text,
            where, meant ? "; did you mean `" : "", meant ? meant : "", meant ? "`?" : "");
}

static void read_rule(struct reading *reading, const struct yaml_tree_node *node, struct policy_rule *rule)
{
    static const char *const keys[] = {"user", "client", "publish", "subscribe"};
    for (const struct yaml_tree_node *child = node->first; child; child = child->next) {
        if (strcmp(child->key, "user") == 0)
            rule->user = read_pattern(reading, child);
        else if (strcmp(child->key, "client") == 0)
            rule->client = read_pattern(reading, child);
        else if (strcmp(child->key, "publish") == 0)
            read_filters(reading, child, &rule->publish, &rule->publish_count);
        else if (strcmp(child->key, "subscribe") == 0)
            read_filters(reading, child, &rule->subscribe, &rule->subscribe_count);
        else
            unknown_key(reading, child, "a rule", keys, sizeof keys / sizeof *keys);
    }
    if (!rule->publish && !rule->subscribe && !reading->wrong)
        MISTAKE(reading, node->line, node->column,
                "the rule allows nothing; expected `publish` or `subscribe` with a list of topic filters");
}

/* ---- quotas ---- */

static bool read_number(struct reading *reading, const struct yaml_tree_node *node, enum value_kind kind, double max, union value *value)
{
    char message[VALUE_MESSAGE_MAX] = "expected a number";
    const struct value_type type = {.kind = kind, .min = kind == VALUE_NUMBER ? 0.001 : 1, .max = max};
    if (node->kind == YAML_TREE_SCALAR && value_parse(&type, node->text, node->length, value, message) == 0)
        return true;
    if (node->kind != YAML_TREE_REFUSED)
        MISTAKE(reading, node->line, node->column, "`%s`: %s", node->key, message);
    reading->wrong = true;
    return false;
}

static void read_limit(struct reading *reading, const struct yaml_tree_node *node, struct access_limits *limits)
{
    enum { CONNECTIONS, SESSIONS, SUBSCRIPTIONS, MESSAGES, BYTES, INFLIGHT, LEVELS, LIMITS, KEYS = LIMITS + 2 };
    static const char *const keys[KEYS] = {"connections", "sessions",     "subscriptions", "messages_per_s", "bytes_per_s",
                                           "inflight",    "topic_levels", "user",          "client"};
    union value value;
    unsigned which = 0;
    while (which < LIMITS && strcmp(node->key, keys[which]) != 0)
        which++;
    switch (which) {
    case CONNECTIONS:
        limits->connections = read_number(reading, node, VALUE_INT, 1e6, &value) ? value.integer : 0;
        break;
    case SESSIONS:
        limits->sessions = read_number(reading, node, VALUE_INT, 1e6, &value) ? value.integer : 0;
        break;
    case SUBSCRIPTIONS:
        limits->subscriptions = read_number(reading, node, VALUE_INT, 1e6, &value) ? value.integer : 0;
        break;
    case MESSAGES:
        limits->messages_per_s = read_number(reading, node, VALUE_NUMBER, 1e8, &value) ? value.number : 0;
        break;
    case BYTES:
        limits->bytes_per_s = read_number(reading, node, VALUE_SIZE, 1e12, &value) ? value.size : 0;
        break;
    case INFLIGHT:
        limits->inflight = read_number(reading, node, VALUE_INT, UINT16_MAX, &value) ? (uint16_t)value.integer : 0;
        break;
    case LEVELS:
        limits->topic_levels = read_number(reading, node, VALUE_INT, MQTT_TOPIC_LEVELS_MAX, &value) ? (uint16_t)value.integer : 0;
        break;
    default:
        unknown_key(reading, node, "a quota", keys, KEYS);
    }
}

static void read_quota(struct reading *reading, const struct yaml_tree_node *node, struct policy_quota *quota)
{
    for (const struct yaml_tree_node *child = node->first; child; child = child->next) {
        if (strcmp(child->key, "user") == 0)
            quota->user = read_pattern(reading, child);
        else if (strcmp(child->key, "client") == 0)
            quota->client = read_pattern(reading, child);
        else
            read_limit(reading, child, &quota->limits);
    }
}

/* ---- the file ---- */

/* How many items the list has; each of them is a mapping, or a mistake. */
static size_t count_mappings(struct reading *reading, const struct yaml_tree_node *list)
{
    size_t count = 0;
    if (list->kind != YAML_TREE_SEQUENCE) {
        if (list->kind != YAML_TREE_REFUSED)
            MISTAKE(reading, list->line, list->column, "`%s`: expected a list, each item with a dash", list->key);
        reading->wrong = true;
        return 0;
    }
    for (const struct yaml_tree_node *item = list->first; item; item = item->next) {
        if (item->kind == YAML_TREE_MAPPING)
            count++;
        else if (item->kind != YAML_TREE_REFUSED)
            MISTAKE(reading, item->line, item->column, "expected keys with values, such as `- {user: \"tool-*\", %s}`",
                    strcmp(list->key, "rules") == 0 ? "publish: [\"results/%u/#\"]" : "connections: 10");
    }
    return count;
}

static void read_rules(struct reading *reading, const struct yaml_tree_node *list, struct access_policy *policy)
{
    size_t count = count_mappings(reading, list);
    policy->has_rules = true;
    policy->rules = calloc(count ? count : 1, sizeof *policy->rules);
    reading->no_memory |= !policy->rules;
    for (const struct yaml_tree_node *item = list->first; policy->rules && count && item; item = item->next)
        if (item->kind == YAML_TREE_MAPPING)
            read_rule(reading, item, &policy->rules[policy->rule_count++]);
}

static void read_quotas(struct reading *reading, const struct yaml_tree_node *list, struct access_policy *policy)
{
    size_t count = count_mappings(reading, list);
    policy->quotas = calloc(count ? count : 1, sizeof *policy->quotas);
    reading->no_memory |= !policy->quotas;
    for (const struct yaml_tree_node *item = list->first; policy->quotas && count && item; item = item->next)
        if (item->kind == YAML_TREE_MAPPING)
            read_quota(reading, item, &policy->quotas[policy->quota_count++]);
}

int policy_parse(struct access_policy *policy, const char *source, const uint8_t *bytes, size_t length, struct problems *problems)
{
    static const char *const keys[] = {"rules", "quotas"};
    struct reading reading = {.source = source, .problems = problems};
    size_t errors_before = problems->errors;
    int error = yaml_tree_read(&policy->tree, source, bytes, length, problems);
    if (error)
        return error;
    const struct yaml_tree_node *root = policy->tree.root;
    if (root && root->kind == YAML_TREE_SCALAR && yaml_tree_is_null(root))
        root = NULL;
    if (root && root->kind != YAML_TREE_MAPPING)
        MISTAKE(&reading, root->line, root->column, "expected the keys `rules` and `quotas`");
    for (const struct yaml_tree_node *child = root && root->kind == YAML_TREE_MAPPING ? root->first : NULL; child; child = child->next) {
        if (strcmp(child->key, "rules") == 0)
            read_rules(&reading, child, policy);
        else if (strcmp(child->key, "quotas") == 0)
            read_quotas(&reading, child, policy);
        else
            unknown_key(&reading, child, "a file of rules", keys, sizeof keys / sizeof *keys);
    }
    return reading.no_memory ? ERR_NO_MEMORY : reading.wrong || problems->errors > errors_before ? ERR_CONFIG : 0;
}

static int read_rules_file(struct access_policy *policy, const char *path, struct problems *problems)
{
    struct buffer text;
    buffer_init(&text, YAML_TREE_BYTES_MAX + (32 << 10)); /* what is too large is refused by the tree */
    int error = file_read(path, &text);
    if (error && error != ERR_NO_MEMORY) {
        problems_add(problems, PROBLEM_ERROR, (struct place){.source = path}, "the file of rules (access.rules) cannot be read: %s",
                     error_text(error));
        error = ERR_CONFIG;
    }
    static const uint8_t nothing[1];
    if (!error)
        error = policy_parse(policy, path, text.length ? text.data : nothing, text.length, problems);
    buffer_fini(&text);
    return error;
}

int access_policy_read(struct access_policy **out, const struct access_sources *sources, struct problems *problems)
{
    struct access_policy *policy = calloc(1, sizeof *policy);
    if (!policy)
        return ERR_NO_MEMORY;
    policy->shares = 1;
    policy->anonymous = sources->anonymous;
    policy->has_users = *sources->users;
    int error = password_init(), rules_error = 0;
    if (!error && *sources->users)
        error = users_read(&policy->users, sources->users, problems);
    if (*sources->rules && error != ERR_NO_MEMORY)
        rules_error = read_rules_file(policy, sources->rules, problems);
    error = error ? error : rules_error;
    if (error)
        policy_release(policy);
    else
        *out = policy;
    return error;
}

struct access_policy *policy_share(struct access_policy *policy)
{
    atomic_fetch_add_explicit(&policy->shares, 1, memory_order_relaxed);
    return policy;
}

void policy_release(struct access_policy *policy)
{
    if (!policy || atomic_fetch_sub_explicit(&policy->shares, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = 0; i < policy->rule_count; i++) {
        free(policy->rules[i].publish);
        free(policy->rules[i].subscribe);
    }
    free(policy->rules);
    free(policy->quotas);
    users_fini(&policy->users);
    yaml_tree_fini(&policy->tree);
    free(policy);
}

void access_policy_release(struct access_policy *policy)
{
    policy_release(policy);
}
