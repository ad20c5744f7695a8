/* The retained messages: finding against a list as witness, limits, threads, and what a start finds in the stream. */
#include "unit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/random.h"
#include "bus/retained.h"
#include "folder.h"
#include "mqtt/topic.h"

static struct message make(const char *topic, const char *payload)
{
    return (struct message){.topic = topic,
                            .topic_length = (uint32_t)strlen(topic),
                            .payload = (const uint8_t *)payload,
                            .payload_length = (uint32_t)strlen(payload),
                            .flags = 1 | MESSAGE_RETAIN};
}

static struct retained *open_store(uint32_t messages_max, size_t bytes_max)
{
    struct retained *retained;
    struct retained_options options = {.messages_max = messages_max, .bytes_max = bytes_max};
    assert_int_equal(retained_open(&options, &retained), 0);
    return retained;
}

static int put(struct retained *retained, const char *topic, const char *payload)
{
    struct message message = make(topic, payload);
    uint64_t number;
    int error = retained_put(retained, &message, &number);
    retained_flush(retained);
    return error;
}

/* The message of a handle, with a reference; NULL: it is gone. */
static struct retained_message *take(struct retained *retained, struct retained_handle handle, uint64_t wall_ns)
{
    struct retained_message *message;
    retained_take(retained, &handle, 1, wall_ns, &message);
    return message;
}

static struct retained_status status_of(struct retained *retained)
{
    struct retained_status status;
    retained_status(retained, &status);
    return status;
}

/* The topic's message is this one; NULL: it has none. */
static void assert_kept(struct retained *retained, const char *topic, const char *payload)
{
    struct retained_list list;
    assert_int_equal(retained_find(retained, topic, strlen(topic), &list), 0);
    assert_int_equal(list.count, payload != NULL);
    if (payload) {
        struct retained_message *message = take(retained, list.handles[0], 0);
        assert_non_null(message);
        assert_int_equal(message->payload_length, strlen(payload));
        assert_memory_equal(message->bytes, topic, strlen(topic));
        assert_memory_equal(message->bytes + message->topic_length + message->properties_length, payload, strlen(payload));
        assert_int_equal(message->qos, 1);
        retained_release(message);
    }
    retained_list_fini(&list);
}

static void an_empty_payload_removes(void **state)
{
    (void)state;
    struct retained *retained = open_store(0, 0);
    size_t empty = status_of(retained).bytes;
    assert_int_equal(put(retained, "a/b", "one"), 0);
    assert_kept(retained, "a/b", "one");
    assert_int_equal(put(retained, "a/b", "two"), 0);
    assert_kept(retained, "a/b", "two");
    assert_int_equal(status_of(retained).count, 1);
    assert_int_equal(put(retained, "a/b", ""), 0);
    assert_kept(retained, "a/b", NULL);
    assert_int_equal(put(retained, "a/c", ""), 0);
    assert_kept(retained, "a/b", NULL);
    assert_int_equal(status_of(retained).count, 0);
    assert_true(status_of(retained).bytes <= empty + 2 * 64 * 16); /* the slots stay, and the table's */
    retained_close(retained);
}

static void properties_and_times_are_kept(void **state)
{
    (void)state;
    struct retained *retained = open_store(0, 0);
    struct message message = make("t", "x");
    message.properties = (const uint8_t *)"\x01\x01";
    message.properties_length = 2;
    message.time_ns = 77;
    message.flags = 2;
    uint64_t number;
    assert_int_equal(retained_put(retained, &message, &number), 0);
    struct retained_list list;
    assert_int_equal(retained_find(retained, "t", 1, &list), 0);
    struct retained_message *taken = take(retained, list.handles[0], 0);
    assert_int_equal(taken->time_ns, 77);
    assert_int_equal(taken->qos, 2);
    assert_memory_equal(taken->bytes, "t\x01\x01x", 4);
    assert_int_equal(put(retained, "t", "other"), 0);
    assert_memory_equal(taken->bytes, "t\x01\x01x", 4); /* whoever has it keeps it */
    assert_null(take(retained, list.handles[0], 0));    /* and it is not the topic's message any more */
    retained_release(taken);
    retained_list_fini(&list);
    retained_close(retained);
}

/* ---- finding ---- */

static const char *const levels[] = {"", "a", "b", "$SYS", "$x", "cc"};

