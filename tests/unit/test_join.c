/* The join as a table of situations: messages and times in, decisions out. */
#include "join_fixture.h"

/* ---- complete sets ---- */

static void all_sides_are_answered_at_once(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    assert_waits(f);
    uint64_t c = add(f, 1, "k", TOY_C, "s", "", good, "x");
    assert_waits(f);
    uint64_t b = add(f, 2, "k", TOY_B, "s", "1", good, "x");
    assert_int_equal(f->out.count, 0);
    assert_answer(f, a, b, c);
    assert_true(deadline_s(f) < 0);
    assert_int_equal(f->join.open_count, 0);
}

static void keys_stamps_and_ids_keep_sets_apart(void **state)
{
    struct fixture *f = *state;
    uint64_t a1 = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    add(f, 0, "l", TOY_B, "s", "1", good, "x");
    assert_waits(f);
    add(f, 0, "k", TOY_B, "t", "1", good, "x");
    assert_waits(f);
    uint64_t a2 = add(f, 0, "k", TOY_A, "s", "2", good, "x"); /* two holes of one tool in one second */
    assert_waits(f);
    uint64_t b2 = add(f, 0, "k", TOY_B, "s", "2", good, "x");
    uint64_t b1 = add(f, 0, "k", TOY_B, "s", "1", good, "x");
    assert_int_equal(f->join.open_count, 4);
    uint64_t c1 = add(f, 0, "k", TOY_C, "s", "1", good, "x");
    assert_waits(f); /* the other was ready first */
    uint64_t c2 = add(f, 0, "k", TOY_C, "s", "2", good, "x");
    assert_answer(f, a2, b2, c2);
    assert_true(expire(f, 0));
    assert_answer(f, a1, b1, c1);
}

static void optional_side_is_waited_for_during_the_grace(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    assert_true(deadline_s(f) == WINDOW_S);
    uint64_t b = add(f, 10, "k", TOY_B, "s", "1", good, "x");
    assert_waits(f);
    assert_true(deadline_s(f) == 12);
    assert_false(expire(f, 11.999));
    assert_true(expire(f, 12));
    assert_int_equal(f->out.count, 0);
    assert_answer(f, a, b, none);
    assert_false(expire(f, 100));
    /* In time it ends the wait. */
    a = add(f, 100, "k", TOY_A, "t", "1", good, "x");
    b = add(f, 100, "k", TOY_B, "t", "1", good, "x");
    uint64_t c = add(f, 101, "k", TOY_C, "t", "1", good, "x");
    assert_answer(f, a, b, c);
}

static void grace_begins_with_the_last_required_side_even_beyond_the_window(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    uint64_t b = add(f, WINDOW_S - 1, "k", TOY_B, "s", "1", good, "x");
    assert_false(expire(f, WINDOW_S + 0.5));
    assert_true(expire(f, WINDOW_S - 1 + GRACE_S));
    assert_answer(f, a, b, none);
}

static void without_grace_required_sides_suffice(void **state)
{
    struct fixture *f = *state;
    struct join_options options = {.time_window_ns = SECOND};
    join_configure(&f->join, &options);
    uint64_t a = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    uint64_t b = add(f, 0, "k", TOY_B, "s", "1", good, "x");
    assert_answer(f, a, b, none);
}

static void options_change_for_open_sets(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    struct join_options options = {.time_window_ns = 5ull * SECOND};
    join_configure(&f->join, &options);
    assert_true(deadline_s(f) == 5);
    options.time_window_ns = UINT64_MAX;
    join_configure(&f->join, &options);
    assert_false(expire(f, 1e9)); /* for ever, without overflow */
    configure(f, PIPELINE_DUPLICATES_IGNORE);
    assert_true(expire(f, WINDOW_S));
    assert_only(f, a, QUEUE_DEAD_LETTERED, "unmatched");
}

/* ---- ids ---- */

