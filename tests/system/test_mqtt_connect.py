"""CONNECT, CONNACK and the end of a connection, packet by packet, in both versions."""
import string
import time

import pytest

from client import without_reason
from packets import (ALIAS_MAXIMUM, PACKET_SIZE, RECEIVE_MAXIMUM, SESSION_EXPIRY, WILL_DELAY, Cursor, text)
from spindle import DEADLINE_S, SANITIZED
from wire import (CLEAN, GOODBYE, NAME, PASSWORD, PING, PONG, USER_NAME, WILL, WILL_QOS, WILL_RETAIN, Wire, answer, answers, connect, packet,
                  publish, set_of, subscribe)

VERSIONS = pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])
ASSIGNED, SERVER_KEEP_ALIVE, METHOD = 0x12, 0x13, 0x15
REFUSED_VERSION = b'\x20\2\0\1'


@pytest.fixture(scope='module')
def server(shared_server):
    return shared_server()


def told(connack):
    """The properties of a CONNACK of 5.0."""
    return dict(Cursor(connack[4:]).properties())


def names_of(request):
    """Bytes that are the test's own, for topics and client identifiers."""
    return ''.join(c if c.isalnum() else '-' for c in request.node.name).encode()


@pytest.fixture
def own(request):
    return names_of(request)


def witness_of(server, topic, qos=2):
    """A client of 3.1.1 that gets what is published to `topic`."""
    wire = Wire(server).connected(4, b'w-' + topic)
    wire.send(subscribe(4, (topic, qos)))
    wire.expect(b'\x90\3\0\1' + bytes([qos]))
    return wire


# ---- who is let in ----

@VERSIONS
def test_the_answer_to_a_connect(server, version):
    """One CONNACK, with no flag but session present, and with properties that tell what differs from the standard's defaults."""
    with Wire(server).connected(version, b'plain') as wire:
        if version == 4:
            assert wire.connack == b'\x20\2\0\0'
        else:
            assert wire.connack[2:4] == b'\0\0'
            assert told(wire.connack) == {RECEIVE_MAXIMUM: 65535, PACKET_SIZE: 16 << 20, ALIAS_MAXIMUM: 64}
        wire.quiet()


@pytest.mark.parametrize('data', [connect(4, b'p', name=text(b'MQIsdp'), level=3), connect(4, b'p', name=text(b'mqtt')),
                                  connect(5, b'p', name=text(b'MQTT5')), connect(4, b'p', level=3), connect(4, b'p', level=6),
                                  connect(5, b'p', level=6), connect(4, b'p', level=0x84), connect(4, b'p', level=0)])
def test_other_protocols_are_told_that_they_are_not_spoken(server, data):
    """In the form that every version understands; what follows is not taken."""
    assert answers(server, data + PING) == REFUSED_VERSION


@VERSIONS
def test_what_follows_a_refused_connect_is_not_taken(server, own, version):
    refused = connect(version, b'', flags=0) if version == 4 else connect(5, b'r', props=[(METHOD, b'unknown')])
    with witness_of(server, own) as witness:
        got = answers(server, refused + publish(version, own, b'x', 1) + PING)
        assert got == b'\x20\2\0\2' if version == 4 else without_reason(got) == b'\x20\3\0\x8c\0'
        witness.quiet()


@VERSIONS
@pytest.mark.parametrize('client_id', [b'a', b'0123456789abcdefghijklm', b'nopqrstuvwxyzABCDEFGHIJ', b'KLMNOPQRSTUVWXYZ', bytes(range(1, 128)),
                                       b'\xef\xbb\xbf', 'Bohrer \u00e9\U0001f529'.encode(), b'x' * 65535])
def test_client_identifiers_that_are_taken(server, version, client_id):
    with Wire(server).connected(version, client_id) as wire:
        wire.quiet()


def test_the_identifiers_of_the_standard_are_all_there():
    """What the test above takes together."""
    taken = '0123456789abcdefghijklm' + 'nopqrstuvwxyzABCDEFGHIJ' + 'KLMNOPQRSTUVWXYZ'
    assert taken == string.digits + string.ascii_lowercase + string.ascii_uppercase


@pytest.mark.parametrize('flags', [0, CLEAN])
def test_an_empty_identifier_becomes_one_that_serves(server, flags):
    with Wire(server).connected(5, b'', flags) as one, Wire(server).connected(5, b'', flags) as other:
        names = [told(wire.connack)[ASSIGNED] for wire in (one, other)]
        assert all(names) and names[0] != names[1]
        with Wire(server).connected(5, names[0]) as heir:
            one.refused(0x8e)
            assert ASSIGNED not in told(heir.connack)
            heir.quiet()
        other.quiet()


