/* The follower on a real journal: what each member is handed, beside what a simple model says. */
#include "embedded_fixture.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/random.h"
#include "bus/follower.h"
#include "mqtt/topic.h"

enum { MEMBERS_MAX = 160, HANDED_MAX = 60000, PLENTY = 1 << 30, DEADLINE_S = 60, CONSUMED = 0, KEPT = 1, RESULTS = 2 };

struct handed {
    uint64_t offset, origin;
    uint32_t identifier;
    uint8_t content, qos, options;
    bool again;
};

struct client {
    struct follower_member *member;
    struct handed *handed; /* [HANDED_MAX] */
    size_t count;
    uint64_t bytes;
};

static struct scene {
    struct fixture queue;
    struct queue_producer *producer;
    struct follower *follower;
    pthread_mutex_t lock; /* what follows */
    pthread_cond_t told;
    struct client clients[MEMBERS_MAX];
    unsigned refuse; /* so many deliveries; UINT_MAX: all */
    unsigned refused_loop;
    uint64_t deliveries, refused;
    pthread_t follower_thread;
} scene;

/* ---- the scene ---- */

static bool take(void *context, const struct follower_delivery *delivery)
{
    (void)context;
    pthread_mutex_lock(&scene.lock);
    scene.follower_thread = pthread_self();
    bool refused = scene.refuse && (scene.refused_loop == UINT32_MAX || delivery->targets[0].loop == scene.refused_loop);
    if (refused) {
        scene.refuse -= scene.refuse != UINT32_MAX;
        scene.refused++;
    }
    for (uint32_t i = 0; i < delivery->target_count && !refused; i++) {
        const struct router_subscription *target = &delivery->targets[i];
        const struct message *message = delivery->message;
        struct client *client = &scene.clients[target->connection];
        assert_true(target->generation == target->connection + 7 && target->loop == delivery->targets[0].loop);
        assert_true(client->count < HANDED_MAX);
        uint32_t identifier = target->identifier;
        if (target->options & ROUTER_IDENTIFIERS) { /* all of them, added */
            assert_true(target->identifier < delivery->identifier_count);
            identifier = 0;
            for (uint32_t k = 1; k <= delivery->identifiers[target->identifier]; k++)
                identifier += delivery->identifiers[target->identifier + k];
        }
        client->handed[client->count++] = (struct handed){.offset = message->offset,
                                                          .origin = delivery->origin_session,
                                                          .identifier = identifier,
                                                          .content = delivery->content,
                                                          .qos = target->qos,
                                                          .options = target->options,
                                                          .again = delivery->again};
        client->bytes += (uint64_t)message->topic_length + message->payload_length + message->properties_length;
    }
    scene.deliveries += !refused;
    pthread_cond_broadcast(&scene.told);
    pthread_mutex_unlock(&scene.lock);
    return !refused;
}

static void start_follower(void)
{
    struct follower_options options = {.queue = scene.queue.queue, .deliver = take};
    assert_int_equal(follower_start(&scene.follower, &options), 0);
}

static int begin(void **state)
{
    if (test_folder_make(state))
        return -1;
    scene = (struct scene){.refused_loop = UINT32_MAX};
    pthread_mutex_init(&scene.lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&scene.told, &monotonic);
    pthread_condattr_destroy(&monotonic);
    start(&scene.queue);
    assert_int_equal(scene.queue.queue->ops->producer_open(scene.queue.queue, no_notice, NULL, &scene.producer), 0);
    start_follower();
    return 0;
}

static int end(void **state)
{
    follower_stop(scene.follower);
    scene.producer->ops->close(scene.producer);
    stop(&scene.queue);
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        free(scene.clients[i].handed);
    pthread_cond_destroy(&scene.told);
    pthread_mutex_destroy(&scene.lock);
    return test_folder_remove(state);
}

static uint64_t end_of(unsigned content)
{
    uint64_t first, next;
    scene.queue.queue->ops->extent(scene.queue.queue, follower_contents[content], &first, &next);
    return next;
}

static struct follower_places ends(void)
{
    return (struct follower_places){{end_of(CONSUMED), end_of(KEPT), end_of(RESULTS)}};
}

