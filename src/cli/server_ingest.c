#include "cli/server_ingest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "mqtt/packet.h"
#include "mqtt/topic.h"

enum { PLACE_TEXT_MAX = 512 };
enum { OPEN_FACTOR_MAX = 8 }; /* how much longer a circuit breaker stays open while probes fail */

/* ---- brokers and filters ---- */

static size_t list_brokers(const struct config *config, struct ingest_broker brokers[INGEST_GROUP_MAX], struct problems *problems)
{
    const struct config_list *list = &config->ingest_brokers;
    struct place place = config->origins[CONFIG_SETTING_ingest_brokers].place;
    size_t count = 0;
    if (problems && list->count > INGEST_GROUP_MAX)
        problems_add(problems, PROBLEM_ERROR, place, "`ingest.brokers`: there are %zu, and at most %d are allowed", list->count,
                     INGEST_GROUP_MAX);
    for (size_t i = 0; i < list->count && count < INGEST_GROUP_MAX; i++) {
        char why[INGEST_WHY_MAX];
        struct ingest_broker *broker = &brokers[count];
        if (ingest_broker_parse(list->items[i], broker, why)) {
            if (problems)
                problems_add(problems, PROBLEM_ERROR, place, "`ingest.brokers`: %s: %s",
                             problem_quote(list->items[i], strlen(list->items[i])).text, why);
            continue;
        }
        if (broker->username[0])
            snprintf(broker->password, sizeof broker->password, "%s", config->ingest_password);
        count++;
    }
    if (list->count == 0 && config->mqtt_broker_host[0]) {
        struct ingest_broker *broker = &brokers[count++];
        *broker = (struct ingest_broker){.port = (uint16_t)config->mqtt_broker_port};
        snprintf(broker->host, sizeof broker->host, "%s", config->mqtt_broker_host);
        if (config->mqtt_broker_username[0] && config->mqtt_broker_password[0]) {
            snprintf(broker->username, sizeof broker->username, "%s", config->mqtt_broker_username);
            snprintf(broker->password, sizeof broker->password, "%s", config->mqtt_broker_password);
        }
    }
    return count;
}

static size_t list_filters(const struct config *config, struct server_ingest *ingest)
{
    const struct config_list *list = &config->ingest_filters;
    const char *const suffixes[] = {config->mqtt_listener_result, config->mqtt_listener_trace, config->mqtt_listener_heads};
    size_t count = 0;
    for (; count < list->count; count++)
        ingest->filters[count] = list->items[count];
    for (; list->count == 0 && config->drilling_enabled && count < 3; count++) {
        snprintf(ingest->own_filters[count], sizeof ingest->own_filters[count], "%s/+/+/%s", config->mqtt_listener_root, suffixes[count]);
        ingest->filters[count] = ingest->own_filters[count];
    }
    return count;
}

/* Takes those away that another covers. */
static size_t drop_redundant(const char **filters, size_t count)
{
    bool redundant[INGEST_FILTERS_MAX];
    char why[INGEST_WHY_MAX];
    size_t kept = 0;
    if (ingest_filters_check(filters, count, redundant, why))
        return 0;
    for (size_t i = 0; i < count; i++)
        if (!redundant[i])
            filters[kept++] = filters[i];
    return kept;
}

/* ---- rules ---- */

struct rules {
    const struct config *config;
    struct server_ingest *ingest;
    size_t group_count, broker_count, count;
    struct problems *problems; /* NULL: they were told */
    bool named[INGEST_BROKERS_MAX];
};

static void complain(const struct rules *rules, const char *which, const char *what)
{
    if (rules->problems)
        problems_add(rules->problems, PROBLEM_ERROR, rules->config->origins[CONFIG_SETTING_bridge_rules].place, "`bridge.rules`: %s%s",
                     which, what);
}

static bool is_own(const struct config *config, const struct ingest_broker *broker)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "::1"};
    bool here = false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        here = here || strcmp(broker->host, names[i]) == 0;
    return here && ((config->bus_tcp_enabled && broker->port == config->bus_port) ||
                    (config->bus_tls_enabled && broker->port == config->bus_tls_port));
}

