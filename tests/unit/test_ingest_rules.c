/* Bridge rules: which topics are theirs, under which names they go, and by what a message is known that has been here. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "ingest/rules.h"
#include "mqtt/topic.h"
#include "unit.h"

static struct ingest_rule parse(const char *text)
{
    struct ingest_rule rule;
    struct ingest_broker broker;
    char why[INGEST_WHY_MAX];
    if (ingest_rule_parse(text, &rule, &broker, why))
        fail_msg("%s: %s", text, why);
    rule.broker = 0;
    return rule;
}

static struct mqtt_slice slice(const struct buffer *buffer)
{
    return (struct mqtt_slice){buffer->data, (uint32_t)buffer->length};
}

static void a_rule_is_read_with_its_options_in_any_order(void **state)
{
    (void)state;
    struct ingest_rule rule;
    struct ingest_broker broker;
    char why[INGEST_WHY_MAX];
    assert_int_equal(ingest_rule_parse("  both\tmqtts://u@h:1  a/+  remote r/ qos 2 local l/x/ ", &rule, &broker, why), 0);
    assert_int_equal(rule.direction, INGEST_BOTH);
    assert_int_equal(rule.qos, 2);
    assert_string_equal(rule.filter, "a/+");
    assert_string_equal(rule.local, "l/x/");
    assert_string_equal(rule.remote, "r/");
    assert_true(broker.tls && broker.port == 1);
    assert_int_equal(parse("in h #").qos, 1);
}

static void limits_of_a_rule_are_kept(void **state)
{
    (void)state;
    char text[2048], why[INGEST_WHY_MAX];
    struct ingest_rule rule = {.qos = 9};
    struct ingest_broker broker;
    snprintf(text, sizeof text, "in h %0*d", INGEST_RULE_FILTER_MAX - 1, 0);
    assert_int_equal(ingest_rule_parse(text, &rule, &broker, why), 0);
    snprintf(text, sizeof text, "in h %0*d", INGEST_RULE_FILTER_MAX, 0);
    assert_int_equal(ingest_rule_parse(text, &rule, &broker, why), ERR_CONFIG);
    snprintf(text, sizeof text, "in h a local %0*d/", INGEST_RULE_PREFIX_MAX - 2, 0);
    assert_int_equal(ingest_rule_parse(text, &rule, &broker, why), 0);
    snprintf(text, sizeof text, "in h a local %0*d/", INGEST_RULE_PREFIX_MAX - 1, 0);
    rule.qos = 9;
    assert_int_equal(ingest_rule_parse(text, &rule, &broker, why), ERR_CONFIG);
    assert_int_equal(rule.qos, 9); /* untouched */
}

static void topics_change_their_prefix(void **state)
{
    (void)state;
    static const struct {
        const char *rule, *topic, *other; /* NULL: not the rule's */
    } rows[] = {
        {"both h a/#", "a/b", "a/b"},
        {"both h a/#", "a", "a"},
        {"both h a/#", "b", NULL},
        {"both h # local l/ remote r/x/", "l/a", "r/x/a"},
        {"both h # local l/ remote r/x/", "l", NULL},
        {"both h # local l/ remote r/x/", "l/$a", "r/x/$a"},
        {"both h # local l/ remote r/x/", "lx/a", NULL},
        {"both h #", "$SYS/a", NULL},
        {"both h +/b local l/", "l/a/b", "a/b"},
        {"both h +/b remote r/", "a/b", "r/a/b"},
    };
    struct buffer name;
    buffer_init(&name, MQTT_TOPIC_LENGTH_MAX);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ingest_rule rule = parse(rows[i].rule);
        const char *topic = rows[i].topic, *other = rows[i].other;
        assert_int_equal(rule_matches(&rule, RULE_LOCAL, topic, strlen(topic)), other != NULL);
        if (!other)
            continue;
        assert_int_equal(rule_map(&rule, RULE_LOCAL, topic, strlen(topic), &name), 0);
        assert_string_equal(buffer_text(&name), other);
        assert_true(rule_matches(&rule, RULE_REMOTE, other, strlen(other)));
        assert_int_equal(rule_map(&rule, RULE_REMOTE, other, strlen(other), &name), 0);
        assert_string_equal(buffer_text(&name), topic);
    }
    static char longest[MQTT_TOPIC_LENGTH_MAX];
    memset(longest, 'x', sizeof longest);
    struct ingest_rule longer = parse("out h # remote r/"), same = parse("out h #");
    assert_int_equal(rule_map(&longer, RULE_LOCAL, longest, sizeof longest, &name), ERR_LIMIT);
    assert_int_equal(rule_map(&longer, RULE_LOCAL, longest, sizeof longest - 2, &name), 0);
    assert_int_equal(rule_map(&same, RULE_LOCAL, longest, sizeof longest, &name), 0);
    buffer_fini(&name);
}

