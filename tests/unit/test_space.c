/* The last of the disk: new messages wait for it, what was accepted is finished in it. */
#include "journal_fixture.h"

#include <errno.h>
#include <stdatomic.h>

#include "journal/space.h"
#include "simulated_disk.h"

#define SECOND_NS 1000000000ull

enum { MIB = 1 << 20, FREE_MIN = 4 * MIB };
enum { IN, OUT, PRESSING, STREAMS };

static void no_more_than_a_tenth_of_the_disk_is_kept_free(void **state)
{
    (void)state;
    struct simulated_disk *disk = simulated_disk_create(1);
    struct space space;
    simulated_disk_set_space(disk, 300 * MIB, 10000ull * MIB);
    space_look(simulated_disk_table(disk), "/", 256 * MIB, &space);
    assert_int_equal(space.least, 256 * MIB);
    assert_false(space_is_short(&space));
    simulated_disk_set_space(disk, 256 * MIB - 1, 10000ull * MIB);
    space_look(simulated_disk_table(disk), "/", 256 * MIB, &space);
    assert_true(space_is_short(&space));
    simulated_disk_set_space(disk, 5 * MIB, 48 * MIB);
    space_look(simulated_disk_table(disk), "/", 256 * MIB, &space);
    assert_int_equal(space.least, 48 * MIB / 10);
    assert_false(space_is_short(&space));
    simulated_disk_set_space(disk, 0, 48 * MIB);
    space_look(simulated_disk_table(disk), "/", 0, &space);
    assert_false(space_is_short(&space)); /* it is not asked for */
    simulated_disk_destroy(disk);
}

static int refuse_to_tell(void *context, const struct simulated_call *call)
{
    (void)context;
    return call->kind == SIMULATED_SPACE ? -ENOSYS : 0;
}

static void a_disk_that_does_not_tell_has_no_limit(void **state)
{
    (void)state;
    struct simulated_disk *disk = simulated_disk_create(1);
    struct space space;
    simulated_disk_set_space(disk, 0, 48 * MIB);
    simulated_disk_set_hooks(disk, &(struct simulated_hooks){.before = refuse_to_tell});
    space_look(simulated_disk_table(disk), "/", 256 * MIB, &space);
    assert_false(space_is_short(&space));
    simulated_disk_destroy(disk);
}

/* ---- in a journal whose turns the test makes ---- */

static _Atomic uint64_t now_ns;

static uint64_t read_now(void)
{
    return now_ns;
}

static const struct journal_clock test_clock = {read_now, read_now};

struct guarded {
    struct simulated_disk *disk;
    struct journal *journal;
    struct journal_stream *streams[STREAMS];
    struct journal_producer *producers[STREAMS];
    unsigned looks_until_room; /* 0: the disk's space does not change */
    bool abandon;              /* instead of making room */
};

static int make_room(void *context, const struct simulated_call *call)
{
    struct guarded *guarded = context;
    if (call->kind != SIMULATED_SPACE || guarded->looks_until_room == 0)
        return 0;
    struct journal_stream *in = guarded->streams[IN];
    assert_int_equal(journal_stream_durable(in), 0); /* nothing of the group is written, and ... */
    assert_true(journal_producer_backlog(guarded->producers[IN]) > 0);
    if (--guarded->looks_until_room == 0 && guarded->abandon)
        journal_abandon(guarded->journal);
    else if (guarded->looks_until_room == 0)
        simulated_disk_set_space(guarded->disk, FREE_MIN, 1000 * MIB);
    return 0;
}

