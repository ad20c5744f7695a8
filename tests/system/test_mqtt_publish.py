"""PUBLISH and its acknowledgements, packet by packet, in both versions."""
import pytest

from packets import EXPIRY, PACKET_SIZE, RECEIVE_MAXIMUM, Message, text
from spindle import wait_until
from wire import PING, PONG, Wire, answer, packet, publish, set_of, subscribe, u16

VERSIONS = pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])


@pytest.fixture(scope='module')
def server(shared_server):
    """Two network threads, to which connections are dealt in turn."""
    return shared_server({'bus.threads': 2})


@pytest.fixture
def own(request):
    """Bytes that are the test's own, for topics and client identifiers."""
    return ''.join(c if c.isalnum() else '-' for c in request.node.name).encode()


def subscriber(server, version, topic_filter, client_id, options=2, props=()):
    wire = Wire(server).connected(version, client_id, props=props)
    wire.send(subscribe(version, (topic_filter, options)))
    wire.expect(packet(0x90, u16(1), set_of(version), bytes([options & 3])))
    return wire


def message_of(wire):
    data = wire.packet()
    assert data[0] >> 4 == 3, data
    at = 2
    while data[at - 1] > 127:
        at += 1
    return Message(data[0], data[at:], wire.version)


def finish(wire, message):
    """The client's side of what is left of the exchange."""
    if message.qos == 1:
        wire.send(answer(0x40, message.identifier))
    elif message.qos == 2:
        wire.send(answer(0x50, message.identifier))
        wire.expect(answer(0x62, message.identifier))
        wire.send(answer(0x70, message.identifier))


# ---- what a publisher is answered ----

@VERSIONS
@pytest.mark.parametrize('identifier', [1, 255, 256, 65535])
def test_each_quality_has_its_answer(server, own, version, identifier):
    """To the byte: without a reason, as there is none to tell, and without properties."""
    with Wire(server).connected(version, own) as wire:
        wire.send(publish(version, own, b'x'))
        wire.quiet()
        wire.send(publish(version, own, b'x', 1, identifier))
        wire.expect(answer(0x40, identifier))
        wire.send(publish(version, own, b'x', 2, identifier))
        wire.expect(answer(0x50, identifier))
        wire.send(answer(0x62, identifier))
        wire.expect(answer(0x70, identifier))
        wire.quiet()


@VERSIONS
def test_a_publish_after_its_acknowledgement_is_a_new_message(server, own, version):
    """Of QoS 1, and of QoS 2 after PUBCOMP, whatever its DUP flag says; before it, it is the same."""
    with subscriber(server, version, own, b's-' + own) as reader, Wire(server).connected(version, own) as wire:
        for dup in (False, True):
            wire.send(publish(version, own, b'1', 1, 7, dup=dup))
            wire.expect(answer(0x40, 7))
        for dup in (False, True):
            for repeat in (dup, True):
                wire.send(publish(version, own, b'2', 2, 8, dup=repeat))
                wire.expect(answer(0x50, 8))
            wire.send(answer(0x62, 8))
            wire.expect(answer(0x70, 8))
        messages = [message_of(reader) for _ in range(4)]
        assert [(m.payload, m.dup) for m in messages] == [(b'1', False)] * 2 + [(b'2', False)] * 2
        for message in messages:
            finish(reader, message)
        reader.quiet()


def test_acknowledgements_leave_in_the_order_of_their_messages(server, own):
    with Wire(server).connected(5, own) as wire:
        wire.send(b''.join(publish(5, own if i % 5 else b'$SYS/refused', b'x', 1 + i % 2, 1000 - i) for i in range(100)))
        got = [wire.packet() for _ in range(100)]
        assert [(data[0], data[2:4]) for data in got] == [((0x40, 0x50)[i % 2], u16(1000 - i)) for i in range(100)]


# ---- refused ----

@pytest.mark.parametrize('qos', [1, 2])
def test_a_refused_publish_frees_its_identifier(server, own, qos):
    """What comes next with it is a new message."""
    with subscriber(server, 5, own, b's-' + own) as reader, Wire(server).connected(5, own) as wire:
        wire.send(publish(5, b'$SYS/own', b'x', qos, 9))
        got = wire.packet()
        assert (got[0], got[2:5]) == (0x40 if qos == 1 else 0x50, b'\0\x09\x87')
        wire.send(publish(5, own, b'y', qos, 9))
        wire.expect(answer(0x40 if qos == 1 else 0x50, 9))
        message = message_of(reader)
        assert (message.payload, message.qos) == (b'y', qos)
        finish(reader, message)
        reader.quiet()


