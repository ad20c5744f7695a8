/* A way out: a stream of the queue, or what rules choose of it, published in order and acknowledged by the broker.
 *
 * Its state is three places in the stream (struct notes_cursor, struct outflow): everything before `completed` is done with; up to
 * `position` it was looked at, and published unless it is withheld or no rule's. A message at offset o has the packet identifier o % 65535
 * + 1, so after a restart the broker knows a message that comes again by the identifier that it had. The window of the session says what is
 * still unanswered.
 *
 * QoS 1: PUBACK is the end. The cursor is noted now and then; after a crash what lies behind it is sent again.
 *
 * QoS 2: what has its PUBREC is noted, and only when that is durable the PUBREL leaves. So after a crash each message is in one of two
 * states: before `received` its PUBREL is sent (again), and what the broker does not know it answers all the same; behind it the message is
 * sent again, and the broker, which has no PUBREL for it, knows it as a repetition. That needs the session that the broker has kept. Where
 * it has kept none, or when the group has moved to another broker, everything that is not completed is published anew: once more is better
 * than not at all. At a broker other than the one where it was, identifiers may still be in use from earlier; so there it begins with a
 * clean session. */
#include <string.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "base/hash.h"
#include "ingest/parts.h"
#include "mqtt/topic.h"

enum { PACKET_IDS = 65535, PROPERTIES_MAX = 64 << 10 };

static uint16_t id_of(uint64_t offset)
{
    return (uint16_t)(offset % PACKET_IDS + 1);
}

static struct mqtt_session *session_of(const struct outflow *out)
{
    return broker_link_session(out->link);
}

/* The offset that has an identifier, counted back from the position. */
static uint64_t offset_of(const struct outflow *out, uint16_t id)
{
    return out->position - ((uint64_t)id_of(out->position) + PACKET_IDS - id) % PACKET_IDS;
}

/* Before it everything is done with. */
static uint64_t completed_to(const struct outflow *out)
{
    const struct mqtt_session *session = session_of(out);
    return session->outbound_unacknowledged ? offset_of(out, session->oldest_packet_id) : out->position;
}

/* ---- open and close ---- */

static int view_from(struct outflow *out, uint64_t offset)
{
    struct queue *queue = out->ingest->options.queue;
    struct queue_view *view;
    int error = queue->ops->view_open(queue, out->content, offset, &view);
    if (error)
        return error;
    if (out->view)
        out->view->ops->close(out->view);
    out->view = view;
    out->has_held = false;
    out->position = offset;
    return 0;
}

static void cursor_to(struct outflow *out, uint64_t offset)
{
    struct notes_cursor *cursor = out->cursor;
    *cursor = (struct notes_cursor){.name = cursor->name, .received = offset, .completed = offset};
    notes_cursor_changed(&out->ingest->notes, cursor);
}

int outflow_open(struct outflow *out, const char *name)
{
    struct ingest *ingest = out->ingest;
    struct queue *queue = ingest->options.queue;
    uint64_t first, next, key = hash_bytes(name, strlen(name), ingest->notes.instance) | 1;
    buffer_init(&out->topic, MQTT_TOPIC_LENGTH_MAX);
    buffer_init(&out->properties, MQTT_REMAINING_LENGTH_MAX); /* a rule's message has its own */
    queue->ops->extent(queue, out->content, &first, &next);
    bool known = notes_cursor(&ingest->notes, key, false);
    out->cursor = notes_cursor(&ingest->notes, key, true);
    if (!out->cursor)
        return ERR_LIMIT;
    if (known && out->cursor->completed > next)
        diagnostics(DIAGNOSTICS_WARNING, "ingest",
                    "the stream of %ss ends before what was published of it; what is new from now on is published", out->what);
    if (!known || out->cursor->completed > next)
        cursor_to(out, next); /* what was there before is nobody's to send */
    if (out->cursor->received > next)
        out->cursor->received = next;
    out->durable = *out->cursor;
    out->sent = out->cursor->received;
    uint64_t waiting = next - out->cursor->completed; /* no later one can have been published */
    out->redeliver = waiting < out->inflight_max ? (unsigned)waiting : out->inflight_max;
    atomic_store(&out->lag, next - out->cursor->completed);
    int error = view_from(out, out->cursor->completed);
    if (!error)
        ingest->outflows[ingest->outflow_count++] = out;
    return error;
}

