"""Clients of others, as their users use them: paho in both versions, gmqtt and mqtt.js, which have codecs of their own, and mosquitto_sub."""
import asyncio
import json
import queue
import shutil
import subprocess

import gmqtt
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from client import V5, V311
from spindle import DEADLINE_S, ROOT, wait_until

MQTT_JS = ROOT / 'build' / 'node' / 'node_modules' / 'mqtt'
VERSIONS = pytest.mark.parametrize('version', [V311, V5], ids=['3.1.1', '5.0'])


@pytest.fixture(scope='module')
def server(shared_server):
    return shared_server({'bus.response_information': 'answers'})


@pytest.fixture
def own(request):
    return ''.join(c if c.isalnum() else '-' for c in request.node.name)


# ---- paho ----

@VERSIONS
def test_paho_gets_its_own_messages_of_every_quality(server, connect, own, version):
    client = connect(server, version=version)
    assert client.subscribe(own + '/#', qos=2) == [2]
    for qos in (0, 1, 2):
        client.publish(own + '/%d' % qos, b'%d' % qos, qos=qos)
    assert [(m.topic, m.payload, m.qos, m.retain, m.dup) for m in sorted(client.take(3), key=lambda m: m.topic)] == [
        (own + '/%d' % qos, b'%d' % qos, qos, False, False) for qos in (0, 1, 2)]
    client.unsubscribe(own + '/#')
    client.publish(own + '/1', b'')
    assert client.take_rest() == []


def test_paho_with_options_and_properties_of_5_0(server, connect, own):
    client, other = connect(server, version=V5), connect(server, version=V5)
    told = Properties(PacketTypes.SUBSCRIBE)
    told.SubscriptionIdentifier = 12
    acknowledged = queue.Queue()
    client.paho.on_subscribe = lambda c, data, identifier, reasons, properties: acknowledged.put(reasons)
    client.paho.subscribe(own, options=SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True), properties=told)
    assert [code.value for code in acknowledged.get(timeout=DEADLINE_S)] == [1]
    client.publish(own, b'mine')
    message = Properties(PacketTypes.PUBLISH)
    message.MessageExpiryInterval, message.UserProperty, message.TopicAlias = 60, [('a', '1'), ('b', '2'), ('a', '3')], 3
    other.publish(own, b'yours', retain=True, properties=message)
    [got] = client.take()
    assert (got.payload, got.retain, got.properties.SubscriptionIdentifier) == (b'yours', True, [12])
    assert got.properties.UserProperty == [('a', '1'), ('b', '2'), ('a', '3')] and got.properties.MessageExpiryInterval == 60
    assert not hasattr(got.properties, 'TopicAlias')
    other.publish(own, b'', retain=True)


def test_paho_is_told_what_5_0_tells(server):
    told = queue.Queue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id='', protocol=V5)
    client.on_connect = lambda c, data, flags, reason, properties: told.put((flags.session_present, reason.value, properties))
    asked = Properties(PacketTypes.CONNECT)
    asked.RequestResponseInformation, asked.SessionExpiryInterval = 1, 60
    client.connect('127.0.0.1', server.port, clean_start=True, properties=asked)
    client.loop_start()
    try:
        present, reason, properties = told.get(timeout=DEADLINE_S)
    finally:
        client.disconnect()
        client.loop_stop()
    assert (present, reason, properties.ResponseInformation) == (False, 0, 'answers')
    assert properties.AssignedClientIdentifier and properties.ReceiveMaximum == 65535 and properties.MaximumPacketSize == 16 << 20


@VERSIONS
def test_paho_leaves_a_will_behind(server, connect, own, version):
    witness = connect(server, version=version)
    witness.subscribe(own)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=own, protocol=version, reconnect_on_failure=False)
    client.will_set(own, b'lost', 1, retain=False)
    client.connect('127.0.0.1', server.port)
    client.loop_start()
    client.subscribe(own)
    connect(server, client_id=own, version=version)  # takes the identifier over
    client.loop_stop()
    assert witness.take()[0].payload == b'lost'