static void unknown_id_fits_all(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "s", "", good, "x");
    uint64_t b = add(f, 0, "k", TOY_B, "s", "7", good, "x");
    assert_waits(f);
    assert_int_equal(f->join.open_count, 1);
    uint64_t c = add(f, 0, "k", TOY_C, "s", "8", good, "x"); /* now the set has an id */
    assert_waits(f);
    assert_int_equal(f->join.open_count, 2);
    (void)c;
    uint64_t c7 = add(f, 0, "k", TOY_C, "s", "", good, "x");
    assert_answer(f, a, b, c7);
}

static void message_without_id_prefers_a_set_that_lacks_it(void **state)
{
    struct fixture *f = *state;
    uint64_t a1 = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    uint64_t c1 = add(f, 0, "k", TOY_C, "s", "", good, "x");
    uint64_t a2 = add(f, 0, "k", TOY_A, "s", "2", good, "x");
    uint64_t c2 = add(f, 0, "k", TOY_C, "s", "", good, "y");
    assert_waits(f);
    uint64_t b2 = add(f, 0, "k", TOY_B, "s", "2", good, "x");
    assert_answer(f, a2, b2, c2);
    uint64_t b1 = add(f, 0, "k", TOY_B, "s", "1", good, "x");
    assert_answer(f, a1, b1, c1);
}

static void repeat_goes_to_the_set_of_its_id_not_to_a_free_slot(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_A, "s", "1", good, "x");
    add(f, 0, "k", TOY_B, "s", "2", good, "x");
    add(f, 0, "k", TOY_C, "s", "3", good, "x");
    uint64_t repeat = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    assert_only(f, repeat, QUEUE_DUPLICATE, NULL);
    /* Nor to a set that has no id yet. */
    add(f, 0, "l", TOY_C, "s", "", good, "x");
    uint64_t a = add(f, 0, "l", TOY_A, "s", "1", good, "x");
    uint64_t b = add(f, 0, "l", TOY_B, "s", "1", good, "x");
    assert_answer(f, a, b, b - 2);
    uint64_t c = add(f, 0, "l", TOY_C, "s", "", good, "x");
    assert_only(f, c, QUEUE_DUPLICATE, NULL);
}

/* ---- duplicates ---- */

static void duplicates_while_the_set_is_open(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    uint64_t same = add(f, 1, "k", TOY_A, "s", "1", good, "x");
    assert_only(f, same, QUEUE_DUPLICATE, NULL);
    uint64_t other = add(f, 1, "k", TOY_A, "s", "1", good, "y");
    assert_only(f, other, QUEUE_DUPLICATE, NULL); /* ignore: the first wins */

    configure(f, PIPELINE_DUPLICATES_ERROR);
    same = add(f, 1, "k", TOY_A, "s", "1", good, "x");
    assert_only(f, same, QUEUE_DEAD_LETTERED, "duplicate");
    other = add(f, 1, "k", TOY_A, "s", "1", good, "y");
    assert_only(f, other, QUEUE_DEAD_LETTERED, "duplicate");
    assert_string_equal(f->out.error, "a second a for k at s (id 1); the first one counts");

    configure(f, PIPELINE_DUPLICATES_REPLACE);
    same = add(f, 1, "k", TOY_A, "s", "1", good, "x");
    assert_only(f, same, QUEUE_DUPLICATE, NULL);
    other = add(f, 1, "k", TOY_A, "s", "1", good, "z");
    assert_only(f, a, QUEUE_DUPLICATE, NULL); /* the old one gives way */
    uint64_t b = add(f, 2, "k", TOY_B, "s", "1", good, "x");
    uint64_t c = add(f, 2, "k", TOY_C, "s", "1", good, "x");
    assert_string_equal(f->out.answer->members[TOY_A]->item.data, "z");
    assert_answer(f, other, b, c);
}