static void append(unsigned content, const char *topic, uint8_t flags, uint64_t session)
{
    struct message message = {.topic = topic,
                              .topic_length = (uint32_t)strlen(topic),
                              .payload = (const uint8_t *)"12345678",
                              .payload_length = 8,
                              .flags = flags};
    const struct queue_origin origin = {.session = session, .sequence = 3, .packet_id = 9};
    enum queue_destination to = content == KEPT ? QUEUE_KEPT : QUEUE_CONSUMED;
    if (content == RESULTS)
        assert_int_equal(scene.queue.queue->ops->result(scene.queue.writer, &message, NULL, 0), 0);
    else if (session)
        assert_int_equal(scene.producer->ops->append_from(scene.producer, to, &message, &origin, 0), 0);
    else
        assert_int_equal(scene.producer->ops->append(scene.producer, to, &message, 0), 0);
}

static void submit(void)
{
    scene.producer->ops->submit(scene.producer);
}

/* Waits until what was appended is durable. */
static void settle(void)
{
    submit();
    flush(&scene.queue);
    scene.producer->ops->close(scene.producer);
    assert_int_equal(scene.queue.queue->ops->producer_open(scene.queue.queue, no_notice, NULL, &scene.producer), 0);
}

static void append_many(unsigned content, const char *topic, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        append(content, topic, 1, 0);
        if (i % 500 == 499)
            submit();
    }
    settle();
}

static void append_segments(struct journal_stream *stream)
{
    static uint8_t payload[512 << 10];
    struct message message = {.topic = "s", .topic_length = 1, .payload = payload, .payload_length = sizeof payload, .flags = 1};
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(journal_append(scene.queue.producer, stream, &message, NULL, 0, 0), 0);
        journal_submit(scene.queue.producer);
        journal_producer_wait(scene.queue.producer, 0); /* a group each: a segment takes whole ones */
    }
}

/* ---- clients ---- */

static struct follower_member *join_again(unsigned index, struct follower_places places, const struct follower_again *again, size_t count)
{
    struct client *client = &scene.clients[index];
    if (!client->handed)
        client->handed = calloc(HANDED_MAX, sizeof *client->handed);
    struct follower_join join = {.loop = (uint16_t)(index % 3),
                                 .connection = index,
                                 .generation = index + 7,
                                 .places = places,
                                 .again = again,
                                 .again_count = count};
    assert_int_equal(follower_join(scene.follower, &join, &client->member), 0);
    return client->member;
}

static void subscribe_how(unsigned index, const char *filter, struct follower_places from, struct router_subscription how)
{
    assert_int_equal(follower_subscribe(scene.clients[index].member, filter, strlen(filter), &how, &from), 0);
}

static void subscribe(unsigned index, const char *filter, struct follower_places from)
{
    subscribe_how(index, filter, from, (struct router_subscription){.qos = 1});
}

static void join(unsigned index, struct follower_places places, const char *filter)
{
    join_again(index, places, NULL, 0);
    subscribe(index, filter, places);
}

static void grant(unsigned index, uint64_t messages)
{
    follower_grant(scene.clients[index].member, messages, UINT64_MAX);
}

static bool wait_told(const struct timespec *until)
{
    return pthread_cond_timedwait(&scene.told, &scene.lock, until) == 0;
}

static size_t count_of(unsigned index)
{
    pthread_mutex_lock(&scene.lock);
    size_t count = scene.clients[index].count;
    pthread_mutex_unlock(&scene.lock);
    return count;
}

/* Waits until the client has been handed that many. */
static void await(unsigned index, size_t count)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += DEADLINE_S;
    bool in_time = true;
    pthread_mutex_lock(&scene.lock);
    while (scene.clients[index].count < count && in_time)
        in_time = wait_told(&until);
    size_t have = scene.clients[index].count;
    pthread_mutex_unlock(&scene.lock);
    assert_int_equal(have, count);
}

static struct follower_places passed(unsigned index, uint64_t *handed)
{
    struct follower_places places;
    uint64_t count;
    follower_passed(scene.clients[index].member, &count, &places);
    if (handed)
        *handed = count;
    return places;
}

static void await_passed(unsigned index, unsigned content, uint64_t offset)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DEADLINE_S * UINT64_C(1000000000);
    while (passed(index, NULL).at[content] < offset) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        usleep(200);
    }
}

