/* base/text: UTF-8, suggestions, base64. */
#include "base/text.h"

#include <stdio.h>
#include <string.h>

#include "unit.h"

static void assert_decodes(const char *bytes, size_t length, size_t size, uint32_t expected)
{
    uint32_t code_point = 0xdead;
    assert_int_equal(text_utf8_decode(bytes, length, &code_point), size);
    assert_int_equal(code_point, expected);
}

static void assert_refused(const char *bytes, size_t length)
{
    assert_decodes(bytes, length, 0, 0xdead);
    assert_false(text_is_utf8(bytes, length));
}

static void utf8_takes_the_first_and_last_of_each_size(void **state)
{
    (void)state;
    assert_decodes("\0", 1, 1, 0);
    assert_decodes("\x7f", 1, 1, 0x7f);
    assert_decodes("\xc2\x80", 2, 2, 0x80);
    assert_decodes("\xdf\xbf", 2, 2, 0x7ff);
    assert_decodes("\xe0\xa0\x80", 3, 3, 0x800);
    assert_decodes("\xed\x9f\xbf", 3, 3, 0xd7ff);
    assert_decodes("\xee\x80\x80", 3, 3, 0xe000);
    assert_decodes("\xef\xbf\xbf", 3, 3, 0xffff);
    assert_decodes("\xf0\x90\x80\x80", 4, 4, 0x10000);
    assert_decodes("\xf4\x8f\xbf\xbf", 4, 4, 0x10ffff);
    assert_decodes("A\xff", 2, 1, 'A');
}

static void utf8_refuses_what_is_not_well_formed(void **state)
{
    (void)state;
    uint32_t untouched = 5;
    assert_int_equal(text_utf8_decode("", 0, &untouched), 0);
    assert_int_equal(untouched, 5);
    assert_refused("\x80", 1); /* continuation alone */
    assert_refused("\xbf", 1);
    assert_refused("\xc0\x80", 2); /* overlong */
    assert_refused("\xc1\xbf", 2);
    assert_refused("\xe0\x9f\xbf", 3);
    assert_refused("\xf0\x8f\xbf\xbf", 4);
    assert_refused("\xed\xa0\x80", 3); /* surrogates */
    assert_refused("\xed\xbf\xbf", 3);
    assert_refused("\xf4\x90\x80\x80", 4); /* beyond the last code point */
    assert_refused("\xf5\x80\x80\x80", 4);
    assert_refused("\xff", 1);
    assert_refused("\xc3", 1); /* cut */
    assert_refused("\xe2\x82", 2);
    assert_refused("\xf0\x9f\x94", 3);
    assert_refused("\xc3\x28", 2); /* continuation missing */
    assert_refused("\xe2\x28\xa1", 3);
    assert_refused("\xf0\x9f\x94\x28", 4);
}

static void every_code_point_survives_a_round_trip(void **state)
{
    (void)state;
    for (uint32_t c = 0x80; c <= 0x10ffff; c++) {
        char bytes[4];
        size_t size = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const unsigned lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = size - 1, rest = c; i > 0; i--, rest >>= 6)
            bytes[i] = (char)(0x80 | (rest & 0x3f));
        bytes[0] = (char)(lead[size] | c >> 6 * (size - 1));
        uint32_t decoded = 0;
        size_t taken = text_utf8_decode(bytes, size, &decoded);
        if (c >= 0xd800 && c <= 0xdfff)
            assert_int_equal(taken, 0);
        else if (taken != size || decoded != c)
            fail_msg("U+%04X was decoded as U+%04X in %zu bytes", (unsigned)c, (unsigned)decoded, taken);
    }
}

/* Eight ASCII bytes at a time are skipped: a bad byte must be seen wherever it stands. */
static void a_bad_byte_is_found_at_any_place(void **state)
{
    (void)state;
    char text[40];
    for (size_t length = 1; length <= sizeof text; length++) {
        memset(text, 'a', sizeof text);
        assert_true(text_is_utf8(text, length));
        for (size_t i = 0; i < length; i++) {
            text[i] = (char)0xc3;
            assert_false(text_is_utf8(text, length));
            text[i] = 'a';
        }
    }
    assert_true(text_is_utf8("", 0));
    assert_true(text_is_utf8("1234567\xc3\xa9", 9));
}