def test_a_refusal_of_qos_2_is_no_larger_than_the_client_takes(server, own):
    """Its words are left out."""
    refused = publish(5, b'$SYS/own', b'x', 2, 9)
    with Wire(server).connected(5, own, props=[(PACKET_SIZE, 30)]) as small, Wire(server).connected(5, b'l-' + own) as large:
        small.send(refused)
        small.expect(answer(0x50, 9, b'\x87'))
        large.send(refused)
        got = large.packet()
        assert len(got) > 30 and got[2:5] == b'\0\x09\x87'


@pytest.mark.parametrize('qos', [0, 1, 2])
def test_what_is_not_allowed_is_acknowledged_in_3_1_1(server, own, qos):
    """There is no way to refuse it."""
    with subscriber(server, 4, b'$SYS/own', b's-' + own) as reader, Wire(server).connected(4, own) as wire:
        wire.send(publish(4, b'$SYS/own', b'x', qos, 9))
        if qos:
            wire.expect(answer(0x40 if qos == 1 else 0x50, 9))
        wire.quiet()
        reader.quiet()


# ---- what a subscriber is sent ----

@VERSIONS
@pytest.mark.parametrize('qos', [0, 1, 2])
@pytest.mark.parametrize('granted', [0, 1, 2])
def test_a_delivery_to_the_byte(server, own, version, qos, granted):
    """DUP and RETAIN of what came do not go on; an identifier is there from QoS 1 on."""
    with subscriber(server, version, own, b's-' + own, granted) as reader, Wire(server).connected(version, own) as wire:
        lower = min(qos, granted)
        wire.send(publish(version, own, b'x', qos, 77, dup=qos > 0, retain=True))
        reader.expect(packet(0x30 | lower << 1, text(own), b'\0\1' if lower else b'', set_of(version), b'x'))
        wire.send(publish(version, own, b'', retain=True))


@VERSIONS
def test_identifiers_of_deliveries_are_free_ones(server, own, version):
    """None twice while it is in use, none 0; after its answer it may come again."""
    with subscriber(server, version, own, b's-' + own) as reader, Wire(server).connected(4, own) as wire:
        for i in range(300):
            wire.send(publish(4, own, b'%d' % i, 1 + i % 2, 1 + i))
        messages = [message_of(reader) for _ in range(300)]
        identifiers = {message.identifier for message in messages}
        assert len(identifiers) == 300 and 0 not in identifiers
        assert [message.payload for message in messages] == [b'%d' % i for i in range(300)]
        for message in messages:
            finish(reader, message)
        reader.quiet()


@VERSIONS
def test_every_identifier_is_used_before_one_comes_again(server, own, version):
    """Round and round: 65,535 of them, then 1."""
    with subscriber(server, version, own, b's-' + own, 1) as reader, Wire(server).connected(4, own) as wire:
        expected, total = 1, 65600
        for first in range(0, total, 3280):
            wire.send(publish(4, own, b'x', 1) * 3280)
            acknowledgements = b''
            for _ in range(3280):
                message = message_of(reader)
                assert message.identifier == expected
                acknowledgements += answer(0x40, expected)
                expected = expected % 65535 + 1
            reader.send(acknowledgements)
            wire.read(4 * 3280)
        assert expected == total % 65535 + 1


