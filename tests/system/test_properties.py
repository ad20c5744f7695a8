"""What MQTT 5 says beside a message: properties, expiry, subscription identifiers, topic aliases, reasons."""
import struct

import pytest

from packets import (ALIAS, ALIAS_MAXIMUM, CONTENT_TYPE, CORRELATION, DISCONNECT, EXPIRY, PACKET_SIZE, PROBLEM_INFORMATION, PUBACK, REASON,
                     RECEIVE_MAXIMUM, RESPONSE_INFORMATION, RESPONSE_REQUEST, RESPONSE_TOPIC, SUBSCRIPTION, USER, Packets)
from spindle import wait_until

TOLD = [(USER, (b'z', b'1')), (0x01, 1), (CONTENT_TYPE, b'text/plain'), (USER, (b'a', b'')), (RESPONSE_TOPIC, b'answers/1'),
        (CORRELATION, bytes(range(256))), (USER, (b'z', b'1')), (EXPIRY, 4000000000)]


@pytest.fixture
def server(spindle):
    """Two network threads, to which connections are dealt in turn."""
    return spindle(settings={'bus.threads': 2, 'bus.topic_alias_max': 5}).start()


# ---- forwarded ----

@pytest.mark.parametrize('qos', [0, 1, 2])
def test_properties_are_forwarded_as_they_came(server, qos):
    """To clients of both loops; one of 3.1.1 gets the message without them, and what it sends has none."""
    with Packets(server, b'p') as publisher, Packets(server, b'1') as first, Packets(server, b'2') as second, \
            Packets(server, b'3', 4) as old:
        for subscriber in (first, second, old):
            subscriber.subscribe(b't', qos=qos)
        publisher.publish(b't', b'x', qos, props=TOLD)
        assert first.message().properties == second.message().properties == TOLD
        assert old.message().payload == b'x'
        old.publish(b't', b'y', qos)
        for subscriber in (first, second):
            message = subscriber.message() if qos < 2 else None
            if message:
                assert (message.payload, message.properties) == (b'y', [])


# ---- subscription identifiers ----

def test_all_identifiers_of_matching_subscriptions_are_told(server):
    with Packets(server, b'1') as first, Packets(server, b'2') as second, Packets(server, b'3', 4) as old, Packets(server, b'p') as publisher:
        for peer in (first, second):
            peer.subscribe(b'a/b', props=[(SUBSCRIPTION, 1)])
            peer.subscribe(b'a/+', b'#', props=[(SUBSCRIPTION, 268435455)])
            peer.subscribe(b'+/b')
            peer.subscribe(b'c', props=[(SUBSCRIPTION, 9)])
        old.subscribe(b'#')
        for _ in range(2):
            publisher.publish(b'a/b', b'x', props=TOLD)
            publisher.publish(b'c', b'x')
            for peer in (first, second):
                message = peer.message()
                assert message.properties[:len(TOLD)] == TOLD
                assert sorted(message.values(SUBSCRIPTION)) == [1, 268435455, 268435455]
                assert sorted(peer.message().values(SUBSCRIPTION)) == [9, 268435455]
            assert [old.message().payload for _ in range(2)] == [b'x', b'x']
        first.subscribe(b'c', props=[(SUBSCRIPTION, 10)])
        first.unsubscribe(b'#')
        assert first.next()[0] == 0xb0
        publisher.publish(b'c', b'x')
        assert first.message().values(SUBSCRIPTION) == [10]


def test_what_breaks_the_rules_of_identifiers(server):
    with Packets(server) as peer:
        peer.packet(0x82, b'\0\1\2\x0b\0\0\1t\0')
        assert peer.answer()[2] == 0x82
    with Packets(server) as peer:
        peer.publish(b't', b'', props=[(SUBSCRIPTION, 1)])
        assert peer.answer()[2] == 0x82


# ---- expiry ----

