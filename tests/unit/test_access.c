/* Rules, quotas and users without a server: what is read, what it allows, and what it costs. */
#include "access/access.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/policy.h"
#include "access/quota.h"
#include "base/clock.h"
#include "base/error.h"
#include "folder.h"
#include "mqtt/topic.h"
#include "unit.h"

/* ---- filters ---- */

static bool covers(const char *wide, const char *narrow)
{
    return mqtt_topic_filter_covers(wide, strlen(wide), narrow, strlen(narrow));
}

static void a_filter_covers_what_it_matches_whole(void **state)
{
    (void)state;
    static const char *const yes[][2] = {{"#", "#"},       {"#", "a"},           {"#", "+/a"},     {"a/#", "a"},        {"a/#", "a/#"},
                                         {"a/#", "a/+/b"}, {"+", "+"},           {"+", "a"},       {"+/b", "a/b"},      {"a/+/c", "a/+/c"},
                                         {"+/#", "#"},     {"+/#", "+"},         {"a/+/#", "a/b"}, {"a/+/#", "a/+/#"},  {"/", "/"},
                                         {"/+", "/"},      {"$SYS/#", "$SYS/a"}, {"a//b", "a//b"}, {"$SYS/+", "$SYS/+"}};
    static const char *const no[][2] = {{"a", "+"},      {"a", "#"},        {"a/#", "#"},     {"a/#", "+/a"},   {"a/#", "ab"},
                                        {"a/+", "a/#"},  {"a/+", "a"},      {"a/+", "a/b/c"}, {"a/+/#", "a/#"}, {"a/+/#", "a"},
                                        {"#", "$SYS/#"}, {"+/a", "$SYS/a"}, {"a", "a/b"},     {"a/b", "a"},     {"", "a"},
                                        {"a", ""},       {"$SYS/#", "#"},   {"+", "/"},       {"a/", "a"}};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        assert_true(covers(yes[i][0], yes[i][1]));
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        assert_false(covers(no[i][0], no[i][1]));
}

/* Joins levels number i, i / count, ... of the list; the last but one that is used is the first 0. False when there is no such text. */
static bool join(const char *const *levels, unsigned count, unsigned number, char *text)
{
    text[0] = 0;
    strcpy(text, levels[number % count]);
    for (number /= count; number; number /= count + 1) {
        unsigned level = number % (count + 1);
        if (level == 0)
            return false;
        strcat(strcat(text, "/"), levels[level - 1]);
    }
    return true;
}

/* All filters of up to three of some levels, and topics of up to four: one filter covers another when it matches all its topics. */
static void covering_agrees_with_matching(void **state)
{
    (void)state;
    static const char *const filter_levels[] = {"a", "", "$S", "+", "#"}, *const topic_levels[] = {"a", "", "$S", "z"};
    static char filters[200][16], topics[500][16];
    unsigned filter_count = 0, topic_count = 0;
    char text[16];
    for (unsigned i = 0; i < 5 * 6 * 6; i++)
        if (join(filter_levels, 5, i, text) && mqtt_topic_filter_valid(text, strlen(text)))
            strcpy(filters[filter_count++], text);
    for (unsigned i = 0; i < 4 * 5 * 5 * 5; i++)
        if (join(topic_levels, 4, i, text) && mqtt_topic_name_valid(text, strlen(text)))
            strcpy(topics[topic_count++], text);
    assert_int_equal(filter_count, 5 + 4 * 5 + 4 * 4 * 5 - 1); /* without the empty one */
    assert_int_equal(topic_count, 4 + 16 + 64 + 256 - 1);
    for (unsigned w = 0; w < filter_count; w++) {
        for (unsigned n = 0; n < filter_count; n++) {
            bool all = true;
            for (unsigned t = 0; t < topic_count && all; t++)
                all = !mqtt_topic_matches(filters[n], strlen(filters[n]), topics[t], strlen(topics[t])) ||
                      mqtt_topic_matches(filters[w], strlen(filters[w]), topics[t], strlen(topics[t]));
            bool odd = strcmp(filters[n], "/#") == 0; /* it stands for the topic "" too, which is none: refused, but not wider */
            if (covers(filters[w], filters[n]) != all && !(all && odd))
                fail_msg("%s and %s", filters[w], filters[n]);
        }
    }
}