_Static_assert(INGEST_BRIDGES_MAX == 8, "find_broker and docs/bridge.md say so");

/* The broker's index among all; -1, with what is wrong, when it cannot be one of them. */
static int find_broker(struct rules *rules, const struct ingest_broker *wanted, const char **why)
{
    struct ingest_broker *brokers = rules->ingest->brokers;
    size_t at = 0, named = 0;
    while (at < rules->broker_count && (strcmp(brokers[at].host, wanted->host) != 0 || brokers[at].port != wanted->port))
        at++;
    for (size_t i = 0; i < rules->broker_count; i++)
        named += rules->named[i];
    *why = NULL;
    if (is_own(rules->config, wanted))
        *why = "the broker is this Spindle itself: what goes out would come in for ever";
    else if (at < rules->broker_count && (strcmp(brokers[at].username, wanted->username) != 0 || brokers[at].tls != wanted->tls))
        *why = "the same broker is named elsewhere with another user, or with TLS here and without there";
    else if ((at == rules->broker_count || !rules->named[at]) && named == INGEST_BRIDGES_MAX)
        *why = "there are more than 8 different brokers in these rules";
    if (*why)
        return -1;
    if (at == rules->broker_count) {
        brokers[at] = *wanted;
        if (wanted->username[0])
            snprintf(brokers[at].password, sizeof brokers[at].password, "%s", rules->config->bridge_password);
        rules->broker_count++;
    }
    rules->named[at] = true;
    return (int)at;
}

/* What lies below the root of drilling is in another stream, from which rules do not send. */
static bool is_drilling(const struct config *config, const struct ingest_rule *rule)
{
    char root[1100], filter[INGEST_RULE_FILTER_MAX + INGEST_RULE_PREFIX_MAX];
    snprintf(root, sizeof root, "%s/#", config->mqtt_listener_root);
    snprintf(filter, sizeof filter, "%s%s", rule->local, rule->filter);
    return config->drilling_enabled && rule->direction & INGEST_OUT && mqtt_topic_filter_covers(root, strlen(root), filter, strlen(filter));
}

static void list_rules(struct rules *rules)
{
    const struct config_list *list = &rules->config->bridge_rules;
    for (size_t i = 0; i < list->count && i < INGEST_RULES_MAX; i++) {
        struct ingest_rule *rule = &rules->ingest->rules[rules->count];
        struct ingest_broker broker;
        char which[PLACE_TEXT_MAX], reason[INGEST_WHY_MAX];
        const char *why = reason;
        int at = ingest_rule_parse(list->items[i], rule, &broker, reason) ? -1 : find_broker(rules, &broker, &why);
        if (at >= 0 && is_drilling(rules->config, rule)) {
            why = "what is below mqtt.listener.root is not sent by rules; ingest.results sends results";
            at = -1;
        }
        snprintf(which, sizeof which, "rule %zu, %s: ", i + 1, problem_quote(list->items[i], strlen(list->items[i])).text);
        if (at < 0) {
            complain(rules, which, why);
            continue;
        }
        rule->broker = (uint8_t)at;
        rules->count++;
    }
}

/* ---- TLS ---- */

static const char *file_or_none(const char *path)
{
    return *path ? path : NULL;
}

static void fill_tls(const struct config *config, struct tls_options *options)
{
    *options = (struct tls_options){
        .side = TLS_CLIENT,
        .files = {[TLS_FILE_CERTIFICATE] = file_or_none(config->ingest_tls_certificate),
                  [TLS_FILE_KEY] = file_or_none(config->ingest_tls_key),
                  [TLS_FILE_CA] = file_or_none(config->ingest_tls_ca)},
        .trusts_anyone = !config->ingest_tls_verify,
        .only_1_3 = config->ingest_tls_version_min == CONFIG_TLS_VERSION_1_3,
    };
}

