"""The bus with a third-party client: connecting, subscribing, delivering, and refusing what breaks the protocol."""
import struct
import time

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from client import V5, V311, RawClient, Refused, without_reason
from spindle import DEADLINE_S, SANITIZED, wait_until

VERSIONS = pytest.mark.parametrize('version', [V311, V5], ids=['3.1.1', '5.0'])


@pytest.fixture
def server(spindle):
    return spindle().start()


def texts(messages):
    return [(m.topic, m.payload.decode()) for m in messages]


# ---- what works ----

@VERSIONS
@pytest.mark.parametrize('qos', [0, 1, 2])
def test_a_message_reaches_its_subscriber(server, connect, version, qos):
    subscriber, publisher = connect(server, version=version), connect(server, version=version)
    assert subscriber.subscribe('plant/1/state', qos=qos) == [qos]
    publisher.publish('plant/1/state', b'up', qos=qos)
    [message] = subscriber.take()
    assert (message.topic, message.payload, message.qos, message.retain) == ('plant/1/state', b'up', qos, False)


@VERSIONS
def test_qos_is_the_lower_of_both(server, connect, version):
    subscribers = [connect(server, version=version) for _ in range(3)]
    for granted, subscriber in enumerate(subscribers):
        assert subscriber.subscribe('a', qos=granted) == [granted]
    publisher = connect(server, version=version)
    for qos in (2, 1, 0):
        publisher.publish('a', b'%d' % qos, qos=qos)
        assert [subscriber.take()[0].qos for subscriber in subscribers] == [min(qos, granted) for granted in range(3)]


def test_versions_understand_each_other(server, connect):
    old, new = connect(server, version=V311), connect(server, version=V5)
    old.subscribe('x')
    new.subscribe('x')
    old.publish('x', b'from 3.1.1')
    new.publish('x', b'from 5')
    assert texts(old.take(2)) == texts(new.take(2)) == [('x', 'from 3.1.1'), ('x', 'from 5')]


@pytest.mark.parametrize('topic_filter, matching, other', [
    ('sport/+/score', ['sport/tennis/score', 'sport//score'], ['sport/score', 'sport/tennis/1/score']),
    ('sport/#', ['sport', 'sport/tennis', 'sport/tennis/1'], ['sports', 'spor']),
    ('+', ['a'], ['a/b', '/a']),
    ('/+', ['/a'], ['a', '/a/b']),
    ('#', ['a', 'a/b/c', '/'], ['$hidden/a']),
    ('+/+/+/ResultManagement', ['OPC/box/tool/ResultManagement'], ['OPC/box/tool/ResultManagement/Trace', 'OPC/box/ResultManagement']),
])
def test_wildcards(server, connect, topic_filter, matching, other):
    subscriber, publisher = connect(server), connect(server)
    subscriber.subscribe(topic_filter)
    for topic in other + matching:
        publisher.publish(topic, topic)
    assert [m.topic for m in subscriber.take(len(matching))] == matching
    assert subscriber.take_rest() == []


def test_overlapping_filters_deliver_at_the_highest_qos(server, connect):
    """One copy for all, or one for each filter: the standard leaves the choice; each message comes with QoS 1 at least once."""
    subscriber, publisher = connect(server), connect(server)
    subscriber.subscribe('a/#', qos=0)
    subscriber.subscribe('a/b', qos=1)
    subscriber.subscribe('+/b', qos=0)
    publisher.publish('a/b', b'one')
    messages = [subscriber.take()[0]] + subscriber.take_rest()
    assert 1 <= len(messages) <= 3 and {m.payload for m in messages} == {b'one'}
    assert max(m.qos for m in messages) == 1


def test_unsubscribing_ends_the_delivery(server, connect):
    subscriber, publisher = connect(server), connect(server)
    subscriber.subscribe('a', 'b')
    publisher.publish('a', b'1')
    subscriber.take()
    subscriber.unsubscribe('a')
    publisher.publish('a', b'2')
    publisher.publish('b', b'3')
    assert texts(subscriber.take()) == [('b', '3')]