void outflow_close(struct outflow *out)
{
    if (out->view)
        out->view->ops->close(out->view);
    buffer_fini(&out->topic);
    buffer_fini(&out->properties);
}

bool outflow_is_idle(const struct outflow *out)
{
    return atomic_load(&out->lag) == 0 && !out->ingest->noting && out->cursor->completed == out->durable.completed;
}

/* ---- connections ---- */

bool outflow_begins_clean(const struct outflow *out, const struct broker *broker)
{
    return out->cursor->broker != broker->key;
}

void outflow_connected(struct outflow *out, const struct mqtt_connack *connack, bool clean)
{
    struct link *link = out->link;
    if (!connack->session_present) {
        cursor_to(out, out->cursor->completed);
        out->cursor->broker = broker_link_broker(link)->key;
        out->sent = out->redeliver = 0; /* nothing was published in this session */
    }
    if (clean && broker_link_session(link)->version != MQTT_VERSION_5_0) {
        broker_link_close(link, true); /* in 3.1.1 a session that begins clean ends so too; the next is kept */
        return;
    }
    bool five = broker_link_session(link)->version == MQTT_VERSION_5_0;
    out->qos_max = five ? connack->properties.maximum_qos : 2;
    /* From the oldest that is not completed on everything is looked at again; the session begins with a window that is empty. */
    out->received = out->cursor->received;
    out->released = out->durable.received < out->received ? out->durable.received : out->received;
    mqtt_session_forget_sent(broker_link_session(link), id_of(out->cursor->completed));
    if (view_from(out, out->cursor->completed))
        broker_link_fail(link, false, "the stream of %ss cannot be read", out->what);
    else
        ingest_link_in_use(link);
}

/* ---- acknowledgements ---- */

/* What has come to an end moves the cursor. */
static void advance(struct outflow *out)
{
    struct notes_cursor *cursor = out->cursor;
    uint64_t now_ns = out->ingest->now_ns, completed = completed_to(out);
    if (out->received < completed)
        out->received = completed;
    if (out->released < completed)
        out->released = completed;
    for (; out->received < out->position; out->received++) {
        enum mqtt_outbound state = mqtt_session_outbound(session_of(out), id_of(out->received));
        if (state == MQTT_OUTBOUND_WAITS_PUBREC || state == MQTT_OUTBOUND_WAITS_PUBACK)
            break;
    }
    bool pressing = out->received > cursor->received && out->received > completed; /* PUBRELs wait for it */
    bool published = out->sent > cursor->completed;                                /* else it has only passed what is not to be published */
    bool waited = now_ns - out->noted_ns >= (published ? OUTFLOW_NOTE_NS : OUTFLOW_PASSING_NS);
    bool due = completed > cursor->completed && (waited || (published && completed == out->position));
    if (!pressing && !due)
        return;
    cursor->completed = completed;
    cursor->received = out->received;
    notes_cursor_changed(&out->ingest->notes, cursor);
    out->noted_ns = now_ns;
}

void outflow_noting(struct outflow *out)
{
    out->noted = *out->cursor;
}

void outflow_noted(struct outflow *out)
{
    out->durable = out->noted;
    if (out->link->state != LINK_OPEN)
        return;
    struct mqtt_session *session = session_of(out);
    for (; out->released < out->durable.received; out->released++) {
        if (out->released >= out->position || mqtt_session_outbound(session, id_of(out->released)) != MQTT_OUTBOUND_WAITS_PUBCOMP)
            continue;
        mqtt_ack_encode(&out->link->out, session->version, MQTT_PUBREL, id_of(out->released), 0);
        broker_link_mark_dirty(out->link);
    }
}

