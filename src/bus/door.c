/* The door: who is let in, and what those who are may do. It asks access/, keeps the answers with the connection, and carries out what they
 * mean for it: a refusal, a pause, the end of a subscription.
 *
 * A CONNECT whose password has to be checked is not taken: the connection is paused, the outcome comes by mail, and the packet is offered
 * again. A client that publishes more than its quota is not read from until it may go on, whatever the QoS: nothing is lost, the sender's
 * own queue grows. */
#include "bus/loop.h"

#include <string.h>

#include "base/error.h"

static struct access *access_of(const struct connection *connection)
{
    return connection->loop->bus->options.access;
}

static uint64_t now_ns(const struct loop *loop)
{
    return uv_now(&loop->uv) * 1000000u;
}

/* ---- who somebody is ---- */

static struct access_event login_event(const struct connection *connection, const struct mqtt_connect *connect)
{
    return (struct access_event){.user = (const char *)connect->username.data,
                                 .user_length = connect->has_username ? connect->username.length : 0,
                                 .client = (const char *)connect->client_id.data,
                                 .client_length = connect->client_id.length,
                                 .peer = connection->peer};
}

static struct access_login login_of(const struct connection *connection, const struct mqtt_connect *connect)
{
    static const char nothing[1];
    struct access_login login = {.certificate = link_user(connection), .loopback = connection->door.loopback};
    if (connect->has_username) {
        login.user = connect->username.length ? (const char *)connect->username.data : nothing;
        login.user_length = connect->username.length;
    }
    if (connect->has_username && connect->has_password) {
        login.password = connect->password.length ? (const void *)connect->password.data : nothing;
        login.password_length = connect->password.length;
    }
    return login;
}

/* On a thread that checks passwords. */
static void on_checked(void *context, uint64_t token, int error)
{
    enum door_login login = error == 0 ? DOOR_LOGIN_ADMITTED : error == ERR_CREDENTIALS ? DOOR_LOGIN_WRONG : DOOR_LOGIN_BUSY;
    mail_login(context, (uint32_t)(token >> 32), (uint32_t)token, login);
}

bool door_waits(struct connection *connection, const struct mqtt_connect *connect)
{
    static const enum door_login refused[ACCESS_DENIAL_COUNT] = {[ACCESS_DENIAL_ANONYMOUS] = DOOR_LOGIN_NAMELESS,
                                                                 [ACCESS_DENIAL_CREDENTIALS] = DOOR_LOGIN_WRONG,
                                                                 [ACCESS_DENIAL_BUSY] = DOOR_LOGIN_BUSY};
    struct door *door = &connection->door;
    if (door->login != DOOR_LOGIN_NONE)
        return false;
    struct access_login login = login_of(connection, connect);
    enum access_denial denial;
    uint64_t token = (uint64_t)connection->slot << 32 | connection->generation;
    switch (access_login(access_of(connection), &login, on_checked, connection->loop, token, &door->way, &denial)) {
    case ACCESS_ADMITTED:
        door->login = DOOR_LOGIN_ADMITTED;
        return false;
    case ACCESS_REFUSED:
        door->login = refused[denial];
        return false;
    case ACCESS_CHECKING:
        door->login = DOOR_LOGIN_CHECKING;
        door->checking_since_ns = now_ns(connection->loop);
        loop_pause(connection, PAUSE_LOGIN, 0);
        return true;
    }
    return false;
}

void door_logged_in(struct connection *connection, enum door_login login)
{
    if (connection->door.login != DOOR_LOGIN_CHECKING || connection->closing || connection->loop->quiet)
        return;
    connection->door.login = login;
    loop_unpause(connection);
    connection_continue(connection); /* the CONNECT is offered again */
}

void door_check(struct connection *connection, uint64_t at_ns)
{
    if (at_ns - connection->door.checking_since_ns > access_check_timeout_ns(access_of(connection)))
        door_logged_in(connection, DOOR_LOGIN_BUSY);
}

/* ---- letting it in ---- */

