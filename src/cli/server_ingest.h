/* The part of the configuration that speaks of other brokers: checked, and turned into the options of the ingest module. */
#ifndef CLI_SERVER_INGEST_H
#define CLI_SERVER_INGEST_H

#include "config/config.h"
#include "config/problems.h"
#include "drilling/topics.h"
#include "ingest/ingest.h"

/* ERR_CONFIG when there is a mistake, which is added to `problems`. */
int server_ingest_check(const struct config *config, struct problems *problems);

/* The options, and what they borrow. */
struct server_ingest {
    struct ingest_options options;
    struct ingest_broker brokers[INGEST_BROKERS_MAX]; /* the group's, then those of rules alone */
    struct ingest_rule rules[INGEST_RULES_MAX];
    const char *filters[CONFIG_LIST_MAX];
    char own_filters[3][1100]; /* those of mqtt.listener */
    char consumed_filter[1100];
    struct topics topics; /* of results, which are not taken in again */
};

/* Of a configuration without mistakes; fills what follows from it. False: there is no broker to connect to. */
bool server_ingest_options(const struct config *config, struct server_ingest *ingest);

/* Reads the files of TLS again. */
void server_ingest_reload(const struct config *config, struct ingest *ingest);

/* As ingest_options.skip: `context` is the struct topics. */
bool server_ingest_skip(const struct topics *topics, const char *topic, size_t length);

#endif
