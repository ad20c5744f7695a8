"""Bridge rules: topics of the own bus joined to those of a real Mosquitto, or of another Spindle, in and out; nothing goes round."""
import collections
import contextlib
import json
import socket
import threading
import time

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from client import V5, V311, Client
from doors import Authority
from mosquitto import PROGRAM
from spindle import DEADLINE_S, SANITIZED, free_port, run_cli, switches, wait_until
from test_ingest import broker  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(PROGRAM is None, reason='Mosquitto is not installed')

QUICK = {'ingest.backoff_first_s': '0.05', 'ingest.backoff_last_s': '0.2', 'ingest.breaker_open_s': '0.2'}


def rules(*texts, **more):
    """Settings with these rules; in each, {} is the broker that goes with it: rules((text, broker), ...)."""
    return {**QUICK, 'bridge.rules': ','.join(text.format('mqtt://127.0.0.1:%d' % at.port) for text, at in texts), **more}


def wait_connected(server, at, count):
    def connected():
        return server.metrics().get_sum('spindle_ingest_connections', broker='127.0.0.1:%d' % at.port) == count
    wait_until(connected, lambda: '%d connections\n%s' % (count, server.stderr()[-3000:]))


def metric(server, name, at=None):
    labels = {'broker': '127.0.0.1:%d' % at.port} if at else {}
    return server.metrics().get_sum('spindle_bridge_' + name, **labels)


def wait_sent(server, count):
    wait_until(lambda: metric(server, 'acknowledged_total') >= count and metric(server, 'lag') == 0,
               lambda: 'sent: %s, lag: %s' % (metric(server, 'acknowledged_total'), metric(server, 'lag')), 2 * DEADLINE_S)


def take_rest(client):
    """What is there already, once a marker has come by the same way."""
    messages = []
    while not client.inbox.empty():
        messages.append(client.inbox.get())
    return messages


class Watch:
    """A subscriber that counts what comes, until a marker has."""

    def __init__(self, port, *filters, version=V5):
        self.client = Client(port, version=version)
        self.client.subscribe(*filters, qos=2)
        self.seen = collections.Counter()
        self.order = []

    def until(self, payload, deadline_s=2 * DEADLINE_S):
        while payload not in self.order:
            message = self.client.inbox.get(timeout=deadline_s)
            self.order.append(message.payload)
            self.seen[message.topic, message.payload] += 1
        return self

    def until_all(self, expected, deadline_s=3 * DEADLINE_S):
        while expected - set(self.order):
            self.until_any(deadline_s)
        return self

    def until_any(self, deadline_s):
        message = self.client.inbox.get(timeout=deadline_s)
        self.order.append(message.payload)
        self.seen[message.topic, message.payload] += 1

    def close(self):
        self.client.close()


def test_what_comes_in_has_its_local_name(spindle, broker, connect):  # noqa: F811
    mosquitto = broker().start()
    server = spindle(settings=rules(('in {} site/# qos 2 local plant/ remote far/', mosquitto))).start()
    wait_connected(server, mosquitto, 1)
    subscriber = connect(server)
    subscriber.subscribe('#', qos=2)
    with Client(mosquitto.port) as client:
        for qos in range(3):
            client.publish('far/site/a', 'q%d' % qos, qos)
        client.publish('near/site/a', 'not of the rule', 2)
        client.publish('far/site', 'parent', 1)
    messages = subscriber.take(4)
    assert {(m.topic, m.payload, m.qos) for m in messages} == {('plant/site/a', b'q0', 0), ('plant/site/a', b'q1', 1),
                                                               ('plant/site/a', b'q2', 2), ('plant/site', b'parent', 1)}
    wait_until(lambda: server.metrics().get_sum('spindle_ingest_acknowledged_total') == 3, 'all are acknowledged')
    assert metric(server, 'received_total', mosquitto) == 4
    assert [(record['topic'], record['payload']) for record in server.journal('bus')] == [
        ('plant/site/a', b'q0'), ('plant/site/a', b'q1'), ('plant/site/a', b'q2'), ('plant/site', b'parent')]
    status = json.loads(server.http('/api/v1/status')[2])
    bridge, = status['ingest']['bridges']
    assert bridge['broker'] == '127.0.0.1:%d' % mosquitto.port and bridge['received'] == 4 and bridge['rules'] == 1