static void begin(struct guarded *guarded, uint64_t free_bytes)
{
    static const char *const names[STREAMS] = {"in", "out", "pressing"};
    now_ns = 1000 * SECOND_NS;
    *guarded = (struct guarded){.disk = simulated_disk_create(1)};
    simulated_disk_set_space(guarded->disk, free_bytes, 1000 * MIB);
    struct journal_options options = {.disk = simulated_disk_table(guarded->disk),
                                      .folder = "/data",
                                      .segment_size = 64 << 20,
                                      .disk_free_min = FREE_MIN,
                                      .clock = &test_clock,
                                      .stepped = true};
    assert_int_equal(journal_open(&guarded->journal, &options), 0);
    for (unsigned i = 0; i < STREAMS; i++) {
        struct journal_stream_options named = {.name = names[i], .scribe = i == OUT, .pressing = i == PRESSING};
        assert_int_equal(journal_stream_add(guarded->journal, &named, &guarded->streams[i]), 0);
        assert_int_equal(journal_producer_open(guarded->journal, no_notice, NULL, &guarded->producers[i]), 0);
    }
    assert_int_equal(journal_start(guarded->journal), 0);
    simulated_disk_set_hooks(guarded->disk, &(struct simulated_hooks){.before = make_room, .context = guarded});
}

static void end(struct guarded *guarded)
{
    for (unsigned i = 0; i < STREAMS; i++)
        journal_producer_close(guarded->producers[i]);
    journal_close(guarded->journal);
    simulated_disk_destroy(guarded->disk);
}

static void post(struct guarded *guarded, unsigned stream, size_t payload_bytes)
{
    static const uint8_t payload[SPACE_LOOK_BYTES];
    struct message message = {.topic = "t", .topic_length = 1, .payload = payload, .payload_length = (uint32_t)payload_bytes};
    assert_int_equal(journal_append(guarded->producers[stream], guarded->streams[stream], &message, NULL, 0, 0), 0);
    journal_submit(guarded->producers[stream]);
}

static void what_arrives_waits_until_there_is_room_again(void **state)
{
    (void)state;
    struct guarded guarded;
    struct journal_stats stats;
    begin(&guarded, FREE_MIN - 1);
    journal_stats(guarded.journal, &stats);
    assert_true(space_is_short(&stats.space));
    guarded.looks_until_room = 5;
    post(&guarded, IN, 100);
    assert_true(journal_step_group(guarded.journal));
    assert_int_equal(guarded.looks_until_room, 0);
    assert_int_equal(journal_stream_durable(guarded.streams[IN]), 1);
    journal_stats(guarded.journal, &stats);
    assert_false(space_is_short(&stats.space) || stats.stalled);
    end(&guarded);
}

static void what_was_accepted_is_finished_in_what_is_left(void **state)
{
    (void)state;
    struct guarded guarded;
    begin(&guarded, 0);
    unsigned looks = simulated_disk_space_looks(guarded.disk);
    post(&guarded, OUT, 100);
    assert_true(journal_step_group(guarded.journal));
    assert_int_equal(journal_stream_durable(guarded.streams[OUT]), 1);
    assert_int_equal(simulated_disk_space_looks(guarded.disk), looks);
    end(&guarded);
}

static void who_waits_for_room_can_be_given_up(void **state)
{
    (void)state;
    struct guarded guarded;
    begin(&guarded, 0);
    guarded.looks_until_room = 3;
    guarded.abandon = true;
    post(&guarded, IN, 100);
    assert_true(journal_step_group(guarded.journal));
    assert_int_equal(journal_stream_durable(guarded.streams[IN]), 0);
    assert_int_equal(journal_producer_backlog(guarded.producers[IN]), 0);
    post(&guarded, IN, 100); /* comes after what was given up */
    post(&guarded, OUT, 100);
    assert_true(journal_step_group(guarded.journal));
    assert_int_equal(journal_stream_durable(guarded.streams[IN]), 0);
    assert_int_equal(journal_producer_backlog(guarded.producers[IN]), 0);
    assert_int_equal(journal_stream_durable(guarded.streams[OUT]), 1); /* who does not wait goes on */
    end(&guarded);
}