static void finished_set_is_never_answered_again(void **state)
{
    struct fixture *f = *state;
    for (unsigned policy = PIPELINE_DUPLICATES_IGNORE; policy <= PIPELINE_DUPLICATES_ERROR; policy++) {
        char stamp[8];
        snprintf(stamp, sizeof stamp, "s%u", policy);
        configure(f, (enum pipeline_duplicates)policy);
        add(f, 0, "k", TOY_A, stamp, "1", good, "x");
        add(f, 0, "k", TOY_B, stamp, "1", good, "x");
        add(f, 0, "k", TOY_C, stamp, "1", good, "x");
        assert_answer(f, f->offset - 3, f->offset - 2, f->offset - 1);
        for (unsigned side = TOY_A; side <= TOY_C; side++) {
            uint64_t repeat = add(f, 0, "k", side, stamp, side == TOY_C ? "" : "1", good, "other");
            if (policy == PIPELINE_DUPLICATES_ERROR)
                assert_only(f, repeat, QUEUE_DEAD_LETTERED, "duplicate");
            else
                assert_only(f, repeat, QUEUE_DUPLICATE, NULL);
        }
        add(f, 0, "k", TOY_A, stamp, "2", good, "x"); /* another id is another hole */
        assert_waits(f);
    }
    add(f, 0, "k", TOY_B, "s2", "1", good, "x");
    assert_string_equal(f->out.error, "a second b for k at s2 (id 1), which was answered");
}

static void late_optional_side_is_a_dead_letter(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_A, "s", "1", good, "x");
    add(f, 0, "k", TOY_B, "s", "1", good, "x");
    assert_true(expire(f, GRACE_S));
    assert_answer(f, 0, 1, none);
    uint64_t c = add(f, GRACE_S + 1, "k", TOY_C, "s", "", good, "x");
    assert_only(f, c, QUEUE_DEAD_LETTERED, "late");
    assert_string_equal(f->out.error, "the c came after the answer for k at s had gone without it");
    c = add(f, GRACE_S + 1, "k", TOY_C, "s", "1", good, "x");
    assert_only(f, c, QUEUE_DEAD_LETTERED, "late");
    assert_int_equal(f->join.open_count, 0);
}

static void late_message_prefers_an_open_set(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_A, "s", "1", good, "x");
    add(f, 0, "k", TOY_B, "s", "1", good, "x");
    assert_true(expire(f, GRACE_S));
    assert_answer(f, 0, 1, none);
    uint64_t a2 = add(f, 3, "k", TOY_A, "s", "2", good, "x");
    uint64_t c2 = add(f, 3, "k", TOY_C, "s", "", good, "x");
    assert_waits(f);
    uint64_t b2 = add(f, 3, "k", TOY_B, "s", "2", good, "x");
    assert_answer(f, a2, b2, c2);
    /* A known id of a finished set weighs more than an open set that knows none. */
    uint64_t c3 = add(f, 3, "k", TOY_C, "t", "", good, "x");
    struct set_name name = {.key = "k", .key_length = 1, .key_hash = set_key_hash("k", 1), .stamp = "t", .id = "9"};
    assert_int_equal(join_remember(&f->join, f->sequence++, &name, 3), 0);
    uint64_t repeat = add(f, 3, "k", TOY_A, "t", "9", good, "x");
    assert_only(f, repeat, QUEUE_DUPLICATE, NULL);
    (void)c3;
}

static void finished_sets_of_an_earlier_life_are_known(void **state)
{
    struct fixture *f = *state;
    struct set_name name = {.key = "k", .key_length = 1, .key_hash = set_key_hash("k", 1), .stamp = "s", .id = "1"};
    assert_int_equal(join_remember(&f->join, f->sequence++, &name, 3), 0);
    uint64_t a = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    assert_only(f, a, QUEUE_DUPLICATE, NULL);
    uint64_t c = add(f, 0, "k", TOY_C, "s", "1", good, "x");
    assert_only(f, c, QUEUE_DEAD_LETTERED, "late");
}

/* ---- messages that were given up and come again ---- */

static void late_side_that_comes_again_waits_for_its_hole(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_A, "s", "1", good, "x");
    add(f, 0, "k", TOY_B, "s", "1", good, "x");
    assert_true(expire(f, GRACE_S));
    assert_answer(f, 0, 1, none);
    assert_only(f, add(f, 3, "k", TOY_C, "s", "1", good, "x"), QUEUE_DEAD_LETTERED, "late");
    f->again = true;
    uint64_t c = add(f, 4, "k", TOY_C, "s", "1", good, "x");
    assert_waits(f);
    f->was_refused = true; /* the others were lost by a failure */
    uint64_t a = add(f, 4, "k", TOY_A, "s", "1", good, "x");
    uint64_t b = add(f, 4, "k", TOY_B, "s", "1", good, "x");
    assert_answer(f, a, b, c);
}

