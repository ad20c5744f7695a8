/* Spindle as a client of the MQTT brokers that people already run.
 *
 * The way in: a group of connections subscribes at one broker, and what arrives goes into the queue. The broker gets its PUBACK (PUBREC)
 * only when the message is durable here. The way out: the results stream is published to the same broker, and each result stays until the
 * broker has acknowledged it.
 *
 * Bridge rules join topics of the own bus to topics of a broker, in one direction or both. Each broker that they name has a connection for
 * the way in and one for the way out, beside the group and independent of it. A message that has come from a broker does not go back to it;
 * one that was here before, by whatever way, is known by a mark (a user property of MQTT 5) and not taken again.
 *
 * There is one group, and a list of brokers in order of preference: the group is at one of them, all of it. It leaves a broker that cannot
 * be had for the next, and comes back as soon as a probe has found one before it well again. Sessions are persistent, one for each
 * connection and broker; what a broker has kept for us is taken when we are there again.
 *
 * One thread owns all of it. It reads what is to be published from the disk itself, and may wait for that; nobody but brokers waits for
 * this thread. */
#ifndef INGEST_INGEST_H
#define INGEST_INGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/message.h"
#include "ingest/reconnect.h"
#include "queue/queue.h"
#include "transport/tls.h"

enum {
    INGEST_GROUP_MAX = 8,   /* brokers of the group */
    INGEST_BRIDGES_MAX = 8, /* brokers of bridge rules */
    INGEST_BROKERS_MAX = INGEST_GROUP_MAX + INGEST_BRIDGES_MAX,
    INGEST_RULES_MAX = 32,
    INGEST_RULE_FILTER_MAX = 512, /* bytes, with the zero */
    INGEST_RULE_PREFIX_MAX = 256,
    INGEST_CONNECTIONS_MAX = 64,
    INGEST_FILTERS_MAX = 32,
    INGEST_NAME_MAX = 300, /* bytes of "host:port" */
    INGEST_WHY_MAX = 512
};

struct ingest_broker {
    char host[256];
    uint16_t port;
    bool tls;
    char username[128]; /* empty: none */
    char password[256];
};

enum ingest_sharing {
    INGEST_SHARED_AUTO,   /* where the broker says in its CONNACK (MQTT 5) that it can */
    INGEST_SHARED_ALWAYS, /* also where it cannot say so (3.1.1) */
    INGEST_SHARED_NEVER   /* each filter belongs to one of the connections */
};

enum ingest_direction { INGEST_IN = 1, INGEST_OUT = 2, INGEST_BOTH = 3 };

/* A bridge rule: topics that are local + X here and remote + X at the broker, where X matches the filter. */
struct ingest_rule {
    enum ingest_direction direction;
    uint8_t qos;    /* at most */
    uint8_t broker; /* index in ingest_options.brokers */
    char filter[INGEST_RULE_FILTER_MAX];
    char local[INGEST_RULE_PREFIX_MAX], remote[INGEST_RULE_PREFIX_MAX]; /* empty, or ends with '/' */
};

struct ingest_options {
    struct queue *queue;
    const struct ingest_broker *brokers;  /* [broker_count]: the group's in order of preference, then those of rules alone; copied */
    size_t broker_count;                  /* 1 .. INGEST_BROKERS_MAX */
    size_t group_count;                   /* 0 .. INGEST_GROUP_MAX: so many of them are the group's */
    const struct ingest_rule *rules;      /* [rule_count], which ingest_rules_check has passed; copied */
    size_t rule_count;                    /* at most INGEST_RULES_MAX */
    unsigned bridge_inflight;             /* published by rules and not acknowledged, for each broker; 1 .. 4096 */
    const char *client_prefix, *instance; /* identifiers are prefix-instance-n; an empty instance: one of the data folder's own */
    unsigned connection_count;            /* 1 .. INGEST_CONNECTIONS_MAX */
    const char *const *filters;           /* [filter_count]; valid, none overlaps another; copied. None: nothing is subscribed to */
    size_t filter_count;
    uint8_t qos;
    uint8_t version; /* enum mqtt_version; 0: 5.0, and 3.1.1 where a broker does not know that */
    enum ingest_sharing sharing;
    uint16_t keep_alive_s;
    uint32_t session_expiry_s;
    uint16_t receive_maximum;
    uint32_t packet_size_max; /* bytes */
    struct tls_options tls;   /* of a client, for those brokers that are reached by it; its files are read by ingest_start */
    uint64_t connect_timeout_ns;
    struct backoff_options backoff;
    struct breaker_options breaker;
    size_t backlog_max;          /* bytes on their way to the disk, beyond which nothing is read */
    const char *consumed_filter; /* topics that are to be consumed; others are kept. NULL: none */
    bool acknowledge_at_once;    /* durability "memory" */

