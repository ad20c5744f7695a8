/* drilling/topics: exact kinds under a root of any depth, and helpful refusals. */
#include "drilling/topics.h"

#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "unit.h"

static struct topics topics_with_root(const char *root)
{
    struct topics_options options = topics_defaults;
    options.root = root;
    struct topics topics;
    assert_int_equal(topics_init(&topics, &options), 0);
    return topics;
}

static void assert_kind(const struct topics *topics, const char *topic, enum topics_kind kind, const char *key)
{
    struct topics_match match;
    topics_classify(topics, topic, strlen(topic), &match);
    assert_int_equal(match.kind, kind);
    if (key) {
        assert_int_equal(match.key_length, strlen(key));
        assert_memory_equal(match.key, key, strlen(key));
    } else {
        assert_null(match.key);
        assert_int_equal(match.key_length, 0);
    }
}

static void the_three_kinds_are_told_apart(void **state)
{
    (void)state;
    struct topics topics = topics_with_root("OPCPUBSUB");
    assert_kind(&topics, "OPCPUBSUB/ILLL502033771/setitectest/ResultManagement", TOPICS_RESULT, "ILLL502033771/setitectest");
    assert_kind(&topics, "OPCPUBSUB/b/t/ResultManagement/Trace", TOPICS_TRACE, "b/t");
    assert_kind(&topics, "OPCPUBSUB/b/t/AssetManagement/Heads", TOPICS_HEADS, "b/t");
}

static void own_answers_and_other_assets_are_known(void **state)
{
    (void)state;
    struct topics topics = topics_with_root("OPCPUBSUB");
    assert_kind(&topics, "OPCPUBSUB/b/t/ResultManagement.Results.0.ResultContent.DepthEstimation.KeyPoints", TOPICS_ANSWER, "b/t");
    assert_kind(&topics, "OPCPUBSUB/b/t/ResultManagement.Results.0.ResultContent.DepthEstimation.DepthEstimation", TOPICS_ANSWER, "b/t");
    assert_kind(&topics, "OPCPUBSUB/b/t/AssetManagement/Controllers", TOPICS_OTHER_ASSET, "b/t");
    assert_kind(&topics, "OPCPUBSUB/b/t/AssetManagement/CuttingTools", TOPICS_OTHER_ASSET, "b/t");
    assert_kind(&topics, "OPCPUBSUB/b/t/AssetManagement/Servos", TOPICS_OTHER_ASSET, "b/t");
    assert_kind(&topics, "OPCPUBSUB/b/t/AssetManagement/Tools", TOPICS_OTHER_ASSET, "b/t");
}

static void a_root_may_have_several_levels(void **state)
{
    (void)state;
    struct topics topics = topics_with_root("site/hall 3/OPC");
    assert_kind(&topics, "site/hall 3/OPC/box/tool/ResultManagement", TOPICS_RESULT, "box/tool");
    assert_kind(&topics, "site/hall 3/box/tool/ResultManagement", TOPICS_UNKNOWN, NULL);
    assert_kind(&topics, "site/hall 3/OPC2/box/tool/ResultManagement", TOPICS_UNKNOWN, NULL);
}

static void everything_else_is_unknown(void **state)
{
    (void)state;
    struct topics topics = topics_with_root("OPCPUBSUB");
    static const char *const unknown[] = {
        "",
        "OPCPUBSUB",
        "OPCPUBSUB/",
        "OPCPUBSUB/b",
        "OPCPUBSUB/b/t",
        "OPCPUBSUB/b/t/",
        "OPCPUBSUB//t/ResultManagement",
        "OPCPUBSUB/b//ResultManagement",
        "OPCPUBSUB///ResultManagement",
        "OPCPUBSUB/b/t/ResultManagement/",
        "OPCPUBSUB/b/t/ResultManagement/Traces",
        "OPCPUBSUB/b/t/ResultManagement/Trace/x",
        "OPCPUBSUB/b/t/AssetManagement/Head",
        "OPCPUBSUB/b/t/x/ResultManagement",
        "OPCPUBSUB/b/t/resultmanagement",
        "opcpubsub/b/t/ResultManagement",
        "XOPCPUBSUB/b/t/ResultManagement",
        "OPCPUBSUBX/b/t/ResultManagement",
    };
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        assert_kind(&topics, unknown[i], TOPICS_UNKNOWN, NULL);
}

