"""What a session keeps besides the messages that wait for it: exchanges whose subscription has ended or was lowered, while the server
runs, and when it is stopped or killed in between."""
import pytest

import wire
from packets import CONTENT_TYPE, EXPIRY, PUBACK, PUBCOMP, PUBREC, PUBREL, RECEIVE_MAXIMUM, SUBSCRIPTION, UNSUBACK, USER, WILL_DELAY
from sessions import Visit, payloads, put
from spindle import wait_until

VERSIONS = pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])
GAPS = pytest.mark.parametrize('gap', ['away', 'stop', 'kill'])
QOS = pytest.mark.parametrize('qos', [1, 2])


@pytest.fixture
def server(spindle):
    """Two network threads, to which connections are dealt in turn."""
    return spindle(settings={'bus.threads': 2}).start()


def end(server, visit, gap):
    """The connection ends: the client leaves without a word, or the server is stopped or killed, and started again."""
    if gap == 'away':
        visit.cut()
        return
    server.stop() if gap == 'stop' else server.kill()
    visit.close()
    server.start()


def flags(messages):
    return [(m.payload, m.qos, m.dup, m.identifier) for m in messages]


def again(messages):
    """As they are to come again."""
    return [(m.payload, m.qos, True, m.identifier) for m in messages]


def finish(visit, messages):
    """Answers messages that were taken, to the end."""
    for message in messages:
        visit.reply(PUBACK if message.qos == 1 else PUBREC, message.identifier)
        if message.qos == 2:
            visit.expect(PUBREL, message.identifier)
            visit.reply(PUBCOMP, message.identifier)


# ---- subscriptions that end ----

@VERSIONS
@GAPS
@QOS
def test_an_exchange_outlasts_its_subscription(server, version, gap, qos):
    """What was sent and not answered comes again behind an UNSUBSCRIBE too, until it is answered; nothing else does."""
    with Visit(server, b'c', version) as visit:
        visit.subscribe(b't', b'fence', qos=2)
        put(server, b't', b'0', b'1', b'2', qos=qos)
        first = visit.take_open(3)
        visit.unsubscribe(b't')
        visit.expect(UNSUBACK, 1)
        end(server, visit, gap)
    put(server, b't', b'later', qos=qos)
    for _ in range(2):
        with Visit(server, b'c', version) as visit:
            assert flags(visit.take_open(3)) == again(first)
            visit.quiet()
            end(server, visit, gap)
    with Visit(server, b'c', version) as visit:
        finish(visit, visit.take_open(3))
        assert visit.take_rest(server, b'fence') == []
        visit.leave()
    with Visit(server, b'c', version) as visit:
        assert visit.take_rest(server, b'fence') == []


@VERSIONS
def test_who_ends_its_subscription_at_once_gets_what_has_begun(server, version):
    """After a kill, before the server has come to where it was."""
    with Visit(server, b'c', version) as visit:
        visit.subscribe(b't', b'fence', qos=2)
        put(server, b't', b'0', b'1', qos=2)
        first = visit.take_open(2)
        end(server, visit, 'kill')
    with Visit(server, b'c', version) as visit:
        visit.unsubscribe(b't')
        got, _ = visit.collect(lambda messages, others: others and len(messages) >= 2)
        assert flags(got) == again(first)
        assert visit.take_rest(server, b'fence') == []


# ---- subscriptions that are lowered ----

@GAPS
@QOS
def test_what_waits_for_a_subscription_outlasts_its_lowering(server, gap, qos):
    """What was published before the change to QoS 0 comes, with QoS 0; and so does what comes later, also while the client is away."""
    with Visit(server, b'c', props=[(RECEIVE_MAXIMUM, 1)]) as visit:
        visit.subscribe(b't', b'fence', qos=qos)
        put(server, b't', b'0', b'1', b'2', qos=qos)
        first = visit.take_open(1)
        visit.subscribe(b't', qos=0)
        put(server, b't', b'3', qos=qos)
        visit.quiet()
        end(server, visit, gap)
    put(server, b't', b'4', qos=qos)
    with Visit(server, b'c') as visit:
        got = visit.take_rest(server, b'fence', qos)
        assert payloads(got) == [b'0', b'1', b'2', b'3', b'4']
        assert [m.qos for m in got[1:]] == [0] * 4
        assert gap == 'kill' and qos == 1 or flags(got[:1]) == again(first)
        visit.leave()
    with Visit(server, b'c') as visit:
        assert visit.take_rest(server, b'fence', qos) == []


@VERSIONS
def test_nothing_is_lost_or_doubled_while_the_quality_changes(server, version):
    """Up and down, while others publish."""
    with Visit(server, b'c', version) as visit, Visit(server, b'p') as publisher:
        visit.subscribe(b't', b'fence', qos=1)
        publisher.send(b''.join(wire.publish(5, b't', b'%d' % i, 1, 1 + i) for i in range(2000)))
        visit.send(b''.join(wire.subscribe(version, (b't', i % 2), identifier=2 + i) for i in range(200)))
        got, _ = visit.collect(lambda messages, others: len(others) == 200)
        got += visit.take(2000 - len(got)) if len(got) < 2000 else []
        assert sorted(payloads(got), key=int) == [b'%d' % i for i in range(2000)]
        visit.quiet()


