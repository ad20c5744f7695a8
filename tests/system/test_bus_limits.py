"""The limits of the bus, reached: clients that do not read, do not finish, or come in numbers; and what others notice of it."""
import contextlib
import re
import resource
import select
import struct
import threading
import time

import pytest

from client import V5, RawClient, without_reason
from spindle import DEADLINE_S, SANITIZED, switches, wait_until

MIB = 1 << 20
HOUR = {'bus.stall_timeout_s': 3600}


def packet(first, body):
    length, rest = b'', len(body)
    while True:
        length += bytes([rest % 128 | (0x80 if rest > 127 else 0)])
        rest //= 128
        if not rest:
            return bytes([first]) + length + body


def publish(topic, payload, identifier=0):
    """PUBLISH of MQTT 3.1.1, with QoS 1 if it has an identifier."""
    return packet(0x32 if identifier else 0x30, struct.pack('>H', len(topic)) + topic +
                  (struct.pack('>H', identifier) if identifier else b'') + payload)


def subscribe(topic, qos=1):
    return packet(0x82, b'\x00\x01' + struct.pack('>H', len(topic)) + topic + bytes([qos]))


class Reader:
    """Takes packets apart as they come; answers QoS 1 unless told otherwise."""

    def __init__(self, raw, acknowledge=True):
        self.raw, self.data, self.at = raw, b'', 0
        self.acknowledge = acknowledge
        self.unanswered = []

    def next(self):
        """(first byte, body)"""
        while True:
            found = self.split()
            if found:
                self.note(*found)
                return found
            more = self.raw.socket.recv(1 << 18)
            assert more, 'closed'
            self.data, self.at = self.data[self.at:] + more, 0

    def split(self):
        size, shift, at = 0, 0, self.at + 1
        while at < len(self.data):
            byte = self.data[at]
            size |= (byte & 0x7f) << shift
            shift += 7
            at += 1
            if byte & 0x80:
                continue
            if len(self.data) < at + size:
                return None
            found = self.data[self.at], self.data[at:at + size]
            self.at = at + size
            return found
        return None

    def note(self, first, body):
        if first >> 4 == 3 and first & 6:
            at = 2 + struct.unpack('>H', body[:2])[0]
            self.unanswered.append(b'\x40\x02' + body[at:at + 2])
            if self.acknowledge:
                self.answer()

    def answer(self):
        self.raw.send(b''.join(self.unanswered))
        self.unanswered = []

    def take(self, kind, count):
        """Reads until `count` packets of a type have come."""
        while count:
            count -= self.next()[0] >> 4 == kind


class Sender(threading.Thread):
    """Sends everything, as fast as it is taken."""

    def __init__(self, raw, parts):
        super().__init__(daemon=True)
        self.raw, self.parts, self.failure = raw, parts, None
        self.start()

    def run(self):
        try:
            for part in self.parts:
                self.raw.socket.sendall(part)
        except OSError as failure:
            self.failure = failure

    def finish(self):
        self.join(DEADLINE_S)
        assert not self.is_alive() and not self.failure, self.failure


@pytest.fixture
def raw():
    """raw(server, client_id) gives a connected RawClient."""
    with contextlib.ExitStack() as stack:
        def make(server, client_id, **options):
            client = stack.enter_context(RawClient(server.port))
            client.connect(client_id, **options)
            return client
        yield make


def pauses(server, reason):
    return server.metrics().get_sum('spindle_bus_pauses_total', reason=reason)


def received(server):
    return server.metrics().get_sum('spindle_bus_messages_received_total')


def closed(server, reason):
    return server.metrics().get_sum('spindle_bus_disconnects_total', reason=reason)


def dropped(server, reason):
    return server.metrics().get_sum('spindle_bus_messages_dropped_total', reason=reason)


# ---- clients that send and do not read ----