/* Waits until the member has passed the end of all streams. */
static void await_end(unsigned index)
{
    struct follower_places goal = ends();
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        await_passed(index, i, goal.at[i]);
}

/* Whether the client was handed [from, to) of a stream, each once and in order, and nothing else. */
static void assert_handed(unsigned index, unsigned content, uint64_t from, uint64_t to)
{
    const struct client *client = &scene.clients[index];
    assert_int_equal(client->count, to - from);
    for (size_t i = 0; i < client->count; i++) {
        assert_int_equal(client->handed[i].content, content);
        assert_int_equal(client->handed[i].offset, from + i);
    }
}

static struct follower_status status(void)
{
    struct follower_status now;
    follower_status(scene.follower, &now);
    return now;
}

/* ---- order, places, room ---- */

static const struct follower_places nowhere; /* the beginning */

static void what_matches_is_handed_from_every_stream(void **state)
{
    (void)state;
    append(KEPT, "a/before", 1, 0);
    settle();
    join(0, ends(), "a/#");
    grant(0, PLENTY);
    append(CONSUMED, "a/x", 1, 0);
    append(KEPT, "a/y", 2, 4);
    append(KEPT, "b/y", 1, 0);
    append(KEPT, "a/0", 0, 0);
    append(KEPT, "a/retained", 1 | MESSAGE_RETAIN, 5);
    append(RESULTS, "answer", 1, 0);
    append(RESULTS, "answer", 1 | MESSAGE_WITHHELD, 0);
    settle();
    await(0, 3);
    await_end(0);
    subscribe(0, "answer", ends());
    append(RESULTS, "answer", 2, 0);
    append(RESULTS, "answer", 2 | MESSAGE_WITHHELD, 0);
    append(RESULTS, "answer", 0, 0);
    settle();
    await(0, 4);
    await_end(0);
    const struct client *client = &scene.clients[0];
    unsigned per_content[FOLLOWER_CONTENTS] = {0};
    for (size_t i = 0; i < client->count; i++) {
        per_content[client->handed[i].content]++;
        assert_int_equal(client->handed[i].qos, 1); /* the subscription's */
        assert_false(client->handed[i].again);
        if (client->handed[i].content == KEPT)
            assert_int_equal(client->handed[i].origin, client->handed[i].offset == 1 ? 4 : 5);
    }
    assert_int_equal(per_content[CONSUMED], 1);
    assert_int_equal(per_content[KEPT], 2);
    assert_true(per_content[RESULTS] == 1);
    uint64_t handed;
    passed(0, &handed);
    assert_int_equal(handed, 4);
    assert_int_equal(status().handed, 4);
    assert_int_equal(status().members, 1);
}

static void a_member_without_room_waits_at_its_place(void **state)
{
    (void)state;
    append_many(KEPT, "t", 100);
    join(0, nowhere, "t");
    join(1, nowhere, "t");
    grant(1, PLENTY);
    await(1, 100);
    assert_int_equal(count_of(0), 0);
    assert_int_equal(passed(0, NULL).at[KEPT], 0);
    for (uint64_t room = 1; room <= 100; room += 9) {
        grant(0, room);
        await(0, room);
        await_passed(0, KEPT, room);
    }
    append_many(KEPT, "t", 10);
    await(1, 110);
    await_passed(0, KEPT, 100);
    assert_int_equal(passed(0, NULL).at[KEPT], 100);
    assert_int_equal(count_of(0), 100);
    grant(0, PLENTY);
    await(0, 110);
    assert_handed(0, KEPT, 0, 110);
    assert_handed(1, KEPT, 0, 110);
}

static void bytes_are_room_too(void **state)
{
    (void)state;
    append_many(KEPT, "t", 20); /* of 9 bytes */
    join(0, nowhere, "t");
    follower_grant(scene.clients[0].member, PLENTY, 9 * 5);
    await(0, 5);
    follower_grant(scene.clients[0].member, PLENTY, 9 * 7 + 1);
    await(0, 8);
    append_many(KEPT, "t", 1);
    assert_int_equal(count_of(0), 8);
    follower_grant(scene.clients[0].member, 12, UINT64_MAX);
    await(0, 12);
    follower_grant(scene.clients[0].member, PLENTY, UINT64_MAX);
    await(0, 21);
    assert_handed(0, KEPT, 0, 21);
}

