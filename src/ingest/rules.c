#include "ingest/rules.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "ingest/filters.h"
#include "mqtt/topic.h"

static const char hop_name[] = "spindle-bridge"; /* user property; its value is the mark of a Spindle */

/* ---- topics ---- */

static const char *prefix_of(const struct ingest_rule *rule, enum rule_side side)
{
    return side == RULE_LOCAL ? rule->local : rule->remote;
}

void rule_filter(const struct ingest_rule *rule, enum rule_side side, char text[RULE_TOPIC_FILTER_MAX])
{
    snprintf(text, RULE_TOPIC_FILTER_MAX, "%s%s", prefix_of(rule, side), rule->filter);
}

bool rule_matches(const struct ingest_rule *rule, enum rule_side side, const char *topic, size_t length)
{
    const char *prefix = prefix_of(rule, side);
    size_t left = strlen(prefix);
    if (length <= left || memcmp(topic, prefix, left) != 0)
        return false; /* "p/#" matches "p" too, which has no name at the other side */
    if (left == 0 || topic[left] != '$')
        return mqtt_topic_matches(rule->filter, strlen(rule->filter), topic + left, length - left);
    char filter[RULE_TOPIC_FILTER_MAX]; /* a `$` is a letter like any other behind a prefix */
    rule_filter(rule, side, filter);
    return mqtt_topic_matches(filter, strlen(filter), topic, length);
}

int rule_map(const struct ingest_rule *rule, enum rule_side from, const char *topic, size_t length, struct buffer *out)
{
    size_t left = strlen(prefix_of(rule, from));
    const char *prefix = prefix_of(rule, from == RULE_LOCAL ? RULE_REMOTE : RULE_LOCAL);
    if (strlen(prefix) + length - left > MQTT_TOPIC_LENGTH_MAX)
        return ERR_LIMIT;
    buffer_clear(out);
    int error = buffer_append_text(out, prefix);
    return error ? error : buffer_append(out, topic + left, length - left);
}

static bool overlaps(const struct ingest_rule *one, enum rule_side side, const struct ingest_rule *other)
{
    char first[RULE_TOPIC_FILTER_MAX], second[RULE_TOPIC_FILTER_MAX];
    rule_filter(one, side, first);
    rule_filter(other, side, second);
    return filter_overlaps(first, second);
}

bool rule_echoes(const struct ingest_rule *out, const struct ingest_rule *in)
{
    return out->direction & INGEST_OUT && in->direction & INGEST_IN && out->broker == in->broker && overlaps(out, RULE_REMOTE, in);
}

/* ---- marks ---- */

enum rule_past rule_past(struct mqtt_slice properties, const char *mark)
{
    struct mqtt_slice name, value;
    size_t mark_length = strlen(mark);
    enum rule_past past = RULE_NEW;
    unsigned hops = 0;
    for (uint32_t at = 0; mqtt_properties_next_user(properties, &at, &name, &value);) {
        if (name.length != sizeof hop_name - 1 || memcmp(name.data, hop_name, name.length) != 0)
            continue;
        if (value.length == mark_length && memcmp(value.data, mark, mark_length) == 0)
            past = RULE_ECHO;
        else if (past == RULE_ECHO || hops + 1 == RULE_HOPS_MAX)
            past = RULE_RING;
        hops++;
    }
    return past;
}

int rule_mark(struct mqtt_slice properties, const char *mark, struct buffer *out)
{
    int error = buffer_append(out, properties.data, properties.length);
    return error ? error
                 : mqtt_property_user(out, (struct mqtt_slice){(const uint8_t *)hop_name, sizeof hop_name - 1},
                                      (struct mqtt_slice){(const uint8_t *)mark, (uint32_t)strlen(mark)});
}

/* ---- what a person writes ---- */

struct words {
    const char *text, *at; /* of the rule; behind the last word */
    const char *word;      /* the last */
    size_t length;
};

static bool next_word(struct words *words)
{
    words->word = words->at + strspn(words->at, " \t");
    words->length = strcspn(words->word, " \t");
    words->at = words->word + words->length;
    return words->length > 0;
}

static int refuse(const struct words *words, char why[INGEST_WHY_MAX], const char *format, ...) __attribute__((format(printf, 3, 4)));
static int refuse(const struct words *words, char why[INGEST_WHY_MAX], const char *format, ...)
{
    int length = snprintf(why, INGEST_WHY_MAX, "column %zu: ", (size_t)(words->word - words->text) + 1);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why + length, INGEST_WHY_MAX - (size_t)length, format, arguments);
    va_end(arguments);
    return ERR_CONFIG;
}

static bool word_is(const struct words *words, const char *text)
{
    return words->length == strlen(text) && memcmp(words->word, text, words->length) == 0;
}