static void good_message_that_comes_again_after_the_answer_is_a_duplicate(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_A, "s", "1", good, "x");
    add(f, 0, "k", TOY_B, "s", "1", good, "x");
    add(f, 0, "k", TOY_C, "s", "1", good, "x");
    assert_answer(f, 0, 1, 2);
    f->again = true;
    assert_only(f, add(f, 1, "k", TOY_A, "s", "1", good, "x"), QUEUE_DUPLICATE, NULL);
}

static void refused_message_that_comes_again_is_not_its_own_duplicate(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_A, "s", "1", broken, "");
    uint64_t b = add(f, 0, "k", TOY_B, "s", "1", good, "x");
    uint64_t c = add(f, 0, "k", TOY_C, "s", "1", good, "x");
    assert_answer(f, 0, b, c);
    f->again = f->was_refused = true;
    uint64_t a = add(f, 1, "k", TOY_A, "s", "1", good, "x");
    assert_waits(f);
    assert_true(expire(f, 1 + WINDOW_S));
    assert_only(f, a, QUEUE_DEAD_LETTERED, "unmatched");
}

/* ---- broken messages ---- */

static void broken_message_has_its_set_answered(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "s", "1", broken, "");
    assert_waits(f);
    uint64_t b = add(f, 1, "k", TOY_B, "s", "1", good, "x");
    assert_waits(f);
    assert_true(expire(f, 1 + GRACE_S));
    assert_int_equal(f->out.count, 0);
    assert_true(f->out.answer->members[TOY_A]->item.broken);
    assert_answer(f, a, b, none);
    uint64_t repaired = add(f, 9, "k", TOY_A, "s", "1", good, "x");
    assert_only(f, repaired, QUEUE_DUPLICATE, NULL);
}

static void broken_message_alone_vanishes_silently(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_A, "s", "1", broken, "");
    add(f, 0, "k", TOY_B, "s", "1", broken, "");
    assert_waits(f);
    add(f, 0, "k", TOY_B, "s", "1", broken, "");
    assert_waits(f);
    assert_int_equal(f->join.waiting_count, 2);
    assert_true(expire(f, WINDOW_S));
    assert_waits(f);
    assert_int_equal(f->join.open_count, 0);
}

static void good_message_takes_the_place_of_a_broken_one(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_A, "s", "1", broken, "");
    uint64_t a = add(f, 1, "k", TOY_A, "s", "1", good, "x");
    assert_waits(f);
    add(f, 1, "k", TOY_A, "s", "1", broken, ""); /* and keeps it */
    assert_waits(f);
    uint64_t b = add(f, 2, "k", TOY_B, "s", "1", good, "x");
    uint64_t c = add(f, 2, "k", TOY_C, "s", "1", good, "x");
    assert_false(f->out.answer->members[TOY_A]->item.broken);
    assert_answer(f, a, b, c);
}

static void one_good_message_of_an_optional_side_is_enough_for_an_answer(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "s", "1", broken, "");
    uint64_t b = add(f, 0, "k", TOY_B, "s", "1", broken, "");
    uint64_t c = add(f, 0, "k", TOY_C, "s", "1", good, "x");
    assert_answer(f, a, b, c);
}

static void broken_message_of_a_finished_set_is_forgotten(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_A, "s", "1", good, "x");
    add(f, 0, "k", TOY_B, "s", "1", good, "x");
    add(f, 0, "k", TOY_C, "s", "1", good, "x");
    assert_answer(f, 0, 1, 2);
    add(f, 1, "k", TOY_A, "s", "1", broken, "");
    assert_waits(f);
    assert_int_equal(f->join.open_count, 0);
}

static void broken_and_lonely_good_message_is_unmatched(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_C, "s", "1", broken, "");
    uint64_t a = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    assert_true(expire(f, WINDOW_S));
    assert_only(f, a, QUEUE_DEAD_LETTERED, "unmatched"); /* the broken one is not settled twice */
}

