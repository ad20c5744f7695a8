/* What a person writes of other brokers: addresses and filters. Pure. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "ingest/filters.h"
#include "ingest/ingest.h"
#include "mqtt/topic.h"

enum { PORT_MQTT = 1883, PORT_MQTT_TLS = 8883 };

static int refuse(char why[INGEST_WHY_MAX], const char *what)
{
    snprintf(why, INGEST_WHY_MAX, "%s", what);
    return ERR_CONFIG;
}

/* Copies `length` bytes as text; false: it is empty or does not fit. */
static bool copy(char *to, size_t size, const char *from, size_t length)
{
    if (length == 0 || length >= size)
        return false;
    memcpy(to, from, length);
    to[length] = 0;
    return true;
}

/* "host", "host:port", "[::1]", "[::1]:port" */
static int parse_address(const char *text, struct ingest_broker *broker, char why[INGEST_WHY_MAX])
{
    const char *host = text, *end;
    size_t length;
    if (*text == '[') {
        host = text + 1;
        end = strchr(host, ']');
        if (!end)
            return refuse(why, "the address has a `[` without `]`");
        length = (size_t)(end - host);
        end++;
    } else {
        length = strcspn(text, ":/");
        end = text + length;
    }
    if (!copy(broker->host, sizeof broker->host, host, length))
        return refuse(why, "it names no host");
    broker->port = broker->tls ? PORT_MQTT_TLS : PORT_MQTT;
    if (*end == ':') {
        char *behind;
        unsigned long port = strtoul(end + 1, &behind, 10);
        if (behind == end + 1 || port < 1 || port > 65535 || end[1] < '0' || end[1] > '9')
            return refuse(why, "the port is not a number from 1 to 65535");
        broker->port = (uint16_t)port;
        end = behind;
    }
    if (strcmp(end, "/") == 0)
        end++;
    return *end ? refuse(why, "something stands behind host and port") : 0;
}

int ingest_broker_parse(const char *url, struct ingest_broker *out, char why[INGEST_WHY_MAX])
{
    static const char plain[] = "mqtt://", secure[] = "mqtts://";
    struct ingest_broker broker = {.tls = strncmp(url, secure, strlen(secure)) == 0};
    if (broker.tls)
        url += strlen(secure);
    else if (strncmp(url, plain, strlen(plain)) == 0)
        url += strlen(plain);
    else if (strstr(url, "://"))
        return refuse(why, "expected mqtt://[user@]host[:port], or mqtts:// for TLS");
    const char *at = strrchr(url, '@');
    if (at) {
        if (memchr(url, ':', (size_t)(at - url)))
            return refuse(why, "a password does not belong there, where everybody sees it; set ingest.password");
        if (!copy(broker.username, sizeof broker.username, url, (size_t)(at - url)))
            return refuse(why, "the user name before `@` is empty or too long");
        url = at + 1;
    }
    int error = parse_address(url, &broker, why);
    if (!error)
        *out = broker;
    return error;
}

int ingest_filters_check(const char *const *filters, size_t count, bool *redundant, char why[INGEST_WHY_MAX])
{
    if (count > INGEST_FILTERS_MAX) {
        snprintf(why, INGEST_WHY_MAX, "there are %zu filters, and at most %d are allowed", count, INGEST_FILTERS_MAX);
        return ERR_CONFIG;
    }
    for (size_t i = 0; i < count; i++) {
        if (redundant)
            redundant[i] = false;
        if (strncmp(filters[i], "$share/", 7) == 0)
            return refuse(why, "`$share/...` is added by Spindle itself; see ingest.shared");
        if (!mqtt_topic_filter_valid(filters[i], strlen(filters[i])) || strlen(filters[i]) > 1000) {
            snprintf(why, INGEST_WHY_MAX, "`%.200s` is not a topic filter", filters[i]);
            return ERR_CONFIG;
        }
    }
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++) {
            bool covers = i != j && filter_covers(filters[j], filters[i]);
            bool same = covers && filter_covers(filters[i], filters[j]);
            if (covers && redundant && (!same || j < i))
                redundant[i] = true;
            if (i < j && filter_overlaps(filters[i], filters[j]) && !covers && !filter_covers(filters[i], filters[j])) {
                snprintf(why, INGEST_WHY_MAX, "`%.200s` and `%.200s` overlap, so some messages would come twice; name one that covers both",
                         filters[i], filters[j]);
                return ERR_CONFIG;
            }
        }
    }
    return 0;
}
