/* Several writers of one scribe: groups on their way to the disk at once, told in order, and what a crash leaves of them. */
#include "journal_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "base/error.h"
#include "simulated_disk.h"

enum { SYNCS_MAX = 16, DEADLINE_S = 20, MANY = 3000 };

/* The operating system's disk. Syncs of groups can be held, and are watched. */
static struct watched {
    struct disk disk;
    struct disk_ops ops;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool started;        /* syncs before are not the writers' */
    unsigned hold;       /* this many syncs from now on wait until it is 0 */
    unsigned held, done; /* syncs */
    struct {
        int file;
        ino_t inode;
    } under_way[SYNCS_MAX]; /* [count] */
    unsigned count;
    bool at_once, shared; /* there were two at once of one file; through one handle */
    bool no_handles;
    unsigned segments; /* made */
} watched;

static int watched_open(struct disk *disk, const char *path, enum disk_open how)
{
    pthread_mutex_lock(&watched.lock);
    bool refuse = watched.no_handles && how == DISK_WRITE;
    pthread_mutex_unlock(&watched.lock);
    return refuse ? -EMFILE : disk_posix()->ops->open(disk, path, how);
}

static int watched_sync(struct disk *disk, int file)
{
    pthread_mutex_lock(&watched.lock);
    bool counts = watched.started;
    if (counts) {
        struct stat status;
        assert_int_equal(fstat(file, &status), 0);
        for (unsigned i = 0; i < watched.count; i++) {
            watched.shared = watched.shared || watched.under_way[i].file == file;
            watched.at_once = watched.at_once || watched.under_way[i].inode == status.st_ino;
        }
        watched.under_way[watched.count].file = file;
        watched.under_way[watched.count++].inode = status.st_ino;
    }
    if (counts && watched.hold) {
        watched.hold--;
        watched.held++;
        pthread_cond_broadcast(&watched.changed);
        while (watched.held)
            pthread_cond_wait(&watched.changed, &watched.lock);
    }
    pthread_mutex_unlock(&watched.lock);
    int failed = disk_posix()->ops->sync(disk, file);
    pthread_mutex_lock(&watched.lock);
    for (unsigned i = 0; counts && i < watched.count; i++) {
        if (watched.under_way[i].file == file) {
            watched.under_way[i] = watched.under_way[--watched.count];
            break;
        }
    }
    watched.done += counts;
    pthread_cond_broadcast(&watched.changed);
    pthread_mutex_unlock(&watched.lock);
    return failed;
}

static int watched_rename(struct disk *disk, const char *from, const char *to)
{
    pthread_mutex_lock(&watched.lock);
    watched.segments++;
    pthread_mutex_unlock(&watched.lock);
    return disk_posix()->ops->rename(disk, from, to);
}

static void wait_until(const unsigned *number, unsigned least)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += DEADLINE_S;
    int late = 0;
    pthread_mutex_lock(&watched.lock);
    while (!late && *number < least)
        late = pthread_cond_timedwait(&watched.changed, &watched.lock, &deadline);
    pthread_mutex_unlock(&watched.lock);
    assert_int_equal(late, 0);
}

static void hold_syncs(unsigned count)
{
    pthread_mutex_lock(&watched.lock);
    watched.hold = count;
    pthread_mutex_unlock(&watched.lock);
}

static void let_go(void)
{
    pthread_mutex_lock(&watched.lock);
    watched.held = 0;
    pthread_cond_broadcast(&watched.changed);
    pthread_mutex_unlock(&watched.lock);
}

struct journal_of_two {
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_producer *producers[2];
};