/* ---- giving up ---- */

static void unmatched_messages_say_what_was_missing(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 1, "box/tool", TOY_A, "2025-06-23T14:07:43Z", "1210", good, "x");
    uint64_t c = add(f, 2, "box/tool", TOY_C, "2025-06-23T14:07:43Z", "", good, "x");
    assert_false(expire(f, 30.9));
    assert_true(expire(f, 31.5));
    assert_int_equal(f->out.count, 2);
    assert_settled(f, 0, a, QUEUE_DEAD_LETTERED, "unmatched");
    assert_settled(f, 1, c, QUEUE_DEAD_LETTERED, "unmatched");
    assert_string_equal(f->out.error, "no b for box/tool at 2025-06-23T14:07:43Z (id 1210); waited 30.500 s");
    add(f, 40, "k", TOY_C, "s", "", good, "x");
    assert_true(expire(f, 70));
    assert_string_equal(f->out.error, "no a, b for k at s; waited 30.000 s");
}

static void texts_are_cut_and_stay_utf8(void **state)
{
    struct fixture *f = *state;
    char key[200], stamp[STAGE_STAMP_MAX], id[STAGE_ID_MAX];
    memset(key, 0, sizeof key);
    key[0] = 'x';
    for (unsigned i = 1; i + 2 < sizeof key; i += 2)
        memcpy(key + i, "\xc3\xa9", 2); /* cut at 80 bytes: inside a character */
    memset(stamp, 's', sizeof stamp);
    stamp[sizeof stamp - 1] = 0;
    memset(id, 'i', sizeof id);
    id[sizeof id - 1] = 0;
    add(f, 0, key, TOY_A, stamp, id, good, "x");
    assert_true(expire(f, 30));
    assert_true(strlen(f->out.error) < STAGE_ERROR_TEXT_MAX);
    for (const char *at = f->out.error; *at; at++)
        assert_true((unsigned char)*at < 0x80 || (unsigned char)at[0] == 0xc3 || (unsigned char)at[0] == 0xa9);
    assert_non_null(strchr(f->out.error, '?'));
    add(f, 40, "\xff\xfe", TOY_A, "s", "", good, "x");
    assert_true(expire(f, 70));
    assert_string_equal(f->out.error, "no b for ?? at s; waited 30.000 s");
}

static void expires_in_order_of_time(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_A, "s", "", good, "x"); /* window: 30 */
    add(f, 1, "l", TOY_A, "s", "", good, "x"); /* with b below, grace: 29.5 */
    add(f, 2, "m", TOY_A, "s", "", good, "x"); /* window: 32 */
    add(f, 27.5, "l", TOY_B, "s", "", good, "x");
    assert_true(deadline_s(f) == 29.5);
    assert_true(expire(f, 100));
    assert_answer(f, 1, 3, none);
    assert_true(expire(f, 100));
    assert_only(f, 0, QUEUE_DEAD_LETTERED, "unmatched");
    assert_true(expire(f, 100));
    assert_only(f, 2, QUEUE_DEAD_LETTERED, "unmatched");
    assert_false(expire(f, 100));
}

static void oldest_set_makes_room(void **state)
{
    struct fixture *f = *state;
    assert_false(join_give_up_oldest(&f->join, 0, &f->out));
    assert_int_equal(join_oldest_set_ns(&f->join), UINT64_MAX);
    add(f, 1, "k", TOY_A, "s", "1", good, "x");
    add(f, 2, "l", TOY_A, "s", "1", good, "x");
    add(f, 3, "l", TOY_B, "s", "1", good, "x"); /* waits for the grace only */
    add(f, 4, "m", TOY_C, "s", "1", good, "x");
    add(f, 4, "n", TOY_C, "s", "1", broken, "");
    assert_int_equal(join_oldest_set_ns(&f->join), 1ull * SECOND);
    assert_true(join_give_up_oldest(&f->join, 5ull * SECOND, &f->out));
    assert_only(f, 0, QUEUE_DEAD_LETTERED, "overflow");
    assert_string_equal(f->out.error, "too many messages wait; given up: k at s (id 1); waited 4.000 s");
    assert_true(join_give_up_oldest(&f->join, 5ull * SECOND, &f->out)); /* nothing is lost by answering it now */
    assert_answer(f, 1, 2, none);
    assert_true(join_give_up_oldest(&f->join, 5ull * SECOND, &f->out));
    assert_only(f, 3, QUEUE_DEAD_LETTERED, "overflow");
    assert_true(join_give_up_oldest(&f->join, 5ull * SECOND, &f->out));
    assert_waits(f);
    assert_false(join_give_up_oldest(&f->join, 5ull * SECOND, &f->out));
}

