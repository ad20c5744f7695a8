/* Groups: who is told durable when, and what happens while the disk takes nothing. */
#include "journal_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

enum { STREAMS = 2, EVENTS_MAX = 64, DEADLINE_S = 20 };

/* The operating system's disk with two faults: it can be full, and the sync of one file can wait until the test lets it go. */
struct faulty_disk {
    struct disk disk;
    struct disk_ops ops;
    atomic_bool full;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char held[64]; /* sync waits in files of a folder of this name; empty: none */
    ino_t held_file;
    bool waiting;
    unsigned notices; /* of producers */
};

static struct faulty_disk faulty;

static int faulty_open(struct disk *disk, const char *path, enum disk_open how)
{
    if (how == DISK_CREATE && faulty.full)
        return -ENOSPC;
    int file = disk_posix()->ops->open(disk, path, how);
    struct stat status;
    pthread_mutex_lock(&faulty.lock);
    if (how == DISK_CREATE && faulty.held[0] && strstr(path, faulty.held) && !fstat(file, &status))
        faulty.held_file = status.st_ino;
    pthread_mutex_unlock(&faulty.lock);
    return file;
}

static ssize_t faulty_write(struct disk *disk, int file, const struct iovec *parts, int part_count, uint64_t position)
{
    return faulty.full ? -ENOSPC : disk_posix()->ops->write(disk, file, parts, part_count, position);
}

static atomic_bool hold;

static int faulty_sync(struct disk *disk, int file)
{
    struct stat status; /* each writer has a handle of its own */
    bool held = !fstat(file, &status) && status.st_ino == faulty.held_file;
    pthread_mutex_lock(&faulty.lock);
    while (hold && held) {
        faulty.waiting = true;
        pthread_cond_broadcast(&faulty.changed);
        pthread_cond_wait(&faulty.changed, &faulty.lock);
    }
    pthread_mutex_unlock(&faulty.lock);
    return disk_posix()->ops->sync(disk, file);
}

static void let_go(void)
{
    pthread_mutex_lock(&faulty.lock);
    hold = false;
    pthread_cond_broadcast(&faulty.changed);
    pthread_mutex_unlock(&faulty.lock);
}

static void notice(void *context)
{
    (void)context;
    pthread_mutex_lock(&faulty.lock);
    faulty.notices++;
    pthread_cond_broadcast(&faulty.changed);
    pthread_mutex_unlock(&faulty.lock);
}

/* Waits until the held sync has begun, or until so many notices were given. */
static void wait_for(bool waiting, unsigned notices)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += DEADLINE_S;
    pthread_mutex_lock(&faulty.lock);
    int late = 0;
    while (!late && ((waiting && !faulty.waiting) || faulty.notices < notices))
        late = pthread_cond_timedwait(&faulty.changed, &faulty.lock, &deadline);
    pthread_mutex_unlock(&faulty.lock);
    assert_int_equal(late, 0);
}

struct group {
    struct journal *journal;
    struct journal_stream *streams[STREAMS];
    struct journal_producer *producers[2];
};