/* Takes over what its client may do now. */
static void note_bounds(struct connection *connection)
{
    connection->door.bound = access_client_is_bound(connection->door.client);
}

static int refuse_login(struct connection *connection, const struct mqtt_connect *connect)
{
    static const struct {
        enum access_denial denial;
        int error;
    } refusals[] = {[DOOR_LOGIN_WRONG] = {ACCESS_DENIAL_CREDENTIALS, ERR_CREDENTIALS},
                    [DOOR_LOGIN_BUSY] = {ACCESS_DENIAL_BUSY, ERR_BUSY},
                    [DOOR_LOGIN_NAMELESS] = {ACCESS_DENIAL_ANONYMOUS, ERR_PERMISSION}};
    struct access_event event = login_event(connection, connect);
    access_deny(access_of(connection), refusals[connection->door.login].denial, &event);
    return refusals[connection->door.login].error;
}

static bool may_publish(struct connection *connection, struct mqtt_slice topic, enum access_denial *denial)
{
    struct access_client *client = connection->door.client;
    const char *text = (const char *)topic.data;
    *denial = ACCESS_DENIAL_TOPIC_LEVELS;
    if (!access_levels_fit(client, text, topic.length))
        return false;
    *denial = ACCESS_DENIAL_PUBLISH;
    return access_may_publish(client, text, topic.length);
}

int door_admit(struct connection *connection, const struct mqtt_connect *connect)
{
    struct door *door = &connection->door;
    struct bus *bus = connection->loop->bus;
    if (door->login != DOOR_LOGIN_ADMITTED)
        return refuse_login(connection, connect);
    struct access_event event = login_event(connection, connect);
    if (door->way == ACCESS_WAY_CERTIFICATE) {
        event.user = link_user(connection);
        event.user_length = strlen(link_user(connection));
    } else if (door->way == ACCESS_WAY_ANONYMOUS) {
        event.user = "";
        event.user_length = 0;
    }
    bool replaces = event.client_length && clients_has(bus, event.client, event.client_length);
    int error = access_client_create(bus->options.access, event.user, event.user_length, event.client, event.client_length, replaces,
                                     &door->client);
    if (error == ERR_LIMIT)
        access_deny(bus->options.access, ACCESS_DENIAL_CONNECTIONS, &event);
    if (error)
        return error;
    note_bounds(connection);
    uint16_t inflight = access_client_limits(door->client)->inflight;
    if (inflight && inflight < connection->session.limits.receive_maximum)
        connection->session.limits.receive_maximum = inflight;
    enum access_denial denial;
    if (connect->will && !may_publish(connection, connect->will_topic, &denial)) {
        event.topic = (const char *)connect->will_topic.data;
        event.topic_length = connect->will_topic.length;
        access_deny(bus->options.access, ACCESS_DENIAL_WILL, &event);
        return ERR_PERMISSION;
    }
    access_note_login(bus->options.access, door->way, &event);
    return 0;
}

int door_rename(struct connection *connection, struct mqtt_slice id)
{
    int error = access_client_renew(access_of(connection), &connection->door.client, (const char *)id.data, id.length);
    if (!error)
        note_bounds(connection);
    return error;
}

void door_deny_identifier(struct connection *connection, const struct mqtt_connect *connect)
{
    struct access_event event = login_event(connection, connect);
    access_deny(access_of(connection), ACCESS_DENIAL_CLIENT_ID, &event);
}

void door_close(struct connection *connection)
{
    struct door *door = &connection->door;
    if (!door->client)
        return;
    access_take_subscriptions(door->client, -(int)connection->subscriptions);
    access_client_destroy(access_of(connection), door->client);
    door->client = NULL;
    door->bound = false;
}

/* ---- publishing ---- */

/* What concerns a client that is in. */
static void deny(struct connection *connection, enum access_denial denial, const char *topic, size_t length)
{
    const char *user = access_client_user(connection->door.client), *id = connection->client ? connection->client->id : "";
    struct access_event event = {user, strlen(user), id, strlen(id), connection->peer, topic, length};
    access_deny(access_of(connection), denial, &event);
}

