/* The join where ids disagree, where sets wait for their turn, and where very many share a stamp. */
#include "join_fixture.h"

/* ---- ids that disagree ---- */

static void sets_whose_ids_disagree_are_answered_as_one_after_the_window(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "s", "440", good, "x");
    uint64_t b = add(f, 1, "k", TOY_B, "s", "441", good, "x");
    uint64_t c = add(f, 1, "k", TOY_C, "s", "", good, "x");
    assert_waits(f);
    assert_false(expire(f, 29.9)); /* the partner of the right id may still come */
    assert_true(expire(f, 30));
    assert_int_equal(f->out.count, 0);
    assert_true(f->out.answer->mismatched);
    assert_answer(f, a, b, c);
    assert_false(expire(f, 100));
    assert_int_equal(f->join.open_count, 0);
    /* Repeats are known by the ids that they have themselves; what has no id belongs to both. */
    assert_only(f, add(f, 31, "k", TOY_A, "s", "440", good, "x"), QUEUE_DUPLICATE, NULL);
    assert_only(f, add(f, 31, "k", TOY_B, "s", "441", good, "x"), QUEUE_DUPLICATE, NULL);
    assert_only(f, add(f, 31, "k", TOY_C, "s", "", good, "x"), QUEUE_DUPLICATE, NULL);
    /* The partner of the right id comes too late. It is not swallowed. */
    uint64_t late = add(f, 31, "k", TOY_B, "s", "440", good, "x");
    assert_waits(f);
    assert_true(expire(f, 61));
    assert_only(f, late, QUEUE_DEAD_LETTERED, "unmatched");
}

static void partner_of_the_right_id_is_never_passed_over(void **state)
{
    struct fixture *f = *state;
    uint64_t a1 = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    uint64_t b2 = add(f, 0, "k", TOY_B, "s", "2", good, "x");
    add(f, 0, "k", TOY_C, "s", "1", good, "x");
    uint64_t b1 = add(f, 29, "k", TOY_B, "s", "1", good, "x");
    assert_answer(f, a1, b1, 2);
    assert_true(expire(f, 30));
    assert_only(f, b2, QUEUE_DEAD_LETTERED, "unmatched"); /* what was answered is no partner */
    /* Nor is a set that is complete by itself, or has the same side. */
    uint64_t a3 = add(f, 50, "k", TOY_A, "t", "3", good, "x");
    uint64_t a4 = add(f, 50, "k", TOY_A, "t", "4", good, "x");
    uint64_t a5 = add(f, 79, "k", TOY_A, "t", "5", good, "x");
    uint64_t b5 = add(f, 79, "k", TOY_B, "t", "5", good, "x");
    assert_true(expire(f, 80));
    assert_only(f, a3, QUEUE_DEAD_LETTERED, "unmatched");
    assert_true(expire(f, 80));
    assert_only(f, a4, QUEUE_DEAD_LETTERED, "unmatched");
    assert_true(expire(f, 81));
    assert_answer(f, a5, b5, none);
}

static void of_three_sets_two_are_put_together_once(void **state)
{
    struct fixture *f = *state;
    uint64_t b1 = add(f, 0, "k", TOY_B, "s", "1", good, "x");
    uint64_t a2 = add(f, 1, "k", TOY_A, "s", "2", good, "x");
    uint64_t a3 = add(f, 2, "k", TOY_A, "s", "3", good, "x");
    assert_true(expire(f, 40));
    assert_answer(f, a2, b1, none); /* the one that came first */
    assert_true(expire(f, 40));
    assert_only(f, a3, QUEUE_DEAD_LETTERED, "unmatched");
    assert_false(expire(f, 100));
}

static void optional_side_of_both_is_kept_once(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    uint64_t c1 = add(f, 0, "k", TOY_C, "s", "1", good, "x");
    uint64_t b = add(f, 0, "k", TOY_B, "s", "2", good, "x");
    uint64_t c2 = add(f, 0, "k", TOY_C, "s", "2", good, "x");
    configure(f, PIPELINE_DUPLICATES_ERROR);
    assert_true(expire(f, 30));
    assert_int_equal(f->out.count, 1);
    assert_settled(f, 0, c2, QUEUE_DUPLICATE, NULL);
    assert_answer(f, a, b, c1);
}

static void broken_member_under_another_id_is_answered_too(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "s", "1", broken, "");
    uint64_t b = add(f, 0, "k", TOY_B, "s", "2", good, "x");
    assert_true(expire(f, 30));
    assert_int_equal(f->out.count, 0);
    assert_answer(f, a, b, none);
    add(f, 50, "k", TOY_A, "t", "1", broken, "");
    add(f, 50, "k", TOY_B, "t", "2", broken, "");
    assert_true(expire(f, 80)); /* nothing good: nothing to answer */
    assert_waits(f);
    assert_true(expire(f, 80));
    assert_waits(f);
    assert_false(expire(f, 100));
}

