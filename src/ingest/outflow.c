/* The way out: a stream of the queue, published in order and acknowledged by the broker.
 *
 * Its state is three places in the stream (struct notes_cursor, struct outflow): everything before `completed` is done with; up to
 * `position` it was looked at, and published unless it is withheld. A message at offset o has the packet identifier o % 65535 + 1, so after
 * a restart the broker knows a message that comes again by the identifier that it had. The window of the session says what is still
 * unanswered.
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

enum { PACKET_IDS = 65535, PROPERTIES_MAX = 64 << 10 };

static const char name_of_results[] = "results";

static uint16_t id_of(uint64_t offset)
{
    return (uint16_t)(offset % PACKET_IDS + 1);
}

static struct mqtt_session *session_of(const struct ingest *ingest)
{
    return broker_link_session(ingest->outflow.link);
}

/* The offset that has an identifier, counted back from the position. */
static uint64_t offset_of(const struct outflow *out, uint16_t id)
{
    return out->position - ((uint64_t)id_of(out->position) + PACKET_IDS - id) % PACKET_IDS;
}

/* Before it everything is done with. */
static uint64_t completed_to(const struct ingest *ingest)
{
    const struct mqtt_session *session = session_of(ingest);
    const struct outflow *out = &ingest->outflow;
    return session->outbound_unacknowledged ? offset_of(out, session->oldest_packet_id) : out->position;
}

/* ---- open and close ---- */

static int view_from(struct ingest *ingest, uint64_t offset)
{
    struct outflow *out = &ingest->outflow;
    struct queue_view *view;
    int error = ingest->options.queue->ops->view_open(ingest->options.queue, QUEUE_CONTENT_RESULTS, offset, &view);
    if (error)
        return error;
    if (out->view)
        out->view->ops->close(out->view);
    out->view = view;
    out->has_held = false;
    out->position = offset;
    return 0;
}

static void cursor_to(struct ingest *ingest, uint64_t offset)
{
    struct notes_cursor *cursor = ingest->outflow.cursor;
    *cursor = (struct notes_cursor){.name = cursor->name, .received = offset, .completed = offset};
    notes_cursor_changed(&ingest->notes, cursor);
}

int outflow_open(struct ingest *ingest)
{
    struct outflow *out = &ingest->outflow;
    struct queue *queue = ingest->options.queue;
    uint64_t first, next, name = hash_bytes(name_of_results, strlen(name_of_results), ingest->notes.instance) | 1;
    buffer_init(&out->properties, PROPERTIES_MAX);
    queue->ops->extent(queue, QUEUE_CONTENT_RESULTS, &first, &next);
    bool known = notes_cursor(&ingest->notes, name, false);
    out->cursor = notes_cursor(&ingest->notes, name, true);
    if (!out->cursor)
        return ERR_LIMIT;
    if (known && out->cursor->completed > next)
        diagnostics(DIAGNOSTICS_WARNING, "ingest",
                    "the stream of results ends before what was published of it; what is new from now on is published");
    if (!known || out->cursor->completed > next)
        cursor_to(ingest, next); /* what was there before is nobody's to send */
    if (out->cursor->received > next)
        out->cursor->received = next;
    queue->ops->hold(queue, QUEUE_CONTENT_RESULTS, QUEUE_HOLDER_BROKERS, out->cursor->completed);
    out->durable = *out->cursor;
    out->sent = out->cursor->received;
    uint64_t waiting = next - out->cursor->completed; /* no later one can have been published */
    out->redeliver = waiting < ingest->options.results_inflight ? (unsigned)waiting : ingest->options.results_inflight;
    atomic_store(&out->lag, next - out->cursor->completed);
    out->active = true;
    return view_from(ingest, out->cursor->completed);
}

void outflow_close(struct ingest *ingest)
{
    struct outflow *out = &ingest->outflow;
    if (out->view)
        out->view->ops->close(out->view);
    buffer_fini(&out->properties);
}

bool outflow_is_idle(const struct ingest *ingest)
{
    const struct outflow *out = &ingest->outflow;
    return !out->active || (atomic_load(&out->lag) == 0 && !out->noting && out->cursor->completed == out->durable.completed);
}

/* ---- connections ---- */

bool outflow_begins_clean(const struct ingest *ingest, const struct broker *broker)
{
    return ingest->outflow.cursor->broker != broker->key;
}

