"""QoS 2, with a third-party client and with one that repeats, forgets and answers as it likes."""
import re
import struct

import pytest

from client import V5, V311, RawClient, without_reason
from holes import Hole
from spindle import wait_until

VERSIONS = pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])
PAHO_VERSIONS = pytest.mark.parametrize('version', [V311, V5], ids=['3.1.1', '5.0'])
PUBACK, PUBREC, PUBREL, PUBCOMP = 4, 5, 6, 7
NOT_FOUND, REFUSED = b'\x92', b'\x97'


@pytest.fixture
def server(spindle):
    """Two network threads, to which connections are dealt in turn."""
    return spindle(settings={'bus.threads': 2}).start()


class Peer(RawClient):
    """Sends and expects packets one by one."""

    def __init__(self, server, client_id, version, will=None, receive_maximum=None):
        super().__init__(server.port)
        self.version = version
        properties = b'' if receive_maximum is None else b'\x21' + struct.pack('>H', receive_maximum)
        flags, rest = 2, struct.pack('>H', len(client_id)) + client_id
        if will is not None:
            flags |= 4 | 2 << 3
            rest += self._none() + struct.pack('>H', len(will[0])) + will[0] + struct.pack('>H', len(will[1])) + will[1]
        body = b'\x00\x04MQTT' + bytes([version, flags, 0, 60]) + (bytes([len(properties)]) + properties if version == 5 else b'') + rest
        self.packet(0x10, body)
        first, body = self.next()
        assert first == 0x20 and body[1] == 0
        self.connack = body

    def _none(self):
        return b'\x00' if self.version == 5 else b''

    def packet(self, first, body):
        size, left = b'', len(body)
        while left > 127:
            size, left = size + bytes([left % 128 | 128]), left // 128
        self.send(bytes([first]) + size + bytes([left]) + body)

    def next(self):
        """(first byte, body) of the next packet."""
        first, size = self.read(2)
        return first, self.read(size)

    def publish(self, topic, payload, identifier, dup=False, qos=2):
        body = struct.pack('>H', len(topic)) + topic + struct.pack('>H', identifier) + self._none() + payload
        self.packet(0x30 | qos << 1 | (8 if dup else 0), body)

    def subscribe(self, topic, qos=2):
        self.packet(0x82, b'\x00\x01' + self._none() + struct.pack('>H', len(topic)) + topic + bytes([qos]))
        first, body = self.next()
        assert first == 0x90 and body[-1] == qos

    def answer(self, kind, identifier, reason=b''):
        self.packet(kind << 4 | (2 if kind == PUBREL else 0), struct.pack('>H', identifier) + reason)

    def expect(self, kind, identifier, reason=b''):
        """`reason` is told in version 5 only."""
        expected = (kind << 4 | (2 if kind == PUBREL else 0), struct.pack('>H', identifier) + (reason if self.version == 5 else b''))
        assert self.next() == expected

    def expect_publish(self, payload, identifier, qos=2):
        first, body = self.next()
        assert first == 0x30 | qos << 1
        topic_end = 2 + struct.unpack('>H', body[:2])[0]
        assert (struct.unpack('>H', body[topic_end:topic_end + 2])[0], body[topic_end + 2 + len(self._none()):]) == (identifier, payload)

    def ping(self):
        """Nothing else was on its way."""
        self.packet(0xc0, b'')
        assert self.next() == (0xd0, b'')

    def expect_closed(self, reason):
        """By a protocol error; version 5 is told which."""
        rest = self.read_until_closed()
        assert (without_reason(rest) == b'\xe0\x01' + reason) if self.version == 5 else rest == b''


def payloads(server, topic):
    return [record['payload'] for record in server.journal('bus') if record['topic'] == topic]


# ---- what clients see when all goes well ----