static void *produce(void *context)
{
    unsigned count = *(unsigned *)context;
    for (unsigned i = 0; i < count; i++) {
        append(KEPT, i % 2 ? "t/odd" : "t/even", 1, 0);
        if (i % 40 == 39)
            submit();
    }
    submit();
    return NULL;
}

/* While a producer appends. */
static void members_at_many_places_all_get_all(void **state)
{
    (void)state;
    enum { COUNT = 20000, CLIENTS = 24 };
    unsigned count = COUNT / 2;
    produce(&count);
    settle();
    pthread_t producer;
    assert_int_equal(pthread_create(&producer, NULL, produce, &count), 0);
    uint64_t from[CLIENTS];
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct follower_places places = ends();
        if (i % 3)
            places.at[KEPT] = (uint64_t)i * 400;
        from[i] = places.at[KEPT];
        join(i, places, "t/+");
        grant(i, i % 2 ? PLENTY : 700);
    }
    for (unsigned i = 0; i < CLIENTS; i += 2)
        for (uint64_t room = 700; room < COUNT; room += 2300) {
            grant(i, room);
            await(i, room < COUNT - from[i] ? room : COUNT - from[i]);
        }
    pthread_join(producer, NULL);
    settle();
    for (unsigned i = 0; i < CLIENTS; i++) {
        grant(i, PLENTY);
        await(i, COUNT - from[i]);
        await_end(i);
        assert_handed(i, KEPT, from[i], COUNT);
    }
    assert_int_equal(status().sweeps, 0); /* all have met */
}

/* Each has a place of its own, too far from the others' to share a sweep. Half of them stand still at once. */
static void more_members_behind_than_sweeps_all_get_their_turn(void **state)
{
    (void)state;
    enum { REGIONS = FOLLOWER_SWEEPS_MAX + 4, APART = 4200, COUNT = REGIONS * APART, EVERY = 50, CLIENTS = 2 * REGIONS };
    static uint8_t payload[500]; /* so that a sweep has more than its turns before it meets the next */
    for (unsigned i = 0; i < COUNT; i++) {
        struct message message = {
            .topic = i % EVERY ? "o" : "t", .topic_length = 1, .payload = payload, .payload_length = sizeof payload, .flags = 1};
        assert_int_equal(scene.producer->ops->append(scene.producer, QUEUE_KEPT, &message, 0), 0);
        if (i % 2000 == 1999)
            settle();
    }
    settle();
    uint64_t sweeps = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        join(i, (struct follower_places){{0, i / 2 * APART, 0}}, "t");
        grant(i, i % 2 ? PLENTY : 1);
    }
    join(CLIENTS, ends(), "t"); /* that does not wait */
    grant(CLIENTS, PLENTY);
    append_many(KEPT, "t", 1);
    await(CLIENTS, 1);
    for (unsigned i = 0; i < CLIENTS; i++) {
        uint64_t behind = status().sweeps;
        sweeps = behind > sweeps ? behind : sweeps;
        await(i, i % 2 ? (COUNT - i / 2 * APART) / EVERY + 1 : 1);
    }
    assert_in_range(sweeps, 1, FOLLOWER_SWEEPS_MAX);
    for (uint64_t room = 10; room <= 70; room += 30)
        for (unsigned i = 0; i < CLIENTS; i += 2)
            grant(i, room);
    for (unsigned i = 0; i < CLIENTS; i += 2) {
        await(i, 70);
        grant(i, PLENTY);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        uint64_t first = i / 2 * APART, expected = (COUNT - first) / EVERY;
        await(i, expected + 1);
        for (unsigned k = 0; k <= expected; k++)
            assert_int_equal(scene.clients[i].handed[k].offset, first + (uint64_t)k * EVERY);
    }
}

/* ---- what is wanted again ---- */

