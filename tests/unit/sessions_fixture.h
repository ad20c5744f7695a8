/* Persistent sessions on a stepped journal of a simulated disk, with a queue whose holds are noted. */
#ifndef TESTS_UNIT_SESSIONS_FIXTURE_H
#define TESTS_UNIT_SESSIONS_FIXTURE_H

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "queue/embedded.h"
#include "sessions/sessions.h"
#include "simulated_disk.h"

enum { STREAM_SESSIONS, STREAM_INGEST, STREAM_BUS, STREAM_RESULTS, STREAM_DEAD, STREAM_OUTCOMES, STREAM_COUNT };

struct fixture {
    const char *folder; /* a journal with threads on the real disk there; NULL: as is said above */
    struct simulated_disk *disk;
    struct journal *journal;
    struct journal_stream *streams[STREAM_COUNT];
    struct queue *embedded;
    struct queue queue; /* `embedded`, but for its hold */
    struct queue_ops ops;
    struct queue_producer *producer;
    struct sessions *sessions;
    struct sessions_options options; /* for the next start */
    uint64_t disk_free_min;          /* of the journal; 0: none */
    unsigned short_looks;            /* the disk is short until it was asked so often; 0: it does not change */
    uint64_t held[FOLLOWER_CONTENTS];
    _Atomic unsigned notices;
};

static struct fixture *holding; /* the one whose queue is held */

static inline void no_notice(void *context)
{
    (void)context;
}

static inline void count_notice(void *context)
{
    struct fixture *f = context;
    f->notices++;
}

static inline void note_hold(struct queue *queue, enum queue_content content, enum queue_holder holder, uint64_t offset)
{
    struct fixture *f = holding;
    assert_ptr_equal(queue, &f->queue);
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        if (follower_contents[i] == content)
            f->held[i] = offset;
    assert_int_equal(holder, QUEUE_HOLDER_SESSIONS);
    f->embedded->ops->hold(f->embedded, content, holder, offset);
}

static inline int pass_view(struct queue *queue, enum queue_content content, uint64_t from, struct queue_view **view)
{
    (void)queue;
    return holding->embedded->ops->view_open(holding->embedded, content, from, view);
}

static inline void pass_extent(struct queue *queue, enum queue_content content, uint64_t *first, uint64_t *next)
{
    (void)queue;
    holding->embedded->ops->extent(holding->embedded, content, first, next);
}

/* Each look at the clock is a look at the disk's space later (space.h). */
static inline uint64_t read_late(void)
{
    static uint64_t late_ns = 1000000000000;
    return late_ns += 2 * SPACE_LOOK_MS * UINT64_C(1000000);
}

static const struct journal_clock late_clock = {clock_wall_ns, read_late};

enum { FIXTURE_FREE_MIN = 4 << 20, FIXTURE_DISK_MB = 1000 };

/* From now on the disk is short, but not spent, until it was asked `looks` times; then there is room. */
static inline void make_short(struct fixture *f, unsigned looks)
{
    f->short_looks = looks;
    simulated_disk_set_space(f->disk, FIXTURE_FREE_MIN - 1, (uint64_t)FIXTURE_DISK_MB << 20);
}

static inline void look_at_space(struct fixture *f, const struct simulated_call *call)
{
    if (call->kind == SIMULATED_SPACE && f->short_looks && --f->short_looks == 0)
        simulated_disk_set_space(f->disk, (uint64_t)FIXTURE_DISK_MB << 20, (uint64_t)FIXTURE_DISK_MB << 20);
}

static inline int look_before_call(void *context, const struct simulated_call *call)
{
    look_at_space(context, call);
    return 0;
}