static void rules_that_meet_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *one, *other;
        bool same_broker, good, good_without_marks;
    } rows[] = {
        {"out h a/#", "out h a/+", true, false, false},
        {"out h a/#", "out h a/+", false, true, true},
        {"out h a/# local l/", "out h a/+", true, true, true},
        {"in h a/# remote r/", "in h r/#", true, false, false},
        {"in h a/# remote r/", "in h s/#", true, true, true},
        {"in h a/#", "out h a/#", true, true, false},
        {"in h a/# remote r/", "out h a/# remote s/", true, true, true},
        {"both h a/#", "in h b", true, true, false},
    };
    char why[INGEST_WHY_MAX];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ingest_rule rules[2] = {parse(rows[i].one), parse(rows[i].other)};
        rules[1].broker = !rows[i].same_broker;
        assert_int_equal(ingest_rules_check(rules, 2, true, why), rows[i].good ? 0 : ERR_CONFIG);
        assert_int_equal(ingest_rules_check(rules, 2, false, why), rows[i].good_without_marks ? 0 : ERR_CONFIG);
    }
}

static void mark(struct buffer *properties, const char *mark)
{
    struct buffer more;
    buffer_init(&more, 4096);
    assert_int_equal(rule_mark(slice(properties), mark, &more), 0);
    buffer_fini(properties);
    *properties = more;
}

static void a_message_is_known_by_its_marks(void **state)
{
    (void)state;
    static const uint8_t other[] = "other", mine[] = "mine";
    struct buffer properties;
    buffer_init(&properties, 4096);
    assert_int_equal(rule_past((struct mqtt_slice){NULL, 0}, "mine"), RULE_NEW);
    mqtt_property_user(&properties, (struct mqtt_slice){other, 5}, (struct mqtt_slice){mine, 4});
    assert_int_equal(rule_past(slice(&properties), "mine"), RULE_NEW);
    mark(&properties, "other");
    assert_int_equal(rule_past(slice(&properties), "mine"), RULE_NEW);
    mark(&properties, "mine");
    assert_int_equal(rule_past(slice(&properties), "mine"), RULE_ECHO);
    assert_int_equal(rule_past(slice(&properties), "min"), RULE_NEW);
    mark(&properties, "third");
    assert_int_equal(rule_past(slice(&properties), "mine"), RULE_RING);
    buffer_clear(&properties);
    for (int i = 0; i < RULE_HOPS_MAX; i++) {
        assert_int_equal(rule_past(slice(&properties), "mine"), RULE_NEW);
        mark(&properties, "other");
    }
    assert_int_equal(rule_past(slice(&properties), "mine"), RULE_RING); /* it has gone far enough */
    buffer_fini(&properties);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rule_is_read_with_its_options_in_any_order),
        cmocka_unit_test(limits_of_a_rule_are_kept),
        cmocka_unit_test(topics_change_their_prefix),
        cmocka_unit_test(rules_that_meet_are_found),
        cmocka_unit_test(a_message_is_known_by_its_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
