"""SUBSCRIBE, UNSUBSCRIBE and what filters match, packet by packet, in both versions."""
import pytest

from packets import SUBSCRIPTION, Message, text
from spindle import wait_until
from wire import PING, PONG, Wire, answer, packet, publish, set_of, subscribe, u16, unsubscribe

VERSIONS = pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])
NO_LOCAL, RETAIN_AS_PUBLISHED, ONLY_NEW, NEVER = 4, 8, 0x10, 0x20
NO_ROOM = {4: 0x80, 5: 0x97}


@pytest.fixture(scope='module')
def server(shared_server):
    """Two network threads, to which connections are dealt in turn."""
    return shared_server({'bus.threads': 2})


@pytest.fixture(scope='module')
def small(shared_server):
    """One that keeps one retained message, and hands out no more than two at once."""
    return shared_server({'bus.retained_max': 1})


@pytest.fixture
def own(request):
    """Bytes that are the test's own, for topics and client identifiers."""
    return ''.join(c if c.isalnum() else '-' for c in request.node.name).encode()


def codes_of(wire, identifier, *entries):
    """Subscribes, and gives the codes of the SUBACK, which says nothing else that matters."""
    wire.send(subscribe(wire.version, *entries, identifier=identifier))
    data = wire.packet()
    assert data[0] == 0x90 and data[2:4] == u16(identifier)
    return data[-len(entries):]


def delivered(topic, payload=b'x', version=4, qos=0, identifier=1, retain=False):
    return packet(0x30 | qos << 1 | retain, text(topic), u16(identifier) if qos else b'', set_of(version), payload)


# ---- SUBSCRIBE ----

@VERSIONS
@pytest.mark.parametrize('identifier', [1, 256, 65535])
def test_each_filter_has_its_code_in_order(small, own, version, identifier):
    """The QoS that was asked for, or a failure, which is none of the others': a third list of retained messages has no room."""
    with Wire(small).connected(version, own) as wire:
        wire.send(publish(version, b'kept', b'x', retain=True))
        entries = [(own + b'/0', 0), (b'+', 2), (b'#', 1), (b'kept', 1), (own + b'/1', 1), (own + b'/+/#', 2)]
        assert codes_of(wire, identifier, *entries) == bytes([0, 2, 1, NO_ROOM[version], 1, 2])
        wire.expect(*[delivered(b'kept', version=version, retain=True)] * 2)
        wire.send(unsubscribe(version, b'+', b'#', b'kept'))
        wire.expect(packet(0xb0, u16(1), b'' if version == 4 else b'\0\0\0\x11'))
        for topic in (own + b'/0', own + b'/1', b'kept'):
            wire.send(publish(version, topic, b'x'))
        wire.expect(*(delivered(own + b'/%d' % i, version=version) for i in range(2)))
        wire.quiet()


@VERSIONS
def test_a_suback_to_the_byte(server, own, version):
    with Wire(server).connected(version, own) as wire:
        wire.send(subscribe(version, (own, 1), (own + b'/#', 2), identifier=258))
        wire.expect(packet(0x90, b'\1\2', set_of(version), b'\1\2'))
        wire.quiet()


@VERSIONS
def test_a_second_subscription_replaces_the_first(server, own, version):
    """Its QoS is the new one, and there is one delivery; the retained message comes again."""
    with Wire(server).connected(version, own) as wire, Wire(server).connected(4, b'p-' + own) as publisher:
        publisher.send(publish(4, own, b'kept', 1, retain=True))
        publisher.expect(answer(0x40, 1))
        for turn, qos in enumerate((2, 0, 1)):
            assert codes_of(wire, 1 + turn, (own, qos)) == bytes([qos])
            lower = min(qos, 1)
            kept = Message(*split(wire.packet()), version)
            assert (kept.payload, kept.qos, kept.retain) == (b'kept', lower, True)
            publisher.send(publish(4, own, b'live', 2, 2 + turn))
            publisher.expect(answer(0x50, 2 + turn))
            live = Message(*split(wire.packet()), version)
            assert (live.payload, live.qos, live.retain) == (b'live', qos, False)
            wire.quiet()
        publisher.send(publish(4, own, b'', retain=True))


def split(data):
    at = 2
    while data[at - 1] > 127:
        at += 1
    return data[0], data[at:]


