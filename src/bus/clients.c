/* The table of client identifiers: at most one connection each; a newcomer takes over (MQTT-3.1.4-3). */
#include "bus/loop.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

int clients_claim(struct connection *connection, const struct mqtt_connect *connect, struct mqtt_slice *assigned)
{
    struct bus *bus = connection->loop->bus;
    const char *id = (const char *)connect->client_id.data;
    size_t length = connect->client_id.length;
    char made[64];
    struct client *before;
    *assigned = (struct mqtt_slice){0};
    pthread_mutex_lock(&bus->clients_lock);
    if (length == 0) {
        id = made;
        do { /* one that nobody has given itself */
            length = (size_t)snprintf(made, sizeof made, "spindle-%08" PRIx64 "-%" PRIu64, bus->instance, ++bus->anonymous_count);
            HASH_FIND(hh, bus->clients, id, length, before);
        } while (before);
    }
    const char *user = connection->door.client ? access_client_user(connection->door.client) : "";
    HASH_FIND(hh, bus->clients, id, length, before);
    bool foreign = before && strcmp(before->user, user) != 0; /* it gets nobody else's messages, and ends nobody else's connection */
    struct client *client = foreign ? NULL : malloc(sizeof *client + length + 1 + strlen(user) + 1);
    if (!client) {
        pthread_mutex_unlock(&bus->clients_lock);
        return foreign ? ERR_CLIENT_ID : ERR_NO_MEMORY;
    }
    *client = (struct client){.loop = connection->loop->index, .slot = connection->slot, .generation = connection->generation};
    memcpy(client->id, id, length);
    client->id[length] = 0;
    client->user = strcpy(client->id + length + 1, user);
    if (before) {
        HASH_DEL(bus->clients, before);
        before->resumed = !connect->clean_start;
        mail_close(&bus->loops[before->loop], before->slot, before->generation, CLOSE_TAKEN_OVER);
        /* Its connection still points at it; it is freed there. */
        before->hh.tbl = NULL;
    }
    HASH_ADD_KEYPTR(hh, bus->clients, client->id, length, client);
    if (id == made)
        *assigned = (struct mqtt_slice){(const uint8_t *)client->id, (uint32_t)length};
    connection->client = client;
    struct will *will = will_find(bus, client->id, length, user);
    pthread_mutex_unlock(&bus->clients_lock);
    will_settle(connection->loop, will, connect->clean_start);
    return 0;
}

void clients_release(struct connection *connection)
{
    struct client *client = connection->client;
    if (!client)
        return;
    struct bus *bus = connection->loop->bus;
    pthread_mutex_lock(&bus->clients_lock);
    if (client->hh.tbl)
        HASH_DEL(bus->clients, client);
    pthread_mutex_unlock(&bus->clients_lock);
    connection->client = NULL;
    free(client);
}

bool clients_has(struct bus *bus, const char *id, size_t length)
{
    struct client *found;
    pthread_mutex_lock(&bus->clients_lock);
    HASH_FIND(hh, bus->clients, id, length, found);
    pthread_mutex_unlock(&bus->clients_lock);
    return found;
}

bool clients_is_replaced(const struct connection *connection, bool *resumed)
{
    *resumed = connection->client->resumed;
    return !connection->client->hh.tbl;
}