/* Returns what sessions_open does. */
static inline int try_start(struct fixture *f)
{
    static const char *const names[STREAM_COUNT] = {"sessions", "ingest", "bus", "results", "dead-letters", "outcomes"};
    if (!f->disk && !f->folder)
        f->disk = simulated_disk_create(1);
    const char *folder = f->folder ? f->folder : "/data";
    struct journal_options journal = {.disk = f->folder ? disk_posix() : simulated_disk_table(f->disk),
                                      .folder = folder,
                                      .segment_size = 64 << 10,
                                      .disk_free_min = f->disk_free_min,
                                      .clock = f->disk_free_min ? &late_clock : NULL,
                                      .stepped = !f->folder};
    assert_int_equal(journal_open(&f->journal, &journal), 0);
    for (unsigned i = 0; i < STREAM_COUNT; i++) {
        struct journal_stream_options stream = {.name = names[i],
                                                .scribe = i >= STREAM_RESULTS,
                                                .retention_size = i != STREAM_DEAD,
                                                .guarded = i != STREAM_DEAD,
                                                .pressing = i == STREAM_SESSIONS};
        assert_int_equal(journal_stream_add(f->journal, &stream, &f->streams[i]), 0);
    }
    struct queue_embedded_options queue = {.journal = f->journal,
                                           .data_folder = folder,
                                           .ingest = f->streams[STREAM_INGEST],
                                           .kept = f->streams[STREAM_BUS],
                                           .results = f->streams[STREAM_RESULTS],
                                           .dead_letters = f->streams[STREAM_DEAD],
                                           .outcomes = f->streams[STREAM_OUTCOMES],
                                           .holders = 1 << QUEUE_HOLDER_SESSIONS};
    assert_int_equal(queue_embedded_open(&f->embedded, &queue), 0);
    assert_int_equal(journal_start(f->journal), 0);
    assert_int_equal(f->embedded->ops->producer_open(f->embedded, no_notice, NULL, &f->producer), 0);
    holding = f;
    f->ops = *f->embedded->ops;
    f->ops.hold = note_hold;
    f->ops.view_open = pass_view;
    f->ops.extent = pass_extent;
    f->queue.ops = &f->ops;
    f->options.queue = &f->queue;
    f->options.journal = f->journal;
    f->options.stream = f->streams[STREAM_SESSIONS];
    f->options.notify = count_notice;
    f->options.context = f;
    f->sessions = NULL;
    return sessions_open(&f->options, &f->sessions);
}

static inline void start(struct fixture *f)
{
    assert_int_equal(try_start(f), 0);
}

/* What was sent off is durable then. */
static inline void step(struct fixture *f)
{
    while (journal_step_group(f->journal))
        continue;
    while (journal_step_keeper(f->journal))
        continue;
}

static inline void settle(struct fixture *f)
{
    sessions_flush(f->sessions);
    f->producer->ops->submit(f->producer);
    step(f);
}

/* The process is gone, with what it had not written. */
static inline void kill_process(struct fixture *f)
{
    if (f->disk)
        simulated_disk_kill(f->disk);
    sessions_close(f->sessions);
    f->producer->ops->close(f->producer);
    journal_stop(f->journal);
    f->embedded->ops->close(f->embedded);
    journal_close(f->journal);
    if (f->disk)
        simulated_disk_revive(f->disk);
    f->sessions = NULL;
}

static inline void again(struct fixture *f)
{
    settle(f);
    kill_process(f);
    start(f);
}

static inline void finish(struct fixture *f)
{
    kill_process(f);
    simulated_disk_destroy(f->disk);
    f->disk = NULL;
}

/* ---- what clients do ---- */

static const struct session_owner somebody = {1, 2, 3};

static inline struct session *create(struct fixture *f, const char *id)
{
    struct session *session = NULL;
    assert_int_equal(sessions_create(f->sessions, id, strlen(id), "", &somebody, &session), 0);
    assert_non_null(session);
    assert_true(session_number(session) != 0 && session_number(session) % 2 == 0);
    return session;
}

static inline enum sessions_found attach_as(struct fixture *f, const char *id, const char *user, bool fresh, struct session **session)
{
    struct session_owner owner = {4, 5, 6};
    return sessions_attach(f->sessions, id, strlen(id), user, fresh, clock_wall_ns(), &owner, session);
}

static inline struct session *attach(struct fixture *f, const char *id)
{
    struct session *session = NULL;
    assert_int_equal(attach_as(f, id, "", false, &session), SESSIONS_ATTACHED);
    return session;
}