/* ---- content that is put aside ---- */

static void content_is_dropped_and_read_again(void **state)
{
    struct fixture *f = *state;
    assert_false(join_drop_oldest_content(&f->join));
    uint64_t a = add(f, 1, "k", TOY_A, "s", "1", good, "x");
    uint64_t b = add(f, 2, "k", TOY_B, "s", "1", good, "y");
    assert_int_equal(f->join.held_bytes, 2000);
    assert_int_equal(join_oldest_content_ns(&f->join), 1ull * SECOND);
    assert_true(join_drop_oldest_content(&f->join));
    assert_int_equal(f->join.held_bytes, 1000);
    assert_int_equal(join_oldest_content_ns(&f->join), 2ull * SECOND);
    snprintf(f->reloaded, sizeof f->reloaded, "again");
    uint64_t c = add(f, 3, "k", TOY_C, "s", "1", good, "z");
    assert_int_equal(f->reloads, 1);
    assert_string_equal(f->out.answer->members[TOY_A]->item.data, "again");
    assert_string_equal(f->out.answer->members[TOY_B]->item.data, "y");
    assert_string_equal(f->out.answer->members[TOY_A]->item.stamp, "s");
    assert_answer(f, a, b, c);
}

static void dropped_content_is_compared_after_reading_it_again(void **state)
{
    struct fixture *f = *state;
    configure(f, PIPELINE_DUPLICATES_REPLACE);
    add(f, 1, "k", TOY_A, "s", "1", good, "x");
    assert_true(join_drop_oldest_content(&f->join));
    snprintf(f->reloaded, sizeof f->reloaded, "x");
    uint64_t same = add(f, 2, "k", TOY_A, "s", "1", good, "x");
    assert_only(f, same, QUEUE_DUPLICATE, NULL);
    assert_int_equal(f->reloads, 1);
    assert_int_equal(f->join.held_bytes, 1000);
    configure(f, PIPELINE_DUPLICATES_IGNORE);
    assert_true(join_drop_oldest_content(&f->join));
    uint64_t other = add(f, 2, "k", TOY_A, "s", "1", good, "y"); /* no need to look */
    assert_only(f, other, QUEUE_DUPLICATE, NULL);
    assert_int_equal(f->reloads, 1);
}

static void content_that_cannot_be_read_again_breaks_its_message(void **state)
{
    struct fixture *f = *state;
    f->reload_fails = true;
    uint64_t a = add(f, 1, "k", TOY_A, "s", "1", good, "x");
    uint64_t b = add(f, 2, "k", TOY_B, "s", "1", good, "y");
    assert_true(join_drop_oldest_content(&f->join));
    uint64_t c = add(f, 3, "k", TOY_C, "s", "1", good, "z");
    assert_int_equal(f->out.count, 1);
    assert_settled(f, 0, a, QUEUE_DEAD_LETTERED, "internal");
    assert_non_null(strstr(f->out.error, "k at s (id 1)"));
    assert_true(f->out.answer->members[TOY_A]->item.broken);
    assert_answer(f, a, b, c);
}

static void nothing_is_dropped_that_cannot_be_read_again(void **state)
{
    struct fixture *f = *state;
    join_set_reload(&f->join, NULL, NULL);
    add(f, 1, "k", TOY_A, "s", "1", good, "x");
    assert_false(join_drop_oldest_content(&f->join));
    assert_int_equal(f->join.held_bytes, 1000);
}