def test_an_assigned_identifier_is_nobody_elses(server):
    """Those that would come next are taken already."""
    with Wire(server).connected(5, b'') as wire:
        stem, _, number = told(wire.connack)[ASSIGNED].rpartition(b'-')
    squatters = [Wire(server).connected(5, stem + b'-%d' % (int(number) + i)) for i in range(1, 4)]
    with Wire(server).connected(5, b'') as wire:
        assert told(wire.connack)[ASSIGNED] == stem + b'-%d' % (int(number) + 4)
        for squatter in squatters:
            squatter.quiet()
            squatter.close()


def test_an_empty_identifier_in_3_1_1(server):
    with Wire(server).connected(4, b'') as one, Wire(server).connected(4, b'') as other:
        one.quiet()
        other.quiet()
    assert answers(server, connect(4, b'', flags=0)) == b'\x20\2\0\2'


@VERSIONS
def test_identifiers_are_compared_to_the_byte(server, version):
    ids = [b'Drill', b'drill', b'drill ', b'dr\xc3\xadll', b'dri\xcc\x81ll']
    wires = [Wire(server).connected(version, client_id) for client_id in ids]
    for wire in wires:
        wire.quiet()
    with Wire(server).connected(version, ids[1]) as heir:
        wires[1].refused(0x8e)
        heir.quiet()
    for wire in wires[:1] + wires[2:]:
        wire.quiet()
        wire.close()


@VERSIONS
@pytest.mark.parametrize('flags, rest', [(USER_NAME, text(b'me')), (USER_NAME | PASSWORD, text(b'me') + text(b'\0\xff')),
                                         (USER_NAME, text(b'')), (USER_NAME | PASSWORD, text(b'') + text(b''))])
def test_names_and_passwords_stand_where_their_flags_say(server, version, flags, rest):
    will = set_of(version) + text(b'will/of/names') + text(b'\0\xff')
    with Wire(server).connected(version, b'named', CLEAN | WILL | flags, rest=will + rest) as wire:
        wire.quiet()
        wire.send(GOODBYE)


def test_a_password_needs_no_name_in_5_0(server):
    with Wire(server).connected(5, b'secret', CLEAN | PASSWORD, rest=text(b'x')) as wire:
        wire.quiet()


def test_enhanced_authentication_is_refused_and_never_begun(server):
    """No AUTH is ever sent, and no method told to who has named none."""
    got = answers(server, connect(5, b'auth', props=[(METHOD, b'SCRAM-SHA-256'), (0x16, b'data')]) + packet(0xf0, b'\x18\0'))
    assert without_reason(got) == b'\x20\3\0\x8c\0'
    with Wire(server).connected(5, b'auth') as wire:
        assert METHOD not in told(wire.connack)
        wire.quiet()


def test_a_client_without_room_for_the_answer_is_not_let_in(server, own):
    """A CONNACK may not be larger than the client's maximum packet size; one that says so just fits, or nothing does."""
    with Wire(server).connected(5, b'size') as wire:
        size = len(wire.connack)
    with Wire(server).connected(5, b'size', props=[(PACKET_SIZE, size)]) as wire:
        assert len(wire.connack) == size
    will = set_of(5) + text(own) + text(b'x')
    with witness_of(server, own) as witness:
        for most, expected in ((size - 1, b'\x20\3\0\x95\0'), (5, b'\x20\3\0\x95\0'), (4, b''), (1, b'')):
            assert answers(server, connect(5, b'size', CLEAN | WILL, props=[(PACKET_SIZE, most)], rest=will)) == expected
        witness.quiet()


# ---- sessions ----

@VERSIONS
@pytest.mark.parametrize('again', [0, CLEAN])
def test_a_session_ends_with_its_connection(server, own, version, again):
    """Unless more was asked for: test_sessions.py."""
    with Wire(server).connected(version, own, flags=CLEAN if version == 4 else 0) as wire:
        assert wire.connack[2] == 0
        assert version == 4 or SESSION_EXPIRY not in told(wire.connack)
        wire.send(subscribe(version, (own, 1)))
        wire.packet()
        wire.send(GOODBYE)
        assert wire.read_until_closed() == b''
    with Wire(server).connected(version, own, flags=again) as wire, Wire(server).connected(4, b'p-' + own) as publisher:
        assert wire.connack[2] == 0
        publisher.send(publish(4, own, b'x', 1))
        publisher.expect(answer(0x40, 1))
        wire.quiet()