static void what_is_pressing_overtakes_what_waits(void **state)
{
    (void)state;
    struct guarded guarded;
    struct journal_stats stats;
    struct fixture passed = {0};
    begin(&guarded, FREE_MIN / SPACE_PRESSING_SHARE);
    struct journal_producer *fences;
    assert_int_equal(journal_producer_open(guarded.journal, no_notice, NULL, &fences), 0);
    post(&guarded, PRESSING, 100);
    assert_true(journal_step_group(guarded.journal));
    journal_stats(guarded.journal, &stats);
    assert_false(stats.stalled); /* nobody waits */
    for (unsigned i = 0; i < 3; i++) {
        post(&guarded, IN, 100);
        assert_int_equal(journal_fence(fences, guarded.streams[IN], i + 1), 0);
        post(&guarded, PRESSING, 100);
        assert_true(journal_step_group(guarded.journal));
        assert_int_equal(journal_stream_durable(guarded.streams[PRESSING]), i + 2);
        assert_int_equal(journal_stream_durable(guarded.streams[IN]), 0);
        journal_stats(guarded.journal, &stats);
        assert_true(stats.stalled);
    }
    journal_producer_poll(fences, count_tokens, &passed);
    assert_int_equal(passed.tokens, 0);
    guarded.looks_until_room = 2;
    assert_true(journal_step_group(guarded.journal));
    assert_int_equal(journal_stream_durable(guarded.streams[IN]), 3);
    journal_producer_poll(fences, count_tokens, &passed);
    assert_int_equal(passed.tokens, 3);
    journal_stats(guarded.journal, &stats);
    assert_false(stats.stalled);
    assert_int_equal(journal_fence(fences, guarded.streams[IN], 4), 0); /* alone */
    assert_true(journal_step_group(guarded.journal));
    journal_producer_poll(fences, count_tokens, &passed);
    assert_int_equal(passed.tokens, 4);
    journal_producer_close(fences);
    end(&guarded);
}

static int make_room_for_what_presses(void *context, const struct simulated_call *call)
{
    struct guarded *guarded = context;
    if (call->kind != SIMULATED_SPACE)
        return 0;
    assert_int_equal(journal_stream_durable(guarded->streams[PRESSING]), 0);
    if (--guarded->looks_until_room == 0)
        simulated_disk_set_space(guarded->disk, FREE_MIN / SPACE_PRESSING_SHARE, 1000 * MIB);
    return 0;
}

static void half_of_what_is_left_is_not_for_what_is_pressing(void **state)
{
    (void)state;
    struct guarded guarded;
    begin(&guarded, FREE_MIN / SPACE_PRESSING_SHARE - 1);
    simulated_disk_set_hooks(guarded.disk, &(struct simulated_hooks){.before = make_room_for_what_presses, .context = &guarded});
    guarded.looks_until_room = 5;
    post(&guarded, IN, 100);
    post(&guarded, PRESSING, 100);
    assert_true(journal_step_group(guarded.journal));
    assert_int_equal(guarded.looks_until_room, 0);
    assert_int_equal(journal_stream_durable(guarded.streams[PRESSING]), 1);
    assert_int_equal(journal_stream_durable(guarded.streams[IN]), 0);
    simulated_disk_set_hooks(guarded.disk, &(struct simulated_hooks){0});
    journal_abandon(guarded.journal);
    while (journal_step_group(guarded.journal))
        continue;
    assert_int_equal(journal_producer_backlog(guarded.producers[IN]), 0);
    end(&guarded);
}

static bool is_there(struct guarded *guarded, const char *path)
{
    struct disk *disk = simulated_disk_table(guarded->disk);
    int file = disk->ops->open(disk, path, DISK_READ);
    if (file >= 0)
        disk->ops->close(disk, file);
    return file >= 0;
}

static int keep_meanwhile(void *context, const struct simulated_call *call)
{
    struct guarded *guarded = context;
    if (call->kind != SIMULATED_SPACE || guarded->looks_until_room == 0)
        return 0;
    guarded->looks_until_room--;
    if (guarded->looks_until_room == 1) {
        while (journal_step_keeper(guarded->journal))
            continue;
        assert_false(is_there(guarded, "/data/in/spare.seg"));
    }
    if (guarded->looks_until_room == 0)
        simulated_disk_set_space(guarded->disk, 1000 * MIB, 1000 * MIB);
    return 0;
}

