"""Packets of both versions as bytes, broken where a test wants them broken, and what came back of them."""
import socket
import struct

from client import RawClient, without_reason
from packets import properties, text, varint
from spindle import DEADLINE_S

BOTH = (4, 5)
CLEAN, WILL, WILL_QOS, WILL_RETAIN, PASSWORD, USER_NAME = 0x02, 0x04, 0x08, 0x20, 0x40, 0x80
NAME = text(b'MQTT')


def packet(first, *parts):
    body = b''.join(parts)
    return bytes([first]) + varint(len(body)) + body


def u16(number):
    return struct.pack('>H', number)


def set_of(version, *pairs):
    """A property set; nothing in 3.1.1."""
    return properties(pairs) if version == 5 else b''


def connect(version, client_id, flags=CLEAN, *, props=(), rest=b'', keepalive=60, name=NAME, level=None, first=0x10):
    """`rest` is what follows the client identifier."""
    return packet(first, name, bytes([version if level is None else level, flags]), u16(keepalive), set_of(version, *props),
                  text(client_id) + rest)


def publish(version, topic, payload=b'', qos=0, identifier=1, *, props=(), retain=False, dup=False):
    return packet(0x30 | dup << 3 | qos << 1 | retain, text(topic), u16(identifier) if qos else b'', set_of(version, *props), payload)


def subscribe(version, *entries, identifier=1, props=(), first=0x82):
    """Entries are (filter, options)."""
    return packet(first, u16(identifier), set_of(version, *props), *(text(f) + bytes([options]) for f, options in entries))


def unsubscribe(version, *filters, identifier=1, props=(), first=0xa2):
    return packet(first, u16(identifier), set_of(version, *props), *map(text, filters))


def answer(first, identifier, *rest):
    """PUBACK and its kin."""
    return packet(first, u16(identifier), *rest)


PING, PONG, GOODBYE = b'\xc0\0', b'\xd0\0', b'\xe0\0'


class Wire(RawClient):
    """A socket with a deadline, on which whole packets are compared byte by byte."""

    def __init__(self, server):
        super().__init__(server.port)
        self.socket.settimeout(DEADLINE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # packets are sent one by one

    def connected(self, version, client_id, *arguments, **options):
        """Connects; returns itself. `connack` is the whole answer."""
        self.version = version
        self.send(connect(version, client_id, *arguments, **options))
        self.connack = self.packet()
        assert self.connack[0] == 0x20 and self.connack[-1 if version == 4 else 3] == 0, self.connack
        return self

    def packet(self):
        """The next packet, whole."""
        head, size, shift = self.read(1), 0, 0
        while True:
            head += self.read(1)
            size, shift = size | (head[-1] & 127) << shift, shift + 7
            if head[-1] < 128:
                return head + (self.read(size) if size else b'')

    def expect(self, *packets):
        """They come next, in this order, to the byte."""
        for wanted in packets:
            got = self.packet()
            assert got == wanted, '%s instead of %s' % (got.hex(' '), wanted.hex(' '))

    def quiet(self):
        """Nothing more was on its way."""
        self.send(PING)
        self.expect(PONG)

    def refused(self, reason):
        """The server closes: in 5.0 with a DISCONNECT of this reason and nothing behind it, in 3.1.1 without a word."""
        rest = self.read_until_closed()
        assert (without_reason(rest) == bytes([0xe0, 1, reason])) if self.version == 5 else rest == b'', rest


def answers(server, data):
    """All that is said to `data` on a connection of its own, until the server closes it."""
    with Wire(server) as wire:
        wire.send(data)
        return wire.read_until_closed()