static void a_pattern_fits(void **state)
{
    (void)state;
    assert_true(policy_pattern_fits("*", "") && policy_pattern_fits("*", "x") && policy_pattern_fits("", ""));
    assert_true(policy_pattern_fits("tool-*", "tool-7") && policy_pattern_fits("*-7", "tool-7") && policy_pattern_fits("t*l*7", "tool-7"));
    assert_true(policy_pattern_fits("tool-?", "tool-7") && policy_pattern_fits("?*", "x") && policy_pattern_fits("a**b", "ab"));
    assert_false(policy_pattern_fits("tool-*", "Tool-7") || policy_pattern_fits("", "x") || policy_pattern_fits("?*", ""));
    assert_false(policy_pattern_fits("tool-?", "tool-77") || policy_pattern_fits("a*b", "abc") || policy_pattern_fits("ab", "a"));
    char text[2001], pattern[2001]; /* it does not try every way */
    memset(text, 'a', 2000);
    for (unsigned i = 0; i < 2000; i++)
        pattern[i] = i % 2 ? 'a' : '*';
    text[2000] = pattern[2000] = 0;
    pattern[1999] = 'b';
    uint64_t begin_ns = clock_monotonic_ns();
    assert_false(policy_pattern_fits(pattern, text));
    assert_true(clock_monotonic_ns() - begin_ns < 1000000000u);
}

/* ---- quotas ---- */

static void a_bucket_lets_a_burst_through_and_then_the_rate(void **state)
{
    (void)state;
    struct quota_bucket bucket = {0};
    uint64_t now_ns = 5000000000u, cost_ns = 100000000u; /* ten a second */
    unsigned taken = 0;
    for (; quota_wait_ns(&bucket, now_ns) == 0; taken++)
        quota_charge(&bucket, now_ns, cost_ns);
    assert_int_equal(taken, 11); /* a second's worth, and the one that fills it */
    assert_int_equal(quota_wait_ns(&bucket, now_ns), cost_ns);
    assert_int_equal(quota_wait_ns(&bucket, now_ns + cost_ns), 0);
    for (unsigned i = 0; i < 100; i++) { /* from then on at the rate */
        now_ns += quota_wait_ns(&bucket, now_ns);
        quota_charge(&bucket, now_ns, cost_ns);
    }
    assert_int_equal(now_ns, 5000000000u + 100 * cost_ns);
    now_ns += 3600000000000u; /* idleness is not saved up */
    for (taken = 0; quota_wait_ns(&bucket, now_ns) == 0; taken++)
        quota_charge(&bucket, now_ns, cost_ns);
    assert_int_equal(taken, 11);
}

static void a_large_amount_goes_into_debt_with_an_end(void **state)
{
    (void)state;
    struct quota_bucket bucket = {0};
    quota_charge(&bucket, 0, UINT64_MAX);
    assert_int_equal(quota_wait_ns(&bucket, 0), QUOTA_COST_MAX - QUOTA_BURST_NS);
    assert_int_equal(quota_wait_ns(&bucket, QUOTA_COST_MAX), 0);
}

/* ---- users ---- */

#define GOOD_HASH "$argon2id$v=19$m=8,t=1,p=1$djph3tWPl6bULXdBgftVpg$EWQQvqn24ZvOLcKNZFpEv4Fj0kW0Jg0ncjkVa5aNbw8"

static int parse_users(struct users *users, const char *text, char *complaint, size_t size)
{
    struct problems problems;
    struct buffer out;
    problems_init(&problems);
    buffer_init(&out, 1 << 16);
    int error = users_parse(users, "users", text, strlen(text), &problems);
    assert_int_equal(problems_write(&problems, &out), 0);
    snprintf(complaint, size, "%s", out.length ? buffer_text(&out) : "");
    assert_int_equal(error != 0, problems.errors != 0);
    buffer_fini(&out);
    problems_fini(&problems);
    return error;
}