/* What has ended keeps nobody from starting: brokers are tried again and again, and the file may be replaced meanwhile. */
static void check_tls(const struct config *config, struct problems *problems)
{
    static const enum config_setting settings[TLS_FILES] = {
        [TLS_FILE_CERTIFICATE] = CONFIG_SETTING_ingest_tls_certificate,
        [TLS_FILE_KEY] = CONFIG_SETTING_ingest_tls_key,
        [TLS_FILE_CA] = CONFIG_SETTING_ingest_tls_ca,
    };
    struct tls_options options;
    struct tls_problem problem;
    struct tls_context *context = NULL;
    fill_tls(config, &options);
    if (options.trusts_anyone)
        problems_add(problems, PROBLEM_WARNING, config->origins[CONFIG_SETTING_ingest_tls_verify].place,
                     "`ingest.tls.verify` is false: whoever answers at a broker's address gets what is meant for it; name who signs its "
                     "certificate in `ingest.tls.ca` instead");
    if (!options.files[TLS_FILE_CERTIFICATE] != !options.files[TLS_FILE_KEY]) {
        problems_add(problems, PROBLEM_ERROR, config->origins[CONFIG_SETTING_ingest_tls_certificate].place,
                     "`ingest.tls.certificate` and `ingest.tls.key` belong together: set both or none");
        return;
    }
    int error = tls_context_create(&context, &options, &problem);
    bool aged = !error && tls_check_age(&options, (int64_t)(clock_wall_ns() / 1000000000u), &problem) != TLS_AGE_GOOD;
    tls_context_destroy(context);
    if (error == ERR_INVALID || aged)
        problems_add(problems, error ? PROBLEM_ERROR : PROBLEM_WARNING, config->origins[settings[problem.file]].place, "`%s`: %s",
                     config_setting_path(settings[problem.file]), problem.text);
}

static bool wants_tls(const struct ingest_broker *brokers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (brokers[i].tls)
            return true;
    return false;
}

void server_ingest_reload(const struct config *config, struct ingest *ingest)
{
    struct tls_options options;
    fill_tls(config, &options);
    if (ingest)
        ingest_reload_tls(ingest, &options);
}

static void check_brokers(const struct config *config, struct server_ingest *ingest, struct problems *problems)
{
    char why[INGEST_WHY_MAX];
    size_t filter_count = list_filters(config, ingest), before = problems->errors;
    struct rules rules = {.config = config, .ingest = ingest, .problems = problems};
    rules.group_count = rules.broker_count = list_brokers(config, ingest->brokers, problems);
    list_rules(&rules);
    if (wants_tls(ingest->brokers, rules.broker_count))
        check_tls(config, problems);
    if (problems->errors == before && ingest_rules_check(ingest->rules, rules.count, config->ingest_version != CONFIG_MQTT_VERSION_3, why))
        complain(&rules, "", why);
    if (config->ingest_filters.count && ingest_filters_check(ingest->filters, filter_count, NULL, why))
        problems_add(problems, PROBLEM_ERROR, config->origins[CONFIG_SETTING_ingest_filters].place, "`ingest.filters`: %s", why);
}

int server_ingest_check(const struct config *config, struct problems *problems)
{
    struct server_ingest *ingest = calloc(1, sizeof *ingest);
    if (!ingest)
        return ERR_NO_MEMORY;
    size_t mistakes = problems->errors;
    check_brokers(config, ingest, problems);
    free(ingest);
    if (strlen(config->ingest_client_prefix) + strlen(config->ingest_instance) > 200)
        problems_add(problems, PROBLEM_ERROR, config->origins[CONFIG_SETTING_ingest_client_prefix].place,
                     "`ingest.client_prefix` and `ingest.instance` have more than 200 bytes together");
    if (strcspn(config->ingest_client_prefix, "/+#") != strlen(config->ingest_client_prefix) ||
        strcspn(config->ingest_instance, "/+#") != strlen(config->ingest_instance))
        problems_add(problems, PROBLEM_ERROR, config->origins[CONFIG_SETTING_ingest_client_prefix].place,
                     "`ingest.client_prefix` and `ingest.instance` name a shared subscription too, and may not contain `/`, `+` or `#`");
    if (config->ingest_backoff_first_s > config->ingest_backoff_last_s)
        problems_add(problems, PROBLEM_ERROR, config->origins[CONFIG_SETTING_ingest_backoff_first_s].place,
                     "`ingest.backoff_first_s` is longer than `ingest.backoff_last_s`");
    return problems->errors > mistakes ? ERR_CONFIG : 0;
}

