/* Exact comparison level by level; the explanation is made only for a topic that is refused. */
#include "drilling/topics.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/message.h"
#include "base/text.h"

const struct topics_options topics_defaults = {
    .root = "OPCPUBSUB",
    .result = "ResultManagement",
    .trace = "ResultManagement/Trace",
    .heads = "AssetManagement/Heads",
    .keypoints = "ResultManagement.Results.0.ResultContent.DepthEstimation.KeyPoints",
    .depths = "ResultManagement.Results.0.ResultContent.DepthEstimation.DepthEstimation",
};

static const char *const other_assets[] = {"AssetManagement/Controllers", "AssetManagement/CuttingTools", "AssetManagement/Servos",
                                           "AssetManagement/Tools"};
enum { OTHER_ASSET_COUNT = sizeof other_assets / sizeof *other_assets };

static bool part_valid(const char *part)
{
    size_t length = part ? strlen(part) : 0;
    return length > 0 && length <= TOPICS_PART_MAX && part[0] != '/' && part[length - 1] != '/' && !strstr(part, "//") &&
           !strpbrk(part, "+#");
}

int topics_init(struct topics *topics, const struct topics_options *options)
{
    const char *const parts[] = {options->root, options->result, options->trace, options->heads, options->keypoints, options->depths};
    enum { PART_COUNT = sizeof parts / sizeof *parts };
    for (size_t i = 0; i < PART_COUNT; i++) {
        if (!part_valid(parts[i]))
            return ERR_CONFIG;
        for (size_t j = 1; j < i; j++) {
            if (strcmp(parts[i], parts[j]) == 0)
                return ERR_CONFIG;
        }
    }
    if (message_root_is_replay(options->root))
        return ERR_CONFIG;
    char *const copies[] = {topics->root, topics->result, topics->trace, topics->heads, topics->keypoints, topics->depths};
    for (size_t i = 0; i < PART_COUNT; i++)
        memcpy(copies[i], parts[i], strlen(parts[i]) + 1);
    return 0;
}

uint32_t topics_key_max(const struct topics *topics)
{
    size_t keypoints = strlen(topics->keypoints), depths = strlen(topics->depths);
    return (uint32_t)(TOPICS_LENGTH_MAX - strlen("//") - strlen(topics->root) - (keypoints > depths ? keypoints : depths));
}

/* A topic cut at its levels. Lengths are 0 where a level is missing or empty. */
struct levels {
    bool under_root;
    const char *key;                   /* where it begins */
    const char *toolbox, *tool, *rest; /* NULL when the topic ends before */
    size_t toolbox_length, tool_length, rest_length;
};

static const char *next_level(const char *at, const char *end, size_t *length)
{
    const char *slash = memchr(at, '/', (size_t)(end - at));
    *length = (size_t)((slash ? slash : end) - at);
    return slash ? slash + 1 : NULL;
}

bool topics_replay_id(const char *topic, size_t topic_length, const char **id, uint32_t *id_length)
{
    static const char prefix[] = MESSAGE_REPLAY_LEVEL "/";
    size_t prefix_length = sizeof prefix - 1;
    if (topic_length <= prefix_length || memcmp(topic, prefix, prefix_length) != 0)
        return false;
    size_t length;
    if (!next_level(topic + prefix_length, topic + topic_length, &length) || length == 0)
        return false;
    *id = topic + prefix_length;
    *id_length = (uint32_t)length;
    return true;
}

bool topics_key_is_replayed(const char *key, uint32_t key_length)
{
    size_t length;
    const char *end = key + key_length, *second = next_level(key, end, &length);
    return second && memchr(second, '/', (size_t)(end - second));
}