def test_order_and_content_of_many_messages(server, connect):
    subscriber, publisher = connect(server), connect(server)
    subscriber.subscribe('count/#')
    payloads = [b'%d ' % i + bytes([i % 256]) * (i % 300) for i in range(3000)]
    publisher.publish_all([('count/%d' % (i % 7), payload) for i, payload in enumerate(payloads)])
    assert [m.payload for m in subscriber.take(len(payloads))] == payloads


@VERSIONS
def test_large_and_empty_payloads(server, connect, version):
    subscriber, publisher = connect(server, version=version), connect(server, version=version)
    subscriber.subscribe('big')
    for payload in (b'', b'\x00', bytes(range(256)) * 4096 * 3):
        publisher.publish('big', payload)
        assert subscriber.take()[0].payload == payload


def test_mqtt5_properties_travel_with_the_message(server, connect):
    subscriber, publisher = connect(server, version=V5), connect(server, version=V5)
    subscriber.subscribe('request')
    sent = Properties(PacketTypes.PUBLISH)
    sent.ContentType = 'application/json'
    sent.ResponseTopic = 'answer/7'
    sent.CorrelationData = b'\x00\x01\xff'
    sent.UserProperty = [('priority', 'high'), ('priority', 'really')]
    sent.PayloadFormatIndicator = 1
    publisher.publish('request', b'{}', properties=sent)
    got = subscriber.take()[0].properties
    assert (got.ContentType, got.ResponseTopic, got.CorrelationData) == ('application/json', 'answer/7', b'\x00\x01\xff')
    assert got.UserProperty == [('priority', 'high'), ('priority', 'really')]


def test_many_connections(server, connect):
    clients = [connect(server, version=V5 if i % 2 else V311) for i in range(60)]
    for i, client in enumerate(clients):
        client.subscribe('group/%d' % (i % 6), 'all')
    clients[0].publish('all', b'everyone')
    assert all(client.take()[0].payload == b'everyone' for client in clients)
    for i in range(6):
        clients[-1].publish('group/%d' % i, b'%d' % i)
    assert all(client.take()[0].payload == b'%d' % (i % 6) for i, client in enumerate(clients))
    assert server.metrics().get_sum('spindle_bus_connections') == 60
    for client in clients:
        client.close()
    wait_until(lambda: server.metrics().get_sum('spindle_bus_connections') == 0, 'all connections gone')


@VERSIONS
def test_a_second_client_takes_the_identifier_over(server, connect, version):
    with RawClient(server.port) as first:
        first.connect(b'drill-7', version=5 if version == V5 else 4)
        second = connect(server, client_id='drill-7', version=version)
        goodbye = first.read_until_closed()
        if version == V5:
            assert goodbye[:3:2] == b'\xe0\x8e', goodbye  # DISCONNECT, session taken over
        else:
            assert goodbye == b''
    second.subscribe('a')
    second.publish('a', b'alive')
    assert second.take()[0].payload == b'alive'


def test_an_empty_identifier_is_given_one(server, connect):
    one, other = connect(server, client_id=''), connect(server, client_id='', version=V5)
    one.subscribe('a')
    other.publish('a', b'1')
    assert one.take()[0].payload == b'1'


def test_a_slow_subscriber_does_not_hold_the_others(server, connect):
    """It reads nothing; QoS 0 to it is dropped and counted once its limit is reached, the others get everything."""
    server.stop()
    server.settings['bus.outgoing_size_max'] = '1MiB'
    server.start()
    with RawClient(server.port) as slow:
        slow.connect(b'slow')
        slow.send(b'\x82\x08\x00\x01\x00\x03a/#\x00')
        quick, publisher = connect(server), connect(server)
        quick.subscribe('a/#', qos=0)
        sent = 0
        while server.metrics().get_sum('spindle_bus_messages_dropped_total') == 0:  # what the kernel holds comes on top of the limit
            for _ in range(20):
                publisher.publish('a/b', bytes(65536))  # the acknowledgement keeps the pace that the quick one can follow
            sent += 20
            assert sent < 2000, 'nothing is dropped'
        assert len(quick.take(sent)) == sent