/* ---- options ---- */

static void fill_policy(const struct config *config, struct ingest_options *options)
{
    uint64_t open_ns = config_ns(config->ingest_breaker_open_s);
    options->connect_timeout_ns = config_ns(config->ingest_connect_timeout_s);
    options->backoff = (struct backoff_options){config_ns(config->ingest_backoff_first_s), config_ns(config->ingest_backoff_last_s)};
    options->breaker = (struct breaker_options){config->ingest_breaker_failures, open_ns, OPEN_FACTOR_MAX * open_ns};
}

bool server_ingest_options(const struct config *config, struct server_ingest *ingest)
{
    static const enum ingest_sharing sharing[] = {
        [CONFIG_SHARED_AUTO] = INGEST_SHARED_AUTO,
        [CONFIG_SHARED_ALWAYS] = INGEST_SHARED_ALWAYS,
        [CONFIG_SHARED_NEVER] = INGEST_SHARED_NEVER,
    };
    static const uint8_t versions[] = {
        [CONFIG_MQTT_VERSION_AUTO] = 0,
        [CONFIG_MQTT_VERSION_5] = MQTT_VERSION_5_0,
        [CONFIG_MQTT_VERSION_3] = MQTT_VERSION_3_1_1,
    };
    struct rules rules = {.config = config, .ingest = ingest};
    rules.group_count = rules.broker_count = list_brokers(config, ingest->brokers, NULL);
    list_rules(&rules);
    if (rules.broker_count == 0)
        return false;
    snprintf(ingest->consumed_filter, sizeof ingest->consumed_filter, "%s/#", config->mqtt_listener_root);
    struct topics_options topics = {
        .root = config->mqtt_listener_root,
        .result = config->mqtt_listener_result,
        .trace = config->mqtt_listener_trace,
        .heads = config->mqtt_listener_heads,
        .keypoints = config->mqtt_estimation_keypoints,
        .depths = config->mqtt_estimation_depth_estimation,
    };
    if (topics_init(&ingest->topics, &topics))
        return false; /* config_load has refused it */
    ingest->options = (struct ingest_options){
        .brokers = ingest->brokers,
        .broker_count = rules.broker_count,
        .group_count = rules.group_count,
        .rules = ingest->rules,
        .rule_count = rules.count,
        .bridge_inflight = config->bridge_inflight,
        .client_prefix = config->ingest_client_prefix,
        .instance = config->ingest_instance,
        .connection_count = config->ingest_connections,
        .filters = ingest->filters,
        .filter_count = drop_redundant(ingest->filters, list_filters(config, ingest)),
        .qos = (uint8_t)config->ingest_qos,
        .version = versions[config->ingest_version],
        .sharing = sharing[config->ingest_shared],
        .keep_alive_s = (uint16_t)config->ingest_keep_alive_s,
        .session_expiry_s = (uint32_t)config->ingest_session_expiry_s,
        .receive_maximum = (uint16_t)config->ingest_receive_maximum,
        .packet_size_max = (uint32_t)config->ingest_packet_size_max,
        .backlog_max = config->journal_backlog_size_max,
        .consumed_filter = config->drilling_enabled ? ingest->consumed_filter : NULL,
        .acknowledge_at_once = config->data_durability == CONFIG_DURABILITY_MEMORY,
        .results = config->ingest_results && config->drilling_enabled && rules.group_count,
        .results_qos = (uint8_t)config->ingest_results_qos,
        .results_inflight = config->ingest_results_inflight,
    };
    fill_policy(config, &ingest->options);
    fill_tls(config, &ingest->options.tls);
    return true;
}

bool server_ingest_skip(const struct topics *topics, const char *topic, size_t length)
{
    struct topics_match match;
    topics_classify(topics, topic, length, &match);
    return match.kind == TOPICS_ANSWER;
}