static void on_pubrec(struct outflow *out, const struct mqtt_event *event)
{
    uint16_t id = event->ack.packet_id;
    if (!event->reason && offset_of(out, id) >= out->released)
        return; /* its PUBREL leaves when this is durable */
    mqtt_ack_encode(&out->link->out, session_of(out)->version, MQTT_PUBREL, id, event->reason);
    broker_link_mark_dirty(out->link);
}

void outflow_event(struct outflow *out, struct mqtt_event *event)
{
    bool refused = event->type == MQTT_EVENT_SETTLED && event->ack.reason >= 0x80 && event->ack.reason != 0x92;
    if (event->type == MQTT_EVENT_PUBREC)
        on_pubrec(out, event);
    else if (event->type == MQTT_EVENT_SETTLED)
        ingest_count(refused ? &out->refused : &out->acknowledged, 1);
    if (refused)
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "ingest", "broker %s refuses a %s (reason 0x%02x); it stays in the journal",
                     broker_link_broker(out->link)->name, out->what, event->ack.reason);
}

/* ---- publishing ---- */

static bool is_too_large(const struct outflow *out)
{
    const struct message *message = &out->held;
    uint32_t most = session_of(out)->peer_packet_size_max;
    return (uint64_t)message->topic_length + message->payload_length + message->properties_length + PROPERTIES_MAX > most;
}

static void say_too_large(struct outflow *out)
{
    ingest_count(&out->refused, 1);
    DIAG_LIMITED(DIAGNOSTICS_WARNING, "ingest", "a %s of %u bytes is larger than broker %s takes; it stays in the journal", out->what,
                 out->held.payload_length, broker_link_broker(out->link)->name);
}

static bool read_next(struct outflow *out)
{
    if (out->has_held)
        return true;
    int error = out->view->ops->next(out->view, &out->held, &out->origin);
    if (error && error != ERR_TRUNCATED)
        DIAG_LIMITED(DIAGNOSTICS_ERROR, "ingest", "the stream of %ss cannot be read: %s", out->what, error_text(error));
    out->has_held = !error;
    return !error;
}

/* Whether the held message is to be published; *rule gets the one by which it is, if it is by one. */
static bool is_wanted(const struct outflow *out, const struct ingest_rule **rule)
{
    *rule = out->bridge ? bridge_rule_for(out) : NULL;
    return out->bridge ? *rule != NULL : !(out->held.flags & MESSAGE_WITHHELD);
}

/* The next message to be sent, in `held` and at the position. False: there is none, or the window is full. */
static bool look(struct outflow *out, const struct ingest_rule **rule)
{
    for (unsigned looked = 0; looked < OUTFLOW_TURN_MAX; looked++) {
        if (!read_next(out))
            return false;
        bool recorded = out->held.offset < out->cursor->received; /* its identifier is in use, whatever rules say by now */
        bool wanted = is_wanted(out, rule) || recorded, too_large = wanted && !recorded && is_too_large(out);
        bool passed = !wanted || too_large;
        uint64_t skipped = out->held.offset + passed - out->position; /* damage may have taken some away */
        if (skipped && !mqtt_session_skip_ids(session_of(out), skipped))
            return false;
        out->position += skipped;
        if (!passed)
            return true;
        if (too_large)
            say_too_large(out);
        out->has_held = false;
    }
    uv_async_send(&out->ingest->wake); /* there may be more */
    return false;
}

/* What of a result is told in MQTT 5. */
static int name_result(struct outflow *out)
{
    const struct ingest_options *options = &out->ingest->options;
    bool five = session_of(out)->version == MQTT_VERSION_5_0;
    return five && options->result_properties ? options->result_properties(&out->held, &out->properties) : 0;
}

