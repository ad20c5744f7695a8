/* What is known of other brokers after a restart: identifiers of QoS 2 that are taken, cursors of what was published, who we are. */
#include <string.h>

#include "base/error.h"
#include "folder.h"
#include "ingest/notes.h"
#include "journal/journal.h"
#include "queue/embedded.h"
#include "unit.h"

enum { SESSION = 77, OTHER = 89, CLIENT = 88 };

struct fixture {
    struct journal *journal;
    struct queue *queue;
    struct queue_producer *producer;
    struct notes notes;
    bool taken[65536];
};

static void no_notice(void *context)
{
    (void)context;
}

static void start(struct fixture *f)
{
    static const char *const names[] = {"ingest", "bus", "results", "dead-letters", "outcomes", "brokers"};
    struct journal_stream *streams[6];
    *f = (struct fixture){0};
    struct journal_options options = {.disk = disk_posix(), .folder = test_folder, .segment_size = 1 << 20};
    assert_int_equal(journal_open(&f->journal, &options), 0);
    for (unsigned i = 0; i < 6; i++) {
        struct journal_stream_options stream = {.name = names[i], .scribe = i >= 2 && i < 5, .guarded = i != 3};
        assert_int_equal(journal_stream_add(f->journal, &stream, &streams[i]), 0);
    }
    struct queue_embedded_options queue = {.journal = f->journal,
                                           .data_folder = test_folder,
                                           .ingest = streams[0],
                                           .kept = streams[1],
                                           .results = streams[2],
                                           .dead_letters = streams[3],
                                           .outcomes = streams[4],
                                           .noted = streams[5],
                                           .holders = 1u << QUEUE_HOLDER_BROKERS};
    assert_int_equal(queue_embedded_open(&f->queue, &queue), 0);
    assert_int_equal(journal_start(f->journal), 0);
    assert_int_equal(f->queue->ops->producer_open(f->queue, no_notice, NULL, &f->producer), 0);
    assert_int_equal(notes_load(&f->notes, f->queue), 0);
}

/* As after a crash: what was sent off is on disk, and nothing else is done. */
static void stop(struct fixture *f)
{
    f->producer->ops->close(f->producer);
    journal_stop(f->journal);
    f->queue->ops->close(f->queue);
    journal_close(f->journal);
    notes_fini(&f->notes);
}

static void again(struct fixture *f)
{
    stop(f);
    start(f);
}

static void receive(struct fixture *f, enum queue_destination to, uint64_t session, uint16_t packet_id)
{
    struct message message = {.topic = "t", .topic_length = 1, .payload = (const uint8_t *)"p", .payload_length = 1, .flags = 2};
    struct queue_origin origin = {.session = session, .sequence = ++f->notes.sequence, .packet_id = packet_id};
    assert_int_equal(f->producer->ops->append_from(f->producer, to, &message, &origin, 0), 0);
    f->producer->ops->submit(f->producer);
}

static void release(struct fixture *f, uint64_t session, uint16_t packet_id)
{
    assert_int_equal(notes_release(&f->notes, session, packet_id), 0);
    assert_int_equal(notes_write(&f->notes, f->producer, 0), 0);
    f->producer->ops->submit(f->producer);
}

static int note_taken(void *context, uint16_t packet_id)
{
    struct fixture *f = context;
    assert_false(f->taken[packet_id]);
    f->taken[packet_id] = true;
    return 0;
}

/* Takes the session over; whether exactly these identifiers are held, ended by 0. */
static void expect_held(struct fixture *f, uint64_t session, const uint16_t *ids)
{
    memset(f->taken, 0, sizeof f->taken);
    assert_int_equal(notes_take_session(&f->notes, session, note_taken, f), 0);
    unsigned held = 0, expected = 0;
    for (unsigned i = 0; i < 65536; i++)
        held += f->taken[i];
    for (; ids[expected]; expected++)
        assert_true(f->taken[ids[expected]]);
    assert_int_equal(held, expected);
}

/* An owner who holds what was taken over. */
static int each_taken(void *owner, notes_put *put, void *context)
{
    struct fixture *f = owner;
    int error = 0;
    for (unsigned i = 1; i < 65536 && !error; i++)
        if (f->taken[i])
            error = put(context, SESSION, (uint16_t)i);
    return error;
}

static void checkpoint(struct fixture *f)
{
    assert_int_equal(notes_checkpoint(&f->notes, f->queue, f->producer, each_taken, f, 0), 0);
    f->notes.dirty_cursors = 0;
    f->producer->ops->submit(f->producer);
}

static void identifiers_are_held_until_they_are_given_back(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    uint64_t instance = f.notes.instance;
    assert_true(instance != 0);
    checkpoint(&f);
    receive(&f, QUEUE_KEPT, SESSION, 1);
    receive(&f, QUEUE_CONSUMED, SESSION, 2);
    receive(&f, QUEUE_CONSUMED, SESSION, 65535);
    receive(&f, QUEUE_KEPT, OTHER, 2);
    receive(&f, QUEUE_KEPT, SESSION, 0); /* QoS 1 */
    release(&f, SESSION, 2);
    again(&f);
    assert_int_equal(f.notes.instance, instance);
    assert_int_equal(f.notes.sequence, 5);
    expect_held(&f, SESSION, (uint16_t[]){1, 65535, 0});
    expect_held(&f, OTHER, (uint16_t[]){2, 0});
    expect_held(&f, 99, (uint16_t[]){0});
    stop(&f);
}

