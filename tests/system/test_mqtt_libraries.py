"""Client libraries of others, as their users use them: paho in both versions, and gmqtt, which has a codec of its own."""
import asyncio
import queue

import gmqtt
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from client import V5, V311
from spindle import DEADLINE_S

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