static void mismatch_is_answered_behind_older_sets_in_their_grace(void **state)
{
    struct fixture *f = *state;
    uint64_t a1 = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    uint64_t b2 = add(f, 0, "k", TOY_B, "s", "2", good, "x");
    uint64_t a3 = add(f, 29, "k", TOY_A, "t", "3", good, "x");
    uint64_t b3 = add(f, 29, "k", TOY_B, "t", "3", good, "x");
    assert_true(expire(f, 30));
    assert_waits(f);
    assert_true(deadline_s(f) == 31);
    assert_false(expire(f, 30.5));
    assert_true(expire(f, 31));
    assert_answer(f, a3, b3, none);
    assert_true(expire(f, 31));
    assert_answer(f, a1, b2, none);
}

static void near_sets_whose_ids_disagree_need_a_stamp_in_common(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add(f, 0, "k", TOY_A, "100", "1", good, "x");
    uint64_t b = add(f, 0, "k", TOY_B, "101", "2", good, "x");
    assert_true(expire(f, 30));
    assert_only(f, a, QUEUE_DEAD_LETTERED, "unmatched");
    assert_true(expire(f, 30));
    assert_only(f, b, QUEUE_DEAD_LETTERED, "unmatched");
    /* A set is called by its first message, which may be of a side that does not matter. */
    uint64_t c = add(f, 50, "k", TOY_C, "202", "", good, "x");
    a = add(f, 50, "k", TOY_A, "200", "1", good, "x");
    b = add(f, 51, "k", TOY_B, "200", "2", good, "x");
    assert_true(expire(f, 80));
    assert_answer(f, a, b, c);
    assert_only(f, add(f, 81, "k", TOY_B, "200", "2", good, "x"), QUEUE_DUPLICATE, NULL);
    assert_only(f, add(f, 81, "k", TOY_C, "202", "", good, "x"), QUEUE_DUPLICATE, NULL);
}

/* ---- order ---- */

static void complete_set_waits_behind_older_ones_of_its_key_in_their_grace(void **state)
{
    struct fixture *f = *state;
    uint64_t a1 = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    uint64_t b1 = add(f, 0, "k", TOY_B, "s", "1", good, "x");
    uint64_t first2 = f->offset;
    add(f, 1, "k", TOY_A, "t", "2", good, "x");
    add(f, 1, "k", TOY_B, "t", "2", good, "x");
    add(f, 1, "k", TOY_C, "t", "2", good, "x");
    assert_waits(f);
    uint64_t first3 = f->offset;
    add(f, 1.5, "k", TOY_A, "u", "3", good, "x");
    add(f, 1.5, "k", TOY_B, "u", "3", good, "x");
    add(f, 1.5, "k", TOY_C, "u", "3", good, "x");
    assert_waits(f);
    assert_only(f, add(f, 1.5, "k", TOY_C, "u", "3", good, "x"), QUEUE_DUPLICATE, NULL);
    /* Another key does not wait. */
    add(f, 1.5, "l", TOY_A, "s", "1", good, "x");
    add(f, 1.5, "l", TOY_B, "s", "1", good, "x");
    add(f, 1.5, "l", TOY_C, "s", "1", good, "x");
    assert_answer(f, f->offset - 3, f->offset - 2, f->offset - 1);
    assert_true(expire(f, 2));
    assert_answer(f, a1, b1, none);
    assert_true(deadline_s(f) == 0); /* the others follow at once */
    assert_true(expire(f, 0));
    assert_answer(f, first2, first2 + 1, first2 + 2);
    assert_true(expire(f, 0));
    assert_answer(f, first3, first3 + 1, first3 + 2);
    assert_false(expire(f, 100));
}

static void late_side_of_the_first_lets_the_others_go(void **state)
{
    struct fixture *f = *state;
    uint64_t a1 = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    uint64_t b1 = add(f, 0, "k", TOY_B, "s", "1", good, "x");
    uint64_t a2 = add(f, 0, "k", TOY_A, "t", "2", good, "x");
    uint64_t b2 = add(f, 0.5, "k", TOY_B, "t", "2", good, "x");
    uint64_t c2 = add(f, 1, "k", TOY_C, "t", "2", good, "x");
    assert_waits(f);
    uint64_t c1 = add(f, 1, "k", TOY_C, "s", "1", good, "x");
    assert_answer(f, a1, b1, c1);
    assert_true(expire(f, 1));
    assert_answer(f, a2, b2, c2);
}

static void nothing_waits_behind_a_set_that_is_not_ready(void **state)
{
    struct fixture *f = *state;
    add(f, 0, "k", TOY_A, "s", "1", good, "x");
    add(f, 0, "k", TOY_C, "s", "1", good, "x");
    uint64_t a2 = add(f, 0, "k", TOY_A, "t", "2", good, "x");
    uint64_t b2 = add(f, 0, "k", TOY_B, "t", "2", good, "x");
    uint64_t c2 = add(f, 0, "k", TOY_C, "t", "2", good, "x");
    assert_answer(f, a2, b2, c2);
}

