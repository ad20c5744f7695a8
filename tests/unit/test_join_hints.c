/* The join where the id of an optional side is a hint: it chooses among the sets of one stamp, and keeps its message from none. */
#include "join_fixture.h"

static uint64_t add_required(struct fixture *f, double at_s, unsigned side, const char *stamp, const char *id)
{
    f->hints = false;
    return add(f, at_s, "k", side, stamp, id, good, "x");
}

static uint64_t add_hinted(struct fixture *f, double at_s, const char *stamp, const char *hint)
{
    f->hints = true;
    return add(f, at_s, "k", TOY_C, stamp, hint, good, "x");
}

/* ---- several sets of one stamp ---- */

/* Two sets of three messages: whatever the order, each has its own. */
static void hint_finds_its_set_in_every_order(void **state)
{
    struct fixture *f = *state;
    static const char *const ids[2] = {"100", "101"};
    unsigned order[6] = {0, 1, 2, 3, 4, 5}, count = 0;
    bool more = true;
    while (more) {
        uint64_t offsets[2][TOY_SIDES];
        char stamp[16];
        unsigned answers = 0;
        snprintf(stamp, sizeof stamp, "s%u", count++);
        for (unsigned i = 0; i < 6; i++) {
            unsigned set = order[i] / 3, side = order[i] % 3;
            offsets[set][side] = side == TOY_C ? add_hinted(f, 0, stamp, ids[set]) : add_required(f, 0, side, stamp, ids[set]);
            assert_int_equal(f->out.count, 0);
            while (f->out.answer || expire(f, 0)) {
                unsigned which = strcmp(f->out.answer->id, ids[1]) == 0;
                answers++;
                assert_answer(f, offsets[which][TOY_A], offsets[which][TOY_B], offsets[which][TOY_C]);
            }
        }
        assert_int_equal(answers, 2);
        unsigned i = 5, j = 5;
        while (i > 0 && order[i - 1] > order[i])
            i--;
        more = i > 0;
        if (!more)
            break;
        while (order[j] < order[i - 1])
            j--;
        unsigned swapped = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swapped;
        for (unsigned a = i, b = 5; a < b; a++, b--) {
            swapped = order[a];
            order[a] = order[b];
            order[b] = swapped;
        }
    }
    assert_int_equal(count, 720);
}

static void hint_of_a_hole_to_come_waits_for_it(void **state)
{
    struct fixture *f = *state;
    uint64_t c2 = add_hinted(f, 0, "s", "2");
    uint64_t a1 = add_required(f, 0, TOY_A, "s", "1"), b1 = add_required(f, 0, TOY_B, "s", "1");
    assert_waits(f);
    uint64_t a2 = add_required(f, 1, TOY_A, "s", "2"), b2 = add_required(f, 1, TOY_B, "s", "2");
    assert_waits(f); /* in its turn */
    assert_true(expire(f, GRACE_S));
    assert_answer(f, a1, b1, none);
    assert_true(expire(f, GRACE_S));
    assert_answer(f, a2, b2, c2);
}

static void late_hint_is_not_confused_with_another_set(void **state)
{
    struct fixture *f = *state;
    add_required(f, 0, TOY_A, "s", "1");
    add_required(f, 0, TOY_B, "s", "1");
    assert_true(expire(f, GRACE_S));
    assert_answer(f, 0, 1, none);
    uint64_t a2 = add_required(f, 3, TOY_A, "s", "2");
    assert_only(f, add_hinted(f, 3, "s", "1"), QUEUE_DEAD_LETTERED, "late");
    uint64_t c2 = add_hinted(f, 3, "s", "2");
    assert_waits(f);
    assert_only(f, add_hinted(f, 3, "s", "2"), QUEUE_DUPLICATE, NULL);
    uint64_t b2 = add_required(f, 3, TOY_B, "s", "2");
    assert_answer(f, a2, b2, c2);
    assert_only(f, add_hinted(f, 3, "s", "2"), QUEUE_DUPLICATE, NULL);
}

/* ---- hints that nobody answers to ---- */