/* held: the stream whose next syncs wait, -1: none. apart: each stream has a scribe of its own. Nothing is started yet. */
static void open_streams(struct group *group, int held, bool apart)
{
    static const char *const names[STREAMS] = {"first", "second"};
    faulty = (struct faulty_disk){.ops = *disk_posix()->ops, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    faulty.ops.open = faulty_open;
    faulty.ops.write = faulty_write;
    faulty.ops.sync = faulty_sync;
    faulty.disk.ops = &faulty.ops;
    if (held >= 0)
        snprintf(faulty.held, sizeof faulty.held, "/%s/", names[held]);
    struct journal_options options = {.disk = &faulty.disk, .folder = test_folder, .segment_size = 1 << 20};
    assert_int_equal(journal_open(&group->journal, &options), 0);
    for (unsigned i = 0; i < STREAMS; i++) {
        struct journal_stream_options stream = {.name = names[i], .scribe = apart ? i : 0};
        assert_int_equal(journal_stream_add(group->journal, &stream, &group->streams[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(journal_producer_open(group->journal, notice, NULL, &group->producers[i]), 0);
    hold = held >= 0;
}

static void open_group(struct group *group, int held)
{
    open_streams(group, held, false);
}

static void close_group(struct group *group)
{
    for (unsigned i = 0; i < 2; i++)
        journal_producer_close(group->producers[i]);
    journal_close(group->journal);
}

static void post(struct group *group, unsigned producer, unsigned stream, uint64_t token)
{
    struct message message = make_message("topic", "payload");
    assert_int_equal(journal_append(group->producers[producer], group->streams[stream], &message, NULL, 0, token), 0);
    journal_submit(group->producers[producer]);
}

struct told {
    uint64_t tokens[EVENTS_MAX];
    size_t count;
};

static void note_told(void *context, const struct journal_batch *batch)
{
    struct told *told = context;
    for (size_t i = 0; i < batch->token_count; i++)
        told->tokens[told->count++] = batch->tokens[i];
}

static struct told told_of(struct group *group, unsigned producer)
{
    struct told told = {0};
    journal_producer_poll(group->producers[producer], note_told, &told);
    return told;
}

static void a_chunk_does_not_wait_for_streams_that_it_does_not_use(void **state)
{
    (void)state;
    struct group group;
    open_group(&group, 1);
    post(&group, 0, 0, 1);
    post(&group, 1, 1, 2); /* of the same group, since nothing is started */
    assert_int_equal(journal_start(group.journal), 0);
    wait_for(true, 1);
    struct told told = told_of(&group, 0);
    assert_int_equal(told.count, 1);
    assert_int_equal(told_of(&group, 1).count, 0);
    assert_int_equal(journal_stream_durable(group.streams[0]), 1);
    assert_int_equal(journal_stream_durable(group.streams[1]), 0);
    let_go();
    journal_producer_wait(group.producers[1], 0);
    assert_int_equal(told_of(&group, 1).count, 1);
    close_group(&group);
}

static void groups_of_one_scribe_do_not_wait_for_the_other(void **state)
{
    (void)state;
    struct group group;
    open_streams(&group, 1, true);
    post(&group, 1, 1, 1);
    assert_int_equal(journal_start(group.journal), 0);
    wait_for(true, 0);
    for (uint64_t token = 1; token <= 5; token++) {
        post(&group, 0, 0, token);
        journal_producer_wait(group.producers[0], 0); /* each a group of its own */
    }
    assert_int_equal(told_of(&group, 0).count, 5);
    assert_int_equal(told_of(&group, 1).count, 0);
    assert_int_equal(journal_stream_durable(group.streams[1]), 0);
    let_go();
    journal_producer_wait(group.producers[1], 0);
    assert_int_equal(told_of(&group, 1).count, 1);
    struct journal_stats stats;
    journal_stats(group.journal, &stats);
    assert_true(stats.groups >= 5);
    close_group(&group);
}

/* PUBACKs leave in the order of the messages (MQTT 5 section 4.6), and a producer's chunks are those of its connections. */
static void a_producer_is_told_in_the_order_in_which_it_sent_off(void **state)
{
    (void)state;
    struct group group;
    open_group(&group, 1);
    post(&group, 0, 0, 1);
    post(&group, 0, 1, 2);
    post(&group, 0, 0, 3); /* durable before 2 */
    post(&group, 1, 0, 4);
    assert_int_equal(journal_start(group.journal), 0);
    wait_for(true, 2);
    assert_int_equal(journal_stream_durable(group.streams[0]), 3);
    struct told told = told_of(&group, 0);
    assert_int_equal(told.count, 1);
    assert_int_equal(told.tokens[0], 1);
    assert_int_equal(told_of(&group, 1).count, 1);
    let_go();
    journal_producer_wait(group.producers[0], 0);
    told = told_of(&group, 0);
    assert_int_equal(told.count, 2);
    assert_int_equal(told.tokens[0], 2);
    assert_int_equal(told.tokens[1], 3);
    close_group(&group);
}

struct shown {
    uint64_t next;
    struct group *group;
};

static void note_shown(void *context, const struct message *record)
{
    struct shown *shown = context;
    assert_int_equal(record->offset, shown->next++);
    assert_true(journal_stream_durable(shown->group->streams[0]) > record->offset);
}

/* Two threads append to both streams in turn. */
static void *append_many(void *context)
{
    struct group *group = ((void **)context)[0];
    struct journal_producer *producer = ((void **)context)[1];
    struct message message = make_message("topic", "payload");
    for (uint64_t i = 1; i <= 5000; i++) {
        assert_int_equal(journal_append(producer, group->streams[i % 3 == 0], &message, NULL, 0, i), 0);
        if (i % 2)
            journal_submit(producer);
    }
    journal_submit(producer);
    journal_producer_wait(producer, 0);
    return NULL;
}

static void records_are_shown_in_the_order_of_offsets_and_producers_told_in_theirs(void **state)
{
    (void)state;
    struct group group;
    open_group(&group, -1);
    struct shown shown = {.group = &group};
    journal_stream_on_record(group.streams[0], note_shown, &shown);
    assert_int_equal(journal_start(group.journal), 0);
    pthread_t threads[2];
    void *contexts[2][2];
    for (unsigned i = 0; i < 2; i++) {
        contexts[i][0] = &group;
        contexts[i][1] = group.producers[i];
        assert_int_equal(pthread_create(&threads[i], NULL, append_many, contexts[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < 2; i++) {
        struct fixture fixture = {0};
        journal_producer_poll(group.producers[i], count_tokens, &fixture); /* checks their order */
        assert_int_equal(fixture.tokens, 5000);
    }
    close_group(&group);
    assert_int_equal(shown.next, 2 * (5000 - 5000 / 3));
}

static void what_is_sent_off_before_the_start_is_a_group_of_its_own(void **state)
{
    (void)state;
    struct group group;
    open_group(&group, -1);
    post(&group, 0, 0, 1);
    post(&group, 1, 0, 2);
    assert_int_equal(journal_start(group.journal), 0);
    journal_producer_wait(group.producers[1], 0); /* so that the next has no mark before it */
    post(&group, 0, 0, 3);
    journal_producer_wait(group.producers[0], 0);
    close_group(&group);
    char folder[300];
    snprintf(folder, sizeof folder, "%s/first", test_folder);
    struct reader *reader;
    assert_int_equal(reader_open(&reader, disk_posix(), folder, 0, NULL, NULL), 0);
    for (unsigned i = 0; i < 3; i++) {
        struct message message;
        const uint8_t *record;
        uint64_t durable;
        assert_int_equal(reader_next(reader, UINT64_MAX, &message, &record), 0);
        assert_int_equal(format_record_begins_group(record, &durable), i != 1);
    }
    reader_close(reader);
}

static void wait_until_stalled(struct journal *journal)
{
    struct journal_stats stats = {0};
    for (unsigned i = 0; i < DEADLINE_S * 1000 && !stats.stalled; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        journal_stats(journal, &stats);
    }
    assert_true(stats.stalled);
}

static void what_is_abandoned_is_never_told_durable(void **state)
{
    (void)state;
    struct group group;
    open_group(&group, -1);
    assert_int_equal(journal_start(group.journal), 0);
    post(&group, 0, 0, 1);
    journal_producer_wait(group.producers[0], 0);
    assert_int_equal(told_of(&group, 0).count, 1);
    faulty.full = true;
    post(&group, 0, 0, 2);
    wait_until_stalled(group.journal);
    post(&group, 1, 1, 3); /* behind it */
    journal_abandon(group.journal);
    journal_producer_wait(group.producers[0], 0);
    journal_producer_wait(group.producers[1], 0);
    assert_int_equal(told_of(&group, 0).count, 0);
    assert_int_equal(told_of(&group, 1).count, 0);
    assert_int_equal(journal_stream_durable(group.streams[0]), 1);
    faulty.full = false;
    close_group(&group); /* it ends */
}

static void a_full_disk_at_the_start_keeps_nothing_from_being_read_and_writing_goes_on_later(void **state)
{
    (void)state;
    struct group group;
    open_group(&group, -1);
    assert_int_equal(journal_start(group.journal), 0);
    for (uint64_t i = 1; i <= 10; i++)
        post(&group, 0, 0, i);
    journal_producer_wait(group.producers[0], 0);
    close_group(&group);

    struct disk_ops full = *disk_posix()->ops;
    full.open = faulty_open;
    full.write = faulty_write;
    struct disk disk = {&full};
    faulty.full = true;
    struct journal_options options = {.disk = &disk, .folder = test_folder, .segment_size = 1 << 20};
    assert_int_equal(journal_open(&group.journal, &options), 0);
    struct journal_stream_options named = {.name = "first"};
    assert_int_equal(journal_stream_add(group.journal, &named, &group.streams[0]), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(journal_producer_open(group.journal, notice, NULL, &group.producers[i]), 0);
    struct journal_stream_stats stats;
    journal_stream_stats(group.streams[0], &stats);
    assert_int_equal(stats.durable_offset, 10);
    assert_int_equal(journal_start(group.journal), 0);
    struct reader *reader;
    struct message message;
    assert_int_equal(journal_stream_reader(group.streams[0], 9, &reader), 0);
    assert_int_equal(reader_next(reader, 10, &message, NULL), 0);
    assert_int_equal(message.offset, 9);
    post(&group, 0, 0, 11);
    wait_until_stalled(group.journal);
    assert_int_equal(told_of(&group, 0).count, 0);
    faulty.full = false;
    journal_producer_wait(group.producers[0], 0);
    assert_int_equal(told_of(&group, 0).count, 1);
    assert_int_equal(reader_next(reader, 11, &message, NULL), 0);
    assert_int_equal(message.offset, 10);
    reader_close(reader);
    close_group(&group);
}

/* ---- retention beside what is written ---- */

enum { KEPT_SEGMENT = 1 << 20, KEPT_PAYLOAD = 100000, KEPT_SEGMENTS_MAX = 3 };

static atomic_bool refuse_removal;
static atomic_uint refusals;

static int refusing_rename(struct disk *disk, const char *from, const char *to)
{
    if (refuse_removal && strstr(to, "spare.seg")) {
        refusals++;
        return -EBUSY;
    }
    return disk_posix()->ops->rename(disk, from, to);
}

/* Space comes back with a file that is removed. */
static int freeing_remove(struct disk *disk, const char *path)
{
    int failed = disk_posix()->ops->remove(disk, path);
    if (!failed)
        faulty.full = false;
    return failed;
}

static size_t segments_of(struct journal_stream *stream)
{
    struct journal_stream_stats stats;
    journal_stream_stats(stream, &stats);
    return stats.segment_count;
}

static void wait_for_segments(struct journal_stream *stream, size_t at_most)
{
    for (unsigned i = 0; i < DEADLINE_S * 1000 && segments_of(stream) > at_most; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_true(segments_of(stream) <= at_most);
}

/* A guarded stream of which retention may keep one segment, with much in it and nothing settled. */
static void open_kept(struct disk *disk, struct journal **journal, struct journal_stream **stream, struct journal_producer **producer)
{
    struct journal_options options = {.disk = disk, .folder = test_folder, .segment_size = KEPT_SEGMENT};
    assert_int_equal(journal_open(journal, &options), 0);
    struct journal_stream_options named = {.name = "kept", .retention_size = KEPT_SEGMENT, .guarded = true};
    assert_int_equal(journal_stream_add(*journal, &named, stream), 0);
    assert_int_equal(journal_start(*journal), 0);
    assert_int_equal(journal_producer_open(*journal, no_notice, NULL, producer), 0);
    static const uint8_t payload[KEPT_PAYLOAD];
    struct message message = {.topic = "t", .topic_length = 1, .payload = payload, .payload_length = sizeof payload};
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(journal_append(*producer, *stream, &message, NULL, 0, 0), 0);
        journal_submit(*producer);
        journal_producer_wait(*producer, 0);
    }
    assert_true(segments_of(*stream) > 2 * KEPT_SEGMENTS_MAX);
}

static void what_is_settled_goes_though_nothing_more_is_written(void **state)
{
    (void)state;
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_producer *producer;
    open_kept(disk_posix(), &journal, &stream, &producer);
    uint64_t durable = journal_stream_durable(stream);
    size_t before = segments_of(stream);
    for (uint64_t offset = 1; offset <= durable / 2; offset++)
        journal_stream_set_guard(stream, offset);
    wait_for_segments(stream, before - before / 2 + 2);
    struct journal_stream_stats stats;
    journal_stream_stats(stream, &stats);
    assert_true(stats.first_offset <= durable / 2);
    journal_stream_set_guard(stream, durable);
    wait_for_segments(stream, KEPT_SEGMENTS_MAX);
    journal_producer_close(producer);
    journal_close(journal);
}

static void retention_makes_room_on_a_full_disk(void **state)
{
    (void)state;
    struct disk_ops ops = *disk_posix()->ops;
    ops.open = faulty_open;
    ops.write = faulty_write;
    ops.rename = refusing_rename;
    ops.remove = freeing_remove;
    struct disk disk = {&ops};
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_producer *producer;
    open_kept(&disk, &journal, &stream, &producer);
    refuse_removal = true;
    refusals = 0;
    journal_stream_set_guard(stream, journal_stream_durable(stream));
    for (unsigned i = 0; i < DEADLINE_S * 1000 && !refusals; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_true(refusals > 0); /* there is something to be retired, and the keeper sleeps */
    faulty.full = true;
    refuse_removal = false;
    struct message message = make_message("t", "after");
    assert_int_equal(journal_append(producer, stream, &message, NULL, 0, 0), 0);
    journal_submit(producer);
    journal_producer_wait(producer, 0);
    wait_for_segments(stream, KEPT_SEGMENTS_MAX);
    journal_producer_close(producer);
    journal_close(journal);
}

int main(void)
{
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, test_folder_make, test_folder_remove)
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(a_chunk_does_not_wait_for_streams_that_it_does_not_use),
        WITH_FOLDER(groups_of_one_scribe_do_not_wait_for_the_other),
        WITH_FOLDER(a_producer_is_told_in_the_order_in_which_it_sent_off),
        WITH_FOLDER(records_are_shown_in_the_order_of_offsets_and_producers_told_in_theirs),
        WITH_FOLDER(what_is_sent_off_before_the_start_is_a_group_of_its_own),
        WITH_FOLDER(what_is_abandoned_is_never_told_durable),
        WITH_FOLDER(a_full_disk_at_the_start_keeps_nothing_from_being_read_and_writing_goes_on_later),
        WITH_FOLDER(what_is_settled_goes_though_nothing_more_is_written),
        WITH_FOLDER(retention_makes_room_on_a_full_disk),
    };
    return cmocka_run_group_tests_name("journal groups", tests, NULL, NULL);
}