def flood(server, client, part):
    """Sends `part` until the server stops reading; returns how often it was sent whole. The rest of a part is sent on later."""
    client.socket.setblocking(False)
    data, sent, most = part * (65536 // len(part)), 0, 128 * MIB
    while pauses(server, 'unread') == 0:
        for _ in range(200):
            try:
                sent += client.socket.send(data[sent % len(part):])
            except BlockingIOError:
                break
        assert sent < most, 'the server reads on and on'
    client.socket.setblocking(True)
    client.socket.settimeout(DEADLINE_S)
    return sent


@pytest.mark.parametrize('what', ['pings', 'publishes', 'subscribes'])
def test_who_does_not_take_its_answers_is_not_read_from(spindle, connect, raw, what):
    """Its answers are bounded; they all come, and it goes on, when it reads."""
    part, answer = {'pings': (b'\xc0\x00', b'\xd0\x00'), 'publishes': (publish(b'a', b'', 7), b'\x40\x02\x00\x07'),
                    'subscribes': (subscribe(b'b'), b'\x90\x03\x00\x01\x01')}[what]
    server = spindle(settings={'bus.outgoing_size_max': '64KiB', 'journal.backlog_size_max': '1MiB', **HOUR}).start()
    client = raw(server, b'flood')
    sent = flood(server, client, part)
    witness = connect(server)
    witness.subscribe('w')
    witness.publish('w', b'served')
    assert witness.take()[0].payload == b'served'
    assert server.metrics().get_sum('spindle_bus_memory_bytes', use='queues') < 2 * MIB
    sender = Sender(client, [part[sent % len(part):]] if sent % len(part) else [])
    left = -(-sent // len(part)) * len(answer)
    while left:
        got = client.socket.recv(min(left, MIB))
        assert got and got.count(answer) >= len(got) // len(answer) - 1
        left -= len(got)
    sender.finish()


def test_who_never_takes_its_answers_is_disconnected_by_name_and_address(spindle, raw):
    server = spindle(settings={'bus.outgoing_size_max': '64KiB', 'bus.stall_timeout_s': 1}).start()
    client = raw(server, b'deaf')
    Sender(client, [b'\xc0\x00' * MIB] * 64)
    wait_until(lambda: closed(server, 'slow') == 1, 'it is disconnected')
    assert re.search(r'bus: client "deaf" at 127\.0\.0\.1:%d is disconnected: \d+ bytes wait for it and it has taken none for 1 s'
                     % client.socket.getsockname()[1], server.stderr())


def test_one_that_publishes_to_itself_gets_over_its_own_limit(spindle, raw):
    """Its acknowledgements lie behind its publishes: to hold those back for the sake of its queue would hold it for ever."""
    server = spindle(settings={'bus.outgoing_size_max': '1MiB', **HOUR}).start()
    client = raw(server, b'echo')
    client.send(subscribe(b'e'))
    count, payload = 6000, bytes(700)  # 4096 are sent without an answer, the others wait: 1.3 MiB
    sender = Sender(client, [publish(b'e', payload, i + 1) for i in range(count)])
    reader = Reader(client, acknowledge=False)
    received = answered = 0
    while sender.is_alive() or answered < count:
        first, _ = reader.next()
        received += first >> 4 == 3
        answered += first >> 4 == 4
    sender.finish()
    reader.acknowledge = True
    reader.answer()
    reader.take(3, count - received)
    assert closed(server, 'slow') == 0


def test_one_that_owes_acknowledgements_cannot_overrun_another(spindle, connect, raw):
    server = spindle(settings={'bus.outgoing_size_max': '1MiB', **HOUR}).start()
    slow, debtor = raw(server, b'slow'), raw(server, b'debtor')
    slow.send(subscribe(b's'))
    debtor.send(subscribe(b'd'))
    assert slow.read(5)[0] == debtor.read(5)[0] == 0x90
    reader = Reader(debtor, acknowledge=False)
    drain = threading.Thread(target=lambda: reader.take(3, 4096), daemon=True)
    drain.start()
    source = connect(server)
    tokens = [source.post('d', bytes(1000)) for _ in range(5400)]  # 1.3 MiB behind the 4,096
    drain.join(DEADLINE_S)
    wait_until(lambda: pauses(server, 'subscriber') >= 1, 'the debtor is over its limit')
    count, before = 400, pauses(server, 'subscriber')
    sender = Sender(debtor, [publish(b's', bytes(65536), i + 1) for i in range(count)])
    wait_until(lambda: pauses(server, 'subscriber') > before, 'the debtor is held back too')
    wait_until(lambda: received(server) == (time.sleep(0.3), received(server))[1], 'nothing moves')
    assert closed(server, 'slow') == 0
    finisher = threading.Thread(target=lambda: reader.take(4, count), daemon=True)
    finisher.start()
    Reader(slow).take(3, count)
    sender.finish()
    assert closed(server, 'slow') == 0
    reader.acknowledge = True
    finisher.join(DEADLINE_S)
    reader.answer()
    reader.take(3, 5400 - 4096)
    for token in tokens:
        token.wait_for_publish(DEADLINE_S)
        assert token.is_published()


def test_publishers_wait_for_their_own_subscriber_only(spindle, raw):
    """A subscriber that gets room, again and again, does not wake those who wait for another."""
    server = spindle(settings={'bus.outgoing_size_max': '64KiB', **HOUR}).start()
    slow, senders, count = [raw(server, b'slow%d' % i) for i in range(2)], [], 300
    for i, client in enumerate(slow):
        client.send(subscribe(b's%d' % i))
        client.read(5)
        before = pauses(server, 'subscriber')
        senders.append(Sender(raw(server, b'publisher%d' % i), [publish(b's%d' % i, bytes(65000), j + 1) for j in range(count)]))
        wait_until(lambda before=before: pauses(server, 'subscriber') > before, 'it is held back')
    others, before = [raw(server, b'other%d' % i) for i in range(50)], pauses(server, 'subscriber')
    for other in others:
        other.send(publish(b's1', b'', 1))
    wait_until(lambda: pauses(server, 'subscriber') >= before + len(others), 'they wait for the second')
    before = pauses(server, 'subscriber')
    Reader(slow[0]).take(3, count)
    senders[0].finish()
    assert pauses(server, 'subscriber') - before <= 2 * count  # each of the fifty tried again each time would be thousands
    Reader(slow[1]).take(3, count + len(others))
    senders[1].finish()


# ---- memory of all ----

def test_what_comes_from_other_threads_does_not_overrun_a_short_queue(spindle, raw):
    """Many publish at once to a subscriber that takes what it gets: its limit holds for what is on the way from thread to thread too."""
    server = spindle(settings={'bus.threads': 2, 'bus.outgoing_size_max': '64KiB'}).start()
    subscriber, publishers = raw(server, b's'), [raw(server, b'p%d' % i) for i in range(16)]
    subscriber.send(subscribe(b't'))
    reader, count = Reader(subscriber), 300
    assert reader.next()[0] == 0x90
    senders = [Sender(each, [b''.join(publish(b't', bytes(1000), 1 + i) for i in range(count))]) for each in publishers]
    reader.take(3, count * len(publishers))
    for sender in senders:
        sender.finish()
    assert closed(server, 'slow') == 0


def test_packets_that_are_never_finished_hold_neither_memory_nor_others(spindle, connect, raw):
    """40 clients leave 4 MiB packets unfinished. A few are begun; the others wait for their memory, and those that end the wait are cut."""
    server = spindle(settings={'bus.memory_max': '64MiB', 'bus.packet_size_max': '4MiB', 'bus.stall_timeout_s': 1}).start()
    whole = publish(b'h', bytes(4 * MIB - 100), 1)
    before = server.metrics().get_sum('process_resident_memory_bytes')
    clients = [raw(server, b'half%d' % i) for i in range(40)]
    senders = [Sender(client, [whole[:-1000]]) for client in clients]
    wait_until(lambda: pauses(server, 'packet') > 10, 'packets wait')
    most = 0
    witness = connect(server)
    witness.subscribe('w')
    while closed(server, 'slow') < len(clients) - 3:
        metrics = server.metrics()
        assert metrics.get_sum('spindle_bus_memory_bytes', use='packets') <= (16 + 40 * 0.25) * MIB
        most = max(most, metrics.get_sum('process_resident_memory_bytes') - before)
        witness.publish('w', b'small ones pass')
        assert witness.take()[0].payload == b'small ones pass'
    assert SANITIZED or most < 80 * MIB, most  # 160 were sent
    assert 'of a packet and not the rest for 1 s' in server.stderr()
    connect(server).publish('h', bytes(4 * MIB - 100))
    del senders


def test_packets_that_wait_for_memory_are_all_finished(spindle, raw):
    server = spindle(settings={'bus.memory_max': '64MiB', 'bus.packet_size_max': '4MiB', 'bus.threads': 2, **HOUR}).start()
    whole = publish(b'h', bytes(4 * MIB - 100), 1)
    clients = [raw(server, b'whole%d' % i) for i in range(20)]
    senders = [Sender(client, [whole[:2 * MIB]]) for client in clients]
    wait_until(lambda: pauses(server, 'packet') > 10, 'packets wait')
    for sender in [Sender(client, [whole[2 * MIB:]]) for client, sender in zip(clients, senders) if not sender.join()]:
        sender.finish()
    for client in clients:
        assert client.read(4) == b'\x40\x02\x00\x01'
    wait_until(lambda: server.metrics().get_sum('spindle_bus_memory_bytes', use='packets') == 0, 'the memory is given back')


def test_slow_subscribers_together_stay_within_the_budget(spindle, connect, raw):
    """None of them is at its own limit. QoS 0 to them is dropped by reason; one that reads gets everything."""
    server = spindle(settings={'bus.memory_max': '16MiB', **HOUR}).start()
    slow = [raw(server, b'slow%d' % i) for i in range(12)]
    for client in slow:
        client.send(subscribe(b's/#', qos=0))
        client.read(5)
    quick, publisher = connect(server), connect(server)
    quick.subscribe('q', qos=0)
    rounds = 0
    while dropped(server, 'memory') < 100:
        for _ in range(10):
            publisher.publish('s/1', bytes(60000))
            publisher.publish('q', b'on')
            assert quick.take()[0].payload == b'on'
        rounds += 10
        assert server.metrics().get_sum('spindle_bus_memory_bytes', use='queues') <= 16 * MIB
        assert rounds < 3000, 'nothing is dropped'
    assert closed(server, 'slow') == closed(server, 'limit') == dropped(server, 'queue_full') == 0


def test_acknowledged_messages_wait_for_the_budget_until_the_slow_are_gone(spindle, connect, raw):
    server = spindle(settings={'bus.memory_max': '16MiB', 'bus.stall_timeout_s': 2}).start()
    slow = [raw(server, b'slow%d' % i) for i in range(12)]
    for i, client in enumerate(slow):
        client.send(subscribe(b's/%d' % i))
        client.read(5)
    publishers = [connect(server) for _ in slow]
    tokens = [publisher.post('s/%d' % i, bytes(60000)) for i, publisher in enumerate(publishers) for _ in range(200)]
    most = 0
    while closed(server, 'slow') < len(slow):
        most = max(most, server.metrics().get_sum('spindle_bus_memory_bytes', use='queues'))
    assert 4 * MIB < most <= 16 * MIB
    for token in tokens:
        token.wait_for_publish(DEADLINE_S)
        assert token.is_published()


def test_memory_in_which_nothing_waits_holds_nobody_back(spindle, connect, raw):
    """Each of many clients keeps a buffer of 16 KiB for its next message: together more than half the budget."""
    server = spindle(settings={'bus.memory_max': '16MiB', **HOUR}).start()
    clients = [raw(server, b'client%d' % i) for i in range(650)]
    for client in clients:
        client.send(subscribe(b't'))
        client.read(5)
    publisher = connect(server)
    for size in (12000, 10):
        publisher.publish('t', bytes(size))
        for client in clients:
            reader = Reader(client)
            reader.take(3, 1)
    assert server.metrics().get_sum('spindle_bus_memory_bytes', use='queues') == 0
    assert server.metrics().get_sum('spindle_bus_paused') == 0


# ---- connections and files ----

def test_without_file_descriptors_clients_wait_and_are_accepted_later(spindle, connect):
    server = spindle().start()
    clients = [connect(server) for _ in range(3)]
    open_files = int(server.metrics().get_sum('process_open_fds'))
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (open_files - 2, hard))
    with RawClient(server.port) as waiting:
        waiting.send(b'\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01w')
        wait_until(lambda: 'cannot accept a connection' in server.stderr(), 'it says so')
        clients[0].publish('a', b'served')
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert waiting.read(4) == b'\x20\x02\x00\x00'


def test_a_low_limit_of_open_files_is_a_lower_limit_of_connections(spindle):
    server = spindle(settings={'bus.max_connections': 1000000})
    server.start()
    assert re.search(r'at most \d+ connections instead of 1000000 \(bus.max_connections\)', server.stderr())


def test_a_refused_connection_is_named(spindle, connect):
    server = spindle(settings={'bus.max_connections': 1}).start()
    connect(server)
    with RawClient(server.port) as refused:
        port = refused.socket.getsockname()[1]
        assert refused.read_until_closed() == b''
    assert 'a connection from 127.0.0.1:%d was refused: 1 are open' % port in server.stderr()


# ---- time ----

def test_keep_alive_is_shortened_and_told(spindle, raw):
    server = spindle(settings={'bus.keep_alive_max_s': 1}).start()
    client = RawClient(server.port)
    with client:
        assert b'\x13\x00\x01' in client.connect(b'sleeper', version=5, keepalive=600)  # Server Keep Alive 1
        assert client.read_until_closed()[:3:2] == b'\xe0\x8d'  # DISCONNECT, keep alive timeout
    assert closed(server, 'keep_alive') == 1


def test_a_large_packet_on_a_slow_link_is_a_sign_of_life(spindle, connect):
    server = spindle().start()
    witness = connect(server)
    witness.subscribe('t')
    with RawClient(server.port) as slow:
        slow.connect(b'trickle', keepalive=1)
        whole = publish(b't', bytes(100000))
        for i in range(0, len(whole), 8000):  # 13 pieces: 3.9 s, and more than once and a half the keep alive
            slow.send(whole[i:i + 8000])
            time.sleep(0.3)
        assert len(witness.take()[0].payload) == 100000


def test_a_connect_that_trickles_is_given_ten_seconds(spindle):
    server = spindle().start()
    with RawClient(server.port) as slow:
        began = time.monotonic()
        slow.send(b'\x10\x7f\x00\x04MQTT\x04\x02\x00\x3c\x00\x71')
        with pytest.raises((ConnectionError, AssertionError)):
            while time.monotonic() - began < 2 * DEADLINE_S:
                slow.send(b'x')
                if select.select([slow.socket], [], [], 0.5)[0]:
                    assert slow.socket.recv(10), 'closed'
        assert 9.5 <= time.monotonic() - began <= 10 + DEADLINE_S / 2


@pytest.mark.skipif(SANITIZED, reason='sanitizers have threads of their own')
def test_nothing_runs_while_clients_are_idle(spindle, raw):
    server = spindle(settings={'bus.threads': 2}).start()
    clients = [raw(server, b'idle%d' % i) for i in range(6)]
    clients[0].send(subscribe(b'i/#'))
    clients[0].read(5)
    clients[1].send(publish(b'i/1', bytes(100000), 1))
    clients[1].read(4)
    Reader(clients[0]).take(3, 1)
    quiet_s, deadline = 1.5, time.monotonic() + DEADLINE_S
    while True:  # what was begun ends first
        before = switches(server)
        time.sleep(quiet_s)
        after = switches(server)
        awake = {thread: after[thread] - before.get(thread, 0) for thread in after if after[thread] != before.get(thread, 0)}
        if not awake:
            break
        assert time.monotonic() < deadline, 'threads of an idle server wake up: %s' % awake


# ---- the end of a connection ----

def test_a_busy_connection_gets_what_is_queued_and_then_a_goodbye(spindle, connect):
    server = spindle().start()
    with RawClient(server.port) as old:
        old.connect(b'drill-7', version=5)
        old.send(packet(0x82, b'\x00\x01\x00\x00\x01a\x00'))
        old.read(6)
        publisher = connect(server)
        count = 200
        for _ in range(count):
            publisher.publish('a', bytes(65536))
        publisher.publish('a', b'last')
        connect(server, client_id='drill-7', version=V5)
        data = old.read_until_closed()
    assert len(data) > count * 65536
    data = without_reason(data)
    assert data[-3:] == b'\xe0\x01\x8e', data[-16:]  # DISCONNECT, session taken over
    assert b'last' in data[-16:]


def test_a_stop_says_goodbye_on_every_loop(spindle, connect):
    server = spindle(settings={'bus.threads': 4}).start()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port)) for _ in range(20)]
        for i, client in enumerate(clients):
            client.connect(b'c%d' % i, version=5)
            client.send(packet(0x82, b'\x00\x01\x00\x00\x01#\x01'))
            client.read(6)
        publisher = connect(server)
        for i in range(50):
            publisher.publish('x/%d' % i, bytes(1000))
        server.stop()
        for client in clients:
            data = without_reason(client.read_until_closed())
            assert data.count(b'x/') == 50 and data[-3:] == b'\xe0\x01\x8b', data[-16:]
