/* SUBSCRIBE and UNSUBSCRIBE: the router learns of them, the client is answered, and gets the retained messages that it asks for. */
#include "bus/loop.h"

#include "base/error.h"
#include "bus/persistent.h"
#include "bus/shared.h"
#include "mqtt/topic.h"

static struct router_subscription subscriber(const struct connection *connection)
{
    return (struct router_subscription){
        .loop = (uint16_t)connection->loop->index, .connection = connection->slot, .generation = connection->generation};
}

bool subscribe_end(struct connection *connection, struct mqtt_slice filter, uint64_t *place)
{
    struct router_subscription subscription = subscriber(connection);
    bool found = router_unsubscribe(connection->loop->bus->router, (const char *)filter.data, filter.length, &subscription);
    if (found) {
        connection->subscriptions--;
        door_unsubscribed(connection, 1);
        counter_add(&connection->loop->counters.subscriptions, (uint64_t)-1);
    }
    if (found && connection->shared)
        shared_unsubscribe(connection, filter);
    if (found && connection->persistent)
        persistent_unsubscribe(connection, filter, place);
    return found;
}

/* What the router is to know besides the client's wishes. */
static uint8_t origin_option(const struct connection *connection, struct mqtt_slice filter)
{
    bool shared = mqtt_topic_share_length((const char *)filter.data, filter.length);
    return connection->persistent && !shared ? ROUTER_FROM_JOURNAL : 0;
}

/* 0: a new one; 1: it replaces another; or why not. */
static int enter(struct connection *connection, struct mqtt_slice filter, const struct router_subscription *subscription)
{
    int added = router_subscribe(connection->loop->bus->router, (const char *)filter.data, filter.length, subscription);
    if (added == 0 && connection->door.client)
        added = door_subscribed(connection, filter);
    if (added == 0) {
        connection->subscriptions++;
        counter_add(&connection->loop->counters.subscriptions, 1);
    }
    return added;
}

int subscribe_carry(struct connection *connection, struct mqtt_slice filter, const struct router_subscription *how)
{
    struct router_subscription subscription = subscriber(connection);
    subscription.qos = how->qos;
    subscription.options = (uint8_t)(how->options | origin_option(connection, filter));
    subscription.identifier = how->identifier;
    int denied = connection->door.bound ? door_subscribe(connection, filter) : 0;
    if (denied)
        return denied;
    int added = enter(connection, filter, &subscription);
    return added < 0 ? added : 0;
}

/* MQTT 5 section 3.8.3.1; in 3.1.1 retain_handling is 0. Members of a shared subscription get what is live. */
static bool wants_retained(const struct mqtt_subscription *wanted, bool is_new)
{
    if (mqtt_topic_share_length((const char *)wanted->filter.data, wanted->filter.length))
        return false;
    return wanted->retain_handling == 0 || (wanted->retain_handling == 1 && is_new);
}

/* As `enter`, while nothing is retained: what was before comes to a new subscription as retained, what follows comes live. */
static int enter_between(struct connection *connection, const struct mqtt_subscription *wanted, struct router_subscription *subscription)
{
    struct retained *retained = connection->loop->bus->retained;
    if (!wants_retained(wanted, true))
        return enter(connection, wanted->filter, subscription);
    subscription->since = retained_hold(retained);
    int added = enter(connection, wanted->filter, subscription);
    retained_let_go(retained);
    return added;
}

