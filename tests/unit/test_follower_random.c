/* The follower at random: what each member is handed, beside what a simple model says. SPINDLE_TEST_SEED=s runs one seed. */
#include <sched.h>

#include "base/random.h"
#include "follower_scene.h"
#include "mqtt/topic.h"

enum { MODEL_MESSAGES_MAX = 20000, MODEL_SUBSCRIPTIONS_MAX = 12, MODEL_AGAIN_MAX = 6, MODEL_LOOKS_MAX = 40, MODEL_STEPS = 400 };

static const char *const model_topics[] = {"a", "a/b", "a/c", "b/c", "d"};
static const char *const model_filters[] = {"a", "a/#", "+/c", "#", "a/b", "d"};

struct model_subscription {
    unsigned filter;
    struct follower_places sure;  /* from there on it gets all, ... */
    struct follower_places from;  /* ... and nothing before that */
    struct follower_places until; /* from there on nothing; when it has ended, all that lies before is handed perhaps */
};

static struct model {
    struct random_source random;
    struct {
        uint8_t topic, flags;
    } messages[FOLLOWER_CONTENTS][MODEL_MESSAGES_MAX];
    uint64_t appended[FOLLOWER_CONTENTS];
    struct model_member {
        bool here, begun;
        struct follower_places places;
        struct model_subscription subscriptions[MODEL_SUBSCRIPTIONS_MAX];
        unsigned subscription_count;
        struct follower_again again[MODEL_AGAIN_MAX];
        unsigned again_count;
        uint64_t room;
        struct {
            uint64_t handed;
            struct follower_places places;
        } looks[MODEL_LOOKS_MAX];
        unsigned look_count;
    } members[MEMBERS_MAX];
    unsigned member_count;
} model;

static uint32_t pick(uint32_t bound)
{
    return random_below(&model.random, bound);
}

static void model_append(void)
{
    unsigned content = pick(FOLLOWER_CONTENTS);
    bool answers = content == RESULTS;
    for (uint32_t count = pick(150); count && model.appended[content] < MODEL_MESSAGES_MAX; count--) {
        uint8_t topic = answers ? 4 : (uint8_t)pick(4);
        uint8_t flags = (uint8_t)(pick(3) | (pick(5) ? 0 : MESSAGE_RETAIN) | (answers && pick(3) == 0 ? MESSAGE_WITHHELD : 0));
        append(content, answers ? "answer" : model_topics[topic], flags, 0);
        model.messages[content][model.appended[content]].topic = topic;
        model.messages[content][model.appended[content]++].flags = flags;
    }
    settle();
}

static const char *model_topic(unsigned content, uint64_t offset)
{
    return content == RESULTS ? "answer" : model_topics[model.messages[content][offset].topic];
}

static struct model_subscription *model_find(struct model_member *member, unsigned filter)
{
    for (unsigned i = 0; i < member->subscription_count; i++)
        if (member->subscriptions[i].filter == filter && member->subscriptions[i].until.at[0] == UINT64_MAX)
            return &member->subscriptions[i];
    return NULL;
}

/* Of a member that has begun only what comes from now on is sure. */
static void model_subscribe(unsigned index)
{
    struct model_member *member = &model.members[index];
    unsigned filter = pick(sizeof model_filters / sizeof model_filters[0]);
    if (model_find(member, filter) || member->subscription_count == MODEL_SUBSCRIPTIONS_MAX)
        return;
    struct model_subscription *made = &member->subscriptions[member->subscription_count++];
    struct follower_places now = ends();
    *made = (struct model_subscription){.filter = filter, .until = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}}};
    for (unsigned c = 0; c < FOLLOWER_CONTENTS; c++) {
        made->from.at[c] = pick(2) ? now.at[c] : pick((uint32_t)now.at[c] + 1);
        made->sure.at[c] = member->begun ? now.at[c] : made->from.at[c];
    }
    subscribe(index, model_filters[filter], made->from);
}

static void model_unsubscribe(unsigned index)
{
    struct model_subscription *ended = model_find(&model.members[index], pick(sizeof model_filters / sizeof model_filters[0]));
    if (!ended)
        return;
    const char *filter = model_filters[ended->filter];
    assert_int_equal(follower_unsubscribe(scene.clients[index].member, filter, strlen(filter)), 0);
    ended->until = ends();
}

static void model_join(void)
{
    if (model.member_count == MEMBERS_MAX)
        return;
    unsigned index = model.member_count++;
    struct model_member *member = &model.members[index];
    struct follower_places now = ends();
    *member = (struct model_member){.here = true};
    for (unsigned c = 0; c < FOLLOWER_CONTENTS; c++)
        member->places.at[c] = pick(3) ? pick((uint32_t)now.at[c] + 1) : now.at[c];
    for (uint8_t c = 0; c < FOLLOWER_CONTENTS; c++)
        for (uint64_t offset = pick(200); offset < member->places.at[c] && member->again_count < 2u * (c + 1u); offset += 1 + pick(5000))
            member->again[member->again_count++] = (struct follower_again){.offset = offset, .content = c, .qos = (uint8_t)(1 + pick(2))};
    join_again(index, member->places, member->again, member->again_count);
    for (uint32_t count = pick(4); count; count--)
        model_subscribe(index);
}

