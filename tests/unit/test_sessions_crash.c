/* The persistent sessions on a disk that crashes: whatever was noted and durable is found again, nothing is found that was not noted, and
 * an identifier of a client is taken if and only if its message is there and it was not given back.
 *
 * Changes are drawn from a seed and done to the sessions and to a model beside them. The model is kept as it was after each change; what a
 * start finds must be one of these, not older than what was durable. SPINDLE_FAULT_SEED and SPINDLE_FAULT_RUNS as in journal_trial.h. */
#include "sessions_fixture.h"

#include "journal_trial.h"
#include "sessions/sessions_parts.h"

enum { NAMES = 5, FILTERS = 6, SENT_MAX = 24, IDS = 12, TAKES_MAX = 4000, STATES_MAX = 2000, TURNS = 60 };

struct known {
    bool exists;
    uint64_t number;
    struct filter {
        bool there;
        struct router_subscription how;
    } filters[FILTERS];
    struct session_sent sent[SENT_MAX];
    unsigned sent_count;
    struct follower_places cursor, position;
    uint16_t next_id;
};

struct state {
    uint64_t place;
    struct known all[NAMES];
};

/* A message that took an identifier. */
struct take {
    uint64_t number, sequence;
    uint16_t id;
    bool durable;      /* known to be */
    bool gone;         /* it was not there after a crash */
    bool found;        /* by the last look */
    uint64_t released; /* when this place is durable; UINT64_MAX: it is not */
};

struct model {
    struct fixture f;
    struct random_source random;
    struct known now[NAMES];
    struct session *sessions[NAMES]; /* NULL: not attached */
    struct state *states;            /* [state_count], since the start */
    unsigned state_count;
    struct take takes[TAKES_MAX];
    unsigned take_count;
    uint64_t next_offset[FOLLOWER_CONTENTS]; /* of a message that is sent to a session */
    struct simulated_disk *crashed;          /* what the crash has left; NULL: none yet */
    uint64_t durable_then;                   /* place */
    unsigned crash_in;                       /* calls; 0: none */
};

static uint32_t below(struct model *m, uint32_t bound)
{
    return random_below(&m->random, bound);
}

static void name_of(unsigned who, char name[8])
{
    snprintf(name, 8, "c%u", who);
}

static void filter_of_index(unsigned which, char name[16])
{
    snprintf(name, 16, "filter/%u", which);
}

static void remember(struct model *m)
{
    TRIAL_CHECK(m->state_count < STATES_MAX, "too many states");
    struct state *state = &m->states[m->state_count++];
    state->place = m->f.sessions->next_offset;
    memcpy(state->all, m->now, sizeof m->now);
}

/* ---- what a session does ---- */

static void prune(struct known *known, const struct follower_places *cursor)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++) {
        known->cursor.at[i] = cursor->at[i] > known->cursor.at[i] ? cursor->at[i] : known->cursor.at[i];
        known->position.at[i] = known->cursor.at[i] > known->position.at[i] ? known->cursor.at[i] : known->position.at[i];
    }
    for (unsigned i = 0; i < known->sent_count; i++)
        if (known->sent[i].offset >= known->cursor.at[known->sent[i].content])
            known->sent[kept++] = known->sent[i];
    known->sent_count = kept;
}

static void make(struct model *m, unsigned who)
{
    char name[8];
    name_of(who, name);
    struct known *known = &m->now[who];
    *known = (struct known){.exists = true, .next_id = 1};
    TRIAL_CHECK(!sessions_create(m->f.sessions, name, strlen(name), "u", &(struct session_owner){0}, &m->sessions[who]), "create");
    known->number = session_number(m->sessions[who]);
    sessions_find_ends(m->f.sessions, &known->cursor);
    known->position = known->cursor;
}