/* Returns 0, or why there is no such subscription. It is made before its retained messages are looked for (deliver.c). */
static int add_subscription(struct connection *connection, const struct mqtt_subscription *wanted, uint32_t identifier, uint64_t *place)
{
    struct router_subscription subscription = subscriber(connection);
    subscription.qos = wanted->qos;
    subscription.options =
        (uint8_t)((wanted->no_local ? ROUTER_NO_LOCAL : 0) | (wanted->retain_as_published ? ROUTER_RETAIN_AS_PUBLISHED : 0) |
                  origin_option(connection, wanted->filter));
    if (!wanted->qos && connection->persistent && persistent_is_followed(connection, wanted->filter))
        subscription.options |= ROUTER_LOWERED;
    subscription.identifier = identifier;
    int denied = connection->door.bound ? door_subscribe(connection, wanted->filter) : 0;
    if (denied)
        return denied;
    int added = enter_between(connection, wanted, &subscription), error = added < 0 ? added : 0;
    if (added >= 0 && connection->persistent)
        error = persistent_subscribe(connection, wanted->filter, &subscription, place);
    if (added < 0)
        return added;
    if (!error && mqtt_topic_share_length((const char *)wanted->filter.data, wanted->filter.length))
        error = shared_subscribe(connection, wanted->filter, &subscription);
    if (!error && wants_retained(wanted, added == 0))
        error = handout_begin(connection, wanted, identifier, added == 0 ? subscription.since : UINT64_MAX);
    if (error && added == 0) /* one that was there before stays */
        subscribe_end(connection, wanted->filter, NULL);
    return error;
}

static int encode_codes(struct connection *connection, enum mqtt_packet_type type, uint16_t packet_id, const struct buffer *codes,
                        uint8_t refused, const char *why)
{
    const struct mqtt_session *session = &connection->session;
    if (mqtt_suback_size(session->version, codes->length) > session->peer_packet_size_max)
        return ERR_PACKET_TOO_LARGE; /* it cannot be left out, nor may it be sent (MQTT-3.1.2-24) */
    if (refused && session->version == MQTT_VERSION_5_0)
        return mqtt_refusal_encode(&connection->out, type, packet_id, codes->data, codes->length,
                                   mqtt_session_reason(session, refused, why), session->peer_packet_size_max);
    return type == MQTT_SUBACK ? mqtt_suback_encode(&connection->out, session->version, packet_id, codes->data, codes->length)
                               : mqtt_unsuback_encode(&connection->out, session->version, packet_id, codes->data, codes->length);
}

void subscribe_add(struct connection *connection, const struct mqtt_subscribe *subscribe)
{
    struct buffer codes;
    buffer_init(&codes, MQTT_REMAINING_LENGTH_MAX);
    struct mqtt_subscription wanted;
    int error = 0, refused = 0; /* the last refusal: its reason is told for all */
    uint8_t refused_code = 0;
    uint64_t place = 0;
    size_t mark = connection->out.length;
    for (uint32_t position = 0; !error && mqtt_subscribe_next(subscribe, false, &position, &wanted);) {
        int failed = add_subscription(connection, &wanted, subscribe->properties.subscription_identifier, &place);
        uint8_t code = failed == 0 ? wanted.qos : (uint8_t)error_mqtt_reason(failed);
        if (failed) {
            refused = failed;
            refused_code = code;
        }
        error = buffer_append(&codes, &code, 1);
    }
    const char *why = refused == ERR_LIMIT ? "no room for another subscription, or for its retained messages" : NULL;
    if (!error)
        error = encode_codes(connection, MQTT_SUBACK, subscribe->packet_id, &codes, refused_code, why);
    buffer_fini(&codes);
    if (error)
        connection_close(connection, CLOSE_LIMIT, error_mqtt_reason(error));
    else if (connection->persistent)
        persistent_hold_back(connection, mark, place);
}

void subscribe_remove(struct connection *connection, const struct mqtt_subscribe *unsubscribe)
{
    struct buffer codes;
    buffer_init(&codes, MQTT_REMAINING_LENGTH_MAX);
    struct mqtt_subscription named;
    int error = 0;
    uint64_t place = 0;
    size_t mark = connection->out.length;
    for (uint32_t position = 0; !error && mqtt_subscribe_next(unsubscribe, true, &position, &named);) {
        uint8_t code = subscribe_end(connection, named.filter, &place) ? 0x00 : 0x11;
        if (connection->handouts)
            handout_forget(connection, named.filter);
        error = buffer_append(&codes, &code, 1);
    }
    if (!error)
        error = encode_codes(connection, MQTT_UNSUBACK, unsubscribe->packet_id, &codes, 0, NULL);
    buffer_fini(&codes);
    if (error)
        connection_close(connection, CLOSE_LIMIT, error_mqtt_reason(error));
    else if (connection->persistent)
        persistent_hold_back(connection, mark, place);
}
