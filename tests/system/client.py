"""paho-mqtt, made to wait: every call returns when what it asked for has happened, or fails at a deadline."""
import queue
import socket
import struct
import threading
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from spindle import DEADLINE_S

V311, V5 = mqtt.MQTTv311, mqtt.MQTTv5


def without_reason(data):
    """`data`, which ends with a CONNACK or DISCONNECT of MQTT 5 that refuses, as it would be without its reason string, which must be there."""
    at = data.rindex(b'\x1f\x00')  # the property, and the length of a text of less than 256 bytes
    text = data[at + 3:]
    assert text and text.decode().isprintable() and data[at - 1] == len(text) + 3 and data[at + 2] == len(text), data[-80:]
    if data[at - 4] == 0xe0:
        return data[:at - 3] + b'\x01' + data[at - 2:at - 1]
    assert data[at - 5] == 0x20, data[-80:]
    return data[:at - 4] + b'\x03' + data[at - 3:at - 1] + b'\x00'


class Refused(Exception):
    """The server answered CONNECT with a refusal; `code` is its reason."""

    def __init__(self, code):
        super().__init__(str(code))
        self.code = code


class Client:
    """A connected client. Received messages wait in order until they are taken. `transport` and `tls` (an ssl.SSLContext) are paho's; with
    transport 'unix' the host is the path of the socket."""

    def __init__(self, port, client_id=None, version=V311, keepalive=60, host='127.0.0.1', transport='tcp', tls=None, user=None, password=None,
                 will=None, session_s=None):
        """`will`: (topic, payload, QoS). `session_s`: go on with a session, and have it kept for so long. `present` says whether there was one."""
        self.id = 'test-' + uuid.uuid4().hex[:12] if client_id is None else client_id
        self.inbox = queue.Queue()
        self._answers = {}  # message identifier -> (event, codes)
        self._lock = threading.Lock()
        self._connected = queue.Queue()
        self.disconnected = threading.Event()
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=self.id, protocol=version, reconnect_on_failure=False,
                                transport=transport, clean_session=None if version == V5 else session_s is None)
        if tls is not None:
            self.paho.tls_set_context(tls)
        self.paho.max_inflight_messages_set(1000)
        self.paho.max_queued_messages_set(0)
        self.paho.on_connect = self._on_connect
        self.present = False
        asked = None
        if version == V5 and session_s is not None:
            asked = Properties(PacketTypes.CONNECT)
            asked.SessionExpiryInterval = session_s
        self.paho.on_disconnect = self._on_disconnect
        self.paho.on_message = lambda client, data, message: self.inbox.put(message)
        self.paho.on_subscribe = self.paho.on_unsubscribe = self._on_answer
        if user is not None:
            self.paho.username_pw_set(user, password)
        if will is not None:
            self.paho.will_set(*will)
        try:
            self.paho.connect(host, port, keepalive, clean_start=session_s is None if version == V5 else mqtt.MQTT_CLEAN_START_FIRST_ONLY,
                              properties=asked)
            self.paho.loop_start()
            reason = self._connected.get(timeout=DEADLINE_S)
        except Exception:
            self.close()
            raise
        if reason.is_failure:
            self.close()
            raise Refused(reason)

    def _on_connect(self, client, data, flags, reason, properties):
        self.present = flags.session_present
        self._connected.put(reason)

    def _on_disconnect(self, client, data, flags, reason, properties):
        self.disconnected.set()
        self._connected.put(reason)  # closed instead of an answer to CONNECT

    def _answer(self, identifier):
        with self._lock:
            return self._answers.setdefault(identifier, queue.Queue())

    def _on_answer(self, client, data, identifier, reasons, properties):
        self._answer(identifier).put(reasons)

    def subscribe(self, *filters, qos=1):
        """Returns the granted reason codes, as values."""
        _, identifier = self.paho.subscribe([(f, qos) for f in filters])
        return [code.value for code in self._answer(identifier).get(timeout=DEADLINE_S)]

    def unsubscribe(self, *filters):
        _, identifier = self.paho.unsubscribe(list(filters))
        self._answer(identifier).get(timeout=DEADLINE_S)

    def publish(self, topic, payload, qos=1, **options):
        """Returns when the message is sent (QoS 0), acknowledged (QoS 1) or completed (QoS 2)."""
        token = self.post(topic, payload, qos, **options)
        token.wait_for_publish(DEADLINE_S)
        assert token.is_published(), 'not acknowledged in time'

    def post(self, topic, payload, qos=1, **options):
        """Publishes without waiting; the answer's is_published() tells of its acknowledgement."""
        return self.paho.publish(topic, payload, qos, **options)

    def publish_all(self, messages):
        """Publishes (topic, payload) pairs with QoS 1 and returns when all are acknowledged."""
        for token in [self.post(topic, payload) for topic, payload in messages]:
            token.wait_for_publish(DEADLINE_S)
            assert token.is_published()

    def take(self, count=1, deadline_s=DEADLINE_S):
        """The next `count` messages received."""
        return [self.inbox.get(timeout=deadline_s) for _ in range(count)]

    def take_rest(self, qos=0):
        """All that was sent to this client before now: what arrives before a message that it publishes to itself. With the QoS of what may
        come: a message of QoS 2 is not there before its PUBREL. With QoS 0 it leaves no trace in the journal."""
        marker = 'test/marker/' + uuid.uuid4().hex
        self.subscribe(marker, qos=qos)
        self.publish(marker, b'', qos=qos)
        messages = []
        while True:
            message = self.inbox.get(timeout=DEADLINE_S)
            if message.topic == marker:
                self.unsubscribe(marker)
                return messages
            messages.append(message)

    def connect_again(self):
        """After the end of the connection, when the server is there: paho 2.1 takes a PUBREC for not received after an attempt that fails,
        and publishes again."""
        self.wait_disconnected()
        self.paho.loop_stop()
        self.disconnected.clear()
        self._connected = queue.Queue()
        self.paho.reconnect()
        self.paho.loop_start()
        reason = self._connected.get(timeout=DEADLINE_S)
        assert not reason.is_failure, reason

    def wait_disconnected(self):
        assert self.disconnected.wait(DEADLINE_S), 'the server did not close the connection'

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class RawClient:
    """A socket that speaks MQTT 3.1.1 or 5 as badly as the test wants."""

    def __init__(self, port):
        self.socket = socket.create_connection(('127.0.0.1', port), DEADLINE_S)

    def send(self, data):
        self.socket.sendall(data)

    def connect(self, client_id, version=4, flags=2, keepalive=60):
        body = b'\x00\x04MQTT' + bytes([version, flags]) + struct.pack('>H', keepalive)
        body += (b'\x00' if version == 5 else b'') + struct.pack('>H', len(client_id)) + client_id
        self.send(bytes([0x10, len(body)]) + body)
        answer = self.socket.recv(2)
        assert answer[:1] == b'\x20', answer
        rest = self.read(answer[1])
        assert rest[1] == 0, rest
        return rest

    def read(self, count):
        data = b''
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            assert more, 'closed after %r' % data
            data += more
        return data

    def read_until_closed(self):
        """All bytes until the server closes; fails at the deadline."""
        data = b''
        while True:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return data
            if not more:
                return data
            data += more

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