static void refuse_publish(struct connection *connection, const struct mqtt_publish *publish, enum access_denial denial)
{
    counter_add(&connection->loop->counters.received[publish->qos], 1);
    deny(connection, denial, (const char *)publish->topic.data, publish->topic.length);
    uint8_t reason = denial == ACCESS_DENIAL_TOPIC_LEVELS ? 0x97 : 0x87;
    if (publish->qos && connection->session.version == MQTT_VERSION_5_0)
        connection_refuse(connection, publish, reason, NULL);
    else if (publish->qos) /* 3.1.1 has no word for it, and an acknowledgement would say that the message is kept */
        connection_close(connection, CLOSE_DENIED, reason);
}

static void wake_at(struct loop *loop, uint64_t due_ms)
{
    uint64_t now_ms = uv_now(&loop->uv), wait_ms = due_ms > now_ms ? due_ms - now_ms : 0;
    if (!loop->stopping && (!uv_is_active((uv_handle_t *)&loop->quota_due) || uv_timer_get_due_in(&loop->quota_due) > wait_ms))
        uv_timer_start(&loop->quota_due, door_on_quota_due, wait_ms, 0);
}

/* 3.1.1 has no receive maximum to announce: who has as much on the way as allowed is not read from until something is acknowledged. What
 * is written down now counts, not what it was when the client came. */
static bool has_too_many(const struct connection *connection, const struct mqtt_publish *publish)
{
    uint32_t inflight = access_client_limits(connection->door.client)->inflight, most = connection->loop->bus->options.receive_maximum;
    return publish->qos && connection->session.version != MQTT_VERSION_5_0 && inflight &&
           connection->session.inbound_unacknowledged > (inflight < most ? inflight : most); /* it counts already */
}

enum door_answer door_publish(struct connection *connection, const struct mqtt_publish *publish)
{
    struct loop *loop = connection->loop;
    enum access_denial denial;
    if (!may_publish(connection, publish->topic, &denial)) {
        refuse_publish(connection, publish, denial);
        return DOOR_CLOSED;
    }
    if (has_too_many(connection, publish)) {
        loop_pause(connection, PAUSE_QUOTA, UINT64_MAX);
        return DOOR_WAITS;
    }
    uint64_t wait_ns = access_publish_wait_ns(connection->door.client, now_ns(loop));
    if (wait_ns) {
        uint64_t due_ms = uv_now(&loop->uv) + wait_ns / 1000000u + 1;
        loop_pause(connection, PAUSE_QUOTA, due_ms);
        wake_at(loop, due_ms);
        return DOOR_WAITS;
    }
    return DOOR_OPEN;
}

void door_charge(struct connection *connection, const struct mqtt_publish *publish)
{
    access_publish_charge(connection->door.client, now_ns(connection->loop),
                          (size_t)publish->topic.length + publish->properties_raw.length + publish->payload.length);
}

void door_on_quota_due(uv_timer_t *timer)
{
    struct loop *loop = timer->data;
    if (loop->quiet)
        return;
    uint64_t now_ms = uv_now(&loop->uv);
    /* Whoever has to wait again goes to the end of the list: `last` is the last that waits now. */
    struct connection *connection = loop->paused[PAUSE_QUOTA], *last = connection ? connection->paused_before : NULL;
    for (bool more = connection != NULL; more;) {
        struct connection *next = connection->paused_next;
        more = connection != last;
        if (connection->awaited <= now_ms) {
            loop_unpause(connection);
            connection_continue(connection);
        } else if (connection->awaited != UINT64_MAX) {
            wake_at(loop, connection->awaited);
        }
        connection = next;
    }
    uv_async_send(&loop->wake); /* timers run before the turn's wait: what was taken is to go on at once */
}

bool door_will(struct connection *connection, struct mqtt_slice topic)
{
    enum access_denial denial;
    bool allowed = may_publish(connection, topic, &denial);
    if (!allowed)
        deny(connection, ACCESS_DENIAL_WILL, (const char *)topic.data, topic.length);
    return allowed;
}