static void make_topic(struct random_source *random, bool filter, char text[128])
{
    unsigned count = 1 + (unsigned)(random_u64(random) % 4);
    size_t length = 0;
    for (unsigned i = 0; i < count; i++) {
        const char *level = levels[random_u64(random) % (sizeof levels / sizeof *levels)];
        if (filter && random_u64(random) % 3 == 0)
            level = i + 1 == count && random_u64(random) % 2 ? "#" : "+";
        length += (size_t)snprintf(text + length, 128 - length, "%s%s", i ? "/" : "", level);
    }
    if (!length)
        snprintf(text, 128, "a");
}

static void filters_find_what_a_list_says(void **state)
{
    (void)state;
    enum { TOPICS = 120, ROUNDS = 4000 };
    struct random_source random = {.state = 5};
    struct retained *retained = open_store(0, 0);
    static char topics[TOPICS][128];
    bool kept[TOPICS] = {0};
    for (int i = 0; i < TOPICS; i++) {
        make_topic(&random, false, topics[i]);
        for (int j = 0; j < i; j++)
            if (strcmp(topics[i], topics[j]) == 0)
                topics[i][0] = 0; /* known already */
    }
    for (int round = 0; round < ROUNDS; round++) {
        size_t which = random_u64(&random) % TOPICS;
        if (*topics[which]) {
            kept[which] = random_u64(&random) % 3 > 0;
            assert_int_equal(put(retained, topics[which], kept[which] ? "x" : ""), 0);
        }
        char filter[128];
        make_topic(&random, true, filter);
        size_t expected = 0;
        for (int i = 0; i < TOPICS; i++)
            expected += kept[i] && mqtt_topic_matches(filter, strlen(filter), topics[i], strlen(topics[i]));
        struct retained_list list;
        assert_int_equal(retained_find(retained, filter, strlen(filter), &list), 0);
        if (list.count != expected)
            fail_msg("filter %s: %zu found, %zu expected", filter, list.count, expected);
        for (size_t i = 0; i < list.count; i++) {
            struct retained_message *found = take(retained, list.handles[i], 0);
            assert_true(mqtt_topic_matches(filter, strlen(filter), (const char *)found->bytes, found->topic_length));
            retained_release(found);
        }
        retained_list_fini(&list);
    }
    retained_close(retained);
}

static void the_deepest_topic_is_found(void **state)
{
    (void)state;
    struct retained *retained = open_store(0, 0);
    char topic[2 * MQTT_TOPIC_LEVELS_MAX];
    for (size_t i = 0; i < sizeof topic; i++)
        topic[i] = i % 2 ? '/' : 'l';
    topic[sizeof topic - 1] = 0;
    assert_int_equal(put(retained, topic, "deep"), 0);
    assert_kept(retained, topic, "deep");
    struct retained_list list;
    assert_int_equal(retained_find(retained, "l/#", 3, &list), 0);
    assert_int_equal(list.count, 1);
    retained_list_fini(&list);
    retained_close(retained);
}

/* ---- limits ---- */

static void what_does_not_fit_changes_nothing(void **state)
{
    (void)state;
    struct retained *retained = open_store(2, 0);
    assert_int_equal(put(retained, "a", "1"), 0);
    assert_int_equal(put(retained, "b", "1"), 0);
    size_t bytes = status_of(retained).bytes;
    assert_int_equal(put(retained, "c/d/e", "1"), ERR_LIMIT);
    assert_int_equal(status_of(retained).bytes, bytes);
    assert_int_equal(put(retained, "a", "2"), 0); /* in place of another */
    assert_int_equal(put(retained, "b", ""), 0);
    assert_int_equal(put(retained, "c/d/e", "1"), 0);
    assert_kept(retained, "a", "2");
    retained_close(retained);

    enum { ROOM = 16384 };
    retained = open_store(0, ROOM);
    static char large[ROOM];
    memset(large, 'x', sizeof large - 1);
    assert_int_equal(put(retained, "a", "small"), 0);
    assert_int_equal(put(retained, "a", large), ERR_LIMIT);
    assert_kept(retained, "a", "small");
    unsigned count = 0;
    for (char topic[16]; snprintf(topic, sizeof topic, "t%u", count), put(retained, topic, "payload") == 0;)
        count++;
    assert_in_range(count, 20, 200);
    assert_true(status_of(retained).bytes <= ROOM);
    retained_close(retained);
}