    /* Whether a topic is of no use here (what we have published ourselves): acknowledged, counted, and not stored. */
    bool (*skip)(void *context, const char *topic, size_t length);
    /* Called for each message that comes by a rule and is retained, before it is sent off to the disk. */
    uint64_t (*retain)(void *context, const struct message *message);
    /* Whether a message of QoS 1 or 2 is to wait for who listens now; its connection is not read from then, and it is asked again soon. */
    bool (*is_held)(void *context, const struct message *message);
    /* Called for each message that arrives: it may go to whoever listens now. retained: what `retain` returned for it, or 0. */
    void (*deliver)(void *context, const struct message *message, uint64_t retained);

    bool results; /* publish them */
    uint8_t results_qos;
    unsigned results_inflight; /* published and not acknowledged; 1 .. 4096 */
    /* Appends the MQTT 5 properties of a result. */
    int (*result_properties)(const struct message *result, struct buffer *out);
    void *context;
};

struct ingest;

/* Starts the thread; brokers are connected to in the background. Diagnostics say why it cannot start. */
int ingest_start(struct ingest **ingest, const struct ingest_options *options);

/* Reads the files of TLS again, for connections that begin from now on. Diagnostics say if that fails; nothing has changed then. */
void ingest_reload_tls(struct ingest *ingest, const struct tls_options *options);

/* Reads no more; what was read becomes durable and is acknowledged. Waits until that is done, at most timeout_ms. Results still go out. */
void ingest_quiesce(struct ingest *ingest, unsigned timeout_ms);

/* Gives what is on its way out until timeout_ms to be acknowledged, says goodbye and joins the thread. Accepts NULL. */
void ingest_stop(struct ingest *ingest);

/* For readiness and status. Any thread. */
bool ingest_ready(struct ingest *ingest, struct buffer *text);
int ingest_status(struct ingest *ingest, struct buffer *json);

/* Reads "mqtt://[user@]host[:port]", or "mqtts://..." for TLS (IPv6 in brackets). ERR_CONFIG with why[] for a person. */
int ingest_broker_parse(const char *url, struct ingest_broker *broker, char why[INGEST_WHY_MAX]);

/* Reads a bridge rule, "in|out|both BROKER FILTER [qos N] [local PREFIX] [remote PREFIX]", and its broker; rule->broker is left to the
 * caller. ERR_CONFIG with why[], which begins with the column. */
int ingest_rule_parse(const char *text, struct ingest_rule *rule, struct ingest_broker *broker, char why[INGEST_WHY_MAX]);

/* Whether no message goes out, or comes in, by two rules of the same broker; and, where messages carry no marks (MQTT 3.1.1), whether none
 * that goes out comes back. ERR_CONFIG with why[]. */
int ingest_rules_check(const struct ingest_rule *rules, size_t count, bool has_marks, char why[INGEST_WHY_MAX]);

/* Whether filters are valid, and no message could come by two of them. Those that another covers are marked in redundant[] (may be NULL).
 * ERR_CONFIG with why[]. */
int ingest_filters_check(const char *const *filters, size_t count, bool *redundant, char why[INGEST_WHY_MAX]);

#endif
