"""A client that sends and takes packets of either version one by one, with whatever flags and properties the test wants."""
import struct

from client import RawClient
from spindle import DEADLINE_S

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT = 2, 3, 4, 5, 6, 7, 9, 11, 14
U8, U16, U32, VARINT, TEXT, PAIR = range(6)
KINDS = {0x01: U8, 0x02: U32, 0x03: TEXT, 0x08: TEXT, 0x09: TEXT, 0x0b: VARINT, 0x11: U32, 0x12: TEXT, 0x13: U16, 0x15: TEXT, 0x16: TEXT,
         0x17: U8, 0x18: U32, 0x19: U8, 0x1a: TEXT, 0x1c: TEXT, 0x1f: TEXT, 0x21: U16, 0x22: U16, 0x23: U16, 0x24: U8, 0x25: U8,
         0x26: PAIR, 0x27: U32, 0x28: U8, 0x29: U8, 0x2a: U8}
EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION, SUBSCRIPTION, SESSION_EXPIRY = 0x02, 0x03, 0x08, 0x09, 0x0b, 0x11
PROBLEM_INFORMATION, WILL_DELAY, RESPONSE_REQUEST, RESPONSE_INFORMATION = 0x17, 0x18, 0x19, 0x1a
REASON, RECEIVE_MAXIMUM, ALIAS_MAXIMUM, ALIAS, USER, PACKET_SIZE = 0x1f, 0x21, 0x22, 0x23, 0x26, 0x27


def varint(number):
    out = b''
    while number > 127:
        out, number = out + bytes([number % 128 | 128]), number // 128
    return out + bytes([number])


def text(data):
    return struct.pack('>H', len(data)) + data


def properties(pairs):
    """[(identifier, value)] as bytes with their length."""
    out = b''
    for identifier, value in pairs:
        kind = KINDS[identifier]
        out += bytes([identifier])
        out += {U8: lambda: bytes([value]), U16: lambda: struct.pack('>H', value), U32: lambda: struct.pack('>I', value),
                VARINT: lambda: varint(value), TEXT: lambda: text(value), PAIR: lambda: text(value[0]) + text(value[1])}[kind]()
    return varint(len(out)) + out


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        assert self.at <= len(self.data)
        return self.data[self.at - count:self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), 'big')

    def varint(self):
        number = shift = 0
        while True:
            byte = self.number(1)
            number, shift = number | (byte & 127) << shift, shift + 7
            if byte < 128:
                return number

    def text(self):
        return self.take(self.number(2))

    def properties(self):
        """[(identifier, value)]"""
        length = self.varint()
        end, pairs = self.at + length, []
        while self.at < end:
            identifier = self.number(1)
            kind = KINDS[identifier]
            pairs.append((identifier, self.number(1) if kind == U8 else self.number(2) if kind == U16 else self.number(4) if kind == U32 else
                          self.varint() if kind == VARINT else self.text() if kind == TEXT else (self.text(), self.text())))
        assert self.at == end
        return pairs

    def rest(self):
        return self.take(len(self.data) - self.at)


class Message:
    def __init__(self, first, body, version):
        cursor = Cursor(body)
        self.dup, self.qos, self.retain = bool(first & 8), first >> 1 & 3, bool(first & 1)
        self.topic = cursor.text()
        self.identifier = cursor.number(2) if self.qos else 0
        self.properties = cursor.properties() if version == 5 else []
        self.payload = cursor.rest()

    def values(self, identifier):
        return [value for other, value in self.properties if other == identifier]

    def __repr__(self):
        return repr(vars(self))


class Packets(RawClient):
    """A connection; `reason` of the CONNACK and its `connack` properties are there when it was answered."""

    def __init__(self, server, client_id=b'packets', version=5, props=(), will=None, clean=True, keepalive=60, login=None):
        """will: (topic, payload, qos, retain, properties); login: (user, password)"""
        super().__init__(server.port)
        self.version = version
        self.socket.settimeout(DEADLINE_S)
        flags, rest = 2 * clean, text(client_id)
        if will:
            flags |= 4 | will[2] << 3 | will[3] << 5
            rest += (properties(will[4]) if version == 5 else b'') + text(will[0]) + text(will[1])
        if login:
            flags |= 0xc0
            rest += text(login[0]) + text(login[1])
        self.packet(0x10, b'\x00\x04MQTT' + bytes([version, flags]) + struct.pack('>H', keepalive) +
                    (properties(props) if version == 5 else b'') + rest)
        first, body = self.next()
        assert first == CONNACK << 4
        cursor = Cursor(body)
        self.present, self.reason = cursor.number(1), cursor.number(1)
        self.connack = cursor.properties() if version == 5 else []

    def packet(self, first, body):
        self.send(bytes([first]) + varint(len(body)) + body)

    def next(self):
        """(first byte, body) of the next packet."""
        first, size, shift = self.read(1)[0], 0, 0
        while True:
            byte = self.read(1)[0]
            size, shift = size | (byte & 127) << shift, shift + 7
            if byte < 128:
                return first, self.read(size) if size else b''

    def publish(self, topic, payload, qos=0, identifier=1, retain=False, dup=False, props=()):
        self.packet(0x30 | dup << 3 | qos << 1 | retain, text(topic) + (struct.pack('>H', identifier) if qos else b'') +
                    (properties(props) if self.version == 5 else b'') + payload)

    def subscribe(self, *filters, qos=0, options=0, props=(), identifier=1):
        """Returns the codes of the SUBACK and its properties."""
        body = struct.pack('>H', identifier) + (properties(props) if self.version == 5 else b'')
        for topic_filter in filters:
            body += text(topic_filter) + bytes([qos | options])
        self.packet(0x82, body)
        first, body = self.next()
        assert first == SUBACK << 4
        cursor = Cursor(body)
        assert cursor.number(2) == identifier
        told = cursor.properties() if self.version == 5 else []
        return list(cursor.rest()), told

    def unsubscribe(self, topic_filter, identifier=1):
        self.packet(0xa2, struct.pack('>H', identifier) + (b'\x00' if self.version == 5 else b'') + text(topic_filter))

    def message(self, acknowledge=True):
        """The next packet, which is a PUBLISH; one of QoS 1 is acknowledged."""
        first, body = self.next()
        assert first >> 4 == PUBLISH, (hex(first), body[:100])
        message = Message(first, body, self.version)
        if message.qos == 1 and acknowledge:
            self.packet(PUBACK << 4, struct.pack('>H', message.identifier))
        return message

    def answer(self):
        """The next packet, which answers: (type, packet identifier or None, reason, properties)."""
        first, body = self.next()
        cursor, kind = Cursor(body), first >> 4
        identifier = None if kind == DISCONNECT else cursor.number(2)
        reason = cursor.number(1) if cursor.at < len(body) else 0
        return kind, identifier, reason, cursor.properties() if cursor.at < len(body) else []

    def quiet(self):
        """Nothing else was on its way."""
        self.packet(0xc0, b'')
        assert self.next() == (0xd0, b'')
