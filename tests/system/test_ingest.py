"""Messages from a broker that exists already: a real Mosquitto, which gets its acknowledgements when the messages are durable here."""
import collections
import os
import signal
import subprocess
import threading
import time

import pytest

from client import V5, Client
from mosquitto import PROGRAM, Mosquitto
from packets import Packets
from spindle import DEADLINE_S, SANITIZED, free_port, json_lines, run_cli, switches, wait_until

pytestmark = pytest.mark.skipif(PROGRAM is None, reason='Mosquitto is not installed')

QUICK = {'ingest.backoff_first_s': '0.05', 'ingest.backoff_last_s': '0.2', 'ingest.breaker_open_s': '0.2', 'ingest.filters': 'site/#'}


@pytest.fixture
def broker(tmp_path):
    """broker(users=None, lines=()) makes a Mosquitto that is not started yet."""
    brokers = []

    def make(users=None, lines=()):
        brokers.append(Mosquitto(tmp_path / ('broker%d' % len(brokers)), users, lines))
        return brokers[-1]
    yield make
    for each in brokers:
        each.kill()


def settings(*brokers, **more):
    urls = ['mqtt://%s127.0.0.1:%d' % (getattr(b, 'user', ''), b.port) for b in brokers]
    return {**QUICK, 'ingest.brokers': ','.join(urls), **{'ingest.' + key: str(value) for key, value in more.items()}}


def connections(server):
    return {dict(labels)['broker'].rsplit(':', 1)[1]: value for (name, labels), value in server.metrics().items()
            if name == 'spindle_ingest_connections'}


def wait_connected(server, broker, count):
    wait_until(lambda: connections(server).get(str(broker.port)) == count, lambda: '%d connections: %s' % (count, connections(server)))


def wait_accepted(server, count, stream='bus'):
    def accepted():
        return server.metrics().streams()[stream]['accepted'] >= count
    wait_until(accepted, lambda: '%d messages: %s' % (count, server.metrics().streams()[stream]), 3 * DEADLINE_S)


def payloads(server):
    """How often each payload is in the stream `bus`."""
    return collections.Counter(record['payload'].decode() for record in server.journal('bus'))


def wait_payloads(server, expected):
    """As long as something comes the rest may take its time: a Mosquitto that saves with every change waits for the disk each time."""
    missing = expected
    while missing:
        before = missing

        def fewer():
            nonlocal missing
            missing = expected - set(payloads(server))
            return len(missing) < len(before)
        wait_until(fewer, lambda: '%d of %d did not come: %s; connections: %s; acknowledged: %s' % (
            len(missing), len(expected), sorted(missing)[:20], connections(server),
            server.metrics().get_sum('spindle_ingest_acknowledged_total')), 2 * DEADLINE_S)


def probe(server):
    import json
    status, _, text = server.http('/readyz')
    return status, {each['name']: each['text'] for each in json.loads(text)['probes']}['ingest']


class Publisher(threading.Thread):
    """Publishes numbered messages with a window, over any number of connections to the broker, until each is acknowledged."""

    def __init__(self, port, count, qos, prefix='m'):
        super().__init__(daemon=True)
        self.port, self.count, self.qos, self.prefix = port, count, qos, prefix
        self.progress = 0
        self.failure = None
        self.start()

    def run(self):
        try:
            with Client(self.port) as client:
                tokens = collections.deque()
                for number in range(self.count):
                    tokens.append(client.post('site/tool%d' % (number % 7), '%s%d' % (self.prefix, number), self.qos))
                    while len(tokens) >= 40:
                        tokens.popleft().wait_for_publish(DEADLINE_S)
                        self.progress += 1
                for token in tokens:
                    token.wait_for_publish(DEADLINE_S)
                    assert token.is_published()
                    self.progress += 1
        except Exception as failure:  # told by finish()
            self.failure = failure

    def finish(self):
        self.join(3 * DEADLINE_S)
        assert not self.is_alive() and self.failure is None, self.failure


@pytest.mark.parametrize('version,shared,subscribers', [('auto', 'auto', 1), ('auto', 'always', 10), ('3.1.1', 'auto', 1),
                                                        ('3.1.1', 'always', 10), ('5.0', 'never', 1)])
