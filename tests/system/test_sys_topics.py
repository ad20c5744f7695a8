"""$SYS: what the server says of itself by the names that operators know."""
import time

import pytest

from client import V5, V311
from packets import PUBACK, PUBREC, REASON, Packets
from sessions import Visit
from spindle import wait_until

VERSIONS = pytest.mark.parametrize('version', [V311, V5], ids=['3.1.1', '5.0'])


@pytest.fixture
def server(spindle):
    return spindle(settings={'bus.threads': 2, 'bus.sys_interval_s': 0.1}).start()


@VERSIONS
def test_a_subscriber_gets_the_latest_at_once(server, connect, version):
    watcher = connect(server, version=version)
    watcher.subscribe('$SYS/broker/version', '$SYS/broker/uptime')
    first = {m.topic: m for m in watcher.take(2)}
    assert first['$SYS/broker/version'].payload.startswith(b'spindle version ') and first['$SYS/broker/version'].retain
    assert first['$SYS/broker/uptime'].payload.endswith(b' seconds')
    [later] = watcher.take()  # the next value comes by itself, as a live message
    assert later.topic == '$SYS/broker/uptime' and not later.retain


def test_values_count(spindle, connect):
    server = spindle(settings={'bus.sys_interval_s': 0.1}).start()
    with Visit(server, b'away', expiry=1000) as visit:
        visit.leave()
    watcher, other = connect(server), connect(server)
    watcher.subscribe('$SYS/#')
    other.subscribe('t')
    for _ in range(10):
        other.publish('t', b'x' * 100, retain=True)
    expected = {'clients/connected': b'2', 'clients/disconnected': b'1', 'clients/total': b'3', 'clients/expired': b'0', 'clients/maximum': b'2', 'subscriptions/count': b'2',
                'retained messages/count': b'1', 'publish/messages/received': b'10', 'publish/messages/dropped': b'0'}
    values = {}

    def arrived():
        while not watcher.inbox.empty():
            message = watcher.inbox.get()
            values[message.topic.removeprefix('$SYS/broker/')] = message.payload
        return all(values.get(topic) == value for topic, value in expected.items()) and float(values['load/publish/received/1min']) > 0
    wait_until(arrived, lambda: {topic: values.get(topic) for topic in expected})
    assert int(values['bytes/received']) > 1000 and int(values['bytes/sent']) > 1000 and int(values['publish/messages/sent']) > 10
    assert {'load/%s/%s/%smin' % (kind, way, period) for kind in ('messages', 'publish', 'bytes') for way in ('received', 'sent')
            for period in (1, 5, 15)} <= set(values)
    assert server.metrics().get_sum('spindle_bus_retained_messages') == 1


def test_wildcards_at_the_beginning_do_not_match(server):
    with Packets(server) as peer:
        peer.subscribe(b'#', b'+/broker/#', b'+/+/uptime')
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            peer.quiet()


def test_they_can_be_switched_off(spindle):
    server = spindle(settings={'bus.sys_interval_s': 0}).start()
    with Packets(server) as peer:
        peer.subscribe(b'$SYS/#')
        peer.quiet()


def test_nobody_else_publishes_there(server):
    with Packets(server, b'five') as five, Packets(server, b'old', 4) as old:
        five.subscribe(b'$SYS/mine', b'$SYSTEM')
        for qos in (0, 1, 2):
            five.publish(b'$SYS/mine', b'x', qos, identifier=1 + qos, retain=True)
            old.publish(b'$SYS/mine', b'x', qos, identifier=1 + qos)
        for kind, identifier in ((PUBACK, 2), (PUBREC, 3)):
            assert old.answer() == (kind, identifier, 0, [])
            answer = five.answer()
            assert answer[:3] == (kind, identifier, 0x87) and b'$SYS' in dict(answer[3])[REASON]
        five.publish(b'$SYSTEM', b'fine')
        assert five.message().payload == b'fine'
        five.quiet()
        assert server.metrics().get_sum('spindle_bus_publishes_refused_total', reason='reserved') == 6
        assert server.metrics().get_sum('spindle_bus_retained_messages') == 0