@VERSIONS
def test_nothing_is_lost_while_a_subscription_is_replaced(server, own, version):
    with Wire(server).connected(version, own) as wire, Wire(server).connected(4, b'p-' + own) as publisher:
        assert codes_of(wire, 1, (own, 0)) == b'\0'
        publisher.send(b''.join(publish(4, own, b'%d' % i, 1, 1 + i) for i in range(2000)))
        wire.send(b''.join(subscribe(version, (own, 0), identifier=2 + i) for i in range(200)))
        subacks, payloads = 0, []
        while subacks < 200 or len(payloads) < 2000:
            first, body = split(wire.packet())
            if first == 0x90:
                subacks += 1
            else:
                payloads.append(Message(first, body, version).payload)
        assert payloads == [b'%d' % i for i in range(2000)]
        wire.quiet()


@VERSIONS
def test_several_filters_are_as_several_packets(server, own, version):
    """The last of two equal ones holds, and each asks for the retained message."""
    with Wire(server).connected(version, own) as wire:
        wire.send(publish(version, own, b'kept', retain=True))
        assert codes_of(wire, 1, (own, 1), (own, 0)) == b'\1\0'
        wire.expect(*[delivered(own, b'kept', version, retain=True)] * 2)
        wire.send(publish(version, own, b'x', 1))
        got = [wire.packet(), wire.packet()]
        assert sorted(got) == sorted([answer(0x40, 1), delivered(own, version=version)])
        wire.send(unsubscribe(version, own, own, b'none', identifier=9))
        wire.expect(packet(0xb0, u16(9), b'' if version == 4 else b'\0\0\x11\x11'))
        wire.send(publish(version, own, b'', retain=True))
        wire.quiet()


def test_own_messages_are_left_out_where_that_was_asked_for(server, own):
    """And only there: other filters that match, and others' messages."""
    with Wire(server).connected(5, own) as wire, Wire(server).connected(5, b'o-' + own) as other:
        assert codes_of(wire, 1, (own, NO_LOCAL)) == b'\0'
        assert codes_of(other, 1, (own, 0)) == b'\0'
        wire.send(publish(5, own, b'mine'))
        other.expect(delivered(own, b'mine', 5))
        other.send(publish(5, own, b'yours'))
        other.expect(delivered(own, b'yours', 5))
        wire.expect(delivered(own, b'yours', 5))
        assert codes_of(wire, 2, (own, 0)) == b'\0'
        wire.send(publish(5, own, b'mine'))
        wire.expect(delivered(own, b'mine', 5))
        wire.quiet()


def test_own_messages_come_by_another_filter(server, own):
    """With the QoS and the identifier of that one alone; others' messages with the best and all of both."""
    with Wire(server).connected(5, own) as wire, Wire(server).connected(5, b'o-' + own) as other, \
            Wire(server).connected(5, b'p-' + own) as third:
        for identifier, entry in ((1, (own, 2 | NO_LOCAL)), (2, (own + b'/#', 0))):
            wire.send(subscribe(5, entry, identifier=identifier, props=[(SUBSCRIPTION, identifier)]))
            wire.expect(packet(0x90, u16(identifier), b'\0', bytes([entry[1] & 3])))
        wire.send(publish(5, own, b'mine', 2, 7))
        got = sorted([wire.packet(), wire.packet()])
        assert got == [packet(0x30, text(own), set_of(5, (SUBSCRIPTION, 2)), b'mine'), answer(0x50, 7)]
        for publisher in (other, third):  # one of them is on the other thread
            publisher.send(publish(5, own, b'yours', 2, 7))
            publisher.expect(answer(0x50, 7))
            message = Message(*split(wire.packet()), 5)
            assert (message.payload, message.qos, sorted(message.values(SUBSCRIPTION))) == (b'yours', 2, [1, 2])
        wire.quiet()


def test_when_retained_messages_are_sent(server, own):
    """Retain handling 0: always; 1: to a new subscription; 2: never."""
    kept = delivered(own, b'kept', 5, retain=True)
    with Wire(server).connected(5, own) as wire:
        wire.send(publish(5, own, b'kept', retain=True))
        for handling, comes in ((NEVER, False), (ONLY_NEW, False), (0, True), (ONLY_NEW, False), (NEVER, False)):
            assert codes_of(wire, 1, (own, handling)) == b'\0'
            if comes:
                wire.expect(kept)
            wire.quiet()
        wire.send(unsubscribe(5, own, identifier=2))
        wire.expect(packet(0xb0, u16(2), b'\0\0'))
        assert codes_of(wire, 3, (own, ONLY_NEW)) == b'\0'
        wire.expect(kept)
        wire.send(publish(5, own, b'', retain=True))
        wire.expect(delivered(own, b'', 5))
        wire.quiet()