@PAHO_VERSIONS
def test_many_messages_arrive_exactly_once_and_in_order(server, connect, version):
    subscribers = [connect(server, version=version) for _ in range(6)]  # of each QoS one on either thread
    for i, subscriber in enumerate(subscribers):
        assert subscriber.subscribe('count/#', qos=i // 2) == [i // 2]
    publisher = connect(server, version=version)
    sent = [b'%d' % i for i in range(1500)]
    tokens = [publisher.post('count/up', payload, qos=2) for payload in sent]
    for token in tokens:
        token.wait_for_publish(30)
        assert token.is_published()
    for i, subscriber in enumerate(subscribers):
        messages = subscriber.take(len(sent)) + subscriber.take_rest(qos=2)
        assert [m.payload for m in messages] == sent
        assert {m.qos for m in messages} == {i // 2}
    assert payloads(server, 'count/up') == sent
    metrics = server.metrics()
    markers = len(subscribers)  # of take_rest
    assert metrics.get_sum('spindle_bus_messages_received_total', qos='2') == len(sent) + markers
    delivered = [metrics.get_sum('spindle_bus_messages_delivered_total', qos=qos) for qos in '012']
    assert delivered == [2 * len(sent), 2 * len(sent), 2 * len(sent) + markers]


def test_several_qualities_on_one_connection(server, connect):
    subscriber, publisher = connect(server, version=V5), connect(server)
    subscriber.subscribe('mixed', qos=2)
    tokens = [publisher.post('mixed', b'%d' % i, qos=i % 3) for i in range(600)]
    for token in tokens:
        token.wait_for_publish(30)
    messages = subscriber.take(600)
    for qos in range(3):  # each quality in its order
        assert [m.payload for m in messages if m.qos == qos] == [b'%d' % i for i in range(qos, 600, 3)]
    assert subscriber.take_rest(qos=2) == []


@VERSIONS
def test_a_will_of_qos_2(server, connect, version):
    subscriber = connect(server)
    subscriber.subscribe('last/words', qos=2)
    with Peer(server, b'mortal', version, will=(b'last/words', b'gone')):
        pass
    [message] = subscriber.take()
    assert (message.payload, message.qos) == (b'gone', 2)
    wait_until(lambda: payloads(server, 'last/words') == [b'gone'], 'the will is kept')


def test_no_quality_is_said_to_be_missing(server):
    with Peer(server, b'reader', 5) as peer:
        assert not re.search(rb'\x24[\x00\x01]', peer.connack[3:])  # the absence of Maximum QoS says 2


def test_a_hole_sent_with_qos_2(spindle, connect):
    """Repeats within an exchange are not even duplicates: the pipeline never sees them."""
    server = spindle(settings={'drilling.estimator': 'gradient', 'mqtt.listener.time_window': 120}).start()
    (topic, payload), *others = Hole().messages()
    with Peer(server, b'tool', 4) as peer:
        for dup in (False, True, True):
            peer.publish(topic.encode(), payload, 7, dup)
            peer.expect(PUBREC, 7)
        peer.answer(PUBREL, 7)
        peer.expect(PUBCOMP, 7)
    tool = connect(server)
    for topic, payload in others:
        tool.publish(topic, payload, qos=2)
    terms = server.wait_settled(3).streams()['ingest']
    assert (terms['accepted'], terms['completed'], terms['duplicates']) == (3, 3, 0)


# ---- who publishes ----

@VERSIONS
def test_repeats_are_answered_and_not_delivered(server, connect, version):
    subscriber = connect(server)
    subscriber.subscribe('again', qos=2)
    with Peer(server, b'repeater', version) as peer:
        peer.publish(b'again', b'one', 5)
        peer.expect(PUBREC, 5)
        for dup in (True, False, True):
            peer.publish(b'again', b'one', 5, dup)
            peer.expect(PUBREC, 5)
        peer.answer(PUBREL, 5)
        peer.expect(PUBCOMP, 5)
        peer.answer(PUBREL, 5)  # its answer could have been lost
        peer.expect(PUBCOMP, 5, NOT_FOUND)
        peer.publish(b'again', b'two', 5, dup=True)  # the identifier was free: a new message, whatever the flag says
        peer.expect(PUBREC, 5)
        peer.publish(b'again', b'three', 65535)  # while the other exchange goes on
        peer.expect(PUBREC, 65535)
        peer.publish(b'again', b'two', 5, dup=True)
        peer.expect(PUBREC, 5)
        peer.answer(PUBREL, 65535)
        peer.expect(PUBCOMP, 65535)
        peer.answer(PUBREL, 5)
        peer.expect(PUBCOMP, 5)
        peer.ping()
    assert server.metrics().get_sum('spindle_bus_messages_received_total', qos='2') == 7  # packets
    sent = [b'one', b'two', b'three']
    assert [m.payload for m in subscriber.take(3) + subscriber.take_rest(qos=2)] == sent
    assert payloads(server, 'again') == sent


@VERSIONS
def test_repeats_in_one_breath_are_one_message(server, connect, version):
    """They are read before the disk has answered, or behind that."""
    subscriber = connect(server)
    subscriber.subscribe('breath', qos=2)
    with Peer(server, b'hasty', version) as peer:
        for identifier in (1, 2):
            for dup in (False, True, True, True):
                peer.publish(b'breath', b'%d' % identifier, identifier, dup)
        peer.publish(b'breath', b'end', 3, qos=1)
        answers = []
        while not answers or answers[-1][0] != PUBACK << 4:
            answers.append(peer.next())
        kinds = [(PUBREC << 4, b'\x00\x01'), (PUBREC << 4, b'\x00\x02')]
        assert answers.index(kinds[0]) < answers.index(kinds[1])
        assert set(answers[:-1]) == set(kinds)
    assert sorted(m.payload for m in subscriber.take(3) + subscriber.take_rest(qos=2)) == [b'1', b'2', b'end']
    assert payloads(server, 'breath') == [b'1', b'2', b'end']


def test_the_exchange_where_acknowledgements_wait_for_nothing(spindle):
    server = spindle(settings={'data.durability': 'memory'}).start()
    with Peer(server, b'quick', 4) as peer:
        for identifier in (1, 2, 1):
            peer.publish(b'm', b'x', identifier)
            peer.expect(PUBREC, identifier)
            peer.publish(b'm', b'x', identifier)
            peer.expect(PUBREC, identifier)
            peer.answer(PUBREL, identifier)
            peer.expect(PUBCOMP, identifier)
    server.stop()
    assert len(payloads(server, 'm')) == 3


def test_the_receive_maximum_counts_until_pubcomp(spindle):
    server = spindle(settings={'bus.receive_maximum': 2}).start()
    with Peer(server, b'eager', 5) as peer:
        for identifier in range(1, 10):  # one after the other
            peer.publish(b't', b'x', identifier)
            peer.expect(PUBREC, identifier)
            peer.answer(PUBREL, identifier)
            peer.expect(PUBCOMP, identifier)
        for identifier in (10, 11):
            peer.publish(b't', b'x', identifier)
            peer.expect(PUBREC, identifier)
        peer.publish(b't', b'x', 10, dup=True)
        peer.expect(PUBREC, 10)
        peer.publish(b't', b'x', 12)
        peer.expect_closed(b'\x93')
    with Peer(server, b'old', 4) as peer:
        for identifier in range(1, 10):
            peer.publish(b't', b'x', identifier)
            peer.expect(PUBREC, identifier)
        peer.ping()


# ---- who subscribes ----

@VERSIONS
def test_a_subscriber_is_led_through_the_exchange(server, connect, version):
    publisher = connect(server)
    with Peer(server, b'reader', version) as peer:
        peer.subscribe(b'news')
        publisher.publish('news', b'1', qos=2)
        peer.expect_publish(b'1', 1)
        peer.answer(PUBREC, 1)
        peer.expect(PUBREL, 1)
        peer.answer(PUBREC, 1)  # PUBREL could have been lost
        peer.expect(PUBREL, 1)
        publisher.publish('news', b'2', qos=1)
        peer.expect_publish(b'2', 2, qos=1)
        peer.answer(PUBACK, 2)
        peer.answer(PUBCOMP, 1)
        peer.answer(PUBCOMP, 1)
        peer.answer(PUBREC, 1)  # unknown by now
        peer.expect(PUBREL, 1, NOT_FOUND)
        peer.answer(PUBCOMP, 1)
        if version == 5:
            publisher.publish('news', b'3', qos=2)
            peer.expect_publish(b'3', 3)
            peer.answer(PUBREC, 3, REFUSED)  # the end of it
            peer.answer(PUBREC, 3)
            peer.expect(PUBREL, 3, NOT_FOUND)
        peer.ping()


@VERSIONS
@pytest.mark.parametrize('kind, identifier', [(PUBACK, 1), (PUBCOMP, 1), (PUBREC, 2), (PUBCOMP, 2)],
                         ids=['PUBACK for QoS 2', 'PUBCOMP before PUBREC', 'PUBREC for QoS 1', 'PUBCOMP for QoS 1'])
def test_an_answer_that_does_not_belong_to_the_message_ends_the_connection(server, connect, version, kind, identifier):
    publisher = connect(server)
    with Peer(server, b'reader', version) as peer:
        peer.subscribe(b'news')
        for qos in (2, 1):
            publisher.publish('news', b'', qos=qos)
            peer.expect_publish(b'', 3 - qos, qos)
        peer.answer(kind, identifier)
        peer.expect_closed(b'\x82')


def test_a_subscriber_is_sent_no_more_than_it_takes(server, connect):
    """Receive maximum 2, of both qualities together; the rest waits in its order."""
    publisher = connect(server)
    with Peer(server, b'reader', 5, receive_maximum=2) as peer:
        peer.subscribe(b'news')
        publisher.publish_all([('news', b'%d' % i) for i in range(2)])
        for i in range(2, 6):
            publisher.publish('news', b'%d' % i, qos=2)
        for i in range(2):
            peer.expect_publish(b'%d' % i, i + 1, qos=1)
        peer.ping()
        peer.answer(PUBACK, 2)
        peer.expect_publish(b'2', 3)
        peer.answer(PUBREC, 3)
        peer.expect(PUBREL, 3)
        peer.ping()  # PUBREC makes no room
        peer.answer(PUBACK, 1)
        peer.expect_publish(b'3', 4)
        peer.answer(PUBREC, 4, REFUSED)
        peer.expect_publish(b'4', 5)
        peer.answer(PUBCOMP, 3)
        peer.expect_publish(b'5', 6)
        peer.ping()


# ---- the end ----

@VERSIONS
def test_killed_between_pubrec_and_pubrel(server, version):
    """PUBREC says that the message is kept; it is, once."""
    with Peer(server, b'victim', version) as peer:
        for identifier in range(1, 101):
            peer.publish(b'kill', b'%d' % identifier, identifier)
        for identifier in range(1, 101):
            peer.expect(PUBREC, identifier)
        server.kill()
    server.start()
    assert payloads(server, 'kill') == [b'%d' % identifier for identifier in range(1, 101)]
    with Peer(server, b'victim', version) as peer:  # the session is new, and says so; a PUBREL for the old one is answered all the same
        assert peer.connack[0] == 0
        peer.answer(PUBREL, 1)
        peer.expect(PUBCOMP, 1, NOT_FOUND)
    assert len(payloads(server, 'kill')) == 100


@VERSIONS
def test_a_pubrel_before_the_stop_gets_its_pubcomp(server, version):
    with Peer(server, b'last', version) as peer:
        for identifier in range(1, 201):
            peer.publish(b'stop', b'%d' % identifier, identifier)
        for identifier in range(1, 201):
            peer.expect(PUBREC, identifier)
        # At once, so that it has arrived: of many small parts the system keeps some back while others are on their way.
        peer.send(b''.join(b'\x62\x02' + struct.pack('>H', identifier) for identifier in range(1, 201)))
        server.stop()
        for identifier in range(1, 201):
            peer.expect(PUBCOMP, identifier)
        peer.expect_closed(b'\x8b')