@VERSIONS
def test_a_topic_arrives_as_it_was_written(server, own, version):
    """Nothing is trimmed, folded, composed or cut: neither for the match nor in what is sent on."""
    topics = [own + end for end in (b'', b'/', b'//', b'/A', b'/a', b'/\xef\xbb\xbf', b'/ a', b'/a ', '/\u00e9'.encode(), '/e\u0301'.encode(),
                                    b'/\xef\xbf\xbd', b'/%61', b'/a\\b', b'/./a', b'/../a', '/\U0010ffff'.encode(), b'/\x01\x7f')]
    topics.append(b'/' + own)
    with Wire(server).connected(version, own) as wire:
        everything = subscriber(server, version, own + b'/#', b'a-' + own, 0)
        readers = [subscriber(server, version, topic, b's%d-' % i + own, 0) for i, topic in enumerate(topics)]
        for i, topic in enumerate(topics):
            wire.send(publish(version, topic, b'%d' % i))
        for i, topic in enumerate(topics):
            readers[i].expect(packet(0x30, text(topic), set_of(version), b'%d' % i))
            readers[i].quiet()
            if topic.startswith(own):
                everything.expect(packet(0x30, text(topic), set_of(version), b'%d' % i))
        everything.quiet()
        for reader in readers + [everything]:
            reader.close()


@VERSIONS
def test_the_longest_topic(server, own, version):
    topic = own.ljust(65535, b'x')
    with subscriber(server, version, topic, b's-' + own, 0) as reader:
        reader.send(publish(version, topic, b'x'))
        reader.expect(packet(0x30, text(topic), set_of(version), b'x'))


@VERSIONS
@pytest.mark.parametrize('depth', ['slashes', 'words'])
def test_the_deepest_topic(server, own, version, depth):
    """200 separators, which is what Mosquitto takes too."""
    topic = own + (b'/' * 200 if depth == 'slashes' else b'/abc' * 200)
    with subscriber(server, version, topic, b's-' + own, 1) as reader:
        reader.send(publish(version, topic, b'x'))
        reader.expect(packet(0x30, text(topic), set_of(version), b'x'))


# ---- limits of the client, 5.0 ----

@pytest.mark.parametrize('qos', [0, 1, 2])
def test_no_packet_is_larger_than_the_client_takes(server, own, qos):
    """What is too large counts as delivered: it takes no place in the window, and what comes behind it comes."""
    fixed = len(publish(5, own, b'', qos))
    with subscriber(server, 5, own, b's-' + own, props=[(PACKET_SIZE, fixed + 10), (RECEIVE_MAXIMUM, 1)]) as reader, \
            Wire(server).connected(4, own) as wire:
        for payload in (b'x' * 11, b'y' * 10, b'z' * 1000, b'end'):
            wire.send(publish(4, own, payload, qos))
            if qos:
                wire.packet()
            if qos == 2:
                wire.send(answer(0x62, 1))
                wire.packet()
        for payload in (b'y' * 10, b'end'):
            message = message_of(reader)
            assert message.payload == payload
            finish(reader, message)
        reader.quiet()


def test_no_answer_is_larger_than_the_client_takes(server, own):
    """A SUBACK or UNSUBACK cannot be left out: who asks for one that it cannot take has to go."""
    many = [(own + b'/%d' % i, 0) for i in range(40)]
    with Wire(server).connected(5, own, props=[(PACKET_SIZE, 45)]) as wire:
        wire.send(subscribe(5, *many))
        wire.expect(packet(0x90, u16(1), b'\0', bytes(40)))
        wire.send(subscribe(5, *many, (own, 0)))
        wire.refused(0x95)


def test_at_the_receive_maximum_everything_else_goes_on(server, own):
    """QoS 0, answers to what the client asks and sends, and the rest of exchanges."""
    with subscriber(server, 5, own, b's-' + own, props=[(RECEIVE_MAXIMUM, 1)]) as reader, Wire(server).connected(4, own) as wire:
        for i in range(3):
            wire.send(publish(4, own, b'%d' % i, 2, 1 + i))
            wire.expect(answer(0x50, 1 + i))
        message = message_of(reader)
        assert message.payload == b'0'
        reader.send(PING + subscribe(5, (own + b'/other', 0), identifier=5) + publish(5, own + b'/other', b'x', 1, 6))
        got = [reader.packet() for _ in range(4)]
        assert sorted(got) == sorted([PONG, packet(0x90, u16(5), b'\0\0'), answer(0x40, 6), packet(0x30, text(own + b'/other'), b'\0x')])
        reader.send(answer(0x50, message.identifier))
        reader.expect(answer(0x62, message.identifier))
        reader.quiet()
        reader.send(answer(0x70, message.identifier))
        assert message_of(reader).payload == b'1'
        reader.quiet()