def test_what_waits_too_long_is_not_delivered(server):
    """A subscriber that takes one message at a time: behind it the others wait."""
    with Packets(server, b's', props=[(RECEIVE_MAXIMUM, 1)]) as subscriber, Packets(server, b'p') as publisher:
        subscriber.subscribe(b't', qos=1)
        for payload, expiry in ((b'first', None), (b'short', 1), (b'plain', None), (b'long', 1000)):
            publisher.publish(b't', payload, 1, props=[(USER, (b'n', payload))] + ([(EXPIRY, expiry)] if expiry else []))
            assert publisher.answer()[0] == PUBACK
        held = subscriber.message(acknowledge=False)
        assert held.payload == b'first'
        publisher.publish(b'retained', b'x', 1, retain=True, props=[(EXPIRY, 2)])
        publisher.answer()

        def gone():
            with Packets(server, b'w') as witness:
                witness.subscribe(b'retained')
                witness.packet(0xc0, b'')
                return witness.next()[0] == 0xd0
        wait_until(gone, 'another message has expired')
        subscriber.packet(0x40, struct.pack('>H', held.identifier))
        plain, long = subscriber.message(), subscriber.message()
        assert (plain.payload, plain.properties) == (b'plain', [(USER, (b'n', b'plain'))])
        assert long.payload == b'long' and long.values(USER) == [(b'n', b'long')]
        assert 980 < long.values(EXPIRY)[0] < 1000
        subscriber.quiet()
    assert server.metrics().get_sum('spindle_bus_messages_dropped_total', reason='expired') == 1


# ---- aliases of a client ----

def test_a_client_may_use_aliases(server):
    with Packets(server, b'p') as publisher, Packets(server, b'1') as first, Packets(server, b'2') as second:
        assert dict(publisher.connack)[ALIAS_MAXIMUM] == 5
        first.subscribe(b'#', qos=1)
        second.subscribe(b'#', qos=1)
        sent = [(b'one', 1, b'one'), (b'', 1, b'one'), (b'two', 5, b'two'), (b'', 1, b'one'), (b'three', 1, b'three'), (b'', 1, b'three'),
                (b'', 5, b'two'), (b'plain', None, b'plain')]
        for i, (topic, alias, _) in enumerate(sent):
            props = TOLD[:2] + ([(ALIAS, alias)] if alias else []) + TOLD[2:]
            publisher.publish(topic, b'x', i % 2, identifier=i + 1, props=props)
        for _, _, topic in sent:
            for subscriber in (first, second):
                message = subscriber.message()
                assert (message.topic, message.properties) == (topic, TOLD)
        records = [(r['topic'], r['payload']) for r in server.journal('bus')]
        assert records == [(topic.decode(), b'x') for i, (_, _, topic) in enumerate(sent) if i % 2]


def test_an_alias_is_of_one_connection(server):
    with Packets(server) as peer:
        peer.publish(b't', b'', props=[(ALIAS, 1)])
        peer.quiet()
    with Packets(server) as peer:
        peer.publish(b'', b'', props=[(ALIAS, 1)])
        assert peer.answer()[:3] == (DISCONNECT, None, 0x82)


@pytest.mark.parametrize('alias', [6, 65535, 0])
def test_an_alias_above_the_maximum_is_refused(server, alias):
    with Packets(server) as peer:
        peer.publish(b't', b'', props=[(ALIAS, alias)])
        kind, _, reason, told = peer.answer()
        assert (kind, reason) == (DISCONNECT, 0x94) and dict(told)[REASON]


def test_without_aliases_none_are_announced(spindle):
    server = spindle(settings={'bus.topic_alias_max': 0}).start()
    with Packets(server, props=[(ALIAS_MAXIMUM, 10)]) as peer:
        assert ALIAS_MAXIMUM not in dict(peer.connack)
        peer.subscribe(b'#')
        peer.publish(b't', b'')
        assert ALIAS not in dict(peer.message().properties)
        peer.publish(b't', b'', props=[(ALIAS, 1)])
        assert peer.answer()[2] == 0x94


# ---- aliases of ours ----