static void users_are_found_and_damaged_lines_named(void **state)
{
    (void)state;
    struct users users = {0};
    char complaint[1024];
    assert_int_equal(parse_users(&users, "# ours\r\nb:" GOOD_HASH "\r\n\na:" GOOD_HASH, complaint, sizeof complaint), 0);
    assert_int_equal(users.count, 2);
    assert_string_equal(users_find(&users, "a", 1), GOOD_HASH);
    assert_string_equal(users_find(&users, "b", 1), GOOD_HASH);
    assert_null(users_find(&users, "", 0));
    assert_null(users_find(&users, "a\0b", 3));
    assert_null(users_find(&users, "# ours", 6));
    assert_true(password_hash_valid(users.decoy, strlen(users.decoy)));
    assert_false(password_matches(users.decoy, "", 0));
    users_fini(&users);
    assert_int_equal(parse_users(&users, "", complaint, sizeof complaint), 0);
    users_fini(&users);
    static const char *const wrong[][2] = {
        {"a", "users:1:1: expected NAME:HASH"},
        {"a:" GOOD_HASH "\nb\n", "users:2:1: expected NAME:HASH"},
        {":" GOOD_HASH, "users:1:1: `` is no name"},
        {"a\tb:" GOOD_HASH, "users:1:1: `a\\x09b` is no name"},
        {"a:secret", "users:1:3: what follows the name `a` is no argon2id hash"},
        {"a:" GOOD_HASH " ", "users:1:3: what follows"},
        {"a:$argon2id$v=19$m=1048576,t=1,p=1$djph3tWPl6bULXdBgftVpg$EWQQvqn24ZvOLcKNZFpEv4Fj0kW0Jg0ncjkVa5aNbw8", "users:1:3: what"},
        {"a:$argon2id$v=19$m=8,t=4000,p=1$djph3tWPl6bULXdBgftVpg$EWQQvqn24ZvOLcKNZFpEv4Fj0kW0Jg0ncjkVa5aNbw8", "users:1:3: what"},
        {"a:$argon2i$v=19$m=8,t=3,p=1$djph3tWPl6bULXdBgftVpg$EWQQvqn24ZvOLcKNZFpEv4Fj0kW0Jg0ncjkVa5aNbw8", "users:1:3: what"},
        {"a:" GOOD_HASH "\na:" GOOD_HASH, "the user `a` stands there twice"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(parse_users(&users, wrong[i][0], complaint, sizeof complaint), ERR_CONFIG);
        assert_non_null(strstr(complaint, wrong[i][1]));
        assert_null(strstr(complaint, "secret"));
    }
}

static void a_hash_is_of_its_password_alone(void **state)
{
    (void)state;
    char hash[PASSWORD_HASH_MAX], again[PASSWORD_HASH_MAX];
    assert_int_equal(password_hash("with\0zero", 9, hash), 0);
    assert_int_equal(password_hash("with\0zero", 9, again), 0);
    assert_string_not_equal(hash, again);
    assert_true(password_hash_valid(hash, strlen(hash)));
    assert_true(password_matches(hash, "with\0zero", 9));
    assert_false(password_matches(hash, "with", 4));
    assert_false(password_matches(hash, "with\0zerO", 9));
}

static void the_file_of_users_is_changed_in_one_step(void **state)
{
    (void)state;
    char path[600], link[600], text[512] = "";
    bool existed = true;
    snprintf(path, sizeof path, "%s/users", test_folder);
    snprintf(link, sizeof link, "%s/link", test_folder);
    assert_int_equal(users_change(path, "a", NULL, &existed), ERR_NOT_FOUND);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(users_change(path, "a", "1", &existed), 0);
    assert_false(existed);
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(users_change(link, "ab", "2", &existed), 0);
    assert_int_equal(users_change(link, "a", "3", &existed), 0);
    assert_true(existed);
    struct stat there;
    assert_int_equal(lstat(link, &there), 0);
    assert_true(S_ISLNK(there.st_mode));
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    assert_string_equal(text, "a:3\nab:2\n");
    assert_int_equal(users_change(path, "a", NULL, &existed), 0);
    assert_true(existed);
    snprintf(path, sizeof path, "%s/none/users", test_folder);
    assert_int_equal(users_change(path, "a", "1", &existed), ERR_NOT_FOUND);
}

/* ---- rules ---- */

static struct access_policy *read_policy(const char *rules)
{
    struct access_policy *policy = calloc(1, sizeof *policy);
    struct problems problems;
    problems_init(&problems);
    assert_non_null(policy);
    policy->shares = 1;
    policy->anonymous = ACCESS_ANONYMOUS_ALWAYS;
    assert_int_equal(policy_parse(policy, "rules", (const uint8_t *)rules, strlen(rules), &problems), 0);
    problems_fini(&problems);
    return policy;
}

static struct access *make_access(const char *rules)
{
    struct access_options options = {.check_threads = 1, .checks_max = 4, .cache_ns = 60000000000u};
    struct access *access;
    assert_int_equal(access_create(&access, &options), 0);
    access_set_policy(access, read_policy(rules));
    return access;
}

static struct access_client *make_client(struct access *access, const char *user, const char *id)
{
    struct access_client *client;
    assert_int_equal(access_client_create(access, user, strlen(user), id, strlen(id), false, &client), 0);
    return client;
}

static bool may_publish(struct access_client *client, const char *topic)
{
    bool first = access_may_publish(client, topic, strlen(topic));
    assert_int_equal(access_may_publish(client, topic, strlen(topic)), first); /* the same when it is asked again */
    return first;
}

static bool may_subscribe(const struct access_client *client, const char *filter)
{
    return access_may_subscribe(client, filter, strlen(filter));
}

static void what_any_rule_allows_is_allowed(void **state)
{
    (void)state;
    struct access *access = make_access("rules:\n"
                                        "- {user: 'tool-*', publish: ['OPC/%u/#', '100%%/%c'], subscribe: ['to/%u/+']}\n"
                                        "- {client: 'hmi-?', subscribe: ['results/#']}\n"
                                        "- {user: '', publish: [open]}\n"
                                        "- {publish: [all]}\n");
    struct access_client *tool = make_client(access, "tool-7", "hmi-1"), *nobody = make_client(access, "", "x");
    assert_true(access_client_is_bound(tool));
    assert_true(may_publish(tool, "OPC/tool-7") && may_publish(tool, "OPC/tool-7/a/b") && may_publish(tool, "100%/hmi-1"));
    assert_true(may_publish(tool, "all"));
    assert_false(may_publish(tool, "OPC/tool-8/a") || may_publish(tool, "open") || may_publish(tool, "100%/x") ||
                 may_publish(tool, "OPC/%u/a"));
    assert_true(may_subscribe(tool, "to/tool-7/+") && may_subscribe(tool, "to/tool-7/a") && may_subscribe(tool, "results/#"));
    assert_true(may_subscribe(tool, "$share/group/results/+"));
    assert_false(may_subscribe(tool, "to/+/a") || may_subscribe(tool, "#") || may_subscribe(tool, "$share/group/#"));
    assert_true(may_publish(nobody, "open") && may_publish(nobody, "all"));
    assert_false(may_publish(nobody, "OPC//a") || may_publish(nobody, "OPC/x") || may_subscribe(nobody, "results/a"));
    access_client_destroy(access, tool);
    access_client_destroy(access, nobody);
    access_destroy(access);
}

static void names_in_filters_never_widen_them(void **state)
{
    (void)state;
    static const char *const names[] = {"+", "#", "a/b", "a+", "$SYS", "", "+/#"};
    struct access *access = make_access("rules:\n- {publish: ['%u', 'p/%u/#', '%c/x'], subscribe: ['%u/#', 's/%u', '%c']}\n");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct access_client *client = make_client(access, names[i], names[i]);
        static const char *const topics[] = {"+", "a", "a/b", "p/a/b", "p/a/b/c", "$SYS", "$SYS/a", "/x", "p//x", "p/+/x", "x/x", "+/x"};
        for (size_t t = 0; t < sizeof topics / sizeof *topics; t++)
            assert_false(may_publish(client, topics[t]));
        assert_false(may_subscribe(client, "+") || may_subscribe(client, "#") || may_subscribe(client, "s/+") ||
                     may_subscribe(client, "s/a/b"));
        assert_false(may_subscribe(client, "$SYS/#") || may_subscribe(client, "a/b/#"));
        access_client_destroy(access, client);
    }
    access_destroy(access);
}