static inline uint64_t subscribe(struct fixture *f, struct session *session, const char *filter, uint8_t qos)
{
    struct router_subscription how = {.qos = qos, .options = ROUTER_NO_LOCAL, .identifier = 7, .loop = 9, .connection = 9};
    uint64_t place = 0;
    const struct session_subscription *made;
    assert_int_equal(sessions_subscribe(f->sessions, session, filter, strlen(filter), &how, &made, &place), 0);
    assert_string_equal(made->filter, filter);
    assert_int_equal(made->how.qos, qos);
    assert_int_equal(made->how.loop, 0);
    return place;
}

static inline void detach(struct fixture *f, struct session *session, uint32_t expiry_s, uint64_t wall_ns)
{
    struct sessions_leave leave = {.expiry_s = expiry_s, .wall_ns = wall_ns, .next_id = 1};
    sessions_detach(f->sessions, session, &leave);
}

static inline struct sessions_status status_of(struct fixture *f)
{
    struct sessions_status status;
    sessions_status(f->sessions, &status);
    return status;
}

/* ---- what a session holds ---- */

struct seen {
    char filters[1024]; /* each with its QoS and a space behind it */
    struct session_sent sent[64];
    uint16_t taken[64];
    unsigned filter_count, sent_count, taken_count;
    struct follower_places cursor, position;
    uint16_t next_id;
};

static inline int see_filter(void *context, const struct session_subscription *subscription)
{
    struct seen *seen = context;
    size_t length = strlen(seen->filters);
    snprintf(seen->filters + length, sizeof seen->filters - length, "%s:%u ", subscription->filter, subscription->how.qos);
    seen->filter_count++;
    return 0;
}

static inline int see_sent(void *context, const struct session_sent *sent)
{
    struct seen *seen = context;
    assert_true(seen->sent_count < 64);
    seen->sent[seen->sent_count++] = *sent;
    return 0;
}

static inline int see_taken(void *context, uint16_t packet_id)
{
    struct seen *seen = context;
    assert_true(seen->taken_count < 64);
    seen->taken[seen->taken_count++] = packet_id;
    return 0;
}

static inline int by_id(const void *one, const void *other)
{
    return *(const uint16_t *)one - *(const uint16_t *)other;
}

static inline struct seen look(struct fixture *f, struct session *session)
{
    struct seen seen = {0};
    struct session_visitor visitor = {&seen, see_filter, see_sent, see_taken};
    assert_int_equal(sessions_visit(f->sessions, session, &visitor, &seen.cursor, &seen.position, &seen.next_id), 0);
    qsort(seen.taken, seen.taken_count, sizeof *seen.taken, by_id);
    return seen;
}

static inline void publish(struct fixture *f, enum queue_destination to, const struct queue_origin *origin, size_t size)
{
    static const uint8_t payload[65536];
    struct message message = {.topic = "t", .topic_length = 1, .payload = payload, .payload_length = (uint32_t)size, .flags = 2};
    assert_int_equal(f->producer->ops->append_from(f->producer, to, &message, origin, 0), 0);
}

static inline void take(struct fixture *f, struct session *session, uint16_t packet_id, enum queue_destination to)
{
    struct queue_origin origin;
    assert_int_equal(sessions_take(f->sessions, session, packet_id, &origin), 0);
    assert_true(origin.session == session_number(session) && origin.packet_id == packet_id);
    publish(f, to, &origin, 1000);
}

static inline void sent(struct fixture *f, struct session *session, uint64_t offset, uint16_t packet_id, uint8_t content)
{
    struct session_sent one = {.offset = offset, .packet_id = packet_id, .content = content, .qos = 2};
    uint64_t place = 0;
    assert_int_equal(sessions_sent(f->sessions, session, &one, &place), 0);
    assert_true(place > 0);
}

static inline void expect_taken(struct fixture *f, struct session *session, const uint16_t *ids)
{
    struct seen seen = look(f, session);
    unsigned count = 0;
    for (; ids[count]; count++)
        assert_true(count < seen.taken_count && seen.taken[count] == ids[count]);
    assert_int_equal(seen.taken_count, count);
}

static inline void release(struct fixture *f, struct session *session, uint16_t packet_id)
{
    uint64_t place = 0;
    assert_int_equal(sessions_release(f->sessions, session, packet_id, &place), 0);
    assert_true(place > 0);
}

#endif