@pytest.mark.parametrize('most, used', [(2, 2), (100, 5), (0, 0)])
def test_a_subscriber_is_sent_aliases_as_many_as_it_allows(server, most, used):
    with Packets(server, b's', props=[(ALIAS_MAXIMUM, most), (RECEIVE_MAXIMUM, 3)]) as subscriber, Packets(server, b'p') as publisher:
        subscriber.subscribe(b'#', qos=1, props=[(SUBSCRIPTION, 3)])
        topics = [b'topic/%d' % (i % 8) for i in range(64)]
        for i, topic in enumerate(topics):
            publisher.publish(topic, b'%d' % i, i % 2, identifier=i + 1, props=TOLD)
        for i in range(1, 64, 2):
            assert publisher.answer()[1] == i + 1
        known, payloads, short = {}, {}, 0
        for _ in topics:
            message = subscriber.message()
            alias = message.values(ALIAS)
            assert not alias or 1 <= alias[0] <= used
            if message.topic and alias:
                known[alias[0]] = message.topic
            short += not message.topic
            payloads[int(message.payload)] = message.topic or known[alias[0]]
            assert [p for p in message.properties if p[0] not in (ALIAS, SUBSCRIPTION)] == TOLD and message.values(SUBSCRIPTION) == [3]
        assert [payloads[i] for i in range(64)] == topics
        assert len(known) == used and (short > 0) == (used > 0)


def test_an_alias_does_not_make_a_packet_too_large(server):
    """Without the alias the packet has just the size that is allowed."""
    with Packets(server, b's', props=[(ALIAS_MAXIMUM, 5), (PACKET_SIZE, 20)]) as subscriber, Packets(server, b'p') as publisher:
        subscriber.subscribe(b'topic')
        for payload in (b'p' * 10, b'p' * 10, b'short', b'p' * 10, b'p' * 11, b'last'):
            publisher.publish(b'topic', payload)
        assert [subscriber.message().payload for _ in range(5)] == [b'p' * 10, b'p' * 10, b'short', b'p' * 10, b'last']


# ---- reasons ----

def test_reasons_are_told_in_words(server):
    with Packets(server) as peer:
        codes, told = peer.subscribe(b'ok')
        assert (codes, told) == ([0], [])
        peer.publish(b'$SYS/x', b'', 1, 3)
        kind, _, reason, told = peer.answer()
        assert (kind, reason) == (PUBACK, 0x87) and b'$SYS' in dict(told)[REASON]
        peer.packet(0xf0, b'')
        assert dict(peer.answer()[3])[REASON]
    with Packets(server, props=[(PROBLEM_INFORMATION, 0)]) as peer:
        peer.publish(b'$SYS/x', b'', 1, 3)
        assert peer.answer() == (PUBACK, 3, 0x87, [])
        peer.packet(0xf0, b'')
        assert peer.answer() == (DISCONNECT, None, 0x82, [])


def test_no_reason_makes_a_packet_too_large(server):
    with Packets(server, props=[(PACKET_SIZE, 30)]) as peer:
        peer.publish(b'$SYS/x', b'', 1, 3)
        assert peer.answer() == (PUBACK, 3, 0x87, [])
        peer.packet(0xf0, b'')
        kind, _, reason, told = peer.answer()
        assert (kind, reason) == (DISCONNECT, 0x82) and told == [(REASON, b'protocol error')]


def test_response_information_is_told_to_who_asks(spindle):
    server = spindle(settings={'bus.response_information': 'answers/here'}).start()
    for asked, told in (([(RESPONSE_REQUEST, 1)], b'answers/here'), ([(RESPONSE_REQUEST, 0)], None), ([], None)):
        with Packets(server, props=asked) as peer:
            assert dict(peer.connack).get(RESPONSE_INFORMATION) == told
    server = spindle().start()
    with Packets(server, props=[(RESPONSE_REQUEST, 1)]) as peer:
        assert RESPONSE_INFORMATION not in dict(peer.connack)


def test_what_is_available_is_not_denied(server):
    with Packets(server) as peer:
        denied = {identifier for identifier, value in peer.connack if value == 0}
        assert not denied