def test_each_message_comes_once_over_ten_connections(spindle, broker, version, shared, subscribers):
    mosquitto = broker().start()
    server = spindle(settings=settings(mosquitto, version=version, shared=shared, qos=2, instance='one', results='false')).start()
    wait_connected(server, mosquitto, 10)
    subscribed = '$share/spindle-one/site/# (QoS 2)' if subscribers > 1 else '\tsite/# (QoS 2)'
    wait_until(lambda: mosquitto.log().count(subscribed) == subscribers, 'all have subscribed')
    assert {'spindle-one-%d' % n for n in range(10)} <= set(mosquitto.log().split())
    with Client(mosquitto.port) as client:
        for qos in range(3):
            for number in range(200):
                client.post('site/%d' % (number % 5), 'q%d-%d' % (qos, number), qos)
        client.publish('site/end', 'end', 2)
        client.publish('elsewhere', 'not asked for', 2)
    wait_until(lambda: server.metrics().get_sum('spindle_ingest_messages_received_total') == 601, 'all have arrived')
    metrics = server.metrics()
    assert [metrics.get_sum('spindle_ingest_messages_received_total', qos=str(qos)) for qos in range(3)] == [200, 200, 201]
    wait_until(lambda: server.metrics().get_sum('spindle_ingest_acknowledged_total') == 401, 'all are acknowledged')
    server.stop()
    counts = payloads(server)
    assert len(counts) == 601 and set(counts.values()) == {1}


def test_what_comes_is_on_the_own_bus(spindle, broker, connect):
    mosquitto = broker().start()
    server = spindle(settings=settings(mosquitto)).start()
    wait_connected(server, mosquitto, 11)
    subscriber = connect(server)
    subscriber.subscribe('site/#')
    with Client(mosquitto.port, version=V5) as client:
        client.publish('site/a', b'\x00\xff binary')
    message, = subscriber.take()
    assert (message.topic, message.payload) == ('site/a', b'\x00\xff binary')


def test_filters_are_shared_out(spindle, broker):
    """Without shared subscriptions each filter has one connection, and what another covers is not subscribed to."""
    mosquitto = broker().start()
    server = spindle(settings=settings(mosquitto, shared='never', connections=3, filters='site/a/#,site/b/+,site/c,site/a/x,site/d', qos=1,
                                       results='false')).start()
    wait_connected(server, mosquitto, 3)
    with Client(mosquitto.port) as client:
        for topic in ('site/a/x', 'site/b/1', 'site/c', 'site/d', 'site/e'):
            client.publish(topic, topic)
    wait_accepted(server, 4)
    server.stop()
    assert payloads(server) == {'site/a/x': 1, 'site/b/1': 1, 'site/c': 1, 'site/d': 1}


def test_filters_that_overlap_and_urls_that_are_none_are_refused(spindle):
    for values, text in (({'ingest.filters': 'a/+,+/b'}, 'overlap'), ({'ingest.filters': 'a/#/b'}, 'not a topic filter'),
                         ({'ingest.brokers': 'http://x'}, 'mqtt://'), ({'ingest.brokers': 'mqtt://u:p@h'}, 'ingest.password'),
                         ({'ingest.brokers': 'h:0'}, 'port'), ({'ingest.filters': '$share/g/a'}, 'ingest.shared')):
        arguments = [part for key, value in values.items() for part in ('--set', '%s=%s' % (key, value))]
        done = run_cli('check', *arguments, check=False)
        assert done.returncode == 2 and text in done.stdout, done.stdout


def test_a_broker_that_is_away_is_waited_for(spindle, broker):
    mosquitto = broker()
    server = spindle(settings=settings(mosquitto, breaker_failures=3)).start()
    wait_until(lambda: server.metrics().get_sum('spindle_ingest_circuit_breaker', state='open') == 1, 'the circuit breaker opens')
    status, text = probe(server)
    assert status == 503 and 'connection refused' in text
    assert 'cannot be used' in server.stderr()
    before = server.metrics().get_sum('spindle_ingest_failures_total')
    mosquitto.start()
    wait_connected(server, mosquitto, 11)
    assert probe(server)[0] == 200
    assert server.metrics().get_sum('spindle_ingest_circuit_breaker', state='closed') == 1
    assert before <= 20  # ten connections, and not ten times three attempts
    with Client(mosquitto.port) as client:
        client.publish('site/a', 'after all')
    wait_accepted(server, 1)


