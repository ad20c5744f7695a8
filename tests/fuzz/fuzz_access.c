/* Files of users and rules of any bytes, and what a client may do by them. The input is "user\nclient\ntopic\nfilter\n" and a file of
 * rules; as a whole it is also read as a file of users. What is refused is explained; who may subscribe to a filter may subscribe to all
 * that it matches, by itself and in a group. */
#include <string.h>

#include "access/policy.h"
#include "fuzz.h"
#include "mqtt/topic.h"

struct line {
    const char *text;
    size_t length;
};

static struct line take_line(const uint8_t **data, size_t *size)
{
    const uint8_t *end = *size ? memchr(*data, '\n', *size) : NULL;
    struct line line = {(const char *)*data, end ? (size_t)(end - *data) : *size};
    size_t taken = line.length + (end != NULL);
    *data += taken;
    *size -= taken;
    return line;
}

static void read_users(const uint8_t *data, size_t size)
{
    struct users users = {0};
    struct problems problems;
    struct buffer out;
    problems_init(&problems);
    buffer_init(&out, 1 << 24);
    int error = users_parse(&users, "u", size ? (const char *)data : "", size, &problems);
    PROMISE((error == 0) == (problems.errors == 0));
    PROMISE(problems_write(&problems, &out) == 0);
    for (size_t i = 0; i < users.count; i++)
        PROMISE(users_find(&users, users.rows[i].name, strlen(users.rows[i].name)) == users.rows[i].hash);
    users_fini(&users);
    problems_fini(&problems);
    buffer_fini(&out);
}

static void ask(struct access *access, const struct line lines[4])
{
    struct access_client *client;
    const struct line *topic = &lines[2], *filter = &lines[3];
    if (memchr(lines[0].text, 0, lines[0].length) || memchr(lines[1].text, 0, lines[1].length))
        return; /* no name of MQTT has zeros */
    if (access_client_create(access, lines[0].text, lines[0].length, lines[1].text, lines[1].length, true, &client))
        return;
    if (mqtt_topic_name_valid(topic->text, topic->length)) {
        bool may = access_may_publish(client, topic->text, topic->length);
        PROMISE(access_may_publish(client, topic->text, topic->length) == may);
        if (mqtt_topic_filter_valid(filter->text, filter->length) && access_may_subscribe(client, filter->text, filter->length)) {
            size_t share_length = mqtt_topic_share_length(filter->text, filter->length), length = filter->length - share_length;
            const char *bare = filter->text + share_length;
            PROMISE(access_may_subscribe(client, bare, length));
            if (mqtt_topic_matches(bare, length, topic->text, topic->length) && mqtt_topic_filter_valid(topic->text, topic->length) &&
                strncmp(topic->text, "$share/", topic->length < 7 ? topic->length : 7) != 0)
                PROMISE(access_may_subscribe(client, topic->text, topic->length));
        }
    }
    access_client_destroy(access, client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct access *access;
    static const uint8_t nothing[1];
    const struct access_options options = {.checks_max = 1};
    if (!access)
        PROMISE(access_create(&access, &options) == 0);
    read_users(data, size);
    struct line lines[4];
    data = size ? data : nothing;
    for (unsigned i = 0; i < 4; i++)
        lines[i] = take_line(&data, &size);
    struct access_policy *policy = calloc(1, sizeof *policy);
    struct problems problems;
    PROMISE(policy);
    policy->shares = 1;
    problems_init(&problems);
    int error = policy_parse(policy, "r", data, size, &problems);
    PROMISE((error == 0) == (problems.errors == 0));
    if (error) {
        policy_release(policy);
    } else {
        access_set_policy(access, policy);
        ask(access, lines);
    }
    problems_fini(&problems);
    return 0;
}