static void open_journal(struct journal_of_two *two, struct disk *disk, unsigned writers, bool stepped)
{
    struct journal_options options = {
        .disk = disk, .folder = stepped ? "/data" : test_folder, .segment_size = 64 << 10, .writers = writers, .stepped = stepped};
    assert_int_equal(journal_open(&two->journal, &options), 0);
    struct journal_stream_options stream = {.name = "first"};
    assert_int_equal(journal_stream_add(two->journal, &stream, &two->stream), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(journal_producer_open(two->journal, no_notice, NULL, &two->producers[i]), 0);
    assert_int_equal(journal_start(two->journal), 0);
}

static void open_watched(struct journal_of_two *two)
{
    watched = (struct watched){.ops = *disk_posix()->ops, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    watched.ops.open = watched_open;
    watched.ops.sync = watched_sync;
    watched.ops.rename = watched_rename;
    watched.disk.ops = &watched.ops;
    open_journal(two, &watched.disk, 2, false);
    watched.started = true;
    watched.segments = 0;
}

static void close_two(struct journal_of_two *two)
{
    pthread_mutex_lock(&watched.lock);
    watched.started = false;
    pthread_mutex_unlock(&watched.lock);
    for (unsigned i = 0; i < 2; i++)
        journal_producer_close(two->producers[i]);
    journal_close(two->journal);
}

static void post(struct journal_of_two *two, unsigned producer, size_t payload_length, uint64_t token)
{
    static uint8_t payload[60000];
    struct message message = {.topic = "t", .topic_length = 1, .payload = payload, .payload_length = (uint32_t)payload_length};
    assert_int_equal(journal_append(two->producers[producer], two->stream, &message, NULL, 0, token), 0);
    journal_submit(two->producers[producer]);
}

static void count_told(void *context, const struct journal_batch *batch)
{
    *(size_t *)context += batch->token_count;
}

static size_t told(struct journal_of_two *two, unsigned producer)
{
    size_t count = 0;
    journal_producer_poll(two->producers[producer], count_told, &count);
    return count;
}

static void a_group_is_synced_beside_the_one_before_it_and_told_behind_it(void **state)
{
    (void)state;
    struct journal_of_two two;
    open_watched(&two);
    hold_syncs(1);
    post(&two, 0, 100, 1);
    wait_until(&watched.held, 1);
    post(&two, 1, 100, 2);
    wait_until(&watched.done, 1); /* the second group's sync, while the first one's is held */
    assert_int_equal(journal_stream_durable(two.stream), 0);
    assert_int_equal(told(&two, 1), 0);
    let_go();
    journal_producer_wait(two.producers[1], 0);
    assert_int_equal(told(&two, 0), 1);
    assert_int_equal(told(&two, 1), 1);
    assert_int_equal(journal_stream_durable(two.stream), 2);
    close_two(&two);
}

static void a_segment_is_left_when_all_of_it_is_durable(void **state)
{
    (void)state;
    struct journal_of_two two;
    open_watched(&two);
    hold_syncs(1);
    post(&two, 0, 50000, 1);
    wait_until(&watched.held, 1);
    post(&two, 1, 50000, 2);                                  /* does not fit behind it */
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); /* so that it could */
    pthread_mutex_lock(&watched.lock);
    unsigned segments = watched.segments;
    pthread_mutex_unlock(&watched.lock);
    assert_int_equal(segments, 0);
    let_go();
    journal_producer_wait(two.producers[1], 0);
    assert_int_equal(journal_stream_durable(two.stream), 2);
    close_two(&two);
}

struct poster {
    struct journal_of_two *two;
    unsigned producer;
};

static void *post_many(void *context)
{
    struct poster *poster = context;
    for (uint64_t i = 1; i <= MANY; i++) {
        post(poster->two, poster->producer, 200, i);
        if (i % 8 == 0)
            journal_producer_wait(poster->two->producers[poster->producer], 1000);
    }
    journal_producer_wait(poster->two->producers[poster->producer], 0);
    return NULL;
}

static void post_from_two_threads(struct journal_of_two *two)
{
    pthread_t threads[2];
    struct poster posters[2] = {{two, 0}, {two, 1}};
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, post_many, &posters[i]), 0);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(told(two, i), MANY);
}