# ---- what is refused ----

CONNECT = b'\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05drill'
CONNECT5 = b'\x10\x12\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x05drill'

GARBAGE = {
    'random bytes': b'\xde\xad\xbe\xef' * 64,
    'an HTTP request': b'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    'a TLS hello': b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + bytes(32),
    'a remaining length without end': b'\x10\xff\xff\xff\xff\xff\xff',
    'a connect of protocol level 3': b'\x10\x10\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x02id',
    'a publish before connect': b'\x30\x03\x00\x01a',
    'connect twice': CONNECT + CONNECT,
    'a publish with QoS 3': CONNECT + b'\x36\x05\x00\x01a\x00\x01',
    'a publish to a wildcard': CONNECT + b'\x30\x03\x00\x01#',
    'a publish to an empty topic': CONNECT + b'\x30\x02\x00\x00',
    'a topic that is not UTF-8': CONNECT + b'\x30\x04\x00\x02\xff\xfe',
    'a topic with a zero': CONNECT + b'\x30\x04\x00\x02a\x00',
    'a QoS 1 publish with identifier 0': CONNECT + b'\x32\x05\x00\x01a\x00\x00',
    'a subscribe with flags 0': CONNECT + b'\x80\x06\x00\x01\x00\x01a\x00',
    'a subscribe without filter': CONNECT + b'\x82\x02\x00\x01',
    'a topic longer than its packet': CONNECT + b'\x30\x04\x00\x09ab',
    'a server packet from a client': CONNECT + b'\x20\x02\x00\x00',
    'reserved packet type 0': CONNECT + b'\x00\x00',
    'a property that is unknown': CONNECT5 + b'\x30\x06\x00\x01a\x02\x7f\x00',
    'a property twice': CONNECT5 + b'\x30\x08\x00\x01a\x04\x01\x01\x01\x01',
}


@pytest.mark.parametrize('data', GARBAGE.values(), ids=list(GARBAGE))
def test_garbage_is_cut_off_and_others_do_not_notice(server, connect, data):
    witness = connect(server)
    witness.subscribe('w')
    with RawClient(server.port) as raw:
        raw.send(data)
        raw.read_until_closed()
    witness.publish('w', b'fine')
    assert witness.take()[0].payload == b'fine'


def frame(body):
    return bytes([0x10, len(body)]) + body


# What a CONNECT that cannot be taken is answered; 3.1.1 wants silence ([MQTT-3.1.4-1]) but for two cases.
REFUSED = {
    '3.1.1, empty identifier without clean session': (frame(b'\0\4MQTT\4\0\0\x3c\0\0'), b'\x20\2\0\2'),
    '3.1.1, reserved flag': (frame(b'\0\4MQTT\4\3\0\x3c\0\1a'), b''),
    '3.1.1, will topic with a wildcard': (frame(b'\0\4MQTT\4\6\0\x3c\0\1a\0\1#\0\0'), b''),
    'level 6': (frame(b'\0\4MQTT\6\2\0\x3c\0\0\1a'), b'\x20\2\0\1'),
    'level 3': (frame(b'\0\6MQIsdp\3\2\0\x3c\0\1a'), b'\x20\2\0\1'),
    'protocol name cut': (frame(b'\0\4MQ'), b''),
    '5.0, reserved flag': (frame(b'\0\4MQTT\5\3\0\x3c\0\0\1a'), b'\x20\3\0\x81\0'),
    '5.0, receive maximum 0': (frame(b'\0\4MQTT\5\2\0\x3c\3\x21\0\0\0\1a'), b'\x20\3\0\x82\0'),
    '5.0, authentication method': (frame(b'\0\4MQTT\5\2\0\x3c\4\x15\0\1m\0\1a'), b'\x20\3\0\x8c\0'),
    '5.0, will topic with a wildcard': (frame(b'\0\4MQTT\5\6\0\x3c\0\0\1a\0\0\1#\0\0'), b'\x20\3\0\x90\0'),
    '5.0, AUTH afterwards': (CONNECT5 + b'\xf0\0', b'\xe0\1\x82'),
}