static void a_client_goes_by_the_new_rules_when_it_is_renewed(void **state)
{
    (void)state;
    struct access *access = make_access("rules:\n- {publish: ['old/%u', 'own/%c']}\n");
    struct access_client *client = make_client(access, "u", "");
    assert_true(may_publish(client, "old/u"));
    assert_false(may_publish(client, "own/made"));
    assert_int_equal(access_client_renew(access, &client, "made", 4), 0);
    assert_true(may_publish(client, "own/made"));
    access_set_policy(access, read_policy("rules:\n- {publish: ['new/%u']}\n"));
    assert_true(may_publish(client, "old/u"));
    assert_int_equal(access_client_renew(access, &client, NULL, 0), 0);
    assert_false(may_publish(client, "old/u") || may_publish(client, "own/made"));
    assert_true(may_publish(client, "new/u"));
    access_set_policy(access, read_policy("quotas: []\n"));
    assert_int_equal(access_client_renew(access, &client, NULL, 0), 0);
    assert_false(access_client_is_bound(client));
    assert_true(may_publish(client, "anything"));
    access_client_destroy(access, client);
    access_destroy(access);
}

static void what_a_user_uses_is_counted_together(void **state)
{
    (void)state;
    struct access *access =
        make_access("quotas:\n- {user: u, connections: 2, subscriptions: 3, topic_levels: 2, bytes_per_s: 1000, inflight: 5}\n"
                    "- {connections: 1}\n");
    struct access_client *one = make_client(access, "u", "1"), *two = make_client(access, "u", "2"), *three;
    assert_int_equal(access_client_create(access, "u", 1, "3", 1, false, &three), ERR_LIMIT);
    assert_int_equal(access_client_create(access, "u", 1, "3", 1, true, &three), 0);
    access_client_destroy(access, three);
    struct access_client *other = make_client(access, "v", "1");
    assert_int_equal(access_client_create(access, "v", 1, "2", 1, false, &three), ERR_LIMIT);
    assert_int_equal(access_client_limits(one)->inflight, 5);
    assert_true(access_take_subscriptions(one, 2) && access_take_subscriptions(two, 1));
    assert_false(access_take_subscriptions(two, 1));
    assert_true(access_take_subscriptions(one, -1) && access_take_subscriptions(two, 1));
    assert_true(access_levels_fit(one, "a/b", 3) && access_levels_fit(other, "a/b/c", 5));
    assert_false(access_levels_fit(one, "a/b/c", 5));
    uint64_t now_ns = clock_monotonic_ns();
    access_publish_charge(one, now_ns, 3000);
    assert_true(access_publish_wait_ns(two, now_ns) > 1900000000u);
    assert_int_equal(access_publish_wait_ns(other, now_ns), 0);
    access_client_destroy(access, one);
    access_client_destroy(access, two);
    one = make_client(access, "u", "1"); /* to connect again pays no debt */
    assert_true(access_publish_wait_ns(one, now_ns) > 1900000000u);
    access_client_destroy(access, one);
    access_client_destroy(access, other);
    access_destroy(access);
}

