/* A follower on the journal of an embedded queue, with clients that note what they are handed. */
#ifndef TESTS_UNIT_FOLLOWER_SCENE_H
#define TESTS_UNIT_FOLLOWER_SCENE_H

#include "embedded_fixture.h"

#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "sessions/follower.h"

enum { MEMBERS_MAX = 160, HANDED_MAX = 60000, PLENTY = 1 << 30, DEADLINE_S = 240, CONSUMED = 0, KEPT = 1, RESULTS = 2 };

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

static inline bool take(void *context, const struct follower_delivery *delivery)
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

static inline void start_follower(void)
{
    struct follower_options options = {.queue = scene.queue.queue, .deliver = take};
    assert_int_equal(follower_start(&scene.follower, &options), 0);
}

static inline int begin(void **state)
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

static inline int end(void **state)
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

static inline uint64_t end_of(unsigned content)
{
    uint64_t first, next;
    scene.queue.queue->ops->extent(scene.queue.queue, follower_contents[content], &first, &next);
    return next;
}

static inline struct follower_places ends(void)
{
    return (struct follower_places){{end_of(CONSUMED), end_of(KEPT), end_of(RESULTS)}};
}

static inline void append(unsigned content, const char *topic, uint8_t flags, uint64_t session)
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

static inline void submit(void)
{
    scene.producer->ops->submit(scene.producer);
}

/* Waits until what was appended is durable. */
static inline void settle(void)
{
    submit();
    flush(&scene.queue);
    scene.producer->ops->close(scene.producer);
    assert_int_equal(scene.queue.queue->ops->producer_open(scene.queue.queue, no_notice, NULL, &scene.producer), 0);
}

static inline void append_many(unsigned content, const char *topic, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        append(content, topic, 1, 0);
        if (i % 500 == 499)
            submit();
    }
    settle();
}

static inline void append_segments(struct journal_stream *stream)
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

static inline struct follower_member *join_again(unsigned index, struct follower_places places, const struct follower_again *again,
                                                 size_t count)
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

static inline void subscribe_how(unsigned index, const char *filter, struct follower_places from, struct router_subscription how)
{
    assert_int_equal(follower_subscribe(scene.clients[index].member, filter, strlen(filter), &how, &from), 0);
}

static inline void subscribe(unsigned index, const char *filter, struct follower_places from)
{
    subscribe_how(index, filter, from, (struct router_subscription){.qos = 1});
}

static inline void join(unsigned index, struct follower_places places, const char *filter)
{
    join_again(index, places, NULL, 0);
    subscribe(index, filter, places);
}

static inline void grant(unsigned index, uint64_t messages)
{
    follower_grant(scene.clients[index].member, messages, UINT64_MAX);
}

static inline bool wait_told(const struct timespec *until)
{
    return pthread_cond_timedwait(&scene.told, &scene.lock, until) == 0;
}

static inline size_t count_of(unsigned index)
{
    pthread_mutex_lock(&scene.lock);
    size_t count = scene.clients[index].count;
    pthread_mutex_unlock(&scene.lock);
    return count;
}

/* Waits until the client has been handed that many. */
static inline void await(unsigned index, size_t count)
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

static inline struct follower_places passed(unsigned index, uint64_t *handed)
{
    struct follower_places places;
    uint64_t count;
    follower_passed(scene.clients[index].member, &count, &places);
    if (handed)
        *handed = count;
    return places;
}

static inline void await_passed(unsigned index, unsigned content, uint64_t offset)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DEADLINE_S * UINT64_C(1000000000);
    while (passed(index, NULL).at[content] < offset) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        usleep(200);
    }
}

/* Waits until the member has passed the end of all streams. */
static inline void await_end(unsigned index)
{
    struct follower_places goal = ends();
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        await_passed(index, i, goal.at[i]);
}

/* Whether the client was handed [from, to) of a stream, each once and in order, and nothing else. */
static inline void assert_handed(unsigned index, unsigned content, uint64_t from, uint64_t to)
{
    const struct client *client = &scene.clients[index];
    assert_int_equal(client->count, to - from);
    for (size_t i = 0; i < client->count; i++) {
        assert_int_equal(client->handed[i].content, content);
        assert_int_equal(client->handed[i].offset, from + i);
    }
}

static inline struct follower_status status(void)
{
    struct follower_status now;
    follower_status(scene.follower, &now);
    return now;
}

static const struct follower_places nowhere; /* the beginning */

#endif
