/* Topic names, filters and whether they match: the examples of the standard, its limits, and a slow matcher as witness. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mqtt/topic.h"

static bool name(const char *topic)
{
    return mqtt_topic_name_valid(topic, strlen(topic));
}
static bool filter(const char *text)
{
    return mqtt_topic_filter_valid(text, strlen(text));
}
static bool matches(const char *f, const char *t)
{
    return mqtt_topic_matches(f, strlen(f), t, strlen(t));
}

static void names_of_every_length_and_kind_are_accepted(void **state)
{
    (void)state;
    char topic[64];
    for (size_t length = 1; length <= 40; length++) {
        memset(topic, 'x', sizeof topic);
        assert_true(mqtt_topic_name_valid(topic, length));
    }
    assert_true(name("/"));
    assert_true(name("//"));
    assert_true(name("a b/c"));
    assert_true(name("$SYS/uptime"));
    assert_true(name("Bohrlöcher/Straße/孔/🛠"));
    assert_true(name("\x01\x7f"));
    assert_true(name("\xef\xbb\xbf")); /* U+FEFF is never stripped */
}

static void a_wildcard_or_zero_is_found_at_every_place(void **state)
{
    (void)state;
    static const char bad[] = {'+', '#', 0, (char)0x80, (char)0xff};
    for (size_t length = 1; length <= 40; length++)
        for (size_t at = 0; at < length; at++)
            for (size_t kind = 0; kind < sizeof bad; kind++) {
                char *topic = malloc(length); /* of exact size, so that reading past it is noticed */
                memset(topic, 'x', length);
                topic[at] = bad[kind];
                assert_false(mqtt_topic_name_valid(topic, length));
                free(topic);
            }
}

static void neighbours_of_the_forbidden_bytes_are_allowed(void **state)
{
    (void)state;
    for (int byte = 1; byte < 0x80; byte++) {
        char topic[16];
        memset(topic, byte, sizeof topic);
        for (size_t length = 1; length <= sizeof topic; length++)
            assert_int_equal(mqtt_topic_name_valid(topic, length), byte != '+' && byte != '#');
    }
}

static void ill_formed_utf8_is_refused(void **state)
{
    (void)state;
    assert_false(name(""));
    assert_false(name("\xc0\x80"));         /* overlong zero */
    assert_false(name("a\xed\xa0\x80"));    /* surrogate */
    assert_false(name("\xf4\x90\x80\x80")); /* beyond U+10FFFF */
    assert_false(name("abcdefgh\xc3"));     /* cut */
    assert_false(name("ö/+"));
    assert_false(name("ö/#"));
    assert_false(mqtt_topic_name_valid("ö\0x", 4));
    assert_false(filter("\xed\xbf\xbf/+"));
    assert_false(mqtt_topic_filter_valid("a\0b", 3));
}

static void the_limits_of_length_and_levels_hold(void **state)
{
    (void)state;
    static char text[MQTT_TOPIC_LENGTH_MAX + 1];
    memset(text, 'x', sizeof text);
    assert_true(mqtt_topic_name_valid(text, MQTT_TOPIC_LENGTH_MAX));
    assert_false(mqtt_topic_name_valid(text, MQTT_TOPIC_LENGTH_MAX + 1));
    assert_true(mqtt_topic_filter_valid(text, MQTT_TOPIC_LENGTH_MAX));
    assert_false(mqtt_topic_filter_valid(text, MQTT_TOPIC_LENGTH_MAX + 1));
    memset(text, '/', sizeof text);
    assert_true(mqtt_topic_name_valid(text, MQTT_TOPIC_LEVELS_MAX - 1));
    assert_false(mqtt_topic_name_valid(text, MQTT_TOPIC_LEVELS_MAX));
    assert_true(mqtt_topic_filter_valid(text, MQTT_TOPIC_LEVELS_MAX - 1));
    assert_false(mqtt_topic_filter_valid(text, MQTT_TOPIC_LEVELS_MAX));
}

