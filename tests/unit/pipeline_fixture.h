/* The pipeline over a queue in memory and a toy stage, with what its tests have in common. */
#ifndef TESTS_PIPELINE_FIXTURE_H
#define TESTS_PIPELINE_FIXTURE_H

#include "unit.h"

#include "base/metrics.h"
#include "fake_queue.h"
#include "pipeline/internal.h"
#include "toy_stage.h"

enum { MS = 1000000 };

struct fixture {
    struct fake_queue queue;
    struct toy toy;
    struct pipeline_options options;
    struct pipeline *pipeline;
};

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    fake_open(&f->queue);
    toy_init(&f->toy, false);
    f->options = (struct pipeline_options){.worker_count = 3,
                                           .time_window_ns = 60000ull * MS,
                                           .grace_ns = 5 * MS,
                                           .finished_sets_max = 100000,
                                           .waiting_messages_max = 100000,
                                           .held_bytes_max = 100 << 20};
    *state = f;
    return 0;
}

static inline void start(struct fixture *f)
{
    assert_int_equal(pipeline_start(&f->pipeline, &f->queue.queue, &f->toy.stage, &f->options), 0);
}

static inline void stop(struct fixture *f)
{
    assert_int_equal(pipeline_stop(f->pipeline, 30000), 0);
    pipeline_destroy(f->pipeline);
    f->pipeline = NULL;
}

/* Whatever a test did: nothing is settled twice, no equation failed, nothing is left behind. */
static inline int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->pipeline)
        stop(f);
    assert_int_equal(f->queue.double_settlements, 0);
    assert_int_equal(f->queue.broken_equations, 0);
    assert_int_equal(f->queue.batches, 0);
    assert_int_equal(f->queue.writers, 0);
    assert_int_equal(atomic_load(&f->toy.items), 0);
    toy_fini(&f->toy);
    fake_close(&f->queue);
    free(f);
    return 0;
}

static inline uint64_t accept(struct fixture *f, const char *key, char side, const char *payload)
{
    char topic[64];
    snprintf(topic, sizeof topic, "toy/%s/%c", key, side);
    return fake_accept(&f->queue, topic, payload);
}

static inline void assert_outcome(struct fixture *f, uint64_t offset, enum queue_outcome outcome, const char *reason, const char *stage)
{
    struct fake_message message = fake_look(&f->queue, offset);
    assert_int_equal(message.outcome, outcome);
    assert_string_equal(message.reason, reason);
    assert_string_equal(message.stage, stage);
}

static const char *answer_to(struct fixture *f, uint64_t offset)
{
    struct fake_message message = fake_look(&f->queue, offset);
    return message.result == UINT64_MAX ? "" : f->queue.results[message.result].payload;
}

/* Polls, because what is waited for is inside the pipeline and tells nobody. */
#define WAIT_FOR(condition)                                                                                                                \
    do {                                                                                                                                   \
        uint64_t until_ns_ = clock_monotonic_ns() + FAKE_DEADLINE_S * 1000000000ull;                                                       \
        while (!(condition)) {                                                                                                             \
            assert_true(clock_monotonic_ns() < until_ns_);                                                                                 \
            nanosleep(&(struct timespec){.tv_nsec = MS / 2}, NULL);                                                                        \
        }                                                                                                                                  \
    } while (0)

static inline uint64_t waiting_messages(struct fixture *f)
{
    return atomic_load(&f->pipeline->waiting_messages);
}

static inline uint64_t look(struct fixture *f, const unsigned *value)
{
    pthread_mutex_lock(&f->queue.lock);
    uint64_t now = *value;
    pthread_mutex_unlock(&f->queue.lock);
    return now;
}

static inline uint64_t turns_waiting(struct fixture *f)
{
    pthread_mutex_lock(&f->queue.lock);
    uint64_t now = f->queue.turns_waiting;
    pthread_mutex_unlock(&f->queue.lock);
    return now;
}

static inline uint64_t messages_read(struct fixture *f)
{
    pthread_mutex_lock(&f->queue.lock);
    uint64_t now = f->queue.read;
    pthread_mutex_unlock(&f->queue.lock);
    return now;
}

static inline unsigned depth(struct fixture *f)
{
    return scheduler_depth(&f->pipeline->scheduler);
}

static inline void accept_many(struct fixture *f, unsigned keys, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char key[16], payload[64];
        snprintf(key, sizeof key, "k%u", i % keys);
        snprintf(payload, sizeof payload, "%u - bad x", i);
        accept(f, key, 'a', payload);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