static void change_filter(struct model *m, unsigned who, bool there)
{
    char name[16];
    unsigned which = below(m, FILTERS);
    filter_of_index(which, name);
    struct filter *filter = &m->now[who].filters[which];
    struct router_subscription how = {.qos = (uint8_t)below(m, 3), .options = (uint8_t)below(m, 4), .identifier = below(m, 3)};
    uint64_t place;
    filter->there = there;
    filter->how = how;
    if (there)
        assert_int_equal(sessions_subscribe(m->f.sessions, m->sessions[who], name, strlen(name), &how, NULL, &place), 0);
    else
        assert_int_equal(sessions_unsubscribe(m->f.sessions, m->sessions[who], name, strlen(name), &place), 0);
    assert_int_equal(place, m->f.sessions->next_offset);
}

static struct session_sent *under_way(struct known *known, uint16_t id)
{
    for (unsigned i = known->sent_count; i-- > 0;)
        if (known->sent[i].packet_id == id && known->sent[i].state != SESSION_DONE)
            return &known->sent[i];
    return NULL;
}

static struct session_sent draw_sent(struct model *m, uint8_t qos)
{
    uint8_t content = (uint8_t)below(m, FOLLOWER_CONTENTS);
    m->next_offset[content] += below(m, 3) + 100; /* so that it lies behind all cursors */
    return (struct session_sent){m->next_offset[content], (uint16_t)(below(m, 10) + 1), content, qos, SESSION_SENT, false};
}

static void send(struct model *m, unsigned who)
{
    struct known *known = &m->now[who];
    if (known->sent_count == SENT_MAX)
        return;
    struct session_sent sent = draw_sent(m, 2);
    struct session_sent *older = under_way(known, sent.packet_id);
    if (older)
        older->state = SESSION_DONE;
    known->sent[known->sent_count++] = sent;
    known->next_id = (uint16_t)(sent.packet_id + 1);
    assert_int_equal(sessions_sent(m->f.sessions, m->sessions[who], &sent, NULL), 0);
}

static void answer(struct model *m, unsigned who)
{
    uint16_t id = (uint16_t)(below(m, 10) + 1);
    bool completed = below(m, 2);
    struct session_sent *sent = under_way(&m->now[who], id);
    if (sent)
        sent->state = completed ? SESSION_DONE : SESSION_RECEIVED;
    assert_int_equal((completed ? sessions_completed : sessions_received)(m->f.sessions, m->sessions[who], id, NULL), 0);
}

static struct follower_places draw_cursor(struct model *m, const struct known *known)
{
    struct follower_places cursor = known->cursor;
    if (known->sent_count) {
        const struct session_sent *sent = &known->sent[below(m, known->sent_count)];
        cursor.at[sent->content] = sent->offset + below(m, 2);
    }
    return cursor;
}

static void advance(struct model *m, unsigned who)
{
    struct follower_places cursor = draw_cursor(m, &m->now[who]);
    prune(&m->now[who], &cursor);
    assert_int_equal(sessions_advance(m->f.sessions, m->sessions[who], &cursor), 0);
}

static void submit(struct model *m)
{
    sessions_flush(m->f.sessions);
    m->f.producer->ops->submit(m->f.producer);
}

static void leave(struct model *m, unsigned who)
{
    submit(m);
    if (below(m, 6) == 0) { /* as it was */
        sessions_detach(m->f.sessions, m->sessions[who], NULL);
        m->sessions[who] = NULL;
        return;
    }
    struct known *known = &m->now[who];
    struct session_sent list[SENT_MAX];
    size_t count = known->sent_count;
    memcpy(list, known->sent, sizeof list);
    for (; count < SENT_MAX && below(m, 3); count++)
        list[count] = draw_sent(m, 1);
    for (size_t i = 0; i < count; i++)
        if (list[i].qos == 1)
            list[i].packet_id = (uint16_t)(100 + i);
    struct sessions_leave leave = {.expiry_s = below(m, 8) ? SESSIONS_NEVER : 0,
                                   .cursor = draw_cursor(m, known),
                                   .sent = list,
                                   .sent_count = count,
                                   .next_id = (uint16_t)(below(m, 100) + 1)};
    leave.position = leave.cursor;
    leave.position.at[below(m, FOLLOWER_CONTENTS)] += below(m, 10);
    sessions_detach(m->f.sessions, m->sessions[who], &leave);
    m->sessions[who] = NULL;
    if (leave.expiry_s == 0) {
        *known = (struct known){0};
        return;
    }
    memcpy(known->sent, list, sizeof list);
    known->sent_count = (unsigned)count;
    known->position = leave.position;
    known->next_id = leave.next_id;
    prune(known, &leave.cursor);
}