# ---- wills ----

def will(topic, payload, qos=2, retain=False, delay=None):
    return (topic, payload, qos, retain, [] if delay is None else [(WILL_DELAY, delay)])


def witness(server):
    """A session that is told of all wills; its client has left."""
    with Visit(server, b'witness') as visit:
        visit.subscribe(b'will/#', b'fence', qos=2)
        visit.leave()


def told(server):
    with Visit(server, b'witness') as visit:
        got = [(m.topic, m.payload, m.qos) for m in visit.take_rest(server, b'fence')]
        visit.leave()
        return sorted(got)


@pytest.fixture
def parties(server):
    """Clients that are connected to the end, each with a will on the topic of its name."""
    witness(server)
    made = []

    def make(name, version=5, **options):
        topic = b'will/' + name
        made.append(Visit(server, name, version, will=will(topic, name, **{k: options.pop(k) for k in ('qos', 'retain', 'delay') if k in options}),
                          **options))
        return made[-1]
    yield make
    for visit in made:
        visit.close()


def test_a_stop_publishes_the_wills_of_those_who_are_connected(server, parties):
    """As any message: they are on disk, in sessions that wait, and retained where that was asked for; not those that were withdrawn."""
    parties(b'clean-4', 4, clean=True)
    parties(b'clean-5', clean=True, expiry=None, qos=1)
    parties(b'kept-4', 4, retain=True)
    parties(b'kept-5')
    parties(b'left').leave()
    server.stop()
    server.start()
    expected = [(b'will/clean-4', b'clean-4', 2), (b'will/clean-5', b'clean-5', 1), (b'will/kept-4', b'kept-4', 2),
                (b'will/kept-5', b'kept-5', 2)]
    assert told(server) == expected
    with Visit(server, b'reader') as reader:
        reader.subscribe(b'will/#')
        assert [m.payload for m in reader.take()] == [b'kept-4']
    server.stop()
    server.start()
    assert told(server) == []


@VERSIONS
def test_the_will_of_a_session_outlives_a_kill(server, parties, version):
    """From its CONNACK on, and until a DISCONNECT has been taken."""
    parties(b'clean', version, clean=True, expiry=None)
    parties(b'left', version).leave()
    parties(b'kept', version)
    server.kill()
    server.start()
    assert told(server) == [(b'will/kept', b'kept', 2)]
    for _ in range(2):
        server.kill()
        server.start()
    assert told(server) == []


@pytest.mark.parametrize('gap', ['stop', 'kill'])
def test_the_delay_of_a_will_goes_on_after_a_start(server, parties, gap):
    """Of who was connected, and of who had left before; who comes back in time withdraws it."""
    for name, delay in ((b'back', 1000), (b'late', 3), (b'soon', 3)):
        parties(name, delay=delay)
    parties(b'gone', delay=3).cut()
    parties(b'away', delay=1000).cut()
    server.stop() if gap == 'stop' else server.kill()
    server.start()
    for name in (b'back', b'away'):
        with Visit(server, name) as visit:
            assert visit.present == 1
            visit.leave()
    expected = [(b'will/gone', b'gone', 2), (b'will/late', b'late', 2), (b'will/soon', b'soon', 2)]
    with Visit(server, b'witness') as visit:
        assert sorted((m.topic, m.payload, m.qos) for m in visit.take(3)) == expected
        visit.leave()
    server.kill()
    server.start()
    assert told(server) == []


# ---- retained messages ----

def retain(server, count, qos=2, **options):
    for i in range(count):
        put(server, b'r/%d' % i, b'%d' % i, qos=qos, retain=True, **options)


@VERSIONS
@GAPS
@QOS
def test_a_retained_message_without_answer_comes_again(server, version, gap, qos):
    """As it was sent, though it is not retained any more; what was received with QoS 2 is released, and what was answered is over."""
    retain(server, 5)
    with Visit(server, b'c', version) as visit:
        visit.subscribe(b'fence', qos=2)
        visit.subscribe(b'r/#', qos=qos)
        first = visit.take_open(5)
        finish(visit, first[:1])
        received = first[1:3] if qos == 2 else []
        for message in received:
            visit.reply(PUBREC, message.identifier)
            visit.expect(PUBREL, message.identifier)
        visit.quiet()
        for i in range(5):
            put(server, b'r/%d' % i, b'', qos=0, retain=True)
        assert {m.payload for m in visit.take_open(5)} == {b''}
        put(server, b'nobody', b'1', b'2')  # what was answered is on disk then
        end(server, visit, gap)
    left = first[3:] if qos == 2 else first[1:]
    for _ in range(2):
        with Visit(server, b'c', version) as visit:
            assert visit.present == 1
            for message in received:
                visit.expect(PUBREL, message.identifier)
            got = visit.take_open(len(left))
            assert flags(got) == again(left) and all(m.retain for m in got)
            visit.quiet()
            end(server, visit, gap)
    with Visit(server, b'c', version) as visit:
        for message in received:
            visit.expect(PUBREL, message.identifier)
            visit.reply(PUBCOMP, message.identifier)
        finish(visit, visit.take_open(len(left)))
        assert visit.take_rest(server, b'fence') == []
        visit.leave()
    with Visit(server, b'c', version) as visit:
        assert visit.take_rest(server, b'fence') == []