static void broken_messages_hold_nothing(void **state)
{
    struct fixture *f = *state;
    add(f, 1, "k", TOY_A, "s", "1", broken, "");
    assert_int_equal(f->join.held_bytes, 0);
    assert_false(join_drop_oldest_content(&f->join));
}

/* ---- stamps that need only be near ---- */

static void near_stamps_join(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "100", "", good, "x");
    add(f, 0, "k", TOY_B, "131", "", good, "x"); /* too far */
    assert_waits(f);
    assert_int_equal(f->join.open_count, 2);
    uint64_t b = add(f, 0, "k", TOY_B, "99", "", good, "x");
    assert_waits(f);
    assert_int_equal(f->join.open_count, 2);
    uint64_t c = add(f, 0, "k", TOY_C, "100", "", good, "x");
    assert_answer(f, a, b, c);
    /* Repeats are known by the stamp that they had themselves. */
    uint64_t repeat = add(f, 0, "k", TOY_B, "99", "", good, "x");
    assert_only(f, repeat, QUEUE_DUPLICATE, NULL);
    repeat = add(f, 0, "k", TOY_A, "100", "", good, "x");
    assert_only(f, repeat, QUEUE_DUPLICATE, NULL);
}

static void near_stamp_with_a_taken_slot_is_the_next_hole(void **state)
{
    struct fixture *f = *state;
    uint64_t a1 = add(f, 0, "k", TOY_A, "100", "", good, "x");
    uint64_t a2 = add(f, 0, "k", TOY_A, "110", "", good, "x");
    assert_waits(f);
    assert_int_equal(f->join.open_count, 2);
    uint64_t b1 = add(f, 0, "k", TOY_B, "105", "", good, "x"); /* the oldest that suits */
    uint64_t b2 = add(f, 0, "k", TOY_B, "106", "", good, "x");
    uint64_t c = add(f, 0, "k", TOY_C, "110", "", good, "x"); /* the equal stamp before the near one */
    assert_true(expire(f, GRACE_S));
    assert_answer(f, a1, b1, none);
    assert_true(expire(f, GRACE_S));
    assert_answer(f, a2, b2, c);
}

static void near_sets_with_other_ids_stay_apart(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_A, "100", "1", good, "x");
    add(f, 0, "k", TOY_B, "101", "2", good, "x");
    assert_int_equal(f->join.open_count, 2);
    uint64_t b = add(f, 0, "k", TOY_B, "102", "1", good, "x");
    assert_waits(f);
    assert_int_equal(f->join.open_count, 2);
    uint64_t c = add(f, 0, "k", TOY_C, "103", "1", good, "x");
    assert_answer(f, 0, b, c);
}

static void near_search_is_bounded(void **state)
{
    struct fixture *f = *state;
    uint64_t far = add(f, 0, "k", TOY_A, "1000", "", good, "x");
    for (unsigned i = 0; i < JOIN_NEAR_SETS_MAX; i++) {
        char stamp[16];
        snprintf(stamp, sizeof stamp, "%u", 2000 + i * 100);
        add(f, 0, "k", TOY_A, stamp, "", good, "x");
    }
    add(f, 0, "k", TOY_B, "1001", "", good, "x"); /* its partner lies behind too many others */
    assert_int_equal(f->join.open_count, JOIN_NEAR_SETS_MAX + 2);
    uint64_t b = add(f, 0, "k", TOY_B, "1000", "", good, "x"); /* an equal stamp is always found */
    assert_int_equal(f->join.open_count, JOIN_NEAR_SETS_MAX + 2);
    uint64_t c = add(f, 0, "k", TOY_C, "1000", "", good, "x");
    assert_answer(f, far, b, c);
}

/* ---- many ---- */

/* Counts the outcomes that were decided; returns how many sets were answered. */
static unsigned count_outcomes(struct fixture *f, uint8_t *settled)
{
    for (unsigned i = 0; i < f->out.count; i++)
        settled[f->out.settlements[i].offset]++;
    struct join_set *set = f->out.answer;
    if (!set)
        return 0;
    for (unsigned side = 0; side < TOY_SIDES; side++)
        if (set->members[side] && !set->members[side]->item.broken)
            settled[set->members[side]->offset]++;
    join_finish(&f->join, set, f->sequence++);
    return 1;
}

