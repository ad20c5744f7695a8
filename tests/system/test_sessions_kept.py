"""What a session keeps besides the messages that wait for it: exchanges whose subscription has ended or was lowered, while the server
runs, and when it is stopped or killed in between."""
import pytest

import wire
from packets import PUBACK, PUBCOMP, PUBREC, PUBREL, RECEIVE_MAXIMUM, UNSUBACK
from sessions import Visit, payloads, put

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