static void what_is_passing_has_a_limit_of_its_own(void **state)
{
    (void)state;
    struct retained *retained = open_store(1, 0);
    assert_int_equal(put(retained, "a", "1"), 0);
    char topic[16];
    uint64_t number = 0;
    for (int i = 0; i < RETAINED_PASSING_MAX + 1; i++) {
        snprintf(topic, sizeof topic, "$SYS/%d", i);
        struct message message = make(topic, "value");
        assert_int_equal(retained_put_passing(retained, &message, &number), i < RETAINED_PASSING_MAX ? 0 : ERR_LIMIT);
        assert_int_equal(retained_put_passing(retained, &message, &number), i < RETAINED_PASSING_MAX ? 0 : ERR_LIMIT);
    }
    assert_int_equal(status_of(retained).count, 1);
    assert_int_equal(put(retained, "b", "1"), ERR_LIMIT);
    assert_int_equal(put(retained, "a", "2"), 0);
    retained_close(retained);
}

static void what_has_expired_goes(void **state)
{
    (void)state;
    struct retained *retained = open_store(0, 0);
    struct message message = make("t", "x");
    message.properties = (const uint8_t *)"\x01\x01\x02\x00\x00\x00\x05";
    message.properties_length = 7;
    message.time_ns = 1000000000;
    uint64_t number;
    assert_int_equal(retained_put(retained, &message, &number), 0);
    assert_int_equal(put(retained, "u", "x"), 0);
    struct retained_list list;
    assert_int_equal(retained_find(retained, "t", 1, &list), 0);
    retained_release(take(retained, list.handles[0], 5999999999));
    assert_null(take(retained, list.handles[0], 6000000000));
    retained_list_fini(&list);
    assert_int_equal(retained_expire(retained, 5999999999), 0);
    assert_int_equal(status_of(retained).count, 2);
    assert_int_equal(retained_expire(retained, 6000000000), 1);
    assert_int_equal(retained_expire(retained, 6000000000), 0);
    assert_int_equal(status_of(retained).count, 1);
    assert_kept(retained, "t", NULL);
    retained_close(retained);
}

/* ---- threads ---- */

enum { THREAD_ROUNDS = 5000 };

static void *put_and_find(void *context)
{
    struct retained *retained = context;
    struct random_source random = {.state = (uint64_t)(uintptr_t)&random};
    for (int i = 0; i < THREAD_ROUNDS; i++) {
        char topic[16];
        snprintf(topic, sizeof topic, "t/%u", (unsigned)(random_u64(&random) % 10));
        const char *payload = random_u64(&random) % 4 ? "payload" : "";
        put(retained, topic, payload);
        struct retained_list list;
        if (i % 16 == 0 && retained_find(retained, "t/#", 3, &list) == 0) {
            struct retained_message *taken[10];
            size_t count = list.count < 10 ? list.count : 10;
            retained_take(retained, list.handles, count, 0, taken);
            for (size_t j = 0; j < count; j++)
                retained_release(taken[j]);
            retained_list_fini(&list);
        }
    }
    return NULL;
}

static void threads_share_it(void **state)
{
    (void)state;
    struct retained *retained = open_store(0, 0);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, put_and_find, retained), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 10; i++) {
        char topic[16];
        snprintf(topic, sizeof topic, "t/%d", i);
        put(retained, topic, "");
        assert_kept(retained, topic, NULL);
    }
    assert_int_equal(status_of(retained).count, 0);
    retained_close(retained);
}

/* ---- the stream ---- */

struct life {
    struct journal *journal;
    struct journal_stream *stream;
    struct retained *retained;
};

enum { SEGMENT = 1 << 20, SLACK = 1 << 18 };

static void begin_life(struct life *life, uint32_t messages_max)
{
    struct journal_options journal = {.disk = disk_posix(), .folder = test_folder, .segment_size = SEGMENT};
    assert_int_equal(journal_open(&life->journal, &journal), 0);
    struct journal_stream_options stream = {.name = "retained", .guarded = true, .retention_size = 1};
    assert_int_equal(journal_stream_add(life->journal, &stream, &life->stream), 0);
    assert_int_equal(journal_start(life->journal), 0);
    struct retained_options options = {.journal = life->journal, .stream = life->stream, .slack = SLACK, .messages_max = messages_max};
    assert_int_equal(retained_open(&options, &life->retained), 0);
}

static void end_life(struct life *life)
{
    retained_close(life->retained);
    journal_close(life->journal);
}