def test_a_refused_delivery_is_finished_and_not_repeated(server, own):
    """PUBACK and PUBREC of 0x80 and above: the place is free, and the message does not come again."""
    with subscriber(server, 5, own, b's-' + own, props=[(RECEIVE_MAXIMUM, 1)]) as reader, Wire(server).connected(4, own) as wire:
        for i in range(4):
            wire.send(publish(4, own, b'%d' % i, 1 + i % 2, 1 + i))
            wire.packet()
        for i in range(4):
            message = message_of(reader)
            assert (message.payload, message.dup) == (b'%d' % i, False)
            reader.send(answer((0x40, 0x50)[i % 2], message.identifier, b'\x83'))
        reader.quiet()


def test_an_exchange_outlasts_the_expiry_of_its_message(server, own):
    """What was sent does not expire, nor does what was received; a retained message that has tells that the time is over."""
    with subscriber(server, 5, own, b's-' + own) as reader, Wire(server).connected(5, own) as wire:
        wire.send(publish(5, own, b'x', 2, 3, props=[(EXPIRY, 1)]))
        wire.expect(answer(0x50, 3))
        message = message_of(reader)
        wire.send(publish(5, own + b'/clock', b'x', 1, 4, props=[(EXPIRY, 2)], retain=True))
        wire.expect(answer(0x40, 4))

        def over():
            with Wire(server).connected(5, b'o-' + own) as other:
                other.send(subscribe(5, (own + b'/clock', 0)))
                other.expect(packet(0x90, u16(1), b'\0\0'))
                other.send(PING)
                return other.packet() == PONG
        wait_until(over, 'the retained message has expired')
        reader.send(answer(0x50, message.identifier))
        reader.expect(answer(0x62, message.identifier))
        reader.send(answer(0x70, message.identifier))
        reader.quiet()
        wire.send(publish(5, own, b'x', 2, 3, props=[(EXPIRY, 1)], dup=True))
        wire.expect(answer(0x50, 3))
        wire.send(answer(0x62, 3))
        wire.expect(answer(0x70, 3))
        reader.quiet()


# ---- retained ----

@VERSIONS
def test_a_plain_message_leaves_the_retained_one(server, own, version):
    with Wire(server).connected(version, own) as wire:
        for payload, retain in ((b'kept', True), (b'plain', False), (b'', False)):
            wire.send(publish(version, own, payload, 1, retain=retain))
            wire.expect(answer(0x40, 1))
        wire.send(subscribe(version, (own, 0)))
        wire.expect(packet(0x90, u16(1), set_of(version), b'\0'), packet(0x31, text(own), set_of(version), b'kept'))
        wire.quiet()


@VERSIONS
@pytest.mark.parametrize('qos', [0, 1, 2])
def test_a_retained_message_takes_the_place_of_the_last(server, own, version, qos):
    """Of its QoS too; without payload it only removes, and is itself not kept."""
    with Wire(server).connected(version, own) as wire:
        wire.send(publish(version, own, b'old', 1, retain=True))
        wire.expect(answer(0x40, 1))
        wire.send(publish(version, own, b'new', qos, retain=True))
        if qos:
            wire.expect(answer(0x30 + 0x10 * qos, 1))
        wire.send(subscribe(version, (own, 2)))
        wire.expect(packet(0x90, u16(1), set_of(version), b'\2'),
                    packet(0x31 | qos << 1, text(own), b'\0\1' if qos else b'', set_of(version), b'new'))
        wire.send(publish(version, own, b'', 0, retain=True))
        wire.expect(packet(0x30, text(own), set_of(version)))
        wire.send(subscribe(version, (own, 2)))
        wire.expect(packet(0x90, u16(1), set_of(version), b'\2'))
        wire.quiet()


@VERSIONS
def test_a_retained_message_outlives_every_session(server, own, version):
    with Wire(server).connected(version, own) as wire:
        wire.send(publish(version, own, b'kept', 1, retain=True))
        wire.expect(answer(0x40, 1))
        wire.send(PING)
        wire.expect(PONG)
    with Wire(server).connected(version, own) as wire:
        wire.send(subscribe(version, (own, 0)))
        wire.expect(packet(0x90, u16(1), set_of(version), b'\0'), packet(0x31, text(own), set_of(version), b'kept'))
