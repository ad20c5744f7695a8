"""Retained messages: who gets them, how, and that they survive whatever ends the server."""
import signal
import socket
import struct
import threading
import time

import pytest

from client import V5, V311
from packets import EXPIRY, PUBACK, PUBREC, REASON, RECEIVE_MAXIMUM, SUBSCRIPTION, USER, Packets
from spindle import run_cli, wait_until

PAHO_VERSIONS = pytest.mark.parametrize('version', [V311, V5], ids=['3.1.1', '5.0'])
VERSIONS = pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])


@pytest.fixture
def server(spindle):
    """Two network threads, to which connections are dealt in turn."""
    return spindle(settings={'bus.threads': 2}).start()


def seen(messages):
    return sorted((m.topic, m.payload, m.qos, m.retain) for m in messages)


@PAHO_VERSIONS
def test_the_last_message_of_a_topic_is_there_for_who_comes_later(server, connect, version):
    publisher = connect(server, version=version)
    for qos in (0, 1, 2):
        publisher.publish('state/%d' % qos, b'old', qos=qos, retain=True)
        publisher.publish('state/%d' % qos, b'new %d' % qos, qos=qos, retain=True)
    publisher.publish('state/x', b'not retained')
    publisher.publish('state/gone', b'1', retain=True)
    publisher.publish('state/gone', b'', retain=True)
    for granted in (0, 1, 2):
        later = connect(server, version=version)
        later.subscribe('state/+', qos=granted)
        assert seen(later.take(3)) == [('state/%d' % qos, b'new %d' % qos, min(qos, granted), True) for qos in (0, 1, 2)]
        assert later.take_rest() == []
        publisher.publish('state/1', b'new 1', retain=True)  # to who is there already it is a message like any other
        assert seen(later.take()) == [('state/1', b'new 1', min(1, granted), False)]
    assert server.metrics().get_sum('spindle_bus_retained_messages') == 3


@PAHO_VERSIONS
def test_a_retained_message_that_goes_is_told_to_who_is_there(server, connect, version):
    publisher, subscriber = connect(server, version=version), connect(server, version=version)
    publisher.publish('t', b'1', retain=True)
    subscriber.subscribe('t')
    assert seen(subscriber.take()) == [('t', b'1', 1, True)]
    publisher.publish('t', b'', retain=True)
    assert seen(subscriber.take()) == [('t', b'', 1, False)]
    subscriber.subscribe('t')
    assert subscriber.take_rest() == []


@VERSIONS
def test_a_second_subscription_gets_it_again(server, version):
    with Packets(server, b'a', version) as peer:
        peer.publish(b't', b'1', retain=True)
        peer.quiet()
        for _ in range(2):
            peer.subscribe(b't')
            message = peer.message()
            assert (message.payload, message.retain) == (b'1', True)
        peer.quiet()


def test_retain_handling(server):
    with Packets(server) as peer:
        peer.publish(b't', b'1', retain=True)
        peer.subscribe(b't', options=2 << 4)  # not at all
        peer.quiet()
        peer.subscribe(b't', options=1 << 4)  # for a new subscription: it is not
        peer.quiet()
        peer.subscribe(b't', options=0)
        assert peer.message().retain
        peer.unsubscribe(b't')
        assert peer.next()[0] == 0xb0
        peer.subscribe(b't', options=1 << 4)
        assert peer.message().retain
        peer.quiet()


def test_retain_as_published(server):
    with Packets(server, b'plain') as plain, Packets(server, b'as') as as_published, Packets(server, b'p') as publisher:
        plain.subscribe(b't')
        as_published.subscribe(b't', options=8)
        for retain in (True, False):
            publisher.publish(b't', b'x', retain=retain)
            assert plain.message().retain is False
            assert as_published.message().retain is retain


def test_identifiers_and_properties_come_with_it(server):
    told = [(0x01, 1), (0x03, b'text/plain'), (0x08, b'answer/here'), (0x09, b'\0\1'), (USER, (b'k', b'2')), (USER, (b'k', b'1'))]
    with Packets(server) as peer:
        peer.publish(b't', b'x', retain=True, props=told)
        peer.subscribe(b't', props=[(SUBSCRIPTION, 77)])
        message = peer.message()
        assert message.retain and message.properties == told + [(SUBSCRIPTION, 77)]