@pytest.mark.parametrize('version', ['5.0', '3.1.1'])
def test_what_goes_out_has_its_remote_name_and_is_in_order(spindle, broker, connect, version):  # noqa: F811
    mosquitto = broker().start()
    server = spindle(settings=rules(('out {} orders/+/new qos 2 local plant/ remote far/', mosquitto), ('out {} low/# qos 1', mosquitto),
                                    **{'ingest.version': version, 'bridge.inflight': '20'})).start()
    wait_connected(server, mosquitto, 1)
    watch = Watch(mosquitto.port, '#')
    client = connect(server, version=V5)
    client.publish('plant/orders/1/new', 'q0', 0)  # not in the journal, so not sent
    client.publish('plant/orders/1/old', 'another topic', 2)
    for number in range(300):
        client.publish('plant/orders/%d/new' % (number % 3), '%d' % number, 2)
    client.publish('low/a', 'at most 1', 2)
    client.publish('low/end', 'end', 1)
    numbers = [b'%d' % number for number in range(300)]
    watch.until_all({*numbers, b'at most 1', b'end'})
    assert [payload for payload in watch.order if payload.isdigit()] == numbers  # QoS 1 may pass QoS 2 by at the broker
    assert watch.seen['far/orders/2/new', b'2'] == 1
    wait_sent(server, 302)
    assert metric(server, 'acknowledged_total', mosquitto) == 302
    watch.close()


def test_both_directions_without_an_echo(spindle, broker, connect):  # noqa: F811
    """What goes out is heard by the subscription of the same rule, and not taken in again; what comes in does not go back."""
    mosquitto = broker().start()
    server = spindle(settings=rules(('both {} # qos 2 local all/ remote all/', mosquitto))).start()
    wait_connected(server, mosquitto, 2)
    here, there = Watch(server.port, '#'), Watch(mosquitto.port, 'all/#')
    own, other = connect(server), Client(mosquitto.port)
    for number in range(100):
        own.publish('all/x', 'here%d' % number, 1 + number % 2)
        other.publish('all/x', 'there%d' % number, 1 + number % 2)
    expected = {b'%s%d' % (side, number) for side in (b'here', b'there') for number in range(100)}
    here.until_all(expected)
    there.until_all(expected)
    wait_sent(server, 100)
    wait_until(lambda: metric(server, 'looped_total') == 100, 'all echoes have come and were not taken')
    own.publish('all/end', 'end1', 2)
    there.until(b'end1')
    other.publish('all/end', 'end2', 2)
    here.until(b'end2')
    assert set(here.seen.values()) == {1} and set(there.seen.values()) == {1}
    assert len(server.journal('bus')) == 202
    for client in (here, there, other):
        client.close()


def test_retained_messages_are_so_at_both_sides(spindle, broker, connect):  # noqa: F811
    mosquitto = broker().start()
    with Client(mosquitto.port, version=V5) as client:
        client.publish('r/early', 'before', 1, retain=True)
        client.publish('r/gone', 'before', 1, retain=True)
    server = spindle(settings=rules(('both {} r/# local b/', mosquitto))).start()
    wait_connected(server, mosquitto, 2)
    connect(server, version=V5).publish('b/r/own', 'from here', 1, retain=True)
    with Client(mosquitto.port, version=V5) as client:
        client.publish('r/live', 'while connected', 1, retain=True)
        client.publish('r/plain', 'not retained', 1)
        client.publish('r/gone', b'', 1, retain=True)
    wait_sent(server, 1)
    wait_until(lambda: metric(server, 'received_total') == 5, lambda: 'all have come: %s' % metric(server, 'received_total'))
    server.kill()
    server.start()

    def retained(port):
        with Client(port, version=V5) as client:
            client.subscribe('#')
            client.publish('marker/x', 'end')
            found = {}
            while 'marker/x' not in found:
                message = client.inbox.get(timeout=DEADLINE_S)
                found[message.topic] = (message.payload, message.retain)
            return {topic: value for topic, value in found.items() if topic != 'marker/x'}
    assert retained(server.port) == {'b/r/early': (b'before', True), 'b/r/live': (b'while connected', True), 'b/r/own': (b'from here', True)}
    assert retained(mosquitto.port) == {'r/early': (b'before', True), 'r/live': (b'while connected', True), 'r/own': (b'from here', True)}