static void hint_without_its_set_joins_the_one_that_is_answered_without_it(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add_required(f, 0, TOY_A, "s", "7"), b = add_required(f, 0, TOY_B, "s", "7"), c = add_hinted(f, 0, "s", "999");
    assert_waits(f);
    assert_true(expire(f, GRACE_S));
    assert_answer(f, a, b, c);
    /* Repeats are known: of the hint, and of the side of the set. */
    assert_only(f, add_hinted(f, 3, "s", "999"), QUEUE_DUPLICATE, NULL);
    assert_only(f, add_hinted(f, 3, "s", "7"), QUEUE_DUPLICATE, NULL);
    assert_false(expire(f, 100));
}

static void hints_that_were_wrong_are_not_waited_for_until_one_is_right(void **state)
{
    struct fixture *f = *state;
    add_required(f, 0, TOY_A, "s", "7");
    add_required(f, 0, TOY_B, "s", "7");
    add_hinted(f, 0, "s", "999");
    assert_true(expire(f, GRACE_S));
    assert_answer(f, 0, 1, 2);
    /* After the others, between them, before them. */
    for (unsigned place = 0; place < TOY_SIDES; place++) {
        char stamp[8];
        uint64_t offsets[TOY_SIDES];
        snprintf(stamp, sizeof stamp, "t%u", place);
        for (unsigned i = 0, side = TOY_A; i < TOY_SIDES; i++) {
            if (i == TOY_SIDES - 1 - place)
                offsets[TOY_C] = add_hinted(f, 3, stamp, "999");
            else
                offsets[side] = add_required(f, 3, side, stamp, "8"), side++;
            assert_int_equal(f->out.count, 0);
            assert_int_equal(f->out.answer != NULL, i == TOY_SIDES - 1);
        }
        assert_answer(f, offsets[TOY_A], offsets[TOY_B], offsets[TOY_C]);
    }
    /* One is right: the next wrong one waits again. */
    add_required(f, 4, TOY_A, "u", "9");
    add_hinted(f, 4, "u", "9");
    add_required(f, 4, TOY_B, "u", "9");
    assert_answer(f, 12, 14, 13);
    add_required(f, 5, TOY_A, "v", "10");
    add_required(f, 5, TOY_B, "v", "10");
    add_hinted(f, 5, "v", "999");
    assert_waits(f);
    assert_true(expire(f, 7));
    assert_answer(f, 15, 16, 17);
}

static void wrong_hint_after_the_answer_is_late_when_its_window_has_passed(void **state)
{
    struct fixture *f = *state;
    add_required(f, 0, TOY_A, "s", "7");
    add_required(f, 0, TOY_B, "s", "7");
    assert_true(expire(f, GRACE_S));
    assert_answer(f, 0, 1, none);
    uint64_t c = add_hinted(f, 3, "s", "999");
    assert_waits(f); /* its own set may come */
    assert_true(expire(f, 3 + WINDOW_S));
    assert_only(f, c, QUEUE_DEAD_LETTERED, "late");
    assert_non_null(strstr(f->out.error, "had gone without it"));
    /* Given up once, it is not late again. */
    f->again = true;
    c = add_hinted(f, 40, "s", "999");
    assert_true(expire(f, 40 + WINDOW_S));
    assert_only(f, c, QUEUE_DEAD_LETTERED, "unmatched");
}

static void hint_whose_window_ends_in_the_grace_of_another_set_joins_it(void **state)
{
    struct fixture *f = *state;
    uint64_t c = add_hinted(f, 0, "s", "999");
    uint64_t a = add_required(f, WINDOW_S - 1, TOY_A, "s", "7"), b = add_required(f, WINDOW_S - 1, TOY_B, "s", "7");
    assert_waits(f);
    assert_true(expire(f, WINDOW_S));
    assert_answer(f, a, b, c);
    assert_false(expire(f, 100));
}

static void hint_alone_is_unmatched(void **state)
{
    struct fixture *f = *state;
    uint64_t c = add_hinted(f, 0, "s", "999");
    uint64_t a = add_required(f, 1, TOY_A, "s", "7");
    assert_true(expire(f, WINDOW_S));
    assert_only(f, c, QUEUE_DEAD_LETTERED, "unmatched");
    assert_true(expire(f, WINDOW_S + 1));
    assert_only(f, a, QUEUE_DEAD_LETTERED, "unmatched"); /* they are not two halves of a hole */
    assert_false(f->out.answer);
}