static void topics_of_a_replay_have_a_key_of_their_own(void **state)
{
    (void)state;
    struct topics topics = topics_with_root("OPCPUBSUB"), deep = topics_with_root("site/hall 3/OPC");
    assert_kind(&topics, "replay/7/OPCPUBSUB/b/t/ResultManagement", TOPICS_RESULT, "replay/7/OPCPUBSUB/b/t");
    assert_kind(&topics, "replay/7/OPCPUBSUB/b/t/ResultManagement/Trace", TOPICS_TRACE, "replay/7/OPCPUBSUB/b/t");
    assert_kind(&topics, "replay/8/OPCPUBSUB/b/t/AssetManagement/Heads", TOPICS_HEADS, "replay/8/OPCPUBSUB/b/t");
    assert_kind(&deep, "replay/7/site/hall 3/OPC/b/t/ResultManagement", TOPICS_RESULT, "replay/7/site/hall 3/OPC/b/t");
    static const char *const unknown[] = {"replay",
                                          "replay/",
                                          "replay/7",
                                          "replay/7/",
                                          "replay/7/OPCPUBSUB",
                                          "replay//OPCPUBSUB/b/t/ResultManagement",
                                          "replay/OPCPUBSUB/b/t/ResultManagement",
                                          "replay/7/OTHER/b/t/ResultManagement",
                                          "replay/7/replay/8/OPCPUBSUB/b/t/ResultManagement",
                                          "Replay/7/OPCPUBSUB/b/t/ResultManagement"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        assert_kind(&topics, unknown[i], TOPICS_UNKNOWN, NULL);
    static const char live[] = "b/t", replayed[] = "replay/7/OPCPUBSUB/b/t", trap[] = "replay/7";
    assert_false(topics_key_is_replayed(live, sizeof live - 1));
    assert_false(topics_key_is_replayed(trap, sizeof trap - 1));
    assert_true(topics_key_is_replayed(replayed, sizeof replayed - 1));
}

static void suffixes_can_be_chosen(void **state)
{
    (void)state;
    struct topics_options options = topics_defaults;
    options.result = "R";
    options.trace = "R/T";
    options.heads = "H";
    options.keypoints = "K";
    options.depths = "D";
    struct topics topics;
    assert_int_equal(topics_init(&topics, &options), 0);
    assert_kind(&topics, "OPCPUBSUB/b/t/R", TOPICS_RESULT, "b/t");
    assert_kind(&topics, "OPCPUBSUB/b/t/R/T", TOPICS_TRACE, "b/t");
    assert_kind(&topics, "OPCPUBSUB/b/t/H", TOPICS_HEADS, "b/t");
    assert_kind(&topics, "OPCPUBSUB/b/t/K", TOPICS_ANSWER, "b/t");
    assert_kind(&topics, "OPCPUBSUB/b/t/D", TOPICS_ANSWER, "b/t");
    assert_kind(&topics, "OPCPUBSUB/b/t/ResultManagement", TOPICS_UNKNOWN, NULL);
}

static void bad_options_are_refused_and_change_nothing(void **state)
{
    (void)state;
    char long_part[TOPICS_PART_MAX + 2];
    memset(long_part, 'x', sizeof long_part - 1);
    long_part[sizeof long_part - 1] = 0;
    const char *const bad[] = {NULL, "", "/a", "a/", "a//b", "a/+/b", "a/#", long_part};
    struct topics topics, before;
    memset(&topics, 7, sizeof topics);
    before = topics;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        for (int part = 0; part < 6; part++) {
            struct topics_options options = topics_defaults;
            const char **parts[] = {&options.root, &options.result, &options.trace, &options.heads, &options.keypoints, &options.depths};
            *parts[part] = bad[i];
            assert_int_equal(topics_init(&topics, &options), ERR_CONFIG);
        }
    }
    struct topics_options same = topics_defaults;
    same.trace = same.result;
    assert_int_equal(topics_init(&topics, &same), ERR_CONFIG);
    assert_memory_equal(&topics, &before, sizeof topics);

    static const char *const replays[] = {"replay", "replay/x"};
    for (size_t i = 0; i < 2; i++) {
        struct topics_options options = topics_defaults;
        options.root = replays[i];
        assert_int_equal(topics_init(&topics, &options), ERR_CONFIG);
    }
    struct topics_options replayed = topics_defaults;
    replayed.root = "replays";
    assert_int_equal(topics_init(&topics, &replayed), 0);

    struct topics_options longest = topics_defaults;
    long_part[TOPICS_PART_MAX] = 0;
    longest.root = long_part;
    assert_int_equal(topics_init(&topics, &longest), 0);
}