static int write_publish(struct outflow *out, const struct ingest_rule *rule, unsigned qos, uint16_t id, bool again)
{
    struct mqtt_publish packet = {
        .dup = qos && again,
        .qos = (uint8_t)qos,
        .packet_id = id,
        .topic = {(const uint8_t *)out->held.topic, out->held.topic_length},
        .payload = {out->held.payload, out->held.payload_length},
    };
    buffer_clear(&out->properties);
    int error = rule ? bridge_name_outgoing(out, rule, &packet) : name_result(out);
    if (error)
        return error;
    packet.properties_raw = (struct mqtt_slice){out->properties.data, (uint32_t)out->properties.length};
    return mqtt_publish_encode(&out->link->out, session_of(out)->version, &packet, NULL);
}

static unsigned least(unsigned one, unsigned other)
{
    return one < other ? one : other;
}

/* With which the held message is published. */
static unsigned qos_for(const struct outflow *out, const struct ingest_rule *rule)
{
    unsigned wanted = rule ? least(rule->qos, out->held.flags & MESSAGE_QOS_MASK) : out->ingest->options.results_qos;
    return least(wanted, out->qos_max);
}

/* Publishes the next message, or goes on where its exchange was. False: not now. */
static bool publish(struct outflow *out)
{
    struct mqtt_session *session = session_of(out);
    const struct ingest_rule *rule;
    if (session->outbound_unacknowledged >= out->inflight_max || out->link->out.length > LINK_OUT_MAX || !look(out, &rule))
        return false;
    uint64_t offset = out->position;
    bool recorded = offset < out->cursor->received; /* the broker has it, and waits for the PUBREL */
    unsigned qos = recorded ? 2 : qos_for(out, rule);
    uint16_t id = qos ? mqtt_session_take_id(session, qos) : 0;
    if (qos ? id == 0 : !mqtt_session_skip_ids(session, 1))
        return false;
    out->has_held = false;
    out->position++;
    int error = 0;
    if (recorded) {
        mqtt_session_restore_received(session, id);
        if (offset < out->released)
            error = mqtt_ack_encode(&out->link->out, session->version, MQTT_PUBREL, id, 0);
    } else {
        error = write_publish(out, rule, qos, id, offset < out->sent || out->redeliver > 0);
        out->redeliver -= out->redeliver > 0;
        out->sent = offset < out->sent ? out->sent : offset + 1;
    }
    broker_link_mark_dirty(out->link);
    if (error)
        broker_link_fail(out->link, false, "a %s could not be written: %s", out->what, error_text(error));
    else if (qos == 0)
        ingest_count(&out->acknowledged, 1);
    return !error;
}

uint64_t outflow_due_ns(const struct outflow *out)
{
    if (out->link->state != LINK_OPEN || !out->link->in_use)
        return UINT64_MAX;
    if (atomic_load(&out->lag))
        return out->ingest->now_ns + OUTFLOW_NOTE_NS;
    return completed_to(out) > out->cursor->completed ? out->noted_ns + OUTFLOW_PASSING_NS : UINT64_MAX;
}

void outflow_turn(struct outflow *out)
{
    struct queue *queue = out->ingest->options.queue;
    uint64_t first, next, done = out->cursor->completed;
    unsigned count = 0, inflight = 0;
    bool known = out->durable.broker == out->cursor->broker; /* a restart would know where the messages went */
    while (known && out->link->state == LINK_OPEN && out->link->in_use && count < OUTFLOW_TURN_MAX && publish(out))
        count++;
    if (count == OUTFLOW_TURN_MAX)
        uv_async_send(&out->ingest->wake); /* the rest in the next turn */
    if (out->link->state == LINK_OPEN && out->link->in_use) {
        advance(out);
        done = completed_to(out);
        inflight = session_of(out)->outbound_unacknowledged;
    }
    queue->ops->extent(queue, out->content, &first, &next);
    atomic_store(&out->inflight, inflight);
    atomic_store(&out->lag, next > done ? next - done : 0);
}
