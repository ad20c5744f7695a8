"""Results at a broker that exists already: they come out there, wait while it is away, and survive that either side is killed."""
import collections
import json

import pytest

from client import V5, Client
from holes import ANSWERS, ROOT, Hole
from mosquitto import PROGRAM, Mosquitto
from spindle import DEADLINE_S, wait_until

pytestmark = pytest.mark.skipif(PROGRAM is None, reason='Mosquitto is not installed')

QUICK = {'ingest.backoff_first_s': '0.05', 'ingest.backoff_last_s': '0.2', 'ingest.breaker_open_s': '0.2', 'pipeline.grace_s': '0'}


@pytest.fixture
def broker(tmp_path):
    brokers = []

    def make(lines=()):
        brokers.append(Mosquitto(tmp_path / ('broker%d' % len(brokers)), lines=lines))
        return brokers[-1]
    yield make
    for each in brokers:
        each.kill()


def settings(*brokers, **more):
    urls = ','.join('mqtt://127.0.0.1:%d' % broker.port for broker in brokers)
    return {**QUICK, 'ingest.brokers': urls, **{'ingest.' + key: str(value) for key, value in more.items()}}


def connected(server, count):
    wait_until(lambda: server.metrics().get_sum('spindle_ingest_connections') == count, '%d connections' % count)


def lag(server):
    return server.metrics().get_sum('spindle_ingest_results_lag')


class Receiver:

    def __init__(self, port):
        self.client = Client(port)
        self.client.subscribe(*ANSWERS, qos=2)
        self.answers = collections.Counter()
        self.order = []

    def take(self, count, deadline_s=3 * DEADLINE_S):
        """Takes answers until there are `count` different ones."""
        while len(self.answers) < count:
            message = self.client.inbox.get(timeout=deadline_s)
            key = (message.topic, json.loads(message.payload)['ResultId'])
            self.answers[key] += 1
            self.order.append(key)

    def take_rest(self):
        """Repetitions that are there already."""
        while not self.client.inbox.empty():
            message = self.client.inbox.get()
            self.answers[message.topic, json.loads(message.payload)['ResultId']] += 1


def publish(port, holes):
    with Client(port) as client:
        client.publish_all([message for hole in holes for message in hole.messages()])


@pytest.mark.parametrize('version', ['auto', '3.1.1'])
def test_results_come_out_and_are_not_taken_in_again(spindle, broker, version):
    mosquitto = broker().start()
    server = spindle(settings=settings(mosquitto, version=version, filters=ROOT + '/+/+/#')).start()
    connected(server, 11)
    receiver = Receiver(mosquitto.port)
    holes = [Hole() for _ in range(20)]
    publish(mosquitto.port, holes)
    receiver.take(40)
    assert set(receiver.answers.values()) == {1}
    wait_until(lambda: lag(server) == 0, 'all are acknowledged')
    wait_until(lambda: server.metrics().get_sum('spindle_ingest_skipped_total') == 40, 'they came back and were not kept')
    metrics = server.wait_settled(60)
    assert metrics.get_sum('spindle_ingest_results_acknowledged_total') == 40
    assert metrics.streams()['ingest']['accepted'] == 60
    receiver.client.close()


def test_a_result_says_what_it_is_in_mqtt_5(spindle, broker):
    mosquitto = broker().start()
    server = spindle(settings=settings(mosquitto)).start()
    connected(server, 11)
    with Client(mosquitto.port, version=V5) as client:
        client.subscribe(*ANSWERS)
        publish(mosquitto.port, [Hole()])
        names = [name for name, _ in client.take()[0].properties.UserProperty]
        assert 'message-id' in names


def test_results_wait_while_the_broker_is_away(spindle, broker, connect):
    """The pipeline goes on: tools publish to Spindle itself."""
    mosquitto = broker()
    server = spindle(settings=settings(mosquitto, results_qos=2)).start()
    holes = [Hole() for _ in range(150)]
    connect(server).publish_all([message for hole in holes for message in hole.messages()])
    server.wait_settled(450)
    assert lag(server) == 300
    server.stop()
    server.start()
    assert lag(server) == 300
    mosquitto.start()
    wait_until(lambda: lag(server) == 0, 'all are acknowledged')
    assert server.metrics().get_sum('spindle_ingest_results_acknowledged_total') == 300