@pytest.mark.parametrize('option', [0, RETAIN_AS_PUBLISHED])
@pytest.mark.parametrize('retain', [False, True])
def test_the_flag_of_a_live_message(server, own, option, retain):
    with Wire(server).connected(5, own) as wire:
        assert codes_of(wire, 1, (own, option)) == b'\0'
        wire.send(publish(5, own, b'x', retain=retain))
        wire.expect(delivered(own, b'x', 5, retain=retain and option > 0))
        wire.send(publish(5, own, b'', retain=True))


# ---- shared ----

def members_of(server, own, count=2):
    """They have subscribed to the same share with QoS 2."""
    members = [Wire(server).connected(5, b'm%d-' % i + own) for i in range(count)]
    for member in members:
        assert codes_of(member, 1, (b'$share/g/' + own, 2)) == b'\2'
    return members


def taken_by(members):
    """(who got a message, its identifier); it is on its way to one of them."""
    while True:
        for member in members:
            member.send(PING)
            data = member.packet()
            if data != PONG:
                member.expect(PONG)
                return member, Message(*split(data), 5).identifier


@pytest.mark.parametrize('answered', [False, True])
def test_what_a_member_had_goes_to_nobody_else(server, own, answered):
    """Its session ends with its connection."""
    members = members_of(server, own)
    with Wire(server).connected(4, own) as publisher:
        publisher.send(publish(4, own, b'x', 2, 1))
        publisher.expect(answer(0x50, 1))
        first, identifier = taken_by(members)
        if answered:
            first.send(answer(0x50, identifier))
            first.expect(answer(0x62, identifier))
        first.close()
        members.remove(first)
        wait_until(lambda: server.metrics().get_sum('spindle_bus_connections') == 2, 'the member is gone')
        publisher.send(publish(4, own, b'next', 1, 2))
        publisher.expect(answer(0x40, 2))
        message = Message(*split(members[0].packet()), 5)
        assert message.payload == b'next'
        members[0].quiet()
        members[0].close()


@pytest.mark.parametrize('qos', [1, 2])
def test_what_a_member_refuses_goes_to_nobody_else(server, own, qos):
    members = members_of(server, own)
    with Wire(server).connected(4, own) as publisher:
        publisher.send(publish(4, own, b'x', qos, 1))
        publisher.packet()
        first, identifier = taken_by(members)
        first.send(answer(0x40 if qos == 1 else 0x50, identifier, b'\x83'))
        for member in members * 2:
            member.quiet()
    for member in members:
        member.close()


def test_each_member_gets_its_own_quality(server, own):
    members = [Wire(server).connected(5, b'm%d-' % i + own) for i in range(3)]
    for qos, member in enumerate(members):
        assert codes_of(member, 1, (b'$share/g/' + own, qos)) == bytes([qos])
    with Wire(server).connected(4, own) as publisher:
        for i in range(9):
            publisher.send(publish(4, own, b'x', 2, 1 + i))
            publisher.expect(answer(0x50, 1 + i))
        for qos, member in enumerate(members):
            for i in range(3):
                member.expect(delivered(own, version=5, qos=qos, identifier=1 + i))
            member.quiet()
            member.close()


# ---- UNSUBSCRIBE ----

@VERSIONS
def test_a_filter_is_compared_character_by_character(server, own, version):
    """What it would match is not looked at."""
    with Wire(server).connected(version, own) as wire:
        filters = [own + b'/a', own + b'/+', own + b'/#']
        assert codes_of(wire, 1, *((f, 0) for f in filters)) == bytes(3)
        others = [own + b'/b', own + b'/A', own + b'/a/', own, b'+/a', b'#', b'$share/g/' + own + b'/a']
        wire.send(unsubscribe(version, *others, identifier=2))
        wire.expect(packet(0xb0, u16(2), b'' if version == 4 else b'\0' + bytes([0x11]) * len(others)))
        wire.send(unsubscribe(version, b'none', filters[1], identifier=65535))
        wire.expect(packet(0xb0, u16(65535), b'' if version == 4 else b'\0\x11\0'))
        wire.send(unsubscribe(version, filters[2], filters[0], identifier=4))
        wire.expect(packet(0xb0, u16(4), b'' if version == 4 else b'\0\0\0'))
        wire.send(publish(version, own + b'/a', b'x'))
        wire.quiet()