void outflow_connected(struct ingest *ingest, const struct mqtt_connack *connack, bool clean)
{
    struct outflow *out = &ingest->outflow;
    struct link *link = out->link;
    if (!connack->session_present) {
        cursor_to(ingest, out->cursor->completed);
        out->cursor->broker = broker_link_broker(link)->key;
        out->sent = out->redeliver = 0; /* nothing was published in this session */
    }
    if (clean && broker_link_session(link)->version != MQTT_VERSION_5_0) {
        broker_link_close(link, true); /* in 3.1.1 a session that begins clean ends so too; the next is kept */
        return;
    }
    bool five = broker_link_session(link)->version == MQTT_VERSION_5_0;
    out->qos = ingest->options.results_qos;
    if (five && connack->properties.maximum_qos < out->qos)
        out->qos = connack->properties.maximum_qos;
    /* From the oldest that is not completed on everything is looked at again; the session begins with a window that is empty. */
    out->received = out->cursor->received;
    out->released = out->durable.received < out->received ? out->durable.received : out->received;
    mqtt_session_forget_sent(broker_link_session(link), id_of(out->cursor->completed));
    if (view_from(ingest, out->cursor->completed))
        broker_link_fail(link, false, "the results cannot be read");
    else
        ingest_link_in_use(link);
}

/* ---- acknowledgements ---- */

/* What has come to an end moves the cursor. */
static void advance(struct ingest *ingest)
{
    struct outflow *out = &ingest->outflow;
    struct notes_cursor *cursor = out->cursor;
    uint64_t completed = completed_to(ingest);
    if (out->received < completed)
        out->received = completed;
    if (out->released < completed)
        out->released = completed;
    for (; out->received < out->position; out->received++) {
        enum mqtt_outbound state = mqtt_session_outbound(session_of(ingest), id_of(out->received));
        if (state == MQTT_OUTBOUND_WAITS_PUBREC || state == MQTT_OUTBOUND_WAITS_PUBACK)
            break;
    }
    bool pressing = out->received > cursor->received && out->received > completed; /* PUBRELs wait for it */
    bool due = completed > cursor->completed && (completed == out->position || ingest->now_ns - out->noted_ns >= OUTFLOW_NOTE_NS);
    if (!pressing && !due)
        return;
    cursor->completed = completed;
    cursor->received = out->received;
    notes_cursor_changed(&ingest->notes, cursor);
    out->noted_ns = ingest->now_ns;
}

int outflow_write_notes(struct ingest *ingest)
{
    struct outflow *out = &ingest->outflow;
    if (!out->active || out->noting || !ingest->notes.dirty_cursors)
        return 0;
    int error = notes_write_cursors(&ingest->notes, ingest->producer, (uint64_t)TOKEN_CURSOR << 60);
    out->noting = !error;
    out->noted = *out->cursor;
    return error;
}

void outflow_noted(struct ingest *ingest)
{
    struct outflow *out = &ingest->outflow;
    out->noting = false;
    out->durable = out->noted;
    ingest->options.queue->ops->hold(ingest->options.queue, QUEUE_CONTENT_RESULTS, QUEUE_HOLDER_BROKERS, out->durable.completed);
    if (out->link->state != LINK_OPEN)
        return;
    struct mqtt_session *session = session_of(ingest);
    for (; out->released < out->durable.received; out->released++) {
        if (out->released >= out->position || mqtt_session_outbound(session, id_of(out->released)) != MQTT_OUTBOUND_WAITS_PUBCOMP)
            continue;
        mqtt_ack_encode(&out->link->out, session->version, MQTT_PUBREL, id_of(out->released), 0);
        broker_link_mark_dirty(out->link);
    }
}

static void on_pubrec(struct ingest *ingest, const struct mqtt_event *event)
{
    struct outflow *out = &ingest->outflow;
    uint16_t id = event->ack.packet_id;
    if (!event->reason && offset_of(out, id) >= out->released)
        return; /* its PUBREL leaves when this is durable */
    mqtt_ack_encode(&out->link->out, session_of(ingest)->version, MQTT_PUBREL, id, event->reason);
    broker_link_mark_dirty(out->link);
}

void outflow_event(struct ingest *ingest, struct mqtt_event *event)
{
    struct outflow *out = &ingest->outflow;
    bool refused = event->type == MQTT_EVENT_SETTLED && event->ack.reason >= 0x80 && event->ack.reason != 0x92;
    if (event->type == MQTT_EVENT_PUBREC)
        on_pubrec(ingest, event);
    else if (event->type == MQTT_EVENT_SETTLED)
        ingest_count(refused ? &out->refused : &out->acknowledged, 1);
    if (refused)
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "ingest", "broker %s refuses a result (reason 0x%02x); it stays in the stream of results",
                     broker_link_broker(out->link)->name, event->ack.reason);
}

/* ---- publishing ---- */