static void model_look(unsigned index)
{
    struct model_member *member = &model.members[index];
    if (member->look_count == MODEL_LOOKS_MAX)
        return;
    member->looks[member->look_count].places = passed(index, &member->looks[member->look_count].handed);
    member->look_count++;
}

static void model_step(void)
{
    unsigned index = model.member_count ? pick(model.member_count) : 0;
    struct model_member *member = &model.members[index];
    uint32_t choice = pick(100);
    if (choice < 20) {
        model_append();
    } else if (choice < 32 || !model.member_count) {
        model_join();
    } else if (!member->here) {
        pthread_mutex_lock(&scene.lock);
        scene.refuse += pick(3);
        pthread_mutex_unlock(&scene.lock);
    } else if (choice < 70) {
        member->room += pick(300);
        member->begun = member->begun || member->room;
        grant(index, member->room);
    } else if (choice < 80) {
        model_look(index);
    } else if (choice < 88) {
        model_subscribe(index);
    } else if (choice < 96) {
        model_unsubscribe(index);
    } else {
        follower_leave(scene.clients[index].member);
        member->here = false;
    }
}

enum fate { NEVER, PERHAPS, SURELY };

static enum fate model_fate(const struct model_member *member, unsigned content, uint64_t offset)
{
    uint8_t flags = model.messages[content][offset].flags;
    enum fate fate = NEVER;
    if (!(flags & MESSAGE_QOS_MASK) || flags & MESSAGE_WITHHELD || offset < member->places.at[content])
        return NEVER;
    const char *topic = model_topic(content, offset);
    for (unsigned i = 0; i < member->subscription_count; i++) {
        const struct model_subscription *subscription = &member->subscriptions[i];
        const char *filter = model_filters[subscription->filter];
        if (offset < subscription->from.at[content] || offset >= subscription->until.at[content] ||
            !mqtt_topic_matches(filter, strlen(filter), topic, strlen(topic)))
            continue;
        bool sure = offset >= subscription->sure.at[content] && subscription->until.at[content] == UINT64_MAX;
        fate = sure ? SURELY : fate == SURELY ? SURELY : PERHAPS;
    }
    return fate;
}

static void model_check(unsigned index)
{
    const struct model_member *member = &model.members[index];
    const struct client *client = &scene.clients[index];
    uint64_t next[FOLLOWER_CONTENTS] = {0};
    for (size_t i = 0; i < client->count; i++) {
        const struct handed *handed = &client->handed[i];
        if (i < member->again_count) {
            assert_true(handed->again && handed->offset == member->again[i].offset && handed->content == member->again[i].content &&
                        handed->qos == member->again[i].qos);
            continue;
        }
        assert_false(handed->again);
        assert_true(handed->offset >= next[handed->content]);
        for (uint64_t passed_over = next[handed->content]; passed_over < handed->offset; passed_over++)
            assert_int_not_equal(model_fate(member, handed->content, passed_over), SURELY);
        assert_int_not_equal(model_fate(member, handed->content, handed->offset), NEVER);
        next[handed->content] = handed->offset + 1;
    }
    if (member->here) {
        assert_true(client->count >= member->again_count);
        for (unsigned c = 0; c < FOLLOWER_CONTENTS; c++)
            for (; next[c] < model.appended[c]; next[c]++)
                assert_int_not_equal(model_fate(member, c, next[c]), SURELY);
    }
    for (unsigned i = 0; i < member->look_count; i++)
        for (uint64_t k = member->looks[i].handed; k < client->count; k++)
            assert_true(client->handed[k].offset >= member->looks[i].places.at[client->handed[k].content]);
}

static void run_model(uint64_t seed)
{
    model = (struct model){.random = {seed}};
    for (unsigned i = 0; i < MODEL_STEPS; i++)
        model_step();
    pthread_mutex_lock(&scene.lock);
    scene.refuse = 0;
    pthread_mutex_unlock(&scene.lock);
    for (unsigned i = 0; i < model.member_count; i++)
        if (model.members[i].here)
            grant(i, PLENTY);
    for (unsigned i = 0; i < model.member_count; i++)
        if (model.members[i].here) {
            await_end(i);
            follower_leave(scene.clients[i].member);
        }
    while (status().members)
        sched_yield();
    for (unsigned i = 0; i < model.member_count; i++)
        model_check(i);
}

static void random_scenes_are_as_the_model_says(void **state)
{
    const char *given = getenv("SPINDLE_TEST_SEED");
    uint64_t first = given ? strtoull(given, NULL, 0) : 1, last = given ? first : 6;
    for (uint64_t seed = first; seed <= last; seed++) {
        print_message("seed %llu\n", (unsigned long long)seed);
        run_model(seed);
        if (seed < last) {
            end(state);
            begin(state);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(random_scenes_are_as_the_model_says, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