/* ---- passwords, beside the loops ---- */

static struct {
    atomic_uint told, right, closed;
} checked;

static void on_checked(void *context, uint64_t token, int error)
{
    (void)context;
    (void)token;
    atomic_fetch_add(&checked.right, error == 0);
    atomic_fetch_add(&checked.closed, error == ERR_CLOSED);
    atomic_fetch_add(&checked.told, 1);
}

static void wait_told(unsigned count)
{
    uint64_t end_ns = clock_monotonic_ns() + 60000000000u;
    while (atomic_load(&checked.told) < count && clock_monotonic_ns() < end_ns)
        usleep(500);
    assert_int_equal(atomic_load(&checked.told), count);
}

static enum access_answer log_in(struct access *access, const char *user, const char *password, enum access_denial *denial)
{
    struct access_login login = {user, user ? strlen(user) : 0, password, password ? strlen(password) : 0, NULL, true};
    enum access_way way;
    return access_login(access, &login, on_checked, NULL, 7, &way, denial);
}

static void logins_are_checked_aside_and_remembered(void **state)
{
    (void)state;
    char path[600], hash[PASSWORD_HASH_MAX];
    bool existed;
    struct problems problems;
    struct access_policy *policy;
    enum access_denial denial;
    memset(&checked, 0, sizeof checked);
    problems_init(&problems);
    snprintf(path, sizeof path, "%s/logins", test_folder);
    assert_int_equal(password_hash("right", 5, hash), 0);
    assert_int_equal(users_change(path, "u", hash, &existed), 0);
    struct access *access = make_access("");
    struct access_sources sources = {ACCESS_ANONYMOUS_NEVER, path, ""};
    assert_int_equal(access_policy_read(&policy, &sources, &problems), 0);
    access_set_policy(access, policy);
    assert_int_equal(log_in(access, "u", "right", &denial), ACCESS_CHECKING);
    wait_told(1);
    assert_int_equal(atomic_load(&checked.right), 1);
    assert_int_equal(log_in(access, "u", "right", &denial), ACCESS_ADMITTED); /* remembered */
    assert_int_equal(log_in(access, "u", "wrong", &denial), ACCESS_CHECKING);
    assert_int_equal(log_in(access, "nobody", "right", &denial), ACCESS_CHECKING);
    wait_told(3);
    assert_int_equal(atomic_load(&checked.right), 1);
    assert_int_equal(log_in(access, "u", NULL, &denial), ACCESS_REFUSED);
    assert_int_equal(denial, ACCESS_DENIAL_CREDENTIALS);
    assert_int_equal(log_in(access, NULL, NULL, &denial), ACCESS_REFUSED);
    assert_int_equal(denial, ACCESS_DENIAL_ANONYMOUS);
    assert_int_equal(access_policy_read(&policy, &sources, &problems), 0); /* a reload forgets */
    access_set_policy(access, policy);
    assert_int_equal(log_in(access, "u", "right", &denial), ACCESS_CHECKING);
    wait_told(4);
    unsigned waiting = 0;
    while (log_in(access, "u", "wrong", &denial) == ACCESS_CHECKING) /* one is checked, the others wait: the queue has an end */
        waiting++;
    assert_true(waiting >= 4 && waiting < 100);
    assert_int_equal(denial, ACCESS_DENIAL_BUSY);
    access_stop_checks(access);
    assert_int_equal(atomic_load(&checked.told), 4 + waiting); /* everybody was told something, and nobody is any more */
    assert_int_equal(log_in(access, "u", "wrong", &denial), ACCESS_REFUSED);
    struct access_login certified = {.certificate = "tool-7"};
    enum access_way way;
    assert_int_equal(access_login(access, &certified, on_checked, NULL, 7, &way, &denial), ACCESS_ADMITTED);
    assert_int_equal(way, ACCESS_WAY_CERTIFICATE);
    problems_fini(&problems);
    access_destroy(access);
}