static void what_is_wanted_again_comes_first_and_in_order(void **state)
{
    (void)state;
    append_many(CONSUMED, "c", 50);
    append_many(KEPT, "k", 20000);
    const struct follower_again again[] = {{3, CONSUMED, 2}, {7, CONSUMED, 1}, {0, KEPT, 1},
                                           {5, KEPT, 2},     {17000, KEPT, 2}, {17001, KEPT, 1}};
    struct follower_places places = {{40, 19990, 0}};
    join_again(0, places, again, 6);
    subscribe(0, "k", nowhere); /* not to "c" */
    assert_int_equal(passed(0, NULL).at[CONSUMED], 3);
    assert_int_equal(passed(0, NULL).at[KEPT], 0);
    grant(0, 2);
    await(0, 2);
    await_passed(0, CONSUMED, 40);
    assert_int_equal(passed(0, NULL).at[CONSUMED], 40);
    assert_int_equal(passed(0, NULL).at[KEPT], 0);
    grant(0, 5);
    await(0, 5);
    await_passed(0, KEPT, 17001);
    grant(0, PLENTY);
    await(0, 16);
    await_end(0);
    const struct client *client = &scene.clients[0];
    for (unsigned i = 0; i < 6; i++) {
        assert_true(client->handed[i].again);
        assert_int_equal(client->handed[i].offset, again[i].offset);
        assert_int_equal(client->handed[i].content, again[i].content);
        assert_int_equal(client->handed[i].qos, again[i].qos);
    }
    for (unsigned i = 6; i < 16; i++) {
        assert_false(client->handed[i].again);
        assert_int_equal(client->handed[i].offset, 19990 + i - 6);
    }
    assert_int_equal(status().gone, 0);
    assert_true(status().read < 19000); /* it did not read all between */
}

/* Of the kept stream the first segments are removed. */
static void what_is_gone_is_passed_over(void **state)
{
    (void)state;
    append_segments(scene.queue.kept);
    struct retention_trim half = {.before = 5, .until_ns = UINT64_MAX};
    struct journal_trimmed trimmed;
    assert_int_equal(journal_stream_trim(scene.queue.kept, &half, false, &trimmed), 0);
    free(trimmed.bases);
    uint64_t left = trimmed.first_offset;
    assert_in_range(left, 1, 5);
    const struct follower_again again[] = {{0, KEPT, 1}, {left - 1, KEPT, 1}, {left, KEPT, 2}, {7, KEPT, 1}, {100, KEPT, 1}};
    join_again(0, (struct follower_places){{0, 8, 0}}, again, 5);
    grant(0, PLENTY);
    await(0, 2);
    await_end(0);
    assert_int_equal(scene.clients[0].handed[0].offset, left);
    assert_int_equal(scene.clients[0].handed[1].offset, 7);
    assert_int_equal(status().gone, left == 1 ? 3 : 3);
    join(1, nowhere, "#"); /* a place that is gone is no error */
    grant(1, PLENTY);
    await(1, 8 - left);
    assert_handed(1, KEPT, left, 8);
}

static void many_want_something_again_at_once(void **state)
{
    (void)state;
    enum { CLIENTS = 2 * FOLLOWER_SWEEPS_MAX };
    append_many(KEPT, "t", 1000);
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct follower_again again[] = {{i, KEPT, 1}, {i + 1, KEPT, 1}, {i + 500, KEPT, 2}};
        join_again(i, (struct follower_places){{0, 900, 0}}, again, 3);
        subscribe(i, "t", nowhere);
        grant(i, 1); /* each stands still behind its first */
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        await(i, 1);
    for (unsigned i = 0; i < CLIENTS; i += 2)
        follower_leave(scene.clients[i].member);
    for (unsigned i = 1; i < CLIENTS; i += 2)
        grant(i, PLENTY);
    for (unsigned i = 1; i < CLIENTS; i += 2) {
        await(i, 103);
        await_end(i);
        const uint64_t first[] = {i, i + 1, i + 500};
        for (unsigned k = 0; k < 103; k++)
            assert_int_equal(scene.clients[i].handed[k].offset, k < 3 ? first[k] : 900 + k - 3);
    }
    assert_int_equal(status().members, CLIENTS / 2);
}

/* ---- subscriptions ---- */

