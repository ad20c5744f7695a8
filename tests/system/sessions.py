"""Clients that come and go, packet by packet: what they ask to be kept, and what they are sent when they are back."""
import socket
import struct
import uuid

import wire
from packets import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SESSION_EXPIRY, SUBACK, UNSUBACK, Cursor, Message, Packets

FOREVER = 0xffffffff  # of the session expiry interval
NO_MATCH = 0x10  # a success, too
WINDOW = 500  # of messages that are published without waiting


class Visit(Packets):
    """One connection of a client that has its session kept: in 5.0 for `expiry` seconds (None: it asks for nothing). Packets are read in
    large pieces, and the end of the connection is a ConnectionError."""

    def __init__(self, server, client_id, version=5, expiry=1000, clean=False, props=(), **options):
        self._ahead, self._at = b'', 0
        self._put_by = []
        asked = [(SESSION_EXPIRY, expiry)] if version == 5 and expiry is not None else []
        super().__init__(server, client_id, version, asked + list(props), clean=clean, **options)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, count):
        while len(self._ahead) - self._at < count:
            more = self.socket.recv(1 << 18)
            if not more:
                raise ConnectionError('closed after %r' % self._ahead[self._at:])
            self._ahead, self._at = self._ahead[self._at:] + more, 0
        self._at += count
        return self._ahead[self._at - count:self._at]

    def read_until_closed(self):
        data, self._ahead, self._at = self._ahead[self._at:], b'', 0
        return data + super().read_until_closed()

    def next(self):
        return self._put_by.pop(0) if self._put_by else super().next()

    def subscribe(self, *filters, qos=0, options=0, props=(), identifier=1):
        """Returns the codes; what comes before the SUBACK is there afterwards."""
        self.send(wire.subscribe(self.version, *((topic_filter, qos | options) for topic_filter in filters), identifier=identifier, props=props))
        put_by = []
        while True:
            first, body = self.next()
            if first == SUBACK << 4:
                self._put_by = put_by + self._put_by
                assert body[:2] == struct.pack('>H', identifier)
                return list(body[-len(filters):])
            put_by.append((first, body))

    # ---- the end ----

    def leave(self, reason=b'', props=()):
        """With a DISCONNECT; when this returns the server knows. Returns what came before that."""
        if props:
            reason += b'\0' * (not reason) + wire.properties(props)
        self.packet(0xe0, reason)
        rest = self.read_until_closed()
        self.close()
        return rest

    def cut(self):
        """Without a word; when this returns the server knows. Returns what came before that."""
        self.socket.shutdown(socket.SHUT_WR)
        rest = self.read_until_closed()
        self.close()
        return rest

    # ---- exchanges ----

    def reply(self, kind, identifier, reason=None):
        self.packet(kind << 4 | (2 if kind == PUBREL else 0), struct.pack('>H', identifier) + (b'' if reason is None else bytes([reason])))

    def expect(self, kind, identifier, *reasons):
        """The next packet is this answer; without reasons, a success."""
        got = self.answer()
        assert got[:2] == (kind, identifier) and got[2] in (reasons or (0, NO_MATCH)), got

    def put(self, topic, payload, qos=1, identifier=1, **options):
        """Publishes, and returns when the exchange is over."""
        self.publish(topic, payload, qos, identifier, **options)
        if qos:
            self.expect(PUBACK if qos == 1 else PUBREC, identifier)
        if qos == 2:
            self.reply(PUBREL, identifier)
            self.expect(PUBCOMP, identifier)

    def put_all(self, messages, qos=1):
        """Publishes (topic, payload) pairs, many at a time."""
        messages = list(messages)
        for start in range(0, len(messages), WINDOW):
            part = messages[start:start + WINDOW]
            numbers = range(1, len(part) + 1)
            self.send(b''.join(wire.publish(self.version, topic, payload, qos, i) for i, (topic, payload) in zip(numbers, part)))
            for i in numbers:
                self.expect(PUBACK if qos == 1 else PUBREC, i)
            if qos == 2:
                self.send(b''.join(wire.answer(0x62, i) for i in numbers))
                for i in numbers:
                    self.expect(PUBCOMP, i)

    def collect(self, enough):
        """Takes messages until enough(messages, others) is true and every exchange is finished. Returns both: the messages, and the rest as
        (type, packet identifier, codes)."""
        messages, others, unfinished = [], [], set()
        while unfinished or not enough(messages, others):
            first, body = self.next()
            kind = first >> 4
            if kind == PUBLISH:
                message = Message(first, body, self.version)
                messages.append(message)
                if message.qos:
                    self.reply(PUBACK if message.qos == 1 else PUBREC, message.identifier)
                if message.qos == 2:
                    unfinished.add(message.identifier)
                continue
            cursor = Cursor(body)
            assert kind in (PUBREL, SUBACK, UNSUBACK), (first, body)
            identifier = cursor.number(2)
            if kind == PUBREL:
                unfinished.discard(identifier)
                self.reply(PUBCOMP, identifier)
                continue
            if self.version == 5:
                cursor.properties()
            others.append((kind, identifier, list(cursor.rest())))
        return messages, others

    def take(self, count=1):
        """The next `count` messages (or more, if more come), with their exchanges finished."""
        return self.collect(lambda messages, others: len(messages) >= count)[0]

    def take_open(self, count):
        """The next `count` messages; nothing is answered."""
        return [self.message(acknowledge=False) for _ in range(count)]

    def take_rest(self, server, topic, qos=2):
        """All messages that were for this client before now, with their exchanges finished: what comes before one more, of this topic, to
        which it is subscribed."""
        marker = uuid.uuid4().hex.encode()
        with Visit(server, b'', expiry=None, clean=True) as publisher:
            publisher.put(topic, marker, qos)
        messages, _ = self.collect(lambda messages, others: messages and messages[-1].payload == marker)
        assert messages[-1].payload == marker, 'behind the last: %s' % messages[-1]
        return messages[:-1]


def payloads(messages):
    return [message.payload for message in messages]


def put(server, topic, *numbered, qos=1, **options):
    """Publishes these payloads from a client of its own, one after the other."""
    with Visit(server, b'', expiry=None, clean=True) as publisher:
        for payload in numbered:
            publisher.put(topic, payload, qos, **options)


def has_session(server, client_id, version=5, expiry=1000, **options):
    """Whether there is one. Who asks goes on with it, or has begun one."""
    with Visit(server, client_id, version, expiry, **options) as visit:
        visit.leave()
        return visit.present == 1
