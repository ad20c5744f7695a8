/* A scribe and the keeper at one stream at the same time. */
#include "unit.h"

#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "folder.h"
#include "journal/stream.h"

/* The operating system's disk, with a keeper that begins to zero while the scribe makes a new segment, and is slow at it. */
struct slow_disk {
    struct disk disk;
    struct disk_ops ops;
    struct journal_stream *stream;
    pthread_t keeper;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool armed, zeroing, rolled;
    uint64_t zeroed_from; /* where the keeper began in the file in which it zeroed last */
    ino_t zeroed_inode;
};

static struct slow_disk slow;

static void *keep(void *stream)
{
    while (stream_keep(stream, false))
        ;
    return NULL;
}

/* The first sync of a roll is that of the new header. */
static int slow_sync(struct disk *disk, int file)
{
    pthread_mutex_lock(&slow.lock);
    if (slow.armed) {
        slow.armed = false;
        pthread_create(&slow.keeper, NULL, keep, slow.stream);
        while (!slow.zeroing)
            pthread_cond_wait(&slow.changed, &slow.lock);
    }
    pthread_mutex_unlock(&slow.lock);
    return disk_posix()->ops->sync(disk, file);
}

/* Holds the keeper until the roll is done. If the roll waits for the keeper, as it should, it goes on after a moment. */
static ssize_t slow_write(struct disk *disk, int file, const struct iovec *parts, int part_count, uint64_t position)
{
    pthread_mutex_lock(&slow.lock);
    bool by_keeper = slow.keeper && pthread_equal(pthread_self(), slow.keeper);
    struct stat status;
    assert_int_equal(fstat(file, &status), 0);
    if (by_keeper && slow.zeroed_inode != status.st_ino) {
        slow.zeroed_inode = status.st_ino;
        slow.zeroed_from = position;
    }
    if (by_keeper && !slow.zeroing) {
        slow.zeroing = true;
        pthread_cond_signal(&slow.changed);
        struct timespec moment;
        clock_gettime(CLOCK_REALTIME, &moment);
        moment.tv_nsec += 100000000;
        moment.tv_sec += moment.tv_nsec / 1000000000;
        moment.tv_nsec %= 1000000000;
        for (int late = 0; !slow.rolled && !late;)
            late = pthread_cond_timedwait(&slow.changed, &slow.lock, &moment);
    }
    pthread_mutex_unlock(&slow.lock);
    return disk_posix()->ops->write(disk, file, parts, part_count, position);
}

/* What is zeroed in the old segment must not count for the new one: the keeper would later zero what is durable there. */
static void a_roll_waits_for_the_zeroing_of_the_old_segment(void **state)
{
    (void)state;
    struct journal_stream stream = {.segment_size = 4 << 20, .file = -1, .next_file = -1};
    slow = (struct slow_disk){
        .ops = *disk_posix()->ops, .stream = &stream, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    slow.ops.sync = slow_sync;
    slow.ops.write = slow_write;
    slow.disk.ops = &slow.ops;
    stream.disk = &slow.disk;
    snprintf(stream.name, sizeof stream.name, "test");
    snprintf(stream.folder, sizeof stream.folder, "%s/test", test_folder);
    assert_int_equal(stream_open(&stream), 0);

    uint64_t bytes = (1 << 20) + 4096; /* less than half of a segment, so that no next one is prepared */
    assert_true(stream_has_room(&stream, bytes));
    stream_claim(&stream, bytes);
    stream.position += bytes;
    stream.next_offset = 1;
    slow.armed = true;
    assert_false(stream_has_room(&stream, stream.segment_size - bytes));
    assert_int_equal(stream_begin_segment(&stream), 0);
    pthread_mutex_lock(&slow.lock);
    slow.rolled = true;
    pthread_cond_signal(&slow.changed);
    pthread_mutex_unlock(&slow.lock);
    pthread_join(slow.keeper, NULL);
    slow.keeper = pthread_self(); /* if it had nothing to do any more when the roll was done */
    keep(&stream);

    assert_int_equal(stream.segment_count, 2);
    assert_false(stream.zeroing_failed); /* it did not write to a file that was closed under it */
    struct stat status;
    assert_int_equal(fstat(stream.file, &status), 0);
    assert_int_equal(slow.zeroed_inode, status.st_ino);
    assert_int_equal(slow.zeroed_from, FORMAT_SEGMENT_HEADER_SIZE); /* it began anew in the new segment */
    assert_int_equal(status.st_size, stream.zeroed_to);
    stream_close(&stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_roll_waits_for_the_zeroing_of_the_old_segment, test_folder_make, test_folder_remove),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