static struct take *taken(struct model *m, uint64_t number, uint16_t id)
{
    for (unsigned i = 0; i < m->take_count; i++)
        if (m->takes[i].number == number && m->takes[i].id == id && !m->takes[i].gone && m->takes[i].released == UINT64_MAX)
            return &m->takes[i];
    return NULL;
}

static void take_id(struct model *m, unsigned who)
{
    static const uint8_t payload[4000];
    uint16_t id = (uint16_t)(below(m, IDS) + 1);
    if (taken(m, m->now[who].number, id) || m->take_count == TAKES_MAX)
        return;
    struct queue_origin origin;
    assert_int_equal(sessions_take(m->f.sessions, m->sessions[who], id, &origin), 0);
    m->takes[m->take_count++] = (struct take){.number = origin.session, .sequence = origin.sequence, .id = id, .released = UINT64_MAX};
    struct message message = {.topic = "t", .topic_length = 1, .payload = payload, .payload_length = below(m, sizeof payload), .flags = 2};
    enum queue_destination to = below(m, 2) ? QUEUE_KEPT : QUEUE_CONSUMED;
    assert_int_equal(m->f.producer->ops->append_from(m->f.producer, to, &message, &origin, m->take_count), 0);
}

static void release_id(struct model *m, unsigned who)
{
    uint16_t id = (uint16_t)(below(m, IDS) + 1);
    struct take *take = taken(m, m->now[who].number, id);
    if (take && !take->durable && below(m, 8))
        return; /* no client does that, but some */
    uint64_t place;
    assert_int_equal(sessions_release(m->f.sessions, m->sessions[who], id, &place), 0);
    if (take)
        take->released = place;
}

static void come(struct model *m, unsigned who)
{
    char name[8];
    name_of(who, name);
    struct known *known = &m->now[who];
    bool fresh = below(m, 10) == 0;
    struct session_owner owner;
    struct session *session = NULL;
    enum sessions_found found = sessions_attach(m->f.sessions, name, strlen(name), "u", fresh, clock_wall_ns(), &owner, &session);
    if (found == SESSIONS_LEAVING)
        return;
    assert_int_equal(found, fresh ? SESSIONS_NONE : SESSIONS_ATTACHED);
    for (unsigned i = 0; !fresh && i < m->take_count; i++) { /* who begins anew does not care */
        const struct take *take = &m->takes[i];
        TRIAL_CHECK(take->number != known->number || take->gone || take->durable || take->released != UINT64_MAX,
                    "the last owner's message is not durable yet");
    }
    if (fresh)
        *known = (struct known){0};
    m->sessions[who] = session;
}

static void do_something(struct model *m)
{
    unsigned who = below(m, NAMES), what = below(m, 24);
    if (!m->now[who].exists) {
        make(m, who);
    } else if (!m->sessions[who]) {
        come(m, who);
    } else if (what < 2) {
        change_filter(m, who, what == 0);
    } else if (what < 6) {
        send(m, who);
    } else if (what < 10) {
        answer(m, who);
    } else if (what < 11) {
        advance(m, who);
    } else if (what < 12) {
        leave(m, who);
    } else if (what < 18) {
        take_id(m, who);
    } else {
        release_id(m, who);
    }
    remember(m);
}

/* ---- the disk ---- */

static int before_call(void *context, const struct simulated_call *call)
{
    look_at_space(&((struct model *)context)->f, call);
    return 0;
}

static void note_durable(void *context, const uint64_t *tokens, size_t count)
{
    struct model *m = context;
    for (size_t i = 0; i < count; i++) {
        struct take *take = &m->takes[tokens[i] - 1];
        take->durable = true;
        for (unsigned who = 0; who < NAMES; who++)
            if (m->sessions[who] && m->now[who].number == take->number && below(m, 8))
                sessions_taken(m->f.sessions, m->sessions[who], take->id);
    }
}