def test_paho_reads_why_it_is_refused(server):
    told = queue.Queue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id='x', protocol=V5, reconnect_on_failure=False)
    client.on_connect = lambda c, data, flags, reason, properties: told.put((reason.value, properties))
    asked = Properties(PacketTypes.CONNECT)
    asked.AuthenticationMethod = 'unknown'
    client.connect('127.0.0.1', server.port, properties=asked)
    client.loop_start()
    try:
        reason, properties = told.get(timeout=DEADLINE_S)
    finally:
        client.loop_stop()
    assert reason == 0x8c and 'authentication method' in properties.ReasonString


@VERSIONS
@pytest.mark.parametrize('qos', [1, 2])
def test_paho_finds_what_came_while_it_was_away(server, connect, own, version, qos):
    client = connect(server, own, version, session_s=1000)
    assert not client.present
    assert client.subscribe(own + '/#', qos=qos) == [qos]
    client.close()
    publisher = connect(server)
    sent = [(own + '/%d' % (i % 3), b'%d' % i) for i in range(300)]
    for topic, payload in sent:
        publisher.publish(topic, payload, qos=qos)
    client = connect(server, own, version, session_s=1000)
    assert client.present
    assert [(m.topic, m.payload, m.qos, m.dup) for m in client.take(len(sent))] == [(*message, qos, False) for message in sent]
    client.close()
    connect(server, own, version).close()  # clean
    assert not connect(server, own, version, session_s=1000).present


@VERSIONS
def test_paho_goes_on_with_its_session(spindle, connect, version):
    """The server is killed while it publishes and subscribes: each message of QoS 2 is there once."""
    server = spindle().start()
    subscriber, publisher = [connect(server, name, version, session_s=1000) for name in ('subscriber', 'publisher')]
    subscriber.subscribe('t', qos=2)
    tokens = []
    for _ in range(3):
        tokens += [publisher.post('t', b'%d' % i, 2) for i in range(len(tokens), len(tokens) + 300)]
        wait_until(lambda: subscriber.inbox.qsize() >= len(tokens) - 250, 'some are there')
        server.kill()
        server.start()
        for client in (publisher, subscriber):
            client.connect_again()
            assert client.present
    for token in tokens:
        wait_until(token.is_published, 'PUBCOMP')
    got = [int(message.payload) for message in subscriber.take(len(tokens)) + subscriber.take_rest(qos=2)]
    assert sorted(got) == list(range(len(tokens)))  # paho hands them out at their PUBREL, whatever their order


# ---- the command line ----

@pytest.mark.skipif(not shutil.which('mosquitto_sub'), reason='mosquitto_sub is not installed')
@pytest.mark.parametrize('version', ['311', '5'])
def test_mosquitto_sub_finds_what_came_while_it_was_away(server, connect, own, version):
    command = ['mosquitto_sub', '-p', str(server.port), '-V', version, '-c', '-i', own, '-q', '1', '-t', own]
    if version == '5':
        command += ['-x', '1000']
    subprocess.run(command + ['-E'], check=True, timeout=DEADLINE_S)  # subscribes, and leaves
    publisher = connect(server)
    for i in range(20):
        publisher.publish(own, b'%d' % i)
    done = subprocess.run(command + ['-C', '20'], check=True, timeout=DEADLINE_S, stdout=subprocess.PIPE)
    assert done.stdout.split() == [b'%d' % i for i in range(20)]


# ---- mqtt.js ----

MQTT_JS_AWAY = '''
const mqtt = require(process.argv[2]);
const [url, version, name] = [process.argv[3], Number(process.argv[4]), process.argv[5]];
const options = {protocolVersion: version, reconnectPeriod: 0};
const kept = {...options, clientId: name, clean: false, properties: version === 5 ? {sessionExpiryInterval: 1000} : undefined};
const count = 50;
function leave(client, next) {  // whatever the end of the connection looks like
    client.removeAllListeners('error');
    client.on('error', () => {});
    client.end(false, {}, next);
}
function fail(error) { console.error(String(error)); process.exit(1); }
const first = mqtt.connect(url, kept);
first.on('error', fail);
first.on('connect', connack => {
    if (connack.sessionPresent) fail('there is a session');
    first.subscribe(name, {qos: 2}, () => leave(first, publish));
});
function publish() {
    const publisher = mqtt.connect(url, options);
    publisher.on('error', fail);
    let acknowledged = 0;
    publisher.on('connect', () => {
        for (let i = 0; i < count; i++)
            publisher.publish(name, String(i), {qos: i % 2 + 1}, error => {
                if (error) fail(error);
                if (++acknowledged === count) leave(publisher, comeBack);
            });
    });
}
function comeBack() {
    const again = mqtt.connect(url, kept);
    const numbers = [];
    let present;
    again.on('error', fail);
    again.on('connect', connack => { present = connack.sessionPresent; });
    again.on('message', (topic, payload) => {
        numbers.push(Number(payload));
        if (numbers.length === count)
            leave(again, () => console.log(JSON.stringify({present, numbers: numbers.sort((a, b) => a - b)})));
    });
}
'''


