/* What rules and quotas cost: a publish on the topic of before, one on other topics, by how many filters; a charge to a quota; a check of a
 * password, and of one that is remembered; the memory of a client. */
#include <assert.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "access/access.h"
#include "access/policy.h"
#include "base/buffer.h"
#include "base/clock.h"

enum { ROUNDS = 2000000, TOPICS = 64, CLIENTS = 10000 };

static struct access *make(unsigned filters)
{
    struct access *access;
    struct buffer text;
    struct problems problems;
    struct access_policy *policy = calloc(1, sizeof *policy);
    buffer_init(&text, 1 << 20);
    problems_init(&problems);
    buffer_append_text(&text, "rules:\n  - {user: \"tool-*\", publish: [");
    for (unsigned i = 1; i < filters; i++)
        buffer_printf(&text, "\"OPCPUBSUB/+/other-%u/#\", ", i);
    buffer_append_text(
        &text, "\"OPCPUBSUB/+/%u/#\"], subscribe: [\"results/%u/#\"]}\nquotas:\n  - {messages_per_s: 100000000, bytes_per_s: 1GiB}\n");
    const struct access_options options = {.check_threads = 0, .checks_max = 1, .cache_ns = 1000000000};
    if (!policy || access_create(&access, &options) || policy_parse(policy, "rules", text.data, text.length, &problems))
        abort();
    policy->shares = 1;
    access_set_policy(access, policy);
    buffer_fini(&text);
    problems_fini(&problems);
    return access;
}

static double publish_ns(struct access_client *client, unsigned topic_count)
{
    char topics[TOPICS][80];
    size_t lengths[TOPICS];
    unsigned allowed = 0;
    for (unsigned i = 0; i < topic_count; i++)
        lengths[i] = (size_t)snprintf(topics[i], sizeof topics[i], "OPCPUBSUB/box-%u/tool-7/ResultManagement/Trace", i);
    uint64_t start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < ROUNDS; i++)
        allowed += access_may_publish(client, topics[i % topic_count], lengths[i % topic_count]);
    assert(allowed == ROUNDS);
    return (double)(clock_monotonic_ns() - start_ns) / ROUNDS;
}

static double charge_ns(struct access_client *client)
{
    uint64_t start_ns = clock_monotonic_ns(), waited = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        waited += access_publish_wait_ns(client, start_ns) != 0;
        access_publish_charge(client, start_ns, 256);
    }
    assert(waited <= ROUNDS);
    return (double)(clock_monotonic_ns() - start_ns) / ROUNDS;
}

static size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void measure(unsigned filters)
{
    struct access *access = make(filters);
    struct access_client *client, *others[CLIENTS];
    if (access_client_create(access, "tool-7", 6, "c", 1, false, &client))
        abort();
    size_t before = heap_bytes();
    for (unsigned i = 0; i < CLIENTS; i++)
        if (access_client_create(access, "tool-7", 6, "client", 6, false, &others[i]))
            abort();
    size_t each = (heap_bytes() - before) / CLIENTS;
    printf("%3u filters: the topic of before %5.1f ns, another %6.1f ns; quota %5.1f ns; %zu bytes a client\n", filters,
           publish_ns(client, 1), publish_ns(client, TOPICS), charge_ns(client), each);
    for (unsigned i = 0; i < CLIENTS; i++)
        access_client_destroy(access, others[i]);
    access_client_destroy(access, client);
    access_destroy(access);
}

static void measure_passwords(void)
{
    enum { CHECKS = 20 };
    char hash[PASSWORD_HASH_MAX];
    uint8_t key[PASSWORD_DIGEST_SIZE] = {1}, digest[PASSWORD_DIGEST_SIZE];
    if (password_hash("secret", 6, hash))
        abort();
    uint64_t start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < CHECKS; i++)
        assert(password_matches(hash, "secret", 6));
    double check_ms = (double)(clock_monotonic_ns() - start_ns) / CHECKS / 1e6;
    start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < CHECKS * 1000; i++)
        password_digest(key, "tool-7", hash, "secret", 6, digest);
    printf("a password: checked in %.1f ms (%d MiB), remembered in %.0f ns\n", check_ms, PASSWORD_MEMORY_KIB >> 10,
           (double)(clock_monotonic_ns() - start_ns) / (CHECKS * 1000));
}

int main(void)
{
    if (password_init())
        return 1;
    measure(1);
    measure(4);
    measure(64);
    measure_passwords();
    return 0;
}