static void without_grace_a_hint_joins_what_is_answered(void **state)
{
    struct fixture *f = *state;
    struct join_options options = {.time_window_ns = (uint64_t)WINDOW_S * SECOND, .grace_ns = 0};
    join_configure(&f->join, &options);
    uint64_t c = add_hinted(f, 0, "s", "999");
    uint64_t a = add_required(f, 0, TOY_A, "s", "7"), b = add_required(f, 0, TOY_B, "s", "7");
    assert_answer(f, a, b, c);
}

/* ---- hints and messages without id ---- */

static void hint_joins_a_set_without_id_and_does_not_name_it(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add_required(f, 0, TOY_A, "s", ""), c = add_hinted(f, 0, "s", "101"), b = add_required(f, 0, TOY_B, "s", "55");
    assert_string_equal(f->out.answer->id, "55");
    assert_answer(f, a, b, c);
}

static void message_without_id_joins_a_hint_and_takes_its_name_away(void **state)
{
    struct fixture *f = *state;
    uint64_t c = add_hinted(f, 0, "s", "101"), a = add_required(f, 0, TOY_A, "s", ""), b = add_required(f, 0, TOY_B, "s", "55");
    assert_string_equal(f->out.answer->id, "55");
    assert_answer(f, a, b, c);
}

static void unknown_hint_fits_all(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add_required(f, 0, TOY_A, "s", "1"), b = add_required(f, 0, TOY_B, "s", "1"), c = add_hinted(f, 0, "s", "");
    assert_answer(f, a, b, c);
}

/* ---- near stamps ---- */

static void hint_chooses_among_near_sets(void **state)
{
    struct fixture *f = *state;
    uint64_t a1 = add_required(f, 0, TOY_A, "10", "1"), b1 = add_required(f, 0, TOY_B, "10", "1");
    uint64_t c2 = add_hinted(f, 0, "11", "2");
    assert_waits(f);
    uint64_t a2 = add_required(f, 1, TOY_A, "12", "2"), b2 = add_required(f, 1, TOY_B, "12", "2");
    assert_waits(f);
    uint64_t c1 = add_hinted(f, 1, "10", "1");
    assert_answer(f, a1, b1, c1);
    assert_true(expire(f, 1));
    assert_answer(f, a2, b2, c2);
}

static void hint_without_its_set_joins_a_near_one_that_is_answered_without_it(void **state)
{
    struct fixture *f = *state;
    uint64_t a = add_required(f, 0, TOY_A, "10", "7"), b = add_required(f, 0, TOY_B, "10", "7"), c = add_hinted(f, 0, "11", "999");
    assert_waits(f);
    assert_true(expire(f, GRACE_S));
    assert_answer(f, a, b, c);
    uint64_t late = add_hinted(f, 10, "21", "998");
    a = add_required(f, 10, TOY_A, "20", "8"), b = add_required(f, 10, TOY_B, "20", "8");
    assert_answer(f, a, b, late);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(hint_finds_its_set_in_every_order),
        TEST(hint_of_a_hole_to_come_waits_for_it),
        TEST(late_hint_is_not_confused_with_another_set),
        TEST(hint_without_its_set_joins_the_one_that_is_answered_without_it),
        TEST(hints_that_were_wrong_are_not_waited_for_until_one_is_right),
        TEST(wrong_hint_after_the_answer_is_late_when_its_window_has_passed),
        TEST(hint_whose_window_ends_in_the_grace_of_another_set_joins_it),
        TEST(hint_alone_is_unmatched),
        TEST(without_grace_a_hint_joins_what_is_answered),
        TEST(hint_joins_a_set_without_id_and_does_not_name_it),
        TEST(message_without_id_joins_a_hint_and_takes_its_name_away),
        TEST(unknown_hint_fits_all),
        TEST_NEAR(hint_chooses_among_near_sets),
        TEST_NEAR(hint_without_its_set_joins_a_near_one_that_is_answered_without_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
