"""The client's side, packet by packet: what Spindle says to a broker, which is played here."""
import socket

import pytest

from holes import Hole
from packets import ALIAS_MAXIMUM, PACKET_SIZE, RECEIVE_MAXIMUM, SESSION_EXPIRY, Cursor, Message, text
from spindle import DEADLINE_S, wait_until
from wire import GOODBYE, PING, PONG, Wire, answer, packet, publish, set_of, u16

VERSIONS = pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])
SERVER_KEEP_ALIVE = 0x13


class Broker(Wire):
    """The broker's end of one connection."""

    def __init__(self, accepted, version):  # no connection is made, one is taken
        self.socket, self.version = accepted, version
        self.socket.settimeout(DEADLINE_S)
        self.connect = self.packet()
        assert self.connect[0] == 0x10 and self.connect[2:9] == text(b'MQTT') + bytes([version])

    def accept(self, present=0, *props):
        self.send(packet(0x20, bytes([present, 0]), set_of(self.version, *props)))

    def serve(self, topic_filter):
        """Answers what it asks for until it has subscribed to the filter. Returns the identifiers of its requests."""
        identifiers = []
        while True:
            data = self.packet()
            if data == PING:
                self.send(PONG)
                continue
            assert data[0] in (0x82, 0xa2), data
            body = Cursor(data[2:])
            identifiers.append(body.number(2))
            assert self.version == 4 or body.properties() == []
            codes, found = b'', False
            while body.at < len(body.data):
                name = body.text()
                codes += bytes([body.number(1) & 3]) if data[0] == 0x82 else b'\x11'
                found |= name == topic_filter and data[0] == 0x82
            self.send(packet(data[0] + 0x0e, u16(identifiers[-1]), set_of(self.version), codes if data[0] == 0x82 or self.version == 5 else b''))
            if found:
                return identifiers

    def next(self):
        """The next packet that is no ping, nor one of the requests that are still to come."""
        while True:
            data = self.packet()
            if data != PING:
                return data
            self.send(PONG)


@pytest.fixture
def listener():
    with socket.create_server(('127.0.0.1', 0)) as waiting:
        waiting.settimeout(DEADLINE_S)
        yield waiting


@pytest.fixture
def join(spindle, listener):
    """join(version) starts a Spindle that has one connection to the broker that is played here; the server and that connection."""
    def make(version, **more):
        options = {'brokers': 'mqtt://127.0.0.1:%d' % listener.getsockname()[1], 'connections': 1, 'filters': 'site/#', 'qos': 2, 'results': 'false',
                   'shared': 'never', 'version': {4: '3.1.1', 5: '5.0'}[version], 'backoff_first_s': 0.05, 'backoff_last_s': 0.1, **more}
        server = spindle(settings={'ingest.' + key: str(value) for key, value in options.items()}).start()
        return server, Broker(listener.accept()[0], version)
    return make


@VERSIONS
def test_how_the_client_begins_and_ends(join, version):
    """CONNECT first, with an identifier of its own; requests with identifiers; DISCONNECT, and nothing behind it."""
    server, broker = join(version)
    flags = broker.connect[9]
    body = Cursor(broker.connect[12:])
    if version == 5:
        told = dict(body.properties())
        assert ALIAS_MAXIMUM not in told and told[RECEIVE_MAXIMUM] == 1000 and told[PACKET_SIZE] == 64 << 20 and told[SESSION_EXPIRY]
    assert flags == 0 and body.text() and body.at == len(body.data)
    broker.accept()
    identifiers = broker.serve(b'site/#')
    assert 0 not in identifiers
    server.stop()
    rest = broker.read_until_closed()
    assert rest.replace(PING, b'').endswith(GOODBYE)


@VERSIONS
def test_the_client_answers_in_the_order_of_arrival(join, version):
    """PUBACK and PUBREC; a message that nobody wanted is acknowledged too."""
    server, broker = join(version)
    broker.accept()
    broker.serve(b'site/#')
    broker.send(b''.join(publish(version, b'site/a' if i % 3 else b'other', b'%d' % i, 1 + i % 2, 100 - i) for i in range(50)))
    assert [broker.next() for _ in range(50)] == [answer((0x40, 0x50)[i % 2], 100 - i) for i in range(50)]
    for i in (3, 1, 5):
        broker.send(answer(0x62, 100 - i))
        assert broker.next() == answer(0x70, 100 - i)
    broker.close()
    server.stop()