def test_a_name_that_does_not_resolve_is_told(spindle):
    server = spindle(settings={**QUICK, 'ingest.brokers': 'mqtt://no.such.host.invalid'}).start()
    wait_until(lambda: 'resolved' in probe(server)[1], 'it is told')


def test_a_wrong_password_is_told_and_not_tried_in_vain(spindle, broker):
    mosquitto = broker(users={'spin': 'right'}).start()
    mosquitto.user = 'spin@'
    server = spindle(settings=settings(mosquitto, password='wrong', breaker_open_s=60)).start()
    wait_until(lambda: 'password are wrong' in server.stderr() or 'not allowed' in server.stderr(), 'it is told')
    assert server.metrics().get_sum('spindle_ingest_circuit_breaker', state='open') == 1
    assert server.metrics().get_sum('spindle_ingest_failures_total') == 1
    assert mosquitto.log().count('as spindle') <= 1
    server.stop()
    good = spindle(settings=settings(mosquitto, password='right')).start()
    wait_connected(good, mosquitto, 11)


@pytest.mark.parametrize('qos', [1, 2])
def test_nothing_is_lost_when_spindle_is_killed_under_load(spindle, broker, qos):
    mosquitto = broker().start()
    count = 3000
    server = spindle(settings=settings(mosquitto, qos=qos, receive_maximum=30, results='false')).start()
    wait_connected(server, mosquitto, 10)
    publisher = Publisher(mosquitto.port, count, qos)
    for part in range(1, 5):
        wait_until(lambda: publisher.progress >= count * part // 5, lambda: 'progress %d' % publisher.progress, 3 * DEADLINE_S)
        server.kill()
        server.start()
        wait_connected(server, mosquitto, 10)  # killed before, this Mosquitto would send again what it had sent PUBREL for
    publisher.finish()
    wait_payloads(server, {'m%d' % n for n in range(count)})
    server.stop()
    counts = payloads(server)
    if qos == 2:
        assert {payload: times for payload, times in counts.items() if times > 1} == {}


SAVING = ['autosave_on_changes true', 'autosave_interval 1']


@pytest.mark.parametrize('qos', [1, 2])
def test_nothing_is_lost_when_the_broker_is_killed(spindle, broker, qos):
    """Its publisher has seen that everything was taken, and it saves what it has; but it is killed in the middle of delivering. With QoS 2
    hardly anything comes twice, though its state is older than that of Spindle."""
    mosquitto = broker(lines=SAVING).start()
    server = spindle(settings=settings(mosquitto, qos=qos, results='false', receive_maximum=20)).start()
    wait_connected(server, mosquitto, 10)
    expected = set()
    for part in range(4):
        server.stop()  # so that all of it waits at the broker
        with Client(mosquitto.port) as client:
            client.publish_all([('site/a', 'p%d-%d' % (part, number)) for number in range(400)]) if qos == 1 else \
                [token.wait_for_publish(DEADLINE_S) for token in
                 [client.post('site/a', 'p%d-%d' % (part, number), 2) for number in range(400)]]
        expected |= {'p%d-%d' % (part, number) for number in range(400)}
        mosquitto.stop()
        mosquitto.start()
        server.start()
        wait_until(lambda: server.metrics().get_sum('spindle_ingest_messages_received_total') >= 20, 'some have come')
        mosquitto.kill()
        saved = {payload.decode() for payload in mosquitto.saved(rb'p%d-\d+' % part)}
        assert expected <= saved | set(payloads(server)), 'what it was told to be durable here it may forget, and nothing else'
        mosquitto.start()
        wait_payloads(server, expected)
    counts = payloads(server)
    if qos == 2:  # what it has forgotten to have sent at all it sends as new
        assert sum(times - 1 for times in counts.values()) <= 4 * 20, counts


def test_what_is_published_before_spindle_is_back_comes(spindle, broker):
    """A broker that was killed serves its publishers again before Spindle has noticed."""
    mosquitto = broker(lines=SAVING).start()
    server = spindle(settings=settings(mosquitto, qos=1, results='false')).start()
    wait_connected(server, mosquitto, 10)
    with Client(mosquitto.port) as client:
        client.publish('site/a', 'before')
    wait_accepted(server, 1)
    server.signal(signal.SIGSTOP)
    mosquitto.kill()
    mosquitto.start()
    with Client(mosquitto.port) as client:
        client.publish('site/a', 'meanwhile')
    server.signal(signal.SIGCONT)
    wait_payloads(server, {'before', 'meanwhile'})


def test_the_next_broker_is_used_and_the_first_again(spindle, broker):
    first, second = broker().start(), broker().start()
    server = spindle(settings=settings(first, second, qos=2, connections=3, breaker_failures=2, results='false')).start()
    wait_connected(server, first, 3)
    assert connections(server)[str(second.port)] == 0
    with Client(first.port) as client:
        client.publish('site/a', 'at the first', 2)
    wait_accepted(server, 1)
    first.stop()
    wait_connected(server, second, 3)
    with Client(second.port) as client:
        client.publish('site/a', 'at the second', 2)
    wait_accepted(server, 2)
    first.start()
    wait_connected(server, first, 3)
    wait_connected(server, second, 0)
    with Client(first.port) as client:
        client.publish('site/a', 'back again', 2)
    wait_accepted(server, 3)
    assert 'is used from now on' in server.stderr()
    server.stop()
    assert payloads(server) == {'at the first': 1, 'at the second': 1, 'back again': 1}


def test_the_broker_is_not_read_from_while_the_disk_is_behind(spindle, broker, tmp_path):
    folder = tmp_path / 'small'
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=48m', 'tmpfs', str(folder)],
                                           stderr=subprocess.DEVNULL).returncode:
        pytest.skip('mounting a small file system needs root')
    try:
        mosquitto = broker(lines=['max_queued_bytes 0']).start()
        server = spindle(settings={**settings(mosquitto, qos=1, connections=2, results='false', keep_alive_s=5),
                                   'journal.segment_size': '1MiB', 'journal.backlog_size_max': '1MiB', 'data.dir': str(folder / 'data')})
        server.start()
        wait_connected(server, mosquitto, 2)
        ballast = folder / 'ballast'
        with open(ballast, 'wb') as file:
            free = os.statvfs(folder)
            try:
                for _ in range(free.f_bavail * free.f_frsize // 65536):
                    file.write(bytes(65536))
                file.flush()
            except OSError:
                pass
        with Client(mosquitto.port) as client:
            for number in range(100):
                client.post('site/a', b'%04d' % number + bytes(50000), 1)
            client.publish('other', '', 1)
        wait_until(lambda: server.metrics().get_sum('spindle_ingest_pauses_total') >= 1, 'reading is held back')
        held = server.metrics().get_sum('spindle_ingest_messages_received_total')
        assert held < 100
        pings = mosquitto.log().count('PINGREQ from spindle')
        wait_until(lambda: mosquitto.log().count('PINGREQ from spindle') > pings + 1, 'it is pinged all the same')
        wait_connected(server, mosquitto, 2)
        ballast.unlink()
        wait_accepted(server, 100)
        server.stop()
    finally:
        subprocess.run(['umount', '-l', str(folder)], check=True)


def test_a_slow_subscriber_here_holds_the_broker_back(spindle, broker):
    """As it would a client that publishes here: what it is to get waits at the broker, and it is not overrun."""
    mosquitto = broker(lines=['max_queued_bytes 0']).start()
    server = spindle(settings={**settings(mosquitto, qos=1, connections=2, results='false'), 'bus.outgoing_size_max': '64KiB'}).start()
    wait_connected(server, mosquitto, 2)
    count = 400
    with Packets(server, b'slow') as subscriber:
        subscriber.subscribe(b'site/#', qos=1)
        with Client(mosquitto.port) as client:
            client.publish_all([('site/a', b'%04d' % number + bytes(50000)) for number in range(count)])
        wait_until(lambda: server.metrics().get_sum('spindle_ingest_pauses_total') >= 1, 'reading is held back')
        assert server.metrics().get_sum('spindle_ingest_messages_received_total') < count
        assert [int(subscriber.message().payload[:4]) for _ in range(count)] == list(range(count))
    assert server.metrics().get_sum('spindle_bus_disconnects_total', reason='slow') == 0
    wait_until(lambda: server.metrics().get_sum('spindle_ingest_acknowledged_total') == count, 'all are acknowledged')


def test_a_broker_is_not_held_back_for_ever(spindle, broker):
    """Who takes nothing is disconnected, and the others get what waited."""
    mosquitto = broker(lines=['max_queued_bytes 0']).start()
    server = spindle(settings={**settings(mosquitto, qos=1, connections=2, results='false'), 'bus.outgoing_size_max': '64KiB',
                               'bus.stall_timeout_s': '1'}).start()
    wait_connected(server, mosquitto, 2)
    count = 400
    with Packets(server, b'slow') as subscriber:
        subscriber.subscribe(b'site/#', qos=1)
        with Client(mosquitto.port) as client:
            client.publish_all([('site/a', b'%04d' % number + bytes(50000)) for number in range(count)])
        wait_until(lambda: server.metrics().get_sum('spindle_ingest_acknowledged_total') == count, 'all are acknowledged')
        assert server.metrics().get_sum('spindle_bus_disconnects_total', reason='slow') == 1


def test_mosquittos_own_client_and_a_large_message(spindle, broker, tmp_path):
    mosquitto = broker().start()
    server = spindle(settings=settings(mosquitto, qos=2, results='false')).start()
    wait_connected(server, mosquitto, 10)
    large = tmp_path / 'large'
    large.write_bytes(os.urandom(3 << 20))
    subprocess.run(['mosquitto_pub', '-p', str(mosquitto.port), '-t', 'site/large', '-q', '2', '-f', str(large)], check=True)
    wait_accepted(server, 1)
    server.stop()
    record, = json_lines(run_cli('journal', 'cat', '--data-dir', server.data_dir, '--stream', 'bus', '--json').stdout)
    import base64
    assert base64.b64decode(record['payload_base64']) == large.read_bytes()


def test_a_broker_of_the_old_configuration_is_joined(spindle, broker, tmp_path):
    """mqtt.broker of mqtt_conf.yaml, with its drilling topics; user and password count when both are set."""
    mosquitto = broker(users={'listener': 'secret'}).start()
    server = spindle(settings={'mqtt.broker.host': '127.0.0.1', 'mqtt.broker.port': str(mosquitto.port),
                               'mqtt.broker.username': 'listener', 'mqtt.broker.password': 'secret'}).start()
    wait_connected(server, mosquitto, 11)
    kinds = ('ResultManagement', 'ResultManagement/Trace', 'AssetManagement/Heads')
    wait_until(lambda: all('\tOPCPUBSUB/+/+/%s (QoS 1)' % kind in mosquitto.log() for kind in kinds), 'all is subscribed to')


def test_a_port_that_never_answers_is_given_up(spindle):
    import socket
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', free_port()))
        silent.listen(64)
        server = spindle(settings={**QUICK, 'ingest.brokers': 'mqtt://127.0.0.1:%d' % silent.getsockname()[1],
                                   'ingest.connect_timeout_s': '0.3'}).start()
        wait_until(lambda: 'did not answer CONNECT' in server.stderr(), 'it is told')


@pytest.mark.skipif(SANITIZED, reason='sanitizers have threads of their own')
def test_nothing_runs_while_a_broker_has_nothing_to_say(spindle, broker):
    """Longer than what lies between two checkpoints."""
    mosquitto = broker()
    mosquitto.start()
    server = spindle(settings=settings(mosquitto, connections=2, results='false')).start()
    wait_connected(server, mosquitto, 2)
    time.sleep(11)
    before = switches(server)
    time.sleep(3)
    awake = {thread: count - before.get(thread, 0) for thread, count in switches(server).items()}
    assert max(awake.values()) < 10, awake