static void a_subscription_begins_at_its_place(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 100; i++)
        append(KEPT, i % 2 ? "odd" : "even", 1, 0);
    settle();
    join(0, nowhere, "odd");
    subscribe(0, "even", (struct follower_places){{0, 50, 0}});
    subscribe(0, "later", (struct follower_places){{0, 1000, 0}});
    subscribe(0, "even", (struct follower_places){{0, 60, 0}}); /* keeps the lesser */
    join(1, nowhere, "odd");
    subscribe(1, "even", (struct follower_places){{0, 60, 0}});
    subscribe(1, "even", (struct follower_places){{0, 50, 0}});
    grant(0, PLENTY);
    grant(1, PLENTY);
    for (unsigned c = 0; c < 2; c++) {
        await(c, 75);
        await_end(c);
        for (unsigned i = 0; i < 75; i++)
            assert_int_equal(scene.clients[c].handed[i].offset, i < 25 ? 2 * i + 1 : 25 + i);
    }
    append_many(KEPT, "later", 905);
    await(0, 80);
    assert_int_equal(scene.clients[0].handed[75].offset, 1000);
}

static void what_becomes_durable_after_a_subscription_is_not_missed(void **state)
{
    (void)state;
    join(0, ends(), "other");
    grant(0, PLENTY);
    for (unsigned i = 0; i < 200; i++) {
        char topic[32];
        snprintf(topic, sizeof topic, "t/%u", i);
        append_many(KEPT, "noise", 50);
        subscribe(0, topic, ends());
        append_many(KEPT, topic, 1);
        await(0, i + 1);
    }
}

static void the_last_subscription_to_a_filter_counts(void **state)
{
    (void)state;
    join_again(0, nowhere, NULL, 0);
    subscribe_how(0, "a/+", nowhere, (struct router_subscription){.qos = 1, .identifier = 10});
    subscribe_how(0, "a/#", nowhere, (struct router_subscription){.qos = 1, .identifier = 100, .options = ROUTER_RETAIN_AS_PUBLISHED});
    grant(0, PLENTY);
    append_many(KEPT, "a/b", 1);
    await(0, 1);
    subscribe_how(0, "a/+", nowhere, (struct router_subscription){.qos = 2, .identifier = 20});
    append_many(KEPT, "a/b", 1);
    await(0, 2);
    assert_int_equal(follower_unsubscribe(scene.clients[0].member, "a/#", 3), 0);
    assert_int_equal(follower_unsubscribe(scene.clients[0].member, "a/none", 6), 0);
    append_many(KEPT, "a/b", 1);
    await(0, 3);
    assert_int_equal(follower_unsubscribe(scene.clients[0].member, "a/+", 3), 0);
    append_many(KEPT, "a/b", 1);
    subscribe_how(0, "a/+", ends(), (struct router_subscription){.qos = 1, .identifier = 30});
    append_many(KEPT, "a/b", 1);
    await(0, 4);
    const struct handed *handed = scene.clients[0].handed;
    assert_int_equal(handed[0].identifier, 110);
    assert_int_equal(handed[0].qos, 1);
    assert_true(handed[0].options & ROUTER_RETAIN_AS_PUBLISHED);
    assert_int_equal(handed[1].identifier, 120);
    assert_int_equal(handed[1].qos, 2);
    assert_int_equal(handed[2].identifier, 20);
    assert_int_equal(handed[2].offset, 2);
    assert_int_equal(handed[3].identifier, 30);
    assert_int_equal(handed[3].offset, 4);
}

static void a_filter_that_is_none_hurts_nobody(void **state)
{
    (void)state;
    join(0, nowhere, "t/#/none");
    subscribe(0, "t", nowhere);
    grant(0, PLENTY);
    append_many(KEPT, "t", 3);
    await(0, 3);
}

static void who_has_left_is_handed_nothing(void **state)
{
    (void)state;
    enum { CLIENTS = 40 };
    append_many(KEPT, "t", 2000);
    for (unsigned i = 0; i < CLIENTS; i++) {
        join(i, (struct follower_places){{0, i, 0}}, "t");
        grant(i, i % 4 == 1 ? 5 : PLENTY);
    }
    for (unsigned i = 1; i < CLIENTS; i += 2)
        follower_leave(scene.clients[i].member);
    for (unsigned i = 0; i < CLIENTS; i += 2)
        await(i, 2000 - i);
    while (status().members != CLIENTS / 2)
        sched_yield();
    uint64_t handed[CLIENTS];
    for (unsigned i = 1; i < CLIENTS; i += 2)
        handed[i] = count_of(i);
    append_many(KEPT, "t", 100);
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (i % 2)
            assert_int_equal(count_of(i), handed[i]);
        else
            await(i, 2100 - i);
    }
}

