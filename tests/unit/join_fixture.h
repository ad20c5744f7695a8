/* A join over the toy stage, with the words in which its tests are told. Times are in seconds. */
#ifndef TESTS_JOIN_FIXTURE_H
#define TESTS_JOIN_FIXTURE_H

#include "unit.h"

#include "pipeline/join.h"
#include "toy_stage.h"

enum { SECOND = 1000000000, WINDOW_S = 30, GRACE_S = 2 };

static const char *const good = "good", *const broken = "broken";

struct fixture {
    struct toy toy;
    struct join join;
    struct join_decisions out;
    uint64_t offset; /* of the next message */
    uint64_t sequence;
    int reloads;
    bool reload_fails;
    char reloaded[64];       /* what a reload gives */
    bool again, was_refused; /* of the next messages */
    bool hints;              /* the ids of the next messages are hints */
};

static inline int reload(void *context, const struct join_set *set, const struct join_member *member, struct stage_item *item)
{
    struct fixture *f = context;
    (void)set;
    f->reloads++;
    if (f->reload_fails)
        return ERR_IO;
    *item = member->item;
    item->data = strdup(f->reloaded);
    item->held_bytes = 1000;
    atomic_fetch_add(&f->toy.items, 1);
    return 0;
}

static inline void configure(struct fixture *f, enum pipeline_duplicates duplicates)
{
    struct join_options options = {
        .time_window_ns = (uint64_t)WINDOW_S * SECOND, .grace_ns = (uint64_t)GRACE_S * SECOND, .duplicates = duplicates};
    join_configure(&f->join, &options);
}

static inline int create(void **state, bool near)
{
    struct fixture *f = calloc(1, sizeof *f);
    toy_init(&f->toy, near);
    join_init(&f->join, &f->toy.stage, 1000);
    join_set_reload(&f->join, reload, f);
    configure(f, PIPELINE_DUPLICATES_IGNORE);
    *state = f;
    return 0;
}

static inline int setup(void **state)
{
    return create(state, false);
}

static inline int setup_near(void **state)
{
    return create(state, true);
}

/* Whatever a test did: nothing is left behind or counted wrong. */
static inline int teardown(void **state)
{
    struct fixture *f = *state;
    join_fini(&f->join);
    assert_int_equal(f->join.open_count, 0);
    assert_int_equal(f->join.waiting_count, 0);
    assert_int_equal(f->join.held_bytes, 0);
    assert_int_equal(atomic_load(&f->toy.items), 0);
    toy_fini(&f->toy);
    free(f);
    return 0;
}

/* Adds the next message; returns its offset. Decisions are in f->out. */
static inline uint64_t add(struct fixture *f, double at_s, const char *key, unsigned side, const char *stamp, const char *id,
                           const char *kind, const char *value)
{
    struct stage_item item = {.side = (uint8_t)side, .broken = kind == broken, .id_is_hint = f->hints};
    snprintf(item.stamp, sizeof item.stamp, "%s", stamp);
    snprintf(item.id, sizeof item.id, "%s", id);
    if (!item.broken) {
        item.data = strdup(value);
        item.held_bytes = 1000;
    }
    atomic_fetch_add(&f->toy.items, 1);
    uint32_t key_length = (uint32_t)strlen(key);
    uint64_t at_ns = (uint64_t)(at_s * SECOND);
    struct join_message message = {.key = key,
                                   .key_length = key_length,
                                   .key_hash = set_key_hash(key, key_length),
                                   .offset = f->offset++,
                                   .arrival_ns = at_ns,
                                   .origin_ns = at_ns,
                                   .again = f->again,
                                   .was_refused = f->was_refused};
    join_add(&f->join, &message, &item, &f->out);
    return message.offset;
}

static inline bool expire(struct fixture *f, double at_s)
{
    return join_expire(&f->join, (uint64_t)(at_s * SECOND), &f->out);
}

static inline double deadline_s(const struct fixture *f)
{
    uint64_t deadline = join_deadline(&f->join);
    return deadline == UINT64_MAX ? -1 : (double)deadline / SECOND;
}

static inline void assert_waits(const struct fixture *f)
{
    assert_int_equal(f->out.count, 0);
    assert_null(f->out.answer);
}

static inline void assert_settled(const struct fixture *f, unsigned index, uint64_t offset, enum queue_outcome outcome, const char *reason)
{
    assert_true(index < f->out.count);
    const struct join_settlement *settlement = &f->out.settlements[index];
    assert_int_equal(settlement->offset, offset);
    assert_int_equal(settlement->outcome, outcome);
    if (reason)
        assert_string_equal(settlement->reason, reason);
    else
        assert_null(settlement->reason);
}

static inline void assert_only(const struct fixture *f, uint64_t offset, enum queue_outcome outcome, const char *reason)
{
    assert_int_equal(f->out.count, 1);
    assert_null(f->out.answer);
    assert_settled(f, 0, offset, outcome, reason);
}

/* The answer holds these offsets by side; UINT64_MAX: nothing there. Finishes the set. */
static inline void assert_answer(struct fixture *f, uint64_t a, uint64_t b, uint64_t c)
{
    const uint64_t expected[TOY_SIDES] = {a, b, c};
    assert_non_null(f->out.answer);
    for (unsigned side = 0; side < TOY_SIDES; side++) {
        const struct join_member *member = f->out.answer->members[side];
        assert_int_equal(member ? member->offset : UINT64_MAX, expected[side]);
    }
    join_finish(&f->join, f->out.answer, f->sequence++);
    f->out.answer = NULL;
}

static const uint64_t none = UINT64_MAX;

#define TEST(name)      cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_NEAR(name) cmocka_unit_test_setup_teardown(name, setup_near, teardown)

#endif