@pytest.mark.parametrize('data, told', REFUSED.values(), ids=list(REFUSED))
def test_a_refused_client_is_told_why(server, data, told):
    with RawClient(server.port) as raw:
        raw.send(data)
        answer = raw.read_until_closed()
        if data.startswith(CONNECT5):
            answer = answer[2 + answer[1]:]  # the CONNACK of success
        assert (without_reason(answer) if answer[:1] == b'\xe0' or answer[1:2] > b'\x02' else answer) == told


def test_a_silent_connection_is_closed(server):
    """Keep alive 1 s: after one and a half of it without a packet the server hangs up; it looks once a second."""
    with RawClient(server.port) as raw:
        raw.connect(b'sleeper', keepalive=1)
        began = time.monotonic()
        raw.read_until_closed()
        assert 1.4 <= time.monotonic() - began <= (DEADLINE_S if SANITIZED else 2.9)


@pytest.mark.parametrize('topic_filter', [b'a/#/b', b'a#', b'+a', b'a/b+', b'', b'\xff', b'#/'])
def test_bad_filters_are_refused(server, connect, topic_filter):
    """A filter that breaks the rules ends the connection (or gets a failure code); it never subscribes."""
    with RawClient(server.port) as raw:
        raw.connect(b'filter')
        body = b'\x00\x01' + struct.pack('>H', len(topic_filter)) + topic_filter + b'\x00'
        raw.send(bytes([0x82, len(body)]) + body + b'\xe0\x00')
        answer = raw.read_until_closed()
        assert answer == b'' or (answer[0] == 0x90 and answer[-1] >= 0x80), answer
    publisher = connect(server)
    publisher.publish('a/b', b'')
    assert server.metrics().get_sum('spindle_bus_subscriptions') == 0


def test_packets_above_the_limit_are_refused(server, connect):
    server.stop()
    server.settings['bus.packet_size_max'] = '64KiB'
    server.start()
    witness = connect(server, version=V5)
    witness.subscribe('big')
    with RawClient(server.port) as raw:
        raw.connect(b'large', version=5)
        raw.send(b'\x30\x80\x80\x80\x01')  # announces 2 MiB: refused before they come
        assert raw.read_until_closed()[:3:2] == b'\xe0\x95'  # DISCONNECT, packet too large
    witness.publish('big', bytes(65000))
    assert len(witness.take()[0].payload) == 65000


def test_connections_above_the_limit_are_refused(server, connect):
    server.stop()
    server.settings['bus.max_connections'] = 3
    server.start()
    clients = [connect(server) for _ in range(3)]
    with pytest.raises(Refused):
        connect(server, version=V5)
    clients.pop().close()
    wait_until(lambda: server.metrics().get_sum('spindle_bus_connections') == 2, 'one connection gone')
    connect(server).publish('a', b'')


def test_an_unfinished_packet_holds_nobody(server, connect):
    with RawClient(server.port) as raw:
        raw.connect(b'half')
        raw.send(b'\x30\x80\x80\x40\x00\x01a' + bytes(100000))  # one megabyte is announced
        witness = connect(server)
        witness.subscribe('w')
        witness.publish('w', b'fine')
        assert witness.take()[0].payload == b'fine'


def test_puback_comes_after_the_message_is_in_the_journal(server, connect):
    client = connect(server)
    payloads = [b'%d' % i for i in range(200)]
    for payload in payloads:
        client.publish('any/topic', payload)
    server.kill()
    records = [r for r in server.journal('bus') if r['topic'] == 'any/topic']
    assert [r['payload'] for r in records] == payloads
    assert [r['offset'] for r in records] == sorted({r['offset'] for r in records})