static void assert_explains(const struct topics *topics, const char *topic, const char *part)
{
    char text[256];
    topics_explain(topics, topic, strlen(topic), text, sizeof text);
    assert_non_null(strstr(text, part));
}

static void refusals_name_the_topic_and_the_near_spelling(void **state)
{
    (void)state;
    struct topics topics = topics_with_root("OPCPUBSUB");
    assert_explains(&topics, "OPCPUBSUB/b/t/AssetManagement/Head", "'OPCPUBSUB/b/t/AssetManagement/Head'");
    assert_explains(&topics, "OPCPUBSUB/b/t/AssetManagement/Head", "did you mean 'AssetManagement/Heads'?");
    assert_explains(&topics, "OPCPUBSUB/b/t/ResultManagement/Traces", "did you mean 'ResultManagement/Trace'?");
    assert_explains(&topics, "OPCPUBSUB/b/t/resultManagement", "did you mean 'ResultManagement'?");
    assert_explains(&topics, "OPCPUBSUB/b/t/something/else", "expected 'ResultManagement'");
    assert_explains(&topics, "OPCPUBSUB/b", "lacks a level");
    assert_explains(&topics, "OPCPUBSUB//t/ResultManagement", "lacks a level");
    assert_explains(&topics, "OTHER/b/t/ResultManagement", "not under the root 'OPCPUBSUB'");
    assert_explains(&topics, "", "not under the root");
}

static void a_long_topic_is_shown_in_part_and_stays_utf8(void **state)
{
    (void)state;
    struct topics topics = topics_with_root("OPCPUBSUB");
    char topic[1200] = "OPCPUBSUB/b/t/x";
    size_t length = strlen(topic);
    while (length + 2 < sizeof topic) {
        memcpy(topic + length, "\xc3\xa9", 2);
        length += 2;
    }
    char text[256];
    topics_explain(&topics, topic, length, text, sizeof text);
    assert_true(text_is_utf8(text, strlen(text)));
    assert_non_null(strstr(text, "..."));
    assert_non_null(strstr(text, "expected"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_three_kinds_are_told_apart),
        cmocka_unit_test(own_answers_and_other_assets_are_known),
        cmocka_unit_test(a_root_may_have_several_levels),
        cmocka_unit_test(everything_else_is_unknown),
        cmocka_unit_test(topics_of_a_replay_have_a_key_of_their_own),
        cmocka_unit_test(suffixes_can_be_chosen),
        cmocka_unit_test(bad_options_are_refused_and_change_nothing),
        cmocka_unit_test(refusals_name_the_topic_and_the_near_spelling),
        cmocka_unit_test(a_long_topic_is_shown_in_part_and_stays_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