static void after_call(void *context, const struct simulated_call *call)
{
    struct model *m = context;
    (void)call;
    if (m->crashed || m->crash_in == 0 || --m->crash_in)
        return;
    m->durable_then = sessions_durable(m->f.sessions);
    m->crashed = simulated_disk_crash(m->f.disk, random_u64(&m->random));
}

static void live(struct model *m, unsigned turns)
{
    for (unsigned turn = 0; turn < turns && !m->crashed; turn++) {
        if (below(m, 6) == 0)
            make_short(&m->f, below(m, 12) + 1); /* notes overtake publishes */
        for (unsigned i = below(m, 12); i > 0; i--)
            do_something(m);
        if (below(m, 4) == 0)
            assert_int_equal(sessions_sweep(m->f.sessions, 1), 0);
        if (below(m, 8))
            sessions_flush(m->f.sessions);
        if (below(m, 4))
            submit(m);
        if (below(m, 3) == 0)
            journal_step_keeper(m->f.journal);
        if (below(m, 2))
            step(&m->f);
        else if (below(m, 2))
            journal_step_group(m->f.journal); /* notes only, perhaps */
        if (!m->crashed)
            m->f.producer->ops->poll(m->f.producer, note_durable, m);
    }
}

/* ---- what a start finds ---- */

static void find_messages(struct model *m)
{
    for (unsigned i = 0; i < m->take_count; i++)
        m->takes[i].found = false;
    for (unsigned content = 0; content < 2; content++) {
        struct queue_view *view;
        struct message message;
        struct queue_origin origin;
        assert_int_equal(m->f.queue.ops->view_open(&m->f.queue, follower_contents[content], 0, &view), 0);
        while (view->ops->next(view, &message, &origin) == 0)
            for (unsigned i = 0; i < m->take_count; i++)
                if (m->takes[i].number == origin.session && m->takes[i].sequence == origin.sequence && m->takes[i].id == origin.packet_id &&
                    !m->takes[i].gone)
                    m->takes[i].found = true;
        view->ops->close(view);
    }
}

struct compared {
    struct model *m;
    const struct known *known;
    unsigned filters, sent, taken;
};

static int compare_filter(void *context, const struct session_subscription *subscription)
{
    struct compared *c = context;
    unsigned which = (unsigned)(subscription->filter[7] - '0');
    const struct filter *filter = &c->known->filters[which];
    TRIAL_CHECK(filter->there && filter->how.qos == subscription->how.qos && filter->how.options == subscription->how.options &&
                    filter->how.identifier == subscription->how.identifier,
                "subscription %u is not what it was", which);
    c->filters++;
    return 0;
}

static int compare_sent(void *context, const struct session_sent *sent)
{
    struct compared *c = context;
    TRIAL_CHECK(c->sent < c->known->sent_count, "too much was sent");
    const struct session_sent *expected = &c->known->sent[c->sent++];
    TRIAL_CHECK(sent->offset == expected->offset && sent->packet_id == expected->packet_id && sent->content == expected->content &&
                    sent->qos == expected->qos && sent->state == expected->state,
                "what was sent under %u is not what it was", sent->packet_id);
    return 0;
}

static int compare_taken(void *context, uint16_t packet_id)
{
    struct compared *c = context;
    TRIAL_CHECK(taken(c->m, c->known->number, packet_id), "identifier %u is taken", packet_id);
    c->taken++;
    return 0;
}