/* ---- the receiver ---- */

static void what_was_refused_is_offered_again_to_that_loop_alone(void **state)
{
    (void)state;
    scene.refused_loop = 1;
    scene.refuse = UINT32_MAX;
    for (unsigned i = 0; i < 3; i++) { /* of three loops */
        join(i, nowhere, "t");
        grant(i, PLENTY);
    }
    append_many(KEPT, "t", 10);
    await(0, 1);
    join(3, nowhere, "t"); /* of the first loop, and at a place of its own */
    grant(3, PLENTY);
    pthread_mutex_lock(&scene.lock);
    uint64_t refused = scene.refused;
    while (scene.refused < refused + 3)
        pthread_cond_wait(&scene.told, &scene.lock);
    assert_int_equal(scene.clients[1].count, 0);
    assert_true(scene.clients[0].count <= 1);
    scene.refuse = 0;
    pthread_mutex_unlock(&scene.lock);
    for (unsigned i = 0; i < 4; i++) {
        await(i, 10);
        await_end(i);
        assert_handed(i, KEPT, 0, 10);
    }
    scene.refused_loop = UINT32_MAX;
    pthread_mutex_lock(&scene.lock);
    scene.refuse = 7;
    pthread_mutex_unlock(&scene.lock);
    const struct follower_again again[] = {{4, KEPT, 1}};
    join_again(5, (struct follower_places){{0, 9, 0}}, again, 1);
    subscribe(5, "t", nowhere);
    grant(5, PLENTY);
    await(5, 2);
    assert_int_equal(scene.clients[5].handed[0].offset, 4);
    assert_int_equal(scene.clients[5].handed[1].offset, 9);
}

static void at_idle_the_thread_sleeps(void **state)
{
    (void)state;
    join(0, nowhere, "t");
    join(1, nowhere, "t");
    grant(0, PLENTY);
    grant(1, 3); /* stands still */
    append_many(KEPT, "t", 100);
    await(0, 100);
    await_end(0);
    clockid_t clock;
    struct timespec before, after;
    assert_int_equal(pthread_getcpuclockid(scene.follower_thread, &clock), 0);
    usleep(20000);
    clock_gettime(clock, &before);
    usleep(300000);
    clock_gettime(clock, &after);
    int64_t used_ns = (after.tv_sec - before.tv_sec) * INT64_C(1000000000) + after.tv_nsec - before.tv_nsec;
    assert_in_range(used_ns, 0, 15000000);
}

/* ---- at random, beside a model ---- */

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
        cmocka_unit_test_setup_teardown(what_matches_is_handed_from_every_stream, begin, end),
        cmocka_unit_test_setup_teardown(a_member_without_room_waits_at_its_place, begin, end),
        cmocka_unit_test_setup_teardown(bytes_are_room_too, begin, end),
        cmocka_unit_test_setup_teardown(members_at_many_places_all_get_all, begin, end),
        cmocka_unit_test_setup_teardown(more_members_behind_than_sweeps_all_get_their_turn, begin, end),
        cmocka_unit_test_setup_teardown(what_is_wanted_again_comes_first_and_in_order, begin, end),
        cmocka_unit_test_setup_teardown(what_is_gone_is_passed_over, begin, end),
        cmocka_unit_test_setup_teardown(many_want_something_again_at_once, begin, end),
        cmocka_unit_test_setup_teardown(a_subscription_begins_at_its_place, begin, end),
        cmocka_unit_test_setup_teardown(what_becomes_durable_after_a_subscription_is_not_missed, begin, end),
        cmocka_unit_test_setup_teardown(the_last_subscription_to_a_filter_counts, begin, end),
        cmocka_unit_test_setup_teardown(a_filter_that_is_none_hurts_nobody, begin, end),
        cmocka_unit_test_setup_teardown(who_has_left_is_handed_nothing, begin, end),
        cmocka_unit_test_setup_teardown(what_was_refused_is_offered_again_to_that_loop_alone, begin, end),
        cmocka_unit_test_setup_teardown(at_idle_the_thread_sleeps, begin, end),
        cmocka_unit_test_setup_teardown(random_scenes_are_as_the_model_says, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