/* Every message gets exactly one outcome, whatever the order. */
static void random_traffic_settles_each_message_once(void **state)
{
    struct fixture *f = *state;
    enum { MESSAGES = 20000 };
    uint8_t *settled = calloc(MESSAGES, 1);
    uint64_t seed = 7, answers = 0;
    snprintf(f->reloaded, sizeof f->reloaded, "x");
    double at_s = 0;
    for (unsigned i = 0; i < MESSAGES; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned random = (unsigned)(seed >> 33);
        char key[8], stamp[16], id[8] = "";
        snprintf(key, sizeof key, "k%u", random % 10);
        snprintf(stamp, sizeof stamp, "%u", i / 40);
        if (random >> 4 & 1)
            snprintf(id, sizeof id, "%u", random >> 5 & 1);
        configure(f, (enum pipeline_duplicates)(random >> 6 & 3) % 3);
        const char *kind = (random >> 8) % 16 ? good : broken;
        at_s += 0.01;
        while (expire(f, at_s))
            answers += count_outcomes(f, settled);
        uint64_t offset = add(f, at_s, key, (random >> 12) % TOY_SIDES, stamp, id, kind, random >> 20 & 1 ? "x" : "y");
        if (kind == broken)
            settled[offset]++;
        answers += count_outcomes(f, settled);
        if (random >> 22 & 1)
            join_drop_oldest_content(&f->join);
    }
    while (expire(f, 1e6))
        answers += count_outcomes(f, settled);
    for (unsigned i = 0; i < MESSAGES; i++)
        assert_int_equal(settled[i], 1);
    assert_true(answers > 1000);
    assert_int_equal(f->join.open_count, 0);
    free(settled);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_sides_are_answered_at_once),
        TEST(keys_stamps_and_ids_keep_sets_apart),
        TEST(optional_side_is_waited_for_during_the_grace),
        TEST(grace_begins_with_the_last_required_side_even_beyond_the_window),
        TEST(without_grace_required_sides_suffice),
        TEST(options_change_for_open_sets),
        TEST(unknown_id_fits_all),
        TEST(message_without_id_prefers_a_set_that_lacks_it),
        TEST(repeat_goes_to_the_set_of_its_id_not_to_a_free_slot),
        TEST(duplicates_while_the_set_is_open),
        TEST(finished_set_is_never_answered_again),
        TEST(late_optional_side_is_a_dead_letter),
        TEST(late_message_prefers_an_open_set),
        TEST(finished_sets_of_an_earlier_life_are_known),
        TEST(broken_message_has_its_set_answered),
        TEST(broken_message_alone_vanishes_silently),
        TEST(good_message_takes_the_place_of_a_broken_one),
        TEST(one_good_message_of_an_optional_side_is_enough_for_an_answer),
        TEST(late_side_that_comes_again_waits_for_its_hole),
        TEST(good_message_that_comes_again_after_the_answer_is_a_duplicate),
        TEST(refused_message_that_comes_again_is_not_its_own_duplicate),
        TEST(broken_message_of_a_finished_set_is_forgotten),
        TEST(broken_and_lonely_good_message_is_unmatched),
        TEST(unmatched_messages_say_what_was_missing),
        TEST(texts_are_cut_and_stay_utf8),
        TEST(expires_in_order_of_time),
        TEST(oldest_set_makes_room),
        TEST(content_is_dropped_and_read_again),
        TEST(dropped_content_is_compared_after_reading_it_again),
        TEST(content_that_cannot_be_read_again_breaks_its_message),
        TEST(nothing_is_dropped_that_cannot_be_read_again),
        TEST(broken_messages_hold_nothing),
        TEST_NEAR(near_stamps_join),
        TEST_NEAR(near_stamp_with_a_taken_slot_is_the_next_hole),
        TEST_NEAR(near_sets_with_other_ids_stay_apart),
        TEST_NEAR(near_search_is_bounded),
        TEST(random_traffic_settles_each_message_once),
    };
    return cmocka_run_group_tests_name("join", tests, NULL, NULL);
}