def test_messages_wait_while_the_broker_is_away(spindle, broker, connect):  # noqa: F811
    """In order, across a restart of Spindle; it is ready all the while."""
    mosquitto = broker()
    server = spindle(settings=rules(('out {} a/# qos 2', mosquitto))).start()
    connect(server).publish_all([('a/x', 'first%d' % number) for number in range(500)])
    wait_until(lambda: metric(server, 'lag') == 500, 'they are counted')
    assert server.http('/readyz')[0] == 200
    server.kill()
    server.start()
    connect(server).publish_all([('a/x', 'then%d' % number) for number in range(100)])
    server.stop()
    mosquitto.start()
    watch = Watch(mosquitto.port, 'a/#')
    server.start()
    wait_sent(server, 600)
    expected = [b'first%d' % number for number in range(500)] + [b'then%d' % number for number in range(100)]
    assert watch.until_all(set(expected)).order == expected
    watch.close()
    mosquitto.stop()
    connect(server).publish_all([('a/x', 'last%d' % number) for number in range(50)])
    wait_until(lambda: metric(server, 'lag') == 50, 'they are counted')
    mosquitto.start()
    wait_sent(server, 650)


@pytest.mark.parametrize('qos', [1, 2])
def test_nothing_is_lost_when_spindle_is_killed(spindle, broker, connect, qos):  # noqa: F811
    """Messages go both ways meanwhile. With QoS 2 none comes twice."""
    mosquitto = broker().start()
    server = spindle(settings=rules(('out {} o/# qos %d' % qos, mosquitto), ('in {} i/# qos %d' % qos, mosquitto),
                                    **{'bridge.inflight': '20', 'ingest.receive_maximum': '20'})).start()
    wait_connected(server, mosquitto, 2)
    watch = Watch(mosquitto.port, 'o/#')
    count = 300
    for part in range(3):
        client = connect(server)
        client.publish_all([('o/x', 'o%d' % number) for number in range(part * count, (part + 1) * count)]) if qos == 1 else \
            [token.wait_for_publish(DEADLINE_S) for token in
             [client.post('o/x', 'o%d' % number, 2) for number in range(part * count, (part + 1) * count)]]
        with Client(mosquitto.port) as other:
            tokens = [other.post('i/x', 'i%d' % number, qos) for number in range(part * count, (part + 1) * count)]
            server.kill()
            server.start()
            [token.wait_for_publish(DEADLINE_S) for token in tokens]
    watch.until_all({b'o%d' % number for number in range(3 * count)})

    def incoming():
        return collections.Counter(record['payload'] for record in server.journal('bus') if record['topic'] == 'i/x')
    wait_until(lambda: len(incoming()) == 3 * count, lambda: '%d have come' % len(incoming()), 3 * DEADLINE_S)
    wait_until(lambda: metric(server, 'lag') == 0, 'all are acknowledged')
    if qos == 2:
        assert set(watch.seen.values()) == {1} and set(incoming().values()) == {1}
        assert watch.order == [b'o%d' % number for number in range(3 * count)]
    watch.close()


def test_nothing_is_lost_when_the_broker_is_killed(spindle, broker, connect):  # noqa: F811
    mosquitto = broker(lines=['autosave_on_changes true', 'autosave_interval 1']).start()
    server = spindle(settings=rules(('out {} o/# qos 1', mosquitto), **{'bridge.inflight': '10'})).start()
    wait_connected(server, mosquitto, 1)
    with Client(mosquitto.port, client_id='keeps') as client:  # its queue is what the broker has promised to keep
        client.subscribe('o/#', qos=1)
    connect(server).publish_all([('o/x', '%d' % number) for number in range(100)])
    wait_sent(server, 100)
    mosquitto.kill()
    connect(server).publish_all([('o/x', '%d' % number) for number in range(100, 200)])
    assert metric(server, 'lag') >= 100
    mosquitto.start()
    watch = Watch(mosquitto.port, 'o/#')
    wait_sent(server, 200)
    watch.close()


def test_what_comes_from_one_broker_goes_to_another(spindle, broker, connect):  # noqa: F811
    first, second = broker().start(), broker().start()
    server = spindle(settings=rules(('both {} a/# qos 2', first), ('both {} a/# qos 2', second))).start()
    for each in (first, second):
        wait_connected(server, each, 2)
    watches = [Watch(port, 'a/#') for port in (first.port, second.port, server.port)]
    with Client(first.port) as one, Client(second.port) as other:
        for number in range(50):
            one.publish('a/x', 'one%d' % number, 2)
            other.publish('a/x', 'other%d' % number, 2)
    connect(server).publish('a/x', 'own', 2)
    expected = {b'%s%d' % (name, number) for name in (b'one', b'other') for number in range(50)} | {b'own'}
    for watch in watches:
        watch.until_all(expected)
    wait_until(lambda: metric(server, 'looped_total') == 102, lambda: 'every echo has come: %d' % metric(server, 'looped_total'))
    for watch in watches:
        assert [message.payload for message in take_rest(watch.client)] == [] and set(watch.seen.values()) == {1}
        watch.close()