static void what_was_kept_to_be_used_again_is_given_back(void **state)
{
    (void)state;
    struct guarded guarded = {.disk = simulated_disk_create(1)};
    simulated_disk_set_space(guarded.disk, 1000 * MIB, 1000 * MIB);
    now_ns = 1000 * SECOND_NS;
    struct journal_options options = {.disk = simulated_disk_table(guarded.disk),
                                      .folder = "/data",
                                      .segment_size = 64 << 10,
                                      .disk_free_min = FREE_MIN,
                                      .clock = &test_clock,
                                      .stepped = true};
    struct journal_stream_options named = {.name = "in", .retention_size = 150 << 10, .guarded = true};
    assert_int_equal(journal_open(&guarded.journal, &options), 0);
    assert_int_equal(journal_stream_add(guarded.journal, &named, &guarded.streams[IN]), 0);
    assert_int_equal(journal_producer_open(guarded.journal, no_notice, NULL, &guarded.producers[IN]), 0);
    assert_int_equal(journal_start(guarded.journal), 0);
    for (unsigned i = 0; i < 40; i++) {
        post(&guarded, IN, 10 << 10);
        journal_step_group(guarded.journal);
        while (journal_step_keeper(guarded.journal))
            continue;
    }
    journal_stream_set_guard(guarded.streams[IN], journal_stream_durable(guarded.streams[IN]));
    while (journal_step_keeper(guarded.journal)) /* the next segment is prepared already */
        continue;
    assert_true(is_there(&guarded, "/data/in/spare.seg"));
    simulated_disk_set_hooks(guarded.disk, &(struct simulated_hooks){.before = keep_meanwhile, .context = &guarded});
    simulated_disk_set_space(guarded.disk, 0, 1000 * MIB);
    now_ns += 2 * SECOND_NS;
    guarded.looks_until_room = 4;
    post(&guarded, IN, 100);
    assert_true(journal_step_group(guarded.journal));
    assert_int_equal(guarded.looks_until_room, 0);
    journal_producer_close(guarded.producers[IN]);
    journal_close(guarded.journal);
    simulated_disk_destroy(guarded.disk);
}

static void the_disk_is_asked_once_a_second_and_after_much(void **state)
{
    (void)state;
    struct guarded guarded;
    begin(&guarded, 1000 * MIB);
    unsigned looks = simulated_disk_space_looks(guarded.disk);
    for (unsigned i = 0; i < 50; i++) {
        post(&guarded, IN, 100);
        journal_step_group(guarded.journal);
    }
    assert_int_equal(simulated_disk_space_looks(guarded.disk), looks + 1);
    now_ns += SPACE_LOOK_MS * 1000000ull - 1;
    post(&guarded, IN, 100);
    journal_step_group(guarded.journal);
    assert_int_equal(simulated_disk_space_looks(guarded.disk), looks + 1);
    now_ns += 1;
    post(&guarded, IN, SPACE_LOOK_BYTES);
    journal_step_group(guarded.journal);
    assert_int_equal(simulated_disk_space_looks(guarded.disk), looks + 2);
    post(&guarded, IN, 100);
    journal_step_group(guarded.journal);
    assert_int_equal(simulated_disk_space_looks(guarded.disk), looks + 3);
    now_ns += 3600 * SECOND_NS;
    assert_false(journal_step_group(guarded.journal)); /* nothing is written */
    assert_int_equal(simulated_disk_space_looks(guarded.disk), looks + 3);
    end(&guarded);
}

static int64_t size_after_a_message(uint64_t free_bytes)
{
    struct guarded guarded;
    begin(&guarded, free_bytes);
    for (unsigned i = 0; i < STREAMS; i++)
        post(&guarded, i, 100);
    journal_step_group(guarded.journal);
    while (journal_step_keeper(guarded.journal))
        continue;
    int64_t in = simulated_disk_file_size(guarded.disk, "/data/in/00000000000000000000.seg");
    assert_int_equal(simulated_disk_file_size(guarded.disk, "/data/out/00000000000000000000.seg"), in);
    end(&guarded);
    return in;
}