@pytest.mark.skipif(not shutil.which('node') or not MQTT_JS.is_dir(), reason='mqtt.js is not installed (make build/node/.ready, with npm)')
@pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])
def test_mqtt_js_finds_what_came_while_it_was_away(server, own, tmp_path, version):
    script = tmp_path / 'away.js'
    script.write_text(MQTT_JS_AWAY)
    command = ['node', script, MQTT_JS, 'mqtt://127.0.0.1:%d' % server.port, str(version), own]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=3 * DEADLINE_S, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {'present': True, 'numbers': list(range(50))}


# ---- gmqtt ----

class Gmqtt:
    """A client of gmqtt; each method returns when the server has answered."""

    def __init__(self, client_id, **options):
        self.client = gmqtt.Client(client_id, **options)
        self.inbox, self.answered = asyncio.Queue(), asyncio.Queue()
        self.client.on_message = self._on_message
        self.client.on_subscribe = lambda client, identifier, codes, properties: self.answered.put_nowait(codes)
        self.client.on_unsubscribe = lambda client, identifier, codes: self.answered.put_nowait(codes)

    def _on_message(self, client, topic, payload, qos, properties):
        self.inbox.put_nowait((topic, payload, qos, properties))
        return 0

    async def connect(self, server, version):
        await self.client.connect('127.0.0.1', server.port, version=version)

    async def subscribe(self, topic_filter, **options):
        self.client.subscribe(topic_filter, **options)
        return list(await asyncio.wait_for(self.answered.get(), DEADLINE_S))

    async def unsubscribe(self, topic_filter):
        self.client.unsubscribe(topic_filter)
        return list(await asyncio.wait_for(self.answered.get(), DEADLINE_S))

    async def take(self):
        return await asyncio.wait_for(self.inbox.get(), DEADLINE_S)


@pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])
def test_gmqtt(server, own, version):
    async def talk():
        client = Gmqtt(own)
        await client.connect(server, version)
        assert await client.subscribe(own + '/+', qos=2) == [2]
        for qos in (0, 1, 2):
            client.client.publish(own + '/t', 'text %d' % qos, qos=qos)
            topic, payload, got, _ = await client.take()
            assert (topic, payload, got) == (own + '/t', b'text %d' % qos, qos)
        await client.unsubscribe(own + '/+')
        client.client.publish(own + '/kept', b'kept', qos=1, retain=True)
        assert await client.subscribe(own + '/kept', qos=1) == [1]
        _, payload, got, properties = await client.take()
        assert (payload, got, bool(properties['retain'])) == (b'kept', 1, True)
        client.client.publish(own + '/kept', b'', qos=1, retain=True)
        assert (await client.take())[1] == b''
        await client.client.disconnect()
    asyncio.run(talk())


def test_gmqtt_with_properties_of_5_0(server, own):
    async def talk():
        client = Gmqtt(own, session_expiry_interval=60, receive_maximum=4)
        await client.connect(server, 5)
        assert await client.subscribe(own, qos=1, subscription_identifier=7) == [1]
        for i in range(20):
            client.client.publish(own, b'%d' % i, qos=1, content_type='text/plain', message_expiry_interval=60, response_topic='r',
                                  correlation_data=b'\1', user_property=[('k', '1'), ('k', '2')])
        for i in range(20):
            _, payload, _, properties = await client.take()
            assert payload == b'%d' % i
            assert properties['content_type'] == ['text/plain'] and properties['response_topic'] == ['r']
            assert properties['user_property'] == [('k', '1'), ('k', '2')] and properties['subscription_identifier'] == [7]
            assert properties['message_expiry_interval'] == [60]
        await client.client.disconnect()
    asyncio.run(talk())