static void suggestions_are_near_or_none(void **state)
{
    (void)state;
    static const char *const words[] = {"host", "port", "root", "estimator", "time_window", "duplicate_handling"};
    const size_t count = sizeof words / sizeof *words;
    assert_string_equal(text_suggest("estimtor", words, count), "estimator");      /* left out */
    assert_string_equal(text_suggest("estimaator", words, count), "estimator");    /* put in */
    assert_string_equal(text_suggest("estinator", words, count), "estimator");     /* replaced */
    assert_string_equal(text_suggest("tiem_window", words, count), "time_window"); /* swapped */
    assert_string_equal(text_suggest("duplicates_handling", words, count), "duplicate_handling");
    assert_string_equal(text_suggest("prot", words, count), "port");
    assert_string_equal(text_suggest("host", words, count), "host");
    assert_null(text_suggest("keepalive", words, count));
    assert_null(text_suggest("", words, count));
    assert_null(text_suggest("x", words, count));
    assert_null(text_suggest("host", words, 0));
}

static void suggestions_end_at_a_third_of_the_length(void **state)
{
    (void)state;
    static const char *const words[] = {"abcdef"};
    assert_string_equal(text_suggest("abcdxy", words, 1), "abcdef");
    assert_null(text_suggest("abcxyz", words, 1));
}

static void very_long_words_are_no_match(void **state)
{
    (void)state;
    char longest[64], longer[65];
    memset(longest, 'a', 63);
    longest[63] = 0;
    memset(longer, 'a', 64);
    longer[64] = 0;
    const char *const words[] = {longer, longest};
    assert_ptr_equal(text_suggest(longest, words, 2), longest);
    assert_null(text_suggest(longer, words, 2));
}

static void assert_trimmed(const char *text, const char *expected)
{
    const char *at = text;
    size_t length = strlen(text);
    text_trim(&at, &length);
    assert_int_equal(length, strlen(expected));
    assert_memory_equal(at, expected, length);
    assert_true(at >= text && at + length <= text + strlen(text));
}

static void all_white_space_is_trimmed_at_both_ends_only(void **state)
{
    (void)state;
    static const char *const spaces[] = {"\t",     "\n",     "\v",       "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",
                                         "\x1f",   " ",      "\xc2\x85", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002",
                                         "\u2003", "\u2004", "\u2005",   "\u2006", "\u2007", "\u2008", "\u2009", "\u200a",
                                         "\u2028", "\u2029", "\u202f",   "\u205f", "\u3000"};
    char text[64];
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        snprintf(text, sizeof text, "%s%sa%sb %s%s", spaces[i], spaces[i], spaces[i], spaces[i], spaces[0]);
        char expected[16];
        snprintf(expected, sizeof expected, "a%sb", spaces[i]);
        assert_trimmed(text, expected);
        assert_trimmed(spaces[i], "");
    }
    static const char *const others[] = {"",       "a",      "\x08", "\x1b",     "\xc2\x84",  "\u180e",  "\u200b",
                                         "\u2060", "\ufeff", "\xa0", "\x85\xa0", "a\xe2\x80", "\x80\xa8"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_trimmed(others[i], others[i]);
}

static void assert_base64(const char *bytes, size_t length, const char *expected)
{
    char out[64];
    memset(out, 'x', sizeof out);
    text_base64((const uint8_t *)bytes, length, out);
    assert_string_equal(out, expected);
    assert_int_equal(text_base64_size(length), strlen(expected) + 1);
}

/* The test vectors of RFC 4648 section 10, and the ends of the alphabet. */
static void base64_is_that_of_rfc_4648(void **state)
{
    (void)state;
    assert_base64("", 0, "");
    assert_base64("f", 1, "Zg==");
    assert_base64("fo", 2, "Zm8=");
    assert_base64("foo", 3, "Zm9v");
    assert_base64("foob", 4, "Zm9vYg==");
    assert_base64("fooba", 5, "Zm9vYmE=");
    assert_base64("foobar", 6, "Zm9vYmFy");
    assert_base64("\0\0\0", 3, "AAAA");
    assert_base64("\xff\xff\xff\xfb\xff", 5, "////+/8=");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_takes_the_first_and_last_of_each_size),
        cmocka_unit_test(utf8_refuses_what_is_not_well_formed),
        cmocka_unit_test(every_code_point_survives_a_round_trip),
        cmocka_unit_test(a_bad_byte_is_found_at_any_place),
        cmocka_unit_test(suggestions_are_near_or_none),
        cmocka_unit_test(suggestions_end_at_a_third_of_the_length),
        cmocka_unit_test(very_long_words_are_no_match),
        cmocka_unit_test(all_white_space_is_trimmed_at_both_ends_only),
        cmocka_unit_test(base64_is_that_of_rfc_4648),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