static void filters_allow_wildcards_only_as_whole_levels(void **state)
{
    (void)state;
    static const char *const good[] = {"#",    "+",      "/",     "+/+", "/+", "sport/#", "sport/tennis/#", "+/tennis/#", "sport/+/player1",
                                       "a//b", "$SYS/#", "$share"};
    static const char *const bad[] = {
        "", "sport#", "sport/tennis#", "sport/tennis/#/ranking", "sport+", "+sport", "a/b+/c", "##", "#/", "++", "#+", "+#"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(filter(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(filter(bad[i]));
}

static void shared_filters_need_a_name_and_a_filter(void **state)
{
    (void)state;
    assert_true(filter("$share/group/a/+"));
    assert_true(filter("$share/group/#"));
    assert_true(filter("$share/group//"));
    assert_true(filter("$shared/x"));
    assert_false(filter("$share/"));
    assert_false(filter("$share/group"));
    assert_false(filter("$share/group/"));
    assert_false(filter("$share//a"));
    assert_false(filter("$share/gr+up/a"));
    assert_false(filter("$share/#/a"));
    assert_false(filter("$share/group/a#"));
}

static void the_standards_examples_match(void **state)
{
    (void)state;
    static const struct {
        const char *filter, *topic;
        bool expected;
    } rows[] = {
        {"sport/tennis/player1/#", "sport/tennis/player1", true},
        {"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
        {"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
        {"sport/#", "sport", true},
        {"sport/#", "sports", false},
        {"sport/#", "sport/", true},
        {"#", "a/b", true},
        {"#", "/", true},
        {"sport/tennis/+", "sport/tennis/player1", true},
        {"sport/tennis/+", "sport/tennis/player1/ranking", false},
        {"sport/+", "sport", false},
        {"sport/+", "sport/", true},
        {"+/+", "/finance", true},
        {"/+", "/finance", true},
        {"+", "/finance", false},
        {"+/#", "a", true},
        {"#", "$SYS/x", false},
        {"+/monitor/Clients", "$SYS/monitor/Clients", false},
        {"$SYS/#", "$SYS/", true},
        {"$SYS/#", "$SYS", true},
        {"$SYS/monitor/+", "$SYS/monitor/Clients", true},
        {"a/$b/+", "a/$b/c", true},
        {"a/+", "a/$b", true},
        {"ACCOUNTS", "Accounts", false},
        {"a", "ab", false},
        {"ab", "a", false},
        {"a/b", "a", false},
        {"a", "a/b", false},
        {"a/b/#", "a", false},
        {"a//b", "a//b", true},
        {"a/+/b", "a//b", true},
        {"a/", "a", false},
        {"a", "a/", false},
        {"/#", "a", false},
        {"/#", "/", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (matches(rows[i].filter, rows[i].topic) != rows[i].expected)
            fail_msg("'%s' and '%s' should %smatch", rows[i].filter, rows[i].topic, rows[i].expected ? "" : "not ");
}

/* The definition, level by level, with no thought of speed. */
static bool matches_slowly(const char *f, const char *t, bool first)
{
    if (first && *t == '$' && (*f == '+' || *f == '#'))
        return false;
    size_t f_level = strcspn(f, "/"), t_level = strcspn(t, "/");
    if (f_level == 1 && *f == '#')
        return true;
    if (!(f_level == 1 && *f == '+') && (f_level != t_level || memcmp(f, t, f_level) != 0))
        return false;
    if (!t[t_level])
        return !f[f_level] || strcmp(f + f_level, "/#") == 0;
    return f[f_level] && matches_slowly(f + f_level + 1, t + t_level + 1, false);
}

static void the_fast_matcher_agrees_with_the_slow_one(void **state)
{
    (void)state;
    uint32_t random = 1;
    unsigned matched = 0, tried = 0;
    while (tried < 200000) {
        char f[12], t[12];
        for (int which = 0; which < 2; which++) {
            char *text = which ? t : f;
            random = random * 1664525 + 1013904223;
            size_t length = 1 + (random >> 16) % 10;
            for (size_t i = 0; i < length; i++) {
                random = random * 1664525 + 1013904223;
                text[i] = which ? "aab//$"[(random >> 16) % 6] : "aab//+/#$"[(random >> 16) % 9];
            }
            text[length] = 0;
        }
        if (!filter(f) || !name(t))
            continue;
        tried++;
        bool expected = matches_slowly(f, t, true);
        matched += expected;
        if (matches(f, t) != expected)
            fail_msg("'%s' and '%s' should %smatch", f, t, expected ? "" : "not ");
    }
    assert_in_range(matched, 1000, 199000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_every_length_and_kind_are_accepted),   cmocka_unit_test(a_wildcard_or_zero_is_found_at_every_place),
        cmocka_unit_test(neighbours_of_the_forbidden_bytes_are_allowed), cmocka_unit_test(ill_formed_utf8_is_refused),
        cmocka_unit_test(the_limits_of_length_and_levels_hold),          cmocka_unit_test(filters_allow_wildcards_only_as_whole_levels),
        cmocka_unit_test(shared_filters_need_a_name_and_a_filter),       cmocka_unit_test(the_standards_examples_match),
        cmocka_unit_test(the_fast_matcher_agrees_with_the_slow_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