@VERSIONS
@pytest.mark.parametrize('topic_filter, found', [(b'#', 5), (b'+/b', 2), (b'a/#', 3), (b'a/b', 1), (b'a', 1), (b'$own/#', 1), (b'+', 1)])
def test_filters_find_what_they_match(server, version, topic_filter, found):
    with Packets(server, b'a', version) as peer:
        for topic in (b'a', b'a/b', b'a/b/c', b'b/b', b'/', b'$own/x'):
            peer.publish(topic, topic, retain=True)
        peer.subscribe(topic_filter)
        topics = {peer.message().topic for _ in range(found)}
        assert len(topics) == found
        peer.quiet()


# ---- durability ----

@pytest.mark.parametrize('qos', [0, 1, 2])
def test_they_survive_a_restart(server, connect, qos):
    publisher = connect(server)
    for i in range(50):
        publisher.publish('r/%d' % i, b'first', qos=qos, retain=True)
    for i in range(0, 50, 2):
        publisher.publish('r/%d' % i, b'' if i % 4 else b'second', qos=qos, retain=True)
    publisher.take_rest(qos=1)  # QoS 0 has arrived
    server.stop()
    server.start()
    subscriber = connect(server)
    subscriber.subscribe('r/#', qos=2)
    expected = {'r/%d' % i: b'first' if i % 2 else b'second' for i in range(50) if i % 2 or i % 4 == 0}
    assert {m.topic: m.payload for m in subscriber.take(len(expected))} == expected
    assert subscriber.take_rest() == []


@pytest.mark.parametrize('qos', [1, 2])
def test_what_was_acknowledged_survives_a_kill(server, qos):
    """The publisher is answered, and at that moment the server is gone."""
    for turn in range(5):
        with Packets(server) as peer:
            for i in range(20):
                peer.publish(b'k/%d' % i, b'%d' % turn, qos, identifier=i + 1, retain=True)
            for _ in range(20):
                assert peer.answer()[0] == (PUBACK if qos == 1 else PUBREC)
            server.signal(signal.SIGKILL)
        server.wait()
        server.start()
        with Packets(server) as peer:
            peer.subscribe(b'k/#')
            assert {peer.message().topic for _ in range(20)} == {b'k/%d' % i for i in range(20)}
            peer.quiet()
            peer.subscribe(b'k/7')
            assert peer.message().payload == b'%d' % turn


def test_the_stream_is_known_to_the_tools(server, connect):
    publisher = connect(server)
    publisher.publish('a', b'1', retain=True)
    publisher.publish('a', b'2', retain=True)
    assert [(r['topic'], r['payload']) for r in server.journal('retained')] == [('a', b'1'), ('a', b'2')]
    listing = run_cli('journal', 'ls', '--data-dir', server.data_dir).stdout
    assert 'retained' in listing
    run_cli('journal', 'trim', '--data-dir', server.data_dir, '--stream', 'retained', '--keep-size', '0')
    server.stop()
    run_cli('journal', 'verify', '--data-dir', server.data_dir)
    run_cli('journal', 'trim', '--data-dir', server.data_dir, '--stream', 'retained', '--keep-size', '0', '--force')
    assert set(server.audit()) == {'ingest', 'bus', 'results', 'dead-letters'}
    server.start()
    subscriber = connect(server)
    subscriber.subscribe('#')
    assert seen(subscriber.take()) == [('a', b'2', 1, True)]


# ---- expiry ----

def test_a_retained_message_lasts_as_long_as_it_may(server):
    with Packets(server) as peer:
        began = time.monotonic()  # its time begins when it arrives, before it is acknowledged
        peer.publish(b'short', b'x', 1, retain=True, props=[(EXPIRY, 2), (USER, (b'a', b'b'))])
        assert peer.answer()[0] == PUBACK
        peer.publish(b'long', b'x', 1, retain=True, props=[(EXPIRY, 1000)])
        assert peer.answer()[0] == PUBACK
        peer.subscribe(b'short')
        message = peer.message()
        assert message.values(EXPIRY) in ([1], [2]) and message.values(USER) == [(b'a', b'b')]
        server.stop()
    server.start()

    def gone():
        with Packets(server) as peer:
            peer.subscribe(b'#')
            messages = {m.topic: m.values(EXPIRY) for m in [peer.message()]}
            peer.packet(0xc0, b'')
            first, body = peer.next()
            if first != 0xd0:
                return False
            assert set(messages) == {b'long'} and 990 <= messages[b'long'][0] < 1000
            return True
    wait_until(gone, 'the message expired')
    assert time.monotonic() - began >= 2
    with Packets(server, version=4) as peer:
        peer.subscribe(b'#')
        assert peer.message().topic == b'long'
        peer.quiet()
    wait_until(lambda: server.metrics().get_sum('spindle_bus_retained_messages') == 1, 'it is removed', 40)