static uint64_t read_count(struct journal_of_two *two)
{
    struct reader *reader;
    struct message message;
    uint64_t count = 0;
    assert_int_equal(journal_stream_reader(two->stream, 0, &reader), 0);
    while (reader_next(reader, journal_stream_durable(two->stream), &message, NULL) == 0)
        assert_int_equal(message.offset, count++);
    reader_close(reader);
    return count;
}

/* The system tells each handle once that a sync has failed. Two through one handle: the wrong one may be told. */
static void syncs_at_once_have_handles_of_their_own(void **state)
{
    (void)state;
    struct journal_of_two two;
    open_watched(&two);
    post_from_two_threads(&two);
    assert_false(watched.shared);
    assert_true(watched.at_once);
    assert_int_equal(read_count(&two), 2 * MANY);
    close_two(&two);
}

static void without_handles_there_is_one_sync_at_a_time(void **state)
{
    (void)state;
    struct journal_of_two two;
    open_watched(&two);
    watched.no_handles = true;
    post_from_two_threads(&two);
    assert_false(watched.at_once);
    assert_int_equal(read_count(&two), 2 * MANY);
    close_two(&two);
}

/* ---- what a crash leaves ---- */

struct found {
    unsigned damages;
    uint64_t first_lost, next;
};

static void note_damage(void *context, const struct reader_damage *damage)
{
    struct found *found = context;
    if (found->damages++ == 0)
        found->first_lost = damage->first_offset;
}

/* Four records, each a group of its own, at most two on their way at once; the process is killed when `written` of them are written, and
 * the second is damaged then. What a reader finds, and where the stream goes on. */
static struct found damage_the_second_of(unsigned written)
{
    struct simulated_disk *disk = simulated_disk_create(1);
    struct journal_of_two two;
    open_journal(&two, simulated_disk_table(disk), 2, true);
    for (unsigned i = 1; i <= written; i++) {
        post(&two, 0, 100, i);
        assert_true(journal_step_group(two.journal)); /* writes it; and tells of the one before */
        assert_int_equal(journal_stream_durable(two.stream), i - 1);
    }
    simulated_disk_kill(disk);
    close_two(&two);
    simulated_disk_revive(disk);
    size_t record = format_record_size(&(struct message){.topic_length = 1, .payload_length = 100}, 0);
    uint64_t second = FORMAT_SEGMENT_HEADER_SIZE + record + FORMAT_MARK_SIZE;
    simulated_disk_flip(disk, "/data/first/00000000000000000000.seg", (second + record / 2) * 8);
    struct found found = {0};
    struct reader *reader;
    struct message message;
    assert_int_equal(reader_open(&reader, simulated_disk_table(disk), "/data/first", 0, note_damage, &found), 0);
    while (reader_next(reader, UINT64_MAX, &message, NULL) == 0)
        assert_true(message.offset != 1);
    reader_close(reader);
    open_journal(&two, simulated_disk_table(disk), 2, true);
    found.next = journal_stream_durable(two.stream);
    close_two(&two);
    simulated_disk_destroy(disk);
    return found;
}

static void what_is_bad_before_groups_that_went_with_it_is_a_torn_end(void **state)
{
    (void)state;
    struct found found = damage_the_second_of(3); /* the third was written while the second was on its way */
    assert_int_equal(found.damages, 0);
    assert_int_equal(found.next, 1);
}

static void what_is_bad_before_a_group_that_knows_it_durable_is_damage(void **state)
{
    (void)state;
    struct found found = damage_the_second_of(4);
    assert_int_equal(found.damages, 1);
    assert_int_equal(found.first_lost, 1);
    assert_int_equal(found.next, 4);
}

/* ---- a writer that finds no handle in the middle of a group ---- */

enum { THREE = 3 };

static struct lacking {
    bool refuse; /* handles of the second stream */
    unsigned syncs[THREE];
    char synced[SIMULATED_PATH_MAX]; /* the file of the third stream that was synced last */
} lacking;