static void a_start_finds_what_was_there(void **state)
{
    (void)state;
    struct life life;
    begin_life(&life, 0);
    assert_int_equal(put(life.retained, "a", "1"), 0);
    assert_int_equal(put(life.retained, "b/c", "1"), 0);
    assert_int_equal(put(life.retained, "a", "2"), 0);
    assert_int_equal(put(life.retained, "d", "1"), 0);
    assert_int_equal(put(life.retained, "b/c", ""), 0);
    assert_int_equal(put(life.retained, "never", ""), 0);
    end_life(&life);
    begin_life(&life, 0);
    assert_int_equal(journal_stream_durable(life.stream), 5); /* there was nothing of "never" to remove */
    assert_kept(life.retained, "a", "2");
    assert_kept(life.retained, "b/c", NULL);
    assert_kept(life.retained, "d", "1");
    assert_int_equal(status_of(life.retained).count, 2);
    end_life(&life);
    begin_life(&life, 1); /* "d" comes when there is "a" and no room */
    assert_int_equal(status_of(life.retained).count, 1);
    assert_kept(life.retained, "a", "2");
    end_life(&life);
}

/* What was removed before is not read for ever. */
static void a_start_lets_go_of_what_is_done_with(void **state)
{
    (void)state;
    enum { TOPICS = 40, PAYLOAD = 100000 };
    struct life life;
    static char payload[PAYLOAD + 1];
    char topic[16];
    memset(payload, 'x', PAYLOAD);
    begin_life(&life, 0);
    for (int goes = 0; goes < 2; goes++) {
        for (int i = 0; i < TOPICS; i++) {
            snprintf(topic, sizeof topic, "t/%d", i);
            assert_int_equal(put(life.retained, topic, goes ? "" : payload), 0);
        }
    }
    end_life(&life);
    begin_life(&life, 0);
    uint64_t done_with = journal_stream_durable(life.stream); /* a start begins a segment */
    assert_int_equal(put(life.retained, "stays", payload), 0);
    end_life(&life);
    begin_life(&life, 0);
    struct journal_stream_stats stats;
    for (int i = 0; i < 10000; i++) { /* the keeper removes the segments when it comes to it */
        journal_stream_stats(life.stream, &stats);
        if (stats.first_offset == done_with)
            break;
        usleep(1000);
    }
    assert_int_equal(stats.first_offset, done_with);
    assert_kept(life.retained, "stays", payload);
    end_life(&life);
}

/* Topics change again and again, some go: the stream stays small, and a start finds each as it was last. */
static void the_stream_does_not_grow_with_time(void **state)
{
    (void)state;
    enum { TOPICS = 300, PUTS = 60000, PAYLOAD = 200 };
    struct random_source random = {.state = 9};
    struct life life;
    begin_life(&life, 0);
    int last[TOPICS];
    memset(last, -1, sizeof last);
    char topic[32], payload[PAYLOAD + 1];
    for (int i = 0; i < PUTS; i++) {
        unsigned which = (unsigned)(random_u64(&random) % TOPICS);
        if (which % 3 == 0 && i > TOPICS * 20)
            which = 1; /* a third of them never changes again */
        bool goes = random_u64(&random) % 8 == 0;
        snprintf(topic, sizeof topic, "$x/%u", which);
        snprintf(payload, sizeof payload, "%0*d", PAYLOAD, i);
        assert_int_equal(put(life.retained, topic, goes ? "" : payload), 0);
        last[which] = goes ? -1 : i;
        if (i % 20000 == 19999) {
            end_life(&life);
            begin_life(&life, 0);
        }
    }
    struct journal_stream_stats stats;
    journal_stream_stats(life.stream, &stats);
    assert_true(stats.first_offset > 0);
    assert_in_range(stats.bytes, 1, 6 * SEGMENT); /* of 18 MB that were written */
    end_life(&life);
    begin_life(&life, 0);
    for (unsigned i = 0; i < TOPICS; i++) {
        snprintf(topic, sizeof topic, "$x/%u", i);
        snprintf(payload, sizeof payload, "%0*d", PAYLOAD, last[i]);
        assert_kept(life.retained, topic, last[i] < 0 ? NULL : payload);
    }
    end_life(&life);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_payload_removes),
        cmocka_unit_test(properties_and_times_are_kept),
        cmocka_unit_test(filters_find_what_a_list_says),
        cmocka_unit_test(the_deepest_topic_is_found),
        cmocka_unit_test(what_does_not_fit_changes_nothing),
        cmocka_unit_test(what_is_passing_has_a_limit_of_its_own),
        cmocka_unit_test(what_has_expired_goes),
        cmocka_unit_test(threads_share_it),
        cmocka_unit_test_setup_teardown(a_start_finds_what_was_there, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_start_lets_go_of_what_is_done_with, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(the_stream_does_not_grow_with_time, test_folder_make, test_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