@VERSIONS
def test_a_session_that_the_client_does_not_know_is_gone_on_with(join, version):
    server, broker = join(version)
    broker.accept(1)
    broker.send(publish(version, b'site/a', b'x', 2, 7))
    while True:
        data = broker.next()
        if data[0] == 0x50:
            break
        assert data[0] in (0x82, 0xa2)
    assert data == answer(0x50, 7)
    broker.close()
    server.stop()


@VERSIONS
def test_a_client_that_has_nothing_to_say_pings(join, version):
    """Within its keep alive, or that of the server in its place."""
    server, broker = join(version, keep_alive_s=2 if version == 4 else 600)
    broker.accept(0, *([(SERVER_KEEP_ALIVE, 2)] if version == 5 else []))
    broker.serve(b'site/#')
    broker.socket.settimeout(2)
    broker.expect(PING)
    broker.send(PONG)
    broker.expect(PING)
    broker.close()
    server.stop()


# ---- results, which are sent again ----

def outgoing(listener, version):
    """The connection for results, accepted; the one for messages is served beside it. In 3.1.1 the first is only there to begin clean."""
    others = []
    while True:
        broker = Broker(listener.accept()[0], version)
        body = Cursor(broker.connect[12:])
        session_expiry = version == 5 and body.properties()
        if body.text().endswith(b'-results'):
            if version == 5 or not broker.connect[9] & 2:
                return broker, others
            broker.accept()
            assert broker.read_until_closed() == GOODBYE
        else:
            assert version == 4 or session_expiry
            broker.accept()
            broker.serve(b'site/#')
            others.append(broker)


def publishes(broker, count):
    """The next PUBLISH packets."""
    found = []
    while len(found) < count:
        data = broker.next()
        assert data[0] >> 4 == 3, data
        at = 2 + (data[1] > 127)
        found.append(Message(data[0], data[at:], broker.version))
    return found


@VERSIONS
@pytest.mark.parametrize('qos', [1, 2])
def test_what_has_no_answer_is_sent_again_in_its_order(spindle, connect, listener, version, qos):
    """With its identifier and DUP, where the broker has the session still; PUBREL for what it has received already."""
    server = spindle(settings={
        'drilling.estimator': 'gradient', 'mqtt.listener.time_window': 120, 'ingest.brokers': 'mqtt://127.0.0.1:%d' % listener.getsockname()[1],
        'ingest.connections': 1, 'ingest.filters': 'site/#', 'ingest.shared': 'never', 'ingest.version': {4: '3.1.1', 5: '5.0'}[version],
        'ingest.results_qos': qos, 'ingest.backoff_first_s': '0.05', 'ingest.backoff_last_s': '0.1'}).start()
    broker, others = outgoing(listener, version)
    broker.accept()
    tool = connect(server)
    for _ in range(2):
        for topic, payload in Hole().messages():
            tool.publish(topic, payload)
    first = publishes(broker, 4)
    assert {(m.dup, m.qos) for m in first} == {(False, qos)} and len({m.identifier for m in first}) == 4
    broker.send(answer(0x40 if qos == 1 else 0x50, first[0].identifier))
    if qos == 2:
        assert broker.next() == answer(0x62, first[0].identifier)
    else:
        wait_until(lambda: server.metrics().get_sum('spindle_ingest_results_lag') == 3, 'the first is acknowledged')
    broker.close()
    broker, more = outgoing(listener, version)
    assert not broker.connect[9] & 2
    broker.accept(1)
    if qos == 2:
        assert broker.next() == answer(0x62, first[0].identifier)
    again = publishes(broker, 3)
    assert [(m.identifier, m.topic, m.payload) for m in again] == [(m.identifier, m.topic, m.payload) for m in first[1:]]
    assert {(m.dup, m.qos) for m in again} == {(True, qos)}
    if qos == 2:
        broker.send(b''.join(answer(0x50, m.identifier) for m in again))
        assert [broker.next() for _ in again] == [answer(0x62, m.identifier) for m in again]
    for other in [broker] + others + more:
        other.close()
    server.stop()