static int stream_of(const char *path)
{
    static const char *const folders[THREE] = {"/data/first/", "/data/second/", "/data/third/"};
    for (int i = 0; i < THREE; i++)
        if (strncmp(path, folders[i], strlen(folders[i])) == 0)
            return i;
    return -1;
}

static int lack(void *context, const struct simulated_call *call)
{
    (void)context;
    int stream = stream_of(call->path);
    if (call->kind == SIMULATED_SYNC && stream >= 0)
        lacking.syncs[stream]++;
    if (call->kind == SIMULATED_SYNC && stream == 2)
        snprintf(lacking.synced, sizeof lacking.synced, "%s", call->path);
    return call->kind == SIMULATED_OPEN && stream == 1 && lacking.refuse ? -EMFILE : 0;
}

static void append_to(struct journal_producer *producer, struct journal_stream *stream, size_t payload_length)
{
    static uint8_t payload[60000];
    struct message message = {.topic = "t", .topic_length = 1, .payload = payload, .payload_length = (uint32_t)payload_length};
    assert_int_equal(journal_append(producer, stream, &message, NULL, 0, 1), 0);
    journal_submit(producer);
}

static void what_was_written_before_a_handle_lacked_is_synced_before_it_is_told(void **state)
{
    (void)state;
    static const char *const names[THREE] = {"first", "second", "third"};
    struct simulated_disk *disk = simulated_disk_create(1);
    struct journal_options options = {
        .disk = simulated_disk_table(disk), .folder = "/data", .segment_size = 64 << 10, .writers = 2, .stepped = true};
    struct journal_of_two two;
    struct journal_stream *streams[THREE];
    lacking = (struct lacking){0};
    simulated_disk_set_hooks(disk, &(struct simulated_hooks){.before = lack});
    assert_int_equal(journal_open(&two.journal, &options), 0);
    for (unsigned i = 0; i < THREE; i++) {
        struct journal_stream_options stream = {.name = names[i]};
        assert_int_equal(journal_stream_add(two.journal, &stream, &streams[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(journal_producer_open(two.journal, no_notice, NULL, &two.producers[i]), 0);
    assert_int_equal(journal_start(two.journal), 0);
    /* Each writer has written the first and the third stream; then the third begins another segment, by the first writer. */
    for (unsigned group = 0; group < 2; group++) {
        append_to(two.producers[0], streams[0], 100);
        append_to(two.producers[0], streams[2], 100);
        assert_true(journal_step_group(two.journal));
    }
    append_to(two.producers[0], streams[2], 57000); /* which has room for little else */
    while (journal_step_group(two.journal))
        ;
    assert_int_equal(told(&two, 0), 5);
    /* The second writer finds no handle of the second stream, when it has written the first. */
    lacking.refuse = true;
    unsigned before = lacking.syncs[0];
    append_to(two.producers[0], streams[0], 100);
    append_to(two.producers[1], streams[1], 100);
    append_to(two.producers[1], streams[2], 100);
    assert_true(journal_step_group(two.journal));
    assert_int_equal(told(&two, 0), 1);
    assert_int_equal(lacking.syncs[0], before + 1);
    assert_int_equal(told(&two, 1), 2);
    assert_string_equal(lacking.synced, "/data/third/00000000000000000002.seg");
    close_two(&two);
    simulated_disk_destroy(disk);
}

int main(void)
{
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, test_folder_make, test_folder_remove)
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(a_group_is_synced_beside_the_one_before_it_and_told_behind_it),
        WITH_FOLDER(a_segment_is_left_when_all_of_it_is_durable),
        WITH_FOLDER(syncs_at_once_have_handles_of_their_own),
        WITH_FOLDER(without_handles_there_is_one_sync_at_a_time),
        cmocka_unit_test(what_is_bad_before_groups_that_went_with_it_is_a_torn_end),
        cmocka_unit_test(what_is_bad_before_a_group_that_knows_it_durable_is_damage),
        cmocka_unit_test(what_was_written_before_a_handle_lacked_is_synced_before_it_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