/* ---- what is kept ---- */

static void the_last_denials_are_kept(void **state)
{
    (void)state;
    struct access *access = make_access("");
    struct buffer json;
    buffer_init(&json, 1 << 20);
    for (unsigned i = 0; i < ACCESS_DENIALS_KEPT + 50; i++) {
        char topic[400];
        int length = snprintf(topic, sizeof topic, "t/%u/", i);
        memset(topic + length, 'x', sizeof topic - (size_t)length);
        struct access_event event = {"u\"", 2, NULL, 0, "peer", topic, sizeof topic};
        access_deny(access, ACCESS_DENIAL_PUBLISH, &event);
    }
    assert_int_equal(access_denials_write(access, &json), 0);
    const char *text = buffer_text(&json);
    assert_ptr_equal(strstr(text, "\"topic\":\"t/"), strstr(text, "\"topic\":\"t/149/x"));
    assert_non_null(strstr(text, "\"t/50/x"));
    assert_null(strstr(text, "\"t/49/x"));
    assert_non_null(strstr(text, "\"user\":\"u\\\"\",\"client\":\"\",\"peer\":\"peer\""));
    buffer_fini(&json);
    access_destroy(access);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_filter_covers_what_it_matches_whole),
        cmocka_unit_test(covering_agrees_with_matching),
        cmocka_unit_test(a_pattern_fits),
        cmocka_unit_test(a_bucket_lets_a_burst_through_and_then_the_rate),
        cmocka_unit_test(a_large_amount_goes_into_debt_with_an_end),
        cmocka_unit_test(users_are_found_and_damaged_lines_named),
        cmocka_unit_test(a_hash_is_of_its_password_alone),
        cmocka_unit_test_setup_teardown(the_file_of_users_is_changed_in_one_step, test_folder_make, test_folder_remove),
        cmocka_unit_test(what_any_rule_allows_is_allowed),
        cmocka_unit_test(names_in_filters_never_widen_them),
        cmocka_unit_test(a_client_goes_by_the_new_rules_when_it_is_renewed),
        cmocka_unit_test(what_a_user_uses_is_counted_together),
        cmocka_unit_test_setup_teardown(logins_are_checked_aside_and_remembered, test_folder_make, test_folder_remove),
        cmocka_unit_test(the_last_denials_are_kept),
    };
    return password_init() || cmocka_run_group_tests(tests, NULL, NULL);
}