# ---- limits ----

def test_the_number_of_retained_messages_has_a_limit(spindle):
    server = spindle(settings={'bus.retained_max': 3}).start()
    with Packets(server, b'new') as peer, Packets(server, b'old', 4) as old, Packets(server, b'w') as witness:
        witness.subscribe(b'#')
        for i in range(3):
            peer.publish(b'%d' % i, b'x', 1, identifier=i + 1, retain=True)
            assert peer.answer()[:3] == (PUBACK, i + 1, 0)
            assert witness.message().topic == b'%d' % i
        # Refusals leave behind the acknowledgements of what came before.
        for i in range(100):
            peer.publish(b'plain', b'x', 1, identifier=2 * i + 1)
            peer.publish(b'full', b'x', 1 + i % 2, identifier=2 * i + 2, retain=True)
        for i in range(100):
            assert peer.answer() == (PUBACK, 2 * i + 1, 0, [])
            kind, identifier, reason, told = peer.answer()
            assert (kind, identifier, reason) == (PUBREC if i % 2 else PUBACK, 2 * i + 2, 0x97)
            assert b'retained' in dict(told)[REASON]
        assert [witness.message().topic for _ in range(100)] == [b'plain'] * 100
        peer.publish(b'full', b'0', 0, retain=True)  # who cannot be told: delivered and not retained
        old.publish(b'full', b'1', 1, 1, retain=True)
        assert old.answer()[:2] == (PUBACK, 1)
        assert [witness.message().payload for _ in range(2)] == [b'0', b'1']
        peer.publish(b'0', b'', 1, 1, retain=True)
        assert peer.answer()[:3] == (PUBACK, 1, 0)
        peer.publish(b'full', b'2', 1, 2, retain=True)
        assert peer.answer()[:3] == (PUBACK, 2, 0)
        metrics = server.metrics()
        assert metrics.get_sum('spindle_bus_retained_messages') == 3
        assert metrics.get_sum('spindle_bus_retained_dropped_total', reason='limit') == 102
        assert 'bus.retained_max' in server.stderr()


@pytest.mark.parametrize('version, qos', [(4, 0), (4, 1), (4, 2), (5, 0)])
def test_what_cannot_be_kept_takes_the_place_of_the_last_one_all_the_same(spindle, version, qos):
    """[MQTT-3.3.1-5], [MQTT-3.3.1-7]: the old one is not what the topic says any more."""
    server = spindle(settings={'bus.retained_size_max': '1MiB'}).start()
    with Packets(server, b'sender', version) as peer, Packets(server, b'filler') as filler:
        for i in range(10):
            filler.publish(b'full/%d' % i, b'old' * 33000, 1, i + 1, retain=True)
            assert filler.answer()[:3] == (PUBACK, i + 1, 0)
        peer.publish(b'full/3', b'new' * 67000, qos, 1, retain=True)
        if qos:
            assert peer.answer()[:2] == (PUBACK if qos == 1 else PUBREC, 1)
        peer.quiet()
        for restart in (False, True):
            if restart:
                server.stop()
                server.start()
            with Packets(server, b'later') as later:
                later.subscribe(b'full/#')
                assert sorted(later.message().topic for _ in range(9)) == [b'full/%d' % i for i in range(10) if i != 3]
                later.quiet()


def test_their_memory_has_a_limit(spindle):
    server = spindle(settings={'bus.retained_size_max': '1MiB'}).start()
    with Packets(server) as peer:
        count = 0
        while True:
            peer.publish(b'%d' % count, bytes(100000), 1, identifier=1, retain=True)
            if peer.answer()[2] == 0x97:
                break
            count += 1
        assert 8 <= count <= 10
        assert server.metrics().get_sum('spindle_bus_retained_bytes') <= 1 << 20


def test_what_waits_for_one_client_has_a_limit(spindle):
    """Nothing is acknowledged: what the first two subscriptions have asked for is still to be handed out."""
    server = spindle(settings={'bus.retained_max': 10}).start()
    with Packets(server, props=[(RECEIVE_MAXIMUM, 1)]) as peer:
        for i in range(10):
            peer.publish(b'%d' % i, b'x', 1, 1, retain=True)
            peer.answer()
        assert peer.subscribe(b'#', qos=1)[0] == [1]
        held = peer.message(acknowledge=False)
        assert peer.subscribe(b'+', qos=1)[0] == [1]
        codes, told = peer.subscribe(b'+/#', qos=1)
        assert codes == [0x97] and b'retained' in dict(told)[REASON]
        peer.packet(0x40, struct.pack('>H', held.identifier))
        for _ in range(19):
            assert peer.message().retain
        assert peer.subscribe(b'+/#', qos=1)[0] == [1]
        for _ in range(10):
            assert peer.message().retain
        peer.quiet()