/* ---- subscribing ---- */

int door_subscribe(struct connection *connection, struct mqtt_slice filter)
{
    const char *text = (const char *)filter.data;
    if (!access_levels_fit(connection->door.client, text, filter.length)) {
        deny(connection, ACCESS_DENIAL_TOPIC_LEVELS, text, filter.length);
        return ERR_LIMIT;
    }
    if (!access_may_subscribe(connection->door.client, text, filter.length)) {
        deny(connection, ACCESS_DENIAL_SUBSCRIBE, text, filter.length);
        return ERR_PERMISSION;
    }
    return 0;
}

static struct router_subscription subscriber_of(const struct connection *connection)
{
    return (struct router_subscription){
        .loop = (uint16_t)connection->loop->index, .connection = connection->slot, .generation = connection->generation};
}

int door_subscribed(struct connection *connection, struct mqtt_slice filter)
{
    if (access_take_subscriptions(connection->door.client, 1))
        return 0;
    struct router_subscription subscriber = subscriber_of(connection);
    router_unsubscribe(connection->loop->bus->router, (const char *)filter.data, filter.length, &subscriber);
    deny(connection, ACCESS_DENIAL_SUBSCRIPTIONS, (const char *)filter.data, filter.length);
    return ERR_LIMIT;
}

bool door_begins_session(struct connection *connection, uint32_t count)
{
    uint32_t most = connection->door.client ? access_client_limits(connection->door.client)->sessions : 0;
    if (!most || count < most)
        return true;
    deny(connection, ACCESS_DENIAL_SESSIONS, NULL, 0);
    return false;
}

void door_unsubscribed(struct connection *connection, uint32_t count)
{
    if (connection->door.client)
        access_take_subscriptions(connection->door.client, -(int)count);
}

/* ---- after a reload ---- */

struct revoking {
    const struct connection *connection;
    struct buffer filters; /* those that are not allowed any more, zero-terminated each */
};

static void collect_revoked(void *context, const char *filter, size_t length)
{
    struct revoking *revoking = context;
    if (access_may_subscribe(revoking->connection->door.client, filter, length))
        return;
    if (buffer_append(&revoking->filters, filter, length) == 0 && buffer_append(&revoking->filters, "", 1))
        revoking->filters.length -= length; /* without memory for its end it is left for the next reload */
}

static void end_revoked(struct connection *connection)
{
    struct loop *loop = connection->loop;
    struct revoking revoking = {.connection = connection};
    struct router_subscription subscriber = subscriber_of(connection);
    buffer_init(&revoking.filters, SIZE_MAX);
    router_visit_filters(loop->bus->router, &subscriber, collect_revoked, &revoking);
    for (size_t at = 0; at < revoking.filters.length;) {
        const char *filter = (const char *)revoking.filters.data + at;
        size_t length = strlen(filter);
        struct mqtt_slice revoked = {(const uint8_t *)filter, (uint32_t)length};
        if (subscribe_end(connection, revoked, NULL)) {
            if (connection->handouts)
                handout_forget(connection, revoked);
            deny(connection, ACCESS_DENIAL_REVOKED, filter, length);
        }
        at += length + 1;
    }
    buffer_fini(&revoking.filters);
}

void door_renew(struct loop *loop)
{
    for (uint32_t i = 0; i < loop->slot_count; i++) {
        struct connection *connection = loop->slots[i];
        if (!connection || connection->closing || !connection->door.client)
            continue;
        if (access_client_renew(access_of(connection), &connection->door.client, NULL, 0)) {
            connection_close(connection, CLOSE_LIMIT, 0x97); /* what it may do now cannot be known */
            continue;
        }
        note_bounds(connection);
        if (connection->door.bound)
            end_revoked(connection);
        if (connection->paused && connection->pause == PAUSE_QUOTA)
            connection->retry = true;
        loop_mark_dirty(connection);
    }
}