def test_what_was_published_before_brokers_were_named_is_not_published_later(spindle, broker, connect):
    mosquitto = broker().start()
    server = spindle(settings=QUICK).start()
    connect(server).publish_all(Hole().messages())
    server.wait_settled(3)
    server.stop()
    server.settings.update(settings(mosquitto))
    receiver = Receiver(mosquitto.port)
    server.start()
    connected(server, 11)
    hole = Hole()
    publish(mosquitto.port, [hole])
    receiver.take(2)
    assert {result for _, result in receiver.answers} == {hole.result_id}
    receiver.client.close()


@pytest.mark.parametrize('qos', [1, 2])
def test_no_result_is_lost_when_spindle_is_killed(spindle, broker, qos):
    """With QoS 2 none comes twice. Results of one tool come in their order."""
    mosquitto = broker().start()
    server = spindle(settings=settings(mosquitto, qos=2, results_qos=qos, results_inflight=20)).start()
    receiver = Receiver(mosquitto.port)
    count, taken = 240, 0
    holes = [Hole(tool='tool%d' % (number % 3)) for number in range(count)]
    for part in range(4):
        publish(mosquitto.port, holes[part * count // 4:(part + 1) * count // 4])
        taken += count // 8
        receiver.take(taken)
        server.kill()
        server.start()
    receiver.take(2 * count)
    wait_until(lambda: lag(server) == 0, 'all are acknowledged')
    receiver.take_rest()
    receiver.client.close()
    assert len(receiver.answers) == 2 * count
    if qos == 2:
        assert set(receiver.answers.values()) == {1}
    first_times = list(dict.fromkeys(receiver.order))
    stream = [(record['topic'], json.loads(record['payload'])['ResultId']) for record in server.journal('results')]
    for topic in {topic for topic, _ in first_times}:
        assert [result for where, result in first_times if where == topic] == [result for where, result in stream if where == topic]


def test_results_go_to_the_next_broker(spindle, broker, connect):
    first, second = broker().start(), broker().start()
    server = spindle(settings=settings(first, second, connections=2, breaker_failures=1, results_qos=2)).start()
    connected(server, 3)
    at_first = Receiver(first.port)
    connect(server).publish_all(Hole().messages())
    at_first.take(2)
    wait_until(lambda: lag(server) == 0, 'all are acknowledged')
    at_second = Receiver(second.port)
    first.kill()
    connect(server).publish_all(Hole().messages())
    at_second.take(2)
    first.start()
    again = Receiver(first.port)
    wait_until(lambda: server.metrics().get_sum('spindle_ingest_connections', broker='127.0.0.1:%d' % first.port) == 3, 'it is back')
    connect(server).publish_all(Hole().messages())
    again.take(2)
    wait_until(lambda: lag(server) == 0, 'all are acknowledged')
    assert all(set(receiver.answers.values()) == {1} for receiver in (at_first, at_second, again))
    for receiver in (at_first, at_second, again):
        receiver.client.close()


def test_retention_keeps_what_the_broker_has_not(spindle, broker, connect):
    mosquitto = broker()
    small = {'journal.segment_size': '1MiB', 'journal.retention_size': '1MiB'}
    server = spindle(settings={**settings(mosquitto), **small, 'ingest.backoff_last_s': '0.5'}).start()
    client = connect(server)
    holes = 0
    while server.metrics().get_sum('spindle_journal_segments', stream='results') < 4:
        client.publish_all([message for _ in range(400) for message in Hole().messages(('ResultManagement', 'ResultManagement/Trace'))])
        holes += 400
        server.wait_settled(2 * holes)
    assert lag(server) == 2 * holes
    assert server.metrics().get_sum('spindle_journal_held_bytes', stream='results') > 0
    mosquitto.start()
    wait_until(lambda: lag(server) == 0, lambda: 'all are acknowledged; %d are not' % lag(server), 3 * DEADLINE_S)
    wait_until(lambda: server.metrics().get_sum('spindle_journal_held_bytes', stream='results') == 0, 'they may go now')