static void an_identifier_that_is_used_again_is_held_again(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    checkpoint(&f);
    for (int round = 0; round < 3; round++) {
        receive(&f, round % 2 ? QUEUE_KEPT : QUEUE_CONSUMED, SESSION, 9);
        again(&f);
        expect_held(&f, SESSION, (uint16_t[]){9, 0});
        release(&f, SESSION, 9);
        again(&f);
        expect_held(&f, SESSION, (uint16_t[]){0});
    }
    stop(&f);
}

static void a_checkpoint_holds_all_that_is_known(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    checkpoint(&f);
    receive(&f, QUEUE_KEPT, SESSION, 3);
    receive(&f, QUEUE_KEPT, SESSION, 4);
    receive(&f, QUEUE_KEPT, OTHER, 5);
    struct notes_cursor *cursor = notes_cursor(&f.notes, 1234, true);
    *cursor = (struct notes_cursor){1234, 5, 10, 7};
    again(&f); /* the cursor was not noted */
    assert_null(notes_cursor(&f.notes, 1234, false));
    cursor = notes_cursor(&f.notes, 1234, true);
    *cursor = (struct notes_cursor){1234, 5, 10, 7};
    expect_held(&f, SESSION, (uint16_t[]){3, 4, 0});
    checkpoint(&f); /* nobody has taken OTHER over: it is kept */
    release(&f, SESSION, 3);
    again(&f);
    assert_int_equal(f.notes.sequence, 3);
    expect_held(&f, SESSION, (uint16_t[]){4, 0});
    expect_held(&f, OTHER, (uint16_t[]){5, 0});
    cursor = notes_cursor(&f.notes, 1234, false);
    assert_non_null(cursor);
    assert_int_equal(cursor->received, 10);
    assert_int_equal(cursor->completed, 7);
    cursor->completed = 9;
    notes_cursor_changed(&f.notes, cursor);
    assert_int_equal(notes_write_cursors(&f.notes, f.producer, 0), 0);
    f.producer->ops->submit(f.producer);
    again(&f);
    assert_int_equal(notes_cursor(&f.notes, 1234, false)->completed, 9);
    stop(&f);
}

static void a_session_that_began_anew_holds_nothing(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    checkpoint(&f);
    receive(&f, QUEUE_KEPT, SESSION, 3);
    receive(&f, QUEUE_KEPT, OTHER, 3);
    release(&f, SESSION, 0);
    receive(&f, QUEUE_KEPT, SESSION, 8);
    again(&f);
    expect_held(&f, SESSION, (uint16_t[]){8, 0});
    expect_held(&f, OTHER, (uint16_t[]){3, 0});
    stop(&f);
}

static void foreign_notes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *topic;
        size_t length;
        int error;
    } rows[] = {{"what", 8, ERR_CORRUPT},
                {"checkpoint", 48, ERR_FORMAT_VERSION},
                {"checkpoint", 8, ERR_FORMAT_VERSION},
                {"released", 8, ERR_CORRUPT},
                {"cursor", 24, ERR_CORRUPT},
                {"checkpoint", 0, ERR_CORRUPT}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fixture f;
        uint8_t payload[64];
        memset(payload, 0xee, sizeof payload);
        assert_int_equal(test_folder_make(NULL), 0);
        start(&f);
        struct message note = {.topic = rows[i].topic,
                               .topic_length = (uint32_t)strlen(rows[i].topic),
                               .payload = payload,
                               .payload_length = (uint32_t)rows[i].length};
        assert_int_equal(f.producer->ops->append(f.producer, QUEUE_NOTED, &note, 0), 0);
        f.producer->ops->submit(f.producer);
        f.producer->ops->close(f.producer);
        assert_int_equal(f.queue->ops->producer_open(f.queue, no_notice, NULL, &f.producer), 0);
        struct notes notes;
        assert_int_equal(notes_load(&notes, f.queue), rows[i].error);
        notes_fini(&notes);
        stop(&f);
        assert_int_equal(test_folder_remove(NULL), 0);
    }
}

/* Messages of our own clients' sessions lie in the same streams. They count on their own. */
static void sessions_of_our_own_clients_are_passed_over(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    checkpoint(&f);
    receive(&f, QUEUE_KEPT, SESSION, 1);
    uint64_t sequence = f.notes.sequence;
    f.notes.sequence = 1000;
    receive(&f, QUEUE_KEPT, CLIENT, 2);
    receive(&f, QUEUE_CONSUMED, CLIENT, 3);
    again(&f);
    assert_int_equal(f.notes.sequence, sequence);
    expect_held(&f, CLIENT, (uint16_t[]){0});
    expect_held(&f, SESSION, (uint16_t[]){1, 0});
    stop(&f);
}

static void cursors_have_a_limit(void **state)
{
    (void)state;
    struct notes notes = {0};
    for (uint64_t name = 1; name <= NOTES_CURSORS_MAX; name++)
        assert_non_null(notes_cursor(&notes, name, true));
    assert_null(notes_cursor(&notes, NOTES_CURSORS_MAX + 1, true));
    assert_non_null(notes_cursor(&notes, 5, true));
    notes_fini(&notes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(identifiers_are_held_until_they_are_given_back, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(an_identifier_that_is_used_again_is_held_again, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_checkpoint_holds_all_that_is_known, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_session_that_began_anew_holds_nothing, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(sessions_of_our_own_clients_are_passed_over, test_folder_make, test_folder_remove),
        cmocka_unit_test(foreign_notes_are_refused),
        cmocka_unit_test(cursors_have_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