def test_two_spindles(spindle, connect):
    """One of them has the rule; each message is once at each side."""
    far = spindle(settings=QUICK).start()
    near = spindle(settings=rules(('both {} a/# qos 2', far))).start()
    wait_connected(near, far, 2)
    watches = [Watch(server.port, 'a/#') for server in (near, far)]
    connect(near).publish('a/x', 'near', 2)
    connect(far).publish('a/x', 'far', 2)
    for watch in watches:
        watch.until_all({b'near', b'far'})
    wait_until(lambda: metric(near, 'looped_total') == 1 and metric(near, 'lag') == 0, 'the echo has come')
    assert [len(server.journal('bus')) for server in (near, far)] == [2, 2]
    for watch in watches:
        assert set(watch.seen.values()) == {1}
        watch.close()


def test_two_spindles_that_are_bridged_to_each_other_come_to_rest(spindle, connect):
    """Each has a rule to the other, which is one too many: a message comes more than once, and not for ever."""
    ports = [free_port(), free_port()]

    class At:
        def __init__(self, port):
            self.port = port
    servers = [spindle(settings={**rules(('both {} a/# qos 1', At(other))), 'bus.port': own}).start()
               for own, other in (ports, reversed(ports))]
    for server, other in zip(servers, reversed(servers)):
        wait_connected(server, other, 2)
    connect(servers[0]).publish('a/x', 'once', 1)

    def at_rest():
        return all(metric(server, 'lag') == 0 for server in servers) and sum(metric(server, 'looped_total') for server in servers) >= 3
    wait_until(at_rest, lambda: [metric(server, 'looped_total') for server in servers])
    counts = [len(server.journal('bus')) for server in servers]
    assert all(1 <= count <= 4 for count in counts), counts
    wait_until(lambda: any('bridge rules make a ring' in server.stderr() for server in servers),
               lambda: [(metric(server, 'looped_total'), server.journal('bus')) for server in servers])


def test_a_message_that_expires_is_not_sent(spindle, broker, connect):  # noqa: F811
    mosquitto = broker()
    server = spindle(settings=rules(('out {} a/#', mosquitto))).start()
    client = connect(server, version=V5)
    for payload, expiry_s in (('short', 1), ('long', 1000)):
        properties = Properties(PacketTypes.PUBLISH)
        properties.MessageExpiryInterval = expiry_s
        client.publish('a/x', payload, 1, properties=properties)
    time.sleep(1.5)  # its own clock has to pass
    mosquitto.start()
    watch = Client(mosquitto.port, version=V5)
    watch.subscribe('a/#')
    wait_until(lambda: metric(server, 'lag') == 0, 'both were looked at')
    assert metric(server, 'acknowledged_total') == 1
    assert all(message.properties.MessageExpiryInterval < 1000 for message in take_rest(watch))
    watch.close()