def test_what_is_published_meanwhile_comes_once_to_a_new_subscription(server):
    """As retained or live, and none is left out in between, though the publisher, on the other thread for every second subscriber, never
    pauses."""
    ended = threading.Event()

    def publish():
        with Packets(server, b'p') as publisher:
            publisher.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = 0
            while not ended.is_set():
                for _ in range(20):
                    publisher.publish(b't', b'%d' % number, retain=True)
                    number += 1
                publisher.quiet()
    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    try:
        for _ in range(2000):
            with Packets(server, b's') as subscriber:
                subscriber.subscribe(b't')
                messages = [subscriber.message() for _ in range(3)]
            numbers = [int(message.payload) for message in messages]
            assert numbers == list(range(numbers[0], numbers[0] + 3)), messages
            assert not any(message.retain for message in messages[1:])
    finally:
        ended.set()
        thread.join()


# ---- many ----

def fill(server, times=20):
    with Packets(server, b'filler') as filler:
        for i in range(20000):
            filler.publish(b'many/%d' % i, b'%d' % i * times, retain=True)
        filler.quiet()


@pytest.fixture
def full(spindle):
    server = spindle(settings={'bus.threads': 2, 'bus.outgoing_size_max': '64KiB', 'bus.stall_timeout_s': 2}).start()
    fill(server)
    return server


@VERSIONS
@pytest.mark.parametrize('qos', [0, 1])
def test_many_are_handed_out_as_the_subscriber_takes_them(full, connect, version, qos):
    """Some megabytes for a queue of 64 KiB, and others are served meanwhile."""
    with Packets(full, b's', version) as subscriber, Packets(full, b'p', version) as publisher:
        if qos:
            for i in range(20000):
                publisher.publish(b'many/%d' % i, b'%d' % i * 20, 1, 1 + i % 60000, retain=True)
            for i in range(20000):
                publisher.answer()
        assert subscriber.subscribe(b'#', qos=qos)[0] == [qos]
        witness = connect(full)
        witness.subscribe('other')
        time.sleep(3)  # longer than the stall time-out: who is slow to take what is retained is not disconnected
        witness.publish('other', b'x')
        assert witness.take()[0].payload == b'x'
        payloads = {}
        while len(payloads) < 20000:
            message = subscriber.message()
            if message.topic != b'other':
                assert message.topic not in payloads and message.retain and message.qos == qos
                payloads[message.topic] = message.payload
        assert all(payloads[b'many/%d' % i] == b'%d' % i * 20 for i in range(20000))
    assert full.metrics().get_sum('spindle_bus_messages_dropped_total') == 0


def test_what_is_replaced_meanwhile_comes_last(server):
    """A subscriber never ends with an older message than there is. 20 MB are more than sockets hold, so most are not sent at once."""
    fill(server, 200)
    with Packets(server, b's') as subscriber, Packets(server, b'p') as publisher:
        subscriber.subscribe(b'#')
        for i in range(0, 20000, 3):
            publisher.publish(b'many/%d' % i, b'new' if i % 2 else b'', 1, 1 + i, retain=True)
        for i in range(0, 20000, 3):
            publisher.answer()
        last = {}
        while len(last) < 20000 or not subscriber_is_done(last):
            message = subscriber.message()
            last[message.topic] = message
        for i in range(20000):
            expected = (b'new' if i % 2 else b'') if i % 3 == 0 else b'%d' % i * 200
            assert last[b'many/%d' % i].payload == expected


def subscriber_is_done(last):
    return all(last[b'many/%d' % i].payload in (b'new', b'') for i in range(0, 20000, 3))


def test_an_unsubscription_ends_it(full):
    with Packets(full) as peer:
        peer.send(b'\x82\x07\x00\x01\x00\x00\x01#\x00' + b'\xa2\x06\x00\x02\x00\x00\x01#')
        assert peer.next()[0] == 0x90
        while peer.next()[0] != 0xb0:
            pass
        peer.quiet()
        assert full.metrics().get_sum('spindle_bus_messages_delivered_total') < 20000
