"""Wills: when they are published, with what, and when not."""
import time

import pytest

from packets import CONTENT_TYPE, CORRELATION, EXPIRY, REASON, RESPONSE_TOPIC, SESSION_EXPIRY, USER, WILL_DELAY, Packets
from spindle import wait_until

VERSIONS = pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])


@pytest.fixture
def server(spindle):
    """Two network threads, to which connections are dealt in turn."""
    return spindle(settings={'bus.threads': 2}).start()


@pytest.fixture
def witness(server):
    with Packets(server, b'witness') as peer:
        peer.subscribe(b'#', qos=2)
        yield peer


@VERSIONS
def test_a_will_may_be_retained(server, version):
    Packets(server, b'a', version, will=(b'state/a', b'lost', 1, True, [])).socket.close()
    with Packets(server, b'witness', version) as peer:
        while True:
            peer.subscribe(b'state/a')
            peer.packet(0xc0, b'')
            first, _ = peer.next()
            if first == 0x31:
                break
        assert peer.next()[0] == 0xd0


def test_its_properties_are_those_of_the_message(server, witness):
    told = [(0x01, 1), (EXPIRY, 100), (CONTENT_TYPE, b'text/plain'), (RESPONSE_TOPIC, b'r'), (CORRELATION, b'\0\1'), (USER, (b'b', b'1')),
            (USER, (b'a', b'2'))]
    Packets(server, b'a', will=(b't', b'x', 0, False, told[:3] + [(WILL_DELAY, 0)] + told[3:])).socket.close()
    message = witness.message()
    assert (message.topic, message.payload, message.qos, message.retain) == (b't', b'x', 0, False)
    assert message.properties == told


@pytest.mark.parametrize('reason, told', [(b'\x00', False), (b'\x04', True), (b'\x80', True)])
def test_what_a_disconnect_says_of_it(server, witness, reason, told):
    peer = Packets(server, b'a', will=(b't', b'will', 0, False, []))
    peer.packet(0xe0, reason)
    assert peer.read_until_closed() == b''
    if not told:
        with Packets(server, b'b') as other:
            other.publish(b't', b'other')
            assert witness.message().payload == b'other'
    else:
        assert witness.message().payload == b'will'
    witness.quiet()


@pytest.mark.parametrize('delay, expiry, expected', [(1, 100, 1), (100, 1, 1), (100, 0, 0), (0, 100, 0)])
def test_the_delay_lasts_no_longer_than_the_session(server, witness, delay, expiry, expected):
    peer = Packets(server, b'a', props=[(SESSION_EXPIRY, expiry)], will=(b't', b'x', 0, False, [(WILL_DELAY, delay)]))
    began = time.monotonic()
    peer.socket.close()
    assert witness.message().topic == b't'
    assert expected - 0.1 <= time.monotonic() - began < expected + 10


def test_a_disconnect_may_shorten_the_session(server, witness):
    peer = Packets(server, b'a', props=[(SESSION_EXPIRY, 1000)], will=(b't', b'x', 0, False, [(WILL_DELAY, 1000)]))
    peer.packet(0xe0, b'\x04\x05\x11\x00\x00\x00\x01')
    assert witness.message().topic == b't'
    peer.socket.close()


@pytest.mark.parametrize('taken_over', [False, True])
@pytest.mark.parametrize('clean', [False, True])
def test_who_comes_back_in_time_has_not_left(server, witness, clean, taken_over):
    """With a new session the old one has ended, and its will is published at once."""
    will = (b't', b'will', 0, False, [(WILL_DELAY, 2)])
    first = Packets(server, b'a', props=[(SESSION_EXPIRY, 100)], will=will)
    last = Packets(server, b'z', props=[(SESSION_EXPIRY, 100)], will=(b't', b'fence', 0, False, [(WILL_DELAY, 2)]))
    if not taken_over:
        first.socket.close()
    with Packets(server, b'a', clean=clean):
        last.socket.close()
        messages = [witness.message().payload]
        if clean:
            messages.append(witness.message().payload)
        assert messages == ([b'will', b'fence'] if clean else [b'fence'])
        witness.quiet()
    first.socket.close()


def test_a_will_for_the_servers_topics_is_refused(server):
    with Packets(server, b'a', will=(b'$SYS/x', b'', 0, False, [])) as peer:
        assert peer.reason == 0x87 and dict(peer.connack)[REASON]
    with Packets(server, b'a', 4, will=(b'$SYS/x', b'', 0, False, [])) as peer:
        assert peer.reason == 5


def test_properties_of_a_will_have_a_limit(server):
    big = [(USER, (b'k', bytes(b'v' * 32000)))] * 3
    with Packets(server, b'a', will=(b't', b'', 0, False, big)) as peer:
        assert peer.reason == 0x97
    with Packets(server, b'a', will=(b't', b'', 0, False, big[:2])) as peer:
        assert peer.reason == 0


def test_those_that_wait_have_a_limit(server):
    """64 MiB: beyond, a will is published without delay."""
    with Packets(server, b'witness') as witness:
        witness.subscribe(b'last')
        big = [(WILL_DELAY, 1000), (USER, (b'k', b'v' * 60000))]
        for i in range(560):
            Packets(server, b'c%d' % i, props=[(SESSION_EXPIRY, 1000)], will=(b't/' * 100 + b't', bytes(65000), 0, False, big)).socket.close()
            if i == 559:
                wait_until(lambda: server.metrics().get_sum('spindle_bus_connections') == 1, 'all have gone')
        before = server.metrics().get_sum('spindle_bus_messages_received_total')
        assert 0 < before < 50  # of 125 kB each
        Packets(server, b'z', props=[(SESSION_EXPIRY, 1000)], will=(b'last', bytes(65000), 0, False, big)).socket.close()
        Packets(server, b'y', props=[(SESSION_EXPIRY, 1000)], will=(b'last', bytes(65000), 0, False, big)).socket.close()
        assert witness.message().topic == b'last'


def test_many_wait_at_once(server, witness):
    peers = [Packets(server, b'c%d' % i, props=[(SESSION_EXPIRY, 100)], will=(b't', b'%d' % i, i % 3, False, [(WILL_DELAY, 1)]))
             for i in range(50)]
    for peer in peers:
        peer.socket.close()
    expected = {b'%d' % i for i in range(50)}
    got = set()
    while got != expected:
        message = witness.message()
        if message.topic == b't':
            got.add(message.payload)