static void levels_cut(const struct topics *topics, const char *topic, size_t topic_length, struct levels *levels)
{
    *levels = (struct levels){0};
    const char *end = topic + topic_length, *original = topic, *id;
    uint32_t id_length;
    bool replayed = topics_replay_id(topic, topic_length, &id, &id_length);
    if (replayed)
        original = id + id_length + 1;
    size_t root_length = strlen(topics->root), length = (size_t)(end - original);
    if (length < root_length || memcmp(original, topics->root, root_length) != 0 || (length > root_length && original[root_length] != '/'))
        return;
    levels->under_root = true;
    if (length == root_length)
        return;
    levels->toolbox = original + root_length + 1;
    levels->key = replayed ? topic : levels->toolbox;
    levels->tool = next_level(levels->toolbox, end, &levels->toolbox_length);
    if (!levels->tool)
        return;
    levels->rest = next_level(levels->tool, end, &levels->tool_length);
    if (levels->rest)
        levels->rest_length = (size_t)(end - levels->rest);
}

static bool rest_is(const struct levels *levels, const char *suffix)
{
    return levels->rest_length == strlen(suffix) && memcmp(levels->rest, suffix, levels->rest_length) == 0;
}

static enum topics_kind kind_of(const struct topics *topics, const struct levels *levels)
{
    if (!levels->rest || levels->toolbox_length == 0 || levels->tool_length == 0)
        return TOPICS_UNKNOWN;
    if (rest_is(levels, topics->trace))
        return TOPICS_TRACE;
    if (rest_is(levels, topics->result))
        return TOPICS_RESULT;
    if (rest_is(levels, topics->heads))
        return TOPICS_HEADS;
    if (rest_is(levels, topics->keypoints) || rest_is(levels, topics->depths))
        return TOPICS_ANSWER;
    for (size_t i = 0; i < OTHER_ASSET_COUNT; i++) {
        if (rest_is(levels, other_assets[i]))
            return TOPICS_OTHER_ASSET;
    }
    return TOPICS_UNKNOWN;
}

void topics_classify(const struct topics *topics, const char *topic, size_t topic_length, struct topics_match *match)
{
    struct levels levels;
    levels_cut(topics, topic, topic_length, &levels);
    *match = (struct topics_match){.kind = kind_of(topics, &levels)};
    if (match->kind != TOPICS_UNKNOWN) {
        match->key = levels.key;
        match->key_length = (uint32_t)(levels.tool + levels.tool_length - levels.key);
    }
}

enum { TOPIC_SHOWN_MAX = 100 }; /* bytes of a topic that fit into an explanation beside its words */

/* As many bytes of the topic as are shown: never half a character. */
static int shown_length(const char *topic, size_t topic_length)
{
    size_t shown = topic_length;
    if (shown > TOPIC_SHOWN_MAX) {
        shown = TOPIC_SHOWN_MAX;
        while (shown > 0 && ((unsigned char)topic[shown] & 0xc0) == 0x80)
            shown--;
    }
    return (int)shown;
}

void topics_explain(const struct topics *topics, const char *topic, size_t topic_length, char *text, size_t size)
{
    struct levels levels;
    levels_cut(topics, topic, topic_length, &levels);
    int shown = shown_length(topic, topic_length);
    const char *dots = (size_t)shown < topic_length ? "..." : "";
    if (!levels.under_root) {
        snprintf(text, size, "topic '%.*s%s' is not under the root '%.60s'", shown, topic, dots, topics->root);
        return;
    }
    if (!levels.rest || levels.toolbox_length == 0 || levels.tool_length == 0) {
        snprintf(text, size, "topic '%.*s%s' lacks a level: expected '%.60s/<toolbox>/<tool>/<kind>'", shown, topic, dots, topics->root);
        return;
    }
    const char *known[3 + OTHER_ASSET_COUNT] = {topics->result, topics->trace, topics->heads};
    memcpy(known + 3, other_assets, sizeof other_assets);
    char word[TOPICS_PART_MAX + 1];
    size_t word_length = levels.rest_length < sizeof word ? levels.rest_length : sizeof word - 1;
    memcpy(word, levels.rest, word_length);
    word[word_length] = 0;
    const char *near = word_length == levels.rest_length ? text_suggest(word, known, sizeof known / sizeof *known) : NULL;
    if (near)
        snprintf(text, size, "topic '%.*s%s' ends in no known kind; did you mean '%.60s'?", shown, topic, dots, near);
    else
        snprintf(text, size, "topic '%.*s%s' ends in no known kind: expected '%.40s', '%.40s' or '%.40s'", shown, topic, dots,
                 topics->result, topics->trace, topics->heads);
}