static void what_waits_for_its_turn_makes_room_in_turn(void **state)
{
    struct fixture *f = *state;
    uint64_t a1 = add(f, 0, "k", TOY_A, "s", "1", good, "x");
    uint64_t b1 = add(f, 0, "k", TOY_B, "s", "1", good, "x");
    uint64_t a2 = add(f, 0, "k", TOY_A, "t", "2", good, "x");
    uint64_t b2 = add(f, 0, "k", TOY_B, "t", "2", good, "x");
    uint64_t c2 = add(f, 0, "k", TOY_C, "t", "2", good, "x");
    assert_waits(f);
    assert_true(join_give_up_oldest(&f->join, SECOND, &f->out));
    assert_answer(f, a1, b1, none);
    assert_int_equal(join_oldest_set_ns(&f->join), 0);
    assert_true(join_give_up_oldest(&f->join, SECOND, &f->out));
    assert_answer(f, a2, b2, c2);
    /* Without grace from now on, what waited in it goes, in order. */
    add(f, 10, "k", TOY_A, "u", "1", good, "x");
    add(f, 10, "k", TOY_B, "u", "1", good, "x");
    struct join_options options = {.time_window_ns = (uint64_t)WINDOW_S * SECOND};
    join_configure(&f->join, &options);
    uint64_t a4 = add(f, 10, "k", TOY_A, "v", "1", good, "x");
    uint64_t b4 = add(f, 10, "k", TOY_B, "v", "1", good, "x");
    assert_waits(f);
    assert_true(expire(f, 10));
    assert_answer(f, a4 - 2, a4 - 1, none);
    assert_true(expire(f, 10));
    assert_answer(f, a4, b4, none);
}

/* ---- many ids under one stamp ---- */

static size_t longest_chain(const struct hash_table *table)
{
    size_t longest = 0;
    for (size_t i = 0; i < table->bucket_count; i++) {
        size_t length = 0;
        for (const struct hash_node *node = table->buckets[i]; node; node = node->next)
            length++;
        longest = length > longest ? length : longest;
    }
    return longest;
}

/* A look-up walks one chain of each table and asks for the sets by their sides; so none takes more steps than this, however many there
 * are. */
static void assert_look_ups_are_short(const struct join *join)
{
    enum { STEPS_MAX = 16 };
    assert_true(longest_chain(&join->ids) <= STEPS_MAX);
    assert_true(longest_chain(&join->stamps) <= STEPS_MAX);
    assert_true(longest_chain(&join->keys) <= STEPS_MAX);
    assert_true(longest_chain(&join->finished.ids) <= STEPS_MAX);
    assert_true(longest_chain(&join->finished.stamps) <= STEPS_MAX);
}

static void many_ids_of_one_stamp_are_found_in_few_steps(void **state)
{
    struct fixture *f = *state;
    enum { IDS = 100000 };
    char id[16];
    join_fini(&f->join);
    join_init(&f->join, &f->toy.stage, IDS);
    configure(f, PIPELINE_DUPLICATES_IGNORE);
    for (unsigned i = 0; i < IDS; i++) {
        snprintf(id, sizeof id, "%u", i);
        add(f, 0, "k", TOY_A, "s", id, good, "x");
        assert_waits(f);
    }
    assert_int_equal(f->join.open_count, IDS);
    assert_look_ups_are_short(&f->join);
    assert_only(f, add(f, 0, "k", TOY_A, "s", "", good, "x"), QUEUE_DUPLICATE, NULL); /* nameless: none lacks it */
    for (unsigned i = IDS; i-- > 0;) {
        snprintf(id, sizeof id, "%u", i);
        uint64_t c = add(f, 1, "k", TOY_C, "s", id, good, "x");
        assert_waits(f);
        uint64_t b = add(f, 1, "k", TOY_B, "s", id, good, "x");
        assert_answer(f, i, b, c);
    }
    assert_int_equal(finished_count(&f->join.finished), IDS);
    assert_look_ups_are_short(&f->join);
    assert_only(f, add(f, 2, "k", TOY_B, "s", "77", good, "x"), QUEUE_DUPLICATE, NULL);
    assert_only(f, add(f, 2, "k", TOY_C, "s", "", good, "x"), QUEUE_DUPLICATE, NULL);
    add(f, 2, "k", TOY_A, "s", "other", good, "x");
    assert_waits(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(sets_whose_ids_disagree_are_answered_as_one_after_the_window),
        TEST(partner_of_the_right_id_is_never_passed_over),
        TEST(of_three_sets_two_are_put_together_once),
        TEST(optional_side_of_both_is_kept_once),
        TEST(broken_member_under_another_id_is_answered_too),
        TEST(mismatch_is_answered_behind_older_sets_in_their_grace),
        TEST_NEAR(near_sets_whose_ids_disagree_need_a_stamp_in_common),
        TEST(complete_set_waits_behind_older_ones_of_its_key_in_their_grace),
        TEST(late_side_of_the_first_lets_the_others_go),
        TEST(nothing_waits_behind_a_set_that_is_not_ready),
        TEST(what_waits_for_its_turn_makes_room_in_turn),
        TEST(many_ids_of_one_stamp_are_found_in_few_steps),
    };
    return cmocka_run_group_tests_name("join_order", tests, NULL, NULL);
}