static int parse_direction(struct words *words, struct ingest_rule *rule, char why[INGEST_WHY_MAX])
{
    static const char *const names[] = {[INGEST_IN] = "in", [INGEST_OUT] = "out", [INGEST_BOTH] = "both"};
    next_word(words);
    for (int i = INGEST_IN; i <= INGEST_BOTH; i++)
        if (word_is(words, names[i]))
            rule->direction = (enum ingest_direction)i;
    return rule->direction ? 0 : refuse(words, why, "expected a direction: `in`, `out` or `both`");
}

static int parse_broker(struct words *words, struct ingest_broker *broker, char why[INGEST_WHY_MAX])
{
    char url[sizeof broker->host + sizeof broker->username + 32], reason[INGEST_WHY_MAX];
    if (!next_word(words) || words->length >= sizeof url)
        return refuse(words, why, "expected a broker, `mqtt://[user@]host[:port]` or `mqtts://...`");
    snprintf(url, sizeof url, "%.*s", (int)words->length, words->word);
    return ingest_broker_parse(url, broker, reason) ? refuse(words, why, "the broker: %.300s", reason) : 0;
}

static int parse_filter(struct words *words, struct ingest_rule *rule, char why[INGEST_WHY_MAX])
{
    if (!next_word(words))
        return refuse(words, why, "expected a topic filter, `#` for everything");
    if (words->length >= sizeof rule->filter || !mqtt_topic_filter_valid(words->word, words->length) ||
        mqtt_topic_share_length(words->word, words->length))
        return refuse(words, why, "expected a topic filter of at most %d bytes, without `$share/`", INGEST_RULE_FILTER_MAX - 1);
    snprintf(rule->filter, sizeof rule->filter, "%.*s", (int)words->length, words->word);
    return 0;
}

static int parse_prefix(struct words *words, char prefix[INGEST_RULE_PREFIX_MAX], bool here, char why[INGEST_WHY_MAX])
{
    if (!next_word(words) || words->length >= INGEST_RULE_PREFIX_MAX || words->word[words->length - 1] != '/' ||
        !mqtt_topic_name_valid(words->word, words->length))
        return refuse(words, why, "expected a prefix of topics that ends with `/`, without `+` and `#`, of at most %d bytes",
                      INGEST_RULE_PREFIX_MAX - 1);
    if (here && words->word[0] == '$')
        return refuse(words, why, "topics that begin with `$` are the server's; choose another local prefix");
    snprintf(prefix, INGEST_RULE_PREFIX_MAX, "%.*s", (int)words->length, words->word);
    return 0;
}

static int parse_option(struct words *words, struct ingest_rule *rule, char why[INGEST_WHY_MAX])
{
    if (word_is(words, "local"))
        return parse_prefix(words, rule->local, true, why);
    if (word_is(words, "remote"))
        return parse_prefix(words, rule->remote, false, why);
    if (!word_is(words, "qos"))
        return refuse(words, why, "expected `qos`, `local` or `remote`");
    if (!next_word(words) || words->length != 1 || words->word[0] < '0' || words->word[0] > '2')
        return refuse(words, why, "expected a QoS: 0, 1 or 2");
    rule->qos = (uint8_t)(words->word[0] - '0');
    return 0;
}

int ingest_rule_parse(const char *text, struct ingest_rule *out, struct ingest_broker *out_broker, char why[INGEST_WHY_MAX])
{
    struct words words = {.text = text, .at = text, .word = text};
    struct ingest_rule rule = {.qos = 1};
    struct ingest_broker broker;
    int error = parse_direction(&words, &rule, why);
    error = error ? error : parse_broker(&words, &broker, why);
    error = error ? error : parse_filter(&words, &rule, why);
    while (!error && next_word(&words))
        error = parse_option(&words, &rule, why);
    if (!error && !rule.local[0] && rule.filter[0] == '$' && rule.direction & INGEST_IN) {
        words.word = text;
        error = refuse(&words, why, "topics that begin with `$` are the server's; give a local prefix");
    }
    if (error)
        return error;
    *out = rule;
    *out_broker = broker;
    return 0;
}

int ingest_rules_check(const struct ingest_rule *rules, size_t count, bool has_marks, char why[INGEST_WHY_MAX])
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++) {
            unsigned common = i < j && rules[i].broker == rules[j].broker ? rules[i].direction & rules[j].direction : 0;
            bool in = common & INGEST_IN && overlaps(&rules[i], RULE_REMOTE, &rules[j]);
            if (in || (common & INGEST_OUT && overlaps(&rules[i], RULE_LOCAL, &rules[j]))) {
                snprintf(why, INGEST_WHY_MAX, "rules %zu and %zu overlap: some messages would %s by both; name filters that do not meet",
                         i + 1, j + 1, in ? "come in" : "go out");
                return ERR_CONFIG;
            }
            if (!has_marks && rule_echoes(&rules[i], &rules[j])) {
                snprintf(
                    why, INGEST_WHY_MAX,
                    "what rule %zu sends comes back by rule %zu, and in MQTT 3.1.1 (ingest.version) it could not be known again; speak "
                    "5.0, or give both directions remote topics that do not meet",
                    i + 1, j + 1);
                return ERR_CONFIG;
            }
        }
    }
    return 0;
}