@VERSIONS
def test_a_session_lasts_as_long_as_its_connection(server, own, version):
    """Subscriptions, and exchanges that are not finished."""
    with Wire(server).connected(version, own) as wire, Wire(server).connected(4, b'p-' + own) as publisher:
        wire.send(subscribe(version, (own, 2)))
        wire.packet()
        none = set_of(version)
        for identifier in range(1, 4):
            publisher.send(publish(4, own, b'x', 2, identifier))
            publisher.expect(answer(0x50, identifier))
            wire.expect(packet(0x34, text(own), bytes([0, identifier]), none, b'x'))
            wire.send(answer(0x50, identifier))
            wire.expect(answer(0x62, identifier))
            wire.quiet()
        for identifier in (2, 1, 3):
            wire.send(answer(0x50, identifier))
            wire.expect(answer(0x62, identifier))
            wire.send(answer(0x70, identifier))
            wire.quiet()


@VERSIONS
def test_nothing_is_repeated_within_a_connection(server, own, version):
    """Who does not answer is not asked again."""
    with Wire(server).connected(version, own) as wire, Wire(server).connected(4, b'p-' + own) as publisher:
        wire.send(subscribe(version, (own, 2)))
        wire.packet()
        for qos in (1, 2):
            publisher.send(publish(4, own, b'x', qos))
            publisher.packet()
            wire.expect(packet(0x30 | qos << 1, text(own), bytes([0, qos]), set_of(version), b'x'))
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            wire.quiet()


# ---- keep alive ----

@pytest.mark.parametrize('versions', [(4, 5)])
def test_silence_is_a_failure_of_the_network(server, own, versions):
    """After one and a half times the keep alive: the will is published. 0 turns it off, and any packet counts."""
    with witness_of(server, own) as witness, Wire(server).connected(5, b'still', keepalive=0) as still, \
            Wire(server).connected(4, b'awake', keepalive=1) as awake:
        wires = [Wire(server).connected(version, b'silent%d' % version, CLEAN | WILL, keepalive=1,
                                        rest=set_of(version) + text(own) + b'\0\1%d' % version) for version in versions]
        began = time.monotonic()
        for _ in range(4):
            awake.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                awake.read(1)
            awake.socket.settimeout(DEADLINE_S)
            awake.quiet()
        for wire in wires:
            wire.refused(0x8d)
            assert 1.4 <= time.monotonic() - began <= (DEADLINE_S if SANITIZED else 3.1)
            awake.quiet()
        assert {witness.packet()[-1:] for _ in wires} == {b'4', b'5'}
        still.quiet()
        for wire in wires:
            wire.close()


def test_the_keep_alive_of_the_client_is_not_replaced_without_need(server):
    for keepalive in (0, 1, 65535):
        with Wire(server).connected(5, b'keep', keepalive=keepalive) as wire:
            assert SERVER_KEEP_ALIVE not in told(wire.connack)


@VERSIONS
def test_a_ping_is_answered(server, version):
    with Wire(server).connected(version, b'ping') as wire:
        wire.send(PING * 3)
        wire.expect(PONG, PONG, PONG)


# ---- wills ----

def will_flags(qos, retain):
    return CLEAN | WILL | qos * WILL_QOS | (WILL_RETAIN if retain else 0)


@VERSIONS
@pytest.mark.parametrize('qos', [0, 1, 2])
@pytest.mark.parametrize('retain', [False, True])
def test_a_will_is_published_as_it_was_left(server, own, version, qos, retain):
    """To who is subscribed, without the flag; with it, when it was asked for, to who comes later. And once: the next connection has none."""
    with witness_of(server, own) as witness:
        rest = set_of(version) + text(own) + text(b'lost')
        Wire(server).connected(version, b'c-' + own, will_flags(qos, retain), rest=rest).close()
        witness.expect(packet(0x30 | qos << 1, text(own), b'\0\1' if qos else b'', b'lost'))
        Wire(server).connected(version, b'c-' + own).close()
        with Wire(server).connected(4, b'l-' + own) as later:
            later.send(subscribe(4, (own, 0)))
            later.expect(b'\x90\3\0\1\0')
            if retain:
                later.expect(packet(0x31, text(own), b'lost'))
            later.quiet()
            later.send(publish(4, own, b'', retain=True))
        witness.expect(packet(0x30, text(own)))
        witness.quiet()