def check(**values):
    done = run_cli('check', *[part for key, value in values.items() for part in ('--set', '%s=%s' % (key.replace('__', '.'), value))],
                   check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize('rule,text', [
    ('up mqtt://h a/#', 'column 1: expected a direction'),
    ('in', 'column 3: expected a broker'),
    ('in mqtt://u:p@h a/#', 'column 4: the broker'),
    ('in mqtt://h', 'column 12: expected a topic filter'),
    ('in mqtt://h a/#/b', 'column 13: expected a topic filter'),
    ('in mqtt://h $share/g/a', 'column 13: expected a topic filter'),
    ('in mqtt://h a qos 3', 'column 19: expected a QoS'),
    ('in mqtt://h a local x', 'column 21: expected a prefix'),
    ('in mqtt://h a remote +/', 'column 22: expected a prefix'),
    ('in mqtt://h a local $x/', 'column 21: topics that begin with `$`'),
    ('in mqtt://h $SYS/#', 'give a local prefix'),
    ('in mqtt://h a into b', 'column 15: expected `qos`, `local` or `remote`'),
    ('out mqtt://localhost a', 'this Spindle itself'),
    ('out mqtt://h OPCPUBSUB/#', 'ingest.results'),
    ('out mqtt://h a/#,out mqtt://h a/+', 'rules 1 and 2 overlap'),
    ('in mqtt://h x remote a/,both mqtt://h +/x', 'rules 1 and 2 overlap'),
    ('in mqtt://h a,out mqtt://other@h b', 'another user'),
    (','.join('in mqtt://h%d a' % n for n in range(9)), 'more than 8'),
])
def test_rules_that_are_none_are_refused(rule, text):
    code, output = check(bridge__rules=rule)
    assert code == 2 and text in output, output


def test_rules_stand_with_their_place(tmp_path):
    path = tmp_path / 'spindle.yaml'
    path.write_text('bridge:\n  rules:\n    - "in mqtt://h a/#"\n    - "out mqtt://h b qos 7"\n')
    done = run_cli('check', '--config', path, check=False)
    assert done.returncode == 2 and 'rule 2' in done.stdout and 'column 20' in done.stdout and 'spindle.yaml:' in done.stdout, done.stdout


def test_echoes_need_mqtt_5(spindle, broker, connect):  # noqa: F811
    code, output = check(bridge__rules='both mqtt://h a/#', ingest__version='3.1.1')
    assert code == 2 and 'could not be known again' in output, output
    assert check(bridge__rules='in mqtt://h a/#,out mqtt://h b/#', ingest__version='3.1.1')[0] == 0
    mosquitto = broker().start()
    server = spindle(settings=rules(('in {} # remote to/ local got/', mosquitto), ('out {} # remote from/ local say/', mosquitto),
                                    **{'ingest.version': '3.1.1'})).start()
    wait_connected(server, mosquitto, 2)
    here, there = Watch(server.port, 'got/#', version=V311), Watch(mosquitto.port, 'from/#', version=V311)
    connect(server).publish('say/x', 'out', 1)
    with Client(mosquitto.port) as client:
        client.publish('to/x', 'in', 1)
    assert here.until(b'in').seen == {('got/x', b'in'): 1}
    assert there.until(b'out').seen == {('from/x', b'out'): 1}
    here.close()
    there.close()


def test_a_broker_without_mqtt_5_is_not_given_an_echo(spindle):
    """It turns out to be one when it is connected to."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen(64)

        def answer(peer):
            with peer:
                version = peer.recv(4096)[8]
                peer.sendall(b'\x20\x02\x00\x00' if version == 4 else b'\x20\x02\x00\x01')
                while version == 4 and peer.recv(4096):
                    pass

        def serve():
            with contextlib.suppress(OSError):  # the test is over
                while True:
                    threading.Thread(target=answer, args=listener.accept()[:1], daemon=True).start()
        threading.Thread(target=serve, daemon=True).start()
        server = spindle(settings={**QUICK, 'bridge.rules': 'both mqtt://127.0.0.1:%d a/#' % listener.getsockname()[1]}).start()
        wait_until(lambda: 'it speaks only MQTT 3.1.1' in server.stderr(), 'it is told')
        server.stop()


def test_rules_stand_beside_the_group(spindle, broker, connect):  # noqa: F811
    """The same broker in ingest.brokers and in a rule; and results go out as before."""
    mosquitto = broker().start()
    server = spindle(settings=rules(('out {} o/#', mosquitto), **{'ingest.brokers': 'mqtt://127.0.0.1:%d' % mosquitto.port,
                                                                   'ingest.connections': '2', 'ingest.filters': 'o/#'})).start()
    wait_connected(server, mosquitto, 4)
    watch = Watch(mosquitto.port, 'o/#')
    with Client(mosquitto.port) as client:
        client.publish('o/x', 'from there', 1)
    wait_until(lambda: server.metrics().streams()['bus']['accepted'] == 1, 'it has come')
    wait_until(lambda: metric(server, 'lag') == 0, 'it was looked at')
    watch.until(b'from there')
    assert metric(server, 'acknowledged_total') == 0  # it came from there
    watch.close()


def test_what_is_not_sent_yet_is_not_removed(spindle, broker, connect):  # noqa: F811
    """And a rule that never has anything to send holds nothing. (What the last two checkpoints of ten seconds need stays besides.)"""
    away, idle = broker(), broker().start()
    server = spindle(settings=rules(('out {} a/#', away), ('out {} never/#', idle),
                                    **{'journal.segment_size': '1MiB', 'journal.retention_size': '1MiB'})).start()
    client = connect(server)
    while server.metrics().get_sum('spindle_journal_segments', stream='bus') < 4:
        client.publish_all([('a/x', bytes(20000)) for _ in range(60)])
    count = server.metrics().streams()['bus']['accepted']
    assert metric(server, 'lag', away) == count and server.metrics().get_sum('spindle_journal_held_bytes', stream='bus') > 0
    away.start()
    wait_sent(server, count)
    wait_until(lambda: server.metrics().get_sum('spindle_journal_held_bytes', stream='bus') == 0, 'they may go now', 4 * DEADLINE_S)
    assert metric(server, 'acknowledged_total', idle) == 0


@pytest.mark.skipif(SANITIZED, reason='sanitizers have threads of their own')
def test_nothing_runs_while_there_is_nothing_to_bridge(spindle, broker, connect):  # noqa: F811
    mosquitto = broker().start()
    server = spindle(settings=rules(('both {} a/# local l/', mosquitto))).start()
    wait_connected(server, mosquitto, 2)
    client = connect(server)
    client.publish('l/a/x', 'once', 1)
    client.publish('other', 'passed over', 1)
    wait_until(lambda: metric(server, 'looped_total') == 1, 'the echo has come')
    client.close()
    time.sleep(0.5)
    before = switches(server)
    time.sleep(3)
    awake = {thread: count - before.get(thread, 0) for thread, count in switches(server).items()}
    assert max(awake.values()) < 20, awake


def test_the_window_is_kept(spindle, connect):
    """At a broker that acknowledges nothing."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        server = spindle(settings={**QUICK, 'bridge.rules': 'out mqtt://127.0.0.1:%d a/#' % port, 'bridge.inflight': '3'}).start()
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(4096)[0] == 0x10
            peer.sendall(b'\x20\x03\x00\x00\x00')
            connect(server).publish_all([('a/x', 'marked-%d' % number) for number in range(10)])
            wait_until(lambda: metric(server, 'inflight') == 3, 'three are on their way')
            peer.settimeout(DEADLINE_S)
            sent = b''
            while sent.count(b'marked-') < 3:
                sent += peer.recv(4096)
            peer.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sent += peer.recv(4096)
            assert sent.count(b'marked-') == 3 and metric(server, 'lag') == 10


def test_what_was_published_before_a_rule_is_not_sent_later(spindle, broker, connect):  # noqa: F811
    mosquitto = broker().start()
    server = spindle(settings=QUICK).start()
    connect(server).publish('a/x', 'before')
    server.stop()
    server.settings.update(rules(('out {} a/#', mosquitto)))
    watch = Watch(mosquitto.port, 'a/#')
    server.start()
    connect(server).publish('a/x', 'behind')
    assert watch.until(b'behind').order == [b'behind']
    watch.close()


def test_rules_go_by_tls_too(spindle, broker, connect, tmp_path):  # noqa: F811
    authority, port = Authority(tmp_path), free_port()
    certificate, key = authority.issue_server()
    mosquitto = broker(lines=['listener %d 127.0.0.1' % port, 'cafile %s' % authority.path, 'certfile %s' % certificate, 'keyfile %s' % key])
    mosquitto.start()
    server = spindle(settings={**QUICK, 'bridge.rules': 'both mqtts://localhost:%d a/# qos 2' % port, 'ingest.tls.ca': authority.path}).start()
    watch = Watch(mosquitto.port, 'a/#')
    connect(server).publish_all([('a/x', bytes(100000) + b'%d' % number) for number in range(30)])
    wait_sent(server, 30)
    wait_until(lambda: metric(server, 'looped_total') == 30, 'the echo has come')
    assert len(server.journal('bus')) == 30
    watch.close()


def test_a_broker_that_demands_a_password(spindle, broker):  # noqa: F811
    mosquitto = broker(users={'spin': 'secret'}).start()
    values = rules(('in {} a/#', mosquitto), **{'bridge.password': 'secret'})
    values['bridge.rules'] = values['bridge.rules'].replace('mqtt://', 'mqtt://spin@')
    server = spindle(settings=values).start()
    wait_connected(server, mosquitto, 1)
    with Client(mosquitto.port, user='spin', password='secret') as client:
        client.publish('a/x', 'in', 1)
    wait_until(lambda: server.metrics().streams()['bus']['accepted'] == 1, 'it has come')