static bool is_too_large(const struct ingest *ingest, const struct message *message)
{
    uint32_t most = session_of(ingest)->peer_packet_size_max;
    return (uint64_t)message->topic_length + message->payload_length + PROPERTIES_MAX > most;
}

static void say_too_large(struct ingest *ingest, const struct message *message)
{
    ingest_count(&ingest->outflow.refused, 1);
    DIAG_LIMITED(DIAGNOSTICS_WARNING, "ingest", "a result of %u bytes is larger than broker %s takes; it stays in the stream of results",
                 message->payload_length, broker_link_broker(ingest->outflow.link)->name);
}

static bool read_next(struct outflow *out)
{
    if (out->has_held)
        return true;
    int error = out->view->ops->next(out->view, &out->held, NULL);
    if (error && error != ERR_TRUNCATED)
        DIAG_LIMITED(DIAGNOSTICS_ERROR, "ingest", "the results cannot be read: %s", error_text(error));
    out->has_held = !error;
    return !error;
}

/* The next message to be sent, in `held` and at the position. False: there is none, or the window is full. */
static bool look(struct ingest *ingest)
{
    struct outflow *out = &ingest->outflow;
    for (unsigned looked = 0; looked < OUTFLOW_TURN_MAX; looked++) {
        if (!read_next(out))
            return false;
        bool withheld = out->held.flags & MESSAGE_WITHHELD, too_large = is_too_large(ingest, &out->held), passed = withheld || too_large;
        uint64_t skipped = out->held.offset + passed - out->position; /* damage may have taken some away */
        if (skipped && !mqtt_session_skip_ids(session_of(ingest), skipped))
            return false;
        out->position += skipped;
        if (!passed)
            return true;
        if (!withheld)
            say_too_large(ingest, &out->held);
        out->has_held = false;
    }
    uv_async_send(&ingest->wake); /* there may be more */
    return false;
}

static int write_publish(struct ingest *ingest, unsigned qos, uint16_t id, bool again)
{
    struct outflow *out = &ingest->outflow;
    uint8_t version = session_of(ingest)->version;
    buffer_clear(&out->properties);
    if (version == MQTT_VERSION_5_0 && ingest->options.result_properties)
        ingest->options.result_properties(&out->held, &out->properties);
    struct mqtt_publish packet = {
        .dup = qos && again,
        .qos = (uint8_t)qos,
        .packet_id = id,
        .topic = {(const uint8_t *)out->held.topic, out->held.topic_length},
        .payload = {out->held.payload, out->held.payload_length},
        .properties_raw = {out->properties.data, (uint32_t)out->properties.length},
    };
    return mqtt_publish_encode(&out->link->out, version, &packet, NULL);
}

/* Publishes the next message, or goes on where its exchange was. False: not now. */
static bool publish(struct ingest *ingest)
{
    struct outflow *out = &ingest->outflow;
    struct mqtt_session *session = session_of(ingest);
    if (session->outbound_unacknowledged >= ingest->options.results_inflight || out->link->out.length > LINK_OUT_MAX || !look(ingest))
        return false;
    uint64_t offset = out->position;
    bool recorded = offset < out->cursor->received; /* the broker has it, and waits for the PUBREL */
    unsigned qos = recorded ? 2 : out->qos;
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
        error = write_publish(ingest, qos, id, offset < out->sent || out->redeliver > 0);
        out->redeliver -= out->redeliver > 0;
        out->sent = offset < out->sent ? out->sent : offset + 1;
    }
    broker_link_mark_dirty(out->link);
    if (error)
        broker_link_fail(out->link, false, "a result could not be written: %s", error_text(error));
    else if (qos == 0)
        ingest_count(&out->acknowledged, 1);
    return !error;
}

void outflow_turn(struct ingest *ingest)
{
    struct outflow *out = &ingest->outflow;
    uint64_t first, next, done = out->cursor->completed;
    unsigned count = 0, inflight = 0;
    bool known = out->durable.broker == out->cursor->broker; /* a restart would know where the messages went */
    while (known && out->link->state == LINK_OPEN && count < OUTFLOW_TURN_MAX && publish(ingest))
        count++;
    if (count == OUTFLOW_TURN_MAX)
        uv_async_send(&ingest->wake); /* the rest in the next turn */
    if (out->link->state == LINK_OPEN) {
        advance(ingest);
        done = completed_to(ingest);
        inflight = session_of(ingest)->outbound_unacknowledged;
    }
    ingest->options.queue->ops->extent(ingest->options.queue, QUEUE_CONTENT_RESULTS, &first, &next);
    atomic_store(&out->inflight, inflight);
    atomic_store(&out->lag, next > done ? next - done : 0);
}