@VERSIONS
@pytest.mark.parametrize('end', ['close', 'reset', 'error', 'taken over'])
def test_a_will_is_published_when_the_connection_fails(server, own, version, end):
    with witness_of(server, own) as witness:
        wire = Wire(server).connected(version, b'c-' + own, CLEAN | WILL, rest=set_of(version) + text(own) + text(b'lost'))
        if end == 'reset':
            wire.socket.setsockopt(1, 13, b'\1\0\0\0\0\0\0\0')  # SO_LINGER of no time: RST
        elif end == 'error':
            wire.send(b'\xc1\0')
        elif end == 'taken over':
            Wire(server).connected(version, b'c-' + own).close()
        if end in ('close', 'reset'):
            wire.close()
        witness.expect(packet(0x30, text(own), b'lost'))
        witness.quiet()
        wire.close()


@VERSIONS
def test_a_will_is_forgotten_after_a_goodbye(server, own, version):
    with witness_of(server, own) as witness:
        for _ in range(2):
            with Wire(server).connected(version, b'c-' + own, CLEAN | WILL, rest=set_of(version) + text(own) + text(b'lost')) as wire:
                wire.send(GOODBYE)
                assert wire.read_until_closed() == b''
        with Wire(server).connected(4, b'p-' + own) as publisher:
            publisher.send(publish(4, own, b'after', 1))
            publisher.expect(answer(0x40, 1))
        witness.expect(packet(0x32, text(own), b'\0\1', b'after'))
        witness.quiet()


@pytest.mark.parametrize('reason', [0x04, 0x80, 0x81, 0x82, 0x93, 0x97])
def test_only_a_normal_goodbye_takes_the_will_back(server, own, reason):
    with witness_of(server, own) as witness:
        with Wire(server).connected(5, b'c-' + own, CLEAN | WILL, rest=set_of(5) + text(own) + text(b'lost')) as wire:
            wire.send(packet(0xe0, bytes([reason])))
            assert wire.read_until_closed() == b''
        witness.expect(packet(0x30, text(own), b'lost'))


def test_a_delayed_will_is_withdrawn_by_who_comes_back(server, own):
    rest = set_of(5, (WILL_DELAY, 1)) + text(own) + text(b'lost')
    fence = set_of(5, (WILL_DELAY, 1)) + text(own) + text(b'fence')
    with witness_of(server, own) as witness:
        Wire(server).connected(5, b'c-' + own, WILL, props=[(SESSION_EXPIRY, 9)], rest=rest).close()
        Wire(server).connected(5, b'f-' + own, WILL, props=[(SESSION_EXPIRY, 9)], rest=fence).close()
        with Wire(server).connected(5, b'c-' + own, 0):
            witness.expect(packet(0x30, text(own), b'fence'))
            witness.quiet()


@VERSIONS
@pytest.mark.parametrize('end', ['stop', 'kill'])
def test_the_end_of_the_server_publishes_wills_where_it_can(spindle, version, end):
    """Of a client without a session when the server stops; not after a kill, as nothing is known of it then."""
    server = spindle().start()
    with Wire(server).connected(version, b'c', will_flags(1, True), rest=set_of(version) + text(b't') + text(b'lost')):
        server.stop() if end == 'stop' else server.kill()
    server.start()
    with witness_of(server, b't') as witness:
        if end == 'stop':
            witness.expect(packet(0x33, text(b't'), b'\0\1', b'lost'))
        witness.quiet()
    assert [m['payload'] for m in server.journal('bus')] == [b'lost'] * (end == 'stop')


# ---- the end ----

@VERSIONS
def test_everything_before_a_goodbye_is_answered(server, own, version):
    """In one breath: connected, subscribed, told what was kept, and gone."""
    with Wire(server).connected(4, b'p-' + own) as publisher:
        publisher.send(publish(4, own, b'kept', 1, retain=True))
        publisher.expect(answer(0x40, 1))
    none = set_of(version)
    with Wire(server) as wire:
        wire.send(connect(version, own) + subscribe(version, (own, 0)) + PING + GOODBYE)
        assert wire.packet()[0] == 0x20
        wire.expect(packet(0x90, b'\0\1', none, b'\0'))
        rest = wire.read_until_closed()
        assert rest.replace(packet(0x31, text(own), none, b'kept'), b'') == PONG


@VERSIONS
def test_nothing_is_taken_after_a_goodbye(server, own, version):
    with witness_of(server, own) as witness, Wire(server).connected(version, b'c-' + own) as wire:
        wire.send(GOODBYE + publish(version, own, b'x') + PING)
        assert wire.read_until_closed() == b''
        witness.quiet()


def test_a_goodbye_may_change_the_expiry_that_was_asked_for(server):
    with Wire(server).connected(5, b'expiry', props=[(SESSION_EXPIRY, 5)]) as wire:
        wire.send(packet(0xe0, b'\0', set_of(5, (SESSION_EXPIRY, 10))))
        assert wire.read_until_closed() == b''