static void compare(struct model *m, unsigned who)
{
    char name[8];
    name_of(who, name);
    const struct known *known = &m->now[who];
    struct session_owner owner;
    struct session *session = NULL;
    enum sessions_found found = sessions_attach(m->f.sessions, name, strlen(name), "u", false, clock_wall_ns(), &owner, &session);
    TRIAL_CHECK(found == (known->exists ? SESSIONS_ATTACHED : SESSIONS_NONE), "%s is found as %d", name, (int)found);
    m->sessions[who] = session;
    if (!known->exists)
        return;
    TRIAL_CHECK(session_number(session) == known->number, "%s has another number", name);
    struct compared c = {.m = m, .known = known};
    struct session_visitor visitor = {&c, compare_filter, compare_sent, compare_taken};
    struct follower_places cursor, position;
    uint16_t next_id;
    assert_int_equal(sessions_visit(m->f.sessions, session, &visitor, &cursor, &position, &next_id), 0);
    unsigned filters = 0, ids = 0;
    for (unsigned i = 0; i < FILTERS; i++)
        filters += known->filters[i].there;
    for (uint16_t id = 1; id <= IDS; id++)
        ids += taken(m, known->number, id) != NULL;
    TRIAL_CHECK(c.filters == filters, "%u subscriptions of %u", c.filters, filters);
    TRIAL_CHECK(c.sent == known->sent_count, "%u sent of %u", c.sent, known->sent_count);
    TRIAL_CHECK(c.taken == ids, "%u identifiers taken of %u", c.taken, ids);
    TRIAL_CHECK(memcmp(&cursor, &known->cursor, sizeof cursor) == 0 && memcmp(&position, &known->position, sizeof position) == 0,
                "cursor or position of %s", name);
    TRIAL_CHECK(next_id == known->next_id, "next identifier of %s: %u, not %u", name, next_id, known->next_id);
}

static void begin_life(struct model *m, uint64_t durable)
{
    start(&m->f);
    uint64_t end = journal_stream_durable(m->f.streams[STREAM_SESSIONS]);
    TRIAL_CHECK(end >= durable, "%llu notes are there of %llu", (unsigned long long)end, (unsigned long long)durable);
    unsigned i = m->state_count;
    while (i > 0 && m->states[i - 1].place > end)
        i--;
    TRIAL_CHECK(i > 0, "no state is as old");
    memcpy(m->now, m->states[i - 1].all, sizeof m->now);
    find_messages(m);
    for (i = 0; i < m->take_count; i++) {
        struct take *take = &m->takes[i];
        take->durable = take->durable || take->found;
        take->gone = !take->durable;
        if (take->released > end)
            take->released = UINT64_MAX;
    }
    for (unsigned who = 0; who < NAMES; who++)
        compare(m, who);
    m->state_count = 0;
    remember(m);
    /* What was just noted is of no account until it is there. */
    m->states[0].place = 0;
}

static void run(uint64_t seed)
{
    static struct model model;
    model = (struct model){.random = {seed}};
    struct model *m = &model;
    m->states = calloc(STATES_MAX, sizeof *m->states);
    m->f.disk = simulated_disk_create(seed);
    m->f.disk_free_min = FIXTURE_FREE_MIN;
    m->f.options.slack = 3000;
    m->f.options.mark_bytes = 30000;
    m->state_count = 1; /* nothing, at place 0 */
    uint64_t durable = 0;
    for (unsigned lives = 0; lives < 12; lives++) {
        make_short(&m->f, 1);
        look_at_space(&m->f, &(struct simulated_call){.kind = SIMULATED_SPACE});
        begin_life(m, durable);
        m->crash_in = below(m, 3) ? below(m, 200) + 1 : 0;
        simulated_disk_set_hooks(m->f.disk, &(struct simulated_hooks){.before = before_call, .after = after_call, .context = m});
        live(m, TURNS);
        simulated_disk_set_hooks(m->f.disk, &(struct simulated_hooks){0});
        if (!m->crashed) {
            m->durable_then = sessions_durable(m->f.sessions);
            if (below(m, 2))
                m->crashed = simulated_disk_crash(m->f.disk, random_u64(&m->random));
        }
        durable = m->durable_then;
        kill_process(&m->f);
        if (m->crashed) {
            simulated_disk_destroy(m->f.disk);
            m->f.disk = m->crashed;
            m->crashed = NULL;
        }
    }
    simulated_disk_destroy(m->f.disk);
    free(m->states);
}

static void what_was_durable_is_found_and_nothing_else(void **state)
{
    (void)state;
    trial_seeds(20, run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_durable_is_found_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