static void nothing_is_written_ahead_into_the_last_of_the_disk(void **state)
{
    (void)state;
    assert_true(size_after_a_message(1000 * MIB) > 8 * MIB);
    assert_true(size_after_a_message(FREE_MIN) < 64 << 10);
}

/* ---- with threads ---- */

static atomic_bool is_short;

static int told_space(struct disk *disk, const char *path, uint64_t *free_bytes, uint64_t *total_bytes)
{
    (void)disk;
    (void)path;
    *free_bytes = is_short ? FREE_MIN - 1 : FREE_MIN;
    *total_bytes = 1000ull * MIB;
    return 0;
}

/* Space comes back with a file that is removed. */
static int freeing_remove(struct disk *disk, const char *path)
{
    int failed = disk_posix()->ops->remove(disk, path);
    if (!failed)
        is_short = false;
    return failed;
}

static int refusing_rename(struct disk *disk, const char *from, const char *to)
{
    return strstr(to, "spare.seg") ? -EBUSY : disk_posix()->ops->rename(disk, from, to);
}

static void retention_makes_room_first(void **state)
{
    (void)state;
    struct disk_ops ops = *disk_posix()->ops;
    ops.space = told_space;
    ops.remove = freeing_remove;
    ops.rename = refusing_rename;
    struct disk disk = {&ops};
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_producer *producer;
    is_short = false;
    now_ns = 1000 * SECOND_NS;
    struct journal_options options = {
        .disk = &disk, .folder = test_folder, .segment_size = MIB, .disk_free_min = FREE_MIN, .clock = &test_clock};
    assert_int_equal(journal_open(&journal, &options), 0);
    struct journal_stream_options named = {.name = "s", .retention_size = 2 * MIB};
    assert_int_equal(journal_stream_add(journal, &named, &stream), 0);
    assert_int_equal(journal_start(journal), 0);
    assert_int_equal(journal_producer_open(journal, no_notice, NULL, &producer), 0);
    static const uint8_t payload[MIB / 3];
    struct message message = {.topic = "t", .topic_length = 1, .payload = payload, .payload_length = sizeof payload};
    for (unsigned i = 0; i < 20; i++) { /* what is retired cannot be put aside, so there is something to be removed */
        assert_int_equal(journal_append(producer, stream, &message, NULL, 0, 0), 0);
        journal_submit(producer);
        journal_producer_wait(producer, 0);
    }
    is_short = true;
    now_ns += SECOND_NS;
    assert_int_equal(journal_append(producer, stream, &message, NULL, 0, 0), 0);
    journal_submit(producer);
    journal_producer_wait(producer, 0); /* forever, if nothing were removed */
    assert_false(is_short);
    journal_producer_close(producer);
    journal_close(journal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_more_than_a_tenth_of_the_disk_is_kept_free),
        cmocka_unit_test(a_disk_that_does_not_tell_has_no_limit),
        cmocka_unit_test(what_arrives_waits_until_there_is_room_again),
        cmocka_unit_test(what_was_accepted_is_finished_in_what_is_left),
        cmocka_unit_test(who_waits_for_room_can_be_given_up),
        cmocka_unit_test(what_is_pressing_overtakes_what_waits),
        cmocka_unit_test(half_of_what_is_left_is_not_for_what_is_pressing),
        cmocka_unit_test(what_was_kept_to_be_used_again_is_given_back),
        cmocka_unit_test(the_disk_is_asked_once_a_second_and_after_much),
        cmocka_unit_test(nothing_is_written_ahead_into_the_last_of_the_disk),
        cmocka_unit_test_setup_teardown(retention_makes_room_first, test_folder_make, test_folder_remove),
    };
    return cmocka_run_group_tests_name("space", tests, NULL, NULL);
}
