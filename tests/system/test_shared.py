"""Shared subscriptions: each message to one of the members, all of it to everybody else, and past a member that is full."""
import threading

import pytest

from client import V5, V311
from packets import RECEIVE_MAXIMUM, SUBSCRIPTION, Packets
from spindle import wait_until

PAHO_VERSIONS = pytest.mark.parametrize('version', [V311, V5], ids=['3.1.1', '5.0'])
PROTOCOL_ERROR = 0x82
NO_LOCAL = 4


@pytest.fixture
def server(spindle):
    """Two network threads, to which connections are dealt in turn."""
    return spindle(settings={'bus.threads': 2}).start()


def texts(messages):
    return [message.payload for message in messages]


def drain(peer, into):
    """Takes and acknowledges whatever comes, until the connection ends."""
    def run():
        try:
            while True:
                into.append(peer.message().payload)
        except (OSError, EOFError, AssertionError):
            pass
    threading.Thread(target=run, daemon=True).start()


def await_messages(clients, count):
    wait_until(lambda: sum(client.inbox.qsize() for client in clients) >= count, 'messages')


@PAHO_VERSIONS
@pytest.mark.parametrize('qos', [0, 1, 2])
def test_each_message_goes_to_one_member(server, connect, version, qos):
    members = [connect(server, version=version) for _ in range(4)]
    for member in members:
        assert member.subscribe('$share/workers/jobs/#', qos=qos) == [qos]
    alone, other = connect(server, version=version), connect(server, version=version)
    alone.subscribe('jobs/+', qos=qos)
    other.subscribe('$share/auditors/jobs/#', qos=qos)
    publisher = connect(server, version=version)
    sent = [b'%03d' % i for i in range(100)]
    for payload in sent:
        publisher.publish('jobs/%d' % (int(payload) % 7), payload, qos=qos)
    await_messages(members, len(sent))
    await_messages([alone], len(sent))
    await_messages([other], len(sent))
    got = [texts(member.take_rest(qos)) for member in members]
    assert sorted(sum(got, [])) == sent
    assert all(part == sorted(part) for part in got)  # what a member gets keeps its order
    assert all(len(part) >= 10 for part in got)  # and all of them work
    assert texts(alone.take_rest(qos)) == texts(other.take_rest(qos)) == sent


def test_a_member_that_subscribed_alone_too_gets_both(server, connect):
    member = connect(server)
    member.subscribe('$share/g/t', 't')
    connect(server).publish('t', b'x')
    await_messages([member], 2)
    assert texts(member.take_rest()) == [b'x', b'x']


def test_members_come_and_go(server, connect):
    first, second, publisher = connect(server), connect(server), connect(server)
    first.subscribe('$share/g/t')
    second.subscribe('$share/g/t')
    connections = server.metrics().get_sum('spindle_bus_connections')
    second.close()
    wait_until(lambda: server.metrics().get_sum('spindle_bus_connections') < connections, 'it has left')
    for i in range(10):
        publisher.publish('t', b'%d' % i)
    await_messages([first], 10)
    assert len(first.take_rest()) == 10
    first.unsubscribe('$share/g/t')
    publisher.publish('t', b'nobody')
    assert first.take_rest() == []


def test_no_member_gets_retained_messages_at_its_subscription(server, connect):
    connect(server).publish('t', b'kept', retain=True)
    member = connect(server, version=V5)
    member.subscribe('$share/g/t')
    assert member.take_rest() == []


def test_identifier_and_options_are_the_members(server):
    with Packets(server, b'one') as member, Packets(server, b'two') as publisher:
        assert (0x2a, 0) not in member.connack
        assert member.subscribe(b'$share/g/t', qos=1, props=[(SUBSCRIPTION, 77)])[0] == [1]
        publisher.publish(b't', b'x', 1, 1)
        message = member.message()
        assert (message.qos, message.values(SUBSCRIPTION)) == (1, [77])
        member.quiet()


def test_no_local_is_no_option_of_a_shared_subscription(server):
    with Packets(server) as member:
        member.packet(0x82, b'\x00\x01\x00\x00\x0a$share/g/t' + bytes([NO_LOCAL]))
        kind, _, reason, _ = member.answer()
        assert (kind, reason) == (14, PROTOCOL_ERROR)


def test_a_member_that_takes_nothing_holds_up_nobody(spindle, connect):
    """Its queue fills with what has no acknowledgement; the rest goes to the other one, and publishers do not wait."""
    server = spindle(settings={'bus.threads': 1, 'bus.outgoing_size_max': '256KiB'}).start()
    with Packets(server, b'stuck', props=[(RECEIVE_MAXIMUM, 1)]) as stuck:
        stuck.subscribe(b'$share/g/t', qos=1)
        able, publisher = connect(server), connect(server)
        able.subscribe('$share/g/t')
        sent = [b'%04d' % i + b'.' * 8000 for i in range(500)]
        publisher.publish_all([('t', payload) for payload in sent])
        await_messages([able], 400)
        got = texts(able.take_rest())
        assert got == sorted(got)
        mine = []
        while len(mine) + len(got) < len(sent):
            mine.append(stuck.message().payload)
        assert sorted(mine + got) == sent


def test_publishers_wait_when_all_members_are_full_and_go_on_with_the_first_that_has_room(spindle, connect):
    server = spindle(settings={'bus.threads': 1, 'bus.outgoing_size_max': '256KiB', 'bus.stall_timeout_s': 3600}).start()
    with Packets(server, b'one', props=[(RECEIVE_MAXIMUM, 1)]) as one, Packets(server, b'two', props=[(RECEIVE_MAXIMUM, 1)]) as two:
        one.subscribe(b'$share/g/t', qos=1)
        two.subscribe(b'$share/g/t', qos=1)
        publisher = connect(server)
        sent = [b'%04d' % i + b'.' * 8000 for i in range(400)]
        tokens = [publisher.post('t', payload) for payload in sent]
        first = one.message(acknowledge=False)
        while server.metrics().get_sum('spindle_bus_paused', reason='subscriber') == 0:
            pass
        assert not tokens[-1].is_published()
        one.packet(0x40, first.identifier.to_bytes(2, 'big'))
        mine, theirs = [first.payload], []
        drain(one, mine)
        wait_until(tokens[-1].is_published, 'the last PUBACK')  # the other one has acknowledged nothing
        drain(two, theirs)
        wait_until(lambda: len(mine) + len(theirs) == len(sent), lambda: '%d and %d messages' % (len(mine), len(theirs)))
        assert sorted(mine + theirs) == sent and len(mine) > len(theirs) > 0