@VERSIONS
def test_what_has_begun_is_finished_after_an_unsubscription(server, own, version):
    """Exchanges go on to their end; nothing new comes."""
    with Wire(server).connected(version, own) as wire, Wire(server).connected(4, b'p-' + own) as publisher:
        assert codes_of(wire, 1, (own, 2)) == b'\2'
        for identifier in (1, 2):
            publisher.send(publish(4, own, b'x', 2, identifier))
            publisher.expect(answer(0x50, identifier))
            wire.expect(delivered(own, b'x', version, 2, identifier))
        wire.send(answer(0x50, 1))
        wire.expect(answer(0x62, 1))
        wire.send(unsubscribe(version, own))
        wire.expect(packet(0xb0, u16(1), b'' if version == 4 else b'\0\0'))
        publisher.send(publish(4, own, b'y', 1, 3))
        publisher.expect(answer(0x40, 3))
        wire.send(answer(0x70, 1) + answer(0x50, 2))
        wire.expect(answer(0x62, 2))
        wire.send(answer(0x70, 2))
        wire.quiet()


# ---- what filters match ----

MATCHES = [
    # the standards' own examples (3.1.1 section 4.7, 5.0 section 4.7) and what lies beside them
    (b'sport/tennis/player1/#', [b'sport/tennis/player1', b'sport/tennis/player1/ranking', b'sport/tennis/player1/score/wimbledon'],
     [b'sport/tennis/player2', b'sport/tennis', b'sport/tennis/player10']),
    (b'sport/#', [b'sport', b'sport/', b'sport/a'], [b'sports', b'Sport/a', b'/sport/a']),
    (b'sport/tennis/+', [b'sport/tennis/player1', b'sport/tennis/'], [b'sport/tennis', b'sport/tennis/player1/ranking']),
    (b'sport/+', [b'sport/'], [b'sport']),
    (b'+/+', [b'/finance'], [b'finance', b'/finance/']),
    (b'/+', [b'/finance'], [b'finance']),
    (b'+', [b'finance'], [b'/finance']),
    (b'+/tennis/#', [b'a/tennis', b'/tennis/b'], [b'tennis', b'a/b/tennis']),
    (b'a/+/+/d', [b'a/b/c/d', b'a///d'], [b'a/b/d', b'a/b/c/d/']),
    (b'/', [b'/'], [b'//', b'a/', b'/a']),
]


@VERSIONS
@pytest.mark.parametrize('topic_filter, matching, other', MATCHES, ids=[m[0].decode() for m in MATCHES])
def test_what_a_filter_matches(server, own, version, topic_filter, matching, other):
    with Wire(server).connected(version, own) as wire:
        assert codes_of(wire, 1, (topic_filter, 0)) == b'\0'
        for topic in other + matching:
            wire.send(publish(version, topic, own))
        wire.expect(*(delivered(topic, own, version) for topic in matching))
        wire.quiet()


@VERSIONS
@pytest.mark.parametrize('topic_filter', [b'#', b'+/own', b'+/#', b'$own/#', b'$own/+', b'$own/own'])
def test_topics_that_begin_with_a_dollar_match_no_wildcard_there(server, own, version, topic_filter):
    with Wire(server).connected(version, own) as wire:
        assert codes_of(wire, 1, (topic_filter, 0)) == b'\0'
        wire.send(publish(version, b'$own/own', own) + publish(version, b'own/own', own + b'2'))
        wire.expect(delivered(b'$own/own', own, version) if topic_filter[:1] == b'$' else delivered(b'own/own', own + b'2', version))
        wire.quiet()


@VERSIONS
@pytest.mark.parametrize('granted', [(0, 1, 2), (2, 1, 0), (1, 0, 0)])
def test_overlapping_filters_deliver_once_with_the_highest_quality(server, own, version, granted):
    with Wire(server).connected(version, own) as wire, Wire(server).connected(4, b'p-' + own) as publisher:
        filters = [own + b'/#', own + b'/+', own + b'/a']
        assert codes_of(wire, 1, *zip(filters, granted)) == bytes(granted)
        publisher.send(publish(4, own + b'/a', b'x', 2))
        wire.expect(delivered(own + b'/a', b'x', version, max(granted)))
        wire.quiet()