def test_what_comes_again_keeps_its_properties_and_the_receive_maximum(server):
    told = [(0x01, 1), (CONTENT_TYPE, b'text/plain'), (USER, (b'b', b'1')), (EXPIRY, 1000)]
    retain(server, 3, props=told)
    with Visit(server, b'c') as visit:
        visit.subscribe(b'r/#', qos=1, props=[(SUBSCRIPTION, 7)])
        first = visit.take_open(3)
        visit.cut()
    with Visit(server, b'c', props=[(RECEIVE_MAXIMUM, 1)]) as visit:
        for message in first:
            [got] = visit.take_open(1)
            assert flags([got]) == again([message])
            assert [p for p in got.properties if p[0] != EXPIRY] == [p for p in told if p[0] != EXPIRY] + [(SUBSCRIPTION, 7)]
            assert 1000 - 60 < got.values(EXPIRY)[0] <= 1000
            visit.quiet()
            finish(visit, [got])
        visit.quiet()


@QOS
def test_many_retained_messages_come_behind_the_suback(server, qos):
    """All of them, once, however many the disk has to take note of."""
    with Visit(server, b'p') as publisher:
        for start in range(0, 3000, 500):
            publisher.send(b''.join(wire.publish(5, b'r/%d' % i, b'%d' % i, 1, 1 + i - start, retain=True) for i in range(start, start + 500)))
            for i in range(500):
                publisher.expect(PUBACK, 1 + i)
    with Visit(server, b'c') as visit:
        visit.send(wire.subscribe(5, (b'r/#', qos), (b'r/+', 0)))
        assert visit.next()[0] == 0x90
        got = visit.take(6000)
        assert sorted(m.payload for m in got) == sorted(2 * [b'%d' % i for i in range(3000)])
        visit.quiet()


# ---- identifiers ----

def test_who_answers_no_retained_message_leaves_room_for_others(spindle):
    """Those that find no room in half of it are sent all the same."""
    server = spindle(settings={'bus.threads': 2, 'bus.sessions_size_max': '1MiB'}).start()
    with Visit(server, b'other') as other:
        assert other.subscribe(b'q/#', qos=2) == [2]
        parts = ((b'large', 20, 65536), (b'middle', 60, 1024), (b'small', 300, 1))
        with Visit(server, b'publisher', expiry=None, clean=True) as publisher:
            for name, count, size in parts:
                for i in range(count):
                    publisher.publish(b'%s/%d' % (name, i), bytes(size), 1, i + 1, retain=True)
                for _ in range(count):
                    publisher.answer()
        greedy = Visit(server, b'greedy')
        for name, count, _ in parts:
            assert greedy.subscribe(name + b'/#', qos=1) == [1]
            for _ in range(count):
                greedy.next()
        with Visit(server, b'new', will=(b'will/new', bytes(1000), 1, False, [])) as new:
            assert new.reason == 0
        put(server, b'q/1', *(b'%d' % i for i in range(20)), qos=2)
        assert payloads(other.take(20)) == [b'%d' % i for i in range(20)]
        greedy.close()


def test_who_is_refused_leaves_no_session(spindle):
    """There is no room for its will; who had a session before keeps it."""
    server = spindle(settings={'bus.threads': 2, 'bus.sessions_size_max': '1MiB'}).start()
    large = (b'will/x', bytes(60000), 1, False, [])
    with Visit(server, b'before') as before:
        before.leave()
    made = []
    while not made or made[-1].reason == 0:
        made.append(Visit(server, b'%d' % len(made), will=large))
    assert made[-1].reason == 0x97 and len(made) > 10
    assert Visit(server, b'before', will=large).reason == 0x97
    count = len(made)  # one is not let in, and one was before
    wait_until(lambda: server.metrics().get_sum('spindle_bus_sessions') == count, 'that of the refused client has ended')
    with Visit(server, b'before') as before:
        assert before.present == 1
        before.leave()
    with Visit(server, b'%d' % (len(made) - 1)) as refused:
        assert refused.present == 0
        refused.leave()
    for visit in made:
        visit.close()


def test_identifiers_that_a_client_holds_are_not_given_again_after_a_kill(server):
    """Those of QoS 2 that the session does not remember: of a shared subscription."""
    with Visit(server, b'c') as visit:
        visit.subscribe(b'$share/g/s', b'fence', qos=2)
        visit.subscribe(b't', qos=2)
        held = set()
        for _ in range(3):
            put(server, b's', *[b'%d' % i for i in range(100)], qos=2)
            held.update(m.identifier for m in visit.take_open(100))
        assert len(held) == 300
        end(server, visit, 'kill')
    put(server, b't', *[b'%d' % i for i in range(400)], qos=2)
    with Visit(server, b'c') as visit:
        assert not held & {m.identifier for m in visit.take(400) if m.topic == b't'}
